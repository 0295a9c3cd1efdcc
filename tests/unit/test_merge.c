/* Overlays that become one: random writes, zeroes and discards in each, compared over whichever of them the result stands on. */
#include "test.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/err.h"
#include "base/rand.h"
#include "block/block.h"
#include "block/image.h"
#include "block/qcow2.h"

#define CLUSTER (1U << QCOW2_CLUSTER_BITS)
#define SIZE    (40 * (uint64_t)CLUSTER + 3 * BLOCK_SECTOR) /* the last cluster is not whole */
#define LAYERS  4

static struct rand_source source;
static char folder[] = "/tmp/test_merge.XXXXXX", name[LAYERS + 2][64];

static uint64_t draw(uint64_t below)
{
    uint64_t v;

    assert_int_equal(rand_bytes(&source, &v, sizeof(v)), 0);
    return v % below;
}

static struct block *open_chain(unsigned top, unsigned n, bool ro)
{
    struct image_opts o = { .format = IMAGE_QCOW2, .ro = ro };
    struct image_backing b[LAYERS + 1];
    struct err err = { "" };
    struct block *out;

    for (unsigned i = 0; i < n; i++)
        b[i] = (struct image_backing){ .path = name[top - 1 - i], .format = image_format_suffix(name[top - 1 - i]) };
    o.backing = b;
    o.backings = n;
    if (image_open(&out, name[top], &o, &err) < 0)
        fail_msg("%s", err.text);
    return out;
}

static void change(struct block *b)
{
    static uint8_t data[3 * CLUSTER];
    uint64_t sectors = SIZE / BLOCK_SECTOR, at = draw(sectors), n = 1 + draw(sizeof(data) / BLOCK_SECTOR);

    n = at + n > sectors ? sectors - at : n;
    memset(data, (int)(1 + draw(255)), n * BLOCK_SECTOR);
    switch (draw(4)) {
    case 0:
        assert_int_equal(block_write_zeroes(b, at * BLOCK_SECTOR, n * BLOCK_SECTOR, draw(2)), 0);
        break;
    case 1:
        assert_int_equal(block_discard(b, at * BLOCK_SECTOR, n * BLOCK_SECTOR), 0);
        break;
    default:
        assert_int_equal(block_write(b, at * BLOCK_SECTOR, data, n * BLOCK_SECTOR), 0);
    }
}

static void make(unsigned i)
{
    struct err err = { "" };
    int fd = image_overlay_make(name[i], name[i - 1], i > 1 ? IMAGE_QCOW2 : IMAGE_RAW, &err);
    struct block *b;

    if (fd < 0)
        fail_msg("%s", err.text);
    close(fd);
    b = open_chain(i, i, false);
    for (unsigned n = 0; n < 6; n++)
        change(b);
    assert_int_equal(block_flush(b), 0);
    block_close(b);
}

static void read_all(struct block *b, uint8_t *to)
{
    assert_int_equal(b->size, SIZE);
    assert_int_equal(block_read(b, 0, to, SIZE), 0);
    block_close(b);
}

static void base_make(void)
{
    struct err err = { "" };
    struct block *b;
    FILE *f = fopen(name[0], "w");

    assert_non_null(f);
    assert_int_equal(ftruncate(fileno(f), (off_t)SIZE), 0);
    fclose(f);
    assert_int_equal(block_raw_open(&b, name[0], false, &err), 0);
    for (unsigned n = 0; n < 20; n++)
        change(b);
    block_close(b);
}

/* The upper `merged` of all overlays become one. */
static void merge(unsigned merged, struct err *err)
{
    const char *layer[LAYERS];
    struct image_draft d;

    for (unsigned i = 0; i < merged; i++)
        layer[i] = name[LAYERS - i];
    assert_int_equal(image_draft_begin(&d, name[LAYERS + 1], true, err), 0);
    if (image_merge(&d, layer, merged, name[LAYERS - merged], err) < 0 || image_draft_commit(&d, err) < 0)
        fail_msg("%s", err->text);
}

static void test_random(void **state)
{
    static uint8_t was[SIZE], now[SIZE];
    struct err err = { "" };
    (void)state;

    for (unsigned round = 0; round < 20; round++) {
        unsigned merged = 1 + (unsigned)draw(LAYERS);
        struct image_opts o = { .format = IMAGE_QCOW2, .ro = true, .allow_backing = true };
        struct qcow2_check c;
        struct block *b;

        base_make();
        for (unsigned i = 1; i <= LAYERS; i++)
            make(i);
        read_all(open_chain(LAYERS, LAYERS, true), was);
        merge(merged, &err);
        assert_int_equal(image_open(&b, name[LAYERS + 1], &o, &err), 0); /* over what it names */
        assert_int_equal(qcow2_check(b, false, &c, &err), 0);
        assert_int_equal(c.corruptions + c.leaks, 0);
        read_all(b, now);
        assert_memory_equal(was, now, SIZE);
        assert_int_equal(rename(name[LAYERS + 1], name[LAYERS]), 0);
        read_all(open_chain(LAYERS, LAYERS, true), now); /* over what it was made of */
        assert_memory_equal(was, now, SIZE);
        for (unsigned i = 0; i <= LAYERS; i++)
            unlink(name[i]);
    }
}

/* -- below a disk that is in use -- */

/* What the disk must read as, kept beside it by who changes it. */
static uint8_t must[SIZE];
static _Atomic bool over;

static void change_both(struct block *b, unsigned short seed[3])
{
    static uint8_t data[3 * CLUSTER];
    uint64_t sectors = SIZE / BLOCK_SECTOR, at = (uint64_t)nrand48(seed) % sectors, n = 1 + (uint64_t)nrand48(seed) % (sizeof(data) / BLOCK_SECTOR);
    int what = (int)(nrand48(seed) % 4);

    n = at + n > sectors ? sectors - at : n;
    memset(data, what ? (int)(1 + nrand48(seed) % 255) : 0, n * BLOCK_SECTOR);
    memcpy(must + at * BLOCK_SECTOR, data, n * BLOCK_SECTOR);
    assert_int_equal(what ? block_write(b, at * BLOCK_SECTOR, data, n * BLOCK_SECTOR)
                          : block_write_zeroes(b, at * BLOCK_SECTOR, n * BLOCK_SECTOR, true), 0);
}

static void *writer(void *opaque)
{
    unsigned short seed[3] = { 1, 2, (unsigned short)draw(65536) };

    while (!over)
        change_both(opaque, seed);
    return NULL;
}

static void expect_must(struct block *b)
{
    static uint8_t now[SIZE];

    assert_int_equal(block_read(b, 0, now, SIZE), 0);
    assert_memory_equal(now, must, SIZE);
}

/* The disk is written by another thread meanwhile. */
static void pull_all(struct block *b, unsigned n, uint64_t step)
{
    uint64_t at = 0, calls = 0;
    pthread_t t;

    over = false;
    assert_int_equal(pthread_create(&t, NULL, writer, b), 0);
    while (at < b->size) {
        assert_int_equal(image_pull(b, n, &at, step), 0);
        assert_true(++calls < 10000);
        if (calls % 8 == 0)
            usleep(200);
    }
    over = true;
    pthread_join(t, NULL);
}

static void expect_clean(unsigned i)
{
    struct image_opts o = { .format = IMAGE_QCOW2, .ro = true, .no_backing = true, .unlocked = true };
    struct err err = { "" };
    struct qcow2_check c;
    struct block *b;

    if (image_open(&b, name[i], &o, &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(qcow2_check(b, false, &c, &err), 0);
    assert_int_equal(c.corruptions + c.leaks, 0);
    block_close(b);
}

/* Brought in while it is written, it reads the same over what it stood on, over what that stands on, and by the name that it has then. */
static void test_pull(void **state)
{
    static uint8_t was[SIZE];
    struct image_opts o = { .format = IMAGE_QCOW2, .ro = true, .allow_backing = true };
    struct err err = { "" };
    struct block *b;
    (void)state;

    for (unsigned round = 0; round < 20; round++) {
        unsigned n = (unsigned)draw(LAYERS);

        base_make();
        for (unsigned i = 1; i <= LAYERS; i++)
            make(i);
        b = open_chain(LAYERS, LAYERS, false);
        assert_int_equal(block_read(b, 0, must, SIZE), 0);
        pull_all(b, n, CLUSTER << draw(5));
        expect_must(b);
        assert_int_equal(image_pulled(b, n), 0);
        expect_must(b);
        image_unlink(b, n);
        expect_must(b);
        pull_all(b, 0, CLUSTER); /* and goes on to be written */
        assert_int_equal(block_flush(b), 0);
        expect_must(b);
        block_close(b);
        expect_clean(LAYERS);
        assert_int_equal(image_open(&b, name[LAYERS], &o, &err), 0); /* over what it names */
        assert_string_equal(qcow2_info_of(b)->backing, name[LAYERS - n - 1]);
        assert_string_equal(qcow2_info_of(b)->backing_format, LAYERS - n - 1 ? "qcow2" : "raw");
        read_all(b, was);
        assert_memory_equal(was, must, SIZE);
        read_all(open_chain(LAYERS, LAYERS, true), was); /* over what it was */
        assert_memory_equal(was, must, SIZE);
        for (unsigned i = 0; i <= LAYERS; i++)
            unlink(name[i]);
    }
}

/* Cut off anywhere, over what it was it reads the same, and it can begin again. */
static void test_pull_cut(void **state)
{
    static uint8_t was[SIZE];
    struct block *b;
    (void)state;

    base_make();
    for (unsigned i = 1; i <= LAYERS; i++)
        make(i);
    read_all(open_chain(LAYERS, LAYERS, true), must);
    for (uint64_t stop = 0; stop < SIZE; stop += 3 * CLUSTER) {
        uint64_t at = 0;

        b = open_chain(LAYERS, LAYERS, false);
        while (at < stop)
            assert_int_equal(image_pull(b, 2, &at, CLUSTER), 0);
        block_close(b);
        read_all(open_chain(LAYERS, LAYERS, true), was);
        assert_memory_equal(was, must, SIZE);
    }
    b = open_chain(LAYERS, LAYERS, false);
    assert_int_equal(image_pull(b, LAYERS, &(uint64_t){ 0 }, CLUSTER), -EINVAL); /* the raw one is not to go */
    assert_int_equal(image_pull(b, 1, &(uint64_t){ 512 }, CLUSTER), -EINVAL);
    block_close(b);
    for (unsigned i = 0; i <= LAYERS; i++)
        unlink(name[i]);
}

/* The backing file's name, changed again and again: the long ones too, and none that has no room. */
static void test_rename(void **state)
{
    static char longest[QCOW2_NAME_MAX + 2];
    struct image_opts o = { .format = IMAGE_QCOW2, .no_backing = true };
    struct err err = { "" };
    struct block *b;
    (void)state;

    base_make();
    make(1);
    memset(longest, 'x', sizeof(longest) - 1);
    assert_int_equal(image_open(&b, name[1], &o, &err), 0);
    assert_int_equal(qcow2_name_backing(b, longest, "raw"), -EINVAL);
    assert_int_equal(qcow2_name_backing(b, "", "raw"), -EINVAL);
    longest[QCOW2_NAME_MAX] = 0;
    for (unsigned n = 0; n < 5; n++) {
        const char *to = n % 2 ? "/short" : longest, *format = n % 3 ? "raw" : "qcow2";

        assert_int_equal(qcow2_name_backing(b, to, format), 0);
        block_close(b);
        assert_int_equal(image_open(&b, name[1], &o, &err), 0);
        assert_string_equal(qcow2_info_of(b)->backing, to);
        assert_string_equal(qcow2_info_of(b)->backing_format, format);
    }
    block_close(b);
    expect_clean(1);
    unlink(name[0]);
    unlink(name[1]);
}

/* A file in the place of some that a disk stands on. */
static void test_swap(void **state)
{
    const char *layer[2];
    struct image_draft d;
    struct err err = { "" };
    struct block *b;
    (void)state;

    base_make();
    for (unsigned i = 1; i <= LAYERS; i++)
        make(i);
    b = open_chain(LAYERS, LAYERS, false);
    assert_int_equal(block_read(b, 0, must, SIZE), 0);
    layer[0] = name[LAYERS - 1], layer[1] = name[LAYERS - 2];
    assert_int_equal(image_draft_begin(&d, name[LAYERS - 1], true, &err), 0);
    assert_int_equal(image_merge(&d, layer, 2, name[LAYERS - 3], &err), 0);
    assert_int_equal(image_draft_commit(&d, &err), 0);
    expect_must(b);
    assert_true(image_swap(b, 0, 1, open(name[LAYERS - 1], O_RDONLY), "top", &err) < 0);
    assert_true(image_swap(b, 1, LAYERS, open(name[LAYERS - 1], O_RDONLY), "deep", &err) < 0);
    assert_true(image_swap(b, 1, 1, open(name[0], O_RDONLY), "raw", &err) < 0);
    expect_must(b);
    assert_int_equal(image_swap(b, 1, 1, open(name[LAYERS - 1], O_RDONLY), name[LAYERS - 1], &err), 0);
    unlink(name[LAYERS - 2]);
    expect_must(b);
    pull_all(b, 1, CLUSTER);
    expect_must(b);
    block_close(b);
    for (unsigned i = 0; i <= LAYERS; i++)
        unlink(name[i]);
}

/* An overlay with other clusters: parts of them would have to come from below. */
static void test_refused(void **state)
{
    struct image_new n = { .format = IMAGE_QCOW2, .size = SIZE, .cluster_bits = 12, .backing = name[0], .backing_format = IMAGE_RAW };
    const char *layer[] = { name[1] };
    struct err err = { "" };
    struct image_draft d;
    (void)state;

    base_make();
    assert_int_equal(image_draft_begin(&d, name[1], false, &err), 0);
    assert_int_equal(image_make(&d, &n, &err), 0);
    assert_int_equal(image_draft_commit(&d, &err), 0);
    assert_int_equal(image_draft_begin(&d, name[LAYERS + 1], true, &err), 0);
    assert_true(image_merge(&d, layer, 1, name[0], &err) < 0);
    assert_non_null(strstr(err.text, "clusters"));
    assert_true(image_merge(&d, layer, 0, name[0], &err) < 0);
    image_draft_abort(&d);
    assert_int_not_equal(access(name[LAYERS + 1], F_OK), 0);
    unlink(name[0]);
    unlink(name[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_random), cmocka_unit_test(test_refused), cmocka_unit_test(test_pull), cmocka_unit_test(test_pull_cut),
                                        cmocka_unit_test(test_rename), cmocka_unit_test(test_swap) };
    int failed;

    rand_init_host(&source);
    assert_non_null(mkdtemp(folder));
    for (unsigned i = 0; i < LAYERS + 2; i++)
        snprintf(name[i], sizeof(name[i]), "%s/%u.%s", folder, i, i ? "qcow2" : "img");
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    rmdir(folder);
    return failed;
}
