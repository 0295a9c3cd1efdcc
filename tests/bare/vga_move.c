/* SPDX-License-Identifier: Apache-2.0 */
/* Of vga_move.S. */
#include "rt.h"
#include "hot.h"
#include "pci.h"

#define BAR0  0x10
#define SIZE  (16UL << 20)
#define WORDS 4096 /* two of its pages, and every 64 KiB one word */

static void enable(int on) { cfg_write(4, (cfg_read(4) & 0xfffd) | (on ? 2 : 0)); }

static void fill(u64 at, u32 salt)
{
    for (u64 i = 0; i < WORDS; i++)
        *(volatile u32 *)(at + 4 * i) = salt + (u32)i;
    for (u64 i = 1; i < SIZE >> 16; i++)
        *(volatile u32 *)(at + (i << 16)) = salt ^ (u32)i;
}

static u64 differ(u64 at, u32 salt)
{
    u64 n = 0;

    for (u64 i = 0; i < WORDS; i++)
        n += *(volatile u32 *)(at + 4 * i) != salt + (u32)i;
    for (u64 i = 1; i < SIZE >> 16; i++)
        n += *(volatile u32 *)(at + (i << 16)) != (salt ^ (u32)i);
    return n;
}

/* qemu's q35 reads zeroes where nobody is. */
static u64 nobody(u64 at)
{
    u64 n = 0;

    for (u64 i = 0; i < 64; i++) {
        u32 v = *(volatile u32 *)(at + 4 * i);
        n += v != 0xffffffff && v != 0;
    }
    return n;
}

#define TABLE 0x8000 /* in the frame buffer: behind what a text page shows */

/* A page table in the frame buffer at `at` is what maps TVA: two of its pages, one after the other; then from elsewhere. */
static void table_in(u64 at)
{
    volatile u64 *pt = (u64 *)(at + TABLE), keep = rt_pd[TVA >> 21];

    *(volatile u64 *)TPA = 0x1111;
    *(volatile u64 *)(TPA + 0x1000) = 0x2222;
    pt[0] = TPA | 7;
    pt[1] = (TPA + 0x1000) | 7;
    rt_pd[TVA >> 21] = (at + TABLE) | 7;
    write_cr3(read_cr3());
    hot_expect("by a table in it", *(volatile u64 *)TVA, 0x1111);
    *(volatile u64 *)(TVA + 0x1000) = 0x3333;
    hot_expect("a store by it", *(volatile u64 *)(TPA + 0x1000), 0x3333);
    hot_expect("accessed", pt[0] & 0x60, 0x20);
    hot_expect("dirty", pt[1] & 0x60, 0x60);
    rt_pd[TVA >> 21] = keep;
    write_cr3(read_cr3());
}

/* Not beside where anything else is on either machine. */
static const u32 places[] = { 0xe0000000, 0xe7000000, 0xc0000000, 0xd5000000 };

void vga_move(void)
{
    u64 home, was, at;

    if (!cfg_find(0x11111234)) {
        hot_expect("a display", 0, 1);
        return;
    }
    home = was = cfg_read(BAR0) & ~15UL;
    enable(1);
    fill(home, 1);
    for (u32 round = 1; round <= 8; round++, was = at) {
        at = round % 5 ? places[round % 4] : home;
        enable(0);
        hot_expect("off: nobody", nobody(was), 0);
        cfg_write(BAR0, (u32)at);
        enable(1);
        hot_expect("the same bytes", differ(at, round), 0);
        hot_expect("not where it was", nobody(was), 0);
        fill(at, round + 1);
        hot_expect("other bytes", differ(at, round + 1), 0);
        *(volatile u32 *)was = 0; /* to nobody */
        hot_expect("the same bytes still", differ(at, round + 1), 0);
        table_in(at);
    }
    cfg_write(BAR0, (u32)home); /* without switching it off */
    hot_expect("back", differ(home, 9), 0);
    hot_expect("not elsewhere", nobody(was), 0);
}
