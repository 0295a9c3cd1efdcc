/* What network hardware does for its driver, done in software: checksums and the cutting of TCP packets.
 *
 * Frames are hostile: every header is checked against the length before it is read. No state, any thread.
 */
#ifndef VITRO_NET_OFFLOAD_H
#define VITRO_NET_OFFLOAD_H

#include "net/net.h"

/* Where the headers of a frame are. */
struct net_layout {
    uint16_t ethertype; /* behind VLAN tags */
    uint16_t l3, l4;    /* offsets; l4 is 0 where there is none to be seen (not IP, a later fragment) */
    uint8_t protocol;   /* of the IP packet: 6 TCP, 17 UDP ... */
    bool v6;
};

/* 0, or -EINVAL: shorter than its headers say. */
int net_parse(const uint8_t *data, size_t len, struct net_layout *l);

/* The ones' complement sum of RFC 1071 over len bytes at an even offset of what is summed, added to sum; not folded. */
uint64_t net_sum(const uint8_t *data, size_t len, uint64_t sum);
/* The 16 bits to store (as they lie in memory): folded and inverted. */
uint16_t net_fold(uint64_t sum);

/* The meta data makes sense for a frame of len bytes. Nothing else looks at it before. */
bool net_meta_ok(const struct net_meta *m, size_t len);

/* Make the checksum that the meta data asks for, and clear the wish. */
void net_finish_csum(struct net_frame *f);

/* Cut a TCP packet (gso_type is not NONE) into packets of gso_size bytes of payload with all checksums made, leaving
 * out the first skip of them. buf has room for NET_FRAME_MAX bytes. emit() gets one at a time, and ends it by not
 * returning 0. 0, what emit() returned, or -EINVAL: this cannot be cut. */
int net_segment(const struct net_frame *f, unsigned skip, uint8_t *buf,
                int (*emit)(void *opaque, uint8_t *data, uint32_t len), void *opaque);

/* A number for the flow that a frame belongs to, the same for both directions. */
uint32_t net_flow(const uint8_t *data, size_t len);

#endif
