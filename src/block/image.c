/* Opening images and their chains of backing files (image.h). One thread; no state. */
#include "block/image.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/err.h"
#include "block/image_file.h"
#include "block/qcow2.h"

static const struct {
    const char *name, *suffixes[2];
    enum image_format format;
} image_formats[] = {
    { "raw", { ".img", ".raw" }, IMAGE_RAW },
    { "qcow2", { ".qcow2" }, IMAGE_QCOW2 },
};

enum image_format image_format_named(const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(image_formats); i++) {
        if (!strcmp(name, image_formats[i].name))
            return image_formats[i].format;
    }
    return IMAGE_FORMAT_NONE;
}

enum image_format image_format_suffix(const char *path)
{
    const char *base = strrchr(path, '/'), *dot = strrchr(base ? base : path, '.');

    for (size_t i = 0; dot && i < ARRAY_LEN(image_formats); i++) {
        for (size_t k = 0; k < 2; k++) {
            if (image_formats[i].suffixes[k] && !strcmp(dot, image_formats[i].suffixes[k]))
                return image_formats[i].format;
        }
    }
    return IMAGE_FORMAT_NONE;
}

const char *image_format_name(enum image_format f)
{
    for (size_t i = 0; i < ARRAY_LEN(image_formats); i++) {
        if (image_formats[i].format == f)
            return image_formats[i].name;
    }
    return "unknown";
}

char *image_relative(const char *path, const char *backing)
{
    const char *slash = strrchr(path, '/');
    char *out = NULL;

    if (backing[0] == '/' || !slash)
        return strdup(backing);
    return asprintf(&out, "%.*s/%s", (int)(slash - path), path, backing) < 0 ? NULL : out;
}

/* QEMU also takes "json:{...}" and "nbd://..." where a file is named: not here. */
static bool image_name_is_file(const char *name)
{
    const char *colon = strchr(name, ':'), *slash = strchr(name, '/');

    return !colon || (slash && slash < colon);
}

static int image_open_at(struct block **out, const char *path, const struct image_opts *o, unsigned depth,
                         struct err *err);

/* Which file is the backing of the image at path, and of which format? *file is to be freed. */
static int image_find_backing(const struct qcow2_info *info, const char *path, const struct image_opts *o,
                              unsigned depth, char **file, enum image_format *format, struct err *err)
{
    bool named = depth < o->backings;

    if (!named && !o->allow_backing)
        return err_set(
            err, EPERM,
            "image '%s': has the backing file '%.150s', which is only opened when it is allowed (backing=allow; "
            "'vitro image': --allow-backing) or named (backing=FILE; --backing FILE)",
            path, info->backing);
    if (!named && !image_name_is_file(info->backing))
        return err_set(err, EINVAL, "image '%s': its backing '%.200s' is not a plain file name", path,
                       info->backing);
    *format = named ? o->backing[depth].format : IMAGE_FORMAT_NONE;
    if (*format == IMAGE_FORMAT_NONE)
        *format = image_format_named(info->backing_format);
    if (*format == IMAGE_FORMAT_NONE)
        return err_set(
            err, EINVAL,
            "image '%s': does not say of which format (raw or qcow2) its backing file '%.200s' is, so it "
            "must be named together with its format",
            path, info->backing);
    *file = named ? strdup(o->backing[depth].path) : image_relative(path, info->backing);
    return *file ? 0 : err_set(err, ENOMEM, "image '%s': out of memory", path);
}

static int image_open_backing(struct block **out, struct imgfile *f, const char *path,
                              const struct image_opts *o, unsigned depth, struct err *err)
{
    struct image_opts below = *o;
    struct qcow2_info info;
    char *file = NULL;
    int r = qcow2_probe(f, path, &info, err);

    *out = NULL;
    if (r == 0 && !info.has_backing && depth < o->backings)
        return err_set(err, EINVAL, "image '%s': has no backing file, but '%.200s' was named as one", path,
                       o->backing[depth].path);
    if (r < 0 || !info.has_backing || o->no_backing)
        return r;
    if (depth + 1 >= IMAGE_CHAIN_MAX)
        return err_set(err, ELOOP, "image '%s': the chain of backing files is longer than %d", path,
                       IMAGE_CHAIN_MAX);
    r = image_find_backing(&info, path, o, depth, &file, &below.format, err);
    below.ro = true;
    below.repair = below.unlocked = false;
    if (r == 0)
        r = image_open_at(out, file, &below, depth + 1, err);
    free(file);
    return r;
}

static int image_open_at(struct block **out, const char *path, const struct image_opts *o, unsigned depth,
                         struct err *err)
{
    struct qcow2_opts q = { .name = path, .ro = o->ro, .repair = o->repair, .no_backing = o->no_backing };
    struct imgfile *f;
    int r;

    if (o->format == IMAGE_RAW && depth < o->backings)
        return err_set(err, EINVAL,
                       "image '%s': is raw, so it has no backing file, but '%.200s' was named as one", path,
                       o->backing[depth].path);
    if (o->format == IMAGE_RAW)
        return block_raw_open_how(out, path, o->ro, !o->unlocked, err);
    if (o->format != IMAGE_QCOW2)
        return err_set(err, EINVAL, "image '%s': its format must be stated: raw or qcow2", path);
    r = imgfile_open_how(&f, path, o->ro, !o->unlocked, err);
    if (r < 0)
        return r;
    r = image_open_backing(&q.backing, f, path, o, depth, err);
    if (r == 0)
        return block_qcow2_open(out, f, &q, err);
    imgfile_close(f);
    return r;
}

int image_open(struct block **out, const char *path, const struct image_opts *o, struct err *err)
{
    *out = NULL;
    return image_open_at(out, path, o, 0, err);
}
