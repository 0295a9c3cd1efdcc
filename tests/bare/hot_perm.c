/* SPDX-License-Identifier: Apache-2.0 */
/* Of hot_perm.S: the random steps and the model of SDM 4.6. */
#include "rt.h"
#include "hot.h"

#define STEPS 30000
#define NX (1UL << 63)
#define WORD (TPA + 0x200UL)
#define CODE 0x10
#define PDE rt_pd[TVA >> 21]

void do_load(void);
void do_store(void);
void do_xadd(void);
void do_push(void);
void do_call(void);

enum { READ = 1, WRITE = 2, EXEC = 4 };

static const struct what {
    const char *name;
    void (*fn)(void);
    unsigned acc;
} whats[] = {
    { "load", do_load, READ },
    { "store", do_store, WRITE },
    { "lock xadd", do_xadd, READ | WRITE },
    { "push", do_push, WRITE },
    { "call", do_call, EXEC },
};

static u64 user, ac, wp, smep, smap, dirty;

static void set_cr(void)
{
    u64 v = read_cr0() & ~(u64)CR0_WP;
    write_cr0(wp ? v | CR0_WP : v);
    v = read_cr4() & ~(u64)(CR4_SMEP | CR4_SMAP);
    write_cr4(v | (smep ? CR4_SMEP : 0) | (smap ? CR4_SMAP : 0));
}

static void change(int rings)
{
    u64 r = hot_random();
    if (r % 4 == 0) {
        u64 bits = hot_random();
        u64 pte = TPA | (bits & 15 ? PT_P : 0) | (bits & 16 ? PT_W : 0) | (bits & 32 ? PT_U : 0) | (bits & 0xc0 ? 0 : NX);
        u64 pde = (u64)rt_pt | PT_P | (bits & 0x300 ? PT_W : 0) | (bits & 0xc00 ? PT_U : 0) | (bits & 0x7000 ? 0 : NX);
        rt_pt[0] = pte;
        PDE = pde;
        dirty = 0;
        invlpg(TVA);
    } else if (r % 16 == 1) {
        wp = hot_random() & 1;
        set_cr();
    } else if (r % 16 == 2 && !rings) {
        smep = hot_random() & 1;
        smap = hot_random() & 3;
        set_cr();
    } else if (r % 4 == 3) {
        user = rings && (hot_random() & 1);
        ac = hot_random() & 1;
    }
}

/* The error code, or -1: allowed. */
static u64 model(unsigned acc)
{
    u64 pte = rt_pt[0], pde = PDE, both = pte & pde;
    u64 err = (acc & WRITE ? 2 : 0) | (user ? 4 : 0) | (acc & EXEC ? 16 : 0);
    if (!(pte & PT_P))
        return err;
    err |= 1;
    if ((acc & EXEC) && ((pte | pde) & NX))
        return err;
    if (user)
        return !(both & PT_U) || ((acc & WRITE) && !(both & PT_W)) ? err : -1UL;
    if ((acc & EXEC) && smep && (both & PT_U))
        return err;
    if (!(acc & EXEC) && smap && !ac && (both & PT_U))
        return err;
    return (acc & WRITE) && wp && !(both & PT_W) ? err : -1UL;
}

static void done(const struct what *w, const struct hot_state *s, u64 old)
{
    u64 now = *(volatile u64 *)WORD;
    if (w->acc & WRITE)
        dirty = PT_D;
    if (w->acc & EXEC)
        hot_expect(hot_name(w->name, "its code"), s->r[RAX], 0x123456);
    else if (w->acc == READ)
        hot_expect(hot_name(w->name, "value"), s->r[RAX], old);
    else if (w->acc == WRITE)
        hot_expect(hot_name(w->name, "value"), now, 0xfeedfacecafef00d);
    else
        hot_expect(hot_name(w->name, "value"), s->r[R10] == old && now == old + 0x1234567, 1);
    hot_expect(hot_name(w->name, "A and D"), rt_pt[0] & (PT_A | PT_D), PT_A | dirty);
}

static void refused(const struct what *w, const struct hot_state *s, u64 old, u64 err, u64 at)
{
    static int noted; /* QEMU differs; say so once */
    if (w->acc == (READ | WRITE) && x_err != err) {
        if (!noted++)
            hot_expect("a read-modify-write reports a write", x_err, err);
    } else {
        hot_expect(hot_name(w->name, "error code"), x_err, err);
    }
    hot_expect(hot_name(w->name, "CR2"), x_cr2, at);
    hot_expect(hot_name(w->name, "nothing was stored"), *(volatile u64 *)WORD, old);
    hot_expect(hot_name(w->name, "D is kept"), rt_pt[0] & PT_D, dirty);
    hot_expect(hot_name(w->name, "registers"), s->r[RDI] == at && s->r[R10] == 0x1234567, 1);
    hot_expect(hot_name(w->name, "flags"), x_flags & 0x8d5, 0x8d5);
}

static void access(void)
{
    static struct hot_state s;
    const struct what *w = &whats[hot_random() % 5];
    u64 at = TVA + (w->acc & EXEC ? CODE : 0x200), old = hot_random();
    u64 err = model(w->acc);
    *(volatile u64 *)WORD = old;
    s.fn = w->fn;
    s.r[RDI] = at;
    s.r[R10] = 0x1234567;
    s.r[R11] = 0xfeedfacecafef00d;
    s.flags = 2 | 0x8d5 | (ac ? FL_AC : 0);
    hot_user = user;
    hot_call(&s);
    hot_expect(w->name, x_vec, err == -1UL ? -1UL : PF);
    if (x_vec == -1UL && err == -1UL)
        done(w, &s, old);
    else if (x_vec == PF && err != -1UL)
        refused(w, &s, old, err, at);
}

void hot_perm(u64 rings);
void hot_perm(u64 rings)
{
    *(volatile u8 *)(TPA + CODE) = 0xb8;
    *(volatile u32 *)(TPA + CODE + 1) = 0x123456;
    *(volatile u8 *)(TPA + CODE + 5) = 0xc3;
    user = ac = smep = smap = dirty = 0;
    rt_pt[0] = TPA | 7;
    invlpg(TVA);
    for (u64 n = hot_count(STEPS); n; n--) {
        change(rings);
        access();
    }
    wp = smep = smap = 0;
    set_cr();
}
