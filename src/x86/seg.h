/* Segmentation, far transfers, gates, interrupts and tasks (SDM vol. 3 ch. 3, 5, 6, 7). */
#ifndef VITRO_X86_SEG_H
#define VITRO_X86_SEG_H

#include "x86/cpu.h"
#include "x86/mmu.h"

/* Load segment register n (not CS) with all checks of the current mode; raises #GP/#NP/#SS(sel). */
void seg_load(struct cpu *cpu, unsigned n, uint16_t sel);
/* Read an 8-byte descriptor; false if outside its table (no raise). addr (may be NULL) gets its address. */
bool seg_descriptor(struct cpu *cpu, uint16_t sel, uint64_t *desc, uint64_t *addr);
/* Unpack base, limit (granularity applied) and attributes. */
void seg_unpack(struct seg *s, uint16_t sel, uint64_t desc);
void seg_load_ldtr(struct cpu *cpu, uint16_t sel);
void seg_load_tr(struct cpu *cpu, uint16_t sel);

/* Stack: size is 2, 4 or 8 (the operand size); wrap and limits by SS. cpu_pop() moves RSP. */
void cpu_push(struct cpu *cpu, uint64_t v, unsigned size);
uint64_t cpu_pop(struct cpu *cpu, unsigned size);

/* Near branch target checks: canonical or CS limit; then sets RIP (truncated by osz 2/4/8). #GP(0). */
void cpu_jump(struct cpu *cpu, uint64_t target, unsigned osz);

/* Far transfers; osz is the operand size in bytes. RIP and CS are set, nothing on a fault. */
void far_jump(struct cpu *cpu, uint16_t sel, uint64_t off, unsigned osz);
void far_call(struct cpu *cpu, uint16_t sel, uint64_t off, unsigned osz);
void far_ret(struct cpu *cpu, unsigned osz, unsigned pop_bytes);
void cpu_iret(struct cpu *cpu, unsigned osz);
void cpu_syscall(struct cpu *cpu);
void cpu_sysret(struct cpu *cpu, unsigned osz);
void cpu_sysenter(struct cpu *cpu);
void cpu_sysexit(struct cpu *cpu, unsigned osz);

enum int_kind { INT_HARD, INT_SOFT /* INT n */, INT_TRAP3 /* INT3, INTO */, INT_ICEBP, INT_FAULT };
/* Deliver vector through IVT or IDT. Raises on failure (the caller's unwind sorts out #DF). */
void cpu_interrupt(struct cpu *cpu, unsigned vector, enum int_kind kind, bool has_error, uint32_t error);

/* Deliver cpu->event (from cpu_raise()), with the rules for contributory and double faults
 * (SDM vol. 3, table 6-5). Raises again if the delivery faults: the caller loops through its unwind
 * point. Returns false on a triple fault (activity becomes CPU_SHUTDOWN). */
bool cpu_deliver_event(struct cpu *cpu);

enum task_reason { TASK_JUMP, TASK_CALL, TASK_INT, TASK_IRET };
void task_switch(struct cpu *cpu, uint16_t sel, uint64_t desc, enum task_reason why, bool has_error, uint32_t error);

#endif
