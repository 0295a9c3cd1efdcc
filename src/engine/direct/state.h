/* A guest's user-level registers in a runner's, and back.
 *
 * Thread: the vCPU's.
 */
#ifndef VITRO_DIRECT_STATE_H
#define VITRO_DIRECT_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>


#include "engine/direct/regs.h"
#include "x86/cpu.h"

#define STATE_MAX 16384 /* bytes of a layout that we have room for */

/* Where XSAVE's standard form has what (SDM vol. 1, 13.4.3); on this host. */
struct state_layout {
    uint32_t size;      /* of all of it */
    uint32_t at[8];     /* of component n; 0: the host has none */
    uint64_t have;      /* components that are moved: XCR0_* */
    bool fsgsbase;      /* instructions of that name run at level 3 */
    bool same_xcr0;     /* the host's XCR0 has nothing beyond `have` */
};
void state_layout(struct state_layout *l);
/* Is it what the guest's CPUID says? User code that has XSAVE by itself gets the host's. */
bool state_layout_shown(const struct state_layout *l, const struct cpuid_table *t);

/* Can a runner be in the state that the CPU is in, at level 3? And is it one of those that a runner has at all times (selectors, flags)? */
bool state_fits(const struct cpu *cpu, const struct state_layout *l);

void state_put_regs(const struct cpu *cpu, struct user_regs_struct *regs);
/* May raise nothing; tells the engine if the mode changed. */
void state_get_regs(struct cpu *cpu, const struct user_regs_struct *regs);
/* Behind it, when all else is there: segment registers that user code has loaded by itself. The host's descriptor tables let it; what the guest's have at these
 * selectors is loaded, or raised, at RIP. */
void state_get_segments(struct cpu *cpu, const struct user_regs_struct *regs);
/* area: l->size bytes, aligned to 8 */
void state_put_vectors(const struct cpu *cpu, const struct state_layout *l, uint8_t *area);
void state_get_vectors(struct cpu *cpu, const struct state_layout *l, const uint8_t *area);

#endif
