/* System instructions: control and debug registers, MSRs, caches and TLB, time, randomness, HLT; and the
 * table of all of them (SDM vol. 2; vol. 3, 2.8). vCPU thread; the device lock is taken around CR8. */
#include <sched.h>

#include "base/loop.h"
#include "base/rand.h"
#include "engine/interp/interp.h"
#include "engine/interp/op_system.h"
#include "x86/debug.h"
#include "x86/lapic.h"
#include "x86/msr.h"

#define PAUSE_GAP  16384u /* ticks of the host's TSC between two PAUSEs of a loop that only waits, at most */
#define PAUSE_LOOP 32u    /* of these, before others may have the host's CPU */

static unsigned sys_reg_size(const struct cpu *cpu) { return cpu->code_size == 8 ? 8 : 4; }

static void sys_edx_eax(struct cpu *cpu, uint64_t v)
{
    cpu->r[RAX] = (uint32_t)v;
    cpu->r[RDX] = v >> 32;
}

static uint64_t sys_get_edx_eax(const struct cpu *cpu) { return cpu->r[RDX] << 32 | (uint32_t)cpu->r[RAX]; }

/* -- control and debug registers -- */

static void sys_check_cr(struct cpu *cpu, unsigned n)
{
    if (n == 1 || (n > 4 && n != 8))
        CPU_UD(cpu);
    op_need_cpl0(cpu);
}

void op_mov_from_cr(struct cpu *cpu, const struct insn *i)
{
    uint64_t v = 0;
    sys_check_cr(cpu, i->cc);
    switch (i->cc) {
    case 0:
        v = cpu->cr0;
        break;
    case 2:
        v = cpu->cr2;
        break;
    case 3:
        v = cpu->cr3;
        break;
    case 4:
        v = cpu->cr4;
        break;
    default:
        v = cpu->cr8;
        break;
    }
    reg_set(cpu, i->r0, v, sys_reg_size(cpu));
}

static void sys_write_cr8(struct cpu *cpu, uint64_t v)
{
    if (v > 15)
        CPU_GP0(cpu);
    if (!cpu->lapic) {
        cpu->cr8 = v;
        return;
    }
    loop_lock(cpu->loop);
    lapic_cr8_write(cpu->lapic, v);
    loop_unlock(cpu->loop);
}

void op_mov_to_cr(struct cpu *cpu, const struct insn *i)
{
    uint64_t v = reg_get(cpu, i->r0, sys_reg_size(cpu));
    sys_check_cr(cpu, i->cc);
    switch (i->cc) {
    case 0:
        cpu_write_cr0(cpu, v);
        break;
    case 2:
        cpu->cr2 = v;
        break;
    case 3:
        cpu_write_cr3(cpu, v);
        break;
    case 4:
        cpu_write_cr4(cpu, v);
        break;
    default:
        sys_write_cr8(cpu, v);
        break;
    }
}

void op_mov_from_dr(struct cpu *cpu, const struct insn *i)
{
    reg_set(cpu, i->r0, debug_read_dr(cpu, i->cc), sys_reg_size(cpu));
}

void op_mov_to_dr(struct cpu *cpu, const struct insn *i)
{
    debug_write_dr(cpu, i->cc, reg_get(cpu, i->r0, sys_reg_size(cpu)));
}

static void op_lmsw(struct cpu *cpu, const struct insn *i)
{
    op_need_cpl0(cpu);
    uint64_t v = op_src16(cpu, i, i->r0) & 15;
    v |= cpu->cr0 & CR0_PE; /* may be set, never cleared */
    cpu_write_cr0(cpu, (cpu->cr0 & ~15ULL) | v);
}

static void op_smsw(struct cpu *cpu, const struct insn *i)
{
    op_check_umip(cpu);
    op_store_word(cpu, i, cpu->cr0);
}

static void op_clts(struct cpu *cpu, const struct insn *i)
{
    op_need_cpl0(cpu);
    cpu->cr0 &= ~(uint64_t)CR0_TS;
    cpu_update_mode(cpu);
}

/* -- TLB and caches -- */

static void op_invlpg(struct cpu *cpu, const struct insn *i)
{
    op_need_cpl0(cpu);
    uint64_t lin = cpu->lin_base[i->seg] + insn_ea(cpu, i);
    if (i->flags & INSN_LEGACY)
        lin = (uint32_t)lin;
    if (cpu_canonical(cpu, lin))
        mmu_flush_page(cpu, lin);
}

static void op_invpcid(struct cpu *cpu, const struct insn *i)
{
    op_need_feature(cpu, CPU_FEAT(FEAT_7_EBX, 10));
    op_need_cpl0(cpu);
    uint64_t type = reg_get(cpu, i->r0, sys_reg_size(cpu));
    uint64_t lin = insn_lin(cpu, i, 16, ACC_READ);
    uint64_t pcid = mem_ld64(cpu, i->seg, lin);
    uint64_t addr = mem_ld64(cpu, i->seg, i->flags & INSN_LEGACY ? (uint32_t)(lin + 8) : lin + 8);
    bool one_pcid = type < 2;
    if (type > 3 || pcid >> 12 || (one_pcid && pcid && !(cpu->cr4 & CR4_PCIDE)) ||
        (type == 0 && !cpu_canonical(cpu, addr)))
        CPU_GP0(cpu);
    if (type == 0)
        mmu_flush_page_pcid(cpu, (unsigned)pcid, addr);
    else if (type == 1)
        mmu_flush_pcid(cpu, (unsigned)pcid);
    else if (type == 2)
        mmu_flush_all(cpu);
    else
        mmu_flush_nonglobal(cpu);
}

static void op_wbinvd(struct cpu *cpu, const struct insn *i) { op_need_cpl0(cpu); }

static void sys_touch_line(struct cpu *cpu, const struct insn *i)
{
    mem_probe(cpu, i->seg, insn_lin(cpu, i, 1, ACC_READ), 1, ACC_READ);
}
static void op_clflush(struct cpu *cpu, const struct insn *i)
{
    op_need_feature(cpu, CPU_FEAT(FEAT_1_EDX, 19));
    sys_touch_line(cpu, i);
}
static void op_clflushopt(struct cpu *cpu, const struct insn *i)
{
    op_need_feature(cpu, CPU_FEAT(FEAT_7_EBX, 23));
    sys_touch_line(cpu, i);
}
static void op_clwb(struct cpu *cpu, const struct insn *i)
{
    op_need_feature(cpu, CPU_FEAT(FEAT_7_EBX, 24));
    sys_touch_line(cpu, i);
}

/* Guest memory is host memory, and the host orders it: only the host's fences are needed. */
static void op_mfence(struct cpu *cpu, const struct insn *i) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
static void op_sfence(struct cpu *cpu, const struct insn *i) { __asm__ volatile("sfence" ::: "memory"); }
static void op_lfence(struct cpu *cpu, const struct insn *i) { __asm__ volatile("lfence" ::: "memory"); }
/* Somebody waits for another vCPU, whose thread the host may have stopped in the middle of what is waited for, for as long as it lets this one
 * wait. So whoever has waited for a few microseconds lets others go first, as CPUs' PAUSE-loop exits do (SDM vol. 3, 25.1.3). */
static void op_pause(struct cpu *cpu, const struct insn *i)
{
    struct interp *it = cpu->engine;
    uint64_t now = __builtin_ia32_rdtsc();
    __builtin_ia32_pause();
    if (now - it->paused > PAUSE_GAP)
        it->pauses = 0;
    it->paused = now;
    if (++it->pauses < PAUSE_LOOP || it->vcpu->engine->nvcpus == 1)
        return;
    it->pauses = 0;
    it->vcpu->stats.yields++;
    sched_yield();
}
static void op_hint(struct cpu *cpu, const struct insn *i) {}
static void op_serialize(struct cpu *cpu, const struct insn *i)
{
    op_need_feature(cpu, CPU_FEAT(FEAT_7_EDX, 14));
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

/* -- identification, MSRs, counters -- */

static void sys_identified(struct cpu *cpu)
{
    if (cpu->cpl == 3 && cpu->ops->identified)
        cpu->ops->identified(cpu);
}

static void op_cpuid(struct cpu *cpu, const struct insn *i)
{
    uint32_t out[4];
    sys_identified(cpu);
    cpuid_query(cpu, (uint32_t)cpu->r[RAX], (uint32_t)cpu->r[RCX], out);
    cpu->r[RAX] = out[0];
    cpu->r[RBX] = out[1];
    cpu->r[RCX] = out[2];
    cpu->r[RDX] = out[3];
}

static void op_rdmsr(struct cpu *cpu, const struct insn *i)
{
    uint64_t v;
    op_need_cpl0(cpu);
    if (!msr_read(cpu, (uint32_t)cpu->r[RCX], &v))
        CPU_GP0(cpu);
    sys_edx_eax(cpu, v);
}

static void op_wrmsr(struct cpu *cpu, const struct insn *i)
{
    op_need_cpl0(cpu);
    if (!msr_write(cpu, (uint32_t)cpu->r[RCX], sys_get_edx_eax(cpu)))
        CPU_GP0(cpu);
}

static void sys_check_tsd(struct cpu *cpu)
{
    if ((cpu->cr4 & CR4_TSD) && cpu->cpl != 0)
        CPU_GP0(cpu);
}

static void op_rdtsc(struct cpu *cpu, const struct insn *i)
{
    sys_check_tsd(cpu);
    sys_edx_eax(cpu, cpu_tsc(cpu));
}

static void op_rdtscp(struct cpu *cpu, const struct insn *i)
{
    op_need_feature(cpu, CPU_FEAT(FEAT_8_1_EDX, 27));
    sys_check_tsd(cpu);
    sys_edx_eax(cpu, cpu_tsc(cpu));
    cpu->r[RCX] = (uint32_t)cpu->tsc_aux;
}

/* AMD CPUs have four counters, always; ours never count. */
static void op_rdpmc(struct cpu *cpu, const struct insn *i)
{
    if (!(cpu->cr4 & CR4_PCE))
        op_need_cpl0(cpu);
    if (cpu->cpuid->vendor != VENDOR_AMD || (uint32_t)cpu->r[RCX] > 3)
        CPU_GP0(cpu);
    sys_edx_eax(cpu, 0);
}

static void op_rdpid(struct cpu *cpu, const struct insn *i)
{
    op_need_feature(cpu, CPU_FEAT(FEAT_7_ECX, 22));
    reg_set(cpu, i->r0, (uint32_t)cpu->tsc_aux, sys_reg_size(cpu));
}

static void op_xgetbv(struct cpu *cpu, const struct insn *i)
{
    uint32_t n = (uint32_t)cpu->r[RCX];
    if (!(cpu->cr4 & CR4_OSXSAVE))
        CPU_UD(cpu);
    /* 1 asks what is in use; everything enabled counts as in use. */
    if (n != 0 && !(n == 1 && cpu_has(cpu, CPU_FEAT(FEAT_D1_EAX, 2))))
        CPU_GP0(cpu);
    sys_identified(cpu);
    sys_edx_eax(cpu, cpu->xcr0);
}

static void op_xsetbv(struct cpu *cpu, const struct insn *i)
{
    if (!(cpu->cr4 & CR4_OSXSAVE))
        CPU_UD(cpu);
    op_need_cpl0(cpu);
    if ((uint32_t)cpu->r[RCX] != 0)
        CPU_GP0(cpu);
    cpu_write_xcr0(cpu, sys_get_edx_eax(cpu));
}

static void sys_random(struct cpu *cpu, const struct insn *i)
{
    struct rand_source src;
    uint64_t v = 0;
    rand_init_host(&src);
    bool ok = rand_u64(&src, &v) == 0;
    reg_set(cpu, i->r0, ok ? v : 0, i->osz);
    cpu->aflags = aflags_from_rflags(ok ? FL_CF : 0);
}

static void op_rdrand(struct cpu *cpu, const struct insn *i)
{
    op_need_feature(cpu, CPU_FEAT(FEAT_1_ECX, 30));
    sys_random(cpu, i);
}

static void op_rdseed(struct cpu *cpu, const struct insn *i)
{
    op_need_feature(cpu, CPU_FEAT(FEAT_7_EBX, 18));
    sys_random(cpu, i);
}

static void op_vmcall(struct cpu *cpu, const struct insn *i) { kvmpv_hypercall(cpu); }

/* -- waiting -- */

static void op_hlt(struct cpu *cpu, const struct insn *i)
{
    op_need_cpl0(cpu);
    cpu->activity = CPU_HALTED;
}

static void sys_monitor(struct cpu *cpu, const struct insn *i)
{
    if ((uint32_t)cpu->r[RCX])
        CPU_GP0(cpu);
    uint64_t ea = cpu->r[RAX] & i->addr_mask;
    uint64_t lin =
        i->flags & INSN_LEGACY ? seg_lin(cpu, i->seg, ea, 1, ACC_READ) : cpu->lin_base[i->seg] + ea;
    mem_probe(cpu, i->seg, lin, 1, ACC_READ);
}

/* A store cannot be waited for, so the wait ends at once, which is always allowed. */
static void sys_mwait(struct cpu *cpu, const struct insn *i)
{
    if ((uint32_t)cpu->r[RCX] & ~3u)
        CPU_GP0(cpu);
    __builtin_ia32_pause();
}

static void sys_need_monitor(struct cpu *cpu)
{
    op_need_feature(cpu, CPU_FEAT(FEAT_1_ECX, 3));
    if (cpu->cpl != 0)
        CPU_UD(cpu);
}
static void op_monitor(struct cpu *cpu, const struct insn *i)
{
    sys_need_monitor(cpu);
    sys_monitor(cpu, i);
}
static void op_mwait(struct cpu *cpu, const struct insn *i)
{
    sys_need_monitor(cpu);
    sys_mwait(cpu, i);
}
static void op_monitorx(struct cpu *cpu, const struct insn *i)
{
    op_need_feature(cpu, CPU_FEAT(FEAT_8_1_ECX, 29));
    sys_monitor(cpu, i);
}
static void op_mwaitx(struct cpu *cpu, const struct insn *i)
{
    op_need_feature(cpu, CPU_FEAT(FEAT_8_1_ECX, 29));
    sys_mwait(cpu, i);
}

#define OP(name, flags, fn)                                                                                  \
    {                                                                                                        \
        ZYDIS_MNEMONIC_##name, flags, fn, NULL                                                               \
    }

const struct op_entry ops_sys[] = {
    OP(LMSW, INSN_END, op_lmsw),
    OP(SMSW, 0, op_smsw),
    OP(CLTS, INSN_END, op_clts),
    OP(LGDT, INSN_END, op_lgdt),
    OP(LIDT, INSN_END, op_lidt),
    OP(SGDT, 0, op_sgdt),
    OP(SIDT, 0, op_sidt),
    OP(LLDT, INSN_END, op_lldt),
    OP(SLDT, 0, op_sldt),
    OP(LTR, INSN_END, op_ltr),
    OP(STR, 0, op_str),
    OP(LAR, 0, op_lar),
    OP(LSL, 0, op_lsl),
    OP(VERR, 0, op_verr),
    OP(VERW, 0, op_verw),
    OP(ARPL, 0, op_arpl),
    OP(INVLPG, INSN_END, op_invlpg),
    OP(INVPCID, INSN_END, op_invpcid),
    OP(INVD, INSN_END, op_wbinvd),
    OP(WBINVD, INSN_END, op_wbinvd),
    OP(CPUID, INSN_END, op_cpuid), /* serialises: what a device has written meanwhile is code from the next instruction on */
    OP(RDMSR, INSN_END, op_rdmsr),
    OP(WRMSR, INSN_END, op_wrmsr),
    OP(RDTSC, 0, op_rdtsc),
    OP(RDTSCP, 0, op_rdtscp),
    OP(RDPMC, 0, op_rdpmc),
    OP(RDPID, 0, op_rdpid),
    OP(XGETBV, 0, op_xgetbv),
    OP(XSETBV, INSN_END, op_xsetbv),
    OP(HLT, INSN_END, op_hlt),
    OP(MONITOR, 0, op_monitor),
    OP(MWAIT, INSN_END, op_mwait),
    OP(MONITORX, 0, op_monitorx),
    OP(MWAITX, INSN_END, op_mwaitx),
    OP(CLI, INSN_END, op_cli),
    OP(STI, INSN_END, op_sti),
    OP(CLAC, INSN_END, op_clac),
    OP(STAC, INSN_END, op_stac),
    OP(PUSHF, 0, op_pushf),
    OP(PUSHFD, 0, op_pushf),
    OP(PUSHFQ, 0, op_pushf),
    OP(POPF, INSN_END, op_popf),
    OP(POPFD, INSN_END, op_popf),
    OP(POPFQ, INSN_END, op_popf),
    OP(SWAPGS, 0, op_swapgs),
    OP(RDFSBASE, 0, op_rdfsbase),
    OP(RDGSBASE, 0, op_rdgsbase),
    OP(WRFSBASE, 0, op_wrfsbase),
    OP(WRGSBASE, 0, op_wrgsbase),
    OP(LDS, INSN_END, op_lds),
    OP(LES, INSN_END, op_les),
    OP(LFS, INSN_END, op_lfs),
    OP(LGS, INSN_END, op_lgs),
    OP(LSS, INSN_END, op_lss),
    OP(CLFLUSH, 0, op_clflush),
    OP(CLFLUSHOPT, 0, op_clflushopt),
    OP(CLWB, 0, op_clwb),
    OP(MFENCE, 0, op_mfence),
    OP(SFENCE, 0, op_sfence),
    OP(LFENCE, 0, op_lfence),
    OP(PAUSE, INSN_END, op_pause),
    OP(SERIALIZE, INSN_END, op_serialize),
    OP(PREFETCH, 0, op_hint),
    OP(PREFETCHNTA, 0, op_hint),
    OP(PREFETCHT0, 0, op_hint),
    OP(PREFETCHT1, 0, op_hint),
    OP(PREFETCHT2, 0, op_hint),
    OP(PREFETCHW, 0, op_hint),
    OP(PREFETCHWT1, 0, op_hint),
    OP(RDRAND, 0, op_rdrand),
    OP(RDSEED, 0, op_rdseed),
    OP(RSM, INSN_END, op_ud),
    OP(UD0, INSN_END, op_ud),
    OP(UD1, INSN_END, op_ud),
    OP(UD2, INSN_END, op_ud),
    OP(VMCALL, INSN_END, op_vmcall),
    OP(VMMCALL, INSN_END, op_vmcall),
    OP(VMRUN, INSN_END, op_ud),
    OP(VMLOAD, INSN_END, op_ud),
    OP(VMSAVE, INSN_END, op_ud),
    OP(VMXON, INSN_END, op_ud),
    OP(VMXOFF, INSN_END, op_ud),
    OP(VMLAUNCH, INSN_END, op_ud),
    OP(VMRESUME, INSN_END, op_ud),
    OP(VMPTRLD, INSN_END, op_ud),
    OP(VMPTRST, INSN_END, op_ud),
    OP(VMREAD, INSN_END, op_ud),
    OP(VMWRITE, INSN_END, op_ud),
    OP(VMCLEAR, INSN_END, op_ud),
    OP(VMFUNC, INSN_END, op_ud),
    OP(INVEPT, INSN_END, op_ud),
    OP(INVVPID, INSN_END, op_ud),
    OP(INVLPGA, INSN_END, op_ud),
    OP(STGI, INSN_END, op_ud),
    OP(CLGI, INSN_END, op_ud),
    OP(SKINIT, INSN_END, op_ud),
    OP(GETSEC, INSN_END, op_ud),
    { ZYDIS_MNEMONIC_INVALID, 0, NULL, NULL },
};
