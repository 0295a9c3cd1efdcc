/* ACPI fixed hardware: PM1a event and control blocks, PM timer, GPE0, SMI command port, reset register. */
#ifndef VITRO_CHIP_ACPI_PM_H
#define VITRO_CHIP_ACPI_PM_H

#include <stdbool.h>
#include <stdint.h>

#include "base/loop.h"
#include "bus/bus.h"
#include "bus/device.h"
#include "bus/irq.h"

/* What the FADT and the DSDT must say. */
#define ACPI_PM_EVT_PORT    0x600 /* PM1a_EVT_BLK, 4 bytes: status, enable */
#define ACPI_PM_CNT_PORT    0x604 /* PM1a_CNT_BLK, 2 bytes */
#define ACPI_PM_TMR_PORT    0x608 /* PM_TMR_BLK, 4 bytes */
#define ACPI_PM_GPE0_PORT   0x620 /* GPE0_BLK, 4 bytes: 16 events */
#define ACPI_PM_GPE0_LEN    4
#define ACPI_PM_SMI_PORT    0xb2
#define ACPI_PM_ENABLE      0xf1 /* written to SMI_CMD: ACPI on */
#define ACPI_PM_DISABLE     0xf0
#define ACPI_PM_RESET_PORT  0xcf9
#define ACPI_PM_RESET_VALUE 0x06
#define ACPI_PM_SLP_TYP_S5  5
#define ACPI_PM_SCI_IRQ     9
#define ACPI_PM_HZ          3579545ULL

struct acpi_pm_hooks {
    void (*power_off)(void *opaque); /* S5; must only note the request. May be NULL */
    void (*reset)(void *opaque);     /* reset register; likewise */
    void *opaque;
};

struct acpi_pm {
    uint16_t pm1_sts, pm1_en, pm1_cnt;
    uint16_t gpe_sts, gpe_en;
    uint8_t smi_cmd, smi_data, reset_ctl;
    uint64_t tmr_seen; /* half-periods of the timer's top bit that TMR_STS accounts for */
    bool sci_level;
    /* fixed at init */
    bool timer_32bit;
    struct loop *loop;
    struct timer timer; /* next carry of the PM timer, while it may interrupt */
    struct irq_line sci;
    struct acpi_pm_hooks hooks;
    struct bus_region pm, gpe, smi;
    struct bus_region reset_region; /* port 0xCF9: see acpi_pm_attach() */
};

extern const struct device_ops acpi_pm_ops; /* type "acpi-pm" */

/* sci is level-triggered, active high at the controller's input (IRQ 9). timer_32bit: the FADT must have
 * TMR_VAL_EXT set to the same. */
void acpi_pm_init(struct acpi_pm *a, struct loop *loop, struct irq_line sci, bool timer_32bit,
                  struct acpi_pm_hooks hooks);
/* Ports 0x600 (16), 0x620 (4), 0xB2 (2). Port 0xCF9 lies inside the PCI host's address register: hand
 * &a->reset_region to pci_host_set_cf9(), or bus_add() it on a machine without PCI. 0 or -errno. */
int acpi_pm_attach(struct acpi_pm *a, struct bus *io);

/* The user pressed the power button: sets PWRBTN_STS. Returns true when the guest will hear of it (SCI
 * enabled and the button's interrupt on). */
bool acpi_pm_power_button(struct acpi_pm *a);
/* The RTC's alarm: an irq_line function for rtc_connect_alarm() (opaque: the struct acpi_pm). Its rise sets
 * RTC_STS. */
void acpi_pm_rtc_alarm(void *opaque, unsigned pin, bool level);
/* Raise general-purpose event 0..15 (hotplug, generation ID). */
void acpi_pm_raise_gpe(struct acpi_pm *a, unsigned event);
/* Has the guest dealt with the event: cleared its status, and enabled it again? Guests disable it in between; ACPICA enables it once
 * all that hear of it have run (acpi_ev_asynch_enable_gpe()). */
bool acpi_pm_gpe_settled(const struct acpi_pm *a, unsigned event);

#endif
