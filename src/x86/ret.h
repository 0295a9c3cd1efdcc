/* What far returns and IRET share (ret.c). */
#ifndef VITRO_X86_RET_H
#define VITRO_X86_RET_H

#include "x86/desc.h"

/* The code segment of a return: all checks but those of the offset; raises #GP, #NP. */
void ret_fetch_code(struct cpu *cpu, uint16_t sel, struct code_target *t);
/* The stack segment of a return to the outer (or, in 64-bit mode, any) level cpl; raises #GP, #SS. */
void ret_outer_ss(struct cpu *cpu, const struct code_target *t, uint16_t sel, unsigned cpl, struct seg *ss);

#endif
