/* A few threads that do what may block, and report it with the device lock held.
 *
 * A job's result goes to the guest from the thread itself if the device lock happens to be free; else from the thread that holds it
 * (loop_post()). A thread never waits for that lock, so that pool_drain() may wait for the threads while
 * it is held. Jobs are started in the order in which they came, those that run alone among themselves, and may finish in any.
 */
#ifndef VITRO_BASE_POOL_H
#define VITRO_BASE_POOL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/guard.h"
#include "base/loop.h"

#define POOL_THREADS 4

/* Embed it. It belongs to the pool from pool_submit() or pool_begin() until done is called. */
struct pool_job {
    /* On a thread of the pool, no lock held; may block. scratch is the thread's own, NULL if there was no memory for it. False:
     * somebody else goes on with the job and calls pool_end() or pool_again(). */
    bool (*run)(struct pool_job *job, void *scratch);
    /* Device lock held; on any thread. May free the job and submit others. */
    void (*done)(struct pool_job *job);
    bool alone; /* no two such jobs run at a time */
    struct pool_job *next; /* the pool's own */
};

struct pool {
    struct loop *loop;
    enum guard_kind kind;
    size_t scratch;
    void (*batch_end)(void *opaque); /* after a batch of done calls, device lock held; may be NULL */
    void *opaque;
    struct loop_work report;
    pthread_mutex_t lock; /* a leaf; guards what follows */
    pthread_cond_t finished;
    _Atomic uint32_t bell; /* what idle threads sleep on */
    struct pool_job *todo, **todo_tail;
    struct pool_job *ready, **ready_tail;
    unsigned threads, idle, running;
    unsigned alone; /* jobs of that kind, waiting or running */
    bool alone_runs;
    bool quit;
    pthread_t thread[POOL_THREADS];
};

/* Starts the first thread; others follow when there is work for them. Each is inside the fence of kind and has scratch bytes,
 * a multiple of 4096, aligned so, or none. loop is borrowed. 0 or -errno. Device lock held, as for the calls below. */
int pool_init(struct pool *p, struct loop *loop, enum guard_kind kind, size_t scratch, void (*batch_end)(void *opaque),
              void *opaque);
/* Waits for all jobs (done is called), then ends the threads. */
void pool_fini(struct pool *p);
/* Start a job. Never waits for one. */
void pool_submit(struct pool *p, struct pool_job *job);
/* Wait until all jobs have been reported. */
void pool_drain(struct pool *p);

/* For jobs that others do. Any thread, device lock held or not. */
/* One that is not submitted begins, and pool_end() will be called. */
void pool_begin(struct pool *p);
/* It is done. No lock of the caller's held that done takes. */
void pool_end(struct pool *p, struct pool_job *job);
/* It is for a thread of the pool after all. */
void pool_again(struct pool *p, struct pool_job *job);

#endif
