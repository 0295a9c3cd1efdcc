/* Between the port (port.c) and its back ends: user.c tap.c switch.c.
 *
 * A back end is called on the port's thread only, but for open (before it runs) and offloads (any thread). It never
 * blocks: it names the descriptors and the time that it waits for in fill(), and does what is ready in ready().
 */
#ifndef VITRO_NET_PORT_H
#define VITRO_NET_PORT_H

#include <poll.h>
#include <pthread.h>

#include "base/guard.h"
#include "net/net.h"

/* What the thread waits for next; grows as needed. */
struct net_polls {
    struct pollfd *fd;
    unsigned n, cap;
    int timeout_ms; /* -1: none */
};
/* Returns the place in fd[], or -1: out of memory. */
int net_polls_add(struct net_polls *ps, int fd, short events);
void net_polls_wait(struct net_polls *ps, int timeout_ms); /* at most so long */

enum { NET_CAP_CSUM = 1, NET_CAP_TSO = 2 };

struct net_backend_ops {
    unsigned caps; /* NET_CAP_*: what of a frame's meta data it passes on; the rest is done before send() */
    /* 0: taken or dropped; -EAGAIN: not now, ask again after ready(). */
    int (*send)(void *backend, struct net_frame *f);
    void (*fill)(void *backend, struct net_polls *ps);
    void (*ready)(void *backend, struct net_polls *ps);
    void (*offloads)(void *backend, unsigned bits); /* may be NULL */
    void (*close)(void *backend);
};

struct net_stashed; /* a frame that the client had no room for */

struct net_port {
    struct net_peer peer;
    const struct net_backend_ops *ops;
    void *backend; /* owned */
    const struct net_client_ops *client;
    void *opaque;
    pthread_t thread;
    enum guard_kind fence; /* the thread's */
    bool running;
    int wake; /* eventfd */
    _Atomic bool kicked, quit;
    /* the thread's */
    struct net_polls polls;
    struct net_batch batch;
    unsigned sent;    /* frames of the batch that are gone */
    unsigned cut;     /* segments of the next one that are gone */
    bool more;        /* fetch() said that there may be more */
    bool blocked;     /* send() said -EAGAIN */
    bool delivered;   /* since the last flush */
    uint8_t *scratch; /* for cutting */
    struct net_stashed *stash, **stash_tail;
    size_t stash_bytes;
    struct inner *inner; /* owned; NULL: none */
    uint64_t dropped; /* frames from outside that nobody took */
};

/* A frame from outside: to the client, or kept for it. */
void net_receive(struct net_port *p, struct net_frame *f);
/* Nothing is kept: a back end that can leave its source waiting does so until then. */
static inline bool net_may_receive(const struct net_port *p) { return !p->stash; }

/* Back ends: 0, or -errno with a sentence in err. They set p->ops, p->backend and what differs in p->peer. */
int net_user_open(struct net_port *p, const struct net_config *cfg, struct err *err);
int net_tap_open(struct net_port *p, const struct net_config *cfg, struct err *err);
int net_switch_open(struct net_port *p, const struct net_config *cfg, struct err *err);

#endif
