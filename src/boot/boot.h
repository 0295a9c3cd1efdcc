/* Kernel loaders: what the machine calls to start a guest without firmware.
 *
 * boot_image_open() reads and checks a kernel file; boot_load() places it in guest memory with all
 * that it expects to find there (command line, initrd, memory map, ACPI and SMBIOS tables) and says
 * in which state the first vCPU starts. To reboot a machine, call boot_load() again.
 *
 * A kernel file is hostile input: every length and offset in it is checked, work is bounded by
 * the size of the file and of the guest's memory.
 *
 * Threads: all calls on the thread that builds or resets the machine, while no vCPU runs.
 */
#ifndef VITRO_BOOT_BOOT_H
#define VITRO_BOOT_BOOT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;
struct ram;

enum boot_kind {
    BOOT_BZIMAGE,    /* Linux, entered by the 64-bit boot protocol */
    BOOT_PVH_ELF,    /* ELF with an XEN_ELFNOTE_PHYS32_ENTRY note */
    BOOT_MULTIBOOT1, /* ELF32 or flat file with a Multiboot 1 header */
};

/* A kernel file in memory, found good. */
struct boot_image {
    uint8_t *data; /* owned */
    size_t len;
    enum boot_kind kind;
    uint32_t pvh_entry; /* BOOT_PVH_ELF: physical address of the 32-bit entry point */
    uint32_t mb_offset; /* BOOT_MULTIBOOT1: file offset of the Multiboot header */
    char name[128];     /* how messages call the file; also the first word of a Multiboot command line */
};

/* Read the kernel at path and find out what it is. On success the caller owns img until
 * boot_image_close(). Returns 0, or -errno with err filled and img empty. */
int boot_image_open(struct boot_image *img, const char *path, struct err *err);

/* The same from an open file, which stays the caller's. */
int boot_image_read(struct boot_image *img, int fd, const char *path, struct err *err);

/* The same from len bytes at data, which are copied. name appears in messages. */
int boot_image_from_memory(struct boot_image *img, const void *data, size_t len, const char *name,
                           struct err *err);

/* Free what img owns; also good for an img whose open failed, and twice. */
void boot_image_close(struct boot_image *img);

/* Read a whole regular file of at most max bytes (for an initrd). *data is malloc()ed and is the
 * caller's; an empty file gives *len 0 and a pointer that must be freed all the same. what names
 * the file's role in messages ("initrd"). Returns 0 or -errno with err filled. */
int boot_read_file(const char *path, const char *what, size_t max, uint8_t **data, size_t *len,
                   struct err *err);

/* The same from an open file, which stays the caller's. */
int boot_read_fd(int fd, const char *path, const char *what, size_t max, uint8_t **data, size_t *len,
                 struct err *err);

/* What the guest gets. Everything is borrowed for the call. */
struct boot_config {
    const struct boot_image *kernel;
    const uint8_t *initrd; /* may be NULL */
    size_t initrd_len;
    const char *cmdline;   /* NULL: empty */
    unsigned cpus;         /* 1.. ; APIC ids are 0 .. cpus-1 */
    uint64_t mem_below_4g; /* bytes of RAM from address 0 (without the 640K..768K hole) */
    uint64_t mem_above_4g; /* bytes of RAM from 4 GiB */
    uint64_t ecam;         /* where firmware has put the ECAM; 0: LAYOUT_ECAM_BASE */
    bool vga;              /* there is a VGA, in text mode 3 */
    uint8_t uuid[16];      /* SMBIOS system UUID, in RFC 4122 byte order; all zero: not set */
};

/* A segment register with its hidden part; the fields of a descriptor (SDM vol. 3, 3.4.5). */
struct boot_seg {
    uint16_t selector;
    uint8_t type; /* 4 bits */
    bool s, p, avl, l, db, g;
    uint8_t dpl;
    uint64_t base;
    uint32_t limit; /* in bytes, granularity applied */
};

enum boot_mode {
    BOOT_LONG64,           /* 64-bit mode, paging on, identity map */
    BOOT_PROT32_PVH,       /* 32-bit protected mode, paging off */
    BOOT_PROT32_MULTIBOOT, /* the same with other registers */
    BOOT_PROT32_LINUX,
};

/* The complete architectural state of vCPU 0 at entry, where it differs from the state after
 * INIT. Everything that is not here has its reset value. */
struct boot_entry {
    enum boot_mode mode;
    uint64_t rip, rsp, rflags;
    uint64_t rax, rbx, rcx, rdx, rsi, rdi, rbp;
    uint64_t cr0, cr3, cr4, efer;
    struct boot_seg cs, ds, es, fs, gs, ss, tr, ldt;
    uint64_t gdt_base, idt_base;
    uint16_t gdt_limit, idt_limit;
};

/* Write kernel, initrd, command line and tables into ram and fill out. Returns 0, or -errno with
 * err filled (ram may then be partly written). */
int boot_load(struct ram *ram, const struct boot_config *cfg, struct boot_entry *out, struct err *err);

/* Only the BIOS data area, ACPI and SMBIOS tables, as boot_load() writes them. */
int boot_load_tables(struct ram *ram, const struct boot_config *cfg, struct err *err);

#endif
