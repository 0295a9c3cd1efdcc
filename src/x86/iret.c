/* IRET in every mode (SDM vol. 2, IRET; vol. 3, 6.14.3, 20.2 and 20.3; APM vol. 3, IRET, for the virtual-mode
 * extensions). vCPU thread; no locks. */
#include "x86/debug.h"
#include "x86/flags.h"
#include "x86/ret.h"

#define IRET_BASE (FL_ARITH | FL_TF | FL_DF | FL_NT)

static void iret_flags(struct cpu *cpu, uint64_t v, uint32_t mask, unsigned osz)
{
    if (osz == 2)
        mask &= 0xffff;
    debug_flags_written(cpu, v & mask & FL_TF);
    cpu_set_rflags(cpu, (cpu_rflags(cpu) & ~(uint64_t)mask) | (v & mask));
    cpu_update_mode(cpu);
}

/* The flags that CPL and IOPL let IRET change in protected mode. */
static uint32_t iret_mask(const struct cpu *cpu)
{
    uint32_t mask = IRET_BASE | FL_RF | FL_AC | FL_ID;
    if (cpu->cpl <= cpu_iopl(cpu))
        mask |= FL_IF;
    if (cpu->cpl == 0)
        mask |= FL_IOPL | FL_VIF | FL_VIP;
    return mask;
}

static void iret_real(struct cpu *cpu, unsigned osz)
{
    struct stack st;
    stack_init(cpu, &st);
    uint64_t ip = stack_pop(cpu, &st, osz);
    uint16_t sel = (uint16_t)stack_pop(cpu, &st, osz);
    uint64_t flags = stack_pop(cpu, &st, osz);
    if (ip > cpu->seg[SEG_CS].limit)
        CPU_GP0(cpu);
    cpu->r[RSP] = stack_merge(cpu->r[RSP], &st);
    seg_set_real(cpu, &cpu->seg[SEG_CS], sel);
    cpu->r[R_RIP] = ip;
    iret_flags(cpu, flags, IRET_BASE | FL_IF | FL_IOPL | FL_RF | FL_AC | FL_ID, osz);
}

/* From virtual-8086 mode to itself. */
static void iret_v86(struct cpu *cpu, unsigned osz)
{
    bool vme = cpu_iopl(cpu) != 3;
    if (vme && (!(cpu->cr4 & CR4_VME) || osz != 2))
        CPU_GP0(cpu);
    struct stack st;
    stack_init(cpu, &st);
    uint64_t ip = stack_pop(cpu, &st, osz);
    uint16_t sel = (uint16_t)stack_pop(cpu, &st, osz);
    uint64_t flags = stack_pop(cpu, &st, osz);
    bool pending = (flags & FL_IF) && (cpu->rflags & FL_VIP);
    if (ip > cpu->seg[SEG_CS].limit || (vme && (pending || (flags & FL_TF))))
        CPU_GP0(cpu);
    cpu->r[RSP] = stack_merge(cpu->r[RSP], &st);
    seg_set_v86(&cpu->seg[SEG_CS], sel);
    cpu->r[R_RIP] = ip;
    if (!vme) {
        iret_flags(cpu, flags, IRET_BASE | FL_IF | FL_RF | FL_AC | FL_ID, osz);
        return;
    }
    flags = (flags & 0xffff) | (flags & FL_IF ? FL_VIF : 0);
    iret_flags(cpu, flags, IRET_BASE | FL_VIF, 4);
}

/* From level 0 of protected mode into virtual-8086 mode; EIP, CS and EFLAGS are popped already. */
static void iret_to_v86(struct cpu *cpu, struct stack *st, uint64_t rip, uint16_t cs, uint64_t flags)
{
    static const uint8_t order[] = { SEG_ES, SEG_DS, SEG_FS, SEG_GS };
    uint16_t sel[SEG_COUNT];
    uint32_t sp = (uint32_t)stack_pop(cpu, st, 4);
    sel[SEG_CS] = cs;
    sel[SEG_SS] = (uint16_t)stack_pop(cpu, st, 4);
    for (unsigned k = 0; k < ARRAY_LEN(order); k++)
        sel[order[k]] = (uint16_t)stack_pop(cpu, st, 4);
    if (rip > 0xffff)
        CPU_GP0(cpu);
    for (unsigned n = 0; n < SEG_COUNT; n++)
        seg_set_v86(&cpu->seg[n], sel[n]);
    cpu->r[RSP] = sp;
    cpu->r[R_RIP] = rip;
    iret_flags(cpu, flags | FL_VM,
               IRET_BASE | FL_IF | FL_IOPL | FL_RF | FL_VM | FL_AC | FL_VIF | FL_VIP | FL_ID, 4);
}

/* With a new SS:RSP: to an outer level, or any return from 64-bit code. */
static void iret_new_stack(struct cpu *cpu, struct stack *st, struct code_target *t, uint16_t cs,
                           uint64_t rip, unsigned osz)
{
    unsigned cpl = cs & SEL_RPL;
    uint64_t sp = stack_pop(cpu, st, osz);
    uint16_t sel = (uint16_t)stack_pop(cpu, st, osz);
    struct seg ss;
    ret_outer_ss(cpu, t, sel, cpl, &ss);
    code_check_rip(cpu, t, rip, 0);
    bool outer = cpl != cpu->cpl;
    code_enter(cpu, t, cs, cpl, rip);
    cpu->seg[SEG_SS] = ss;
    struct stack next;
    stack_set(cpu, &next, &ss, sp, cpl, seg_code64(cpu, &t->seg));
    cpu->r[RSP] = stack_merge(cpu->r[RSP], &next);
    if (outer)
        seg_drop_inner(cpu, cpl);
}

static void iret_protected(struct cpu *cpu, unsigned osz)
{
    struct stack st;
    struct code_target t;
    stack_init(cpu, &st);
    uint64_t rip = stack_pop(cpu, &st, osz);
    uint16_t cs = (uint16_t)stack_pop(cpu, &st, osz);
    uint64_t flags = stack_pop(cpu, &st, osz);
    if (osz == 4 && (flags & FL_VM) && cpu->cpl == 0 && !cpu->long_mode) {
        iret_to_v86(cpu, &st, rip, cs, flags);
        return;
    }
    uint32_t mask = iret_mask(cpu);
    ret_fetch_code(cpu, cs, &t);
    if ((cs & SEL_RPL) != cpu->cpl || cpu->code_size == 8) {
        iret_new_stack(cpu, &st, &t, cs, rip, osz);
    } else {
        code_check_rip(cpu, &t, rip, 0);
        code_enter(cpu, &t, cs, cpu->cpl, rip);
        cpu->r[RSP] = stack_merge(cpu->r[RSP], &st);
    }
    iret_flags(cpu, flags, mask, osz);
}

void cpu_iret(struct cpu *cpu, unsigned osz)
{
    if (cpu_real(cpu)) {
        iret_real(cpu, osz);
    } else if (cpu_v86(cpu)) {
        iret_v86(cpu, osz);
    } else if (cpu->rflags & FL_NT) {
        if (cpu->long_mode)
            CPU_GP0(cpu);
        task_return(cpu);
    } else {
        iret_protected(cpu, osz);
    }
    cpu->nmi_blocked = false;
}
