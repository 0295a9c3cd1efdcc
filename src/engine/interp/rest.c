/* Idle vCPUs sleep here, and those that have been idle for long give back what they have decoded and translated: an idle machine's own memory
 * is mostly that.
 *
 * It has to be made anew when the guest goes on, so the longer that takes the longer a vCPU must have been idle: decoding and translating
 * takes some 15 ms for each MiB of blocks, REST_MIB is more than a hundred times that. Idle is who uses less than REST_BUSY of CPU time between
 * two looks, since no guest sleeps for long. What an idle guest needs for its waking up is seen after the first time, and is not given back again.
 *
 * Thread: the vCPU's. */
#include "base/clock.h"
#include "engine/interp/interp.h"

#define REST_LEAST (3 * NSEC_PER_SEC)
#define REST_MIB   (2 * NSEC_PER_SEC)
#define REST_AGAIN (60 * NSEC_PER_SEC) /* not more often, whatever the guest does */
#define REST_LOOK  NSEC_PER_SEC        /* so often it is looked at, or when the vCPU halts next */
#define REST_BUSY  (NSEC_PER_SEC / 50)
#define REST_SMALL (512UL << 10)       /* bytes of arena that are not worth it */

static uint64_t rest_later(uint64_t a, uint64_t b) { return a > b ? a : b; }

static uint64_t rest_due(const struct interp *it)
{
    uint64_t due = it->rest.idle + REST_LEAST + REST_MIB * (it->arena_used >> 10) / 1024;
    return it->rest.last && !it->rest.settles ? rest_later(due, it->rest.last + REST_AGAIN) : due;
}

/* How much has this thread run since it was last looked at? */
static void rest_look(struct interp *it, uint64_t now)
{
    uint64_t used = clock_host_ns(CLOCK_THREAD_CPUTIME_ID);
    if (used - it->rest.used > REST_BUSY) {
        it->rest.idle = now;
        it->rest.settles = false;
        it->rest.needs = 0;
    }
    it->rest.looked = now;
    it->rest.used = used;
}

static bool rest_worth(const struct interp *it) { return it->arena_used > REST_SMALL && it->arena_used / 2 > it->rest.needs; }

/* ns until what there is may go; 0: there is nothing worth it. */
static uint64_t rest_left(struct interp *it)
{
    uint64_t now = clock_host_ns(CLOCK_MONOTONIC);
    if (now - it->rest.looked >= REST_LOOK)
        rest_look(it, now);
    if (!rest_worth(it))
        return 0;
    if (now >= rest_due(it))
        rest_look(it, now);
    if (now < rest_due(it))
        return rest_due(it) - now;
    if (!it->rest.settles)
        return 1;
    it->rest.settles = false;
    it->rest.needs = it->arena_used;
    return 0;
}

void rest_sleep(struct interp *it)
{
    it->vcpu->stats.halts++;
    if (vcpu_wait(it->vcpu, rest_left(it)) || it->rest.settles)
        return;
    cache_rest(it);
    it->rest.idle = it->rest.looked = it->rest.last = clock_host_ns(CLOCK_MONOTONIC);
    it->rest.used = clock_host_ns(CLOCK_THREAD_CPUTIME_ID);
    it->rest.settles = true;
    it->rest.needs = 0;
}
