/* The PCI-to-ISA bridge of a Q35 board: where firmware looks for the ISA bus and for power management. */
#ifndef VITRO_PCI_LPC_H
#define VITRO_PCI_LPC_H

#include <stdint.h>

#include "bus/device.h"
#include "pci/pci.h"

#define LPC_SLOT 31

struct lpc {
    struct pci_dev pci; /* 00:1f.0, 8086:2918 */
};

extern const struct device_ops lpc_ops; /* type "lpc" */

/* pm_base: the ports of power management (a multiple of 128), which are where they are. The caller plugs it
 * into LPC_SLOT. */
void lpc_init(struct lpc *l, uint16_t pm_base);

#endif
