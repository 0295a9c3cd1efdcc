/* Hostile qcow2 images: opened, read, written, checked. Nothing crashes, memory and time stay bounded, and an
 * image that the check finds sound stays sound and gives back what was written.
 *
 * The first 16 bytes of an input are four changes: where (2 bytes, times 8), to what (a kind and a number);
 * the rest is the file. So a small mutation of the input makes a large one of a table.
 */
#include "fuzz.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "../unit/memfile.h"
#include "base/bits.h"
#include "base/err.h"
#include "base/log.h"
#include "block/qcow2.h"

#define PATCHES    4
#define PATCH_LEN  4
#define FILE_LIMIT (16ULL << 20)

static void put_be64(uint8_t *p, uint64_t v) { st_le64(p, __builtin_bswap64(v)); }
static uint64_t get_be64(const uint8_t *p) { return __builtin_bswap64(ld_le64(p)); }

/* One change: entries that point elsewhere, flags that flip, numbers at their limits. */
static void patch(uint8_t *file, size_t len, const uint8_t *p)
{
    size_t at = (size_t)ld_le16(p) * 8 % (len > 8 ? len - 8 : 1);
    uint64_t old, v = p[3];

    if (len < 16 || p[2] % 8 == 0)
        return;
    old = get_be64(file + at);
    switch (p[2] % 8) {
    case 1:
        put_be64(file + at, v * 512);
        break;
    case 2:
        put_be64(file + at, v * 512 | BIT(63));
        break;
    case 3:
        put_be64(file + at, old ^ BIT(v % 64));
        break;
    case 4:
        put_be64(file + at, UINT64_MAX >> v % 64);
        break;
    case 5:
        put_be64(file + at, old + v - 128);
        break;
    case 6:
        put_be64(file + at, BIT(62) | v << 54 | (old & 0xffff));
        break;
    default:
        memcpy(file + at, p, PATCH_LEN);
        break;
    }
}

static void file_make(struct memfile *m, const uint8_t *data, size_t size)
{
    size_t head = PATCHES * PATCH_LEN;

    memfile_init(m);
    if (size < head)
        return;
    memfile_set(m, data + head, size - head);
    for (unsigned i = 0; i < PATCHES; i++)
        patch(m->data, m->len, data + i * PATCH_LEN);
    m->limit = FILE_LIMIT;
}

static struct block *image_open_fuzz(struct memfile *m, bool ro, bool repair)
{
    struct qcow2_opts o = {
        .name = "fuzz", .ro = ro, .repair = repair, .no_backing = true, .cache_bytes = 1
    };
    struct err err = { "" };
    struct block *b;

    if (block_qcow2_open(&b, &m->base, &o, &err) < 0) {
        FUZZ_CHECK(err.text[0] != '\0');
        return NULL;
    }
    return b;
}

/* Some places of the disk: its start, its end, the middle. */
static void read_some(struct block *b)
{
    uint64_t places[] = { 0, b->size / 2, b->size > 65536 ? b->size - 65536 : 0, 32768, 1 << 20 };
    uint8_t *buf = malloc(65536);

    for (size_t i = 0; buf && i < ARRAY_LEN(places); i++) {
        uint64_t off = ALIGN_DOWN(places[i], BLOCK_SECTOR);
        uint64_t n = off < b->size ? b->size - off : 0;

        if (n)
            block_read(b, off, buf, n < 65536 ? n : 65536);
    }
    free(buf);
}

static bool sound(struct block *b)
{
    struct qcow2_check c;

    return qcow2_check(b, false, &c, NULL) == 0 && c.corruptions == 0;
}

static void write_some(struct block *b, uint8_t salt)
{
    bool good = sound(b);
    uint8_t buf[3000 / 512 * 512], back[sizeof(buf)];
    uint64_t off = ALIGN_DOWN(salt * 400ULL, BLOCK_SECTOR);
    int w, f, r;

    memset(buf, salt, sizeof(buf));
    if (b->size < off + sizeof(buf) + 8192)
        return;
    block_write_zeroes(b, off, 8192, true);
    w = block_write(b, off + 512, buf, sizeof(buf));
    block_discard(b, off + 4096, 2048);
    f = block_flush(b);
    if (w < 0 || !good)
        return;
    r = block_read(b, off + 512, back, sizeof(back));
    FUZZ_CHECK(r < 0 || memcmp(buf, back, 4096 - 512 < sizeof(buf) ? 4096 - 512 : sizeof(buf)) == 0);
    if (f == 0)
        FUZZ_CHECK(sound(b));
}

static void try_image(const uint8_t *data, size_t size, bool ro, bool repair)
{
    struct qcow2_check c;
    struct memfile m;
    struct block *b;

    file_make(&m, data, size);
    b = image_open_fuzz(&m, ro, repair);
    if (b) {
        read_some(b);
        if (repair)
            qcow2_check(b, true, &c, NULL);
        else if (!ro)
            write_some(b, data[0]);
        else
            sound(b);
        read_some(b);
        block_close(b);
    }
    FUZZ_CHECK(m.reads < 256ULL << 20);
    memfile_fini(&m);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    log_set_level((enum log_level) - 1);
    if (size == 0)
        return 0;
    try_image(data, size, true, false);
    try_image(data, size, false, false);
    try_image(data, size, false, true);
    return 0;
}

/* The second cluster of the disk becomes a compressed one at the end of the file. */
static void seed_compress(struct memfile *m, unsigned bits)
{
    uint8_t plain[4096], packed[8192];
    uint64_t l1 = get_be64(m->data + 40), l2, at = ALIGN_UP(m->len, BIT(bits)), n;
    z_stream z = {
        .next_in = plain, .avail_in = (uInt)BIT(bits), .next_out = packed, .avail_out = sizeof(packed)
    };

    for (size_t i = 0; i < sizeof(plain); i++)
        plain[i] = (uint8_t)(i / 7);
    if (deflateInit2(&z, 6, Z_DEFLATED, -12, 8, Z_DEFAULT_STRATEGY) != Z_OK)
        return;
    deflate(&z, Z_FINISH);
    deflateEnd(&z);
    n = sizeof(packed) - z.avail_out;
    l2 = get_be64(m->data + l1) & 0x00fffffffffffe00ULL;
    m->base.ops->pwrite(&m->base, packed, BIT(bits) < n ? n : BIT(bits), at);
    put_be64(m->data + l2 + 8, BIT(62) | (n - 1) / 512 << (62 - (bits - 8)) | at);
    m->data[get_be64(m->data + get_be64(m->data + 48)) + (at >> bits) * 2 + 1] = 1;
}

/* A small image of each kind: cluster sizes, with data, with a compressed cluster, with a backing file's
 * name. */
size_t fuzz_seed(unsigned n, uint8_t *buf, size_t size)
{
    static const unsigned bits[] = { 9, 10, 12, 9, 9, 12 };
    struct qcow2_new q = { .size = 300 << 10 };
    struct memfile m;
    struct block *b;
    uint8_t data[6000 / 512 * 512];
    size_t len;

    if (n >= ARRAY_LEN(bits))
        return 0;
    q.cluster_bits = bits[n];
    if (n == 4) {
        q.backing = "base.img";
        q.backing_format = "raw";
    }
    memset(data, 0x37, sizeof(data));
    memfile_init(&m);
    if (qcow2_create(&m.base, &q, NULL) < 0)
        return 0;
    b = n ? image_open_fuzz(&m, false, false) : NULL;
    if (b) {
        block_write(b, 0, data, n == 3 || n == 5 ? 512 : sizeof(data));
        block_write(b, 100 << 10, data, sizeof(data));
        block_write_zeroes(b, 8192, 512, true);
        block_close(b);
    }
    if (n == 3 || n == 5)
        seed_compress(&m, q.cluster_bits);
    memset(buf, 0, PATCHES * PATCH_LEN);
    len = PATCHES * PATCH_LEN + m.len;
    if (len <= size)
        memcpy(buf + PATCHES * PATCH_LEN, m.data, m.len);
    memfile_fini(&m);
    return len <= size ? len : 0;
}
