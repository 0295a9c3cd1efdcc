/* SPDX-License-Identifier: Apache-2.0 */
/* Of hot_mem.S: the situations, and what must come out. */
#include "rt.h"
#include "hot.h"

/* TVA's first page is memory at TPA + 0x3000, the next one at TPA. */
#define PAGE0 (TPA + 0x3000UL)
#define PAGE1 (TPA + 0UL)
#define NEXT (TVA + 0x1000UL)
#define AROUND 64 /* bytes looked at on each side */
#define SPAN (2 * AROUND + 64)

extern const struct hot_form forms[], forms_end[];

static const struct mode {
    const char *name;
    u64 user, flags;
} modes[] = {
    { "ring 0", 0, 0 },
    { "ring 3", 1, 0 },
    { "ring 3, AC", 1, FL_AC },
    { "ring 0, AC", 0, FL_AC },
};
static const struct mode smap = { "SMAP, AC", 0, FL_AC };
static const struct mode *mode;

static u8 *flat(void) { return rt_buf + 0x1000 + AROUND; }

static void map(unsigned page, u64 entry)
{
    rt_pt[page] = entry;
    invlpg(TVA + page * 0x1000UL);
}

/* Byte of the two pages, wherever it lies. */
static volatile u8 *byte_at(u64 lin)
{
    return (volatile u8 *)((lin < NEXT ? PAGE0 : PAGE1) + (lin & 0xfff));
}

static void begin(struct hot_state *s, const struct hot_form *f, u64 at, u64 arith)
{
    for (unsigned n = 0; n < 16; n++)
        s->r[n] = 0x9182736455463728UL * (n + 3);
    s->r[RCX] = 4;
    for (unsigned n = 0; n < sizeof(s->vec); n++)
        ((u8 *)s->vec)[n] = (u8)(n * 29 + 7);
    s->r[f->base] = f->stack && f->kind == HOT_WRITE ? at + f->size : at;
    s->fn = f->fn;
    s->flags = 2 | arith | mode->flags;
}

static void call(struct hot_state *s)
{
    hot_user = mode->user;
    hot_call(s);
}

static void fill_bytes(u64 at, const struct hot_form *f, u8 seed)
{
    for (unsigned n = 0; n < SPAN; n++) {
        u8 b = (u8)(n * 13 + seed);
        if (f->fill && n >= AROUND && n < AROUND + 8)
            b = (u8)(f->fill >> 8 * (n - AROUND));
        flat()[(int)n - AROUND] = b;
        *byte_at(at - AROUND + n) = b;
    }
}

static u64 bytes_differ(u64 at)
{
    for (unsigned n = 0; n < SPAN; n++)
        if (flat()[(int)n - AROUND] != *byte_at(at - AROUND + n))
            return n + 1;
    return 0;
}

/* Where a register differs between two states, as a mask; those that hold addresses count from theirs. */
static u64 regs_differ(const struct hot_form *f, const struct hot_state *a, u64 at_a, const struct hot_state *b,
                       u64 at_b)
{
    u64 mask = 0;
    for (unsigned n = 0; n < 16; n++) {
        u64 x = a->r[n], y = b->r[n];
        if (n == RSP)
            continue;
        if ((n == f->base || (f->stack && (n == R11 || n == RBP))) && x - at_a == y - at_b)
            continue;
        if (x != y)
            mask |= 1UL << n;
    }
    return mask;
}

/* Run at `at`, and on flat memory: the same must happen. */
static void same(const struct hot_form *f, u64 at, u64 arith, const char *what)
{
    struct hot_state a, b;
    fill_bytes(at, f, (u8)(at + arith));
    begin(&a, f, (u64)flat(), arith);
    call(&a);
    hot_expect(hot_name(f->name, "flat memory faults"), x_vec, -1UL);
    begin(&b, f, at, arith);
    call(&b);
    hot_expect(hot_name(f->name, what), x_vec, -1UL);
    hot_expect(hot_name(f->name, hot_name(what, "registers")), regs_differ(f, &a, (u64)flat(), &b, at), 0);
    hot_expect(hot_name(f->name, hot_name(what, "flags")), b.flags, a.flags);
    hot_expect(hot_name(f->name, hot_name(what, "vectors")), hot_differ(a.vec, b.vec, sizeof(a.vec)), 0);
    hot_expect(hot_name(f->name, hot_name(what, "memory")), bytes_differ(at), 0);
}

/* Run at `at`: it must fault, and nothing may have changed. */
static void faults(const struct hot_form *f, u64 at, u64 vec, u64 err, u64 cr2, const char *what)
{
    struct hot_state a, b;
    u64 arith = at & 1 ? 0x8d5 : 0;
    fill_bytes(at, f, (u8)at);
    begin(&a, f, at, arith);
    begin(&b, f, at, arith);
    call(&b);
    hot_expect(hot_name(f->name, what), x_vec, vec);
    if (f->kind == HOT_RMW && (err & 2) && x_err != err)
        hot_expect("a read-modify-write reports a write", x_err, err);
    else
        hot_expect(hot_name(f->name, hot_name(what, "error code")), x_err, err);
    hot_expect(hot_name(f->name, hot_name(what, "RIP")), x_rip, (u64)f->insn);
    if (vec == PF)
        hot_expect(hot_name(f->name, hot_name(what, "CR2")), x_cr2, cr2);
    if (f->stack)
        hot_expect(hot_name(f->name, hot_name(what, "RSP")), x_rsp, a.r[RBX]);
    hot_expect(hot_name(f->name, hot_name(what, "registers")), regs_differ(f, &a, at, &b, at), 0);
    hot_expect(hot_name(f->name, hot_name(what, "flags")), x_flags & 0x8d5, arith);
    hot_expect(hot_name(f->name, hot_name(what, "vectors")), hot_differ(a.vec, b.vec, sizeof(a.vec)), 0);
    hot_expect(hot_name(f->name, hot_name(what, "memory")), bytes_differ(at), 0);
}

/* Places of an operand of this size across NEXT: at most four. */
static unsigned across(const struct hot_form *f, u64 at[4])
{
    unsigned n = 0;
    static const u8 part[4] = { 1, 3, 8, 31 };
    for (unsigned k = 0; k < 4; k++)
        if (part[k] < f->size)
            at[n++] = NEXT - part[k];
    if (f->size > 2 && n < 4)
        at[n++] = NEXT - f->size + 1;
    return n;
}

static void missing(const struct hot_form *f, const u64 *at, unsigned n)
{
    u64 user = mode->user * PT_U;
    u64 write = f->kind & HOT_WRITE ? PT_W : 0;
    map(1, 0);
    for (unsigned k = 0; k < n; k++)
        faults(f, at[k], PF, user | write, NEXT, "second page missing");
    map(0, 0);
    map(1, PAGE1 | 7);
    faults(f, at[0], PF, user | write, at[0], "first page missing");
    faults(f, TVA + 0x800, PF, user | write, TVA + 0x800, "page missing");
    map(0, PAGE0 | 7);
    map(1, PAGE1 | 5);
    for (unsigned k = 0; k < n; k++) {
        if (write)
            faults(f, at[k], PF, user | 3, NEXT, "second page read-only");
        else
            same(f, at[k], 0x8d5, "read-only");
    }
    map(1, PAGE1 | 7);
}

/* The second page is where nothing answers: what it reads differs between machines, but the first page is served. */
static void mmio(const struct hot_form *f, u64 at)
{
    struct hot_state a, b;
    if (f->fill)
        return;
    fill_bytes(at, f, 3);
    map(1, 0xE0000000UL | 7);
    begin(&a, f, (u64)flat(), 0);
    call(&a);
    begin(&b, f, at, 0);
    call(&b);
    map(1, PAGE1 | 7);
    hot_expect(hot_name(f->name, "into MMIO"), x_vec, -1UL);
    u64 wrong = bytes_differ(at);
    if (f->kind == HOT_WRITE)
        hot_expect(hot_name(f->name, "into MMIO: first page"), wrong && wrong <= AROUND + (NEXT - at), 0);
}

static void form(const struct hot_form *f)
{
    u64 at[4];
    unsigned n = across(f, at);
    map(0, PAGE0 | 7);
    map(1, PAGE1 | 7);
    for (u64 k = hot_count(WARM); k; k--)
        same(f, TVA + 0x800, 0, "aligned");
    for (unsigned k = 1; k < 16; k += 2)
        same(f, TVA + 0x800 + k, 0x8d5, "unaligned");
    missing(f, at, n);
    for (unsigned k = 0; k < hot_count(24); k++)
        same(f, at[k % n], k & 1 ? 0x8d5 : 0, "across pages");
    missing(f, at, n);
    if (!mode->user)
        mmio(f, at[n - 1]);
    same(f, TVA + 0x808, 0, "aligned again");
}

void hot_mem(u64 rings);
void hot_mem(u64 rings)
{
    for (unsigned m = 0; m < (rings ? 4 : 1); m++) {
        mode = rings ? &modes[m] : &smap;
        for (const struct hot_form *f = forms; f < forms_end; f++)
            if (f->need <= hot_vecs)
                form(f);
    }
}
