/* Guest time: a raw source plus an offset, frozen while the machine is paused.
 *
 * A guest's TSC is guest time in ticks. One of the two is the source's, the other is computed; which one makes no difference to a guest, but that
 * only ticks that are the host's can be read without us.
 *
 * Guest time is source + offset modulo 2^64; stopping keeps the value, starting chooses the
 * offset so that time goes on from there. Reading is lock-free from any thread. Stopping,
 * starting and setting are done by one thread with every vCPU stopped and the device lock held;
 * after starting or setting, loop_kick() tells the event loop to look at its deadlines again.
 */
#include "base/clock.h"

#include <string.h>
#include <time.h>

#define CLOCK_DOUBT 500000u /* a frequency is right to one part in this: guest time rather leaps by it than goes back */

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

/* In order with loads before it, as clock_gettime(2) reads it: no thread sees less than another one has shown it. */
static uint64_t clock_source_tsc(struct clock *c)
{
    __builtin_ia32_lfence();
    return __builtin_ia32_rdtsc();
}

void clock_scale(uint64_t khz, uint32_t *mul, int8_t *shift)
{
    unsigned __int128 m = ((unsigned __int128)1000000 << 64) / khz; /* 2^64 times nanoseconds a tick */
    int s = 32;
    /* m * 2^-s is the factor for a shift of s - 32: bring it to 32 bits, all of them used. */
    while (m >> s > UINT32_MAX)
        s++;
    while (s > 1 && m >> s < 1u << 31)
        s--;
    *mul = (uint32_t)(m >> s);
    *shift = (int8_t)(s - 32);
}

void clock_set_khz(struct clock *c, uint64_t khz)
{
    c->khz = khz;
    clock_scale(khz, &c->mul, &c->shift);
}

static uint64_t clock_to_ns(const struct clock *c, uint64_t ticks)
{
    ticks = c->shift < 0 ? ticks >> -c->shift : ticks << c->shift;
    return (uint64_t)((unsigned __int128)ticks * c->mul >> 32);
}

/* The first tick at ns, or later where a tick is longer than that. */
static uint64_t clock_to_ticks(const struct clock *c, uint64_t ns)
{
    if (c->khz == CLOCK_KHZ)
        return ns;
    unsigned __int128 ticks = (((unsigned __int128)ns << 32) + c->mul - 1) / c->mul;
    if (c->shift < 0)
        return (uint64_t)(ticks << -c->shift);
    return (uint64_t)((ticks + (1u << c->shift) - 1) >> c->shift);
}

static void clock_mark(struct clock *c)
{
    if (!c->tsc)
        return;
    c->mark_raw = c->source(c);
    c->mark_ns = clock_ns(c);
    c->mark_host_ns = clock_host_ns(CLOCK_MONOTONIC_RAW);
}

static void clock_init(struct clock *c, uint64_t (*source)(struct clock *c), uint64_t (*wall)(struct clock *c), uint64_t khz)
{
    memset(c, 0, sizeof(*c));
    c->source = source;
    c->wall = wall;
    clock_set_khz(c, khz);
}

void clock_init_host(struct clock *c)
{
    clock_init(c, clock_source_host, clock_wall_host, CLOCK_KHZ);
    clock_set_ns(c, 0);
}

void clock_init_tsc(struct clock *c, uint64_t khz)
{
    clock_init(c, clock_source_tsc, clock_wall_host, khz);
    c->tsc = true;
    clock_set_ns(c, 0);
}

void clock_init_manual(struct clock *c, uint64_t wall_ns)
{
    clock_init(c, clock_source_manual, clock_wall_manual, CLOCK_KHZ);
    c->manual_wall_ns = wall_ns;
}

void clock_advance(struct clock *c, uint64_t ns) { __atomic_fetch_add(&c->manual_ns, ns, __ATOMIC_ACQ_REL); }

bool clock_stopped(const struct clock *c) { return __atomic_load_n(&c->stopped, __ATOMIC_ACQUIRE); }

static uint64_t clock_raw(struct clock *c)
{
    if (clock_stopped(c))
        return __atomic_load_n(&c->frozen, __ATOMIC_RELAXED);
    return c->source(c) + __atomic_load_n(&c->offset, __ATOMIC_RELAXED);
}

uint64_t clock_ns(struct clock *c) { return c->tsc ? clock_to_ns(c, clock_raw(c)) : clock_raw(c); }

uint64_t clock_ticks(struct clock *c) { return c->tsc ? clock_raw(c) : clock_to_ticks(c, clock_raw(c)); }

uint64_t clock_host_tsc(const struct clock *c)
{
    return c->tsc && !clock_stopped(c) ? -__atomic_load_n(&c->offset, __ATOMIC_RELAXED) : 0;
}

uint64_t clock_wall_ns(struct clock *c) { return c->wall(c); }

void clock_stop(struct clock *c)
{
    if (clock_stopped(c))
        return;
    __atomic_store_n(&c->frozen, clock_raw(c), __ATOMIC_RELAXED);
    __atomic_store_n(&c->stopped, true, __ATOMIC_RELEASE);
}

void clock_start(struct clock *c)
{
    if (!clock_stopped(c))
        return;
    __atomic_store_n(&c->offset, c->frozen - c->source(c), __ATOMIC_RELAXED);
    __atomic_store_n(&c->stopped, false, __ATOMIC_RELEASE);
    clock_mark(c);
}

void clock_set_ns(struct clock *c, uint64_t ns)
{
    uint64_t raw = c->tsc ? clock_to_ticks(c, ns) : ns;

    __atomic_store_n(&c->frozen, raw, __ATOMIC_RELAXED);
    __atomic_store_n(&c->offset, raw - c->source(c), __ATOMIC_RELAXED);
    clock_mark(c);
}

bool clock_began_again(struct clock *c) { return c->tsc && !clock_stopped(c) && c->source(c) < c->mark_raw; }

void clock_go_on(struct clock *c)
{
    uint64_t past = clock_host_ns(CLOCK_MONOTONIC_RAW) - c->mark_host_ns;

    clock_set_ns(c, c->mark_ns + past + past / CLOCK_DOUBT);
}
