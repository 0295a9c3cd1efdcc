/* Hostile HTTP: whatever the bytes and however they are cut, a request is whole, refused, or not yet whole; bounded, and the
 * same for every cut.
 *
 * The first byte of an input says in which pieces the rest comes.
 */
#include "fuzz.h"

#include <string.h>

#include "api/http.h"
#include "base/bits.h"

struct outcome {
    unsigned whole, bad;
    int status;
    uint64_t sum; /* of all requests: method, target, body */
};

static void note(struct outcome *o, const void *data, size_t len)
{
    const uint8_t *p = data;

    for (size_t i = 0; i < len; i++)
        o->sum = (o->sum ^ p[i]) * 0x100000001b3ULL;
}

static void check_whole(struct outcome *o, const struct http_request *h)
{
    FUZZ_CHECK(h->target[0] == '/');
    FUZZ_CHECK(strlen(h->target) <= HTTP_TARGET_MAX);
    FUZZ_CHECK(h->len <= HTTP_BODY_MAX);
    FUZZ_CHECK(h->method && h->method[0]);
    FUZZ_CHECK(strlen(h->upgrade) < sizeof(h->upgrade));
    FUZZ_CHECK(!h->len || h->body[h->len] == 0);
    o->whole++;
    note(o, h->method, strlen(h->method));
    note(o, h->target, strlen(h->target));
    note(o, h->body, h->len);
}

/* All requests of one connection, in pieces of at most step bytes. */
static struct outcome run(const char *data, size_t len, size_t step)
{
    struct outcome o = { .sum = 1 };
    struct http_request h;

    http_init(&h);
    for (size_t at = 0; at < len && !o.bad;) {
        size_t n = len - at < step ? len - at : step, used = 0;
        enum http_state st = http_feed(&h, data + at, n, &used);

        FUZZ_CHECK(used <= n);
        at += used;
        if (st == HTTP_WHOLE) {
            check_whole(&o, &h);
            http_reset(&h);
        } else if (st == HTTP_BAD) {
            FUZZ_CHECK(h.status >= 400 && h.status < 600);
            FUZZ_CHECK(http_reason(h.status)[0]);
            o.bad++;
            o.status = h.status;
        } else {
            FUZZ_CHECK(used == n); /* or we would go round for ever */
        }
    }
    FUZZ_CHECK(h.len <= HTTP_BODY_MAX);
    http_fini(&h);
    return o;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct outcome whole, pieces;

    if (size < 2)
        return 0;
    whole = run((const char *)data + 1, size - 1, 4096);
    pieces = run((const char *)data + 1, size - 1, 1 + data[0] % 17);
    /* A head that is too long is found at other places; all else is the same. */
    if (whole.status != 431 && pieces.status != 431) {
        FUZZ_CHECK(whole.whole == pieces.whole && whole.bad == pieces.bad && whole.sum == pieces.sum);
    }
    return 0;
}

size_t fuzz_seed(unsigned n, uint8_t *buf, size_t size)
{
    static const char *const seeds[] = {
        "\3GET /v1/machine HTTP/1.1\r\nHost: x\r\n\r\n",
        "\7PUT /v1/memory HTTP/1.1\r\nContent-Length: 16\r\n\r\n{\"bytes\": 65536}GET /metrics HTTP/1.0\r\n\r\n",
        "\1POST /v1/pause HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n{\"a\"\r\n3;x=y\r\n:1}\r\n0\r\nT: r\r\n\r\n",
        "\20GET /v1/console?replay=10&readonly=1 HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: vitro-console\r\n\r\nrest",
        "\5PUT /boot-source HTTP/1.1\r\nExpect: 100-continue\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
        "\2CONNECT host:80 HTTP/1.1\r\n\r\n",
        "\2GET http://localhost/machine-config HTTP/1.1\r\nAccept: */*\r\n folded\r\n\r\n",
    };
    size_t len;

    if (n >= ARRAY_LEN(seeds) || (len = strlen(seeds[n])) > size)
        return 0;
    memcpy(buf, seeds[n], len);
    return len;
}
