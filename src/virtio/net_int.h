/* Between net.c (life and features), net_data.c (frames) and net_ctrl.c (control queue) of the network card. */
#ifndef VITRO_VIRTIO_NET_INT_H
#define VITRO_VIRTIO_NET_INT_H

#include "base/bits.h"
#include "virtio/net.h"

/* Feature bits (virtio 1.2, 5.1.3). */
enum {
    NET_F_CSUM = 0,
    NET_F_GUEST_CSUM = 1,
    NET_F_CTRL_GUEST_OFFLOADS = 2,
    NET_F_MTU = 3,
    NET_F_MAC = 5,
    NET_F_GUEST_TSO4 = 7,
    NET_F_GUEST_TSO6 = 8,
    NET_F_GUEST_ECN = 9,
    NET_F_HOST_TSO4 = 11,
    NET_F_HOST_TSO6 = 12,
    NET_F_HOST_ECN = 13,
    NET_F_MRG_RXBUF = 15,
    NET_F_STATUS = 16,
    NET_F_CTRL_VQ = 17,
    NET_F_CTRL_RX = 18,
    NET_F_CTRL_VLAN = 19,
    NET_F_CTRL_RX_EXTRA = 20,
    NET_F_GUEST_ANNOUNCE = 21,
    NET_F_MQ = 22,
    NET_F_CTRL_MAC_ADDR = 23
};
/* What CTRL_GUEST_OFFLOADS can switch. */
#define NET_GUEST_OFFLOADS \
    (BIT(NET_F_GUEST_CSUM) | BIT(NET_F_GUEST_TSO4) | BIT(NET_F_GUEST_TSO6) | BIT(NET_F_GUEST_ECN))

/* Offsets in the configuration space (5.1.4). */
enum { NET_CFG_MAC = 0, NET_CFG_STATUS = 6, NET_CFG_PAIRS = 8, NET_CFG_MTU = 10 };
enum { NET_S_LINK_UP = 1, NET_S_ANNOUNCE = 2 };

/* net.c */
void vnet_set_status(struct virtio_net *v);
/* Tell the back end what the driver takes now. */
void vnet_tell_offloads(struct virtio_net *v);

/* net_ctrl.c */
void vnet_ctrl_run(struct virtio_net *v);
bool vnet_wants(const struct virtio_net *v, const uint8_t *frame, size_t len);

static inline unsigned vnet_rx(unsigned pair) { return 2 * pair; }
static inline unsigned vnet_tx(unsigned pair) { return 2 * pair + 1; }
/* 5.1.2: behind all pairs that there may be, or behind the first if the driver knows no others. */
static inline unsigned vnet_ctrl(const struct virtio_net *v)
{
    return virtio_has(&v->vp, BIT(NET_F_MQ)) ? 2U * v->max_pairs : 2;
}

#endif
