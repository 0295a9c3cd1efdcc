/* Guest memory for a writer other than memcpy: the host's kernel, in a read from a file.
 *
 * The rules are ram_write()'s: the engine hears of code that changes before and after, the dirty log afterwards. The pointer is used
 * by the function that asked for it, and by nobody when that returns. All of it is between ram_enter() and ram_leave() (move.h).
 */
#ifndef VITRO_RAM_LEND_H
#define VITRO_RAM_LEND_H

#include "ram/ram.h"

/* A pointer to the first bytes of [gpa, gpa+len), *n of them; ram_lend_end() for the same bytes follows, whether they were
 * changed or not. NULL: there is no writable RAM at gpa. */
void *ram_lend(struct ram *r, uint64_t gpa, uint64_t len, uint64_t *n);
void ram_lend_end(struct ram *r, uint64_t gpa, uint64_t len);

#endif
