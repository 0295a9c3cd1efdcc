/* Rows that are whole programs: runs rows.sh for each, times its middle step, and makes a checksum of what it found. */
#include "bench.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define PROGRAMS_WORDS 64

/* Runs "rows.sh STEP NAME SIZE" to its end; its exit status. */
static int programs_step(const char *step, const char *name, const char *size)
{
    int status = -1;
    pid_t pid = fork();

    if (pid == 0) {
        execl("/tmp/bench/rows.sh", "rows.sh", step, name, size, (char *)NULL);
        _exit(127);
    }
    waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

/* What "rows.sh check" prints, as a number; 0 if it fails. */
static uint64_t programs_check(const char *name, const char *size)
{
    char command[128];
    uint64_t sum = 1;
    FILE *f;
    int c;

    snprintf(command, sizeof(command), "/tmp/bench/rows.sh check %s %s", name, size);
    f = popen(command, "r");
    if (!f)
        return 0;
    while ((c = getc(f)) != EOF)
        sum = bench_mix(sum, (uint64_t)c);
    return pclose(f) ? 0 : sum;
}

/* A row that knows its own time (openssl speed) says so in a file: nanoseconds and operations. */
static void programs_own_time(uint64_t *ns, uint64_t *rounds)
{
    FILE *f = fopen("/tmp/run/time", "r");
    uint64_t own, count;

    if (!f)
        return;
    if (fscanf(f, "%" SCNu64 " %" SCNu64, &own, &count) == 2 && own && count) {
        *ns = own;
        *rounds = count;
    }
    fclose(f);
}

static void programs_run(const char *name, const char *size, int cold)
{
    uint64_t ns, start, sum, rounds = 1;
    int status = 0;

    if (!cold)
        status = programs_step("setup", name, "1") || programs_step("run", name, "1");
    status = status || programs_step("setup", name, size);
    printf("START %s\n", name);
    start = bench_now();
    status = status || programs_step("run", name, size);
    ns = bench_now() - start;
    printf("STOP %s %" PRIu64 "\n", name, ns);
    sum = programs_check(name, size);
    if (status || !sum) {
        printf("WRONG %s: the program failed\n", name);
        return;
    }
    programs_own_time(&ns, &rounds);
    printf("BENCH %s %" PRIu64 " %" PRIu64 " 1 %016" PRIx64 "\n", name, ns, rounds, sum);
}

void programs_main(const char *size, char **names)
{
    for (; *names; names++) {
        int cold = **names == '-';

        programs_run(*names + cold, size, cold);
    }
}

/* Text with repetitions of every length, like a log: what the compressors get. */
void programs_data(uint64_t bytes)
{
    static char words[PROGRAMS_WORDS][16];
    uint64_t done = 0;

    for (unsigned i = 0; i < PROGRAMS_WORDS; i++) {
        for (unsigned j = 0; j < 4 + i % 11; j++)
            words[i][j] = (char)('a' + bench_random(i * 16 + j) % 26);
    }
    for (uint64_t i = 0; done + 64 < bytes; i++) {
        uint64_t r = bench_random(i / 2 + (i % 3) * 1000), n = bench_random(i) % 100000;

        done += (uint64_t)printf("%s %s %s=%" PRIu64 "\n", words[r % PROGRAMS_WORDS],
                                 words[(r >> 8) % PROGRAMS_WORDS], words[(r >> 16) % PROGRAMS_WORDS], n);
    }
    for (; done < bytes; done++)
        putchar('\n');
}
