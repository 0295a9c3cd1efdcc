/* Threads for what may block, see pool.h.
 *
 * Threads: submitting, draining and reporting with the device lock held; the pool's own lock is a leaf.
 */
#include "base/pool.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/thread.h"

/* Report what is ready. Device lock held. */
static void pool_report(void *opaque)
{
    struct pool *p = opaque;
    struct pool_job *job, *next;

    pthread_mutex_lock(&p->lock);
    job = p->ready;
    p->ready = NULL;
    p->ready_tail = &p->ready;
    pthread_mutex_unlock(&p->lock);
    if (!job)
        return;
    for (; job; job = next) {
        next = job->next;
        job->done(job);
    }
    if (p->batch_end)
        p->batch_end(p->opaque);
}

void pool_end(struct pool *p, struct pool_job *job)
{
    pthread_mutex_lock(&p->lock);
    job->next = NULL;
    *p->ready_tail = job;
    p->ready_tail = &job->next;
    pthread_mutex_unlock(&p->lock);
    /* Also with more to do: whoever waits for this one has work for us. */
    loop_post(p->loop, &p->report);
    pthread_mutex_lock(&p->lock);
    p->running--;
    if (!p->todo && !p->running)
        pthread_cond_broadcast(&p->finished);
    pthread_mutex_unlock(&p->lock);
}

/* Threads sleep on a futex of their own: glibc's condition variables can lose a wake-up when a waiter is late
 * (its bug 25847, in the versions before 2.41), and a job would then lie there until the next one comes.
 */
static void pool_sleep(struct pool *p)
{
    uint32_t seen = atomic_load(&p->bell);

    p->idle++;
    pthread_mutex_unlock(&p->lock);
    syscall(SYS_futex, &p->bell, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
    pthread_mutex_lock(&p->lock);
    p->idle--;
}

static void pool_wake(struct pool *p, int threads)
{
    atomic_fetch_add(&p->bell, 1);
    syscall(SYS_futex, &p->bell, FUTEX_WAKE_PRIVATE, threads, NULL, NULL, 0);
}

/* p->lock held. A job that cannot start yet is taken by the thread for which it waits. */
static void pool_queue(struct pool *p, struct pool_job *job)
{
    job->next = NULL;
    *p->todo_tail = job;
    p->todo_tail = &job->next;
    if (p->idle && !(job->alone && p->alone))
        pool_wake(p, 1);
    p->alone += job->alone;
}

/* The first job that can start, or NULL. p->lock held. */
static struct pool_job *pool_first(struct pool *p)
{
    struct pool_job **at = &p->todo, *job;

    while (*at && (*at)->alone && p->alone_runs)
        at = &(*at)->next;
    job = *at;
    if (!job)
        return NULL;
    *at = job->next;
    if (!*at)
        p->todo_tail = at;
    return job;
}

/* The next job, or NULL to end. p->lock held. */
static struct pool_job *pool_take(struct pool *p)
{
    struct pool_job *job;

    while (!(job = pool_first(p)) && !p->quit)
        pool_sleep(p);
    if (!job)
        return NULL;
    p->alone_runs |= job->alone;
    p->running++;
    return job;
}

static void *pool_thread(void *opaque);

/* One more thread. p->lock held, or nobody else knows p. */
static int pool_grow(struct pool *p)
{
    int r = thread_start(&p->thread[p->threads], p->kind, pool_thread, p);

    if (r == 0)
        p->threads++;
    return r;
}

/* The first thread starts with the pool, further ones are started by those that leave none idle: a vCPU, which submits a job
 * while they all wait for the host, may start none. */
static void *pool_thread(void *opaque)
{
    struct pool *p = opaque;
    void *scratch = p->scratch ? aligned_alloc(4096, p->scratch) : NULL;
    struct pool_job *job;
    bool alone;

    pthread_mutex_lock(&p->lock);
    while ((job = pool_take(p))) {
        if (!p->idle && p->threads < POOL_THREADS)
            pool_grow(p);
        pthread_mutex_unlock(&p->lock);
        alone = job->alone;
        if (job->run(job, scratch))
            pool_end(p, job);
        pthread_mutex_lock(&p->lock);
        p->alone -= alone;
        p->alone_runs &= !alone;
    }
    pthread_mutex_unlock(&p->lock);
    free(scratch);
    return NULL;
}

int pool_init(struct pool *p, struct loop *loop, enum guard_kind kind, size_t scratch, void (*batch_end)(void *opaque),
              void *opaque)
{
    int r;

    *p = (struct pool){ .loop = loop, .kind = kind, .scratch = scratch, .batch_end = batch_end, .opaque = opaque };
    p->todo_tail = &p->todo;
    p->ready_tail = &p->ready;
    p->report = (struct loop_work){ .fn = pool_report, .opaque = p };
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->finished, NULL);
    r = pool_grow(p);
    if (r < 0)
        pool_fini(p);
    return r;
}

void pool_submit(struct pool *p, struct pool_job *job)
{
    pthread_mutex_lock(&p->lock);
    pool_queue(p, job);
    pthread_mutex_unlock(&p->lock);
}

void pool_begin(struct pool *p)
{
    pthread_mutex_lock(&p->lock);
    p->running++;
    pthread_mutex_unlock(&p->lock);
}

void pool_again(struct pool *p, struct pool_job *job)
{
    pthread_mutex_lock(&p->lock);
    p->running--;
    pool_queue(p, job);
    pthread_mutex_unlock(&p->lock);
}

/* True when nothing is under way or waits to be reported; waits for the former. */
static bool pool_settle(struct pool *p)
{
    bool settled;

    pthread_mutex_lock(&p->lock);
    while (p->todo || p->running)
        pthread_cond_wait(&p->finished, &p->lock);
    settled = !p->ready;
    pthread_mutex_unlock(&p->lock);
    return settled;
}

void pool_drain(struct pool *p)
{
    while (!pool_settle(p))
        pool_report(p);
}

void pool_fini(struct pool *p)
{
    if (!p->loop)
        return;
    pool_drain(p);
    pthread_mutex_lock(&p->lock);
    p->quit = true;
    pool_wake(p, INT_MAX);
    pthread_mutex_unlock(&p->lock);
    for (unsigned i = 0; i < p->threads; i++)
        pthread_join(p->thread[i], NULL);
    loop_unpost(p->loop, &p->report);
    p->loop = NULL;
    pthread_mutex_destroy(&p->lock);
    pthread_cond_destroy(&p->finished);
}
