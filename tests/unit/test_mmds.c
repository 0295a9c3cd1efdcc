/* The server inside a network port (net/inner.h) and the metadata service behind it: a guest that is well behaved, slow, deaf or rude. */
#include "test.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/fc_mmds.h"
#include "net/net.h"

enum { FIN = 1, SYN = 2, RST = 4, PSH = 8, ACK = 16 };
#define MS 1000000ULL

static struct {
    struct mmds mmds;
    struct inner *in;
    uint64_t now;
    uint8_t frame[2048], got[64][1600]; /* what came */
    uint32_t len[64];
    unsigned count;
    uint32_t seq, ack; /* the guest's, and what it has heard */
    uint16_t window, port;
} f;

static uint32_t be(const uint8_t *p, unsigned n)
{
    uint32_t v = 0;

    while (n-- > 0)
        v = v << 8 | *p++;
    return v;
}

static void put(uint8_t *p, uint32_t v, unsigned n)
{
    while (n-- > 0) {
        p[n] = (uint8_t)v;
        v >>= 8;
    }
}

static void on_frame(void *opaque, uint8_t *data, uint32_t len)
{
    assert_true(f.count < 64 && len <= 1514);
    memcpy(f.got[f.count], data, len);
    f.len[f.count++] = len;
}

static int setup(void **state)
{
    json_t *root = json_pack("{s:{s:s, s:{s:s}, s:i}}", "latest", "id", "ami-1", "sub", "x", "y", "n", 7);

    memset(&f, 0, sizeof(f));
    mmds_init(&f.mmds);
    f.now = 1000 * MS;
    f.window = 60000;
    f.in = inner_create(&f.mmds.server, on_frame, NULL);
    assert_int_equal(mmds_put(&f.mmds, root), 0);
    json_decref(root);
    return 0;
}

static int teardown(void **state)
{
    inner_destroy(f.in);
    mmds_fini(&f.mmds);
    return 0;
}

/* A segment from the guest; what came back is in got. */
static void say(unsigned flags, const char *text)
{
    uint8_t *d = f.frame;
    uint32_t n = (uint32_t)strlen(text);
    struct net_frame frame = { .data = d, .len = 54 + n };

    memset(d, 0, 54);
    memcpy(d, "\x06\x00\xa9\xfe\xa9\xfe\x52\x54\x00\x12\x34\x56\x08\x00\x45", 15);
    put(d + 16, 40 + n, 2);
    d[23] = 6;
    put(d + 26, 0x0a00020f, 4);
    put(d + 30, 0xa9fea9fe, 4);
    put(d + 34, 4000U + f.port, 2);
    put(d + 36, 80, 2);
    put(d + 38, f.seq, 4);
    put(d + 42, f.ack, 4);
    d[46] = 0x50;
    d[47] = (uint8_t)flags;
    put(d + 48, f.window, 2);
    memcpy(d + 54, text, n);
    f.count = 0;
    assert_true(inner_take(f.in, &frame, f.now));
    f.seq += n + !!(flags & SYN) + !!(flags & FIN);
}

static unsigned flags(unsigned n) { return n < f.count ? f.got[n][47] : 0; }
static uint32_t offset(unsigned n) { return 34 + (f.got[n][46] >> 4) * 4U; }

static void connect_guest(void)
{
    f.seq = 5000;
    f.ack = 0;
    say(SYN, "");
    assert_int_equal(f.count, 1);
    assert_int_equal(flags(0), SYN | ACK);
    assert_int_equal(be(f.got[0] + 42, 4), 5001);
    f.ack = be(f.got[0] + 38, 4) + 1;
    say(ACK, "");
    assert_int_equal(f.count, 0);
}

/* Everything that came, in order, as a text. */
static const char *heard(void)
{
    static char text[65536];
    size_t len = 0;

    for (unsigned n = 0; n < f.count; n++) {
        uint32_t part = f.len[n] - offset(n);

        if (!part && !(flags(n) & FIN))
            continue;
        assert_int_equal(be(f.got[n] + 38, 4), f.ack);
        memcpy(text + len, f.got[n] + offset(n), part);
        len += part;
        f.ack += part + (flags(n) & FIN);
    }
    text[len] = 0;
    return text;
}

static const char *ask(const char *request)
{
    const char *text;

    connect_guest();
    say(ACK | PSH, request);
    text = heard();
    assert_true(flags(f.count - 1) & FIN);
    say(ACK | FIN, "");
    assert_int_equal(f.count, 1);
    say(ACK, ""); /* there is no connection any more */
    assert_int_equal(flags(0), RST | ACK);
    return text;
}

static void test_arp(void **state)
{
    struct net_frame frame = { .data = f.frame, .len = 42 };

    memcpy(f.frame, "\xff\xff\xff\xff\xff\xff\x52\x54\x00\x12\x34\x56\x08\x06\x00\x01\x08\x00\x06\x04\x00\x01\x52\x54\x00\x12\x34\x56\x0a\x00\x02\x0f\0\0\0\0\0\0"
                    "\xa9\xfe\xa9\xfe", 42);
    assert_true(inner_take(f.in, &frame, f.now));
    assert_int_equal(f.count, 1);
    assert_int_equal(f.got[0][21], 2);
    assert_memory_equal(f.got[0] + 28, "\xa9\xfe\xa9\xfe\x52\x54\x00\x12\x34\x56\x0a\x00\x02\x0f", 14);
    f.frame[41] = 1; /* somebody else's */
    assert_false(inner_take(f.in, &frame, f.now));
    frame.len = 41;
    assert_false(inner_take(f.in, &frame, f.now));
}

static void test_answers(void **state)
{
    assert_non_null(strstr(ask("GET /latest HTTP/1.1\r\nHost: x\r\n\r\n"), "\r\n\r\nid\nn\nsub/"));
    assert_non_null(strstr(ask("GET /latest/id HTTP/1.1\r\n\r\n"), "\r\n\r\nami-1"));
    assert_non_null(strstr(ask("GET /latest/sub/ HTTP/1.1\r\naccept: application/json\r\n\r\n"), "\r\n\r\n{\"x\":\"y\"}"));
    assert_non_null(strstr(ask("GET /latest/n HTTP/1.0\r\n\r\n"), "HTTP/1.1 501 "));
    assert_non_null(strstr(ask("GET /none HTTP/1.0\r\n\r\n"), "HTTP/1.1 404 Not Found\r\n"));
    assert_non_null(strstr(ask("GET none HTTP/1.0\r\n\r\n"), "HTTP/1.1 400 "));
    assert_non_null(strstr(ask("DELETE / HTTP/1.0\r\n\r\n"), "Allow: GET, PUT\r\n"));
    f.mmds.v2 = true;
    assert_non_null(strstr(ask("GET /latest HTTP/1.1\r\n\r\n"), "HTTP/1.1 401 Unauthorized\r\n"));
}

static void test_tokens(void **state)
{
    const char *text = strstr(ask("PUT /latest/api/token HTTP/1.1\r\nX-metadata-token-ttl-seconds: 60\r\n\r\n"), "\r\n\r\n");
    char request[200];

    f.mmds.v2 = true;
    assert_non_null(text);
    assert_int_equal(strlen(text + 4), MMDS_TOKEN);
    snprintf(request, sizeof(request), "GET /latest/id HTTP/1.1\r\nX-aws-ec2-metadata-token: %s\r\n\r\n", text + 4);
    assert_non_null(strstr(ask(request), "ami-1"));
    request[60] ^= 1;
    assert_non_null(strstr(ask(request), " 401 "));
    request[60] ^= 1;
    for (unsigned n = 0; n < MMDS_TOKENS; n++) /* the oldest goes */
        ask("PUT /latest/api/token HTTP/1.1\r\nX-metadata-token-ttl-seconds: 60\r\n\r\n");
    assert_non_null(strstr(ask(request), " 401 "));
    snprintf(request, sizeof(request), "GET /latest/id HTTP/1.1\r\nX-metadata-token: \r\n\r\n");
    assert_non_null(strstr(ask(request), " 401 "));
}

/* In pieces, twice, out of order; a whole request counts only once. */
static void test_pieces(void **state)
{
    connect_guest();
    say(ACK, "GET /latest/id HT");
    assert_int_equal(f.count, 1);
    assert_int_equal(be(f.got[0] + 42, 4), f.seq);
    f.seq -= 6; /* again, and more */
    say(ACK, "/id HTTP/1.0\r\n\r");
    f.seq += 10;
    say(ACK, "no");
    assert_int_equal(be(f.got[0] + 42, 4), f.seq - 12);
    f.seq -= 12;
    say(ACK, "\nrest");
    assert_non_null(strstr(heard(), "ami-1"));
}

/* A guest with a small window, that hears nothing for a while. */
static void test_slow(void **state)
{
    json_t *root = json_object();
    char *big = calloc(1, 20001), all[21000] = "";

    memset(big, 'x', 20000);
    json_object_set_new(root, "big", json_string(big));
    assert_int_equal(mmds_put(&f.mmds, root), 0);
    connect_guest();
    f.window = 3000;
    say(ACK, "GET /big HTTP/1.0\r\n\r\n");
    for (unsigned n = 0; n < 20 && !strstr(all, "xxx"); n++)
        strcat(all, heard());
    assert_true(strlen(all) <= 3000);
    f.count = 0;
    assert_int_equal(inner_tick(f.in, f.now + 100 * MS), 201);
    assert_int_equal(f.count, 0);
    f.ack -= (uint32_t)strlen(all); /* it did not hear that */
    *all = 0;
    f.now += 301 * MS;
    assert_true(inner_tick(f.in, f.now) > 0);
    assert_true(f.count > 0);
    for (unsigned n = 0; n < 20 && !(flags(f.count - 1) & FIN); n++) {
        strcat(all, heard());
        say(ACK, "");
    }
    strcat(all, heard());
    assert_true(strlen(all) > 20000 && !strcmp(all + strlen(all) - 20000, big));
    json_decref(root);
    free(big);
}

/* Who never answers is forgotten; so is the oldest of too many; and what was not asked for is refused. */
static void test_rude(void **state)
{
    connect_guest();
    say(ACK, "GET / HTTP/1.0\r\n\r\n");
    for (unsigned n = 0; n < 40; n++) {
        f.count = 0;
        f.now += 300 * MS;
        inner_tick(f.in, f.now);
    }
    assert_int_equal(inner_tick(f.in, f.now), -1);
    say(ACK, "");
    assert_int_equal(flags(0), RST | ACK);
    connect_guest();
    f.ack += 5;
    say(ACK, ""); /* what was never sent */
    assert_int_equal(flags(0), RST | ACK);
    connect_guest();
    say(FIN | ACK, ""); /* no request */
    assert_int_equal(flags(0), RST | ACK);
    connect_guest();
    say(RST, "");
    assert_int_equal(f.count, 0);
    assert_int_equal(inner_tick(f.in, f.now), -1);
    say(SYN | FIN, "");
    assert_int_equal(f.count, 0);
    for (unsigned n = 0; n < 3 * INNER_CONNS; n++) {
        f.now += 100 * MS;
        f.port++;
        connect_guest();
    }
    for (unsigned n = 0; n < INNER_CONNS; n++) { /* none of those is silent for long: there is no answer */
        f.port++;
        f.seq = 5000;
        say(SYN, "");
        if (!f.count)
            break;
        f.ack = be(f.got[0] + 38, 4) + 1;
        say(ACK, "");
    }
    assert_int_equal(f.count, 0);
    f.now += 1000 * MS;
    connect_guest();
    say(ACK, "GET /latest/id HTTP/1.0\r\n\r\n");
    assert_non_null(strstr(heard(), "ami-1"));
}

static void test_limit(void **state)
{
    json_t *big = json_object();
    char *text = calloc(1, MMDS_SIZE + 1);

    memset(text, 'x', MMDS_SIZE);
    json_object_set_new(big, "a", json_string(text));
    assert_int_equal(mmds_put(&f.mmds, big), -E2BIG);
    mmds_limit(&f.mmds, MMDS_SIZE + 8); /* {"a":"..."} */
    assert_int_equal(mmds_put(&f.mmds, big), 0);
    f.window = 20000;
    connect_guest();
    say(ACK, "GET / HTTP/1.0\r\nAccept: application/json\r\n\r\n");
    assert_non_null(strstr(heard(), "Content-Length: 51208\r\n"));
    mmds_limit(&f.mmds, MMDS_SIZE + 7);
    assert_int_equal(mmds_put(&f.mmds, big), -E2BIG);
    json_decref(big);
    free(text);
}

static void test_contents(void **state)
{
    json_t *patch = json_pack("{s:{s:n, s:{s:s}}}", "latest", "id", "sub", "z", "1"), *got, *big = json_object();
    char *text = calloc(1, MMDS_SIZE + 1);

    assert_int_equal(mmds_patch(&f.mmds, patch), 0);
    got = mmds_get(&f.mmds);
    json_decref(patch);
    patch = json_pack("{s:{s:i, s:{s:s, s:s}}}", "latest", "n", 7, "sub", "x", "y", "z", "1");
    assert_true(json_equal(got, patch));
    json_decref(got);
    memset(text, 'x', MMDS_SIZE - 8);
    json_object_set_new(big, "a", json_string(text)); /* {"a":"..."} */
    assert_int_equal(mmds_put(&f.mmds, big), 0);
    assert_int_equal(mmds_patch(&f.mmds, patch), -E2BIG);
    memset(text, 'x', MMDS_SIZE - 7);
    json_object_set_new(big, "a", json_string(text));
    assert_int_equal(mmds_put(&f.mmds, big), -E2BIG);
    json_decref(patch);
    json_decref(big);
    free(text);
}

#define CASE(t) cmocka_unit_test_setup_teardown(t, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_arp), CASE(test_answers), CASE(test_tokens), CASE(test_pieces), CASE(test_slow), CASE(test_rude), CASE(test_limit), CASE(test_contents),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
