/* Checksums and segmentation in software, see offload.h.
 * Source: RFC 1071 (Internet checksum), RFC 791, RFC 8200, RFC 9293 (TCP), virtio 1.2, 5.1.6.2.
 */
#include "net/offload.h"

#include <errno.h>
#include <string.h>

#include "base/bits.h"

#define ETH_LEN  14U
#define VLAN_LEN 4U
#define IP4_MIN  20U
#define IP6_LEN  40U
#define TCP_MIN  20U

enum { TYPE_IP4 = 0x0800, TYPE_IP6 = 0x86dd, TYPE_VLAN = 0x8100, TYPE_QINQ = 0x88a8 };
enum { PROTO_HOP = 0, PROTO_TCP = 6, PROTO_UDP = 17, PROTO_ROUTE = 43, PROTO_OPTS = 60 };
enum { TCP_FIN = 0x01, TCP_PSH = 0x08, TCP_CWR = 0x80 };

#define NET_EXTENSIONS 8    /* IPv6 extension headers that are looked behind */
#define NET_SEGMENTS   2048 /* of one packet: the work that one frame may cause */

/* ---- headers ---- */

static int net_parse_ip4(const uint8_t *data, size_t len, struct net_layout *l)
{
    const uint8_t *ip = data + l->l3;
    size_t room = len - l->l3, hlen;

    if (room < IP4_MIN || ip[0] >> 4 != 4)
        return -EINVAL;
    hlen = (ip[0] & 0xfU) * 4;
    if (hlen < IP4_MIN || hlen > room)
        return -EINVAL;
    l->protocol = ip[9];
    if (!(ld_be16(ip + 6) & 0x1fff))
        l->l4 = (uint16_t)(l->l3 + hlen);
    return 0;
}

static int net_parse_ip6(const uint8_t *data, size_t len, struct net_layout *l)
{
    size_t at = l->l3 + IP6_LEN;

    if (at > len || data[l->l3] >> 4 != 6)
        return -EINVAL;
    l->v6 = true;
    l->protocol = data[l->l3 + 6];
    for (unsigned n = 0; l->protocol == PROTO_HOP || l->protocol == PROTO_ROUTE || l->protocol == PROTO_OPTS;
         n++) {
        if (n == NET_EXTENSIONS || at + 8 > len)
            return -EINVAL;
        l->protocol = data[at];
        at += 8 * (data[at + 1] + 1U);
    }
    if (at > len)
        return -EINVAL;
    l->l4 = (uint16_t)at;
    return 0;
}

int net_parse(const uint8_t *data, size_t len, struct net_layout *l)
{
    *l = (struct net_layout){ .l3 = ETH_LEN };
    if (len < ETH_LEN || len > NET_FRAME_MAX)
        return -EINVAL;
    l->ethertype = ld_be16(data + 12);
    for (unsigned n = 0; n < 2 && (l->ethertype == TYPE_VLAN || l->ethertype == TYPE_QINQ); n++) {
        if (l->l3 + VLAN_LEN > len)
            return -EINVAL;
        l->ethertype = ld_be16(data + l->l3 + 2);
        l->l3 += VLAN_LEN;
    }
    if (l->ethertype == TYPE_IP4)
        return net_parse_ip4(data, len, l);
    if (l->ethertype == TYPE_IP6)
        return net_parse_ip6(data, len, l);
    return 0;
}

uint32_t net_flow(const uint8_t *data, size_t len)
{
    struct net_layout l;
    uint32_t h = 0;

    if (net_parse(data, len, &l) < 0 || !l.l4)
        return 0;
    unsigned at = l.l3 + (l.v6 ? 8U : 12U), n = l.v6 ? 8 : 2; /* words of both addresses */
    for (unsigned i = 0; i < n; i++)
        h ^= ld_be32(data + at + 4 * i);
    if ((l.protocol == PROTO_TCP || l.protocol == PROTO_UDP) && l.l4 + 4U <= len)
        h ^= (uint32_t)(ld_be16(data + l.l4) ^ ld_be16(data + l.l4 + 2)) * 0x10001U;
    return (h ^ h >> 15) * 0x9e3779b1U >> 16;
}

/* ---- checksums ---- */

uint64_t net_sum(const uint8_t *data, size_t len, uint64_t sum)
{
    uint64_t a = 0, b = 0, c = 0, d = 0;

    for (; len >= 16; data += 16, len -= 16) { /* 32-bit words into 64-bit sums: no carries to think of */
        a += ld_le32(data);
        b += ld_le32(data + 4);
        c += ld_le32(data + 8);
        d += ld_le32(data + 12);
    }
    for (; len >= 2; data += 2, len -= 2)
        a += ld_le16(data);
    if (len)
        a += *data;
    return sum + a + b + c + d;
}

uint16_t net_fold(uint64_t sum)
{
    sum = (sum & 0xffffffff) + (sum >> 32);
    sum = (sum & 0xffffffff) + (sum >> 32);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)~sum;
}

bool net_meta_ok(const struct net_meta *m, size_t len)
{
    uint8_t gso = m->gso_type & (uint8_t)~NET_GSO_ECN;

    if ((m->flags & NET_CSUM_NEEDED) && (size_t)m->csum_start + m->csum_offset + 2 > len)
        return false;
    if (gso == NET_GSO_NONE)
        return !m->gso_type;
    return (gso == NET_GSO_TCP4 || gso == NET_GSO_TCP6) && m->gso_size && (m->flags & NET_CSUM_NEEDED);
}

void net_finish_csum(struct net_frame *f)
{
    struct net_meta *m = &f->meta;
    uint16_t sum;

    if (!(m->flags & NET_CSUM_NEEDED))
        return;
    /* The field holds the pseudo header's part of the sum already. */
    sum = net_fold(net_sum(f->data + m->csum_start, f->len - m->csum_start, 0));
    if (!sum && m->csum_offset == 6)
        sum = 0xffff; /* UDP: 0 says that there is none (RFC 768) */
    memcpy(f->data + m->csum_start + m->csum_offset, &sum, sizeof(sum));
    m->flags = NET_CSUM_VALID;
}

/* ---- segmentation ---- */

struct net_cut {
    struct net_layout l;
    uint32_t headers;     /* bytes of all headers */
    uint64_t pseudo;      /* sum of the pseudo header without the length */
    uint32_t seq;
    uint16_t id;
    uint8_t flags;
};

static int net_cut_init(struct net_cut *c, const struct net_frame *f)
{
    const uint8_t *d = f->data;

    if (net_parse(d, f->len, &c->l) < 0 || !c->l.l4 || c->l.protocol != PROTO_TCP ||
        c->l.l4 + TCP_MIN > f->len)
        return -EINVAL;
    c->headers = c->l.l4 + (d[c->l.l4 + 12] >> 4) * 4U;
    if (c->headers < c->l.l4 + TCP_MIN || c->headers > f->len)
        return -EINVAL;
    c->pseudo = net_sum(d + c->l.l3 + (c->l.v6 ? 8 : 12), c->l.v6 ? 32 : 8, PROTO_TCP << 8);
    c->seq = ld_be32(d + c->l.l4 + 4);
    c->id = c->l.v6 ? 0 : ld_be16(d + c->l.l3 + 4);
    c->flags = d[c->l.l4 + 13];
    return 0;
}

/* The headers of segment n at buf, for n bytes of payload from byte off on that lie behind them. */
static void net_cut_headers(const struct net_cut *c, uint8_t *buf, unsigned n, uint32_t off, uint32_t payload,
                            bool last)
{
    uint8_t *ip = buf + c->l.l3, *tcp = buf + c->l.l4, flags = c->flags, be[2];
    uint32_t l4_len = c->headers - c->l.l4 + payload;
    uint16_t sum;

    if (c->l.v6) {
        st_be16(ip + 4, (uint16_t)(c->headers - c->l.l3 - IP6_LEN + payload));
    } else {
        st_be16(ip + 2, (uint16_t)(c->headers - c->l.l3 + payload));
        st_be16(ip + 4, (uint16_t)(c->id + n));
        st_be16(ip + 10, 0);
        sum = net_fold(net_sum(ip, c->l.l4 - c->l.l3, 0));
        memcpy(ip + 10, &sum, 2);
    }
    st_be32(tcp + 4, c->seq + off);
    if (!last)
        flags &= (uint8_t)~(TCP_FIN | TCP_PSH);
    if (n)
        flags &= (uint8_t)~TCP_CWR; /* the first one says it (RFC 3168) */
    tcp[13] = flags;
    st_be16(tcp + 16, 0);
    st_be16(be, (uint16_t)l4_len);
    sum = net_fold(net_sum(tcp, l4_len, c->pseudo + ld_le16(be)));
    memcpy(tcp + 16, &sum, 2);
}

int net_segment(const struct net_frame *f, unsigned skip, uint8_t *buf,
                int (*emit)(void *opaque, uint8_t *data, uint32_t len), void *opaque)
{
    struct net_cut c;
    uint32_t total, size = f->meta.gso_size;
    int r = net_cut_init(&c, f);

    if (r < 0)
        return r;
    total = f->len - c.headers;
    if (!size || total / size >= NET_SEGMENTS)
        return -EINVAL;
    for (uint32_t n = skip, off = skip * size; r == 0 && (off < total || !n); n++, off += size) {
        uint32_t payload = total - off < size ? total - off : size;

        memcpy(buf, f->data, c.headers);
        memcpy(buf + c.headers, f->data + c.headers + off, payload);
        net_cut_headers(&c, buf, n, off, payload, off + payload == total);
        r = emit(opaque, buf, c.headers + payload);
    }
    return r;
}
