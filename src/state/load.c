/* Loading described state: the bytes are hostile until they have been checked whole.
 *
 * All sections of a stream are walked first: bounds, names, checksums, no section twice. The
 * wanted one is then parsed into a copy of the object; names, kinds and counts must be those of the
 * description, and nothing may be left over. Only a copy that also passes the device's own check is
 * committed. Recursion follows the description, never the bytes. Memory used: one object.
 * The caller holds whatever keeps the object still (the device lock).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/bits.h"
#include "base/err.h"
#include "state/format.h"

/* Bytes not read yet. */
struct reader {
    const uint8_t *p;
    size_t left;
};

/* The next n bytes, or NULL if there are fewer. */
static const uint8_t *get_bytes(struct reader *r, size_t n)
{
    const uint8_t *p = r->p;

    if (n > r->left)
        return NULL;
    r->p += n;
    r->left -= n;
    return p;
}

static bool get_u8(struct reader *r, uint8_t *v)
{
    const uint8_t *p = get_bytes(r, 1);

    *v = p ? *p : 0;
    return p != NULL;
}

static bool get_u16(struct reader *r, uint16_t *v)
{
    const uint8_t *p = get_bytes(r, 2);

    *v = p ? ld_le16(p) : 0;
    return p != NULL;
}

static bool get_u32(struct reader *r, uint32_t *v)
{
    const uint8_t *p = get_bytes(r, 4);

    *v = p ? ld_le32(p) : 0;
    return p != NULL;
}

static bool get_u64(struct reader *r, uint64_t *v)
{
    const uint8_t *p = get_bytes(r, 8);

    *v = p ? ld_le64(p) : 0;
    return p != NULL;
}

/* name has room for STATE_NAME_MAX + 1 bytes. */
static bool get_name(struct reader *r, char *name)
{
    const uint8_t *p;
    uint8_t n;

    if (!get_u8(r, &n) || !(p = get_bytes(r, n)) || !state_name_ok((const char *)p, n))
        return false;
    memcpy(name, p, n);
    name[n] = '\0';
    return true;
}

static bool get_magic(struct reader *r)
{
    const uint8_t *p = get_bytes(r, STATE_MAGIC_LEN);

    return p && memcmp(p, STATE_MAGIC, STATE_MAGIC_LEN) == 0;
}

static bool get_header(struct reader *r, struct state_section *s)
{
    uint64_t len;

    if (!get_magic(r) || !get_name(r, s->name) || !get_u32(r, &s->instance) || !get_u32(r, &s->version) ||
        !get_u64(r, &len))
        return false;
    s->body_len = len;
    s->body = get_bytes(r, len);
    return s->body != NULL;
}

int state_next(const uint8_t *data, size_t len, size_t *pos, struct state_section *s, struct err *err)
{
    struct reader r;
    uint64_t sum;
    size_t n;

    if (len > STATE_MAX_LEN)
        return err_set(err, EINVAL, "the saved state is larger than any machine's (%zu bytes)", len);
    if (*pos >= len)
        return 0;
    r = (struct reader){ .p = data + *pos, .left = len - *pos };
    if (!get_header(&r, s))
        return err_set(err, EINVAL, "the saved state is damaged or cut off at byte %zu", *pos);
    n = (size_t)(r.p - (data + *pos));
    if (!get_u64(&r, &sum) || sum != XXH64(data + *pos, n, 0))
        return err_set(err, EINVAL, "the saved state of %s %u is damaged (its checksum is wrong)", s->name,
                       s->instance);
    *pos += n + sizeof(sum);
    return 1;
}

/* Find the section and check all others on the way. 0, -ENOENT or -EINVAL. */
static int load_find(const uint8_t *data, size_t len, const char *name, uint32_t instance,
                     struct state_section *found, struct err *err)
{
    struct state_section s;
    size_t pos = 0;
    unsigned hits = 0;
    int r;

    while ((r = state_next(data, len, &pos, &s, err)) > 0) {
        if (strcmp(s.name, name) == 0 && s.instance == instance) {
            *found = s;
            hits++;
        }
    }
    if (r < 0)
        return r;
    if (hits > 1)
        return err_set(err, EINVAL, "the saved state holds %s %u more than once", name, instance);
    return hits == 1 ? 0 : err_set(err, ENOENT, "the saved state holds no %s %u", name, instance);
}

/* What the functions below share for one load. */
struct loader {
    struct reader r;
    struct err *err;
};

static int load_refuse(struct loader *l, const struct state_desc *d, const char *field, const char *why)
{
    return err_set(l->err, EINVAL, "the saved state of %s, field %s: %s", d->name, field, why);
}

static int load_body(struct loader *l, const struct state_desc *d, uint32_t version, uint8_t *obj);

static int load_version(struct loader *l, const struct state_desc *d, uint32_t version)
{
    if (version >= 1 && version <= d->version)
        return 0;
    return err_set(l->err, EINVAL, "the saved state of %s has version %u, this vitro knows 1 to %u", d->name,
                   version, d->version);
}

static int load_structs(struct loader *l, const struct state_desc *d, const struct state_field *f,
                        uint8_t *to)
{
    uint32_t version;
    size_t i;
    int r;

    if (!get_u32(&l->r, &version))
        return load_refuse(l, d, f->name, "cut off");
    r = load_version(l, f->sub, version);
    for (i = 0; r == 0 && i < f->count; i++)
        r = load_body(l, f->sub, version, to + i * f->stride);
    return r;
}

static int load_plain(struct loader *l, const struct state_desc *d, const struct state_field *f, uint8_t *to)
{
    size_t i, n = f->count * state_width(f->kind);
    const uint8_t *p = get_bytes(&l->r, n);

    if (!p)
        return load_refuse(l, d, f->name, "cut off");
    for (i = 0; f->kind == STATE_BOOL && i < n; i++) {
        if (p[i] > 1)
            return load_refuse(l, d, f->name, "a bool that is neither 0 nor 1");
    }
    memcpy(to, p, n);
    return 0;
}

/* The place of the named field in the description, or -1. */
static int load_lookup(const struct state_desc *d, const char *name)
{
    int i;

    for (i = 0; d->fields[i].name; i++) {
        if (strcmp(d->fields[i].name, name) == 0)
            return i;
    }
    return -1;
}

static int load_field(struct loader *l, const struct state_desc *d, uint32_t version, uint8_t *obj,
                      bool *seen)
{
    char name[STATE_NAME_MAX + 1];
    const struct state_field *f;
    uint8_t kind;
    uint32_t count;
    int i;

    if (!get_name(&l->r, name) || !get_u8(&l->r, &kind) || !get_u32(&l->r, &count))
        return err_set(l->err, EINVAL, "the saved state of %s is cut off or damaged", d->name);
    i = load_lookup(d, name);
    if (i < 0)
        return load_refuse(l, d, name, "not known to this vitro");
    f = &d->fields[i];
    if (seen[i])
        return load_refuse(l, d, name, "appears twice");
    if (f->since > version)
        return load_refuse(l, d, name, "is newer than the state's own version");
    if (kind != f->kind || count != f->count)
        return load_refuse(l, d, name, "has another kind or count");
    seen[i] = true;
    return f->kind == STATE_STRUCT ? load_structs(l, d, f, obj + f->offset)
                                   : load_plain(l, d, f, obj + f->offset);
}

/* Every field that the state's version had must have been there. */
static int load_missing(struct loader *l, const struct state_desc *d, uint32_t version, const bool *seen)
{
    int i;

    for (i = 0; d->fields[i].name; i++) {
        if (!seen[i] && d->fields[i].since <= version)
            return load_refuse(l, d, d->fields[i].name, "missing");
    }
    return 0;
}

static int load_body(struct loader *l, const struct state_desc *d, uint32_t version, uint8_t *obj)
{
    bool seen[STATE_MAX_FIELDS] = { false };
    uint16_t i, n;
    int r = 0;

    if (!get_u16(&l->r, &n))
        return err_set(l->err, EINVAL, "the saved state of %s is cut off", d->name);
    for (i = 0; r == 0 && i < n; i++)
        r = load_field(l, d, version, obj, seen);
    if (r == 0)
        r = load_missing(l, d, version, seen);
    if (r == 0 && d->check)
        r = d->check(obj, l->err);
    return r;
}

/* Parse the whole section into the staging copy. */
static int load_section(const struct state_section *s, const struct state_desc *d, uint8_t *staged,
                        struct err *err)
{
    struct loader l = { .r = { .p = s->body, .left = s->body_len }, .err = err };
    int r = load_version(&l, d, s->version);

    if (r == 0)
        r = load_body(&l, d, s->version, staged);
    if (r == 0 && l.r.left > 0)
        r = err_set(err, EINVAL, "the saved state of %s has %zu bytes too many", d->name, l.r.left);
    return r;
}

int state_load(const uint8_t *data, size_t len, const struct state_desc *d, uint32_t instance, void *obj,
               struct err *err)
{
    struct state_section s = { .body = NULL };
    uint8_t *staged;
    int r;

    r = state_desc_check(d, err);
    if (r == 0)
        r = load_find(data, len, d->name, instance, &s, err);
    if (r < 0)
        return r;
    staged = malloc(d->size);
    if (!staged)
        return err_set(err, ENOMEM, "out of memory while loading the state of %s", d->name);
    memcpy(staged, obj, d->size);
    r = load_section(&s, d, staged, err);
    if (r == 0)
        memcpy(obj, staged, d->size);
    free(staged);
    return r;
}
