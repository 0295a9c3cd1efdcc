/* SPDX-License-Identifier: Apache-2.0 */
/* Of hot_dma.S: a driver of one queue (virtio 1.2, 2.7, 4.1), and the rounds. */
#include "rt.h"
#include "hot.h"
#include "pci.h"

#define ROUNDS 300
#define FN    (TPA + 0x5100UL)
#define ALIAS (TVA + 0x100UL)
#define QUEUE (TPA + 0x100000UL) /* descriptors; then a page each: available, used */

/* Where a BAR is; nobody has placed it where there is no firmware. */
static u64 bar(u32 n)
{
    u32 v = cfg_read(0x10 + 4 * n), wide = v & 4;
    if (!(v & ~15u) && !(wide && cfg_read(0x14 + 4 * n)))
        cfg_write(0x10 + 4 * n, 0xe0000000 + (n << 20));
    return (cfg_read(0x10 + 4 * n) & ~15u) | (wide ? (u64)cfg_read(0x14 + 4 * n) << 32 : 0);
}

static u64 structure[5]; /* by type: 1 common, 2 notifications */
static u32 notify_step;

static void find_structures(void)
{
    for (u32 cap = cfg_read(0x34) & 0xfc; cap; cap = cfg_read(cap + 1) & 0xfc) {
        u32 type = cfg_read(cap + 3) & 0xff;
        if ((cfg_read(cap) & 0xff) != 9 || type > 4 || structure[type])
            continue;
        structure[type] = bar(cfg_read(cap + 4) & 0xff) + cfg_read(cap + 8);
        if (type == 2)
            notify_step = cfg_read(cap + 16);
    }
    cfg_write(4, (cfg_read(4) & 0xffff) | 6); /* memory, bus master */
}

#define REG(type, off) (*(volatile type *)(structure[1] + (off)))
static volatile u16 *doorbell;

static void start(void)
{
    REG(u8, 20) = 0;
    while (REG(u8, 20))
        ;
    REG(u8, 20) = 3;
    REG(u32, 8) = 0;
    REG(u32, 12) = 0;
    REG(u32, 8) = 1;
    REG(u32, 12) = 1; /* VERSION_1 */
    REG(u8, 20) = 11;
    REG(u16, 22) = 0;
    REG(u16, 24) = 4; /* descriptors */
    for (u32 n = 0; n < 3; n++) {
        REG(u32, 32 + 8 * n) = (u32)(QUEUE + 0x1000 * n);
        REG(u32, 36 + 8 * n) = 0;
    }
    doorbell = (volatile u16 *)(structure[2] + (u64)REG(u16, 30) * notify_step);
    REG(u16, 28) = 1;
    REG(u8, 20) = 15;
}

static u32 call(u64 fn) { return ((u32(*)(void))fn)(); }

/* Four random bytes to the immediate. Calls in the meantime see the old ones or the new ones. */
static void overwrite(u64 n)
{
    static u64 calls;
    volatile u16 *avail = (volatile u16 *)(QUEUE + 0x1000), *used = (volatile u16 *)(QUEUE + 0x2000);
    *(volatile u64 *)QUEUE = FN + 1;
    *(volatile u32 *)(QUEUE + 8) = 4;
    *(volatile u32 *)(QUEUE + 12) = 2; /* for the device to write */
    avail[2 + n % 4] = 0;
    avail[1] = (u16)(n + 1);
    *doorbell = 0;
    for (u64 tries = 0; used[1] != (u16)(n + 1) && tries < 100000000; tries++)
        calls += call(n & 1 ? FN : ALIAS);
    hot_expect("the device answers", used[1], (u16)(n + 1));
}

void hot_dma(void);
void hot_dma(void)
{
    u64 changed = 0, rounds = hot_count(ROUNDS);
    int there = cfg_find(0x10441af4);
    hot_expect("there is an entropy device", (u64)there, 1);
    if (!there)
        return;
    find_structures();
    start();
    rt_pt[0] = (FN & ~0xfffUL) | 7;
    invlpg(TVA);
    *(volatile u8 *)FN = 0xb8;
    *(volatile u8 *)(FN + 5) = 0xc3;
    for (u64 n = 0; n < rounds; n++) {
        u32 old = *(volatile u32 *)(FN + 1), a = 0, c = 0;
        for (u32 k = 0; k < WARM; k++)
            hot_expect("while nothing changes", call(k & 1 ? FN : ALIAS), old);
        overwrite(n);
        __asm__ volatile("cpuid" : "+a"(a), "+c"(c)::"rbx", "rdx", "memory");
        u32 now = *(volatile u32 *)(FN + 1);
        hot_expect("the code that the device wrote", call(FN), now);
        hot_expect("at another address", call(ALIAS), now);
        changed += now != old;
    }
    hot_expect("most rounds changed something", changed + 2 >= rounds, 1);
}
