/* The log of what is written to a disk: what is told, when, and that a write while it is read is told again. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "block/block.h"

#define PART BLOCK_LOG_PART
#define SIZE (67 * PART + 4096) /* the last part is short, and the last word not full */

static int result;

static int fake_write(struct block *b, uint64_t off, const void *buf, size_t len) { return result; }
static int fake_discard(struct block *b, uint64_t off, uint64_t len) { return result; }
static int fake_zero(struct block *b, uint64_t off, uint64_t len, bool unmap) { return result; }
static void fake_close(struct block *b) {}

static const struct block_ops fake = { .write = fake_write, .discard = fake_discard, .write_zeroes = fake_zero, .close = fake_close };

static void expect_next(struct block *b, uint64_t *at, uint64_t off, uint64_t len)
{
    uint64_t got = 0;

    assert_true(block_log_take(b, at, &got, 16 * PART));
    assert_int_equal(*at, off);
    assert_int_equal(got, len);
    *at += got;
}

static void expect_none(struct block *b)
{
    uint64_t at = 0, len;

    assert_false(block_log_take(b, &at, &len, 16 * PART));
    assert_int_equal(block_log_left(b), 0);
}

static void take_all(struct block *b)
{
    uint64_t at = 0, len, sum = 0;

    while (block_log_take(b, &at, &len, 16 * PART)) {
        assert_int_equal(at, sum);
        at += len;
        sum += len;
    }
    assert_int_equal(sum, b->size);
}

static void test_marks(void **state)
{
    struct block b = { .ops = &fake, .size = SIZE };
    static uint8_t buf[2 * PART];
    uint64_t at = 0, len;

    assert_false(block_log_take(&b, &at, &len, PART));
    assert_int_equal(block_write(&b, 0, buf, 512), 0); /* nobody asked */
    assert_int_equal(block_log_begin(&b, true), 0);
    assert_true(block_log_is_on(&b));
    take_all(&b);
    expect_none(&b);
    assert_int_equal(block_write(&b, 3 * PART - 512, buf, 1024), 0);
    assert_int_equal(block_discard(&b, 40 * PART, 512), 0);
    result = -EIO; /* what failed may have changed something */
    assert_int_equal(block_write_zeroes(&b, 66 * PART, PART + 4096, true), -EIO);
    result = 0;
    assert_int_equal(block_write(&b, SIZE, buf, 512), -EINVAL);
    assert_int_equal(block_log_left(&b), 5 * PART);
    expect_next(&b, &at, 2 * PART, 2 * PART);
    assert_int_equal(block_write(&b, 2 * PART, buf, 512), 0); /* behind: for the next round */
    expect_next(&b, &at, 40 * PART, PART);
    expect_next(&b, &at, 66 * PART, PART + 4096);
    at = 0;
    expect_next(&b, &at, 2 * PART, PART);
    expect_none(&b);
    block_log_end(&b);
    assert_int_equal(block_write(&b, 0, buf, 512), 0);
    expect_none(&b);
    assert_int_equal(block_log_begin(&b, true), 0); /* again: everything */
    take_all(&b);
    assert_int_equal(block_write(&b, 0, buf, 512), 0);
    assert_int_equal(block_log_begin(&b, false), 0); /* nothing but what is written from now on */
    expect_none(&b);
    assert_int_equal(block_write(&b, PART, buf, 512), 0);
    at = 0;
    expect_next(&b, &at, PART, PART);
    expect_none(&b);
    block_close(&b);
}

/* A disk of numbers; the writer counts up, the reader copies what the log tells. */
#define WRITES 200000
static uint32_t disk[64], copy[64];

static int count_write(struct block *b, uint64_t off, const void *buf, size_t len)
{
    __atomic_fetch_add(&disk[off / PART], 1, __ATOMIC_SEQ_CST);
    return 0;
}

static const struct block_ops counting = { .write = count_write, .close = fake_close };

static void *writer(void *arg)
{
    static const uint8_t buf[512];

    for (unsigned n = 0; n < WRITES; n++)
        block_write(arg, n * 7 % 64 * PART, buf, sizeof(buf));
    return NULL;
}

static void copy_round(struct block *b)
{
    uint64_t at = 0, len;

    for (; block_log_take(b, &at, &len, 4 * PART); at += len) {
        for (uint64_t n = at / PART; n < (at + len) / PART; n++)
            copy[n] = __atomic_load_n(&disk[n], __ATOMIC_SEQ_CST);
    }
}

static void test_writes_meanwhile(void **state)
{
    struct block b = { .ops = &counting, .size = 64 * PART };
    pthread_t thread;

    assert_int_equal(block_log_begin(&b, true), 0);
    assert_int_equal(pthread_create(&thread, NULL, writer, &b), 0);
    for (unsigned n = 0; n < 1000; n++)
        copy_round(&b);
    pthread_join(thread, NULL);
    copy_round(&b);
    assert_memory_equal(disk, copy, sizeof(disk));
    expect_none(&b);
    block_close(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_marks), cmocka_unit_test(test_writes_meanwhile) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
