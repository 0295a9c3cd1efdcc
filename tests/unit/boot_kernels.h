/* Tiny kernels made by code, for the loaders' unit tests and fuzz target. Each writes a whole file
 * into buf (KERNEL_ROOM bytes, zeroed here) and returns its length. */
#ifndef VITRO_TESTS_UNIT_BOOT_KERNELS_H
#define VITRO_TESTS_UNIT_BOOT_KERNELS_H

#include <elf.h>
#include <string.h>

#include "base/bits.h"

#define KERNEL_ROOM 4096
#define KERNEL_LOAD 0x100000 /* where all of them want to be */

#define BZ_SETUP_LEN  1024
#define BZ_KERNEL_LEN 1024
#define BZ_INIT_SIZE  0x10000
#define BZ_CMDLINE    255
#define BZ_VERSION    0x300            /* file offset of the version text */
#define BZ_PE_SUM     (0x40 + 24 + 64) /* and of what signing changes */
#define BZ_PE_CERT    (0x40 + 24 + 144)
#define BZ_PE_MAGIC   (0x40 + 24)

/* A relocatable 64-bit bzImage of protocol 2.15 with a gzip magic number as its payload. */
static inline size_t kernel_bzimage(uint8_t *buf)
{
    memset(buf, 0, KERNEL_ROOM);
    buf[0x1f1] = BZ_SETUP_LEN / 512 - 1;
    st_le32(buf + 0x1f4, BZ_KERNEL_LEN / 16);
    st_le16(buf + 0x1fe, 0xaa55);
    buf[0x200] = 0xeb;
    buf[0x201] = 0x6a; /* header ends at 26c */
    memcpy(buf + 0x202, "HdrS", 4);
    st_le16(buf + 0x206, 0x20f);
    buf[0x211] = 1;
    st_le32(buf + 0x22c, 0x7fffffff);
    st_le32(buf + 0x230, 0x1000);
    buf[0x234] = 1;
    st_le16(buf + 0x236, 1);
    st_le32(buf + 0x238, BZ_CMDLINE);
    st_le32(buf + 0x248, 0x300);
    st_le32(buf + 0x24c, 64);
    st_le64(buf + 0x258, KERNEL_LOAD);
    st_le32(buf + 0x260, BZ_INIT_SIZE);
    /* A PE header for signatures, and a version text that the header does not point to as yet. */
    st_le32(buf + 0x3c, 0x40);
    memcpy(buf + 0x40, "PE", 2);
    memcpy(buf + BZ_VERSION, "6.1.0-test (x@y)", 16);
    memset(buf + BZ_SETUP_LEN, 0xcc, BZ_KERNEL_LEN);
    memcpy(buf + BZ_SETUP_LEN + 0x300, "\x1f\x8b", 2);
    return BZ_SETUP_LEN + BZ_KERNEL_LEN;
}

/* The Xen note with the PVH entry point; desc is 4 or 8 bytes. */
static inline size_t kernel_note(uint8_t *p, uint32_t entry, unsigned desc)
{
    st_le32(p, 4);
    st_le32(p + 4, desc);
    st_le32(p + 8, 18);
    memcpy(p + 12, "Xen", 4);
    st_le32(p + 16, entry);
    return 16 + desc;
}

#define ELF_CODE   0x200 /* file offset and length of the one segment; half of it again is BSS */
#define ELF_LEN    0x200
#define ELF_MEMSZ  0x300
#define ELF_NOTE   0x400
#define ELF_PHDR64 64
#define ELF_PHDR32 52

/* ELF64 x86-64 with one segment and a PVH note. */
static inline size_t kernel_pvh64(uint8_t *buf)
{
    Elf64_Ehdr eh = { .e_ident = { 0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, EV_CURRENT },
                      .e_type = ET_EXEC,
                      .e_machine = EM_X86_64,
                      .e_version = 1,
                      .e_entry = KERNEL_LOAD,
                      .e_phoff = ELF_PHDR64,
                      .e_ehsize = sizeof(eh),
                      .e_phentsize = sizeof(Elf64_Phdr),
                      .e_phnum = 2 };
    Elf64_Phdr ph[2] = { { .p_type = PT_LOAD,
                           .p_offset = ELF_CODE,
                           .p_vaddr = KERNEL_LOAD,
                           .p_paddr = KERNEL_LOAD,
                           .p_filesz = ELF_LEN,
                           .p_memsz = ELF_MEMSZ },
                         { .p_type = PT_NOTE, .p_offset = ELF_NOTE, .p_align = 4 } };

    memset(buf, 0, KERNEL_ROOM);
    ph[1].p_filesz = ph[1].p_memsz = kernel_note(buf + ELF_NOTE, KERNEL_LOAD + 0x10, 8);
    memcpy(buf, &eh, sizeof(eh));
    memcpy(buf + ELF_PHDR64, ph, sizeof(ph));
    memset(buf + ELF_CODE, 0xcc, ELF_LEN);
    return ELF_NOTE + ph[1].p_filesz;
}

static inline size_t kernel_elf32(uint8_t *buf)
{
    Elf32_Ehdr eh = { .e_ident = { 0x7f, 'E', 'L', 'F', ELFCLASS32, ELFDATA2LSB, EV_CURRENT },
                      .e_type = ET_EXEC,
                      .e_machine = EM_386,
                      .e_version = 1,
                      .e_entry = KERNEL_LOAD + 0x20,
                      .e_phoff = ELF_PHDR32,
                      .e_ehsize = sizeof(eh),
                      .e_phentsize = sizeof(Elf32_Phdr),
                      .e_phnum = 1 };
    Elf32_Phdr ph = { .p_type = PT_LOAD,
                      .p_offset = ELF_CODE,
                      .p_vaddr = KERNEL_LOAD,
                      .p_paddr = KERNEL_LOAD,
                      .p_filesz = ELF_LEN,
                      .p_memsz = ELF_MEMSZ };

    memset(buf, 0, KERNEL_ROOM);
    memcpy(buf, &eh, sizeof(eh));
    memcpy(buf + ELF_PHDR32, &ph, sizeof(ph));
    memset(buf + ELF_CODE, 0xcc, ELF_LEN);
    return ELF_CODE + ELF_LEN;
}

static inline void kernel_put_multiboot(uint8_t *p, uint32_t flags)
{
    st_le32(p, 0x1badb002);
    st_le32(p + 4, flags);
    st_le32(p + 8, 0u - 0x1badb002u - flags);
}

/* ELF32 with a Multiboot header at the start of its segment. */
static inline size_t kernel_multiboot_elf(uint8_t *buf)
{
    size_t len = kernel_elf32(buf);

    kernel_put_multiboot(buf + ELF_CODE, 3);
    return len;
}

#define FLAT_HDR 0x40 /* file offset of the header in the flat kernel */

/* No ELF: addresses in the Multiboot header; the whole file is loaded, with some BSS. */
static inline size_t kernel_multiboot_flat(uint8_t *buf)
{
    memset(buf, 0, KERNEL_ROOM);
    memset(buf, 0xcc, 0x400);
    kernel_put_multiboot(buf + FLAT_HDR, 1 << 16 | 3);
    st_le32(buf + FLAT_HDR + 12, KERNEL_LOAD + FLAT_HDR);
    st_le32(buf + FLAT_HDR + 16, KERNEL_LOAD);
    st_le32(buf + FLAT_HDR + 20, KERNEL_LOAD + 0x400);
    st_le32(buf + FLAT_HDR + 24, KERNEL_LOAD + 0x800);
    st_le32(buf + FLAT_HDR + 28, KERNEL_LOAD + 0x80);
    return 0x400;
}

#endif
