/* Where things are in guest memory: the memory map that the guest is told, and the free space
 * below 4 GiB while a kernel is being loaded. Source: ACPI 6.4, chapter 15 (E820).
 * Runs on the thread that builds the machine; no state. */
#include "boot/parts.h"

#include <errno.h>

#define PLACE_FIRST 0x1000ULL /* below: interrupt vectors and the BIOS data area */

static void map_add(struct boot_e820 *map, unsigned *n, uint64_t start, uint64_t end, uint32_t type)
{
    if (end <= start)
        return;
    map[(*n)++] = (struct boot_e820){ .addr = start, .len = end - start, .type = type };
}

unsigned boot_memory_map(const struct boot_config *cfg, struct boot_e820 map[BOOT_MAP_MAX])
{
    unsigned n = 0;

    map_add(map, &n, 0, LAYOUT_EBDA, E820_RAM);
    map_add(map, &n, LAYOUT_EBDA, LAYOUT_VGA_BASE, E820_RESERVED);
    map_add(map, &n, LAYOUT_BIOS_BASE, LAYOUT_BIOS_END, E820_RESERVED);
    map_add(map, &n, LAYOUT_BIOS_END, cfg->mem_below_4g, E820_RAM);
    map_add(map, &n, LAYOUT_ECAM_BASE, LAYOUT_ECAM_BASE + LAYOUT_ECAM_SIZE, E820_RESERVED);
    map_add(map, &n, LAYOUT_VMGENID, LAYOUT_KVM_PAGES + LAYOUT_KVM_SIZE, E820_RESERVED);
    map_add(map, &n, LAYOUT_4G, LAYOUT_4G + cfg->mem_above_4g, E820_RAM);
    return n;
}

/* Index of a taken range that overlaps [start, end), or -1. */
static int place_overlap(const struct place *p, uint64_t start, uint64_t end)
{
    for (unsigned i = 0; i < p->n; i++)
        if (start < p->used[i].end && p->used[i].start < end)
            return (int)i;
    return -1;
}

int place_claim(struct place *p, uint64_t start, uint64_t len)
{
    if (len == 0)
        len = 1;
    if (range_outside(start, len, p->limit))
        return -ERANGE;
    if (place_overlap(p, start, start + len) >= 0)
        return -EEXIST;
    if (p->n == PLACE_MAX)
        return -ENOSPC;
    p->used[p->n].start = start;
    p->used[p->n].end = start + len;
    p->n++;
    return 0;
}

void place_init(struct place *p, const struct boot_config *cfg)
{
    p->n = 0;
    p->limit = cfg->mem_below_4g;
    place_claim(p, 0, PLACE_FIRST);
    place_claim(p, LAYOUT_EBDA, LAYOUT_BIOS_END - LAYOUT_EBDA);
}

uint64_t place_low(struct place *p, uint64_t from, uint64_t len, uint64_t align)
{
    uint64_t at = ALIGN_UP(from, align);

    /* Each step passes one taken range for good, so n + 1 steps are enough. */
    for (unsigned step = 0; step <= p->n; step++) {
        if (range_outside(at, len, p->limit))
            return 0;
        int i = place_overlap(p, at, at + len);
        if (i < 0)
            return place_claim(p, at, len) == 0 ? at : 0;
        at = ALIGN_UP(p->used[i].end, align);
    }
    return 0;
}

uint64_t place_high(struct place *p, uint64_t to, uint64_t len, uint64_t align)
{
    uint64_t end = to < p->limit ? to : p->limit;

    for (unsigned step = 0; step <= p->n; step++) {
        if (len > end)
            return 0;
        uint64_t at = ALIGN_DOWN(end - len, align);
        int i = place_overlap(p, at, at + len);
        if (i < 0)
            return place_claim(p, at, len) == 0 ? at : 0;
        end = p->used[i].start;
    }
    return 0;
}
