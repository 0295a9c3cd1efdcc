/* fw_cfg: items and files by port and by DMA, descriptors of a hostile guest, state. */
#include <errno.h>
#include <string.h>

#include "base/bits.h"
#include "chip/fw_cfg.h"
#include "ram/ram.h"
#include "rig.h"

#define RAM_SIZE 0x40000ULL
#define DESC     0x1000ULL
#define BUFFER   0x2000ULL
#define SELECTOR 0x510
#define DATA     0x511

enum { DMA_ERROR = 1, DMA_READ = 2, DMA_SKIP = 4, DMA_SELECT = 8, DMA_WRITE = 16 };

struct fixture {
    struct rig rig;
    struct ram ram;
    struct fw_cfg cfg;
    unsigned refreshed;
};

static struct fixture f;

static int attach(void *dev) { return fw_cfg_attach(dev, &f.rig.io); }

static int setup(void **state)
{
    f.refreshed = 0;
    rig_init(&f.rig, 0);
    ram_init(&f.ram);
    assert_int_equal(ram_add_slot(&f.ram, 0, RAM_SIZE, false), 0);
    assert_int_equal(ram_add_slot(&f.ram, 0x100000, 0x1000, true), 0);
    fw_cfg_init(&f.cfg, &f.ram);
    assert_int_equal(attach(&f.cfg), 0);
    assert_int_equal(fw_cfg_set_int(&f.cfg, FW_CFG_NB_CPUS, 5, 2), 0);
    assert_int_equal(fw_cfg_set_file(&f.cfg, "etc/one", "ABCDEFGH", 8), 0);
    assert_int_equal(fw_cfg_set_file(&f.cfg, "etc/empty", "", 0), 0);
    return 0;
}

static int teardown(void **state)
{
    fw_cfg_ops.destroy(&f.cfg);
    ram_fini(&f.ram);
    rig_fini(&f.rig);
    return 0;
}

static void select_item(unsigned key) { bus_write(&f.rig.io, SELECTOR, key, 2); }

/* Run one descriptor; returns what the device wrote back. */
static uint32_t dma(uint32_t control, uint32_t len, uint64_t addr)
{
    uint8_t d[16];

    st_le32(d, __builtin_bswap32(control));
    st_le32(d + 4, __builtin_bswap32(len));
    st_le64(d + 8, __builtin_bswap64(addr));
    assert_int_equal(ram_write(&f.ram, DESC, d, 16), 0);
    bus_write(&f.rig.io, SELECTOR + 4, 0, 4);
    bus_write(&f.rig.io, SELECTOR + 8, __builtin_bswap32((uint32_t)DESC), 4);
    ram_read(&f.ram, DESC, d, 16);
    assert_int_equal(ld_be32(d + 4), len); /* only the control word changes */
    return ld_be32(d);
}

static void assert_ram(uint64_t gpa, const void *want, size_t len)
{
    uint8_t got[64];

    assert_int_equal(ram_read(&f.ram, gpa, got, len), 0);
    assert_memory_equal(got, want, len);
}

/* The number of a file, from the directory as a guest reads it. */
static unsigned find_file(const char *name, uint32_t *len)
{
    uint8_t dir[4], e[64];

    select_item(FW_CFG_DIR);
    for (unsigned n = 0; n < 4; n++)
        dir[n] = rig_inb(&f.rig, DATA);
    for (uint32_t n = 0; n < ld_be32(dir); n++) {
        for (unsigned k = 0; k < 64; k++)
            e[k] = rig_inb(&f.rig, DATA);
        *len = ld_be32(e);
        if (!strcmp((char *)e + 8, name))
            return (unsigned)e[4] << 8 | e[5];
    }
    return 0;
}

static void test_items(void **state)
{
    select_item(FW_CFG_SIGNATURE);
    assert_int_equal(rig_inb(&f.rig, DATA), 'Q');
    assert_int_equal(rig_inb(&f.rig, DATA), 'E');
    assert_int_equal(rig_inb(&f.rig, DATA), 'M');
    assert_int_equal(rig_inb(&f.rig, DATA), 'U');
    assert_int_equal(rig_inb(&f.rig, DATA), 0); /* beyond the end */
    select_item(FW_CFG_ID);
    assert_int_equal(rig_inb(&f.rig, DATA), 3);
    select_item(FW_CFG_NB_CPUS);
    assert_int_equal(rig_inb(&f.rig, DATA), 5);
    assert_int_equal(rig_inb(&f.rig, DATA), 0);
    select_item(0xffff);
    assert_int_equal(rig_inb(&f.rig, DATA), 0);
    select_item(FW_CFG_ID);
    rig_outb(&f.rig, DATA, 7); /* writes are nothing */
    assert_int_equal(rig_inb(&f.rig, DATA), 3);
    rig_outb(&f.rig, SELECTOR, 0); /* nor is half a selector */
    select_item(FW_CFG_ID);
    assert_int_equal(rig_inb(&f.rig, DATA), 3);
    assert_int_equal(bus_read(&f.rig.io, SELECTOR + 4, 4), 0x554d4551);
    assert_int_equal(bus_read(&f.rig.io, SELECTOR + 8, 4), 0x47464320);
    assert_int_equal(bus_read(&f.rig.io, SELECTOR, 2), 0xffff);
}

static void test_files(void **state)
{
    char name[FW_CFG_NAME_LEN + 1];
    uint32_t len = 0;
    unsigned key = find_file("etc/one", &len);

    assert_in_range(key, FW_CFG_FILE_FIRST, FW_CFG_ITEMS - 1);
    assert_int_equal(len, 8);
    select_item(key);
    assert_int_equal(rig_inb(&f.rig, DATA), 'A');
    assert_int_equal(find_file("etc/none", &len), 0);
    /* Replacing keeps the number. */
    assert_int_equal(fw_cfg_set_file(&f.cfg, "etc/one", "xyz", 3), 0);
    assert_int_equal(find_file("etc/one", &len), key);
    assert_int_equal(len, 3);
    memset(name, 'n', sizeof(name));
    name[FW_CFG_NAME_LEN] = 0;
    assert_int_equal(fw_cfg_set_file(&f.cfg, name, "", 0), -EINVAL);
    name[FW_CFG_NAME_LEN - 1] = 0;
    for (unsigned n = f.cfg.nfiles; n < FW_CFG_FILES; n++) {
        name[0] = (char)('A' + n);
        assert_int_equal(fw_cfg_set_file(&f.cfg, name, name, 5), 0);
        assert_int_equal(find_file(name, &len), FW_CFG_FILE_FIRST + n);
    }
    assert_int_equal(fw_cfg_set_file(&f.cfg, "one too many", "", 0), -ENOSPC);
    assert_int_equal(fw_cfg_set_file(&f.cfg, "etc/one", "", 0), 0);
    assert_int_equal(fw_cfg_set(&f.cfg, FW_CFG_ITEMS, "", 0), -EINVAL);
}

static void on_directory(void *opaque)
{
    f.refreshed++;
    assert_int_equal(fw_cfg_set_file(&f.cfg, "etc/late", "late", 4), 0);
}

static void test_refresh(void **state)
{
    uint32_t len = 0;

    fw_cfg_on_directory(&f.cfg, on_directory, NULL);
    select_item(FW_CFG_ID);
    assert_int_equal(f.refreshed, 0);
    assert_true(find_file("etc/late", &len) != 0);
    assert_int_equal(f.refreshed, 1);
    assert_int_equal(dma(DMA_SELECT | FW_CFG_DIR << 16 | DMA_READ, 4, BUFFER), 0);
    assert_int_equal(f.refreshed, 2);
    assert_ram(BUFFER, "\0\0\0\3", 4);
}

static void test_dma(void **state)
{
    uint32_t len, key = find_file("etc/one", &len) << 16;

    assert_int_equal(dma(key | DMA_SELECT | DMA_READ, 3, BUFFER), 0);
    assert_ram(BUFFER, "ABC\0", 4);
    assert_int_equal(dma(DMA_SKIP, 2, 0), 0);
    assert_int_equal(dma(DMA_READ, 2, BUFFER), 0);
    assert_ram(BUFFER, "FGC", 3);
    assert_int_equal(rig_inb(&f.rig, DATA), 'H'); /* one position for both interfaces */
    ram_fill(&f.ram, BUFFER, 0xaa, 16);
    assert_int_equal(dma(DMA_READ, 4, BUFFER), 0); /* zeros beyond the end */
    assert_ram(BUFFER, "\0\0\0\0\xaa", 5);
    assert_int_equal(dma(key | DMA_SELECT, 0, 0), 0);
    assert_int_equal(dma(DMA_READ | DMA_WRITE | DMA_SKIP, 4, BUFFER), 0); /* read wins */
    assert_ram(BUFFER, "ABCD", 4);
    assert_int_equal(dma(DMA_READ, 0, UINT64_MAX), 0); /* nothing goes nowhere */
}

static void test_dma_refused(void **state)
{
    uint32_t len, key = find_file("etc/one", &len) << 16;

    assert_int_equal(dma(key | DMA_SELECT | DMA_WRITE, 4, BUFFER), DMA_ERROR);
    assert_int_equal(dma(DMA_READ, 4, RAM_SIZE - 2), DMA_ERROR); /* over the end of RAM */
    assert_int_equal(dma(DMA_READ, 8, UINT64_MAX - 3), DMA_ERROR);
    assert_int_equal(dma(DMA_READ, 8, 0xfee00000), DMA_ERROR); /* a device */
    assert_int_equal(dma(DMA_READ, 8 + 0x10000 + 1, 0), DMA_ERROR);
    assert_int_equal(dma(DMA_READ, UINT32_MAX, 0), DMA_ERROR);
    assert_int_equal(dma(DMA_READ, 1, BUFFER), 0); /* none of them has moved on */
    assert_ram(BUFFER, "A", 1);
    assert_int_equal(dma(DMA_READ, 1, 0x100000), 0); /* ROM takes nothing */
    assert_ram(0x100000, "\0", 1);
    assert_int_equal(dma(DMA_SKIP, UINT32_MAX, 0), 0);
    assert_int_equal(dma(DMA_SKIP, UINT32_MAX, 0), 0);
    assert_int_equal(dma(DMA_READ, 1, BUFFER), 0);
    assert_ram(BUFFER, "\0", 1);
}

/* Descriptors that are not in RAM: nothing happens, and nothing is written anywhere. */
static void test_descriptor_nowhere(void **state)
{
    static const uint64_t places[] = { RAM_SIZE - 8, RAM_SIZE, 0xfee00000, UINT64_MAX, UINT64_MAX - 7, 1ULL << 63 };
    uint8_t before[16], after[16];

    ram_fill(&f.ram, RAM_SIZE - 16, 0xff, 16);
    ram_read(&f.ram, RAM_SIZE - 16, before, 16);
    for (size_t n = 0; n < ARRAY_LEN(places); n++) {
        bus_write(&f.rig.io, SELECTOR + 4, __builtin_bswap32((uint32_t)(places[n] >> 32)), 4);
        bus_write(&f.rig.io, SELECTOR + 8, __builtin_bswap32((uint32_t)places[n]), 4);
    }
    ram_read(&f.ram, RAM_SIZE - 16, after, 16);
    assert_memory_equal(before, after, 16);
    /* The upper half is used once. */
    assert_int_equal(f.cfg.dma_high, 0);
    /* A descriptor that is its own target: it was copied before. */
    assert_int_equal(dma(FW_CFG_ID << 16 | DMA_SELECT | DMA_READ, 4, DESC), 0);
}

static void test_state(void **state)
{
    static struct fw_cfg fresh;

    select_item(FW_CFG_FILE_FIRST);
    rig_inb(&f.rig, DATA);
    bus_write(&f.rig.io, SELECTOR + 4, 0x01000000, 4);
    fw_cfg_init(&fresh, &f.ram);
    rig_round_trip(&fw_cfg_ops, &f.cfg, &fresh);
    assert_int_equal(fresh.selector, FW_CFG_FILE_FIRST);
    assert_int_equal(fresh.offset, 1);
    fw_cfg_ops.reset(&fresh);
    assert_int_equal(fresh.selector + fresh.offset + fresh.dma_high, 0);
    rig_attach_conflicts(&f.rig.io, attach, &f.cfg);
}

static void test_random(void **state)
{
    rig_fuzz(&f.rig, &f.rig.io, SELECTOR, 12, 100000);
    rig_fuzz_state(&f.rig, &fw_cfg_ops, &f.cfg, &f.rig.io, SELECTOR, 12, 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_items, setup, teardown),
        cmocka_unit_test_setup_teardown(test_files, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refresh, setup, teardown),
        cmocka_unit_test_setup_teardown(test_dma, setup, teardown),
        cmocka_unit_test_setup_teardown(test_dma_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_descriptor_nowhere, setup, teardown),
        cmocka_unit_test_setup_teardown(test_state, setup, teardown),
        cmocka_unit_test_setup_teardown(test_random, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
