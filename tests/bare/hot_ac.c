/* SPDX-License-Identifier: Apache-2.0 */
/* Of hot_ac.S: the random steps, and what must come of them. */
#include "rt.h"
#include "hot.h"

#define STEPS 20000

void do_load(void);
void do_word(void);
void do_store(void);
void do_xadd(void);
void do_push(void);
void do_pop(void);
void do_call(void);
void do_ret(void);
void do_ret_back(void);

static const struct what {
    const char *name;
    void (*fn)(void);
    unsigned size, write;
} whats[] = {
    { "load", do_load, 8, 0 },      { "word", do_word, 2, 0 }, { "store", do_store, 4, 1 }, { "lock xadd", do_xadd, 8, 1 },
    { "push", do_push, 8, 1 },      { "pop", do_pop, 8, 0 },   { "call", do_call, 8, 1 },   { "ret", do_ret, 8, 0 },
};

static u64 am, ac, user, present;

static void change(void)
{
    u64 r = hot_random();
    if (r % 8 == 0) {
        am = r >> 8 & 3;
        write_cr0(am ? read_cr0() | CR0_AM : read_cr0() & ~(u64)CR0_AM);
    } else if (r % 8 == 1) {
        present = r >> 8 & 7;
        rt_pt[0] = present ? TPA | 7 : 0;
        invlpg(TVA);
    } else if (r % 4 == 2) {
        user = r >> 8 & 1;
        ac = r >> 9 & 1;
    }
}

static void done(const struct what *w, const struct hot_state *s, u64 value, u64 old)
{
    if (w->fn == do_load || w->fn == do_pop)
        hot_expect(hot_name(w->name, "value"), s->r[RAX], old);
    if (w->fn == do_word)
        hot_expect(hot_name(w->name, "value"), s->r[RAX] & 0xffff, old & 0xffff);
    if (w->fn == do_store)
        hot_expect(hot_name(w->name, "value"), value, (old & ~0xffffffffUL) | 0xcafef00d);
    if (w->fn == do_xadd)
        hot_expect(hot_name(w->name, "value"), value, old + 0x1234567);
    if (w->fn == do_push)
        hot_expect(hot_name(w->name, "value"), value, 0xfeedfacecafef00d);
}

static void access(void)
{
    static struct hot_state s __attribute__((aligned(64)));
    static int noted[2];
    const struct what *w = &whats[hot_random() % 8];
    u64 r = hot_random(), off = 0x200 + (r & 1 ? (r >> 8 & 15) : (r >> 8 & 1) * 8);
    volatile u64 *word = (volatile u64 *)(TPA + off);
    u64 old = w->fn == do_ret ? (u64)do_ret_back : hot_random(), vec = -1UL, err;
    *word = old;
    if (!present)
        vec = PF;
    if (am && ac && user && off % w->size)
        vec = AC;
    s.fn = w->fn;
    s.r[RDI] = TVA + off;
    s.r[R10] = 0x1234567;
    s.r[R11] = 0xfeedfacecafef00d;
    s.flags = 2 | 0x8d5 | (ac ? FL_AC : 0);
    hot_user = user;
    hot_call(&s);
    if (vec == AC && x_vec != AC) { /* QEMU differs; say so once */
        if (!noted[0]++)
            hot_expect("an unaligned access", x_vec, AC);
        return;
    }
    hot_expect(hot_name(w->name, "vector"), x_vec, vec);
    if (x_vec == -1UL) {
        done(w, &s, *word, old);
        return;
    }
    err = vec == AC ? 0 : (w->write ? 2 : 0) | (user ? 4 : 0);
    if (w->fn == do_xadd && x_err != err) {
        if (!noted[1]++)
            hot_expect("a read-modify-write reports a write", x_err, err);
    } else {
        hot_expect(hot_name(w->name, "error code"), x_err, err);
    }
    hot_expect(hot_name(w->name, "nothing was stored"), *word, old);
    hot_expect(hot_name(w->name, "flags"), x_flags & 0x8d5, 0x8d5);
    hot_expect(hot_name(w->name, "registers"), s.r[RDI] == TVA + off && s.r[R10] == 0x1234567, 1);
    if (vec == PF)
        hot_expect(hot_name(w->name, "CR2"), x_cr2, TVA + off);
}

void hot_ac(void);
void hot_ac(void)
{
    present = 1;
    rt_pt[0] = TPA | 7;
    invlpg(TVA);
    for (u64 n = hot_count(STEPS); n; n--) {
        change();
        access();
    }
    write_cr0(read_cr0() & ~(u64)CR0_AM);
}
