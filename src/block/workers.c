/* The I/O threads of one disk, see block.h.
 *
 * Threads: block_submit(), block_drain() and completions with the device lock held; the I/O threads take only
 * io->lock, never the device lock, so that a drain may wait for them with the device lock held.
 * Requests are started in the order in which they came and may finish in any; devices order what must be.
 */
#include "block/block.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/log.h"

static int block_io_flushed(struct block *b, const struct block_req *req, int r)
{
    return r == 0 && req->fua ? block_flush(b) : r;
}

static int block_io_do(struct block *b, struct block_req *req)
{
    switch (req->op) {
    case BLOCK_READ:
        return block_read(b, req->off, req->buf, req->len);
    case BLOCK_WRITE:
        return block_io_flushed(b, req, block_write(b, req->off, req->buf, req->len));
    case BLOCK_FLUSH:
        return block_flush(b);
    case BLOCK_DISCARD:
        return block_discard(b, req->off, req->len);
    case BLOCK_WRITE_ZEROES:
        return block_io_flushed(b, req, block_write_zeroes(b, req->off, req->len, req->unmap));
    }
    return -EINVAL;
}

static void block_io_ready(struct block_io *io, struct block_req *req)
{
    bool first = !io->ready;

    req->next = NULL;
    *io->ready_tail = req;
    io->ready_tail = &req->next;
    if (first) {
        uint64_t one = 1;
        ssize_t n = write(io->event.fd, &one, sizeof(one)); /* cannot fill up */
        (void)n;
    }
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

static void *block_io_thread(void *opaque)
{
    struct block_io *io = opaque;
    struct block_req *req;

    pthread_mutex_lock(&io->lock);
    for (;;) {
        while (!io->todo && !io->quit) {
            io->idle++;
            pthread_cond_wait(&io->work, &io->lock);
            io->idle--;
        }
        if (!io->todo)
            break;
        req = block_io_take(io);
        pthread_mutex_unlock(&io->lock);
        req->result = block_io_do(io->block, req);
        pthread_mutex_lock(&io->lock);
        io->running--;
        block_io_ready(io, req);
        if (!io->todo && !io->running)
            pthread_cond_broadcast(&io->finished);
    }
    pthread_mutex_unlock(&io->lock);
    return NULL;
}

/* Report what is ready. Device lock held. */
static void block_io_report(struct block_io *io)
{
    struct block_req *req, *next;

    pthread_mutex_lock(&io->lock);
    req = io->ready;
    io->ready = NULL;
    io->ready_tail = &io->ready;
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

static void block_io_on_event(void *opaque, uint32_t events)
{
    struct block_io *io = opaque;
    uint64_t count;
    ssize_t n = read(io->event.fd, &count, sizeof(count)); /* before looking: what comes later rings again */

    (void)n;
    (void)events;
    block_io_report(io);
}

int block_io_init(struct block_io *io, struct block *block, struct loop *loop,
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
    pthread_cond_init(&io->work, NULL);
    pthread_cond_init(&io->finished, NULL);
    return 0;
}

/* One more thread; signals are for the threads that wait for them. io->lock held. */
static void block_io_grow(struct block_io *io)
{
    sigset_t all, old;
    int r;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    r = pthread_create(&io->thread[io->threads], NULL, block_io_thread, io);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (r == 0)
        io->threads++;
    else if (!io->threads)
        log_guest("block: no I/O thread: %s", strerror(r));
}

void block_submit(struct block_io *io, struct block_req *req)
{
    pthread_mutex_lock(&io->lock);
    if (!io->idle && io->threads < BLOCK_THREADS)
        block_io_grow(io);
    if (!io->threads) { /* the host gives none: better an error than silence */
        req->result = -EAGAIN;
        block_io_ready(io, req);
    } else {
        req->next = NULL;
        *io->todo_tail = req;
        io->todo_tail = &req->next;
        pthread_cond_signal(&io->work);
    }
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

void block_io_fini(struct block_io *io)
{
    if (io->event.fd < 0)
        return;
    block_drain(io);
    pthread_mutex_lock(&io->lock);
    io->quit = true;
    pthread_cond_broadcast(&io->work);
    pthread_mutex_unlock(&io->lock);
    for (unsigned i = 0; i < io->threads; i++)
        pthread_join(io->thread[i], NULL);
    loop_del_fd(io->loop, &io->event);
    close(io->event.fd);
    io->event.fd = -1;
    pthread_mutex_destroy(&io->lock);
    pthread_cond_destroy(&io->work);
    pthread_cond_destroy(&io->finished);
}
