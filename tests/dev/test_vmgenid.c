/* The VM generation ID: in guest memory from the reset on, the same until it is changed, told when it
 * changes, and the first one again after a load. */
#include <string.h>

#include "base/err.h"
#include "boot/layout.h"
#include "chip/acpi_pm.h"
#include "chip/vmgenid.h"
#include "ram/ram.h"
#include "rig.h"

#define GPA   0xfeffb000ULL
#define EVENT 5

static struct {
    struct rig rig;
    struct ram ram;
    struct rand_source rand;
    struct acpi_pm pm;
    struct vmgenid g, other;
} f;

static int rand_refuse(struct rand_source *r, void *buf, size_t len) { return -5; }

static void raise(void *opaque) { acpi_pm_raise_gpe(opaque, EVENT); }

static int setup(void **state)
{
    memset(&f, 0, sizeof(f));
    rig_init(&f.rig, 0);
    ram_init(&f.ram);
    assert_int_equal(ram_add_slot(&f.ram, GPA, PAGE_SIZE, true), 0);
    rand_init_seeded(&f.rand, 1);
    acpi_pm_init(&f.pm, &f.rig.loop, rig_irq(&f.rig, 9), false, (struct acpi_pm_hooks){ 0 });
    assert_int_equal(acpi_pm_attach(&f.pm, &f.rig.io), 0);
    assert_int_equal(vmgenid_init(&f.g, &f.ram, GPA, &f.rand, raise, &f.pm), 0);
    vmgenid_ops.reset(&f.g);
    return 0;
}

static int teardown(void **state)
{
    vmgenid_ops.destroy(&f.g);
    acpi_pm_ops.destroy(&f.pm);
    ram_fini(&f.ram);
    rig_fini(&f.rig);
    return 0;
}

static void seen(uint8_t id[VMGENID_LEN]) { assert_int_equal(ram_read(&f.ram, GPA, id, VMGENID_LEN), 0); }

static void test_published(void **state)
{
    static const uint8_t zero[VMGENID_LEN];
    uint8_t id[VMGENID_LEN], again[VMGENID_LEN];

    seen(id);
    assert_memory_equal(id, f.g.id, sizeof(id));
    assert_memory_not_equal(id, zero, sizeof(id));
    ram_write(&f.ram, GPA, zero, sizeof(zero)); /* the guest tries */
    seen(again);
    assert_memory_equal(again, id, sizeof(id));
    vmgenid_ops.reset(&f.g);
    seen(again);
    assert_memory_equal(again, id, sizeof(id));
    assert_int_equal(vmgenid_init(&f.other, &f.ram, GPA, &f.rand, raise, &f.pm), 0);
    assert_memory_not_equal(f.other.id, id, sizeof(id));
}

/* The change reaches the guest as an SCI once it has enabled ACPI and the event, and not before. */
static void test_change(void **state)
{
    uint8_t id[VMGENID_LEN], now[VMGENID_LEN];

    seen(id);
    assert_int_equal(vmgenid_change(&f.g), 0);
    seen(now);
    assert_memory_not_equal(now, id, sizeof(id));
    assert_line(&f.rig, 9, false);
    assert_int_equal(rig_inb(&f.rig, ACPI_PM_GPE0_PORT), 1 << EVENT);
    rig_outb(&f.rig, ACPI_PM_SMI_PORT, ACPI_PM_ENABLE);
    rig_outb(&f.rig, ACPI_PM_GPE0_PORT + 2, 1 << EVENT);
    assert_line(&f.rig, 9, true);
    rig_outb(&f.rig, ACPI_PM_GPE0_PORT, 1 << EVENT);
    assert_line(&f.rig, 9, false);
    assert_int_equal(vmgenid_change(&f.g), 0);
    assert_line(&f.rig, 9, true);
    assert_int_equal(f.rig.line[9].rises, 2);
}

/* Without randomness there is no change, and nobody is told of one. */
static void test_no_randomness(void **state)
{
    uint8_t id[VMGENID_LEN], now[VMGENID_LEN];

    seen(id);
    f.rand.fill = rand_refuse;
    assert_int_equal(vmgenid_change(&f.g), -5);
    seen(now);
    assert_memory_equal(now, id, sizeof(id));
    assert_int_equal(rig_inb(&f.rig, ACPI_PM_GPE0_PORT), 0);
    assert_int_equal(vmgenid_init(&f.other, &f.ram, GPA, &f.rand, raise, &f.pm), -5);
}

static void test_state(void **state)
{
    uint8_t id[VMGENID_LEN], now[VMGENID_LEN];

    assert_int_equal(vmgenid_init(&f.other, &f.ram, GPA, &f.rand, raise, &f.pm), 0);
    vmgenid_ops.reset(&f.other);
    seen(id);
    rig_round_trip(&vmgenid_ops, &f.g, &f.other);
    seen(now); /* resume has published what was loaded */
    assert_memory_equal(now, f.g.id, sizeof(now));
    assert_memory_not_equal(now, id, sizeof(id));
    assert_int_equal(rig_inb(&f.rig, ACPI_PM_GPE0_PORT), 0); /* the same machine: nothing to tell */
}

/* Who asks for the address through the ACPI tables is heard of, until the next reset, and in the state that is saved. */
static void test_asked(void **state)
{
    assert_int_equal(vmgenid_attach(&f.g, &f.rig.io), 0);
    assert_int_equal(VMGENID_PORT, LAYOUT_VMGENID_ASKED);
    assert_false(f.g.asked);
    rig_outb(&f.rig, VMGENID_PORT, 1);
    assert_true(f.g.asked);
    assert_int_equal(vmgenid_init(&f.other, &f.ram, GPA, &f.rand, raise, &f.pm), 0);
    vmgenid_ops.reset(&f.other);
    assert_false(f.other.asked);
    rig_round_trip(&vmgenid_ops, &f.g, &f.other);
    assert_true(f.other.asked);
    vmgenid_ops.reset(&f.g);
    assert_false(f.g.asked);
}

/* What an ACPI interpreter does with an event, one register after the other: it is settled when that is over, and not before. */
static void test_settled(void **state)
{
    assert_false(acpi_pm_gpe_settled(&f.pm, EVENT)); /* nobody listens yet */
    rig_outb(&f.rig, ACPI_PM_SMI_PORT, ACPI_PM_ENABLE);
    rig_outb(&f.rig, ACPI_PM_GPE0_PORT + 2, 1 << EVENT);
    assert_true(acpi_pm_gpe_settled(&f.pm, EVENT));
    assert_int_equal(vmgenid_change(&f.g), 0);
    assert_false(acpi_pm_gpe_settled(&f.pm, EVENT));
    rig_outb(&f.rig, ACPI_PM_GPE0_PORT + 2, 0);
    assert_false(acpi_pm_gpe_settled(&f.pm, EVENT));
    rig_outb(&f.rig, ACPI_PM_GPE0_PORT, 1 << EVENT);
    assert_false(acpi_pm_gpe_settled(&f.pm, EVENT)); /* its handlers run now */
    rig_outb(&f.rig, ACPI_PM_GPE0_PORT + 2, 1 << EVENT);
    assert_true(acpi_pm_gpe_settled(&f.pm, EVENT));
    assert_false(acpi_pm_gpe_settled(&f.pm, EVENT + 1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_asked, setup, teardown),
        cmocka_unit_test_setup_teardown(test_settled, setup, teardown),
        cmocka_unit_test_setup_teardown(test_published, setup, teardown),
        cmocka_unit_test_setup_teardown(test_change, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_randomness, setup, teardown),
        cmocka_unit_test_setup_teardown(test_state, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
