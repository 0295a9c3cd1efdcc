/* Firmware in a machine: its ROM and flash, fw_cfg, debug console. Part of struct vm. */
#ifndef VITRO_MACHINE_FIRMWARE_H
#define VITRO_MACHINE_FIRMWARE_H

#include "boot/firmware.h"
#include "chip/debugcon.h"
#include "chip/fw_cfg.h"
#include "chip/pflash.h"

struct err;
struct vm;

struct vm_firmware {
    struct boot_firmware image; /* empty without --firmware */
    struct boot_blob vgabios;   /* empty without a display, and for UEFI */
    struct fw_cfg fw_cfg;
    struct debugcon debugcon;
    struct pflash flash;
    int vars_fd; /* the file that keeps the variables; -1: none */
};

/* Before anything that may fail. */
void pc_firmware_prepare(struct vm *vm);
/* Read the files of --firmware, open that of the variables. */
int pc_firmware_open(struct vm *vm, struct err *err);
/* Memory for the ROM, before the engine. */
int pc_firmware_init_ram(struct vm *vm);
/* Chips, after PCI. */
int pc_firmware_wire(struct vm *vm);
/* Files, once all devices are there. */
int pc_firmware_fill(struct vm *vm, struct err *err);
/* Power on: the ROM's lower alias is fresh. The machine's thread, no vCPU runs. */
int pc_firmware_reset(struct vm *vm, struct err *err);
void pc_firmware_close(struct vm *vm);

#endif
