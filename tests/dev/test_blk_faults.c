/* A virtio disk on a raw or qcow2 image whose Nth host call fails: the driver sees an error wherever data is
 * lost, flushed data is there when the image is opened again, and the image is sound, by our own check and by
 * qemu-img's.
 *
 * usage: test_blk_faults [all [SEED]]      without: some N up to 500; all: each of them (a minute)
 *
 * Each sector holds 64 times the number of the request that wrote it and its own place. The model keeps two
 * sets of numbers a sector (one bit each): what a read may find now, and what may be there after a new start.
 */
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/err.h"
#include "base/log.h"
#include "block/image_file.h"
#include "block/qcow2.h"
#include "block/uring.h"
#include "hostcalls.h"
#include "rig.h"
#include "vdriver.h"
#include "virtio/blk.h"

#define SECTORS 384U
#define MOST    40U /* sectors of a request */
#define BACKED  63U /* the number in the backing file's sectors */
#define RAM     (16ULL << 20)
#define HEADER  0x10000ULL
#define STATUS  0x20000ULL
#define DATA    0x100000ULL
enum { IN = 0, OUT = 1, FLUSH = 4, DISCARD = 11, ZERO = 13 };
enum { OK = 0, IOERR = 1, NONE = 0xee };

extern char **environ;

static struct {
    struct rig rig;
    struct pci_host host;
    struct ram ram;
    struct virtio_blk blk;
    struct vring ring;
    struct block *block;
    bool qcow2, backed;
    bool cold; /* all reads that can are io_uring's */
    char dir[64], path[96], base[96];
    uint64_t now[SECTORS], durable[SECTORS]; /* sets of numbers */
    unsigned requests, errors;
} f;

static uint8_t buf[SECTORS * BLOCK_SECTOR];

/* ---- images ---- */

static void sector_fill(uint8_t *p, uint64_t index, unsigned id)
{
    for (unsigned i = 0; i < BLOCK_SECTOR; i += 8)
        st_le64(p + i, id ? (uint64_t)id << 32 | index : 0);
}

/* A file with the number id in each sector. */
static int file_new(const char *path, unsigned id)
{
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    for (unsigned i = 0; i < SECTORS; i++)
        sector_fill(buf + i * BLOCK_SECTOR, i, id);
    if (id < 64)
        assert_int_equal(pwrite(fd, buf, sizeof(buf), 0), sizeof(buf));
    return fd;
}

static void image_new(unsigned bits)
{
    struct qcow2_new n = { .size = SECTORS * BLOCK_SECTOR, .cluster_bits = bits };
    struct err err = { "" };
    int fd = file_new(f.path, f.qcow2 ? 64 : 0);

    if (f.qcow2) {
        struct imgfile *file = imgfile_from_fd(fd);

        n.backing = f.backed ? f.base : NULL;
        n.backing_format = f.backed ? "raw" : NULL;
        if (qcow2_create(file, &n, &err) < 0)
            fail_msg("%s", err.text);
        imgfile_close(file);
    } else {
        close(fd);
    }
    for (unsigned i = 0; i < SECTORS; i++)
        f.now[i] = f.durable[i] = BIT(f.backed ? BACKED : 0);
}

static struct block *image_open(void)
{
    struct qcow2_opts o = { .name = "test", .cache_bytes = 1 };
    struct err err = { "" };
    struct imgfile *file;
    struct block *b = NULL;
    int r;

    if (!f.qcow2) {
        r = block_raw_open(&b, f.path, false, &err);
    } else {
        r = f.backed ? block_raw_open(&o.backing, f.base, true, &err) : 0;
        r = r == 0 ? imgfile_open(&file, f.path, false, &err) : r;
        r = r == 0 ? block_qcow2_open(&b, file, &o, &err) : r;
    }
    if (r < 0)
        fail_msg("%s", err.text);
    return b;
}

/* qemu-img's own opinion: 0 sound, 3 clusters that nobody uses. */
static void image_judge(bool leaks)
{
    char words[][9] = { "qemu-img", "check", "-q", "-f", "qcow2" };
    char *argv[] = { words[0], words[1], words[2], words[3], words[4], f.path, NULL };
    posix_spawn_file_actions_t quiet;
    pid_t pid;
    int status;

    posix_spawn_file_actions_init(&quiet);
    posix_spawn_file_actions_addopen(&quiet, 1, "/dev/null", O_WRONLY, 0);
    posix_spawn_file_actions_adddup2(&quiet, 1, 2);
    assert_int_equal(posix_spawnp(&pid, argv[0], &quiet, NULL, argv, environ), 0);
    posix_spawn_file_actions_destroy(&quiet);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (!WIFEXITED(status) || (WEXITSTATUS(status) && !(leaks && WEXITSTATUS(status) == 3)))
        fail_msg("qemu-img check: status %#x", status);
}

static void image_check(struct block *b, bool leaks)
{
    struct qcow2_check c;
    struct err err = { "" };

    if (!f.qcow2)
        return;
    if (qcow2_check(b, false, &c, &err) < 0)
        fail_msg("%s", err.text);
    if (c.corruptions || (c.leaks && !leaks))
        fail_msg("%llu leaks, %llu corruptions: %s", (unsigned long long)c.leaks,
                 (unsigned long long)c.corruptions, c.first);
}

/* ---- the machine ---- */

static void device_start(void)
{
    struct virtio_blk_setup setup = { .block = f.block,
                                      .loop = &f.rig.loop,
                                      .ram = &f.ram,
                                      .deliver = rig_deliver,
                                      .deliver_opaque = &f.rig,
                                      .name = "disk",
                                      .serial = "",
                                      .queues = 1,
                                      .aio = f.cold ? BLOCK_AIO_IO_URING : BLOCK_AIO_THREADS };

    assert_int_equal(virtio_blk_init(&f.blk, &setup), 0);
    assert_int_equal(pci_dev_plug(&f.blk.vp.pci, &f.host, 1), 0);
    vring_init(&f.ring, &f.ram, false, 64, 0x1000);
    vd_plug(&f.rig, &f.blk.vp.pci, true, 2);
    assert_true(vd_negotiate(&f.rig, BIT(9)));
    vd_queue(&f.rig, 0, &f.ring);
    vd_go(&f.rig);
}

static void device_stop(void)
{
    virtio_blk_ops.destroy(&f.blk);
    block_close(f.block);
}

/* One request, alone: so the Nth host call is the same one in each run with a seed. */
static uint8_t request(uint32_t type, uint64_t sector, uint32_t len)
{
    struct vring_part part[3] = { { HEADER, 16, false }, { DATA, len, type == IN }, { STATUS, 1, true } };
    uint8_t header[16] = { 0 }, s = NONE;

    st_le32(header, type);
    st_le64(header + 8, sector);
    ram_write(&f.ram, HEADER, header, sizeof(header));
    ram_fill(&f.ram, STATUS, NONE, 1);
    if (!len)
        part[1] = part[2];
    vring_add(&f.ring, part, len ? 3 : 2);
    vd_kick(&f.rig, 0);
    loop_lock(&f.rig.loop);
    block_drain(f.blk.io);
    loop_unlock(&f.rig.loop);
    ram_read(&f.ram, STATUS, &s, 1);
    assert_int_not_equal(s, NONE);
    f.requests++;
    f.errors += s != OK;
    return s;
}

static uint8_t range_request(uint32_t type, uint64_t sector, uint32_t sectors, uint32_t flags)
{
    uint8_t raw[16];

    st_le64(raw, sector);
    st_le32(raw + 8, sectors);
    st_le32(raw + 12, flags);
    ram_write(&f.ram, DATA, raw, sizeof(raw));
    return request(type, 0, sizeof(raw));
}

/* ---- the model ---- */

static void model_write(uint64_t first, uint64_t n, unsigned id, bool ok)
{
    for (uint64_t i = first; i < first + n; i++) {
        f.now[i] = (ok ? 0 : f.now[i]) | BIT(id);
        f.durable[i] |= BIT(id);
    }
}

static void sectors_check(const uint8_t *p, uint64_t first, uint64_t n, const uint64_t *allowed)
{
    for (uint64_t i = first; i < first + n; i++, p += BLOCK_SECTOR) {
        uint64_t v = ld_le64(p);

        for (unsigned j = 8; j < BLOCK_SECTOR; j += 8)
            assert_int_equal(ld_le64(p + j), v);
        if (v >> 32 > BACKED || !(allowed[i] & BIT(v >> 32)) || (v && (v & UINT32_MAX) != i))
            fail_msg("sector %llu holds %#llx, which it may not (%#llx)", (unsigned long long)i,
                     (unsigned long long)v, (unsigned long long)allowed[i]);
    }
}

static void step_write(uint64_t first, uint32_t n)
{
    unsigned id = 1 + f.requests % (BACKED - 1);

    for (uint32_t i = 0; i < n; i++)
        sector_fill(buf + i * BLOCK_SECTOR, first + i, id);
    ram_write(&f.ram, DATA, buf, n * BLOCK_SECTOR);
    model_write(first, n, id, request(OUT, first, n * BLOCK_SECTOR) == OK);
}

static void step_read(uint64_t first, uint32_t n)
{
    if (request(IN, first, n * BLOCK_SECTOR) != OK)
        return;
    ram_read(&f.ram, DATA, buf, n * BLOCK_SECTOR);
    sectors_check(buf, first, n, f.now);
}

static void step_flush(void)
{
    if (request(FLUSH, 0, 0) == OK)
        memcpy(f.durable, f.now, sizeof(f.now));
}

static void step(void)
{
    uint64_t first = rig_random(&f.rig) % SECTORS, pick = rig_random(&f.rig) % 20;
    uint32_t n = (uint32_t)(1 + rig_random(&f.rig) % MOST);

    n = first + n > SECTORS ? (uint32_t)(SECTORS - first) : n;
    if (pick < 10) {
        step_write(first, n);
    } else if (pick < 12) {
        model_write(first, n, 0, range_request(ZERO, first, n, 1) == OK);
    } else if (pick < 14) { /* what is discarded may stay */
        range_request(DISCARD, first, n, 0);
        model_write(first, n, 0, false);
    } else if (pick < 17) {
        step_read(first, n);
    } else {
        step_flush();
    }
}

/* ---- runs ---- */

/* What was promised holds when the image is opened again, and it can be worked with. */
static void run_again(bool leaks, bool judge)
{
    if (judge && f.qcow2)
        image_judge(leaks);
    f.block = image_open();
    image_check(f.block, leaks);
    assert_int_equal(block_read(f.block, 0, buf, sizeof(buf)), 0);
    sectors_check(buf, 0, SECTORS, f.durable);
    memcpy(f.now, f.durable, sizeof(f.now));
    device_start();
    f.errors = 0;
    for (unsigned i = 0; i < 4; i++)
        step();
    step_flush();
    assert_int_equal(f.errors, 0);
    image_check(f.block, leaks);
    device_stop();
}

static void run(enum hostcall_fault fault, unsigned at, bool for_ever, uint64_t seed)
{
    bool judge = at % 25 == 0 || at < 8, tolerant = fault >= HOSTCALL_SHORT_READ;

    f.rig.seed = seed * 1000003 + at;
    f.backed = f.qcow2 && at % 2;
    f.requests = f.errors = 0;
    image_new(9 + at % 4);
    f.block = image_open();
    device_start();
    hostcalls_set(fault, at, for_ever);
    /* Until the call has come, and some more after it. */
    for (unsigned left = 12; left && f.requests < 2000; left -= hostcalls.calls >= at)
        step();
    step_flush();
    if (tolerant || !hostcalls.failed)
        assert_int_equal(f.errors, 0); /* a short transfer goes on */
    else if (hostcalls.failed_data && (for_ever || !f.qcow2))
        assert_int_not_equal(f.errors, 0);
    assert_true(hostcalls.calls >= at);
    hostcalls_set(HOSTCALL_NONE, 0, false);
    step_read(0, SECTORS); /* all that was not said to have failed */
    bool errors = f.errors;
    device_stop();
    run_again(errors, judge);
}

static void runs(bool qcow2, bool all, uint64_t seed)
{
    f.qcow2 = qcow2;
    for (unsigned at = 1; at <= 500; at += all || at < 24 ? 1 : f.cold ? 97 : 17) {
        for (enum hostcall_fault fault = HOSTCALL_EIO; fault < HOSTCALL_FAULTS; fault++) {
            run(fault, at, false, seed);
            if (at % 4 == 0)
                run(fault, at, true, seed);
        }
    }
}

/* ---- tests ---- */

struct params {
    bool all;
    uint64_t seed;
};

static void test_raw(void **state)
{
    const struct params *p = *state;
    hostcalls.straight = 0;
    runs(false, p->all, p->seed);
    assert_true(hostcalls.straight > 100);
}

static void test_qcow2(void **state)
{
    const struct params *p = *state;
    hostcalls.straight = 0;
    runs(true, p->all, p->seed);
    assert_true(hostcalls.straight > 100);
}

/* Nothing is in the host's page cache. */
static void runs_ring(bool qcow2, const struct params *p)
{
    char why[128];

    if (!uring_probe(why, sizeof(why))) {
        print_message("SKIP: %s\n", why);
        skip();
    }
    f.cold = true;
    hostcalls.cold = true;
    hostcalls.ring = 0;
    runs(qcow2, p->all, p->seed);
    hostcalls.cold = false;
    assert_true(hostcalls.ring > 100);
}

static void test_raw_ring(void **state) { runs_ring(false, *state); }
static void test_qcow2_ring(void **state) { runs_ring(true, *state); }

static int setup(void **state)
{
    struct irq_line none[4] = { { 0 } };

    memset(&f, 0, sizeof(f));
    rig_init(&f.rig, 0);
    pci_host_init(&f.host, &f.rig.io, &f.rig.mmio, none);
    ram_init(&f.ram);
    assert_int_equal(ram_add_slot(&f.ram, 0, RAM, false), 0);
    strcpy(f.dir, "/tmp/vitro-faults.XXXXXX");
    assert_non_null(mkdtemp(f.dir));
    snprintf(f.path, sizeof(f.path), "%s/disk", f.dir);
    snprintf(f.base, sizeof(f.base), "%s/base", f.dir);
    close(file_new(f.base, BACKED));
    return 0;
}

static int teardown(void **state)
{
    unlink(f.path);
    unlink(f.base);
    rmdir(f.dir);
    ram_fini(&f.ram);
    rig_fini(&f.rig);
    return 0;
}

int main(int argc, char **argv)
{
    struct params p = { .all = argc > 1 && !strcmp(argv[1], "all"),
                        .seed = argc > 2 ? strtoull(argv[2], NULL, 0) : 1 };
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate_setup_teardown(test_raw, setup, teardown, &p),
        cmocka_unit_test_prestate_setup_teardown(test_qcow2, setup, teardown, &p),
        cmocka_unit_test_prestate_setup_teardown(test_raw_ring, setup, teardown, &p),
        cmocka_unit_test_prestate_setup_teardown(test_qcow2_ring, setup, teardown, &p),
    };

    log_set_level(LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
