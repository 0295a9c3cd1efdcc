/* Extended attributes: those of users ("user."), on files and folders. See internal.h.
 *
 * The others are the host's business: capabilities, labels and access lists of a guest would mean something to the
 * host's own programs. A guest is told that there are none.
 * Locks: the tree's for reading.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "share/internal.h"

#define SHARE_XATTR_MAX 65536U /* Linux' own limit, of a value and of a list */

static bool share_xattr_ours(const char *name) { return !strncmp(name, "user.", 5) && name[5]; }

/* A real descriptor: extended attributes need one. */
static int share_xattr_fd(struct share *s, struct share_node *n)
{
    struct share_ref ref;
    int r = share_ref_get(s, n, &ref);

    if (r < 0)
        return r;
    r = S_ISREG(ref.stx.stx_mode) || S_ISDIR(ref.stx.stx_mode) ? share_reopen(s, ref.fd, &ref.stx, O_RDONLY)
                                                              : -EOPNOTSUPP;
    share_ref_put(s, &ref);
    return r;
}

/* Answer a question for `size` bytes: the length, or the bytes. */
static int share_xattr_answer(struct share_msg *m, const void *v, ssize_t len, uint32_t size)
{
    struct fuse_getxattr_out out = { .size = (uint32_t)len };

    if (!size)
        return share_answer(m, &out, sizeof(out));
    return (size_t)len > size ? -ERANGE : share_answer(m, v, (size_t)len);
}

static int share_xattr_name(const struct share_msg *m, size_t off, const char **name, size_t *next)
{
    int r = share_text(m, off, name, next);

    if (r < 0)
        return r;
    if (strlen(*name) > SHARE_NAME_MAX)
        return -ERANGE;
    return share_xattr_ours(*name) ? 0 : -EOPNOTSUPP;
}

int share_op_getxattr(struct share_msg *m, struct share_node *n)
{
    struct fuse_getxattr_in in;
    const char *name;
    ssize_t len;
    char *buf;
    int r, fd;

    if (!SHARE_ARG(m, &in))
        return -EINVAL;
    r = share_xattr_name(m, sizeof(in), &name, NULL);
    if (r < 0)
        return r;
    fd = share_xattr_fd(m->s, n);
    if (fd < 0)
        return fd;
    buf = malloc(SHARE_XATTR_MAX);
    len = buf ? fgetxattr(fd, name, buf, SHARE_XATTR_MAX) : -1;
    r = len < 0 ? (buf ? -errno : -ENOMEM) : share_xattr_answer(m, buf, len, in.size);
    free(buf);
    close(fd);
    return r;
}

/* Only ours stay in a list of names. Returns the new length. */
static size_t share_xattr_filter(char *list, size_t len)
{
    size_t out = 0, n;

    for (size_t at = 0; at < len; at += n) {
        n = strnlen(list + at, len - at) + 1;
        if (n > len - at || !share_xattr_ours(list + at))
            continue;
        memmove(list + out, list + at, n);
        out += n;
    }
    return out;
}

int share_op_listxattr(struct share_msg *m, struct share_node *n)
{
    struct fuse_getxattr_in in;
    ssize_t len;
    char *buf;
    int r, fd;

    if (!SHARE_ARG(m, &in))
        return -EINVAL;
    fd = share_xattr_fd(m->s, n);
    if (fd < 0)
        return fd == -EOPNOTSUPP ? share_xattr_answer(m, "", 0, in.size) : fd;
    buf = malloc(SHARE_XATTR_MAX);
    len = buf ? flistxattr(fd, buf, SHARE_XATTR_MAX) : -1;
    if (len < 0)
        r = buf ? -errno : -ENOMEM;
    else
        r = share_xattr_answer(m, buf, (ssize_t)share_xattr_filter(buf, (size_t)len), in.size);
    free(buf);
    close(fd);
    return r;
}

int share_op_setxattr(struct share_msg *m, struct share_node *n)
{
    struct fuse_setxattr_in in = { .size = 0 };
    const char *name;
    size_t at;
    int r, fd;

    /* The short form of the argument: FUSE_SETXATTR_EXT is not ours. */
    if (!share_arg(m, &in, FUSE_COMPAT_SETXATTR_IN_SIZE))
        return -EINVAL;
    r = share_xattr_name(m, FUSE_COMPAT_SETXATTR_IN_SIZE, &name, &at);
    if (r < 0)
        return r;
    if (in.size > m->arg_len - at)
        return -EINVAL;
    fd = share_xattr_fd(m->s, n);
    if (fd < 0)
        return fd;
    r = fsetxattr(fd, name, m->arg + at, in.size, (int)(in.flags & (XATTR_CREATE | XATTR_REPLACE))) < 0 ? -errno : 0;
    close(fd);
    return r;
}

int share_op_removexattr(struct share_msg *m, struct share_node *n)
{
    const char *name;
    int r = share_xattr_name(m, 0, &name, NULL), fd;

    if (r < 0)
        return r;
    fd = share_xattr_fd(m->s, n);
    if (fd < 0)
        return fd;
    r = fremovexattr(fd, name) < 0 ? -errno : 0;
    close(fd);
    return r;
}
