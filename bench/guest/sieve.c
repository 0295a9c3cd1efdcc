/* Sieve of Eratosthenes over 32 KiB of flags: byte stores at growing strides, then a scan. */
#include "bench.h"

#include <string.h>

#define SIEVE_SIZE 32768

static uint8_t sieve_flags[SIEVE_SIZE];

uint64_t sieve_round(void)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < SIEVE_SIZE; i++)
        sieve_flags[i] = 1;
    for (unsigned i = 2; i * i < SIEVE_SIZE; i++) {
        if (!sieve_flags[i])
            continue;
        for (unsigned j = i * i; j < SIEVE_SIZE; j += i)
            sieve_flags[j] = 0;
    }
    for (unsigned i = 2; i < SIEVE_SIZE; i++)
        sum += sieve_flags[i] ? i : 0;
    return sum;
}
