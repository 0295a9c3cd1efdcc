/* What costs a kernel entry: null system calls, page faults, pipe switches, fork, fork and exec. */
#define _GNU_SOURCE
#include "bench.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define SYSCALLS 1000
#define FAULTS   64
#define SWITCHES 50

static int pipe_to[2], pipe_from[2];

uint64_t syscall_round(void)
{
    uint64_t good = 0;

    for (int i = 0; i < SYSCALLS; i++)
        good += syscall(SYS_getppid) >= 0;
    return good;
}

/* Map, touch each page, unmap. Small pages: a huge one would take a single fault. */
uint64_t fault_round(void)
{
    uint64_t sum = 0;
    volatile uint8_t *p = mmap(NULL, FAULTS * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (p == MAP_FAILED)
        return 0;
    madvise((void *)p, FAULTS * 4096, MADV_NOHUGEPAGE);
    for (unsigned i = 0; i < FAULTS; i++)
        p[i * 4096]++;
    for (unsigned i = 0; i < FAULTS; i++)
        sum += p[i * 4096];
    munmap((void *)p, FAULTS * 4096);
    return sum;
}

/* The partner lives until this process is gone: it then reads the end of its pipe. */
void pipe_setup(void)
{
    uint8_t byte;

    if (pipe(pipe_to) || pipe(pipe_from))
        exit(1);
    if (fork() == 0) {
        close(pipe_to[1]);
        close(pipe_from[0]);
        while (read(pipe_to[0], &byte, 1) == 1) {
            byte++;
            if (write(pipe_from[1], &byte, 1) != 1)
                break;
        }
        _exit(0);
    }
    close(pipe_to[0]);
    close(pipe_from[1]);
}

/* Each round trip is two switches between processes. */
uint64_t pipe_round(void)
{
    uint8_t byte = 0;

    for (int i = 0; i < SWITCHES; i++) {
        if (write(pipe_to[1], &byte, 1) != 1 || read(pipe_from[0], &byte, 1) != 1)
            return 0;
    }
    return byte;
}

static uint64_t system_reap(pid_t pid)
{
    int status = -1;

    waitpid(pid, &status, 0);
    return (uint64_t)(WIFEXITED(status) ? WEXITSTATUS(status) : 0);
}

uint64_t fork_round(void)
{
    pid_t pid = fork();

    if (pid == 0)
        _exit(42);
    return system_reap(pid);
}

uint64_t exec_round(void)
{
    pid_t pid = fork();

    if (pid == 0) {
        execl("/proc/self/exe", "vbench", "exit", (char *)NULL);
        _exit(1);
    }
    return system_reap(pid);
}
