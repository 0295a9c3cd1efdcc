/* The wiring of firmware: the image below 4 GiB with its flash, the copy below 1 MiB, and what fw_cfg tells.
 *
 * A PC shows the last 128 KiB of its ROM at 0xE0000 too, until firmware has switched RAM in (PAM registers) and copied
 * itself there. Here RAM is there from the start, filled with the copy, and stays writable: to firmware that is a
 * board on which the registers have no effect that it would notice.
 *
 * Threads: all but the reset while no other thread knows the machine; the tables are made again on a vCPU's thread
 * under the device lock when firmware looks for them, since it may have moved the ECAM by then.
 */
#include "machine/firmware.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/log.h"
#include "boot/layout.h"
#include "machine/vm.h"

/* CMOS cells in which SeaBIOS looks (facts from its sources: rtc.h). */
enum { CMOS_EQUIPMENT = 0x14, CMOS_BOOT_ORDER = 0x3d, CMOS_CPUS = 0x5f };

/* SeaBIOS takes the file of this name for the ROM of the display card. */
#define DISPLAY_ROM "pci1234,1111.rom"
#define KERNEL_ROM "genroms/vitro-linux.bin"

static bool pc_has_firmware(const struct vm *vm) { return vm->cfg->firmware != NULL; }

int pc_firmware_open(struct vm *vm, struct err *err)
{
    struct vm_firmware *fw = &vm->firmware;
    int r = pc_has_firmware(vm) ? boot_firmware_open(&fw->image, vm->cfg->firmware, err) : 0;

    if (r == 0 && vm->cfg->vga && pc_has_firmware(vm) && strcmp(vm->cfg->firmware, "ovmf"))
        r = boot_vgabios_open(&fw->vgabios, err);
    if (r == 0)
        r = pc_vars_open(vm, err);
    if (r == 0 && fw->image.vars.len > PFLASH_MAX)
        return err_set(err, EINVAL, "firmware %s: its variables are larger than 1 MiB", vm->cfg->firmware);
    return r;
}

/* ---- memory and chips ---- */

int pc_firmware_init_ram(struct vm *vm)
{
    const struct boot_blob *rom = &vm->firmware.image.rom;
    int r;

    if (!pc_has_firmware(vm))
        return 0;
    r = ram_add_slot(&vm->ram, LAYOUT_4G - rom->len, rom->len, true);
    return r < 0 ? r : ram_load(&vm->ram, LAYOUT_4G - rom->len, rom->data, rom->len);
}

static void pc_on_debug_line(void *opaque, const char *line) { log_msg(LOG_INFO, "trace: firmware: %s", line); }

static int pc_wire_flash(struct vm *vm)
{
    struct vm_firmware *fw = &vm->firmware;
    const struct boot_blob *vars = &fw->image.vars;
    int r;

    if (!vars->data)
        return 0;
    r = pflash_init(&fw->flash, vars->data, (uint32_t)vars->len, vm->cfg->firmware_vars ? pc_vars_store : NULL, fw);
    if (r < 0)
        return r;
    pc_add_device(vm, &pflash_ops, &fw->flash, 0);
    return pflash_attach(&fw->flash, &vm->mmio, LAYOUT_4G - fw->image.rom.len - vars->len);
}

int pc_firmware_wire(struct vm *vm)
{
    struct vm_firmware *fw = &vm->firmware;
    int r;

    fw_cfg_init(&fw->fw_cfg, &vm->ram);
    pc_add_device(vm, &fw_cfg_ops, &fw->fw_cfg, 0);
    r = fw_cfg_attach(&fw->fw_cfg, &vm->io);
    if (r == 0)
        r = pc_wire_flash(vm);
    if (r < 0 || !(vm->cfg->trace & TRACE_FIRMWARE))
        return r;
    debugcon_init(&fw->debugcon, pc_on_debug_line, vm);
    pc_add_device(vm, &debugcon_ops, &fw->debugcon, 0);
    return debugcon_attach(&fw->debugcon, &vm->io);
}

/* ---- what fw_cfg tells ---- */

static int pc_fill_numbers(struct vm *vm)
{
    const struct {
        unsigned key, size;
        uint64_t value;
    } numbers[] = {
        { FW_CFG_RAM_SIZE, 8, vm->cfg->memory }, { FW_CFG_NOGRAPHIC, 2, !vm->cfg->vga },
        { FW_CFG_NB_CPUS, 2, vm->cfg->cpus },    { FW_CFG_MAX_CPUS, 2, vm->cfg->cpus },
        { FW_CFG_BOOT_MENU, 2, 0 },
    };
    int r = 0;

    for (size_t n = 0; r == 0 && n < ARRAY_LEN(numbers); n++)
        r = fw_cfg_set_int(&vm->firmware.fw_cfg, numbers[n].key, numbers[n].value, numbers[n].size);
    rtc_set_cmos(&vm->rtc, CMOS_EQUIPMENT, 0x06);  /* FPU, mouse port; a display, if any, with a BIOS of its own */
    rtc_set_cmos(&vm->rtc, CMOS_BOOT_ORDER, 0x32); /* hard disk, then CD */
    rtc_set_cmos(&vm->rtc, CMOS_CPUS, (uint8_t)(vm->cfg->cpus - 1));
    return r;
}

static int pc_fill_tables(struct vm *vm, struct err *err)
{
    struct fw_cfg *fc = &vm->firmware.fw_cfg;
    struct boot_config cfg = {
        .cpus = vm->cfg->cpus,
        .mem_below_4g = layout_below_4g(vm->cfg->memory),
        .mem_above_4g = layout_above_4g(vm->cfg->memory),
        .ecam = pci_host_ecam_base(&vm->pci),
    };
    struct boot_fw_files f;
    int r = boot_fw_files_make(&f, &cfg, err);
    const struct {
        const char *name;
        const struct boot_blob *blob;
    } files[] = {
        { "etc/e820", &f.e820 },
        { "etc/acpi/rsdp", &f.rsdp },
        { "etc/acpi/tables", &f.acpi },
        { "etc/table-loader", &f.loader },
        { "etc/smbios/smbios-anchor", &f.smbios_anchor },
        { "etc/smbios/smbios-tables", &f.smbios },
    };

    if (r < 0)
        return r;
    for (size_t n = 0; r == 0 && n < ARRAY_LEN(files); n++)
        r = fw_cfg_set_file(fc, files[n].name, files[n].blob->data, (uint32_t)files[n].blob->len);
    boot_fw_files_free(&f);
    return r < 0 ? err_set(err, -r, "cannot give the tables to the firmware: %s", strerror(-r)) : 0;
}

/* The guest has selected the directory; without memory the old tables stay. */
static void pc_refill_tables(void *opaque)
{
    struct err err = { "" };

    if (pc_fill_tables(opaque, &err) < 0)
        log_guest("firmware: %s", err.text);
}

/* Which disks come first: numbers as given, then those without, of which the CD is the last. */
static unsigned pc_boot_number(const struct vm *vm, unsigned n)
{
    unsigned boot = n < vm->cfg->disks ? vm->cfg->disk[n].boot : 0;

    if (n == vm->cfg->disks && vm->cfg->cdrom_virtio)
        boot = vm->cfg->cdrom_boot;
    return boot ? boot : 10;
}

#define BOOT_LINE 64

/* One line a disk, with the name that Open Firmware would give it: slots are in hexadecimal. */
static size_t pc_boot_lines(const struct vm *vm, unsigned boot, char *text, size_t size)
{
    unsigned cd = vm->cfg->cdrom_boot ? vm->cfg->cdrom_boot : 10;
    size_t len = 0;

    for (unsigned n = 0; n < vm->ndisks; n++) {
        if (pc_boot_number(vm, n) == boot)
            len += (size_t)snprintf(text + len, size - len, "/pci@i0cf8/scsi@%x/disk@0,0\n", pc_disk_slot(vm, n));
    }
    if (vm->cd.block && cd == boot)
        len += (size_t)snprintf(text + len, size - len, "/pci@i0cf8/pci8086,2922@%x/drive@0/disk@0\n",
                                vm->cd.ahci.pci.devfn >> 3);
    return len;
}

static int pc_fill_boot_order(struct vm *vm)
{
    char text[(CONFIG_DISKS + 4) * BOOT_LINE];
    size_t len = 0;

    if (vm->cfg->kernel)
        len = (size_t)snprintf(text, sizeof(text), "/rom@" KERNEL_ROM "\n");
    for (unsigned boot = 1; boot <= 10; boot++)
        len += pc_boot_lines(vm, boot, text + len, sizeof(text) - len);
    return fw_cfg_set_file(&vm->firmware.fw_cfg, "bootorder", text, len ? (uint32_t)len + 1 : 0);
}

static int pc_fill_files(struct vm *vm)
{
    static const uint8_t com1[2] = { 0xf8, 0x03 }, system_states[6] = { 128, 0, 0, 0x80 | LAYOUT_S5_TYP, 0, 0 };
    const struct boot_blob *vgabios = &vm->firmware.vgabios;
    struct fw_cfg *fc = &vm->firmware.fw_cfg;
    int r = pc_fill_boot_order(vm);

    if (r == 0)
        r = fw_cfg_set_file(fc, "etc/sercon-port", com1, sizeof(com1));
    if (r == 0)
        r = fw_cfg_set_file(fc, "etc/system-states", system_states, sizeof(system_states));
    if (r == 0 && vgabios->len)
        r = fw_cfg_set_file(fc, DISPLAY_ROM, vgabios->data, (uint32_t)vgabios->len);
    return r;
}

/* The parts of --kernel. Data that the machine keeps anyway is lent. */
static int pc_give_kernel(struct vm *vm, const struct boot_fw_kernel *k)
{
    struct fw_cfg *fc = &vm->firmware.fw_cfg;
    const struct {
        unsigned size_key, data_key;
        const void *data;
        size_t len;
        bool lent;
    } parts[] = {
        { FW_CFG_SETUP_SIZE, FW_CFG_SETUP_DATA, k->setup.data, k->setup.len, false },
        { FW_CFG_CMDLINE_SIZE, FW_CFG_CMDLINE_DATA, k->cmdline.data, k->cmdline.len, false },
        { FW_CFG_KERNEL_SIZE, FW_CFG_KERNEL_DATA, k->kernel, k->kernel_len, true },
        { FW_CFG_INITRD_SIZE, FW_CFG_INITRD_DATA, vm->initrd, vm->initrd_len, true },
    };
    int r = fw_cfg_set_file(fc, KERNEL_ROM, k->rom.data, (uint32_t)k->rom.len);

    for (size_t n = 0; r == 0 && n < ARRAY_LEN(parts); n++) {
        uint32_t len = (uint32_t)parts[n].len;

        r = parts[n].lent ? fw_cfg_borrow(fc, parts[n].data_key, parts[n].data, len)
                          : fw_cfg_set(fc, parts[n].data_key, parts[n].data, len);
        if (r == 0)
            r = fw_cfg_set_int(fc, parts[n].size_key, len, 4);
    }
    return r;
}

static int pc_fill_kernel(struct vm *vm, struct err *err)
{
    char *line = pc_agent_cmdline(vm, vm->cfg->cmdline ? vm->cfg->cmdline : "console=ttyS0");
    struct boot_config cfg = {
        .kernel = &vm->kernel,
        .initrd = vm->initrd,
        .initrd_len = vm->initrd_len,
        .cmdline = line,
        .mem_below_4g = layout_below_4g(vm->cfg->memory),
    };
    struct boot_fw_kernel k;
    int r = line ? boot_fw_kernel_make(&k, &cfg, err) : err_set(err, ENOMEM, "out of memory");

    free(line);
    if (r < 0)
        return r;
    r = pc_give_kernel(vm, &k);
    boot_fw_kernel_free(&k);
    return r < 0 ? err_set(err, -r, "cannot give the kernel to the firmware: %s", strerror(-r)) : 0;
}

int pc_firmware_fill(struct vm *vm, struct err *err)
{
    int r = pc_fill_numbers(vm);

    if (r == 0 && pc_has_firmware(vm))
        r = pc_fill_files(vm);
    if (r < 0)
        return err_set(err, -r, "cannot tell the firmware about the machine: %s", strerror(-r));
    if (!pc_has_firmware(vm))
        return 0;
    r = pc_fill_tables(vm, err);
    if (r == 0 && vm->cfg->kernel)
        r = pc_fill_kernel(vm, err);
    fw_cfg_on_directory(&vm->firmware.fw_cfg, pc_refill_tables, vm);
    return r;
}

/* ---- life ---- */

int pc_firmware_reset(struct vm *vm, struct err *err)
{
    const struct boot_blob *rom = &vm->firmware.image.rom;
    size_t len = LAYOUT_BIOS_END - LAYOUT_BIOS_BASE;
    int r;

    if (len > rom->len)
        len = rom->len;
    r = ram_load(&vm->ram, LAYOUT_BIOS_END - len, rom->data + rom->len - len, len);
    return r < 0 ? err_set(err, -r, "cannot place the firmware: the machine has too little memory") : 0;
}

void pc_firmware_close(struct vm *vm)
{
    struct vm_firmware *fw = &vm->firmware;

    boot_firmware_close(&fw->image);
    boot_blob_free(&fw->vgabios);
    pc_vars_close(vm);
}
