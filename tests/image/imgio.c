/* Random work on a qcow2 image, the same on a plain file beside it: tests/image/run compares them with QEMU's
 * tools.
 *
 * usage: imgio [--seed N] [--ops N] [--forever] [--backing FILE,FORMAT] IMAGE MIRROR
 *
 * MIRROR is as large as the disk and holds what the disk holds now. Discards are whole clusters, which read
 * as zeroes then. --forever: goes on until it is killed, flushing now and then; each flush is told as a line
 * "flushed".
 */
#include <fcntl.h>
#include <getopt.h>
#include <stdbool.h>
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

static void die(const char *what)
{
    fprintf(stderr, "imgio: %s\n", what);
    exit(1);
}

struct work {
    struct block *disk;
    int mirror;
    struct rand_source rand;
    uint64_t csize;
};

static void mirror_write(struct work *w, const void *buf, uint64_t len, uint64_t off)
{
    if (pwrite(w->mirror, buf, len, (off_t)off) != (ssize_t)len)
        die("the mirror cannot be written");
}

static void work_read(struct work *w, uint64_t off, uint64_t len, uint8_t *a, uint8_t *b)
{
    if (block_read(w->disk, off, a, len) < 0 || pread(w->mirror, b, len, (off_t)off) != (ssize_t)len)
        die("a read failed");
    if (memcmp(a, b, len))
        die("the disk does not hold what was written");
}

/* One random operation on both. */
static void work_step(struct work *w, uint8_t *a, uint8_t *b, uint64_t most)
{
    uint64_t off = ALIGN_DOWN(rand_below(&w->rand, w->disk->size), BLOCK_SECTOR),
             pick = rand_below(&w->rand, 16);
    uint64_t left = w->disk->size - off,
             len = ALIGN_UP(1 + rand_below(&w->rand, left < most ? left : most), 512);
    int r = 0;

    len = len < left ? len : left;
    if (pick < 9) {
        memset(a, (int)(1 + rand_below(&w->rand, 255)), len);
        r = block_write(w->disk, off, a, len);
        mirror_write(w, a, len, off);
    } else if (pick < 12) {
        off = pick == 11 ? off : ALIGN_DOWN(off, w->csize);
        len = pick == 11 ? len : ALIGN_UP(len, w->csize);
        len = len < w->disk->size - off ? len : w->disk->size - off;
        memset(a, 0, len);
        r = pick == 11 ? block_write_zeroes(w->disk, off, len, true) : block_discard(w->disk, off, len);
        mirror_write(w, a, len, off);
    } else if (pick < 15) {
        work_read(w, off, len, a, b);
    } else {
        r = block_flush(w->disk);
    }
    if (r < 0)
        die("an operation failed");
}

static void work_run(struct work *w, uint64_t ops, bool for_ever)
{
    uint64_t most = 4 * w->csize < 65536 ? 65536 : 4 * w->csize;
    uint8_t *a = malloc(most + w->csize), *b = malloc(most + w->csize);

    if (!a || !b)
        die("out of memory");
    for (uint64_t i = 0; for_ever || i < ops; i++) {
        work_step(w, a, b, most);
        if (!for_ever || i % 8)
            continue;
        if (block_flush(w->disk) < 0)
            die("a flush failed");
        puts("flushed");
        fflush(stdout);
    }
    free(a);
    free(b);
}

int main(int argc, char **argv)
{
    static const struct option longs[] = { { "seed", 1, NULL, 's' },
                                           { "ops", 1, NULL, 'o' },
                                           { "forever", 0, NULL, 'f' },
                                           { "backing", 1, NULL, 'b' },
                                           { NULL, 0, NULL, 0 } };
    struct image_backing backing = { NULL };
    struct image_opts o = { .format = IMAGE_QCOW2, .allow_backing = true };
    struct work w = { .mirror = -1 };
    uint64_t seed = 1, ops = 200;
    bool for_ever = false;
    struct err err = { "" };
    int c;

    while ((c = getopt_long(argc, argv, "", longs, NULL)) >= 0) {
        if (c == 's')
            seed = strtoull(optarg, NULL, 0);
        else if (c == 'o')
            ops = strtoull(optarg, NULL, 0);
        else if (c == 'f')
            for_ever = true;
        else if (c == 'b' && strchr(optarg, ',')) {
            char *comma = strchr(optarg, ',');

            *comma = '\0';
            backing = (struct image_backing){ optarg, image_format_named(comma + 1) };
            o.backing = &backing;
            o.backings = 1;
        } else
            die("bad option");
    }
    if (argc - optind != 2)
        die("give an image and its mirror");
    if (image_open(&w.disk, argv[optind], &o, &err) < 0)
        die(err.text);
    w.mirror = open(argv[optind + 1], O_RDWR | O_CLOEXEC);
    w.csize = 1ULL << qcow2_info_of(w.disk)->cluster_bits;
    if (w.mirror < 0)
        die("the mirror cannot be opened");
    rand_init_seeded(&w.rand, seed);
    work_run(&w, ops, for_ever);
    if (block_flush(w.disk) < 0)
        die("the last flush failed");
    block_close(w.disk);
    return 0;
}
