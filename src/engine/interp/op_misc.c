/* The rest of the integer instructions: multiplication and division, sign extension, flags, decimal adjustment, XLAT,
 * CMPXCHG8B/16B, NOP (SDM vol. 2). */
#include "engine/interp/op_int.h"
#include "x86/cpuid.h"

static uint64_t misc_operand(struct cpu *cpu, const struct insn *i)
{
    return i->flags & INSN_MEM ? op_load_mem(cpu, i, i->osz) : reg_get(cpu, i->r0, i->osz);
}

/* --- MUL, IMUL with one operand: rDX:rAX (AX for bytes) --- */

#define ASM_MUL(op) ASM_LOAD_FLAGS "movq %[lo], %%rax\n\t" op " %[s]\n\tmovq %%rax, %[lo]" ASM_STORE_FLAGS

#define MUL_WIDE(name, bits, sfx)                                                                        \
    static void op_##name##bits(struct cpu *cpu, const struct insn *i)                                   \
    {                                                                                                    \
        uint##bits##_t s = (uint##bits##_t)misc_operand(cpu, i), hi;                                     \
        uint64_t lo = REG##bits(cpu, RAX * 8);                                                           \
        uint32_t fl = cpu->aflags;                                                                       \
        __asm__(ASM_MUL(#name #sfx) : [lo] "+&r"(lo), "=&d"(hi), [fl] "+&a"(fl) : [s] "r"(s) : "cc");    \
        reg_set##bits(cpu, RAX * 8, (uint##bits##_t)lo);                                                 \
        reg_set##bits(cpu, RDX * 8, hi);                                                                 \
        cpu->aflags = (uint16_t)fl;                                                                      \
    }
MUL_WIDE(mul, 16, w) MUL_WIDE(mul, 32, l) MUL_WIDE(mul, 64, q)
MUL_WIDE(imul, 16, w) MUL_WIDE(imul, 32, l) MUL_WIDE(imul, 64, q)

#define MUL_BYTE(name)                                                                                   \
    static void op_##name##8(struct cpu *cpu, const struct insn *i)                                      \
    {                                                                                                    \
        uint8_t s = (uint8_t)misc_operand(cpu, i);                                                       \
        uint64_t lo = REG8(cpu, 0);                                                                      \
        uint32_t fl = cpu->aflags;                                                                       \
        __asm__(ASM_MUL(#name "b") : [lo] "+&r"(lo), [fl] "+&a"(fl) : [s] "q"(s) : "cc");                \
        REG16(cpu, 0) = (uint16_t)lo;                                                                    \
        cpu->aflags = (uint16_t)fl;                                                                      \
    }
MUL_BYTE(mul)
MUL_BYTE(imul)

/* IMUL with two or three operands. */
#define IMUL_REG(bits, sfx)                                                                              \
    static void op_imul_r##bits(struct cpu *cpu, const struct insn *i)                                   \
    {                                                                                                    \
        bool three = i->form == FORM_RRI || i->form == FORM_RMI;                                         \
        uint##bits##_t s = i->flags & INSN_MEM ? (uint##bits##_t)op_load_mem(cpu, i, bits / 8)           \
                                               : REG##bits(cpu, i->r1);                                  \
        uint##bits##_t v = three ? (uint##bits##_t)i->imm : REG##bits(cpu, i->r0);                       \
        uint32_t fl = cpu->aflags;                                                                       \
        __asm__(ASM_LOAD_FLAGS "imul" #sfx " %[s], %[v]" ASM_STORE_FLAGS                                 \
                : [v] "+&r"(v), [fl] "+&a"(fl) : [s] "r"(s) : "cc");                                     \
        reg_set##bits(cpu, i->r0, v);                                                                    \
        cpu->aflags = (uint16_t)fl;                                                                      \
    }
IMUL_REG(16, w) IMUL_REG(32, l) IMUL_REG(64, q)

static insn_fn *select_mul(struct insn *i, const struct decoded *d)
{
    static insn_fn *const by[4] = { op_mul8, op_mul16, op_mul32, op_mul64 };
    return by[op_size_index(i->osz)];
}
static insn_fn *select_imul(struct insn *i, const struct decoded *d)
{
    static insn_fn *const one[4] = { op_imul8, op_imul16, op_imul32, op_imul64 };
    static insn_fn *const many[4] = { NULL, op_imul_r16, op_imul_r32, op_imul_r64 };
    bool wide = i->form == FORM_R || i->form == FORM_M;
    /* IMUL r8: the implicit AX and AL are visible operands of some encodings; the explicit ones decide. */
    return (wide ? one : many)[op_size_index(i->osz)];
}

/* --- DIV, IDIV: #DE is found before the host would --- */

static void op_div(struct cpu *cpu, const struct insn *i)
{
    uint64_t s = misc_operand(cpu, i), lo, hi;
    unsigned size = i->osz;
    if (size == 1) {
        lo = REG16(cpu, 0);
        if (!s || lo / s > 0xff)
            cpu_raise_noerr(cpu, VEC_DE);
        REG16(cpu, 0) = (uint16_t)(lo / s | (lo % s) << 8);
        return;
    }
    lo = reg_get(cpu, RAX * 8, size);
    hi = reg_get(cpu, RDX * 8, size);
    if (hi >= s) /* also s == 0 */
        cpu_raise_noerr(cpu, VEC_DE);
    if (size == 8) {
        __asm__("divq %[s]" : "+a"(lo), "+d"(hi) : [s] "r"(s) : "cc");
    } else {
        uint64_t n = hi << (8 * size) | lo;
        lo = n / s;
        hi = n % s;
    }
    reg_set(cpu, RAX * 8, lo, size);
    reg_set(cpu, RDX * 8, hi, size);
}

/* Dividend rDX:rAX (AX for bytes), sign-extended to 128 bits. */
static __int128 idiv_dividend(const struct cpu *cpu, unsigned size)
{
    switch (size) {
    case 1: return (int16_t)REG16(cpu, 0);
    case 2: return (int32_t)((uint32_t)REG16(cpu, RDX * 8) << 16 | REG16(cpu, 0));
    case 4: return (int64_t)((uint64_t)REG32(cpu, RDX * 8) << 32 | REG32(cpu, 0));
    default: return (__int128)((unsigned __int128)cpu->r[RDX] << 64 | cpu->r[RAX]);
    }
}

static void op_idiv(struct cpu *cpu, const struct insn *i)
{
    unsigned size = i->osz, shift = 64 - 8 * size;
    int64_t s = (int64_t)(misc_operand(cpu, i) << shift) >> shift;
    __int128 n = idiv_dividend(cpu, size);
    int64_t max = (int64_t)(~0ULL >> 1) >> shift;
    /* n / s overflows int128 only for n = -2^127, s = -1, which the range check must not compute. */
    if (!s || (s == -1 && n < -(__int128)max))
        cpu_raise_noerr(cpu, VEC_DE);
    __int128 q = n / s;
    if (q > max || q < -(__int128)max - 1)
        cpu_raise_noerr(cpu, VEC_DE);
    uint64_t rem = (uint64_t)(n % s);
    if (size == 1) {
        REG16(cpu, 0) = (uint16_t)((uint8_t)q | (uint8_t)rem << 8);
        return;
    }
    reg_set(cpu, RAX * 8, (uint64_t)q, size);
    reg_set(cpu, RDX * 8, rem, size);
}

/* --- sign extension of the accumulator --- */

static void op_cbw(struct cpu *cpu, const struct insn *i) { REG16(cpu, 0) = (uint16_t)(int8_t)REG8(cpu, 0); }
static void op_cwde(struct cpu *cpu, const struct insn *i) { cpu->r[RAX] = (uint32_t)(int16_t)REG16(cpu, 0); }
static void op_cdqe(struct cpu *cpu, const struct insn *i) { cpu->r[RAX] = (uint64_t)(int32_t)REG32(cpu, 0); }
static void op_cwd(struct cpu *cpu, const struct insn *i)
{
    REG16(cpu, RDX * 8) = (uint16_t)((int16_t)REG16(cpu, 0) >> 15);
}
static void op_cdq(struct cpu *cpu, const struct insn *i)
{
    cpu->r[RDX] = (uint32_t)((int32_t)REG32(cpu, 0) >> 31);
}
static void op_cqo(struct cpu *cpu, const struct insn *i) { cpu->r[RDX] = (uint64_t)((int64_t)cpu->r[RAX] >> 63); }

/* --- flags --- */

static void op_clc(struct cpu *cpu, const struct insn *i) { cpu->aflags &= ~AF_CF; }
static void op_stc(struct cpu *cpu, const struct insn *i) { cpu->aflags |= AF_CF; }
static void op_cmc(struct cpu *cpu, const struct insn *i) { cpu->aflags ^= AF_CF; }
static void op_cld(struct cpu *cpu, const struct insn *i) { cpu->rflags &= ~FL_DF; }
static void op_std(struct cpu *cpu, const struct insn *i) { cpu->rflags |= FL_DF; }
static void op_lahf(struct cpu *cpu, const struct insn *i) { REG8(cpu, 1) = (uint8_t)(cpu->aflags >> 8) | FL_ONE; }
static void op_sahf(struct cpu *cpu, const struct insn *i)
{
    cpu->aflags = (cpu->aflags & AF_OF) | (uint32_t)((REG8(cpu, 1) & 0xd5) | FL_ONE) << 8;
}
static void op_nop(struct cpu *cpu, const struct insn *i) {}

/* --- decimal adjustment (16- and 32-bit code only) --- */

static void misc_szp(struct cpu *cpu, uint8_t v)
{
    cpu->aflags &= ~(AF_SF | AF_ZF | AF_PF);
    cpu->aflags |= (v & 0x80 ? AF_SF : 0) | (v ? 0 : AF_ZF) | (__builtin_parity(v) ? 0 : AF_PF);
}

static void op_daa_das(struct cpu *cpu, const struct insn *i)
{
    uint8_t al = REG8(cpu, 0), old = al;
    bool cf = cpu->aflags & AF_CF, sub = i->op == ZYDIS_MNEMONIC_DAS, carry = false;
    cpu->aflags &= ~AF_CF;
    if ((al & 15) > 9 || (cpu->aflags & AF_AF)) {
        carry = cf || (sub ? al < 6 : al > 0xf9);
        al = (uint8_t)(sub ? al - 6 : al + 6);
        cpu->aflags |= AF_AF;
    } else {
        cpu->aflags &= ~AF_AF;
    }
    if (old > 0x99 || cf) {
        al = (uint8_t)(sub ? al - 0x60 : al + 0x60);
        carry = true;
    } else if (!sub) {
        carry = false;
    }
    cpu->aflags |= carry ? AF_CF : 0;
    REG8(cpu, 0) = al;
    misc_szp(cpu, al);
}

static void op_aaa_aas(struct cpu *cpu, const struct insn *i)
{
    bool adjust = (REG8(cpu, 0) & 15) > 9 || (cpu->aflags & AF_AF);
    if (adjust)
        REG16(cpu, 0) = (uint16_t)(i->op == ZYDIS_MNEMONIC_AAA ? REG16(cpu, 0) + 0x106 : REG16(cpu, 0) - 0x106);
    cpu->aflags &= ~(AF_AF | AF_CF);
    cpu->aflags |= adjust ? AF_AF | AF_CF : 0;
    REG8(cpu, 0) &= 15;
}

static void op_aam(struct cpu *cpu, const struct insn *i)
{
    uint8_t al = REG8(cpu, 0), base = (uint8_t)i->imm;
    if (!base)
        cpu_raise_noerr(cpu, VEC_DE);
    REG16(cpu, 0) = (uint16_t)((al / base) << 8 | al % base);
    misc_szp(cpu, REG8(cpu, 0));
}
static void op_aad(struct cpu *cpu, const struct insn *i)
{
    REG16(cpu, 0) = (uint8_t)(REG8(cpu, 0) + REG8(cpu, 1) * (uint8_t)i->imm);
    misc_szp(cpu, REG8(cpu, 0));
}
static void op_salc(struct cpu *cpu, const struct insn *i) { REG8(cpu, 0) = cpu->aflags & AF_CF ? 0xff : 0; }

/* --- others --- */

static void op_xlat(struct cpu *cpu, const struct insn *i)
{
    uint64_t ea = (cpu->r[RBX] + REG8(cpu, 0)) & i->addr_mask;
    uint64_t lin = insn_lin_at(cpu, i, i->seg, ea, 1, ACC_READ);
    REG8(cpu, 0) = mem_ld8(cpu, i->seg, lin);
}

static void misc_set_zf(struct cpu *cpu, bool zf)
{
    cpu->aflags = zf ? cpu->aflags | AF_ZF : cpu->aflags & ~AF_ZF;
}

static void op_cmpxchg8b(struct cpu *cpu, const struct insn *i)
{
    uint64_t want = (uint64_t)REG32(cpu, RDX * 8) << 32 | REG32(cpu, 0);
    uint64_t to = (uint64_t)REG32(cpu, RCX * 8) << 32 | REG32(cpu, RBX * 8);
    op_u64 *p = op_rmw(cpu, i, 8);
    bool same;
    __asm__ volatile("lock cmpxchgq %[to], %[m]" : "+a"(want), [m] "+m"(*p), "=@ccz"(same) : [to] "r"(to) : "memory");
    mem_commit(cpu);
    misc_set_zf(cpu, same);
    if (!same) {
        cpu->r[RAX] = (uint32_t)want;
        cpu->r[RDX] = want >> 32;
    }
}

static void op_cmpxchg16b(struct cpu *cpu, const struct insn *i)
{
    uint64_t lin = insn_lin(cpu, i, 16, ACC_WRITE);
    if (lin & 15)
        CPU_GP0(cpu);
    void *p = mem_view_rmw(cpu, i->seg, lin, 16, i->flags & INSN_LOCK);
    uint64_t lo = cpu->r[RAX], hi = cpu->r[RDX];
    bool same;
    __asm__ volatile("lock cmpxchg16b %[m]" : [m] "+m"(*(struct { uint64_t q[2]; } *)p), "+a"(lo), "+d"(hi), "=@ccz"(same)
                     : "b"(cpu->r[RBX]), "c"(cpu->r[RCX]) : "memory");
    mem_commit(cpu);
    misc_set_zf(cpu, same);
    if (!same) {
        cpu->r[RAX] = lo;
        cpu->r[RDX] = hi;
    }
}

const struct op_entry ops_misc[] = {
    { ZYDIS_MNEMONIC_MUL, 0, NULL, select_mul },     { ZYDIS_MNEMONIC_IMUL, 0, NULL, select_imul },
    { ZYDIS_MNEMONIC_DIV, 0, op_div, NULL },         { ZYDIS_MNEMONIC_IDIV, 0, op_idiv, NULL },
    { ZYDIS_MNEMONIC_CBW, 0, op_cbw, NULL },         { ZYDIS_MNEMONIC_CWDE, 0, op_cwde, NULL },
    { ZYDIS_MNEMONIC_CDQE, 0, op_cdqe, NULL },       { ZYDIS_MNEMONIC_CWD, 0, op_cwd, NULL },
    { ZYDIS_MNEMONIC_CDQ, 0, op_cdq, NULL },         { ZYDIS_MNEMONIC_CQO, 0, op_cqo, NULL },
    { ZYDIS_MNEMONIC_CLC, 0, op_clc, NULL },         { ZYDIS_MNEMONIC_STC, 0, op_stc, NULL },
    { ZYDIS_MNEMONIC_CMC, 0, op_cmc, NULL },         { ZYDIS_MNEMONIC_CLD, 0, op_cld, NULL },
    { ZYDIS_MNEMONIC_STD, 0, op_std, NULL },         { ZYDIS_MNEMONIC_LAHF, 0, op_lahf, NULL },
    { ZYDIS_MNEMONIC_SAHF, 0, op_sahf, NULL },       { ZYDIS_MNEMONIC_NOP, 0, op_nop, NULL },
    { ZYDIS_MNEMONIC_DAA, 0, op_daa_das, NULL },     { ZYDIS_MNEMONIC_DAS, 0, op_daa_das, NULL },
    { ZYDIS_MNEMONIC_AAA, 0, op_aaa_aas, NULL },     { ZYDIS_MNEMONIC_AAS, 0, op_aaa_aas, NULL },
    { ZYDIS_MNEMONIC_AAM, 0, op_aam, NULL },         { ZYDIS_MNEMONIC_AAD, 0, op_aad, NULL },
    { ZYDIS_MNEMONIC_SALC, 0, op_salc, NULL },       { ZYDIS_MNEMONIC_XLAT, 0, op_xlat, NULL },
    { ZYDIS_MNEMONIC_CMPXCHG8B, 0, op_cmpxchg8b, NULL }, { ZYDIS_MNEMONIC_CMPXCHG16B, 0, op_cmpxchg16b, NULL },
    { ZYDIS_MNEMONIC_INVALID, 0, NULL, NULL },
};
