/* Snapshots of a machine on disk. See snap_tree.h. */
#include "cli/snap_tree.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/err.h"
#include "base/log.h"
#include "cli/define.h"
#include "machine/config.h"

#define TREE_FORMAT  "vitro snapshots"
#define TREE_VERSION 1

unsigned snap_number(const json_t *o, const char *key)
{
    json_int_t v = json_integer_value(json_object_get(o, key));

    return v > 0 && v < INT_MAX ? (unsigned)v : 0;
}

static void tree_path(const struct snap_tree *t, char path[PATH_MAX])
{
    snprintf(path, PATH_MAX, "%s/tree.json", t->folder);
}

void snap_tree_file(const struct snap_tree *t, unsigned id, char path[PATH_MAX])
{
    snprintf(path, PATH_MAX, "%s/%u.vitro", t->folder, id);
}

/* -- reading -- */

static json_t *tree_new(void)
{
    return json_pack("{s:s, s:i, s:i, s:i, s:{}, s:{}, s:[]}", "format", TREE_FORMAT, "version", TREE_VERSION, "next", 1, "current", 0,
                     "active", "images", "nodes");
}

static bool tree_texts(const json_t *o)
{
    const char *key;
    json_t *v;

    json_object_foreach ((json_t *)o, key, v) {
        if (!json_is_string(v))
            return false;
    }
    return json_is_object(o);
}

/* A parent is older, so there are no circles. */
static bool tree_node_ok(const json_t *node)
{
    return json_is_string(json_object_get(node, "name")) && snap_number(node, "id") &&
           snap_number(node, "parent") < snap_number(node, "id") && tree_texts(json_object_get(node, "images"));
}

static bool tree_ok(const json_t *root)
{
    const char *format = json_string_value(json_object_get(root, "format"));
    const json_t *node;
    size_t n;

    if (!format || strcmp(format, TREE_FORMAT) || !json_is_array(json_object_get(root, "nodes")) ||
        !tree_texts(json_object_get(root, "active")) || !tree_texts(json_object_get(root, "images")) || !snap_number(root, "next"))
        return false;
    json_array_foreach (json_object_get(root, "nodes"), n, node) {
        if (!tree_node_ok(node))
            return false;
    }
    return true;
}

static int tree_load(struct snap_tree *t, struct err *err)
{
    char path[PATH_MAX];

    tree_path(t, path);
    if (access(path, F_OK) < 0) {
        t->root = tree_new();
        return t->root ? 0 : err_set(err, ENOMEM, "out of memory");
    }
    t->root = json_load_file(path, JSON_REJECT_DUPLICATES, NULL);
    if (t->root && snap_number(t->root, "version") > TREE_VERSION)
        return err_set(err, ENOTSUP, "'%s' is of a newer vitro", path);
    return tree_ok(t->root) ? 0 : err_set(err, EBADMSG, "'%s' cannot be understood: it is damaged", path);
}

static int tree_lock(struct snap_tree *t, const char *name, struct err *err)
{
    t->lock = open(t->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (t->lock < 0)
        return err_set(err, errno, "'%s' cannot be opened: %s", t->folder, strerror(errno));
    if (flock(t->lock, LOCK_EX | LOCK_NB) < 0)
        return err_set(err, EBUSY, "the snapshots of machine '%s' are being changed by another command", name);
    return 0;
}

/* -- what is needed -- */

const char *snap_tree_over(const struct snap_tree *t, const char *path)
{
    return json_string_value(json_object_get(json_object_get(t->root, "images"), path));
}

/* The overlays below path, itself among them, into the set. */
static void tree_mark_chain(const struct snap_tree *t, json_t *set, const char *path)
{
    const char *over;

    while (path && !json_object_get(set, path) && (over = snap_tree_over(t, path))) {
        json_object_set_new(set, path, json_string(over));
        path = over;
    }
}

static void tree_mark_all(const struct snap_tree *t, json_t *set, const json_t *images)
{
    const char *key;
    json_t *v;

    json_object_foreach ((json_t *)images, key, v)
        tree_mark_chain(t, set, json_string_value(v));
}

static bool tree_is_base(const json_t *nodes, unsigned id)
{
    const json_t *node;
    size_t n;

    json_array_foreach (nodes, n, node) {
        if (snap_number(node, "base") == id)
            return true;
    }
    return false;
}

/* Whoever came from this node comes from what it came from. */
static void tree_drop(struct snap_tree *t, json_t *nodes, size_t at)
{
    json_t *node = json_array_get(nodes, at), *parent = json_object_get(node, "parent"), *other;
    unsigned id = snap_number(node, "id");
    size_t n;

    json_array_foreach (nodes, n, other) {
        if (snap_number(other, "parent") == id)
            json_object_set(other, "parent", parent);
    }
    if (snap_number(t->root, "current") == id)
        json_object_set(t->root, "current", parent);
    json_array_remove(nodes, at);
}

/* Nodes that are hidden and that nothing needs go; the newest first, as each stands on an older one. */
static void tree_drop_nodes(struct snap_tree *t)
{
    json_t *nodes = json_object_get(t->root, "nodes");

    for (size_t n = json_array_size(nodes); n-- > 0;) {
        const json_t *node = json_array_get(nodes, n);

        if (json_is_true(json_object_get(node, "hidden")) && !tree_is_base(nodes, snap_number(node, "id")))
            tree_drop(t, nodes, n);
    }
}

/* Which images are needed: those that are written to, those of nodes, and all that these stand on. */
static void tree_tidy(struct snap_tree *t)
{
    json_t *set = json_object(), *node, *v;
    const char *path;
    void *next;
    size_t n;

    tree_drop_nodes(t);
    tree_mark_all(t, set, json_object_get(t->root, "active"));
    json_array_foreach (json_object_get(t->root, "nodes"), n, node)
        tree_mark_all(t, set, json_is_true(json_object_get(node, "hidden")) ? NULL : json_object_get(node, "images"));
    if (set)
        json_object_set_new(t->root, "images", set);
    json_object_foreach_safe (json_object_get(t->root, "merged"), next, path, v) {
        if (set && !json_object_get(set, path))
            json_object_del(json_object_get(t->root, "merged"), path);
    }
}

/* Is the file one that the tree names? */
static bool tree_has_file(const struct snap_tree *t, const char *file)
{
    char path[PATH_MAX], *end;
    unsigned long id = strtoul(file, &end, 10);

    if (end == file) /* not ours, but for drafts of the tree */
        return strncmp(file, "tree.json.", 10) != 0;
    if (!strcmp(end, ".vitro"))
        return snap_tree_node(t, (unsigned)id) != NULL;
    snprintf(path, sizeof(path), "%s/%s", t->folder, file);
    return snap_tree_over(t, path) != NULL;
}

static void tree_sweep(const struct snap_tree *t)
{
    DIR *d = opendir(t->folder);
    struct dirent *e;

    while (d && (e = readdir(d))) {
        if (*e->d_name != '.' && !tree_has_file(t, e->d_name))
            unlinkat(dirfd(d), e->d_name, 0);
    }
    if (d)
        closedir(d);
}

int snap_tree_store(struct snap_tree *t, struct err *err)
{
    char path[PATH_MAX], *text;
    int r;

    tree_tidy(t);
    text = json_dumps(t->root, JSON_INDENT(1) | JSON_SORT_KEYS);
    tree_path(t, path);
    r = text ? define_store(path, text) : -ENOMEM;
    free(text);
    if (r < 0)
        return err_set(err, -r, "'%s' cannot be written: %s", path, strerror(-r));
    tree_sweep(t);
    return 0;
}

/* Drafts that a command which was killed has left (image_draft_begin()). Nobody else is making any. */
static void tree_sweep_drafts(const struct snap_tree *t)
{
    DIR *d = opendir(t->folder);
    struct dirent *e;

    while (d && (e = readdir(d))) {
        size_t len = strlen(e->d_name);

        if (e->d_name[0] == '.' && e->d_name[1] >= '0' && e->d_name[1] <= '9' && len > 4 && !strcmp(e->d_name + len - 4, ".tmp"))
            unlinkat(dirfd(d), e->d_name, 0);
    }
    if (d)
        closedir(d);
}

/* -- opening and closing -- */

/* Paths in the tree are those that realpath() gives, or one image would have two names. */
static void tree_resolve(struct snap_tree *t)
{
    char *real = realpath(t->folder, NULL);

    if (real && strlen(real) < sizeof(t->folder))
        strcpy(t->folder, real);
    free(real);
}

int snap_tree_open(struct snap_tree *t, const char *name, bool change, struct err *err)
{
    int r;

    *t = (struct snap_tree){ .lock = -1 };
    r = define_folder(t->folder, sizeof(t->folder), "snapshots", name, change, err);
    if (r == 0)
        tree_resolve(t);
    if (r == 0 && change && strchr(t->folder, ','))
        r = err_set(err, EINVAL, "the data folder's path has a comma: set XDG_DATA_HOME to another one");
    if (r == 0 && change)
        r = tree_lock(t, name, err);
    if (r == 0)
        r = tree_load(t, err);
    if (r == 0 && change)
        tree_sweep_drafts(t);
    if (r < 0)
        snap_tree_close(t);
    return r;
}

/* Said rather than by closing: a machine that is started inherits the descriptor. */
void snap_tree_unlock(struct snap_tree *t)
{
    if (t->lock < 0)
        return;
    flock(t->lock, LOCK_UN);
    close(t->lock);
    t->lock = -1;
}

void snap_tree_close(struct snap_tree *t)
{
    snap_tree_unlock(t);
    json_decref(t->root);
    t->root = NULL;
}

/* -- nodes -- */

unsigned snap_tree_next(struct snap_tree *t)
{
    unsigned id = snap_number(t->root, "next");

    json_object_set_new(t->root, "next", json_integer((json_int_t)id + 1));
    return id;
}

json_t *snap_tree_node(const struct snap_tree *t, unsigned id)
{
    json_t *node;
    size_t n;

    json_array_foreach (json_object_get(t->root, "nodes"), n, node) {
        if (snap_number(node, "id") == id)
            return node;
    }
    return NULL;
}

json_t *snap_tree_find(const struct snap_tree *t, const char *name)
{
    json_t *node;
    size_t n;

    json_array_foreach (json_object_get(t->root, "nodes"), n, node) {
        if (!json_is_true(json_object_get(node, "hidden")) && !strcmp(json_string_value(json_object_get(node, "name")), name))
            return node;
    }
    return NULL;
}

void snap_tree_remove(json_t *node) { json_object_set_new(node, "hidden", json_true()); }

unsigned snap_tree_visible(const struct snap_tree *t, unsigned id)
{
    const json_t *node;

    while ((node = snap_tree_node(t, id)) && json_is_true(json_object_get(node, "hidden")))
        id = snap_number(node, "parent");
    return node ? id : 0;
}

/* -- disks -- */

static void tree_key(char key[8], unsigned n) { snprintf(key, 8, "%u", n % 1000); }

const char *snap_tree_active(const struct snap_tree *t, unsigned n)
{
    char key[8];

    tree_key(key, n);
    return json_string_value(json_object_get(json_object_get(t->root, "active"), key));
}

int snap_tree_put_active(struct snap_tree *t, unsigned n, const char *path, const char *over)
{
    char key[8];
    int r = json_object_set_new(json_object_get(t->root, "images"), path, json_string(over));

    tree_key(key, n);
    if (r == 0)
        r = json_object_set_new(json_object_get(t->root, "active"), key, json_string(path));
    return r < 0 ? -ENOMEM : 0;
}

/* Put over's chain, from what the disk is named as up to path, over disk n. */
static int tree_lift(const struct snap_tree *t, struct machine_config *cfg, unsigned n, const char *path, unsigned depth, struct err *err)
{
    const char *over = snap_tree_over(t, path);
    struct config_overlay change;
    int r;

    if (!strcmp(cfg->disk[n].path, path))
        return 0;
    if (!over || depth == IMAGE_CHAIN_MAX)
        return err_set(err, ESTALE,
                       "disk '%s' is kept for snapshots of this machine, which is not at one of those: 'vitro snapshot revert' goes there",
                       cfg->disk[n].path);
    r = tree_lift(t, cfg, n, over, depth + 1, err);
    if (r == 0)
        r = config_overlay_begin(&change, cfg, n, path, err);
    if (r == 0)
        config_overlay_commit(&change);
    return r;
}

/* Is the image, named however, below one of the tree's, or one of them? Then its path as the tree has it. */
static const char *tree_knows(const struct snap_tree *t, const char *image)
{
    char *real = realpath(image, NULL);
    const char *over, *found = NULL;
    json_t *v;

    json_object_foreach (json_object_get(t->root, "images"), over, v) {
        if (real && (!strcmp(real, json_string_value(v)) || !strcmp(real, over)))
            found = strcmp(real, over) ? json_string_value(v) : over;
    }
    free(real);
    return found;
}

/* A saved machine may name overlays that were merged since. */
static int tree_forget_merged(const struct snap_tree *t, struct machine_config *cfg, unsigned n, struct err *err)
{
    const struct config_disk *d = &cfg->disk[n];
    size_t len = strlen(t->folder);
    int r = 0;

    for (unsigned i = 0; r == 0 && i < d->backings;) {
        if (!strncmp(d->backing[i], t->folder, len) && d->backing[i][len] == '/' && !snap_tree_over(t, d->backing[i]))
            r = config_forget_backing(cfg, n, i, err);
        else
            i++;
    }
    return r;
}

static int tree_settle_disk(const struct snap_tree *t, struct machine_config *cfg, unsigned n, struct err *err)
{
    struct config_disk *d = &cfg->disk[n];
    const char *known = d->ro || d->ephemeral ? NULL : tree_knows(t, d->path), *active = snap_tree_active(t, n);
    int r;

    if (!known)
        return 0;
    if (!active)
        return err_set(err, ESTALE, "disk '%s' is kept for snapshots of this machine: its disks must be in the order that they were", d->path);
    r = tree_forget_merged(t, cfg, n, err);
    if (r < 0 || !strcmp(known, active))
        return r;
    log_msg(LOG_INFO, "disk '%s' goes on in '%s', over its snapshots", d->path, active);
    free(d->path);
    d->path = strdup(known);
    r = d->path ? tree_lift(t, cfg, n, active, 0, err) : err_set(err, ENOMEM, "out of memory");
    return r;
}

/* -- with the machine -- */

bool snap_tree_exists(const char *name)
{
    struct snap_tree t = { .lock = -1 };
    char path[PATH_MAX];
    bool is = define_folder(t.folder, sizeof(t.folder), "snapshots", name, false, NULL) == 0;

    tree_path(&t, path);
    return is && access(path, F_OK) == 0;
}

int snap_tree_erase(const char *name, struct err *err)
{
    struct snap_tree t = { .lock = -1 };
    char path[PATH_MAX];
    int r = define_folder(t.folder, sizeof(t.folder), "snapshots", name, false, err);

    if (r == 0)
        r = tree_lock(&t, name, err);
    if (r == 0)
        t.root = tree_new();
    tree_path(&t, path);
    if (r == 0 && !t.root)
        r = err_set(err, ENOMEM, "out of memory");
    if (r == 0 && unlink(path) < 0)
        r = err_set(err, errno, "'%s' cannot be removed: %s", path, strerror(errno));
    if (r == 0) {
        tree_sweep(&t);
        rmdir(t.folder); /* something of the user's may be in it */
    }
    snap_tree_close(&t);
    return r;
}

int snap_tree_settle(const char *name, struct machine_config *cfg, struct err *err)
{
    struct snap_tree t;
    int r = 0;

    r = snap_tree_open(&t, name, false, err);
    if (r == -EBADMSG || r == -ENOTSUP || r == -ENOMEM)
        return r; /* going on in what is kept for snapshots would ruin them */
    if (r < 0) {
        err->text[0] = 0;
        return 0; /* there is no place for snapshots, so there are none */
    }
    for (unsigned n = 0; r == 0 && n < cfg->disks; n++)
        r = tree_settle_disk(&t, cfg, n, err);
    snap_tree_close(&t);
    return r;
}
