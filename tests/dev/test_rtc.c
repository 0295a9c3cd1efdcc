/* The RTC: BCD and binary, 12 and 24 hours, setting, update in progress, alarm, periodic and update-ended
 * interrupts, CMOS memory. */
#include "base/bits.h"
#include "chip/rtc.h"
#include "rig.h"

enum { IRQ8 = 0 };
enum {
    SEC_ = 0,
    SEC_ALARM,
    MIN_,
    MIN_ALARM,
    HOUR,
    HOUR_ALARM,
    WDAY,
    DAY,
    MONTH,
    YEAR,
    A,
    B,
    C,
    D,
    CENT = 0x32
};

/* Saturday 2024-02-24 23:59:50.25 UTC */
#define START (1708819190ULL * SEC + 250 * MS)

struct fixture {
    struct rig rig;
    struct rtc rtc;
};

static struct fixture f;

static int setup(void **state)
{
    rig_init(&f.rig, START);
    rtc_init(&f.rtc, &f.rig.loop, rig_irq(&f.rig, IRQ8));
    assert_int_equal(rtc_attach(&f.rtc, &f.rig.io), 0);
    return 0;
}

static int attach(void *dev) { return rtc_attach(&f.rtc, &f.rig.io); }

static int teardown(void **state)
{
    rig_fini(&f.rig);
    return 0;
}

static uint8_t get(uint8_t cell)
{
    rig_outb(&f.rig, 0x70, cell | 0x80);
    return rig_inb(&f.rig, 0x71);
}

static void put(uint8_t cell, uint8_t v)
{
    rig_outb(&f.rig, 0x70, cell);
    rig_outb(&f.rig, 0x71, v);
}

static void assert_time(unsigned cent, unsigned y, unsigned mo, unsigned d, unsigned h, unsigned mi,
                        unsigned s)
{
    assert_int_equal(get(CENT), cent);
    assert_int_equal(get(YEAR), y);
    assert_int_equal(get(MONTH), mo);
    assert_int_equal(get(DAY), d);
    assert_int_equal(get(HOUR), h);
    assert_int_equal(get(MIN_), mi);
    assert_int_equal(get(SEC_), s);
}

static void set_time(uint8_t cent, uint8_t y, uint8_t mo, uint8_t d, uint8_t h, uint8_t mi, uint8_t s)
{
    put(CENT, cent);
    put(YEAR, y);
    put(MONTH, mo);
    put(DAY, d);
    put(HOUR, h);
    put(MIN_, mi);
    put(SEC_, s);
}

static void test_read_time(void **state)
{
    assert_time(0x20, 0x24, 0x02, 0x24, 0x23, 0x59, 0x50);
    assert_int_equal(get(WDAY), 7);
    assert_int_equal(get(D), 0x80);
    rig_run(&f.rig, 9 * SEC + 749999999);
    assert_int_equal(get(SEC_), 0x59);
    rig_run(&f.rig, 1);
    assert_time(0x20, 0x24, 0x02, 0x25, 0x00, 0x00, 0x00);
    assert_int_equal(get(WDAY), 1);
    put(B, 0x06); /* binary */
    rig_run(&f.rig, 37 * SEC);
    assert_time(20, 24, 2, 25, 0, 0, 37);
    put(B, 0x00); /* BCD, 12 hours */
    assert_int_equal(get(HOUR), 0x12);
    rig_run(&f.rig, 13 * 3600 * SEC);
    assert_int_equal(get(HOUR), 0x81);
    put(B, 0x04);
    assert_int_equal(get(HOUR), 0x81);
    rig_run(&f.rig, 11 * 3600 * SEC);
    assert_int_equal(get(HOUR), 12);
}

static void test_uip(void **state)
{
    assert_int_equal(get(A), 0x26);
    rig_run(&f.rig, 749755999);
    assert_int_equal(get(A), 0x26);
    rig_run(&f.rig, 1); /* 244 us before the update */
    assert_int_equal(get(A), 0xa6);
    assert_int_equal(get(SEC_), 0x50);
    rig_run(&f.rig, 243999);
    assert_int_equal(get(A), 0xa6);
    rig_run(&f.rig, 1);
    assert_int_equal(get(A), 0x26);
    assert_int_equal(get(SEC_), 0x51);
    put(B, 0x82);
    rig_run(&f.rig, 999900000);
    assert_int_equal(get(A), 0x26); /* SET: no updates */
}

static void test_set_time(void **state)
{
    put(B, 0x82);
    set_time(0x19, 0x99, 0x12, 0x31, 0x23, 0x59, 0x58);
    put(WDAY, 3);
    rig_run(&f.rig, 5 * SEC);
    assert_time(0x19, 0x99, 0x12, 0x31, 0x23, 0x59, 0x58); /* held */
    put(B, 0x02);
    rig_run(&f.rig, SEC);
    assert_time(0x19, 0x99, 0x12, 0x31, 0x23, 0x59, 0x59);
    rig_run(&f.rig, SEC);
    assert_time(0x20, 0x00, 0x01, 0x01, 0x00, 0x00, 0x00);
    assert_int_equal(get(WDAY), 4); /* counts on from what was set */
    rig_run(&f.rig, 4 * 86400 * SEC);
    assert_int_equal(get(WDAY), 1);
    rig_run(&f.rig, 3 * 3600 * SEC + 7 * SEC);
    put(MIN_, 0x33); /* without SET: the others are those of now */
    assert_time(0x20, 0x00, 0x01, 0x05, 0x03, 0x33, 0x07);
    put(B, 0x86);
    set_time(20, 24, 0, 0, 1, 2, 3);
    put(B, 0x06);
    assert_time(20, 24, 1, 1, 1, 2, 3);
    put(B, 0x02);
    put(B, 0x86); /* impossible fields are made possible */
    set_time(20, 24, 99, 99, 99, 99, 99);
    put(B, 0x06);
    assert_time(20, 24, 12, 31, 23, 59, 59);
}

static void test_linux_set_time(void **state)
{
    /* mc146818_set_time(): SET, divider reset, cells, then both back: half a second later comes the update.
     */
    put(B, 0x82);
    put(A, 0x76);
    set_time(0x20, 0x30, 0x06, 0x15, 0x10, 0x20, 0x30);
    put(B, 0x02);
    rig_run(&f.rig, 3 * SEC);
    assert_int_equal(get(SEC_), 0x30); /* the divider still stands */
    put(A, 0x26);
    rig_run(&f.rig, 499999999);
    assert_int_equal(get(SEC_), 0x30);
    rig_run(&f.rig, 1);
    assert_time(0x20, 0x30, 0x06, 0x15, 0x10, 0x20, 0x31);
    rig_run(&f.rig, 10 * SEC);
    put(A, 0x70); /* stopping the divider alone holds the time of now */
    rig_run(&f.rig, 10 * SEC);
    assert_time(0x20, 0x30, 0x06, 0x15, 0x10, 0x20, 0x41);
    put(A, 0x26);
    rig_run(&f.rig, 800 * MS);
    put(A, 0x2a); /* a new rate does not touch the second */
    rig_run(&f.rig, 699 * MS);
    assert_int_equal(get(SEC_), 0x42);
    rig_run(&f.rig, MS);
    assert_int_equal(get(SEC_), 0x43);
}

static void test_update_interrupt(void **state)
{
    put(A, 0x20); /* no periodic ticks: their flag would be there too */
    put(SEC_ALARM, 0x61);
    assert_int_equal(get(C), 0);
    rig_run(&f.rig, SEC);
    assert_int_equal(get(C), 0x10); /* the flag comes without the enable; no IRQF */
    put(B, 0x12);
    rig_run(&f.rig, 499999999);
    assert_line(&f.rig, IRQ8, false);
    rig_run(&f.rig, 300000000);
    assert_line(&f.rig, IRQ8, true);
    assert_int_equal(get(C), 0x90);
    assert_line(&f.rig, IRQ8, false);
    assert_int_equal(get(C), 0);
    for (unsigned i = 0; i < 10; i++) {
        rig_run(&f.rig, SEC);
        assert_int_equal(get(C), 0x90);
    }
    assert_int_equal(f.rig.line[IRQ8].rises, 11);
    put(B, 0x92); /* SET takes UIE away */
    assert_int_equal(get(B), 0x82);
}

static void test_alarm(void **state)
{
    put(A, 0x20); /* no periodic ticks: their flag would be there too */
    put(SEC_ALARM, 0x05);
    put(MIN_ALARM, 0x00);
    put(HOUR_ALARM, 0x00);
    put(B, 0x22);
    rig_run(&f.rig, 14 * SEC);
    assert_line(&f.rig, IRQ8, false);
    rig_run(&f.rig, SEC); /* 00:00:05.25 */
    assert_line(&f.rig, IRQ8, true);
    assert_int_equal(get(C), 0xb0);
    rig_run(&f.rig, 86399 * SEC);
    assert_line(&f.rig, IRQ8, false);
    rig_run(&f.rig, SEC);
    assert_int_equal(get(C), 0xb0);
    put(HOUR_ALARM, 0xff); /* any hour */
    put(MIN_ALARM, 0xc0);  /* any minute */
    rig_run(&f.rig, 60 * SEC);
    assert_int_equal(get(C), 0xb0);
    put(B, 0x02); /* the flag alone, found by somebody who looks late */
    rig_run(&f.rig, 1000 * SEC);
    assert_int_equal(get(C), 0x30);
    put(SEC_ALARM, 0x61); /* never */
    rig_run(&f.rig, 200000 * SEC);
    assert_int_equal(get(C), 0x10);
}

static void test_alarm_12h(void **state)
{
    put(A, 0x20); /* no periodic ticks: their flag would be there too */
    put(B, 0x20);
    put(HOUR_ALARM, 0x12); /* midnight */
    put(MIN_ALARM, 0x00);
    put(SEC_ALARM, 0x00);
    get(C);
    rig_run(&f.rig, 10 * SEC);
    assert_int_equal(get(C), 0xb0);
    put(HOUR_ALARM, 0x92); /* noon */
    rig_run(&f.rig, 12 * 3600 * SEC - 2 * SEC);
    assert_int_equal(get(C), 0x10);
    rig_run(&f.rig, 2 * SEC);
    assert_int_equal(get(C), 0xb0);
}

static unsigned periodic(uint8_t rate, uint64_t ns)
{
    unsigned n = 0;

    put(A, 0x20 | rate);
    get(C);
    uint64_t end = clock_ns(&f.rig.clock) + ns;
    while (clock_ns(&f.rig.clock) < end) {
        rig_run(&f.rig, 20000);
        if (f.rig.line[IRQ8].level) {
            assert_int_equal(get(C) & 0xc0, 0xc0);
            n++;
        }
    }
    return n;
}

static void test_periodic(void **state)
{
    put(B, 0x42);
    assert_int_equal(periodic(15, 4100 * MS), 8);
    assert_in_range(periodic(6, SEC), 1023, 1025);
    assert_in_range(periodic(3, SEC), 8191, 8193);
    assert_in_range(periodic(1, SEC), 255, 257);
    assert_in_range(periodic(2, SEC), 127, 129);
    assert_int_equal(periodic(0, SEC), 0);
    /* Nobody reads C: one interrupt, no timer storm. */
    put(A, 0x23);
    f.rig.timer_runs = 0;
    rig_run(&f.rig, 10 * SEC);
    assert_true(f.rig.timer_runs < 3);
    put(B, 0x02); /* the flag is there for polling too */
    get(C);
    rig_run(&f.rig, 200000);
    assert_int_equal(get(C) & 0xc0, 0x40);
}

static void test_memory(void **state)
{
    for (unsigned cell = 0x0e; cell < 128; cell++) {
        if (cell != CENT)
            put((uint8_t)cell, (uint8_t)(cell * 3));
    }
    for (unsigned cell = 0x0e; cell < 128; cell++) {
        if (cell != CENT)
            assert_int_equal(get((uint8_t)cell), (uint8_t)(cell * 3));
    }
    rtc_set_memory(&f.rtc, 3ULL << 30, 5ULL << 30);
    assert_int_equal(get(0x15) | get(0x16) << 8, 640);
    assert_int_equal(get(0x17) | get(0x18) << 8, 0xffff);
    assert_int_equal(get(0x34) | get(0x35) << 8, ((3ULL << 30) - (16 << 20)) >> 16);
    assert_int_equal(get(0x5b) | get(0x5c) << 8 | get(0x5d) << 16, (5ULL << 30) >> 16);
    rtc_set_memory(&f.rtc, 8 << 20, 0);
    assert_int_equal(get(0x17) | get(0x18) << 8, 7 * 1024);
    assert_int_equal(get(0x30) | get(0x31) << 8, 7 * 1024);
    assert_int_equal(get(0x34) | get(0x35) << 8, 0);
    rtc_set_cmos(&f.rtc, B, 0xff); /* not a memory cell */
    assert_int_equal(get(B), 0x02);
    rtc_set_cmos(&f.rtc, 0x5f, 3);
    put(A, 0x23);
    put(B, 0x72);
    rig_run(&f.rig, MS);
    assert_line(&f.rig, IRQ8, true);
    rtc_ops.reset(&f.rtc);
    assert_line(&f.rig, IRQ8, false);
    assert_int_equal(get(B), 0x02);
    assert_int_equal(get(0x5f), 3); /* the battery */
    assert_time(0x20, 0x24, 0x02, 0x24, 0x23, 0x59, 0x50);
    put(D, 0);
    assert_int_equal(get(D), 0x80);
}

static void test_blocked(void **state)
{
    put(B, 0x42);
    rtc_block_irq(&f.rtc, 0, true);
    rig_run(&f.rig, SEC);
    assert_line(&f.rig, IRQ8, false);
    assert_int_equal(get(C) & 0xc0, 0xc0);
    rig_run(&f.rig, SEC);
    rtc_block_irq(&f.rtc, 0, false);
    assert_line(&f.rig, IRQ8, true);
}

static void test_alarm_output(void **state)
{
    rtc_connect_alarm(&f.rtc, rig_irq(&f.rig, 5));
    put(A, 0x20);
    put(SEC_ALARM, 0x55);
    put(MIN_ALARM, 0xff);
    put(HOUR_ALARM, 0xff);
    rtc_block_irq(&f.rtc, 0, true); /* as under the HPET's legacy replacement */
    put(B, 0x32);
    rig_run(&f.rig, 4 * SEC);
    assert_line(&f.rig, 5, false); /* an update is no alarm */
    rig_run(&f.rig, SEC);
    assert_line(&f.rig, 5, true);
    assert_line(&f.rig, IRQ8, false);
    get(C);
    assert_line(&f.rig, 5, false);
    put(B, 0x02);
    rig_run(&f.rig, 60 * SEC);
    assert_line(&f.rig, 5, false);
}

static void test_host_clock_back(void **state)
{
    put(A, 0x20); /* no periodic ticks: their flag would be there too */
    get(C);
    f.rig.clock.manual_wall_ns -= 3600 * SEC;
    assert_int_equal(get(HOUR), 0x22);
    assert_int_equal(get(C), 0);
    rig_run(&f.rig, SEC);
    assert_int_equal(get(C), 0x10);
}

static void test_state(void **state)
{
    static struct rtc fresh;

    put(B, 0x82);
    set_time(0x19, 0x85, 0x10, 0x26, 0x01, 0x21, 0x00);
    put(B, 0x72);
    rig_run(&f.rig, 12345678);
    rtc_init(&fresh, &f.rig.loop, rig_irq(&f.rig, 1));
    rig_round_trip(&rtc_ops, &f.rtc, &fresh);
    assert_int_equal(f.rig.line[1].level, f.rig.line[IRQ8].level);
    rig_run(&f.rig, 3 * SEC);
    get(C);
    bus_remove(&f.rig.io, &f.rtc.ports);
    assert_int_equal(rtc_attach(&fresh, &f.rig.io), 0);
    assert_int_equal(get(C), 0xd0);
    assert_time(0x19, 0x85, 0x10, 0x26, 0x01, 0x21, 0x03);
    rtc_ops.pause(&fresh);
}

static void test_attach(void **state) { rig_attach_conflicts(&f.rig.io, attach, NULL); }

static void test_fuzz(void **state)
{
    for (unsigned i = 0; i < 100; i++) {
        rig_fuzz(&f.rig, &f.rig.io, 0x70, 2, 1000);
        for (unsigned j = 0; j < 1000; j++) {
            uint64_t x = rig_random(&f.rig);
            put(x & 15, (uint8_t)(x >> 8));
        }
        uint64_t before = f.rig.timer_runs;
        rig_run(&f.rig, 100 * MS);
        assert_true(f.rig.timer_runs - before < 1000);
    }
    rig_fuzz_state(&f.rig, &rtc_ops, &f.rtc, &f.rig.io, 0x70, 2, 500);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_read_time, setup, teardown),
        cmocka_unit_test_setup_teardown(test_uip, setup, teardown),
        cmocka_unit_test_setup_teardown(test_set_time, setup, teardown),
        cmocka_unit_test_setup_teardown(test_linux_set_time, setup, teardown),
        cmocka_unit_test_setup_teardown(test_update_interrupt, setup, teardown),
        cmocka_unit_test_setup_teardown(test_alarm, setup, teardown),
        cmocka_unit_test_setup_teardown(test_alarm_12h, setup, teardown),
        cmocka_unit_test_setup_teardown(test_periodic, setup, teardown),
        cmocka_unit_test_setup_teardown(test_memory, setup, teardown),
        cmocka_unit_test_setup_teardown(test_blocked, setup, teardown),
        cmocka_unit_test_setup_teardown(test_alarm_output, setup, teardown),
        cmocka_unit_test_setup_teardown(test_host_clock_back, setup, teardown),
        cmocka_unit_test_setup_teardown(test_state, setup, teardown),
        cmocka_unit_test_setup_teardown(test_attach, setup, teardown),
        cmocka_unit_test_setup_teardown(test_fuzz, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
