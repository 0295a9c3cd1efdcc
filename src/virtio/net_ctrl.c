/* Models: the control queue of the virtio network card, and what it decides: which frames the driver wants.
 * Source: virtio 1.2, 5.1.6.5.
 * Runs on: vCPU threads (kicks) and the loop's thread, under the device lock.
 */
#include <string.h>

#include "virtio/net_int.h"

enum { CLASS_RX = 0, CLASS_MAC = 1, CLASS_VLAN = 2, CLASS_ANNOUNCE = 3, CLASS_MQ = 4, CLASS_OFFLOADS = 5 };
enum { RX_PROMISC = 0, RX_ALLMULTI = 1, RX_ALLUNI = 2, RX_NOMULTI = 3, RX_NOUNI = 4, RX_NOBCAST = 5 };
enum { MAC_TABLE_SET = 0, MAC_ADDR_SET = 1, VLAN_ADD = 0, VLAN_DEL = 1 };
enum { CTRL_HEADER = 2, CTRL_OK = 0, CTRL_ERR = 1 };

/* The argument of a command, which must be there whole. */
static bool vnet_arg(const struct vq_chain *c, uint32_t off, void *buf, size_t len)
{
    return vq_chain_read(c, CTRL_HEADER + off, buf, len) == len;
}

static bool vnet_ctrl_rx(struct virtio_net *v, const struct vq_chain *c, uint8_t cmd)
{
    bool *const mode[] = {
        [RX_PROMISC] = &v->filter.promisc, [RX_ALLMULTI] = &v->filter.allmulti,
        [RX_ALLUNI] = &v->filter.alluni,   [RX_NOMULTI] = &v->filter.nomulti,
        [RX_NOUNI] = &v->filter.nouni,     [RX_NOBCAST] = &v->filter.nobcast,
    };
    uint64_t need = cmd > RX_ALLMULTI ? BIT(NET_F_CTRL_RX_EXTRA) : BIT(NET_F_CTRL_RX);
    uint8_t on;

    if (cmd >= ARRAY_LEN(mode) || !virtio_has(&v->vp, need) || !vnet_arg(c, 0, &on, 1))
        return false;
    *mode[cmd] = on;
    return true;
}

/* One of the two lists of addresses: how many, then as many times 6 bytes. */
static bool vnet_mac_list(struct virtio_net_filter *f, const struct vq_chain *c, uint32_t *off, bool *overflow)
{
    uint8_t raw[4];
    uint32_t n;

    if (!vnet_arg(c, *off, raw, sizeof(raw)))
        return false;
    n = ld_le32(raw);
    *off += 4;
    if (n > (c->read_len - CTRL_HEADER - *off) / 6)
        return false;
    *overflow = n > (uint32_t)(VIRTIO_NET_MACS - f->macs);
    if (!*overflow && n && !vnet_arg(c, *off, f->mac[f->macs], 6 * (size_t)n))
        return false;
    f->macs = (uint8_t)(f->macs + (*overflow ? 0 : n));
    *off += 6 * n;
    return true;
}

static bool vnet_ctrl_mac(struct virtio_net *v, const struct vq_chain *c, uint8_t cmd)
{
    struct virtio_net_filter f = v->filter;
    uint32_t off = 0;
    uint8_t mac[6];

    if (cmd == MAC_ADDR_SET) {
        if (!virtio_has(&v->vp, BIT(NET_F_CTRL_MAC_ADDR)) || !vnet_arg(c, 0, mac, sizeof(mac)))
            return false;
        memcpy(v->config + NET_CFG_MAC, mac, sizeof(mac));
        return true;
    }
    if (cmd != MAC_TABLE_SET || !virtio_has(&v->vp, BIT(NET_F_CTRL_RX)))
        return false;
    f.macs = 0;
    if (!vnet_mac_list(&f, c, &off, &f.uni_overflow) || !vnet_mac_list(&f, c, &off, &f.multi_overflow))
        return false;
    v->filter = f;
    return true;
}

static bool vnet_ctrl_vlan(struct virtio_net *v, const struct vq_chain *c, uint8_t cmd)
{
    uint8_t raw[2], bit;
    uint16_t id;

    if (cmd > VLAN_DEL || !virtio_has(&v->vp, BIT(NET_F_CTRL_VLAN)) || !vnet_arg(c, 0, raw, sizeof(raw)))
        return false;
    id = ld_le16(raw);
    if (id >= 4096)
        return false;
    bit = (uint8_t)(1U << id % 8);
    if (cmd == VLAN_ADD)
        v->filter.vlan[id / 8] |= bit;
    else
        v->filter.vlan[id / 8] &= (uint8_t)~bit;
    return true;
}

static bool vnet_ctrl_announce(struct virtio_net *v, uint8_t cmd)
{
    if (cmd || !virtio_has(&v->vp, BIT(NET_F_GUEST_ANNOUNCE)))
        return false;
    v->announce = false;
    vnet_set_status(v);
    return true;
}

static bool vnet_ctrl_mq(struct virtio_net *v, const struct vq_chain *c, uint8_t cmd)
{
    uint8_t raw[2];

    if (cmd || !virtio_has(&v->vp, BIT(NET_F_MQ)) || !vnet_arg(c, 0, raw, sizeof(raw)))
        return false;
    if (!ld_le16(raw) || ld_le16(raw) > v->max_pairs)
        return false;
    v->pairs = ld_le16(raw);
    v->peer->kick(v->peer); /* what lies in queues that count from now on */
    return true;
}

static bool vnet_ctrl_offloads(struct virtio_net *v, const struct vq_chain *c, uint8_t cmd)
{
    uint8_t raw[8];
    uint64_t bits;

    if (cmd || !virtio_has(&v->vp, BIT(NET_F_CTRL_GUEST_OFFLOADS)) || !vnet_arg(c, 0, raw, sizeof(raw)))
        return false;
    bits = ld_le64(raw);
    if (bits & ~(v->vp.accepted & NET_GUEST_OFFLOADS))
        return false;
    v->guest_offloads = bits;
    vnet_tell_offloads(v);
    return true;
}

static bool vnet_command(struct virtio_net *v, const struct vq_chain *c, uint8_t class_code, uint8_t cmd)
{
    switch (class_code) {
    case CLASS_RX:
        return vnet_ctrl_rx(v, c, cmd);
    case CLASS_MAC:
        return vnet_ctrl_mac(v, c, cmd);
    case CLASS_VLAN:
        return vnet_ctrl_vlan(v, c, cmd);
    case CLASS_ANNOUNCE:
        return vnet_ctrl_announce(v, cmd);
    case CLASS_MQ:
        return vnet_ctrl_mq(v, c, cmd);
    case CLASS_OFFLOADS:
        return vnet_ctrl_offloads(v, c, cmd);
    default:
        return false;
    }
}

void vnet_ctrl_run(struct virtio_net *v)
{
    unsigned index = vnet_ctrl(v), budget = VQ_MAX_SIZE;
    struct vq *q = &v->vp.vq[index];
    struct vq_chain *c = &v->chain;
    uint8_t header[CTRL_HEADER], ack;

    if (!virtio_has(&v->vp, BIT(NET_F_CTRL_VQ)) || !virtio_is_live(&v->vp))
        return;
    for (; budget && vq_pop(q, c) > 0; budget--) {
        if (vq_chain_read(c, 0, header, sizeof(header)) != sizeof(header) || !c->write_len) {
            virtio_needs_reset(&v->vp, "net: command without a header, or no room for an answer");
            return;
        }
        ack = vnet_command(v, c, header[0], header[1]) ? CTRL_OK : CTRL_ERR;
        vq_chain_write(c, 0, &ack, 1);
        vq_push(q, c, 1);
    }
    virtio_notify(&v->vp, index);
    if (!budget)
        timer_arm(&v->again, timer_now(&v->again));
}

/* ---- the filter ---- */

static bool vnet_is_listed(const struct virtio_net_filter *f, const uint8_t *mac)
{
    for (unsigned n = 0; n < f->macs; n++) {
        if (!memcmp(f->mac[n], mac, 6))
            return true;
    }
    return false;
}

static bool vnet_vlan_ok(const struct virtio_net *v, const uint8_t *frame, size_t len)
{
    if (!virtio_has(&v->vp, BIT(NET_F_CTRL_VLAN)) || len < 18 || frame[12] != 0x81 || frame[13])
        return true;
    unsigned id = (unsigned)(frame[14] & 0xf) << 8 | frame[15];
    return v->filter.vlan[id / 8] & 1U << id % 8;
}

/* A driver without CTRL_RX gets everything (5.1.6.5.1): it filters by itself. */
bool vnet_wants(const struct virtio_net *v, const uint8_t *frame, size_t len)
{
    static const uint8_t everybody[6] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff };
    const struct virtio_net_filter *f = &v->filter;

    if (!virtio_has(&v->vp, BIT(NET_F_CTRL_RX)))
        return true;
    if (f->promisc)
        return true;
    if (!vnet_vlan_ok(v, frame, len))
        return false;
    if (!memcmp(frame, everybody, 6))
        return !f->nobcast;
    if (frame[0] & 1)
        return !f->nomulti && (f->allmulti || f->multi_overflow || vnet_is_listed(f, frame));
    if (f->nouni)
        return false;
    return f->alluni || f->uni_overflow || !memcmp(frame, v->config + NET_CFG_MAC, 6) || vnet_is_listed(f, frame);
}
