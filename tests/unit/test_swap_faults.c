/* The monitor's swap file on a host that fails: no place for it, errors when it is written, memory that cannot be given back. The guest's bytes stay
 * right, and what was not written is never dropped. The host's calls are wrapped (--wrap). */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/bits.h"
#include "base/err.h"
#include "ram/ram.h"
#include "ram/swap.h"

#define MIB  (1ULL << 20)
#define SIZE (16 * MIB)

int __real_sync_file_range(int fd, off_t off, off_t len, unsigned flags);
int __real_posix_fadvise64(int fd, off_t off, off_t len, int advice);
int __real_fallocate64(int fd, int mode, off_t off, off_t len);
int __wrap_sync_file_range(int fd, off_t off, off_t len, unsigned flags);
int __wrap_posix_fadvise64(int fd, off_t off, off_t len, int advice);
int __wrap_fallocate64(int fd, int mode, off_t off, off_t len);

static struct {
    _Atomic unsigned writes, fail_at; /* calls that write; the one that fails. 0: none */
    _Atomic unsigned failed, dropped_late;
    int room[2]; /* what the next calls of fallocate() give: 0 or an error */
} host;

int __wrap_sync_file_range(int fd, off_t off, off_t len, unsigned flags)
{
    unsigned n = atomic_fetch_add(&host.writes, 1) + 1;

    if (!host.fail_at || n != host.fail_at)
        return __real_sync_file_range(fd, off, len, flags);
    host.failed++;
    errno = n % 3 ? EIO : ENOSPC;
    return -1;
}

int __wrap_posix_fadvise64(int fd, off_t off, off_t len, int advice)
{
    host.dropped_late += host.failed != 0;
    return __real_posix_fadvise64(fd, off, len, advice);
}

int __wrap_fallocate64(int fd, int mode, off_t off, off_t len)
{
    int e = host.room[0];

    host.room[0] = host.room[1];
    host.room[1] = 0;
    if (!e)
        return __real_fallocate64(fd, mode, off, len);
    errno = e;
    return -1;
}

static int swap_make(struct ram *r, struct err *err)
{
    char dir[] = "swap-XXXXXX", path[32];
    int e;

    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/file", dir);
    ram_init(r);
    assert_int_equal(ram_add_slot(r, 0, SIZE, false), 0);
    e = ram_swap_create(r, path, RAM_SWAP_LIMIT_MIN, err);
    assert_int_equal(rmdir(dir), 0); /* no name is left, also of a file that has no place */
    return e;
}

static void write_all(struct ram *r, uint64_t round)
{
    for (uint64_t at = 0; at < SIZE; at += 8)
        assert_int_equal(ram_write(r, at, &(uint64_t){ at ^ round << 40 }, 8), 0);
}

static void check_all(struct ram *r, uint64_t round)
{
    uint64_t v = 0;

    for (uint64_t at = 0; at < SIZE; at += 8)
        if (ram_read(r, at, &v, 8) < 0 || v != (at ^ round << 40))
            fail_msg("%llx at %llx", (unsigned long long)v, (unsigned long long)at);
}

/* The first, the last of a piece, in the middle of things, late: one write fails, and nothing is dropped from then on. */
static void write_errors(void **state)
{
    static const unsigned at[] = { 1, 2, 3, 17, 18, 33, 40 };
    struct err err = { "" };
    struct ram r;

    for (unsigned k = 0; k < ARRAY_LEN(at); k++) {
        host.writes = host.failed = host.dropped_late = 0;
        host.fail_at = at[k];
        assert_int_equal(swap_make(&r, &err), 0);
        write_all(&r, k);
        assert_int_equal(ram_swap_start(&r), 0);
        for (unsigned n = 0; n < 3000 && !host.failed; n++) {
            usleep(10000);
            check_all(&r, k); /* which brings back what was dropped */
        }
        assert_int_equal(host.failed, 1);
        write_all(&r, k + 100);
        check_all(&r, k + 100);
        usleep(100000); /* some more looks of its thread */
        assert_int_equal(host.failed, 1); /* the hands stand still */
        assert_int_equal(host.dropped_late, 0);
        ram_fini(&r);
    }
    host.fail_at = 0;
}

/* A full disk, a file system that reserves nothing: refused before there is a machine, whose memory is what it was. Interrupted: asked again. */
static void no_room(void **state)
{
    static const int why[] = { ENOSPC, EDQUOT, EFBIG, EOPNOTSUPP, EIO };
    struct err err;
    struct ram r;

    for (unsigned k = 0; k < ARRAY_LEN(why); k++) {
        host.room[0] = k % 2 ? EINTR : why[k];
        host.room[1] = k % 2 ? why[k] : 0;
        err.text[0] = 0;
        assert_int_equal(swap_make(&r, &err), -why[k]);
        assert_non_null(strstr(err.text, "16 MiB: "));
        assert_int_equal(ram_swap_start(&r), 0);
        assert_int_equal(ram_swapped(&r), 0);
        write_all(&r, k);
        check_all(&r, k);
        ram_fini(&r);
    }
    host.room[0] = EINTR;
    assert_int_equal(swap_make(&r, &err), 0);
    ram_fini(&r);
}

/* Memory that the guest gives back is zeroes, whatever the file system can do. */
static void no_zeroes(void **state)
{
    struct err err = { "" };
    struct ram r;
    uint64_t v = 1;

    assert_int_equal(swap_make(&r, &err), 0);
    write_all(&r, 7);
    host.room[0] = EOPNOTSUPP;
    assert_int_equal(ram_discard(&r, MIB, MIB), 0);
    assert_int_equal(host.room[0], 0);
    for (uint64_t at = MIB; at < 2 * MIB; at += 8)
        assert_true(ram_read(&r, at, &v, 8) == 0 && v == 0);
    assert_true(ram_read(&r, 2 * MIB, &v, 8) == 0 && v == (2 * MIB ^ 7ULL << 40));
    ram_fini(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(write_errors),
        cmocka_unit_test(no_room),
        cmocka_unit_test(no_zeroes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
