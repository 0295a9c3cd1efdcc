/* A connection to a guest's agent: where the machine's socket is, its convention (docs/design/vsock.md), the agent's greeting. */
#include "cli/agent_link.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "api/client.h"
#include "base/clock.h"
#include "base/err.h"
#include "cli/cli.h"
#include "cli/verb.h"

#define LINK_PAUSE_US 100000 /* between two tries */

static int64_t link_now_ms(void) { return (int64_t)(clock_host_ns(CLOCK_MONOTONIC) / 1000000); }

/* Where the machine's socket is. 0, or -errno with a sentence. */
static int link_place(const char *name, struct sockaddr_un *a, struct err *err)
{
    struct site_info info;
    json_t *m = NULL;
    const char *path;
    int r = verb_running(name, &info, err);

    if (r == 0)
        r = client_call(name, "GET", "/v1/machine", NULL, &m, err);
    if (r < 0)
        return r;
    path = json_string_value(json_object_get(m, "vsock"));
    *a = (struct sockaddr_un){ .sun_family = AF_UNIX };
    if (!path || strlen(path) >= sizeof(a->sun_path))
        r = err_set(err, ENODEV, "machine '%s' lets nobody in: it was started without --agent and without --vsock", name);
    else
        strcpy(a->sun_path, path);
    json_decref(m);
    return r;
}

/* "OK N\n", and no byte more. 1; 0: the guest refused, or the time is over. */
static int link_answer(int fd, int64_t end)
{
    char line[16];
    size_t len = 0;

    while (len < sizeof(line)) {
        struct pollfd p = { .fd = fd, .events = POLLIN };
        int64_t left = end - link_now_ms();

        if (left <= 0 || poll(&p, 1, (int)left) <= 0 || recv(fd, line + len, 1, MSG_DONTWAIT) != 1)
            return 0;
        if (line[len++] == '\n')
            return !strncmp(line, "OK ", 3);
    }
    return 0;
}

/* One try. 1, with w->fd open; 0: not now; -errno with a sentence. */
static int link_try(struct wire *w, const char *name, int64_t end, struct err *err)
{
    char ask[32];
    struct sockaddr_un a;
    int len = snprintf(ask, sizeof(ask), "CONNECT %d\n", AGENT_PORT), r = link_place(name, &a, err), fd;
    size_t size;

    if (r < 0)
        return r;
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&a, sizeof(a)) == 0 && send(fd, ask, (size_t)len, MSG_NOSIGNAL) == len && link_answer(fd, end)) {
        wire_init(w, fd);
        r = wire_wait(w, (int)(end - link_now_ms() > 0 ? end - link_now_ms() : 0));
        if (r == 1 && wire_type(w) == WIRE_HELLO && *wire_data(w, &size) == AGENT_VERSION && size == 4) {
            wire_done(w);
            return 1;
        }
        if (r != -EPIPE)
            err_set(err, EPROTO, "what answers in the guest of '%s' is no agent of this version of vitro", name);
    }
    if (fd >= 0)
        close(fd);
    return err->text[0] ? -EPROTO : 0;
}

int agent_link(struct wire *w, const char *name, unsigned seconds, struct err *err)
{
    int64_t end = link_now_ms() + (int64_t)seconds * 1000;
    int r;

    while ((r = link_try(w, name, end, err)) == 0) {
        if (link_now_ms() >= end)
            return err_set(err, ETIMEDOUT,
                           "no agent answers in the guest of '%s': it is not up yet, or paused, or has none (see 'vitro help exec')", name);
        usleep(LINK_PAUSE_US);
    }
    return r < 0 ? r : 0;
}

int agent_link_failed(const struct wire *w, int r, struct err *err)
{
    size_t len;
    const uint8_t *d = r == 1 ? wire_data(w, &len) : NULL;

    if (r == 1 && wire_type(w) == WIRE_FAIL && len) {
        err_set(err, EIO, "%.*s", (int)len - 1, (const char *)d + 1);
        return *d ? *d : CLI_ERROR;
    }
    if (r == -EPIPE)
        err_set(err, EPIPE, "the connection to the guest broke");
    else
        err_set(err, EPROTO, "the guest's agent does not keep to the protocol");
    return CLI_ERROR;
}
