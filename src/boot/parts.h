/* What the files of src/boot share and nobody else includes. */
#ifndef VITRO_BOOT_PARTS_H
#define VITRO_BOOT_PARTS_H

#include "base/bits.h"
#include "base/err.h"
#include "boot/boot.h"
#include "boot/layout.h"
#include "ram/ram.h"

#define KIB 1024ULL
#define MIB (1024 * KIB)

/* Address range types of the e820 map; PVH and Multiboot memory maps use the same numbers. */
enum { E820_RAM = 1, E820_RESERVED = 2 };

struct boot_e820 {
    uint64_t addr, len;
    uint32_t type;
};

#define BOOT_MAP_MAX 8

/* Write the memory map of the machine, sorted, without overlaps; returns the number of entries. */
unsigned boot_memory_map(const struct boot_config *cfg, struct boot_e820 map[BOOT_MAP_MAX]);

/* Which parts of the RAM below 4 GiB are taken already. */
#define PLACE_MAX 80

struct place {
    struct {
        uint64_t start, end;
    } used[PLACE_MAX];
    unsigned n;
    uint64_t limit; /* end of RAM below 4 GiB */
};

void place_init(struct place *p, const struct boot_config *cfg);
/* Take [start, start+len). 0; -ERANGE: not all RAM; -EEXIST: overlaps something taken; -ENOSPC:
 * too many ranges. A len of 0 is taken as 1. */
int place_claim(struct place *p, uint64_t start, uint64_t len);
/* Take the lowest free len bytes at or above from / the highest that end at or below to. align is
 * a power of two. Returns the address, 0 when there is no room (address 0 is never free). */
uint64_t place_low(struct place *p, uint64_t from, uint64_t len, uint64_t align);
uint64_t place_high(struct place *p, uint64_t to, uint64_t len, uint64_t align);

/* One load in progress. */
struct load {
    struct ram *ram;
    const struct boot_config *cfg;
    const struct boot_image *img;
    const char *cmdline; /* never NULL */
    struct place place;
    uint64_t kernel_end; /* first free address above the kernel */
    uint64_t initrd;     /* where the initrd went; 0: none */
    uint64_t rsdp;
    struct err *err;
};

/* Write len bytes at gpa; a sentence when that is not RAM. */
int load_bytes(struct load *l, uint64_t gpa, const void *buf, uint64_t len);
int load_zero(struct load *l, uint64_t gpa, uint64_t len);
/* Place the initrd as high as it goes, ending at or below to. Nothing to do without one. */
int load_initrd(struct load *l, uint64_t to);
/* Place a block of boot data of len bytes (page-aligned) at or above from: its address in *gpa. */
int load_place_data(struct load *l, uint64_t from, uint64_t len, uint64_t *gpa);

/* What load_gdt() writes: null, unused, code at 0x10, data at 0x18, TSS at 0x20 (two entries). */
#define LOAD_GDT_SIZE 48
/* Write the descriptors (64-bit code if wide) at gpa and set all segments of e to match. */
int load_gdt(struct load *l, uint64_t gpa, bool wide, struct boot_entry *e);

/* One loader a kind: check says whether an image's headers are sound, load places it. */
int bzimage_check(struct boot_image *img, struct err *err);
int bzimage_load(struct load *l, struct boot_entry *out);

/* True if data starts with an ELF file's magic number. */
bool elf_is(const uint8_t *data, size_t len);
/* Check ELF headers and set img->pvh_entry; *has_pvh says if there is a PVH note. */
int elf_check(struct boot_image *img, bool *has_pvh, struct err *err);
/* Load all PT_LOAD segments of a checked ELF file; sets l->kernel_end. */
int elf_load_segments(struct load *l);
/* Entry point of a checked ELF file, and if it is ELF32. */
uint64_t elf_entry(const struct boot_image *img);
bool elf_is_32bit(const struct boot_image *img);
/* True if gpa lies in a PT_LOAD segment. */
bool elf_covers(const struct boot_image *img, uint64_t gpa);
int pvh_load(struct load *l, struct boot_entry *out);

/* Look for a Multiboot 1 header: 1 found (img->mb_offset set), 0 not there. */
int multiboot_find(struct boot_image *img);
int multiboot_check(const struct boot_image *img, struct err *err);
int multiboot_load(struct load *l, struct boot_entry *out);

/* Where the tables hold addresses of each other, and their checksums: what firmware must mend when it puts them
 * elsewhere. Offsets are from the start of the buffer. The checksum of the RSDP's first 20 bytes comes before the
 * one of all of it. */
#define ACPI_FIXUPS 24

struct acpi_pointer {
    uint32_t at;
    uint8_t size;
};

struct acpi_sum {
    uint32_t at, start, len;
};

struct acpi_fixups {
    struct acpi_pointer pointer[ACPI_FIXUPS];
    struct acpi_sum sum[ACPI_FIXUPS];
    unsigned npointers, nsums;
};

/* Build all ACPI tables for addresses from base on: at most size bytes into buf (zeroed by the
 * caller). The RSDP is at base. fix may be NULL. Returns the bytes used or -ENOSPC/-ENOMEM. */
int acpi_build(const struct boot_config *cfg, uint64_t base, uint8_t *buf, size_t size, struct acpi_fixups *fix);

/* Where the ECAM is. */
static inline uint64_t boot_ecam(const struct boot_config *cfg)
{
    return cfg->ecam ? cfg->ecam : LAYOUT_ECAM_BASE;
}

/* The DSDT, header included; malloc()ed for the caller. 0 or -ENOMEM. */
int dsdt_build(const struct boot_config *cfg, uint8_t **out, size_t *len);
/* Fill the 36 bytes of a table header (ACPI 6.4, 5.2.6), checksum included; t->length bytes must be there. */
void acpi_header(uint8_t *t, const char *signature, uint8_t revision, uint32_t len);

/* SMBIOS 3.0 entry point at base, structures after it. Returns the bytes used or -ENOSPC. */
int smbios_build(const struct boot_config *cfg, uint64_t base, uint8_t *buf, size_t size);

#endif
