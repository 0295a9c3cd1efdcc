/* Timers on guest time: a binary heap by deadline inside struct loop.
 *
 * Every call needs the device lock. An entry knows its place (slot), so cancelling and re-arming
 * are O(log n). Timers are embedded in devices, so their number is fixed by the machine's
 * configuration and never by the guest.
 */
#include "base/loop.h"

#include <errno.h>
#include <stdlib.h>

#include "base/log.h"
#include "base/timer_heap.h"

static void heap_put(struct loop *l, size_t i, struct timer *t)
{
    l->heap[i] = t;
    t->slot = i + 1;
}

/* Move t, which belongs at position i or above, to its place. */
static void heap_up(struct loop *l, size_t i, struct timer *t)
{
    while (i > 0) {
        size_t parent = (i - 1) / 2;

        if (l->heap[parent]->deadline <= t->deadline)
            break;
        heap_put(l, i, l->heap[parent]);
        i = parent;
    }
    heap_put(l, i, t);
}

/* Move t, which belongs at position i or below, to its place. */
static void heap_down(struct loop *l, size_t i, struct timer *t)
{
    for (;;) {
        size_t child = 2 * i + 1;

        if (child >= l->heap_len)
            break;
        if (child + 1 < l->heap_len && l->heap[child + 1]->deadline < l->heap[child]->deadline)
            child++;
        if (t->deadline <= l->heap[child]->deadline)
            break;
        heap_put(l, i, l->heap[child]);
        i = child;
    }
    heap_put(l, i, t);
}

static void heap_fix(struct loop *l, size_t i, struct timer *t)
{
    if (i > 0 && t->deadline < l->heap[(i - 1) / 2]->deadline)
        heap_up(l, i, t);
    else
        heap_down(l, i, t);
}

static void heap_remove(struct loop *l, struct timer *t)
{
    size_t i = t->slot - 1;
    struct timer *last = l->heap[--l->heap_len];

    t->slot = 0;
    if (last != t)
        heap_fix(l, i, last);
}

int timer_heap_reserve(struct loop *l, size_t cap)
{
    struct timer **heap;

    if (cap <= l->heap_cap)
        return 0;
    heap = realloc(l->heap, cap * sizeof(*heap));
    if (!heap)
        return -ENOMEM;
    l->heap = heap;
    l->heap_cap = cap;
    return 0;
}

struct timer *timer_heap_pop(struct loop *l, uint64_t now)
{
    struct timer *t;

    if (l->heap_len == 0 || l->heap[0]->deadline > now)
        return NULL;
    t = l->heap[0];
    heap_remove(l, t);
    return t;
}

void timer_init(struct timer *t, struct loop *l, void (*fn)(void *opaque), void *opaque)
{
    *t = (struct timer){ .loop = l, .fn = fn, .opaque = opaque };
}

void timer_arm(struct timer *t, uint64_t deadline_ns)
{
    struct loop *l = t->loop;

    if (!timer_armed(t) && l->heap_len == l->heap_cap && timer_heap_reserve(l, 2 * l->heap_cap + 1) < 0) {
        log_msg(LOG_ERROR, "out of memory: a guest timer was lost");
        return;
    }
    t->deadline = deadline_ns;
    if (timer_armed(t))
        heap_fix(l, t->slot - 1, t);
    else
        heap_up(l, l->heap_len++, t);
    if (deadline_ns < l->armed_until) { /* the loop's thread sleeps past this deadline */
        l->armed_until = l->soon = deadline_ns;
        loop_kick(l);
    }
}

void timer_cancel(struct timer *t)
{
    if (timer_armed(t))
        heap_remove(t->loop, t);
}

uint64_t timer_now(const struct timer *t) { return clock_ns(t->loop->clock); }
