/* SPDX-License-Identifier: Apache-2.0 */
/* Small helpers of the tests hot_*. */
#include "hot.h"

void *memcpy(void *to, const void *from, u64 n);
void *memset(void *to, int byte, u64 n);

u64 hot_random(void)
{
    static u64 x = 88172645463325252UL;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    return x * 0x2545f4914f6cdd1dUL >> 16;
}

/* TCG translates at the first call and takes about 15 times as long for all of a test: what it says about these checks (the
 * notes in each test's head) shows in a tenth of them. */
u64 hot_count(u64 n)
{
    static u64 divisor;
    if (!divisor) {
        u32 a = 0x40000000, b, c, d;
        __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "=c"(c), "=d"(d));
        divisor = b == 0x54474354 ? 10 : 1; /* "TCGT" */
    }
    return (n + divisor - 1) / divisor;
}

const char *hot_name(const char *a, const char *b)
{
    static char text[4][96];
    static unsigned n;
    char *t = text[n++ % 4], *p = t;
    while (*a && p < t + 60)
        *p++ = *a++;
    *p++ = ':';
    *p++ = ' ';
    while (*b && p < t + 95)
        *p++ = *b++;
    *p = 0;
    return t;
}

void hot_copy(void *to, const void *from, u64 n)
{
    volatile u8 *t = to;
    const volatile u8 *f = from;
    while (n--)
        *t++ = *f++;
}

u64 hot_differ(const void *a, const void *b, u64 n)
{
    const volatile u8 *x = a, *y = b;
    for (u64 i = 0; i < n; i++)
        if (x[i] != y[i])
            return i + 1;
    return 0;
}

/* What the compiler calls by itself. */
void *memcpy(void *to, const void *from, u64 n)
{
    hot_copy(to, from, n);
    return to;
}

void *memset(void *to, int byte, u64 n)
{
    for (volatile u8 *t = to; n--; t++)
        *t = (u8)byte;
    return to;
}
