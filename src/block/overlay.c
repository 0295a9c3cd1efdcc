/* Models: a disk over another one that is never written: changed clusters go to a sparse temporary file.
 * The file has no name, so whatever ends the monitor also ends it.
 *
 * Runs on: I/O threads. A reader-writer lock guards the bitmap: whoever adds clusters has it alone, all
 * others share it. Nothing is promised beyond the life of the process, so a flush has nothing to do.
 */
#include "block/block.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/err.h"
#include "block/file.h"

#define OVERLAY_CLUSTER (64UL << 10)
#define OVERLAY_RUN     (1UL << 20)

struct overlay {
    struct block block;
    struct block *base; /* owned */
    pthread_rwlock_t lock;
    int fd;
    uint64_t *map; /* one bit a cluster: it is in the file */
    uint8_t *copy; /* OVERLAY_CLUSTER bytes, used with the lock held alone */
};

static struct overlay *overlay_of(struct block *b) { return container_of(b, struct overlay, block); }

static bool overlay_has(const struct overlay *o, uint64_t cluster)
{
    return o->map[cluster / 64] >> (cluster % 64) & 1;
}

/* Bytes from off up to the end of the run of clusters that are all in the file, or all not; at most len. */
static uint64_t overlay_run(const struct overlay *o, uint64_t off, uint64_t len)
{
    uint64_t c = off / OVERLAY_CLUSTER, end = off + len;
    bool has = overlay_has(o, c);

    do
        c++;
    while (c * OVERLAY_CLUSTER < end && overlay_has(o, c) == has);
    return (c * OVERLAY_CLUSTER < end ? c * OVERLAY_CLUSTER : end) - off;
}

static int overlay_read(struct block *b, uint64_t off, void *buf, size_t len)
{
    struct overlay *o = overlay_of(b);
    uint8_t *at = buf;
    int r = 0;

    pthread_rwlock_rdlock(&o->lock);
    while (r == 0 && len) {
        size_t n = (size_t)overlay_run(o, off, len);
        if (overlay_has(o, off / OVERLAY_CLUSTER))
            r = block_file_read(o->fd, off, at, n);
        else
            r = block_read(o->base, off, at, n);
        at += n;
        off += n;
        len -= n;
    }
    pthread_rwlock_unlock(&o->lock);
    return r;
}

/* Where a range is that lies in one file, unless somebody changes clusters: 0 with *own, or -EAGAIN. What is found stays so: the
 * base is never written, and a cluster of the file stays there. */
static int overlay_find(struct overlay *o, uint64_t off, size_t len, bool *own)
{
    bool whole;

    if (pthread_rwlock_tryrdlock(&o->lock))
        return -EAGAIN;
    *own = overlay_has(o, off / OVERLAY_CLUSTER);
    whole = overlay_run(o, off, len) == len;
    pthread_rwlock_unlock(&o->lock);
    return whole ? 0 : -EAGAIN;
}

static int overlay_read_now(struct block *b, uint64_t off, const struct iovec *iov, unsigned n, size_t len)
{
    struct overlay *o = overlay_of(b);
    bool own;
    int r = overlay_find(o, off, len, &own);

    if (r == 0)
        r = own ? block_file_read_now(o->fd, off, iov, n, len) : block_read_now(o->base, off, iov, n, len);
    return r == -EOPNOTSUPP ? -EAGAIN : r; /* one of both files does not speak for the other */
}

static int overlay_hold(struct block *b, uint64_t off, size_t len, struct block_place *p)
{
    struct overlay *o = overlay_of(b);
    bool own;
    int r = overlay_find(o, off, len, &own);

    if (r < 0 || !own)
        return r < 0 ? r : block_hold(o->base, off, len, p);
    *p = (struct block_place){ .fd = o->fd, .off = off, .holder = b };
    return 0;
}

/* Bring one cluster into the file; keep: with what the base holds. Lock held alone. */
static int overlay_add(struct overlay *o, uint64_t cluster, bool keep)
{
    uint64_t off = cluster * OVERLAY_CLUSTER;
    uint64_t left = o->block.size - off;
    size_t n = left < OVERLAY_CLUSTER ? (size_t)left : OVERLAY_CLUSTER;
    int r = 0;

    if (overlay_has(o, cluster))
        return 0;
    if (keep) {
        r = block_read(o->base, off, o->copy, n);
        if (r == 0)
            r = block_file_write(o->fd, off, o->copy, n);
    }
    if (r == 0)
        o->map[cluster / 64] |= BIT(cluster % 64);
    return r;
}

/* Bring in the clusters of [off, off+len) that it covers in part; the others are about to be changed as a
 * whole. Lock held alone. */
static int overlay_add_edges(struct overlay *o, uint64_t off, uint64_t len)
{
    uint64_t end = off + len;
    int r = 0;

    if (off % OVERLAY_CLUSTER)
        r = overlay_add(o, off / OVERLAY_CLUSTER, true);
    if (r == 0 && end % OVERLAY_CLUSTER && end != o->block.size)
        r = overlay_add(o, end / OVERLAY_CLUSTER, true);
    return r;
}

static void overlay_add_all(struct overlay *o, uint64_t off, uint64_t len)
{
    for (uint64_t c = off / OVERLAY_CLUSTER; c * OVERLAY_CLUSTER < off + len; c++)
        overlay_add(o, c, false);
}

/* Write (buf) or zero (NULL). The clusters that it covers as a whole count only once that has succeeded. */
static int overlay_change(struct overlay *o, uint64_t off, const void *buf, uint64_t len)
{
    int r;

    pthread_rwlock_rdlock(&o->lock);
    if (overlay_has(o, off / OVERLAY_CLUSTER) && overlay_run(o, off, len) == len) {
        r = buf ? block_file_write(o->fd, off, buf, len) : block_file_zero(o->fd, off, len, true);
        pthread_rwlock_unlock(&o->lock);
        return r;
    }
    pthread_rwlock_unlock(&o->lock);
    pthread_rwlock_wrlock(&o->lock);
    r = overlay_add_edges(o, off, len);
    if (r == 0)
        r = buf ? block_file_write(o->fd, off, buf, len) : block_file_zero(o->fd, off, len, true);
    if (r == 0)
        overlay_add_all(o, off, len);
    pthread_rwlock_unlock(&o->lock);
    return r;
}

static int overlay_write(struct block *b, uint64_t off, const void *buf, size_t len)
{
    return overlay_change(overlay_of(b), off, buf, len);
}

static int overlay_write_from(struct block *b, uint64_t off, const struct iovec *iov, unsigned n, size_t len)
{
    struct overlay *o = overlay_of(b);
    bool own;
    int r = overlay_find(o, off, len, &own);

    if (r < 0 || !own)
        return -EAGAIN;
    return block_file_write_from(o->fd, off, iov, n, len);
}

static int overlay_flush(struct block *b)
{
    (void)b;
    return 0;
}

static int overlay_write_zeroes(struct block *b, uint64_t off, uint64_t len, bool unmap)
{
    (void)unmap; /* the file is sparse anyway */
    return overlay_change(overlay_of(b), off, NULL, len);
}

/* As whole clusters, so that a discard costs no copies. */
static int overlay_discard(struct block *b, uint64_t off, uint64_t len)
{
    uint64_t start = ALIGN_UP(off, OVERLAY_CLUSTER), end = off + len;

    if (end != b->size)
        end = ALIGN_DOWN(end, OVERLAY_CLUSTER);
    return start < end ? overlay_change(overlay_of(b), start, NULL, end - start) : 0;
}

static void overlay_close(struct block *b)
{
    struct overlay *o = overlay_of(b);

    block_close(o->base);
    if (o->fd >= 0)
        close(o->fd);
    pthread_rwlock_destroy(&o->lock);
    free(o->map);
    free(o->copy);
    free(o);
}

static const struct block_ops overlay_ops = {
    .format = "overlay",
    .read = overlay_read,
    .read_now = overlay_read_now,
    .write_from = overlay_write_from,
    .hold = overlay_hold,
    .write = overlay_write,
    .flush = overlay_flush,
    .discard = overlay_discard,
    .write_zeroes = overlay_write_zeroes,
    .close = overlay_close,
};

struct block *block_overlay_base(struct block *b) { return b->ops == &overlay_ops ? overlay_of(b)->base : NULL; }

void block_overlay_set_base(struct block *b, struct block *base)
{
    block_close(overlay_of(b)->base);
    overlay_of(b)->base = base;
}

int block_overlay_next(struct block *b, uint64_t *off, uint64_t *len)
{
    struct overlay *o = overlay_of(b);
    bool found = false;
    uint64_t left;

    if (b->ops != &overlay_ops)
        return -EINVAL;
    pthread_rwlock_rdlock(&o->lock);
    for (*len = 0; *off < b->size && !found; *off += found ? 0 : *len) {
        left = b->size - *off;
        *len = overlay_run(o, *off, left < OVERLAY_RUN ? left : OVERLAY_RUN);
        found = overlay_has(o, *off / OVERLAY_CLUSTER);
    }
    pthread_rwlock_unlock(&o->lock);
    *len = found ? *len : 0;
    return 0;
}

int block_overlay_open(struct block **out, struct block *base, struct err *err)
{
    struct overlay *o = calloc(1, sizeof(*o));
    uint64_t clusters = (base->size + OVERLAY_CLUSTER - 1) / OVERLAY_CLUSTER;
    int r = 0;

    *out = NULL;
    if (!o) {
        block_close(base);
        return err_set(err, ENOMEM, "out of memory");
    }
    o->block = (struct block){ .ops = &overlay_ops, .size = base->size };
    o->base = base;
    pthread_rwlock_init(&o->lock, NULL);
    o->map = calloc((clusters + 63) / 64, sizeof(*o->map));
    o->copy = malloc(OVERLAY_CLUSTER);
    o->fd = block_file_temp(err);
    if (o->fd < 0)
        r = o->fd;
    else if (!o->map || !o->copy)
        r = err_set(err, ENOMEM, "out of memory for an overlay of %llu MiB",
                    (unsigned long long)base->size >> 20);
    else if (ftruncate(o->fd, (off_t)base->size) < 0)
        r = err_set(err, errno, "the temporary file cannot have the disk's size of %llu bytes: %s",
                    (unsigned long long)base->size, strerror(errno));
    if (r < 0)
        overlay_close(&o->block);
    else
        *out = &o->block;
    return r;
}
