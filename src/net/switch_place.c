/* The members of a switch: a folder of sockets in the user's runtime folder, one a member, named by a random id.
 *
 * There is no daemon and nothing that is shared for writing: whoever is killed leaves a socket that refuses, and whoever
 * meets it removes it. Ids are never used twice, so the socket of a living member is never removed.
 *
 * Sockets are reached by /proc/self/fd/N/ID, because a path may be longer than an address holds.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/err.h"
#include "base/rand.h"
#include "base/rundir.h"
#include "net/switch_int.h"

enum { SWITCH_SNDBUF = 1 << 20 };

static void switch_name(uint64_t id, char name[17]) { snprintf(name, 17, "%016" PRIx64, id); }

static struct sockaddr_un switch_address(const struct net_switch *s, uint64_t id)
{
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    char name[17];

    switch_name(id, name);
    snprintf(a.sun_path, sizeof(a.sun_path), "/proc/self/fd/%d/%s", s->dir, name);
    return a;
}

static int switch_socket(void) { return socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0); }

static void switch_unlink(const struct net_switch *s, uint64_t id)
{
    char name[17];

    switch_name(id, name);
    unlinkat(s->dir, name, 0);
}

/* A socket connected to a member, or -1. One that is dead is removed. */
static int switch_connect(const struct net_switch *s, uint64_t id)
{
    struct sockaddr_un a = switch_address(s, id);
    int size = SWITCH_SNDBUF, fd = switch_socket();

    if (fd < 0)
        return -1;
    if (connect(fd, (struct sockaddr *)&a, sizeof(a)) == 0) {
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size)); /* what it may be */
        return fd;
    }
    if (errno == ECONNREFUSED)
        switch_unlink(s, id);
    close(fd);
    return -1;
}

struct switch_peer *switch_find(struct net_switch *s, uint64_t id)
{
    struct switch_peer *p;

    for (unsigned n = 0; n < s->peers; n++) {
        if (s->peer[n]->id == id)
            return s->peer[n];
    }
    if (id == s->id || s->peers == SWITCH_PEERS)
        return NULL;
    p = calloc(1, sizeof(*p));
    if (!p)
        return NULL;
    p->id = id;
    p->at = -1;
    p->tail = &p->head;
    p->fd = switch_connect(s, id);
    if (p->fd < 0) {
        free(p);
        return NULL;
    }
    s->peer[s->peers++] = p;
    return p;
}

void switch_drop(struct net_switch *s, struct switch_peer *p, bool gone)
{
    struct switch_message *m;

    if (gone)
        switch_unlink(s, p->id);
    for (unsigned n = 0; n < s->peers; n++) {
        if (s->peer[n] == p)
            s->peer[n] = s->peer[--s->peers];
    }
    for (unsigned n = 0; n < SWITCH_MACS; n++) {
        if (s->mac[n].peer == p->id)
            s->mac[n] = (struct switch_mac){ .mac = 0 };
    }
    while ((m = p->head)) {
        p->head = m->next;
        free(m);
    }
    close(p->fd);
    free(p);
}

/* Meet everybody who has a socket here. */
static int switch_scan(struct net_switch *s)
{
    int fd = openat(s->dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    struct dirent *e;

    if (!d) {
        int r = -errno;
        if (fd >= 0)
            close(fd);
        return r;
    }
    while ((e = readdir(d))) {
        char *end;
        uint64_t id = strtoull(e->d_name, &end, 16);

        if (strlen(e->d_name) == 16 && !*end)
            switch_find(s, id);
    }
    closedir(d);
    return 0;
}

int switch_join(struct net_switch *s, const char *name, struct err *err)
{
    struct sockaddr_un a;
    struct rand_source r;
    int code = 0;

    s->dir = rundir_open("switch", name, err);
    if (s->dir < 0) {
        err_prefix(err, "net: switch '%s'", name);
        return s->dir;
    }
    rand_init_host(&r);
    code = rand_u64(&r, &s->id);
    a = switch_address(s, s->id);
    s->fd = switch_socket();
    if (code == 0 && (s->fd < 0 || bind(s->fd, (struct sockaddr *)&a, sizeof(a)) < 0))
        code = -errno;
    if (code == 0)
        code = switch_scan(s);
    return code < 0 ? err_set(err, -code, "net: cannot join the switch '%s': %s", name, strerror(-code)) : 0;
}

void switch_leave(struct net_switch *s)
{
    while (s->peers)
        switch_drop(s, s->peer[0], false);
    if (s->fd >= 0) {
        switch_unlink(s, s->id);
        close(s->fd);
    }
    if (s->dir >= 0)
        close(s->dir);
}
