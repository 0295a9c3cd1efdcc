/* Errors, log, clock and randomness (src/base), without a loop. */
#include "test.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/log.h"
#include "base/rand.h"

static void err_takes_null(void **state)
{
    assert_int_equal(err_set(NULL, ENOENT, "lost %d", 1), -ENOENT);
    err_prefix(NULL, "x");
}

static void err_formats_and_prefixes(void **state)
{
    struct err e = { "" };

    assert_int_equal(err_set(&e, EINVAL, "value %d is odd", 7), -EINVAL);
    assert_string_equal(e.text, "value 7 is odd");
    err_prefix(&e, "line %d", 3);
    assert_string_equal(e.text, "line 3: value 7 is odd");
    err_set(&e, EIO, "again: %s", e.text); /* its own text as an argument */
    assert_string_equal(e.text, "again: line 3: value 7 is odd");
}

static void err_cuts_long_text(void **state)
{
    char big[2000];
    struct err e;

    memset(big, 'a', sizeof(big) - 1);
    big[sizeof(big) - 1] = '\0';
    err_set(&e, EINVAL, "%s", big);
    assert_int_equal(strlen(e.text), sizeof(e.text) - 1);
    err_prefix(&e, "p");
    assert_int_equal(strlen(e.text), sizeof(e.text) - 1);
    assert_memory_equal(e.text, "p: aaa", 6);
    err_prefix(&e, "%s", big);
    assert_int_equal(strlen(e.text), sizeof(e.text) - 1);
}

/* A prefix of every length up to beyond the buffer leaves a terminated text. */
static void err_prefix_of_any_length(void **state)
{
    char big[600];
    size_t n;

    for (n = 0; n < sizeof(big); n++) {
        struct err e;

        memset(big, 'p', n);
        big[n < sizeof(big) ? n : n - 1] = '\0';
        err_set(&e, EINVAL, "tail");
        err_prefix(&e, "%s", big);
        assert_true(strlen(e.text) < sizeof(e.text));
        if (n < 500)
            assert_string_equal(e.text + n, ": tail");
    }
}

static void err_hides_control_characters(void **state)
{
    struct err e;

    err_set(&e, EINVAL, "%s", "a\x1b[2Jb\nc\x7f\xc3\xa4");
    assert_string_equal(e.text, "a?[2Jb?c?\xc3\xa4");
}

/* Run fn with stderr in a file; returns the text in buf. */
static void captured(void (*fn)(void), char *buf, size_t size)
{
    FILE *f = tmpfile();
    int old = dup(STDERR_FILENO);
    ssize_t n;

    assert_non_null(f);
    assert_true(old >= 0 && dup2(fileno(f), STDERR_FILENO) >= 0);
    fn();
    assert_true(dup2(old, STDERR_FILENO) >= 0);
    close(old);
    n = pread(fileno(f), buf, size - 1, 0);
    assert_true(n >= 0);
    buf[n] = '\0';
    fclose(f);
}

static void log_three(void)
{
    log_msg(LOG_ERROR, "one");
    log_msg(LOG_WARN, "two %d", 2);
    log_msg(LOG_INFO, "three\x1b");
}

static void log_honours_level(void **state)
{
    char buf[400];

    captured(log_three, buf, sizeof(buf));
    assert_string_equal(buf, "vitro: error: one\nvitro: warning: two 2\n");
    log_set_level(LOG_INFO);
    captured(log_three, buf, sizeof(buf));
    assert_string_equal(buf, "vitro: error: one\nvitro: warning: two 2\nvitro: info: three?\n");
    log_set_level(LOG_WARN);
}

static void log_flood(void)
{
    int i;

    for (i = 0; i < 20000; i++)
        log_guest("line %d", i);
}

static unsigned count_lines(const char *s)
{
    unsigned n = 0;

    for (; *s; s++)
        n += *s == '\n';
    return n;
}

static void log_guest_is_limited(void **state)
{
    static char buf[100000];
    unsigned lines;

    captured(log_flood, buf, sizeof(buf));
    assert_string_equal(buf, ""); /* below LOG_DEBUG nothing at all */
    log_set_level(LOG_DEBUG);
    captured(log_flood, buf, sizeof(buf));
    log_set_level(LOG_WARN);
    lines = count_lines(buf);
    assert_true(lines >= 100);
    assert_true(lines <= 404); /* the flood takes far less than four seconds */
}

static void manual_clock_moves_by_hand(void **state)
{
    struct clock c;

    clock_init_manual(&c, 5 * NSEC_PER_SEC);
    assert_int_equal(clock_ns(&c), 0);
    clock_advance(&c, 30);
    assert_int_equal(clock_ns(&c), 30);
    assert_int_equal(clock_wall_ns(&c), 5 * NSEC_PER_SEC + 30);
}

static void host_clock_goes_on(void **state)
{
    uint64_t a = clock_host_ns(CLOCK_MONOTONIC), b = clock_host_ns(CLOCK_MONOTONIC);

    assert_true(a > 0 && b >= a);
    assert_true(clock_host_seconds(CLOCK_MONOTONIC) >= (double)b / 1e9);
    assert_int_equal(clock_host_ns(12345), 0); /* no such clock */
}

static void zeroes_are_told(void **state)
{
    uint8_t m[70] = { 0 };

    assert_true(mem_is_zero(m, 0) && mem_is_zero(m, 1) && mem_is_zero(m, sizeof(m)));
    for (size_t at = 0; at < sizeof(m); at++) {
        m[at] = 1;
        assert_true(mem_is_zero(m, at));
        assert_false(mem_is_zero(m, at + 1));
        m[at] = 0;
    }
}

static void stopped_clock_stands(void **state)
{
    struct clock c;

    clock_init_manual(&c, 0);
    clock_advance(&c, 100);
    clock_stop(&c);
    assert_true(clock_stopped(&c));
    clock_advance(&c, 1000);
    clock_stop(&c); /* idempotent: the frozen value stays */
    assert_int_equal(clock_ns(&c), 100);
    clock_start(&c);
    clock_start(&c);
    assert_false(clock_stopped(&c));
    assert_int_equal(clock_ns(&c), 100);
    clock_advance(&c, 7);
    assert_int_equal(clock_ns(&c), 107);
}

static void clock_can_be_set(void **state)
{
    struct clock c;

    clock_init_manual(&c, 0);
    clock_advance(&c, 1000);
    clock_set_ns(&c, 10); /* back, too: a restored machine is younger than the host */
    assert_int_equal(clock_ns(&c), 10);
    clock_stop(&c);
    clock_set_ns(&c, 77);
    assert_int_equal(clock_ns(&c), 77);
    clock_advance(&c, 5);
    assert_int_equal(clock_ns(&c), 77);
    clock_start(&c);
    clock_advance(&c, 3);
    assert_int_equal(clock_ns(&c), 80);
}

static void host_clock_starts_near_zero(void **state)
{
    struct clock c;
    uint64_t last = 0, wall, t;
    int i;

    clock_init_host(&c);
    for (i = 0; i < 100000; i++, last = t) {
        t = clock_ns(&c);
        assert_true(t >= last);
    }
    assert_true(last > 0 && last < 60 * NSEC_PER_SEC);
    wall = clock_wall_ns(&c);
    assert_true(wall > 1500000000ULL * NSEC_PER_SEC);
}

/* What a guest would make of ticks; the clock must never say anything else. */
static uint64_t ticks_to_ns(const struct clock *c, uint64_t ticks)
{
    ticks = c->shift < 0 ? ticks >> -c->shift : ticks << c->shift;
    return (uint64_t)((unsigned __int128)ticks * c->mul >> 32);
}

static void tsc_clock_is_the_hosts(void **state)
{
    struct clock c;
    uint64_t last = 0, t, ns;

    clock_init_tsc(&c, 2596138);
    for (unsigned n = 0; n < 100000; n++, last = t) {
        uint64_t before = __builtin_ia32_rdtsc();
        t = clock_ticks(&c) + clock_host_tsc(&c);
        assert_true(t >= last && t >= before && t <= __builtin_ia32_rdtsc());
        ns = clock_ns(&c);
        assert_true(ns >= ticks_to_ns(&c, t - clock_host_tsc(&c)) && ns <= ticks_to_ns(&c, clock_ticks(&c)));
    }
    assert_true(ns < 60 * NSEC_PER_SEC);
    /* It stands, and both go on from there; nothing is the host's then. */
    uint64_t host = clock_host_tsc(&c);
    clock_stop(&c);
    t = clock_ticks(&c);
    ns = clock_ns(&c);
    assert_int_equal(clock_host_tsc(&c), 0);
    assert_int_equal(ns, ticks_to_ns(&c, t));
    while (__builtin_ia32_rdtsc() < t + host + 1000000)
        ;
    assert_int_equal(clock_ticks(&c), t);
    assert_int_equal(clock_ns(&c), ns);
    clock_start(&c);
    assert_true(clock_ticks(&c) >= t && clock_ns(&c) >= ns && clock_ns(&c) < ns + 10 * NSEC_PER_SEC);
    assert_true(clock_host_tsc(&c) > host);
    clock_stop(&c);
    clock_set_ns(&c, 123456789012345);
    assert_int_equal(clock_ns(&c), 123456789012345);
    clock_start(&c);
    assert_in_range(clock_ns(&c), 123456789012345, 123456789012345 + 10 * NSEC_PER_SEC);
}

static uint64_t tsc_less;
static uint64_t tsc_began_again(struct clock *c) { return __builtin_ia32_rdtsc() - tsc_less; }

/* A host that slept, and whose TSC begins again at about zero. */
static void tsc_clock_goes_on_after_sleep(void **state)
{
    struct clock c;

    clock_init_tsc(&c, 2596138);
    clock_set_ns(&c, 5000000000000);
    assert_false(clock_began_again(&c));
    c.source = tsc_began_again;
    tsc_less = __builtin_ia32_rdtsc() - 1000;
    assert_true(clock_began_again(&c));
    clock_stop(&c);
    assert_false(clock_began_again(&c)); /* it stands, and is not the host's */
    clock_go_on(&c);
    clock_start(&c);
    assert_in_range(clock_ns(&c), 5000000000000, 5000000000000 + 10 * NSEC_PER_SEC);
    assert_false(clock_began_again(&c));
    clock_init_host(&c);
    assert_false(clock_began_again(&c));
    tsc_less = 0;
}

/* Ticks that are computed: as many as a guest needs to come to the same time, whatever the frequency and however old it is. */
static void ticks_fit_time(void **state)
{
    static const uint64_t khz[] = { 1000, 999999, 1000000, 1999999, 2000000, 2596138, 4700000, 4294967295 };
    uint64_t ns = 1;

    for (unsigned n = 0; n < ARRAY_LEN(khz); n++) {
        struct clock c;
        clock_init_manual(&c, 0);
        clock_set_khz(&c, khz[n]);
        assert_int_equal(clock_ticks(&c), 0);
        for (unsigned k = 0; k < 60; k++, ns = ns * 3 % (1ULL << 50) + 7) {
            c.manual_ns = ns;
            uint64_t t = clock_ticks(&c), back = ticks_to_ns(&c, t);
            assert_in_range(back, ns, ns + 1000000 / khz[n]);
            assert_true(ticks_to_ns(&c, t - (1ULL << (c.shift < 0 ? -c.shift : 0))) < ns);
            c.manual_ns++;
            assert_true(clock_ticks(&c) >= t);
        }
    }
}

static void muldiv_does_not_overflow(void **state)
{
    assert_int_equal(muldiv64(UINT64_MAX, 10, 10), UINT64_MAX);
    assert_int_equal(muldiv64(7, 3, 2), 10);
    assert_int_equal(muldiv64(NSEC_PER_SEC * 86400ULL * 365, 1193182, NSEC_PER_SEC),
                     1193182ULL * 86400 * 365);
    for (uint64_t a = 1, n = 0; n < 3000; n++) { /* both ways of doing it, truncated results too */
        a = a * 6364136223846793005ULL + 1442695040888963407ULL;
        uint64_t b = (a >> 7 ^ a << 21) >> n % 64, c = (a >> 13) >> n / 64 % 50 | 1;

        assert_int_equal(muldiv64(a, b, c), (uint64_t)((unsigned __int128)a * b / c));
    }
}

static void bit_helpers(void **state)
{
    assert_int_equal(bits(0xabcd, 11, 4), 0xbc);
    assert_int_equal(bits_set(0xabcd, 11, 4, 0x12), 0xa12d);
    assert_int_equal(mask_bytes(1), 0xff);
    assert_true(mask_bytes(8) == UINT64_MAX);
    assert_true(range_outside(UINT64_MAX, 2, 100));
    assert_true(range_outside(99, 2, 100));
    assert_false(range_outside(98, 2, 100));
    assert_false(range_outside(100, 0, 100));
}

static void seeded_rand_repeats(void **state)
{
    struct rand_source a, b;
    uint8_t x[1000], y[1000];

    rand_init_seeded(&a, 42);
    rand_init_seeded(&b, 42);
    assert_int_equal(rand_bytes(&a, x, sizeof(x)), 0);
    assert_int_equal(rand_bytes(&b, y, sizeof(y)), 0);
    assert_memory_equal(x, y, sizeof(x));
    rand_init_seeded(&b, 43);
    rand_bytes(&b, y, sizeof(y));
    assert_memory_not_equal(x, y, sizeof(x));
    rand_bytes(&a, y, sizeof(y)); /* goes on, does not repeat */
    assert_memory_not_equal(x, y, sizeof(x));
}

/* The reference sequence of SplitMix64 from seed 1234567. */
static void seeded_rand_is_splitmix(void **state)
{
    static const uint64_t want[] = { 6457827717110365317ULL, 3203168211198807973ULL, 9817491932198370423ULL };
    struct rand_source r;
    uint64_t v;
    size_t i;

    rand_init_seeded(&r, 1234567);
    for (i = 0; i < ARRAY_LEN(want); i++) {
        assert_int_equal(rand_u64(&r, &v), 0);
        assert_true(v == want[i]);
    }
}

static void rand_below_stays_below(void **state)
{
    struct rand_source r;
    unsigned seen[10] = { 0 }, i;

    rand_init_seeded(&r, 1);
    for (i = 0; i < 10000; i++) {
        uint64_t v = rand_below(&r, 10);

        assert_true(v < 10);
        seen[v]++;
    }
    for (i = 0; i < 10; i++)
        assert_in_range(seen[i], 800, 1200);
    assert_int_equal(rand_below(&r, 1), 0);
}

static void host_rand_fills(void **state)
{
    uint8_t a[70000], zero[64] = { 0 };
    struct rand_source r;

    memset(a, 0, sizeof(a));
    rand_init_host(&r);
    assert_int_equal(rand_bytes(&r, a, sizeof(a)), 0);
    assert_memory_not_equal(a + sizeof(a) - 64, zero, 64);
    assert_memory_not_equal(a, a + 64, 64);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(err_takes_null),
        cmocka_unit_test(err_formats_and_prefixes),
        cmocka_unit_test(err_cuts_long_text),
        cmocka_unit_test(err_prefix_of_any_length),
        cmocka_unit_test(err_hides_control_characters),
        cmocka_unit_test(log_honours_level),
        cmocka_unit_test(log_guest_is_limited),
        cmocka_unit_test(manual_clock_moves_by_hand),
        cmocka_unit_test(host_clock_goes_on),
        cmocka_unit_test(zeroes_are_told),
        cmocka_unit_test(stopped_clock_stands),
        cmocka_unit_test(clock_can_be_set),
        cmocka_unit_test(host_clock_starts_near_zero),
        cmocka_unit_test(tsc_clock_is_the_hosts),
        cmocka_unit_test(tsc_clock_goes_on_after_sleep),
        cmocka_unit_test(ticks_fit_time),
        cmocka_unit_test(muldiv_does_not_overflow),
        cmocka_unit_test(bit_helpers),
        cmocka_unit_test(seeded_rand_repeats),
        cmocka_unit_test(seeded_rand_is_splitmix),
        cmocka_unit_test(rand_below_stays_below),
        cmocka_unit_test(host_rand_fills),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
