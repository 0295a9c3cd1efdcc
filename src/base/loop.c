/* The event loop of one machine: epoll for descriptors, a heap of timers on guest time.
 *
 * One thread runs loop_run() or loop_step(). It holds the device lock while callbacks run and
 * never while it waits. Waiting is ppoll(2) on the epoll descriptor, which takes nanoseconds on
 * every kernel; a second thread that arms an earlier timer wakes it through an eventfd.
 *
 * While the clock is stopped no timer fires and the wait has no deadline; whoever starts or sets
 * the clock calls loop_kick().
 */
#include "base/loop.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/timer_heap.h"

#define LOOP_BATCH 64 /* descriptors of one look; posted work of one unlock */
/* Room from the start, so that arming a timer does not depend on memory in practice. */
#define LOOP_TIMERS 256
/* Callbacks of one pass beyond one for each timer: the work budget of timers that re-arm in the past. */
#define LOOP_EXTRA   16
#define LOOP_FOREVER UINT64_MAX

static int loop_open_fds(struct loop *l)
{
    struct epoll_event ev = { .events = EPOLLIN, .data.ptr = NULL }; /* NULL: our own wakefd */

    l->epfd = epoll_create1(EPOLL_CLOEXEC);
    if (l->epfd < 0)
        return -errno;
    l->wakefd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (l->wakefd < 0)
        return -errno;
    if (epoll_ctl(l->epfd, EPOLL_CTL_ADD, l->wakefd, &ev) < 0)
        return -errno;
    return 0;
}

int loop_init(struct loop *l, struct clock *clock)
{
    int r;

    memset(l, 0, sizeof(*l));
    l->clock = clock;
    l->epfd = l->wakefd = -1;
    pthread_mutex_init(&l->lock, NULL);
    r = timer_heap_reserve(l, LOOP_TIMERS);
    if (r == 0)
        r = loop_open_fds(l);
    if (r < 0)
        loop_fini(l);
    return r;
}

void loop_fini(struct loop *l)
{
    if (l->epfd >= 0)
        close(l->epfd);
    if (l->wakefd >= 0)
        close(l->wakefd);
    free(l->heap);
    l->heap = NULL;
    l->heap_len = l->heap_cap = 0;
    l->epfd = l->wakefd = -1;
    pthread_mutex_destroy(&l->lock);
}

void loop_lock(struct loop *l) { pthread_mutex_lock(&l->lock); }

bool loop_trylock(struct loop *l) { return pthread_mutex_trylock(&l->lock) == 0; }

void loop_set_after(struct loop *l, void (*fn)(void *opaque, unsigned n), void *opaque)
{
    l->after_fn = fn;
    l->after_opaque = opaque;
}

void loop_after(struct loop *l, unsigned n) { l->after |= BIT(n); }

static void loop_let_go(struct loop *l)
{
    uint64_t after = l->after;

    l->after = 0;
    pthread_mutex_unlock(&l->lock);
    for (; after; after &= after - 1)
        l->after_fn(l->after_opaque, (unsigned)__builtin_ctzll(after));
}

/* The list has many writers, and one reader: who holds the lock. */
static void loop_push(struct loop *l, struct loop_work *w)
{
    if (atomic_exchange(&w->posted, true))
        return; /* not begun yet */
    w->next = atomic_load(&l->posted);
    while (!atomic_compare_exchange_weak(&l->posted, &w->next, w))
        ;
}

static struct loop_work *loop_pop(struct loop *l)
{
    struct loop_work *w = atomic_load(&l->posted);

    while (w && !atomic_compare_exchange_weak(&l->posted, &w, w->next))
        ;
    if (w)
        atomic_store(&w->posted, false);
    return w;
}

void loop_unlock(struct loop *l)
{
    unsigned budget = LOOP_BATCH;
    struct loop_work *w;

    do {
        for (; budget && (w = loop_pop(l)); budget--)
            w->fn(w->opaque);
        loop_let_go(l);
        atomic_thread_fence(memory_order_seq_cst); /* who posted and found the lock taken is seen here */
    } while (budget && atomic_load(&l->posted) && loop_trylock(l));
    if (!budget)
        loop_kick(l);
}

void loop_post(struct loop *l, struct loop_work *w)
{
    loop_push(l, w);
    if (loop_trylock(l))
        loop_unlock(l);
}

void loop_unpost(struct loop *l, struct loop_work *w)
{
    struct loop_work *others = NULL, *other;

    while ((other = loop_pop(l))) {
        other->kept = others;
        others = other != w ? other : others;
    }
    for (; others; others = others->kept)
        loop_push(l, others);
}

void loop_kick(struct loop *l)
{
    uint64_t one = 1;
    ssize_t r;

    /* EAGAIN means that a wake-up is pending already, which is all that is wanted. */
    do {
        r = write(l->wakefd, &one, sizeof(one));
    } while (r < 0 && errno == EINTR);
}

static void loop_drain(struct loop *l)
{
    uint64_t count;
    ssize_t r;

    do {
        r = read(l->wakefd, &count, sizeof(count));
    } while (r < 0 && errno == EINTR);
}

void loop_stop(struct loop *l)
{
    __atomic_store_n(&l->stop, true, __ATOMIC_RELEASE);
    loop_kick(l);
}

/* How long the thread may sleep; notes in armed_until which timers it would miss. A deadline for which it was kicked counts until it has passed, even
 * if the timer has moved: guests that rest now and then stop their tick and start it again each time, and would kick each time. Lock held. */
static uint64_t loop_plan(struct loop *l, int timeout_ms)
{
    uint64_t wait = timeout_ms < 0 ? LOOP_FOREVER : (uint64_t)timeout_ms * 1000000;
    uint64_t now, first = LOOP_FOREVER;

    if (clock_stopped(l->clock))
        return wait;
    now = clock_ns(l->clock);
    if (l->heap_len > 0)
        first = l->heap[0]->deadline;
    if (first <= now)
        return 0;
    if (l->soon > now && l->soon < first)
        first = l->soon;
    l->armed_until = first;
    return first - now < wait ? first - now : wait;
}

/* Sleep without the lock. 0, also when nothing happened or a signal came; or -errno. */
static int loop_wait(struct loop *l, uint64_t ns)
{
    struct pollfd p = { .fd = l->epfd, .events = POLLIN };
    struct timespec ts = { .tv_sec = (time_t)(ns / NSEC_PER_SEC), .tv_nsec = (long)(ns % NSEC_PER_SEC) };

    if (ns == 0)
        return 0;
    if (ppoll(&p, 1, ns == LOOP_FOREVER ? NULL : &ts, NULL) < 0 && errno != EINTR)
        return -errno;
    return 0;
}

/* Call what is ready now, each once. Lock held; a callback may unwatch any descriptor. */
static int loop_run_fds(struct loop *l)
{
    struct epoll_event ev[LOOP_BATCH];
    int i, n;

    n = epoll_wait(l->epfd, ev, LOOP_BATCH, 0);
    if (n < 0)
        return errno == EINTR ? 0 : -errno;
    l->batch = ev;
    l->batch_len = n;
    for (i = 0; i < n; i++) {
        struct loop_fd *w = ev[i].data.ptr;

        if (w)
            w->fn(w->opaque, ev[i].events);
        else if (ev[i].events)
            loop_drain(l);
    }
    l->batch = NULL;
    l->batch_len = 0;
    return 0;
}

/* Fire what is due. Lock held. A timer that always re-arms in the past cannot hold the lock for
 * ever: the pass ends after a bounded number of callbacks. */
static bool loop_run_timers(struct loop *l)
{
    size_t budget = l->heap_len + LOOP_EXTRA;
    uint64_t now;
    struct timer *t;

    if (clock_stopped(l->clock))
        return false;
    now = clock_ns(l->clock);
    while (budget-- > 0 && (t = timer_heap_pop(l, now))) {
        t->fn(t->opaque);
        if (clock_stopped(l->clock))
            return false; /* the callback paused the machine */
    }
    return l->heap_len > 0 && l->heap[0]->deadline <= now;
}

int loop_step(struct loop *l, int timeout_ms)
{
    uint64_t ns;
    bool more;
    int r;

    loop_lock(l);
    ns = loop_plan(l, timeout_ms);
    loop_unlock(l);
    r = loop_wait(l, ns);
    loop_lock(l);
    l->armed_until = 0; /* awake: nobody needs to wake us */
    if (r == 0)
        r = loop_run_fds(l);
    more = loop_run_timers(l);
    loop_unlock(l);
    if (more)
        sched_yield(); /* let a vCPU have the lock; mutexes are not fair */
    return r;
}

int loop_run(struct loop *l)
{
    int r = 0;

    /* The default slack of 50 us is a jitter that guests can see in their timers. */
    prctl(PR_SET_TIMERSLACK, 1UL, 0UL, 0UL, 0UL);
    while (r == 0 && !__atomic_exchange_n(&l->stop, false, __ATOMIC_ACQ_REL))
        r = loop_step(l, -1);
    return r;
}

static int loop_ctl(struct loop *l, int op, struct loop_fd *w, uint32_t events)
{
    struct epoll_event ev = { .events = events, .data.ptr = w };

    return epoll_ctl(l->epfd, op, w->fd, &ev) < 0 ? -errno : 0;
}

int loop_add_fd(struct loop *l, struct loop_fd *w, uint32_t events)
{
    return loop_ctl(l, EPOLL_CTL_ADD, w, events);
}

int loop_mod_fd(struct loop *l, struct loop_fd *w, uint32_t events)
{
    return loop_ctl(l, EPOLL_CTL_MOD, w, events);
}

void loop_del_fd(struct loop *l, struct loop_fd *w)
{
    int i;

    loop_ctl(l, EPOLL_CTL_DEL, w, 0);
    /* It may be ready in the batch that is being called: forget it there, w may be freed next. */
    for (i = 0; i < l->batch_len; i++) {
        if (l->batch[i].data.ptr == w)
            l->batch[i] = (struct epoll_event){ .events = 0 };
    }
}
