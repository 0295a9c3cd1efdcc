/* What `vitro run --trace` asks of an engine: exits as they happen, and counts of what handlers did, by mnemonic.
 *
 * engine->trace is set before vCPUs are added and never changes, so that code which is not traced is made without any of it.
 *
 * Thread: the vCPU's; counts may be read at any time.
 */
#ifndef VITRO_ENGINE_TRACE_H
#define VITRO_ENGINE_TRACE_H

#include <Zydis/Zydis.h>

#include "engine/engine.h"

enum {
    ENGINE_TRACE_BLOCKS = 1, /* each translated block, with the guest's instructions */
    ENGINE_TRACE_HOST = 2,   /* and its host code */
    ENGINE_TRACE_EXITS = 4,  /* every time that translated code needs C code, or is left; exceptions, interrupts */
    ENGINE_TRACE_STATS = 8,  /* count by mnemonic: vcpu->profile */
};

#define ENGINE_OPS (ZYDIS_MNEMONIC_MAX_VALUE + 1)

struct engine_profile {
    uint64_t inside[ENGINE_OPS]; /* handlers that translated code called and came back from */
    uint64_t end[ENGINE_OPS];    /* that ended a block, and led back to the loop */
    uint64_t slow[ENGINE_OPS];   /* that did a memory access which could not be direct */
    uint64_t miss[ENGINE_OPS];   /* accesses that found their table's entry missing, and made it */
    uint64_t exception[32];
};

/* For engine.c. False: no memory. */
bool engine_profile_create(struct vcpu *v);
void engine_profile_destroy(struct vcpu *v);

/* One mnemonic, summed over all vCPUs. */
struct engine_top {
    const char *name;
    uint64_t inside, end, slow, miss;
};

/* The up to max mnemonics whose handlers were called most, the first the most; returns how many. */
unsigned engine_top(const struct engine *e, struct engine_top *top, unsigned max);
/* How often exception n was delivered; 0 without profiles. */
uint64_t engine_exceptions(const struct engine *e, unsigned n);

/* For engines, when engine->trace is set: an exception (recorded in cpu->event) or an interrupt is about to be delivered. */
void engine_trace_exception(const struct vcpu *v);
void engine_trace_interrupt(const struct vcpu *v, unsigned vector);

/* A line about an exit at rip. */
void engine_trace_exit(const struct cpu *cpu, uint64_t rip, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

#endif
