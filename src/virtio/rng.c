/* Models: the virtio entropy device.
 * Source: virtio 1.2, 5.4.
 * Runs on: vCPU threads (kicks) and the loop's thread (refill), under the device lock.
 *
 * The rate is bounded: RNG_BURST bytes at once and as many each RNG_PERIOD of guest time, 640 KiB/s. A guest
 * that wants more waits; the monitor does not work for it meanwhile. The user may set narrower limits (limit.h).
 */
#include "virtio/rng.h"

#include <errno.h>
#include <string.h>

#include "base/err.h"

#define RNG_BURST    65536U
#define RNG_PERIOD   (100 * 1000000ULL)
#define RNG_CHUNK    4096U
#define RNG_MIN_COST 64U

/* Fill a chain from the front as far as the credit goes; returns how many bytes. */
static uint32_t rng_fill(struct virtio_rng *g, const struct vq_chain *c)
{
    uint8_t buf[RNG_CHUNK];
    uint32_t done = 0;

    while (done < c->write_len && g->credit) {
        uint32_t n = c->write_len - done;
        if (n > sizeof(buf))
            n = sizeof(buf);
        if (n > g->credit)
            n = g->credit;
        if (rand_bytes(g->rand, buf, n) < 0)
            break;
        vq_chain_write(c, done, buf, n);
        g->credit -= n;
        done += n;
    }
    return done;
}

static void rng_run(struct virtio_rng *g)
{
    struct vq *q = &g->vp.vq[0];
    struct vq_chain c;

    if (!virtio_is_live(&g->vp))
        return;
    while (g->credit && !limit_is_over(&g->limit, &g->again) && vq_pop(q, &c) > 0) {
        uint32_t n;
        if (c.read_len || !c.write_len) {
            virtio_needs_reset(&g->vp, "rng: buffer that is not for writing");
            return;
        }
        n = rng_fill(g, &c);
        if (!n) { /* the host has no randomness now: try again later */
            vq_unpop(q, &c);
            break;
        }
        if (n < RNG_MIN_COST) /* many small requests are work too */
            g->credit -= g->credit < RNG_MIN_COST - n ? g->credit : RNG_MIN_COST - n;
        limit_take(&g->limit, n);
        vq_push(q, &c, n);
    }
    virtio_notify(&g->vp, 0);
    if (g->credit < RNG_BURST && !timer_armed(&g->refill))
        timer_arm(&g->refill, timer_now(&g->refill) + RNG_PERIOD);
}

static void rng_on_refill(void *opaque)
{
    struct virtio_rng *g = opaque;

    g->credit = RNG_BURST;
    rng_run(g);
}

static void rng_on_again(void *opaque) { rng_run(opaque); }

static void rng_notify(void *dev, unsigned queue) { rng_run(dev); }
static void rng_start(void *dev) { rng_run(dev); }

static const struct virtio_ops rng_virtio_ops = { .start = rng_start, .notify = rng_notify };

int virtio_rng_init(struct virtio_rng *g, struct rand_source *rand, struct loop *loop, struct ram *ram,
                    apic_deliver_fn deliver, void *deliver_opaque)
{
    struct virtio_setup setup = {
        .name = "virtio-rng",
        .ops = &rng_virtio_ops,
        .dev = g,
        .id = VIRTIO_ID_RNG,
        .class_code = 0xff,
        .queues = 1,
        .queue_size = 64,
        .ram = ram,
        .deliver = deliver,
        .deliver_opaque = deliver_opaque,
    };

    memset(g, 0, sizeof(*g));
    g->rand = rand;
    g->credit = RNG_BURST;
    timer_init(&g->refill, loop, rng_on_refill, g);
    timer_init(&g->again, loop, rng_on_again, g);
    return virtio_pci_init(&g->vp, &setup);
}

/* A machine that stands looks at its queue when it goes on. */
void virtio_rng_limit(struct virtio_rng *g, const struct limit_rate *bytes, const struct limit_rate *ops)
{
    limit_set(&g->limit, bytes, ops, timer_now(&g->again));
    if (virtio_is_live(&g->vp) && !clock_stopped(g->again.loop->clock))
        timer_arm(&g->again, timer_now(&g->again));
}

static void rng_pause(void *dev)
{
    struct virtio_rng *g = dev;

    timer_cancel(&g->refill);
    timer_cancel(&g->again);
}

static void rng_reset(void *dev)
{
    struct virtio_rng *g = dev;

    virtio_pci_reset(&g->vp);
    rng_pause(g);
    g->credit = RNG_BURST;
}

static void rng_resume(void *dev)
{
    struct virtio_rng *g = dev;

    virtio_pci_resume(&g->vp);
    if (g->credit < RNG_BURST)
        timer_arm(&g->refill, timer_now(&g->refill) + RNG_PERIOD);
    rng_run(g);
}

static void rng_destroy(void *dev)
{
    struct virtio_rng *g = dev;

    rng_pause(g);
    pci_dev_unplug(&g->vp.pci);
}

static int rng_check(void *obj, struct err *err)
{
    const struct virtio_rng *g = obj;
    return g->credit > RNG_BURST ? err_set(err, EINVAL, "virtio-rng: impossible credit") : 0;
}

static const struct state_field rng_fields[] = {
    STATE_FSTRUCT(struct virtio_rng, vp, struct virtio_pci, virtio_pci_state),
    STATE_F32(struct virtio_rng, credit),
    { "limit", STATE_STRUCT, offsetof(struct virtio_rng, limit), 1, sizeof(struct limit), &limit_state, .since = 2 },
    STATE_END,
};
static const struct state_desc rng_state = { .name = "virtio-rng",
                                             .version = 2,
                                             .size = sizeof(struct virtio_rng),
                                             .fields = rng_fields,
                                             .check = rng_check };

const struct device_ops virtio_rng_ops = {
    .type = "virtio-rng",
    .reset = rng_reset,
    .pause = rng_pause,
    .resume = rng_resume,
    .destroy = rng_destroy,
    .state = &rng_state,
};
