/* Threads for what may block (src/base/pool.h): jobs behind a gate, a loop that the test runs by hand. */
#include "test.h"

#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/clock.h"
#include "base/loop.h"
#include "base/pool.h"

#define JOBS 64

struct gate_job {
    struct pool_job job;
    int done;
    void *scratch;
};

static struct fixture {
    struct clock clock;
    struct loop loop;
    struct pool pool;
    pthread_mutex_t lock;
    pthread_cond_t cond;
    unsigned inside, batches;
    bool open, lock_seen_free;
    _Atomic unsigned alone, told, began;
    _Atomic bool alone_met;
    struct gate_job job[JOBS];
} f;

/* Waits inside until the gate is open. */
static bool gate_run(struct pool_job *job, void *scratch)
{
    container_of(job, struct gate_job, job)->scratch = scratch;
    pthread_mutex_lock(&f.lock);
    f.inside++;
    pthread_cond_broadcast(&f.cond);
    while (!f.open)
        pthread_cond_wait(&f.cond, &f.lock);
    f.inside--;
    pthread_cond_broadcast(&f.cond);
    pthread_mutex_unlock(&f.lock);
    return true;
}

static void gate_wait(unsigned inside)
{
    pthread_mutex_lock(&f.lock);
    while (f.inside != inside)
        pthread_cond_wait(&f.cond, &f.lock);
    pthread_mutex_unlock(&f.lock);
}

static void gate_open(void)
{
    pthread_mutex_lock(&f.lock);
    f.open = true;
    pthread_cond_broadcast(&f.cond);
    pthread_mutex_unlock(&f.lock);
}

/* Everything is reported with the device lock held. */
static void job_done(struct pool_job *job)
{
    f.lock_seen_free |= pthread_mutex_trylock(&f.loop.lock) == 0;
    container_of(job, struct gate_job, job)->done++;
}

static void batch_end(void *opaque) { f.batches++; }

static void submit(unsigned n)
{
    f.job[n].job = (struct pool_job){ .run = gate_run, .done = job_done };
    pool_submit(&f.pool, &f.job[n].job);
}

static int setup(void **state)
{
    memset(&f, 0, sizeof(f));
    pthread_mutex_init(&f.lock, NULL);
    pthread_cond_init(&f.cond, NULL);
    clock_init_host(&f.clock);
    assert_int_equal(loop_init(&f.loop, &f.clock), 0);
    loop_lock(&f.loop);
    assert_int_equal(pool_init(&f.pool, &f.loop, GUARD_SHARE, 8192, batch_end, NULL), 0);
    return 0;
}

static int teardown(void **state)
{
    gate_open();
    pool_fini(&f.pool);
    loop_unlock(&f.loop);
    loop_fini(&f.loop);
    return 0;
}

/* One comes while all the others wait for the host: it finds a thread, as long as there may be another. */
static void late_job_finds_a_thread(void **state)
{
    for (unsigned n = 0; n < POOL_THREADS; n++) {
        submit(n);
        gate_wait(n + 1);
    }
    assert_int_equal(f.job[0].done, 0);
}

static void drain_reports_each_once(void **state)
{
    gate_open();
    for (unsigned n = 0; n < JOBS; n++)
        submit(n);
    pool_drain(&f.pool);
    for (unsigned n = 0; n < JOBS; n++) {
        assert_int_equal(f.job[n].done, 1);
        assert_true(f.job[n].scratch && (uintptr_t)f.job[n].scratch % 4096 == 0);
    }
    assert_true(f.batches >= 1 && f.batches <= JOBS);
    assert_true(f.pool.threads <= POOL_THREADS);
    assert_false(f.lock_seen_free);
    pool_drain(&f.pool); /* nothing is under way: nothing happens */
}

static void holder_reports_what_threads_cannot(void **state)
{
    gate_open();
    submit(0);
    while (!atomic_load(&f.loop.posted))
        sched_yield();
    assert_int_equal(f.job[0].done, 0);
    loop_unlock(&f.loop);
    assert_int_equal(f.job[0].done, 1);
    loop_lock(&f.loop);
    assert_int_equal(f.batches, 1);
    assert_false(f.lock_seen_free);
}

/* Its report is still to be made by whoever holds the lock next, and must not be. */
static void ended_pool_reports_nothing_more(void **state)
{
    gate_open();
    submit(0);
    while (!atomic_load(&f.loop.posted))
        sched_yield();
    pool_fini(&f.pool);
    assert_int_equal(f.job[0].done, 1);
    assert_null(atomic_load(&f.loop.posted));
}

static bool away_run(struct pool_job *job, void *scratch)
{
    gate_run(job, scratch);
    return false;
}

/* Somebody else ends it, or gives it back. */
static void jobs_of_others_count(void **state)
{
    f.job[0].job = (struct pool_job){ .run = away_run, .done = job_done };
    f.job[1].job = (struct pool_job){ .run = gate_run, .done = job_done };
    pool_submit(&f.pool, &f.job[0].job);
    gate_wait(1);
    gate_open();
    gate_wait(0);
    pool_begin(&f.pool);
    pool_end(&f.pool, &f.job[0].job);
    pool_again(&f.pool, &f.job[1].job);
    pool_drain(&f.pool);
    assert_int_equal(f.job[0].done + f.job[1].done, 2);
}

/* Counts how many of its kind are inside, and what has been reported of the job before it. */
static bool alone_run(struct pool_job *job, void *scratch)
{
    struct gate_job *g = container_of(job, struct gate_job, job);
    unsigned inside = atomic_fetch_add(&f.alone, 1);

    if (inside)
        f.alone_met = true;
    if (g != f.job && g[-1].done)
        atomic_fetch_add(&f.told, 1);
    atomic_fetch_add(&f.began, 1);
    gate_run(job, scratch);
    atomic_fetch_sub(&f.alone, 1);
    return true;
}

static void submit_alone(unsigned n)
{
    f.job[n].job = (struct pool_job){ .run = alone_run, .done = job_done, .alone = true };
    pool_submit(&f.pool, &f.job[n].job);
}

/* Others pass them, and none is forgotten. */
static void alone_jobs_take_turns(void **state)
{
    for (unsigned n = 0; n < JOBS / 2; n++)
        submit_alone(n);
    submit(JOBS / 2);
    gate_wait(2);
    gate_open();
    for (unsigned n = JOBS / 2 + 1; n < JOBS; n++)
        n % 2 ? submit_alone(n) : submit(n);
    pool_drain(&f.pool);
    for (unsigned n = 0; n < JOBS; n++)
        assert_int_equal(f.job[n].done, 1);
    assert_false(f.alone_met);
}

/* A job's end does not wait for those behind it. */
static void thread_reports_before_it_goes_on(void **state)
{
    for (unsigned n = 0; n < 8; n++)
        submit_alone(n);
    gate_wait(1);
    loop_unlock(&f.loop);
    gate_open();
    while (atomic_load(&f.began) < 8)
        sched_yield();
    loop_lock(&f.loop);
    pool_drain(&f.pool);
    assert_int_equal(f.told, 7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(late_job_finds_a_thread, setup, teardown),
        cmocka_unit_test_setup_teardown(drain_reports_each_once, setup, teardown),
        cmocka_unit_test_setup_teardown(holder_reports_what_threads_cannot, setup, teardown),
        cmocka_unit_test_setup_teardown(ended_pool_reports_nothing_more, setup, teardown),
        cmocka_unit_test_setup_teardown(jobs_of_others_count, setup, teardown),
        cmocka_unit_test_setup_teardown(alone_jobs_take_turns, setup, teardown),
        cmocka_unit_test_setup_teardown(thread_reports_before_it_goes_on, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
