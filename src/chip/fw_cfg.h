/* fw_cfg: how firmware asks the machine for files and facts (ports 0x510 to 0x51B). */
#ifndef VITRO_CHIP_FW_CFG_H
#define VITRO_CHIP_FW_CFG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bus/bus.h"
#include "bus/device.h"

struct ram;

#define FW_CFG_PORT 0x510

/* Items with fixed numbers (QEMU docs/specs/fw_cfg.rst and what firmware asks for). */
enum {
    FW_CFG_SIGNATURE = 0x00,
    FW_CFG_ID = 0x01,
    FW_CFG_UUID = 0x02,
    FW_CFG_RAM_SIZE = 0x03,
    FW_CFG_NOGRAPHIC = 0x04,
    FW_CFG_NB_CPUS = 0x05,
    FW_CFG_KERNEL_ADDR = 0x07,
    FW_CFG_KERNEL_SIZE = 0x08,
    FW_CFG_INITRD_ADDR = 0x0a,
    FW_CFG_INITRD_SIZE = 0x0b,
    FW_CFG_BOOT_MENU = 0x0e,
    FW_CFG_MAX_CPUS = 0x0f,
    FW_CFG_KERNEL_DATA = 0x11,
    FW_CFG_INITRD_DATA = 0x12,
    FW_CFG_CMDLINE_ADDR = 0x13,
    FW_CFG_CMDLINE_SIZE = 0x14,
    FW_CFG_CMDLINE_DATA = 0x15,
    FW_CFG_SETUP_ADDR = 0x16,
    FW_CFG_SETUP_SIZE = 0x17,
    FW_CFG_SETUP_DATA = 0x18,
    FW_CFG_DIR = 0x19,
    FW_CFG_FILE_FIRST = 0x20,
};

#define FW_CFG_FILES    32
#define FW_CFG_ITEMS    (FW_CFG_FILE_FIRST + FW_CFG_FILES)
#define FW_CFG_NAME_LEN 56
#define FW_CFG_DIR_LEN  (4 + FW_CFG_FILES * 64)

struct fw_cfg_item {
    const uint8_t *data; /* borrowed, or the copy below */
    uint8_t *copy;       /* owned */
    uint32_t len;
};

struct fw_cfg {
    uint16_t selector;
    uint32_t offset;
    uint32_t dma_high; /* upper half of a descriptor's address, waiting for the lower one */
    /* fixed before the guest runs */
    struct fw_cfg_item item[FW_CFG_ITEMS];
    uint8_t dir[FW_CFG_DIR_LEN];
    unsigned nfiles;
    struct ram *ram;
    void (*refresh)(void *opaque); /* the guest selected the file directory: items may be replaced */
    void *opaque;
    struct bus_region ports;
};

extern const struct device_ops fw_cfg_ops; /* type "fw-cfg" */

/* ram is where DMA goes to; borrowed. */
void fw_cfg_init(struct fw_cfg *f, struct ram *ram);
int fw_cfg_attach(struct fw_cfg *f, struct bus *io);

/* Have the item with this number hold the len bytes at data, borrowed (a kernel) or copied. An item may be
 * replaced. 0, -EINVAL (no such number) or -ENOMEM. */
int fw_cfg_borrow(struct fw_cfg *f, unsigned key, const void *data, uint32_t len);
int fw_cfg_set(struct fw_cfg *f, unsigned key, const void *data, uint32_t len);
int fw_cfg_set_int(struct fw_cfg *f, unsigned key, uint64_t value, unsigned size);

/* The same for a file with a name of at most 55 characters; an existing one is replaced. -ENOSPC: too many. */
int fw_cfg_set_file(struct fw_cfg *f, const char *name, const void *data, uint32_t len);

/* Call fn whenever the guest has selected the directory, before it reads it: what depends on how firmware has set
 * up the machine is made then. Device lock held. */
void fw_cfg_on_directory(struct fw_cfg *f, void (*fn)(void *opaque), void *opaque);

#endif
