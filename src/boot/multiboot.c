/* Multiboot 1 kernels: ELF32, or any file whose header gives load addresses.
 *
 * Source: Multiboot Specification 0.6.96: 3.1 (header), 3.2 (machine state), 3.3 (information).
 * ELF64 files with a Multiboot header are refused unless they give addresses: the entry is a
 * 32-bit one, and loaders disagree on what such files mean.
 * Runs on the thread that builds the machine; no state.
 *
 * The block of boot data, all in one place above the kernel: GDT, information, module, memory
 * map, loader name, module string (empty), command line.
 */
#include "boot/parts.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define MB_HEADER_MAGIC 0x1badb002
#define MB_LOADER_MAGIC 0x2badb002
#define MB_SEARCH       8192
#define MB_CMDLINE_MAX  0xffff

enum {
    MB_ADDRESSES = 1 << 16, /* header flag: load addresses are in the header */
    MB_KNOWN = 0x7,         /* required features that we know: align modules, memory, video */
    INFO_FLAGS = 1 << 0 | 1 << 2 | 1 << 6 | 1 << 9, /* mem_*, cmdline, mmap_*, loader name */
    INFO_MODS = 1 << 3,

    MMAP_SIZE = 24, /* the size field itself (4) and 20 bytes */

    DATA_GDT = 0,
    DATA_INFO = 64,
    DATA_MODULE = DATA_INFO + 128,
    DATA_MMAP = DATA_MODULE + 16,
    DATA_NAME = DATA_MMAP + BOOT_MAP_MAX * MMAP_SIZE,
    DATA_EMPTY = DATA_NAME + 15, /* an empty string: the NUL after the name */
    DATA_CMDLINE = DATA_NAME + 16,
};

/* Load addresses from the header (3.1.3), as a range of the file and a place in memory. */
struct mb_flat {
    uint64_t offset, filesz, load, memsz;
    uint32_t entry;
};

int multiboot_find(struct boot_image *img)
{
    size_t end = img->len < MB_SEARCH ? img->len : MB_SEARCH;

    for (size_t at = 0; at + 12 <= end; at += 4) {
        const uint8_t *h = img->data + at;
        if (ld_le32(h) == MB_HEADER_MAGIC && ld_le32(h) + ld_le32(h + 4) + ld_le32(h + 8) == 0) {
            img->mb_offset = (uint32_t)at;
            return 1;
        }
    }
    return 0;
}

static uint32_t mb_flags(const struct boot_image *img) { return ld_le32(img->data + img->mb_offset + 4); }

static int mb_bad_header(const struct boot_image *img, struct err *err, const char *what)
{
    return err_set(err, EINVAL, "kernel %s: its Multiboot header is wrong: %s; fetch or build it again",
                   img->name, what);
}

/* Work out and check what the address fields mean. */
static int mb_flat_get(const struct boot_image *img, struct mb_flat *f, struct err *err)
{
    const uint8_t *h = img->data + img->mb_offset;
    uint64_t header_addr, load_end, bss_end, before;

    if (range_outside(img->mb_offset, 32, img->len))
        return mb_bad_header(img, err, "the file ends inside it");
    header_addr = ld_le32(h + 12);
    f->load = ld_le32(h + 16);
    load_end = ld_le32(h + 20);
    bss_end = ld_le32(h + 24);
    f->entry = ld_le32(h + 28);
    if (header_addr < f->load || header_addr - f->load > img->mb_offset)
        return mb_bad_header(img, err, "the load address does not fit the header's own address");
    before = header_addr - f->load;
    f->offset = img->mb_offset - before;
    f->filesz = load_end ? load_end - f->load : img->len - f->offset;
    if ((load_end && load_end < f->load) || range_outside(f->offset, f->filesz, img->len))
        return mb_bad_header(img, err, "the load end address lies outside the file");
    f->memsz = bss_end > f->load + f->filesz ? bss_end - f->load : f->filesz;
    if (f->memsz == 0 || f->entry < f->load || f->entry - f->load >= f->memsz)
        return mb_bad_header(img, err, "the entry address lies outside what it loads");
    return 0;
}

int multiboot_check(const struct boot_image *img, struct err *err)
{
    uint32_t flags = mb_flags(img);
    struct mb_flat flat;

    if (flags & 0xffff & ~MB_KNOWN)
        return err_set(err, EINVAL,
                       "kernel %s: its Multiboot header requires features that do not exist (flags 0x%x); "
                       "use another kernel",
                       img->name, flags);
    if (flags & MB_ADDRESSES)
        return mb_flat_get(img, &flat, err);
    if (!elf_is(img->data, img->len))
        return mb_bad_header(img, err, "the file is no ELF file, but the header gives no load addresses");
    if (!elf_is_32bit(img))
        return err_set(err, EINVAL,
                       "kernel %s: is a 64-bit ELF file with a Multiboot 1 header, which starts in 32-bit "
                       "mode; convert it (objcopy -O elf32-i386) or add a PVH note",
                       img->name);
    if (!elf_covers(img, elf_entry(img)))
        return err_set(err, EINVAL,
                       "kernel %s: its entry point 0x%llx lies in no segment; fetch or build it again",
                       img->name, (unsigned long long)elf_entry(img));
    return 0;
}

static int mb_load_flat(struct load *l, uint32_t *entry)
{
    struct mb_flat f;
    int rc = mb_flat_get(l->img, &f, l->err);

    if (rc < 0)
        return rc;
    rc = place_claim(&l->place, f.load, f.memsz);
    if (rc == -ERANGE)
        return err_set(l->err, ENOMEM,
                       "kernel %s: %llu MiB of memory are too small, it wants to be loaded up to %llu "
                       "MiB; give the machine more memory",
                       l->img->name, (unsigned long long)(l->cfg->mem_below_4g / MIB),
                       (unsigned long long)((f.load + f.memsz + MIB - 1) / MIB));
    if (rc < 0)
        return err_set(l->err, EINVAL,
                       "kernel %s: wants to be loaded at 0x%llx, over an area that is no plain RAM "
                       "(below 0x1000, 0x9fc00 to 0xfffff); link it elsewhere, best at 1 MiB",
                       l->img->name, (unsigned long long)f.load);
    rc = load_bytes(l, f.load, l->img->data + f.offset, f.filesz);
    if (rc == 0)
        rc = load_zero(l, f.load + f.filesz, f.memsz - f.filesz);
    l->kernel_end = f.load + f.memsz;
    *entry = f.entry;
    return rc;
}

static int mb_load_kernel(struct load *l, uint32_t *entry)
{
    if (mb_flags(l->img) & MB_ADDRESSES)
        return mb_load_flat(l, entry);
    *entry = (uint32_t)elf_entry(l->img);
    return elf_load_segments(l);
}

/* Information, module, memory map and names, as they lie at gpa + DATA_INFO. */
static int mb_load_info(struct load *l, uint64_t gpa)
{
    struct boot_e820 map[BOOT_MAP_MAX];
    unsigned n = boot_memory_map(l->cfg, map);
    uint8_t block[DATA_CMDLINE] = { 0 };
    uint8_t *info = block + DATA_INFO, *mod = block + DATA_MODULE;
    uint32_t base = (uint32_t)gpa;

    st_le32(info, INFO_FLAGS | (l->initrd ? INFO_MODS : 0));
    st_le32(info + 4, LAYOUT_EBDA / KIB); /* KiB from 0 and from 1 MiB */
    st_le32(info + 8, (uint32_t)((l->cfg->mem_below_4g - MIB) / KIB));
    st_le32(info + 16, base + DATA_CMDLINE);
    st_le32(info + 20, l->initrd ? 1 : 0);
    st_le32(info + 24, l->initrd ? base + DATA_MODULE : 0);
    st_le32(info + 44, n * MMAP_SIZE);
    st_le32(info + 48, base + DATA_MMAP);
    st_le32(info + 64, base + DATA_NAME);
    st_le32(mod, (uint32_t)l->initrd);
    st_le32(mod + 4, (uint32_t)(l->initrd + (l->initrd ? l->cfg->initrd_len : 0)));
    st_le32(mod + 8, base + DATA_EMPTY);
    for (unsigned i = 0; i < n; i++) {
        uint8_t *m = block + DATA_MMAP + i * MMAP_SIZE;
        st_le32(m, MMAP_SIZE - 4);
        st_le64(m + 4, map[i].addr);
        st_le64(m + 12, map[i].len);
        st_le32(m + 20, map[i].type);
    }
    memcpy(block + DATA_NAME, "vitro", 6);
    return load_bytes(l, gpa + DATA_INFO, block + DATA_INFO, sizeof(block) - DATA_INFO);
}

/* "name arguments": the first word is the kernel's file name, as GRUB and QEMU do it. */
static int mb_load_cmdline(struct load *l, uint64_t gpa)
{
    const char *name = l->img->name;
    int rc = load_bytes(l, gpa, name, strlen(name));

    if (rc == 0 && *l->cmdline)
        rc = load_bytes(l, gpa + strlen(name), " ", 1);
    if (rc < 0)
        return rc;
    return load_bytes(l, gpa + strlen(name) + (*l->cmdline ? 1 : 0), l->cmdline, strlen(l->cmdline) + 1);
}

int multiboot_load(struct load *l, struct boot_entry *out)
{
    size_t text = strlen(l->img->name) + 1 + strlen(l->cmdline) + 1;
    uint64_t data;
    uint32_t entry = 0;
    int rc;

    if (text > MB_CMDLINE_MAX)
        return err_set(l->err, E2BIG, "kernel %s: the command line of %zu bytes is too long; shorten it",
                       l->img->name, strlen(l->cmdline));
    rc = mb_load_kernel(l, &entry);
    if (rc == 0)
        rc = load_initrd(l, LAYOUT_4G);
    if (rc == 0)
        rc = load_place_data(l, l->kernel_end > LAYOUT_BIOS_END ? l->kernel_end : LAYOUT_BIOS_END,
                             ALIGN_UP(DATA_CMDLINE + text, PAGE_SIZE), &data);
    if (rc == 0)
        rc = mb_load_info(l, data);
    if (rc == 0)
        rc = mb_load_cmdline(l, data + DATA_CMDLINE);
    if (rc == 0)
        rc = load_gdt(l, data + DATA_GDT, false, out);
    if (rc < 0)
        return rc;
    out->mode = BOOT_PROT32_MULTIBOOT;
    out->rip = entry;
    out->rax = MB_LOADER_MAGIC;
    out->rbx = data + DATA_INFO;
    out->rflags = 0x2;
    out->cr0 = BIT(4) | BIT(0); /* ET PE */
    return 0;
}
