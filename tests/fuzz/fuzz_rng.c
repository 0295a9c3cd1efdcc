/* A hostile driver of the entropy device, with a source that sometimes has none. In no 100 ms of guest time are more bytes
 * drawn than the device's rate allows, and what is drawn goes to the guest. */
#include "fuzz.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vbench.h"
#include "virtio/rng.h"

#define BURST 65536U /* of rng.c */

struct bench {
    struct vbench *b;
    struct rand_source rand;
    struct virtio_rng dev, other;
    uint64_t period; /* of guest time */
    size_t drawn;    /* in it */
    bool dry;
};

static struct bench *current;

static int source(struct rand_source *r, void *buf, size_t len)
{
    uint64_t now = clock_ns(&current->b->clock) / 100000000;

    FUZZ_CHECK(len && len <= 4096);
    if (current->dry)
        return -EIO;
    if (now != current->period)
        current->drawn = 0;
    current->period = now;
    current->drawn += len;
    FUZZ_CHECK(current->drawn <= 2 * BURST); /* the rest of one period's, and the next one's */
    memset(buf, 0xa5, len);
    return 0;
}

static void extra(void *opaque, struct fuzz_input *in)
{
    ((struct bench *)opaque)->dry = fuzz_take(in, 1) & 1;
}

static void check(void *opaque)
{
    struct bench *t = opaque;

    FUZZ_CHECK((t->dev.vp.status & VIRTIO_NEEDS_RESET) || t->dev.vp.vq[0].held == 0);
    FUZZ_CHECK(t->dev.credit <= BURST);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bench *t = calloc(1, sizeof(*t));
    struct vbench_target target = {
        .ops = &virtio_rng_ops, .queue = { 0 }, .queues = 1, .extra = extra, .check = check,
    };

    FUZZ_CHECK(t);
    current = t;
    t->b = vbench_open();
    t->rand.fill = source;
    FUZZ_CHECK(virtio_rng_init(&t->dev, &t->rand, &t->b->loop, &t->b->ram, vbench_deliver, t->b) == 0);
    FUZZ_CHECK(virtio_rng_init(&t->other, &t->rand, &t->b->loop, &t->b->ram, vbench_deliver, t->b) == 0);
    target.vp = &t->dev.vp;
    target.dev = &t->dev;
    target.other = &t->other;
    target.opaque = t;
    vbench_run(t->b, &target, data, size);
    vbench_close(t->b);
    free(t);
    return 0;
}

/* A driver that asks for more than there is, waits, and asks again. */
size_t fuzz_seed(unsigned n, uint8_t *buf, size_t size)
{
    struct vbench_seed s = { .buf = buf };

    if (n >= 8)
        return 0;
    vbench_say_go(&s, 4 << 2 | (n & 3), 0);
    for (unsigned i = 0; i < 6; i++) {
        vbench_say_chain(&s, 0, VBENCH_DATA, n & 4 ? 0x5000 : 64, i != 5);
        vbench_say_op(&s, VB_KICK, 0);
        vbench_say_op(&s, VB_STEP, 60);
    }
    vbench_say(&s, (uint8_t[]){ VB_EXTRA, 1, VB_PAUSE, VB_EXTRA, 0 }, 5);
    vbench_say_op(&s, VB_STEP, 200);
    return s.len;
}
