/* The configuration of a machine whose disk was put under an overlay: what --disk would have to say for the chain as it is now,
 * so that the machine, saved or defined again, opens it by itself.
 *
 *   old.qcow2,backing=a.img,serial=x     over.qcow2,format=qcow2,backing=old.qcow2,backing=a.img,serial=x
 *
 * The old image's format is then the one that its name shows, or else what the overlay says: a name that shows another format
 * than the disk is used with is refused, or the guest could have written that format's header into it.
 * And of one whose disk was copied to another place, which needs no backing files there.
 * Thread: whoever owns the configuration; no locks.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/err.h"
#include "machine/config.h"

static struct config_given *overlay_given(struct machine_config *c, unsigned n)
{
    for (unsigned i = 0; i < c->givens; i++) {
        if (!strcmp(c->given[i].key->key, "disk") && n-- == 0)
            return &c->given[i];
    }
    return NULL;
}

static int overlay_allowed(const struct config_disk *d, const char *path, struct err *err)
{
    enum image_format shown = image_format_suffix(d->path);

    if (d->ro || d->ephemeral)
        return err_set(err, EROFS, "disk '%s': is %s: only a disk that is written gets an overlay", d->path,
                       d->ro ? "read-only" : "ephemeral");
    if (shown != IMAGE_FORMAT_NONE && shown != d->format)
        return err_set(err, EINVAL, "disk '%s': has the name of a %s image, but is used as %s: it cannot be under an overlay",
                       d->path, image_format_name(shown), image_format_name(d->format));
    if (d->backings == ARRAY_LEN(d->backing))
        return err_set(err, ELOOP, "disk '%s': has %zu images under it already, more are not opened: commit or convert it",
                       d->path, ARRAY_LEN(d->backing));
    if (!*path || strchr(path, ','))
        return err_set(err, EINVAL, "overlay '%s': its name must not be empty, nor hold a comma", path);
    return 0;
}

/* What --disk would say; NULL: no memory. copy_format: path is no overlay, but a copy of that format. */
static char *overlay_text(const char *old, const char *path, enum image_format copy_format)
{
    size_t name = strcspn(old, ",");
    char *text = NULL, *copy = strdup(old + name), *rest = copy, *word;
    size_t size = 0;
    FILE *f = copy ? open_memstream(&text, &size) : NULL;
    bool bad;

    if (!f) {
        free(copy);
        return NULL;
    }
    if (copy_format == IMAGE_FORMAT_NONE)
        fprintf(f, "%s,format=qcow2,backing=%.*s", path, (int)name, old);
    else
        fprintf(f, "%s,format=%s", path, image_format_name(copy_format));
    while ((word = strsep(&rest, ","))) {
        bool backing = !strncmp(word, "backing=", 8) && copy_format != IMAGE_FORMAT_NONE;

        if (*word && !backing && strncmp(word, "format=", 7))
            fprintf(f, ",%s", word);
    }
    free(copy);
    bad = ferror(f);
    if (!fclose(f) && !bad)
        return text;
    free(text);
    return NULL;
}

int config_overlay_begin(struct config_overlay *o, struct machine_config *c, unsigned n, const char *path, struct err *err)
{
    int r;

    *o = (struct config_overlay){ .disk = n < c->disks ? &c->disk[n] : NULL, .given = overlay_given(c, n) };
    if (!o->disk || !o->given)
        return err_set(err, ENOENT, "there is no disk %u", n);
    r = overlay_allowed(o->disk, path, err);
    if (r < 0)
        return r;
    o->path = strdup(path);
    o->text = overlay_text(o->given->value, path, IMAGE_FORMAT_NONE);
    if (o->path && o->text)
        return 0;
    config_overlay_abort(o);
    return err_set(err, ENOMEM, "out of memory");
}

/* What --disk would say without the nth backing=FILE; NULL: no memory. */
static char *overlay_text_without(const char *old, unsigned at)
{
    char *text = NULL, *copy = strdup(old), *rest = copy, *word;
    size_t size = 0;
    FILE *f = copy ? open_memstream(&text, &size) : NULL;
    bool bad, first = true;

    while (f && (word = strsep(&rest, ","))) {
        bool backing = !strncmp(word, "backing=", 8) && strcmp(word + 8, "allow");

        if (!backing || at-- != 0)
            fprintf(f, "%s%s", first ? "" : ",", word);
        first = false;
    }
    free(copy);
    bad = !f || ferror(f);
    if (f && !fclose(f) && !bad)
        return text;
    free(text);
    return NULL;
}

int config_forget_backing(struct machine_config *c, unsigned n, unsigned at, struct err *err)
{
    struct config_given *given = overlay_given(c, n);
    struct config_disk *d = &c->disk[n];
    char *text = given && n < c->disks && at < d->backings ? overlay_text_without(given->value, at) : NULL;

    if (!text)
        return err_set(err, ENOMEM, "out of memory");
    free(given->value);
    given->value = text;
    free(d->backing[at]);
    memmove(&d->backing[at], &d->backing[at + 1], (d->backings - at - 1) * sizeof(d->backing[0]));
    d->backings--;
    return 0;
}

void config_overlay_abort(struct config_overlay *o)
{
    free(o->path);
    free(o->text);
}

void config_overlay_commit(struct config_overlay *o)
{
    struct config_disk *d = o->disk;

    free(o->given->value);
    o->given->value = o->text;
    memmove(&d->backing[1], &d->backing[0], d->backings * sizeof(d->backing[0]));
    d->backing[0] = d->path;
    d->backings++;
    d->path = o->path;
    d->format = IMAGE_QCOW2;
}

int config_move_disk(struct machine_config *c, unsigned n, const char *path, struct err *err)
{
    struct config_given *given = overlay_given(c, n);
    struct config_disk *d = &c->disk[n];
    char *copy, *text;

    if (n >= c->disks || !given)
        return err_set(err, ENOENT, "there is no disk %u", n);
    if (!*path || strchr(path, ','))
        return err_set(err, EINVAL, "disk '%s': its name must not be empty, nor hold a comma", path);
    copy = strdup(path);
    text = overlay_text(given->value, path, d->format);
    if (!copy || !text) {
        free(copy);
        free(text);
        return err_set(err, ENOMEM, "out of memory");
    }
    free(given->value);
    given->value = text;
    free(d->path);
    d->path = copy;
    while (d->backings > 0)
        free(d->backing[--d->backings]);
    d->allow_backing = false;
    return 0;
}
