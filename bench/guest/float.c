/* Double precision: Mandelbrot (scalar, dependent) and a small matrix multiply; extended precision, which compilers leave to the x87: Mandelbrot, square
 * roots, conversions. Results are exact, so they compare. */
#include "bench.h"

#include <math.h>
#include <string.h>

#define MATMUL_N 24

static double matmul_a[MATMUL_N][MATMUL_N], matmul_b[MATMUL_N][MATMUL_N], matmul_c[MATMUL_N][MATMUL_N];

uint64_t mandel_round(void)
{
    uint64_t sum = 0;

    for (int py = 0; py < 20; py++) {
        for (int px = 0; px < 30; px++) {
            double cx = -2 + px * 0.1, cy = -1 + py * 0.1, x = 0, y = 0;
            int n = 0;

            while (n < 64 && x * x + y * y < 4) {
                double t = x * x - y * y + cx;

                y = 2 * x * y + cy;
                x = t;
                n++;
            }
            sum = bench_mix(sum, (uint64_t)n);
        }
    }
    return sum;
}

void matmul_setup(void)
{
    for (int i = 0; i < MATMUL_N * MATMUL_N; i++) {
        matmul_a[i / MATMUL_N][i % MATMUL_N] = (double)(int32_t)bench_random((uint64_t)i) / 65536;
        matmul_b[i / MATMUL_N][i % MATMUL_N] = (double)(int32_t)bench_random((uint64_t)i + 10000) / 65536;
    }
}

uint64_t matmul_round(void)
{
    uint64_t sum = 0, bits;

    for (int i = 0; i < MATMUL_N; i++) {
        for (int j = 0; j < MATMUL_N; j++) {
            double c = 0;

            for (int k = 0; k < MATMUL_N; k++)
                c += matmul_a[i][k] * matmul_b[k][j];
            matmul_c[i][j] = c;
        }
    }
    for (int i = 0; i < MATMUL_N; i++) {
        memcpy(&bits, &matmul_c[i][i], sizeof(bits));
        sum = bench_mix(sum, bits);
    }
    return sum;
}

uint64_t x87_round(void)
{
    uint64_t sum = 0;

    for (int py = 0; py < 10; py++) {
        for (int px = 0; px < 30; px++) {
            long double cx = -2 + px * 0.1L, cy = -1 + py * 0.2L, x = 0, y = 0;
            int n = 0;

            while (n < 64 && x * x + y * y < 4) {
                long double t = x * x - y * y + cx;

                y = 2 * x * y + cy;
                x = t;
                n++;
            }
            sum = bench_mix(sum, (uint64_t)n);
            sum = bench_mix(sum, (uint64_t)(int64_t)(sqrtl(x * x + y * y) * 65536));
        }
    }
    return sum;
}
