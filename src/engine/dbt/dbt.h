/* The translator: hot 64-bit blocks of the interpreter become host code. Its private part of a vCPU.
 *
 * code.c owns the memory, thunk.c makes the pieces of code that all blocks share, block.c translates one block
 * with the help of flags.c (liveness), place.c (registers and addresses), insn.c (single instructions) and
 * branch.c (ends of blocks); engine.c hangs it all into the interpreter's loop. docs/design/dbt.md tells the rules.
 *
 * Thread: a struct dbt belongs to its vCPU's thread; forgetting and dropping may also come from another vCPU's
 * while this one stands still.
 */
#ifndef VITRO_DBT_DBT_H
#define VITRO_DBT_DBT_H

#include "engine/interp/interp.h"

#define DBT_CODE      (64u << 20) /* bytes of host code a vCPU */
#define DBT_BLOCK_MAX (32u << 10) /* room that must be left to translate a block */
#define DBT_JUMPS     4096u
#ifndef DBT_THRESHOLD
#define DBT_THRESHOLD 12u         /* runs of a block before it is translated, unless the engine says otherwise */
#endif
#define DBT_NEVER     0xffffffffu /* block.count of a block that cannot be translated */

#define DBT_NO_MODE   (~0ULL)

/* Where a branch to a linear address continues: filled by engine.c, looked up by generated code. */
struct dbt_jump {
    uint64_t rip, mode; /* mode must equal dbt_data.mode, so that one store empties the whole table */
    const uint8_t *host;
    uint64_t unused;
};

/* What generated code reaches relative to its own address. Writable, never executable. */
struct dbt_data {
    uint64_t page; /* linear address of the guest page that holds the running block */
    uint64_t mode; /* generation of linear mappings << 1 | user; DBT_NO_MODE: matches no entry */
    struct cpu *cpu;
    uint64_t target_rip, target_host; /* of an indirect call under way */
    uint8_t vec;                      /* VEC_*: vector instructions that the guest's system lets run now */
    uint8_t fp;                       /* the host's MXCSR is the guest's */
    uint32_t host_mxcsr;
    uint8_t stale;                    /* blocks were dropped while this vCPU was inside one: leave it */
    struct dbt_jump jump[DBT_JUMPS];
};

enum { VEC_SSE = 1, VEC_AVX = 2, VEC_AVX512 = 4 };

/* Entry points of the shared pieces, in the executable view. */
struct dbt_thunks {
    const uint8_t *enter;       /* called from C: uint64_t enter(const uint8_t *host) */
    const uint8_t *callout;     /* r14: insn, eax: offset in the page. Runs the handler, comes back */
    const uint8_t *callout_end; /* jumped to; the same, then leaves */
    const uint8_t *open[3];     /* r15: linear address, eax: DBT_ACCESS; r15 becomes a host address. Read, write, rmw */
    const uint8_t *commit;      /* the write or rmw access is done */
    const uint8_t *fp_enter;    /* load the guest's MXCSR; ZF clear: not possible. Destroys RAX and flags */
    const uint8_t *leave;       /* jumped to; RIP is already in cpu */
    const uint8_t *leave_to;    /* jumped to; r14: offset of RIP from the page, eax: link site or 0 */
};

/* eax of an access: offset of the instruction in its page, its length, segment, size, LOCK. */
#define DBT_ACCESS(off, len, seg, size, lock) \
    ((uint32_t)(off) | (uint32_t)(len) << 12 | (uint32_t)(seg) << 16 | (uint32_t)(size) << 20 | (uint32_t)(lock) << 28)
enum { DBT_OPEN_R, DBT_OPEN_W, DBT_OPEN_RMW };

struct xblock;

struct dbt {
    struct interp *it;
    struct dbt_data *data; /* directly below rx */
    uint8_t *rw, *rx;      /* the same code memory twice */
    uint32_t used, shared; /* bytes in use; by the shared pieces */
    uint64_t generation;   /* of linear mappings; from 1 on */
    struct xblock *work;   /* the block under translation */
    unsigned threshold;
    struct dbt_thunks thunk;
    struct {
        uint32_t site; /* offset of a rel32 to be set once the block at rip has code; 0: none */
        uint64_t rip;
    } link;
    uint64_t stat_blocks, stat_insns, stat_inline, stat_dropped, stat_entered;
};

/* code.c */
/* False: no memory. */
bool dbt_code_init(struct dbt *t);
void dbt_code_fini(struct dbt *t);
/* Every block is void: start again behind the shared pieces. */
void dbt_code_clear(struct dbt *t);
/* Write the displacement at offset site so that it reaches host. */
void dbt_code_link(struct dbt *t, uint32_t site, const uint8_t *host);

/* thunk.c: write the shared pieces. False: no room. */
bool dbt_thunks_make(struct dbt *t);

/* block.c: translate b, which starts at offset off of the guest page at gpa. NULL: not possible (any more). */
size_t dbt_work_size(void); /* of dbt.work */
const uint8_t *dbt_translate(struct dbt *t, struct cpu *cpu, const struct block *b, uint64_t gpa, unsigned off);

/* vec.c: dbt_data.vec as the system registers are now. */
uint8_t dbt_vec_bits(const struct cpu *cpu);

static inline struct dbt_jump *dbt_jump_slot(struct dbt *t, uint64_t rip)
{
    return &t->data->jump[(rip ^ rip >> 12) & (DBT_JUMPS - 1)];
}

#endif
