/* Which parts of a disk were written, for whoever copies it meanwhile: a bit for each BLOCK_LOG_PART bytes.
 *
 * A part is marked after it was written and unmarked before it is read, so that what is read is as it was marked, or is marked again.
 * Threads: marks come from I/O threads, without a lock; the rest: one thread at a time. Once made, a log lives as long as its disk, as nobody knows
 * who is just marking.
 */
#include <errno.h>
#include <stdlib.h>

#include "block/block.h"

struct block_log {
    _Atomic bool on;
    size_t words;
    _Atomic uint64_t bits[];
};

int block_log_begin(struct block *b, bool all)
{
    struct block_log *log = atomic_load(&b->log);
    uint64_t parts = (b->size + BLOCK_LOG_PART - 1) / BLOCK_LOG_PART;

    if (!log) {
        size_t words = (size_t)(parts + 63) / 64;

        log = calloc(1, sizeof(*log) + words * sizeof(log->bits[0]));
        if (!log)
            return -ENOMEM;
        log->words = words;
        atomic_store(&b->log, log);
    }
    for (size_t n = 0; n < log->words && !all; n++)
        atomic_store(&log->bits[n], 0);
    atomic_store(&log->on, true);
    for (size_t n = 0; n < log->words && all; n++)
        atomic_store(&log->bits[n], parts - n * 64 < 64 ? (1ULL << (parts - n * 64)) - 1 : UINT64_MAX);
    return 0;
}

void block_log_end(struct block *b)
{
    struct block_log *log = atomic_load(&b->log);

    if (log)
        atomic_store(&log->on, false);
}

bool block_log_is_on(const struct block *b)
{
    struct block_log *log = atomic_load(&b->log);

    return log && atomic_load(&log->on);
}

void block_log_mark(struct block *b, uint64_t off, uint64_t len)
{
    struct block_log *log = atomic_load(&b->log);

    if (!log || !atomic_load(&log->on))
        return;
    for (uint64_t n = off / BLOCK_LOG_PART; n <= (off + len - 1) / BLOCK_LOG_PART && n / 64 < log->words; n++)
        atomic_fetch_or(&log->bits[n / 64], 1ULL << n % 64);
}

static bool log_take(struct block_log *log, uint64_t n)
{
    uint64_t bit = 1ULL << n % 64;

    return n / 64 < log->words && (atomic_load(&log->bits[n / 64]) & bit) && (atomic_fetch_and(&log->bits[n / 64], ~bit) & bit);
}

bool block_log_take(struct block *b, uint64_t *off, uint64_t *len, uint64_t most)
{
    struct block_log *log = atomic_load(&b->log);
    uint64_t n = *off / BLOCK_LOG_PART, end;

    while (log && n / 64 < log->words && !log_take(log, n))
        n = n % 64 == 0 && !atomic_load(&log->bits[n / 64]) ? n + 64 : n + 1;
    if (!log || n / 64 >= log->words)
        return false;
    for (end = n + 1; (end - n) * BLOCK_LOG_PART < most && log_take(log, end);)
        end++;
    *off = n * BLOCK_LOG_PART;
    *len = end * BLOCK_LOG_PART < b->size ? (end - n) * BLOCK_LOG_PART : b->size - *off;
    return true;
}

uint64_t block_log_left(const struct block *b)
{
    struct block_log *log = atomic_load(&b->log);
    uint64_t parts = 0;

    for (size_t n = 0; log && n < log->words; n++)
        parts += (unsigned)__builtin_popcountll(atomic_load(&log->bits[n]));
    return parts * BLOCK_LOG_PART;
}
