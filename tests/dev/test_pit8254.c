/* The 8254 against the datasheet: each mode's OUT and count, latches, read-back, BCD, gates; port 0x61; IRQ 0
 * with lost ticks and hostile rates. */
#include "base/bits.h"
#include "chip/pit8254.h"
#include "rig.h"

enum { IRQ0 = 0 };

struct fixture {
    struct rig rig;
    struct pit pit;
};

static struct fixture f;

static int setup(void **state)
{
    rig_init(&f.rig, 0);
    pit_init(&f.pit, &f.rig.loop, rig_irq(&f.rig, IRQ0));
    assert_int_equal(pit_attach(&f.pit, &f.rig.io), 0);
    return 0;
}

static int attach(void *dev) { return pit_attach(&f.pit, &f.rig.io); }

static int teardown(void **state)
{
    rig_fini(&f.rig);
    return 0;
}

static uint64_t tick_now(void) { return muldiv64(clock_ns(&f.rig.clock), PIT_HZ, SEC); }

/* Let exactly n input clocks pass. */
static void ticks(uint64_t n)
{
    uint64_t target = tick_now() + n;

    while (tick_now() < target) {
        uint64_t left = target - tick_now();
        rig_run(&f.rig, left > 1 ? (left - 1) * 838 : 1);
    }
}

static void control(unsigned channel, unsigned access, unsigned mode, bool bcd)
{
    rig_outb(&f.rig, 0x43, (uint8_t)(channel << 6 | access << 4 | mode << 1 | bcd));
}

static void load16(unsigned channel, uint16_t n)
{
    rig_outb(&f.rig, (uint16_t)(0x40 + channel), (uint8_t)n);
    rig_outb(&f.rig, (uint16_t)(0x40 + channel), (uint8_t)(n >> 8));
}

static uint16_t read16(unsigned channel)
{
    uint16_t lo = rig_inb(&f.rig, (uint16_t)(0x40 + channel));
    return (uint16_t)(lo | rig_inb(&f.rig, (uint16_t)(0x40 + channel)) << 8);
}

static uint16_t latch16(unsigned channel)
{
    control(channel, 0, 0, false);
    return read16(channel);
}

static uint8_t status_of(unsigned channel)
{
    rig_outb(&f.rig, 0x43, (uint8_t)(0xe0 | 2 << channel));
    return rig_inb(&f.rig, (uint16_t)(0x40 + channel));
}

static void gate2(bool on) { rig_outb(&f.rig, 0x61, on); }

static void test_mode0(void **state)
{
    gate2(true);
    control(2, 3, 0, false);
    assert_false(pit_out(&f.pit, 2));
    assert_int_equal(status_of(2), 0x70); /* low, null count, both bytes, mode 0 */
    load16(2, 100);
    ticks(1);
    assert_int_equal(status_of(2), 0x30);
    assert_int_equal(latch16(2), 100);
    ticks(60);
    assert_int_equal(latch16(2), 40);
    gate2(false); /* counting is suspended */
    ticks(500);
    assert_int_equal(latch16(2), 40);
    gate2(true);
    ticks(39);
    assert_false(pit_out(&f.pit, 2));
    ticks(1);
    assert_true(pit_out(&f.pit, 2)); /* N + 1 clocks after the write */
    assert_int_equal(latch16(2), 0);
    ticks(1);
    assert_int_equal(latch16(2), 0xffff); /* goes on counting */
    assert_true(pit_out(&f.pit, 2));
    load16(2, 5);
    assert_false(pit_out(&f.pit, 2));
    ticks(6);
    assert_true(pit_out(&f.pit, 2));
    rig_outb(&f.rig, 0x42, 9); /* the first byte takes OUT low and stops */
    assert_false(pit_out(&f.pit, 2));
    ticks(100);
    assert_false(pit_out(&f.pit, 2));
}

static void test_mode1(void **state)
{
    control(2, 3, 1, false);
    load16(2, 10);
    assert_true(pit_out(&f.pit, 2));
    ticks(50);
    assert_true(pit_out(&f.pit, 2));
    assert_int_equal(status_of(2) & 0x40, 0x40); /* not loaded before the trigger */
    gate2(true);
    ticks(1);
    assert_false(pit_out(&f.pit, 2));
    assert_int_equal(status_of(2) & 0x40, 0);
    ticks(9);
    assert_false(pit_out(&f.pit, 2));
    ticks(1);
    assert_true(pit_out(&f.pit, 2));
    gate2(false);
    gate2(true); /* retrigger, and again in the middle of the pulse */
    ticks(6);
    gate2(false);
    gate2(true);
    ticks(10);
    assert_false(pit_out(&f.pit, 2));
    ticks(1);
    assert_true(pit_out(&f.pit, 2));
    load16(2, 3); /* the new count waits for the next trigger */
    gate2(false);
    gate2(true);
    ticks(3);
    assert_false(pit_out(&f.pit, 2));
    ticks(1);
    assert_true(pit_out(&f.pit, 2));
}

static void test_mode2(void **state)
{
    gate2(true);
    control(2, 3, 6, false); /* bit 2 of the mode does not count */
    load16(2, 4);
    ticks(1);
    for (unsigned i = 0; i < 12; i++) {
        assert_int_equal(latch16(2), 4 - i % 4);
        assert_int_equal(pit_out(&f.pit, 2), i % 4 != 3);
        ticks(1);
    }
    load16(2, 6); /* taken at the end of this period */
    assert_int_equal(status_of(2) & 0x40, 0x40);
    ticks(3);
    assert_int_equal(latch16(2), 1);
    ticks(1);
    assert_int_equal(latch16(2), 6);
    assert_int_equal(status_of(2) & 0x40, 0);
    ticks(5);
    assert_false(pit_out(&f.pit, 2));
    gate2(false);
    assert_true(pit_out(&f.pit, 2)); /* gate low: OUT high at once */
    ticks(100);
    assert_true(pit_out(&f.pit, 2));
    gate2(true); /* rising edge: a fresh period */
    ticks(1);
    assert_int_equal(latch16(2), 6);
    ticks(5);
    assert_false(pit_out(&f.pit, 2));
}

static void test_mode3(void **state)
{
    gate2(true);
    control(2, 3, 3, false);
    load16(2, 6);
    ticks(1);
    for (unsigned i = 0; i < 12; i++) {
        assert_int_equal(pit_out(&f.pit, 2), i % 6 < 3);
        assert_int_equal(latch16(2), 6 - 2 * (i % 3));
        ticks(1);
    }
    load16(2, 5);
    ticks(6);
    static const uint8_t count[5] = { 4, 2, 0, 4, 2 };
    for (unsigned i = 0; i < 10; i++) { /* odd: one clock longer high than low */
        assert_int_equal(pit_out(&f.pit, 2), i % 5 < 3);
        assert_int_equal(latch16(2), count[i % 5]);
        ticks(1);
    }
}

static void test_modes_4_and_5(void **state)
{
    gate2(true);
    control(2, 3, 4, false);
    load16(2, 7);
    ticks(7);
    assert_true(pit_out(&f.pit, 2));
    ticks(1);
    assert_false(pit_out(&f.pit, 2)); /* the strobe, one clock */
    ticks(1);
    assert_true(pit_out(&f.pit, 2));
    ticks(65536);
    assert_true(pit_out(&f.pit, 2)); /* it is not repeated when the count wraps */
    gate2(false);
    control(2, 3, 5, false);
    load16(2, 7);
    ticks(20);
    assert_true(pit_out(&f.pit, 2));
    gate2(true);
    ticks(8);
    assert_false(pit_out(&f.pit, 2));
    ticks(1);
    assert_true(pit_out(&f.pit, 2));
}

static void test_bcd(void **state)
{
    gate2(true);
    control(2, 3, 0, true);
    load16(2, 0x1000);
    ticks(2);
    assert_int_equal(latch16(2), 0x0999);
    load16(2, 0); /* 10000 */
    ticks(1);
    assert_int_equal(latch16(2), 0x0000);
    ticks(1);
    assert_int_equal(latch16(2), 0x9999);
    ticks(9999);
    assert_true(pit_out(&f.pit, 2));
}

static void test_access(void **state)
{
    gate2(true);
    control(2, 1, 2, false);
    rig_outb(&f.rig, 0x42, 0x80);
    ticks(1);
    assert_int_equal(rig_inb(&f.rig, 0x42), 0x80);
    assert_int_equal(rig_inb(&f.rig, 0x42), 0x80);
    control(2, 2, 2, false);
    rig_outb(&f.rig, 0x42, 0x12);
    ticks(1);
    assert_int_equal(rig_inb(&f.rig, 0x42), 0x12);
    ticks(1);
    assert_int_equal(rig_inb(&f.rig, 0x42), 0x11);
    control(2, 0, 0, false);
    ticks(0x300);
    assert_int_equal(rig_inb(&f.rig, 0x42), 0x11); /* latched: one byte */
    assert_int_equal(rig_inb(&f.rig, 0x42), 0x0e);
    assert_int_equal(rig_inb(&f.rig, 0x43), 0xff);
}

static void test_latch_and_read_back(void **state)
{
    gate2(true);
    control(2, 3, 2, false);
    load16(2, 1000);
    control(0, 3, 2, false);
    load16(0, 2000);
    ticks(11);
    rig_outb(&f.rig, 0x43, 0xca); /* count and status of 0 and 2 */
    ticks(100);
    rig_outb(&f.rig, 0x43, 0xca);                  /* the first latch holds */
    assert_int_equal(rig_inb(&f.rig, 0x42), 0xb4); /* status comes first */
    assert_int_equal(read16(2), 990);
    assert_int_equal(read16(2), 890);
    assert_int_equal(rig_inb(&f.rig, 0x40), 0xb4);
    assert_int_equal(read16(0), 1990);
    control(2, 0, 0, false);
    assert_int_equal(rig_inb(&f.rig, 0x42), 890 & 0xff);
    ticks(5);
    assert_int_equal(rig_inb(&f.rig, 0x42), 890 >> 8);
}

static void test_port61(void **state)
{
    unsigned changes = 0;
    uint8_t last = rig_inb(&f.rig, 0x61) & 0x10;

    rig_outb(&f.rig, 0x61, 0xff);
    assert_int_equal(rig_inb(&f.rig, 0x61) & 0xcf, 0x0f);
    for (unsigned i = 0; i < 1000; i++) {
        rig_run(&f.rig, 1000);
        uint8_t now = rig_inb(&f.rig, 0x61) & 0x10;
        changes += now != last;
        last = now;
    }
    assert_in_range(changes, 64, 68); /* each 15.085 us in 1 ms */
    /* Linux's TSC calibration: gate off, mode 0, gate on, wait for OUT 2. */
    rig_outb(&f.rig, 0x61, 0);
    rig_outb(&f.rig, 0x43, 0xb0);
    rig_outb(&f.rig, 0x42, 0x9b);
    rig_outb(&f.rig, 0x61, 1);
    rig_outb(&f.rig, 0x42, 0x2e); /* 11931: 10 ms */
    uint64_t start = clock_ns(&f.rig.clock);
    while (!(rig_inb(&f.rig, 0x61) & 0x20))
        rig_run(&f.rig, 1000);
    assert_in_range(clock_ns(&f.rig.clock) - start, 9990000, 10010000);
}

static void test_irq_periodic(void **state)
{
    control(0, 3, 2, false);
    assert_int_equal(f.rig.line[IRQ0].rises, 0);
    load16(0, 11932);
    rig_run(&f.rig, 1005 * MS);
    assert_int_equal(f.rig.line[IRQ0].rises, 100); /* 100 Hz */
    control(0, 3, 3, false);
    load16(0, 0);
    f.rig.line[IRQ0].rises = 0;
    rig_run(&f.rig, 10 * SEC);
    assert_int_equal(f.rig.line[IRQ0].rises, 182); /* 18.2 Hz */
}

static void test_irq_one_shot(void **state)
{
    control(0, 3, 0, false);
    assert_line(&f.rig, IRQ0, false);
    load16(0, 1193);
    rig_run(&f.rig, 999000);
    assert_line(&f.rig, IRQ0, false);
    rig_run(&f.rig, 3000);
    assert_line(&f.rig, IRQ0, true);
    rig_run(&f.rig, SEC);
    assert_int_equal(f.rig.line[IRQ0].rises, 1);
    load16(0, 1193);
    rig_run(&f.rig, 2 * MS);
    assert_int_equal(f.rig.line[IRQ0].rises, 2);
    control(0, 3, 4, false);
    assert_line(&f.rig, IRQ0, true); /* OUT is high in mode 4, low in mode 0 */
    control(0, 3, 0, false);
    assert_line(&f.rig, IRQ0, false);
    control(0, 3, 4, false);
    load16(0, 1193);
    rig_run(&f.rig, SEC);
    assert_int_equal(f.rig.line[IRQ0].rises, 3);
}

static void test_irq_period_change(void **state)
{
    control(0, 3, 2, false);
    load16(0, 11932);
    rig_run(&f.rig, 1005 * MS); /* 5 ms into a period */
    uint64_t before = f.rig.line[IRQ0].rises;
    load16(0, 1193);
    rig_run(&f.rig, 4 * MS);
    assert_int_equal(f.rig.line[IRQ0].rises - before, 0); /* the old period ends first */
    rig_run(&f.rig, 3500000);
    assert_int_equal(f.rig.line[IRQ0].rises - before, 1 + 2);
}

static void test_irq_lost_ticks(void **state)
{
    control(0, 3, 2, false);
    load16(0, 1193); /* 1 ms */
    rig_run(&f.rig, 500000);
    rig_jump(&f.rig, 10 * MS); /* the host was late */
    assert_int_equal(f.rig.line[IRQ0].rises, 1);
    rig_run(&f.rig, 40 * MS);
    assert_int_equal(f.rig.line[IRQ0].rises, 50); /* all made up for */
    rig_jump(&f.rig, 10 * SEC);                   /* a long stall is not replayed */
    f.rig.line[IRQ0].rises = 0;
    rig_run(&f.rig, 100 * MS);
    assert_in_range(f.rig.line[IRQ0].rises, 110, 118);
}

static void test_irq_rate_bound(void **state)
{
    control(0, 3, 2, false);
    load16(0, 1);
    f.rig.timer_runs = 0;
    rig_run(&f.rig, SEC);
    assert_in_range(f.rig.timer_runs, 1000, 20010);
    control(0, 1, 3, false);
    rig_outb(&f.rig, 0x40, 2);
    f.rig.timer_runs = 0;
    rig_run(&f.rig, SEC);
    assert_in_range(f.rig.timer_runs, 1000, 20010);
}

static void test_irq_blocked(void **state)
{
    control(0, 3, 2, false);
    load16(0, 1193);
    pit_block_irq(&f.pit, 0, true);
    rig_run(&f.rig, SEC);
    assert_int_equal(f.rig.line[IRQ0].rises, 0);
    pit_block_irq(&f.pit, 0, false);
    rig_run(&f.rig, 10 * MS);
    assert_int_equal(f.rig.line[IRQ0].rises, 10);
}

static void test_state(void **state)
{
    static struct pit fresh;

    control(0, 3, 2, false);
    load16(0, 5000);
    control(2, 3, 1, true);
    load16(2, 0x1234);
    gate2(true);
    ticks(777);
    control(2, 0, 0, false);
    rig_inb(&f.rig, 0x42);
    load16(0, 3000);
    pit_init(&fresh, &f.rig.loop, rig_irq(&f.rig, 1));
    rig_round_trip(&pit_ops, &f.pit, &fresh);
    f.rig.line[IRQ0].rises = f.rig.line[1].rises = 0;
    rig_run(&f.rig, 100 * MS);
    assert_int_equal(f.rig.line[1].rises, f.rig.line[IRQ0].rises);
    assert_true(f.rig.line[1].rises > 30);
    rig_assert_same(&pit_ops, &f.pit, &fresh);
    assert_int_equal(pit_out(&fresh, 2), pit_out(&f.pit, 2));
    pit_ops.pause(&fresh);
}

static void test_pause(void **state)
{
    control(0, 3, 2, false);
    load16(0, 1193);
    rig_run(&f.rig, 5 * MS);
    uint64_t before = f.rig.line[IRQ0].rises;
    clock_stop(&f.rig.clock);
    pit_ops.pause(&f.pit);
    assert_false(timer_armed(&f.pit.timer));
    clock_advance(&f.rig.clock, 100 * SEC);
    clock_start(&f.rig.clock);
    pit_ops.resume(&f.pit);
    rig_run(&f.rig, 5 * MS);
    assert_in_range(f.rig.line[IRQ0].rises - before, 4, 6);
}

static void test_attach(void **state) { rig_attach_conflicts(&f.rig.io, attach, NULL); }

static void test_irq_strobe_time(void **state)
{
    control(0, 3, 4, false);
    load16(0, 1193);
    ticks(1194);
    rig_jump(&f.rig, 0);
    assert_int_equal(f.rig.line[IRQ0].rises, 0); /* OUT is low: it rises after the strobe */
    ticks(1);
    rig_jump(&f.rig, 0);
    assert_int_equal(f.rig.line[IRQ0].rises, 1);
    load16(0, 100);
    clock_advance(&f.rig.clock, MS); /* due, but the loop has not run yet: reprogramming does not lose it */
    load16(0, 60000);
    assert_int_equal(f.rig.line[IRQ0].rises, 2);
    pit_ops.reset(&f.pit);
    assert_line(&f.rig, IRQ0, false);
}

static void test_fuzz(void **state)
{
    for (unsigned i = 0; i < 200; i++) {
        rig_fuzz(&f.rig, &f.rig.io, 0x40, 4, 1000);
        rig_fuzz(&f.rig, &f.rig.io, 0x61, 1, 10);
        uint64_t before = f.rig.timer_runs;
        rig_run(&f.rig, 10 * MS);
        assert_true(f.rig.timer_runs - before < 210);
    }
    rig_fuzz_state(&f.rig, &pit_ops, &f.pit, &f.rig.io, 0x40, 4, 500);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_mode0, setup, teardown),
        cmocka_unit_test_setup_teardown(test_mode1, setup, teardown),
        cmocka_unit_test_setup_teardown(test_mode2, setup, teardown),
        cmocka_unit_test_setup_teardown(test_mode3, setup, teardown),
        cmocka_unit_test_setup_teardown(test_modes_4_and_5, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bcd, setup, teardown),
        cmocka_unit_test_setup_teardown(test_access, setup, teardown),
        cmocka_unit_test_setup_teardown(test_latch_and_read_back, setup, teardown),
        cmocka_unit_test_setup_teardown(test_port61, setup, teardown),
        cmocka_unit_test_setup_teardown(test_irq_periodic, setup, teardown),
        cmocka_unit_test_setup_teardown(test_irq_one_shot, setup, teardown),
        cmocka_unit_test_setup_teardown(test_irq_period_change, setup, teardown),
        cmocka_unit_test_setup_teardown(test_irq_lost_ticks, setup, teardown),
        cmocka_unit_test_setup_teardown(test_irq_rate_bound, setup, teardown),
        cmocka_unit_test_setup_teardown(test_irq_blocked, setup, teardown),
        cmocka_unit_test_setup_teardown(test_state, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pause, setup, teardown),
        cmocka_unit_test_setup_teardown(test_attach, setup, teardown),
        cmocka_unit_test_setup_teardown(test_irq_strobe_time, setup, teardown),
        cmocka_unit_test_setup_teardown(test_fuzz, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
