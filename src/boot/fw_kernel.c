/* A kernel for firmware: --kernel together with --firmware.
 *
 * OVMF finds the parts in fw_cfg by itself and starts the kernel as an EFI program. SeaBIOS runs option ROMs that it finds
 * there; ours has a boot entry (PnP BIOS 1.0A, BEV) that has the parts copied to where the real-mode boot protocol wants
 * them, by one fw_cfg DMA descriptor each, and jumps to the setup code.
 *
 * Source: Linux Documentation/arch/x86/boot.rst (real-mode protocol); Plug and Play BIOS specification 1.0A, 3.2 (expansion
 * header), BIOS Boot Specification 1.01, 3.3; QEMU docs/specs/fw_cfg.rst (DMA descriptors).
 * Runs on the thread that builds the machine; no state.
 */
#include "boot/firmware.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "boot/boot.h"
#include "boot/parts.h"
#include "chip/fw_cfg.h"

enum {
    HDR_SETUP_SECTS = 0x1f1,
    HDR_LOADER = 0x210,
    HDR_LOADFLAGS = 0x211,
    HDR_RAMDISK = 0x218,
    HDR_RAMDISK_SIZE = 0x21c,
    HDR_HEAP_END = 0x224,
    HDR_CMDLINE = 0x228,
    HDR_INITRD_MAX = 0x22c,
    CAN_USE_HEAP = 0x80,
    LOADER_OTHER = 0xff
};

/* Where the parts go, and the setup code's stack, above its heap. */
enum { SETUP_GPA = 0x10000, CMDLINE_GPA = 0x20000, KERNEL_GPA = 0x100000, SETUP_STACK = 0xe000 };

#define CMDLINE_ROOM 0x10000U
#define TOP_MARGIN   MIB /* SeaBIOS's tables lie below the end of RAM */

/* ---- the option ROM ---- */

enum { ROM_PNP = 0x20, ROM_CODE = 0x40, ROM_TABLE = 0x80, ROM_NAME = 0xe0, ROM_SIZE = 512 };
enum { DESC_LEN = 16, DESC_READ = 2, DESC_SELECT = 8 };

/* ROM_TABLE and the number of descriptors are filled in at CODE_TABLE and CODE_COUNT. */
enum { CODE_TABLE = 0x0d, CODE_COUNT = 0x12 };
static const uint8_t rom_code[] = {
    0xfa,                               /* 00 cli */
    0xfc,                               /* 01 cld */
    0x66, 0x31, 0xc0,                   /* 02 xor eax, eax */
    0x8c, 0xc8,                         /* 05 mov ax, cs */
    0x66, 0xc1, 0xe0, 0x04,             /* 07 shl eax, 4 */
    0x66, 0x05, 0x00, 0x00, 0x00, 0x00, /* 0b add eax, ROM_TABLE */
    0xb9, 0x00, 0x00,                   /* 11 mov cx, descriptors */
    0xba, 0x18, 0x05,                   /* 14 mov dx, 0x518: low half of the descriptor's address; the high one is 0 */
    0x66, 0x50,                         /* 17 next: push eax */
    0x66, 0x0f, 0xc8,                   /* 19 bswap eax */
    0x66, 0xef,                         /* 1c out dx, eax: the transfer is done when this is */
    0x66, 0x58,                         /* 1e pop eax */
    0x66, 0x83, 0xc0, DESC_LEN,         /* 20 add eax, 16 */
    0xe2, 0xf1,                         /* 24 loop next */
    0xb8, 0x00, SETUP_GPA >> 12,        /* 26 mov ax, SETUP_GPA >> 4 */
    0x8e, 0xd8, 0x8e, 0xc0,             /* 29 mov ds, ax; mov es, ax */
    0x8e, 0xe0, 0x8e, 0xe8,             /* 2d mov fs, ax; mov gs, ax */
    0x8e, 0xd0,                         /* 31 mov ss, ax */
    0xbc, 0x00, SETUP_STACK >> 8,       /* 33 mov sp, SETUP_STACK */
    0xea, 0x00, 0x00, 0x20, 0x10,       /* 36 jmp 0x1020:0 */
};
_Static_assert(ROM_CODE + sizeof(rom_code) <= ROM_TABLE, "the code fits");

static void rom_descriptor(uint8_t *rom, unsigned n, unsigned key, uint64_t gpa, size_t len)
{
    uint8_t *d = rom + ROM_TABLE + n * DESC_LEN;

    st_be32(d, key << 16 | DESC_SELECT | DESC_READ);
    st_be32(d + 4, (uint32_t)len);
    st_be64(d + 8, gpa);
}

static void rom_header(uint8_t *rom)
{
    uint8_t *pnp = rom + ROM_PNP;

    rom[0] = 0x55;
    rom[1] = 0xaa;
    rom[2] = ROM_SIZE / 512;
    rom[3] = 0x31; /* initialisation: xor ax, ax; retf */
    rom[4] = 0xc0;
    rom[5] = 0xcb;
    st_le16(rom + 0x1a, ROM_PNP);
    memcpy(pnp, "$PnP", 4);
    pnp[4] = 1; /* revision */
    pnp[5] = 2; /* length: 32 bytes */
    st_le16(pnp + 0x10, ROM_NAME);
    pnp[0x15] = 0x54; /* may be cached, not needed after boot, a boot device */
    st_le16(pnp + 0x1a, ROM_CODE);
    strcpy((char *)rom + ROM_NAME, "Linux kernel of the host");
}

static void rom_sum(uint8_t *p, size_t len, unsigned at)
{
    uint8_t sum = 0;

    for (size_t n = 0; n < len; n++)
        sum = (uint8_t)(sum + p[n]);
    p[at] = (uint8_t)(p[at] - sum);
}

static int rom_make(struct boot_fw_kernel *k)
{
    uint8_t *rom = calloc(1, ROM_SIZE);
    unsigned n = 0;

    if (!rom)
        return -ENOMEM;
    rom_header(rom);
    rom_descriptor(rom, n++, FW_CFG_SETUP_DATA, SETUP_GPA, k->setup.len);
    rom_descriptor(rom, n++, FW_CFG_CMDLINE_DATA, CMDLINE_GPA, k->cmdline.len);
    rom_descriptor(rom, n++, FW_CFG_KERNEL_DATA, KERNEL_GPA, k->kernel_len);
    if (k->initrd)
        rom_descriptor(rom, n++, FW_CFG_INITRD_DATA, k->initrd, k->initrd_len);
    memcpy(rom + ROM_CODE, rom_code, sizeof(rom_code));
    st_le32(rom + ROM_CODE + CODE_TABLE, ROM_TABLE);
    st_le16(rom + ROM_CODE + CODE_COUNT, (uint16_t)n);
    rom_sum(rom + ROM_PNP, 32, 9);
    rom_sum(rom, ROM_SIZE, 6);
    k->rom = (struct boot_blob){ .data = rom, .len = ROM_SIZE };
    return 0;
}

/* ---- the parts ---- */

static int fw_place_initrd(struct boot_fw_kernel *k, const struct boot_config *cfg, struct err *err)
{
    uint64_t max = ld_le32(cfg->kernel->data + HDR_INITRD_MAX), end = cfg->mem_below_4g - TOP_MARGIN;
    uint64_t kernel_end = KERNEL_GPA + 3 * k->kernel_len; /* it unpacks itself there */

    if (!cfg->initrd_len)
        return 0;
    if (max && end > max + 1)
        end = max + 1;
    if (cfg->mem_below_4g < 2 * TOP_MARGIN || range_outside(kernel_end, cfg->initrd_len, end))
        return err_set(err, ENOMEM, "initrd: it does not fit beside kernel %s; give the machine more memory",
                       cfg->kernel->name);
    k->initrd = ALIGN_DOWN(end - cfg->initrd_len, PAGE_SIZE);
    k->initrd_len = cfg->initrd_len;
    return 0;
}

static int fw_split(struct boot_fw_kernel *k, const struct boot_config *cfg, struct err *err)
{
    const struct boot_image *img = cfg->kernel;
    const char *text = cfg->cmdline ? cfg->cmdline : "";
    size_t sects = img->data[HDR_SETUP_SECTS], setup = ((sects ? sects : 4) + 1) * 512;

    if (strlen(text) >= CMDLINE_ROOM || setup >= img->len)
        return err_set(err, EINVAL, "kernel %s: its command line is too long", img->name);
    k->setup = (struct boot_blob){ .data = malloc(setup), .len = setup };
    k->cmdline = (struct boot_blob){ .data = (uint8_t *)strdup(text), .len = strlen(text) + 1 };
    if (!k->setup.data || !k->cmdline.data)
        return err_set(err, ENOMEM, "out of memory");
    memcpy(k->setup.data, img->data, setup);
    k->kernel = img->data + setup;
    k->kernel_len = img->len - setup;
    return 0;
}

/* What a boot loader fills in. */
static void fw_fill_header(struct boot_fw_kernel *k)
{
    uint8_t *h = k->setup.data;

    h[HDR_LOADER] = LOADER_OTHER;
    h[HDR_LOADFLAGS] |= CAN_USE_HEAP;
    st_le16(h + HDR_HEAP_END, SETUP_STACK - 0x200);
    st_le32(h + HDR_CMDLINE, CMDLINE_GPA);
    st_le32(h + HDR_RAMDISK, (uint32_t)k->initrd);
    st_le32(h + HDR_RAMDISK_SIZE, (uint32_t)k->initrd_len);
}

int boot_fw_kernel_make(struct boot_fw_kernel *k, const struct boot_config *cfg, struct err *err)
{
    int r;

    *k = (struct boot_fw_kernel){ .initrd = 0 };
    if (cfg->kernel->kind != BOOT_BZIMAGE)
        return err_set(err, EINVAL, "kernel %s: firmware can only start a Linux bzImage; leave out --firmware",
                       cfg->kernel->name);
    r = fw_split(k, cfg, err);
    if (r == 0)
        r = fw_place_initrd(k, cfg, err);
    if (r == 0) {
        fw_fill_header(k);
        r = rom_make(k);
        if (r < 0)
            err_set(err, ENOMEM, "out of memory");
    }
    if (r < 0)
        boot_fw_kernel_free(k);
    return r;
}

void boot_fw_kernel_free(struct boot_fw_kernel *k)
{
    boot_blob_free(&k->setup);
    boot_blob_free(&k->cmdline);
    boot_blob_free(&k->rom);
}
