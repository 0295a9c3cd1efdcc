/* The PCI host bridge: bus 0, 32 slots, configuration by 0xCF8/0xCFC and by ECAM. */
#ifndef VITRO_PCI_HOST_H
#define VITRO_PCI_HOST_H

#include <stdbool.h>
#include <stdint.h>

#include "bus/bus.h"
#include "bus/device.h"
#include "bus/irq.h"
#include "pci/pci.h"

#define PCI_SLOTS     32
#define PCI_ECAM_SIZE (1ULL << 20) /* one bus: the MCFG entry says start 0, end 0 */

struct pci_host {
    uint32_t address;      /* CONFIG_ADDRESS */
    struct pci_dev bridge; /* 00:00.0, 8086:29c0 */
    struct pci_dev *slot[PCI_SLOTS];
    struct bus *io, *mmio;
    struct irq_line intx[4];
    uint16_t intx_count[4]; /* functions that assert each line */
    const struct bus_region *cf9;
    struct bus_region address_port, data_port, ecam;
};

extern const struct device_ops pci_host_ops; /* type "pci-host" */

/* intx[n] is the line of (slot + pin - 1) mod 4 = n, with pin 1 for INTA (the usual swizzle; the _PRT must
 * say the same). io and mmio are where BARs are mapped; borrowed. */
void pci_host_init(struct pci_host *h, struct bus *io, struct bus *mmio, const struct irq_line intx[4]);
/* Ports 0xCF8 (8) and 1 MiB of ECAM: at ecam_gpa (a multiple of 256 MiB below 4 GiB) after reset, or nowhere (0)
 * until the guest's firmware says where. 0 or -errno. */
int pci_host_attach(struct pci_host *h, uint64_t ecam_gpa);
/* Where the ECAM is now; 0: nowhere. */
uint64_t pci_host_ecam_base(const struct pci_host *h);
/* Byte accesses to port 0xCF9 go to region (offset 0); borrowed. */
void pci_host_set_cf9(struct pci_host *h, const struct bus_region *region);

/* For pci.c: count one function's pin in or out of the line. */
void pci_host_intx(struct pci_host *h, unsigned slot, unsigned pin, bool on);
/* For pci.c: after a BAR was unmapped, map those that it was in the way of. */
void pci_host_remap(struct pci_host *h);

#endif
