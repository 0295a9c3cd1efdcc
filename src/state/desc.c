/* Checks on descriptions themselves: what a device promises about its own fields.
 *
 * Descriptions are constant tables in the source; tests run this over every one, and saving and
 * loading rely on what it checks. No state, any thread.
 */
#include <errno.h>
#include <string.h>

#include "base/bits.h"
#include "base/err.h"
#include "state/format.h"

static bool name_char_ok(char c)
{
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '.' || c == '-';
}

bool state_name_ok(const char *name, size_t len)
{
    size_t i;

    if (len < 1 || len > STATE_NAME_MAX)
        return false;
    for (i = 0; i < len; i++) {
        if (!name_char_ok(name[i]))
            return false;
    }
    return true;
}

static int desc_field_refuse(const struct state_desc *d, const struct state_field *f, const char *why,
                             struct err *err)
{
    return err_set(err, EINVAL, "the description of %s, field %s: %s", d->name, f->name, why);
}

static int desc_check_at(const struct state_desc *d, unsigned depth, struct err *err);

static int desc_check_struct(const struct state_desc *d, const struct state_field *f, unsigned depth,
                             struct err *err)
{
    if (!f->sub)
        return desc_field_refuse(d, f, "no inner description", err);
    if (f->stride < f->sub->size)
        return desc_field_refuse(d, f, "elements overlap", err);
    return desc_check_at(f->sub, depth + 1, err);
}

static int desc_check_field(const struct state_desc *d, const struct state_field *f, unsigned depth,
                            struct err *err)
{
    size_t width = f->kind == STATE_STRUCT ? f->stride : state_width(f->kind);

    if (!state_name_ok(f->name, strlen(f->name)))
        return desc_field_refuse(d, f, "bad name", err);
    if (width == 0 || f->count == 0 || f->count > UINT32_MAX)
        return desc_field_refuse(d, f, "bad kind, count or stride", err);
    if (f->count > d->size / width || range_outside(f->offset, f->count * width, d->size))
        return desc_field_refuse(d, f, "reaches outside the object", err);
    if (f->since > d->version)
        return desc_field_refuse(d, f, "since is later than the version", err);
    return f->kind == STATE_STRUCT ? desc_check_struct(d, f, depth, err) : 0;
}

static bool desc_name_repeats(const struct state_desc *d, const struct state_field *f)
{
    const struct state_field *g;

    for (g = d->fields; g < f; g++) {
        if (strcmp(g->name, f->name) == 0)
            return true;
    }
    return false;
}

static int desc_check_at(const struct state_desc *d, unsigned depth, struct err *err)
{
    const struct state_field *f;
    int r;

    if (depth > STATE_MAX_DEPTH)
        return err_set(err, EINVAL, "the description of %s is nested too deep", d->name);
    if (!state_name_ok(d->name, strlen(d->name)) || d->version == 0 || d->size == 0)
        return err_set(err, EINVAL, "the description of %s has a bad name, version or size", d->name);
    for (f = d->fields; f->name; f++) {
        if (f - d->fields >= STATE_MAX_FIELDS)
            return desc_field_refuse(d, f, "too many fields", err);
        if (desc_name_repeats(d, f))
            return desc_field_refuse(d, f, "the name appears twice", err);
        r = desc_check_field(d, f, depth, err);
        if (r < 0)
            return r;
    }
    return 0;
}

int state_desc_check(const struct state_desc *d, struct err *err) { return desc_check_at(d, 1, err); }
