/* The metadata service of the Firecracker API: a JSON object that clients put there (fc_metadata.c) and the guest asks for by HTTP at an address of its
 * network card (net/inner.h; mmds.c). Source: Firecracker's documentation of it (facts only).
 *
 * Threads: any; `lock` guards the contents and the tokens.
 */
#ifndef VITRO_API_FC_MMDS_H
#define VITRO_API_FC_MMDS_H

#include <jansson.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/rand.h"
#include "net/inner.h"

#define MMDS_SIZE     51200     /* bytes of the contents as JSON without spaces, unless mmds_limit() says something else */
#define MMDS_SIZE_MAX (1 << 20) /* what it may say: each of INNER_CONNS answers takes as much memory */
#define MMDS_TOKENS   1024  /* that are good at a time: the oldest goes first */
#define MMDS_TOKEN    64    /* characters of one */
#define MMDS_TTL_MAX  21600 /* seconds */

struct mmds_token {
    char text[MMDS_TOKEN];
    uint64_t end; /* host ns; 0: none */
};

struct mmds {
    pthread_mutex_t lock; /* a leaf */
    json_t *contents; /* NULL: none yet */
    uint32_t most;    /* bytes of the contents */
    bool v2;      /* only who has a token is told */
    bool imds;    /* text, whatever is asked for */
    struct mmds_token token[MMDS_TOKENS];
    unsigned next;
    struct rand_source rand;
    struct inner_server server; /* its answer() is mmds_answer() */
};

/* At 169.254.169.254, version 1. */
void mmds_init(struct mmds *m);
void mmds_fini(struct mmds *m);
/* The contents have at most so many bytes, 1 to MMDS_SIZE_MAX. Before the server is in use. */
void mmds_limit(struct mmds *m, uint32_t most);

/* Replace the contents, or merge into them (RFC 7396). 0; -ENOENT: there is nothing to merge into; -E2BIG: more than mmds_limit() said; -ENOMEM. */
int mmds_put(struct mmds *m, json_t *contents);
int mmds_patch(struct mmds *m, const json_t *patch);
json_t *mmds_get(struct mmds *m); /* the caller's */

/* inner_server.answer: a guest's request; now is the host's CLOCK_MONOTONIC. */
size_t mmds_answer(void *opaque, const char *request, size_t len, char *out);

#endif
