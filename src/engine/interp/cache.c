/* Decoded code: found by linear address (ITLB), kept by guest-physical page and code size.
 *
 * Each vCPU has its own blocks, so looking up takes no lock. What is shared is one bit for each 64
 * bytes of guest RAM that anybody decoded (interp_shared.granules): stores to such pages leave the
 * fast path (PAGE_CODE), look at the bits, and drop blocks of all vCPUs only when decoded bytes change.
 * Bits are set and cleared while all other vCPUs stand still (quiesce.c), so no store can slip in between
 * the look and the store.
 *
 * Memory is bounded: blocks (found by page and offset in one hash table) come from an arena that is emptied as a whole when it is full.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/map.h"
#include "engine/interp/interp.h"
#include "ram/ram.h"

static void cache_empty_itlb(struct interp *it)
{
    it->key = TLB_INVALID;
    it->nlocal = 0;
    for (unsigned n = 0; n < ITLB_SIZE; n++)
        it->itlb[n].key = TLB_INVALID;
}

/* Translations that are not global: between two switches of the address space there are few. */
static void cache_empty_itlb_local(struct interp *it)
{
    bool few = it->nlocal <= ITLB_LOCAL;
    unsigned n = few ? it->nlocal : ITLB_SIZE;
    it->key = TLB_INVALID;
    it->nlocal = 0;
    while (n-- > 0) {
        struct itlb_entry *e = &it->itlb[few ? it->local[n] : n];
        if (!e->global)
            e->key = TLB_INVALID;
    }
}

int cache_init(struct interp *it)
{
    it->arena = map_memory(INTERP_ARENA);
    if (!it->arena)
        return -1;
    madvise(it->arena + INTERP_SMALL, INTERP_ARENA - INTERP_SMALL, MADV_HUGEPAGE);
    it->forms = forms_create();
    if (!it->forms)
        return -1;
    it->arena_used = ARENA_UNIT; /* 0 means "none" */
    it->block_mask = BLOCK_FEW - 1;
    cache_empty_itlb(it);
    return 0;
}

void cache_fini(struct interp *it)
{
    if (it->arena)
        munmap(it->arena, INTERP_ARENA);
    it->arena = NULL;
    forms_destroy(it->forms);
    it->forms = NULL;
}

static void cache_flush_region(struct interp *it, uint64_t lin, uint64_t size)
{
    uint64_t pages = size >> PAGE_SHIFT < ITLB_SIZE ? size >> PAGE_SHIFT : ITLB_SIZE;
    if (it->key - lin < size)
        it->key = TLB_INVALID;
    for (uint64_t n = 0; n < pages; n++) {
        struct itlb_entry *e = &it->itlb[((lin >> PAGE_SHIFT) + n) % ITLB_SIZE];
        if (e->key - lin < size)
            e->key = TLB_INVALID;
    }
}

/* The ITLB knows no PCIDs: only what is about another one leaves it alone. */
void cache_flushed(struct interp *it, const struct tlb_flush *f)
{
    if (f->kind == TLB_FLUSH_PAGE || f->kind == TLB_FLUSH_PAGE_PCID)
        cache_flush_region(it, f->lin, f->size);
    else if (f->kind == TLB_FLUSH_ALL)
        cache_empty_itlb(it);
    else if (f->kind != TLB_FLUSH_PCID || f->pcid == mmu_pcid(&it->vcpu->cpu))
        cache_empty_itlb_local(it);
    if (!it->translator)
        return;
    if (it->translator->flushed)
        it->translator->flushed(it, f);
    else
        it->translator->forget(it);
}

void cache_switched(struct interp *it)
{
    cache_empty_itlb_local(it);
    if (!it->translator)
        return;
    if (it->translator->switched)
        it->translator->switched(it);
    else
        it->translator->forget(it);
}

static void cache_forget_linear(struct interp *it)
{
    cache_empty_itlb(it);
    if (it->translator)
        it->translator->forget(it);
}

void cache_drop_all(struct interp *it)
{
    if (!it->began)
        return; /* and its tables are not touched: a machine that is made anew, or of a file, would pay for all of them */
    interp_stale_current(it);
    it->current = NULL;
    cache_forget_linear(it);
    memset(it->hash, 0, sizeof(it->hash));
    memset(it->blocks, 0, (it->block_mask + 1) * sizeof(it->blocks[0]));
    memset(it->step, 0, sizeof(it->step));
    memset(it->cross_bloom, 0, sizeof(it->cross_bloom));
    /* Keep what was touched lately mapped; the tail goes back to the host. */
    if (it->arena_used > INTERP_ARENA / 4)
        madvise(it->arena + INTERP_ARENA / 4, INTERP_ARENA - INTERP_ARENA / 4, MADV_DONTNEED);
    it->arena_used = ARENA_UNIT;
    hostexec_clear(it->hx);
    forms_clear(it->forms);
    if (it->translator)
        it->translator->drop(it);
    it->vcpu->stats.emptied++;
}

void cache_rest(struct interp *it)
{
    cache_drop_all(it);
    map_give_back(it->arena, INTERP_ARENA);
    map_give_back(it->blocks, sizeof(it->blocks));
    map_give_back(it->step, sizeof(it->step));
    map_give_back(it->hash, sizeof(it->hash));
    it->block_mask = BLOCK_FEW - 1;
    it->large = false;
    forms_rest(it->forms);
    hostexec_rest(it->hx);
    if (it->translator && it->translator->rest)
        it->translator->rest(it);
    it->vcpu->stats.rested++;
}

/* There is much code: its tables go into a large page now, if the host can do that (Linux 6.1), or has one later. */
static void cache_enlarge(struct interp *it)
{
    it->large = true;
    madvise(it, INTERP_BYTES, MADV_HUGEPAGE);
    madvise(it, INTERP_BYTES, MADV_COLLAPSE);
}

static struct block *cache_block(const struct interp *it, uint32_t unit)
{
    return (struct block *)(void *)(it->arena + (size_t)unit * ARENA_UNIT);
}

static void cache_link(struct interp *it, uint32_t unit)
{
    struct block *b = cache_block(it, unit);
    uint32_t *slot = &it->blocks[block_slot(it, b->page, b->off)];
    b->next = *slot;
    *slot = unit;
}

/* All of the table of blocks is in use from now on. */
static void cache_spread(struct interp *it)
{
    memset(it->blocks, 0, BLOCK_FEW * sizeof(it->blocks[0]));
    it->block_mask = BLOCK_HASH - 1;
    for (unsigned n = 0; n < PAGE_HASH; n++)
        for (const struct code_page *p = it->hash[n]; p; p = p->chain)
            for (uint32_t at = p->blocks; at; at = cache_block(it, at)->next_in_page)
                cache_link(it, at);
}

static void *cache_alloc(struct interp *it, size_t size)
{
    if (unlikely(it->block_mask < BLOCK_HASH - 1 && it->arena_used > BLOCK_SMALL))
        cache_spread(it);
    if (unlikely(!it->large && it->arena_used > INTERP_SMALL))
        cache_enlarge(it);
    size = ALIGN_UP(size, ARENA_UNIT);
    if (size > INTERP_ARENA - it->arena_used)
        return NULL;
    void *p = it->arena + it->arena_used;
    it->arena_used += size;
    return p;
}

static struct code_page **cache_bucket(struct interp *it, uint64_t gpa)
{
    return &it->hash[(gpa >> PAGE_SHIFT) % PAGE_HASH];
}

static struct code_page *cache_find_page(struct interp *it, uint64_t gpa, unsigned code_size)
{
    struct code_page *p = *cache_bucket(it, gpa);
    while (p && (p->gpa != gpa || p->code_size != code_size))
        p = p->chain;
    return p;
}

static struct code_page *cache_get_page(struct interp *it, uint64_t gpa, unsigned code_size)
{
    struct code_page *p = cache_find_page(it, gpa, code_size);
    if (p)
        return p;
    if (INTERP_ARENA - it->arena_used < 1UL << 16)
        cache_drop_all(it);
    p = cache_alloc(it, sizeof(*p));
    struct code_page **bucket = cache_bucket(it, gpa);
    *p = (struct code_page){ .gpa = gpa, .code_size = (uint8_t)code_size, .chain = *bucket };
    p->seed = (uint32_t)(((gpa >> PAGE_SHIFT) * 0x9e3779b97f4a7c15ULL + code_size) >> 40) * 16;
    *bucket = p;
    return p;
}

/* --- the shared map of decoded bytes --- */

int cache_shared_init(struct engine *e)
{
    struct interp_shared *s = calloc(1, sizeof(*s));
    if (!s)
        return -1;
    bind_init(s);
    e->priv = s;
    e->ram->code_write = cache_code_write_async;
    e->ram->code_opaque = e;
    return 0;
}

int cache_shared_map(struct engine *e)
{
    struct interp_shared *s = e->priv;
    for (unsigned n = 0; n < e->ram->nslots; n++) {
        uint64_t pages = e->ram->slot[n].size >> PAGE_SHIFT;
        if (s->slot[n].granules)
            continue;
        s->slot[n].granules = map_memory(pages * 9);
        if (!s->slot[n].granules)
            return -1;
        s->slot[n].fine = (uint8_t *)(s->slot[n].granules + pages);
    }
    return 0;
}

void cache_shared_fini(struct engine *e)
{
    struct interp_shared *s = e->priv;
    for (unsigned n = 0; s && n < e->ram->nslots; n++)
        if (s->slot[n].granules)
            munmap(s->slot[n].granules, (e->ram->slot[n].size >> PAGE_SHIFT) * 9);
    free(s);
    e->priv = NULL;
    e->ram->code_write = NULL;
}

/* The granule word of gpa's page, and where its `fine` byte is. NULL outside RAM. */
static uint64_t *cache_granules(struct engine *e, uint64_t gpa, uint8_t **fine)
{
    struct interp_shared *s = e->priv;
    struct ram_slot *slot = ram_slot_of(e->ram, gpa);
    if (!slot)
        return NULL;
    unsigned n = (unsigned)(slot - e->ram->slot);
    uint64_t page = (gpa - slot->gpa) >> PAGE_SHIFT;
    *fine = &s->slot[n].fine[page];
    return &s->slot[n].granules[page];
}

static uint64_t cache_granule_mask(unsigned off, unsigned len)
{
    unsigned first = off / 64, last = (off + len - 1) / 64;
    if (last > 63)
        last = 63;
    return (~0ULL >> (63 - (last - first))) << first;
}

bool cache_marked(const struct vcpu *v, uint64_t gpa, unsigned len)
{
    uint8_t *fine;
    const uint64_t *g = cache_granules(v->engine, gpa, &fine);
    uint64_t mask = cache_granule_mask(gpa & 0xfff, len);
    return (*g & mask) == mask;
}

void cache_mark(struct vcpu *v, uint64_t gpa, unsigned len)
{
    uint8_t *fine;
    uint64_t *g = cache_granules(v->engine, gpa, &fine);
    uint64_t mask = *fine ? cache_granule_mask(PAGE_OFFSET(gpa), len) : ~0ULL;
    if ((*g & mask) == mask)
        return;
    quiesce_begin(v);
    _Atomic uint8_t *flags = ram_page_flags(v->engine->ram, gpa);
    if (!(atomic_fetch_or(flags, PAGE_CODE) & PAGE_CODE))
        for (unsigned n = 0; n < v->engine->nvcpus; n++)
            mmu_protect(&v->engine->vcpu[n]->cpu, PAGE_BASE(gpa));
    *g |= *fine ? cache_granule_mask(PAGE_OFFSET(gpa), len) : ~0ULL;
    quiesce_end(v);
}

static void cache_unlink(struct interp *it, const struct block *b)
{
    uint32_t *from = &it->blocks[block_slot(it, b->page, b->off)];
    while (cache_block(it, *from) != b)
        from = &cache_block(it, *from)->next;
    *from = b->next;
}

static void cache_invalidate_page(struct interp *it, uint64_t gpa)
{
    for (struct code_page *p = *cache_bucket(it, gpa); p; p = p->chain) {
        if (p->gpa != gpa)
            continue;
        for (uint32_t at = p->blocks; at; at = cache_block(it, at)->next_in_page)
            cache_unlink(it, cache_block(it, at));
        p->blocks = 0;
        p->ntargets = 0;
        if (it->current && it->current->page == p) /* it->page may be that of the next block, which is being looked for */
            interp_stale_current(it);
        if (it->translator)
            it->translator->stale(it);
        it->vcpu->stats.invalidated++;
    }
    cross_written(it, gpa);
}

/* One page's share of cache_code_write(). */
static void cache_write_page(struct vcpu *v, uint64_t gpa, unsigned len)
{
    uint8_t *fine;
    uint64_t *g = cache_granules(v->engine, gpa, &fine);
    if (!g || !(*g & cache_granule_mask(PAGE_OFFSET(gpa), len)))
        return;
    quiesce_begin(v);
    for (unsigned n = 0; n < v->engine->nvcpus; n++) {
        struct interp *it = v->engine->vcpu[n]->cpu.engine;
        cache_invalidate_page(it, PAGE_BASE(gpa));
        if (it->translator && it->translator->changed)
            it->translator->changed(it, PAGE_BASE(gpa));
    }
    *g = 0;
    *fine = 1;
    atomic_fetch_and(ram_page_flags(v->engine->ram, gpa), (uint8_t)~PAGE_CODE);
    quiesce_end(v);
}

void cache_code_write(struct cpu *cpu, uint64_t gpa, uint64_t len)
{
    while (len) {
        uint64_t n = PAGE_REST(gpa);
        if (n > len)
            n = len;
        cache_write_page(cpu->vcpu, gpa, (unsigned)n);
        gpa += n;
        len -= n;
    }
}

void cache_code_write_async(void *opaque, uint64_t gpa, uint64_t len)
{
    struct engine *e = opaque;
    for (unsigned n = 0; n < e->nvcpus; n++) {
        struct interp *it = e->vcpu[n]->cpu.engine;
        atomic_store_explicit(&it->drop_all, true, memory_order_release);
        vcpu_kick(e->vcpu[n], ATT_STEP);
    }
}

/* --- decoding a block --- */

/* Decode from off on into b, which has room. False: stub memory is full, nothing was decided. */
static bool cache_decode(struct interp *it, struct cpu *cpu, const struct code_page *page, unsigned off, struct block *b)
{
    unsigned room = PAGE_SIZE - off;
    const uint8_t *code = ram_borrow(cpu->ram, page->gpa + off, room);
    NO_INIT struct form_look look[FORM_AHEAD];
    NO_INIT uint32_t form[BLOCK_MAX];
    unsigned looked = 0, at = 0;
    bool full;
    *b = (struct block){ .epoch = it->forms->epoch };
    while (b->n < BLOCK_MAX) {
        struct insn *i = &b->insn[b->n];
        if (at == looked) {
            looked = form_look_ahead(it, code + b->len, room - b->len, look);
            at = 0;
        }
        if (form_found(it, &look[at], i, &form[b->n], &full) != DECODE_OK)
            break; /* the step path raises, or fetches the rest from the next page */
        if (full)
            return false;
        b->n++;
        b->len += i->len;
        if ((i->flags & INSN_END) || b->len == room)
            break;
        if (look[at++].len != i->len)
            looked = at;
    }
    it->vcpu->stats.decoded += b->n;
    memcpy(b->insn + b->n, form, b->n * sizeof(*form));
    return true;
}

static struct block *cache_make(struct interp *it, struct cpu *cpu, struct code_page *page, unsigned off)
{
    unsigned room = PAGE_SIZE - off;
    cache_mark(it->vcpu, page->gpa + off, room < 1024 ? room : 1024);
    uint32_t unit = (uint32_t)(it->arena_used / ARENA_UNIT);
    struct block *b = cache_block(it, unit);
    if (INTERP_ARENA - it->arena_used < BLOCK_BYTES(BLOCK_MAX) || !cache_decode(it, cpu, page, off, b)) {
        cache_drop_all(it);
        return NULL;
    }
    size_t size = BLOCK_BYTES(b->n);
    if (b->n == 0) {
        if (!cross_make(it, cpu, page, off, b))
            return NULL;
        size = cross_size();
    }
    if (b->epoch != it->forms->epoch) /* forgotten in the middle: none of the numbers is good */
        b->epoch = it->forms->epoch - 1;
    b->page = page;
    b->off = (uint16_t)off;
    b->next_in_page = page->blocks;
    page->blocks = unit;
    cache_link(it, unit);
    return cache_alloc(it, size);
}

static struct code_page *cache_fill_itlb(struct interp *it, struct cpu *cpu, uint64_t lin, uint64_t key)
{
    cpu->start_rip = cpu->r[R_RIP];
    uint64_t gpa = PAGE_BASE(mmu_fetch(cpu, lin));
    if (!ram_borrow(cpu->ram, gpa, PAGE_SIZE))
        return NULL;
    struct code_page *p = cache_get_page(it, gpa, cpu->code_size);
    unsigned slot = (lin >> PAGE_SHIFT) % ITLB_SIZE;
    it->itlb[slot] = (struct itlb_entry){ .key = key, .page = p, .global = cpu->fetch_global };
    if (!cpu->fetch_global && it->nlocal < ITLB_LOCAL)
        it->local[it->nlocal++] = (uint16_t)slot;
    else if (!cpu->fetch_global)
        it->nlocal = ITLB_LOCAL + 1;
    return p;
}

/* The page of code at lin; NULL when it is not RAM. */
static struct code_page *cache_page_at(struct interp *it, struct cpu *cpu, uint64_t lin, uint64_t key)
{
    const struct itlb_entry *e = &it->itlb[(lin >> PAGE_SHIFT) % ITLB_SIZE];
    struct code_page *p = likely(e->key == key) ? e->page : cache_fill_itlb(it, cpu, lin, key);
    it->key = p ? key : TLB_INVALID;
    it->page = p;
    it->page_global = e->global;
    return p;
}

uint64_t cache_fetch(struct interp *it, struct cpu *cpu, uint64_t lin)
{
    const struct itlb_entry *e = &it->itlb[(lin >> PAGE_SHIFT) % ITLB_SIZE];
    return likely(e->key == cache_key(cpu, lin)) ? e->page->gpa | PAGE_OFFSET(lin) : mmu_fetch(cpu, lin);
}

struct block *cache_peek(const struct interp *it, const struct code_page *page, unsigned off)
{
    uint32_t at = it->blocks[block_slot(it, page, off)];
    while (at && (cache_block(it, at)->page != page || cache_block(it, at)->off != off))
        at = cache_block(it, at)->next;
    return at ? cache_block(it, at) : NULL;
}

struct block *cache_lookup(struct interp *it, struct cpu *cpu)
{
    uint64_t lin = interp_lin_rip(cpu), key = cache_key(cpu, lin);
    struct code_page *page = it->page;
    if (unlikely(key != it->key)) {
        page = cache_page_at(it, cpu, lin, key);
        if (!page)
            return NULL;
    }
    unsigned off = PAGE_OFFSET(lin);
    struct block *b = cache_peek(it, page, off);
    if (unlikely(!b))
        b = cache_make(it, cpu, page, off);
    else if (unlikely(b->cross) && !cross_good(it, cpu, b))
        return NULL;
    if (unlikely(cpu->code_size != 8) && b && cpu->r[R_RIP] + b->len - 1 > cpu->seg[SEG_CS].limit)
        return NULL;
    return b;
}
