/* Requests to a machine's control socket. See client.h. */
#include "api/client.h"

#include <errno.h>
#include <http_parser.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "api/site.h"
#include "base/err.h"
#include "base/fdpass.h"

#define CLIENT_ANSWER_MAX (16u << 20) /* a picture of the largest screen */

/* An answer as it comes in. */
struct client_answer {
    struct http_parser parser;
    char *body; /* owned */
    size_t len;
    bool whole;
};

static int client_on_body(http_parser *p, const char *at, size_t len)
{
    struct client_answer *a = p->data;
    char *more = len <= CLIENT_ANSWER_MAX - a->len ? realloc(a->body, a->len + len + 1) : NULL;

    if (!more)
        return -1;
    memcpy(more + a->len, at, len);
    a->body = more;
    a->len += len;
    more[a->len] = 0;
    return 0;
}

static int client_on_whole(http_parser *p)
{
    struct client_answer *a = p->data;

    a->whole = true;
    return 0;
}

static int client_send(int fd, const char *data, size_t len)
{
    while (len) {
        ssize_t n = send(fd, data, len, MSG_NOSIGNAL);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return -errno;
        data += n;
        len -= (size_t)n;
    }
    return 0;
}

static int client_receive(int fd, struct client_answer *a)
{
    static const http_parser_settings calls = { .on_body = client_on_body, .on_message_complete = client_on_whole };
    char buf[8192];

    http_parser_init(&a->parser, HTTP_RESPONSE);
    a->parser.data = a;
    while (!a->whole) {
        ssize_t n = recv(fd, buf, sizeof(buf), 0);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno == EAGAIN ? -ETIMEDOUT : -errno;
        if (http_parser_execute(&a->parser, &calls, buf, (size_t)n) != (size_t)n || HTTP_PARSER_ERRNO(&a->parser))
            return -EBADMSG;
        if (n == 0 && !a->whole)
            return -ECONNRESET;
    }
    return 0;
}

static void client_timeout(int fd, int seconds)
{
    struct timeval tv = { .tv_sec = seconds };

    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv));
}

static int client_exchange(int fd, const char *method, const char *path, const json_t *body, const struct client_passed *passed, bool keep,
                           struct client_answer *a)
{
    char *text = body ? json_dumps(body, JSON_COMPACT) : NULL, head[512];
    int r, n, sent = 0;

    if (body && !text)
        return -ENOMEM;
    n = snprintf(head, sizeof(head),
                 "%s %s HTTP/1.1\r\nHost: vitro\r\nConnection: %s\r\nContent-Type: application/json\r\n"
                 "Content-Length: %zu\r\n\r\n",
                 method, path, keep ? "keep-alive" : "close", text ? strlen(text) : 0);
    r = n < (int)sizeof(head) ? 0 : -ENAMETOOLONG;
    if (r == 0 && passed)
        r = sent = (int)fdpass_send(fd, head, (size_t)n, passed->fd, passed->count);
    if (r >= 0)
        r = client_send(fd, head + sent, (size_t)(n - sent));
    if (r == 0 && text)
        r = client_send(fd, text, strlen(text));
    free(text);
    return r < 0 ? r : client_receive(fd, a);
}

/* Not a 2xx: what the machine says. */
static int client_refused(const char *name, const struct client_answer *a, struct err *err)
{
    json_t *root = a->len ? json_loadb(a->body, a->len, 0, NULL) : NULL;
    const char *text = json_string_value(json_object_get(root, "error"));
    int r = err_set(err, EREMOTEIO, "machine '%s': %s", name, text ? text : "it refused, and did not say why");

    json_decref(root);
    return r;
}

/* kept: NULL, or where the connection is left. */
static int client_ask(const char *name, const char *method, const char *path, const json_t *body, const struct client_passed *passed, int *kept, int seconds,
                      struct client_answer *a, struct err *err)
{
    int r, fd = site_connect(name, err);

    if (fd < 0)
        return fd;
    client_timeout(fd, seconds);
    r = client_exchange(fd, method, path, body, passed, kept != NULL, a);
    if (kept && r == 0 && a->parser.status_code / 100 == 2)
        *kept = fd;
    else
        close(fd);
    if (r == -ETIMEDOUT)
        return err_set(err, ETIMEDOUT, "machine '%s' has not answered for %d seconds: 'vitro kill %s' ends it", name,
                       seconds, name);
    if (r < 0)
        return err_set(err, -r, "machine '%s' does not answer: %s", name, strerror(-r));
    return a->parser.status_code / 100 == 2 ? 0 : client_refused(name, a, err);
}

int client_call_for(const char *name, const char *method, const char *path, const json_t *body, json_t **answer,
                    int seconds, struct err *err)
{
    struct client_answer a = { .body = NULL };
    int r = client_ask(name, method, path, body, NULL, NULL, seconds, &a, err);

    if (answer)
        *answer = NULL;
    if (r == 0 && answer && a.len) {
        *answer = json_loadb(a.body, a.len, 0, NULL);
        if (!*answer)
            r = err_set(err, EBADMSG, "machine '%s' gave an answer that is not JSON", name);
    }
    free(a.body);
    return r;
}

int client_call(const char *name, const char *method, const char *path, const json_t *body, json_t **answer,
                struct err *err)
{
    return client_call_for(name, method, path, body, answer, CLIENT_SECONDS, err);
}

int client_call_with(const char *name, const char *method, const char *path, const json_t *body, const struct client_passed *passed, int *kept,
                     struct err *err)
{
    struct client_answer a = { .body = NULL };
    int r;

    if (kept)
        *kept = -1;
    r = client_ask(name, method, path, body, passed, kept, CLIENT_SECONDS, &a, err);

    free(a.body);
    return r;
}

int client_text(const char *name, const char *path, char **text, size_t *len, struct err *err)
{
    struct client_answer a = { .body = NULL };
    int r = client_ask(name, "GET", path, NULL, NULL, NULL, CLIENT_SECONDS, &a, err);

    *text = r == 0 ? a.body : NULL;
    if (len)
        *len = a.len;
    if (r < 0)
        free(a.body);
    return r;
}

/* The head only, byte by byte: what follows is the console's. */
static int client_head(int fd, char *head, size_t size)
{
    size_t len = 0;

    while (len < size - 1) {
        ssize_t n = recv(fd, head + len, 1, 0);

        if (n <= 0)
            return n < 0 ? -errno : -ECONNRESET;
        head[++len] = 0;
        if (len >= 4 && !strcmp(head + len - 4, "\r\n\r\n"))
            return 0;
    }
    return -EBADMSG;
}

int client_attach(const char *name, const char *path, struct err *err)
{
    char head[1024];
    int r, n, fd = site_connect(name, err);

    if (fd < 0)
        return fd;
    client_timeout(fd, CLIENT_SECONDS);
    n = snprintf(head, sizeof(head),
                 "GET %s HTTP/1.1\r\nHost: vitro\r\nConnection: Upgrade\r\nUpgrade: vitro-console\r\n\r\n", path);
    r = client_send(fd, head, (size_t)n);
    if (r == 0)
        r = client_head(fd, head, sizeof(head));
    if (r == 0 && !strncmp(head, "HTTP/1.1 101", 12)) {
        client_timeout(fd, 0);
        return fd;
    }
    close(fd);
    return err_set(err, r < 0 ? -r : EREMOTEIO, "machine '%s' does not show its console: %s", name,
                   r < 0 ? strerror(-r) : "it refused");
}
