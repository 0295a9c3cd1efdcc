/* Reference counts: reading, allocation, and the release that waits until nothing on the disk refers to a
 * cluster.
 *
 * Source: QEMU's docs/interop/qcow2.rst, "Host cluster management". A count in memory goes up before anything
 * refers to the cluster, and down only after a commit made the reference's end durable; so a refcount block
 * may be written at any time, and a cluster whose count is 0 here is free on the disk too. Lock: alone, but
 * for qcow2_rc_peek().
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "block/qcow2_int.h"

static uint64_t rc_field(const struct qcow2 *q, const uint8_t *block, uint64_t i)
{
    switch (q->rc_order) {
    case 3:
        return block[i];
    case 4:
        return ld_be16(block + i * 2);
    case 5:
        return ld_be32(block + i * 4);
    case 6:
        return ld_be64(block + i * 8);
    default: /* below a byte: from its lowest bits up */
        return block[(i << q->rc_order) / 8] >> ((i << q->rc_order) % 8) & (BIT(BIT(q->rc_order)) - 1);
    }
}

/* Where the block for the cluster is in the file; 0: there is none. */
static uint64_t rc_block_off(const struct qcow2 *q, uint64_t cluster)
{
    uint64_t i = cluster >> q->rb_bits;

    return i < q->rt_size ? q->rt[i] : 0;
}

/* A place in the cache; makes one by writing a dirty block, which is safe at any time. */
static int rc_slot(struct qcow2 *q, uint64_t off, struct qtable **t)
{
    int r = 0;

    while (!(*t = qcache_add(&q->rbc, off))) {
        unsigned written = 0;

        for (unsigned i = 0; r == 0 && i < q->rbc.count && written < 8; i++) {
            written += qtable_dirty(&q->rbc.t[i]);
            r = qcow2_table_write(q, &q->rbc.t[i], QMETA_RB);
        }
        if (r < 0 || written == 0)
            return r < 0 ? r : -ENOMEM;
    }
    return 0;
}

static int rc_load(struct qcow2 *q, uint64_t off, struct qtable **t)
{
    int r;

    *t = qcache_find(&q->rbc, off);
    if (*t)
        return 0;
    if (off % q->csize || range_outside(off, q->csize, q->end))
        return qcow2_corrupt(q, "a refcount block lies outside the file", off);
    r = rc_slot(q, off, t);
    if (r < 0)
        return r;
    r = imgfile_read(q->f, off, (*t)->data, q->csize);
    if (r < 0)
        qcache_drop(&q->rbc, *t);
    return r;
}

int qcow2_rc_get(struct qcow2 *q, uint64_t cluster, uint64_t *count)
{
    uint64_t off = rc_block_off(q, cluster);
    struct qtable *t;
    int r;

    *count = 0;
    if (off == 0)
        return 0;
    r = rc_load(q, off, &t);
    if (r == 0)
        *count = rc_field(q, t->data, cluster & (BIT(q->rb_bits) - 1));
    return r;
}

int qcow2_rc_peek(struct qcow2 *q, uint64_t cluster, uint64_t *count)
{
    uint64_t off = rc_block_off(q, cluster);
    struct qtable *t = off ? qcache_find(&q->rbc, off) : NULL;

    if (!t)
        return -EAGAIN;
    *count = rc_field(q, t->data, cluster & (BIT(q->rb_bits) - 1));
    return 0;
}

int qcow2_rc_set(struct qcow2 *q, uint64_t cluster, uint64_t count)
{
    uint64_t i = cluster & (BIT(q->rb_bits) - 1), off = rc_block_off(q, cluster);
    struct qtable *t;
    int r = off ? rc_load(q, off, &t) : -EINVAL;

    if (r < 0)
        return r;
    if (count > UINT16_MAX)
        return -ERANGE;
    st_be16(t->data + i * 2, (uint16_t)count);
    qtable_mark(t, i * 2, i * 2 + 2);
    return 0;
}

/* A larger refcount table, elsewhere. Nested it would not end. */
static int rc_grow_table(struct qcow2 *q, uint64_t need)
{
    uint64_t clusters = 2ULL * q->rt_clusters, old = q->rt_off >> q->cbits, first, n;
    uint64_t max = QCOW2_RT_MAX > q->csize ? QCOW2_RT_MAX >> q->cbits : 1;
    uint32_t old_clusters = q->rt_clusters;
    uint64_t *bigger;
    int r;

    while (clusters << (q->cbits - 3) <= need + 2) /* it may itself lie a block further */
        clusters *= 2;
    if (q->rt_growing || clusters > max)
        return -EFBIG;
    bigger = realloc(q->rt, clusters << q->cbits);
    if (!bigger)
        return -ENOMEM;
    q->rt = bigger;
    memset(bigger + q->rt_size, 0, (clusters << q->cbits) - q->rt_size * 8ULL);
    q->rt_size = (uint32_t)(clusters << (q->cbits - 3));
    q->rt_growing = true;
    r = qcow2_drop_reserve(q, 1);
    if (r == 0)
        r = qcow2_alloc(q, clusters, clusters, &first, &n);
    q->rt_growing = false;
    for (uint64_t i = 0; r == 0 && i < clusters; i++)
        r = qmap_add(&q->meta, first + i, QMETA_RT);
    if (r < 0) {
        atomic_store(&q->block.failed,
                     true); /* blocks beyond the old table may exist; the disk has none of them */
        return r;
    }
    q->rt_off = first << q->cbits;
    q->rt_clusters = (uint32_t)clusters;
    q->rt_moved = true;
    for (uint64_t i = 0; i < old_clusters; i++)
        qmap_del(&q->meta, old + i);
    qcow2_drop(q, old, old_clusters);
    return 0;
}

static void rc_table_mark(struct qcow2 *q, uint64_t i)
{
    if (q->rt_dirty_lo == q->rt_dirty_hi) {
        q->rt_dirty_lo = i;
        q->rt_dirty_hi = i + 1;
    }
    q->rt_dirty_lo = i < q->rt_dirty_lo ? i : q->rt_dirty_lo;
    q->rt_dirty_hi = i + 1 > q->rt_dirty_hi ? i + 1 : q->rt_dirty_hi;
}

static void rc_claim_file(struct qcow2 *q, uint64_t first, uint64_t n)
{
    uint64_t end = (first + n) << q->cbits;

    q->end = end > q->end ? end : q->end;
    q->fresh = end > q->fresh ? end : q->fresh;
}

/* The block for the range i of clusters comes to cluster at, which is free and gets counted by the caller. */
static int rc_place_block(struct qcow2 *q, uint64_t i, uint64_t at)
{
    struct qtable *t;
    int r;

    if (qmap_get(&q->meta, at) != QMETA_NONE)
        return qcow2_corrupt(q, "metadata has no reference count", at << q->cbits);
    r = rc_slot(q, at << q->cbits, &t);
    if (r < 0)
        return r;
    r = qmap_add(&q->meta, at, QMETA_RB);
    if (r < 0) {
        qcache_drop(&q->rbc, t);
        return r;
    }
    memset(t->data, 0, q->csize);
    qtable_mark(t, 0, q->csize);
    q->rt[i] = at << q->cbits;
    rc_table_mark(q, i);
    rc_claim_file(q, at, 1);
    return 0;
}

/* Make the block for range i, at the first free cluster from p on whose own count has a place: in a block
 * that exists, or in this one. Ranges on the way that have no block get one that counts itself. *grown: see
 * rc_cover(). */
static int rc_make_block(struct qcow2 *q, uint64_t i, uint64_t p, bool *grown)
{
    uint64_t count, j;
    bool here;
    int r;

    for (;; p++) {
        j = p >> q->rb_bits;
        if (j >= q->rt_size) {
            *grown = true;
            return rc_grow_table(q, j);
        }
        r = qcow2_rc_get(q, p, &count);
        if (r == 0 && count)
            continue;
        here = j == i || q->rt[j];
        if (r == 0)
            r = rc_place_block(q, here ? i : j, p);
        if (r == 0)
            r = qcow2_rc_set(q, p, 1);
        if (r < 0 || here)
            return r;
    }
}

/* The first run of free clusters from the hint on. */
static int rc_find(struct qcow2 *q, uint64_t min, uint64_t max, uint64_t *first, uint64_t *n)
{
    uint64_t limit = BIT(55) >> q->cbits, run = 0, count, i;
    int r;

    for (i = q->hint; i < limit; i++) {
        r = qcow2_rc_get(q, i, &count);
        if (r < 0)
            return r;
        if (count == 0 && ++run == max)
            break;
        if (count != 0 && run >= min && run > 0) {
            i--;
            break;
        }
        if (count != 0)
            run = 0;
    }
    *n = run;
    *first = i + 1 - run;
    return i < limit ? 0 : -EFBIG;
}

/* Blocks for all clusters of the run, behind it: 1; or 0 when the table moved, perhaps into the run. */
static int rc_cover(struct qcow2 *q, uint64_t first, uint64_t n)
{
    uint64_t last = (first + n - 1) >> q->rb_bits;
    bool grown = last >= q->rt_size;
    int r = grown ? rc_grow_table(q, last) : 0;

    for (uint64_t i = first >> q->rb_bits; r == 0 && !grown && i <= last; i++) {
        if (!q->rt[i])
            r = rc_make_block(q, i, first + n, &grown);
    }
    return r < 0 ? r : !grown;
}

int qcow2_alloc(struct qcow2 *q, uint64_t min, uint64_t max, uint64_t *first, uint64_t *n)
{
    int r;

    if (atomic_load(&q->block.failed))
        return -EIO;
    do {
        r = rc_find(q, min, max, first, n);
        if (r == 0)
            r = rc_cover(q, *first, *n);
    } while (r == 0);
    for (uint64_t i = 0; r > 0 && i < *n; i++) {
        if (qmap_get(&q->meta, *first + i) != QMETA_NONE)
            return qcow2_corrupt(q, "metadata has no reference count", (*first + i) << q->cbits);
    }
    for (uint64_t i = 0; r > 0 && i < *n; i++) {
        int s = qcow2_rc_set(q, *first + i, 1);

        if (s < 0) {
            qcow2_unalloc(q, *first, i);
            return s;
        }
    }
    if (r < 0)
        return r;
    if (min == 1) /* else free ones may have been skipped */
        q->hint = *first + *n;
    rc_claim_file(q, *first, *n);
    return 0;
}

void qcow2_unalloc(struct qcow2 *q, uint64_t first, uint64_t n)
{
    for (uint64_t i = first; i < first + n; i++)
        qcow2_rc_set(q, i, 0); /* what fails is a leak */
    q->hint = first < q->hint ? first : q->hint;
}

int qcow2_drop_reserve(struct qcow2 *q, unsigned n)
{
    unsigned max = q->drop_max ? q->drop_max : 256;
    struct qrange *d;

    while (max < q->drop_n + n)
        max *= 2;
    if (max == q->drop_max)
        return 0;
    d = realloc(q->drop, max * sizeof(*d));
    if (!d)
        return -ENOMEM;
    q->drop = d;
    q->drop_max = max;
    return 0;
}

void qcow2_drop(struct qcow2 *q, uint64_t first, uint64_t n)
{
    struct qrange *last = q->drop_n ? &q->drop[q->drop_n - 1] : NULL;

    if (last && last->first + last->n == first)
        last->n += n;
    else if (q->drop_n < q->drop_max)
        q->drop[q->drop_n++] = (struct qrange){ first, n };
}

/* One count down; true when the cluster is free now. */
static bool drop_one(struct qcow2 *q, uint64_t cluster)
{
    uint64_t count;

    if (qcow2_rc_get(q, cluster, &count) < 0)
        return false; /* a leak */
    if (count == 0) {
        qcow2_corrupt(q, "a cluster in use had no reference count", cluster << q->cbits);
        return false;
    }
    if (qcow2_rc_set(q, cluster, count - 1) < 0 || count > 1)
        return false;
    q->hint = cluster < q->hint ? cluster : q->hint;
    return true;
}

unsigned qcow2_drop_apply(struct qcow2 *q)
{
    unsigned free_n = 0;

    for (unsigned i = 0; i < q->drop_n; i++) {
        uint64_t first = q->drop[i].first, end = first + q->drop[i].n;
        bool open = false; /* the last free range goes on here */

        for (uint64_t c = first; c < end; c++) {
            bool gone = drop_one(q, c);

            /* A range may fall apart, where a snapshot holds some of it: what finds no place is not punched.
             */
            if (gone && open)
                q->drop[free_n - 1].n++;
            else if (gone && free_n <= i)
                q->drop[free_n++] = (struct qrange){ c, 1 };
            open = gone && free_n > 0 && q->drop[free_n - 1].first + q->drop[free_n - 1].n == c + 1;
        }
    }
    q->drop_n = 0;
    return free_n;
}

void qcow2_drop_punch(struct qcow2 *q, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        q->f->ops->punch(q->f, q->drop[i].first << q->cbits, q->drop[i].n << q->cbits);
}
