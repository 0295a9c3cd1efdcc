/* Flat shadow tables: from a guest page's linear address to the host's, eight bytes a page.
 *
 * An entry is what must be added to a linear address to reach the host's memory, or 0 when the page must not be touched
 * directly: not present, no right, MMIO, ROM, code (for stores), clean under the dirty log, watched by a breakpoint. Tables
 * cover all 36 bits of a 48-bit linear page number, in reservations of the address space that the host fills with zeros on
 * demand. The index is always truncated to 36 bits, so that no address reaches beyond its table; a non-canonical address
 * may find the entry of a canonical one, but the sum of both is then non-canonical for the host too, and faults.
 *
 * There is one set of tables (read, write, branch targets) for each way of accessing: the supervisor's two, and one for each of
 * the last few PCIDs at user level. What is filled is noted, so that a set can be emptied at its size, and by guest-physical page,
 * so that write permission can be taken away.
 *
 * Bounds: entries in use a set and regions touched are counted; beyond a limit the set is emptied, its memory given back.
 *
 * Thread: the vCPU's, or another one while that stands still.
 */
#ifndef VITRO_DBT_FLAT_H
#define VITRO_DBT_FLAT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "x86/cpu.h"

#define FLAT_PAGES  (1ULL << 36)
#define FLAT_BYTES  (FLAT_PAGES * 8)
#define FLAT_NODES  (1u << 16) /* entries in use a set */
#define FLAT_HASH   (1u << 13)
#define FLAT_LOCALS 512u       /* entries of pages that are not global, to be emptied one by one */
#define FLAT_DEAD   4096u      /* notes of such that went, before all are written anew */
#define FLAT_REGIONS 8192u     /* of 2 MiB (one page of a table) touched a set */
#define FLAT_JUMPS  262144u     /* branch targets a set, by the low bits of their address; */
#define FLAT_FEW    8192u       /* as long as there is little code, which would lie scattered in a large table */
#define FLAT_PUSHED 65536u     /* some milliseconds of finding them anew */
#define FLAT_LOG    16384u
#define FLAT_USERS  8u         /* user sets at most */
#define FLAT_BLOOM  512u

/* A branch target. neg: its negated linear address, so that a sum tells equality without flags. It is in the slot of its address, or, pushed
 * out of there by another one, in the next slot. */
struct flat_jump {
    uint64_t neg;
    const uint8_t *host;
};

/* Where calls that were made go on when they return, by bits of the stack pointer (thrown away freely: returns that find nothing look
 * their address up in the table of branch targets). neg: the inverted return address; host: code there, or flat.nowhere. Code adds to
 * those of its read table, and finds in dbt_data.returns. */
#define FLAT_RETURNS 128u
struct flat_returns {
    uint64_t neg[FLAT_RETURNS];
    const uint8_t *host[FLAT_RETURNS];
};

/* Right below a read table, in reach of short displacements from it: what code needs that looks into it. */
struct flat_head {
    uint64_t mask_return;   /* of PEXT: the bits of a stack pointer that number struct flat_returns, which lies right below */
    uint64_t mask_jump;     /* of PDEP: where twice the slot of an address has bits */
    uint64_t mask_cross[9]; /* of PEXT, by log2 of a size: the bits of a page offset above it */
    const uint64_t *write;  /* the table for stores that goes with it */
    uint64_t mask_page;     /* bits 12 to 47 */
};

struct flat_node {
    uint32_t gfn;      /* guest-physical page number */
    uint32_t next;     /* with the same hash; 0: last */
    uint64_t page : 36; /* index in the tables */
    uint64_t global : 1;
};

struct flat_set {
    uint64_t *read, *write; /* NULL: no such set */
    struct flat_jump *jumps;
    struct flat_node *node; /* from 1 on */
    uint32_t *hash;
    uint8_t *region;        /* bit a hashed 2 MiB region: touched */
    uint32_t nnodes, nregions;
    uint32_t nlocals, ndead; /* nlocals: more than FLAT_LOCALS: some are not in: */
    uint64_t local[FLAT_LOCALS]; /* indices in the tables */
    uint32_t njumps;        /* more than FLAT_LOG: all of them are to be emptied */
    uint32_t jump_log[FLAT_LOG]; /* slots of jumps in use */
    uint64_t jump_epoch;    /* another one whenever they were forgotten; no set of this vCPU had the same */
    uint64_t good;          /* its flat_epoch_key() */
    bool entered;           /* code has run by it since then: there may be branch targets or returns */
    bool jump_local;        /* some branch target's page is not global */
    bool jump_half[2];      /* branch targets lie in the lower, the upper half of the address space, */
    uint64_t jump_pages[FLAT_BLOOM]; /* and in these hashed pages */
    uint16_t pcid;          /* user sets: whose it is, */
    uint64_t used;          /* and when it was last used; 0: never */
};

/* Behind these, for each of them: the branch targets of 32-bit code only. */
enum { FLAT_SUP_SMAP, FLAT_SUP, FLAT_USER0, FLAT_CODE32 = FLAT_USER0 + FLAT_USERS, FLAT_SETS = 2 * FLAT_CODE32 };

struct flat {
    struct cpu *cpu;
    struct flat_set set[FLAT_SETS];
    unsigned nusers;
    unsigned user;       /* the set of the current PCID */
    uint64_t clock;
    const uint64_t *nothing; /* a table without entries */
    bool nothing_shared;     /* it belongs to another vCPU's */
    struct flat_jump *no_jumps; /* nothing is found in it */
    unsigned jump_mask;         /* slots of tables of branch targets in use, less one; code has it from the heads of its read tables */
    unsigned pushed;            /* targets that others took the place of, while there were few slots */
    struct flat_returns no_returns; /* nor in this */
    /* Set before flat_init(): host code that leaves translated code; and the linear page of what runs, if any does. */
    const uint8_t *nowhere;
    const uint64_t *running;
    uint64_t epoch;          /* the last jump_epoch that was given */
    _Atomic uint64_t *good;  /* set before flat_init(): flat_epoch_key() of the set whose branch targets count now, or 0 */
    bool lost;           /* set whenever an entry may have gone: whoever keeps an addend elsewhere looks at it */
};

/* Reserve. False: no memory or address space. max_users: user sets; -1: no sets at all, everything takes the
 * slow path. first: another vCPU's, which lives longer, or NULL. */
bool flat_init(struct flat *f, struct cpu *cpu, int max_users, const struct flat *first);
void flat_fini(struct flat *f);

/* The set for accesses as the CPU is now; NULL: everything must take the slow path. */
struct flat_set *flat_current(struct flat *f);
/* The set whose branch targets count now: one for all of the supervisor's 64-bit code. NULL as above. */
struct flat_set *flat_current_code(struct flat *f);
/* The same, s being flat_current(). */
struct flat_set *flat_code_of(struct flat *f, struct flat_set *s);

/* An access of size bytes at lin, for reading, writing (ways: ACC_READ, ACC_WRITE), did not find its entry. Raises what the access
 * raises in translation. Returns the addend if it may go directly from now on; 0: the slow path must do it. */
uint64_t flat_fill(struct flat *f, uint64_t lin, unsigned size, unsigned ways);

/* The same, but without translating anything, raising anything, or marking a page accessed or dirty. */
uint64_t flat_peek(struct flat *f, uint64_t lin, unsigned ways);

/* Note that the len bytes of code at linear address rip of the current mode continue at host. */
void flat_jump_add(struct flat *f, uint64_t rip, unsigned len, const uint8_t *host, bool global);

/* An epoch in the bits that the linear address of a page leaves free (below 12, where it is never 0, and above 47), so that their sum tells
 * both; 0: such epochs are not told apart. */
static inline uint64_t flat_epoch_key(uint64_t epoch) { return epoch / 4095 <= 0xffff ? (epoch % 4095 + 1) | epoch / 4095 << 48 : 0; }

/* The returns that belong to a read table. */
static inline struct flat_returns *flat_returns(const uint64_t *read)
{
    return (struct flat_returns *)((uintptr_t)read - sizeof(struct flat_head)) - 1;
}

/* The choke point: what of struct cpu_ops has the same names. */
void flat_flushed(struct flat *f, const struct tlb_flush *what);
void flat_switched(struct flat *f);
void flat_protect(struct flat *f, uint64_t gpa);
/* Branch targets only: code went. */
void flat_forget_jumps(struct flat *f);
/* All slots of branch targets are in use from now on. */
void flat_spread(struct flat *f);
/* Are there too few? much: there is much code. */
static inline bool flat_crowded(const struct flat *f, bool much) { return f->jump_mask < FLAT_JUMPS - 1 && (much || f->pushed > FLAT_PUSHED); }
/* Everything goes, and its memory back to the host. */
void flat_rest(struct flat *f);

/* Slot of rip in a table of branch targets: generated code computes the same. */
static inline unsigned flat_jump_slot(const struct flat *f, uint64_t rip) { return (unsigned)rip & f->jump_mask; }

/* rip is about to be added: the host's caches miss its slot most often. */
static inline void flat_jump_soon(const struct flat *f, const struct flat_set *s, uint64_t rip)
{
    __builtin_prefetch(&s->jumps[flat_jump_slot(f, rip)], 1);
}

/* Where rip continues by a table of branch targets, or NULL. */
static inline const uint8_t *flat_jump_find(const struct flat *f, const struct flat_jump *jumps, uint64_t rip)
{
    const struct flat_jump *j = &jumps[flat_jump_slot(f, rip)];
    j += j->neg + rip != 0;
    return j->neg + rip == 0 ? j->host : NULL;
}

#endif
