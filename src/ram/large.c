/* Large pages for shared memory (large.h): pieces that were touched stand in a queue, a thread has the host make them large.
 *
 * Threads: whoever touches memory puts pieces in, with any lock held; large_main() takes them out. The lock is a leaf.
 */
#include "ram/large.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

#include "base/clock.h"
#include "base/map.h"
#include "base/thread.h"

#define LARGE_QUEUE 64
#define LARGE_WAIT  5000000ULL          /* ns: longer than this nobody waits for a large page; on an idle host it is there after 200000 */
#define LARGE_REST  1000000ULL          /* ns, after the first refusal; twice as much after each that follows, */
#define LARGE_RESTS (4096 * LARGE_REST) /* and no more than that */

struct large_piece {
    const struct ram_slot *slot;
    uint64_t off; /* of its first byte */
};

struct ram_large {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t more, done;
    struct large_piece queue[LARGE_QUEUE];
    unsigned first, count;
    uint64_t taken; /* pieces that the thread has finished */
    bool idle;      /* it waits for a piece */
    bool stop;
};

/* ---- pieces ---- */

static size_t large_pieces(const struct ram_slot *s) { return ALIGN_UP(ram_piece(s, s->size - 1) + 1, PAGE_SIZE); }

void ram_large_slot(struct ram_slot *s) { s->touched = map_memory(large_pieces(s)); }

void ram_large_fini(struct ram_slot *s)
{
    if (s->touched)
        munmap((void *)s->touched, large_pieces(s));
}

void ram_untouch(const struct ram_slot *s, uint64_t off, uint64_t len)
{
    uint64_t from = ALIGN_UP(s->gpa + off, LARGE_PAGE), to = (s->gpa + off + len) & ~(LARGE_PAGE - 1);

    for (; s->touched && from < to; from += LARGE_PAGE)
        atomic_store(&s->touched[ram_piece(s, from - s->gpa)], 0);
}

/* ---- who touches them ---- */

static struct timespec large_time(uint64_t ns)
{
    ns += clock_host_ns(CLOCK_MONOTONIC);
    return (struct timespec){ .tv_sec = (time_t)(ns / NSEC_PER_SEC), .tv_nsec = (long)(ns % NSEC_PER_SEC) };
}

/* Lock held. False: the queue is full. */
static bool large_put(struct ram_large *l, const struct large_piece *p)
{
    if (l->count == LARGE_QUEUE)
        return false;
    l->queue[(l->first + l->count++) % LARGE_QUEUE] = *p;
    pthread_cond_signal(&l->more);
    return true;
}

static void large_ask(struct ram_large *l, const struct large_piece *p, bool wait)
{
    struct timespec end = large_time(LARGE_WAIT);

    pthread_mutex_lock(&l->lock);
    wait &= l->idle && !l->count;
    uint64_t mine = l->taken + 1;
    if (!large_put(l, p))
        atomic_store(&p->slot->touched[ram_piece(p->slot, p->off)], 0); /* another time */
    while (wait && l->taken < mine && pthread_cond_timedwait(&l->done, &l->lock, &end) == 0)
        continue;
    pthread_mutex_unlock(&l->lock);
}

void ram_touch_piece(struct ram *r, const struct ram_slot *s, uint64_t off, bool wait)
{
    uint64_t piece = (s->gpa + off) & ~(LARGE_PAGE - 1);
    struct large_piece p = { s, piece - s->gpa };

    if (!r->large || atomic_exchange(&s->touched[ram_piece(s, off)], 1) || piece < s->gpa || p.off + LARGE_PAGE > s->size)
        return;
    __atomic_fetch_or(s->hva + off, 0, __ATOMIC_RELAXED); /* a page, since empty pieces are refused; no byte changes, whoever else writes there */
    large_ask(r->large, &p, wait);
}

/* ---- the thread ---- */

/* How long to rest after it: pages that a device writes to just then are refused, all of them where the host is old or short of large pages. */
static uint64_t large_make(const struct large_piece *p, uint64_t rest)
{
    if (madvise(p->slot->hva + p->off, LARGE_PAGE, MADV_COLLAPSE) == 0)
        return 0;
    atomic_store(&p->slot->touched[ram_piece(p->slot, p->off)], 0); /* who touches it next asks again */
    return !rest ? LARGE_REST : rest < LARGE_RESTS ? 2 * rest : rest;
}

static void large_rest(struct ram_large *l, uint64_t ns)
{
    struct timespec end = large_time(ns);

    while (!l->stop && pthread_cond_timedwait(&l->more, &l->lock, &end) == 0)
        continue;
}

static void *large_main(void *opaque)
{
    struct ram_large *l = opaque;
    uint64_t rest = 0;

    pthread_mutex_lock(&l->lock);
    while (!l->stop) {
        l->idle = !l->count;
        if (l->idle) {
            pthread_cond_wait(&l->more, &l->lock);
            continue;
        }
        struct large_piece p = l->queue[l->first];
        l->first = (l->first + 1) % LARGE_QUEUE;
        l->count--;
        pthread_mutex_unlock(&l->lock);
        rest = large_make(&p, rest);
        pthread_mutex_lock(&l->lock);
        l->taken++;
        pthread_cond_broadcast(&l->done);
        if (rest)
            large_rest(l, rest);
    }
    pthread_mutex_unlock(&l->lock);
    return NULL;
}

static void large_free(struct ram_large *l)
{
    pthread_cond_destroy(&l->more);
    pthread_cond_destroy(&l->done);
    pthread_mutex_destroy(&l->lock);
    free(l);
}

int ram_large_start(struct ram *r)
{
    struct ram_large *l = r->share_size ? calloc(1, sizeof(*l)) : NULL;
    pthread_condattr_t attr;
    int e;

    if (!l)
        return r->share_size ? -ENOMEM : 0;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_mutex_init(&l->lock, NULL);
    pthread_cond_init(&l->more, &attr);
    pthread_cond_init(&l->done, &attr);
    pthread_condattr_destroy(&attr);
    e = thread_start(&l->thread, GUARD_BLOCK, large_main, l);
    if (e == 0)
        r->large = l;
    else
        large_free(l);
    return e;
}

void ram_large_stop(struct ram *r)
{
    struct ram_large *l = r->large;

    if (!l)
        return;
    pthread_mutex_lock(&l->lock);
    l->stop = true;
    pthread_cond_broadcast(&l->more);
    pthread_mutex_unlock(&l->lock);
    pthread_join(l->thread, NULL);
    large_free(l);
    r->large = NULL;
}
