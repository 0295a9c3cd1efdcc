/* The ELF (PVH) and Multiboot loaders: what lands where in guest memory, entry states, and every
 * sentence of refusal. The kernels are made by code (boot_kernels.h). */
#include "boot_guest.h"

#include <stdlib.h>

/* ELF with a PVH note */

static void test_pvh_loads(void **state)
{
    static const uint8_t initrd[100] = { 'x' };
    struct guest g;
    uint64_t info, mod, map;

    guest_init(&g, 8 * MIB);
    g.len = kernel_pvh64(g.file);
    g.cfg.initrd = initrd;
    g.cfg.initrd_len = sizeof(initrd);
    assert_int_equal(ram_fill(&g.ram, KERNEL_LOAD, 0x55, 0x1000), 0);
    assert_int_equal(guest_load(&g), 0);
    assert_int_equal(g.img.kind, BOOT_PVH_ELF);
    assert_int_equal(g.entry.mode, BOOT_PROT32_PVH);
    assert_int_equal(g.entry.rip, KERNEL_LOAD + 0x10);
    assert_int_equal(g.entry.cr0 & 0x80000001, 1);
    assert_int_equal(g.entry.cr4 | g.entry.efer, 0);
    expect_segments(&g.entry, false);
    expect_gdt(&g, false);
    assert_int_equal(guest_get(&g, KERNEL_LOAD + ELF_LEN - 1, 1), 0xcc);
    assert_int_equal(guest_get(&g, KERNEL_LOAD + ELF_LEN, 8), 0); /* BSS is cleared */
    assert_int_equal(guest_get(&g, KERNEL_LOAD + ELF_MEMSZ - 8, 8), 0);
    assert_int_equal(guest_get(&g, KERNEL_LOAD + ELF_MEMSZ, 1), 0x55);

    info = g.entry.rbx;
    assert_int_equal(guest_get(&g, info, 4), 0x336ec578);
    assert_int_equal(guest_get(&g, info + 4, 4), 1);
    assert_int_equal(guest_get(&g, info + 12, 4), 1);
    guest_expect_text(&g, guest_get(&g, info + 24, 8), "console=ttyS0 quiet");
    assert_int_equal(guest_get(&g, info + 32, 8), 0xe0000);
    assert_int_equal(guest_get(&g, info + 48, 4), 6);
    mod = guest_get(&g, info + 16, 8);
    assert_int_equal(guest_get(&g, mod, 8), 8 * MIB - PAGE_SIZE);
    assert_int_equal(guest_get(&g, mod + 8, 8), sizeof(initrd));
    map = guest_get(&g, info + 40, 8);
    assert_int_equal(guest_get(&g, map + 3 * 24, 8), 0x100000);
    assert_int_equal(guest_get(&g, map + 3 * 24 + 8, 8), 7 * MIB);
    assert_int_equal(guest_get(&g, map + 3 * 24 + 16, 4), 1);
    guest_fini(&g);
}

/* A change to the PVH kernel and the sentence that it must lead to. */
static void elf_refused(unsigned off, unsigned len, uint64_t value, const char *says)
{
    struct guest g;
    uint8_t raw[8];

    guest_init(&g, 8 * MIB);
    g.len = kernel_pvh64(g.file);
    st_le64(raw, value);
    memcpy(g.file + off, raw, len);
    guest_expect_error(&g, guest_load(&g), says);
    assert_non_null(strstr(g.err.text, "kernel kern: "));
    guest_fini(&g);
}

static void test_elf_refused(void **state)
{
    unsigned ph = ELF_PHDR64;

    elf_refused(4, 1, 3, "neither of the 32-bit nor of the 64-bit class");
    elf_refused(5, 1, 2, "big-endian machine");
    elf_refused(5, 1, 0, "byte order is neither");
    elf_refused(18, 2, EM_AARCH64, "for another machine (number 183 in its header)");
    elf_refused(18, 2, EM_RISCV, "for another machine");
    elf_refused(16, 2, ET_REL, "not linked");
    elf_refused(56, 2, 0, "without program headers");
    elf_refused(56, 2, 257, "more than 256 program headers");
    elf_refused(54, 2, 55, "unknown size");
    elf_refused(32, 8, 0x400, "program headers lie outside the file");
    elf_refused(32, 8, UINT64_MAX - 4, "program headers lie outside the file");
    elf_refused(ph + 8, 8, 0x300, "a segment lies outside the file");
    elf_refused(ph + 8, 8, UINT64_MAX, "a segment lies outside the file");
    elf_refused(ph + 32, 8, UINT64_MAX, "a segment lies outside the file");
    elf_refused(ph + 40, 8, 0x1ff, "longer in the file than in memory");
    elf_refused(ph + 24, 8, 0x100000000, "outside the first 4 GiB");
    elf_refused(ph + 40, 8, UINT64_MAX, "outside the first 4 GiB");
    elf_refused(ph, 4, PT_DYNAMIC, "no segment to load");
    elf_refused(ph + 24, 8, 0x200000, "PVH entry point 0x100010 lies in no segment");
    elf_refused(ELF_NOTE + 16, 4, 0x5000, "PVH entry point 0x5000 lies in no segment");
    elf_refused(ELF_NOTE + 20, 4, 1, "neither a PVH note nor a Multiboot 1 header");
    elf_refused(ELF_NOTE, 4, 0xfffffff0, "neither a PVH note nor a Multiboot 1 header");
    elf_refused(ELF_NOTE + 8, 4, 17, "neither a PVH note nor a Multiboot 1 header");
    elf_refused(ph + 40, 8, 8 * MIB, "8 MiB of memory are too small, it wants to be loaded up to 9 MiB");
}

/* Segments over areas that are taken: entry point and note move along. */
static void test_elf_placement(void **state)
{
    static const uint64_t bad[] = { 0, 0x800, 0x9fb00, 0xa0000, 0xf0000, 0xffe00 };

    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct guest g;
        guest_init(&g, 8 * MIB);
        g.len = kernel_pvh64(g.file);
        st_le64(g.file + ELF_PHDR64 + 24, bad[i]);
        st_le32(g.file + ELF_NOTE + 16, (uint32_t)bad[i]);
        guest_expect_error(&g, guest_load(&g), "overlaps another one or an area that is no plain RAM");
        guest_fini(&g);
    }
}

static void test_pvh_cmdline_limit(void **state)
{
    static char text[70000];
    struct guest g;

    memset(text, 'a', sizeof(text) - 1);
    guest_init(&g, 8 * MIB);
    g.cfg.cmdline = text;
    g.len = kernel_pvh64(g.file);
    guest_expect_error(&g, guest_load(&g), "longer than 65535 bytes");
    boot_image_close(&g.img);
    g.len = kernel_multiboot_elf(g.file);
    guest_expect_error(&g, guest_load(&g), "is too long");
    boot_image_close(&g.img);
    text[65535] = 0;
    g.len = kernel_pvh64(g.file);
    assert_int_equal(guest_load(&g), 0);
    guest_fini(&g);
}

/* Multiboot */

static void expect_multiboot_info(struct guest *g, uint64_t kernel_end, const char *cmdline)
{
    uint64_t info = g->entry.rbx, mmap;

    assert_int_equal(g->entry.mode, BOOT_PROT32_MULTIBOOT);
    assert_int_equal(g->entry.rax, 0x2badb002);
    assert_int_equal(g->entry.cr0 & 0x80000001, 1);
    expect_segments(&g->entry, false);
    assert_true(info >= kernel_end);
    assert_int_equal(guest_get(g, info + 4, 4), 639);
    assert_int_equal(guest_get(g, info + 8, 4), 7 * 1024);
    guest_expect_text(g, guest_get(g, info + 16, 4), cmdline);
    guest_expect_text(g, guest_get(g, info + 64, 4), "vitro");
    assert_int_equal(guest_get(g, info + 44, 4), 6 * 24);
    mmap = guest_get(g, info + 48, 4);
    assert_int_equal(guest_get(g, mmap, 4), 20);
    assert_int_equal(guest_get(g, mmap + 3 * 24 + 4, 8), 0x100000);
    assert_int_equal(guest_get(g, mmap + 3 * 24 + 12, 8), 7 * MIB);
    assert_int_equal(guest_get(g, mmap + 3 * 24 + 20, 4), 1);
}

static void test_multiboot_elf_loads(void **state)
{
    static const uint8_t initrd[100] = { 'm' };
    struct guest g;
    uint64_t mods;

    guest_init(&g, 8 * MIB);
    g.len = kernel_multiboot_elf(g.file);
    g.cfg.initrd = initrd;
    g.cfg.initrd_len = sizeof(initrd);
    assert_int_equal(guest_load(&g), 0);
    assert_int_equal(g.img.kind, BOOT_MULTIBOOT1);
    assert_int_equal(g.entry.rip, KERNEL_LOAD + 0x20);
    expect_multiboot_info(&g, KERNEL_LOAD + ELF_MEMSZ, "kern console=ttyS0 quiet");
    assert_int_equal(guest_get(&g, g.entry.rbx, 4), 0x24d);
    assert_int_equal(guest_get(&g, g.entry.rbx + 20, 4), 1);
    mods = guest_get(&g, g.entry.rbx + 24, 4);
    assert_int_equal(guest_get(&g, mods, 4), 8 * MIB - PAGE_SIZE);
    assert_int_equal(guest_get(&g, mods + 4, 4), 8 * MIB - PAGE_SIZE + sizeof(initrd));
    guest_expect_text(&g, guest_get(&g, mods + 8, 4), "");
    guest_fini(&g);
}

static void test_multiboot_flat_loads(void **state)
{
    struct guest g;

    guest_init(&g, 8 * MIB);
    g.len = kernel_multiboot_flat(g.file);
    g.cfg.cmdline = NULL;
    assert_int_equal(ram_fill(&g.ram, KERNEL_LOAD, 0x55, 0x1000), 0);
    assert_int_equal(guest_load(&g), 0);
    assert_int_equal(g.entry.rip, KERNEL_LOAD + 0x80);
    assert_int_equal(guest_get(&g, g.entry.rbx, 4), 0x245);
    expect_multiboot_info(&g, KERNEL_LOAD + 0x800, "kern");
    assert_int_equal(guest_get(&g, KERNEL_LOAD, 1), 0xcc);
    assert_int_equal(guest_get(&g, KERNEL_LOAD + 0x3ff, 1), 0xcc);
    assert_int_equal(guest_get(&g, KERNEL_LOAD + 0x400, 8), 0);
    assert_int_equal(guest_get(&g, KERNEL_LOAD + 0x7f8, 8), 0);
    assert_int_equal(guest_get(&g, KERNEL_LOAD + 0x800, 1), 0x55);
    guest_fini(&g);
}

static void mb_refused(size_t (*make)(uint8_t *), unsigned off, uint32_t value, const char *says)
{
    struct guest g;

    guest_init(&g, 8 * MIB);
    g.len = make(g.file);
    st_le32(g.file + off, value);
    guest_expect_error(&g, guest_load(&g), says);
    guest_fini(&g);
}

/* A valid header with flags in place of the one at off. */
static void mb_flags_refused(size_t (*make)(uint8_t *), unsigned off, uint32_t flags, const char *says)
{
    struct guest g;

    guest_init(&g, 8 * MIB);
    g.len = make(g.file);
    kernel_put_multiboot(g.file + off, flags);
    guest_expect_error(&g, guest_load(&g), says);
    guest_fini(&g);
}

static size_t kernel_multiboot_elf64(uint8_t *buf)
{
    size_t len = kernel_pvh64(buf);

    st_le32(buf + ELF_NOTE + 8, 17); /* no PVH */
    kernel_put_multiboot(buf + ELF_CODE, 3);
    return len;
}

static void test_multiboot_refused(void **state)
{
    size_t (*flat)(uint8_t *) = kernel_multiboot_flat;

    mb_flags_refused(flat, FLAT_HDR, 3, "no ELF file, but the header gives no load addresses");
    mb_flags_refused(flat, FLAT_HDR, 1 << 16 | 8, "requires features that do not exist (flags 0x10008)");
    mb_refused(flat, FLAT_HDR + 12, KERNEL_LOAD - 1, "does not fit the header's own address");
    mb_refused(flat, FLAT_HDR + 12, KERNEL_LOAD + FLAT_HDR + 1, "does not fit the header's own address");
    mb_refused(flat, FLAT_HDR + 20, KERNEL_LOAD + 0x401, "load end address lies outside the file");
    mb_refused(flat, FLAT_HDR + 20, KERNEL_LOAD - 1, "load end address lies outside the file");
    mb_refused(flat, FLAT_HDR + 28, KERNEL_LOAD - 1, "entry address lies outside what it loads");
    mb_refused(flat, FLAT_HDR + 28, KERNEL_LOAD + 0x800, "entry address lies outside what it loads");
    mb_refused(flat, FLAT_HDR + 24, 0x1000000,
               "8 MiB of memory are too small, it wants to be loaded up to 16 MiB");
    mb_refused(flat, FLAT_HDR + 8, 0, "neither a bzImage, nor an ELF file, nor has it a Multiboot header");
    mb_refused(kernel_multiboot_elf, 24, KERNEL_LOAD + ELF_MEMSZ, "entry point 0x100300 lies in no segment");
    mb_refused(kernel_elf32, ELF_CODE, 0, "neither a PVH note nor a Multiboot 1 header");
    mb_refused(kernel_multiboot_elf64, ELF_CODE + 0x40, 0, "a 64-bit ELF file with a Multiboot 1 header");
}

static void test_multiboot_placement(void **state)
{
    struct guest g;

    guest_init(&g, 8 * MIB);
    g.len = kernel_multiboot_flat(g.file);
    st_le32(g.file + FLAT_HDR + 12, 0x9f800 + FLAT_HDR);
    st_le32(g.file + FLAT_HDR + 16, 0x9f800);
    st_le32(g.file + FLAT_HDR + 20, 0);
    st_le32(g.file + FLAT_HDR + 24, 0);
    st_le32(g.file + FLAT_HDR + 28, 0x9f880);
    assert_int_equal(guest_load(&g), 0); /* ends exactly where the EBDA starts */
    assert_int_equal(g.entry.rip, 0x9f880);
    boot_image_close(&g.img);
    st_le32(g.file + FLAT_HDR + 24, 0x9fc01);
    guest_expect_error(&g, guest_load(&g), "over an area that is no plain RAM");
    guest_fini(&g);
}

/* A second load, as after a reboot, gives the same memory. */
static void test_reload(void **state)
{
    struct guest g;
    struct boot_entry first;

    guest_init(&g, 8 * MIB);
    g.len = kernel_pvh64(g.file);
    assert_int_equal(guest_load(&g), 0);
    first = g.entry;
    assert_int_equal(ram_fill(&g.ram, 0, 0xaa, LAYOUT_VGA_BASE), 0);
    assert_int_equal(ram_fill(&g.ram, LAYOUT_VGA_END, 0xaa, 8 * MIB - LAYOUT_VGA_END), 0);
    assert_int_equal(boot_load(&g.ram, &g.cfg, &g.entry, &g.err), 0);
    assert_memory_equal(&first, &g.entry, sizeof(first));
    assert_int_equal(guest_get(&g, g.entry.rbx, 4), 0x336ec578);
    assert_int_equal(guest_get(&g, KERNEL_LOAD + ELF_LEN, 8), 0);
    expect_gdt(&g, false);
    guest_fini(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pvh_loads),
        cmocka_unit_test(test_elf_refused),
        cmocka_unit_test(test_elf_placement),
        cmocka_unit_test(test_pvh_cmdline_limit),
        cmocka_unit_test(test_multiboot_elf_loads),
        cmocka_unit_test(test_multiboot_flat_loads),
        cmocka_unit_test(test_multiboot_refused),
        cmocka_unit_test(test_multiboot_placement),
        cmocka_unit_test(test_reload),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
