/* Memory maps, the bzImage loader, and files that are no kernels: what lands where in guest memory,
 * entry states, and every sentence of refusal. ELF and Multiboot have test_boot_elf.c, the tables
 * test_boot_tables.c; the kernels are made by code (boot_kernels.h). */
#include "boot_guest.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* The memory map */

struct shape {
    uint64_t start, end;
    uint32_t type;
};

static void check_map(uint64_t mem, const struct shape *want, unsigned n)
{
    struct boot_config cfg = { .cpus = 1,
                               .mem_below_4g = layout_below_4g(mem),
                               .mem_above_4g = layout_above_4g(mem) };
    struct boot_e820 map[BOOT_MAP_MAX];
    unsigned got = boot_memory_map(&cfg, map);
    uint64_t ram = 0;

    assert_int_equal(got, n);
    for (unsigned i = 0; i < n; i++) {
        assert_int_equal(map[i].addr, want[i].start);
        assert_int_equal(map[i].addr + map[i].len, want[i].end);
        assert_int_equal(map[i].type, want[i].type);
        if (i)
            assert_true(map[i].addr >= map[i - 1].addr + map[i - 1].len);
        if (map[i].type == E820_RAM)
            ram += map[i].len;
    }
    assert_int_equal(ram, mem - (LAYOUT_BIOS_END - LAYOUT_EBDA));
}

static void test_memory_map(void **state)
{
    static const struct {
        uint64_t mem, low_end, high_end;
    } cases[] = {
        { 64 * MIB, 64 * MIB, 0 },
        { 512 * MIB, 512 * MIB, 0 },
        { 2816 * MIB, 2816 * MIB, 0 },
        { 2817 * MIB, 2816 * MIB, 4 * G + MIB },
        { 2816 * MIB + PAGE_SIZE, 2816 * MIB, 4 * G + PAGE_SIZE },
        { 8 * G, 2816 * MIB, 9 * G + 256 * MIB },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct shape want[] = {
            { 0, 0x9fc00, E820_RAM },
            { 0x9fc00, 0xa0000, E820_RESERVED },
            { 0xe0000, 0x100000, E820_RESERVED },
            { 0x100000, cases[i].low_end, E820_RAM },
            { 0xb0000000, 0xc0000000, E820_RESERVED },
            { 0xfeffb000, 0xff000000, E820_RESERVED },
            { 0x100000000, cases[i].high_end, E820_RAM },
        };
        check_map(cases[i].mem, want, cases[i].high_end ? 7 : 6);
    }
}

static void test_layout(void **state)
{
    assert_int_equal(layout_pci64_base(0), 32 * G);
    assert_int_equal(layout_pci64_base(28 * G), 32 * G);
    assert_int_equal(layout_pci64_base(28 * G + MIB), 64 * G);
    assert_int_equal(layout_pci_gsi(0, 0), 16);
    assert_int_equal(layout_pci_gsi(5, 0), 17);
    assert_int_equal(layout_pci_gsi(31, 3), 18);
}

static void test_place(void **state)
{
    struct boot_config cfg = { .cpus = 1, .mem_below_4g = 4 * MIB };
    struct place p;

    place_init(&p, &cfg);
    assert_int_equal(place_claim(&p, 0x9fbff, 1), 0);
    assert_int_equal(place_claim(&p, 0x9fc00, 1), -EEXIST);
    assert_int_equal(place_claim(&p, 0xfff, 1), -EEXIST);
    assert_int_equal(place_claim(&p, 4 * MIB - 1, 1), 0);
    assert_int_equal(place_claim(&p, 4 * MIB - 1, 2), -ERANGE);
    assert_int_equal(place_claim(&p, UINT64_MAX, 2), -ERANGE);
    assert_int_equal(place_low(&p, 0, 0x1000, 0x1000), 0x1000);
    assert_int_equal(place_low(&p, 0, 0x1000, 0x1000), 0x2000);
    /* Too long for what is left below the video window. */
    assert_int_equal(place_low(&p, 0, 0xa0000, 0x1000), 0x100000);
    assert_int_equal(place_high(&p, UINT64_MAX, 0x1000, 0x1000), 4 * MIB - 0x2000);
    assert_int_equal(place_high(&p, 0x100000, 0x1000, 0x1000), 0x9e000);
    assert_int_equal(place_high(&p, UINT64_MAX, 4 * MIB, 0x1000), 0);
    assert_int_equal(place_low(&p, 0, 4 * MIB, 0x1000), 0);
}

/* bzImage */

/* Follow the page tables from CR3; the address must map to itself, writable. */
static void expect_identity(struct guest *g, uint64_t addr)
{
    uint64_t e = guest_get(g, g->entry.cr3 + bits(addr, 47, 39) * 8, 8);

    assert_int_equal(e & 0x83, 3);
    e = guest_get(g, PAGE_BASE(e) + bits(addr, 38, 30) * 8, 8);
    assert_int_equal(e & 0x83, 3);
    e = guest_get(g, PAGE_BASE(e) + bits(addr, 29, 21) * 8, 8);
    assert_int_equal(e & 0x83, 0x83);
    assert_int_equal((e & ~0x1fffffULL) | bits(addr, 20, 0), addr);
}

static void test_bzimage_loads(void **state)
{
    static const uint8_t initrd[5000] = { 'i', 'n' };
    struct guest g;
    uint64_t zp;

    guest_init(&g, 8 * MIB);
    g.len = kernel_bzimage(g.file);
    g.cfg.initrd = initrd;
    g.cfg.initrd_len = sizeof(initrd);
    assert_int_equal(guest_load(&g), 0);
    assert_int_equal(g.img.kind, BOOT_BZIMAGE);
    assert_int_equal(g.entry.mode, BOOT_LONG64);
    assert_int_equal(g.entry.rip, KERNEL_LOAD + 0x200);
    assert_int_equal(g.entry.cr0 & 0x80000001, 0x80000001);
    assert_int_equal(g.entry.cr4, 0x20);
    assert_int_equal(g.entry.efer, 0x500);
    expect_segments(&g.entry, true);
    expect_gdt(&g, true);
    expect_identity(&g, 0);
    expect_identity(&g, 0x12345678);
    expect_identity(&g, 0xffffffff);

    zp = g.entry.rsi;
    assert_int_equal(guest_get(&g, zp + 0x1ef, 1), 0); /* sentinel */
    assert_int_equal(guest_get(&g, zp + 0x202, 4), 0x53726448);
    assert_int_equal(guest_get(&g, zp + 0x210, 1), 0xff);
    assert_int_equal(guest_get(&g, zp + 0x268, 8), 0); /* nothing from behind the header */
    assert_int_equal(guest_get(&g, zp + 0x70, 8), 0xe0000);
    guest_expect_text(&g, guest_get(&g, zp + 0x228, 4), "console=ttyS0 quiet");
    assert_int_equal(guest_get(&g, zp + 0x218, 4), 8 * MIB - 0x2000);
    assert_int_equal(guest_get(&g, zp + 0x21c, 4), sizeof(initrd));
    assert_int_equal(guest_get(&g, 8 * MIB - 0x2000, 2), 'i' | 'n' << 8);
    assert_int_equal(guest_get(&g, zp + 0x1e8, 1), 6);
    assert_int_equal(guest_get(&g, zp + 0x06, 2), 0); /* no screen */
    assert_int_equal(guest_get(&g, zp + 0x2d0 + 3 * 20 + 8, 8), 7 * MIB);
    assert_int_equal(guest_get(&g, KERNEL_LOAD + 0x300, 2), 0x8b1f);
    assert_int_equal(guest_get(&g, 0x40e, 2), 0x9fc0);
    assert_int_equal(guest_get(&g, 0x413, 2), 639);
    guest_fini(&g);
}

/* One for 32-bit x86: by the 32-bit protocol, at its beginning. */
static void test_bzimage_32(void **state)
{
    struct guest g;

    guest_init(&g, 8 * MIB);
    g.len = kernel_bzimage(g.file);
    st_le16(g.file + 0x236, 0);
    assert_int_equal(guest_load(&g), 0);
    assert_int_equal(g.entry.mode, BOOT_PROT32_LINUX);
    assert_int_equal(g.entry.rip, KERNEL_LOAD);
    assert_int_equal(g.entry.cr0, 0x11);
    assert_int_equal(g.entry.cr3 | g.entry.cr4 | g.entry.efer, 0);
    assert_int_equal(g.entry.rbx | g.entry.rbp | g.entry.rdi, 0);
    expect_segments(&g.entry, false);
    expect_gdt(&g, false);
    assert_int_equal(guest_get(&g, g.entry.rsi + 0x202, 4), 0x53726448);
    guest_expect_text(&g, guest_get(&g, g.entry.rsi + 0x228, 4), "console=ttyS0 quiet");
    guest_fini(&g);
}

/* Mode 3 of a VGA. */
static void test_bzimage_screen(void **state)
{
    struct guest g;

    guest_init(&g, 64 * MIB);
    g.len = kernel_bzimage(g.file);
    g.cfg.vga = true;
    assert_int_equal(guest_load(&g), 0);
    assert_int_equal(guest_get(&g, g.entry.rsi + 0x06, 2), 3 | 80 << 8);
    assert_int_equal(guest_get(&g, g.entry.rsi + 0x0a, 2), 3);
    assert_int_equal(guest_get(&g, g.entry.rsi + 0x0e, 4), 25 | 1 << 8 | 16 << 16);
    guest_fini(&g);
}

static void test_bzimage_address(void **state)
{
    struct guest g;

    guest_init(&g, 64 * MIB);
    g.len = kernel_bzimage(g.file);
    st_le64(g.file + 0x258, 0x123000);
    st_le32(g.file + 0x230, 0x200000);
    assert_int_equal(guest_load(&g), 0);
    assert_int_equal(g.entry.rip, 0x200200);
    boot_image_close(&g.img);
    g.file[0x234] = 0; /* not relocatable: no rounding */
    assert_int_equal(guest_load(&g), 0);
    assert_int_equal(g.entry.rip, 0x123200);
    assert_int_equal(guest_get(&g, g.entry.rsi + 0x218, 8), 0); /* no initrd */
    guest_fini(&g);
}

/* The initrd stays below what the kernel can reach. */
static void test_bzimage_initrd_limit(void **state)
{
    static const uint8_t initrd[PAGE_SIZE];
    struct guest g;

    guest_init(&g, 64 * MIB);
    g.len = kernel_bzimage(g.file);
    g.cfg.initrd = initrd;
    g.cfg.initrd_len = sizeof(initrd);
    st_le32(g.file + 0x22c, 0x2000fff - 0x1000);
    assert_int_equal(guest_load(&g), 0);
    assert_int_equal(guest_get(&g, g.entry.rsi + 0x218, 4), 0x1fff000);
    guest_fini(&g);
}

/* Change one header field of len bytes at off, and expect says. */
static void bz_refused(unsigned off, unsigned len, uint64_t value, const char *says)
{
    struct guest g;
    uint8_t raw[8];

    guest_init(&g, 8 * MIB);
    g.len = kernel_bzimage(g.file);
    st_le64(raw, value);
    memcpy(g.file + off, raw, len);
    guest_expect_error(&g, guest_load(&g), says);
    assert_non_null(strstr(g.err.text, "kernel kern: "));
    guest_fini(&g);
}

static void test_bzimage_refused(void **state)
{
    bz_refused(0x1fe, 2, 0, "boot flag AA55 is missing");
    bz_refused(0x206, 2, 0x20b, "boot protocol 2.11, older than");
    bz_refused(0x211, 1, 0, "a zImage that loads below 1 MiB");
    bz_refused(0x201, 1, 0x61, "setup header is shorter");
    bz_refused(0x200, 1, 0x90, "setup header is shorter");
    bz_refused(0x1f1, 1, 200, "is truncated: its 2048 bytes end inside the setup code");
    bz_refused(0x1f4, 4, 65, "header announces 2064 bytes, the file has 2048");
    bz_refused(0x1f4, 4, 0xffffffff, "is truncated");
    bz_refused(0x1f4, 4, 0x20, "ends before its entry point");
    bz_refused(0x248, 4, 0x3f0, "payload lies outside the kernel");
    bz_refused(0x248, 4, 0xffffffff, "payload lies outside the kernel");
    bz_refused(0x24c, 4, 0, "payload lies outside the kernel");
    bz_refused(0x248, 4, 0x100, "no known compression format");
    bz_refused(0x258, 8, 0xfffff, "not between 1 MiB and 3 GiB");
    bz_refused(0x258, 8, UINT64_MAX, "not between 1 MiB and 3 GiB");
    bz_refused(0x230, 4, 0, "not a power of two");
    bz_refused(0x230, 4, 0x3000, "not a power of two");
    bz_refused(0x260, 4, 0x3ff, "initialisation size does not fit");
    bz_refused(0x260, 4, 0xffffffff, "initialisation size does not fit");
    bz_refused(0x260, 4, 8 * MIB, "8 MiB of memory are too small, it needs at least 9 MiB");
    bz_refused(0x238, 4, 18, "command line can have 18 bytes, the one given has 19");
}

static void test_bzimage_truncated(void **state)
{
    struct guest g;
    size_t full;

    guest_init(&g, 8 * MIB);
    full = kernel_bzimage(g.file);
    for (g.len = 0x206; g.len < full; g.len++) {
        guest_expect_error(&g, guest_load(&g), "is truncated");
        assert_null(g.img.data);
    }
    guest_fini(&g);
}

/* The CRC-32 that makes that of the whole file 0. */
static void bz_seal(struct guest *g)
{
    uint32_t crc = 0xffffffff;

    for (size_t i = 0; i < g->len - 4; i++) {
        crc ^= g->file[i];
        for (int b = 0; b < 8; b++)
            crc = crc >> 1 ^ (crc & 1 ? 0xedb88320 : 0);
    }
    st_le32(g->file + g->len - 4, crc);
}

/* A kernel whose version text is old enough to have a checksum needs a right one. */
static void test_bzimage_checksum(void **state)
{
    struct guest g;

    guest_init(&g, 8 * MIB);
    g.len = kernel_bzimage(g.file);
    st_le16(g.file + 0x20e, BZ_VERSION - 0x200);
    guest_expect_error(&g, guest_load(&g), "checksum does not match");
    bz_seal(&g);
    assert_int_equal(guest_load(&g), 0);
    boot_image_close(&g.img);
    st_le32(g.file + BZ_PE_SUM, 0x12345678); /* signed for secure boot */
    st_le64(g.file + BZ_PE_CERT, 0x0000100000001234);
    assert_int_equal(guest_load(&g), 0);
    boot_image_close(&g.img);
    st_le16(g.file + BZ_PE_MAGIC, 0x10b); /* as in kernels for 32-bit x86, where the certificate's place is another */
    guest_expect_error(&g, guest_load(&g), "checksum does not match");
    st_le32(g.file + BZ_PE_SUM, 0);
    st_le64(g.file + BZ_PE_CERT, 0);
    bz_seal(&g);
    st_le32(g.file + BZ_PE_SUM, 0x12345678);
    st_le64(g.file + BZ_PE_CERT - 16, 0x0000100000001234);
    assert_int_equal(guest_load(&g), 0);
    boot_image_close(&g.img);
    g.file[0x640] ^= 1;
    guest_expect_error(&g, guest_load(&g), "checksum does not match");
    memcpy(g.file + BZ_VERSION, "6.15", 4); /* has none */
    assert_int_equal(guest_load(&g), 0);
    guest_fini(&g);
}

static void test_initrd_too_large(void **state)
{
    static const uint8_t initrd[7 * MIB];
    struct guest g;

    guest_init(&g, 8 * MIB);
    g.len = kernel_bzimage(g.file);
    g.cfg.initrd = initrd;
    g.cfg.initrd_len = 7 * MIB - BZ_INIT_SIZE;
    assert_int_equal(guest_load(&g), 0);
    boot_image_close(&g.img);
    g.cfg.initrd_len++;
    guest_expect_error(&g, guest_load(&g), "initrd: its 7 MiB do not fit beside kernel kern");
    guest_fini(&g);
}

static void test_bad_config(void **state)
{
    struct guest g;

    guest_init(&g, 8 * MIB);
    g.len = kernel_bzimage(g.file);
    g.cfg.mem_below_4g = MIB;
    guest_expect_error(&g, guest_load(&g), "1024 KiB of memory are too small");
    boot_image_close(&g.img);
    g.cfg.mem_below_4g = 8 * MIB + 1;
    guest_expect_error(&g, guest_load(&g), "not a multiple of 4 KiB");
    boot_image_close(&g.img);
    g.cfg.mem_below_4g = LAYOUT_4G;
    guest_expect_error(&g, guest_load(&g), "more than this machine can address");
    boot_image_close(&g.img);
    g.cfg.mem_below_4g = 8 * MIB;
    g.cfg.mem_above_4g = 1ULL << 60;
    guest_expect_error(&g, guest_load(&g), "more than this machine can address");
    boot_image_close(&g.img);
    g.cfg.mem_above_4g = 0;
    g.cfg.cpus = 0;
    guest_expect_error(&g, guest_load(&g), "at least 1 CPU");
    boot_image_close(&g.img);
    g.cfg.cpus = 100000;
    guest_expect_error(&g, guest_load(&g), "use fewer CPUs");
    boot_image_close(&g.img);
    g.cfg.cpus = 1;
    g.cfg.mem_below_4g = 16 * MIB; /* more than there is */
    g.cfg.initrd = g.file;
    g.cfg.initrd_len = 10;
    guest_expect_error(&g, guest_load(&g), "which is not RAM");
    guest_fini(&g);
}

/* Other files */

static void other_refused(size_t off, const char *magic, size_t len, const char *says)
{
    struct guest g;

    guest_init(&g, 8 * MIB);
    g.len = 0x400;
    memcpy(g.file + off, magic, len);
    guest_expect_error(&g, guest_load(&g), says);
    guest_fini(&g);
}

static void test_other_files(void **state)
{
    struct guest g;

    other_refused(0x38, "ARM\x64", 4, "for 64-bit ARM");
    other_refused(0x38, "RSC\x05", 4, "for RISC-V");
    other_refused(0x24, "\x18\x28\x6f\x01", 4, "for 32-bit ARM");
    other_refused(0, "\x1f\x8b", 2, "compressed with gzip");
    other_refused(0,
                  "\xfd"
                  "7zXZ",
                  5, "compressed with xz");
    other_refused(0, "\x28\xb5\x2f\xfd", 4, "compressed with zstd");
    other_refused(0, "\x02\x21\x4c\x18", 4, "compressed with lz4");
    other_refused(0, "QFI\xfb", 4, "a qcow2 disk image");
    other_refused(0, "070701", 6, "a cpio archive");
    other_refused(0, "!<arch>\n", 8, "Debian package");
    other_refused(0, "MZ", 2, "an EFI program");
    other_refused(0, "hello", 5, "neither a bzImage, nor an ELF file");
    guest_init(&g, 8 * MIB);
    guest_expect_error(&g, guest_load(&g), "is empty");
    memcpy(g.file,
           "\x7f"
           "ELF\2",
           5);
    g.len = 5;
    guest_expect_error(&g, guest_load(&g), "ends inside the ELF header");
    guest_fini(&g);
}

static void test_files(void **state)
{
    char dir[] = "/tmp/test-boot-XXXXXX", path[64];
    struct boot_image img;
    struct guest g = { .len = 0 };
    uint8_t *data;
    size_t len;
    FILE *f;

    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/k", dir);
    guest_expect_error(&g, boot_image_open(&img, path, &g.err), "cannot be opened: No such file");
    assert_null(img.data);
    guest_expect_error(&g, boot_image_open(&img, dir, &g.err), "not a regular file");
    assert_int_equal(mkfifo(path, 0600), 0);
    guest_expect_error(&g, boot_image_open(&img, path, &g.err), "not a regular file");
    assert_int_equal(unlink(path), 0);
    f = fopen(path, "wb");
    assert_non_null(f);
    g.len = kernel_bzimage(g.file);
    assert_int_equal(fwrite(g.file, 1, g.len, f), g.len);
    assert_int_equal(fclose(f), 0);
    assert_int_equal(boot_image_open(&img, path, &g.err), 0);
    assert_string_equal(img.name, "k");
    assert_int_equal(img.len, g.len);
    boot_image_close(&img);
    boot_image_close(&img);
    guest_expect_error(&g, boot_read_file(path, "initrd", 100, &data, &len, &g.err), "more than the 100");
    assert_int_equal(boot_read_file(path, "initrd", 4096, &data, &len, &g.err), 0);
    assert_memory_equal(data, g.file, len);
    free(data);
    assert_int_equal(truncate(path, (off_t)1 << 40), 0); /* sparse */
    guest_expect_error(&g, boot_image_open(&img, path, &g.err), "is it the right file?");
    unlink(path);
    rmdir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_memory_map),
        cmocka_unit_test(test_layout),
        cmocka_unit_test(test_place),
        cmocka_unit_test(test_bzimage_loads),
        cmocka_unit_test(test_bzimage_32),
        cmocka_unit_test(test_bzimage_screen),
        cmocka_unit_test(test_bzimage_address),
        cmocka_unit_test(test_bzimage_initrd_limit),
        cmocka_unit_test(test_bzimage_refused),
        cmocka_unit_test(test_bzimage_truncated),
        cmocka_unit_test(test_bzimage_checksum),
        cmocka_unit_test(test_initrd_too_large),
        cmocka_unit_test(test_bad_config),
        cmocka_unit_test(test_other_files),
        cmocka_unit_test(test_files),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
