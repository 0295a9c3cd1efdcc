/* New image files (image.h): written without a name where the file system can do that, else under a temporary
 * one in the same folder; then made durable, named, and the folder made durable. Whenever it is killed there
 * is the old file or the whole new one. One thread; no state.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "block/block.h"
#include "block/image.h"
#include "block/image_file.h"
#include "block/qcow2.h"

static char *draft_folder(const char *path)
{
    const char *slash = strrchr(path, '/');

    if (!slash)
        return strdup(".");
    return slash == path ? strdup("/") : strndup(path, (size_t)(slash - path));
}

/* A name beside path that nobody has. */
static char *draft_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    uint64_t random = 0;
    char *out = NULL;

    if (getrandom(&random, sizeof(random), 0) != sizeof(random))
        return NULL;
    if (asprintf(&out, "%.*s.%s.%016llx.tmp", slash ? (int)(slash + 1 - path) : 0, path,
                 slash ? slash + 1 : path, (unsigned long long)random) < 0)
        return NULL;
    return out;
}

static int draft_open(struct image_draft *d)
{
    char *folder = draft_folder(d->path);

    if (!folder)
        return -ENOMEM;
    d->fd = open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0666);
    free(folder);
    if (d->fd >= 0)
        return 0;
    if (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL)
        return -errno;
    d->temp = draft_name(d->path);
    if (!d->temp)
        return -ENOMEM;
    d->fd = open(d->temp, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (d->fd >= 0)
        return 0;
    free(d->temp);
    d->temp = NULL;
    return -errno;
}

int image_draft_begin(struct image_draft *d, const char *path, bool replace, struct err *err)
{
    struct stat st;
    int r;

    *d = (struct image_draft){ .fd = -1, .replace = replace };
    if (lstat(path, &st) == 0 && !replace)
        return err_set(err, EEXIST, "'%s' exists already; --force replaces it", path);
    if (lstat(path, &st) == 0 && !S_ISREG(st.st_mode))
        return err_set(err, EEXIST, "'%s' is not a regular file, so it is not replaced", path);
    d->path = strdup(path);
    r = d->path ? draft_open(d) : -ENOMEM;
    if (r < 0) {
        image_draft_abort(d);
        return err_set(err, -r, "'%s' cannot be made: %s", path, strerror(-r));
    }
    snprintf(d->open, sizeof(d->open), "/proc/self/fd/%d", d->fd);
    return 0;
}

void image_draft_abort(struct image_draft *d)
{
    if (d->fd >= 0)
        close(d->fd);
    if (d->temp)
        unlink(d->temp);
    free(d->temp);
    free(d->path);
    *d = (struct image_draft){ .fd = -1 };
}

/* Give a file without a name one: its own if nothing is to be replaced, else a temporary one. */
static int draft_link(struct image_draft *d)
{
    char *name = d->replace ? draft_name(d->path) : NULL;
    int r;

    if (d->replace && !name)
        return -ENOMEM;
    r = linkat(AT_FDCWD, d->open, AT_FDCWD, name ? name : d->path, AT_SYMLINK_FOLLOW) < 0 ? -errno : 0;
    if (r == 0 && name)
        d->temp = name;
    else
        free(name);
    return r;
}

static int draft_rename(struct image_draft *d)
{
    unsigned flags = d->replace ? 0 : RENAME_NOREPLACE;
    int r;

    if (!d->temp)
        return 0;
    r = renameat2(AT_FDCWD, d->temp, AT_FDCWD, d->path, flags) < 0 ? -errno : 0;
    if (r == -EINVAL && flags) /* a file system without it */
        r = link(d->temp, d->path) < 0 ? -errno : unlink(d->temp) < 0 ? -errno : 0;
    if (r == 0) {
        free(d->temp);
        d->temp = NULL;
    }
    return r;
}

static int draft_sync_folder(const struct image_draft *d)
{
    char *folder = draft_folder(d->path);
    int fd = folder ? open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    int r = !folder ? -ENOMEM : fd < 0 ? -errno : fsync(fd) < 0 ? -errno : 0;

    if (fd >= 0)
        close(fd);
    free(folder);
    return r;
}

int image_draft_commit(struct image_draft *d, struct err *err)
{
    int r = fsync(d->fd) < 0 ? -errno : 0;

    if (r == 0 && !d->temp)
        r = draft_link(d);
    if (r == 0)
        r = draft_rename(d);
    if (r == 0)
        r = draft_sync_folder(d);
    if (r == -EEXIST)
        r = err_set(err, EEXIST, "'%s' exists already; --force replaces it", d->path);
    else if (r < 0)
        r = err_set(err, -r, "'%s' cannot be made: %s", d->path, strerror(-r));
    image_draft_abort(d);
    return r;
}

static int make_qcow2(struct image_draft *d, const struct image_new *n, struct err *err)
{
    struct qcow2_new q = { .size = n->size, .cluster_bits = n->cluster_bits, .backing = n->backing };
    struct imgfile *f;
    int fd = dup(d->fd), r;

    q.backing_format = n->backing ? image_format_name(n->backing_format) : NULL;
    f = fd < 0 ? NULL : imgfile_from_fd(fd);
    if (!f) {
        if (fd >= 0)
            close(fd);
        return err_set(err, ENOMEM, "'%s' cannot be made: out of memory", d->path);
    }
    r = qcow2_create(f, &q, err);
    imgfile_close(f);
    return r;
}

int image_make(struct image_draft *d, const struct image_new *n, struct err *err)
{
    if (n->size > QCOW2_SIZE_MAX || n->size == 0)
        return err_set(err, EINVAL, "'%s' cannot be made: the size must be 1 to 1024T", d->path);
    if (n->format == IMAGE_QCOW2)
        return make_qcow2(d, n, err);
    if (n->backing)
        return err_set(err, EINVAL, "'%s' cannot be made: a raw image has no backing file", d->path);
    if (ftruncate(d->fd, (off_t)n->size) < 0)
        return err_set(err, errno, "'%s' cannot have %llu bytes: %s", d->path, (unsigned long long)n->size,
                       strerror(errno));
    return 0;
}
