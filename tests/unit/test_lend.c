/* Guest memory lent to another writer (lend.h): code pages are told before and after as for ram_write(), the dirty log afterwards,
 * and nothing is lent beyond RAM. */
#include "test.h"

#include <string.h>

#include "base/bits.h"
#include "ram/lend.h"
#include "ram/share.h"

#define MIB    (1ULL << 20)
#define ROM_AT (2 * MIB)

static bool shared; /* all of it for private memory, and again for shared */

/* What the engine was told: pages, and their first byte at that moment. */
static struct {
    struct ram ram;
    unsigned calls;
    uint64_t gpa[8], len[8];
    uint8_t byte[8];
} f;

static void told(void *opaque, uint64_t gpa, uint64_t len)
{
    assert_true(f.calls < 8);
    f.gpa[f.calls] = gpa;
    f.len[f.calls] = len;
    f.byte[f.calls++] = *(uint8_t *)ram_borrow(&f.ram, gpa, 1);
    atomic_fetch_and(ram_page_flags(&f.ram, gpa), (uint8_t)~PAGE_CODE);
}

static void set_code(uint64_t gpa) { atomic_fetch_or(ram_page_flags(&f.ram, gpa), PAGE_CODE); }

/* RAM at 0, adjoining RAM at 1 MiB, ROM behind it. */
static int setup(void **state)
{
    memset(&f, 0, sizeof(f));
    ram_init(&f.ram);
    ram_share(&f.ram, shared);
    assert_int_equal(ram_add_slot(&f.ram, 0, MIB, false), 0);
    assert_int_equal(ram_add_slot(&f.ram, MIB, MIB, false), 0);
    assert_int_equal(ram_add_slot(&f.ram, ROM_AT, 2 * PAGE_SIZE, true), 0);
    f.ram.code_write = told;
    return 0;
}

static int teardown(void **state)
{
    ram_fini(&f.ram);
    return 0;
}

static void only_ram_is_lent(void **state)
{
    uint64_t n = 77;

    assert_null(ram_lend(&f.ram, ROM_AT, 16, &n));
    assert_null(ram_lend(&f.ram, 8 * MIB, 16, &n));
    assert_null(ram_lend(&f.ram, UINT64_MAX - 7, 16, &n));
    assert_non_null(ram_lend(&f.ram, MIB - 8, 64, &n)); /* to the end of its slot */
    assert_int_equal(n, 8);
    ram_lend_end(&f.ram, MIB - 8, 64); /* all of it, over both slots */
    assert_non_null(ram_lend(&f.ram, ROM_AT - 8, 64, &n));
    assert_int_equal(n, 8);
    assert_int_equal(f.calls, 0);
}

/* Each page with code, in whole, while the old bytes are there; pages beside it and without code are not. */
static void code_is_told_before(void **state)
{
    uint64_t n;
    uint8_t *lent;

    set_code(0x3000);
    set_code(0x5000);
    set_code(0x6000);
    lent = ram_lend(&f.ram, 0x3800, 0x2000, &n); /* 0x3800 to 0x57ff */
    assert_int_equal(f.calls, 2);
    assert_int_equal(f.gpa[0], 0x3000);
    assert_int_equal(f.gpa[1], 0x5000);
    assert_int_equal(f.len[0], PAGE_SIZE);
    memset(lent, 0xcc, n);
    ram_lend_end(&f.ram, 0x3800, 0x2000);
    assert_int_equal(f.calls, 2); /* nobody decoded meanwhile */
    assert_int_equal(f.byte[1], 0);
    assert_int_equal(*ram_page_flags(&f.ram, 0x6000), PAGE_CODE);
}

/* Code that was decoded while the bytes were lent is dropped when they come back, with the new bytes there. */
static void code_decoded_meanwhile_is_told_after(void **state)
{
    uint64_t n;
    uint8_t *lent = ram_lend(&f.ram, 0x4000, 0x3000, &n);

    assert_int_equal(f.calls, 0);
    set_code(0x5000);
    memset(lent, 0xcc, n);
    ram_lend_end(&f.ram, 0x4000, 0x3000);
    assert_int_equal(f.calls, 1);
    assert_int_equal(f.gpa[0], 0x5000);
    assert_int_equal(f.byte[0], 0xcc);
    set_code(0x5000); /* again, with another before it */
    lent = ram_lend(&f.ram, 0x5000, 1, &n);
    assert_int_equal(f.calls, 2);
    set_code(0x5000);
    *lent = 1;
    ram_lend_end(&f.ram, 0x5000, 1);
    assert_int_equal(f.calls, 3);
    assert_int_equal(f.byte[2], 1);
}

static void dirty_log_hears_afterwards(void **state)
{
    uint8_t map[MIB / PAGE_SIZE / 8];
    uint64_t n;
    uint8_t *lent;

    ram_dirty_log(&f.ram, true);
    set_code(0x2000);
    lent = ram_lend(&f.ram, 0x2ffc, 8, &n);
    assert_int_equal(ram_dirty_collect(&f.ram, 0, map, sizeof(map)), 0);
    memset(lent, 1, n);
    ram_lend_end(&f.ram, 0x2ffc, 8);
    assert_int_equal(ram_dirty_collect(&f.ram, 0, map, sizeof(map)), 2);
    assert_int_equal(map[0], 0x0c);
    assert_int_equal(f.calls, 1);
}

int main(void)
{
#define T(t) cmocka_unit_test_setup_teardown(t, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(only_ram_is_lent),
        T(code_is_told_before),
        T(code_decoded_meanwhile_is_told_after),
        T(dirty_log_hears_afterwards),
    };

    int failed = cmocka_run_group_tests_name("private", tests, NULL, NULL);

    shared = true;
    return failed + cmocka_run_group_tests_name("shared", tests, NULL, NULL);
}
