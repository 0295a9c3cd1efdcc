/* The virtio entropy device: randomness from the host. */
#ifndef VITRO_VIRTIO_RNG_H
#define VITRO_VIRTIO_RNG_H

#include <stdint.h>

#include "base/loop.h"
#include "base/rand.h"
#include "bus/device.h"
#include "virtio/limit.h"
#include "virtio/pci.h"

struct virtio_rng {
    struct virtio_pci vp;
    struct rand_source *rand; /* borrowed */
    struct timer refill, again; /* again: what a limit cut short */
    uint32_t credit; /* bytes that it may give now; described state */
    struct limit limit; /* the user's, beside that */
};

extern const struct device_ops virtio_rng_ops; /* type "virtio-rng" */

/* Not plugged yet. 0 or -errno. rand is borrowed. */
int virtio_rng_init(struct virtio_rng *g, struct rand_source *rand, struct loop *loop, struct ram *ram,
                    apic_deliver_fn deliver, void *deliver_opaque);

/* Other limits from now on, see limit_set(). Device lock held. */
void virtio_rng_limit(struct virtio_rng *g, const struct limit_rate *bytes, const struct limit_rate *ops);

#endif
