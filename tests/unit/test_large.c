/* Large pages for shared memory: which pieces the host is asked for, when, and what comes of it; on a host that has them, one that refuses, and this one.
 * madvise() is wrapped (--wrap). */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/bits.h"
#include "base/clock.h"
#include "base/map.h"
#include "ram/large.h"
#include "ram/lend.h"
#include "ram/share.h"

#define MIB  (1ULL << 20)
#define BASE MIB /* not at a piece's beginning, and the end is none */
#define SIZE (17 * MIB + PAGE_SIZE)

int __real_madvise(void *p, size_t size, int advice);
int __wrap_madvise(void *p, size_t size, int advice);

static struct {
    _Atomic unsigned asked, outside;
    _Atomic int error;   /* refuse with it, or 0: */
    _Atomic bool really; /* ask the kernel, or only say so */
    _Atomic uintptr_t from, to;
} host;

int __wrap_madvise(void *p, size_t size, int advice)
{
    uintptr_t at = (uintptr_t)p;

    if (advice != MADV_COLLAPSE)
        return __real_madvise(p, size, advice);
    host.asked++;
    host.outside += at < host.from || at + size > host.to || (at & (LARGE_PAGE - 1)) || size != LARGE_PAGE;
    if (host.error) {
        errno = host.error;
        return -1;
    }
    return host.really ? __real_madvise(p, size, advice) : 0;
}

static void begin(struct ram *r)
{
    ram_init(r);
    ram_share(r, true);
    assert_int_equal(ram_add_slot(r, BASE, SIZE, false), 0);
    host.from = (uintptr_t)r->slot[0].hva;
    host.to = host.from + SIZE;
    host.asked = host.outside = 0;
    host.error = 0;
    host.really = false;
    assert_int_equal(ram_large_start(r), 0);
    assert_non_null(r->large);
}

static void pause_ms(unsigned ms) { nanosleep(&(struct timespec){ .tv_nsec = ms * 1000000L }, NULL); }

static void await_asked(unsigned n)
{
    for (unsigned k = 0; k < 5000 && host.asked < n; k++)
        pause_ms(1);
    pause_ms(5);
    assert_int_equal(host.asked, n);
}

static void each_piece_is_asked_for_once(void **state)
{
    static const uint8_t kernel[5 * MIB];
    uint8_t buf[100] = { 1 };
    uint64_t n;
    struct ram r;

    begin(&r);
    await_asked(0);
    for (uint64_t off = 0; off < SIZE; off += PAGE_SIZE)
        ram_touch(&r, &r.slot[0], off, true);
    await_asked(8); /* of 2 to 18 MiB; what is around them are parts */
    assert_int_equal(host.outside, 0);
    assert_int_equal(ram_write(&r, 6 * MIB - 50, buf, sizeof(buf)), 0);
    await_asked(8);
    assert_int_equal(ram_discard(&r, 4 * MIB + PAGE_SIZE, 4 * MIB), 0); /* one piece of three */
    assert_int_equal(ram_write(&r, 4 * MIB, buf, 1), 0);
    assert_int_equal(ram_write(&r, 8 * MIB, buf, 1), 0);
    await_asked(8);
    assert_int_equal(ram_write(&r, 7 * MIB, buf, 1), 0);
    await_asked(9);
    ram_fini(&r);
    begin(&r);
    assert_non_null(ram_lend(&r, 3 * MIB, 4 * MIB, &n)); /* three pieces */
    ram_lend_end(&r, 3 * MIB, 4 * MIB);
    await_asked(3);
    assert_int_equal(ram_load(&r, 8 * MIB, kernel, sizeof(kernel)), 0); /* and three more */
    await_asked(6);
    ram_fini(&r);
}

/* It is asked again, but seldom; and when it gives, as ever. */
static void a_host_that_refuses_is_left_alone(void **state)
{
    uint64_t start = clock_host_ns(CLOCK_MONOTONIC), ms;
    unsigned most = 1;
    struct ram r;

    begin(&r);
    host.error = EAGAIN;
    do {
        for (uint64_t off = 0; off < SIZE; off += PAGE_SIZE)
            ram_touch(&r, &r.slot[0], off, true);
        ms = (clock_host_ns(CLOCK_MONOTONIC) - start) / NSEC_PER_MSEC;
    } while (ms < 300);
    for (uint64_t sum = 1; sum < ms; sum = 2 * sum + 1)
        most++; /* after 0, 1, 3, 7, ... ms */
    assert_in_range(host.asked, 3, most + 1);
    host.error = 0;
    host.asked = 0;
    for (unsigned k = 0; k < 5000 && host.asked < 8; k++) {
        for (uint64_t off = 0; off < SIZE; off += PAGE_SIZE)
            ram_touch(&r, &r.slot[0], off, false);
        pause_ms(1);
    }
    pause_ms(5);
    for (uint64_t n = 1; n < 9; n++)
        assert_int_equal(r.slot[0].touched[n], 1);
    ram_fini(&r);
}

/* Of the real one: does it give any? */
static bool host_collapses(void)
{
    int fd = memfd_create("try", MFD_CLOEXEC);
    uint8_t *p = map_memory_at(LARGE_PAGE, 0);
    bool gives;

    assert_true(p && fd >= 0 && ftruncate(fd, LARGE_PAGE) == 0);
    assert_true(mmap(p, LARGE_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) == p);
    *p = 1;
    gives = __real_madvise(p, LARGE_PAGE, MADV_COLLAPSE) == 0;
    munmap(p, LARGE_PAGE);
    close(fd);
    return gives;
}

static void bytes_are_the_same(void **state)
{
    uint8_t v = 7, got[PAGE_SIZE], zero[PAGE_SIZE] = { 0 };
    bool gives = host_collapses();
    struct ram r;

    begin(&r);
    host.really = true;
    assert_int_equal(ram_write(&r, 5 * MIB, &v, 1), 0);
    assert_int_equal(ram_fill(&r, 5 * MIB + 3 * PAGE_SIZE, 3, 2 * PAGE_SIZE), 0);
    for (unsigned k = 0; k < 2000 && gives && ram_shared_used(&r) < LARGE_PAGE; k++) {
        pause_ms(1);
        ram_touch(&r, &r.slot[0], 4 * MIB, false); /* pages that are in use elsewhere just then are refused: whoever comes next asks again */
    }
    if (gives)
        assert_int_equal(ram_shared_used(&r), LARGE_PAGE);
    assert_int_equal(ram_read(&r, 5 * MIB, got, 1), 0);
    assert_int_equal(got[0], 7);
    assert_int_equal(ram_read(&r, 5 * MIB + 4 * PAGE_SIZE, got, PAGE_SIZE), 0);
    assert_true(got[0] == 3 && got[PAGE_SIZE - 1] == 3);
    assert_int_equal(ram_discard(&r, 5 * MIB + 3 * PAGE_SIZE, PAGE_SIZE), 0); /* out of its middle */
    assert_int_equal(ram_read(&r, 5 * MIB + 4 * PAGE_SIZE, got, PAGE_SIZE), 0);
    assert_true(got[0] == 3 && got[PAGE_SIZE - 1] == 3);
    assert_int_equal(ram_read(&r, 5 * MIB + 3 * PAGE_SIZE, got, PAGE_SIZE), 0);
    assert_memory_equal(got, zero, PAGE_SIZE);
    assert_int_equal(ram_discard(&r, 4 * MIB, 2 * MIB), 0);
    assert_int_equal(ram_shared_used(&r), 0);
    ram_fini(&r);
}

static void private_memory_has_no_thread(void **state)
{
    struct ram r;

    ram_init(&r);
    assert_int_equal(ram_add_slot(&r, 0, 4 * MIB, false), 0);
    assert_int_equal(ram_large_start(&r), 0);
    assert_null(r.large);
    ram_touch(&r, &r.slot[0], 0, true);
    ram_fini(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_piece_is_asked_for_once),
        cmocka_unit_test(a_host_that_refuses_is_left_alone),
        cmocka_unit_test(bytes_are_the_same),
        cmocka_unit_test(private_memory_has_no_thread),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
