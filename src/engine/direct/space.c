/* Guest pages in a runner. See space.h. */
#include "engine/direct/space.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "base/bits.h"
#include "base/map.h"
#include "engine/direct/odd.h"
#include "ram/share.h"
#include "x86/mmu.h"

#define SPACE_NEAR   32u  /* pages that are mapped together */
#define SPACE_LARGE  512u /* the same in the guest's large pages, and elsewhere as long as it takes no more mappings than: */
#define SPACE_FEW    16u
#define SPACE_SOME   1024u /* pages of a region that are compared by themselves */
#define SPACE_CHECKS 30000u /* more pages than this are not compared, but all forgotten */
#define SPACE_INT3   0xcc
#define SPACE_PATIENCE 16u  /* times that breakpoints are refused until those that have some give them back */

/* What is to be mapped at a page. prot 0: nothing. */
struct space_view {
    uint64_t gfn;
    int prot;
    bool odd;
    unsigned copy; /* as in space_page */
};

static void space_drop_copy(struct space *s, unsigned copy)
{
    if (copy)
        runners_drop_copy(s->runner.all, copy - 1);
}

static uint64_t *space_reserve(size_t bytes) { return map_memory_at(bytes, 0); }

int space_init(struct space *s, struct runners *all, const struct ram *ram)
{
    memset(s, 0, sizeof(*s));
    s->cr3 = ~0ULL;
    s->limit = (ram->slot[ram->nslots - 1].gpa + ram->slot[ram->nslots - 1].size) >> PAGE_SHIFT; /* they are sorted */
    s->page = (struct space_page *)space_reserve((size_t)SPACE_PAGES * sizeof(*s->page));
    s->hash = (uint32_t *)space_reserve(SPACE_HASH * sizeof(*s->hash));
    s->told = space_reserve(s->limit / 8 + 8);
    if (!s->page || !s->hash || !s->told) {
        space_fini(s);
        return -ENOMEM;
    }
    s->pages = 1;
    int r = runner_start(&s->runner, all);
    if (r < 0)
        space_fini(s);
    return r;
}

void space_fini(struct space *s)
{
    runner_end(&s->runner);
    for (uint32_t n = 1; n < s->pages; n++)
        space_drop_copy(s, s->page[n].copy);
    if (s->page)
        munmap(s->page, (size_t)SPACE_PAGES * sizeof(*s->page));
    if (s->hash)
        munmap(s->hash, SPACE_HASH * sizeof(*s->hash));
    if (s->told)
        munmap(s->told, s->limit / 8 + 8);
    memset(s, 0, sizeof(*s));
    s->cr3 = ~0ULL;
}

/* -- which pages are there -- */

static uint32_t *space_chain(struct space *s, uint64_t page) { return &s->hash[(page ^ page >> 14) % SPACE_HASH]; }

/* Where the number of the page's note is; it is 0 if there is none. */
static uint32_t *space_find(struct space *s, uint64_t page)
{
    uint32_t *at = space_chain(s, page);

    while (*at && s->page[*at].lin != page)
        at = &s->page[*at].next;
    return at;
}

/* It is odd, and executable with breakpoints. */
static bool space_broken(const struct space_page *p) { return p->odd && p->prot & PROT_EXEC; }

/* No breakpoint of a page is needed any more. They are still set: to stop there is no harm. */
static void space_unbreak(struct space *s, uint64_t page)
{
    for (unsigned n = 0; n < RUNNER_BREAKS; n++)
        if (s->breaks[n] >> PAGE_SHIFT == page)
            s->breaks[n] = 0;
}

static void space_note(struct space *s, uint64_t page, const struct space_view *v)
{
    uint32_t *at = space_find(s, page);

    if (!*at) {
        s->page[s->pages] = (struct space_page){ .lin = page };
        *at = s->pages++;
    }
    struct space_page *p = &s->page[*at];
    space_drop_copy(s, p->copy);
    p->copy = v->copy & 0xff;
    p->gfn = (uint32_t)v->gfn;
    p->prot = (unsigned)v->prot & 7;
    p->odd = v->odd;
    if (!space_broken(p))
        space_unbreak(s, page);
    if (v->prot & PROT_WRITE || space_broken(p))
        s->told[v->gfn / 64] |= 1ULL << v->gfn % 64;
    s->broken |= space_broken(p);
}

/* Forget note n: the last one takes its place. */
static void space_forget(struct space *s, uint32_t n)
{
    uint32_t *at = space_find(s, s->page[n].lin), last = s->pages - 1;

    space_unbreak(s, s->page[n].lin);
    space_drop_copy(s, s->page[n].copy);
    *at = s->page[n].next;
    if (n != last) {
        *space_find(s, s->page[last].lin) = n;
        s->page[n] = s->page[last];
    }
    s->pages--;
}

static void space_forget_all(struct space *s)
{
    for (uint32_t n = 1; n < s->pages; n++) {
        *space_chain(s, s->page[n].lin) = 0;
        s->told[s->page[n].gfn / 64] = 0;
        space_drop_copy(s, s->page[n].copy);
    }
    memset(s->breaks, 0, sizeof(s->breaks));
    s->pages = 1;
    s->areas = 0;
    s->check = s->broken = false;
    s->lost = true;
}

static void space_ask(struct space *s, uint64_t page, uint64_t pages, int prot, unsigned file, uint64_t off)
{
    if (!s->lost && !runner_map(&s->runner, page << PAGE_SHIFT, pages << PAGE_SHIFT, prot, file, off))
        space_forget_all(s);
    s->areas++;
}

/* Take page n away. */
static void space_drop(struct space *s, uint32_t n)
{
    space_ask(s, s->page[n].lin, 1, -1, 0, 0);
    if (!s->lost)
        space_forget(s, n);
}

/* -- what may be there -- */

static unsigned space_slot(const struct ram *ram, const struct ram_slot *s) { return (unsigned)(s - ram->slot); }

/* What a vCPU finds there, and *gpa becomes the address by which it is known: a device's memory is where its BAR is. */
static const struct ram_slot *space_seen(struct cpu *cpu, uint64_t *gpa)
{
    return PAGE_BASE(cpu->apic_base) == *gpa ? NULL : ram_slot_seen(cpu->ram, gpa);
}

/* The page of code before the one at lin; NULL: there is none, or it was not used yet. */
static const uint8_t *space_before(struct cpu *cpu, uint64_t lin)
{
    uint64_t before = PAGE_BASE(lin) - PAGE_SIZE;
    struct mmu_look look = lin >= PAGE_SIZE ? mmu_look(cpu, before) : (struct mmu_look){ 0 };

    return look.readable && look.executable ? ram_borrow(cpu->ram, mmu_look_page(&look, before), PAGE_SIZE) : NULL;
}

/* look: of the page at lin, or of the large one around it. note: what is there, whose word is taken for whether it is odd; NULL: nothing is known. */
static struct space_view space_view(struct cpu *cpu, const struct space_rules *rules, const struct mmu_look *look, uint64_t lin, const struct space_page *note)
{
    uint64_t gpa = mmu_look_page(look, lin);
    const struct ram_slot *s = space_seen(cpu, &gpa);
    struct space_view v = { .gfn = gpa >> PAGE_SHIFT };

    if (!look->readable || !s || !ram_shared_at(s, gpa - s->gpa))
        return v;
    v.prot = PROT_READ;
    if (look->writable && !s->readonly && ram_stores_silent(cpu->ram, gpa))
        v.prot |= PROT_WRITE;
    if (look->executable && !s->device) { /* nobody needs code there, which would be marked by the other address */
        bool known = note && note->gfn == v.gfn && (note->odd || note->prot & PROT_EXEC);
        v.odd = look->writable || (known ? note->odd : odd_any(s->hva + (gpa - s->gpa), space_before(cpu, lin), rules->cpuid, rules->xcr0));
        v.prot |= v.odd ? 0 : PROT_EXEC;
    }
    return v;
}

static bool space_same(const struct space_page *p, const struct space_view *v)
{
    return p->gfn == v->gfn && p->odd == v->odd && p->prot == ((unsigned)v->prot | (space_broken(p) ? PROT_EXEC : 0));
}

/* Pages [page, page + n) are views of one after the other in a file: one mapping. */
static void space_put(struct space *s, struct ram *ram, uint64_t page, unsigned n, const struct space_view *v)
{
    uint64_t gpa = v->gfn << PAGE_SHIFT, base;
    const struct ram_slot *slot = ram_slot_of(ram, gpa);

    if (ram_shared_fd(slot, &base) < 0)
        return;
    if (v->copy)
        space_ask(s, page, 1, v->prot, RUNNER_COPIES, (v->copy - 1) * (uint64_t)PAGE_SIZE);
    else
        space_ask(s, page, n, v->prot, space_slot(ram, slot), base + (gpa - slot->gpa));
    if (s->lost)
        space_drop_copy(s, v->copy);
    for (unsigned k = 0; k < n && !s->lost; k++) {
        struct space_view one = { v->gfn + k, v->prot, v->odd, v->copy };
        space_note(s, page + k, &one);
    }
}

/* Is v of the page behind a run of n pages whose first is run? */
static bool space_follows(struct ram *ram, const struct space_view *run, unsigned n, const struct space_view *v)
{
    return n && v->prot == run->prot && v->odd == run->odd && v->gfn == run->gfn + n &&
           ram_slot_of(ram, v->gfn << PAGE_SHIFT) == ram_slot_of(ram, run->gfn << PAGE_SHIFT);
}

/* Map what may be mapped of n pages from `page` on, or of those that hold no code. */
static void space_map(struct space *s, struct cpu *cpu, const struct space_rules *rules, uint64_t page, unsigned n, bool code)
{
    struct mmu_look look = { 0 };
    struct space_view run = { 0 };
    unsigned length = 0;

    for (unsigned k = 0; k <= n; k++) {
        uint64_t at = page + k, lin = at << PAGE_SHIFT;
        struct space_view v = { 0 };

        if (k < n) {
            if (!look.page_size || (lin & (look.page_size - 1)) == 0)
                look = mmu_look(cpu, lin);
            uint32_t note = *space_find(s, at);
            if (look.readable && (code || !look.executable))
                v = space_view(cpu, rules, &look, lin, note ? &s->page[note] : NULL);
            if (note && space_same(&s->page[note], &v))
                v.prot = 0; /* it is there already */
        }
        if (space_follows(cpu->ram, &run, length, &v)) {
            length++;
            continue;
        }
        if (length)
            space_put(s, cpu->ram, at - length, length, &run);
        run = v;
        length = v.prot != 0;
    }
}

/* -- before it runs -- */

/* What page tables say of the page or large page that was looked at last. */
struct space_look {
    struct mmu_look look;
    uint64_t base; /* 1: nothing was */
};

/* Take page n away if the page tables do not say any more what it was mapped for. */
static bool space_compare_page(struct space *s, struct cpu *cpu, uint32_t n, struct space_look *last)
{
    const struct space_page *p = &s->page[n];
    struct mmu_look *look = &last->look;
    uint64_t lin = (uint64_t)p->lin << PAGE_SHIFT;

    if (last->base != (lin & ~(look->page_size - 1))) {
        *look = mmu_look(cpu, lin);
        last->base = look->page_size ? lin & ~(look->page_size - 1) : 1;
    }
    uint64_t gpa = mmu_look_page(look, lin);
    bool there = look->readable && (!cpu->ram->window.size || space_seen(cpu, &gpa)) && gpa >> PAGE_SHIFT == p->gfn;
    if (there && (look->writable || !(p->prot & PROT_WRITE)) && (look->executable || !(p->prot & PROT_EXEC)))
        return true;
    space_drop(s, n);
    return false;
}

static void space_compare(struct space *s, struct cpu *cpu)
{
    struct space_look last = { .base = 1 };

    for (uint32_t n = 1; n < s->pages && !s->lost;)
        n += space_compare_page(s, cpu, n, &last);
}

static void space_compare_some(struct space *s, struct cpu *cpu)
{
    struct space_look last = { .base = 1 };

    for (uint64_t page = s->check_page; page < s->check_page + s->check_pages && !s->lost; page++) {
        uint32_t n = *space_find(s, page);
        if (n)
            space_compare_page(s, cpu, n, &last);
    }
}

void space_settle(struct space *s, struct cpu *cpu, const struct space_rules *rules)
{
    if (s->check && s->pages > SPACE_CHECKS)
        space_forget_all(s);
    if (s->check)
        space_compare(s, cpu);
    else if (s->check_pages)
        space_compare_some(s, cpu);
    s->check = false;
    s->check_pages = 0;
    if (s->areas > SPACE_AREAS || s->pages + SPACE_LARGE >= SPACE_PAGES)
        space_forget_all(s);
    if (s->lost)
        runner_unmap_all(&s->runner);
    s->lost = false;
    runner_breaks(&s->runner, s->breaks); /* there are only fewer now */
}

static bool space_reaches(uint64_t lin) { return lin < RUNNER_TOP && lin / RUNNER_SLOT != RUNNER_STUB / RUNNER_SLOT; }

static void space_map_near(struct space *s, struct cpu *cpu, const struct space_rules *rules, uint64_t page)
{
    space_map(s, cpu, rules, page & ~(uint64_t)(SPACE_NEAR - 1), SPACE_NEAR, true);
}

/* Data is often used all over: what lies around a page, near ones first, as long as few mappings do for it. */
static void space_map_around(struct space *s, struct cpu *cpu, const struct space_rules *rules, uint64_t page)
{
    uint64_t near = page & ~(uint64_t)(SPACE_NEAR - 1), first = page & ~(uint64_t)(SPACE_LARGE - 1);
    unsigned most = s->areas + SPACE_FEW;

    space_map_near(s, cpu, rules, page);
    for (uint64_t at = near + SPACE_NEAR; at < first + SPACE_LARGE && s->areas < most && !s->lost; at += SPACE_NEAR)
        space_map(s, cpu, rules, at, SPACE_NEAR, false);
    for (uint64_t at = near; at > first && s->areas < most && !s->lost; at -= SPACE_NEAR)
        space_map(s, cpu, rules, at - SPACE_NEAR, SPACE_NEAR, false);
}

void space_expect(struct space *s, struct cpu *cpu, const struct space_rules *rules, uint64_t lin)
{
    if (!space_reaches(lin) || s->lost)
        return;
    struct mmu_look look = mmu_look(cpu, lin);
    if (look.readable)
        space_map_near(s, cpu, rules, lin >> PAGE_SHIFT);
}

enum space_fault space_fault(struct space *s, struct cpu *cpu, const struct space_rules *rules, uint64_t lin, uint64_t rip)
{
    uint64_t page = lin >> PAGE_SHIFT;

    if (!space_reaches(lin))
        return SPACE_REAL;
    struct mmu_look look = mmu_look(cpu, lin);
    if (!look.readable)
        return SPACE_REAL;
    struct space_view v = space_view(cpu, rules, &look, lin, NULL);
    uint32_t note = *space_find(s, page);
    if (v.prot && !(note && space_same(&s->page[note], &v))) {
        if (note) /* its word for what is odd is not good any more */
            space_drop(s, note);
        if (v.prot & PROT_EXEC)
            space_map_near(s, cpu, rules, page);
        else if (look.page_size > PAGE_SIZE)
            space_map(s, cpu, rules, page & ~(uint64_t)(SPACE_LARGE - 1), SPACE_LARGE, true);
        else
            space_map_around(s, cpu, rules, page);
        return SPACE_MAPPED;
    }
    return v.odd && rip >> PAGE_SHIFT == page && !(note && space_broken(&s->page[note])) ? SPACE_ODD : SPACE_REAL;
}

/* Who has breakpoints and still needs them comes back. */
static void space_give_back(struct space *s)
{
    for (unsigned n = 0; n < RUNNER_BREAKS && !s->lost; n++)
        if (s->breaks[n])
            space_drop(s, *space_find(s, s->breaks[n] >> PAGE_SHIFT));
}

static unsigned space_free_breaks(const struct space *s)
{
    unsigned free = 0;

    for (unsigned n = 0; n < RUNNER_BREAKS; n++)
        free += !s->breaks[n];
    return free;
}

/* Breakpoints for n places in a page, of those that are free. */
static bool space_set_breaks(struct space *s, uint64_t page, const uint16_t *off, unsigned n)
{
    uint64_t at[RUNNER_BREAKS];
    unsigned used = 0;

    for (unsigned k = 0; k < RUNNER_BREAKS; k++)
        at[k] = s->breaks[k] || used == n ? s->breaks[k] : page << PAGE_SHIFT | off[used++];
    s->unbroken = runner_breaks(&s->runner, at) < 0;
    if (!s->unbroken)
        memcpy(s->breaks, at, sizeof(at));
    return !s->unbroken;
}

/* A copy of a page with INT3 at those of the n places in it that are certain, when the instruction at `from` is about to be executed; the others are left in off[], *n
 * of them. As space_page.copy. */
static unsigned space_copy(struct space *s, const uint8_t *bytes, unsigned from, uint16_t *off, unsigned *n)
{
    uint8_t copy[PAGE_SIZE];
    unsigned left = 0;

    memcpy(copy, bytes, sizeof(copy));
    uint64_t certain = odd_certain(copy, from, off, *n);
    for (unsigned k = 0; k < *n; k++) {
        if (certain >> k & 1)
            copy[off[k]] = SPACE_INT3;
        else
            off[left++] = off[k];
    }
    int page = left < *n && left <= space_free_breaks(s) ? runners_copy(s->runner.all, copy) : -1;
    if (page < 0)
        return 0;
    *n = left;
    return (unsigned)page + 1;
}

bool space_break(struct space *s, struct cpu *cpu, const struct space_rules *rules, uint64_t lin)
{
    uint64_t page = lin >> PAGE_SHIFT;
    struct mmu_look look = mmu_look(cpu, lin);
    struct space_view v = space_view(cpu, rules, &look, lin, NULL);
    uint16_t off[ODD_MAX + 1];

    if (s->lost)
        return true; /* it comes back here when there is something again */
    if (!v.odd || v.prot & PROT_WRITE || s->unbroken || !page)
        return false;
    const uint8_t *bytes = ram_borrow(cpu->ram, v.gfn << PAGE_SHIFT, PAGE_SIZE);
    unsigned n = odd_find(bytes, space_before(cpu, lin), rules->cpuid, rules->xcr0, off, ODD_MAX + 1);
    if (n > space_free_breaks(s) && n <= ODD_MAX)
        v.copy = space_copy(s, bytes, lin & (PAGE_SIZE - 1), off, &n);
    if (n > space_free_breaks(s)) {
        if (++s->refused % SPACE_PATIENCE == 0)
            space_give_back(s);
        return false;
    }
    if (!space_set_breaks(s, page, off, n)) {
        space_drop_copy(s, v.copy);
        return false;
    }
    v.prot |= PROT_EXEC;
    space_put(s, cpu->ram, page, 1, &v);
    return true;
}

/* -- the choke point -- */

/* A region where large pages are: it is compared, for once; who flushes several has all compared. */
static void space_check_some(struct space *s, uint64_t page, uint64_t pages)
{
    if (pages > SPACE_SOME || (s->check_pages && s->check_page != page)) {
        s->check = true;
        return;
    }
    s->check_page = page;
    s->check_pages = (unsigned)pages;
}

static void space_flush_pages(struct space *s, uint64_t lin, uint64_t size)
{
    if (size > PAGE_SIZE * SPACE_LARGE) {
        space_check_some(s, lin >> PAGE_SHIFT, size >> PAGE_SHIFT);
        return;
    }
    for (uint64_t page = lin >> PAGE_SHIFT; page < (lin + size) >> PAGE_SHIFT && !s->lost; page++) {
        uint32_t note = *space_find(s, page);
        if (note)
            space_drop(s, note);
    }
}

void space_flush(struct space *s, const struct tlb_flush *f)
{
    bool page = f->kind == TLB_FLUSH_PAGE || f->kind == TLB_FLUSH_PAGE_PCID;

    if (f->kind != TLB_FLUSH_ALL && f->kind != TLB_FLUSH_NONGLOBAL && (s->cr3 & 0xfff) != f->pcid)
        return;
    if (page && f->lin >> 47)
        return;
    if (page)
        space_flush_pages(s, f->lin, f->size);
    else
        s->check = true;
}

void space_protect(struct space *s, uint64_t gpa)
{
    uint64_t gfn = gpa >> PAGE_SHIFT;

    if (gpa == ~0ULL) {
        if (s->pages > 1)
            space_forget_all(s);
        return;
    }
    if (gfn >= s->limit || !(s->told[gfn / 64] >> gfn % 64 & 1))
        return;
    s->told[gfn / 64] &= ~(1ULL << gfn % 64);
    for (uint32_t n = s->pages; --n > 0 && !s->lost;) {
        if (s->page[n].gfn != gfn)
            continue;
        space_drop(s, n);
    }
}

void space_changed(struct space *s, uint64_t gpa)
{
    if (gpa != ~0ULL) {
        space_protect(s, gpa);
        return;
    }
    for (uint32_t n = s->pages; s->broken && --n > 0 && !s->lost;)
        if (space_broken(&s->page[n]))
            space_drop(s, n);
    s->broken = false;
}
