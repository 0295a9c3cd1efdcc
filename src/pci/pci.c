/* Models: a conventional PCI function with a type 0 header: configuration space with write masks, BARs that
 * move regions of the port and MMIO buses, capabilities, INTx.
 * Source: PCI Local Bus specification 3.0, sections 6.1 to 6.2 (header, command, status, BARs), 6.7
 * (capabilities list).
 * Runs on: any thread, under the device lock; takes no lock.
 *
 * BARs that the guest puts on top of each other, or of another region, are not mapped until the way is
 * free; the first one mapped stays.
 */
#include "pci/pci.h"

#include <errno.h>
#include <string.h>

#include "base/bits.h"
#include "base/log.h"
#include "pci/host.h"

enum { BAR_IO = 0x1, BAR_MEM64 = 0x4, BAR_PREFETCH = 0x8 };
enum { PCI_HEADER_END = 0x40, PCI_IO_MAX = 256 };

#define PCI_UNMAPPED (~0ULL)
#define PCI_COMMAND_WRITABLE                                                                                 \
    (PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER | 0x0140 | PCI_COMMAND_INTX_OFF)

void pci_dev_init(struct pci_dev *d, const char *name, const struct pci_ident *ident,
                  const struct pci_dev_ops *ops)
{
    *d = (struct pci_dev){ .name = name, .ops = ops, .cap_end = PCI_HEADER_END };
    st_le16(d->config + PCI_VENDOR_ID, ident->vendor);
    st_le16(d->config + PCI_DEVICE_ID, ident->device);
    st_le16(d->config + PCI_SUBVENDOR_ID, ident->subvendor);
    st_le16(d->config + PCI_SUBSYSTEM_ID, ident->subsystem);
    d->config[PCI_REVISION] = ident->revision;
    d->config[PCI_CLASS_PROG] = ident->prog_if;
    d->config[PCI_CLASS] = ident->subclass;
    d->config[PCI_CLASS + 1] = ident->class_code;
    d->config[PCI_INTERRUPT_PIN] = ident->irq_pin;
    st_le16(d->wmask + PCI_COMMAND, PCI_COMMAND_WRITABLE);
    d->wmask[PCI_CACHE_LINE] = 0xff;
    d->wmask[PCI_LATENCY] = 0xff;
    d->wmask[PCI_INTERRUPT_LINE] = 0xff;
    /* Master data parity error, aborts, system and parity errors. */
    st_le16(d->w1cmask + PCI_STATUS, 0xf900);
}

int pci_dev_add_bar(struct pci_dev *d, unsigned index, enum pci_bar_kind kind, bool prefetch, uint64_t len,
                    const struct bus_ops *ops, void *opaque)
{
    bool wide = kind == PCI_BAR_MEM64;
    uint64_t min = kind == PCI_BAR_IO ? 4 : 16, max = kind == PCI_BAR_IO ? PCI_IO_MAX
                                                      : wide             ? BIT(40)
                                                                         : BIT(31);
    unsigned off = PCI_BAR0 + 4 * index;

    if (kind == PCI_BAR_NONE || index + wide >= PCI_BARS || len < min || len > max || (len & (len - 1)))
        return -EINVAL;
    if (d->sealed || ld_le32(d->wmask + off) || (wide && d->bar[index + 1].kind))
        return -EINVAL;
    d->bar[index] = (struct pci_bar){
        .kind = kind,
        .prefetch = prefetch,
        .region = { .len = len, .ops = ops, .dev = opaque, .name = d->name },
    };
    d->config[off] = (uint8_t)((kind == PCI_BAR_IO ? BAR_IO : 0) | (wide ? BAR_MEM64 : 0) |
                               (prefetch && kind != PCI_BAR_IO ? BAR_PREFETCH : 0));
    st_le32(d->wmask + off, (uint32_t) ~(len - 1));
    if (wide)
        st_le32(d->wmask + off + 4, (uint32_t)(~(len - 1) >> 32));
    return 0;
}

int pci_dev_add_cap(struct pci_dev *d, uint8_t id, unsigned len)
{
    unsigned off = d->cap_end;

    if (d->sealed || len < 2 || off + len > PCI_CONFIG_SIZE)
        return -ENOSPC;
    d->config[off] = id;
    d->config[off + 1] = d->config[PCI_CAP_POINTER];
    d->config[PCI_CAP_POINTER] = (uint8_t)off;
    d->config[PCI_STATUS] |= PCI_STATUS_CAP_LIST;
    d->cap_end = (unsigned)ALIGN_UP(off + len, 4);
    return (int)off;
}

/* ---- BAR mapping ---- */

static struct bus *pci_bar_bus(const struct pci_dev *d, const struct pci_bar *b)
{
    return b->kind == PCI_BAR_IO ? d->host->io : d->host->mmio;
}

/* Where the configuration wants the BAR; PCI_UNMAPPED: nowhere. */
static uint64_t pci_bar_wanted(const struct pci_dev *d, unsigned index)
{
    const struct pci_bar *b = &d->bar[index];
    const uint8_t *reg = d->config + PCI_BAR0 + 4 * index;
    uint16_t enable = b->kind == PCI_BAR_IO ? PCI_COMMAND_IO : PCI_COMMAND_MEMORY;
    uint64_t limit = b->kind == PCI_BAR_IO ? BIT(16) : b->kind == PCI_BAR_MEM32 ? BIT(32) : ~0ULL;

    if (b->kind == PCI_BAR_NONE || !(ld_le16(d->config + PCI_COMMAND) & enable))
        return PCI_UNMAPPED;
    uint64_t base = b->kind == PCI_BAR_MEM64 ? ld_le64(reg) : ld_le32(reg);
    base &= ~(b->region.len - 1);
    /* 0 is "not assigned"; the very top is what sizing leaves for a moment. */
    if (!base || range_outside(base, b->region.len, limit) || base + b->region.len == limit)
        return PCI_UNMAPPED;
    return base;
}

static void pci_bar_unmap(struct pci_dev *d, struct pci_bar *b)
{
    if (b->region.enabled)
        bus_remove(pci_bar_bus(d, b), &b->region);
}

/* Map the BARs that want to be and are not. */
static void pci_dev_map(struct pci_dev *d)
{
    for (unsigned i = 0; i < PCI_BARS; i++) {
        struct pci_bar *b = &d->bar[i];
        uint64_t base = pci_bar_wanted(d, i);
        if (base == PCI_UNMAPPED || b->region.enabled)
            continue;
        b->region.base = base;
        int rc = bus_add(pci_bar_bus(d, b), &b->region);
        if (rc)
            log_guest("pci: %s: BAR %u cannot be at %#llx (%d)", d->name, i, (unsigned long long)base, rc);
    }
}

static void pci_dev_update_bars(struct pci_dev *d)
{
    if (!d->host)
        return;
    for (unsigned i = 0; i < PCI_BARS; i++) {
        struct pci_bar *b = &d->bar[i];
        if (b->region.enabled && b->region.base != pci_bar_wanted(d, i))
            pci_bar_unmap(d, b);
    }
    pci_host_remap(d->host);
}

void pci_host_remap(struct pci_host *h)
{
    for (unsigned slot = 0; slot < PCI_SLOTS; slot++) {
        if (h->slot[slot])
            pci_dev_map(h->slot[slot]);
    }
}

/* ---- INTx ---- */

static void pci_dev_update_intx(struct pci_dev *d)
{
    unsigned pin = d->reset_config[PCI_INTERRUPT_PIN]; /* config[] may come from a file */
    bool off = ld_le16(d->config + PCI_COMMAND) & PCI_COMMAND_INTX_OFF;
    bool on = d->host && d->intx && !off && pin >= 1 && pin <= 4;

    if (d->intx)
        d->config[PCI_STATUS] |= PCI_STATUS_INTX;
    else
        d->config[PCI_STATUS] &= ~PCI_STATUS_INTX;
    if (on == d->intx_driven || !d->host)
        return;
    d->intx_driven = on;
    pci_host_intx(d->host, d->devfn >> 3, (pin - 1) & 3, on);
}

void pci_dev_set_intx(struct pci_dev *d, bool level)
{
    d->intx = level;
    pci_dev_update_intx(d);
}

/* ---- life cycle ---- */

static int pci_free_slot(const struct pci_host *h)
{
    for (int slot = 0; slot < PCI_SLOTS; slot++) {
        if (!h->slot[slot])
            return slot;
    }
    return -ENOSPC;
}

int pci_dev_plug(struct pci_dev *d, struct pci_host *host, int slot)
{
    if (slot < 0)
        slot = pci_free_slot(host);
    if (slot < 0)
        return slot;
    if (slot >= PCI_SLOTS || d->host)
        return -EINVAL;
    if (host->slot[slot])
        return -EBUSY;
    d->host = host;
    d->devfn = (uint8_t)(slot << 3);
    if (!d->sealed)
        memcpy(d->reset_config, d->config, sizeof(d->config));
    d->sealed = true;
    host->slot[slot] = d;
    return 0;
}

void pci_dev_unplug(struct pci_dev *d)
{
    struct pci_host *h = d->host;

    if (!h)
        return;
    pci_dev_set_intx(d, false);
    for (unsigned i = 0; i < PCI_BARS; i++)
        pci_bar_unmap(d, &d->bar[i]);
    h->slot[d->devfn >> 3] = NULL;
    d->host = NULL;
    pci_host_remap(h);
}

void pci_dev_reset(struct pci_dev *d)
{
    pci_dev_set_intx(d, false);
    if (d->sealed)
        memcpy(d->config, d->reset_config, sizeof(d->config));
    pci_dev_update_bars(d);
}

void pci_dev_resume(struct pci_dev *d)
{
    pci_dev_update_bars(d);
    pci_dev_update_intx(d);
}

/* ---- configuration access ---- */

uint32_t pci_dev_config_read(struct pci_dev *d, unsigned off, unsigned size)
{
    uint32_t v = 0;

    if (off + size > PCI_CONFIG_SIZE)
        return (uint32_t)mask_bytes(size);
    if (d->ops && d->ops->config_read)
        d->ops->config_read(d, off, size);
    memcpy(&v, d->config + off, size);
    return v;
}

static bool pci_touches(unsigned off, unsigned size, unsigned reg, unsigned len)
{
    return off < reg + len && reg < off + size;
}

void pci_dev_config_write(struct pci_dev *d, unsigned off, uint32_t value, unsigned size)
{
    if (off + size > PCI_CONFIG_SIZE)
        return;
    for (unsigned i = 0; i < size; i++) {
        uint8_t v = (uint8_t)(value >> (8 * i)), w = d->wmask[off + i];
        uint8_t *c = &d->config[off + i];
        *c = (uint8_t)((*c & ~w) | (v & w)) & (uint8_t) ~(v & d->w1cmask[off + i]);
    }
    if (pci_touches(off, size, PCI_COMMAND, 2)) {
        pci_dev_update_intx(d);
        pci_dev_update_bars(d);
    } else if (pci_touches(off, size, PCI_BAR0, 4 * PCI_BARS)) {
        pci_dev_update_bars(d);
    }
    if (d->ops && d->ops->config_write)
        d->ops->config_write(d, off, size);
}

static const struct state_field pci_dev_fields[] = {
    STATE_FBYTES(struct pci_dev, config),
    STATE_FBOOL(struct pci_dev, intx),
    STATE_END,
};
const struct state_desc pci_dev_state = {
    .name = "pci-dev", .version = 1, .size = sizeof(struct pci_dev), .fields = pci_dev_fields
};
