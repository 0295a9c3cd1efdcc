/* The guest side of the benchmark: one static program that runs natively and in every machine.
 *
 * A workload does the same round over and over; a round returns a checksum, which must not differ from round to
 * round nor from column to column. Only this program's own clock_gettime() times it.
 */
#ifndef BENCH_H
#define BENCH_H

#include <stdint.h>

struct workload {
    const char *name;
    const char *group;       /* integer, float, memory, system or smp */
    const char *what;        /* one line for the table */
    unsigned ops;            /* operations a round, for the time of one */
    void (*setup)(void);     /* may be null */
    uint64_t (*round)(void);
};

/* Number i of a fixed sequence that looks random: the data of every workload (splitmix64). */
static inline uint64_t bench_random(uint64_t i)
{
    uint64_t z = (i + 1) * 0x9e3779b97f4a7c15u;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static inline uint64_t bench_mix(uint64_t sum, uint64_t value) { return (sum ^ value) * 0x100000001b3u; }

uint64_t bench_now(void); /* nanoseconds of the monotonic clock */

uint64_t mix_round(void);
extern const uint64_t mix_insns; /* what a call of mix_round() executes, its own RET included */

uint64_t sieve_round(void);
void qsort_setup(void);
uint64_t qsort_round(void);
uint64_t fib_round(void);
void hash_setup(void);
uint64_t hash_round(void);
void chase_setup(void);
uint64_t chase_round(void);
void crc_setup(void);
uint64_t crc_round(void);
uint64_t bytecode_round(void);

uint64_t mandel_round(void);
void matmul_setup(void);
uint64_t matmul_round(void);
uint64_t x87_round(void);

void memory_setup(void);
uint64_t memcpy_round(void);
uint64_t strings_round(void);

uint64_t syscall_round(void);
uint64_t fault_round(void);
void pipe_setup(void);
uint64_t pipe_round(void);
uint64_t fork_round(void);
uint64_t exec_round(void);
void signal_setup(void);
uint64_t signal_round(void);
void thread_setup(void);
uint64_t thread_round(void);
uint64_t solo_round(void);
uint64_t pair_round(void);

void vector_setup(void);
uint64_t vector_round(void);
uint64_t libm_round(void);

/* Rows of rows.sh, by name, each NULL-terminated; "-name" is timed without a warm-up. size is the amount of work. */
void programs_main(const char *size, char **names);
void programs_data(uint64_t bytes);

#endif
