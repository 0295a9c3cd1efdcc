/* Far returns to the same and to an outer level, and what IRET shares with them (SDM vol. 2, RET and IRET;
 * vol. 3, 5.8.6). vCPU thread; no locks. */
#include "x86/ret.h"

void ret_fetch_code(struct cpu *cpu, uint16_t sel, struct code_target *t)
{
    code_fetch(cpu, sel, 0, t);
    unsigned rpl = sel & SEL_RPL, dpl = desc_dpl(t->desc);
    bool ok = desc_conforming(t->desc) ? dpl <= rpl : dpl == rpl;
    if (rpl < cpu->cpl || !ok)
        cpu_raise(cpu, VEC_GP, sel_err(sel));
    code_present(cpu, sel, 0, t);
}

void ret_outer_ss(struct cpu *cpu, const struct code_target *t, uint16_t sel, unsigned cpl, struct seg *ss)
{
    if (sel_null(sel)) {
        if (!seg_code64(cpu, &t->seg) || cpl == 3 || (sel & SEL_RPL) != cpl)
            CPU_GP0(cpu);
        seg_set_null(ss, sel, cpl);
        return;
    }
    uint64_t addr;
    uint64_t desc = seg_fetch_ss(cpu, sel, cpl, VEC_GP, 0, &addr);
    seg_mark_accessed(cpu, addr, &desc);
    seg_unpack(ss, sel, desc);
}

static void ret_real(struct cpu *cpu, unsigned osz, unsigned pop_bytes)
{
    struct stack st;
    stack_init(cpu, &st);
    uint64_t ip = stack_pop(cpu, &st, osz);
    uint16_t sel = (uint16_t)stack_pop(cpu, &st, osz);
    if (ip > cpu->seg[SEG_CS].limit)
        CPU_GP0(cpu);
    st.sp += pop_bytes;
    cpu->r[RSP] = stack_merge(cpu->r[RSP], &st);
    if (cpu_v86(cpu))
        seg_set_v86(&cpu->seg[SEG_CS], sel);
    else
        seg_set_real(cpu, &cpu->seg[SEG_CS], sel);
    cpu->r[R_RIP] = ip;
    cpu_update_mode(cpu);
}

static void ret_outer(struct cpu *cpu, struct stack *st, struct code_target *t, uint16_t sel, uint64_t rip,
                      unsigned osz, unsigned pop_bytes)
{
    unsigned cpl = sel & SEL_RPL;
    st->sp += pop_bytes;
    uint64_t sp = stack_pop(cpu, st, osz);
    uint16_t ss_sel = (uint16_t)stack_pop(cpu, st, osz);
    struct seg ss;
    ret_outer_ss(cpu, t, ss_sel, cpl, &ss);
    code_check_rip(cpu, t, rip, 0);
    code_enter(cpu, t, sel, cpl, rip);
    cpu->seg[SEG_SS] = ss;
    struct stack outer;
    stack_set(cpu, &outer, &ss, sp + pop_bytes, cpl, seg_code64(cpu, &t->seg));
    cpu->r[RSP] = stack_merge(cpu->r[RSP], &outer);
    seg_drop_inner(cpu, cpl);
}

void far_ret(struct cpu *cpu, unsigned osz, unsigned pop_bytes)
{
    if (cpu_real(cpu) || cpu_v86(cpu)) {
        ret_real(cpu, osz, pop_bytes);
        return;
    }
    struct stack st;
    struct code_target t;
    stack_init(cpu, &st);
    uint64_t rip = stack_pop(cpu, &st, osz);
    uint16_t sel = (uint16_t)stack_pop(cpu, &st, osz);
    ret_fetch_code(cpu, sel, &t);
    if ((sel & SEL_RPL) != cpu->cpl) {
        ret_outer(cpu, &st, &t, sel, rip, osz, pop_bytes);
    } else {
        code_check_rip(cpu, &t, rip, 0);
        code_enter(cpu, &t, sel, cpu->cpl, rip);
        st.sp += pop_bytes;
        cpu->r[RSP] = stack_merge(cpu->r[RSP], &st);
    }
    cpu_update_mode(cpu);
}
