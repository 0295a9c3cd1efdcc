/* Between timer.c and loop.c only: the timer heap as the event loop sees it. Device lock held. */
#ifndef VITRO_BASE_TIMER_HEAP_H
#define VITRO_BASE_TIMER_HEAP_H

#include "base/loop.h"

/* Make room for cap armed timers. 0 or -ENOMEM. */
int timer_heap_reserve(struct loop *l, size_t cap);

/* Take the earliest timer off the heap if its deadline is not after now, else NULL. */
struct timer *timer_heap_pop(struct loop *l, uint64_t now);

#endif
