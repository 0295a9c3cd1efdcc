/* The entropy device: what it gives, its own bound, the user's limits, what does not fit, state. */
#include <string.h>

#include "rig.h"
#include "vdriver.h"
#include "virtio/rng.h"

#define RAM     (16ULL << 20)
#define AREA    0x100000ULL
#define BURST   65536U  /* at once, and in each */
#define PERIOD  (100 * MS)
#define REQUEST 4096U

static struct {
    struct rig rig;
    struct pci_host host;
    struct ram ram;
    struct rand_source rand;
    struct virtio_rng g, other;
    struct vring ring;
} f;

static int setup(void **state)
{
    memset(&f, 0, sizeof(f));
    rig_init(&f.rig, 0);
    ram_init(&f.ram);
    rand_init_host(&f.rand);
    assert_int_equal(ram_add_slot(&f.ram, 0, RAM, false), 0);
    struct irq_line lines[4] = { rig_irq(&f.rig, 0), rig_irq(&f.rig, 1), rig_irq(&f.rig, 2), rig_irq(&f.rig, 3) };
    pci_host_init(&f.host, &f.rig.io, &f.rig.mmio, lines);
    assert_int_equal(virtio_rng_init(&f.g, &f.rand, &f.rig.loop, &f.ram, rig_deliver, &f.rig), 0);
    assert_int_equal(virtio_rng_init(&f.other, &f.rand, &f.rig.loop, &f.ram, rig_deliver, &f.rig), 0);
    assert_int_equal(pci_dev_plug(&f.g.vp.pci, &f.host, 1), 0);
    virtio_rng_ops.reset(&f.g);
    vd_plug(&f.rig, &f.g.vp.pci, true, 2);
    assert_true(vd_negotiate(&f.rig, 0));
    vring_init(&f.ring, &f.ram, false, 64, 0x10000);
    vd_queue(&f.rig, 0, &f.ring);
    vd_go(&f.rig);
    return 0;
}

static int teardown(void **state)
{
    virtio_rng_ops.destroy(&f.g);
    virtio_rng_ops.destroy(&f.other);
    ram_fini(&f.ram);
    rig_fini(&f.rig);
    return 0;
}

static void ask(unsigned requests, uint32_t len)
{
    for (unsigned n = 0; n < requests; n++) {
        struct vring_part p = { AREA, len, true };
        vring_add(&f.ring, &p, 1);
    }
    vd_kick(&f.rig, 0);
}

/* The bytes that came since. */
static uint64_t got(unsigned *requests)
{
    uint64_t sum = 0;
    uint32_t len;
    uint16_t id;

    for (*requests = 0; vring_get(&f.ring, &id, &len, 1); sum += len)
        ++*requests;
    return sum;
}

/* What a guest gets that asks as often as it may, for so long. */
static uint64_t drink(uint64_t ns, uint32_t len, unsigned *requests)
{
    uint64_t sum = 0;
    unsigned n;

    ask(16, len);
    *requests = 0;
    for (uint64_t t = 0; t < ns; t += MS) {
        sum += got(&n);
        *requests += n;
        ask(n, len);
        rig_run(&f.rig, MS);
    }
    return sum;
}

static void test_gives(void **state)
{
    uint8_t a[64], zero[64] = { 0 };
    unsigned n;

    ask(1, sizeof(a));
    assert_int_equal(got(&n), sizeof(a));
    assert_int_equal(ram_read(&f.ram, AREA, a, sizeof(a)), 0);
    assert_memory_not_equal(a, zero, sizeof(a));
}

static void test_bound(void **state)
{
    unsigned n;

    assert_in_range(drink(10 * PERIOD, REQUEST, &n), 10 * BURST, 11 * BURST);
}

static void test_limit(void **state)
{
    struct limit_rate bytes = { .size = 20000, .ms = 1000 }, ops = { .size = 10, .ms = 1000 }, none = { .size = 0 };
    unsigned n;

    virtio_rng_limit(&f.g, &bytes, NULL);
    assert_in_range(drink(10 * SEC, 100, &n), 220000 - 100, 220000 + 200); /* it was full once */
    virtio_rng_limit(&f.g, &none, &ops);
    got(&n);
    drink(10 * SEC, 100, &n);
    assert_in_range(n, 105, 111);
    virtio_rng_limit(&f.g, NULL, &none);
    rig_run(&f.rig, MS); /* what waited goes on by itself */
    assert_true(got(&n) > 0);
    assert_in_range(drink(10 * PERIOD, REQUEST, &n), 10 * BURST, 11 * BURST);
}

/* Neither a reset nor a pause gives a guest more. */
static void test_life(void **state)
{
    struct limit_rate ops = { .size = 4, .ms = 1000 };
    unsigned n;

    virtio_rng_limit(&f.g, NULL, &ops);
    ask(6, 100);
    got(&n);
    assert_int_equal(n, 4);
    virtio_rng_ops.pause(&f.g);
    rig_run(&f.rig, 10 * MS);
    virtio_rng_ops.resume(&f.g);
    got(&n);
    assert_int_equal(n, 0);
    rig_run(&f.rig, 300 * MS);
    got(&n);
    assert_int_equal(n, 1);
    virtio_rng_ops.reset(&f.g);
    assert_int_equal(f.g.limit.ops.left, 0);
}

static void test_state(void **state)
{
    struct limit_rate bytes = { .size = 1000, .burst = 5, .ms = 100 }, ops = { .size = 4, .ms = 1000 };

    virtio_rng_limit(&f.g, &bytes, &ops);
    ask(3, 500);
    rig_round_trip(&virtio_rng_ops, &f.g, &f.other);
    assert_memory_equal(&f.g.limit, &f.other.limit, sizeof(f.g.limit));
    assert_true(f.other.limit.bytes.left < 0);
    rig_fuzz_state(&f.rig, &virtio_rng_ops, &f.other, &f.rig.mmio, VD_BAR, 0x4000, 200);
}

#define CASE(t) cmocka_unit_test_setup_teardown(t, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = { CASE(test_gives), CASE(test_bound), CASE(test_limit), CASE(test_life), CASE(test_state) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
