/* Guest time: a raw source plus an offset, frozen while the machine is paused.
 *
 * Guest time is source + offset modulo 2^64; stopping keeps the value, starting chooses the
 * offset so that time goes on from there. Reading is lock-free from any thread. Stopping,
 * starting and setting are done by one thread with every vCPU stopped and the device lock held;
 * after starting or setting, loop_kick() tells the event loop to look at its deadlines again.
 */
#include "base/clock.h"

#include <string.h>
#include <time.h>

uint64_t clock_host_ns(clockid_t id)
{
    struct timespec ts = { 0 };

    clock_gettime(id, &ts);
    return (uint64_t)ts.tv_sec * NSEC_PER_SEC + (uint64_t)ts.tv_nsec;
}

double clock_host_seconds(clockid_t id) { return (double)clock_host_ns(id) / 1e9; }

static uint64_t clock_source_host(struct clock *c) { return clock_host_ns(CLOCK_MONOTONIC); }

static uint64_t clock_wall_host(struct clock *c) { return clock_host_ns(CLOCK_REALTIME); }

static uint64_t clock_source_manual(struct clock *c)
{
    return __atomic_load_n(&c->manual_ns, __ATOMIC_ACQUIRE);
}

static uint64_t clock_wall_manual(struct clock *c) { return c->manual_wall_ns + clock_source_manual(c); }

void clock_init_host(struct clock *c)
{
    memset(c, 0, sizeof(*c));
    c->source = clock_source_host;
    c->wall = clock_wall_host;
    clock_set_ns(c, 0);
}

void clock_init_manual(struct clock *c, uint64_t wall_ns)
{
    memset(c, 0, sizeof(*c));
    c->source = clock_source_manual;
    c->wall = clock_wall_manual;
    c->manual_wall_ns = wall_ns;
}

void clock_advance(struct clock *c, uint64_t ns) { __atomic_fetch_add(&c->manual_ns, ns, __ATOMIC_ACQ_REL); }

bool clock_stopped(const struct clock *c) { return __atomic_load_n(&c->stopped, __ATOMIC_ACQUIRE); }

uint64_t clock_ns(struct clock *c)
{
    if (clock_stopped(c))
        return __atomic_load_n(&c->frozen, __ATOMIC_RELAXED);
    return c->source(c) + __atomic_load_n(&c->offset, __ATOMIC_RELAXED);
}

uint64_t clock_wall_ns(struct clock *c) { return c->wall(c); }

void clock_stop(struct clock *c)
{
    if (clock_stopped(c))
        return;
    __atomic_store_n(&c->frozen, clock_ns(c), __ATOMIC_RELAXED);
    __atomic_store_n(&c->stopped, true, __ATOMIC_RELEASE);
}

void clock_start(struct clock *c)
{
    if (!clock_stopped(c))
        return;
    __atomic_store_n(&c->offset, c->frozen - c->source(c), __ATOMIC_RELAXED);
    __atomic_store_n(&c->stopped, false, __ATOMIC_RELEASE);
}

void clock_set_ns(struct clock *c, uint64_t ns)
{
    __atomic_store_n(&c->frozen, ns, __ATOMIC_RELAXED);
    __atomic_store_n(&c->offset, ns - c->source(c), __ATOMIC_RELAXED);
}
