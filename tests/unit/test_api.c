/* HTTP requests in pieces, and the console's ring, without sockets. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api/http.h"
#include "api/ring.h"

static enum http_state feed(struct http_request *h, const char *text, size_t *used)
{
    return http_feed(h, text, strlen(text), used);
}

static void test_plain(void **state)
{
    struct http_request h;
    size_t used;

    http_init(&h);
    assert_int_equal(feed(&h, "GET /v1/console?replay=5&x HTTP/1.1\r\nHost: a\r\n\r\n", &used), HTTP_WHOLE);
    assert_string_equal(h.method, "GET");
    assert_string_equal(h.target, "/v1/console");
    assert_string_equal(h.query, "replay=5&x");
    assert_true(h.keep_alive);
    assert_int_equal(h.len, 0);
    http_fini(&h);
}

/* What follows a request is not touched. */
static void test_pipelined(void **state)
{
    static const char text[] = "PUT /a HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcGET /b HTTP/1.0\r\n\r\n";
    struct http_request h;
    size_t used, more;

    http_init(&h);
    assert_int_equal(feed(&h, text, &used), HTTP_WHOLE);
    assert_string_equal(h.target, "/a");
    assert_string_equal(h.body, "abc");
    assert_string_equal(text + used, "GET /b HTTP/1.0\r\n\r\n");
    http_reset(&h);
    assert_int_equal(feed(&h, text + used, &more), HTTP_WHOLE);
    assert_string_equal(h.target, "/b");
    assert_false(h.keep_alive);
    assert_null(h.body);
    assert_int_equal(used + more, strlen(text));
    http_fini(&h);
}

static void test_pieces(void **state)
{
    static const char text[] = "POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n";
    struct http_request h;
    size_t used;

    http_init(&h);
    for (size_t i = 0; i + 1 < strlen(text); i++)
        assert_int_equal(http_feed(&h, text + i, 1, &used), HTTP_MORE);
    assert_int_equal(http_feed(&h, text + strlen(text) - 1, 1, &used), HTTP_WHOLE);
    assert_string_equal(h.body, "abc");
    http_fini(&h);
}

static void test_continue(void **state)
{
    struct http_request h;
    size_t used;

    http_init(&h);
    assert_int_equal(feed(&h, "PUT /x HTTP/1.1\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n", &used),
                     HTTP_CONTINUE);
    assert_int_equal(feed(&h, "{}", &used), HTTP_WHOLE);
    http_fini(&h);
}

static void test_upgrade(void **state)
{
    struct http_request h;
    size_t used;

    http_init(&h);
    assert_int_equal(feed(&h, "GET /c HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: vitro-console\r\n\r\n", &used), HTTP_WHOLE);
    assert_string_equal(h.upgrade, "vitro-console");
    http_reset(&h);
    assert_int_equal(feed(&h, "GET /c HTTP/1.1\r\nUpgrade: vitro-console\r\n\r\n", &used), HTTP_WHOLE);
    assert_string_equal(h.upgrade, ""); /* without Connection it is not meant for us */
    http_fini(&h);
}

static int refused(const char *text, size_t len)
{
    struct http_request h;
    enum http_state st = HTTP_MORE;

    http_init(&h);
    for (size_t at = 0; at < len && st != HTTP_BAD;) {
        size_t used, n = len - at < 4096 ? len - at : 4096;

        st = http_feed(&h, text + at, n, &used);
        assert_int_not_equal(st, HTTP_WHOLE);
        at += used;
    }
    http_fini(&h);
    return st == HTTP_BAD ? h.status : 0;
}

static void test_refused(void **state)
{
    static char big[100000];
    int n;

    assert_int_equal(refused("\x16\x03\x01", 3), 400);
    assert_int_equal(refused("CONNECT a:1 HTTP/1.1\r\n\r\n", 24), 400);
    assert_int_equal(refused("PUT / HTTP/1.1\r\nContent-Length: 65537\r\n\r\n", 43), 413);
    assert_int_equal(refused("PUT / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 56), 400);
    memset(big, 'a', sizeof(big));
    memcpy(big, "GET /", 5);
    assert_int_equal(refused(big, sizeof(big)), 414);
    n = sprintf(big, "GET / HTTP/1.1\r\nX: ");
    big[n] = 'a';
    assert_int_equal(refused(big, sizeof(big)), 431);
    n = sprintf(big, "PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n18000\r\n");
    big[n] = 'a';
    assert_int_equal(refused(big, sizeof(big)), 413);
}

static void test_head(void **state)
{
    char head[512];

    head[http_head(head, sizeof(head), 204, "x/y", 0, true)] = 0;
    assert_null(strstr(head, "Content-Length"));
    head[http_head(head, sizeof(head), 200, "x/y", 5, false)] = 0;
    assert_non_null(strstr(head, "Content-Length: 5\r\n"));
    assert_non_null(strstr(head, "Connection: close\r\n"));
}

/* Round the ring several times, by readers that keep up, fall behind, and come from outside. */
static void test_ring(void **state)
{
    char name[] = "/tmp/ring.XXXXXX";
    int fd = mkstemp(name);
    struct ring r;
    uint8_t chunk[1000], got[1000];
    uint64_t pos = 0, late = 0, outside = 0;
    long n;

    unlink(name);
    assert_int_equal(ring_init(&r, fd), 0);
    for (unsigned i = 0; i < 2000; i++) {
        memset(chunk, (int)(i & 0xff), sizeof(chunk));
        ring_write(&r, chunk, sizeof(chunk));
        assert_int_equal(ring_read(&r, &pos, got, sizeof(got)), sizeof(got));
        assert_memory_equal(chunk, got, sizeof(got));
    }
    assert_int_equal(pos, 2000000);
    assert_int_equal(ring_oldest(&r), 2000000 - RING_SIZE);
    assert_int_equal(ring_read(&r, &late, got, 1), 1);
    assert_int_equal(late, 2000000 - RING_SIZE + 1);
    assert_int_equal(got[0], (2000000 - RING_SIZE) / 1000 & 0xff);
    while ((n = ring_peek(fd, &outside, got, sizeof(got))) > 0)
        assert_true(got[0] == ((outside - (uint64_t)n) / 1000 & 0xff));
    assert_int_equal(n, 0);
    assert_int_equal(outside, 2000000);
    r.head->size = 1ULL << 40; /* what is not ours is not believed */
    assert_int_equal(ring_peek(fd, &outside, got, sizeof(got)), -22);
    ring_fini(&r);
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain),   cmocka_unit_test(test_pipelined), cmocka_unit_test(test_pieces),
        cmocka_unit_test(test_continue), cmocka_unit_test(test_upgrade),  cmocka_unit_test(test_refused),
        cmocka_unit_test(test_head),    cmocka_unit_test(test_ring),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
