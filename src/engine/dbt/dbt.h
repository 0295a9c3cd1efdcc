/* The translator: hot blocks of the interpreter become host code. Its private part of a vCPU.
 *
 * code.c owns the memory of generated code, flat.c the shadow tables through which it reaches guest memory, thunk.c makes
 * the pieces that all blocks share, block.c translates one block with the help of decode.c (classification), place.c
 * (registers, flags, addresses), insn.c, string.c, system.c, door.c, vec.c and x87.c (single instructions) and branch.c (ends of blocks); engine.c hangs it all
 * into the interpreter's loop. docs/design/dbt.md tells the rules.
 *
 * Thread: a struct dbt belongs to its vCPU's thread; forgetting, protecting and dropping may also come from another vCPU's
 * while this one stands still.
 */
#ifndef VITRO_DBT_DBT_H
#define VITRO_DBT_DBT_H

#include "engine/dbt/flat.h"
#include "engine/direct/direct.h"
#include "engine/interp/interp.h"

#define DBT_CODE      (128u << 20) /* bytes of host code a vCPU: */
#define DBT_HOT       (48u << 20) /* what usually runs; behind it what seldom does, so that neither caches nor the TLB hold it */
#define DBT_BLOCK_MAX (48u << 10) /* room that must be left in both to translate a block */
#define DBT_BLOCK_FARS 256u       /* and branches into other pages */
#ifndef DBT_THRESHOLD
#define DBT_THRESHOLD 6u          /* runs of a block before it is translated, unless the engine says otherwise */
#endif
#define DBT_NEVER     0xffffffffu /* block.count of a block that cannot be translated */
#define DBT_SITES     (1u << 21)
#define DOOR_PASS     (FL_DF | FL_ID) /* what SYSRET may take from R11, beside the arithmetic flags and IF; and what is for its handler: */
#define DOOR_ODD      (~(uint64_t)(FL_ARITH | FL_IF | FL_ONE | DOOR_PASS))

enum { VEC_SSE = 1, VEC_AVX = 2, VEC_AVX512 = 4, VEC_ANY = 7, VEC_X87 = 8, VEC_LOW = 16 }; /* LOW: registers 0 to 15 are zero above bit 127 */

/* What becomes of the CPU at one of its doors, SYSCALL or SYSRET (door.c). */
struct dbt_door {
    uint64_t cs, ss;                /* struct seg behind its base */
    const uint64_t *read;           /* dbt_data's */
    struct flat_jump *jumps;
    struct flat_returns *returns;
    const uint64_t *good;           /* where that is */
    struct tlb_entry *tlb;          /* struct cpu's */
    uint32_t modes, mode_key;       /* modes: cpl, code_size, mmu_idx and shadow */
};

/* What generated code reaches relative to its own address. Writable, never executable. */
struct dbt_data {
    uint64_t page;          /* linear address of the guest page that holds the running block */
    const uint64_t *read;   /* the flat table for data accesses now; what belongs to it lies below it (flat.h) */
    /* Where branches to linear addresses continue now, and 1. Whoever wants this vCPU's attention makes them flat.no_jumps and 0. */
    struct flat_jump *_Atomic jumps;
    _Atomic uint64_t calm;
    struct flat_returns *_Atomic returns; /* where returns continue now; or, as above, flat.no_returns */
    _Atomic uint64_t good;  /* flat_epoch_key() that links to other pages must be for; or, as above, 0 */
    uint64_t may_link;      /* 1: such links may be made; a few between one time that somebody wants attention and the next */
    struct cpu *cpu;
    uint64_t target;        /* of thunk.enter */
    uint64_t mask_high;     /* of PEXT: bits 47 to 63: all the same in a canonical address */
    uint64_t mask_no_if, mask_no_df, mask_no_ac, mask_df, mask_arith, mask_unmasked, mask_reserved, mask_x87;
    uint64_t mask_offset, mask_beyond; /* bits 0 to 11, the others */
    uint64_t cli_plain, sti_plain; /* 1: CLI, STI do nothing but change IF */
    uint64_t tsc_plain, tsc_host;  /* 1: RDTSC is allowed at every level; and shows the host's TSC */
    uint64_t kernel, fsgsbase; /* 1: SWAPGS, RDFSBASE and its like are allowed */
    uint64_t smap;             /* 1: STAC, CLAC are allowed, and change nothing but AC and the way to memory, to this: [AC] */
    const uint64_t *smap_read[2];
    uint32_t smap_key[2];      /* cpu->mode_key */
    uint64_t smap_ready, nothing_held; /* what smap, sti_plain become at level 0 */
    /* 1: SYSCALL and SYSRET between 64-bit code need only door[]: to level 0, to level 3; and at level 3 now. Then: what the former makes of
     * RIP, and leaves of RFLAGS. */
    uint64_t doors, door_user, door_rip;
    uint64_t syscalls; /* that code has made by door[0] */
    uint32_t door_keep;
    struct dbt_door door[2];
    uint64_t mask_if, mask_odd; /* of PEXT: RFLAGS.IF, and what SYSRET's handler must look at */
    uint64_t mask_low[9];   /* by log2 of the size: the bits of a page offset below it */
    uint64_t vec_ok[9];     /* by VEC_*: 1: these registers and MXCSR are in the host, and the guest may use them */
    uint32_t vec_live;      /* VEC_*: what the host's registers hold of the guest's; 0: nothing */
    uint32_t host_mxcsr, mxcsr_now;
    /* While x87 registers are in the host's: X87_LAST of the last instruction that sets the pointers, or 0; the linear address of its page; and
     * the pointers as they were, of which that one's operand may have changed the last (x87.c). */
    uint32_t x87_last;
    uint16_t x87_op, host_fcw;
    uint64_t x87_page, x87_ip, x87_dp;
    uint8_t stale;          /* blocks were dropped while this vCPU was inside one: leave it */
};

/* A branch into another page (branch_far()). sum: with its page and dbt_data.good 0 where its link is right; neg: the negated address of the code that
 * it is linked to, or 0. */
struct dbt_far {
    uint64_t sum, neg;
};
#define DBT_FARS (1u << 19) /* number 0 is none's */

/* In front of the executable view: struct dbt_data, then these. Offsets in that. */
#define DBT_DATA_BYTES ALIGN_UP(sizeof(struct dbt_data), 4096)
#define DBT_FAR_BYTES  (DBT_FARS * sizeof(struct dbt_far))
#define FAR_OFF(n, field) ((uint32_t)(DBT_DATA_BYTES + (n) * sizeof(struct dbt_far) + offsetof(struct dbt_far, field)))

/* What thunk.enter returns: why the loop has control again; or, from DBT_SITE_MIN on, LEFT_LINK: where the branch is that wants
 * to be linked, with DBT_SITE_PLAIN to code without groups, with DBT_SITE_STI see there; with DBT_SITE_FAR twice the number of one into another page.
 * Raised exceptions do not come back this way. */
enum dbt_left { LEFT_ATTENTION, LEFT_TARGET, LEFT_ACCESS, LEFT_HANDLER, LEFT_STALE, LEFT_LINK, DBT_SITE_MIN = 64 };
#define DBT_SITE_PLAIN 0x80000000u
#define DBT_SITE_FAR   0x40000000u /* a branch into another page: branch_far() */
#define DBT_SITE_STI   0x20000000u /* behind an STI, whose shadow holds for the next instruction */

/* Entry points of the shared pieces, in the executable view. Those with two forms: [1] has the guest's flags in the host's,
 * [0] in the frame. */
struct dbt_thunks {
    const uint8_t *enter;          /* called from C: uint64_t enter(const uint8_t *host) */
    const uint8_t *miss[2];        /* T1: linear address, T0: DBT_ACCESS, T2: insn. Comes back with T0 the addend;
                                      or, when the handler has done the instruction, 5 bytes further on */
    /* The same registers, but only this access: looks into the table first. By flags as above, whether it writes, log2 of the size. */
    const uint8_t *single[2][2][7];
    const uint8_t *callout[2];     /* T2: insn, T0: offset in the page. Runs the handler, comes back, flags in both places */
    const uint8_t *callout_end[2]; /* jumped to; the same, then leaves */
    const uint8_t *vec_enter[2][2]; /* the guest's vector registers into the host's, if that is allowed; [1]: x87 registers */
    const uint8_t *tsc;            /* EDX:EAX = the time-stamp counter; flags in the host, no vector registers there */
    const uint8_t *leave;          /* jumped to; RIP is already in cpu; flags in the host */
    const uint8_t *leave_to;       /* jumped to; T1: offset of RIP from the page, T0: link site or 0 */
    const uint8_t *leave_at;       /* jumped to; T1: RIP */
    const uint8_t *leave_far;      /* jumped to; T1: RIP, T0: DBT_SITE_FAR | twice the branch's number */
    const uint8_t *far;            /* jumped to; the same without DBT_SITE_FAR, and T2: where to go on if the target is in no table */
};

/* T0 of an access: offset of the instruction in its page, size, ways. GROUP: a group's whole range, which only may be looked up
 * where that has no effect: comes back 5 bytes further on if it cannot be. */
#define DBT_ACCESS(off, size, ways) ((uint32_t)(off) | (uint32_t)(size) << 20 | (uint32_t)(ways) << 28)
#define DBT_ACCESS_GROUP 0x10000u

/* A host instruction that may fault (SIGFPE: division; SIGSEGV: non-canonical address), and where to go on then. */
struct dbt_site {
    uint32_t at, end, to; /* offsets in the code memory */
};

struct xblock;

/* All that what is known of the doors depends on (door.c), beside the tables, which stay. No padding. */
struct door_seen {
    uint64_t star, lstar, sfmask, cr4, efer;
    uint32_t user, key; /* the user's set; cpu->mode_key less level and way to memory */
};

struct dbt {
    struct interp *it;
    struct dbt_data *data;
    struct dbt_far *far;   /* between that and rx */
    uint8_t *rw, *rx;      /* the same code memory twice */
    uint32_t used, cold, shared; /* where there is room in both parts; end of the shared pieces */
    uint32_t filled[2];    /* up to where both parts have host pages */
    struct xblock *work;   /* the block under translation */
    unsigned threshold;
    struct dbt_thunks thunk;
    struct flat flat;
    struct dbt_site *site; /* ascending */
    uint32_t nsites;
    uint32_t *far_site; /* displacements of branches into other pages, by number: offsets in the code memory */
    uint32_t nfars;
    struct {
        uint32_t site; /* offset of a rel32 to be set once the block at rip has code; 0: none */
        bool plain;    /* to block.plain */
        bool far;      /* from the page at linear address `page`; site: the branch's number */
        uint64_t rip, page;
        unsigned budget; /* of far ones, before may_link becomes 0 */
    } link;
    struct door_seen seen;
    struct direct *direct; /* owned: the tier above, or NULL */
    bool doors_made;
    bool ending; /* a handler that ends its block runs, or has raised an exception: what follows selects anew */
    unsigned trace; /* ENGINE_TRACE_*, decided before the shared pieces are made */
    struct engine_stats *stats;
};

/* probe.c: engine_ops.probe. */
int dbt_probe(struct err *err);

/* code.c */
/* False: no memory. */
bool dbt_code_init(struct dbt *t);
void dbt_code_fini(struct dbt *t);
/* Every block is void: start again behind the shared pieces. */
void dbt_code_clear(struct dbt *t);
/* After that: its memory goes back to the host. */
void dbt_code_rest(struct dbt *t);
/* Is there room for another block? */
static inline bool dbt_code_room(const struct dbt *t)
{
    return DBT_HOT - t->used >= DBT_BLOCK_MAX && DBT_CODE - t->cold >= DBT_BLOCK_MAX && DBT_FARS - t->nfars >= DBT_BLOCK_FARS;
}
/* Room for the next block has host pages, many at once: a fault for each costs more than translating what fits into it. */
void dbt_code_ahead(struct dbt *t);
/* Write the displacement at offset site so that it reaches host. */
void dbt_code_link(struct dbt *t, uint32_t site, const uint8_t *host);
/* The same for branch n into another page, as long as the sum of its own page and dbt_data.good stays what it is. True: it had no link before. */
bool dbt_code_link_far(struct dbt *t, uint32_t n, const uint8_t *host, uint64_t page, uint64_t good);
/* The host instruction in [at, end) may fault; then go on at offset to. at never descends. False: no room. */
bool dbt_code_site(struct dbt *t, uint32_t at, uint32_t end, uint32_t to);
/* Is pc such an instruction? Where to go on, or NULL. Async-signal-safe. */
const uint8_t *dbt_code_fault(const struct dbt *t, uintptr_t pc);

/* thunk.c: write the shared pieces. False: no room. */
bool dbt_thunks_make(struct dbt *t);

/* block.c: translate b, and what most often follows it; plain: b only, and each access with a check of its own. NULL: not possible (any more). Else where it is entered
 * with data.page set; BLOCK_PROLOGUE bytes before that is the entry with T1 = the linear address of its first instruction. */
size_t dbt_work_size(void); /* of dbt.work */
#define BLOCK_PROLOGUE 14
const uint8_t *dbt_translate(struct dbt *t, struct cpu *cpu, const struct block *b, bool plain);

/* b was translated last: link its branches inside the page to what has code; and what has nearly run often enough is translated too, since now the translator
 * is in the host's caches. */
void dbt_translate_along(struct dbt *t, struct cpu *cpu, const struct block *b);

/* engine.c: run the handler of i, which ends its block. Where translated code goes on then, with T1 = RIP; NULL: in the loop. */
const uint8_t *dbt_handler_end(struct cpu *cpu, const struct insn *i);

/* trace.c: what --trace asks for; never in the way of code that is not traced. */
/* The handler of i, in the middle of its block and at its end: thunks call these instead if there is something to tell or to count. */
void dbt_trace_handler(struct cpu *cpu, const struct insn *i);
void dbt_trace_handler_end(struct cpu *cpu, const struct insn *i);
/* thunk.enter returned how: count it, tell it. */
void dbt_trace_left(struct dbt *t, struct cpu *cpu, uint32_t how);
/* An access at lin that was not in the tables; addend 0: i's handler did it. */
void dbt_trace_miss(struct dbt *t, struct cpu *cpu, const struct insn *i, uint64_t lin, uint32_t access, uint64_t addend);
/* t->work was translated from b at RIP. */
void dbt_trace_block(const struct dbt *t, const struct cpu *cpu, const struct block *b);

/* door.c: what SYSCALL, SYSRET, STAC and CLAC need to know of the CPU as it is now. tables: flat_current() is not NULL. */
void dbt_doors(struct dbt *t, struct cpu *cpu, bool tables);

/* vec.c */
/* VEC_* that the guest's system lets run now. */
uint8_t dbt_vec_bits(const struct cpu *cpu);
/* Is the guest's vector state that of VEC_LOW? */
bool dbt_vec_low(const struct cpu *cpu);

/* x87.c */
/* May x87 and MMX instructions run in translated code now: allowed, and so that none of them raises anything? */
bool dbt_x87_allowed(const struct cpu *cpu);
/* The x87 registers are about to be loaded from cpu->fx; they were just stored there, by FXSAVE, with pointers of the host's. */
void dbt_x87_in(struct dbt *t, struct cpu *cpu);
void dbt_x87_out(struct cpu *cpu);

#endif
