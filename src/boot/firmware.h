/* What the machine gives to firmware (SeaBIOS, OVMF) instead of loading a kernel itself: the image, and tables in
 * the form of fw_cfg files.
 *
 * Threads: as boot.h.
 */
#ifndef VITRO_BOOT_FIRMWARE_H
#define VITRO_BOOT_FIRMWARE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct boot_config;
struct err;

struct boot_blob {
    uint8_t *data; /* owned */
    size_t len;
};

void boot_blob_free(struct boot_blob *b);

/* An image of firmware, and what its variables start as if it has any: flash directly below the image. */
struct boot_firmware {
    struct boot_blob rom, vars;
};

#define BOOT_ROM_MIN (64UL << 10)
#define BOOT_ROM_MAX (16UL << 20)

/* name is "seabios", "ovmf" or a file. Whole pages, BOOT_ROM_MIN to BOOT_ROM_MAX. 0, or -errno with a sentence in err and
 * nothing to free. */
int boot_firmware_open(struct boot_firmware *f, const char *name, struct err *err);
/* The video BIOS of SeaBIOS for Bochs' VGA, which boot_firmware.rom runs when it gets it as a file. 0, or -errno with a sentence. */
int boot_vgabios_open(struct boot_blob *b, struct err *err);
void boot_firmware_close(struct boot_firmware *f);

/* Files in fw_cfg. */
struct boot_fw_files {
    struct boot_blob e820, rsdp, acpi, loader, smbios_anchor, smbios;
};

/* Build them all. 0, or -errno with a sentence in err and nothing to free. */
int boot_fw_files_make(struct boot_fw_files *f, const struct boot_config *cfg, struct err *err);
void boot_fw_files_free(struct boot_fw_files *f);

/* A kernel in parts, for fw_cfg, and an option ROM with which a BIOS starts it. */
struct boot_fw_kernel {
    struct boot_blob setup, cmdline, rom;
    const uint8_t *kernel; /* points into the kernel's image */
    size_t kernel_len;
    uint64_t initrd; /* where a BIOS puts the initrd; 0: none */
    size_t initrd_len;
};

/* cfg says kernel, initrd, command line and memory. 0, or -errno with a sentence in err and nothing to free. */
int boot_fw_kernel_make(struct boot_fw_kernel *k, const struct boot_config *cfg, struct err *err);
void boot_fw_kernel_free(struct boot_fw_kernel *k);

#endif
