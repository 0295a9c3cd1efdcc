/* SPDX-License-Identifier: Apache-2.0 */
/* Of hot_ret.S: calls from page A into the page behind it, whose code calls back before it returns. */
#include "rt.h"
#include "hot.h"

#define STEPS 20000
#define FRAMES 4                  /* 0, 1 for A; 2, 3 for the page behind it */
#define VIEWS 2                   /* A and what is behind it, at two addresses */
#define AT    0x10
#define BEHIND (AT + 5)           /* of A: where the call returns to */

u64 call_it(u8 *fn, void (*callback)(void), u32 *second);
void call_moved(void);

static u32 gen[FRAMES];
static unsigned a_now[VIEWS], b_now[VIEWS], view;
static unsigned action;

static u8 *frame(unsigned n) { return (u8 *)(TPA + n * 0x1000UL); }
static u8 *lin(unsigned v) { return (u8 *)(TVA + v * 0x4000UL); }

static void put32(u8 *at, u32 v) { *(volatile u32 *)at = v; }

/* mov $id | generation << 8, eax or edx */
static void put_mov(u8 *at, unsigned op, unsigned n)
{
    *(volatile u8 *)at = (u8)op;
    put32(at + 1, n | gen[n] << 8);
}

static u32 value(unsigned n) { return n | gen[n] << 8; }

static void make(unsigned n)
{
    u8 *p = frame(n) + AT;
    if (n < 2) {
        p[0] = 0xe8;              /* call, or jmp in the same place of the next page */
        put32(p + 1, 0x1000 - 5);
        put_mov(p + 5, 0xb8, n);
        p[10] = 0xc3;
        p[11] = 0x90;
        return;
    }
    p[0] = 0xff;                  /* call *%rcx */
    p[1] = 0xd1;
    put_mov(p + 2, 0xba, n);
    p[7] = 0xc3;
}

static void map(unsigned v, unsigned second, unsigned n)
{
    volatile u64 *pte = &rt_pt[4 * v + second];
    *pte = (u64)frame(n) | 7 | (hot_random() % 4 ? 0 : PT_G);
    if (second)
        b_now[v] = n;
    else
        a_now[v] = n;
    if (hot_random() % 2 == 0 || *pte & PT_G)
        invlpg((u64)lin(v) + 0x1000 * second);
    else
        write_cr4(read_cr4() & ~(u64)CR4_PGE), write_cr4(read_cr4() | CR4_PGE);
}

static void rewrite(unsigned n)
{
    gen[n]++;
    put_mov(frame(n) + (n < 2 ? BEHIND : AT + 2), n < 2 ? 0xb8 : 0xba, n);
}

static void callback(void)
{
    switch (action) {
    case 1: map(view, 0, hot_random() % 2); break;
    case 2: map(view, 1, 2 + hot_random() % 2); break;
    case 3: rewrite(a_now[view]); break;
    case 4: rewrite(b_now[view]); break;
    default: break;
    }
}

static void step(void)
{
    u32 second = 0;
    view = hot_random() % VIEWS;
    action = hot_random() % 64;
    u64 first = call_it(lin(view) + AT, callback, &second);
    hot_expect("behind the call", first, value(a_now[view]));
    hot_expect("in the next page", second, value(b_now[view]));
}

/* The return address is changed: to two bytes further on, where the MOV has another one inside: of 0x77 to AL, or AH. */
static void moved(void)
{
    u32 second = 0;
    volatile u8 *p = frame(a_now[view]) + BEHIND;
    action = 0;
    for (unsigned n = 0; n < 2 * WARM; n++) {
        unsigned high = n >= WARM;
        if (n % WARM == 0) {
            p[2] = 0xb0 + high * 4;
            p[3] = 0x77;
            p[4] = 0x90;
        }
        u64 v = call_it(lin(view) + AT, n % 3 ? callback : call_moved, &second);
        if (n % 3 == 0)
            hot_expect("a return address that was changed", v >> high * 8 & 255, 0x77);
    }
    make(a_now[view]);
}

void hot_ret(void);
void hot_ret(void)
{
    for (unsigned n = 0; n < FRAMES; n++)
        make(n);
    for (unsigned v = 0; v < VIEWS; v++) {
        map(v, 0, 0);
        map(v, 1, 2 + v);
    }
    action = 0;
    for (u64 n = hot_count(STEPS); n; n--) {
        if (n % 1024 == 0)
            moved();
        step();
    }
}
