/* Kernel files as hostile input: whatever the bytes are, boot_image_from_memory() and boot_load()
 * come back, within the guest's memory.
 *
 * Properties: a refusal comes with a sentence; what was accepted starts inside of RAM.
 *
 * Input: byte 0 chooses one of four small good kernels and the memory size; the rest are changes to
 * that kernel, 4 bytes each (offset, what, value), so that nearly every input gets deep into a
 * loader. With bit 7 of byte 0 the rest is the file itself.
 */
#include "fuzz.h"

#include <stdlib.h>

#include "../unit/boot_kernels.h"
#include "base/err.h"
#include "boot/boot.h"
#include "boot/layout.h"
#include "ram/ram.h"

static size_t (*const fuzz_kernels[4])(uint8_t *buf) = { kernel_bzimage, kernel_pvh64, kernel_multiboot_elf,
                                                         kernel_multiboot_flat };

/* Values at the edges of what headers hold. */
static const uint64_t fuzz_edges[] = { 0,
                                       1,
                                       2,
                                       0x7f,
                                       0xff,
                                       0xfff,
                                       0x1000,
                                       0xffff,
                                       0x10000,
                                       0x9fc00,
                                       0xfffff,
                                       0x100000,
                                       0x100001,
                                       0x200000,
                                       0x3fffff,
                                       0x400000,
                                       0x7fffffff,
                                       0x80000000,
                                       0xbfffffff,
                                       0xc0000000,
                                       0xfffff000,
                                       0xffffffff,
                                       0x100000000,
                                       0x7fffffffffffffff,
                                       0x8000000000000000,
                                       0xfffffffffffff000,
                                       0xffffffffffffffff };

/* Apply one change; returns the file's new length. */
static size_t fuzz_change(uint8_t *file, size_t len, const uint8_t *c)
{
    size_t at = ld_le16(c);
    uint64_t edge = fuzz_edges[c[3] % ARRAY_LEN(fuzz_edges)];

    at %= c[2] & 0x80 ? 0x300 : KERNEL_ROOM - 8; /* often the headers */
    switch (c[2] & 3) {
    case 0:
        file[at] = c[3];
        break;
    case 1:
        st_le32(file + at, (uint32_t)edge);
        break;
    case 2:
        st_le64(file + at, edge);
        break;
    default:
        if (c[2] & 4) /* seldom, since a short file seldom gets far */
            len = len * c[3] / 256;
        else
            file[at] ^= (uint8_t)(1 << (c[3] & 7));
    }
    return len;
}

static void fuzz_load(const struct boot_image *img, unsigned mib)
{
    static const uint8_t initrd[5000] = { 1 };
    struct ram ram;
    struct boot_entry entry;
    struct err err = { "" };
    struct boot_config cfg = { .kernel = img,
                               .initrd = initrd,
                               .initrd_len = sizeof(initrd),
                               .cmdline = "a=b",
                               .cpus = 2,
                               .mem_below_4g = (uint64_t)mib << 20 };

    ram_init(&ram);
    if (ram_add_slot(&ram, 0, LAYOUT_VGA_BASE, false) == 0 &&
        ram_add_slot(&ram, LAYOUT_VGA_END, cfg.mem_below_4g - LAYOUT_VGA_END, false) == 0) {
        int rc = boot_load(&ram, &cfg, &entry, &err);
        FUZZ_CHECK(rc == 0 || (rc < 0 && err.text[0]));
        FUZZ_CHECK(rc < 0 || ram_borrow(&ram, entry.rip, 1));
        FUZZ_CHECK(rc < 0 || ram_borrow(&ram, entry.gdt_base, entry.gdt_limit + 1));
    }
    ram_fini(&ram);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t file[KERNEL_ROOM];
    struct boot_image img;
    struct err err = { "" };
    size_t len;
    int rc;

    if (size == 0)
        return 0;
    if (data[0] & 0x80) {
        rc = boot_image_from_memory(&img, data + 1, size - 1, "fuzz", &err);
    } else {
        len = fuzz_kernels[data[0] & 3](file);
        for (size_t i = 1; i + 4 <= size; i += 4)
            len = fuzz_change(file, len, data + i);
        rc = boot_image_from_memory(&img, file, len, "fuzz", &err);
    }
    FUZZ_CHECK(rc == 0 || (rc < 0 && err.text[0] && !img.data));
    if (rc == 0)
        fuzz_load(&img, data[0] & 0x40 ? 2 : 4);
    boot_image_close(&img);
    return 0;
}

/* Each kernel as a whole file, and as a list of two changes. */
size_t fuzz_seed(unsigned n, uint8_t *buf, size_t size)
{
    static const uint8_t changes[] = { 0x10, 2, 0x83, 1, 0x18, 0, 0x81, 11 };

    if (n >= 8 || size < KERNEL_ROOM + 1)
        return 0;
    if (n < 4) {
        buf[0] = 0x80;
        return 1 + fuzz_kernels[n](buf + 1);
    }
    buf[0] = (uint8_t)(n - 4);
    memcpy(buf + 1, changes, sizeof(changes));
    return 1 + sizeof(changes);
}
