/* The event loop: file descriptors and timers of one machine, and the machine's device lock.
 *
 * One thread runs loop_run(). Every callback runs on that thread with the device lock held, so a
 * device's state is only ever touched under the lock: by callbacks, and by vCPU threads through
 * the bus, which takes the lock around each access. The lock is not recursive. Devices never take
 * it themselves.
 *
 * Lock order: device lock, then nothing else (leaf locks of log and ram only).
 */
#ifndef VITRO_BASE_LOOP_H
#define VITRO_BASE_LOOP_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/clock.h"

struct epoll_event;
struct loop;

/* A one-shot timer on guest time. Embed it, timer_init() it once. All calls need the device lock. */
struct timer {
    struct loop *loop;
    void (*fn)(void *opaque);
    void *opaque;
    uint64_t deadline; /* guest ns; meaningful while armed */
    size_t slot;       /* heap position + 1; 0 when not armed */
};

/* A watched file descriptor. Embed it. */
struct loop_fd {
    int fd;
    void (*fn)(void *opaque, uint32_t events); /* events: EPOLLIN, EPOLLOUT, EPOLLHUP ... */
    void *opaque;
};

/* Something to be done with the device lock held, see loop_post(). Embed it, all zeroes but for fn and opaque. */
struct loop_work {
    void (*fn)(void *opaque);
    void *opaque;
    _Atomic bool posted; /* this and the rest is the loop's own */
    struct loop_work *next, *kept;
};

struct loop {
    struct clock *clock;
    pthread_mutex_t lock; /* the device lock */
    uint64_t after;       /* loop_after() was called for these */
    void (*after_fn)(void *opaque, unsigned n);
    void *after_opaque;
    _Atomic(struct loop_work *) posted;
    int epfd, wakefd;
    struct timer **heap;
    size_t heap_len, heap_cap;
    uint64_t armed_until; /* the earliest deadline that the sleeping thread knows of, or was kicked for; 0: awake */
    uint64_t soon;        /* the last deadline that it was kicked for */
    bool stop;
    struct epoll_event *batch; /* the ready descriptors that are being called */
    int batch_len;
};

/* Returns 0 or -errno. clock is borrowed for the life of the loop. */
int loop_init(struct loop *l, struct clock *clock);
void loop_fini(struct loop *l);

/* Run until loop_stop(). Returns 0 or -errno. */
int loop_run(struct loop *l);
/* Run due timers and ready descriptors once, waiting at most timeout_ms (-1: until something
 * happens). For tests with a manual clock call with 0. The lock must not be held. */
int loop_step(struct loop *l, int timeout_ms);
/* Make loop_run() return; any thread, also from a callback. */
void loop_stop(struct loop *l);
/* Make a waiting loop look at the clock and its timers again; any thread, with or without the lock.
 * Call it after clock_start(), clock_set_ns() or clock_advance(): the loop cannot see those. */
void loop_kick(struct loop *l);

void loop_lock(struct loop *l);
/* True if the lock was free and now is ours. */
bool loop_trylock(struct loop *l);
/* Also does what was posted meanwhile. */
void loop_unlock(struct loop *l);

/* For threads that must not, or would rather not, wait for the lock: w->fn(w->opaque) is called once with the lock held, now if it is free, else
 * by the thread that holds it, before or right after it lets go; whatever thread that is, so fn makes no system calls that only some kinds of
 * thread may. No thread is woken for it. Any thread, lock held or not; while it has not begun, posting again is nothing. */
void loop_post(struct loop *l, struct loop_work *w);
/* It will not be called any more. Lock held, and nobody posts it. */
void loop_unpost(struct loop *l, struct loop_work *w);

/* For what is better done when the lock is free again, like waking a thread that will want it first: fn(opaque, n) is called by the
 * loop_unlock() that comes next, without the lock, once for each n (below 64) that loop_after() was called with. */
void loop_set_after(struct loop *l, void (*fn)(void *opaque, unsigned n), void *opaque); /* before others know the loop */
void loop_after(struct loop *l, unsigned n);                                            /* device lock held */

/* Start and stop watching; device lock held once the loop runs. events is an EPOLL* mask (level-triggered).
 * 0 or -errno; -EPERM: the descriptor is a regular file, which is always ready and cannot be watched.
 * A callback that sees EPOLLHUP or EPOLLERR must stop watching, else it is called without end.
 * Unwatch before closing the descriptor; after loop_del_fd() the struct may be freed at once. */
int loop_add_fd(struct loop *l, struct loop_fd *w, uint32_t events);
int loop_mod_fd(struct loop *l, struct loop_fd *w, uint32_t events);
void loop_del_fd(struct loop *l, struct loop_fd *w);

void timer_init(struct timer *t, struct loop *l, void (*fn)(void *opaque), void *opaque);
/* Fire once when guest time reaches deadline_ns (at once if it has passed). Re-arms if armed. */
void timer_arm(struct timer *t, uint64_t deadline_ns);
void timer_cancel(struct timer *t);
static inline bool timer_armed(const struct timer *t) { return t->slot != 0; }
/* Guest time now, the time base of timer_arm(). */
uint64_t timer_now(const struct timer *t);

#endif
