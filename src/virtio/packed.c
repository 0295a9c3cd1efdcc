/* Packed virtqueues: one ring of descriptors that both sides write.
 * Source: virtio 1.2, 2.8.
 * Runs on: any thread, under the device lock. The driver's CPUs run at the same time.
 *
 * A descriptor is available when its AVAIL flag equals the driver's wrap counter and its USED flag does not,
 * and used when both equal the device's. The flags are 2 aligned bytes: what is written last, and read first.
 */
#include <errno.h>
#include <stdatomic.h>

#include "base/bits.h"
#include "virtio/queue.h"

enum { DESC_LEN = 16, DESC_FLAGS = 14, EVENT_LEN = 4, EVENT_FLAGS = 2 };
enum { EVENT_ENABLE = 0, EVENT_DISABLE = 1, EVENT_DESC = 2, EVENT_WRAP = 0x8000 };

struct packed_desc {
    uint64_t gpa;
    uint32_t len;
    uint16_t id, flags;
};

int vq_packed_start(struct vq *q)
{
    if (q->desc % 16 || q->driver % 4 || q->device % 4 ||
        !vq_is_ram(q->ram, q->desc, DESC_LEN * (uint64_t)q->size) ||
        !vq_is_ram(q->ram, q->driver, EVENT_LEN) || !vq_is_ram(q->ram, q->device, EVENT_LEN))
        return vq_break(q, "packed ring is misaligned or outside RAM");
    if (q->avail_idx >= q->size || q->used_idx >= q->size)
        return vq_break(q, "position outside the packed ring");
    return 0;
}

static uint16_t packed_get16(struct vq *q, uint64_t gpa)
{
    uint16_t v = 0;

    ram_read(q->ram, gpa, &v, sizeof(v));
    return v;
}

static void packed_fetch(struct vq *q, uint64_t table, unsigned index, struct packed_desc *d)
{
    uint8_t raw[DESC_LEN] = { 0 };

    ram_read(q->ram, table + DESC_LEN * (uint64_t)index, raw, sizeof(raw));
    *d = (struct packed_desc){
        .gpa = ld_le64(raw), .len = ld_le32(raw + 8), .id = ld_le16(raw + 12), .flags = ld_le16(raw + 14)
    };
}

/* Move a position n entries on (n at most the size), flipping its wrap counter at the end. */
static void packed_advance(const struct vq *q, uint16_t *idx, bool *wrap, unsigned n)
{
    unsigned at = *idx + n;

    if (at >= q->size) {
        at -= q->size;
        *wrap = !*wrap;
    }
    *idx = (uint16_t)at;
}

static bool packed_is_available(const struct vq *q, uint16_t flags, bool wrap)
{
    return !!(flags & VQ_DESC_AVAIL) == wrap && !!(flags & VQ_DESC_USED) != wrap;
}

/* All entries of an indirect table, in order: there are no links (2.8.7). */
static int packed_walk_table(struct vq *q, struct vq_chain *c, const struct packed_desc *d)
{
    struct packed_desc e;
    struct vq_table t;

    if (vq_table_open(q, &t, d->gpa, d->len) < 0)
        return -EINVAL;
    for (unsigned i = 0; i < t.entries; i++) {
        packed_fetch(q, t.gpa, i, &e);
        if (e.flags & VQ_DESC_INDIRECT)
            return vq_break(q, "indirect table inside a table");
        if (vq_chain_add(q, c, e.gpa, e.len, e.flags) < 0)
            return -EINVAL;
    }
    return 0;
}

/* The id of a chain is in its last descriptor. */
static int packed_walk(struct vq *q, struct vq_chain *c, unsigned at)
{
    struct packed_desc d;

    for (;; at = at + 1 == q->size ? 0 : at + 1) {
        packed_fetch(q, q->desc, at, &d);
        c->slots++;
        c->id = d.id;
        if (d.flags & VQ_DESC_INDIRECT) {
            if (c->nparts || (d.flags & VQ_DESC_NEXT))
                return vq_break(q, "indirect table in a chain of descriptors");
            return packed_walk_table(q, c, &d);
        }
        if (vq_chain_add(q, c, d.gpa, d.len, d.flags) < 0) /* counts: ends at the queue's size */
            return -EINVAL;
        if (!(d.flags & VQ_DESC_NEXT))
            return 0;
    }
}

/* Whether the driver shall kick: the device's event area (2.8.10). */
static void packed_set_kicks(struct vq *q, bool on)
{
    uint16_t flags = on ? EVENT_ENABLE : EVENT_DISABLE;

    if (q->quiet != on)
        return;
    q->quiet = !on;
    ram_write(q->ram, q->device + EVENT_FLAGS, &flags, sizeof(flags));
    atomic_thread_fence(memory_order_seq_cst); /* it looks at the flags after it made one available */
}

static bool packed_has_more(struct vq *q)
{
    uint16_t flags = packed_get16(q, q->desc + DESC_LEN * (uint64_t)q->avail_idx + DESC_FLAGS);

    return packed_is_available(q, flags, q->avail_wrap);
}

int vq_packed_pop(struct vq *q, struct vq_chain *c)
{
    if (!packed_has_more(q)) {
        packed_set_kicks(q, true);
        if (!packed_has_more(q))
            return 0;
    }
    packed_set_kicks(q, false);
    atomic_thread_fence(memory_order_acquire); /* the rest after the flags */
    if (packed_walk(q, c, q->avail_idx) < 0)
        return -EINVAL;
    packed_advance(q, &q->avail_idx, &q->avail_wrap, c->slots);
    return 1;
}

void vq_packed_unpop(struct vq *q, const struct vq_chain *c)
{
    unsigned at = q->avail_idx;

    if (at < c->slots) {
        at += q->size;
        q->avail_wrap = !q->avail_wrap;
    }
    q->avail_idx = (uint16_t)(at - c->slots);
}

/* One used descriptor at a place of the ring. The flags come last, and of several the first descriptor's: the driver
 * looks at it first. */
static void packed_put_used(struct vq *q, const struct vq_used *u, unsigned at, bool wrap)
{
    uint64_t gpa = q->desc + DESC_LEN * (uint64_t)at;
    uint16_t flags = (uint16_t)((wrap ? VQ_DESC_AVAIL | VQ_DESC_USED : 0) | (u->written ? VQ_DESC_WRITE : 0));
    uint8_t raw[6];

    st_le32(raw, u->written);
    st_le16(raw + 4, u->id);
    ram_write(q->ram, gpa + 8, raw, sizeof(raw));
    atomic_thread_fence(memory_order_release); /* the flags after all else */
    ram_write(q->ram, gpa + DESC_FLAGS, &flags, sizeof(flags));
}

void vq_packed_push(struct vq *q, const struct vq_used *used, unsigned n)
{
    unsigned first = q->used_idx;
    bool first_wrap = q->used_wrap;

    for (unsigned i = 0; i < n; i++) {
        unsigned from = q->used_idx;

        if (i)
            packed_put_used(q, &used[i], q->used_idx, q->used_wrap);
        packed_advance(q, &q->used_idx, &q->used_wrap, used[i].slots);
        if (q->used_idx <= from)
            q->told_valid = false; /* told_idx is of another round */
    }
    packed_put_used(q, &used[0], first, first_wrap);
}

/* 2.8.10: the driver names a position with its wrap counter; was it passed since we last looked? */
static bool packed_passed(const struct vq *q, uint16_t event, uint16_t was, bool was_valid)
{
    unsigned pos = event & (EVENT_WRAP - 1), now = q->used_idx;
    bool wrap = event & EVENT_WRAP;

    if (wrap != q->used_wrap)
        pos -= q->size; /* in the round before; unsigned differences below wrap as they should */
    return !was_valid || (uint16_t)(now - pos - 1) < (uint16_t)(now - was);
}

bool vq_packed_should_notify(struct vq *q)
{
    uint16_t was = q->told_idx, event, flags;
    bool valid = q->told_valid;

    if (valid && was == q->used_idx)
        return false;
    q->told_idx = q->used_idx;
    q->told_valid = true;
    atomic_thread_fence(memory_order_seq_cst); /* what it wants, after it can see the descriptors */
    flags = packed_get16(q, q->driver + EVENT_FLAGS) & 3;
    event = packed_get16(q, q->driver);
    if (flags == EVENT_DISABLE)
        return false;
    if (flags != EVENT_DESC || !(q->features & VIRTIO_F_EVENT_IDX))
        return true;
    return packed_passed(q, event, was, valid);
}
