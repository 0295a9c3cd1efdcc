/* Between vsock.c (rings, life) and vsock_conn.c (connections). */
#ifndef VITRO_VIRTIO_VSOCK_INT_H
#define VITRO_VIRTIO_VSOCK_INT_H

#include "virtio/vsock.h"

#define VSOCK_HEADER 44U
#define VSOCK_PACKET (64U << 10) /* bytes of data */

enum { VSOCK_STREAM = 1 };
enum {
    VSOCK_OP_REQUEST = 1,
    VSOCK_OP_RESPONSE = 2,
    VSOCK_OP_RST = 3,
    VSOCK_OP_SHUTDOWN = 4,
    VSOCK_OP_RW = 5,
    VSOCK_OP_CREDIT_UPDATE = 6,
    VSOCK_OP_CREDIT_REQUEST = 7
};
/* Flags of SHUTDOWN: the sender of it will receive, or send, no more. */
enum { VSOCK_SHUT_RCV = 1, VSOCK_SHUT_SEND = 2, VSOCK_SHUT_BOTH = 3 };
/* What the guest is to be told about a connection, in this order. */
enum {
    VSOCK_TELL_REQUEST = 1,
    VSOCK_TELL_RESPONSE = 2,
    VSOCK_TELL_CREDIT = 4,
    VSOCK_TELL_ASK = 8, /* how much room it has */
    VSOCK_TELL_SHUTDOWN = 16,
    VSOCK_TELL_RST = 32
};

/* A packet without its data. */
struct vsock_packet {
    uint64_t src_cid, dst_cid;
    uint32_t src_port, dst_port, len, flags, buf_alloc, fwd_cnt;
    uint16_t type, op;
};

/* vsock_conn.c. Handle one packet of the guest whose data (p->len bytes) is in v->data; there is room for one answer in
 * v->reset[]. */
void vsock_handle(struct virtio_vsock *v, const struct vsock_packet *p);
/* The next packet of c for the guest, which has room for at most room bytes of data, put into v->data: true if there is
 * one. After it c may be gone. */
bool vsock_next(struct virtio_vsock *v, struct vsock_conn *c, uint32_t room, struct vsock_packet *p);
/* c may have a packet for the guest. */
bool vsock_wants(const struct vsock_conn *c);
/* Watch for what there is room for. */
void vsock_watch(struct virtio_vsock *v, struct vsock_conn *c);
/* All connections end at once, without a word to the guest. */
void vsock_drop_all(struct virtio_vsock *v);
/* vsock.c: look at the rings soon. */
void vsock_later(struct virtio_vsock *v);

#endif
