/* A tap interface of the host as a back end: the host's kernel makes checksums and cuts packets, or passes them on whole.
 * Source: Linux Documentation/networking/tuntap.rst, linux/if_tun.h.
 *
 * Runs on: the port's thread, but for offloads() (any thread: one ioctl).
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/err.h"
#include "net/port.h"

#define TAP_BUDGET 64 /* frames read in one round */

enum { TAP_HEADER = 10 }; /* struct virtio_net_hdr without num_buffers, little-endian */

struct tap {
    struct net_port *port;
    int fd, at; /* at: its place among the descriptors */
    bool full;  /* a frame waits to be written */
    uint8_t buf[NET_FRAME_MAX];
};

static int tap_send(void *backend, struct net_frame *f)
{
    struct tap *t = backend;
    uint8_t h[TAP_HEADER] = { f->meta.flags & NET_CSUM_NEEDED, f->meta.gso_type };
    struct iovec iov[2] = { { h, sizeof(h) }, { f->data, f->len } };
    ssize_t n;

    st_le16(h + 2, f->meta.hdr_len);
    st_le16(h + 4, f->meta.gso_size);
    st_le16(h + 6, f->meta.csum_start);
    st_le16(h + 8, f->meta.csum_offset);
    do {
        n = writev(t->fd, iov, 2);
    } while (n < 0 && errno == EINTR);
    t->full = n < 0 && errno == EAGAIN;
    return t->full ? -EAGAIN : 0; /* an interface that is down, a frame that it refuses: dropped */
}

static void tap_fill(void *backend, struct net_polls *ps)
{
    struct tap *t = backend;
    short events = (short)((net_may_receive(t->port) ? POLLIN : 0) | (t->full ? POLLOUT : 0));

    t->at = events ? net_polls_add(ps, t->fd, events) : -1;
}

/* One frame; false when there is none. */
static bool tap_read(struct tap *t)
{
    uint8_t h[TAP_HEADER];
    struct iovec iov[2] = { { h, sizeof(h) }, { t->buf, sizeof(t->buf) } };
    ssize_t n = readv(t->fd, iov, 2);

    if (n < TAP_HEADER)
        return false;
    struct net_frame f = {
        .meta = { .flags = h[0] & (NET_CSUM_NEEDED | NET_CSUM_VALID),
                  .gso_type = h[1],
                  .hdr_len = ld_le16(h + 2),
                  .gso_size = ld_le16(h + 4),
                  .csum_start = ld_le16(h + 6),
                  .csum_offset = ld_le16(h + 8) },
        .data = t->buf,
        .len = (uint32_t)(n - TAP_HEADER),
    };
    net_receive(t->port, &f);
    return true;
}

static void tap_ready(void *backend, struct net_polls *ps)
{
    struct tap *t = backend;

    if (t->at < 0 || (unsigned)t->at >= ps->n || !(ps->fd[t->at].revents & POLLIN))
        return;
    for (unsigned n = 0; n < TAP_BUDGET && net_may_receive(t->port); n++) {
        if (!tap_read(t))
            break;
    }
}

static void tap_offloads(void *backend, unsigned bits)
{
    const struct tap *t = backend;
    unsigned long v = 0;

    if (bits & NET_OFF_CSUM) {
        v |= TUN_F_CSUM;
        v |= bits & NET_OFF_TSO4 ? TUN_F_TSO4 : 0;
        v |= bits & NET_OFF_TSO6 ? TUN_F_TSO6 : 0;
        v |= (bits & NET_OFF_ECN) && (bits & (NET_OFF_TSO4 | NET_OFF_TSO6)) ? TUN_F_TSO_ECN : 0;
    }
    ioctl(t->fd, TUNSETOFFLOAD, v); /* where it fails, the client does it */
}

static void tap_close(void *backend)
{
    struct tap *t = backend;

    if (t->fd >= 0)
        close(t->fd);
    free(t);
}

static const struct net_backend_ops tap_ops = { .caps = NET_CAP_CSUM | NET_CAP_TSO,
                                                .send = tap_send,
                                                .fill = tap_fill,
                                                .ready = tap_ready,
                                                .offloads = tap_offloads,
                                                .close = tap_close };

static int tap_refused(int e, const char *name, struct err *err)
{
    if (e == EPERM || e == EACCES)
        return err_set(err, e,
                       "net: this user may not use the tap interface '%s': make it as root with "
                       "'ip tuntap add dev %s mode tap user %u'",
                       name, name, (unsigned)getuid());
    if (e == EBUSY)
        return err_set(err, e, "net: the tap interface '%s' is in use: end what uses it, or take another",
                       name);
    if (e == EINVAL)
        return err_set(err, e,
                       "net: '%s' is not a tap interface of one queue: make one with "
                       "'ip tuntap add dev NAME mode tap'",
                       name);
    return err_set(err, e, "net: cannot use the tap interface '%s': %s", name, strerror(e));
}

static int tap_no_device(int e, struct err *err)
{
    if (e == EPERM || e == EACCES)
        return err_set(err, e,
                       "net: this user may not open /dev/net/tun: allow it as root with 'chmod 666 /dev/net/tun' (who may use which "
                       "interface is asked besides)");
    if (e == ENOENT || e == ENODEV || e == ENXIO)
        return err_set(err, e, "net: the host has no /dev/net/tun: load its driver as root with 'modprobe tun'");
    return err_set(err, e, "net: cannot open /dev/net/tun: %s: tap interfaces need it", strerror(e));
}

/* Attach to an interface that exists. */
static int tap_attach(struct tap *t, const char *name, struct err *err)
{
    struct ifreq ifr = { .ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR };
    int header = TAP_HEADER, little = 1;

    if (!if_nametoindex(name))
        return err_set(err, ENODEV,
                       "net: there is no interface '%s': make it as root with "
                       "'ip tuntap add dev %s mode tap user %u'",
                       name, name, (unsigned)getuid());
    t->fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (t->fd < 0)
        return tap_no_device(errno, err);
    memcpy(ifr.ifr_name, name, strnlen(name, IFNAMSIZ - 1));
    if (ioctl(t->fd, TUNSETIFF, &ifr) < 0)
        return tap_refused(errno, name, err);
    if (ioctl(t->fd, TUNSETVNETHDRSZ, &header) < 0 || ioctl(t->fd, TUNSETVNETLE, &little) < 0 ||
        ioctl(t->fd, TUNSETOFFLOAD, 0UL) < 0)
        return err_set(err, errno, "net: the tap interface '%s' lacks virtio headers: %s", name,
                       strerror(errno));
    return 0;
}

static uint16_t tap_mtu(const char *name)
{
    int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct ifreq ifr = { .ifr_mtu = 0 };

    memcpy(ifr.ifr_name, name, strnlen(name, IFNAMSIZ - 1));
    if (s < 0 || ioctl(s, SIOCGIFMTU, &ifr) < 0 || ifr.ifr_mtu < 68 || ifr.ifr_mtu > 65535)
        ifr.ifr_mtu = NET_MTU;
    if (s >= 0)
        close(s);
    return (uint16_t)ifr.ifr_mtu;
}

int net_tap_open(struct net_port *p, const struct net_config *cfg, struct err *err)
{
    struct tap *t = calloc(1, sizeof(*t));

    if (!t)
        return err_set(err, ENOMEM, "no memory for a tap interface");
    t->port = p;
    t->fd = -1;
    p->ops = &tap_ops;
    p->backend = t;
    p->peer.mtu = tap_mtu(cfg->name);
    return tap_attach(t, cfg->name, err);
}
