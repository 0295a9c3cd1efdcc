/* The virtio memory balloon: the guest gives memory back when it is asked to, and reports pages that it does
 * not use. */
#ifndef VITRO_VIRTIO_BALLOON_H
#define VITRO_VIRTIO_BALLOON_H

#include <stdbool.h>
#include <stdint.h>

#include "base/loop.h"
#include "bus/device.h"
#include "virtio/pci.h"

/* Statistics by tag (virtio 1.2, 5.5.6.3). */
enum balloon_stat {
    BALLOON_SWAP_IN,
    BALLOON_SWAP_OUT,
    BALLOON_MAJOR_FAULTS,
    BALLOON_MINOR_FAULTS,
    BALLOON_FREE,
    BALLOON_TOTAL,
    BALLOON_AVAILABLE,
    BALLOON_CACHES,
    BALLOON_HUGE_ALLOC,
    BALLOON_HUGE_FAIL,
    BALLOON_STATS
};

struct virtio_balloon {
    struct virtio_pci vp;
    uint8_t config[16]; /* described state: target and actual size, page poison */
    struct timer again;
    /* What the guest said last, and when (guest ns); not state. A value that it did not give is UINT64_MAX.
     */
    uint64_t stat[BALLOON_STATS], stat_time;
    uint64_t given_back; /* bytes, since the machine was made: inflated and reported; not state */
};

extern const struct device_ops virtio_balloon_ops; /* type "virtio-balloon" */

/* Not plugged yet. 0 or -errno. */
int virtio_balloon_init(struct virtio_balloon *b, struct loop *loop, struct ram *ram, apic_deliver_fn deliver,
                        void *deliver_opaque);

/* All with the device lock held. Ask the guest to keep so many bytes in the balloon; it may need time, or
 * never do it. */
void virtio_balloon_set(struct virtio_balloon *b, uint64_t bytes);
/* How many bytes the guest says are in it. */
uint64_t virtio_balloon_size(const struct virtio_balloon *b);
/* Ask for statistics: b->stat_time changes when they have come. False: the guest gives none. */
bool virtio_balloon_poll(struct virtio_balloon *b);

#endif
