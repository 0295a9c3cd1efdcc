/* The event loop: timers on a manual and on the host's clock, descriptors, wake-ups, the lock. */
#include "test.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/loop.h"
#include "base/rand.h"

#define MS 1000000ULL

struct fixture {
    struct clock clock;
    struct loop loop;
};

static void fixture_init(struct fixture *f)
{
    clock_init_manual(&f->clock, 0);
    assert_int_equal(loop_init(&f->loop, &f->clock), 0);
}

static void fixture_fini(struct fixture *f) { loop_fini(&f->loop); }

/* A timer that records when it fired. */
struct probe {
    struct timer timer;
    unsigned fired;
    uint64_t at;
    uint64_t rearm; /* add this to the deadline and go on; 0: once */
    struct timer *cancel;
};

static void probe_fire(void *opaque)
{
    struct probe *p = opaque;

    p->fired++;
    p->at = timer_now(&p->timer);
    assert_false(timer_armed(&p->timer));
    if (p->cancel)
        timer_cancel(p->cancel);
    if (p->rearm)
        timer_arm(&p->timer, p->timer.deadline + p->rearm);
}

static void probe_init(struct probe *p, struct fixture *f)
{
    *p = (struct probe){ .fired = 0 };
    timer_init(&p->timer, &f->loop, probe_fire, p);
}

static void arm(struct probe *p, uint64_t deadline)
{
    loop_lock(p->timer.loop);
    timer_arm(&p->timer, deadline);
    loop_unlock(p->timer.loop);
}

/* Move time and run what is due. */
static void advance(struct fixture *f, uint64_t ns)
{
    clock_advance(&f->clock, ns);
    assert_int_equal(loop_step(&f->loop, 0), 0);
}

static void timer_fires_once_when_due(void **state)
{
    struct fixture f;
    struct probe p;

    fixture_init(&f);
    probe_init(&p, &f);
    arm(&p, 100);
    assert_true(timer_armed(&p.timer));
    advance(&f, 99);
    assert_int_equal(p.fired, 0);
    advance(&f, 1);
    assert_int_equal(p.fired, 1);
    advance(&f, 1000);
    assert_int_equal(p.fired, 1);
    arm(&p, 5); /* in the past: at once */
    advance(&f, 0);
    assert_int_equal(p.fired, 2);
    fixture_fini(&f);
}

static void timer_moves_and_cancels(void **state)
{
    struct fixture f;
    struct probe p;

    fixture_init(&f);
    probe_init(&p, &f);
    arm(&p, 100);
    arm(&p, 50);
    assert_int_equal(f.loop.heap_len, 1);
    advance(&f, 50);
    assert_int_equal(p.fired, 1);
    arm(&p, 60);
    arm(&p, 200);
    advance(&f, 100);
    assert_int_equal(p.fired, 1);
    loop_lock(&f.loop);
    timer_cancel(&p.timer);
    timer_cancel(&p.timer);
    loop_unlock(&f.loop);
    assert_false(timer_armed(&p.timer));
    advance(&f, 1000);
    assert_int_equal(p.fired, 1);
    fixture_fini(&f);
}

static void periodic_timer_catches_up(void **state)
{
    struct fixture f;
    struct probe p;

    fixture_init(&f);
    probe_init(&p, &f);
    p.rearm = 10;
    arm(&p, 10);
    advance(&f, 95); /* nine periods late: every one fires, in this pass */
    assert_int_equal(p.fired, 9);
    assert_int_equal(p.timer.deadline, 100);
    fixture_fini(&f);
}

/* A timer that always re-arms in the past must not hold the lock for ever. */
static void storm_ends_each_step(void **state)
{
    struct fixture f;
    struct probe p, other;

    fixture_init(&f);
    probe_init(&p, &f);
    probe_init(&other, &f);
    clock_advance(&f.clock, 1000000);
    p.rearm = 1;
    arm(&p, 1);
    arm(&other, 900000);
    advance(&f, 0);
    assert_in_range(p.fired, 1, 100);
    advance(&f, 0);
    assert_in_range(p.fired, 2, 200);
    fixture_fini(&f);
}

static void callback_cancels_another(void **state)
{
    struct fixture f;
    struct probe a, b;

    fixture_init(&f);
    probe_init(&a, &f);
    probe_init(&b, &f);
    a.cancel = &b.timer;
    arm(&a, 10);
    arm(&b, 11); /* also due in that pass */
    advance(&f, 20);
    assert_int_equal(a.fired, 1);
    assert_int_equal(b.fired, 0);
    fixture_fini(&f);
}

#define MANY 3000

static int heap_is_sound(const struct loop *l)
{
    size_t i;

    for (i = 0; i < l->heap_len; i++) {
        if (l->heap[i]->slot != i + 1)
            return 0;
        if (i > 0 && l->heap[(i - 1) / 2]->deadline > l->heap[i]->deadline)
            return 0;
    }
    return 1;
}

/* Against a model: an array of deadlines that is scanned. */
static void many_timers_match_a_model(void **state)
{
    static struct probe p[MANY];
    static uint64_t due[MANY]; /* 0: not armed */
    static unsigned want[MANY];
    struct rand_source r;
    struct fixture f;
    unsigned round, i;
    uint64_t now = 0;

    fixture_init(&f);
    rand_init_seeded(&r, 7);
    for (i = 0; i < MANY; i++)
        probe_init(&p[i], &f);
    for (round = 0; round < 200; round++) {
        for (i = 0; i < MANY; i++) {
            uint64_t what = rand_below(&r, 8);

            if (what == 0) {
                due[i] = now + 1 + rand_below(&r, 500);
                arm(&p[i], due[i]);
            } else if (what == 1) {
                due[i] = 0;
                loop_lock(&f.loop);
                timer_cancel(&p[i].timer);
                loop_unlock(&f.loop);
            }
        }
        assert_true(heap_is_sound(&f.loop));
        now += 1 + rand_below(&r, 100);
        clock_advance(&f.clock, now - clock_ns(&f.clock));
        loop_step(&f.loop, 0);
        for (i = 0; i < MANY; i++) {
            if (due[i] && due[i] <= now) {
                want[i]++;
                due[i] = 0;
            }
            assert_int_equal(p[i].fired, want[i]);
            assert_int_equal(timer_armed(&p[i].timer), due[i] != 0);
        }
    }
    fixture_fini(&f);
}

static uint64_t order_last;

static void order_fire(void *opaque)
{
    struct timer *t = opaque;

    assert_true(t->deadline >= order_last);
    order_last = t->deadline;
}

static void timers_fire_in_order(void **state)
{
    static struct timer t[500];
    struct rand_source r;
    struct fixture f;
    unsigned i;

    fixture_init(&f);
    rand_init_seeded(&r, 3);
    order_last = 0;
    loop_lock(&f.loop);
    for (i = 0; i < ARRAY_LEN(t); i++) {
        timer_init(&t[i], &f.loop, order_fire, &t[i]);
        timer_arm(&t[i], 1 + rand_below(&r, 1000));
    }
    loop_unlock(&f.loop);
    advance(&f, 2000);
    assert_int_equal(f.loop.heap_len, 0);
    assert_in_range(order_last, 900, 1000);
    fixture_fini(&f);
}

static void stopped_clock_fires_nothing(void **state)
{
    struct fixture f;
    struct probe p;

    fixture_init(&f);
    probe_init(&p, &f);
    arm(&p, 100);
    clock_stop(&f.clock);
    advance(&f, 1000);
    assert_int_equal(p.fired, 0);
    arm(&p, 0); /* even one that is in the past */
    advance(&f, 0);
    assert_int_equal(p.fired, 0);
    clock_start(&f.clock);
    advance(&f, 0);
    assert_int_equal(p.fired, 1);
    fixture_fini(&f);
}

/* A callback that pauses the machine: timers due in the same pass wait for the resume. */
static void stop_fire(void *opaque) { clock_stop(opaque); }

static void callback_stops_clock(void **state)
{
    struct timer stopper;
    struct fixture f;
    struct probe p;

    fixture_init(&f);
    probe_init(&p, &f);
    timer_init(&stopper, &f.loop, stop_fire, &f.clock);
    arm(&p, 11);
    loop_lock(&f.loop);
    timer_arm(&stopper, 10);
    loop_unlock(&f.loop);
    advance(&f, 20);
    assert_int_equal(p.fired, 0);
    clock_start(&f.clock);
    advance(&f, 0);
    assert_int_equal(p.fired, 1);
    fixture_fini(&f);
}

struct pipe_probe {
    struct loop_fd w;
    struct loop *loop;
    int peer;
    unsigned calls;
    uint32_t events;
    struct loop_fd *unwatch;
};

static void pipe_ready(void *opaque, uint32_t events)
{
    struct pipe_probe *p = opaque;

    p->calls++;
    p->events = events;
    /* The device lock is held here: taking it again must be impossible. */
    assert_int_equal(pthread_mutex_trylock(&p->loop->lock), EBUSY);
    if (p->unwatch)
        loop_del_fd(p->loop, p->unwatch);
}

static void pipe_probe_init(struct pipe_probe *p, struct fixture *f)
{
    int fd[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd), 0);
    *p = (struct pipe_probe){ .loop = &f->loop, .peer = fd[1] };
    p->w = (struct loop_fd){ .fd = fd[0], .fn = pipe_ready, .opaque = p };
    assert_int_equal(loop_add_fd(&f->loop, &p->w, EPOLLIN), 0);
}

static void pipe_probe_fini(struct pipe_probe *p)
{
    loop_del_fd(p->loop, &p->w);
    close(p->w.fd);
    close(p->peer);
}

static void fd_is_called_while_ready(void **state)
{
    struct pipe_probe p;
    struct fixture f;
    char c;

    fixture_init(&f);
    pipe_probe_init(&p, &f);
    loop_step(&f.loop, 0);
    assert_int_equal(p.calls, 0);
    assert_int_equal(write(p.peer, "x", 1), 1);
    loop_step(&f.loop, -1);
    loop_step(&f.loop, -1); /* level-triggered: not read, so again */
    assert_int_equal(p.calls, 2);
    assert_true(p.events & EPOLLIN);
    assert_int_equal(read(p.w.fd, &c, 1), 1);
    loop_step(&f.loop, 0);
    assert_int_equal(p.calls, 2);
    assert_int_equal(loop_mod_fd(&f.loop, &p.w, EPOLLOUT), 0);
    loop_step(&f.loop, -1);
    assert_int_equal(p.calls, 3);
    assert_true(p.events & EPOLLOUT);
    loop_del_fd(&f.loop, &p.w);
    loop_step(&f.loop, 0);
    assert_int_equal(p.calls, 3);
    pipe_probe_fini(&p);
    fixture_fini(&f);
}

/* Two descriptors are ready at once; each one's callback unwatches the other, so just one is called. */
static void unwatched_in_the_same_batch(void **state)
{
    struct pipe_probe a, b;
    struct fixture f;

    fixture_init(&f);
    pipe_probe_init(&a, &f);
    pipe_probe_init(&b, &f);
    a.unwatch = &b.w;
    b.unwatch = &a.w;
    assert_int_equal(write(a.peer, "x", 1), 1);
    assert_int_equal(write(b.peer, "x", 1), 1);
    loop_step(&f.loop, -1);
    assert_int_equal(a.calls + b.calls, 1);
    pipe_probe_fini(&a);
    pipe_probe_fini(&b);
    fixture_fini(&f);
}

static void regular_file_is_refused(void **state)
{
    struct loop_fd w = { .fn = pipe_ready };
    struct fixture f;
    FILE *file = tmpfile();

    assert_non_null(file);
    fixture_init(&f);
    w.fd = fileno(file);
    assert_int_equal(loop_add_fd(&f.loop, &w, EPOLLIN), -EPERM);
    w.fd = -1;
    assert_int_equal(loop_add_fd(&f.loop, &w, EPOLLIN), -EBADF);
    fclose(file);
    fixture_fini(&f);
}

static void step_times_out(void **state)
{
    struct clock host;
    struct fixture f;

    fixture_init(&f);
    clock_init_host(&host);
    assert_int_equal(loop_step(&f.loop, 30), 0);
    assert_in_range(clock_ns(&host), 29 * MS, 5000 * MS);
    fixture_fini(&f);
}

/* With the loop on its own thread and the host's clock. */
struct runner {
    struct clock clock;
    struct loop loop;
    pthread_t thread;
    int result;
};

static void *runner_main(void *opaque)
{
    struct runner *r = opaque;

    r->result = loop_run(&r->loop);
    return NULL;
}

static void runner_start(struct runner *r)
{
    clock_init_host(&r->clock);
    assert_int_equal(loop_init(&r->loop, &r->clock), 0);
    assert_int_equal(pthread_create(&r->thread, NULL, runner_main, r), 0);
}

static void runner_stop(struct runner *r)
{
    loop_stop(&r->loop);
    pthread_join(r->thread, NULL);
    assert_int_equal(r->result, 0);
    loop_fini(&r->loop);
}

struct host_probe {
    struct timer timer;
    unsigned fired;
    uint64_t late;
};

static void host_fire(void *opaque)
{
    struct host_probe *p = opaque;

    p->late = timer_now(&p->timer) - p->timer.deadline;
    p->fired++;
}

static unsigned host_fired(struct host_probe *p)
{
    unsigned n;

    loop_lock(p->timer.loop);
    n = p->fired;
    loop_unlock(p->timer.loop);
    return n;
}

/* Wait until it has fired n times, for ten seconds at most. */
static void host_expect(struct host_probe *p, unsigned n)
{
    int i;

    for (i = 0; i < 10000 && host_fired(p) < n; i++)
        usleep(1000);
    assert_int_equal(host_fired(p), n);
}

static void host_arm(struct host_probe *p, uint64_t in_ns)
{
    loop_lock(p->timer.loop);
    timer_arm(&p->timer, timer_now(&p->timer) + in_ns);
    loop_unlock(p->timer.loop);
}

/* Arming from another thread an earlier timer than the one that is slept for. */
static void earlier_timer_wakes_the_loop(void **state)
{
    struct host_probe far = { .fired = 0 }, near = { .fired = 0 };
    struct runner r;
    int i;

    runner_start(&r);
    timer_init(&far.timer, &r.loop, host_fire, &far);
    timer_init(&near.timer, &r.loop, host_fire, &near);
    host_arm(&far, 3600 * NSEC_PER_SEC);
    usleep(20000); /* asleep by now */
    for (i = 1; i <= 20; i++) {
        host_arm(&near, 2 * MS);
        host_expect(&near, (unsigned)i);
    }
    assert_int_equal(host_fired(&far), 0);
    runner_stop(&r);
}

/* A timer that goes to and fro, as a guest's tick does around each rest: the thread is woken once for its early deadline, not each time. */
static _Atomic unsigned steps;

static void *count_steps(void *opaque)
{
    struct runner *r = opaque;

    while (!__atomic_load_n(&r->loop.stop, __ATOMIC_ACQUIRE)) {
        loop_step(&r->loop, -1);
        steps++;
    }
    return NULL;
}

static void moving_timer_wakes_once(void **state)
{
    struct host_probe tick = { .fired = 0 };
    struct runner r;
    uint64_t early;

    clock_init_host(&r.clock);
    assert_int_equal(loop_init(&r.loop, &r.clock), 0);
    timer_init(&tick.timer, &r.loop, host_fire, &tick);
    host_arm(&tick, 3600 * NSEC_PER_SEC);
    steps = 0;
    assert_int_equal(pthread_create(&r.thread, NULL, count_steps, &r), 0);
    early = timer_now(&tick.timer) + 60 * NSEC_PER_SEC;
    for (int i = 0; i < 100; i++) {
        usleep(2000); /* asleep by now */
        loop_lock(&r.loop);
        timer_arm(&tick.timer, early);
        timer_arm(&tick.timer, 3600 * NSEC_PER_SEC);
        loop_unlock(&r.loop);
    }
    assert_in_range(steps, 0, 10);
    host_arm(&tick, 2 * MS); /* and earlier ones do wake it */
    host_expect(&tick, 1);
    loop_stop(&r.loop);
    pthread_join(r.thread, NULL);
    loop_fini(&r.loop);
}

static void paused_loop_wakes_on_kick(void **state)
{
    struct host_probe p = { .fired = 0 };
    struct runner r;

    runner_start(&r);
    timer_init(&p.timer, &r.loop, host_fire, &p);
    loop_lock(&r.loop);
    clock_stop(&r.clock);
    timer_arm(&p.timer, timer_now(&p.timer) + MS);
    loop_unlock(&r.loop);
    usleep(30000);
    assert_int_equal(host_fired(&p), 0);
    loop_lock(&r.loop);
    clock_start(&r.clock);
    loop_kick(&r.loop);
    loop_unlock(&r.loop);
    host_expect(&p, 1);
    runner_stop(&r);
}

static void timers_are_not_early_and_rarely_late(void **state)
{
    struct host_probe p = { .fired = 0 };
    unsigned i, late = 0;
    struct runner r;

    runner_start(&r);
    timer_init(&p.timer, &r.loop, host_fire, &p);
    for (i = 1; i <= 50; i++) {
        host_arm(&p, 1500000 + i * 1000);
        host_expect(&p, i);
        assert_true((int64_t)p.late >= 0);
        late += p.late > 5 * MS; /* on a loaded host some are */
    }
    assert_true(late < 25);
    runner_stop(&r);
}

static void stop_before_run_returns_at_once(void **state)
{
    struct fixture f;

    fixture_init(&f);
    loop_stop(&f.loop);
    assert_int_equal(loop_run(&f.loop), 0);
    fixture_fini(&f);
}

/* The lock is free while the loop waits: another thread gets it at once. */
static void lock_is_free_while_waiting(void **state)
{
    struct runner r;
    int i, got = 0;

    runner_start(&r);
    for (i = 0; i < 1000 && !got; i++) {
        usleep(1000);
        got = pthread_mutex_trylock(&r.loop.lock) == 0;
    }
    assert_true(got);
    loop_unlock(&r.loop);
    runner_stop(&r);
}

/* Several threads arm, move and cancel while the loop runs; the heap stays sound. */
struct hammer {
    struct runner *r;
    uint64_t seed;
    struct host_probe p[16];
};

static void *hammer_main(void *opaque)
{
    struct hammer *h = opaque;
    struct rand_source rnd;
    unsigned i;

    rand_init_seeded(&rnd, h->seed);
    for (i = 0; i < 4000; i++) {
        struct host_probe *p = &h->p[rand_below(&rnd, ARRAY_LEN(h->p))];

        if (rand_below(&rnd, 4) > 0) {
            host_arm(p, rand_below(&rnd, 300000));
            continue;
        }
        loop_lock(&h->r->loop);
        timer_cancel(&p->timer);
        loop_unlock(&h->r->loop);
    }
    return NULL;
}

static size_t armed_timers(struct loop *l)
{
    size_t n;

    loop_lock(l);
    n = l->heap_len;
    loop_unlock(l);
    return n;
}

static void threads_hammer_timers(void **state)
{
    static struct hammer h[3];
    pthread_t t[ARRAY_LEN(h)];
    struct runner r;
    unsigned i, k;

    runner_start(&r);
    for (i = 0; i < ARRAY_LEN(h); i++) {
        h[i] = (struct hammer){ .r = &r, .seed = i };
        for (k = 0; k < ARRAY_LEN(h[i].p); k++)
            timer_init(&h[i].p[k].timer, &r.loop, host_fire, &h[i].p[k]);
        assert_int_equal(pthread_create(&t[i], NULL, hammer_main, &h[i]), 0);
    }
    for (i = 0; i < ARRAY_LEN(h); i++)
        pthread_join(t[i], NULL);
    loop_lock(&r.loop);
    assert_true(heap_is_sound(&r.loop));
    loop_unlock(&r.loop);
    for (i = 0; i < 10000 && armed_timers(&r.loop) > 0; i++)
        usleep(1000); /* the last deadlines are at most 0.3 ms away */
    assert_int_equal(armed_timers(&r.loop), 0);
    runner_stop(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(timer_fires_once_when_due),
        cmocka_unit_test(timer_moves_and_cancels),
        cmocka_unit_test(periodic_timer_catches_up),
        cmocka_unit_test(storm_ends_each_step),
        cmocka_unit_test(callback_cancels_another),
        cmocka_unit_test(many_timers_match_a_model),
        cmocka_unit_test(timers_fire_in_order),
        cmocka_unit_test(stopped_clock_fires_nothing),
        cmocka_unit_test(callback_stops_clock),
        cmocka_unit_test(fd_is_called_while_ready),
        cmocka_unit_test(unwatched_in_the_same_batch),
        cmocka_unit_test(regular_file_is_refused),
        cmocka_unit_test(step_times_out),
        cmocka_unit_test(earlier_timer_wakes_the_loop),
        cmocka_unit_test(moving_timer_wakes_once),
        cmocka_unit_test(paused_loop_wakes_on_kick),
        cmocka_unit_test(timers_are_not_early_and_rarely_late),
        cmocka_unit_test(stop_before_run_returns_at_once),
        cmocka_unit_test(lock_is_free_while_waiting),
        cmocka_unit_test(threads_hammer_timers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
