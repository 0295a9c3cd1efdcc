/* AML encoding: ACPI 6.4, chapter 20 (grammar) and 6.4 (resource descriptors). No state. */
#include "boot/aml.h"

#include <stdlib.h>
#include <string.h>

#include "base/bits.h"

enum {
    OP_ZERO = 0x00,
    OP_ONE = 0x01,
    OP_NAME = 0x08,
    OP_BYTE = 0x0a,
    OP_WORD = 0x0b,
    OP_DWORD = 0x0c,
    OP_STRING = 0x0d,
    OP_QWORD = 0x0e,
    OP_SCOPE = 0x10,
    OP_BUFFER = 0x11,
    OP_PACKAGE = 0x12,
    OP_METHOD = 0x14,
    OP_DUAL_NAME = 0x2e,
    OP_MULTI_NAME = 0x2f,
    OP_EXT = 0x5b,
    OP_EXT_REGION = 0x80,
    OP_EXT_FIELD = 0x81,
    OP_EXT_DEVICE = 0x82,
    OP_ARG0 = 0x68,
    OP_IF = 0xa0,
    OP_ELSE = 0xa1,
    OP_RETURN = 0xa4,
};

enum { REGION_IO = 1, FIELD_BYTES = 1 }; /* 20.2.5.2: address space; access type, no lock, the rest preserved */

void aml_init(struct aml *a) { memset(a, 0, sizeof(*a)); }

void aml_fini(struct aml *a)
{
    free(a->data);
    memset(a, 0, sizeof(*a));
}

/* Room for len bytes more; false when there is no memory. */
static bool aml_grow(struct aml *a, size_t len)
{
    size_t cap = a->cap ? a->cap : 1024;
    uint8_t *p;

    if (a->failed)
        return false;
    if (a->len + len <= a->cap)
        return true;
    while (cap < a->len + len)
        cap *= 2;
    p = realloc(a->data, cap);
    if (!p) {
        a->failed = true;
        return false;
    }
    a->data = p;
    a->cap = cap;
    return true;
}

void aml_bytes(struct aml *a, const void *p, size_t len)
{
    if (!aml_grow(a, len))
        return;
    memcpy(a->data + a->len, p, len);
    a->len += len;
}

void aml_byte(struct aml *a, uint8_t v) { aml_bytes(a, &v, 1); }

/* Put bytes before what was written since position at. */
static void aml_insert(struct aml *a, size_t at, const void *p, size_t len)
{
    if (!aml_grow(a, len))
        return;
    memmove(a->data + at + len, a->data + at, a->len - at);
    memcpy(a->data + at, p, len);
    a->len += len;
}

void aml_int(struct aml *a, uint64_t v)
{
    uint8_t b[9];

    st_le64(b + 1, v);
    if (v <= 1) {
        aml_byte(a, v ? OP_ONE : OP_ZERO);
    } else if (v <= 0xff) {
        b[0] = OP_BYTE;
        aml_bytes(a, b, 2);
    } else if (v <= 0xffff) {
        b[0] = OP_WORD;
        aml_bytes(a, b, 3);
    } else if (v <= 0xffffffff) {
        b[0] = OP_DWORD;
        aml_bytes(a, b, 5);
    } else {
        b[0] = OP_QWORD;
        aml_bytes(a, b, 9);
    }
}

void aml_string(struct aml *a, const char *s)
{
    aml_byte(a, OP_STRING);
    aml_bytes(a, s, strlen(s) + 1);
}

/* Write the segment that ends at a dot or the end; returns what comes after it. */
static const char *aml_seg(struct aml *a, const char *s)
{
    char seg[4] = { '_', '_', '_', '_' };

    for (unsigned i = 0; *s && *s != '.'; s++, i++)
        if (i < 4)
            seg[i] = *s;
    aml_bytes(a, seg, 4);
    return *s ? s + 1 : s;
}

void aml_path(struct aml *a, const char *path)
{
    unsigned segs = 1;

    while (*path == '\\' || *path == '^')
        aml_byte(a, (uint8_t)*path++);
    for (const char *s = path; *s; s++)
        segs += *s == '.';
    if (*path == 0) {
        aml_byte(a, 0); /* the null name, as in "\\" */
        return;
    }
    if (segs == 2)
        aml_byte(a, OP_DUAL_NAME);
    if (segs > 2) {
        aml_byte(a, OP_MULTI_NAME);
        aml_byte(a, (uint8_t)segs);
    }
    while (*path)
        path = aml_seg(a, path);
}

static unsigned aml_hex(char c) { return c <= '9' ? (unsigned)(c - '0') : (unsigned)(c - 'A') + 10; }

void aml_eisaid(struct aml *a, const char *id)
{
    /* Three letters of 5 bits and four hex digits, stored big-endian (ACPI 6.4, 19.6.37). */
    uint32_t v = 0;

    for (int i = 0; i < 3; i++)
        v = v << 5 | ((unsigned)(id[i] - 0x40) & 0x1f);
    for (int i = 3; i < 7; i++)
        v = v << 4 | aml_hex(id[i]);
    aml_int(a, __builtin_bswap32(v));
}

void aml_name(struct aml *a, const char *path)
{
    aml_byte(a, OP_NAME);
    aml_path(a, path);
}

void aml_name_int(struct aml *a, const char *path, uint64_t v)
{
    aml_name(a, path);
    aml_int(a, v);
}

void aml_name_string(struct aml *a, const char *path, const char *s)
{
    aml_name(a, path);
    aml_string(a, s);
}

void aml_name_eisaid(struct aml *a, const char *path, const char *id)
{
    aml_name(a, path);
    aml_eisaid(a, id);
}

/* Start a package: its length will be inserted here. */
static void aml_open(struct aml *a)
{
    if (a->depth == AML_DEPTH)
        a->failed = true;
    else
        a->open[a->depth++] = a->len;
}

void aml_close(struct aml *a)
{
    uint8_t b[4];
    size_t at, body, n;

    if (a->failed || a->depth == 0) {
        a->failed = true;
        return;
    }
    /* The length counts its own bytes: one of 6 bits, or 4 bits and up to three bytes more. */
    at = a->open[--a->depth];
    body = a->len - at;
    for (n = 1; n < 4 && body + n >= (n == 1 ? 1u << 6 : 1u << (4 + 8 * (n - 1))); n++)
        ;
    if (n == 1) {
        b[0] = (uint8_t)(body + 1);
    } else {
        b[0] = (uint8_t)((n - 1) << 6 | ((body + n) & 0xf));
        for (size_t i = 1; i < n; i++)
            b[i] = (uint8_t)((body + n) >> (4 + 8 * (i - 1)));
    }
    aml_insert(a, at, b, n);
}

void aml_scope(struct aml *a, const char *path)
{
    aml_byte(a, OP_SCOPE);
    aml_open(a);
    aml_path(a, path);
}

void aml_device(struct aml *a, const char *path)
{
    aml_byte(a, OP_EXT);
    aml_byte(a, OP_EXT_DEVICE);
    aml_open(a);
    aml_path(a, path);
}

void aml_method(struct aml *a, const char *path, unsigned args, bool serialized)
{
    aml_byte(a, OP_METHOD);
    aml_open(a);
    aml_path(a, path);
    aml_byte(a, (uint8_t)(args | (serialized ? 8 : 0)));
}

void aml_package(struct aml *a, uint8_t elements)
{
    aml_byte(a, OP_PACKAGE);
    aml_open(a);
    aml_byte(a, elements);
}

void aml_port(struct aml *a, const char *region, uint16_t port, const char *field)
{
    aml_byte(a, OP_EXT);
    aml_byte(a, OP_EXT_REGION);
    aml_path(a, region);
    aml_byte(a, REGION_IO);
    aml_int(a, port);
    aml_int(a, 1);
    aml_byte(a, OP_EXT);
    aml_byte(a, OP_EXT_FIELD);
    aml_open(a);
    aml_path(a, region);
    aml_byte(a, FIELD_BYTES);
    aml_path(a, field);
    aml_byte(a, 8); /* bits */
    aml_close(a);
}

void aml_if(struct aml *a)
{
    aml_byte(a, OP_IF);
    aml_open(a);
}

void aml_else(struct aml *a)
{
    aml_byte(a, OP_ELSE);
    aml_open(a);
}

void aml_return(struct aml *a) { aml_byte(a, OP_RETURN); }
void aml_arg(struct aml *a, unsigned n) { aml_byte(a, (uint8_t)(OP_ARG0 + n)); }
void aml_op(struct aml *a, uint8_t op) { aml_byte(a, op); }

void aml_res_open(struct aml *a)
{
    aml_byte(a, OP_BUFFER);
    aml_open(a);
}

void aml_res_close(struct aml *a)
{
    struct aml size;
    size_t at = a->depth ? a->open[a->depth - 1] : 0;

    /* End tag with checksum 0: "treat as correct" (6.4.2.9). Then the buffer's size goes before. */
    aml_bytes(a, "\x79\0", 2);
    aml_init(&size);
    aml_int(&size, a->len - at);
    if (size.failed)
        a->failed = true;
    else
        aml_insert(a, at, size.data, size.len);
    aml_fini(&size);
    aml_close(a);
}

void aml_res_io(struct aml *a, uint16_t base, uint8_t len)
{
    uint8_t d[8] = { 0x47, 1 }; /* decodes 16 bits */

    st_le16(d + 2, base);
    st_le16(d + 4, base);
    d[6] = 1;
    d[7] = len;
    aml_bytes(a, d, sizeof(d));
}

void aml_res_irq(struct aml *a, unsigned irq)
{
    uint8_t d[3] = { 0x22 };

    st_le16(d + 1, (uint16_t)(1u << irq));
    aml_bytes(a, d, sizeof(d));
}

void aml_res_memory32(struct aml *a, uint32_t base, uint32_t len)
{
    uint8_t d[12] = { 0x86, 9, 0, 1 }; /* read-write */

    st_le32(d + 4, base);
    st_le32(d + 8, len);
    aml_bytes(a, d, sizeof(d));
}

/* The common form of address space descriptors (6.4.3.5); width is the size of one number. */
static void aml_window(struct aml *a, unsigned width, uint8_t type, uint8_t type_flags, uint64_t first,
                       uint64_t last)
{
    uint64_t num[5] = { 0, first, last, 0, last - first + 1 };
    uint8_t d[6] = { 0, 0, 0, type, 0x0c, type_flags }; /* producer, positive decode, min and max fixed */

    d[0] = width == 2 ? 0x88 : width == 4 ? 0x87 : 0x8a;
    st_le16(d + 1, (uint16_t)(3 + 5 * width));
    aml_bytes(a, d, sizeof(d));
    for (unsigned i = 0; i < 5; i++)
        aml_bytes(a, &num[i], width);
}

void aml_res_bus_window(struct aml *a, uint16_t first, uint16_t last) { aml_window(a, 2, 2, 0, first, last); }

void aml_res_io_window(struct aml *a, uint16_t first, uint16_t last)
{
    aml_window(a, 2, 1, 3, first, last); /* the whole range, ISA and not */
}

void aml_res_memory32_window(struct aml *a, uint32_t first, uint32_t last)
{
    aml_window(a, 4, 0, 1, first, last); /* read-write, not cacheable */
}

void aml_res_memory64_window(struct aml *a, uint64_t first, uint64_t last)
{
    aml_window(a, 8, 0, 3, first, last); /* read-write, cacheable: may hold prefetchable BARs */
}
