/* Shared by the handlers in C for x87, SSE and AVX state: op_fpu.c, op_xsave.c, op_vecmem.c, op_gather.c. */
#ifndef VITRO_INTERP_VECSTATE_H
#define VITRO_INTERP_VECSTATE_H

#include <string.h>

#include "engine/interp/hostexec.h"

#define MXCSR_VALID 0xffffu /* no misaligned-SSE mode (bit 17): CPUID does not show it */
#define FCW_VALID   0x1f3fu
#define FCW_ONE     0x0040u /* reads as one */

/* Change TOP; the physical registers keep their contents, so that the image's ST(i) move. */
void x87_set_top(struct x87_image *fx, unsigned top);
/* Make the summary bits ES and B agree with flags and masks. */
void x87_summarize(struct x87_image *fx);
/* FNINIT's state; register contents stay. */
void x87_init(struct x87_image *fx);
/* Full tag word (two bits a physical register) from the abridged one and the registers. */
uint16_t x87_full_tags(const struct x87_image *fx);

/* Copy n bytes of guest memory at lin (segment already checked) to or from buf; raises. vec_write() raises
 * before it has stored anything; n is at most a page. */
void vec_read(struct cpu *cpu, unsigned seg, uint64_t lin, void *buf, unsigned n);
void vec_write(struct cpu *cpu, unsigned seg, uint64_t lin, const void *buf, unsigned n);
/* Without the check in advance (the caller has probed). */
void vec_write_probed(struct cpu *cpu, unsigned seg, uint64_t lin, const void *buf, unsigned n);

/* One element of VMASKMOV, a gather or a scatter. Elements are not checked for alignment, whatever EFLAGS.AC says (seen
 * on AMD's CPUs): then they go byte by byte. */
uint64_t vec_ld_elem(struct cpu *cpu, unsigned seg, uint64_t lin, unsigned size);
void vec_probe_elem(struct cpu *cpu, unsigned seg, uint64_t lin, unsigned size); /* for writing */
void vec_st_elem(struct cpu *cpu, unsigned seg, uint64_t lin, uint64_t v, unsigned size);

/* op_gather.c */
insn_fn *gather_select(struct insn *i, const struct decoded *d);
insn_fn *scatter_select(struct insn *i, const struct decoded *d);

#endif
