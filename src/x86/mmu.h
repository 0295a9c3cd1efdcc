/* Paging: the page walk and the TLB's life (SDM vol. 3 ch. 4). */
#ifndef VITRO_X86_MMU_H
#define VITRO_X86_MMU_H

#include "x86/cpu.h"

enum mmu_access { ACC_READ = 1, ACC_WRITE = 2, ACC_EXEC = 4 };

struct mmu_result {
    uint64_t gpa;      /* of the byte asked for */
    uint64_t page_size;
    bool writable;     /* a write at this mmu index is allowed, and the dirty bit is set */
    bool readable;
    bool global; /* the leaf has its G bit, and CR4.PGE is set */
};

/* Walk the guest's page tables for one access; sets accessed/dirty bits by compare-exchange.
 * Returns 0, or PF_ERR | the #PF error code. Does not raise, does not touch the TLB.
 * idx tells privilege and SMAP. lin must be canonical. */
#define PF_ERR 0x80000000u
uint32_t mmu_walk(struct cpu *cpu, uint64_t lin, enum mmu_access acc, enum mmu_index idx, struct mmu_result *out);

/* The same without side effects and privilege checks, for debuggers: 0 or -EFAULT. */
int mmu_peek(struct cpu *cpu, uint64_t lin, uint64_t *gpa);

/* What a TLB may hold for user-level accesses to the page of lin (canonical, in 64-bit mode): gpa and page_size of the page itself; readable: it is there,
 * and its accessed bit is set; writable: its dirty bit is, too. No side effects. */
struct mmu_look {
    uint64_t gpa, page_size; /* page_size: 4096 if there is none */
    bool readable, writable, executable;
};
struct mmu_look mmu_look(struct cpu *cpu, uint64_t lin);
/* Where the 4 KiB around lin are, which was looked at itself, or is in the large page that was. */
static inline uint64_t mmu_look_page(const struct mmu_look *look, uint64_t lin) { return look->gpa + (lin & (look->page_size - 1) & ~0xfffULL); }

/* Translate an instruction fetch at the current privilege; raises #PF/#GP. Returns the gpa. */
uint64_t mmu_fetch(struct cpu *cpu, uint64_t lin);

/* The one choke point for invalidation. All of them tell ops->tlb_flushed what went. */
void mmu_flush_all(struct cpu *cpu);
/* INVLPG: the page of lin, of the current PCID and global ones. */
void mmu_flush_page(struct cpu *cpu, uint64_t lin);
/* INVPCID types 0 and 1: the page of lin, or all, of one PCID but for global ones; type 3: the same of all PCIDs. */
void mmu_flush_page_pcid(struct cpu *cpu, unsigned pcid, uint64_t lin);
void mmu_flush_pcid(struct cpu *cpu, unsigned pcid);
void mmu_flush_nonglobal(struct cpu *cpu);
/* CR3 was written: keep says that the guest wants this PCID's translations kept. Tells ops->context_switched too. */
void mmu_switch(struct cpu *cpu, bool keep);
/* Take away cached write permission to a guest-physical page (code, dirty log) or to all pages
 * (gpa == ~0). Only on the vCPU's own thread or while it is quiescent. Tells ops->write_protected. */
void mmu_protect(struct cpu *cpu, uint64_t gpa);

static inline unsigned mmu_pcid(const struct cpu *cpu) { return cpu->cr4 & CR4_PCIDE ? cpu->cr3 & 0xfff : 0; }

/* Load the PAE PDPTEs for cr3; raises #GP(0) on reserved bits (SDM vol. 3, 4.4.1). */
void mmu_load_pdptes(struct cpu *cpu, uint64_t cr3);

/* Writes to control registers with all their checks and consequences; raise #GP(0). */
void cpu_write_cr0(struct cpu *cpu, uint64_t v);
void cpu_write_cr3(struct cpu *cpu, uint64_t v);
void cpu_write_cr4(struct cpu *cpu, uint64_t v);
void cpu_write_efer(struct cpu *cpu, uint64_t v);
void cpu_write_xcr0(struct cpu *cpu, uint64_t v);

#endif
