/* The bus: regions, overlap, splitting, sizes, alignment, unclaimed addresses, the lock. */
#include "test.h"

#include <errno.h>
#include <string.h>

#include "base/bits.h"
#include "base/loop.h"
#include "base/rand.h"
#include "bus/bus.h"

/* A device that records its accesses; reading gives offset bytes plus a tag. */
struct dev {
    struct bus_region region;
    unsigned n;
    struct {
        bool write;
        uint64_t off, value;
        unsigned size;
    } log[16];
    uint8_t tag;
};

static void dev_note(struct dev *d, bool write, uint64_t off, uint64_t value, unsigned size)
{
    assert_false(range_outside(off, size, d->region.len));
    if (d->n < ARRAY_LEN(d->log)) {
        d->log[d->n].write = write;
        d->log[d->n].off = off;
        d->log[d->n].value = value;
        d->log[d->n].size = size;
    }
    d->n++;
}

static uint64_t dev_read(void *opaque, uint64_t off, unsigned size)
{
    struct dev *d = opaque;
    uint64_t v = 0;
    unsigned i;

    dev_note(d, false, off, 0, size);
    for (i = 0; i < size; i++)
        v |= (uint64_t)(uint8_t)(d->tag + off + i) << (8 * i);
    /* Rubbish above the size: the bus must cut it off. */
    return size < 8 ? v | ~mask_bytes(size) : v;
}

static void dev_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
    dev_note(opaque, true, off, value, size);
}

static const struct bus_ops any_ops = { .read = dev_read, .write = dev_write };
static const struct bus_ops byte_ops = { .read = dev_read, .write = dev_write, .max_size = 1 };
static const struct bus_ops dword_ops = {
    .read = dev_read, .write = dev_write, .min_size = 4, .max_size = 4
};
static const struct bus_ops loose_ops = {
    .read = dev_read, .write = dev_write, .max_size = 4, .unaligned = true
};
static const struct bus_ops deaf_ops = { .min_size = 1 };

static struct dev *dev_init(struct dev *d, const struct bus_ops *ops, uint64_t base, uint64_t len,
                            uint8_t tag)
{
    *d = (struct dev){ .tag = tag };
    d->region = (struct bus_region){ .base = base, .len = len, .ops = ops, .dev = d, .name = "dev" };
    return d;
}

static void assert_access(const struct dev *d, unsigned i, bool write, uint64_t off, unsigned size,
                          uint64_t value)
{
    assert_true(i < d->n);
    assert_int_equal(d->log[i].write, write);
    assert_int_equal(d->log[i].off, off);
    assert_int_equal(d->log[i].size, size);
    assert_true(d->log[i].value == value);
}

static void overlap_is_refused(void **state)
{
    static const struct {
        uint64_t base, len;
    } bad[] = { { 0x100, 0x10 }, { 0xff, 2 }, { 0x10f, 1 }, { 0x104, 4 }, { 0, 0x1000 }, { 0x1ff, 2 } };
    struct dev a, b, c;
    struct bus bus;
    size_t i;

    bus_init(&bus, "ports", NULL, 0x10000);
    assert_int_equal(bus_add(&bus, &dev_init(&a, &any_ops, 0x100, 0x10, 0)->region), 0);
    assert_int_equal(bus_add(&bus, &dev_init(&b, &any_ops, 0x200, 0x10, 0)->region), 0);
    assert_true(a.region.enabled);
    for (i = 0; i < ARRAY_LEN(bad); i++) {
        dev_init(&c, &any_ops, bad[i].base, bad[i].len, 0);
        assert_int_equal(bus_add(&bus, &c.region), -EEXIST);
        assert_false(c.region.enabled);
    }
    assert_int_equal(bus_add(&bus, &a.region), -EEXIST); /* twice */
    dev_init(&c, &any_ops, 0x110, 0xf0, 0);
    assert_int_equal(bus_add(&bus, &c.region), 0); /* fits exactly between */
    bus_remove(&bus, &a.region);
    bus_remove(&bus, &a.region);
    assert_false(a.region.enabled);
    assert_int_equal(bus.count, 2);
    assert_int_equal(bus_add(&bus, &a.region), 0);
}

static void bad_regions_are_refused(void **state)
{
    static struct dev many[BUS_MAX_REGIONS + 1];
    struct dev d;
    struct bus bus;
    unsigned i;

    bus_init(&bus, "ports", NULL, 0x10000);
    assert_int_equal(bus_add(&bus, &dev_init(&d, &any_ops, 0x100, 0, 0)->region), -EINVAL);
    assert_int_equal(bus_add(&bus, &dev_init(&d, &any_ops, 0xffff, 2, 0)->region), -EINVAL);
    assert_int_equal(bus_add(&bus, &dev_init(&d, &any_ops, 0x10000, 1, 0)->region), -EINVAL);
    assert_int_equal(bus_add(&bus, &dev_init(&d, &any_ops, 1, UINT64_MAX, 0)->region), -EINVAL);
    assert_int_equal(bus_add(&bus, &dev_init(&d, &any_ops, UINT64_MAX, 2, 0)->region), -EINVAL);
    assert_int_equal(bus_add(&bus, &dev_init(&d, &any_ops, 0xffff, 1, 0)->region), 0);
    bus_remove(&bus, &d.region);
    for (i = 0; i < BUS_MAX_REGIONS; i++)
        assert_int_equal(bus_add(&bus, &dev_init(&many[i], &any_ops, 0x8000 - i * 4, 2, 0)->region), 0);
    assert_int_equal(bus_add(&bus, &dev_init(&many[i], &any_ops, 0, 1, 0)->region), -ENOSPC);
    for (i = 0; i < BUS_MAX_REGIONS; i++) {
        assert_true(bus_claims(&bus, 0x8001 - i * 4));
        assert_false(bus_claims(&bus, 0x8002 - i * 4));
    }
}

static void whole_space_is_addressable(void **state)
{
    struct dev d;
    struct bus bus;

    bus_init(&bus, "mmio", NULL, 0);
    assert_int_equal(bus_add(&bus, &dev_init(&d, &any_ops, UINT64_MAX - 7, 8, 0x10)->region), 0);
    assert_true(bus_read(&bus, UINT64_MAX - 7, 8) == 0x1716151413121110);
    assert_true(bus_read(&bus, UINT64_MAX, 1) == 0x17);
    assert_true(bus_read(&bus, UINT64_MAX, 4) == 0xffffff17); /* does not wrap to 0 */
    assert_true(bus_claims(&bus, UINT64_MAX));
    assert_false(bus_claims(&bus, UINT64_MAX - 8));
    bus_remove(&bus, &d.region);
    assert_int_equal(bus_add(&bus, &dev_init(&d, &any_ops, 0, 1, 0x10)->region), 0);
    d.n = 0;
    assert_true(bus_read(&bus, UINT64_MAX, 2) == 0xffff);
    assert_int_equal(d.n, 0);
}

static void unclaimed_reads_ones(void **state)
{
    struct bus bus;

    bus_init(&bus, "ports", NULL, 0x10000);
    assert_true(bus_read(&bus, 0x80, 1) == 0xff);
    assert_true(bus_read(&bus, 0x80, 2) == 0xffff);
    assert_true(bus_read(&bus, 0x80, 4) == 0xffffffff);
    assert_true(bus_read(&bus, 0x80, 8) == UINT64_MAX);
    assert_true(bus_read(&bus, 0x123456, 4) == 0xffffffff);
    assert_true(bus_read(&bus, 0xffff, 4) == 0xffffffff);
    bus_write(&bus, 0x80, 1, 1);
    bus_write(&bus, 0xffff, 1, 4);
    bus_write(&bus, UINT64_MAX, 1, 8);
    assert_false(bus_claims(&bus, 0x80));
}

static void offsets_are_relative_and_values_cut(void **state)
{
    struct dev d;
    struct bus bus;

    bus_init(&bus, "mmio", NULL, 0);
    bus_add(&bus, &dev_init(&d, &any_ops, 0xfec00000, 0x1000, 0xa0)->region);
    assert_true(bus_read(&bus, 0xfec00010, 4) == 0xb3b2b1b0);
    assert_access(&d, 0, false, 0x10, 4, 0);
    assert_true(bus_read(&bus, 0xfec00001, 1) == 0xa1);
    bus_write(&bus, 0xfec00008, 0x1122334455667788, 8);
    assert_access(&d, 2, true, 8, 8, 0x1122334455667788);
    bus_write(&bus, 0xfec00008, 0x1122334455667788, 2);
    assert_access(&d, 3, true, 8, 2, 0x7788);
    assert_int_equal(d.n, 4);
}

static void large_access_is_split(void **state)
{
    struct dev d;
    struct bus bus;

    bus_init(&bus, "ports", NULL, 0x10000);
    bus_add(&bus, &dev_init(&d, &byte_ops, 0x3f8, 8, 0)->region);
    bus_write(&bus, 0x3f8, 0x44332211, 4);
    assert_int_equal(d.n, 4);
    assert_access(&d, 0, true, 0, 1, 0x11); /* lowest address first */
    assert_access(&d, 1, true, 1, 1, 0x22);
    assert_access(&d, 2, true, 2, 1, 0x33);
    assert_access(&d, 3, true, 3, 1, 0x44);
    assert_true(bus_read(&bus, 0x3fa, 4) == 0x05040302);
    assert_int_equal(d.n, 8);
    assert_true(bus_read(&bus, 0x3f8, 8) == 0x0706050403020100);
}

static void small_access_is_refused(void **state)
{
    struct dev d;
    struct bus bus;

    bus_init(&bus, "mmio", NULL, 0);
    bus_add(&bus, &dev_init(&d, &dword_ops, 0x1000, 0x100, 0)->region);
    assert_true(bus_read(&bus, 0x1000, 1) == 0xff);
    assert_true(bus_read(&bus, 0x1002, 2) == 0xffff);
    assert_true(bus_read(&bus, 0x1001, 4) == 0xffffffff); /* not aligned */
    bus_write(&bus, 0x1000, 1, 2);
    assert_int_equal(d.n, 0);
    assert_true(bus_read(&bus, 0x1008, 8) == 0x0f0e0d0c0b0a0908);
    assert_int_equal(d.n, 2);
    assert_access(&d, 0, false, 8, 4, 0);
    assert_access(&d, 1, false, 12, 4, 0);
}

static void misaligned_access_is_split_or_taken(void **state)
{
    struct dev d, loose;
    struct bus bus;

    bus_init(&bus, "mmio", NULL, 0);
    bus_add(&bus, &dev_init(&d, &any_ops, 0x1000, 0x100, 0)->region);
    bus_add(&bus, &dev_init(&loose, &loose_ops, 0x2000, 0x100, 0)->region);
    bus_write(&bus, 0x1001, 0x44332211, 4);
    assert_int_equal(d.n, 3);
    assert_access(&d, 0, true, 1, 1, 0x11);
    assert_access(&d, 1, true, 2, 2, 0x3322);
    assert_access(&d, 2, true, 4, 1, 0x44);
    bus_write(&bus, 0x2001, 0x8877665544332211, 8);
    assert_int_equal(loose.n, 2);
    assert_access(&loose, 0, true, 1, 4, 0x44332211);
    assert_access(&loose, 1, true, 5, 4, 0x88776655);
}

static void access_across_regions_and_holes(void **state)
{
    struct dev a, b;
    struct bus bus;

    bus_init(&bus, "ports", NULL, 0x10000);
    bus_add(&bus, &dev_init(&a, &any_ops, 0x20, 2, 0x50)->region);
    bus_add(&bus, &dev_init(&b, &any_ops, 0x25, 1, 0x70)->region);
    /* 20 21 are a's, 22..24 a hole, 25 is b's, 26 27 a hole */
    assert_true(bus_read(&bus, 0x20, 8) == 0xffff70ffffff5150);
    assert_true(bus_read(&bus, 0x1f, 2) == 0x50ff);
    assert_true(bus_read(&bus, 0x21, 4) == 0xffffff51);
    assert_true(bus_read(&bus, 0x24, 4) == 0xffff70ff);
    a.n = b.n = 0;
    bus_write(&bus, 0x20, 0x8877665544332211, 8);
    assert_int_equal(a.n, 1);
    assert_access(&a, 0, true, 0, 2, 0x2211);
    assert_int_equal(b.n, 1);
    assert_access(&b, 0, true, 0, 1, 0x66);
}

static void missing_handlers_are_unclaimed(void **state)
{
    struct dev d;
    struct bus bus;

    bus_init(&bus, "ports", NULL, 0x10000);
    bus_add(&bus, &dev_init(&d, &deaf_ops, 0x20, 4, 0)->region);
    assert_true(bus_read(&bus, 0x20, 4) == 0xffffffff);
    bus_write(&bus, 0x20, 0, 4);
}

/* Whatever the layout and the access: each byte comes from the device that owns it. */
static void random_layouts_match_a_model(void **state)
{
    static struct dev d[24];
    uint8_t owner[256];
    struct rand_source r;
    struct bus bus;
    unsigned round, i, k;

    rand_init_seeded(&r, 11);
    for (round = 0; round < 300; round++) {
        bus_init(&bus, "ports", NULL, 256);
        memset(owner, 0xff, sizeof(owner));
        for (i = 0; i < ARRAY_LEN(d); i++) {
            const struct bus_ops *ops = rand_below(&r, 2)   ? &byte_ops
                                        : rand_below(&r, 2) ? &any_ops
                                                            : &loose_ops;
            uint64_t base = rand_below(&r, 256), len = 1 + rand_below(&r, 16);
            bool clash = base + len > 256;

            for (k = 0; !clash && k < len; k++)
                clash = owner[base + k] != 0xff;
            assert_int_equal(bus_add(&bus, &dev_init(&d[i], ops, base, len, (uint8_t)(i * 9))->region) != 0,
                             clash);
            for (k = 0; !clash && k < len; k++)
                owner[base + k] = (uint8_t)i;
        }
        for (i = 0; i < 400; i++) {
            unsigned size = 1u << rand_below(&r, 4);
            uint64_t addr = rand_below(&r, 256), want = 0;

            for (k = 0; k < size; k++) {
                uint64_t a = addr + k;
                uint8_t o = a < 256 ? owner[a] : 0xff;
                uint8_t byte = o == 0xff ? 0xff : (uint8_t)(o * 9 + (a - d[o].region.base));

                want |= (uint64_t)byte << (8 * k);
            }
            assert_true(bus_read(&bus, addr, size) == want);
        }
    }
}

/* The handler runs under the device lock; the _locked form leaves it to the caller. */
static uint64_t lock_probe(void *opaque, uint64_t off, unsigned size)
{
    return pthread_mutex_trylock(opaque) == EBUSY;
}

static void device_lock_is_held(void **state)
{
    static const struct bus_ops ops = { .read = lock_probe };
    struct clock clock;
    struct loop loop;
    struct bus_region r;
    struct bus bus;

    clock_init_manual(&clock, 0);
    assert_int_equal(loop_init(&loop, &clock), 0);
    r = (struct bus_region){ .base = 0, .len = 1, .ops = &ops, .dev = &loop.lock, .name = "probe" };
    bus_init(&bus, "ports", &loop, 0x10000);
    assert_int_equal(bus_add(&bus, &r), 0);
    assert_true(bus_read(&bus, 0, 1) == 1);
    loop_lock(&loop); /* free again: this does not hang */
    assert_true(bus_read_locked(&bus, 0, 1) == 1);
    loop_unlock(&loop);
    loop_fini(&loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(overlap_is_refused),
        cmocka_unit_test(bad_regions_are_refused),
        cmocka_unit_test(whole_space_is_addressable),
        cmocka_unit_test(unclaimed_reads_ones),
        cmocka_unit_test(offsets_are_relative_and_values_cut),
        cmocka_unit_test(large_access_is_split),
        cmocka_unit_test(small_access_is_refused),
        cmocka_unit_test(misaligned_access_is_split_or_taken),
        cmocka_unit_test(access_across_regions_and_holes),
        cmocka_unit_test(missing_handlers_are_unclaimed),
        cmocka_unit_test(random_layouts_match_a_model),
        cmocka_unit_test(device_lock_is_held),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
