/* Numbers for things that a guest holds: nodes and handles. See internal.h.
 *
 * A number is the slot in the low half, from 1 on, and the slot's generation in the high half; so the root, which
 * comes first, is FUSE_ROOT_ID, and a number that was given back finds nothing until its generation comes round
 * after 2^32 uses.
 * Locks: share->lock.
 */
#include <errno.h>
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

int share_table_widen(struct share_table *t, uint32_t slots, uint32_t generation)
{
    struct share_slot *slot;

    if (slots > t->max)
        return -ENFILE;
    if (slots > t->cap) {
        slot = realloc(t->slot, slots * sizeof(*slot));
        if (!slot)
            return -ENOMEM;
        t->slot = slot;
        t->cap = slots;
    }
    for (; t->used < slots; t->used++)
        t->slot[t->used] = (struct share_slot){ .generation = generation };
    return 0;
}

bool share_table_put(struct share_table *t, uint64_t number, void *p)
{
    uint32_t n = (uint32_t)number - 1;

    if (n >= t->used || t->slot[n].p)
        return false;
    t->slot[n].p = p;
    t->slot[n].generation = (uint32_t)(number >> 32);
    t->count++;
    return true;
}

/* The lowest number is given away first. */
void share_table_link(struct share_table *t)
{
    t->free = 0;
    for (uint32_t n = t->used; n > 0; n--) {
        if (t->slot[n - 1].p)
            continue;
        t->slot[n - 1].next_free = t->free;
        t->free = n;
    }
}

uint32_t share_table_generation(const struct share_table *t)
{
    uint32_t highest = 0;

    for (uint32_t n = 0; n < t->used; n++) {
        uint32_t next = t->slot[n].generation + (t->slot[n].p != NULL);

        if (next > highest)
            highest = next;
    }
    return highest;
}

void share_table_fini(struct share_table *t)
{
    free(t->slot);
    *t = (struct share_table){ .slot = NULL };
}
