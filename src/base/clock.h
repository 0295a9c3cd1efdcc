/* Time comes through this interface, so that a run can be recorded, replayed and tested.
 * Guest time stands still while the clock is stopped (machine paused). */
#ifndef VITRO_BASE_CLOCK_H
#define VITRO_BASE_CLOCK_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#define NSEC_PER_SEC 1000000000ULL
#define NSEC_PER_MSEC 1000000ULL

struct clock {
    uint64_t (*source)(struct clock *c); /* raw monotonic nanoseconds */
    uint64_t (*wall)(struct clock *c);   /* nanoseconds since 1970-01-01 UTC */
    uint64_t offset;                     /* added to source (mod 2^64) while running */
    uint64_t frozen;                     /* value shown while stopped */
    bool stopped;
    uint64_t manual_ns;      /* manual clocks: the current time */
    uint64_t manual_wall_ns; /* manual clocks: wall time at manual_ns == 0 */
};

/* What the host's clock shows now, 0 if there is none: for what is about the host and not the guest. */
uint64_t clock_host_ns(clockid_t id);
double clock_host_seconds(clockid_t id);

/* The host's CLOCK_MONOTONIC and CLOCK_REALTIME; starts running at 0 ns. */
void clock_init_host(struct clock *c);

/* A clock that moves only by clock_advance(); wall_ns is the wall time at its zero. For tests. */
void clock_init_manual(struct clock *c, uint64_t wall_ns);
void clock_advance(struct clock *c, uint64_t ns);

/* Guest nanoseconds since the machine was created; never goes back. Thread-safe while nobody
 * stops or starts the clock. */
uint64_t clock_ns(struct clock *c);

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
