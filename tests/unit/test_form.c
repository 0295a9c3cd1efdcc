/* Forms of instructions (engine/interp/form.h): whatever was seen before, an instruction decodes, binds and classifies as it does
 * without a memory. Random encodings and the host's own code, each head with several displacements and immediates. */
#include <stdio.h>
#include <stdlib.h>

#include "test.h"

#include "base/err.h"
#include "engine/dbt/place.h"
#include "engine/interp/interp.h"
#include "x86/cpuid.h"

static struct rig {
    struct cpuid_table cpuid;
    struct engine engine;
    struct interp_shared shared;
    struct vcpu vcpu;
    struct interp it;
    struct dbt dbt;
    uint64_t known, unknown, seed;
} *rig;

static uint64_t rnd(void)
{
    uint64_t x = rig->seed += 0x9e3779b97f4a7c15ULL;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ULL;
    x = (x ^ x >> 27) * 0x94d049bb133111ebULL;
    return x ^ x >> 31;
}

static int setup(void **state)
{
    struct err err;
    rig = calloc(1, sizeof(*rig));
    rig->seed = 1;
    assert_int_equal(cpuid_build(&rig->cpuid, "host", 1, 2000000, &err), 0);
    bind_init(&rig->shared);
    rig->engine.priv = &rig->shared;
    rig->vcpu.engine = &rig->engine;
    rig->vcpu.cpu.cpuid = &rig->cpuid;
    rig->vcpu.cpu.code_size = 8;
    rig->it.vcpu = &rig->vcpu;
    rig->it.hx = hostexec_create();
    rig->it.forms = forms_create();
    rig->dbt.it = &rig->it;
    assert_non_null(rig->it.hx);
    assert_non_null(rig->it.forms);
    return 0;
}

static int teardown(void **state)
{
    hostexec_destroy(rig->it.hx);
    forms_destroy(rig->it.forms);
    free(rig);
    return 0;
}

static void forget(void)
{
    hostexec_clear(rig->it.hx);
    forms_clear(rig->it.forms);
}

static void show(const uint8_t *p, const char *what)
{
    char text[3 * 15 + 1];
    for (unsigned n = 0; n < 15; n++)
        snprintf(text + 3 * n, 4, "%02x ", p[n]);
    fail_msg("%s: %s", what, text);
}

/* Decode and bind without forms. */
static enum decode_result plain(const uint8_t *p, unsigned n, struct insn *i)
{
    struct decoded d;
    enum decode_result r = insn_decode(p, n, 8, rig->cpuid.vendor == VENDOR_AMD, i, &d);
    if (r == DECODE_OK && !bind_insn(&rig->it, i, &d)) {
        forget();
        assert_true(bind_insn(&rig->it, i, &d));
    }
    return r;
}

static void classified(const uint8_t *p, const struct insn *i, uint32_t form)
{
    static _Alignas(16) uint8_t memory[sizeof(struct block) + sizeof(struct insn) + sizeof(form)];
    static struct xblock with, without;
    struct block *b = (struct block *)memory;
    *b = (struct block){ .n = 1, .len = i->len, .epoch = rig->it.forms->epoch };
    memcpy(&b->insn[0], i, sizeof(*i));
    memcpy(&b->insn[1], &form, sizeof(form));
    with.t = without.t = &rig->dbt;
    with.cpu = without.cpu = &rig->vcpu.cpu;
    with.n = without.n = 0;
    assert_true(x_classify(&with, b, p, 7));
    b->epoch--;
    assert_true(x_classify(&without, b, p, 7));
    struct xinsn *x = &with.x[0], *y = &without.x[0];
    memset(x->imm + x->imm_len, 0, sizeof(x->imm) - x->imm_len);
    memset(y->imm + y->imm_len, 0, sizeof(y->imm) - y->imm_len);
    if (memcmp(x, y, sizeof(*x)) != 0)
        show(p, "classified otherwise");
}

/* n bytes at p, of which the first 15 matter. */
static void same(const uint8_t *p, unsigned n)
{
    struct insn want, got;
    uint32_t form;
    bool full;
    enum decode_result r = plain(p, n, &want), s = form_decode(&rig->it, p, n, &got, &form, &full);
    if (s == DECODE_OK && full) {
        forget();
        r = plain(p, n, &want);
        s = form_decode(&rig->it, p, n, &got, &form, &full);
        assert_false(full);
    }
    if (r != s || (r == DECODE_OK && memcmp(&want, &got, sizeof(got)) != 0))
        show(p, "decoded otherwise");
    if (r != DECODE_OK)
        return;
    rig->known += form != 0;
    rig->unknown += form == 0;
    if (form)
        classified(p, &got, form);
}

/* The same head with other values behind it, and cut off. */
static void same_varied(const uint8_t *code)
{
    struct insn_parts s;
    uint8_t p[16];
    memcpy(p, code, sizeof(p));
    same(p, 16);
    if (!insn_split(p, &s))
        return;
    unsigned len = s.head + s.disp + s.imm;
    for (unsigned k = 0; k < 3; k++) {
        for (unsigned n = s.head; n < sizeof(p); n++)
            p[n] = k && rnd() % 4 == 0 ? (rnd() & 1 ? 0 : 0xff) : (uint8_t)rnd();
        if (s.imm_is_opcode && k < 2)
            p[s.head + s.disp] = code[s.head + s.disp];
        same(p, k == 1 ? len : 16);
    }
    same(p, (unsigned)(rnd() % len) + 1);
}

static void random_code(uint8_t *p)
{
    static const uint8_t prefix[] = { 0x66, 0xf2, 0xf3, 0x67, 0x64, 0x65, 0xf0, 0x2e, 0x26, 0x36, 0x3e };
    unsigned n = 0, kind = (unsigned)(rnd() % 16);
    for (unsigned k = 0; k < 16; k++)
        p[k] = (uint8_t)rnd();
    while (rnd() % 3 == 0 && n < 6)
        p[n++] = prefix[rnd() % (rnd() & 1 ? 3 : sizeof(prefix))];
    if (kind >= 12) {
        p[n] = kind == 12 ? 0xc5 : kind == 13 ? 0xc4 : 0x62;
        if (kind == 13)
            p[n + 1] = (uint8_t)((p[n + 1] & 0xe0) | (1 + rnd() % 3));
        if (kind > 13) {
            p[n + 1] &= 0xf7;
            p[n + 2] |= 4;
        }
        return;
    }
    if (rnd() & 1)
        p[n++] = 0x40 | (rnd() & 15);
    if (kind < 6)
        return;
    p[n++] = 0x0f;
    if (kind == 10)
        p[n] = 0x38;
    if (kind == 11)
        p[n] = 0x3a;
}

/* The tables have a row for each 16 opcodes, and each opcode is met with and without prefixes. */
static void each_opcode(void **state)
{
    static const uint8_t lead[][3] = { { 0, 0, 0 }, { 0x0f, 0, 1 }, { 0x0f, 0x38, 2 }, { 0x0f, 0x3a, 2 } };
    static const uint8_t prefix[][3] = { { 0, 0, 0 }, { 0x66, 0, 1 }, { 0xf3, 0, 1 }, { 0xf2, 0, 1 }, { 0x48, 0, 1 }, { 0x66, 0x48, 2 } };
    for (unsigned op = 0; op < 256; op++)
        for (unsigned modrm = 0; modrm < 256; modrm += modrm < 64 || modrm >= 192 ? 1 : 5)
            for (unsigned l = 0; l < ARRAY_LEN(lead); l++)
                for (unsigned k = 0; k < ARRAY_LEN(prefix); k++) {
                    uint8_t p[16] = { 0 };
                    unsigned n = prefix[k][2], m = lead[l][2];
                    memcpy(p, prefix[k], n);
                    memcpy(p + n, lead[l], m);
                    p[n + m] = (uint8_t)op;
                    p[n + m + 1] = (uint8_t)modrm;
                    for (unsigned b = n + m + 2; b < 16; b++)
                        p[b] = (uint8_t)rnd();
                    same(p, 16);
                    p[n + m + 5] ^= 0xff;
                    same(p, 16);
                }
}

static void random_encodings(void **state)
{
    unsigned count = getenv("VITRO_FORM_COUNT") ? (unsigned)atoi(getenv("VITRO_FORM_COUNT")) : 150000;
    uint8_t p[16];
    for (unsigned n = 0; n < count; n++) {
        random_code(p);
        same_varied(p);
    }
    assert_true(rig->known > rig->unknown);
}

/* This program's own code, at each of its bytes. */
static void own_code(void **state)
{
    extern const uint8_t __executable_start[], etext[];
    size_t size = (size_t)(etext - __executable_start);
    forget();
    rig->it.forms->stat_missed = rig->known = rig->unknown = 0;
    for (size_t at = size > 400000 ? size - 400000 : 0; at + 16 < size; at++)
        same(__executable_start + at, 16);
    assert_true(rig->known > 20 * rig->unknown);
    assert_true(rig->known > 3 * rig->it.forms->stat_missed);
}

/* Several at once are the same as one after the other. Returns how many that were. */
static unsigned same_ahead(const uint8_t *p, unsigned n)
{
    struct form_look look[FORM_AHEAD];
    unsigned looked = form_look_ahead(&rig->it, p, n, look), at = 0, k = 0;
    assert_in_range(looked, 1, FORM_AHEAD);
    for (; k < looked; k++) {
        struct insn want, got;
        uint32_t form, again;
        bool full, fills;
        enum decode_result r = form_found(&rig->it, &look[k], &got, &form, &full);
        if (full) {
            forget();
            break;
        }
        if (form_decode(&rig->it, p + at, n - at, &want, &again, &fills) != r || (r == DECODE_OK && memcmp(&want, &got, sizeof(got)) != 0))
            show(p + at, "decoded otherwise in a row");
        if (r != DECODE_OK || got.len != look[k].len)
            return k + 1;
        at += got.len;
        assert_true(at < n || k + 1 == looked);
    }
    return k;
}

static void in_a_row(void **state)
{
    extern const uint8_t __executable_start[], etext[];
    size_t size = (size_t)(etext - __executable_start), rows = 0, all = 0;
    uint8_t p[80];
    for (size_t at = size > 200000 ? size - 200000 : 0; at + sizeof(p) < size; at += 3, rows++)
        all += same_ahead(__executable_start + at, 1 + rnd() % 63);
    for (unsigned n = 0; n < 20000; n++) {
        for (unsigned k = 0; k < sizeof(p); k += 16)
            random_code(p + k);
        same_ahead(p, 1 + rnd() % 63);
    }
    assert_true(all > 2 * rows);
}

/* Numbers of forms are good for one epoch, and the table is bounded. */
static void table_is_bounded(void **state)
{
    struct forms *f = rig->it.forms;
    uint32_t epoch = f->epoch;
    for (unsigned n = 0; n < 2 * FORM_MAX; n++) { /* add r, [base + index * scale] and its like */
        const uint8_t p[16] = { 0x40 | (n >> 14 & 15), (n >> 18 & 7) << 3 | 3, (n >> 8 & 0x38) | 4, (uint8_t)n };
        struct insn i;
        uint32_t form;
        bool full;
        assert_int_equal(form_decode(&rig->it, p, 16, &i, &form, &full), DECODE_OK);
        assert_true(form < FORM_MAX);
    }
    assert_true(f->epoch > epoch || f->used < FORM_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_opcode),
        cmocka_unit_test(random_encodings),
        cmocka_unit_test(own_code),
        cmocka_unit_test(in_a_row),
        cmocka_unit_test(table_is_bounded),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
