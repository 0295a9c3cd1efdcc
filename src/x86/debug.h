/* Debug registers, single step and breakpoints (SDM vol. 3 ch. 17). */
#ifndef VITRO_X86_DEBUG_H
#define VITRO_X86_DEBUG_H

#include "x86/cpu.h"
#include "x86/mmu.h"

void debug_write_dr(struct cpu *cpu, unsigned n, uint64_t v); /* raises #UD, #GP, #DB(GD) */
uint64_t debug_read_dr(struct cpu *cpu, unsigned n);
/* Before an instruction at linear address lin: raises #DB (fault) for a code breakpoint unless RF. */
void debug_check_code(struct cpu *cpu, uint64_t lin);
/* An access at lin: collects matching data breakpoints into cpu->pending_db. */
void debug_check_data(struct cpu *cpu, uint64_t lin, unsigned size, enum mmu_access acc);
void debug_check_io(struct cpu *cpu, uint16_t port, unsigned size);
/* Call before POPF or IRET changes RFLAGS: a TF that was set traps after this instruction even if it is
 * cleared by it. */
void debug_flags_written(struct cpu *cpu, bool new_tf);
/* Raise a single-step trap behind the current instruction whatever TF was before it (SYSRET). */
void debug_step_now(struct cpu *cpu);
/* A task switch: local breakpoints go; with the TSS's T bit set a trap follows in the new task. */
void debug_task_switch(struct cpu *cpu, bool trap);
/* #DB is about to be delivered: DR7.GD goes, or the handler could not read the registers. */
void debug_enter(struct cpu *cpu);
/* Whether something waits that an instruction raised by itself: a task's T bit, TF as SYSRET or POPF leave
 * it. */
static inline bool debug_trap_waits(const struct cpu *cpu) { return cpu->pending_db & 0xc000; }
/* After an instruction that started with TF as given: raises #DB (trap) for single step and pending_db. */
void debug_after(struct cpu *cpu, bool tf);

#endif
