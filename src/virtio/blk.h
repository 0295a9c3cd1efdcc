/* The virtio block device: a disk for the guest. */
#ifndef VITRO_VIRTIO_BLK_H
#define VITRO_VIRTIO_BLK_H

#include <stdbool.h>
#include <stdint.h>

#include "block/block.h"
#include "bus/device.h"
#include "virtio/limit.h"
#include "virtio/pci.h"

#define VIRTIO_BLK_QUEUES     16
#define VIRTIO_BLK_SERIAL     20
#define VIRTIO_BLK_CONFIG_LEN 60

struct virtio_blk_req;

/* What was done since the machine was made. */
struct virtio_blk_counts {
    uint64_t reads, writes, flushes, discards, errors; /* requests */
    uint64_t read_bytes, written_bytes;
};

struct virtio_blk {
    struct virtio_pci vp;
    struct block *block; /* borrowed */
    struct block_io *io; /* apart, since its threads live while the state is loaded over all of this */
    struct timer again; /* continues what a queue's budget or a limit cut short */
    struct limit limit;
    uint8_t config[VIRTIO_BLK_CONFIG_LEN];
    char serial[VIRTIO_BLK_SERIAL];
    uint16_t queues;
    bool write_through; /* the driver turned the write cache off */
    _Atomic uint64_t life; /* counts resets: requests of another life are dropped */
    pthread_rwlock_t
        dma;          /* Shared: an I/O thread copies from or to guest memory, or the host does; alone: a new life */
    unsigned current; /* requests under way of this life, and of earlier ones */
    unsigned stale;
    struct virtio_blk_counts counts; /* not state */
    uint32_t at_once;                /* bytes that this kick may still read by itself */
    uint64_t pushed;                 /* queues with chains to tell the driver about */
};

extern const struct device_ops virtio_blk_ops; /* type "virtio-blk" */

struct virtio_blk_setup {
    struct block *block; /* borrowed; outlives the device */
    struct loop *loop;
    struct ram *ram;
    apic_deliver_fn deliver;
    void *deliver_opaque;
    const char *name;   /* borrowed, for logs */
    const char *serial; /* at most 20 bytes count; what the guest sees as the disk's serial number */
    unsigned queues;    /* 1 to VIRTIO_BLK_QUEUES */
    enum block_aio aio;
    struct limit_rates limit;
};

/* Not plugged yet: pci_dev_plug(&b->vp.pci, ...) follows. 0 or -errno. virtio_blk_ops.destroy undoes it: it
 * waits for what is under way, and leaves the disk open. */
int virtio_blk_init(struct virtio_blk *b, const struct virtio_blk_setup *setup);

/* The disk is another one from now on, with the same size and contents. Device lock held, the device is paused. */
void virtio_blk_switch(struct virtio_blk *b, struct block *block);

/* Another disk from now on, of another size perhaps, which the driver is told. The same. */
void virtio_blk_change(struct virtio_blk *b, struct block *block);

/* Other limits from now on, see limit_set(). Device lock held. */
void virtio_blk_limit(struct virtio_blk *b, const struct limit_rate *bytes, const struct limit_rate *ops);

#endif
