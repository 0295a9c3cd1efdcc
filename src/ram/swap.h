/* Guest memory on a file of the monitor's own, so that the host need not have room for all of it at once.
 *
 * The file is mapped shared in the place of anonymous memory, at the same host addresses, so engines, devices and the host's kernel notice
 * nothing: a page that is not there is read back by the fault that any of them takes. A thread keeps what is in memory under a limit.
 *
 * Shared mappings are not copied on write: a child process sees the memory as it is, not as it was.
 */
#ifndef VITRO_RAM_SWAP_H
#define VITRO_RAM_SWAP_H

#include "ram/ram.h"

struct err;

#define RAM_SWAP_LIMIT_MIN (8ULL << 20)

/* Put all writable slots, which hold nothing yet, on a new file at path: mode 0600, its whole size is taken from the file system at once, and its
 * name is gone when this returns. limit: bytes that may be in memory; 0: the host's kernel alone decides. No vCPU runs, engines know no
 * address yet. 0, or -errno with a sentence; then the memory is as before. */
int ram_swap_create(struct ram *r, const char *path, uint64_t limit, struct err *err);

/* Start the thread that keeps the limit. It ends by ram_fini(). Nothing without a swap file. 0 or -errno. */
int ram_swap_start(struct ram *r);

/* Bytes of guest memory that only the file has, as of a moment ago; 0 without one. Any thread. */
uint64_t ram_swapped(const struct ram *r);

/* ram.c: [off, off+len) of the slot, whole pages, read as zeroes from now on and cost no memory. */
void ram_swap_zero(struct ram_swap *sw, const struct ram_slot *s, uint64_t off, uint64_t len);
void ram_swap_destroy(struct ram_swap *sw); /* before the slots are unmapped; NULL: nothing */
void ram_swap_moved(struct ram *to, struct ram *from); /* the slots of from have moved to those of to */

#endif
