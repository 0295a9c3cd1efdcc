/* The reader of a disk (block/reader.c): many reads under way, of all forms of disk, with writes, discards and flushes
 * beside them. The host claims to have nothing in its page cache, so that each read comes to the ring.
 *
 * Each sector of the lower half holds its own number, and is only read; the upper half is changed.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/err.h"
#include "block/block.h"
#include "block/image_file.h"
#include "block/qcow2.h"
#include "block/uring.h"
#include "hostcalls.h"
#include "rig.h"

#define SIZE  (16ULL << 20)
#define MOST  (600U << 10) /* of a request: several pieces */
#define ROUND 80U          /* requests at a time: more than the reader has slots */

struct order {
    struct block_req req;
    uint8_t *data;
    bool done;
};

static struct {
    struct rig rig;
    struct block_io *io;
    struct block *block;
    char dir[64], path[96], base[96];
    struct order order[ROUND];
    _Atomic unsigned moves; /* pieces that came back */
} f;

/* ---- images ---- */

static uint8_t *pattern(void)
{
    uint8_t *all = malloc(SIZE);

    assert_non_null(all);
    for (uint64_t i = 0; i < SIZE; i += 8)
        st_le64(all + i, i / BLOCK_SECTOR);
    return all;
}

static void raw_new(const char *path)
{
    uint8_t *all = pattern();
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, all, SIZE, 0), SIZE);
    close(fd);
    free(all);
}

static struct block *raw_open(const char *path, bool ro)
{
    struct err err = { "" };
    struct block *b;

    if (block_raw_open(&b, path, ro, &err) < 0)
        fail_msg("%s", err.text);
    return b;
}

/* Over base, or holding all itself. */
static struct block *qcow2_new(struct block *base)
{
    struct qcow2_new n = { .size = SIZE, .cluster_bits = 16, .backing = base ? f.base : NULL,
                           .backing_format = base ? "raw" : NULL };
    struct qcow2_opts o = { .name = "test", .backing = base };
    struct err err = { "" };
    struct block *b = NULL;
    int fd = open(f.path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    struct imgfile *file = imgfile_from_fd(fd);

    if (qcow2_create(file, &n, &err) < 0 || block_qcow2_open(&b, file, &o, &err) < 0)
        fail_msg("%s", err.text);
    if (!base) {
        uint8_t *all = pattern();
        assert_int_equal(block_write(b, 0, all, SIZE), 0);
        free(all);
    }
    return b;
}

/* ---- requests ---- */

static int order_move(struct block_req *req, uint64_t at, void *piece, size_t len)
{
    struct order *o = container_of(req, struct order, req);

    if (req->op == BLOCK_READ)
        memcpy(o->data + at, piece, len);
    else
        memset(piece, 0x55, len);
    f.moves++;
    return 0;
}

/* Nothing goes straight, as from a device whose first look found nothing; the bytes that come by the ring are then told
 * from others. */
static int order_read_now(struct block_req *req, uint64_t at, size_t len) { return -EAGAIN; }

static void order_done(struct block_req *req, int result)
{
    struct order *o = container_of(req, struct order, req);

    assert_false(o->done);
    assert_int_equal(result, 0);
    o->done = true;
}

static uint64_t sectors(uint64_t most) { return (1 + rig_random(&f.rig) % (most / BLOCK_SECTOR)) * BLOCK_SECTOR; }

static void order_make(struct order *o, unsigned n, bool changes)
{
    static const enum block_op ops[] = { BLOCK_WRITE, BLOCK_WRITE, BLOCK_DISCARD, BLOCK_WRITE_ZEROES, BLOCK_FLUSH };
    struct block_req *r = &o->req;

    *r = (struct block_req){ .op = BLOCK_READ, .move = order_move, .read_now = order_read_now, .done = order_done };
    if (changes && n % 4 == 0)
        r->op = ops[rig_random(&f.rig) % ARRAY_LEN(ops)];
    r->len = sectors(MOST);
    r->off = sectors(SIZE / 2 - MOST) + (r->op == BLOCK_READ ? 0 : SIZE / 2 - BLOCK_SECTOR);
    r->cold = n % 2;
    o->done = false;
    memset(o->data, 0xee, MOST);
}

static void order_check(const struct order *o)
{
    assert_true(o->done);
    if (o->req.op != BLOCK_READ)
        return;
    for (uint64_t i = 0; i < o->req.len; i += 8) {
        if (ld_le64(o->data + i) != (o->req.off + i) / BLOCK_SECTOR)
            fail_msg("byte %llu of a read at %llu is wrong", (unsigned long long)i, (unsigned long long)o->req.off);
    }
}

static void round_run(bool changes)
{
    loop_lock(&f.rig.loop);
    for (unsigned n = 0; n < ROUND; n++) {
        order_make(&f.order[n], n, changes);
        block_submit(f.io, &f.order[n].req);
    }
    block_drain(f.io);
    loop_unlock(&f.rig.loop);
    for (unsigned n = 0; n < ROUND; n++)
        order_check(&f.order[n]);
}

/* Takes the disk over. ring: so many of its reads come to the ring, at least. */
static void run(struct block *b, bool changes, unsigned ring)
{
    hostcalls.ring = 0;
    assert_int_equal(block_io_create(&f.io, b, BLOCK_AIO_IO_URING, &f.rig.loop, NULL, NULL), 0);
    for (unsigned n = 0; n < 6; n++)
        round_run(changes);
    block_io_destroy(f.io);
    block_close(b);
    if (hostcalls.ring < ring)
        fail_msg("%u reads came to the ring, not %u", hostcalls.ring, ring);
}

/* ---- tests ---- */

static void raw_reads(void **state) { run(raw_open(f.base, true), false, 6 * ROUND); }
static void raw_reads_beside_changes(void **state) { run(raw_open(f.base, false), true, 3 * ROUND); }
static void qcow2_reads_beside_changes(void **state) { run(qcow2_new(NULL), true, 3 * ROUND); }
static void backing_reads_beside_changes(void **state) { run(qcow2_new(raw_open(f.base, true)), true, 3 * ROUND); }

static void overlay_reads_beside_changes(void **state)
{
    struct err err = { "" };
    struct block *b;

    if (block_overlay_open(&b, raw_open(f.base, true), &err) < 0)
        fail_msg("%s", err.text);
    run(b, true, 3 * ROUND);
}

/* Results that are short or tell an error: the thread reads on after the former, the latter ends the request. */
static int last;
static void last_done(struct block_req *req, int result)
{
    container_of(req, struct order, req)->done = true;
    last = result;
}

static int read_one(enum hostcall_fault fault, struct order *o)
{
    order_make(o, 1, false);
    o->req.done = last_done;
    hostcalls_set(fault, 1, false);
    loop_lock(&f.rig.loop);
    block_submit(f.io, &o->req);
    block_drain(f.io);
    loop_unlock(&f.rig.loop);
    hostcalls_set(HOSTCALL_NONE, 0, false);
    return last;
}

static void short_and_failed(void **state)
{
    struct block *b = raw_open(f.base, true);
    struct order *o = &f.order[0];

    assert_int_equal(block_io_create(&f.io, b, BLOCK_AIO_IO_URING, &f.rig.loop, NULL, NULL), 0);
    assert_int_equal(read_one(HOSTCALL_SHORT_READ, o), 0);
    order_check(o);
    assert_int_equal(read_one(HOSTCALL_EIO, o), -EIO);
    assert_int_equal(read_one(HOSTCALL_NONE, o), 0);
    order_check(o);
    block_io_destroy(f.io);
    block_close(b);
}

/* The kernel keeps the ring from everything but reads: that is what lets it through the sandbox. */
static void only_reads(void **state)
{
    struct uring r;
    uint64_t tag = 0;
    int got = 0, fd = open(f.base, O_RDONLY | O_CLOEXEC);
    uint8_t sector[BLOCK_SECTOR];

    assert_int_equal(uring_init(&r, 2), 0);
    uring_read(&r, fd, SIZE - 256, sector, sizeof(sector), 7);
    assert_int_equal(uring_wait(&r), 0);
    assert_true(uring_next(&r, &tag, &got));
    assert_int_equal(tag, 7);
    assert_int_equal(got, 256); /* the file's end */
    assert_false(uring_next(&r, &tag, &got));
    for (unsigned op = 0; op < 40; op++) {
        uring_read(&r, fd, 0, sector, sizeof(sector), op);
        r.sqe[(*r.sq_tail - 1) & r.sq_mask].opcode = (uint8_t)op;
        uring_wait(&r);
        assert_true(uring_next(&r, &tag, &got));
        assert_int_equal(got, op == IORING_OP_READ ? (int)BLOCK_SECTOR : -EACCES);
    }
    uring_fini(&r);
    close(fd);
}

static int setup(void **state)
{
    memset(&f, 0, sizeof(f));
    rig_init(&f.rig, 0);
    hostcalls.cold = true;
    strcpy(f.dir, "/tmp/vitro-reader.XXXXXX");
    assert_non_null(mkdtemp(f.dir));
    snprintf(f.path, sizeof(f.path), "%s/disk", f.dir);
    snprintf(f.base, sizeof(f.base), "%s/base", f.dir);
    raw_new(f.base);
    for (unsigned n = 0; n < ROUND; n++)
        assert_non_null(f.order[n].data = malloc(MOST));
    return 0;
}

static int teardown(void **state)
{
    for (unsigned n = 0; n < ROUND; n++)
        free(f.order[n].data);
    unlink(f.path);
    unlink(f.base);
    rmdir(f.dir);
    rig_fini(&f.rig);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(raw_reads, setup, teardown),
        cmocka_unit_test_setup_teardown(raw_reads_beside_changes, setup, teardown),
        cmocka_unit_test_setup_teardown(qcow2_reads_beside_changes, setup, teardown),
        cmocka_unit_test_setup_teardown(backing_reads_beside_changes, setup, teardown),
        cmocka_unit_test_setup_teardown(overlay_reads_beside_changes, setup, teardown),
        cmocka_unit_test_setup_teardown(short_and_failed, setup, teardown),
        cmocka_unit_test_setup_teardown(only_reads, setup, teardown),
    };
    char why[128];

    if (!uring_probe(why, sizeof(why))) {
        printf("SKIP: %s\n", why);
        return 77;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
