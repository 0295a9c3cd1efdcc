/* PVH: a 32-bit entry with a start info structure, for ELF kernels with the Xen note.
 *
 * Source: Xen docs/misc/pvh.pandoc (machine state), public/arch-x86/hvm/start_info.h (version 1 of
 * the structure, with a memory map). Runs on the thread that builds the machine; no state.
 *
 * The block of boot data, all in one place above the kernel: GDT, start info, memory map, module
 * list, command line.
 */
#include "boot/parts.h"

#include <errno.h>
#include <string.h>

#define PVH_MAGIC       0x336ec578
#define PVH_CMDLINE_MAX 0xffff

enum {
    MAP_SIZE = 24,
    MODULE_SIZE = 32,

    DATA_GDT = 0,
    DATA_INFO = 64,
    DATA_MODULE = DATA_INFO + 64,
    DATA_MAP = DATA_MODULE + MODULE_SIZE,
    DATA_CMDLINE = DATA_MAP + BOOT_MAP_MAX * MAP_SIZE,
};

/* Everything from the start info to the memory map, as it lies at gpa + DATA_INFO. */
static int pvh_load_info(struct load *l, uint64_t gpa)
{
    struct boot_e820 map[BOOT_MAP_MAX];
    unsigned n = boot_memory_map(l->cfg, map);
    uint8_t block[DATA_CMDLINE] = { 0 };
    uint8_t *info = block + DATA_INFO, *mod = block + DATA_MODULE;

    st_le32(info, PVH_MAGIC);
    st_le32(info + 4, 1); /* version */
    st_le32(info + 12, l->initrd ? 1 : 0);
    st_le64(info + 16, l->initrd ? gpa + DATA_MODULE : 0);
    st_le64(info + 24, gpa + DATA_CMDLINE);
    st_le64(info + 32, l->rsdp);
    st_le64(info + 40, gpa + DATA_MAP);
    st_le32(info + 48, n);
    st_le64(mod, l->initrd);
    st_le64(mod + 8, l->initrd ? l->cfg->initrd_len : 0);
    for (unsigned i = 0; i < n; i++) {
        uint8_t *m = block + DATA_MAP + i * MAP_SIZE;
        st_le64(m, map[i].addr);
        st_le64(m + 8, map[i].len);
        st_le32(m + 16, map[i].type);
    }
    return load_bytes(l, gpa + DATA_INFO, block + DATA_INFO, sizeof(block) - DATA_INFO);
}

int pvh_load(struct load *l, struct boot_entry *out)
{
    size_t cmdline_len = strlen(l->cmdline);
    uint64_t data;
    int rc;

    if (cmdline_len > PVH_CMDLINE_MAX)
        return err_set(l->err, E2BIG,
                       "kernel %s: the command line of %zu bytes is longer than %u bytes; shorten it",
                       l->img->name, cmdline_len, PVH_CMDLINE_MAX);
    rc = elf_load_segments(l);
    if (rc == 0)
        rc = load_initrd(l, LAYOUT_4G);
    if (rc == 0)
        rc = load_place_data(l, l->kernel_end, ALIGN_UP(DATA_CMDLINE + cmdline_len + 1, PAGE_SIZE), &data);
    if (rc == 0)
        rc = pvh_load_info(l, data);
    if (rc == 0)
        rc = load_bytes(l, data + DATA_CMDLINE, l->cmdline, cmdline_len + 1);
    if (rc == 0)
        rc = load_gdt(l, data + DATA_GDT, false, out);
    if (rc < 0)
        return rc;
    out->mode = BOOT_PROT32_PVH;
    out->rip = l->img->pvh_entry;
    out->rbx = data + DATA_INFO;
    out->rflags = 0x2;
    out->cr0 = BIT(4) | BIT(0); /* ET PE */
    return 0;
}
