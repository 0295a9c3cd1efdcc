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

#include "api/client.h"
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

/* Which disk stands on it, or is it; -1: none that is written. *written: it is it. */
static int merge_disk(const struct snap_tree *t, const char *path, bool *written)
{
    const char *key, *at;
    unsigned depth;
    json_t *v;

    json_object_foreach (json_object_get(t->root, "active"), key, v) {
        for (at = json_string_value(v), depth = 0; at && depth < IMAGE_CHAIN_MAX; at = snap_tree_over(t, at), depth++) {
            *written = depth == 0;
            if (!strcmp(at, path))
                return atoi(key);
        }
    }
    return -1;
}

static bool merge_in_use(const struct snap_tree *t, const char *path)
{
    bool written;

    return merge_disk(t, path, &written) >= 0;
}

/* The next one that others can become part of; NULL: there is none. may: so may what disks stand on; *later: how many may not. */
static const char *merge_next(const struct snap_tree *t, bool may, unsigned *later)
{
    const char *top, *below, *layer[IMAGE_CHAIN_MAX], *found = NULL;
    json_t *v;

    *later = 0;
    json_object_foreach (json_object_get(t->root, "images"), top, v) {
        unsigned n = merge_kept(t, top) || merge_above(t, top) > 1 ? merge_run(t, top, layer, IMAGE_CHAIN_MAX, &below) : 0;

        if (n > 1 && !may && merge_in_use(t, top))
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

/* -- with the machine, which runs -- */

/* One request: the image of a disk takes in the n - 1 layers below it, or (fd) is that file now. Where it came to; *done: it does without them. */
static int merge_ask(const char *machine, int disk, const char *const *layer, unsigned n, int fd, json_int_t *at, bool *done, struct err *err)
{
    struct client_passed passed = { .count = 1, .fd = { fd } };
    json_t *go = json_array(), *body, *answer = NULL;
    int r;

    for (unsigned i = 1; i < n; i++)
        json_array_append_new(go, json_string(layer[i]));
    body = json_pack("{s:i, s:s, s:o, s:I}", "disk", disk, "image", layer[0], "go", go, "at", *at);
    if (!body)
        return err_set(err, ENOMEM, "out of memory");
    r = fd >= 0 ? client_call_with(machine, "POST", "/v1/merge", body, &passed, NULL, err) : client_call(machine, "POST", "/v1/merge", body, &answer, err);
    *at = json_integer_value(json_object_get(answer, "at"));
    *done = fd >= 0 || json_is_true(json_object_get(answer, "done"));
    json_decref(answer);
    json_decref(body);
    return r;
}

/* The machine's disk takes in what it stands on. */
static int merge_pull(const char *machine, int disk, const char *const *layer, unsigned n, struct err *err)
{
    json_int_t at = 0;
    bool done = false;
    int r = 0;

    while (r == 0 && !done)
        r = merge_ask(machine, disk, layer, n, -1, &at, &done, err);
    return r;
}

/* The file that has layer[0]'s name now is what its disk stands on. */
static int merge_swap(const char *machine, int disk, const char *const *layer, unsigned n, struct err *err)
{
    int fd = open(layer[0], O_RDONLY | O_CLOEXEC | O_NOCTTY), r;
    json_int_t at = 0;
    bool done;

    if (fd < 0)
        return err_set(err, errno, "'%s' cannot be opened: %s", layer[0], strerror(errno));
    r = merge_ask(machine, disk, layer, n, fd, &at, &done, err);
    close(fd);
    return r;
}

/* Does it write to the images that the tree says? Else an attempt at a snapshot was cut off, or these are other disks. */
static bool merge_agrees(const struct snap_tree *t, const char *machine)
{
    struct machine_config c;
    json_t *answer = NULL, *v;
    struct err err;
    const char *key;
    bool same = config_init(&c) == 0 && client_call(machine, "GET", "/v1/machine", NULL, &answer, &err) == 0 &&
                config_apply_json(&c, json_object_get(answer, "config"), &err) == 0;

    json_object_foreach (json_object_get(t->root, "active"), key, v) {
        unsigned n = (unsigned)atoi(key);

        same = same && n < c.disks && !strcmp(c.disk[n].path, json_string_value(v));
    }
    json_decref(answer);
    config_fini(&c);
    return same;
}

/* -- doing it -- */

/* What is merged: images by their paths, the caller's own strings, as the tree's go with what it is made of. */
struct merge {
    char *layer[IMAGE_CHAIN_MAX], *below;
    unsigned n;
    int disk; /* of the machine that runs, which stands on the first one or (written) writes to it; -1: none */
    bool written;
};

static int merge_init(struct merge *g, const struct snap_tree *t, const char *top, const char *running, struct err *err)
{
    const char *layer[IMAGE_CHAIN_MAX], *below;
    bool ok;

    *g = (struct merge){ .disk = -1 };
    g->n = merge_run(t, top, layer, IMAGE_CHAIN_MAX, &below);
    g->below = strdup(below);
    ok = g->below;
    for (unsigned i = 0; i < g->n; i++)
        ok = (g->layer[i] = strdup(layer[i])) && ok;
    if (running)
        g->disk = merge_disk(t, top, &g->written);
    return ok ? 0 : err_set(err, ENOMEM, "out of memory");
}

static void merge_fini(struct merge *g)
{
    for (unsigned i = 0; i < g->n; i++)
        free(g->layer[i]);
    free(g->below);
}

/* The draft takes the topmost one's name. */
static int merge_put(struct snap_tree *t, const struct merge *g, struct image_draft *d, struct err *err)
{
    struct stat st;
    int r = fstat(d->fd, &st) < 0 ? err_set(err, errno, "'%s': %s", g->layer[0], strerror(errno)) : merge_note(t, g->layer[0], &st, err);

    if (r == 0)
        return image_draft_commit(d, err);
    image_draft_abort(d);
    return r;
}

/* A file with all of them in it. */
static int merge_make(struct snap_tree *t, const struct merge *g, struct err *err)
{
    struct image_draft d;
    int r = image_draft_begin(&d, g->layer[0], true, err);

    if (r < 0)
        return r;
    r = image_merge(&d, (const char *const *)g->layer, g->n, g->below, err);
    if (r == 0)
        return merge_put(t, g, &d, err);
    image_draft_abort(&d);
    return r;
}

static int merge_one(struct snap_tree *t, const struct merge *g, const char *running, struct err *err)
{
    const char *const *layer = (const char *const *)g->layer;
    int r;

    if (g->disk >= 0 && g->written) {
        r = merge_pull(running, g->disk, layer, g->n, err);
    } else {
        r = merge_make(t, g, err);
        if (r == 0 && g->disk >= 0)
            r = merge_swap(running, g->disk, layer, g->n, err);
    }
    if (r == 0 && json_object_set_new(json_object_get(t->root, "images"), g->layer[0], json_string(g->below)) < 0)
        r = err_set(err, ENOMEM, "out of memory");
    return r == 0 ? snap_tree_store(t, err) : r;
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

static int merge_all(struct snap_tree *t, const char *running, bool may, struct snap_merge *m, struct err *err)
{
    const char *top;
    struct merge g;
    int r = 0;

    while (r == 0 && (top = merge_next(t, may, &m->later))) {
        r = merge_init(&g, t, top, running, err);
        if (r == 0)
            r = merge_one(t, &g, running, err);
        m->merged += r == 0 ? g.n - 1 : 0;
        if (r == -EREMOTEIO && g.disk >= 0) { /* not now, says the machine */
            snprintf(m->why, sizeof(m->why), "%.199s", err->text);
            may = false;
            r = 0;
        }
        merge_fini(&g);
    }
    return r;
}

int snap_merge(struct snap_tree *t, const char *running, struct snap_merge *m, struct err *err)
{
    int fd[CONFIG_DISKS], locked = running ? -1 : merge_lock(t, fd), r;

    *m = (struct snap_merge){ .merged = 0 };
    r = merge_all(t, running, running ? merge_agrees(t, running) : locked >= 0, m, err);
    while (locked > 0)
        close(fd[--locked]);
    return r;
}
