/* The CD drive under a hostile driver: registers, command lists, tables and packets from the input.
 *
 * Properties: reads stay on the disc; nothing is under way in the end; the state is saved and loaded to the same bytes;
 * a port whose command runs is started. Memory outside RAM is the sanitizers' part.
 *
 * An input is a list of records: an op byte and its arguments, see run_record().
 */
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "ata/ahci.h"
#include "base/bits.h"
#include "base/err.h"
#include "pci/host.h"

#define BAR      0xfe000000ULL
#define RAM_LEN  0x10000U
#define DISC_LEN 0x8000U
enum { LIST = 0x1000, FIS = 0x1800, TABLE = 0x2000, DATA = 0x4000 };
enum { OP_REG, OP_RAM, OP_PACKET, OP_COMMAND, OP_START, OP_STOP, OP_DRAIN, OP_RESET, OP_CONFIG, OP_PAUSE, OP_COUNT };

struct bench {
    struct clock clock;
    struct loop loop;
    struct ram ram;
    struct bus io, mmio;
    struct pci_host host;
    struct ahci a, other;
    struct block block;
};

static int disc_read(struct block *b, uint64_t off, void *buf, size_t len)
{
    FUZZ_CHECK(!range_outside(off, len, DISC_LEN));
    memset(buf, (int)(off >> 11), len);
    return off == DISC_LEN - ATAPI_BLOCK ? -5 : 0;
}

static const struct block_ops disc_ops = { .format = "fuzz", .read = disc_read };

static void put(struct bench *t, uint64_t off, uint32_t v) { bus_write(&t->mmio, BAR + off, v, 4); }

static void plug(struct bench *t)
{
    pci_dev_config_write(&t->a.pci, PCI_BAR0 + 20, (uint32_t)BAR, 4);
    pci_dev_config_write(&t->a.pci, PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER, 2);
}

static void start(struct bench *t)
{
    plug(t);
    put(t, 0x04, 2);
    put(t, 0x100, LIST);
    put(t, 0x104, 0);
    put(t, 0x108, FIS);
    put(t, 0x10c, 0);
    put(t, 0x114, ~0U);
    put(t, 0x118, 0x10);
    put(t, 0x118, 0x11);
}

/* A command with PRDs that the input describes in short. */
static void command(struct bench *t, struct fuzz_input *in, bool packet)
{
    uint8_t header[32] = { 5 }, table[0x80] = { 0x27, 0x80, 0xa0 }, prd[16] = { 0 };
    unsigned how = (unsigned)fuzz_take(in, 1), prds = how & 7;

    if (packet) {
        for (unsigned n = 0; n < ATAPI_CDB; n++)
            table[0x40 + n] = (uint8_t)fuzz_take(in, 1);
    } else {
        table[1] = how & 8 ? 0x80 : 0;
        table[2] = (uint8_t)fuzz_take(in, 1);
        table[15] = (uint8_t)fuzz_take(in, 1);
    }
    table[3] = how >> 4 & 3;
    header[2] = (uint8_t)prds;
    st_le64(header + 8, TABLE);
    ram_write(&t->ram, LIST, header, sizeof(header));
    ram_write(&t->ram, TABLE, table, sizeof(table));
    for (unsigned n = 0; n < prds; n++) {
        st_le64(prd, fuzz_take(in, 2) << (how >> 6));
        st_le32(prd + 12, (uint32_t)fuzz_take(in, 2));
        ram_write(&t->ram, TABLE + 0x80 + 16 * n, prd, sizeof(prd));
    }
    put(t, 0x138, 1);
}

static void write_ram(struct bench *t, struct fuzz_input *in)
{
    uint16_t at = (uint16_t)fuzz_take(in, 2);
    size_t len = (size_t)fuzz_take(in, 1);

    if (len > in->left)
        len = in->left;
    ram_write(&t->ram, at, in->at, at + len > RAM_LEN ? RAM_LEN - at : len);
    in->at += len;
    in->left -= len;
}

/* The ends of life that the machine calls for, under the device lock. */
static void machine(struct bench *t, unsigned op)
{
    loop_lock(&t->loop);
    if (op == OP_RESET)
        ahci_ops.reset(&t->a);
    if (op == OP_PAUSE || op == OP_DRAIN)
        ahci_ops.pause(&t->a);
    if (op == OP_PAUSE)
        ahci_ops.resume(&t->a);
    loop_unlock(&t->loop);
}

static void run_record(struct bench *t, struct fuzz_input *in)
{
    unsigned op = (unsigned)fuzz_take(in, 1) % OP_COUNT;
    uint64_t off;

    switch (op) {
    case OP_REG:
        off = fuzz_take(in, 1) * 4;
        put(t, off % 0x180, (uint32_t)fuzz_take(in, 4));
        bus_read(&t->mmio, BAR + off % 0x180, 4);
        break;
    case OP_RAM:
        write_ram(t, in);
        break;
    case OP_PACKET:
    case OP_COMMAND:
        command(t, in, op == OP_PACKET);
        break;
    case OP_START:
        start(t);
        break;
    case OP_STOP:
        put(t, 0x118, 0x10);
        break;
    case OP_CONFIG:
        off = fuzz_take(in, 1);
        pci_dev_config_write(&t->a.pci, (unsigned)off & 0xfc, (uint32_t)fuzz_take(in, 4), 4);
        break;
    default:
        machine(t, op);
        break;
    }
}

static void check_state(struct bench *t)
{
    struct state_buf x = { .data = NULL }, y = { .data = NULL };
    struct err err = { "" };

    FUZZ_CHECK(state_save(&x, ahci_ops.state, 0, &t->a) == 0);
    FUZZ_CHECK(state_load(x.data, x.len, ahci_ops.state, 0, &t->other, &err) == 0);
    FUZZ_CHECK(state_save(&y, ahci_ops.state, 0, &t->other) == 0);
    FUZZ_CHECK(x.len == y.len && memcmp(x.data, y.data, x.len) == 0);
    state_buf_fini(&x);
    state_buf_fini(&y);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bench *t = calloc(1, sizeof(*t));
    struct irq_line none[4] = { { 0 } };
    struct fuzz_input in = { data, size < 2048 ? size : 2048 };

    FUZZ_CHECK(t);
    clock_init_manual(&t->clock, 0);
    FUZZ_CHECK(loop_init(&t->loop, &t->clock) == 0);
    ram_init(&t->ram);
    FUZZ_CHECK(ram_add_slot(&t->ram, 0, RAM_LEN, false) == 0);
    bus_init(&t->io, "io", &t->loop, 0x10000);
    bus_init(&t->mmio, "mmio", &t->loop, 0);
    pci_host_init(&t->host, &t->io, &t->mmio, none);
    t->block = (struct block){ .ops = &disc_ops, .size = DISC_LEN, .ro = true };
    FUZZ_CHECK(ahci_init(&t->a, &t->block, &t->loop, &t->ram, "fuzz") == 0);
    FUZZ_CHECK(ahci_init(&t->other, &t->block, &t->loop, &t->ram, "other") == 0);
    FUZZ_CHECK(pci_dev_plug(&t->a.pci, &t->host, 1) == 0);
    plug(t);
    while (in.left)
        run_record(t, &in);
    loop_lock(&t->loop);
    ahci_ops.pause(&t->a);
    FUZZ_CHECK(t->a.current == 0 && t->a.stale == 0);
    FUZZ_CHECK(!t->a.port.ci || (t->a.port.cmd & PORT_ST));
    check_state(t);
    ahci_ops.destroy(&t->a);
    ahci_ops.destroy(&t->other);
    loop_unlock(&t->loop);
    ram_fini(&t->ram);
    loop_fini(&t->loop);
    free(t);
    return 0;
}

/* Each packet command after the unit attention; then commands that are none. */
size_t fuzz_seed(unsigned n, uint8_t *buf, size_t size)
{
    static const uint8_t packets[][ATAPI_CDB] = {
        { 0x28, 0, 0, 0, 0, 2, 0, 0, 3 }, { 0xa8, 0, 0, 0, 0, 15, 0, 0, 0, 1 }, { 0x03, 0, 0, 0, 18 },
        { 0x12, 0, 0, 0, 36 },            { 0x25 },                            { 0x43, 2, 0, 0, 0, 0, 0, 0, 64 },
        { 0x46, 0, 0, 0, 0, 0, 0, 0, 99 }, { 0x4a, 1, 0, 0, 16, 0, 0, 0, 8 },  { 0x51, 0, 0, 0, 0, 0, 0, 0, 34 },
        { 0x5a, 0, 0x3f, 0, 0, 0, 0, 0, 99 }, { 0x1b, 0, 0, 0, 2 },            { 0x1e, 0, 0, 0, 1 },
    };
    static const uint8_t commands[] = { 0xa1, 0xec, 0xef, 0x08, 0xe5 };
    static const uint8_t prds[] = { DATA & 0xff, DATA >> 8, 0xff, 0x07, 0, 0x50, 0xff, 0x1f };
    static const uint8_t tail[] = { OP_DRAIN, OP_PAUSE, OP_STOP, OP_START };
    size_t len = 0;

    if (n >= ARRAY_LEN(packets) + ARRAY_LEN(commands) || size < 64)
        return 0;
    buf[len++] = OP_START;
    memcpy(buf + len, (uint8_t[ATAPI_CDB + 2]){ OP_PACKET, 0 }, ATAPI_CDB + 2);
    len += ATAPI_CDB + 2;
    buf[len++] = OP_STOP;
    buf[len++] = OP_START;
    if (n < ARRAY_LEN(packets)) {
        buf[len++] = OP_PACKET;
        buf[len++] = 2 | (n & 1) << 4;
        memcpy(buf + len, packets[n], ATAPI_CDB);
        len += ATAPI_CDB;
    } else {
        buf[len++] = OP_COMMAND;
        buf[len++] = 2 | 8 | 3 << 4;
        buf[len++] = commands[n - ARRAY_LEN(packets)];
        buf[len++] = 0;
    }
    memcpy(buf + len, prds, sizeof(prds));
    len += sizeof(prds);
    memcpy(buf + len, tail, sizeof(tail));
    return len + sizeof(tail);
}
