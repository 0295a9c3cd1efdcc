/* A hostile virtio driver: register writes, rings and requests from the input against a whole virtio disk, as
 * its driver could make them. Whatever comes, the device ends with nothing under way, no memory outside RAM
 * is touched (the sanitizers' part), and its state can be saved and loaded to the same bytes.
 *
 * An input is a list of records: an op byte and its arguments, see run_record().
 */
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/err.h"
#include "virtio/blk.h"

#define RAM_LEN  0x10000U
#define DISK_LEN 0x8000U
#define BAR      0xfe000000ULL
#define MSIX     0xfe010000ULL

enum { OP_REG, OP_RAM, OP_KICK, OP_DRAIN, OP_RESET, OP_CONFIG, OP_PAUSE, OP_GO, OP_COUNT };
enum { DESC = 0x1000, DRIVER = 0x2000, DEVICE = 0x3000, DATA = 0x4000 };

/* Stays for all inputs, since a loop, threads and RAM cost more than most inputs; begin() brings it back to what it was. The device
 * under test is each input's own. */
struct bench {
    struct clock clock;
    struct loop loop;
    struct ram ram;
    struct bus io, mmio;
    struct pci_host host;
    struct virtio_blk *blk;
    struct virtio_blk other; /* takes saved state, all of it: nothing of earlier inputs is left in what it saves */
    struct block block;
    uint8_t disk[DISK_LEN];
    unsigned regions; /* of mmio, without a device */
    unsigned messages;
};

static int disk_read(struct block *b, uint64_t off, void *buf, size_t len)
{
    FUZZ_CHECK(!range_outside(off, len, DISK_LEN));
    memcpy(buf, container_of(b, struct bench, block)->disk + off, len);
    return 0;
}

static int disk_write(struct block *b, uint64_t off, const void *buf, size_t len)
{
    FUZZ_CHECK(!range_outside(off, len, DISK_LEN));
    memcpy(container_of(b, struct bench, block)->disk + off, buf, len);
    return 0;
}

static int disk_flush(struct block *b) { return 0; }

static int disk_zero(struct block *b, uint64_t off, uint64_t len, bool unmap)
{
    FUZZ_CHECK(!range_outside(off, len, DISK_LEN));
    memset(container_of(b, struct bench, block)->disk + off, 0, len);
    return 0;
}

static int disk_discard(struct block *b, uint64_t off, uint64_t len) { return disk_zero(b, off, len, true); }
static void disk_close(struct block *b) { (void)b; }
static const struct block_ops disk_ops = { .format = "memory",
                                           .read = disk_read,
                                           .write = disk_write,
                                           .flush = disk_flush,
                                           .discard = disk_discard,
                                           .write_zeroes = disk_zero,
                                           .close = disk_close };

static void deliver(void *opaque, const struct apic_msg *msg) { ((struct bench *)opaque)->messages++; }

static void make_blk(struct bench *t, struct virtio_blk *b)
{
    struct virtio_blk_setup setup = {
        .block = &t->block,
        .loop = &t->loop,
        .ram = &t->ram,
        .deliver = deliver,
        .deliver_opaque = t,
        .name = "fuzz",
        .serial = "fuzz",
        .queues = 2,
        .aio = BLOCK_AIO_THREADS, /* a disk that is no file has nothing for io_uring */
    };

    FUZZ_CHECK(virtio_blk_init(b, &setup) == 0);
}

static void put(struct bench *t, uint64_t off, uint64_t v, unsigned size)
{
    bus_write(&t->mmio, BAR + off, v, size);
}

static void plug(struct bench *t)
{
    struct pci_dev *p = &t->blk->vp.pci;

    pci_dev_config_write(p, PCI_BAR0, (uint32_t)BAR, 4);
    pci_dev_config_write(p, PCI_BAR0 + 4, (uint32_t)MSIX, 4);
    pci_dev_config_write(p, PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER, 2);
}

/* The driver's way to DRIVER_OK; how: bit 0 packed, bit 1 event index, upper bits the size. */
static void go(struct bench *t, uint8_t how)
{
    static const uint16_t area[] = { DESC, DRIVER, DEVICE };

    plug(t);
    put(t, 0x14, 0, 1);
    put(t, 0x08, 0, 4);
    put(t, 0x0c, 1U << 28 | (how & 2 ? 1U << 29 : 0) | 1 << 9, 4);
    put(t, 0x08, 1, 4);
    put(t, 0x0c, how & 1 ? 5 : 1, 4);
    put(t, 0x14, 0xb, 1);
    put(t, 0x16, 0, 2);
    put(t, 0x18, how & 1 ? (how >> 2) + 1 : 1 << (how >> 2 & 7), 2);
    for (unsigned i = 0; i < 3; i++)
        put(t, 0x20 + 8 * i, area[i], 4);
    put(t, 0x1c, 1, 2);
    put(t, 0x14, 0xf, 1);
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

static void drain(struct bench *t)
{
    loop_lock(&t->loop);
    block_drain(t->blk->io);
    loop_unlock(&t->loop);
}

static void pause_and_go_on(struct bench *t)
{
    loop_lock(&t->loop);
    virtio_blk_ops.pause(t->blk);
    virtio_blk_ops.resume(t->blk);
    loop_unlock(&t->loop);
}

static void run_record(struct bench *t, struct fuzz_input *in)
{
    uint64_t off;

    switch (fuzz_take(in, 1) % OP_COUNT) {
    case OP_REG:
        off = fuzz_take(in, 2);
        bus_write(&t->mmio, BAR + off % 0x4000, fuzz_take(in, 4), 1U << (off >> 14));
        bus_read(&t->mmio, BAR + off % 0x4000, 1U << (off >> 14));
        break;
    case OP_RAM:
        write_ram(t, in);
        break;
    case OP_KICK:
        put(t, 0x3000 + 4 * (fuzz_take(in, 1) & 3), 0, 2);
        break;
    case OP_DRAIN:
        drain(t);
        loop_step(&t->loop, 0);
        break;
    case OP_RESET:
        loop_lock(&t->loop);
        virtio_blk_ops.reset(t->blk);
        loop_unlock(&t->loop);
        break;
    case OP_CONFIG:
        off = fuzz_take(in, 1);
        pci_dev_config_write(&t->blk->vp.pci, (unsigned)off & 0xfc, (uint32_t)fuzz_take(in, 4), 4);
        break;
    case OP_PAUSE:
        pause_and_go_on(t);
        break;
    case OP_GO:
        go(t, (uint8_t)fuzz_take(in, 1));
        break;
    }
}

/* The state of a machine that stands: saved, loaded into another device, saved again. */
static void check_state(struct bench *t)
{
    struct state_buf x = { .data = NULL }, y = { .data = NULL };
    struct err err = { "" };

    FUZZ_CHECK(state_save(&x, virtio_blk_ops.state, 0, t->blk) == 0);
    FUZZ_CHECK(state_load(x.data, x.len, virtio_blk_ops.state, 0, &t->other, &err) == 0);
    FUZZ_CHECK(state_save(&y, virtio_blk_ops.state, 0, &t->other) == 0);
    FUZZ_CHECK(x.len == y.len && memcmp(x.data, y.data, x.len) == 0);
    state_buf_fini(&x);
    state_buf_fini(&y);
}

static void check_end(struct bench *t)
{
    loop_lock(&t->loop);
    virtio_blk_ops.pause(t->blk);
    FUZZ_CHECK(t->blk->current == 0 && t->blk->stale == 0 && t->blk->pushed == 0);
    for (unsigned n = 0; n < t->blk->queues; n++)
        FUZZ_CHECK((t->blk->vp.status & VIRTIO_NEEDS_RESET) || t->blk->vp.vq[n].held == 0);
    check_state(t);
    virtio_blk_ops.destroy(t->blk);
    loop_unlock(&t->loop);
    FUZZ_CHECK(t->mmio.count == t->regions && !t->loop.heap_len);
    free(t->blk);
}

static struct bench *make_bench(void)
{
    struct bench *t = calloc(1, sizeof(*t));
    struct irq_line none[4] = { { 0 } };

    FUZZ_CHECK(t);
    clock_init_manual(&t->clock, 0);
    FUZZ_CHECK(loop_init(&t->loop, &t->clock) == 0);
    ram_init(&t->ram);
    FUZZ_CHECK(ram_add_slot(&t->ram, 0, RAM_LEN, false) == 0);
    bus_init(&t->io, "io", &t->loop, 0x10000);
    bus_init(&t->mmio, "mmio", &t->loop, 0);
    pci_host_init(&t->host, &t->io, &t->mmio, none);
    t->regions = t->mmio.count;
    t->block = (struct block){ .ops = &disk_ops, .size = DISK_LEN };
    make_blk(t, &t->other);
    return t;
}

/* Zeros in RAM and on the disk, and a new device. */
static void begin(struct bench *t)
{
    clock_init_manual(&t->clock, 0);
    ram_fill(&t->ram, 0, 0, RAM_LEN);
    memset(t->disk, 0, DISK_LEN);
    t->blk = calloc(1, sizeof(*t->blk));
    FUZZ_CHECK(t->blk);
    make_blk(t, t->blk);
    FUZZ_CHECK(pci_dev_plug(&t->blk->vp.pci, &t->host, 1) == 0);
    plug(t);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct bench *t;
    struct fuzz_input in = { data, size < 4096 ? size : 4096 };

    t = t ? t : make_bench();
    begin(t);
    while (in.left)
        run_record(t, &in);
    check_end(t);
    return 0;
}

/* -- seeds: good requests through both kinds of ring -- */

struct script {
    uint8_t *buf;
    size_t len;
};

static void say(struct script *s, const void *bytes, size_t n)
{
    memcpy(s->buf + s->len, bytes, n);
    s->len += n;
}

static void say_ram(struct script *s, uint16_t at, const void *bytes, uint8_t n)
{
    uint8_t head[4] = { OP_RAM, (uint8_t)at, (uint8_t)(at >> 8), n };

    say(s, head, sizeof(head));
    say(s, bytes, n);
}

static void say_desc(struct script *s, unsigned n, uint64_t gpa, uint32_t len, uint16_t a, uint16_t b)
{
    uint8_t d[16];

    st_le64(d, gpa);
    st_le32(d + 8, len);
    st_le16(d + 12, a);
    st_le16(d + 14, b);
    say_ram(s, (uint16_t)(DESC + 16 * n), d, sizeof(d));
}

static void say_request(struct script *s, bool packed, uint32_t type, uint64_t sector)
{
    bool in = type == 0 || type == 8;
    uint16_t flags[3] = { VQ_DESC_NEXT, VQ_DESC_NEXT | (in ? VQ_DESC_WRITE : 0), VQ_DESC_WRITE };
    static const uint32_t len[3] = { 16, 512, 1 };
    uint8_t header[16] = { 0 }, avail[6] = { 0, 0, 1, 0, 0, 0 };

    st_le32(header, type);
    st_le64(header + 8, sector);
    say_ram(s, DATA, header, sizeof(header));
    for (unsigned i = 0; i < 3; i++) {
        uint32_t n = i == 1 && type > 10 ? 16 : len[i];
        if (packed)
            say_desc(s, i, DATA + 0x1000 * i, n, 0, flags[i] | VQ_DESC_AVAIL);
        else
            say_desc(s, i, DATA + 0x1000 * i, n, flags[i], (uint16_t)(i + 1));
    }
    if (!packed)
        say_ram(s, DRIVER, avail, sizeof(avail));
}

size_t fuzz_seed(unsigned n, uint8_t *buf, size_t size)
{
    static const uint8_t types[] = { 0, 1, 4, 8, 11, 13 };
    struct script s = { .buf = buf };
    bool packed = n % 2;
    uint8_t start[2] = { OP_GO, (uint8_t)((packed ? 7 << 2 | 1 : 3 << 2) | (n & 4 ? 2 : 0)) };
    uint8_t end[] = { OP_KICK, 0, OP_DRAIN, OP_KICK, 0, OP_PAUSE };

    if (n >= 2 * sizeof(types))
        return 0;
    say(&s, start, sizeof(start));
    say_request(&s, packed, types[n / 2], n);
    say(&s, end, sizeof(end));
    return s.len;
}
