/* The I/O threads of one disk, see block.h.
 *
 * Threads: block_submit(), block_drain() and completions with the device lock held; pool.h has the rest. Requests are
 * started in the order in which they came and may finish in any; devices order what must be.
 */
#include "block/block.h"

#include <errno.h>
#include <stdlib.h>

#include "base/bits.h"
#include "base/pool.h"
#include "block/reader.h"

static int block_io_flushed(struct block *b, const struct block_req *req, int r)
{
    return r == 0 && req->fua ? block_flush(b) : r;
}

#define BLOCK_AWAY 1 /* instead of a result: the reader goes on with it */

/* A piece straight to where it goes if the host has it in memory, else by the reader or through the thread's buffer. */
static int block_io_read(struct block_io *io, struct block *b, struct block_req *req, uint64_t at, uint8_t *buf, uint64_t n)
{
    int r = req->read_now ? req->read_now(req, at, n) : -EOPNOTSUPP;

    if (r != -EAGAIN && r != -EOPNOTSUPP)
        return r;
    if (r == -EAGAIN && io->reader && !req->by_thread) {
        req->at = at;
        return BLOCK_AWAY;
    }
    r = block_read(b, req->off + at, buf, n);
    return r == 0 ? req->move(req, at, buf, n) : r;
}

/* A piece straight from where it is: *n bytes of it, or fewer if a large one does not lie in one place. */
static int block_io_write_from(struct block_req *req, uint64_t at, uint64_t *n)
{
    int r = req->write_from ? req->write_from(req, at, *n) : -EOPNOTSUPP;

    if (r != -EAGAIN || *n <= BLOCK_PIECE)
        return r;
    *n = BLOCK_PIECE;
    return req->write_from(req, at, *n);
}

/* A piece straight from where it is, else through the thread's buffer. */
static int block_io_write(struct block *b, struct block_req *req, uint64_t at, uint8_t *buf, uint64_t *n)
{
    int r;

    *n = req->len - at < BLOCK_FROM ? req->len - at : BLOCK_FROM;
    r = block_io_write_from(req, at, n);
    if (r != -EAGAIN && r != -EOPNOTSUPP)
        return r;
    *n = *n < BLOCK_PIECE ? *n : BLOCK_PIECE;
    r = req->move(req, at, buf, *n);
    return r == 0 ? block_write(b, req->off + at, buf, *n) : r;
}

/* Data in pieces. */
static int block_io_move(struct block_io *io, struct block *b, struct block_req *req, uint8_t *buf)
{
    int r = buf ? 0 : -ENOMEM;

    for (uint64_t at = req->at, n; r == 0 && at < req->len; at += n) {
        n = req->len - at < BLOCK_PIECE ? req->len - at : BLOCK_PIECE;
        r = req->op == BLOCK_READ ? block_io_read(io, b, req, at, buf, n) : block_io_write(b, req, at, buf, &n);
    }
    return r;
}

static int block_io_do(struct block_io *io, struct block_req *req, uint8_t *buf)
{
    struct block *b = io->block;

    switch (req->op) {
    case BLOCK_READ:
        return block_io_move(io, b, req, buf);
    case BLOCK_WRITE:
        return block_io_flushed(b, req, block_io_move(io, b, req, buf));
    case BLOCK_FLUSH:
        return block_flush(b);
    case BLOCK_DISCARD:
        return block_discard(b, req->off, req->len);
    case BLOCK_WRITE_ZEROES:
        return block_io_flushed(b, req, block_write_zeroes(b, req->off, req->len, req->unmap));
    }
    return -EINVAL;
}

static bool block_io_run(struct pool_job *job, void *buf)
{
    struct block_req *req = container_of(job, struct block_req, job);
    struct block_io *io = req->io;
    int r = block_io_do(io, req, buf);

    if (r == BLOCK_AWAY) {
        block_reader_take(io->reader, req);
        return false;
    }
    req->result = r;
    return true;
}

static void block_io_done(struct pool_job *job)
{
    struct block_req *req = container_of(job, struct block_req, job);

    req->done(req, req->result);
}

struct block *block_io_disk(struct block_io *io)
{
    struct block *b;

    pthread_mutex_lock(&io->pool.lock);
    b = io->block;
    pthread_mutex_unlock(&io->pool.lock);
    return b;
}

void block_io_end(struct block_io *io, struct block_req *req) { pool_end(&io->pool, &req->job); }

void block_io_again(struct block_io *io, struct block_req *req)
{
    req->by_thread = true;
    pool_again(&io->pool, &req->job);
}

int block_io_create(struct block_io **out, struct block *block, enum block_aio aio, struct loop *loop,
                    void (*batch_end)(void *opaque), void *opaque)
{
    struct block_io *io = *out = calloc(1, sizeof(*io));
    int r;

    if (!io)
        return -ENOMEM;
    io->block = block;
    r = aio == BLOCK_AIO_THREADS ? 0 : block_reader_create(&io->reader, io);
    if (r == 0 || aio != BLOCK_AIO_IO_URING)
        r = pool_init(&io->pool, loop, GUARD_BLOCK, BLOCK_PIECE, batch_end, opaque);
    if (r < 0) {
        block_io_destroy(io);
        *out = NULL;
    }
    return r;
}

void block_submit(struct block_io *io, struct block_req *req)
{
    req->at = 0;
    req->by_thread = false;
    req->io = io;
    /* Hosts let one writer into a file at a time: threads would only take turns, at the price of a wake-up each. With a flush
     * behind each write there is something to do at the same time. */
    req->job = (struct pool_job){ .run = block_io_run, .done = block_io_done, .alone = req->op == BLOCK_WRITE && !req->fua };
    if (req->op == BLOCK_READ && req->cold && io->reader) {
        pool_begin(&io->pool);
        block_reader_take(io->reader, req);
    } else {
        pool_submit(&io->pool, &req->job);
    }
}

void block_io_switch(struct block_io *io, struct block *block)
{
    pthread_mutex_lock(&io->pool.lock); /* threads look at it after they have taken a request under the lock */
    io->block = block;
    pthread_mutex_unlock(&io->pool.lock);
}

void block_drain(struct block_io *io) { pool_drain(&io->pool); }

void block_io_destroy(struct block_io *io)
{
    if (!io)
        return;
    if (io->pool.loop)
        pool_drain(&io->pool); /* before the reader goes */
    block_reader_destroy(io->reader);
    pool_fini(&io->pool);
    free(io);
}
