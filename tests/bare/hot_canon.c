/* SPDX-License-Identifier: Apache-2.0 */
/* Of hot_canon.S: which address each form gets, and what must come out. */
#include "rt.h"
#include "hot.h"

#define HOLE 0x0000800000000000UL
#define HIGH 0xffff800000000000UL

extern const struct hot_form forms[], forms_end[];

static u64 bias; /* effective address minus the base register, found out by trying */
static int is_ss;

static void begin(struct hot_state *s, const struct hot_form *f, u64 at)
{
    for (unsigned n = 0; n < 16; n++)
        s->r[n] = 0x9182736455463728UL * (n + 3);
    s->r[RCX] = 4;
    for (unsigned n = 0; n < sizeof(s->vec); n++)
        ((u8 *)s->vec)[n] = (u8)(n * 29 + 7);
    s->r[f->base] = at - bias;
    s->fn = f->fn;
    s->flags = 2 | (at & 2 ? 0x8d5 : 0x40);
}

static void good(const struct hot_form *f)
{
    struct hot_state s;
    u64 buf = (u64)rt_buf + 0x1000;
    if (f->fill)
        *(volatile u64 *)buf = f->fill;
    begin(&s, f, buf);
    hot_call(&s);
    hot_expect(hot_name(f->name, "a good address"), x_vec, -1UL);
}

/* A check in which QEMU differs fails once only, since a run shows 40 failures at most. */
static void noted(const char *name, u64 got, u64 want)
{
    static const char *failed[2];
    static unsigned n;
    if (got == want || (failed[0] != name && failed[1] != name))
        hot_expect(name, got, want);
    if (got != want)
        failed[n++ % 2] = name;
}

static void bad(const struct hot_form *f, u64 at, u64 vec, const char *what)
{
    struct hot_state a, b;
    begin(&a, f, at);
    begin(&b, f, at);
    hot_call(&b);
    if (vec == GP && is_ss)
        noted("through RSP or RBP", x_vec, SSF);
    else
        noted(what, x_vec, vec);
    if (x_vec != PF)
        hot_expect(hot_name(f->name, "error code"), x_err, 0);
    else if (vec == PF)
        hot_expect(hot_name(f->name, "CR2"), x_cr2, at);
    hot_expect(hot_name(f->name, "RIP"), x_rip, (u64)f->insn);
    hot_expect(hot_name(f->name, "flags"), x_flags & 0x8d5, a.flags & 0x8d5);
    a.r[RSP] = b.r[RSP] = 0;
    hot_expect(hot_name(f->name, "registers"), hot_differ(a.r, b.r, sizeof(a.r)), 0);
    hot_expect(hot_name(f->name, "vectors"), hot_differ(a.vec, b.vec, sizeof(a.vec)), 0);
    if (f->stack)
        hot_expect(hot_name(f->name, "RSP"), x_rsp, a.r[RBX]);
}

/* The base register for which the form's operand begins at a page that is not there: CR2 tells. */
static void find_bias(const struct hot_form *f)
{
    struct hot_state s;
    bias = 0;
    begin(&s, f, 0x200000000000UL);
    hot_call(&s);
    hot_expect(hot_name(f->name, "nothing is there"), x_vec, PF);
    bias = x_cr2 - 0x200000000000UL;
}

static void edges(const struct hot_form *f)
{
    u64 n = f->size;
    bad(f, HOLE, GP, "the first address of the hole");
    bad(f, HIGH - n, GP, "the last of the hole");
    bad(f, 0x1234567812345678UL, GP, "inside the hole");
    bad(f, 0x8000000000000000UL, GP, "bit 63 alone");
    bad(f, 0xff7f800000001000UL, GP, "one bit of the upper half missing");
    bad(f, ((u64)rt_buf + 0x1000) | 1UL << 48, GP, "a good one with bit 48");
    bad(f, ((u64)rt_buf + 0x1000) | 0x8642UL << 48, GP, "a good one with bits of the upper sixteen");
    bad(f, HOLE - n, PF, "the last canonical ones");
    bad(f, HIGH, PF, "the first of the upper half");
    bad(f, 0xffffffffffffff00UL, PF, "near the top");
    for (u64 k = 1; k < n; k += n / 3 + 1)
        bad(f, HOLE - k, GP, "across the edge");
    for (u64 k = 1; k < n; k += n / 3 + 1)
        bad(f, HIGH - k, GP, "across the upper edge");
}

void hot_canon(void);
void hot_canon(void)
{
    for (const struct hot_form *f = forms; f < forms_end; f++) {
        if (f->need > hot_vecs)
            continue;
        is_ss = f->stack || f->base == RBP;
        find_bias(f);
        for (u64 n = hot_count(WARM); n; n--)
            good(f);
        edges(f);
        good(f);
        for (u64 n = hot_count(8); n; n--)
            edges(f);
        good(f);
    }
}
