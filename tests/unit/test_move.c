/* Memory of a file whose pieces are moved into shared memory (ram/move.h) while threads change it in every way that there is. */
#include "test.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/rand.h"
#include "ram/lend.h"
#include "ram/move.h"
#include "ram/share.h"
#include "ram/still.h"

#define MIB     (1ULL << 20)
#define HIGH    (4096 * MIB)
#define LOW     (2 * MIB + 3 * PAGE_SIZE) /* bytes at 0: the last piece is a small one */
#define ALL     (LOW + 2 * MIB)           /* and at HIGH, all a file's */
#define PIECE   (1ULL << MOVE_PIECE)
#define WRITERS 3

static struct {
    struct ram ram;
    int fd;
    uint8_t *file, *was; /* both slots, one behind the other: the file's bytes, and what they should be */
    _Atomic bool stop;
    _Atomic uint64_t changes, wrong;
} f;

static uint64_t place(uint64_t n) { return n < LOW ? n : HIGH + n - LOW; }

static struct ram_slot *slot_at(uint64_t n, uint64_t *off)
{
    *off = n < LOW ? n : n - LOW;
    return ram_slot_of(&f.ram, place(n));
}

/* Every second page of the file is zeroes. */
static int setup(void **state)
{
    struct rand_source rnd;

    rand_init_seeded(&rnd, 1);
    f.fd = memfd_create("file", 0);
    assert_int_equal(ftruncate(f.fd, ALL), 0);
    f.file = mmap(NULL, ALL, PROT_READ | PROT_WRITE, MAP_SHARED, f.fd, 0);
    for (uint64_t n = 0; n < ALL; n += 2 * PAGE_SIZE)
        rand_bytes(&rnd, f.file + n, PAGE_SIZE);
    f.was = mmap(NULL, ALL, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memcpy(f.was, f.file, ALL);
    ram_init(&f.ram);
    assert_int_equal(ram_add_slot(&f.ram, 0, LOW, false), 0);
    assert_int_equal(ram_add_slot(&f.ram, HIGH, ALL - LOW, false), 0);
    assert_int_equal(ram_add_slot(&f.ram, 4 * MIB, MIB, false), 0); /* nobody's */
    assert_int_equal(ram_add_slot(&f.ram, 8 * MIB, MIB, true), 0);
    assert_int_equal(ram_map_file(&f.ram, 0, f.fd, 0), 0);
    assert_int_equal(ram_map_file(&f.ram, 3, f.fd, LOW), 0);
    assert_int_equal(ram_map_file(&f.ram, 2, f.fd, 0), 0);
    ram_move_init(&f.ram);
    assert_true(f.ram.moves);
    f.changes = f.wrong = 0;
    return 0;
}

static int teardown(void **state)
{
    ram_fini(&f.ram);
    munmap(f.file, ALL);
    munmap(f.was, ALL);
    close(f.fd);
    return 0;
}

static void change(struct rand_source *rnd, uint64_t page, const uint8_t *bytes)
{
    uint64_t off = page + rand_below(rnd, PAGE_SIZE - 64), len = 1 + rand_below(rnd, PAGE_SIZE - PAGE_OFFSET(off)), got;
    uint8_t old, *lent;

    switch (rand_below(rnd, 5)) {
    case 0:
        ram_write(&f.ram, place(off), bytes, len);
        memcpy(f.was + off, bytes, len);
        break;
    case 1:
        ram_fill(&f.ram, place(off), 3, len);
        memset(f.was + off, 3, len);
        break;
    case 2:
        ram_exchange(&f.ram, place(off), bytes[1], &old);
        atomic_fetch_add(&f.wrong, old != f.was[off]);
        f.was[off] = bytes[1];
        break;
    case 3:
        ram_enter(&f.ram);
        lent = ram_lend(&f.ram, place(off), len, &got);
        memcpy(lent, bytes, got);
        ram_lend_end(&f.ram, place(off), len);
        ram_leave(&f.ram);
        memcpy(f.was + off, bytes, got);
        break;
    default:
        ram_discard(&f.ram, place(page), PAGE_SIZE);
        memset(f.was + page, 0, PAGE_SIZE);
    }
}

/* Each has pages of its own, several in each piece, and looks whether they are as it left them. */
static void *writer(void *opaque)
{
    uint64_t me = (uintptr_t)opaque % WRITERS;
    uint8_t bytes[PAGE_SIZE], now[PAGE_SIZE];
    struct rand_source rnd;

    rand_init_seeded(&rnd, (uintptr_t)opaque);
    rand_bytes(&rnd, bytes, sizeof(bytes));
    while (!atomic_load(&f.stop)) {
        uint64_t page = (rand_below(&rnd, ALL / PAGE_SIZE / WRITERS) * WRITERS + me) * PAGE_SIZE;

        bytes[1]++;
        change(&rnd, page, bytes);
        ram_read(&f.ram, place(page), now, PAGE_SIZE);
        atomic_fetch_add(&f.wrong, memcmp(now, f.was + page, PAGE_SIZE) != 0);
        atomic_fetch_add(&f.changes, 1);
    }
    return NULL;
}

static void start(pthread_t *t, unsigned seed)
{
    atomic_store(&f.stop, false);
    for (uintptr_t n = 0; n < WRITERS; n++)
        assert_int_equal(pthread_create(&t[n], NULL, writer, (void *)(seed * WRITERS + n)), 0);
}

static void stop(pthread_t *t)
{
    atomic_store(&f.stop, true);
    for (unsigned n = 0; n < WRITERS; n++)
        pthread_join(t[n], NULL);
}

/* Move pieces [from, to) of all, in some order, each as soon as nobody is changing memory. */
static void move(uint64_t from, uint64_t to)
{
    for (uint64_t k = from; k < to; k++) {
        uint64_t n = (from + (k - from) * 7 % (to - from)) * PIECE, off;
        struct ram_slot *s = slot_at(n, &off);
        int r = 0;

        while (ram_may_move(s, off) && (r = ram_move(&f.ram, s, off)) == -EBUSY)
            usleep(10);
        assert_int_equal(r, 0);
    }
}

static void compare_all(void)
{
    static uint8_t page[PAGE_SIZE];

    for (uint64_t n = 0; n < ALL; n += PAGE_SIZE) {
        assert_int_equal(ram_read(&f.ram, place(n), page, PAGE_SIZE), 0);
        assert_memory_equal(page, f.was + n, PAGE_SIZE);
    }
}

static void nothing_is_lost(void **state)
{
    pthread_t t[WRITERS];
    uint64_t off;

    for (unsigned round = 0; round < 10; round++) {
        start(t, round);
        move(0, ALL / PIECE + 1);
        stop(t);
        assert_int_equal(f.wrong, 0);
        compare_all();
        for (uint64_t n = 0; n < ALL; n += PAGE_SIZE) {
            const struct ram_slot *s = slot_at(n, &off);
            assert_true(ram_shared_at(s, off));
        }
        teardown(state);
        setup(state);
    }
}

/* Others that map the file see what was moved, and what is written there afterwards; the file that it came from stays as it was. */
static void others_see_it(void **state)
{
    uint64_t base;
    int fd = ram_shared_fd(&f.ram.slot[0], &base);
    uint8_t *other = mmap(NULL, PIECE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)(base + PIECE));
    uint64_t before = ram_shared_used(&f.ram);

    assert_true(other != MAP_FAILED);
    assert_int_equal(before, 0);
    ram_fill(&f.ram, PIECE, 9, 8);
    assert_int_equal(ram_move(&f.ram, &f.ram.slot[0], PIECE + 5 * PAGE_SIZE + 1), 0);
    assert_int_equal(ram_shared_used(&f.ram), PIECE / 2); /* the others are zeroes */
    assert_int_equal(other[0], 9);
    assert_memory_equal(other + 8, f.file + PIECE + 8, PIECE - 8);
    other[20] = 77;
    ram_fill(&f.ram, PIECE + 21, 78, 1);
    assert_int_equal(*(uint8_t *)ram_borrow(&f.ram, PIECE + 20, 1), 77);
    assert_int_equal(other[21], 78);
    assert_memory_equal(f.file, f.was, ALL);
    munmap(other, PIECE);
}

static void some_may_be_moved(void **state)
{
    struct ram_slot *low = &f.ram.slot[0];
    uint8_t old;

    assert_true(ram_may_move(low, 0) && ram_may_move(low, LOW - 1) && ram_may_move(&f.ram.slot[3], 0));
    assert_false(ram_may_move(&f.ram.slot[1], 0) || ram_may_move(&f.ram.slot[2], 0)); /* not a file's; read-only */
    ram_enter(&f.ram);
    ram_exchange(&f.ram, 5, 1, &old); /* it nests */
    assert_int_equal(ram_move(&f.ram, low, 0), -EBUSY);
    assert_true(ram_may_move(low, 0));
    ram_leave(&f.ram);
    assert_int_equal(ram_move(&f.ram, low, PIECE), 0);
    assert_int_equal(ram_move(&f.ram, low, LOW - 1), 0);
    assert_true(ram_may_move(low, PIECE - 1) && !ram_may_move(low, PIECE) && !ram_may_move(low, 2 * PIECE - 1) && ram_may_move(low, 2 * PIECE));
    assert_int_equal(ram_shared_like(low, 5, LOW - 5), PIECE - 5);
    assert_int_equal(ram_shared_like(low, PIECE, LOW - PIECE), PIECE);
    assert_int_equal(ram_shared_like(low, 2 * PIECE, LOW - 2 * PIECE), 2 * MIB - 2 * PIECE);
    assert_int_equal(ram_shared_like(low, 2 * MIB, LOW - 2 * MIB), LOW - 2 * MIB);
    assert_int_equal(ram_discard(&f.ram, 0, 3 * PIECE), 0); /* of both kinds */
    memset(f.was, 0, 3 * PIECE);
    assert_int_equal(ram_shared_used(&f.ram), 2 * PAGE_SIZE); /* at the slot's end */
    compare_all();
}

/* A machine that is saved while pieces are moved. */
static void child_sees_what_was(void **state)
{
    static uint8_t buf[PIECE];
    pthread_t t[WRITERS];
    uint64_t off;
    int status;

    assert_int_equal(ram_still_begin(&f.ram), 1); /* nothing was moved, the host's kernel does it */
    move(0, ALL / PIECE / 2);
    start(t, 50);
    usleep(20000);
    stop(t);
    assert_int_equal(ram_still_begin(&f.ram), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        int wrong = 0;

        for (uint64_t n = 0; n < LOW; n += PAGE_SIZE) {
            const struct ram_slot *s = slot_at(n, &off);
            wrong += ram_still_read(&f.ram, s, off, PAGE_SIZE, buf) != 0 || memcmp(buf, f.was + n, PAGE_SIZE);
            if (n % (8 * PAGE_SIZE) == 0)
                usleep(500);
        }
        for (uint64_t n = LOW; n + PIECE <= ALL; n += PIECE) {
            const struct ram_slot *s = slot_at(n, &off);
            wrong += ram_still_read(&f.ram, s, off, PIECE, buf) != 0 || memcmp(buf, f.was + n, PIECE);
        }
        _exit(wrong != 0);
    }
    start(t, 51);
    move(ALL / PIECE / 2, ALL / PIECE + 1);
    assert_int_equal(waitpid(child, &status, 0), child);
    ram_still_end(&f.ram);
    stop(t);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    assert_int_equal(f.wrong, 0);
    compare_all();
    assert_true(f.changes > 100);
}

int main(void)
{
#define T(t) cmocka_unit_test_setup_teardown(t, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(nothing_is_lost),
        T(others_see_it),
        T(some_may_be_moved),
        T(child_sees_what_was),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
