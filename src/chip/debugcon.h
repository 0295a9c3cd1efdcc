/* The debug console of firmware: port 0x402, as in QEMU's isa-debugcon. */
#ifndef VITRO_CHIP_DEBUGCON_H
#define VITRO_CHIP_DEBUGCON_H

#include <stdint.h>

#include "bus/bus.h"
#include "bus/device.h"

#define DEBUGCON_LINE 200

struct debugcon {
    uint8_t line[DEBUGCON_LINE];
    uint32_t len;
    void (*fn)(void *opaque, const char *line);
    void *opaque;
    struct bus_region port;
};

extern const struct device_ops debugcon_ops; /* type "debugcon" */

/* fn gets each line that the guest wrote, printable ASCII, without its end; device lock held. */
void debugcon_init(struct debugcon *d, void (*fn)(void *opaque, const char *line), void *opaque);
int debugcon_attach(struct debugcon *d, struct bus *io);

#endif
