/* PCI functions: configuration space, BARs, capabilities, INTx. */
#ifndef VITRO_PCI_PCI_H
#define VITRO_PCI_PCI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bus/bus.h"
#include "bus/irq.h"
#include "state/state.h"

#define PCI_CONFIG_SIZE 256
#define PCI_BARS        6

/* Offsets and bits of the type 0 header (PCI Local Bus 3.0, chapter 6). */
#define PCI_VENDOR_ID      0x00
#define PCI_DEVICE_ID      0x02
#define PCI_COMMAND        0x04
#define PCI_STATUS         0x06
#define PCI_REVISION       0x08
#define PCI_CLASS_PROG     0x09
#define PCI_CLASS          0x0a
#define PCI_CACHE_LINE     0x0c
#define PCI_LATENCY        0x0d
#define PCI_HEADER_TYPE    0x0e
#define PCI_BAR0           0x10
#define PCI_SUBVENDOR_ID   0x2c
#define PCI_SUBSYSTEM_ID   0x2e
#define PCI_CAP_POINTER    0x34
#define PCI_INTERRUPT_LINE 0x3c
#define PCI_INTERRUPT_PIN  0x3d

#define PCI_COMMAND_IO       0x0001
#define PCI_COMMAND_MEMORY   0x0002
#define PCI_COMMAND_MASTER   0x0004
#define PCI_COMMAND_INTX_OFF 0x0400
#define PCI_STATUS_INTX      0x0008
#define PCI_STATUS_CAP_LIST  0x0010

#define PCI_CAP_ID_VENDOR 0x09
#define PCI_CAP_ID_MSIX   0x11

struct pci_host;
struct pci_dev;

enum pci_bar_kind { PCI_BAR_NONE, PCI_BAR_IO, PCI_BAR_MEM32, PCI_BAR_MEM64 };

struct pci_bar {
    enum pci_bar_kind kind;
    bool prefetch;
    struct bus_region region; /* base is where it is mapped; enabled while it is */
};

/* What a function is. */
struct pci_ident {
    uint16_t vendor, device, subvendor, subsystem;
    uint8_t class_code, subclass, prog_if, revision;
    uint8_t irq_pin; /* 0: no INTx; 1..4: INTA..INTD */
};

/* A device's own view of its configuration space. Both may be NULL. Device lock held. */
struct pci_dev_ops {
    /* Called before a read of [off, off+size), so that the device can refresh config[]. */
    void (*config_read)(struct pci_dev *d, unsigned off, unsigned size);
    /* Called after config[] took a write that covers [off, off+size). */
    void (*config_write)(struct pci_dev *d, unsigned off, unsigned size);
};

/* One function. Embed it; the owner's device state includes pci_dev_state with STATE_FSTRUCT. */
struct pci_dev {
    uint8_t config[PCI_CONFIG_SIZE];  /* little-endian, as the guest reads it */
    uint8_t wmask[PCI_CONFIG_SIZE];   /* 1: the guest may write the bit */
    uint8_t w1cmask[PCI_CONFIG_SIZE]; /* 1: writing one clears the bit */
    uint8_t reset_config[PCI_CONFIG_SIZE];
    bool intx;        /* the function wants its interrupt pin asserted */
    bool intx_driven; /* it counts in the host's line */
    bool sealed;
    unsigned cap_end; /* where the next capability goes */
    struct pci_bar bar[PCI_BARS];
    const struct pci_dev_ops *ops; /* may be NULL */
    const char *name;
    struct pci_host *host; /* NULL until plugged */
    uint8_t devfn;
};

extern const struct state_desc pci_dev_state;

/* Fill the header. name is borrowed and used in logs and as the name of the BARs' regions. */
void pci_dev_init(struct pci_dev *d, const char *name, const struct pci_ident *ident,
                  const struct pci_dev_ops *ops);

/* Describe a BAR (0..5; a 64-bit one takes two) before the device is plugged. len is a power of two, at
 * least 4 for ports (and at most 256) and 16 for memory. 0 or -EINVAL. */
int pci_dev_add_bar(struct pci_dev *d, unsigned index, enum pci_bar_kind kind, bool prefetch, uint64_t len,
                    const struct bus_ops *ops, void *opaque);

/* Append a capability of len bytes (header included; id and next pointer are filled in, the rest is zero
 * and read-only until the caller sets config[] and wmask[]). Returns its offset or -ENOSPC. */
int pci_dev_add_cap(struct pci_dev *d, uint8_t id, unsigned len);

/* Put the function at a slot (0..31; function 0) of the host's bus; -1 takes the first free one. What
 * config[] holds now is what a reset returns to. 0, -EBUSY (taken), -ENOSPC, -EINVAL. */
int pci_dev_plug(struct pci_dev *d, struct pci_host *host, int slot);
/* Take it off: its BARs are unmapped and its interrupt is released. */
void pci_dev_unplug(struct pci_dev *d);

/* Power-on state of the header; called from the owner's reset. */
void pci_dev_reset(struct pci_dev *d);
/* Map BARs and drive INTx from loaded state; called from the owner's resume. */
void pci_dev_resume(struct pci_dev *d);

/* Configuration access by the guest: size 1, 2, 4 at its natural alignment, off below 256. */
uint32_t pci_dev_config_read(struct pci_dev *d, unsigned off, unsigned size);
void pci_dev_config_write(struct pci_dev *d, unsigned off, uint32_t value, unsigned size);

/* Level of the function's interrupt pin. */
void pci_dev_set_intx(struct pci_dev *d, bool level);

/* True when the guest lets the function master the bus (DMA, MSI). */
static inline bool pci_dev_is_master(const struct pci_dev *d)
{
    return d->config[PCI_COMMAND] & PCI_COMMAND_MASTER;
}

#endif
