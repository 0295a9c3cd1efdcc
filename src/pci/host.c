/* Models: a PCI host bridge with one bus: configuration mechanism 1 (0xCF8/0xCFC), ECAM, and the four INTx
 * lines with the usual swizzle. To the guest it is the bridge of a Q35 board (8086:29c0), which SeaBIOS and OVMF
 * know how to set up: PCIEXBAR moves the ECAM; the PAM and SMRAM registers only remember what was written.
 * Source: PCI Local Bus specification 3.0, section 3.2.2.3.2; PCI Express base specification, 7.2.2 (ECAM);
 * Intel 3 Series Express Chipset datasheet, 5.1 (PCIEXBAR, PAM0 to PAM6, SMRAM).
 * Runs on: any thread, under the device lock; takes no lock.
 */
#include "pci/host.h"

#include <errno.h>

#include "base/bits.h"
#include "base/log.h"

#define ADDRESS_ENABLE   BIT(31)
#define ADDRESS_WRITABLE 0x80fffffcU

/* The function at devfn; only function 0 of bus 0 exists. */
static struct pci_dev *pci_host_find(struct pci_host *h, unsigned bus, unsigned devfn)
{
    return bus || devfn & 7 ? NULL : h->slot[devfn >> 3 & (PCI_SLOTS - 1)];
}

/* ---- mechanism 1 ---- */

static uint64_t pci_host_address_read(void *dev, uint64_t off, unsigned size)
{
    struct pci_host *h = dev;

    if (size == 4)
        return h->address;
    if (size == 1 && off == 1 && h->cf9)
        return h->cf9->ops->read(h->cf9->dev, 0, 1);
    return mask_bytes(size);
}

/* CONFIG_ADDRESS is written as a whole; smaller accesses pass it by, and one of them is the reset port. */
static void pci_host_address_write(void *dev, uint64_t off, uint64_t value, unsigned size)
{
    struct pci_host *h = dev;

    if (size == 4)
        h->address = (uint32_t)value & ADDRESS_WRITABLE;
    else if (size == 1 && off == 1 && h->cf9)
        h->cf9->ops->write(h->cf9->dev, 0, value, 1);
}

static struct pci_dev *pci_host_selected(struct pci_host *h)
{
    if (!(h->address & ADDRESS_ENABLE))
        return NULL;
    return pci_host_find(h, (unsigned)bits(h->address, 23, 16), (unsigned)bits(h->address, 15, 8));
}

static uint64_t pci_host_data_read(void *dev, uint64_t off, unsigned size)
{
    struct pci_host *h = dev;
    struct pci_dev *d = pci_host_selected(h);

    return d ? pci_dev_config_read(d, (h->address & 0xfc) + (unsigned)off, size) : mask_bytes(size);
}

static void pci_host_data_write(void *dev, uint64_t off, uint64_t value, unsigned size)
{
    struct pci_host *h = dev;
    struct pci_dev *d = pci_host_selected(h);

    if (d)
        pci_dev_config_write(d, (h->address & 0xfc) + (unsigned)off, (uint32_t)value, size);
}

/* ---- ECAM: 4 KiB a function; these have 256 bytes each ---- */

static uint64_t pci_host_ecam_read(void *dev, uint64_t off, unsigned size)
{
    struct pci_dev *d = pci_host_find(dev, (unsigned)(off >> 20), (unsigned)bits(off, 19, 12));

    return d ? pci_dev_config_read(d, off & 0xfff, size) : mask_bytes(size);
}

static void pci_host_ecam_write(void *dev, uint64_t off, uint64_t value, unsigned size)
{
    struct pci_dev *d = pci_host_find(dev, (unsigned)(off >> 20), (unsigned)bits(off, 19, 12));

    if (d)
        pci_dev_config_write(d, off & 0xfff, (uint32_t)value, size);
}

static const struct bus_ops pci_host_address_bus = {
    .read = pci_host_address_read, .write = pci_host_address_write, .min_size = 1, .max_size = 4
};
static const struct bus_ops pci_host_data_bus = {
    .read = pci_host_data_read, .write = pci_host_data_write, .min_size = 1, .max_size = 4
};
static const struct bus_ops pci_host_ecam_bus = {
    .read = pci_host_ecam_read, .write = pci_host_ecam_write, .min_size = 1, .max_size = 4
};

/* ---- the bridge's own registers ---- */

enum { MCH_PCIEXBAR = 0x60, MCH_PAM0 = 0x90, MCH_PAMS = 7, MCH_SMRAM = 0x9d };
#define PCIEXBAR_ENABLE BIT(0)
#define PCIEXBAR_BASE   0xf0000000ULL /* bits 31 to 28: the length field stays 0, 256 MiB */

uint64_t pci_host_ecam_base(const struct pci_host *h)
{
    uint64_t bar = ld_le64(h->bridge.config + MCH_PCIEXBAR);

    return bar & PCIEXBAR_ENABLE ? bar & PCIEXBAR_BASE : 0;
}

/* Have the ECAM where PCIEXBAR says, if nothing else is there. */
static void pci_host_map_ecam(struct pci_host *h)
{
    uint64_t base = pci_host_ecam_base(h);
    int rc;

    if (h->ecam.enabled && h->ecam.base == base)
        return;
    bus_remove(h->mmio, &h->ecam);
    if (!base)
        return;
    h->ecam.base = base;
    rc = bus_add(h->mmio, &h->ecam);
    if (rc)
        log_guest("pci: ECAM cannot be at %#llx (%d)", (unsigned long long)base, rc);
}

static void pci_host_config_write(struct pci_dev *d, unsigned off, unsigned size)
{
    if (off < MCH_PCIEXBAR + 8 && off + size > MCH_PCIEXBAR)
        pci_host_map_ecam(d->host);
}

static const struct pci_dev_ops pci_host_bridge_ops = { .config_write = pci_host_config_write };

static void pci_host_init_bridge(struct pci_host *h)
{
    static const struct pci_ident ident = {
        .vendor = 0x8086, .device = 0x29c0, .class_code = 0x06, /* bridge, host */
        .subvendor = 0x1af4, .subsystem = 0x1100, /* by which SeaBIOS knows that there is fw_cfg */
    };
    struct pci_dev *d = &h->bridge;

    pci_dev_init(d, "pci-host", &ident, &pci_host_bridge_ops);
    st_le64(d->wmask + MCH_PCIEXBAR, PCIEXBAR_BASE | PCIEXBAR_ENABLE);
    for (unsigned n = 0; n < MCH_PAMS; n++)
        d->wmask[MCH_PAM0 + n] = n ? 0x33 : 0x30;
    d->wmask[MCH_SMRAM] = 0x70; /* D_OPEN, D_CLS, D_LCK: there is no SMRAM */
    d->config[MCH_SMRAM] = 0x02;
}

/* ---- INTx ---- */

void pci_host_intx(struct pci_host *h, unsigned slot, unsigned pin, bool on)
{
    unsigned line = (slot + pin) & 3;

    if (on) {
        if (h->intx_count[line]++ == 0)
            irq_set(&h->intx[line], true);
    } else if (--h->intx_count[line] == 0) {
        irq_set(&h->intx[line], false);
    }
}

/* ---- life cycle ---- */

void pci_host_set_cf9(struct pci_host *h, const struct bus_region *region) { h->cf9 = region; }

void pci_host_init(struct pci_host *h, struct bus *io, struct bus *mmio, const struct irq_line intx[4])
{
    *h = (struct pci_host){
        .io = io,
        .mmio = mmio,
        .intx = { intx[0], intx[1], intx[2], intx[3] },
        .address_port = { .base = 0xcf8,
                          .len = 4,
                          .ops = &pci_host_address_bus,
                          .dev = h,
                          .name = "pci-address" },
        .data_port = { .base = 0xcfc, .len = 4, .ops = &pci_host_data_bus, .dev = h, .name = "pci-data" },
        .ecam = { .len = PCI_ECAM_SIZE, .ops = &pci_host_ecam_bus, .dev = h, .name = "pci-ecam" },
    };
    pci_host_init_bridge(h);
    pci_dev_plug(&h->bridge, h, 0);
}

int pci_host_attach(struct pci_host *h, uint64_t ecam_gpa)
{
    int rc = bus_add(h->io, &h->address_port);
    if (!rc)
        rc = bus_add(h->io, &h->data_port);
    h->ecam.base = ecam_gpa;
    if (!rc && ecam_gpa)
        rc = bus_add(h->mmio, &h->ecam);
    if (!rc && ecam_gpa) {
        st_le64(h->bridge.reset_config + MCH_PCIEXBAR, ecam_gpa | PCIEXBAR_ENABLE);
        st_le64(h->bridge.config + MCH_PCIEXBAR, ecam_gpa | PCIEXBAR_ENABLE);
    }
    if (rc) {
        bus_remove(h->io, &h->address_port);
        bus_remove(h->io, &h->data_port);
    }
    return rc;
}

static void pci_host_reset(void *dev)
{
    struct pci_host *h = dev;

    h->address = 0;
    pci_dev_reset(&h->bridge);
    pci_host_map_ecam(h);
}

static void pci_host_resume(void *dev)
{
    struct pci_host *h = dev;

    pci_dev_resume(&h->bridge);
    pci_host_map_ecam(h);
}

static void pci_host_destroy(void *dev) { (void)dev; }

static const struct state_field pci_host_fields[] = {
    STATE_F32(struct pci_host, address),
    STATE_FSTRUCT(struct pci_host, bridge, struct pci_dev, pci_dev_state),
    STATE_END,
};
static const struct state_desc pci_host_state = {
    .name = "pci-host", .version = 1, .size = sizeof(struct pci_host), .fields = pci_host_fields
};

const struct device_ops pci_host_ops = {
    .type = "pci-host",
    .reset = pci_host_reset,
    .resume = pci_host_resume,
    .destroy = pci_host_destroy,
    .state = &pci_host_state,
};
