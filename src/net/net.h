/* Network back ends: where the frames of a guest's network card go.
 *
 * A *port* is one back end with a thread of its own. A *client* is the card. They meet in two narrow places:
 *
 *     client's kick   -> net_peer.kick()                    "there are frames to send, or room for received ones"
 *     port's thread   -> net_client_ops.fetch()             takes frames, copied, a bounded batch at a time
 *                     -> net_client_ops.deliver()           gives one frame; -ENOBUFS: no room now, it is kept
 *                     -> net_client_ops.flush()             once after a batch: the time for an interrupt
 *
 * Frames carry what virtio's header says (struct net_meta): a checksum that is still to be made, or a TCP packet
 * that is still to be cut. A back end that takes such frames as they are says so in its caps; for the others the
 * port does the work (offload.h). The client does it for its guest.
 *
 * Nothing here blocks but the port's thread in poll(2), and every queue is bounded: what a guest sends stays in its
 * ring until there is room; what it does not take is kept up to NET_STASH_MAX bytes and then dropped, where the
 * source cannot be told to wait.
 *
 * Locks: the port's thread holds none when it calls the client, which takes the device lock. kick() and offloads()
 * may be called with the device lock held. net_close() waits for the thread: never with the device lock held.
 */
#ifndef VITRO_NET_NET_H
#define VITRO_NET_NET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "net/inner.h"

struct err;

/* The longest frame: an IP packet of 65535 bytes behind an Ethernet header with two VLAN tags. */
#define NET_FRAME_MAX   (65535U + 22U)
#define NET_FRAME_MIN   14U
#define NET_BATCH       64
#define NET_BATCH_BYTES (512U << 10)
#define NET_STASH_MAX   (4U << 20)
#define NET_MTU         1500U

enum { NET_CSUM_NEEDED = 1, NET_CSUM_VALID = 2 };
/* The values of virtio's gso_type. */
enum { NET_GSO_NONE = 0, NET_GSO_TCP4 = 1, NET_GSO_TCP6 = 4, NET_GSO_ECN = 0x80 };

/* What is still to be done to a frame, as in struct virtio_net_hdr (virtio 1.2, 5.1.6). */
struct net_meta {
    uint8_t flags;    /* NET_CSUM_* */
    uint8_t gso_type; /* NET_GSO_* */
    uint16_t hdr_len, gso_size;
    uint16_t csum_start, csum_offset; /* with NET_CSUM_NEEDED */
};

/* data may be changed by whoever is given the frame. */
struct net_frame {
    struct net_meta meta;
    uint8_t *data;
    uint32_t len;
    uint32_t progress; /* the client's: segments of it that were delivered before it ran out of room */
};

/* Frames on their way out, copied from the guest. */
struct net_batch {
    struct net_frame frame[NET_BATCH];
    unsigned count;
    uint8_t *buf;
    size_t used;
};
/* Room for a frame of len bytes, or NULL: the batch is full. It counts once count is incremented. */
struct net_frame *net_batch_room(struct net_batch *b, uint32_t len);

struct net_client_ops {
    /* Add frames to an empty batch. True: there may be more. */
    bool (*fetch)(void *opaque, struct net_batch *b);
    /* 0: taken, or dropped by right; -ENOBUFS: offer it again after the next kick. */
    int (*deliver)(void *opaque, struct net_frame *f);
    void (*flush)(void *opaque);
};

/* Features that a guest's driver took for what it receives; bits for net_peer.offloads(). */
enum { NET_OFF_CSUM = 1, NET_OFF_TSO4 = 2, NET_OFF_TSO6 = 4, NET_OFF_ECN = 8 };

/* The port as the client sees it. */
struct net_peer {
    void (*kick)(struct net_peer *p);
    void (*offloads)(struct net_peer *p, unsigned bits); /* may be NULL */
    uint16_t mtu;                                        /* bytes of an IP packet */
    bool link;
};

enum net_kind { NET_NONE, NET_USER, NET_TAP, NET_SWITCH };

#define NET_FORWARDS 32
#define NET_NAME_MAX 32

struct net_forward {
    bool udp;
    uint16_t host, guest;
};

/* What a port is made from. */
struct net_config {
    const struct inner_server *inner; /* answered inside, see inner.h; borrowed; NULL: nobody */
    enum net_kind kind;
    struct net_forward forward[NET_FORWARDS]; /* NET_USER */
    unsigned forwards;
    char name[NET_NAME_MAX + 1]; /* NET_TAP: the interface; NET_SWITCH: the switch */
    unsigned index;              /* which of the machine's cards: NET_USER gives each a network of its own */
};

struct net_port;

/* Open the back end; its thread does not run yet. 0, or -errno with a sentence in err. */
int net_open(struct net_port **out, const struct net_config *cfg, struct err *err);
struct net_peer *net_peer_of(struct net_port *p);
/* Start the thread; ops and opaque are borrowed until net_close(). 0 or -errno. */
int net_start(struct net_port *p, const struct net_client_ops *ops, void *opaque);
/* End the thread and close everything. NULL is allowed. */
void net_close(struct net_port *p);

#endif
