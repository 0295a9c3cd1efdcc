/* The VM generation ID: 16 random bytes in guest memory that change when the machine's time line forks. */
#ifndef VITRO_CHIP_VMGENID_H
#define VITRO_CHIP_VMGENID_H

#include <stdint.h>

#include "base/rand.h"
#include "bus/bus.h"
#include "bus/device.h"
#include "ram/ram.h"

#define VMGENID_LEN  16
#define VMGENID_PORT 0x628 /* the ACPI tables write to it when a driver asks where the ID is */

struct vmgenid {
    uint8_t id[VMGENID_LEN]; /* described state; guest memory has a copy */
    bool asked;              /* described state: since the last reset a driver has asked where the ID is */
    /* fixed at init */
    struct ram *ram; /* borrowed, like rand */
    struct rand_source *rand;
    uint64_t gpa;
    void (*tell)(void *opaque);
    void *opaque;
    struct bus_region port;
};

extern const struct device_ops vmgenid_ops; /* type "vmgenid" */

/* gpa is 16 bytes of ROM that nobody but the ACPI tables knows of. tell(opaque) lets the guest know of a
 * change. Draws the first ID: 0 or -errno. */
int vmgenid_init(struct vmgenid *g, struct ram *ram, uint64_t gpa, struct rand_source *rand,
                 void (*tell)(void *opaque), void *opaque);

/* The port at which the guest's driver is heard of. 0 or -errno. */
int vmgenid_attach(struct vmgenid *g, struct bus *io);

/* The guest is now another one than the one that was saved: a new ID, and the guest hears of it. 0 or -errno
 * (no randomness: the ID is the old one). */
int vmgenid_change(struct vmgenid *g);

#endif
