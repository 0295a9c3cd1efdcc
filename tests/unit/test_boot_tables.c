/* ACPI and SMBIOS tables as a guest finds them: from the anchors, by addresses, with checksums; and
 * as iasl, ACPICA's own compiler, reads them. */
#include "test.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "boot/aml.h"
#include "boot/boot.h"
#include "boot/parts.h"

#define G (1024 * MIB)

static struct boot_config config(unsigned cpus, uint64_t mem)
{
    return (struct boot_config){ .cpus = cpus,
                                 .mem_below_4g = layout_below_4g(mem),
                                 .mem_above_4g = layout_above_4g(mem) };
}

/* The BIOS area as boot_load_tables() writes it, in a static copy indexed by address. */
struct area {
    uint8_t bytes[LAYOUT_BIOS_END - LAYOUT_BIOS_BASE];
};

static void area_load(struct area *a, const struct boot_config *cfg)
{
    struct ram ram;
    struct err err;

    ram_init(&ram);
    assert_int_equal(ram_add_slot(&ram, 0, LAYOUT_VGA_BASE, false), 0);
    assert_int_equal(ram_add_slot(&ram, LAYOUT_VGA_END, LAYOUT_BIOS_END - LAYOUT_VGA_END, false), 0);
    assert_int_equal(boot_load_tables(&ram, cfg, &err), 0);
    assert_int_equal(ram_read(&ram, LAYOUT_BIOS_BASE, a->bytes, sizeof(a->bytes)), 0);
    ram_fini(&ram);
}

static const uint8_t *area_at(const struct area *a, uint64_t gpa, size_t len)
{
    assert_true(gpa >= LAYOUT_BIOS_BASE && gpa < LAYOUT_BIOS_END && len <= LAYOUT_BIOS_END - gpa);
    return a->bytes + (gpa - LAYOUT_BIOS_BASE);
}

static void expect_sum(const uint8_t *p, size_t len)
{
    uint8_t sum = 0;

    for (size_t i = 0; i < len; i++)
        sum = (uint8_t)(sum + p[i]);
    assert_int_equal(sum, 0);
}

/* A table at gpa with a right checksum; its length may be wanted. */
static const uint8_t *table_at(const struct area *a, uint64_t gpa, const char *sig, uint32_t *len)
{
    const uint8_t *t = area_at(a, gpa, 36);

    *len = ld_le32(t + 4);
    assert_true(*len >= 36);
    if (sig)
        assert_memory_equal(t, sig, 4);
    expect_sum(area_at(a, gpa, *len), *len);
    return t;
}

/* Find a table by way of the anchor, as a scanning guest does. */
static const uint8_t *table_find(const struct area *a, const char *sig, uint32_t *len)
{
    const uint8_t *rsdp = NULL, *xsdt;
    uint32_t xsdt_len;

    for (size_t at = 0; at < sizeof(a->bytes) && !rsdp; at += 16)
        if (memcmp(a->bytes + at, "RSD PTR ", 8) == 0)
            rsdp = a->bytes + at;
    assert_non_null(rsdp);
    expect_sum(rsdp, 20);
    expect_sum(rsdp, 36);
    xsdt = table_at(a, ld_le64(rsdp + 24), "XSDT", &xsdt_len);
    for (uint32_t at = 36; at < xsdt_len; at += 8) {
        uint64_t gpa = ld_le64(xsdt + at);
        const uint8_t *t = table_at(a, gpa, NULL, len);
        if (memcmp(t, sig, 4) == 0)
            return t;
    }
    print_message("no table %s\n", sig);
    assert_true(false);
    return NULL;
}

static void test_fadt(void **state)
{
    struct boot_config cfg = config(2, 512 * MIB);
    struct area a;
    const uint8_t *t, *facs;
    uint32_t len;

    area_load(&a, &cfg);
    t = table_find(&a, "FACP", &len);
    assert_int_equal(len, 276);
    assert_int_equal(t[8], 6);
    assert_int_equal(ld_le16(t + 46), 9);
    assert_int_equal(ld_le32(t + 48), 0xb2);
    assert_int_equal(ld_le16(t + 52), 0xf0f1);
    assert_int_equal(ld_le32(t + 56), 0x600);
    assert_int_equal(ld_le32(t + 64), 0x604);
    assert_int_equal(ld_le32(t + 76), 0x608);
    assert_int_equal(ld_le32(t + 80), 0x620);
    assert_int_equal(ld_le64(t + 152), 0x600);
    assert_int_equal(ld_le64(t + 120), 0xcf9);
    assert_int_equal(t[128], 6);
    assert_int_equal(ld_le32(t + 112) & BIT(20), 0); /* not hardware-reduced */
    assert_int_equal(ld_le32(t + 112) & BIT(8), 0);  /* 24-bit timer */
    facs = area_at(&a, ld_le32(t + 36), 64);
    assert_memory_equal(facs, "FACS", 4);
    assert_int_equal(ld_le32(t + 36) % 64, 0);
    assert_int_equal(ld_le64(t + 140), ld_le32(t + 40));
    table_at(&a, ld_le64(t + 140), "DSDT", &len);
}

/* Walk the MADT's entries; count them by type. */
static void madt_count(const uint8_t *t, uint32_t len, unsigned count[16])
{
    uint32_t at = 44;

    for (; at < len; at += t[at + 1]) {
        assert_true(t[at + 1] >= 2 && at + t[at + 1] <= len && t[at] < 16);
        if (t[at] == 0)
            assert_int_equal(t[at + 3], count[0]);
        if (t[at] == 9)
            assert_int_equal(ld_le32(t + at + 4), 255 + count[9]);
        if (t[at] == 1)
            assert_int_equal(ld_le32(t + at + 4), 0xfec00000);
        if (t[at] == 2 && t[at + 3] == 9)
            assert_int_equal(ld_le16(t + at + 8), 0xd);
        count[t[at]]++;
    }
    assert_int_equal(at, len);
}

static void test_madt(void **state)
{
    static const unsigned cpus[] = { 1, 2, 64, 255, 256, 300 };

    for (size_t i = 0; i < ARRAY_LEN(cpus); i++) {
        struct boot_config cfg = config(cpus[i], 512 * MIB);
        unsigned count[16] = { 0 };
        struct area a;
        uint32_t len;
        area_load(&a, &cfg);
        const uint8_t *t = table_find(&a, "APIC", &len);
        assert_int_equal(ld_le32(t + 36), 0xfee00000);
        assert_int_equal(ld_le32(t + 40), 1);
        madt_count(t, len, count);
        assert_int_equal(count[0], cpus[i] < 255 ? cpus[i] : 255);
        assert_int_equal(count[9], cpus[i] - count[0]);
        assert_int_equal(count[1], 1);
        assert_int_equal(count[2], 2);
        assert_int_equal(count[4], 1);
        assert_int_equal(count[10], count[9] ? 1 : 0);
    }
}

static void test_small_tables(void **state)
{
    struct boot_config cfg = config(1, 512 * MIB);
    struct area a;
    const uint8_t *t;
    uint32_t len;

    area_load(&a, &cfg);
    t = table_find(&a, "HPET", &len);
    assert_int_equal(ld_le32(t + 36), LAYOUT_HPET_ID);
    assert_int_equal(ld_le64(t + 44), 0xfed00000);
    t = table_find(&a, "MCFG", &len);
    assert_int_equal(ld_le64(t + 44), 0xb0000000);
    assert_int_equal(t[54], 0);
    assert_int_equal(t[55], 255);
    table_find(&a, "WAET", &len);
}

/* SMBIOS: walk the structures; the offset of the first of this type, or 0. */
static size_t smbios_find(const uint8_t *t, size_t len, uint8_t type, unsigned *count)
{
    size_t at = 0, found = 0;

    *count = 0;
    while (at < len) {
        size_t end = at + t[at + 1];
        assert_true(t[at + 1] >= 4 && end + 2 <= len);
        if (t[at] == type && !(*count)++)
            found = at;
        while (t[end] || t[end + 1])
            assert_true(++end + 2 <= len);
        if (t[at] == 127)
            assert_int_equal(end + 2, len);
        at = end + 2;
    }
    return found;
}

static void test_smbios(void **state)
{
    static const uint8_t types[] = { 0, 1, 3, 4, 16, 17, 19, 32, 127 };
    static const uint8_t uuid[] = { 3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15 };
    struct boot_config cfg = config(4, 8 * G);
    struct area a;
    const uint8_t *e, *t;
    unsigned count;
    size_t len, at;

    for (uint8_t i = 0; i < 16; i++)
        cfg.uuid[i] = i;
    area_load(&a, &cfg);
    e = area_at(&a, LAYOUT_SMBIOS, 24);
    assert_memory_equal(e, "_SM3_", 5);
    expect_sum(e, e[6]);
    len = ld_le32(e + 12);
    t = area_at(&a, ld_le64(e + 16), len);
    for (size_t i = 0; i < sizeof(types); i++) {
        smbios_find(t, len, types[i], &count);
        assert_int_equal(count, types[i] == 19 ? 2 : 1);
    }
    at = smbios_find(t, len, 1, &count);
    assert_memory_equal(t + at + 8, uuid, 16);
    assert_memory_equal(t + at + t[at + 1], "vitro\0vitro\0", 12);
    at = smbios_find(t, len, 4, &count);
    assert_int_equal(t[at + 35], 4);
    at = smbios_find(t, len, 17, &count);
    assert_int_equal(ld_le16(t + at + 12), 8192);
}

static void expect_aml(struct aml *a, const void *want, size_t len)
{
    assert_false(a->failed);
    assert_int_equal(a->len, len);
    assert_memory_equal(a->data, want, len);
    aml_fini(a);
    aml_init(a);
}

static void test_aml_encoding(void **state)
{
    struct aml a;

    aml_init(&a);
    aml_int(&a, 0);
    aml_int(&a, 1);
    aml_int(&a, 0xff);
    aml_int(&a, 0x1234);
    aml_int(&a, 0x12345678);
    expect_aml(&a, "\x00\x01\x0a\xff\x0b\x34\x12\x0c\x78\x56\x34\x12", 12);
    aml_int(&a, 0x100000000);
    expect_aml(&a, "\x0e\0\0\0\0\1\0\0\0", 9);
    aml_path(&a, "\\_SB.PCI0");
    expect_aml(&a, "\\\x2e_SB_PCI0", 10);
    aml_path(&a, "^A.B.C");
    expect_aml(&a,
               "^\x2f\x03"
               "A___B___C___",
               15);
    aml_path(&a, "\\");
    expect_aml(&a, "\\\0", 2);
    aml_eisaid(&a, "PNP0A08");
    expect_aml(&a, "\x0c\x41\xd0\x0a\x08", 5);
    aml_package(&a, 1);
    aml_int(&a, 0);
    aml_close(&a);
    expect_aml(&a, "\x12\x03\x01\x00", 4);
    aml_close(&a); /* nothing is open */
    assert_true(a.failed);
    aml_fini(&a);
}

/* Package lengths around the limits of 1, 2 and 3 bytes: ACPI 6.4, 20.2.4. */
static void test_aml_lengths(void **state)
{
    static const struct {
        size_t body; /* bytes after the length */
        uint8_t want[3];
        size_t n;
    } cases[] = {
        { 62, { 63 }, 1 },
        { 63, { 0x41, 0x04 }, 2 },
        { 4093, { 0x4f, 0xff }, 2 },
        { 4094, { 0x81, 0x00, 0x01 }, 3 },
    };
    static const uint8_t zeros[5000];

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct aml a;
        aml_init(&a);
        aml_if(&a);
        aml_bytes(&a, zeros, cases[i].body);
        aml_close(&a);
        assert_int_equal(a.len, 1 + cases[i].n + cases[i].body);
        assert_memory_equal(a.data + 1, cases[i].want, cases[i].n);
        aml_fini(&a);
    }
}

static int run(const char *fmt, const char *dir, const char *name)
{
    char cmd[512];

    snprintf(cmd, sizeof(cmd), fmt, dir, name, name, name);
    return system(cmd);
}

static void write_table(const char *dir, const char *name, const void *data, size_t len)
{
    char path[128];
    FILE *f;

    snprintf(path, sizeof(path), "%s/%s.aml", dir, name);
    f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, len, f), len);
    assert_int_equal(fclose(f), 0);
}

/* Disassemble, compile what comes out without optimising, compare. Of the header the compiler
 * writes its own checksum, id and version. */
static void expect_iasl(const char *dir, const char *name, const uint8_t *table, size_t len)
{
    char path[128];
    uint8_t *again;
    struct err err;
    size_t again_len;

    write_table(dir, name, table, len);
    assert_int_equal(run("cd %s && iasl -d %s.aml >/dev/null 2>&1", dir, name), 0);
    if (run("cd %s && iasl -oa -we -p new%s %s.dsl >%s.log 2>&1", dir, name) != 0) {
        run("cat %s/%s.log", dir, name);
        assert_true(false);
    }
    snprintf(path, sizeof(path), "%s/new%s.aml", dir, name);
    assert_int_equal(boot_read_file(path, "table", 1 << 20, &again, &again_len, &err), 0);
    assert_int_equal(again_len, len);
    assert_memory_equal(again, table, 9);
    assert_memory_equal(again + 10, table + 10, 18);
    assert_memory_equal(again + 36, table + 36, len - 36);
    free(again);
}

static void test_iasl(void **state)
{
    static const char *const names[] = { "FACP", "APIC", "HPET", "MCFG", "WAET" };
    static const struct {
        unsigned cpus;
        uint64_t mem;
    } cases[] = { { 1, 512 * MIB }, { 64, 40 * G }, { 300, 8 * G } };
    char dir[] = "/tmp/test-acpi-XXXXXX";

    if (system("iasl -v >/dev/null 2>&1") != 0) {
        print_message("iasl is not installed (Debian package acpica-tools): the AML is not checked by it\n");
        skip();
    }
    assert_non_null(mkdtemp(dir));
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct boot_config cfg = config(cases[i].cpus, cases[i].mem);
        struct area a;
        uint32_t len;
        area_load(&a, &cfg);
        for (size_t n = 0; n < ARRAY_LEN(names); n++) {
            const uint8_t *t = table_find(&a, names[n], &len);
            expect_iasl(dir, names[n], t, len);
        }
        const uint8_t *fadt = table_find(&a, "FACP", &len);
        const uint8_t *dsdt = table_at(&a, ld_le64(fadt + 140), "DSDT", &len);
        expect_iasl(dir, "DSDT", dsdt, len);
    }
    assert_int_equal(run("rm -r %s", dir, ""), 0);
}

/* Every CPU count either fits or is refused; never a table that is cut off. */
static void test_area_limit(void **state)
{
    static uint8_t buf[0x10000];
    struct boot_config cfg = config(1, G);
    int last = 0, used = 0;

    for (cfg.cpus = 1; cfg.cpus < 5000; cfg.cpus += 97) {
        memset(buf, 0, sizeof(buf));
        used = acpi_build(&cfg, LAYOUT_BIOS_BASE, buf, sizeof(buf), NULL);
        if (used < 0)
            break;
        assert_true(used > last && used <= (int)sizeof(buf));
        last = used;
    }
    assert_int_equal(used, -ENOSPC);
    assert_true(cfg.cpus > 1000);
    for (size_t size = 0; size < 300; size++)
        assert_int_equal(smbios_build(&cfg, LAYOUT_SMBIOS, buf, size), -ENOSPC);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fadt),         cmocka_unit_test(test_madt),
        cmocka_unit_test(test_small_tables), cmocka_unit_test(test_smbios),
        cmocka_unit_test(test_aml_encoding), cmocka_unit_test(test_aml_lengths),
        cmocka_unit_test(test_iasl),         cmocka_unit_test(test_area_limit),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
