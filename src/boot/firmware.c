/* Finding and reading firmware images. SeaBIOS is one ROM; OVMF is a ROM and, below it, flash for its variables.
 * Runs on the thread that builds the machine; no state.
 */
#include "boot/firmware.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "boot/boot.h"
#include "boot/parts.h"

/* Where distributions have the images; the first that exists is taken. vars is NULL for firmware without. Debian 12's small
 * OVMF comes first: it is in GRUB after a quarter of the time that the large one takes (docs/design/firmware.md). */
static const struct {
    const char *name, *rom, *vars;
} firmware_places[] = {
    { "seabios", "/usr/share/seabios/bios-256k.bin", NULL }, /* Debian, Fedora */
    { "seabios", "/usr/share/qemu/bios-256k.bin", NULL },
    { "ovmf", "/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd" }, /* Debian */
    { "ovmf", "/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd" },
    { "ovmf", "/usr/share/edk2/ovmf/OVMF_CODE.fd", "/usr/share/edk2/ovmf/OVMF_VARS.fd" }, /* Fedora */
};

void boot_blob_free(struct boot_blob *b)
{
    free(b->data);
    *b = (struct boot_blob){ .data = NULL };
}

void boot_firmware_close(struct boot_firmware *f)
{
    boot_blob_free(&f->rom);
    boot_blob_free(&f->vars);
}

static int firmware_read(struct boot_blob *b, const char *path, struct err *err)
{
    int r = boot_read_file(path, "firmware", BOOT_ROM_MAX, &b->data, &b->len, err);

    if (r < 0)
        return r;
    if (b->len % PAGE_SIZE == 0 && b->len >= BOOT_ROM_MIN)
        return 0;
    r = err_set(err, EINVAL,
                "firmware %s: its size of %zu bytes is not that of a firmware image (64 KiB to 16 MiB, a multiple "
                "of 4 KiB); give 'seabios', 'ovmf' or the file of a ROM",
                path, b->len);
    boot_blob_free(b);
    return r;
}

int boot_vgabios_open(struct boot_blob *b, struct err *err)
{
    static const char *const places[] = { "/usr/share/seabios/vgabios-stdvga.bin", "/usr/share/qemu/vgabios-stdvga.bin" };

    for (size_t n = 0; n < ARRAY_LEN(places); n++) {
        if (access(places[n], F_OK) == 0)
            return boot_read_file(places[n], "video BIOS", BOOT_ROM_MIN, &b->data, &b->len, err);
    }
    return err_set(err, ENOENT, "the video BIOS is not installed on this host (there is no %s): apt install seabios", places[0]);
}

static int firmware_open_file(struct boot_firmware *f, const char *rom, const char *vars, struct err *err)
{
    int r = firmware_read(&f->rom, rom, err);

    if (r == 0 && vars)
        r = firmware_read(&f->vars, vars, err);
    if (r < 0)
        boot_firmware_close(f);
    return r;
}

int boot_firmware_open(struct boot_firmware *f, const char *name, struct err *err)
{
    bool known = false;

    *f = (struct boot_firmware){ .rom = { .data = NULL } };
    for (size_t n = 0; n < ARRAY_LEN(firmware_places); n++) {
        if (strcmp(firmware_places[n].name, name))
            continue;
        known = true;
        if (access(firmware_places[n].rom, F_OK) == 0)
            return firmware_open_file(f, firmware_places[n].rom, firmware_places[n].vars, err);
    }
    if (known)
        return err_set(err, ENOENT,
                       "firmware %s is not installed on this host (there is no %s): apt install %s, or give the file "
                       "of a firmware image",
                       name, strcmp(name, "ovmf") ? firmware_places[0].rom : firmware_places[2].rom, name);
    if (!strchr(name, '/') && access(name, F_OK) < 0)
        return err_set(err, ENOENT, "firmware '%.80s' is unknown: use seabios, ovmf or the file of a firmware image",
                       name);
    return firmware_open_file(f, name, NULL, err);
}
