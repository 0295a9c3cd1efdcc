/* From a node to a descriptor: the only place where the share opens anything by a path. See share.h.
 *
 * Runs on: the share's threads. Locks: the tree's lock is held by the caller; share->lock inside.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "share/internal.h"

int share_stat(int fd, struct statx *stx)
{
    return statx(fd, "", AT_EMPTY_PATH | AT_NO_AUTOMOUNT, STATX_BASIC_STATS | STATX_BTIME, stx) < 0 ? -errno : 0;
}

/* A path that stops being inside, or that meets a link where a folder was, has changed on the host. */
static int share_open_path(struct share *s, const char *path)
{
    const struct open_how how = {
        .flags = O_PATH | O_NOFOLLOW | O_CLOEXEC,
        .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV,
    };
    int fd;

    do
        fd = (int)syscall(SYS_openat2, s->root_fd, path, &how, sizeof(how));
    while (fd < 0 && errno == EINTR);
    if (fd < 0)
        return errno == ELOOP ? -ESTALE : -errno;
    return fd;
}

static bool share_is(struct share_node *n, const struct statx *stx)
{
    struct share_id id;

    share_id_of(&id, stx);
    return !memcmp(&id, &n->id, sizeof(id));
}

int share_node_fd(struct share *s, struct share_node *n, struct statx *stx)
{
    char path[SHARE_PATH_MAX];
    int r = share_node_path(s, n, NULL, path), fd;

    if (r < 0)
        return r;
    fd = share_open_path(s, path);
    if (fd < 0)
        return fd == -ENOENT || fd == -ENOTDIR ? -ESTALE : fd;
    r = share_stat(fd, stx);
    if (r == 0 && !share_is(n, stx))
        r = -ESTALE;
    if (r == 0)
        return fd;
    close(fd);
    return r;
}

int share_folder_fd(struct share *s, struct share_node *n, struct statx *stx)
{
    int fd = share_node_fd(s, n, stx);

    if (fd >= 0 && !S_ISDIR(stx->stx_mode)) {
        close(fd);
        return -ENOTDIR;
    }
    return fd;
}

int share_child_fd(struct share *s, struct share_node *n, const char *name, struct statx *stx)
{
    char path[SHARE_PATH_MAX];
    int r = share_node_path(s, n, name, path), fd;

    if (r < 0)
        return r;
    fd = share_open_path(s, path);
    if (fd < 0)
        return fd;
    r = share_stat(fd, stx);
    if (r == 0)
        return fd;
    close(fd);
    return r;
}

const char *share_fd_name(int fd, char buf[SHARE_FD_NAME])
{
    snprintf(buf, SHARE_FD_NAME, "%d", fd);
    return buf;
}

int share_reopen(struct share *s, int path_fd, const struct statx *stx, int flags)
{
    char name[SHARE_FD_NAME];
    int fd;

    if (S_ISLNK(stx->stx_mode))
        return -ELOOP;
    if (!S_ISREG(stx->stx_mode) && !S_ISDIR(stx->stx_mode))
        return -ENXIO;
    do
        fd = openat(s->proc_fd, share_fd_name(path_fd, name), flags | O_CLOEXEC | O_NOCTTY);
    while (fd < 0 && errno == EINTR);
    return fd < 0 ? -errno : fd;
}

int share_ref_get(struct share *s, struct share_node *n, struct share_ref *ref)
{
    int r;

    ref->handle = share_handle_of(s, n);
    if (!ref->handle) {
        ref->fd = share_node_fd(s, n, &ref->stx);
        return ref->fd < 0 ? ref->fd : 0;
    }
    ref->fd = ref->handle->fd;
    r = share_stat(ref->fd, &ref->stx);
    if (r < 0)
        share_handle_put(s, ref->handle);
    return r;
}

void share_ref_put(struct share *s, struct share_ref *ref)
{
    if (ref->handle)
        share_handle_put(s, ref->handle);
    else
        close(ref->fd);
}
