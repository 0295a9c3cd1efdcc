/* Ports that PC software writes to for show or for delay: POST code 0x80, delay port 0xED. */
#ifndef VITRO_CHIP_POST_H
#define VITRO_CHIP_POST_H

#include <stdint.h>

#include "bus/bus.h"
#include "bus/device.h"

struct post {
    uint8_t code; /* last byte written to 0x80, read back */
    struct bus_region code_port, delay_port;
};

extern const struct device_ops post_ops; /* type "post" */

void post_init(struct post *p);
/* Ports 0x80 and 0xED. 0 or -errno. */
int post_attach(struct post *p, struct bus *io);

#endif
