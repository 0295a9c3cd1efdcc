/* The flash under a hostile guest: reads and writes of all sizes from the input, with a host that sometimes fails.
 *
 * Properties: what is stored lies inside the flash; after every access the stored file and the flash hold the same;
 * in array mode a read gives that; a state that is accepted from outside is good to run with.
 *
 * An input is a list of records of 8 bytes: an op byte, an address, data.
 */
#include "fuzz.h"

#include <errno.h>
#include <string.h>

#include "base/bits.h"
#include "base/err.h"
#include "bus/bus.h"
#include "chip/pflash.h"
#include "state/state.h"

#define SIZE   (2 * PFLASH_BLOCK)
#define AT     0xffc00000ULL
#define RECORD 8

struct bench {
    struct bus mmio;
    struct pflash flash;
    uint8_t file[SIZE];
    bool fail;
};

static int store(void *opaque, uint32_t off, const uint8_t *data, uint32_t len)
{
    struct bench *b = opaque;

    FUZZ_CHECK(len <= PFLASH_BLOCK && !range_outside(off, len, SIZE));
    if (b->fail)
        return -EIO;
    memcpy(b->file + off, data, len);
    return 0;
}

/* A state from outside with other values (its contents are the same, so only what check() looks at is made). */
static void load_changed(struct bench *b, const uint8_t *r)
{
    static struct pflash changed;
    struct err err = { "" };

    changed.mode = r[1] & 15;
    changed.count = ld_le16(r + 2);
    changed.filled = ld_le16(r + 4);
    changed.target = (uint32_t)ld_le16(r + 6) << (r[1] >> 4);
    if (pflash_ops.state->check(&changed, &err) < 0) {
        FUZZ_CHECK(err.text[0]);
        return;
    }
    b->flash.mode = changed.mode;
    b->flash.count = changed.count;
    b->flash.filled = changed.filled;
    b->flash.target = changed.target;
}

static void run_record(struct bench *b, const uint8_t *r)
{
    uint64_t addr = AT + ld_le16(r + 2) % SIZE, value = ld_le32(r + 4);
    unsigned size = 1U << (r[1] & 3);

    b->fail = r[1] & 0x20;
    switch (r[0] & 15) {
    case 0:
        pflash_ops.reset(&b->flash);
        break;
    case 1:
        load_changed(b, r);
        break;
    case 2:
    case 3:
        bus_read(&b->mmio, addr, size);
        break;
    default:
        bus_write(&b->mmio, addr, value, r[0] & 16 ? 1 : size);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct bench b;

    if (size > 200 * RECORD)
        size = 200 * RECORD;
    for (unsigned n = 0; n < SIZE; n++)
        b.file[n] = (uint8_t)n;
    bus_init(&b.mmio, "mmio", NULL, 0);
    FUZZ_CHECK(pflash_init(&b.flash, b.file, SIZE, store, &b) == 0);
    pflash_ops.reset(&b.flash);
    FUZZ_CHECK(pflash_attach(&b.flash, &b.mmio, AT) == 0);
    for (size_t at = 0; at + RECORD <= size; at += RECORD)
        run_record(&b, data + at);
    FUZZ_CHECK(!memcmp(b.file, b.flash.data, SIZE));
    pflash_ops.reset(&b.flash);
    FUZZ_CHECK(bus_read(&b.mmio, AT + 8, 8) == ld_le64(b.file + 8));
    return 0;
}

/* A byte program, an erase, a buffered program, and states. */
size_t fuzz_seed(unsigned n, uint8_t *buf, size_t size)
{
    static const uint8_t seeds[5][5][RECORD] = {
        { { 20, 0, 9, 0, 0x10 }, { 20, 0, 9, 0, 0xab }, { 2 }, { 20, 0, 0, 0, 0xff }, { 2, 3 } },
        { { 20, 0, 9, 0x10, 0x20 }, { 20, 0, 9, 0x10, 0xd0 }, { 20, 0, 0, 0, 0x70 }, { 2 }, { 20, 0, 0, 0, 0x50 } },
        { { 20, 0, 0xf0, 0xf, 0xe8 },
          { 20, 0, 0xf0, 0xf, 7 },
          { 4, 2, 0xf0, 0xf, 1, 2, 3, 4 },
          { 4, 2, 0xf4, 0xf, 5, 6, 7, 8 },
          { 20, 0, 0, 0, 0xd0 } },
        /* States in the middle of an erase and of a buffered program. */
        { { 1, 5, 0, 0, 0, 0, 0, 0x10 }, { 20, 0, 0, 0, 0xd0 }, { 2 }, { 20, 0, 0, 0, 0xff }, { 2, 3 } },
        { { 1, 9, 7, 0, 8, 0, 0, 0x10 }, { 20, 0, 0, 0, 0xd0 }, { 2 }, { 20, 0, 0, 0, 0xff }, { 2, 3 } },
    };

    if (n >= ARRAY_LEN(seeds) || size < sizeof(seeds[0]))
        return 0;
    memcpy(buf, seeds[n], sizeof(seeds[0]));
    return sizeof(seeds[0]);
}
