/* SPDX-License-Identifier: Apache-2.0 */
/* Of hot_map.S: the random steps and the model. */
#include "rt.h"
#include "hot.h"

#define STEPS 40000
#define PCIDS 3
#define SMALL 6              /* pages at TVA */
#define LARGE 3              /* pages looked at in the 2 MiB region at LVA */
#define PAGES (SMALL + LARGE)
#define LVA   0x50000000UL
#define IDS   8              /* small pages of memory: ids 1 to 8 */
#define TABLES (TPA + 0x100000UL)
#define BIG    (TPA + 0x200000UL) /* two areas of 2 MiB: ids 9 to 14 */

/* In each page of memory: its id at 0, code that returns it at 16, a word for stores at 0x200, its id again at 0xffc. */
#define CODE  0x10
#define WORD  0x200

void do_load(void);
void do_store(void);
void do_xadd(void);
void do_call(void);

static const u64 large_off[LARGE] = { 0x1000, 0x155000, 0x1ff000 };

static u64 *pml4[PCIDS], *pt[PCIDS], *lpt[PCIDS], *pd[PCIDS];
static u8 cur[PCIDS][PAGES];      /* id in the tables; 0: absent */
static u8 cur_g[PCIDS][PAGES];
static u32 stale[PCIDS][PAGES];   /* ids that may still be cached: bit n for id n */
static u32 stale_g[PAGES];        /* the same, as global ones */
static u32 gen[IDS + 2 * LARGE + 1];
static unsigned now;              /* the current PCID */
static u64 token;
static int have_pcid;

static u64 lin_of(unsigned page)
{
    return page < SMALL ? TVA + page * 0x1000UL : LVA + large_off[page - SMALL];
}

static u64 phys_of(unsigned id)
{
    if (id <= IDS)
        return TPA + id * 0x1000UL;
    return BIG + (id - IDS - 1) / LARGE * 0x200000UL + large_off[(id - IDS - 1) % LARGE];
}

static void write_code(unsigned id, u64 at)
{
    *(volatile u32 *)(at + CODE + 1) = id | ++gen[id] << 8;
}

static void make_pages(void)
{
    for (unsigned id = 1; id <= IDS + 2 * LARGE; id++) {
        u64 p = phys_of(id);
        *(volatile u32 *)p = id;
        *(volatile u32 *)(p + 0xffc) = id;
        *(volatile u8 *)(p + CODE) = 0xb8;
        *(volatile u8 *)(p + CODE + 5) = 0xc3;
        write_code(id, p);
    }
}

static u64 *table(unsigned n) { return (u64 *)(TABLES + n * 0x1000UL); }

static void make_tables(void)
{
    for (unsigned p = 0; p < PCIDS; p++) {
        pml4[p] = table(5 * p);
        u64 *pdpt = table(5 * p + 1);
        pd[p] = table(5 * p + 2);
        pt[p] = table(5 * p + 3);
        lpt[p] = table(5 * p + 4);
        hot_copy(pml4[p], (void *)rt_pml4, 4096);
        hot_copy(pdpt, (void *)rt_pdpt, 4096);
        hot_copy(pd[p], (void *)&rt_pd[512], 4096);
        pml4[p][0] = (u64)pdpt | 7;
        pdpt[1] = (u64)pd[p] | 7;
        pd[p][TVA >> 21 & 511] = (u64)pt[p] | 7;
        pd[p][LVA >> 21 & 511] = (u64)lpt[p] | 7;
    }
}

/* --- changes of the tables --- */

static void leave_stale(unsigned p, unsigned page)
{
    if (!cur[p][page])
        return;
    if (cur_g[p][page])
        stale_g[page] |= 1u << cur[p][page];
    else
        stale[p][page] |= 1u << cur[p][page];
}

static void set(unsigned p, unsigned page, unsigned id, unsigned global)
{
    leave_stale(p, page);
    cur[p][page] = (u8)id;
    cur_g[p][page] = (u8)global;
}

static u64 entry(unsigned id, unsigned global) { return id ? phys_of(id) | 7 | (global ? PT_G : 0) : 0; }

static void change(void)
{
    unsigned p = hot_random() % PCIDS, page = hot_random() % PAGES;
    unsigned global = hot_random() % 5 == 0;
    volatile u64 *pde = &pd[p][LVA >> 21 & 511];
    if (page < SMALL) {
        unsigned id = hot_random() % (IDS + 1);
        set(p, page, id, global);
        ((volatile u64 *)pt[p])[page] = entry(id, global);
        return;
    }
    if (hot_random() % 2) { /* a 2 MiB page */
        unsigned big = hot_random() % 2;
        for (unsigned k = 0; k < LARGE; k++)
            set(p, SMALL + k, IDS + 1 + big * LARGE + k, global);
        *pde = (BIG + big * 0x200000UL) | 0x87 | (global ? PT_G : 0);
        return;
    }
    for (unsigned k = 0; k < LARGE; k++) {
        unsigned id = hot_random() % (IDS + 1);
        set(p, SMALL + k, id, global);
        ((volatile u64 *)lpt[p])[large_off[k] >> 12] = entry(id, global);
    }
    *pde = (u64)lpt[p] | 7;
}

/* --- flushes --- */

#define LARGE_IDS (((1u << 2 * LARGE) - 1) << (IDS + 1))

/* One page: of a large page all of it goes, of small ones only this. */
static void drop_page(u32 *set_of_page, unsigned page)
{
    set_of_page[page] = 0;
    for (unsigned k = SMALL; page >= SMALL && k < PAGES; k++)
        set_of_page[k] &= ~LARGE_IDS;
}

static void drop_pcid(unsigned p)
{
    for (unsigned k = 0; k < PAGES; k++)
        stale[p][k] = 0;
}

static void drop_nonglobal(void)
{
    for (unsigned p = 0; p < PCIDS; p++)
        drop_pcid(p);
}

static void drop_all(void)
{
    drop_nonglobal();
    for (unsigned k = 0; k < PAGES; k++)
        stale_g[k] = 0;
}

static void switch_to(unsigned p, u64 keep)
{
    for (unsigned k = 0; k < PAGES; k++) /* what was global and cached stays for the others */
        if (cur_g[now][k] && cur[now][k])
            stale_g[k] |= 1u << cur[now][k];
    now = p;
    if (!have_pcid) {
        write_cr3((u64)pml4[p]);
        drop_nonglobal();
        return;
    }
    write_cr3((u64)pml4[p] | p | keep << 63);
    if (!keep)
        drop_pcid(p);
}

static void flush(void)
{
    unsigned page = hot_random() % PAGES, p = hot_random() % PCIDS;
    u64 lin = lin_of(page) + hot_random() % 4096;
    unsigned kind = hot_random() % 16;
    if (!have_pcid && kind >= 3 && kind <= 7)
        kind = 0;
    switch (kind) {
    case 0:
    case 1:
    case 2:
        invlpg(lin);
        drop_page(stale[now], page);
        drop_page(stale_g, page);
        break;
    case 3:
    case 4:
        invpcid(0, p, lin);
        drop_page(stale[p], page);
        break;
    case 5:
        invpcid(1, p, 0);
        drop_pcid(p);
        break;
    case 6:
        invpcid(2, 0, 0);
        drop_all();
        break;
    case 7:
        invpcid(3, 0, 0);
        drop_nonglobal();
        break;
    case 8:
        write_cr4(read_cr4() & ~(u64)CR4_PGE);
        write_cr4(read_cr4() | CR4_PGE);
        drop_all();
        break;
    case 9:
    case 10:
        switch_to(p, 0);
        break;
    default:
        switch_to(p, 1);
        break;
    }
}

/* --- accesses --- */

static const char *what;

/* id came out (0: a page fault): may it? */
static void judge(unsigned page, unsigned id)
{
    u32 allowed = stale[now][page] | stale_g[page] | 1u << cur[now][page];
    hot_expect(what, allowed >> (id & 31) & 1 ? 0 : id + 1000 * page, 0);
}

static u64 run(void (*fn)(void), u64 lin, u64 value)
{
    static struct hot_state s;
    s.fn = fn;
    s.r[RDI] = lin;
    s.r[R11] = s.r[R10] = value;
    s.r[RAX] = 0;
    s.flags = 2;
    hot_user = hot_random() % 2;
    hot_call(&s);
    if (x_vec != -1UL) {
        hot_expect("the exception is #PF", x_vec, PF);
        hot_expect("its address", x_cr2 >= lin && x_cr2 < lin + 8, 1);
        return 0;
    }
    return fn == do_xadd ? s.r[R10] : s.r[RAX];
}

static void load(unsigned page)
{
    what = "a load";
    judge(page, (u32)run(do_load, lin_of(page), 0));
}

static void cross(unsigned page)
{
    what = "a page-crossing load";
    u64 lin = lin_of(page) + 0xffc, v = run(do_load, lin, 0);
    if (x_vec == -1UL) {
        judge(page, (u32)v);
        judge(page + 1, v >> 32);
    } else {
        judge(x_cr2 == lin ? page : page + 1, 0);
    }
}

/* Where did the token go? */
static void store(unsigned page, void (*fn)(void))
{
    what = fn == do_store ? "a store" : "lock xadd";
    token += 0x100000000UL;
    for (unsigned id = 1; id <= IDS + 2 * LARGE; id++)
        *(volatile u64 *)(phys_of(id) + WORD) = id;
    u64 old = run(fn, lin_of(page) + WORD, token);
    if (x_vec != -1UL) {
        judge(page, 0);
        return;
    }
    for (unsigned id = 1; id <= IDS + 2 * LARGE; id++) {
        volatile u64 *w = (volatile u64 *)(phys_of(id) + WORD);
        if (*w != id) {
            hot_expect("what is stored", *w, fn == do_store ? token : token + old);
            judge(page, id);
            return;
        }
    }
    hot_expect("a store is somewhere", lin_of(page), 0);
}

static void call(unsigned page)
{
    what = "a call";
    u32 v = (u32)run(do_call, lin_of(page) + CODE, 0);
    judge(page, v & 255);
    if (v)
        hot_expect("the code is the newest", v >> 8, gen[v & 255]);
}

/* New code, through the identity map or through a page that is surely mapped to it. */
static void rewrite(void)
{
    unsigned id = 1 + hot_random() % (IDS + 2 * LARGE);
    u64 at = phys_of(id);
    for (unsigned page = 0; page < PAGES; page++)
        if (cur[now][page] == id && !stale[now][page] && !stale_g[page] && hot_random() % 2)
            at = lin_of(page);
    write_code(id, at);
}

static void access(void)
{
    unsigned page = hot_random() % PAGES;
    switch (hot_random() % 8) {
    case 0:
    case 1:
        load(page);
        break;
    case 2:
        cross(hot_random() % (SMALL - 1));
        break;
    case 3:
    case 4:
        store(page, do_store);
        break;
    case 5:
        store(page, do_xadd);
        break;
    case 6:
        rewrite();
        break;
    default:
        call(page);
        break;
    }
}

void hot_map(void);
void hot_map(void)
{
    have_pcid = hot_has(1, 2, 17) && hot_has(7, 1, 10);
    if (have_pcid)
        write_cr4(read_cr4() | CR4_PCIDE);
    make_pages();
    make_tables();
    switch_to(0, 0);
    for (u64 n = hot_count(STEPS); n; n--) {
        unsigned r = hot_random() % 16;
        if (r < 3)
            change();
        else if (r < 5)
            flush();
        else
            access();
    }
}
