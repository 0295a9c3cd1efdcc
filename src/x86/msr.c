/* Model-specific registers, read and written.
 *
 * Sources: Intel SDM vol. 4, tables 2-2 (architectural), 2-3; vol. 3, 11.11 (MTRRs), 11.12 (PAT), 15.3
 * (machine check), 17.17 (TSC); AMD APM vol. 2 appendix A and the family 17h-19h PPRs for what Linux touches
 * on AMD. A register that the vendor shown does not have, and every one not listed, raises #GP(0).
 *
 * Thread: the vCPU's own; the device lock is taken for the local APIC.
 */
#include "x86/msr.h"

#include "base/loop.h"
#include "ram/ram.h"
#include "x86/cpuid.h"
#include "x86/lapic.h"
#include "x86/mmu.h"

#define MSR_PLATFORM_ID  0x17u
#define MSR_SPEC_CTRL    0x48u
#define MSR_PRED_CMD     0x49u
#define SPEC_CTRL_BITS   (1u << 0 | 1u << 1 | 1u << 10) /* IBRS, STIBP, BHI_DIS_S; what they switch off is not there */
#define MSR_ARCH_CAP     0x10au
#define MSR_MCG_CTL      0x17bu
#define MSR_MTRR_PHYS0   0x200u
#define MSR_MTRR_FIX64K  0x250u
#define MSR_MTRR_FIX16K  0x258u
#define MSR_MTRR_FIX4K   0x268u
#define MSR_MC0_CTL      0x400u
#define MSR_AMD_SYSCFG   0xc0010010u
#define MSR_AMD_HWCR     0xc0010015u
#define MSR_AMD_TOP_MEM  0xc001001au
#define MSR_AMD_TOP_MEM2 0xc001001du
#define MSR_AMD_NB_CFG   0xc001001fu
#define MSR_AMD_VM_CR    0xc0010114u
#define MSR_AMD_DE_CFG   0xc0011029u

#define MCE_BANKS         10u
#define MTRR_VARIABLE     8u
#define MTRR_CAP          (MTRR_VARIABLE | 1u << 8 | 1u << 10) /* fixed ranges, write-combining */
#define HWCR_TSC_FREQ_SEL (1u << 24)

/* RDCL_NO, IBRS_ALL, SKIP_L1DFL, SSB_NO, MDS_NO, PSCHANGE_MC_NO, TAA_NO; SBDR_SSDP_NO, FBSDP_NO, PSDP_NO;
 * BHI_NO; PBRSB_NO; GDS_NO, RFDS_NO; ITS_NO. See the head of cpuid.c. */
#define ARCH_CAP_VALUE                                                                                       \
    (1ULL << 0 | 1ULL << 1 | 1ULL << 3 | 1ULL << 4 | 1ULL << 5 | 1ULL << 6 | 1ULL << 8 | 7ULL << 13 |        \
     1ULL << 20 | 1ULL << 24 | 3ULL << 26 | 1ULL << 62)

static bool msr_amd(const struct cpu *cpu) { return cpu->cpuid->vendor == VENDOR_AMD; }

/* Addresses in MSRs must be canonical for the widest linear addresses that the CPU has, whatever CR4.LA57
 * says now. */
static bool msr_set_address(const struct cpu *cpu, uint64_t *reg, uint64_t v)
{
    unsigned unused = 64 - cpu->cpuid->lin_bits;
    if ((uint64_t)((int64_t)(v << unused) >> unused) != v)
        return false;
    *reg = v;
    return true;
}

static bool msr_set_masked(uint64_t *reg, uint64_t v, uint64_t allowed)
{
    if (v & ~allowed)
        return false;
    *reg = v;
    return true;
}

static bool msr_set_base(struct cpu *cpu, unsigned seg, uint64_t v)
{
    if (!msr_set_address(cpu, &cpu->seg[seg].base, v))
        return false;
    cpu->lin_base[seg] = v;
    return true;
}

/* --- memory types --- */

static bool msr_memory_type(uint64_t t, bool pat) { return t < 2 || (t >= 4 && t <= 6) || (pat && t == 7); }

static bool msr_set_types(uint64_t *reg, uint64_t v, bool pat)
{
    for (unsigned n = 0; n < 64; n += 8)
        if (!msr_memory_type(v >> n & 0xff, pat))
            return false;
    *reg = v;
    return true;
}

/* Index into mtrr_fixed, or -1. */
static int msr_fixed_index(uint32_t index)
{
    if (index == MSR_MTRR_FIX64K)
        return 0;
    if (index == MSR_MTRR_FIX16K || index == MSR_MTRR_FIX16K + 1)
        return (int)(1 + index - MSR_MTRR_FIX16K);
    if (index >= MSR_MTRR_FIX4K && index < MSR_MTRR_FIX4K + 8)
        return (int)(3 + index - MSR_MTRR_FIX4K);
    return -1;
}

static bool msr_is_mtrr(uint32_t index)
{
    return (index >= MSR_MTRR_PHYS0 && index < MSR_MTRR_PHYS0 + 2 * MTRR_VARIABLE) ||
           msr_fixed_index(index) >= 0 || index == MSR_MTRR_DEF_TYPE;
}

static uint64_t msr_mtrr_read(struct cpu *cpu, uint32_t index)
{
    if (index == MSR_MTRR_DEF_TYPE)
        return cpu->mtrr_def_type;
    if (msr_fixed_index(index) >= 0)
        return cpu->mtrr_fixed[msr_fixed_index(index)];
    unsigned n = (index - MSR_MTRR_PHYS0) / 2;
    return index & 1 ? cpu->mtrr_mask[n] : cpu->mtrr_base[n];
}

static bool msr_mtrr_write(struct cpu *cpu, uint32_t index, uint64_t v)
{
    uint64_t address = ((1ULL << cpu->phys_bits) - 1) & ~0xfffULL;
    if (index == MSR_MTRR_DEF_TYPE)
        return msr_memory_type(v & 0xff, false) && msr_set_masked(&cpu->mtrr_def_type, v, 0xcff);
    if (msr_fixed_index(index) >= 0) {
        /* AMD: RdMem and WrMem (bits 4:3) are visible only with SYSCFG.MtrrFixDramModEn, which is not here.
         */
        return msr_set_types(&cpu->mtrr_fixed[msr_fixed_index(index)], v, false);
    }
    unsigned n = (index - MSR_MTRR_PHYS0) / 2;
    if (index & 1)
        return msr_set_masked(&cpu->mtrr_mask[n], v, address | 1 << 11);
    return msr_memory_type(v & 0xff, false) && msr_set_masked(&cpu->mtrr_base[n], v, address | 0xff);
}

/* --- machine check: banks that never report anything --- */

static bool msr_is_bank(uint32_t index)
{
    return index >= MSR_MC0_CTL && index < MSR_MC0_CTL + 4 * MCE_BANKS;
}

static bool msr_bank_write(struct cpu *cpu, uint32_t index, uint64_t v)
{
    unsigned n = (index - MSR_MC0_CTL) / 4, reg = index & 3;
    /* STATUS, ADDR and MISC take only zero (15.3.2); AMD lets software write them with HWCR.McStatusWrEn. */
    bool injected = msr_amd(cpu) && (cpu->hwcr & 1 << 18);
    if (reg != 0 && v != 0 && !injected)
        return false;
    cpu->mc_bank[n][reg] = v;
    return true;
}

/* --- time --- */

/* A write to the TSC moves IA32_TSC_ADJUST by as much, and the other way round (17.17.3). */
static void msr_move_tsc(struct cpu *cpu, uint64_t by)
{
    loop_lock(cpu->loop);
    cpu->tsc_offset += by;
    cpu->tsc_adjust += by;
    lapic_tsc_moved(cpu->lapic);
    kvmclock_tsc_moved(cpu);
    loop_unlock(cpu->loop);
}

/* --- local APIC --- */

static bool msr_apic_read(struct cpu *cpu, uint32_t index, uint64_t *v)
{
    bool ok = true;
    loop_lock(cpu->loop);
    if (index == MSR_TSC_DEADLINE)
        *v = lapic_deadline_read(cpu->lapic);
    else
        ok = lapic_x2_read(cpu->lapic, index, v);
    loop_unlock(cpu->loop);
    return ok;
}

static bool msr_apic_write(struct cpu *cpu, uint32_t index, uint64_t v)
{
    bool ok = true;
    loop_lock(cpu->loop);
    if (index == MSR_TSC_DEADLINE)
        lapic_deadline_write(cpu->lapic, v);
    else if (index == MSR_APIC_BASE)
        ok = lapic_base_write(cpu->lapic, v);
    else
        ok = lapic_x2_write(cpu->lapic, index, v);
    loop_unlock(cpu->loop);
    return ok;
}

static bool msr_is_apic(const struct cpu *cpu, uint32_t index)
{
    if (index == MSR_TSC_DEADLINE)
        return cpu_has(cpu, CPU_FEAT(FEAT_1_ECX, 24));
    return index >= MSR_X2APIC_BASE && index <= MSR_X2APIC_BASE + 0xff;
}

/* --- AMD --- */

/* End of RAM below (above) 4 GiB. */
static uint64_t msr_top_of_memory(struct cpu *cpu, bool above)
{
    uint64_t top = 0;
    for (unsigned n = 0; n < cpu->ram->nslots; n++) {
        const struct ram_slot *s = &cpu->ram->slot[n];
        if (!s->readonly && !s->device && (s->gpa >= 1ULL << 32) == above)
            top = s->gpa + s->size;
    }
    return top;
}

static bool msr_amd_read(struct cpu *cpu, uint32_t index, uint64_t *v)
{
    switch (index) {
    case MSR_AMD_SYSCFG:
        *v = cpu->syscfg;
        return true;
    case MSR_AMD_HWCR:
        *v = cpu->hwcr;
        return true;
    case MSR_AMD_TOP_MEM:
        *v = msr_top_of_memory(cpu, false);
        return true;
    case MSR_AMD_TOP_MEM2:
        *v = msr_top_of_memory(cpu, true);
        return true;
    case MSR_AMD_NB_CFG:
        *v = cpu->nb_cfg;
        return true;
    case MSR_AMD_VM_CR:
        *v = 0x18;
        return true; /* SVM is off and locked */
    case MSR_AMD_DE_CFG:
        *v = 1 << 1;
        return true; /* LFENCE serialises */
    default:
        return false;
    }
}

static bool msr_amd_write(struct cpu *cpu, uint32_t index, uint64_t v)
{
    switch (index) {
    case MSR_AMD_SYSCFG:
        return msr_set_masked(&cpu->syscfg, v, 0x7c0000);
    case MSR_AMD_HWCR:
        cpu->hwcr = (v & (1 << 18)) | HWCR_TSC_FREQ_SEL; /* McStatusWrEn; the rest is what a BIOS tunes */
        return true;
    case MSR_AMD_NB_CFG:
        cpu->nb_cfg = v;
        return true;
    case MSR_AMD_DE_CFG:
        return true;
    default:
        return false;
    }
}

/* --- Intel --- */

static bool msr_intel_read(struct cpu *cpu, uint32_t index, uint64_t *v)
{
    switch (index) {
    case MSR_PLATFORM_ID:
        *v = 0;
        return true;
    case MSR_MISC_ENABLE:
        *v = cpu->misc_enable;
        return true;
    case MSR_SPEC_CTRL:
        *v = cpu->spec_ctrl;
        return cpu_has(cpu, CPU_FEAT(FEAT_7_EDX, 26));
    case MSR_ARCH_CAP:
        *v = ARCH_CAP_VALUE;
        return cpu_has(cpu, CPU_FEAT(FEAT_7_EDX, 29));
    default:
        return false;
    }
}

static bool msr_intel_write(struct cpu *cpu, uint32_t index, uint64_t v)
{
    switch (index) {
    case MSR_MISC_ENABLE:
        return msr_set_masked(&cpu->misc_enable, v, 1); /* fast strings */
    case MSR_SPEC_CTRL:
        return cpu_has(cpu, CPU_FEAT(FEAT_7_EDX, 26)) && msr_set_masked(&cpu->spec_ctrl, v, SPEC_CTRL_BITS);
    case MSR_PRED_CMD:
        return cpu_has(cpu, CPU_FEAT(FEAT_7_EDX, 26)) && !(v & ~1ULL); /* IBPB: nothing to flush */
    default:
        return false;
    }
}

/* --- the rest, in numerical order --- */

static bool msr_read_syscall(struct cpu *cpu, uint32_t index, uint64_t *v)
{
    switch (index) {
    case MSR_EFER:
        *v = cpu->efer;
        return true;
    case MSR_STAR:
        *v = cpu->star;
        return true;
    case MSR_LSTAR:
        *v = cpu->lstar;
        return true;
    case MSR_CSTAR:
        *v = cpu->cstar;
        return true;
    case MSR_SFMASK:
        *v = cpu->sfmask;
        return true;
    case MSR_FS_BASE:
        *v = cpu->seg[SEG_FS].base;
        return true;
    case MSR_GS_BASE:
        *v = cpu->seg[SEG_GS].base;
        return true;
    case MSR_KERNEL_GS_BASE:
        *v = cpu->kernel_gs_base;
        return true;
    case MSR_TSC_AUX:
        *v = cpu->tsc_aux;
        return cpu_has(cpu, CPU_FEAT(FEAT_8_1_EDX, 27));
    case MSR_SYSENTER_CS:
        *v = cpu->sysenter_cs;
        return true;
    case MSR_SYSENTER_ESP:
        *v = cpu->sysenter_esp;
        return true;
    case MSR_SYSENTER_EIP:
        *v = cpu->sysenter_eip;
        return true;
    default:
        return false;
    }
}

static bool msr_write_syscall(struct cpu *cpu, uint32_t index, uint64_t v)
{
    switch (index) {
    case MSR_EFER:
        cpu_write_efer(cpu, v);
        return true;
    case MSR_STAR:
        cpu->star = v;
        return true;
    case MSR_LSTAR:
        return msr_set_address(cpu, &cpu->lstar, v);
    case MSR_CSTAR:
        return msr_set_address(cpu, &cpu->cstar, v);
    case MSR_SFMASK:
        return msr_set_masked(&cpu->sfmask, v, 0xffffffff);
    case MSR_FS_BASE:
        return msr_set_base(cpu, SEG_FS, v);
    case MSR_GS_BASE:
        return msr_set_base(cpu, SEG_GS, v);
    case MSR_KERNEL_GS_BASE:
        return msr_set_address(cpu, &cpu->kernel_gs_base, v);
    case MSR_TSC_AUX:
        return cpu_has(cpu, CPU_FEAT(FEAT_8_1_EDX, 27)) && msr_set_masked(&cpu->tsc_aux, v, 0xffffffff);
    case MSR_SYSENTER_CS:
        cpu->sysenter_cs = v & 0xffffffff;
        return true;
    case MSR_SYSENTER_ESP:
        return msr_set_address(cpu, &cpu->sysenter_esp, v);
    case MSR_SYSENTER_EIP:
        return msr_set_address(cpu, &cpu->sysenter_eip, v);
    default:
        return false;
    }
}

bool msr_read(struct cpu *cpu, uint32_t index, uint64_t *v)
{
    if (msr_is_apic(cpu, index))
        return msr_apic_read(cpu, index, v);
    if (msr_is_mtrr(index)) {
        *v = msr_mtrr_read(cpu, index);
        return true;
    }
    if (msr_is_bank(index)) {
        *v = cpu->mc_bank[(index - MSR_MC0_CTL) / 4][index & 3];
        return true;
    }
    switch (index) {
    case 0:
    case 1:
        *v = 0;
        return true; /* P5_MC_ADDR, P5_MC_TYPE */
    case MSR_TSC:
        *v = cpu_tsc(cpu);
        return true;
    case MSR_APIC_BASE:
        *v = cpu->apic_base;
        return true;
    case MSR_TSC_ADJUST:
        *v = cpu->tsc_adjust;
        return cpu_has(cpu, CPU_FEAT(FEAT_7_EBX, 1));
    case MSR_BIOS_SIGN_ID:
        *v = msr_amd(cpu) ? 0x01000065 : 1ULL << 32;
        return true; /* microcode revision */
    case MSR_MTRRCAP:
        *v = MTRR_CAP;
        return true;
    case MSR_MCG_CAP:
        *v = MCE_BANKS | 1 << 8;
        return true; /* MCG_CTL is there */
    case MSR_MCG_STATUS:
        *v = cpu->mcg_status;
        return true;
    case MSR_MCG_CTL:
        *v = cpu->mcg_ctl;
        return true;
    case MSR_DEBUGCTL:
        *v = cpu->debugctl;
        return true;
    case MSR_PAT:
        *v = cpu->pat;
        return true;
    default:
        return msr_read_syscall(cpu, index, v) || kvmpv_msr_read(cpu, index, v) ||
               (msr_amd(cpu) ? msr_amd_read(cpu, index, v) : msr_intel_read(cpu, index, v));
    }
}

bool msr_write(struct cpu *cpu, uint32_t index, uint64_t v)
{
    if (msr_is_apic(cpu, index) || index == MSR_APIC_BASE)
        return msr_apic_write(cpu, index, v);
    if (msr_is_mtrr(index))
        return msr_mtrr_write(cpu, index, v);
    if (msr_is_bank(index))
        return msr_bank_write(cpu, index, v);
    switch (index) {
    case 0:
    case 1:
        return true;
    case MSR_TSC:
        msr_move_tsc(cpu, v - cpu_tsc(cpu));
        return true;
    case MSR_TSC_ADJUST:
        if (!cpu_has(cpu, CPU_FEAT(FEAT_7_EBX, 1)))
            return false;
        msr_move_tsc(cpu, v - cpu->tsc_adjust);
        return true;
    case MSR_BIOS_SIGN_ID:
        return !msr_amd(cpu); /* Intel: written with 0 before CPUID loads it */
    case MSR_MCG_STATUS:
        return msr_set_masked(&cpu->mcg_status, v, 7);
    case MSR_MCG_CTL:
        cpu->mcg_ctl = v;
        return true;
    case MSR_DEBUGCTL:
        return msr_set_masked(&cpu->debugctl, v, 3); /* LBR, BTF: kept, without effect */
    case MSR_PAT:
        return msr_set_types(&cpu->pat, v, true);
    default:
        return msr_write_syscall(cpu, index, v) || kvmpv_msr_write(cpu, index, v) ||
               (msr_amd(cpu) ? msr_amd_write(cpu, index, v) : msr_intel_write(cpu, index, v));
    }
}
