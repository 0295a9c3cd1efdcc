/* What a saved machine says about itself, as JSON: its configuration, and which files its disks were.
 *
 *   { "format": "vitro machine", "config": { ... }, "saved_ns": "...",
 *     "disks": [ { "what": "disk 0", "size": "...", "changed_ns": "..." } ] }
 *
 * Memory holds what a guest knows of its disks, so a machine must find them as they were. A file is the same if its length
 * and its time of change are; what copies it for another host keeps both (cp -p, rsync -t).
 *
 * Numbers of 64 bits are text, as JSON's are not that wide everywhere. Thread: the machine's, or whoever restores one.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/bits.h"
#include "base/err.h"
#include "machine/vm.h"
#include "save/internal.h"

/* Options that are of a run, not of the machine. */
static const char *const about_not_kept[] = { "engine", "timeout", "trace", "detach", "gdb", "seccomp", NULL };

/* The file behind disk n, CD and seed behind the others; NULL: no more. name has room for 32 bytes. */
static const char *about_disk(const struct machine_config *c, unsigned n, char *name)
{
    if (n < c->disks) {
        snprintf(name, 32, "disk %u", n);
        return c->disk[n].path;
    }
    n -= c->disks;
    if (c->cdrom && n-- == 0) {
        strcpy(name, "cdrom");
        return c->cdrom;
    }
    strcpy(name, "cloud-init");
    return c->cloud_init && n == 0 ? c->cloud_init : NULL;
}

/* Length and time of change of a file; of --cloud-init, of its first one. */
static int about_stat(const char *path, uint64_t *size, uint64_t *changed)
{
    char *copy = strdup(path), *comma;
    struct stat st;
    int r;

    if (!copy)
        return -ENOMEM;
    r = stat(copy, &st) < 0 ? -errno : 0;
    comma = strchr(copy, ',');
    if (r < 0 && comma) {
        *comma = 0;
        r = stat(copy, &st) < 0 ? -errno : 0;
    }
    free(copy);
    *size = (uint64_t)st.st_size;
    *changed = (uint64_t)st.st_mtim.tv_sec * NSEC_PER_SEC + (uint64_t)st.st_mtim.tv_nsec;
    return r;
}

static json_t *about_text(uint64_t v)
{
    char text[24];

    snprintf(text, sizeof(text), "%" PRIu64, v);
    return json_string(text);
}

static json_t *about_disks(const struct machine_config *c, struct err *err)
{
    json_t *list = json_array();
    char name[32];
    const char *path;

    for (unsigned n = 0; list && (path = about_disk(c, n, name)); n++) {
        uint64_t size, changed;
        int r = about_stat(path, &size, &changed);

        if (r < 0) {
            err_set(err, -r, "%s '%s' cannot be looked at: %s", name, path, strerror(-r));
            json_decref(list);
            return NULL;
        }
        json_array_append_new(list, json_pack("{s:s, s:o, s:o}", "what", name, "size", about_text(size), "changed_ns",
                                              about_text(changed)));
    }
    return list;
}

static json_t *about_config(const struct machine_config *c)
{
    char *text = config_dump(c);
    json_t *config = text ? json_loads(text, 0, NULL) : NULL;

    free(text);
    for (unsigned n = 0; config && about_not_kept[n]; n++)
        json_object_del(config, about_not_kept[n]);
    return config;
}

char *save_about_make(struct vm *vm, struct err *err)
{
    json_t *disks, *config, *about;
    char *text = NULL;

    disks = about_disks(vm->cfg, err);
    if (!disks)
        return NULL;
    config = about_config(vm->cfg);
    about = json_pack("{s:s, s:o*, s:o, s:o}", "format", "vitro machine", "config", config, "disks", disks, "saved_ns",
                      about_text(clock_wall_ns(&vm->clock)));
    if (about && config)
        text = json_dumps(about, JSON_INDENT(1));
    if (!text)
        err_set(err, ENOMEM, "out of memory");
    json_decref(about);
    return text;
}

/* ---- reading ---- */

json_t *save_about_parse(const uint8_t *text, size_t len, struct err *err)
{
    json_error_t where;
    json_t *about = json_loadb((const char *)text, len, JSON_REJECT_DUPLICATES, &where);
    const char *format = json_string_value(json_object_get(about, "format"));

    if (format && !strcmp(format, "vitro machine") && json_is_object(json_object_get(about, "config")) &&
        json_is_array(json_object_get(about, "disks")))
        return about;
    err_set(err, EINVAL, "what it says about the machine cannot be understood");
    json_decref(about);
    return NULL;
}

int save_about_config(const json_t *about, struct machine_config *c, const char *const *without, const char *name,
                      struct err *err)
{
    json_t *config = json_copy(json_object_get(about, "config"));
    char *text;
    int r;

    while (config && without && *without)
        json_object_del(config, *without++);
    text = config ? json_dumps(config, JSON_COMPACT) : NULL;
    json_decref(config);
    if (!text)
        return err_set(err, ENOMEM, "out of memory");
    r = config_load_text(c, text, strlen(text), name, err);
    free(text);
    return r;
}

uint64_t save_about_number(const json_t *about, const char *key)
{
    const char *text = json_string_value(json_object_get(about, key));

    return text ? strtoull(text, NULL, 10) : 0;
}

static int about_check_disk(const json_t *was, const char *name, const char *path, struct err *err)
{
    uint64_t size, changed;
    int r = about_stat(path, &size, &changed);

    if (r < 0)
        return err_set(err, -r, "%s '%s' cannot be looked at: %s", name, path, strerror(-r));
    if (size == save_about_number(was, "size") && changed == save_about_number(was, "changed_ns"))
        return 0;
    return err_set(err, ESTALE,
                   "%s '%s' was changed after the machine was saved, and would be ruined by a guest that remembers it as "
                   "it was: restore it with a copy of that time (made with cp -p), or say trust-disks",
                   name, path);
}

int save_about_disks(const json_t *about, const struct machine_config *c, uint64_t trusted, struct err *err)
{
    const json_t *list = json_object_get(about, "disks");
    char name[32];
    const char *path;
    int r = 0;

    for (unsigned n = 0; r == 0 && (path = about_disk(c, n, name)); n++)
        r = n < 64 && (trusted & BIT(n)) ? 0 : about_check_disk(json_array_get(list, n), name, path, err);
    return r;
}
