/* Virtqueues: the one way by which every virtio device gets buffers from its driver and gives them back.
 *
 * A virtqueue lives in guest memory. The driver makes buffers available as *chains*: first parts that the
 * device reads, then parts that it writes. The device takes a chain, does what it says, and returns it with
 * the number of bytes it wrote. In a device that looks like this:
 *
 *     static void toy_notify(void *dev, unsigned q)        // the driver kicked queue q
 *     {
 *         struct vq_chain c;                               // a validated copy of the descriptors
 *
 *         while (vq_pop(vq, &c) > 0) {                     // 0: empty; -EINVAL: the driver broke the rules
 *             vq_chain_read(&c, 0, &header, sizeof(header));      // from the parts that we read
 *             vq_chain_write(&c, 0, answer, n);                   // to the parts that we write
 *             vq_push(vq, &c, n);                          // now the driver may have it back
 *         }
 *         virtio_notify(dev, q);                           // an interrupt, if the driver wants one
 *     }
 *
 * A chain is a plain value: guest addresses and lengths, no pointers, so that it can be kept (an I/O request
 * in flight) and cannot dangle. Data is copied by ram_read()/ram_write(); a device that works on it for
 * longer does so on its own copy. A device keeps at most as many chains as the queue has entries, vq_pop()
 * sees to it.
 *
 * Two layouts, the same calls: split rings (virtio 1.2, 2.7) and packed rings (2.8), both with indirect
 * descriptors and event suppression.
 *
 * The driver is hostile. Each descriptor is fetched once, and the copy is checked: a chain has at most as
 * many parts as the queue has entries (which ends loops), at most VQ_MAX_BYTES bytes, nothing to read after
 * something to write, no table inside a table, and all of it is RAM (never MMIO: DMA does not re-enter
 * devices). Whoever breaks a rule gets DEVICE_NEEDS_RESET by the `broken` hook, and the queue stands still
 * until the reset.
 *
 * Threads: everything with the device lock held. The driver runs at the same time; the order of accesses to
 * the rings is what the barriers in queue.c are for.
 */
#ifndef VITRO_VIRTIO_QUEUE_H
#define VITRO_VIRTIO_QUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "ram/ram.h"
#include "state/state.h"

#define VQ_MAX_SIZE  256         /* entries of a queue, and parts of a chain */
#define VQ_MAX_BYTES (32U << 20) /* of a chain */
#define VQ_NO_VECTOR 0xffff

/* Feature bits that change how a queue works (virtio 1.2, chapter 6). */
#define VIRTIO_F_INDIRECT_DESC (1ULL << 28)
#define VIRTIO_F_EVENT_IDX     (1ULL << 29)
#define VIRTIO_F_VERSION_1     (1ULL << 32)
#define VIRTIO_F_RING_PACKED   (1ULL << 34)

struct vq {
    /* What the driver has set up; described state. The transport writes it and freezes it at DRIVER_OK. */
    uint64_t desc, driver, device; /* guest addresses of the three areas */
    uint16_t size, vector;
    bool enabled;
    /* Where we are; described state. */
    uint16_t avail_idx, used_idx; /* split: free-running; packed: position in the ring */
    uint16_t told_idx;            /* used_idx when vq_should_notify() last looked */
    bool told_valid;              /* it is of this round; split: always */
    bool avail_wrap, used_wrap;   /* packed: the wrap counters */
    bool broken;                  /* the driver broke a rule: nothing moves until the reset */
    /* Not state. */
    uint16_t max_size;
    uint32_t max_bytes; /* of a chain: VQ_MAX_BYTES, unless the device that moves no bytes says more */
    uint16_t held;      /* chains that the device has: popped, not pushed */
    bool quiet;         /* packed: the driver may have been told not to kick */
    uint64_t features;  /* what was negotiated */
    struct ram *ram;
    void (*on_broken)(void *opaque);
    void *opaque;
};

extern const struct state_desc vq_state;

/* One part of a chain: guest memory that was RAM when it was checked, and RAM stays. */
struct vq_part {
    uint64_t gpa;
    uint32_t len;
};

struct vq_chain {
    struct ram *ram;
    uint32_t read_len, write_len; /* bytes that we may read, and write; together at most vq->max_bytes */
    uint16_t id;                  /* what the driver knows it by */
    uint16_t slots;               /* packed: entries of the ring that it takes */
    uint16_t nread, nparts;       /* parts [0, nread) are for reading, [nread, nparts) for writing */
    struct vq_part part[VQ_MAX_SIZE];
};

/* A chain on its way back: its id and slots, and the bytes that were written to it. */
struct vq_used {
    uint32_t written;
    uint16_t id, slots;
};

/* on_broken(opaque) is called when the driver breaks a rule (at most once until the reset). max_size is 1 to
 * VQ_MAX_SIZE; for split rings it must be a power of two. */
void vq_init(struct vq *q, struct ram *ram, uint16_t max_size, void (*on_broken)(void *opaque), void *opaque);
void vq_reset(struct vq *q);

/* DRIVER_OK, or a loaded state: check what the driver set up against the features. An enabled queue whose
 * size, alignment or addresses are impossible is marked broken. 0 or -EINVAL. */
int vq_start(struct vq *q, uint64_t features);

/* Take the next chain. 1; 0 when there is none (then the driver will kick when there is one); -EINVAL when
 * the queue is broken or the driver has just broken it. c need not be initialised. */
int vq_pop(struct vq *q, struct vq_chain *c);
/* Undo the last vq_pop() that was not undone: there is no room for it now. Of c only id and slots count. */
void vq_unpop(struct vq *q, const struct vq_chain *c);
/* Return a chain; written is how many bytes of its writable parts were written, from the first on. Chains may
 * come back in any order. */
void vq_push(struct vq *q, const struct vq_chain *c, uint32_t written);
/* Return n chains at once: the driver sees all of them or none (virtio 1.2, 5.1.6.4: mergeable buffers). */
void vq_push_all(struct vq *q, const struct vq_used *used, unsigned n);
/* Does the driver want an interrupt for what was pushed since the last call? Call once after a batch. */
bool vq_should_notify(struct vq *q);

/* Copy between a buffer and the readable or writable bytes of a chain, from byte off of them on. Returns how
 * many bytes were copied: less than len only where the chain ends. */
size_t vq_chain_read(const struct vq_chain *c, uint32_t off, void *buf, size_t len);
size_t vq_chain_write(const struct vq_chain *c, uint32_t off, const void *buf, size_t len);

/* Let somebody else write to the writable bytes [off, off+len) of a chain: iov gets where they are,
 * neighbours in one; vq_chain_lend_end() for the same bytes follows soon. Returns how many entries, or 0
 * where that does not work (outside the chain, more than max entries, read-only memory): then use
 * vq_chain_write(). */
unsigned vq_chain_lend(const struct vq_chain *c, uint32_t off, uint32_t len, struct iovec *iov, unsigned max);
void vq_chain_lend_end(const struct vq_chain *c, uint32_t off, uint32_t len);
/* Let somebody else read the readable bytes [off, off+len): as vq_chain_lend(), and nothing follows. The guest may change them
 * meanwhile. */
unsigned vq_chain_show(const struct vq_chain *c, uint32_t off, uint32_t len, struct iovec *iov, unsigned max);

/* --- between queue.c and packed.c --- */

/* Report misuse: returns -EINVAL. */
int vq_break(struct vq *q, const char *why);
/* Add a descriptor's copy to a chain. flags are VQ_DESC_*. 0 or -EINVAL (reported). */
int vq_chain_add(struct vq *q, struct vq_chain *c, uint64_t gpa, uint32_t len, uint16_t flags);
/* All of [gpa, gpa+len) is RAM. */
bool vq_is_ram(struct ram *ram, uint64_t gpa, uint64_t len);

enum {
    VQ_DESC_NEXT = 1,
    VQ_DESC_WRITE = 2,
    VQ_DESC_INDIRECT = 4,
    VQ_DESC_AVAIL = 0x80,
    VQ_DESC_USED = 0x8000
};

struct vq_table {
    uint64_t gpa;
    uint32_t entries;
};
/* The indirect table that a descriptor names. 0 or -EINVAL (reported). */
int vq_table_open(struct vq *q, struct vq_table *t, uint64_t gpa, uint32_t len);

int vq_packed_start(struct vq *q);
int vq_packed_pop(struct vq *q, struct vq_chain *c);
void vq_packed_unpop(struct vq *q, const struct vq_chain *c);
void vq_packed_push(struct vq *q, const struct vq_used *used, unsigned n);
bool vq_packed_should_notify(struct vq *q);

#endif
