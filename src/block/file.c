/* Image files on the host: opening with a lock, whole transfers, holes.
 * Source: fcntl(2) (open file description locks), fallocate(2), open(2) (O_TMPFILE).
 * Runs on: the thread that builds the machine (open), I/O threads (the rest); no state.
 *
 * QEMU's tools lock single bytes, shared: 100+n says "I need permission n", 200+n "nobody else may have it";
 * whoever opens takes its own, then looks for a foreign one that contradicts. A writer here locks the whole
 * file, so nobody else may even read; a reader takes QEMU's bytes for reading, so that readers of both kinds
 * live together, and writers of neither kind do.
 */
#include "block/file.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/err.h"

#define FILE_ZERO_CHUNK (64UL << 10)

static int block_file_size(int fd, const char *path, uint64_t *size, struct err *err)
{
    struct stat st;

    if (fstat(fd, &st) < 0)
        return err_set(err, errno, "cannot look at image '%s': %s", path, strerror(errno));
    if (S_ISREG(st.st_mode)) {
        *size = (uint64_t)st.st_size;
        return 0;
    }
    if (!S_ISBLK(st.st_mode))
        return err_set(err, EINVAL, "image '%s' is neither a file nor a block device", path);
    if (ioctl(fd, BLKGETSIZE64, size) < 0)
        return err_set(err, errno, "cannot find the size of '%s': %s", path, strerror(errno));
    return 0;
}

/* Permissions as QEMU numbers them (its include/block/block-common.h). */
enum { FILE_PERM_READ = 0, FILE_PERM_WRITE = 1, FILE_PERM_RESIZE = 3, FILE_NEEDS = 100, FILE_REFUSES = 200 };

static int block_file_lock_byte(int fd, off_t byte)
{
    struct flock lock = { .l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1 };

    return fcntl(fd, F_OFD_SETLK, &lock) < 0 ? -errno : 0;
}

/* Has somebody else a lock on the byte? */
static int block_file_byte_taken(int fd, off_t byte)
{
    struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1 };

    if (fcntl(fd, F_OFD_GETLK, &lock) < 0)
        return -errno;
    return lock.l_type == F_UNLCK ? 0 : -EAGAIN;
}

/* What a reader locks. */
static const off_t file_reader_bytes[] = { FILE_NEEDS + FILE_PERM_READ, FILE_REFUSES + FILE_PERM_WRITE,
                                           FILE_REFUSES + FILE_PERM_RESIZE };

static int block_file_lock_shared(int fd)
{
    static const off_t theirs[] = { FILE_REFUSES + FILE_PERM_READ, FILE_NEEDS + FILE_PERM_WRITE,
                                    FILE_NEEDS + FILE_PERM_RESIZE };
    int r = 0;

    for (size_t i = 0; r == 0 && i < ARRAY_LEN(file_reader_bytes); i++)
        r = block_file_lock_byte(fd, file_reader_bytes[i]);
    for (size_t i = 0; r == 0 && i < ARRAY_LEN(theirs); i++)
        r = block_file_byte_taken(fd, theirs[i]);
    return r;
}

int block_file_lock_alone(int fd)
{
    struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

    return fcntl(fd, F_OFD_SETLK, &lock) < 0 ? -errno : 0;
}

/* The bytes that tell what a reader needs and refuses turn from exclusive to shared one by one; only then the rest is let
 * go: until the end nobody else gets a byte that a writer, or another reader, must find free. */
int block_file_lock_share(int fd)
{
    struct flock low = { .l_type = F_UNLCK, .l_whence = SEEK_SET, .l_len = FILE_NEEDS };
    struct flock middle = { .l_type = F_UNLCK, .l_start = FILE_NEEDS + 1, .l_len = FILE_REFUSES - FILE_NEEDS };
    struct flock gap = { .l_type = F_UNLCK, .l_start = FILE_REFUSES + FILE_PERM_WRITE + 1, .l_len = 1 };
    struct flock high = { .l_type = F_UNLCK, .l_start = FILE_REFUSES + FILE_PERM_RESIZE + 1 };
    int r = 0;

    for (size_t i = 0; r == 0 && i < ARRAY_LEN(file_reader_bytes); i++)
        r = block_file_lock_byte(fd, file_reader_bytes[i]);
    if (r == 0 && (fcntl(fd, F_OFD_SETLK, &high) < 0 || fcntl(fd, F_OFD_SETLK, &gap) < 0 ||
                   fcntl(fd, F_OFD_SETLK, &middle) < 0 || fcntl(fd, F_OFD_SETLK, &low) < 0))
        r = -errno;
    if (r < 0)
        block_file_lock_alone(fd);
    return r;
}

static int block_file_lock(int fd, const char *path, bool ro, struct err *err)
{
    int r = ro ? block_file_lock_shared(fd) : block_file_lock_alone(fd);

    if (r == 0)
        return 0;
    if (r == -EAGAIN || r == -EACCES)
        return err_set(err, EBUSY, "image '%s' is in use by another machine or tool: stop that one first%s",
                       path, ro ? "" : ", or let all of them open it read-only with ',ro'");
    /* A file system without locks: better no disk than two writers. */
    return err_set(err, -r, "cannot lock image '%s': %s", path, strerror(-r));
}

int block_file_take(int fd, bool ro)
{
    int r = ro ? block_file_lock_shared(fd) : block_file_lock_alone(fd);

    return r == -EACCES ? -EAGAIN : r;
}

void block_file_give(int fd)
{
    struct flock lock = { .l_type = F_UNLCK, .l_whence = SEEK_SET };

    fcntl(fd, F_OFD_SETLK, &lock);
}

/* Between open() and the lock another file may have taken the name (snap_merge.c): what is written to this one would be lost. */
static int block_file_named(int fd, const char *path, struct err *err)
{
    struct stat own, named;

    if (fstat(fd, &own) == 0 && stat(path, &named) == 0 && own.st_dev == named.st_dev && own.st_ino == named.st_ino)
        return 0;
    return err_set(err, EBUSY, "image '%s' was just replaced by another file: try again", path);
}

int block_file_open(const char *path, bool ro, uint64_t *size, struct err *err)
{
    return block_file_open_how(path, ro, true, size, err);
}

int block_file_open_how(const char *path, bool ro, bool lock, uint64_t *size, struct err *err)
{
    /* O_NONBLOCK: a FIFO must not hang us; it has no effect on files and block devices. */
    int fd = open(path, (ro ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NOCTTY | O_NONBLOCK), r;

    if (fd < 0 && (errno == EACCES || errno == EPERM || errno == EROFS) && !ro)
        return err_set(err, errno, "cannot open image '%s' for writing: %s (',ro' opens it read-only)", path,
                       strerror(errno));
    if (fd < 0)
        return err_set(err, errno, "cannot open image '%s': %s", path, strerror(errno));
    r = block_file_size(fd, path, size, err);
    if (r == 0 && lock)
        r = block_file_lock(fd, path, ro, err);
    if (r == 0 && lock && !ro)
        r = block_file_named(fd, path, err);
    if (r == 0) /* again: it may have grown or shrunk before it was ours */
        r = block_file_size(fd, path, size, err);
    if (r == 0)
        return fd;
    close(fd);
    return r;
}

int block_file_read(int fd, uint64_t off, void *buf, size_t len)
{
    uint8_t *at = buf;

    while (len) {
        ssize_t n = pread(fd, at, len, (off_t)off);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : -EIO;
        at += n;
        off += (uint64_t)n;
        len -= (size_t)n;
    }
    return 0;
}

int block_file_read_now(int fd, uint64_t off, const struct iovec *iov, unsigned n, size_t len)
{
    ssize_t done = preadv2(fd, iov, (int)n, (off_t)off, RWF_NOWAIT);

    if (done >= 0)
        return (size_t)done == len ? 0 : -EAGAIN;
    if (errno == ENOSYS || errno == EINVAL)
        return -EOPNOTSUPP;
    return errno == EINTR ? -EAGAIN : -errno;
}

int block_file_write(int fd, uint64_t off, const void *buf, size_t len)
{
    const uint8_t *at = buf;

    while (len) {
        ssize_t n = pwrite(fd, at, len, (off_t)off);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : -EIO;
        at += n;
        off += (uint64_t)n;
        len -= (size_t)n;
    }
    return 0;
}

int block_file_write_from(int fd, uint64_t off, const struct iovec *iov, unsigned n, size_t len)
{
    ssize_t done = pwritev(fd, iov, (int)n, (off_t)off);

    if (done >= 0)
        return (size_t)done == len ? 0 : -EAGAIN;
    return errno == EINTR || errno == EFAULT ? -EAGAIN : -errno;
}

int block_file_flush(int fd) { return fdatasync(fd) < 0 ? -errno : 0; }

static int block_file_allocate(int fd, int mode, uint64_t off, uint64_t len)
{
    int r;

    do
        r = fallocate(fd, mode | FALLOC_FL_KEEP_SIZE, (off_t)off, (off_t)len);
    while (r < 0 && errno == EINTR);
    return r < 0 ? -errno : 0;
}

static bool block_file_unable(int r)
{
    return r == -EOPNOTSUPP || r == -ENODEV || r == -ENOSYS || r == -EINVAL;
}

int block_file_discard(int fd, uint64_t off, uint64_t len)
{
    int r = block_file_allocate(fd, FALLOC_FL_PUNCH_HOLE, off, len);
    return block_file_unable(r) ? 0 : r;
}

int block_file_zero(int fd, uint64_t off, uint64_t len, bool unmap)
{
    static const uint8_t zeroes[FILE_ZERO_CHUNK];
    int r = block_file_allocate(fd, unmap ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE, off, len);

    if (!block_file_unable(r))
        return r;
    for (r = 0; r == 0 && len;) {
        size_t n = len < sizeof(zeroes) ? (size_t)len : sizeof(zeroes);
        r = block_file_write(fd, off, zeroes, n);
        off += n;
        len -= n;
    }
    return r;
}

int block_file_temp(struct err *err)
{
    const char *dir = getenv("TMPDIR");
    char name[4096];
    int fd;

    if (!dir || !*dir)
        dir = "/var/tmp";
    fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC | O_EXCL, 0600);
    if (fd >= 0)
        return fd;
    if ((size_t)snprintf(name, sizeof(name), "%s/vitro.XXXXXX", dir) < sizeof(name))
        fd = mkostemp(name, O_CLOEXEC);
    if (fd < 0)
        return err_set(err, errno,
                       "cannot make a temporary file in '%s': %s (TMPDIR may name another folder)", dir,
                       strerror(errno));
    unlink(name);
    return fd;
}
