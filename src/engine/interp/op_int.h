/* Shared by the integer handlers: register access, and handler families by operand size.
 *
 * The arithmetic itself is done by the host's own instruction between "load the guest's flags" and "LAHF, SETO", so
 * results and flags, undefined ones included, are those of this CPU. */
#ifndef VITRO_INTERP_OP_INT_H
#define VITRO_INTERP_OP_INT_H

#include "engine/interp/ops.h"
#include "x86/seg.h"

typedef uint8_t op_u8 __attribute__((aligned(1), may_alias));
typedef uint16_t op_u16 __attribute__((aligned(1), may_alias));
typedef uint32_t op_u32 __attribute__((aligned(1), may_alias));
typedef uint64_t op_u64 __attribute__((aligned(1), may_alias));

#define REG8(cpu, off) INSN_REG(cpu, off, op_u8)
#define REG16(cpu, off) INSN_REG(cpu, off, op_u16)
#define REG32(cpu, off) INSN_REG(cpu, off, op_u32)
#define REG64(cpu, off) INSN_REG(cpu, off, op_u64)

/* Register writes: 32-bit ones clear the upper half, smaller ones keep the rest. */
static inline void reg_set8(struct cpu *cpu, unsigned off, uint8_t v) { REG8(cpu, off) = v; }
static inline void reg_set16(struct cpu *cpu, unsigned off, uint16_t v) { REG16(cpu, off) = v; }
static inline void reg_set32(struct cpu *cpu, unsigned off, uint32_t v) { REG64(cpu, off) = v; }
static inline void reg_set64(struct cpu *cpu, unsigned off, uint64_t v) { REG64(cpu, off) = v; }

/* By run-time size (1, 2, 4, 8), for handlers that are not worth a family. */
static inline uint64_t reg_get(const struct cpu *cpu, unsigned off, unsigned size)
{
    uint64_t v;
    memcpy(&v, (const char *)cpu->r + (off & ~7u), 8); /* a copy of variable length would be a call */
    return v >> 8 * (off & 7) & mask_bytes(size);
}
static inline void reg_set(struct cpu *cpu, unsigned off, uint64_t v, unsigned size)
{
    if (size == 4)
        REG64(cpu, off) = (uint32_t)v;
    else
        memcpy((char *)cpu->r + off, &v, size);
}

/* First operand (register or memory) as a value; second operand likewise. */
static inline uint64_t op_load_mem(struct cpu *cpu, const struct insn *i, unsigned size)
{
    return mem_ld(cpu, i->seg, insn_lin(cpu, i, size, ACC_READ), size);
}
static inline void op_store_mem(struct cpu *cpu, const struct insn *i, uint64_t v, unsigned size)
{
    mem_st(cpu, i->seg, insn_lin(cpu, i, size, ACC_WRITE), v, size);
}

/* View of a read-modify-write memory operand. */
static inline void *op_rmw(struct cpu *cpu, const struct insn *i, unsigned size)
{
    return mem_view_rmw(cpu, i->seg, insn_lin(cpu, i, size, ACC_WRITE), size, i->flags & INSN_LOCK);
}

/* Index of an operand size: 1 2 4 8 -> 0 1 2 3. */
static inline unsigned op_size_index(unsigned size)
{
    return (unsigned)__builtin_ctz(size | 8);
}

/* Flags between host and guest in inline assembly. LOAD needs the guest's in eax; STORE leaves them in ax. */
#define ASM_LOAD_FLAGS "addb $127, %%al\n\tsahf\n\t"
#define ASM_STORE_FLAGS "\n\tlahf\n\tseto %%al"
#define ASM_LOAD_CF "btl $8, %k[fl]\n\t"

#define FOR_SIZES(X) X(8, b) X(16, w) X(32, l) X(64, q)

#endif
