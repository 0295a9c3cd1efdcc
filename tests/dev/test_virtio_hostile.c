/* Every virtio device, each of its queues, both forms of ring: what a driver may not do stops the device
 * until its reset, and nothing else; what it may do however odd (overlapping buffers, buffers in the ring)
 * does no harm; sizes that change after DRIVER_OK; a reset with requests under way; random rings. What the
 * devices mean by their requests is their own tests'. Source: virtio 1.2, 2.1.2
 * (DEVICE_NEEDS_RESET), 2.7, 2.8. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/err.h"
#include "net/net.h"
#include "rig.h"
#include "state/state.h"
#include "vdriver.h"
#include "virtio/balloon.h"
#include "virtio/blk.h"
#include "virtio/console.h"
#include "virtio/fs.h"
#include "virtio/net.h"
#include "virtio/rng.h"
#include "virtio/vsock.h"

#define RAM    (16ULL << 20)
#define RINGS  0x10000ULL /* 0x4000 each */
#define TABLE  0x80000ULL
#define HEAD   0x100000ULL
#define ANSWER 0x110000ULL
#define DISK   (1U << 16)
#define SIZE   8U
enum { QUEUES = 5 };

union any {
    struct virtio_blk blk;
    struct virtio_net net;
    struct virtio_console console;
    struct virtio_rng rng;
    struct virtio_balloon balloon;
    struct virtio_vsock vsock;
    struct virtio_fs fs;
};

/* One kind of device. */
struct kind {
    const struct device_ops *ops;
    void (*make)(union any *d);
    void (*poke)(union any *d); /* have it look at queues that it fills by itself; may be NULL */
    size_t vp;                  /* where its transport is */
    uint64_t without;           /* features that the driver leaves */
    unsigned queues;
    unsigned idle;                 /* a bit for each queue that is not looked at after a kick and a poke */
    unsigned queue;                /* a good request: here, */
    uint8_t head[80];              /* what the device reads, */
    uint32_t head_len, answer_len; /* and what it may write */
};

static struct {
    struct rig rig;
    struct pci_host host;
    struct ram ram;
    union any *dev, *other;
    struct vring ring[QUEUES];
    const struct kind *kind;
    struct block block;
    struct net_peer peer;
    struct net_batch batch;
    struct rand_source rand;
    struct share *share[2];
    unsigned shares;
    char folder[32];
    int stream;
} f;

static uint8_t batch_bytes[NET_BATCH_BYTES];

/* ---- what is behind the devices ---- */

static int disk_read(struct block *b, uint64_t off, void *buf, size_t len)
{
    assert_false(range_outside(off, len, DISK));
    usleep(200); /* a disk's time, so that a reset finds something under way */
    memset(buf, 0xd1, len);
    return 0;
}

static int disk_write(struct block *b, uint64_t off, const void *buf, size_t len)
{
    assert_false(range_outside(off, len, DISK));
    return 0;
}

static int disk_flush(struct block *b) { return 0; }
static int disk_zero(struct block *b, uint64_t off, uint64_t len, bool unmap)
{
    return -range_outside(off, len, DISK);
}
static int disk_discard(struct block *b, uint64_t off, uint64_t len) { return disk_zero(b, off, len, true); }
static void disk_close(struct block *b) {}
static const struct block_ops disk_ops = { .format = "memory",
                                           .read = disk_read,
                                           .write = disk_write,
                                           .flush = disk_flush,
                                           .discard = disk_discard,
                                           .write_zeroes = disk_zero,
                                           .close = disk_close };

static void make_blk(union any *d)
{
    struct virtio_blk_setup s = { .block = &f.block,
                                  .loop = &f.rig.loop,
                                  .ram = &f.ram,
                                  .deliver = rig_deliver,
                                  .deliver_opaque = &f.rig,
                                  .name = "blk",
                                  .serial = "s",
                                  .queues = 2 };

    f.block = (struct block){ .ops = &disk_ops, .size = DISK };
    assert_int_equal(virtio_blk_init(&d->blk, &s), 0);
}

static void peer_kick(struct net_peer *p) {}
static void peer_offloads(struct net_peer *p, unsigned bits) {}

static void make_net(union any *d)
{
    struct virtio_net_setup s = { .peer = &f.peer,
                                  .loop = &f.rig.loop,
                                  .ram = &f.ram,
                                  .deliver = rig_deliver,
                                  .deliver_opaque = &f.rig,
                                  .name = "net",
                                  .mac = { 0x52 },
                                  .queues = 2 };

    f.peer = (struct net_peer){ .kick = peer_kick, .offloads = peer_offloads, .mtu = 1500, .link = true };
    f.batch.buf = batch_bytes;
    assert_int_equal(virtio_net_init(&d->net, &s), 0);
}

/* What the port's thread does, without the device lock: it takes what was sent, and brings a frame on each
 * pair of queues. */
static void poke_net(union any *d)
{
    static uint8_t bytes[60] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff };

    loop_lock(&f.rig.loop);
    d->net.pairs = 2; /* as if the control queue had said so */
    loop_unlock(&f.rig.loop);
    for (unsigned n = 0; n < 4; n++) {
        struct net_frame frame = { .data = bytes, .len = sizeof(bytes) };

        bytes[11] = (uint8_t)n;
        f.batch.count = 0;
        f.batch.used = 0;
        virtio_net_client.fetch(&d->net, &f.batch);
        virtio_net_client.deliver(&d->net, &frame);
        virtio_net_client.flush(&d->net);
    }
}

static int console_tx(void *opaque, const uint8_t *data, size_t len) { return (int)len; }
static void console_rx_ready(void *opaque) {}
static bool console_is_open(void *opaque) { return true; }

static void make_console(union any *d)
{
    struct vcon_backend end = { .tx = console_tx, .rx_ready = console_rx_ready, .is_open = console_is_open };

    assert_int_equal(virtio_console_init(&d->console, 1, &f.rig.loop, &f.ram, rig_deliver, &f.rig), 0);
    assert_int_equal(virtio_console_add(&d->console, 0, "", end), 0);
}

static void poke_console(union any *d)
{
    loop_lock(&f.rig.loop);
    if (vcon_room(&d->console, 0))
        vcon_receive(&d->console, 0, (const uint8_t *)"typed", 5);
    loop_unlock(&f.rig.loop);
}

static void make_rng(union any *d)
{
    rand_init_host(&f.rand);
    assert_int_equal(virtio_rng_init(&d->rng, &f.rand, &f.rig.loop, &f.ram, rig_deliver, &f.rig), 0);
}

static void make_balloon(union any *d)
{
    assert_int_equal(virtio_balloon_init(&d->balloon, &f.rig.loop, &f.ram, rig_deliver, &f.rig), 0);
}

static void *host_connect(void *opaque, uint32_t port, struct vsock_conn *c) { return NULL; }
static void host_accepted(void *stream, uint32_t port) {}
static ssize_t host_read(void *stream, uint8_t *buf, size_t len) { return -EAGAIN; }
static ssize_t host_write(void *stream, const uint8_t *buf, size_t len) { return (ssize_t)len; }
static void host_shutdown(void *stream) {}
static void host_watch(void *stream, bool in, bool out) {}
static void host_close(void *stream) {}

static void make_vsock(union any *d)
{
    static const struct vsock_backend host = { .connect = host_connect,
                                               .accepted = host_accepted,
                                               .read = host_read,
                                               .write = host_write,
                                               .shutdown = host_shutdown,
                                               .watch = host_watch,
                                               .close = host_close };

    assert_int_equal(virtio_vsock_init(&d->vsock, 3, &host, &f.rig.loop, &f.ram, rig_deliver, &f.rig), 0);
}

/* The host wants to talk: a packet for the guest. */
static void poke_vsock(union any *d)
{
    loop_lock(&f.rig.loop);
    virtio_vsock_open(&d->vsock, 80, &f.stream);
    loop_unlock(&f.rig.loop);
}

static void make_fs(union any *d)
{
    struct virtio_fs_setup s = { .loop = &f.rig.loop,
                                 .ram = &f.ram,
                                 .deliver = rig_deliver,
                                 .deliver_opaque = &f.rig,
                                 .name = "fs",
                                 .tag = "t",
                                 .queues = 2 };
    struct share_options o = { .path = f.folder, .ro = true };
    struct err err = { "" };

    assert_int_equal(share_open(&f.share[f.shares], &o, &err), 0);
    s.share = f.share[f.shares++];
    assert_int_equal(virtio_fs_init(&d->fs, &s), 0);
}

/* clang-format off */
static const struct kind kinds[] = {
    { &virtio_blk_ops, make_blk, NULL, offsetof(struct virtio_blk, vp), .queues = 2, .queue = 0, .head_len = 16, .answer_len = 513 },
    { &virtio_net_ops, make_net, poke_net, offsetof(struct virtio_net, vp), 
      .queues = 5, .idle = 1 << 2, .queue = 1, .head_len = 12 + 60 }, /* the second pair gets only what answers to what it sent */
    { &virtio_console_ops, make_console, poke_console, offsetof(struct virtio_console, vp), .without = 2, .queues = 2,
      .queue = 1, .head = "x", .head_len = 1 },
    { &virtio_rng_ops, make_rng, NULL, offsetof(struct virtio_rng, vp), .queues = 1, .queue = 0, .answer_len = 16 },
    { &virtio_balloon_ops, make_balloon, NULL, offsetof(struct virtio_balloon, vp), .queues = 4, .queue = 1, .head_len = 4 },
    { &virtio_vsock_ops, make_vsock, poke_vsock, offsetof(struct virtio_vsock, vp), .queues = 2, .queue = 1,
      .head = { 3, [8] = 2, [16] = 9, [20] = 80, [28] = 1, [30] = 3 }, .head_len = 44 }, /* a reset of what is not open */
    { &virtio_fs_ops, make_fs, NULL, offsetof(struct virtio_fs, vp), .queues = 3, .queue = 1,
      .head = { 56, [4] = 26, [8] = 9, [40] = 7, [44] = 36 }, .head_len = 56, .answer_len = 256 }, /* FUSE_INIT */
};
/* clang-format on */

static struct virtio_pci *transport(union any *d) { return (struct virtio_pci *)((uint8_t *)d + f.kind->vp); }

static void setup(const struct kind *k)
{
    struct irq_line none[4] = { { 0 } };

    memset(&f, 0, sizeof(f));
    f.kind = k;
    strcpy(f.folder, "/tmp/vitro-hostile-XXXXXX");
    assert_non_null(mkdtemp(f.folder));
    rig_init(&f.rig, 0);
    ram_init(&f.ram);
    assert_int_equal(ram_add_slot(&f.ram, 0, RAM, false), 0);
    pci_host_init(&f.host, &f.rig.io, &f.rig.mmio, none);
    f.dev = test_malloc(sizeof(*f.dev));
    f.other = test_malloc(sizeof(*f.other));
    k->make(f.dev);
    k->make(f.other);
    assert_int_equal(pci_dev_plug(&transport(f.dev)->pci, &f.host, 1), 0);
}

static void teardown(void)
{
    loop_lock(&f.rig.loop);
    f.kind->ops->pause(f.dev);
    f.kind->ops->destroy(f.dev);
    f.kind->ops->destroy(f.other);
    loop_unlock(&f.rig.loop);
    while (f.shares)
        share_close(f.share[--f.shares]);
    test_free(f.dev);
    test_free(f.other);
    ram_fini(&f.ram);
    rig_fini(&f.rig);
    rmdir(f.folder);
}

/* ---- the driver ---- */

/* A reset, and up again with empty rings and all features. */
static void start(bool packed)
{
    uint64_t features;

    vd_plug(&f.rig, &transport(f.dev)->pci, true, f.kind->queues + 1);
    features = vd_offered(&f.rig) & ~(packed ? 0 : VIRTIO_F_RING_PACKED) & ~f.kind->without;
    assert_true(vd_negotiate(&f.rig, features));
    for (unsigned n = 0; n < f.kind->queues; n++) {
        vring_init(&f.ring[n], &f.ram, packed, SIZE, RINGS + 0x4000ULL * n);
        vd_queue(&f.rig, n, &f.ring[n]);
    }
    vd_go(&f.rig);
}

/* Let it do all that it can do now. */
static void work(void)
{
    for (unsigned n = 0; n < f.kind->queues; n++)
        vd_kick(&f.rig, n);
    if (f.kind->poke)
        f.kind->poke(f.dev);
    rig_jump(&f.rig, 200 * MS);
    loop_lock(&f.rig.loop);
    f.kind->ops->pause(f.dev);
    f.kind->ops->resume(f.dev);
    loop_unlock(&f.rig.loop);
}

static bool broken(void) { return vd_get(&f.rig, VD_STATUS, 1) & VIRTIO_NEEDS_RESET; }

static unsigned request_parts(struct vring_part part[2])
{
    unsigned n = 0;

    ram_write(&f.ram, HEAD, f.kind->head, f.kind->head_len);
    if (f.kind->head_len)
        part[n++] = (struct vring_part){ HEAD, f.kind->head_len, false };
    if (f.kind->answer_len)
        part[n++] = (struct vring_part){ ANSWER, f.kind->answer_len, true };
    return n;
}

/* A good request is answered, and all is well. */
static void assert_works(void)
{
    struct vring *r = &f.ring[f.kind->queue];
    struct vring_part part[2];
    unsigned n = request_parts(part);
    uint16_t id, want = vring_add(r, part, n);
    uint32_t len;

    work();
    assert_false(broken());
    assert_true(vring_get(r, &id, &len, n));
    assert_int_equal(id, want);
    assert_true(len <= f.kind->answer_len);
}

/* ---- what it may not do ---- */

/* One descriptor, offered. */
static void one(struct vring *r, uint64_t gpa, uint32_t len, uint16_t flags, uint16_t next)
{
    vring_desc(r, r->desc, 0, gpa, len, flags | (r->packed ? VQ_DESC_AVAIL : 0), next);
    if (!r->packed)
        vring_offer(r, 0);
}

static void bad_loop(struct vring *r)
{
    for (unsigned n = 1; r->packed && n < SIZE; n++)
        vring_desc(r, r->desc, n, HEAD, 1, VQ_DESC_NEXT | VQ_DESC_AVAIL, 0);
    one(r, HEAD, 1, VQ_DESC_NEXT, 0);
}

static void bad_head(struct vring *r) { vring_offer(r, SIZE); }
static void bad_next(struct vring *r) { one(r, HEAD, 16, VQ_DESC_NEXT, SIZE); }
static void bad_outside(struct vring *r) { one(r, RAM, 1, 0, 0); }
static void bad_end(struct vring *r) { one(r, RAM - 8, 16, VQ_DESC_WRITE, 0); }
static void bad_wrap(struct vring *r) { one(r, UINT64_MAX - 7, 16, 0, 0); }
static void bad_own_bell(struct vring *r) { one(r, VD_BAR + VD_NOTIFY, 4, VQ_DESC_WRITE, 0); }
static void bad_own_status(struct vring *r) { one(r, VD_BAR + VD_STATUS, 1, VQ_DESC_WRITE, 0); }
static void bad_own_vectors(struct vring *r) { one(r, VD_MSIX, 16, 0, 0); }
static void bad_table_length(struct vring *r) { one(r, TABLE, 24, VQ_DESC_INDIRECT, 0); }
static void bad_table_outside(struct vring *r) { one(r, RAM - 16, 32, VQ_DESC_INDIRECT, 0); }
static void bad_table_in_device(struct vring *r) { one(r, VD_BAR, 16, VQ_DESC_INDIRECT, 0); }

static void bad_nested(struct vring *r)
{
    vring_desc(r, TABLE, 0, TABLE, 16, VQ_DESC_INDIRECT, 0);
    one(r, TABLE, 16, VQ_DESC_INDIRECT, 0);
}

static void bad_table_loop(struct vring *r)
{
    vring_desc(r, TABLE, 0, HEAD, 16, VQ_DESC_NEXT, 0);
    one(r, TABLE, 16, VQ_DESC_INDIRECT, 0);
}

static void bad_table_long(struct vring *r)
{
    for (unsigned n = 0; n <= SIZE; n++)
        vring_desc(r, TABLE, n, HEAD, 1, n < SIZE ? VQ_DESC_NEXT : 0, (uint16_t)(n + 1));
    one(r, TABLE, 16 * (SIZE + 1), VQ_DESC_INDIRECT, 0);
}

static void bad_order(struct vring *r)
{
    vring_desc(r, r->desc, 1, HEAD, 8, r->packed ? VQ_DESC_AVAIL : 0, 0);
    one(r, ANSWER, 8, VQ_DESC_WRITE | VQ_DESC_NEXT, r->packed ? 0 : 1);
}

static void bad_count(struct vring *r)
{
    uint16_t wild = SIZE + 1;
    ram_write(r->ram, r->driver + 2, &wild, 2);
}

static const struct {
    const char *name;
    void (*fn)(struct vring *r);
    bool split_only;
} bads[] = {
    { "loop", bad_loop, false },
    { "head out of range", bad_head, true },
    { "next out of range", bad_next, true },
    { "outside RAM", bad_outside, false },
    { "over the end of RAM", bad_end, false },
    { "address that wraps", bad_wrap, false },
    { "DMA to its own doorbell", bad_own_bell, false },
    { "DMA to its own status", bad_own_status, false },
    { "DMA from its own vectors", bad_own_vectors, false },
    { "table of an odd length", bad_table_length, false },
    { "table outside RAM", bad_table_outside, false },
    { "table in its own registers", bad_table_in_device, false },
    { "table in a table", bad_nested, false },
    { "table with a loop", bad_table_loop, true },
    { "table longer than the queue", bad_table_long, false },
    { "writable before readable", bad_order, false },
    { "more than there can be", bad_count, true },
};

static void refuse(unsigned bad, unsigned queue, bool packed)
{
    if ((packed && bads[bad].split_only) || f.kind->idle >> queue & 1)
        return;
    start(packed);
    bads[bad].fn(&f.ring[queue]);
    work();
    if (!broken())
        fail_msg("%s, queue %u, %s: %s was taken", f.kind->ops->type, queue, packed ? "packed" : "split",
                 bads[bad].name);
    vd_kick(&f.rig, queue); /* nothing more until the reset */
    assert_true(broken());
    start(packed);
    assert_works();
}

static void run_bads(void)
{
    for (unsigned b = 0; b < ARRAY_LEN(bads); b++)
        for (unsigned q = 0; q < f.kind->queues; q++)
            for (unsigned packed = 0; packed < 2; packed++)
                refuse(b, q, packed);
}

/* ---- what it may do ---- */

/* Buffers over each other, and over the ring itself, which is the driver's own loss. */
static void run_overlaps(void)
{
    for (unsigned n = 0; n < 2 * f.kind->queues; n++) {
        struct vring *r = &f.ring[n / 2];
        const struct vring_part over[] = { { HEAD, 64, false },
                                           { HEAD + 16, 64, true },
                                           { HEAD + 20, 64, true } };
        start(n & 1);
        vring_add(r, over, 3);
        work();
        start(n & 1);
        const struct vring_part ring[] = { { r->desc, 64, false }, { r->desc, 0x3000, true } };
        vring_add(r, ring, 2);
        work();
        start(n & 1);
        assert_works();
    }
}

/* Whatever it says about queues after DRIVER_OK, they stay. */
static void run_sizes(void)
{
    static const unsigned regs[] = { VD_SIZE,       VD_DESC,   VD_DESC + 4,   VD_DRIVER,
                                     VD_DRIVER + 4, VD_DEVICE, VD_DEVICE + 4, VD_ENABLE };

    for (unsigned packed = 0; packed < 2; packed++) {
        start(packed);
        for (unsigned q = 0; q < f.kind->queues; q++) {
            vd_put(&f.rig, VD_SELECT, q, 2);
            for (unsigned n = 0; n < ARRAY_LEN(regs); n++) {
                unsigned width = regs[n] == VD_SIZE || regs[n] == VD_ENABLE ? 2 : 4;
                uint32_t was = vd_get(&f.rig, regs[n], width);
                vd_put(&f.rig, regs[n], regs[n] == VD_ENABLE ? 0 : 4, width);
                assert_int_equal(vd_get(&f.rig, regs[n], width), was);
            }
        }
        assert_works();
    }
}

/* Requests are under way when the driver resets the device and uses their memory, and their rings', for other
 * things. */
static void run_resets(void)
{
    static uint8_t want[0x1000], got[0x1000];

    memset(want, 0x5a, sizeof(want));
    for (unsigned round = 0; round < 20; round++) {
        struct vring_part part[2];
        unsigned n = request_parts(part);
        start(round & 1);
        for (unsigned i = 0; i < SIZE / n; i++)
            vring_add(&f.ring[f.kind->queue], part, n);
        vd_kick(&f.rig, f.kind->queue);
        if (round & 2)
            rig_jump(&f.rig, MS);
        vd_put(&f.rig, VD_STATUS, 0, 1);
        ram_fill(&f.ram, RINGS, 0x5a, 0x4000 * QUEUES);
        ram_fill(&f.ram, ANSWER, 0x5a, sizeof(want));
        loop_lock(&f.rig.loop);
        f.kind->ops->pause(f.dev);
        f.kind->ops->resume(f.dev);
        loop_unlock(&f.rig.loop);
        ram_read(&f.ram, ANSWER, got, sizeof(got));
        assert_memory_equal(got, want, sizeof(want));
        for (unsigned q = 0; q < QUEUES; q++) {
            ram_read(&f.ram, RINGS + 0x4000 * q + 0x2000, got, sizeof(got));
            assert_memory_equal(got, want, sizeof(want));
        }
        start(round & 1);
        assert_works();
    }
}

/* ---- random rings ---- */

static uint64_t random_address(void)
{
    static const uint64_t places[] = {
        RINGS, TABLE, HEAD, ANSWER, RAM - 64, VD_BAR, VD_MSIX, UINT64_MAX - 32
    };
    uint64_t x = rig_random(&f.rig);

    /* Mostly good, or nothing gets far. */
    return places[x % 8 < 5 ? x % 4 : x >> 8 & 7] + (x >> 16) % 64;
}

static void random_descriptor(struct vring *r, uint64_t table)
{
    uint64_t x = rig_random(&f.rig);
    uint16_t flags = (uint16_t)(x & 3), next = (uint16_t)((x >> 8) % (x & 0x800000 ? SIZE : SIZE + 2));
    uint32_t len = (uint32_t)(x >> 32) % (x & 0x400000 ? 128 : 8192);

    if ((x >> 24 & 15) == 0)
        flags |= VQ_DESC_INDIRECT;
    if (r->packed && table == r->desc)
        flags |= x & 0x1000000 ? VQ_DESC_AVAIL : VQ_DESC_USED;
    vring_desc(r, table, (unsigned)(x >> 60) % SIZE, flags & VQ_DESC_INDIRECT ? TABLE : random_address(), len,
               flags, next);
}

/* What it saves when it stands, another one saves that has loaded it. */
static void check_state(void)
{
    struct state_buf s = { 0 };
    struct err err = { "" };

    f.kind->ops->pause(f.dev);
    assert_int_equal(state_save(&s, f.kind->ops->state, 0, f.dev), 0);
    assert_int_equal(state_load(s.data, s.len, f.kind->ops->state, 0, f.other, &err), 0);
    state_buf_fini(&s);
    rig_assert_same(f.kind->ops, f.dev, f.other);
    f.kind->ops->resume(f.dev);
}

static void run_random(void)
{
    for (unsigned round = 0; round < 3000; round++) {
        uint64_t x = rig_random(&f.rig);
        struct vring *r = &f.ring[x % f.kind->queues];
        if (round % 16 == 0)
            start(x >> 8 & 1);
        for (unsigned n = x >> 16 & 7; n; n--)
            random_descriptor(r, x >> 9 & 1 ? r->desc : TABLE);
        if (!r->packed)
            vring_offer(r, (uint16_t)((x >> 24) % (SIZE + ((x >> 32 & 15) == 0))));
        if ((x >> 40 & 3) == 0)
            rig_fuzz(&f.rig, &f.rig.mmio, VD_BAR, 0x4000, 3);
        work();
    }
    check_state();
    start(false);
    assert_works();
}

static void test_kind(void **state)
{
    setup(*state);
    start(false);
    assert_works();
    run_bads();
    run_overlaps();
    run_sizes();
    run_resets();
    run_random();
    teardown();
}

int main(void)
{
    struct CMUnitTest tests[ARRAY_LEN(kinds)];

    for (unsigned n = 0; n < ARRAY_LEN(kinds); n++)
        tests[n] = (struct CMUnitTest){ .name = kinds[n].ops->type,
                                        .test_func = test_kind,
                                        .initial_state = (void *)&kinds[n] };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
