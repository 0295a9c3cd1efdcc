/* The contract between a machine and whatever executes its CPUs.
 *
 * Every engine works on struct cpu, and it is current whenever run() has returned. Order of calls: init,
 * then per vCPU vcpu_init; run() on the vCPU's own thread; kick from any thread.
 */
#ifndef VITRO_ENGINE_ENGINE_H
#define VITRO_ENGINE_ENGINE_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "x86/cpu.h"

struct err;
struct engine;
struct ram;

#define MAX_VCPUS 64

enum vcpu_exit {
    EXIT_KICK,     /* ATT_EXIT was set: pause, stop ... */
    EXIT_SHUTDOWN, /* triple fault: activity is CPU_SHUTDOWN */
};

/* What a vCPU counts while it runs: X(field, what it says). A new counter is a line here and an increment where it happens, on the
 * vCPU's own thread (or while it stands still); never on a path that is taken for each instruction. */
#define ENGINE_COUNTERS(X)                                                                                             \
    X(decoded, "instructions decoded")                                                                                 \
    X(steps, "instructions run one by one: across pages, single step, shadows")                                        \
    X(invalidated, "code pages dropped because they were written to")                                                  \
    X(emptied, "times that all decoded code was dropped")                                                              \
    X(rested, "of these, because the vCPU had been idle for long: memory went back to the host")                       \
    X(faults, "exceptions delivered")                                                                                  \
    X(interrupts, "interrupts and NMIs delivered")                                                                     \
    X(halts, "times asleep in HLT or waiting for SIPI")                                                                \
    X(yields, "times that others were let go first in a loop that waits by PAUSE")                                     \
    X(flush_all, "flushes of all translations")                                                                        \
    X(flush_context, "flushes of one PCID, or of all that is not global")                                              \
    X(flush_page, "flushes of one page")                                                                               \
    X(switches, "writes to CR3 with PCIDs")                                                                            \
    X(protections, "pages made read-only because they hold code")                                                     \
    X(ports, "port accesses")                                                                                          \
    X(mmio, "accesses to devices' memory, local APICs excepted")                                                                           \
    X(blocks, "blocks translated")                                                                                     \
    X(block_insns, "instructions in them")                                                                             \
    X(block_inline, "of these, not by their handler")                                                                  \
    X(block_bytes, "bytes of host code for them")                                                                      \
    X(block_limit, "blocks that could not be translated")                                                              \
    X(entered, "times that the loop entered translated code")                                                          \
    X(left_link, "left: the next block of the page has no code yet, or was not linked")                                \
    X(left_target, "left: the target of a branch is not in the table of its address space")                            \
    X(left_attention, "left: somebody wanted the vCPU's attention")                                                    \
    X(left_handler, "left: a handler ended the block")                                                                 \
    X(continued, "times that a handler ended a block, and translated code went on without the loop")                   \
    X(left_access, "left: a branch whose memory access its handler did")                                               \
    X(left_stale, "left: code was overwritten")                                                                        \
    X(misses, "memory accesses of translated code that were not in the flat tables")                                   \
    X(slow, "of these, done by the instruction's handler")                                                             \
    X(host_faults, "faults of the host in translated code")                                                            \
    X(flat_fills, "entries put into the flat tables")                                                                  \
    X(flat_emptied, "times that a set of flat tables was emptied")                                                     \
    X(flat_protected, "pages that lost their write permission there")                                                  \
    X(flat_spaces, "times that another PCID took a set over")                                                          \
    X(code_emptied, "times that all translated code was dropped")                                                      \
    X(direct_runs, "times that user code began to run by itself")                                                      \
    X(direct_stops, "times that it stopped")                                                                           \
    X(direct_maps, "of these, because a page was not mapped yet")                                                      \
    X(direct_moves, "pieces of a file's memory that were moved for it")                                                \
    X(direct_odd, "and because of an instruction that would show the host's CPU")

struct engine_stats {
#define X(field, what) uint64_t field;
    ENGINE_COUNTERS(X)
#undef X
};

/* All of them by name, for whoever shows them. */
struct engine_counter {
    const char *name, *what;
    unsigned offset; /* in struct engine_stats */
};
extern const struct engine_counter engine_counters[]; /* ends with a NULL name */
/* Also while the vCPU runs. */
static inline uint64_t engine_counter_get(const struct engine_stats *s, const struct engine_counter *c)
{
    return __atomic_load_n((const uint64_t *)((const char *)s + c->offset), __ATOMIC_RELAXED);
}

struct engine_profile; /* trace.h */

struct vcpu {
    struct cpu cpu;
    struct engine *engine;
    struct engine_stats stats;
    struct engine_profile *profile; /* NULL: none */
    _Atomic bool asleep;       /* or about to: who sets attention wakes it */
    uint64_t elsewhere_ns;     /* that its guest ran outside of its thread */
    bool in_guest;             /* under engine->quiesce.lock */
    unsigned exclusive_depth;
};

struct engine_ops {
    const char *name;
    /* Does it work on this host? 0, or -errno with the reason in err, as the rest of a sentence. NULL: everywhere. */
    int (*probe)(struct err *err);
    int (*init)(struct engine *e, struct err *err);
    void (*fini)(struct engine *e);
    int (*vcpu_init)(struct vcpu *v, struct err *err);
    void (*vcpu_fini)(struct vcpu *v);
    /* On the vCPU's thread, before its sandbox closes. NULL: nothing to do. */
    void (*vcpu_begin)(struct vcpu *v);
    enum vcpu_exit (*run)(struct vcpu *v);
    /* All cached knowledge about [gpa, gpa+len) is void (ROM mapped, restore, dirty log switched). vCPUs are stopped. */
    void (*invalidate)(struct engine *e, uint64_t gpa, uint64_t len);
};

struct engine {
    const struct engine_ops *ops;
    struct ram *ram;
    struct vcpu *vcpu[MAX_VCPUS];
    unsigned nvcpus;
    struct {
        pthread_mutex_t lock;
        _Atomic uint32_t changed; /* counts: a vCPU left the guest, or the owner is done */
        struct vcpu *owner;    /* runs alone */
        unsigned running;      /* vCPUs in the guest */
        unsigned waiting;      /* threads that wait for `changed` */
    } quiesce;
    void *priv;
    unsigned dbt_threshold; /* runs of a block before it is translated, for tests; 0: the translator's own */
    unsigned trace;         /* ENGINE_TRACE_* (trace.h), before vCPUs are added */
};

extern const struct engine_ops engine_interp;
extern const struct engine_ops engine_dbt; /* the interpreter with translation of hot 64-bit and flat 32-bit code */

/* Embedded engine life cycle: engine_init() fills the struct and calls ops->init. */
int engine_init(struct engine *e, const struct engine_ops *ops, struct ram *ram, struct err *err);
void engine_fini(struct engine *e);
/* Register a vCPU (all RAM slots exist by then) whose cpu member's surroundings (index, ram, loop, clock, lapic, cpuid) are set except
 * cpu.ops, which the caller provides with io, mmio and pic_ack filled; the engine adds the rest. */
int engine_add_vcpu(struct engine *e, struct vcpu *v, struct err *err);

/* Set attention bits and make the vCPU notice: wakes it if it sleeps. Any thread, any lock held. */
void vcpu_kick(struct vcpu *v, uint32_t attention);
/* The second half of a kick whose first, cpu_attention(), came earlier. */
void vcpu_wake(struct vcpu *v);

/* For engines: the vCPU enters and leaves guest execution; entering waits while another runs alone. */
void quiesce_enter(struct vcpu *v);
void quiesce_leave(struct vcpu *v);
/* Stop all other vCPUs at an instruction boundary and run alone. Nests. Called inside the guest. */
void quiesce_begin(struct vcpu *v);
void quiesce_end(struct vcpu *v);
/* Sleep until attention is nonzero (HLT, wait for SIPI), ns at most; 0: however long. False: nothing came. Counts as outside the guest. */
bool vcpu_wait(struct vcpu *v, uint64_t ns);
/* cpu_ops.run_ns: on the vCPU's own thread. */
uint64_t vcpu_run_ns(struct cpu *cpu);

#endif
