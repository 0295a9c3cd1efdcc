/* The I/O threads of one share: they run jobs, and report them with the device lock held.
 *
 * A job's result goes to the guest from the I/O thread itself if the device lock happens to be free, which saves
 * a wake-up of the loop's thread; else from the loop.
 */
#ifndef VITRO_SHARE_WORK_H
#define VITRO_SHARE_WORK_H

#include <pthread.h>
#include <stdbool.h>

#include "base/loop.h"

#define SHARE_THREADS 4

/* Embed it. It belongs to the threads from share_work_submit() until done is called. */
struct share_job {
    void (*run)(struct share_job *job);  /* on an I/O thread, no lock held; may block */
    void (*done)(struct share_job *job); /* device lock held, any thread; may free the job and submit others */
    struct share_job *next;
};

struct share_work {
    struct loop *loop;
    void (*batch_end)(void *opaque); /* after a batch of done calls, device lock held */
    void *opaque;
    struct loop_fd event;
    pthread_mutex_t lock; /* a leaf; guards what follows */
    pthread_cond_t more, finished;
    struct share_job *todo, **todo_tail;
    struct share_job *ready, **ready_tail;
    unsigned threads, idle, running;
    bool quit;
    pthread_t thread[SHARE_THREADS];
};

/* Starts the first thread; others follow when there is work for them. 0 or -errno. */
int share_work_init(struct share_work *w, struct loop *loop, void (*batch_end)(void *opaque), void *opaque);
/* Waits for all jobs (done is called), then ends the threads. Device lock held, as for the two below. */
void share_work_fini(struct share_work *w);
void share_work_submit(struct share_work *w, struct share_job *job);
/* Wait until all jobs have been reported. */
void share_work_drain(struct share_work *w);

#endif
