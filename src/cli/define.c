/* Machine definitions on disk. See define.h. Thread: the main thread. */
#include "cli/define.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "machine/config.h"

/* Make each folder of a path that is missing; those are the user's alone. */
static int define_mkdirs(char *path)
{
    for (char *p = path + 1; *p; p++) {
        if (*p != '/')
            continue;
        *p = 0;
        if (mkdir(path, 0700) < 0 && errno != EEXIST) {
            int r = -errno;
            *p = '/';
            return r;
        }
        *p = '/';
    }
    return 0;
}

/* The path, whether or not its folder is there. */
static int define_name(char *path, size_t size, const char *kind, const char *name, struct err *err)
{
    const char *data = getenv("XDG_DATA_HOME"), *home = getenv("HOME");
    int n;

    if (strchr(name, '/') || *name == '.')
        return err_set(err, EINVAL, "'%.80s' is not a machine's name", name);
    if (data && *data == '/')
        n = snprintf(path, size, "%s/vitro/%s/%s", data, kind, name);
    else if (home && *home == '/')
        n = snprintf(path, size, "%s/.local/share/vitro/%s/%s", home, kind, name);
    else
        return err_set(err, ENOENT, "there is no place for machine definitions: set HOME or XDG_DATA_HOME");
    if (n < 0 || (size_t)n + 8 >= size)
        return err_set(err, ENAMETOOLONG, "the path of the machine definitions is too long");
    return n;
}

int define_path(char *path, size_t size, const char *kind, const char *name, struct err *err)
{
    int r, n = define_name(path, size, kind, name, err);

    if (n < 0)
        return n;
    r = define_mkdirs(path);
    if (r < 0)
        return err_set(err, -r, "cannot make the folder for '%s': %s", path, strerror(-r));
    if (*name)
        memcpy(path + n, ".json", 6);
    return 0;
}

int define_folder(char *path, size_t size, const char *kind, const char *name, bool make, struct err *err)
{
    int r = 0, n = define_name(path, size, kind, name, err);

    if (n < 0)
        return n;
    memcpy(path + n, "/", 2);
    if (make)
        r = define_mkdirs(path);
    path[n] = 0;
    return r < 0 ? err_set(err, -r, "cannot make the folder '%s': %s", path, strerror(-r)) : 0;
}

bool define_exists(const char *name)
{
    char path[PATH_MAX];

    return define_path(path, sizeof(path), "machines", name, NULL) == 0 && access(path, F_OK) == 0;
}

/* -- writing: a temporary file, fsync, rename, fsync of the folder -- */

int define_store(const char *path, const char *text)
{
    char temporary[PATH_MAX + 8], folder[PATH_MAX];
    size_t len = strlen(text);
    int fd, r = 0;

    snprintf(temporary, sizeof(temporary), "%s.XXXXXX", path);
    fd = mkostemp(temporary, O_CLOEXEC);
    if (fd < 0)
        return -errno;
    if (write(fd, text, len) != (ssize_t)len || fsync(fd) < 0)
        r = errno ? -errno : -EIO;
    close(fd);
    if (r == 0 && rename(temporary, path) < 0)
        r = -errno;
    if (r < 0) {
        unlink(temporary);
        return r;
    }
    snprintf(folder, sizeof(folder), "%.*s", (int)(strrchr(path, '/') - path), path);
    fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
        fsync(fd);
        close(fd);
    }
    return 0;
}

int define_write(const struct machine_config *cfg, const char *name, bool force, struct err *err)
{
    char path[PATH_MAX];
    json_t *root;
    char *text;
    int r = define_path(path, sizeof(path), "machines", name, err);

    if (r < 0)
        return r;
    if (!force && access(path, F_OK) == 0)
        return err_set(err, EEXIST, "there is a machine '%s' already: 'vitro rm %s' removes it, --force replaces it",
                       name, name);
    root = config_to_json(cfg);
    r = root ? config_absolute(root) : -ENOMEM;
    text = r == 0 ? json_dumps(root, JSON_INDENT(2) | JSON_PRESERVE_ORDER) : NULL;
    json_decref(root);
    if (r == 0 && !text)
        return err_set(err, EINVAL, "a definition must be UTF-8, and something that was given is not");
    if (r == 0)
        r = define_store(path, text);
    free(text);
    return r < 0 ? err_set(err, -r, "cannot write the definition '%s': %s", path, strerror(-r)) : 0;
}

int define_load(struct machine_config *cfg, const char *name, struct err *err)
{
    char path[PATH_MAX];
    int r = define_path(path, sizeof(path), "machines", name, err);

    if (r < 0)
        return r;
    if (access(path, F_OK) < 0)
        return err_set(err, ENOENT, "there is no machine '%s' to start: 'vitro create %s' makes one", name, name);
    return config_load_json(cfg, path, err);
}

int define_load_template(struct machine_config *cfg, const char *from, struct err *err)
{
    size_t len = strlen(from);
    char path[PATH_MAX];
    int r;

    if (strchr(from, '/') || (len > 5 && !strcmp(from + len - 5, ".json")))
        return config_load_json(cfg, from, err);
    r = define_path(path, sizeof(path), "templates", from, err);
    if (r == 0 && access(path, F_OK) < 0)
        r = define_path(path, sizeof(path), "machines", from, err);
    if (r < 0)
        return r;
    if (access(path, F_OK) < 0)
        return err_set(err, ENOENT, "there is no template and no machine '%.80s', and it is no file's path", from);
    return config_load_json(cfg, path, err);
}

int define_remove(const char *name, struct err *err)
{
    char path[PATH_MAX];
    int r = define_path(path, sizeof(path), "machines", name, err);

    if (r == 0 && unlink(path) < 0 && errno != ENOENT)
        return err_set(err, errno, "cannot remove the definition '%s': %s", path, strerror(errno));
    return r;
}

/* "NAME.json" into the list. */
static int define_add(char ***names, size_t *n, const char *file)
{
    size_t len = strlen(file);
    char **more;

    if (len < 6 || *file == '.' || strcmp(file + len - 5, ".json"))
        return 0;
    more = realloc(*names, (*n + 1) * sizeof(*more));
    if (!more)
        return -ENOMEM;
    *names = more;
    more[*n] = strndup(file, len - 5);
    return more[(*n)++] ? 0 : -ENOMEM;
}

int define_list(char ***names, size_t *n, struct err *err)
{
    char path[PATH_MAX];
    struct dirent *e;
    DIR *d;
    int r = define_path(path, sizeof(path), "machines", "", err);

    *names = NULL;
    *n = 0;
    if (r < 0)
        return r;
    d = opendir(path);
    if (!d)
        return err_set(err, errno, "cannot list '%s': %s", path, strerror(errno));
    while (r == 0 && (e = readdir(d)))
        r = define_add(names, n, e->d_name);
    closedir(d);
    return r < 0 ? err_set(err, ENOMEM, "out of memory") : 0;
}
