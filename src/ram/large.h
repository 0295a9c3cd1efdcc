/* The host's large pages for memory that is shared (share.h). Private memory gets them by itself, at the first touch of each piece of LARGE_PAGE; a file of
 * memory only where the host's shmem_enabled says so, and that is rare. Here a thread asks for them (madvise(2), MADV_COLLAPSE, Linux 6.1), as soon
 * as a piece is touched: while it is empty that costs less than a fault of private memory; once it is full, several times as much, and processes that
 * have it mapped lose their mappings for a moment. A thread, since the call waits until all of the host's CPUs have done something.
 *
 * Where the host refuses, nothing is lost but the attempt, and after each the thread rests, longer every time.
 */
#ifndef VITRO_RAM_LARGE_H
#define VITRO_RAM_LARGE_H

#include "base/bits.h"
#include "base/map.h"
#include "ram/ram.h"

/* Start r's thread, if it has shared slots. Once all slots are there, and before memory is filled: what is touched until then is in small pages. 0 or -errno. */
int ram_large_start(struct ram *r);
/* Ends it. Nobody uses memory. Called by ram_fini(). */
void ram_large_stop(struct ram *r);

/* Which of the slot's pieces holds off. */
static inline uint64_t ram_piece(const struct ram_slot *s, uint64_t off) { return ((s->gpa & (LARGE_PAGE - 1)) + off) / LARGE_PAGE; }

/* Somebody is about to use the page at off, for the first time as far as he knows. wait: it may take some milliseconds, which spares him faults for small
 * pages. Any thread. */
void ram_touch_piece(struct ram *r, const struct ram_slot *s, uint64_t off, bool wait);
static inline void ram_touch(struct ram *r, const struct ram_slot *s, uint64_t off, bool wait)
{
    if (s->touched && unlikely(!atomic_load_explicit(&s->touched[ram_piece(s, off)], memory_order_relaxed)))
        ram_touch_piece(r, s, off, wait);
}

/* share.c: the pages were given back, and pieces that are empty now may become large ones again. */
void ram_untouch(const struct ram_slot *s, uint64_t off, uint64_t len);
/* share.c, ram.c: a slot of shared memory begins and ends. */
void ram_large_slot(struct ram_slot *s);
void ram_large_fini(struct ram_slot *s);

#endif
