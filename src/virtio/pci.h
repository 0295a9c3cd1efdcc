/* virtio over PCI: the transport under every virtio device.
 *
 * A device brings a table of operations; the transport has the queues, the status and feature negotiation,
 * the configuration structures and the interrupts:
 *
 *     virtio_pci_init(&d->vp, &setup)        queues, features, size of the device's configuration space
 *     ops->start(dev)                        the driver said DRIVER_OK: queues may be used from now on
 *     ops->notify(dev, n)                    the driver kicked queue n (only while virtio_is_live())
 *     virtio_notify(vp, n)                   after vq_push(): interrupt if the driver wants one
 *     ops->reset(dev)                        forget everything; chains that the device holds are void
 *
 * A reset (by the driver or the machine) never waits: what is in flight on the host belongs to the device's
 * old life, and its results are dropped. A device that has such work must not start new work on the host
 * before the old has ended, see blk.c.
 *
 * Threads: everything with the device lock held.
 */
#ifndef VITRO_VIRTIO_PCI_H
#define VITRO_VIRTIO_PCI_H

#include <stdbool.h>
#include <stdint.h>

#include "bus/apic_msg.h"
#include "bus/device.h"
#include "pci/host.h"
#include "pci/msix.h"
#include "pci/pci.h"
#include "virtio/queue.h"

#define VIRTIO_MAX_QUEUES 64
#define VIRTIO_CONFIG_MAX 256 /* bytes of a device's own configuration space */

/* Device status bits (virtio 1.2, 2.1). */
enum {
    VIRTIO_ACKNOWLEDGE = 1,
    VIRTIO_DRIVER = 2,
    VIRTIO_DRIVER_OK = 4,
    VIRTIO_FEATURES_OK = 8,
    VIRTIO_NEEDS_RESET = 64,
    VIRTIO_FAILED = 128,
};

/* Device ids (virtio 1.2, chapter 5). */
enum {
    VIRTIO_ID_NET = 1,
    VIRTIO_ID_BLOCK = 2,
    VIRTIO_ID_CONSOLE = 3,
    VIRTIO_ID_RNG = 4,
    VIRTIO_ID_BALLOON = 5,
    VIRTIO_ID_VSOCK = 19,
    VIRTIO_ID_FS = 26
};

struct virtio_pci;

/* All but notify may be NULL. */
struct virtio_ops {
    void (*start)(void *dev);
    void (*notify)(void *dev, unsigned queue);
    void (*reset)(void *dev);
    /* The driver wrote value (size 1, 2 or 4 bytes at its natural place) to its configuration space. */
    void (*config_write)(void *dev, unsigned off, uint32_t value, unsigned size);
};

/* What a device is; copied, but for the pointers. */
struct virtio_setup {
    const char *name;
    const struct virtio_ops *ops;
    void *dev;
    uint16_t id;                  /* VIRTIO_ID_* */
    uint8_t class_code, subclass; /* PCI */
    uint16_t queues;              /* 1 to VIRTIO_MAX_QUEUES */
    uint16_t queue_size;          /* at most VQ_MAX_SIZE, a power of two */
    uint64_t features;            /* the device's own; those of rings and transport are added */
    const uint8_t *config;        /* the configuration space, borrowed: the device changes it in place */
    unsigned config_len;          /* at most VIRTIO_CONFIG_MAX */
    struct ram *ram;
    apic_deliver_fn deliver; /* takes MSI-X messages */
    void *deliver_opaque;
};

struct virtio_pci {
    struct pci_dev pci;
    struct msix msix;
    struct vq vq[VIRTIO_MAX_QUEUES];
    struct virtio_setup setup;
    uint64_t offered;  /* what we can do */
    uint64_t accepted; /* what the driver wants; fixed from FEATURES_OK on */
    uint32_t offered_select, accepted_select;
    uint16_t queue_select, config_vector;
    uint8_t status, isr, config_generation;
    unsigned cfg_cap; /* where VIRTIO_PCI_CAP_PCI_CFG is in configuration space */
};

/* For the owner's state: STATE_FSTRUCT(T, vp, struct virtio_pci, virtio_pci_state). */
extern const struct state_desc virtio_pci_state;

/* 0, -EINVAL, -ENOSPC. Then pci_dev_plug(&vp->pci, ...). */
int virtio_pci_init(struct virtio_pci *vp, const struct virtio_setup *setup);

/* From the owner's device_ops: power-on reset (calls ops->reset), and after a loaded state or a pause. After
 * virtio_pci_resume() the owner looks at its queues, as kicks may have been lost. */
void virtio_pci_reset(struct virtio_pci *vp);
void virtio_pci_resume(struct virtio_pci *vp);

/* The driver is ready and the device is in order. */
bool virtio_is_live(const struct virtio_pci *vp);
/* The driver took the feature (a mask). */
static inline bool virtio_has(const struct virtio_pci *vp, uint64_t feature)
{
    return vp->accepted & feature;
}

/* Interrupt for queue n, if the driver wants one for what was pushed. */
void virtio_notify(struct virtio_pci *vp, unsigned n);
/* The configuration space has changed: new generation, interrupt. */
void virtio_config_changed(struct virtio_pci *vp);
/* The driver broke a rule: DEVICE_NEEDS_RESET, and nothing moves until then. why is for the log. */
void virtio_needs_reset(struct virtio_pci *vp, const char *why);

#endif
