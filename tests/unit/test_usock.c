/* Listening sockets (src/base/usock.h). listen() is wrapped: at that moment the socket must not be seen yet. */
#include "test.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/usock.h"

int __real_listen(int fd, int backlog);
int __wrap_listen(int fd, int backlog);

static struct {
    char folder[32];
    unsigned seen, listens;
    int fail; /* errno of listen() */
} f;

int __wrap_listen(int fd, int backlog)
{
    f.listens++;
    f.seen += access("sock", F_OK) == 0;
    errno = f.fail;
    return f.fail ? -1 : __real_listen(fd, backlog);
}

static int setup(void **state)
{
    memset(&f, 0, sizeof(f));
    strcpy(f.folder, "/tmp/usock.XXXXXX");
    assert_non_null(mkdtemp(f.folder));
    return chdir(f.folder);
}

static int teardown(void **state)
{
    unlink("sock");
    assert_int_equal(chdir("/"), 0);
    return rmdir(f.folder); /* nothing else is left there */
}

static int connect_to(const char *path)
{
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), r;

    strcpy(a.sun_path, path);
    r = connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0 ? -errno : 0;
    close(fd);
    return r;
}

/* By both kinds of names; the listener takes what connects. */
static void test_listens(void **state)
{
    char path[64];
    struct stat st;

    snprintf(path, sizeof(path), "%s/sock", f.folder);
    for (unsigned n = 0; n < 2; n++) {
        int fd = usock_listen(n ? path : "sock", 4), peer;

        assert_true(fd >= 0);
        assert_int_equal(f.listens, n + 1);
        assert_int_equal(f.seen, 0);
        assert_int_equal(stat("sock", &st), 0);
        assert_int_equal(st.st_mode, S_IFSOCK | 0600);
        assert_int_equal(st.st_nlink, 1);
        assert_int_equal(connect_to(path), 0);
        peer = accept(fd, NULL, NULL);
        assert_true(peer >= 0);
        close(peer);
        assert_int_equal(accept(fd, NULL, NULL), -1);
        assert_int_equal(errno, EAGAIN);
        close(fd);
        unlink("sock");
    }
}

/* What is there stays. */
static void test_taken(void **state)
{
    int fd = usock_listen("sock", 1);

    assert_true(fd >= 0);
    assert_int_equal(usock_listen("sock", 1), -EADDRINUSE);
    assert_int_equal(connect_to("sock"), 0);
    close(fd);
    assert_int_equal(usock_listen("sock", 1), -EADDRINUSE); /* also one that nobody is behind */
}

static void test_refused(void **state)
{
    char name[160];

    memset(name, 'x', sizeof(name));
    name[108] = 0;
    assert_int_equal(usock_listen(name, 1), -ENAMETOOLONG);
    name[107] = 0;
    int fd = usock_listen(name, 1);
    assert_true(fd >= 0);
    close(fd);
    unlink(name);
    assert_int_equal(usock_listen("none/sock", 1), -ENOENT);
    f.fail = ENOBUFS;
    assert_int_equal(usock_listen("sock", 1), -ENOBUFS);
    assert_int_equal(access("sock", F_OK), -1);
}

#define CASE(t) cmocka_unit_test_setup_teardown(t, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = { CASE(test_listens), CASE(test_taken), CASE(test_refused) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
