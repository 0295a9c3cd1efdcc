/* The virtio file system device: messages through both kinds of ring, resets with requests under way, misuse, and what its state
 * says. What messages mean is tests/unit/test_share.c's. */
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/err.h"
#include "rig.h"
#include "vdriver.h"
#include "virtio/fs.h"

#define RAM    (64ULL << 20)
#define REQ    0x100000ULL
#define ANSWER 0x400000ULL
#define STEP   0x10000ULL
#define ROOM   4096U
#define EMPTY  0xeeeeeeeeU

static struct {
    struct rig rig;
    struct pci_host host;
    struct ram ram;
    struct virtio_fs fs, other;
    struct vring ring[3];
    struct share *share, *second;
    char folder[64];
} f;

static void make(struct virtio_fs *fs, struct share **share)
{
    struct share_options o = { .path = f.folder };
    struct virtio_fs_setup setup = {
        .loop = &f.rig.loop,
        .ram = &f.ram,
        .deliver = rig_deliver,
        .deliver_opaque = &f.rig,
        .name = "fs",
        .tag = "a-tag",
        .queues = 2,
    };
    struct err err = { "" };

    assert_int_equal(share_open(share, &o, &err), 0);
    setup.share = *share;
    assert_int_equal(virtio_fs_init(fs, &setup), 0);
}

static void start(bool packed)
{
    vd_plug(&f.rig, &f.fs.vp.pci, true, 4);
    assert_true(vd_negotiate(&f.rig, packed ? VIRTIO_F_RING_PACKED : 0));
    for (unsigned n = 0; n < 3; n++) {
        vring_init(&f.ring[n], &f.ram, packed, 64, 0x1000 + 0x3000 * n);
        vd_queue(&f.rig, n, &f.ring[n]);
    }
    vd_go(&f.rig);
}

static int setup(void **state)
{
    struct irq_line none[4] = { { 0 } };
    char path[80];
    int fd;

    memset(&f, 0, sizeof(f));
    strcpy(f.folder, "/tmp/vitro-fs-XXXXXX");
    assert_non_null(mkdtemp(f.folder));
    snprintf(path, sizeof(path), "%s/file", f.folder);
    fd = open(path, O_WRONLY | O_CREAT, 0644);
    assert_int_equal(write(fd, "contents", 8), 8);
    close(fd);
    rig_init(&f.rig, 0);
    pci_host_init(&f.host, &f.rig.io, &f.rig.mmio, none);
    ram_init(&f.ram);
    assert_int_equal(ram_add_slot(&f.ram, 0, RAM, false), 0);
    make(&f.fs, &f.share);
    make(&f.other, &f.second);
    assert_int_equal(pci_dev_plug(&f.fs.vp.pci, &f.host, 1), 0);
    start(false);
    return 0;
}

static int teardown(void **state)
{
    char command[100];

    virtio_fs_ops.destroy(&f.fs);
    virtio_fs_ops.destroy(&f.other);
    share_close(f.share);
    share_close(f.second);
    ram_fini(&f.ram);
    rig_fini(&f.rig);
    snprintf(command, sizeof(command), "rm -r %s", f.folder);
    return system(command);
}

/* Make message n available on a queue. */
static void submit(unsigned queue, unsigned n, uint32_t op, uint64_t node, const void *arg, uint32_t len)
{
    struct fuse_in_header h = { .len = (uint32_t)sizeof(h) + len, .opcode = op, .nodeid = node, .unique = 100 + n };
    struct vring_part part[4] = {
        { REQ + STEP * n, 40, false }, { REQ + STEP * n + 40, len, false }, { ANSWER + STEP * n, 16, true },
        { ANSWER + STEP * n + 16, ROOM - 16, true }
    };

    ram_write(&f.ram, part[0].gpa, &h, sizeof(h));
    ram_write(&f.ram, part[1].gpa, arg, len);
    st_le32(&h, EMPTY);
    ram_write(&f.ram, part[2].gpa, &h, 4);
    vring_add(&f.ring[queue], part, 4);
}

static uint32_t answer_word(unsigned n, unsigned off)
{
    uint32_t v;
    ram_read(&f.ram, ANSWER + STEP * n + off, &v, 4);
    return v;
}

/* Kick, and let the loop run until message n has its answer: its error number. */
static int finish(unsigned queue, unsigned n)
{
    vd_kick(&f.rig, queue);
    for (unsigned i = 0; i < 2000 && answer_word(n, 0) == EMPTY; i++)
        loop_step(&f.rig.loop, 5);
    assert_int_not_equal(answer_word(n, 0), EMPTY);
    return (int)answer_word(n, 4);
}

static int call(uint32_t op, uint64_t node, const void *arg, uint32_t len)
{
    submit(1, 0, op, node, arg, len);
    return finish(1, 0);
}

static int mount(void)
{
    struct fuse_init_in in = { .major = 7, .minor = 36 };
    return call(FUSE_INIT, 0, &in, sizeof(in));
}

static void run_session(bool packed)
{
    struct fuse_open_in open_in = { .flags = 0 };
    struct fuse_read_in read_in = { .size = 4096 };
    uint64_t node, forget = 1;
    uint32_t written;
    uint16_t id;
    char text[8];

    start(packed);
    assert_int_equal(mount(), 0);
    assert_true(vring_get(&f.ring[1], &id, &written, 4));
    assert_int_equal(written, 16 + sizeof(struct fuse_init_out));
    assert_int_equal(call(FUSE_LOOKUP, 1, "file", 5), 0);
    ram_read(&f.ram, ANSWER + 16, &node, 8);
    assert_int_equal(call(FUSE_OPEN, node, &open_in, sizeof(open_in)), 0);
    ram_read(&f.ram, ANSWER + 16, &read_in.fh, 8);
    assert_int_equal(call(FUSE_READ, node, &read_in, sizeof(read_in)), 0);
    assert_int_equal(answer_word(0, 0), 24);
    ram_read(&f.ram, ANSWER + 16, text, 8);
    assert_memory_equal(text, "contents", 8);
    submit(0, 1, FUSE_FORGET, node, &forget, 8); /* urgent, and without an answer */
    vd_kick(&f.rig, 0);
    assert_true(vring_get(&f.ring[0], &id, &written, 4));
    assert_int_equal(written, 0);
    assert_int_equal(call(FUSE_GETATTR, 99, &forget, 8), -116);
    assert_true(f.rig.msgs >= 5);
}

static void test_session(void **state) { run_session(false); }
static void test_session_packed(void **state) { run_session(true); }

static void test_config(void **state)
{
    char tag[36] = "";

    for (unsigned n = 0; n < 36; n++)
        tag[n] = (char)vd_get(&f.rig, VD_CONFIG + n, 1);
    assert_string_equal(tag, "a-tag");
    assert_int_equal(vd_get(&f.rig, VD_CONFIG + 36, 4), 2);
    assert_int_equal(vd_get(&f.rig, VD_QUEUES, 2), 3);
}

/* Many at once on both queues; each gets its own answer. */
static void test_many(void **state)
{
    assert_int_equal(mount(), 0);
    for (unsigned n = 1; n < 13; n++)
        submit(1 + n % 2, n, FUSE_STATFS, 1, "", 0);
    vd_kick(&f.rig, 1);
    for (unsigned n = 1; n < 13; n++) {
        assert_int_equal(finish(2, n), 0);
        assert_int_equal(answer_word(n, 8), 100 + n);
    }
}

static void test_misuse(void **state)
{
    struct vring_part small[] = { { REQ, 39, false }, { ANSWER, 4096, true } };
    struct vring_part huge[] = { { REQ, 2U << 20, false }, { ANSWER, 4096, true } };
    uint32_t written;
    uint16_t id;

    vring_add(&f.ring[1], small, 2); /* no header: it comes back without an answer */
    vd_kick(&f.rig, 1);
    assert_true(vring_get(&f.ring[1], &id, &written, 2));
    assert_int_equal(written, 0);
    assert_int_equal(call(FUSE_GETATTR, 1, "", 0), -5); /* before INIT */
    vring_add(&f.ring[1], huge, 2);
    vd_kick(&f.rig, 1);
    assert_true(vd_get(&f.rig, VD_STATUS, 1) & VIRTIO_NEEDS_RESET);
}

/* A reset drops the session and everything that is under way. */
static void test_reset(void **state)
{
    unsigned nodes, handles;

    for (unsigned round = 0; round < 20; round++) {
        assert_int_equal(mount(), 0);
        assert_int_equal(call(FUSE_LOOKUP, 1, "file", 5), 0);
        for (unsigned n = 1; n < 9; n++)
            submit(1, n, FUSE_STATFS, 1, "", 0);
        vd_kick(&f.rig, 1);
        start(round & 1);
        assert_int_equal(call(FUSE_LOOKUP, 1, "file", 5), -5);
        share_count(f.share, &nodes, &handles);
        assert_int_equal(nodes, 0);
    }
    assert_int_equal(f.fs.stale, 0);
}

/* The device as it is, to the other one: 0 or what it says. */
static int carry(bool shape, bool session)
{
    const struct device_more *more = virtio_fs_ops.more;
    struct state_buf b = { .data = NULL };
    struct err err = { "" };
    uint8_t *bytes;
    size_t len;
    int r;

    virtio_fs_ops.reset(&f.other); /* as a machine is that was just made */
    assert_int_equal(more->save(&f.fs, shape, &bytes, &len, &err), 0);
    assert_int_equal(state_save(&b, virtio_fs_ops.state, 0, &f.fs), 0);
    assert_int_equal(state_load(b.data, b.len, virtio_fs_ops.state, 0, &f.other, &err), 0);
    r = more->load(&f.other, shape, session ? bytes : NULL, session ? len : 0, &err);
    assert_true(r == 0 || err.text[0]);
    state_buf_fini(&b);
    free(bytes);
    return r;
}

/* An idle device, a mounted one, one that was mounted. */
static void test_state(void **state)
{
    virtio_fs_ops.pause(&f.fs);
    rig_round_trip(&virtio_fs_ops, &f.fs, &f.other);
    virtio_fs_ops.resume(&f.fs);
    assert_int_equal(mount(), 0);
    submit(1, 1, FUSE_STATFS, 1, "", 0);
    vd_kick(&f.rig, 1);
    virtio_fs_ops.pause(&f.fs); /* waits for it */
    assert_int_equal(f.fs.current, 0);
    assert_int_equal(answer_word(1, 4), 0);
    assert_int_equal(carry(true, true), 0);
    assert_false(share_in_session(f.second));
    assert_int_equal(carry(false, false), -EINVAL); /* mounted, and nothing is known of it */
    assert_int_equal(carry(false, true), 0);
    assert_true(share_in_session(f.second));
    virtio_fs_ops.pause(&f.other);
    assert_true(f.other.mounted && share_in_session(f.second));
    virtio_fs_ops.resume(&f.fs);
    assert_int_equal(call(FUSE_DESTROY, 0, "", 0), 0);
    virtio_fs_ops.pause(&f.fs);
    rig_round_trip(&virtio_fs_ops, &f.fs, &f.other);
    assert_int_equal(carry(false, true), 0);
    assert_int_equal(carry(false, false), 0); /* of a vitro that knew of no sessions */
    assert_false(share_in_session(f.second));
    virtio_fs_ops.resume(&f.fs);
    assert_int_equal(mount(), 0);
    start(false); /* resets it */
    virtio_fs_ops.pause(&f.fs);
    assert_int_equal(carry(false, true), 0); /* its session is over, although nothing has looked at it since */
    assert_false(share_in_session(f.second));
}

static void test_storm(void **state)
{
    rig_fuzz(&f.rig, &f.rig.mmio, VD_BAR, 0x4000, 20000);
    start(false);
    assert_int_equal(mount(), 0);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_session), TEST(test_session_packed), TEST(test_config), TEST(test_many),
        TEST(test_misuse),  TEST(test_reset),          TEST(test_state),  TEST(test_storm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
