/* The display card: a VGA with Bochs' display interface as a PCI function. */
#ifndef VITRO_PCI_DISPLAY_H
#define VITRO_PCI_DISPLAY_H

#include "bus/device.h"
#include "chip/vga.h"
#include "pci/pci.h"

struct display {
    struct pci_dev pci; /* 1234:1111; BAR 0 is the linear frame buffer */
    struct vga vga;
    /* vCPUs see the frame buffer elsewhere now (ram_window): they must forget where it was. May be NULL. Device lock held. */
    void (*moved)(void *opaque);
    void *opaque;
};

extern const struct device_ops display_ops; /* type "display" */

/* ram and vram: see vga_init(). Not plugged yet: pci_dev_plug(&d->pci, ...) follows, and vga_attach(&d->vga, ...). 0 or -errno. */
int display_init(struct display *d, struct ram *ram, uint64_t vram);
/* For a machine without firmware, after a reset: what firmware would have done. The frame buffer goes to gpa, text is on. */
void display_set_up(struct display *d, uint32_t gpa);

#endif
