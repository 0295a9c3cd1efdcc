/* Overlays under a virtio disk that goes on: random requests against a model while the image is put under one overlay after
 * the other; what lies below does not change any more and others may read it; what is refused changes nothing. Judges: the
 * model, the same chain opened again by its names, qemu-img check of each image and qemu-img compare of the whole. */
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
#include "block/file.h"
#include "block/image.h"
#include "rig.h"
#include "vdriver.h"
#include "virtio/blk.h"

#define DISK   (2U << 20)
#define MOST   (96U << 10)
#define LAYERS 4U
#define RAM    (16ULL << 20)
#define HEADER 0x10000ULL
#define STATUS 0x20000ULL
#define DATA   0x100000ULL
enum { IN = 0, OUT = 1, FLUSH = 4, DISCARD = 11, ZERO = 13, OK = 0, NONE = 0xee };

extern char **environ;

static struct {
    struct rig rig;
    struct pci_host host;
    struct ram ram;
    struct virtio_blk blk;
    struct vring ring;
    struct block *block;
    enum image_format format; /* of the lowest image */
    char dir[32], path[LAYERS + 1][64], model_path[64];
    unsigned top;
} f;

static uint8_t model[DISK], got[DISK];

/* ---- images ---- */

static int judge(char *const argv[])
{
    posix_spawn_file_actions_t quiet;
    pid_t pid;
    int status;

    posix_spawn_file_actions_init(&quiet);
    posix_spawn_file_actions_addopen(&quiet, 1, "/dev/null", O_WRONLY, 0);
    posix_spawn_file_actions_adddup2(&quiet, 1, 2);
    assert_int_equal(posix_spawnp(&pid, argv[0], &quiet, NULL, argv, environ), 0);
    posix_spawn_file_actions_destroy(&quiet);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static enum image_format format_of(unsigned layer) { return layer ? IMAGE_QCOW2 : f.format; }

static void image_first(void)
{
    struct image_new n = { .format = f.format, .size = DISK, .cluster_bits = 16 };
    struct image_opts o = { .format = f.format };
    struct image_draft draft;
    struct err err = { "" };

    if (image_draft_begin(&draft, f.path[0], false, &err) < 0 || image_make(&draft, &n, &err) < 0 ||
        image_draft_commit(&draft, &err) < 0 || image_open(&f.block, f.path[0], &o, &err) < 0)
        fail_msg("%s", err.text);
}

/* A copy of a file's bytes, of *len. */
static uint8_t *slurp(const char *path, size_t *len)
{
    FILE *file = fopen(path, "rb");
    uint8_t *data;

    assert_non_null(file);
    fseek(file, 0, SEEK_END);
    *len = (size_t)ftell(file);
    rewind(file);
    data = malloc(*len);
    assert_int_equal(fread(data, 1, *len, file), *len);
    fclose(file);
    return data;
}

/* Others may read the image, none may write it. */
static void assert_shared(const char *path)
{
    uint64_t size;
    int a = block_file_open(path, true, &size, NULL), b = block_file_open(path, true, &size, NULL);

    assert_true(a >= 0 && b >= 0);
    assert_int_equal(block_file_open(path, false, &size, NULL), -EBUSY);
    close(a);
    close(b);
}

static void assert_alone(const char *path)
{
    uint64_t size;

    assert_int_equal(block_file_open(path, true, &size, NULL), -EBUSY);
    assert_int_equal(block_file_open(path, false, &size, NULL), -EBUSY);
}

/* ---- the machine ---- */

static uint8_t request(uint32_t type, uint64_t sector, uint32_t len)
{
    struct vring_part part[3] = { { HEADER, 16, false }, { DATA, len, type == IN }, { STATUS, 1, true } };
    uint8_t header[16] = { 0 }, status = NONE;
    uint32_t written;
    uint16_t id;

    st_le32(header, type);
    st_le64(header + 8, sector);
    ram_write(&f.ram, HEADER, header, sizeof(header));
    ram_fill(&f.ram, STATUS, NONE, 1);
    if (!len)
        part[1] = part[2];
    vring_add(&f.ring, part, len ? 3 : 2);
    vd_kick(&f.rig, 0);
    for (unsigned i = 0; i < 10000 && status == NONE; i++) {
        ram_read(&f.ram, STATUS, &status, 1);
        if (status == NONE)
            loop_step(&f.rig.loop, 10);
    }
    vring_get(&f.ring, &id, &written, len ? 3 : 2);
    return status;
}

static void change(void)
{
    uint32_t sectors = 1 + (uint32_t)(rig_random(&f.rig) % (MOST / 512)), len = sectors * 512;
    uint64_t sector = rig_random(&f.rig) % (DISK / 512 - sectors);
    uint8_t range[16] = { 0 };

    if (rig_random(&f.rig) % 5 == 0) {
        st_le64(range, sector);
        st_le32(range + 8, sectors);
        st_le32(range + 12, (uint32_t)rig_random(&f.rig) & 1);
        ram_write(&f.ram, DATA, range, sizeof(range));
        memset(model + sector * 512, 0, len);
        assert_int_equal(request(ZERO, 0, sizeof(range)), OK);
        return;
    }
    for (uint32_t i = 0; i < len; i += 8)
        st_le64(model + sector * 512 + i, rig_random(&f.rig));
    ram_write(&f.ram, DATA, model + sector * 512, len);
    assert_int_equal(request(OUT, sector, len), OK);
}

static void assert_model(void)
{
    for (uint64_t at = 0; at < DISK; at += MOST) {
        uint32_t len = DISK - at < MOST ? (uint32_t)(DISK - at) : MOST;
        assert_int_equal(request(IN, at / 512, len), OK);
        ram_read(&f.ram, DATA, got, len);
        assert_memory_equal(got, model + at, len);
    }
}

static void work(unsigned n)
{
    while (n--)
        change();
    assert_int_equal(request(FLUSH, 0, 0), OK);
    assert_model();
}

/* What the machine does with its disk, with requests under way when it begins. */
static int overlay(int fd, const char *path, struct err *err)
{
    struct vring_part part[3] = { { HEADER, 16, false }, { DATA, 4096, false }, { STATUS, 1, true } };
    uint8_t header[16] = { OUT }, status;
    struct block *b;
    uint16_t id;
    uint32_t written;
    int r;

    for (unsigned i = 0; i < 4096; i++)
        model[i] = (uint8_t)rig_random(&f.rig);
    ram_write(&f.ram, HEADER, header, sizeof(header));
    ram_write(&f.ram, DATA, model, 4096);
    vring_add(&f.ring, part, 3);
    vd_kick(&f.rig, 0);
    loop_lock(&f.rig.loop);
    virtio_blk_ops.pause(&f.blk);
    ram_read(&f.ram, STATUS, &status, 1);
    assert_int_equal(status, OK);
    r = image_overlay(&b, fd, path, f.block, format_of(f.top), err);
    if (r == 0) {
        f.block = b;
        virtio_blk_switch(&f.blk, b);
    }
    virtio_blk_ops.resume(&f.blk);
    loop_unlock(&f.rig.loop);
    vring_get(&f.ring, &id, &written, 3);
    return r;
}

static void overlay_next(void)
{
    struct err err = { "" };
    int fd = image_overlay_make(f.path[f.top + 1], f.path[f.top], format_of(f.top), &err);

    if (fd < 0 || overlay(fd, f.path[f.top + 1], &err) < 0)
        fail_msg("%s", err.text);
    f.top++;
}

static void attach(enum image_format format)
{
    struct irq_line none[4] = { { 0 } };
    struct virtio_blk_setup setup = {
        .loop = &f.rig.loop, .ram = &f.ram, .deliver = rig_deliver, .deliver_opaque = &f.rig,
        .name = "disk", .serial = "x", .queues = 1,
    };

    memset(&f, 0, sizeof(f));
    memset(model, 0, sizeof(model));
    rig_init(&f.rig, 0);
    pci_host_init(&f.host, &f.rig.io, &f.rig.mmio, none);
    ram_init(&f.ram);
    assert_int_equal(ram_add_slot(&f.ram, 0, RAM, false), 0);
    strcpy(f.dir, "/tmp/vitro-over.XXXXXX");
    assert_non_null(mkdtemp(f.dir));
    snprintf(f.path[0], sizeof(f.path[0]), "%s/0.%s", f.dir, format == IMAGE_RAW ? "img" : "qcow2");
    for (unsigned n = 1; n <= LAYERS; n++)
        snprintf(f.path[n], sizeof(f.path[n]), "%s/%u.qcow2", f.dir, n);
    snprintf(f.model_path, sizeof(f.model_path), "%s/model.img", f.dir);
    f.format = format;
    image_first();
    setup.block = f.block;
    assert_int_equal(virtio_blk_init(&f.blk, &setup), 0);
    assert_int_equal(pci_dev_plug(&f.blk.vp.pci, &f.host, 1), 0);
    vring_init(&f.ring, &f.ram, false, 64, 0x1000);
    vd_plug(&f.rig, &f.blk.vp.pci, true, 2);
    assert_true(vd_negotiate(&f.rig, BIT(9) | BIT(13) | BIT(14)));
    vd_queue(&f.rig, 0, &f.ring);
    vd_go(&f.rig);
}

static void detach(void)
{
    virtio_blk_ops.destroy(&f.blk);
    block_close(f.block);
    ram_fini(&f.ram);
    rig_fini(&f.rig);
}

static void clean_up(void)
{
    for (unsigned n = 0; n <= LAYERS; n++)
        unlink(f.path[n]);
    unlink(f.model_path);
    assert_int_equal(rmdir(f.dir), 0);
}

/* ---- tests ---- */

/* The chain by its names, as a saved machine opens it. */
static void reopen_chain(void)
{
    struct image_backing below[LAYERS];
    struct image_opts o = { .format = IMAGE_QCOW2, .backing = below, .backings = f.top };
    struct err err = { "" };
    struct block *b;

    for (unsigned n = 0; n < f.top; n++)
        below[n] = (struct image_backing){ f.path[f.top - 1 - n], format_of(f.top - 1 - n) };
    if (image_open(&b, f.path[f.top], &o, &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(block_read(b, 0, got, DISK), 0);
    assert_memory_equal(got, model, DISK);
    block_close(b);
}

static void judge_all(void)
{
    char words[][9] = { "qemu-img", "check", "-f", "qcow2", "compare", "-F", "raw" };
    FILE *file = fopen(f.model_path, "wb");

    assert_int_equal(fwrite(model, 1, DISK, file), DISK);
    fclose(file);
    for (unsigned n = f.format == IMAGE_RAW; n <= f.top; n++) {
        char *check[] = { words[0], words[1], words[2], words[3], f.path[n], NULL };
        assert_int_equal(judge(check), 0);
    }
    char *compare[] = { words[0], words[4], words[2], words[3], words[5], words[6], f.path[f.top], f.model_path, NULL };
    assert_int_equal(judge(compare), 0);
}

static void run_chain(enum image_format format)
{
    uint8_t *was[LAYERS], *is;
    size_t len[LAYERS], now;

    attach(format);
    work(25);
    for (unsigned n = 0; n < LAYERS; n++) {
        assert_alone(f.path[n]);
        overlay_next();
        assert_shared(f.path[n]);
        was[n] = slurp(f.path[n], &len[n]);
        assert_alone(f.path[n + 1]);
        work(25);
    }
    detach();
    for (unsigned n = 0; n < LAYERS; n++) {
        is = slurp(f.path[n], &now);
        assert_int_equal(now, len[n]);
        assert_memory_equal(is, was[n], now);
        free(is);
        free(was[n]);
    }
    reopen_chain();
    judge_all();
    clean_up();
}

static void test_raw(void **state) { run_chain(IMAGE_RAW); }
static void test_qcow2(void **state) { run_chain(IMAGE_QCOW2); }

/* The base is as it was: alone, and written. */
static void refuse(int fd, const char *why)
{
    struct err err = { "" };

    assert_true(fd >= 0);
    assert_true(overlay(fd, "over", &err) < 0);
    if (!strstr(err.text, why))
        fail_msg("'%s' does not say '%s'", err.text, why);
    assert_alone(f.path[0]);
    work(3);
}

static int made(uint64_t size, const char *backing, enum image_format format, unsigned data)
{
    struct image_new n = { .format = IMAGE_QCOW2, .size = size, .cluster_bits = 16, .backing = backing,
                           .backing_format = format };
    struct image_opts o = { .format = IMAGE_QCOW2, .no_backing = true };
    struct image_draft draft;
    struct err err = { "" };
    struct block *b = NULL;

    if (image_draft_begin(&draft, f.path[1], true, &err) < 0 || image_make(&draft, &n, &err) < 0 ||
        image_draft_commit(&draft, &err) < 0 || image_open(&b, f.path[1], &o, &err) < 0)
        fail_msg("%s", err.text);
    if (data)
        assert_int_equal(block_write(b, size - 512, model, 512), 0);
    block_close(b);
    return open(f.path[1], O_RDWR | O_CLOEXEC);
}

static void test_refused(void **state)
{
    uint64_t size;
    int fd;

    attach(IMAGE_RAW);
    work(10);
    refuse(made(DISK - 512, f.path[0], IMAGE_RAW, 0), "bytes, but the disk under it");
    refuse(made(DISK, f.path[0], IMAGE_QCOW2, 0), "must have a backing file");
    refuse(made(DISK, NULL, IMAGE_FORMAT_NONE, 0), "must have a backing file");
    refuse(made(DISK, f.path[0], IMAGE_RAW, 1), "holds data already");
    refuse(open(f.path[0], O_RDWR | O_CLOEXEC), "in use");
    refuse(open("/dev/null", O_RDWR | O_CLOEXEC), "");
    close(made(DISK, f.path[0], IMAGE_RAW, 0));
    fd = block_file_open(f.path[1], true, &size, NULL);
    assert_true(fd >= 0);
    refuse(open(f.path[1], O_RDWR | O_CLOEXEC), "in use");
    close(fd);
    refuse(open(f.path[1], O_RDONLY | O_CLOEXEC), "");
    unlink(f.path[1]);
    overlay_next();
    work(3);
    detach();
    clean_up();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_raw),
        cmocka_unit_test(test_qcow2),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
