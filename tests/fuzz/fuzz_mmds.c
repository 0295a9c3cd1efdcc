/* A hostile guest and the metadata service: frames of all kinds, with sequence numbers that fit often enough to get through, time that passes, and requests.
 * What comes back is whole frames for the guest, and not more of them than a few a frame.
 *
 * An input is a row of steps: a byte that says what comes, and its bytes.
 */
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "api/fc_mmds.h"
#include "base/bits.h"
#include "net/net.h"

static struct {
    struct mmds mmds;
    struct inner *in;
    uint32_t ack; /* what the service sent last, behind it */
    uint32_t seq;
    unsigned frames, bytes;
} f;

static uint16_t be16(const uint8_t *p) { return (uint16_t)(p[0] << 8 | p[1]); }

static void put32(uint8_t *p, uint32_t v)
{
    for (unsigned n = 0; n < 4; n++)
        p[n] = (uint8_t)(v >> (24 - 8 * n));
}

static void on_frame(void *opaque, uint8_t *d, uint32_t len)
{
    FUZZ_CHECK(len >= 42 && len <= 1514);
    f.frames++;
    f.bytes += len;
    if (be16(d + 12) == 0x0806)
        return;
    FUZZ_CHECK(be16(d + 12) == 0x0800 && be16(d + 16) == len - 14 && !memcmp(d + 26, f.mmds.server.ip, 4));
    f.ack = (uint32_t)be16(d + 38) << 16 | be16(d + 40);
    f.ack += len - 14 - 20 - (d[46] >> 4) * 4U + (d[47] & 1) + (d[47] >> 1 & 1);
}

/* A frame that is right but for what the input says. */
static uint32_t make(uint8_t *d, uint8_t flags, const uint8_t *p, size_t len)
{
    uint32_t n = 0;

    memset(d, 0, 54);
    memcpy(d, "\x06\x00\xa9\xfe\xa9\xfe\x52\x54\x00\x12\x34\x56\x08\x00\x45", 15);
    d[23] = 6;
    memcpy(d + 26, "\x0a\x00\x02\x0f", 4);
    memcpy(d + 30, f.mmds.server.ip, 4);
    d[35] = flags >> 6; /* one of four ports */
    d[37] = 80;
    put32(d + 38, f.seq);
    put32(d + 42, f.ack);
    d[46] = 0x50;
    d[47] = flags & 0x3f;
    d[48] = 0x20;
    if (flags & 2)
        f.seq++;
    else
        n = (uint32_t)(len < 1400 ? len : 1400);
    memcpy(d + 54, p, n);
    d[16] = (uint8_t)((40 + n) >> 8);
    d[17] = (uint8_t)(40 + n);
    f.seq += n + (flags & 1);
    return 54 + n;
}

static void begin(void)
{
    json_t *root = json_pack("{s:{s:s, s:i}}", "latest", "id", "ami", "n", 7);

    mmds_init(&f.mmds);
    f.in = inner_create(&f.mmds.server, on_frame, NULL);
    FUZZ_CHECK(f.in && root && mmds_put(&f.mmds, root) == 0);
    json_decref(root);
    f.seq = f.ack = 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *d = malloc(2048);
    uint64_t now = 1000000000;

    begin();
    f.mmds.v2 = size && data[0] & 1;
    for (size_t at = 1; at + 3 < size;) {
        size_t len = (size_t)data[at + 1] * 8, left = size - at - 3;
        struct net_frame frame = { .data = d };
        const uint8_t *p = data + at + 3;

        len = len < left ? len : left;
        f.frames = 0;
        if (data[at] % 8 == 7) {
            now += (uint64_t)data[at + 2] << 24;
            FUZZ_CHECK(inner_tick(f.in, now) != 0);
            FUZZ_CHECK(f.frames <= 2000);
        } else if (data[at] % 8 == 6) {
            memcpy(d, p, len < 2000 ? len : 2000); /* anything */
            frame.len = (uint32_t)(len < 2000 ? len : 2000);
            if (frame.len >= 34)
                memcpy(d + 30, f.mmds.server.ip, 4);
            inner_take(f.in, &frame, now);
        } else {
            frame.len = make(d, data[at + 2], p, len);
            if (data[at] % 8 == 5 && len > 1)
                d[14 + p[0] % 40] = p[1];
            inner_take(f.in, &frame, now);
            FUZZ_CHECK(f.frames <= 2000);
        }
        at += 3 + len;
    }
    inner_destroy(f.in);
    mmds_fini(&f.mmds);
    free(d);
    return 0;
}

size_t fuzz_seed(unsigned n, uint8_t *buf, size_t size)
{
    static const char *const requests[] = {
        "GET /latest/id HTTP/1.1\r\nAccept: application/json\r\n\r\n",
        "PUT /latest/api/token HTTP/1.1\r\nX-metadata-token-ttl-seconds: 60\r\n\r\n",
        "GET http://x/latest?y HTTP/1.0\r\nX-aws-ec2-metadata-token: 0\r\n\r\n",
    };
    /* SYN; ACK; the request; time; ACK; FIN */
    static const uint8_t before[] = { 0, 0, 0, 2, 0, 0, 0x10 }, after[] = { 7, 0, 40, 0, 0, 0x10, 0, 0, 0x11, 7, 0, 255 };
    size_t len, padded;

    if (n >= ARRAY_LEN(requests))
        return 0;
    len = strlen(requests[n]);
    padded = (len + 7) / 8 * 8;
    if (size < sizeof(before) + 3 + padded + sizeof(after))
        return 0;
    memcpy(buf, before, sizeof(before));
    buf[0] = (uint8_t)(n == 2);
    buf += sizeof(before);
    buf[0] = 0;
    buf[1] = (uint8_t)(padded / 8);
    buf[2] = 0x18;
    memset(buf + 3, ' ', padded);
    memcpy(buf + 3, requests[n], len);
    memcpy(buf + 3 + padded, after, sizeof(after));
    return sizeof(before) + 3 + padded + sizeof(after);
}
