/* A virtual switch between the machines of one user on one host, without a daemon: each member is a learning switch of its
 * own. It sends a frame to the member behind which it has seen the destination, or to all; it learns from what comes.
 *
 * A message is one datagram: a header (who sends, what is still to be done to the frame) and the frame, whole: between
 * two guests neither checksums nor cuts are made. A message without a frame says "here I am" or "I leave".
 *
 * A member that stands still or is killed must not stop the others: each peer has a bounded queue. A sender waits for a
 * peer that is slow; for one that took nothing for SWITCH_STUCK_MS, frames are dropped.
 *
 * Runs on: the port's thread.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/clock.h"
#include "base/err.h"
#include "net/switch_int.h"

#define SWITCH_MAGIC  0x31737776U /* "vws1" */
#define SWITCH_BUDGET 64          /* messages read, or sent to one peer, in one round */

enum { KIND_FRAME, KIND_HELLO, KIND_BYE };
enum { AT_MAGIC = 0, AT_KIND = 4, AT_ID = 8, AT_FLAGS = 16, AT_GSO = 17, AT_HDR_LEN = 18, AT_GSO_SIZE = 20 };
enum { AT_CSUM_START = 22, AT_CSUM_OFFSET = 24 };

static int64_t switch_now_ms(void) { return (int64_t)(clock_host_ns(CLOCK_MONOTONIC) / 1000000); }

/* ---- who is where ---- */

static uint64_t switch_get_mac(const uint8_t *p) { return ld_le32(p) | (uint64_t)ld_le16(p + 4) << 32; }
static bool switch_is_group(uint64_t mac) { return mac & 1; }

static struct switch_mac *switch_slot(struct net_switch *s, uint64_t mac)
{
    return &s->mac[(mac * 0x9e3779b97f4a7c15ULL) >> 54]; /* SWITCH_MACS is 2^10 */
}

static void switch_learn(struct net_switch *s, uint64_t mac, uint64_t peer)
{
    if (mac && !switch_is_group(mac))
        *switch_slot(s, mac) =
            (struct switch_mac){ .mac = mac, .peer = peer, .seen_ms = switch_now_ms() };
}

/* The member behind which the address is, or NULL: nobody knows. */
static struct switch_peer *switch_whose(struct net_switch *s, uint64_t mac)
{
    const struct switch_mac *m = switch_slot(s, mac);

    if (m->mac != mac || switch_now_ms() - m->seen_ms > SWITCH_AGE_MS)
        return NULL;
    return switch_find(s, m->peer);
}

/* ---- sending ---- */

static void switch_header(const struct net_switch *s, uint8_t *h, uint8_t kind, const struct net_meta *m)
{
    memset(h, 0, SWITCH_HEADER);
    st_le32(h + AT_MAGIC, SWITCH_MAGIC);
    h[AT_KIND] = kind;
    st_le64(h + AT_ID, s->id);
    h[AT_FLAGS] = m->flags;
    h[AT_GSO] = m->gso_type;
    st_le16(h + AT_HDR_LEN, m->hdr_len);
    st_le16(h + AT_GSO_SIZE, m->gso_size);
    st_le16(h + AT_CSUM_START, m->csum_start);
    st_le16(h + AT_CSUM_OFFSET, m->csum_offset);
}

/* 0, -EAGAIN, or -ECONNREFUSED: its process is gone. What else may be wrong concerns this one message. */
static int switch_put(const struct switch_peer *p, const uint8_t *head, const uint8_t *data, size_t len)
{
    struct iovec iov[2] = { { (uint8_t *)(uintptr_t)head, SWITCH_HEADER },
                            { (uint8_t *)(uintptr_t)data, len } };
    struct msghdr m = { .msg_iov = iov, .msg_iovlen = data ? 2 : 1 };

    if (sendmsg(p->fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0)
        return 0;
    if (errno == EAGAIN || errno == ECONNREFUSED)
        return -errno;
    return errno == ECONNRESET || errno == EPIPE || errno == ENOTCONN ? -ECONNREFUSED : 0;
}

static void switch_queue(struct switch_peer *p, const uint8_t *head, const uint8_t *data, size_t len)
{
    struct switch_message *m =
        p->bytes > SWITCH_QUEUE ? NULL : malloc(sizeof(*m) + SWITCH_HEADER + len);

    if (!m)
        return;
    m->next = NULL;
    m->len = (uint32_t)len;
    memcpy(m->bytes, head, SWITCH_HEADER);
    memcpy(m->bytes + SWITCH_HEADER, data ? data : head, data ? len : 0);
    *p->tail = m;
    p->tail = &m->next;
    p->bytes += (uint32_t)len + SWITCH_HEADER;
}

/* To one peer, now or when it has room. False: it is gone. */
static bool switch_give(struct net_switch *s, struct switch_peer *p, const uint8_t *head, const uint8_t *data,
                        size_t len)
{
    int r = p->head ? -EAGAIN : switch_put(p, head, data, len);

    if (r == -ECONNREFUSED) {
        switch_drop(s, p, true);
        return false;
    }
    if (!p->head)
        p->moved_ms = switch_now_ms();
    if (r == -EAGAIN)
        switch_queue(p, head, data, len);
    return true;
}

static void switch_flood(struct net_switch *s, const uint8_t *head, const uint8_t *data, size_t len)
{
    for (unsigned n = 0; n < s->peers;)
        n += switch_give(s, s->peer[n], head, data, len); /* the last takes the place of one that is gone */
}

static int switch_send(void *backend, struct net_frame *f)
{
    struct net_switch *s = backend;
    uint64_t to = switch_get_mac(f->data);
    uint8_t head[SWITCH_HEADER];
    struct switch_peer *p = switch_is_group(to) ? NULL : switch_whose(s, to);

    if (p && p->bytes > SWITCH_QUEUE)
        return switch_now_ms() - p->moved_ms < SWITCH_STUCK_MS ? -EAGAIN : 0;
    switch_header(s, head, KIND_FRAME, &f->meta);
    if (p)
        switch_give(s, p, head, f->data, f->len);
    else
        switch_flood(s, head, f->data, f->len);
    return 0;
}

/* Send what waits for a peer, as long as it takes it. False: it is gone. */
static bool switch_drain(struct net_switch *s, struct switch_peer *p)
{
    struct switch_message *m;

    for (unsigned n = 0; n < SWITCH_BUDGET && (m = p->head); n++) {
        int r = switch_put(p, m->bytes, m->len ? m->bytes + SWITCH_HEADER : NULL, m->len);

        if (r == -EAGAIN)
            break;
        if (r == -ECONNREFUSED) {
            switch_drop(s, p, true);
            return false;
        }
        p->moved_ms = switch_now_ms();
        p->bytes -= m->len + SWITCH_HEADER;
        p->head = m->next;
        if (!p->head)
            p->tail = &p->head;
        free(m);
    }
    return true;
}

/* ---- receiving ---- */

/* One message; false when there is none. */
static bool switch_receive(struct net_switch *s)
{
    uint8_t h[SWITCH_HEADER];
    struct iovec iov[2] = { { h, sizeof(h) }, { s->buf, sizeof(s->buf) } };
    struct msghdr m = { .msg_iov = iov, .msg_iovlen = 2 };
    ssize_t n = recvmsg(s->fd, &m, MSG_DONTWAIT);
    struct switch_peer *p;

    if (n < 0)
        return false;
    if (n < SWITCH_HEADER || (m.msg_flags & MSG_TRUNC) || ld_le32(h + AT_MAGIC) != SWITCH_MAGIC)
        return true;
    p = switch_find(s, ld_le64(h + AT_ID));
    if (h[AT_KIND] == KIND_BYE && p)
        switch_drop(s, p, false);
    if (h[AT_KIND] != KIND_FRAME || !p || n < SWITCH_HEADER + (int)NET_FRAME_MIN)
        return true;
    struct net_frame f = {
        .meta = { .flags = h[AT_FLAGS] & (NET_CSUM_NEEDED | NET_CSUM_VALID),
                  .gso_type = h[AT_GSO],
                  .hdr_len = ld_le16(h + AT_HDR_LEN),
                  .gso_size = ld_le16(h + AT_GSO_SIZE),
                  .csum_start = ld_le16(h + AT_CSUM_START),
                  .csum_offset = ld_le16(h + AT_CSUM_OFFSET) },
        .data = s->buf,
        .len = (uint32_t)(n - SWITCH_HEADER),
    };
    switch_learn(s, switch_get_mac(s->buf + 6), p->id);
    net_receive(s->port, &f);
    return true;
}

static void switch_fill(void *backend, struct net_polls *ps)
{
    struct net_switch *s = backend;

    s->at = net_may_receive(s->port) ? net_polls_add(ps, s->fd, POLLIN) : -1;
    for (unsigned n = 0; n < s->peers; n++) {
        struct switch_peer *p = s->peer[n];

        p->at = p->head ? net_polls_add(ps, p->fd, POLLOUT) : -1;
        if (p->bytes > SWITCH_QUEUE && switch_now_ms() - p->moved_ms < SWITCH_STUCK_MS)
            net_polls_wait(ps, SWITCH_STUCK_MS); /* then whoever waits for it goes on */
    }
}

static bool switch_is_ready(const struct net_polls *ps, int at)
{
    return at >= 0 && (unsigned)at < ps->n && ps->fd[at].revents;
}

static void switch_ready(void *backend, struct net_polls *ps)
{
    struct net_switch *s = backend;

    for (unsigned n = 0; n < s->peers;)
        n += !switch_is_ready(ps, s->peer[n]->at) || switch_drain(s, s->peer[n]);
    if (!switch_is_ready(ps, s->at))
        return;
    for (unsigned n = 0; n < SWITCH_BUDGET && net_may_receive(s->port); n++) {
        if (!switch_receive(s))
            break;
    }
}

static void switch_say(struct net_switch *s, uint8_t kind)
{
    uint8_t head[SWITCH_HEADER];
    struct net_meta none = { .flags = 0 };

    switch_header(s, head, kind, &none);
    switch_flood(s, head, NULL, 0);
}

static void switch_close(void *backend)
{
    struct net_switch *s = backend;

    if (s->fd >= 0)
        switch_say(s, KIND_BYE);
    switch_leave(s);
    free(s);
}

static const struct net_backend_ops switch_ops = { .caps = NET_CAP_CSUM | NET_CAP_TSO,
                                                   .send = switch_send,
                                                   .fill = switch_fill,
                                                   .ready = switch_ready,
                                                   .close = switch_close };

int net_switch_open(struct net_port *p, const struct net_config *cfg, struct err *err)
{
    struct net_switch *s = calloc(1, sizeof(*s));
    int r;

    if (!s)
        return err_set(err, ENOMEM, "no memory for a switch");
    s->port = p;
    s->dir = s->fd = s->at = -1;
    p->ops = &switch_ops;
    p->backend = s;
    r = switch_join(s, cfg->name, err);
    if (r == 0)
        switch_say(s, KIND_HELLO);
    return r;
}
