/* Models: the virtio file system device, without the shared memory window and notifications.
 * Source: virtio 1.2, 5.11.
 * Runs on: vCPU threads (kicks), the loop's thread and the share's I/O threads (completions), under the device lock.
 * The share itself runs without it, on buffers of ours, never on guest memory.
 *
 * A chain is one FUSE message and the room for its answer. The message is copied in, an I/O thread has the share
 * answer it, and the answer is copied out. What forgets nodes has no answer and is done at once. As with disks, a
 * reset starts a new life, and until the last request of the old one has ended nothing new is started; then the
 * share's session is dropped.
 */
#include "virtio/fs.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/err.h"
#include "base/log.h"

#define FS_MESSAGE_MAX (SHARE_MAX_WRITE + 65536U) /* bytes either way */
#define FS_IN_FLIGHT   (32UL << 20)               /* bytes of buffers; more stays in the queues */
#define FS_QUICK_LEN   4096U
#define FS_LARGE       65536U /* buffers from here on are kept for the next request */

struct virtio_fs_req {
    struct pool_job job;
    struct virtio_fs *fs;
    uint64_t life;
    uint16_t queue;
    uint32_t len, room, answer;
    size_t cap; /* of buf */
    struct vq_chain chain;
    _Alignas(8) uint8_t buf[]; /* the message, then from ALIGN_UP(len, 8) on the answer */
};

static void fs_run(struct virtio_fs *f, unsigned queue);

/* ---- completion ---- */

static void fs_push(struct virtio_fs *f, unsigned queue, const struct vq_chain *c, uint32_t written)
{
    vq_push(&f->vp.vq[queue], c, written);
    f->pushed |= BIT(queue);
}

static void fs_tell(struct virtio_fs *f)
{
    for (unsigned n = 0; f->pushed; n++) {
        if (f->pushed & BIT(n))
            virtio_notify(&f->vp, n);
        f->pushed &= ~BIT(n);
    }
}

static uint8_t *fs_answer(struct virtio_fs_req *r) { return r->buf + ALIGN_UP(r->len, 8); }
static size_t fs_size(uint32_t len, uint32_t room) { return ALIGN_UP(len, 8) + room; }

/* ---- buffers ---- */

static struct virtio_fs_req *fs_req_get(struct virtio_fs *f, size_t size)
{
    struct virtio_fs_req *r;

    for (unsigned i = 0; size >= FS_LARGE && i < VIRTIO_FS_SPARE; i++) {
        r = f->spare[i];
        if (r && r->cap >= size) {
            f->spare[i] = NULL;
            return r;
        }
    }
    size = size >= FS_LARGE ? ALIGN_UP(size, FS_LARGE) : size;
    r = malloc(sizeof(*r) + size);
    if (r)
        r->cap = size;
    return r;
}

static void fs_req_put(struct virtio_fs *f, struct virtio_fs_req *r)
{
    unsigned i = 0;

    while (i < VIRTIO_FS_SPARE && f->spare[i])
        i++;
    if (r->cap >= FS_LARGE && i == VIRTIO_FS_SPARE && f->spare[0]->cap < r->cap) { /* larger ones serve more */
        free(f->spare[0]);
        i = 0;
    }
    if (r->cap >= FS_LARGE && i < VIRTIO_FS_SPARE)
        f->spare[i] = r;
    else
        free(r);
}

static bool fs_job_run(struct pool_job *job, void *scratch)
{
    struct virtio_fs_req *r = container_of(job, struct virtio_fs_req, job);
    r->answer = (uint32_t)share_call(r->fs->share, r->buf, r->len, fs_answer(r), r->room);
    return true;
}

static void fs_job_done(struct pool_job *job)
{
    struct virtio_fs_req *r = container_of(job, struct virtio_fs_req, job);
    struct virtio_fs *f = r->fs;

    f->bytes -= fs_size(r->len, r->room);
    if (r->life == f->life) {
        f->current--;
        vq_chain_write(&r->chain, 0, fs_answer(r), r->answer);
        fs_push(f, r->queue, &r->chain, r->answer);
    } else {
        f->stale--;
    }
    fs_req_put(f, r);
}

static void fs_run_all(void *opaque)
{
    struct virtio_fs *f = opaque;

    for (unsigned n = 0; n < f->queues; n++)
        fs_run(f, n);
}

/* After a batch of completions: one look at interrupts, and at what had to wait for room. */
static void fs_batch_end(void *opaque)
{
    fs_tell(opaque);
    fs_run_all(opaque);
}

/* ---- requests ---- */

/* Done here and now, if it is of that kind. */
static bool fs_quick(struct virtio_fs *f, unsigned queue, const struct vq_chain *c)
{
    _Alignas(8) uint8_t buf[FS_QUICK_LEN];

    if (c->read_len > sizeof(buf))
        return false;
    vq_chain_read(c, 0, buf, c->read_len);
    if (!share_is_quick(buf, c->read_len))
        return false;
    share_call(f->share, buf, c->read_len, NULL, 0);
    fs_push(f, queue, c, 0);
    return true;
}

/* Hand a chain to the threads. False: the host cannot. */
static bool fs_start(struct virtio_fs *f, unsigned queue, const struct vq_chain *c)
{
    struct virtio_fs_req *r = fs_req_get(f, fs_size(c->read_len, c->write_len));

    if (!r)
        return false;
    r->job = (struct pool_job){ .run = fs_job_run, .done = fs_job_done };
    r->fs = f;
    r->life = f->life;
    r->queue = (uint16_t)queue;
    r->len = c->read_len;
    r->room = c->write_len;
    r->answer = 0;
    r->chain = *c;
    vq_chain_read(c, 0, r->buf, r->len);
    pool_submit(f->pool, &r->job);
    f->current++;
    f->bytes += fs_size(c->read_len, c->write_len);
    return true;
}

/* One chain. False: the driver broke the rules. */
static bool fs_handle(struct virtio_fs *f, unsigned queue, const struct vq_chain *c)
{
    if (c->read_len > FS_MESSAGE_MAX || c->write_len > FS_MESSAGE_MAX) {
        virtio_needs_reset(&f->vp, "message longer than was agreed on");
        return false;
    }
    if (!fs_quick(f, queue, c) && !fs_start(f, queue, c))
        fs_push(f, queue, c, 0); /* no answer: the guest's call fails */
    return true;
}

/* The old life's session goes when its last request has ended. */
static bool fs_ready(struct virtio_fs *f)
{
    if (f->stale || !virtio_is_live(&f->vp))
        return false;
    if (f->ended)
        share_end_session(f->share);
    f->ended = false;
    return true;
}

/* Take requests from a queue while there is room for them. The budget is for drivers that make new ones as fast as
 * we answer: the rest is done from the loop. */
static void fs_run(struct virtio_fs *f, unsigned queue)
{
    struct vq *q = &f->vp.vq[queue];
    struct vq_chain c;
    unsigned budget = 2 * VQ_MAX_SIZE;

    if (!fs_ready(f))
        return;
    while (budget-- && vq_pop(q, &c) > 0) {
        if (f->bytes && f->bytes + fs_size(c.read_len, c.write_len) > FS_IN_FLIGHT) {
            vq_unpop(q, &c);
            break; /* fs_batch_end() comes back */
        }
        if (!fs_handle(f, queue, &c))
            break;
    }
    if (budget == UINT32_MAX && virtio_is_live(&f->vp))
        timer_arm(&f->again, timer_now(&f->again));
    fs_tell(f);
}

/* ---- the transport's calls ---- */

static void fs_notify(void *dev, unsigned queue) { fs_run(dev, queue); }
static void fs_start_life(void *dev) { fs_run_all(dev); }

static void fs_end_life(void *dev)
{
    struct virtio_fs *f = dev;

    f->life++;
    f->stale += f->current;
    f->current = 0;
    f->pushed = 0;
    f->ended = true;
    timer_cancel(&f->again);
}

static const struct virtio_ops fs_virtio_ops = { .start = fs_start_life, .notify = fs_notify, .reset = fs_end_life };

/* ---- life cycle ---- */

int virtio_fs_init(struct virtio_fs *f, const struct virtio_fs_setup *setup)
{
    size_t tag = strlen(setup->tag);
    int r;

    if (!setup->queues || setup->queues > VIRTIO_FS_QUEUES || !tag || tag > VIRTIO_FS_TAG)
        return -EINVAL;
    memset(f, 0, sizeof(*f));
    f->share = setup->share;
    f->queues = (uint16_t)(setup->queues + 1);
    memcpy(f->config, setup->tag, tag);
    st_le32(f->config + VIRTIO_FS_TAG, setup->queues);
    timer_init(&f->again, setup->loop, fs_run_all, f);
    struct virtio_setup transport = {
        .name = setup->name,
        .ops = &fs_virtio_ops,
        .dev = f,
        .id = VIRTIO_ID_FS,
        .class_code = 1, /* mass storage, other */
        .subclass = 0x80,
        .queues = f->queues,
        .queue_size = VQ_MAX_SIZE,
        .config = f->config,
        .config_len = sizeof(f->config),
        .ram = setup->ram,
        .deliver = setup->deliver,
        .deliver_opaque = setup->deliver_opaque,
    };
    r = virtio_pci_init(&f->vp, &transport);
    if (r < 0)
        return r;
    f->pool = calloc(1, sizeof(*f->pool));
    r = f->pool ? pool_init(f->pool, setup->loop, GUARD_SHARE, 0, fs_batch_end, f) : -ENOMEM;
    if (r < 0) {
        free(f->pool);
        f->pool = NULL;
    }
    return r;
}

static void fs_reset(void *dev)
{
    struct virtio_fs *f = dev;
    virtio_pci_reset(&f->vp);
}

static bool fs_mounted(const struct virtio_fs *f) { return !f->ended && share_in_session(f->share); }

/* Nothing is under way in a machine that stands. */
static void fs_pause(void *dev)
{
    struct virtio_fs *f = dev;

    pool_drain(f->pool);
    timer_cancel(&f->again); /* fs_resume() looks at all queues */
    f->mounted = fs_mounted(f);
}

static void fs_resume(void *dev)
{
    struct virtio_fs *f = dev;

    virtio_pci_resume(&f->vp);
    fs_run_all(f);
}

static void fs_destroy(void *dev)
{
    struct virtio_fs *f = dev;

    fs_end_life(f);
    if (f->pool)
        pool_fini(f->pool);
    free(f->pool);
    f->pool = NULL;
    for (unsigned i = 0; i < VIRTIO_FS_SPARE; i++)
        free(f->spare[i]);
    share_end_session(f->share);
    pci_dev_unplug(&f->vp.pci);
}

static int fs_save_session(void *dev, bool shape, uint8_t **out, size_t *len, struct err *err)
{
    struct virtio_fs *f = dev;
    enum share_part part = !fs_mounted(f) ? SHARE_NOTHING : shape ? SHARE_SHAPE : SHARE_WHOLE;

    return share_session_save(f->share, part, out, len, err);
}

/* A guest that believes to have nodes and open files must not wake up without them. */
static int fs_load_session(void *dev, bool shape, const uint8_t *data, size_t len, struct err *err)
{
    struct virtio_fs *f = dev;
    int r;

    if (!shape && f->ended) { /* of the life before this one */
        share_end_session(f->share);
        f->ended = false;
    }
    r = data ? share_session_load(f->share, shape ? SHARE_SHAPE : SHARE_WHOLE, data, len, err) : 0;
    if (r == 0 && !shape && f->mounted != share_in_session(f->share))
        return err_set(err, EINVAL, "its shared folder is mounted, and what the guest knows of it is missing");
    return r;
}

static const struct device_more fs_more = {
    .name = SHARE_SECTION, .version = 1, .save = fs_save_session, .load = fs_load_session
};

static const struct state_field fs_fields[] = {
    STATE_FSTRUCT(struct virtio_fs, vp, struct virtio_pci, virtio_pci_state),
    STATE_FBOOL(struct virtio_fs, mounted),
    STATE_END,
};
static const struct state_desc fs_state = {
    .name = "virtio-fs", .version = 1, .size = sizeof(struct virtio_fs), .fields = fs_fields
};

const struct device_ops virtio_fs_ops = {
    .type = "virtio-fs",
    .reset = fs_reset,
    .pause = fs_pause,
    .resume = fs_resume,
    .destroy = fs_destroy,
    .state = &fs_state,
    .more = &fs_more,
};
