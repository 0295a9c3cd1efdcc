/* Token buckets, see limit.h. */
#include "virtio/limit.h"

#include <errno.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/loop.h"

bool limit_rate_ok(const struct limit_rate *r)
{
    return r->size <= LIMIT_SIZE_MAX && r->burst <= LIMIT_SIZE_MAX && r->ms <= LIMIT_MS_MAX && (!r->size || r->ms);
}

static void bucket_set(struct limit_bucket *b, const struct limit_rate *rate, uint64_t now)
{
    if (rate)
        *b = (struct limit_bucket){ .rate = *rate, .left = (int64_t)rate->size, .burst = rate->burst, .since = now };
}

void limit_set(struct limit *l, const struct limit_rate *bytes, const struct limit_rate *ops, uint64_t now)
{
    bucket_set(&l->bytes, bytes, now);
    bucket_set(&l->ops, ops, now);
}

static uint64_t bucket_ns(const struct limit_bucket *b) { return b->rate.ms * NSEC_PER_MSEC; }

/* What is missing to a full one, debts included: at most 2^51. */
static uint64_t bucket_missing(const struct limit_bucket *b) { return b->rate.size - (uint64_t)b->left; }

/* Only as much time counts as whole tokens have come for, or a bucket that is looked at often would never fill. */
static void bucket_fill(struct limit_bucket *b, uint64_t now)
{
    unsigned __int128 come;

    if (now < b->since)
        b->since = now; /* guest time never goes back, but a saved state may say anything */
    come = (unsigned __int128)(now - b->since) * b->rate.size / bucket_ns(b);
    if (come >= bucket_missing(b)) {
        b->left = (int64_t)b->rate.size;
        b->since = now;
    } else {
        b->left += (int64_t)come;
        b->since += (uint64_t)(come * bucket_ns(b) / b->rate.size);
    }
}

static uint64_t bucket_wait(struct limit_bucket *b, uint64_t now)
{
    unsigned __int128 ns;

    if (!b->rate.size || b->burst)
        return 0;
    bucket_fill(b, now);
    if (b->left > 0)
        return 0;
    ns = ((unsigned __int128)(uint64_t)(1 - b->left) * bucket_ns(b) + b->rate.size - 1) / b->rate.size - (now - b->since);
    if (ns > LIMIT_MS_MAX * NSEC_PER_MSEC)
        return LIMIT_MS_MAX * NSEC_PER_MSEC;
    return ns < NSEC_PER_MSEC ? NSEC_PER_MSEC : (uint64_t)ns;
}

uint64_t limit_wait(struct limit *l, uint64_t now)
{
    uint64_t bytes = bucket_wait(&l->bytes, now), ops = bucket_wait(&l->ops, now);

    return bytes > ops ? bytes : ops;
}

bool limit_is_over(struct limit *l, struct timer *again)
{
    uint64_t now, wait;

    if (!limit_is_on(l))
        return false;
    now = timer_now(again);
    wait = limit_wait(l, now);
    if (wait && (!timer_armed(again) || again->deadline > now + wait))
        timer_arm(again, now + wait);
    return wait;
}

/* The burst goes first. A debt stays within what the state may hold, whatever is asked. */
static void bucket_take(struct limit_bucket *b, uint64_t n)
{
    uint64_t first = n < b->burst ? n : b->burst, room = (uint64_t)(b->left + (int64_t)LIMIT_SIZE_MAX);

    if (!b->rate.size)
        return;
    b->burst -= first;
    n -= first;
    b->left -= (int64_t)(n < room ? n : room);
}

void limit_take(struct limit *l, uint64_t bytes)
{
    bucket_take(&l->bytes, bytes);
    bucket_take(&l->ops, 1);
}

/* ---- state ---- */

static int bucket_check(void *obj, struct err *err)
{
    const struct limit_bucket *b = obj;

    if (limit_rate_ok(&b->rate) && b->left >= -(int64_t)LIMIT_SIZE_MAX && b->left <= (int64_t)b->rate.size && b->burst <= b->rate.burst)
        return 0;
    return err_set(err, EINVAL, "rate limit: impossible contents of a bucket");
}

static const struct state_field bucket_fields[] = {
    { "size", STATE_U64, offsetof(struct limit_bucket, rate.size), 1, 0, NULL, 0 },
    { "burst", STATE_U64, offsetof(struct limit_bucket, rate.burst), 1, 0, NULL, 0 },
    { "ms", STATE_U32, offsetof(struct limit_bucket, rate.ms), 1, 0, NULL, 0 },
    STATE_F64(struct limit_bucket, left),
    { "burst_left", STATE_U64, offsetof(struct limit_bucket, burst), 1, 0, NULL, 0 },
    STATE_F64(struct limit_bucket, since),
    STATE_END,
};
static const struct state_desc bucket_state = {
    .name = "limit-bucket", .version = 1, .size = sizeof(struct limit_bucket), .fields = bucket_fields, .check = bucket_check
};

static const struct state_field limit_fields[] = {
    STATE_FSTRUCT(struct limit, bytes, struct limit_bucket, bucket_state),
    STATE_FSTRUCT(struct limit, ops, struct limit_bucket, bucket_state),
    STATE_END,
};
const struct state_desc limit_state = { .name = "limit", .version = 1, .size = sizeof(struct limit), .fields = limit_fields };
