/* Attributes: what things look like to the guest, and how it changes them. See internal.h.
 *
 * Ids are the host's as they are, or with `map` what belongs to vitro's own user and group is shown as the chosen ids.
 * The host decides who may change what: as root the guest may give files to anybody, else only to vitro's user.
 * Locks: the tree's for reading.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/statfs.h>
#include <unistd.h>

#include "share/internal.h"

static uint32_t share_swap_id(bool on, uint32_t id, uint32_t a, uint32_t b)
{
    if (!on)
        return id;
    return id == a ? b : id == b ? a : id;
}

uint32_t share_host_uid(const struct share *s, uint32_t uid)
{
    return share_swap_id(s->map, uid, s->map_uid, s->own_uid);
}

uint32_t share_host_gid(const struct share *s, uint32_t gid)
{
    return share_swap_id(s->map, gid, s->map_gid, s->own_gid);
}

/* Linux' 32-bit form of a device number. */
static uint32_t share_rdev(uint32_t major, uint32_t minor)
{
    return (minor & 0xff) | major << 8 | (minor & ~0xffU) << 12;
}

/* Inode numbers of another file system inside (subvolumes) must not meet ours. */
static uint64_t share_ino(const struct share *s, const struct statx *stx)
{
    struct share_id id;

    share_id_of(&id, stx);
    return id.dev == s->root->id.dev ? id.ino : id.ino ^ (id.dev * 0x9e3779b97f4a7c15ULL | 1ULL << 63);
}

void share_fill_attr(const struct share *s, struct fuse_attr *a, const struct statx *stx)
{
    *a = (struct fuse_attr){
        .ino = share_ino(s, stx),
        .size = stx->stx_size,
        .blocks = stx->stx_blocks,
        .atime = (uint64_t)stx->stx_atime.tv_sec,
        .mtime = (uint64_t)stx->stx_mtime.tv_sec,
        .ctime = (uint64_t)stx->stx_ctime.tv_sec,
        .atimensec = stx->stx_atime.tv_nsec,
        .mtimensec = stx->stx_mtime.tv_nsec,
        .ctimensec = stx->stx_ctime.tv_nsec,
        .mode = stx->stx_mode,
        .nlink = stx->stx_nlink,
        .uid = share_swap_id(s->map, stx->stx_uid, s->own_uid, s->map_uid),
        .gid = share_swap_id(s->map, stx->stx_gid, s->own_gid, s->map_gid),
        .rdev = share_rdev(stx->stx_rdev_major, stx->stx_rdev_minor),
        .blksize = stx->stx_blksize,
    };
}

int share_fill_entry(struct share *s, struct share_node *parent, const char *name, const struct statx *stx,
                     struct fuse_entry_out *e)
{
    *e = (struct fuse_entry_out){ .entry_valid = s->valid, .attr_valid = s->valid };
    share_fill_attr(s, &e->attr, stx);
    return share_node_enter(s, parent, name, stx, &e->nodeid);
}

static int share_answer_attr(struct share_msg *m, const struct statx *stx)
{
    struct fuse_attr_out out = { .attr_valid = m->s->valid };

    share_fill_attr(m->s, &out.attr, stx);
    return share_answer(m, &out, sizeof(out));
}

int share_op_getattr(struct share_msg *m, struct share_node *n)
{
    struct share_ref ref;
    int r = share_ref_get(m->s, n, &ref);

    if (r < 0)
        return r;
    r = share_answer_attr(m, &ref.stx);
    share_ref_put(m->s, &ref);
    return r;
}

void share_drop_suid(int fd)
{
    struct statx stx;
    mode_t mode;

    if (share_stat(fd, &stx) < 0 || !S_ISREG(stx.stx_mode))
        return;
    mode = stx.stx_mode & 07777;
    if (mode & S_ISUID)
        mode &= ~(mode_t)S_ISUID;
    if ((mode & (S_ISGID | S_IXGRP)) == (S_ISGID | S_IXGRP))
        mode &= ~(mode_t)S_ISGID;
    if (mode != (stx.stx_mode & 07777))
        fchmod(fd, mode);
}

static int share_set_owner(struct share *s, const struct share_ref *ref, const struct fuse_setattr_in *in)
{
    uid_t uid = (uid_t)-1;
    gid_t gid = (gid_t)-1;

    if (in->valid & FATTR_UID)
        uid = share_host_uid(s, in->uid);
    if (in->valid & FATTR_GID)
        gid = share_host_gid(s, in->gid);
    return fchownat(ref->fd, "", uid, gid, AT_EMPTY_PATH) < 0 ? -errno : 0;
}

static int share_set_mode(struct share *s, const struct share_ref *ref, uint32_t mode)
{
    char name[SHARE_FD_NAME];

    if (S_ISLNK(ref->stx.stx_mode))
        return -EOPNOTSUPP;
    return fchmodat(s->proc_fd, share_fd_name(ref->fd, name), mode & 07777, 0) < 0 ? -errno : 0;
}

static int share_truncate(int fd, uint64_t size, bool drop_suid)
{
    if (size > INT64_MAX)
        return -EFBIG;
    if (ftruncate(fd, (off_t)size) < 0)
        return -errno;
    if (drop_suid)
        share_drop_suid(fd);
    return 0;
}

static int share_set_size(struct share *s, const struct share_ref *ref, const struct fuse_setattr_in *in)
{
    bool drop = in->valid & FATTR_KILL_SUIDGID;
    int fd, r;

    if (in->valid & FATTR_FH) {
        struct share_handle *h;

        r = share_handle_get(s, in->fh, false, &h);
        if (r < 0)
            return r;
        r = share_truncate(h->fd, in->size, drop);
        share_handle_put(s, h);
        return r;
    }
    if (!S_ISREG(ref->stx.stx_mode))
        return S_ISDIR(ref->stx.stx_mode) ? -EISDIR : -EINVAL;
    fd = share_reopen(s, ref->fd, &ref->stx, O_WRONLY);
    if (fd < 0)
        return fd;
    r = share_truncate(fd, in->size, drop);
    close(fd);
    return r;
}

static struct timespec share_time(uint32_t valid, uint32_t set, uint32_t now, uint64_t sec, uint32_t nsec)
{
    if (valid & now)
        return (struct timespec){ .tv_nsec = UTIME_NOW };
    if (valid & set)
        return (struct timespec){ .tv_sec = (time_t)sec, .tv_nsec = nsec };
    return (struct timespec){ .tv_nsec = UTIME_OMIT };
}

static int share_set_times(const struct share_ref *ref, const struct fuse_setattr_in *in)
{
    struct timespec ts[2] = {
        share_time(in->valid, FATTR_ATIME, FATTR_ATIME_NOW, in->atime, in->atimensec),
        share_time(in->valid, FATTR_MTIME, FATTR_MTIME_NOW, in->mtime, in->mtimensec),
    };

    if (in->atimensec > 999999999 || in->mtimensec > 999999999)
        return -EINVAL; /* UTIME_NOW and UTIME_OMIT are numbers above */
    return utimensat(ref->fd, "", ts, AT_EMPTY_PATH) < 0 ? -errno : 0;
}

/* In this order: a new owner takes set-user-id bits away, and a new size changes the times. */
static int share_set_all(struct share *s, const struct share_ref *ref, const struct fuse_setattr_in *in)
{
    int r = 0;

    if (in->valid & (FATTR_UID | FATTR_GID))
        r = share_set_owner(s, ref, in);
    if (r == 0 && (in->valid & FATTR_MODE))
        r = share_set_mode(s, ref, in->mode);
    if (r == 0 && (in->valid & FATTR_SIZE))
        r = share_set_size(s, ref, in);
    if (r == 0 && (in->valid & (FATTR_ATIME | FATTR_MTIME | FATTR_ATIME_NOW | FATTR_MTIME_NOW)))
        r = share_set_times(ref, in);
    return r;
}

int share_op_setattr(struct share_msg *m, struct share_node *n)
{
    struct fuse_setattr_in in;
    struct share_ref ref;
    int r;

    if (!SHARE_ARG(m, &in))
        return -EINVAL;
    r = share_ref_get(m->s, n, &ref);
    if (r < 0)
        return r;
    r = share_set_all(m->s, &ref, &in);
    if (r == 0)
        r = share_stat(ref.fd, &ref.stx);
    if (r == 0)
        r = share_answer_attr(m, &ref.stx);
    share_ref_put(m->s, &ref);
    return r;
}

int share_op_statfs(struct share_msg *m, struct share_node *n)
{
    struct fuse_statfs_out out = { .st = { .namelen = SHARE_NAME_MAX } };
    struct statfs st;

    if (fstatfs(m->s->root_fd, &st) < 0)
        return -errno;
    out.st.blocks = (uint64_t)st.f_blocks;
    out.st.bfree = (uint64_t)st.f_bfree;
    out.st.bavail = (uint64_t)st.f_bavail;
    out.st.files = (uint64_t)st.f_files;
    out.st.ffree = (uint64_t)st.f_ffree;
    out.st.bsize = (uint32_t)st.f_bsize;
    out.st.frsize = (uint32_t)st.f_frsize;
    return share_answer(m, &out, sizeof(out));
}

int share_op_readlink(struct share_msg *m, struct share_node *n)
{
    char text[SHARE_PATH_MAX];
    struct statx stx;
    int fd = share_node_fd(m->s, n, &stx);
    ssize_t len;

    if (fd < 0)
        return fd;
    len = S_ISLNK(stx.stx_mode) ? readlinkat(fd, "", text, sizeof(text)) : -1;
    if (len < 0)
        len = S_ISLNK(stx.stx_mode) ? -errno : -EINVAL;
    close(fd);
    return len < 0 ? (int)len : share_answer(m, text, (size_t)len);
}
