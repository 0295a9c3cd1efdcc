/* What a guest's CPU can do: every feature that vitro knows, where it comes from, and the models made of
 * them.
 *
 * Sources: Intel SDM vol. 2, CPUID; AMD APM vol. 3, appendix E; x86-64 psABI, section 3.1.1 (levels v1 to
 * v4). A feature is shown only if it is in this table. Those marked HOST execute on the host's CPU, so the
 * host must have them (and its kernel must have enabled their registers); those marked SOFT are our own work
 * on any host.
 *
 * Not here, hence never shown: MONITOR, CET, protection keys, TSX, MPX, SVM, VMX, AMX, XOP, FMA4, TBM,
 * 3DNow!, WAITPKG, XSAVES, performance counters.
 */
#include <cpuid.h>
#include <errno.h>
#include <string.h>

#include "base/err.h"
#include "x86/cpuid.h"

enum feature_how {
    SOFT = 0,
    HOST = 1,
    AVX = 2,    /* HOST, and YMM state enabled */
    AVX512 = 3, /* HOST, and ZMM and opmask state enabled */
    HOW_MASK = 3,
    ONLY_AMD = 4,
    ONLY_INTEL = 8,
    PSABI = 16, /* the psABI's level asks for it: a host without it cannot give the model */
    ASKED = 32, /* only shown to those who ask for it: ",+name" */
};

/* level: named models from x86-64-v<level> up show it; 0: only "host" does. */
struct feature {
    uint16_t bit;
    uint8_t how, level;
    const char *name;
};

#define F(word, bit, how, level, name)                                                                       \
    {                                                                                                        \
        CPU_FEAT(word, bit), how, level, name                                                                \
    }

static const struct feature features[] = {
    F(FEAT_1_EDX, 0, HOST | PSABI, 1, "fpu"),
    F(FEAT_1_EDX, 1, SOFT, 1, "vme"),
    F(FEAT_1_EDX, 2, SOFT, 1, "de"),
    F(FEAT_1_EDX, 3, SOFT, 1, "pse"),
    F(FEAT_1_EDX, 4, SOFT, 1, "tsc"),
    F(FEAT_1_EDX, 5, SOFT, 1, "msr"),
    F(FEAT_1_EDX, 6, SOFT, 1, "pae"),
    F(FEAT_1_EDX, 7, SOFT, 1, "mce"),
    F(FEAT_1_EDX, 8, HOST | PSABI, 1, "cx8"),
    F(FEAT_1_EDX, 9, SOFT, 1, "apic"),
    F(FEAT_1_EDX, 11, SOFT, 1, "sep"),
    F(FEAT_1_EDX, 12, SOFT, 1, "mtrr"),
    F(FEAT_1_EDX, 13, SOFT, 1, "pge"),
    F(FEAT_1_EDX, 14, SOFT, 1, "mca"),
    F(FEAT_1_EDX, 15, HOST | PSABI, 1, "cmov"),
    F(FEAT_1_EDX, 16, SOFT, 1, "pat"),
    F(FEAT_1_EDX, 17, SOFT, 1, "pse36"),
    F(FEAT_1_EDX, 19, SOFT, 1, "clflush"),
    F(FEAT_1_EDX, 23, HOST | PSABI, 1, "mmx"),
    F(FEAT_1_EDX, 24, HOST | PSABI, 1, "fxsr"),
    F(FEAT_1_EDX, 25, HOST | PSABI, 1, "sse"),
    F(FEAT_1_EDX, 26, HOST | PSABI, 1, "sse2"),

    F(FEAT_1_ECX, 0, HOST | PSABI, 2, "sse3"),
    F(FEAT_1_ECX, 1, HOST, 0, "pclmulqdq"),
    F(FEAT_1_ECX, 9, HOST | PSABI, 2, "ssse3"),
    F(FEAT_1_ECX, 12, AVX | PSABI, 3, "fma"),
    F(FEAT_1_ECX, 13, HOST | PSABI, 1, "cx16"), /* a level early: 64-bit guests take it for granted */
    F(FEAT_1_ECX, 17, SOFT, 1, "pcid"),
    F(FEAT_1_ECX, 19, HOST | PSABI, 2, "sse4_1"),
    F(FEAT_1_ECX, 20, HOST | PSABI, 2, "sse4_2"),
    F(FEAT_1_ECX, 21, SOFT, 1, "x2apic"),
    F(FEAT_1_ECX, 22, HOST | PSABI, 3, "movbe"),
    F(FEAT_1_ECX, 23, HOST | PSABI, 2, "popcnt"),
    F(FEAT_1_ECX, 24, SOFT, 1, "tsc_deadline_timer"),
    F(FEAT_1_ECX, 25, HOST, 0, "aes"),
    F(FEAT_1_ECX, 26, SOFT, 3, "xsave"),
    F(FEAT_1_ECX, 28, AVX | PSABI, 3, "avx"),
    F(FEAT_1_ECX, 29, AVX | PSABI, 3, "f16c"),
    F(FEAT_1_ECX, 30, HOST, 0, "rdrand"),
    F(FEAT_1_ECX, 31, SOFT, 1, "hypervisor"),

    F(FEAT_7_EBX, 0, SOFT, 1, "fsgsbase"),
    F(FEAT_7_EBX, 1, SOFT, 1, "tsc_adjust"),
    F(FEAT_7_EBX, 3, HOST | PSABI, 3, "bmi1"),
    F(FEAT_7_EBX, 5, AVX | PSABI, 3, "avx2"),
    F(FEAT_7_EBX, 6, HOST, 0, "fdp_excptn_only"), /* how the host's x87 behaves, and so ours */
    F(FEAT_7_EBX, 7, SOFT, 1, "smep"),
    F(FEAT_7_EBX, 8, HOST | PSABI, 3, "bmi2"),
    F(FEAT_7_EBX, 9, SOFT, 1, "erms"),
    F(FEAT_7_EBX, 10, SOFT, 1, "invpcid"),
    F(FEAT_7_EBX, 13, HOST, 0, "zero_fcs_fds"), /* as fdp_excptn_only */
    F(FEAT_7_EBX, 16, AVX512 | PSABI, 4, "avx512f"),
    F(FEAT_7_EBX, 17, AVX512 | PSABI, 4, "avx512dq"),
    F(FEAT_7_EBX, 18, HOST, 0, "rdseed"),
    F(FEAT_7_EBX, 19, HOST, 0, "adx"),
    F(FEAT_7_EBX, 20, SOFT, 1, "smap"),
    F(FEAT_7_EBX, 21, AVX512, 0, "avx512ifma"),
    F(FEAT_7_EBX, 23, SOFT, 0, "clflushopt"),
    F(FEAT_7_EBX, 24, SOFT, 0, "clwb"),
    F(FEAT_7_EBX, 28, AVX512 | PSABI, 4, "avx512cd"),
    F(FEAT_7_EBX, 29, HOST, 0, "sha_ni"),
    F(FEAT_7_EBX, 30, AVX512 | PSABI, 4, "avx512bw"),
    F(FEAT_7_EBX, 31, AVX512 | PSABI, 4, "avx512vl"),

    F(FEAT_7_ECX, 1, AVX512, 0, "avx512_vbmi"),
    F(FEAT_7_ECX, 2, SOFT, 1, "umip"),
    F(FEAT_7_ECX, 6, AVX512, 0, "avx512_vbmi2"),
    F(FEAT_7_ECX, 8, HOST, 0, "gfni"),
    F(FEAT_7_ECX, 9, AVX, 0, "vaes"),
    F(FEAT_7_ECX, 10, AVX, 0, "vpclmulqdq"),
    F(FEAT_7_ECX, 11, AVX512, 0, "avx512_vnni"),
    F(FEAT_7_ECX, 12, AVX512, 0, "avx512_bitalg"),
    F(FEAT_7_ECX, 14, AVX512, 0, "avx512_vpopcntdq"),
    F(FEAT_7_ECX, 16, SOFT | ASKED, 0, "la57"), /* nobody needs 57 bits, and each walk is a step longer */
    F(FEAT_7_ECX, 22, SOFT, 0, "rdpid"),

    F(FEAT_7_EDX, 4, SOFT, 1, "fsrm"),
    F(FEAT_7_EDX, 23, AVX512, 0, "avx512_fp16"),
    F(FEAT_7_EDX, 26, SOFT | ONLY_INTEL, 1, "spec_ctrl"),
    F(FEAT_7_EDX, 29, SOFT | ONLY_INTEL, 1, "arch_capabilities"),

    F(FEAT_7_1_EAX, 4, AVX, 0, "avx_vnni"),
    F(FEAT_7_1_EAX, 5, AVX512, 0, "avx512_bf16"),

    F(FEAT_8_1_ECX, 0, SOFT, 1, "lahf_lm"), /* a level early, as cx16 */
    F(FEAT_8_1_ECX, 5, HOST | PSABI, 3, "lzcnt"),
    F(FEAT_8_1_ECX, 6, HOST | ONLY_AMD, 0, "sse4a"),
    F(FEAT_8_1_ECX, 8, SOFT, 0, "3dnowprefetch"),
    F(FEAT_8_1_ECX, 22, SOFT | ONLY_AMD, 1, "topoext"),

    F(FEAT_8_1_EDX, 11, SOFT, 1, "syscall"),
    F(FEAT_8_1_EDX, 20, SOFT, 1, "nx"),
    F(FEAT_8_1_EDX, 22, HOST | ONLY_AMD, 0, "mmxext"),
    F(FEAT_8_1_EDX, 26, SOFT, 1, "pdpe1gb"),
    F(FEAT_8_1_EDX, 27, SOFT, 1, "rdtscp"),
    F(FEAT_8_1_EDX, 29, SOFT, 1, "lm"),

    F(FEAT_D1_EAX, 0, SOFT, 3, "xsaveopt"),
    F(FEAT_D1_EAX, 1, SOFT, 3, "xsavec"),
    F(FEAT_D1_EAX, 2, SOFT, 3, "xgetbv1"),
};

/* --- the host --- */

static uint64_t model_host_xcr0(uint32_t leaf1_ecx)
{
    uint32_t lo, hi;
    if (!(leaf1_ecx >> 27 & 1)) /* OSXSAVE */
        return XCR0_X87 | XCR0_SSE;
    __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
    return (uint64_t)hi << 32 | lo;
}

static void model_host(uint32_t feat[FEAT_WORDS], uint64_t *xcr0)
{
    uint32_t a = 0, b = 0, c = 0, d = 0;
    memset(feat, 0, FEAT_WORDS * sizeof(feat[0]));
    __cpuid(1, a, b, c, d);
    feat[FEAT_1_ECX] = c;
    feat[FEAT_1_EDX] = d;
    *xcr0 = model_host_xcr0(c);
    if (__get_cpuid_count(7, 0, &a, &b, &c, &d)) {
        feat[FEAT_7_EBX] = b;
        feat[FEAT_7_ECX] = c;
        feat[FEAT_7_EDX] = d;
    }
    if (a >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d))
        feat[FEAT_7_1_EAX] = a;
    if (__get_cpuid(0x80000001, &a, &b, &c, &d)) {
        feat[FEAT_8_1_ECX] = c;
        feat[FEAT_8_1_EDX] = d;
    }
}

static bool model_bit(const uint32_t *feat, unsigned bit) { return feat[bit / 32] >> (bit % 32) & 1; }

static bool model_host_has(const struct feature *f, const uint32_t *host, uint64_t xcr0)
{
    switch (f->how & HOW_MASK) {
    case SOFT:
        return true;
    case AVX:
        return (xcr0 & XCR0_AVX) && model_bit(host, f->bit);
    case AVX512:
        return (xcr0 & XCR0_AVX512) == XCR0_AVX512 && model_bit(host, f->bit);
    default:
        return model_bit(host, f->bit);
    }
}

/* --- models --- */

/* 0: "host"; 1 to 4: x86-64-v1 to v4; -1: unknown. len: of the name, without what is added or taken away. */
static int model_level(const char *name, size_t len)
{
    if (len == 4 && strncmp(name, "host", 4) == 0)
        return 0;
    if (len == 9 && strncmp(name, "x86-64-v", 8) == 0 && name[8] >= '1' && name[8] <= '4')
        return name[8] - '0';
    return -1;
}

static const struct feature *model_feature(const char *name, size_t len)
{
    for (unsigned n = 0; n < ARRAY_LEN(features); n++)
        if (strncmp(features[n].name, name, len) == 0 && features[n].name[len] == '\0')
            return &features[n];
    return NULL;
}

static bool model_wants(const struct feature *f, const struct cpuid_table *t, int level)
{
    if ((f->how & ONLY_AMD && t->vendor != VENDOR_AMD) || (f->how & ONLY_INTEL && t->vendor != VENDOR_INTEL))
        return false;
    return level == 0 ? !(f->how & ASKED) : f->level && f->level <= level;
}

/* Bits that follow from others. */
static void model_derive(struct cpuid_table *t)
{
    if (t->cpus > 1) {
        t->feat[FEAT_1_EDX] |= 1u << 28; /* HTT: EBX[23:16] counts */
        if (t->vendor == VENDOR_AMD)
            t->feat[FEAT_8_1_ECX] |= 1u << 1; /* CmpLegacy: they are cores */
    }
    if (t->vendor == VENDOR_AMD)
        t->feat[FEAT_8_1_EDX] |= t->feat[FEAT_1_EDX] & 0x0183f3ff; /* aliases of leaf 1 */
    t->xcr0_mask = XCR0_X87 | XCR0_SSE;
    if (model_bit(t->feat, CPU_FEAT(FEAT_1_ECX, 28)))
        t->xcr0_mask |= XCR0_AVX;
    if (model_bit(t->feat, CPU_FEAT(FEAT_7_EBX, 16)))
        t->xcr0_mask |= XCR0_AVX512;
}

/* One word "+name" or "-name" of the list behind a model's name. */
static int model_adjust_one(struct cpuid_table *t, const uint32_t *host, uint64_t xcr0, const char *word,
                            size_t len, struct err *err)
{
    const struct feature *f = len > 1 ? model_feature(word + 1, len - 1) : NULL;
    if (!f || (*word != '+' && *word != '-'))
        return err_set(err, EINVAL, "CPU model %s: '%.*s' is not + or - and a feature that vitro knows", t->model,
                       (int)len, word);
    uint32_t bit = 1u << (f->bit % 32);
    if (*word == '-') {
        t->feat[f->bit / 32] &= ~bit;
        return 0;
    }
    if (!model_host_has(f, host, xcr0) || (f->how & ONLY_AMD && t->vendor != VENDOR_AMD) ||
        (f->how & ONLY_INTEL && t->vendor != VENDOR_INTEL))
        return err_set(err, EINVAL, "CPU model %s: this host cannot give %s", t->model, f->name);
    t->feat[f->bit / 32] |= bit;
    return 0;
}

static int model_adjust(struct cpuid_table *t, const uint32_t *host, uint64_t xcr0, struct err *err)
{
    for (const char *at = strchr(t->model, ','); at; at = strchr(at, ',')) {
        at++;
        int r = model_adjust_one(t, host, xcr0, at, strcspn(at, ","), err);
        if (r < 0)
            return r;
    }
    return 0;
}

int cpuid_model_features(struct cpuid_table *t, struct err *err)
{
    uint32_t host[FEAT_WORDS];
    uint64_t xcr0;
    int level = model_level(t->model, strcspn(t->model, ","));
    if (level < 0)
        return err_set(err, EINVAL, "unknown CPU model '%s': use host or x86-64-v1 to x86-64-v4", t->model);
    model_host(host, &xcr0);
    memset(t->feat, 0, sizeof(t->feat));
    for (unsigned n = 0; n < ARRAY_LEN(features); n++) {
        const struct feature *f = &features[n];
        if (!model_wants(f, t, level))
            continue;
        if (model_host_has(f, host, xcr0))
            t->feat[f->bit / 32] |= 1u << (f->bit % 32);
        else if (level && (f->how & PSABI))
            return err_set(err, EINVAL,
                           "CPU model %s needs %s, which this host does not have: use a lower level or host",
                           t->model, f->name);
    }
    int r = model_adjust(t, host, xcr0, err);
    if (r < 0)
        return r;
    model_derive(t);
    return 0;
}
