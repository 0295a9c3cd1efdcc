/* Naive Fibonacci: calls and returns, the stack, next to no data. */
#include "bench.h"

/* Real calls, not a loop that the compiler makes of half of them. */
#ifdef __clang__
#define FIB_CALLS __attribute__((noinline))
#else
#define FIB_CALLS __attribute__((noinline, noclone, optimize("no-optimize-sibling-calls")))
#endif

static FIB_CALLS unsigned fib(unsigned n) { return n < 2 ? n : fib(n - 1) + fib(n - 2); }

uint64_t fib_round(void) { return fib(20); }
