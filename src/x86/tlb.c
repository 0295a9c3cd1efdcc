/* The software TLB: filling, dropping and protecting its entries; instruction fetches.
 *
 * An entry always stands for 4 KiB, but one INVLPG drops all of a large page (Intel SDM vol. 3, 4.10.4.1). So every
 * region that ever held one is remembered until the next full flush, for these tables and for the engine's own.
 *
 * Entries carry no PCID: a change of CR3 drops them. What a guest asks to keep is kept by the engine, if it
 * wants; it is told exactly what goes.
 *
 * Thread: the vCPU's own; mmu_protect() and the flushes also from another one while this vCPU is quiescent.
 */
#include <string.h>

#include "base/bits.h"
#include "ram/large.h"
#include "ram/ram.h"
#include "x86/lapic.h"
#include "x86/tlb.h"

const struct tlb_entry tlb_nothing[TLB_SIZE] = { [0 ... TLB_SIZE - 1] = { .rd = TLB_INVALID,
                                                                          .wr = TLB_INVALID } };

static inline struct tlb_entry *tlb_slot(struct cpu *cpu, enum mmu_index idx, uint64_t lin)
{
    return &cpu->tlbs[idx][(lin >> PAGE_SHIFT) & (TLB_SIZE - 1)];
}

/* Does a data breakpoint of DR7 touch this page? Only asked while data_bp is set. */
static bool tlb_page_watched(const struct cpu *cpu, uint64_t page)
{
    static const uint8_t length[4] = { 1, 2, 8, 4 };
    for (unsigned n = 0; n < 4; n++) {
        unsigned rw = (unsigned)(cpu->dr[7] >> (16 + 4 * n)) & 3,
                 len = length[cpu->dr[7] >> (18 + 4 * n) & 3];
        uint64_t addr = cpu->dr[n] & ~(uint64_t)(len - 1);
        if ((cpu->dr[7] >> (2 * n) & 3) && (rw & 1) && PAGE_BASE(addr) == page)
            return true;
    }
    return false;
}

/* The write tag for a page that may be written as far as the page tables are concerned. */
static uint64_t tlb_wr_tag(struct cpu *cpu, uint64_t page, uint64_t gpa)
{
    if (gpa & (TLB_MMIO | TLB_ROM))
        return page | TLB_SLOW;
    if (unlikely(!ram_stores_silent(cpu->ram, gpa)))
        return page | TLB_SLOW;
    return cpu->data_bp && tlb_page_watched(cpu, page) ? page | TLB_SLOW : page;
}

void tlb_refresh(struct cpu *cpu, struct tlb_entry *e)
{
    if (e->wr != TLB_INVALID)
        e->wr = tlb_wr_tag(cpu, PAGE_BASE(e->wr), e->gpa);
}

/* --- where large pages are --- */

#define SIZE_4M (4ULL << 20)
#define SIZE_1G (1ULL << 30)

static unsigned tlb_hash_4m(uint64_t lin)
{
    return (unsigned)((lin / SIZE_4M * 0x9e3779b97f4a7c15ULL) >> 32) % (LARGE_WORDS * 64);
}

static bool tlb_large_1g(const struct cpu *cpu, uint64_t lin)
{
    if (cpu->large_1g_count > LARGE_1G_MAX)
        return true;
    for (unsigned n = 0; n < cpu->large_1g_count; n++)
        if ((cpu->large_1g[n] ^ lin) < SIZE_1G)
            return true;
    return false;
}

/* Called before anybody can keep a translation of this page. */
static void tlb_note_size(struct cpu *cpu, uint64_t lin, uint64_t size)
{
    if (likely(size == PAGE_SIZE) || size > SIZE_1G)
        return; /* paging off has nothing to invalidate */
    cpu->large_any = true;
    if (size < SIZE_1G) {
        unsigned n = tlb_hash_4m(lin);
        cpu->large_4m[n / 64] |= 1ULL << n % 64;
    } else if (!tlb_large_1g(cpu, lin)) {
        if (cpu->large_1g_count < LARGE_1G_MAX)
            cpu->large_1g[cpu->large_1g_count] = lin & ~(SIZE_1G - 1);
        cpu->large_1g_count++;
    }
}

/* How much around lin an INVLPG may have to drop. */
static uint64_t tlb_flush_size(const struct cpu *cpu, uint64_t lin)
{
    if (!cpu->large_any)
        return PAGE_SIZE;
    if (cpu->large_1g_count && tlb_large_1g(cpu, lin))
        return SIZE_1G;
    unsigned n = tlb_hash_4m(lin);
    return cpu->large_4m[n / 64] >> n % 64 & 1 ? SIZE_4M : PAGE_SIZE;
}

static void tlb_forget_sizes(struct cpu *cpu)
{
    if (cpu->large_any)
        memset(cpu->large_4m, 0, sizeof(cpu->large_4m));
    cpu->large_1g_count = 0;
    cpu->large_any = false;
}

/* --- filling --- */

/* What lies behind a guest-physical page: the host address (or NULL), flags, and the address by which the page is known. */
static uint8_t *tlb_backing(struct cpu *cpu, uint64_t *gpa, uint64_t *flags)
{
    if (unlikely(PAGE_BASE(cpu->apic_base) == *gpa &&
                 (cpu->apic_base & (APIC_BASE_EN | APIC_BASE_X2)) == APIC_BASE_EN)) {
        *flags |= TLB_MMIO;
        return NULL;
    }
    struct ram_slot *s = ram_slot_seen(cpu->ram, gpa);
    if (!s) {
        *flags |= TLB_MMIO;
        return NULL;
    }
    if (s->readonly)
        *flags |= TLB_ROM;
    ram_touch(cpu->ram, s, *gpa - s->gpa, true);
    return s->hva + (*gpa - s->gpa);
}

static struct tlb_entry *tlb_fill(struct cpu *cpu, enum mmu_index idx, uint64_t lin, enum mmu_access acc)
{
    struct mmu_result r;
    uint32_t err = mmu_walk(cpu, lin, acc, idx, &r);
    if (unlikely(err))
        cpu_raise_pf(cpu, lin, err & ~PF_ERR);

    unsigned slot = (unsigned)(lin >> PAGE_SHIFT) & (TLB_SIZE - 1);
    struct tlb_entry *e = &cpu->tlbs[idx][slot];
    uint64_t page = PAGE_BASE(lin), gpa = PAGE_BASE(r.gpa), flags = 0;
    tlb_note_size(cpu, lin, r.page_size);
    uint8_t *hva = tlb_backing(cpu, &gpa, &flags);
    e->addend = (uintptr_t)hva - page;
    e->gpa = gpa | flags | (r.global ? TLB_G : 0);
    e->rd = TLB_INVALID;
    if (r.readable)
        e->rd = !hva || (cpu->data_bp && tlb_page_watched(cpu, page)) ? page | TLB_SLOW : page;
    e->wr = r.writable ? tlb_wr_tag(cpu, page, e->gpa) : TLB_INVALID;
    cpu->tlb_used[idx] = true;
    uint64_t bit = 1ULL << slot % 64, *local = &cpu->tlb_local[idx][slot / 64];
    cpu->tlb_map[idx][slot / 64] |= bit;
    *local = r.global ? *local & ~bit : *local | bit;
    return e;
}

struct tlb_entry *tlb_get(struct cpu *cpu, enum mmu_index idx, uint64_t lin, enum mmu_access acc)
{
    struct tlb_entry *e = tlb_slot(cpu, idx, lin);
    uint64_t page = PAGE_BASE(lin);
    /* A tag of all ones has offset bits beyond TLB_SLOW, so it matches no page. */
    bool rd = (e->rd & ~(uint64_t)TLB_SLOW) == page, wr = (e->wr & ~(uint64_t)TLB_SLOW) == page;
    if ((!(acc & ACC_READ) || rd) && (!(acc & ACC_WRITE) || wr))
        return e;
    return tlb_fill(cpu, idx, lin, acc);
}

/* --- dropping --- */

static void tlb_tell(struct cpu *cpu, const struct tlb_flush *f)
{
    if (cpu->ops && cpu->ops->tlb_flushed)
        cpu->ops->tlb_flushed(cpu, f);
}

/* Call fn for each slot that was filled since the last flush. */
static void tlb_each(struct cpu *cpu, void (*fn)(struct tlb_entry *e, uint64_t arg), uint64_t arg)
{
    for (unsigned idx = 0; idx < MMU_COUNT; idx++) {
        if (!cpu->tlb_used[idx])
            continue;
        for (unsigned n = 0; n < TLB_SIZE / 64; n++)
            for (uint64_t m = cpu->tlb_map[idx][n]; m; m &= m - 1)
                fn(&cpu->tlbs[idx][n * 64 + (unsigned)__builtin_ctzll(m)], arg);
    }
}

static inline void tlb_clear(struct tlb_entry *e) { e->rd = e->wr = TLB_INVALID; }

static void tlb_drop_any(struct tlb_entry *e, uint64_t arg) { tlb_clear(e); }

/* Everything that is not an entry of the tables. */
static void tlb_forget_walks(struct cpu *cpu)
{
    for (unsigned n = 0; n < ARRAY_LEN(cpu->walk_cache); n++)
        cpu->walk_cache[n].key = 0;
}

void mmu_flush_all(struct cpu *cpu)
{
    tlb_each(cpu, tlb_drop_any, 0);
    memset(cpu->tlb_map, 0, sizeof(cpu->tlb_map));
    memset(cpu->tlb_local, 0, sizeof(cpu->tlb_local));
    memset(cpu->tlb_used, 0, sizeof(cpu->tlb_used));
    tlb_forget_walks(cpu);
    tlb_forget_sizes(cpu);
    tlb_tell(cpu, &(struct tlb_flush){ .kind = TLB_FLUSH_ALL });
}

/* Drop what is not global. Only of the current PCID, since there are no others' here. */
static void tlb_flush_nonglobal(struct cpu *cpu)
{
    for (unsigned idx = 0; idx < MMU_COUNT; idx++)
        for (unsigned n = 0; n < TLB_SIZE / 64; n++) {
            for (uint64_t m = cpu->tlb_local[idx][n]; m; m &= m - 1)
                tlb_clear(&cpu->tlbs[idx][n * 64 + (unsigned)__builtin_ctzll(m)]);
            cpu->tlb_map[idx][n] &= ~cpu->tlb_local[idx][n];
            cpu->tlb_local[idx][n] = 0;
        }
    tlb_forget_walks(cpu);
}

void mmu_flush_nonglobal(struct cpu *cpu)
{
    tlb_flush_nonglobal(cpu);
    tlb_tell(cpu, &(struct tlb_flush){ .kind = TLB_FLUSH_NONGLOBAL });
}

void mmu_flush_pcid(struct cpu *cpu, unsigned pcid)
{
    if (pcid == mmu_pcid(cpu))
        tlb_flush_nonglobal(cpu);
    tlb_tell(cpu, &(struct tlb_flush){ .kind = TLB_FLUSH_PCID, .pcid = (uint16_t)pcid });
}

void mmu_switch(struct cpu *cpu, bool keep)
{
    tlb_flush_nonglobal(cpu);
    if (!keep)
        tlb_tell(cpu, &(struct tlb_flush){ .kind = TLB_FLUSH_PCID, .pcid = (uint16_t)mmu_pcid(cpu) });
    if ((cpu->cr4 & CR4_PCIDE) && cpu->ops->context_switched)
        cpu->ops->context_switched(cpu);
}

void tlb_init(struct cpu *cpu)
{
    for (unsigned idx = 0; idx < MMU_COUNT; idx++)
        for (unsigned n = 0; n < TLB_SIZE; n++)
            tlb_clear(&cpu->tlbs[idx][n]);
    mmu_flush_all(cpu);
}

static void tlb_drop_exact(struct cpu *cpu, enum mmu_index idx, uint64_t lin)
{
    struct tlb_entry *e = tlb_slot(cpu, idx, lin);
    uint64_t page = PAGE_BASE(lin);
    if ((e->rd & ~(uint64_t)TLB_SLOW) == page || (e->wr & ~(uint64_t)TLB_SLOW) == page)
        tlb_clear(e);
}

/* arg: address of a region of 2^n bytes | n */
static void tlb_drop_within(struct tlb_entry *e, uint64_t arg)
{
    uint64_t tag = e->rd != TLB_INVALID ? e->rd : e->wr;
    if (tag != TLB_INVALID && (tag ^ arg) >> (arg & 63) == 0)
        tlb_clear(e);
}

/* Drop what is around f->lin, and set f's region. */
static void tlb_drop_region(struct cpu *cpu, struct tlb_flush *f)
{
    f->size = tlb_flush_size(cpu, f->lin);
    f->lin &= ~(f->size - 1);
    tlb_forget_walks(cpu);
    if (f->size > PAGE_SIZE) {
        tlb_each(cpu, tlb_drop_within, f->lin | (unsigned)__builtin_ctzll(f->size));
        return;
    }
    for (unsigned idx = 0; idx < MMU_COUNT; idx++)
        tlb_drop_exact(cpu, idx, f->lin);
}

void mmu_flush_page(struct cpu *cpu, uint64_t lin)
{
    struct tlb_flush f = { .kind = TLB_FLUSH_PAGE, .pcid = (uint16_t)mmu_pcid(cpu), .lin = lin };
    tlb_drop_region(cpu, &f);
    tlb_tell(cpu, &f);
}

void mmu_flush_page_pcid(struct cpu *cpu, unsigned pcid, uint64_t lin)
{
    struct tlb_flush f = { .kind = TLB_FLUSH_PAGE_PCID, .pcid = (uint16_t)pcid, .lin = lin };
    tlb_drop_region(cpu, &f);
    tlb_tell(cpu, &f);
}

static void tlb_protect(struct tlb_entry *e, uint64_t gpa)
{
    if (e->wr != TLB_INVALID && (gpa == ~0ULL || PAGE_BASE(e->gpa) == gpa))
        e->wr |= TLB_SLOW;
}

void mmu_protect(struct cpu *cpu, uint64_t gpa)
{
    tlb_each(cpu, tlb_protect, gpa == ~0ULL ? gpa : PAGE_BASE(gpa));
    if (cpu->ops && cpu->ops->write_protected)
        cpu->ops->write_protected(cpu, gpa == ~0ULL ? gpa : PAGE_BASE(gpa));
}

uint64_t mmu_fetch(struct cpu *cpu, uint64_t lin)
{
    struct mmu_result r;
    if (!cpu->long_mode)
        lin = (uint32_t)lin;
    else if (unlikely(!cpu_canonical(cpu, lin)))
        CPU_GP0(cpu);
    uint32_t err = mmu_walk(cpu, lin, ACC_EXEC, cpu->cpl == 3 ? MMU_USER : MMU_SUP, &r);
    if (unlikely(err))
        cpu_raise_pf(cpu, lin, err & ~PF_ERR);
    tlb_note_size(cpu, lin, r.page_size);
    cpu->fetch_global = r.global;
    return r.gpa;
}
