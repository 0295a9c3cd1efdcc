/* Models: the queues of the virtio network card that carry frames.
 * Source: virtio 1.2, 5.1.6.
 * Runs on: the thread of the network port, which takes the device lock for each batch or frame.
 *
 * Both ways a frame is copied once. What the driver did not agree to receive is done here: checksums, cutting.
 */
#include <errno.h>
#include <string.h>

#include "net/offload.h"
#include "virtio/net_int.h"

enum { HEADER = 12, AT_BUFFERS = 10 }; /* struct virtio_net_hdr (5.1.6) */

/* ---- from the driver ---- */

static void vnet_get_header(const uint8_t *h, struct net_meta *m)
{
    *m = (struct net_meta){ .flags = h[0] & NET_CSUM_NEEDED,
                            .gso_type = h[1],
                            .hdr_len = ld_le16(h + 2),
                            .gso_size = ld_le16(h + 4),
                            .csum_start = ld_le16(h + 6),
                            .csum_offset = ld_le16(h + 8) };
}

/* Only what was negotiated may be asked for. */
static bool vnet_may_ask(const struct virtio_net *v, const struct net_meta *m)
{
    uint64_t need = 0;

    if (m->flags & NET_CSUM_NEEDED)
        need |= BIT(NET_F_CSUM);
    if ((m->gso_type & ~NET_GSO_ECN) == NET_GSO_TCP4)
        need |= BIT(NET_F_HOST_TSO4);
    if ((m->gso_type & ~NET_GSO_ECN) == NET_GSO_TCP6)
        need |= BIT(NET_F_HOST_TSO6);
    return !(need & ~v->vp.accepted);
}

static void vnet_note_flow(struct virtio_net *v, const struct net_frame *f, unsigned pair)
{
    if (v->pairs > 1)
        v->flow[net_flow(f->data, f->len) % VIRTIO_NET_FLOWS] = (uint8_t)pair;
}

/* A chain's frame into the batch. 1: it is there or dropped; 0: the batch is full; -EINVAL: the driver broke a rule. */
static int vnet_take(struct virtio_net *v, const struct vq_chain *c, unsigned pair, struct net_batch *b)
{
    uint8_t h[HEADER];
    struct net_frame *f;
    uint32_t len;

    if (c->write_len || c->read_len < HEADER) {
        virtio_needs_reset(&v->vp, "net: frame without a header, or a buffer that is for writing");
        return -EINVAL;
    }
    len = c->read_len - HEADER;
    if (len < NET_FRAME_MIN || len > NET_FRAME_MAX) {
        v->dropped++;
        return 1;
    }
    f = net_batch_room(b, len);
    if (!f)
        return 0;
    vq_chain_read(c, 0, h, sizeof(h));
    vq_chain_read(c, HEADER, f->data, len);
    vnet_get_header(h, &f->meta);
    if (!net_meta_ok(&f->meta, len) || !vnet_may_ask(v, &f->meta)) {
        v->dropped++;
        return 1;
    }
    vnet_note_flow(v, f, pair);
    b->count++;
    v->sent++;
    v->sent_bytes += len;
    return 1;
}

/* False: the batch is full, there may be more. */
static bool vnet_fetch_pair(struct virtio_net *v, unsigned pair, struct net_batch *b)
{
    struct vq *q = &v->vp.vq[vnet_tx(pair)];
    unsigned budget = VQ_MAX_SIZE; /* also for frames that are dropped */
    int r = 1;

    while (budget && r > 0 && !limit_is_over(&v->tx, &v->wake) && vq_pop(q, &v->chain) > 0) {
        budget--;
        r = vnet_take(v, &v->chain, pair, b);
        if (r == 0) {
            vq_unpop(q, &v->chain);
        } else {
            limit_take(&v->tx, v->chain.read_len - HEADER);
            vq_push(q, &v->chain, 0);
        }
    }
    virtio_notify(&v->vp, vnet_tx(pair));
    return r && budget;
}

static bool vnet_fetch(void *opaque, struct net_batch *b)
{
    struct virtio_net *v = opaque;
    bool more = false;

    loop_lock(v->loop);
    for (unsigned n = 0; n < v->pairs && !more && virtio_is_live(&v->vp) && !v->paused; n++) {
        unsigned pair = (v->next_pair + n) % v->pairs;

        more = !vnet_fetch_pair(v, pair, b);
        if (more)
            v->next_pair = pair + 1; /* the others first */
    }
    loop_unlock(v->loop);
    return more;
}

/* ---- to the driver ---- */

static void vnet_put_header(const struct net_meta *m, uint16_t buffers, uint8_t *h)
{
    bool needed = m->flags & NET_CSUM_NEEDED;

    h[0] = m->flags;
    h[1] = m->gso_type;
    st_le16(h + 2, m->gso_type ? m->hdr_len : 0);
    st_le16(h + 4, m->gso_type ? m->gso_size : 0);
    st_le16(h + 6, needed ? m->csum_start : 0);
    st_le16(h + 8, needed ? m->csum_offset : 0);
    st_le16(h + AT_BUFFERS, buffers);
}

/* Give back what was popped for a frame that does not fit. */
static void vnet_give_back(struct virtio_net *v, struct vq *q, const struct vq_used *used, unsigned n)
{
    while (n-- > 0) {
        v->chain.id = used[n].id;
        v->chain.slots = used[n].slots;
        vq_unpop(q, &v->chain);
    }
}

/* Fill chains with a frame. 0, -ENOBUFS: there are not enough (all are given back), -EINVAL: they are no good. */
static int vnet_fill(struct virtio_net *v, struct vq *q, const uint8_t *data, uint32_t len, struct vq_used *used,
                     unsigned *chains)
{
    bool merge = virtio_has(&v->vp, BIT(NET_F_MRG_RXBUF));
    uint32_t done = 0, head = HEADER;
    unsigned n = 0;
    int r;

    while (done < len) {
        struct vq_chain *c = n ? &v->chain : &v->first;

        if (n == VQ_MAX_SIZE || (n && !merge) || (r = vq_pop(q, c)) <= 0) {
            vnet_give_back(v, q, used, n);
            return n == q->size || (n && !merge) ? 0 : -ENOBUFS; /* it never will fit: dropped */
        }
        if (c->read_len || c->write_len <= head) {
            virtio_needs_reset(&v->vp, "net: receive buffer that is for reading, or too small for a header");
            return -EINVAL;
        }
        uint32_t part = (uint32_t)vq_chain_write(c, head, data + done, len - done);
        used[n++] = (struct vq_used){ .id = c->id, .slots = c->slots, .written = head + part };
        done += part;
        head = 0;
    }
    *chains = n;
    return 0;
}

/* One frame that the driver understands, to a receive queue. 0: taken or dropped; -ENOBUFS. */
static int vnet_put(struct virtio_net *v, unsigned pair, const struct net_meta *m, const uint8_t *data, uint32_t len)
{
    struct vq *q = &v->vp.vq[vnet_rx(pair)];
    struct vq_used used[VQ_MAX_SIZE];
    uint8_t h[HEADER];
    unsigned chains = 0;
    int r = vnet_fill(v, q, data, len, used, &chains);

    if (r < 0)
        return r == -ENOBUFS ? r : 0;
    if (!chains) {
        v->dropped++;
        return 0;
    }
    vnet_put_header(m, (uint16_t)chains, h);
    vq_chain_write(&v->first, 0, h, sizeof(h));
    vq_push_all(q, used, chains);
    v->pushed |= 1U << vnet_rx(pair);
    v->received++;
    v->received_bytes += len;
    return 0;
}

struct vnet_cut {
    struct virtio_net *v;
    struct net_frame *frame;
    unsigned pair;
};

static int vnet_on_segment(void *opaque, uint8_t *data, uint32_t len)
{
    struct vnet_cut *c = opaque;
    struct net_meta m = { .flags = c->v->guest_offloads & BIT(NET_F_GUEST_CSUM) ? NET_CSUM_VALID : 0 };
    int r = vnet_put(c->v, c->pair, &m, data, len);

    if (r == 0)
        c->frame->progress++;
    return r;
}

static bool vnet_takes_gso(const struct virtio_net *v, uint8_t type)
{
    uint64_t need = (type & ~NET_GSO_ECN) == NET_GSO_TCP4 ? BIT(NET_F_GUEST_TSO4) : BIT(NET_F_GUEST_TSO6);

    if (type & NET_GSO_ECN)
        need |= BIT(NET_F_GUEST_ECN);
    return (v->guest_offloads & need) == need;
}

/* Which receive queue: the partner of the one on which the flow was sent (5.1.6.5.5). */
static unsigned vnet_pair_of(const struct virtio_net *v, const struct net_frame *f)
{
    if (v->pairs == 1)
        return 0;
    return v->flow[net_flow(f->data, f->len) % VIRTIO_NET_FLOWS] % v->pairs;
}

static int vnet_deliver_locked(struct virtio_net *v, struct net_frame *f)
{
    unsigned pair;
    int r;

    if (!virtio_is_live(&v->vp) || !vnet_wants(v, f->data, f->len))
        return 0;
    if (v->paused || limit_is_over(&v->rx, &v->wake))
        return -ENOBUFS;
    pair = vnet_pair_of(v, f);
    if (f->meta.gso_type && !vnet_takes_gso(v, f->meta.gso_type)) {
        struct vnet_cut cut = { .v = v, .frame = f, .pair = pair };
        r = net_segment(f, f->progress, v->scratch, vnet_on_segment, &cut);
        return r == -ENOBUFS ? r : 0;
    }
    if (!(v->guest_offloads & BIT(NET_F_GUEST_CSUM))) {
        net_finish_csum(f);
        f->meta.flags = 0;
    }
    return vnet_put(v, pair, &f->meta, f->data, f->len);
}

static int vnet_deliver(void *opaque, struct net_frame *f)
{
    struct virtio_net *v = opaque;
    int r;

    loop_lock(v->loop);
    r = vnet_deliver_locked(v, f);
    if (r == 0)
        limit_take(&v->rx, f->len);
    loop_unlock(v->loop);
    return r;
}

static void vnet_flush(void *opaque)
{
    struct virtio_net *v = opaque;

    loop_lock(v->loop);
    for (unsigned n = 0; v->pushed; n++) {
        if (v->pushed & 1U << n)
            virtio_notify(&v->vp, n);
        v->pushed &= ~(1U << n);
    }
    loop_unlock(v->loop);
}

const struct net_client_ops virtio_net_client = { .fetch = vnet_fetch,
                                                  .deliver = vnet_deliver,
                                                  .flush = vnet_flush };
