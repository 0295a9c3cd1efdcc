/* MSI-X: capability, table access, masking by vector and by function, pending bits, bus mastering, reset. */
#include <errno.h>
#include <string.h>

#include "base/bits.h"
#include "pci/host.h"
#include "pci/msix.h"
#include "rig.h"

#define BAR 0xfe000000ULL
enum { VECTORS = 5 };

struct toy {
    struct pci_dev pci;
    struct msix msix;
};

struct fixture {
    struct rig rig;
    struct pci_host host;
    struct toy toy;
};

static struct fixture f;

static void toy_config_write(struct pci_dev *d, unsigned off, unsigned size)
{
    msix_config_write(&container_of(d, struct toy, pci)->msix, off, size);
}

static const struct pci_dev_ops toy_pci_ops = { .config_write = toy_config_write };

static void toy_reset(void *dev)
{
    struct toy *t = dev;
    pci_dev_reset(&t->pci);
    msix_reset(&t->msix);
}

static void toy_resume(void *dev) { pci_dev_resume(&((struct toy *)dev)->pci); }
static void toy_destroy(void *dev) { (void)dev; }
static const struct state_field toy_fields[] = {
    STATE_FSTRUCT(struct toy, pci, struct pci_dev, pci_dev_state),
    STATE_FSTRUCT(struct toy, msix, struct msix, msix_state),
    STATE_END,
};
static const struct state_desc toy_state = {
    .name = "toy", .version = 1, .size = sizeof(struct toy), .fields = toy_fields
};
static const struct device_ops toy_ops = {
    .type = "toy", .reset = toy_reset, .resume = toy_resume, .destroy = toy_destroy, .state = &toy_state
};

static void toy_init(struct toy *t, struct rig *r)
{
    struct pci_ident id = { .vendor = 0x1af4, .device = 0x1042 };

    pci_dev_init(&t->pci, "toy", &id, &toy_pci_ops);
    assert_int_equal(msix_init(&t->msix, &t->pci, VECTORS, 1, rig_deliver, r), 0);
}

static uint32_t config(unsigned reg, unsigned size) { return pci_dev_config_read(&f.toy.pci, reg, size); }
static void set_config(unsigned reg, uint32_t v, unsigned size)
{
    pci_dev_config_write(&f.toy.pci, reg, v, size);
}

static void control(uint16_t v) { set_config(f.toy.msix.cap + 2, v, 2); }
static uint32_t get(unsigned off) { return (uint32_t)bus_read(&f.rig.mmio, BAR + off, 4); }
static void put(unsigned off, uint32_t v) { bus_write(&f.rig.mmio, BAR + off, v, 4); }

static void program(unsigned vector, uint32_t addr, uint32_t data, bool masked)
{
    put(16 * vector, addr);
    put(16 * vector + 4, 0);
    put(16 * vector + 8, data);
    put(16 * vector + 12, masked);
}

static int setup(void **state)
{
    struct irq_line none[4] = { { 0 } };

    rig_init(&f.rig, 0);
    pci_host_init(&f.host, &f.rig.io, &f.rig.mmio, none);
    toy_init(&f.toy, &f.rig);
    assert_int_equal(pci_dev_plug(&f.toy.pci, &f.host, 2), 0);
    set_config(PCI_BAR0 + 4, BAR, 4);
    set_config(PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER, 2);
    return 0;
}

static int teardown(void **state)
{
    rig_fini(&f.rig);
    return 0;
}

static void test_capability(void **state)
{
    unsigned cap = config(PCI_CAP_POINTER, 1);

    assert_int_equal(config(cap, 1), PCI_CAP_ID_MSIX);
    assert_int_equal(config(cap + 2, 2), VECTORS - 1);
    set_config(cap + 2, 0xffff, 2);
    assert_int_equal(config(cap + 2, 2), 0xc000 | (VECTORS - 1));
    assert_int_equal(config(cap + 4, 4), 1);
    assert_int_equal(config(cap + 8, 4), 0x801);
    set_config(PCI_BAR0 + 4, 0xffffffff, 4);
    assert_int_equal(config(PCI_BAR0 + 4, 4), 0xfffff000);
}

static void test_table(void **state)
{
    for (unsigned v = 0; v < VECTORS; v++)
        assert_int_equal(get(16 * v + 12), 1); /* masked after reset */
    bus_write(&f.rig.mmio, BAR + 16, 0x00000001fee01007ULL, 8);
    assert_true(bus_read(&f.rig.mmio, BAR + 16, 8) == 0x00000001fee01004ULL);
    bus_write(&f.rig.mmio, BAR + 24, 0xfffffffe00004031ULL, 8);
    assert_true(bus_read(&f.rig.mmio, BAR + 24, 8) == 0x00004031ULL);
    put(16 * VECTORS, 0x1234); /* beyond the table */
    assert_int_equal(get(16 * VECTORS), 0);
    put(0x800, 0xffffffff); /* the pending bits are read-only */
    assert_int_equal(get(0x800), 0);
    assert_int_equal(bus_read(&f.rig.mmio, BAR, 2), 0xffff); /* 16-bit accesses are not taken */
}

static void test_delivery(void **state)
{
    program(2, 0xfee0500c, 0x00004155, false);
    msix_notify(&f.toy.msix, 2);
    assert_int_equal(f.rig.msgs, 0); /* not enabled */
    assert_false(msix_enabled(&f.toy.msix));
    control(0x8000);
    assert_true(msix_enabled(&f.toy.msix));
    msix_notify(&f.toy.msix, 2);
    assert_int_equal(f.rig.msgs, 1);
    assert_int_equal(f.rig.msg[0].dest, 5);
    assert_true(f.rig.msg[0].logical);
    assert_true(f.rig.msg[0].redirection_hint);
    assert_int_equal(f.rig.msg[0].vector, 0x55);
    assert_int_equal(f.rig.msg[0].delivery_mode, APIC_LOWEST);
    assert_false(f.rig.msg[0].level);
    msix_notify(&f.toy.msix, VECTORS);
    msix_notify(&f.toy.msix, 1000000);
    assert_int_equal(f.rig.msgs, 1);
    set_config(PCI_COMMAND, PCI_COMMAND_MEMORY, 2); /* no bus mastering, no message */
    msix_notify(&f.toy.msix, 2);
    assert_int_equal(f.rig.msgs, 1);
    set_config(PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER, 2);
    program(2, 0x00100000, 0x55, false); /* an address in memory is not written to */
    msix_notify(&f.toy.msix, 2);
    put(16 * 2, 0xfee00000);
    put(16 * 2 + 4, 1);
    msix_notify(&f.toy.msix, 2);
    assert_int_equal(f.rig.msgs, 1);
}

static void test_vector_mask(void **state)
{
    control(0x8000);
    program(4, 0xfee00000, 0x44, true);
    msix_notify(&f.toy.msix, 4);
    msix_notify(&f.toy.msix, 4);
    assert_int_equal(f.rig.msgs, 0);
    assert_int_equal(get(0x800), 1 << 4);
    put(16 * 4 + 12, 0); /* unmasking sends it, once */
    assert_int_equal(f.rig.msgs, 1);
    assert_int_equal(f.rig.msg[0].vector, 0x44);
    assert_int_equal(get(0x800), 0);
    put(16 * 4 + 12, 1);
    put(16 * 4 + 12, 0);
    assert_int_equal(f.rig.msgs, 1);
}

static void test_function_mask(void **state)
{
    control(0xc000);
    program(0, 0xfee00000, 0x40, false);
    program(1, 0xfee00000, 0x41, false);
    program(3, 0xfee00000, 0x43, true);
    msix_notify(&f.toy.msix, 0);
    msix_notify(&f.toy.msix, 1);
    msix_notify(&f.toy.msix, 3);
    assert_int_equal(get(0x800), 0x0b);
    put(16 * 3 + 12, 1);
    assert_int_equal(f.rig.msgs, 0);
    set_config(f.toy.msix.cap + 3, 0x80, 1); /* the upper byte alone */
    assert_int_equal(f.rig.msgs, 2);
    assert_int_equal(get(0x800), 0x08);
    put(16 * 3 + 12, 0);
    assert_int_equal(f.rig.msgs, 3);
}

static void test_reset(void **state)
{
    control(0xc000);
    program(0, 0xfee00000, 0x40, false);
    msix_notify(&f.toy.msix, 0);
    toy_ops.reset(&f.toy);
    assert_false(msix_enabled(&f.toy.msix));
    set_config(PCI_BAR0 + 4, BAR, 4);
    set_config(PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER, 2);
    assert_int_equal(get(0x800), 0);
    assert_int_equal(get(0), 0);
    assert_int_equal(get(12), 1);
    assert_int_equal(f.rig.msgs, 0);
}

static void test_limits(void **state)
{
    static struct pci_dev d;
    static struct msix m;
    struct pci_ident id = { .vendor = 1 };

    pci_dev_init(&d, "d", &id, NULL);
    assert_int_equal(msix_init(&m, &d, 0, 0, rig_deliver, &f.rig), -EINVAL);
    assert_int_equal(msix_init(&m, &d, MSIX_MAX_VECTORS + 1, 0, rig_deliver, &f.rig), -EINVAL);
    assert_int_equal(msix_init(&m, &d, 1, 6, rig_deliver, &f.rig), -EINVAL);
    assert_int_equal(msix_init(&m, &d, MSIX_MAX_VECTORS, 0, rig_deliver, &f.rig), 0);
    assert_true(d.bar[0].region.len >= m.pba_offset + MSIX_MAX_VECTORS / 8);
    assert_true(m.pba_offset >= 16 * MSIX_MAX_VECTORS);
}

static void test_state(void **state)
{
    static struct fixture g;
    struct irq_line none[4] = { { 0 } };

    control(0x8000);
    program(0, 0xfee00000, 0x40, true);
    program(1, 0xfee01000, 0x41, false);
    msix_notify(&f.toy.msix, 0);
    rig_init(&g.rig, 0);
    pci_host_init(&g.host, &g.rig.io, &g.rig.mmio, none);
    toy_init(&g.toy, &g.rig);
    assert_int_equal(pci_dev_plug(&g.toy.pci, &g.host, 2), 0);
    rig_round_trip(&toy_ops, &f.toy, &g.toy);
    bus_write(&g.rig.mmio, BAR + 12, 0, 4); /* the pending one came along */
    assert_int_equal(g.rig.msgs, 1);
    msix_notify(&g.toy.msix, 1);
    assert_int_equal(g.rig.msg[1].vector, 0x41);
    rig_fini(&g.rig);
}

static void test_many_vectors(void **state)
{
    static struct toy t;
    struct pci_ident id = { .vendor = 1 };

    pci_dev_init(&t.pci, "t", &id, &toy_pci_ops);
    assert_int_equal(msix_init(&t.msix, &t.pci, 100, 0, rig_deliver, &f.rig), 0);
    assert_int_equal(pci_dev_plug(&t.pci, &f.host, 4), 0);
    pci_dev_config_write(&t.pci, PCI_BAR0, 0xfd000000, 4);
    pci_dev_config_write(&t.pci, PCI_COMMAND, 6, 2);
    pci_dev_config_write(&t.pci, t.msix.cap + 2, 0x8000, 2);
    msix_notify(&t.msix, 1);
    msix_notify(&t.msix, 40);
    msix_notify(&t.msix, 99);
    assert_int_equal(bus_read(&f.rig.mmio, 0xfd000800, 4), 0x00000002);
    assert_int_equal(bus_read(&f.rig.mmio, 0xfd000804, 4), 0x00000100);
    assert_true(bus_read(&f.rig.mmio, 0xfd000808, 8) == 0x0000000800000000ULL);
    /* Only a write to the control word releases what is pending. */
    t.msix.table[1].ctrl = 0;
    pci_dev_config_write(&t.pci, PCI_INTERRUPT_LINE, 1, 1);
    pci_dev_config_write(&t.pci, t.msix.cap + 4, 0, 4);
    assert_int_equal(f.rig.msgs, 0);
}

static void test_fuzz(void **state)
{
    for (unsigned i = 0; i < 20000; i++) {
        uint64_t x = rig_random(&f.rig);
        msix_notify(&f.toy.msix, x & 7);
        if (x & 8)
            control((uint16_t)(x >> 16));
        rig_fuzz(&f.rig, &f.rig.mmio, BAR, x & 16 ? 0x60 : 0x1000, 10);
    }
    rig_fuzz_state(&f.rig, &toy_ops, &f.toy, &f.rig.mmio, BAR, 0x1000, 500);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_capability, setup, teardown),
        cmocka_unit_test_setup_teardown(test_table, setup, teardown),
        cmocka_unit_test_setup_teardown(test_delivery, setup, teardown),
        cmocka_unit_test_setup_teardown(test_vector_mask, setup, teardown),
        cmocka_unit_test_setup_teardown(test_function_mask, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reset, setup, teardown),
        cmocka_unit_test_setup_teardown(test_limits, setup, teardown),
        cmocka_unit_test_setup_teardown(test_state, setup, teardown),
        cmocka_unit_test_setup_teardown(test_many_vectors, setup, teardown),
        cmocka_unit_test_setup_teardown(test_fuzz, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
