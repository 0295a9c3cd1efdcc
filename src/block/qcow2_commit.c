/* How metadata reaches the disk: the only place that decides the order (docs/design/qcow2.md).
 *
 *   1 refcount blocks, L2 tables that nothing points to yet, a moved refcount table   | barrier (data too)
 *   2 refcount table entries, or the header with the moved table's place              | barrier, only if
 * there are any 3 L2 tables in use, L1 entries                                                    | barrier
 *   4 counts of what nothing refers to any more go down; only now may it be used again
 *
 * Whatever is lost after a barrier is a prefix of this, or any part of one step: each leaves clusters with
 * too high counts at worst. A write that fails leaves its table dirty, and the next commit begins anew; a
 * barrier that fails is final.
 *
 * Nobody else changes metadata meanwhile (`change`), but `lock` is free during the barriers: reads and writes
 * in place go on. Before step 4, transfers that began before the references went are waited for (`io`).
 */
#include <errno.h>
#include <stdlib.h>

#include "base/err.h"
#include "block/qcow2_int.h"

int qcow2_barrier(struct qcow2 *q)
{
    int r;

    pthread_mutex_lock(&q->barrier_lock);
    r = atomic_load(&q->block.failed) ? -EIO : q->f->ops->flush(q->f);
    if (r < 0)
        atomic_store(&q->block.failed, true);
    pthread_mutex_unlock(&q->barrier_lock);
    return r;
}

static int commit_barrier(struct qcow2 *q)
{
    int r;

    pthread_rwlock_unlock(&q->lock);
    r = qcow2_barrier(q);
    pthread_rwlock_wrlock(&q->lock);
    return r;
}

static bool commit_cache_dirty(const struct qcache *c)
{
    for (unsigned i = 0; i < c->count; i++) {
        if (qtable_dirty(&c->t[i]) || c->t[i].fresh)
            return true;
    }
    return false;
}

bool qcow2_pending(const struct qcow2 *q)
{
    return q->drop_n || q->rt_moved || q->l1_dirty_lo < q->l1_dirty_hi || q->rt_dirty_lo < q->rt_dirty_hi ||
           commit_cache_dirty(&q->rbc) || commit_cache_dirty(&q->l2c);
}

static int commit_blocks(struct qcow2 *q)
{
    int r = 0;

    for (unsigned i = 0; r == 0 && i < q->rbc.count; i++)
        r = qcow2_table_write(q, &q->rbc.t[i], QMETA_RB);
    return r;
}

/* L2 tables: those that nothing points to, or the others. */
static int commit_l2(struct qcow2 *q, bool fresh)
{
    int r = 0;

    for (unsigned i = 0; r == 0 && i < q->l2c.count; i++) {
        struct qtable *t = &q->l2c.t[i];

        if (t->fresh != fresh)
            continue;
        r = qcow2_table_write(q, t, QMETA_L2);
        if (r == 0)
            t->fresh = false;
    }
    return r;
}

/* Entries lo to hi of a table in the host's order go to the file, in pieces. */
static int commit_entries(struct qcow2 *q, const uint64_t *e, uint64_t off, uint64_t lo, uint64_t hi,
                          enum qmeta kind)
{
    uint8_t raw[4096];
    int r = 0;

    while (r == 0 && lo < hi) {
        uint64_t n = hi - lo < sizeof(raw) / 8 ? hi - lo : sizeof(raw) / 8;

        if (qmap_get(&q->meta, (off + lo * 8) >> q->cbits) != kind ||
            qmap_get(&q->meta, (off + (lo + n) * 8 - 1) >> q->cbits) != kind)
            return qcow2_corrupt(q, "a table would be written over something else", off);
        for (uint64_t i = 0; i < n; i++)
            st_be64(raw + i * 8, e[lo + i]);
        r = imgfile_write(q->f, off + lo * 8, raw, n * 8);
        lo += n;
    }
    return r;
}

/* Steps 1 and 2: after them everything in use has its count on the disk. */
static int commit_counts(struct qcow2 *q)
{
    int r = commit_blocks(q);

    if (r == 0)
        r = commit_l2(q, true);
    if (r == 0 && q->rt_moved)
        r = commit_entries(q, q->rt, q->rt_off, 0, q->rt_size, QMETA_RT);
    if (r == 0)
        r = commit_barrier(q);
    if (r < 0 || (!q->rt_moved && q->rt_dirty_lo == q->rt_dirty_hi))
        return r;
    if (q->rt_moved)
        r = qcow2_header_write(q);
    else
        r = commit_entries(q, q->rt, q->rt_off, q->rt_dirty_lo, q->rt_dirty_hi, QMETA_RT);
    if (r == 0)
        r = commit_barrier(q);
    if (r == 0) {
        q->rt_moved = false;
        q->rt_dirty_lo = q->rt_dirty_hi = 0;
    }
    return r;
}

static int commit_references(struct qcow2 *q)
{
    int r = commit_l2(q, false);

    if (r == 0 && q->l1_dirty_lo < q->l1_dirty_hi)
        r = commit_entries(q, q->l1, q->l1_off, q->l1_dirty_lo, q->l1_dirty_hi, QMETA_L1);
    if (r == 0)
        r = commit_barrier(q);
    if (r == 0)
        q->l1_dirty_lo = q->l1_dirty_hi = 0;
    return r;
}

/* Step 4. */
static void commit_release(struct qcow2 *q)
{
    unsigned n;

    pthread_rwlock_unlock(&q->lock);
    pthread_rwlock_wrlock(&q->io);
    pthread_rwlock_unlock(&q->io);
    pthread_rwlock_wrlock(&q->lock);
    n = qcow2_drop_apply(q);
    /* Not needed for what was promised: without it there are leaks after a kill. */
    commit_blocks(q);
    pthread_rwlock_unlock(&q->lock);
    qcow2_drop_punch(q, n);
    pthread_rwlock_wrlock(&q->lock);
}

int qcow2_commit(struct qcow2 *q)
{
    int r;

    if (atomic_load(&q->block.failed))
        return -EIO;
    if (!qcow2_pending(q))
        return commit_barrier(q);
    r = commit_counts(q);
    if (r == 0)
        r = commit_references(q);
    if (r < 0)
        return r;
    if (q->drop_n)
        commit_release(q);
    return atomic_load(&q->block.failed) ? -EIO : 0;
}

/* An L1 table with room for size bytes, in a new place. Everything is committed before. */
static int grow_l1(struct qcow2 *q, uint64_t entries)
{
    uint64_t clusters = ALIGN_UP(entries * 8, q->csize) >> q->cbits, first, n;
    uint64_t old = q->l1_off >> q->cbits, old_n = ALIGN_UP(q->l1_size * 8ULL, q->csize) >> q->cbits;
    uint64_t *l1 = realloc(q->l1, clusters << q->cbits);
    int r = l1 ? qcow2_drop_reserve(q, 1) : -ENOMEM;

    q->l1 = l1 ? l1 : q->l1;
    for (uint64_t i = q->l1_size; l1 && i < (clusters << q->cbits) / 8; i++)
        l1[i] = 0;
    if (r == 0)
        r = qcow2_alloc(q, clusters, clusters, &first, &n);
    for (uint64_t i = 0; r == 0 && i < clusters; i++)
        r = qmap_add(&q->meta, first + i, QMETA_L1);
    if (r == 0)
        r = commit_entries(q, q->l1, first << q->cbits, 0, (clusters << q->cbits) / 8, QMETA_L1);
    if (r == 0)
        r = qcow2_commit(q);
    if (r < 0)
        return r;
    q->l1_off = first << q->cbits;
    q->l1_size = (uint32_t)entries;
    r = qcow2_header_write(q);
    if (r == 0)
        r = qcow2_barrier(q);
    if (r < 0) {
        atomic_store(&q->block.failed, true); /* which table the disk has is not known */
        return r;
    }
    for (uint64_t i = 0; i < old_n; i++)
        qmap_del(&q->meta, old + i);
    if (old_n)
        qcow2_drop(q, old, old_n);
    return qcow2_commit(q);
}

static int grow_tables(struct qcow2 *q, uint64_t size)
{
    uint64_t per_l1 = q->csize << q->l2_bits, entries = size / per_l1 + (size % per_l1 != 0);
    int r;

    if (entries * 8 > QCOW2_L1_MAX)
        return -EFBIG;
    qcow2_change_begin(q);
    r = qcow2_commit(q);
    if (r == 0 && entries > q->l1_size)
        r = grow_l1(q, entries);
    qcow2_change_end(q);
    return r;
}

static int grow_header(struct qcow2 *q, uint64_t size)
{
    int r = qcow2_commit(q);

    if (r < 0)
        return r;
    q->size = size;
    r = qcow2_header_write(q);
    if (r == 0)
        r = qcow2_barrier(q);
    if (r < 0) {
        atomic_store(&q->block.failed, true);
        return r;
    }
    q->block.size = size;
    q->info.size = size;
    return 0;
}

static int grow_image(struct qcow2 *q, uint64_t size)
{
    uint64_t to = ALIGN_UP(q->size, q->csize);
    int r = grow_tables(q, size);

    /* What was behind the end must not show: leftovers in the last cluster, a larger backing file. */
    if (q->backing && q->backing->size > to)
        to = q->backing->size < size ? q->backing->size : size;
    if (r == 0 && to > q->size)
        r = qcow2_zero(q, q->size, to - q->size, true);
    if (r < 0)
        return r;
    qcow2_change_begin(q);
    r = grow_header(q, size);
    qcow2_change_end(q);
    return r;
}

int qcow2_grow(struct block *b, uint64_t size, struct err *err)
{
    struct qcow2 *q = qcow2_of(b);
    int r;

    if (size < q->size)
        return err_set(err, EINVAL, "image '%s': a disk can only be made larger; it has %llu bytes", q->name,
                       (unsigned long long)q->size);
    if (size % BLOCK_SECTOR || size > QCOW2_SIZE_MAX)
        return err_set(err, EINVAL, "image '%s': the size must be a multiple of %u and at most 1P", q->name,
                       BLOCK_SECTOR);
    r = grow_image(q, size);
    if (r == -EFBIG)
        return err_set(err, EFBIG, "image '%s': too large for clusters of %llu bytes; use larger ones",
                       q->name, (unsigned long long)q->csize);
    return r < 0 ? err_set(err, -r, "image '%s': cannot be made larger (error %d)", q->name, -r) : 0;
}
