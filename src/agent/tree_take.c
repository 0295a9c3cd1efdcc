/* Making a tree that comes from a hostile peer. See tree.h.
 *
 * A folder that this makes is 0700 until all in it is there; one that is there already keeps its mode. Files and links are made beside
 * their place and renamed onto it, which follows no link and leaves the old one or the new. Other things than files and links are
 * never replaced. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/tree.h"
#include "base/bits.h"
#include "base/err.h"

#define TAKE_MS 1000 /* between two looks at *stop */

/* A folder on the way down, or the file that is being written. */
struct take_open {
    int fd;
    bool made;
    uint32_t mode;
    struct timespec time;
};

struct take {
    struct wire *w;
    struct err *err;
    struct take_open way[TREE_DEPTH + 1], file; /* way[0] is the caller's folder; file.fd -1: none is open */
    unsigned depth;
    const char *entry;
    struct tree_count *count;
    bool done; /* the one entry is there */
    mode_t modes;
    char name[TREE_NAME], part[32];
};

static int take_fail(struct take *t, const char *name, const char *what)
{
    int e = errno;

    return err_set(t->err, e, "'%.200s' cannot be %s: %s", name, what, strerror(e));
}

static int take_here(const struct take *t) { return t->way[t->depth].fd; }

static struct take_open take_of(const struct take *t, const struct tree_entry *e, int fd, bool made)
{
    return (struct take_open){ .fd = fd, .made = made, .mode = e->mode & t->modes & 07777, .time = { (time_t)e->sec, (long)e->nsec } };
}

/* Mode and time, when all that belongs to it is written. */
static int take_seal(struct take *t, struct take_open *o, const char *name)
{
    const struct timespec times[2] = { o->time, o->time };
    int r = 0;

    if (o->made && (fchmod(o->fd, o->mode) < 0 || futimens(o->fd, times) < 0))
        r = take_fail(t, name, "given its mode and time");
    close(o->fd);
    o->fd = -1;
    return r;
}

/* Put the finished part in its place. */
static int take_place(struct take *t, const char *name)
{
    struct stat st;

    if (fstatat(take_here(t), name, &st, AT_SYMLINK_NOFOLLOW) == 0 && !S_ISREG(st.st_mode) && !S_ISLNK(st.st_mode)) {
        errno = S_ISDIR(st.st_mode) ? EISDIR : EEXIST;
        return take_fail(t, name, "replaced");
    }
    return renameat(take_here(t), t->part, take_here(t), name) < 0 ? take_fail(t, name, "made") : 0;
}

static int take_folder(struct take *t, const struct tree_entry *e)
{
    bool made = strcmp(t->name, ".") && mkdirat(take_here(t), t->name, 0700) == 0;
    int fd;

    if (!made && strcmp(t->name, ".") && errno != EEXIST)
        return take_fail(t, t->name, "made");
    if (t->depth == TREE_DEPTH)
        return err_set(t->err, ELOOP, "'%.200s' lies more than %d folders deep", t->name, TREE_DEPTH);
    fd = openat(take_here(t), t->name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return take_fail(t, t->name, "gone into");
    t->way[++t->depth] = take_of(t, e, fd, made);
    return 0;
}

static int take_file(struct take *t, const struct tree_entry *e)
{
    int fd = openat(take_here(t), t->part, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);

    if (fd < 0)
        return take_fail(t, t->name, "made");
    t->file = take_of(t, e, fd, true);
    return 0;
}

static int take_link(struct take *t, const struct tree_entry *e)
{
    const struct timespec times[2] = { { (time_t)e->sec, (long)e->nsec }, { (time_t)e->sec, (long)e->nsec } };
    int r;

    if (symlinkat(e->target, take_here(t), t->part) < 0)
        return take_fail(t, t->name, "made");
    r = utimensat(take_here(t), t->part, times, AT_SYMLINK_NOFOLLOW) < 0 ? take_fail(t, t->name, "given its time") : take_place(t, t->name);
    if (r < 0)
        unlinkat(take_here(t), t->part, 0);
    t->count->links += r == 0;
    t->done |= t->depth == 0;
    return r;
}

static int take_data(struct take *t)
{
    size_t len, done = 0;
    const uint8_t *d = wire_data(t->w, &len);
    int r;

    while (done < len) {
        ssize_t n = write(t->file.fd, d + done, len - done);

        if (n < 0 && errno != EINTR)
            return take_fail(t, t->name, "written");
        done += n > 0 ? (size_t)n : 0;
    }
    t->count->bytes += len;
    if (t->count->tell)
        t->count->tell(t->count);
    if (len)
        return 0;
    r = take_seal(t, &t->file, t->name);
    if (r == 0)
        r = take_place(t, t->name);
    if (r < 0)
        unlinkat(take_here(t), t->part, 0);
    t->count->files += r == 0;
    t->done |= t->depth == 0;
    return r;
}

/* Tell the sender whether we want it: what is in its place is no file or link (which is said later), or older. 1, 0 or an error. */
static int take_answer(struct take *t, const struct tree_entry *e)
{
    struct stat st;
    bool there = fstatat(take_here(t), t->name, &st, AT_SYMLINK_NOFOLLOW) == 0 && (S_ISREG(st.st_mode) || S_ISLNK(st.st_mode));
    uint8_t want = !there || st.st_mtim.tv_sec < e->sec || (st.st_mtim.tv_sec == e->sec && st.st_mtim.tv_nsec < (long)e->nsec);
    int r = wire_put(t->w, WIRE_WANT, &want, 1);

    t->done |= t->depth == 0 && !want;
    t->count->kept += !want;
    return r < 0 ? r : wire_idle(t->w) ? want : -EPROTO; /* who waits for it has room for it */
}

/* A new entry: the first has the name that the caller chose. "." can only be a folder. */
static int take_entry(struct take *t)
{
    struct tree_entry e;
    int r;

    if (t->done || t->file.fd >= 0 || !tree_get_entry(t->w, &e))
        return -EPROTO;
    snprintf(t->name, sizeof(t->name), "%s", t->depth ? e.name : t->entry);
    if (wire_type(t->w) == WIRE_DIR)
        return take_folder(t, &e);
    if (!strcmp(t->name, "."))
        return err_set(t->err, ENOTDIR, "what came is no folder, and has no name");
    if (t->count->newer && (r = take_answer(t, &e)) != 1)
        return r;
    return wire_type(t->w) == WIRE_FILE ? take_file(t, &e) : take_link(t, &e);
}

static int take_up(struct take *t)
{
    if (!t->depth || t->file.fd >= 0)
        return -EPROTO;
    t->done |= t->depth == 1;
    t->count->folders++;
    return take_seal(t, &t->way[t->depth--], "a folder");
}

/* 1: go on; 0: it is all there. */
static int take_frame(struct take *t)
{
    size_t len;
    const uint8_t *d = wire_data(t->w, &len);
    int r;

    switch (wire_type(t->w)) {
    case WIRE_DIR:
    case WIRE_FILE:
    case WIRE_LINK:
        r = take_entry(t);
        break;
    case WIRE_DATA:
        r = t->file.fd >= 0 ? take_data(t) : -EPROTO;
        break;
    case WIRE_UP:
        r = take_up(t);
        break;
    case WIRE_END:
        t->count->skipped = len == 4 ? ld_le32(d) : 0;
        return t->depth || t->file.fd >= 0 || len != 4 ? -EPROTO : 0;
    default:
        return -ECANCELED;
    }
    return r < 0 ? r : 1;
}

static void take_leave(struct take *t)
{
    if (t->file.fd >= 0) {
        close(t->file.fd);
        unlinkat(take_here(t), t->part, 0);
    }
    for (; t->depth; t->depth--)
        close(t->way[t->depth].fd);
}

int tree_take(struct wire *w, int folder, const char *entry, mode_t modes, const volatile sig_atomic_t *stop, struct tree_count *c,
              struct err *err)
{
    struct take t = { .w = w, .err = err, .count = c, .entry = entry, .modes = modes, .file.fd = -1, .way[0].fd = folder };
    int r = 1;

    snprintf(t.part, sizeof(t.part), ".vitro-cp-%d", (int)getpid());
    while (r == 1) {
        r = wire_wait(w, TAKE_MS);
        if (stop && *stop) {
            r = -EINTR;
        } else if (r == -ETIMEDOUT) {
            r = 1;
        } else if (r == 1) {
            r = take_frame(&t);
            if (r != -ECANCELED)
                wire_done(w);
        }
    }
    take_leave(&t);
    return r;
}

/* ---- names ---- */

void tree_base(const char *path, char name[TREE_NAME])
{
    size_t len = strlen(path);
    const char *slash;

    while (len > 1 && path[len - 1] == '/')
        len--;
    slash = memrchr(path, '/', len);
    if (slash) {
        len -= (size_t)(slash + 1 - path);
        path = slash + 1;
    }
    snprintf(name, TREE_NAME, "%.*s", (int)len, path);
    if (!*name || !strcmp(name, ".."))
        strcpy(name, ".");
}

int tree_target(const char *path, const char *name, int *folder, char entry[TREE_NAME], struct err *err)
{
    size_t len = strlen(path);
    char parent[4096];

    *folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (*folder >= 0) {
        snprintf(entry, TREE_NAME, "%s", name);
        return 0;
    }
    if (errno == ENOTDIR)
        errno = ENOENT; /* it is a file */
    if (len && path[len - 1] == '/')
        errno = ENOTDIR;
    tree_base(path, entry);
    if (errno != ENOENT || !strcmp(entry, ".") || len >= sizeof(parent) || strlen(entry) > len)
        return err_set(err, errno, "'%.200s' is no place for it: %s", path, strerror(errno));
    snprintf(parent, sizeof(parent), "%.*s", (int)(len - strlen(entry)), path);
    *folder = open(*parent ? parent : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return *folder < 0 ? err_set(err, errno, "there is no folder for '%.200s': %s", path, strerror(errno)) : 0;
}
