/* Overlays that become one: random writes, zeroes and discards in each, compared over whichever of them the result stands on. */
#include "test.h"

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
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_random), cmocka_unit_test(test_refused) };
    int failed;

    rand_init_host(&source);
    assert_non_null(mkdtemp(folder));
    for (unsigned i = 0; i < LAYERS + 2; i++)
        snprintf(name[i], sizeof(name[i]), "%s/%u.%s", folder, i, i ? "qcow2" : "img");
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    rmdir(folder);
    return failed;
}
