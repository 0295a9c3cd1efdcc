/* Frames over a stream. See wire.h. */
#include "agent/wire.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "base/bits.h"

void wire_init(struct wire *w, int fd)
{
    w->fd = fd;
    w->in_len = w->out_at = w->out_len = 0;
}

/* How long the frame is of which a head has come; -EPROTO: it is none. */
static int wire_length(const struct wire *w)
{
    uint32_t len = ld_le32(w->in + 4);

    if (!w->in[0] || w->in[0] >= WIRE_TYPES || w->in[1] || w->in[2] || w->in[3] || len > WIRE_MAX)
        return -EPROTO;
    return (int)(WIRE_HEAD + len);
}

int wire_read(struct wire *w)
{
    for (;;) {
        int whole = w->in_len < WIRE_HEAD ? WIRE_HEAD : wire_length(w);
        ssize_t n;

        if (whole < 0)
            return whole;
        if (w->in_len >= WIRE_HEAD && w->in_len == (size_t)whole)
            return 1;
        n = recv(w->fd, w->in + w->in_len, (size_t)whole - w->in_len, MSG_DONTWAIT);
        if (n == 0)
            return -EPIPE;
        if (n < 0 && errno != EINTR)
            return errno == EAGAIN ? 0 : errno == ECONNRESET ? -EPIPE : -errno;
        w->in_len += n > 0 ? (size_t)n : 0;
    }
}

enum wire_type wire_type(const struct wire *w) { return w->in[0]; }

const uint8_t *wire_data(const struct wire *w, size_t *len)
{
    *len = w->in_len - WIRE_HEAD;
    return w->in + WIRE_HEAD;
}

void wire_done(struct wire *w) { w->in_len = 0; }

bool wire_idle(const struct wire *w) { return w->out_at == w->out_len; }

int wire_flush(struct wire *w)
{
    while (!wire_idle(w)) {
        ssize_t n = send(w->fd, w->out + w->out_at, w->out_len - w->out_at, MSG_DONTWAIT | MSG_NOSIGNAL);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno == EAGAIN ? 0 : errno == ECONNRESET ? -EPIPE : -errno;
        w->out_at += (size_t)n;
    }
    w->out_at = w->out_len = 0;
    return 0;
}

int wire_put(struct wire *w, enum wire_type type, const void *data, size_t len)
{
    uint8_t *p;

    if (len > WIRE_MAX)
        return -EMSGSIZE;
    if (w->out_len + WIRE_HEAD + len > sizeof(w->out)) {
        memmove(w->out, w->out + w->out_at, w->out_len - w->out_at);
        w->out_len -= w->out_at;
        w->out_at = 0;
    }
    if (w->out_len + WIRE_HEAD + len > sizeof(w->out))
        return -ENOSPC;
    p = w->out + w->out_len;
    memset(p, 0, WIRE_HEAD);
    p[0] = (uint8_t)type;
    st_le32(p + 4, (uint32_t)len);
    if (len)
        memcpy(p + WIRE_HEAD, data, len);
    w->out_len += WIRE_HEAD + len;
    return wire_flush(w);
}

int wire_put_u32(struct wire *w, enum wire_type type, uint32_t value)
{
    uint8_t p[4];

    st_le32(p, value);
    return wire_put(w, type, p, sizeof(p));
}

/* ---- waiting ---- */

static int64_t wire_now(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* Until end (-1: for ever) for one of these events. */
static int wire_poll(const struct wire *w, short events, int64_t end)
{
    struct pollfd p = { .fd = w->fd, .events = events };
    int64_t left = end < 0 ? -1 : end - wire_now();
    int r = end >= 0 && left <= 0 ? 0 : poll(&p, 1, (int)left);

    return r > 0 || (r < 0 && errno == EINTR) ? 0 : r < 0 ? -errno : -ETIMEDOUT;
}

int wire_send(struct wire *w, enum wire_type type, const void *data, size_t len, int ms)
{
    int64_t end = ms < 0 ? -1 : wire_now() + ms;
    int r = wire_put(w, type, data, len);

    while (r == 0 && !wire_idle(w)) {
        r = wire_poll(w, POLLOUT, end);
        if (r == 0)
            r = wire_flush(w);
    }
    return r;
}

int wire_wait(struct wire *w, int ms)
{
    int64_t end = ms < 0 ? -1 : wire_now() + ms;
    int r;

    while ((r = wire_read(w)) == 0) {
        r = wire_poll(w, POLLIN, end);
        if (r < 0)
            return r;
    }
    return r;
}
