/* Guest memory by linear address: everything behind the TLB hit of mem.h.
 *
 * An access is first translated as a whole (both pages, all faults), then carried out in at most two parts:
 * RAM, ROM, or MMIO. Sources: Intel SDM vol. 3, 3.3.7.1 (canonical), 4.7, 6.15 (#AC and table 6-7), 8.1
 * (atomicity), 11.4 (the local APIC's page); order of faults as in table 6-2.
 *
 * Thread: the vCPU's own. No lock is held across a raise. Between the look at a page's flags and the store
 * nothing may wait for other vCPUs, because PAGE_CODE is set while all of them stand at an instruction
 * boundary; where a store has two parts and one of them must wait (code_write), both happen in one exclusive
 * section.
 */
#include "x86/mem.h"

#include "base/loop.h"
#include "ram/ram.h"
#include "ram/still.h"
#include "x86/cpuid.h"
#include "x86/debug.h"
#include "x86/lapic.h"
#include "x86/tlb.h"

/* One page's share of an access. */
struct mem_part {
    uint8_t *hva; /* NULL: MMIO */
    uint64_t gpa;
    unsigned len;
    uint8_t fl;          /* TLB_MMIO, TLB_ROM */
    struct tlb_entry *e; /* NULL when not known any more */
};

struct mem_span {
    unsigned n;
    struct mem_part part[2];
};

/* --- translation --- */

static _Noreturn void mem_raise_address(struct cpu *cpu, unsigned seg)
{
    cpu_raise(cpu, seg == SEG_SS ? VEC_SS : VEC_GP, 0);
}

/* Natural alignment of an operand of size bytes for #AC (SDM vol. 3, table 6-7). Of unaligned vectors the manual leaves it
 * open (vol. 2, MOVUPS): AMD's CPUs check them, Intel's do not. */
static unsigned mem_alignment(const struct cpu *cpu, unsigned size)
{
    unsigned vector = cpu->cpuid->vendor == VENDOR_AMD ? 16 : 1;
    switch (size) {
    case 2:
    case 4:
    case 8:
        return size;
    case 6:
    case 14:
    case 28:
    case 94:
    case 108:
        return 4;
    case 10:
        return 8;
    default:
        return size >= 16 && size <= 64 ? vector : 1;
    }
}

static void mem_set_part(struct mem_part *p, struct tlb_entry *e, uint64_t lin, unsigned len)
{
    p->e = e;
    p->fl = e->gpa & (TLB_MMIO | TLB_ROM);
    p->gpa = PAGE_BASE(e->gpa) | PAGE_OFFSET(lin);
    p->hva = p->fl & TLB_MMIO ? NULL : (uint8_t *)(lin + e->addend);
    p->len = len;
}

static void mem_translate(struct cpu *cpu, enum mmu_index idx, unsigned seg, uint64_t lin, unsigned size,
                          enum mmu_access acc, struct mem_span *s)
{
    unsigned first = PAGE_REST(lin);
    if (!cpu->long_mode)
        lin = (uint32_t)lin;
    else if (unlikely(!cpu_canonical(cpu, lin) || !cpu_canonical(cpu, lin + size - 1)))
        mem_raise_address(cpu, seg);
    /* Before the page walk: the manuals leave the order open, and AMD's CPUs do it so. */
    if (unlikely(cpu->tlb == tlb_nothing) && idx == MMU_USER && (lin & (mem_alignment(cpu, size) - 1)))
        cpu_raise(cpu, VEC_AC, 0);
    s->n = 1;
    mem_set_part(&s->part[0], tlb_get(cpu, idx, lin, acc), lin, size < first ? size : first);
    if (unlikely(size > first)) {
        uint64_t next = lin + first;
        if (next == 1ULL << 32 && cpu->code_size != 8)
            next = 0; /* 32-bit linear addresses wrap around */
        s->n = 2;
        mem_set_part(&s->part[1], tlb_get(cpu, idx, next, acc), next, size - first);
    }
    if (unlikely(cpu->data_bp))
        debug_check_data(cpu, lin, size, acc);
}

/* --- MMIO --- */

static bool mem_is_apic(const struct cpu *cpu, uint64_t gpa)
{
    return PAGE_BASE(gpa) == PAGE_BASE(cpu->apic_base) &&
           (cpu->apic_base & (APIC_BASE_EN | APIC_BASE_X2)) == APIC_BASE_EN;
}

static uint64_t mem_mmio_read(struct cpu *cpu, uint64_t gpa, unsigned size)
{
    if (!mem_is_apic(cpu, gpa) || !cpu->lapic)
        return cpu->ops->mmio_read(cpu, gpa, size);
    loop_lock(cpu->loop);
    uint64_t v = lapic_mmio_read(cpu->lapic, PAGE_OFFSET(gpa), size);
    loop_unlock(cpu->loop);
    return v;
}

static void mem_mmio_write(struct cpu *cpu, uint64_t gpa, uint64_t value, unsigned size)
{
    if (!mem_is_apic(cpu, gpa) || !cpu->lapic) {
        cpu->ops->mmio_write(cpu, gpa, value, size);
        return;
    }
    loop_lock(cpu->loop);
    lapic_mmio_write(cpu->lapic, PAGE_OFFSET(gpa), value, size);
    loop_unlock(cpu->loop);
}

/* The next piece of an access that has len bytes left: what a bus takes at once. */
static unsigned mem_piece(unsigned len) { return len >= 8 ? 8 : len >= 4 ? 4 : len >= 2 ? 2 : 1; }

/* --- carrying it out --- */

static uint64_t mem_get(const void *p, unsigned size)
{
    switch (size) {
    case 1:
        return *(const volatile mem_u8 *)p;
    case 2:
        return *(const volatile mem_u16 *)p;
    case 4:
        return *(const volatile mem_u32 *)p;
    default:
        return *(const volatile mem_u64 *)p;
    }
}

static void mem_put(void *p, uint64_t v, unsigned size)
{
    switch (size) {
    case 1:
        *(volatile mem_u8 *)p = (uint8_t)v;
        break;
    case 2:
        *(volatile mem_u16 *)p = (uint16_t)v;
        break;
    case 4:
        *(volatile mem_u32 *)p = (uint32_t)v;
        break;
    default:
        *(volatile mem_u64 *)p = v;
        break;
    }
}

static void mem_read_part(struct cpu *cpu, const struct mem_part *p, uint8_t *dst)
{
    if (p->hva) {
        memcpy(dst, p->hva, p->len);
        return;
    }
    for (unsigned done = 0, n; done < p->len; done += n) {
        n = mem_piece(p->len - done);
        uint64_t v = mem_mmio_read(cpu, p->gpa + done, n);
        memcpy(dst + done, &v, n);
    }
}

static void mem_read_span(struct cpu *cpu, const struct mem_span *s, uint8_t *dst)
{
    mem_read_part(cpu, &s->part[0], dst);
    if (s->n == 2)
        mem_read_part(cpu, &s->part[1], dst + s->part[0].len);
}

static bool mem_part_ram(const struct mem_part *p) { return !(p->fl & (TLB_MMIO | TLB_ROM)); }

static bool mem_part_code(struct cpu *cpu, const struct mem_part *p)
{
    return mem_part_ram(p) &&
           (atomic_load_explicit(ram_page_flags(cpu->ram, p->gpa), memory_order_relaxed) & PAGE_CODE);
}

/* What must happen before bytes of RAM change: decoded code is dropped, the page gets dirty, somebody else's still keeps it as it was. */
static void mem_before_store(struct cpu *cpu, const struct mem_part *p)
{
    if (p->e && !(p->e->wr & TLB_SLOW))
        return; /* the tag says that nothing is to be done */
    _Atomic uint8_t *flags = ram_page_flags(cpu->ram, p->gpa);
    uint8_t f = atomic_load_explicit(flags, memory_order_relaxed);
    bool log = atomic_load_explicit(&cpu->ram->dirty_log, memory_order_relaxed);
    if (f & PAGE_CODE)
        cpu->ops->code_write(cpu, p->gpa, p->len);
    if (log && !(f & PAGE_DIRTY))
        ram_mark_dirty(cpu->ram, p->gpa, p->len);
    ram_keep(cpu->ram, p->gpa, p->len);
    if (p->e && !(atomic_load_explicit(flags, memory_order_relaxed) & PAGE_CODE))
        tlb_refresh(cpu, p->e);
}

static void mem_write_part(struct cpu *cpu, const struct mem_part *p, const uint8_t *src)
{
    if (p->fl & TLB_ROM)
        return;
    if (p->hva) {
        mem_before_store(cpu, p);
        memcpy(p->hva, src, p->len);
        return;
    }
    for (unsigned done = 0, n; done < p->len; done += n) {
        uint64_t v = 0;
        n = mem_piece(p->len - done);
        memcpy(&v, src + done, n);
        mem_mmio_write(cpu, p->gpa + done, v, n);
    }
}

static void mem_write_span(struct cpu *cpu, const struct mem_span *s, const uint8_t *src)
{
    if (s->n == 1) {
        mem_write_part(cpu, &s->part[0], src);
        return;
    }
    bool alone = mem_part_code(cpu, &s->part[0]) || mem_part_code(cpu, &s->part[1]);
    if (alone)
        cpu->ops->exclusive_begin(cpu);
    mem_write_part(cpu, &s->part[0], src);
    mem_write_part(cpu, &s->part[1], src + s->part[0].len);
    if (alone)
        cpu->ops->exclusive_end(cpu);
}

/* --- loads and stores --- */

static uint64_t mem_load(struct cpu *cpu, enum mmu_index idx, unsigned seg, uint64_t lin, unsigned size)
{
    struct mem_span s;
    uint64_t v = 0;
    mem_translate(cpu, idx, seg, lin, size, ACC_READ, &s);
    if (likely(s.n == 1 && s.part[0].hva))
        return mem_get(s.part[0].hva, size);
    mem_read_span(cpu, &s, (uint8_t *)&v);
    return v;
}

static void mem_store(struct cpu *cpu, enum mmu_index idx, unsigned seg, uint64_t lin, uint64_t value,
                      unsigned size)
{
    struct mem_span s;
    mem_translate(cpu, idx, seg, lin, size, ACC_WRITE, &s);
    if (likely(s.n == 1 && mem_part_ram(&s.part[0]))) {
        mem_before_store(cpu, &s.part[0]);
        mem_put(s.part[0].hva, value, size);
        return;
    }
    mem_write_span(cpu, &s, (const uint8_t *)&value);
}

uint64_t mem_slow_ld(struct cpu *cpu, unsigned seg, uint64_t lin, unsigned size)
{
    return mem_load(cpu, cpu->mmu_idx, seg, lin, size);
}

void mem_slow_st(struct cpu *cpu, unsigned seg, uint64_t lin, uint64_t value, unsigned size)
{
    mem_store(cpu, cpu->mmu_idx, seg, lin, value, size);
}

uint64_t mem_ld(struct cpu *cpu, unsigned seg, uint64_t lin, unsigned size)
{
    void *p = mem_fast_rd(cpu, lin, size);
    return likely(p != NULL) ? mem_get(p, size) : mem_slow_ld(cpu, seg, lin, size);
}

void mem_st(struct cpu *cpu, unsigned seg, uint64_t lin, uint64_t value, unsigned size)
{
    void *p = mem_fast_wr(cpu, lin, size);
    if (likely(p != NULL))
        mem_put(p, value, size);
    else
        mem_slow_st(cpu, seg, lin, value, size);
}

enum mmu_index mem_index_of(const struct cpu *cpu, unsigned cpl)
{
    if (cpl == 3)
        return MMU_USER;
    return (cpu->cr4 & CR4_SMAP) && !(cpu->rflags & FL_AC) ? MMU_SUP_SMAP : MMU_SUP;
}

uint64_t mem_ld_idx(struct cpu *cpu, enum mmu_index idx, unsigned seg, uint64_t lin, unsigned size)
{
    struct tlb_entry *e = &cpu->tlbs[idx][(lin >> PAGE_SHIFT) & (TLB_SIZE - 1)];
    if (likely(e->rd == PAGE_BASE(lin + size - 1)) && (idx != MMU_USER || cpu->tlb != tlb_nothing))
        return mem_get((void *)(lin + e->addend), size);
    return mem_load(cpu, idx, seg, lin, size);
}

void mem_st_idx(struct cpu *cpu, enum mmu_index idx, unsigned seg, uint64_t lin, uint64_t value,
                unsigned size)
{
    struct tlb_entry *e = &cpu->tlbs[idx][(lin >> PAGE_SHIFT) & (TLB_SIZE - 1)];
    if (likely(e->wr == PAGE_BASE(lin + size - 1)) && (idx != MMU_USER || cpu->tlb != tlb_nothing))
        mem_put((void *)(lin + e->addend), value, size);
    else
        mem_store(cpu, idx, seg, lin, value, size);
}

static enum mmu_index mem_sys_index(const struct cpu *cpu)
{
    return cpu->cr4 & CR4_SMAP ? MMU_SUP_SMAP : MMU_SUP;
}

uint64_t mem_sys_ld(struct cpu *cpu, uint64_t lin, unsigned size)
{
    return mem_ld_idx(cpu, mem_sys_index(cpu), SEG_DS, lin, size);
}

void mem_sys_st(struct cpu *cpu, uint64_t lin, uint64_t value, unsigned size)
{
    mem_st_idx(cpu, mem_sys_index(cpu), SEG_DS, lin, value, size);
}

void mem_probe(struct cpu *cpu, unsigned seg, uint64_t lin, unsigned size, enum mmu_access acc)
{
    struct mem_span s;
    uint64_t hits = cpu->pending_db;
    mem_translate(cpu, cpu->mmu_idx, seg, lin, size, acc, &s);
    cpu->pending_db = hits; /* nothing was accessed yet */
}

/* --- views --- */

/* A pointer to all bytes of s in guest memory, or NULL. A store into two pages of which one holds code is not
 * direct: see the head of this file. */
static void *mem_direct(struct cpu *cpu, const struct mem_span *s, bool store)
{
    const struct mem_part *a = &s->part[0], *b = &s->part[1];
    if (!a->hva || (store && !mem_part_ram(a)))
        return NULL;
    if (s->n == 1)
        return a->hva;
    if (!b->hva || b->hva != a->hva + a->len ||
        ram_slot_of(cpu->ram, a->gpa) != ram_slot_of(cpu->ram, b->gpa))
        return NULL;
    return store && (mem_part_code(cpu, a) || mem_part_code(cpu, b)) ? NULL : a->hva;
}

static void *mem_direct_store(struct cpu *cpu, const struct mem_span *s)
{
    void *p = mem_direct(cpu, s, true);
    if (!p)
        return NULL;
    mem_before_store(cpu, &s->part[0]);
    if (s->n == 2)
        mem_before_store(cpu, &s->part[1]);
    return p;
}

enum { BOUNCE_READ, BOUNCE_WRITE };

/* Remember where the bounce buffer goes. */
static uint8_t *mem_open_bounce(struct cpu *cpu, const struct mem_span *s, uint64_t lin, unsigned seg)
{
    for (unsigned n = 0; n < s->n; n++) {
        cpu->view.gpa[n] = s->part[n].gpa;
        cpu->view.fl[n] = s->part[n].fl;
    }
    cpu->view.first = s->part[0].len;
    cpu->view.size = s->part[0].len + (s->n == 2 ? s->part[1].len : 0);
    cpu->view.lin = lin;
    cpu->view.seg = (uint8_t)seg;
    cpu->view.which = BOUNCE_WRITE;
    cpu->view.write = true;
    return cpu->bounce[BOUNCE_WRITE];
}

const void *mem_slow_view_r(struct cpu *cpu, unsigned seg, uint64_t lin, unsigned size)
{
    struct mem_span s;
    mem_translate(cpu, cpu->mmu_idx, seg, lin, size, ACC_READ, &s);
    void *p = mem_direct(cpu, &s, false);
    if (p)
        return p;
    mem_read_span(cpu, &s, cpu->bounce[BOUNCE_READ]);
    return cpu->bounce[BOUNCE_READ];
}

void *mem_slow_view_w(struct cpu *cpu, unsigned seg, uint64_t lin, unsigned size)
{
    struct mem_span s;
    mem_translate(cpu, cpu->mmu_idx, seg, lin, size, ACC_WRITE, &s);
    void *p = mem_direct_store(cpu, &s);
    return p ? p : mem_open_bounce(cpu, &s, lin, seg);
}

void *mem_slow_view_rmw(struct cpu *cpu, unsigned seg, uint64_t lin, unsigned size, bool locked)
{
    struct mem_span s;
    mem_translate(cpu, cpu->mmu_idx, seg, lin, size, ACC_READ | ACC_WRITE, &s);
    void *p = mem_direct_store(cpu, &s);
    if (p)
        return p;
    if (locked)
        cpu->ops->exclusive_begin(cpu);
    uint8_t *buf = mem_open_bounce(cpu, &s, lin, seg);
    cpu->view.exclusive = locked;
    mem_read_span(cpu, &s, buf);
    return buf;
}

void mem_slow_commit(struct cpu *cpu)
{
    struct mem_span s = { .n = cpu->view.first == cpu->view.size ? 1 : 2 };
    unsigned len[2] = { cpu->view.first, cpu->view.size - cpu->view.first };
    for (unsigned n = 0; n < s.n; n++) {
        struct mem_part *p = &s.part[n];
        p->gpa = cpu->view.gpa[n];
        p->fl = cpu->view.fl[n];
        p->len = len[n];
        p->hva = p->fl & TLB_MMIO ? NULL : ram_borrow(cpu->ram, p->gpa, p->len);
    }
    cpu->view.write = false;
    mem_write_span(cpu, &s, cpu->bounce[BOUNCE_WRITE]);
    if (cpu->view.exclusive) {
        cpu->view.exclusive = false;
        cpu->ops->exclusive_end(cpu);
    }
}
