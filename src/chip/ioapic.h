/* The I/O APIC: 24 pins, version 0x20 (with an EOI register). */
#ifndef VITRO_CHIP_IOAPIC_H
#define VITRO_CHIP_IOAPIC_H

#include <stdbool.h>
#include <stdint.h>

#include "bus/apic_msg.h"
#include "bus/bus.h"
#include "bus/device.h"

#define IOAPIC_PINS 24
#define IOAPIC_GPA  0xfec00000ULL

struct ioapic {
    uint64_t redir[IOAPIC_PINS]; /* redirection entries as the guest sees them */
    uint32_t lines;              /* levels on the pins now */
    uint8_t select;              /* IOREGSEL */
    uint8_t id;                  /* 4 bits */
    apic_deliver_fn deliver;
    void *opaque;
    struct bus_region mmio;
};

extern const struct device_ops ioapic_ops; /* type "ioapic" */

/* deliver takes the interrupt messages. */
void ioapic_init(struct ioapic *a, apic_deliver_fn deliver, void *opaque);
/* 4 KiB at gpa (IOAPIC_GPA on a PC). 0 or -errno. */
int ioapic_attach(struct ioapic *a, struct bus *mmio, uint64_t gpa);

/* Drive pin 0..23 (an irq_line function: opaque is the struct ioapic). */
void ioapic_set_irq(void *opaque, unsigned pin, bool level);
/* EOI broadcast from a local APIC for a level-triggered vector. */
void ioapic_eoi(struct ioapic *a, uint8_t vector);

#endif
