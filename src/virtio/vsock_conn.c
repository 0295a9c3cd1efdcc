/* Connections of the virtio socket device: what packets mean, credit, and the two ways in which a stream ends.
 * Source: virtio 1.2, 5.10.6. Runs on: the loop's thread, under the device lock.
 *
 * Credit (5.10.6.3): each side says how much it can hold (buf_alloc) and how much of what it got it is rid of (fwd_cnt), in
 * every packet. The guest may have VSOCK_BUF bytes under way to us; one that sends more is reset.
 *
 * A connection that ends while the guest must still hear of it is VSOCK_DEAD: its stream is closed, its place taken until
 * the guest has room for the packet.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "virtio/vsock_int.h"

#define VSOCK_PORT_FIRST (1U << 30) /* of the host's ends that nobody named */

static struct vsock_conn *vsock_find(struct virtio_vsock *v, uint32_t guest_port, uint32_t host_port)
{
    for (unsigned n = 0; n < v->conns; n++) {
        if (v->conn[n]->guest_port == guest_port && v->conn[n]->host_port == host_port)
            return v->conn[n];
    }
    return NULL;
}

static struct vsock_conn *vsock_add(struct virtio_vsock *v, uint32_t guest_port, uint32_t host_port,
                                    enum vsock_phase phase)
{
    struct vsock_conn *c = v->conns < VSOCK_CONNS ? calloc(1, sizeof(*c)) : NULL;

    if (!c)
        return NULL;
    *c = (struct vsock_conn){ .guest_port = guest_port, .host_port = host_port, .phase = phase };
    v->conn[v->conns++] = c;
    return c;
}

static void vsock_close_stream(struct virtio_vsock *v, struct vsock_conn *c)
{
    if (c->stream)
        v->backend.close(c->stream);
    c->stream = NULL;
    free(c->buf);
    c->buf = NULL;
    c->head = c->used = 0;
}

/* c is gone. */
static void vsock_remove(struct virtio_vsock *v, struct vsock_conn *c)
{
    unsigned n = 0;

    vsock_close_stream(v, c);
    while (v->conn[n] != c)
        n++;
    v->conn[n] = v->conn[--v->conns];
    free(c);
}

void vsock_drop_all(struct virtio_vsock *v)
{
    while (v->conns)
        vsock_remove(v, v->conn[v->conns - 1]);
    v->resets = 0;
}

/* The connection is over; the guest hears it when it has room. */
static void vsock_kill(struct virtio_vsock *v, struct vsock_conn *c)
{
    vsock_close_stream(v, c);
    c->phase = VSOCK_DEAD;
    c->pending = VSOCK_TELL_RST;
    vsock_later(v);
}

static void vsock_tell(struct virtio_vsock *v, struct vsock_conn *c, uint8_t what)
{
    c->pending |= what;
    vsock_later(v);
}

/* An answer to a packet of no connection. There is room, see vsock_handle(). */
static void vsock_refuse(struct virtio_vsock *v, const struct vsock_packet *p)
{
    if (p->op == VSOCK_OP_RST || v->resets == VSOCK_RESETS)
        return;
    v->reset[(v->first_reset + v->resets++) % VSOCK_RESETS] = (struct vsock_reset){
        .cid = p->dst_cid, .guest_port = p->src_port, .host_port = p->dst_port, .type = p->type
    };
}

/* Bytes that the guest still takes. What it says may be nonsense: then it takes none. */
static uint32_t vsock_credit(const struct vsock_conn *c)
{
    uint32_t under_way = c->sent - c->fwd;

    return under_way < c->buf_alloc ? c->buf_alloc - under_way : 0;
}

static bool vsock_may_read(const struct vsock_conn *c)
{
    return c->phase == VSOCK_OPEN && !c->ended && !(c->guest_shut & VSOCK_SHUT_RCV);
}

void vsock_watch(struct virtio_vsock *v, struct vsock_conn *c)
{
    if (c->stream)
        v->backend.watch(c->stream, !v->standing && vsock_may_read(c) && !c->readable, !v->standing && c->used);
}

/* ---- from the guest to the stream ---- */

/* The stream takes nothing any more, and gives nothing either. */
static void vsock_stream_broke(struct virtio_vsock *v, struct vsock_conn *c)
{
    c->taken += c->used;
    c->used = 0;
    c->ended = true;
    if (c->host_shut != VSOCK_SHUT_BOTH)
        vsock_tell(v, c, VSOCK_TELL_SHUTDOWN);
    c->host_shut = VSOCK_SHUT_BOTH;
}

/* What the guest has said that it will not do any more, once all that it sent has been passed on. */
static void vsock_settle(struct virtio_vsock *v, struct vsock_conn *c)
{
    if (c->phase != VSOCK_OPEN || c->used)
        return;
    if (c->guest_shut == VSOCK_SHUT_BOTH) {
        vsock_kill(v, c);
    } else if ((c->guest_shut & VSOCK_SHUT_SEND) && !c->half) {
        v->backend.shutdown(c->stream);
        c->half = true;
    }
}

static void vsock_took(struct virtio_vsock *v, struct vsock_conn *c, uint32_t len)
{
    c->taken += len;
    if (c->taken - c->told >= VSOCK_BUF / 2)
        vsock_tell(v, c, VSOCK_TELL_CREDIT);
}

static void vsock_drain(struct virtio_vsock *v, struct vsock_conn *c)
{
    while (c->used) {
        uint32_t len = c->used < VSOCK_BUF - c->head ? c->used : VSOCK_BUF - c->head;
        ssize_t n = v->backend.write(c->stream, c->buf + c->head, len);

        if (n < 0 && n != -EAGAIN)
            vsock_stream_broke(v, c);
        if (n <= 0)
            break;
        c->head = (c->head + (uint32_t)n) % VSOCK_BUF;
        c->used -= (uint32_t)n;
        vsock_took(v, c, (uint32_t)n);
    }
    if (!c->used) {
        free(c->buf);
        c->buf = NULL;
        c->head = 0;
        vsock_settle(v, c);
    }
}

/* Keep what the stream did not take. False: no memory. */
static bool vsock_keep(struct vsock_conn *c, const uint8_t *data, uint32_t len)
{
    uint32_t tail = (c->head + c->used) % VSOCK_BUF, first = len < VSOCK_BUF - tail ? len : VSOCK_BUF - tail;

    if (!c->buf)
        c->buf = malloc(VSOCK_BUF);
    if (!c->buf)
        return false;
    memcpy(c->buf + tail, data, first);
    memcpy(c->buf, data + first, len - first);
    c->used += len;
    return true;
}

static void vsock_data(struct virtio_vsock *v, struct vsock_conn *c, uint32_t len)
{
    ssize_t n = 0;

    if (c->host_shut & VSOCK_SHUT_RCV) { /* sent before it knew */
        vsock_took(v, c, len);
        return;
    }
    if (len > VSOCK_BUF - c->used || (c->guest_shut & VSOCK_SHUT_SEND)) {
        vsock_kill(v, c); /* more than we said that we can hold */
        return;
    }
    if (!c->used && len)
        n = v->backend.write(c->stream, v->data, len);
    if (n < 0 && n != -EAGAIN) {
        vsock_took(v, c, len);
        vsock_stream_broke(v, c);
        return;
    }
    n = n < 0 ? 0 : n;
    vsock_took(v, c, (uint32_t)n);
    if ((uint32_t)n < len && !vsock_keep(c, v->data + n, len - (uint32_t)n))
        vsock_kill(v, c);
}

/* ---- packets ---- */

static void vsock_request(struct virtio_vsock *v, const struct vsock_packet *p)
{
    struct vsock_conn *c = vsock_add(v, p->src_port, p->dst_port, VSOCK_OPEN);
    void *stream = c ? v->backend.connect(v->backend.opaque, p->dst_port, c) : NULL;

    if (!stream) {
        if (c)
            vsock_remove(v, c);
        vsock_refuse(v, p);
        return;
    }
    c->stream = stream;
    c->buf_alloc = p->buf_alloc;
    c->fwd = p->fwd_cnt;
    vsock_tell(v, c, VSOCK_TELL_RESPONSE);
    vsock_watch(v, c);
}

static void vsock_response(struct virtio_vsock *v, struct vsock_conn *c)
{
    if (c->phase != VSOCK_ASKED || (c->pending & VSOCK_TELL_REQUEST)) {
        vsock_kill(v, c);
        return;
    }
    c->phase = VSOCK_OPEN;
    v->backend.accepted(c->stream, c->host_port);
}

/* A packet of an open connection. */
static void vsock_open_packet(struct virtio_vsock *v, struct vsock_conn *c, const struct vsock_packet *p)
{
    switch (p->op) {
    case VSOCK_OP_RW:
        vsock_data(v, c, p->len);
        break;
    case VSOCK_OP_SHUTDOWN:
        c->guest_shut |= p->flags & VSOCK_SHUT_BOTH;
        vsock_settle(v, c);
        break;
    case VSOCK_OP_CREDIT_REQUEST:
        vsock_tell(v, c, VSOCK_TELL_CREDIT);
        break;
    case VSOCK_OP_CREDIT_UPDATE:
        break;
    default:
        vsock_kill(v, c);
        break;
    }
}

static void vsock_packet_of(struct virtio_vsock *v, struct vsock_conn *c, const struct vsock_packet *p)
{
    c->buf_alloc = p->buf_alloc;
    c->fwd = p->fwd_cnt;
    if (vsock_credit(c))
        c->pending &= (uint8_t)~VSOCK_TELL_ASK;
    if (p->op == VSOCK_OP_RST)
        vsock_remove(v, c);
    else if (c->phase == VSOCK_DEAD)
        return; /* it will hear */
    else if (p->op == VSOCK_OP_RESPONSE)
        vsock_response(v, c);
    else if (c->phase == VSOCK_OPEN)
        vsock_open_packet(v, c, p);
    else
        vsock_kill(v, c);
    if (p->op != VSOCK_OP_RST) {
        vsock_watch(v, c);
        vsock_later(v);
    }
}

void vsock_handle(struct virtio_vsock *v, const struct vsock_packet *p)
{
    struct vsock_conn *c;

    if (p->src_cid != ld_le64(v->config))
        return; /* not its own address */
    if (p->dst_cid != VSOCK_HOST_CID || p->type != VSOCK_STREAM) {
        vsock_refuse(v, p);
        return;
    }
    c = vsock_find(v, p->src_port, p->dst_port);
    if (c)
        vsock_packet_of(v, c, p);
    else if (p->op == VSOCK_OP_REQUEST)
        vsock_request(v, p);
    else
        vsock_refuse(v, p);
}

/* ---- to the guest ---- */

static bool vsock_has_data(const struct vsock_conn *c)
{
    return vsock_may_read(c) && c->readable && vsock_credit(c);
}

bool vsock_wants(const struct vsock_conn *c) { return c->pending || vsock_has_data(c); }

static void vsock_fill(struct virtio_vsock *v, struct vsock_conn *c, uint16_t op, struct vsock_packet *p)
{
    *p = (struct vsock_packet){
        .src_cid = VSOCK_HOST_CID,
        .dst_cid = ld_le64(v->config),
        .src_port = c->host_port,
        .dst_port = c->guest_port,
        .type = VSOCK_STREAM,
        .op = op,
        .buf_alloc = VSOCK_BUF,
        .fwd_cnt = c->taken,
    };
    c->told = c->taken;
    c->pending &= (uint8_t)~VSOCK_TELL_CREDIT; /* every packet tells it */
}

/* Bytes of the stream, its end, or nothing. */
static bool vsock_next_data(struct virtio_vsock *v, struct vsock_conn *c, uint32_t room, struct vsock_packet *p)
{
    uint32_t credit = vsock_credit(c), len = room < VSOCK_PACKET ? room : VSOCK_PACKET;
    ssize_t n = v->backend.read(c->stream, v->data, len < credit ? len : credit);

    if (n == -EAGAIN) {
        c->readable = false;
        vsock_watch(v, c);
        return false;
    }
    if (n <= 0) {
        c->ended = true;
        c->host_shut |= n < 0 ? VSOCK_SHUT_BOTH : VSOCK_SHUT_SEND;
        c->pending |= VSOCK_TELL_SHUTDOWN;
        vsock_watch(v, c);
        return vsock_next(v, c, room, p);
    }
    vsock_fill(v, c, VSOCK_OP_RW, p);
    p->len = (uint32_t)n;
    c->sent += p->len;
    if (!vsock_credit(c))
        c->pending |= VSOCK_TELL_ASK;
    return true;
}

bool vsock_next(struct virtio_vsock *v, struct vsock_conn *c, uint32_t room, struct vsock_packet *p)
{
    static const struct {
        uint8_t bit;
        uint16_t op;
    } words[] = {
        { VSOCK_TELL_RST, VSOCK_OP_RST },           { VSOCK_TELL_REQUEST, VSOCK_OP_REQUEST },
        { VSOCK_TELL_RESPONSE, VSOCK_OP_RESPONSE }, { VSOCK_TELL_CREDIT, VSOCK_OP_CREDIT_UPDATE },
        { VSOCK_TELL_ASK, VSOCK_OP_CREDIT_REQUEST }, { VSOCK_TELL_SHUTDOWN, VSOCK_OP_SHUTDOWN },
    };

    for (unsigned n = 0; n < ARRAY_LEN(words); n++) {
        if (!(c->pending & words[n].bit))
            continue;
        c->pending &= (uint8_t)~words[n].bit;
        vsock_fill(v, c, words[n].op, p);
        p->flags = words[n].op == VSOCK_OP_SHUTDOWN ? c->host_shut : 0;
        if (words[n].op == VSOCK_OP_RST)
            vsock_remove(v, c);
        return true;
    }
    return vsock_has_data(c) && room && vsock_next_data(v, c, room, p);
}

/* ---- from the host's side ---- */

struct vsock_conn *virtio_vsock_open(struct virtio_vsock *v, uint32_t port, void *stream)
{
    struct vsock_conn *c;

    if (!virtio_is_live(&v->vp) || v->standing)
        return NULL;
    do {
        v->next_port = v->next_port < VSOCK_PORT_FIRST ? VSOCK_PORT_FIRST : v->next_port + 1;
    } while (vsock_find(v, port, v->next_port));
    c = vsock_add(v, port, v->next_port, VSOCK_ASKED);
    if (!c)
        return NULL;
    c->stream = stream;
    vsock_tell(v, c, VSOCK_TELL_REQUEST);
    return c;
}

void virtio_vsock_ready(struct virtio_vsock *v, struct vsock_conn *c, bool in, bool out)
{
    c->readable |= in;
    if (out && c->phase == VSOCK_OPEN)
        vsock_drain(v, c);
    vsock_watch(v, c);
    vsock_later(v);
}
