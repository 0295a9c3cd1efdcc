/* The virtio file system device: a folder of the host for the guest (`mount -t virtiofs TAG /mnt`). */
#ifndef VITRO_VIRTIO_FS_H
#define VITRO_VIRTIO_FS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/pool.h"
#include "bus/device.h"
#include "share/share.h"
#include "virtio/pci.h"

#define VIRTIO_FS_TAG        SHARE_TAG
#define VIRTIO_FS_QUEUES     8  /* for requests */
#define VIRTIO_FS_SPARE      4
#define VIRTIO_FS_CONFIG_LEN (VIRTIO_FS_TAG + 4)

struct virtio_fs_req;

struct virtio_fs {
    struct virtio_pci vp;
    struct share *share; /* borrowed */
    struct pool *pool; /* apart, since its threads live while the state is loaded over all of this */
    struct timer again; /* continues what a queue's budget cut short */
    uint8_t config[VIRTIO_FS_CONFIG_LEN];
    uint16_t queues;  /* with the one for urgent requests */
    bool mounted;     /* described state; true: the guest has a session, which is in virtio_fs_more */
    bool ended;       /* the session of an old life is still to be dropped */
    uint64_t life;    /* counts resets: requests of another life are dropped */
    unsigned current; /* requests under way of this life, and of earlier ones */
    unsigned stale;
    uint64_t bytes;  /* buffers of all that is under way */
    struct virtio_fs_req *spare[VIRTIO_FS_SPARE]; /* large buffers for the next request: fresh memory is slow */
    uint64_t pushed; /* queues with chains to tell the driver about */
};

extern const struct device_ops virtio_fs_ops; /* type "virtio-fs" */

struct virtio_fs_setup {
    struct share *share; /* borrowed; outlives the device */
    struct loop *loop;
    struct ram *ram;
    apic_deliver_fn deliver;
    void *deliver_opaque;
    const char *name; /* borrowed, for logs */
    const char *tag;  /* 1 to VIRTIO_FS_TAG bytes: what the guest mounts it by */
    unsigned queues;  /* for requests: 1 to VIRTIO_FS_QUEUES */
};

/* Not plugged yet: pci_dev_plug(&f->vp.pci, ...) follows. 0 or -errno. virtio_fs_ops.destroy undoes it: it waits
 * for what is under way, and leaves the share open. */
int virtio_fs_init(struct virtio_fs *f, const struct virtio_fs_setup *setup);

#endif
