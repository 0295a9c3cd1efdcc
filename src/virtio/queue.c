/* Virtqueues: what both layouts share, and split rings.
 * Source: virtio 1.2, 2.6 (virtqueues), 2.7 (split virtqueues).
 * Runs on: any thread, under the device lock. The driver's CPUs run at the same time.
 */
#include "virtio/queue.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#include "base/bits.h"
#include "base/err.h"
#include "base/log.h"
#include "ram/lend.h"
#include "ram/move.h"

enum { DESC_LEN = 16, RING_IDX = 2, RING_ENTRIES = 4, USED_ENTRY = 8, AVAIL_ENTRY = 2 };
enum { AVAIL_NO_INTERRUPT = 1 };

struct vq_desc {
    uint64_t gpa;
    uint32_t len;
    uint16_t flags, next;
};

/* ---- what both layouts share ---- */

int vq_break(struct vq *q, const char *why)
{
    log_guest("virtio: queue broken: %s", why);
    if (!q->broken) {
        q->broken = true;
        q->on_broken(q->opaque);
    }
    return -EINVAL;
}

bool vq_is_ram(struct ram *ram, uint64_t gpa, uint64_t len)
{
    while (len) {
        const struct ram_slot *s = ram_slot_of(ram, gpa);
        uint64_t n = s ? s->gpa + s->size - gpa : 0;
        if (!n)
            return false;
        if (n >= len)
            return true;
        gpa += n;
        len -= n;
    }
    return true;
}

int vq_chain_add(struct vq *q, struct vq_chain *c, uint64_t gpa, uint32_t len, uint16_t flags)
{
    bool write = flags & VQ_DESC_WRITE;

    if (c->nparts >= q->size)
        return vq_break(q, "chain longer than the queue, or a loop");
    if (!write && c->nparts > c->nread)
        return vq_break(q, "readable part after a writable one");
    if (len > q->max_bytes - c->read_len - c->write_len)
        return vq_break(q, "chain has too many bytes");
    if (!vq_is_ram(q->ram, gpa, len))
        return vq_break(q, "buffer outside RAM");
    c->part[c->nparts++] = (struct vq_part){ .gpa = gpa, .len = len };
    if (write) {
        c->write_len += len;
    } else {
        c->read_len += len;
        c->nread = c->nparts;
    }
    return 0;
}

int vq_table_open(struct vq *q, struct vq_table *t, uint64_t gpa, uint32_t len)
{
    if (!(q->features & VIRTIO_F_INDIRECT_DESC))
        return vq_break(q, "indirect table that was not negotiated");
    if (!len || len % DESC_LEN)
        return vq_break(q, "indirect table of odd length");
    if (!vq_is_ram(q->ram, gpa, len))
        return vq_break(q, "indirect table outside RAM");
    *t = (struct vq_table){ .gpa = gpa, .entries = len / DESC_LEN };
    return 0;
}

/* Copy between buf and parts [first, last), from byte off of them on; in: from the guest. */
static size_t vq_chain_copy(const struct vq_chain *c, unsigned first, unsigned last, uint32_t off,
                            uint8_t *buf, size_t len, bool in)
{
    size_t done = 0;

    for (unsigned i = first; i < last && done < len; i++) {
        const struct vq_part *p = &c->part[i];
        if (off >= p->len) {
            off -= p->len;
            continue;
        }
        size_t n = p->len - off < len - done ? p->len - off : len - done;
        if (in)
            ram_read(c->ram, p->gpa + off, buf + done, n);
        else
            ram_write(c->ram, p->gpa + off, buf + done, n);
        done += n;
        off = 0;
    }
    return done;
}

size_t vq_chain_read(const struct vq_chain *c, uint32_t off, void *buf, size_t len)
{
    return vq_chain_copy(c, 0, c->nread, off, buf, len, true);
}

size_t vq_chain_write(const struct vq_chain *c, uint32_t off, const void *buf, size_t len)
{
    return vq_chain_copy(c, c->nread, c->nparts, off, (uint8_t *)(uintptr_t)buf, len, false);
}

/* Add memory to a vector: 0, or -ENOSPC. */
static int vq_iov_add(struct iovec *iov, unsigned *n, unsigned max, void *hva, uint64_t len)
{
    struct iovec *last = *n ? &iov[*n - 1] : NULL;

    if (last && (uint8_t *)last->iov_base + last->iov_len == hva) {
        last->iov_len += len;
        return 0;
    }
    if (*n == max)
        return -ENOSPC;
    iov[(*n)++] = (struct iovec){ .iov_base = hva, .iov_len = len };
    return 0;
}

static int vq_lend_part(struct ram *ram, uint64_t gpa, uint64_t len, struct iovec *iov, unsigned *n,
                        unsigned max)
{
    uint64_t here;
    int r = 0;

    for (; r == 0 && len > 0; gpa += here, len -= here) {
        void *hva = ram_lend(ram, gpa, len, &here);

        if (!hva)
            return -EACCES;
        r = vq_iov_add(iov, n, max, hva, here);
    }
    return r;
}

/* As vq_lend_part(), to be read; a part lies in one slot or is copied. */
static int vq_show_part(struct ram *ram, uint64_t gpa, uint64_t len, struct iovec *iov, unsigned *n, unsigned max)
{
    void *hva = ram_borrow(ram, gpa, len);

    return hva ? vq_iov_add(iov, n, max, hva, len) : -EACCES;
}

typedef int (*vq_part_fn)(struct ram *ram, uint64_t gpa, uint64_t len, struct iovec *iov, unsigned *n, unsigned max);

/* Where the bytes [off, off+len) of parts [i, last) are, by what fn says of each. */
static unsigned vq_chain_iov(const struct vq_chain *c, unsigned i, unsigned last, uint32_t off, uint32_t len, struct iovec *iov,
                             unsigned max, vq_part_fn fn)
{
    unsigned n = 0;

    for (; i < last && len > 0; i++) {
        const struct vq_part *p = &c->part[i];
        uint32_t here = off < p->len ? p->len - off : 0;

        here = here < len ? here : len;
        if (here && fn(c->ram, p->gpa + off, here, iov, &n, max) < 0)
            return 0;
        off -= off < p->len ? off : p->len;
        len -= here;
    }
    return len ? 0 : n;
}

unsigned vq_chain_lend(const struct vq_chain *c, uint32_t off, uint32_t len, struct iovec *iov, unsigned max)
{
    unsigned n;

    ram_enter(c->ram);
    n = vq_chain_iov(c, c->nread, c->nparts, off, len, iov, max, vq_lend_part);
    if (!n)
        ram_leave(c->ram);
    return n;
}

unsigned vq_chain_show(const struct vq_chain *c, uint32_t off, uint32_t len, struct iovec *iov, unsigned max)
{
    return vq_chain_iov(c, 0, c->nread, off, len, iov, max, vq_show_part);
}

void vq_chain_lend_end(const struct vq_chain *c, uint32_t off, uint32_t len)
{
    for (unsigned i = c->nread; i < c->nparts && len > 0; i++) {
        const struct vq_part *p = &c->part[i];
        uint32_t here = off < p->len ? p->len - off : 0;

        here = here < len ? here : len;
        if (here)
            ram_lend_end(c->ram, p->gpa + off, here);
        off -= off < p->len ? off : p->len;
        len -= here;
    }
    ram_leave(c->ram);
}

void vq_init(struct vq *q, struct ram *ram, uint16_t max_size, void (*on_broken)(void *opaque), void *opaque)
{
    *q = (struct vq){
        .ram = ram, .max_size = max_size, .max_bytes = VQ_MAX_BYTES, .on_broken = on_broken, .opaque = opaque
    };
    vq_reset(q);
}

void vq_reset(struct vq *q)
{
    *q = (struct vq){
        .size = q->max_size,
        .vector = VQ_NO_VECTOR,
        .avail_wrap = true,
        .used_wrap = true,
        .told_valid = true,
        .max_size = q->max_size,
        .max_bytes = q->max_bytes,
        .ram = q->ram,
        .on_broken = q->on_broken,
        .opaque = q->opaque,
    };
}

static bool vq_is_packed(const struct vq *q) { return q->features & VIRTIO_F_RING_PACKED; }

/* ---- split rings ---- */

static uint16_t vq_get16(struct vq *q, uint64_t gpa)
{
    uint16_t v = 0;

    ram_read(q->ram, gpa, &v, sizeof(v)); /* aligned: one load (ram.c) */
    return v;
}

static void vq_put16(struct vq *q, uint64_t gpa, uint16_t v) { ram_write(q->ram, gpa, &v, sizeof(v)); }

static uint64_t vq_used_event(const struct vq *q)
{
    return q->driver + RING_ENTRIES + AVAIL_ENTRY * (uint64_t)q->size;
}
static uint64_t vq_avail_event(const struct vq *q)
{
    return q->device + RING_ENTRIES + USED_ENTRY * (uint64_t)q->size;
}

/* An area of a ring: aligned, and RAM. */
static bool vq_area_ok(struct vq *q, uint64_t gpa, uint64_t align, uint64_t len)
{
    return gpa % align == 0 && vq_is_ram(q->ram, gpa, len);
}

static int vq_split_start(struct vq *q)
{
    uint64_t n = q->size;

    if (n & (n - 1))
        return vq_break(q, "size is not a power of two");
    if (!vq_area_ok(q, q->desc, 16, DESC_LEN * n) ||
        !vq_area_ok(q, q->driver, 2, RING_ENTRIES + AVAIL_ENTRY * n + 2) ||
        !vq_area_ok(q, q->device, 4, RING_ENTRIES + USED_ENTRY * n + 2))
        return vq_break(q, "ring is misaligned or outside RAM");
    return 0;
}

int vq_start(struct vq *q, uint64_t features)
{
    q->features = features;
    q->quiet = true; /* what an earlier life left in the device's area is not known */
    if (!q->enabled)
        return 0;
    if (q->broken)
        return -EINVAL;
    if (!q->size || q->size > q->max_size)
        return vq_break(q, "impossible size");
    return vq_is_packed(q) ? vq_packed_start(q) : vq_split_start(q);
}

static void vq_fetch(struct vq *q, uint64_t table, unsigned index, struct vq_desc *d)
{
    uint8_t raw[DESC_LEN] = { 0 };

    ram_read(q->ram, table + DESC_LEN * (uint64_t)index, raw, sizeof(raw));
    *d = (struct vq_desc){
        .gpa = ld_le64(raw), .len = ld_le32(raw + 8), .flags = ld_le16(raw + 12), .next = ld_le16(raw + 14)
    };
}

/* Follow descriptors from index of a table on. An indirect table may end a chain of the ring, not more: a
 * table inside a table is refused, and vq_chain_add() counts. */
static int vq_split_walk(struct vq *q, struct vq_chain *c, unsigned index)
{
    struct vq_table table = { .gpa = q->desc, .entries = q->size };
    bool inside = false;
    struct vq_desc d;

    for (;;) {
        if (index >= table.entries)
            return vq_break(q, "descriptor outside its table");
        vq_fetch(q, table.gpa, index, &d);
        if (d.flags & VQ_DESC_INDIRECT) {
            if (inside || (d.flags & VQ_DESC_NEXT))
                return vq_break(q, "indirect table inside a table or before a descriptor");
            if (vq_table_open(q, &table, d.gpa, d.len) < 0)
                return -EINVAL;
            inside = true;
            index = 0;
            continue;
        }
        if (vq_chain_add(q, c, d.gpa, d.len, d.flags) < 0)
            return -EINVAL;
        if (!(d.flags & VQ_DESC_NEXT))
            return 0;
        index = d.next;
    }
}

/* How many chains are available, at least one; 0 when there is none, and the driver was told to kick. */
static uint16_t vq_split_available(struct vq *q)
{
    uint16_t n = (uint16_t)(vq_get16(q, q->driver + RING_IDX) - q->avail_idx);

    if (n || !(q->features & VIRTIO_F_EVENT_IDX))
        return n;
    vq_put16(q, vq_avail_event(q), q->avail_idx);
    atomic_thread_fence(memory_order_seq_cst); /* it looks at the event after it made one available */
    return (uint16_t)(vq_get16(q, q->driver + RING_IDX) - q->avail_idx);
}

static int vq_split_pop(struct vq *q, struct vq_chain *c)
{
    uint16_t n = vq_split_available(q), head;

    if (n > q->size)
        return vq_break(q, "more available than the queue holds");
    if (!n)
        return 0;
    atomic_thread_fence(memory_order_acquire); /* the entry after the index */
    head = vq_get16(q, q->driver + RING_ENTRIES + AVAIL_ENTRY * (uint64_t)(q->avail_idx & (q->size - 1)));
    if (head >= q->size)
        return vq_break(q, "head outside the ring");
    c->id = head;
    if (vq_split_walk(q, c, head) < 0)
        return -EINVAL;
    q->avail_idx++;
    return 1;
}

static void vq_split_push(struct vq *q, const struct vq_used *used, unsigned n)
{
    uint8_t entry[USED_ENTRY];

    for (unsigned i = 0; i < n; i++, q->used_idx++) {
        st_le32(entry, used[i].id);
        st_le32(entry + 4, used[i].written);
        ram_write(q->ram, q->device + RING_ENTRIES + USED_ENTRY * (uint64_t)(q->used_idx & (q->size - 1)),
                  entry, sizeof(entry));
    }
    atomic_thread_fence(memory_order_release); /* the index after the entries and the data */
    vq_put16(q, q->device + RING_IDX, q->used_idx);
}

/* 2.7.7.2 and 2.7.10: with event indexes, whether used_event was passed since we last looked. */
static bool vq_split_should_notify(struct vq *q)
{
    uint16_t was = q->told_idx, now = q->used_idx;
    bool valid = q->told_valid;

    if (valid && was == now)
        return false;
    q->told_idx = now;
    q->told_valid = true;
    atomic_thread_fence(memory_order_seq_cst); /* what it wants, after it can see the index */
    if (!(q->features & VIRTIO_F_EVENT_IDX))
        return !(vq_get16(q, q->driver) & AVAIL_NO_INTERRUPT);
    uint16_t event = vq_get16(q, vq_used_event(q));
    return !valid || (uint16_t)(now - event - 1) < (uint16_t)(now - was);
}

/* ---- the calls ---- */

int vq_pop(struct vq *q, struct vq_chain *c)
{
    int r;

    if (q->broken)
        return -EINVAL;
    if (!q->enabled)
        return 0;
    c->ram = q->ram;
    c->read_len = c->write_len = 0;
    c->nread = c->nparts = c->slots = 0;
    r = vq_is_packed(q) ? vq_packed_pop(q, c) : vq_split_pop(q, c);
    if (r <= 0)
        return r;
    if (q->held >= q->size)
        return vq_break(q, "the same chain was made available twice");
    q->held++;
    return 1;
}

void vq_unpop(struct vq *q, const struct vq_chain *c)
{
    if (q->broken || !q->held)
        return;
    q->held--;
    if (vq_is_packed(q))
        vq_packed_unpop(q, c);
    else
        q->avail_idx--;
}

void vq_push_all(struct vq *q, const struct vq_used *used, unsigned n)
{
    if (q->broken || !q->enabled || q->held < n || !n)
        return;
    q->held = (uint16_t)(q->held - n);
    if (vq_is_packed(q))
        vq_packed_push(q, used, n);
    else
        vq_split_push(q, used, n);
}

void vq_push(struct vq *q, const struct vq_chain *c, uint32_t written)
{
    struct vq_used used = { .written = written, .id = c->id, .slots = c->slots };

    vq_push_all(q, &used, 1);
}

bool vq_should_notify(struct vq *q)
{
    if (q->broken || !q->enabled)
        return false;
    return vq_is_packed(q) ? vq_packed_should_notify(q) : vq_split_should_notify(q);
}

static const struct state_field vq_fields[] = {
    STATE_F64(struct vq, desc),        STATE_F64(struct vq, driver),
    STATE_F64(struct vq, device),      STATE_F16(struct vq, size),
    STATE_F16(struct vq, vector),      STATE_FBOOL(struct vq, enabled),
    STATE_F16(struct vq, avail_idx),   STATE_F16(struct vq, used_idx),
    STATE_F16(struct vq, told_idx),    STATE_FBOOL(struct vq, avail_wrap),
    STATE_FBOOL(struct vq, used_wrap), STATE_FBOOL(struct vq, told_valid),
    STATE_FBOOL(struct vq, broken),    STATE_END,
};

/* What else can be wrong depends on the device and its RAM: vq_start() looks at it when the machine resumes.
 */
static int vq_check(void *obj, struct err *err)
{
    const struct vq *q = obj;

    if (q->size > VQ_MAX_SIZE)
        return err_set(err, EINVAL, "virtqueue: size %u is impossible", q->size);
    return 0;
}

const struct state_desc vq_state = {
    .name = "virtqueue", .version = 1, .size = sizeof(struct vq), .fields = vq_fields, .check = vq_check
};
