/* Work that is left to whoever holds the device lock, and what is done when it lets go (src/base/loop.h). */
#include "test.h"

#include <errno.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>

#include "base/bits.h"
#include "base/clock.h"
#include "base/loop.h"

#define WORKERS 4
#define ROUNDS  20000

struct probe {
    struct loop_work work;
    unsigned ran;
    bool lock_was_free;
    unsigned again; /* post it from inside, so many times */
};

static struct fixture {
    struct clock clock;
    struct loop loop;
    struct probe p[3];
    unsigned after[64];
    bool after_locked;
} f;

static void probe_run(void *opaque)
{
    struct probe *p = opaque;

    p->ran++;
    p->lock_was_free |= loop_trylock(&f.loop);
    if (p->again) {
        p->again--;
        loop_post(&f.loop, &p->work);
    }
}

static void on_after(void *opaque, unsigned n)
{
    f.after[n]++;
    if (loop_trylock(&f.loop))
        loop_unlock(&f.loop);
    else
        f.after_locked = true;
}

static int setup(void **state)
{
    memset(&f, 0, sizeof(f));
    clock_init_manual(&f.clock, 0);
    assert_int_equal(loop_init(&f.loop, &f.clock), 0);
    loop_set_after(&f.loop, on_after, NULL);
    for (unsigned n = 0; n < ARRAY_LEN(f.p); n++)
        f.p[n].work = (struct loop_work){ .fn = probe_run, .opaque = &f.p[n] };
    return 0;
}

static int teardown(void **state)
{
    loop_fini(&f.loop);
    return 0;
}

static void runs_at_once_when_the_lock_is_free(void **state)
{
    loop_post(&f.loop, &f.p[0].work);
    assert_int_equal(f.p[0].ran, 1);
    loop_post(&f.loop, &f.p[0].work);
    assert_int_equal(f.p[0].ran, 2);
    assert_false(f.p[0].lock_was_free);
    assert_true(loop_trylock(&f.loop));
    loop_unlock(&f.loop);
}

static void holder_runs_each_once(void **state)
{
    loop_lock(&f.loop);
    loop_post(&f.loop, &f.p[0].work);
    loop_post(&f.loop, &f.p[1].work);
    loop_post(&f.loop, &f.p[0].work);
    assert_int_equal(f.p[0].ran + f.p[1].ran, 0);
    loop_unlock(&f.loop);
    assert_int_equal(f.p[0].ran, 1);
    assert_int_equal(f.p[1].ran, 1);
    assert_false(f.p[0].lock_was_free || f.p[1].lock_was_free);
    loop_lock(&f.loop);
    loop_unlock(&f.loop);
    assert_int_equal(f.p[0].ran, 1);
}

static void unposted_does_not_run(void **state)
{
    loop_lock(&f.loop);
    for (unsigned n = 0; n < ARRAY_LEN(f.p); n++)
        loop_post(&f.loop, &f.p[n].work);
    loop_unpost(&f.loop, &f.p[1].work);
    loop_unpost(&f.loop, &f.p[1].work);
    loop_unlock(&f.loop);
    assert_int_equal(f.p[0].ran, 1);
    assert_int_equal(f.p[1].ran, 0);
    assert_int_equal(f.p[2].ran, 1);
    loop_post(&f.loop, &f.p[1].work);
    assert_int_equal(f.p[1].ran, 1);
}

/* Whoever lets go of the lock is not kept for ever: the rest is the loop's. */
static void work_without_end_ends_an_unlock(void **state)
{
    unsigned before;

    f.p[0].again = 1000;
    loop_lock(&f.loop);
    loop_post(&f.loop, &f.p[0].work);
    loop_unlock(&f.loop);
    assert_in_range(f.p[0].ran, 1, 100);
    for (unsigned n = 0; n < 100 && f.p[0].again; n++) {
        before = f.p[0].ran;
        assert_int_equal(loop_step(&f.loop, -1), 0); /* it was told, or would sleep here */
        assert_in_range(f.p[0].ran - before, 1, 200); /* it has the lock twice */
    }
    assert_int_equal(f.p[0].ran, 1001);
}

static void after_is_called_without_the_lock(void **state)
{
    loop_lock(&f.loop);
    loop_after(&f.loop, 0);
    loop_after(&f.loop, 63);
    loop_after(&f.loop, 63);
    assert_int_equal(f.after[0] + f.after[63], 0);
    loop_unlock(&f.loop);
    assert_int_equal(f.after[0], 1);
    assert_int_equal(f.after[63], 1);
    assert_false(f.after_locked);
    loop_lock(&f.loop);
    loop_unlock(&f.loop);
    assert_int_equal(f.after[0] + f.after[63], 2);
}

/* What posted work wants done after it is done by the same unlock. */
static void after_run(void *opaque)
{
    loop_after(&f.loop, 5);
}

static void posted_work_has_an_after(void **state)
{
    struct loop_work w = { .fn = after_run };

    loop_lock(&f.loop);
    loop_post(&f.loop, &w);
    loop_unlock(&f.loop);
    assert_int_equal(f.after[5], 1);
}

/* ---- threads: nothing that was posted is forgotten, whoever had the lock ---- */

struct worker {
    pthread_t thread;
    struct loop_work work;
    _Atomic unsigned said, heard;
    _Atomic unsigned lost;
};

/* Called at least once for the last number said: whoever waits for that to be heard would wait for ever. */
static void worker_hear(void *opaque)
{
    struct worker *w = opaque;

    atomic_store(&w->heard, atomic_load(&w->said));
}

/* Half of them post and wait to be heard, the others take the lock and let go. Nobody sleeps with it, and no loop runs. */
static void *worker_post(void *opaque)
{
    struct worker *w = opaque;

    for (unsigned n = 1; n <= ROUNDS; n++) {
        unsigned tries = 0;

        atomic_store(&w->said, n);
        loop_post(&f.loop, &w->work);
        while (atomic_load(&w->heard) != n && ++tries < 1000000)
            sched_yield();
        if (atomic_load(&w->heard) != n)
            atomic_fetch_add(&w->lost, 1);
    }
    return NULL;
}

static void *worker_hold(void *opaque)
{
    struct worker *w = opaque;

    for (unsigned n = 0; n < ROUNDS; n++) {
        loop_lock(&f.loop);
        loop_unlock(&f.loop);
        atomic_fetch_add(&w->said, 1);
    }
    return NULL;
}

static void nothing_is_forgotten(void **state)
{
    static struct worker w[WORKERS];

    for (unsigned n = 0; n < WORKERS; n++) {
        w[n].work = (struct loop_work){ .fn = worker_hear, .opaque = &w[n] };
        assert_int_equal(pthread_create(&w[n].thread, NULL, n % 2 ? worker_hold : worker_post, &w[n]), 0);
    }
    for (unsigned n = 0; n < WORKERS; n++)
        pthread_join(w[n].thread, NULL);
    for (unsigned n = 0; n < WORKERS; n++)
        assert_int_equal(w[n].lost, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(runs_at_once_when_the_lock_is_free, setup, teardown),
        cmocka_unit_test_setup_teardown(holder_runs_each_once, setup, teardown),
        cmocka_unit_test_setup_teardown(unposted_does_not_run, setup, teardown),
        cmocka_unit_test_setup_teardown(work_without_end_ends_an_unlock, setup, teardown),
        cmocka_unit_test_setup_teardown(after_is_called_without_the_lock, setup, teardown),
        cmocka_unit_test_setup_teardown(posted_work_has_an_after, setup, teardown),
        cmocka_unit_test_setup_teardown(nothing_is_forgotten, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
