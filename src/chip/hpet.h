/* The high precision event timer: one 64-bit counter at 100 MHz, three comparators. */
#ifndef VITRO_CHIP_HPET_H
#define VITRO_CHIP_HPET_H

#include <stdbool.h>
#include <stdint.h>

#include "base/loop.h"
#include "bus/bus.h"
#include "bus/device.h"
#include "bus/irq.h"

#define HPET_GPA       0xfed00000ULL
#define HPET_TIMERS    3
#define HPET_PERIOD_FS 10000000ULL /* of one count: 10 ns */
#define HPET_BLOCK_ID  0x8086a201U /* low half of the capability register: the ACPI table's block ID */

struct hpet_timer {
    struct hpet *hpet;
    struct timer timer;
    unsigned index;
    /* described state */
    uint64_t config;    /* writable bits of the configuration register */
    uint64_t cmp;       /* comparator; advances in periodic mode */
    uint64_t period;    /* periodic mode: last value written */
    uint64_t due;       /* guest ns of the next match; 0: none */
    uint64_t last_fire; /* guest ns; bounds the rate */
};

struct hpet {
    struct hpet_timer tm[HPET_TIMERS];
    uint64_t config;  /* bit 0 enable, bit 1 legacy replacement */
    uint64_t isr;     /* level-triggered interrupts that are active */
    uint64_t counter; /* value while stopped, or at `since` while running */
    uint64_t since;   /* guest ns at which the counter was `counter` */
    struct loop *loop;
    uint32_t route_cap;
    struct irq_line route;         /* I/O APIC inputs: fn is called with the routed pin */
    struct irq_line legacy[2];     /* IRQ 0 and IRQ 8 in legacy replacement mode */
    struct irq_line legacy_select; /* driven high while legacy replacement is on */
    struct bus_region mmio;
};

extern const struct device_ops hpet_ops; /* type "hpet" */

/* route: drives the I/O APIC (its pin is not used). route_cap: bit mask of the I/O APIC pins that may be
 * routed to. legacy0/legacy8: IRQ 0 and 8. legacy_select: told when these replace the PIT's and the RTC's. */
void hpet_init(struct hpet *h, struct loop *loop, struct irq_line route, uint32_t route_cap,
               struct irq_line legacy0, struct irq_line legacy8, struct irq_line legacy_select);
/* 1 KiB at gpa (HPET_GPA). 0 or -errno. */
int hpet_attach(struct hpet *h, struct bus *mmio, uint64_t gpa);

#endif
