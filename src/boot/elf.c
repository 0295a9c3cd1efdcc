/* ELF kernels: headers, segments, and the PVH entry.
 *
 * Sources: System V ABI (ELF header, program header, notes); Xen's PVH boot ABI
 * (docs/misc/pvh.pandoc, public/arch-x86/hvm/start_info.h, elfnote.h). ELF32 and ELF64 are read
 * through one description of their fields. Addresses used are the physical ones (p_paddr).
 * Runs on the thread that builds the machine; no state.
 */
#include "boot/parts.h"

#include <elf.h>
#include <errno.h>
#include <string.h>

#define ELF_PHNUM_MAX  256 /* more program headers than any kernel has */
#define NOTE_PVH_ENTRY 18  /* XEN_ELFNOTE_PHYS32_ENTRY, of owner "Xen" */

/* One program header of either class. */
struct elf_seg {
    uint32_t type;
    uint64_t offset, paddr, filesz, memsz, align;
};

bool elf_is(const uint8_t *data, size_t len) { return len >= SELFMAG && memcmp(data, ELFMAG, SELFMAG) == 0; }

bool elf_is_32bit(const struct boot_image *img) { return img->data[EI_CLASS] == ELFCLASS32; }

uint64_t elf_entry(const struct boot_image *img)
{
    if (elf_is_32bit(img))
        return ld_le32(img->data + offsetof(Elf32_Ehdr, e_entry));
    return ld_le64(img->data + offsetof(Elf64_Ehdr, e_entry));
}

static unsigned elf_phnum(const struct boot_image *img)
{
    return ld_le16(img->data +
                   (elf_is_32bit(img) ? offsetof(Elf32_Ehdr, e_phnum) : offsetof(Elf64_Ehdr, e_phnum)));
}

/* Program header i; the table was found to be inside the file by elf_check_table(). */
static struct elf_seg elf_seg_get(const struct boot_image *img, unsigned i)
{
    if (elf_is_32bit(img)) {
        Elf32_Phdr ph;
        memcpy(&ph, img->data + ld_le32(img->data + offsetof(Elf32_Ehdr, e_phoff)) + i * sizeof(ph),
               sizeof(ph));
        return (struct elf_seg){ ph.p_type, ph.p_offset, ph.p_paddr, ph.p_filesz, ph.p_memsz, ph.p_align };
    }
    Elf64_Phdr ph;
    memcpy(&ph, img->data + ld_le64(img->data + offsetof(Elf64_Ehdr, e_phoff)) + i * sizeof(ph), sizeof(ph));
    return (struct elf_seg){ ph.p_type, ph.p_offset, ph.p_paddr, ph.p_filesz, ph.p_memsz, ph.p_align };
}

static int elf_corrupt(const struct boot_image *img, struct err *err, const char *what)
{
    return err_set(err, EINVAL, "kernel %s: is a corrupt or truncated ELF file: %s; fetch or build it again",
                   img->name, what);
}

/* The ELF header: class, byte order, machine. */
static int elf_check_header(const struct boot_image *img, struct err *err)
{
    const uint8_t *d = img->data;
    size_t need = img->len > EI_CLASS && d[EI_CLASS] == ELFCLASS64 ? sizeof(Elf64_Ehdr) : sizeof(Elf32_Ehdr);
    unsigned machine;

    if (img->len < need)
        return elf_corrupt(img, err, "it ends inside the ELF header");
    if (d[EI_CLASS] != ELFCLASS32 && d[EI_CLASS] != ELFCLASS64)
        return elf_corrupt(img, err, "it is neither of the 32-bit nor of the 64-bit class");
    machine = ld_le16(d + offsetof(Elf64_Ehdr, e_machine)); /* at the same place in both classes */
    if (d[EI_DATA] == ELFDATA2MSB)
        return err_set(err, EINVAL,
                       "kernel %s: is an ELF file for a big-endian machine; this machine runs x86-64 "
                       "kernels",
                       img->name);
    if (machine != EM_X86_64 && machine != EM_386)
        return err_set(err, EINVAL,
                       "kernel %s: is an ELF file for another machine (number %u in its header); this "
                       "machine runs x86-64 kernels",
                       img->name, machine);
    if (d[EI_DATA] != ELFDATA2LSB)
        return elf_corrupt(img, err, "its byte order is neither little nor big endian");
    if (ld_le16(d + offsetof(Elf64_Ehdr, e_type)) == ET_REL)
        return err_set(err, EINVAL, "kernel %s: is an object file that is not linked; give the linked kernel",
                       img->name);
    return 0;
}

/* The program header table lies in the file. */
static int elf_check_table(const struct boot_image *img, struct err *err)
{
    const uint8_t *d = img->data;
    bool narrow = elf_is_32bit(img);
    uint64_t off =
        narrow ? ld_le32(d + offsetof(Elf32_Ehdr, e_phoff)) : ld_le64(d + offsetof(Elf64_Ehdr, e_phoff));
    unsigned size =
        ld_le16(d + (narrow ? offsetof(Elf32_Ehdr, e_phentsize) : offsetof(Elf64_Ehdr, e_phentsize)));
    unsigned n = elf_phnum(img);

    if (n == 0)
        return err_set(err, EINVAL,
                       "kernel %s: is an ELF file without program headers, so there is nothing to load; "
                       "give the linked kernel",
                       img->name);
    if (n > ELF_PHNUM_MAX)
        return elf_corrupt(img, err, "it has more than 256 program headers");
    if (size != (narrow ? sizeof(Elf32_Phdr) : sizeof(Elf64_Phdr)))
        return elf_corrupt(img, err, "its program headers have an unknown size");
    if (range_outside(off, (uint64_t)n * size, img->len))
        return elf_corrupt(img, err, "its program headers lie outside the file");
    return 0;
}

/* Look through the notes in [p, p+len): true when the PVH entry was found. A descriptor of 4 or 8
 * bytes is accepted; the high half of 8 must be zero since the entry is 32-bit. */
static bool elf_scan_notes(const uint8_t *p, size_t len, uint64_t align, uint32_t *entry)
{
    uint64_t a = align == 8 ? 8 : 4, at = 0;

    while (!range_outside(at, 12, len)) {
        uint64_t namesz = ld_le32(p + at), descsz = ld_le32(p + at + 4);
        uint64_t name = at + 12, desc = ALIGN_UP(name + namesz, a);

        if (range_outside(name, namesz, len) || range_outside(desc, descsz, len))
            return false;
        if (ld_le32(p + at + 8) == NOTE_PVH_ENTRY && namesz == 4 && memcmp(p + name, "Xen", 4) == 0) {
            *entry = descsz >= 4 ? ld_le32(p + desc) : 0;
            return descsz == 4 || (descsz == 8 && ld_le32(p + desc + 4) == 0);
        }
        at = ALIGN_UP(desc + descsz, a);
    }
    return false;
}

bool elf_covers(const struct boot_image *img, uint64_t gpa)
{
    for (unsigned i = 0; i < elf_phnum(img); i++) {
        struct elf_seg s = elf_seg_get(img, i);
        if (s.type == PT_LOAD && gpa >= s.paddr && gpa - s.paddr < s.memsz)
            return true;
    }
    return false;
}

/* Every segment's bytes lie in the file, and its address below 4 GiB. */
static int elf_check_segments(struct boot_image *img, bool *has_pvh, struct err *err)
{
    bool any = false;

    for (unsigned i = 0; i < elf_phnum(img); i++) {
        struct elf_seg s = elf_seg_get(img, i);
        if (s.type != PT_LOAD && s.type != PT_NOTE)
            continue;
        if (range_outside(s.offset, s.filesz, img->len))
            return elf_corrupt(img, err, "a segment lies outside the file");
        if (s.type == PT_NOTE) {
            *has_pvh = *has_pvh || elf_scan_notes(img->data + s.offset, s.filesz, s.align, &img->pvh_entry);
            continue;
        }
        if (s.filesz > s.memsz)
            return elf_corrupt(img, err, "a segment is longer in the file than in memory");
        if (s.memsz && range_outside(s.paddr, s.memsz, LAYOUT_4G))
            return err_set(err, EINVAL,
                           "kernel %s: wants to be loaded at physical address 0x%llx, outside the first "
                           "4 GiB; link it lower",
                           img->name, (unsigned long long)s.paddr);
        any = any || s.memsz;
    }
    if (!any)
        return elf_corrupt(img, err, "it has no segment to load");
    return 0;
}

int elf_check(struct boot_image *img, bool *has_pvh, struct err *err)
{
    int rc = elf_check_header(img, err);

    *has_pvh = false;
    if (rc == 0)
        rc = elf_check_table(img, err);
    if (rc == 0)
        rc = elf_check_segments(img, has_pvh, err);
    if (rc == 0 && *has_pvh && !elf_covers(img, img->pvh_entry))
        rc = err_set(err, EINVAL,
                     "kernel %s: its PVH entry point 0x%x lies in no segment; fetch or build it again",
                     img->name, img->pvh_entry);
    return rc;
}

static int elf_load_segment(struct load *l, const struct elf_seg *s)
{
    int rc = place_claim(&l->place, s->paddr, s->memsz);

    if (rc == -ERANGE)
        return err_set(l->err, ENOMEM,
                       "kernel %s: %llu MiB of memory are too small, it wants to be loaded up to %llu "
                       "MiB; give the machine more memory",
                       l->img->name, (unsigned long long)(l->cfg->mem_below_4g / MIB),
                       (unsigned long long)((s->paddr + s->memsz + MIB - 1) / MIB));
    if (rc == -ENOSPC)
        return elf_corrupt(l->img, l->err, "it has too many segments");
    if (rc < 0)
        return err_set(
            l->err, EINVAL,
            "kernel %s: its segment at 0x%llx overlaps another one or an area that is no "
            "plain RAM (below 0x1000, 0x9fc00 to 0xfffff); link it elsewhere, best at 1 MiB or above",
            l->img->name, (unsigned long long)s->paddr);
    rc = load_bytes(l, s->paddr, l->img->data + s->offset, s->filesz);
    if (rc == 0)
        rc = load_zero(l, s->paddr + s->filesz, s->memsz - s->filesz);
    if (s->paddr + s->memsz > l->kernel_end)
        l->kernel_end = s->paddr + s->memsz;
    return rc;
}

int elf_load_segments(struct load *l)
{
    for (unsigned i = 0; i < elf_phnum(l->img); i++) {
        struct elf_seg s = elf_seg_get(l->img, i);
        if (s.type != PT_LOAD || s.memsz == 0)
            continue;
        int rc = elf_load_segment(l, &s);
        if (rc < 0)
            return rc;
    }
    return 0;
}
