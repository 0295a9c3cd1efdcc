/* The MC146818 real-time clock with 128 bytes of CMOS memory. */
#ifndef VITRO_CHIP_RTC_H
#define VITRO_CHIP_RTC_H

#include <stdbool.h>
#include <stdint.h>

#include "base/loop.h"
#include "bus/bus.h"
#include "bus/device.h"
#include "bus/irq.h"

#define RTC_CENTURY 0x32 /* CMOS cell of the century: the FADT's CENTURY field */

struct rtc {
    uint8_t cmos[128];     /* registers and memory; the time cells are live only while the clock is set */
    uint8_t index;         /* port 0x70, 7 bits */
    uint64_t offset;       /* seconds added to clock_wall_ns() (mod 2^64): what the guest set */
    uint32_t offset_ns;    /* and nanoseconds, below 1e9 */
    uint64_t seen_second;  /* RTC seconds up to which update and alarm flags are known */
    uint64_t divider_base; /* guest ns at which the divider started */
    uint64_t seen_periods; /* periodic ticks since divider_base that are known */
    uint8_t weekday_shift; /* the guest's day of the week less the calendar's, mod 7 */
    bool irq_blocked;      /* the HPET has taken over IRQ 8 */
    bool irq_level;
    bool alarm_level; /* the alarm interrupt is enabled and active */
    struct loop *loop;
    struct timer timer;
    struct irq_line irq;
    struct irq_line alarm;
    struct bus_region ports;
};

extern const struct device_ops rtc_ops; /* type "mc146818" */

/* irq is IRQ 8. Time comes from the loop's clock. */
void rtc_init(struct rtc *r, struct loop *loop, struct irq_line irq);
/* Ports 0x70 (2). 0 or -errno. */
int rtc_attach(struct rtc *r, struct bus *io);

/* Set a CMOS memory cell (0x0E..0x7F, except the century); others are ignored. Kept over a reset. */
void rtc_set_cmos(struct rtc *r, uint8_t cell, uint8_t value);
/* The cells that firmware reads the memory size from: bytes below 4 GiB and from 4 GiB up. */
void rtc_set_memory(struct rtc *r, uint64_t below_4g, uint64_t above_4g);

/* A second output, high while the alarm interrupt is active, also while IRQ 8 is disconnected: for ACPI's
 * RTC event (acpi_pm_rtc_alarm()), which Linux uses on machines of our day. Call before the machine runs. */
void rtc_connect_alarm(struct rtc *r, struct irq_line alarm);

/* Disconnect IRQ 8 while on is true: an irq_line function for hpet.legacy_select (opaque: the struct rtc). */
void rtc_block_irq(void *opaque, unsigned pin, bool on);

#endif
