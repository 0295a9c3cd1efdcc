/* SMBIOS: what `dmidecode` shows and what systems use to recognise a virtual machine.
 *
 * Source: DMTF DSP0134, SMBIOS 3.4: 5.2.2 (64-bit entry point), 7.1 (type 0), 7.2 (1), 7.4 (3),
 * 7.5 (4), 7.17 (16), 7.18 (17), 7.20 (19), 7.33 (32), 7.45 (127).
 * Runs on the thread that builds the machine; no state.
 */
#include "boot/parts.h"

#include <errno.h>
#include <string.h>

#define ENTRY_LEN  24
#define TABLE_AT   32 /* the structures start here, after the entry point */
#define FORMAT_MAX 128

/* Structure handles: the type in the high byte, so that references are easy to read. */
#define HANDLE(type) ((uint16_t)((type) << 8))

struct smbios {
    uint8_t *buf;
    size_t size, used;
    uint8_t fixed[FORMAT_MAX]; /* the formatted part being built */
    bool failed;
};

/* Start a structure of len formatted bytes. */
static uint8_t *smbios_begin(struct smbios *s, uint8_t type, uint8_t len, uint16_t handle)
{
    memset(s->fixed, 0, sizeof(s->fixed));
    s->fixed[0] = type;
    s->fixed[1] = len;
    st_le16(s->fixed + 2, handle);
    return s->fixed;
}

static void smbios_put(struct smbios *s, const void *p, size_t len)
{
    if (range_outside(s->used, len, s->size)) {
        s->failed = true;
        return;
    }
    memcpy(s->buf + s->used, p, len);
    s->used += len;
}

/* Write the structure with its strings (NULL-terminated list; they are numbered from 1). */
static void smbios_end(struct smbios *s, const char *const *strings)
{
    smbios_put(s, s->fixed, s->fixed[1]);
    if (!strings || !strings[0])
        smbios_put(s, "", 1);
    else
        for (; *strings; strings++)
            smbios_put(s, *strings, strlen(*strings) + 1);
    smbios_put(s, "", 1);
}

static void smbios_bios(struct smbios *s)
{
    static const char *const text[] = { "vitro", "1", "01/01/2026", NULL };
    uint8_t *t = smbios_begin(s, 0, 26, HANDLE(0));

    t[4] = 1;
    t[5] = 2;
    st_le16(t + 6, LAYOUT_BIOS_BASE >> 4);
    t[8] = 3;
    t[9] = (uint8_t)((LAYOUT_BIOS_END - LAYOUT_BIOS_BASE) / (64 * KIB) - 1);
    st_le64(t + 10, BIT(3)); /* characteristics are not supported */
    t[18] = 1;               /* extension: ACPI */
    t[19] = 1 << 4 | 1 << 2; /* a virtual machine, targeted content distribution */
    t[20] = t[22] = 0xff;    /* no release numbers */
    t[21] = t[23] = 0xff;
    smbios_end(s, text);
}

static void smbios_system(struct smbios *s, const uint8_t uuid[16])
{
    static const char *const text[] = { "vitro", "vitro", "pc", NULL };
    uint8_t *t = smbios_begin(s, 1, 27, HANDLE(1));

    t[4] = 1;
    t[5] = 2;
    t[6] = 3;
    /* The first three fields of the UUID are little-endian here (7.2.1). */
    for (unsigned i = 0; i < 16; i++)
        t[8 + i] = uuid[i < 4 ? 3 - i : i < 6 ? 9 - i : i < 8 ? 13 - i : i];
    t[24] = 6; /* wake-up: power switch */
    smbios_end(s, text);
}

static void smbios_chassis(struct smbios *s)
{
    static const char *const text[] = { "vitro", NULL };
    uint8_t *t = smbios_begin(s, 3, 22, HANDLE(3));

    t[4] = 1;
    t[5] = 1;                 /* other */
    t[9] = t[10] = t[11] = 3; /* boot, power, thermal state: safe */
    t[12] = 3;                /* security: none */
    smbios_end(s, text);
}

static void smbios_processor(struct smbios *s, unsigned cpus)
{
    static const char *const text[] = { "CPU 0", "vitro", NULL };
    uint8_t *t = smbios_begin(s, 4, 48, HANDLE(4));
    uint8_t count = cpus < 256 ? (uint8_t)cpus : 0xff;

    t[4] = 1;
    t[5] = 3;     /* central processor */
    t[6] = 1;     /* family: other */
    t[7] = 2;     /* manufacturer */
    t[24] = 0x41; /* populated, enabled */
    t[25] = 1;    /* upgrade: other */
    st_le16(t + 26, 0xffff);
    st_le16(t + 28, 0xffff);
    st_le16(t + 30, 0xffff); /* no cache structures */
    t[35] = t[36] = t[37] = count;
    st_le16(t + 38, 1 << 2); /* 64-bit capable */
    st_le16(t + 40, 1);
    st_le16(t + 42, (uint16_t)cpus); /* counts of more than 255 */
    st_le16(t + 44, (uint16_t)cpus);
    st_le16(t + 46, (uint16_t)cpus);
    smbios_end(s, text);
}

/* The memory array and its one device. */
static void smbios_memory(struct smbios *s, uint64_t total)
{
    static const char *const text[] = { "DIMM 0", "vitro", NULL };
    uint64_t kib = total / KIB, mib = total / MIB;
    uint8_t *t = smbios_begin(s, 16, 23, HANDLE(16));

    t[4] = 1; /* location: other */
    t[5] = 3; /* system memory */
    t[6] = 6; /* multi-bit ECC */
    st_le32(t + 7, kib < 0x80000000 ? (uint32_t)kib : 0x80000000);
    st_le16(t + 11, 0xfffe); /* no error structure */
    st_le16(t + 13, 1);
    st_le64(t + 15, kib < 0x80000000 ? 0 : total);
    smbios_end(s, NULL);
    t = smbios_begin(s, 17, 40, HANDLE(17));
    st_le16(t + 4, HANDLE(16));
    st_le16(t + 6, 0xfffe);
    st_le16(t + 8, 0xffff); /* widths: unknown */
    st_le16(t + 10, 0xffff);
    st_le16(t + 12, mib < 0x7fff ? (uint16_t)mib : 0x7fff);
    t[14] = 9; /* DIMM */
    t[16] = 1;
    t[18] = 7;          /* type: RAM */
    st_le16(t + 19, 2); /* detail: other */
    t[23] = 2;
    st_le32(t + 28, mib < 0x7fff ? 0 : (uint32_t)mib);
    smbios_end(s, text);
}

/* One mapped range of the array. */
static void smbios_range(struct smbios *s, unsigned n, uint64_t start, uint64_t len)
{
    uint8_t *t = smbios_begin(s, 19, 31, (uint16_t)(HANDLE(19) + n));

    if (start + len <= (1ULL << 42)) {
        st_le32(t + 4, (uint32_t)(start / KIB));
        st_le32(t + 8, (uint32_t)((start + len) / KIB - 1));
    } else {
        st_le32(t + 4, 0xffffffff);
        st_le32(t + 8, 0xffffffff);
        st_le64(t + 15, start);
        st_le64(t + 23, start + len - 1);
    }
    st_le16(t + 12, HANDLE(16));
    t[14] = 1;
    smbios_end(s, NULL);
}

static void smbios_entry(uint8_t *e, uint64_t base, size_t len)
{
    uint8_t sum = 0;

    memcpy(e, "_SM3_", 5);
    e[6] = ENTRY_LEN;
    e[7] = 3;
    e[8] = 4;
    e[10] = 1;
    st_le32(e + 12, (uint32_t)len);
    st_le64(e + 16, base + TABLE_AT);
    for (unsigned i = 0; i < ENTRY_LEN; i++)
        sum = (uint8_t)(sum + e[i]);
    e[5] = (uint8_t)-sum;
}

int smbios_build(const struct boot_config *cfg, uint64_t base, uint8_t *buf, size_t size)
{
    struct smbios s = { .buf = buf, .size = size, .used = TABLE_AT };

    if (size < TABLE_AT)
        return -ENOSPC;
    smbios_bios(&s);
    smbios_system(&s, cfg->uuid);
    smbios_chassis(&s);
    smbios_processor(&s, cfg->cpus);
    smbios_memory(&s, cfg->mem_below_4g + cfg->mem_above_4g);
    smbios_range(&s, 0, 0, cfg->mem_below_4g);
    if (cfg->mem_above_4g)
        smbios_range(&s, 1, LAYOUT_4G, cfg->mem_above_4g);
    smbios_begin(&s, 32, 11, HANDLE(32)); /* boot status: no error */
    smbios_end(&s, NULL);
    smbios_begin(&s, 127, 4, HANDLE(127));
    smbios_end(&s, NULL);
    if (s.failed)
        return -ENOSPC;
    smbios_entry(buf, base, s.used - TABLE_AT);
    return (int)s.used;
}
