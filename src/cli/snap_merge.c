/* Merging overlays that no snapshot needs. See snap_merge.h. */
#include "cli/snap_merge.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "block/file.h"
#include "block/image.h"
#include "cli/snap_tree.h"
#include "machine/config.h"

/* -- which -- */

static bool merge_has(const json_t *images, const char *path)
{
    const char *key;
    json_t *v;

    json_object_foreach ((json_t *)images, key, v) {
        if (!strcmp(json_string_value(v), path))
            return true;
    }
    return false;
}

/* A disk is written to it, or was it in a snapshot. */
static bool merge_kept(const struct snap_tree *t, const char *path)
{
    const json_t *node;
    size_t n;

    if (merge_has(json_object_get(t->root, "active"), path))
        return true;
    json_array_foreach (json_object_get(t->root, "nodes"), n, node) {
        if (!json_is_true(json_object_get(node, "hidden")) && merge_has(json_object_get(node, "images"), path))
            return true;
    }
    return false;
}

static unsigned merge_above(const struct snap_tree *t, const char *path)
{
    const char *key;
    unsigned count = 0;
    json_t *v;

    json_object_foreach (json_object_get(t->root, "images"), key, v)
        count += !strcmp(json_string_value(v), path);
    return count;
}

/* The overlay, and those below it that nobody else needs, at most most of them; *below: what the last one stands on. */
static unsigned merge_run(const struct snap_tree *t, const char *top, const char **layer, unsigned most, const char **below)
{
    unsigned n = 0;

    for (*below = top; n < most && snap_tree_over(t, *below); *below = snap_tree_over(t, *below)) {
        if (n > 0 && (merge_kept(t, *below) || merge_above(t, *below) > 1))
            break;
        layer[n++] = *below;
    }
    return n;
}

/* Does a disk that is written stand on it, or is it one? */
static bool merge_in_use(const struct snap_tree *t, const char *path)
{
    const char *key, *at;
    unsigned depth;
    json_t *v;

    json_object_foreach (json_object_get(t->root, "active"), key, v) {
        for (at = json_string_value(v), depth = 0; at && depth < IMAGE_CHAIN_MAX; at = snap_tree_over(t, at), depth++) {
            if (!strcmp(at, path))
                return true;
        }
    }
    return false;
}

/* The next one that others can become part of, and must not wait for the machine's end; NULL: there is none. *later: how many must. */
static const char *merge_next(const struct snap_tree *t, bool running, unsigned *later)
{
    const char *top, *below, *layer[IMAGE_CHAIN_MAX], *found = NULL;
    json_t *v;

    *later = 0;
    json_object_foreach (json_object_get(t->root, "images"), top, v) {
        unsigned n = merge_kept(t, top) || merge_above(t, top) > 1 ? merge_run(t, top, layer, IMAGE_CHAIN_MAX, &below) : 0;

        if (n > 1 && running && merge_in_use(t, top))
            *later += n - 1;
        else if (n > 1)
            found = top;
    }
    return found;
}

/* -- notes -- */

static void merge_text(const struct stat *st, char text[64])
{
    snprintf(text, 64, "%" PRIu64 " %" PRIu64 ".%09lu", (uint64_t)st->st_size, (uint64_t)st->st_mtim.tv_sec, (unsigned long)st->st_mtim.tv_nsec);
}

bool snap_merge_made(const struct snap_tree *t, const char *path)
{
    const json_t *v;
    char text[64];
    struct stat st;
    size_t n;

    if (stat(path, &st) < 0)
        return false;
    merge_text(&st, text);
    json_array_foreach (json_object_get(json_object_get(t->root, "merged"), path), n, v) {
        if (json_is_string(v) && !strcmp(json_string_value(v), text))
            return true;
    }
    return false;
}

/* The file that takes path's name. Until it has it, path may be a file that an earlier merge made. */
static int merge_note(struct snap_tree *t, const char *path, const struct stat *made, struct err *err)
{
    json_t *all = json_object_get(t->root, "merged"), *list = json_array();
    char text[64];
    struct stat st;
    int r = list ? 0 : -1;

    if (!all && r == 0)
        r = json_object_set_new(t->root, "merged", all = json_object());
    if (r == 0 && snap_merge_made(t, path) && stat(path, &st) == 0) {
        merge_text(&st, text);
        r = json_array_append_new(list, json_string(text));
    }
    merge_text(made, text);
    if (r == 0)
        r = json_array_append_new(list, json_string(text));
    if (r == 0)
        r = json_object_set(all, path, list);
    json_decref(list);
    return r < 0 ? err_set(err, ENOMEM, "out of memory") : snap_tree_store(t, err);
}

/* -- doing it -- */

/* The draft takes top's name; top and below are the caller's own strings, as the tree's go with what it is made of. */
static int merge_put(struct snap_tree *t, struct image_draft *d, const char *top, const char *below, struct err *err)
{
    struct stat st;
    int r = fstat(d->fd, &st) < 0 ? err_set(err, errno, "'%s': %s", top, strerror(errno)) : merge_note(t, top, &st, err);

    if (r < 0) {
        image_draft_abort(d);
        return r;
    }
    r = image_draft_commit(d, err);
    if (r == 0 && json_object_set_new(json_object_get(t->root, "images"), top, json_string(below)) < 0)
        r = err_set(err, ENOMEM, "out of memory");
    return r == 0 ? snap_tree_store(t, err) : r;
}

static int merge_one(struct snap_tree *t, const char *into, struct snap_merge *m, struct err *err)
{
    const char *layer[IMAGE_CHAIN_MAX], *on;
    unsigned n = merge_run(t, into, layer, IMAGE_CHAIN_MAX, &on);
    char *top = strdup(into), *below = strdup(on);
    struct image_draft d;
    int r = top && below ? image_draft_begin(&d, into, true, err) : err_set(err, ENOMEM, "out of memory");

    if (r == 0) {
        r = image_merge(&d, layer, n, on, err);
        if (r == 0)
            r = merge_put(t, &d, top, below, err);
        else
            image_draft_abort(&d);
    }
    m->merged += r == 0 ? n - 1 : 0;
    free(top);
    free(below);
    return r;
}

/* Nobody writes to the disks while their images are replaced. Returns how many descriptors there are in fd, or -1: a disk is in use. */
static int merge_lock(const struct snap_tree *t, int fd[CONFIG_DISKS])
{
    const char *key;
    int n = 0, got;
    json_t *v;

    json_object_foreach (json_object_get(t->root, "active"), key, v) {
        got = n < CONFIG_DISKS ? open(json_string_value(v), O_RDWR | O_CLOEXEC | O_NOCTTY | O_NONBLOCK) : -1;
        if (got >= 0 && block_file_lock_alone(got) == 0) {
            fd[n++] = got;
            continue;
        }
        if (got >= 0)
            close(got);
        while (n > 0)
            close(fd[--n]);
        return -1;
    }
    return n;
}

int snap_merge(struct snap_tree *t, bool running, struct snap_merge *m, struct err *err)
{
    int fd[CONFIG_DISKS], locked = running ? -1 : merge_lock(t, fd), r = 0;
    const char *top;

    *m = (struct snap_merge){ .merged = 0 };
    while (r == 0 && (top = merge_next(t, locked < 0, &m->later)))
        r = merge_one(t, top, m, err);
    while (locked > 0)
        close(fd[--locked]);
    return r;
}
