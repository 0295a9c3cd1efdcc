/* A machine's options as the JSON that config_load_json() reads, with absolute paths: so it can be made again elsewhere, with
 * nothing that an option's parser forgot. Which values hold paths, and where in them, is one table.
 *
 * Thread: whoever builds, defines or saves the machine; no locks.
 */
#include <errno.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bits.h"
#include "machine/config.h"

static const struct config_paths {
    const char *key;
    enum { PATHS_FIRST, PATHS_ALL, PATHS_NONE } pieces; /* which pieces between commas are paths as they stand */
    const char *words;   /* first pieces that are none, with spaces around */
    const char *options; /* other pieces that hold one behind their '=', with spaces around */
} config_path_keys[] = {
    { "kernel", PATHS_FIRST, "", "" },
    { "initrd", PATHS_FIRST, "", "" },
    { "cdrom", PATHS_FIRST, "", "" },
    { "cloud-init", PATHS_ALL, "", "" },
    { "firmware", PATHS_FIRST, " seabios ovmf ", " vars= " },
    { "disk", PATHS_FIRST, "", " backing= " },
    { "share", PATHS_FIRST, "", "" },
    { "serial", PATHS_FIRST, " stdio none pty control ", "" },
    { "virtio-console", PATHS_FIRST, " stdio none pty control ", "" },
    { "swap", PATHS_FIRST, "", "" },
    { "vsock", PATHS_NONE, "", " path= " },
};

/* Does a list of words with spaces around hold this one? */
static bool config_path_in(const char *words, const char *word, size_t len)
{
    char padded[32];

    if (len > sizeof(padded) - 3)
        return false;
    snprintf(padded, sizeof(padded), " %.*s ", (int)len, word);
    return strstr(words, padded);
}

/* How many bytes stand before the path in a piece; SIZE_MAX: it holds none. */
static size_t config_path_before(const struct config_paths *k, const char *piece, size_t len, bool first)
{
    const char *eq = memchr(piece, '=', len);

    if (first && config_path_in(k->words, piece, len))
        return SIZE_MAX;
    if (first && (!strncmp(piece, "file:", 5) || !strncmp(piece, "unix:", 5)))
        return 5;
    if (k->pieces == PATHS_ALL || (first && k->pieces == PATHS_FIRST))
        return 0;
    if (eq && config_path_in(k->options, piece, (size_t)(eq - piece) + 1) && strncmp(eq, "=allow", 6))
        return (size_t)(eq - piece) + 1;
    return SIZE_MAX;
}

int config_whole_path(const char *path, size_t len, char out[PATH_MAX])
{
    char cwd[PATH_MAX] = "";

    if (*path != '/' && !getcwd(cwd, sizeof(cwd)))
        return -errno;
    return (size_t)snprintf(out, PATH_MAX, "%s%s%.*s", cwd, *cwd ? "/" : "", (int)len, path) < PATH_MAX ? 0 : -ENAMETOOLONG;
}

/* A value with its paths made absolute; NULL with errno. */
static char *config_path_value(const struct config_paths *k, const char *value)
{
    char *text = NULL, path[PATH_MAX];
    size_t size = 0;
    FILE *f = open_memstream(&text, &size);
    int r = 0;

    if (!f)
        return NULL;
    for (const char *p = value; p; p = strchr(p, ',') ? strchr(p, ',') + 1 : NULL) {
        size_t len = strcspn(p, ","), skip = config_path_before(k, p, len, p == value);

        if (p != value)
            fputc(',', f);
        if (skip < len)
            r = r < 0 ? r : config_whole_path(p + skip, len - skip, path);
        else
            skip = len;
        fprintf(f, "%.*s%s", (int)skip, p, skip < len ? path : "");
    }
    if (r == 0 && ferror(f))
        r = -ENOMEM;
    if (fclose(f) == 0 && r == 0)
        return text;
    free(text);
    errno = r < 0 ? -r : ENOMEM;
    return NULL;
}

static json_t *config_path_item(const struct config_paths *k, const json_t *item)
{
    char *text = json_is_string(item) ? config_path_value(k, json_string_value(item)) : NULL;
    json_t *made = text ? json_string(text) : NULL;

    free(text);
    return made;
}

int config_absolute(json_t *root)
{
    for (size_t n = 0; n < ARRAY_LEN(config_path_keys); n++) {
        const struct config_paths *k = &config_path_keys[n];
        json_t *v = json_object_get(root, k->key);
        int r = 0;

        errno = ENOMEM;
        for (size_t i = 0; r == 0 && json_is_array(v) && i < json_array_size(v); i++)
            r = json_array_set_new(v, i, config_path_item(k, json_array_get(v, i)));
        if (r == 0 && json_is_string(v))
            r = json_object_set_new(root, k->key, config_path_item(k, v));
        if (r < 0)
            return -errno;
    }
    return 0;
}

char *config_dump(const struct machine_config *c)
{
    json_t *root = config_to_json(c);
    char *out = root && config_absolute(root) == 0 ? json_dumps(root, JSON_INDENT(2)) : NULL;

    json_decref(root);
    return out;
}
