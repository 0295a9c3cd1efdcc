/* PCI: both configuration mechanisms, header masks, BAR sizing, moving, overlap, INTx sharing and swizzle,
 * capabilities, plugging, the reset port inside 0xCF8. */
#include <errno.h>
#include <string.h>

#include "base/bits.h"
#include "pci/host.h"
#include "pci/lpc.h"
#include "rig.h"

enum { INTX = 0 };
#define ECAM 0xb0000000ULL

/* A function with a port BAR, a 32-bit and a 64-bit memory BAR; each register window is a byte array. */
struct toy {
    struct pci_dev pci;
    uint8_t ports[64], mem[4096], wide[65536];
    unsigned reads, writes, last_off, last_size;
};

struct fixture {
    struct rig rig;
    struct pci_host host;
    struct toy a, b;
    uint8_t cf9;
};

static struct fixture f;

static uint64_t bytes_read(void *dev, uint64_t off, unsigned size) { return ((uint8_t *)dev)[off]; }
static void bytes_write(void *dev, uint64_t off, uint64_t v, unsigned size)
{
    ((uint8_t *)dev)[off] = (uint8_t)v;
}
static const struct bus_ops bytes_ops = {
    .read = bytes_read, .write = bytes_write, .min_size = 1, .max_size = 1
};

static void toy_config_read(struct pci_dev *d, unsigned off, unsigned size)
{
    container_of(d, struct toy, pci)->reads++;
}

static void toy_config_write(struct pci_dev *d, unsigned off, unsigned size)
{
    struct toy *t = container_of(d, struct toy, pci);
    t->writes++;
    t->last_off = off;
    t->last_size = size;
}

static const struct pci_dev_ops toy_pci_ops = { .config_read = toy_config_read,
                                                .config_write = toy_config_write };

static void toy_reset(void *dev) { pci_dev_reset(&((struct toy *)dev)->pci); }
static void toy_resume(void *dev) { pci_dev_resume(&((struct toy *)dev)->pci); }
static void toy_destroy(void *dev) { (void)dev; }
static const struct state_field toy_fields[] = {
    STATE_FSTRUCT(struct toy, pci, struct pci_dev, pci_dev_state),
    STATE_END,
};
static const struct state_desc toy_state = {
    .name = "toy", .version = 1, .size = sizeof(struct toy), .fields = toy_fields
};
static const struct device_ops toy_ops = {
    .type = "toy", .reset = toy_reset, .resume = toy_resume, .destroy = toy_destroy, .state = &toy_state
};

static void toy_init(struct toy *t, const char *name, uint8_t pin)
{
    struct pci_ident id = {
        .vendor = 0x1af4,
        .device = 0x1042,
        .subvendor = 0x1111,
        .subsystem = 0x2222,
        .class_code = 1,
        .subclass = 0x80,
        .prog_if = 7,
        .revision = 3,
        .irq_pin = pin,
    };

    memset(t, 0, sizeof(*t));
    pci_dev_init(&t->pci, name, &id, &toy_pci_ops);
    assert_int_equal(pci_dev_add_bar(&t->pci, 0, PCI_BAR_IO, false, 64, &bytes_ops, t->ports), 0);
    assert_int_equal(pci_dev_add_bar(&t->pci, 1, PCI_BAR_MEM32, false, 4096, &bytes_ops, t->mem), 0);
    assert_int_equal(pci_dev_add_bar(&t->pci, 4, PCI_BAR_MEM64, true, 65536, &bytes_ops, t->wide), 0);
}

static uint64_t cf9_read(void *dev, uint64_t off, unsigned size) { return *(uint8_t *)dev; }
static void cf9_write(void *dev, uint64_t off, uint64_t v, unsigned size) { *(uint8_t *)dev = (uint8_t)v; }
static const struct bus_ops cf9_ops = { .read = cf9_read, .write = cf9_write, .min_size = 1, .max_size = 1 };

static int setup(void **state)
{
    static struct bus_region cf9;
    struct irq_line intx[4];

    rig_init(&f.rig, 0);
    for (unsigned i = 0; i < 4; i++)
        intx[i] = rig_irq(&f.rig, INTX + i);
    pci_host_init(&f.host, &f.rig.io, &f.rig.mmio, intx);
    assert_int_equal(pci_host_attach(&f.host, ECAM), 0);
    f.cf9 = 0;
    cf9 = (struct bus_region){ .base = 0xcf9, .len = 1, .ops = &cf9_ops, .dev = &f.cf9 };
    pci_host_set_cf9(&f.host, &cf9);
    toy_init(&f.a, "toy-a", 1);
    toy_init(&f.b, "toy-b", 2);
    assert_int_equal(pci_dev_plug(&f.a.pci, &f.host, 3), 0);
    assert_int_equal(pci_dev_plug(&f.b.pci, &f.host, -1), 0);
    assert_int_equal(f.b.pci.devfn, 1 << 3);
    return 0;
}

static int attach(void *dev) { return pci_host_attach(&f.host, ECAM); }
static int ports_only(void *dev) { return pci_host_attach(&f.host, 0); }

static int teardown(void **state)
{
    rig_fini(&f.rig);
    return 0;
}

static uint32_t cf8_read(unsigned slot, unsigned reg, unsigned size)
{
    bus_write(&f.rig.io, 0xcf8, 0x80000000 | slot << 11 | (reg & 0xfc), 4);
    return (uint32_t)bus_read(&f.rig.io, 0xcfc + (reg & 3), size);
}

static void cf8_write(unsigned slot, unsigned reg, uint32_t v, unsigned size)
{
    bus_write(&f.rig.io, 0xcf8, 0x80000000 | slot << 11 | (reg & 0xfc), 4);
    bus_write(&f.rig.io, 0xcfc + (reg & 3), v, size);
}

static uint32_t ecam_read(unsigned slot, unsigned reg, unsigned size)
{
    return (uint32_t)bus_read(&f.rig.mmio, ECAM + (slot << 15) + reg, size);
}

static void test_both_mechanisms_agree(void **state)
{
    assert_int_equal(cf8_read(0, 0, 4), 0x29c08086);
    assert_int_equal(cf8_read(0, PCI_CLASS, 2), 0x0600);
    assert_int_equal(cf8_read(0, PCI_HEADER_TYPE, 1), 0);
    assert_int_equal(cf8_read(3, 0, 4), 0x10421af4);
    assert_int_equal(cf8_read(3, PCI_REVISION, 4), 0x01800703);
    assert_int_equal(cf8_read(3, PCI_SUBVENDOR_ID, 4), 0x22221111);
    cf8_write(3, PCI_INTERRUPT_LINE, 11, 1);
    cf8_write(3, PCI_COMMAND, 0x0507, 2);
    for (unsigned slot = 0; slot < 32; slot++) {
        for (unsigned reg = 0; reg < 256; reg++) {
            for (unsigned size = 1; size <= 4; size *= 2) {
                if (reg % size == 0)
                    assert_int_equal(cf8_read(slot, reg, size), ecam_read(slot, reg, size));
            }
        }
    }
    assert_true(f.a.reads > 0);
    assert_int_equal(ecam_read(3, 0x100, 4), 0xffffffff); /* no extended space */
    assert_int_equal(cf8_read(5, 0, 4), 0xffffffff);      /* nobody there */
    bus_write(&f.rig.mmio, ECAM + (3 << 15) + PCI_INTERRUPT_LINE, 0x0a, 1);
    assert_int_equal(cf8_read(3, PCI_INTERRUPT_LINE, 1), 0x0a);
    assert_true(bus_read(&f.rig.mmio, ECAM + (3 << 15), 8) == 0x0000050710421af4ULL);
}

static void test_address_register(void **state)
{
    bus_write(&f.rig.io, 0xcf8, 0xffffffff, 4);
    assert_int_equal(bus_read(&f.rig.io, 0xcf8, 4), 0x80fffffc);
    assert_int_equal(bus_read(&f.rig.io, 0xcfc, 4), 0xffffffff); /* bus 255 */
    bus_write(&f.rig.io, 0xcf8, 0x00001800, 4);                  /* not enabled */
    assert_int_equal(bus_read(&f.rig.io, 0xcfc, 4), 0xffffffff);
    bus_write(&f.rig.io, 0xcf8, 0x80001900, 4); /* function 1 */
    assert_int_equal(bus_read(&f.rig.io, 0xcfc, 4), 0xffffffff);
    bus_write(&f.rig.io, 0xcf8, 0x80011800, 4); /* bus 1 */
    assert_int_equal(bus_read(&f.rig.io, 0xcfc, 4), 0xffffffff);
    bus_write(&f.rig.io, 0xcf8, 0x80001800, 4);
    rig_outb(&f.rig, 0xcf9, 0x06); /* the reset port: the address stays as it is */
    assert_int_equal(f.cf9, 6);
    assert_int_equal(rig_inb(&f.rig, 0xcf9), 6);
    bus_write(&f.rig.io, 0xcf8, 0, 2);
    bus_write(&f.rig.io, 0xcfa, 0, 1);
    assert_int_equal(bus_read(&f.rig.io, 0xcf8, 4), 0x80001800);
    assert_int_equal(rig_inb(&f.rig, 0xcfa), 0xff);
    assert_int_equal(bus_read(&f.rig.io, 0xcfd, 1), 0x1a);
    assert_int_equal(bus_read(&f.rig.io, 0xcfe, 2), 0x1042);
}

static void test_header_masks(void **state)
{
    for (unsigned reg = 0; reg < 256; reg += 4) {
        if (reg < PCI_BAR0 || reg >= PCI_BAR0 + 24)
            cf8_write(3, reg, 0xffffffff, 4);
    }
    assert_int_equal(cf8_read(3, 0, 4), 0x10421af4);
    assert_int_equal(cf8_read(3, PCI_COMMAND, 4), 0x00000547);
    assert_int_equal(cf8_read(3, PCI_REVISION, 4), 0x01800703);
    assert_int_equal(cf8_read(3, PCI_CACHE_LINE, 4), 0x0000ffff);
    assert_int_equal(cf8_read(3, PCI_SUBVENDOR_ID, 4), 0x22221111);
    assert_int_equal(cf8_read(3, 0x30, 4), 0); /* no ROM */
    assert_int_equal(cf8_read(3, PCI_INTERRUPT_LINE, 4), 0x000001ff);
    f.a.pci.config[PCI_STATUS + 1] = 0x20; /* received master abort: write one to clear */
    cf8_write(3, PCI_STATUS, 0x0000, 2);
    assert_int_equal(cf8_read(3, PCI_STATUS, 2), 0x2000);
    cf8_write(3, PCI_STATUS, 0x2000, 2);
    assert_int_equal(cf8_read(3, PCI_STATUS, 2), 0x0000);
    f.a.writes = 0;
    cf8_write(3, 0x43, 1, 1);
    assert_int_equal(f.a.writes, 1);
    assert_int_equal(f.a.last_off, 0x43);
    assert_int_equal(f.a.last_size, 1);
}

static void test_bar_sizing(void **state)
{
    static const uint32_t sized[6] = { 0xffffffc1, 0xfffff000, 0, 0, 0xffff000c, 0xffffffff };

    for (unsigned i = 0; i < 6; i++) {
        cf8_write(3, PCI_BAR0 + 4 * i, 0xffffffff, 4);
        assert_int_equal(cf8_read(3, PCI_BAR0 + 4 * i, 4), sized[i]);
    }
    /* With decoding on, all ones map nothing. */
    cf8_write(3, PCI_COMMAND, 3, 2);
    assert_false(bus_claims(&f.rig.mmio, 0xfffff000));
    assert_false(bus_claims(&f.rig.io, 0xffc0));
    cf8_write(3, PCI_BAR0 + 4, 0, 4);
    assert_false(bus_claims(&f.rig.mmio, 0));
}

static void test_bar_mapping(void **state)
{
    cf8_write(3, PCI_BAR0, 0xc000, 4);
    cf8_write(3, PCI_BAR0 + 4, 0xfe000000, 4);
    cf8_write(3, PCI_BAR0 + 16, 0x00010000, 4);
    cf8_write(3, PCI_BAR0 + 20, 0x00000080, 4); /* 512 GiB */
    assert_false(bus_claims(&f.rig.io, 0xc000));
    cf8_write(3, PCI_COMMAND, PCI_COMMAND_IO, 2);
    assert_true(bus_claims(&f.rig.io, 0xc03f));
    assert_false(bus_claims(&f.rig.mmio, 0xfe000000));
    cf8_write(3, PCI_COMMAND, PCI_COMMAND_IO | PCI_COMMAND_MEMORY, 2);
    rig_outb(&f.rig, 0xc005, 0x11);
    bus_write(&f.rig.mmio, 0xfe000123, 0x22, 1);
    bus_write(&f.rig.mmio, 0x8000012345ULL, 0x33, 1);
    assert_int_equal(f.a.ports[5], 0x11);
    assert_int_equal(f.a.mem[0x123], 0x22);
    assert_int_equal(f.a.wide[0x2345], 0x33);
    /* Moved byte by byte, as some firmware does. */
    cf8_write(3, PCI_BAR0 + 4 + 3, 0xfd, 1);
    assert_false(bus_claims(&f.rig.mmio, 0xfe000123));
    assert_int_equal(bus_read(&f.rig.mmio, 0xfd000123, 1), 0x22);
    cf8_write(3, PCI_COMMAND, 0, 2);
    assert_false(bus_claims(&f.rig.mmio, 0xfd000123));
    assert_false(bus_claims(&f.rig.io, 0xc000));
    cf8_write(3, PCI_COMMAND, 3, 2);
    toy_ops.reset(&f.a);
    assert_false(bus_claims(&f.rig.mmio, 0xfd000123));
    assert_int_equal(cf8_read(3, PCI_BAR0 + 4, 4), 0);
}

static void test_bar_overlap(void **state)
{
    cf8_write(3, PCI_COMMAND, 2, 2);
    cf8_write(1, PCI_COMMAND, 2, 2);
    cf8_write(3, PCI_BAR0 + 4, 0xfe000000, 4);
    cf8_write(1, PCI_BAR0 + 4, 0xfe000000, 4);
    f.a.mem[0] = 0xaa;
    f.b.mem[0] = 0xbb;
    assert_int_equal(bus_read(&f.rig.mmio, 0xfe000000, 1), 0xaa); /* the first stays */
    cf8_write(3, PCI_BAR0 + 4, 0xfe001000, 4);
    assert_int_equal(bus_read(&f.rig.mmio, 0xfe000000, 1), 0xbb); /* the way is free */
    assert_int_equal(bus_read(&f.rig.mmio, 0xfe001000, 1), 0xaa);
    /* A BAR of its own function, and a chip's registers, are in the way too. */
    cf8_write(3, PCI_BAR0 + 16, 0xfe000000, 4);
    assert_int_equal(bus_read(&f.rig.mmio, 0xfe001000, 1), 0xaa);
    cf8_write(1, PCI_BAR0 + 4, (uint32_t)ECAM, 4);
    assert_int_equal(ecam_read(3, 0, 4), 0x10421af4);
    assert_int_equal(bus_read(&f.rig.mmio, 0xfe001000, 1), 0xaa);
    cf8_write(3, PCI_BAR0 + 4, 0xfd000000, 4); /* now the wide one gets its place */
    f.a.wide[0x1000] = 0xcc;
    assert_int_equal(bus_read(&f.rig.mmio, 0xfe001000, 1), 0xcc);
}

static void test_bar_limits(void **state)
{
    static struct toy t;
    struct pci_ident id = { .vendor = 1 };

    pci_dev_init(&t.pci, "t", &id, NULL);
    assert_int_equal(pci_dev_add_bar(&t.pci, 0, PCI_BAR_IO, false, 512, &bytes_ops, t.ports), -EINVAL);
    assert_int_equal(pci_dev_add_bar(&t.pci, 0, PCI_BAR_IO, false, 2, &bytes_ops, t.ports), -EINVAL);
    assert_int_equal(pci_dev_add_bar(&t.pci, 0, PCI_BAR_MEM32, false, 24, &bytes_ops, t.ports), -EINVAL);
    assert_int_equal(pci_dev_add_bar(&t.pci, 5, PCI_BAR_MEM64, false, 4096, &bytes_ops, t.ports), -EINVAL);
    assert_int_equal(pci_dev_add_bar(&t.pci, 6, PCI_BAR_MEM32, false, 4096, &bytes_ops, t.ports), -EINVAL);
    assert_int_equal(pci_dev_add_bar(&t.pci, 2, PCI_BAR_MEM64, false, 4096, &bytes_ops, t.ports), 0);
    assert_int_equal(pci_dev_add_bar(&t.pci, 2, PCI_BAR_MEM32, false, 4096, &bytes_ops, t.ports), -EINVAL);
    assert_int_equal(pci_dev_add_bar(&t.pci, 3, PCI_BAR_MEM32, false, 4096, &bytes_ops, t.ports), -EINVAL);
    assert_int_equal(pci_dev_add_bar(&t.pci, 1, PCI_BAR_MEM64, false, 4096, &bytes_ops, t.ports), -EINVAL);
    assert_int_equal(pci_dev_plug(&t.pci, &f.host, 3), -EBUSY);
    assert_int_equal(pci_dev_plug(&t.pci, &f.host, 32), -EINVAL);
    assert_int_equal(pci_dev_plug(&t.pci, &f.host, 31), 0);
    assert_int_equal(pci_dev_plug(&t.pci, &f.host, 30), -EINVAL); /* it is plugged */
    pci_dev_unplug(&t.pci);
    assert_int_equal(cf8_read(31, 0, 4), 0xffffffff);
}

static void test_intx(void **state)
{
    static struct toy c;

    toy_init(&c, "toy-c", 1);
    assert_int_equal(pci_dev_plug(&c.pci, &f.host, 7), 0); /* slot 7 INTA shares with slot 3 INTA: line 3 */
    pci_dev_set_intx(&f.a.pci, true);
    assert_line(&f.rig, INTX + 3, true);
    assert_int_equal(cf8_read(3, PCI_STATUS, 2) & PCI_STATUS_INTX, PCI_STATUS_INTX);
    pci_dev_set_intx(&c.pci, true);
    pci_dev_set_intx(&c.pci, true);
    pci_dev_set_intx(&f.a.pci, false);
    assert_line(&f.rig, INTX + 3, true);
    pci_dev_set_intx(&c.pci, false);
    assert_line(&f.rig, INTX + 3, false);
    pci_dev_set_intx(&f.b.pci, true); /* slot 1 INTB: line 2 */
    assert_line(&f.rig, INTX + 2, true);
    cf8_write(1, PCI_COMMAND, PCI_COMMAND_INTX_OFF, 2);
    assert_line(&f.rig, INTX + 2, false);
    assert_int_equal(cf8_read(1, PCI_STATUS, 2) & PCI_STATUS_INTX, PCI_STATUS_INTX);
    cf8_write(1, PCI_COMMAND, 0, 2);
    assert_line(&f.rig, INTX + 2, true);
    pci_dev_unplug(&f.b.pci);
    assert_line(&f.rig, INTX + 2, false);
    pci_dev_set_intx(&c.pci, true);
    pci_dev_reset(&c.pci);
    assert_line(&f.rig, INTX + 3, false);
}

static void test_capabilities(void **state)
{
    static struct toy t;
    struct pci_ident id = { .vendor = 1 };

    pci_dev_init(&t.pci, "t", &id, NULL);
    int first = pci_dev_add_cap(&t.pci, PCI_CAP_ID_VENDOR, 13), second = pci_dev_add_cap(&t.pci, 0x05, 10);
    assert_int_equal(first, 0x40);
    assert_int_equal(second, 0x50);
    assert_int_equal(pci_dev_add_cap(&t.pci, 9, 200), -ENOSPC);
    assert_int_equal(pci_dev_plug(&t.pci, &f.host, 9), 0);
    assert_int_equal(cf8_read(9, PCI_STATUS, 2) & PCI_STATUS_CAP_LIST, PCI_STATUS_CAP_LIST);
    unsigned at = cf8_read(9, PCI_CAP_POINTER, 1);
    assert_int_equal(at, 0x50);
    assert_int_equal(cf8_read(9, at, 2), 0x4005);
    assert_int_equal(cf8_read(9, 0x40, 2), 0x0009);
    assert_int_equal(pci_dev_add_cap(&t.pci, 9, 4), -ENOSPC); /* plugged: too late */
}

static void test_state(void **state)
{
    static struct fixture g;
    struct irq_line intx[4];

    cf8_write(3, PCI_COMMAND, 3, 2);
    cf8_write(3, PCI_BAR0, 0xc000, 4);
    cf8_write(3, PCI_BAR0 + 4, 0xfe000000, 4);
    cf8_write(3, PCI_BAR0 + 20, 0x80, 4);
    pci_dev_set_intx(&f.a.pci, true);
    rig_init(&g.rig, 0);
    for (unsigned i = 0; i < 4; i++)
        intx[i] = rig_irq(&g.rig, INTX + i);
    pci_host_init(&g.host, &g.rig.io, &g.rig.mmio, intx);
    toy_init(&g.a, "toy-a", 1);
    assert_int_equal(pci_dev_plug(&g.a.pci, &g.host, 3), 0);
    rig_round_trip(&pci_host_ops, &f.host, &g.host);
    assert_int_equal(g.host.address, f.host.address);
    rig_round_trip(&toy_ops, &f.a, &g.a);
    assert_true(bus_claims(&g.rig.io, 0xc000));
    assert_true(bus_claims(&g.rig.mmio, 0xfe000000));
    assert_true(bus_claims(&g.rig.mmio, 0x8000000000ULL));
    assert_line(&g.rig, INTX + 3, true);
    /* Back to a state without any of it, in place. */
    toy_ops.reset(&f.a);
    rig_round_trip(&toy_ops, &f.a, &g.a);
    assert_false(bus_claims(&g.rig.mmio, 0xfe000000));
    assert_line(&g.rig, INTX + 3, false);
    rig_fini(&g.rig);
}

static void test_attach(void **state)
{
    bus_remove(&f.rig.mmio, &f.host.ecam);
    rig_attach_conflicts(&f.rig.io, ports_only, NULL);
    for (unsigned i = 0; i < 2; i++)
        bus_remove(&f.rig.io, i ? &f.host.data_port : &f.host.address_port);
    bus_remove(&f.rig.mmio, &f.host.ecam);
    assert_int_equal(f.rig.mmio.count, 0); /* without an address there is no ECAM */
    static struct bus_region other = { .base = ECAM + PCI_ECAM_SIZE - 1, .len = 1, .ops = &bytes_ops };
    assert_int_equal(bus_add(&f.rig.mmio, &other), 0);
    assert_int_equal(attach(NULL), -EEXIST);
    assert_int_equal(f.rig.io.count, 0);
}

static void test_bar_keeps_its_place(void **state)
{
    cf8_write(3, PCI_COMMAND, 2, 2);
    cf8_write(3, PCI_BAR0 + 4, 0xfe000000, 4);
    cf8_write(1, PCI_COMMAND, 2, 2);
    cf8_write(1, PCI_BAR0 + 4, 0xfe000000, 4); /* slot 1 waits, and comes first in any search */
    f.a.mem[0] = 0xaa;
    cf8_write(3, PCI_COMMAND, 6, 2);
    cf8_write(3, PCI_BAR0 + 4, 0xfe000000, 4);
    assert_int_equal(bus_read(&f.rig.mmio, 0xfe000000, 1), 0xaa);
    f.b.mem[0] = 0xbb;
    pci_dev_unplug(&f.a.pci);
    assert_int_equal(bus_read(&f.rig.mmio, 0xfe000000, 1), 0xbb); /* free at last */
}

/* PCIEXBAR moves the ECAM, and resets to where it was attached. */
static void test_ecam_moves(void **state)
{
    static struct fixture g;
    struct irq_line intx[4];

    assert_int_equal(pci_host_ecam_base(&f.host), ECAM);
    assert_int_equal(cf8_read(0, 0x60, 4), ECAM | 1);
    cf8_write(0, 0x60, 0xe0000007, 4); /* the length stays 256 MiB */
    assert_int_equal(cf8_read(0, 0x60, 4), 0xe0000001);
    assert_false(bus_claims(&f.rig.mmio, ECAM));
    assert_int_equal(bus_read(&f.rig.mmio, 0xe0000000, 4), 0x29c08086);
    bus_write(&f.rig.mmio, 0xe0000060, 0xd0000001, 4); /* through itself */
    assert_int_equal(bus_read(&f.rig.mmio, 0xd0018000, 4), 0x10421af4);
    cf8_write(0, 0x64, 0xffffffff, 4);
    assert_int_equal(cf8_read(0, 0x64, 4), 0);
    /* Another region is in the way: nothing is mapped, and nothing breaks. */
    cf8_write(3, PCI_BAR0 + 4, 0xc0000000, 4);
    cf8_write(3, PCI_COMMAND, 2, 2);
    cf8_write(0, 0x60, 0xc0000001, 4);
    assert_int_equal(pci_host_ecam_base(&f.host), 0xc0000000);
    assert_false(f.host.ecam.enabled);
    cf8_write(0, 0x60, 0xa0000001, 4);
    assert_true(bus_claims(&f.rig.mmio, 0xa0000000));
    for (unsigned i = 0; i < 4; i++)
        intx[i] = rig_irq(&f.rig, INTX + i);
    rig_init(&g.rig, 0);
    pci_host_init(&g.host, &g.rig.io, &g.rig.mmio, intx);
    rig_round_trip(&pci_host_ops, &f.host, &g.host);
    assert_true(bus_claims(&g.rig.mmio, 0xa0000000));
    rig_fini(&g.rig);
    cf8_write(0, 0x60, 0, 4);
    assert_false(f.host.ecam.enabled);
    assert_int_equal(pci_host_ecam_base(&f.host), 0);
    pci_host_ops.reset(&f.host);
    assert_int_equal(bus_read(&f.rig.mmio, ECAM, 4), 0x29c08086);
}

/* What firmware writes to the bridges of the board is there when it reads it again. */
static void test_board_registers(void **state)
{
    static struct lpc lpc, fresh;

    cf8_write(0, 0x90, 0xffffffff, 4);
    cf8_write(0, 0x94, 0xffffffff, 4);
    assert_int_equal(cf8_read(0, 0x90, 4), 0x33333330);
    assert_int_equal(cf8_read(0, 0x94, 4), 0x00333333);
    assert_int_equal(cf8_read(0, 0x9d, 1), 0x02);
    assert_int_equal(cf8_read(0, PCI_SUBVENDOR_ID, 4), 0x11001af4);
    lpc_init(&lpc, 0x600);
    assert_int_equal(pci_dev_plug(&lpc.pci, &f.host, LPC_SLOT), 0);
    assert_int_equal(cf8_read(31, 0, 4), 0x29188086);
    assert_int_equal(cf8_read(31, PCI_CLASS, 2), 0x0601);
    cf8_write(31, 0x40, 0xb001, 4);
    assert_int_equal(cf8_read(31, 0x40, 4), 0x601);
    cf8_write(31, 0x44, 0, 1);
    assert_int_equal(cf8_read(31, 0x44, 1), 0x80);
    assert_int_equal(cf8_read(31, 0x60, 4), 0x80808080);
    cf8_write(31, 0x60, 0xff0b0b0a, 4);
    assert_int_equal(cf8_read(31, 0x60, 4), 0x8f0b0b0a);
    cf8_write(31, 0xf0, 0xfed1c001, 4);
    assert_int_equal(cf8_read(31, 0xf0, 4), 0);
    lpc_init(&fresh, 0x600);
    rig_round_trip(&lpc_ops, &lpc, &fresh);
    lpc_ops.reset(&lpc);
    assert_int_equal(cf8_read(31, 0x60, 4), 0x80808080);
}

static void test_fuzz(void **state)
{
    for (unsigned i = 0; i < 100; i++) {
        rig_fuzz(&f.rig, &f.rig.io, 0xcf8, 8, 1000);
        rig_fuzz(&f.rig, &f.rig.mmio, ECAM, 0x20000, 500);
        rig_fuzz(&f.rig, &f.rig.mmio, ECAM + (3 << 15), 0x40, 500);
        rig_fuzz(&f.rig, &f.rig.mmio, ECAM + (1 << 15), 0x40, 500);
        pci_dev_set_intx(i & 1 ? &f.a.pci : &f.b.pci, i & 2);
        /* The lines are what the counts say. */
        for (unsigned n = 0; n < 4; n++)
            assert_int_equal(f.rig.line[INTX + n].level, f.host.intx_count[n] != 0);
        assert_in_range(f.host.intx_count[3], 0, 1);
    }
    rig_fuzz_state(&f.rig, &toy_ops, &f.a, &f.rig.mmio, ECAM + (3 << 15), 0x40, 2000);
    rig_fuzz_state(&f.rig, &pci_host_ops, &f.host, &f.rig.io, 0xcf8, 8, 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_both_mechanisms_agree, setup, teardown),
        cmocka_unit_test_setup_teardown(test_address_register, setup, teardown),
        cmocka_unit_test_setup_teardown(test_header_masks, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bar_sizing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bar_mapping, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bar_overlap, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bar_limits, setup, teardown),
        cmocka_unit_test_setup_teardown(test_intx, setup, teardown),
        cmocka_unit_test_setup_teardown(test_capabilities, setup, teardown),
        cmocka_unit_test_setup_teardown(test_state, setup, teardown),
        cmocka_unit_test_setup_teardown(test_attach, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bar_keeps_its_place, setup, teardown),
        cmocka_unit_test_setup_teardown(test_ecam_moves, setup, teardown),
        cmocka_unit_test_setup_teardown(test_board_registers, setup, teardown),
        cmocka_unit_test_setup_teardown(test_fuzz, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
