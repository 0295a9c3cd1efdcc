/* The 8254 programmable interval timer and the PC's port 0x61. */
#ifndef VITRO_CHIP_PIT8254_H
#define VITRO_CHIP_PIT8254_H

#include <stdbool.h>
#include <stdint.h>

#include "base/loop.h"
#include "bus/bus.h"
#include "bus/device.h"
#include "bus/irq.h"

#define PIT_HZ 1193182ULL

/* One counter. Times are in ticks of the 1.193182 MHz clock since guest time 0. */
struct pit_channel {
    uint64_t start;  /* the tick at which the counting element held `count` */
    uint64_t held;   /* modes 0 and 4, gate low: ticks counted so far */
    uint64_t edges;  /* rising edges of OUT after start that the IRQ logic has looked at */
    bool owed;       /* it has not looked at the edge at start, where `next` took over */
    uint32_t count;  /* divisor, 1..65536 (1..10000 in BCD) */
    uint32_t next;   /* written count that waits for the end of the period; 0: none */
    uint16_t latch;  /* value held by a latch command */
    uint8_t latched; /* bytes of latch still to be read: 0, 1, 2 */
    uint8_t status;  /* status byte held by read-back */
    bool status_latched;
    uint8_t mode;   /* 0..5 */
    uint8_t access; /* 1: low byte, 2: high byte, 3: low then high */
    bool bcd;
    bool gate;
    bool loaded;     /* a count was written since the control word */
    bool running;    /* the counting element runs: loaded, and triggered in modes 1 and 5 */
    bool null_count; /* written, but not in the counting element yet */
    bool write_high; /* access 3: the next write is the high byte */
    bool read_high;  /* access 3: the next unlatched read is the high byte */
    uint8_t low;     /* access 3: low byte kept until the high byte comes */
};

struct pit {
    struct pit_channel ch[3];
    uint8_t port61;   /* bits 0..3 as written */
    uint8_t backlog;  /* lost IRQ 0 edges still to be delivered */
    bool irq_blocked; /* the HPET has taken over IRQ 0 */
    struct loop *loop;
    struct timer timer; /* next rising edge of OUT 0 */
    struct irq_line irq;
    struct bus_region ports, speaker;
};

extern const struct device_ops pit_ops; /* type "pit8254" */

/* irq is IRQ 0. loop is borrowed. */
void pit_init(struct pit *p, struct loop *loop, struct irq_line irq);
/* Ports 0x40 (4) and 0x61 (1). 0 or -errno. */
int pit_attach(struct pit *p, struct bus *io);

/* Disconnect IRQ 0 while on is true: an irq_line function for hpet.legacy_select (opaque: the struct pit). */
void pit_block_irq(void *opaque, unsigned pin, bool on);

/* The gate input of a channel (0..2); channels 0 and 1 are tied high on a PC, 2 is port 0x61 bit 0. */
void pit_set_gate(struct pit *p, unsigned channel, bool level);
/* The OUT pin of a channel (0..2) now. */
bool pit_out(struct pit *p, unsigned channel);

#endif
