/* The C library's qsort() of 2000 numbers: calls through a function pointer, data-dependent branches. */
#include "bench.h"

#include <stdlib.h>
#include <string.h>

#define SORT_COUNT 2000

static uint32_t sort_input[SORT_COUNT], sort_work[SORT_COUNT];

static int sort_compare(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return (x > y) - (x < y);
}

void qsort_setup(void)
{
    for (unsigned i = 0; i < SORT_COUNT; i++)
        sort_input[i] = (uint32_t)bench_random(i);
}

uint64_t qsort_round(void)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < SORT_COUNT; i++)
        sort_work[i] = sort_input[i];
    qsort(sort_work, SORT_COUNT, sizeof(sort_work[0]), sort_compare);
    for (unsigned i = 0; i < SORT_COUNT; i += 8)
        sum = bench_mix(sum, sort_work[i]);
    return sum;
}
