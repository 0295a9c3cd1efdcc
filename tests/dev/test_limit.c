/* Token buckets: what passes in a time, bursts, debts, other rates, and states that say anything. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "rig.h"
#include "virtio/limit.h"

static struct limit l, other;

static void set(uint64_t size, uint32_t ms, uint64_t burst, uint64_t ops)
{
    struct limit_rate bytes = { .size = size, .ms = ms, .burst = burst }, requests = { .size = ops, .ms = 1000 };

    memset(&l, 0, sizeof(l));
    limit_set(&l, &bytes, &requests, 0);
}

/* How many bytes pass until then, in requests of that size, by somebody who waits as long as he is told. */
static uint64_t pass(uint64_t *now, uint64_t until, uint64_t each, unsigned *waits)
{
    uint64_t bytes = 0;

    for (*waits = 0; *now < until;) {
        uint64_t ns = limit_wait(&l, *now);

        assert_true(!ns || ns >= MS);
        *now += ns;
        *waits += ns > 0;
        if (!ns) {
            limit_take(&l, each);
            bytes += each;
            *now += 100;
        }
    }
    return bytes;
}

static void test_rate(void **state)
{
    const uint64_t each[] = { 1, 512, 4096, 65536, 1 << 20 };
    unsigned waits;

    for (unsigned n = 1; n < 5; n++) {
        uint64_t now = 0, got;

        set(1 << 20, 1000, 0, 0);
        got = pass(&now, 10 * SEC, each[n], &waits);
        assert_in_range(got, (11ULL << 20) - each[n], (11ULL << 20) + 2 * each[n]); /* it was full once */
        assert_true(waits <= 10000);
    }
    for (unsigned ms = 1; ms <= 10000; ms *= 10) { /* also when it fills as fast as who waits is woken */
        uint64_t now = 0, got;

        set(1000 * ms, ms, 0, 0);
        got = pass(&now, 100 * SEC, 700, &waits);
        assert_in_range(got, 100000000ULL * (ms == 1 ? 1 : 2) / 2, 100000000ULL + 2000ULL * ms + 1400);
    }
}

static void test_ops(void **state)
{
    uint64_t now = 0;
    unsigned waits;

    set(0, 0, 0, 50);
    assert_in_range(pass(&now, 10 * SEC, 1, &waits), 549, 551);
    set(1 << 30, 1000, 0, 50); /* the narrower one counts */
    now = 0;
    assert_in_range(pass(&now, 10 * SEC, 1, &waits), 549, 551);
    set(0, 0, 0, 0);
    assert_false(limit_is_on(&l));
    assert_int_equal(limit_wait(&l, 5), 0);
}

/* Once, beforehand; and what is larger than all of it passes, and is paid for. */
static void test_burst(void **state)
{
    set(1000, 1000, 5000, 0);
    limit_take(&l, 5500);
    assert_int_equal(limit_wait(&l, 0), 0);
    limit_take(&l, 500);
    assert_int_equal(limit_wait(&l, 0), MS);
    assert_int_equal(limit_wait(&l, MS), 0);
    limit_take(&l, 3001);
    assert_int_equal(limit_wait(&l, MS), 3001 * MS);
    assert_int_equal(limit_wait(&l, 3001 * MS), MS);
    assert_int_equal(limit_wait(&l, 3002 * MS), 0);
    limit_take(&l, UINT64_MAX);
    limit_take(&l, UINT64_MAX);
    assert_true(limit_wait(&l, 3002 * MS) >= SEC * 3600);
}

/* Who looks in between does not wait anew. */
static void test_look(void **state)
{
    set(0, 0, 0, 4);
    for (unsigned n = 0; n < 4; n++)
        limit_take(&l, 1);
    for (unsigned ms = 0; ms < 250; ms += 10)
        assert_int_equal(limit_wait(&l, ms * MS), (250 - ms) * MS);
    assert_int_equal(limit_wait(&l, 250 * MS), 0);
}

static void test_set(void **state)
{
    struct limit_rate rate = { .size = 10, .ms = 1000 }, none = { .size = 0 };

    set(1000, 1000, 0, 10);
    for (unsigned n = 0; n < 10; n++)
        limit_take(&l, 100);
    assert_int_equal(limit_wait(&l, 0), 100 * MS);
    limit_set(&l, NULL, &rate, 0); /* the other one is still empty */
    assert_int_equal(limit_wait(&l, 0), MS);
    limit_set(&l, &none, NULL, 0);
    assert_int_equal(limit_wait(&l, 0), 0);
    assert_true(limit_is_on(&l));
    rate.ms = 0;
    assert_false(limit_rate_ok(&rate));
    rate = (struct limit_rate){ .size = LIMIT_SIZE_MAX + 1, .ms = 1 };
    assert_false(limit_rate_ok(&rate));
    assert_true(limit_rate_ok(&none));
}

static int load(void)
{
    struct state_buf b = { NULL };
    struct err err = { "" };
    int r;

    assert_int_equal(state_save(&b, &limit_state, 0, &l), 0);
    r = state_load(b.data, b.len, &limit_state, 0, &other, &err);
    state_buf_fini(&b);
    return r;
}

static void test_state(void **state)
{
    struct err err = { "" };

    assert_int_equal(state_desc_check(&limit_state, &err), 0);
    set(1000, 1000, 10, 5);
    limit_take(&l, 3000);
    assert_int_equal(load(), 0);
    assert_memory_equal(&l, &other, sizeof(l));
    l.bytes.since = UINT64_MAX; /* not a time that was: it begins now */
    assert_int_equal(load(), 0);
    assert_int_equal(limit_wait(&other, 5), 1991 * MS);
    l.bytes.burst = 11;
    assert_int_equal(load(), -EINVAL);
    l.bytes.burst = 0;
    l.bytes.left = 1001;
    assert_int_equal(load(), -EINVAL);
    l.bytes.left = INT64_MIN;
    assert_int_equal(load(), -EINVAL);
    l.bytes.left = 0;
    l.bytes.rate.ms = 0;
    assert_int_equal(load(), -EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_rate), cmocka_unit_test(test_ops), cmocka_unit_test(test_burst),
                                        cmocka_unit_test(test_look), cmocka_unit_test(test_set), cmocka_unit_test(test_state) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
