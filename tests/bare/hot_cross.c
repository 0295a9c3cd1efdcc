/* SPDX-License-Identifier: Apache-2.0 */
/* Of hot_cross.S: what the pages hold, and the random steps. */
#include "rt.h"
#include "hot.h"

#define STEPS  3000
#define SPACES 2
#define IDS    3  /* pages that may be the first, and as many that may be the second */
#define TABLES (TPA + 0x100000UL)

/* MOV EAX, imm32 (five bytes) begins so many bytes before the page's end. */
#define BEFORE 3
#define AT     (0x1000 - BEFORE)

/* Ways to come to it. Each falls or jumps there, from inside the first page or from a third one. */
static const u16 entry[] = { AT, 0xff0, 0xfe0, 0xfd0, 0xfc0, 0x2000, 0x2040 };
#define ENTRIES (sizeof(entry) / sizeof(entry[0]))

static u64 *pml4[SPACES], *pt[SPACES];
static u8 first[SPACES], second[SPACES]; /* ids in the tables; second 0: absent */
static u8 kernel[SPACES];                /* the second page is the supervisor's */
static u8 tag[2][IDS + 1][2];            /* the immediate's bytes in each page */
static unsigned now;
static int have_pcid;

static u8 *page_of(unsigned which, unsigned id) { return (u8 *)(TPA + (which * IDS + id) * 0x1000UL); }

static void put(u8 *at, const u8 *bytes, unsigned n)
{
    for (unsigned k = 0; k < n; k++)
        ((volatile u8 *)at)[k] = bytes[k];
}

static void retag(unsigned which, unsigned id)
{
    for (unsigned k = 0; k < 2; k++)
        tag[which][id][k] = (u8)hot_random();
    put(which ? page_of(1, id) : page_of(0, id) + AT + 1, tag[which][id], 2);
}

static void make_pages(void)
{
    static const u8 mov = 0xb8, ret = 0xc3, jump[] = { 0xeb, AT - 0xfe2 }, jz[] = { 0x31, 0xc0, 0x74, AT - 0xfd4 },
                    jnz[] = { 0x31, 0xc0, 0x75, 0x10, 0x90, 0xeb, AT - 0xfc7 };
    for (unsigned id = 1; id <= IDS; id++) {
        u8 *p = page_of(0, id);
        for (unsigned k = 0xf00; k < AT; k++)
            ((volatile u8 *)p)[k] = 0x90;
        put(p + 0xfe0, jump, sizeof(jump));
        put(p + 0xfd0, jz, sizeof(jz));
        put(p + 0xfc0, jnz, sizeof(jnz));
        put(p + AT, &mov, 1);
        put(page_of(1, id) + 2, &ret, 1);
        retag(0, id);
        retag(1, id);
    }
}

static void make_tables(void)
{
    for (unsigned p = 0; p < SPACES; p++) {
        u64 *table = (u64 *)(TABLES + p * 0x4000UL), *pdpt = table + 512, *pd = table + 1024;
        pml4[p] = table;
        pt[p] = table + 1536;
        hot_copy(pml4[p], (void *)rt_pml4, 4096);
        hot_copy(pdpt, (void *)rt_pdpt, 4096);
        hot_copy(pd, (void *)&rt_pd[512], 4096);
        pml4[p][0] = (u64)pdpt | 7;
        pdpt[1] = (u64)pd | 7;
        pd[TVA >> 21 & 511] = (u64)pt[p] | 7;
    }
}

static void forget(unsigned p, u64 lin)
{
    if (p == now)
        invlpg(lin);
    else if (have_pcid)
        invpcid(0, p, lin);
}

/* The third page: the same one, at the same place, in each address space. */
static void make_far(void)
{
    u8 *p = page_of(2, 1);
    u8 jump[] = { 0xe9, 0, 0, 0, 0 }, jz[] = { 0x31, 0xc0, 0x0f, 0x84, 0, 0, 0, 0 };
    *(u32 *)&jump[1] = (u32)(AT - 0x2005);
    *(u32 *)&jz[4] = (u32)(AT - 0x2048);
    put(p, jump, sizeof(jump));
    put(p + 0x40, jz, sizeof(jz));
    for (unsigned s = 0; s < SPACES; s++)
        pt[s][2] = (u64)p | 7;
}

/* Another page in address space p, which forgets what it had there, but not what it knows of the other one. */
static void map(unsigned p, unsigned which)
{
    if (which == 0) {
        first[p] = (u8)(1 + hot_random() % IDS);
        ((volatile u64 *)pt[p])[0] = (u64)page_of(0, first[p]) | 7;
    } else {
        second[p] = (u8)(hot_random() % (IDS + 1));
        kernel[p] = hot_random() % 4 == 0;
        ((volatile u64 *)pt[p])[1] = second[p] ? (u64)page_of(1, second[p]) | (kernel[p] ? 3 : 7) : 0;
    }
    forget(p, TVA + which * 0x1000UL);
}

static void switch_to(unsigned p)
{
    now = p;
    write_cr3(have_pcid ? (u64)pml4[p] | p | 1UL << 63 : (u64)pml4[p]);
}

static void call(void)
{
    static struct hot_state s;
    u64 lin = TVA + entry[hot_random() % ENTRIES];
    const u8 *a = tag[0][first[now]], *b = tag[1][second[now]];
    int faults = !second[now] || (kernel[now] && hot_user);
    s.fn = (void (*)(void))lin;
    s.r[RAX] = 0;
    s.flags = 2;
    hot_call(&s);
    hot_expect("the exception", x_vec, faults ? PF : -1UL);
    if (faults) {
        hot_expect("CR2", x_cr2, TVA + 0x1000);
        hot_expect("the instruction", x_rip, TVA + AT);
        hot_expect("the error code", x_err & 1, second[now] != 0);
        return;
    }
    hot_expect("its bytes", s.r[RAX], (u64)a[0] | (u64)a[1] << 8 | (u64)b[0] << 16 | (u64)b[1] << 24);
}

void hot_cross(void);
void hot_cross(void)
{
    have_pcid = hot_has(1, 2, 17) && hot_has(7, 1, 10);
    if (have_pcid)
        write_cr4(read_cr4() | CR4_PCIDE);
    make_pages();
    make_tables();
    make_far();
    for (unsigned p = 0; p < SPACES; p++) {
        switch_to(p);
        map(p, 0);
        map(p, 1);
    }
    for (u64 n = hot_count(STEPS); n; n--) {
        switch (hot_random() % 4) {
        case 0: map(hot_random() % SPACES, hot_random() % 2); break;
        case 1: retag(hot_random() % 2, 1 + hot_random() % IDS); break;
        default: switch_to(hot_random() % SPACES); break;
        }
        hot_user = hot_random() % 2;
        for (unsigned k = hot_random() % WARM; k; k--)
            call();
    }
}
