/* boot_load(): what all kinds of kernel have in common. Checks the configuration, writes the
 * tables, places the initrd, and hands over to the loader of the kind.
 *
 * Descriptors: Intel SDM vol. 3, 3.4.5; the BIOS data area words are those that kernels read to
 * find the end of conventional memory (segment of the EBDA at 40E, KiB of memory at 413).
 * Runs on the thread that builds the machine; no state.
 */
#include "boot/parts.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define LOAD_MEM_MIN   (2 * MIB)
#define LOAD_ABOVE_MAX (1ULL << 46) /* more cannot be addressed by any of our engines */

int load_bytes(struct load *l, uint64_t gpa, const void *buf, uint64_t len)
{
    int rc = len ? ram_load(l->ram, gpa, buf, len) : 0;

    if (rc < 0)
        return err_set(l->err, -rc,
                       "kernel %s: cannot write %llu bytes to guest address 0x%llx, which is not RAM",
                       l->img ? l->img->name : "tables", (unsigned long long)len, (unsigned long long)gpa);
    return 0;
}

int load_zero(struct load *l, uint64_t gpa, uint64_t len)
{
    int rc = len ? ram_fill(l->ram, gpa, 0, len) : 0;

    if (rc < 0)
        return err_set(l->err, -rc,
                       "kernel %s: cannot clear %llu bytes at guest address 0x%llx, which is not RAM",
                       l->img->name, (unsigned long long)len, (unsigned long long)gpa);
    return 0;
}

int load_initrd(struct load *l, uint64_t to)
{
    const struct boot_config *cfg = l->cfg;

    if (!cfg->initrd || cfg->initrd_len == 0)
        return 0;
    l->initrd = place_high(&l->place, to, cfg->initrd_len, PAGE_SIZE);
    if (!l->initrd)
        return err_set(
            l->err, ENOMEM,
            "initrd: its %zu MiB do not fit beside kernel %s into the memory that the "
            "kernel can use for it (%llu MiB below 4 GiB); give the machine more memory or make the "
            "initrd smaller",
            (size_t)((cfg->initrd_len + MIB - 1) / MIB), l->img->name,
            (unsigned long long)(cfg->mem_below_4g / MIB));
    return load_bytes(l, l->initrd, cfg->initrd, cfg->initrd_len);
}

int load_place_data(struct load *l, uint64_t from, uint64_t len, uint64_t *gpa)
{
    *gpa = place_low(&l->place, from, len, PAGE_SIZE);
    if (!*gpa)
        *gpa = place_low(&l->place, 0, len, PAGE_SIZE);
    if (!*gpa)
        return err_set(l->err, ENOMEM,
                       "kernel %s: no room for its boot data (%llu KiB) in %llu MiB of memory; give "
                       "the machine more memory",
                       l->img->name, (unsigned long long)(len / KIB),
                       (unsigned long long)(l->cfg->mem_below_4g / MIB));
    return 0;
}

/* A flat descriptor: type with S=1, DPL 0, present, limit 4 GiB. */
static uint64_t gdt_flat(uint8_t type, bool wide)
{
    uint64_t d = 0x000f00000000ffffULL | (0x90ULL | type) << 40 | 1ULL << 55;

    return d | (wide ? 1ULL << 53 : 1ULL << 54);
}

static struct boot_seg seg_flat(uint16_t selector, uint8_t type, bool wide)
{
    return (struct boot_seg){ .selector = selector,
                              .type = type,
                              .s = true,
                              .p = true,
                              .l = wide,
                              .db = !wide,
                              .g = true,
                              .base = 0,
                              .limit = 0xffffffff };
}

int load_gdt(struct load *l, uint64_t gpa, bool wide, struct boot_entry *e)
{
    uint64_t gdt[LOAD_GDT_SIZE / 8] = { 0 };
    struct boot_seg data = seg_flat(0x18, 3, false);

    gdt[2] = gdt_flat(0xb, wide);
    gdt[3] = gdt_flat(0x3, false);
    /* An available 32/64-bit TSS of 104 bytes at 0; nobody uses it before loading their own. */
    gdt[4] = 0x0000890000000067ULL;
    e->cs = seg_flat(0x10, 0xb, wide);
    e->ds = e->es = e->fs = e->gs = e->ss = data;
    e->tr = (struct boot_seg){ .selector = 0x20, .type = 0xb, .p = true, .limit = 0x67 };
    e->ldt = (struct boot_seg){ .selector = 0, .type = 2, .p = false, .limit = 0 };
    e->gdt_base = gpa;
    e->gdt_limit = LOAD_GDT_SIZE - 1;
    e->idt_base = 0;
    e->idt_limit = 0;
    return load_bytes(l, gpa, gdt, sizeof(gdt));
}

/* The two words of the BIOS data area that tell where conventional memory ends. */
static int load_bda(struct load *l)
{
    uint8_t word[2];
    int rc;

    st_le16(word, LAYOUT_EBDA >> 4);
    rc = load_bytes(l, 0x40e, word, 2);
    if (rc < 0)
        return rc;
    st_le16(word, LAYOUT_EBDA / KIB);
    rc = load_bytes(l, 0x413, word, 2);
    if (rc < 0)
        return rc;
    st_le16(word, 1); /* the EBDA starts with its own size in KiB */
    return load_bytes(l, LAYOUT_EBDA, word, 2);
}

static int load_tables(struct load *l)
{
    size_t size = LAYOUT_BIOS_END - LAYOUT_BIOS_BASE;
    size_t smbios_at = LAYOUT_SMBIOS - LAYOUT_BIOS_BASE;
    uint8_t *area = calloc(1, size);
    int rc;

    if (!area)
        return err_set(l->err, ENOMEM, "no memory to build the ACPI tables");
    rc = acpi_build(l->cfg, LAYOUT_BIOS_BASE, area, smbios_at, NULL);
    if (rc >= 0)
        rc = smbios_build(l->cfg, LAYOUT_SMBIOS, area + smbios_at, size - smbios_at);
    if (rc < 0)
        err_set(l->err, -rc,
                "the ACPI and SMBIOS tables for %u CPUs do not fit into their area of 64 KiB each; use "
                "fewer CPUs",
                l->cfg->cpus);
    if (rc >= 0)
        rc = load_bytes(l, LAYOUT_BIOS_BASE, area, size);
    free(area);
    l->rsdp = LAYOUT_BIOS_BASE;
    return rc < 0 ? rc : load_bda(l);
}

static int load_check_config(const struct boot_config *cfg, struct err *err)
{
    if (cfg->cpus == 0)
        return err_set(err, EINVAL, "a machine needs at least 1 CPU");
    if (cfg->mem_below_4g % PAGE_SIZE || cfg->mem_above_4g % PAGE_SIZE)
        return err_set(err, EINVAL, "the memory size is not a multiple of 4 KiB; round it");
    if (cfg->mem_below_4g < LOAD_MEM_MIN)
        return err_set(err, EINVAL,
                       "%llu KiB of memory are too small for any kernel; give the machine 64 MiB or more",
                       (unsigned long long)(cfg->mem_below_4g / KIB));
    if (cfg->mem_below_4g > LAYOUT_LOW_RAM_MAX || cfg->mem_above_4g > LOAD_ABOVE_MAX)
        return err_set(err, EINVAL,
                       "the memory size is more than this machine can address; give it less memory");
    return 0;
}

int boot_load_tables(struct ram *ram, const struct boot_config *cfg, struct err *err)
{
    struct load l = { .ram = ram, .cfg = cfg, .err = err };
    int rc = load_check_config(cfg, err);

    return rc < 0 ? rc : load_tables(&l);
}

int boot_load(struct ram *ram, const struct boot_config *cfg, struct boot_entry *out, struct err *err)
{
    struct load l = { .ram = ram, .cfg = cfg, .img = cfg->kernel, .err = err };
    int rc = load_check_config(cfg, err);

    memset(out, 0, sizeof(*out));
    if (rc < 0)
        return rc;
    l.cmdline = cfg->cmdline ? cfg->cmdline : "";
    place_init(&l.place, cfg);
    rc = load_tables(&l);
    if (rc < 0)
        return rc;
    switch (l.img->kind) {
    case BOOT_BZIMAGE:
        return bzimage_load(&l, out);
    case BOOT_PVH_ELF:
        return pvh_load(&l, out);
    case BOOT_MULTIBOOT1:
        return multiboot_load(&l, out);
    }
    return err_set(err, EINVAL, "kernel %s: is of an unknown kind", l.img->name);
}
