/* See inner.h. */
#include "net/inner.h"

#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/clock.h"
#include "net/net.h"
#include "net/offload.h"

enum { ETH = 14, ARP_LEN = 28, IP_LEN = 20, TCP_LEN = 20, AT_IP = ETH, AT_TCP = ETH + IP_LEN, AT_DATA = ETH + IP_LEN + TCP_LEN };
enum { TYPE_IP = 0x0800, TYPE_ARP = 0x0806, PROTO_TCP = 6, OPT_MSS = 2 };
enum { FIN = 1, SYN = 2, RST = 4, PSH = 8, ACK = 16 };

#define INNER_MSS   1400U
#define INNER_MSS_MIN 64U /* a smaller one would be a guest that wants a packet for each byte */
#define INNER_AGAIN_MS 300
#define INNER_TRIES 6
#define INNER_IDLE_NS (10 * NSEC_PER_SEC)
#define INNER_STALE_NS NSEC_PER_SEC /* a connection that is silent for so long makes room for another */

static const uint8_t inner_mac[6] = { 0x06, 0x00, 169, 254, 169, 254 }; /* locally administered, one card's */

/* Sequence numbers begin with our SYN at iss; the answer's first byte is iss + 1, the FIN stands behind its last. */
struct inner_conn {
    bool used, answered, heard_fin;
    uint8_t mac[6], ip[4];
    uint16_t port;
    uint32_t rcv, iss;     /* what comes next; our SYN */
    uint32_t una, nxt, max; /* ours, from iss on: heard of; sent next; sent at most */
    uint32_t window;
    unsigned mss, tries;
    uint64_t heard, sent_at; /* when */
    size_t len, out_len;
    char *out; /* owned */
    char request[INNER_REQUEST];
};

struct inner {
    const struct inner_server *srv;
    void (*emit)(void *opaque, uint8_t *data, uint32_t len);
    void *opaque;
    uint64_t now;
    uint32_t starts;
    struct inner_conn conn[INNER_CONNS];
    uint8_t frame[AT_DATA + 4 + INNER_MSS];
};

/* A segment, looked at. */
struct inner_seg {
    const uint8_t *frame, *data;
    uint16_t from, window, flags, mss;
    uint32_t seq, ack, len;
};

static void put_sum(uint8_t *p, uint64_t sum)
{
    uint16_t v = net_fold(sum);
    memcpy(p, &v, sizeof(v));
}

/* ---- sending ---- */

static void inner_ethernet(struct inner *in, const uint8_t mac[6], unsigned type)
{
    memcpy(in->frame, mac, 6);
    memcpy(in->frame + 6, inner_mac, 6);
    st_be16(in->frame + 12, (uint16_t)type);
}

/* A segment of n bytes of data, which may be NULL, to a connection's other side, or to whoever sent something without one. */
static void inner_send(struct inner *in, const struct inner_conn *c, uint32_t seq, unsigned flags, const char *data, size_t n)
{
    uint8_t *ip = in->frame + AT_IP, *tcp = in->frame + AT_TCP;
    unsigned options = flags & SYN ? 4 : 0, segment = TCP_LEN + options + (unsigned)n;
    uint8_t be[2];

    inner_ethernet(in, c->mac, TYPE_IP);
    memset(ip, 0, IP_LEN + TCP_LEN);
    ip[0] = 0x45;
    st_be16(ip + 2, (uint16_t)(IP_LEN + segment));
    ip[6] = 0x40; /* in one piece */
    ip[8] = 64;
    ip[9] = PROTO_TCP;
    memcpy(ip + 12, in->srv->ip, 4);
    memcpy(ip + 16, c->ip, 4);
    put_sum(ip + 10, net_sum(ip, IP_LEN, 0));
    st_be16(tcp, in->srv->port);
    st_be16(tcp + 2, c->port);
    st_be32(tcp + 4, seq);
    st_be32(tcp + 8, flags & ACK ? c->rcv : 0);
    tcp[12] = (uint8_t)((TCP_LEN + options) << 2);
    tcp[13] = (uint8_t)flags;
    st_be16(tcp + 14, INNER_REQUEST);
    if (options) {
        tcp[TCP_LEN] = OPT_MSS;
        tcp[TCP_LEN + 1] = 4;
        st_be16(tcp + TCP_LEN + 2, INNER_MSS);
    }
    if (n)
        memcpy(tcp + TCP_LEN + options, data, n);
    st_be16(be, (uint16_t)segment);
    put_sum(tcp + 16, net_sum(tcp, segment, net_sum(ip + 12, 8, net_sum(be, 2, 0) + (uint64_t)PROTO_TCP * 256)));
    in->emit(in->opaque, in->frame, AT_TCP + segment);
}

static void conn_free(struct inner_conn *c)
{
    free(c->out);
    *c = (struct inner_conn){ .used = false };
}

/* Where our bytes end: SYN, answer, FIN. */
static uint32_t conn_end(const struct inner_conn *c) { return c->answered ? 1 + (uint32_t)c->out_len + 1 : 1; }

static void conn_sent(struct inner *in, struct inner_conn *c, uint32_t n)
{
    c->nxt += n;
    if (c->nxt > c->max)
        c->max = c->nxt;
    c->sent_at = in->now;
}

/* What the window has room for. */
static void conn_push(struct inner *in, struct inner_conn *c)
{
    if (c->nxt == 0) {
        inner_send(in, c, c->iss, SYN | ACK, NULL, 0);
        conn_sent(in, c, 1);
        return;
    }
    while (c->una && c->answered && c->nxt < conn_end(c)) {
        uint32_t at = c->nxt - 1, left = (uint32_t)c->out_len - at, open = c->una + c->window;
        uint32_t n = left < c->mss ? left : c->mss;
        bool last;

        if (n && open < c->nxt + n)
            n = open > c->nxt ? open - c->nxt : 0;
        last = at + n == c->out_len;
        if (!n && !last)
            return;
        inner_send(in, c, c->iss + c->nxt, ACK | (last ? FIN | PSH : 0), c->out + at, n);
        conn_sent(in, c, n + last);
    }
}

/* ---- receiving ---- */

static void inner_refuse(struct inner *in, const struct inner_seg *s)
{
    struct inner_conn c = { .port = s->from, .rcv = s->seq + s->len + !!(s->flags & SYN) + !!(s->flags & FIN) };

    if (s->flags & RST)
        return;
    memcpy(c.mac, s->frame + 6, 6);
    memcpy(c.ip, s->frame + AT_IP + 12, 4);
    inner_send(in, &c, s->flags & ACK ? s->ack : 0, RST | ACK, NULL, 0);
}

static struct inner_conn *inner_find(struct inner *in, const struct inner_seg *s)
{
    for (unsigned n = 0; n < INNER_CONNS; n++) {
        struct inner_conn *c = &in->conn[n];

        if (c->used && c->port == s->from && !memcmp(c->ip, s->frame + AT_IP + 12, 4))
            return c;
    }
    return NULL;
}

/* A free one, or the one that was silent for the longest time, if that is long: whoever is too many asks again a second later. */
static struct inner_conn *inner_room(struct inner *in)
{
    struct inner_conn *c = &in->conn[0];

    for (unsigned n = 0; n < INNER_CONNS && c->used; n++) {
        if (!in->conn[n].used || in->conn[n].heard < c->heard)
            c = &in->conn[n];
    }
    return !c->used || in->now >= c->heard + INNER_STALE_NS ? c : NULL;
}

static void inner_open(struct inner *in, const struct inner_seg *s)
{
    struct inner_conn *c = inner_room(in);

    if (!c)
        return;
    conn_free(c);
    c->used = true;
    memcpy(c->mac, s->frame + 6, 6);
    memcpy(c->ip, s->frame + AT_IP + 12, 4);
    c->port = s->from;
    c->rcv = s->seq + 1;
    c->iss = (uint32_t)(in->now / 4000) + in->starts++ * 0x10001;
    c->window = s->window;
    c->mss = s->mss < INNER_MSS ? s->mss : INNER_MSS;
    if (c->mss < INNER_MSS_MIN)
        c->mss = INNER_MSS_MIN;
    c->heard = in->now;
    conn_push(in, c);
}

/* The acknowledgement of a segment. False: it acknowledges what was never sent. */
static bool conn_acked(struct inner_conn *c, const struct inner_seg *s)
{
    uint32_t ack = s->ack - c->iss;

    if (ack > c->max)
        return false;
    c->window = s->window;
    if (ack > c->una) {
        c->una = ack;
        c->tries = 0;
        if (c->nxt < ack)
            c->nxt = ack;
    }
    return true;
}

/* Data that comes next. What is behind a whole request is of no interest. */
static void conn_data(struct inner *in, struct inner_conn *c, const uint8_t *data, size_t n)
{
    if (!c->answered) {
        size_t room = INNER_REQUEST - c->len, part = n < room ? n : room;

        memcpy(c->request + c->len, data, part);
        c->len += part;
        c->out = malloc(in->srv->answer_max);
        c->out_len = c->out ? in->srv->answer(in->srv->opaque, c->request, c->len, c->out) : 0;
        c->answered = c->out_len || c->len == INNER_REQUEST || !c->out;
        if (!c->answered) {
            free(c->out);
            c->out = NULL;
        }
    }
    c->rcv += (uint32_t)n;
}

static void conn_segment(struct inner *in, struct inner_conn *c, const struct inner_seg *s)
{
    uint32_t old = c->rcv - s->seq; /* bytes that are known already */
    bool news;

    c->heard = in->now;
    if (s->flags & RST || !(s->flags & ACK) || !conn_acked(c, s)) {
        if (!(s->flags & RST))
            inner_refuse(in, s);
        conn_free(c);
        return;
    }
    news = s->len || s->flags & FIN || old;
    if (old <= s->len && !c->heard_fin) {
        if (s->len > old)
            conn_data(in, c, s->data + old, s->len - old);
        c->heard_fin = s->flags & FIN;
        c->rcv += c->heard_fin;
    }
    if (c->heard_fin && (!c->answered || c->una == conn_end(c))) { /* it will ask nothing, or has all */
        inner_send(in, c, c->iss + c->nxt, ACK | (c->answered ? 0 : RST), NULL, 0);
        conn_free(c);
        return;
    }
    if (news)
        inner_send(in, c, c->iss + c->nxt, ACK, NULL, 0);
    conn_push(in, c);
}

static void inner_segment(struct inner *in, const struct inner_seg *s)
{
    struct inner_conn *c = inner_find(in, s);

    if (!(s->flags & SYN)) {
        if (c)
            conn_segment(in, c, s);
        else
            inner_refuse(in, s);
    } else if (!(s->flags & (ACK | RST | FIN))) {
        if (c)
            conn_free(c); /* it begins anew, or has not heard of us */
        inner_open(in, s);
    }
}

/* ---- frames ---- */

static uint16_t seg_mss(const uint8_t *opt, size_t len)
{
    while (len >= 2 && *opt) {
        size_t n = *opt == 1 ? 1 : opt[1];

        if (*opt == OPT_MSS && n == 4 && len >= 4)
            return ld_be16(opt + 2);
        if (!n || n > len)
            break;
        opt += n;
        len -= n;
    }
    return 536;
}

/* Checksums are not looked at: between the guest's memory and ours no bit is lost, and the guest may leave them to the card. */
static void inner_ip(struct inner *in, const struct net_frame *f)
{
    const uint8_t *ip = f->data + AT_IP, *tcp;
    size_t head = (ip[0] & 15U) * 4, all = ld_be16(ip + 2), offset;
    struct inner_seg s = { .frame = f->data };

    if (ip[0] >> 4 != 4 || head < IP_LEN || all > f->len - ETH || all < head + TCP_LEN || ip[9] != PROTO_TCP || ld_be16(ip + 6) & 0x3fff)
        return;
    tcp = ip + head;
    offset = (tcp[12] >> 4) * 4U;
    if (offset < TCP_LEN || head + offset > all)
        return;
    s.from = ld_be16(tcp);
    s.seq = ld_be32(tcp + 4);
    s.ack = ld_be32(tcp + 8);
    s.flags = tcp[13];
    s.window = ld_be16(tcp + 14);
    s.data = tcp + offset;
    s.len = (uint32_t)(all - head - offset);
    s.mss = seg_mss(tcp + TCP_LEN, offset - TCP_LEN);
    if (ld_be16(tcp + 2) == in->srv->port) /* others are as if nobody were there */
        inner_segment(in, &s);
}

static bool inner_arp(struct inner *in, const uint8_t *arp)
{
    static const uint8_t request[8] = { 0, 1, 8, 0, 6, 4, 0, 1 }; /* Ethernet, IPv4, their lengths, who has it? */
    uint8_t *a = in->frame + ETH;

    if (memcmp(arp, request, sizeof(request)) || memcmp(arp + 24, in->srv->ip, 4))
        return false;
    inner_ethernet(in, arp + 8, TYPE_ARP);
    memcpy(a, request, sizeof(request));
    a[7] = 2;
    memcpy(a + 8, inner_mac, 6);
    memcpy(a + 14, in->srv->ip, 4);
    memcpy(a + 18, arp + 8, 10);
    in->emit(in->opaque, in->frame, ETH + ARP_LEN);
    return true;
}

bool inner_take(struct inner *in, const struct net_frame *f, uint64_t now)
{
    in->now = now;
    if (f->len >= ETH + ARP_LEN && ld_be16(f->data + 12) == TYPE_ARP)
        return inner_arp(in, f->data + ETH);
    if (f->len < AT_DATA || ld_be16(f->data + 12) != TYPE_IP || memcmp(f->data + AT_IP + 16, in->srv->ip, 4))
        return false;
    inner_ip(in, f);
    return true;
}

/* ---- time ---- */

/* When this connection wants to be looked at, as nanoseconds of the clock. */
static uint64_t conn_due(const struct inner_conn *c)
{
    uint64_t idle = c->heard + INNER_IDLE_NS, again = c->sent_at + (INNER_AGAIN_MS * NSEC_PER_MSEC << c->tries);

    return c->una < c->nxt && again < idle ? again : idle;
}

/* All that nobody has heard of goes out again. */
static void conn_again(struct inner *in, struct inner_conn *c)
{
    if (in->now >= c->heard + INNER_IDLE_NS || c->tries == INNER_TRIES) {
        conn_free(c);
        return;
    }
    c->tries++;
    c->nxt = c->una;
    conn_push(in, c);
    c->sent_at = in->now;
}

int inner_tick(struct inner *in, uint64_t now)
{
    uint64_t next = UINT64_MAX, due;

    in->now = now;
    for (unsigned n = 0; n < INNER_CONNS; n++) {
        struct inner_conn *c = &in->conn[n];

        if (c->used && conn_due(c) <= now)
            conn_again(in, c);
        due = c->used ? conn_due(c) : UINT64_MAX;
        next = due < next ? due : next;
    }
    return next == UINT64_MAX ? -1 : next <= now ? 1 : (int)((next - now) / NSEC_PER_MSEC) + 1;
}

struct inner *inner_create(const struct inner_server *srv, void (*emit)(void *opaque, uint8_t *data, uint32_t len), void *opaque)
{
    struct inner *in = calloc(1, sizeof(*in));

    if (in) {
        in->srv = srv;
        in->emit = emit;
        in->opaque = opaque;
    }
    return in;
}

void inner_destroy(struct inner *in)
{
    for (unsigned n = 0; in && n < INNER_CONNS; n++)
        conn_free(&in->conn[n]);
    free(in);
}
