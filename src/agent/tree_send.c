/* Sending a tree. See tree.h. What changes meanwhile is sent as it is read; what goes away is left out. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/tree.h"
#include "base/bits.h"
#include "base/err.h"

struct send {
    struct wire *w;
    struct err *err;
    struct tree_count *count;
    unsigned depth;
    uint8_t buf[WIRE_MAX];
};

static int send_node(struct send *s, int at, const char *path, const char *name, int follow);

/* The receiver speaks only when it has given up. */
static int send_listen(struct send *s)
{
    int r = wire_read(s->w);

    return r == 1 ? -ECANCELED : r;
}

/* Does the receiver want what was just named? 1, 0 or an error. */
static int send_ask(struct send *s)
{
    const uint8_t *d;
    size_t len;
    int r = wire_wait(s->w, -1);

    if (r < 0)
        return r;
    d = wire_data(s->w, &len);
    if (wire_type(s->w) != WIRE_WANT || len != 1)
        return -ECANCELED;
    r = *d == 1;
    s->count->kept += !r;
    wire_done(s->w);
    return r;
}

/* 1: what belongs to it follows; 0: the receiver does not want it; or an error. */
static int send_head(struct send *s, enum wire_type type, const struct stat *st, const char *name, const char *target)
{
    struct tree_entry e = { .mode = st->st_mode & 07777, .sec = st->st_mtim.tv_sec, .nsec = (uint32_t)st->st_mtim.tv_nsec, .name = name,
                            .target = target };
    int r = tree_put_entry(s->w, type, &e);

    return r < 0 ? r : s->count->newer && type != WIRE_DIR ? send_ask(s) : 1;
}

static int send_data(struct send *s, size_t n)
{
    s->count->bytes += n;
    if (s->count->tell)
        s->count->tell(s->count);
    return wire_send(s->w, WIRE_DATA, s->buf, n, -1);
}

static int send_file(struct send *s, int fd, const struct stat *st, const char *name)
{
    int r = send_head(s, WIRE_FILE, st, name, NULL);
    ssize_t n = 1;

    if (r <= 0)
        return r;
    for (r = 0; r == 0 && n > 0;) {
        n = read(fd, s->buf, sizeof(s->buf));
        if (n < 0 && errno == EINTR)
            n = 1;
        else if (n < 0)
            return err_set(s->err, errno, "'%.200s' cannot be read: %s", name, strerror(errno));
        else
            r = send_data(s, (size_t)n);
        if (r == 0)
            r = send_listen(s);
    }
    s->count->files += r == 0;
    return r;
}

static int send_folder(struct send *s, int fd, const struct stat *st, const char *name)
{
    int copy = dup(fd), r = send_head(s, WIRE_DIR, st, name, NULL);
    DIR *d = copy < 0 ? NULL : fdopendir(copy);

    r = r < 0 ? r : 0;
    if (!d) {
        close(copy);
        return err_set(s->err, EMFILE, "folder '%.200s' cannot be read: %s", name, strerror(errno));
    }
    if (++s->depth > TREE_DEPTH)
        r = err_set(s->err, ELOOP, "'%.200s' lies more than %d folders deep", name, TREE_DEPTH);
    for (struct dirent *e; r == 0 && (e = readdir(d));) {
        if (strcmp(e->d_name, ".") && strcmp(e->d_name, ".."))
            r = send_node(s, fd, e->d_name, e->d_name, O_NOFOLLOW);
    }
    s->depth--;
    s->count->folders += r == 0;
    closedir(d);
    return r == 0 ? wire_send(s->w, WIRE_UP, NULL, 0, -1) : r;
}

static int send_link(struct send *s, int at, const char *path, const struct stat *st, const char *name)
{
    char target[4096];
    ssize_t n = readlinkat(at, path, target, sizeof(target));
    int r;

    if (n <= 0 || n == (ssize_t)sizeof(target)) {
        s->count->skipped++;
        return 0;
    }
    target[n] = '\0';
    r = send_head(s, WIRE_LINK, st, name, target);
    s->count->links += r > 0;
    return r < 0 ? r : 0;
}

/* That is only an error if it was asked for by name. */
static int send_skip(struct send *s, const char *name, int follow)
{
    s->count->skipped++;
    return follow ? 0 : err_set(s->err, EINVAL, "'%.200s' is neither a file nor a folder", name);
}

/* What is neither is not even opened: that could block, or do something. */
static int send_node(struct send *s, int at, const char *path, const char *name, int follow)
{
    struct stat st;
    int fd, r;

    r = fstatat(at, path, &st, follow ? AT_SYMLINK_NOFOLLOW : 0);
    if (r == 0 && S_ISLNK(st.st_mode))
        return send_link(s, at, path, &st, name);
    if (r == 0 && !S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode))
        return send_skip(s, name, follow);
    fd = r == 0 ? openat(at, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY | follow) : -1;
    if (fd < 0 && errno == ENOENT && follow)
        return send_skip(s, name, follow);
    if (fd < 0 || fstat(fd, &st) < 0) {
        r = err_set(s->err, errno, "'%.200s' cannot be opened: %s", path, strerror(errno));
    } else if (S_ISDIR(st.st_mode)) {
        r = send_folder(s, fd, &st, name);
    } else if (S_ISREG(st.st_mode)) {
        r = send_file(s, fd, &st, name);
    } else {
        r = send_skip(s, name, follow);
    }
    if (fd >= 0)
        close(fd);
    return r;
}

int tree_send(struct wire *w, const char *path, struct tree_count *c, struct err *err)
{
    static struct send s; /* too large for a stack */
    char name[TREE_NAME];
    int r;

    s = (struct send){ .w = w, .err = err, .count = c };
    tree_base(path, name);
    if (!strcmp(name, "."))
        strcpy(name, "all"); /* the receiver gives it a name itself */
    r = send_node(&s, AT_FDCWD, path, name, 0);
    if (r == 0) {
        st_le32(s.buf, c->skipped);
        r = wire_send(w, WIRE_END, s.buf, 4, -1);
    }
    return r;
}
