/* Counts the instructions of one round of a workload by single-stepping it on the host.
 *
 * usage: count VBENCH NAME      prints the count, which includes a few dozen instructions between the two stops: take
 * off what NAME "empty" counts. Works where the host offers no performance counters. An instruction with a REP
 * prefix counts once for each repetition.
 */
#define _GNU_SOURCE
#include <inttypes.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

static int count_fail(const char *what)
{
    perror(what);
    return 1;
}

/* Steps until the tracee stops itself again. Returns 0, or -1 if it did anything else. */
static int count_steps(pid_t pid, uint64_t *steps)
{
    int status;

    for (;;) {
        if (ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL) || waitpid(pid, &status, 0) != pid || !WIFSTOPPED(status))
            return -1;
        if (WSTOPSIG(status) == SIGSTOP)
            return 0;
        if (WSTOPSIG(status) != SIGTRAP)
            return -1;
        ++*steps;
    }
}

int main(int argc, char **argv)
{
    uint64_t steps = 0;
    cpu_set_t here;
    int status;
    pid_t pid;

    if (argc != 3) {
        fprintf(stderr, "usage: count VBENCH NAME\n");
        return 1;
    }
    /* Both on one CPU: a hand-over between CPUs costs several times as much. */
    CPU_ZERO(&here);
    CPU_SET((unsigned)sched_getcpu(), &here);
    sched_setaffinity(0, sizeof(here), &here);
    pid = fork();
    if (pid < 0)
        return count_fail("fork");
    if (pid == 0) {
        ptrace(PTRACE_TRACEME, 0, NULL, NULL);
        execl(argv[1], argv[1], "step", argv[2], (char *)NULL);
        _exit(127);
    }
    /* First the stop at exec, then the workload's own. */
    if (waitpid(pid, &status, 0) != pid || !WIFSTOPPED(status) ||
        ptrace(PTRACE_SETOPTIONS, pid, NULL, PTRACE_O_EXITKILL) || ptrace(PTRACE_CONT, pid, NULL, NULL) ||
        waitpid(pid, &status, 0) != pid || !WIFSTOPPED(status) || WSTOPSIG(status) != SIGSTOP)
        return count_fail("the workload did not come to its first stop");
    if (count_steps(pid, &steps))
        return count_fail("the workload did not come to its second stop");
    kill(pid, SIGKILL);
    printf("%" PRIu64 "\n", steps);
    return 0;
}
