/* Parallel NOR flash with Intel's command set, in which UEFI firmware keeps its variables. */
#ifndef VITRO_CHIP_PFLASH_H
#define VITRO_CHIP_PFLASH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bus/bus.h"
#include "bus/device.h"

#define PFLASH_BLOCK  4096U
#define PFLASH_MAX    (1U << 20)
#define PFLASH_BUFFER 256U

/* Store the len bytes at data, which are now the flash's contents from off on. 0 or -errno: then the guest sees
 * a failed command and the flash keeps what it had. Device lock held. */
typedef int (*pflash_store_fn)(void *opaque, uint32_t off, const uint8_t *data, uint32_t len);

struct pflash {
    uint8_t data[PFLASH_MAX];
    uint8_t buffer[PFLASH_BUFFER];
    uint8_t mode, status;
    uint32_t target; /* offset of the program or erase command in progress */
    uint32_t count;  /* bytes that a buffered program still waits for */
    uint32_t filled; /* bytes in the buffer, from target on */
    /* fixed at init */
    uint32_t size;
    pflash_store_fn store; /* NULL: the contents live as long as the machine */
    void *opaque;
    struct bus_region region;
};

extern const struct device_ops pflash_ops; /* type "pflash" */

/* size is a multiple of PFLASH_BLOCK, at most PFLASH_MAX; contents are copied. 0 or -EINVAL. p is zeroed memory. */
int pflash_init(struct pflash *p, const uint8_t *contents, uint32_t size, pflash_store_fn store,
                void *opaque);
int pflash_attach(struct pflash *p, struct bus *mmio, uint64_t gpa);

#endif
