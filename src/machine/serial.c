/* Serial back ends. See serial.h for threads and rules.
 *
 * The standard streams are shared with the shell and with other programs, so O_NONBLOCK must not be set on
 * them: they are opened again through /proc/self/fd, which gives descriptions of our own.
 */
#include "machine/serial.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "machine/serial_open.h"

static void serial_watch(struct serial *s, struct serial_fd *f, uint32_t events)
{
    int r = 0;

    if (f->watch.fd < 0 || f->unwatchable || events == f->events)
        return;
    if (!events)
        loop_del_fd(s->loop, &f->watch);
    else if (!f->events)
        r = loop_add_fd(s->loop, &f->watch, events);
    else
        r = loop_mod_fd(s->loop, &f->watch, events);
    if (r == -EPERM) {
        f->unwatchable = true;
        return;
    }
    f->events = r < 0 ? 0 : events;
}

/* One descriptor for both directions. */
static bool serial_is_duplex(const struct serial *s)
{
    return s->kind == SERIAL_UNIX || s->kind == SERIAL_PTY;
}

/* Which events the descriptors are watched for, from the state of the buffers. */
static void serial_rewatch(struct serial *s)
{
    bool one = serial_is_duplex(s);
    uint32_t in = 0, out = s->out_len ? EPOLLOUT : 0;

    if (!s->started)
        return;
    if (!s->in_eof && s->in_len < SERIAL_IN)
        in = EPOLLIN;
    serial_watch(s, &s->in, one ? in | out : in);
    if (!one)
        serial_watch(s, &s->out, out);
}

static void serial_tell_opened(struct serial *s)
{
    if (s->peer.opened)
        s->peer.opened(s->peer.opaque);
}

/* The peer of a socket went away: wait for the next one. */
static void serial_hang_up(struct serial *s)
{
    serial_watch(s, &s->in, 0);
    if (s->kind == SERIAL_UNIX && s->in.watch.fd >= 0) {
        close(s->in.watch.fd);
        s->in.watch.fd = -1;
        s->out_len = 0; /* what it had sent is still for the guest */
        loop_add_fd(s->loop, &s->listen, EPOLLIN);
        serial_tell_opened(s);
        return;
    }
    s->in_eof = true;
}

/* -- from the guest -- */

static int serial_out_fd(const struct serial *s)
{
    return serial_is_duplex(s) ? s->in.watch.fd : s->out.watch.fd;
}

/* Write buffered output until the host takes no more. A host error throws the output away. */
static void serial_flush(struct serial *s)
{
    while (s->out_len) {
        size_t n = SERIAL_OUT - s->out_head < s->out_len ? SERIAL_OUT - s->out_head : s->out_len;
        ssize_t done = serial_write(serial_out_fd(s), s->out_buf + s->out_head, n);

        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            break;
        if (done < 0)
            done = (ssize_t)s->out_len;
        s->out_head = (s->out_head + (size_t)done) % SERIAL_OUT;
        s->out_len -= (size_t)done;
    }
    serial_rewatch(s);
}

static void serial_show(struct serial *s, const uint8_t *data, size_t len)
{
    if (s->tap.out && len)
        s->tap.out(s->tap.opaque, data, len);
}

static int serial_tx(void *opaque, const uint8_t *data, size_t len)
{
    struct serial *s = opaque;
    size_t room = SERIAL_OUT - s->out_len, n;

    if (serial_out_fd(s) < 0) {
        serial_show(s, data, len);
        return (int)len; /* nobody listens */
    }
    n = len < room ? len : room;
    serial_show(s, data, n);
    for (size_t i = 0; i < n; i++)
        s->out_buf[(s->out_head + s->out_len + i) % SERIAL_OUT] = data[i];
    s->out_len += n;
    if (!(s->in.events & EPOLLOUT) && !(s->out.events & EPOLLOUT))
        serial_flush(s);
    if (n == len)
        return (int)n;
    if (serial_is_duplex(s) && !s->lossless)
        return (int)len; /* dropped: a reader that stands still must not stop the guest */
    s->held = true;
    return (int)n;
}

/* -- to the guest -- */

static void serial_feed(struct serial *s)
{
    while (s->in_len && s->peer.room) {
        size_t run = SERIAL_IN - s->in_head < s->in_len ? SERIAL_IN - s->in_head : s->in_len;
        size_t room = s->peer.room(s->peer.opaque);

        if (!room)
            break;
        run = s->peer.receive(s->peer.opaque, s->in_buf + s->in_head, run < room ? run : room);
        if (!run)
            break;
        s->in_head = (s->in_head + run) % SERIAL_IN;
        s->in_len -= run;
    }
    if (s->crowded && s->in_len < SERIAL_IN / 2) {
        s->crowded = false;
        s->tap.room(s->tap.opaque);
    }
}

size_t serial_type(struct serial *s, const uint8_t *data, size_t len)
{
    size_t room = SERIAL_IN - s->in_len, n = len < room ? len : room;
    bool was = s->crowded;

    for (size_t i = 0; i < n; i++)
        s->in_buf[(s->in_head + s->in_len + i) % SERIAL_IN] = data[i];
    s->in_len += n;
    s->crowded = false; /* the caller is not called back for what it hears from us */
    if (s->started)
        serial_feed(s);
    s->crowded = was || n < len;
    return n;
}

/* Take what the host has, at most one buffer. Keys for the console are taken out even while the guest's
 * buffer is full; on a terminal what does not fit then is lost, elsewhere it is not read yet. */
static void serial_pull(struct serial *s)
{
    size_t room = SERIAL_IN - s->in_len;
    uint8_t buf[SERIAL_IN];
    ssize_t n;

    if (s->in.watch.fd < 0 || s->in_eof || !room)
        return;
    n = read(s->in.watch.fd, buf, room < sizeof(buf) ? room : sizeof(buf));
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        serial_hang_up(s);
        return;
    }
    if (s->filter.fn)
        n = (ssize_t)s->filter.fn(s->filter.opaque, buf, (size_t)n);
    for (ssize_t i = 0; i < n; i++)
        s->in_buf[(s->in_head + s->in_len + (size_t)i) % SERIAL_IN] = buf[i];
    s->in_len += (size_t)n;
    /* A terminal keeps room for console keys: the oldest bytes go. */
    if (s->filter.fn && s->in_len == SERIAL_IN) {
        s->in_head = (s->in_head + SERIAL_IN / 2) % SERIAL_IN;
        s->in_len -= SERIAL_IN / 2;
    }
}

static void serial_rx_ready(void *opaque)
{
    struct serial *s = opaque;

    if (!s->started)
        return;
    if (s->in.unwatchable && s->in_len < SERIAL_IN / 2)
        serial_pull(s);
    serial_feed(s);
    serial_rewatch(s);
}

/* -- the loop's side -- */

static void serial_event(struct serial *s, uint32_t events)
{
    if (events & EPOLLOUT)
        serial_flush(s);
    if (events & (EPOLLIN | EPOLLHUP | EPOLLERR | EPOLLRDHUP)) {
        if (events & EPOLLIN)
            serial_pull(s);
        else
            serial_hang_up(s);
    }
    serial_feed(s);
    if (s->held && s->out_len < SERIAL_OUT / 2) {
        s->held = false;
        s->peer.tx_ready(s->peer.opaque);
    }
    serial_rewatch(s);
}

static void serial_on_in(void *opaque, uint32_t events) { serial_event(opaque, events); }

static void serial_on_out(void *opaque, uint32_t events)
{
    struct serial *s = opaque;

    /* The reader of a pipe is gone: the next write fails, and all output goes nowhere from then on. */
    if (events & (EPOLLERR | EPOLLHUP)) {
        serial_watch(s, &s->out, 0);
        s->out_len = 0;
        serial_close_out(s);
    }
    serial_event(s, events & EPOLLOUT);
}

static void serial_on_connect(void *opaque, uint32_t events)
{
    struct serial *s = opaque;
    int fd = accept4(s->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

    if (fd < 0)
        return;
    loop_del_fd(s->loop, &s->listen); /* one peer at a time: the next one waits for its turn */
    s->in.watch.fd = fd;
    s->in.unwatchable = false;
    s->out_len = 0;
    serial_rewatch(s);
    serial_tell_opened(s);
}

struct uart_backend serial_backend(struct serial *s)
{
    return (struct uart_backend){ .tx = serial_tx, .rx_ready = serial_rx_ready, .opaque = s };
}

static size_t serial_uart_room(void *opaque)
{
    return uart_wants_input(opaque) ? uart_can_receive(opaque) : 0;
}

static size_t serial_uart_receive(void *opaque, const uint8_t *data, size_t len)
{
    return uart_receive(opaque, data, len);
}

static void serial_uart_tx_ready(void *opaque) { uart_tx_ready(opaque); }

void serial_attach(struct serial *s, struct uart *uart)
{
    s->peer = (struct serial_peer){ .room = serial_uart_room,
                                    .receive = serial_uart_receive,
                                    .tx_ready = serial_uart_tx_ready,
                                    .opaque = uart };
}

void serial_attach_peer(struct serial *s, struct serial_peer peer) { s->peer = peer; }

bool serial_is_open(const struct serial *s) { return s->kind != SERIAL_UNIX || s->in.watch.fd >= 0; }

void serial_set_filter(struct serial *s, struct serial_filter filter) { s->filter = filter; }

void serial_set_tap(struct serial *s, struct serial_tap tap)
{
    s->tap = tap;
    if (s->kind == SERIAL_NONE)
        s->kind = SERIAL_CONTROL;
}

void serial_start(struct serial *s)
{
    if (s->kind == SERIAL_NONE)
        return;
    s->in.watch.fn = serial_on_in;
    s->in.watch.opaque = s;
    s->out.watch.fn = serial_on_out;
    s->out.watch.opaque = s;
    s->listen = (struct loop_fd){ .fd = s->listen_fd, .fn = serial_on_connect, .opaque = s };
    if (s->listen_fd >= 0 && !s->started && s->in.watch.fd < 0)
        loop_add_fd(s->loop, &s->listen, EPOLLIN);
    s->started = true;
    serial_rewatch(s);
    serial_rx_ready(s); /* input from a regular file starts here */
}

void serial_stop(struct serial *s)
{
    if (!s->started)
        return;
    serial_watch(s, &s->in, 0);
    serial_watch(s, &s->out, 0);
    if (s->listen_fd >= 0 && s->in.watch.fd < 0)
        loop_del_fd(s->loop, &s->listen);
    s->started = false;
}

static int64_t serial_now_ms(void) { return (int64_t)(clock_host_ns(CLOCK_MONOTONIC) / 1000000); }

void serial_drain(struct serial *s, int timeout_ms)
{
    int64_t end = serial_now_ms() + timeout_ms;

    while (s->kind != SERIAL_NONE && s->out_len && serial_out_fd(s) >= 0) {
        struct pollfd p = { .fd = serial_out_fd(s), .events = POLLOUT };
        int64_t left = end - serial_now_ms();

        if (left <= 0 || (poll(&p, 1, (int)left) < 0 && errno != EINTR))
            break;
        serial_flush(s);
    }
}
