/* Models: the virtio network card: features, configuration, life.
 * Source: virtio 1.2, 5.1.
 * Runs on: vCPU threads (registers, kicks), under the device lock. The frames are in net_data.c, the control queue is in
 * net_ctrl.c.
 *
 * Each pair has a receive queue (2n) and a transmit queue (2n+1). A kick of one of those only wakes the port's thread.
 */
#include "virtio/net.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "virtio/net_int.h"

/* ---- the configuration space ---- */

void vnet_set_status(struct virtio_net *v)
{
    bool up = v->link && v->peer->link;

    st_le16(v->config + NET_CFG_STATUS, (uint16_t)((up ? NET_S_LINK_UP : 0) | (v->announce ? NET_S_ANNOUNCE : 0)));
}

const uint8_t *virtio_net_mac(const struct virtio_net *v) { return v->config + NET_CFG_MAC; }

void virtio_net_readdress(struct virtio_net *v, const uint8_t mac[6])
{
    memcpy(v->first_mac, mac, sizeof(v->first_mac));
    if (!v->vp.status)
        memcpy(v->config + NET_CFG_MAC, mac, sizeof(v->first_mac));
}

void virtio_net_set_link(struct virtio_net *v, bool up)
{
    v->link = up;
    vnet_set_status(v);
    virtio_config_changed(&v->vp);
}

void virtio_net_announce(struct virtio_net *v)
{
    if (!virtio_has(&v->vp, BIT(NET_F_GUEST_ANNOUNCE)) || !virtio_is_live(&v->vp))
        return;
    v->announce = true;
    vnet_set_status(v);
    virtio_config_changed(&v->vp);
}

void vnet_tell_offloads(struct virtio_net *v)
{
    static const struct {
        unsigned feature, bit;
    } map[] = {
        { NET_F_GUEST_CSUM, NET_OFF_CSUM },
        { NET_F_GUEST_TSO4, NET_OFF_TSO4 },
        { NET_F_GUEST_TSO6, NET_OFF_TSO6 },
        { NET_F_GUEST_ECN, NET_OFF_ECN },
    };
    unsigned bits = 0;

    for (size_t i = 0; i < ARRAY_LEN(map); i++)
        bits |= v->guest_offloads & BIT(map[i].feature) ? map[i].bit : 0;
    if (v->peer->offloads)
        v->peer->offloads(v->peer, bits);
}

/* ---- the transport's calls ---- */

static void vnet_notify(void *dev, unsigned queue)
{
    struct virtio_net *v = dev;

    if (queue == vnet_ctrl(v) && virtio_has(&v->vp, BIT(NET_F_CTRL_VQ)))
        vnet_ctrl_run(v);
    else
        v->peer->kick(v->peer);
}

static void vnet_start(void *dev)
{
    struct virtio_net *v = dev;

    v->guest_offloads = v->vp.accepted & NET_GUEST_OFFLOADS;
    vnet_tell_offloads(v);
    v->peer->kick(v->peer);
}

static void vnet_end_life(void *dev)
{
    struct virtio_net *v = dev;

    timer_cancel(&v->again);
    v->pushed = 0;
    v->pairs = 1;
    v->next_pair = 0;
    v->announce = false;
    v->guest_offloads = 0;
    memset(&v->filter, 0, sizeof(v->filter));
    v->filter.promisc = true; /* until the driver says otherwise */
    memset(v->flow, 0, sizeof(v->flow));
    memcpy(v->config + NET_CFG_MAC, v->first_mac, sizeof(v->first_mac));
    vnet_set_status(v);
}

static const struct virtio_ops vnet_virtio_ops = { .start = vnet_start,
                                                   .notify = vnet_notify,
                                                   .reset = vnet_end_life };

/* ---- life cycle ---- */

static uint64_t vnet_features(const struct virtio_net *v)
{
    uint64_t f = NET_GUEST_OFFLOADS | BIT(NET_F_CSUM) | BIT(NET_F_CTRL_GUEST_OFFLOADS) | BIT(NET_F_MAC) |
                 BIT(NET_F_HOST_TSO4) | BIT(NET_F_HOST_TSO6) | BIT(NET_F_HOST_ECN) | BIT(NET_F_MRG_RXBUF) |
                 BIT(NET_F_STATUS) | BIT(NET_F_CTRL_VQ) | BIT(NET_F_CTRL_RX) | BIT(NET_F_CTRL_VLAN) |
                 BIT(NET_F_CTRL_RX_EXTRA) | BIT(NET_F_GUEST_ANNOUNCE) | BIT(NET_F_CTRL_MAC_ADDR);

    if (v->peer->mtu != NET_MTU)
        f |= BIT(NET_F_MTU);
    if (v->max_pairs > 1)
        f |= BIT(NET_F_MQ);
    return f;
}

static void vnet_on_again(void *opaque) { vnet_ctrl_run(opaque); }

static void vnet_on_wake(void *opaque)
{
    struct virtio_net *v = opaque;
    v->peer->kick(v->peer);
}

/* The port looks again in any case, and is told to wait if there is a limit still. */
void virtio_net_limit(struct virtio_net *v, bool rx, const struct limit_rate *bytes, const struct limit_rate *ops)
{
    limit_set(rx ? &v->rx : &v->tx, bytes, ops, timer_now(&v->wake));
    v->peer->kick(v->peer);
}

int virtio_net_init(struct virtio_net *v, const struct virtio_net_setup *setup)
{
    if (!setup->queues || setup->queues > VIRTIO_NET_PAIRS)
        return -EINVAL;
    memset(v, 0, sizeof(*v));
    v->peer = setup->peer;
    v->loop = setup->loop;
    v->link = true;
    v->max_pairs = (uint16_t)setup->queues;
    memcpy(v->first_mac, setup->mac, sizeof(v->first_mac));
    timer_init(&v->again, setup->loop, vnet_on_again, v);
    timer_init(&v->wake, setup->loop, vnet_on_wake, v);
    limit_set(&v->rx, &setup->rx.bytes, &setup->rx.ops, timer_now(&v->wake));
    limit_set(&v->tx, &setup->tx.bytes, &setup->tx.ops, timer_now(&v->wake));
    v->scratch = malloc(NET_FRAME_MAX);
    if (!v->scratch)
        return -ENOMEM;
    vnet_end_life(v);
    st_le16(v->config + NET_CFG_PAIRS, v->max_pairs);
    st_le16(v->config + NET_CFG_MTU, v->peer->mtu);
    struct virtio_setup transport = {
        .name = setup->name,
        .ops = &vnet_virtio_ops,
        .dev = v,
        .id = VIRTIO_ID_NET,
        .class_code = 2, /* network, Ethernet */
        .queues = (uint16_t)(2 * v->max_pairs + 1),
        .queue_size = VQ_MAX_SIZE,
        .features = vnet_features(v),
        .config = v->config,
        .config_len = sizeof(v->config),
        .ram = setup->ram,
        .deliver = setup->deliver,
        .deliver_opaque = setup->deliver_opaque,
    };
    return virtio_pci_init(&v->vp, &transport);
}

static void vnet_reset(void *dev) { virtio_pci_reset(&((struct virtio_net *)dev)->vp); }

static void vnet_pause(void *dev)
{
    struct virtio_net *v = dev;

    v->paused = true; /* under the lock: the port's thread is not inside a queue */
    timer_cancel(&v->again);
    timer_cancel(&v->wake);
    for (unsigned n = 0; v->pushed; n++) { /* not in the state: the driver hears of it now */
        if (v->pushed & 1U << n)
            virtio_notify(&v->vp, n);
        v->pushed &= ~(1U << n);
    }
}

static void vnet_resume(void *dev)
{
    struct virtio_net *v = dev;

    v->paused = false;
    virtio_pci_resume(&v->vp);
    if (v->pairs > v->max_pairs) {
        v->pairs = 1;
        virtio_needs_reset(&v->vp, "net: it has more queues than this device");
    }
    vnet_set_status(v);
    vnet_tell_offloads(v);
    vnet_ctrl_run(v);
    v->peer->kick(v->peer);
}

static void vnet_destroy(void *dev)
{
    struct virtio_net *v = dev;

    timer_cancel(&v->again);
    timer_cancel(&v->wake);
    free(v->scratch);
    v->scratch = NULL;
    pci_dev_unplug(&v->vp.pci);
}

static int vnet_filter_check(void *obj, struct err *err)
{
    const struct virtio_net_filter *f = obj;

    return f->macs > VIRTIO_NET_MACS ? err_set(err, EINVAL, "virtio-net: impossible number of addresses") : 0;
}

static const struct state_field vnet_filter_fields[] = {
    STATE_FBOOL(struct virtio_net_filter, promisc),
    STATE_FBOOL(struct virtio_net_filter, allmulti),
    STATE_FBOOL(struct virtio_net_filter, alluni),
    STATE_FBOOL(struct virtio_net_filter, nomulti),
    STATE_FBOOL(struct virtio_net_filter, nouni),
    STATE_FBOOL(struct virtio_net_filter, nobcast),
    STATE_FBOOL(struct virtio_net_filter, uni_overflow),
    STATE_FBOOL(struct virtio_net_filter, multi_overflow),
    STATE_F8(struct virtio_net_filter, macs),
    STATE_FBYTES(struct virtio_net_filter, mac),
    STATE_FBYTES(struct virtio_net_filter, vlan),
    STATE_END,
};
static const struct state_desc vnet_filter_state = { .name = "virtio-net-filter",
                                                     .version = 1,
                                                     .size = sizeof(struct virtio_net_filter),
                                                     .fields = vnet_filter_fields,
                                                     .check = vnet_filter_check };

static int vnet_check(void *obj, struct err *err)
{
    const struct virtio_net *v = obj;

    if (!v->pairs || v->pairs > VIRTIO_NET_PAIRS)
        return err_set(err, EINVAL, "virtio-net: impossible number of queue pairs");
    if (v->guest_offloads & ~NET_GUEST_OFFLOADS)
        return err_set(err, EINVAL, "virtio-net: impossible offloads");
    return 0;
}

static const struct state_field vnet_fields[] = {
    STATE_FSTRUCT(struct virtio_net, vp, struct virtio_pci, virtio_pci_state),
    { "mac", STATE_BYTES, offsetof(struct virtio_net, config) + NET_CFG_MAC, 6, 0, NULL, 0 },
    STATE_FBYTES(struct virtio_net, first_mac),
    STATE_F16(struct virtio_net, pairs),
    STATE_F64(struct virtio_net, guest_offloads),
    STATE_FSTRUCT(struct virtio_net, filter, struct virtio_net_filter, vnet_filter_state),
    STATE_FBOOL(struct virtio_net, link),
    STATE_FBOOL(struct virtio_net, announce),
    { "rx", STATE_STRUCT, offsetof(struct virtio_net, rx), 1, sizeof(struct limit), &limit_state, .since = 2 },
    { "tx", STATE_STRUCT, offsetof(struct virtio_net, tx), 1, sizeof(struct limit), &limit_state, .since = 2 },
    STATE_END,
};
static const struct state_desc vnet_state = { .name = "virtio-net",
                                              .version = 2,
                                              .size = sizeof(struct virtio_net),
                                              .fields = vnet_fields,
                                              .check = vnet_check };

const struct device_ops virtio_net_ops = {
    .type = "virtio-net",
    .reset = vnet_reset,
    .pause = vnet_pause,
    .resume = vnet_resume,
    .destroy = vnet_destroy,
    .state = &vnet_state,
};
