/* Models: a disk whose bytes are those of a file or block device.
 * Runs on: I/O threads; no lock of its own, the host's kernel orders what overlaps.
 */
#include "block/block.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/err.h"
#include "block/file.h"

struct raw {
    struct block block;
    int fd;
};

static int raw_fd(struct block *b) { return container_of(b, struct raw, block)->fd; }

static int raw_read(struct block *b, uint64_t off, void *buf, size_t len)
{
    return block_file_read(raw_fd(b), off, buf, len);
}

static int raw_read_now(struct block *b, uint64_t off, const struct iovec *iov, unsigned n, size_t len)
{
    return block_file_read_now(raw_fd(b), off, iov, n, len);
}

static int raw_hold(struct block *b, uint64_t off, size_t len, struct block_place *p)
{
    *p = (struct block_place){ .fd = raw_fd(b), .off = off, .holder = b };
    return 0;
}

static int raw_write(struct block *b, uint64_t off, const void *buf, size_t len)
{
    return block_file_write(raw_fd(b), off, buf, len);
}

static int raw_write_from(struct block *b, uint64_t off, const struct iovec *iov, unsigned n, size_t len)
{
    return block_file_write_from(raw_fd(b), off, iov, n, len);
}

static int raw_flush(struct block *b) { return block_file_flush(raw_fd(b)); }

static int raw_discard(struct block *b, uint64_t off, uint64_t len)
{
    return block_file_discard(raw_fd(b), off, len);
}

static int raw_write_zeroes(struct block *b, uint64_t off, uint64_t len, bool unmap)
{
    return block_file_zero(raw_fd(b), off, len, unmap);
}

static int raw_freeze(struct block *b) { return block_file_lock_share(raw_fd(b)); }

static int raw_lock(struct block *b, bool take)
{
    if (take)
        return block_file_take(raw_fd(b), b->ro);
    block_file_give(raw_fd(b));
    return 0;
}

static void raw_close(struct block *b)
{
    struct raw *r = container_of(b, struct raw, block);

    close(r->fd);
    free(r);
}

static const struct block_ops raw_ops = {
    .format = "raw",
    .read = raw_read,
    .read_now = raw_read_now,
    .hold = raw_hold,
    .write = raw_write,
    .write_from = raw_write_from,
    .flush = raw_flush,
    .discard = raw_discard,
    .write_zeroes = raw_write_zeroes,
    .freeze = raw_freeze,
    .lock = raw_lock,
    .close = raw_close,
};

int block_raw_open(struct block **out, const char *path, bool ro, struct err *err)
{
    return block_raw_open_how(out, path, ro, true, err);
}

int block_raw_open_how(struct block **out, const char *path, bool ro, bool lock, struct err *err)
{
    uint64_t size = 0;
    int fd = block_file_open_how(path, ro, lock, &size, err);

    *out = NULL;
    return fd < 0 ? fd : block_raw_adopt(out, fd, size, path, ro, err);
}

int block_raw_adopt(struct block **out, int fd, uint64_t size, const char *path, bool ro, struct err *err)
{
    struct raw *r;

    *out = NULL;
    if (!size || size % BLOCK_SECTOR) {
        close(fd);
        return err_set(err, EINVAL, "raw image '%s' has %llu bytes: a disk has a multiple of %u, and not 0",
                       path, (unsigned long long)size, BLOCK_SECTOR);
    }
    r = calloc(1, sizeof(*r));
    if (!r) {
        close(fd);
        return err_set(err, ENOMEM, "out of memory");
    }
    r->block = (struct block){ .ops = &raw_ops, .size = size, .ro = ro };
    r->fd = fd;
    *out = &r->block;
    return 0;
}
