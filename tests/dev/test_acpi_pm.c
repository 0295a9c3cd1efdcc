/* ACPI fixed hardware: the PM timer's rate and width, event status and enables, SCI, ACPI on and off, S5,
 * power button, GPEs, reset register. */
#include "base/bits.h"
#include "chip/acpi_pm.h"
#include "rig.h"

enum { SCI = 0 };
enum { STS = 0x600, EN = 0x602, CNT = 0x604, TMR = 0x608, GPE_STS = 0x620, GPE_EN = 0x622, SMI = 0xb2 };

struct fixture {
    struct rig rig;
    struct acpi_pm pm;
    unsigned off, resets;
};

static struct fixture f;

static void on_off(void *opaque) { ((struct fixture *)opaque)->off++; }
static void on_reset(void *opaque) { ((struct fixture *)opaque)->resets++; }

static int start(bool wide)
{
    struct acpi_pm_hooks hooks = { .power_off = on_off, .reset = on_reset, .opaque = &f };

    f.off = f.resets = 0;
    rig_init(&f.rig, 0);
    acpi_pm_init(&f.pm, &f.rig.loop, rig_irq(&f.rig, SCI), wide, hooks);
    assert_int_equal(acpi_pm_attach(&f.pm, &f.rig.io), 0);
    assert_int_equal(bus_add(&f.rig.io, &f.pm.reset_region), 0);
    return 0;
}

static int setup(void **state) { return start(false); }
static int setup_wide(void **state) { return start(true); }

static int attach(void *dev) { return acpi_pm_attach(&f.pm, &f.rig.io); }

static int teardown(void **state)
{
    rig_fini(&f.rig);
    return 0;
}

static uint16_t get16(uint16_t port) { return (uint16_t)bus_read(&f.rig.io, port, 2); }
static void put16(uint16_t port, uint16_t v) { bus_write(&f.rig.io, port, v, 2); }
static uint32_t timer(void) { return (uint32_t)bus_read(&f.rig.io, TMR, 4); }

static void test_timer_rate(void **state)
{
    assert_int_equal(timer(), 0);
    rig_run(&f.rig, SEC);
    assert_int_equal(get16(STS), 0); /* no carry yet */
    assert_int_equal(timer(), 3579545);
    rig_run(&f.rig, 4 * SEC);
    assert_int_equal(timer(), (5 * 3579545) & 0xffffff); /* 24 bits wrap after 4.69 s */
    assert_int_equal(timer() >> 24, 0);
    assert_int_equal(bus_read(&f.rig.io, TMR, 2), timer() & 0xffff);
    uint32_t last = timer();
    for (unsigned i = 0; i < 10000; i++) {
        rig_run(&f.rig, 100);
        uint32_t now = timer();
        assert_true(((now - last) & 0xffffff) <= 1);
        last = now;
    }
}

static void test_timer_wide(void **state)
{
    rig_run(&f.rig, 500 * SEC);
    assert_int_equal(get16(STS), 0);
    rig_run(&f.rig, 500 * SEC);
    assert_int_equal(timer(), 3579545000U);
    assert_int_equal(get16(STS), 1); /* bit 31 has changed */
    rig_run(&f.rig, 200 * SEC);
    assert_int_equal(timer(), (uint32_t)(1200ULL * 3579545));
}

static void test_enable_disable(void **state)
{
    assert_int_equal(get16(CNT), 0);
    put16(CNT, 1); /* SCI_EN is not the guest's to write */
    assert_int_equal(get16(CNT) & 1, 0);
    rig_outb(&f.rig, SMI, ACPI_PM_ENABLE);
    assert_int_equal(get16(CNT) & 1, 1);
    put16(CNT, 0);
    assert_int_equal(get16(CNT) & 1, 1);
    rig_outb(&f.rig, SMI, ACPI_PM_DISABLE);
    assert_int_equal(get16(CNT) & 1, 0);
    rig_outb(&f.rig, SMI + 1, 0x5a);
    assert_int_equal(rig_inb(&f.rig, SMI + 1), 0x5a);
}

static void test_power_button(void **state)
{
    assert_false(acpi_pm_power_button(&f.pm)); /* nobody listens */
    assert_int_equal(get16(STS), 0x0100);
    assert_line(&f.rig, SCI, false);
    put16(STS, 0x0100);
    assert_int_equal(get16(STS), 0);
    put16(EN, 0x0100);
    assert_false(acpi_pm_power_button(&f.pm)); /* enabled, but without SCI */
    assert_line(&f.rig, SCI, false);
    put16(EN, 0);
    put16(STS, 0x0100);
    rig_outb(&f.rig, SMI, ACPI_PM_ENABLE);
    put16(EN, 0x0100);
    assert_true(acpi_pm_power_button(&f.pm));
    assert_line(&f.rig, SCI, true);
    rig_outb(&f.rig, STS, 0xff); /* the other byte */
    assert_line(&f.rig, SCI, true);
    rig_outb(&f.rig, STS + 1, 0x01);
    assert_line(&f.rig, SCI, false);
    put16(EN, 0xffff);
    assert_int_equal(get16(EN), 0x0721);
}

static void test_rtc_alarm(void **state)
{
    rig_outb(&f.rig, SMI, ACPI_PM_ENABLE);
    put16(EN, 0x0400);
    acpi_pm_rtc_alarm(&f.pm, 0, true);
    assert_line(&f.rig, SCI, true);
    acpi_pm_rtc_alarm(&f.pm, 0, false);
    assert_int_equal(get16(STS), 0x0400);
    put16(STS, 0x0400);
    assert_line(&f.rig, SCI, false);
    acpi_pm_rtc_alarm(&f.pm, 0, false);
    assert_int_equal(get16(STS), 0);
}

static void test_timer_interrupt(void **state)
{
    rig_outb(&f.rig, SMI, ACPI_PM_ENABLE);
    put16(EN, 0x0001);
    rig_run(&f.rig, 2343000000ULL); /* 2^23 ticks take 2.3435 s */
    assert_line(&f.rig, SCI, false);
    rig_run(&f.rig, 1000000);
    assert_line(&f.rig, SCI, true);
    assert_int_equal(get16(STS), 1);
    put16(STS, 1);
    assert_line(&f.rig, SCI, false);
    rig_run(&f.rig, 2344 * MS);
    assert_line(&f.rig, SCI, true);
    put16(EN, 0);
    put16(STS, 1);
    rig_run(&f.rig, 5 * SEC);
    assert_line(&f.rig, SCI, false);
    assert_int_equal(get16(STS), 1); /* the status comes without the enable */
    f.rig.timer_runs = 0;
    put16(EN, 1); /* nobody clears it: no more wake-ups */
    rig_run(&f.rig, 1000 * SEC);
    assert_int_equal(f.rig.timer_runs, 0);
}

static void test_s5(void **state)
{
    put16(CNT, 5 << 10);
    assert_int_equal(f.off, 0);
    put16(CNT, 3 << 10 | 1 << 13); /* another sleep type */
    assert_int_equal(f.off, 0);
    put16(CNT, 5 << 10 | 1 << 13);
    assert_int_equal(f.off, 1);
    assert_int_equal(get16(CNT) & (1 << 13), 0); /* SLP_EN is write-only */
    rig_outb(&f.rig, CNT + 1, 0x34);
    assert_int_equal(f.off, 2);
}

static void test_gpe(void **state)
{
    rig_outb(&f.rig, SMI, ACPI_PM_ENABLE);
    acpi_pm_raise_gpe(&f.pm, 3);
    acpi_pm_raise_gpe(&f.pm, 16);
    assert_int_equal(get16(GPE_STS), 0x0008);
    assert_line(&f.rig, SCI, false);
    rig_outb(&f.rig, GPE_EN, 0x08);
    assert_line(&f.rig, SCI, true);
    rig_outb(&f.rig, GPE_STS, 0x08);
    assert_line(&f.rig, SCI, false);
    acpi_pm_raise_gpe(&f.pm, 3); /* enabled already */
    assert_line(&f.rig, SCI, true);
    rig_outb(&f.rig, GPE_STS, 0x08);
    acpi_pm_raise_gpe(&f.pm, 15);
    rig_outb(&f.rig, GPE_EN + 1, 0x80);
    assert_line(&f.rig, SCI, true);
    assert_int_equal(get16(GPE_EN), 0x8008);
    bus_write(&f.rig.io, GPE_STS, 0x00018000, 4);
    assert_line(&f.rig, SCI, false);
    assert_int_equal(get16(GPE_EN), 0x0001);
}

static void test_reset_register(void **state)
{
    rig_outb(&f.rig, 0xcf9, 0x02);
    assert_int_equal(f.resets, 0);
    rig_outb(&f.rig, 0xcf9, 0x06);
    assert_int_equal(f.resets, 1);
    rig_outb(&f.rig, 0xcf9, 0x06); /* the change from 0 to 1 counts */
    assert_int_equal(f.resets, 1);
    assert_int_equal(rig_inb(&f.rig, 0xcf9), 0x06);
    acpi_pm_ops.reset(&f.pm);
    assert_int_equal(rig_inb(&f.rig, 0xcf9), 0x00);
    rig_outb(&f.rig, 0xcf9, 0x0e);
    assert_int_equal(f.resets, 2);
}

static void test_state(void **state)
{
    static struct acpi_pm fresh;

    rig_outb(&f.rig, SMI, ACPI_PM_ENABLE);
    put16(EN, 0x0101);
    acpi_pm_raise_gpe(&f.pm, 2);
    rig_run(&f.rig, SEC);
    acpi_pm_init(&fresh, &f.rig.loop, rig_irq(&f.rig, 1), false, (struct acpi_pm_hooks){ 0 });
    rig_round_trip(&acpi_pm_ops, &f.pm, &fresh);
    acpi_pm_power_button(&f.pm);
    rig_round_trip(&acpi_pm_ops, &f.pm, &fresh);
    assert_line(&f.rig, 1, true); /* the loaded level is driven */
    put16(STS, 0x0100);
    acpi_pm_ops.reset(&fresh);
    assert_line(&f.rig, 1, false);
    rig_round_trip(&acpi_pm_ops, &f.pm, &fresh);
    rig_run(&f.rig, 2 * SEC);
    assert_line(&f.rig, 1, true); /* the carry came for the copy too */
    acpi_pm_ops.pause(&fresh);
    assert_int_equal(f.off + f.resets, 0);
}

static void test_attach(void **state)
{
    bus_remove(&f.rig.io, &f.pm.reset_region);
    rig_attach_conflicts(&f.rig.io, attach, NULL);
}

static void test_fuzz(void **state)
{
    for (unsigned i = 0; i < 100; i++) {
        rig_fuzz(&f.rig, &f.rig.io, 0x600, 16, 1500);
        rig_fuzz(&f.rig, &f.rig.io, 0x620, 4, 300);
        rig_fuzz(&f.rig, &f.rig.io, SMI, 2, 100);
        rig_fuzz(&f.rig, &f.rig.io, 0xcf9, 1, 100);
        uint64_t before = f.rig.timer_runs;
        rig_run(&f.rig, SEC);
        assert_true(f.rig.timer_runs - before < 5);
    }
    rig_fuzz_state(&f.rig, &acpi_pm_ops, &f.pm, &f.rig.io, 0x600, 16, 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_timer_rate, setup, teardown),
        cmocka_unit_test_setup_teardown(test_timer_wide, setup_wide, teardown),
        cmocka_unit_test_setup_teardown(test_enable_disable, setup, teardown),
        cmocka_unit_test_setup_teardown(test_power_button, setup, teardown),
        cmocka_unit_test_setup_teardown(test_rtc_alarm, setup, teardown),
        cmocka_unit_test_setup_teardown(test_timer_interrupt, setup, teardown),
        cmocka_unit_test_setup_teardown(test_s5, setup, teardown),
        cmocka_unit_test_setup_teardown(test_gpe, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reset_register, setup, teardown),
        cmocka_unit_test_setup_teardown(test_state, setup, teardown),
        cmocka_unit_test_setup_teardown(test_attach, setup, teardown),
        cmocka_unit_test_setup_teardown(test_fuzz, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
