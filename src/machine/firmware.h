/* Firmware in a machine: its ROM and flash, fw_cfg, debug console. Part of struct vm. */
#ifndef VITRO_MACHINE_FIRMWARE_H
#define VITRO_MACHINE_FIRMWARE_H

#include "block/image.h"
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
    struct image_draft draft; /* that file, if it is still to be made; path NULL: none */
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

/* pc_vars.c: open the file of the variables, if there shall be one; with disks_late it only is looked at. */
int pc_vars_open(struct vm *vm, struct err *err);
/* A pflash_store_fn. */
int pc_vars_store(void *opaque, uint32_t off, const uint8_t *data, uint32_t len);
/* The chip has got its contents from elsewhere, with disks_late: a file that holds others is refused unless it may be replaced. */
int pc_vars_arrive(struct vm *vm, bool replace, struct err *err);
/* The lock, and the file has what the chip has; and give the lock up. */
int pc_vars_take(struct vm *vm, struct err *err);
void pc_vars_give(struct vm *vm);
/* The chip has got its contents from elsewhere: so has the file, durably. */
int pc_vars_settle(struct vm *vm, struct err *err);
int pc_vars_flush(struct vm *vm, struct err *err);
void pc_vars_close(struct vm *vm);

#endif
