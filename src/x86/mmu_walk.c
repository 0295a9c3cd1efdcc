/* The page walk: 2-level with PSE-36, PAE, 4-level and 5-level paging, accessed and dirty bits, and every
 * reason for a page fault.
 *
 * Source: Intel SDM vol. 3 ch. 4 (4.3 32-bit, 4.4 PAE, 4.5 4- and 5-level, 4.6 access rights, 4.7 error code,
 * 4.8 accessed and dirty); bit 8 of PML4E and PML5E as AMD APM vol. 2, 5.3.3 has it.
 *
 * Thread: the vCPU's own. Page tables are ordinary guest memory that other vCPUs and devices change
 * meanwhile: an entry is read once, judged, and its accessed and dirty bits are set only if it still is what
 * was judged.
 */
#include <errno.h>

#include "ram/ram.h"
#include "ram/still.h"
#include "x86/cpuid.h"
#include "x86/mmu.h"

#define PTE_P      0x1ULL
#define PTE_W      0x2ULL
#define PTE_U      0x4ULL
#define PTE_A      0x20ULL
#define PTE_D      0x40ULL
#define PTE_PS     0x80ULL
#define PTE_G      0x100ULL
#define PTE_NX     (1ULL << 63)
#define PTE_RIGHTS (PTE_W | PTE_U)
#define PHYS_52    0x000ffffffffff000ULL /* address bits 51:12 */

/* One entry of a paging structure on the way down. */
struct walk_entry {
    uint64_t value;
    uint64_t gpa; /* by which its page is known */
    uint8_t *hva; /* NULL: not in writable RAM, its bits cannot be set */
    bool wide;    /* 8 bytes, else 4 */
};

struct walk {
    struct cpu *cpu;
    uint64_t lin;
    uint64_t rights;       /* PTE_W and PTE_U, ANDed over the levels */
    bool nx;               /* ORed */
    bool change;           /* set accessed and dirty bits */
    bool cached;           /* began at a page directory from cpu->walk_cache */
    struct ram_slot *slot; /* RAM of the entry read last: mostly of the next one too */
    uint64_t size;         /* of the page found */
    uint64_t base;         /* its guest-physical address */
    struct walk_entry leaf;
};

enum { WALK_OK, WALK_ABSENT, WALK_RSVD };

/* What a vCPU finds at *gpa, as ram_slot_seen(). A device's memory is looked for each time: its slot says where it is known, not seen. */
static struct ram_slot *walk_slot(struct walk *w, uint64_t *gpa)
{
    struct ram_slot *s = w->slot;
    if (likely(s && *gpa - s->gpa < s->size))
        return s;
    s = ram_slot_seen(w->cpu->ram, gpa);
    if (s && !s->device)
        w->slot = s;
    return s;
}

/* Read an entry; where there is no memory a bus reads all ones. */
static void walk_load(struct walk *w, struct walk_entry *e, uint64_t gpa, bool wide)
{
    struct ram_slot *s = walk_slot(w, &gpa);
    e->gpa = gpa;
    e->wide = wide;
    e->hva = NULL;
    if (unlikely(!s)) {
        e->value = wide ? ~0ULL : 0xffffffffULL;
        return;
    }
    uint8_t *p = s->hva + (gpa - s->gpa);
    e->value = wide ? __atomic_load_n((uint64_t *)p, __ATOMIC_RELAXED)
                    : __atomic_load_n((uint32_t *)p, __ATOMIC_RELAXED);
    if (!s->readonly)
        e->hva = p;
}

/* The rules for stores hold for these bits too: decoded code, dirty log, stills. */
static void walk_before_store(struct cpu *cpu, const struct walk_entry *e)
{
    _Atomic uint8_t *flags = ram_page_flags(cpu->ram, e->gpa);
    uint8_t f = atomic_load_explicit(flags, memory_order_relaxed);
    if (unlikely(f & PAGE_CODE))
        cpu->ops->code_write(cpu, e->gpa, e->wide ? 8 : 4);
    if (unlikely(atomic_load_explicit(&cpu->ram->dirty_log, memory_order_relaxed)) && !(f & PAGE_DIRTY))
        ram_mark_dirty(cpu->ram, e->gpa, e->wide ? 8 : 4);
    ram_keep(cpu->ram, e->gpa, e->wide ? 8 : 4);
}

/* Set bits in an entry if it still has the value that was judged. False: it has not; walk again. */
static bool walk_set(struct walk *w, struct walk_entry *e, uint64_t set)
{
    if (likely((e->value & set) == set) || !w->change || !e->hva)
        return true;
    walk_before_store(w->cpu, e);
    uint64_t want = e->value | set;
    bool ok;
    if (e->wide) {
        ok = __atomic_compare_exchange_n((uint64_t *)e->hva, &e->value, want, false, __ATOMIC_SEQ_CST,
                                         __ATOMIC_RELAXED);
    } else {
        uint32_t old = (uint32_t)e->value;
        ok = __atomic_compare_exchange_n((uint32_t *)e->hva, &old, (uint32_t)want, false, __ATOMIC_SEQ_CST,
                                         __ATOMIC_RELAXED);
    }
    e->value = want;
    return ok;
}

static uint64_t walk_phys_mask(const struct cpu *cpu) { return PHYS_52 & ((1ULL << cpu->phys_bits) - 1); }

/* Reserved bits of an 8-byte entry at a level (1: PTE ... 5: PML5E), outside of the PDPTE registers. */
static uint64_t walk_reserved(const struct cpu *cpu, unsigned level, uint64_t e)
{
    uint64_t rsvd = PHYS_52 & ~walk_phys_mask(cpu);
    if (!(cpu->efer & EFER_NXE))
        rsvd |= PTE_NX;
    if (!cpu->long_mode)
        rsvd |= 0x7ff0000000000000ULL; /* PAE: bits 62:52 are not ignored */
    if (level >= 4)
        return rsvd | PTE_PS | (cpu->cpuid->vendor == VENDOR_AMD ? PTE_G : 0);
    if (level == 3) {
        if (!cpu_has(cpu, CPU_FEAT(FEAT_8_1_EDX, 26)))
            return rsvd | PTE_PS;
        return e & PTE_PS ? rsvd | 0x3fffe000ULL : rsvd; /* bits 29:13 of a 1 GiB page */
    }
    return level == 2 && (e & PTE_PS) ? rsvd | 0x1fe000ULL : rsvd; /* bits 20:13 of a 2 MiB page */
}

/* Keep a page directory's address and the rights so far (W and U in their places, NX in bit 0) for the next
 * walk in the same GiB: SDM vol. 3, 4.10.3. Its entries' accessed bits are set. */
static void walk_remember(struct walk *w, uint64_t table)
{
    if (!w->change || !w->cpu->long_mode)
        return;
    unsigned n = w->lin >> 30 & 15;
    w->cpu->walk_cache[n].key = (w->lin >> 30) + 1;
    w->cpu->walk_cache[n].table = table | (w->rights & PTE_RIGHTS) | w->nx;
}

/* PAE, 4-level and 5-level structures from a level's table down. *again: the tables changed under us. */
static int walk_wide(struct walk *w, unsigned level, uint64_t table, bool *again)
{
    uint64_t mask = walk_phys_mask(w->cpu);
    for (;; level--) {
        unsigned shift = 12 + 9 * (level - 1);
        struct walk_entry *e = &w->leaf;
        walk_load(w, e, table + ((w->lin >> shift & 511) << 3), true);
        if (!(e->value & PTE_P))
            return WALK_ABSENT;
        if (unlikely(e->value & walk_reserved(w->cpu, level, e->value)))
            return WALK_RSVD;
        w->rights &= e->value;
        w->nx |= e->value >> 63;
        if (level == 1 || (level <= 3 && (e->value & PTE_PS))) {
            w->size = 1ULL << shift;
            w->base = e->value & mask & ~(w->size - 1);
            return WALK_OK;
        }
        table = e->value & mask;
        if (unlikely(!walk_set(w, e, PTE_A))) {
            *again = true;
            return WALK_OK;
        }
        if (level == 3)
            walk_remember(w, table);
    }
}

/* 4-level and 5-level paging, from the page directory if that is known. */
static int walk_long(struct walk *w, bool *again)
{
    struct cpu *cpu = w->cpu;
    if (!w->cached)
        return walk_wide(w, cpu->paging_levels, cpu->cr3 & walk_phys_mask(cpu), again);
    uint64_t known = cpu->walk_cache[w->lin >> 30 & 15].table;
    w->rights = known & PTE_RIGHTS;
    w->nx = known & 1;
    return walk_wide(w, 2, PAGE_BASE(known), again);
}

/* A 4 MiB page: with PSE-36, bits 20:13 are bits 39:32 of the address (SDM vol. 3, table 4-4). */
static int walk_4m(struct walk *w)
{
    uint64_t e = w->leaf.value;
    unsigned m = w->cpu->phys_bits < 40 ? w->cpu->phys_bits : 40;
    uint64_t high = bits(e, 20, 13), allowed = m > 32 ? (1ULL << (m - 32)) - 1 : 0;
    if ((e & 0x200000) || (high & ~allowed))
        return WALK_RSVD;
    w->size = 4ULL << 20;
    w->base = (e & 0xffc00000ULL) | high << 32;
    return WALK_OK;
}

static int walk_32(struct walk *w, bool *again)
{
    struct walk_entry *e = &w->leaf;
    walk_load(w, e, (w->cpu->cr3 & 0xfffff000ULL) + ((w->lin >> 22 & 1023) << 2), false);
    if (!(e->value & PTE_P))
        return WALK_ABSENT;
    w->rights &= e->value;
    if ((e->value & PTE_PS) && (w->cpu->cr4 & CR4_PSE))
        return walk_4m(w);
    uint64_t table = e->value & 0xfffff000ULL;
    if (!walk_set(w, e, PTE_A)) {
        *again = true;
        return WALK_OK;
    }
    walk_load(w, e, table + ((w->lin >> 12 & 1023) << 2), false);
    if (!(e->value & PTE_P))
        return WALK_ABSENT;
    w->rights &= e->value;
    w->size = PAGE_SIZE;
    w->base = e->value & 0xfffff000ULL;
    return WALK_OK;
}

static int walk_pae(struct walk *w, bool *again)
{
    uint64_t pdpte = w->cpu->pdpte[w->lin >> 30 & 3];
    if (!(pdpte & PTE_P))
        return WALK_ABSENT;
    return walk_wide(w, 2, pdpte & walk_phys_mask(w->cpu), again);
}

/* Find the leaf; repeats while other CPUs change what it has read. Each repetition means that somebody's
 * store went in between two of our instructions, so there is no lock-step that keeps us here. */
static int walk_find(struct walk *w)
{
    struct cpu *cpu = w->cpu;
    for (;;) {
        bool again = false;
        int r;
        w->rights = PTE_RIGHTS;
        w->nx = false;
        if (cpu->paging_levels >= 4)
            r = walk_long(w, &again);
        else if (cpu->paging_levels == 3)
            r = walk_pae(w, &again);
        else
            r = walk_32(w, &again);
        if (likely(!again))
            return r;
    }
}

/* Access rights (SDM vol. 3, 4.6.1): may this access go to a page with these rights? */
static bool walk_allowed(const struct walk *w, unsigned acc, enum mmu_index idx)
{
    const struct cpu *cpu = w->cpu;
    bool user_page = w->rights & PTE_U;
    if ((acc & ACC_EXEC) && w->nx)
        return false; /* without NXE bit 63 is reserved, so nx is never seen here */
    if (idx == MMU_USER)
        return user_page && (!(acc & ACC_WRITE) || (w->rights & PTE_W));
    if ((acc & ACC_WRITE) && !(w->rights & PTE_W) && (cpu->cr0 & CR0_WP))
        return false;
    if (!user_page)
        return true;
    if ((acc & ACC_EXEC) && (cpu->cr4 & CR4_SMEP))
        return false;
    return !(acc & (ACC_READ | ACC_WRITE)) || idx != MMU_SUP_SMAP;
}

static uint32_t walk_error(const struct cpu *cpu, unsigned acc, enum mmu_index idx, uint32_t why)
{
    bool nxe = cpu->paging_levels >= 3 && (cpu->efer & EFER_NXE);
    if (acc & ACC_WRITE)
        why |= PF_W;
    if (idx == MMU_USER)
        why |= PF_U;
    if ((acc & ACC_EXEC) && (nxe || (cpu->cr4 & CR4_SMEP)))
        why |= PF_I;
    return PF_ERR | why;
}

/* One walk with all checks: as mmu_walk(), but for paging off. */
static uint32_t walk_checked(struct walk *w, unsigned acc, enum mmu_index idx)
{
    do {
        int r = walk_find(w);
        if (unlikely(r == WALK_ABSENT))
            return walk_error(w->cpu, acc, idx, 0);
        if (unlikely(r == WALK_RSVD))
            return walk_error(w->cpu, acc, idx, PF_P | PF_RSVD);
        if (unlikely(!walk_allowed(w, acc, idx)))
            return walk_error(w->cpu, acc, idx, PF_P);
    } while (unlikely(!walk_set(w, &w->leaf, acc & ACC_WRITE ? PTE_A | PTE_D : PTE_A)));
    return 0;
}

uint32_t mmu_walk(struct cpu *cpu, uint64_t lin, enum mmu_access acc, enum mmu_index idx,
                  struct mmu_result *out)
{
    struct walk w = { .cpu = cpu, .lin = lin, .change = true };
    if (cpu->paging_levels == 0) {
        *out = (struct mmu_result){
            .gpa = (uint32_t)lin, .page_size = 1ULL << 32, .writable = true, .readable = true
        };
        return 0;
    }
    if (!cpu->long_mode)
        w.lin = (uint32_t)lin;
    else
        w.cached = cpu->walk_cache[lin >> 30 & 15].key == (lin >> 30) + 1;
    uint32_t err = walk_checked(&w, acc, idx);
    if (unlikely(err) && w.cached) {
        /* A fault is never reported from what was remembered: 4.10.4.1, the last bullets. */
        w.cached = false;
        err = walk_checked(&w, acc, idx);
    }
    if (unlikely(err))
        return err;
    out->gpa = w.base + (w.lin & (w.size - 1));
    out->page_size = w.size;
    out->global = (w.leaf.value & PTE_G) && (cpu->cr4 & CR4_PGE);
    out->readable = walk_allowed(&w, ACC_READ, idx);
    /* A dirty bit that cannot be set (tables in ROM) must not keep stores on the slow path: it is as good as
     * set. */
    out->writable = ((w.leaf.value & PTE_D) || !w.leaf.hva) && walk_allowed(&w, ACC_WRITE, idx);
    return 0;
}

int mmu_peek(struct cpu *cpu, uint64_t lin, uint64_t *gpa)
{
    struct walk w = { .cpu = cpu, .lin = lin };
    if (cpu->paging_levels == 0) {
        *gpa = (uint32_t)lin;
        return 0;
    }
    if (!cpu->long_mode)
        w.lin = (uint32_t)lin;
    else if (!cpu_canonical(cpu, lin))
        return -EFAULT;
    if (walk_find(&w) != WALK_OK)
        return -EFAULT;
    *gpa = w.base + (w.lin & (w.size - 1));
    return 0;
}

struct mmu_look mmu_look(struct cpu *cpu, uint64_t lin)
{
    struct walk w = { .cpu = cpu, .lin = lin };
    struct mmu_look look = { .page_size = PAGE_SIZE };
    if (walk_find(&w) != WALK_OK)
        return look;
    look.gpa = w.base;
    look.page_size = w.size;
    look.readable = (w.leaf.value & PTE_A) && walk_allowed(&w, ACC_READ, MMU_USER);
    look.writable = look.readable && (w.leaf.value & PTE_D) && walk_allowed(&w, ACC_WRITE, MMU_USER);
    look.executable = look.readable && walk_allowed(&w, ACC_EXEC, MMU_USER);
    return look;
}

void mmu_load_pdptes(struct cpu *cpu, uint64_t cr3)
{
    struct walk w = { .cpu = cpu };
    uint64_t pdpte[4];
    for (unsigned n = 0; n < 4; n++) {
        walk_load(&w, &w.leaf, (cr3 & 0xffffffe0ULL) + 8 * n, true);
        pdpte[n] = w.leaf.value;
        /* Bits 2:1, 8:5 and everything above the address (SDM vol. 3, table 4-8). */
        if ((pdpte[n] & PTE_P) && (pdpte[n] & (0x1e6ULL | ~(walk_phys_mask(cpu) | 0xfffULL))))
            CPU_GP0(cpu);
    }
    for (unsigned n = 0; n < 4; n++)
        cpu->pdpte[n] = pdpte[n];
}
