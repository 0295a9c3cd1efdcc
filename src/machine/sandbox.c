/* The sandbox, see sandbox.h: building it, and telling of calls that it forbids.
 * Sources: prctl(2) (PR_SET_NO_NEW_PRIVS), seccomp(2) (SECCOMP_RET_TRAP), sigaction(2).
 *
 * A forbidden call raises SIGSYS on its thread. The handler writes a sentence and gives the terminal back, then asks for a
 * change of SIGSYS's handling, which the filter answers by ending the process. With --seccomp log the call fails instead.
 */
#include "machine/sandbox.h"

#include <errno.h>
#include <seccomp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <ucontext.h>
#include <unistd.h>

#include "base/err.h"
#include "base/log.h"
#include "machine/config.h"
#include "machine/console.h"

#define SANDBOX_NAMES 512 /* system calls; those beyond are told by number */
#define SANDBOX_LINES 1000

#ifndef SYS_SECCOMP
#define SYS_SECCOMP 1
#endif

/* The process's: what the handler needs, ready beforehand because it may neither allocate nor look anything up. */
static struct {
    enum sandbox_mode mode;
    _Atomic unsigned lines;
    char name[SANDBOX_NAMES][24];
    bool prepared, vsock;                  /* filter[] is there, for machines with --vsock */
    struct guard_fence filter[GUARD_KINDS]; /* for any process, kept until this one ends */
} sandbox_process;

static void sandbox_names(void)
{
    for (int n = 0; n < SANDBOX_NAMES; n++) {
        char *name = seccomp_syscall_resolve_num_arch(SCMP_ARCH_NATIVE, n);

        snprintf(sandbox_process.name[n], sizeof(sandbox_process.name[n]), "%s", name ? name : "?");
        free(name);
    }
}

/* Async-signal-safe: snprintf() with these formats does not allocate in any libc that vitro is built for. */
static void sandbox_tell(int nr)
{
    const char *name = nr >= 0 && nr < SANDBOX_NAMES ? sandbox_process.name[nr] : "?";
    char line[200];
    int n = snprintf(line, sizeof(line), "vitro: the sandbox forbids a thread of kind '%s' the system call %s (%d)%s\n",
                     guard_names[guard_inside()], name, nr,
                     sandbox_process.mode == SANDBOX_ON ? ": this is a defect of vitro or an attack" : "");

    if (atomic_fetch_add(&sandbox_process.lines, 1) < SANDBOX_LINES && write(STDERR_FILENO, line, (size_t)n) < 0)
        return; /* nowhere left to complain */
}

static void sandbox_caught(int sig, siginfo_t *si, void *context)
{
    ucontext_t *uc = context;
    int saved = errno;

    if (si->si_code == SYS_SECCOMP)
        sandbox_tell(si->si_syscall);
    if (si->si_code == SYS_SECCOMP && sandbox_process.mode == SANDBOX_LOG) {
        uc->uc_mcontext.gregs[REG_RAX] = -ENOSYS;
        errno = saved;
        return;
    }
    console_rescue();
    signal(SIGSYS, SIG_DFL); /* inside a fence the process ends here */
    raise(SIGSYS);
}

static int sandbox_catch(enum sandbox_mode mode)
{
    struct sigaction sa = { .sa_sigaction = sandbox_caught, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER };

    sandbox_process.mode = mode;
    sigemptyset(&sa.sa_mask);
    return sigaction(SIGSYS, &sa, NULL) < 0 ? -errno : 0;
}

void sandbox_probe(struct sandbox_host *h)
{
    *h = (struct sandbox_host){ .seccomp = sandbox_can_filter(), .landlock = sandbox_landlock_version() };
}

void sandbox_describe(const struct sandbox_host *h, char *out, size_t len)
{
    if (!h->seccomp)
        snprintf(out, len, "not possible: this kernel cannot filter system calls (seccomp); 'vitro run' needs --seccomp off");
    else if (!h->landlock)
        snprintf(out, len, "on: system calls are filtered by thread (seccomp); files are not fenced off: there is no Landlock");
    else
        snprintf(out, len,
                 "on: system calls are filtered by thread (seccomp), files fenced off (Landlock %d)%s", h->landlock,
                 h->landlock < 2 ? " but for shares, which need Landlock 2" : "");
}

static int sandbox_compile(bool vsock)
{
    int r = 0;

    if (sandbox_process.prepared && sandbox_process.vsock == vsock)
        return 0;
    if (!sandbox_process.name[0][0])
        sandbox_names();
    sandbox_process.prepared = false;
    for (unsigned k = GUARD_MAIN; r == 0 && k < GUARD_KINDS; k++) {
        free(sandbox_process.filter[k].filter);
        sandbox_process.filter[k] = (struct guard_fence){ .files = -1 };
        r = sandbox_filter((enum guard_kind)k, vsock, &sandbox_process.filter[k]);
    }
    sandbox_process.prepared = r == 0;
    sandbox_process.vsock = vsock;
    return r;
}

/* With the agent it gets a socket device later. */
static bool sandbox_wants_vsock(const struct machine_config *cfg) { return cfg->vsock_path || cfg->agent; }

int sandbox_prepare(const struct machine_config *cfg, struct err *err)
{
    int r = cfg->seccomp == SANDBOX_OFF || !sandbox_can_filter() ? 0 : sandbox_compile(sandbox_wants_vsock(cfg));

    return r < 0 ? err_set(err, -r, "cannot make the sandbox's filters: %s", strerror(-r)) : 0;
}

/* Fences for all kinds; what was made is in fence[] also on failure. */
static int sandbox_build(const struct machine_config *cfg, const int folders[2], struct guard_fence fence[GUARD_KINDS],
                         struct err *err)
{
    char note[256];
    int r = sandbox_compile(sandbox_wants_vsock(cfg));

    for (unsigned k = 0; k < GUARD_KINDS; k++)
        fence[k] = (struct guard_fence){ .files = -1 };
    for (unsigned k = GUARD_MAIN; r == 0 && k < GUARD_KINDS; k++)
        r = sandbox_filter_copy(&sandbox_process.filter[k], getpid(), &fence[k]);
    if (r < 0)
        return err_set(err, -r, "cannot make the sandbox's filters: %s", strerror(-r));
    r = sandbox_files(cfg, folders, fence, note, sizeof(note), err);
    if (r == 0 && note[0])
        log_msg(LOG_WARN, "sandbox: %s", note);
    return r;
}

int sandbox_init(const struct machine_config *cfg, int folder, int parent, struct err *err)
{
    const int folders[2] = { folder, parent };
    struct guard_fence fence[GUARD_KINDS];
    int r;

    if (cfg->seccomp == SANDBOX_OFF)
        return 0;
    if (!sandbox_can_filter())
        return err_set(err, ENOTSUP,
                       "this kernel cannot filter system calls (seccomp), which vitro's sandbox needs: if you trust the "
                       "guest, run it with --seccomp off");
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return err_set(err, errno, "cannot give up new privileges: %s", strerror(errno));
    r = sandbox_catch(cfg->seccomp);
    if (r < 0)
        return err_set(err, -r, "cannot catch SIGSYS: %s", strerror(-r));
    r = sandbox_build(cfg, folders, fence, err);
    guard_arm(fence);
    if (r < 0)
        guard_disarm();
    return r;
}

void sandbox_fini(void) { guard_disarm(); }

int sandbox_enter(struct err *err)
{
    int r = guard_enter(GUARD_MAIN);

    return r < 0 ? err_set(err, -r, "cannot enter the sandbox: %s", strerror(-r)) : 0;
}
