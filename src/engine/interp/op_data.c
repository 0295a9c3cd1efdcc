/* Moving data: MOV and its extending forms, LEA, XCHG, BSWAP, CMOVcc, SETcc, the stack (SDM vol. 2). */
#include "engine/interp/op_int.h"
#include "engine/interp/op_sys.h"

#define MOV_FAMILY(bits, sfx)                                                                            \
    static void op_mov##bits##_rr(struct cpu *cpu, const struct insn *i)                                 \
    {                                                                                                    \
        reg_set##bits(cpu, i->r0, REG##bits(cpu, i->r1));                                                \
    }                                                                                                    \
    static void op_mov##bits##_rm(struct cpu *cpu, const struct insn *i)                                 \
    {                                                                                                    \
        reg_set##bits(cpu, i->r0, mem_ld##bits(cpu, i->seg, insn_lin(cpu, i, bits / 8, ACC_READ)));      \
    }                                                                                                    \
    static void op_mov##bits##_mr(struct cpu *cpu, const struct insn *i)                                 \
    {                                                                                                    \
        mem_st##bits(cpu, i->seg, insn_lin(cpu, i, bits / 8, ACC_WRITE), REG##bits(cpu, i->r0));         \
    }                                                                                                    \
    static void op_mov##bits##_ri(struct cpu *cpu, const struct insn *i)                                 \
    {                                                                                                    \
        reg_set##bits(cpu, i->r0, (uint##bits##_t)i->imm);                                               \
    }                                                                                                    \
    static void op_mov##bits##_mi(struct cpu *cpu, const struct insn *i)                                 \
    {                                                                                                    \
        mem_st##bits(cpu, i->seg, insn_lin(cpu, i, bits / 8, ACC_WRITE), (uint##bits##_t)i->imm);        \
    }                                                                                                    \
    static void op_xchg##bits##_rr(struct cpu *cpu, const struct insn *i)                                \
    {                                                                                                    \
        uint##bits##_t a = REG##bits(cpu, i->r0), b = REG##bits(cpu, i->r1);                             \
        reg_set##bits(cpu, i->r0, b);                                                                    \
        reg_set##bits(cpu, i->r1, a);                                                                    \
    }                                                                                                    \
    static void op_xchg##bits##_mr(struct cpu *cpu, const struct insn *i)                                \
    {                                                                                                    \
        op_u##bits *p = mem_view_rmw(cpu, i->seg, insn_lin(cpu, i, bits / 8, ACC_WRITE), bits / 8, true); \
        uint##bits##_t old = REG##bits(cpu, i->r0);                                                      \
        __asm__ volatile("xchg" #sfx " %[v], %[m]" : [v] "+q"(old), [m] "+m"(*p) : : "memory");          \
        mem_commit(cpu);                                                                                 \
        reg_set##bits(cpu, i->r0, old);                                                                  \
    }
FOR_SIZES(MOV_FAMILY)

#define MOV_BY_FORM(bits, sfx)                                                                           \
    { [FORM_RR] = op_mov##bits##_rr, [FORM_RM] = op_mov##bits##_rm, [FORM_MR] = op_mov##bits##_mr,       \
      [FORM_RI] = op_mov##bits##_ri, [FORM_MI] = op_mov##bits##_mi },

/* MOV with a segment, control or debug register. */
static insn_fn *select_mov_special(struct insn *i, ZydisRegisterClass dst, ZydisRegisterClass src)
{
    insn_fn *fn = NULL;
    if (dst == ZYDIS_REGCLASS_SEGMENT)
        fn = op_mov_to_seg;
    else if (src == ZYDIS_REGCLASS_SEGMENT)
        return op_mov_from_seg;
    else if (dst == ZYDIS_REGCLASS_CONTROL)
        fn = op_mov_to_cr;
    else if (src == ZYDIS_REGCLASS_CONTROL)
        return op_mov_from_cr;
    else if (dst == ZYDIS_REGCLASS_DEBUG)
        fn = op_mov_to_dr;
    else if (src == ZYDIS_REGCLASS_DEBUG)
        return op_mov_from_dr;
    i->flags |= INSN_END;
    return fn;
}

static insn_fn *select_mov(struct insn *i, const struct decoded *d)
{
    static insn_fn *const by[4][FORM_OTHER + 1] = { FOR_SIZES(MOV_BY_FORM) };
    ZydisRegisterClass c[2] = { ZYDIS_REGCLASS_INVALID, ZYDIS_REGCLASS_INVALID };
    for (unsigned n = 0; n < 2; n++)
        if (d->ops[n].type == ZYDIS_OPERAND_TYPE_REGISTER)
            c[n] = ZydisRegisterGetClass(d->ops[n].reg.value);
    for (unsigned n = 0; n < 2; n++)
        if (c[n] == ZYDIS_REGCLASS_SEGMENT || c[n] == ZYDIS_REGCLASS_CONTROL || c[n] == ZYDIS_REGCLASS_DEBUG)
            return select_mov_special(i, c[0], c[1]);
    return by[op_size_index(i->osz)][i->form];
}

static insn_fn *select_xchg(struct insn *i, const struct decoded *d)
{
    static insn_fn *const by[4][2] = { { op_xchg8_rr, op_xchg8_mr },
                                       { op_xchg16_rr, op_xchg16_mr },
                                       { op_xchg32_rr, op_xchg32_mr },
                                       { op_xchg64_rr, op_xchg64_mr } };
    return by[op_size_index(i->osz)][i->flags & INSN_MEM ? 1 : 0];
}

/* MOVZX, MOVSX, MOVSXD: source size by destination size. */
#define EXTEND(name, type, from, to)                                                                     \
    static void op_##name##from##to##_r(struct cpu *cpu, const struct insn *i)                           \
    {                                                                                                    \
        reg_set##to(cpu, i->r0, (uint##to##_t)(type##to##_t)(type##from##_t)REG##from(cpu, i->r1));      \
    }                                                                                                    \
    static void op_##name##from##to##_m(struct cpu *cpu, const struct insn *i)                           \
    {                                                                                                    \
        uint##from##_t v = mem_ld##from(cpu, i->seg, insn_lin(cpu, i, from / 8, ACC_READ));              \
        reg_set##to(cpu, i->r0, (uint##to##_t)(type##to##_t)(type##from##_t)v);                          \
    }
#define EXTEND_ALL(name, type)                                                                           \
    EXTEND(name, type, 8, 16) EXTEND(name, type, 8, 32) EXTEND(name, type, 8, 64)                        \
    EXTEND(name, type, 16, 16) EXTEND(name, type, 16, 32) EXTEND(name, type, 16, 64)                     \
    EXTEND(name, type, 32, 16) EXTEND(name, type, 32, 32) EXTEND(name, type, 32, 64)
#define EXTEND_PAIR(name, from, to) { op_##name##from##to##_r, op_##name##from##to##_m }
#define EXTEND_SELECT(name)                                                                              \
    static insn_fn *select_##name(struct insn *i, const struct decoded *d)                               \
    {                                                                                                    \
        static insn_fn *const by[3][3][2] = {                                                            \
            { EXTEND_PAIR(name, 8, 16), EXTEND_PAIR(name, 8, 32), EXTEND_PAIR(name, 8, 64) },            \
            { EXTEND_PAIR(name, 16, 16), EXTEND_PAIR(name, 16, 32), EXTEND_PAIR(name, 16, 64) },         \
            { EXTEND_PAIR(name, 32, 16), EXTEND_PAIR(name, 32, 32), EXTEND_PAIR(name, 32, 64) },         \
        };                                                                                               \
        unsigned from = op_size_index(i->osz2), to = op_size_index(i->osz) - 1;                          \
        return from > 2 || to > 2 ? NULL : by[from][to][i->flags & INSN_MEM ? 1 : 0];                    \
    }
EXTEND_ALL(movzx, uint)
EXTEND_ALL(movsx, int)
EXTEND_SELECT(movzx)
EXTEND_SELECT(movsx)

static void op_lea16(struct cpu *cpu, const struct insn *i) { reg_set16(cpu, i->r0, (uint16_t)insn_ea(cpu, i)); }
static void op_lea32(struct cpu *cpu, const struct insn *i) { reg_set32(cpu, i->r0, (uint32_t)insn_ea(cpu, i)); }
static void op_lea64(struct cpu *cpu, const struct insn *i) { reg_set64(cpu, i->r0, insn_ea(cpu, i)); }
static insn_fn *select_lea(struct insn *i, const struct decoded *d)
{
    return i->osz == 2 ? op_lea16 : i->osz == 4 ? op_lea32 : op_lea64;
}

static void op_bswap(struct cpu *cpu, const struct insn *i)
{
    if (i->osz == 8)
        REG64(cpu, i->r0) = __builtin_bswap64(REG64(cpu, i->r0));
    else if (i->osz == 4)
        reg_set32(cpu, i->r0, __builtin_bswap32(REG32(cpu, i->r0)));
    else
        REG16(cpu, i->r0) = 0; /* undefined by the manuals; both vendors' CPUs give 0 */
}

/* CMOVcc reads its memory operand in any case; a 32-bit destination is always written. */
static void op_cmov_r(struct cpu *cpu, const struct insn *i)
{
    unsigned from = aflags_cond(cpu->aflags, i->cc) ? i->r1 : i->r0;
    reg_set(cpu, i->r0, reg_get(cpu, from, i->osz), i->osz);
}
static void op_cmov_m(struct cpu *cpu, const struct insn *i)
{
    uint64_t v = op_load_mem(cpu, i, i->osz);
    if (!aflags_cond(cpu->aflags, i->cc))
        v = reg_get(cpu, i->r0, i->osz);
    reg_set(cpu, i->r0, v, i->osz);
}
static insn_fn *select_cmov(struct insn *i, const struct decoded *d)
{
    return i->flags & INSN_MEM ? op_cmov_m : op_cmov_r;
}

static void op_set_r(struct cpu *cpu, const struct insn *i)
{
    REG8(cpu, i->r0) = aflags_cond(cpu->aflags, i->cc);
}
static void op_set_m(struct cpu *cpu, const struct insn *i)
{
    op_store_mem(cpu, i, aflags_cond(cpu->aflags, i->cc), 1);
}
static insn_fn *select_set(struct insn *i, const struct decoded *d)
{
    return i->flags & INSN_MEM ? op_set_m : op_set_r;
}

/* --- the stack --- */

static void op_push_r64(struct cpu *cpu, const struct insn *i)
{
    uint64_t sp = cpu->r[RSP] - 8;
    mem_st64(cpu, SEG_SS, sp, REG64(cpu, i->r0));
    cpu->r[RSP] = sp;
}
static void op_push_r(struct cpu *cpu, const struct insn *i)
{
    cpu_push(cpu, reg_get(cpu, i->r0, i->esz), i->esz);
}
static void op_push_i(struct cpu *cpu, const struct insn *i) { cpu_push(cpu, i->imm, i->esz); }
static void op_push_m(struct cpu *cpu, const struct insn *i)
{
    cpu_push(cpu, op_load_mem(cpu, i, i->esz), i->esz);
}
static insn_fn *select_push(struct insn *i, const struct decoded *d)
{
    if (d->ops[0].type == ZYDIS_OPERAND_TYPE_REGISTER &&
        ZydisRegisterGetClass(d->ops[0].reg.value) == ZYDIS_REGCLASS_SEGMENT)
        return op_push_seg;
    if (i->form == FORM_R)
        return i->esz == 8 ? op_push_r64 : op_push_r;
    return i->form == FORM_I ? op_push_i : op_push_m;
}

static void op_pop_r64(struct cpu *cpu, const struct insn *i)
{
    uint64_t v = mem_ld64(cpu, SEG_SS, cpu->r[RSP]);
    cpu->r[RSP] += 8;
    REG64(cpu, i->r0) = v; /* after the increment: POP RSP */
}
static void op_pop_r(struct cpu *cpu, const struct insn *i)
{
    reg_set(cpu, i->r0, cpu_pop(cpu, i->esz), i->esz);
}
/* The address of POP m is computed after RSP was incremented (SDM vol. 2, POP). */
static void op_pop_m(struct cpu *cpu, const struct insn *i)
{
    uint64_t sp = cpu->r[RSP];
    uint64_t v = cpu_pop(cpu, i->esz);
    uint64_t after = cpu->r[RSP];
    uint64_t ea = insn_ea(cpu, i);
    cpu->r[RSP] = sp; /* in case the store faults */
    uint64_t lin = insn_lin_at(cpu, i, i->seg, ea, i->esz, ACC_WRITE);
    mem_st(cpu, i->seg, lin, v, i->esz);
    cpu->r[RSP] = after;
}
static insn_fn *select_pop(struct insn *i, const struct decoded *d)
{
    if (d->ops[0].type == ZYDIS_OPERAND_TYPE_REGISTER &&
        ZydisRegisterGetClass(d->ops[0].reg.value) == ZYDIS_REGCLASS_SEGMENT) {
        i->flags |= INSN_END;
        return op_pop_seg;
    }
    if (i->form == FORM_M)
        return op_pop_m;
    return i->esz == 8 ? op_pop_r64 : op_pop_r;
}

/* PUSHA stores downwards and moves RSP at the end, so that a fault leaves the registers as they were. */
static void op_pusha(struct cpu *cpu, const struct insn *i)
{
    unsigned size = i->op == ZYDIS_MNEMONIC_PUSHAD ? 4 : 2;
    uint64_t sp = cpu->r[RSP];
    for (unsigned n = 0; n < 8; n++) {
        sp -= size;
        mem_st(cpu, SEG_SS, seg_lin(cpu, SEG_SS, sp & cpu->sp_mask, size, ACC_WRITE), cpu->r[n], size);
    }
    cpu->r[RSP] = (cpu->r[RSP] & ~cpu->sp_mask) | (sp & cpu->sp_mask);
}
/* POPA loads register after register; a fault leaves RSP, so that it can run again. */
static void op_popa(struct cpu *cpu, const struct insn *i)
{
    unsigned size = i->op == ZYDIS_MNEMONIC_POPAD ? 4 : 2;
    uint64_t sp = cpu->r[RSP];
    for (int n = 7; n >= 0; n--, sp += size) {
        uint64_t v = mem_ld(cpu, SEG_SS, seg_lin(cpu, SEG_SS, sp & cpu->sp_mask, size, ACC_READ), size);
        if (n != RSP)
            reg_set(cpu, (unsigned)n * 8, v, size);
    }
    cpu->r[RSP] = (cpu->r[RSP] & ~cpu->sp_mask) | (sp & cpu->sp_mask);
}

/* An element of the stack at sp, below or above the top; wraps by the stack's size. */
static uint64_t stack_lin(struct cpu *cpu, uint64_t sp, unsigned size, enum mmu_access acc)
{
    uint64_t off = sp & cpu->sp_mask;
    return cpu->code_size == 8 ? off : seg_lin(cpu, SEG_SS, off, size, acc);
}
static uint64_t enter_push(struct cpu *cpu, uint64_t sp, uint64_t v, unsigned size)
{
    sp -= size;
    mem_st(cpu, SEG_SS, stack_lin(cpu, sp, size, ACC_WRITE), v, size);
    return sp;
}

/* ENTER imm16, imm8 (SDM vol. 2): what was stored stays after a fault, registers change at the end only. The new top of
 * the stack must be writable. */
static void op_enter(struct cpu *cpu, const struct insn *i)
{
    unsigned level = i->sel & 31, size = i->esz;
    uint64_t bp = cpu->r[RBP], sp = enter_push(cpu, cpu->r[RSP], bp, size), frame = sp;
    for (unsigned n = 1; n < level; n++) {
        uint64_t lin = stack_lin(cpu, bp - n * size, size, ACC_READ);
        sp = enter_push(cpu, sp, mem_ld(cpu, SEG_SS, lin, size), size);
    }
    if (level)
        sp = enter_push(cpu, sp, frame, size);
    sp -= (uint16_t)i->imm;
    mem_probe(cpu, SEG_SS, stack_lin(cpu, sp, size, ACC_WRITE), size, ACC_WRITE);
    reg_set(cpu, RBP * 8, (frame & cpu->sp_mask) | (cpu->r[RSP] & ~cpu->sp_mask), size);
    cpu->r[RSP] = (cpu->r[RSP] & ~cpu->sp_mask) | (sp & cpu->sp_mask);
}
static void op_leave(struct cpu *cpu, const struct insn *i)
{
    uint64_t sp = cpu->r[RSP];
    uint64_t bp = cpu->r[RBP] & cpu->sp_mask;
    uint64_t lin = cpu->code_size == 8 ? bp : seg_lin(cpu, SEG_SS, bp, i->esz, ACC_READ);
    uint64_t v = mem_ld(cpu, SEG_SS, lin, i->esz);
    cpu->r[RSP] = (sp & ~cpu->sp_mask) | ((bp + i->esz) & cpu->sp_mask);
    reg_set(cpu, RBP * 8, v, i->esz);
}

#define CC_ALL(name, select)                                                                             \
    { ZYDIS_MNEMONIC_##name##O, 0, NULL, select },  { ZYDIS_MNEMONIC_##name##NO, 0, NULL, select },      \
    { ZYDIS_MNEMONIC_##name##B, 0, NULL, select },  { ZYDIS_MNEMONIC_##name##NB, 0, NULL, select },      \
    { ZYDIS_MNEMONIC_##name##Z, 0, NULL, select },  { ZYDIS_MNEMONIC_##name##NZ, 0, NULL, select },      \
    { ZYDIS_MNEMONIC_##name##BE, 0, NULL, select }, { ZYDIS_MNEMONIC_##name##NBE, 0, NULL, select },     \
    { ZYDIS_MNEMONIC_##name##S, 0, NULL, select },  { ZYDIS_MNEMONIC_##name##NS, 0, NULL, select },      \
    { ZYDIS_MNEMONIC_##name##P, 0, NULL, select },  { ZYDIS_MNEMONIC_##name##NP, 0, NULL, select },      \
    { ZYDIS_MNEMONIC_##name##L, 0, NULL, select },  { ZYDIS_MNEMONIC_##name##NL, 0, NULL, select },      \
    { ZYDIS_MNEMONIC_##name##LE, 0, NULL, select }, { ZYDIS_MNEMONIC_##name##NLE, 0, NULL, select }

const struct op_entry ops_data[] = {
    { ZYDIS_MNEMONIC_MOV, 0, NULL, select_mov },     { ZYDIS_MNEMONIC_XCHG, 0, NULL, select_xchg },
    { ZYDIS_MNEMONIC_MOVZX, 0, NULL, select_movzx }, { ZYDIS_MNEMONIC_MOVSX, 0, NULL, select_movsx },
    { ZYDIS_MNEMONIC_MOVSXD, 0, NULL, select_movsx }, { ZYDIS_MNEMONIC_LEA, 0, NULL, select_lea },
    { ZYDIS_MNEMONIC_BSWAP, 0, op_bswap, NULL },     { ZYDIS_MNEMONIC_PUSH, 0, NULL, select_push },
    { ZYDIS_MNEMONIC_POP, 0, NULL, select_pop },     { ZYDIS_MNEMONIC_PUSHA, 0, op_pusha, NULL },
    { ZYDIS_MNEMONIC_PUSHAD, 0, op_pusha, NULL },    { ZYDIS_MNEMONIC_POPA, 0, op_popa, NULL },
    { ZYDIS_MNEMONIC_POPAD, 0, op_popa, NULL },      { ZYDIS_MNEMONIC_ENTER, 0, op_enter, NULL },
    { ZYDIS_MNEMONIC_LEAVE, 0, op_leave, NULL },     CC_ALL(CMOV, select_cmov),
    CC_ALL(SET, select_set),                         { ZYDIS_MNEMONIC_INVALID, 0, NULL, NULL },
};
