/* SPDX-License-Identifier: Apache-2.0 */
/* Of hot_str.S: random strings and frames, and what must come of them. */
#include "rt.h"
#include "hot.h"

#define STEPS 12000
#define PAGES 3 /* at TVA for destinations, at SRC for sources; memory below TPA's first 32 KiB */
#define SRC   (TVA + 0x10000UL)
#define EDGE  0x1000UL

#define ALL(X) X(do_movsb) X(do_movsw) X(do_movsl) X(do_movsq) X(do_stosb) X(do_stosw) X(do_stosl) X(do_stosq)
#define X(fn) void fn(void);
ALL(X)
#undef X
#define X(fn) fn,
static void (*const fns[8])(void) = { ALL(X) };
#undef X
void do_jrcxz(void);
void do_jrcxz_back(void);
void do_iret(void);
void do_iret_at(void);
void do_iret_back(void);

static u64 entry[2][PAGES]; /* of sources, destinations */
static u8 want[PAGES * 4096];
static struct hot_state s __attribute__((aligned(64)));

/* Sources and destinations lie in memory in the reverse order. */
static u64 frame_of(unsigned which, unsigned page) { return TPA + 0x10000UL * which + 0x1000UL * (PAGES - 1 - page); }
static u8 *byte_of(unsigned which, u64 off) { return (u8 *)(frame_of(which, (unsigned)(off >> 12)) + (off & 0xfff)); }
static u64 lin_of(unsigned which, u64 off) { return (which ? TVA : SRC) + off; }

static void map(unsigned which, unsigned page, u64 bits)
{
    entry[which][page] = bits ? frame_of(which, page) | bits : 0;
    rt_pt[(which ? 0 : 16) + page] = entry[which][page];
    invlpg(lin_of(which, 0x1000UL * page));
}

static void change(void)
{
    u64 r = hot_random();
    unsigned which = r & 1, page = 1 + (r >> 1 & 1);
    if (r >> 4 & 3)
        map(which, page, 7);
    else
        map(which, page, r >> 6 & 1 && which ? 5 : 0); /* read-only, or missing */
}

/* The error code of the fault that n bytes at off raise, or -1; where: the offset of CR2. */
static u64 fault_of(unsigned which, u64 off, u64 n, u64 *where)
{
    for (u64 page = off >> 12; page <= (off + n - 1) >> 12; page++) {
        u64 e = entry[which][page];
        *where = page << 12 > off ? page << 12 : off;
        if (!(e & 1) || (which && !(e & 2)))
            return (which ? 2 : 0) | (hot_user ? 4 : 0) | (e & 1);
    }
    return -1UL;
}

struct outcome {
    u64 done, err, cr2; /* elements; error code or -1 */
};

/* What happens to count elements of size bytes from src (no source: stos) to dst; the bytes come to `want`. */
static struct outcome model(int movs, u64 size, u64 src, u64 dst, u64 count, u64 rax)
{
    struct outcome o = { 0, -1UL, 0 };
    u64 where = 0;
    for (; o.done < count; o.done++, src += size, dst += size) {
        u64 err = movs ? fault_of(0, src, size, &where) : -1UL;
        unsigned which = err == -1UL;
        if (which)
            err = fault_of(1, dst, size, &where);
        if (err != -1UL) {
            o.err = err;
            o.cr2 = lin_of(which, where);
            return o;
        }
        for (u64 n = 0; n < size; n++)
            want[dst + n] = movs ? *byte_of(0, src + n) : (u8)(rax >> 8 * n);
    }
    return o;
}

static void fill(void)
{
    u64 r = hot_random();
    for (u64 off = EDGE - 128; off < 2 * EDGE + 128; off++) {
        if (off == EDGE + 128)
            off = 2 * EDGE - 128;
        *byte_of(0, off) = (u8)(off * 7 + r);
        want[off] = *byte_of(1, off) = (u8)(off * 3 + (r >> 8));
    }
}

static u64 differ(void)
{
    for (u64 off = EDGE - 128; off < 2 * EDGE + 128; off++) {
        if (off == EDGE + 128)
            off = 2 * EDGE - 128;
        if (want[off] != *byte_of(1, off))
            return off;
    }
    return 0;
}

static void string(void)
{
    u64 r = hot_random(), kind = r & 7, size = 1UL << (kind & 3), movs = kind < 4;
    u64 count = (r >> 4 & 127) / size, dst = EDGE * (1 + (r >> 12 & 1)) - 1 - (r >> 16 & 63);
    u64 src = EDGE * (1 + (r >> 13 & 1)) - 1 - (r >> 24 & 63);
    u64 p = hot_random();
    if (p % 8 == 0) { /* about a page */
        count = (4094 + (p >> 4 & 3)) / size;
        dst = EDGE - !(p >> 8 & 3);
        src = EDGE - !(p >> 12 & 3);
    }
    fill();
    if (!movs && !(r >> 44 & 7) && !(entry[1][2] & 2)) /* in bytes, that may be nothing at all */
        count += 1UL << 61;
    s.fn = fns[kind];
    s.r[RAX] = hot_random();
    s.r[RCX] = count;
    s.r[RSI] = lin_of(0, src);
    s.r[RDI] = lin_of(1, dst);
    s.flags = 2 | 0x8d5;
    hot_user = r >> 40 & 1;
    struct outcome o = model((int)movs, size, src, dst, count, s.r[RAX]);
    hot_call(&s);
    hot_expect("string: vector", x_vec, o.err == -1UL ? -1UL : PF);
    hot_expect("string: RCX", s.r[RCX], count - o.done);
    hot_expect("string: RDI", s.r[RDI], lin_of(1, dst + o.done * size));
    hot_expect("string: RSI", s.r[RSI], lin_of(0, src + (movs ? o.done * size : 0)));
    if (o.err != -1UL && x_vec == PF) {
        hot_expect("string: error code", x_err, o.err);
        hot_expect("string: CR2", x_cr2, o.cr2);
        hot_expect("string: RIP", x_rip, (u64)s.fn);
        hot_expect("string: flags", x_flags & 0x8d5, 0x8d5);
    }
    /* An element of which a part was stored is right or wrong as the processor likes; nothing before or behind it. */
    if (o.err == -1UL || (dst + o.done * size) >> 12 == (dst + o.done * size + size - 1) >> 12)
        hot_expect("string: memory", differ(), 0);
}

static void jrcxz(void)
{
    static const u64 counts[] = { 0, 0, 1, 1UL << 32, 1UL << 63, -1UL };
    u64 r = hot_random();
    s.fn = r & 8 ? do_jrcxz : do_jrcxz_back;
    s.r[RCX] = counts[r % 6];
    s.flags = 2 | (r >> 8 & 0x8d5);
    u64 flags = s.flags;
    hot_user = r >> 40 & 1;
    hot_call(&s);
    hot_expect("jrcxz: the way", s.r[RAX], s.r[RCX] ? 2 : 1);
    hot_expect("jrcxz: flags", s.flags & 0x8d5, flags & 0x8d5);
}

static void iret(void)
{
    u64 r = hot_random(), off = EDGE * 2 - 8 * (1 + (r & 7)), where = 0;
    u64 cs = r >> 4 & 7, ss = KDS, slot = 0, vec = -1UL, err = 0;
    cs = cs == 0 ? 0 : cs == 1 ? UDS : KCS64;
    u64 frame[5] = { (u64)do_iret_back, cs, 2 | (r >> 8 & 0x8d5), 0, ss };
    u64 stack = TPA + 0x80000UL;
    s.fn = do_iret;
    s.r[RDI] = lin_of(1, off);
    s.r[R10] = 0;
    s.flags = 2;
    hot_user = 0;
    frame[3] = stack;
    for (unsigned n = 0; n < 40; n++)
        *byte_of(1, off + n) = ((u8 *)frame)[n];
    for (u64 n = 0; n < 5 && vec == -1UL; n++) {
        for (u64 page = (off + 8 * n) >> 12; page <= (off + 8 * n + 7) >> 12; page++)
            if (!(entry[1][page] & 1))
                vec = PF, where = off + 8 * n, slot = n;
    }
    if (vec == -1UL && cs != KCS64)
        vec = GP, err = cs & ~3UL;
    hot_call(&s);
    if (slot >= 3 && cs != KCS64 && x_vec == GP) /* it may look at CS before it reads RSP and SS */
        return;
    hot_expect("iret: vector", x_vec, vec);
    hot_expect("iret: came back", s.r[R10], vec == -1UL);
    if (vec == -1UL || x_vec != vec)
        return;
    hot_expect("iret: error code", x_err, err);
    hot_expect("iret: RIP", x_rip, (u64)do_iret_at);
    hot_expect("iret: RSP is kept", x_rsp, s.r[RDI]);
    if (vec == PF) /* the order of the five reads is the processor's */
        hot_expect("iret: CR2's page", x_cr2 >> 12, lin_of(1, where) >> 12);
}

void hot_str(void);
void hot_str(void)
{
    for (unsigned which = 0; which < 2; which++)
        for (unsigned page = 0; page < PAGES; page++)
            map(which, page, 7);
    write_cr0(read_cr0() | CR0_WP);
    for (u64 n = hot_count(STEPS); n; n--) {
        if (hot_random() % 3 == 0)
            change();
        if (hot_random() & 1)
            string();
        else
            iret();
        jrcxz();
    }
    write_cr0(read_cr0() & ~(u64)CR0_WP);
}
