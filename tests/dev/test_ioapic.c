/* The I/O APIC: registers, edge and level delivery, remote IRR, both kinds of EOI, masking. */
#include "base/bits.h"
#include "chip/ioapic.h"
#include "rig.h"

struct fixture {
    struct rig rig;
    struct ioapic apic;
};

static struct fixture f;

#define MASKED BIT(16)
#define LEVEL  BIT(15)
#define RIRR   BIT(14)

static int setup(void **state)
{
    rig_init(&f.rig, 0);
    ioapic_init(&f.apic, rig_deliver, &f.rig);
    assert_int_equal(ioapic_attach(&f.apic, &f.rig.mmio, IOAPIC_GPA), 0);
    return 0;
}

static int attach(void *dev) { return ioapic_attach(&f.apic, &f.rig.mmio, IOAPIC_GPA); }

static int teardown(void **state)
{
    rig_fini(&f.rig);
    return 0;
}

static uint32_t get(uint8_t index)
{
    bus_write(&f.rig.mmio, IOAPIC_GPA, index, 4);
    return (uint32_t)bus_read(&f.rig.mmio, IOAPIC_GPA + 0x10, 4);
}

static void put(uint8_t index, uint32_t v)
{
    bus_write(&f.rig.mmio, IOAPIC_GPA, index, 4);
    bus_write(&f.rig.mmio, IOAPIC_GPA + 0x10, v, 4);
}

static uint64_t get_redir(unsigned pin)
{
    return get((uint8_t)(0x10 + 2 * pin)) | (uint64_t)get((uint8_t)(0x11 + 2 * pin)) << 32;
}

static void put_redir(unsigned pin, uint64_t v)
{
    put((uint8_t)(0x11 + 2 * pin), (uint32_t)(v >> 32));
    put((uint8_t)(0x10 + 2 * pin), (uint32_t)v);
}

static void set(unsigned pin, bool level) { ioapic_set_irq(&f.apic, pin, level); }

static void test_registers(void **state)
{
    assert_int_equal(get(1), 0x00170020);
    assert_int_equal(get(0), 0);
    put(0, 0xffffffff);
    assert_int_equal(get(0), 0x0f000000);
    assert_int_equal(get(2), 0x0f000000);
    for (unsigned pin = 0; pin < 24; pin++)
        assert_int_equal(get_redir(pin), MASKED);
    put_redir(3, ~0ULL);
    assert_true(get_redir(3) == 0xff0000000001afffULL); /* delivery status and remote IRR are read-only */
    assert_int_equal(get(0x40), 0);
    put(0x40, 5); /* pin 24 does not exist */
    assert_int_equal(get(0x3f), 0);
    assert_int_equal(bus_read(&f.rig.mmio, IOAPIC_GPA, 4), 0x3f);
}

static void test_edge(void **state)
{
    put_redir(4, 0x0500000000000000ULL | 0x34);
    set(4, true);
    assert_int_equal(f.rig.msgs, 1);
    assert_int_equal(f.rig.msg[0].vector, 0x34);
    assert_int_equal(f.rig.msg[0].dest, 5);
    assert_int_equal(f.rig.msg[0].delivery_mode, APIC_FIXED);
    assert_false(f.rig.msg[0].level);
    assert_false(f.rig.msg[0].logical);
    assert_true(f.rig.msg[0].assert);
    set(4, true);
    assert_int_equal(f.rig.msgs, 1);
    set(4, false);
    assert_int_equal(f.rig.msgs, 1);
    set(4, true);
    assert_int_equal(f.rig.msgs, 2);
    put_redir(4, 0x34 | MASKED);
    set(4, false);
    set(4, true);
    put_redir(4, 0x34); /* an edge on a masked pin is lost */
    assert_int_equal(f.rig.msgs, 2);
}

static void test_level(void **state)
{
    put_redir(16, 0x0f00000000000000ULL | LEVEL | BIT(11) | 1 << 8 | 0x51);
    set(16, true);
    assert_int_equal(f.rig.msgs, 1);
    assert_true(f.rig.msg[0].level);
    assert_true(f.rig.msg[0].logical);
    assert_int_equal(f.rig.msg[0].delivery_mode, APIC_LOWEST);
    assert_true(get_redir(16) & RIRR);
    set(16, false);
    set(16, true);
    assert_int_equal(f.rig.msgs, 1); /* in service */
    ioapic_eoi(&f.apic, 0x50);
    assert_true(get_redir(16) & RIRR); /* another vector */
    ioapic_eoi(&f.apic, 0x51);
    assert_int_equal(f.rig.msgs, 2); /* still asserted */
    set(16, false);
    ioapic_eoi(&f.apic, 0x51);
    assert_int_equal(f.rig.msgs, 2);
    assert_false(get_redir(16) & RIRR);
}

static void test_level_mask(void **state)
{
    put_redir(17, LEVEL | MASKED | 0x61);
    set(17, true);
    assert_int_equal(f.rig.msgs, 0);
    put_redir(17, LEVEL | 0x61); /* unmasking a high line delivers */
    assert_int_equal(f.rig.msgs, 1);
    put_redir(17, LEVEL | MASKED | 0x61); /* Linux masks before the EOI while it moves an interrupt */
    assert_true(get_redir(17) & RIRR);
    ioapic_eoi(&f.apic, 0x61);
    assert_int_equal(f.rig.msgs, 1);
    assert_false(get_redir(17) & RIRR);
    put_redir(17, LEVEL | 0x61);
    assert_int_equal(f.rig.msgs, 2);
}

static void test_eoi_register(void **state)
{
    put_redir(17, LEVEL | 0x61);
    put_redir(18, LEVEL | 0x61);
    set(17, true);
    set(18, true);
    assert_int_equal(f.rig.msgs, 2);
    set(17, false);
    bus_write(&f.rig.mmio, IOAPIC_GPA + 0x40, 0x61, 4);
    assert_int_equal(f.rig.msgs, 3); /* both entries saw it; 18 is still high */
    assert_false(get_redir(17) & RIRR);
    assert_true(get_redir(18) & RIRR);
    /* Switching to edge and back clears a stuck remote IRR. */
    put_redir(18, MASKED | 0x61);
    assert_false(get_redir(18) & RIRR);
}

static void test_modes(void **state)
{
    static const uint8_t mode[] = { APIC_SMI, APIC_NMI, APIC_INIT, APIC_EXTINT };

    for (unsigned i = 0; i < 4; i++) {
        put_redir(i, LEVEL | (uint64_t)mode[i] << 8);
        set(i, true);
        assert_int_equal(f.rig.msgs, i + 1);
        assert_int_equal(f.rig.msg[i].delivery_mode, mode[i]);
        assert_false(f.rig.msg[i].level); /* these are edges whatever the trigger bit says */
        assert_false(get_redir(i) & RIRR);
    }
}

static void test_state(void **state)
{
    static struct ioapic fresh;

    put_redir(17, LEVEL | 0x61);
    put_redir(4, 0x0300000000000034ULL);
    put(0, 0x02000000);
    set(17, true);
    ioapic_init(&fresh, rig_deliver, &f.rig);
    rig_round_trip(&ioapic_ops, &f.apic, &fresh);
    assert_int_equal(f.rig.msgs, 1);
    ioapic_eoi(&fresh, 0x61); /* the loaded one knows that the line is high */
    assert_int_equal(f.rig.msgs, 2);
    ioapic_ops.reset(&f.apic);
    assert_int_equal(get_redir(17), MASKED);
}

static void test_attach(void **state) { rig_attach_conflicts(&f.rig.mmio, attach, NULL); }

static void test_fuzz(void **state)
{
    for (unsigned i = 0; i < 20000; i++) {
        uint64_t x = rig_random(&f.rig);
        set(x & 31, x >> 5 & 1);
        ioapic_eoi(&f.apic, (uint8_t)(x >> 8));
        put((uint8_t)(x >> 16), (uint32_t)(x >> 24));
        rig_fuzz(&f.rig, &f.rig.mmio, IOAPIC_GPA, 0x50, 10);
    }
    rig_fuzz_state(&f.rig, &ioapic_ops, &f.apic, &f.rig.mmio, IOAPIC_GPA, 0x50, 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_registers, setup, teardown),
        cmocka_unit_test_setup_teardown(test_edge, setup, teardown),
        cmocka_unit_test_setup_teardown(test_level, setup, teardown),
        cmocka_unit_test_setup_teardown(test_level_mask, setup, teardown),
        cmocka_unit_test_setup_teardown(test_eoi_register, setup, teardown),
        cmocka_unit_test_setup_teardown(test_modes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_state, setup, teardown),
        cmocka_unit_test_setup_teardown(test_attach, setup, teardown),
        cmocka_unit_test_setup_teardown(test_fuzz, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
