/* The reader of a disk: one thread that has many reads under way on the host at once, for what the host must fetch from its
 * own disk. I/O threads would each wait for one.
 *
 * A request comes here when block_read_now() has said -EAGAIN. Its data moves in pieces through buffers of the reader, which
 * stay its own until the kernel has filled them: a reset of the guest need not wait.
 */
#ifndef VITRO_BLOCK_READER_H
#define VITRO_BLOCK_READER_H

#include "block/block.h"

struct block_reader;

/* io outlives it. 0, or -errno when the host cannot do it (uring.h). */
int block_reader_create(struct block_reader **out, struct block_io *io);
/* Nothing is under way. NULL: nothing. */
void block_reader_destroy(struct block_reader *r);

/* Take over a read, from byte req->at on; it comes back by block_io_end() or block_io_again(). Any thread. */
void block_reader_take(struct block_reader *r, struct block_req *req);

/* --- of workers.c, for the reader --- */

/* The disk that requests are for. */
struct block *block_io_disk(struct block_io *io);
/* A request has ended with req->result. No lock held. */
void block_io_end(struct block_io *io, struct block_req *req);
/* It is for a thread to go on with, from req->at on. */
void block_io_again(struct block_io *io, struct block_req *req);

#endif
