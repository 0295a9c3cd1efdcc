/* Viewers of the console: from the ring to the client, from the client to the guest. See server.h. */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "api/ring.h"
#include "api/server_int.h"

static bool viewer_behind(const struct api_client *c)
{
    return c->server->ring && c->pos != c->server->ring->head->written;
}

void viewer_rewatch(struct api_client *c)
{
    uint32_t events = viewer_behind(c) ? EPOLLOUT : 0;

    if (c->in_len < sizeof(c->in) || c->read_only)
        events |= EPOLLIN;
    api_watch(c, events ? events : EPOLLRDHUP);
}

/* False: the client is gone. */
static bool viewer_send(struct api_client *c)
{
    char chunk[API_CHUNK];
    uint64_t next = c->pos;
    size_t len = ring_read(c->server->ring, &next, chunk, sizeof(chunk));
    ssize_t n = len ? send(c->watch.fd, chunk, len, MSG_DONTWAIT | MSG_NOSIGNAL) : 0;

    if (n < 0)
        return errno == EAGAIN || errno == EINTR;
    c->pos = next - len + (uint64_t)n;
    return true;
}

void viewer_type(struct api_client *c)
{
    const struct api_server *s = c->server;
    size_t n = c->in_len;

    if (!c->read_only && s->ops->type)
        n = s->ops->type(s->opaque, (const uint8_t *)c->in, c->in_len);
    memmove(c->in, c->in + n, c->in_len - n);
    c->in_len -= n;
}

/* False: the client is gone. */
static bool viewer_receive(struct api_client *c)
{
    ssize_t n = recv(c->watch.fd, c->in + c->in_len, sizeof(c->in) - c->in_len, MSG_DONTWAIT);

    if (n < 0)
        return errno == EAGAIN || errno == EINTR;
    if (n == 0)
        return false;
    c->in_len += (size_t)n;
    viewer_type(c);
    return true;
}

void viewer_event(struct api_client *c, uint32_t events)
{
    bool here = true;

    if ((events & EPOLLOUT) && viewer_behind(c))
        here = viewer_send(c);
    if (here && (events & EPOLLIN) && c->in_len < sizeof(c->in))
        here = viewer_receive(c);
    else if (events & (EPOLLHUP | EPOLLERR | EPOLLRDHUP))
        here = false;
    if (here)
        viewer_rewatch(c);
    else
        api_close(c);
}

void viewer_drain(struct api_client *c, uint64_t end)
{
    while (c->phase == API_VIEWING && viewer_behind(c)) {
        struct pollfd p = { .fd = c->watch.fd, .events = POLLOUT };
        uint64_t now = api_now_ms();

        if (now >= end || poll(&p, 1, (int)(end - now)) <= 0 || (p.revents & (POLLHUP | POLLERR)) || !viewer_send(c))
            return;
    }
}

void api_shown(struct api_server *s)
{
    for (unsigned n = 0; n < s->clients; n++) {
        struct api_client *c = s->client[n];

        if (c->phase == API_VIEWING && !(c->events & EPOLLOUT))
            viewer_rewatch(c);
    }
}

void api_typed(struct api_server *s)
{
    for (unsigned n = 0; n < s->clients; n++) {
        struct api_client *c = s->client[n];

        if (c->phase != API_VIEWING)
            continue;
        if (c->in_len)
            viewer_type(c);
        viewer_rewatch(c);
    }
}

unsigned api_viewers(const struct api_server *s)
{
    unsigned viewers = 0;

    for (unsigned n = 0; n < s->clients; n++)
        viewers += s->client[n]->phase == API_VIEWING;
    return viewers;
}
