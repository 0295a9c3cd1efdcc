/* The bus: finds the region of an address and gives the device what its table allows.
 *
 * An access may touch several regions, holes, or the end of the address space; it is cut into
 * pieces, lowest address first, each inside one region, naturally aligned to the region's start
 * (unless the device takes unaligned ones) and no larger than the device's max_size. That is what
 * the ISA bus does with a word access to an 8-bit device. Pieces below min_size are refused.
 *
 * Any thread. The map and the devices are guarded by the device lock (base/loop.h).
 */
#include "bus/bus.h"

#include <errno.h>
#include <string.h>

#include "base/bits.h"
#include "base/loop.h"

void bus_init(struct bus *b, const char *name, struct loop *loop, uint64_t size)
{
    memset(b, 0, sizeof(*b));
    b->name = name;
    b->loop = loop;
    b->size = size;
}

/* The last address of the bus; regions keep inclusive ends so that 2^64 needs no special case. */
static uint64_t bus_last(const struct bus *b) { return b->size - 1; }

static uint64_t region_last(const struct bus_region *r) { return r->base + (r->len - 1); }

/* The index of the first region that ends at or after addr; count if there is none. */
static unsigned bus_search(const struct bus *b, uint64_t addr)
{
    unsigned lo = 0, hi = b->count;

    while (lo < hi) {
        unsigned mid = (lo + hi) / 2;

        if (region_last(b->map[mid]) < addr)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

int bus_add(struct bus *b, struct bus_region *r)
{
    unsigned i;

    if (r->len == 0 || region_last(r) < r->base || region_last(r) > bus_last(b))
        return -EINVAL;
    i = bus_search(b, r->base);
    if (i < b->count && b->map[i]->base <= region_last(r))
        return -EEXIST;
    if (b->count == BUS_MAX_REGIONS)
        return -ENOSPC;
    memmove(&b->map[i + 1], &b->map[i], (b->count - i) * sizeof(b->map[0]));
    b->map[i] = r;
    b->count++;
    r->enabled = true;
    return 0;
}

void bus_remove(struct bus *b, struct bus_region *r)
{
    unsigned i;

    for (i = 0; i < b->count && b->map[i] != r; i++)
        ;
    if (i == b->count)
        return;
    b->count--;
    memmove(&b->map[i], &b->map[i + 1], (b->count - i) * sizeof(b->map[0]));
    r->enabled = false;
}

/* One piece of an access. */
struct bus_piece {
    struct bus_region *region; /* NULL: unclaimed or refused */
    uint64_t off;
    unsigned size;
};

/* The largest piece at off that the device takes, of at most n bytes. */
static unsigned piece_size(const struct bus_ops *ops, uint64_t off, unsigned n)
{
    unsigned size = ops->max_size ? ops->max_size : 8;

    while (size > n || (!ops->unaligned && (off & (size - 1))))
        size /= 2;
    return size;
}

/* The first piece of the n bytes at addr. */
static struct bus_piece bus_piece_at(const struct bus *b, uint64_t addr, unsigned n)
{
    unsigned i = bus_search(b, addr);
    struct bus_piece p = { .size = n };
    struct bus_region *r;

    if (i == b->count)
        return p;
    r = b->map[i];
    if (addr < r->base) { /* a hole, perhaps up to this region */
        if (r->base - addr < n)
            p.size = (unsigned)(r->base - addr);
        return p;
    }
    if (region_last(r) - addr < n - 1)
        n = (unsigned)(region_last(r) - addr) + 1;
    p.off = addr - r->base;
    p.size = piece_size(r->ops, p.off, n);
    if (p.size >= r->ops->min_size)
        p.region = r;
    return p;
}

/* Bytes at addr that are on the bus at all; the rest of an access at the very end is unclaimed. */
static unsigned bus_clip(const struct bus *b, uint64_t addr, unsigned size)
{
    if (addr > bus_last(b))
        return 0;
    return bus_last(b) - addr < size - 1 ? (unsigned)(bus_last(b) - addr) + 1 : size;
}

uint64_t bus_read_locked(struct bus *b, uint64_t addr, unsigned size)
{
    unsigned n = bus_clip(b, addr, size), done = 0;
    uint64_t value = mask_bytes(size);

    while (done < n) {
        struct bus_piece p = bus_piece_at(b, addr + done, n - done);

        if (p.region && p.region->ops->read) {
            uint64_t v = p.region->ops->read(p.region->dev, p.off, p.size) & mask_bytes(p.size);

            value = (value & ~(mask_bytes(p.size) << (8 * done))) | v << (8 * done);
        }
        done += p.size;
    }
    return value;
}

void bus_write_locked(struct bus *b, uint64_t addr, uint64_t value, unsigned size)
{
    unsigned n = bus_clip(b, addr, size), done = 0;

    while (done < n) {
        struct bus_piece p = bus_piece_at(b, addr + done, n - done);

        if (p.region && p.region->ops->write)
            p.region->ops->write(p.region->dev, p.off, value >> (8 * done) & mask_bytes(p.size), p.size);
        done += p.size;
    }
}

uint64_t bus_read(struct bus *b, uint64_t addr, unsigned size)
{
    uint64_t value;

    if (b->loop)
        loop_lock(b->loop);
    value = bus_read_locked(b, addr, size);
    if (b->loop)
        loop_unlock(b->loop);
    return value;
}

void bus_write(struct bus *b, uint64_t addr, uint64_t value, unsigned size)
{
    if (b->loop)
        loop_lock(b->loop);
    bus_write_locked(b, addr, value, size);
    if (b->loop)
        loop_unlock(b->loop);
}

bool bus_claims(struct bus *b, uint64_t addr)
{
    unsigned i = bus_search(b, addr);

    return i < b->count && b->map[i]->base <= addr;
}
