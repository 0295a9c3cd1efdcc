/* Run a program, and kill -9 it just before the Nth of its system calls that change files or send something.
 *
 * usage: killat N PROGRAM [ARGUMENT ...]      N 0: do not kill it
 * Exit status: 137 it was killed; else the program's, and the last line of standard error is "killat: M calls".
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

static bool changes(const struct user_regs_struct *r)
{
    static const long calls[] = { SYS_write, SYS_pwrite64, SYS_writev, SYS_pwritev, SYS_fsync, SYS_fdatasync, SYS_ftruncate, SYS_fallocate, SYS_rename,
                                  SYS_renameat, SYS_renameat2, SYS_link, SYS_linkat, SYS_unlink, SYS_unlinkat, SYS_sendto, SYS_sendmsg };

    if (r->orig_rax == SYS_openat)
        return r->rdx & (O_CREAT | O_TMPFILE) & ~O_DIRECTORY;
    for (size_t n = 0; n < sizeof(calls) / sizeof(calls[0]); n++) {
        if (r->orig_rax == (unsigned long)calls[n])
            return true;
    }
    return false;
}

int main(int argc, char **argv)
{
    long at = argc > 2 ? atol(argv[1]) : 0, count = 0;
    struct user_regs_struct regs;
    bool entry = true;
    int status, sig;
    pid_t pid;

    if (argc < 3)
        return 2;
    pid = fork();
    if (pid == 0) {
        ptrace(PTRACE_TRACEME, 0, 0, 0);
        raise(SIGSTOP);
        execv(argv[2], argv + 2);
        _exit(2);
    }
    waitpid(pid, &status, 0);
    ptrace(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL);
    for (sig = 0; ptrace(PTRACE_SYSCALL, pid, 0, sig) == 0 && waitpid(pid, &status, 0) == pid && WIFSTOPPED(status);) {
        sig = WSTOPSIG(status);
        if (sig != (SIGTRAP | 0x80)) {
            sig = sig == SIGTRAP ? 0 : sig;
            continue;
        }
        sig = 0;
        if (entry && ptrace(PTRACE_GETREGS, pid, 0, &regs) == 0 && changes(&regs) && ++count == at)
            kill(pid, SIGKILL);
        entry = !entry;
    }
    while (WIFSTOPPED(status) && waitpid(pid, &status, 0) == pid)
        ;
    if (WIFSIGNALED(status))
        return 128 + WTERMSIG(status);
    fprintf(stderr, "killat: %ld calls\n", count);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
