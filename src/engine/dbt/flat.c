/* The flat shadow tables (flat.h). */
#include "engine/dbt/flat.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/map.h"
#include "engine/engine.h"
#include "ram/ram.h"
#include "x86/mem.h"
#include "x86/tlb.h"

#define FLAT_REGION_BITS 65536u

static struct engine_stats *flat_stats(const struct flat *f)
{
    struct vcpu *v = f->cpu->vcpu;
    return &v->stats;
}

/* --- memory --- */

static void flat_unmap(void *p, size_t size)
{
    if (p)
        munmap(p, size);
}

#define FLAT_HEAD  4096u /* bytes below a read table; the last of them are a struct flat_head */
#define FLAT_NOTES (FLAT_NODES * sizeof(struct flat_node))

/* No return finds anything: not even one to the last address of all, which the entries seem to be for. */
static void flat_returns_forget(const struct flat *f, struct flat_returns *r)
{
    memset(r->neg, 0, sizeof(r->neg));
    for (unsigned n = 0; n < FLAT_RETURNS; n++)
        r->host[n] = f->nowhere;
}

static struct flat_head *flat_head(uint64_t *read) { return (struct flat_head *)(void *)read - 1; }

/* A read table with its head; write: its companion, or NULL: itself. */
static uint64_t *flat_map_read(const struct flat *f, const uint64_t *write)
{
    uint8_t *p = map_memory(FLAT_HEAD + FLAT_BYTES);
    if (!p)
        return NULL;
    uint64_t *read = (uint64_t *)(void *)(p + FLAT_HEAD);
    struct flat_head *h = flat_head(read);
    h->mask_page = 0x0000fffffffff000ULL;
    h->mask_return = (uint64_t)(FLAT_RETURNS - 1) << 4; /* compilers align stack pointers to 16 at calls */
    h->mask_jump = 2 * f->jump_mask;
    for (unsigned k = 0; k < ARRAY_LEN(h->mask_cross); k++)
        h->mask_cross[k] = 0xfffu & ~((1u << k) - 1);
    h->write = write ? write : read;
    flat_returns_forget(f, flat_returns(read));
    return read;
}

static void flat_unmap_read(const uint64_t *read)
{
    if (read)
        munmap((char *)(uintptr_t)read - FLAT_HEAD, FLAT_HEAD + FLAT_BYTES);
}

#define FLAT_JUMP_BYTES ((FLAT_JUMPS + 1) * sizeof(struct flat_jump)) /* the last slot has one behind it, too */

/* An entry without a target. No address belongs to zeros but 0, which is looked for in the first two slots; 2 is not. */
static uint64_t flat_jump_none(unsigned slot) { return slot < 2 ? 0 - 2ULL : 0; }

/* j is all zeros. */
static void flat_jumps_begin(struct flat_jump *j)
{
    for (unsigned n = 0; n < 2; n++)
        j[n].neg = flat_jump_none(n);
}

static struct flat_jump *flat_map_jumps(void)
{
    struct flat_jump *j = map_memory(FLAT_JUMP_BYTES);
    if (j)
        flat_jumps_begin(j);
    return j;
}

static void flat_jumps_empty(const struct flat *f, struct flat_jump *j)
{
    memset(j, 0, (f->jump_mask + 2) * sizeof(*j));
    flat_jumps_begin(j);
}

static bool flat_set_init(const struct flat *f, struct flat_set *s)
{
    s->write = map_memory(FLAT_BYTES);
    s->read = s->write ? flat_map_read(f, s->write) : NULL;
    s->jumps = flat_map_jumps();
    s->node = map_memory(FLAT_NOTES);
    s->hash = map_memory(FLAT_HASH * sizeof(*s->hash));
    s->region = map_memory(FLAT_REGION_BITS / 8);
    if (!s->read || !s->write || !s->jumps || !s->node || !s->hash || !s->region)
        return false;
    return true;
}

static void flat_set_fini(struct flat_set *s)
{
    flat_unmap_read(s->read);
    flat_unmap(s->write, FLAT_BYTES);
    flat_unmap(s->jumps, FLAT_JUMP_BYTES);
    flat_unmap(s->node, FLAT_NOTES);
    flat_unmap(s->hash, FLAT_HASH * sizeof(*s->hash));
    flat_unmap(s->region, FLAT_REGION_BITS / 8);
    memset(s, 0, sizeof(*s));
}

/* The branch targets of 32-bit code that go when those of s do. */
static struct flat_set *flat_code32(struct flat *f, const struct flat_set *s) { return &f->set[FLAT_CODE32 + (s - f->set)]; }

static void flat_new_epoch(struct flat *f, struct flat_set *s)
{
    s->jump_epoch = ++f->epoch; /* never 0 */
    s->good = flat_epoch_key(s->jump_epoch);
}

static bool flat_code32_init(struct flat *f)
{
    for (unsigned n = FLAT_CODE32; n < FLAT_CODE32 + FLAT_USER0 + f->nusers; n++) {
        struct flat_set *s = &f->set[n];
        flat_new_epoch(f, s);
        s->jumps = flat_map_jumps();
        if (!s->jumps)
            return false;
    }
    return true;
}

bool flat_init(struct flat *f, struct cpu *cpu, int max_users, const struct flat *first)
{
    f->cpu = cpu;
    f->user = FLAT_USER0;
    f->jump_mask = FLAT_FEW - 1;
    f->nothing_shared = first != NULL;
    f->nothing = first ? first->nothing : flat_map_read(f, NULL);
    f->no_jumps = flat_map_jumps();
    if (!f->nothing || !f->no_jumps)
        return false;
    flat_returns_forget(f, &f->no_returns);
    for (int n = 0; max_users >= 0 && n < FLAT_USER0 + max_users; n++) {
        flat_new_epoch(f, &f->set[n]);
        if (flat_set_init(f, &f->set[n]))
            continue;
        flat_set_fini(&f->set[n]);
        break; /* fewer sets: slower, not wrong */
    }
    while ((int)f->nusers < max_users && f->set[FLAT_USER0 + f->nusers].read)
        f->nusers++;
    return flat_code32_init(f);
}

void flat_fini(struct flat *f)
{
    for (unsigned n = 0; n < ARRAY_LEN(f->set); n++)
        flat_set_fini(&f->set[n]);
    if (!f->nothing_shared)
        flat_unmap_read(f->nothing);
    flat_unmap(f->no_jumps, FLAT_JUMP_BYTES);
    f->nothing = NULL;
}

/* --- emptying --- */

static unsigned flat_bloom(uint64_t page) { return (unsigned)(page ^ page >> 6 ^ page >> 18) & (FLAT_BLOOM * 64 - 1); }

static bool flat_bloom_has(const uint64_t *bloom, uint64_t page)
{
    unsigned bit = flat_bloom(page);
    return bloom[bit / 64] >> (bit % 64) & 1;
}

static void flat_bloom_add(uint64_t *bloom, uint64_t page)
{
    unsigned bit = flat_bloom(page);
    bloom[bit / 64] |= 1ULL << (bit % 64);
}

/* Of a page number's 36 bits. */
static unsigned flat_half(uint64_t page) { return page >> 35 & 1; }

static void flat_jump_page(struct flat_set *s, uint64_t lin)
{
    uint64_t page = lin >> 12 & (FLAT_PAGES - 1);
    s->entered = true;
    s->jump_half[flat_half(page)] = true;
    flat_bloom_add(s->jump_pages, page);
}

static void flat_set_forget_returns(const struct flat *f, const struct flat_set *s)
{
    if (s->read) /* else 32-bit code's, which has none */
        flat_returns_forget(f, flat_returns(s->read));
    if (s == &f->set[FLAT_SUP_SMAP] && f->set[FLAT_SUP].read) /* one set of branch targets for both */
        flat_returns_forget(f, flat_returns(f->set[FLAT_SUP].read));
}

static void flat_set_forget_jumps(struct flat *f, struct flat_set *s)
{
    if (!s->entered)
        return;
    s->entered = false;
    flat_set_forget_returns(f, s);
    if (s->njumps > FLAT_LOG)
        flat_jumps_empty(f, s->jumps);
    for (unsigned n = 0; n < s->njumps && s->njumps <= FLAT_LOG; n++)
        s->jumps[s->jump_log[n]].neg = flat_jump_none(s->jump_log[n]);
    s->njumps = 0;
    uint64_t old = s->good;
    flat_new_epoch(f, s);
    atomic_compare_exchange_strong(f->good, &old, s->good); /* if it is this set's, and nobody wants attention */
    memset(s->jump_half, 0, sizeof(s->jump_half));
    memset(s->jump_pages, 0, sizeof(s->jump_pages));
    s->jump_local = false;
    if (s == flat_current_code(f)) /* code that called what forgets goes on in its page, and notes calls there */
        flat_jump_page(s, *f->running);
}

static void flat_set_forget_notes(struct flat_set *s)
{
    if (s->nnodes)
        memset(s->hash, 0, FLAT_HASH * sizeof(*s->hash));
    s->nnodes = s->nlocals = s->ndead = 0;
}

static void flat_set_empty(struct flat *f, struct flat_set *s)
{
    if (!s->read)
        return;
    f->lost = true;
    flat_set_forget_jumps(f, s);
    flat_set_forget_jumps(f, flat_code32(f, s));
    if (s->nregions > FLAT_REGIONS / 2) {
        madvise(s->read, FLAT_BYTES, MADV_DONTNEED);
        madvise(s->write, FLAT_BYTES, MADV_DONTNEED);
        memset(s->region, 0, FLAT_REGION_BITS / 8);
        s->nregions = 0;
    } else {
        for (uint32_t n = 1; n <= s->nnodes; n++)
            s->read[s->node[n].page] = s->write[s->node[n].page] = 0;
    }
    flat_set_forget_notes(s);
    flat_stats(f)->flat_emptied++;
}

/* Keep what is global: notes are written anew. */
static void flat_set_keep_global(struct flat_set *s)
{
    uint32_t kept = 0;
    memset(s->hash, 0, FLAT_HASH * sizeof(*s->hash));
    for (uint32_t n = 1; n <= s->nnodes; n++) {
        struct flat_node *from = &s->node[n];
        if (!from->global) {
            s->read[from->page] = s->write[from->page] = 0;
            continue;
        }
        struct flat_node *to = &s->node[++kept];
        uint32_t *head = &s->hash[from->gfn % FLAT_HASH];
        *to = *from;
        to->next = *head;
        *head = kept;
    }
    s->nnodes = kept;
    s->ndead = 0;
}

/* A few entries go by themselves, and their notes stay, as flat_set_drop()'s do. */
static void flat_set_empty_local(struct flat *f, struct flat_set *s)
{
    struct flat_set *code32 = flat_code32(f, s);
    if (!s->read)
        return;
    f->lost = true;
    if (s->jump_local)
        flat_set_forget_jumps(f, s);
    else if (s->entered)
        flat_set_forget_returns(f, s);
    if (code32->jump_local)
        flat_set_forget_jumps(f, code32);
    if (!s->nlocals)
        return;
    s->ndead += s->nlocals;
    if (s->nlocals > FLAT_LOCALS || s->ndead > FLAT_DEAD)
        flat_set_keep_global(s);
    for (uint32_t n = 0; n < s->nlocals && n < FLAT_LOCALS; n++)
        s->read[s->local[n]] = s->write[s->local[n]] = 0;
    s->nlocals = 0;
    flat_stats(f)->flat_emptied++;
}

/* The 2 MiB around lin: one page of each table. Where nothing was touched, looking would make the host fill in memory. */
static unsigned flat_region_bit(uint64_t lin)
{
    uint64_t r = lin >> 21 & (FLAT_PAGES / 512 - 1);
    return (unsigned)(r ^ r >> 16) & (FLAT_REGION_BITS - 1);
}

static bool flat_region_touched(const struct flat_set *s, uint64_t lin)
{
    unsigned bit = flat_region_bit(lin);
    return s->region[bit / 8] >> (bit % 8) & 1;
}

/* Are there branch targets in that page, as far as is known? */
static bool flat_jumps_in(const struct flat_set *s, uint64_t page)
{
    page &= FLAT_PAGES - 1;
    return s->jump_half[flat_half(page)] && flat_bloom_has(s->jump_pages, page);
}

/* Notes of dropped pages stay: harmless. */
static void flat_set_drop(struct flat *f, struct flat_set *s, uint64_t lin, uint64_t size)
{
    struct flat_set *code32 = flat_code32(f, s);
    uint64_t page = lin >> 12 & (FLAT_PAGES - 1), count = size >> 12;
    if (!s->read)
        return;
    f->lost = true;
    if (count > s->nnodes / 2 + 1) {
        flat_set_empty(f, s);
        return;
    }
    bool code = false, has32 = false;
    for (uint64_t n = 0; n < count; n++, page++) {
        code |= flat_jumps_in(s, page);
        has32 |= flat_jumps_in(code32, page);
        if (flat_region_touched(s, page << 12))
            s->read[page] = s->write[page] = 0;
    }
    if (code)
        flat_set_forget_jumps(f, s);
    if (has32)
        flat_set_forget_jumps(f, code32);
}

static void flat_drop(struct flat *f, const struct tlb_flush *what)
{
    flat_set_drop(f, &f->set[FLAT_SUP_SMAP], what->lin, what->size);
    flat_set_drop(f, &f->set[FLAT_SUP], what->lin, what->size);
    for (unsigned n = FLAT_USER0; n < FLAT_USER0 + f->nusers; n++)
        if (what->kind == TLB_FLUSH_PAGE || f->set[n].pcid == what->pcid) /* the former: a global one may be in any */
            flat_set_drop(f, &f->set[n], what->lin, what->size);
}

/* The supervisor's sets know no PCIDs: what is not global is the current one's. */
static void flat_empty_local(struct flat *f)
{
    flat_set_empty_local(f, &f->set[FLAT_SUP_SMAP]);
    flat_set_empty_local(f, &f->set[FLAT_SUP]);
}

void flat_flushed(struct flat *f, const struct tlb_flush *what)
{
    bool all = what->kind == TLB_FLUSH_ALL;
    switch (what->kind) {
    case TLB_FLUSH_PAGE:
    case TLB_FLUSH_PAGE_PCID:
        flat_drop(f, what);
        return;
    case TLB_FLUSH_ALL:
        flat_set_empty(f, &f->set[FLAT_SUP_SMAP]);
        flat_set_empty(f, &f->set[FLAT_SUP]);
        break;
    default:
        flat_empty_local(f);
        break;
    }
    for (unsigned n = FLAT_USER0; n < FLAT_USER0 + f->nusers; n++)
        if (all || what->kind == TLB_FLUSH_NONGLOBAL || f->set[n].pcid == what->pcid)
            flat_set_empty(f, &f->set[n]); /* global ones too: rare at user level */
}

static void flat_set_protect(struct flat_set *s, uint64_t gpa)
{
    uint32_t gfn = (uint32_t)(gpa >> 12);
    if (!s->read)
        return;
    if (gpa == ~0ULL) {
        for (uint32_t n = 1; n <= s->nnodes; n++)
            s->write[s->node[n].page] = 0;
        return;
    }
    for (uint32_t n = s->hash[gfn % FLAT_HASH]; n; n = s->node[n].next)
        if (s->node[n].gfn == gfn)
            s->write[s->node[n].page] = 0;
}

void flat_protect(struct flat *f, uint64_t gpa)
{
    f->lost = true;
    for (unsigned n = 0; n < ARRAY_LEN(f->set); n++)
        flat_set_protect(&f->set[n], gpa);
    flat_stats(f)->flat_protected++;
}

void flat_forget_jumps(struct flat *f)
{
    for (unsigned n = 0; n < ARRAY_LEN(f->set); n++)
        flat_set_forget_jumps(f, &f->set[n]);
}

static void flat_set_slots(struct flat *f, unsigned slots)
{
    f->pushed = 0;
    f->jump_mask = slots - 1;
    for (unsigned n = 0; n < ARRAY_LEN(f->set); n++)
        if (f->set[n].read)
            flat_head(f->set[n].read)->mask_jump = 2 * f->jump_mask;
}

void flat_spread(struct flat *f)
{
    flat_forget_jumps(f); /* returns, which do not depend on it, too */
    flat_set_slots(f, FLAT_JUMPS);
}

static void flat_set_rest(struct flat *f, struct flat_set *s)
{
    if (s->read) {
        flat_set_empty(f, s);
        map_give_back(s->read, FLAT_BYTES);
        map_give_back(s->write, FLAT_BYTES);
        map_give_back(s->node, FLAT_NOTES);
        map_give_back(s->hash, FLAT_HASH * sizeof(*s->hash));
        map_give_back(s->region, FLAT_REGION_BITS / 8);
        s->nregions = 0;
    }
    if (!s->jumps)
        return;
    flat_set_forget_jumps(f, s);
    map_give_back(s->jumps, FLAT_JUMP_BYTES);
    flat_jumps_begin(s->jumps);
}

void flat_rest(struct flat *f)
{
    for (unsigned n = 0; n < ARRAY_LEN(f->set); n++)
        flat_set_rest(f, &f->set[n]);
    flat_set_slots(f, FLAT_FEW);
}

/* --- address spaces --- */

void flat_switched(struct flat *f)
{
    uint16_t pcid = (uint16_t)mmu_pcid(f->cpu);
    unsigned oldest = FLAT_USER0;
    struct flat_set *s = f->set;
    f->clock++;
    flat_empty_local(f);
    for (unsigned n = FLAT_USER0; n < FLAT_USER0 + f->nusers; n++) {
        if (s[n].pcid == pcid && (s[n].used || !pcid)) {
            s[n].used = f->clock;
            f->user = n;
            return;
        }
        if (s[n].used < s[oldest].used)
            oldest = n;
    }
    flat_set_empty(f, &s[oldest]);
    s[oldest].pcid = pcid;
    s[oldest].used = f->clock;
    f->user = oldest;
    flat_stats(f)->flat_spaces++;
}

struct flat_set *flat_current(struct flat *f)
{
    const struct cpu *cpu = f->cpu;
    if (cpu->tlb == tlb_nothing || cpu->paging_levels == 5 || !(cpu->cr0 & CR0_PE))
        return NULL;
    struct flat_set *s = &f->set[cpu->mmu_idx == MMU_USER  ? f->user
                                 : cpu->mmu_idx == MMU_SUP ? FLAT_SUP
                                                           : FLAT_SUP_SMAP];
    return s->read ? s : NULL;
}

struct flat_set *flat_current_code(struct flat *f) { return flat_code_of(f, flat_current(f)); }

struct flat_set *flat_code_of(struct flat *f, struct flat_set *s)
{
    if (s && f->cpu->code_size != 8)
        return flat_code32(f, f->cpu->cpl == 3 ? s : &f->set[FLAT_SUP_SMAP]);
    return s && f->cpu->cpl != 3 ? &f->set[FLAT_SUP_SMAP] : s;
}

/* --- filling --- */

/* Bound the pages of the tables that exist, also those that were only looked at. */
static void flat_touch(struct flat *f, struct flat_set *s, uint64_t lin)
{
    unsigned bit = flat_region_bit(lin);
    if (flat_region_touched(s, lin))
        return;
    if (s->nregions >= FLAT_REGIONS)
        flat_set_empty(f, s);
    s->region[bit / 8] |= (uint8_t)(1u << (bit % 8));
    s->nregions++;
}

static void flat_note(struct flat *f, struct flat_set *s, uint64_t page, const struct tlb_entry *e)
{
    if (s->nnodes + 1 >= FLAT_NODES)
        flat_set_empty(f, s);
    uint32_t n = ++s->nnodes;
    uint32_t gfn = (uint32_t)(e->gpa >> 12), *head = &s->hash[gfn % FLAT_HASH];
    s->node[n] = (struct flat_node){ .gfn = gfn, .next = *head, .page = page, .global = !!(e->gpa & TLB_G) };
    *head = n;
    if (!s->node[n].global) {
        if (s->nlocals < FLAT_LOCALS)
            s->local[s->nlocals] = page;
        s->nlocals += s->nlocals <= FLAT_LOCALS;
    }
}

static uint64_t flat_put(struct flat *f, struct flat_set *s, uint64_t lin, const struct tlb_entry *e, unsigned ways)
{
    uint64_t page = lin >> 12 & (FLAT_PAGES - 1), tag = lin & ~0xfffULL;
    bool rd = e->rd == tag, wr = e->wr == tag;
    flat_touch(f, s, lin);
    if (!rd && !wr)
        return 0;
    /* Also when only one of both is new: its page, and whether it is global, may differ from the other's. */
    if ((rd && s->read[page] != e->addend) || (wr && s->write[page] != e->addend))
        flat_note(f, s, page, e);
    if (rd)
        s->read[page] = e->addend;
    if (wr)
        s->write[page] = e->addend;
    flat_stats(f)->flat_fills++;
    return (rd || !(ways & ACC_READ)) && (wr || !(ways & ACC_WRITE)) ? e->addend : 0;
}

uint64_t flat_fill(struct flat *f, uint64_t lin, unsigned size, unsigned ways)
{
    struct cpu *cpu = f->cpu;
    struct flat_set *s = flat_current(f);
    if (!s || (lin & 0xfff) + size > 0x1000 || !cpu_canonical(cpu, lin))
        return 0;
    const struct tlb_entry *e = tlb_get(cpu, cpu->mmu_idx, lin, ways);
    return flat_put(f, s, lin, e, ways);
}

uint64_t flat_peek(struct flat *f, uint64_t lin, unsigned ways)
{
    struct cpu *cpu = f->cpu;
    struct flat_set *s = flat_current(f);
    const struct tlb_entry *e = &cpu->tlbs[cpu->mmu_idx][(lin >> 12) & (TLB_SIZE - 1)];
    return s && cpu_canonical(cpu, lin) ? flat_put(f, s, lin, e, ways) : 0;
}

static void flat_jump_put(struct flat_set *s, unsigned slot, struct flat_jump j)
{
    if (s->njumps < FLAT_LOG)
        s->jump_log[s->njumps] = slot;
    s->njumps += s->njumps <= FLAT_LOG;
    s->jumps[slot] = j;
}

void flat_jump_add(struct flat *f, uint64_t rip, unsigned len, const uint8_t *host, bool global)
{
    struct flat_set *s = flat_current_code(f);
    if (!s)
        return;
    unsigned slot = flat_jump_slot(f, rip);
    struct flat_jump old = s->jumps[slot];
    if (old.neg + rip && old.neg != flat_jump_none(slot) && flat_jump_slot(f, 0 - old.neg) == slot) {
        f->pushed += s->jumps[slot + 1].neg != flat_jump_none(slot + 1);
        flat_jump_put(s, slot + 1, old);
    }
    flat_jump_put(s, slot, (struct flat_jump){ 0 - rip, host });
    flat_jump_page(s, rip);
    flat_jump_page(s, rip + len - 1);
    s->jump_local |= !global;
}
