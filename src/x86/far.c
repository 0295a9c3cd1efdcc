/* Far jumps and calls to code segments, and what they share with gates, returns and interrupts
 * (SDM vol. 2, JMP and CALL; vol. 3, 5.8). vCPU thread; no locks. */
#include "x86/desc.h"

void code_fetch(struct cpu *cpu, uint16_t sel, uint32_t ext, struct code_target *t)
{
    if (sel_null(sel))
        cpu_raise(cpu, VEC_GP, ext);
    t->desc = seg_fetch(cpu, sel, VEC_GP, ext, &t->addr);
    if (!desc_code(t->desc) || (cpu->long_mode && desc_long(t->desc) && desc_big(t->desc)))
        cpu_raise(cpu, VEC_GP, sel_err(sel) | ext);
    seg_unpack(&t->seg, sel, t->desc);
}

void code_present(struct cpu *cpu, uint16_t sel, uint32_t ext, const struct code_target *t)
{
    if (!desc_present(t->desc))
        cpu_raise(cpu, VEC_NP, sel_err(sel) | ext);
}

void code_check_rip(struct cpu *cpu, const struct code_target *t, uint64_t rip, uint32_t ext)
{
    bool ok = seg_code64(cpu, &t->seg) ? cpu_canonical(cpu, rip) : rip <= t->seg.limit;
    if (!ok)
        cpu_raise(cpu, VEC_GP, ext);
}

void code_enter(struct cpu *cpu, struct code_target *t, uint16_t sel, unsigned cpl, uint64_t rip)
{
    seg_mark_accessed(cpu, t->addr, &t->desc);
    seg_unpack(&cpu->seg[SEG_CS], (uint16_t)((sel & ~SEL_RPL) | cpl), t->desc);
    cpu->r[R_RIP] = rip;
}

/* Real and virtual-8086 mode: CS:IP without descriptors. */
static void far_real(struct cpu *cpu, uint16_t sel, uint64_t off)
{
    if (off > cpu->seg[SEG_CS].limit)
        CPU_GP0(cpu);
    if (cpu_v86(cpu))
        seg_set_v86(&cpu->seg[SEG_CS], sel);
    else
        seg_set_real(cpu, &cpu->seg[SEG_CS], sel);
    cpu->r[R_RIP] = off;
    cpu_update_mode(cpu);
}

/* Privilege and presence for a direct transfer to a code segment at the same level. */
static void far_code_checks(struct cpu *cpu, uint16_t sel, const struct code_target *t)
{
    unsigned dpl = desc_dpl(t->desc);
    bool ok = desc_conforming(t->desc) ? dpl <= cpu->cpl : (sel & SEL_RPL) <= cpu->cpl && dpl == cpu->cpl;
    if (!ok)
        cpu_raise(cpu, VEC_GP, sel_err(sel));
    code_present(cpu, sel, 0, t);
}

/* Is it a code segment? Otherwise *desc is a system descriptor that the caller sorts out. */
static bool far_is_code(struct cpu *cpu, uint16_t sel, uint64_t *desc)
{
    if (sel_null(sel))
        CPU_GP0(cpu);
    *desc = seg_fetch(cpu, sel, VEC_GP, 0, NULL);
    return desc_s(*desc);
}

/* Truncate an offset to what the target's kind of code can hold. */
static uint64_t far_offset(struct cpu *cpu, const struct code_target *t, uint64_t off, unsigned osz)
{
    off &= mask_bytes(osz);
    return seg_code64(cpu, &t->seg) ? off : (uint32_t)off;
}

/* A system descriptor reached by a far transfer: gate or task. */
static void far_system(struct cpu *cpu, uint16_t sel, uint64_t desc, enum task_reason why)
{
    unsigned type = desc_type(desc);
    bool gate16 = type == DESC_CALL16 && !cpu->long_mode;
    bool task = !cpu->long_mode && (type == DESC_TSS16 || type == DESC_TSS32 || type == DESC_TASK);
    if (!gate16 && !task && type != DESC_CALL32)
        cpu_raise(cpu, VEC_GP, sel_err(sel));
    if (desc_dpl(desc) < cpu->cpl || desc_dpl(desc) < (sel & SEL_RPL))
        cpu_raise(cpu, VEC_GP, sel_err(sel));
    if (task && type != DESC_TASK && (sel & SEL_TI))
        cpu_raise(cpu, VEC_GP, sel_err(sel));
    if (!desc_present(desc))
        cpu_raise(cpu, VEC_NP, sel_err(sel));
    if (type == DESC_TASK)
        task_gate(cpu, desc, why, VEC_GP, false, 0);
    else if (task)
        task_switch(cpu, sel, desc, why, false, 0);
    else
        gate_transfer(cpu, sel, desc, why == TASK_CALL);
}

void far_jump(struct cpu *cpu, uint16_t sel, uint64_t off, unsigned osz)
{
    if (cpu_real(cpu) || cpu_v86(cpu)) {
        far_real(cpu, sel, off & mask_bytes(osz));
        return;
    }
    uint64_t desc;
    if (!far_is_code(cpu, sel, &desc)) {
        far_system(cpu, sel, desc, TASK_JUMP);
        return;
    }
    struct code_target t;
    code_fetch(cpu, sel, 0, &t);
    far_code_checks(cpu, sel, &t);
    uint64_t rip = far_offset(cpu, &t, off, osz);
    code_check_rip(cpu, &t, rip, 0);
    code_enter(cpu, &t, sel, cpu->cpl, rip);
    cpu_update_mode(cpu);
}

static void far_call_real(struct cpu *cpu, uint16_t sel, uint64_t off, unsigned osz)
{
    if (off > cpu->seg[SEG_CS].limit)
        CPU_GP0(cpu);
    struct stack st;
    stack_init(cpu, &st);
    stack_push(cpu, &st, cpu->seg[SEG_CS].sel, osz);
    stack_push(cpu, &st, cpu->r[R_RIP], osz);
    cpu->r[RSP] = stack_merge(cpu->r[RSP], &st);
    far_real(cpu, sel, off);
}

void far_call(struct cpu *cpu, uint16_t sel, uint64_t off, unsigned osz)
{
    if (cpu_real(cpu) || cpu_v86(cpu)) {
        far_call_real(cpu, sel, off & mask_bytes(osz), osz);
        return;
    }
    uint64_t desc;
    if (!far_is_code(cpu, sel, &desc)) {
        far_system(cpu, sel, desc, TASK_CALL);
        return;
    }
    struct code_target t;
    code_fetch(cpu, sel, 0, &t);
    far_code_checks(cpu, sel, &t);
    uint64_t rip = far_offset(cpu, &t, off, osz);
    code_check_rip(cpu, &t, rip, 0);
    struct stack st;
    stack_init(cpu, &st);
    stack_push(cpu, &st, cpu->seg[SEG_CS].sel, osz);
    stack_push(cpu, &st, cpu->r[R_RIP], osz);
    code_enter(cpu, &t, sel, cpu->cpl, rip);
    cpu->r[RSP] = stack_merge(cpu->r[RSP], &st);
    cpu_update_mode(cpu);
}
