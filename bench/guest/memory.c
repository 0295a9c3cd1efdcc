/* The C library's memory and string functions, which pick their variant by CPUID: vectors or REP. */
#include "bench.h"

#include <string.h>

#define MEMORY_BYTES 65536
#define MEMORY_WORDS 400

static uint8_t memory_from[MEMORY_BYTES], memory_to[MEMORY_BYTES + 64];
static char memory_text[MEMORY_WORDS * 9 + 1];

void memory_setup(void)
{
    char *p = memory_text;

    for (unsigned i = 0; i < MEMORY_BYTES; i++)
        memory_from[i] = (uint8_t)bench_random(i);
    for (unsigned i = 0; i < MEMORY_WORDS; i++) {
        uint64_t r = bench_random(i);
        unsigned len = 2 + (unsigned)(r % 7);

        for (unsigned j = 0; j < len; j++)
            *p++ = (char)('a' + (r >> (8 + 5 * j)) % 26);
        *p++ = ' ';
    }
    *p = 0;
}

/* Two copies of 64 KiB, the second to an address that is not aligned. */
uint64_t memcpy_round(void)
{
    memcpy(memory_to, memory_from, MEMORY_BYTES);
    memcpy(memory_to + 13, memory_from, MEMORY_BYTES);
    return bench_mix(memory_to[12], memory_to[13 + MEMORY_BYTES - 1]) + memory_to[4096];
}

/* strlen, strchr over each word, memchr, memcmp and strstr on one text. */
uint64_t strings_round(void)
{
    uint64_t sum = strlen(memory_text);
    const char *p = memory_text, *end;
    static char word[16];

    while ((end = strchr(p, ' '))) {
        size_t len = (size_t)(end - p);

        memcpy(word, p, len);
        word[len] = 0;
        sum = bench_mix(sum, strlen(word));
        sum += (uint64_t)(memchr(word, 'e', len) != NULL) + (uint64_t)(memcmp(word, "mm", 2) < 0);
        p = end + 1;
    }
    sum = bench_mix(sum, strstr(memory_text, "zqzqz") != NULL);
    return sum;
}
