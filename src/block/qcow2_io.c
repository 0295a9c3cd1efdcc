/* Reads, writes, zeroes and discards of a qcow2 disk.
 *
 * I/O threads, several at a time. Tables are looked up and changed under the locks, data moves outside of
 * them: reads and writes in place hold `io`, so that the clusters stay theirs; a write that needs new
 * clusters takes them first, fills them as a span that nobody else may map, and only then enters them into
 * the tables.
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

/* Look up, loading the table if need be. No lock held. */
static int io_look(struct qcow2 *q, uint64_t off, uint64_t len, struct qextent *e)
{
    int r;

    pthread_rwlock_rdlock(&q->lock);
    r = qcow2_lookup_cached(q, off, len, e);
    pthread_rwlock_unlock(&q->lock);
    if (r != -EAGAIN)
        return r;
    pthread_rwlock_wrlock(&q->lock);
    r = qcow2_lookup(q, off, len, e);
    pthread_rwlock_unlock(&q->lock);
    return r;
}

static int io_read_extent(struct qcow2 *q, const struct qextent *e, uint64_t off, uint8_t *buf)
{
    switch (e->kind) {
    case QK_DATA:
        return imgfile_read(q->f, e->host, buf, e->len);
    case QK_UNALLOC:
        return io_read_backing(q, off, buf, e->len);
    case QK_ZERO:
        memset(buf, 0, e->len);
        return 0;
    case QK_COMPRESSED:
        return qcow2_decompress(q, e->host, off & (q->csize - 1), buf, e->len);
    }
    return -EIO;
}

int qcow2_read(struct block *b, uint64_t off, void *buf, size_t len)
{
    struct qcow2 *q = qcow2_of(b);
    uint8_t *at = buf;
    struct qextent e;
    int r = 0;

    while (r == 0 && len > 0) {
        pthread_rwlock_rdlock(&q->io);
        r = io_look(q, off, len, &e);
        if (r == 0)
            r = io_read_extent(q, &e, off, at);
        pthread_rwlock_unlock(&q->io);
        if (r == 0) {
            at += e.len;
            off += e.len;
            len -= e.len;
        }
    }
    return r;
}

/* ---- writes in place ---- */

/* May data be written into these clusters, which are the image's own according to its tables? -EAGAIN: a
 * count must be read first (only with peek, for which `lock` shared is enough). */
static int io_check_own(struct qcow2 *q, const struct qextent *e, bool peek)
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
    return 0;
}

/* Where the first piece of a write goes in place; -EAGAIN when it does not, or not without loading tables. io held shared. */
static int io_find_own(struct qcow2 *q, uint64_t off, uint64_t len, struct qextent *e)
{
    int r;

    pthread_rwlock_rdlock(&q->lock);
    r = qcow2_lookup_cached(q, off, len, e);
    if (r == 0)
        r = e->kind == QK_DATA && e->own ? io_check_own(q, e, true) : -EAGAIN;
    pthread_rwlock_unlock(&q->lock);
    return r;
}

/* The first piece of a write, if io_find_own() has a place for it. */
static int io_write_own(struct qcow2 *q, uint64_t off, const uint8_t *buf, uint64_t len, uint64_t *done)
{
    struct qextent e;
    int r;

    pthread_rwlock_rdlock(&q->io);
    r = io_find_own(q, off, len, &e);
    if (r == 0)
        r = imgfile_write(q->f, e.host, buf, e.len);
    pthread_rwlock_unlock(&q->io);
    *done = e.len;
    return r;
}

int qcow2_write_from(struct block *b, uint64_t off, const struct iovec *iov, unsigned n, size_t len)
{
    struct qcow2 *q = qcow2_of(b);
    struct qextent e;
    int r;

    pthread_rwlock_rdlock(&q->io);
    r = io_find_own(q, off, len, &e);
    if (r == 0)
        r = e.len == len ? imgfile_write_from(q->f, e.host, iov, n, len) : -EAGAIN;
    pthread_rwlock_unlock(&q->io);
    return r;
}

/* ---- writes into new clusters ---- */

/* Is [*first, *last] free of other spans, at least in the beginning? *last comes down to where it is. */
static bool io_span_clear(struct qcow2 *q, uint64_t first, uint64_t *last)
{
    for (const struct qspan *s = q->spans; s; s = s->next) {
        if (s->first <= first && first <= s->last)
            return false;
        if (s->first > first && s->first <= *last)
            *last = s->first - 1;
    }
    return true;
}

/* Wait until the cluster is in no span. No lock held. */
static void io_span_wait(struct qcow2 *q, uint64_t first)
{
    uint64_t last = first;

    pthread_mutex_lock(&q->span_lock);
    while (!io_span_clear(q, first, &last))
        pthread_cond_wait(&q->span_end, &q->span_lock);
    pthread_mutex_unlock(&q->span_lock);
}

/* Claim s, or the first part of it: -EBUSY when another span has the first cluster. */
static int io_span_begin(struct qcow2 *q, struct qspan *s)
{
    int r = 0;

    pthread_mutex_lock(&q->span_lock);
    if (io_span_clear(q, s->first, &s->last)) {
        s->next = q->spans;
        q->spans = s;
    } else {
        r = -EBUSY;
    }
    pthread_mutex_unlock(&q->span_lock);
    return r;
}

static void io_span_end(struct qcow2 *q, struct qspan *s)
{
    struct qspan **at = &q->spans;

    pthread_mutex_lock(&q->span_lock);
    while (*at != s)
        at = &(*at)->next;
    *at = s->next;
    pthread_cond_broadcast(&q->span_end);
    pthread_mutex_unlock(&q->span_lock);
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
    r = io_look(q, from, to - from, &e);
    if (r < 0)
        return r;
    if (skip && (e.kind == QK_ZERO || (e.kind == QK_UNALLOC && (!q->backing || from >= q->backing->size))))
        return 0;
    buf = malloc(to - from);
    if (!buf)
        return -ENOMEM;
    r = qcow2_read(&q->block, from, buf, to - from);
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

/* What a write into new clusters has: made by io_new_begin(). */
struct io_new {
    struct qspan span;
    uint64_t host, n; /* where, and how many clusters */
    uint64_t len;     /* bytes of the request that they take */
    bool zero;        /* the file reads as zeroes there */
};

/* How many bytes of [off, off+len) need new clusters, starting with the first. */
static int io_new_span(struct qcow2 *q, uint64_t off, uint64_t len, uint64_t *span)
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

/* Clusters for [off, off+len), as far as they are in a row. */
static int io_new_alloc(struct qcow2 *q, struct io_new *w, uint64_t off, uint64_t len)
{
    uint64_t fresh = q->fresh, first;
    int r;

    w->span = (struct qspan){ .first = off >> q->cbits, .last = (off + len - 1) >> q->cbits };
    r = io_span_begin(q, &w->span);
    if (r < 0)
        return r;
    r = qcow2_alloc(q, 1, w->span.last - w->span.first + 1, &first, &w->n);
    if (r < 0) {
        io_span_end(q, &w->span);
        return r;
    }
    w->host = first << q->cbits;
    w->zero = w->host >= fresh;
    w->len = ((w->span.first + w->n) << q->cbits) - off;
    w->len = w->len < len ? w->len : len;
    return 0;
}

/* Take clusters for the first piece of a write. -EAGAIN: it goes in place now; -EBUSY: somebody else is about
 * to map the cluster. */
static int io_new_begin(struct qcow2 *q, struct io_new *w, uint64_t off, uint64_t len)
{
    struct qextent e;
    uint64_t span;
    int r = atomic_load(&q->block.failed) ? -EIO : 0;

    if (r == 0 && q->drop_n > DROP_MANY)
        r = qcow2_commit(q);
    if (r == 0)
        r = qcow2_lookup(q, off, len, &e);
    if (r < 0)
        return r;
    if (e.kind == QK_DATA && e.own) {
        r = io_check_own(q, &e, false);
        return r < 0 ? r : -EAGAIN;
    }
    r = io_new_span(q, off, len, &span);
    return r < 0 ? r : io_new_alloc(q, w, off, span);
}

static int io_new_fill(struct qcow2 *q, const struct io_new *w, uint64_t off, const uint8_t *buf)
{
    uint64_t start = ALIGN_DOWN(off, q->csize), end = start + (w->n << q->cbits), stop = off + w->len;
    int r = io_fill(q, start, off, w->host, w->zero);

    if (r == 0)
        r = io_fill(q, stop, end, w->host + (stop - start), w->zero);
    return r < 0 ? r : imgfile_write(q->f, w->host + (off - start), buf, w->len);
}

/* Enter what was filled into the tables, unless that failed (r). */
static int io_new_end(struct qcow2 *q, struct io_new *w, uint64_t off, int r)
{
    uint64_t start = ALIGN_DOWN(off, q->csize);
    struct qtable *t;

    qcow2_change_begin(q);
    if (r == 0 && atomic_load(&q->block.failed))
        r = -EIO;
    if (r == 0)
        r = qcow2_l2_own(q, off, &t);
    if (r == 0)
        r = qcow2_drop_reserve(q, (unsigned)w->n);
    for (uint64_t i = 0; r == 0 && i < w->n; i++)
        r = qcow2_l2_set(q, t, start + (i << q->cbits), (w->host + (i << q->cbits)) | QCOW2_COPIED);
    if (r < 0 && !atomic_load(&q->block.failed))
        qcow2_unalloc(q, w->host >> q->cbits, w->n);
    qcow2_change_end(q);
    io_span_end(q, &w->span);
    return r;
}

/* The first piece of a write that needs new clusters. */
static int io_write_new(struct qcow2 *q, uint64_t off, const uint8_t *buf, uint64_t len, uint64_t *done)
{
    struct io_new w;
    int r;

    qcow2_change_begin(q);
    r = io_new_begin(q, &w, off, len);
    qcow2_change_end(q);
    if (r == -EBUSY)
        io_span_wait(q, off >> q->cbits);
    if (r == -EBUSY || r == -EAGAIN) {
        *done = 0;
        return 0;
    }
    if (r < 0)
        return r;
    *done = w.len;
    return io_new_end(q, &w, off, io_new_fill(q, &w, off, buf));
}

int qcow2_write(struct block *b, uint64_t off, const void *buf, size_t len)
{
    struct qcow2 *q = qcow2_of(b);
    const uint8_t *at = buf;
    uint64_t done = 0;
    int r = 0;

    for (; r == 0 && len > 0; at += done, off += done, len -= done) {
        r = io_write_own(q, off, at, len, &done);
        if (r == -EAGAIN)
            r = io_write_new(q, off, at, len, &done);
        if (r < 0)
            break;
    }
    return r;
}

/* ---- zeroes ---- */

/* Part of one cluster becomes zero by writing, unless it is already. */
static int io_zero_part(struct qcow2 *q, uint64_t off, uint64_t len)
{
    struct qextent e;
    uint8_t *zeroes;
    int r;

    io_span_wait(q, off >> q->cbits);
    r = io_look(q, off, len, &e);
    if (r < 0 || e.kind == QK_ZERO || (e.kind == QK_UNALLOC && !q->backing))
        return r;
    zeroes = calloc(1, len);
    if (!zeroes)
        return -ENOMEM;
    r = qcow2_write(&q->block, off, zeroes, len);
    free(zeroes);
    return r;
}

/* Whole clusters within one L2 table become zero. */
static int io_zero_tables(struct qcow2 *q, uint64_t off, uint64_t n)
{
    struct qtable *t;
    int r = atomic_load(&q->block.failed) ? -EIO : 0;

    if (r == 0 && q->drop_n > DROP_MANY)
        r = qcow2_commit(q);
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

/* As many of n clusters as no write is filling: *n of them. */
static int io_zero_clusters(struct qcow2 *q, uint64_t off, uint64_t *n)
{
    struct qspan s = { .first = off >> q->cbits, .last = (off >> q->cbits) + *n - 1 };
    int r;

    qcow2_change_begin(q);
    r = io_span_begin(q, &s);
    if (r == 0) {
        *n = s.last - s.first + 1;
        r = io_zero_tables(q, off, *n);
        io_span_end(q, &s);
    }
    qcow2_change_end(q);
    if (r != -EBUSY)
        return r;
    io_span_wait(q, s.first);
    *n = 0;
    return 0;
}

/* A stretch of whole clusters from off on, or what the disk's end leaves of one: *n bytes at most. */
static int io_zero_whole(struct qcow2 *q, uint64_t off, uint64_t *n)
{
    uint64_t clusters = ALIGN_UP(*n, q->csize) >> q->cbits;
    int r = io_zero_clusters(q, off, &clusters);

    *n = clusters << q->cbits < *n ? clusters << q->cbits : *n;
    return r;
}

int qcow2_zero(struct qcow2 *q, uint64_t off, uint64_t len, bool edges)
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
        r = io_zero_whole(q, off, &n);
    }
    return r;
}

int qcow2_discard(struct block *b, uint64_t off, uint64_t len)
{
    return qcow2_zero(qcow2_of(b), off, len, false);
}

/* Without unmap the space is given back too: a write that finds none then fails as in any sparse image. */
int qcow2_write_zeroes(struct block *b, uint64_t off, uint64_t len, bool unmap)
{
    return qcow2_zero(qcow2_of(b), off, len, true);
}

/* ---- bringing in what the backing file holds ---- */

/* Take the first clusters of [off, off+len) that nobody has brought in or written, and nobody does just now: w->len bytes. -EAGAIN: for *done bytes
 * there is nothing to do; -EBUSY as io_new_begin(). */
static int io_pull_begin(struct qcow2 *q, struct io_new *w, uint64_t off, uint64_t len, uint64_t *done)
{
    struct qextent e;
    int r = atomic_load(&q->block.failed) ? -EIO : qcow2_lookup(q, off, len, &e);

    if (r < 0)
        return r;
    *done = e.len;
    return e.kind != QK_UNALLOC ? -EAGAIN : io_new_alloc(q, w, off, e.len);
}

/* The same for zeroes, which need no clusters. */
static int io_pull_zero(struct qcow2 *q, uint64_t off, uint64_t len, uint64_t *done)
{
    struct qspan s = { .first = off >> q->cbits };
    struct qextent e;
    int r = qcow2_lookup(q, off, len, &e);

    if (r < 0)
        return r;
    *done = e.len;
    if (e.kind != QK_UNALLOC)
        return 0;
    s.last = (off + e.len - 1) >> q->cbits;
    r = io_span_begin(q, &s);
    if (r < 0)
        return r;
    *done = ((s.last + 1) << q->cbits) - off < e.len ? ((s.last + 1) << q->cbits) - off : e.len;
    r = io_zero_tables(q, off, s.last - s.first + 1);
    io_span_end(q, &s);
    return r;
}

int qcow2_pull(struct block *b, uint64_t off, uint64_t len, bool zero, uint64_t *done)
{
    struct qcow2 *q = qcow2_of(b);
    struct io_new w;
    int r;

    do {
        qcow2_change_begin(q);
        r = zero ? io_pull_zero(q, off, len, done) : io_pull_begin(q, &w, off, len, done);
        qcow2_change_end(q);
        if (r == -EBUSY)
            io_span_wait(q, off >> q->cbits);
    } while (r == -EBUSY);
    if (r < 0 || zero)
        return r == -EAGAIN ? 0 : r;
    *done = w.len;
    return io_new_end(q, &w, off, io_fill(q, off, off + (w.n << q->cbits), w.host, false));
}
