/* The reader of a disk (reader.h): the ring's only user.
 *
 * A slot is a request with a piece of it under way. Each piece must lie in one place of one file, which block_hold() finds
 * without waiting; what does not (a fragmented or compressed piece, a table that is not loaded), and what the host has read
 * only in part, goes back to the threads. So there is no second way of reading a format here, and no waiting but for the ring.
 *
 * Runs on: the reader's own thread; block_reader_take() on any. `lock` guards the list only, a leaf.
 */
#include "block/reader.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "base/thread.h"
#include "block/uring.h"

#define READER_SLOTS 32
#define READER_PIECE (128UL << 10)
#define READER_BELL  UINT64_MAX /* the tag of the read that waits for new requests */

struct reader_slot {
    struct block_req *req; /* NULL: free */
    size_t len;            /* of the piece, which starts at req->at */
    struct block *holder;  /* whose place is held */
};

struct block_reader {
    struct block_io *io;
    struct uring ring;
    pthread_t thread;
    pthread_mutex_t lock;
    struct block_req *todo, **todo_tail;
    bool quit;
    int bell; /* an eventfd */
    uint64_t rung;
    bool listening; /* a read of the bell is under way */
    struct reader_slot slot[READER_SLOTS];
    unsigned busy;
    uint8_t *buf; /* READER_PIECE a slot */
};

static uint8_t *reader_buf(struct block_reader *r, unsigned n) { return r->buf + n * READER_PIECE; }

/* Start the next piece of a slot's request: 0, or -errno when that cannot be done without waiting. */
static int reader_start(struct block_reader *r, unsigned n)
{
    struct reader_slot *s = &r->slot[n];
    uint64_t left = s->req->len - s->req->at;
    struct block_place p;
    int e;

    s->len = left < READER_PIECE ? (size_t)left : READER_PIECE;
    e = block_hold(block_io_disk(r->io), s->req->off + s->req->at, s->len, &p);
    if (e < 0)
        return e;
    s->holder = p.holder;
    uring_read(&r->ring, p.fd, p.off, reader_buf(r, n), s->len, n);
    return 0;
}

static void reader_free(struct block_reader *r, unsigned n)
{
    r->slot[n].req = NULL;
    r->busy--;
}

/* The request has ended, or (again) is for the threads. */
static void reader_leave(struct block_reader *r, unsigned n, int result, bool again)
{
    struct block_req *req = r->slot[n].req;

    reader_free(r, n);
    req->result = result;
    if (again)
        block_io_again(r->io, req);
    else
        block_io_end(r->io, req);
}

/* A piece has been read, in whole or not. */
static void reader_piece(struct block_reader *r, unsigned n, int got)
{
    struct reader_slot *s = &r->slot[n];
    int e;

    block_release(s->holder);
    if (got < 0 && got != -EAGAIN && got != -EINTR && got != -EOPNOTSUPP) {
        reader_leave(r, n, got, false);
        return;
    }
    if (got < 0 || (size_t)got != s->len) {
        reader_leave(r, n, 0, true);
        return;
    }
    e = s->req->move(s->req, s->req->at, reader_buf(r, n), s->len);
    s->req->at += s->len;
    if (e < 0 || s->req->at == s->req->len)
        reader_leave(r, n, e, false);
    else if (reader_start(r, n) < 0)
        reader_leave(r, n, 0, true);
}

static struct block_req *reader_pop(struct block_reader *r)
{
    struct block_req *req;

    pthread_mutex_lock(&r->lock);
    req = r->todo;
    r->todo = req ? req->next : NULL;
    if (!r->todo)
        r->todo_tail = &r->todo;
    pthread_mutex_unlock(&r->lock);
    return req;
}

/* New requests into free slots. */
static void reader_fill(struct block_reader *r)
{
    struct block_req *req;

    for (unsigned n = 0; n < READER_SLOTS; n++) {
        while (!r->slot[n].req && (req = reader_pop(r))) {
            r->slot[n].req = req;
            r->busy++;
            if (reader_start(r, n) < 0)
                reader_leave(r, n, 0, true);
        }
    }
}

static void reader_listen(struct block_reader *r)
{
    r->listening = true;
    uring_read(&r->ring, r->bell, 0, &r->rung, sizeof(r->rung), READER_BELL);
}

static void reader_wait(struct block_reader *r)
{
    const struct timespec pause = { .tv_nsec = 1000000 };
    uint64_t tag;
    int e = uring_wait(&r->ring), got;

    if (e < 0 && e != -EINTR) /* the host is short of memory */
        nanosleep(&pause, NULL);
    while (uring_next(&r->ring, &tag, &got)) {
        if (tag == READER_BELL)
            r->listening = false;
        else if (tag < READER_SLOTS && r->slot[tag].req)
            reader_piece(r, (unsigned)tag, got);
    }
}

static bool reader_ends(struct block_reader *r)
{
    bool quit;

    pthread_mutex_lock(&r->lock);
    quit = r->quit && !r->todo && !r->busy && !r->listening; /* quitting rings the bell, too */
    pthread_mutex_unlock(&r->lock);
    return quit;
}

static void *reader_thread(void *opaque)
{
    struct block_reader *r = opaque;

    while (!reader_ends(r)) {
        if (!r->listening)
            reader_listen(r);
        reader_fill(r);
        reader_wait(r);
    }
    return NULL;
}

static void reader_ring_bell(struct block_reader *r)
{
    uint64_t one = 1;
    ssize_t n = write(r->bell, &one, sizeof(one)); /* cannot fill up */

    (void)n;
}

void block_reader_take(struct block_reader *r, struct block_req *req)
{
    bool first;

    pthread_mutex_lock(&r->lock);
    first = !r->todo;
    req->next = NULL;
    *r->todo_tail = req;
    r->todo_tail = &req->next;
    pthread_mutex_unlock(&r->lock);
    if (first)
        reader_ring_bell(r);
}

static void reader_fini(struct block_reader *r)
{
    uring_fini(&r->ring);
    if (r->bell >= 0)
        close(r->bell);
    pthread_mutex_destroy(&r->lock);
    free(r->buf);
    free(r);
}

int block_reader_create(struct block_reader **out, struct block_io *io)
{
    struct block_reader *r = calloc(1, sizeof(*r));
    int e = r ? uring_init(&r->ring, 2 * READER_SLOTS) : -ENOMEM; /* the bell has an entry, too */

    *out = NULL;
    if (e < 0) {
        free(r);
        return e;
    }
    r->io = io;
    r->todo_tail = &r->todo;
    pthread_mutex_init(&r->lock, NULL);
    r->buf = aligned_alloc(4096, READER_SLOTS * READER_PIECE); /* costs what is used of it */
    r->bell = eventfd(0, EFD_CLOEXEC);
    e = r->bell < 0 ? -errno : r->buf ? thread_start(&r->thread, GUARD_BLOCK, reader_thread, r) : -ENOMEM;
    if (e < 0)
        reader_fini(r);
    else
        *out = r;
    return e;
}

void block_reader_destroy(struct block_reader *r)
{
    if (!r)
        return;
    pthread_mutex_lock(&r->lock);
    r->quit = true;
    pthread_mutex_unlock(&r->lock);
    reader_ring_bell(r);
    pthread_join(r->thread, NULL);
    reader_fini(r);
}
