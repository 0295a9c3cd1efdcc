/* fw_cfg under a hostile guest: port accesses and DMA descriptors from the input.
 *
 * Properties: bytes of guest memory change only where a descriptor says, ROM never; what the port gives is what the
 * items hold; a transfer that is too long is refused; state saves and loads to the same bytes. (No access outside of
 * memory is the sanitizers' part.)
 *
 * An input is a list of records of 16 bytes: an op byte, then its arguments.
 */
#include "fuzz.h"

#include <string.h>

#include "base/bits.h"
#include "base/err.h"
#include "bus/bus.h"
#include "chip/fw_cfg.h"
#include "ram/ram.h"
#include "state/state.h"

#define RAM_LEN 0x20000U
#define ROM_AT  0x40000U
#define ROM_LEN 0x1000U
#define RECORD  16

enum { OP_PORT, OP_DESC, OP_GO, OP_RESET, OP_COUNT };

struct bench {
    struct ram ram;
    struct bus io;
    struct fw_cfg cfg;
};

static void bench_init(struct bench *b)
{
    static const uint8_t big[5000] = { 1, 2, 3 };

    memset(b, 0, sizeof(*b));
    ram_init(&b->ram);
    FUZZ_CHECK(ram_add_slot(&b->ram, 0, RAM_LEN, false) == 0 && ram_add_slot(&b->ram, ROM_AT, ROM_LEN, true) == 0);
    bus_init(&b->io, "io", NULL, 0x10000);
    fw_cfg_init(&b->cfg, &b->ram);
    FUZZ_CHECK(fw_cfg_attach(&b->cfg, &b->io) == 0);
    FUZZ_CHECK(fw_cfg_set_file(&b->cfg, "a", "0123456789", 10) == 0);
    FUZZ_CHECK(fw_cfg_set_file(&b->cfg, "b", big, sizeof(big)) == 0);
    FUZZ_CHECK(fw_cfg_set_file(&b->cfg, "c", "", 0) == 0);
}

/* A byte from the data port is the item's, and the position moves on. */
static void check_next(struct bench *b)
{
    uint16_t key = b->cfg.selector;
    uint32_t at = b->cfg.offset;
    uint8_t v = (uint8_t)bus_read(&b->io, FW_CFG_PORT + 1, 1);
    const struct fw_cfg_item *item = key < FW_CFG_ITEMS ? &b->cfg.item[key] : NULL;

    FUZZ_CHECK(v == (item && at < item->len ? item->data[at] : 0));
    FUZZ_CHECK(b->cfg.offset == at + 1 || at == UINT32_MAX);
}

static void run_record(struct bench *b, const uint8_t *r)
{
    unsigned size = 1U << (r[1] & 3);
    uint64_t value = ld_le64(r + 4);

    switch (r[0] % OP_COUNT) {
    case OP_PORT:
        if (r[1] & 4)
            bus_write(&b->io, FW_CFG_PORT + r[2] % 12, value, size);
        else
            bus_read(&b->io, FW_CFG_PORT + r[2] % 12, size);
        check_next(b);
        break;
    case OP_DESC: /* big-endian words: control, length, address */
        ram_write(&b->ram, (ld_le16(r + 2) & 0x3ff0), r, RECORD);
        break;
    case OP_GO:
        bus_write(&b->io, FW_CFG_PORT + 4, r[1] & 4 ? __builtin_bswap32(ld_le32(r + 8)) : 0, 4);
        bus_write(&b->io, FW_CFG_PORT + 8, __builtin_bswap32(r[1] & 8 ? ld_le32(r + 4) : ld_le16(r + 2) & 0x3ff0U), 4);
        break;
    default:
        fw_cfg_ops.reset(&b->cfg);
    }
}

static void check_state(struct bench *b)
{
    struct state_buf one = { .data = NULL }, two = { .data = NULL };
    struct err err;

    FUZZ_CHECK(state_save(&one, fw_cfg_ops.state, 0, &b->cfg) == 0);
    FUZZ_CHECK(state_load(one.data, one.len, fw_cfg_ops.state, 0, &b->cfg, &err) == 0);
    FUZZ_CHECK(state_save(&two, fw_cfg_ops.state, 0, &b->cfg) == 0);
    FUZZ_CHECK(one.len == two.len && !memcmp(one.data, two.data, one.len));
    state_buf_fini(&one);
    state_buf_fini(&two);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct bench b;
    const uint8_t *rom;

    if (size > 200 * RECORD)
        size = 200 * RECORD;
    bench_init(&b);
    for (size_t at = 0; at + RECORD <= size; at += RECORD)
        run_record(&b, data + at);
    rom = ram_borrow(&b.ram, ROM_AT, ROM_LEN);
    for (unsigned n = 0; n < ROM_LEN; n++)
        FUZZ_CHECK(rom[n] == 0);
    check_state(&b);
    fw_cfg_ops.destroy(&b.cfg);
    ram_fini(&b.ram);
    return 0;
}

/* Selecting and reading by port; each kind of descriptor. */
size_t fuzz_seed(unsigned n, uint8_t *buf, size_t size)
{
    static const struct {
        uint32_t control, len, addr;
    } desc[] = {
        { 0x0020000a, 10, 0x4000 }, { 0x0021000a, 6000, 0x4000 }, { 0x00210008, 0, 0 },    { 2, 64, 0x1fff0 },
        { 4, 5, 0 },                { 16, 4, 0x4000 },            { 2, 16, 0x40000 }, { 0x0019000a, 0x10100, 0 },
    };
    static const uint8_t select[RECORD] = { OP_PORT, 5, 0, 0, 0x20 }, go[RECORD] = { OP_GO };

    if (n > ARRAY_LEN(desc) || size < 3 * RECORD)
        return 0;
    memcpy(buf, select, RECORD);
    if (n == ARRAY_LEN(desc))
        return RECORD;
    /* The op byte is the control word's first, which no device looks at: keys are below 256 here. */
    st_le32(buf + RECORD, __builtin_bswap32(desc[n].control | OP_DESC << 24));
    st_le32(buf + RECORD + 4, __builtin_bswap32(desc[n].len));
    st_le64(buf + RECORD + 8, __builtin_bswap64(desc[n].addr));
    memcpy(buf + 2 * RECORD, go, RECORD);
    st_le16(buf + 2 * RECORD + 2, ld_le16(buf + RECORD + 2) & 0x3ff0);
    return 3 * RECORD;
}
