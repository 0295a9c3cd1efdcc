/* Model-specific registers of both vendors: which exist, what they take, what they do. */
#include "x86_fixture.h"

#include "x86/msr.h"

static struct fx *msr_fixture(enum cpu_vendor vendor)
{
    struct fx *f = fx_create(1, NULL);
    f->cpuid.vendor = vendor;
    if (vendor == VENDOR_INTEL)
        f->cpuid.feat[FEAT_7_EDX] |= 1u << 26 | 1u << 29;
    else
        f->cpuid.feat[FEAT_7_EDX] &= ~(1u << 26 | 1u << 29);
    return f;
}

static uint64_t get(struct fx *f, uint32_t index)
{
    uint64_t v = 0;
    if (!msr_read(f->cpu, index, &v))
        fail_msg("MSR %x cannot be read", index);
    return v;
}

static bool set(struct fx *f, uint32_t index, uint64_t v) { return msr_write(f->cpu, index, v); }

/* Written, read back, and again at zero. */
static void holds(struct fx *f, uint32_t index, uint64_t v)
{
    uint64_t old = get(f, index);
    if (!set(f, index, v) || get(f, index) != v || !set(f, index, old) || get(f, index) != old)
        fail_msg("MSR %x does not hold %llx", index, (unsigned long long)v);
}

static void test_plain(void **state)
{
    static const enum cpu_vendor both[] = { VENDOR_INTEL, VENDOR_AMD };
    for (unsigned n = 0; n < 2; n++) {
        struct fx *f = msr_fixture(both[n]);
        holds(f, MSR_STAR, 0x0023001000000000);
        holds(f, MSR_LSTAR, 0xffffffff81000000);
        holds(f, MSR_CSTAR, 0xffffffff81000000);
        holds(f, MSR_SFMASK, 0x47700);
        holds(f, MSR_FS_BASE, 0x00007f0000001000);
        holds(f, MSR_GS_BASE, 0xffff888000000000);
        holds(f, MSR_KERNEL_GS_BASE, 0xffff888000000000);
        holds(f, MSR_TSC_AUX, 0xffffffff);
        holds(f, MSR_SYSENTER_CS, 0x10);
        holds(f, MSR_SYSENTER_ESP, 0xffffffff81000000);
        holds(f, MSR_SYSENTER_EIP, 0xffffffff81000000);
        holds(f, MSR_PAT, 0x0407050600070106);
        holds(f, MSR_DEBUGCTL, 2);
        holds(f, 0x17b, 5);
        holds(f, MSR_MCG_STATUS, 4);
        /* Addresses must be canonical for 57 bits, the widest that this CPU has. */
        static const uint32_t addresses[] = { MSR_LSTAR,       MSR_CSTAR,          MSR_FS_BASE,
                                              MSR_GS_BASE,     MSR_KERNEL_GS_BASE, MSR_SYSENTER_ESP,
                                              MSR_SYSENTER_EIP };
        for (unsigned a = 0; a < ARRAY_LEN(addresses); a++) {
            assert_false(set(f, addresses[a], 1ULL << 56));
            assert_false(set(f, addresses[a], 0xfeffffffffffffff));
            assert_true(set(f, addresses[a], 0xffff800000000000));
        }
        assert_false(set(f, MSR_SFMASK, 1ULL << 32));
        assert_false(set(f, MSR_TSC_AUX, 1ULL << 32));
        assert_false(set(f, MSR_DEBUGCTL, 1 << 20));
        fx_destroy(f);
    }
}

static void test_bases(void **state)
{
    struct fx *f = msr_fixture(VENDOR_INTEL);
    fx_long_mode(f, 0);
    assert_true(set(f, MSR_FS_BASE, 0x1234000));
    assert_true(set(f, MSR_GS_BASE, 0x5678000));
    assert_int_equal(f->cpu->lin_base[SEG_FS], 0x1234000);
    assert_int_equal(f->cpu->lin_base[SEG_GS], 0x5678000);
    cpu_update_mode(f->cpu);
    assert_int_equal(f->cpu->lin_base[SEG_GS], 0x5678000);
    ASSERT_RAISES(f, VEC_GP, 0, set(f, MSR_EFER, 0)); /* LME while paging is on */
    fx_destroy(f);
}

static void test_mtrr(void **state)
{
    struct fx *f = msr_fixture(VENDOR_INTEL);
    assert_int_equal(get(f, MSR_MTRRCAP), 0x508);
    assert_false(set(f, MSR_MTRRCAP, 0));
    for (uint32_t n = 0; n < 16; n += 2) {
        holds(f, 0x200 + n, 0x3fffc0000006);
        holds(f, 0x201 + n, 0x3fffc0000800);
        assert_false(set(f, 0x200 + n, 2)); /* no such type */
        assert_false(set(f, 0x200 + n, 0x100));
        assert_false(set(f, 0x200 + n, 1ULL << 46));
        assert_false(set(f, 0x201 + n, 1));
        assert_false(set(f, 0x201 + n, 1ULL << 46));
    }
    assert_false(set(f, 0x210, 0));
    static const uint32_t fixed[] = { 0x250, 0x258, 0x259, 0x268, 0x269, 0x26a,
                                      0x26b, 0x26c, 0x26d, 0x26e, 0x26f };
    for (unsigned n = 0; n < ARRAY_LEN(fixed); n++) {
        assert_true(set(f, fixed[n], 0x0605040100060600 + n % 2));
        assert_false(set(f, fixed[n], 0x0602000000000000));
        assert_false(set(f, fixed[n], 7)); /* UC- is PAT's only */
    }
    for (unsigned n = 0; n < ARRAY_LEN(fixed); n++) /* each its own */
        assert_int_equal(get(f, fixed[n]), 0x0605040100060600 + n % 2);
    holds(f, MSR_MTRR_DEF_TYPE, 0xc06);
    assert_false(set(f, MSR_MTRR_DEF_TYPE, 0x1000));
    assert_false(set(f, MSR_MTRR_DEF_TYPE, 3));
    assert_false(set(f, MSR_PAT, 2));
    assert_false(set(f, MSR_PAT, 0x0300000000000000));
    fx_destroy(f);
}

static void test_machine_check(void **state)
{
    struct fx *f = msr_fixture(VENDOR_INTEL);
    unsigned banks = get(f, MSR_MCG_CAP) & 0xff;
    assert_int_equal(banks, 10);
    for (uint32_t n = 0; n < banks; n++) {
        holds(f, 0x400 + 4 * n, ~0ULL);
        for (uint32_t r = 1; r < 4; r++) {
            assert_true(set(f, 0x400 + 4 * n + r, 0));
            assert_false(set(f, 0x400 + 4 * n + r, 1));
            assert_int_equal(get(f, 0x400 + 4 * n + r), 0);
        }
    }
    uint64_t v;
    assert_false(msr_read(f->cpu, 0x400 + 4 * banks, &v));
    assert_false(set(f, MSR_MCG_CAP, 0));
    fx_destroy(f);
    f = msr_fixture(VENDOR_AMD);
    assert_false(set(f, 0x401, 1));
    assert_true(set(f, 0xc0010015, 1 << 18)); /* McStatusWrEn */
    assert_true(set(f, 0x401, 1));
    fx_destroy(f);
}

static void test_tsc(void **state)
{
    struct fx *f = msr_fixture(VENDOR_AMD);
    clock_advance(&f->clock, 1000);
    assert_int_equal(get(f, MSR_TSC), 2000);
    assert_true(set(f, MSR_TSC, 500000));
    assert_int_equal(get(f, MSR_TSC), 500000);
    assert_int_equal(get(f, MSR_TSC_ADJUST), 498000);
    clock_advance(&f->clock, 10);
    assert_int_equal(get(f, MSR_TSC), 500020);
    assert_true(set(f, MSR_TSC_ADJUST, 0));
    assert_int_equal(get(f, MSR_TSC), 2020);
    assert_true(set(f, MSR_TSC_ADJUST, (uint64_t)-20));
    assert_int_equal(get(f, MSR_TSC), 2000);
    clock_advance(&f->clock, 1000000007ULL * 3600 * 24 * 365); /* a year: no overflow */
    assert_int_equal(get(f, MSR_TSC), 2000 + 2 * 1000000007ULL * 3600 * 24 * 365);
    fx_destroy(f);
}

/* A clock on the host's TSC gives that one to the guest, until anything moves either. */
static void test_tsc_of_host(void **state)
{
    struct fx *f = msr_fixture(VENDOR_INTEL);
    assert_false(cpu_tsc_is_host(f->cpu));
    clock_init_tsc(&f->clock, 2000000);
    assert_false(cpu_tsc_is_host(f->cpu));
    cpu_reset(f->cpu);
    for (unsigned n = 0; n < 3; n++) {
        assert_true(cpu_tsc_is_host(f->cpu));
        uint64_t before = __builtin_ia32_rdtsc(), tsc = get(f, MSR_TSC);
        assert_true(before <= tsc && tsc <= __builtin_ia32_rdtsc());
        if (n == 0) {
            assert_true(set(f, MSR_TSC, 5));
        } else if (n == 1) {
            assert_true(set(f, MSR_TSC_ADJUST, 5));
        } else {
            clock_stop(&f->clock);
            assert_false(cpu_tsc_is_host(f->cpu));
            uint64_t stood = get(f, MSR_TSC);
            clock_start(&f->clock);
            assert_true(get(f, MSR_TSC) >= stood && get(f, MSR_TSC) < __builtin_ia32_rdtsc());
        }
        assert_false(cpu_tsc_is_host(f->cpu));
        if (n == 1) {
            assert_true(set(f, MSR_TSC_ADJUST, 0));
            assert_true(cpu_tsc_is_host(f->cpu)); /* as firmware does: nothing is lost */
        }
        cpu_reset(f->cpu);
    }
    clock_set_ns(&f->clock, 1);
    assert_false(cpu_tsc_is_host(f->cpu));
    clock_stop(&f->clock);
    cpu_reset(f->cpu);
    assert_false(cpu_tsc_is_host(f->cpu));
    fx_destroy(f);
}

static void test_apic(void **state)
{
    struct fx *f = msr_fixture(VENDOR_INTEL);
    uint64_t v;
    assert_int_equal(get(f, MSR_APIC_BASE), 0xfee00900);
    assert_false(msr_read(f->cpu, 0x802, &v));
    assert_false(set(f, MSR_APIC_BASE, 0xfee00500));
    assert_true(set(f, MSR_APIC_BASE, 0xfee00d00));
    assert_int_equal(get(f, 0x803) & 0xff, 0x14);
    assert_true(set(f, 0x808, 0x40));
    assert_int_equal(f->cpu->cr8, 4);
    assert_false(set(f, 0x808, 0x140));
    assert_true(set(f, 0x832, 0x40055));
    assert_true(set(f, MSR_TSC_DEADLINE, 1ULL << 40));
    assert_int_equal(get(f, MSR_TSC_DEADLINE), 1ULL << 40);
    f->cpuid.feat[FEAT_1_ECX] &= ~(1u << 24);
    assert_false(msr_read(f->cpu, MSR_TSC_DEADLINE, &v));
    fx_destroy(f);
}

static void test_vendors(void **state)
{
    static const uint32_t intel[] = { 0x17, MSR_MISC_ENABLE, 0x48, 0x10a };
    static const uint32_t amd[] = { 0xc0010010, 0xc0010015, 0xc001001a, 0xc001001d,
                                    0xc001001f, 0xc0010114, 0xc0011029 };
    struct fx *i = msr_fixture(VENDOR_INTEL), *a = msr_fixture(VENDOR_AMD);
    uint64_t v;
    for (unsigned n = 0; n < ARRAY_LEN(intel); n++) {
        assert_true(msr_read(i->cpu, intel[n], &v));
        assert_false(msr_read(a->cpu, intel[n], &v));
        assert_false(msr_write(a->cpu, intel[n], 0));
    }
    for (unsigned n = 0; n < ARRAY_LEN(amd); n++) {
        assert_true(msr_read(a->cpu, amd[n], &v));
        assert_false(msr_read(i->cpu, amd[n], &v));
        assert_false(msr_write(i->cpu, amd[n], 0));
    }
    assert_true(get(i, 0x10a) & 1);
    assert_false(set(i, 0x10a, 0));
    assert_true(set(i, 0x49, 1)); /* IBPB: write-only */
    assert_false(msr_read(i->cpu, 0x49, &v));
    assert_false(set(i, 0x49, 2));
    holds(i, 0x48, 1);
    holds(i, 0x48, 1 | 1 << 10);
    assert_false(set(i, 0x48, 8));
    assert_true(get(a, 0xc0010015) & 1 << 24);
    assert_true(set(a, 0xc0010015, 0));
    assert_true(get(a, 0xc0010015) & 1 << 24);
    assert_int_equal(get(a, 0xc001001a), 16 << 20);
    assert_int_equal(ram_add_slot(&a->ram, 0xfd000000, PAGE_SIZE, false), 0);
    ram_slot_of(&a->ram, 0xfd000000)->device = true; /* is no RAM */
    assert_int_equal(get(a, 0xc001001a), 16 << 20);
    assert_int_equal(get(a, 0xc001001d), (1ULL << 32) + (2 << 20));
    assert_true(get(a, 0xc0011029) & 2);
    assert_true(set(i, 0x8b, 0));
    assert_int_equal(get(i, 0x8b), 1ULL << 32);
    fx_destroy(i);
    fx_destroy(a);
}

/* Everything else faults, in whatever bits. */
static void test_unknown(void **state)
{
    static const uint32_t none[] = { 2,          0x34,       0x3a,       0xc1,       0xce,       0x140,
                                     0x186,      0x198,      0x345,      0x38d,      0x38f,      0x606,
                                     0x6a0,      0x900,      0xda0,      0x40000000, 0x4b564d02, 0xbfffffff,
                                     0xc0000104, 0xc0010000, 0xc0010061, 0xc0010064, 0xc0010117, 0xc0010140,
                                     0xc0010200, 0xc00110a2, 0xffffffff };
    static const enum cpu_vendor both[] = { VENDOR_INTEL, VENDOR_AMD };
    for (unsigned n = 0; n < 2; n++) {
        struct fx *f = msr_fixture(both[n]);
        uint64_t v;
        for (unsigned m = 0; m < ARRAY_LEN(none); m++)
            if (msr_read(f->cpu, none[m], &v) || msr_write(f->cpu, none[m], 0) ||
                msr_write(f->cpu, none[m], ~0ULL))
                fail_msg("MSR %x", none[m]);
        fx_destroy(f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain),         cmocka_unit_test(test_bases),   cmocka_unit_test(test_mtrr),
        cmocka_unit_test(test_machine_check), cmocka_unit_test(test_tsc), cmocka_unit_test(test_tsc_of_host),
        cmocka_unit_test(test_apic),
        cmocka_unit_test(test_vendors),       cmocka_unit_test(test_unknown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
