/* Models: the modern PCI transport of virtio, one BAR for the four structures and one for MSI-X.
 * Source: virtio 1.2, 4.1 (PCI transport), 3.1.1 (initialisation), 2.1 to 2.4 (status, features, reset).
 * Runs on: any thread, under the device lock.
 *
 * BAR 0 has a page each for the common configuration, the ISR byte, the device's configuration and the
 * notification addresses (4 bytes a queue). The registers of the common configuration are a table: an access
 * must have a register's own width and offset, everything else reads as 0 and writes nothing (4.1.3.1).
 */
#include "virtio/pci.h"

#include <errno.h>
#include <string.h>

#include "base/bits.h"
#include "base/err.h"
#include "base/log.h"

enum { PAGE_COMMON, PAGE_ISR, PAGE_DEVICE, PAGE_NOTIFY, PAGES };
enum { CAP_COMMON = 1, CAP_NOTIFY = 2, CAP_ISR = 3, CAP_DEVICE = 4, CAP_PCI_CFG = 5 };
enum { CAP_LEN = 16, CAP_TYPE = 3, CAP_BAR = 4, CAP_OFFSET = 8, CAP_LENGTH = 12, CAP_EXTRA = 16 };
enum { ISR_QUEUE = 1, ISR_CONFIG = 2 };
enum { NOTIFY_STEP = 4, BAR_STRUCTS = 0, BAR_MSIX = 1, BAR_PAGE = 0x1000 };

#define VIRTIO_VENDOR      0x1af4
#define VIRTIO_DEVICE_BASE 0x1040
#define VIRTIO_SUBSYSTEM   0x1100
#define VIRTIO_COMMON_FEATURES                                                                               \
    (VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX | VIRTIO_F_VERSION_1 | VIRTIO_F_RING_PACKED)

/* The common configuration (4.1.4.3). */
enum virtio_reg {
    REG_NONE = -1,
    REG_OFFERED_SELECT,
    REG_OFFERED,
    REG_ACCEPTED_SELECT,
    REG_ACCEPTED,
    REG_CONFIG_VECTOR,
    REG_QUEUES,
    REG_STATUS,
    REG_GENERATION,
    REG_QUEUE_SELECT,
    REG_QUEUE_SIZE,
    REG_QUEUE_VECTOR,
    REG_QUEUE_ENABLE,
    REG_QUEUE_NOTIFY_OFF,
    REG_DESC_LOW,
    REG_DESC_HIGH,
    REG_DRIVER_LOW,
    REG_DRIVER_HIGH,
    REG_DEVICE_LOW,
    REG_DEVICE_HIGH,
    REG_COUNT
};

static const struct {
    uint8_t off, size;
} virtio_regs[REG_COUNT] = {
    [REG_OFFERED_SELECT] = { 0x00, 4 },   [REG_OFFERED] = { 0x04, 4 },
    [REG_ACCEPTED_SELECT] = { 0x08, 4 },  [REG_ACCEPTED] = { 0x0c, 4 },
    [REG_CONFIG_VECTOR] = { 0x10, 2 },    [REG_QUEUES] = { 0x12, 2 },
    [REG_STATUS] = { 0x14, 1 },           [REG_GENERATION] = { 0x15, 1 },
    [REG_QUEUE_SELECT] = { 0x16, 2 },     [REG_QUEUE_SIZE] = { 0x18, 2 },
    [REG_QUEUE_VECTOR] = { 0x1a, 2 },     [REG_QUEUE_ENABLE] = { 0x1c, 2 },
    [REG_QUEUE_NOTIFY_OFF] = { 0x1e, 2 }, [REG_DESC_LOW] = { 0x20, 4 },
    [REG_DESC_HIGH] = { 0x24, 4 },        [REG_DRIVER_LOW] = { 0x28, 4 },
    [REG_DRIVER_HIGH] = { 0x2c, 4 },      [REG_DEVICE_LOW] = { 0x30, 4 },
    [REG_DEVICE_HIGH] = { 0x34, 4 },
};
enum { COMMON_LEN = 0x38 };

static enum virtio_reg virtio_reg_at(uint64_t off, unsigned size)
{
    for (int i = 0; i < REG_COUNT; i++) {
        if (virtio_regs[i].off == off && virtio_regs[i].size == size)
            return (enum virtio_reg)i;
    }
    return REG_NONE;
}

bool virtio_is_live(const struct virtio_pci *vp)
{
    return (vp->status & (VIRTIO_DRIVER_OK | VIRTIO_NEEDS_RESET)) == VIRTIO_DRIVER_OK;
}

/* ---- interrupts ---- */

static void virtio_set_isr(struct virtio_pci *vp, uint8_t isr)
{
    vp->isr = isr;
    pci_dev_set_intx(&vp->pci, isr && !msix_enabled(&vp->msix));
}

static void virtio_interrupt(struct virtio_pci *vp, uint8_t cause, uint16_t vector)
{
    if (msix_enabled(&vp->msix))
        msix_notify(&vp->msix, vector); /* ignores VQ_NO_VECTOR */
    else
        virtio_set_isr(vp, vp->isr | cause);
}

void virtio_notify(struct virtio_pci *vp, unsigned n)
{
    if (vq_should_notify(&vp->vq[n]))
        virtio_interrupt(vp, ISR_QUEUE, vp->vq[n].vector);
}

void virtio_config_changed(struct virtio_pci *vp)
{
    vp->config_generation++;
    if (vp->status & VIRTIO_DRIVER_OK)
        virtio_interrupt(vp, ISR_CONFIG, vp->config_vector);
}

void virtio_needs_reset(struct virtio_pci *vp, const char *why)
{
    if (vp->status & VIRTIO_NEEDS_RESET)
        return;
    log_guest("virtio: %s needs a reset: %s", vp->setup.name, why);
    vp->status |= VIRTIO_NEEDS_RESET;
    if (vp->status & VIRTIO_DRIVER_OK)
        virtio_interrupt(vp, ISR_CONFIG, vp->config_vector);
}

static void virtio_on_broken(void *opaque) { virtio_needs_reset(opaque, "a queue is broken"); }

/* ---- status and features ---- */

/* What the driver can undo by itself: all but the PCI header. */
static void virtio_reset_core(struct virtio_pci *vp)
{
    vp->status = 0; /* first: what the device finishes now goes nowhere */
    for (unsigned n = 0; n < vp->setup.queues; n++)
        vq_reset(&vp->vq[n]);
    if (vp->setup.ops->reset)
        vp->setup.ops->reset(vp->setup.dev);
    vp->accepted = 0;
    vp->offered_select = vp->accepted_select = 0;
    vp->queue_select = 0;
    vp->config_vector = VQ_NO_VECTOR;
    virtio_set_isr(vp, 0);
}

static bool virtio_features_fit(const struct virtio_pci *vp)
{
    return !(vp->accepted & ~vp->offered) && (vp->accepted & VIRTIO_F_VERSION_1);
}

static void virtio_start(struct virtio_pci *vp)
{
    for (unsigned n = 0; n < vp->setup.queues; n++)
        vq_start(&vp->vq[n], vp->accepted);
    if (virtio_is_live(vp) && vp->setup.ops->start)
        vp->setup.ops->start(vp->setup.dev);
}

/* Bits are only ever added, but for a reset (2.1.1); FEATURES_OK sticks if the features fit, and DRIVER_OK if
 * that did. */
static void virtio_write_status(struct virtio_pci *vp, uint8_t v)
{
    uint8_t was = vp->status;

    if (!v) {
        virtio_reset_core(vp);
        return;
    }
    if (!(was & VIRTIO_FEATURES_OK) && (v & VIRTIO_FEATURES_OK) && !virtio_features_fit(vp))
        v &= (uint8_t)~VIRTIO_FEATURES_OK;
    if (!((was | v) & VIRTIO_FEATURES_OK))
        v &= (uint8_t)~VIRTIO_DRIVER_OK;
    vp->status = was | (v & (uint8_t)~VIRTIO_NEEDS_RESET);
    if (!(was & VIRTIO_DRIVER_OK) && (vp->status & VIRTIO_DRIVER_OK))
        virtio_start(vp);
}

static void virtio_write_accepted(struct virtio_pci *vp, uint32_t v)
{
    if ((vp->status & VIRTIO_FEATURES_OK) || vp->accepted_select > 1)
        return;
    vp->accepted = bits_set(vp->accepted, vp->accepted_select ? 63 : 31, vp->accepted_select ? 32 : 0, v);
}

/* ---- the common configuration ---- */

static struct vq *virtio_selected(struct virtio_pci *vp)
{
    return vp->queue_select < vp->setup.queues ? &vp->vq[vp->queue_select] : NULL;
}

static uint32_t virtio_read_queue(struct virtio_pci *vp, enum virtio_reg reg)
{
    const struct vq *q = virtio_selected(vp);

    if (!q)
        return reg == REG_QUEUE_VECTOR ? VQ_NO_VECTOR : 0; /* size 0: there is no such queue */
    switch (reg) {
    case REG_QUEUE_SIZE:
        return q->size;
    case REG_QUEUE_VECTOR:
        return q->vector;
    case REG_QUEUE_ENABLE:
        return q->enabled;
    case REG_QUEUE_NOTIFY_OFF:
        return vp->queue_select;
    case REG_DESC_LOW:
        return (uint32_t)q->desc;
    case REG_DESC_HIGH:
        return (uint32_t)(q->desc >> 32);
    case REG_DRIVER_LOW:
        return (uint32_t)q->driver;
    case REG_DRIVER_HIGH:
        return (uint32_t)(q->driver >> 32);
    case REG_DEVICE_LOW:
        return (uint32_t)q->device;
    case REG_DEVICE_HIGH:
        return (uint32_t)(q->device >> 32);
    default:
        return 0;
    }
}

static uint32_t virtio_read_common(struct virtio_pci *vp, uint64_t off, unsigned size)
{
    enum virtio_reg reg = virtio_reg_at(off, size);

    switch (reg) {
    case REG_NONE:
        return 0;
    case REG_OFFERED_SELECT:
        return vp->offered_select;
    case REG_OFFERED:
        return vp->offered_select > 1 ? 0 : (uint32_t)(vp->offered >> (32 * vp->offered_select));
    case REG_ACCEPTED_SELECT:
        return vp->accepted_select;
    case REG_ACCEPTED:
        return vp->accepted_select > 1 ? 0 : (uint32_t)(vp->accepted >> (32 * vp->accepted_select));
    case REG_CONFIG_VECTOR:
        return vp->config_vector;
    case REG_QUEUES:
        return vp->setup.queues;
    case REG_STATUS:
        return vp->status;
    case REG_GENERATION:
        return vp->config_generation;
    case REG_QUEUE_SELECT:
        return vp->queue_select;
    default:
        return virtio_read_queue(vp, reg);
    }
}

/* A vector that does not exist reads back as none (4.1.5.1.2). */
static uint16_t virtio_vector(const struct virtio_pci *vp, uint32_t v)
{
    return v < vp->msix.vectors ? (uint16_t)v : VQ_NO_VECTOR;
}

/* Where the rings are, and whether: frozen by queue_enable and DRIVER_OK. */
static void virtio_write_ring(struct vq *q, enum virtio_reg reg, uint32_t v)
{
    switch (reg) {
    case REG_QUEUE_SIZE:
        if (v && v <= q->max_size)
            q->size = (uint16_t)v;
        break;
    case REG_QUEUE_ENABLE:
        q->enabled = v == 1;
        break;
    case REG_DESC_LOW:
        q->desc = bits_set(q->desc, 31, 0, v);
        break;
    case REG_DESC_HIGH:
        q->desc = bits_set(q->desc, 63, 32, v);
        break;
    case REG_DRIVER_LOW:
        q->driver = bits_set(q->driver, 31, 0, v);
        break;
    case REG_DRIVER_HIGH:
        q->driver = bits_set(q->driver, 63, 32, v);
        break;
    case REG_DEVICE_LOW:
        q->device = bits_set(q->device, 31, 0, v);
        break;
    case REG_DEVICE_HIGH:
        q->device = bits_set(q->device, 63, 32, v);
        break;
    default:
        break;
    }
}

static void virtio_write_queue(struct virtio_pci *vp, enum virtio_reg reg, uint32_t v)
{
    struct vq *q = virtio_selected(vp);

    if (!q)
        return;
    if (reg == REG_QUEUE_VECTOR)
        q->vector = virtio_vector(vp, v);
    else if (!q->enabled && !(vp->status & VIRTIO_DRIVER_OK))
        virtio_write_ring(q, reg, v);
    else if (reg != REG_QUEUE_ENABLE || v != 1)
        log_guest("virtio: %s: queue %u is set up and cannot change", vp->setup.name, vp->queue_select);
}

static void virtio_write_common(struct virtio_pci *vp, uint64_t off, uint32_t v, unsigned size)
{
    enum virtio_reg reg = virtio_reg_at(off, size);

    switch (reg) {
    case REG_NONE:
    case REG_OFFERED:
    case REG_QUEUES:
    case REG_GENERATION:
    case REG_QUEUE_NOTIFY_OFF:
        break;
    case REG_OFFERED_SELECT:
        vp->offered_select = v;
        break;
    case REG_ACCEPTED_SELECT:
        vp->accepted_select = v;
        break;
    case REG_ACCEPTED:
        virtio_write_accepted(vp, v);
        break;
    case REG_CONFIG_VECTOR:
        vp->config_vector = virtio_vector(vp, v);
        break;
    case REG_STATUS:
        virtio_write_status(vp, (uint8_t)v);
        break;
    case REG_QUEUE_SELECT:
        vp->queue_select = (uint16_t)v;
        break;
    default:
        virtio_write_queue(vp, reg, v);
    }
}

/* ---- the other structures ---- */

static uint32_t virtio_read_isr(struct virtio_pci *vp)
{
    uint8_t v = vp->isr;

    virtio_set_isr(vp, 0); /* reading it is the acknowledgement (4.1.4.5) */
    return v;
}

static uint32_t virtio_read_config(const struct virtio_pci *vp, uint64_t off, unsigned size)
{
    uint32_t v = 0;

    if (!range_outside(off, size, vp->setup.config_len))
        memcpy(&v, vp->setup.config + off, size);
    return v;
}

static void virtio_write_config(struct virtio_pci *vp, uint64_t off, uint32_t v, unsigned size)
{
    if (vp->setup.ops->config_write && !range_outside(off, size, vp->setup.config_len))
        vp->setup.ops->config_write(vp->setup.dev, (unsigned)off, v, size);
}

static void virtio_kick(struct virtio_pci *vp, uint64_t off)
{
    uint64_t n = off / NOTIFY_STEP;

    if (n < vp->setup.queues && virtio_is_live(vp))
        vp->setup.ops->notify(vp->setup.dev, (unsigned)n);
}

static uint64_t virtio_read(void *dev, uint64_t off, unsigned size)
{
    struct virtio_pci *vp = dev;

    switch (off / BAR_PAGE) {
    case PAGE_COMMON:
        return virtio_read_common(vp, off, size);
    case PAGE_ISR:
        return off % BAR_PAGE ? 0 : virtio_read_isr(vp);
    case PAGE_DEVICE:
        return virtio_read_config(vp, off % BAR_PAGE, size);
    default:
        return 0;
    }
}

static void virtio_write(void *dev, uint64_t off, uint64_t value, unsigned size)
{
    struct virtio_pci *vp = dev;

    switch (off / BAR_PAGE) {
    case PAGE_COMMON:
        virtio_write_common(vp, off, (uint32_t)value, size);
        break;
    case PAGE_DEVICE:
        virtio_write_config(vp, off % BAR_PAGE, (uint32_t)value, size);
        break;
    case PAGE_NOTIFY:
        virtio_kick(vp, off % BAR_PAGE);
        break;
    }
}

static const struct bus_ops virtio_bus = {
    .read = virtio_read, .write = virtio_write, .min_size = 1, .max_size = 4
};

/* ---- configuration space: the window into BAR 0 (4.1.4.9) ---- */

static bool virtio_window(struct virtio_pci *vp, unsigned off, unsigned size, uint32_t *at, uint32_t *width)
{
    const uint8_t *cap = vp->pci.config + vp->cfg_cap;

    if (off >= vp->cfg_cap + CAP_EXTRA + 4 || off + size <= vp->cfg_cap + CAP_EXTRA)
        return false;
    *at = ld_le32(cap + CAP_OFFSET);
    *width = ld_le32(cap + CAP_LENGTH);
    return cap[CAP_BAR] == BAR_STRUCTS && (*width == 1 || *width == 2 || *width == 4) && *at % *width == 0 &&
           !range_outside(*at, *width, PAGES * BAR_PAGE);
}

static void virtio_config_read(struct pci_dev *d, unsigned off, unsigned size)
{
    struct virtio_pci *vp = container_of(d, struct virtio_pci, pci);
    uint32_t at, width;

    if (virtio_window(vp, off, size, &at, &width))
        st_le32(d->config + vp->cfg_cap + CAP_EXTRA, (uint32_t)virtio_read(vp, at, width));
}

static void virtio_config_write(struct pci_dev *d, unsigned off, unsigned size)
{
    struct virtio_pci *vp = container_of(d, struct virtio_pci, pci);
    bool was = d->intx;
    uint32_t at, width;

    msix_config_write(&vp->msix, off, size);
    if (was && msix_enabled(&vp->msix))
        pci_dev_set_intx(d, false);
    if (virtio_window(vp, off, size, &at, &width)) {
        uint32_t v = ld_le32(d->config + vp->cfg_cap + CAP_EXTRA);
        virtio_write(vp, at, v & (uint32_t)mask_bytes(width), width);
    }
}

static const struct pci_dev_ops virtio_pci_dev_ops = { .config_read = virtio_config_read,
                                                       .config_write = virtio_config_write };

/* ---- life cycle ---- */

/* A vendor capability that says where a structure is (4.1.4). Returns its offset or -ENOSPC. */
static int virtio_add_cap(struct virtio_pci *vp, uint8_t type, unsigned page, uint32_t len, unsigned extra)
{
    int off = pci_dev_add_cap(&vp->pci, PCI_CAP_ID_VENDOR, CAP_LEN + extra);
    uint8_t *cap = vp->pci.config + off;

    if (off < 0)
        return off;
    cap[2] = (uint8_t)(CAP_LEN + extra);
    cap[CAP_TYPE] = type;
    cap[CAP_BAR] = BAR_STRUCTS;
    st_le32(cap + CAP_OFFSET, page * BAR_PAGE);
    st_le32(cap + CAP_LENGTH, len);
    return off;
}

static int virtio_add_caps(struct virtio_pci *vp)
{
    int r = virtio_add_cap(vp, CAP_COMMON, PAGE_COMMON, COMMON_LEN, 0);

    if (r >= 0)
        r = virtio_add_cap(vp, CAP_ISR, PAGE_ISR, 1, 0);
    if (r >= 0 && vp->setup.config_len)
        r = virtio_add_cap(vp, CAP_DEVICE, PAGE_DEVICE, vp->setup.config_len, 0);
    if (r >= 0)
        r = virtio_add_cap(vp, CAP_NOTIFY, PAGE_NOTIFY, NOTIFY_STEP * vp->setup.queues, 4);
    if (r >= 0)
        st_le32(vp->pci.config + r + CAP_EXTRA, NOTIFY_STEP);
    if (r >= 0)
        r = virtio_add_cap(vp, CAP_PCI_CFG, 0, 0, 4);
    if (r < 0)
        return r;
    vp->cfg_cap = (unsigned)r;
    vp->pci.wmask[r + CAP_BAR] = 0xff;
    memset(vp->pci.wmask + r + CAP_OFFSET, 0xff, 12); /* offset, length, data */
    return 0;
}

int virtio_pci_init(struct virtio_pci *vp, const struct virtio_setup *setup)
{
    struct pci_ident ident = {
        .vendor = VIRTIO_VENDOR,
        .device = (uint16_t)(VIRTIO_DEVICE_BASE + setup->id),
        .subvendor = VIRTIO_VENDOR,
        .subsystem = VIRTIO_SUBSYSTEM,
        .class_code = setup->class_code,
        .subclass = setup->subclass,
        .revision = 1,
        .irq_pin = 1,
    };
    int r;

    if (!setup->queues || setup->queues > VIRTIO_MAX_QUEUES || setup->config_len > VIRTIO_CONFIG_MAX ||
        !setup->queue_size || setup->queue_size > VQ_MAX_SIZE)
        return -EINVAL;
    memset(vp, 0, sizeof(*vp));
    vp->setup = *setup;
    vp->offered = setup->features | VIRTIO_COMMON_FEATURES;
    vp->config_vector = VQ_NO_VECTOR;
    for (unsigned n = 0; n < VIRTIO_MAX_QUEUES; n++)
        vq_init(&vp->vq[n], setup->ram, setup->queue_size, virtio_on_broken, vp);
    pci_dev_init(&vp->pci, setup->name, &ident, &virtio_pci_dev_ops);
    r = pci_dev_add_bar(&vp->pci, BAR_STRUCTS, PCI_BAR_MEM32, false, PAGES * BAR_PAGE, &virtio_bus, vp);
    if (r == 0)
        r = virtio_add_caps(vp);
    if (r == 0)
        r = msix_init(&vp->msix, &vp->pci, setup->queues + 1u, BAR_MSIX, setup->deliver,
                      setup->deliver_opaque);
    return r;
}

void virtio_pci_reset(struct virtio_pci *vp)
{
    virtio_reset_core(vp);
    vp->config_generation = 0;
    pci_dev_reset(&vp->pci);
    msix_reset(&vp->msix);
}

/* Loaded state may say anything that its fields can hold: queues that cannot be are broken here, as they
 * would be by DRIVER_OK. */
void virtio_pci_resume(struct virtio_pci *vp)
{
    pci_dev_resume(&vp->pci);
    if (!(vp->status & VIRTIO_DRIVER_OK))
        return;
    if (vp->accepted & ~vp->offered)
        virtio_needs_reset(vp, "it has features that this device lacks");
    for (unsigned n = 0; n < vp->setup.queues; n++)
        vq_start(&vp->vq[n], vp->accepted);
}

static int virtio_pci_check(void *obj, struct err *err)
{
    const struct virtio_pci *vp = obj;

    if ((vp->status & VIRTIO_DRIVER_OK) && !(vp->status & VIRTIO_FEATURES_OK))
        return err_set(err, EINVAL, "virtio: driver without features");
    return 0;
}

static const struct state_field virtio_pci_fields[] = {
    STATE_FSTRUCT(struct virtio_pci, pci, struct pci_dev, pci_dev_state),
    STATE_FSTRUCT(struct virtio_pci, msix, struct msix, msix_state),
    STATE_FSTRUCT(struct virtio_pci, vq, struct vq, vq_state),
    STATE_F64(struct virtio_pci, accepted),
    STATE_F32(struct virtio_pci, offered_select),
    STATE_F32(struct virtio_pci, accepted_select),
    STATE_F16(struct virtio_pci, queue_select),
    STATE_F16(struct virtio_pci, config_vector),
    STATE_F8(struct virtio_pci, status),
    STATE_F8(struct virtio_pci, isr),
    STATE_F8(struct virtio_pci, config_generation),
    STATE_END,
};
const struct state_desc virtio_pci_state = {
    .name = "virtio-pci",
    .version = 1,
    .size = sizeof(struct virtio_pci),
    .fields = virtio_pci_fields,
    .check = virtio_pci_check,
};
