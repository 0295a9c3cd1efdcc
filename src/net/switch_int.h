/* Between switch.c (frames) and switch_place.c (members and their sockets). */
#ifndef VITRO_NET_SWITCH_INT_H
#define VITRO_NET_SWITCH_INT_H

#include "net/port.h"

#define SWITCH_PEERS    256
#define SWITCH_MACS     1024
#define SWITCH_QUEUE    (256U << 10) /* bytes for one peer that does not read; then its sender waits, or frames are dropped */
#define SWITCH_STUCK_MS 200          /* a peer that reads nothing for so long is not waited for */
#define SWITCH_AGE_MS   300000       /* a MAC address that was not seen for so long is forgotten */

enum { SWITCH_HEADER = 32 };

struct switch_message {
    struct switch_message *next;
    uint32_t len;
    uint8_t bytes[];
};

/* Another member, and the messages that its socket had no room for. */
struct switch_peer {
    uint64_t id;
    int fd, at; /* connected to it; the place among the descriptors */
    struct switch_message *head, **tail;
    uint32_t bytes;
    int64_t moved_ms; /* when it last took something, or had nothing to take */
};

struct switch_mac {
    uint64_t mac; /* 0: none */
    uint64_t peer;
    int64_t seen_ms;
};

struct net_switch {
    struct net_port *port;
    int dir, fd, at; /* the switch's folder; our socket */
    uint64_t id;
    struct switch_peer *peer[SWITCH_PEERS]; /* owned; a hole-free list */
    unsigned peers;
    struct switch_mac mac[SWITCH_MACS];
    uint8_t buf[NET_FRAME_MAX];
};

/* switch_place.c. Open the folder, bind our socket, find who is there. 0, or -errno with a sentence in err. */
int switch_join(struct net_switch *s, const char *name, struct err *err);
void switch_leave(struct net_switch *s);
/* The member with this id, connected to if it is new; NULL: it is gone, or there are too many. */
struct switch_peer *switch_find(struct net_switch *s, uint64_t id);
/* Forget it; gone: its process has ended, so its socket is removed. */
void switch_drop(struct net_switch *s, struct switch_peer *p, bool gone);

#endif
