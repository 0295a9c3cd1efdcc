/* The driver's side of a virtqueue, see vring.h. One thread; the order of writes is all that is needed. */
#include "vring.h"

#include <string.h>

#include "base/bits.h"

void vring_init(struct vring *r, struct ram *ram, bool packed, uint16_t size, uint64_t gpa)
{
    *r = (struct vring){
        .ram = ram,
        .packed = packed,
        .size = size,
        .desc = gpa,
        .driver = gpa + 0x1000,
        .device = gpa + 0x2000,
        .avail_wrap = true,
        .used_wrap = true,
    };
    ram_fill(ram, gpa, 0, 0x3000);
}

void vring_desc(struct vring *r, uint64_t table, unsigned index, uint64_t gpa, uint32_t len, uint16_t flags,
                uint16_t next_or_id)
{
    uint8_t d[16];

    st_le64(d, gpa);
    st_le32(d + 8, len);
    st_le16(d + 12, r->packed ? next_or_id : flags);
    st_le16(d + 14, r->packed ? flags : next_or_id);
    ram_write(r->ram, table + 16 * index, d, sizeof(d));
}

void vring_offer(struct vring *r, uint16_t head)
{
    ram_write(r->ram, r->driver + 4 + 2 * (r->avail & (r->size - 1)), &head, 2);
    r->avail++;
    ram_write(r->ram, r->driver + 2, &r->avail, 2);
}

static uint16_t part_flags(const struct vring_part *p, bool more)
{
    return (uint16_t)((p->write ? VQ_DESC_WRITE : 0) | (more ? VQ_DESC_NEXT : 0));
}

/* One packed descriptor at the ring's position. The first of a chain becomes available last; here nobody
 * looks in between. */
static void packed_put(struct vring *r, uint64_t gpa, uint32_t len, uint16_t flags, uint16_t id)
{
    flags |= r->avail_wrap ? VQ_DESC_AVAIL : VQ_DESC_USED;
    vring_desc(r, r->desc, r->next, gpa, len, flags, id);
    if (++r->next == r->size) {
        r->next = 0;
        r->avail_wrap = !r->avail_wrap;
    }
}

uint16_t vring_add(struct vring *r, const struct vring_part *part, unsigned n)
{
    uint16_t head = r->next;

    for (unsigned i = 0; i < n; i++) {
        uint16_t flags = part_flags(&part[i], i + 1 < n);
        if (r->packed) {
            packed_put(r, part[i].gpa, part[i].len, flags, head);
            continue;
        }
        uint16_t at = r->next;
        r->next = (uint16_t)((at + 1) % r->size);
        vring_desc(r, r->desc, at, part[i].gpa, part[i].len, flags, r->next);
    }
    if (!r->packed)
        vring_offer(r, head);
    return head;
}

uint16_t vring_add_indirect(struct vring *r, uint64_t table, const struct vring_part *part, unsigned n)
{
    uint16_t head = r->next;

    for (unsigned i = 0; i < n; i++)
        vring_desc(r, table, i, part[i].gpa, part[i].len, part_flags(&part[i], i + 1 < n), (uint16_t)(i + 1));
    if (r->packed) {
        packed_put(r, table, 16 * n, VQ_DESC_INDIRECT, head);
        return head;
    }
    vring_desc(r, r->desc, head, table, 16 * n, VQ_DESC_INDIRECT, 0);
    r->next = (uint16_t)((head + 1) % r->size);
    vring_offer(r, head);
    return head;
}

static bool packed_get(struct vring *r, uint16_t *id, uint32_t *written, unsigned slots)
{
    uint8_t d[16];

    ram_read(r->ram, r->desc + 16 * r->used, d, sizeof(d));
    uint16_t flags = ld_le16(d + 14);
    if (!!(flags & VQ_DESC_AVAIL) != r->used_wrap || !!(flags & VQ_DESC_USED) != r->used_wrap)
        return false;
    *id = ld_le16(d + 12);
    *written = ld_le32(d + 8);
    r->used = (uint16_t)(r->used + slots);
    if (r->used >= r->size) {
        r->used = (uint16_t)(r->used - r->size);
        r->used_wrap = !r->used_wrap;
    }
    return true;
}

bool vring_get(struct vring *r, uint16_t *id, uint32_t *written, unsigned slots)
{
    uint8_t entry[8];
    uint16_t idx;

    if (r->packed)
        return packed_get(r, id, written, slots);
    ram_read(r->ram, r->device + 2, &idx, 2);
    if (idx == r->used)
        return false;
    ram_read(r->ram, r->device + 4 + 8 * (r->used & (r->size - 1)), entry, sizeof(entry));
    r->used++;
    *id = (uint16_t)ld_le32(entry);
    *written = ld_le32(entry + 4);
    return true;
}
