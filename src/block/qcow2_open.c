/* Opening, closing and making qcow2 images; the face that block.h sees.
 *
 * Source: QEMU's docs/interop/qcow2.rst, "General", "Header". Opening and closing: one thread has the image;
 * the rest: see qcow2_int.h.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "block/qcow2_int.h"

#define L2_CACHE (16ULL << 20) /* bytes */
#define RB_CACHE (4ULL << 20)
#define RB_MIN   4U
#define L2_MIN   4U
#define TABS_MAX 4096U

static int open_flush(struct block *b)
{
    struct qcow2 *q = qcow2_of(b);
    bool pending;
    int r;

    /* What a write changed that has ended is in the tables. Where another's commit has written it already, a
     * barrier that begins now makes it durable. */
    pthread_rwlock_rdlock(&q->lock);
    pending = qcow2_pending(q);
    pthread_rwlock_unlock(&q->lock);
    if (!pending)
        return qcow2_barrier(q);
    qcow2_change_begin(q);
    r = qcow2_commit(q);
    qcow2_change_end(q);
    return r;
}

/* A flush has been made. What it released still waits for lower counts, which are written here, or would never be. */
static int open_freeze(struct block *b)
{
    struct qcow2 *q = qcow2_of(b);
    int r = 0;

    qcow2_change_begin(q);
    for (unsigned n = 0; r == 0 && n < 2 && qcow2_pending(q); n++)
        r = qcow2_commit(q);
    qcow2_change_end(q);
    if (r == 0)
        r = qcow2_barrier(q);
    return r == 0 && q->f->ops->share ? q->f->ops->share(q->f) : r;
}

static void open_free(struct qcow2 *q)
{
    qcache_fini(&q->l2c);
    qcache_fini(&q->rbc);
    qmap_fini(&q->meta);
    block_close(q->backing);
    if (!q->borrowed)
        imgfile_close(q->f);
    pthread_rwlock_destroy(&q->lock);
    pthread_rwlock_destroy(&q->io);
    pthread_mutex_destroy(&q->change);
    pthread_mutex_destroy(&q->span_lock);
    pthread_mutex_destroy(&q->comp_lock);
    pthread_mutex_destroy(&q->barrier_lock);
    pthread_cond_destroy(&q->span_end);
    free(q->l1);
    free(q->rt);
    free(q->drop);
    free(q->comp_data);
    free(q->comp_raw);
    free(q->name);
    free(q);
}

static void open_close(struct block *b)
{
    struct qcow2 *q = qcow2_of(b);

    if (!q->block.ro && !atomic_load(&q->block.failed) && qcow2_pending(q)) {
        qcow2_change_begin(q);
        if (qcow2_commit(q) == 0)
            qcow2_barrier(q);
        qcow2_change_end(q);
    }
    open_free(q);
}

static int open_lock(struct block *b, bool take)
{
    struct qcow2 *q = qcow2_of(b);

    return q->f->ops->lock ? q->f->ops->lock(q->f, b->ro, take) : 0;
}

static const struct block_ops qcow2_ops = {
    .format = "qcow2",
    .read = qcow2_read,
    .read_now = qcow2_read_now,
    .write_from = qcow2_write_from,
    .hold = qcow2_hold,
    .release = qcow2_release,
    .write = qcow2_write,
    .flush = open_flush,
    .discard = qcow2_discard,
    .write_zeroes = qcow2_write_zeroes,
    .freeze = open_freeze,
    .lock = open_lock,
    .close = open_close,
};

bool qcow2_is(const struct block *b) { return b->ops == &qcow2_ops; }

/* A table of 64-bit numbers, turned into the host's order. */
static int open_table(struct qcow2 *q, uint64_t **out, uint64_t off, uint64_t n, struct err *err)
{
    uint64_t *t = calloc(n ? n : 1, 8);
    int r;

    *out = t;
    if (!t)
        return err_set(err, ENOMEM, "image '%s': out of memory", q->name);
    r = n ? imgfile_read(q->f, off, t, n * 8) : 0;
    if (r < 0)
        return err_set(err, -r, "image '%s': its tables cannot be read: %s", q->name, strerror(-r));
    for (uint64_t i = 0; i < n; i++)
        t[i] = ld_be64(&t[i]);
    return 0;
}

/* What an image must be to be written. */
static int open_writable(struct qcow2 *q, struct err *err)
{
    if (q->block.ro)
        return 0;
    if (q->info.version < 3)
        return err_set(
            err, EROFS,
            "image '%s': has qcow2 version 2, which is only read: open it read-only, or make a copy with "
            "'vitro image convert'",
            q->name);
    if (q->rc_order != 4)
        return err_set(err, EROFS,
                       "image '%s': has reference counts of %u bits, only those of 16 are written: open it "
                       "read-only, or make a copy with 'vitro image convert'",
                       q->name, 1U << q->rc_order);
    if (q->info.bitmaps)
        return err_set(
            err, EROFS,
            "image '%s': holds dirty bitmaps, which a write would spoil: open it read-only, or remove "
            "them with 'qemu-img bitmap --remove'",
            q->name);
    if (q->repair)
        return 0;
    if (q->info.corrupt)
        return err_set(
            err, EROFS,
            "image '%s': is marked as corrupt: open it read-only, or try 'vitro image check --repair'",
            q->name);
    if (q->info.dirty)
        return err_set(
            err, EROFS,
            "image '%s': was not closed and its reference counts are out of date: repair it with 'vitro "
            "image check --repair'",
            q->name);
    return 0;
}

static int open_backing(struct qcow2 *q, const struct qcow2_opts *o, struct err *err)
{
    if (q->info.has_backing && !q->backing && !o->no_backing)
        return err_set(
            err, EPERM,
            "image '%s': has the backing file '%.200s', which was not named: a backing file is only "
            "opened when it is allowed",
            q->name, q->info.backing);
    if (!q->info.has_backing && q->backing)
        return err_set(err, EINVAL, "image '%s': has no backing file, but one was named", q->name);
    return 0;
}

static unsigned open_tables(uint64_t bytes, uint64_t csize, unsigned min)
{
    uint64_t n = bytes / csize;

    n = n > TABS_MAX ? TABS_MAX : n;
    return n < min ? min : (unsigned)n;
}

static int open_caches(struct qcow2 *q, const struct qcow2_opts *o, struct err *err)
{
    uint64_t bytes = o->cache_bytes ? o->cache_bytes : L2_CACHE;

    if (qcache_init(&q->l2c, open_tables(bytes, q->csize, L2_MIN), q->csize) < 0 ||
        qcache_init(&q->rbc, open_tables(bytes < RB_CACHE ? bytes : RB_CACHE, q->csize, RB_MIN), q->csize) <
            0)
        return err_set(err, ENOMEM, "image '%s': out of memory", q->name);
    return 0;
}

/* The software that writes an image takes off the marks of what it does not keep up to date. */
static int open_clear(struct qcow2 *q, struct err *err)
{
    int r = 0;

    if (q->block.ro || q->autoclear == 0)
        return 0;
    q->autoclear = 0;
    r = qcow2_header_write(q);
    if (r == 0)
        r = qcow2_barrier(q);
    return r < 0 ? err_set(err, -r, "image '%s': cannot be written: %s", q->name, strerror(-r)) : 0;
}

static int open_all(struct qcow2 *q, const struct qcow2_opts *o, struct err *err)
{
    int r = qcow2_header_read(q, err);

    if (r == 0)
        r = open_backing(q, o, err);
    if (r == 0)
        r = open_writable(q, err);
    if (r == 0)
        r = open_caches(q, o, err);
    if (r == 0)
        r = open_table(q, &q->l1, q->l1_off, q->l1_size, err);
    if (r == 0)
        r = open_table(q, &q->rt, q->rt_off, q->rt_size, err);
    q->fresh = q->end;
    q->block.size = ALIGN_UP(q->size, BLOCK_SECTOR);
    if (r == 0 && !q->block.ro)
        r = qcow2_meta_load(q, err);
    return r == 0 ? open_clear(q, err) : r;
}

static void open_lock_init(struct qcow2 *q)
{
    pthread_rwlockattr_t attr;

    pthread_rwlockattr_init(&attr);
    /* Else a stream of readers would hold up writes for ever. */
    pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    pthread_rwlock_init(&q->lock, &attr);
    pthread_rwlock_init(&q->io, &attr);
    pthread_rwlockattr_destroy(&attr);
    pthread_mutex_init(&q->change, NULL);
    pthread_mutex_init(&q->span_lock, NULL);
    pthread_mutex_init(&q->comp_lock, NULL);
    pthread_mutex_init(&q->barrier_lock, NULL);
    pthread_cond_init(&q->span_end, NULL);
}

int block_qcow2_open(struct block **out, struct imgfile *f, const struct qcow2_opts *o, struct err *err)
{
    struct qcow2 *q = calloc(1, sizeof(*q));
    int r;

    *out = NULL;
    if (!q) {
        if (!o->borrow_file)
            imgfile_close(f);
        block_close(o->backing);
        return err_set(err, ENOMEM, "image '%s': out of memory", o->name);
    }
    open_lock_init(q);
    q->block = (struct block){ .ops = &qcow2_ops, .ro = o->ro };
    q->f = f;
    q->backing = o->backing;
    q->repair = o->repair;
    q->borrowed = o->borrow_file;
    q->name = strdup(o->name);
    r = q->name ? open_all(q, o, err) : err_set(err, ENOMEM, "image '%s': out of memory", o->name);
    if (r < 0) {
        open_free(q);
        return r;
    }
    *out = &q->block;
    return 0;
}

int qcow2_map(struct block *b, uint64_t off, uint64_t len, enum qcow2_extent *kind, uint64_t *n)
{
    static const enum qcow2_extent kinds[] = { [QK_UNALLOC] = QCOW2_FROM_BACKING,
                                               [QK_ZERO] = QCOW2_READS_ZERO,
                                               [QK_DATA] = QCOW2_HAS_DATA,
                                               [QK_COMPRESSED] = QCOW2_HAS_DATA };
    struct qcow2 *q = qcow2_of(b);
    struct qextent e;
    int r;

    if (len == 0 || range_outside(off, len, b->size))
        return -EINVAL;
    pthread_rwlock_wrlock(&q->lock);
    r = qcow2_lookup(q, off, len, &e);
    pthread_rwlock_unlock(&q->lock);
    if (r < 0)
        return r;
    *kind = e.kind == QK_UNALLOC && !q->info.has_backing ? QCOW2_READS_ZERO : kinds[e.kind];
    *n = e.len;
    return 0;
}

struct block *qcow2_backing(const struct block *b) { return container_of(b, struct qcow2, block)->backing; }

void qcow2_set_backing(struct block *b, struct block *backing) { container_of(b, struct qcow2, block)->backing = backing; }

const struct qcow2_info *qcow2_info_of(const struct block *b)
{
    return &container_of(b, struct qcow2, block)->info;
}

int qcow2_make_empty(struct block *b)
{
    struct qcow2 *q = qcow2_of(b);
    struct block *backing = q->backing;
    int r;

    q->backing = NULL; /* what is taken out becomes unmapped instead of zero */
    r = q->size ? qcow2_zero(q, 0, q->block.size, true) : 0;
    q->backing = backing;
    qcow2_change_begin(q);
    if (r == 0)
        r = qcow2_commit(q);
    qcow2_change_end(q);
    return r;
}

/* --- making one --- */

/* Header, its extensions and the backing file's name: all of them in the first cluster. */
static size_t create_header(uint8_t *raw, size_t max, const struct qcow2_new *n)
{
    size_t fmt = n->backing ? strlen(n->backing_format) : 0, name = n->backing ? strlen(n->backing) : 0;
    size_t pos = QCOW2_HEADER;

    if (name > QCOW2_NAME_MAX || pos + 8 + ALIGN_UP(fmt, 8) + 8 + name > max)
        return 0;
    st_be32(raw, QCOW2_MAGIC);
    st_be32(raw + 4, 3);
    st_be32(raw + 20, n->cluster_bits);
    st_be64(raw + 48, 1ULL << n->cluster_bits); /* refcount table: cluster 1, its first block: cluster 2 */
    st_be32(raw + 56, 1);
    st_be32(raw + 96, 4);
    st_be32(raw + 100, QCOW2_HEADER);
    if (name) {
        st_be32(raw + pos, 0xe2792acaU);
        st_be32(raw + pos + 4, (uint32_t)fmt);
        memcpy(raw + pos + 8, n->backing_format, fmt);
        pos += 8 + ALIGN_UP(fmt, 8);
        st_be64(raw + 8, pos + 8);
        st_be32(raw + 16, (uint32_t)name);
        memcpy(raw + pos + 8, n->backing, name);
    }
    return pos + 8 + name;
}

/* An image of a disk of 0 bytes: three clusters. */
static int create_skeleton(struct imgfile *f, const struct qcow2_new *n, struct err *err)
{
    size_t csize = (size_t)1 << n->cluster_bits;
    uint8_t *raw = calloc(3, csize);
    int r;

    if (!raw)
        return err_set(err, ENOMEM, "out of memory");
    if (create_header(raw, csize, n) == 0) {
        free(raw);
        return err_set(err, ENAMETOOLONG,
                       "the name of the backing file is too long for clusters of %zu bytes", csize);
    }
    st_be64(raw + csize, 2 * csize);
    for (unsigned i = 0; i < 3; i++)
        st_be16(raw + 2 * csize + i * 2, 1);
    r = imgfile_write(f, 0, raw, 3 * csize);
    free(raw);
    return r < 0 ? err_set(err, -r, "the new image cannot be written: %s", strerror(-r)) : 0;
}

int qcow2_create(struct imgfile *f, const struct qcow2_new *n, struct err *err)
{
    struct qcow2_opts o = { .name = "(new)", .no_backing = true, .borrow_file = true };
    struct block *b;
    int r;

    if (n->cluster_bits < QCOW2_CLUSTER_MIN || n->cluster_bits > QCOW2_CLUSTER_MAX)
        return err_set(err, EINVAL, "a cluster has 512 bytes to 2M, and a power of two");
    r = create_skeleton(f, n, err);
    if (r == 0)
        r = block_qcow2_open(&b, f, &o, err);
    if (r < 0)
        return r;
    r = qcow2_grow(b, n->size, err);
    if (r == 0)
        r = block_flush(b) < 0 ? err_set(err, EIO, "the new image cannot be made durable") : 0;
    block_close(b);
    return r;
}
