/* The tables as firmware wants them: files in fw_cfg, and a script that says where to put the ACPI tables and which
 * addresses and checksums to mend then.
 *
 * Source: QEMU docs/specs/fw_cfg.rst (etc/e820 is a list of 20-byte entries as in ACPI 6.4, 15.1); the table loader's
 * commands as SeaBIOS (src/fw/romfile_loader.h) and OVMF read them; DSP0134 SMBIOS 3.4, 5.2.1 (32-bit entry point).
 * Runs on the thread that builds the machine, or on a vCPU's under the device lock; no state.
 */
#include "boot/firmware.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "boot/parts.h"

#define FILE_ACPI "etc/acpi/tables"
#define FILE_RSDP "etc/acpi/rsdp"

/* acpi_build() puts the RSDP first; the FACS, which comes next, wants 64-byte alignment. */
enum { RSDP_ROOM = 64, RSDP_SIZE = 36, ACPI_ROOM = 128 << 10 };
enum { LOADER_ALLOCATE = 1, LOADER_POINTER = 2, LOADER_CHECKSUM = 3, LOADER_ENTRY = 128, LOADER_NAME = 56 };
enum { ZONE_HIGH = 1, ZONE_FSEG = 2 };

static int blob_make(struct boot_blob *b, const void *data, size_t len)
{
    b->data = malloc(len ? len : 1);
    if (!b->data)
        return -ENOMEM;
    memcpy(b->data, data, len);
    b->len = len;
    return 0;
}

/* ---- ACPI ---- */

struct script {
    uint8_t *data;
    size_t len;
};

static uint8_t *script_add(struct script *s, uint32_t command, const char *file)
{
    uint8_t *e = s->data + s->len;

    s->len += LOADER_ENTRY;
    st_le32(e, command);
    memcpy(e + 4, file, strlen(file));
    return e + 4 + LOADER_NAME;
}

static void script_allocate(struct script *s, const char *file, uint32_t align, uint8_t zone)
{
    uint8_t *e = script_add(s, LOADER_ALLOCATE, file);

    st_le32(e, align);
    e[4] = zone;
}

/* In which file an offset of acpi_build()'s buffer ended up. */
static const char *script_file(uint32_t *at)
{
    if (*at < RSDP_ROOM)
        return FILE_RSDP;
    *at -= RSDP_ROOM;
    return FILE_ACPI;
}

static void script_pointer(struct script *s, struct acpi_pointer p)
{
    const char *file = script_file(&p.at);
    uint8_t *e = script_add(s, LOADER_POINTER, file);

    memcpy(e, FILE_ACPI, strlen(FILE_ACPI));
    st_le32(e + LOADER_NAME, p.at);
    e[LOADER_NAME + 4] = p.size;
}

/* The field must be zero before: OVMF stores what makes the sum zero, SeaBIOS subtracts. */
static void script_checksum(struct script *s, struct acpi_sum sum, uint8_t *buf)
{
    const char *file;
    uint8_t *e;

    buf[sum.at] = 0;
    file = script_file(&sum.at);
    script_file(&sum.start);
    e = script_add(s, LOADER_CHECKSUM, file);
    st_le32(e, sum.at);
    st_le32(e + 4, sum.start);
    st_le32(e + 8, sum.len);
}

static int fw_make_script(struct boot_fw_files *f, const struct acpi_fixups *fix, uint8_t *buf)
{
    struct script s = { .data = calloc(2 + fix->npointers + fix->nsums, LOADER_ENTRY) };

    if (!s.data)
        return -ENOMEM;
    script_allocate(&s, FILE_RSDP, 16, ZONE_FSEG);
    script_allocate(&s, FILE_ACPI, 64, ZONE_HIGH);
    for (unsigned n = 0; n < fix->npointers; n++)
        script_pointer(&s, fix->pointer[n]);
    for (unsigned n = 0; n < fix->nsums; n++)
        script_checksum(&s, fix->sum[n], buf);
    f->loader = (struct boot_blob){ .data = s.data, .len = s.len };
    return 0;
}

static int fw_make_acpi(struct boot_fw_files *f, const struct boot_config *cfg)
{
    struct acpi_fixups fix = { .npointers = 0 };
    uint8_t *buf = calloc(1, ACPI_ROOM);
    int used, r;

    if (!buf)
        return -ENOMEM;
    used = acpi_build(cfg, -(uint64_t)RSDP_ROOM, buf, ACPI_ROOM, &fix);
    r = used < 0 ? used : fw_make_script(f, &fix, buf);
    if (r == 0)
        r = blob_make(&f->rsdp, buf, RSDP_SIZE);
    if (r == 0)
        r = blob_make(&f->acpi, buf + RSDP_ROOM, (size_t)used - RSDP_ROOM);
    free(buf);
    return r;
}

/* ---- SMBIOS ---- */

/* The length of the structure at p, strings included; 0: not whole. */
static size_t fw_structure_len(const uint8_t *p, size_t left)
{
    for (size_t n = left < 4 ? left : p[1]; n + 2 <= left; n++) {
        if (p[n] == 0 && p[n + 1] == 0)
            return n + 2;
    }
    return 0;
}

static void fw_sum(uint8_t *p, size_t len, unsigned at)
{
    uint8_t sum = 0;

    p[at] = 0;
    for (size_t n = 0; n < len; n++)
        sum = (uint8_t)(sum + p[n]);
    p[at] = (uint8_t)-sum;
}

/* The 32-bit entry point; firmware sets the address at 18h and the sums. */
static void fw_smbios_anchor(uint8_t e[31], size_t len, size_t largest, unsigned count)
{
    memset(e, 0, 31);
    memcpy(e, "_SM_", 4);
    e[5] = 31;
    e[6] = 2;
    e[7] = 8;
    st_le16(e + 8, (uint16_t)largest);
    memcpy(e + 16, "_DMI_", 5);
    st_le16(e + 22, (uint16_t)len);
    st_le16(e + 28, (uint16_t)count);
    e[30] = 0x28;
    fw_sum(e + 16, 15, 5);
    fw_sum(e, 31, 4);
}

/* Without our type 0: which BIOS there is, the firmware says itself. */
static int fw_make_smbios(struct boot_fw_files *f, const struct boot_config *cfg)
{
    enum { ROOM = 64 << 10, AFTER_ENTRY = 32 };
    uint8_t *buf = calloc(1, ROOM), *out = NULL, anchor[31];
    int used = buf ? smbios_build(cfg, 0, buf, ROOM) : -ENOMEM, r = used;
    size_t largest = 0, len = 0, n;
    unsigned count = 0;

    for (size_t at = AFTER_ENTRY; used > 0 && (n = fw_structure_len(buf + at, (size_t)used - at)); at += n) {
        if (buf[at] == 0)
            continue;
        out = buf + AFTER_ENTRY; /* at or before the structure: it moves down */
        memmove(out + len, buf + at, n);
        len += n;
        largest = n > largest ? n : largest;
        count++;
    }
    if (out) {
        fw_smbios_anchor(anchor, len, largest, count);
        r = blob_make(&f->smbios_anchor, anchor, sizeof(anchor));
        if (r == 0)
            r = blob_make(&f->smbios, out, len);
    }
    free(buf);
    return r;
}

/* ---- memory ---- */

static int fw_make_e820(struct boot_fw_files *f, const struct boot_config *cfg)
{
    const struct boot_e820 map[] = {
        { 0, cfg->mem_below_4g, E820_RAM },
        { LAYOUT_VMGENID, LAYOUT_KVM_PAGES + LAYOUT_KVM_SIZE - LAYOUT_VMGENID, E820_RESERVED },
        { LAYOUT_4G, cfg->mem_above_4g, E820_RAM },
    };
    uint8_t out[ARRAY_LEN(map) * 20];
    size_t len = 0;

    for (size_t n = 0; n < ARRAY_LEN(map); n++) {
        if (!map[n].len)
            continue;
        st_le64(out + len, map[n].addr);
        st_le64(out + len + 8, map[n].len);
        st_le32(out + len + 16, map[n].type);
        len += 20;
    }
    return blob_make(&f->e820, out, len);
}

int boot_fw_files_make(struct boot_fw_files *f, const struct boot_config *cfg, struct err *err)
{
    int r;

    *f = (struct boot_fw_files){ .e820 = { .data = NULL } };
    r = fw_make_e820(f, cfg);
    if (r == 0)
        r = fw_make_acpi(f, cfg);
    if (r == 0)
        r = fw_make_smbios(f, cfg);
    if (r == 0)
        return 0;
    boot_fw_files_free(f);
    return err_set(err, -r, "cannot build the tables for the firmware: %s", strerror(-r));
}

void boot_fw_files_free(struct boot_fw_files *f)
{
    struct boot_blob *all[] = { &f->e820, &f->rsdp, &f->acpi, &f->loader, &f->smbios_anchor, &f->smbios };

    for (size_t n = 0; n < ARRAY_LEN(all); n++)
        boot_blob_free(all[n]);
}
