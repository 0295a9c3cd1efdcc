/* A port that ends the machine with a value, as QEMU's isa-debug-exit. For tests. */
#ifndef VITRO_CHIP_DEBUG_EXIT_H
#define VITRO_CHIP_DEBUG_EXIT_H

#include <stdint.h>

#include "bus/bus.h"
#include "bus/device.h"

struct debug_exit {
    void (*fn)(void *opaque, uint32_t value);
    void *opaque;
    uint32_t last; /* last value written */
    struct bus_region ports;
};

extern const struct device_ops debug_exit_ops; /* type "debug-exit" */

/* fn is called for each write with its value (8, 16 or 32 bits); it must only note it. */
void debug_exit_init(struct debug_exit *d, void (*fn)(void *opaque, uint32_t value), void *opaque);
/* 4 ports at base (0xF4). 0 or -errno. */
int debug_exit_attach(struct debug_exit *d, struct bus *io, uint16_t base);

#endif
