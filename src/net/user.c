/* User networking: the guest's packets become sockets of this process, by libslirp. No root, no interface.
 *
 * Card n of a machine has the network 10.0.(2+n).0/24 and fd00:0:0:n::/64. In it .2 is the host (its loopback), .3 a
 * name server (the host's own), .15 what DHCP gives the guest.
 *
 * libslirp takes packets of any size and speaks TCP itself, so packets are large: the MTU is 16384, and what the guest
 * wants cut is passed on whole. A larger MTU is no faster and can stall: its window of 64 KiB then holds two segments, of which
 * a Linux guest closes it, and it waits for its own timer. It checks and makes all checksums.
 *
 * Runs on: the port's thread; nothing else touches libslirp once the thread runs. The guest can make it open sockets:
 * at most USER_SOCKETS, beyond which packets that would open another are dropped.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <slirp/libslirp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/bits.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/log.h"
#include "net/offload.h"
#include "net/port.h"

#define USER_MTU     16384
#define USER_SOCKETS 512
#define USER_TIMERS  4
#define USER_CARDS   200 /* third byte of the address */

enum { PROTO_TCP = 6, PROTO_UDP = 17, TCP_SYN = 2, TCP_ACK = 16, DHCP_SERVER = 67 };

struct user_timer {
    SlirpTimerCb fn;
    void *opaque;
    int64_t deadline_ms; /* -1: not armed */
    bool used;
};

struct user {
    Slirp *slirp;
    struct net_port *port;
    struct net_polls *polls; /* while fill() or ready() runs */
    unsigned sockets, max_sockets;
    bool asks;        /* a DHCP message is being answered, */
    uint8_t given[4]; /* with this address; 0: with none */
    uint8_t udp_seen[65536 / 8]; /* source ports that have a socket, while there are too many */
    struct user_timer timer[USER_TIMERS];
};

static int64_t user_now_ns(void *opaque) { return (int64_t)clock_host_ns(CLOCK_MONOTONIC); }

/* ---- what libslirp calls ---- */

enum { DHCP_FROM = 14 + 20 + 8, DHCP_YOURS = DHCP_FROM + 16, DHCP_CHADDR = 28 }; /* in what libslirp sends; in a message */

static void user_note_lease(struct user *u, const uint8_t *data, size_t len)
{
    if (u->asks && len >= DHCP_YOURS + sizeof(u->given) && data[23] == PROTO_UDP && data[34] == 0 && data[35] == DHCP_SERVER)
        memcpy(u->given, data + DHCP_YOURS, sizeof(u->given));
}

static ssize_t user_send_packet(const void *buf, size_t len, void *opaque)
{
    struct user *u = opaque;
    struct net_frame f = { .meta = { .flags = NET_CSUM_VALID }, .data = (uint8_t *)(uintptr_t)buf };

    if (len > NET_FRAME_MAX)
        return (ssize_t)len;
    user_note_lease(u, buf, len);
    f.len = (uint32_t)len;
    net_receive(u->port, &f);
    return (ssize_t)len;
}

static void user_guest_error(const char *msg, void *opaque) { log_guest("net: user: %s", msg); }

static void *user_timer_new(SlirpTimerCb fn, void *cb_opaque, void *opaque)
{
    struct user *u = opaque;

    for (unsigned n = 0; n < USER_TIMERS; n++) {
        if (!u->timer[n].used) {
            u->timer[n] =
                (struct user_timer){ .fn = fn, .opaque = cb_opaque, .deadline_ms = -1, .used = true };
            return &u->timer[n];
        }
    }
    return NULL;
}

static void user_timer_free(void *timer, void *opaque)
{
    if (timer)
        ((struct user_timer *)timer)->used = false;
}

static void user_timer_mod(void *timer, int64_t expire_ms, void *opaque)
{
    if (timer)
        ((struct user_timer *)timer)->deadline_ms = expire_ms;
}

static void user_register(int fd, void *opaque) { ((struct user *)opaque)->sockets++; }

static void user_unregister(int fd, void *opaque)
{
    struct user *u = opaque;

    if (u->sockets)
        u->sockets--;
}

static void user_notify(void *opaque) { (void)opaque; } /* only we call in, on the one thread */

static const SlirpCb user_callbacks = { .send_packet = user_send_packet,
                                        .guest_error = user_guest_error,
                                        .clock_get_ns = user_now_ns,
                                        .timer_new = user_timer_new,
                                        .timer_free = user_timer_free,
                                        .timer_mod = user_timer_mod,
                                        .register_poll_fd = user_register,
                                        .unregister_poll_fd = user_unregister,
                                        .notify = user_notify };

/* ---- descriptors and time ---- */

static int user_add_poll(int fd, int events, void *opaque)
{
    struct user *u = opaque;
    short e = 0;

    if (events & SLIRP_POLL_IN)
        e |= POLLIN;
    if (events & SLIRP_POLL_OUT)
        e |= POLLOUT;
    if (events & SLIRP_POLL_PRI)
        e |= POLLPRI;
    return net_polls_add(u->polls, fd, e);
}

static int user_revents(int idx, void *opaque)
{
    struct user *u = opaque;
    int e = 0;

    if (idx < 0 || (unsigned)idx >= u->polls->n)
        return 0;
    short r = u->polls->fd[idx].revents;
    if (r & POLLIN)
        e |= SLIRP_POLL_IN;
    if (r & POLLOUT)
        e |= SLIRP_POLL_OUT;
    if (r & POLLPRI)
        e |= SLIRP_POLL_PRI;
    if (r & (POLLERR | POLLNVAL))
        e |= SLIRP_POLL_ERR;
    if (r & POLLHUP)
        e |= SLIRP_POLL_HUP;
    return e;
}

static void user_fill(void *backend, struct net_polls *ps)
{
    struct user *u = backend;
    uint32_t timeout = UINT32_MAX;
    int64_t now = user_now_ns(u) / 1000000;

    u->polls = ps;
    slirp_pollfds_fill(u->slirp, &timeout, user_add_poll, u);
    if (timeout < 1U << 30)
        net_polls_wait(ps, (int)timeout);
    for (unsigned n = 0; n < USER_TIMERS; n++) {
        struct user_timer *t = &u->timer[n];
        if (t->used && t->deadline_ms >= 0)
            net_polls_wait(ps, t->deadline_ms <= now              ? 0
                               : t->deadline_ms - now > 1 << 30 ? 1 << 30
                                                                : (int)(t->deadline_ms - now));
    }
}

static void user_ready(void *backend, struct net_polls *ps)
{
    struct user *u = backend;
    int64_t now;

    u->polls = ps;
    slirp_pollfds_poll(u->slirp, ps->n == 0, user_revents, u);
    now = user_now_ns(u) / 1000000;
    for (unsigned n = 0; n < USER_TIMERS; n++) {
        struct user_timer *t = &u->timer[n];
        if (t->used && t->deadline_ms >= 0 && t->deadline_ms <= now) {
            t->deadline_ms = -1;
            t->fn(t->opaque);
        }
    }
}

/* ---- from the guest ---- */

/* A packet of a UDP flow that was there before the sockets ran out; notes the others while they have not. */
static bool user_udp_known(struct user *u, uint16_t port, bool full)
{
    uint8_t bit = (uint8_t)(1U << port % 8);
    bool known = u->udp_seen[port / 8] & bit;

    if (!full)
        u->udp_seen[port / 8] |= bit;
    return known;
}

/* The packet may open a socket, and there are enough. */
static bool user_refuses(struct user *u, const struct net_frame *f)
{
    bool full = u->sockets >= u->max_sockets;
    struct net_layout l;

    if (net_parse(f->data, f->len, &l) < 0)
        return true;
    if (!l.l4)
        return false;
    if (l.protocol == PROTO_UDP && l.l4 + 2U <= f->len)
        return !user_udp_known(u, (uint16_t)(f->data[l.l4] << 8 | f->data[l.l4 + 1]), full) && full;
    if (!full)
        return false;
    if (l.protocol == PROTO_TCP && l.l4 + 14U <= f->len)
        return (f->data[l.l4 + 13] & (TCP_SYN | TCP_ACK)) == TCP_SYN;
    return true;
}

/* A DHCP message of a client that knows its card by another address than the card has, as one does that runs on in a copy of its machine. */
static bool user_asks_for_another(const struct net_frame *f)
{
    struct net_layout l;
    const uint8_t *udp;

    if (net_parse(f->data, f->len, &l) < 0 || l.v6 || !l.l4 || l.protocol != PROTO_UDP || l.l4 + 8U + DHCP_CHADDR + 6U > f->len)
        return false;
    udp = f->data + l.l4;
    return udp[2] == 0 && udp[3] == DHCP_SERVER && memcmp(udp + 8 + DHCP_CHADDR, f->data + 6, 6) != 0;
}

/* libslirp sends to the address in the message from then on (ARP is not asked any more), where no card listens: tell it, as a card does that has a new
 * address (RFC 5227, 3). */
static void user_send_dhcp(struct user *u, const struct net_frame *f)
{
    uint8_t arp[42] = { 255, 255, 255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1 };

    memset(u->given, 0, sizeof(u->given));
    u->asks = true;
    slirp_input(u->slirp, f->data, (int)f->len);
    u->asks = false;
    if (mem_is_zero(u->given, sizeof(u->given)))
        return;
    memcpy(arp + 6, f->data + 6, 6);
    memcpy(arp + 22, f->data + 6, 6);
    memcpy(arp + 28, u->given, 4);
    memcpy(arp + 38, u->given, 4);
    slirp_input(u->slirp, arp, sizeof(arp));
}

static int user_send(void *backend, struct net_frame *f)
{
    struct user *u = backend;

    if (user_refuses(u, f))
        log_guest("net: user: a packet was dropped: not whole, or too many sockets");
    else if (user_asks_for_another(f))
        user_send_dhcp(u, f);
    else
        slirp_input(u->slirp, f->data, (int)f->len);
    return 0;
}

static void user_close(void *backend)
{
    struct user *u = backend;

    if (u->slirp)
        slirp_cleanup(u->slirp);
    free(u);
}

static const struct net_backend_ops user_ops = { .caps = NET_CAP_TSO, /* packets of any size */
                                                 .send = user_send,
                                                 .fill = user_fill,
                                                 .ready = user_ready,
                                                 .close = user_close };

/* ---- opening ---- */

/* Leave descriptors for everything else in the process. */
static unsigned user_socket_limit(void)
{
    struct rlimit r;

    if (getrlimit(RLIMIT_NOFILE, &r) < 0 || r.rlim_cur / 4 > USER_SOCKETS)
        return USER_SOCKETS;
    return (unsigned)(r.rlim_cur / 4);
}

static int user_forward(struct user *u, const struct net_forward *fw, struct in_addr guest, struct err *err)
{
    struct in_addr loopback = { htonl(INADDR_LOOPBACK) };
    const char *proto = fw->udp ? "udp" : "tcp";

    errno = 0;
    if (slirp_add_hostfwd(u->slirp, fw->udp, loopback, fw->host, guest, fw->guest) == 0)
        return 0;
    int e = errno ? errno : EADDRINUSE;
    if (e == EADDRINUSE)
        return err_set(err, e,
                       "net: the host's %s port %u is taken: forward another port, or end what listens on it",
                       proto, fw->host);
    if (e == EACCES || e == EPERM)
        return err_set(err, e, "net: this user may not listen on %s port %u: forward a port from 1024 on",
                       proto, fw->host);
    return err_set(err, e, "net: cannot forward the host's %s port %u: %s", proto, fw->host, strerror(e));
}

static Slirp *user_slirp(struct user *u, uint32_t net, unsigned index)
{
    SlirpConfig c = {
        .version = 1,
        .in_enabled = true,
        .vnetwork = { htonl(net) },
        .vnetmask = { htonl(0xffffff00) },
        .vhost = { htonl(net + 2) },
        .in6_enabled = true,
        .vprefix_len = 64,
        .vhostname = "vitro",
        .vdhcp_start = { htonl(net + 15) },
        .vnameserver = { htonl(net + 3) },
        .if_mtu = USER_MTU,
        .if_mru = USER_MTU,
    };

    c.vprefix_addr6.s6_addr[0] = 0xfd;
    c.vprefix_addr6.s6_addr[7] = (uint8_t)index;
    c.vhost6 = c.vnameserver6 = c.vprefix_addr6;
    c.vhost6.s6_addr[15] = 2;
    c.vnameserver6.s6_addr[15] = 3;
    return slirp_new(&c, &user_callbacks, u);
}

int net_user_open(struct net_port *p, const struct net_config *cfg, struct err *err)
{
    uint32_t net = 0x0a000200U + ((cfg->index % USER_CARDS) << 8);
    struct in_addr guest = { htonl(net + 15) };
    struct user *u = calloc(1, sizeof(*u));
    int r = 0;

    if (!u)
        return err_set(err, ENOMEM, "no memory for user networking");
    p->ops = &user_ops;
    p->backend = u;
    p->peer.mtu = USER_MTU;
    u->port = p;
    u->max_sockets = user_socket_limit();
    u->slirp = user_slirp(u, net, cfg->index);
    if (!u->slirp)
        return err_set(err, ENOMEM, "libslirp does not start");
    for (unsigned n = 0; r == 0 && n < cfg->forwards; n++)
        r = user_forward(u, &cfg->forward[n], guest, err);
    return r;
}
