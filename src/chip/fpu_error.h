/* The AT's coprocessor-error latch: an unmasked x87 error with CR0.NE clear becomes IRQ 13, until port 0xF0 is written. */
#ifndef VITRO_CHIP_FPU_ERROR_H
#define VITRO_CHIP_FPU_ERROR_H

#include <stdbool.h>

#include "bus/bus.h"
#include "bus/device.h"
#include "bus/irq.h"

struct fpu_error {
    bool busy; /* the request to the interrupt controller is up */
    struct irq_line irq13;
    struct bus_region ports;
};

extern const struct device_ops fpu_error_ops; /* type "fpu-error" */

void fpu_error_init(struct fpu_error *f, struct irq_line irq13);
/* Ports 0xF0 and 0xF1. 0 or -errno. */
int fpu_error_attach(struct fpu_error *f, struct bus *io);
/* A CPU's FERR# output. A falling level leaves the latch: only the port clears it. Device lock held. */
void fpu_error_ferr(struct fpu_error *f, bool level);

#endif
