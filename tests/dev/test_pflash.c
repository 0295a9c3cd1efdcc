/* The flash: commands one by one, errors of the host, the sequence by which OVMF recognises it, state. */
#include <errno.h>
#include <string.h>

#include "base/bits.h"
#include "chip/pflash.h"
#include "rig.h"

#define SIZE (4 * PFLASH_BLOCK)
#define AT   0xffc00000ULL

struct fixture {
    struct rig rig;
    struct pflash flash;
    uint8_t file[SIZE];
    unsigned stores;
    int trouble;
};

static struct fixture f;
static struct pflash fresh;

static int store(void *opaque, uint32_t off, const uint8_t *data, uint32_t len)
{
    assert_false(range_outside(off, len, SIZE));
    f.stores++;
    if (f.trouble)
        return f.trouble;
    memcpy(f.file + off, data, len);
    return 0;
}

static int attach(void *dev) { return pflash_attach(dev, &f.rig.mmio, AT); }

static int setup(void **state)
{
    rig_init(&f.rig, 0);
    for (unsigned n = 0; n < SIZE; n++)
        f.file[n] = (uint8_t)(n * 7);
    f.stores = 0;
    f.trouble = 0;
    memset(&f.flash, 0, sizeof(f.flash));
    assert_int_equal(pflash_init(&f.flash, f.file, SIZE, store, NULL), 0);
    assert_int_equal(attach(&f.flash), 0);
    return 0;
}

static int teardown(void **state)
{
    rig_fini(&f.rig);
    return 0;
}

static uint8_t get(uint32_t off) { return (uint8_t)bus_read(&f.rig.mmio, AT + off, 1); }
static void put(uint32_t off, uint8_t v) { bus_write(&f.rig.mmio, AT + off, v, 1); }

static void program(uint32_t off, uint8_t v)
{
    put(off, 0x10);
    put(off, v);
}

static void test_array(void **state)
{
    for (uint32_t off = 0; off + 8 <= SIZE; off += 61) {
        assert_int_equal(get(off), f.file[off]);
        assert_int_equal(bus_read(&f.rig.mmio, AT + off, 8), ld_le64(f.file + off));
    }
    assert_int_equal(f.stores, 0);
}

static void test_recognised(void **state)
{
    put(5, 0x50);
    assert_int_equal(get(5), f.file[5]);
    put(5, 0x70);
    assert_int_equal(get(5), 0); /* not what was written, not the contents: flash */
    put(5, 0xff);
    assert_int_equal(get(5), f.file[5]);
    assert_int_equal(f.stores, 0);
}

static void test_program(void **state)
{
    program(10, 0xab);
    assert_int_equal(f.file[10], 0xab);
    assert_int_equal(get(0), 0x80); /* status until the array is asked for */
    program(11, 0xcd);
    put(0, 0x40);
    put(12, 0xef); /* the address of the data counts */
    put(0, 0xff);
    assert_int_equal(bus_read(&f.rig.mmio, AT + 10, 4), 0x00efcdab | (uint64_t)f.file[13] << 24);
    assert_memory_equal(f.file, f.flash.data, SIZE);
    assert_int_equal(f.stores, 3);
}

static void test_erase(void **state)
{
    uint8_t blank[PFLASH_BLOCK];

    memset(blank, 0xff, sizeof(blank));
    put(PFLASH_BLOCK + 77, 0x20);
    put(PFLASH_BLOCK + 77, 0xd0);
    assert_int_equal(get(0), 0x80);
    assert_memory_equal(f.file + PFLASH_BLOCK, blank, sizeof(blank));
    assert_memory_equal(f.file, f.flash.data, SIZE);
    assert_int_equal(f.file[PFLASH_BLOCK - 1], (uint8_t)((PFLASH_BLOCK - 1) * 7));
    assert_int_equal(f.file[2 * PFLASH_BLOCK], 0);
    put(0, 0x20);
    put(0, 0xff); /* not confirmed */
    assert_int_equal(get(0), 0xb0);
    assert_int_equal(f.stores, 1);
    put(0, 0x50);
    put(0, 0x70);
    assert_int_equal(get(0), 0);
}

static void test_buffer(void **state)
{
    put(0x100, 0xe8);
    assert_int_equal(get(0x100), 0x80);
    put(0x100, 5); /* six bytes */
    bus_write(&f.rig.mmio, AT + 0x100, 0x44332211, 4);
    bus_write(&f.rig.mmio, AT + 0x104, 0x6655, 2);
    put(0x100, 0xd0);
    assert_int_equal(get(0), 0x80);
    assert_int_equal(ld_le64(f.file + 0x100) & 0xffffffffffffULL, 0x665544332211ULL);
    assert_int_equal(f.file[0x106], (uint8_t)(0x106 * 7));
    assert_int_equal(f.stores, 1);
    /* The end of a block is not crossed; a missing confirmation is an error. */
    put(0, 0xe8);
    put(0, 1);
    put(PFLASH_BLOCK - 1, 1);
    put(PFLASH_BLOCK, 2);
    put(0, 0xd0);
    assert_int_equal(get(0), 0x90);
    put(0, 0x50);
    put(0, 0xe8);
    put(0, 0);
    put(0, 1);
    put(0, 0xff);
    assert_int_equal(get(0), 0x90);
    assert_int_equal(f.stores, 1);
}

static void test_identity(void **state)
{
    put(0, 0x90);
    assert_int_equal(get(0), 0x89);
    assert_int_equal(get(2), 0); /* unlocked */
    put(0, 0x98);
    assert_int_equal(bus_read(&f.rig.mmio, AT + 0x10, 2), 'Q' | 'R' << 8);
    assert_int_equal(get(0x12), 'Y');
    assert_int_equal(get(0x27), 14); /* 2^14 bytes */
    assert_int_equal(get(0x2d), 3);  /* blocks, less one */
    assert_int_equal(get(0x2e), 0);
    assert_int_equal(get(0x30), PFLASH_BLOCK >> 16);
    assert_int_equal(get(0x2f) | get(0x30) << 8, PFLASH_BLOCK / 256);
    assert_int_equal(get(SIZE - 1), 0);
    put(0, 0x60);
    put(0, 0xd0);
    assert_int_equal(get(0), 0x80);
    put(0, 0x33); /* no command */
    assert_int_equal(get(0), f.file[0]);
}

/* What the host could not store the guest does not see, and it is told. */
static void test_trouble(void **state)
{
    f.trouble = -ENOSPC;
    program(3, 0x99);
    assert_int_equal(get(0), 0x90);
    put(0, 0x20);
    put(0, 0xd0);
    assert_int_equal(get(0), 0xb0);
    put(0, 0xff);
    assert_int_equal(get(3), 21);
    assert_memory_equal(f.file, f.flash.data, SIZE);
    f.trouble = 0;
    program(3, 0x99);
    put(0, 0x50);
    assert_int_equal(get(3), 0x99);
}

static void test_init(void **state)
{
    assert_int_equal(pflash_init(&fresh, f.file, 0, NULL, NULL), -EINVAL);
    assert_int_equal(pflash_init(&fresh, f.file, PFLASH_BLOCK + 1, NULL, NULL), -EINVAL);
    assert_int_equal(pflash_init(&fresh, f.file, PFLASH_MAX + PFLASH_BLOCK, NULL, NULL), -EINVAL);
    rig_attach_conflicts(&f.rig.mmio, attach, &f.flash);
}

static void test_state(void **state)
{
    program(20, 0x55);
    put(0, 0xe8);
    put(0, 3);
    put(8, 0x11);
    memset(&fresh, 0, sizeof(fresh));
    assert_int_equal(pflash_init(&fresh, f.file, SIZE, NULL, NULL), 0);
    rig_round_trip(&pflash_ops, &f.flash, &fresh);
    assert_int_equal(fresh.data[20], 0x55);
    assert_int_equal(fresh.filled, 1);
    pflash_ops.reset(&fresh);
    assert_int_equal(fresh.mode, 0);
    assert_int_equal(fresh.data[20], 0x55); /* reset is no erase */
}

static void test_random(void **state)
{
    rig_fuzz(&f.rig, &f.rig.mmio, AT, SIZE, 100000);
    pflash_ops.reset(&f.flash);
    assert_memory_equal(f.file, f.flash.data, SIZE);
    rig_fuzz_state(&f.rig, &pflash_ops, &f.flash, &f.rig.mmio, AT, SIZE, 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_array, setup, teardown),
        cmocka_unit_test_setup_teardown(test_recognised, setup, teardown),
        cmocka_unit_test_setup_teardown(test_program, setup, teardown),
        cmocka_unit_test_setup_teardown(test_erase, setup, teardown),
        cmocka_unit_test_setup_teardown(test_buffer, setup, teardown),
        cmocka_unit_test_setup_teardown(test_identity, setup, teardown),
        cmocka_unit_test_setup_teardown(test_trouble, setup, teardown),
        cmocka_unit_test_setup_teardown(test_init, setup, teardown),
        cmocka_unit_test_setup_teardown(test_state, setup, teardown),
        cmocka_unit_test_setup_teardown(test_random, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
