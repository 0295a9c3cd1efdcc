/* Random instructions and register contents for test_hostexec.c. */
#ifndef VITRO_TEST_HX_RANDOM_H
#define VITRO_TEST_HX_RANDOM_H

#include "hx_fake.h"

struct rng {
    uint64_t s;
};

uint64_t rng_next(struct rng *r);
unsigned rng_below(struct rng *r, unsigned n);
/* At least 15 bytes of code, not always valid. Memory operands are at [rbx] or [rbx + disp8]. */
void random_code(struct rng *r, uint8_t code[32]);
void random_vector_state(struct rng *r, struct cpu *cpu);
void random_state(struct rng *r, struct cpu *cpu);
/* Small values in the index register of a gather or scatter. */
void random_indices(struct rng *r, struct cpu *cpu, const struct decoded *d);
/* Vector registers as a guest without AVX-512 has them. */
void random_no512(struct cpu *cpu);
/* Make code and registers mean the same as 32-bit code; random_skip32(): they still would not. */
void random_to32(uint8_t *code, struct cpu *cpu);
bool random_skip32(const struct decoded *d);
/* Instructions that cannot be compared like this (they have tests of their own). */
bool random_skip(const struct decoded *d);

#endif
