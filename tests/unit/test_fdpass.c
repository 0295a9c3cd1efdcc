/* Descriptors beside bytes (src/base/fdpass.h). */
#include "test.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/fdpass.h"

static void pair_of(int pair[2], int type)
{
    assert_int_equal(socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, pair), 0);
}

static void pair_close(int pair[2])
{
    close(pair[0]);
    close(pair[1]);
}

/* Two descriptors of one open file come as new ones, of that file, closing on exec. */
static void test_there(void **state)
{
    int pair[2], fds[2], got[4];
    struct stat a, b;
    unsigned count;
    char text[8];

    (void)state;
    pair_of(pair, SOCK_SEQPACKET);
    fds[0] = open("/dev/null", O_RDONLY);
    fds[1] = pair[0];
    assert_int_equal(fdpass_send(pair[0], "abc", 3, fds, 2), 3);
    assert_int_equal(fdpass_recv(pair[1], text, sizeof(text), 0, got, ARRAY_LEN(got), &count), 3);
    assert_memory_equal(text, "abc", 3);
    assert_int_equal(count, 2);
    assert_int_not_equal(got[0], fds[0]);
    assert_int_equal(fstat(fds[0], &a) + fstat(got[0], &b), 0);
    assert_true(a.st_dev == b.st_dev && a.st_ino == b.st_ino);
    assert_int_equal(fcntl(got[0], F_GETFD), FD_CLOEXEC);
    close(got[0]);
    close(got[1]);
    close(fds[0]);
    pair_close(pair);
}

/* More than wanted: neither kept nor left open. An odd number is where CMSG_SPACE() has room for one more. */
static void test_more(void **state)
{
    int pair[2], got[3] = { -1, -1, -1 }, next;
    unsigned count;
    char byte;

    (void)state;
    pair_of(pair, SOCK_STREAM);
    assert_int_equal(fdpass_send(pair[0], "x", 1, (int[]){ 0, 0, 0 }, 3), 1);
    assert_int_equal(fdpass_recv(pair[1], &byte, 1, 0, got, 1, &count), 1);
    assert_int_equal(count, 1);
    assert_int_equal(got[1], -1);
    next = dup(0);
    assert_int_equal(next, got[0] + 1);
    close(next);
    close(got[0]);
    pair_close(pair);
}

static void test_none(void **state)
{
    int pair[2], got[1] = { -1 };
    unsigned count = 7;
    char byte;

    (void)state;
    pair_of(pair, SOCK_STREAM);
    assert_int_equal(fdpass_recv(pair[1], &byte, 1, MSG_DONTWAIT, got, 1, &count), -EAGAIN);
    assert_int_equal(count, 0);
    assert_int_equal(fdpass_send(pair[0], "x", 1, NULL, 0), 1);
    assert_int_equal(fdpass_recv(pair[1], &byte, 1, 0, got, 1, &count), 1);
    assert_int_equal(count, 0);
    assert_int_equal(fdpass_send(pair[0], "x", 1, got, FDPASS_MAX + 1), -E2BIG);
    close(pair[0]);
    assert_int_equal(fdpass_recv(pair[1], &byte, 1, 0, got, 1, &count), 0);
    assert_int_equal(fdpass_send(pair[1], "x", 1, NULL, 0), -EPIPE);
    close(pair[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_there),
        cmocka_unit_test(test_more),
        cmocka_unit_test(test_none),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
