/* The i8042 keyboard controller with a keyboard and a mouse on it, and port 0x92. */
#ifndef VITRO_CHIP_I8042_H
#define VITRO_CHIP_I8042_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bus/bus.h"
#include "bus/device.h"
#include "bus/irq.h"
#include "chip/ps2.h"

struct i8042 {
    uint8_t ctr;          /* the command byte */
    uint8_t outport;      /* output port; bit 0 reset (active low), bit 1 A20 */
    uint8_t status;       /* status bits other than those that `source` gives */
    uint8_t data;         /* output buffer */
    uint8_t source;       /* who filled the output buffer; 0: it is empty */
    uint8_t reply;        /* the controller's answer that waits for the output buffer */
    uint8_t reply_source; /* 0: none waits */
    uint8_t command;      /* controller command whose parameter comes next; 0: none */
    uint8_t ram[32];      /* controller memory from 0x20; [0] is not used, see ctr */
    uint8_t port92;
    bool break_code; /* translation: the last keyboard byte was the prefix 0xF0 */
    struct ps2_kbd kbd;
    struct ps2_mouse mouse;
    struct irq_line irq[2]; /* IRQ 1, IRQ 12 */
    struct irq_line a20;    /* high: A20 enabled */
    void (*reset)(void *opaque);
    void *opaque;
    struct bus_region data_port, command_port, fast_port;
};

extern const struct device_ops i8042_ops; /* type "i8042" */

/* a20 is told of each change of the gate (both sources ORed; high after reset). reset is called when the
 * guest pulses the CPU's reset line (0xFE, output port bit 0, port 0x92 bit 0); it must only note the
 * request, not reset this device before the call returns. May be NULL. */
void i8042_init(struct i8042 *k, struct irq_line irq1, struct irq_line irq12, struct irq_line a20,
                void (*reset)(void *opaque), void *opaque);
/* Ports 0x60, 0x64, 0x92 (1 each). 0 or -errno. */
int i8042_attach(struct i8042 *k, struct bus *io);

/* One make or break sequence in scan code set 2, the only one that the keyboard knows. Dropped whole (false)
 * when the keyboard is not scanning or its buffer lacks room. */
bool i8042_key(struct i8042 *k, const uint8_t *set2, size_t len);
/* Movement (y up positive, z wheel) and buttons (bit 0 left, 1 right, 2 middle). False: dropped. */
bool i8042_move(struct i8042 *k, int dx, int dy, int dz, uint8_t buttons);

#endif
