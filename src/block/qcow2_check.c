/* Does every cluster of the file have as many references as its count says? And setting counts right.
 *
 * Source: QEMU's docs/interop/qcow2.rst. The counts are rebuilt in memory from the tables, snapshots
 * included: two bytes a cluster of the file. A crafted image may name the same tables over and over, so the
 * number of L2 tables that are read is bounded. One thread has the image.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "block/qcow2_int.h"

#define CHECK_CLUSTERS BIT(27) /* of the file; their counts take 256 MiB */
#define CHECK_TABLES   BIT(20)

struct checker {
    struct qcow2 *q;
    struct qcow2_check *c;
    uint16_t *refs;
    uint64_t n;      /* clusters of the file */
    uint64_t tables; /* L2 tables read so far */
    uint8_t *l2;
};

static void check_bad(struct checker *k, const char *what, uint64_t where)
{
    if (k->c->corruptions++ == 0)
        snprintf(k->c->first, sizeof(k->c->first), "%s, at %llu", what, (unsigned long long)where);
}

/* Count n references from cluster first on. */
static void check_ref(struct checker *k, uint64_t first, uint64_t n, const char *what)
{
    if (range_outside(first, n, k->n)) {
        check_bad(k, what, first << k->q->cbits);
        return;
    }
    for (uint64_t i = first; i < first + n; i++)
        k->refs[i] += k->refs[i] < UINT16_MAX;
}

static void check_bytes(struct checker *k, uint64_t off, uint64_t len, const char *what)
{
    if (off % k->q->csize)
        check_bad(k, what, off);
    else
        check_ref(k, off >> k->q->cbits, ALIGN_UP(len, k->q->csize) >> k->q->cbits, what);
}

/* All entries of the L2 table at off. */
static int check_l2(struct checker *k, uint64_t off, bool active)
{
    struct qcow2 *q = k->q;
    uint64_t first, n;
    int r;

    if (++k->tables > CHECK_TABLES)
        return -E2BIG;
    r = imgfile_read(q->f, off, k->l2, q->csize);
    for (uint64_t i = 0; r == 0 && i < BIT(q->l2_bits); i++) {
        uint64_t entry = ld_be64(k->l2 + i * 8);

        if (entry == 0)
            continue;
        if (!qcow2_entry_ok(q, entry)) {
            check_bad(k, "an L2 entry is impossible or points outside the file", off + i * 8);
            continue;
        }
        n = qcow2_entry_clusters(q, entry, &first);
        if (n && range_outside(first, n, k->n) && first < k->n)
            n = k->n - first; /* a compressed cluster's last sectors need not exist */
        if (n)
            check_ref(k, first, n, "a cluster lies outside the file");
        k->c->allocated += active && !(entry & QCOW2_ZERO);
    }
    return r;
}

static int check_l1(struct checker *k, uint64_t off, uint64_t size, bool active)
{
    struct qcow2 *q = k->q;
    uint8_t raw[4096];
    int r = 0;

    check_bytes(k, off, size * 8, "an L1 table lies outside the file");
    for (uint64_t i = 0; r == 0 && i < size; i++) {
        uint64_t left = (size - i) * 8, entry, at;

        if (i % 512 == 0)
            r = imgfile_read(q->f, off + i * 8, raw, left < sizeof(raw) ? left : sizeof(raw));
        entry = r == 0 ? ld_be64(raw + i % 512 * 8) : 0;
        at = entry & QCOW2_OFFSET;
        if (entry == 0)
            continue;
        if (entry & QCOW2_L1_RSVD || at == 0 || at % q->csize || range_outside(at, q->csize, q->end)) {
            check_bad(k, "an L1 entry is impossible or points outside the file", off + i * 8);
            continue;
        }
        check_ref(k, at >> q->cbits, 1, "an L2 table lies outside the file");
        r = check_l2(k, at, active);
    }
    return r;
}

static int check_snapshots(struct checker *k)
{
    uint64_t pos = 0;
    uint32_t index = 0;
    struct qsnap s;
    int r;

    while ((r = qcow2_snap_next(k->q, &pos, &index, &s)) > 0) {
        r = s.l1_size ? check_l1(k, s.l1_off, s.l1_size, false) : 0;
        if (r < 0)
            return r;
    }
    if (r == 0 && pos > 0)
        check_bytes(k, k->q->snap_off, pos, "the list of snapshots lies outside the file");
    return r;
}

static void check_refcount_tables(struct checker *k)
{
    struct qcow2 *q = k->q;

    check_bytes(k, q->rt_off, (uint64_t)q->rt_clusters << q->cbits,
                "the refcount table lies outside the file");
    for (uint32_t i = 0; i < q->rt_size; i++) {
        if (!q->rt[i])
            continue;
        check_bytes(k, q->rt[i], q->csize, "a refcount block lies outside the file");
        if (q->rt[i] % q->csize || range_outside(q->rt[i], q->csize, q->end))
            q->rt[i] = 0; /* the counts in it do not exist */
    }
}

/* Compare one cluster's count; with fix, set it. */
static int check_count(struct checker *k, uint64_t i, bool fix)
{
    uint64_t count;
    int r = qcow2_rc_get(k->q, i, &count);
    bool leak = count > k->refs[i];

    if (r < 0 || count == k->refs[i])
        return r;
    if (leak)
        k->c->leaks++;
    else
        check_bad(k, "a cluster has too few references counted", i << k->q->cbits);
    if (!fix || qcow2_rc_set(k->q, i, k->refs[i]) < 0)
        return 0;
    if (leak)
        k->c->fixed_leaks++;
    else
        k->c->fixed_corruptions++;
    return 0;
}

static int check_counts(struct checker *k, bool fix)
{
    int r = 0;

    for (uint64_t i = 0; r == 0 && i < k->n; i++)
        r = check_count(k, i, fix);
    return r;
}

/* COPIED says that the count is 1: in the active tables. */
static int check_copied(struct checker *k)
{
    struct qcow2 *q = k->q;
    int r = 0;

    for (uint32_t l1 = 0; r == 0 && l1 < q->l1_size; l1++) {
        uint64_t at = q->l1[l1] & QCOW2_OFFSET;

        if (!at || at % q->csize || range_outside(at, q->csize, q->end))
            continue;
        if (!!(q->l1[l1] & QCOW2_COPIED) != (k->refs[at >> q->cbits] == 1))
            check_bad(k, "an L1 entry is wrongly marked as the only one", q->l1_off + l1 * 8ULL);
        r = imgfile_read(q->f, at, k->l2, q->csize);
        for (uint64_t i = 0; r == 0 && i < BIT(q->l2_bits); i++) {
            uint64_t e = ld_be64(k->l2 + i * 8), host = e & QCOW2_OFFSET;

            if (!(e & QCOW2_COMPRESSED) && host && qcow2_entry_ok(q, e) &&
                !!(e & QCOW2_COPIED) != (k->refs[host >> q->cbits] == 1))
                check_bad(k, "an L2 entry is wrongly marked as the only one", at + i * 8);
        }
    }
    return r;
}

static int check_fixed(struct checker *k)
{
    struct qcow2 *q = k->q;
    int r = qcow2_commit(q);

    if (r < 0 || k->c->corruptions != k->c->fixed_corruptions)
        return r;
    q->incompat &= ~(QCOW2_INCOMPAT_DIRTY | QCOW2_INCOMPAT_CORRUPT);
    r = qcow2_header_write(q);
    return r == 0 ? qcow2_barrier(q) : r;
}

static int check_run(struct checker *k, bool fix)
{
    struct qcow2 *q = k->q;
    int r = q->block.ro ? 0 : qcow2_commit(q);

    if (r < 0)
        return r;
    check_ref(k, 0, 1, "the header lies outside the file");
    r = check_l1(k, q->l1_off, q->l1_size, true);
    if (r == 0)
        r = check_snapshots(k);
    if (r < 0)
        return r;
    check_refcount_tables(k);
    r = check_copied(k);
    if (r == 0)
        r = check_counts(k, fix);
    return r == 0 && fix ? check_fixed(k) : r;
}

int qcow2_check(struct block *b, bool fix, struct qcow2_check *c, struct err *err)
{
    struct qcow2 *q = qcow2_of(b);
    struct checker k = { .q = q, .c = c, .n = q->end >> q->cbits };
    int r;

    *c = (struct qcow2_check){ .clusters = k.n, .disk_clusters = ALIGN_UP(q->size, q->csize) >> q->cbits };
    if (k.n > CHECK_CLUSTERS)
        return err_set(err, EFBIG, "image '%s': has too many clusters to be checked", q->name);
    if (fix && b->ro)
        return err_set(err, EROFS, "image '%s': is open read-only, so it cannot be repaired", q->name);
    k.refs = calloc(k.n ? k.n : 1, sizeof(*k.refs));
    k.l2 = malloc(q->csize);
    pthread_rwlock_wrlock(&q->lock);
    r = k.refs && k.l2 ? check_run(&k, fix) : -ENOMEM;
    pthread_rwlock_unlock(&q->lock);
    free(k.refs);
    free(k.l2);
    if (r == -E2BIG)
        return err_set(err, EINVAL, "image '%s': has more tables than any real image; it is damaged",
                       q->name);
    return r < 0 ? err_set(err, -r, "image '%s': cannot be checked: %s", q->name, strerror(-r)) : 0;
}
