/* The exact interpreter: its private part of a vCPU.
 *
 * Code is decoded once a guest-physical page and code size into blocks of struct insn, which end at branches
 * and at the page's end. cache.c finds and makes blocks, loop.c runs them, bind.c gives each instruction
 * its handler, step.c runs a single instruction (single step, shadows, page-straddling code).
 */
#ifndef VITRO_INTERP_INTERP_H
#define VITRO_INTERP_INTERP_H

#include "base/map.h"
#include "engine/engine.h"
#include "engine/interp/form.h"
#include "engine/interp/ops.h"

#define BLOCK_MAX 48 /* instructions; bounds the time to the next look at attention */

struct block {
    struct code_page *page;
    const uint8_t *host; /* a translator's code for it; NULL: none */
    const uint8_t *plain; /* the same without checks that several accesses share */
    uint32_t count;      /* and how often it has run */
    uint32_t epoch;      /* of block_forms() */
    uint32_t next, next_in_page; /* with the same hash; of the same page: arena units, 0: last */
    uint16_t off;        /* in the page */
    uint16_t len;        /* bytes of guest code */
    uint16_t n;
    bool cross;          /* one instruction, whose end is in the next linear page: see cross.c */
    struct insn insn[];  /* n of them, then the numbers of their forms */
};

#define BLOCK_BYTES(n) (sizeof(struct block) + (n) * (sizeof(struct insn) + sizeof(uint32_t)))

/* Numbers of the forms (form.h) of b's instructions, 0: none; good while b->epoch is the forms'. */
static inline const uint32_t *block_forms(const struct block *b) { return (const uint32_t *)(b->insn + b->n); }

#define PAGE_TARGETS 24

/* What is decoded of one guest-physical page for one code size. Lives until the arena is emptied. */
struct code_page {
    uint64_t gpa;
    struct code_page *chain; /* hash chain */
    uint32_t blocks;         /* arena unit of the first, 0: none */
    uint32_t seed;           /* block_slot() */
    uint8_t code_size;
    /* A translator's: where branches from other pages went, and for which mappings those are known to it (engine/dbt/engine.c). */
    uint8_t ntargets, oldest;
    uint64_t known, known_lin;
    struct {
        uint32_t host;
        uint16_t off;
    } target[PAGE_TARGETS];
};

#define BLOCK_HASH (1u << 18)
#define BLOCK_FEW  (1u << 14) /* of them are in use as long as the arena holds no more than BLOCK_SMALL, which an idle guest needs */
#define BLOCK_SMALL (3UL << 20)

#define ITLB_SIZE  512
#define ITLB_LOCAL 64
#define PAGE_HASH  4096
#define STEP_CACHE 1024
#define CROSS_BLOOM 16

struct itlb_entry {
    uint64_t key; /* linear page | code size and privilege (cache.c); TLB_INVALID: empty */
    struct code_page *page;
    bool global; /* the page's translation is */
};

struct step_entry {
    uint64_t key; /* linear address | as above in the top byte's stead: 0 empty */
    uint8_t bytes[15];
    uint8_t ctx;
    struct insn insn;
};

struct interp;

/* A tier above the interpreter (engine/dbt). All are called on the vCPU's thread, or while it stands still. */
struct interp_translator {
    /* b is the block at RIP. False: interpret it. True: something ran or changed, look again. */
    bool (*run)(struct interp *it, struct cpu *cpu, struct block *b);
    void (*forget)(struct interp *it); /* linear mappings changed */
    /* Instead of forget(), if set: exactly what went, and what came into force (cpu_ops of the same names). */
    void (*flushed)(struct interp *it, const struct tlb_flush *f);
    void (*switched)(struct interp *it);
    void (*protected)(struct interp *it, uint64_t gpa); /* may be NULL */
    void (*changed)(struct interp *it, uint64_t gpa);   /* code in that page is about to be overwritten; may be NULL */
    void (*stale)(struct interp *it);  /* blocks of some page are void */
    void (*drop)(struct interp *it);   /* all blocks are void, and their memory is used again */
    void (*rest)(struct interp *it);   /* after drop(): it may be long until that; give it back. May be NULL */
};

/* A vCPU's part. */
struct interp {
    struct vcpu *vcpu;
    bool began;             /* has run: before that nothing is decoded */
    bool irq_hold;          /* ATT_IRQ came; something may wait that IF or the shadow held back */
    unsigned pauses;        /* PAUSEs one soon after the other, */
    uint64_t paused;        /* the last of them by the host's TSC */
    _Atomic bool drop_all;  /* decoded code is void: empty the arena at the next boundary */
    struct block *current;  /* running, so that code it overwrites itself is noticed */
    uint64_t key;           /* ITLB key of `page`, the last page used; TLB_INVALID: none */
    struct code_page *page;
    bool page_global;       /* its itlb_entry.global */
    struct itlb_entry itlb[ITLB_SIZE];
    uint16_t local[ITLB_LOCAL]; /* entries that are not global, or were not when they were filled */
    unsigned nlocal;            /* more than there is room for: all may be */
    struct code_page *hash[PAGE_HASH];
    uint32_t blocks[BLOCK_HASH]; /* arena units; 0: empty */
    uint32_t block_mask;         /* how many of these are in use, less one */
    struct step_entry step[STEP_CACHE];
    uint64_t cross_bloom[CROSS_BLOOM]; /* hashed pages that hold the end of a crossing instruction */
    uint32_t cross_epoch;              /* those of another one are void */
    uint8_t *arena; /* code pages and blocks; emptied as a whole */
    size_t arena_used;
    bool large; /* this struct is on a large page, since its tables are looked up at random */
    struct {
        uint64_t idle;         /* since when, */
        uint64_t looked, used; /* as seen when that was last looked at; and the thread's CPU time then */
        uint64_t last;         /* when memory was given back */
        bool settles;          /* since then nothing but idleness has used any: */
        size_t needs;          /* bytes of arena, once that has been seen */
    } rest;                    /* rest.c; ns of the host's */
    struct forms *forms;
    struct hostexec *hx;
    const struct interp_translator *translator; /* NULL: none */
    void *translator_data;
    sigjmp_buf unwind;
    struct cpu_ops ops; /* the machine's, with ours filled in */
};

/* Neighbours in a page are neighbours in the table, so that a cache line of it serves 64 bytes of code. */
static inline unsigned block_slot(const struct interp *it, const struct code_page *p, unsigned off) { return (p->seed + off / 4) & it->block_mask; }

/* The engine's shared part: which bytes of guest RAM somebody has decoded. */
struct interp_shared {
    const struct op_entry *op[ZYDIS_MNEMONIC_MAX_VALUE + 1];
    struct {
        uint64_t *granules; /* a bit for each 64 bytes, one word a page; written while quiescent */
        uint8_t *fine;      /* page was overwritten before: mark single granules, not all of it */
    } slot[16 /* RAM_MAX_SLOTS */];
};

#define INTERP_BYTES ALIGN_UP(sizeof(struct interp), LARGE_PAGE)
#define INTERP_SMALL (4 * LARGE_PAGE) /* of what is decoded: in small pages, and all else too; an idle machine needs no more */
#define INTERP_ARENA (128UL << 20)
#define ARENA_UNIT   64u /* so that a cache line has all of what is looked at to find a block */

/* cache.c */
int cache_init(struct interp *it);
void cache_fini(struct interp *it);
/* The block at cpu's CS:RIP; decodes it if needed. NULL: not to be cached (MMIO, wrong encodings ...): use the step
 * path. May raise #PF. */
struct block *cache_lookup(struct interp *it, struct cpu *cpu);
/* The block at offset off of a page, if there is one. */
struct block *cache_peek(const struct interp *it, const struct code_page *page, unsigned off);
/* Guest-physical address of code at lin, like mmu_fetch(). */
uint64_t cache_fetch(struct interp *it, struct cpu *cpu, uint64_t lin);
void cache_flushed(struct interp *it, const struct tlb_flush *f); /* cpu_ops.tlb_flushed */
void cache_switched(struct interp *it);                            /* cpu_ops.context_switched */
void cache_drop_all(struct interp *it);
/* The same, and all memory that was for it goes back to the host: an idle vCPU's. */
void cache_rest(struct interp *it);
void cache_code_write(struct cpu *cpu, uint64_t gpa, uint64_t len); /* cpu_ops.code_write */
/* ram.code_write: from a thread that is not a vCPU. */
void cache_code_write_async(void *engine, uint64_t gpa, uint64_t len);
/* Bytes [gpa, gpa+len) of one page are about to be decoded. */
void cache_mark(struct vcpu *v, uint64_t gpa, unsigned len);
/* Are they still? Whoever marks stands meanwhile, and others may write to what was marked before. */
bool cache_marked(const struct vcpu *v, uint64_t gpa, unsigned len);
int cache_shared_init(struct engine *e);
int cache_shared_map(struct engine *e); /* once all RAM slots exist; may be called again */
void cache_shared_fini(struct engine *e);
/* ITLB key of the page of lin in the current mode. */
static inline uint64_t cache_key(const struct cpu *cpu, uint64_t lin)
{
    return (lin & ~0xfffULL) | (cpu->cpl == 3) << 4 | cpu->code_size;
}
static inline uint64_t interp_lin_rip(const struct cpu *cpu)
{
    uint64_t lin = cpu->lin_base[SEG_CS] + cpu->r[R_RIP];
    return cpu->code_size == 8 ? lin : (uint32_t)lin;
}

/* cross.c */
/* Decode the instruction at RIP, at offset off of page, into b, which has cross_size() bytes. False: it does not cross into the next
 * page, or cannot be kept. May raise #PF. */
bool cross_make(struct interp *it, struct cpu *cpu, const struct code_page *page, unsigned off, struct block *b);
size_t cross_size(void);
/* Is b, at RIP, still what is there? Else it is read again; false: it must not be used. May raise #PF. */
bool cross_good(struct interp *it, struct cpu *cpu, struct block *b);
const uint8_t *cross_bytes(const struct block *b); /* all of its bytes */
void cross_written(struct interp *it, uint64_t gpa); /* that page's code was overwritten */

/* bind.c */
void bind_init(struct interp_shared *s);
/* Give i its handler, and INSN_END if its block must end after it. Never fails: what is not known gets op_ud. False: stub memory is full (see ops.h). */
bool bind_insn(struct interp *it, struct insn *i, const struct decoded *d);

/* Conditions under which the next instruction needs more than the block loop. */
static inline bool interp_special(const struct interp *it, const struct cpu *cpu)
{
    return atomic_load_explicit(&cpu->attention, memory_order_relaxed) || cpu->activity != CPU_RUNNING ||
           cpu->shadow || cpu->step || cpu->data_bp || (cpu->rflags & (FL_TF | FL_RF)) ||
           (it->irq_hold && (cpu->rflags & FL_IF)) || (cpu->nmi_pending && !cpu->nmi_blocked);
}

/* loop.c: code of the running block was overwritten: leave it after this instruction. */
void interp_stale_current(struct interp *it);

/* rest.c: nothing to do: sleep until somebody wants attention. Who has been idle for long gives memory back. */
void rest_sleep(struct interp *it);

/* step.c */
void interp_step(struct interp *it, struct cpu *cpu);

#endif
