/* SYSCALL, SYSRET, SYSENTER and SYSEXIT, with what Intel and AMD do differently (SDM vol. 2; APM vol. 3).
 * They load flat segments without reading descriptors. vCPU thread; no locks. */
#include "x86/cpuid.h"
#include "x86/debug.h"
#include "x86/desc.h"

enum { CODE16_32 = ATTR_G | ATTR_DB, CODE64 = ATTR_G | ATTR_L };

static bool syscall_amd(const struct cpu *cpu) { return cpu->cpuid->vendor == VENDOR_AMD; }

static void syscall_segs(struct cpu *cpu, uint16_t cs, uint16_t ss, unsigned cpl, unsigned code_attr)
{
    unsigned common = ATTR_P | ATTR_S | cpl << ATTR_DPL_SHIFT | TYPE_RW | TYPE_ACCESSED;
    cpu->seg[SEG_CS] = (struct seg){ .sel = (uint16_t)((cs & ~SEL_RPL) | cpl),
                                     .limit = 0xffffffff,
                                     .attr = (uint16_t)(common | TYPE_CODE | code_attr) };
    cpu->seg[SEG_SS] = (struct seg){ .sel = (uint16_t)((ss & ~SEL_RPL) | cpl),
                                     .limit = 0xffffffff,
                                     .attr = (uint16_t)(common | ATTR_G | ATTR_DB) };
}

static void syscall_flags(struct cpu *cpu, uint64_t v)
{
    cpu_set_rflags(cpu, v);
    cpu_update_mode(cpu);
}

static void syscall_long(struct cpu *cpu)
{
    uint64_t flags = cpu_rflags(cpu) & ~(uint64_t)FL_RF;
    bool from64 = cpu->code_size == 8;
    cpu->r[RCX] = from64 ? cpu->r[R_RIP] : (uint32_t)cpu->r[R_RIP];
    cpu->r[R11] = flags;
    cpu->r[R_RIP] = from64 ? cpu->lstar : cpu->cstar;
    uint16_t sel = (uint16_t)(cpu->star >> 32);
    syscall_segs(cpu, sel, (uint16_t)((sel & ~SEL_RPL) + 8), 0, CODE64);
    syscall_flags(cpu, flags & ~cpu->sfmask);
}

void cpu_syscall(struct cpu *cpu)
{
    if (!(cpu->efer & EFER_SCE) || (!syscall_amd(cpu) && cpu->code_size != 8))
        CPU_UD(cpu);
    if (cpu->long_mode) {
        syscall_long(cpu);
        return;
    }
    uint16_t sel = (uint16_t)(cpu->star >> 32);
    cpu->r[RCX] = (uint32_t)cpu->r[R_RIP];
    cpu->r[R_RIP] = (uint32_t)cpu->star;
    syscall_segs(cpu, sel, (uint16_t)((sel & ~SEL_RPL) + 8), 0, CODE16_32);
    syscall_flags(cpu, cpu_rflags(cpu) & ~(uint64_t)(FL_VM | FL_IF | FL_RF));
}

/* SYSRET sees TF after the fact: a traced program stops behind its system call. */
static void sysret_flags(struct cpu *cpu, uint64_t v)
{
    if (v & FL_TF)
        debug_step_now(cpu);
    syscall_flags(cpu, v);
}

void cpu_sysret(struct cpu *cpu, unsigned osz)
{
    bool amd = syscall_amd(cpu);
    if (!(cpu->efer & EFER_SCE) || (!amd && cpu->code_size != 8))
        CPU_UD(cpu);
    if (cpu_real(cpu) || cpu->cpl != 0)
        CPU_GP0(cpu);
    uint16_t sel = (uint16_t)(cpu->star >> 48);
    uint64_t flags = cpu_rflags(cpu);
    if (cpu->code_size != 8) { /* AMD only: from legacy or compatibility mode */
        cpu->r[R_RIP] = (uint32_t)cpu->r[RCX];
        syscall_segs(cpu, sel, (uint16_t)(sel + 8), 3, CODE16_32);
        sysret_flags(cpu, flags | FL_IF);
        return;
    }
    bool to64 = osz == 8;
    uint64_t rip = to64 ? cpu->r[RCX] : (uint32_t)cpu->r[RCX];
    if (!amd && !cpu_canonical(cpu, rip))
        CPU_GP0(cpu); /* AMD faults in the fetch, at level 3 */
    cpu->r[R_RIP] = rip;
    syscall_segs(cpu, (uint16_t)(sel + (to64 ? 16 : 0)), (uint16_t)(sel + 8), 3, to64 ? CODE64 : CODE16_32);
    sysret_flags(cpu, cpu->r[R11] & ~(uint64_t)(FL_RF | FL_VM));
}

static void sysenter_check(struct cpu *cpu)
{
    if (syscall_amd(cpu) && cpu->long_mode)
        CPU_UD(cpu);
    if (cpu_real(cpu) || !(cpu->sysenter_cs & 0xfffc))
        CPU_GP0(cpu);
}

void cpu_sysenter(struct cpu *cpu)
{
    sysenter_check(cpu);
    bool lm = cpu->long_mode;
    uint16_t sel = (uint16_t)cpu->sysenter_cs & 0xfffc;
    cpu->r[RSP] = lm ? cpu->sysenter_esp : (uint32_t)cpu->sysenter_esp;
    cpu->r[R_RIP] = lm ? cpu->sysenter_eip : (uint32_t)cpu->sysenter_eip;
    syscall_segs(cpu, sel, (uint16_t)(sel + 8), 0, lm ? CODE64 : CODE16_32);
    syscall_flags(cpu, cpu_rflags(cpu) & ~(uint64_t)(FL_VM | FL_IF | FL_RF));
}

void cpu_sysexit(struct cpu *cpu, unsigned osz)
{
    sysenter_check(cpu);
    if (cpu->cpl != 0)
        CPU_GP0(cpu);
    bool to64 = osz == 8;
    if (to64 && (!cpu_canonical(cpu, cpu->r[RCX]) || !cpu_canonical(cpu, cpu->r[RDX])))
        CPU_GP0(cpu);
    uint16_t sel = (uint16_t)((cpu->sysenter_cs & 0xfffc) + (to64 ? 32 : 16));
    cpu->r[RSP] = to64 ? cpu->r[RCX] : (uint32_t)cpu->r[RCX];
    cpu->r[R_RIP] = to64 ? cpu->r[RDX] : (uint32_t)cpu->r[RDX];
    syscall_segs(cpu, sel, (uint16_t)(sel + 8), 3, to64 ? CODE64 : CODE16_32);
    cpu_update_mode(cpu);
}
