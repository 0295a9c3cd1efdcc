/* Contents from one image into another (image.h). One thread; no state. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/err.h"
#include "block/block.h"
#include "block/image.h"
#include "block/qcow2.h"

#define COPY_CHUNK (2ULL << 20)
#define COPY_SPAN  (256ULL << 20) /* of holes, that nothing is told about */

struct copier {
    struct block *src, *dst;
    const struct image_progress *progress;
    uint8_t *buf;
    uint64_t granule, total;
};

static void copy_tell(const struct copier *c, uint64_t done)
{
    if (c->progress && c->progress->tell)
        c->progress->tell(c->progress->opaque, done, c->total);
}

/* Does [off, off+*n) of b read as zeroes, as far as the tables say? Makes *n shorter where that ends. */
static int copy_hole(struct block *b, uint64_t off, uint64_t *n, bool *hole)
{
    enum qcow2_extent kind = QCOW2_HAS_DATA;
    int r;

    while (b && qcow2_is(b) && off < b->size) {
        *n = b->size - off < *n ? b->size - off : *n;
        r = qcow2_map(b, off, *n, &kind, n);
        if (r < 0 || kind != QCOW2_FROM_BACKING) {
            *hole = kind == QCOW2_READS_ZERO;
            return r;
        }
        b = qcow2_backing(b);
    }
    *hole = !b || off >= b->size;
    if (!*hole) /* a raw file below: not further than it reaches */
        *n = b->size - off < *n ? b->size - off : *n;
    return 0;
}

/* Write the parts of the buffer that are not zero. */
static int copy_put(struct copier *c, uint64_t off, uint64_t len)
{
    uint64_t at = 0, start;
    int r = 0;

    while (r == 0 && at < len) {
        for (start = at; at < len; at += c->granule) {
            uint64_t n = len - at < c->granule ? len - at : c->granule;

            if (mem_is_zero(c->buf + at, n))
                break;
        }
        at = at < len ? at : len;
        if (at > start)
            r = block_write(c->dst, off + start, c->buf + start, at - start);
        if (at < len)
            at += c->granule;
    }
    return r;
}

static int copy_all(struct copier *c)
{
    uint64_t off = 0, n;
    bool hole;
    int r = 0;

    for (; r == 0 && off < c->src->size; off += n) {
        n = c->src->size - off < COPY_SPAN ? c->src->size - off : COPY_SPAN;
        r = copy_hole(c->src, off, &n, &hole);
        if (r == 0 && !hole) {
            uint64_t stop = ALIGN_DOWN(off + COPY_CHUNK, COPY_CHUNK);

            n = stop - off < n ? stop - off : n;
            r = block_read(c->src, off, c->buf, n);
            if (r == 0)
                r = copy_put(c, off, n);
        }
        copy_tell(c, off);
    }
    return r;
}

int image_copy(struct block *src, struct block *dst, uint64_t granule, const struct image_progress *p,
               struct err *err)
{
    struct copier c = { .src = src, .dst = dst, .progress = p, .granule = granule, .total = src->size };
    int r;

    c.buf = malloc(COPY_CHUNK);
    r = c.buf ? copy_all(&c) : -ENOMEM;
    if (r == 0)
        r = block_flush(dst);
    free(c.buf);
    copy_tell(&c, c.total);
    return r < 0 ? err_set(err, -r, "the contents cannot be copied: %s", strerror(-r)) : 0;
}

/* One extent that top holds itself. */
static int commit_extent(struct copier *c, uint64_t off, uint64_t *n, enum qcow2_extent kind)
{
    int r;

    if (kind == QCOW2_FROM_BACKING)
        return 0;
    if (kind == QCOW2_READS_ZERO)
        return block_write_zeroes(c->dst, off, *n, true);
    *n = *n < COPY_CHUNK ? *n : COPY_CHUNK;
    r = block_read(c->src, off, c->buf, *n);
    return r == 0 ? block_write(c->dst, off, c->buf, *n) : r;
}

int image_commit(struct block *top, struct block *base, const struct image_progress *p, struct err *err)
{
    struct copier c = {
        .src = top, .dst = base, .progress = p, .total = top->size, .buf = malloc(COPY_CHUNK)
    };
    enum qcow2_extent kind;
    uint64_t off = 0, n;
    int r = c.buf ? 0 : -ENOMEM;

    for (; r == 0 && off < top->size; off += n) {
        n = top->size - off < COPY_SPAN ? top->size - off : COPY_SPAN;
        r = qcow2_map(top, off, n, &kind, &n);
        if (r == 0)
            r = commit_extent(&c, off, &n, kind);
        copy_tell(&c, off);
    }
    if (r == 0)
        r = block_flush(base);
    free(c.buf);
    copy_tell(&c, c.total);
    return r < 0 ? err_set(err, -r, "the contents cannot be committed: %s", strerror(-r)) : 0;
}
