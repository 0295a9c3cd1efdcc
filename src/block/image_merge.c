/* Several overlays, one over another, become one (image.h). One thread; no state. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "block/block.h"
#include "block/image.h"
#include "block/qcow2.h"

#define MERGE_CHUNK (2ULL << 20)
#define MERGE_SPAN  (256ULL << 20) /* of what no layer holds */

struct merger {
    struct block *layer[IMAGE_CHAIN_MAX], *dst; /* the topmost layer first */
    unsigned n;
    uint8_t *buf;
};

static void merge_close(struct merger *m)
{
    while (m->n > 0)
        block_close(m->layer[--m->n]);
    block_close(m->dst);
    free(m->buf);
}

/* Layers read as what they hold themselves alone. They must be alike, or what one holds would be parts of another's clusters. */
static int merge_open(struct merger *m, const char *const *path, unsigned n, struct err *err)
{
    struct image_opts o = { .format = IMAGE_QCOW2, .ro = true, .unlocked = true, .no_backing = true };
    int r = 0;

    for (unsigned i = 0; r == 0 && i < n; i++) {
        r = image_open(&m->layer[i], path[i], &o, err);
        m->n += r == 0;
        if (r == 0 && (qcow2_info_of(m->layer[i])->cluster_bits != QCOW2_CLUSTER_BITS || m->layer[i]->size != m->layer[0]->size))
            r = err_set(err, EINVAL, "image '%s': is not of the size, or of the clusters, that overlays of this disk have", path[i]);
    }
    return r;
}

/* What is in the way of zeroes must be known to be there, but is not read: whole clusters are written. */
static int merge_begin(struct merger *m, struct image_draft *d, const char *below, struct err *err)
{
    const struct qcow2_info *low = qcow2_info_of(m->layer[m->n - 1]);
    struct image_new n = { .format = IMAGE_QCOW2, .size = m->layer[0]->size, .cluster_bits = QCOW2_CLUSTER_BITS, .backing = below,
                           .backing_format = image_format_named(low->backing_format) };
    struct image_opts o = { .format = IMAGE_QCOW2, .no_backing = true };
    struct block *absent;
    int r;

    if (n.backing_format == IMAGE_FORMAT_NONE)
        return err_set(err, EINVAL, "an overlay over '%s' does not say of which format that is", below);
    r = image_make(d, &n, err);
    if (r == 0)
        r = image_open(&m->dst, d->open, &o, err);
    if (r == 0 && (!(m->buf = malloc(MERGE_CHUNK)) || block_absent_open(&absent, n.size, true) < 0))
        r = err_set(err, ENOMEM, "out of memory");
    if (r == 0)
        qcow2_set_backing(m->dst, absent);
    return r;
}

/* The first layer that holds what is at off, and how: for *n bytes. NULL: none of them. */
static int merge_find(const struct merger *m, uint64_t off, uint64_t *n, struct block **from, enum qcow2_extent *kind)
{
    int r = 0;

    *from = NULL;
    for (unsigned i = 0; r == 0 && !*from && i < m->n; i++) {
        r = qcow2_map(m->layer[i], off, *n, kind, n);
        if (r == 0 && *kind != QCOW2_FROM_BACKING)
            *from = m->layer[i];
    }
    return r;
}

static int merge_extent(struct merger *m, uint64_t off, uint64_t *n)
{
    struct block *from;
    enum qcow2_extent kind;
    int r = merge_find(m, off, n, &from, &kind);

    if (r < 0 || !from)
        return r;
    if (kind == QCOW2_READS_ZERO)
        return block_write_zeroes(m->dst, off, *n, true);
    *n = *n < MERGE_CHUNK ? *n : MERGE_CHUNK;
    r = block_read(from, off, m->buf, *n);
    return r == 0 ? block_write(m->dst, off, m->buf, *n) : r;
}

static int merge_all(struct merger *m, struct err *err)
{
    uint64_t size = m->dst->size, n;
    int r = 0;

    for (uint64_t off = 0; r == 0 && off < size; off += n) {
        n = size - off < MERGE_SPAN ? size - off : MERGE_SPAN;
        r = merge_extent(m, off, &n);
    }
    if (r == 0)
        r = block_flush(m->dst);
    return r < 0 ? err_set(err, -r, "overlays cannot be merged: %s", strerror(-r)) : 0;
}

int image_merge(struct image_draft *d, const char *const *layer, unsigned n, const char *below, struct err *err)
{
    struct merger m = { .n = 0 };
    int r = n < 1 || n > IMAGE_CHAIN_MAX ? err_set(err, EINVAL, "%u overlays cannot be merged", n) : merge_open(&m, layer, n, err);

    if (r == 0)
        r = merge_begin(&m, d, below, err);
    if (r == 0)
        r = merge_all(&m, err);
    merge_close(&m);
    return r;
}
