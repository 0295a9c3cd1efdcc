/* Vectors of doubles and the mathematical library. */
#include "bench.h"

#include <math.h>

#define VECTOR_N 4096
#define LIBM_N   500

typedef double vector_four __attribute__((vector_size(32), aligned(32)));

static vector_four vector_x[VECTOR_N / 4], vector_y[VECTOR_N / 4];

void vector_setup(void)
{
    for (unsigned i = 0; i < VECTOR_N; i++) {
        vector_x[i / 4][i % 4] = (double)(int32_t)bench_random(i) / 65536;
        vector_y[i / 4][i % 4] = (double)(int32_t)bench_random(i + VECTOR_N) / 65536;
    }
}

/* y = 0.5 y + a x: twice over all. No contraction to FMA, so every machine has the same result. */
#define VECTOR_BODY                                                                                                    \
    for (unsigned n = 0; n < 2; n++) {                                                                                 \
        for (unsigned i = 0; i < VECTOR_N / 4; i++) {                                                                  \
            vector_four y = 0.5 * vector_y[i] + 0.25 * vector_x[i];                                                    \
                                                                                                                       \
            sum += y;                                                                                                  \
            vector_x[i] = vector_x[i] - sum * 0.0;                                                                     \
        }                                                                                                              \
    }

__attribute__((target("avx2"))) static double vector_wide(void)
{
    vector_four sum = { 0 };

    VECTOR_BODY
    return sum[0] + sum[1] + sum[2] + sum[3];
}

static double vector_narrow(void)
{
    vector_four sum = { 0 };

    VECTOR_BODY
    return sum[0] + sum[1] + sum[2] + sum[3];
}

uint64_t vector_round(void)
{
    double sum = __builtin_cpu_supports("avx2") ? vector_wide() : vector_narrow();

    return (uint64_t)(int64_t)llrint(sum * 1024);
}

/* The library picks its variant by CPUID, so the last bit may differ: it is rounded away. */
uint64_t libm_round(void)
{
    double sum = 0;

    for (unsigned i = 0; i < LIBM_N; i++) {
        double x = (double)i * 0.0125;

        sum += sin(x) * exp(-x) + cos(x * 3) + pow(x + 1, 0.75);
    }
    return (uint64_t)llrint(sum * 1e6);
}
