/* Connections, requests and answers. See server.h for threads and bounds. */
#include "api/server.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "api/ring.h"
#include "api/server_int.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/fdpass.h"

#define API_DRAIN_MS 1000

static void api_read(struct api_client *c);
static void api_drop_passed(struct api_client *c);

uint64_t api_now_ms(void) { return clock_host_ns(CLOCK_MONOTONIC) / 1000000; }

/* -- answers -- */

void api_reply_text(struct api_reply *r, const char *type, char *text)
{
    free(r->text);
    r->status = text ? 200 : 500;
    r->type = type;
    r->text = text;
    r->len = text ? strlen(text) : 0;
}

void api_reply_json(struct api_reply *r, int status, json_t *root)
{
    api_reply_text(r, "application/json", root ? json_dumps(root, JSON_COMPACT) : NULL);
    if (r->text)
        r->status = status;
    json_decref(root);
}

void api_reply_error(struct api_reply *r, int status, const char *key, const char *fmt, ...)
{
    char text[600];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    api_reply_json(r, status, json_pack("{s:s}", key, text));
    if (!r->text) /* not UTF-8, or no memory: the status alone */
        r->status = status;
}

/* -- connections -- */

void api_watch(struct api_client *c, uint32_t events)
{
    struct loop *l = c->server->loop;

    if (events == c->events)
        return;
    if (!events)
        loop_del_fd(l, &c->watch);
    else if (!c->events)
        events = loop_add_fd(l, &c->watch, events) < 0 ? 0 : events;
    else
        loop_mod_fd(l, &c->watch, events);
    c->events = events;
}

/* The clock of late clients runs while there may be one. */
static void api_arm(struct api_server *s)
{
    struct itimerspec when = { .it_interval.tv_sec = 1, .it_value.tv_sec = 1 };
    bool wanted = false;

    for (unsigned n = 0; n < s->clients; n++)
        wanted |= s->client[n]->deadline != 0;
    if (wanted == s->ticking)
        return;
    if (!wanted)
        memset(&when, 0, sizeof(when));
    timerfd_settime(s->tick.fd, 0, &when, NULL);
    s->ticking = wanted;
}

static void api_deadline(struct api_client *c, bool on)
{
    c->deadline = on ? api_now_ms() + API_REQUEST_MS : 0;
    api_arm(c->server);
}

void api_close(struct api_client *c)
{
    struct api_server *s = c->server;

    api_watch(c, 0);
    api_drop_passed(c);
    close(c->watch.fd);
    http_fini(&c->http);
    free(c->out);
    for (unsigned n = 0; n < s->clients; n++) {
        if (s->client[n] == c)
            s->client[n] = s->client[--s->clients];
    }
    if (c->tied)
        s->ops->gone(s->opaque);
    free(c);
    api_arm(s);
}

static void api_next_request(struct api_client *c)
{
    free(c->out);
    c->out = NULL;
    http_reset(&c->http);
    c->phase = API_READING;
    api_deadline(c, false);
    api_watch(c, EPOLLIN);
    api_read(c);
}

/* The answer is out. */
static void api_written(struct api_client *c)
{
    if (c->view) {
        free(c->out);
        c->out = NULL;
        c->phase = API_VIEWING;
        api_deadline(c, false);
        viewer_type(c); /* what came in one piece with the request */
        viewer_rewatch(c);
    } else if (c->last) {
        api_close(c);
    } else {
        api_next_request(c);
    }
}

static void api_write(struct api_client *c)
{
    while (c->out_done < c->out_len) {
        ssize_t n = send(c->watch.fd, c->out + c->out_done, c->out_len - c->out_done, MSG_DONTWAIT | MSG_NOSIGNAL);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN) {
            api_watch(c, EPOLLOUT);
            return;
        }
        if (n <= 0) {
            api_close(c);
            return;
        }
        c->out_done += (size_t)n;
    }
    api_written(c);
}

/* Send an answer; takes r->text. */
static void api_answer(struct api_client *c, struct api_reply *r)
{
    char head[512];
    size_t len;

    c->view = r->status == 101;
    c->last = !c->view && (c->http.state == HTTP_BAD || !c->http.keep_alive || r->status >= 500);
    if (c->view)
        len = (size_t)snprintf(head, sizeof(head),
                               "HTTP/1.1 101 %s\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", http_reason(101),
                               c->http.upgrade);
    else
        len = http_head(head, sizeof(head), r->status, r->type, r->len, !c->last);
    c->out = malloc(len + r->len + 1);
    c->out_done = 0;
    c->out_len = len + r->len;
    c->pos = r->from;
    c->read_only = r->read_only;
    c->tied |= r->tied;
    c->phase = API_WRITING;
    if (c->out) {
        memcpy(c->out, head, len);
        if (r->len)
            memcpy(c->out + len, r->text, r->len);
    }
    free(r->text);
    if (!c->out) {
        api_close(c);
        return;
    }
    api_deadline(c, true);
    api_write(c);
}

static void api_refuse(struct api_client *c, int status)
{
    struct api_reply r = { .status = status };

    c->http.state = HTTP_BAD;
    api_reply_error(&r, status, c->server->ops->error_key, "the request cannot be read: %s", http_reason(status));
    api_answer(c, &r);
}

/* -- requests -- */

static void api_continue(struct api_client *c)
{
    static const char line[] = "HTTP/1.1 100 Continue\r\n\r\n";

    if (send(c->watch.fd, line, sizeof(line) - 1, MSG_DONTWAIT | MSG_NOSIGNAL) != sizeof(line) - 1)
        c->http.keep_alive = false; /* it never takes what we send: its answer will not go out either */
}

/* Parse what is in c->in. False: the client is gone, or waits for its answer. */
static bool api_parse(struct api_client *c)
{
    while (c->in_len) {
        size_t used;
        enum http_state st = http_feed(&c->http, c->in, c->in_len, &used);

        memmove(c->in, c->in + used, c->in_len - used);
        c->in_len -= used;
        if (!c->deadline)
            api_deadline(c, true);
        if (st == HTTP_CONTINUE)
            api_continue(c);
        if (st == HTTP_BAD) {
            api_refuse(c, c->http.status);
            return false;
        }
        if (st == HTTP_WHOLE) {
            c->phase = API_READY;
            api_deadline(c, false);
            api_watch(c, 0);
            c->server->ops->wake(c->server->opaque);
            return false;
        }
    }
    return true;
}

static void api_drop_passed(struct api_client *c)
{
    for (unsigned n = 0; n < API_PASSED; n++) {
        if (c->passed[n] >= 0)
            close(c->passed[n]);
        c->passed[n] = -1;
    }
}

/* recv(), with at most API_PASSED descriptors beside the bytes, which replace earlier ones. */
static ssize_t api_receive(struct api_client *c, void *buf, size_t len)
{
    int fds[API_PASSED];
    unsigned count;
    ssize_t n = fdpass_recv(c->watch.fd, buf, len, MSG_DONTWAIT, fds, API_PASSED, &count);

    if (count) {
        api_drop_passed(c);
        memcpy(c->passed, fds, count * sizeof(int));
    }
    return n;
}

/* At most one buffer a call: other clients, and the guest, get their turn. */
static void api_read(struct api_client *c)
{
    ssize_t n;

    if (!api_parse(c))
        return;
    n = api_receive(c, c->in + c->in_len, sizeof(c->in) - c->in_len);
    if (n == -EAGAIN)
        return;
    if (n <= 0) {
        api_close(c);
        return;
    }
    c->in_len += (size_t)n;
    c->seen = api_now_ms();
    api_parse(c);
}

static void api_on_client(void *opaque, uint32_t events)
{
    struct api_client *c = opaque;

    if (c->phase == API_VIEWING)
        viewer_event(c, events);
    else if (c->phase == API_WRITING)
        api_write(c);
    else
        api_read(c);
}

static void api_on_tick(void *opaque, uint32_t events)
{
    struct api_server *s = opaque;
    uint64_t count, now = api_now_ms();

    if (read(s->tick.fd, &count, sizeof(count)) != sizeof(count))
        return;
    for (unsigned n = 0; n < s->clients; n++) {
        struct api_client *c = s->client[n];

        if (!c->deadline || now < c->deadline)
            continue;
        if (c->phase == API_READING)
            api_refuse(c, 408);
        else
            api_close(c);
        n = UINT32_MAX; /* the list has changed: look again from its start */
    }
}

/* -- new clients -- */

/* Someone has to go: who has been silent for longest and is owed nothing. NULL: nobody. */
static struct api_client *api_idlest(const struct api_server *s)
{
    struct api_client *best = NULL;

    for (unsigned n = 0; n < s->clients; n++) {
        struct api_client *c = s->client[n];

        if (c->phase == API_READING && !c->tied && (!best || c->seen < best->seen))
            best = c;
    }
    return best;
}

/* The user that runs the machine, and root, who could do everything anyway. */
static bool api_may(int fd)
{
    struct ucred who;
    socklen_t len = sizeof(who);

    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &len) == 0 && (who.uid == geteuid() || who.uid == 0);
}

static void api_on_connect(void *opaque, uint32_t events)
{
    struct api_server *s = opaque;
    struct api_client *c, *idle;
    int fd = accept4(s->listen.fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

    if (fd < 0)
        return;
    idle = s->clients == API_CLIENTS ? api_idlest(s) : NULL;
    if (idle)
        api_close(idle);
    c = s->clients < API_CLIENTS && api_may(fd) ? calloc(1, sizeof(*c)) : NULL;
    if (!c) {
        close(fd);
        return;
    }
    c->server = s;
    memset(c->passed, -1, sizeof(c->passed));
    c->seen = api_now_ms();
    c->watch = (struct loop_fd){ .fd = fd, .fn = api_on_client, .opaque = c };
    http_init(&c->http);
    s->client[s->clients++] = c;
    api_watch(c, EPOLLIN);
    if (!c->events)
        api_close(c);
}

/* -- the owner's side -- */

int api_init(struct api_server *s, struct loop *loop, int listen_fd, const struct api_ops *ops, void *opaque,
             struct err *err)
{
    int r;

    memset(s, 0, sizeof(*s));
    s->loop = loop;
    s->ops = ops;
    s->opaque = opaque;
    s->listen = (struct loop_fd){ .fd = listen_fd, .fn = api_on_connect, .opaque = s };
    s->tick = (struct loop_fd){ .fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK),
                                .fn = api_on_tick,
                                .opaque = s };
    r = s->tick.fd < 0 ? -errno : loop_add_fd(loop, &s->tick, EPOLLIN);
    if (r == 0)
        r = loop_add_fd(loop, &s->listen, EPOLLIN);
    if (r == 0)
        return 0;
    close(listen_fd);
    if (s->tick.fd >= 0)
        close(s->tick.fd);
    s->loop = NULL;
    return err_set(err, -r, "cannot serve the control socket: %s", strerror(-r));
}

void api_fini(struct api_server *s)
{
    uint64_t end = api_now_ms() + API_DRAIN_MS;

    if (!s->loop)
        return;
    loop_lock(s->loop);
    while (s->clients) {
        viewer_drain(s->client[0], end);
        api_close(s->client[0]);
    }
    loop_del_fd(s->loop, &s->listen);
    loop_del_fd(s->loop, &s->tick);
    loop_unlock(s->loop);
    close(s->listen.fd);
    close(s->tick.fd);
    s->loop = NULL;
}

int api_move(struct api_server *s, struct loop *loop)
{
    struct loop *old = s->loop;
    int r;

    loop_del_fd(old, &s->listen);
    loop_del_fd(old, &s->tick);
    for (unsigned n = 0; n < s->clients; n++) {
        uint32_t events = s->client[n]->events;

        api_watch(s->client[n], 0);
        s->loop = loop;
        api_watch(s->client[n], events);
        s->loop = old;
    }
    s->loop = loop;
    r = loop_add_fd(loop, &s->listen, EPOLLIN);
    return r < 0 ? r : loop_add_fd(loop, &s->tick, EPOLLIN);
}

void api_serve(struct api_server *s)
{
    const struct loop *loop = s->loop;

    /* Not on behalf of another loop, which does not run yet, if an answer has moved us there. */
    for (unsigned n = 0; s->loop == loop && n < s->clients; n++) {
        struct api_client *c = s->client[n];
        struct api_reply r = { .status = 500 };

        if (c->phase != API_READY)
            continue;
        memcpy(r.passed, c->passed, sizeof(r.passed));
        s->ops->serve(s->opaque, &c->http, &r);
        memcpy(c->passed, r.passed, sizeof(r.passed));
        api_drop_passed(c);
        loop_lock(s->loop);
        api_answer(c, &r);
        loop_unlock(s->loop);
        n = UINT32_MAX; /* the list may have changed; a client that pipelines gets one answer a round */
    }
}
