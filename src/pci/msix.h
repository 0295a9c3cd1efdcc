/* MSI-X: capability, vector table and pending bits in a BAR of their own. */
#ifndef VITRO_PCI_MSIX_H
#define VITRO_PCI_MSIX_H

#include <stdbool.h>
#include <stdint.h>

#include "bus/apic_msg.h"
#include "pci/pci.h"

#define MSIX_MAX_VECTORS 256

struct msix_entry {
    uint64_t addr;
    uint32_t data;
    uint32_t ctrl; /* bit 0: masked */
};

struct msix {
    struct msix_entry table[MSIX_MAX_VECTORS];
    uint64_t pba[MSIX_MAX_VECTORS / 64];
    struct pci_dev *dev;
    unsigned cap;     /* offset of the capability */
    unsigned vectors; /* 1..MSIX_MAX_VECTORS */
    unsigned bar;
    uint64_t pba_offset;
    apic_deliver_fn deliver;
    void *opaque;
};

/* For the owner's state: STATE_FSTRUCT(T, msix, struct msix, msix_state). */
extern const struct state_desc msix_state;

/* Add the capability and the BAR (32-bit memory) to dev before it is plugged. deliver takes the messages.
 * 0, -EINVAL, -ENOSPC. */
int msix_init(struct msix *m, struct pci_dev *dev, unsigned vectors, unsigned bar, apic_deliver_fn deliver,
              void *opaque);
/* All vectors masked, nothing pending; called from the owner's reset beside pci_dev_reset(). */
void msix_reset(struct msix *m);

/* True when the guest uses MSI-X (INTx must stay quiet then). */
bool msix_enabled(const struct msix *m);
/* Send a vector, or note it as pending while it is masked. Vectors beyond the table are ignored. */
void msix_notify(struct msix *m, unsigned vector);
/* For the owner's pci_dev_ops.config_write: the guest wrote [off, off+size). Sends what became unmasked. */
void msix_config_write(struct msix *m, unsigned off, unsigned size);

#endif
