/* Near branches: JMP Jcc CALL RET LOOP JCXZ (SDM vol. 2). Targets are checked before anything changes. In 64-bit mode
 * a relative target is canonical unless it wraps, which cpu_jump() finds. */
#include "engine/interp/op_int.h"
#include "engine/interp/op_sys.h"

/* A relative target that differs from RIP by 31 bits at most is canonical as long as the sign bits agree. */
static inline void branch_rel64(struct cpu *cpu, const struct insn *i)
{
    uint64_t target = cpu->r[R_RIP] + i->imm;
    if (likely(!((target ^ cpu->r[R_RIP]) >> 47)))
        cpu->r[R_RIP] = target;
    else
        cpu_jump(cpu, target, 8);
}

static void op_jmp_rel64(struct cpu *cpu, const struct insn *i) { branch_rel64(cpu, i); }
static void op_jmp_rel(struct cpu *cpu, const struct insn *i)
{
    cpu_jump(cpu, cpu->r[R_RIP] + i->imm, i->esz);
}
static void op_jmp_r(struct cpu *cpu, const struct insn *i) { cpu_jump(cpu, reg_get(cpu, i->r0, i->esz), i->esz); }
static void op_jmp_m(struct cpu *cpu, const struct insn *i) { cpu_jump(cpu, op_load_mem(cpu, i, i->esz), i->esz); }

#define JCC(n, cond)                                                                                     \
    static void op_jcc##n(struct cpu *cpu, const struct insn *i)                                         \
    {                                                                                                    \
        uint32_t a = cpu->aflags;                                                                        \
        if (cond)                                                                                        \
            branch_rel64(cpu, i);                                                                        \
    }
JCC(0, a & AF_OF) JCC(1, !(a & AF_OF)) JCC(2, a & AF_CF) JCC(3, !(a & AF_CF))
JCC(4, a & AF_ZF) JCC(5, !(a & AF_ZF)) JCC(6, a & (AF_CF | AF_ZF)) JCC(7, !(a & (AF_CF | AF_ZF)))
JCC(8, a & AF_SF) JCC(9, !(a & AF_SF)) JCC(10, a & AF_PF) JCC(11, !(a & AF_PF))
JCC(12, ((a >> 15) ^ a) & 1) JCC(13, !(((a >> 15) ^ a) & 1))
JCC(14, (a & AF_ZF) || (((a >> 15) ^ a) & 1)) JCC(15, !((a & AF_ZF) || (((a >> 15) ^ a) & 1)))

static void op_jcc_legacy(struct cpu *cpu, const struct insn *i)
{
    if (aflags_cond(cpu->aflags, i->cc))
        op_jmp_rel(cpu, i);
}

static insn_fn *select_jcc(struct insn *i, const struct decoded *d)
{
    static insn_fn *const by[16] = { op_jcc0, op_jcc1, op_jcc2,  op_jcc3,  op_jcc4,  op_jcc5,  op_jcc6,  op_jcc7,
                                     op_jcc8, op_jcc9, op_jcc10, op_jcc11, op_jcc12, op_jcc13, op_jcc14, op_jcc15 };
    return i->esz == 8 ? by[i->cc] : op_jcc_legacy;
}

static insn_fn *select_jmp(struct insn *i, const struct decoded *d)
{
    if (d->z.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR)
        return op_far_jmp;
    if (i->form == FORM_I)
        return i->esz == 8 ? op_jmp_rel64 : op_jmp_rel;
    return i->form == FORM_M ? op_jmp_m : op_jmp_r;
}

/* Push the return address and go. The push may fault, so the target is checked by going there first. */
static void call_to(struct cpu *cpu, uint64_t target, unsigned size)
{
    uint64_t next = cpu->r[R_RIP];
    cpu_jump(cpu, target, size);
    cpu_push(cpu, next, size); /* a fault goes back to start_rip */
}

static void op_call_rel64(struct cpu *cpu, const struct insn *i)
{
    uint64_t next = cpu->r[R_RIP], sp = cpu->r[RSP] - 8;
    branch_rel64(cpu, i);
    mem_st64(cpu, SEG_SS, sp, next);
    cpu->r[RSP] = sp;
}
static void op_call_rel(struct cpu *cpu, const struct insn *i) { call_to(cpu, cpu->r[R_RIP] + i->imm, i->esz); }
static void op_call_r(struct cpu *cpu, const struct insn *i) { call_to(cpu, reg_get(cpu, i->r0, i->esz), i->esz); }
static void op_call_m(struct cpu *cpu, const struct insn *i) { call_to(cpu, op_load_mem(cpu, i, i->esz), i->esz); }

static insn_fn *select_call(struct insn *i, const struct decoded *d)
{
    if (d->z.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR)
        return op_far_call;
    if (i->form == FORM_I)
        return i->esz == 8 ? op_call_rel64 : op_call_rel;
    return i->form == FORM_M ? op_call_m : op_call_r;
}

static void op_ret(struct cpu *cpu, const struct insn *i)
{
    uint64_t sp = cpu->r[RSP];
    uint64_t target = cpu_pop(cpu, i->esz);
    uint64_t after = cpu->r[RSP] + (uint16_t)i->imm;
    cpu->r[RSP] = sp; /* in case the target is refused */
    cpu_jump(cpu, target, i->esz);
    cpu->r[RSP] = (sp & ~cpu->sp_mask) | (after & cpu->sp_mask);
}
static void op_ret64(struct cpu *cpu, const struct insn *i)
{
    uint64_t target = mem_ld64(cpu, SEG_SS, cpu->r[RSP]);
    cpu_jump(cpu, target, 8);
    cpu->r[RSP] += 8 + (uint16_t)i->imm;
}
static insn_fn *select_ret(struct insn *i, const struct decoded *d)
{
    if (d->z.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR)
        return op_far_ret;
    return i->esz == 8 ? op_ret64 : op_ret;
}

/* The counter of LOOP and JCXZ has the address size. */
static void op_loop(struct cpu *cpu, const struct insn *i)
{
    uint64_t count = reg_get(cpu, RCX * 8, i->asz) - 1;
    bool go = count & i->addr_mask, zf = cpu->aflags & AF_ZF;
    if (i->op == ZYDIS_MNEMONIC_LOOPE)
        go = go && zf;
    else if (i->op == ZYDIS_MNEMONIC_LOOPNE)
        go = go && !zf;
    if (go)
        op_jmp_rel(cpu, i);
    reg_set(cpu, RCX * 8, count, i->asz);
}
static void op_jcxz(struct cpu *cpu, const struct insn *i)
{
    if (!(cpu->r[RCX] & i->addr_mask))
        op_jmp_rel(cpu, i);
}

#define END (INSN_END | INSN_BRANCH)
#define J(cc) { ZYDIS_MNEMONIC_J##cc, END, NULL, select_jcc }

const struct op_entry ops_branch[] = {
    J(O), J(NO), J(B), J(NB), J(Z), J(NZ), J(BE), J(NBE), J(S), J(NS), J(P), J(NP), J(L), J(NL), J(LE), J(NLE),
    { ZYDIS_MNEMONIC_JMP, END, NULL, select_jmp },    { ZYDIS_MNEMONIC_CALL, END, NULL, select_call },
    { ZYDIS_MNEMONIC_RET, END, NULL, select_ret },    { ZYDIS_MNEMONIC_LOOP, END, op_loop, NULL },
    { ZYDIS_MNEMONIC_LOOPE, END, op_loop, NULL },     { ZYDIS_MNEMONIC_LOOPNE, END, op_loop, NULL },
    { ZYDIS_MNEMONIC_JCXZ, END, op_jcxz, NULL },      { ZYDIS_MNEMONIC_JECXZ, END, op_jcxz, NULL },
    { ZYDIS_MNEMONIC_JRCXZ, END, op_jcxz, NULL },     { ZYDIS_MNEMONIC_INVALID, 0, NULL, NULL },
};
