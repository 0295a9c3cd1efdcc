/* The tier for user code that computes: it runs as it is, in processes of its own (runner.h). docs/design/direct.md has the why and the rules.
 *
 * Which code: an account for each address space. Time in user code is paid in, a price for each way into the kernel is taken off; from a certain sum on the space
 * runs here, until it is spent.
 *
 * Thread: the vCPU's; direct_notice(): any.
 */
#ifndef VITRO_DIRECT_DIRECT_H
#define VITRO_DIRECT_DIRECT_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/interp/interp.h"

struct direct;

/* On the vCPU's thread, before its sandbox closes: NULL if this machine or this host has no such tier. */
struct direct *direct_create(struct vcpu *v);
void direct_destroy(struct direct *d);

/* Would there be one on this host? 0; *cpuid_faults: CPUID stops user code there. Or -errno: it lets nobody be traced, or makes no processes. Any thread. */
int direct_probe(bool *cpuid_faults);

/* The CPU is about to run code at level 3. Should that be here? syscalls: made by translated code so far. */
bool direct_wants(struct direct *d, struct cpu *cpu, uint64_t syscalls);
/* The space that CR3 names is one that runs here. */
bool direct_hot(const struct direct *d, const struct cpu *cpu);
/* Run it, until something else is to be done. False: not now, run it elsewhere. May raise. */
bool direct_run(struct direct *d, struct interp *it, struct cpu *cpu);

/* The choke point: what of struct cpu_ops has the same names. */
void direct_flushed(struct direct *d, const struct tlb_flush *f);
void direct_protected(struct direct *d, uint64_t gpa);
/* And interp_translator.changed. */
void direct_changed(struct direct *d, uint64_t gpa);
/* And cpu_ops.identified. */
void direct_identified(const struct direct *d, struct cpu *cpu);
/* Somebody wants the vCPU's attention. */
void direct_notice(const struct direct *d);

#endif
