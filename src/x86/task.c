/* Task switches through 16- and 32-bit TSSs (SDM vol. 3 ch. 7). Legacy modes only.
 *
 * The new TSS is read completely, and the old one written, before the switch: faults up to there belong to
 * the old task, later ones to the new. vCPU thread; no locks. */
#include "x86/debug.h"
#include "x86/desc.h"

/* What a TSS holds of a task. */
struct task {
    bool tss32;
    uint32_t cr3, eip, eflags, gpr[8];
    uint16_t sel[SEG_COUNT], ldt;
    bool trap;
};

/* Layout of both kinds (SDM vol. 3, figures 7-2 and 7-10). */
struct task_layout {
    uint8_t width, eip, eflags, gpr, sel, sel_count, ldt, min_limit;
};
static const struct task_layout task_layouts[2] = {
    { .width = 2,
      .eip = 14,
      .eflags = 16,
      .gpr = 18,
      .sel = 34,
      .sel_count = 4,
      .ldt = 42,
      .min_limit = 0x2b },
    { .width = 4,
      .eip = 32,
      .eflags = 36,
      .gpr = 40,
      .sel = 72,
      .sel_count = 6,
      .ldt = 96,
      .min_limit = 0x67 },
};

static uint64_t task_ld(struct cpu *cpu, const struct seg *tss, unsigned off, unsigned size)
{
    return mem_sys_ld(cpu, (uint32_t)(tss->base + off), size);
}

static void task_st(struct cpu *cpu, const struct seg *tss, unsigned off, uint64_t v, unsigned size)
{
    mem_sys_st(cpu, (uint32_t)(tss->base + off), v, size);
}

static bool task_is32(const struct seg *tss) { return tss->attr & 8; }

static void task_read(struct cpu *cpu, const struct seg *tss, struct task *t)
{
    *t = (struct task){ .tss32 = task_is32(tss) };
    const struct task_layout *l = &task_layouts[t->tss32];
    t->eip = (uint32_t)task_ld(cpu, tss, l->eip, l->width);
    t->eflags = (uint32_t)task_ld(cpu, tss, l->eflags, l->width);
    for (unsigned n = 0; n < 8; n++) {
        t->gpr[n] = (uint32_t)task_ld(cpu, tss, l->gpr + n * l->width, l->width);
        if (!t->tss32)
            t->gpr[n] |= 0xffff0000u; /* what a 16-bit TSS leaves in the upper halves */
    }
    for (unsigned n = 0; n < l->sel_count; n++)
        t->sel[n] = (uint16_t)task_ld(cpu, tss, l->sel + n * l->width, 2);
    t->ldt = (uint16_t)task_ld(cpu, tss, l->ldt, 2);
    if (t->tss32) {
        t->cr3 = (uint32_t)task_ld(cpu, tss, 28, 4);
        t->trap = task_ld(cpu, tss, 100, 2) & 1;
    }
}

static void task_save(struct cpu *cpu, uint64_t eflags)
{
    const struct seg *tss = &cpu->tr;
    const struct task_layout *l = &task_layouts[task_is32(tss)];
    task_st(cpu, tss, l->eip, cpu->r[R_RIP], l->width);
    task_st(cpu, tss, l->eflags, eflags, l->width);
    for (unsigned n = 0; n < 8; n++)
        task_st(cpu, tss, l->gpr + n * l->width, cpu->r[n], l->width);
    for (unsigned n = 0; n < l->sel_count; n++)
        task_st(cpu, tss, l->sel + n * l->width, cpu->seg[n].sel, 2);
}

static void task_set_busy(struct cpu *cpu, uint16_t sel, bool busy)
{
    uint64_t desc, addr;
    if (!seg_descriptor(cpu, sel, &desc, &addr))
        return; /* the GDT shrank under a running task */
    unsigned byte = (unsigned)bits(desc, 47, 40);
    mem_sys_st(cpu, addr + 5, busy ? byte | DESC_BUSY : byte & ~DESC_BUSY, 1);
}

/* -- loading the new task's segments: faults are #TS in the new task -- */

static _Noreturn void task_ts(struct cpu *cpu, uint16_t sel)
{
    cpu_raise(cpu, VEC_TS, sel_err(sel) | event_ext(cpu));
}

static void task_load_ldt(struct cpu *cpu, uint16_t sel)
{
    if (sel_null(sel))
        return;
    if (sel & SEL_TI)
        task_ts(cpu, sel);
    uint64_t desc = seg_fetch(cpu, sel, VEC_TS, event_ext(cpu), NULL);
    if (desc_s(desc) || desc_type(desc) != DESC_LDT || !desc_present(desc))
        task_ts(cpu, sel);
    seg_unpack(&cpu->ldtr, sel, desc);
}

static void task_load_cs(struct cpu *cpu, uint16_t sel)
{
    uint64_t addr;
    if (sel_null(sel))
        task_ts(cpu, sel);
    uint64_t desc = seg_fetch(cpu, sel, VEC_TS, event_ext(cpu), &addr);
    unsigned dpl = desc_dpl(desc), rpl = sel & SEL_RPL;
    if (!desc_code(desc) || (desc_conforming(desc) ? dpl > rpl : dpl != rpl))
        task_ts(cpu, sel);
    if (!desc_present(desc))
        cpu_raise(cpu, VEC_NP, sel_err(sel) | event_ext(cpu));
    seg_mark_accessed(cpu, addr, &desc);
    seg_unpack(&cpu->seg[SEG_CS], sel, desc);
    cpu_update_mode(cpu);
}

static void task_load_ss(struct cpu *cpu, uint16_t sel, unsigned cpl)
{
    uint64_t addr = 0;
    uint64_t desc = seg_fetch_ss(cpu, sel, cpl, VEC_TS, event_ext(cpu), &addr);
    seg_mark_accessed(cpu, addr, &desc);
    seg_unpack(&cpu->seg[SEG_SS], sel, desc);
    cpu_update_mode(cpu);
}

static void task_load_data(struct cpu *cpu, unsigned n, uint16_t sel, unsigned cpl)
{
    uint64_t addr;
    if (sel_null(sel))
        return;
    uint64_t desc = seg_fetch(cpu, sel, VEC_TS, event_ext(cpu), &addr);
    bool conforming = desc_code(desc) && desc_conforming(desc);
    unsigned dpl = desc_dpl(desc);
    if (!desc_readable(desc) || (!conforming && (dpl < cpl || dpl < (sel & SEL_RPL))))
        task_ts(cpu, sel);
    if (!desc_present(desc))
        cpu_raise(cpu, VEC_NP, sel_err(sel) | event_ext(cpu));
    seg_mark_accessed(cpu, addr, &desc);
    seg_unpack(&cpu->seg[n], sel, desc);
}

static void task_load_segments(struct cpu *cpu, const struct task *t)
{
    static const uint8_t data[] = { SEG_DS, SEG_ES, SEG_FS, SEG_GS };
    task_load_ldt(cpu, t->ldt);
    if (t->eflags & FL_VM)
        return;
    unsigned cpl = t->sel[SEG_CS] & SEL_RPL;
    task_load_cs(cpu, t->sel[SEG_CS]);
    task_load_ss(cpu, t->sel[SEG_SS], cpl);
    for (unsigned k = 0; k < ARRAY_LEN(data); k++)
        task_load_data(cpu, data[k], t->sel[data[k]], cpl);
}

/* -- the switch -- */

/* Selectors without descriptors: what a fault in the new task's first moments sees. */
static void task_bare_segments(struct cpu *cpu, const struct task *t)
{
    unsigned cpl = t->sel[SEG_CS] & SEL_RPL;
    for (unsigned n = 0; n < SEG_COUNT; n++) {
        if (t->eflags & FL_VM)
            seg_set_v86(&cpu->seg[n], t->sel[n]);
        else
            seg_set_null(&cpu->seg[n], t->sel[n], n == SEG_SS || n == SEG_CS ? cpl : 0);
    }
    seg_set_null(&cpu->ldtr, t->ldt, 0);
}

static void task_load(struct cpu *cpu, const struct task *t, const struct seg *tss)
{
    bool paged = t->tss32 && (cpu->cr0 & CR0_PG);
    cpu->tr = *tss;
    cpu->tr.attr |= DESC_BUSY;
    cpu->cr0 |= CR0_TS;
    cpu->r[R_RIP] = cpu->start_rip = t->eip;
    for (unsigned n = 0; n < 8; n++)
        cpu->r[n] = t->gpr[n];
    task_bare_segments(cpu, t);
    cpu_set_rflags(cpu, t->eflags);
    cpu_update_mode(cpu);
    if (paged && t->cr3 != cpu->cr3)
        cpu_write_cr3(cpu, t->cr3);
    else if (paged)
        mmu_flush_all(cpu);
    debug_task_switch(cpu, t->trap);
}

static void task_push_error(struct cpu *cpu, const struct task *t, uint32_t error)
{
    struct stack st;
    stack_init(cpu, &st);
    st.fault_err = event_ext(cpu);
    stack_push(cpu, &st, error, t->tss32 ? 4 : 2);
    cpu->r[RSP] = stack_merge(cpu->r[RSP], &st);
}

void task_switch(struct cpu *cpu, uint16_t sel, uint64_t desc, enum task_reason why, bool has_error,
                 uint32_t error)
{
    struct seg tss;
    struct task t;
    seg_unpack(&tss, sel, desc);
    if (!(tss.attr & ATTR_P))
        cpu_raise(cpu, VEC_NP, sel_err(sel) | event_ext(cpu));
    if (tss.limit < task_layouts[task_is32(&tss)].min_limit)
        cpu_raise(cpu, VEC_TS, sel_err(sel) | event_ext(cpu));
    bool nested = why == TASK_CALL || why == TASK_INT;
    uint16_t old = cpu->tr.sel;
    uint64_t eflags = cpu_rflags(cpu);
    task_read(cpu, &tss, &t);
    if (nested) {
        task_st(cpu, &tss, 0, old, 2);
        t.eflags |= FL_NT;
    }
    task_save(cpu, why == TASK_IRET ? eflags & ~(uint64_t)FL_NT : eflags);
    if (!nested)
        task_set_busy(cpu, old, false);
    if (why != TASK_IRET)
        task_set_busy(cpu, sel, true);
    task_load(cpu, &t, &tss);
    task_load_segments(cpu, &t);
    if (has_error)
        task_push_error(cpu, &t, error);
    if (cpu->r[R_RIP] > cpu->seg[SEG_CS].limit)
        cpu_raise(cpu, VEC_GP, event_ext(cpu));
    cpu_update_mode(cpu);
}

void task_gate(struct cpu *cpu, uint64_t gate, enum task_reason why, unsigned vec, bool has_error,
               uint32_t error)
{
    uint16_t sel = gate_sel(gate);
    uint32_t ext = event_ext(cpu);
    if (sel_null(sel) || (sel & SEL_TI))
        cpu_raise(cpu, vec, sel_err(sel) | ext);
    uint64_t desc = seg_fetch(cpu, sel, vec, ext, NULL);
    unsigned type = desc_type(desc);
    if (desc_s(desc) || (type != DESC_TSS16 && type != DESC_TSS32))
        cpu_raise(cpu, vec, sel_err(sel) | ext);
    task_switch(cpu, sel, desc, why, has_error, error);
}

void task_return(struct cpu *cpu)
{
    uint16_t sel = (uint16_t)task_ld(cpu, &cpu->tr, 0, 2);
    if (sel_null(sel) || (sel & SEL_TI))
        cpu_raise(cpu, VEC_TS, sel_err(sel));
    uint64_t desc = seg_fetch(cpu, sel, VEC_TS, 0, NULL);
    unsigned type = desc_type(desc);
    if (desc_s(desc) || (type != DESC_TSS16_BUSY && type != DESC_TSS32_BUSY))
        cpu_raise(cpu, VEC_TS, sel_err(sel));
    task_switch(cpu, sel, desc, TASK_IRET, false, 0);
}
