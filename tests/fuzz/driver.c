/* A fuzzer without a compiler's help: mutates seeds in-process, repeatably.
 *
 *   driver [--seed N] [--runs N] [--first N] [--max-len N] [--limit SECONDS] [--keep FILE]
 *          [--write-seeds DIR] [FILE...]
 *
 * Run k of seed N is always the same input, whatever was run before it, so a failure is repeated
 * with `--seed N --first k --runs 1`. The corpus is what fuzz_seed() gives and the FILEs. With
 * --runs 0 the FILEs are run as they are: that repeats a kept input. On a crash, a failed check or
 * an input that takes longer than the limit (default 10 s), the input is kept in FILE (default
 * fuzz-input.bin) and the status is not 0.
 */
#include "fuzz.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/rand.h"

#define SEED_MAX (1UL << 20)

struct blob {
    uint8_t *data;
    size_t len;
};

struct options {
    uint64_t seed, runs, first;
    size_t max_len;
    unsigned limit;
    const char *write_seeds;
};

/* One process fuzzes one target: what the signal handler needs lives here. */
static struct {
    struct blob now; /* the input that is running */
    uint64_t run;
    const char *keep;
} current = { .keep = "fuzz-input.bin" };

static struct blob *corpus;
static size_t corpus_len;

/* Sanitizers end the process by themselves; this is their hook, where they are. */
void __sanitizer_set_death_callback(void (*fn)(void)) __attribute__((weak));

static void die(const char *what, const char *name)
{
    fprintf(stderr, "fuzz driver: %s %s: %s\n", what, name, strerror(errno));
    exit(2);
}

/* Async-signal-safe. */
static void keep_input(void)
{
    int fd = open(current.keep, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    char text[200];
    int n;

    n = snprintf(text, sizeof(text), "fuzz driver: run %llu failed; its input of %zu bytes is in %s\n",
                 (unsigned long long)current.run, current.now.len, current.keep);
    if (fd < 0 || write(fd, current.now.data, current.now.len) != (ssize_t)current.now.len)
        n = snprintf(text, sizeof(text), "fuzz driver: run %llu failed; its input could not be kept\n",
                     (unsigned long long)current.run);
    if (write(STDERR_FILENO, text, (size_t)n) != n)
        _exit(3);
}

static void on_signal(int sig)
{
    static const char late[] = "fuzz driver: the input takes longer than the limit\n";

    if (sig == SIGALRM && write(STDERR_FILENO, late, sizeof(late) - 1) < 0)
        _exit(3);
    keep_input();
    signal(sig, SIG_DFL);
    raise(sig);
}

static void catch_signals(void)
{
    static const int sigs[] = { SIGALRM, SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT };
    struct sigaction sa = { .sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND };
    size_t i;

    for (i = 0; i < ARRAY_LEN(sigs); i++)
        sigaction(sigs[i], &sa, NULL);
    if (__sanitizer_set_death_callback)
        __sanitizer_set_death_callback(keep_input);
}

static void corpus_add(const uint8_t *data, size_t len)
{
    struct blob *more = realloc(corpus, (corpus_len + 1) * sizeof(*corpus));

    if (!more)
        die("out of", "memory");
    corpus = more;
    corpus[corpus_len].data = malloc(len + 1);
    if (!corpus[corpus_len].data)
        die("out of", "memory");
    memcpy(corpus[corpus_len].data, data, len);
    corpus[corpus_len++].len = len;
}

static void corpus_add_file(const char *path, uint8_t *buf)
{
    FILE *f = fopen(path, "rb");
    size_t n;

    if (!f)
        die("cannot open", path);
    n = fread(buf, 1, SEED_MAX, f);
    if (ferror(f))
        die("cannot read", path);
    fclose(f);
    corpus_add(buf, n);
}

static void corpus_load(char **files)
{
    uint8_t *buf = malloc(SEED_MAX);
    unsigned n;
    size_t len;

    if (!buf)
        die("out of", "memory");
    for (n = 0; fuzz_seed && (len = fuzz_seed(n, buf, SEED_MAX)) > 0; n++)
        corpus_add(buf, len);
    for (; *files; files++)
        corpus_add_file(*files, buf);
    if (corpus_len == 0)
        corpus_add(buf, 0);
    free(buf);
}

static void corpus_write(const char *dir)
{
    char path[4096];
    size_t i;

    for (i = 0; i < corpus_len; i++) {
        FILE *f;

        snprintf(path, sizeof(path), "%s/seed-%zu", dir, i);
        f = fopen(path, "wb");
        if (!f || fwrite(corpus[i].data, 1, corpus[i].len, f) != corpus[i].len || fclose(f) != 0)
            die("cannot write", path);
    }
}

/* The values that programs compare with, at 1, 2, 4 and 8 bytes. */
static const uint64_t interesting[] = {
    0,          1,          2,          3,          4,           7,          8,          0x10,
    0x20,       0x3f,       0x40,       0x7f,       0x80,        0xff,       0x100,      0x1ff,
    0x200,      0xfff,      0x1000,     0x7fff,     0x8000,      0xfffe,     0xffff,     0x10000,
    0x100000,   0x7fffffff, 0x80000000, 0xfffffffe, 0xffffffff,  1ULL << 32, 1ULL << 47, 1ULL << 52,
    1ULL << 62, 1ULL << 63, ~0ULL - 1,  ~0ULL,      ~0ULL << 12,
};

/* An input being mutated, with room for max bytes. */
struct mutant {
    uint8_t *data;
    size_t len, max;
    struct rand_source rnd;
};

static uint64_t below(struct mutant *m, uint64_t n) { return n ? rand_below(&m->rnd, n) : 0; }

static void mutate_bit(struct mutant *m)
{
    if (m->len > 0)
        m->data[below(m, m->len)] ^= (uint8_t)(1u << below(m, 8));
}

static void mutate_byte(struct mutant *m)
{
    if (m->len > 0)
        m->data[below(m, m->len)] = (uint8_t)below(m, 256);
}

/* Overwrite 1, 2, 4 or 8 bytes with an interesting number, sometimes off by a little, in either byte order.
 */
static void mutate_number(struct mutant *m)
{
    size_t n = (size_t)1 << below(m, 4);
    uint64_t v = interesting[below(m, ARRAY_LEN(interesting))];
    uint8_t raw[8];

    if (n > m->len)
        return;
    if (below(m, 4) == 0)
        v += below(m, 17) - 8;
    if (below(m, 8) == 0)
        v = __builtin_bswap64(v) >> (64 - 8 * n);
    st_le64(raw, v);
    memcpy(m->data + below(m, m->len - n + 1), raw, n);
}

/* Add a small number to a little-endian field. */
static void mutate_add(struct mutant *m)
{
    size_t n = (size_t)1 << below(m, 4), at;
    uint8_t raw[8] = { 0 };

    if (n > m->len)
        return;
    at = below(m, m->len - n + 1);
    memcpy(raw, m->data + at, n);
    st_le64(raw, ld_le64(raw) + below(m, 65) - 32);
    memcpy(m->data + at, raw, n);
}

static void mutate_truncate(struct mutant *m) { m->len = below(m, m->len + 1); }

static void mutate_remove(struct mutant *m)
{
    size_t at = below(m, m->len + 1), n = below(m, m->len - at + 1);

    memmove(m->data + at, m->data + at + n, m->len - at - n);
    m->len -= n;
}

/* Make room for up to n bytes at `at`; returns how many there are. */
static size_t mutant_open(struct mutant *m, size_t at, size_t n)
{
    if (n > m->max - m->len)
        n = m->max - m->len;
    memmove(m->data + at + n, m->data + at, m->len - at);
    m->len += n;
    return n;
}

static void mutate_insert(struct mutant *m)
{
    size_t at = below(m, m->len + 1), n = mutant_open(m, at, 1 + below(m, 64));

    if (below(m, 2))
        rand_bytes(&m->rnd, m->data + at, n);
    else
        memset(m->data + at, (int)below(m, 256), n);
}

/* Insert a copy of a block of the input somewhere else in it. */
static void mutate_duplicate(struct mutant *m)
{
    size_t from = below(m, m->len + 1), n = below(m, m->len - from + 1), at = below(m, m->len + 1);
    uint8_t *copy = malloc(n + 1);

    if (!copy)
        die("out of", "memory");
    memcpy(copy, m->data + from, n);
    n = mutant_open(m, at, n);
    memcpy(m->data + at, copy, n);
    free(copy);
}

/* Overwrite the rest from some place with the rest of another seed. */
static void mutate_splice(struct mutant *m)
{
    const struct blob *other = &corpus[below(m, corpus_len)];
    size_t at = below(m, m->len + 1), from = below(m, other->len + 1), n = other->len - from;

    if (n > m->max - at)
        n = m->max - at;
    memcpy(m->data + at, other->data + from, n);
    m->len = at + n;
}

static void (*const mutations[])(struct mutant *m) = {
    mutate_bit,      mutate_byte,   mutate_number, mutate_number,    mutate_add,
    mutate_truncate, mutate_remove, mutate_insert, mutate_duplicate, mutate_splice,
};

/* The input of one run: a seed with 0 to 8 mutations, mostly few. */
static void mutant_make(struct mutant *m, uint64_t seed, uint64_t run)
{
    const struct blob *base;
    uint64_t n;

    rand_init_seeded(&m->rnd, seed * 0x2545f4914f6cdd1dULL + run * 0x9e6c63d0876a9a35ULL);
    base = &corpus[below(m, corpus_len)];
    m->len = base->len < m->max ? base->len : m->max;
    memcpy(m->data, base->data, m->len);
    for (n = below(m, 1 + below(m, 9)); n-- > 0 || run % 16 == 15;) {
        mutations[below(m, ARRAY_LEN(mutations))](m);
        if (run % 16 == 15 && below(m, 16) == 0)
            break; /* one run in 16 is mutated heavily */
    }
}

static uint64_t now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000ULL + (uint64_t)ts.tv_nsec;
}

/* Run one input from an allocation of exactly its size, so that a sanitizer sees each byte too far.
 * Returns the nanoseconds it took. */
static uint64_t run_one(const uint8_t *data, size_t len, uint64_t run, unsigned limit)
{
    uint8_t *exact = malloc(len ? len : 1);
    uint64_t t0;

    if (!exact)
        die("out of", "memory");
    if (len > 0)
        memcpy(exact, data, len);
    current.now = (struct blob){ .data = exact, .len = len };
    current.run = run;
    alarm(limit);
    t0 = now_ns();
    LLVMFuzzerTestOneInput(exact, len);
    t0 = now_ns() - t0;
    alarm(0);
    free(exact);
    return t0;
}

static void run_all(const struct options *o, const char *name)
{
    struct mutant m = { .max = o->max_len, .data = malloc(o->max_len + 1) };
    uint64_t run, took, slowest = 0, slowest_run = 0, t0 = now_ns();
    size_t i;

    if (!m.data)
        die("out of", "memory");
    for (i = 0; i < corpus_len; i++)
        run_one(corpus[i].data, corpus[i].len, 0, o->limit);
    for (run = o->first; run - o->first < o->runs; run++) {
        mutant_make(&m, o->seed, run);
        took = run_one(m.data, m.len, run, o->limit);
        if (took > slowest) {
            slowest = took;
            slowest_run = run;
        }
    }
    free(m.data);
    printf("%s: %zu seeds as they are, %llu mutated runs of seed %llu in %.1f s; slowest %.3f ms (run %llu), "
           "limit %u s an input\n",
           name, corpus_len, (unsigned long long)o->runs, (unsigned long long)o->seed,
           (double)(now_ns() - t0) / 1e9, (double)slowest / 1e6, (unsigned long long)slowest_run, o->limit);
}

static uint64_t number(const char *s, const char *what)
{
    char *end;
    uint64_t v;

    errno = 0;
    v = strtoull(s, &end, 0);
    if (errno || end == s || *end) {
        fprintf(stderr, "fuzz driver: %s wants a number, not \"%s\"\n", what, s);
        exit(2);
    }
    return v;
}

static struct options parse(int argc, char **argv)
{
    static const struct option longs[] = {
        { "seed", 1, NULL, 's' },        { "runs", 1, NULL, 'r' },  { "first", 1, NULL, 'f' },
        { "max-len", 1, NULL, 'm' },     { "limit", 1, NULL, 'l' }, { "keep", 1, NULL, 'k' },
        { "write-seeds", 1, NULL, 'w' }, { NULL, 0, NULL, 0 },
    };
    struct options o = { .seed = 1, .runs = 10000, .limit = 10 };
    int c;

    while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
        if (c == 's')
            o.seed = number(optarg, "--seed");
        else if (c == 'r')
            o.runs = number(optarg, "--runs");
        else if (c == 'f')
            o.first = number(optarg, "--first");
        else if (c == 'm')
            o.max_len = number(optarg, "--max-len");
        else if (c == 'l')
            o.limit = (unsigned)number(optarg, "--limit");
        else if (c == 'k')
            current.keep = optarg;
        else if (c == 'w')
            o.write_seeds = optarg;
        else
            exit(2);
    }
    return o;
}

/* Without --max-len: room for the largest seed twice. */
static size_t default_max_len(void)
{
    size_t max = 4096, i;

    for (i = 0; i < corpus_len; i++)
        max = 2 * corpus[i].len > max ? 2 * corpus[i].len : max;
    return max;
}

int main(int argc, char **argv)
{
    struct options o = parse(argc, argv);
    const char *name = strrchr(argv[0], '/');

    corpus_load(argv + optind);
    if (o.write_seeds) {
        corpus_write(o.write_seeds);
        return 0;
    }
    if (o.max_len == 0)
        o.max_len = default_max_len();
    catch_signals();
    run_all(&o, name ? name + 1 : argv[0]);
    while (corpus_len > 0)
        free(corpus[--corpus_len].data);
    free(corpus);
    return 0;
}
