/* Random user-level vector, x87, MMX and bit-manipulation instructions, executed by stubs and natively: the
 * same registers, flags, MXCSR, x87 state, memory and exceptions. Seeded; HX_ROUNDS and HX_SEED change the
 * run. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <cmocka.h>

#include "hx_fake.h"
#include "hx_random.h"

#define POINTER_TRIES 8

static uint8_t seen[ZYDIS_MNEMONIC_MAX_VALUE + 1];
static uint8_t arena_before[ARENA_SIZE], arena_native[ARENA_SIZE];

static void report(const char *what, const uint8_t *code, unsigned len, const struct decoded *d)
{
    print_error("%s differs:", what);
    for (unsigned n = 0; n < len; n++)
        print_error(" %02x", code[n]);
    print_error("  (%s)\n", ZydisMnemonicGetString(d->z.mnemonic));
}

/* Would the native run touch memory of the test program itself? A random displacement can reach what happens to be mapped
 * (with AddressSanitizer, much is); there is nothing to compare then. */
static bool clashes(const struct cpu *cpu, const struct decoded *d)
{
    unsigned char resident;
    for (unsigned n = 0; n < d->z.operand_count; n++) {
        const ZydisDecodedOperand *op = &d->ops[n];
        if (op->type != ZYDIS_OPERAND_TYPE_MEMORY || op->mem.type == ZYDIS_MEMOP_TYPE_VSIB)
            continue;
        uint64_t ea = cpu->r[RBX] + (op->mem.disp.has_displacement ? (uint64_t)op->mem.disp.value : 0);
        if (op->mem.base == ZYDIS_REGISTER_EBX)
            ea = (uint32_t)ea;
        for (uint64_t page = ea & ~0xfffULL; page <= ((ea + 63) & ~0xfffULL); page += 4096)
            if ((page < ARENA_BASE || page >= ARENA_BASE + ARENA_SIZE + 4096) &&
                mincore((void *)page, 4096, &resident) == 0)
                return true;
    }
    return false;
}

static bool x87_store(ZydisMnemonic m)
{
    return m == ZYDIS_MNEMONIC_FST || m == ZYDIS_MNEMONIC_FSTP || m == ZYDIS_MNEMONIC_FIST || m == ZYDIS_MNEMONIC_FISTP ||
           m == ZYDIS_MNEMONIC_FISTTP || m == ZYDIS_MNEMONIC_FBSTP;
}

/* What a store that meets a missing page leaves behind, where the manuals leave it open and Intel's CPUs differ from AMD's, after
 * which ours goes: an unmasked x87 exception comes instead of the page fault (SDM vol. 3, table 6-2: one class); FBSTP and
 * FSTP m80 leave bytes on the first page; VCVTPS2PH has set MXCSR's flags. Then *native becomes
 * as ours is; nothing else of it changes. Returns what is the native exception's number to compare with. */
static int settle_store(const struct cpu *ours, struct cpu *native, const struct decoded *d, int vector, int native_vector)
{
    ZydisMnemonic m = d->z.mnemonic;

    if (native->cpuid->vendor != VENDOR_INTEL || vector != VEC_PF)
        return native_vector;
    if (m == ZYDIS_MNEMONIC_VCVTPS2PH)
        native->mxcsr &= ~0x3fu | ours->mxcsr;
    else if (x87_store(m) && (native_vector == VEC_PF || native->fx.fsw & HX_FSW_ES)) {
        native->fx = ours->fx;
        if (d->ops[0].size == 80 && native_vector == VEC_PF)
            memcpy(arena_native, (void *)ARENA_BASE, ARENA_SIZE);
        return VEC_PF;
    }
    return native_vector;
}

/* One instruction both ways. False: not executable for this guest. *what: how the two differ, or NULL; said if say. */
static bool one(struct hx_env *e, struct cpu *other, const uint8_t *code, unsigned code_size, struct rng *r, bool say,
                const char **what)
{
    struct insn i;
    struct decoded d;
    bool ok;
    *what = "outcome";
    if (!hx_env_bind(e, code, code_size, &i, &d) || random_skip(&d) || (code_size == 4 && random_skip32(&d)))
        return false;
    random_indices(r, &e->cpu, &d);
    if (hx_vec_width(&e->cpuid) < 64 && d.z.encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX)
        return false;
    if (clashes(&e->cpu, &d))
        return false;
    memcpy(arena_before, (void *)ARENA_BASE, ARENA_SIZE);
    *other = e->cpu;
    int vector = hx_native(other, d.raw, i.len); /* as decoded: without a VEX.W that 32-bit code ignores */
    memcpy(arena_native, (void *)ARENA_BASE, ARENA_SIZE);
    memcpy((void *)ARENA_BASE, arena_before, ARENA_SIZE);
    if (code_size == 4) { /* where the host ran is not where 32-bit code can be */
        other->fx.fip = (uint32_t)other->fx.fip;
        other->fx.fdp = (uint32_t)other->fx.fdp;
    }
    struct hx_outcome o = hx_env_run(e, &i, hx_native_rip());
    vector = settle_store(&e->cpu, other, &d, o.vector, vector);
    ok = o.vector == vector;
    if (!ok)
        print_error("vector %d native %d\n", o.vector, vector);
    ok = ok && hx_same_state(&e->cpu, other, what);
    if (ok) {
        *what = "memory";
        ok = memcmp(arena_native, (void *)ARENA_BASE, ARENA_SIZE) == 0;
    }
    say = say || strcmp(*what, "x87 pointers") != 0;
    if (!ok && say && vector >= 0)
        print_error("after exception %d:\n", vector);
    if (!ok && say)
        report(*what, code, i.len, &d);
    if (ok)
        seen[d.z.mnemonic] |= vector == -1 ? 1 : 2;
    if (ok)
        *what = NULL;
    return true;
}

/* A round is what the random numbers from *r on say. AMD's CPUs save and load the x87 pointers only while an exception is
 * pending, so a host that switches tasks in the middle of one side loses them: only pointers that differ each time
 * differ. */
static bool round_of(struct hx_env *e, struct cpu *other, unsigned code_size, struct rng *r, const char **what)
{
    const struct rng start = *r;
    bool ran = false;

    for (unsigned left = POINTER_TRIES; left-- > 0;) {
        uint8_t code[32];
        *r = start;
        random_code(r, code);
        random_state(r, &e->cpu);
        if (code_size == 4)
            random_to32(code, &e->cpu);
        if (hx_vec_width(&e->cpuid) < 64)
            random_no512(&e->cpu);
        ran = one(e, other, code, code_size, r, left == 0, what);
        if (!ran || !*what || strcmp(*what, "x87 pointers") != 0)
            break;
        memcpy((void *)ARENA_BASE, arena_before, ARENA_SIZE);
    }
    return ran;
}

static unsigned run_many(struct hx_env *e, unsigned rounds, uint64_t seed, bool bounce, unsigned code_size)
{
    struct cpu *other = aligned_alloc(64, ALIGN_UP(sizeof(*other), 64));
    struct rng rng = { seed };
    unsigned done = 0, bad = 0;
    const char *what;
    e->bounce = bounce;
    for (unsigned n = 0; n < TLB_SIZE; n++)
        e->cpu.tlb[n] = (struct tlb_entry){ .rd = TLB_INVALID, .wr = TLB_INVALID };
    while (done < rounds && bad < 20) {
        if (!round_of(e, other, code_size, &rng, &what))
            continue;
        done++;
        bad += what != NULL;
    }
    free(other);
    return bad;
}

static unsigned env_number(const char *name, unsigned fallback)
{
    const char *s = getenv(name);
    return s ? (unsigned)strtoul(s, NULL, 0) : fallback;
}

static void test_random(void **state)
{
    struct hx_env *e = *state;
    hx_native_init(); /* here: cmocka has its own signal handlers around each test */
    hostexec_init_signals();
    unsigned rounds = env_number("HX_ROUNDS", 300000), seed = env_number("HX_SEED", 1);
    assert_int_equal(run_many(e, rounds, seed, false, 8), 0);
    assert_int_equal(run_many(e, rounds / 10, seed + 1, true, 8), 0);
    unsigned names = 0, faulted = 0;
    for (unsigned n = 0; n < ARRAY_LEN(seen); n++) {
        names += seen[n] != 0;
        faulted += seen[n] >> 1;
    }
    print_message("%u mnemonics compared, %u of them also with exceptions\n", names, faulted);
    if (__builtin_cpu_supports("avx512bw") && rounds >= 300000)
        assert_true(names > 700 && faulted > 400);
}

/* A guest without AVX-512 on a host that may have it: registers are 32 bytes wide. */
static void test_random_avx2(void **state)
{
    struct hx_env *e = *state;
    struct cpuid_table was = e->cpuid;
    hx_native_init();
    hostexec_init_signals();
    hostexec_clear(e->hx);
    e->cpuid.xcr0_mask &= ~(uint64_t)XCR0_AVX512;
    e->cpu.xcr0 = e->cpuid.xcr0_mask;
    e->cpuid.feat[FEAT_7_EBX] &= ~(1u << 16);
    assert_int_equal(run_many(e, env_number("HX_ROUNDS", 300000) / 6, env_number("HX_SEED", 1) + 3, false, 8),
                     0);
    e->cpuid = was;
    e->cpu.xcr0 = was.xcr0_mask;
    hostexec_clear(e->hx);
}

/* 32-bit code, compared with 64-bit execution of the same bytes where they mean the same. */
static void test_random32(void **state)
{
    struct hx_env *e = *state;
    hx_native_init();
    hostexec_init_signals();
    memset(seen, 0, sizeof(seen));
    unsigned rounds = env_number("HX_ROUNDS", 300000) / 4, seed = env_number("HX_SEED", 1), names = 0;
    e->cpu.long_mode = false;
    e->cpu.code_size = 4;
    assert_int_equal(run_many(e, rounds, seed + 2, false, 4), 0);
    e->cpu.long_mode = true;
    e->cpu.code_size = 8;
    for (unsigned n = 0; n < ARRAY_LEN(seen); n++)
        names += seen[n] != 0;
    print_message("%u mnemonics compared in 32-bit code\n", names);
    if (__builtin_cpu_supports("avx512bw") && rounds >= 75000)
        assert_true(names > 600);
}

static int setup(void **state)
{
    *state = hx_env_create();
    return *state ? 0 : -1;
}

static int teardown(void **state)
{
    hx_env_destroy(*state);
    return 0;
}

int main(void)
{
    if (!__builtin_cpu_supports("avx"))
        return 77; /* skipped: the native side needs AVX */
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_random), cmocka_unit_test(test_random_avx2),
                                        cmocka_unit_test(test_random32) };
    return cmocka_run_group_tests(tests, setup, teardown);
}
