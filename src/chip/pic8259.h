/* The PC's pair of 8259A interrupt controllers, with the edge/level control registers. */
#ifndef VITRO_CHIP_PIC8259_H
#define VITRO_CHIP_PIC8259_H

#include <stdbool.h>
#include <stdint.h>

#include "bus/bus.h"
#include "bus/device.h"
#include "bus/irq.h"

/* One 8259A. */
struct pic_chip {
    uint8_t lines;     /* levels on IR0..7 now */
    uint8_t irr;       /* requests: latched edges, and levels */
    uint8_t imr, isr;  /* masked; in service */
    uint8_t elcr;      /* 1: level-triggered */
    uint8_t base;      /* ICW2: vector of IR0 */
    uint8_t icw3;      /* master: inputs with a slave; slave: its ID */
    uint8_t lowest;    /* the input of lowest priority; 7 unless rotated */
    uint8_t init_step; /* 0: operational; else the ICW (2, 3, 4) that comes next */
    bool icw4_follows; /* ICW1 IC4 */
    bool single;       /* ICW1 SNGL */
    bool ltim;         /* ICW1 LTIM: all inputs level-triggered */
    bool aeoi;         /* ICW4: automatic end of interrupt */
    bool rotate_aeoi;  /* OCW2: rotate in AEOI mode */
    bool sfnm;         /* ICW4: special fully nested mode */
    bool special_mask; /* OCW3 */
    bool read_isr;     /* OCW3: the even port reads ISR, not IRR */
    bool poll;         /* OCW3: the next read is a poll */
};

struct pic {
    struct pic_chip chip[2]; /* master, slave */
    struct irq_line out;     /* the master's INT: to LINT0 (ExtINT) and I/O APIC pin 0 */
    bool out_level;
    struct bus_region port[2];   /* 0x20, 0xA0 */
    struct bus_region elcr_port; /* 0x4D0 */
};

extern const struct device_ops pic_ops; /* type "pic8259" */

/* out is driven high while an interrupt waits for pic_ack(). */
void pic_init(struct pic *p, struct irq_line out);
/* Enable ports 0x20, 0xA0 and 0x4D0 (2 each) on the port bus. 0 or -errno; on failure nothing stays enabled.
 */
int pic_attach(struct pic *p, struct bus *io);

/* Drive input IRQ 0..15 (an irq_line function: opaque is the struct pic). IRQ 2 is the cascade and is
 * ignored. */
void pic_set_irq(void *opaque, unsigned pin, bool level);

/* True while INT is high. */
bool pic_pending(const struct pic *p);
/* The two INTA cycles: take the highest request into service and return its vector. With nothing
 * pending the answer is the spurious vector (IR7 of the chip that was asked). */
uint8_t pic_ack(struct pic *p);

#endif
