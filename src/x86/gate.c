/* Call gates of 16, 32 and 64 bits (SDM vol. 3, 5.8.3 to 5.8.5; vol. 2, CALL and JMP). vCPU thread; no locks.
 */
#include "x86/desc.h"

struct gate {
    uint16_t sel; /* of the target code segment */
    uint64_t off;
    unsigned size, params;
};

static void gate_unpack(struct cpu *cpu, uint16_t sel, uint64_t desc, struct gate *g)
{
    bool small = desc_type(desc) == DESC_CALL16 && !cpu->long_mode;
    *g = (struct gate){ .sel = gate_sel(desc),
                        .off = small ? gate_off(desc) & 0xffff : gate_off(desc),
                        .size = small ? 2 : 4,
                        .params = gate_count(desc) };
    if (!cpu->long_mode)
        return;
    /* The second half is where the next descriptor would be. */
    uint64_t high;
    if (sel > 0xfff7 || !seg_descriptor(cpu, (uint16_t)(sel + 8), &high, NULL) || bits(high, 44, 40))
        cpu_raise(cpu, VEC_GP, sel_err(sel));
    g->off |= high << 32;
    g->size = 8;
    g->params = 0;
}

static void gate_inner_stack(struct cpu *cpu, unsigned cpl, struct stack *st)
{
    if (!cpu->long_mode) {
        tss_stack(cpu, cpl, 0, st);
        return;
    }
    struct seg ss;
    seg_set_null(&ss, (uint16_t)cpl, cpl);
    stack_set(cpu, st, &ss, tss_rsp(cpu, cpl, 0), cpl, true);
}

/* The caller's parameters, first pushed first. */
static void gate_copy_params(struct cpu *cpu, const struct gate *g, struct stack *st)
{
    struct stack old;
    for (unsigned n = g->params; n-- > 0;) {
        stack_init(cpu, &old);
        old.sp += (uint64_t)n * g->size;
        stack_push(cpu, st, stack_pop(cpu, &old, g->size), g->size);
    }
}

static void gate_call_inner(struct cpu *cpu, const struct gate *g, struct code_target *t)
{
    unsigned cpl = desc_dpl(t->desc);
    struct stack st;
    gate_inner_stack(cpu, cpl, &st);
    stack_room(cpu, &st, (4 + g->params) * g->size);
    code_check_rip(cpu, t, g->off, 0);
    stack_push(cpu, &st, cpu->seg[SEG_SS].sel, g->size);
    stack_push(cpu, &st, cpu->r[RSP], g->size);
    gate_copy_params(cpu, g, &st);
    stack_push(cpu, &st, cpu->seg[SEG_CS].sel, g->size);
    stack_push(cpu, &st, cpu->r[R_RIP], g->size);
    code_enter(cpu, t, g->sel, cpl, g->off);
    cpu->seg[SEG_SS] = st.ss;
    cpu->r[RSP] = stack_merge(cpu->r[RSP], &st);
}

static void gate_call_same(struct cpu *cpu, const struct gate *g, struct code_target *t)
{
    struct stack st;
    stack_init(cpu, &st);
    code_check_rip(cpu, t, g->off, 0);
    stack_push(cpu, &st, cpu->seg[SEG_CS].sel, g->size);
    stack_push(cpu, &st, cpu->r[R_RIP], g->size);
    code_enter(cpu, t, g->sel, cpu->cpl, g->off);
    cpu->r[RSP] = stack_merge(cpu->r[RSP], &st);
}

void gate_transfer(struct cpu *cpu, uint16_t sel, uint64_t gate, bool call)
{
    struct gate g;
    struct code_target t;
    gate_unpack(cpu, sel, gate, &g);
    code_fetch(cpu, g.sel, 0, &t);
    unsigned dpl = desc_dpl(t.desc);
    bool conforming = desc_conforming(t.desc);
    bool inner = !conforming && dpl < cpu->cpl;
    if (dpl > cpu->cpl || (!call && inner) || (cpu->long_mode && !desc_long(t.desc)))
        cpu_raise(cpu, VEC_GP, sel_err(g.sel));
    code_present(cpu, g.sel, 0, &t);
    if (call && inner) {
        gate_call_inner(cpu, &g, &t);
    } else if (call) {
        gate_call_same(cpu, &g, &t);
    } else {
        code_check_rip(cpu, &t, g.off, 0);
        code_enter(cpu, &t, g.sel, cpu->cpl, g.off);
    }
    cpu_update_mode(cpu);
}
