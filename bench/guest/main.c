/* vbench: runs workloads and reports each as a line that bench/run reads.
 *
 *   vbench list                    name, group, operations a round, known instructions a round (0: not known), what
 *   vbench run SECONDS NAME...     START NAME, then BENCH NAME nanoseconds rounds ops checksum, for each
 *   vbench step NAME               one round between two SIGSTOPs: bench/count.c counts its instructions
 *   vbench exit                    exits with 42 (what the exec workload executes)
 *   vbench programs SIZE NAME...   START NAME, STOP NAME nanoseconds, BENCH as above, for rows of rows.sh; -NAME: no warm-up
 *   vbench data BYTES              text for compressors
 */
#include "bench.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static uint64_t empty_round(void) { return 0; }

static const struct workload workloads[] = {
    { "mix", "integer", "ALU, memory, branches, calls (assembly, counted)", 1, NULL, mix_round },
    { "sieve", "integer", "sieve of 32 Ki", 1, NULL, sieve_round },
    { "qsort", "integer", "qsort() of 2000", 1, qsort_setup, qsort_round },
    { "fib", "integer", "recursion, fib(20)", 1, NULL, fib_round },
    { "hash", "integer", "hash table, 2000 operations", 1, hash_setup, hash_round },
    { "chase", "integer", "pointer chase in 1 MiB, 40000 steps", 1, chase_setup, chase_round },
    { "crc", "integer", "CRC-32 by table, 32 KiB", 1, crc_setup, crc_round },
    { "bytecode", "integer", "interpreter loop with a switch", 1, NULL, bytecode_round },
    { "mandel", "float", "Mandelbrot, scalar double", 1, NULL, mandel_round },
    { "matmul", "float", "matrix multiply 24x24, double", 1, matmul_setup, matmul_round },
    { "x87", "float", "Mandelbrot, square roots, conversions, long double", 1, NULL, x87_round },
    { "vector", "float", "AVX2 a*x + b*y over 4096 doubles", 1, vector_setup, vector_round },
    { "libm", "float", "sin, cos, exp, pow, 500 each", 1, NULL, libm_round },
    { "memcpy", "memory", "memcpy() of 2 x 64 KiB", 1, memory_setup, memcpy_round },
    { "strings", "memory", "string functions over 400 words", 1, memory_setup, strings_round },
    { "syscall", "system", "null system call", 1000, NULL, syscall_round },
    { "fault", "system", "page fault (map, touch, unmap)", 64, NULL, fault_round },
    { "pipe", "system", "pipe round trip, two processes", 50, pipe_setup, pipe_round },
    { "fork", "system", "fork, exit, wait", 1, NULL, fork_round },
    { "exec", "system", "fork, exec (static), exit, wait", 1, NULL, exec_round },
    { "signal", "system", "kill() to itself with a handler", 200, signal_setup, signal_round },
    { "thread", "system", "semaphore round trip, two threads", 50, thread_setup, thread_round },
    { "solo", "smp", "20 x fib(20) in one thread, 2 CPUs", 1, NULL, solo_round },
    { "pair", "smp", "the same in each of two threads at once, 2 CPUs", 1, NULL, pair_round },
    { "empty", "none", "nothing", 1, NULL, empty_round },
};

uint64_t bench_now(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static const struct workload *find(const char *name)
{
    for (unsigned i = 0; i < sizeof(workloads) / sizeof(workloads[0]); i++) {
        if (!strcmp(workloads[i].name, name))
            return &workloads[i];
    }
    fprintf(stderr, "vbench: there is no workload '%s'\n", name);
    exit(1);
}

/* One round to warm up, then rounds until the time is over. A round with another checksum ends it all. */
static void run(const struct workload *w, uint64_t limit)
{
    uint64_t sum, start, ns, rounds = 0;

    if (w->setup)
        w->setup();
    sum = w->round();
    printf("START %s\n", w->name);
    start = bench_now();
    do {
        if (w->round() != sum) {
            printf("WRONG %s round %" PRIu64 "\n", w->name, rounds);
            return;
        }
        rounds++;
        ns = bench_now() - start;
    } while (ns < limit);
    printf("BENCH %s %" PRIu64 " %" PRIu64 " %u %016" PRIx64 "\n", w->name, ns, rounds, w->ops, sum);
}

static void list(void)
{
    for (const struct workload *w = workloads; strcmp(w->group, "none"); w++)
        printf("%s %s %u %" PRIu64 " %s\n", w->name, w->group, w->ops, w->round == mix_round ? mix_insns : 0, w->what);
}

int main(int argc, char **argv)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc == 2 && !strcmp(argv[1], "exit"))
        return 42;
    if (argc == 2 && !strcmp(argv[1], "list")) {
        list();
    } else if (argc == 3 && !strcmp(argv[1], "step")) {
        const struct workload *w = find(argv[2]);

        if (w->setup)
            w->setup();
        w->round();
        raise(SIGSTOP);
        w->round();
        raise(SIGSTOP);
    } else if (argc > 3 && !strcmp(argv[1], "programs")) {
        programs_main(argv[2], argv + 3);
    } else if (argc == 3 && !strcmp(argv[1], "data")) {
        setvbuf(stdout, NULL, _IOFBF, 1 << 16);
        programs_data(strtoull(argv[2], NULL, 10));
    } else if (argc > 3 && !strcmp(argv[1], "run")) {
        for (int i = 3; i < argc; i++)
            run(find(argv[i]), (uint64_t)(atof(argv[2]) * 1e9));
    } else {
        fprintf(stderr, "usage: vbench list | run SECONDS NAME... | step NAME | exit | programs SIZE NAME... | data BYTES\n");
        return 1;
    }
    return 0;
}
