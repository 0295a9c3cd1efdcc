/* Bounded caches of L2 tables and refcount blocks (qcow2_int.h). Least recently used goes first; dirty ones
 * stay.
 *
 * Lookups run with the image's lock shared and change only the stamp; the rest needs it alone.
 */
#include <errno.h>
#include <stdlib.h>

#include "block/qcow2_int.h"

static unsigned qcache_hash(const struct qcache *c, uint64_t off)
{
    return (unsigned)((off / 512 * 0x9e3779b97f4a7c15ULL) >> 40) & c->mask;
}

int qcache_init(struct qcache *c, unsigned max, size_t size)
{
    unsigned heads = 16;

    while (heads < max)
        heads *= 2;
    c->max = max;
    c->mask = heads - 1;
    c->size = size;
    c->t = calloc(max, sizeof(*c->t));
    c->head = malloc(heads * sizeof(*c->head));
    if (!c->t || !c->head)
        return -ENOMEM;
    for (unsigned i = 0; i < heads; i++)
        c->head[i] = -1;
    return 0;
}

void qcache_fini(struct qcache *c)
{
    for (unsigned i = 0; c->t && i < c->count; i++)
        free(c->t[i].data);
    free(c->t);
    free(c->head);
}

static void qcache_touch(struct qcache *c, struct qtable *t)
{
    uint32_t now = atomic_fetch_add_explicit(&c->clock, 1, memory_order_relaxed);

    atomic_store_explicit(&t->used, now, memory_order_relaxed);
}

struct qtable *qcache_find(struct qcache *c, uint64_t off)
{
    for (int i = c->head[qcache_hash(c, off)]; i >= 0; i = c->t[i].next) {
        if (c->t[i].off == off) {
            qcache_touch(c, &c->t[i]);
            return &c->t[i];
        }
    }
    return NULL;
}

static void qcache_unlink(struct qcache *c, struct qtable *t)
{
    int *at = &c->head[qcache_hash(c, t->off)], me = (int)(t - c->t);

    while (*at >= 0 && *at != me)
        at = &c->t[*at].next;
    if (*at == me)
        *at = t->next;
}

static struct qtable *qcache_oldest(struct qcache *c)
{
    uint32_t now = atomic_load_explicit(&c->clock, memory_order_relaxed), age = 0;
    struct qtable *best = NULL;

    for (unsigned i = 0; i < c->count; i++) {
        uint32_t a = now - atomic_load_explicit(&c->t[i].used, memory_order_relaxed);

        if (!qtable_dirty(&c->t[i]) && !c->t[i].fresh && (!best || a > age)) {
            best = &c->t[i];
            age = a;
        }
    }
    return best;
}

struct qtable *qcache_add(struct qcache *c, uint64_t off)
{
    struct qtable *t;
    unsigned h;

    if (c->count < c->max) {
        t = &c->t[c->count];
        t->data = malloc(c->size);
        if (!t->data)
            return NULL;
        c->count++;
    } else {
        t = qcache_oldest(c);
        if (!t)
            return NULL;
        qcache_unlink(c, t);
    }
    t->off = off;
    t->fresh = false;
    t->dirty_lo = t->dirty_hi = 0;
    h = qcache_hash(c, off);
    t->next = c->head[h];
    c->head[h] = (int)(t - c->t);
    qcache_touch(c, t);
    return t;
}

void qcache_drop(struct qcache *c, struct qtable *t)
{
    qcache_unlink(c, t);
    t->off = UINT64_MAX; /* an offset that no table has; the place is the first to be used again */
    t->fresh = false;
    t->dirty_lo = t->dirty_hi = 0;
    atomic_store_explicit(&t->used, atomic_load(&c->clock) - UINT32_MAX / 2, memory_order_relaxed);
    t->next = c->head[qcache_hash(c, t->off)];
    c->head[qcache_hash(c, t->off)] = (int)(t - c->t);
}

void qtable_mark(struct qtable *t, size_t lo, size_t hi)
{
    lo = ALIGN_DOWN(lo, 512);
    hi = ALIGN_UP(hi, 512);
    if (!qtable_dirty(t)) {
        t->dirty_lo = (uint32_t)lo;
        t->dirty_hi = (uint32_t)hi;
        return;
    }
    if (lo < t->dirty_lo)
        t->dirty_lo = (uint32_t)lo;
    if (hi > t->dirty_hi)
        t->dirty_hi = (uint32_t)hi;
}

int qcow2_table_write(struct qcow2 *q, struct qtable *t, enum qmeta kind)
{
    int r;

    if (!qtable_dirty(t))
        return 0;
    if (qmap_get(&q->meta, t->off >> q->cbits) != kind)
        return qcow2_corrupt(q, "a table would be written over something else", t->off);
    r = imgfile_write(q->f, t->off + t->dirty_lo, t->data + t->dirty_lo, t->dirty_hi - t->dirty_lo);
    if (r == 0)
        t->dirty_lo = t->dirty_hi = 0;
    return r;
}
