/* The system calls of each kind of thread: one table, compiled by libseccomp.
 * Sources: seccomp(2), seccomp_rule_add(3), the manual page of each call.
 *
 * A call that is not in the table raises SIGSYS (sandbox.c tells and ends the process; with --seccomp log the call fails).
 * Nobody may take that handler away: changing it ends the process inside the kernel, which is also how the handler ends it.
 * Calls by another ABI (32-bit, x32) end the process at once.
 *
 * No thread may run another program, load a kernel's module, begin to trace, mount, make memory executable (translated code has
 * its two mappings before a vCPU starts), or change who it is. Only shares and user networking open files.
 */
#include <asm/prctl.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/fs.h>
#include <linux/if_tun.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/bits.h"
#include "machine/config.h"

/* Stands for the process's own id in a filter that is compiled once and used by several processes (sandbox_filter_copy()): the lower half of an argument
 * that nothing else in the table is compared with. Ids are below 2^22 (PID_MAX_LIMIT). */
#define SANDBOX_PID 0x5e1f0000u

/* Who may; bits of guard_kind. */
#define MAIN   (1u << GUARD_MAIN)
#define VCPU   (1u << GUARD_VCPU)
#define BLOCK  (1u << GUARD_BLOCK)
#define SHARE  (1u << GUARD_SHARE)
#define USER   (1u << GUARD_NET_USER)
#define SWITCH (1u << GUARD_NET_SWITCH)
#define NET    (1u << GUARD_NET | USER | SWITCH)
#define OPENERS (SHARE | USER)
#define ALL    (MAIN | VCPU | BLOCK | SHARE | NET)

#define CLONE_KINDS                                                                                           \
    (CLONE_THREAD | CLONE_NEWNS | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | \
     CLONE_NEWCGROUP)
#define ANY UINT64_MAX /* mask of a condition that is none */

/* The call is allowed if (argument & mask) == value. Several lines for one call: any of them. */
struct sandbox_call {
    int nr;
    unsigned kinds;
    unsigned arg;
    uint64_t mask, value;
};

#define CALL(name, who)                SCMP_SYS(name), who, 0, 0, 0
#define CALL_IF(name, who, n, m, v)    SCMP_SYS(name), who, n, m, v
#define CALL_IS(name, who, n, v)       SCMP_SYS(name), who, n, ANY, v

static const struct sandbox_call sandbox_calls[] = {
    /* memory, never executable */
    { CALL_IF(mmap, ALL, 2, PROT_EXEC, 0) },
    { CALL_IF(mprotect, ALL, 2, PROT_EXEC, 0) },
    { CALL(munmap, ALL) },
    { CALL(mremap, ALL) },
    { CALL(madvise, ALL) },
    { CALL(brk, ALL) },
    /* the thread itself, waiting, time */
    { CALL(futex, ALL) },
    { CALL(sched_yield, ALL) },
    { CALL(sched_getaffinity, ALL) }, /* malloc() */
    { CALL(rt_sigprocmask, ALL) },
    { CALL(rt_sigreturn, ALL) },
    { CALL(sigaltstack, ALL) },
    { CALL(restart_syscall, ALL) },
    { CALL(set_robust_list, ALL) },
    { CALL(rseq, ALL) },
    { CALL(exit, ALL) },
    { CALL(exit_group, ALL) },
    { CALL(gettid, ALL) },
    { CALL(getpid, ALL) },
    { CALL(clock_gettime, ALL) },
    { CALL(gettimeofday, ALL) },
    { CALL(time, ALL) },
    { CALL(nanosleep, ALL) },
    { CALL(clock_nanosleep, ALL) },
    { CALL(getrandom, ALL) },
    { CALL_IS(arch_prctl, VCPU, 0, ARCH_SET_GS) }, /* the translator's pointer to its CPU */
    /* processes that run user code (engine/direct), which it traces already */
    { CALL_IS(ptrace, VCPU, 0, PTRACE_CONT) },
    { CALL_IS(ptrace, VCPU, 0, PTRACE_KILL) },
    { CALL_IS(ptrace, VCPU, 0, PTRACE_GETREGS) },
    { CALL_IS(ptrace, VCPU, 0, PTRACE_SETREGS) },
    { CALL_IS(ptrace, VCPU, 0, PTRACE_GETREGSET) },
    { CALL_IS(ptrace, VCPU, 0, PTRACE_SETREGSET) },
    { CALL_IS(ptrace, VCPU, 0, PTRACE_POKEUSER) }, /* what SETREGS may as well, and breakpoints */
    { CALL_IS(ptrace, VCPU, 0, PTRACE_INTERRUPT) },
    { CALL_IS(ptrace, VCPU, 0, PTRACE_GETSIGINFO) },
    { CALL_IS(ptrace, VCPU, 0, PTRACE_PEEKSIGINFO) },
    { CALL_IS(ptrace, VCPU, 0, PTRACE_GETEVENTMSG) },
    { CALL(sched_setaffinity, VCPU) },
    /* descriptors that are open */
    { CALL(read, ALL) },
    { CALL(write, ALL) },
    { CALL(readv, ALL) },
    { CALL(writev, ALL) },
    { CALL(close, ALL) },
    { CALL(lseek, ALL) },
    { CALL(poll, ALL) },
    { CALL(ppoll, ALL) },
    { CALL(fstat, ALL) },
    { CALL_IF(newfstatat, ALL, 3, AT_EMPTY_PATH, AT_EMPTY_PATH) },
    { CALL_IS(fcntl, ALL, 1, F_GETFL) },
    { CALL(fcntl, MAIN | SHARE | USER | SWITCH) },
    { CALL(pread64, MAIN | VCPU | BLOCK | SHARE) },
    { CALL(pwrite64, MAIN | VCPU | BLOCK | SHARE) }, /* a vCPU: flash with UEFI's variables */
    { CALL(fsync, MAIN | VCPU | BLOCK | SHARE) },
    { CALL(fdatasync, MAIN | VCPU | BLOCK | SHARE) },
    { CALL(preadv, MAIN | BLOCK | SHARE) },
    { CALL(pwritev, MAIN | BLOCK | SHARE) },
    { CALL(preadv2, ALL) }, /* small reads of a disk, by who let go of the device lock (loop_post()) */
    { CALL(pwritev2, MAIN | BLOCK | SHARE) },
    { CALL(fallocate, MAIN | VCPU | BLOCK | SHARE) }, /* a vCPU: memory on a swap file that the guest gives back */
    { CALL(mincore, BLOCK) },                         /* the swap file's thread */
    { CALL(ftruncate, MAIN | BLOCK | SHARE) },
    { CALL(sync_file_range, MAIN | BLOCK | SHARE) },
    { CALL(copy_file_range, BLOCK | SHARE) },
    { CALL(fadvise64, BLOCK | SHARE) },
    { CALL(io_uring_enter, BLOCK) }, /* on a ring that can only read (block/uring.c) */
    { CALL_IS(ioctl, MAIN | BLOCK, 1, BLKDISCARD) },
    { CALL_IS(ioctl, MAIN | BLOCK, 1, BLKZEROOUT) },
    { CALL_IS(ioctl, VCPU | MAIN, 1, TUNSETOFFLOAD) },
    /* a serial port on a socket; with an address it would be a way out */
    { CALL_IS(sendto, MAIN | VCPU, 4, 0) },
    { CALL(recvfrom, MAIN | USER) },
    { CALL(epoll_ctl, MAIN | VCPU) },
    /* starting a thread, which then enters its own fence; glibc asks for clone3 first, whose flags a filter cannot see */
    { CALL_IF(clone, MAIN | BLOCK | SHARE, 0, CLONE_KINDS, CLONE_THREAD) },
    /* the process that writes a saved machine, which is inside the same fence: fork(2) as glibc calls it */
    { CALL_IS(clone, MAIN, 0, CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID | SIGCHLD) },
    { CALL(wait4, MAIN | VCPU) },
    { CALL(pipe2, MAIN) },
    { CALL(close_range, MAIN) },
    { CALL(getppid, MAIN) },
    { CALL_IS(prctl, MAIN, 0, 1) },         /* PR_SET_PDEATHSIG */
    { CALL(getcwd, MAIN) }, /* a configuration that is written out has whole paths */
    { CALL_IS(prctl, ALL, 0, 15) },         /* PR_SET_NAME */
    { CALL_IS(prctl, MAIN, 0, 29) },        /* PR_SET_TIMERSLACK */
    { CALL_IS(seccomp, MAIN, 0, SECCOMP_SET_MODE_FILTER) },
    { CALL(landlock_restrict_self, MAIN) },
    /* the machine's thread */
    { CALL(epoll_wait, MAIN) },
    { CALL(epoll_pwait, MAIN) },
    { CALL(timerfd_settime, MAIN) },
    { CALL(accept4, MAIN) },
    { CALL(shutdown, MAIN | USER) },
    { CALL(getsockopt, MAIN | USER | SWITCH) },
    { CALL(getsockname, MAIN | USER) },
    { CALL(getpeername, MAIN | USER) },
    { CALL(setsockopt, MAIN | USER | SWITCH) },
    { CALL(recvmsg, MAIN | USER | SWITCH) },
    { CALL(sendmsg, MAIN | USER | SWITCH) },
    { CALL_IS(ioctl, MAIN, 1, TCGETS) },
    { CALL_IS(ioctl, MAIN, 1, TCSETS) },
    { CALL_IS(ioctl, MAIN, 1, TCSETSW) },
    { CALL_IS(ioctl, MAIN, 1, TCSETSF) },
    { CALL_IS(ioctl, MAIN, 1, TIOCGWINSZ) },
    { CALL_IS(ioctl, MAIN, 1, TIOCGPGRP) },
    { CALL(getcwd, MAIN) }, /* a configuration that is written out has whole paths */
    { CALL(getpgrp, MAIN) },
    { CALL(getpgid, MAIN) },
    { CALL(getuid, MAIN | SHARE) },
    { CALL(geteuid, MAIN | SHARE) },
    { CALL(getgid, MAIN | SHARE) },
    { CALL(getegid, MAIN | SHARE) },
    { CALL(unlink, MAIN) },
    /* files by name: which ones is for Landlock to say */
    { CALL(newfstatat, MAIN | SHARE | USER) },
    { CALL(openat, OPENERS) },
    { CALL(unlinkat, MAIN | SHARE | SWITCH) },
    { CALL(getdents64, SHARE) },
    { CALL(openat2, SHARE) },
    { CALL(statx, SHARE) },
    { CALL(fstatfs, SHARE) },
    { CALL(statfs, SHARE) },
    { CALL(readlinkat, SHARE) },
    { CALL(mkdirat, SHARE) },
    { CALL(mknodat, SHARE) },
    { CALL(symlinkat, SHARE) },
    { CALL(linkat, SHARE) },
    { CALL(renameat, SHARE) },
    { CALL(renameat2, SHARE) },
    { CALL(fchmod, SHARE) },
    { CALL(fchmodat, SHARE) },
    { CALL(fchown, SHARE) },
    { CALL(fchownat, SHARE) },
    { CALL(utimensat, SHARE) },
    { CALL(fgetxattr, SHARE) },
    { CALL(fsetxattr, SHARE) },
    { CALL(flistxattr, SHARE) },
    { CALL(fremovexattr, SHARE) },
    { CALL(flock, SHARE) },
    { CALL(syncfs, SHARE) },
    { CALL(dup, SHARE) },
    /* sockets to the world, and to this user's other machines */
    { CALL_IS(socket, USER, 0, AF_INET) },
    { CALL_IS(socket, USER, 0, AF_INET6) },
    { CALL_IS(socket, SWITCH, 0, AF_UNIX) },
    { CALL(connect, USER | SWITCH) },
    { CALL(bind, USER) },
    { CALL(listen, USER) },
    { CALL(accept, USER) },
    { CALL(accept4, USER) },
    { CALL(sendto, USER) },
    { CALL_IS(ioctl, USER, 1, FIONREAD) },
    { CALL_IS(ioctl, USER, 1, FIONBIO) },
};

static int sandbox_allow(scmp_filter_ctx ctx, const struct sandbox_call *c)
{
    const struct scmp_arg_cmp cond = { c->arg, c->mask == ANY ? SCMP_CMP_EQ : SCMP_CMP_MASKED_EQ,
                                       c->mask == ANY ? c->value : c->mask, c->mask == ANY ? 0 : c->value };

    return c->mask ? seccomp_rule_add_array(ctx, SCMP_ACT_ALLOW, c->nr, 1, &cond)
                   : seccomp_rule_add_array(ctx, SCMP_ACT_ALLOW, c->nr, 0, NULL);
}

/* With --vsock the machine's thread connects to sockets of the host. */
static int sandbox_vsock(scmp_filter_ctx ctx)
{
    static const struct sandbox_call calls[] = { { CALL_IS(socket, MAIN, 0, AF_UNIX) }, { CALL(connect, MAIN) } };
    int r = 0;

    for (size_t n = 0; r == 0 && n < ARRAY_LEN(calls); n++)
        r = sandbox_allow(ctx, &calls[n]);
    return r;
}

static int sandbox_rules(scmp_filter_ctx ctx, enum guard_kind kind)
{
    /* one's own process only: for abort() and the handlers of faults */
    static const struct sandbox_call own[] = { { CALL_IS(tgkill, ALL, 0, SANDBOX_PID) }, { CALL_IS(kill, MAIN, 0, SANDBOX_PID) } };
    const struct scmp_arg_cmp not_ours = SCMP_A0(SCMP_CMP_NE, SIGSYS), ours = SCMP_A0(SCMP_CMP_EQ, SIGSYS);
    int r = seccomp_rule_add_array(ctx, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0, NULL);

    /* glibc's malloc() looks into /proc in any thread, and lives with not being let */
    if (r == 0 && !(OPENERS & 1u << kind))
        r = seccomp_rule_add_array(ctx, SCMP_ACT_ERRNO(EACCES), SCMP_SYS(openat), 0, NULL);
    for (size_t n = 0; r == 0 && n < ARRAY_LEN(own); n++)
        r = own[n].kinds & 1u << kind ? sandbox_allow(ctx, &own[n]) : 0;
    if (r == 0)
        r = seccomp_rule_add_array(ctx, SCMP_ACT_ALLOW, SCMP_SYS(rt_sigaction), 1, &not_ours);
    if (r == 0)
        r = seccomp_rule_add_array(ctx, SCMP_ACT_KILL_PROCESS, SCMP_SYS(rt_sigaction), 1, &ours);
    for (size_t n = 0; r == 0 && n < ARRAY_LEN(sandbox_calls); n++)
        r = sandbox_calls[n].kinds & 1u << kind ? sandbox_allow(ctx, &sandbox_calls[n]) : 0;
    return r;
}

/* libseccomp writes a program to a descriptor. */
static int sandbox_export(scmp_filter_ctx ctx, struct guard_fence *out)
{
    int fd = memfd_create("filter", MFD_CLOEXEC), r = fd < 0 ? -errno : seccomp_export_bpf(ctx, fd);
    struct stat st;

    if (r == 0 && fstat(fd, &st) < 0)
        r = -errno;
    if (r == 0 && !(out->filter = malloc((size_t)st.st_size)))
        r = -ENOMEM;
    if (r == 0 && pread(fd, out->filter, (size_t)st.st_size, 0) != st.st_size)
        r = -EIO;
    if (r == 0)
        out->length = (unsigned short)((size_t)st.st_size / 8); /* sizeof(struct sock_filter) */
    if (fd >= 0)
        close(fd);
    return r;
}

int sandbox_filter(enum guard_kind kind, bool vsock, struct guard_fence *out)
{
    scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_TRAP);
    int r = ctx ? seccomp_attr_set(ctx, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS) : -ENOMEM;

    if (r == 0)
        r = sandbox_rules(ctx, kind);
    if (r == 0 && kind == GUARD_MAIN && vsock)
        r = sandbox_vsock(ctx);
    if (r == 0)
        r = sandbox_export(ctx, out);
    if (ctx)
        seccomp_release(ctx);
    return r;
}

int sandbox_filter_copy(const struct guard_fence *like, pid_t pid, struct guard_fence *out)
{
    unsigned found = 0;

    out->length = like->length;
    out->filter = malloc(like->length * sizeof(*out->filter));
    if (!out->filter)
        return -ENOMEM;
    memcpy(out->filter, like->filter, like->length * sizeof(*out->filter));
    for (unsigned n = 0; n < like->length; n++) {
        struct sock_filter *f = &out->filter[n];

        if (f->code == (BPF_JMP | BPF_JEQ | BPF_K) && f->k == SANDBOX_PID) {
            f->k = (uint32_t)pid;
            found++;
        }
    }
    return found ? 0 : -EINVAL; /* each kind may signal its own process */
}

bool sandbox_can_filter(void)
{
    uint32_t kill = SECCOMP_RET_KILL_PROCESS, trap = SECCOMP_RET_TRAP;

    return syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &kill) == 0 &&
           syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &trap) == 0;
}
