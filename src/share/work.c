/* The I/O threads of one share, see work.h.
 *
 * Threads: jobs are submitted and reported with the device lock held. The I/O threads only ever try for the device
 * lock, so that share_work_drain() may wait for them while it holds it.
 */
#include "share/work.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/thread.h"

static void share_work_ring(struct share_work *w)
{
    uint64_t one = 1;
    ssize_t n = write(w->event.fd, &one, sizeof(one)); /* cannot fill up */
    (void)n;
}

/* Report what is ready. Device lock held. */
static void share_work_report(struct share_work *w)
{
    struct share_job *job, *next;

    pthread_mutex_lock(&w->lock);
    job = w->ready;
    w->ready = NULL;
    w->ready_tail = &w->ready;
    pthread_mutex_unlock(&w->lock);
    if (!job)
        return;
    for (; job; job = next) {
        next = job->next;
        job->done(job);
    }
    if (w->batch_end)
        w->batch_end(w->opaque);
}

static void share_work_on_event(void *opaque, uint32_t events)
{
    struct share_work *w = opaque;
    uint64_t count;
    ssize_t n = read(w->event.fd, &count, sizeof(count)); /* before looking: what comes later rings again */

    (void)n;
    (void)events;
    share_work_report(w);
}

/* The next job, or NULL to end. w->lock held. */
static struct share_job *share_work_take(struct share_work *w)
{
    struct share_job *job;

    while (!w->todo && !w->quit) {
        w->idle++;
        pthread_cond_wait(&w->more, &w->lock);
        w->idle--;
    }
    job = w->todo;
    if (!job)
        return NULL;
    w->todo = job->next;
    if (!w->todo)
        w->todo_tail = &w->todo;
    w->running++;
    return job;
}

static void *share_work_thread(void *opaque);

/* One more thread. w->lock held, or nobody else knows w. */
static int share_work_grow(struct share_work *w)
{
    int r = thread_start(&w->thread[w->threads], GUARD_SHARE, share_work_thread, w);

    if (r == 0)
        w->threads++;
    return r;
}

/* As with disks, the first thread starts with the share, and the others are started by these: a vCPU may start none. */
static void *share_work_thread(void *opaque)
{
    struct share_work *w = opaque;
    struct share_job *job;

    pthread_mutex_lock(&w->lock);
    while ((job = share_work_take(w))) {
        if (w->todo && !w->idle && w->threads < SHARE_THREADS)
            share_work_grow(w);
        pthread_mutex_unlock(&w->lock);
        job->run(job);
        pthread_mutex_lock(&w->lock);
        w->running--;
        job->next = NULL;
        *w->ready_tail = job;
        w->ready_tail = &job->next;
        if (!w->todo && !w->running)
            pthread_cond_broadcast(&w->finished);
        pthread_mutex_unlock(&w->lock);
        if (loop_trylock(w->loop)) {
            share_work_report(w);
            loop_unlock(w->loop);
        } else {
            share_work_ring(w);
        }
        pthread_mutex_lock(&w->lock);
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

int share_work_init(struct share_work *w, struct loop *loop, void (*batch_end)(void *opaque), void *opaque)
{
    int r;

    *w = (struct share_work){ .loop = loop, .batch_end = batch_end, .opaque = opaque };
    w->todo_tail = &w->todo;
    w->ready_tail = &w->ready;
    w->event.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (w->event.fd < 0)
        return -errno;
    w->event.fn = share_work_on_event;
    w->event.opaque = w;
    r = loop_add_fd(loop, &w->event, EPOLLIN);
    if (r < 0) {
        close(w->event.fd);
        w->event.fd = -1;
        return r;
    }
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->more, NULL);
    pthread_cond_init(&w->finished, NULL);
    r = share_work_grow(w);
    if (r < 0)
        share_work_fini(w);
    return r;
}

void share_work_submit(struct share_work *w, struct share_job *job)
{
    pthread_mutex_lock(&w->lock);
    job->next = NULL;
    *w->todo_tail = job;
    w->todo_tail = &job->next;
    pthread_cond_signal(&w->more);
    pthread_mutex_unlock(&w->lock);
}

/* True when nothing is under way or waits to be reported; waits for the former. */
static bool share_work_settle(struct share_work *w)
{
    bool settled;

    pthread_mutex_lock(&w->lock);
    while (w->todo || w->running)
        pthread_cond_wait(&w->finished, &w->lock);
    settled = !w->ready;
    pthread_mutex_unlock(&w->lock);
    return settled;
}

void share_work_drain(struct share_work *w)
{
    while (!share_work_settle(w))
        share_work_report(w);
}

void share_work_fini(struct share_work *w)
{
    if (w->event.fd < 0)
        return;
    share_work_drain(w);
    pthread_mutex_lock(&w->lock);
    w->quit = true;
    pthread_cond_broadcast(&w->more);
    pthread_mutex_unlock(&w->lock);
    for (unsigned i = 0; i < w->threads; i++)
        pthread_join(w->thread[i], NULL);
    loop_del_fd(w->loop, &w->event);
    close(w->event.fd);
    w->event.fd = -1;
    pthread_mutex_destroy(&w->lock);
    pthread_cond_destroy(&w->more);
    pthread_cond_destroy(&w->finished);
}
