/* Operations on open files. See internal.h.
 *
 * They need the handle only, so no path is walked and the tree's lock is not taken, but for OPEN.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/uio.h>
#include <unistd.h>

#include "share/internal.h"

#define SHARE_COPY_MAX (16U << 20) /* of one COPY_FILE_RANGE: a thread is busy with it */

int share_open_flags(const struct share *s, uint32_t flags)
{
    int mode = (int)(flags & O_ACCMODE);

    if (mode == O_ACCMODE)
        mode = O_RDWR;
    /* A guest that caches writes reads what is around them. O_APPEND is done for each write, see below; O_DIRECT
     * would have the host's rules for alignment. */
    if (s->writeback && mode == O_WRONLY)
        mode = O_RDWR;
    return mode | (int)(flags & (O_TRUNC | O_DSYNC | O_SYNC));
}

/* Did the host change the file since the guest had it open? */
static bool share_unchanged(struct share *s, struct share_node *n, const struct statx *stx)
{
    uint64_t mtime = (uint64_t)stx->stx_mtime.tv_sec * 1000000000U + stx->stx_mtime.tv_nsec;
    uint64_t ctime = (uint64_t)stx->stx_ctime.tv_sec * 1000000000U + stx->stx_ctime.tv_nsec;
    bool same;

    pthread_mutex_lock(&s->lock);
    same = n->seen_mtime == mtime && n->seen_ctime == ctime && n->seen_size == stx->stx_size;
    n->seen_mtime = mtime;
    n->seen_ctime = ctime;
    n->seen_size = stx->stx_size;
    pthread_mutex_unlock(&s->lock);
    return same;
}

int share_open_done(struct share *s, struct share_node *n, int fd, struct fuse_open_out *o)
{
    struct statx stx;
    int r = share_stat(fd, &stx);

    if (r < 0) {
        close(fd);
        return r;
    }
    if (s->cache == SHARE_CACHE_ALWAYS || (share_unchanged(s, n, &stx) && s->cache == SHARE_CACHE_AUTO))
        o->open_flags |= FOPEN_KEEP_CACHE;
    if (s->cache == SHARE_CACHE_NONE)
        o->open_flags |= FOPEN_DIRECT_IO; /* past the guest's page cache: no shared mappings, but no copies either */
    return share_handle_add(s, n, fd, false, &o->fh);
}

int share_op_open(struct share_msg *m, struct share_node *n)
{
    struct fuse_open_out out = { .fh = 0 };
    struct fuse_open_in in;
    struct share_ref ref;
    int r, fd;

    if (!SHARE_ARG(m, &in))
        return -EINVAL;
    if (m->s->ro && ((in.flags & O_ACCMODE) != O_RDONLY || (in.flags & O_TRUNC)))
        return -EROFS;
    r = share_ref_get(m->s, n, &ref);
    if (r < 0)
        return r;
    fd = S_ISDIR(ref.stx.stx_mode) ? -EISDIR
                                   : share_reopen(m->s, ref.fd, &ref.stx, share_open_flags(m->s, in.flags));
    share_ref_put(m->s, &ref);
    if (fd < 0)
        return fd;
    if ((in.flags & O_TRUNC) && (in.open_flags & FUSE_OPEN_KILL_SUIDGID))
        share_drop_suid(fd);
    r = share_open_done(m->s, n, fd, &out);
    return r < 0 ? r : share_answer(m, &out, sizeof(out));
}

int share_op_read(struct share_msg *m, struct share_node *n)
{
    struct fuse_read_in in;
    struct share_handle *h;
    ssize_t got = 1;
    size_t done = 0;
    int r;

    if (!SHARE_ARG(m, &in) || in.offset > (uint64_t)INT64_MAX - in.size)
        return -EINVAL;
    r = share_handle_get(m->s, in.fh, false, &h);
    if (r < 0)
        return r;
    if (in.size > m->room)
        in.size = (uint32_t)m->room;
    while (done < in.size && got > 0) {
        got = pread(h->fd, m->out + done, in.size - done, (off_t)(in.offset + done));
        done += got > 0 ? (size_t)got : 0;
    }
    if (got < 0 && !done)
        got = -errno;
    share_handle_put(m->s, h);
    m->out_len = done;
    return got < 0 && !done ? (int)got : 0;
}

/* Appending is decided here and not by the guest, whose idea of the end may be old. */
static ssize_t share_write(int fd, const uint8_t *data, size_t len, uint64_t off, bool append)
{
    size_t done = 0;

    while (done < len) {
        struct iovec v = { .iov_base = (void *)(uintptr_t)(data + done), .iov_len = len - done };
        ssize_t n = pwritev2(fd, &v, 1, (off_t)(off + done), append ? RWF_APPEND : 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && !done)
            return -errno;
        if (n <= 0)
            break;
        done += (size_t)n;
    }
    return (ssize_t)done;
}

int share_op_write(struct share_msg *m, struct share_node *n)
{
    struct fuse_write_out out = { .size = 0 };
    struct fuse_write_in in;
    struct share_handle *h;
    ssize_t done;
    int r;

    if (!SHARE_ARG(m, &in) || in.size > m->arg_len - sizeof(in) || in.offset > (uint64_t)INT64_MAX - in.size)
        return -EINVAL;
    r = share_handle_get(m->s, in.fh, false, &h);
    if (r < 0)
        return r;
    done = share_write(h->fd, m->arg + sizeof(in), in.size, in.offset,
                       (in.flags & O_APPEND) && !(in.write_flags & FUSE_WRITE_CACHE) && !m->s->writeback);
    if (done > 0 && (in.write_flags & FUSE_WRITE_KILL_SUIDGID))
        share_drop_suid(h->fd);
    share_handle_put(m->s, h);
    out.size = done < 0 ? 0 : (uint32_t)done;
    return done < 0 ? (int)done : share_answer(m, &out, sizeof(out));
}

int share_op_release(struct share_msg *m, struct share_node *n)
{
    struct fuse_release_in in;
    return SHARE_ARG(m, &in) ? share_handle_release(m->s, in.fh, false) : -EINVAL;
}

/* A failed flush is final: the kernel would report success the second time for pages that it has dropped. */
static int share_sync(struct share *s, struct share_handle *h, bool data_only)
{
    int r = (data_only ? fdatasync(h->fd) : fsync(h->fd)) < 0 ? -errno : 0;

    pthread_mutex_lock(&s->lock);
    if (h->failed && r == 0)
        r = -EIO;
    if (r < 0 && r != -EINVAL && r != -EROFS)
        h->failed = true;
    pthread_mutex_unlock(&s->lock);
    return r;
}

static bool share_is_written(const struct share_handle *h)
{
    return !h->folder && h->fd >= 0 && (fcntl(h->fd, F_GETFL) & O_ACCMODE) != O_RDONLY;
}

void share_flush(struct share *s)
{
    bool end = false;

    for (uint32_t i = 0; !end; i++) {
        struct share_handle *h;

        pthread_mutex_lock(&s->lock);
        end = i >= s->handles.used;
        h = share_table_at(&s->handles, i);
        if (h)
            h->users++;
        pthread_mutex_unlock(&s->lock);
        if (h && share_is_written(h))
            share_sync(s, h, true); /* how it failed is what the guest's own fsync will say */
        if (h)
            share_handle_put(s, h);
    }
}

static int share_fsync(struct share_msg *m, bool folder)
{
    struct share_handle *h;
    struct fuse_fsync_in in;
    int r;

    if (!SHARE_ARG(m, &in))
        return -EINVAL;
    r = share_handle_get(m->s, in.fh, folder, &h);
    if (r < 0)
        return r;
    r = share_sync(m->s, h, in.fsync_flags & FUSE_FSYNC_FDATASYNC);
    share_handle_put(m->s, h);
    return r;
}

int share_op_fsync(struct share_msg *m, struct share_node *n) { return share_fsync(m, false); }
int share_op_fsyncdir(struct share_msg *m, struct share_node *n) { return share_fsync(m, true); }

int share_op_syncfs(struct share_msg *m, struct share_node *n)
{
    int fd = openat(m->s->root_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), r;

    if (fd < 0)
        return -errno;
    r = syncfs(fd) < 0 ? -errno : 0;
    close(fd);
    return r;
}

int share_op_fallocate(struct share_msg *m, struct share_node *n)
{
    struct fuse_fallocate_in in;
    struct share_handle *h;
    int r;

    if (!SHARE_ARG(m, &in) || in.length > INT64_MAX || in.offset > (uint64_t)INT64_MAX - in.length)
        return -EINVAL;
    if (in.mode & ~(unsigned)(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE))
        return -EOPNOTSUPP;
    r = share_handle_get(m->s, in.fh, false, &h);
    if (r < 0)
        return r;
    r = fallocate(h->fd, (int)in.mode, (off_t)in.offset, (off_t)in.length) < 0 ? -errno : 0;
    share_handle_put(m->s, h);
    return r;
}

int share_op_lseek(struct share_msg *m, struct share_node *n)
{
    struct fuse_lseek_out out = { .offset = 0 };
    struct fuse_lseek_in in;
    struct share_handle *h;
    off_t at;
    int r = 0;

    if (!SHARE_ARG(m, &in) || (in.whence != SEEK_DATA && in.whence != SEEK_HOLE))
        return -EINVAL;
    r = share_handle_get(m->s, in.fh, false, &h);
    if (r < 0)
        return r;
    at = lseek(h->fd, (off_t)in.offset, (int)in.whence);
    if (at < 0)
        r = -errno;
    out.offset = (uint64_t)at;
    share_handle_put(m->s, h);
    return r < 0 ? r : share_answer(m, &out, sizeof(out));
}

int share_op_copy(struct share_msg *m, struct share_node *n)
{
    struct fuse_copy_file_range_in in;
    struct fuse_write_out out = { .size = 0 };
    struct share_handle *from, *to;
    ssize_t done;
    int r;

    if (!SHARE_ARG(m, &in) || in.flags || in.off_in > INT64_MAX || in.off_out > INT64_MAX)
        return -EINVAL;
    done = share_handle_get(m->s, in.fh_in, false, &from);
    r = share_handle_get(m->s, in.fh_out, false, &to);
    if (r < 0)
        done = r;
    if (from && to) {
        off_t a = (off_t)in.off_in, b = (off_t)in.off_out;
        size_t len = in.len < SHARE_COPY_MAX ? (size_t)in.len : SHARE_COPY_MAX;

        done = copy_file_range(from->fd, &a, to->fd, &b, len, 0);
        if (done < 0)
            done = -errno;
    }
    if (from)
        share_handle_put(m->s, from);
    if (to)
        share_handle_put(m->s, to);
    out.size = done < 0 ? 0 : (uint32_t)done;
    return done < 0 ? (int)done : share_answer(m, &out, sizeof(out));
}
