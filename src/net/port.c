/* The thread of a network port: waits for its back end and for the client, moves frames both ways in bounded batches.
 *
 * Runs on: a thread of its own, which holds no lock while it calls the back end or waits. See net.h.
 */
#include "net/port.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/thread.h"
#include "net/offload.h"

#define NET_ROUNDS 8 /* batches between two looks at the descriptors */

struct net_stashed {
    struct net_stashed *next;
    struct net_frame frame;
    uint8_t data[];
};

struct net_frame *net_batch_room(struct net_batch *b, uint32_t len)
{
    struct net_frame *f = &b->frame[b->count];

    if (b->count == NET_BATCH || len > NET_BATCH_BYTES - b->used)
        return NULL;
    *f = (struct net_frame){ .data = b->buf + b->used, .len = len };
    b->used += ALIGN_UP(len, 64);
    if (b->used > NET_BATCH_BYTES)
        b->used = NET_BATCH_BYTES;
    return f;
}

int net_polls_add(struct net_polls *ps, int fd, short events)
{
    if (ps->n == ps->cap) {
        unsigned cap = ps->cap ? 2 * ps->cap : 16;
        struct pollfd *more = realloc(ps->fd, cap * sizeof(*more));

        if (!more)
            return -1;
        ps->fd = more;
        ps->cap = cap;
    }
    ps->fd[ps->n] = (struct pollfd){ .fd = fd, .events = events };
    return (int)ps->n++;
}

void net_polls_wait(struct net_polls *ps, int timeout_ms)
{
    if (ps->timeout_ms < 0 || timeout_ms < ps->timeout_ms)
        ps->timeout_ms = timeout_ms;
}

/* ---- from outside to the client ---- */

static void net_keep(struct net_port *p, const struct net_frame *f)
{
    struct net_stashed *s =
        p->stash_bytes + f->len > NET_STASH_MAX ? NULL : malloc(sizeof(*s) + f->len);

    if (!s) {
        p->dropped++;
        return;
    }
    s->next = NULL;
    s->frame = *f;
    s->frame.data = s->data;
    memcpy(s->data, f->data, f->len);
    *p->stash_tail = s;
    p->stash_tail = &s->next;
    p->stash_bytes += f->len;
}

void net_receive(struct net_port *p, struct net_frame *f)
{
    if (f->len < NET_FRAME_MIN || f->len > NET_FRAME_MAX || !net_meta_ok(&f->meta, f->len))
        return;
    if (p->stash || p->client->deliver(p->opaque, f) == -ENOBUFS)
        net_keep(p, f);
    else
        p->delivered = true;
}

static void net_unstash(struct net_port *p)
{
    struct net_stashed *s;

    while ((s = p->stash) && p->client->deliver(p->opaque, &s->frame) != -ENOBUFS) {
        p->stash = s->next;
        if (!p->stash)
            p->stash_tail = &p->stash;
        p->stash_bytes -= s->frame.len;
        p->delivered = true;
        free(s);
    }
}

/* ---- from the client to outside ---- */

static int net_emit(void *opaque, uint8_t *data, uint32_t len)
{
    struct net_port *p = opaque;
    struct net_frame f = { .data = data, .len = len };
    int r = p->ops->send(p->backend, &f);

    if (r == 0)
        p->cut++;
    return r;
}

static void net_inner_emit(void *opaque, uint8_t *data, uint32_t len)
{
    struct net_frame f = { .data = data, .len = len };

    net_receive(opaque, &f);
}

/* Send one frame, after doing to it what the back end cannot. -EAGAIN: it must wait. */
static int net_send(struct net_port *p, struct net_frame *f)
{
    int r;

    if (p->inner && inner_take(p->inner, f, clock_host_ns(CLOCK_MONOTONIC)))
        return 0;
    if (f->meta.gso_type && !(p->ops->caps & NET_CAP_TSO)) {
        r = net_segment(f, p->cut, p->scratch, net_emit, p);
    } else {
        if (!(p->ops->caps & NET_CAP_CSUM))
            net_finish_csum(f);
        r = p->ops->send(p->backend, f);
    }
    if (r != -EAGAIN)
        p->cut = 0;
    return r;
}

static void net_flush(struct net_port *p)
{
    if (p->delivered)
        p->client->flush(p->opaque);
    p->delivered = false;
}

/* Move what the client has, a few batches at most. */
static void net_transmit(struct net_port *p)
{
    struct net_batch *b = &p->batch;

    p->blocked = false;
    for (unsigned round = 0; round < NET_ROUNDS; round++) {
        for (; p->sent < b->count; p->sent++) {
            if (net_send(p, &b->frame[p->sent]) == -EAGAIN) {
                p->blocked = true;
                return;
            }
        }
        net_flush(p); /* what the back end answered at once */
        if (!p->more)
            return;
        b->count = p->sent = 0;
        b->used = 0;
        p->more = p->client->fetch(p->opaque, b);
    }
}

/* ---- the thread ---- */

static void net_inner_tick(struct net_port *p, struct net_polls *ps)
{
    int ms = p->inner ? inner_tick(p->inner, clock_host_ns(CLOCK_MONOTONIC)) : -1;

    if (ms >= 0)
        net_polls_wait(ps, ms);
    net_flush(p);
}

static void net_wait(struct net_port *p)
{
    struct net_polls *ps = &p->polls;
    uint64_t count;

    ps->n = 0;
    ps->timeout_ms = -1;
    net_polls_add(ps, p->wake, POLLIN);
    p->ops->fill(p->backend, ps);
    net_inner_tick(p, ps);
    if ((p->more || p->sent < p->batch.count) && !p->blocked)
        ps->timeout_ms = 0;
    if (poll(ps->fd, ps->n, ps->timeout_ms) < 0)
        ps->n = 0; /* EINTR, or no memory: nothing is known to be ready */
    if (ps->n && (ps->fd[0].revents & POLLIN) && read(p->wake, &count, sizeof(count)) < 0)
        return; /* EAGAIN: cannot be, and does not matter */
}

static void *net_thread(void *opaque)
{
    struct net_port *p = opaque;

    while (!atomic_load(&p->quit)) {
        net_wait(p);
        if (atomic_exchange(&p->kicked, false))
            p->more = true; /* cleared before we look: a kick from now on rings again */
        net_unstash(p);
        p->ops->ready(p->backend, &p->polls);
        net_transmit(p);
        net_flush(p);
    }
    return NULL;
}

static void net_kick(struct net_peer *peer)
{
    struct net_port *p = container_of(peer, struct net_port, peer);
    uint64_t one = 1;

    if (atomic_exchange(&p->kicked, true))
        return;
    while (write(p->wake, &one, sizeof(one)) < 0 && errno == EINTR)
        continue;
}

static void net_offloads(struct net_peer *peer, unsigned bits)
{
    struct net_port *p = container_of(peer, struct net_port, peer);

    if (p->ops->offloads)
        p->ops->offloads(p->backend, bits);
}

/* ---- life ---- */

/* "none": a cable that leads nowhere. */
static int none_send(void *backend, struct net_frame *f) { return 0; }
static void none_fill(void *backend, struct net_polls *ps) { (void)backend; }
static void none_ready(void *backend, struct net_polls *ps) { (void)backend; }
static void none_close(void *backend) { (void)backend; }
static const struct net_backend_ops none_ops = { .caps = NET_CAP_CSUM | NET_CAP_TSO,
                                                 .send = none_send,
                                                 .fill = none_fill,
                                                 .ready = none_ready,
                                                 .close = none_close };

static int net_none_open(struct net_port *p, const struct net_config *cfg, struct err *err)
{
    p->ops = &none_ops;
    p->peer.link = false;
    return 0;
}

static int net_open_backend(struct net_port *p, const struct net_config *cfg, struct err *err)
{
    static int (*const open_fn[])(struct net_port *, const struct net_config *, struct err *) = {
        [NET_NONE] = net_none_open,
        [NET_USER] = net_user_open,
        [NET_TAP] = net_tap_open,
        [NET_SWITCH] = net_switch_open,
    };
    static const enum guard_kind fence[] = {
        [NET_NONE] = GUARD_NET, [NET_USER] = GUARD_NET_USER, [NET_TAP] = GUARD_NET, [NET_SWITCH] = GUARD_NET_SWITCH
    };

    p->fence = fence[cfg->kind];
    p->inner = cfg->inner ? inner_create(cfg->inner, net_inner_emit, p) : NULL;
    p->batch.buf = malloc(NET_BATCH_BYTES);
    p->scratch = malloc(NET_FRAME_MAX);
    p->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (!p->batch.buf || !p->scratch || p->wake < 0 || (cfg->inner && !p->inner))
        return err_set(err, ENOMEM, "no memory or descriptors for a network card");
    return open_fn[cfg->kind](p, cfg, err);
}

int net_open(struct net_port **out, const struct net_config *cfg, struct err *err)
{
    struct net_port *p = calloc(1, sizeof(*p));
    int r;

    *out = NULL;
    if (!p)
        return err_set(err, ENOMEM, "no memory for a network card");
    p->peer = (struct net_peer){ .kick = net_kick, .offloads = net_offloads, .mtu = NET_MTU, .link = true };
    p->stash_tail = &p->stash;
    p->wake = -1;
    r = net_open_backend(p, cfg, err);
    if (r < 0) {
        net_close(p);
        return r;
    }
    *out = p;
    return 0;
}

struct net_peer *net_peer_of(struct net_port *p) { return &p->peer; }

int net_start(struct net_port *p, const struct net_client_ops *ops, void *opaque)
{
    int r;

    p->client = ops;
    p->opaque = opaque;
    r = thread_start(&p->thread, p->fence, net_thread, p);
    p->running = r == 0;
    return r;
}

void net_close(struct net_port *p)
{
    struct net_stashed *s;

    if (!p)
        return;
    if (p->running) {
        atomic_store(&p->quit, true);
        net_kick(&p->peer);
        pthread_join(p->thread, NULL);
    }
    if (p->ops && p->backend)
        p->ops->close(p->backend);
    while ((s = p->stash)) {
        p->stash = s->next;
        free(s);
    }
    if (p->wake >= 0)
        close(p->wake);
    inner_destroy(p->inner);
    free(p->polls.fd);
    free(p->batch.buf);
    free(p->scratch);
    free(p);
}
