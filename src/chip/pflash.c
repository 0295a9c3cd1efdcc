/* Models: a NOR flash chip, 8 bits wide, blocks of 4 KiB, with Intel's command set: read array, status, id and CFI,
 * byte and buffered program, block erase, the lock commands (accepted, nothing is locked).
 * Source: JESD68.01 (common flash interface), Intel StrataFlash datasheet (commands, status register). As in QEMU, which
 * OVMF recognises by it, clearing the status register clears its ready bit too.
 * Runs on: vCPU threads through the bus, under the device lock.
 *
 * Programming stores bytes as they are instead of clearing bits only. Each change is stored by the machine before
 * the guest can read it; a block at most is written by one access.
 */
#include "chip/pflash.h"

#include <errno.h>
#include <string.h>

#include "base/bits.h"
#include "base/err.h"
#include "state/state.h"

/* What a read gives, or the next write is. */
enum {
    MODE_ARRAY,
    MODE_STATUS,
    MODE_ID,
    MODE_CFI,
    MODE_PROGRAM,
    MODE_ERASE,
    MODE_LOCK,
    MODE_COUNT,
    MODE_FILL,
    MODE_CONFIRM,
    MODE_LAST = MODE_CONFIRM
};

enum {
    CMD_PROGRAM = 0x10,
    CMD_ERASE = 0x20,
    CMD_PROGRAM_ALT = 0x40,
    CMD_CLEAR_STATUS = 0x50,
    CMD_LOCK = 0x60,
    CMD_STATUS = 0x70,
    CMD_ID = 0x90,
    CMD_CFI = 0x98,
    CMD_CONFIRM = 0xd0,
    CMD_BUFFER = 0xe8,
    CMD_ARRAY = 0xff
};

enum { STATUS_READY = 0x80, STATUS_ERASE_ERROR = 0x20, STATUS_PROGRAM_ERROR = 0x10 };
enum { CFI_FIRST = 0x10, CFI_SIZE = 0x27, CFI_BUFFER = 0x2a, CFI_BLOCKS = 0x2d };

/* ---- reading ---- */

/* The query table from 0x10 on; size and number of blocks are filled in by pflash_cfi(). */
static const uint8_t pflash_query[] = {
    'Q',  'R',  'Y',                    /* 10 */
    0x01, 0x00, 0x31, 0x00,             /* 13: Intel's command set, its own table at 31 */
    0x00, 0x00, 0x00, 0x00,             /* 17: no other */
    0x45, 0x55, 0x00, 0x00,             /* 1b: supply voltage */
    0x07, 0x07, 0x0a, 0x00,             /* 1f: typical times: program, buffer, erase */
    0x04, 0x04, 0x04, 0x00,             /* 23: the longest */
    0x00, 0x00, 0x00, 0x08, 0x00, 0x01, /* 27: size, 8 bits wide, buffer of 2^8, one kind of block */
    0x00, 0x00, 0x10, 0x00,             /* 2d: number of blocks - 1, size / 256 */
    'P',  'R',  'I',  '1',  '0',        /* 31 */
};

static uint8_t pflash_cfi(const struct pflash *p, uint32_t off)
{
    if (off == CFI_SIZE)
        return (uint8_t)(31 - __builtin_clz(p->size));
    if (off == CFI_BLOCKS || off == CFI_BLOCKS + 1)
        return (uint8_t)((p->size / PFLASH_BLOCK - 1) >> (8 * (off - CFI_BLOCKS)));
    return off >= CFI_FIRST && off - CFI_FIRST < sizeof(pflash_query) ? pflash_query[off - CFI_FIRST] : 0;
}

static uint8_t pflash_id(uint32_t off)
{
    static const uint8_t id[2] = { 0x89, 0x18 }; /* Intel */

    return off < sizeof(id) ? id[off] : 0; /* no block is locked */
}

static uint64_t pflash_read(void *dev, uint64_t off, unsigned size)
{
    struct pflash *p = dev;
    uint64_t v = 0;

    if (p->mode == MODE_ARRAY) {
        memcpy(&v, p->data + off, size);
        return v;
    }
    for (unsigned n = 0; n < size; n++) {
        uint8_t b = p->mode == MODE_ID    ? pflash_id((uint32_t)off + n)
                    : p->mode == MODE_CFI ? pflash_cfi(p, (uint32_t)off + n)
                                          : p->status;
        v |= (uint64_t)b << (8 * n);
    }
    return v;
}

/* ---- commands ---- */

/* Put len bytes (within one block) at off; trouble is the status bit for a failure. */
static void pflash_change(struct pflash *p, uint32_t off, const uint8_t *bytes, uint32_t len, uint8_t trouble)
{
    p->status |= STATUS_READY;
    if (range_outside(off, len, p->size) || (p->store && p->store(p->opaque, off, bytes, len) < 0))
        p->status |= trouble;
    else
        memcpy(p->data + off, bytes, len);
}

static void pflash_erase(struct pflash *p)
{
    uint8_t blank[PFLASH_BLOCK];

    memset(blank, 0xff, sizeof(blank));
    pflash_change(p, (uint32_t)ALIGN_DOWN(p->target, PFLASH_BLOCK), blank, sizeof(blank), STATUS_ERASE_ERROR);
}

static void pflash_command(struct pflash *p, uint32_t off, uint8_t cmd)
{
    static const struct {
        uint8_t cmd, mode;
    } modes[] = {
        { CMD_PROGRAM, MODE_PROGRAM }, { CMD_PROGRAM_ALT, MODE_PROGRAM }, { CMD_ERASE, MODE_ERASE },
        { CMD_LOCK, MODE_LOCK },       { CMD_STATUS, MODE_STATUS },       { CMD_ID, MODE_ID },
        { CMD_CFI, MODE_CFI },         { CMD_BUFFER, MODE_COUNT },
    };

    p->target = off;
    p->mode = MODE_ARRAY; /* CMD_ARRAY, CMD_CLEAR_STATUS and what is no command */
    for (size_t n = 0; n < ARRAY_LEN(modes); n++) {
        if (modes[n].cmd == cmd)
            p->mode = modes[n].mode;
    }
    if (cmd == CMD_CLEAR_STATUS)
        p->status = 0;
    if (p->mode == MODE_COUNT)
        p->status |= STATUS_READY; /* a buffer is free */
}

/* The second write of erase and of the lock commands. */
static void pflash_second(struct pflash *p, uint8_t v)
{
    bool erase = p->mode == MODE_ERASE;

    p->mode = MODE_STATUS;
    p->status |= STATUS_READY;
    if (erase && v == CMD_CONFIRM)
        pflash_erase(p);
    else if (erase)
        p->status |= STATUS_ERASE_ERROR | STATUS_PROGRAM_ERROR; /* a bad sequence */
}

/* One byte of a buffered program; the first says where it starts, and it stays within its block. */
static void pflash_fill(struct pflash *p, uint32_t off, uint8_t v)
{
    if (p->filled == 0)
        p->target = off;
    if (off - p->target < PFLASH_BUFFER)
        p->buffer[off - p->target] = v;
    p->filled++;
    if (p->filled > p->count)
        p->mode = MODE_CONFIRM;
}

static void pflash_flush(struct pflash *p, uint8_t v)
{
    uint32_t in_block = PFLASH_BLOCK - p->target % PFLASH_BLOCK;

    p->mode = MODE_STATUS;
    p->status |= STATUS_READY;
    if (v != CMD_CONFIRM || p->filled > in_block)
        p->status |= STATUS_PROGRAM_ERROR;
    else
        pflash_change(p, p->target, p->buffer, p->filled, STATUS_PROGRAM_ERROR);
}

static void pflash_write_byte(struct pflash *p, uint32_t off, uint8_t v)
{
    switch (p->mode) {
    case MODE_PROGRAM:
        p->mode = MODE_STATUS;
        pflash_change(p, off, &v, 1, STATUS_PROGRAM_ERROR);
        break;
    case MODE_ERASE:
    case MODE_LOCK:
        pflash_second(p, v);
        break;
    case MODE_COUNT:
        p->count = v;
        p->filled = 0;
        memset(p->buffer, 0xff, sizeof(p->buffer));
        p->mode = MODE_FILL;
        break;
    case MODE_FILL:
        pflash_fill(p, off, v);
        break;
    case MODE_CONFIRM:
        pflash_flush(p, v);
        break;
    default:
        pflash_command(p, off, v);
    }
}

/* Only the data of a buffered program may be wider than a byte; of other writes the first byte counts. */
static void pflash_write(void *dev, uint64_t off, uint64_t value, unsigned size)
{
    struct pflash *p = dev;

    if (p->mode != MODE_FILL)
        size = 1;
    for (unsigned n = 0; n < size; n++)
        pflash_write_byte(p, (uint32_t)off + n, (uint8_t)(value >> (8 * n)));
}

static const struct bus_ops pflash_bus = {
    .read = pflash_read, .write = pflash_write, .min_size = 1, .max_size = 8, .unaligned = true
};

/* ---- life cycle ---- */

int pflash_init(struct pflash *p, const uint8_t *contents, uint32_t size, pflash_store_fn store, void *opaque)
{
    if (size == 0 || size > PFLASH_MAX || size % PFLASH_BLOCK)
        return -EINVAL;
    memcpy(p->data, contents, size);
    p->size = size;
    p->store = store;
    p->opaque = opaque;
    p->mode = MODE_ARRAY;
    p->status = STATUS_READY;
    p->region = (struct bus_region){ .len = size, .ops = &pflash_bus, .dev = p, .name = "pflash" };
    return 0;
}

int pflash_attach(struct pflash *p, struct bus *mmio, uint64_t gpa)
{
    p->region.base = gpa;
    return bus_add(mmio, &p->region);
}

static void pflash_reset(void *dev)
{
    struct pflash *p = dev;

    p->mode = MODE_ARRAY;
    p->status = STATUS_READY;
    p->target = p->count = p->filled = 0;
}

static void pflash_destroy(void *dev) { (void)dev; }

static int pflash_check(void *obj, struct err *err)
{
    struct pflash *p = obj;

    if (p->mode > MODE_LAST || p->target >= PFLASH_MAX || p->count >= PFLASH_BUFFER ||
        p->filled > p->count + (p->mode != MODE_FILL))
        return err_set(err, EINVAL, "flash: impossible mode, address or count");
    return 0;
}

static const struct state_field pflash_fields[] = {
    STATE_FBYTES(struct pflash, data), STATE_FBYTES(struct pflash, buffer), STATE_F8(struct pflash, mode),
    STATE_F8(struct pflash, status),   STATE_F32(struct pflash, target),    STATE_F32(struct pflash, count),
    STATE_F32(struct pflash, filled),  STATE_END,
};
static const struct state_desc pflash_state = {
    .name = "pflash", .version = 1, .size = sizeof(struct pflash), .fields = pflash_fields, .check = pflash_check
};

const struct device_ops pflash_ops = {
    .type = "pflash",
    .reset = pflash_reset,
    .destroy = pflash_destroy,
    .state = &pflash_state,
};
