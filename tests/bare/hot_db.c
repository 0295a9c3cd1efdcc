/* SPDX-License-Identifier: Apache-2.0 */
/* Of hot_db.S: random breakpoints, and where they must trap. */
#include "rt.h"
#include "hot.h"

#define STEPS 12000
#define W (TPA + 0x200UL) /* what do_db writes */
#define R (TPA + 0x300UL) /* and reads */

void do_db(void);
void do_loop(void);
extern const u64 do_db_at[7];
extern u32 step_count, step_wrong, rt_hooks[];
void hook_step(void);

static void set_dr(unsigned n, u64 v)
{
    switch (n) {
    case 0: __asm__ volatile("mov %0, %%dr0" ::"r"(v)); break;
    case 1: __asm__ volatile("mov %0, %%dr1" ::"r"(v)); break;
    case 2: __asm__ volatile("mov %0, %%dr2" ::"r"(v)); break;
    default: __asm__ volatile("mov %0, %%dr3" ::"r"(v)); break;
    }
}
static void set_dr7(u64 v) { __asm__ volatile("mov %0, %%dr7" ::"r"(v) : "memory"); }
static void set_dr6(u64 v) { __asm__ volatile("mov %0, %%dr6" ::"r"(v)); }
static u64 get_dr6(void)
{
    u64 v;
    __asm__ volatile("mov %%dr6, %0" : "=r"(v));
    return v;
}

static struct { /* what is set, and what must come: instruction of do_db at whose beginning RIP is; 7: nothing */
    unsigned stop, bit;
    u64 flags, dr7;
} now;

/* A data breakpoint of 1, 2, 4 or 8 bytes at a word's address plus off; do_db touches all 8 bytes of both. */
static void set_data(unsigned n, u64 r)
{
    static const u8 len_bits[4] = { 0, 1, 3, 2 };
    unsigned log = r >> 8 & 3, access = r >> 12 & 1 ? 3 : 1, read = r >> 13 & 1;
    u64 at = (read ? R : W) + (r >> 16 & 31), size = 1UL << log;
    at &= ~(size - 1);
    set_dr(n, at);
    now.dr7 = (0x400 | ((u64)(access | len_bits[log] << 2) << (16 + 4 * n)) | (1UL + (r >> 14 & 1)) << (2 * n));
    now.bit = 1u << n;
    if (at < (read ? R : W) + 8)
        now.stop = !read ? 2 : access == 3 ? 4 : 7;
}

static void change(void)
{
    u64 r = hot_random();
    unsigned n = r & 3;
    now.stop = 7;
    now.bit = 0;
    now.flags = 0;
    now.dr7 = 0x400;
    switch (r >> 2 & 7) {
    case 0:
    case 1:
        now.stop = (unsigned)(hot_random() % 7);
        now.bit = 1u << n;
        set_dr(n, do_db_at[now.stop]);
        now.dr7 = 0x400 | (1UL + (r >> 14 & 1)) << (2 * n);
        break;
    case 2:
    case 3: set_data(n, r); break;
    case 4:
        now.flags = FL_TF;
        now.stop = 0; /* behind the CALL that POPF lets run */
        break;
    default: break;
    }
}

static void run(void)
{
    static struct hot_state s;
    static const u64 incs[8] = { 0, 1, 1, 2, 2, 2, 3, 3 };
    s.fn = do_db;
    s.r[RAX] = 0x1000;
    s.r[RDX] = 0x10;
    s.r[RDI] = W;
    s.r[RSI] = R;
    s.r[R10] = hot_random();
    s.r[R11] = 1;
    s.flags = 2 | now.flags;
    *(volatile u64 *)W = 5;
    *(volatile u64 *)R = 7;
    set_dr6(0xffff0ff0);
    hot_user = hot_random() & 1;
    set_dr7(now.dr7);
    hot_call(&s);
    u64 dr6 = get_dr6();
    set_dr7(0x400);
    hot_expect("the vector", x_vec, now.stop == 7 ? -1UL : DB);
    hot_expect("RAX shows how far it came", s.r[RAX], 0x1000 + incs[now.stop]);
    hot_expect("the store was done or not", *(volatile u64 *)W, now.stop >= 2 ? s.r[R10] : 5);
    hot_expect("the load was done or not", s.r[R11], now.stop >= 4 ? 7 : 1);
    if (now.stop == 7)
        return;
    hot_expect("RIP", x_rip, do_db_at[now.stop]);
    hot_expect("DR6", dr6 & (now.bit ? now.bit : 0x4000), now.bit ? now.bit : 0x4000);
    if (now.bit) /* other breakpoints' bits may be set though they are not enabled */
        hot_expect("DR6 without BS", dr6 & 0x4000, 0);
}

/* A hot loop, then the same with TF: each of its instructions traps. */
static void step(u64 rounds)
{
    static struct hot_state s;
    s.fn = do_loop;
    for (u64 n = hot_count(WARM); n; n--) {
        s.r[RCX] = 100;
        s.flags = 2;
        hot_call(&s);
    }
    rt_hooks[DB] = (u32)(u64)hook_step;
    step_count = step_wrong = 0;
    s.r[RAX] = 0;
    s.r[RCX] = rounds;
    s.flags = 2 | FL_TF;
    hot_call(&s);
    rt_hooks[DB] = 0;
    hot_expect("stepped: rounds", s.r[RAX], 2 * rounds);
    hot_expect("stepped: traps", step_count, 3 * rounds + 1);
    hot_expect("stepped: each follows the one before", step_wrong, 0);
}

void hot_db(void);
void hot_db(void)
{
    for (u64 n = hot_count(STEPS); n; n--) {
        change();
        for (unsigned k = 0; k < 2; k++)
            run();
    }
    hot_user = 0;
    step(300);
    hot_user = 1;
    step(300);
    hot_user = 0;
}
