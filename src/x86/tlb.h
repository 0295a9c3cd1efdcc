/* Between tlb.c and mem.c only: filling the software TLB. */
#ifndef VITRO_X86_TLB_H
#define VITRO_X86_TLB_H

#include "x86/cpu.h"
#include "x86/mmu.h"

/* A table in which nothing is ever found: alignment checks need the slow path for every access. Never
 * written. */
extern const struct tlb_entry tlb_nothing[TLB_SIZE];

/* The entry through which an access (ACC_READ or ACC_WRITE, or both) at index idx may go: its tag matches,
 * maybe with TLB_SLOW. Raises #PF. lin is canonical. */
struct tlb_entry *tlb_get(struct cpu *cpu, enum mmu_index idx, uint64_t lin, enum mmu_access acc);

/* All tables empty, at the beginning of a CPU's life. */
void tlb_init(struct cpu *cpu);

/* The flags of the page behind e changed (decoded code is gone, dirty bit is set): set e's write tag anew. */
void tlb_refresh(struct cpu *cpu, struct tlb_entry *e);

#endif
