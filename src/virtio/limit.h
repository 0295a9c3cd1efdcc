/* Token buckets: how many bytes and how many requests a device may do in a time.
 *
 * A bucket holds at most `size`, fills in `ms` milliseconds of guest time, and begins full with `burst` in addition, which does not come
 * again. A request passes if there is anything in both buckets; what it takes beyond that is owed, so that one which is larger than the
 * bucket passes too, and on average no more passes than is said. A reset of the device or the machine changes nothing of it: a guest gains
 * nothing by one. All of it is state, the sizes too, since they can be changed while the machine runs.
 * Lock: the device lock of whoever has it.
 */
#ifndef VITRO_VIRTIO_LIMIT_H
#define VITRO_VIRTIO_LIMIT_H

#include <stdbool.h>
#include <stdint.h>

#include "state/state.h"

#define LIMIT_SIZE_MAX (1ULL << 50)
#define LIMIT_MS_MAX   (7U * 24 * 3600 * 1000)

struct limit_rate {
    uint64_t size, burst; /* size 0: no limit */
    uint32_t ms;          /* not 0 unless size is */
};

struct timer;

struct limit_rates {
    struct limit_rate bytes, ops;
};

struct limit_bucket {
    struct limit_rate rate;
    int64_t left;   /* what is owed is less than 0 */
    uint64_t burst; /* what is left of it */
    uint64_t since; /* guest time up to which it was filled */
};

struct limit {
    struct limit_bucket bytes, ops;
};

/* Is that a rate that may be set? */
bool limit_rate_ok(const struct limit_rate *r);
/* Other rates, whose buckets begin now; NULL: that one stays as it is. */
void limit_set(struct limit *l, const struct limit_rate *bytes, const struct limit_rate *ops, uint64_t now);
static inline bool limit_is_on(const struct limit *l) { return l->bytes.rate.size || l->ops.rate.size; }
/* 0: a request may pass; else how many nanoseconds to wait at least (a millisecond or more: who waits so does not spin). */
uint64_t limit_wait(struct limit *l, uint64_t now);
/* Nothing more may pass for now: *again is armed for when something may, if it is not armed for earlier. */
bool limit_is_over(struct limit *l, struct timer *again);
/* One that passed: so many bytes, and one request. */
void limit_take(struct limit *l, uint64_t bytes);

extern const struct state_desc limit_state;

#endif
