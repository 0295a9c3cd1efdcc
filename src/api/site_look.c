/* Looking at other machines' places, and tidying up behind those that were killed. See site.h. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "api/site_int.h"
#include "base/bits.h"
#include "base/err.h"
#include "base/rundir.h"

#define SITE_POLL_MS 20

void site_sweep(int dir, bool all)
{
    static const char *const files[] = { "sock", "vsock", "console", "log", "state" };

    for (size_t i = 0; i < ARRAY_LEN(files) - (all ? 0 : 1); i++)
        unlinkat(dir, files[i], 0);
}

void site_erase(int parent, int dir, const char *name)
{
    site_sweep(dir, true);
    unlinkat(parent, name, AT_REMOVEDIR);
}

static void site_erase_alone(int dir, const char *name)
{
    int parent = rundir_open("machines", NULL, NULL);

    if (parent < 0)
        return;
    site_erase(parent, dir, name);
    close(parent);
}

/* An existing place's folder: a descriptor or -errno. It is not made. */
static int site_folder(const char *name)
{
    int fd, parent = rundir_open("machines", NULL, NULL);

    if (parent < 0)
        return parent;
    fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    fd = fd < 0 ? -errno : fd;
    close(parent);
    return fd;
}

static void site_copy(char *to, size_t size, const json_t *root, const char *key)
{
    const char *text = json_string_value(json_object_get(root, key));

    snprintf(to, size, "%s", text ? text : "");
}

/* What the state file says; what it does not say stays 0. */
static void site_parse(int fd, struct site_info *i)
{
    char text[SITE_STATE_SIZE];
    ssize_t len = pread(fd, text, sizeof(text), 0);
    json_t *root = len > 0 ? json_loadb(text, (size_t)len, 0, NULL) : NULL;

    site_copy(i->id, sizeof(i->id), root, "id");
    site_copy(i->why, sizeof(i->why), root, "why");
    i->pid = (pid_t)json_integer_value(json_object_get(root, "pid"));
    i->status = (int)json_integer_value(json_object_get(root, "status"));
    i->started = json_number_value(json_object_get(root, "started"));
    i->ended = json_number_value(json_object_get(root, "ended"));
    i->keep = json_is_true(json_object_get(root, "keep"));
    json_decref(root);
}

/* Nobody holds the lock. A machine that ended well has said so; one that did not was killed: its socket goes, and all
 * else too unless it is to be kept. */
static void site_tidy(int dir, int fd, struct site_info *i)
{
    struct stat st;

    if (i->ended > 0 && i->keep && faccessat(dir, "sock", F_OK, AT_SYMLINK_NOFOLLOW) < 0)
        return;
    if (site_lock(fd, true) < 0) {
        i->running = true; /* just started again */
        return;
    }
    site_parse(fd, i);
    if (!i->keep) {
        site_erase_alone(dir, i->name);
        i->known = false;
        return;
    }
    unlinkat(dir, "sock", 0); /* also of one that could only say its last words (site_lost()) */
    unlinkat(dir, "vsock", 0);
    if (i->ended > 0)
        return;
    i->ended = fstat(fd, &st) == 0 ? (double)time(NULL) : 1;
    i->status = 128 + 9;
    snprintf(i->why, sizeof(i->why), "the monitor was killed");
    site_store(fd, i);
}

static void site_look_at(int dir, struct site_info *i)
{
    int fd = openat(dir, "state", O_RDWR | O_CLOEXEC | O_NOFOLLOW);

    i->known = true;
    if (fd < 0)
        return; /* being made, or being removed */
    i->running = site_lock(fd, false) == -EAGAIN;
    site_parse(fd, i);
    if (!i->running)
        site_tidy(dir, fd, i);
    close(fd);
}

int site_look(const char *name, struct site_info *i, struct err *err)
{
    int dir;

    memset(i, 0, sizeof(*i));
    if (strlen(name) > SITE_NAME_MAX || strchr(name, '/') || *name == '.' || !*name)
        return err_set(err, EINVAL, "'%.80s' is not a machine's name", name);
    snprintf(i->name, sizeof(i->name), "%s", name);
    dir = site_folder(name);
    if (dir == -ENOENT)
        return 0;
    if (dir < 0)
        return err_set(err, -dir, "cannot look at machine '%s': %s", name, strerror(-dir));
    site_look_at(dir, i);
    close(dir);
    return 0;
}

static int site_compare(const void *a, const void *b)
{
    const struct site_info *x = a, *y = b;
    return strcmp(x->name, y->name);
}

/* One more name of the folder. */
static int site_add(struct site_info **list, size_t *n, const char *name)
{
    struct site_info i, *more;

    if (site_look(name, &i, NULL) < 0 || !i.known)
        return 0;
    more = realloc(*list, (*n + 1) * sizeof(*more));
    if (!more)
        return -ENOMEM;
    *list = more;
    more[(*n)++] = i;
    return 0;
}

int site_list(struct site_info **list, size_t *n, struct err *err)
{
    int r = 0, fd = rundir_open("machines", NULL, err);
    struct dirent *e;
    DIR *d;

    *list = NULL;
    *n = 0;
    if (fd < 0)
        return fd;
    d = fdopendir(fd);
    if (!d) {
        close(fd);
        return err_set(err, errno, "cannot list the machines: %s", strerror(errno));
    }
    while (r == 0 && (e = readdir(d)))
        r = site_add(list, n, e->d_name);
    closedir(d);
    if (r < 0) {
        free(*list);
        *list = NULL;
        return err_set(err, ENOMEM, "out of memory");
    }
    if (*n)
        qsort(*list, *n, sizeof(**list), site_compare);
    return 0;
}

int site_remove(const char *name, struct err *err)
{
    int dir = site_folder(name), fd, r;

    if (dir < 0)
        return dir == -ENOENT ? 0 : err_set(err, -dir, "cannot remove machine '%s': %s", name, strerror(-dir));
    fd = openat(dir, "state", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    r = fd < 0 ? -errno : site_lock(fd, true);
    if (r == 0)
        site_erase_alone(dir, name);
    if (fd >= 0)
        close(fd);
    close(dir);
    if (r == -EAGAIN || r == -EACCES)
        return err_set(err, EBUSY, "machine '%s' is running: stop it first, or use 'vitro rm --force %s'", name, name);
    return r < 0 ? err_set(err, -r, "cannot remove machine '%s': %s", name, strerror(-r)) : 0;
}

int site_connect(const char *name, struct err *err)
{
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    int dir = site_folder(name), fd = -1, r = 0;

    if (dir < 0)
        return err_set(err, -dir, dir == -ENOENT ? "there is no machine '%s': see 'vitro list'"
                                                 : "cannot look at machine '%s'", name);
    snprintf(a.sun_path, sizeof(a.sun_path), "/proc/self/fd/%d/sock", dir);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0)
        r = -errno;
    close(dir);
    if (r == 0)
        return fd;
    if (fd >= 0)
        close(fd);
    if (r == -ENOENT || r == -ECONNREFUSED)
        return err_set(err, -r, "machine '%s' does not run: see 'vitro list'", name);
    return err_set(err, -r, "cannot reach machine '%s': %s", name, strerror(-r));
}

int site_open(const char *name, const char *file)
{
    int fd, dir = site_folder(name);

    if (dir < 0)
        return dir;
    fd = openat(dir, file, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    fd = fd < 0 ? -errno : fd;
    close(dir);
    return fd;
}

/* The file stays readable for who has it open, also when the place is gone: the last words are in it. */
bool site_wait(const char *name, const char *id, int ms, struct site_info *i)
{
    int dir = site_folder(name), fd = dir < 0 ? -1 : openat(dir, "state", O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    bool ended = fd < 0;

    if (dir >= 0)
        close(dir);
    for (int waited = 0; !ended;) {
        ended = site_lock(fd, false) == 0;
        if (ended || (ms >= 0 && waited >= ms))
            break;
        usleep(SITE_POLL_MS * 1000);
        waited += SITE_POLL_MS;
    }
    if (fd < 0)
        return true;
    site_parse(fd, i);
    close(fd);
    if (ended && !(i->ended > 0)) {
        i->status = 128 + 9;
        snprintf(i->why, sizeof(i->why), "the monitor was killed");
    }
    return ended || strcmp(id, i->id);
}
