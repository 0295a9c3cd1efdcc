/* Runners: processes that run a guest's user code as it is, on the host's CPU and its MMU.
 *
 * A runner's address space is empty but for RUNNER_STUB; guest pages are mapped there by its tracer, the vCPU's thread, out of the files that hold guest RAM. It is
 * only ever running or verifiably stopped, and its registers are what the kernel says of them. It can make no system call but those that the stub makes for the
 * tracer: a filter traps all others, and asks for secrets that are in registers only while the stub runs.
 *
 * A template, forked from the monitor before the sandbox closes, runs no guest code; runners are its copies.
 *
 * Thread: the vCPU's, which makes the template, too (ptrace(2) is a thread's matter). runner_poke(): any.
 */
#ifndef VITRO_DIRECT_RUNNER_H
#define VITRO_DIRECT_RUNNER_H

#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "engine/direct/regs.h"

#define RUNNER_STUB   0x1f0000000000ULL /* where Linux guests have nothing */
#define RUNNER_SLOT   0x8000000000ULL   /* what an entry of the topmost table (PML4) covers */
#define RUNNER_TOP    0x7ffffffff000ULL /* of a process's address space */
#define RUNNER_FILES  16
#define RUNNER_COPIES RUNNER_FILES      /* the file of copies, for runner_map() */
#define RUNNER_COPIES_MAX 128           /* pages in it */
#define RUNNER_LIST   248               /* requests at a time */
#define RUNNER_BREAKS 4                 /* instructions at which it stops: DR0 to DR3 */
#define RUNNER_SIGNAL SIGURG            /* to the vCPU's thread: its runner is to stop; ignored where nobody handles it */

/* A system call for the stub to make. */
struct runner_call {
    uint64_t nr, arg[6], spare;
};

struct runner_stop {
    int signal;      /* 0: it was poked */
    siginfo_t info;  /* of the signal */
};

struct runners {
    pid_t template;
    bool cpuid_faults;             /* CPUID stops a runner */
    bool tsc_plain;                /* RDTSC does not stop those that are made from here on, and shows the host's */
    struct runner_call *list;      /* what the stub reads; runners may not write it */
    uint8_t *copies;               /* pages that stand for the guest's, see runners_copy(), */
    uint64_t copied[RUNNER_COPIES_MAX / 64]; /* and a bit for each that does */
    pid_t thread;                  /* the tracer's, */
    cpu_set_t may;                 /* and where that may run */
    bool joined;                   /* it is bound to this CPU: */
    int cpu;                       /* -1: none */
    _Atomic pid_t running;         /* the runner that runs; 0: none */
};

struct runner {
    struct runners *all;
    pid_t pid;        /* 0: none */
    uint64_t secret[2];
    int cpu;          /* that it is bound to; -1: none */
    struct runner_call *call; /* owned: RUNNER_LIST, `calls` of them are to be made */
    unsigned calls;
    uint64_t breaks[RUNNER_BREAKS]; /* as runner_breaks() set them last */
};

/* Make the template; files: descriptors of guest RAM, by slot, -1: none. 0 or -errno: the host allows none. */
int runners_init(struct runners *all, const int files[RUNNER_FILES]);
void runners_fini(struct runners *all);
/* A page of the file of copies, for whoever has a guest's page be executed with other bytes than it has: its number in the file, -1: none is free. Runners may only
 * read and execute it. It is the caller's until runners_drop_copy(). */
int runners_copy(struct runners *all, const uint8_t *page);
void runners_drop_copy(struct runners *all, unsigned n);
/* Of those that are made from here on; at first RDTSC stops them. 0 or -errno: it is as it was. */
int runners_set_tsc(struct runners *all, bool plain);

/* A new one with an empty address space. 0 or -errno. */
int runner_start(struct runner *r, struct runners *all);
void runner_end(struct runner *r);

/* Put a mapping of pages of a file (by slot, or RUNNER_COPIES), or nothing (prot < 0), at lin, before it runs the next time. False: the list is full. */
bool runner_map(struct runner *r, uint64_t lin, uint64_t len, int prot, unsigned file, uint64_t off);
/* Take away everything. */
bool runner_unmap_all(struct runner *r);
/* Have it stop before it executes an instruction at one of these (0: none): SIGTRAP, TRAP_HWBKPT. 0; or -errno: the host does not allow it, and those of before that
 * are also in `at` are still good. */
int runner_breaks(struct runner *r, const uint64_t at[RUNNER_BREAKS]);

/* Do what the list says, and run from *regs on until something stops it; *regs are then what it has. 0, or -ESRCH: the runner is gone, and with it the registers;
 * or another -errno: its address space is not what it should be, and *regs is as it was. */
int runner_run(struct runner *r, struct user_regs_struct *regs, struct runner_stop *stop);
/* CPU time that it has had, in ns: what it waited for its turn is not in it. */
uint64_t runner_ns(const struct runner *r);
int runner_put_xstate(struct runner *r, void *area, size_t size);
int runner_get_xstate(struct runner *r, void *area, size_t size);

/* The tracer's thread and r stay on one CPU from here on: each waits for the other, and woken on another CPU it is there twice as late, and r has to follow. It is
 * another CPU than those of the machine's other vCPUs, if there is one. Until runner_part(): the thread goes where it may. */
void runner_join(struct runner *r);
void runner_part(struct runners *all);

/* Stop the one that runs, if one does, or is about to. Any thread. */
void runner_poke(const struct runners *all);
/* Once a process: the handler of RUNNER_SIGNAL. And on the vCPU's thread: it is let in. */
int runner_init_signal(void);
void runner_thread(struct runners *all);

#endif
