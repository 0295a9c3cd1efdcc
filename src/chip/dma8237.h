/* The PC's two 8237 DMA controllers and page registers: registers only, no device transfers. */
#ifndef VITRO_CHIP_DMA8237_H
#define VITRO_CHIP_DMA8237_H

#include <stdbool.h>
#include <stdint.h>

#include "bus/bus.h"
#include "bus/device.h"

struct dma8237_chip {
    uint16_t addr[4], count[4]; /* base registers; nothing moves, so these are the current ones too */
    uint8_t mode[4];
    uint8_t command, mask, request, temp;
    bool high; /* the byte pointer: next access is the high byte */
};

struct dma8237_ports {
    struct dma8237 *dma;
    unsigned chip;
};

struct dma8237 {
    struct dma8237_chip chip[2]; /* 8-bit, 16-bit */
    uint8_t page[16];            /* 0x80..0x8F; 0x80 itself is the POST port */
    struct dma8237_ports side[2];
    struct bus_region ports[2], pages;
};

extern const struct device_ops dma8237_ops; /* type "dma8237" */

void dma8237_init(struct dma8237 *d);
/* Ports 0x00 (16), 0x81 (15), 0xC0 (32). 0 or -errno. */
int dma8237_attach(struct dma8237 *d, struct bus *io);

#endif
