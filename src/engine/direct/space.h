/* A guest's address space as a runner has it: which pages are mapped there, and why they may be.
 *
 * What may be mapped is what a TLB may hold: pages whose accessed bit is set, for stores also the dirty bit; of those, what may be touched without telling anybody (no
 * stores to decoded code, to clean pages under the dirty log, to ROM). It goes when the guest invalidates it, at the MMU's choke point: single pages at once, all of a
 * PCID are compared with the page tables before the space runs again.
 *
 * Bounds: SPACE_PAGES pages and SPACE_AREAS mappings; beyond that all of them go, and come back as they are used.
 *
 * Thread: the vCPU's, or another one while that stands still.
 */
#ifndef VITRO_DIRECT_SPACE_H
#define VITRO_DIRECT_SPACE_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/direct/runner.h"
#include "x86/cpu.h"

#define SPACE_PAGES (1u << 18)
#define SPACE_HASH  (1u << 14)
#define SPACE_AREAS 40000u /* a process has 65530 at most */

struct space_page {
    uint64_t lin : 48, prot : 3, odd : 1; /* lin: page number; prot: PROT_*; odd: it is code that does not simply run there, see space_break() */
    uint64_t copy : 8;                    /* one more than the number of its copy, which is there instead; 0: none */
    uint32_t gfn, next;                   /* next: with the same hash; 0: last */
};

struct space {
    uint64_t cr3; /* with the PCID; ~0: nobody's */
    struct runner runner;
    struct space_page *page; /* from 1 on, pages of them */
    uint32_t *hash;
    uint64_t *told;          /* a bit for each guest page up to limit: it is mapped for stores, or odd and executable */
    uint64_t limit;
    unsigned pages, areas;
    uint64_t breaks[RUNNER_BREAKS]; /* where it is to stop in odd pages that are executable; 0: free */
    unsigned refused;               /* times that there were not enough of them free */
    bool broken;                    /* odd pages may be executable */
    bool unbroken;                  /* the host lets nobody set breakpoints */
    bool check;              /* page tables may have changed, compare */
    uint64_t check_page;     /* or only those of these pages: the first, and */
    unsigned check_pages;    /* how many */
    bool lost;               /* all mappings are void */
};

/* What about a host and a guest makes instructions odd. */
struct space_rules {
    bool cpuid, xcr0; /* CPUID, XGETBV and XSAVE would show the host's */
};

/* 0 or -errno. */
int space_init(struct space *s, struct runners *all, const struct ram *ram);
void space_fini(struct space *s);

/* The CPU is at level 3 in this space. Have its runner's mappings be valid when it runs. */
void space_settle(struct space *s, struct cpu *cpu, const struct space_rules *rules);

enum space_fault {
    SPACE_MAPPED, /* go on */
    SPACE_REAL,   /* the guest's page tables say so, or it must be seen: interpret this one instruction */
    SPACE_ODD     /* it would execute what it may not: space_break(), or interpret it until it leaves the page */
};
/* It faulted at lin, its next instruction being at rip. */
enum space_fault space_fault(struct space *s, struct cpu *cpu, const struct space_rules *rules, uint64_t lin, uint64_t rip);

/* What the guest's page tables did not allow at lin may be allowed now: have it mapped when it runs, if so. */
void space_expect(struct space *s, struct cpu *cpu, const struct space_rules *rules, uint64_t lin);

/* After SPACE_ODD. Have the page at lin be executable, with a stop before each odd instruction (there is none in code that is odd because it may be written to). Where
 * there are too few breakpoints, those that are certain (odd.h) stop by INT3 in a copy of the page: with RIP behind it, as INT3 of the guest's own does. The
 * caller has seen to it that stores there are told of, and space_changed() is called before them. False: it cannot be. */
bool space_break(struct space *s, struct cpu *cpu, const struct space_rules *rules, uint64_t lin);

/* The choke point. */
void space_flush(struct space *s, const struct tlb_flush *f);
void space_protect(struct space *s, uint64_t gpa); /* ~0: every page */
/* Code in that page is about to change, ~0: has changed in some: what was made executable by space_break() is not any more. */
void space_changed(struct space *s, uint64_t gpa);

#endif
