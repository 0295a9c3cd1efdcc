/* Handlers of the system instructions that live outside op_sys.c, for its table. */
#ifndef VITRO_INTERP_OP_SYSTEM_H
#define VITRO_INTERP_OP_SYSTEM_H

#include "engine/interp/op_int.h"
#include "engine/interp/op_sys.h"
#include "x86/cpuid.h"

/* op_desc.c: descriptor tables and selectors */
insn_fn op_lgdt, op_lidt, op_sgdt, op_sidt, op_lldt, op_sldt, op_ltr, op_str, op_lar, op_lsl, op_verr,
    op_verw, op_arpl;
/* op_segreg.c: loading segments from far pointers, their bases */
insn_fn op_lds, op_les, op_lfs, op_lgs, op_lss, op_swapgs, op_rdfsbase, op_rdgsbase, op_wrfsbase, op_wrgsbase;
/* op_flags.c */
insn_fn op_cli, op_sti, op_clac, op_stac, op_pushf, op_popf;

/* #GP(0) unless CPL is 0 (virtual-8086 mode has CPL 3). */
static inline void op_need_cpl0(struct cpu *cpu)
{
    if (unlikely(cpu->cpl != 0))
        CPU_GP0(cpu);
}

/* #UD in real and virtual-8086 mode. */
static inline void op_need_protected(struct cpu *cpu)
{
    if (unlikely(cpu_real(cpu) || cpu_v86(cpu)))
        CPU_UD(cpu);
}

/* UMIP: SGDT, SIDT, SLDT, SMSW and STR only at CPL 0 (SDM vol. 3, 2.5). */
static inline void op_check_umip(struct cpu *cpu)
{
    if (unlikely((cpu->cr4 & CR4_UMIP) && cpu->cpl != 0))
        CPU_GP0(cpu);
}

static inline void op_need_feature(struct cpu *cpu, unsigned feat)
{
    if (unlikely(!cpu_has(cpu, feat)))
        CPU_UD(cpu);
}

/* A 16-bit source that is a register (its offset given) or memory. */
static inline uint16_t op_src16(struct cpu *cpu, const struct insn *i, unsigned reg)
{
    return i->flags & INSN_MEM ? (uint16_t)op_load_mem(cpu, i, 2) : REG16(cpu, reg);
}

/* Store a system value: the whole operand to a register, 16 bits to memory. */
static inline void op_store_word(struct cpu *cpu, const struct insn *i, uint64_t v)
{
    if (i->flags & INSN_MEM)
        op_store_mem(cpu, i, v, 2);
    else
        reg_set(cpu, i->r0, v, i->osz);
}

/* AMD has no far pointers with 64-bit offsets; REX.W changes nothing there. */
static inline unsigned op_far_size(const struct cpu *cpu, const struct insn *i)
{
    return i->esz == 8 && cpu->cpuid->vendor == VENDOR_AMD ? 4 : i->esz;
}

/* A far pointer in memory: offset (size bytes), then the selector. */
static inline uint64_t op_load_far(struct cpu *cpu, const struct insn *i, unsigned size, uint16_t *sel)
{
    uint64_t lin = insn_lin(cpu, i, size + 2, ACC_READ);
    uint64_t off = mem_ld(cpu, i->seg, lin, size);
    lin += size;
    *sel = mem_ld16(cpu, i->seg, i->flags & INSN_LEGACY ? (uint32_t)lin : lin);
    return off;
}

#endif
