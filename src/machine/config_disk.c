/* --disk FILE[,OPTION]... and --cdrom FILE[,OPTION]...: from text to the configuration. Of a disk:
 *
 *   format=raw|qcow2   default by the file's suffix
 *   ro, ephemeral      not both
 *   backing=allow      open the backing files that the image and those below it name
 *   backing=FILE       use this one instead; again: for the next one down the chain
 *   serial=TEXT        what the guest sees as the serial number
 *   queues=N
 *   aio=auto|threads|io_uring
 *   boot=N             firmware tries the lowest number first (a CD too)
 *
 * The format is never found out from the image's contents: a guest that owns a raw disk could write the
 * header of another format into it, and with that the name of any file of the host. For the same reason a
 * name that an image holds is followed only where the user said so (safety: formats are not probed).
 *
 * Thread: whoever builds the machine; no locks.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/err.h"
#include "machine/config.h"

static int config_disk_format(struct config_disk *d, const char *value, struct err *err)
{
    d->format = image_format_named(value);
    if (d->format != IMAGE_FORMAT_NONE)
        return 0;
    return err_set(err, EINVAL, "disk '%s': format '%.64s' is unknown: use raw or qcow2", d->path, value);
}

static int config_disk_ro(struct config_disk *d, const char *value, struct err *err)
{
    d->ro = true;
    return 0;
}

static int config_disk_ephemeral(struct config_disk *d, const char *value, struct err *err)
{
    d->ephemeral = true;
    return 0;
}

static int config_disk_backing(struct config_disk *d, const char *value, struct err *err)
{
    if (!*value)
        return err_set(err, EINVAL, "disk '%s': backing= names no file: use backing=FILE or backing=allow",
                       d->path);
    if (!strcmp(value, "allow")) {
        d->allow_backing = true;
        return 0;
    }
    if (d->backings == ARRAY_LEN(d->backing))
        return err_set(err, EINVAL, "disk '%s': backing was given more than %zu times", d->path,
                       ARRAY_LEN(d->backing));
    d->backing[d->backings] = strdup(value);
    if (!d->backing[d->backings])
        return err_set(err, ENOMEM, "out of memory");
    d->backings++;
    return 0;
}

static int config_disk_serial(struct config_disk *d, const char *value, struct err *err)
{
    size_t len = strlen(value), good = 0;

    while (value[good] > ' ' && value[good] <= '~')
        good++;
    if (!len || len > CONFIG_SERIAL_MAX || good < len)
        return err_set(err, EINVAL, "disk '%s': serial '%.64s' is not 1 to %d printable characters", d->path,
                       value, CONFIG_SERIAL_MAX);
    strcpy(d->serial, value);
    return 0;
}

static int config_disk_queues(struct config_disk *d, const char *value, struct err *err)
{
    uint64_t n = 0;

    if (config_parse_size(value, &n) < 0 || n < 1 || n > CONFIG_QUEUES_MAX)
        return err_set(err, EINVAL, "disk '%s': queues '%.64s' is not a number from 1 to %d", d->path, value,
                       CONFIG_QUEUES_MAX);
    d->queues = (unsigned)n;
    return 0;
}

static int config_disk_aio(struct config_disk *d, const char *value, struct err *err)
{
    if (!strcmp(value, "auto"))
        d->aio = BLOCK_AIO_AUTO;
    else if (!strcmp(value, "threads"))
        d->aio = BLOCK_AIO_THREADS;
    else if (!strcmp(value, "io_uring"))
        d->aio = BLOCK_AIO_IO_URING;
    else
        return err_set(err, EINVAL, "disk '%s': aio '%.64s' is unknown: use auto, threads or io_uring", d->path, value);
    return 0;
}

static int config_boot_number(unsigned *out, const char *what, const char *path, const char *value, struct err *err)
{
    if (*value < '1' || *value > '9' || value[1])
        return err_set(err, EINVAL, "%s '%s': boot '%.64s' is not a number from 1 to 9", what, path, value);
    *out = (unsigned)(*value - '0');
    return 0;
}

static int config_disk_boot(struct config_disk *d, const char *value, struct err *err)
{
    return config_boot_number(&d->boot, "disk", d->path, value, err);
}

static int config_disk_rate(struct limit_rate *r, const struct config_disk *d, const char *what, const char *value, struct err *err)
{
    if (config_parse_rate(value, r) == 0)
        return 0;
    return err_set(err, EINVAL, "disk '%s': %s '%.64s' is not a rate: write it like %s, or %s:100 for 100 milliseconds", d->path, what,
                   value, *what == 'b' ? "10M" : "500", *what == 'b' ? "1M" : "50");
}

static int config_disk_bps(struct config_disk *d, const char *value, struct err *err)
{
    return config_disk_rate(&d->limit.bytes, d, "bps", value, err);
}

static int config_disk_iops(struct config_disk *d, const char *value, struct err *err)
{
    return config_disk_rate(&d->limit.ops, d, "iops", value, err);
}

static const struct {
    const char *name; /* with '=' when a value follows */
    int (*set)(struct config_disk *d, const char *value, struct err *err);
} config_disk_words[] = {
    { "format=", config_disk_format },      { "ro", config_disk_ro },
    { "ephemeral", config_disk_ephemeral }, { "backing=", config_disk_backing },
    { "serial=", config_disk_serial },      { "queues=", config_disk_queues },
    { "aio=", config_disk_aio },            { "boot=", config_disk_boot },
    { "bps=", config_disk_bps },            { "iops=", config_disk_iops },
};

static int config_disk_word(struct config_disk *d, const char *word, struct err *err)
{
    for (size_t i = 0; i < ARRAY_LEN(config_disk_words); i++) {
        size_t len = strlen(config_disk_words[i].name);
        bool value = config_disk_words[i].name[len - 1] == '=';

        if (value ? !strncmp(word, config_disk_words[i].name, len) : !strcmp(word, config_disk_words[i].name))
            return config_disk_words[i].set(d, word + len, err);
    }
    return err_set(err, EINVAL,
                   "disk '%s': '%.64s' is unknown: use format=, ro, ephemeral, backing=, serial=, queues=, aio=, boot=, bps= or iops=",
                   d->path, word);
}

static int config_disk_check(struct config_disk *d, struct err *err)
{
    if (d->format == IMAGE_FORMAT_NONE)
        d->format = image_format_suffix(d->path);
    if (d->format == IMAGE_FORMAT_NONE)
        return err_set(err, EINVAL,
                       "disk '%s': its name does not say its format: add ',format=raw' or ',format=qcow2'",
                       d->path);
    if (d->ro && d->ephemeral)
        return err_set(err, EINVAL, "disk '%s': ro and ephemeral exclude each other", d->path);
    if (d->format == IMAGE_RAW && (d->backings || d->allow_backing))
        return err_set(err, EINVAL,
                       "disk '%s': a raw image has no backing file: leave out backing=", d->path);
    return 0;
}

/* text is ours to cut. */
static int config_disk_parse(struct config_disk *d, char *text, struct err *err)
{
    char *word, *rest = text;
    int r = 0;

    word = strsep(&rest, ",");
    if (!*word)
        return err_set(err, EINVAL, "disk ',%s' names no file: write it like disk.img or disk.img,ro",
                       rest ? rest : "");
    d->path = strdup(word);
    if (!d->path)
        return err_set(err, ENOMEM, "out of memory");
    while (r == 0 && (word = strsep(&rest, ",")))
        r = config_disk_word(d, word, err);
    return r == 0 ? config_disk_check(d, err) : r;
}

static void config_disk_free(struct config_disk *d)
{
    for (unsigned i = 0; i < d->backings; i++)
        free(d->backing[i]);
    free(d->path);
}

int config_set_disk(struct machine_config *c, const char *value, struct err *err)
{
    struct config_disk d = { .path = NULL };
    char *text;
    int r;

    if (c->disks == CONFIG_DISKS)
        return err_set(err, EINVAL, "disk was given more than %d times", CONFIG_DISKS);
    text = strdup(value);
    r = text ? config_disk_parse(&d, text, err) : err_set(err, ENOMEM, "out of memory");
    free(text);
    if (r < 0) {
        config_disk_free(&d);
        return r;
    }
    c->disk[c->disks++] = d;
    return 0;
}

void config_free_disks(struct machine_config *c)
{
    for (unsigned n = 0; n < c->disks; n++)
        config_disk_free(&c->disk[n]);
    c->disks = 0;
}

/* One option of --cdrom. */
static int config_cdrom_word(struct machine_config *c, const char *word, struct err *err)
{
    if (!strncmp(word, "boot=", 5))
        return config_boot_number(&c->cdrom_boot, "cdrom", c->cdrom, word + 5, err);
    if (strcmp(word, "bus=ahci") && strcmp(word, "bus=virtio"))
        return err_set(err, EINVAL, "cdrom '%s': '%.64s' is unknown: use bus=ahci, bus=virtio or boot=", c->cdrom, word);
    c->cdrom_virtio = !strcmp(word, "bus=virtio");
    return 0;
}

int config_set_cdrom(struct machine_config *c, const char *value, struct err *err)
{
    char *copy = strdup(value), *rest = copy, *word;
    int r = 0;

    if (!copy)
        return err_set(err, ENOMEM, "out of memory");
    word = strsep(&rest, ",");
    if (!*word) {
        free(copy);
        return err_set(err, EINVAL, "cdrom '%.80s' names no file: use FILE[,OPTION]", value);
    }
    free(c->cdrom);
    c->cdrom = copy; /* ends at the first comma */
    c->cdrom_virtio = false;
    c->cdrom_boot = 0;
    while (r == 0 && (word = strsep(&rest, ",")))
        r = config_cdrom_word(c, word, err);
    return r;
}
