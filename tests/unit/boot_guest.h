/* A machine's memory with a kernel to load, for the loaders' unit tests. */
#ifndef VITRO_TESTS_UNIT_BOOT_GUEST_H
#define VITRO_TESTS_UNIT_BOOT_GUEST_H

#include "test.h"

#include <string.h>

#include "base/err.h"
#include "boot/boot.h"
#include "boot/parts.h"
#include "boot_kernels.h"

#define G (1024 * MIB)

struct guest {
    struct ram ram;
    struct boot_image img;
    struct boot_config cfg;
    struct boot_entry entry;
    struct err err;
    uint8_t file[KERNEL_ROOM];
    size_t len;
};

static inline void guest_init(struct guest *g, uint64_t mem)
{
    memset(g, 0, sizeof(*g));
    g->cfg = (struct boot_config){ .cpus = 1,
                                   .mem_below_4g = layout_below_4g(mem),
                                   .mem_above_4g = layout_above_4g(mem),
                                   .cmdline = "console=ttyS0 quiet",
                                   .kernel = &g->img };
    ram_init(&g->ram);
    assert_int_equal(ram_add_slot(&g->ram, 0, LAYOUT_VGA_BASE, false), 0);
    assert_int_equal(ram_add_slot(&g->ram, LAYOUT_VGA_END, g->cfg.mem_below_4g - LAYOUT_VGA_END, false), 0);
    if (g->cfg.mem_above_4g)
        assert_int_equal(ram_add_slot(&g->ram, LAYOUT_4G, g->cfg.mem_above_4g, false), 0);
}

static inline void guest_fini(struct guest *g)
{
    boot_image_close(&g->img);
    ram_fini(&g->ram);
}

/* Open what is in g->file and load it; 0 or the first error. */
static inline int guest_load(struct guest *g)
{
    int rc = boot_image_from_memory(&g->img, g->file, g->len, "dir/kern", &g->err);

    return rc < 0 ? rc : boot_load(&g->ram, &g->cfg, &g->entry, &g->err);
}

static inline uint64_t guest_get(struct guest *g, uint64_t gpa, unsigned bytes)
{
    uint8_t raw[8] = { 0 };

    assert_int_equal(ram_read(&g->ram, gpa, raw, bytes), 0);
    return ld_le64(raw);
}

static inline void guest_expect_text(struct guest *g, uint64_t gpa, const char *text)
{
    char got[300] = "";

    assert_true(strlen(text) < sizeof(got));
    assert_int_equal(ram_read(&g->ram, gpa, got, strlen(text) + 1), 0);
    assert_string_equal(got, text);
}

/* The error is one line that names the kernel (or the initrd) and contains says. */
static inline void guest_expect_error(struct guest *g, int rc, const char *says)
{
    assert_true(rc < 0);
    if (!strstr(g->err.text, says))
        print_message("error is: %s\n", g->err.text);
    assert_non_null(strstr(g->err.text, says));
    assert_null(strchr(g->err.text, '\n'));
    assert_true(strlen(g->err.text) < sizeof(g->err.text) - 1);
}

/* The segment registers of all kinds of entry. */
static inline void expect_segments(const struct boot_entry *e, bool wide)
{
    assert_int_equal(e->cs.selector, 0x10);
    assert_int_equal(e->cs.type, 0xb);
    assert_int_equal(e->cs.l, wide);
    assert_int_equal(e->cs.db, !wide);
    assert_true(e->cs.p && e->cs.s && e->cs.g && e->cs.dpl == 0 && e->cs.base == 0 &&
                e->cs.limit == 0xffffffff);
    assert_int_equal(e->ss.selector, 0x18);
    assert_int_equal(e->ss.type, 3);
    assert_memory_equal(&e->ss, &e->ds, sizeof(e->ds));
    assert_memory_equal(&e->ss, &e->es, sizeof(e->ds));
    assert_int_equal(e->tr.type, 0xb);
    assert_true(e->tr.p && !e->tr.s && e->tr.limit >= 0x67);
    assert_int_equal(e->rflags, 2);
}

/* The descriptors in memory say what the hidden parts say. */
static inline void expect_gdt(struct guest *g, bool wide)
{
    assert_true(g->entry.gdt_limit >= 0x1f);
    assert_int_equal(guest_get(g, g->entry.gdt_base, 8), 0);
    assert_int_equal(guest_get(g, g->entry.gdt_base + 0x10, 8),
                     wide ? 0x00af9b000000ffff : 0x00cf9b000000ffff);
    assert_int_equal(guest_get(g, g->entry.gdt_base + 0x18, 8), 0x00cf93000000ffff);
}

#endif
