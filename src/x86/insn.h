/* One decoded instruction, and the decoder (Zydis, reduced to our own compact form).
 *
 * A struct insn is engine-neutral but for `fn`, the handler bound by the engine, and `stub`.
 */
#ifndef VITRO_X86_INSN_H
#define VITRO_X86_INSN_H

#include <Zydis/Zydis.h>

#include "x86/cpu.h"
#include "x86/mem.h"

struct insn;
typedef void insn_fn(struct cpu *cpu, const struct insn *i);

enum insn_form {
    FORM_NONE, /* no explicit operands, or implicit ones only */
    FORM_R,    /* register */
    FORM_M,    /* memory */
    FORM_I,    /* immediate or relative branch */
    FORM_RR,   /* r0 is the first operand, r1 the second */
    FORM_RM,
    FORM_MR,   /* memory first; the register is r0 */
    FORM_RI,
    FORM_MI,
    FORM_RRI,  /* IMUL r,r,i; SHLD r,r,i */
    FORM_RMI,
    FORM_MRI,
    FORM_RRC,  /* SHLD r, r, CL (r0 destination, r1 source) */
    FORM_MRC,  /* SHLD m, r, CL (the register is r0) */
    FORM_FAR,  /* immediate far pointer: imm = offset, sel = selector */
    FORM_OTHER /* anything else: look at the raw decode (vector instructions) */
};

enum {
    INSN_LOCK = 1,
    INSN_REP = 2,    /* F3 as REP/REPE */
    INSN_REPNE = 4,  /* F2 */
    INSN_END = 8,    /* last of its block: branches, and whatever changes mode, mapping or masking */
    INSN_LEGACY = 16, /* not 64-bit code: segment limits apply, linear addresses are 32-bit */
    INSN_MEM = 32,   /* has an explicit memory operand: base..seg are valid */
    INSN_BRANCH = 64, /* changes RIP */
};

/* Decoded fields. Registers are byte offsets into cpu->r (AH is 1, CH 9, ...), so that a handler of any
 * operand size reads *(uintN_t *)((char *)cpu->r + r0). */
struct insn {
    insn_fn *fn;
    uint64_t imm;       /* immediate, sign-extended; branch displacement; moffs address */
    uint64_t addr_mask; /* by address size */
    const void *stub;   /* engine's own */
    int64_t disp;
    uint16_t op;        /* ZydisMnemonic */
    uint16_t sel;       /* selector of a far pointer; second immediate of ENTER and EXTRQ */
    uint8_t form, flags, len;
    uint8_t osz;        /* operand size of the first operand in bytes: 1 2 4 8 (vectors: as is) */
    uint8_t osz2;       /* of the second (MOVZX, MOVSX, MOVSXD, CRC32) */
    uint8_t esz;        /* effective operand size attribute: 2 4 8 (stack ops, branches, string ops: 1 too) */
    uint8_t asz;        /* address size 2 4 8 */
    uint8_t msz;        /* memory operand size in bytes */
    uint8_t r0, r1;
    uint8_t base, index, scale; /* ea = r[base] + (r[index] << scale) + disp; R_ZERO when absent */
    uint8_t seg;        /* segment of the memory operand, or source segment of string instructions */
    uint8_t cc;         /* condition of Jcc, SETcc, CMOVcc; segment, control or debug register number of MOV */
    uint8_t rex;        /* nonzero: REX, VEX or EVEX present */
    uint8_t spare[4];
};

/* The raw decode, valid while an instruction is being bound. */
struct decoded {
    ZydisDecodedInstruction z;
    ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
    uint8_t raw[15];
    uint8_t code_size; /* 2, 4, 8 */
};

enum decode_result { DECODE_OK, DECODE_UD, DECODE_TRUNCATED, DECODE_TOO_LONG };

/* Decode up to n bytes at p as code of code_size (2, 4, 8). On DECODE_OK fills i (fn and stub NULL) and d.
 * amd: near branches with an operand-size prefix in 64-bit code are 16-bit ones (APM vol. 3).
 * DECODE_TRUNCATED: more bytes are needed. DECODE_TOO_LONG: over 15 bytes (#GP). Invalid encodings, LOCK where
 * it is not allowed, and the like: DECODE_UD. */
enum decode_result insn_decode(const uint8_t *p, unsigned n, unsigned code_size, bool amd, struct insn *i,
                               struct decoded *d);

/* How the bytes of a 64-bit instruction divide. Equal heads (and immediates, where they say what to do) mean equal decodes but for the
 * values of displacement and immediate. */
struct insn_parts {
    uint8_t head; /* prefixes, opcode, ModRM, SIB */
    uint8_t disp; /* bytes: 0 1 4 */
    uint8_t imm;  /* 0 1 2 4 8 */
    bool imm_is_opcode; /* the immediate decides what is done: shift counts, vector controls */
};
/* split.c: p has 16 bytes, whatever is in them. False: rare or invalid, ask insn_decode(). An answer does not mean that the
 * instruction is valid. */
bool insn_split(const uint8_t *p, struct insn_parts *s);

/* Offset part of the memory operand, within its address size. */
static inline uint64_t insn_ea(const struct cpu *cpu, const struct insn *i)
{
    return (cpu->r[i->base] + (cpu->r[i->index] << i->scale) + (uint64_t)i->disp) & i->addr_mask;
}

/* Segment check and base for an access of size bytes at offset off (seg.c): raises #GP/#SS. */
uint64_t seg_lin(struct cpu *cpu, unsigned seg, uint64_t off, unsigned size, enum mmu_access acc);

/* Linear address of offset ea in segment seg for an access of size bytes by i. */
static inline uint64_t insn_lin_at(struct cpu *cpu, const struct insn *i, unsigned seg, uint64_t ea, unsigned size,
                                   enum mmu_access acc)
{
    if (unlikely(i->flags & INSN_LEGACY))
        return seg_lin(cpu, seg, ea, size, acc);
    return cpu->lin_base[seg] + ea;
}

/* Linear address of the memory operand for an access of size bytes. */
static inline uint64_t insn_lin(struct cpu *cpu, const struct insn *i, unsigned size, enum mmu_access acc)
{
    return insn_lin_at(cpu, i, i->seg, insn_ea(cpu, i), size, acc);
}

#define INSN_REG(cpu, off, type) (*(type *)((char *)(cpu)->r + (off)))

#endif
