/* Delivery of interrupts and exceptions through the IVT and the IDT (SDM vol. 3 ch. 6, 20.2 and 20.3; vol. 2,
 * INT n).
 *
 * Everything that can fault comes before the first change of the CPU's state, so that a fault in the middle
 * finds the interrupted program as it was. vCPU thread; no locks. */
#include "x86/debug.h"
#include "x86/desc.h"

/* The event that is being delivered. */
struct intr {
    unsigned vector;
    enum int_kind kind;
    bool has_error;
    uint32_t error;
    uint32_t ext;   /* EXT bit of the error codes of faults on the way */
    uint64_t flags; /* RFLAGS as pushed */
    bool trap_gate;
};

static bool intr_soft(const struct intr *in) { return in->kind == INT_SOFT || in->kind == INT_TRAP3; }

static uint32_t intr_idt_err(const struct intr *in) { return in->vector * 8 + 2 + in->ext; }

/* Is this fault reported with RF set in the saved flags? (SDM vol. 3, 17.3.1.1.) #DB is a trap, or a fault
 * by a code breakpoint, which does not set it. */
static bool intr_sets_rf(const struct intr *in)
{
    if (in->kind != INT_FAULT)
        return false;
    return in->vector != VEC_DB && in->vector != VEC_BP && in->vector != VEC_OF && in->vector != VEC_DF &&
           in->vector != VEC_MC;
}

/* RFLAGS inside the handler. */
static void intr_enter_flags(struct cpu *cpu, const struct intr *in, uint32_t clear)
{
    if (!in->trap_gate)
        clear |= FL_IF;
    cpu_set_rflags(cpu, cpu_rflags(cpu) & ~(uint64_t)clear);
    cpu_update_mode(cpu);
}

/* -- real mode, and virtual-8086 mode's own handlers -- */

static void intr_real(struct cpu *cpu, const struct intr *in)
{
    if (in->vector * 4 + 3 > cpu->idtr.limit)
        cpu_raise(cpu, VEC_GP, intr_idt_err(in));
    uint32_t entry = (uint32_t)mem_sys_ld(cpu, (uint32_t)(cpu->idtr.base + in->vector * 4), 4);
    struct stack st;
    stack_init(cpu, &st);
    stack_push(cpu, &st, in->flags, 2);
    stack_push(cpu, &st, cpu->seg[SEG_CS].sel, 2);
    stack_push(cpu, &st, cpu->r[R_RIP], 2);
    cpu->r[RSP] = stack_merge(cpu->r[RSP], &st);
    seg_set_real(cpu, &cpu->seg[SEG_CS], (uint16_t)(entry >> 16));
    cpu->r[R_RIP] = entry & 0xffff;
    intr_enter_flags(cpu, in, FL_TF | FL_AC | FL_RF);
}

/* VME: does the TSS's redirection bitmap leave this INT n to the virtual machine (bit clear)? */
static bool intr_redirected(struct cpu *cpu, unsigned vector)
{
    if (cpu->tr.limit < 103)
        return false;
    uint32_t map = (uint32_t)mem_sys_ld(cpu, (uint32_t)(cpu->tr.base + 102), 2);
    if (map < 32 || map - 32 + vector / 8 > cpu->tr.limit)
        return false;
    uint64_t byte = mem_sys_ld(cpu, (uint32_t)(cpu->tr.base + map - 32 + vector / 8), 1);
    return !(byte >> (vector % 8) & 1);
}

static void intr_v86_own(struct cpu *cpu, struct intr *in)
{
    bool iopl3 = cpu_iopl(cpu) == 3;
    uint64_t flags = in->flags;
    if (!iopl3) {
        flags |= FL_IOPL;
        flags = cpu->rflags & FL_VIF ? flags | FL_IF : flags & ~(uint64_t)FL_IF;
    }
    uint32_t entry = (uint32_t)mem_ld_idx(cpu, mem_index_of(cpu, 3), SEG_CS, in->vector * 4, 4);
    struct stack st;
    stack_init(cpu, &st);
    stack_push(cpu, &st, flags, 2);
    stack_push(cpu, &st, cpu->seg[SEG_CS].sel, 2);
    stack_push(cpu, &st, cpu->r[R_RIP], 2);
    cpu->r[RSP] = stack_merge(cpu->r[RSP], &st);
    seg_set_v86(&cpu->seg[SEG_CS], (uint16_t)(entry >> 16));
    cpu->r[R_RIP] = entry & 0xffff;
    in->trap_gate = !iopl3; /* with IOPL < 3 the virtual flag is cleared instead */
    intr_enter_flags(cpu, in, FL_TF | FL_RF | (iopl3 ? 0 : FL_VIF));
}

/* INT n in virtual-8086 mode (SDM vol. 3, table 20-2). True: done. */
static bool intr_v86_soft(struct cpu *cpu, struct intr *in)
{
    if ((cpu->cr4 & CR4_VME) && intr_redirected(cpu, in->vector)) {
        intr_v86_own(cpu, in);
        return true;
    }
    if (cpu_iopl(cpu) < 3)
        CPU_GP0(cpu);
    return false;
}

/* -- gates -- */

/* Read the gate and make the checks that all kinds share: *high gets the upper half in long mode. */
static uint64_t intr_gate(struct cpu *cpu, struct intr *in, uint64_t *high)
{
    unsigned size = cpu->long_mode ? 16 : 8;
    if (in->vector * size + size - 1 > cpu->idtr.limit)
        cpu_raise(cpu, VEC_GP, intr_idt_err(in));
    uint64_t lin = cpu->idtr.base + in->vector * size;
    if (!cpu->long_mode)
        lin = (uint32_t)lin;
    uint64_t gate = mem_sys_ld(cpu, lin, 8);
    *high = cpu->long_mode ? mem_sys_ld(cpu, lin + 8, 8) : 0;
    unsigned type = desc_type(gate);
    bool ok = type == DESC_INT32 || type == DESC_TRAP32;
    if (!cpu->long_mode)
        ok |= type == DESC_INT16 || type == DESC_TRAP16 || type == DESC_TASK;
    if (!ok || desc_s(gate) || (intr_soft(in) && desc_dpl(gate) < cpu->cpl))
        cpu_raise(cpu, VEC_GP, intr_idt_err(in));
    if (!desc_present(gate))
        cpu_raise(cpu, VEC_NP, intr_idt_err(in));
    in->trap_gate = type & 1;
    return gate;
}

/* The handler's code segment; returns the level it runs at. */
static unsigned intr_code(struct cpu *cpu, const struct intr *in, uint16_t sel, struct code_target *t)
{
    code_fetch(cpu, sel, in->ext, t);
    unsigned dpl = desc_dpl(t->desc);
    bool conforming = desc_conforming(t->desc);
    if (dpl > cpu->cpl || (cpu->long_mode && !desc_long(t->desc)))
        cpu_raise(cpu, VEC_GP, sel_err(sel) | in->ext);
    code_present(cpu, sel, in->ext, t);
    unsigned cpl = conforming ? cpu->cpl : dpl;
    if (cpu_v86(cpu) && cpl != 0)
        cpu_raise(cpu, VEC_GP, sel_err(sel) | in->ext);
    return cpl;
}

static void intr_push_v86(struct cpu *cpu, struct stack *st, unsigned size)
{
    static const uint8_t order[] = { SEG_GS, SEG_FS, SEG_DS, SEG_ES };
    for (unsigned k = 0; k < ARRAY_LEN(order); k++)
        stack_push(cpu, st, cpu->seg[order[k]].sel, size);
}

static void intr_push_frame(struct cpu *cpu, const struct intr *in, struct stack *st, unsigned size)
{
    stack_push(cpu, st, in->flags, size);
    stack_push(cpu, st, cpu->seg[SEG_CS].sel, size);
    stack_push(cpu, st, cpu->r[R_RIP], size);
    if (in->has_error)
        stack_push(cpu, st, in->error, size);
}

static unsigned intr_frame_words(const struct cpu *cpu, const struct intr *in, bool inner)
{
    return 3 + in->has_error + (inner ? 2 : 0) + (inner && cpu_v86(cpu) ? 4 : 0);
}

static void intr_legacy(struct cpu *cpu, struct intr *in, uint64_t gate)
{
    unsigned size = desc_type(gate) & 8 ? 4 : 2;
    uint64_t rip = size == 4 ? gate_off(gate) : gate_off(gate) & 0xffff;
    uint16_t sel = gate_sel(gate);
    struct code_target t;
    unsigned cpl = intr_code(cpu, in, sel, &t);
    bool inner = cpl < cpu->cpl, v86 = cpu_v86(cpu);
    struct stack st;
    if (inner) {
        tss_stack(cpu, cpl, in->ext, &st);
    } else {
        stack_init(cpu, &st);
        st.fault_err = in->ext;
    }
    stack_room(cpu, &st, intr_frame_words(cpu, in, inner) * size);
    code_check_rip(cpu, &t, rip, in->ext);
    if (v86)
        intr_push_v86(cpu, &st, size);
    if (inner) {
        stack_push(cpu, &st, cpu->seg[SEG_SS].sel, size);
        stack_push(cpu, &st, cpu->r[RSP], size);
    }
    intr_push_frame(cpu, in, &st, size);
    code_enter(cpu, &t, sel, cpl, rip);
    if (inner)
        cpu->seg[SEG_SS] = st.ss;
    if (v86)
        for (unsigned n = 0; n < SEG_COUNT; n++)
            if (n != SEG_CS && n != SEG_SS)
                seg_set_null(&cpu->seg[n], 0, 0);
    cpu->r[RSP] = stack_merge(cpu->r[RSP], &st);
    intr_enter_flags(cpu, in, FL_TF | FL_VM | FL_RF | FL_NT);
}

static void intr_long(struct cpu *cpu, struct intr *in, uint64_t gate, uint64_t high)
{
    uint64_t rip = gate_off(gate) | high << 32;
    unsigned ist = (unsigned)bits(gate, 34, 32);
    uint16_t sel = gate_sel(gate);
    struct code_target t;
    unsigned cpl = intr_code(cpu, in, sel, &t);
    bool inner = cpl < cpu->cpl;
    struct seg ss = cpu->seg[SEG_SS];
    uint64_t rsp = cpu->r[RSP];
    if (ist)
        rsp = tss_rsp(cpu, ist + 2, in->ext);
    else if (inner)
        rsp = tss_rsp(cpu, cpl, in->ext);
    if (inner)
        seg_set_null(&ss, (uint16_t)cpl, cpl);
    struct stack st;
    stack_set(cpu, &st, &ss, rsp & ~15ULL, cpl, true);
    st.fault_err = in->ext;
    code_check_rip(cpu, &t, rip, in->ext);
    stack_push(cpu, &st, cpu->seg[SEG_SS].sel, 8);
    stack_push(cpu, &st, cpu->r[RSP], 8);
    intr_push_frame(cpu, in, &st, 8);
    code_enter(cpu, &t, sel, cpl, rip);
    cpu->seg[SEG_SS] = ss;
    cpu->r[RSP] = st.sp;
    intr_enter_flags(cpu, in, FL_TF | FL_VM | FL_RF | FL_NT);
}

static void intr_protected(struct cpu *cpu, struct intr *in)
{
    if (cpu_v86(cpu) && in->kind == INT_SOFT && intr_v86_soft(cpu, in))
        return;
    uint64_t high;
    uint64_t gate = intr_gate(cpu, in, &high);
    if (cpu->long_mode) {
        intr_long(cpu, in, gate, high);
    } else if (desc_type(gate) == DESC_TASK) {
        if (intr_sets_rf(in))
            cpu->rflags |= FL_RF; /* for the image in the old TSS; the new task brings its own */
        task_gate(cpu, gate, TASK_INT, VEC_GP, in->has_error, in->error);
    } else {
        intr_legacy(cpu, in, gate);
    }
}

void cpu_interrupt(struct cpu *cpu, unsigned vector, enum int_kind kind, bool has_error, uint32_t error)
{
    struct intr in = { .vector = vector, .kind = kind, .has_error = has_error, .error = error };
    in.ext = !intr_soft(&in);
    cpu->shadow = 0;
    if (kind == INT_HARD)
        cpu->start_rip = cpu->r[R_RIP]; /* between instructions: a fault on the way comes back to here */
    cpu->delivering.active = in.ext;
    /* To table 6-5 only faults count; the rest is benign whatever its number. */
    cpu->delivering.vector = (uint8_t)(kind == INT_FAULT ? vector : VEC_NMI);
    in.flags = cpu_rflags(cpu);
    if (intr_sets_rf(&in))
        in.flags |= FL_RF;
    if (cpu_real(cpu))
        intr_real(cpu, &in);
    else
        intr_protected(cpu, &in);
    cpu->delivering.active = false;
    if (unlikely(cpu->pending_db)) /* of a load of SS just before, of the pushes, or a new task's T bit */
        debug_after(cpu, false);
}
