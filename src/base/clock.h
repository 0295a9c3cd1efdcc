/* Time comes through this interface, so that a run can be recorded, replayed and tested.
 * Guest time stands still while the clock is stopped (machine paused). */
#ifndef VITRO_BASE_CLOCK_H
#define VITRO_BASE_CLOCK_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#define NSEC_PER_SEC 1000000000ULL
#define NSEC_PER_MSEC 1000000ULL

#define CLOCK_KHZ 1000000ULL /* of ticks, if nobody asks for another frequency: one a nanosecond */

struct clock {
    uint64_t (*source)(struct clock *c); /* raw: monotonic nanoseconds, or ticks */
    uint64_t (*wall)(struct clock *c);   /* nanoseconds since 1970-01-01 UTC */
    uint64_t offset;                     /* added to source (mod 2^64) while running */
    uint64_t frozen;                     /* value shown while stopped */
    bool stopped;
    bool tsc;                /* the source is the host's TSC: source, offset and frozen are ticks */
    uint64_t mark_raw, mark_ns, mark_host_ns; /* of one moment: the source, guest time, CLOCK_MONOTONIC_RAW; see clock_began_again() */
    uint64_t khz;            /* ticks; ns = ((ticks << shift) * mul) >> 32, */
    uint32_t mul;
    int8_t shift;            /* to the right if it is negative */
    uint64_t manual_ns;      /* manual clocks: the current time */
    uint64_t manual_wall_ns; /* manual clocks: wall time at manual_ns == 0 */
};

/* What the host's clock shows now, 0 if there is none: for what is about the host and not the guest. */
uint64_t clock_host_ns(clockid_t id);
double clock_host_seconds(clockid_t id);

/* The host's CLOCK_MONOTONIC and CLOCK_REALTIME; starts running at 0 ns. */
void clock_init_host(struct clock *c);

/* The same on the host's TSC, which runs at khz, on all CPUs alike: a tick of the host is one of ours. */
void clock_init_tsc(struct clock *c, uint64_t khz);

/* Of a clock that is not on the host's TSC: the frequency of ticks. Nobody else uses it. */
void clock_set_khz(struct clock *c, uint64_t khz);

/* A clock that moves only by clock_advance(); wall_ns is the wall time at its zero. For tests. */
void clock_init_manual(struct clock *c, uint64_t wall_ns);
void clock_advance(struct clock *c, uint64_t ns);

/* Guest nanoseconds since the machine was created; never goes back. Thread-safe while nobody
 * stops or starts the clock. */
uint64_t clock_ns(struct clock *c);

/* Guest time in ticks: what clock_ns() is made of, or made of that, by the sum that struct clock shows, which is also
 * what a guest is told (kvmclock): so they never drift apart, on whatever host. */
uint64_t clock_ticks(struct clock *c);

/* What makes ticks the host's TSC until the clock is next stopped or set; 0: nothing does. */
uint64_t clock_host_tsc(const struct clock *c);

/* The host's TSC, on which the clock lies and runs, shows less than it did: it began again while the host slept. Then clock_go_on(), with the vCPUs stopped,
 * has guest time go on from where it was, by CLOCK_MONOTONIC_RAW, which does not count sleep; then loop_kick(). */
bool clock_began_again(struct clock *c);
void clock_go_on(struct clock *c);

/* Factor and shift for a frequency that is not 0. */
void clock_scale(uint64_t khz, uint32_t *mul, int8_t *shift);

/* Nanoseconds since the epoch, UTC. */
uint64_t clock_wall_ns(struct clock *c);

/* Freeze and thaw guest time. The caller has stopped all vCPUs, holds the device lock, and calls
 * loop_kick() after clock_start(). Idempotent. */
void clock_stop(struct clock *c);
void clock_start(struct clock *c);
bool clock_stopped(const struct clock *c);

/* Make clock_ns() return ns from now on (after a restore), stopped or not; then loop_kick(). */
void clock_set_ns(struct clock *c, uint64_t ns);

/* floor(a * b / c) without overflow; c must not be 0; the result is truncated to 64 bits. */
static inline uint64_t muldiv64(uint64_t a, uint64_t b, uint64_t c)
{
    if (b <= UINT64_MAX / c) /* a division of 128 bits takes several times longer */
        return a / c * b + a % c * b / c;
    return (uint64_t)((unsigned __int128)a * b / c);
}

#endif
