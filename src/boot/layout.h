/* The guest-physical memory map and the fixed ports and interrupts of the `pc` machine.
 *
 * One place for the numbers that both the tables (ACPI, SMBIOS, e820) and the wiring of the
 * machine need: what a table promises is where the chip really is. All addresses are
 * guest-physical, all sizes bytes.
 *
 *   0000_0000  RAM up to 640 KiB; boot data of a kernel below 0003_0000
 *   000a_0000  legacy video window (no RAM)
 *   000c_0000  RAM: option ROM space; 000e_0000 ACPI tables; 000f_0000 SMBIOS tables
 *   0010_0000  RAM up to at most b000_0000
 *   b000_0000  ECAM (PCI configuration space), buses 0 to 255; firmware may move it
 *   c000_0000  window for 32-bit PCI BARs
 *   fd00_0000  16 MiB: memory of the display card, if there is one; SeaBIOS puts its frame buffer there
 *   fec0_0000  IO-APIC; fed0_0000 HPET; fee0_0000 local APICs
 *   feff_b000  one page of ROM: the VM generation ID
 *   ff00_0000  firmware, if there is one: its image ends at 4 GiB
 * 1_0000_0000  the rest of RAM, then the window for 64-bit PCI BARs
 */
#ifndef VITRO_BOOT_LAYOUT_H
#define VITRO_BOOT_LAYOUT_H

#include <stdint.h>

#define LAYOUT_4G        0x100000000ULL
#define LAYOUT_EBDA      0x9fc00ULL /* extended BIOS data area: the last KiB below 640 KiB */
#define LAYOUT_VGA_BASE  0xa0000ULL
#define LAYOUT_VGA_END   0xc0000ULL
#define LAYOUT_BIOS_BASE 0xe0000ULL /* ACPI tables, then SMBIOS; reserved in the e820 map */
#define LAYOUT_SMBIOS    0xf0000ULL
#define LAYOUT_BIOS_END  0x100000ULL

#define LAYOUT_LOW_RAM_MAX 0xb0000000ULL /* RAM below 4 GiB ends here at the latest */
#define LAYOUT_PCI32_BASE  0xc0000000ULL
#define LAYOUT_PCI32_SIZE  0x3ec00000ULL /* up to the I/O APIC */
#define LAYOUT_VRAM        0xfd000000ULL /* SeaBIOS fills that space from above, without firmware we do the same */
#define LAYOUT_VRAM_OVMF   LAYOUT_PCI32_BASE /* OVMF begins with the largest BAR, which is this */
#define LAYOUT_ECAM_BASE   0xb0000000ULL /* where SeaBIOS puts it on a Q35 board */
#define LAYOUT_ECAM_SIZE   0x10000000ULL /* 1 MiB a bus, 256 buses */
#define LAYOUT_IOAPIC      0xfec00000ULL
#define LAYOUT_HPET        0xfed00000ULL
#define LAYOUT_HPET_SIZE   0x400ULL
#define LAYOUT_HPET_ID                                                                                       \
    0x8086a201 /* low half of its capability register: rev 1, 3 timers, 64 bits, legacy routes */
#define LAYOUT_LAPIC      0xfee00000ULL
#define LAYOUT_VMGENID                                                                                       \
    0xfeffb000ULL /* one page of ROM with the VM generation ID: outside of what firmware uses */
#define LAYOUT_VMGENID_SIZE 0x1000ULL
#define LAYOUT_KVM_PAGES  0xfeffc000ULL /* 4 pages that KVM wants for itself; nothing else there */
#define LAYOUT_KVM_SIZE   0x4000ULL
#define LAYOUT_FLASH_BASE 0xff000000ULL  /* firmware images end at 4 GiB */
#define LAYOUT_PCI64_SIZE 0x800000000ULL /* 32 GiB */

/* Ports. */
#define LAYOUT_PM_BASE        0x600 /* PM1a event block: status and enable, 4 bytes */
#define LAYOUT_PM1_CNT        0x604 /* PM1a control, 2 bytes */
#define LAYOUT_PM_TMR         0x608 /* PM timer, 4 bytes, 24 bits counting (FADT TMR_VAL_EXT is clear) */
#define LAYOUT_GPE0           0x620 /* GPE0 status and enable, 4 bytes */
#define LAYOUT_VMGENID_ASKED  0x628 /* written when the generation ID's address is asked for, 1 byte */
#define LAYOUT_PM_LEN         0x80  /* 0x600..0x67f belongs to power management: what an ICH9 decodes there. All of it must be told, else Linux
                                       * says that the board resources overlap a BAR of the LPC bridge */
#define LAYOUT_SMI_CMD        0xb2
#define LAYOUT_ACPI_ENABLE    0xf1 /* written to SMI_CMD: sets SCI_EN */
#define LAYOUT_ACPI_DISABLE   0xf0
#define LAYOUT_RESET_PORT     0xcf9
#define LAYOUT_RESET_VALUE    0x06
#define LAYOUT_S5_TYP         5 /* SLP_TYPa value that \_S5 announces */
#define LAYOUT_PVPANIC        0x505
#define LAYOUT_PVPANIC_EVENTS 0x3

#define LAYOUT_GPE_VMGENID 5 /* general-purpose event: the generation ID has changed */

/* Global system interrupts (IO-APIC pins). */
#define LAYOUT_GSI_SCI   9  /* level, active high */
#define LAYOUT_GSI_PCI   16 /* 16..19: PCI INTA..INTD, see layout_pci_gsi(); level, active high */
#define LAYOUT_IOAPIC_ID 0  /* the id register's reset value */

/* RAM is split at the hole: the parts below and above 4 GiB of total bytes. */
static inline uint64_t layout_below_4g(uint64_t total)
{
    return total < LAYOUT_LOW_RAM_MAX ? total : LAYOUT_LOW_RAM_MAX;
}

static inline uint64_t layout_above_4g(uint64_t total) { return total - layout_below_4g(total); }

/* Base of the window for 64-bit BARs, for above bytes of RAM above 4 GiB: the next multiple of
 * 32 GiB, so that it fits 36 address bits with up to 28 GiB of such RAM. */
static inline uint64_t layout_pci64_base(uint64_t above)
{
    uint64_t end = LAYOUT_4G + above;
    return (end + (LAYOUT_PCI64_SIZE - 1)) & ~(LAYOUT_PCI64_SIZE - 1);
}

/* The GSI that pin 0..3 (INTA..INTD) of the function in slot 0..31 of bus 0 drives; what _PRT says. */
static inline unsigned layout_pci_gsi(unsigned slot, unsigned pin)
{
    return LAYOUT_GSI_PCI + ((slot + pin) & 3); /* the host bridge has four lines */
}

/* The 8259 line that the same pin drives while the guest uses the PICs (register 3C of the function). */
static inline unsigned layout_pci_pic_irq(unsigned slot, unsigned pin)
{
    static const uint8_t line[4] = { 10, 11, 10, 11 };
    return line[(slot + pin) & 3];
}

#endif
