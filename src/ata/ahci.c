/* Models: an AHCI host bus adapter: one port, 32 command slots, 64-bit addresses, no port multiplier, no native queueing.
 * Source: Serial ATA AHCI 1.3.1, chapters 2 (PCI header), 3 (registers), 5 (states), 10 (software's ways).
 * Runs on: vCPU threads (registers), the loop's thread and I/O threads (completions), under the device lock. The data of
 * reads is copied to guest memory by I/O threads without that lock, but with `dma` shared (see ahci_cmd.c).
 *
 * Drivers find it by its class; OVMF takes a boot order only for Intel's ICH9, so it has that name.
 */
#include "ata/ahci.h"

#include <errno.h>
#include <string.h>

#include "base/bits.h"
#include "base/err.h"

/* Generic host control and port registers. */
enum { HBA_CAP = 0x00, HBA_GHC = 0x04, HBA_IS = 0x08, HBA_PI = 0x0c, HBA_VS = 0x10, HBA_PORT = 0x100, HBA_PORT_END = 0x180 };
enum {
    PX_CLB = 0x00,
    PX_CLBU = 0x04,
    PX_FB = 0x08,
    PX_FBU = 0x0c,
    PX_IS = 0x10,
    PX_IE = 0x14,
    PX_CMD = 0x18,
    PX_TFD = 0x20,
    PX_SIG = 0x24,
    PX_SSTS = 0x28,
    PX_SCTL = 0x2c,
    PX_SERR = 0x30,
    PX_CI = 0x38
};

#define CAP_VALUE     0x81141f00U /* 64 bits, command list override, 1.5 Gbit/s, AHCI only; 32 slots, one port */
#define VS_VALUE      0x00010301U
#define GHC_HR        1U
#define GHC_IE        2U
#define GHC_AE        0x80000000U
#define PX_IS_CLEAR   0xfd4000afU /* bits that writing one clears; PCS goes with PxSERR */
#define PX_IE_BITS    0xfdc000ffU
#define PX_CMD_BITS   ((uint32_t)(PORT_ST | PORT_FRE | PORT_ATAPI | PORT_DLAE))
#define PX_SCTL_BITS  0xfffU
#define SERR_X        (1U << 26) /* the drive was exchanged, or said hello */
#define SIG_ATAPI     0xeb140101U
#define LIST_MASK     (~0x3ffULL)
#define FIS_MASK      (~0xffULL)
/* PxSSTS: the link is up at 1.5 Gbit/s; a drive is there, without a link; switched off. */
enum { LINK_UP = 0x113, LINK_RESET = 0x001, LINK_OFF = 0x004 };

/* ---- interrupts ---- */

static uint32_t ahci_port_is(const struct ahci *a)
{
    return a->port.is | (a->port.serr & SERR_X ? (uint32_t)IS_PCS : 0);
}

static void ahci_update_irq(struct ahci *a)
{
    if (ahci_port_is(a) & a->port.ie)
        a->is |= 1;
    pci_dev_set_intx(&a->pci, a->is && (a->ghc & GHC_IE));
}

void ahci_raise(struct ahci *a, uint32_t events)
{
    a->port.is |= events;
    ahci_update_irq(a);
}

/* ---- resets ---- */

/* COMRESET (10.4.2): the drive starts anew and says hello. */
static void ahci_reset_drive(struct ahci *a)
{
    struct ahci_port *p = &a->port;

    ahci_end_life(a);
    atapi_reset(&a->atapi);
    p->ssts = LINK_UP;
    p->serr |= SERR_X;
    p->srst = false;
    ahci_greet(a);
}

/* HBA reset (10.4.3): the addresses of list and FIS stay. */
static void ahci_reset_hba(struct ahci *a)
{
    struct ahci_port *p = &a->port;
    uint64_t list = p->list, fis = p->fis;

    memset(p, 0, sizeof(*p));
    p->list = list;
    p->fis = fis;
    a->ghc = GHC_AE;
    a->is = 0;
    ahci_reset_drive(a);
    ahci_update_irq(a);
}

/* ---- registers ---- */

static uint32_t ahci_port_read(const struct ahci *a, unsigned off)
{
    const struct ahci_port *p = &a->port;

    switch (off) {
    case PX_CLB:
        return (uint32_t)p->list;
    case PX_CLBU:
        return (uint32_t)(p->list >> 32);
    case PX_FB:
        return (uint32_t)p->fis;
    case PX_FBU:
        return (uint32_t)(p->fis >> 32);
    case PX_IS:
        return ahci_port_is(a);
    case PX_IE:
        return p->ie;
    case PX_CMD:
        return p->cmd | PORT_SUD | PORT_POD | (uint32_t)p->slot << PORT_CCS_SHIFT | (p->cmd & PORT_ST ? (uint32_t)PORT_CR : 0) |
               (p->cmd & PORT_FRE ? (uint32_t)PORT_FR : 0);
    case PX_TFD:
        return p->tfd;
    case PX_SIG:
        return p->ssts == LINK_UP ? SIG_ATAPI : 0xffffffff;
    case PX_SSTS:
        return p->ssts;
    case PX_SCTL:
        return p->sctl;
    case PX_SERR:
        return p->serr;
    case PX_CI:
        return p->ci;
    default:
        return 0;
    }
}

static uint64_t ahci_read(void *dev, uint64_t off, unsigned size)
{
    const struct ahci *a = dev;

    switch (off) {
    case HBA_CAP:
        return CAP_VALUE;
    case HBA_GHC:
        return a->ghc;
    case HBA_IS:
        return a->is;
    case HBA_PI:
        return 1;
    case HBA_VS:
        return VS_VALUE;
    default:
        return off >= HBA_PORT && off < HBA_PORT_END ? ahci_port_read(a, (unsigned)off - HBA_PORT) : 0;
    }
}

static void ahci_write_cmd(struct ahci *a, uint32_t v)
{
    struct ahci_port *p = &a->port;
    uint32_t was = p->cmd;

    p->cmd = v & PX_CMD_BITS;
    if ((was & PORT_ST) && !(v & PORT_ST)) {
        ahci_end_life(a);
        p->ci = 0;
        p->slot = 0;
        p->halted = false;
    }
    if ((v & PORT_CLO) && !(was & PORT_ST))
        p->tfd &= ~(uint32_t)(ATA_BSY | ATA_DRQ);
    if (!(was & PORT_FRE) && (v & PORT_FRE) && p->greeting)
        ahci_store_greeting(a);
    ahci_run(a);
}

/* Only while the port stands (3.3.11). */
static void ahci_write_sctl(struct ahci *a, uint32_t v)
{
    struct ahci_port *p = &a->port;
    unsigned was = p->sctl & 15, now = v & 15;

    p->sctl = v & PX_SCTL_BITS;
    if ((p->cmd & PORT_ST) || was == now)
        return;
    if (now == 1 || now == 4) {
        ahci_end_life(a);
        p->greeting = false;
        p->ssts = now == 1 ? LINK_RESET : LINK_OFF;
        p->tfd = 0x7f | (now == 1 ? ATA_BSY : 0);
    } else if (now == 0) {
        ahci_reset_drive(a);
    }
}

static void ahci_port_write(struct ahci *a, unsigned off, uint32_t v)
{
    struct ahci_port *p = &a->port;

    switch (off) {
    case PX_CLB:
        p->list = bits_set(p->list, 31, 0, v) & LIST_MASK;
        break;
    case PX_CLBU:
        p->list = bits_set(p->list, 63, 32, v);
        break;
    case PX_FB:
        p->fis = bits_set(p->fis, 31, 0, v) & FIS_MASK;
        break;
    case PX_FBU:
        p->fis = bits_set(p->fis, 63, 32, v);
        break;
    case PX_IS:
        p->is &= ~(v & PX_IS_CLEAR);
        break;
    case PX_IE:
        p->ie = v & PX_IE_BITS;
        break;
    case PX_CMD:
        ahci_write_cmd(a, v);
        break;
    case PX_SCTL:
        ahci_write_sctl(a, v);
        break;
    case PX_SERR:
        p->serr &= ~v;
        break;
    case PX_CI:
        if (p->cmd & PORT_ST)
            p->ci |= v;
        ahci_run(a);
        break;
    }
}

static void ahci_write(void *dev, uint64_t off, uint64_t value, unsigned size)
{
    struct ahci *a = dev;
    uint32_t v = (uint32_t)value;

    if (off == HBA_GHC && (v & GHC_HR))
        ahci_reset_hba(a);
    else if (off == HBA_GHC)
        a->ghc = GHC_AE | (v & GHC_IE);
    else if (off == HBA_IS)
        a->is &= ~v;
    else if (off >= HBA_PORT && off < HBA_PORT_END)
        ahci_port_write(a, (unsigned)off - HBA_PORT, v);
    ahci_update_irq(a);
}

static const struct bus_ops ahci_bus_ops = { .read = ahci_read, .write = ahci_write, .min_size = 4, .max_size = 4 };

/* The guest may have let the function master the bus. */
static void ahci_config_write(struct pci_dev *d, unsigned off, unsigned size)
{
    ahci_run(container_of(d, struct ahci, pci));
}

static const struct pci_dev_ops ahci_pci_ops = { .config_write = ahci_config_write };

/* ---- life cycle ---- */

int ahci_init(struct ahci *a, struct block *block, struct loop *loop, struct ram *ram, const char *name)
{
    static const struct pci_ident ident = {
        .vendor = 0x8086,
        .device = 0x2922,
        .subvendor = 0x1af4,
        .subsystem = 0x1100,
        .class_code = 0x01, /* mass storage, SATA, AHCI */
        .subclass = 0x06,
        .prog_if = 0x01,
        .revision = 2,
        .irq_pin = 1,
    };
    int r;

    memset(a, 0, sizeof(*a));
    a->ram = ram;
    a->block = block;
    a->name = name;
    pthread_rwlock_init(&a->dma, NULL);
    atapi_init(&a->atapi, block->size);
    pci_dev_init(&a->pci, name, &ident, &ahci_pci_ops);
    r = pci_dev_add_bar(&a->pci, 5, PCI_BAR_MEM32, false, AHCI_BAR_LEN, &ahci_bus_ops, a);
    ahci_reset_hba(a);
    return r ? r : block_io_create(&a->io, block, BLOCK_AIO_THREADS, loop, ahci_io_done, a);
}

static void ahci_reset(void *dev)
{
    struct ahci *a = dev;

    ahci_reset_hba(a);
    a->port.list = a->port.fis = 0;
    pci_dev_reset(&a->pci);
    ahci_update_irq(a);
}

/* Nothing is under way in a machine that stands. */
static void ahci_pause(void *dev) { block_drain(((struct ahci *)dev)->io); }

static void ahci_resume(void *dev)
{
    struct ahci *a = dev;

    pci_dev_resume(&a->pci);
    ahci_update_irq(a);
    ahci_run(a);
}

static void ahci_destroy(void *dev)
{
    struct ahci *a = dev;

    ahci_end_life(a);
    block_io_destroy(a->io);
    pthread_rwlock_destroy(&a->dma);
    pci_dev_unplug(&a->pci);
}

static int ahci_check(void *obj, struct err *err)
{
    const struct ahci *a = obj;
    const struct ahci_port *p = &a->port;

    if ((a->ghc & ~(GHC_AE | GHC_IE)) || !(a->ghc & GHC_AE) || (a->is & ~1U) || (p->list & ~LIST_MASK) ||
        (p->fis & ~FIS_MASK) || (p->cmd & ~PX_CMD_BITS) || (p->ie & ~PX_IE_BITS) || (p->is & ~PX_IS_CLEAR) ||
        (p->sctl & ~PX_SCTL_BITS) || p->slot > 31 || (p->ci && !(p->cmd & PORT_ST)))
        return err_set(err, EINVAL, "ahci: a register holds what it cannot hold");
    if (p->ssts != LINK_UP && p->ssts != LINK_RESET && p->ssts != LINK_OFF)
        return err_set(err, EINVAL, "ahci: the link is in no state that there is");
    return 0;
}

static const struct state_field ahci_port_fields[] = {
    STATE_F64(struct ahci_port, list),    STATE_F64(struct ahci_port, fis),   STATE_F32(struct ahci_port, is),
    STATE_F32(struct ahci_port, ie),      STATE_F32(struct ahci_port, cmd),   STATE_F32(struct ahci_port, tfd),
    STATE_F32(struct ahci_port, sctl),    STATE_F32(struct ahci_port, ssts),  STATE_F32(struct ahci_port, serr),
    STATE_F32(struct ahci_port, ci),      STATE_F8(struct ahci_port, slot),   STATE_FBOOL(struct ahci_port, halted),
    STATE_FBOOL(struct ahci_port, srst),  STATE_FBOOL(struct ahci_port, greeting),
    STATE_END,
};
static const struct state_desc ahci_port_state = {
    .name = "ahci-port", .version = 1, .size = sizeof(struct ahci_port), .fields = ahci_port_fields
};
static const struct state_field ahci_fields[] = {
    STATE_FSTRUCT(struct ahci, pci, struct pci_dev, pci_dev_state),
    STATE_F32(struct ahci, ghc),
    STATE_F32(struct ahci, is),
    STATE_FSTRUCT(struct ahci, port, struct ahci_port, ahci_port_state),
    STATE_FSTRUCT(struct ahci, atapi, struct atapi, atapi_state),
    STATE_END,
};
static const struct state_desc ahci_state = {
    .name = "ahci", .version = 1, .size = sizeof(struct ahci), .fields = ahci_fields, .check = ahci_check
};

const struct device_ops ahci_ops = {
    .type = "ahci",
    .reset = ahci_reset,
    .pause = ahci_pause,
    .resume = ahci_resume,
    .destroy = ahci_destroy,
    .state = &ahci_state,
};
