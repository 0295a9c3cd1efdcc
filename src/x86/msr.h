/* Model-specific registers (SDM vol. 4; APM vol. 2 appendix A): those that Linux, SeaBIOS and OVMF touch.
 * Others: false, and the instruction raises #GP(0). */
#ifndef VITRO_X86_MSR_H
#define VITRO_X86_MSR_H

#include "x86/cpu.h"

bool msr_read(struct cpu *cpu, uint32_t index, uint64_t *value);
bool msr_write(struct cpu *cpu, uint32_t index, uint64_t value); /* false: #GP; may raise by itself */

#endif
