/* Guest memory in a file of memory (memfd_create(2)), so that other processes of this machine can map pages of it.
 *
 * Such a slot is like any other for all who use ram.h. What is different: a child process does not have it as it was when it was forked, and the
 * host's pages are the file's: a page of which nobody has written anything takes one once it is read through the mapping, so whoever looks at all of
 * the memory asks first where there is any.
 */
#ifndef VITRO_RAM_SHARE_H
#define VITRO_RAM_SHARE_H

#include "ram/ram.h"

/* Slots that are added from now on lie in r's file, or again in private memory. Read-only ones never do; nor does one for which the host
 * gives no such file. Not together with ram_swap_create(), ram_map_file() and ram_merge(), which refuse. */
void ram_share(struct ram *r, bool on);

/* The file's descriptor, borrowed, and where in it the slot begins; -1: nothing of the slot is ever there. Equal to the slot's gpa modulo the size of
 * a large page. */
int ram_shared_fd(const struct ram_slot *s, uint64_t *off);

/* Does the slot's page at off lie there? Of a slot that is not shared, pieces may (move.h). */
static inline bool ram_shared_at(const struct ram_slot *s, uint64_t off) { return s->shared || (s->moved && s->moved[off >> s->piece]); }
/* How many of the len bytes at off lie where the first one does, in the file or not. */
uint64_t ram_shared_like(const struct ram_slot *s, uint64_t off, uint64_t len);
/* Could any? */
static inline bool ram_shared_any(const struct ram_slot *s) { return s->shared || s->moved; }

/* Of a shared slot: where in [off, end) the first run of bytes begins that the host has memory for, *stop: where it ends; `end`: there are none.
 * What is between runs reads as zeroes. Whole pages. */
uint64_t ram_shared_run(const struct ram_slot *s, uint64_t off, uint64_t end, uint64_t *stop);

/* [off, off+len) of a slot, whole pages, as it is, to buf; what is shared is read from the file, whose holes stay holes. 0 or -errno. */
int ram_shared_read(const struct ram_slot *s, uint64_t off, uint64_t len, uint8_t *buf);

/* How much memory the host has given for r's shared slots, in bytes. */
uint64_t ram_shared_used(const struct ram *r);

/* move.c: give the slot a place in the file, where nothing of it is so far. False: the host gives none. */
bool ram_share_place(struct ram *r, struct ram_slot *s);
/* ram.c: put the slot, which is mapped, into the file, if it should lie there and can. 0; -ENOMEM: what was mapped may be gone. */
int ram_share_slot(struct ram *r, struct ram_slot *s);
int ram_share_drop(const struct ram_slot *s, uint64_t off, uint64_t len);
void ram_share_fini(struct ram *r);

#endif
