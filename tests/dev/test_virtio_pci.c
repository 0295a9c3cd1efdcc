/* The PCI transport of virtio under a toy device that answers each chain with its bytes, upper case. */
#include <ctype.h>
#include <string.h>

#include "base/bits.h"
#include "rig.h"
#include "vdriver.h"

#define TOY_FEATURE (1ULL << 3)

struct toy {
    struct virtio_pci vp;
    uint8_t config[12];
    unsigned starts, resets, kicks;
    uint32_t wrote;
};

static struct {
    struct rig rig;
    struct pci_host host;
    struct ram ram;
    struct toy toy, other;
    struct vring ring;
} f;

static void toy_notify(void *dev, unsigned n)
{
    struct toy *t = dev;
    struct vq_chain c;
    uint8_t buf[64];

    t->kicks++;
    while (vq_pop(&t->vp.vq[n], &c) > 0) {
        size_t len = vq_chain_read(&c, 0, buf, sizeof(buf));
        for (size_t i = 0; i < len; i++)
            buf[i] = (uint8_t)toupper(buf[i]);
        vq_push(&t->vp.vq[n], &c, (uint32_t)vq_chain_write(&c, 0, buf, len));
    }
    virtio_notify(&t->vp, n);
}

static void toy_start(void *dev) { ((struct toy *)dev)->starts++; }
static void toy_reset_virtio(void *dev) { ((struct toy *)dev)->resets++; }
static void toy_config_write(void *dev, unsigned off, uint32_t v, unsigned size)
{
    ((struct toy *)dev)->wrote = v ^ off << 24 ^ size << 16;
}

static const struct virtio_ops toy_virtio = {
    .start = toy_start, .notify = toy_notify, .reset = toy_reset_virtio, .config_write = toy_config_write
};

static void toy_reset(void *dev) { virtio_pci_reset(&((struct toy *)dev)->vp); }
static void toy_resume(void *dev) { virtio_pci_resume(&((struct toy *)dev)->vp); }
static void toy_destroy(void *dev) { (void)dev; }
static const struct state_field toy_fields[] = {
    STATE_FSTRUCT(struct toy, vp, struct virtio_pci, virtio_pci_state),
    STATE_END,
};
static const struct state_desc toy_state = {
    .name = "toy", .version = 1, .size = sizeof(struct toy), .fields = toy_fields
};
static const struct device_ops toy_ops = {
    .type = "toy", .reset = toy_reset, .resume = toy_resume, .destroy = toy_destroy, .state = &toy_state
};

static void toy_init(struct toy *t)
{
    struct virtio_setup setup = {
        .name = "toy",
        .ops = &toy_virtio,
        .dev = t,
        .id = 42,
        .class_code = 0xff,
        .queues = 3,
        .queue_size = 64,
        .features = TOY_FEATURE,
        .config = t->config,
        .config_len = sizeof(t->config),
        .ram = &f.ram,
        .deliver = rig_deliver,
        .deliver_opaque = &f.rig,
    };

    memset(t, 0, sizeof(*t));
    memcpy(t->config, "configdata!\n", 12);
    assert_int_equal(virtio_pci_init(&t->vp, &setup), 0);
}

static int setup(void **state)
{
    struct irq_line intx[4];

    memset(&f, 0, sizeof(f));
    rig_init(&f.rig, 0);
    for (unsigned n = 0; n < 4; n++)
        intx[n] = rig_irq(&f.rig, n);
    pci_host_init(&f.host, &f.rig.io, &f.rig.mmio, intx);
    ram_init(&f.ram);
    assert_int_equal(ram_add_slot(&f.ram, 0, 1 << 20, false), 0);
    toy_init(&f.toy);
    toy_init(&f.other);
    assert_int_equal(pci_dev_plug(&f.toy.vp.pci, &f.host, 4), 0);
    vring_init(&f.ring, &f.ram, false, 16, 0x1000);
    return 0;
}

static int teardown(void **state)
{
    ram_fini(&f.ram);
    rig_fini(&f.rig);
    return 0;
}

static uint32_t get(unsigned off, unsigned size) { return vd_get(&f.rig, off, size); }
static void put(unsigned off, uint32_t v, unsigned size) { vd_put(&f.rig, off, v, size); }

static void go(bool msix, uint64_t features)
{
    vd_plug(&f.rig, &f.toy.vp.pci, msix, 4);
    assert_true(vd_negotiate(&f.rig, features));
    vd_queue(&f.rig, 1, &f.ring);
    vd_go(&f.rig);
}

/* Send a word through queue 1 and see it come back. */
static void echo(void)
{
    struct vring_part part[] = { { 0x10000, 5, false }, { 0x10100, 5, true } };
    char back[6] = "";
    uint16_t id, got;
    uint32_t written;

    ram_write(&f.ram, 0x10000, "hello", 5);
    id = vring_add(&f.ring, part, 2);
    vd_kick(&f.rig, 1);
    assert_true(vring_get(&f.ring, &got, &written, 2));
    assert_int_equal(got, id);
    assert_int_equal(written, 5);
    ram_read(&f.ram, 0x10100, back, 5);
    assert_string_equal(back, "HELLO");
}

static void test_identity(void **state)
{
    struct pci_dev *p = &f.toy.vp.pci;
    unsigned seen = 0;

    assert_int_equal(pci_dev_config_read(p, 0, 4), (0x1040 + 42) << 16 | 0x1af4);
    assert_int_equal(pci_dev_config_read(p, PCI_REVISION, 1), 1);
    for (unsigned cap = pci_dev_config_read(p, PCI_CAP_POINTER, 1); cap;
         cap = pci_dev_config_read(p, cap + 1, 1)) {
        if (pci_dev_config_read(p, cap, 1) == PCI_CAP_ID_VENDOR)
            seen |= 1U << pci_dev_config_read(p, cap + 3, 1);
    }
    assert_int_equal(seen, 0x3e); /* common, notify, ISR, device, PCI */
    vd_plug(&f.rig, p, false, 0);
    assert_int_equal(get(VD_QUEUES, 2), 3);
    assert_true(vd_offered(&f.rig) == (TOY_FEATURE | VIRTIO_F_VERSION_1 | VIRTIO_F_INDIRECT_DESC |
                                       VIRTIO_F_EVENT_IDX | VIRTIO_F_RING_PACKED));
    put(VD_OFFERED_SELECT, 2, 4);
    assert_int_equal(get(VD_OFFERED, 4), 0);
    put(VD_SELECT, 3, 2); /* no such queue */
    assert_int_equal(get(VD_SIZE, 2), 0);
    put(VD_SELECT, 2, 2);
    assert_int_equal(get(VD_SIZE, 2), 64);
    assert_int_equal(get(VD_NOTIFY_OFF, 2), 2);
    assert_int_equal(get(VD_VECTOR, 2), VQ_NO_VECTOR);
}

static void test_widths(void **state)
{
    vd_plug(&f.rig, &f.toy.vp.pci, false, 0);
    put(VD_STATUS, VIRTIO_ACKNOWLEDGE, 2); /* too wide */
    put(VD_STATUS, VIRTIO_ACKNOWLEDGE, 4);
    assert_int_equal(get(VD_STATUS, 1), 0);
    put(VD_SELECT, 1, 1);
    assert_int_equal(get(VD_SELECT, 2), 0);
    put(VD_DESC, 0x1234, 2);
    assert_int_equal(get(VD_DESC, 4), 0);
    put(0x38, 7, 4);
    assert_int_equal(get(0x38, 4), 0);
    assert_int_equal(get(VD_QUEUES, 1), 0);
    assert_int_equal(get(VD_CONFIG, 4), 0x666e6f63);
    assert_int_equal(get(VD_CONFIG + 10, 2), '!' | '\n' << 8);
    assert_int_equal(get(VD_CONFIG + 12, 1), 0);
    put(VD_CONFIG + 4, 0xabcd, 2);
    assert_int_equal(f.toy.wrote, 0xabcd ^ 4 << 24 ^ 2 << 16);
    put(VD_CONFIG + 12, 1, 1);
    assert_int_equal(f.toy.wrote, 0xabcd ^ 4 << 24 ^ 2 << 16);
}

static void test_negotiation(void **state)
{
    vd_plug(&f.rig, &f.toy.vp.pci, false, 0);
    assert_false(vd_negotiate(&f.rig, 1ULL << 5)); /* not offered */
    assert_false(vd_negotiate(&f.rig, 1ULL << 63));
    vd_go(&f.rig); /* DRIVER_OK without a good FEATURES_OK */
    assert_int_equal(get(VD_STATUS, 1) & VIRTIO_DRIVER_OK, 0);
    assert_int_equal(f.toy.starts, 0);
    put(VD_STATUS, 0, 1);
    put(VD_STATUS, VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER | VIRTIO_FEATURES_OK, 1); /* without VERSION_1 */
    assert_int_equal(get(VD_STATUS, 1), VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER);
    assert_true(vd_negotiate(&f.rig, TOY_FEATURE));
    assert_true(virtio_has(&f.toy.vp, TOY_FEATURE));
    put(VD_ACCEPTED_SELECT, 0, 4);
    put(VD_ACCEPTED, 0, 4); /* too late */
    assert_true(virtio_has(&f.toy.vp, TOY_FEATURE));
    put(VD_STATUS, VIRTIO_DRIVER, 1); /* bits are not taken back one by one */
    assert_int_equal(get(VD_STATUS, 1), VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER | VIRTIO_FEATURES_OK);
}

static void test_freeze(void **state)
{
    struct vring_part part = { 0x10000, 4, true };

    vd_plug(&f.rig, &f.toy.vp.pci, false, 0);
    assert_true(vd_negotiate(&f.rig, 0));
    put(VD_SELECT, 0, 2);
    put(VD_SIZE, 0, 2); /* impossible sizes change nothing */
    put(VD_SIZE, 65, 2);
    assert_int_equal(get(VD_SIZE, 2), 64);
    vd_queue(&f.rig, 1, &f.ring);
    put(VD_SIZE, 32, 2); /* enabled: frozen */
    put(VD_ENABLE, 0, 2);
    assert_int_equal(get(VD_SIZE, 2), 16);
    assert_int_equal(get(VD_ENABLE, 2), 1);
    vring_add(&f.ring, &part, 1);
    vd_kick(&f.rig, 1); /* before DRIVER_OK nothing moves */
    assert_int_equal(f.toy.kicks, 0);
    vd_go(&f.rig);
    assert_int_equal(f.toy.starts, 1);
    put(VD_SIZE, 64, 2);
    put(VD_DESC, 0xdead0, 4);
    put(VD_DESC + 4, 1, 4);
    put(VD_DRIVER, 0xdead0, 4);
    put(VD_DEVICE, 0xdead0, 4);
    assert_int_equal(get(VD_SIZE, 2), 16);
    assert_int_equal(get(VD_DESC, 4), 0x1000);
    assert_int_equal(get(VD_DESC + 4, 4), 0);
    assert_int_equal(get(VD_DRIVER, 4), 0x2000);
    assert_int_equal(get(VD_DEVICE, 4), 0x3000);
    put(VD_SELECT, 0, 2); /* nor does a queue appear now */
    put(VD_ENABLE, 1, 2);
    assert_int_equal(get(VD_ENABLE, 2), 0);
}

static void test_intx(void **state)
{
    go(false, VIRTIO_F_INDIRECT_DESC);
    echo();
    assert_line(&f.rig, 0, true);
    assert_int_equal(get(VD_ISR, 1), 1);
    assert_line(&f.rig, 0, false);
    assert_int_equal(get(VD_ISR, 1), 0);
    uint8_t generation = (uint8_t)get(VD_GENERATION, 1);
    virtio_config_changed(&f.toy.vp);
    assert_int_equal(get(VD_GENERATION, 1), generation + 1);
    assert_line(&f.rig, 0, true);
    assert_int_equal(get(VD_ISR, 1), 2);
    assert_int_equal(f.rig.msgs, 0);
}

static void test_msix(void **state)
{
    go(true, 0);
    put(VD_SELECT, 1, 2);
    assert_int_equal(get(VD_VECTOR, 2), 2);
    echo();
    assert_line(&f.rig, 0, false);
    assert_int_equal(f.rig.msgs, 1);
    assert_int_equal(f.rig.msg[0].vector, 0x42);
    put(VD_VECTOR, 4, 2); /* there are four: 0 to 3 */
    assert_int_equal(get(VD_VECTOR, 2), VQ_NO_VECTOR);
    echo();
    assert_int_equal(f.rig.msgs, 1);
    put(VD_CONFIG_VECTOR, 0, 2);
    virtio_config_changed(&f.toy.vp);
    assert_int_equal(f.rig.msgs, 2);
    assert_int_equal(f.rig.msg[1].vector, 0x40);
}

static void test_needs_reset(void **state)
{
    struct vring_part bad = { 1ULL << 40, 5, true };

    go(false, 0);
    vring_add(&f.ring, &bad, 1);
    vd_kick(&f.rig, 1);
    assert_true(get(VD_STATUS, 1) & VIRTIO_NEEDS_RESET);
    assert_int_equal(get(VD_ISR, 1), 2); /* the driver is told */
    unsigned kicks = f.toy.kicks;
    vd_kick(&f.rig, 1);
    put(VD_STATUS, 0xf, 1);
    assert_int_equal(f.toy.kicks, kicks);
    assert_true(get(VD_STATUS, 1) & VIRTIO_NEEDS_RESET);
    vring_init(&f.ring, &f.ram, false, 16, 0x1000);
    go(false, 0); /* a reset cures it */
    assert_int_equal(f.toy.resets, 1 + 1);
    echo();
    vring_init(&f.ring, &f.ram, false, 16, 0x1000);
    f.ring.desc = 1ULL << 40; /* a ring outside RAM is found at DRIVER_OK */
    go(false, 0);
    assert_true(get(VD_STATUS, 1) & VIRTIO_NEEDS_RESET);
}

static void test_reset(void **state)
{
    go(true, TOY_FEATURE);
    echo();
    put(VD_STATUS, 0, 1);
    assert_int_equal(get(VD_STATUS, 1), 0);
    put(VD_SELECT, 1, 2);
    assert_int_equal(get(VD_ENABLE, 2), 0);
    assert_int_equal(get(VD_SIZE, 2), 64);
    assert_int_equal(get(VD_DESC, 4), 0);
    assert_int_equal(f.toy.vp.accepted, 0);
    vring_init(&f.ring, &f.ram, true, 13, 0x1000);
    go(true, VIRTIO_F_RING_PACKED);
    for (unsigned i = 0; i < 100; i++)
        echo();
}

/* BAR 0 through configuration space. */
static void test_window(void **state)
{
    struct pci_dev *p = &f.toy.vp.pci;
    unsigned cap = f.toy.vp.cfg_cap;

    pci_dev_config_write(p, cap + 8, VD_STATUS, 4);
    pci_dev_config_write(p, cap + 12, 1, 4);
    pci_dev_config_write(p, cap + 16, VIRTIO_ACKNOWLEDGE, 4);
    assert_int_equal(f.toy.vp.status, VIRTIO_ACKNOWLEDGE);
    assert_int_equal(pci_dev_config_read(p, cap + 16, 4), VIRTIO_ACKNOWLEDGE);
    pci_dev_config_write(p, cap + 8, VD_CONFIG, 4);
    pci_dev_config_write(p, cap + 12, 4, 4);
    assert_int_equal(pci_dev_config_read(p, cap + 16, 4), 0x666e6f63);
    pci_dev_config_write(p, cap + 8, 0xfffffffc, 4); /* outside, odd, and of no width: nothing happens */
    pci_dev_config_write(p, cap + 16, 0, 4);
    pci_dev_config_write(p, cap + 8, VD_STATUS + 1, 4);
    pci_dev_config_write(p, cap + 16, 0, 4);
    pci_dev_config_write(p, cap + 8, VD_STATUS, 4);
    pci_dev_config_write(p, cap + 12, 3, 4);
    pci_dev_config_write(p, cap + 16, 0, 4);
    assert_int_equal(f.toy.vp.status, VIRTIO_ACKNOWLEDGE);
}

static void test_state(void **state)
{
    go(true, VIRTIO_F_EVENT_IDX);
    echo();
    rig_round_trip(&toy_ops, &f.toy, &f.other);
    pci_dev_unplug(&f.toy.vp.pci);
    assert_int_equal(pci_dev_plug(&f.other.vp.pci, &f.host, 4), 0);
    virtio_pci_resume(&f.other.vp);
    echo(); /* the other one goes on */
    assert_int_equal(f.other.kicks, 1);
}

static void test_fuzz(void **state)
{
    go(true, 0);
    rig_fuzz(&f.rig, &f.rig.mmio, VD_BAR, 0x4000, 50000);
    for (unsigned i = 0; i < 2000; i++)
        pci_dev_config_write(&f.toy.vp.pci, rig_random(&f.rig) % 64 * 4, (uint32_t)rig_random(&f.rig), 4);
    toy_reset(&f.toy);
    go(true, 0);
    rig_fuzz_state(&f.rig, &toy_ops, &f.toy, &f.rig.mmio, VD_BAR, 0x4000, 300);
}

int main(void)
{
#define TEST(t) cmocka_unit_test_setup_teardown(t, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_identity), TEST(test_widths), TEST(test_negotiation), TEST(test_freeze),
        TEST(test_intx),     TEST(test_msix),   TEST(test_needs_reset), TEST(test_reset),
        TEST(test_window),   TEST(test_state),  TEST(test_fuzz),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
