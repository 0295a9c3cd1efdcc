/* Where an image's metadata lies, so that nothing is written over it; and what happens when it contradicts
 * itself.
 *
 * Source: QEMU's docs/interop/qcow2.rst, "Snapshots". Lock: see qcow2_int.h.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/err.h"
#include "base/log.h"
#include "block/qcow2_int.h"

/* Open addressing; at most half full. An entry that is gone keeps its key with kind QMETA_NONE. */
static uint64_t qmap_slot(const struct qmap *m, uint64_t cluster)
{
    uint64_t i = (cluster * 0x9e3779b97f4a7c15ULL) >> 20;

    for (i &= m->mask; m->key[i] && m->key[i] != cluster + 1; i = (i + 1) & m->mask)
        ;
    return i;
}

int qmap_init(struct qmap *m, uint64_t expect)
{
    uint64_t slots = 64;

    while (slots < expect * 2 + 2)
        slots *= 2;
    m->key = calloc(slots, sizeof(*m->key));
    m->kind = calloc(slots, 1);
    m->mask = slots - 1;
    m->used = 0;
    return m->key && m->kind ? 0 : -ENOMEM;
}

void qmap_fini(struct qmap *m)
{
    free(m->key);
    free(m->kind);
    *m = (struct qmap){ .key = NULL };
}

enum qmeta qmap_get(const struct qmap *m, uint64_t cluster)
{
    return m->key ? (enum qmeta)m->kind[qmap_slot(m, cluster)] : QMETA_NONE;
}

/* Twice as large, without the entries that are gone. */
static int qmap_grow(struct qmap *m)
{
    struct qmap bigger = { .key = NULL };

    if (qmap_init(&bigger, m->mask + 1) < 0) {
        qmap_fini(&bigger);
        return -ENOMEM;
    }
    for (uint64_t i = 0; i <= m->mask; i++) {
        if (m->key[i] && m->kind[i])
            qmap_add(&bigger, m->key[i] - 1, (enum qmeta)m->kind[i]);
    }
    qmap_fini(m);
    *m = bigger;
    return 0;
}

int qmap_add(struct qmap *m, uint64_t cluster, enum qmeta kind)
{
    uint64_t i;

    if (m->used * 2 > m->mask && qmap_grow(m) < 0)
        return -ENOMEM;
    i = qmap_slot(m, cluster);
    if (m->key[i] && m->kind[i])
        return -EEXIST;
    m->used += m->key[i] == 0;
    m->key[i] = cluster + 1;
    m->kind[i] = (uint8_t)kind;
    return 0;
}

void qmap_del(struct qmap *m, uint64_t cluster)
{
    uint64_t i = qmap_slot(m, cluster);

    if (m->key[i])
        m->kind[i] = QMETA_NONE;
}

static int meta_put(struct qcow2 *q, uint64_t off, uint64_t len, enum qmeta kind, struct err *err)
{
    uint64_t last = (off + len - 1) >> q->cbits;

    if (off % q->csize || range_outside(off, len, q->end))
        return err_set(err, EINVAL, "image '%s': a table at %llu lies outside the file; it is corrupt",
                       q->name, (unsigned long long)off);
    for (uint64_t c = off >> q->cbits; c <= last; c++) {
        int r = qmap_add(&q->meta, c, kind);

        if (r == -EEXIST)
            return err_set(err, EINVAL,
                           "image '%s': two tables lie at %llu; it is corrupt and only fit for reading",
                           q->name, (unsigned long long)(c << q->cbits));
        if (r < 0)
            return err_set(err, ENOMEM, "image '%s': out of memory", q->name);
    }
    return 0;
}

static int meta_snapshots(struct qcow2 *q, struct err *err)
{
    uint64_t pos = 0;
    uint32_t index = 0;
    struct qsnap s;
    int r, p = 0;

    while ((r = qcow2_snap_next(q, &pos, &index, &s)) > 0 && p == 0) {
        if (s.l1_size)
            p = meta_put(q, s.l1_off, s.l1_size * 8ULL, QMETA_SNAP, err);
    }
    if (r < 0)
        return err_set(err, -r, "image '%s': its list of snapshots is damaged", q->name);
    q->snap_len = pos;
    return p == 0 && pos > 0 ? meta_put(q, q->snap_off, pos, QMETA_SNAP, err) : p;
}

int qcow2_meta_load(struct qcow2 *q, struct err *err)
{
    int r;

    if (qmap_init(&q->meta, 64) < 0)
        return err_set(err, ENOMEM, "image '%s': out of memory", q->name);
    r = meta_put(q, 0, 1, QMETA_HEADER, err);
    if (r == 0 && q->l1_size)
        r = meta_put(q, q->l1_off, q->l1_size * 8ULL, QMETA_L1, err);
    if (r == 0)
        r = meta_put(q, q->rt_off, (uint64_t)q->rt_clusters << q->cbits, QMETA_RT, err);
    for (uint32_t i = 0; r == 0 && i < q->rt_size; i++) {
        if (q->rt[i])
            r = meta_put(q, q->rt[i], q->csize, QMETA_RB, err);
    }
    for (uint32_t i = 0; r == 0 && i < q->l1_size; i++) {
        if (q->l1[i])
            r = meta_put(q, q->l1[i] & QCOW2_OFFSET, q->csize, QMETA_L2, err);
    }
    return r == 0 ? meta_snapshots(q, err) : r;
}

int qcow2_corrupt(struct qcow2 *q, const char *what, uint64_t where)
{
    uint8_t raw[8];

    if (q->block.ro || atomic_exchange(&q->block.failed, true))
        return -EIO;
    log_msg(LOG_ERROR,
            "image '%s' is corrupt: %s (at %llu); it takes no more writes: see 'vitro image check'", q->name,
            what, (unsigned long long)where);
    q->incompat |= QCOW2_INCOMPAT_CORRUPT;
    st_be64(raw, q->incompat);
    if (imgfile_write(q->f, 72, raw, sizeof(raw)) == 0)
        q->f->ops->flush(q->f);
    return -EIO;
}

bool qcow2_data_ok(const struct qcow2 *q, uint64_t off, uint64_t len)
{
    if (len == 0 || range_outside(off, len, q->end))
        return false;
    for (uint64_t c = off >> q->cbits; c <= (off + len - 1) >> q->cbits; c++) {
        if (qmap_get(&q->meta, c) != QMETA_NONE)
            return false;
    }
    return true;
}

int qcow2_snap_next(struct qcow2 *q, uint64_t *pos, uint32_t *index, struct qsnap *s)
{
    uint8_t h[40];
    uint64_t len;
    int r;

    if (*index >= q->snap_count)
        return 0;
    if (range_outside(q->snap_off + *pos, sizeof(h), q->end) || *pos > QCOW2_SNAP_BYTES)
        return -EINVAL;
    r = imgfile_read(q->f, q->snap_off + *pos, h, sizeof(h));
    if (r < 0)
        return r;
    s->l1_off = ld_be64(h);
    s->l1_size = ld_be32(h + 8);
    len = sizeof(h) + (uint64_t)ld_be32(h + 36) + ld_be16(h + 12) + ld_be16(h + 14);
    len = ALIGN_UP(len, 8);
    if (range_outside(q->snap_off + *pos, len, q->end) || s->l1_size > QCOW2_L1_MAX / 8 ||
        s->l1_off % q->csize || range_outside(s->l1_off, s->l1_size * 8ULL, q->end))
        return -EINVAL;
    *pos += len;
    (*index)++;
    return 1;
}
