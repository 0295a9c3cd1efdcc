/* Two-operand arithmetic and its relatives: ADD OR ADC SBB AND SUB XOR CMP TEST, INC DEC NEG NOT, XADD, CMPXCHG
 * (SDM vol. 2). One family of handlers an operation: operand size x form. */
#include "engine/interp/op_int.h"

/* r = a OP b with flags; CF is loaded first where the operation reads it. */
#define ALU_ASM(name, op, loadcf, bits, sfx)                                                             \
    static inline uint##bits##_t alu_##name##bits(struct cpu *cpu, uint##bits##_t a, uint##bits##_t b)   \
    {                                                                                                    \
        uint32_t fl = cpu->aflags;                                                                       \
        __asm__(loadcf op #sfx " %[b], %[a]" ASM_STORE_FLAGS : [a] "+&q"(a), [fl] "+&a"(fl)              \
                : [b] "qm"(b) : "cc");                                                                   \
        cpu->aflags = (uint16_t)fl;                                                                      \
        return a;                                                                                        \
    }
/* The same on memory; with lock when asked. */
#define ALU_MEM(name, op, loadcf, bits, sfx)                                                             \
    static inline void alu_mem_##name##bits(struct cpu *cpu, op_u##bits *p, uint##bits##_t b, bool lock) \
    {                                                                                                    \
        uint32_t fl = cpu->aflags;                                                                       \
        if (lock)                                                                                        \
            __asm__ volatile(loadcf "lock " op #sfx " %[b], %[m]" ASM_STORE_FLAGS                        \
                             : [m] "+m"(*p), [fl] "+&a"(fl) : [b] "q"(b) : "cc", "memory");              \
        else                                                                                             \
            __asm__ volatile(loadcf op #sfx " %[b], %[m]" ASM_STORE_FLAGS                                \
                             : [m] "+m"(*p), [fl] "+&a"(fl) : [b] "q"(b) : "cc");                        \
        cpu->aflags = (uint16_t)fl;                                                                      \
    }

/* Forms that only read memory; the value form also serves CMP and TEST, which do not write back. */
#define ALU_FORMS(name, bits, wb)                                                                        \
    static void op_##name##bits##_rr(struct cpu *cpu, const struct insn *i)                              \
    {                                                                                                    \
        uint##bits##_t v = alu_##name##bits(cpu, REG##bits(cpu, i->r0), REG##bits(cpu, i->r1));          \
        if (wb)                                                                                          \
            reg_set##bits(cpu, i->r0, v);                                                                \
    }                                                                                                    \
    static void op_##name##bits##_ri(struct cpu *cpu, const struct insn *i)                              \
    {                                                                                                    \
        uint##bits##_t v = alu_##name##bits(cpu, REG##bits(cpu, i->r0), (uint##bits##_t)i->imm);         \
        if (wb)                                                                                          \
            reg_set##bits(cpu, i->r0, v);                                                                \
    }                                                                                                    \
    static void op_##name##bits##_rm(struct cpu *cpu, const struct insn *i)                              \
    {                                                                                                    \
        uint##bits##_t m = mem_ld##bits(cpu, i->seg, insn_lin(cpu, i, bits / 8, ACC_READ));              \
        uint##bits##_t v = alu_##name##bits(cpu, REG##bits(cpu, i->r0), m);                              \
        if (wb)                                                                                          \
            reg_set##bits(cpu, i->r0, v);                                                                \
    }
#define ALU_RMW(name, bits)                                                                              \
    static void op_##name##bits##_mr(struct cpu *cpu, const struct insn *i)                              \
    {                                                                                                    \
        op_u##bits *p = op_rmw(cpu, i, bits / 8);                                                        \
        alu_mem_##name##bits(cpu, p, REG##bits(cpu, i->r0), i->flags & INSN_LOCK);                       \
        mem_commit(cpu);                                                                                 \
    }                                                                                                    \
    static void op_##name##bits##_mi(struct cpu *cpu, const struct insn *i)                              \
    {                                                                                                    \
        op_u##bits *p = op_rmw(cpu, i, bits / 8);                                                        \
        alu_mem_##name##bits(cpu, p, (uint##bits##_t)i->imm, i->flags & INSN_LOCK);                      \
        mem_commit(cpu);                                                                                 \
    }
#define ALU_READ(name, bits)                                                                             \
    static void op_##name##bits##_mr(struct cpu *cpu, const struct insn *i)                              \
    {                                                                                                    \
        uint##bits##_t m = mem_ld##bits(cpu, i->seg, insn_lin(cpu, i, bits / 8, ACC_READ));              \
        alu_##name##bits(cpu, m, REG##bits(cpu, i->r0));                                                 \
    }                                                                                                    \
    static void op_##name##bits##_mi(struct cpu *cpu, const struct insn *i)                              \
    {                                                                                                    \
        uint##bits##_t m = mem_ld##bits(cpu, i->seg, insn_lin(cpu, i, bits / 8, ACC_READ));              \
        alu_##name##bits(cpu, m, (uint##bits##_t)i->imm);                                                \
    }

#define ALU_BY_FORM(name, bits)                                                                          \
    {                                                                                                    \
        [FORM_RR] = op_##name##bits##_rr, [FORM_RM] = op_##name##bits##_rm,                              \
        [FORM_MR] = op_##name##bits##_mr, [FORM_RI] = op_##name##bits##_ri,                              \
        [FORM_MI] = op_##name##bits##_mi,                                                                \
    }
#define ALU_SELECT(name)                                                                                 \
    static insn_fn *select_##name(struct insn *i, const struct decoded *d)                               \
    {                                                                                                    \
        static insn_fn *const by[4][FORM_OTHER + 1] = { ALU_BY_FORM(name, 8), ALU_BY_FORM(name, 16),     \
                                                        ALU_BY_FORM(name, 32), ALU_BY_FORM(name, 64) };  \
        return by[op_size_index(i->osz)][i->form];                                                       \
    }

#define ALU_WRITES(name, op, loadcf)                                                                     \
    ALU_ASM(name, op, loadcf, 8, b) ALU_ASM(name, op, loadcf, 16, w)                                     \
    ALU_ASM(name, op, loadcf, 32, l) ALU_ASM(name, op, loadcf, 64, q)                                    \
    ALU_MEM(name, op, loadcf, 8, b) ALU_MEM(name, op, loadcf, 16, w)                                     \
    ALU_MEM(name, op, loadcf, 32, l) ALU_MEM(name, op, loadcf, 64, q)                                    \
    ALU_FORMS(name, 8, true) ALU_FORMS(name, 16, true) ALU_FORMS(name, 32, true) ALU_FORMS(name, 64, true) \
    ALU_RMW(name, 8) ALU_RMW(name, 16) ALU_RMW(name, 32) ALU_RMW(name, 64)                               \
    ALU_SELECT(name)
#define ALU_COMPARES(name, op)                                                                           \
    ALU_ASM(name, op, "", 8, b) ALU_ASM(name, op, "", 16, w)                                             \
    ALU_ASM(name, op, "", 32, l) ALU_ASM(name, op, "", 64, q)                                            \
    ALU_FORMS(name, 8, false) ALU_FORMS(name, 16, false) ALU_FORMS(name, 32, false) ALU_FORMS(name, 64, false) \
    ALU_READ(name, 8) ALU_READ(name, 16) ALU_READ(name, 32) ALU_READ(name, 64)                           \
    ALU_SELECT(name)

ALU_WRITES(add, "add", "")
ALU_WRITES(or, "or", "")
ALU_WRITES(adc, "adc", ASM_LOAD_CF)
ALU_WRITES(sbb, "sbb", ASM_LOAD_CF)
ALU_WRITES(and, "and", "")
ALU_WRITES(sub, "sub", "")
ALU_WRITES(xor, "xor", "")
ALU_COMPARES(cmp, "cmp")
ALU_COMPARES(test, "test")

/* One-operand: INC and DEC keep CF (loaded before, not touched by the host's either), NOT keeps all flags. */
#define UNARY(name, op, bits, sfx)                                                                       \
    static void op_##name##bits##_r(struct cpu *cpu, const struct insn *i)                               \
    {                                                                                                    \
        uint##bits##_t v = REG##bits(cpu, i->r0);                                                        \
        uint32_t fl = cpu->aflags;                                                                       \
        __asm__(ASM_LOAD_FLAGS op #sfx " %[v]" ASM_STORE_FLAGS : [v] "+&q"(v), [fl] "+&a"(fl) : : "cc"); \
        cpu->aflags = (uint16_t)fl;                                                                      \
        reg_set##bits(cpu, i->r0, v);                                                                    \
    }                                                                                                    \
    static void op_##name##bits##_m(struct cpu *cpu, const struct insn *i)                               \
    {                                                                                                    \
        op_u##bits *p = op_rmw(cpu, i, bits / 8);                                                        \
        uint32_t fl = cpu->aflags;                                                                       \
        if (i->flags & INSN_LOCK)                                                                        \
            __asm__ volatile(ASM_LOAD_FLAGS "lock " op #sfx " %[m]" ASM_STORE_FLAGS                      \
                             : [m] "+m"(*p), [fl] "+&a"(fl) : : "cc", "memory");                         \
        else                                                                                             \
            __asm__ volatile(ASM_LOAD_FLAGS op #sfx " %[m]" ASM_STORE_FLAGS                              \
                             : [m] "+m"(*p), [fl] "+&a"(fl) : : "cc");                                   \
        cpu->aflags = (uint16_t)fl;                                                                      \
        mem_commit(cpu);                                                                                 \
    }
#define UNARY_SELECT(name)                                                                               \
    static insn_fn *select_##name(struct insn *i, const struct decoded *d)                               \
    {                                                                                                    \
        static insn_fn *const by[4][2] = { { op_##name##8_r, op_##name##8_m },                           \
                                           { op_##name##16_r, op_##name##16_m },                         \
                                           { op_##name##32_r, op_##name##32_m },                         \
                                           { op_##name##64_r, op_##name##64_m } };                       \
        return by[op_size_index(i->osz)][i->form == FORM_M];                                             \
    }
#define UNARY_ALL(name, op)                                                                              \
    UNARY(name, op, 8, b) UNARY(name, op, 16, w) UNARY(name, op, 32, l) UNARY(name, op, 64, q)           \
    UNARY_SELECT(name)

UNARY_ALL(inc, "inc")
UNARY_ALL(dec, "dec")
UNARY_ALL(neg, "neg")
UNARY_ALL(not, "not")

/* XADD and CMPXCHG: exchange forms of the above. */
#define EXCHANGE(bits, sfx)                                                                              \
    static void op_xadd##bits##_rr(struct cpu *cpu, const struct insn *i)                                \
    {                                                                                                    \
        uint##bits##_t a = REG##bits(cpu, i->r0), b = REG##bits(cpu, i->r1);                             \
        uint##bits##_t sum = alu_add##bits(cpu, a, b);                                                   \
        reg_set##bits(cpu, i->r1, a);                                                                    \
        reg_set##bits(cpu, i->r0, sum);                                                                  \
    }                                                                                                    \
    static void op_xadd##bits##_mr(struct cpu *cpu, const struct insn *i)                                \
    {                                                                                                    \
        op_u##bits *p = op_rmw(cpu, i, bits / 8);                                                        \
        uint##bits##_t b = REG##bits(cpu, i->r0);                                                        \
        uint32_t fl;                                                                                     \
        __asm__ volatile("lock xadd" #sfx " %[b], %[m]" ASM_STORE_FLAGS                                  \
                         : [b] "+&q"(b), [m] "+m"(*p), [fl] "=&a"(fl) : : "cc", "memory");               \
        cpu->aflags = (uint16_t)fl;                                                                      \
        mem_commit(cpu);                                                                                 \
        reg_set##bits(cpu, i->r0, b);                                                                    \
    }                                                                                                    \
    static void op_cmpxchg##bits##_rr(struct cpu *cpu, const struct insn *i)                             \
    {                                                                                                    \
        uint##bits##_t d = REG##bits(cpu, i->r0), acc = REG##bits(cpu, RAX);                             \
        alu_cmp##bits(cpu, acc, d);                                                                      \
        if (acc == d)                                                                                    \
            reg_set##bits(cpu, i->r0, REG##bits(cpu, i->r1));                                            \
        else                                                                                             \
            reg_set##bits(cpu, RAX, d);                                                                  \
    }                                                                                                    \
    static void op_cmpxchg##bits##_mr(struct cpu *cpu, const struct insn *i)                             \
    {                                                                                                    \
        op_u##bits *p = op_rmw(cpu, i, bits / 8);                                                        \
        uint##bits##_t acc = REG##bits(cpu, RAX), old = acc, src = REG##bits(cpu, i->r0);                \
        __asm__ volatile("lock cmpxchg" #sfx " %[s], %[m]"                                               \
                         : "+a"(old), [m] "+m"(*p) : [s] "q"(src) : "cc", "memory");                     \
        mem_commit(cpu);                                                                                 \
        alu_cmp##bits(cpu, acc, old);                                                                    \
        if (acc != old)                                                                                  \
            reg_set##bits(cpu, RAX, old);                                                                \
    }
FOR_SIZES(EXCHANGE)

#define EXCHANGE_SELECT(name)                                                                            \
    static insn_fn *select_##name(struct insn *i, const struct decoded *d)                               \
    {                                                                                                    \
        static insn_fn *const by[4][2] = { { op_##name##8_rr, op_##name##8_mr },                         \
                                           { op_##name##16_rr, op_##name##16_mr },                       \
                                           { op_##name##32_rr, op_##name##32_mr },                       \
                                           { op_##name##64_rr, op_##name##64_mr } };                     \
        return by[op_size_index(i->osz)][i->form == FORM_MR];                                            \
    }
EXCHANGE_SELECT(xadd)
EXCHANGE_SELECT(cmpxchg)

const struct op_entry ops_alu[] = {
    { ZYDIS_MNEMONIC_ADD, 0, NULL, select_add },   { ZYDIS_MNEMONIC_OR, 0, NULL, select_or },
    { ZYDIS_MNEMONIC_ADC, 0, NULL, select_adc },   { ZYDIS_MNEMONIC_SBB, 0, NULL, select_sbb },
    { ZYDIS_MNEMONIC_AND, 0, NULL, select_and },   { ZYDIS_MNEMONIC_SUB, 0, NULL, select_sub },
    { ZYDIS_MNEMONIC_XOR, 0, NULL, select_xor },   { ZYDIS_MNEMONIC_CMP, 0, NULL, select_cmp },
    { ZYDIS_MNEMONIC_TEST, 0, NULL, select_test }, { ZYDIS_MNEMONIC_INC, 0, NULL, select_inc },
    { ZYDIS_MNEMONIC_DEC, 0, NULL, select_dec },   { ZYDIS_MNEMONIC_NEG, 0, NULL, select_neg },
    { ZYDIS_MNEMONIC_NOT, 0, NULL, select_not },   { ZYDIS_MNEMONIC_XADD, 0, NULL, select_xadd },
    { ZYDIS_MNEMONIC_CMPXCHG, 0, NULL, select_cmpxchg },
    { ZYDIS_MNEMONIC_INVALID, 0, NULL, NULL },
};
