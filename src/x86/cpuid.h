/* CPUID: what the guest's CPU says it is. What it shows is what works.
 * A table is built once a machine from the model's name and the host; per-vCPU leaves (APIC id, topology,
 * OSXSAVE, OSPKE, XSAVE size) are filled in at the time of asking. */
#ifndef VITRO_X86_CPUID_H
#define VITRO_X86_CPUID_H

#include "x86/cpu.h"

struct err;

struct cpuid_leaf {
    uint32_t leaf, subleaf;
    uint32_t eax, ebx, ecx, edx;
};

enum cpu_vendor { VENDOR_INTEL, VENDOR_AMD };

/* Feature questions the semantics ask (bit = word * 32 + bit). Words: */
enum { FEAT_1_ECX, FEAT_1_EDX, FEAT_7_EBX, FEAT_7_ECX, FEAT_7_EDX, FEAT_7_1_EAX, FEAT_8_1_ECX, FEAT_8_1_EDX, FEAT_D1_EAX, FEAT_WORDS };
#define CPU_FEAT(word, bit) ((word)*32 + (bit))

struct cpuid_table {
    struct cpuid_leaf leaf[64];
    unsigned count;
    unsigned cpus;             /* vCPUs of the machine, one socket */
    enum cpu_vendor vendor;
    uint32_t feat[FEAT_WORDS]; /* what this guest may use */
    uint64_t xcr0_mask;        /* bits that XCR0 may have */
    uint8_t phys_bits, lin_bits;
    char model[128];           /* "host", "x86-64-v3,+aes", ... */
};

/* Build for model "host" or "x86-64-v1".."x86-64-v4", with ",+NAME" and ",-NAME" for single features behind it, with cpus
 * vCPUs. -EINVAL with a sentence: unknown model or feature, or the host lacks what was asked for (names the first
 * missing feature). */
int cpuid_build(struct cpuid_table *t, const char *model, unsigned cpus, uint64_t tsc_khz, struct err *err);

/* The same with a vendor (12 letters) that is not the host's: for tests. */
int cpuid_build_as(struct cpuid_table *t, const char *model, const char *vendor, unsigned cpus, uint64_t tsc_khz,
                   struct err *err);

/* Show fewer physical address bits than the build did: firmware makes page tables for all of them. */
void cpuid_limit_phys_bits(struct cpuid_table *t, uint8_t bits);

/* Where user code may read the host's TSC it could read the host's TSC_AUX as well: do not show RDTSCP and RDPID, but to who asked for them by name
 * (",+rdtscp"). They work all the same, for programs that do not look: then they are made to stop, and are slow. Linux reads the TSC by LFENCE and RDTSC. */
void cpuid_hide_tsc_aux(struct cpuid_table *t);

/* The CPUID instruction. */
void cpuid_query(struct cpu *cpu, uint32_t leaf, uint32_t subleaf, uint32_t out[4]);

/* Offsets in the standard form of the XSAVE area as leaf 0xD shows them, Intel's, the same on every host but for the model "host". The compacted form
 * packs the components without alignment. */
#define XSAVE_AVX_OFF  576u
#define XSAVE_K_OFF    1088u
#define XSAVE_ZMMH_OFF 1152u /* ZMM_Hi256 */
#define XSAVE_HI16_OFF 1664u /* Hi16_ZMM */
/* Bytes of an area with the components of xcr0. */
uint32_t cpuid_xsave_size(const struct cpuid_table *t, uint64_t xcr0, bool compacted);

/* The models (cpuid_models.c): t->model, vendor and cpus are set; fills feat[] and xcr0_mask from the host and the model.
 * Same errors as cpuid_build(). */
int cpuid_model_features(struct cpuid_table *t, struct err *err);

static inline bool cpu_has(const struct cpu *cpu, unsigned feat)
{
    return cpu->cpuid->feat[feat / 32] >> (feat % 32) & 1;
}

#endif
