/* The HPET: counter, one-shot and periodic comparators in 32 and 64 bits, edge and level, routing, legacy
 * replacement, hostile periods. */
#include "base/bits.h"
#include "chip/hpet.h"
#include "rig.h"

enum { LEGACY0 = 32, LEGACY8 = 33, SELECT = 34 };
#define ROUTES 0x00f00000u

#define T(n, reg) (0x100 + 0x20 * (n) + (reg))
enum { CONF = 0, CMP = 8 };
enum { LEVEL = 0x2, ENABLE = 0x4, PERIODIC = 0x8, VAL_SET = 0x40, NARROW = 0x100 };
#define ROUTE(pin) ((uint64_t)(pin) << 9)

struct fixture {
    struct rig rig;
    struct hpet hpet;
};

static struct fixture f;

static int setup(void **state)
{
    rig_init(&f.rig, 0);
    hpet_init(&f.hpet, &f.rig.loop, rig_irq(&f.rig, 0), ROUTES, rig_irq(&f.rig, LEGACY0),
              rig_irq(&f.rig, LEGACY8), rig_irq(&f.rig, SELECT));
    assert_int_equal(hpet_attach(&f.hpet, &f.rig.mmio, HPET_GPA), 0);
    return 0;
}

static int attach(void *dev) { return hpet_attach(&f.hpet, &f.rig.mmio, HPET_GPA); }

static int teardown(void **state)
{
    rig_fini(&f.rig);
    return 0;
}

static uint64_t get(unsigned reg) { return bus_read(&f.rig.mmio, HPET_GPA + reg, 8); }
static void put(unsigned reg, uint64_t v) { bus_write(&f.rig.mmio, HPET_GPA + reg, v, 8); }
static uint32_t get32(unsigned reg) { return (uint32_t)bus_read(&f.rig.mmio, HPET_GPA + reg, 4); }
static void put32(unsigned reg, uint32_t v) { bus_write(&f.rig.mmio, HPET_GPA + reg, v, 4); }

static void test_capabilities(void **state)
{
    assert_true(get(0) == (10000000ULL << 32 | 0x8086a201));
    assert_int_equal(get32(4), 10000000);
    for (unsigned n = 0; n < 3; n++) {
        assert_int_equal(get32(T(n, 4)), ROUTES);
        assert_int_equal(get32(T(n, CONF)) & 0xff, 0x30);
        assert_true(get(T(n, CMP)) == ~0ULL);
    }
    assert_int_equal(get(T(3, CONF)), 0);
    put(T(0, CONF), ~0ULL);
    assert_int_equal(get32(T(0, CONF)) & 0xc180, 0x0100); /* no FSB, reserved bits stay 0 */
    put(T(0, CONF), ROUTE(20));
    put(T(0, CONF), ROUTE(5)); /* not offered: refused */
    assert_int_equal(get(T(0, CONF)) >> 9 & 31, 20);
    /* A byte access is not taken. */
    assert_int_equal(bus_read(&f.rig.mmio, HPET_GPA, 1), 0xff);
}

static void test_counter(void **state)
{
    rig_run(&f.rig, SEC);
    assert_int_equal(get(0xf0), 0);
    put(0x10, 1);
    rig_run(&f.rig, SEC);
    assert_int_equal(get(0xf0), 100000000);
    put(0x10, 0);
    rig_run(&f.rig, SEC);
    assert_int_equal(get(0xf0), 100000000);
    put(0xf0, 0x1fffffff0ULL);
    put(0x10, 1);
    rig_run(&f.rig, 320);
    assert_true(get(0xf0) == 0x200000010ULL);
    put32(0xf4, 7);
    assert_true(get(0xf0) == 0x700000010ULL);
}

static void test_one_shot(void **state)
{
    put(T(1, CONF), ENABLE | ROUTE(21));
    put(T(1, CMP), 500000); /* 5 ms */
    put(0x10, 1);
    rig_run(&f.rig, 4999990);
    assert_int_equal(f.rig.line[21].rises, 0);
    rig_run(&f.rig, 10);
    assert_int_equal(f.rig.line[21].rises, 1);
    rig_run(&f.rig, 200 * SEC);
    assert_int_equal(f.rig.line[21].rises, 1); /* 64 bits: no wrap in a lifetime */
    put(T(1, CMP), get(0xf0) - 1);             /* in the past: nothing */
    rig_run(&f.rig, SEC);
    assert_int_equal(f.rig.line[21].rises, 1);
}

static void test_one_shot_32bit_wraps(void **state)
{
    put(T(1, CONF), ENABLE | NARROW | ROUTE(21));
    put(T(1, CMP), 0xffffffff00000064ULL);
    assert_int_equal(get(T(1, CMP)), 0x64);
    put(0x10, 1);
    rig_run(&f.rig, SEC);
    assert_int_equal(f.rig.line[21].rises, 1);
    rig_run(&f.rig, 43 * SEC); /* 2^32 counts take 42.95 s */
    assert_int_equal(f.rig.line[21].rises, 2);
    uint64_t rises = f.rig.line[21].rises;
    put32(T(1, CMP), get32(0xf0)); /* written when it matches: at once, and 2^32 counts later */
    rig_jump(&f.rig, 0);
    assert_int_equal(f.rig.line[21].rises, rises + 1);
    rig_run(&f.rig, 42949672950ULL);
    assert_int_equal(f.rig.line[21].rises, rises + 1);
    rig_run(&f.rig, 10);
    assert_int_equal(f.rig.line[21].rises, rises + 2);
    f.rig.line[21].rises = 2;
    /* A comparator that was written too late is seen to be late, and fires at the wrap. */
    uint32_t now = get32(0xf0);
    put32(T(1, CMP), now - 10);
    rig_run(&f.rig, 42 * SEC);
    assert_int_equal(f.rig.line[21].rises, 2);
    rig_run(&f.rig, SEC);
    assert_int_equal(f.rig.line[21].rises, 3);
}

static void test_linux_periodic(void **state)
{
    /* As the kernel's clock event driver does it: stop, set, first comparator, then period. */
    put32(0x10, 3);
    rig_run(&f.rig, 123456);
    put32(T(0, CONF), ENABLE | PERIODIC | VAL_SET | NARROW);
    put32(T(0, CMP), get32(0xf0) + 400000);
    rig_run(&f.rig, 1000);
    put32(T(0, CMP), 400000); /* 250 Hz */
    rig_run(&f.rig, SEC - 1000);
    assert_int_equal(f.rig.line[LEGACY0].rises, 250);
    assert_line(&f.rig, SELECT, true);
}

static void test_periodic(void **state)
{
    put(T(0, CONF), ENABLE | PERIODIC | VAL_SET | ROUTE(20));
    put(T(0, CMP), 100000);
    put(0x10, 1);
    rig_run(&f.rig, 1000 * MS);
    assert_int_equal(f.rig.line[20].rises, 1000);
    assert_int_equal(get(T(0, CMP)), 100000000 + 100000);
    put(T(0, CMP), 50000); /* without VAL_SET only the period changes */
    assert_int_equal(get(T(0, CMP)), 100000000 + 100000);
    rig_run(&f.rig, 1000 * MS);
    assert_int_equal(f.rig.line[20].rises, 1000 + 1999);
    rig_jump(&f.rig, 10 * SEC); /* missed periods make one interrupt, and the phase is kept */
    assert_int_equal(f.rig.line[20].rises, 1000 + 1999 + 1);
    assert_int_equal(get(T(0, CMP)) % 50000, 0);
    assert_true(get(T(0, CMP)) > get(0xf0) && get(T(0, CMP)) <= get(0xf0) + 50000);
    put(T(0, CONF), PERIODIC | ROUTE(20)); /* disabled: the comparator goes on, silently */
    rig_run(&f.rig, SEC);
    assert_int_equal(f.rig.line[20].rises, 1000 + 1999 + 1);
    assert_true(get(T(0, CMP)) > get(0xf0) && get(T(0, CMP)) <= get(0xf0) + 50000);
}

static void test_level(void **state)
{
    put(T(2, CONF), ENABLE | LEVEL | ROUTE(22));
    put(T(2, CMP), 1000);
    put(0x10, 1);
    rig_run(&f.rig, MS);
    assert_line(&f.rig, 22, true);
    assert_int_equal(get(0x20), 4);
    put(0x20, 3);
    assert_line(&f.rig, 22, true);
    put32(0x20, 4);
    assert_line(&f.rig, 22, false);
    assert_int_equal(get(0x20), 0);
    put(T(2, CMP), get(0xf0) + 1000);
    rig_run(&f.rig, MS);
    assert_line(&f.rig, 22, true);
    put(T(2, CONF), LEVEL | ROUTE(22)); /* disabling takes the line down */
    assert_line(&f.rig, 22, false);
    assert_int_equal(get(0x20), 4);
    put(T(2, CONF), ENABLE | LEVEL | ROUTE(22)); /* and enabling brings it back */
    assert_line(&f.rig, 22, true);
    put(T(2, CONF), ENABLE | LEVEL | ROUTE(23)); /* a new route takes the level along */
    assert_line(&f.rig, 22, false);
    assert_line(&f.rig, 23, true);
    put(T(2, CONF), ENABLE | ROUTE(23)); /* edge mode has no status */
    assert_line(&f.rig, 23, false);
    assert_int_equal(get(0x20), 0);
    put(T(0, CONF), ENABLE | LEVEL | ROUTE(20)); /* legacy replacement takes an active level along too */
    put(T(0, CMP), get(0xf0) + 100);
    rig_run(&f.rig, MS);
    assert_line(&f.rig, 20, true);
    put(0x10, 3);
    assert_line(&f.rig, 20, false);
    assert_line(&f.rig, LEGACY0, true);
    put(0x10, 1);
    assert_line(&f.rig, 20, true);
    assert_line(&f.rig, LEGACY0, false);
    assert_line(&f.rig, LEGACY8, false);
    put(T(1, CONF), ENABLE | LEVEL | ROUTE(20)); /* two on one pin: it is high while either is active */
    put(T(1, CMP), get(0xf0) + 100);
    rig_run(&f.rig, MS);
    assert_int_equal(get(0x20), 3);
    put(0x20, 1);
    assert_line(&f.rig, 20, true);
    put(0x20, 2);
    assert_line(&f.rig, 20, false);
}

static void test_legacy(void **state)
{
    put(T(0, CONF), ENABLE | PERIODIC | VAL_SET | ROUTE(20));
    put(T(0, CMP), 100000);
    put(T(1, CONF), ENABLE | PERIODIC | VAL_SET | ROUTE(21));
    put(T(1, CMP), 200000);
    put(T(2, CONF), ENABLE | PERIODIC | VAL_SET | ROUTE(22));
    put(T(2, CMP), 100000);
    put(0x10, 3);
    assert_line(&f.rig, SELECT, true);
    rig_run(&f.rig, 10 * MS);
    assert_int_equal(f.rig.line[LEGACY8].rises, 5);
    assert_int_equal(f.rig.line[LEGACY0].rises, 10);
    assert_int_equal(f.rig.line[20].rises + f.rig.line[21].rises, 0);
    assert_int_equal(f.rig.line[22].rises, 10); /* the third is not part of it */
    put(0x10, 1);
    assert_line(&f.rig, SELECT, false);
    assert_line(&f.rig, LEGACY0, false);
    rig_run(&f.rig, 10 * MS);
    assert_int_equal(f.rig.line[20].rises, 10);
    assert_int_equal(f.rig.line[LEGACY0].rises, 10);
    put(0x10, 3);
    hpet_ops.reset(&f.hpet);
    assert_line(&f.rig, SELECT, false);
    assert_int_equal(get(0xf0), 0);
}

static void test_rate_bound(void **state)
{
    for (unsigned n = 0; n < 3; n++) {
        put(T(n, CONF), ENABLE | PERIODIC | VAL_SET | ROUTE(20 + n));
        put(T(n, CMP), 1);
    }
    put(0x10, 1);
    f.rig.timer_runs = 0;
    rig_run(&f.rig, SEC);
    assert_in_range(f.rig.timer_runs, 1000, 60010); /* three of them */
    put(T(1, CONF), 0);
    put(T(2, CONF), 0);
    f.rig.timer_runs = 0;
    for (unsigned i = 0; i < 100000; i++) { /* looking often makes no more interrupts */
        get(0xf0);
        rig_run(&f.rig, 1000);
    }
    assert_in_range(f.rig.timer_runs, 100, 2010);
}

static void test_state(void **state)
{
    static struct hpet fresh;

    put(T(0, CONF), ENABLE | PERIODIC | VAL_SET | ROUTE(20));
    put(T(0, CMP), 100000);
    put(T(1, CONF), ENABLE | NARROW | ROUTE(21));
    put(T(1, CMP), 5000000);
    put(T(2, CONF), ENABLE | LEVEL | ROUTE(22));
    put(T(2, CMP), 1000);
    put(0x10, 1);
    rig_run(&f.rig, 10500000);
    hpet_init(&fresh, &f.rig.loop, rig_irq(&f.rig, 0), ROUTES, rig_irq(&f.rig, LEGACY0),
              rig_irq(&f.rig, LEGACY8), rig_irq(&f.rig, SELECT));
    rig_round_trip(&hpet_ops, &f.hpet, &fresh);
    hpet_ops.pause(&f.hpet);
    uint64_t before = f.rig.line[20].rises;
    rig_run(&f.rig, 100 * MS);
    assert_int_equal(f.rig.line[20].rises - before, 100);
    assert_int_equal(f.rig.line[21].rises, 1);
    hpet_ops.resume(&f.hpet);
    rig_jump(&f.rig, 0);
    hpet_ops.pause(&fresh);
}

static void test_attach(void **state) { rig_attach_conflicts(&f.rig.mmio, attach, NULL); }

static void test_due_match_is_not_lost(void **state)
{
    put(T(1, CONF), ENABLE | ROUTE(21));
    put(T(1, CMP), 100);
    put(0x10, 1);
    clock_advance(&f.rig.clock, 5000); /* the loop has not run yet when the guest writes again */
    put(T(1, CMP), 100000);
    assert_int_equal(f.rig.line[21].rises, 1);
    rig_run(&f.rig, MS);
    assert_int_equal(f.rig.line[21].rises, 2);
}

static void test_fuzz(void **state)
{
    for (unsigned i = 0; i < 200; i++) {
        rig_fuzz(&f.rig, &f.rig.mmio, HPET_GPA, 0x180, 1000);
        uint64_t before = f.rig.timer_runs;
        rig_run(&f.rig, 10 * MS);
        assert_true(f.rig.timer_runs - before < 650);
    }
    rig_fuzz_state(&f.rig, &hpet_ops, &f.hpet, &f.rig.mmio, HPET_GPA, 0x180, 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_capabilities, setup, teardown),
        cmocka_unit_test_setup_teardown(test_counter, setup, teardown),
        cmocka_unit_test_setup_teardown(test_one_shot, setup, teardown),
        cmocka_unit_test_setup_teardown(test_one_shot_32bit_wraps, setup, teardown),
        cmocka_unit_test_setup_teardown(test_linux_periodic, setup, teardown),
        cmocka_unit_test_setup_teardown(test_periodic, setup, teardown),
        cmocka_unit_test_setup_teardown(test_level, setup, teardown),
        cmocka_unit_test_setup_teardown(test_legacy, setup, teardown),
        cmocka_unit_test_setup_teardown(test_rate_bound, setup, teardown),
        cmocka_unit_test_setup_teardown(test_state, setup, teardown),
        cmocka_unit_test_setup_teardown(test_attach, setup, teardown),
        cmocka_unit_test_setup_teardown(test_due_match_is_not_lost, setup, teardown),
        cmocka_unit_test_setup_teardown(test_fuzz, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
