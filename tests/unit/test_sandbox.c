/* The sandbox: in each kind of thread forbidden calls end the process or are refused, what is needed works, and files
 * outside are out of reach. Each case is a process of its own, because a fence is for good. */
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/bits.h"
#include "base/err.h"
#include "base/thread.h"
#include "machine/config.h"

/* What a thread does, and what came of it: 0 or an errno value. */
struct deed {
    const char *name; /* as the message has it */
    int (*fn)(void);
};

struct outcome {
    bool killed;
    int status; /* of the process, or the errno value of the deed */
    char said[2048];
};

static char dir[64]; /* the case's folder: in/ is shared, out/ is not */
static bool share_ro;

static int result(long r) { return r < 0 ? errno : 0; }

/* ---- deeds ---- */

static int do_exec(void) { return result(syscall(SYS_execve, "/bin/true", NULL, NULL)); }
static int do_packet(void) { return result(socket(AF_PACKET, SOCK_RAW, 0)); }
static int do_ptrace(void) { return result(ptrace(PTRACE_TRACEME, 0, NULL, NULL)); }
static int do_process(void) { return result(syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, 0)); }
static int do_kill(void) { return result(kill(1, 0)); }
static int do_setuid(void) { return result(syscall(SYS_setuid, 0)); }
static int do_unshare(void) { return result(syscall(SYS_unshare, 0)); }
static int do_memfd(void) { return result(memfd_create("x", 0)); }
static int do_ring(void) { return result(syscall(SYS_io_uring_setup, 0, NULL)); }
static int do_ring_register(void) { return result(syscall(SYS_io_uring_register, -1, 0, NULL, 0)); }
static int do_ioctl(void) { return result(syscall(SYS_ioctl, 0, 0x5412 /* TIOCSTI */, "x")); }
static int do_mmap(void)
{
    return mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED ? errno : 0;
}
static int do_mprotect(void)
{
    return result(mprotect((void *)((uintptr_t)do_mprotect & ~4095UL), 4096, PROT_READ | PROT_EXEC));
}
static int do_sigsys(void) { return signal(SIGSYS, SIG_IGN) == SIG_ERR ? errno : 0; }
static int do_x32(void) { return result(syscall(0x40000000 | SYS_getpid)); }

static int do_open(void) { return result(open("/etc/passwd", O_RDONLY)); }
static int do_tcp(void) { return result(socket(AF_INET, SOCK_STREAM, 0)); }
static int do_local(void) { return result(socket(AF_UNIX, SOCK_DGRAM, 0)); }

/* What every thread does: memory, waiting, descriptors. */
static int do_common(void)
{
    uint64_t one = 1;
    uint32_t word = 0;
    char *p = malloc(1 << 20);

    if (!p)
        return ENOMEM;
    memset(p, 1, 1 << 20);
    free(p);
    p = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED || mprotect(p, 4096, PROT_READ) < 0 || madvise(p + 4096, 4096, MADV_DONTNEED) < 0)
        return errno;
    munmap(p, 8192);
    syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
    return write(3, &one, sizeof(one)) == sizeof(one) && read(3, &one, sizeof(one)) == sizeof(one) ? 0 : errno;
}

static int in_dir(const char *rest, int flags)
{
    char path[128];
    int fd;

    snprintf(path, sizeof(path), "%s/%s", dir, rest);
    fd = open(path, flags, 0600);
    return result(fd);
}

static int do_read_in(void) { return in_dir("in/file", O_RDONLY); }
static int do_read_out(void) { return in_dir("out/file", O_RDONLY); }
static int do_make_in(void) { return in_dir("in/new", O_WRONLY | O_CREAT); }
static int do_make_out(void) { return in_dir("out/new", O_WRONLY | O_CREAT); }
static int move(const char *from, const char *to)
{
    char a[128], b[128];

    snprintf(a, sizeof(a), "%s/%s", dir, from);
    snprintf(b, sizeof(b), "%s/%s", dir, to);
    return result(syscall(SYS_renameat2, AT_FDCWD, a, AT_FDCWD, b, 0));
}
static int do_move_inside(void) { return move("in/file", "in/sub/file"); }
static int do_move_away(void) { return move("in/file", "out/away"); }
static int unlink_at(const char *rest)
{
    char path[128];

    snprintf(path, sizeof(path), "%s/%s", dir, rest);
    return result(unlink(path));
}
static int do_unlink_in(void) { return unlink_at("in/file"); }
static int do_unlink_out(void) { return unlink_at("out/file"); }

/* Started from within: the same fence, not one more around it. */
static void *grandchild(void *opaque)
{
    *(int *)opaque = do_open();
    return NULL;
}
static int do_thread(void)
{
    pthread_t t;
    int seen = -1, r = thread_start(&t, guard_inside(), grandchild, &seen);

    if (r < 0)
        return -r;
    pthread_join(t, NULL);
    return seen == EACCES ? 0 : 999;
}

/* ---- running them ---- */

static void *deed_thread(void *opaque) { return (void *)(intptr_t)((struct deed *)opaque)->fn(); }

/* In the child: a machine's sandbox, a thread in it. */
static int child(enum guard_kind kind, const char *mode, const struct deed *deed)
{
    struct machine_config cfg;
    char share[128], serial[128];
    void *r = NULL;
    pthread_t t;

    dup2(eventfd(0, EFD_NONBLOCK), 3);
    snprintf(share, sizeof(share), "%s/in%s", dir, share_ro ? ",ro" : "");
    snprintf(serial, sizeof(serial), "unix:%s/in/socket", dir);
    if (config_init(&cfg) < 0 || config_set(&cfg, "share", share, NULL) < 0 ||
        config_set(&cfg, "serial", serial, NULL) < 0 || config_set(&cfg, "seccomp", mode, NULL) < 0 ||
        sandbox_init(&cfg, -1, -1, NULL) < 0)
        return 200;
    if (kind == GUARD_MAIN)
        return sandbox_enter(NULL) < 0 ? 201 : deed->fn();
    if (thread_start(&t, kind, deed_thread, (void *)(uintptr_t)deed) < 0)
        return 202;
    pthread_join(t, &r);
    return (int)(intptr_t)r;
}

static void run(enum guard_kind kind, const char *mode, const struct deed *deed, struct outcome *o)
{
    int pipefd[2], status;
    size_t used = 0;
    ssize_t n;
    pid_t pid;

    memset(o, 0, sizeof(*o));
    assert_int_equal(pipe(pipefd), 0);
    pid = fork();
    if (pid == 0) {
        dup2(pipefd[1], STDERR_FILENO);
        close(pipefd[0]);
        _exit(child(kind, mode, deed));
    }
    close(pipefd[1]);
    while ((n = read(pipefd[0], o->said + used, sizeof(o->said) - 1 - used)) > 0)
        used += (size_t)n;
    close(pipefd[0]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    o->killed = WIFSIGNALED(status);
    o->status = o->killed ? WTERMSIG(status) : WEXITSTATUS(status);
}

static void expect(enum guard_kind kind, const struct deed *deed, int status)
{
    struct outcome o;

    run(kind, "on", deed, &o);
    if (o.killed || o.status != status)
        fail_msg("%s, %s: %s %d, not %d: %s", guard_names[kind], deed->name, o.killed ? "signal" : "status", o.status,
                 status, o.said);
}

/* By filters that another process has compiled, the calls that name one's own process are about this one. */
static int do_own(void) { return result(syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), 0)); }
static pid_t parent;
static int do_parents(void) { return result(syscall(SYS_tgkill, parent, parent, 0)); }

static const struct deed forbidden[] = {
    { "execve", do_exec },     { "socket", do_packet }, { "ptrace", do_ptrace },     { "clone", do_process },
    { "kill", do_kill },       { "setuid", do_setuid }, { "unshare", do_unshare },   { "memfd_create", do_memfd },
    { "ioctl", do_ioctl },     { "mmap", do_mmap },     { "mprotect", do_mprotect },
    { "io_uring_setup", do_ring },                      { "io_uring_register", do_ring_register },
};

/* ---- cases ---- */

static void test_forbidden(void **state)
{
    for (unsigned k = GUARD_MAIN; k < GUARD_KINDS; k++) {
        for (unsigned n = 0; n < ARRAY_LEN(forbidden); n++) {
            struct outcome o;
            char words[64];

            run(k, "on", &forbidden[n], &o);
            snprintf(words, sizeof(words), "'%s' the system call %s (", guard_names[k], forbidden[n].name);
            if (!o.killed || o.status != SIGSYS || !strstr(o.said, words))
                fail_msg("%s, %s: %s %d: %s", guard_names[k], forbidden[n].name, o.killed ? "signal" : "status", o.status,
                         o.said);
        }
    }
}

/* Nobody takes the handler away, and no other ABI is a way round. */
static void test_for_good(void **state)
{
    static const struct deed deeds[] = { { "rt_sigaction", do_sigsys }, { "x32", do_x32 } };

    for (unsigned k = GUARD_MAIN; k < GUARD_KINDS; k++) {
        for (unsigned n = 0; n < ARRAY_LEN(deeds); n++) {
            struct outcome o;

            run(k, "on", &deeds[n], &o);
            if (!o.killed || o.status != SIGSYS)
                fail_msg("%s, %s: %d", guard_names[k], deeds[n].name, o.status);
        }
    }
}

static void test_prepared(void **state)
{
    static const struct deed own = { "own", do_own }, parents = { "tgkill", do_parents };
    struct machine_config cfg;

    parent = getpid();
    assert_int_equal(config_init(&cfg), 0);
    for (unsigned twice = 0; twice < 2; twice++) {
        for (unsigned k = GUARD_MAIN; k < GUARD_KINDS; k++) {
            struct outcome o;

            expect(k, &own, 0);
            run(k, "on", &parents, &o);
            if (!o.killed || o.status != SIGSYS || !strstr(o.said, "tgkill"))
                fail_msg("%s: %d %s", guard_names[k], o.status, o.said);
        }
        assert_int_equal(sandbox_prepare(&cfg, NULL), 0); /* this process's, for all cases that follow */
    }
    config_fini(&cfg);
}

static void test_log(void **state)
{
    for (unsigned k = GUARD_MAIN; k < GUARD_KINDS; k++) {
        struct outcome o;

        run(k, "log", &forbidden[0], &o);
        if (o.killed || o.status != ENOSYS || !strstr(o.said, "the system call execve (59)"))
            fail_msg("%s: %d %s", guard_names[k], o.status, o.said);
    }
}

static void test_needed(void **state)
{
    static const struct deed common = { "common", do_common }, thread = { "thread", do_thread };

    for (unsigned k = GUARD_MAIN; k < GUARD_KINDS; k++)
        expect(k, &common, 0);
    expect(GUARD_MAIN, &thread, 0);
    expect(GUARD_BLOCK, &thread, 0);
}

static void test_sockets(void **state)
{
    static const struct deed tcp = { "tcp", do_tcp }, local = { "local", do_local };
    struct outcome o;

    expect(GUARD_NET_USER, &tcp, 0);
    expect(GUARD_NET_SWITCH, &local, 0);
    run(GUARD_NET_USER, "on", &local, &o);
    assert_true(o.killed);
    run(GUARD_NET_SWITCH, "on", &tcp, &o);
    assert_true(o.killed);
    run(GUARD_NET, "on", &tcp, &o);
    assert_true(o.killed);
}

static void test_off(void **state)
{
    static const struct deed open_deed = { "openat", do_open };
    struct outcome o;

    for (unsigned k = GUARD_MAIN; k < GUARD_KINDS; k++) {
        run(k, "off", &open_deed, &o);
        assert_int_equal(o.status, 0);
        assert_string_equal(o.said, "");
    }
}

static void make(const char *rest, bool folder)
{
    char path[128];

    snprintf(path, sizeof(path), "%s/%s", dir, rest);
    if (folder)
        assert_int_equal(mkdir(path, 0700), 0);
    else
        assert_int_equal(close(creat(path, 0600)), 0);
}

static void need_landlock(int version)
{
    if (sandbox_landlock_version() < version) {
        print_message("this kernel's Landlock is version %d, not %d\n", sandbox_landlock_version(), version);
        skip();
    }
}

static void test_files(void **state)
{
    static const struct deed passwd = { "openat", do_open };

    for (unsigned k = GUARD_MAIN; k < GUARD_KINDS; k++) {
        if (k != GUARD_SHARE && k != GUARD_NET_USER)
            expect(k, &passwd, EACCES);
    }
    need_landlock(1);
    expect(GUARD_SHARE, &passwd, EACCES);
    expect(GUARD_NET_USER, &passwd, EACCES);
}

static void test_share(void **state)
{
    static const struct deed read_in = { "", do_read_in }, read_out = { "", do_read_out }, make_in = { "", do_make_in },
                             make_out = { "", do_make_out }, inside = { "", do_move_inside },
                             away = { "", do_move_away };

    need_landlock(2);
    share_ro = true;
    expect(GUARD_SHARE, &read_in, 0);
    expect(GUARD_SHARE, &make_in, EACCES);
    expect(GUARD_SHARE, &inside, EACCES);
    share_ro = false;
    expect(GUARD_SHARE, &read_in, 0);
    expect(GUARD_SHARE, &read_out, EACCES);
    expect(GUARD_SHARE, &make_in, 0);
    expect(GUARD_SHARE, &make_out, EACCES);
    expect(GUARD_SHARE, &away, EACCES);
    expect(GUARD_SHARE, &inside, 0);
    assert_int_equal(move("in/sub/file", "in/file"), 0);
}

/* The folder of a serial port's socket. */
static void test_unlink(void **state)
{
    static const struct deed in = { "", do_unlink_in }, out = { "", do_unlink_out };

    need_landlock(1);
    expect(GUARD_MAIN, &out, EACCES);
    expect(GUARD_MAIN, &in, 0);
    make("in/file", false);
}

static int setup(void **state)
{
    strcpy(dir, "/tmp/vitro-sandbox-XXXXXX");
    if (!mkdtemp(dir))
        return -1;
    make("in", true);
    make("out", true);
    make("in/sub", true);
    make("in/file", false);
    make("out/file", false);
    return 0;
}

static int teardown(void **state)
{
    char command[128];

    snprintf(command, sizeof(command), "rm -rf '%s'", dir);
    return system(command);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_prepared), cmocka_unit_test(test_forbidden), cmocka_unit_test(test_for_good), cmocka_unit_test(test_log),
        cmocka_unit_test(test_needed),    cmocka_unit_test(test_sockets),  cmocka_unit_test(test_off),
        cmocka_unit_test(test_files),     cmocka_unit_test(test_share),    cmocka_unit_test(test_unlink),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
