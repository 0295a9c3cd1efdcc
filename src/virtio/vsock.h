/* The virtio socket device: streams between programs of the guest (AF_VSOCK) and of the host.
 *
 * The device speaks the packets of virtio 1.2, 5.10; what a stream is on the host is the back end's business
 * (machine/pc_vsock.c: unix sockets). It calls the back end, and the back end calls it, with the device lock held and on
 * the loop's thread only: a kick by a vCPU just wakes that thread.
 *
 * Bounds: VSOCK_CONNS connections, VSOCK_BUF bytes from the guest waiting in each; bytes from the host are read only when
 * the guest has room and credit for them.
 */
#ifndef VITRO_VIRTIO_VSOCK_H
#define VITRO_VIRTIO_VSOCK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/loop.h"
#include "bus/device.h"
#include "virtio/pci.h"

#define VSOCK_HOST_CID 2
#define VSOCK_CID_MIN  3
#define VSOCK_CID_MAX  0xfffffffeU
#define VSOCK_CONNS    256
#define VSOCK_BUF      (128U << 10)
#define VSOCK_RESETS   64

struct vsock_conn;

/* The host's side. Nothing blocks. */
struct vsock_backend {
    /* A program of the guest wants the host's port: a stream, or NULL: refused. */
    void *(*connect)(void *opaque, uint32_t port, struct vsock_conn *c);
    /* The guest took the connection that virtio_vsock_open() asked for; port is the host's. */
    void (*accepted)(void *stream, uint32_t port);
    ssize_t (*read)(void *stream, uint8_t *buf, size_t len); /* 0: nothing will come any more; -EAGAIN, -errno */
    ssize_t (*write)(void *stream, const uint8_t *buf, size_t len); /* -EAGAIN; else -errno: nobody reads */
    void (*shutdown)(void *stream);                                 /* no more write() */
    /* Call virtio_vsock_ready() when there is something to read, or room to write. */
    void (*watch)(void *stream, bool in, bool out);
    void (*close)(void *stream); /* the stream is gone; no call about its connection follows */
    void (*listen)(void *opaque, bool on); /* new streams may come, or not: the machine stands. May be NULL */
    void *opaque;
};

enum vsock_phase { VSOCK_ASKED /* the guest has not answered */, VSOCK_OPEN, VSOCK_DEAD /* the guest is to be told */ };

struct vsock_conn {
    uint32_t guest_port, host_port;
    enum vsock_phase phase;
    void *stream;            /* NULL: dead */
    uint8_t pending;         /* VSOCK_TELL_* */
    uint8_t guest_shut;      /* VSOCK_SHUT_* that the guest said */
    uint8_t host_shut;       /* and that we have to say or said */
    bool readable, ended;    /* the stream may have bytes; it has none any more */
    bool half;               /* shutdown() was called */
    uint32_t buf_alloc, fwd; /* the guest's room, and what it has taken of ours */
    uint32_t sent;           /* bytes to the guest */
    uint32_t taken, told;    /* bytes from the guest that the stream took; what the guest knows of it */
    uint8_t *buf;            /* VSOCK_BUF bytes when something waits; else NULL */
    uint32_t head, used;
};

struct vsock_reset {
    uint64_t cid;
    uint32_t guest_port, host_port;
    uint16_t type;
};

struct virtio_vsock {
    struct virtio_pci vp;
    uint8_t config[8];
    bool tell_reset; /* described state: the guest is to hear that all connections are gone */
    /* The rest is not state: connections do not survive. */
    bool loaded, standing;
    struct vsock_backend backend;
    struct timer again;
    struct vsock_conn *conn[VSOCK_CONNS]; /* the first conns, owned */
    unsigned conns, turn;
    uint32_t next_port;
    struct vsock_reset reset[VSOCK_RESETS]; /* answers to packets of no connection */
    unsigned resets, first_reset;
    uint8_t *data; /* owned; one packet's */
};

extern const struct device_ops virtio_vsock_ops; /* type "virtio-vsock" */

/* Not plugged yet. 0 or -errno. */
int virtio_vsock_init(struct virtio_vsock *v, uint32_t cid, const struct vsock_backend *backend, struct loop *loop,
                      struct ram *ram, apic_deliver_fn deliver, void *deliver_opaque);

/* A stream of the host wants the guest's port. NULL: too many, or no driver; the stream stays the caller's. */
struct vsock_conn *virtio_vsock_open(struct virtio_vsock *v, uint32_t port, void *stream);
/* What was watched for has happened. */
void virtio_vsock_ready(struct virtio_vsock *v, struct vsock_conn *c, bool in, bool out);

#endif
