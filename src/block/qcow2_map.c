/* From the disk's offsets to the file's: L1 and L2 tables, and changing them.
 *
 * Source: QEMU's docs/interop/qcow2.rst, "Cluster mapping". Entries are hostile until qcow2_entry_ok().
 * Locks: see qcow2_int.h.
 */
#include <errno.h>
#include <string.h>

#include "block/qcow2_int.h"

static uint64_t map_l1_index(const struct qcow2 *q, uint64_t off) { return off >> q->cbits >> q->l2_bits; }

static uint64_t map_l2_index(const struct qcow2 *q, uint64_t off)
{
    return off >> q->cbits & (BIT(q->l2_bits) - 1);
}

/* Bits of a compressed entry below its number of sectors. */
static unsigned map_comp_shift(const struct qcow2 *q) { return 62 - (q->cbits - 8); }

uint64_t qcow2_entry_clusters(const struct qcow2 *q, uint64_t entry, uint64_t *first)
{
    unsigned shift = map_comp_shift(q);
    uint64_t start, len;

    if (!(entry & QCOW2_COMPRESSED)) {
        *first = (entry & QCOW2_OFFSET) >> q->cbits;
        return (entry & QCOW2_OFFSET) != 0;
    }
    start = entry & (BIT(shift) - 1);
    start = ALIGN_DOWN(start, 512);
    len = (bits(entry, 61, shift) + 1) * 512;
    *first = start >> q->cbits;
    return ((start + len - 1) >> q->cbits) - *first + 1;
}

bool qcow2_entry_ok(const struct qcow2 *q, uint64_t entry)
{
    uint64_t host = entry & QCOW2_OFFSET;

    if (entry & QCOW2_COMPRESSED)
        return !(entry & QCOW2_COPIED) && (entry & (BIT(map_comp_shift(q)) - 1)) < q->end;
    if (entry & QCOW2_L2_RSVD || (entry & QCOW2_ZERO && q->info.version < 3))
        return false;
    if (host == 0)
        return !(entry & QCOW2_COPIED);
    return host % q->csize == 0 && !range_outside(host, q->csize, q->end);
}

static enum qkind map_kind(uint64_t entry)
{
    if (entry & QCOW2_COMPRESSED)
        return QK_COMPRESSED;
    if (entry & QCOW2_ZERO)
        return QK_ZERO;
    return entry & QCOW2_OFFSET ? QK_DATA : QK_UNALLOC;
}

/* Does the entry b go on where a ends, n clusters later? */
static bool map_continues(const struct qcow2 *q, uint64_t a, uint64_t b, uint64_t n)
{
    enum qkind kind = map_kind(a);

    if (kind != map_kind(b) || kind == QK_COMPRESSED || !qcow2_entry_ok(q, b))
        return false;
    return kind != QK_DATA || b == a + (n << q->cbits);
}

/* The extent that begins at off, from the entries of its L2 table. */
static int map_extent(const struct qcow2 *q, const struct qtable *t, uint64_t off, uint64_t len,
                      struct qextent *e)
{
    uint64_t i = map_l2_index(q, off), in = off & (q->csize - 1), entry = ld_be64(t->data + i * 8), n = 1;

    if (!qcow2_entry_ok(q, entry))
        return -EIO;
    while ((n << q->cbits) - in < len && i + n < BIT(q->l2_bits) &&
           map_continues(q, entry, ld_be64(t->data + (i + n) * 8), n))
        n++;
    e->kind = map_kind(entry);
    e->len = (n << q->cbits) - in < len ? (n << q->cbits) - in : len;
    e->own = entry & QCOW2_COPIED;
    e->host = e->kind == QK_COMPRESSED ? entry : (entry & QCOW2_OFFSET) + in;
    return 0;
}

/* No table: to the end of what it would cover. */
static int map_nothing(const struct qcow2 *q, uint64_t off, uint64_t len, struct qextent *e)
{
    uint64_t span = q->csize << q->l2_bits, left = span - (off & (span - 1));

    *e = (struct qextent){ .kind = QK_UNALLOC, .len = left < len ? left : len };
    return 0;
}

int qcow2_lookup_cached(struct qcow2 *q, uint64_t off, uint64_t len, struct qextent *e)
{
    uint64_t l1 = map_l1_index(q, off);
    struct qtable *t;

    if (l1 >= q->l1_size)
        return -EIO;
    if (!q->l1[l1])
        return map_nothing(q, off, len, e);
    t = qcache_find(&q->l2c, q->l1[l1] & QCOW2_OFFSET);
    return t ? map_extent(q, t, off, len, e) : -EAGAIN;
}

int qcow2_l2_load(struct qcow2 *q, uint64_t off, struct qtable **t)
{
    uint64_t l1 = map_l1_index(q, off), at;
    int r;

    *t = NULL;
    if (l1 >= q->l1_size)
        return -EIO;
    at = q->l1[l1] & QCOW2_OFFSET;
    if (!q->l1[l1])
        return 0;
    *t = qcache_find(&q->l2c, at);
    if (*t)
        return 0;
    if (at == 0 || at % q->csize || q->l1[l1] & QCOW2_L1_RSVD || range_outside(at, q->csize, q->end))
        return -EIO;
    *t = qcache_add(&q->l2c, at);
    if (!*t)
        return -ENOMEM;
    r = imgfile_read(q->f, at, (*t)->data, q->csize);
    if (r < 0) {
        qcache_drop(&q->l2c, *t);
        *t = NULL;
    }
    return r;
}

int qcow2_lookup(struct qcow2 *q, uint64_t off, uint64_t len, struct qextent *e)
{
    struct qtable *t;
    int r = qcow2_l2_load(q, off, &t);

    if (r < 0)
        return r;
    return t ? map_extent(q, t, off, len, e) : map_nothing(q, off, len, e);
}

static void map_l1_mark(struct qcow2 *q, uint64_t i)
{
    if (q->l1_dirty_lo == q->l1_dirty_hi) {
        q->l1_dirty_lo = i;
        q->l1_dirty_hi = i + 1;
    }
    q->l1_dirty_lo = i < q->l1_dirty_lo ? i : q->l1_dirty_lo;
    q->l1_dirty_hi = i + 1 > q->l1_dirty_hi ? i + 1 : q->l1_dirty_hi;
}

/* A new L2 table at cluster at for entry l1: zeroes, or what the one has that a snapshot keeps. */
static int map_l2_replace(struct qcow2 *q, uint64_t l1, uint64_t at, const struct qtable *old,
                          struct qtable **t)
{
    uint64_t before = (q->l1[l1] & QCOW2_OFFSET) >> q->cbits;
    int r = qmap_add(&q->meta, at, QMETA_L2);

    if (r < 0)
        return r;
    *t = qcache_add(&q->l2c, at << q->cbits);
    if (!*t) {
        qmap_del(&q->meta, at);
        return -ENOMEM;
    }
    if (old)
        memcpy((*t)->data, old->data, q->csize);
    else
        memset((*t)->data, 0, q->csize);
    (*t)->fresh = true;
    qtable_mark(*t, 0, q->csize);
    q->l1[l1] = at << q->cbits | QCOW2_COPIED;
    map_l1_mark(q, l1);
    if (old) {
        qmap_del(&q->meta, before);
        qcow2_drop(q, before, 1);
    }
    return 0;
}

/* Two tables in the cache are clean before one is changed: so there is a place for a copy of it, and reads go
 * on when nothing can be written any more. */
static int map_keep_clean(struct qcow2 *q)
{
    unsigned dirty = 0;

    for (unsigned i = 0; i < q->l2c.count; i++)
        dirty += qtable_dirty(&q->l2c.t[i]) || q->l2c.t[i].fresh;
    return dirty + 2 <= q->l2c.max ? 0 : qcow2_commit(q);
}

int qcow2_l2_own(struct qcow2 *q, uint64_t off, struct qtable **t)
{
    uint64_t l1 = map_l1_index(q, off), at, n;
    struct qtable *old = NULL;
    int r = map_keep_clean(q);

    if (r == 0)
        r = qcow2_l2_load(q, off, &old);
    *t = r == 0 ? old : NULL;
    if (r < 0 || (old && q->l1[l1] & QCOW2_COPIED))
        return r;
    r = qcow2_drop_reserve(q, 1);
    if (r == 0)
        r = qcow2_alloc(q, 1, 1, &at, &n);
    if (r < 0)
        return r;
    /* The old table was used last, so the new one does not take its place. */
    r = map_l2_replace(q, l1, at, old, t);
    if (r < 0)
        qcow2_unalloc(q, at, 1);
    return r;
}

int qcow2_l2_set(struct qcow2 *q, struct qtable *t, uint64_t off, uint64_t entry)
{
    uint64_t i = map_l2_index(q, off), old = ld_be64(t->data + i * 8), first, n;

    if (!qcow2_entry_ok(q, old))
        return qcow2_corrupt(q, "an L2 entry is impossible", t->off + i * 8);
    n = qcow2_entry_clusters(q, old, &first);
    if (n)
        qcow2_drop(q, first, n);
    st_be64(t->data + i * 8, entry);
    qtable_mark(t, i * 8, i * 8 + 8);
    return 0;
}
