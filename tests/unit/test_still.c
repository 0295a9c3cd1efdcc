/* Shared memory as it was (ram/still.h), read by a child process while threads change it in every way that there is. */
#include "test.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/rand.h"
#include "ram/lend.h"
#include "ram/share.h"
#include "ram/still.h"

#define MIB     (1ULL << 20)
#define HIGH    (4096 * MIB)
#define LOW     (2 * MIB)        /* bytes at 0 */
#define ALL     (LOW + 2 * MIB)  /* and at HIGH, all shared */
#define PIECE   (64 * 1024)
#define WRITERS 4

static struct {
    struct ram ram;
    uint8_t *was; /* both slots, one behind the other */
    _Atomic bool stop;
    _Atomic uint64_t changes;
} f;

/* The place in guest memory of byte n of both slots. */
static uint64_t place(uint64_t n) { return n < LOW ? n : HIGH + n - LOW; }

static int setup(void **state)
{
    ram_init(&f.ram);
    ram_share(&f.ram, true);
    assert_int_equal(ram_add_slot(&f.ram, 0, LOW, false), 0);
    assert_int_equal(ram_add_slot(&f.ram, HIGH, ALL - LOW, false), 0);
    ram_share(&f.ram, false);
    assert_int_equal(ram_add_slot(&f.ram, LOW, 2 * PAGE_SIZE, false), 0); /* a private one */
    f.was = mmap(NULL, ALL, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(f.was != MAP_FAILED);
    return 0;
}

static int teardown(void **state)
{
    munmap(f.was, ALL);
    ram_fini(&f.ram);
    return 0;
}

static void *writer(void *opaque)
{
    struct rand_source rnd;
    uint8_t bytes[3 * PAGE_SIZE], old, *lent;
    uint64_t n, got;

    rand_init_seeded(&rnd, (uintptr_t)opaque);
    rand_bytes(&rnd, bytes, sizeof(bytes));
    while (!atomic_load(&f.stop)) {
        uint64_t at = rand_below(&rnd, ALL - 4 * PAGE_SIZE), gpa = place(at), len = 1 + rand_below(&rnd, sizeof(bytes));

        if (at < LOW && at + sizeof(bytes) > LOW)
            continue;
        n = rand_below(&rnd, 16);
        bytes[n * 100]++;
        if (n < 4)
            ram_write(&f.ram, gpa, bytes, n == 0 ? 8 : len);
        else if (n < 7)
            ram_fill(&f.ram, gpa, (uint8_t)n, len);
        else if (n < 10)
            ram_exchange(&f.ram, gpa, (uint8_t)n, &old);
        else if (n < 13 && (lent = ram_lend(&f.ram, gpa, len, &got))) {
            memcpy(lent, bytes, got);
            ram_lend_end(&f.ram, gpa, len);
        } else if (n >= 13)
            ram_discard(&f.ram, gpa, len * 4);
        atomic_fetch_add(&f.changes, 1);
    }
    return NULL;
}

static const struct ram_slot *slot_at(uint64_t n, uint64_t *off)
{
    *off = n < LOW ? n : n - LOW;
    return ram_slot_of(&f.ram, place(n));
}

/* In the child: all pieces in some order, slowly. Returns how many are wrong. */
static int compare(unsigned seed)
{
    static uint8_t buf[PIECE];
    uint64_t pieces = ALL / PIECE, off;
    int wrong = 0;

    for (uint64_t k = 0; k < pieces; k++) {
        uint64_t at = (k * 7 + seed) % pieces * PIECE;
        const struct ram_slot *s = slot_at(at, &off);

        wrong += ram_still_read(&f.ram, s, off, PIECE, buf) != 0 || memcmp(buf, f.was + at, PIECE) != 0;
        if (k % 8 == 0)
            usleep(500);
    }
    return wrong;
}

static void child_sees_what_was(void **state)
{
    pthread_t t[WRITERS];
    int status;

    for (unsigned round = 0; round < 12; round++) {
        for (uint64_t n = 0; n < ALL; n += PIECE) {
            uint64_t off;
            const struct ram_slot *s = slot_at(n, &off);

            assert_int_equal(ram_shared_read(s, off, PIECE, f.was + n), 0);
        }
        assert_int_equal(ram_still_begin(&f.ram), 0);
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0)
            _exit(compare(round) ? 1 : 0);
        atomic_store(&f.stop, false);
        for (uintptr_t n = 0; n < WRITERS; n++)
            assert_int_equal(pthread_create(&t[n], NULL, writer, (void *)(round * WRITERS + n)), 0);
        assert_int_equal(waitpid(child, &status, 0), child);
        ram_still_end(&f.ram); /* the writers go on */
        usleep(2000);
        atomic_store(&f.stop, true);
        for (unsigned n = 0; n < WRITERS; n++)
            pthread_join(t[n], NULL);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), 0);
    }
    assert_true(f.changes > 100);
}

/* In whose way a page is, and until when. */
static void pages_are_kept_once(void **state)
{
    uint8_t page[PAGE_SIZE];

    assert_false(ram_must_keep(&f.ram, 0));
    assert_int_equal(ram_fill(&f.ram, 0, 7, 4 * PAGE_SIZE), 0);
    assert_int_equal(ram_still_begin(&f.ram), 0);
    assert_int_equal(ram_still_begin(&f.ram), -EBUSY);
    assert_true(ram_must_keep(&f.ram, 0) && ram_must_keep(&f.ram, PAGE_SIZE + 5) && ram_must_keep(&f.ram, HIGH));
    assert_false(ram_must_keep(&f.ram, LOW)); /* private */
    assert_false(ram_must_keep(&f.ram, HIGH - 1));
    ram_keep(&f.ram, PAGE_SIZE - 1, 2);
    assert_false(ram_must_keep(&f.ram, 0) || ram_must_keep(&f.ram, PAGE_SIZE));
    assert_true(ram_must_keep(&f.ram, 2 * PAGE_SIZE));
    assert_int_equal(ram_still_read(&f.ram, &f.ram.slot[0], 2 * PAGE_SIZE, PAGE_SIZE, page), 0);
    assert_false(ram_must_keep(&f.ram, 2 * PAGE_SIZE)); /* it has been read */
    assert_int_equal(ram_fill(&f.ram, 0, 8, 4 * PAGE_SIZE), 0);
    assert_int_equal(ram_still_read(&f.ram, &f.ram.slot[0], PAGE_SIZE, PAGE_SIZE, page), 0);
    assert_int_equal(page[0], 7);
    assert_int_equal(ram_still_read(&f.ram, &f.ram.slot[0], 3 * PAGE_SIZE, PAGE_SIZE, page), 0);
    assert_int_equal(page[PAGE_SIZE - 1], 7);
    ram_still_end(&f.ram);
    assert_false(ram_must_keep(&f.ram, HIGH));
    assert_int_equal(ram_still_begin(&f.ram), 0); /* from the beginning */
    assert_true(ram_must_keep(&f.ram, 0));
    assert_int_equal(ram_still_read(&f.ram, &f.ram.slot[0], 0, PAGE_SIZE, page), 0);
    assert_int_equal(page[0], 8);
    ram_still_end(&f.ram);
}

/* Memory that nobody has written stays without pages of the host's, whoever looks at it or gives it back. */
static void holes_stay_holes(void **state)
{
    static uint8_t buf[PIECE];
    uint64_t used;

    assert_int_equal(ram_fill(&f.ram, MIB, 1, PAGE_SIZE), 0);
    used = ram_shared_used(&f.ram);
    assert_int_equal(ram_still_begin(&f.ram), 0);
    assert_int_equal(ram_discard(&f.ram, 0, LOW), 0);
    assert_int_equal(ram_discard(&f.ram, HIGH, ALL - LOW), 0);
    assert_true(ram_must_keep(&f.ram, 0) && !ram_must_keep(&f.ram, MIB));
    for (uint64_t off = 0; off < LOW; off += PIECE) {
        assert_int_equal(ram_still_read(&f.ram, &f.ram.slot[0], off, PIECE, buf), 0);
        assert_int_equal(buf[0], off == MIB);
        assert_int_equal(buf[PAGE_SIZE], 0);
    }
    ram_still_end(&f.ram);
    assert_true(used > 0 && ram_shared_used(&f.ram) == 0);
}

static void private_memory_has_none(void **state)
{
    struct ram r;

    ram_init(&r);
    assert_int_equal(ram_add_slot(&r, 0, MIB, false), 0);
    assert_int_equal(ram_still_begin(&r), 1);
    assert_false(ram_must_keep(&r, 0));
    ram_still_end(&r);
    ram_fini(&r);
}

int main(void)
{
#define T(t) cmocka_unit_test_setup_teardown(t, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(child_sees_what_was),
        T(pages_are_kept_once),
        T(holes_stay_holes),
        cmocka_unit_test(private_memory_has_none),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
