/* --config FILE: the options of a machine as a JSON object.
 *
 * The file is hostile input: it is read with a limit, parsed with duplicates refused, and each value goes
 * through the same setter as on the command line. Thread: whoever builds the machine; no locks.
 */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "machine/config.h"

#define CONFIG_FILE_MAX (1u << 20)

/* The whole file, or as much as CONFIG_FILE_MAX + 1 bytes of it. Returns the length or -errno. */
static ssize_t config_read_file(const char *path, char *buf)
{
    size_t len = 0;
    int saved = 0, fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);

    if (fd < 0)
        return -errno;
    while (len <= CONFIG_FILE_MAX) {
        ssize_t n = read(fd, buf + len, CONFIG_FILE_MAX + 1 - len);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            saved = errno;
        if (n <= 0)
            break;
        len += (size_t)n;
    }
    close(fd);
    return saved ? -saved : (ssize_t)len;
}

static int config_set_json(struct machine_config *c, const char *key, const json_t *value, struct err *err)
{
    const struct config_key *k = config_find(key);
    char number[32];

    if (json_is_true(value) || json_is_false(value)) {
        if (k && k->arg)
            return err_set(err, EINVAL, "%s needs a value (%s), not true or false", key, k->arg);
        return config_set(c, key, json_is_true(value) ? "true" : "false", err);
    }
    if (json_is_string(value))
        return config_set(c, key, json_string_value(value), err);
    if (json_is_integer(value)) {
        snprintf(number, sizeof(number), "%lld", (long long)json_integer_value(value));
        return config_set(c, key, number, err);
    }
    if (json_is_real(value)) {
        snprintf(number, sizeof(number), "%.9g", json_real_value(value));
        return config_set(c, key, number, err);
    }
    return err_set(err, EINVAL, "%s must be a string, a number, true or false", key);
}

static int config_set_array(struct machine_config *c, const char *key, const json_t *list, struct err *err)
{
    const struct config_key *k = config_find(key);

    if (k && !k->repeatable)
        return err_set(err, EINVAL, "%s takes one value, not a list", key);
    for (size_t i = 0; i < json_array_size(list); i++) {
        int r = config_set_json(c, key, json_array_get(list, i), err);

        if (r < 0)
            return r;
    }
    return 0;
}

int config_apply_json(struct machine_config *c, const json_t *root, struct err *err)
{
    const char *key;
    json_t *value;

    if (!json_is_object(root))
        return err_set(err, EINVAL,
                       "the file does not hold a JSON object: write it like {\"memory\": \"512M\"}");
    json_object_foreach((json_t *)root, key, value)
    {
        int r =
            json_is_array(value) ? config_set_array(c, key, value, err) : config_set_json(c, key, value, err);

        if (r < 0)
            return r;
    }
    return 0;
}

/* As the reader wants it: flags and numbers as such, the rest as text. */
static json_t *config_value(const struct config_given *g)
{
    uint64_t n = 0;

    if (!g->key->arg)
        return json_boolean(!strcmp(g->value, "true"));
    if (!strcmp(g->key->key, "cpus") && config_parse_size(g->value, &n) == 0)
        return json_integer((json_int_t)n);
    return json_string(g->value);
}

json_t *config_to_json(const struct machine_config *c)
{
    json_t *root = json_object();
    int r = root ? 0 : -1;

    for (unsigned i = 0; r == 0 && i < c->givens; i++) {
        const struct config_given *g = &c->given[i];
        json_t *list = json_object_get(root, g->key->key);

        if (g->key->repeatable && !list) {
            r = json_object_set_new(root, g->key->key, json_array());
            list = json_object_get(root, g->key->key);
        }
        if (r == 0 && g->key->repeatable)
            r = json_array_append_new(list, config_value(g));
        else if (r == 0)
            r = json_object_set_new(root, g->key->key, config_value(g));
    }
    if (r == 0)
        return root;
    json_decref(root);
    return NULL;
}

int config_load_text(struct machine_config *c, const char *text, size_t len, const char *name, struct err *err)
{
    json_error_t where;
    json_t *root = json_loadb(text, len, JSON_REJECT_DUPLICATES, &where);
    int r;

    if (!root)
        return err_set(err, EINVAL, "the configuration '%s' is not JSON: line %d: %s", name, where.line, where.text);
    r = config_apply_json(c, root, err);
    if (r < 0)
        err_prefix(err, "configuration '%s'", name);
    json_decref(root);
    return r;
}

int config_load_json(struct machine_config *c, const char *path, struct err *err)
{
    char *buf = malloc(CONFIG_FILE_MAX + 1);
    ssize_t len;
    int r;

    if (!buf)
        return err_set(err, ENOMEM, "out of memory");
    len = config_read_file(path, buf);
    if (len < 0)
        r = err_set(err, (int)-len, "cannot read the configuration '%s': %s", path, strerror((int)-len));
    else if (len > CONFIG_FILE_MAX)
        r = err_set(err, EFBIG, "the configuration '%s' is longer than 1 MiB", path);
    else
        r = config_load_text(c, buf, (size_t)len, path, err);
    free(buf);
    return r;
}
