/* The DSDT: what the guest finds on the board beyond what fixed tables say.
 *
 * Source: ACPI 6.4: 6.1 and 6.2 (device objects), 7.4.2.5 (_S5), 5.8.1 (_PIC), 6.2.13 (_PRT),
 * 6.2.11.3 (_OSC for PCI); PCI Firmware Specification 3.2, 4.1.2 (ECAM ranges are reserved by a
 * PNP0C02 device) and 4.5 (_OSC bits); QEMU docs/specs/pvpanic.rst;
 * 5.6.4.1 (_GPE methods).
 * Runs on the thread that builds the machine; no state.
 */
#include "boot/aml.h"
#include "boot/parts.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PCI_SLOTS 32

/* A device with an EISA id; the caller adds _CRS and closes it. */
static void dsdt_device(struct aml *a, const char *name, const char *hid)
{
    aml_device(a, name);
    aml_name_eisaid(a, "_HID", hid);
}

static void dsdt_crs(struct aml *a)
{
    aml_name(a, "_CRS");
    aml_res_open(a);
}

static void dsdt_end(struct aml *a)
{
    aml_res_close(a);
    aml_close(a);
}

static void dsdt_com(struct aml *a, const char *name, unsigned uid, uint16_t port, unsigned irq)
{
    dsdt_device(a, name, "PNP0501");
    aml_name_int(a, "_UID", uid);
    dsdt_crs(a);
    aml_res_io(a, port, 8);
    aml_res_irq(a, irq);
    dsdt_end(a);
}

static void dsdt_i8042(struct aml *a)
{
    dsdt_device(a, "KBD", "PNP0303");
    dsdt_crs(a);
    aml_res_io(a, 0x60, 1);
    aml_res_io(a, 0x64, 1);
    aml_res_irq(a, 1);
    dsdt_end(a);
    dsdt_device(a, "MOU", "PNP0F13");
    dsdt_crs(a);
    aml_res_irq(a, 12);
    dsdt_end(a);
}

/* Interrupt controller, timer, clock. */
static void dsdt_legacy(struct aml *a)
{
    dsdt_device(a, "PIC", "PNP0000");
    dsdt_crs(a);
    aml_res_io(a, 0x20, 2);
    aml_res_io(a, 0xa0, 2);
    aml_res_irq(a, 2);
    dsdt_end(a);
    dsdt_device(a, "PIT", "PNP0100");
    dsdt_crs(a);
    aml_res_io(a, 0x40, 4);
    aml_res_irq(a, 0);
    dsdt_end(a);
    dsdt_device(a, "RTC", "PNP0B00");
    dsdt_crs(a);
    aml_res_io(a, 0x70, 2);
    aml_res_irq(a, 8);
    dsdt_end(a);
}

static void dsdt_hpet(struct aml *a)
{
    dsdt_device(a, "HPET", "PNP0103");
    dsdt_crs(a);
    aml_res_memory32(a, LAYOUT_HPET, LAYOUT_HPET_SIZE);
    dsdt_end(a);
}

static void dsdt_pvpanic(struct aml *a)
{
    aml_device(a, "PEVT");
    aml_name_string(a, "_HID", "QEMU0001");
    aml_name_int(a, "_STA", 0xf);
    dsdt_crs(a);
    aml_res_io(a, LAYOUT_PVPANIC, 1);
    dsdt_end(a);
}

/* The generation ID; its address in two halves (Microsoft, "Virtual Machine Generation ID"). Drivers know it
 * by its _CID; a _HID must have the form that 6.1.5 asks for. Who asks for the address is a driver: the board hears of it. */
static void dsdt_vmgenid(struct aml *a)
{
    aml_device(a, "VGEN");
    aml_name_string(a, "_HID", "VTRO0001");
    aml_name(a, "_CID");
    aml_package(a, 2);
    aml_string(a, "VM_Gen_Counter");
    aml_string(a, "VMGENCTR");
    aml_close(a);
    aml_name_string(a, "_DDN", "VM_Gen_Counter");
    aml_port(a, "ASKR", LAYOUT_VMGENID_ASKED, "ASKD");
    aml_method(a, "ADDR", 0, false);
    aml_op(a, AML_STORE);
    aml_int(a, 1);
    aml_path(a, "ASKD");
    aml_return(a);
    aml_package(a, 2);
    aml_int(a, (uint32_t)LAYOUT_VMGENID);
    aml_int(a, LAYOUT_VMGENID >> 32);
    aml_close(a);
    aml_close(a);
    aml_close(a);
}

/* \_GPE: what the general-purpose events mean. Edge: the status bit is cleared before the method runs. */
static void dsdt_gpe(struct aml *a)
{
    char name[8];

    aml_scope(a, "\\_GPE");
    snprintf(name, sizeof(name), "_E%02X", LAYOUT_GPE_VMGENID);
    aml_method(a, name, 0, false);
    aml_op(a, AML_NOTIFY);
    aml_path(a, "\\_SB.VGEN");
    aml_int(a, 0x80);
    aml_close(a);
    aml_close(a);
}

/* Ports and memory that belong to the board: nobody may put a device there. */
static void dsdt_board(struct aml *a, const struct boot_config *cfg)
{
    dsdt_device(a, "MBRD", "PNP0C02");
    aml_name_int(a, "_UID", 1);
    dsdt_crs(a);
    aml_res_io(a, LAYOUT_PM_BASE, LAYOUT_PM_LEN);
    aml_res_io(a, LAYOUT_SMI_CMD, 2);
    aml_res_memory32(a, (uint32_t)boot_ecam(cfg), LAYOUT_ECAM_SIZE);
    dsdt_end(a);
}

/* The windows for 32-bit BARs: all of the hole but the ECAM, if firmware put it there. */
static void dsdt_pci_windows(struct aml *a, const struct boot_config *cfg)
{
    uint64_t start = LAYOUT_PCI32_BASE, end = start + LAYOUT_PCI32_SIZE, ecam = boot_ecam(cfg);

    if (ecam >= start && ecam < end) {
        if (ecam > start)
            aml_res_memory32_window(a, (uint32_t)start, (uint32_t)ecam - 1);
        start = ecam + LAYOUT_ECAM_SIZE;
    }
    if (start < end)
        aml_res_memory32_window(a, (uint32_t)start, (uint32_t)end - 1);
}

static void dsdt_pci_crs(struct aml *a, const struct boot_config *cfg)
{
    uint64_t base64 = layout_pci64_base(cfg->mem_above_4g);

    dsdt_crs(a);
    aml_res_bus_window(a, 0, 255);
    aml_res_io(a, 0xcf8, 8);
    aml_res_io_window(a, 0, 0xcf7);
    aml_res_io_window(a, 0xd00, 0xffff);
    aml_res_memory32_window(a, LAYOUT_VGA_BASE, LAYOUT_VGA_END - 1);
    dsdt_pci_windows(a, cfg);
    aml_res_memory64_window(a, base64, base64 + LAYOUT_PCI64_SIZE - 1);
    aml_res_close(a);
}

/* One routing table: pins of all slots to fixed global interrupts. */
static void dsdt_pci_routes(struct aml *a, const char *name, unsigned (*gsi)(unsigned slot, unsigned pin))
{
    aml_name(a, name);
    aml_package(a, PCI_SLOTS * 4);
    for (unsigned slot = 0; slot < PCI_SLOTS; slot++) {
        for (unsigned pin = 0; pin < 4; pin++) {
            aml_package(a, 4);
            aml_int(a, slot << 16 | 0xffff);
            aml_int(a, pin);
            aml_int(a, 0);
            aml_int(a, gsi(slot, pin));
            aml_close(a);
        }
    }
    aml_close(a);
}

/* _PRT: the table for the IO-APIC or for the 8259s, as \_PIC was told. */
static void dsdt_pci_prt(struct aml *a)
{
    dsdt_pci_routes(a, "PRTA", layout_pci_gsi);
    dsdt_pci_routes(a, "PRTP", layout_pci_pic_irq);
    aml_method(a, "_PRT", 0, false);
    aml_if(a);
    aml_path(a, "\\PICF");
    aml_return(a);
    aml_path(a, "PRTA");
    aml_close(a);
    aml_return(a);
    aml_path(a, "PRTP");
    aml_close(a);
}

/* Store(Or(CDW1, bits), CDW1) */
static void dsdt_osc_fail(struct aml *a, unsigned bits)
{
    aml_op(a, AML_OR);
    aml_path(a, "CDW1");
    aml_int(a, bits);
    aml_path(a, "CDW1");
}

/* _OSC: the operating system may control the PCI Express capability structure; there are no
 * root ports, hence neither hotplug, PME nor AER services to hand over. */
static void dsdt_pci_osc(struct aml *a)
{
    static const uint8_t uuid[16] = { 0x5b, 0x4d, 0xdb, 0x33, 0xf7, 0x1f, 0x1c, 0x40,
                                      0x96, 0x57, 0x74, 0x41, 0xc0, 0x3d, 0xd7, 0x66 };

    aml_method(a, "_OSC", 4, true);
    aml_op(a, AML_DWORD_FIELD);
    aml_arg(a, 3);
    aml_int(a, 0);
    aml_path(a, "CDW1");
    aml_if(a);
    aml_op(a, AML_LEQUAL);
    aml_arg(a, 0);
    aml_bytes(a, "\x11\x13\x0a\x10", 4); /* Buffer (16) */
    aml_bytes(a, uuid, sizeof(uuid));
    aml_op(a, AML_DWORD_FIELD);
    aml_arg(a, 3);
    aml_int(a, 8);
    aml_path(a, "CDW3");
    aml_if(a);
    aml_op(a, AML_LNOT);
    aml_op(a, AML_LEQUAL);
    aml_arg(a, 1);
    aml_int(a, 1);
    dsdt_osc_fail(a, 0x08); /* unknown revision */
    aml_close(a);
    aml_if(a);
    aml_op(a, AML_LNOT);
    aml_op(a, AML_LEQUAL);
    aml_op(a, AML_AND);
    aml_path(a, "CDW3");
    aml_int(a, 0x10);
    aml_byte(a, 0); /* no target */
    aml_path(a, "CDW3");
    dsdt_osc_fail(a, 0x10); /* capabilities were masked */
    aml_close(a);
    aml_op(a, AML_AND);
    aml_path(a, "CDW3");
    aml_int(a, 0x10);
    aml_path(a, "CDW3");
    aml_close(a);
    aml_else(a);
    dsdt_osc_fail(a, 0x04); /* unknown UUID */
    aml_close(a);
    aml_return(a);
    aml_arg(a, 3);
    aml_close(a);
}

static void dsdt_pci(struct aml *a, const struct boot_config *cfg)
{
    dsdt_device(a, "PCI0", "PNP0A08");
    aml_name_eisaid(a, "_CID", "PNP0A03");
    aml_name_int(a, "_UID", 0);
    aml_name_int(a, "_SEG", 0);
    aml_name_int(a, "_BBN", 0);
    dsdt_pci_crs(a, cfg);
    dsdt_pci_prt(a);
    dsdt_pci_osc(a);
    dsdt_com(a, "COM1", 1, 0x3f8, 4);
    dsdt_com(a, "COM2", 2, 0x2f8, 3);
    dsdt_i8042(a);
    dsdt_legacy(a);
    dsdt_pvpanic(a);
    aml_close(a);
}

/* One processor device a CPU; _UID is what the MADT calls the processor's UID. */
static void dsdt_cpus(struct aml *a, unsigned cpus)
{
    for (unsigned i = 0; i < cpus; i++) {
        char name[5] = { 'C', 0, 0, 0, 0 };
        static const char hex[] = "0123456789ABCDEF";
        for (unsigned d = 0; d < 3; d++)
            name[1 + d] = hex[i >> (8 - 4 * d) & 0xf];
        aml_device(a, name);
        aml_name_string(a, "_HID", "ACPI0007");
        aml_name_int(a, "_UID", i);
        aml_close(a);
    }
}

/* What is outside of \_SB: sleep state, interrupt model. */
static void dsdt_root(struct aml *a)
{
    aml_name(a, "\\_S5");
    aml_package(a, 4);
    aml_int(a, LAYOUT_S5_TYP);
    aml_int(a, LAYOUT_S5_TYP);
    aml_int(a, 0);
    aml_int(a, 0);
    aml_close(a);
    aml_name_int(a, "\\PICF", 0);
    aml_method(a, "\\_PIC", 1, false);
    aml_op(a, AML_STORE);
    aml_arg(a, 0);
    aml_path(a, "\\PICF");
    aml_close(a);
}

int dsdt_build(const struct boot_config *cfg, uint8_t **out, size_t *len)
{
    struct aml a;
    uint8_t header[36] = { 0 };

    aml_init(&a);
    aml_bytes(&a, header, sizeof(header));
    dsdt_root(&a);
    aml_scope(&a, "\\_SB");
    dsdt_pci(&a, cfg);
    dsdt_board(&a, cfg);
    dsdt_hpet(&a);
    dsdt_vmgenid(&a);
    dsdt_cpus(&a, cfg->cpus);
    aml_close(&a);
    dsdt_gpe(&a);
    if (a.failed) {
        aml_fini(&a);
        return -ENOMEM;
    }
    acpi_header(a.data, "DSDT", 2, (uint32_t)a.len);
    *out = a.data;
    *len = a.len;
    return 0;
}
