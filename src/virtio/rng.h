/* The virtio entropy device: randomness from the host. */
#ifndef VITRO_VIRTIO_RNG_H
#define VITRO_VIRTIO_RNG_H

#include <stdint.h>

#include "base/loop.h"
#include "base/rand.h"
#include "bus/device.h"
#include "virtio/pci.h"

struct virtio_rng {
    struct virtio_pci vp;
    struct rand_source *rand; /* borrowed */
    struct timer refill;
    uint32_t credit; /* bytes that it may give now; described state */
};

extern const struct device_ops virtio_rng_ops; /* type "virtio-rng" */

/* Not plugged yet. 0 or -errno. rand is borrowed. */
int virtio_rng_init(struct virtio_rng *g, struct rand_source *rand, struct loop *loop, struct ram *ram,
                    apic_deliver_fn deliver, void *deliver_opaque);

#endif
