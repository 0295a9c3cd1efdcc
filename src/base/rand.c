/* Randomness: the host's getrandom(2), or a seeded SplitMix64 (Steele, Lea, Flood: "Fast splittable
 * pseudorandom number generators", OOPSLA 2014). The seeded state is one counter that is advanced
 * atomically, so any thread may draw without a lock.
 */
#include "base/rand.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>

static int rand_fill_host(struct rand_source *r, void *buf, size_t len)
{
    uint8_t *p = buf;

    while (len > 0) {
        ssize_t n = getrandom(p, len, 0);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        p += n;
        len -= (size_t)n;
    }
    return 0;
}

static uint64_t rand_next_seeded(struct rand_source *r)
{
    uint64_t z = __atomic_add_fetch(&r->state, 0x9e3779b97f4a7c15ULL, __ATOMIC_RELAXED);

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
}

static int rand_fill_seeded(struct rand_source *r, void *buf, size_t len)
{
    uint8_t *p = buf;

    while (len > 0) {
        uint64_t v = rand_next_seeded(r);
        size_t n = len < sizeof(v) ? len : sizeof(v);

        memcpy(p, &v, n);
        p += n;
        len -= n;
    }
    return 0;
}

void rand_init_host(struct rand_source *r) { *r = (struct rand_source){ .fill = rand_fill_host }; }

void rand_init_seeded(struct rand_source *r, uint64_t seed)
{
    *r = (struct rand_source){ .fill = rand_fill_seeded, .state = seed };
}

int rand_bytes(struct rand_source *r, void *buf, size_t len) { return r->fill(r, buf, len); }

int rand_u64(struct rand_source *r, uint64_t *v) { return r->fill(r, v, sizeof(*v)); }

uint64_t rand_below(struct rand_source *r, uint64_t n)
{
    uint64_t v = 0;

    if (rand_u64(r, &v) < 0)
        return 0;
    return (uint64_t)(((unsigned __int128)v * n) >> 64);
}
