/* Guest memory by linear address, with the permissions of the current instruction.
 *
 * The inline part is the TLB hit; everything else (fill, page crossing, MMIO, code pages, dirty log,
 * data breakpoints, #PF, #AC, non-canonical #GP/#SS) is behind mem_slow_*(). seg is the segment of
 * the access: it decides between #SS and #GP. The caller has applied segment base and limit (seg.h).
 */
#ifndef VITRO_X86_MEM_H
#define VITRO_X86_MEM_H

#include "x86/cpu.h"
#include "x86/mmu.h"

uint64_t mem_slow_ld(struct cpu *cpu, unsigned seg, uint64_t lin, unsigned size);
void mem_slow_st(struct cpu *cpu, unsigned seg, uint64_t lin, uint64_t value, unsigned size);

/* Host pointer for a whole access on the fast path, or NULL. size is at most 64. */
static inline void *mem_fast_rd(struct cpu *cpu, uint64_t lin, unsigned size)
{
    struct tlb_entry *e = &cpu->tlb[(lin >> 12) & (TLB_SIZE - 1)];
    if (likely(e->rd == ((lin + size - 1) & ~0xfffULL)))
        return (void *)(lin + e->addend);
    return NULL;
}

static inline void *mem_fast_wr(struct cpu *cpu, uint64_t lin, unsigned size)
{
    struct tlb_entry *e = &cpu->tlb[(lin >> 12) & (TLB_SIZE - 1)];
    if (likely(e->wr == ((lin + size - 1) & ~0xfffULL)))
        return (void *)(lin + e->addend);
    return NULL;
}

#define MEM_ACCESSORS(bits)                                                                              \
    typedef uint##bits##_t mem_u##bits __attribute__((aligned(1), may_alias));                           \
    static inline uint##bits##_t mem_ld##bits(struct cpu *cpu, unsigned seg, uint64_t lin)               \
    {                                                                                                    \
        void *p = mem_fast_rd(cpu, lin, bits / 8);                                                       \
        if (likely(p))                                                                                   \
            return *(volatile mem_u##bits *)p;                                                           \
        return (uint##bits##_t)mem_slow_ld(cpu, seg, lin, bits / 8);                                     \
    }                                                                                                    \
    static inline void mem_st##bits(struct cpu *cpu, unsigned seg, uint64_t lin, uint##bits##_t v)       \
    {                                                                                                    \
        void *p = mem_fast_wr(cpu, lin, bits / 8);                                                       \
        if (likely(p))                                                                                   \
            *(volatile mem_u##bits *)p = v;                                                              \
        else                                                                                             \
            mem_slow_st(cpu, seg, lin, v, bits / 8);                                                     \
    }
MEM_ACCESSORS(8)
MEM_ACCESSORS(16)
MEM_ACCESSORS(32)
MEM_ACCESSORS(64)

/* Size chosen at run time (1, 2, 4 or 8). */
uint64_t mem_ld(struct cpu *cpu, unsigned seg, uint64_t lin, unsigned size);
void mem_st(struct cpu *cpu, unsigned seg, uint64_t lin, uint64_t value, unsigned size);

/* Views: a host pointer to up to 64 bytes of guest memory for the rest of one instruction. If the
 * bytes can be reached directly the pointer is the guest's memory itself, else it is a bounce
 * buffer. All faults are raised when the view is opened. One write view at a time; every write
 * or read-modify-write view is closed by mem_commit() with no raise in between, unless the
 * instruction faults before it has changed the bytes (then just raise: nothing is stored).
 * A locked rmw view that cannot be direct holds the other vCPUs until mem_commit(); between open and
 * commit of an rmw view nothing may raise. */
const void *mem_slow_view_r(struct cpu *cpu, unsigned seg, uint64_t lin, unsigned size);
void *mem_slow_view_w(struct cpu *cpu, unsigned seg, uint64_t lin, unsigned size);
void *mem_slow_view_rmw(struct cpu *cpu, unsigned seg, uint64_t lin, unsigned size, bool locked);
void mem_slow_commit(struct cpu *cpu);

static inline const void *mem_view_r(struct cpu *cpu, unsigned seg, uint64_t lin, unsigned size)
{
    const void *p = mem_fast_rd(cpu, lin, size);
    return likely(p != NULL) ? p : mem_slow_view_r(cpu, seg, lin, size);
}

static inline void *mem_view_w(struct cpu *cpu, unsigned seg, uint64_t lin, unsigned size)
{
    void *p = mem_fast_wr(cpu, lin, size);
    return likely(p != NULL) ? p : mem_slow_view_w(cpu, seg, lin, size);
}

static inline void *mem_view_rmw(struct cpu *cpu, unsigned seg, uint64_t lin, unsigned size, bool locked)
{
    void *p = mem_fast_wr(cpu, lin, size);
    return likely(p != NULL) ? p : mem_slow_view_rmw(cpu, seg, lin, size, locked);
}

static inline void mem_commit(struct cpu *cpu)
{
    if (unlikely(cpu->view.write))
        mem_slow_commit(cpu);
}

/* Raise now what an access would raise, without doing it. Any size that stays within two pages. */
void mem_probe(struct cpu *cpu, unsigned seg, uint64_t lin, unsigned size, enum mmu_access acc);

/* Implicit supervisor accesses: descriptor tables, TSS, IDT, stacks of an inner ring (idx given).
 * size is 1, 2, 4 or 8. They raise #PF with U=0 for MMU_SUP*; descriptor-table accesses use MMU_SUP_SMAP
 * when CR4.SMAP is set (implicit accesses ignore EFLAGS.AC). */
uint64_t mem_sys_ld(struct cpu *cpu, uint64_t lin, unsigned size);
void mem_sys_st(struct cpu *cpu, uint64_t lin, uint64_t value, unsigned size);
uint64_t mem_ld_idx(struct cpu *cpu, enum mmu_index idx, unsigned seg, uint64_t lin, unsigned size);
void mem_st_idx(struct cpu *cpu, enum mmu_index idx, unsigned seg, uint64_t lin, uint64_t value, unsigned size);
/* The index for an explicit access at privilege cpl with the current AC and CR4. */
enum mmu_index mem_index_of(const struct cpu *cpu, unsigned cpl);

#endif
