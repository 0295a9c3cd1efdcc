/* A machine's options as the JSON that config_load_json() reads, with absolute paths: so it can be made again elsewhere, with
 * nothing that an option's parser forgot.
 *
 * Thread: whoever builds or saves the machine; no locks.
 */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bits.h"
#include "machine/config.h"

/* Where in a word of an option's value the name of a file begins; NULL: nowhere. first: the value's first word. */
static const char *config_path_in(const char *key, const char *word, size_t len, bool first)
{
    static const char *const marks[] = { "file:", "unix:", "vars=", "backing=" };
    static const char files[] = " kernel initrd cdrom disk share cloud-init ";
    char padded[40];

    for (size_t i = 0; i < ARRAY_LEN(marks); i++) {
        size_t n = strlen(marks[i]);

        if (len > n && !strncmp(word, marks[i], n) && strcmp(key, "cmdline") && strcmp(key, "name"))
            return word + n;
    }
    if (!strcmp(key, "firmware"))
        return first && strncmp(word, "seabios", len) && strncmp(word, "ovmf", len) ? word : NULL;
    snprintf(padded, sizeof(padded), " %.32s ", key);
    return strstr(files, padded) && (first || !strcmp(key, "cloud-init")) ? word : NULL;
}

/* The value with each path in it absolute, to be freed; folder is where they are relative to. */
static char *config_absolute(const char *key, const char *value, const char *folder)
{
    bool split = !config_find(key) || config_find(key)->kind == CONFIG_PARSED || !strcmp(key, "cloud-init");
    char *out = NULL;
    size_t size = 0;
    FILE *f = open_memstream(&out, &size);

    if (!f)
        return NULL;
    for (const char *word = value;;) {
        size_t len = split ? strcspn(word, ",") : strlen(word);
        const char *path = config_path_in(key, word, len, word == value);

        if (path && *path != '/')
            fprintf(f, "%.*s%s/%.*s", (int)(path - word), word, folder, (int)(len - (size_t)(path - word)), path);
        else
            fprintf(f, "%.*s", (int)len, word);
        if (!word[len])
            break;
        fputc(word[len], f);
        word += len + 1;
    }
    return fclose(f) == 0 ? out : NULL;
}

/* A value of the object; an array's elements are replaced in place. */
static int config_dump_value(json_t *root, const char *key, json_t *value, const char *folder)
{
    size_t n = json_is_array(value) ? json_array_size(value) : 1;
    int r = 0;

    for (size_t i = 0; r == 0 && i < n; i++) {
        const char *text = json_string_value(json_is_array(value) ? json_array_get(value, i) : value);
        char *absolute = text ? config_absolute(key, text, folder) : NULL;

        if (text && !absolute)
            r = -1;
        else if (text && json_is_array(value))
            r = json_array_set_new(value, i, json_string(absolute));
        else if (text)
            r = json_object_set_new(root, key, json_string(absolute));
        free(absolute);
    }
    return r;
}

char *config_dump(const struct machine_config *c)
{
    json_t *root = config_to_json(c), *value;
    char *folder = getcwd(NULL, 0), *out = NULL;
    int r = root && folder ? 0 : -1;

    for (const struct config_key *k = config_keys; r == 0 && k->key; k++) {
        value = json_object_get(root, k->key);
        if (value)
            r = config_dump_value(root, k->key, value, folder);
    }
    if (r == 0)
        out = json_dumps(root, JSON_INDENT(2));
    json_decref(root);
    free(folder);
    return out;
}
