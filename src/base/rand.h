/* Randomness comes through this interface, so that a run can be repeated from a seed. */
#ifndef VITRO_BASE_RAND_H
#define VITRO_BASE_RAND_H

#include <stddef.h>
#include <stdint.h>

struct rand_source {
    /* Fill len bytes: 0 or -errno. Thread-safe. */
    int (*fill)(struct rand_source *r, void *buf, size_t len);
    uint64_t state; /* seeded sources: all of their state (save it to go on from here) */
};

/* The host kernel's generator, getrandom(2): fit for keys. */
void rand_init_host(struct rand_source *r);

/* A repeatable sequence from a seed (SplitMix64): for tests and replay, never for keys. With several threads
 * the sequence is fixed, who gets which part of it is not. */
void rand_init_seeded(struct rand_source *r, uint64_t seed);

/* 0 or -errno (then buf is undefined). Any thread. */
int rand_bytes(struct rand_source *r, void *buf, size_t len);

/* 64 random bits into *v: 0 or -errno. */
int rand_u64(struct rand_source *r, uint64_t *v);

/* A number in [0, n), n not 0, from a seeded source; for tests and fuzzing (bias below n / 2^64). */
uint64_t rand_below(struct rand_source *r, uint64_t n);

#endif
