/* Models: the MSI-X capability with its table and pending bit array in one BAR.
 * Source: PCI Local Bus specification 3.0, section 6.8.2 and 6.8.3.
 * Runs on: any thread, under the device lock; calls `deliver`, which must not come back.
 */
#include "pci/msix.h"

#include <errno.h>
#include <string.h>

#include "base/bits.h"
#include "base/log.h"

enum { MSIX_CAP_LEN = 12, MSIX_CONTROL = 2, MSIX_TABLE = 4, MSIX_PBA = 8, MSIX_ENTRY_LEN = 16 };
enum { CONTROL_MASK_ALL = 0x4000, CONTROL_ENABLE = 0x8000 };
enum { ENTRY_MASKED = 1 };

static uint16_t msix_control(const struct msix *m) { return ld_le16(m->dev->config + m->cap + MSIX_CONTROL); }

bool msix_enabled(const struct msix *m) { return msix_control(m) & CONTROL_ENABLE; }

static bool msix_masked(const struct msix *m, unsigned vector)
{
    return (msix_control(m) & CONTROL_MASK_ALL) || (m->table[vector].ctrl & ENTRY_MASKED);
}

static void msix_send(struct msix *m, unsigned vector)
{
    const struct msix_entry *e = &m->table[vector];

    /* A message to anywhere else would be a write to memory, which devices make through the RAM API alone. */
    if (!apic_msi_address(e->addr)) {
        log_guest("msix: %s: vector %u has no interrupt address", m->dev->name, vector);
        return;
    }
    struct apic_msg msg = apic_msg_from_msi(e->addr, e->data);
    m->deliver(m->opaque, &msg);
}

void msix_notify(struct msix *m, unsigned vector)
{
    if (vector >= m->vectors || !msix_enabled(m) || !pci_dev_is_master(m->dev))
        return;
    if (msix_masked(m, vector))
        m->pba[vector / 64] |= BIT(vector % 64);
    else
        msix_send(m, vector);
}

/* Send a vector that is pending and may go now. */
static void msix_release(struct msix *m, unsigned vector)
{
    if (!(m->pba[vector / 64] & BIT(vector % 64)) || !msix_enabled(m) || msix_masked(m, vector))
        return;
    m->pba[vector / 64] &= ~BIT(vector % 64);
    msix_send(m, vector);
}

void msix_config_write(struct msix *m, unsigned off, unsigned size)
{
    if (off >= m->cap + MSIX_TABLE || off + size <= m->cap + MSIX_CONTROL)
        return;
    for (unsigned v = 0; v < m->vectors; v++)
        msix_release(m, v);
}

/* ---- the BAR ---- */

static uint32_t msix_read_table(const struct msix *m, unsigned off)
{
    const struct msix_entry *e = &m->table[off / MSIX_ENTRY_LEN];

    switch (off % MSIX_ENTRY_LEN) {
    case 0:
        return (uint32_t)e->addr;
    case 4:
        return (uint32_t)(e->addr >> 32);
    case 8:
        return e->data;
    default:
        return e->ctrl;
    }
}

static void msix_write_table(struct msix *m, unsigned off, uint32_t v)
{
    struct msix_entry *e = &m->table[off / MSIX_ENTRY_LEN];

    switch (off % MSIX_ENTRY_LEN) {
    case 0:
        e->addr = bits_set(e->addr, 31, 0, v & ~3U);
        break;
    case 4:
        e->addr = bits_set(e->addr, 63, 32, v);
        break;
    case 8:
        e->data = v;
        break;
    default:
        e->ctrl = v & ENTRY_MASKED;
        msix_release(m, off / MSIX_ENTRY_LEN);
    }
}

static uint32_t msix_read32(const struct msix *m, uint64_t off)
{
    uint64_t pba = off - m->pba_offset;

    if (off < m->vectors * MSIX_ENTRY_LEN)
        return msix_read_table(m, (unsigned)off);
    if (off >= m->pba_offset && pba < sizeof(m->pba))
        return (uint32_t)(m->pba[pba / 8] >> (pba & 4 ? 32 : 0));
    return 0;
}

static uint64_t msix_read(void *dev, uint64_t off, unsigned size)
{
    uint64_t v = msix_read32(dev, off);
    return size == 8 ? v | (uint64_t)msix_read32(dev, off + 4) << 32 : v;
}

static void msix_write(void *dev, uint64_t off, uint64_t value, unsigned size)
{
    struct msix *m = dev;

    for (unsigned i = 0; i < size; i += 4) {
        if (off + i < m->vectors * MSIX_ENTRY_LEN) /* the pending bits are for reading */
            msix_write_table(m, (unsigned)off + i, (uint32_t)(value >> (8 * i)));
    }
}

static const struct bus_ops msix_bus = {
    .read = msix_read, .write = msix_write, .min_size = 4, .max_size = 8
};

/* ---- life cycle ---- */

int msix_init(struct msix *m, struct pci_dev *dev, unsigned vectors, unsigned bar, apic_deliver_fn deliver,
              void *opaque)
{
    if (!vectors || vectors > MSIX_MAX_VECTORS || bar >= PCI_BARS)
        return -EINVAL;
    *m = (struct msix){
        .dev = dev,
        .vectors = vectors,
        .bar = bar,
        .pba_offset = vectors <= 128 ? 0x800 : 0x1000,
        .deliver = deliver,
        .opaque = opaque,
    };
    int rc = pci_dev_add_bar(dev, bar, PCI_BAR_MEM32, false, 2 * m->pba_offset, &msix_bus, m);
    if (rc)
        return rc;
    rc = pci_dev_add_cap(dev, PCI_CAP_ID_MSIX, MSIX_CAP_LEN);
    if (rc < 0)
        return rc;
    m->cap = (unsigned)rc;
    st_le16(dev->config + m->cap + MSIX_CONTROL, (uint16_t)(vectors - 1));
    st_le16(dev->wmask + m->cap + MSIX_CONTROL, CONTROL_MASK_ALL | CONTROL_ENABLE);
    st_le32(dev->config + m->cap + MSIX_TABLE, bar);
    st_le32(dev->config + m->cap + MSIX_PBA, (uint32_t)m->pba_offset | bar);
    msix_reset(m);
    return 0;
}

void msix_reset(struct msix *m)
{
    memset(m->pba, 0, sizeof(m->pba));
    memset(m->table, 0, sizeof(m->table));
    for (unsigned v = 0; v < m->vectors; v++)
        m->table[v].ctrl = ENTRY_MASKED;
}

static const struct state_field msix_entry_fields[] = {
    STATE_F64(struct msix_entry, addr),
    STATE_F32(struct msix_entry, data),
    STATE_F32(struct msix_entry, ctrl),
    STATE_END,
};
static const struct state_desc msix_entry_state = {
    .name = "msix-entry", .version = 1, .size = sizeof(struct msix_entry), .fields = msix_entry_fields
};

static int msix_check(void *obj, struct err *err)
{
    struct msix *m = obj;

    /* Bits that no register holds go; what is left cannot lead outside the tables. */
    for (unsigned v = 0; v < MSIX_MAX_VECTORS; v++) {
        m->table[v].addr &= ~3ULL;
        m->table[v].ctrl &= ENTRY_MASKED;
    }
    return 0;
}

static const struct state_field msix_fields[] = {
    STATE_FSTRUCT(struct msix, table, struct msix_entry, msix_entry_state),
    STATE_F64(struct msix, pba),
    STATE_END,
};
const struct state_desc msix_state = {
    .name = "msix", .version = 1, .size = sizeof(struct msix), .fields = msix_fields, .check = msix_check
};
