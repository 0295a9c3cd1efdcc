/* Numbers for things that a guest holds: nodes and handles. See internal.h.
 *
 * A number is the slot in the low half, from 1 on, and the slot's generation in the high half; so the root, which
 * comes first, is FUSE_ROOT_ID, and a number that was given back finds nothing until its generation comes round
 * after 2^32 uses.
 * Locks: share->lock.
 */
#include <stdlib.h>

#include "share/internal.h"

static bool share_table_grow(struct share_table *t)
{
    uint32_t cap = t->cap ? 2 * t->cap : 64;
    struct share_slot *slot;

    if (cap > t->max)
        cap = t->max;
    if (cap <= t->used)
        return false;
    slot = realloc(t->slot, cap * sizeof(*slot));
    if (!slot)
        return false;
    t->slot = slot;
    t->cap = cap;
    return true;
}

uint64_t share_table_add(struct share_table *t, void *p)
{
    uint32_t n;

    if (t->free) {
        n = t->free - 1;
        t->free = t->slot[n].next_free;
    } else {
        if (t->used == t->cap && !share_table_grow(t))
            return 0;
        n = t->used++;
        t->slot[n].generation = 0;
    }
    t->slot[n].p = p;
    t->count++;
    return (uint64_t)t->slot[n].generation << 32 | (n + 1);
}

static struct share_slot *share_table_slot(const struct share_table *t, uint64_t number)
{
    uint32_t n = (uint32_t)number - 1;

    if (n >= t->used || !t->slot[n].p || t->slot[n].generation != number >> 32)
        return NULL;
    return &t->slot[n];
}

void *share_table_get(const struct share_table *t, uint64_t number)
{
    const struct share_slot *slot = share_table_slot(t, number);
    return slot ? slot->p : NULL;
}

void share_table_del(struct share_table *t, uint64_t number)
{
    struct share_slot *slot = share_table_slot(t, number);

    if (!slot)
        return;
    slot->p = NULL;
    slot->generation++;
    slot->next_free = t->free;
    t->free = (uint32_t)number;
    t->count--;
}

void *share_table_at(const struct share_table *t, uint32_t n)
{
    return n < t->used ? t->slot[n].p : NULL;
}

void share_table_fini(struct share_table *t)
{
    free(t->slot);
    *t = (struct share_table){ .slot = NULL };
}
