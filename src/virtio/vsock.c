/* Models: the virtio socket device: its rings and its life. Connections are in vsock_conn.c.
 * Source: virtio 1.2, 5.10. Runs on: the loop's thread, under the device lock; a vCPU's kick only arms a timer.
 *
 * The guest's packets are taken only while there is room to answer them (5.10.6.2): a guest that does not empty its
 * receive queue stops being heard, and nothing grows.
 *
 * Connections are not saved. After a loaded state the guest is told that they are gone (5.10.6.4), and forgets them.
 */
#include "virtio/vsock.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "virtio/vsock_int.h"

#define VSOCK_F_STREAM (1ULL << 0)
#define VSOCK_BUDGET   256U /* packets of one queue that one call moves */

enum { QUEUE_RX, QUEUE_TX, QUEUE_EVENT, QUEUES };

void vsock_later(struct virtio_vsock *v)
{
    if (!timer_armed(&v->again) && !v->standing)
        timer_arm(&v->again, timer_now(&v->again));
}

/* ---- packets in guest memory ---- */

static bool vsock_decode(const struct vq_chain *c, struct vsock_packet *p)
{
    uint8_t h[VSOCK_HEADER];

    if (vq_chain_read(c, 0, h, sizeof(h)) < sizeof(h))
        return false;
    *p = (struct vsock_packet){
        .src_cid = ld_le64(h),
        .dst_cid = ld_le64(h + 8),
        .src_port = ld_le32(h + 16),
        .dst_port = ld_le32(h + 20),
        .len = ld_le32(h + 24),
        .type = ld_le16(h + 28),
        .op = ld_le16(h + 30),
        .flags = ld_le32(h + 32),
        .buf_alloc = ld_le32(h + 36),
        .fwd_cnt = ld_le32(h + 40),
    };
    return p->len <= VSOCK_PACKET && p->len <= c->read_len - VSOCK_HEADER;
}

static void vsock_encode(const struct vq_chain *c, const struct vsock_packet *p, const uint8_t *data)
{
    uint8_t h[VSOCK_HEADER];

    st_le64(h, p->src_cid);
    st_le64(h + 8, p->dst_cid);
    st_le32(h + 16, p->src_port);
    st_le32(h + 20, p->dst_port);
    st_le32(h + 24, p->len);
    st_le16(h + 28, p->type);
    st_le16(h + 30, p->op);
    st_le32(h + 32, p->flags);
    st_le32(h + 36, p->buf_alloc);
    st_le32(h + 40, p->fwd_cnt);
    vq_chain_write(c, 0, h, sizeof(h));
    vq_chain_write(c, VSOCK_HEADER, data, p->len);
}

/* ---- from the guest ---- */

static void vsock_run_tx(struct virtio_vsock *v)
{
    struct vq *q = &v->vp.vq[QUEUE_TX];
    unsigned budget = VSOCK_BUDGET;
    struct vsock_packet p;
    struct vq_chain c;

    while (budget && v->resets < VSOCK_RESETS && vq_pop(q, &c) > 0) {
        if (c.write_len || !vsock_decode(&c, &p)) {
            virtio_needs_reset(&v->vp, "vsock: packet that is none");
            return;
        }
        vq_chain_read(&c, VSOCK_HEADER, v->data, p.len);
        vq_push(q, &c, 0);
        vsock_handle(v, &p);
        budget--;
    }
    virtio_notify(&v->vp, QUEUE_TX);
    if (!budget)
        vsock_later(v);
}

/* ---- to the guest ---- */

static bool vsock_next_reset(struct virtio_vsock *v, struct vsock_packet *p)
{
    const struct vsock_reset *r = &v->reset[v->first_reset];

    if (!v->resets)
        return false;
    *p = (struct vsock_packet){ .src_cid = r->cid,
                                .dst_cid = ld_le64(v->config),
                                .src_port = r->host_port,
                                .dst_port = r->guest_port,
                                .type = r->type,
                                .op = VSOCK_OP_RST };
    v->first_reset = (v->first_reset + 1) % VSOCK_RESETS;
    v->resets--;
    return true;
}

/* The next packet of anybody, connections in turn. */
static bool vsock_next_any(struct virtio_vsock *v, uint32_t room, struct vsock_packet *p)
{
    if (vsock_next_reset(v, p))
        return true;
    for (unsigned n = v->conns; n; n--) {
        v->turn = v->turn + 1 < v->conns ? v->turn + 1 : 0;
        if (v->turn < v->conns && vsock_next(v, v->conn[v->turn], room, p))
            return true;
    }
    return false;
}

static bool vsock_any(const struct virtio_vsock *v)
{
    for (unsigned n = 0; n < v->conns; n++) {
        if (vsock_wants(v->conn[n]))
            return true;
    }
    return v->resets;
}

static void vsock_run_rx(struct virtio_vsock *v)
{
    struct vq *q = &v->vp.vq[QUEUE_RX];
    unsigned budget = VSOCK_BUDGET;
    struct vsock_packet p;
    struct vq_chain c;

    while (budget && vsock_any(v) && vq_pop(q, &c) > 0) {
        if (c.read_len || c.write_len < VSOCK_HEADER) {
            virtio_needs_reset(&v->vp, "vsock: buffer that holds no packet");
            return;
        }
        if (!vsock_next_any(v, c.write_len - VSOCK_HEADER, &p)) {
            vq_unpop(q, &c);
            break;
        }
        vsock_encode(&c, &p, v->data);
        vq_push(q, &c, VSOCK_HEADER + p.len);
        budget--;
    }
    virtio_notify(&v->vp, QUEUE_RX);
    if (!budget)
        vsock_later(v);
}

/* VIRTIO_VSOCK_EVENT_TRANSPORT_RESET is 0. */
static void vsock_run_event(struct virtio_vsock *v)
{
    struct vq *q = &v->vp.vq[QUEUE_EVENT];
    const uint8_t event[4] = { 0 };
    struct vq_chain c;

    if (!v->tell_reset || vq_pop(q, &c) <= 0)
        return;
    if (c.read_len || c.write_len < sizeof(event)) {
        virtio_needs_reset(&v->vp, "vsock: buffer that holds no event");
        return;
    }
    vq_chain_write(&c, 0, event, sizeof(event));
    vq_push(q, &c, sizeof(event));
    v->tell_reset = false;
    virtio_notify(&v->vp, QUEUE_EVENT);
}

/* Answers make room for the next packets of the guest, which may want answers. */
static void vsock_run(void *opaque)
{
    struct virtio_vsock *v = opaque;
    bool full;

    if (v->standing || !virtio_is_live(&v->vp))
        return;
    vsock_run_event(v);
    vsock_run_rx(v);
    vsock_run_tx(v);
    full = v->resets == VSOCK_RESETS;
    vsock_run_rx(v);
    if (full && v->resets < VSOCK_RESETS)
        vsock_later(v);
}

/* ---- the transport's calls ---- */

static void vsock_notify(void *dev, unsigned queue) { vsock_later(dev); }
static void vsock_start(void *dev) { vsock_later(dev); }

static void vsock_virtio_reset(void *dev)
{
    struct virtio_vsock *v = dev;

    timer_cancel(&v->again);
    vsock_drop_all(v);
    v->tell_reset = false;
}

static const struct virtio_ops vsock_virtio_ops = { .start = vsock_start,
                                                    .notify = vsock_notify,
                                                    .reset = vsock_virtio_reset };

int virtio_vsock_init(struct virtio_vsock *v, uint32_t cid, const struct vsock_backend *backend, struct loop *loop,
                      struct ram *ram, apic_deliver_fn deliver, void *deliver_opaque)
{
    struct virtio_setup setup = {
        .name = "virtio-vsock",
        .ops = &vsock_virtio_ops,
        .dev = v,
        .id = VIRTIO_ID_VSOCK,
        .class_code = 0x07,
        .subclass = 0x80,
        .queues = QUEUES,
        .queue_size = VQ_MAX_SIZE,
        .features = VSOCK_F_STREAM,
        .config = v->config,
        .config_len = sizeof(v->config),
        .ram = ram,
        .deliver = deliver,
        .deliver_opaque = deliver_opaque,
    };

    memset(v, 0, sizeof(*v));
    if (cid < VSOCK_CID_MIN || cid > VSOCK_CID_MAX)
        return -EINVAL;
    st_le64(v->config, cid);
    v->backend = *backend;
    v->data = malloc(VSOCK_PACKET);
    if (!v->data)
        return -ENOMEM;
    timer_init(&v->again, loop, vsock_run, v);
    return virtio_pci_init(&v->vp, &setup);
}

/* ---- life cycle ---- */

static void vsock_reset(void *dev) { virtio_pci_reset(&((struct virtio_vsock *)dev)->vp); }

static void vsock_stand(struct virtio_vsock *v, bool standing)
{
    v->standing = standing;
    for (unsigned n = 0; n < v->conns; n++)
        vsock_watch(v, v->conn[n]);
    if (v->backend.listen)
        v->backend.listen(v->backend.opaque, !standing);
}

static void vsock_pause(void *dev)
{
    struct virtio_vsock *v = dev;

    timer_cancel(&v->again);
    vsock_stand(v, true);
}

/* With a loaded state the guest's connections are those of another time or place. */
static void vsock_resume(void *dev)
{
    struct virtio_vsock *v = dev;

    virtio_pci_resume(&v->vp);
    if (v->loaded) {
        vsock_drop_all(v);
        v->tell_reset = v->vp.status & VIRTIO_DRIVER_OK;
        v->loaded = false;
    }
    vsock_stand(v, false);
    vsock_later(v);
}

static void vsock_destroy(void *dev)
{
    struct virtio_vsock *v = dev;

    timer_cancel(&v->again);
    vsock_drop_all(v);
    free(v->data);
    v->data = NULL;
    pci_dev_unplug(&v->vp.pci);
}

static int vsock_check(void *obj, struct err *err)
{
    ((struct virtio_vsock *)obj)->loaded = true;
    return 0;
}

static const struct state_field vsock_fields[] = {
    STATE_FSTRUCT(struct virtio_vsock, vp, struct virtio_pci, virtio_pci_state),
    STATE_FBOOL(struct virtio_vsock, tell_reset),
    STATE_END,
};
static const struct state_desc vsock_state = { .name = "virtio-vsock",
                                               .version = 1,
                                               .size = sizeof(struct virtio_vsock),
                                               .fields = vsock_fields,
                                               .check = vsock_check };

const struct device_ops virtio_vsock_ops = {
    .type = "virtio-vsock",
    .reset = vsock_reset,
    .pause = vsock_pause,
    .resume = vsock_resume,
    .destroy = vsock_destroy,
    .state = &vsock_state,
};
