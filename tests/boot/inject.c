/* Make system calls in the threads of a running vitro, as code that took a thread over would, and print what came of them.
 *
 * usage: inject PID FILE           every thread: a raw socket, execve, opening /etc/passwd, opening FILE
 *        inject PID NAME execve    the first thread of that name: execve only
 * A line for each call: the thread's id and name, the call, the result (-ERRNO), or "killed".
 *
 * By ptrace(2): the program's entry becomes "syscall; int3" with the file's name behind it; a thread is sent there, and comes back
 * with the registers that it had.
 */
#include <dirent.h>
#include <elf.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#define TEXT_AT 16 /* the file's name, behind the code */

static int fail(const char *what)
{
    perror(what);
    return 1;
}

static uint64_t entry_of(int pid)
{
    char path[64];
    Elf64_auxv_t a;
    uint64_t entry = 0;

    snprintf(path, sizeof(path), "/proc/%d/auxv", pid);
    FILE *f = fopen(path, "r");
    while (f && fread(&a, sizeof(a), 1, f) == 1) {
        if (a.a_type == AT_ENTRY)
            entry = a.a_un.a_val;
    }
    if (f)
        fclose(f);
    return entry;
}

/* len is a multiple of 8. The thread is stopped. */
static void poke(int tid, uint64_t at, const unsigned char *data, size_t len)
{
    for (size_t n = 0; n < len; n += 8) {
        long word;
        memcpy(&word, data + n, 8);
        ptrace(PTRACE_POKETEXT, tid, at + n, word);
    }
}

static void peek(int tid, uint64_t at, unsigned char *data, size_t len)
{
    for (size_t n = 0; n < len; n += 8) {
        long word = ptrace(PTRACE_PEEKTEXT, tid, at + n, 0);
        memcpy(data + n, &word, 8);
    }
}

static int wait_for(int tid, int *status)
{
    int r;

    do
        r = waitpid(tid, status, __WALL);
    while (r < 0 && errno == EINTR);
    return r < 0 || !WIFSTOPPED(*status) ? -1 : WSTOPSIG(*status);
}

/* Run one call in the stopped thread; false: the process is gone. */
static int run(int tid, uint64_t entry, const char *text, const uint64_t call[4], long *result)
{
    struct user_regs_struct saved, regs;
    unsigned char code[TEXT_AT + 256] = { 0x0f, 0x05, 0xcc }, before[sizeof(code)];
    int status, sig;

    snprintf((char *)code + TEXT_AT, sizeof(code) - TEXT_AT, "%s", text);
    peek(tid, entry, before, sizeof(before));
    poke(tid, entry, code, sizeof(code));
    ptrace(PTRACE_GETREGS, tid, 0, &saved);
    regs = saved;
    regs.rip = entry;
    regs.rax = call[0];
    regs.rdi = call[1] == TEXT_AT ? entry + TEXT_AT : call[1];
    regs.rsi = call[2] == TEXT_AT ? entry + TEXT_AT : call[2];
    regs.rdx = call[3];
    regs.r10 = 0;
    regs.rsp = (saved.rsp - 1024) & ~15ULL;
    regs.orig_rax = (unsigned long long)-1; /* no call that was interrupted is to be repeated now */
    ptrace(PTRACE_SETREGS, tid, 0, &regs);
    ptrace(PTRACE_CONT, tid, 0, 0);
    while ((sig = wait_for(tid, &status)) >= 0 && sig != SIGTRAP)
        ptrace(PTRACE_CONT, tid, 0, sig);
    if (sig < 0)
        return 0;
    poke(tid, entry, before, sizeof(before));
    ptrace(PTRACE_GETREGS, tid, 0, &regs);
    *result = (long)regs.rax;
    if ((long)saved.orig_rax >= 0 && (long)saved.rax <= -512 && (long)saved.rax >= -516)
        saved.rax = (unsigned long long)-EINTR; /* the kernel would have repeated it */
    saved.orig_rax = (unsigned long long)-1;
    ptrace(PTRACE_SETREGS, tid, 0, &saved);
    return 1;
}

static void name_of(int pid, int tid, char name[32])
{
    char path[64];

    snprintf(path, sizeof(path), "/proc/%d/task/%d/comm", pid, tid);
    FILE *f = fopen(path, "r");
    name[0] = 0;
    if (f && fgets(name, 32, f))
        name[strcspn(name, "\n")] = 0;
    if (f)
        fclose(f);
}

/* All calls in one thread; false: the process is gone. */
static int thread(int pid, int tid, uint64_t entry, const char *file, int only_exec)
{
    static const struct {
        const char *name;
        uint64_t call[4];
    } calls[] = {
        { "execve", { SYS_execve, TEXT_AT, 0, 0 } },
        { "socket", { SYS_socket, AF_PACKET, SOCK_RAW, 0 } },
        { "passwd", { SYS_openat, (uint64_t)-100, TEXT_AT, 0 } },
        { "file", { SYS_openat, (uint64_t)-100, TEXT_AT, 0 } },
    };
    char name[32];
    int status;

    name_of(pid, tid, name);
    if (ptrace(PTRACE_SEIZE, tid, 0, 0) < 0 || ptrace(PTRACE_INTERRUPT, tid, 0, 0) < 0 || wait_for(tid, &status) < 0)
        return 1; /* it has ended meanwhile */
    for (unsigned n = 0; n < (only_exec ? 1 : 4); n++) {
        const char *text = n == 0 ? "/bin/true" : n == 3 ? file : "/etc/passwd";
        long result = 0;

        if (!run(tid, entry, text, calls[n].call, &result)) {
            printf("%d %s %s killed\n", tid, name, calls[n].name);
            return 0;
        }
        printf("%d %s %s %ld\n", tid, name, calls[n].name, result);
    }
    ptrace(PTRACE_DETACH, tid, 0, 0);
    return 1;
}

int main(int argc, char **argv)
{
    int only_exec = argc > 3, pid = argc > 2 ? atoi(argv[1]) : 0;
    uint64_t entry = entry_of(pid);
    char path[64], name[32];
    struct dirent *e;

    if (!entry)
        return fail("inject: usage, or no such process");
    snprintf(path, sizeof(path), "/proc/%d/task", pid);
    DIR *d = opendir(path);
    while (d && (e = readdir(d))) {
        int tid = atoi(e->d_name);
        if (tid <= 0)
            continue;
        name_of(pid, tid, name);
        if (only_exec && strcmp(name, argv[2]))
            continue;
        if (!thread(pid, tid, entry, argv[2], only_exec) || only_exec)
            break;
    }
    if (d)
        closedir(d);
    return 0;
}
