/* The architectural state of one x86 CPU, and what the engine-neutral semantics need beside it.
 *
 * Engines keep this struct current whenever control leaves them. While an instruction runs,
 * cpu->r[R_RIP] is already the address of the next instruction and cpu->start_rip that of the
 * current one; cpu_raise() goes back to start_rip. Nothing in C code may hold a lock or own
 * memory while it calls something that can raise.
 *
 * Thread: the vCPU's own, except `attention` and what lapic.h says.
 */
#ifndef VITRO_X86_CPU_H
#define VITRO_X86_CPU_H

#include <setjmp.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/bits.h"
#include "x86/kvmpv.h"
#include "x86/regs.h"

struct cpu;
struct clock;
struct loop;
struct ram;
struct bus;
struct lapic;
struct cpuid_table;
struct insn;
struct state_desc;

struct seg {
    uint64_t base;
    uint32_t limit; /* in bytes, granularity applied: offset limit is the last valid one */
    uint16_t sel;
    uint16_t attr;  /* ATTR_*; 0: null or unusable */
};

struct dtr {
    uint64_t base;
    uint16_t limit;
};

/* Software TLB: direct-mapped, one table a way of accessing. A tag is the page's linear address,
 * with low bits set when the fast path must not be taken (so that the compare fails). */
struct tlb_entry {
    uint64_t rd, wr;  /* tags; TLB_INVALID: nothing here */
    uintptr_t addend; /* hva = linear address + addend, when a tag matches exactly */
    uint64_t gpa;     /* guest-physical page | TLB_* below */
};
#define LARGE_WORDS  64
#define LARGE_1G_MAX 8
#define TLB_BITS 9
#define TLB_SIZE (1u << TLB_BITS)
#define TLB_INVALID (~0ULL)
#define TLB_SLOW 1u /* in rd/wr: page matches, but MMIO, code, dirty log, ROM or a data breakpoint */
/* In gpa's low bits, for the slow path: */
#define TLB_MMIO 1u /* no RAM behind it, or the local APIC's page */
#define TLB_ROM  2u /* stores are dropped */
#define TLB_G    4u /* global: survives MOV to CR3 */

/* What a flush takes from a CPU's translations (SDM vol. 3, 4.10.4.1). Whoever keeps some of his own, by PCID
 * or not, may always drop more. */
enum tlb_flush_kind {
    TLB_FLUSH_ALL,       /* every PCID's, and global ones */
    TLB_FLUSH_NONGLOBAL, /* every PCID's, but no global ones */
    TLB_FLUSH_PCID,      /* one PCID's, but no global ones */
    TLB_FLUSH_PAGE,      /* [lin, lin + size) of one PCID, the current one, and global ones there */
    TLB_FLUSH_PAGE_PCID, /* the same of any PCID, but no global ones */
};
struct tlb_flush {
    enum tlb_flush_kind kind;
    uint16_t pcid;      /* 0 while CR4.PCIDE is clear */
    uint64_t lin, size; /* more than a page if a large one was ever seen there; lin is a multiple of size */
};

enum mmu_index {
    MMU_SUP,      /* supervisor, user pages allowed (SMAP off or AC=1; implicit accesses never) */
    MMU_SUP_SMAP, /* supervisor, user pages refused */
    MMU_USER,
    MMU_COUNT
};

enum cpu_activity { CPU_RUNNING, CPU_HALTED, CPU_WAIT_SIPI, CPU_SHUTDOWN };

/* Why the vCPU thread must look up at the next instruction boundary. Set by any thread
 * (cpu_attention()), cleared by the vCPU. */
enum {
    ATT_IRQ = 1,     /* the local APIC or the PIC has something new to offer */
    ATT_NMI = 2,
    ATT_INIT = 4,
    ATT_SIPI = 8,    /* vector in cpu->sipi_vector */
    ATT_EXIT = 16,   /* leave engine->run() */
    ATT_QUIESCE = 32, /* another vCPU wants to run alone */
    ATT_STEP = 64,   /* own state changed (TF, shadow, breakpoints): leave the fast loop */
    ATT_MOVED = 128, /* what is at a guest-physical address has changed */
};

enum { SHADOW_STI = 1, SHADOW_MOVSS = 2 };

struct x87_image { /* FXSAVE layout (SDM vol. 1, 10.5.1), of which the x87 part (first 160 bytes) is used */
    uint16_t fcw, fsw;
    uint8_t ftw, rsvd0; /* abridged tag word */
    uint16_t fop;
    uint64_t fip, fdp;
    uint32_t mxcsr, mxcsr_mask;
    uint8_t st[8][16];
    uint8_t rest[352];
};

/* What the surroundings do for a CPU. */
struct cpu_ops {
    uint64_t (*io_in)(struct cpu *cpu, uint16_t port, unsigned size);
    void (*io_out)(struct cpu *cpu, uint16_t port, uint64_t value, unsigned size);
    uint64_t (*mmio_read)(struct cpu *cpu, uint64_t gpa, unsigned size);
    void (*mmio_write)(struct cpu *cpu, uint64_t gpa, uint64_t value, unsigned size);
    /* Bytes [gpa, gpa+len) of a PAGE_CODE page are about to be written by this CPU: drop code. */
    void (*code_write)(struct cpu *cpu, uint64_t gpa, uint64_t len);
    /* Run alone: all other vCPUs are stopped at an instruction boundary in between. Nests. */
    void (*exclusive_begin)(struct cpu *cpu);
    void (*exclusive_end)(struct cpu *cpu);
    /* Translations went: the engine drops its own of the same kind. */
    void (*tlb_flushed)(struct cpu *cpu, const struct tlb_flush *f);
    /* CR3 was written and CR4.PCIDE is set: another PCID may be the current one. What tlb_flushed() did not take
     * (it was called before, unless the guest asked to keep all) is still valid for its PCID. */
    void (*context_switched)(struct cpu *cpu);
    /* Writes to the page at gpa (~0: to any page) must take the slow path from now on: it has decoded code, or the dirty
     * log was switched on. On the vCPU's own thread, or while it stands still. */
    void (*write_protected)(struct cpu *cpu, uint64_t gpa);
    /* CR/EFER/CS/flags changed the mode of execution (see cpu_update_mode()). */
    void (*mode_changed)(struct cpu *cpu);
    int (*pic_ack)(struct cpu *cpu); /* vector of the 8259 pair through ExtINT; -1: nothing there */
    void (*ferr)(struct cpu *cpu, bool level); /* x87 error with CR0.NE=0: IRQ 13; may be NULL */
    void (*identified)(struct cpu *cpu); /* user code asks at start_rip what the CPU is (CPUID, XGETBV); may be NULL */
    uint64_t (*run_ns)(struct cpu *cpu); /* CPU time that this vCPU's thread has had; NULL: no steal time */
};

struct cpu {
    /* -- hot -- */
    uint64_t r[R_COUNT];    /* general registers, R_ZERO, R_RIP */
    uint64_t start_rip;     /* of the instruction that is running */
    uint32_t aflags;        /* arithmetic flags as LAHF:SETO leave them, see flags.h */
    uint32_t rflags;        /* all other flags; arithmetic bits are 0, bit 1 is 1 */
    uint64_t lin_base[SEG_COUNT]; /* what to add to an offset: 0 for ES..DS in 64-bit mode */
    struct tlb_entry *tlb;  /* table for data accesses at this moment: tlbs[mmu_idx] */
    const struct insn *insn; /* the instruction that is running; NULL outside */
    _Atomic uint32_t attention;
    /* An engine's: cpu_attention() calls it, so that whatever runs there notices. Any thread. NULL: the engine looks at
     * `attention` by itself. */
    void (*notice)(struct cpu *cpu);
    uint8_t cpl;
    uint8_t code_size;      /* 2, 4 or 8 bytes: 16-, 32- or 64-bit code */
    uint8_t mmu_idx;
    uint8_t shadow;         /* SHADOW_*: set by an instruction, holds for the next one */
    uint64_t sp_mask;       /* 0xffff, 0xffffffff or all ones, by SS.B and mode */
    uint64_t insns;         /* instructions retired (for --trace, icount); approximate inside a block */

    /* -- vectors and floating point -- */
    uint8_t zmm[32][64] __attribute__((aligned(64)));
    uint64_t k[8];
    uint32_t mxcsr;
    struct x87_image fx __attribute__((aligned(64)));

    /* -- system registers -- */
    struct seg seg[SEG_COUNT];
    struct seg ldtr, tr;
    struct dtr gdtr, idtr;
    uint64_t cr0, cr2, cr3, cr4, cr8; /* cr8: kept equal to the local APIC's TPR[7:4] */
    uint64_t dr[8];                   /* dr4/5 unused */
    uint64_t efer, xcr0, xss;
    uint64_t pdpte[4]; /* PAE: loaded by MOV CR3 */
    uint64_t star, lstar, cstar, sfmask, kernel_gs_base;
    uint64_t sysenter_cs, sysenter_esp, sysenter_eip;
    uint64_t pat, tsc_aux, tsc_adjust, misc_enable, apic_base;
    uint64_t mtrr_def_type, mtrr_fixed[11], mtrr_base[8], mtrr_mask[8];
    uint64_t mcg_status, mcg_ctl, mc_bank[10][4];
    uint64_t smbase, debugctl, spec_ctrl;
    uint64_t hwcr, syscfg, nb_cfg; /* AMD */
    uint64_t tsc_offset; /* guest TSC = the clock's ticks + tsc_offset; changes with the device lock held */
    struct kvmpv pv;

    /* -- events -- */
    uint8_t activity; /* enum cpu_activity */
    bool nmi_blocked;
    bool nmi_pending;
    uint8_t sipi_vector;
    uint64_t pending_db; /* DR6 bits of debug exceptions to raise at the end of this instruction */
    struct {
        bool valid, has_error, soft; /* soft: INT n, INT3, INTO: return to the next instruction */
        uint8_t vector;
        uint32_t error;
        uint64_t cr2;
    } event; /* the exception that cpu_raise() recorded */
    struct {
        bool active;
        uint8_t vector;
    } delivering; /* the event whose delivery is under way, for #DF and triple faults */

    /* -- derived, rebuilt by cpu_update_mode() -- */
    bool long_mode; /* EFER.LMA */
    uint8_t phys_bits, paging_levels; /* paging_levels: 0 off, 2, 3 (PAE), 4, 5 */
    bool data_bp; /* some DR7-enabled data breakpoint: TLB fills mark its page TLB_SLOW */
    bool step;    /* TF, code breakpoints or a shadow: one instruction at a time */
    sigjmp_buf *unwind;
    struct tlb_entry tlbs[MMU_COUNT][TLB_SIZE];
    bool tlb_used[MMU_COUNT];
    uint64_t tlb_map[MMU_COUNT][TLB_SIZE / 64]; /* slots filled since the last flush, */
    uint64_t tlb_local[MMU_COUNT][TLB_SIZE / 64]; /* those of them that are not global */
    uint64_t large_4m[LARGE_WORDS];             /* a hash of the 4 MiB regions with pages larger than 4 KiB since the last full flush */
    uint64_t large_1g[LARGE_1G_MAX];            /* the same for pages of 1 GiB: their addresses */
    uint8_t large_1g_count;                     /* LARGE_1G_MAX + 1: there were more, so they may be anywhere */
    bool large_any;
    struct {
        uint64_t key, table; /* (linear >> 30) + 1, or 0: empty; guest-physical address and rights of the table */
    } walk_cache[16];        /* of page directories, which is what a CPU's paging-structure caches may hold */
    bool fetch_global;       /* the last page that mmu_fetch() translated is global */
    uint32_t mode_key;       /* what cpu_update_mode() compares; in it are cpl, mmu_idx and whether accesses are checked for alignment, at: */
#define MODE_KEY_CPL   4
#define MODE_KEY_MMU   11
#define MODE_KEY_ALIGN 14
    uint8_t bounce[2][64] __attribute__((aligned(64))); /* mem.h views that cannot be direct */
    struct {
        uint64_t lin;
        uint64_t gpa[2]; /* of the first byte, and of the second page; TLB_MMIO and TLB_ROM in fl */
        uint32_t size, first; /* first: bytes in the first page */
        uint8_t fl[2];
        uint8_t which, seg;
        bool write, exclusive;
    } view; /* the open write view, if it is bounced or locked */

    /* -- surroundings; set once -- */
    unsigned index, apic_id;
    const struct cpu_ops *ops;
    struct ram *ram;
    struct loop *loop; /* device lock for local APIC accesses */
    struct clock *clock;
    struct lapic *lapic;
    const struct cpuid_table *cpuid;
    void *engine; /* the engine's own part */
    void *vcpu;   /* whoever embeds this */
};

/* State after power-on (SDM vol. 3, table 9-1), or after INIT (bsp keeps what INIT keeps). */
void cpu_reset(struct cpu *cpu);
void cpu_init(struct cpu *cpu); /* INIT: as reset, but FPU, caches and MTRRs stay; activity by caller */

/* Recompute everything derived from CR0, CR4, EFER, segments and RFLAGS (mode, cpl, mmu index,
 * lin_base, step) and tell the engine when the mode changed. Cheap; call after any change. */
void cpu_update_mode(struct cpu *cpu);

/* Whole RFLAGS, and setting them all (reserved bits fixed, no privilege rules applied).
 * cpu_set_rflags() calls cpu_update_mode() when a relevant bit changed. */
uint64_t cpu_rflags(const struct cpu *cpu);
void cpu_set_rflags(struct cpu *cpu, uint64_t v);

/* Ask the vCPU to look up. Any thread. Does not wake a halted one: engines wrap it in a kick. */
static inline void cpu_attention(struct cpu *cpu, uint32_t bits)
{
    atomic_fetch_or(&cpu->attention, bits);
    if (cpu->notice)
        cpu->notice(cpu);
}

/* The guest's time-stamp counter now. */
uint64_t cpu_tsc(struct cpu *cpu);
/* It is the host's, to the tick, so that code may read that one: until the clock stops, is set, or the guest moves its TSC, none of which happens
 * while this vCPU executes anything else. */
bool cpu_tsc_is_host(const struct cpu *cpu);

/* Raise a fault: records it, undoes RIP to start_rip, and leaves by siglongjmp(*cpu->unwind, 1). */
_Noreturn void cpu_raise(struct cpu *cpu, unsigned vector, uint32_t error); /* with error code */
_Noreturn void cpu_raise_noerr(struct cpu *cpu, unsigned vector);           /* #UD #DE #NM ... */
_Noreturn void cpu_raise_pf(struct cpu *cpu, uint64_t gva, uint32_t error);

#define CPU_GP0(cpu) cpu_raise(cpu, VEC_GP, 0)
#define CPU_UD(cpu) cpu_raise_noerr(cpu, VEC_UD)

static inline bool cpu_protected(const struct cpu *c) { return c->cr0 & CR0_PE; }
static inline bool cpu_v86(const struct cpu *c) { return c->rflags & FL_VM; }
static inline bool cpu_real(const struct cpu *c) { return !(c->cr0 & CR0_PE); }
static inline unsigned cpu_iopl(const struct cpu *c) { return (c->rflags & FL_IOPL) >> 12; }
static inline bool cpu_canonical(const struct cpu *c, uint64_t a)
{
    unsigned sh = (c->cr4 & CR4_LA57) && c->long_mode ? 64 - 57 : 64 - 48;
    return (uint64_t)((int64_t)(a << sh) >> sh) == a;
}

/* Described state of everything above that is architectural (src/x86/cpustate.c). */
extern const struct state_desc cpu_state_desc;

#endif
