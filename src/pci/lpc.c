/* Models: the configuration space of the ICH9's LPC bridge, as far as firmware and kernels look at it. The chips
 * behind it (8259, 8254, RTC, power management ...) are where a PC has them, whatever is written here: PMBASE is fixed and
 * power management always on; the routing registers remember what was written, since the interrupts are wired as
 * the ACPI tables say (boot/layout.h); there is no root complex block (RCBA reads as disabled).
 * Source: Intel ICH9 datasheet, 13.1 (LPC interface: PMBASE 40h, ACPI_CNTL 44h, PIRQn_ROUT 60h and 68h, RCBA F0h).
 * Runs on: any thread, under the device lock; takes no lock.
 */
#include "pci/lpc.h"

#include "base/bits.h"
#include "state/state.h"

enum { LPC_PMBASE = 0x40, LPC_ACPI_CNTL = 0x44, LPC_PIRQA = 0x60, LPC_PIRQE = 0x68 };

#define ACPI_ENABLED  0x80
#define PMBASE_IO     1
#define PIRQ_DISABLED 0x80

void lpc_init(struct lpc *l, uint16_t pm_base)
{
    static const struct pci_ident ident = {
        .vendor = 0x8086,
        .device = 0x2918,
        .subvendor = 0x1af4,
        .subsystem = 0x1100,
        .class_code = 0x06, /* bridge, ISA */
        .subclass = 0x01,
        .revision = 2,
    };
    struct pci_dev *d = &l->pci;

    pci_dev_init(d, "lpc", &ident, NULL);
    st_le32(d->config + LPC_PMBASE, pm_base | PMBASE_IO);
    d->config[LPC_ACPI_CNTL] = ACPI_ENABLED;
    for (unsigned n = 0; n < 4; n++) {
        d->config[LPC_PIRQA + n] = d->config[LPC_PIRQE + n] = PIRQ_DISABLED;
        d->wmask[LPC_PIRQA + n] = d->wmask[LPC_PIRQE + n] = 0x8f;
    }
}

static void lpc_reset(void *dev) { pci_dev_reset(&((struct lpc *)dev)->pci); }
static void lpc_resume(void *dev) { pci_dev_resume(&((struct lpc *)dev)->pci); }
static void lpc_destroy(void *dev) { (void)dev; }

static const struct state_field lpc_fields[] = {
    STATE_FSTRUCT(struct lpc, pci, struct pci_dev, pci_dev_state),
    STATE_END,
};
static const struct state_desc lpc_state = {
    .name = "lpc", .version = 1, .size = sizeof(struct lpc), .fields = lpc_fields
};

const struct device_ops lpc_ops = {
    .type = "lpc", .reset = lpc_reset, .resume = lpc_resume, .destroy = lpc_destroy, .state = &lpc_state
};
