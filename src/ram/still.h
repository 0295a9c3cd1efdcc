/* A still: shared memory (share.h) as it was at one moment, for a child process that writes it while the machine goes on.
 *
 * Whoever is about to change a page keeps it first: claims it, copies it to an area beside the memory, and says so in the page's mark.
 * The marks and the area are shared with the child, which reads a page first and looks at the mark then: if nobody had claimed the page by then,
 * what it has read is the old page (stores of an x86 CPU are seen in their order, loads done in theirs: SDM vol. 3, 8.2.2), and it says that nobody
 * needs to keep the page any more; else it takes the copy. Private slots need none of this: the host's kernel does it for them.
 *
 * Begins and ends on the machine's thread. When it begins nothing changes memory, and every write permission that engines have cached goes
 * (mmu_protect()); they get none for a page that ram_must_keep(). What is left behind by a writer that was under way when it ended is swept up
 * when the next one begins.
 */
#ifndef VITRO_RAM_STILL_H
#define VITRO_RAM_STILL_H

#include "base/bits.h"
#include "ram/ram.h"

/* 0; 1: r has no shared memory, there is nothing to do; -EBUSY: there is one already; -ENOMEM. A child is forked after this. */
int ram_still_begin(struct ram *r);
/* The child has ended. Any number of writers may be under way. */
void ram_still_end(struct ram *r);

/* In the child: [off, off+len) of a slot as it was, whole pages, to buf. Once for each page. Any thread. 0 or -errno. */
int ram_still_read(const struct ram *r, const struct ram_slot *s, uint64_t off, uint64_t len, uint8_t *buf);

static inline bool ram_keeping(const struct ram *r) { return atomic_load_explicit(&r->keeping, memory_order_relaxed); }
/* A store to the page at gpa, which is RAM, needs ram_keep() first. */
bool ram_must_keep(const struct ram *r, uint64_t gpa);
/* Keep all pages of [gpa, gpa+len), which may now be changed by the caller. Nothing where there is no need. Any thread. */
void ram_keep_all(struct ram *r, uint64_t gpa, uint64_t len);
static inline void ram_keep(struct ram *r, uint64_t gpa, uint64_t len)
{
    if (unlikely(ram_keeping(r)))
        ram_keep_all(r, gpa, len);
}
/* ram.c: the same for pages of one slot that are about to become zeroes; those that are zeroes already are not touched. */
void ram_keep_runs(struct ram *r, const struct ram_slot *s, uint64_t off, uint64_t end);
void ram_still_fini(struct ram *r);

#endif
