/* A hostile driver of the virtio file system device: registers, rings and messages from the input, resets and pauses with requests
 * under way. The share's own messages are fuzz_share's; here it is what lies around them. */
#include "fuzz.h"

#include <linux/fuse.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/err.h"
#include "vbench.h"
#include "virtio/fs.h"

static char folder[64]; /* an empty one: what messages make in it goes when the process ends */

struct bench {
    struct vbench *b;
    struct virtio_fs dev, other;
    struct share *share[2];
};

static void clean(void)
{
    rmdir(folder);
}

static void make(struct bench *t, struct virtio_fs *f, struct share **share)
{
    struct share_options o = { .path = folder, .ro = true, .max_nodes = 8, .max_handles = 8 };
    struct virtio_fs_setup setup = {
        .loop = &t->b->loop,
        .ram = &t->b->ram,
        .deliver = vbench_deliver,
        .deliver_opaque = t->b,
        .name = "fuzz",
        .tag = "fuzz",
        .queues = 2,
    };
    struct err err = { "" };

    FUZZ_CHECK(share_open(share, &o, &err) == 0);
    setup.share = *share;
    FUZZ_CHECK(virtio_fs_init(f, &setup) == 0);
}

/* Paused: nothing is under way. */
static void check(void *opaque)
{
    struct bench *t = opaque;

    FUZZ_CHECK(t->dev.current == 0 && t->dev.stale == 0 && t->dev.bytes == 0 && t->dev.pushed == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bench *t = calloc(1, sizeof(*t));
    struct vbench_target target = {
        .ops = &virtio_fs_ops, .queue = { 0, 1, 2 }, .queues = 3, .features = { 0, 0, 0, 0 }, .check = check
    };

    FUZZ_CHECK(t);
    if (!folder[0]) {
        strcpy(folder, "/tmp/vitro-fuzz-fs-XXXXXX");
        FUZZ_CHECK(mkdtemp(folder));
        atexit(clean);
    }
    t->b = vbench_open();
    make(t, &t->dev, &t->share[0]);
    make(t, &t->other, &t->share[1]);
    target.vp = &t->dev.vp;
    target.dev = &t->dev;
    target.other = &t->other;
    target.opaque = t;
    vbench_run(t->b, &target, data, size);
    share_close(t->share[0]);
    share_close(t->share[1]);
    vbench_close(t->b);
    free(t);
    return 0;
}

static void say_message(struct vbench_seed *s, uint8_t ring, uint8_t op, const void *arg, uint8_t len)
{
    struct fuse_in_header h = { .len = (uint32_t)sizeof(h) + len, .opcode = op, .nodeid = 1, .unique = 9 };
    uint8_t all[200];

    memcpy(all, &h, sizeof(h));
    memcpy(all + sizeof(h), arg, len);
    vbench_say_ram(s, VBENCH_DATA, all, (uint8_t)h.len);
    uint8_t chain[] = { VB_CHAIN, ring, 2, VBENCH_DATA & 0xff, VBENCH_DATA >> 8, (uint8_t)h.len, 0, 1,
                        (VBENCH_DATA + 0x1000) >> 8, 0, 4 };
    vbench_say(s, chain, sizeof(chain));
    vbench_say_op(s, VB_KICK, ring);
}

/* A driver that comes up, both forms of ring; a session with a bit of everything. */
size_t fuzz_seed(unsigned n, uint8_t *buf, size_t size)
{
    struct vbench_seed s = { .buf = buf };
    struct fuse_init_in init = { .major = 7, .minor = 36, .flags = ~0U };
    uint64_t zero[5] = { 0, 0, 4096 };

    if (n >= 4)
        return 0;
    vbench_say_go(&s, 4 << 2 | n, 0);
    say_message(&s, 1, FUSE_INIT, &init, sizeof(init));
    vbench_say_op(&s, VB_STEP, 1);
    say_message(&s, 1, FUSE_LOOKUP, "name", 5);
    say_message(&s, 2, FUSE_OPENDIR, zero, 8);
    vbench_say_op(&s, VB_STEP, 1);
    say_message(&s, 2, FUSE_READDIR, zero, sizeof(zero));
    say_message(&s, 0, FUSE_FORGET, zero, 8);
    vbench_say(&s, (uint8_t[]){ VB_PAUSE }, 1);
    say_message(&s, 1, FUSE_STATFS, zero, 0);
    vbench_say(&s, (uint8_t[]){ VB_RESET }, 1);
    return s.len;
}
