/* Reads, writes, zeroes and discards of a qcow2 disk.
 *
 * I/O threads, several at a time. What needs no change of metadata in memory runs with the lock shared: reads
 * of mapped clusters and writes in place. The rest takes it alone, for one L2 table's stretch at a time.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "block/qcow2_int.h"

#define DROP_MANY 4096 /* this many ranges wait for a commit at most before it is done */

static int io_read_backing(struct qcow2 *q, uint64_t off, uint8_t *buf, uint64_t len)
{
    uint64_t there = q->backing && off < q->backing->size ? q->backing->size - off : 0;
    uint64_t n = there < len ? there : len;
    uint8_t sector[BLOCK_SECTOR];
    uint64_t odd = (off | n) % BLOCK_SECTOR;
    int r = 0;

    memset(buf + n, 0, len - n);
    if (odd == 0)
        return n ? block_read(q->backing, off, buf, n) : 0;
    while (r == 0 && n > 0) { /* not reached by devices: the last sector of a disk with an odd size */
        uint64_t in = off % BLOCK_SECTOR, here = BLOCK_SECTOR - in < n ? BLOCK_SECTOR - in : n;

        r = block_read(q->backing, off - in, sector, BLOCK_SECTOR);
        memcpy(buf, sector + in, here);
        buf += here;
        off += here;
        n -= here;
    }
    return r;
}

/* One extent; compressed ones need the lock alone. */
static int io_read_extent(struct qcow2 *q, const struct qextent *e, uint64_t off, uint8_t *buf)
{
    int r = 0;

    switch (e->kind) {
    case QK_DATA:
        return imgfile_read(q->f, e->host, buf, e->len);
    case QK_UNALLOC:
        return io_read_backing(q, off, buf, e->len);
    case QK_ZERO:
        memset(buf, 0, e->len);
        return 0;
    case QK_COMPRESSED:
        r = qcow2_decompress(q, e->host);
        if (r == 0)
            memcpy(buf, q->comp_data + (off & (q->csize - 1)), e->len);
        return r;
    }
    return -EIO;
}

/* With the lock held alone. */
static int io_read_alone(struct qcow2 *q, uint64_t off, uint8_t *buf, uint64_t len)
{
    struct qextent e;
    int r = 0;

    for (; r == 0 && len > 0; off += e.len, buf += e.len, len -= e.len) {
        r = qcow2_lookup(q, off, len, &e);
        if (r == 0)
            r = io_read_extent(q, &e, off, buf);
        if (r < 0)
            break;
    }
    return r;
}

int qcow2_read(struct block *b, uint64_t off, void *buf, size_t len)
{
    struct qcow2 *q = qcow2_of(b);
    uint8_t *at = buf;
    struct qextent e;
    int r = 0;

    while (r == 0 && len > 0) {
        pthread_rwlock_rdlock(&q->lock);
        r = qcow2_lookup_cached(q, off, len, &e);
        if (r == 0 && e.kind != QK_COMPRESSED)
            r = io_read_extent(q, &e, off, at);
        pthread_rwlock_unlock(&q->lock);
        if (r == -EAGAIN || (r == 0 && e.kind == QK_COMPRESSED)) {
            pthread_rwlock_wrlock(&q->lock);
            r = qcow2_lookup(q, off, len, &e);
            if (r == 0)
                r = io_read_extent(q, &e, off, at);
            pthread_rwlock_unlock(&q->lock);
        }
        if (r == 0) {
            at += e.len;
            off += e.len;
            len -= e.len;
        }
    }
    return r;
}

/* Write into clusters that are the image's own. -EAGAIN: a count must be read first (only with peek). */
static int io_write_own(struct qcow2 *q, const struct qextent *e, const uint8_t *buf, bool peek)
{
    uint64_t count;
    int r;

    if (!qcow2_data_ok(q, e->host, e->len))
        return qcow2_corrupt(q, "data would be written over metadata", e->host);
    for (uint64_t c = e->host >> q->cbits; c <= (e->host + e->len - 1) >> q->cbits; c++) {
        r = peek ? qcow2_rc_peek(q, c, &count) : qcow2_rc_get(q, c, &count);
        if (r < 0)
            return r;
        if (count != 1)
            return qcow2_corrupt(q, "a cluster of its own has a wrong reference count", c << q->cbits);
    }
    return imgfile_write(q->f, e->host, buf, e->len);
}

/* Fill the part of new clusters that the request leaves out: bytes [from, to) of the disk, which go to host.
 * skip: the file reads as zeroes there already. */
static int io_fill(struct qcow2 *q, uint64_t from, uint64_t to, uint64_t host, bool skip)
{
    struct qextent e;
    uint8_t *buf;
    int r;

    if (from == to)
        return 0;
    r = qcow2_lookup(q, from, to - from, &e);
    if (r < 0)
        return r;
    if (skip && (e.kind == QK_ZERO || (e.kind == QK_UNALLOC && (!q->backing || from >= q->backing->size))))
        return 0;
    buf = malloc(to - from);
    if (!buf)
        return -ENOMEM;
    r = io_read_alone(q, from, buf, to - from);
    /* What lies behind the disk's end must not come from the backing file: it would show when the disk grows.
     */
    if (r == 0 && to > q->block.size)
        memset(buf + (from > q->block.size ? 0 : q->block.size - from), 0,
               to - (from > q->block.size ? from : q->block.size));
    if (r == 0)
        r = imgfile_write(q->f, host, buf, to - from);
    free(buf);
    return r;
}

/* New clusters for [off, off+*len), which lies in one L2 table: *len gets shorter where they are not in a
 * row. */
static int io_write_new(struct qcow2 *q, uint64_t off, const uint8_t *buf, uint64_t *len)
{
    uint64_t start = ALIGN_DOWN(off, q->csize), want = (ALIGN_UP(off + *len, q->csize) - start) >> q->cbits;
    uint64_t fresh = q->fresh, first, n, end, host;
    struct qtable *t;
    int r = qcow2_l2_own(q, off, &t);

    if (r == 0)
        r = qcow2_drop_reserve(q, (unsigned)want);
    if (r == 0)
        r = qcow2_alloc(q, 1, want, &first, &n);
    if (r < 0)
        return r;
    end = start + (n << q->cbits);
    host = first << q->cbits;
    *len = off + *len < end ? *len : end - off;
    r = io_fill(q, start, off, host, host >= fresh);
    if (r == 0)
        r = io_fill(q, off + *len, end, host + (off + *len - start), host >= fresh);
    if (r == 0)
        r = imgfile_write(q->f, host + (off - start), buf, *len);
    for (uint64_t i = 0; r == 0 && i < n; i++)
        r = qcow2_l2_set(q, t, start + (i << q->cbits), (host + (i << q->cbits)) | QCOW2_COPIED);
    if (r < 0 && !atomic_load(&q->block.failed))
        qcow2_unalloc(q, first, n);
    return r;
}

/* How much of [off, off+len) needs new clusters, starting with the first. */
static int io_span_new(struct qcow2 *q, uint64_t off, uint64_t len, uint64_t *span)
{
    uint64_t table = q->csize << q->l2_bits, stop = ALIGN_DOWN(off, table) + table, at = off;
    struct qextent e;
    int r = 0;

    stop = off + len < stop ? off + len : stop;
    while (at < stop) {
        r = qcow2_lookup(q, at, stop - at, &e);
        if (r < 0 || (e.kind == QK_DATA && e.own))
            break;
        at += e.len;
    }
    *span = at - off;
    return at > off ? 0 : r;
}

/* The first piece of a write, with the lock held alone. */
static int io_write_alone(struct qcow2 *q, uint64_t off, const uint8_t *buf, uint64_t len, uint64_t *done)
{
    struct qextent e;
    int r = 0;

    if (atomic_load(&q->block.failed))
        return -EIO;
    if (q->drop_n > DROP_MANY)
        r = qcow2_commit(q);
    if (r == 0)
        r = qcow2_lookup(q, off, len, &e);
    if (r < 0)
        return r;
    if (e.kind == QK_DATA && e.own) {
        *done = e.len;
        return io_write_own(q, &e, buf, false);
    }
    r = io_span_new(q, off, len, done);
    return r == 0 ? io_write_new(q, off, buf, done) : r;
}

/* The first piece of a write in place, with the lock shared; -EAGAIN when that does not go. */
static int io_write_shared(struct qcow2 *q, uint64_t off, const uint8_t *buf, uint64_t len, uint64_t *done)
{
    struct qextent e;
    int r = qcow2_lookup_cached(q, off, len, &e);

    if (r < 0 || e.kind != QK_DATA || !e.own)
        return r < 0 ? r : -EAGAIN;
    *done = e.len;
    return io_write_own(q, &e, buf, true);
}

int qcow2_write(struct block *b, uint64_t off, const void *buf, size_t len)
{
    struct qcow2 *q = qcow2_of(b);
    const uint8_t *at = buf;
    uint64_t done = 0;
    int r = 0;

    for (; r == 0 && len > 0; at += done, off += done, len -= done) {
        pthread_rwlock_rdlock(&q->lock);
        r = io_write_shared(q, off, at, len, &done);
        pthread_rwlock_unlock(&q->lock);
        if (r == -EAGAIN) {
            pthread_rwlock_wrlock(&q->lock);
            r = io_write_alone(q, off, at, len, &done);
            pthread_rwlock_unlock(&q->lock);
        }
        if (r < 0)
            break;
    }
    return r;
}

/* Part of one cluster becomes zero by writing, unless it is already. */
static int io_zero_part(struct qcow2 *q, uint64_t off, uint64_t len)
{
    struct qextent e;
    uint8_t *zeroes;
    uint64_t done;
    int r = qcow2_lookup(q, off, len, &e);

    if (r < 0 || e.kind == QK_ZERO || (e.kind == QK_UNALLOC && !q->backing))
        return r;
    zeroes = calloc(1, len);
    if (!zeroes)
        return -ENOMEM;
    r = io_write_alone(q, off, zeroes, len, &done);
    free(zeroes);
    return r;
}

/* Whole clusters within one L2 table become zero. */
static int io_zero_clusters(struct qcow2 *q, uint64_t off, uint64_t n)
{
    struct qtable *t;
    int r = q->drop_n > DROP_MANY ? qcow2_commit(q) : 0;

    if (r == 0)
        r = qcow2_l2_load(q, off, &t);
    if (r < 0 || (!t && !q->backing))
        return r;
    r = qcow2_l2_own(q, off, &t);
    if (r == 0)
        r = qcow2_drop_reserve(q, (unsigned)n);
    for (uint64_t i = 0; r == 0 && i < n; i++) {
        uint64_t at = off + (i << q->cbits),
                 old = ld_be64(t->data + (at >> q->cbits & (BIT(q->l2_bits) - 1)) * 8);

        if (old != (q->backing ? QCOW2_ZERO : 0))
            r = qcow2_l2_set(q, t, at, q->backing ? QCOW2_ZERO : 0);
    }
    return r;
}

int qcow2_zero_locked(struct qcow2 *q, uint64_t off, uint64_t len, bool edges)
{
    uint64_t end = off + len, table = q->csize << q->l2_bits, n;
    int r = atomic_load(&q->block.failed) ? -EIO : 0;

    for (; r == 0 && off < end; off += n) {
        uint64_t in = off & (q->csize - 1), left = end - off;

        n = q->csize - in < left ? q->csize - in : left;
        if (n < q->csize && (in || end != q->block.size)) {
            r = edges ? io_zero_part(q, off, n) : 0;
            continue;
        }
        n = table - (off & (table - 1)) < left ? table - (off & (table - 1)) : left;
        if (end != q->block.size || n != left)
            n = ALIGN_DOWN(n, q->csize);
        r = io_zero_clusters(q, off, ALIGN_UP(n, q->csize) >> q->cbits);
    }
    return r;
}

static int io_zero(struct qcow2 *q, uint64_t off, uint64_t len, bool edges)
{
    int r;

    pthread_rwlock_wrlock(&q->lock);
    r = qcow2_zero_locked(q, off, len, edges);
    pthread_rwlock_unlock(&q->lock);
    return r;
}

int qcow2_discard(struct block *b, uint64_t off, uint64_t len)
{
    return io_zero(qcow2_of(b), off, len, false);
}

/* Without unmap the space is given back too: a write that finds none then fails as in any sparse image. */
int qcow2_write_zeroes(struct block *b, uint64_t off, uint64_t len, bool unmap)
{
    return io_zero(qcow2_of(b), off, len, true);
}
