/* Models: the traditional memory balloon device with statistics, deflation on OOM and free page reporting.
 * Source: virtio 1.2, 5.5. Queue numbers count only the queues of offered features: statistics 2,
 * reporting 3. Runs on: vCPU threads (kicks) and the loop's thread, under the device lock.
 *
 * What the guest names is given back to the host at once (ram_discard()): the pages read as zeros until the
 * guest takes them again, which needs no word of ours. A page that is no RAM is skipped: 5.5.6.1 leaves the
 * guest's nonsense undefined.
 *
 * The buffer for statistics stays in the ring until somebody asks, so that saved state holds no chain.
 */
#include "virtio/balloon.h"

#include <errno.h>
#include <string.h>

#include "base/bits.h"

#define BALLOON_F_STATS     (1ULL << 1)
#define BALLOON_F_OOM       (1ULL << 2)
#define BALLOON_F_POISON    (1ULL << 4)
#define BALLOON_F_REPORTING (1ULL << 5)

#define BALLOON_PAGES   4096U      /* page numbers in a chain; Linux sends 256 */
#define BALLOON_BATCH   4096U      /* page numbers that one call handles at most, about */
#define BALLOON_REPORT  (1U << 30) /* bytes in a report; Linux's are 128 MiB at most */
#define BALLOON_REPORTS 4U         /* reports that one call handles */

enum { QUEUE_INFLATE, QUEUE_DEFLATE, QUEUE_STATS, QUEUE_REPORT, QUEUES };
enum { CONFIG_TARGET = 0, CONFIG_ACTUAL = 4, CONFIG_POISON = 12 };
enum { STAT_LEN = 10 };

static void balloon_later(struct virtio_balloon *b)
{
    if (!timer_armed(&b->again))
        timer_arm(&b->again, timer_now(&b->again));
}

static void balloon_give_back(struct virtio_balloon *b, uint64_t gpa, uint64_t len)
{
    if (len && ram_discard(b->vp.setup.ram, gpa, len) == 0)
        b->given_back += len;
}

/* ---- inflate and deflate ---- */

/* A chain of page numbers; runs of neighbours are one call to the host. */
static void balloon_inflate(struct virtio_balloon *b, const struct vq_chain *c)
{
    uint64_t start = 0, end = 0;
    uint8_t raw[1024];

    for (uint32_t off = 0; off + 4 <= c->read_len; off += sizeof(raw)) {
        size_t n = vq_chain_read(c, off, raw, sizeof(raw));
        for (size_t i = 0; i + 4 <= n; i += 4) {
            uint64_t gpa = (uint64_t)ld_le32(raw + i) << PAGE_SHIFT;
            if (gpa != end) {
                balloon_give_back(b, start, end - start);
                start = gpa;
            }
            end = gpa + PAGE_SIZE;
        }
    }
    balloon_give_back(b, start, end - start);
}

static void balloon_run_pages(struct virtio_balloon *b, unsigned queue)
{
    struct vq *q = &b->vp.vq[queue];
    uint32_t budget = BALLOON_BATCH;
    struct vq_chain c;

    while (budget && vq_pop(q, &c) > 0) {
        if (c.write_len || c.read_len > 4 * BALLOON_PAGES) {
            virtio_needs_reset(&b->vp, "balloon: list of pages is to be written, or too long");
            return;
        }
        if (queue == QUEUE_INFLATE)
            balloon_inflate(b, &c);
        vq_push(q, &c, 0);
        budget -= budget < c.read_len / 4 + 16 ? budget : c.read_len / 4 + 16;
    }
    virtio_notify(&b->vp, queue);
    if (!budget)
        balloon_later(b);
}

/* ---- statistics ---- */

static void balloon_read_stats(struct virtio_balloon *b, const struct vq_chain *c)
{
    uint8_t raw[STAT_LEN];

    memset(b->stat, 0xff, sizeof(b->stat));
    for (uint32_t off = 0; off + STAT_LEN <= c->read_len && off < 64 * STAT_LEN; off += STAT_LEN) {
        vq_chain_read(c, off, raw, sizeof(raw));
        if (ld_le16(raw) < BALLOON_STATS)
            b->stat[ld_le16(raw)] = ld_le64(raw + 2);
    }
    b->stat_time = timer_now(&b->again);
}

/* The guest has filled its buffer: look, and leave it there. */
static void balloon_run_stats(struct virtio_balloon *b)
{
    struct vq *q = &b->vp.vq[QUEUE_STATS];
    struct vq_chain c;

    if (vq_pop(q, &c) <= 0)
        return;
    if (c.write_len) {
        virtio_needs_reset(&b->vp, "balloon: statistics are to be written");
        return;
    }
    balloon_read_stats(b, &c);
    vq_unpop(q, &c);
}

bool virtio_balloon_poll(struct virtio_balloon *b)
{
    struct vq *q = &b->vp.vq[QUEUE_STATS];
    struct vq_chain c;

    if (!virtio_is_live(&b->vp) || !virtio_has(&b->vp, BALLOON_F_STATS) || vq_pop(q, &c) <= 0)
        return false;
    vq_push(q, &c, 0);
    virtio_notify(&b->vp, QUEUE_STATS);
    return true;
}

/* ---- free page reporting ---- */

/* A guest that fills free pages with a pattern wants to find it there again (5.5.6.7.1): then they stay. */
static void balloon_report(struct virtio_balloon *b, const struct vq_chain *c)
{
    if (virtio_has(&b->vp, BALLOON_F_POISON) && ld_le32(b->config + CONFIG_POISON))
        return;
    for (unsigned i = c->nread; i < c->nparts; i++)
        balloon_give_back(b, c->part[i].gpa, c->part[i].len);
}

static void balloon_run_reports(struct virtio_balloon *b)
{
    struct vq *q = &b->vp.vq[QUEUE_REPORT];
    unsigned budget = BALLOON_REPORTS;
    struct vq_chain c;

    while (budget && vq_pop(q, &c) > 0) {
        if (c.read_len) {
            virtio_needs_reset(&b->vp, "balloon: report that is to be read");
            return;
        }
        balloon_report(b, &c);
        vq_push(q, &c, 0);
        budget--;
    }
    virtio_notify(&b->vp, QUEUE_REPORT);
    if (!budget)
        balloon_later(b);
}

/* ---- the transport's calls ---- */

static void balloon_notify(void *dev, unsigned queue)
{
    struct virtio_balloon *b = dev;

    if (queue <= QUEUE_DEFLATE)
        balloon_run_pages(b, queue);
    else if (queue == QUEUE_STATS)
        balloon_run_stats(b);
    else
        balloon_run_reports(b);
}

static void balloon_run_all(void *opaque)
{
    struct virtio_balloon *b = opaque;

    for (unsigned n = 0; n < QUEUES && virtio_is_live(&b->vp); n++)
        balloon_notify(b, n);
}

static void balloon_config_write(void *dev, unsigned off, uint32_t value, unsigned size)
{
    struct virtio_balloon *b = dev;

    if (size == 4 && (off == CONFIG_ACTUAL || off == CONFIG_POISON))
        st_le32(b->config + off, value);
}

/* The driver's part of the configuration; the target stays. */
static void balloon_virtio_reset(void *dev)
{
    struct virtio_balloon *b = dev;

    timer_cancel(&b->again);
    st_le32(b->config + CONFIG_ACTUAL, 0);
    st_le32(b->config + CONFIG_POISON, 0);
}

static const struct virtio_ops balloon_virtio_ops = {
    .start = balloon_run_all,
    .notify = balloon_notify,
    .reset = balloon_virtio_reset,
    .config_write = balloon_config_write,
};

void virtio_balloon_set(struct virtio_balloon *b, uint64_t bytes)
{
    uint64_t pages = bytes >> PAGE_SHIFT;

    st_le32(b->config + CONFIG_TARGET, pages > UINT32_MAX ? UINT32_MAX : (uint32_t)pages);
    virtio_config_changed(&b->vp);
}

uint64_t virtio_balloon_size(const struct virtio_balloon *b)
{
    return (uint64_t)ld_le32(b->config + CONFIG_ACTUAL) << PAGE_SHIFT;
}

int virtio_balloon_init(struct virtio_balloon *b, struct loop *loop, struct ram *ram, apic_deliver_fn deliver,
                        void *deliver_opaque)
{
    struct virtio_setup setup = {
        .name = "virtio-balloon",
        .ops = &balloon_virtio_ops,
        .dev = b,
        .id = VIRTIO_ID_BALLOON,
        .class_code = 0xff,
        .queues = QUEUES,
        .queue_size = 128,
        .features = BALLOON_F_STATS | BALLOON_F_OOM | BALLOON_F_POISON | BALLOON_F_REPORTING,
        .config = b->config,
        .config_len = sizeof(b->config),
        .ram = ram,
        .deliver = deliver,
        .deliver_opaque = deliver_opaque,
    };
    int r;

    memset(b, 0, sizeof(*b));
    memset(b->stat, 0xff, sizeof(b->stat));
    timer_init(&b->again, loop, balloon_run_all, b);
    r = virtio_pci_init(&b->vp, &setup);
    b->vp.vq[QUEUE_REPORT].max_bytes = BALLOON_REPORT;
    return r;
}

/* ---- life cycle ---- */

static void balloon_reset(void *dev) { virtio_pci_reset(&((struct virtio_balloon *)dev)->vp); }

static void balloon_pause(void *dev) { timer_cancel(&((struct virtio_balloon *)dev)->again); }

static void balloon_resume(void *dev)
{
    struct virtio_balloon *b = dev;

    virtio_pci_resume(&b->vp);
    balloon_run_all(b);
}

static void balloon_destroy(void *dev)
{
    struct virtio_balloon *b = dev;

    timer_cancel(&b->again);
    pci_dev_unplug(&b->vp.pci);
}

static const struct state_field balloon_fields[] = {
    STATE_FSTRUCT(struct virtio_balloon, vp, struct virtio_pci, virtio_pci_state),
    STATE_FBYTES(struct virtio_balloon, config),
    STATE_END,
};
static const struct state_desc balloon_state = {
    .name = "virtio-balloon", .version = 1, .size = sizeof(struct virtio_balloon), .fields = balloon_fields
};

const struct device_ops virtio_balloon_ops = {
    .type = "virtio-balloon",
    .reset = balloon_reset,
    .pause = balloon_pause,
    .resume = balloon_resume,
    .destroy = balloon_destroy,
    .state = &balloon_state,
};
