/* SPDX-License-Identifier: Apache-2.0 */
/* Of smp_bar.S. */
#include "rt.h"
#include "hot.h"
#include "pci.h"

#define BAR0   0x10
#define ROUNDS 60
#define SPOT   0x8000 /* in the frame buffer: behind what a text page shows */

extern volatile u64 bar_job;
extern volatile u32 bar_laps, bar_user, bar_is_user;

/* The other processor has seen each job from now on. */
static void laps(u32 n)
{
    u32 start = bar_laps;

    for (u64 patience = 1UL << 30; patience && bar_laps - start < n; patience--)
        __asm__ volatile("pause");
}

static void tell(u64 at, u32 what) { bar_job = at << 32 | what; }

static u32 load(u64 at) { return *(volatile u32 *)at; }

static volatile u32 beside[16];

/* The frame buffer moves from where it is to one place and the other; returns where it is in the end. */
static u64 move(u64 was, const char *ring)
{
    static const u32 places[] = { 0xe0000000, 0xd5000000 };
    u64 at = was, stray = 0, lost = 0, dirty = 0;

    for (u64 round = 1, n = hot_count(ROUNDS); round <= n; round++, was = at) {
        at = places[round & 1];
        *(volatile u32 *)(was + SPOT + 64) = 0x600d;
        tell(was + SPOT, (u32)round);
        if (round % 4)
            laps(2);
        cfg_write(BAR0, (u32)at);
        tell(was + SPOT + 64, 0xbad);
        laps(2);
        stray += load(at + SPOT + 64) != 0x600d;
        lost += round % 4 && load(at + SPOT) != (u32)round;
        tell((u64)&beside[8], (u32)round);
        laps(2); /* what it was told for the old place has been stored, before that becomes the new one */
        dirty += beside[8] != (u32)round || beside[7] || beside[9];
    }
    hot_expect(hot_name(ring, "stores through the old place"), stray, 0);
    hot_expect(hot_name(ring, "stores before the move"), lost, 0);
    hot_expect(hot_name(ring, "RAM"), dirty, 0);
    return at;
}

void smp_bar(void);
void smp_bar(void)
{
    u64 home, at;

    tell((u64)&beside[8], 0);
    if (!cfg_find(0x11111234)) {
        hot_expect("a display", 0, 1);
        return;
    }
    home = cfg_read(BAR0) & ~15UL;
    cfg_write(4, cfg_read(4) | 2);
    at = move(home, "ring 0");
    bar_user = 1;
    laps(3);
    hot_expect("ring 3", bar_is_user, 1);
    cfg_write(BAR0, (u32)home); /* where the monitor has the memory in its own map */
    at = move(home, "ring 3");
    cfg_write(BAR0, (u32)home);
    tell(home + SPOT, 1);
    laps(2);
    hot_expect("it is back", load(home + SPOT), 1);
    cfg_write(BAR0, (u32)at);
    tell(home + SPOT, 2);
    laps(2);
    hot_expect("it has left its first place", load(at + SPOT), 1);
    hot_expect("laps", bar_laps > 0, 1);
}
