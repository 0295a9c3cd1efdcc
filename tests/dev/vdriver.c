/* The driver's side of virtio over PCI, see vdriver.h. One thread; register accesses take the device lock. */
#include "vdriver.h"

uint32_t vd_get(struct rig *rig, unsigned off, unsigned size)
{
    return (uint32_t)bus_read(&rig->mmio, VD_BAR + off, size);
}

void vd_put(struct rig *rig, unsigned off, uint32_t v, unsigned size)
{
    bus_write(&rig->mmio, VD_BAR + off, v, size);
}

void vd_plug(struct rig *rig, struct pci_dev *pci, bool msix, unsigned vectors)
{
    pci_dev_config_write(pci, PCI_BAR0, (uint32_t)VD_BAR, 4);
    pci_dev_config_write(pci, PCI_BAR0 + 4, (uint32_t)VD_MSIX, 4);
    pci_dev_config_write(pci, PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER, 2);
    if (!msix)
        return;
    unsigned cap = pci->config[PCI_CAP_POINTER];
    while (pci->config[cap] != PCI_CAP_ID_MSIX)
        cap = pci->config[cap + 1];
    for (unsigned v = 0; v < vectors; v++) {
        bus_write(&rig->mmio, VD_MSIX + 16 * v, 0xfee00000, 4);
        bus_write(&rig->mmio, VD_MSIX + 16 * v + 8, 0x40 + v, 4);
        bus_write(&rig->mmio, VD_MSIX + 16 * v + 12, 0, 4);
    }
    pci_dev_config_write(pci, cap + 2, 0x8000, 2);
}

uint64_t vd_offered(struct rig *rig)
{
    vd_put(rig, VD_OFFERED_SELECT, 0, 4);
    uint64_t low = vd_get(rig, VD_OFFERED, 4);
    vd_put(rig, VD_OFFERED_SELECT, 1, 4);
    return low | (uint64_t)vd_get(rig, VD_OFFERED, 4) << 32;
}

bool vd_negotiate(struct rig *rig, uint64_t features)
{
    features |= VIRTIO_F_VERSION_1;
    vd_put(rig, VD_STATUS, 0, 1);
    vd_put(rig, VD_STATUS, VIRTIO_ACKNOWLEDGE, 1);
    vd_put(rig, VD_STATUS, VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER, 1);
    vd_put(rig, VD_ACCEPTED_SELECT, 0, 4);
    vd_put(rig, VD_ACCEPTED, (uint32_t)features, 4);
    vd_put(rig, VD_ACCEPTED_SELECT, 1, 4);
    vd_put(rig, VD_ACCEPTED, (uint32_t)(features >> 32), 4);
    vd_put(rig, VD_STATUS, VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER | VIRTIO_FEATURES_OK, 1);
    return vd_get(rig, VD_STATUS, 1) & VIRTIO_FEATURES_OK;
}

void vd_queue(struct rig *rig, unsigned n, const struct vring *r)
{
    const uint64_t area[] = { r->desc, r->driver, r->device };

    vd_put(rig, VD_SELECT, n, 2);
    vd_put(rig, VD_SIZE, r->size, 2);
    vd_put(rig, VD_VECTOR, n + 1, 2);
    for (unsigned i = 0; i < 3; i++) {
        vd_put(rig, VD_DESC + 8 * i, (uint32_t)area[i], 4);
        vd_put(rig, VD_DESC + 8 * i + 4, (uint32_t)(area[i] >> 32), 4);
    }
    vd_put(rig, VD_ENABLE, 1, 2);
}

void vd_go(struct rig *rig)
{
    vd_put(rig, VD_STATUS, VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER | VIRTIO_FEATURES_OK | VIRTIO_DRIVER_OK, 1);
}

void vd_kick(struct rig *rig, unsigned n) { vd_put(rig, VD_NOTIFY + 4 * n, n, 2); }
