/* The balloon: pages that the guest names read as zeros and cost the host nothing, code pages are told of,
 * reports give back in one piece, statistics without a chain held, the target by configuration, misuse,
 * state. */
#include <string.h>
#include <sys/mman.h>

#include "base/bits.h"
#include "rig.h"
#include "vdriver.h"
#include "virtio/balloon.h"

#define RAM  (64ULL << 20)
#define LIST 0x100000ULL
#define AREA 0x1000000ULL
enum { INFLATE, DEFLATE, STATS, REPORT };
#define F_STATS  2ULL
#define F_POISON 16ULL
#define F_REPORT 32ULL

static struct {
    struct rig rig;
    struct pci_host host;
    struct ram ram;
    struct virtio_balloon b, other;
    struct vring ring[4];
    uint64_t code_gpa;
    unsigned code_calls;
} f;

static int setup(void **state)
{
    memset(&f, 0, sizeof(f));
    rig_init(&f.rig, 0);
    ram_init(&f.ram);
    assert_int_equal(ram_add_slot(&f.ram, 0, RAM, false), 0);
    assert_int_equal(ram_add_slot(&f.ram, RAM, PAGE_SIZE, true), 0);
    struct irq_line lines[4] = { rig_irq(&f.rig, 0), rig_irq(&f.rig, 1), rig_irq(&f.rig, 2),
                                 rig_irq(&f.rig, 3) };
    pci_host_init(&f.host, &f.rig.io, &f.rig.mmio, lines);
    assert_int_equal(virtio_balloon_init(&f.b, &f.rig.loop, &f.ram, rig_deliver, &f.rig), 0);
    assert_int_equal(virtio_balloon_init(&f.other, &f.rig.loop, &f.ram, rig_deliver, &f.rig), 0);
    assert_int_equal(pci_dev_plug(&f.b.vp.pci, &f.host, 1), 0);
    virtio_balloon_ops.reset(&f.b);
    return 0;
}

static int teardown(void **state)
{
    virtio_balloon_ops.destroy(&f.b);
    virtio_balloon_ops.destroy(&f.other);
    ram_fini(&f.ram);
    rig_fini(&f.rig);
    return 0;
}

static void start(bool packed)
{
    vd_plug(&f.rig, &f.b.vp.pci, true, 5);
    assert_true(vd_negotiate(&f.rig, F_STATS | F_POISON | F_REPORT | (packed ? VIRTIO_F_RING_PACKED : 0)));
    for (unsigned q = 0; q < 4; q++) {
        vring_init(&f.ring[q], &f.ram, packed, 64, 0x10000 + 0x4000 * q);
        vd_queue(&f.rig, q, &f.ring[q]);
    }
    vd_put(&f.rig, VD_CONFIG_VECTOR, 0, 2);
    vd_go(&f.rig);
}

static void fill(uint64_t gpa, uint64_t len) { assert_int_equal(ram_fill(&f.ram, gpa, 0xaa, len), 0); }

static uint8_t byte(uint64_t gpa)
{
    uint8_t v = 0;
    assert_int_equal(ram_read(&f.ram, gpa, &v, 1), 0);
    return v;
}

/* How many of the pages the host holds. */
static unsigned resident(uint64_t gpa, unsigned pages)
{
    unsigned char in[4096];
    unsigned n = 0;

    assert_int_equal(mincore(ram_borrow(&f.ram, gpa, pages * PAGE_SIZE), pages * PAGE_SIZE, in), 0);
    for (unsigned i = 0; i < pages; i++)
        n += in[i] & 1;
    return n;
}

static bool used(unsigned q)
{
    uint16_t id;
    uint32_t len;
    return vring_get(&f.ring[q], &id, &len, 1);
}

static void name_pages(unsigned q, const uint32_t *pfn, unsigned n)
{
    struct vring_part p = { LIST, 4 * n, false };

    ram_write(&f.ram, LIST, pfn, 4 * n);
    vring_add(&f.ring[q], &p, 1);
    vd_kick(&f.rig, q);
}

static bool broken(void)
{
    bool is = vd_get(&f.rig, VD_STATUS, 1) & VIRTIO_NEEDS_RESET;
    vd_put(&f.rig, VD_STATUS, 0, 1);
    return is;
}

static void on_code(void *opaque, uint64_t gpa, uint64_t len)
{
    f.code_gpa = gpa;
    f.code_calls++;
}

static void test_inflate(void **state)
{
    for (unsigned packed = 0; packed < 2; packed++) {
        const uint32_t pfn[] = { 0x1000, 0x1001, 0x1003, 0xffffffff, RAM >> 12, 0x1002, 0x1007 };
        start(packed);
        f.ram.code_write = on_code;
        f.code_calls = 0;
        fill(AREA, 9 * PAGE_SIZE);
        *ram_page_flags(&f.ram, AREA + 3 * PAGE_SIZE) = PAGE_CODE;
        ram_dirty_log(&f.ram, true);
        assert_int_equal(resident(AREA, 9), 9);
        name_pages(INFLATE, pfn, 7);
        assert_true(used(INFLATE));
        assert_int_equal(resident(AREA, 9), 4);
        assert_int_equal(byte(AREA + 2 * PAGE_SIZE), 0);
        assert_int_equal(byte(AREA + 4 * PAGE_SIZE), 0xaa);
        assert_int_equal(f.b.given_back, 5 * PAGE_SIZE * (packed + 1));
        assert_true(f.code_calls >= 1);
        assert_int_equal(f.code_gpa, AREA + 3 * PAGE_SIZE);
        assert_true(*ram_page_flags(&f.ram, AREA) & PAGE_DIRTY);
        assert_false(*ram_page_flags(&f.ram, AREA + 4 * PAGE_SIZE) & PAGE_DIRTY);
        fill(AREA, PAGE_SIZE); /* the guest takes a page again */
        name_pages(DEFLATE, pfn, 1);
        assert_true(used(DEFLATE));
        assert_int_equal(byte(AREA), 0xaa);
        *ram_page_flags(&f.ram, AREA + 3 * PAGE_SIZE) = 0;
        vd_put(&f.rig, VD_STATUS, 0, 1);
    }
}

static void test_report(void **state)
{
    const struct vring_part p[] = { { AREA, 40U << 20, true }, { AREA + (40U << 20), 4U << 20, true } };

    start(false);
    fill(AREA, 44U << 20);
    vring_add(&f.ring[REPORT], p, 2); /* more than other queues take */
    vd_kick(&f.rig, REPORT);
    assert_true(used(REPORT));
    assert_int_equal(resident(AREA, 4096) + resident(AREA + (40U << 20), 1024), 0);
    fill(AREA, PAGE_SIZE);
    vd_put(&f.rig, VD_CONFIG + 12, 0xaaaaaaaa, 4); /* the guest poisons free pages */
    vring_add(&f.ring[REPORT], p, 1);
    vd_kick(&f.rig, REPORT);
    assert_true(used(REPORT));
    assert_int_equal(byte(AREA), 0xaa);
}

static void test_stats(void **state)
{
    uint8_t raw[20] = { BALLOON_FREE, 0, 0x39, 0x30, 0, 0, 0, 0, 0, 0, 77, 0, 1 };
    struct vring_part p = { LIST, sizeof(raw), false };

    start(false);
    loop_lock(&f.rig.loop);
    assert_false(virtio_balloon_poll(&f.b));
    loop_unlock(&f.rig.loop);
    ram_write(&f.ram, LIST, raw, sizeof(raw));
    for (unsigned n = 0; n < 2; n++) {
        rig_jump(&f.rig, MS);
        vring_add(&f.ring[STATS], &p, 1);
        vd_kick(&f.rig, STATS);
        assert_false(used(STATS));
        assert_int_equal(f.b.vp.vq[STATS].held, 0);
        assert_int_equal(f.b.stat[BALLOON_FREE], 12345);
        assert_int_equal(f.b.stat[BALLOON_TOTAL], UINT64_MAX);
        assert_int_equal(f.b.stat_time, (n + 1) * MS);
        loop_lock(&f.rig.loop);
        assert_true(virtio_balloon_poll(&f.b));
        loop_unlock(&f.rig.loop);
        assert_true(used(STATS));
    }
}

static void test_target(void **state)
{
    start(false);
    loop_lock(&f.rig.loop);
    virtio_balloon_set(&f.b, 10 * PAGE_SIZE + 5);
    loop_unlock(&f.rig.loop);
    assert_int_equal(f.rig.msg[f.rig.msgs - 1].vector, 0x40);
    assert_int_equal(vd_get(&f.rig, VD_CONFIG, 4), 10);
    vd_put(&f.rig, VD_CONFIG, 99, 4); /* not the driver's to say */
    assert_int_equal(vd_get(&f.rig, VD_CONFIG, 4), 10);
    vd_put(&f.rig, VD_CONFIG + 4, 7, 4);
    assert_int_equal(virtio_balloon_size(&f.b), 7 * PAGE_SIZE);
    rig_round_trip(&virtio_balloon_ops, &f.b, &f.other);
    vd_put(&f.rig, VD_STATUS, 0, 1);
    assert_int_equal(virtio_balloon_size(&f.b), 0);
    assert_int_equal(vd_get(&f.rig, VD_CONFIG, 4), 10);
}

static void test_misuse(void **state)
{
    const struct vring_part list = { LIST, 64, true }, large = { LIST, 4 * 4097, false };
    const struct vring_part report = { AREA, PAGE_SIZE, false };

    start(false);
    vring_add(&f.ring[INFLATE], &list, 1);
    vd_kick(&f.rig, INFLATE);
    assert_true(broken());
    start(false);
    vring_add(&f.ring[INFLATE], &large, 1);
    vd_kick(&f.rig, INFLATE);
    assert_true(broken());
    start(false);
    vring_add(&f.ring[REPORT], &report, 1);
    vd_kick(&f.rig, REPORT);
    assert_true(broken());
    start(false);
    vring_add(&f.ring[STATS], &list, 1);
    vd_kick(&f.rig, STATS);
    assert_true(broken());
    start(false);
    rig_fuzz(&f.rig, &f.rig.mmio, VD_BAR, 0x4000, 10000);
    rig_fuzz_state(&f.rig, &virtio_balloon_ops, &f.b, &f.rig.mmio, VD_BAR, 0x4000, 200);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_inflate, setup, teardown),
        cmocka_unit_test_setup_teardown(test_report, setup, teardown),
        cmocka_unit_test_setup_teardown(test_stats, setup, teardown),
        cmocka_unit_test_setup_teardown(test_target, setup, teardown),
        cmocka_unit_test_setup_teardown(test_misuse, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
