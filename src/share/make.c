/* Operations that make something new: files, folders, links, FIFOs. See internal.h.
 *
 * A new thing gets exactly the mode that the guest wants (its kernel has applied its own umask; the monitor's does
 * not count) and, if vitro is root, the owner that makes it in the guest; in a folder with the set-group-id bit the
 * folder's group, as on the host. As an ordinary user all new things are vitro's user's.
 * Locks: the tree's for reading.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "share/internal.h"

/* What is made, by one of the functions below. */
struct share_new {
    const char *name, *target; /* target: of a symbolic link */
    uint32_t mode;
    int flags; /* of open() */
    int fd;    /* of a file that stays open */
};

typedef int share_make_fn(int dir, struct share_new *w);

static int share_make_node(int dir, struct share_new *w) { return mknodat(dir, w->name, w->mode, 0); }
static int share_make_folder(int dir, struct share_new *w) { return mkdirat(dir, w->name, w->mode & 07777); }
static int share_make_link(int dir, struct share_new *w) { return symlinkat(w->target, dir, w->name); }

/* O_EXCL: nothing that is there already is opened, least of all a device. */
static int share_make_file(int dir, struct share_new *w)
{
    w->fd = openat(dir, w->name, w->flags | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC | O_NOCTTY, w->mode & 07777);
    return w->fd < 0 ? -1 : 0;
}

/* An O_PATH descriptor of what has been made, if that is what is there: another process may have put something else
 * in its place, and that is not to be given away. */
static int share_made_fd(int dir, const struct share_new *w, struct statx *stx)
{
    int fd = openat(dir, w->name, O_PATH | O_NOFOLLOW | O_CLOEXEC), r;

    if (fd < 0)
        return -errno;
    r = share_stat(fd, stx);
    if (r == 0 && ((stx->stx_mode & S_IFMT) != (w->mode & S_IFMT) || stx->stx_uid != geteuid() ||
                   (!S_ISDIR(stx->stx_mode) && stx->stx_nlink != 1)))
        r = -ESTALE;
    if (r == 0)
        return fd;
    close(fd);
    return r;
}

/* Owner and mode of what has just been made. */
static int share_dress(struct share_msg *m, int fd, const struct statx *dir, const struct share_new *w,
                       struct statx *stx)
{
    bool sgid = dir->stx_mode & S_ISGID;
    uint32_t mode = w->mode & 07777;
    uid_t uid = share_host_uid(m->s, m->in.uid);
    gid_t gid = sgid ? (gid_t)-1 : share_host_gid(m->s, m->in.gid);
    char name[SHARE_FD_NAME];

    if (m->s->as_root && (uid != stx->stx_uid || (!sgid && gid != stx->stx_gid)) &&
        fchownat(fd, "", uid, gid, AT_EMPTY_PATH) < 0)
        return -errno;
    if (S_ISDIR(stx->stx_mode) && sgid)
        mode |= S_ISGID;
    if (!S_ISLNK(stx->stx_mode) && (stx->stx_mode & 07777) != mode &&
        fchmodat(m->s->proc_fd, share_fd_name(fd, name), mode, 0) < 0)
        return -errno;
    return share_stat(fd, stx);
}

/* Make w in the folder n. A file stays open in w->fd. */
static int share_make(struct share_msg *m, struct share_node *n, share_make_fn *fn, struct share_new *w,
                      struct statx *stx)
{
    struct statx parent;
    int dir = share_folder_fd(m->s, n, &parent), fd, r;

    if (dir < 0)
        return dir;
    if (fn(dir, w) < 0) {
        r = -errno;
        close(dir);
        return r;
    }
    fd = w->fd >= 0 ? w->fd : share_made_fd(dir, w, stx);
    r = fd < 0 ? fd : w->fd >= 0 ? share_stat(fd, stx) : 0;
    if (r == 0)
        r = share_dress(m, fd, &parent, w, stx);
    if (fd >= 0 && fd != w->fd)
        close(fd);
    close(dir);
    return r;
}

static int share_make_and_answer(struct share_msg *m, struct share_node *n, share_make_fn *fn, struct share_new *w)
{
    struct fuse_entry_out e;
    struct statx stx;
    int r = share_make(m, n, fn, w, &stx);

    if (w->fd >= 0)
        close(w->fd);
    if (r == 0)
        r = share_fill_entry(m->s, n, w->name, &stx, &e);
    return r < 0 ? r : share_answer(m, &e, sizeof(e));
}

int share_op_mknod(struct share_msg *m, struct share_node *n)
{
    struct share_new w = { .fd = -1 };
    struct fuse_mknod_in in;
    int r;

    if (!SHARE_ARG(m, &in))
        return -EINVAL;
    r = share_name(m, sizeof(in), &w.name, NULL);
    if (r < 0)
        return r;
    w.mode = in.mode & (S_IFMT | 07777);
    if (!S_ISREG(w.mode) && !S_ISFIFO(w.mode) && !S_ISSOCK(w.mode))
        return -EPERM; /* devices are the host's */
    w.flags = O_WRONLY;
    return share_make_and_answer(m, n, S_ISREG(w.mode) ? share_make_file : share_make_node, &w);
}

int share_op_mkdir(struct share_msg *m, struct share_node *n)
{
    struct share_new w = { .fd = -1 };
    struct fuse_mkdir_in in;
    int r;

    if (!SHARE_ARG(m, &in))
        return -EINVAL;
    r = share_name(m, sizeof(in), &w.name, NULL);
    w.mode = (in.mode & 07777) | S_IFDIR;
    return r < 0 ? r : share_make_and_answer(m, n, share_make_folder, &w);
}

int share_op_symlink(struct share_msg *m, struct share_node *n)
{
    struct share_new w = { .fd = -1, .mode = S_IFLNK | 0777 };
    size_t next;
    int r = share_name(m, 0, &w.name, &next);

    if (r == 0)
        r = share_text(m, next, &w.target, NULL);
    return r < 0 ? r : share_make_and_answer(m, n, share_make_link, &w);
}

/* The name is there already: open what it is. */
static int share_open_old(struct share_msg *m, struct share_node *n, struct share_new *w, struct statx *stx)
{
    int fd = share_child_fd(m->s, n, w->name, stx);

    if (fd < 0)
        return fd;
    w->fd = S_ISDIR(stx->stx_mode) ? -EISDIR : share_reopen(m->s, fd, stx, w->flags);
    close(fd);
    return w->fd < 0 ? w->fd : share_stat(w->fd, stx);
}

struct share_created {
    struct fuse_entry_out e;
    struct fuse_open_out o;
};

/* The file is open in w->fd, which this takes over. */
static int share_created(struct share_msg *m, struct share_node *n, const struct share_new *w, const struct statx *stx)
{
    struct share_created out = { .o = { .fh = 0 } };
    struct share_node *made = NULL;
    int r = share_fill_entry(m->s, n, w->name, stx, &out.e);

    if (r == 0 && !(made = share_node_get(m->s, out.e.nodeid)))
        r = -ESTALE;
    if (r < 0) {
        close(w->fd);
        return r;
    }
    r = share_open_done(m->s, made, w->fd, &out.o);
    share_node_put(m->s, made);
    if (r == 0)
        r = share_answer(m, &out, sizeof(out));
    if (r < 0)
        share_node_forget(m->s, out.e.nodeid, 1);
    return r;
}

int share_op_create(struct share_msg *m, struct share_node *n)
{
    struct share_new w = { .fd = -1 };
    struct fuse_create_in in;
    struct statx stx;
    int r;

    if (!SHARE_ARG(m, &in))
        return -EINVAL;
    r = share_name(m, sizeof(in), &w.name, NULL);
    if (r < 0)
        return r;
    w.mode = (in.mode & 07777) | S_IFREG;
    w.flags = share_open_flags(m->s, in.flags);
    r = share_make(m, n, share_make_file, &w, &stx);
    if (r == -EEXIST && !(in.flags & O_EXCL))
        r = share_open_old(m, n, &w, &stx);
    if (r == 0)
        return share_created(m, n, &w, &stx);
    if (w.fd >= 0)
        close(w.fd);
    return r;
}
