/* Firmware's files: the loader's script is carried out as firmware does, then the tables must be whole at whatever address
 * they were put; SMBIOS and the memory map; finding firmware images. */
#include "test.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/err.h"
#include "boot/boot.h"
#include "boot/firmware.h"
#include "boot/parts.h"
#include "boot_kernels.h"

#define G (1024 * MIB)

/* Where this firmware puts the files. */
enum { RSDP_GPA = 0xf5ad0, TABLES_GPA = 0x1ffe0040 };

struct loader {
    struct boot_fw_files f;
    bool rsdp_there, tables_there;
    unsigned pointers, sums;
};

static struct boot_config config(unsigned cpus, uint64_t mem)
{
    return (struct boot_config){ .cpus = cpus,
                                 .mem_below_4g = layout_below_4g(mem),
                                 .mem_above_4g = layout_above_4g(mem) };
}

static struct boot_blob *loader_file(struct loader *l, const uint8_t *name)
{
    assert_non_null(memchr(name, 0, 56));
    if (!strcmp((const char *)name, "etc/acpi/rsdp"))
        return &l->f.rsdp;
    assert_string_equal((const char *)name, "etc/acpi/tables");
    return &l->f.acpi;
}

static uint8_t sum_of(const uint8_t *p, size_t len)
{
    uint8_t sum = 0;

    while (len--)
        sum = (uint8_t)(sum + *p++);
    return sum;
}

static void loader_allocate(struct loader *l, const uint8_t *e)
{
    bool rsdp = loader_file(l, e) == &l->f.rsdp;

    assert_int_equal(ld_le32(e + 56), rsdp ? 16 : 64);
    assert_int_equal(e[60], rsdp ? 2 : 1);
    *(rsdp ? &l->rsdp_there : &l->tables_there) = true;
}

static void loader_pointer(struct loader *l, const uint8_t *e)
{
    struct boot_blob *dest = loader_file(l, e), *src = loader_file(l, e + 56);
    uint32_t at = ld_le32(e + 112);
    uint64_t v = 0;

    assert_true(l->rsdp_there && l->tables_there);
    assert_true(e[116] == 4 || e[116] == 8);
    assert_false(range_outside(at, e[116], dest->len));
    memcpy(&v, dest->data + at, e[116]);
    assert_true(v < src->len);
    v += src == &l->f.rsdp ? RSDP_GPA : TABLES_GPA;
    memcpy(dest->data + at, &v, e[116]);
    l->pointers++;
}

static void loader_checksum(struct loader *l, const uint8_t *e)
{
    struct boot_blob *b = loader_file(l, e);
    uint32_t at = ld_le32(e + 56), start = ld_le32(e + 60), len = ld_le32(e + 64);

    assert_false(range_outside(start, len, b->len));
    assert_true(at >= start && at < start + len);
    assert_int_equal(b->data[at], 0);
    b->data[at] = (uint8_t)-sum_of(b->data + start, len);
    l->sums++;
}

static void loader_run(struct loader *l, const struct boot_config *cfg)
{
    struct err err = { "" };

    *l = (struct loader){ .pointers = 0 };
    assert_int_equal(boot_fw_files_make(&l->f, cfg, &err), 0);
    assert_int_equal(l->f.loader.len % 128, 0);
    for (size_t n = 0; n < l->f.loader.len; n += 128) {
        const uint8_t *e = l->f.loader.data + n;
        switch (ld_le32(e)) {
        case 1:
            loader_allocate(l, e + 4);
            break;
        case 2:
            loader_pointer(l, e + 4);
            break;
        default:
            assert_int_equal(ld_le32(e), 3);
            loader_checksum(l, e + 4);
        }
    }
}

/* The table at gpa, with a right checksum. */
static const uint8_t *table_at(const struct loader *l, uint64_t gpa, const char *signature)
{
    uint64_t off = gpa - TABLES_GPA;
    const uint8_t *t = l->f.acpi.data + off;

    assert_false(range_outside(off, 36, l->f.acpi.len));
    assert_memory_equal(t, signature, 4);
    assert_false(range_outside(off, ld_le32(t + 4), l->f.acpi.len));
    if (strcmp(signature, "FACS"))
        assert_int_equal(sum_of(t, ld_le32(t + 4)), 0);
    return t;
}

static void test_loader(void **state)
{
    static const char *const want[] = { "FACP", "APIC", "HPET", "MCFG", "WAET" };
    struct boot_config cfg = config(4, 8 * G);
    const uint8_t *xsdt, *fadt;
    struct loader l;

    cfg.ecam = 0xe0000000;
    loader_run(&l, &cfg);
    assert_int_equal(l.f.rsdp.len, 36);
    assert_int_equal(sum_of(l.f.rsdp.data, 20), 0);
    assert_int_equal(sum_of(l.f.rsdp.data, 36), 0);
    xsdt = table_at(&l, ld_le64(l.f.rsdp.data + 24), "XSDT");
    assert_true(ld_le32(xsdt + 4) >= 36 + 8 * ARRAY_LEN(want));
    for (size_t n = 0; n < ARRAY_LEN(want); n++)
        table_at(&l, ld_le64(xsdt + 36 + 8 * n), want[n]);
    fadt = table_at(&l, ld_le64(xsdt + 36), "FACP");
    assert_int_equal(ld_le32(fadt + 36) % 64, 0);
    table_at(&l, ld_le32(fadt + 36), "FACS");
    table_at(&l, ld_le32(fadt + 40), "DSDT");
    assert_int_equal(ld_le64(fadt + 140), ld_le32(fadt + 40));
    assert_int_equal(ld_le64(table_at(&l, ld_le64(xsdt + 36 + 24), "MCFG") + 44), 0xe0000000);
    assert_int_equal(l.sums, 4); /* FADT, XSDT, and two in the RSDP */
    assert_int_equal(l.pointers, 4 + (ld_le32(xsdt + 4) - 36) / 8);
    boot_fw_files_free(&l.f);
}

/* The same as a kernel without firmware gets, but for addresses and sums. */
static void test_same_tables(void **state)
{
    static uint8_t buf[64 * KIB];
    struct boot_config cfg = config(2, 512 * MIB);
    const uint8_t *dsdt;
    struct loader l;

    assert_true(acpi_build(&cfg, LAYOUT_BIOS_BASE, buf, sizeof(buf), NULL) > 0);
    loader_run(&l, &cfg);
    dsdt = l.f.acpi.data + 64; /* after the FACS */
    assert_memory_equal(dsdt, "DSDT", 4);
    assert_memory_equal(buf + 128, dsdt, ld_le32(dsdt + 4));
    boot_fw_files_free(&l.f);
}

static void test_smbios(void **state)
{
    struct boot_config cfg = config(3, 5 * G);
    struct loader l;
    size_t largest = 0;
    unsigned count = 0;

    loader_run(&l, &cfg);
    const uint8_t *a = l.f.smbios_anchor.data, *t = l.f.smbios.data;
    size_t at = 0, n;

    assert_int_equal(l.f.smbios_anchor.len, 31);
    assert_memory_equal(a, "_SM_", 4);
    assert_memory_equal(a + 16, "_DMI_", 5);
    assert_int_equal(sum_of(a, 31), 0);
    assert_int_equal(sum_of(a + 16, 15), 0);
    assert_int_equal(ld_le16(a + 22), l.f.smbios.len);
    for (; at < l.f.smbios.len; at += n, count++) {
        assert_int_not_equal(t[at], 0); /* the BIOS entry is the firmware's */
        for (n = t[at + 1]; t[at + n] || t[at + n + 1]; n++)
            ;
        n += 2;
        largest = n > largest ? n : largest;
        if (t[at] == 127)
            assert_int_equal(at + n, l.f.smbios.len);
    }
    assert_int_equal(ld_le16(a + 28), count);
    assert_int_equal(ld_le16(a + 8), largest);
    assert_int_equal(t[0], 1);
    boot_fw_files_free(&l.f);
}

static void test_e820(void **state)
{
    struct boot_config cfg = config(1, 8 * G);
    struct loader l;

    loader_run(&l, &cfg);
    assert_int_equal(l.f.e820.len, 60);
    assert_int_equal(ld_le64(l.f.e820.data), 0);
    assert_int_equal(ld_le64(l.f.e820.data + 8), 0xb0000000);
    assert_int_equal(ld_le32(l.f.e820.data + 16), E820_RAM);
    assert_int_equal(ld_le32(l.f.e820.data + 36), E820_RESERVED);
    assert_int_equal(ld_le64(l.f.e820.data + 40), 4 * G);
    assert_int_equal(ld_le64(l.f.e820.data + 48), 8 * G - 0xb0000000);
    boot_fw_files_free(&l.f);
    cfg = config(1, 64 * MIB);
    loader_run(&l, &cfg);
    assert_int_equal(l.f.e820.len, 40);
    boot_fw_files_free(&l.f);
}

/* ---- kernels ---- */

static void expect_descriptor(const uint8_t *d, uint32_t key, uint64_t gpa, size_t len)
{
    assert_int_equal(__builtin_bswap32(ld_le32(d)), key << 16 | 8 | 2);
    assert_int_equal(__builtin_bswap32(ld_le32(d + 4)), len);
    assert_int_equal(__builtin_bswap64(ld_le64(d + 8)), gpa);
}

static void test_kernel(void **state)
{
    static uint8_t file[KERNEL_ROOM], initrd[5000];
    struct boot_config cfg = config(1, 64 * MIB);
    struct boot_fw_kernel k;
    struct boot_image img;
    struct err err = { "" };
    size_t len = kernel_bzimage(file);

    assert_int_equal(boot_image_from_memory(&img, file, len, "test", &err), 0);
    cfg.kernel = &img;
    cfg.cmdline = "a=b";
    cfg.initrd = initrd;
    cfg.initrd_len = sizeof(initrd);
    assert_int_equal(boot_fw_kernel_make(&k, &cfg, &err), 0);
    assert_int_equal(k.setup.len, BZ_SETUP_LEN);
    assert_int_equal(k.setup.len + k.kernel_len, len);
    assert_memory_equal(k.kernel, file + BZ_SETUP_LEN, k.kernel_len);
    assert_string_equal((char *)k.cmdline.data, "a=b");
    assert_int_equal(ld_le32(k.setup.data + 0x228), 0x20000);
    assert_int_equal(ld_le32(k.setup.data + 0x218), k.initrd);
    assert_int_equal(ld_le32(k.setup.data + 0x21c), sizeof(initrd));
    assert_int_equal(k.setup.data[0x211], 0x81);
    assert_int_equal(k.initrd, 64 * MIB - MIB - 0x2000);
    assert_int_equal(k.rom.len % 512, 0);
    assert_int_equal(k.rom.data[2], k.rom.len / 512);
    assert_int_equal(ld_le16(k.rom.data), 0xaa55);
    assert_int_equal(sum_of(k.rom.data, k.rom.len), 0);
    const uint8_t *pnp = k.rom.data + ld_le16(k.rom.data + 0x1a), *table = k.rom.data + 0x80;
    assert_memory_equal(pnp, "$PnP", 4);
    assert_int_equal(sum_of(pnp, 32), 0);
    assert_int_equal(k.rom.data[ld_le16(pnp + 0x1a) + 0x12], 4); /* descriptors */
    expect_descriptor(table, 0x18, 0x10000, k.setup.len);
    expect_descriptor(table + 16, 0x15, 0x20000, 4);
    expect_descriptor(table + 32, 0x11, 0x100000, k.kernel_len);
    expect_descriptor(table + 48, 0x12, k.initrd, sizeof(initrd));
    boot_fw_kernel_free(&k);
    cfg.initrd_len = 63 * MIB; /* is not looked at before it is found to be too large */
    assert_int_equal(boot_fw_kernel_make(&k, &cfg, &err), -ENOMEM);
    assert_null(k.setup.data);
    cfg.initrd_len = 0;
    img.kind = BOOT_PVH_ELF;
    assert_int_equal(boot_fw_kernel_make(&k, &cfg, &err), -EINVAL);
    assert_non_null(strstr(err.text, "bzImage"));
    boot_image_close(&img);
}

static void try_file(const char *path, off_t size, int want)
{
    struct boot_firmware fw;
    struct err err = { "" };

    assert_int_equal(truncate(path, size), 0);
    assert_int_equal(boot_firmware_open(&fw, path, &err), want);
    if (want < 0) {
        assert_non_null(strstr(err.text, path));
        assert_null(fw.rom.data);
        return;
    }
    assert_int_equal(fw.rom.len, size);
    assert_null(fw.vars.data);
    boot_firmware_close(&fw);
}

static void test_images(void **state)
{
    char path[] = "/tmp/vitro-test-XXXXXX";
    struct boot_firmware fw;
    struct err err = { "" };
    int fd = mkstemp(path);

    assert_true(fd >= 0);
    close(fd);
    try_file(path, 64 << 10, 0);
    try_file(path, 16 << 20, 0);
    try_file(path, 0, -EINVAL);
    try_file(path, 60 << 10, -EINVAL);
    try_file(path, (64 << 10) + 2048, -EINVAL);
    try_file(path, (16 << 20) + 4096, -EFBIG);
    unlink(path);
    assert_int_equal(boot_firmware_open(&fw, path, &err), -ENOENT);
    assert_int_equal(boot_firmware_open(&fw, "coreboot", &err), -ENOENT);
    assert_non_null(strstr(err.text, "seabios, ovmf"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_loader), cmocka_unit_test(test_same_tables), cmocka_unit_test(test_smbios),
        cmocka_unit_test(test_e820),   cmocka_unit_test(test_images), cmocka_unit_test(test_kernel),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
