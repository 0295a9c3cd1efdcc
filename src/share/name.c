/* Operations on names: look up, link, remove, rename. See internal.h; what makes new things is in make.c.
 *
 * A change is made relative to an O_PATH descriptor of the folder, by a single name that has no slash and is not
 * "..", so that it cannot leave the folder. Locks: the tree's for reading; for writing in renames.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <unistd.h>

#include "share/internal.h"

static int share_answer_entry(struct share_msg *m, struct share_node *n, const char *name, int fd,
                              const struct statx *stx)
{
    struct fuse_entry_out e;
    int r = share_fill_entry(m->s, n, name, stx, &e);

    close(fd);
    if (r < 0)
        return r;
    r = share_answer(m, &e, sizeof(e));
    if (r < 0)
        share_node_forget(m->s, e.nodeid, 1);
    return r;
}

/* "There is none" may be remembered, too; the node is 0 then. */
static int share_answer_missing(struct share_msg *m)
{
    struct fuse_entry_out e = { .entry_valid = m->s->valid };

    return m->s->valid ? share_answer(m, &e, sizeof(e)) : -ENOENT;
}

int share_op_lookup(struct share_msg *m, struct share_node *n)
{
    const char *name;
    struct statx stx;
    int r = share_name(m, 0, &name, NULL), fd;

    if (r < 0)
        return r;
    fd = share_child_fd(m->s, n, name, &stx);
    if (fd == -ENOENT)
        return share_answer_missing(m);
    return fd < 0 ? fd : share_answer_entry(m, n, name, fd, &stx);
}

int share_op_link(struct share_msg *m, struct share_node *n)
{
    char source[SHARE_FD_NAME];
    struct fuse_link_in in;
    struct share_node *old;
    struct share_ref ref;
    const char *name;
    struct statx stx;
    int r, dir, fd;

    if (!SHARE_ARG(m, &in))
        return -EINVAL;
    r = share_name(m, sizeof(in), &name, NULL);
    if (r < 0)
        return r;
    dir = share_folder_fd(m->s, n, &stx);
    if (dir < 0)
        return dir;
    old = share_node_get(m->s, in.oldnodeid);
    r = old ? share_ref_get(m->s, old, &ref) : -ESTALE;
    if (r == 0) {
        /* Through /proc, for linkat() of a descriptor itself is for root. */
        r = linkat(m->s->proc_fd, share_fd_name(ref.fd, source), dir, name, AT_SYMLINK_FOLLOW) < 0 ? -errno : 0;
        share_ref_put(m->s, &ref);
    }
    if (old)
        share_node_put(m->s, old);
    close(dir);
    if (r < 0)
        return r;
    fd = share_child_fd(m->s, n, name, &stx);
    return fd < 0 ? fd : share_answer_entry(m, n, name, fd, &stx);
}

/* What a name in a folder is now, without following it. */
static int share_stat_at(int dir, const char *name, struct statx *stx)
{
    int r = statx(dir, name, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, STATX_BASIC_STATS | STATX_BTIME, stx);
    return r < 0 ? -errno : 0;
}

static int share_remove(struct share_msg *m, struct share_node *n, int flags)
{
    const char *name;
    struct share_id id;
    struct statx stx;
    int r = share_name(m, 0, &name, NULL), dir;

    if (r < 0)
        return r;
    dir = share_folder_fd(m->s, n, &stx);
    if (dir < 0)
        return dir;
    r = share_stat_at(dir, name, &stx);
    if (r == 0 && unlinkat(dir, name, flags) < 0)
        r = -errno;
    close(dir);
    if (r < 0)
        return r;
    share_id_of(&id, &stx);
    share_node_removed(m->s, n, name, &id, flags || stx.stx_nlink == 1);
    return 0;
}

int share_op_unlink(struct share_msg *m, struct share_node *n) { return share_remove(m, n, 0); }
int share_op_rmdir(struct share_msg *m, struct share_node *n) { return share_remove(m, n, AT_REMOVEDIR); }

struct share_rename {
    struct share_node *from, *to;
    const char *name, *new_name;
    int from_fd, to_fd;
    unsigned flags;
};

/* The names have changed on the host: so they do in the tree. */
static void share_renamed(struct share *s, const struct share_rename *r, const struct statx *moved,
                          const struct statx *target)
{
    struct share_id id, other;

    share_id_of(&id, moved);
    if (target) {
        share_id_of(&other, target);
        if (id.ino == other.ino && id.dev == other.dev)
            return; /* two names of one file: nothing happened */
        if (r->flags & RENAME_EXCHANGE)
            share_node_moved(s, r->to, r->new_name, &other, r->from, r->name);
        else
            share_node_removed(s, r->to, r->new_name, &other, S_ISDIR(target->stx_mode) || target->stx_nlink == 1);
    }
    share_node_moved(s, r->from, r->name, &id, r->to, r->new_name);
}

static int share_do_rename(struct share *s, const struct share_rename *r)
{
    struct statx moved, target;
    bool there;
    int e = share_stat_at(r->from_fd, r->name, &moved);

    if (e < 0)
        return e;
    there = share_stat_at(r->to_fd, r->new_name, &target) == 0;
    if (renameat2(r->from_fd, r->name, r->to_fd, r->new_name, r->flags) < 0)
        return -errno;
    share_renamed(s, r, &moved, there ? &target : NULL);
    return 0;
}

static int share_rename_in(struct share *s, struct share_rename *r)
{
    struct statx stx;
    int e;

    r->from_fd = share_folder_fd(s, r->from, &stx);
    if (r->from_fd < 0)
        return r->from_fd;
    r->to_fd = share_folder_fd(s, r->to, &stx);
    e = r->to_fd < 0 ? r->to_fd : share_do_rename(s, r);
    if (r->to_fd >= 0)
        close(r->to_fd);
    close(r->from_fd);
    return e;
}

static int share_rename(struct share_msg *m, struct share_node *n, uint64_t newdir, unsigned flags, size_t off)
{
    struct share_rename r = { .from = n, .flags = flags };
    size_t next;
    int e = share_name(m, off, &r.name, &next);

    if (e == 0)
        e = share_name(m, next, &r.new_name, NULL);
    if (e < 0)
        return e;
    if (flags & ~(unsigned)(RENAME_NOREPLACE | RENAME_EXCHANGE))
        return -EINVAL;
    r.to = share_node_get(m->s, newdir);
    if (!r.to)
        return -ESTALE;
    pthread_rwlock_wrlock(&m->s->tree);
    e = share_rename_in(m->s, &r);
    pthread_rwlock_unlock(&m->s->tree);
    share_node_put(m->s, r.to);
    return e;
}

int share_op_rename(struct share_msg *m, struct share_node *n)
{
    struct fuse_rename_in in;
    return SHARE_ARG(m, &in) ? share_rename(m, n, in.newdir, 0, sizeof(in)) : -EINVAL;
}

int share_op_rename2(struct share_msg *m, struct share_node *n)
{
    struct fuse_rename2_in in;
    return SHARE_ARG(m, &in) ? share_rename(m, n, in.newdir, in.flags, sizeof(in)) : -EINVAL;
}
