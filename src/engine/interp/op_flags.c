/* Instructions on RFLAGS with privilege rules: CLI, STI, CLAC, STAC, PUSHF, POPF (SDM vol. 2; vol. 3, 20.3
 * and 20.4 for the virtual interrupt flag). vCPU thread. */
#include "engine/interp/op_system.h"
#include "x86/debug.h"

/* May the program change IF itself? In real mode CPL is 0. */
static bool flags_owns_if(const struct cpu *cpu) { return cpu_iopl(cpu) >= cpu->cpl; }

/* Does it have a virtual IF instead (VME, PVI)? */
static bool flags_has_vif(const struct cpu *cpu)
{
    return cpu_v86(cpu) ? cpu->cr4 & CR4_VME : cpu->cpl == 3 && (cpu->cr4 & CR4_PVI);
}

void op_cli(struct cpu *cpu, const struct insn *i)
{
    if (likely(flags_owns_if(cpu)))
        cpu->rflags &= ~FL_IF;
    else if (flags_has_vif(cpu))
        cpu->rflags &= ~FL_VIF;
    else
        CPU_GP0(cpu);
}

void op_sti(struct cpu *cpu, const struct insn *i)
{
    if (likely(flags_owns_if(cpu))) {
        if (!(cpu->rflags & FL_IF))
            cpu->shadow = SHADOW_STI;
        cpu->rflags |= FL_IF;
        return;
    }
    if (!flags_has_vif(cpu) || (cpu->rflags & FL_VIP))
        CPU_GP0(cpu);
    cpu->rflags |= FL_VIF;
}

static void flags_set_ac(struct cpu *cpu, bool on)
{
    op_need_feature(cpu, CPU_FEAT(FEAT_7_EBX, 20));
    if (cpu->cpl != 0)
        CPU_UD(cpu);
    cpu->rflags = on ? cpu->rflags | FL_AC : cpu->rflags & ~FL_AC;
    cpu_update_mode(cpu);
}

void op_clac(struct cpu *cpu, const struct insn *i) { flags_set_ac(cpu, false); }
void op_stac(struct cpu *cpu, const struct insn *i) { flags_set_ac(cpu, true); }

/* Virtual-8086 mode below IOPL 3: may go on, with VIF in IF's place, or #GP. */
static bool flags_virtual(struct cpu *cpu, unsigned size)
{
    if (!cpu_v86(cpu) || cpu_iopl(cpu) == 3)
        return false;
    if (!(cpu->cr4 & CR4_VME) || size != 2)
        CPU_GP0(cpu);
    return true;
}

void op_pushf(struct cpu *cpu, const struct insn *i)
{
    uint64_t v = cpu_rflags(cpu) & ~(uint64_t)(FL_RF | FL_VM);
    if (flags_virtual(cpu, i->esz)) {
        v |= FL_IOPL;
        v = v & FL_VIF ? v | FL_IF : v & ~(uint64_t)FL_IF;
    }
    cpu_push(cpu, v, i->esz);
}

/* What POPF may change; RF is always cleared. */
static uint32_t flags_popf_mask(const struct cpu *cpu, unsigned size)
{
    uint32_t mask = FL_ARITH | FL_TF | FL_DF | FL_NT | FL_AC | FL_ID;
    if (cpu->cpl == 0)
        mask |= FL_IOPL;
    if (flags_owns_if(cpu))
        mask |= FL_IF;
    return (size == 2 ? mask & 0xffff : mask) | FL_RF;
}

void op_popf(struct cpu *cpu, const struct insn *i)
{
    uint32_t mask = flags_popf_mask(cpu, i->esz);
    bool virtual_if = flags_virtual(cpu, i->esz);
    uint64_t before = cpu->r[RSP];
    uint64_t v = cpu_pop(cpu, i->esz) & ~(uint64_t)FL_RF;
    if (virtual_if) {
        if ((v & FL_TF) || ((v & FL_IF) && (cpu->rflags & FL_VIP))) {
            cpu->r[RSP] = before;
            CPU_GP0(cpu);
        }
        v = v & FL_IF ? v | FL_VIF : v & ~(uint64_t)FL_VIF;
        mask |= FL_VIF;
    }
    debug_flags_written(cpu, v & FL_TF);
    cpu_set_rflags(cpu, (cpu_rflags(cpu) & ~(uint64_t)mask) | (v & mask));
}
