/* The static ACPI tables and their placement.
 *
 * Source: ACPI 6.4, 5.2 (RSDP, XSDT, FADT, FACS, MADT); IA-PC HPET specification 1.0a, 3.2.4; PCI
 * Firmware Specification 3.2, 4.1.2 (MCFG); Windows ACPI Emulated Devices Table (WAET).
 * Offsets are byte offsets in a table. Runs on the thread that builds the machine; no state.
 */
#include "boot/parts.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
    RSDP_LEN = 36,
    FACS_LEN = 64,
    FADT_LEN = 276,
    HEADER_LEN = 36,
    GAS_IO = 1,
    MADT_X2APIC_FROM = 255, /* APIC ids from here on need x2APIC entries */
};

/* FADT flags (5.2.9, table 5.10). */
#define FADT_WBINVD     BIT(0)
#define FADT_PROC_C1    BIT(2)
#define FADT_SLP_BUTTON BIT(5) /* no fixed sleep button */
#define FADT_FIX_RTC    BIT(6) /* no RTC wake status in the fixed registers */
#define FADT_RESET_REG  BIT(10)

/* A table area being filled. */
struct acpi {
    uint64_t base;
    uint8_t *buf;
    size_t size, used;
    uint64_t xsdt[8]; /* what the XSDT will point to */
    unsigned n;
    struct acpi_fixups *fix; /* where addresses and checksums are; may be NULL */
};

/* Note that the table at t holds the address of another one, size bytes at off. */
static void acpi_note_pointer(struct acpi *a, const uint8_t *t, unsigned off, unsigned size)
{
    struct acpi_fixups *f = a->fix;

    if (f && f->npointers < ACPI_FIXUPS)
        f->pointer[f->npointers++] =
            (struct acpi_pointer){ .at = (uint32_t)(t - a->buf) + off, .size = (uint8_t)size };
}

/* Note the checksum at off of the table at t, which is over len bytes from its start. */
static void acpi_note_sum(struct acpi *a, const uint8_t *t, unsigned off, size_t len)
{
    struct acpi_fixups *f = a->fix;
    uint32_t start = (uint32_t)(t - a->buf);

    if (f && f->nsums < ACPI_FIXUPS)
        f->sum[f->nsums++] = (struct acpi_sum){ .at = start + off, .start = start, .len = (uint32_t)len };
}

static uint8_t acpi_sum_bytes(const uint8_t *p, size_t len)
{
    uint8_t sum = 0;

    while (len--)
        sum = (uint8_t)(sum + *p++);
    return sum;
}

void acpi_header(uint8_t *t, const char *signature, uint8_t revision, uint32_t len)
{
    memcpy(t, signature, 4);
    st_le32(t + 4, len);
    t[8] = revision;
    t[9] = 0;
    memcpy(t + 10, "VITRO ", 6);
    memcpy(t + 16, "VITROPC ", 8);
    st_le32(t + 24, 1);
    memcpy(t + 28, "VTRO", 4);
    st_le32(t + 32, 1);
    t[9] = (uint8_t)-acpi_sum_bytes(t, len);
}

/* Reserve len bytes: their place in the buffer, NULL when the area is full. */
static uint8_t *acpi_take(struct acpi *a, size_t len, size_t align, uint64_t *gpa)
{
    size_t at = ALIGN_UP(a->used, align);

    if (range_outside(at, len, a->size))
        return NULL;
    a->used = at + len;
    *gpa = a->base + at;
    return a->buf + at;
}

/* The same for a table that the XSDT lists. */
static uint8_t *acpi_table(struct acpi *a, size_t len)
{
    uint64_t gpa;
    uint8_t *t = acpi_take(a, len, 16, &gpa);

    if (t)
        a->xsdt[a->n++] = gpa;
    return t;
}

/* Generic address structure for len bytes of ports (5.2.3.2). */
static void acpi_gas(uint8_t *p, uint8_t len, uint8_t access, uint64_t port)
{
    p[0] = GAS_IO;
    p[1] = (uint8_t)(len * 8);
    p[2] = 0;
    p[3] = access;
    st_le64(p + 4, port);
}

static void acpi_fadt_fill(uint8_t *t, uint64_t facs, uint64_t dsdt)
{
    st_le32(t + 36, (uint32_t)facs);
    st_le32(t + 40, (uint32_t)dsdt);
    st_le16(t + 46, LAYOUT_GSI_SCI);
    st_le32(t + 48, LAYOUT_SMI_CMD);
    t[52] = LAYOUT_ACPI_ENABLE;
    t[53] = LAYOUT_ACPI_DISABLE;
    st_le32(t + 56, LAYOUT_PM_BASE);
    st_le32(t + 64, LAYOUT_PM1_CNT);
    st_le32(t + 76, LAYOUT_PM_TMR);
    st_le32(t + 80, LAYOUT_GPE0);
    t[88] = 4; /* lengths: PM1_EVT, PM1_CNT, PM_TMR, GPE0 */
    t[89] = 2;
    t[91] = 4;
    t[92] = 4;
    st_le16(t + 96, 0xfff); /* no C2 */
    st_le16(t + 98, 0xfff); /* no C3 */
    t[108] = 0x32;          /* century in CMOS */
    st_le16(t + 109, 0x7);  /* legacy devices, 8042, no VGA */
    st_le32(t + 112, FADT_WBINVD | FADT_PROC_C1 | FADT_SLP_BUTTON | FADT_FIX_RTC | FADT_RESET_REG);
    acpi_gas(t + 116, 1, 1, LAYOUT_RESET_PORT);
    t[128] = LAYOUT_RESET_VALUE;
    t[131] = 4; /* minor version: 6.4 */
    st_le64(t + 140, dsdt);
    acpi_gas(t + 148, 4, 2, LAYOUT_PM_BASE);
    acpi_gas(t + 172, 2, 2, LAYOUT_PM1_CNT);
    acpi_gas(t + 208, 4, 3, LAYOUT_PM_TMR);
    acpi_gas(t + 220, 4, 1, LAYOUT_GPE0);
    memcpy(t + 268, "vitro", 5); /* hypervisor vendor */
    acpi_header(t, "FACP", 6, FADT_LEN);
}

/* FACS, DSDT, and the FADT that points to them. */
static int acpi_add_fadt(struct acpi *a, const struct boot_config *cfg)
{
    uint64_t facs_gpa, dsdt_gpa;
    uint8_t *facs = acpi_take(a, FACS_LEN, 64, &facs_gpa), *dsdt, *fadt, *aml;
    size_t aml_len;
    int rc;

    if (!facs)
        return -ENOSPC;
    memcpy(facs, "FACS", 4);
    st_le32(facs + 4, FACS_LEN);
    facs[32] = 2; /* version */
    rc = dsdt_build(cfg, &aml, &aml_len);
    if (rc < 0)
        return rc;
    dsdt = acpi_take(a, aml_len, 16, &dsdt_gpa);
    if (dsdt)
        memcpy(dsdt, aml, aml_len);
    free(aml);
    fadt = dsdt ? acpi_table(a, FADT_LEN) : NULL;
    if (!fadt)
        return -ENOSPC;
    acpi_fadt_fill(fadt, facs_gpa, dsdt_gpa);
    acpi_note_pointer(a, fadt, 36, 4);
    acpi_note_pointer(a, fadt, 40, 4);
    acpi_note_pointer(a, fadt, 140, 8);
    acpi_note_sum(a, fadt, 9, FADT_LEN);
    return 0;
}

/* One interrupt source override (5.2.12.5). */
static uint8_t *acpi_madt_override(uint8_t *p, uint8_t irq, uint32_t gsi, uint16_t flags)
{
    p[0] = 2;
    p[1] = 10;
    p[3] = irq;
    st_le32(p + 4, gsi);
    st_le16(p + 8, flags);
    return p + 10;
}

/* Processor entries: type 0 for ids that fit, type 9 above. */
static uint8_t *acpi_madt_cpus(uint8_t *p, unsigned cpus)
{
    for (unsigned i = 0; i < cpus; i++) {
        if (i < MADT_X2APIC_FROM) {
            p[0] = 0;
            p[1] = 8;
            p[2] = (uint8_t)i;
            p[3] = (uint8_t)i;
            st_le32(p + 4, 1); /* enabled */
            p += 8;
        } else {
            p[0] = 9;
            p[1] = 16;
            st_le32(p + 4, i);
            st_le32(p + 8, 1);
            st_le32(p + 12, i);
            p += 16;
        }
    }
    return p;
}

/* LINT1 of every processor is NMI, edge as on the bus. */
static uint8_t *acpi_madt_nmi(uint8_t *p, unsigned cpus)
{
    p[0] = 4;
    p[1] = 6;
    p[2] = 0xff;
    p[5] = 1;
    p += 6;
    if (cpus > MADT_X2APIC_FROM) {
        p[0] = 0xa;
        p[1] = 12;
        st_le32(p + 4, 0xffffffff);
        p[8] = 1;
        p += 12;
    }
    return p;
}

static int acpi_add_madt(struct acpi *a, unsigned cpus)
{
    unsigned small = cpus < MADT_X2APIC_FROM ? cpus : MADT_X2APIC_FROM;
    size_t len = HEADER_LEN + 8 + small * 8 + (cpus - small) * 16 + 12 + 2 * 10 + 6 + (cpus > small ? 12 : 0);
    uint8_t *t = acpi_table(a, len), *p;

    if (!t)
        return -ENOSPC;
    st_le32(t + 36, (uint32_t)LAYOUT_LAPIC);
    st_le32(t + 40, 1); /* two 8259s are there */
    p = acpi_madt_cpus(t + 44, cpus);
    p[0] = 1; /* IO-APIC */
    p[1] = 12;
    p[2] = LAYOUT_IOAPIC_ID;
    st_le32(p + 4, (uint32_t)LAYOUT_IOAPIC);
    p = acpi_madt_override(p + 12, 0, 2, 0);                               /* timer, as on the bus */
    p = acpi_madt_override(p, LAYOUT_GSI_SCI, LAYOUT_GSI_SCI, 3 << 2 | 1); /* level, active high */
    acpi_madt_nmi(p, cpus);
    acpi_header(t, "APIC", 5, (uint32_t)len);
    return 0;
}

static int acpi_add_hpet(struct acpi *a)
{
    uint8_t *t = acpi_table(a, 56);

    if (!t)
        return -ENOSPC;
    st_le32(t + 36, LAYOUT_HPET_ID);
    t[41] = 64; /* generic address: memory, 64 bits wide */
    st_le64(t + 44, LAYOUT_HPET);
    st_le16(t + 53, 100); /* minimum tick in periodic mode */
    acpi_header(t, "HPET", 1, 56);
    return 0;
}

static int acpi_add_mcfg(struct acpi *a, const struct boot_config *cfg)
{
    uint8_t *t = acpi_table(a, 60);

    if (!t)
        return -ENOSPC;
    st_le64(t + 44, boot_ecam(cfg));
    t[54] = 0;
    t[55] = (uint8_t)(LAYOUT_ECAM_SIZE / MIB - 1);
    acpi_header(t, "MCFG", 1, 60);
    return 0;
}

/* Tells Windows that it needs no work-arounds for real clocks and timers. */
static int acpi_add_waet(struct acpi *a)
{
    uint8_t *t = acpi_table(a, 40);

    if (!t)
        return -ENOSPC;
    st_le32(t + 36, 3); /* RTC good, PM timer good */
    acpi_header(t, "WAET", 1, 40);
    return 0;
}

static int acpi_add_xsdt(struct acpi *a, uint8_t *rsdp)
{
    uint64_t gpa;
    size_t len = HEADER_LEN + a->n * 8;
    uint8_t *t = acpi_take(a, len, 16, &gpa);

    if (!t)
        return -ENOSPC;
    for (unsigned i = 0; i < a->n; i++) {
        st_le64(t + HEADER_LEN + i * 8, a->xsdt[i]);
        acpi_note_pointer(a, t, HEADER_LEN + i * 8, 8);
    }
    acpi_note_sum(a, t, 9, len);
    acpi_header(t, "XSDT", 1, (uint32_t)len);
    memcpy(rsdp, "RSD PTR ", 8);
    memcpy(rsdp + 9, "VITRO ", 6);
    rsdp[15] = 2;
    st_le32(rsdp + 20, RSDP_LEN);
    st_le64(rsdp + 24, gpa);
    acpi_note_pointer(a, rsdp, 24, 8);
    acpi_note_sum(a, rsdp, 8, 20);
    acpi_note_sum(a, rsdp, 32, RSDP_LEN);
    rsdp[8] = (uint8_t)-acpi_sum_bytes(rsdp, 20);
    rsdp[32] = (uint8_t)-acpi_sum_bytes(rsdp, RSDP_LEN);
    return 0;
}

int acpi_build(const struct boot_config *cfg, uint64_t base, uint8_t *buf, size_t size, struct acpi_fixups *fix)
{
    struct acpi a = { .base = base, .buf = buf, .size = size, .fix = fix };
    uint64_t gpa;
    uint8_t *rsdp = acpi_take(&a, RSDP_LEN, 16, &gpa);
    int rc = rsdp ? acpi_add_fadt(&a, cfg) : -ENOSPC;

    if (rc == 0)
        rc = acpi_add_madt(&a, cfg->cpus);
    if (rc == 0)
        rc = acpi_add_hpet(&a);
    if (rc == 0)
        rc = acpi_add_mcfg(&a, cfg);
    if (rc == 0)
        rc = acpi_add_waet(&a);
    if (rc == 0)
        rc = acpi_add_xsdt(&a, rsdp);
    return rc < 0 ? rc : (int)a.used;
}
