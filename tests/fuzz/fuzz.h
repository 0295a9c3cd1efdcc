/* What a fuzz target provides: the entry point that libFuzzer knows, and seeds for our own driver. */
#ifndef VITRO_TESTS_FUZZ_FUZZ_H
#define VITRO_TESTS_FUZZ_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Run the code under test on one hostile input. Returns 0; anything wrong calls fuzz_fail(), crashes or
 * hangs. Must not keep state from one input to the next. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Write the n-th valid input (n = 0, 1 ...) to buf and return its length; 0 when there are no more.
 * Optional: without it the driver starts from the corpus files alone. */
size_t fuzz_seed(unsigned n, uint8_t *buf, size_t size) __attribute__((weak));

/* What is left of an input. */
struct fuzz_input {
    const uint8_t *at;
    size_t left;
};

/* The next n bytes (at most 8) as a number; zeros at the end. */
static inline uint64_t fuzz_take(struct fuzz_input *in, unsigned n)
{
    uint64_t v = 0;

    if (n > in->left)
        n = (unsigned)in->left;
    memcpy(&v, in->at, n);
    in->at += n;
    in->left -= n;
    return v;
}

/* A property does not hold: say which and abort, so that every kind of fuzzer keeps the input. */
#define fuzz_fail(what) fuzz_fail_at(__FILE__, __LINE__, what)
#define FUZZ_CHECK(x)                                                                                        \
    do {                                                                                                     \
        if (!(x))                                                                                            \
            fuzz_fail(#x);                                                                                   \
    } while (0)

static inline void __attribute__((noreturn)) fuzz_fail_at(const char *file, int line, const char *what)
{
    __builtin_printf("%s:%d: does not hold: %s\n", file, line, what);
    __builtin_abort();
}

#endif
