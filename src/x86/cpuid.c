/* CPUID: the table of leaves of a machine's CPUs, and the instruction.
 *
 * Sources: Intel SDM vol. 2, CPUID; AMD APM vol. 3, appendix E; leaves 0x40000000 and 0x40000010 as
 * hypervisors use them by convention. One socket, one thread a core: every vCPU is a core. The caches that
 * are shown are made up, the same everywhere. The bits that declare immunity to speculation attacks are true
 * of an interpreted guest, whose branches and loads are not the host CPU's; an engine that runs guest code
 * natively has to look at them again.
 *
 * Threads: cpuid_build() before the machine runs; cpuid_query() on the vCPU's own.
 */
#include <cpuid.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "x86/cpuid.h"
#include "x86/lapic.h"

#define BASIC_MAX_INTEL 0x1fu
#define BASIC_MAX_AMD   0xdu
#define EXT_MAX_INTEL   0x80000008u
#define EXT_MAX_AMD     0x80000021u
#define HYP_MAX         0x40000010u

#define PHYS_BITS 46

/* --- building --- */

static void cpuid_add(struct cpuid_table *t, uint32_t leaf, uint32_t subleaf, const uint32_t v[4])
{
    if (t->count < ARRAY_LEN(t->leaf))
        t->leaf[t->count++] = (struct cpuid_leaf){ leaf, subleaf, v[0], v[1], v[2], v[3] };
}

#define ADD(t, leaf, sub, a, b, c, d) cpuid_add(t, leaf, sub, (const uint32_t[4]){ a, b, c, d })

/* Bits of an APIC ID that number the cores. */
static unsigned cpuid_core_bits(unsigned cpus)
{
    return cpus > 1 ? 32 - (unsigned)__builtin_clz(cpus - 1) : 0;
}

static void cpuid_host_vendor(char text[13])
{
    uint32_t a, v[3] = { 0 };
    __cpuid(0, a, v[0], v[2], v[1]); /* EBX EDX ECX, in the order of the text */
    memcpy(text, v, 12);
    text[12] = '\0';
}

static bool cpuid_is_host(const struct cpuid_table *t) { return t->model[0] == 'h'; }

/* The 48 bytes of the brand string: the host's for "host". */
static void cpuid_add_brand(struct cpuid_table *t)
{
    union {
        char text[48];
        uint32_t v[12];
    } u = { "vitro virtual CPU" };
    if (!cpuid_is_host(t))
        snprintf(u.text, sizeof(u.text), "vitro %.9s", t->model);
    for (unsigned n = 0; n < 3; n++) {
        if (cpuid_is_host(t))
            __get_cpuid(0x80000002 + n, &u.v[4 * n], &u.v[4 * n + 1], &u.v[4 * n + 2], &u.v[4 * n + 3]);
        cpuid_add(t, 0x80000002 + n, 0, &u.v[4 * n]);
    }
}

/* One cache in the form of leaf 4 and 0x8000001D. type: 1 data, 2 instruction, 3 both. */
static void cpuid_add_cache(struct cpuid_table *t, uint32_t leaf, unsigned sub, unsigned type, unsigned level,
                            unsigned ways, unsigned sets, unsigned sharing)
{
    uint32_t cores = t->vendor == VENDOR_INTEL ? (1u << cpuid_core_bits(t->cpus)) - 1 : 0;
    ADD(t, leaf, sub, type | level << 5 | 1 << 8 | (sharing - 1) << 14 | cores << 26, 63 | (ways - 1) << 22,
        sets - 1, 0);
}

static void cpuid_add_caches(struct cpuid_table *t, uint32_t leaf)
{
    unsigned all = t->vendor == VENDOR_INTEL ? 1u << cpuid_core_bits(t->cpus) : t->cpus;
    cpuid_add_cache(t, leaf, 0, 1, 1, 8, 64, 1);
    cpuid_add_cache(t, leaf, 1, 2, 1, 8, 64, 1);
    cpuid_add_cache(t, leaf, 2, 3, 2, 16, 1024, 1);
    cpuid_add_cache(t, leaf, 3, 3, 3, 16, 16384, all);
}

/* Leaf 0xB and 0x1F: no level of threads worth a bit, then cores. */
static void cpuid_add_topology(struct cpuid_table *t, uint32_t leaf)
{
    ADD(t, leaf, 0, 0, 1, 0 | 1 << 8, 0);
    ADD(t, leaf, 1, cpuid_core_bits(t->cpus), t->cpus, 1 | 2 << 8, 0);
}

uint32_t cpuid_xsave_size(const struct cpuid_table *t, uint64_t xcr0, bool compacted)
{
    uint32_t packed = XSAVE_AVX_OFF, end = XSAVE_AVX_OFF;
    for (unsigned n = 0; n < t->count && n < ARRAY_LEN(t->leaf); n++) {
        const struct cpuid_leaf *l = &t->leaf[n];
        if (l->leaf != 0xd || l->subleaf < 2 || l->subleaf > 63 || !(xcr0 >> l->subleaf & 1))
            continue;
        packed += l->eax;
        end = l->ebx + l->eax > end ? l->ebx + l->eax : end;
    }
    return compacted ? packed : end;
}

/* Where component n is: for "host" where the host's CPU has it, so that user code may run there by itself. */
static void cpuid_add_component(struct cpuid_table *t, unsigned n, uint32_t size, uint32_t off)
{
    uint32_t a = 0, b = 0, c, d;
    if (cpuid_is_host(t) && __get_cpuid_count(0xd, n, &a, &b, &c, &d) && a == size && b >= XSAVE_AVX_OFF && b <= XSAVE_HI16_OFF)
        off = b;
    ADD(t, 0xd, n, size, off, 0, 0);
}

static void cpuid_add_xsave(struct cpuid_table *t)
{
    uint64_t mask = t->xcr0_mask;
    if (!(t->feat[FEAT_1_ECX] >> 26 & 1)) {
        t->xcr0_mask = 0; /* no XSETBV */
        return;
    }
    ADD(t, 0xd, 1, t->feat[FEAT_D1_EAX], 0, 0, 0);
    if (mask & XCR0_AVX)
        cpuid_add_component(t, 2, 256, XSAVE_AVX_OFF);
    if (mask & XCR0_AVX512) {
        cpuid_add_component(t, 5, 64, XSAVE_K_OFF);
        cpuid_add_component(t, 6, 512, XSAVE_ZMMH_OFF);
        cpuid_add_component(t, 7, 1024, XSAVE_HI16_OFF);
    }
    ADD(t, 0xd, 0, (uint32_t)mask, 0, cpuid_xsave_size(t, mask, false), (uint32_t)(mask >> 32));
}

static unsigned cpuid_gcd(unsigned a, unsigned b) { return b ? cpuid_gcd(b, a % b) : a; }

/* TSC frequency as a ratio to the crystal, which is also the local APIC's clock. Linux multiplies in 32 bits;
 * a ratio that does not fit is better left out, then it measures. */
static void cpuid_add_tsc(struct cpuid_table *t, uint64_t tsc_khz)
{
    uint32_t crystal_khz = LAPIC_BUS_HZ / 1000;
    if (tsc_khz && tsc_khz <= UINT32_MAX) {
        unsigned g = cpuid_gcd((unsigned)tsc_khz, crystal_khz);
        uint64_t num = tsc_khz / g;
        if (num * crystal_khz <= UINT32_MAX)
            ADD(t, 0x15, 0, crystal_khz / g, (uint32_t)num, (uint32_t)LAPIC_BUS_HZ, 0);
    }
    uint32_t mhz = (uint32_t)(tsc_khz / 1000);
    ADD(t, 0x16, 0, mhz, mhz, 100, 0);
}

static void cpuid_add_basic(struct cpuid_table *t, const uint32_t vendor[3], uint64_t tsc_khz)
{
    bool intel = t->vendor == VENDOR_INTEL;
    uint32_t a = 0, b = 0, c = 0, d = 0;
    unsigned ids = intel ? 1u << cpuid_core_bits(t->cpus) : t->cpus;
    ADD(t, 0, 0, intel ? BASIC_MAX_INTEL : BASIC_MAX_AMD, vendor[0], vendor[2], vendor[1]);
    __cpuid(1, a, b, c, d);
    ADD(t, 1, 0, a & 0x0fff3fff, 8 << 8 | ids << 16, t->feat[FEAT_1_ECX], t->feat[FEAT_1_EDX]);
    if (intel) {
        ADD(t, 2, 0, 0x00feff01, 0xf0, 0, 0); /* "see leaf 4 and 0x18" */
        cpuid_add_caches(t, 4);
    }
    ADD(t, 6, 0, 1 << 2, 0, 0, 0); /* ARAT: the APIC timer never stops */
    bool spec_ctrl = t->feat[FEAT_7_EDX] >> 26 & 1;
    ADD(t, 7, 0, spec_ctrl ? 2 : 1, t->feat[FEAT_7_EBX], t->feat[FEAT_7_ECX], t->feat[FEAT_7_EDX]);
    ADD(t, 7, 1, t->feat[FEAT_7_1_EAX], 0, 0, 0);
    if (spec_ctrl)
        ADD(t, 7, 2, 0, 0, 0, 1u << 4); /* BHI_CTRL */
    cpuid_add_topology(t, 0xb);
    cpuid_add_xsave(t);
    if (intel) {
        cpuid_add_tsc(t, tsc_khz);
        cpuid_add_topology(t, 0x1f);
    }
}

static void cpuid_add_hypervisor(struct cpuid_table *t, uint64_t tsc_khz)
{
    uint32_t sig[3];
    memcpy(sig, "KVMKVMKVM\0\0", 12); /* whose interface the next leaf speaks of: see kvmpv.h */
    ADD(t, 0x40000000, 0, HYP_MAX, sig[0], sig[1], sig[2]);
    ADD(t, 0x40000001, 0, KVMPV_FEATURES, 0, 0, 0);
    ADD(t, HYP_MAX, 0, (uint32_t)tsc_khz, LAPIC_BUS_HZ / 1000, 0, 0);
}

static void cpuid_add_amd(struct cpuid_table *t)
{
    ADD(t, 0x80000005, 0, 0xff40ff40, 0xff40ff40, 0x20080140, 0x20080140); /* L1: 32 KiB, 8 ways */
    ADD(t, 0x80000006, 0, 0x62006200, 0x62006200, 1024u << 16 | 0x8140,
        32u << 18 | 0x8140); /* 1 MiB; 16 MiB */
    cpuid_add_caches(t, 0x8000001d);
    ADD(t, 0x8000001e, 0, 0, 0, 0, 0);
    /* LFENCE serialises, null selectors clear the base, automatic IBRS, SRSO_NO; TSA_SQ_NO, TSA_L1_NO. */
    ADD(t, 0x80000021, 0, 1u << 2 | 1u << 6 | 1u << 8 | 1u << 29, 0, 1u << 1 | 1u << 2, 0);
}

static void cpuid_add_extended(struct cpuid_table *t, const uint32_t vendor[3])
{
    bool amd = t->vendor == VENDOR_AMD;
    uint32_t none[3] = { 0 }, a = 0, b = 0, c = 0, d = 0;
    const uint32_t *v = amd ? vendor : none;
    __cpuid(1, a, b, c, d);
    ADD(t, 0x80000000, 0, amd ? EXT_MAX_AMD : EXT_MAX_INTEL, v[0], v[2], v[1]);
    ADD(t, 0x80000001, 0, amd ? a & 0x0fff3fff : 0, 0, t->feat[FEAT_8_1_ECX], t->feat[FEAT_8_1_EDX]);
    cpuid_add_brand(t);
    if (!amd)
        ADD(t, 0x80000006, 0, 0, 0, 1024u << 16 | 0x8040, 0);
    ADD(t, 0x80000007, 0, 0, 0, 0, 1 << 8); /* invariant TSC */
    /* AMD: SSB_NO and BTC_NO; number of cores and width of their IDs. */
    ADD(t, 0x80000008, 0, t->phys_bits | t->lin_bits << 8, amd ? 1u << 26 | 1u << 29 : 0,
        amd ? (t->cpus - 1) | cpuid_core_bits(t->cpus) << 12 : 0, 0);
    if (amd)
        cpuid_add_amd(t);
}

int cpuid_build_as(struct cpuid_table *t, const char *model, const char *vendor, unsigned cpus,
                   uint64_t tsc_khz, struct err *err)
{
    uint32_t text[3] = { 0 };
    memset(t, 0, sizeof(*t));
    if (cpus == 0 || cpus > LAPIC_MAX)
        return err_set(err, EINVAL, "%u CPUs: from 1 to %d are possible", cpus, LAPIC_MAX);
    if (strlen(model) >= sizeof(t->model))
        return err_set(err, EINVAL, "unknown CPU model '%.40s'", model);
    bool amd = strcmp(vendor, "AuthenticAMD") == 0 || strcmp(vendor, "HygonGenuine") == 0;
    t->vendor = amd ? VENDOR_AMD : VENDOR_INTEL;
    t->cpus = cpus;
    strcpy(t->model, model);
    int r = cpuid_model_features(t, err);
    if (r < 0)
        return r;
    t->phys_bits = PHYS_BITS;
    t->lin_bits = t->feat[FEAT_7_ECX] >> 16 & 1 ? 57 : 48;
    memcpy(text, vendor, strnlen(vendor, 12));
    cpuid_add_basic(t, text, tsc_khz);
    cpuid_add_hypervisor(t, tsc_khz);
    cpuid_add_extended(t, text);
    return 0;
}

int cpuid_build(struct cpuid_table *t, const char *model, unsigned cpus, uint64_t tsc_khz, struct err *err)
{
    char vendor[13];
    cpuid_host_vendor(vendor);
    return cpuid_build_as(t, model, vendor, cpus, tsc_khz, err);
}

void cpuid_limit_phys_bits(struct cpuid_table *t, uint8_t bits)
{
    if (bits >= t->phys_bits)
        return;
    t->phys_bits = bits;
    for (unsigned n = 0; n < t->count; n++) {
        if (t->leaf[n].leaf == 0x80000008)
            t->leaf[n].eax = (t->leaf[n].eax & ~0xffu) | bits;
    }
}

void cpuid_hide_tsc_aux(struct cpuid_table *t)
{
    bool rdtscp = strstr(t->model, ",+rdtscp"), rdpid = strstr(t->model, ",+rdpid");
    for (unsigned n = 0; n < t->count; n++) {
        struct cpuid_leaf *l = &t->leaf[n];
        if (l->leaf == 7 && l->subleaf == 0 && !rdpid)
            l->ecx &= ~(1u << 22);
        if (l->leaf == 0x80000001 && !rdtscp)
            l->edx &= ~(1u << 27);
    }
}

/* --- asking --- */

static bool cpuid_has_subleaves(uint32_t leaf)
{
    return leaf == 4 || leaf == 7 || leaf == 0xb || leaf == 0xd || leaf == 0x1f || leaf == 0x8000001d;
}

static const struct cpuid_leaf *cpuid_find(const struct cpuid_table *t, uint32_t leaf, uint32_t subleaf)
{
    for (unsigned n = 0; n < t->count; n++)
        if (t->leaf[n].leaf == leaf && t->leaf[n].subleaf == subleaf)
            return &t->leaf[n];
    return NULL;
}

/* A leaf beyond the last: Intel answers with the highest basic one, AMD with zeros. */
static uint32_t cpuid_clamp(const struct cpuid_table *t, uint32_t leaf)
{
    bool amd = t->vendor == VENDOR_AMD;
    uint32_t basic = amd ? BASIC_MAX_AMD : BASIC_MAX_INTEL;
    uint32_t last = leaf >> 30 == 2   ? (amd ? EXT_MAX_AMD : EXT_MAX_INTEL)
                    : leaf >> 28 == 4 ? 0x4fffffff
                                      : basic;
    return leaf <= last || amd ? leaf : basic;
}

/* What depends on the CPU that asks, and on its state. */
static void cpuid_dynamic(const struct cpu *cpu, uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
    switch (leaf) {
    case 1:
        out[1] |= cpu->apic_id << 24;
        if (cpu->cr4 & CR4_OSXSAVE)
            out[2] |= 1u << 27;
        break;
    case 0xb:
    case 0x1f:
        out[2] |= subleaf & 0xff;
        out[3] = cpu->apic_id;
        break;
    case 0xd:
        if (subleaf == 0 && out[2])
            out[1] = cpuid_xsave_size(cpu->cpuid, cpu->xcr0, false);
        if (subleaf == 1 && (out[0] & 2))
            out[1] = cpuid_xsave_size(cpu->cpuid, cpu->xcr0, true);
        break;
    case 0x8000001e:
        out[0] = cpu->apic_id;
        out[1] = cpu->apic_id; /* core ID; one thread each */
        break;
    default:
        break;
    }
    bool features = leaf == 1 || (leaf == 0x80000001 && cpu->cpuid->vendor == VENDOR_AMD);
    if (features && !(cpu->apic_base & APIC_BASE_EN))
        out[3] &= ~(1u << 9);
}

void cpuid_query(struct cpu *cpu, uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
    leaf = cpuid_clamp(cpu->cpuid, leaf);
    if (!cpuid_has_subleaves(leaf))
        subleaf = 0;
    const struct cpuid_leaf *l = cpuid_find(cpu->cpuid, leaf, subleaf);
    out[0] = l ? l->eax : 0;
    out[1] = l ? l->ebx : 0;
    out[2] = l ? l->ecx : 0;
    out[3] = l ? l->edx : 0;
    cpuid_dynamic(cpu, leaf, subleaf, out);
}
