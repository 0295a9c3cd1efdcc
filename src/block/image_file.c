/* Files of the host under images: whole reads and writes (image_file.h).
 *
 * Any thread, no state but the descriptor. A read of nothing is the end of the file (zeroes follow, as behind
 * the end of a sparse file); a short write goes on until nothing more can be written.
 */
#include "block/image_file.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/err.h"
#include "block/file.h"

#define FILE_OFFMAX ((uint64_t)INT64_MAX)

struct posix_file {
    struct imgfile base;
    int fd;
};

static int posix_fd(const struct imgfile *f) { return container_of(f, struct posix_file, base)->fd; }

static int posix_own_fd(struct imgfile *f) { return posix_fd(f); }

static ssize_t posix_pread(struct imgfile *f, void *buf, size_t len, uint64_t off)
{
    ssize_t r = pread(posix_fd(f), buf, len, (off_t)off);

    return r < 0 ? -errno : r;
}

static ssize_t posix_pwrite(struct imgfile *f, const void *buf, size_t len, uint64_t off)
{
    ssize_t r = pwrite(posix_fd(f), buf, len, (off_t)off);

    return r < 0 ? -errno : r;
}

static int posix_read_now(struct imgfile *f, uint64_t off, const struct iovec *iov, unsigned n, size_t len)
{
    return block_file_read_now(posix_fd(f), off, iov, n, len);
}

static int posix_write_from(struct imgfile *f, uint64_t off, const struct iovec *iov, unsigned n, size_t len)
{
    return block_file_write_from(posix_fd(f), off, iov, n, len);
}

static int posix_lock(struct imgfile *f, bool ro, bool take)
{
    if (take)
        return block_file_take(posix_fd(f), ro);
    block_file_give(posix_fd(f));
    return 0;
}

static int posix_flush(struct imgfile *f) { return block_file_flush(posix_fd(f)); }

static int posix_share(struct imgfile *f) { return block_file_lock_share(posix_fd(f)); }

static int posix_truncate(struct imgfile *f, uint64_t size)
{
    return ftruncate(posix_fd(f), (off_t)size) < 0 ? -errno : 0;
}

static int posix_punch(struct imgfile *f, uint64_t off, uint64_t len)
{
    return block_file_discard(posix_fd(f), off, len);
}

static int64_t posix_size(struct imgfile *f)
{
    struct stat st;
    uint64_t bytes;

    if (fstat(posix_fd(f), &st) < 0)
        return -errno;
    if (!S_ISBLK(st.st_mode))
        return st.st_size;
    return ioctl(posix_fd(f), BLKGETSIZE64, &bytes) < 0 ? -errno : (int64_t)bytes;
}

static int posix_extent(struct imgfile *f, uint64_t off, uint64_t len, bool *hole, uint64_t *n)
{
    off_t data = lseek(posix_fd(f), (off_t)off, SEEK_DATA), end;

    if (data < 0 && errno != ENXIO)
        return -errno;
    *hole = data < 0 || (uint64_t)data > off;
    *n = len;
    if (*hole) {
        if (data >= 0 && (uint64_t)data - off < len)
            *n = (uint64_t)data - off;
        return 0;
    }
    end = lseek(posix_fd(f), (off_t)off, SEEK_HOLE);
    if (end > (off_t)off && (uint64_t)end - off < len)
        *n = (uint64_t)end - off;
    return 0;
}

static void posix_close(struct imgfile *f)
{
    struct posix_file *p = container_of(f, struct posix_file, base);

    close(p->fd);
    free(p);
}

static const struct imgfile_ops posix_ops = {
    .pread = posix_pread,
    .pwrite = posix_pwrite,
    .read_now = posix_read_now,
    .write_from = posix_write_from,
    .fd = posix_own_fd,
    .flush = posix_flush,
    .share = posix_share,
    .lock = posix_lock,
    .truncate = posix_truncate,
    .punch = posix_punch,
    .size = posix_size,
    .extent = posix_extent,
    .close = posix_close,
};

struct imgfile *imgfile_from_fd(int fd)
{
    struct posix_file *p = calloc(1, sizeof(*p));

    if (!p)
        return NULL;
    p->base.ops = &posix_ops;
    p->fd = fd;
    return &p->base;
}

int imgfile_open(struct imgfile **out, const char *path, bool ro, struct err *err)
{
    return imgfile_open_how(out, path, ro, true, err);
}

int imgfile_open_how(struct imgfile **out, const char *path, bool ro, bool lock, struct err *err)
{
    uint64_t size;
    int fd = block_file_open_how(path, ro, lock, &size, err);

    *out = NULL;
    if (fd < 0)
        return fd;
    *out = imgfile_from_fd(fd);
    if (*out)
        return 0;
    close(fd);
    return err_set(err, ENOMEM, "image '%s': out of memory", path);
}

void imgfile_close(struct imgfile *f)
{
    if (f)
        f->ops->close(f);
}

int imgfile_read(struct imgfile *f, uint64_t off, void *buf, size_t len)
{
    uint8_t *at = buf;

    if (range_outside(off, len, FILE_OFFMAX))
        return -EFBIG;
    while (len > 0) {
        ssize_t n = f->ops->pread(f, at, len, off);

        if (n == -EINTR)
            continue;
        if (n < 0)
            return (int)n;
        if (n == 0) {
            memset(at, 0, len);
            return 0;
        }
        at += n;
        off += (uint64_t)n;
        len -= (size_t)n;
    }
    return 0;
}

int imgfile_write(struct imgfile *f, uint64_t off, const void *buf, size_t len)
{
    const uint8_t *at = buf;

    if (range_outside(off, len, FILE_OFFMAX))
        return -EFBIG;
    while (len > 0) {
        ssize_t n = f->ops->pwrite(f, at, len, off);

        if (n == -EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? (int)n : -EIO;
        at += n;
        off += (uint64_t)n;
        len -= (size_t)n;
    }
    return 0;
}

int imgfile_read_now(struct imgfile *f, uint64_t off, const struct iovec *iov, unsigned n, size_t len)
{
    if (!f->ops->read_now)
        return -EOPNOTSUPP;
    return range_outside(off, len, FILE_OFFMAX) ? -EFBIG : f->ops->read_now(f, off, iov, n, len);
}

int imgfile_write_from(struct imgfile *f, uint64_t off, const struct iovec *iov, unsigned n, size_t len)
{
    if (!f->ops->write_from)
        return -EOPNOTSUPP;
    return range_outside(off, len, FILE_OFFMAX) ? -EFBIG : f->ops->write_from(f, off, iov, n, len);
}
