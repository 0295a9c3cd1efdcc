/* The virtio disk: every request on a real file, a back end that stops and fails at will, resets and pauses
 * with requests under way, the overlay against a model. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/err.h"
#include "rig.h"
#include "vdriver.h"
#include "virtio/blk.h"

#define DISK    (4U << 20)
#define RAM     (64ULL << 20)
#define HEADER  0x10000ULL
#define STATUS  0x20000ULL
#define DATA    0x100000ULL
#define F_FLUSH (1ULL << 9)
enum { IN = 0, OUT = 1, FLUSH = 4, GET_ID = 8, DISCARD = 11, ZERO = 13 };
enum { OK = 0, IOERR = 1, UNSUPP = 2, NONE = 0xee };

/* A disk in memory with a gate: while it is shut, requests stop inside the I/O threads. */
struct gate {
    struct block block;
    pthread_mutex_t lock;
    pthread_cond_t cond;
    bool shut;
    unsigned inside, flushes;
    int fail; /* what everything returns, once it is not 0 */
    bool straight;     /* it writes from guest memory */
    int refuse;        /* what it then says instead, once it is not 0 */
    size_t most;       /* what lies in one place, unless 0 */
    unsigned straights, asked, writes;
    uint8_t bytes[DISK];
};

static struct {
    struct rig rig;
    struct pci_host host;
    struct ram ram;
    struct virtio_blk blk, other;
    struct vring ring;
    struct block *block;
    struct gate gate;
    char path[64];
} f;

static int gate_pass(struct block *b)
{
    struct gate *g = container_of(b, struct gate, block);

    pthread_mutex_lock(&g->lock);
    g->inside++;
    pthread_cond_broadcast(&g->cond);
    while (g->shut)
        pthread_cond_wait(&g->cond, &g->lock);
    g->inside--;
    int r = g->fail;
    pthread_mutex_unlock(&g->lock);
    return r;
}

static int gate_read(struct block *b, uint64_t off, void *buf, size_t len)
{
    memcpy(buf, container_of(b, struct gate, block)->bytes + off, len);
    return gate_pass(b);
}

static int gate_write(struct block *b, uint64_t off, const void *buf, size_t len)
{
    int r = gate_pass(b);
    container_of(b, struct gate, block)->writes++;
    memcpy(container_of(b, struct gate, block)->bytes + off, buf, len);
    return r;
}

/* As a host does that takes its time: it looks at the memory in the end. */
static int gate_write_from(struct block *b, uint64_t off, const struct iovec *iov, unsigned n, size_t len)
{
    struct gate *g = container_of(b, struct gate, block);
    int r;

    if (!g->straight)
        return -EAGAIN;
    g->asked++;
    if (g->refuse)
        return g->refuse;
    if (g->most && len > g->most)
        return -EAGAIN;
    r = gate_pass(b);
    for (unsigned i = 0; i < n; off += iov[i].iov_len, i++)
        memcpy(g->bytes + off, iov[i].iov_base, iov[i].iov_len);
    g->straights++;
    return r;
}

static int gate_flush(struct block *b)
{
    __atomic_fetch_add(&container_of(b, struct gate, block)->flushes, 1, __ATOMIC_SEQ_CST);
    return gate_pass(b);
}

static int gate_discard(struct block *b, uint64_t off, uint64_t len) { return gate_pass(b); }
static int gate_zero(struct block *b, uint64_t off, uint64_t len, bool unmap) { return gate_pass(b); }
static void gate_close(struct block *b) { (void)b; }
static const struct block_ops gate_ops = { .format = "gate",
                                           .read = gate_read,
                                           .write = gate_write,
                                           .write_from = gate_write_from,
                                           .flush = gate_flush,
                                           .discard = gate_discard,
                                           .write_zeroes = gate_zero,
                                           .close = gate_close };

static void gate_set(bool shut)
{
    pthread_mutex_lock(&f.gate.lock);
    f.gate.shut = shut;
    pthread_cond_broadcast(&f.gate.cond);
    pthread_mutex_unlock(&f.gate.lock);
}

static void gate_wait(unsigned inside)
{
    pthread_mutex_lock(&f.gate.lock);
    while (f.gate.inside < inside)
        pthread_cond_wait(&f.gate.cond, &f.gate.lock);
    pthread_mutex_unlock(&f.gate.lock);
}

static void blk_setup(struct virtio_blk *b, struct block *block, unsigned queues)
{
    struct virtio_blk_setup setup = {
        .block = block,
        .loop = &f.rig.loop,
        .ram = &f.ram,
        .deliver = rig_deliver,
        .deliver_opaque = &f.rig,
        .name = "disk",
        .serial = "serial-0123456789-abcdef",
        .queues = queues,
    };

    assert_int_equal(virtio_blk_init(b, &setup), 0);
}

static void start(bool packed, uint64_t features)
{
    vring_init(&f.ring, &f.ram, packed, 64, 0x1000);
    vd_plug(&f.rig, &f.blk.vp.pci, true, 2);
    assert_true(vd_negotiate(&f.rig, features | F_FLUSH | (packed ? VIRTIO_F_RING_PACKED : 0)));
    vd_queue(&f.rig, 0, &f.ring);
    vd_go(&f.rig);
}

static void attach(struct block *block)
{
    f.block = block;
    blk_setup(&f.blk, block, 1);
    assert_int_equal(pci_dev_plug(&f.blk.vp.pci, &f.host, 1), 0);
    start(false, 0);
}

static int setup(void **state)
{
    struct irq_line none[4] = { { 0 } };
    struct err err = { "" };
    int fd;

    memset(&f, 0, sizeof(f));
    rig_init(&f.rig, 0);
    pci_host_init(&f.host, &f.rig.io, &f.rig.mmio, none);
    ram_init(&f.ram);
    assert_int_equal(ram_add_slot(&f.ram, 0, RAM, false), 0);
    strcpy(f.path, "/tmp/vitro-blk.XXXXXX");
    fd = mkstemp(f.path);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, DISK), 0);
    close(fd);
    f.gate.block = (struct block){ .ops = &gate_ops, .size = DISK };
    pthread_mutex_init(&f.gate.lock, NULL);
    pthread_cond_init(&f.gate.cond, NULL);
    if (!*state) {
        struct block *b;
        assert_int_equal(block_raw_open(&b, f.path, false, &err), 0);
        attach(b);
    }
    return 0;
}

static int setup_gate(void **state)
{
    static int dummy;

    *state = &dummy;
    setup(state);
    attach(&f.gate.block);
    return 0;
}

static int teardown(void **state)
{
    virtio_blk_ops.destroy(&f.blk);
    block_close(f.block);
    unlink(f.path);
    ram_fini(&f.ram);
    rig_fini(&f.rig);
    return 0;
}

/* Make request n available (with its own header and status); data is in or out. */
static void submit(unsigned n, uint32_t type, uint64_t sector, uint64_t gpa, uint32_t len)
{
    struct vring_part part[3] = { { HEADER + 16 * n, 16, false },
                                  { gpa, len, type == IN || type == GET_ID },
                                  { STATUS + n, 1, true } };
    uint8_t header[16] = { 0 };

    st_le32(header, type);
    st_le64(header + 8, sector);
    ram_write(&f.ram, part[0].gpa, header, sizeof(header));
    ram_fill(&f.ram, part[2].gpa, NONE, 1);
    if (!len)
        part[1] = part[2];
    vring_add(&f.ring, part, len ? 3 : 2);
}

static uint8_t status_of(unsigned n)
{
    uint8_t s;
    ram_read(&f.ram, STATUS + n, &s, 1);
    return s;
}

/* Kick, and let the loop run until request n has its status. */
static uint8_t finish(unsigned n)
{
    vd_kick(&f.rig, 0);
    for (unsigned i = 0; i < 5000 && status_of(n) == NONE; i++)
        loop_step(&f.rig.loop, 10);
    return status_of(n);
}

static uint8_t request(uint32_t type, uint64_t sector, uint64_t gpa, uint32_t len)
{
    submit(0, type, sector, gpa, len);
    return finish(0);
}

static uint8_t range_request(uint32_t type, uint64_t sector, uint32_t sectors, uint32_t flags)
{
    uint8_t raw[16];

    st_le64(raw, sector);
    st_le32(raw + 8, sectors);
    st_le32(raw + 12, flags);
    ram_write(&f.ram, DATA, raw, sizeof(raw));
    return request(type, 0, DATA, 16);
}

static void run_data(bool packed)
{
    uint8_t *a = test_malloc(65536), *b = test_malloc(65536);
    FILE *file = fopen(f.path, "rb");
    uint16_t id;
    uint32_t written;

    start(packed, 0);
    for (unsigned i = 0; i < 65536; i++)
        a[i] = (uint8_t)(i * 7 + i / 251);
    ram_write(&f.ram, DATA, a, 65536);
    assert_int_equal(request(OUT, 100, DATA, 65536), OK);
    assert_true(vring_get(&f.ring, &id, &written, 3));
    assert_int_equal(written, 1);
    assert_int_equal(request(FLUSH, 0, 0, 0), OK);
    assert_true(vring_get(&f.ring, &id, &written, 2));
    fseek(file, 100 * 512, SEEK_SET);
    assert_int_equal(fread(b, 1, 65536, file), 65536);
    assert_memory_equal(a, b, 65536);
    assert_int_equal(request(IN, 101, DATA + 0x100000, 1024), OK);
    assert_true(vring_get(&f.ring, &id, &written, 3));
    assert_int_equal(written, 1025);
    ram_read(&f.ram, DATA + 0x100000, b, 1024);
    assert_memory_equal(a + 512, b, 1024);
    assert_true(f.rig.msgs >= 3);
    assert_int_equal(f.rig.msg[0].vector, 0x41);
    fclose(file);
    test_free(a);
    test_free(b);
}

static void test_data(void **state) { run_data(false); }
static void test_data_packed(void **state) { run_data(true); }

static void test_edges(void **state)
{
    char id[32] = "";

    assert_int_equal(vd_get(&f.rig, VD_CONFIG, 4), DISK / 512);
    assert_int_equal(request(IN, DISK / 512 - 1, DATA, 512), OK);
    assert_int_equal(request(IN, DISK / 512 - 1, DATA, 1024), IOERR);
    assert_int_equal(request(OUT, DISK / 512, DATA, 512), IOERR);
    assert_int_equal(request(IN, UINT64_MAX, DATA, 512), IOERR);
    assert_int_equal(request(IN, 1ULL << 55, DATA, 512), IOERR);
    assert_int_equal(request(OUT, 0, DATA, 511), IOERR);
    assert_int_equal(request(IN, 0, DATA, 513), IOERR);
    assert_int_equal(request(IN, 0, 0, 0), OK);
    assert_int_equal(request(77, 0, DATA, 512), UNSUPP);
    assert_int_equal(request(GET_ID, 0, DATA, 20), OK);
    ram_read(&f.ram, DATA, id, 20);
    assert_string_equal(id, "serial-0123456789-ab");
    assert_false(vd_get(&f.rig, VD_STATUS, 1) & VIRTIO_NEEDS_RESET);
}

static void test_ranges(void **state)
{
    uint8_t b[512];

    ram_fill(&f.ram, DATA + 0x1000, 0x5a, 8192);
    assert_int_equal(request(OUT, 0, DATA + 0x1000, 8192), OK);
    assert_int_equal(range_request(ZERO, 1, 2, 0), OK);
    assert_int_equal(range_request(ZERO, 8, 8, 1), OK);
    for (unsigned s = 0; s < 16; s++) {
        assert_int_equal(request(IN, s, DATA, 512), OK);
        ram_read(&f.ram, DATA, b, 512);
        assert_int_equal(b[7], s == 1 || s == 2 || s >= 8 ? 0 : 0x5a);
    }
    assert_int_equal(range_request(DISCARD, 0, 64, 0), OK);
    assert_int_equal(range_request(DISCARD, 0, 0, 0), OK);
    assert_int_equal(range_request(DISCARD, 0, 8, 1), UNSUPP);
    assert_int_equal(range_request(ZERO, 0, 8, 2), UNSUPP);
    assert_int_equal(range_request(DISCARD, DISK / 512, 1, 0), IOERR);
    assert_int_equal(range_request(ZERO, UINT64_MAX, 2, 0), IOERR);
    assert_int_equal(range_request(ZERO, 0, UINT32_MAX, 0), IOERR);
    assert_int_equal(request(DISCARD, 0, DATA, 32), IOERR); /* more ranges than announced */
    assert_int_equal(request(DISCARD, 0, DATA, 15), IOERR);
}

static void test_misuse(void **state)
{
    struct vring_part only_out[] = { { HEADER, 16, false } }, only_in[] = { { STATUS, 1, true } };
    struct vring_part short_header[] = { { HEADER, 15, false }, { STATUS, 1, true } };

    vring_add(&f.ring, only_out, 1);
    vd_kick(&f.rig, 0);
    assert_true(vd_get(&f.rig, VD_STATUS, 1) & VIRTIO_NEEDS_RESET);
    start(false, 0);
    vring_add(&f.ring, only_in, 1);
    vd_kick(&f.rig, 0);
    assert_true(vd_get(&f.rig, VD_STATUS, 1) & VIRTIO_NEEDS_RESET);
    start(true, 0);
    vring_add(&f.ring, short_header, 2);
    vd_kick(&f.rig, 0);
    assert_true(vd_get(&f.rig, VD_STATUS, 1) & VIRTIO_NEEDS_RESET);
    start(false, 0);
    assert_int_equal(request(IN, 0, DATA, 512), OK);
}

/* A reset while requests stand in the back end: their results touch neither memory nor rings of the next
 * life, and that does not start on the disk before they have ended. */
static void test_reset_in_flight(void **state)
{
    uint8_t byte;

    memset(f.gate.bytes, 0x11, DISK);
    gate_set(true);
    ram_fill(&f.ram, DATA, 0x77, 4096);
    submit(0, IN, 0, DATA, 512);
    submit(1, IN, 8, DATA + 512, 512);
    vd_kick(&f.rig, 0);
    gate_wait(2);
    start(false, 0); /* reset, and set up again over the same memory */
    assert_int_equal(f.blk.stale, 2);
    ram_fill(&f.ram, DATA + 1024, 0x22, 512);
    submit(2, OUT, 0, DATA + 1024, 512);
    vd_kick(&f.rig, 0);
    assert_int_equal(f.blk.current, 0);
    gate_set(false);
    assert_int_equal(finish(2), OK);
    assert_int_equal(f.blk.stale, 0);
    assert_int_equal(f.gate.bytes[0], 0x22);
    ram_read(&f.ram, DATA, &byte, 1);
    assert_int_equal(byte, 0x77);
    assert_int_equal(status_of(0), NONE);
    assert_int_equal(f.ring.avail, 1);
    ram_read(&f.ram, f.ring.device + 2, &byte, 1);
    assert_int_equal(byte, 1); /* one used entry, the new one's */
}

/* Data goes straight from guest memory where the form of disk does that, else through a buffer. */
static void test_straight_write(void **state)
{
    const uint32_t len = BLOCK_FROM + BLOCK_PIECE;

    f.gate.straight = true;
    ram_fill(&f.ram, DATA, 0x31, len);
    assert_int_equal(request(OUT, 8, DATA, len), OK);
    assert_int_equal(f.gate.straights, 2); /* pieces */
    assert_int_equal(f.gate.writes, 0);
    assert_int_equal(f.gate.bytes[8 * 512], 0x31);
    assert_int_equal(f.gate.bytes[8 * 512 + len - 1], 0x31);
    f.gate.asked = 0;
    f.gate.refuse = -EAGAIN;
    ram_fill(&f.ram, DATA, 0x32, 512);
    assert_int_equal(request(OUT, 8, DATA, 512), OK);
    assert_int_equal(f.gate.writes, 1);
    assert_int_equal(f.gate.bytes[8 * 512], 0x32);
    f.gate.refuse = -EIO;
    assert_int_equal(request(OUT, 8, DATA, 512), IOERR);
    assert_int_equal(f.gate.writes, 1);
    f.gate.refuse = -EOPNOTSUPP;
    assert_int_equal(request(OUT, 8, DATA, 512), OK);
    assert_int_equal(request(OUT, 8, DATA, 512), OK);
    assert_int_equal(f.gate.asked, 3); /* and then no more */
}

/* What a large piece cannot do at once, smaller ones may; each byte is written where it belongs, by whichever way. */
static void straight_in_parts(size_t most, unsigned straights, unsigned writes)
{
    const uint32_t len = BLOCK_FROM + BLOCK_PIECE + 512, words = len / 4;
    uint8_t word[4];

    f.gate.most = most;
    f.gate.straights = f.gate.writes = 0;
    memset(f.gate.bytes, 0, DISK);
    for (uint32_t n = 0; n < words; n++) {
        st_le32(word, n + (uint32_t)most);
        ram_write(&f.ram, DATA + 4 * n, word, 4);
    }
    assert_int_equal(request(OUT, 8, DATA, len), OK);
    assert_int_equal(f.gate.straights, straights);
    assert_int_equal(f.gate.writes, writes);
    for (uint32_t n = 0; n < words; n++)
        assert_int_equal(ld_le32(f.gate.bytes + 8 * 512 + 4 * n), n + (uint32_t)most);
    assert_int_equal(ld_le32(f.gate.bytes + 8 * 512 + len), 0);
}

static void test_straight_in_parts(void **state)
{
    f.gate.straight = true;
    straight_in_parts(BLOCK_PIECE, 6, 0);     /* the last has less */
    straight_in_parts(BLOCK_PIECE - 1, 1, 5); /* only that fits */
}

static void *open_later(void *arg)
{
    usleep(50000);
    gate_set(false);
    return arg;
}

/* A reset waits for the host that has a piece of guest memory in its hands; nothing more of the old life is written. */
static void test_reset_straight(void **state)
{
    pthread_t thread;

    f.gate.straight = true;
    gate_set(true);
    ram_fill(&f.ram, DATA, 0x41, 2 * BLOCK_FROM);
    submit(0, OUT, 0, DATA, 2 * BLOCK_FROM);
    vd_kick(&f.rig, 0);
    gate_wait(1);
    assert_int_equal(pthread_create(&thread, NULL, open_later, NULL), 0);
    start(false, 0);
    ram_fill(&f.ram, DATA, 0x42, 2 * BLOCK_FROM);
    assert_int_equal(request(IN, 0, DATA + (2 << 20), 512), OK);
    assert_int_equal(f.gate.bytes[0], 0x41);
    assert_int_equal(f.gate.bytes[BLOCK_FROM], 0);
    assert_int_equal(f.gate.straights, 1);
    pthread_join(thread, NULL);
}

/* A request that comes while all others wait for the host finds a thread. */
static void test_thread_in_reserve(void **state)
{
    gate_set(true);
    for (unsigned n = 0; n < POOL_THREADS; n++) {
        submit(n, IN, 8 * n, DATA + 512 * n, 512);
        vd_kick(&f.rig, 0);
        gate_wait(n + 1);
    }
    gate_set(false);
    for (unsigned n = 0; n < POOL_THREADS; n++)
        assert_int_equal(finish(n), OK);
}

static void test_machine_reset_in_flight(void **state)
{
    gate_set(true);
    for (unsigned n = 0; n < 10; n++)
        submit(n, OUT, 8 * n, DATA, 4096);
    vd_kick(&f.rig, 0);
    gate_wait(1);
    loop_lock(&f.rig.loop);
    virtio_blk_ops.reset(&f.blk);
    virtio_blk_ops.reset(&f.blk);
    loop_unlock(&f.rig.loop);
    assert_int_equal(f.blk.stale, 10);
    gate_set(false);
    start(false, 0);
    assert_int_equal(request(IN, 0, DATA, 512), OK);
}

/* A pause waits; nothing is left in the state, and another device goes on from it. */
static void test_pause(void **state)
{
    for (unsigned n = 0; n < 16; n++)
        submit(n, OUT, n, DATA, 512);
    vd_kick(&f.rig, 0);
    loop_lock(&f.rig.loop);
    virtio_blk_ops.pause(&f.blk);
    for (unsigned n = 0; n < 16; n++)
        assert_int_equal(status_of(n), OK);
    assert_int_equal(f.blk.current + f.blk.stale, 0);
    blk_setup(&f.other, f.block, 1);
    rig_round_trip(&virtio_blk_ops, &f.blk, &f.other);
    virtio_blk_ops.destroy(&f.blk);
    loop_unlock(&f.rig.loop);
    virtio_blk_ops.destroy(&f.other);
    blk_setup(&f.blk, f.block, 1);
}

/* More bytes than may be in flight: the rest waits in the queue and is done in its turn. */
/* More large requests than there are threads: they wait in the queue of the I/O, not in memory of their own. */
static void test_many_in_flight(void **state)
{
    gate_set(true);
    for (unsigned n = 0; n < 20; n++)
        submit(n, IN, 0, DATA, DISK);
    vd_kick(&f.rig, 0);
    assert_int_equal(f.blk.current, 20);
    gate_set(false);
    for (unsigned n = 0; n < 20; n++)
        assert_int_equal(finish(n), OK);
    assert_int_equal(f.blk.current, 0);
}

static void test_errors(void **state)
{
    f.gate.fail = -EIO;
    assert_int_equal(request(IN, 0, DATA, 512), IOERR);
    assert_int_equal(request(OUT, 0, DATA, 512), IOERR);
    f.gate.fail = -ENOSPC;
    assert_int_equal(range_request(ZERO, 0, 8, 0), IOERR);
    f.gate.fail = 0;
    assert_int_equal(request(OUT, 0, DATA, 512), OK);
    f.gate.fail = -EIO;
    assert_int_equal(request(FLUSH, 0, 0, 0), IOERR);
    f.gate.fail = 0; /* the host would say that all is well now; it is not */
    assert_int_equal(request(FLUSH, 0, 0, 0), IOERR);
    assert_int_equal(request(OUT, 0, DATA, 512), IOERR);
    assert_int_equal(request(IN, 0, DATA, 512), OK);
}

/* A driver without flush commands gets each write flushed. */
static void test_write_through(void **state)
{
    assert_int_equal(request(OUT, 0, DATA, 512), OK);
    assert_int_equal(f.gate.flushes, 0);
    vring_init(&f.ring, &f.ram, false, 64, 0x1000);
    assert_true(vd_negotiate(&f.rig, 0));
    vd_queue(&f.rig, 0, &f.ring);
    vd_go(&f.rig);
    assert_int_equal(request(OUT, 0, DATA, 512), OK);
    assert_int_equal(f.gate.flushes, 1);
}

static void restart(uint64_t features)
{
    vring_init(&f.ring, &f.ram, false, 64, 0x1000);
    assert_true(vd_negotiate(&f.rig, features));
    vd_queue(&f.rig, 0, &f.ring);
    vd_go(&f.rig);
}

/* The driver turns the write cache off and on again; a reset turns it on; a state keeps it. */
static void test_cache_mode(void **state)
{
    enum { WRITEBACK = VD_CONFIG + 32, WCE = 1 << 11 };

    assert_true(vd_offered(&f.rig) & WCE);
    vd_put(&f.rig, WRITEBACK, 0, 1); /* not accepted: no effect */
    assert_int_equal(vd_get(&f.rig, WRITEBACK, 1), 1);
    restart(F_FLUSH | WCE);
    assert_int_equal(vd_get(&f.rig, WRITEBACK, 1), 1);
    assert_int_equal(request(OUT, 0, DATA, 512), OK);
    assert_int_equal(f.gate.flushes, 0);
    vd_put(&f.rig, WRITEBACK, 0, 4); /* no field of that size */
    vd_put(&f.rig, VD_CONFIG, 0, 1);
    assert_int_equal(vd_get(&f.rig, WRITEBACK, 1), 1);
    assert_int_equal(vd_get(&f.rig, VD_CONFIG, 4), DISK / 512);
    vd_put(&f.rig, WRITEBACK, 0, 1);
    assert_int_equal(vd_get(&f.rig, WRITEBACK, 1), 0);
    assert_int_equal(f.gate.flushes, 0);
    assert_int_equal(request(OUT, 0, DATA, 512), OK);
    assert_int_equal(f.gate.flushes, 1);
    assert_int_equal(range_request(ZERO, 0, 8, 0), OK);
    assert_int_equal(f.gate.flushes, 2);
    assert_int_equal(request(IN, 0, DATA, 512), OK);
    assert_int_equal(f.gate.flushes, 2);
    loop_lock(&f.rig.loop);
    virtio_blk_ops.pause(&f.blk);
    blk_setup(&f.other, f.block, 1);
    rig_round_trip(&virtio_blk_ops, &f.blk, &f.other);
    assert_int_equal(f.other.write_through, 1);
    assert_int_equal(f.other.config[32], 0);
    virtio_blk_ops.resume(&f.blk);
    loop_unlock(&f.rig.loop);
    virtio_blk_ops.destroy(&f.other);
    assert_int_equal(vd_get(&f.rig, WRITEBACK, 1), 0);
    vd_put(&f.rig, WRITEBACK, 1, 1);
    assert_int_equal(request(OUT, 0, DATA, 512), OK);
    assert_int_equal(f.gate.flushes, 2);
    vd_put(&f.rig, WRITEBACK, 0, 1);
    restart(F_FLUSH | WCE);
    assert_int_equal(vd_get(&f.rig, WRITEBACK, 1), 1);
    restart(WCE); /* without flush commands there is no cache to turn on */
    assert_int_equal(vd_get(&f.rig, WRITEBACK, 1), 0);
    vd_put(&f.rig, WRITEBACK, 1, 1);
    assert_int_equal(request(OUT, 0, DATA, 512), OK);
    assert_int_equal(f.gate.flushes, 3);
}

static void test_read_only(void **state)
{
    virtio_blk_ops.destroy(&f.blk);
    f.gate.block.ro = true;
    attach(&f.gate.block);
    assert_true(vd_offered(&f.rig) & 1 << 5);
    assert_false(vd_offered(&f.rig) & (1 << 13 | 1 << 14));
    assert_int_equal(request(OUT, 0, DATA, 512), IOERR);
    assert_int_equal(range_request(DISCARD, 0, 8, 0), IOERR);
    assert_int_equal(range_request(ZERO, 0, 8, 0), IOERR);
    assert_int_equal(request(FLUSH, 0, 0, 0), OK);
    assert_int_equal(request(IN, 0, DATA, 512), OK);
}

/* Random writes, zeroes, discards and reads of an overlay against a model; the image below keeps its bytes.
 */
static void test_overlay(void **state)
{
    uint8_t *model = test_malloc(DISK), *buf = test_malloc(DISK);
    struct block *base, *o;
    struct err err = { "" };

    for (unsigned i = 0; i < DISK; i++)
        model[i] = (uint8_t)(i / 512 * 31 + i);
    memcpy(f.gate.bytes, model, DISK);
    f.gate.block.ro = true;
    base = &f.gate.block;
    assert_int_equal(block_overlay_open(&o, base, &err), 0);
    for (unsigned run = 0; run < 2000; run++) {
        uint64_t x = rig_random(&f.rig);
        uint64_t off = x % (DISK / 512) * 512, len = ((x >> 32) % 400 + 1) * 512;
        if (off + len > DISK)
            len = DISK - off;
        if (x >> 60 < 6) {
            memset(buf, (int)(x >> 20), len);
            struct iovec iov = { buf, len };
            int r = x >> 16 & 1 ? block_write_from(o, off, &iov, 1, len) : -EAGAIN;
            assert_int_equal(r == -EAGAIN ? block_write(o, off, buf, len) : r, 0);
            memcpy(model + off, buf, len);
        } else if (x >> 60 < 8) {
            assert_int_equal(block_write_zeroes(o, off, len, x >> 20 & 1), 0);
            memset(model + off, 0, len);
        } else if (x >> 60 < 9) {
            assert_int_equal(block_discard(o, off, len), 0);
            assert_int_equal(block_read(o, 0, model, DISK), 0); /* contents are up to it */
        }
        assert_int_equal(block_read(o, off, buf, len), 0);
        assert_memory_equal(buf, model + off, len);
    }
    assert_int_equal(block_read(o, 0, buf, DISK), 0);
    assert_memory_equal(buf, model, DISK);
    for (unsigned i = 0; i < DISK; i++)
        assert_int_equal(f.gate.bytes[i], (uint8_t)(i / 512 * 31 + i));
    block_close(o);
    test_free(model);
    test_free(buf);
}

static void test_open(void **state)
{
    struct block *b;
    struct err err = { "" };

    assert_int_equal(block_raw_open(&b, f.path, false, &err), -EBUSY); /* it is in use: by us */
    assert_non_null(strstr(err.text, "in use"));
    assert_null(b);
    assert_int_equal(block_raw_open(&b, f.path, true, &err), -EBUSY);
    assert_int_equal(block_raw_open(&b, "/nowhere/disk.img", false, &err), -ENOENT);
    assert_int_equal(block_raw_open(&b, "/tmp", true, &err), -EINVAL);
}

static unsigned answered(unsigned n)
{
    unsigned got = 0;

    for (unsigned i = 0; i < 50; i++) /* what the I/O threads have */
        loop_step(&f.rig.loop, i < 5 ? 1 : 0);
    while (n-- > 0)
        got += status_of(n) == OK;
    return got;
}

/* 4 KiB a second and once 8 KiB: requests wait in the ring, whatever the driver does, and through a save. */
static void test_limit(void **state)
{
    const struct limit_rate rate = { .size = 4096, .ms = 1000, .burst = 4096 }, none = { .size = 0 };

    virtio_blk_limit(&f.blk, &rate, NULL);
    for (unsigned n = 0; n < 10; n++)
        submit(n, n % 2 ? IN : OUT, 8 * n, DATA, 4096);
    vd_kick(&f.rig, 0);
    assert_int_equal(answered(10), 2);
    vd_kick(&f.rig, 0);
    rig_run(&f.rig, 900 * MS);
    assert_int_equal(answered(10), 3); /* as soon as it may, it owes the rest */
    rig_run(&f.rig, SEC);
    assert_int_equal(answered(10), 4);
    start(false, 0); /* the driver begins anew: it gains nothing */
    for (unsigned n = 0; n < 10; n++)
        submit(n, OUT, 8 * n, DATA, 4096);
    vd_kick(&f.rig, 0);
    assert_int_equal(answered(10), 0);
    loop_lock(&f.rig.loop);
    virtio_blk_ops.pause(&f.blk);
    loop_unlock(&f.rig.loop);
    blk_setup(&f.other, f.block, 1);
    rig_round_trip(&virtio_blk_ops, &f.blk, &f.other);
    assert_int_equal(f.other.limit.bytes.left, f.blk.limit.bytes.left);
    virtio_blk_ops.destroy(&f.other);
    virtio_blk_ops.resume(&f.blk);
    virtio_blk_limit(&f.blk, &none, NULL);
    assert_int_equal(answered(10), 10);
}

/* Another medium: a larger one, of which the driver hears; its file may be the same, and is locked. */
static void test_change(void **state)
{
    struct block *b, *third;
    struct err err = { "" };
    unsigned generation = vd_get(&f.rig, VD_GENERATION, 1), msgs;

    vd_put(&f.rig, VD_CONFIG_VECTOR, 0, 2);
    assert_int_equal(request(OUT, 0, DATA, 512), OK);
    assert_int_equal(truncate(f.path, 2 * DISK), 0);
    assert_int_equal(block_raw_open_how(&b, f.path, false, false, &err), 0);
    loop_lock(&f.rig.loop);
    virtio_blk_ops.pause(&f.blk);
    assert_int_equal(block_trade(f.block, b), 0);
    msgs = f.rig.msgs;
    virtio_blk_change(&f.blk, b);
    block_close(f.block);
    f.block = b;
    virtio_blk_ops.resume(&f.blk);
    loop_unlock(&f.rig.loop);
    assert_int_equal(vd_get(&f.rig, VD_CONFIG, 4), 2 * DISK / 512);
    assert_true(vd_get(&f.rig, VD_GENERATION, 1) != generation);
    assert_true(f.rig.msgs > msgs);
    assert_int_equal(request(IN, 2 * DISK / 512 - 1, DATA, 512), OK);
    assert_int_equal(block_raw_open(&third, f.path, false, &err), -EBUSY);
    assert_int_equal(block_raw_open_how(&third, f.path, false, false, &err), 0);
    block_close(third);
}

static void test_fuzz(void **state)
{
    start(false, VIRTIO_F_INDIRECT_DESC);
    for (unsigned i = 0; i < 64; i++)
        submit(i % 16, (uint32_t)(rig_random(&f.rig) % 15), rig_random(&f.rig) % 9000, DATA,
               (uint32_t)(rig_random(&f.rig) % 9) * 512);
    loop_step(&f.rig.loop, 0);
    rig_fuzz(&f.rig, &f.rig.mmio, VD_BAR, 0x4000, 20000);
    loop_lock(&f.rig.loop);
    block_drain(f.blk.io);
    loop_unlock(&f.rig.loop);
    rig_fuzz_state(&f.rig, &virtio_blk_ops, &f.blk, &f.rig.mmio, VD_BAR, 0x4000, 100);
}

int main(void)
{
#define RAW(t)  cmocka_unit_test_setup_teardown(t, setup, teardown)
#define GATE(t) cmocka_unit_test_setup_teardown(t, setup_gate, teardown)
    const struct CMUnitTest tests[] = {
        RAW(test_data),           RAW(test_data_packed),      RAW(test_edges),
        RAW(test_ranges),         RAW(test_misuse),           RAW(test_open),
        RAW(test_fuzz),           GATE(test_thread_in_reserve), GATE(test_reset_in_flight), GATE(test_machine_reset_in_flight),
        GATE(test_pause),         GATE(test_many_in_flight),   GATE(test_errors),
        GATE(test_write_through), GATE(test_read_only),       GATE(test_overlay),
        GATE(test_cache_mode),    GATE(test_straight_write), GATE(test_straight_in_parts),  GATE(test_reset_straight), RAW(test_limit), RAW(test_change),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
