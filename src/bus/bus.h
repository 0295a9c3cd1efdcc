/* One bus type, used for I/O ports and for memory-mapped I/O.
 *
 * A region has a base, a length and a static ops table; offsets given to a device are relative
 * to the region. The bus checks the access size and alignment against the table, splits what a
 * device does not take in one piece, and refuses overlapping regions.
 *
 * Locking: bus_read()/bus_write() take the device lock (loop.h) around the device's handler; they
 * are called by vCPU threads that do not hold it. The _locked forms are for callers that do.
 */
#ifndef VITRO_BUS_BUS_H
#define VITRO_BUS_BUS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct loop;

struct bus_ops {
    /* size is 1, 2, 4 or 8 bytes; off + size never leaves the region; value is zero-extended. */
    uint64_t (*read)(void *dev, uint64_t off, unsigned size);
    void (*write)(void *dev, uint64_t off, uint64_t value, unsigned size);
    /* Sizes the device takes: smaller ones are refused (reads give all ones, writes are dropped),
     * larger ones are split into max_size pieces, lowest address first. 0 means 1 and 8. */
    uint8_t min_size, max_size;
    bool unaligned; /* the device takes accesses that are not naturally aligned */
};

struct bus_region {
    uint64_t base, len;
    const struct bus_ops *ops;
    void *dev;
    const char *name;
    bool enabled;
};

#define BUS_MAX_REGIONS 128

struct bus {
    const char *name;
    struct loop *loop; /* whose lock guards the devices; NULL: no locking (unit tests) */
    struct bus_region *map[BUS_MAX_REGIONS]; /* enabled regions sorted by base */
    unsigned count;
    uint64_t size; /* addresses are below this; 0 means 2^64 */
};

void bus_init(struct bus *b, const char *name, struct loop *loop, uint64_t size);

/* Enable a region (owned by the device). -EEXIST: overlaps an enabled one; -EINVAL: empty or out
 * of range; -ENOSPC. bus_remove() of a region that is not enabled does nothing. After the machine runs,
 * call these with the device lock held (BARs being moved). */
int bus_add(struct bus *b, struct bus_region *r);
void bus_remove(struct bus *b, struct bus_region *r);

/* Unclaimed addresses read as all ones and drop writes. size is 1, 2, 4 or 8. */
uint64_t bus_read(struct bus *b, uint64_t addr, unsigned size);
void bus_write(struct bus *b, uint64_t addr, uint64_t value, unsigned size);
uint64_t bus_read_locked(struct bus *b, uint64_t addr, unsigned size);
void bus_write_locked(struct bus *b, uint64_t addr, uint64_t value, unsigned size);

/* True if some enabled region holds addr; device lock held. */
bool bus_claims(struct bus *b, uint64_t addr);

#endif
