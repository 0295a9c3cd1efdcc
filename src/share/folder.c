/* Listing folders. See internal.h.
 *
 * The guest's open folder is the host's open folder, and is read in order: positions are the host's own, and what
 * does not fit into an answer waits in the handle's buffer. So a guest that removes what it has read, and one that
 * goes back, sees what a process on the host would see.
 * Locks: the handle's dir_lock; the tree's for reading in OPENDIR.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bits.h"
#include "share/internal.h"

#define SHARE_DIR_BUF (32U << 10)

int share_op_opendir(struct share_msg *m, struct share_node *n)
{
    struct fuse_open_out out = { .fh = 0 };
    struct statx stx;
    int path = share_folder_fd(m->s, n, &stx), fd, r;

    if (path < 0)
        return path;
    fd = share_reopen(m->s, path, &stx, O_RDONLY | O_DIRECTORY);
    close(path);
    if (fd < 0)
        return fd;
    r = share_handle_add(m->s, n, fd, true, &out.fh);
    if (m->s->cache == SHARE_CACHE_ALWAYS)
        out.open_flags = FOPEN_CACHE_DIR | FOPEN_KEEP_CACHE;
    return r < 0 ? r : share_answer(m, &out, sizeof(out));
}

int share_op_releasedir(struct share_msg *m, struct share_node *n)
{
    struct fuse_release_in in;
    return SHARE_ARG(m, &in) ? share_handle_release(m->s, in.fh, true) : -EINVAL;
}

/* ---- one entry ---- */

static bool share_is_dot(const char *name) { return name[0] == '.' && (!name[1] || (name[1] == '.' && !name[2])); }

/* Look an entry up while we are here. Where that is not possible the guest does it itself, and gets the error. */
static void share_plus(struct share_msg *m, struct share_handle *h, const char *name, struct fuse_entry_out *e)
{
    struct statx stx;

    if (share_is_dot(name) || statx(h->fd, name, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT,
                                    STATX_BASIC_STATS | STATX_BTIME, &stx) < 0)
        return;
    if (stx.stx_attributes & STATX_ATTR_MOUNT_ROOT)
        return;
    if (share_fill_entry(m->s, h->node, name, &stx, e) < 0)
        memset(e, 0, sizeof(*e));
}

/* False: there is no room for it. */
static bool share_add_entry(struct share_msg *m, struct share_handle *h, const struct dirent64 *d, bool plus)
{
    size_t len = strlen(d->d_name), head = plus ? sizeof(struct fuse_entry_out) : 0;
    size_t all = ALIGN_UP(head + sizeof(struct fuse_dirent) + len, 8);
    struct fuse_dirent de = {
        .ino = d->d_ino, .off = (uint64_t)d->d_off, .namelen = (uint32_t)len, .type = d->d_type
    };
    struct fuse_entry_out e = { .nodeid = 0 };
    uint8_t *at = m->out + m->out_len;

    if (all > m->room - m->out_len)
        return false;
    if (plus)
        share_plus(m, h, d->d_name, &e);
    if (h->node == m->s->root && !strcmp(d->d_name, ".."))
        de.ino = m->s->root->id.ino; /* there is nothing above */
    memset(at, 0, all);
    memcpy(at, &e, head);
    memcpy(at + head, &de, sizeof(de));
    memcpy(at + head + sizeof(de), d->d_name, len);
    m->out_len += all;
    return true;
}

/* ---- a stretch of them ---- */

/* More entries from the host: 1, 0 at the end, -errno. */
static int share_dir_fill(struct share_handle *h)
{
    ssize_t n;

    if (h->at < h->end)
        return 1;
    if (!h->buf)
        h->buf = malloc(SHARE_DIR_BUF);
    if (!h->buf)
        return -ENOMEM;
    n = getdents64(h->fd, h->buf, SHARE_DIR_BUF);
    h->at = 0;
    h->end = n > 0 ? (unsigned)n : 0;
    if (n > 0)
        return 1;
    n = n < 0 ? -errno : 0;
    free(h->buf);
    h->buf = NULL;
    return (int)n;
}

static int share_dir_seek(struct share_handle *h, uint64_t off)
{
    if (off == (uint64_t)h->pos && !h->foreign)
        return 0;
    if (off > INT64_MAX)
        return -EINVAL;
    if (off && h->foreign)
        return -ESTALE; /* it means nothing here: what would follow may be twice there, or never */
    h->foreign = false;
    h->at = h->end = 0;
    if (lseek(h->fd, (off_t)off, SEEK_SET) < 0)
        return -errno;
    h->pos = (int64_t)off;
    return 0;
}

static int share_dir_list(struct share_msg *m, struct share_handle *h, uint64_t off, bool plus)
{
    int r = share_dir_seek(h, off);

    while (r == 0 && (r = share_dir_fill(h)) > 0) {
        const struct dirent64 *d = (const void *)(h->buf + h->at);

        if (!share_add_entry(m, h, d, plus))
            return m->out_len ? 0 : -EINVAL;
        h->at += d->d_reclen;
        h->pos = d->d_off;
        r = 0;
    }
    return m->out_len ? 0 : r;
}

static int share_readdir(struct share_msg *m, bool plus)
{
    struct share_handle *h;
    struct fuse_read_in in;
    int r;

    if (!SHARE_ARG(m, &in))
        return -EINVAL;
    r = share_handle_get(m->s, in.fh, true, &h);
    if (r < 0)
        return r;
    if (m->room > in.size)
        m->room = in.size;
    pthread_mutex_lock(&h->dir_lock);
    r = share_dir_list(m, h, in.offset, plus);
    pthread_mutex_unlock(&h->dir_lock);
    share_handle_put(m->s, h);
    return r;
}

int share_op_readdir(struct share_msg *m, struct share_node *n) { return share_readdir(m, false); }
int share_op_readdirplus(struct share_msg *m, struct share_node *n) { return share_readdir(m, true); }
