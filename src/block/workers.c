/* The I/O threads of one disk, see block.h.
 *
 * Threads: block_submit(), block_drain() and completions with the device lock held. An I/O thread that has
 * finished a request reports it itself if the device lock is free; it never waits for that lock, so that a
 * drain may wait for the threads with the lock held. Where it is taken, the loop reports. Requests are
 * started in the order in which they came and may finish in any; devices order what must be.
 */
#include "block/block.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/thread.h"
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

/* Data in pieces, through the thread's buffer. */
static int block_io_move(struct block_io *io, struct block *b, struct block_req *req, uint8_t *buf)
{
    int r = buf ? 0 : -ENOMEM;

    for (uint64_t at = req->at, n; r == 0 && at < req->len; at += n) {
        n = req->len - at < BLOCK_PIECE ? req->len - at : BLOCK_PIECE;
        if (req->op == BLOCK_READ) {
            r = block_io_read(io, b, req, at, buf, n);
        } else {
            r = req->move(req, at, buf, n);
            r = r == 0 ? block_write(b, req->off + at, buf, n) : r;
        }
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

static void block_io_append(struct block_io *io, struct block_req *req)
{
    req->next = NULL;
    *io->ready_tail = req;
    io->ready_tail = &req->next;
}

/* Let the loop report. io->lock held. */
static void block_io_ring(struct block_io *io)
{
    uint64_t one = 1;
    ssize_t n = 0;

    if (!io->rung)
        n = write(io->event.fd, &one, sizeof(one)); /* cannot fill up */
    (void)n;
    io->rung = true;
}

static struct block_req *block_io_take(struct block_io *io)
{
    struct block_req *req = io->todo;

    io->todo = req->next;
    if (!io->todo)
        io->todo_tail = &io->todo;
    io->running++;
    return req;
}

/* Report what is ready. Device lock held. */
static void block_io_report(struct block_io *io)
{
    struct block_req *req, *next;

    pthread_mutex_lock(&io->lock);
    req = io->ready;
    io->ready = NULL;
    io->ready_tail = &io->ready;
    io->rung = false;
    pthread_mutex_unlock(&io->lock);
    if (!req)
        return;
    for (; req; req = next) {
        next = req->next;
        req->done(req, req->result);
    }
    if (io->batch_end)
        io->batch_end(io->opaque);
}

/* A request has ended. io->lock held, and dropped in between. */
static void block_io_finish(struct block_io *io, struct block_req *req)
{
    bool last;

    block_io_append(io, req);
    /* With more to do, the one who finishes last reports for all: one interrupt for many. */
    last = !io->todo;
    pthread_mutex_unlock(&io->lock);
    if (last && loop_trylock(io->loop)) {
        block_io_report(io);
        loop_unlock(io->loop);
    }
    pthread_mutex_lock(&io->lock);
    if (io->ready)
        block_io_ring(io);
    io->running--;
    if (!io->todo && !io->running)
        pthread_cond_broadcast(&io->finished);
}

/* Threads sleep on a futex of their own: glibc's condition variables can lose a wake-up when a waiter is late
 * (its bug 25847, in the versions before 2.41), and a request would then lie there until the next one comes.
 */
static void block_io_sleep(struct block_io *io)
{
    uint32_t seen = atomic_load(&io->bell);

    pthread_mutex_unlock(&io->lock);
    syscall(SYS_futex, &io->bell, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
    pthread_mutex_lock(&io->lock);
}

static void block_io_wake(struct block_io *io, int threads)
{
    atomic_fetch_add(&io->bell, 1);
    syscall(SYS_futex, &io->bell, FUTEX_WAKE_PRIVATE, threads, NULL, NULL, 0);
}

struct block *block_io_disk(struct block_io *io)
{
    struct block *b;

    pthread_mutex_lock(&io->lock);
    b = io->block;
    pthread_mutex_unlock(&io->lock);
    return b;
}

void block_io_end(struct block_io *io, struct block_req *req)
{
    pthread_mutex_lock(&io->lock);
    block_io_finish(io, req);
    pthread_mutex_unlock(&io->lock);
}

static void block_io_queue(struct block_io *io, struct block_req *req)
{
    req->next = NULL;
    *io->todo_tail = req;
    io->todo_tail = &req->next;
    if (io->idle)
        block_io_wake(io, 1);
}

void block_io_again(struct block_io *io, struct block_req *req)
{
    pthread_mutex_lock(&io->lock);
    req->by_thread = true;
    io->running--;
    block_io_queue(io, req);
    pthread_mutex_unlock(&io->lock);
}

/* No lock held. */
static void block_io_work(struct block_io *io, struct block_req *req, uint8_t *buf)
{
    int r = block_io_do(io, req, buf);

    if (r == BLOCK_AWAY) {
        block_reader_take(io->reader, req);
        return;
    }
    req->result = r;
    block_io_end(io, req);
}

static void *block_io_thread(void *opaque);

/* One more thread. io->lock held, or nobody else knows io. */
static int block_io_grow(struct block_io *io)
{
    int r = thread_start(&io->thread[io->threads], GUARD_BLOCK, block_io_thread, io);

    if (r == 0)
        io->threads++;
    return r;
}

/* The first thread starts with the disk, further ones are started by those that leave none idle: a vCPU, which submits a request
 * while they wait for the host, may start none. */
static void *block_io_thread(void *opaque)
{
    struct block_io *io = opaque;
    uint8_t *buf = aligned_alloc(4096, BLOCK_PIECE);
    struct block_req *req;

    pthread_mutex_lock(&io->lock);
    for (;;) {
        while (!io->todo && !io->quit) {
            io->idle++;
            block_io_sleep(io);
            io->idle--;
        }
        if (!io->todo)
            break;
        req = block_io_take(io);
        if (!io->idle && io->threads < BLOCK_THREADS)
            block_io_grow(io);
        pthread_mutex_unlock(&io->lock);
        block_io_work(io, req, buf);
        pthread_mutex_lock(&io->lock);
    }
    pthread_mutex_unlock(&io->lock);
    free(buf);
    return NULL;
}

static void block_io_on_event(void *opaque, uint32_t events)
{
    struct block_io *io = opaque;
    uint64_t count;
    ssize_t n = read(io->event.fd, &count, sizeof(count)); /* before looking: what comes later rings again */

    (void)n;
    (void)events;
    block_io_report(io);
}

static void block_io_fini(struct block_io *io);

static int block_io_start(struct block_io *io, enum block_aio aio)
{
    int r = aio == BLOCK_AIO_THREADS ? 0 : block_reader_create(&io->reader, io);

    return r < 0 && aio == BLOCK_AIO_IO_URING ? r : block_io_grow(io);
}

static int block_io_init(struct block_io *io, struct block *block, enum block_aio aio, struct loop *loop,
                         void (*batch_end)(void *opaque), void *opaque)
{
    int r;

    *io = (struct block_io){ .block = block, .loop = loop, .batch_end = batch_end, .opaque = opaque };
    io->todo_tail = &io->todo;
    io->ready_tail = &io->ready;
    io->event.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (io->event.fd < 0)
        return -errno;
    io->event.fn = block_io_on_event;
    io->event.opaque = io;
    r = loop_add_fd(loop, &io->event, EPOLLIN);
    if (r < 0) {
        close(io->event.fd);
        return r;
    }
    pthread_mutex_init(&io->lock, NULL);
    pthread_cond_init(&io->finished, NULL);
    r = block_io_start(io, aio);
    if (r < 0)
        block_io_fini(io);
    return r;
}

int block_io_create(struct block_io **io, struct block *block, enum block_aio aio, struct loop *loop,
                    void (*batch_end)(void *opaque), void *opaque)
{
    int r;

    *io = malloc(sizeof(**io));
    r = *io ? block_io_init(*io, block, aio, loop, batch_end, opaque) : -ENOMEM;
    if (r < 0) {
        free(*io);
        *io = NULL;
    }
    return r;
}

void block_submit(struct block_io *io, struct block_req *req)
{
    bool away = req->op == BLOCK_READ && req->cold && io->reader;

    req->at = 0;
    req->by_thread = false;
    pthread_mutex_lock(&io->lock);
    if (away)
        io->running++;
    else
        block_io_queue(io, req);
    pthread_mutex_unlock(&io->lock);
    if (away)
        block_reader_take(io->reader, req);
}

void block_io_switch(struct block_io *io, struct block *block)
{
    pthread_mutex_lock(&io->lock); /* threads look at it after they have taken a request under the lock */
    io->block = block;
    pthread_mutex_unlock(&io->lock);
}

/* True when nothing is under way or waits to be reported; waits for the former. */
static bool block_io_settle(struct block_io *io)
{
    bool settled;

    pthread_mutex_lock(&io->lock);
    while (io->todo || io->running)
        pthread_cond_wait(&io->finished, &io->lock);
    settled = !io->ready;
    pthread_mutex_unlock(&io->lock);
    return settled;
}

void block_drain(struct block_io *io)
{
    while (!block_io_settle(io))
        block_io_report(io);
}

static void block_io_fini(struct block_io *io)
{
    if (io->event.fd < 0)
        return;
    block_drain(io);
    block_reader_destroy(io->reader);
    pthread_mutex_lock(&io->lock);
    io->quit = true;
    block_io_wake(io, INT_MAX);
    pthread_mutex_unlock(&io->lock);
    for (unsigned i = 0; i < io->threads; i++)
        pthread_join(io->thread[i], NULL);
    loop_del_fd(io->loop, &io->event);
    close(io->event.fd);
    io->event.fd = -1;
    pthread_mutex_destroy(&io->lock);
    pthread_cond_destroy(&io->finished);
}

void block_io_destroy(struct block_io *io)
{
    if (io)
        block_io_fini(io);
    free(io);
}
