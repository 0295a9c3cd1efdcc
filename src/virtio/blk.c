/* Models: the virtio block device.
 * Source: virtio 1.2, 5.2.
 * Runs on: vCPU threads (kicks), the loop's thread and I/O threads (completions), under the device lock. Data moves
 * between guest memory and the host's files, or the buffers of the I/O threads, without that lock but with
 * `dma` shared, so that a reset can be sure that nothing of the old life goes on.
 *
 * A request is: header copied in, a block request submitted, data copied, and in its completion the status
 * written and the chain pushed. A reset starts a new life: requests of the old one end without touching guest
 * memory, and until the last has ended nothing new is submitted, or an old write could overtake a new one.
 * The same is true of a pause, which waits for what is under way, so that no request is in saved state.
 */
#include "virtio/blk.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/log.h"

enum { BLK_F_SIZE_MAX = 1, BLK_F_SEG_MAX = 2, BLK_F_RO = 5, BLK_F_BLK_SIZE = 6, BLK_F_FLUSH = 9 };
enum { BLK_F_TOPOLOGY = 10, BLK_F_CONFIG_WCE = 11, BLK_F_MQ = 12, BLK_F_DISCARD = 13, BLK_F_WRITE_ZEROES = 14 };
enum { BLK_IN = 0, BLK_OUT = 1, BLK_FLUSH = 4, BLK_GET_ID = 8, BLK_DISCARD = 11, BLK_ZERO = 13 };
enum { BLK_S_OK = 0, BLK_S_IOERR = 1, BLK_S_UNSUPP = 2 };
enum { BLK_HEADER = 16, BLK_RANGE = 16, BLK_UNMAP = 1 };
/* Offsets in the configuration space (5.2.4). */
enum {
    CFG_CAPACITY = 0,
    CFG_SIZE_MAX = 8,
    CFG_SEG_MAX = 12,
    CFG_BLK_SIZE = 20,
    CFG_PHYSICAL_EXP = 24,
    CFG_MIN_IO = 26,
    CFG_OPT_IO = 28,
    CFG_WRITEBACK = 32,
    CFG_QUEUES = 34,
    CFG_DISCARD_MAX = 36,
    CFG_DISCARD_SEGS = 40,
    CFG_DISCARD_ALIGN = 44,
    CFG_ZERO_MAX = 48,
    CFG_ZERO_SEGS = 52,
    CFG_ZERO_UNMAP = 56
};

#define BLK_SEG_MAX     (VQ_MAX_SIZE - 2) /* header and status have parts of their own */
#define BLK_SEG_BYTES   (64U << 10)
#define BLK_AT_ONCE     (256U << 10) /* bytes that a kick may read by itself: some 50 us of the vCPU's time */
#define BLK_DISCARD_MAX (1U << 21)   /* sectors: 1 GiB */
#define BLK_ZERO_MAX    (1U << 17)   /* sectors: 64 MiB, as it may mean writing them */

struct virtio_blk_req {
    struct block_req req;
    struct virtio_blk *blk;
    uint64_t life;
    uint16_t queue;
    struct vq_chain chain;
};

static void blk_run(struct virtio_blk *b, unsigned queue);

/* ---- completion ---- */

static void blk_push(struct virtio_blk *b, unsigned queue, const struct vq_chain *c, uint32_t data,
                     uint8_t status)
{
    vq_chain_write(c, c->write_len - 1, &status, 1);
    /* "written" counts from the first byte on: without all the data, the status is not among them. */
    vq_push(&b->vp.vq[queue], c, data + 1 == c->write_len ? c->write_len : data);
    b->pushed |= BIT(queue);
}

static void blk_tell(struct virtio_blk *b)
{
    for (unsigned n = 0; b->pushed; n++) {
        if (b->pushed & BIT(n))
            virtio_notify(&b->vp, n);
        b->pushed &= ~BIT(n);
    }
}

static void blk_count(struct virtio_blk_counts *n, const struct block_req *req, int result)
{
    if (result < 0) {
        n->errors++;
    } else if (req->op == BLOCK_READ) {
        n->reads++;
        n->read_bytes += req->len;
    } else if (req->op == BLOCK_WRITE) {
        n->writes++;
        n->written_bytes += req->len;
    } else if (req->op == BLOCK_FLUSH) {
        n->flushes++;
    } else {
        n->discards++;
    }
}

/* Answer a request that has ended with 0 or -errno. */
static void blk_result(struct virtio_blk *b, unsigned queue, const struct vq_chain *c,
                       const struct block_req *req, int result)
{
    blk_count(&b->counts, req, result);
    if (result < 0)
        log_guest("virtio-blk: %s: request failed: %s", b->vp.setup.name, strerror(-result));
    blk_push(b, queue, c, result == 0 && req->op == BLOCK_READ ? (uint32_t)req->len : 0,
             result ? BLK_S_IOERR : BLK_S_OK);
}

static void blk_done(struct block_req *req, int result)
{
    struct virtio_blk_req *r = container_of(req, struct virtio_blk_req, req);
    struct virtio_blk *b = r->blk;

    if (r->life != b->life) {
        b->stale--;
        free(r);
        return;
    }
    b->current--;
    blk_result(b, r->queue, &r->chain, req, result);
    free(r);
}

/* After a batch of completions: one look at interrupts, and at what had to wait for an old life's end. */
static void blk_batch_end(void *opaque)
{
    struct virtio_blk *b = opaque;

    blk_tell(b);
    for (unsigned n = 0; n < b->queues; n++)
        blk_run(b, n);
}

/* ---- requests ---- */

/* On an I/O thread: a piece of data from or to guest memory, if the request still has a driver. */
static int blk_move(struct block_req *req, uint64_t at, void *piece, size_t len)
{
    struct virtio_blk_req *r = container_of(req, struct virtio_blk_req, req);
    struct virtio_blk *b = r->blk;
    int e = 0;

    pthread_rwlock_rdlock(&b->dma);
    if (r->life != b->life)
        e = -ECANCELED;
    else if (req->op == BLOCK_WRITE)
        vq_chain_read(&r->chain, BLK_HEADER + (uint32_t)at, piece, len);
    else
        vq_chain_write(&r->chain, (uint32_t)at, piece, len);
    pthread_rwlock_unlock(&b->dma);
    return e;
}

/* Read bytes [at, at+len) of a request straight into guest memory, as far as the host has them in its own:
 * -EAGAIN or -EOPNOTSUPP when it has not. `dma` is held shared or the device lock is held. */
static int blk_read_now(struct virtio_blk *b, const struct vq_chain *c, uint64_t off, uint32_t at,
                        uint32_t len)
{
    struct iovec iov[VQ_MAX_SIZE];
    unsigned n = vq_chain_lend(c, at, len, iov, VQ_MAX_SIZE);
    int r;

    if (!n)
        return -EOPNOTSUPP;
    r = block_read_now(b->block, off + at, iov, n, len);
    vq_chain_lend_end(c, at, len);
    return r;
}

/* On an I/O thread. It does not wait for a disk, so that a reset need not wait for it. */
static int blk_req_read_now(struct block_req *req, uint64_t at, size_t len)
{
    struct virtio_blk_req *r = container_of(req, struct virtio_blk_req, req);
    struct virtio_blk *b = r->blk;
    int e = -ECANCELED;

    pthread_rwlock_rdlock(&b->dma);
    if (r->life == b->life)
        e = blk_read_now(b, &r->chain, req->off, (uint32_t)at, (uint32_t)len);
    pthread_rwlock_unlock(&b->dma);
    return e;
}

/* On an I/O thread: bytes of a write straight from guest memory. A reset waits until the host has taken them, or they could be
 * the next life's. */
static int blk_req_write_from(struct block_req *req, uint64_t at, size_t len)
{
    struct virtio_blk_req *r = container_of(req, struct virtio_blk_req, req);
    struct virtio_blk *b = r->blk;
    struct iovec iov[VQ_MAX_SIZE];
    unsigned n;
    int e = -ECANCELED;

    pthread_rwlock_rdlock(&b->dma);
    if (r->life == b->life) {
        n = vq_chain_show(&r->chain, BLK_HEADER + (uint32_t)at, (uint32_t)len, iov, VQ_MAX_SIZE);
        e = n ? block_write_from(b->block, req->off + at, iov, n, len) : -EAGAIN;
    }
    pthread_rwlock_unlock(&b->dma);
    return e;
}

/* Start a block request for a chain: 0, or -ENOMEM with nothing done. */
static int blk_start(struct virtio_blk *b, unsigned queue, const struct vq_chain *c,
                     const struct block_req *what)
{
    struct virtio_blk_req *r = malloc(sizeof(*r));

    if (!r)
        return -ENOMEM;
    r->req = *what;
    r->req.move = blk_move;
    r->req.read_now = blk_req_read_now;
    r->req.write_from = blk_req_write_from;
    r->req.done = blk_done;
    r->blk = b;
    r->life = b->life;
    r->queue = (uint16_t)queue;
    r->chain = *c;
    b->current++;
    block_submit(b->io, &r->req);
    return 0;
}

/* The range of a request, sector and bytes: BLK_S_*. */
static uint8_t blk_range(const struct virtio_blk *b, uint64_t sector, uint64_t len, struct block_req *req)
{
    uint64_t sectors = b->block->size / BLOCK_SECTOR;

    if (len % BLOCK_SECTOR || range_outside(sector, len / BLOCK_SECTOR, sectors))
        return BLK_S_IOERR;
    req->off = sector * BLOCK_SECTOR;
    req->len = len;
    return BLK_S_OK;
}

/* Discard and write zeroes: one range, as announced (5.2.6). */
static uint8_t blk_parse_range(struct virtio_blk *b, const struct vq_chain *c, bool zero,
                               struct block_req *req)
{
    uint8_t raw[BLK_RANGE];

    if (c->read_len != BLK_HEADER + BLK_RANGE ||
        vq_chain_read(c, BLK_HEADER, raw, sizeof(raw)) != sizeof(raw))
        return BLK_S_IOERR;
    uint32_t sectors = ld_le32(raw + 8), flags = ld_le32(raw + 12);
    if (flags & ~(zero ? BLK_UNMAP : 0U))
        return BLK_S_UNSUPP;
    if (b->block->ro || sectors > (zero ? BLK_ZERO_MAX : BLK_DISCARD_MAX))
        return BLK_S_IOERR;
    req->op = zero ? BLOCK_WRITE_ZEROES : BLOCK_DISCARD;
    req->unmap = flags & BLK_UNMAP;
    return blk_range(b, ld_le64(raw), (uint64_t)sectors * BLOCK_SECTOR, req);
}

/* The driver takes what is reported for durable: it has no flush commands, or turned the cache off (5.2.6.2). */
static bool blk_is_write_through(const struct virtio_blk *b)
{
    return b->write_through || !virtio_has(&b->vp, BIT(BLK_F_FLUSH));
}

/* What a chain asks of the disk. BLK_S_OK: req says it; else the status to answer with. */
static uint8_t blk_parse(struct virtio_blk *b, const struct vq_chain *c, uint32_t type, uint64_t sector,
                         struct block_req *req)
{
    switch (type) {
    case BLK_IN:
        req->op = BLOCK_READ;
        return blk_range(b, sector, c->write_len - 1, req);
    case BLK_OUT:
        req->op = BLOCK_WRITE;
        return b->block->ro ? BLK_S_IOERR : blk_range(b, sector, c->read_len - BLK_HEADER, req);
    case BLK_FLUSH:
        req->op = BLOCK_FLUSH;
        return BLK_S_OK;
    case BLK_DISCARD:
    case BLK_ZERO:
        return blk_parse_range(b, c, type == BLK_ZERO, req);
    default:
        return BLK_S_UNSUPP;
    }
}

static void blk_get_id(struct virtio_blk *b, unsigned queue, const struct vq_chain *c)
{
    size_t room = c->write_len - 1, n = room < sizeof(b->serial) ? room : sizeof(b->serial);

    blk_push(b, queue, c, (uint32_t)vq_chain_write(c, 0, b->serial, n), BLK_S_OK);
}

/* A small read whose data the host has in memory: answered here, which costs less than waking a thread.
 * False: not so. */
static bool blk_at_once(struct virtio_blk *b, unsigned queue, const struct vq_chain *c,
                        struct block_req *req)
{
    int r;

    if (req->op != BLOCK_READ || req->len > b->at_once)
        return false;
    r = blk_read_now(b, c, req->off, 0, (uint32_t)req->len);
    req->cold = r == -EAGAIN;
    if (r == -EAGAIN || r == -EOPNOTSUPP)
        return false;
    b->at_once -= (uint32_t)req->len;
    blk_result(b, queue, c, req, r);
    return true;
}

/* One chain. False: the driver broke the rules. */
static bool blk_handle(struct virtio_blk *b, unsigned queue, const struct vq_chain *c)
{
    struct block_req req = { .op = BLOCK_READ };
    uint8_t header[BLK_HEADER], status;

    if (!c->write_len || vq_chain_read(c, 0, header, sizeof(header)) != sizeof(header)) {
        virtio_needs_reset(&b->vp, "request without header or status");
        return false;
    }
    uint32_t type = ld_le32(header);
    if (type == BLK_GET_ID) {
        limit_take(&b->limit, 0);
        blk_get_id(b, queue, c);
        return true;
    }
    status = blk_parse(b, c, type, ld_le64(header + 8), &req);
    limit_take(&b->limit, status == BLK_S_OK && req.op != BLOCK_DISCARD ? req.len : 0);
    req.fua = blk_is_write_through(b);
    if (status == BLK_S_OK && !req.len && req.op != BLOCK_FLUSH) {
        blk_push(b, queue, c, 0, BLK_S_OK); /* nothing to do */
        return true;
    }
    if (status == BLK_S_OK && blk_at_once(b, queue, c, &req))
        return true;
    if (status == BLK_S_OK && blk_start(b, queue, c, &req) < 0)
        status = BLK_S_IOERR;
    if (status != BLK_S_OK)
        blk_push(b, queue, c, 0, status);
    return true;
}

/* Take requests from a queue. The budget is for drivers that make new ones as
 * fast as we answer: the rest is done from the loop. */
static void blk_run(struct virtio_blk *b, unsigned queue)
{
    struct vq *q = &b->vp.vq[queue];
    struct vq_chain c;
    unsigned budget = 2 * VQ_MAX_SIZE;

    b->at_once = BLK_AT_ONCE;
    if (b->stale || !virtio_is_live(&b->vp))
        return;
    while (budget && !limit_is_over(&b->limit, &b->again) && vq_pop(q, &c) > 0 && blk_handle(b, queue, &c))
        budget--;
    if (!budget && virtio_is_live(&b->vp))
        timer_arm(&b->again, timer_now(&b->again));
    blk_tell(b);
}

static void blk_run_all(void *opaque)
{
    struct virtio_blk *b = opaque;

    for (unsigned n = 0; n < b->queues; n++)
        blk_run(b, n);
}

/* ---- the transport's calls ---- */

static void blk_notify(void *dev, unsigned queue) { blk_run(dev, queue); }

static void blk_start_life(void *dev)
{
    struct virtio_blk *b = dev;

    b->config[CFG_WRITEBACK] = !blk_is_write_through(b);
    blk_run_all(b);
}

/* The cache mode is all that a driver may write, once it has accepted that. It counts for the requests after it: what was reported
 * before is not flushed (5.2.6.1). */
static void blk_config_write(void *dev, unsigned off, uint32_t value, unsigned size)
{
    struct virtio_blk *b = dev;

    if (off != CFG_WRITEBACK || size != 1 || !virtio_has(&b->vp, BIT(BLK_F_CONFIG_WCE)))
        return;
    b->write_through = !value;
    b->config[CFG_WRITEBACK] = !blk_is_write_through(b);
}

static void blk_end_life(void *dev)
{
    struct virtio_blk *b = dev;

    b->life++; /* before the lock, which threads that see the old one would take again and again */
    pthread_rwlock_wrlock(&b->dma); /* a piece under way ends first: BLOCK_FROM at most */
    pthread_rwlock_unlock(&b->dma);
    b->stale += b->current;
    b->current = 0;
    b->pushed = 0;
    b->write_through = false;
    b->config[CFG_WRITEBACK] = 1;
    timer_cancel(&b->again);
}

static const struct virtio_ops blk_virtio_ops = { .start = blk_start_life,
                                                  .notify = blk_notify,
                                                  .config_write = blk_config_write,
                                                  .reset = blk_end_life };

/* ---- life cycle ---- */

static void blk_fill_config(struct virtio_blk *b)
{
    uint8_t *c = b->config;

    st_le64(c + CFG_CAPACITY, b->block->size / BLOCK_SECTOR);
    st_le32(c + CFG_SIZE_MAX, BLK_SEG_BYTES);
    st_le32(c + CFG_SEG_MAX, BLK_SEG_MAX);
    st_le32(c + CFG_BLK_SIZE, BLOCK_SECTOR);
    c[CFG_PHYSICAL_EXP] = 3; /* 4096 bytes: what file systems on the host work with */
    st_le16(c + CFG_MIN_IO, 8);
    st_le32(c + CFG_OPT_IO, 0);
    c[CFG_WRITEBACK] = 1;
    st_le16(c + CFG_QUEUES, b->queues);
    st_le32(c + CFG_DISCARD_MAX, BLK_DISCARD_MAX);
    st_le32(c + CFG_DISCARD_SEGS, 1);
    st_le32(c + CFG_DISCARD_ALIGN, 8);
    st_le32(c + CFG_ZERO_MAX, BLK_ZERO_MAX);
    st_le32(c + CFG_ZERO_SEGS, 1);
    c[CFG_ZERO_UNMAP] = 1;
}

static uint64_t blk_features(const struct virtio_blk *b)
{
    uint64_t f = BIT(BLK_F_SIZE_MAX) | BIT(BLK_F_SEG_MAX) | BIT(BLK_F_BLK_SIZE) | BIT(BLK_F_FLUSH) |
                 BIT(BLK_F_TOPOLOGY) | BIT(BLK_F_CONFIG_WCE);

    if (b->queues > 1)
        f |= BIT(BLK_F_MQ);
    return f | (b->block->ro ? BIT(BLK_F_RO) : BIT(BLK_F_DISCARD) | BIT(BLK_F_WRITE_ZEROES));
}

int virtio_blk_init(struct virtio_blk *b, const struct virtio_blk_setup *setup)
{
    int r;

    if (!setup->queues || setup->queues > VIRTIO_BLK_QUEUES)
        return -EINVAL;
    memset(b, 0, sizeof(*b));
    pthread_rwlock_init(&b->dma, NULL);
    b->block = setup->block;
    b->queues = (uint16_t)setup->queues;
    memcpy(b->serial, setup->serial, strnlen(setup->serial, sizeof(b->serial)));
    timer_init(&b->again, setup->loop, blk_run_all, b);
    limit_set(&b->limit, &setup->limit.bytes, &setup->limit.ops, timer_now(&b->again));
    blk_fill_config(b);
    struct virtio_setup transport = {
        .name = setup->name,
        .ops = &blk_virtio_ops,
        .dev = b,
        .id = VIRTIO_ID_BLOCK,
        .class_code = 1, /* mass storage, SCSI: what drivers for this device know */
        .queues = b->queues,
        .queue_size = VQ_MAX_SIZE,
        .features = blk_features(b),
        .config = b->config,
        .config_len = sizeof(b->config),
        .ram = setup->ram,
        .deliver = setup->deliver,
        .deliver_opaque = setup->deliver_opaque,
    };
    r = virtio_pci_init(&b->vp, &transport);
    return r ? r : block_io_create(&b->io, b->block, setup->aio, setup->loop, blk_batch_end, b);
}

/* A machine that stands looks at its queues when it goes on. */
void virtio_blk_limit(struct virtio_blk *b, const struct limit_rate *bytes, const struct limit_rate *ops)
{
    limit_set(&b->limit, bytes, ops, timer_now(&b->again));
    if (virtio_is_live(&b->vp) && !clock_stopped(b->again.loop->clock))
        timer_arm(&b->again, timer_now(&b->again));
}

void virtio_blk_switch(struct virtio_blk *b, struct block *block)
{
    b->block = block;
    block_io_switch(b->io, block);
}

void virtio_blk_change(struct virtio_blk *b, struct block *block)
{
    virtio_blk_switch(b, block);
    st_le64(b->config + CFG_CAPACITY, block->size / BLOCK_SECTOR);
    virtio_config_changed(&b->vp);
}

static void blk_reset(void *dev)
{
    struct virtio_blk *b = dev;
    virtio_pci_reset(&b->vp);
}

/* Nothing is under way in a machine that stands. New kicks cannot come; what the completions start is waited
 * for as well, until the queues have nothing more. */
static void blk_pause(void *dev)
{
    struct virtio_blk *b = dev;

    block_drain(b->io);
    timer_cancel(&b->again); /* blk_resume() looks at all queues */
}

static void blk_resume(void *dev)
{
    struct virtio_blk *b = dev;

    virtio_pci_resume(&b->vp);
    b->config[CFG_WRITEBACK] = !b->write_through; /* the configuration space is no state */
    if (virtio_is_live(&b->vp))
        blk_start_life(b);
}

static void blk_destroy(void *dev)
{
    struct virtio_blk *b = dev;

    blk_end_life(b);
    block_io_destroy(b->io);
    pthread_rwlock_destroy(&b->dma);
    pci_dev_unplug(&b->vp.pci);
}

static const struct state_field blk_fields[] = {
    STATE_FSTRUCT(struct virtio_blk, vp, struct virtio_pci, virtio_pci_state),
    { "write_through", STATE_BOOL, offsetof(struct virtio_blk, write_through), 1, 0, NULL, .since = 2 },
    { "limit", STATE_STRUCT, offsetof(struct virtio_blk, limit), 1, sizeof(struct limit), &limit_state, .since = 3 },
    STATE_END,
};
static const struct state_desc blk_state = {
    .name = "virtio-blk", .version = 3, .size = sizeof(struct virtio_blk), .fields = blk_fields
};

const struct device_ops virtio_blk_ops = {
    .type = "virtio-blk",
    .reset = blk_reset,
    .pause = blk_pause,
    .resume = blk_resume,
    .destroy = blk_destroy,
    .state = &blk_state,
};
