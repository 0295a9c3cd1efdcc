/* A hostile driver of the balloon: lists of pages, reports and statistics of any shape, targets set from
 * outside in between. */
#include "fuzz.h"

#include <stdlib.h>

#include "vbench.h"
#include "virtio/balloon.h"

struct bench {
    struct vbench *b;
    struct virtio_balloon dev, other;
};

/* u8: what; u32: a target */
static void extra(void *opaque, struct fuzz_input *in)
{
    struct bench *t = opaque;

    if (fuzz_take(in, 1) & 1)
        virtio_balloon_poll(&t->dev);
    else
        virtio_balloon_set(&t->dev, fuzz_take(in, 4) << 8);
}

/* No chain is ever kept. */
static void check(void *opaque)
{
    struct bench *t = opaque;

    for (unsigned n = 0; n < 4; n++)
        FUZZ_CHECK((t->dev.vp.status & VIRTIO_NEEDS_RESET) || t->dev.vp.vq[n].held == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bench *t = calloc(1, sizeof(*t));
    struct vbench_target target = {
        .ops = &virtio_balloon_ops,
        .queue = { 0, 1, 2, 3 },
        .queues = 4,
        .features = { 0x36, 0x22, 2, 0 },
        .extra = extra,
        .check = check,
    };

    FUZZ_CHECK(t);
    t->b = vbench_open();
    FUZZ_CHECK(virtio_balloon_init(&t->dev, &t->b->loop, &t->b->ram, vbench_deliver, t->b) == 0);
    FUZZ_CHECK(virtio_balloon_init(&t->other, &t->b->loop, &t->b->ram, vbench_deliver, t->b) == 0);
    target.vp = &t->dev.vp;
    target.dev = &t->dev;
    target.other = &t->other;
    target.opaque = t;
    vbench_run(t->b, &target, data, size);
    vbench_close(t->b);
    free(t);
    return 0;
}

size_t fuzz_seed(unsigned n, uint8_t *buf, size_t size)
{
    static const uint32_t pages[] = { 0xa, 0xb, 0xd, 0xf, 0x10, 0xffffffff };
    struct vbench_seed s = { .buf = buf };

    if (n >= 8)
        return 0;
    vbench_say_go(&s, 4 << 2 | (n & 3), n >> 2);
    vbench_say_ram(&s, VBENCH_DATA, pages, sizeof(pages));
    for (uint8_t ring = 0; ring < 4; ring++) {
        vbench_say_chain(&s, ring, VBENCH_DATA, ring == 3 ? 0x3000 : sizeof(pages), ring == 3);
        vbench_say_op(&s, VB_KICK, ring);
    }
    vbench_say(&s, (uint8_t[]){ VB_EXTRA, 1, VB_EXTRA, 0, 0, 0, 1, 0, VB_PAUSE }, 9);
    return s.len;
}
