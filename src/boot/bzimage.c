/* Linux bzImage by the 64-bit boot protocol, or by the 32-bit one where it is built for 32-bit x86.
 *
 * Source: Linux Documentation/arch/x86/boot.rst (setup header, both protocols) and zero-page.rst,
 * boot_params layout in arch/x86/include/uapi/asm/bootparam.h. Offsets here are file offsets of
 * the setup header; the zero page keeps the header at the same offsets.
 *
 * In guest memory: kernel at its preferred address; GDT, zero page, page tables and command line
 * in the first free pages above 4 KiB (a 32-bit kernel makes its own page tables); initrd as high as the kernel allows.
 * Runs on the thread that builds the machine; no state.
 */
#include "boot/parts.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

enum {
    HDR_SETUP_SECTS = 0x1f1,
    HDR_SYSSIZE = 0x1f4,
    HDR_BOOT_FLAG = 0x1fe,
    HDR_JUMP_LEN = 0x201,
    HDR_VERSION = 0x206,
    HDR_KERNEL_VERSION = 0x20e,
    HDR_LOADER = 0x210,
    HDR_LOADFLAGS = 0x211,
    HDR_RAMDISK = 0x218,
    HDR_RAMDISK_SIZE = 0x21c,
    HDR_CMDLINE = 0x228,
    HDR_INITRD_MAX = 0x22c,
    HDR_ALIGNMENT = 0x230,
    HDR_RELOCATABLE = 0x234,
    HDR_XLOADFLAGS = 0x236,
    HDR_CMDLINE_SIZE = 0x238,
    HDR_PAYLOAD = 0x248,
    HDR_PAYLOAD_LEN = 0x24c,
    HDR_PREF_ADDRESS = 0x258,
    HDR_INIT_SIZE = 0x260,
    HDR_END_MIN = 0x264, /* we need the fields up to here */
    HDR_END_MAX = 0x290, /* room in the zero page */

    ZP_VIDEO_MODE = 0x06,
    ZP_VIDEO_COLUMNS = 0x07,
    ZP_VIDEO_EGA = 0x0a,
    ZP_VIDEO_LINES = 0x0e,
    ZP_VIDEO_IS_VGA = 0x0f,
    ZP_VIDEO_POINTS = 0x10,
    ZP_RSDP = 0x70,
    ZP_EXT_RAMDISK = 0xc0,
    ZP_EXT_RAMDISK_SIZE = 0xc4,
    ZP_EXT_CMDLINE = 0xc8,
    ZP_E820_ENTRIES = 0x1e8,
    ZP_HDR = 0x1f1,
    ZP_E820 = 0x2d0,
};

#define VERSION_MIN   0x20c /* first with xloadflags */
#define XLF_KERNEL_64 BIT(0)
#define PE32          0x10b /* the optional header's magic number, in 32-bit kernels; others have PE32+'s */
#define LOADED_HIGH   BIT(0)
#define ENTRY_64      0x200 /* from the load address */
#define CMDLINE_MAX   0xffff
#define PT_PAGES      6 /* PML4, PDPT, four page directories: 4 GiB in 2 MiB pages */

/* Where the block of boot data has what. */
#define DATA_GDT     0
#define DATA_ZP      PAGE_SIZE
#define DATA_PT      (2 * PAGE_SIZE)
#define DATA_CMDLINE (DATA_PT + PT_PAGES * PAGE_SIZE)

/* Has it an entry for 64-bit mode? */
static bool bz_wide(const struct boot_image *img) { return ld_le16(img->data + HDR_XLOADFLAGS) & XLF_KERNEL_64; }

static size_t bz_setup_len(const struct boot_image *img)
{
    unsigned sects = img->data[HDR_SETUP_SECTS];

    return ((sects ? sects : 4) + 1) * 512; /* 0 means 4 */
}

/* Bytes of the protected-mode kernel as the header counts them (units of 16 bytes). */
static uint64_t bz_kernel_len(const struct boot_image *img)
{
    return (uint64_t)ld_le32(img->data + HDR_SYSSIZE) * 16;
}

static int bz_corrupt(const struct boot_image *img, struct err *err, const char *what)
{
    return err_set(err, EINVAL, "kernel %s: is a corrupt bzImage: %s; fetch or build it again", img->name,
                   what);
}

/* CRC-32 over data, reflected polynomial EDB88320, continued from crc, without the inversions that zlib has around it. */
static uint32_t bz_crc(uint32_t crc, const uint8_t *data, size_t len)
{
    return ~(uint32_t)crc32_z(~crc & 0xffffffffU, data, len);
}

/* Put the two fields of the PE header back that signing for secure boot changes (the checksum and
 * the certificate table), in a copy of the setup part. */
static void bz_unsign(uint8_t *setup, size_t len)
{
    uint32_t pe = ld_le32(setup + 0x3c);

    if (range_outside(pe, 24 + 152, len) || memcmp(setup + pe, "PE\0", 4) != 0)
        return;
    memset(setup + pe + 24 + 64, 0, 4);
    memset(setup + pe + 24 + (ld_le16(setup + pe + 24) == PE32 ? 96 : 112) + 4 * 8, 0, 8);
}

/* True if the kernel's version text says that its build appends a CRC-32: from boot protocol 2.08
 * (Linux 2.6.26) until it was dropped in Linux 6.15. */
static bool bz_has_crc(const struct boot_image *img)
{
    size_t at = ld_le16(img->data + HDR_KERNEL_VERSION) + 0x200;
    unsigned long major, minor;
    char text[16] = "", *end;

    if (at == 0x200 || range_outside(at, sizeof(text), bz_setup_len(img)))
        return false;
    memcpy(text, img->data + at, sizeof(text) - 1);
    major = strtoul(text, &end, 10);
    if (end == text || *end != '.')
        return false;
    minor = strtoul(end + 1, NULL, 10);
    return (major >= 3 && major < 6) || (major == 6 && minor < 14);
}

/* boot.rst: the CRC over everything up to syssize is 0. */
static bool bz_crc_good(const struct boot_image *img)
{
    size_t setup_len = bz_setup_len(img), kernel_len = bz_kernel_len(img);
    uint8_t *setup = malloc(setup_len);
    uint32_t crc, signed_crc;

    if (!setup)
        return true; /* cannot tell */
    memcpy(setup, img->data, setup_len);
    crc = bz_crc(0xffffffff, setup, setup_len);
    bz_unsign(setup, setup_len);
    signed_crc = bz_crc(0xffffffff, setup, setup_len);
    free(setup);
    if (bz_crc(signed_crc, img->data + setup_len, kernel_len) == 0)
        return true;
    return crc != signed_crc && bz_crc(crc, img->data + setup_len, kernel_len) == 0;
}

/* What the kernel decompresses itself from must lie in the file and look like it. */
static int bz_check_payload(const struct boot_image *img, struct err *err)
{
    static const struct {
        const char *magic;
        size_t len;
    } known[] = {
        { "\x1f\x8b", 2 },
        { "BZh", 3 },
        { "\x5d\0\0", 3 },
        { "\xfd"
          "7zXZ",
          5 },
        { "\x89LZO", 4 },
        { "\x02\x21\x4c\x18", 4 },
        { "\x28\xb5\x2f\xfd", 4 },
        { "\x7f"
          "ELF",
          4 },
    };
    uint64_t off = ld_le32(img->data + HDR_PAYLOAD), len = ld_le32(img->data + HDR_PAYLOAD_LEN);
    const uint8_t *p = img->data + bz_setup_len(img) + off;

    if (len < 16 || range_outside(off, len, bz_kernel_len(img)))
        return bz_corrupt(img, err, "its payload lies outside the kernel");
    for (size_t i = 0; i < ARRAY_LEN(known); i++)
        if (memcmp(p, known[i].magic, known[i].len) == 0)
            return 0;
    return bz_corrupt(img, err, "its payload is in no known compression format");
}

/* Load address, alignment and size make sense together. */
static int bz_check_address(const struct boot_image *img, struct err *err)
{
    uint64_t pref = ld_le64(img->data + HDR_PREF_ADDRESS);
    uint64_t size = ld_le32(img->data + HDR_INIT_SIZE);
    uint32_t align = ld_le32(img->data + HDR_ALIGNMENT);

    if (pref < LAYOUT_BIOS_END || pref >= LAYOUT_LOW_RAM_MAX)
        return bz_corrupt(img, err, "its preferred load address is not between 1 MiB and 3 GiB");
    if (img->data[HDR_RELOCATABLE] && (align < PAGE_SIZE || align & (align - 1)))
        return bz_corrupt(img, err, "its alignment is not a power of two of at least 4 KiB");
    if (size < bz_kernel_len(img) || pref + align + size > LAYOUT_LOW_RAM_MAX)
        return bz_corrupt(img, err, "its initialisation size does not fit its length and load address");
    return 0;
}

static int bz_check_protocol(const struct boot_image *img, struct err *err)
{
    unsigned version = ld_le16(img->data + HDR_VERSION);

    if (ld_le16(img->data + HDR_BOOT_FLAG) != 0xaa55)
        return bz_corrupt(img, err, "the boot flag AA55 is missing");
    if (version < VERSION_MIN)
        return err_set(err, EINVAL,
                       "kernel %s: has boot protocol %u.%02u, older than the 2.12 that is needed; "
                       "use Linux 3.8 or newer",
                       img->name, version >> 8, version & 0xff);
    if (!(img->data[HDR_LOADFLAGS] & LOADED_HIGH))
        return err_set(err, EINVAL, "kernel %s: is a zImage that loads below 1 MiB; build a bzImage",
                       img->name);
    if (0x202u + img->data[HDR_JUMP_LEN] < HDR_END_MIN || img->data[0x200] != 0xeb)
        return bz_corrupt(img, err, "its setup header is shorter than its version says");
    return 0;
}

int bzimage_check(struct boot_image *img, struct err *err)
{
    size_t setup_len;
    int rc;

    if (img->len < HDR_END_MAX || img->len < bz_setup_len(img))
        return err_set(err, EINVAL,
                       "kernel %s: is truncated: its %zu bytes end inside the setup code; fetch or build "
                       "it again",
                       img->name, img->len);
    rc = bz_check_protocol(img, err);
    if (rc < 0)
        return rc;
    setup_len = bz_setup_len(img);
    if (bz_kernel_len(img) > img->len - setup_len)
        return err_set(err, EINVAL,
                       "kernel %s: is truncated: its header announces %llu bytes, the file has %zu; fetch "
                       "or build it again",
                       img->name, (unsigned long long)(setup_len + bz_kernel_len(img)), img->len);
    if (bz_kernel_len(img) <= (bz_wide(img) ? ENTRY_64 : 0))
        return bz_corrupt(img, err, "it ends before its entry point");
    rc = bz_check_payload(img, err);
    if (rc == 0)
        rc = bz_check_address(img, err);
    if (rc == 0 && bz_has_crc(img) && !bz_crc_good(img))
        rc = bz_corrupt(img, err, "its checksum does not match its contents");
    return rc;
}

/* Find the load address, take init_size bytes there, copy the kernel. */
static int bz_load_kernel(struct load *l, uint64_t *at)
{
    const uint8_t *hdr = l->img->data;
    uint64_t size = ld_le32(hdr + HDR_INIT_SIZE);
    size_t setup_len = bz_setup_len(l->img);

    *at = ld_le64(hdr + HDR_PREF_ADDRESS);
    if (hdr[HDR_RELOCATABLE])
        *at = ALIGN_UP(*at, ld_le32(hdr + HDR_ALIGNMENT));
    /* A kernel never runs below its preferred address, so there is no lower choice. */
    if (place_claim(&l->place, *at, size) < 0)
        return err_set(l->err, ENOMEM,
                       "kernel %s: %llu MiB of memory are too small, it needs at least %llu MiB just to "
                       "start; give the machine more memory",
                       l->img->name, (unsigned long long)(l->cfg->mem_below_4g / MIB),
                       (unsigned long long)((*at + size + MIB - 1) / MIB));
    l->kernel_end = *at + size;
    /* After a reboot the rest of init_size holds old data; the kernel clears its own BSS. */
    return load_bytes(l, *at, hdr + setup_len, bz_kernel_len(l->img));
}

static int bz_load_initrd(struct load *l)
{
    uint64_t max = ld_le32(l->img->data + HDR_INITRD_MAX);

    return load_initrd(l, max + 1);
}

/* Identity map of the first 4 GiB in 2 MiB pages: present, writable, supervisor. */
static int bz_load_page_tables(struct load *l, uint64_t at)
{
    uint64_t *pt = calloc(PT_PAGES, PAGE_SIZE);
    int rc;

    if (!pt)
        return err_set(l->err, ENOMEM, "no memory to build the first page tables");
    pt[0] = (at + PAGE_SIZE) | 3;
    for (uint64_t i = 0; i < 4; i++)
        pt[512 + i] = (at + (2 + i) * PAGE_SIZE) | 3;
    for (uint64_t i = 0; i < 4 * 512; i++)
        pt[1024 + i] = i << 21 | 0x83;
    rc = load_bytes(l, at, pt, PT_PAGES * PAGE_SIZE);
    free(pt);
    return rc;
}

static int bz_load_cmdline(struct load *l, uint64_t at, size_t len)
{
    uint32_t max = ld_le32(l->img->data + HDR_CMDLINE_SIZE);

    if (len > max || len > CMDLINE_MAX)
        return err_set(l->err, E2BIG,
                       "kernel %s: its command line can have %u bytes, the one given has %zu; shorten it",
                       l->img->name, max < CMDLINE_MAX ? max : CMDLINE_MAX, len);
    return load_bytes(l, at, l->cmdline, len + 1);
}

/* struct screen_info: a VGA in mode 3, 80 by 25 characters of 16 lines. */
static void bz_tell_screen(uint8_t *zp)
{
    zp[ZP_VIDEO_MODE] = 3;
    zp[ZP_VIDEO_COLUMNS] = 80;
    zp[ZP_VIDEO_EGA] = 3; /* 256 KiB */
    zp[ZP_VIDEO_LINES] = 25;
    zp[ZP_VIDEO_IS_VGA] = 1;
    zp[ZP_VIDEO_POINTS] = 16;
}

/* The zero page: the kernel's own setup header completed by us, memory map, RSDP. */
static int bz_load_zero_page(struct load *l, uint64_t at, uint64_t cmdline)
{
    const uint8_t *file = l->img->data;
    struct boot_e820 map[BOOT_MAP_MAX];
    unsigned n = boot_memory_map(l->cfg, map);
    size_t end = 0x202 + file[HDR_JUMP_LEN];
    uint8_t zp[PAGE_SIZE] = { 0 };

    memcpy(zp + ZP_HDR, file + ZP_HDR, (end < HDR_END_MAX ? end : HDR_END_MAX) - ZP_HDR);
    if (l->cfg->vga)
        bz_tell_screen(zp);
    zp[HDR_LOADER] = 0xff; /* a loader without a number of its own */
    st_le32(zp + HDR_CMDLINE, (uint32_t)cmdline);
    st_le32(zp + ZP_EXT_CMDLINE, (uint32_t)(cmdline >> 32));
    st_le32(zp + HDR_RAMDISK, (uint32_t)l->initrd);
    st_le32(zp + ZP_EXT_RAMDISK, (uint32_t)(l->initrd >> 32));
    st_le32(zp + HDR_RAMDISK_SIZE, l->initrd ? (uint32_t)l->cfg->initrd_len : 0);
    st_le32(zp + ZP_EXT_RAMDISK_SIZE, l->initrd ? (uint32_t)((uint64_t)l->cfg->initrd_len >> 32) : 0);
    st_le64(zp + ZP_RSDP, l->rsdp);
    for (unsigned i = 0; i < n; i++) {
        st_le64(zp + ZP_E820 + i * 20, map[i].addr);
        st_le64(zp + ZP_E820 + i * 20 + 8, map[i].len);
        st_le32(zp + ZP_E820 + i * 20 + 16, map[i].type);
    }
    zp[ZP_E820_ENTRIES] = (uint8_t)n;
    return load_bytes(l, at, zp, sizeof(zp));
}

static void bz_enter_64(uint64_t kernel, uint64_t data, struct boot_entry *out)
{
    out->mode = BOOT_LONG64;
    out->rip = kernel + ENTRY_64;
    out->rsp = data + DATA_ZP; /* grows down into the GDT's page, far from the GDT */
    out->cr0 = BIT(31) | BIT(5) | BIT(4) | BIT(1) | BIT(0); /* PG NE ET MP PE */
    out->cr3 = data + DATA_PT;
    out->cr4 = BIT(5);            /* PAE */
    out->efer = BIT(8) | BIT(10); /* LME LMA */
}

/* EBP, EDI and EBX are to be 0, and are. */
static void bz_enter_32(uint64_t kernel, struct boot_entry *out)
{
    out->mode = BOOT_PROT32_LINUX;
    out->rip = kernel;
    out->cr0 = BIT(4) | BIT(0); /* ET PE */
}

int bzimage_load(struct load *l, struct boot_entry *out)
{
    size_t cmdline_len = strlen(l->cmdline);
    bool wide = bz_wide(l->img);
    uint64_t kernel, data;
    int rc = bz_load_kernel(l, &kernel);

    if (rc == 0)
        rc = bz_load_initrd(l);
    if (rc == 0)
        rc = load_place_data(l, 0, DATA_CMDLINE + ALIGN_UP(cmdline_len + 1, PAGE_SIZE), &data);
    if (rc == 0 && wide)
        rc = bz_load_page_tables(l, data + DATA_PT);
    if (rc == 0)
        rc = bz_load_cmdline(l, data + DATA_CMDLINE, cmdline_len);
    if (rc == 0)
        rc = bz_load_zero_page(l, data + DATA_ZP, data + DATA_CMDLINE);
    if (rc == 0)
        rc = load_gdt(l, data + DATA_GDT, wide, out);
    if (rc < 0)
        return rc;
    out->rsi = data + DATA_ZP;
    out->rflags = 0x2;
    if (wide)
        bz_enter_64(kernel, data, out);
    else
        bz_enter_32(kernel, out);
    return 0;
}
