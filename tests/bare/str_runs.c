/* SPDX-License-Identifier: Apache-2.0 */
/* Of str_runs.S: random copies and fills, and the same element by element in another place. */
#include "rt.h"
#include "hot.h"

#define CASES 300
#define PAGES 6UL
#define AREA  (PAGES << 12)

/* Two areas that want the same place in many a TLB; pages of the first lie in memory in the reverse order. And what the loop below makes of both. */
static u8 *const real[2] = { (u8 *)TVA, (u8 *)TPA };
static u8 *const want[2] = { (u8 *)(TPA + 0x400000UL), (u8 *)(TPA + 0x600000UL) };

struct job {
    u64 size, src, dst, count, rax;
    int from, to; /* areas */
    int movs, down;
};

static void fill(void)
{
    u64 r = hot_random();
    for (u64 off = 0; off < AREA; off += 8) {
        r = r * 6364136223846793005UL + 1442695040888963407UL;
        *(u64 *)(real[0] + off) = *(u64 *)(want[0] + off) = r;
        *(u64 *)(real[1] + off) = *(u64 *)(want[1] + off) = ~r;
    }
}

/* How many eight bytes are not as they should be. */
static u64 differ(void)
{
    u64 wrong = 0;
    for (unsigned n = 0; n < 2; n++)
        for (u64 off = 0; off < AREA; off += 8)
            wrong += *(u64 *)(real[n] + off) != *(u64 *)(want[n] + off);
    return wrong;
}

static void model(const struct job *j)
{
    u64 src = j->src, dst = j->dst, step = j->down ? -j->size : j->size;
    for (u64 n = j->count; n; n--, src += step, dst += step) {
        u64 v = j->rax;
        if (j->movs)
            __builtin_memcpy(&v, want[j->from] + src, 8);
        for (u64 k = 0; k < j->size; k++)
            want[j->to][dst + k] = (u8)(v >> 8 * k);
    }
}

#define STRING(insn)                                                                                                   \
    __asm__ volatile("test %[down], %[down]; jz 1f; std; 1: rep " insn "; cld"                                         \
                     : "+S"(rsi), "+D"(rdi), "+c"(rcx) : "a"(j->rax), [down] "r"(j->down) : "memory", "cc")

static void run(const struct job *j)
{
    u64 rsi = (u64)real[j->from] + j->src, rdi = (u64)real[j->to] + j->dst, rcx = j->count;
    u64 by = (j->down ? -j->size : j->size) * j->count;
    switch (j->size * 2 + (u64)j->movs) {
    case 2: STRING("stosb"); break;
    case 3: STRING("movsb"); break;
    case 4: STRING("stosw"); break;
    case 5: STRING("movsw"); break;
    case 8: STRING("stosl"); break;
    case 9: STRING("movsl"); break;
    case 16: STRING("stosq"); break;
    default: STRING("movsq"); break;
    }
    hot_expect("RCX", rcx, 0);
    hot_expect("RDI", rdi, (u64)real[j->to] + j->dst + by);
    hot_expect("RSI", rsi, (u64)real[j->from] + j->src + (j->movs ? by : 0));
}

void str_runs(void);
void str_runs(void)
{
    for (u64 page = 0; page < PAGES; page++) {
        rt_pt[page] = (TPA + 0x800000UL + ((PAGES - 1 - page) << 12)) | 7;
        invlpg(TVA + (page << 12));
    }
    for (u64 n = 0; n < CASES; n++) {
        u64 r = hot_random();
        struct job j = { .size = 1UL << (r & 3), .movs = (r >> 2 & 3) != 0, .down = r >> 4 & 1, .rax = hot_random() };
        j.count = (r >> 8 & (r >> 5 & 1 ? 0x1fff : 127)) / j.size;
        j.from = r >> 6 & 1;
        j.to = r >> 7 & 1;
        j.src = AREA / 2 - 64 + (r >> 24 & 127);
        j.dst = j.from == j.to ? j.src - 16 + (r >> 32 & 31) : AREA / 2 - 64 + (r >> 32 & 127);
        fill();
        model(&j);
        run(&j);
        hot_expect("memory", differ(), 0);
    }
}
