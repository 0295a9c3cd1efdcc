/* An overlay under a running machine: an image that somebody else made and opened is put over the disk that is in use.
 *
 * The order: the new image is looked at and locked while nothing has changed yet; then the base becomes durable and
 * read-only; then nothing can fail any more. What is killed in between leaves the base complete and the overlay empty, and
 * both names read the same. Thread: the machine's, with no request under way; no state.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "block/file.h"
#include "block/image.h"
#include "block/image_file.h"
#include "block/qcow2.h"

/* The size of a disk by its image, whoever has that open: no lock is taken, and nothing but a length is believed. */
static int overlay_base_size(const char *path, enum image_format format, uint64_t *size, struct err *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK), r;
    struct imgfile *f = fd < 0 ? NULL : imgfile_from_fd(fd);
    struct qcow2_info info;
    int64_t bytes;

    if (!f) {
        r = fd < 0 ? -errno : -ENOMEM;
        if (fd >= 0)
            close(fd);
        return err_set(err, -r, "image '%s': cannot be opened: %s", path, strerror(-r));
    }
    if (format == IMAGE_QCOW2) {
        r = qcow2_probe(f, path, &info, err);
        *size = r == 0 ? info.size : 0;
    } else {
        bytes = f->ops->size(f);
        r = bytes < 0 ? err_set(err, (int)-bytes, "image '%s': has no size: %s", path, strerror((int)-bytes)) : 0;
        *size = (uint64_t)bytes;
    }
    imgfile_close(f);
    return r;
}

int image_overlay_make(const char *path, const char *backing, enum image_format format, struct err *err)
{
    struct image_new n = {
        .format = IMAGE_QCOW2, .cluster_bits = QCOW2_CLUSTER_BITS, .backing = backing, .backing_format = format,
    };
    struct image_draft draft;
    int r = overlay_base_size(backing, format, &n.size, err), fd;

    if (r == 0)
        r = image_draft_begin(&draft, path, false, err);
    if (r < 0)
        return r;
    r = image_make(&draft, &n, err);
    if (r < 0) {
        image_draft_abort(&draft);
        return r;
    }
    fd = fcntl(draft.fd, F_DUPFD_CLOEXEC, 3);
    if (fd < 0) {
        r = err_set(err, errno, "overlay '%s': %s", path, strerror(errno));
        image_draft_abort(&draft);
        return r;
    }
    r = image_draft_commit(&draft, err);
    if (r == 0)
        return fd;
    close(fd);
    return r;
}

/* Everything in it must come from its backing file. */
static int overlay_check_empty(struct block *b, const char *path, struct err *err)
{
    enum qcow2_extent kind = QCOW2_FROM_BACKING;
    uint64_t n;
    int r = 0;

    for (uint64_t off = 0; r == 0 && off < b->size; off += n) {
        r = qcow2_map(b, off, b->size - off, &kind, &n);
        if (r == 0 && kind != QCOW2_FROM_BACKING)
            return err_set(err, EEXIST, "overlay '%s': holds data already: it must be a new image", path);
    }
    return r < 0 ? err_set(err, -r, "overlay '%s': cannot be read: %s", path, strerror(-r)) : 0;
}

static int overlay_check(struct block *b, const char *path, const struct block *base, enum image_format format,
                         struct err *err)
{
    const struct qcow2_info *info = qcow2_info_of(b);

    if (!info->has_backing || image_format_named(info->backing_format) != format)
        return err_set(err, EINVAL, "overlay '%s': must have a backing file and say that it is %s", path,
                       image_format_name(format));
    if (b->size != base->size || info->size != base->size)
        return err_set(err, EINVAL, "overlay '%s': has %llu bytes, but the disk under it %llu", path,
                       (unsigned long long)info->size, (unsigned long long)base->size);
    return overlay_check_empty(b, path, err);
}

/* fd is taken over, also on failure. */
static int overlay_open(struct block **out, int fd, const char *path, struct err *err)
{
    struct qcow2_opts o = { .name = path, .no_backing = true };
    struct imgfile *f;
    int r = block_file_lock_alone(fd);

    if (r < 0) {
        close(fd);
        return err_set(err, -r, "overlay '%s': is in use, or cannot be locked: %s", path, strerror(-r));
    }
    f = imgfile_from_fd(fd);
    if (!f) {
        close(fd);
        return err_set(err, ENOMEM, "overlay '%s': out of memory", path);
    }
    return block_qcow2_open(out, f, &o, err);
}

int image_overlay(struct block **out, int fd, const char *path, struct block *base, enum image_format format,
                  struct err *err)
{
    struct block *b;
    int r = overlay_open(&b, fd, path, err);

    *out = NULL;
    if (r < 0)
        return r;
    r = overlay_check(b, path, base, format, err);
    if (r == 0) {
        r = block_freeze(base);
        if (r < 0)
            err_set(err, -r, "the disk under overlay '%s' cannot be made read-only: %s", path, strerror(-r));
    }
    if (r < 0) {
        block_close(b);
        return r;
    }
    qcow2_set_backing(b, base);
    *out = b;
    return 0;
}
