/* The pvpanic port: the guest says that its kernel has crashed. */
#ifndef VITRO_CHIP_PVPANIC_H
#define VITRO_CHIP_PVPANIC_H

#include <stdint.h>

#include "bus/bus.h"
#include "bus/device.h"

#define PVPANIC_PORT        0x505 /* ACPI _HID QEMU0001 */
#define PVPANIC_PANICKED    0x01  /* the guest is dead */
#define PVPANIC_CRASHLOADED 0x02  /* it runs a crash kernel */

struct pvpanic {
    void (*fn)(void *opaque, uint8_t events);
    void *opaque;
    uint8_t events; /* all events so far */
    struct bus_region port;
};

extern const struct device_ops pvpanic_ops; /* type "pvpanic" */

/* fn is called for each write with the known event bits that it set; it must only note them. */
void pvpanic_init(struct pvpanic *p, void (*fn)(void *opaque, uint8_t events), void *opaque);
int pvpanic_attach(struct pvpanic *p, struct bus *io);

#endif
