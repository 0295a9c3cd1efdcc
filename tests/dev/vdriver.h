/* The driver's side of virtio over PCI, for tests: registers by the common configuration's offsets. */
#ifndef VITRO_TESTS_DEV_VDRIVER_H
#define VITRO_TESTS_DEV_VDRIVER_H

#include <stdint.h>

#include "rig.h"
#include "virtio/pci.h"
#include "vring.h"

#define VD_BAR  0xfe000000ULL /* BAR 0: structures; a page each */
#define VD_MSIX 0xfe010000ULL

enum {
    VD_OFFERED_SELECT = 0x00,
    VD_OFFERED = 0x04,
    VD_ACCEPTED_SELECT = 0x08,
    VD_ACCEPTED = 0x0c,
    VD_CONFIG_VECTOR = 0x10,
    VD_QUEUES = 0x12,
    VD_STATUS = 0x14,
    VD_GENERATION = 0x15,
    VD_SELECT = 0x16,
    VD_SIZE = 0x18,
    VD_VECTOR = 0x1a,
    VD_ENABLE = 0x1c,
    VD_NOTIFY_OFF = 0x1e,
    VD_DESC = 0x20,
    VD_DRIVER = 0x28,
    VD_DEVICE = 0x30,
    VD_ISR = 0x1000,
    VD_CONFIG = 0x2000,
    VD_NOTIFY = 0x3000
};

/* Registers of BAR 0. */
uint32_t vd_get(struct rig *rig, unsigned off, unsigned size);
void vd_put(struct rig *rig, unsigned off, uint32_t v, unsigned size);

/* BARs, memory access, bus mastering; with MSI-X, vector n sends interrupt 0x40 + n. */
void vd_plug(struct rig *rig, struct pci_dev *pci, bool msix, unsigned vectors);
/* Reset, ACKNOWLEDGE, DRIVER, features (VERSION_1 is added), FEATURES_OK. True if it stuck. */
bool vd_negotiate(struct rig *rig, uint64_t features);
uint64_t vd_offered(struct rig *rig);
/* Set up queue n for a ring, with vector n + 1, and enable it. */
void vd_queue(struct rig *rig, unsigned n, const struct vring *r);
void vd_go(struct rig *rig);
void vd_kick(struct rig *rig, unsigned n);

#endif
