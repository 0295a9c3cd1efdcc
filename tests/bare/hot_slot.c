/* SPDX-License-Identifier: Apache-2.0 */
/* Of hot_slot.S: pages 256 KiB apart, each with small functions at the same few offsets, and the random steps. */
#include "rt.h"
#include "hot.h"

#define STEPS  40000
#define PAGES  6        /* linear ones */
#define FRAMES 12
#define APART  0x40000UL

u32 slot_call(u64 fn);
u32 slot_jump(u64 fn);

static const u16 at[] = { 0, 1, 0x7f0, 0x7f1, 0xff0 };
static u32 gen[FRAMES];
static unsigned now[PAGES];

static u8 *frame(unsigned n) { return (u8 *)(TPA + n * 0x1000UL); }
static u64 lin(unsigned p) { return TVA + p * APART; }

/* nop; nop; mov $(frame | generation << 8), %eax; ret */
static void make(unsigned n)
{
    gen[n]++;
    for (unsigned k = 0; k < sizeof(at) / sizeof(at[0]); k += 2) {
        volatile u8 *p = frame(n) + at[k];
        p[0] = p[1] = 0x90;
        p[2] = 0xb8;
        *(volatile u32 *)(p + 3) = n | gen[n] << 8;
        p[7] = 0xc3;
    }
}

static void map(unsigned p, unsigned n)
{
    volatile u64 *pte = &rt_pt[p * APART / 0x1000];
    *pte = (u64)frame(n) | 7;
    now[p] = n;
    invlpg(lin(p));
}

static void step(unsigned calm)
{
    unsigned p = hot_random() % PAGES, offset = at[hot_random() % (sizeof(at) / sizeof(at[0]))];
    u64 fn = lin(p) + offset;
    u32 want = now[p] | gen[now[p]] << 8;
    hot_expect("called", slot_call(fn), want);
    hot_expect("jumped to", slot_jump(fn), want);
    if (hot_random() % calm == 0)
        make(hot_random() % FRAMES);
    if (hot_random() % calm == 0)
        map(hot_random() % PAGES, hot_random() % FRAMES);
}

/* The first addresses of all: no entry that is empty may be taken for one of them. */
static void lowest(void)
{
    static const u8 code[] = { 0x90, 0x90, 0x90, 0xb8, 0x55, 0, 0, 0, 0xc3 };
    for (unsigned k = 0; k < sizeof(code); k++)
        *(volatile u8 *)(u64)k = code[k];
    for (unsigned n = 0; n < 8 * WARM; n++)
        hot_expect("at address 0 to 3", slot_call(n / 2 % 4), 0x55);
}

void hot_slot(void);
void hot_slot(void)
{
    for (unsigned n = 0; n < FRAMES; n++)
        make(n);
    for (unsigned p = 0; p < PAGES; p++)
        map(p, p);
    lowest();
    for (u64 n = hot_count(STEPS); n; n--)
        step(n / 4096 % 2 ? 500 : 20);
}
