/* The host's side of the virtio socket device: unix sockets, by the convention of Firecracker's hybrid vsock.
 *
 *   host to guest   connect to PATH, write "CONNECT PORT\n", read "OK PORT\n" (the port of the host's end); a guest that
 *                   refuses closes the connection
 *   guest to host   a connection to port N of CID 2 goes to the socket PATH_N
 *
 * Threads: all on the machine's thread with the device lock held, but for building and the end, when it is alone.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/err.h"
#include "base/usock.h"
#include "base/log.h"
#include "machine/vm.h"
#include "virtio/vsock.h"

#define VSOCK_GREETING sizeof("CONNECT 4294967295\n")

/* A connection of the host. Until it has said which port it wants it has no counterpart in the device. */
struct vsock_stream {
    struct vm_vsock *owner;
    struct loop_fd io;
    uint32_t events; /* watched; 0: not in the loop */
    struct vsock_conn *conn;
    char line[VSOCK_GREETING];
    size_t len;
    struct vsock_stream *next, **link;
};

struct vm_vsock {
    struct virtio_vsock dev;
    struct loop *loop;
    struct loop_fd listener;
    bool listening;
    const char *path; /* borrowed from the configuration */
    dev_t on;         /* the socket that we made, so that no other is removed */
    ino_t ino;
    struct vsock_stream *stream; /* owned, all of them */
    unsigned streams;
};

/* ---- streams ---- */

static void pc_vsock_set_events(struct vsock_stream *s, uint32_t events)
{
    if (events == s->events)
        return;
    if (!events)
        loop_del_fd(s->owner->loop, &s->io); /* else HUP would be told for ever */
    else if (s->events)
        loop_mod_fd(s->owner->loop, &s->io, events);
    else if (loop_add_fd(s->owner->loop, &s->io, events) < 0)
        events = 0;
    s->events = events;
}

static void pc_vsock_close(void *stream)
{
    struct vsock_stream *s = stream;

    pc_vsock_set_events(s, 0);
    close(s->io.fd);
    *s->link = s->next;
    if (s->next)
        s->next->link = s->link;
    s->owner->streams--;
    free(s);
}

/* The whole line, read up to its end and no further: 1; 0: not yet; -1: it is none. */
static int pc_vsock_line(struct vsock_stream *s)
{
    ssize_t n = recv(s->io.fd, s->line + s->len, sizeof(s->line) - 1 - s->len, MSG_PEEK | MSG_DONTWAIT);
    char *end;

    if (n < 0)
        return errno == EAGAIN || errno == EINTR ? 0 : -1;
    end = memchr(s->line + s->len, '\n', (size_t)n);
    if (end)
        n = end + 1 - (s->line + s->len);
    if (n == 0 || recv(s->io.fd, s->line + s->len, (size_t)n, MSG_DONTWAIT) != n)
        return -1;
    s->len += (size_t)n;
    s->line[s->len] = '\0';
    return end ? 1 : s->len + 1 < sizeof(s->line) ? 0 : -1;
}

static bool pc_vsock_port(const char *line, uint32_t *port)
{
    unsigned long long n;
    char *end;

    if (strncmp(line, "CONNECT ", 8) || line[8] < '0' || line[8] > '9')
        return false;
    n = strtoull(line + 8, &end, 10);
    *port = (uint32_t)n;
    return !strcmp(end, "\n") && n <= UINT32_MAX;
}

static void pc_vsock_greeted(struct vsock_stream *s)
{
    int r = pc_vsock_line(s);
    uint32_t port;

    if (r == 0)
        return;
    if (r > 0 && pc_vsock_port(s->line, &port))
        s->conn = virtio_vsock_open(&s->owner->dev, port, s);
    if (!s->conn)
        pc_vsock_close(s);
    else
        pc_vsock_set_events(s, 0); /* until the guest has answered */
}

static void pc_vsock_on_event(void *opaque, uint32_t events)
{
    struct vsock_stream *s = opaque;

    if (s->conn)
        virtio_vsock_ready(&s->owner->dev, s->conn, events & (EPOLLIN | EPOLLHUP | EPOLLERR),
                           events & (EPOLLOUT | EPOLLHUP | EPOLLERR));
    else
        pc_vsock_greeted(s);
}

/* Takes fd over. */
static struct vsock_stream *pc_vsock_stream(struct vm_vsock *p, int fd)
{
    struct vsock_stream *s = p->streams < VSOCK_CONNS ? calloc(1, sizeof(*s)) : NULL;

    if (!s) {
        close(fd);
        return NULL;
    }
    s->owner = p;
    s->io = (struct loop_fd){ .fd = fd, .fn = pc_vsock_on_event, .opaque = s };
    s->next = p->stream;
    s->link = &p->stream;
    if (s->next)
        s->next->link = &s->next;
    p->stream = s;
    p->streams++;
    return s;
}

/* ---- what the device calls ---- */

static void *pc_vsock_connect(void *opaque, uint32_t port, struct vsock_conn *c)
{
    struct vm_vsock *p = opaque;
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct vsock_stream *s;

    if (fd < 0)
        return NULL;
    snprintf(a.sun_path, sizeof(a.sun_path), "%s_%u", p->path, port);
    if (connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0) {
        log_guest("vsock: %s: %s", a.sun_path, strerror(errno));
        close(fd);
        return NULL;
    }
    s = pc_vsock_stream(p, fd);
    if (s)
        s->conn = c;
    return s;
}

static void pc_vsock_accepted(void *stream, uint32_t port)
{
    struct vsock_stream *s = stream;
    char line[32];
    int n = snprintf(line, sizeof(line), "OK %u\n", port);

    /* The first bytes of a connection fit, or nobody reads them, which the next call finds out. */
    if (send(s->io.fd, line, (size_t)n, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
        log_guest("vsock: a program of the host has gone before it was answered");
}

/* Whoever has closed his end does not read either. */
static ssize_t pc_vsock_read(void *stream, uint8_t *buf, size_t len)
{
    struct vsock_stream *s = stream;
    ssize_t n = recv(s->io.fd, buf, len, MSG_DONTWAIT);
    struct pollfd p = { .fd = s->io.fd };

    if (n < 0)
        return errno == EINTR ? -EAGAIN : -errno;
    if (n == 0 && poll(&p, 1, 0) > 0 && (p.revents & (POLLHUP | POLLERR)))
        return -EPIPE;
    return n;
}

static ssize_t pc_vsock_write(void *stream, const uint8_t *buf, size_t len)
{
    ssize_t n = send(((struct vsock_stream *)stream)->io.fd, buf, len, MSG_DONTWAIT | MSG_NOSIGNAL);

    return n >= 0 ? n : errno == EINTR ? -EAGAIN : -errno;
}

static void pc_vsock_shutdown(void *stream) { shutdown(((struct vsock_stream *)stream)->io.fd, SHUT_WR); }

static void pc_vsock_watch(void *stream, bool in, bool out)
{
    pc_vsock_set_events(stream, (in ? (uint32_t)EPOLLIN : 0) | (out ? (uint32_t)EPOLLOUT : 0));
}

/* ---- who comes ---- */

static void pc_vsock_on_listen(void *opaque, uint32_t events)
{
    struct vm_vsock *p = opaque;
    int fd = accept4(p->listener.fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    struct vsock_stream *s = fd < 0 ? NULL : pc_vsock_stream(p, fd);

    if (s)
        pc_vsock_set_events(s, EPOLLIN);
}

/* While the machine stands nobody is let in, and nobody who waits is heard. */
static void pc_vsock_listen(void *opaque, bool on)
{
    struct vm_vsock *p = opaque;

    if (on && !p->listening)
        p->listening = loop_add_fd(p->loop, &p->listener, EPOLLIN) == 0;
    else if (!on && p->listening) {
        loop_del_fd(p->loop, &p->listener);
        p->listening = false;
    }
    for (struct vsock_stream *s = p->stream; s; s = s->next) {
        if (!s->conn)
            pc_vsock_set_events(s, on ? EPOLLIN : 0);
    }
}

static int pc_vsock_open(struct vm_vsock *p, struct err *err)
{
    struct stat st;
    int fd = usock_listen(p->path, 64);

    if (fd < 0)
        return fd == -EADDRINUSE ? err_set(err, EEXIST, "vsock: '%s' exists: end the machine that it belongs to, or remove it", p->path)
                                 : err_set(err, -fd, "vsock: cannot make the socket '%s': %s", p->path, strerror(-fd));
    p->listener.fd = fd;
    if (stat(p->path, &st) == 0) {
        p->on = st.st_dev;
        p->ino = st.st_ino;
    }
    pc_vsock_listen(p, true);
    return p->listening ? 0 : err_set(err, ENOMEM, "vsock: cannot watch the socket '%s'", p->path);
}

/* ---- life ---- */

int pc_init_vsock(struct vm *vm, struct err *err)
{
    struct vm_vsock *p;
    struct vsock_backend backend = { .connect = pc_vsock_connect,
                                     .accepted = pc_vsock_accepted,
                                     .read = pc_vsock_read,
                                     .write = pc_vsock_write,
                                     .shutdown = pc_vsock_shutdown,
                                     .watch = pc_vsock_watch,
                                     .close = pc_vsock_close,
                                     .listen = pc_vsock_listen };
    int r;

    if (!vm->cfg->vsock_path)
        return 0;
    p = vm->vsock = calloc(1, sizeof(*p));
    if (!p)
        return err_set(err, ENOMEM, "out of memory for the socket device");
    backend.opaque = p;
    p->loop = &vm->loop;
    p->path = vm->cfg->vsock_path;
    p->listener = (struct loop_fd){ .fd = -1, .fn = pc_vsock_on_listen, .opaque = p };
    r = virtio_vsock_init(&p->dev, vm->cfg->vsock_cid, &backend, &vm->loop, &vm->ram, pc_deliver, vm);
    if (r == 0) {
        pc_add_device(vm, &virtio_vsock_ops, &p->dev, 0);
        r = pci_dev_plug(&p->dev.vp.pci, &vm->pci, -1);
    }
    return r < 0 ? err_set(err, -r, "cannot add the socket device: %s", strerror(-r)) : pc_vsock_open(p, err);
}

void pc_fini_vsock(struct vm *vm)
{
    struct vm_vsock *p = vm->vsock;
    struct stat st;

    if (!p)
        return;
    while (p->stream)
        pc_vsock_close(p->stream);
    pc_vsock_listen(p, false);
    if (p->ino && stat(p->path, &st) == 0 && st.st_dev == p->on && st.st_ino == p->ino)
        unlink(p->path);
    if (p->listener.fd >= 0)
        close(p->listener.fd);
    free(p);
    vm->vsock = NULL;
}
