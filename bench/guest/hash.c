/* A hash table with open addressing: FNV-1a over short keys, inserts, then lookups that mostly hit. */
#include "bench.h"

#define HASH_SLOTS 2048
#define HASH_KEYS  1000
#define HASH_LEN   12

static uint8_t hash_keys[HASH_KEYS][HASH_LEN];
static struct {
    uint32_t hash;
    uint16_t key; /* plus one; 0 is free */
    uint16_t count;
} hash_table[HASH_SLOTS];

static uint32_t hash_of(const uint8_t *key)
{
    uint32_t h = 0x811c9dc5;

    for (unsigned i = 0; i < HASH_LEN; i++)
        h = (h ^ key[i]) * 0x01000193;
    return h;
}

static unsigned hash_find(uint32_t h)
{
    unsigned slot = h % HASH_SLOTS;

    while (hash_table[slot].key && hash_table[slot].hash != h)
        slot = (slot + 1) % HASH_SLOTS;
    return slot;
}

void hash_setup(void)
{
    for (unsigned i = 0; i < HASH_KEYS * HASH_LEN; i++)
        hash_keys[i / HASH_LEN][i % HASH_LEN] = (uint8_t)bench_random(i);
}

uint64_t hash_round(void)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < HASH_SLOTS; i++)
        hash_table[i].key = hash_table[i].count = 0;
    for (unsigned i = 0; i < 2 * HASH_KEYS; i++) {
        unsigned key = i % HASH_KEYS;
        uint32_t h = hash_of(hash_keys[key]);
        unsigned slot = hash_find(h);

        hash_table[slot].hash = h;
        hash_table[slot].key = (uint16_t)(key + 1);
        hash_table[slot].count++;
    }
    for (unsigned i = 0; i < HASH_SLOTS; i++)
        sum += (uint64_t)hash_table[i].key * i + hash_table[i].count;
    return sum;
}
