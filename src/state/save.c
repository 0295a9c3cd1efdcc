/* Saving described state: walks a description and appends one section (format.h) to a buffer.
 *
 * Only described fields are written, each as its value, so the same state is the same bytes
 * whatever lies in padding, pointers or uninitialised memory. The caller holds whatever keeps the
 * object still (the device lock).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/bits.h"
#include "state/format.h"

void state_buf_fini(struct state_buf *b)
{
    free(b->data);
    memset(b, 0, sizeof(*b));
}

/* Room for n more bytes, or NULL with b->failed set. */
static uint8_t *buf_room(struct state_buf *b, size_t n)
{
    size_t need, cap = b->cap ? b->cap : 256;
    uint8_t *data;

    if (b->failed || __builtin_add_overflow(b->len, n, &need) || need > SIZE_MAX / 2) {
        b->failed = true;
        return NULL;
    }
    while (cap < need)
        cap *= 2;
    if (cap != b->cap) {
        data = realloc(b->data, cap);
        if (!data) {
            b->failed = true;
            return NULL;
        }
        b->data = data;
        b->cap = cap;
    }
    b->len = need;
    return b->data + need - n;
}

static void put_bytes(struct state_buf *b, const void *p, size_t n)
{
    uint8_t *to = buf_room(b, n);

    if (to && n > 0)
        memcpy(to, p, n);
}

static void put_u8(struct state_buf *b, uint8_t v) { put_bytes(b, &v, 1); }

static void put_u16(struct state_buf *b, uint16_t v)
{
    uint8_t raw[2];

    st_le16(raw, v);
    put_bytes(b, raw, sizeof(raw));
}

static void put_u32(struct state_buf *b, uint32_t v)
{
    uint8_t raw[4];

    st_le32(raw, v);
    put_bytes(b, raw, sizeof(raw));
}

static void put_u64(struct state_buf *b, uint64_t v)
{
    uint8_t raw[8];

    st_le64(raw, v);
    put_bytes(b, raw, sizeof(raw));
}

static void put_name(struct state_buf *b, const char *name)
{
    size_t n = strlen(name);

    put_u8(b, (uint8_t)n);
    put_bytes(b, name, n);
}

/* A bool in memory is read as a byte: whatever is not 0 is true. */
static void put_bools(struct state_buf *b, const uint8_t *p, size_t count)
{
    size_t i;

    for (i = 0; i < count; i++)
        put_u8(b, p[i] != 0);
}

static void put_body(struct state_buf *b, const struct state_desc *d, const uint8_t *obj);

static void put_structs(struct state_buf *b, const struct state_field *f, const uint8_t *first)
{
    size_t i;

    put_u32(b, f->sub->version);
    for (i = 0; i < f->count; i++)
        put_body(b, f->sub, first + i * f->stride);
}

static void put_field(struct state_buf *b, const struct state_field *f, const uint8_t *obj)
{
    const uint8_t *p = obj + f->offset;

    put_name(b, f->name);
    put_u8(b, (uint8_t)f->kind);
    put_u32(b, (uint32_t)f->count);
    if (f->kind == STATE_STRUCT)
        put_structs(b, f, p);
    else if (f->kind == STATE_BOOL)
        put_bools(b, p, f->count);
    else
        put_bytes(b, p, f->count * state_width(f->kind)); /* x86-64 is little-endian, as the form is */
}

static void put_body(struct state_buf *b, const struct state_desc *d, const uint8_t *obj)
{
    const struct state_field *f;
    uint16_t n = 0;

    for (f = d->fields; f->name; f++)
        n++;
    put_u16(b, n);
    for (f = d->fields; f->name; f++)
        put_field(b, f, obj);
}

int state_save(struct state_buf *out, const struct state_desc *d, uint32_t instance, const void *obj)
{
    size_t start = out->len, length_at, body;

    if (state_desc_check(d, NULL) < 0)
        return -EINVAL;
    put_bytes(out, STATE_MAGIC, STATE_MAGIC_LEN);
    put_name(out, d->name);
    put_u32(out, instance);
    put_u32(out, d->version);
    length_at = out->len;
    put_u64(out, 0);
    body = out->len;
    put_body(out, d, obj);
    if (!out->failed)
        st_le64(out->data + length_at, out->len - body);
    if (!out->failed)
        put_u64(out, XXH64(out->data + start, out->len - start, 0));
    if (out->failed)
        out->len = start;
    return out->failed ? -ENOMEM : 0;
}
