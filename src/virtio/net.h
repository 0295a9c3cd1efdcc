/* The virtio network card. */
#ifndef VITRO_VIRTIO_NET_H
#define VITRO_VIRTIO_NET_H

#include <stdbool.h>
#include <stdint.h>

#include "base/loop.h"
#include "bus/device.h"
#include "net/net.h"
#include "virtio/limit.h"
#include "virtio/pci.h"

#define VIRTIO_NET_PAIRS      8
#define VIRTIO_NET_MACS       64 /* addresses that the driver may list */
#define VIRTIO_NET_CONFIG_LEN 12
#define VIRTIO_NET_FLOWS      256

/* What the driver wants to receive (virtio 1.2, 5.1.6.5.1 to 5.1.6.5.3). */
struct virtio_net_filter {
    bool promisc, allmulti, alluni, nomulti, nouni, nobcast;
    uint8_t mac[VIRTIO_NET_MACS][6];
    uint8_t macs;
    bool uni_overflow, multi_overflow; /* it listed more than we keep: take all */
    uint8_t vlan[4096 / 8];
};

struct virtio_net {
    struct virtio_pci vp;
    struct net_peer *peer; /* borrowed */
    struct loop *loop;
    struct timer again; /* continues what the control queue's budget cut short */
    uint8_t config[VIRTIO_NET_CONFIG_LEN];
    uint8_t first_mac[6]; /* what a reset brings back */
    uint16_t max_pairs, pairs;
    uint64_t guest_offloads; /* feature bits of what the driver wants to receive now */
    struct virtio_net_filter filter;
    bool link;     /* wanted: false is a pulled cable */
    bool announce; /* the driver shall tell the network where it is */
    struct limit rx, tx; /* what it receives, and sends: frames, with their headers */
    struct timer wake;   /* when a limit lets more pass */
    /* Not state. */
    bool paused;
    uint32_t pushed;                /* queues with chains to tell the driver about */
    uint8_t flow[VIRTIO_NET_FLOWS]; /* the pair on which each flow was sent last */
    unsigned next_pair;             /* where the next batch begins */
    struct vq_chain chain, first;   /* under the device lock: too large for a stack */
    uint8_t *scratch;               /* NET_FRAME_MAX bytes, for cutting */
    uint64_t sent, received, dropped, sent_bytes, received_bytes;
};

extern const struct device_ops virtio_net_ops; /* type "virtio-net" */
/* For net_start(), with the virtio_net as opaque: called by the port's thread without the device lock. */
extern const struct net_client_ops virtio_net_client;

struct virtio_net_setup {
    struct net_peer *peer; /* borrowed; outlives the device */
    struct loop *loop;
    struct ram *ram;
    apic_deliver_fn deliver;
    void *deliver_opaque;
    const char *name; /* borrowed, for logs */
    uint8_t mac[6];
    unsigned queues; /* pairs: 1 to VIRTIO_NET_PAIRS */
    struct limit_rates rx, tx;
};

/* Not plugged yet: pci_dev_plug(&v->vp.pci, ...) follows. 0 or -errno. Before virtio_net_ops.destroy the port's
 * thread has ended. */
int virtio_net_init(struct virtio_net *v, const struct virtio_net_setup *setup);

/* The address that the driver knows now (6 bytes); device lock held. */
const uint8_t *virtio_net_mac(const struct virtio_net *v);
/* The card gets another address: a driver that uses the card goes on with the one that it knows, until it sets another or resets the card.
 * Device lock held. */
void virtio_net_readdress(struct virtio_net *v, const uint8_t mac[6]);

/* Other limits for what it receives (rx) or sends from now on, see limit_set(). Device lock held. */
void virtio_net_limit(struct virtio_net *v, bool rx, const struct limit_rate *bytes, const struct limit_rate *ops);

/* Pull the cable, or plug it in again. Device lock held. */
void virtio_net_set_link(struct virtio_net *v, bool up);
/* The machine has moved: its driver is asked to announce itself, if it can. Device lock held. */
void virtio_net_announce(struct virtio_net *v);

#endif
