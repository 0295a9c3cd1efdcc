/* CPUID: models and what they show, topology for any number of CPUs, per-CPU and per-state leaves, refusals;
 * and resets and control registers, which ask it. */
#include "x86_fixture.h"

#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "state/state.h"
#include "x86/mem.h"

static bool has(const struct cpuid_table *t, unsigned word, unsigned bit) { return t->feat[word] >> bit & 1; }

static void build(struct cpuid_table *t, const char *model, unsigned cpus)
{
    struct err err = { "" };
    if (cpuid_build(t, model, cpus, 2000000, &err) != 0)
        fail_msg("%s: %s", model, err.text);
}

/* What reads TSC_AUX is hidden, works, and is shown to who asks for it. */
static void test_hidden_tsc_aux(void **state)
{
    static const struct {
        const char *model;
        bool rdtscp, rdpid;
    } t[] = { { "host", false, false }, { "x86-64-v2", false, false }, { "host,+rdtscp", true, false }, { "host,+lzcnt,+rdpid,+rdtscp", true, true },
              { "x86-64-v2,+rdpid", false, true } };
    for (unsigned n = 0; n < ARRAY_LEN(t); n++) {
        struct fx *f = fx_create(1, t[n].model);
        uint32_t r[4], before[4], x[4];
        bool rdpid = has(&f->cpuid, FEAT_7_ECX, 22);
        cpuid_query(f->cpu, 0x80000001, 0, before);
        cpuid_hide_tsc_aux(&f->cpuid);
        cpuid_query(f->cpu, 0x80000001, 0, r);
        cpuid_query(f->cpu, 7, 0, x);
        assert_int_equal(r[3], t[n].rdtscp ? before[3] : before[3] & ~(1u << 27));
        assert_int_equal(x[2], t[n].rdpid ? f->cpuid.feat[FEAT_7_ECX] : f->cpuid.feat[FEAT_7_ECX] & ~(1u << 22));
        assert_true(cpu_has(f->cpu, CPU_FEAT(FEAT_8_1_EDX, 27)));
        assert_int_equal(cpu_has(f->cpu, CPU_FEAT(FEAT_7_ECX, 22)), rdpid);
        fx_destroy(f);
    }
}

/* The psABI's levels, by the names of its table 3.1. */
static const struct {
    unsigned level, word, bit;
} psabi[] = {
    { 1, FEAT_1_EDX, 0 },  { 1, FEAT_1_EDX, 8 },  { 1, FEAT_1_EDX, 15 }, { 1, FEAT_1_EDX, 23 },
    { 1, FEAT_1_EDX, 24 }, { 1, FEAT_1_EDX, 25 }, { 1, FEAT_1_EDX, 26 }, { 1, FEAT_8_1_EDX, 11 },
    { 2, FEAT_1_ECX, 0 },  { 2, FEAT_1_ECX, 9 },  { 2, FEAT_1_ECX, 19 }, { 2, FEAT_1_ECX, 20 },
    { 2, FEAT_1_ECX, 23 }, { 3, FEAT_1_ECX, 28 }, { 3, FEAT_7_EBX, 5 },  { 3, FEAT_7_EBX, 3 },
    { 3, FEAT_7_EBX, 8 },  { 3, FEAT_1_ECX, 29 }, { 3, FEAT_1_ECX, 12 }, { 3, FEAT_8_1_ECX, 5 },
    { 3, FEAT_1_ECX, 22 }, { 3, FEAT_1_ECX, 26 }, { 4, FEAT_7_EBX, 16 }, { 4, FEAT_7_EBX, 30 },
    { 4, FEAT_7_EBX, 28 }, { 4, FEAT_7_EBX, 17 }, { 4, FEAT_7_EBX, 31 },
};

static void test_levels(void **state)
{
    unsigned shown = 0;
    for (unsigned level = 1; level <= 4; level++) {
        struct cpuid_table t;
        struct err err = { "" };
        char name[16];
        snprintf(name, sizeof(name), "x86-64-v%u", level);
        if (cpuid_build(&t, name, 1, 2000000, &err) < 0) {
            assert_true(level > 2); /* nothing that runs this suite is older */
            assert_non_null(strstr(err.text, name));
            continue;
        }
        shown++;
        for (unsigned n = 0; n < ARRAY_LEN(psabi); n++)
            assert_int_equal(has(&t, psabi[n].word, psabi[n].bit), psabi[n].level <= level);
        assert_true(has(&t, FEAT_1_ECX, 13) && has(&t, FEAT_8_1_ECX, 0)); /* CX16, LAHF: always */
        assert_true(has(&t, FEAT_1_ECX, 31) && has(&t, FEAT_7_EBX, 20) && has(&t, FEAT_1_ECX, 17));
        assert_false(has(&t, FEAT_1_ECX, 25) || has(&t, FEAT_7_EBX, 29) ||
                     has(&t, FEAT_1_ECX, 30)); /* not in any level */
        assert_int_equal(t.xcr0_mask, level == 4 ? 0xe7 : level == 3 ? 7 : 0);
    }
    assert_true(shown >= 2);
}

static void test_refused(void **state)
{
    struct cpuid_table t;
    struct err err;
    static const char *const bad[] = { "",           "x86-64",
                                       "x86-64-v0",  "x86-64-v5",
                                       "x86-64-v11", "Host",
                                       "qemu64",     "host ,+la57",
                                       ("a-very-long-name-that-does-not-fit-anywhere-not-even-where-a-model-has-a-list-of-features-"
                                        "behind-its-name-that-are-added-or-taken-away") };
    for (unsigned n = 0; n < ARRAY_LEN(bad); n++) {
        err.text[0] = '\0';
        assert_true(cpuid_build(&t, bad[n], 1, 2000000, &err) < 0);
        assert_non_null(strstr(err.text, "unknown CPU model"));
    }
    assert_true(cpuid_build(&t, "host", 0, 2000000, &err) < 0);
    assert_true(cpuid_build(&t, "host", 65, 2000000, &err) < 0);
    assert_non_null(strstr(err.text, "65 CPUs"));
}

/* Single features more or less than a model has. */
static void test_adjusted(void **state)
{
    struct cpuid_table t;
    struct err err;
    build(&t, "host", 1);
    assert_false(has(&t, FEAT_7_ECX, 16));
    assert_int_equal(t.lin_bits, 48);
    build(&t, "host,+la57", 1);
    assert_true(has(&t, FEAT_7_ECX, 16));
    assert_int_equal(t.lin_bits, 57);
    build(&t, "x86-64-v2,-pcid,-invpcid,+3dnowprefetch", 1);
    assert_false(has(&t, FEAT_1_ECX, 17) || has(&t, FEAT_7_EBX, 10));
    assert_true(has(&t, FEAT_8_1_ECX, 8));
    static const char *const bad[] = { "host,", "host,la57", "host,+", "host,+la5", "host,+la577", "host,,+la57", "host,+la57," };
    for (unsigned n = 0; n < ARRAY_LEN(bad); n++) {
        err.text[0] = '\0';
        assert_true(cpuid_build(&t, bad[n], 1, 2000000, &err) < 0);
        assert_non_null(strstr(err.text, "is not + or -"));
    }
    assert_true(cpuid_build_as(&t, "host,+arch_capabilities", "AuthenticAMD", 1, 2000000, &err) < 0);
    assert_non_null(strstr(err.text, "cannot give arch_capabilities"));
}

/* Leaf 7 has a third part where there is SPEC_CTRL, which has the bit that it announces. */
static void test_bhi_ctrl(void **state)
{
    static const struct {
        const char *model, *vendor;
        uint32_t subleaves, edx;
    } want[] = { { "host", "GenuineIntel", 2, 1u << 4 }, { "x86-64-v1", "GenuineIntel", 2, 1u << 4 },
                 { "host,-spec_ctrl", "GenuineIntel", 1, 0 }, { "host", "AuthenticAMD", 1, 0 } };
    for (unsigned n = 0; n < ARRAY_LEN(want); n++) {
        struct fx *f = fx_create(1, NULL);
        struct err err;
        uint32_t out[4];
        assert_int_equal(cpuid_build_as(&f->cpuid, want[n].model, want[n].vendor, 1, 2000000, &err), 0);
        cpuid_query(f->cpu, 7, 0, out);
        assert_int_equal(out[0], want[n].subleaves);
        cpuid_query(f->cpu, 7, 2, out);
        assert_int_equal(out[0] | out[1] | out[2], 0);
        assert_int_equal(out[3], want[n].edx);
        fx_destroy(f);
    }
}

/* Nothing that is not implemented is ever shown. */
static void test_not_shown(void **state)
{
    struct cpuid_table t;
    build(&t, "host", 2);
    static const struct {
        unsigned word, bit;
    } never[] = {
        { FEAT_1_ECX, 3 },    { FEAT_1_ECX, 5 },    { FEAT_1_ECX, 15 },   { FEAT_1_ECX, 27 },
        { FEAT_1_EDX, 21 },   { FEAT_7_EBX, 4 },    { FEAT_7_EBX, 11 },   { FEAT_7_EBX, 14 },
        { FEAT_7_EBX, 2 },    { FEAT_7_EBX, 25 },   { FEAT_7_ECX, 3 },    { FEAT_7_ECX, 4 },
        { FEAT_7_ECX, 5 },    { FEAT_7_ECX, 7 },    { FEAT_7_EDX, 20 },   { FEAT_7_EDX, 22 },
        { FEAT_7_EDX, 24 },   { FEAT_7_EDX, 25 },   { FEAT_8_1_ECX, 2 },
        { FEAT_8_1_ECX, 11 }, { FEAT_8_1_ECX, 16 }, { FEAT_8_1_ECX, 21 }, { FEAT_8_1_EDX, 31 },
        { FEAT_D1_EAX, 3 },
    };
    for (unsigned n = 0; n < ARRAY_LEN(never); n++)
        if (has(&t, never[n].word, never[n].bit))
            fail_msg("word %u bit %u", never[n].word, never[n].bit);
}

static void query(struct cpu *cpu, uint32_t leaf, uint32_t sub, uint32_t out[4])
{
    cpuid_query(cpu, leaf, sub, out);
}

/* What a guest computes from the leaves, as Linux does. */
static void check_topology(struct fx *f, unsigned cpus)
{
    uint32_t r[4];
    unsigned width = 0;
    while (1u << width < cpus)
        width++;
    for (unsigned n = 0; n < FX_CPUS && n < cpus; n++) {
        struct cpu *cpu = f->cpus[n];
        query(cpu, 1, 0, r);
        assert_int_equal(r[1] >> 24, n);
        assert_int_equal(r[3] >> 28 & 1, cpus > 1);
        assert_in_range(r[1] >> 16 & 0xff, cpus, 64);
        query(cpu, 0xb, 0, r);
        assert_int_equal(r[0], 0);
        assert_int_equal(r[1], 1);
        assert_int_equal(r[2], 0x100);
        assert_int_equal(r[3], n);
        query(cpu, 0xb, 1, r);
        assert_int_equal(r[0], width);
        assert_int_equal(r[1], cpus);
        assert_int_equal(r[2], 0x201);
        query(cpu, 0xb, 2, r);
        assert_int_equal(r[1], 0);
        assert_int_equal(r[2], 2); /* type 0: the end */
        assert_int_equal(r[3], n);
        if (f->cpuid.vendor == VENDOR_AMD) {
            query(cpu, 0x80000008, 0, r);
            assert_int_equal(r[2] & 0xff, cpus - 1);
            assert_int_equal(r[2] >> 12 & 15, width);
            query(cpu, 0x8000001e, 0, r);
            assert_int_equal(r[0], n);
            assert_int_equal(r[1], n);
            query(cpu, 0x8000001d, 3, r);
            assert_int_equal(r[0] >> 14 & 0xfff, cpus - 1);
            query(cpu, 0x80000001, 0, r);
            assert_int_equal(r[2] >> 1 & 1, cpus > 1);
        } else {
            query(cpu, 4, 0, r);
            assert_int_equal(r[0] >> 26, (1u << width) - 1);
            query(cpu, 4, 3, r);
            assert_int_equal(r[0] >> 14 & 0xfff, (1u << width) - 1);
        }
    }
}

static const char *const vendors[] = { "GenuineIntel", "AuthenticAMD" };

static void test_topology(void **state)
{
    static const unsigned counts[] = { 1, 2, 3, 4, 5, 8, 33, 64 };
    struct fx *f = fx_create(FX_CPUS, NULL);
    for (unsigned v = 0; v < 2; v++)
        for (unsigned n = 0; n < ARRAY_LEN(counts); n++) {
            assert_int_equal(cpuid_build_as(&f->cpuid, "host", vendors[v], counts[n], 2000000, NULL), 0);
            assert_int_equal(f->cpuid.vendor, v);
            assert_true(f->cpuid.count < ARRAY_LEN(f->cpuid.leaf)); /* room was left: nothing got lost */
            check_topology(f, counts[n]);
        }
    fx_destroy(f);
}

/* Intel's leaf 0x15, computed as Linux does, in 32 bits; left out where that would overflow. */
static void test_tsc_leaf(void **state)
{
    static const struct {
        uint64_t khz;
        bool shown;
    } rates[] = { { 1000000, true }, { 2000000, true },  { 2596000, true },  { 4294000, true }, { 100, true },
                  { 4295000, true }, { 4295001, false }, { 2596123, false }, { 0, false } };
    struct fx *f = fx_create(1, NULL);
    uint32_t r[4];
    for (unsigned n = 0; n < ARRAY_LEN(rates); n++) {
        assert_int_equal(cpuid_build_as(&f->cpuid, "host", vendors[0], 1, rates[n].khz, NULL), 0);
        query(f->cpu, 0x15, 0, r);
        assert_int_equal(r[0] != 0, rates[n].shown);
        if (rates[n].shown)
            assert_int_equal((uint32_t)(r[2] / 1000 * r[1]) / r[0], rates[n].khz);
        query(f->cpu, 0x16, 0, r);
        assert_int_equal(r[0], rates[n].khz / 1000);
    }
    fx_destroy(f);
}

/* What makes guests skip mitigations, and that no MSR is promised which is not there. */
static void test_immunity(void **state)
{
    struct fx *f = fx_create(1, NULL);
    uint32_t r[4];
    assert_int_equal(cpuid_build_as(&f->cpuid, "host", vendors[0], 1, 1000000, NULL), 0);
    query(f->cpu, 7, 0, r);
    assert_int_equal(r[3] & (1u << 26 | 1u << 27 | 1u << 28 | 1u << 29 | 1u << 30 | 1u << 31),
                     1u << 26 | 1u << 29);
    query(f->cpu, 0, 0, r);
    assert_memory_equal(((uint32_t[3]){ r[1], r[3], r[2] }), "GenuineIntel", 12);
    query(f->cpu, 2, 0, r);
    assert_int_equal(r[0] & 0xff, 1);
    assert_int_equal(cpuid_build_as(&f->cpuid, "host", vendors[1], 1, 1000000, NULL), 0);
    query(f->cpu, 7, 0, r);
    assert_int_equal(r[3] >> 26, 0);
    query(f->cpu, 0x80000008, 0, r);
    assert_int_equal(r[1], 1u << 26 | 1u << 29);
    query(f->cpu, 0x80000021, 0, r);
    assert_int_equal(r[0], 0x20000144);
    query(f->cpu, 0x80000000, 0, r);
    assert_memory_equal(((uint32_t[3]){ r[1], r[3], r[2] }), "AuthenticAMD", 12);
    query(f->cpu, 0x80000001, 0, r);
    uint32_t ext = r[3];
    query(f->cpu, 1, 0, r);
    assert_int_equal(ext & 0x0183f3ff, r[3] & 0x0183f3ff); /* AMD repeats these */
    fx_destroy(f);
}

static void test_dynamic(void **state)
{
    struct fx *f = fx_create(1, "x86-64-v2");
    uint32_t r[4];
    query(f->cpu, 1, 0, r);
    assert_int_equal(r[2] >> 26 & 3, 0); /* no XSAVE in v2 */
    assert_true(r[3] >> 9 & 1);
    lapic_base_write(&f->lapic[0], 0xfee00100);
    query(f->cpu, 1, 0, r);
    assert_false(r[3] >> 9 & 1); /* APIC off */
    query(f->cpu, 0xd, 0, r);
    assert_int_equal(r[0] | r[1] | r[2] | r[3], 0);
    ASSERT_RAISES(f, VEC_GP, 0, cpu_write_cr4(f->cpu, CR4_OSXSAVE));
    fx_destroy(f);

    f = fx_create(1, NULL);
    query(f->cpu, 1, 0, r);
    assert_int_equal(r[2] >> 26 & 3, 1);
    ASSERT_CALM(f, cpu_write_cr4(f->cpu, CR4_OSXSAVE));
    query(f->cpu, 1, 0, r);
    assert_int_equal(r[2] >> 26 & 3, 3);
    query(f->cpu, 0xd, 0, r);
    assert_int_equal(r[0], f->cpuid.xcr0_mask);
    assert_int_equal(r[1], 576);
    assert_int_equal(r[2], cpuid_xsave_size(&f->cpuid, f->cpuid.xcr0_mask, false));
    if (f->cpuid.xcr0_mask & XCR0_AVX) {
        ASSERT_CALM(f, cpu_write_xcr0(f->cpu, 7));
        query(f->cpu, 0xd, 0, r);
        assert_int_equal(r[1], 832);
        query(f->cpu, 0xd, 2, r);
        assert_int_equal(r[0], 256);
        assert_int_equal(r[1], 576);
    }
    assert_int_equal(cpuid_xsave_size(&f->cpuid, 3, true), 576);
    assert_int_equal(cpuid_xsave_size(&f->cpuid, 3, false), 576);
    if (f->cpuid.xcr0_mask & XCR0_AVX512)
        assert_int_equal(cpuid_xsave_size(&f->cpuid, 0xe7, true), 2432);
    fx_destroy(f);
}

/* Components neither overlap nor leave the area. */
static void test_xsave_layout(void **state)
{
    struct fx *f = fx_create(1, NULL);
    uint32_t r[4], end = 576, max;
    query(f->cpu, 0xd, 0, r);
    max = r[2];
    for (unsigned n = 2; n < 63; n++) {
        query(f->cpu, 0xd, n, r);
        assert_int_equal(r[0] != 0, f->cpuid.xcr0_mask >> n & 1);
        if (!r[0])
            continue;
        assert_true(r[1] >= end);
        end = r[1] + r[0];
    }
    assert_int_equal(end, max);
    fx_destroy(f);
}

static void test_ranges(void **state)
{
    struct fx *f = fx_create(1, NULL);
    bool amd = f->cpuid.vendor == VENDOR_AMD;
    uint32_t r[4], top[4], sig[3];
    query(f->cpu, 0, 0, r);
    assert_int_equal(r[0], amd ? 0xd : 0x1f);
    query(f->cpu, r[0], 0, top);
    query(f->cpu, 0x100, 0, r);
    assert_memory_equal(r, amd ? (uint32_t[4]){ 0 } : top, 16);
    query(f->cpu, 0x80000000, 0, r);
    assert_int_equal(r[0], amd ? 0x80000021 : 0x80000008);
    query(f->cpu, 0x40000000, 0, r);
    assert_int_equal(r[0], 0x40000010);
    memcpy(sig, &r[1], 12);
    assert_memory_equal(sig, "KVMKVMKVM\0\0", 12);
    query(f->cpu, 0x40000010, 0, r);
    assert_int_equal(r[0], 2000000);
    query(f->cpu, 0x40000002, 0, r);
    assert_int_equal(r[0] | r[1] | r[2] | r[3], 0);
    query(f->cpu, 0x80000008, 0, r);
    assert_int_equal(r[0] & 0xffff, 46 | 48 << 8);
    query(f->cpu, 0x80000007, 7, r); /* the subleaf does not matter there */
    assert_int_equal(r[3], 1 << 8);
    query(f->cpu, 7, 3, r); /* behind the last */
    assert_int_equal(r[0] | r[1] | r[2] | r[3], 0);
    fx_destroy(f);
}

/* --- resets --- */

static void test_reset(void **state)
{
    struct fx *f = fx_create(2, NULL);
    struct cpu *cpu = f->cpu;
    uint32_t r[4];
    query(cpu, 1, 0, r);
    assert_int_equal(cpu->r[RDX], r[0]);
    assert_int_equal(cpu->r[R_RIP], 0xfff0);
    assert_int_equal(cpu->lin_base[SEG_CS], 0xffff0000);
    assert_int_equal(cpu_rflags(cpu), 2);
    assert_int_equal(cpu->cr0, 0x60000010);
    assert_int_equal(cpu->code_size, 2);
    assert_int_equal(cpu->activity, CPU_RUNNING);
    assert_int_equal(f->cpus[1]->activity, CPU_WAIT_SIPI);
    /* INIT keeps the FPU, MTRRs, PAT, the TSC and CD and NW; SYSCALL's MSRs too. */
    cpu->mtrr_def_type = 0xc06;
    cpu->zmm[3][5] = 9;
    cpu->lstar = 0x1234;
    cpu->cr0 = CR0_PE | CR0_ET | CR0_NE;
    cpu->cr2 = cpu->cr3 = 7;
    cpu->efer = EFER_LME;
    cpu->r[RAX] = 1;
    cpu->dr[0] = 5;
    cpu->dr[7] = 0x401;
    cpu_init(cpu);
    assert_int_equal(cpu->cr0, 0x10);
    assert_int_equal(cpu->mtrr_def_type, 0xc06);
    assert_int_equal(cpu->zmm[3][5], 9);
    assert_int_equal(cpu->lstar, 0x1234);
    assert_int_equal(cpu->cr2 | cpu->cr3 | cpu->efer | cpu->r[RAX] | cpu->dr[0], 0);
    assert_int_equal(cpu->dr[7], 0x400);
    assert_int_equal(cpu->r[R_RIP], 0xfff0);
    fx_destroy(f);
}

/* --- control registers --- */

static void test_cr0(void **state)
{
    struct fx *f = fx_create(1, NULL);
    struct cpu *cpu = f->cpu;
    ASSERT_RAISES(f, VEC_GP, 0, cpu_write_cr0(cpu, CR0_PG));
    ASSERT_RAISES(f, VEC_GP, 0, cpu_write_cr0(cpu, CR0_NW));
    ASSERT_RAISES(f, VEC_GP, 0, cpu_write_cr0(cpu, 1ULL << 32));
    ASSERT_CALM(f, cpu_write_cr0(cpu, CR0_PE | 0x1ffc0)); /* reserved bits below 32 are ignored */
    assert_int_equal(cpu->cr0, CR0_PE | CR0_ET | CR0_WP);
    /* Into long mode: PAE first, no CS.L, no 16-bit TSS. */
    cpu->efer = EFER_LME;
    ASSERT_RAISES(f, VEC_GP, 0, cpu_write_cr0(cpu, CR0_PE | CR0_PG));
    cpu_write_cr4(cpu, CR4_PAE);
    cpu->tr.attr = 0x83;
    ASSERT_RAISES(f, VEC_GP, 0, cpu_write_cr0(cpu, CR0_PE | CR0_PG));
    cpu->tr.attr = 0x8b;
    cpu->seg[SEG_CS].attr |= ATTR_L;
    ASSERT_RAISES(f, VEC_GP, 0, cpu_write_cr0(cpu, CR0_PE | CR0_PG));
    cpu->seg[SEG_CS].attr &= (uint16_t)~ATTR_L;
    ASSERT_CALM(f, cpu_write_cr0(cpu, CR0_PE | CR0_PG));
    assert_true(cpu->long_mode);
    assert_int_equal(cpu->efer, EFER_LME | EFER_LMA);
    assert_int_equal(cpu->paging_levels, 4);
    assert_int_equal(cpu->code_size, 2); /* compatibility mode until CS is loaded */
    /* There: PAE and LA57 are fixed, LME too; PCIDE only with CR3[11:0] = 0. */
    ASSERT_RAISES(f, VEC_GP, 0, cpu_write_cr4(cpu, 0));
    ASSERT_RAISES(f, VEC_GP, 0, cpu_write_cr4(cpu, CR4_PAE | CR4_LA57));
    ASSERT_RAISES(f, VEC_GP, 0, cpu_write_efer(cpu, 0));
    cpu->cr3 = 0x1008;
    ASSERT_RAISES(f, VEC_GP, 0, cpu_write_cr4(cpu, CR4_PAE | CR4_PCIDE));
    cpu->cr3 = 0x1000;
    ASSERT_CALM(f, cpu_write_cr4(cpu, CR4_PAE | CR4_PCIDE));
    ASSERT_RAISES(f, VEC_GP, 0, cpu_write_cr0(cpu, CR0_PE)); /* paging stays on while PCIDE */
    ASSERT_CALM(f, cpu_write_cr3(cpu, 1ULL << 63 | 0x2005));
    assert_int_equal(cpu->cr3, 0x2005);
    ASSERT_RAISES(f, VEC_GP, 0, cpu_write_cr3(cpu, 1ULL << 46));
    ASSERT_CALM(f, cpu_write_cr4(cpu, CR4_PAE));
    ASSERT_RAISES(f, VEC_GP, 0, cpu_write_cr3(cpu, 1ULL << 63));
    cpu->seg[SEG_CS].attr |= ATTR_L;
    cpu_update_mode(cpu);
    assert_int_equal(cpu->code_size, 8);
    ASSERT_RAISES(f, VEC_GP, 0, cpu_write_cr0(cpu, CR0_PE)); /* not from 64-bit code */
    cpu->seg[SEG_CS].attr &= (uint16_t)~ATTR_L;
    cpu_update_mode(cpu);
    ASSERT_CALM(f, cpu_write_cr0(cpu, CR0_PE));
    assert_int_equal(cpu->efer, EFER_LME);
    assert_false(cpu->long_mode);
    fx_destroy(f);
}

static void test_cr4_efer_xcr0(void **state)
{
    struct fx *f = fx_create(1, "host,+la57");
    struct cpu *cpu = f->cpu;
    uint64_t ok = 0x351fff; /* VME .. UMIP, LA57, FSGSBASE, OSXSAVE, SMEP, SMAP; not PCIDE: no long mode */
    for (volatile unsigned b = 0; b < 64; b++) {
        uint64_t bit = 1ULL << b;
        if (ok & bit)
            ASSERT_CALM(f, cpu_write_cr4(cpu, bit));
        else
            ASSERT_RAISES(f, VEC_GP, 0, cpu_write_cr4(cpu, bit));
    }
    cpu_write_cr4(cpu, 0);
    ASSERT_CALM(f, cpu_write_efer(cpu, EFER_SCE | EFER_LME | EFER_NXE | EFER_LMA));
    assert_int_equal(cpu->efer, EFER_SCE | EFER_LME | EFER_NXE); /* LMA is not software's */
    ASSERT_RAISES(f, VEC_GP, 0, cpu_write_efer(cpu, 1 << 12));
    ASSERT_RAISES(f, VEC_GP, 0, cpu_write_xcr0(cpu, 0));
    ASSERT_RAISES(f, VEC_GP, 0, cpu_write_xcr0(cpu, 5));
    ASSERT_RAISES(f, VEC_GP, 0, cpu_write_xcr0(cpu, 0x67));
    ASSERT_RAISES(f, VEC_GP, 0, cpu_write_xcr0(cpu, 0xe3));
    ASSERT_RAISES(f, VEC_GP, 0, cpu_write_xcr0(cpu, 0x207));
    ASSERT_CALM(f, cpu_write_xcr0(cpu, f->cpuid.xcr0_mask));
    fx_destroy(f);
}

static void test_modes(void **state)
{
    struct fx *f = fx_create(1, NULL);
    struct cpu *cpu = f->cpu;
    unsigned changes;
    cpu->seg[SEG_CS].sel = 0x803; /* a real-mode selector; PE comes on: CPL is 0 all the same */
    cpu_write_cr0(cpu, CR0_PE);
    assert_int_equal(cpu->cpl, 0);
    cpu->seg[SEG_CS] = (struct seg){ .sel = 0x1b, .limit = ~0u, .attr = 0xcfb }; /* 32-bit code, DPL 3 */
    cpu->seg[SEG_SS] = (struct seg){ .sel = 0x23, .limit = ~0u, .attr = 0xcf3 };
    changes = f->mode_changes;
    cpu_update_mode(cpu);
    assert_int_equal(f->mode_changes, changes + 1);
    cpu_update_mode(cpu);
    assert_int_equal(f->mode_changes, changes + 1);
    assert_int_equal(cpu->cpl, 3);
    assert_int_equal(cpu->code_size, 4);
    assert_int_equal(cpu->sp_mask, 0xffffffff);
    assert_int_equal(cpu->mmu_idx, MMU_USER);
    cpu->seg[SEG_CS].attr = 0xc9f; /* conforming, DPL 0, called from ring 3 */
    cpu_update_mode(cpu);
    assert_int_equal(cpu->cpl, 3);
    cpu_set_rflags(cpu, FL_VM | FL_CF | FL_OF | FL_ZF | 0xffc08028);
    assert_int_equal(cpu->cpl, 3);
    assert_int_equal(cpu_rflags(cpu), FL_VM | FL_CF | FL_OF | FL_ZF | FL_ONE); /* reserved bits are fixed */
    cpu_set_rflags(cpu, FL_TF);
    assert_true(cpu->step);
    cpu_set_rflags(cpu, 0);
    assert_false(cpu->step);
    cpu->dr[7] = 0x402; /* G0, execute */
    cpu_update_mode(cpu);
    assert_true(cpu->step && !cpu->data_bp);
    fx_destroy(f);
}

/* --- described state --- */

static void test_state(void **state)
{
    struct fx *f = fx_create(2, NULL);
    struct cpu *a = f->cpus[0], *b = f->cpus[1];
    struct state_buf one = { 0 }, two = { 0 };
    assert_int_equal(state_desc_check(&cpu_state_desc, NULL), 0);
    fx_long_mode(f, 3);
    for (unsigned n = 0; n < 16; n++)
        a->r[n] = n * 0x0101010101010101ULL;
    a->zmm[31][63] = 1;
    a->fx.st[7][9] = 2;
    a->mc_bank[9][3] = 3;
    a->seg[SEG_GS].base = 4;
    a->activity = CPU_HALTED;
    assert_int_equal(state_save(&one, &cpu_state_desc, 0, a), 0);
    assert_int_equal(state_load(one.data, one.len, &cpu_state_desc, 0, b, NULL), 0);
    cpu_update_mode(b);
    assert_int_equal(b->cpl, 3);
    assert_int_equal(b->r[15], a->r[15]);
    assert_int_equal(b->index, 1); /* surroundings stay */
    assert_int_equal(state_save(&two, &cpu_state_desc, 0, b), 0);
    assert_int_equal(one.len, two.len);
    assert_memory_equal(one.data, two.data, one.len);
    /* Impossible states are refused and change nothing. */
    static const struct {
        uint64_t cr0, cr4, efer;
        uint32_t rflags;
    } bad[] = { { CR0_PG, 0, 0, 2 },
                { CR0_PE | CR0_PG, CR4_PAE, EFER_LMA, 2 },
                { CR0_PE | CR0_PG, 0, EFER_LME | EFER_LMA, 2 },
                { CR0_PE | CR0_PG, CR4_PAE, EFER_LME | EFER_LMA, FL_VM },
                { 1ULL << 32, 0, 0, 2 } };
    for (unsigned n = 0; n < ARRAY_LEN(bad); n++) {
        struct state_buf buf = { 0 };
        a->cr0 = bad[n].cr0;
        a->cr4 = bad[n].cr4;
        a->efer = bad[n].efer;
        a->rflags = bad[n].rflags;
        assert_int_equal(state_save(&buf, &cpu_state_desc, 0, a), 0);
        assert_true(state_load(buf.data, buf.len, &cpu_state_desc, 0, b, NULL) < 0);
        assert_int_equal(b->efer & EFER_LMA, EFER_LMA);
        state_buf_fini(&buf);
    }
    state_buf_fini(&one);
    state_buf_fini(&two);
    fx_destroy(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_levels),    cmocka_unit_test(test_refused), cmocka_unit_test(test_adjusted),
        cmocka_unit_test(test_bhi_ctrl), cmocka_unit_test(test_hidden_tsc_aux),
        cmocka_unit_test(test_not_shown), cmocka_unit_test(test_topology),
        cmocka_unit_test(test_tsc_leaf),  cmocka_unit_test(test_immunity),
        cmocka_unit_test(test_dynamic),   cmocka_unit_test(test_xsave_layout),
        cmocka_unit_test(test_ranges),    cmocka_unit_test(test_reset),
        cmocka_unit_test(test_cr0),       cmocka_unit_test(test_cr4_efer_xcr0),
        cmocka_unit_test(test_modes),     cmocka_unit_test(test_state),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
