/* An interrupt message on its way to the local APICs: from an I/O APIC pin, an MSI or MSI-X write,
 * or another CPU's ICR. It carries what the wires of the APIC bus carried.
 *
 * Source: Intel SDM vol. 3, "Message Signalled Interrupts" (address and data formats) and the
 * 82093AA I/O APIC datasheet, redirection table. Who delivers holds the device lock.
 */
#ifndef VITRO_BUS_APIC_MSG_H
#define VITRO_BUS_APIC_MSG_H

#include <stdbool.h>
#include <stdint.h>

/* Delivery modes, the encoding that redirection entries, MSI data and the ICR share. */
enum apic_delivery {
    APIC_FIXED = 0,
    APIC_LOWEST = 1, /* lowest priority among the addressed CPUs */
    APIC_SMI = 2,
    APIC_NMI = 4,
    APIC_INIT = 5,
    APIC_STARTUP = 6, /* ICR only */
    APIC_EXTINT = 7,  /* the vector comes from the 8259 pair */
};

struct apic_msg {
    uint32_t dest;         /* APIC ID (physical) or logical destination; 8 bits from I/O APIC and MSI */
    bool logical;          /* dest is a logical destination */
    uint8_t vector;        /* for fixed, lowest priority, start-up */
    uint8_t delivery_mode; /* enum apic_delivery (3 bits; 3 is reserved) */
    bool level;            /* level-triggered: sets the TMR bit, EOI is broadcast */
    bool assert;           /* false only for INIT level de-assert */
    bool redirection_hint; /* MSI address bit 3: as if lowest priority when dest names several CPUs */
};

/* Takes one message. Must not call back into the sender. Device lock held. */
typedef void (*apic_deliver_fn)(void *opaque, const struct apic_msg *msg);

/* True when an MSI write to this address is an interrupt message (0xFEExxxxx, upper half 0). */
static inline bool apic_msi_address(uint64_t addr) { return (addr >> 20) == 0xfee; }

/* Decode an MSI address and data pair. The caller has checked apic_msi_address(). */
static inline struct apic_msg apic_msg_from_msi(uint64_t addr, uint32_t data)
{
    return (struct apic_msg){
        .dest = (uint32_t)(addr >> 12) & 0xff,
        .logical = addr >> 2 & 1,
        .redirection_hint = addr >> 3 & 1,
        .vector = (uint8_t)data,
        .delivery_mode = data >> 8 & 7,
        .level = data >> 15 & 1,
        .assert = !(data >> 15 & 1) || (data >> 14 & 1),
    };
}

#endif
