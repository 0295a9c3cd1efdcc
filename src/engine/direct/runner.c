/* Processes that run guest code. See runner.h, docs/design/direct.md.
 *
 * The stub, one page of code and the list behind it:
 *   serve: makes the calls at RBX one after the other; R12 and R13 are put over the fourth and fifth argument, whose upper halves mmap(2) and munmap(2) ignore;
 *          stops by INT3 behind the last (nr 0) or at the first that fails; or, behind the last, goes to where its first argument says that guest registers are
 *   go:    loads them
 *   leave: empties the address space around the stub, of the template
 */
#include "engine/direct/runner.h"

#include <asm/prctl.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/rseq.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/clock.h"
#include "ram/ram.h"

#define STUB_CODE  4096UL
#define STUB_LIST  (sizeof(struct runner_call) * (RUNNER_LIST + 8))
#define STUB_BYTES (STUB_CODE + STUB_LIST)
#define LIST_AT    (RUNNER_STUB + STUB_CODE)
#define FILE_FIRST 512 /* descriptors in a runner: this and the slot; anything else is closed */
#define FILES      (RUNNER_FILES + 1) /* RAM's, and the copies */
#define COPY_BYTES ((size_t)RUNNER_COPIES_MAX * PAGE_SIZE)
#define STUB_SERVE 0
#define STUB_CALL  43 /* behind serve's SYSCALL */
#define STUB_END   53 /* where it looks whether to go on */
#define FLAGS_PLAIN 0x202
#define FLAGS_RF    0x10000

#ifndef ARCH_SET_CPUID
#define ARCH_SET_CPUID 0x1012
#endif

/* The list's end has the filter while a runner is made, the template's first word from the monitor, and the guest's registers. */
#define LIST_SPARE (RUNNER_LIST + 1)
#define LIST_REGS  (RUNNER_LIST + 4)

static const uint8_t stub_code[] = {
    0x48, 0x8b, 0x03,             /* serve: mov (%rbx),%rax */
    0x48, 0x85, 0xc0,             /* test %rax,%rax */
    0x74, 0x2d,                   /* je end */
    0x48, 0x8b, 0x7b, 0x08,       /* mov 8(%rbx),%rdi */
    0x48, 0x8b, 0x73, 0x10,       /* mov 16(%rbx),%rsi */
    0x48, 0x8b, 0x53, 0x18,       /* mov 24(%rbx),%rdx */
    0x4c, 0x8b, 0x53, 0x20,       /* mov 32(%rbx),%r10 */
    0x4c, 0x8b, 0x43, 0x28,       /* mov 40(%rbx),%r8 */
    0x4c, 0x8b, 0x4b, 0x30,       /* mov 48(%rbx),%r9 */
    0x4d, 0x09, 0xe2,             /* or %r12,%r10 */
    0x4d, 0x09, 0xe8,             /* or %r13,%r8 */
    0x90, 0x90, 0x90,
    0x0f, 0x05,                   /* syscall */
    0x48, 0x83, 0xc3, 0x40,       /* STUB_CALL: add $64,%rbx */
    0x48, 0x85, 0xc0,             /* test %rax,%rax */
    0x79, 0xcc,                   /* jns serve */
    0xcc,                         /* done: int3 */
    0x48, 0x8b, 0x63, 0x08,       /* end: mov 8(%rbx),%rsp */
    0x48, 0x85, 0xe4,             /* test %rsp,%rsp */
    0x74, 0xf6,                   /* je done */
    0x66, 0x90,
    0x41, 0x5f, 0x41, 0x5e,       /* go: pop %r15; pop %r14 */
    0x41, 0x5d, 0x41, 0x5c,       /* pop %r13; pop %r12 */
    0x5d, 0x5b,                   /* pop %rbp; pop %rbx */
    0x41, 0x5b, 0x41, 0x5a,       /* pop %r11; pop %r10 */
    0x41, 0x59, 0x41, 0x58,       /* pop %r9; pop %r8 */
    0x58, 0x59, 0x5a, 0x5e, 0x5f, /* pop %rax; pop %rcx; pop %rdx; pop %rsi; pop %rdi: as struct user_regs_struct has them, */
    0x48, 0x8d, 0x64, 0x24, 0x08, /* lea 8(%rsp),%rsp: but for orig_rax */
    0x48, 0xcf,                   /* iretq */
};
_Static_assert(sizeof(struct runner_call) == 64, "as the stub steps");
_Static_assert(offsetof(struct user_regs_struct, orig_rax) == 15 * 8 && offsetof(struct user_regs_struct, ss) == 20 * 8, "as the stub pops");

/* vCPUs that are bound to each of the host's CPUs: those of a machine should not share one while another is free. */
static _Atomic unsigned runner_bound[CPU_SETSIZE];

/* -- what a tracer does -- */

static int runner_ptrace(int request, pid_t pid, uintptr_t addr, void *data)
{
    return syscall(SYS_ptrace, request, pid, addr, data) < 0 ? -errno : 0;
}

/* The status of its next stop; -ESRCH: it is gone. */
static int runner_wait(pid_t pid)
{
    int status;
    pid_t r;

    do
        r = (pid_t)syscall(SYS_wait4, pid, &status, __WALL, NULL);
    while (r < 0 && errno == EINTR);
    return r < 0 || !WIFSTOPPED(status) ? -ESRCH : status;
}

/* Wait for a trap in the stub; whatever else comes (a poke, a signal from outside) is not its matter. */
static int runner_trap(pid_t pid)
{
    for (;;) {
        int status = runner_wait(pid), r;

        if (status < 0)
            return status;
        if (status >> 16 == 0 && WSTOPSIG(status) == SIGTRAP)
            return 0;
        if (status >> 16 == 0 && (WSTOPSIG(status) == SIGSEGV || WSTOPSIG(status) == SIGSYS || WSTOPSIG(status) == SIGBUS))
            return -EFAULT;
        r = runner_ptrace(PTRACE_CONT, pid, 0, NULL);
        if (r < 0)
            return r;
    }
}

static const struct user_regs_struct no_regs;

/* Let it begin with the stub's list; what the stub does not need is as it will be behind. */
static int stub_begin(pid_t pid, const uint64_t secret[2], const struct user_regs_struct *behind)
{
    struct user_regs_struct regs = *behind;

    regs.rip = RUNNER_STUB + STUB_SERVE;
    regs.rbx = LIST_AT;
    regs.r12 = secret[0];
    regs.r13 = secret[1];
    regs.cs = 0x33;
    regs.ss = 0x2b;
    regs.eflags = FLAGS_PLAIN;
    regs.orig_rax = ~0ULL;
    int r = runner_ptrace(PTRACE_SETREGS, pid, 0, &regs);

    return r < 0 ? r : runner_ptrace(PTRACE_CONT, pid, 0, NULL);
}

/* Run the stub's list. The last call's result, or -errno. */
static int64_t stub_run(pid_t pid, const uint64_t secret[2])
{
    struct user_regs_struct regs;
    int r = stub_begin(pid, secret, &no_regs);

    if (r == 0)
        r = runner_trap(pid);
    if (r == 0)
        r = runner_ptrace(PTRACE_GETREGS, pid, 0, &regs);
    return r < 0 ? r : (int64_t)regs.rax;
}

static const uint64_t no_secret[2] = { 0, 0 };

/* -- the template -- */

/* In the child: no descriptor but those, at known numbers. */
static bool template_files(const int files[FILES])
{
    for (unsigned n = 0; n < FILES; n++)
        if (files[n] >= 0)
            syscall(SYS_dup3, files[n], FILE_FIRST + n, 0);
    bool ok = syscall(SYS_close_range, 0, FILE_FIRST - 1, 0) == 0;
    for (unsigned n = 0; n < FILES; n++)
        if (files[n] < 0)
            syscall(SYS_close, FILE_FIRST + n);
    return ok && syscall(SYS_close_range, FILE_FIRST + FILES, ~0U, 0) == 0;
}

static void template_habits(struct runner_call *list)
{
    const struct rlimit none = { 0, 0 };
    uint64_t no_signals = 0;

    syscall(SYS_rseq, (char *)__builtin_thread_pointer() + __rseq_offset, 32, RSEQ_FLAG_UNREGISTER, RSEQ_SIG); /* or the kernel writes there for ever */
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &no_signals, NULL, 8);
    syscall(SYS_setpgid, 0, 0); /* out of a terminal's reach, but not of the session: some hosts share CPU time out by sessions */
    syscall(SYS_setrlimit, RLIMIT_CORE, &none);
    syscall(SYS_prctl, PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    syscall(SYS_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    syscall(SYS_prctl, PR_SET_TSC, PR_TSC_SIGSEGV, 0, 0, 0);
    list[LIST_SPARE].arg[0] = syscall(SYS_arch_prctl, ARCH_SET_CPUID, 0) == 0;
}

/* Whoever traces the template could have it do anything that it may: so it may do nothing but what runners are made of. They inherit this. */
static bool template_fence(void)
{
#define ALLOW(call) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 1), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)
    struct sock_filter all[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        ALLOW(SYS_mmap), ALLOW(SYS_munmap), ALLOW(SYS_clone), ALLOW(SYS_seccomp), ALLOW(SYS_sched_yield),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_prctl, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[0])),
        ALLOW(PR_SET_TSC),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
    };
#undef ALLOW
    const struct sock_fprog prog = { ARRAY_LEN(all), all };

    return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &prog) == 0;
}

/* In the child, a copy of the monitor: it becomes the stub and nothing else. */
static _Noreturn void template_main(struct runner_call *list, const int files[FILES])
{
    volatile uint64_t *traced = &list[LIST_SPARE].spare;
    uint8_t *code = (uint8_t *)RUNNER_STUB;

    template_habits(list);
    bool ok = template_files(files);
    syscall(SYS_mmap, code, STUB_CODE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    memcpy(code, stub_code, sizeof(stub_code));
    syscall(SYS_mprotect, code, STUB_CODE, PROT_READ | PROT_EXEC);
    syscall(SYS_mremap, list, STUB_LIST, STUB_LIST, MREMAP_MAYMOVE | MREMAP_FIXED, LIST_AT);
    syscall(SYS_mprotect, LIST_AT, STUB_LIST, PROT_READ);
    if (!ok || !template_fence())
        syscall(SYS_exit_group, 1); /* a host without what makes it safe has no runners */
    traced = (volatile uint64_t *)(LIST_AT + ((uintptr_t)traced - (uintptr_t)list));
    while (!*traced)
        syscall(SYS_sched_yield);
    __asm__ volatile("xor %%r12d, %%r12d\n\txor %%r13d, %%r13d\n\tjmp *%0" : : "r"(RUNNER_STUB + STUB_SERVE), "b"(LIST_AT) : "memory");
    __builtin_unreachable();
}

static void runner_call_put(struct runner_call *c, uint64_t nr, uint64_t a, uint64_t b, uint64_t d)
{
    *c = (struct runner_call){ .nr = nr, .arg = { a, b, d } };
}

static int template_trace(struct runners *all)
{
    long options = PTRACE_O_EXITKILL | PTRACE_O_TRACECLONE | PTRACE_O_TRACEFORK;
    int r = runner_ptrace(PTRACE_SEIZE, all->template, 0, (void *)options);

    runner_call_put(&all->list[0], SYS_munmap, 0, RUNNER_STUB, 0);
    runner_call_put(&all->list[1], SYS_munmap, RUNNER_STUB + STUB_BYTES, RUNNER_TOP - RUNNER_STUB - STUB_BYTES, 0);
    runner_call_put(&all->list[2], 0, 0, 0, 0);
    atomic_thread_fence(memory_order_seq_cst);
    if (r < 0)
        return r;
    __atomic_store_n(&all->list[LIST_SPARE].spare, 1, __ATOMIC_RELEASE);
    return runner_trap(all->template);
}

/* The file of copies; *fd is only needed for the template. */
static int runners_init_copies(struct runners *all, int *fd)
{
    *fd = memfd_create("copies", MFD_CLOEXEC);
    if (*fd < 0 || ftruncate(*fd, COPY_BYTES) < 0)
        return -errno;
    all->copies = mmap(NULL, COPY_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, *fd, 0);
    if (all->copies == MAP_FAILED) {
        all->copies = NULL;
        return -ENOMEM;
    }
    return 0;
}

static int runners_init_template(struct runners *all, const int ram[RUNNER_FILES], int copies)
{
    int files[FILES];

    memcpy(files, ram, RUNNER_FILES * sizeof(*files));
    files[RUNNER_COPIES] = copies;
    pid_t pid = (pid_t)syscall(SYS_clone, 0, 0, 0, 0, 0); /* fork(2) without a signal at its end */
    if (pid == 0)
        template_main(all->list, files);
    all->template = pid > 0 ? pid : 0;
    int r = pid < 0 ? -errno : template_trace(all);
    if (r < 0 && pid > 0)
        kill(pid, SIGKILL); /* it waits to be traced */
    return r;
}

int runners_init(struct runners *all, const int files[RUNNER_FILES])
{
    int copies;

    *all = (struct runners){ .thread = (pid_t)syscall(SYS_gettid), .cpu = -1 };
    all->list = mmap(NULL, STUB_LIST, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (all->list == MAP_FAILED) {
        all->list = NULL;
        return -ENOMEM;
    }
    int r = runners_init_copies(all, &copies);
    if (r == 0)
        r = runners_init_template(all, files, copies);
    if (copies >= 0)
        close(copies);
    if (r < 0)
        runners_fini(all);
    else
        all->cpuid_faults = all->list[LIST_SPARE].arg[0];
    return r;
}

int runners_set_tsc(struct runners *all, bool plain)
{
    runner_call_put(&all->list[0], SYS_prctl, PR_SET_TSC, plain ? PR_TSC_ENABLE : PR_TSC_SIGSEGV, 0);
    runner_call_put(&all->list[1], 0, 0, 0, 0);
    int64_t r = stub_run(all->template, no_secret);
    if (r == 0)
        all->tsc_plain = plain;
    return (int)r;
}

/* Elsewhere than on its tracer's thread, that one has ended, and what it traced with it. */
static void runner_kill(const struct runners *all, pid_t pid)
{
    bool tracer = all->thread == (pid_t)syscall(SYS_gettid);

    if (tracer)
        runner_ptrace(PTRACE_KILL, pid, 0, NULL);
    while (runner_wait(pid) >= 0 && tracer)
        runner_ptrace(PTRACE_CONT, pid, 0, (void *)SIGKILL);
}

/* Its thread is on its CPU no more, or will not be. */
static void runner_unbind(struct runners *all)
{
    if (all->joined)
        atomic_fetch_sub(&runner_bound[all->cpu], 1);
    all->joined = false;
    all->cpu = -1;
}

void runners_fini(struct runners *all)
{
    runner_unbind(all);
    if (all->template)
        runner_kill(all, all->template);
    if (all->list)
        munmap(all->list, STUB_LIST);
    if (all->copies)
        munmap(all->copies, COPY_BYTES);
    all->template = 0;
    all->list = NULL;
    all->copies = NULL;
}

int runners_copy(struct runners *all, const uint8_t *page)
{
    for (unsigned n = 0; n < RUNNER_COPIES_MAX; n++) {
        if (all->copied[n / 64] >> n % 64 & 1)
            continue;
        all->copied[n / 64] |= 1ULL << n % 64;
        memcpy(all->copies + (size_t)n * PAGE_SIZE, page, PAGE_SIZE);
        return (int)n;
    }
    return -1;
}

void runners_drop_copy(struct runners *all, unsigned n) { all->copied[n / 64] &= ~(1ULL << n % 64); }

/* -- a runner -- */

/* Only mmap(2) and munmap(2), by the stub, with the secrets; the rest is trapped. */
static unsigned runner_filter(const uint64_t secret[2], struct sock_filter *f)
{
#define LOAD(field, high) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field) + 4 * (high))
#define UNLESS(value, skip) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)(value), 0, skip)
    const struct sock_filter all[] = {
        LOAD(arch, 0), UNLESS(AUDIT_ARCH_X86_64, 12),
        LOAD(instruction_pointer, 1), UNLESS((RUNNER_STUB + STUB_CALL) >> 32, 10),
        LOAD(instruction_pointer, 0), UNLESS(RUNNER_STUB + STUB_CALL, 8),
        LOAD(args[3], 1), UNLESS(secret[0] >> 32, 6),
        LOAD(args[4], 1), UNLESS(secret[1] >> 32, 4),
        LOAD(nr, 0), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mmap, 1, 0), UNLESS(SYS_munmap, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
    };
#undef LOAD
#undef UNLESS
    memcpy(f, all, sizeof(all));
    return ARRAY_LEN(all);
}

/* Have the template make a copy of itself, which stops before it has done anything. */
static int runner_copy(struct runners *all, pid_t *pid)
{
    unsigned long message = 0;
    int r;

    runner_call_put(&all->list[0], SYS_clone, CLONE_PARENT, 0, 0);
    runner_call_put(&all->list[1], 0, 0, 0, 0);
    r = stub_begin(all->template, no_secret, &no_regs);
    while (r == 0 && !message) {
        int status = runner_wait(all->template);

        if (status < 0)
            return status;
        if (status >> 16 == 0 && WSTOPSIG(status) == SIGTRAP)
            return -EAGAIN; /* the host makes no more processes */
        if (status >> 16 == PTRACE_EVENT_CLONE || status >> 16 == PTRACE_EVENT_FORK)
            r = runner_ptrace(PTRACE_GETEVENTMSG, all->template, 0, &message);
        if (r == 0)
            r = runner_ptrace(PTRACE_CONT, all->template, 0, NULL);
    }
    *pid = (pid_t)message;
    return r < 0 ? r : runner_trap(all->template);
}

int runner_start(struct runner *r, struct runners *all)
{
    struct sock_filter *f = (struct sock_filter *)&all->list[4];
    struct sock_fprog *prog = (struct sock_fprog *)&all->list[3];
    int e;

    *r = (struct runner){ .all = all, .cpu = -1 };
    r->call = malloc(RUNNER_LIST * sizeof(*r->call));
    if (!r->call)
        return -ENOMEM;
    if (getrandom(r->secret, sizeof(r->secret), 0) != (ssize_t)sizeof(r->secret)) {
        runner_end(r);
        return -EAGAIN;
    }
    r->secret[0] &= ~0xffffffffULL;
    r->secret[1] &= ~0xffffffffULL;
    e = runner_copy(all, &r->pid);
    if (e == 0 && runner_wait(r->pid) < 0)
        e = -ESRCH;
    if (e == 0) {
        prog->len = (unsigned short)runner_filter(r->secret, f);
        prog->filter = (struct sock_filter *)(LIST_AT + ((uintptr_t)f - (uintptr_t)all->list));
        runner_call_put(&all->list[0], SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, LIST_AT + ((uintptr_t)prog - (uintptr_t)all->list));
        runner_call_put(&all->list[1], 0, 0, 0, 0);
        e = (int)stub_run(r->pid, no_secret);
        memset(&all->list[3], 0, 8 * sizeof(*all->list)); /* the secrets */
    }
    if (e < 0)
        runner_end(r);
    return e;
}

void runner_end(struct runner *r)
{
    if (r->pid)
        runner_kill(r->all, r->pid);
    free(r->call);
    r->call = NULL;
    r->pid = 0;
    r->calls = 0;
}

static bool runner_room(const struct runner *r, unsigned n) { return r->calls + n <= RUNNER_LIST; }

bool runner_map(struct runner *r, uint64_t lin, uint64_t len, int prot, unsigned file, uint64_t off)
{
    struct runner_call *c = &r->call[r->calls];

    if (!runner_room(r, 1))
        return false;
    r->calls++;
    runner_call_put(c, prot < 0 ? SYS_munmap : SYS_mmap, lin, len, prot < 0 ? 0 : (uint64_t)prot);
    if (prot >= 0) {
        c->arg[3] = MAP_SHARED | MAP_FIXED | MAP_POPULATE;
        c->arg[4] = FILE_FIRST + file;
        c->arg[5] = off;
    }
    return true;
}

bool runner_unmap_all(struct runner *r)
{
    r->calls = 0;
    runner_map(r, 0, RUNNER_STUB, -1, 0, 0);
    return runner_map(r, RUNNER_STUB + STUB_BYTES, RUNNER_TOP - RUNNER_STUB - STUB_BYTES, -1, 0, 0);
}

static unsigned runner_choose(const struct runners *all, unsigned here)
{
    if (!atomic_load(&runner_bound[here]))
        return here;
    for (unsigned n = 0; n < CPU_SETSIZE; n++)
        if (CPU_ISSET(n, &all->may) && !atomic_load(&runner_bound[n]))
            return n;
    return here;
}

int runner_breaks(struct runner *r, const uint64_t at[RUNNER_BREAKS])
{
    uintptr_t dr = offsetof(struct user, u_debugreg), enabled = 0;
    int e = 0;

    if (!memcmp(at, r->breaks, sizeof(r->breaks)))
        return 0;
    for (unsigned n = 0; n < RUNNER_BREAKS && e == 0; n++) {
        enabled |= at[n] ? 1UL << 2 * n : 0; /* DR7.Ln; type and length are 0: execution */
        if (at[n] && at[n] != r->breaks[n])
            e = runner_ptrace(PTRACE_POKEUSER, r->pid, dr + n * sizeof(long), (void *)(uintptr_t)at[n]);
    }
    if (e == 0)
        e = runner_ptrace(PTRACE_POKEUSER, r->pid, dr + 7 * sizeof(long), (void *)enabled);
    if (e == 0)
        memcpy(r->breaks, at, sizeof(r->breaks));
    else
        memset(r->breaks, 0, sizeof(r->breaks)); /* nobody knows; the next time all are set again */
    return e;
}

void runner_join(struct runner *r)
{
    struct runners *all = r->all;
    unsigned cpu = 0;
    cpu_set_t set;

    if (all->cpu < 0 && (getcpu(&cpu, NULL) < 0 || cpu >= CPU_SETSIZE))
        return;
    if (all->cpu < 0)
        all->cpu = (int)runner_choose(all, cpu);
    else if (r->cpu == all->cpu)
        return;
    CPU_ZERO(&set);
    CPU_SET(all->cpu, &set);
    if (r->cpu != all->cpu && sched_setaffinity(r->pid, sizeof(set), &set) == 0)
        r->cpu = all->cpu;
    if (!all->joined && sched_setaffinity(0, sizeof(set), &set) == 0) {
        all->joined = true;
        atomic_fetch_add(&runner_bound[all->cpu], 1);
    }
}

void runner_part(struct runners *all)
{
    if (all->joined)
        sched_setaffinity(0, sizeof(all->may), &all->may);
    runner_unbind(all);
}

/* A stop because it was poked hides a signal that came at the same time: one of a system call, say, whose registers are not those of an instruction's end. */
static bool runner_hides(pid_t pid)
{
    struct __ptrace_peeksiginfo_args which = { .nr = 1 };
    siginfo_t info;

    return syscall(SYS_ptrace, PTRACE_PEEKSIGINFO, pid, &which, &info) > 0;
}

/* What stopped it: true, and *stop; or what is nobody's matter: it goes on. */
static bool runner_stopped(pid_t pid, int status, struct runner_stop *stop)
{
    stop->signal = 0;
    if (status >> 16 == PTRACE_EVENT_STOP)
        return WSTOPSIG(status) == SIGTRAP && !runner_hides(pid);
    stop->signal = WSTOPSIG(status);
    switch (stop->signal) {
    case SIGSEGV:
    case SIGBUS:
    case SIGILL:
    case SIGFPE:
    case SIGTRAP:
    case SIGSYS:
        return status >> 16 == 0 && runner_ptrace(PTRACE_GETSIGINFO, pid, 0, &stop->info) == 0 && stop->info.si_code > 0;
    default:
        return false;
    }
}

/* Let it run from *regs, by way of the stub if there is something to be mapped. */
static int runner_begin(struct runner *r, struct user_regs_struct *regs)
{
    struct runner_call *list = r->all->list;

    if (!r->calls) {
        int e = runner_ptrace(PTRACE_SETREGS, r->pid, 0, regs);
        return e < 0 ? e : runner_ptrace(PTRACE_CONT, r->pid, 0, NULL);
    }
    memcpy(list, r->call, r->calls * sizeof(*list));
    runner_call_put(&list[r->calls], 0, LIST_AT + LIST_REGS * sizeof(*list), 0, 0);
    memcpy(&list[LIST_REGS], regs, offsetof(struct user_regs_struct, fs_base));
    return stub_begin(r->pid, r->secret, regs);
}

/* It stopped in the stub, at *now: it was poked, or could not do what it should. Guest code has not begun: 0 or -errno. */
static int runner_in_stub(struct runner *r, struct runner_call *end, const struct user_regs_struct *now, const struct runner_stop *stop)
{
    struct user_regs_struct last = *now;
    int e = 0;

    if (stop->signal == 0 && now->rip <= RUNNER_STUB + STUB_END) {
        end->arg[0] = 0;
        e = runner_ptrace(PTRACE_CONT, r->pid, 0, NULL);
        e = e < 0 ? e : runner_trap(r->pid);
        e = e < 0 ? e : runner_ptrace(PTRACE_GETREGS, r->pid, 0, &last);
        if (e == 0 && (int64_t)last.rax < 0)
            e = (int)last.rax;
    }
    return stop->signal ? -EFAULT : e;
}

int runner_run(struct runner *r, struct user_regs_struct *regs, struct runner_stop *stop)
{
    struct user_regs_struct now;
    struct runner_call *end = &r->all->list[r->calls];
    bool serve = r->calls != 0;
    int e, status;

    regs->orig_rax = ~0ULL;
    regs->eflags &= ~(uint64_t)FLAGS_RF; /* after a fault of its fetch, it would hide a breakpoint at this instruction */
    e = runner_begin(r, regs);
    r->calls = 0;
    for (;;) {
        if (e < 0)
            return -ESRCH;
        status = runner_wait(r->pid);
        if (status < 0) {
            r->pid = 0;
            return -ESRCH;
        }
        if (runner_stopped(r->pid, status, stop))
            break;
        e = runner_ptrace(PTRACE_CONT, r->pid, 0, NULL);
    }
    e = runner_ptrace(PTRACE_GETREGS, r->pid, 0, &now);
    if (e == 0 && serve && now.rip - RUNNER_STUB <= sizeof(stub_code))
        return runner_in_stub(r, end, &now, stop);
    *regs = now;
    return e;
}

uint64_t runner_ns(const struct runner *r)
{
    return r->pid ? clock_host_ns((clockid_t)(~(unsigned)r->pid << 3 | 2)) : 0; /* clock_getcpuclockid(3) */
}

#define NT_X86_XSTATE 0x202

int runner_put_xstate(struct runner *r, void *area, size_t size)
{
    struct iovec v = { area, size };

    return runner_ptrace(PTRACE_SETREGSET, r->pid, NT_X86_XSTATE, &v);
}

int runner_get_xstate(struct runner *r, void *area, size_t size)
{
    struct iovec v = { area, size };

    return runner_ptrace(PTRACE_GETREGSET, r->pid, NT_X86_XSTATE, &v);
}

/* -- pokes: a thread's runner is stopped by that thread only -- */

static _Thread_local struct runners *runner_mine;

static void runner_on_signal(int signal)
{
    int saved = errno;
    pid_t pid = runner_mine ? atomic_load(&runner_mine->running) : 0;

    if (pid)
        runner_ptrace(PTRACE_INTERRUPT, pid, 0, NULL);
    errno = saved;
}

int runner_init_signal(void)
{
    struct sigaction a = { .sa_handler = runner_on_signal, .sa_flags = SA_RESTART }, child;

    /* A tracer hears of each stop by its wait. It holds SIGCHLD back, so the signal would go to the loop's thread and wake it each time. */
    if (sigaction(SIGCHLD, NULL, &child) < 0)
        return -errno;
    child.sa_flags |= SA_NOCLDSTOP;
    return sigaction(SIGCHLD, &child, NULL) < 0 || sigaction(RUNNER_SIGNAL, &a, NULL) < 0 ? -errno : 0;
}

void runner_thread(struct runners *all)
{
    sigset_t set;

    runner_mine = all;
    if (sched_getaffinity(0, sizeof(all->may), &all->may) < 0)
        memset(&all->may, 0xff, sizeof(all->may));
    all->thread = (pid_t)syscall(SYS_gettid);
    sigemptyset(&set);
    sigaddset(&set, RUNNER_SIGNAL);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

void runner_poke(const struct runners *all)
{
    if (atomic_load(&all->running))
        syscall(SYS_tgkill, getpid(), all->thread, RUNNER_SIGNAL);
}
