/* Models: the PCI side of a VGA card, with the numbers under which drivers know Bochs' VGA (1234:1111).
 * Source: PCI Local Bus 3.0, 6.2.1 (class 03 00 00: a VGA, which also has the legacy ports and memory).
 * Runs on: any thread, under the device lock; takes no lock.
 *
 * The legacy ports and memory answer whatever the command register says: there is no second card to make room for. The video BIOS
 * is not in a ROM of the card: firmware gets it as a file.
 */
#include "pci/display.h"

#include "base/bits.h"

/* vCPUs reach the frame buffer as memory where its BAR is. */
static void display_follow(struct display *d)
{
    const struct bus_region *bar = &d->pci.bar[0].region;
    struct ram_window *w = &d->vga.ram->window;
    uint64_t at = bar->enabled ? bar->base : RAM_UNSEEN;

    if (!w->size || w->gpa != d->vga.vram || atomic_exchange(&w->at, at) == at)
        return;
    if (d->moved)
        d->moved(d->opaque);
}

static void display_config_write(struct pci_dev *pci, unsigned off, unsigned size)
{
    (void)off;
    (void)size;
    display_follow(container_of(pci, struct display, pci));
}

static const struct pci_dev_ops display_pci_ops = { .config_write = display_config_write };

int display_init(struct display *d, struct ram *ram, uint64_t vram)
{
    static const struct pci_ident ident = {
        .vendor = 0x1234,
        .device = 0x1111,
        .subvendor = 0x1af4,
        .subsystem = 0x1100,
        .class_code = 0x03, /* display, VGA */
        .revision = 2,
    };

    *d = (struct display){ 0 };
    vga_init(&d->vga, ram, vram);
    pci_dev_init(&d->pci, "display", &ident, &display_pci_ops);
    return pci_dev_add_bar(&d->pci, 0, PCI_BAR_MEM32, true, VGA_VRAM, &vga_linear_bus, &d->vga);
}

void display_set_up(struct display *d, uint32_t gpa)
{
    pci_dev_config_write(&d->pci, PCI_BAR0, gpa, 4);
    pci_dev_config_write(&d->pci, PCI_COMMAND, PCI_COMMAND_IO | PCI_COMMAND_MEMORY, 2);
    vga_set_text(&d->vga);
}

static void display_reset(void *dev)
{
    struct display *d = dev;

    pci_dev_reset(&d->pci);
    display_follow(d);
    vga_reset(&d->vga);
}

static void display_resume(void *dev)
{
    struct display *d = dev;

    pci_dev_resume(&d->pci);
    display_follow(d);
}

static void display_destroy(void *dev) { pci_dev_unplug(&((struct display *)dev)->pci); }

static const struct state_field display_fields[] = {
    STATE_FSTRUCT(struct display, pci, struct pci_dev, pci_dev_state),
    STATE_FSTRUCT(struct display, vga, struct vga, vga_state),
    STATE_END,
};
static const struct state_desc display_state = {
    .name = "display", .version = 1, .size = sizeof(struct display), .fields = display_fields
};

const struct device_ops display_ops = {
    .type = "display",
    .reset = display_reset,
    .resume = display_resume,
    .destroy = display_destroy,
    .state = &display_state,
};
