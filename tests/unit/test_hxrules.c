/* What must hold around instructions that the host executes: conditions of the guest's state and their
 * exceptions, alignment, features, the closed list of what may run, stub memory, RSP as an operand, x87
 * pointers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "hx_fake.h"
#include "hx_random.h"

#define AREA (ARENA_BASE + 0x1000)

static void fresh(struct hx_env *e)
{
    hostexec_init_signals();
    struct cpu *c = &e->cpu;
    c->cr0 = CR0_PE | CR0_NE | CR0_MP | CR0_PG;
    c->cr4 = CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE;
    c->xcr0 = e->cpuid.xcr0_mask;
    c->rflags = 2;
    c->mxcsr = HX_MXCSR;
    memset(&c->fx, 0, sizeof(c->fx));
    c->fx.fcw = HX_FCW;
    memset(c->zmm, 0, sizeof(c->zmm));
    for (unsigned n = 0; n < 16; n++)
        c->r[n] = AREA;
    memset((void *)AREA, 0, 128);
    e->bounce = false;
    e->ferr = 0;
}

struct rule {
    const char *name;
    uint8_t code[12];
    uint64_t cr0_set, cr4_clear, xcr0_clear;
    int vector;
};

static const struct rule rules[] = {
    { "paddd, TS", { 0x66, 0x0f, 0xfe, 0xc1 }, CR0_TS, 0, 0, VEC_NM },
    { "paddd, EM", { 0x66, 0x0f, 0xfe, 0xc1 }, CR0_EM, 0, 0, VEC_UD },
    { "paddd, EM and TS", { 0x66, 0x0f, 0xfe, 0xc1 }, CR0_EM | CR0_TS, 0, 0, VEC_UD },
    { "paddd, no OSFXSR", { 0x66, 0x0f, 0xfe, 0xc1 }, 0, CR4_OSFXSR, 0, VEC_UD },
    { "paddd without OSXSAVE", { 0x66, 0x0f, 0xfe, 0xc1 }, 0, CR4_OSXSAVE, 0, -1 },
    { "paddd mm, no OSFXSR", { 0x0f, 0xfe, 0xc1 }, 0, CR4_OSFXSR, 0, -1 },
    { "paddd mm, EM", { 0x0f, 0xfe, 0xc1 }, CR0_EM, 0, 0, VEC_UD },
    { "paddd mm, TS", { 0x0f, 0xfe, 0xc1 }, CR0_TS, 0, 0, VEC_NM },
    { "emms, EM", { 0x0f, 0x77 }, CR0_EM, 0, 0, VEC_UD },
    { "fadd, EM", { 0xd8, 0xc1 }, CR0_EM, 0, 0, VEC_NM },
    { "fadd, TS", { 0xd8, 0xc1 }, CR0_TS, 0, 0, VEC_NM },
    { "fnstcw, TS", { 0xd9, 0x38 }, CR0_TS, 0, 0, VEC_NM },
    { "fwait, TS", { 0x9b }, CR0_TS, 0, 0, VEC_NM },
    { "fwait, EM", { 0x9b }, CR0_EM, 0, 0, -1 },
    { "ldmxcsr, TS", { 0x0f, 0xae, 0x10 }, CR0_TS, 0, 0, VEC_NM },
    { "stmxcsr, no OSFXSR", { 0x0f, 0xae, 0x18 }, 0, CR4_OSFXSR, 0, VEC_UD },
    { "crc32, TS", { 0xf2, 0x0f, 0x38, 0xf1, 0xc1 }, CR0_TS | CR0_EM, CR4_OSFXSR, 0, -1 },
    { "andn, TS", { 0xc4, 0xe2, 0x70, 0xf2, 0xc2 }, CR0_TS | CR0_EM, CR4_OSXSAVE, XCR0_AVX, -1 },
    { "vpaddd, TS", { 0xc5, 0xf1, 0xfe, 0xc2 }, CR0_TS, 0, 0, VEC_NM },
    { "vpaddd, EM", { 0xc5, 0xf1, 0xfe, 0xc2 }, CR0_EM, 0, 0, -1 },
    { "vpaddd, no OSXSAVE", { 0xc5, 0xf1, 0xfe, 0xc2 }, CR0_TS, CR4_OSXSAVE, 0, VEC_UD },
    { "vpaddd, XCR0 without AVX", { 0xc5, 0xf1, 0xfe, 0xc2 }, 0, 0, XCR0_AVX, VEC_UD },
    { "vpaddd, XCR0 without AVX-512", { 0xc5, 0xf1, 0xfe, 0xc2 }, 0, 0, XCR0_AVX512, -1 },
    { "vzeroupper, XCR0 without AVX", { 0xc5, 0xf8, 0x77 }, 0, 0, XCR0_AVX, VEC_UD },
    { "vpaddd zmm, XCR0 without AVX-512", { 0x62, 0xf1, 0x75, 0x48, 0xfe, 0xc2 }, 0, 0, XCR0_AVX512, VEC_UD },
    { "kmovw, XCR0 without AVX-512", { 0xc5, 0xf8, 0x90, 0xca }, 0, 0, XCR0_AVX512, VEC_UD },
    { "vmovd, TS", { 0xc5, 0xf9, 0x6e, 0xc0 }, CR0_TS, 0, 0, VEC_NM },
    { "fxsave, EM", { 0x0f, 0xae, 0x00 }, CR0_EM, 0, 0, VEC_UD },
    { "fxsave, TS", { 0x0f, 0xae, 0x00 }, CR0_TS, 0, 0, VEC_NM },
    { "xsave, EM", { 0x0f, 0xae, 0x20 }, CR0_EM, 0, 0, -1 },
    { "xsave, TS", { 0x0f, 0xae, 0x20 }, CR0_TS, 0, 0, VEC_NM },
    { "xsave, no OSXSAVE", { 0x0f, 0xae, 0x20 }, CR0_TS, CR4_OSXSAVE, 0, VEC_UD },
};

static void test_conditions(void **state)
{
    struct hx_env *e = *state;
    for (unsigned n = 0; n < ARRAY_LEN(rules); n++) {
        const struct rule *t = &rules[n];
        fresh(e);
        e->cpu.cr0 |= t->cr0_set;
        e->cpu.cr4 &= ~t->cr4_clear;
        e->cpu.xcr0 &= ~t->xcr0_clear;
        struct hx_outcome o = hx_env_exec(e, t->code, 8);
        if (o.vector == -2)
            continue; /* this host does not have it */
        if (o.vector != t->vector)
            print_error("%s: vector %d, not %d\n", t->name, o.vector, t->vector);
        assert_int_equal(o.vector, t->vector);
    }
}

/* VEX is no encoding in real and virtual-8086 mode, also for instructions on general registers. */
static void test_vex_modes(void **state)
{
    struct hx_env *e = *state;
    static const uint8_t vaddps[16] = { 0xc5, 0xf0, 0x58, 0xc2 }, andn[16] = { 0xc4, 0xe2, 0x70, 0xf2, 0xc2 };
    fresh(e);
    assert_int_equal(hx_env_exec(e, vaddps, 2).vector, -1);
    e->cpu.rflags |= FL_VM;
    assert_int_equal(hx_env_exec(e, vaddps, 2).vector, VEC_UD);
    assert_int_equal(hx_env_exec(e, andn, 2).vector, VEC_UD);
    e->cpu.rflags &= ~FL_VM;
    e->cpu.cr0 &= ~(uint64_t)CR0_PE;
    assert_int_equal(hx_env_exec(e, vaddps, 2).vector, VEC_UD);
    assert_int_equal(hx_env_exec(e, andn, 2).vector, VEC_UD);
}

static void test_simd_exception(void **state)
{
    struct hx_env *e = *state;
    static const uint8_t divss[16] = { 0xf3, 0x0f, 0x5e, 0xc1 },
                         stps2ph[16] = { 0xc4, 0xe3, 0x7d, 0x1d, 0x00, 0x00 };
    for (unsigned n = 0; n < 1000; n++) { /* the host's own MXCSR is intact each time */
        fresh(e);
        e->cpu.mxcsr = HX_MXCSR & ~0x200u; /* divide by zero unmasked */
        e->cpu.zmm[0][3] = 0x40;
        assert_int_equal(hx_env_exec(e, divss, 8).vector, VEC_XM);
        assert_int_equal(e->cpu.mxcsr, (HX_MXCSR & ~0x200u) | 4);
        assert_int_equal(e->cpu.zmm[0][3], 0x40);
        uint32_t host;
        __asm__ volatile("stmxcsr %0" : "=m"(host));
        assert_int_equal(host & ~0x3fu, HX_MXCSR);
    }
    e->cpu.cr4 &= ~(uint64_t)CR4_OSXMMEXCPT;
    assert_int_equal(hx_env_exec(e, divss, 8).vector, VEC_UD);
    for (unsigned bounce = 0; bounce < 2; bounce++) { /* a store that faults stores nothing */
        fresh(e);
        e->bounce = bounce;
        e->cpu.mxcsr = HX_MXCSR & ~0x1000u;
        memset(e->cpu.zmm[0], 0x3f, 32);
        memset((void *)AREA, 0x77, 64);
        struct hx_outcome o = hx_env_exec(e, stps2ph, 8);
        if (o.vector == -2)
            return;
        assert_int_equal(o.vector, VEC_XM);
        for (unsigned k = 0; k < 64; k++)
            assert_int_equal(((uint8_t *)AREA)[k], 0x77);
    }
}

static void test_x87_error(void **state)
{
    struct hx_env *e = *state;
    static const uint8_t fdiv[16] = { 0xdc, 0x38 }, fld1[16] = { 0xd9, 0xe8 }, fnstsw[16] = { 0xdf, 0xe0 },
                         fldz[16] = { 0xd9, 0xee }, fdivp[16] = { 0xde, 0xf9 }, emms[16] = { 0x0f, 0x77 },
                         fnclex[16] = { 0xdb, 0xe2 }, fwait[16] = { 0x9b }, paddb[16] = { 0x0f, 0xfc, 0xc1 };
    fresh(e);
    e->cpu.fx.fcw = HX_FCW & ~4; /* divide by zero unmasked */
    assert_int_equal(hx_env_exec(e, fld1, 8).vector, -1);
    assert_int_equal(hx_env_exec(e, fldz, 8).vector, -1);
    assert_int_equal(hx_env_exec(e, fdivp, 8).vector, -1);
    assert_int_equal(e->cpu.fx.fsw & 0x8084, 0x8084);
    uint64_t fip = e->cpu.fx.fip;
    assert_int_equal(fip, hx_native_rip());
    assert_int_equal(e->cpu.fx.fop, 0x6f9);
    assert_int_equal(hx_env_exec(e, fld1, 8).vector, VEC_MF);
    assert_int_equal(hx_env_exec(e, fdiv, 8).vector, VEC_MF);
    assert_int_equal(hx_env_exec(e, fwait, 8).vector, VEC_MF);
    assert_int_equal(hx_env_exec(e, emms, 8).vector, VEC_MF);
    assert_int_equal(hx_env_exec(e, paddb, 8).vector, VEC_MF);
    assert_int_equal(hx_env_exec(e, fnstsw, 8).vector, -1);
    e->cpu.cr0 &= ~(uint64_t)CR0_NE;
    assert_int_equal(hx_env_exec(e, fld1, 8).vector, 0x100); /* waits here for IRQ 13 */
    assert_int_equal(e->ferr, 1);
    assert_int_equal(e->cpu.r[R_RIP], hx_native_rip());
    assert_int_equal(hx_env_exec(e, fnclex, 8).vector, -1);
    assert_int_equal(hx_env_exec(e, fld1, 8).vector, -1);
}

static void test_alignment(void **state)
{
    struct hx_env *e = *state;
    static const struct {
        uint8_t code[8];
        int vector;
    } t[] = {
        { { 0x0f, 0x28, 0x03 }, VEC_GP },
        { { 0x0f, 0x29, 0x03 }, VEC_GP },
        { { 0x0f, 0x10, 0x03 }, -1 },
        { { 0xf3, 0x0f, 0x6f, 0x03 }, -1 },
        { { 0x66, 0x0f, 0xfe, 0x03 }, VEC_GP },
        { { 0xc5, 0xf1, 0xfe, 0x03 }, -1 },
        { { 0xc5, 0xf8, 0x28, 0x03 }, VEC_GP },
        { { 0xf2, 0x0f, 0xf0, 0x03 }, -1 },
        { { 0x0f, 0x2b, 0x03 }, VEC_GP },
        { { 0xf3, 0x0f, 0x58, 0x03 }, -1 },
        { { 0x66, 0x0f, 0x3a, 0x63, 0x03, 0 }, -1 },
        { { 0x0f, 0xae, 0x03 }, VEC_GP },
    };
    for (unsigned n = 0; n < ARRAY_LEN(t); n++) {
        fresh(e);
        e->cpu.r[RBX] = AREA + 8;
        int vector = hx_env_exec(e, t[n].code, 8).vector;
        if (vector == -2)
            continue;
        if (vector != t[n].vector)
            print_error("alignment case %u\n", n);
        assert_int_equal(vector, t[n].vector);
    }
}

/* The same instruction on RSP and on RCX. */
static void test_rsp(void **state)
{
    struct hx_env *e = *state;
    static const struct {
        uint8_t rsp[12], rcx[12];
    } t[] = {
        { { 0x66, 0x48, 0x0f, 0x6e, 0xc4 }, { 0x66, 0x48, 0x0f, 0x6e, 0xc1 } }, /* movq xmm0, r */
        { { 0x66, 0x48, 0x0f, 0x7e, 0xc4 }, { 0x66, 0x48, 0x0f, 0x7e, 0xc1 } }, /* movq r, xmm0 */
        { { 0xf3, 0x48, 0x0f, 0xb8, 0xe4 }, { 0xf3, 0x48, 0x0f, 0xb8, 0xc9 } }, /* popcnt r, r */
        { { 0xc4, 0xe2, 0xd8, 0xf2, 0xe6 }, { 0xc4, 0xe2, 0xf0, 0xf2, 0xce } }, /* andn r, r, rsi */
        { { 0xf2, 0x0f, 0x38, 0xf1, 0xe4 }, { 0xf2, 0x0f, 0x38, 0xf1, 0xc9 } }, /* crc32 r, r */
        { { 0xf2, 0x40, 0x0f, 0x38, 0xf0, 0xf4 },
          { 0xf2, 0x40, 0x0f, 0x38, 0xf0, 0xf1 } },                             /* crc32 esi, spl/cl */
        { { 0x66, 0x0f, 0xd7, 0xe0 }, { 0x66, 0x0f, 0xd7, 0xc8 } },             /* pmovmskb r, xmm0 */
        { { 0xc4, 0xe2, 0xdb, 0xf6, 0xfe }, { 0xc4, 0xe2, 0xf3, 0xf6, 0xfe } }, /* mulx rdi, r, rsi */
        { { 0x0f, 0xc3, 0x23 }, { 0x0f, 0xc3, 0x0b } },                         /* movnti [rbx], r */
        { { 0xf2, 0x48, 0x0f, 0x2a, 0xc4 }, { 0xf2, 0x48, 0x0f, 0x2a, 0xc1 } }, /* cvtsi2sd xmm0, r */
    };
    struct rng r = { 99 };
    for (unsigned n = 0; n < ARRAY_LEN(t) * 20; n++) {
        struct cpu *c = &e->cpu;
        uint64_t memory[2], result[2], other[2], flags[2];
        uint8_t xmm[2][64];
        uint64_t v = rng_next(&r), seed = rng_next(&r);
        bool bound = true;
        for (unsigned k = 0; k < 2; k++) {
            struct rng s = { seed };
            fresh(e);
            random_vector_state(&s, c);
            for (unsigned q = 0; q < 16; q++)
                c->r[q] = rng_next(&s);
            c->r[RBX] = AREA;
            c->r[RSP] = c->r[RCX] = v;
            c->aflags = 0x200;
            bound = bound && hx_env_exec(e, k ? t[n / 20].rcx : t[n / 20].rsp, 8).vector == -1;
            result[k] = c->r[k ? RCX : RSP];
            other[k] = c->r[RSI] ^ c->r[RDI];
            flags[k] = c->aflags;
            memory[k] = *(uint64_t *)AREA;
            memcpy(xmm[k], c->zmm[0], 64);
            assert_int_equal(c->r[k ? RSP : RCX], v);
        }
        if (!bound)
            continue;
        assert_int_equal(result[0], result[1]);
        assert_int_equal(other[0], other[1]);
        assert_int_equal(flags[0], flags[1]);
        assert_int_equal(memory[0], memory[1]);
        assert_memory_equal(xmm[0], xmm[1], 64);
    }
}

static void test_features(void **state)
{
    struct hx_env *e = *state;
    static const struct {
        uint8_t code[8], word, bit;
    } t[] = {
        { { 0x66, 0x0f, 0xfe, 0xc1 }, FEAT_1_EDX, 26 },
        { { 0xf3, 0x0f, 0xb8, 0xc1 }, FEAT_1_ECX, 23 },
        { { 0xc5, 0xf5, 0xfe, 0xc2 }, FEAT_7_EBX, 5 },
        { { 0xc5, 0xf1, 0xfe, 0xc2 }, FEAT_1_ECX, 28 },
        { { 0xc4, 0xe2, 0x70, 0xf2, 0xc2 }, FEAT_7_EBX, 3 },
        { { 0x66, 0x0f, 0x38, 0xdc, 0xc1 }, FEAT_1_ECX, 25 },
        { { 0x62, 0xf1, 0x75, 0x48, 0xfe, 0xc2 }, FEAT_7_EBX, 16 },
        { { 0x62, 0xf1, 0x75, 0x28, 0xfe, 0xc2 }, FEAT_7_EBX, 31 },
        { { 0xf3, 0x0f, 0xbd, 0xc1 }, FEAT_8_1_ECX, 5 },
        { { 0x0f, 0x38, 0xc8, 0xc1 }, FEAT_7_EBX, 29 },
        { { 0xd8, 0xc1 }, FEAT_1_EDX, 0 },
        { { 0x0f, 0xfe, 0xc1 }, FEAT_1_EDX, 23 },
    };
    fresh(e);
    for (unsigned n = 0; n < ARRAY_LEN(t); n++) {
        bool here = hx_env_exec(e, t[n].code, 8).vector != -2;
        uint32_t was = e->cpuid.feat[t[n].word];
        e->cpuid.feat[t[n].word] &= ~(1u << t[n].bit);
        assert_int_equal(hx_env_exec(e, t[n].code, 8).vector, -2);
        e->cpuid.feat[t[n].word] = was;
        assert_int_equal(here, was >> t[n].bit & 1);
    }
}

/* No byte sequence binds to anything but data processing. */
static void test_closed_list(void **state)
{
    struct hx_env *e = *state;
    static const uint8_t refused[] = {
        ZYDIS_CATEGORY_CALL,       ZYDIS_CATEGORY_COND_BR,   ZYDIS_CATEGORY_UNCOND_BR,
        ZYDIS_CATEGORY_RET,        ZYDIS_CATEGORY_SYSCALL,   ZYDIS_CATEGORY_SYSRET,
        ZYDIS_CATEGORY_SYSTEM,     ZYDIS_CATEGORY_INTERRUPT, ZYDIS_CATEGORY_IO,
        ZYDIS_CATEGORY_IOSTRINGOP, ZYDIS_CATEGORY_STRINGOP,  ZYDIS_CATEGORY_PUSH,
        ZYDIS_CATEGORY_POP,        ZYDIS_CATEGORY_SEGOP,     ZYDIS_CATEGORY_XSAVE,
        ZYDIS_CATEGORY_XSAVEOPT,   ZYDIS_CATEGORY_RDWRFSGS,  ZYDIS_CATEGORY_PKU,
        ZYDIS_CATEGORY_CET,        ZYDIS_CATEGORY_VTX,       ZYDIS_CATEGORY_SGX,
        ZYDIS_CATEGORY_SMAP,       ZYDIS_CATEGORY_WAITPKG,   ZYDIS_CATEGORY_RDRAND,
        ZYDIS_CATEGORY_RDSEED,     ZYDIS_CATEGORY_RDPID,     ZYDIS_CATEGORY_UINTR,
        ZYDIS_CATEGORY_AMX_TILE,   ZYDIS_CATEGORY_PADLOCK,   ZYDIS_CATEGORY_SEMAPHORE,
        ZYDIS_CATEGORY_GATHER,     ZYDIS_CATEGORY_SCATTER,   ZYDIS_CATEGORY_FLAGOP,
        ZYDIS_CATEGORY_PT,
    };
    struct rng r = { 5 };
    struct insn i;
    struct decoded d;
    unsigned bound = 0;
    bool full;
    fresh(e);
    for (unsigned n = 0; n < 1000000; n++) {
        uint8_t code[32];
        unsigned size = n % 3 == 0 ? 2 : n % 3 == 1 ? 4 : 8;
        random_code(&r, code);
        if (n & 1)
            for (unsigned k = 0; k < 16; k++)
                code[k] = (uint8_t)rng_next(&r);
        if (insn_decode(code, 15, size, true, &i, &d) != DECODE_OK)
            continue;
        if (!hostexec_bind(e->hx, &e->cpu, &i, &d, &full)) {
            if (full)
                hostexec_clear(e->hx);
            continue;
        }
        bound++;
        for (unsigned k = 0; k < sizeof(refused); k++)
            assert_int_not_equal(d.z.meta.category, refused[k]);
        assert_false(d.z.attributes & (ZYDIS_ATTRIB_HAS_LOCK | ZYDIS_ATTRIB_IS_PRIVILEGED));
        const struct stub *s = i.stub;
        assert_true(s->pc_insn < s->pc_end && s->pc_end < s->pc_fault);
        assert_memory_equal(s->code + s->pc_insn, s->key, s->key_len);
    }
    assert_true(bound > 50000);
}

static void test_stub_memory(void **state)
{
    struct hx_env *e = *state;
    struct rng r = { 6 };
    struct insn i;
    struct decoded d;
    bool full = false;
    unsigned n = 0;
    fresh(e);
    hostexec_clear(e->hx);
    for (; n < 10000000 && !full; n++) {
        uint8_t code[32];
        random_code(&r, code);
        if (insn_decode(code, 15, 8, true, &i, &d) == DECODE_OK)
            hostexec_bind(e->hx, &e->cpu, &i, &d, &full);
    }
    assert_true(full);
    assert_true(e->hx->used <= HX_BYTES);
    assert_int_equal(hostexec_bind(e->hx, &e->cpu, &i, &d, &full), false);
    hostexec_clear(e->hx);
    assert_int_equal(hostexec_bind(e->hx, &e->cpu, &i, &d, &full), true);
    uint32_t used = e->hx->used;
    const void *stub = i.stub;
    assert_int_equal(hostexec_bind(e->hx, &e->cpu, &i, &d, &full), true); /* found again */
    assert_int_equal(e->hx->used, used);
    assert_ptr_equal(i.stub, stub);
}

/* No mapping of the stub memory is writable and executable. */
static void test_write_xor_execute(void **state)
{
    char line[512];
    unsigned seen = 0;
    FILE *f = fopen("/proc/self/maps", "r");
    assert_non_null(f);
    while (fgets(line, sizeof(line), f)) {
        if (!strstr(line, "memfd:stubs"))
            continue;
        seen++;
        assert_true(strstr(line, " rw-s ") || strstr(line, " r-xs "));
    }
    fclose(f);
    assert_int_equal(seen, 2);
}

static void test_environment_pointers(void **state)
{
    struct hx_env *e = *state;
    static const uint8_t fld64[16] = { 0xdd, 0x03 }, env32[16] = { 0xd9, 0x30 },
                         env16[16] = { 0x66, 0xd9, 0x30 };
    uint32_t *m = (uint32_t *)(AREA + 256);
    struct cpu *c = &e->cpu;
    /* Intel's CPUs keep the opcode and often the operand for exceptions only, and newer ones no selectors (SDM vol. 1,
     * 8.1.8, 8.1.9; CPUID.7.EBX bits 6 and 13). */
    const uint32_t *bits = &c->cpuid->feat[FEAT_7_EBX];
    const bool amd = c->cpuid->vendor == VENDOR_AMD, selectors = !(*bits >> 13 & 1), operand = !(*bits >> 6 & 1);
    const uint32_t op = amd ? 0x503 : 0, cs = selectors ? 0x10 : 0, ds = selectors ? 0x18 : 0;
    fresh(e);
    c->r[RBX] = AREA + 64;
    c->r[RAX] = AREA + 256;
    c->seg[SEG_CS].sel = 0x10;
    c->seg[SEG_DS].sel = 0x18;
    assert_int_equal(hx_env_exec(e, fld64, 8).vector, -1);
    assert_int_equal(hx_env_exec(e, env32, 8).vector, -1);
    assert_int_equal(m[3], (uint32_t)hx_native_rip());
    assert_int_equal(m[4], op << 16 | cs);
    assert_int_equal(m[5], operand ? AREA + 64 : 0);
    /* 32-bit protected mode keeps the selectors of the instruction; real mode shows linear addresses. */
    struct insn i;
    struct decoded d;
    c->code_size = 4;
    c->long_mode = false;
    assert_true(hx_env_bind(e, fld64, 4, &i, &d));
    assert_int_equal(hx_env_run(e, &i, 0x12345678).vector, -1);
    c->seg[SEG_CS].sel = 0x20;
    assert_true(hx_env_bind(e, env32, 4, &i, &d));
    assert_int_equal(hx_env_run(e, &i, 0x12345700).vector, -1);
    assert_int_equal(m[3], 0x12345678);
    assert_int_equal(m[4], op << 16 | cs);
    assert_int_equal(m[6], 0xffff0000 | ds);
    c->cr0 &= ~(uint64_t)CR0_PE;
    c->fx.fip = 0x1234 | 0xf000ULL << 32;
    assert_int_equal(hx_env_run(e, &i, 0x1300).vector, -1);
    assert_int_equal(m[3], 0xffff1234);
    assert_int_equal(m[4], (selectors ? 0xf000 : 0) | op);
    assert_true(hx_env_bind(e, env16, 4, &i, &d));
    assert_int_equal(hx_env_run(e, &i, 0x1300).vector, -1);
    assert_int_equal(((uint16_t *)m)[3], 0x1234);
    assert_int_equal(((uint16_t *)m)[4], (selectors ? 0xf000 : 0) | op);
    c->code_size = 8;
    c->long_mode = true;
}

static void test_mxcsr_reserved(void **state)
{
    struct hx_env *e = *state;
    static const uint8_t ldmxcsr[16] = { 0x0f, 0xae, 0x13 };
    fresh(e);
    *(uint32_t *)AREA = 0x11f80;
    assert_int_equal(hx_env_exec(e, ldmxcsr, 8).vector, VEC_GP);
    assert_int_equal(e->cpu.mxcsr, HX_MXCSR);
    *(uint32_t *)AREA = 0xffff;
    assert_int_equal(hx_env_exec(e, ldmxcsr, 8).vector, -1);
    assert_int_equal(e->cpu.mxcsr, 0xffff);
}

static int setup(void **state)
{
    hx_native_init();
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
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_conditions),
        cmocka_unit_test(test_vex_modes),
        cmocka_unit_test(test_simd_exception),
        cmocka_unit_test(test_x87_error),
        cmocka_unit_test(test_alignment),
        cmocka_unit_test(test_rsp),
        cmocka_unit_test(test_features),
        cmocka_unit_test(test_closed_list),
        cmocka_unit_test(test_stub_memory),
        cmocka_unit_test(test_write_xor_execute),
        cmocka_unit_test(test_environment_pointers),
        cmocka_unit_test(test_mxcsr_reserved),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
