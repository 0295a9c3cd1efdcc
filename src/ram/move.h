/* Memory that is a file's (ram_map_file()), for other processes to map pages of after all: a piece that is wanted there is moved into the machine's file of memory
 * (share.h), and is shared from then on. The rest stays as it is, copy on write, which is what makes copies of a machine small.
 *
 * A piece is moved while nothing changes it: what is written to the old page after that was copied would be lost. vCPUs stand (engine.h, quiesce); everyone else
 * changes memory between ram_enter() and ram_leave() (ram.h's functions do), and a piece is only moved when nobody is there.
 */
#ifndef VITRO_RAM_MOVE_H
#define VITRO_RAM_MOVE_H

#include "base/bits.h"
#include "ram/ram.h"

#define MOVE_PIECE  16    /* a piece is 64 KiB at least, */
#define MOVE_PIECES 16384 /* and there are no more of them in all: each takes up to two of the 65530 mappings that a process has */

/* Pieces of r's slots that are a file's may be moved from now on, if the host gives it a file of memory. Before anything runs. */
void ram_move_init(struct ram *r);

/* The page at off of the slot is not shared, and could be. */
static inline bool ram_may_move(const struct ram_slot *s, uint64_t off) { return s->moved && !s->moved[off >> s->piece]; }

/* Move the piece that holds off, of which ram_may_move(). No vCPU runs. 0; -EBUSY: another thread is changing memory, another time; or another -errno; then all is
 * as it was. */
int ram_move(struct ram *r, struct ram_slot *s, uint64_t off);

/* A thread changes memory from here on, up to ram_leave(). May nest. */
void ram_enter_moving(struct ram *r);
static inline void ram_enter(struct ram *r)
{
    if (unlikely(r->moves))
        ram_enter_moving(r);
}
static inline void ram_leave(struct ram *r)
{
    if (unlikely(r->moves))
        atomic_fetch_sub(&r->writers, 1);
}

/* ram.c: a slot ends. */
void ram_move_fini(struct ram_slot *s);

#endif
