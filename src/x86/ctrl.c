/* Writes to CR0, CR3, CR4, EFER and XCR0: the checks and what follows from them.
 *
 * Sources: Intel SDM vol. 3, 2.5 (control registers), 2.6 (XCR0), 4.1.2 (paging modes), 4.10.4.1 (what drops
 * TLB entries), 9.8.5 (entering and leaving IA-32e mode); vol. 2, MOV to control registers, XSETBV.
 *
 * Thread: the vCPU's own. Nothing is changed before the last check has passed.
 */
#include "x86/cpuid.h"
#include "x86/mmu.h"

#define EFER_AUTOIBRS 0x200000ULL /* AMD: automatic IBRS, CPUID 8000_0021 EAX bit 8 */

static bool ctrl_pae_legacy(const struct cpu *cpu)
{
    return (cpu->cr0 & CR0_PG) && (cpu->cr4 & CR4_PAE) && !(cpu->efer & EFER_LMA);
}

/* --- CR0 --- */

#define CR0_BITS                                                                                             \
    (CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_NW | CR0_CD | CR0_PG)

static void ctrl_check_paging_on(struct cpu *cpu)
{
    if (!(cpu->efer & EFER_LME))
        return;
    bool tss16 = (cpu->tr.attr & ATTR_P) && !(cpu->tr.attr & 8);
    if (!(cpu->cr4 & CR4_PAE) || (cpu->seg[SEG_CS].attr & ATTR_L) || tss16)
        CPU_GP0(cpu);
}

static void ctrl_check_cr0(struct cpu *cpu, uint64_t v)
{
    if (v >> 32 || ((v & CR0_PG) && !(v & CR0_PE)) || ((v & CR0_NW) && !(v & CR0_CD)))
        CPU_GP0(cpu);
    if ((v & CR0_PG) && !(cpu->cr0 & CR0_PG))
        ctrl_check_paging_on(cpu);
    if (!(v & CR0_PG) && (cpu->cr0 & CR0_PG)) {
        bool code64 = (cpu->efer & EFER_LMA) && (cpu->seg[SEG_CS].attr & ATTR_L);
        if (code64 || (cpu->cr4 & CR4_PCIDE))
            CPU_GP0(cpu);
    }
}

void cpu_write_cr0(struct cpu *cpu, uint64_t v)
{
    ctrl_check_cr0(cpu, v);
    v = (v & CR0_BITS) | CR0_ET;
    uint64_t changed = v ^ cpu->cr0;
    bool pae = (v & CR0_PG) && (cpu->cr4 & CR4_PAE) && !(cpu->efer & EFER_LME);
    if (pae && (changed & (CR0_PG | CR0_CD | CR0_NW)))
        mmu_load_pdptes(cpu, cpu->cr3);
    cpu->cr0 = v;
    if (changed & CR0_PG) {
        bool lma = (v & CR0_PG) && (cpu->efer & EFER_LME);
        cpu->efer = lma ? cpu->efer | EFER_LMA : cpu->efer & ~(uint64_t)EFER_LMA;
    }
    cpu_update_mode(cpu);
    /* Entries carry what WP allowed when they were filled. */
    if (changed & (CR0_PG | CR0_WP | CR0_PE))
        mmu_flush_all(cpu);
}

/* --- CR3 --- */

void cpu_write_cr3(struct cpu *cpu, uint64_t v)
{
    bool keep = false;
    if (cpu->efer & EFER_LMA) {
        if (cpu->cr4 & CR4_PCIDE) {
            keep = v >> 63;
            v &= ~(1ULL << 63);
        }
        if (v >> cpu->phys_bits)
            CPU_GP0(cpu);
    } else {
        v = (uint32_t)v;
    }
    if (ctrl_pae_legacy(cpu))
        mmu_load_pdptes(cpu, v);
    cpu->cr3 = v;
    mmu_switch(cpu, keep);
}

/* --- CR4 --- */

/* The bits that this CPU has, by the features that CPUID shows. */
static uint64_t ctrl_cr4_bits(const struct cpu *cpu)
{
    static const struct {
        uint64_t bits;
        unsigned feat;
    } by_feature[] = {
        { CR4_VME | CR4_PVI, CPU_FEAT(FEAT_1_EDX, 1) }, { CR4_DE, CPU_FEAT(FEAT_1_EDX, 2) },
        { CR4_PSE, CPU_FEAT(FEAT_1_EDX, 3) },           { CR4_TSD, CPU_FEAT(FEAT_1_EDX, 4) },
        { CR4_PAE, CPU_FEAT(FEAT_1_EDX, 6) },           { CR4_MCE, CPU_FEAT(FEAT_1_EDX, 7) },
        { CR4_PGE, CPU_FEAT(FEAT_1_EDX, 13) },          { CR4_OSFXSR, CPU_FEAT(FEAT_1_EDX, 24) },
        { CR4_OSXMMEXCPT, CPU_FEAT(FEAT_1_EDX, 25) },   { CR4_PCIDE, CPU_FEAT(FEAT_1_ECX, 17) },
        { CR4_OSXSAVE, CPU_FEAT(FEAT_1_ECX, 26) },      { CR4_FSGSBASE, CPU_FEAT(FEAT_7_EBX, 0) },
        { CR4_SMEP, CPU_FEAT(FEAT_7_EBX, 7) },          { CR4_SMAP, CPU_FEAT(FEAT_7_EBX, 20) },
        { CR4_UMIP, CPU_FEAT(FEAT_7_ECX, 2) },          { CR4_LA57, CPU_FEAT(FEAT_7_ECX, 16) },
    };
    uint64_t all = CR4_PCE;
    for (unsigned n = 0; n < ARRAY_LEN(by_feature); n++)
        if (cpu_has(cpu, by_feature[n].feat))
            all |= by_feature[n].bits;
    return all;
}

static void ctrl_check_cr4(struct cpu *cpu, uint64_t v)
{
    uint64_t changed = v ^ cpu->cr4;
    bool lma = cpu->efer & EFER_LMA;
    if (v & ~ctrl_cr4_bits(cpu))
        CPU_GP0(cpu);
    if (lma && (!(v & CR4_PAE) || (changed & CR4_LA57)))
        CPU_GP0(cpu);
    if ((v & changed & CR4_PCIDE) && (!lma || (cpu->cr3 & 0xfff)))
        CPU_GP0(cpu);
}

void cpu_write_cr4(struct cpu *cpu, uint64_t v)
{
    ctrl_check_cr4(cpu, v);
    uint64_t old = cpu->cr4, changed = v ^ old;
    bool pae = (cpu->cr0 & CR0_PG) && (v & CR4_PAE) && !(cpu->efer & EFER_LMA);
    if (pae && (changed & (CR4_PAE | CR4_PSE | CR4_PGE | CR4_SMEP)))
        mmu_load_pdptes(cpu, cpu->cr3);
    cpu->cr4 = v;
    cpu_update_mode(cpu);
    if (changed & (CR4_PGE | CR4_PSE | CR4_PAE | CR4_PCIDE | CR4_SMEP | CR4_SMAP | CR4_LA57))
        mmu_flush_all(cpu);
}

/* --- EFER --- */

void cpu_write_efer(struct cpu *cpu, uint64_t v)
{
    uint64_t allowed = EFER_LMA; /* writes to LMA are ignored */
    if (cpu_has(cpu, CPU_FEAT(FEAT_8_1_EDX, 11)))
        allowed |= EFER_SCE;
    if (cpu_has(cpu, CPU_FEAT(FEAT_8_1_EDX, 29)))
        allowed |= EFER_LME;
    if (cpu_has(cpu, CPU_FEAT(FEAT_8_1_EDX, 20)))
        allowed |= EFER_NXE;
    if (cpu_has(cpu, CPU_FEAT(FEAT_8_1_EDX, 25)))
        allowed |= EFER_FFXSR;
    if (cpu->cpuid->vendor == VENDOR_AMD)
        allowed |= EFER_AUTOIBRS;
    if ((v & ~allowed) || (((v ^ cpu->efer) & EFER_LME) && (cpu->cr0 & CR0_PG)))
        CPU_GP0(cpu);
    uint64_t changed = v ^ cpu->efer;
    cpu->efer = (v & ~(uint64_t)EFER_LMA) | (cpu->efer & EFER_LMA);
    cpu_update_mode(cpu);
    if (changed & EFER_NXE)
        mmu_flush_all(cpu);
}

/* --- XCR0 --- */

void cpu_write_xcr0(struct cpu *cpu, uint64_t v)
{
    uint64_t avx512 = v & XCR0_AVX512;
    if (!(v & XCR0_X87) || (v & ~cpu->cpuid->xcr0_mask) || ((v & XCR0_AVX) && !(v & XCR0_SSE)) ||
        (avx512 && (avx512 != XCR0_AVX512 || !(v & XCR0_AVX))))
        CPU_GP0(cpu);
    cpu->xcr0 = v;
}
