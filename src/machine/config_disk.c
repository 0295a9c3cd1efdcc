/* --disk FILE[,format=raw][,ro][,ephemeral]: from text to struct config_disk.
 *
 * The format is never found out from the image's contents: a guest that owns a raw disk could write the
 * header of another format into it, and with that the name of any file of the host (safety: formats are not
 * probed).
 *
 * Thread: whoever builds the machine; no locks.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/err.h"
#include "machine/config.h"

static const struct {
    const char *name, *suffixes[2];
    enum config_format format;
} config_formats[] = {
    { "raw", { ".raw", ".img" }, CONFIG_RAW },
};

static int config_disk_format(struct config_disk *d, const char *name, size_t len, struct err *err)
{
    for (size_t i = 0; i < ARRAY_LEN(config_formats); i++) {
        if (strlen(config_formats[i].name) == len && !strncmp(config_formats[i].name, name, len)) {
            d->format = config_formats[i].format;
            return 0;
        }
    }
    return err_set(err, EINVAL, "disk '%s': format '%.*s' is unknown: use raw", d->path,
                   (int)(len > 64 ? 64 : len), name);
}

static int config_disk_suffix(struct config_disk *d, struct err *err)
{
    size_t len = strlen(d->path);

    for (size_t i = 0; i < ARRAY_LEN(config_formats); i++) {
        for (size_t k = 0; k < ARRAY_LEN(config_formats[i].suffixes); k++) {
            const char *s = config_formats[i].suffixes[k];
            if (s && len > strlen(s) && !strcmp(d->path + len - strlen(s), s)) {
                d->format = config_formats[i].format;
                return 0;
            }
        }
    }
    return err_set(err, EINVAL, "disk '%s': its name does not say its format: add ',format=raw'", d->path);
}

static int config_disk_word(struct config_disk *d, const char *word, size_t len, struct err *err)
{
    if (len > 7 && !strncmp(word, "format=", 7))
        return config_disk_format(d, word + 7, len - 7, err);
    if (len == 2 && !strncmp(word, "ro", 2))
        d->ro = true;
    else if (len == 9 && !strncmp(word, "ephemeral", 9))
        d->ephemeral = true;
    else
        return err_set(err, EINVAL, "disk '%s': '%.*s' is unknown: use format=raw, ro or ephemeral", d->path,
                       (int)(len > 64 ? 64 : len), word);
    return 0;
}

static int config_disk_parse(struct config_disk *d, const char *value, struct err *err)
{
    size_t len = strcspn(value, ",");
    int r = 0;

    if (!len)
        return err_set(err, EINVAL, "disk '%s' names no file: write it like disk.img or disk.img,ro", value);
    d->path = strndup(value, len);
    if (!d->path)
        return err_set(err, ENOMEM, "out of memory");
    for (value += len; r == 0 && *value; value += len) {
        value++;
        len = strcspn(value, ",");
        r = config_disk_word(d, value, len, err);
    }
    if (r == 0 && d->format == CONFIG_FORMAT_NONE)
        r = config_disk_suffix(d, err);
    if (r == 0 && d->ro && d->ephemeral)
        r = err_set(err, EINVAL, "disk '%s': ro and ephemeral exclude each other", d->path);
    return r;
}

int config_set_disk(struct machine_config *c, const char *value, struct err *err)
{
    struct config_disk d = { .path = NULL };
    int r;

    if (c->disks == CONFIG_DISKS)
        return err_set(err, EINVAL, "disk was given more than %d times", CONFIG_DISKS);
    r = config_disk_parse(&d, value, err);
    if (r < 0) {
        free(d.path);
        return r;
    }
    c->disk[c->disks++] = d;
    return 0;
}

void config_free_disks(struct machine_config *c)
{
    for (unsigned n = 0; n < c->disks; n++)
        free(c->disk[n].path);
    c->disks = 0;
}
