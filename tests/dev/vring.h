/* The driver's side of a virtqueue, for tests: rings in guest memory, with every liberty to write nonsense.
 */
#ifndef VITRO_TESTS_DEV_VRING_H
#define VITRO_TESTS_DEV_VRING_H

#include <stdbool.h>
#include <stdint.h>

#include "ram/ram.h"
#include "virtio/queue.h"

struct vring {
    struct ram *ram;
    bool packed;
    uint16_t size;
    uint64_t desc, driver, device;
    uint16_t next; /* split: next free descriptor; packed: position */
    uint16_t avail, used;
    bool avail_wrap, used_wrap;
};

struct vring_part {
    uint64_t gpa;
    uint32_t len;
    bool write;
};

/* Areas one after the other from gpa on (a page each). */
void vring_init(struct vring *r, struct ram *ram, bool packed, uint16_t size, uint64_t gpa);
/* One descriptor, as it is. */
void vring_desc(struct vring *r, uint64_t table, unsigned index, uint64_t gpa, uint32_t len, uint16_t flags,
                uint16_t next_or_id);
/* Split: put head into the available ring. */
void vring_offer(struct vring *r, uint16_t head);
/* A proper chain of n parts, made available; returns its id. */
uint16_t vring_add(struct vring *r, const struct vring_part *part, unsigned n);
/* As vring_add() through an indirect table at gpa. */
uint16_t vring_add_indirect(struct vring *r, uint64_t table, const struct vring_part *part, unsigned n);
/* The next used chain: false if there is none. slots: what it took in a packed ring. */
bool vring_get(struct vring *r, uint16_t *id, uint32_t *written, unsigned slots);

#endif
