/* vitro snapshot: states of a running machine that it can go back to, its disks with it. Thread: the main thread, which becomes a machine's parent
 * in revert.
 *
 * A snapshot is a saved machine, and the images that its disks were: from that moment on they are not written any more, for the machine goes on
 * in overlays. Going back is a new overlay over those images, and the saved machine in it. snap_tree.h says what is kept, and where. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "api/client.h"
#include "base/bits.h"
#include "base/err.h"
#include "block/image.h"
#include "cli/cli.h"
#include "cli/identity.h"
#include "cli/launch.h"
#include "cli/snap_merge.h"
#include "cli/snap_tree.h"
#include "cli/verb.h"

void cmd_snapshot_help(void)
{
    puts("Keeps the state of a running machine: memory, CPUs, devices and disks. The machine stands still for milliseconds and goes on.\n"
         "'revert' puts it back there, whatever it has become since; snapshots that are made then are a branch. Those of a machine are a tree.\n\n"
         "  vitro snapshot NAME [--name SNAPSHOT]   make one\n"
         "  vitro snapshot list NAME                show them; '*' is where the machine is\n"
         "  vitro snapshot revert NAME SNAPSHOT     the machine ends if it runs, and goes on there in the background; options of\n"
         "                                          'vitro run' may follow '--'\n"
         "  vitro snapshot delete NAME SNAPSHOT     forget one; what others need of it is kept, and overlays that none needs are merged\n"
         "  vitro snapshot merge NAME               merge those that could not be then\n"
         "  --json                                  say what there is, or was done, as JSON\n\n"
         "Disks that are written go on in overlays (qcow2) beside the snapshots; a machine of that name finds them by itself, whatever the\n"
         "disk is called. The images below must not be changed by anything else.");
}

#define SNAPSHOT_LAYERS 8 /* files of memory one over another, at most SAVE_LAYERS */

struct snapshot {
    struct snap_tree tree;
    struct machine_config cfg;
    const char *name;
    unsigned id;
    json_t *overlays;
    struct verb_save save;
    unsigned opened; /* of save.overlay */
    struct save_file *base; /* the snapshot that the machine came from, and its number */
    unsigned base_id;
    char base_name[24];
};

/* -- making one -- */

static int snapshot_config(struct snapshot *s, struct err *err)
{
    json_t *machine = NULL;
    int r = client_call(s->name, "GET", "/v1/machine", NULL, &machine, err);

    if (r == 0)
        r = config_apply_json(&s->cfg, json_object_get(machine, "config"), err);
    json_decref(machine);
    return r;
}

static bool snapshot_written(const struct config_disk *d) { return !d->ro && !d->ephemeral; }

/* What the machine writes to is the truth: an attempt that failed may have left an overlay that it does not know. */
static int snapshot_agree(struct snapshot *s, unsigned n, const char *now, struct err *err)
{
    const char *active = snap_tree_active(&s->tree, n), *at = active;

    while (at && strcmp(at, now))
        at = snap_tree_over(&s->tree, at);
    if (active && !at)
        return err_set(err, ESTALE, "machine '%s' has another disk %u than it had for its snapshots ('%s')", s->name, n, active);
    return 0;
}

/* The file in which disk n goes on: over what it is now. */
static int snapshot_overlay(struct snapshot *s, unsigned n, struct err *err)
{
    struct config_disk *d = &s->cfg.disk[n];
    char path[PATH_MAX], *now = realpath(d->path, NULL);
    enum image_format format = d->format;
    struct config_overlay change;
    int r = now ? snapshot_agree(s, n, now, err) : err_set(err, errno, "disk '%s': %s", d->path, strerror(errno));

    snprintf(path, sizeof(path), "%s/%u-%u.qcow2", s->tree.folder, s->id, n);
    if (r == 0)
        r = config_overlay_begin(&change, &s->cfg, n, path, err); /* what the machine would refuse */
    if (r == 0) {
        config_overlay_commit(&change);
        r = image_overlay_make(path, now, format, err);
    }
    if (r >= 0) {
        s->save.overlay[s->opened++] = r;
        json_array_append_new(s->overlays, json_pack("{s:i, s:s}", "disk", (int)n, "path", path));
        r = snap_tree_put_active(&s->tree, n, path, now);
    }
    free(now);
    return r;
}

/* An empty overlay reads as what is below it. So it does not matter whether the machine goes on in it when we are killed: the tree says so first. */
static int snapshot_overlays(struct snapshot *s, struct err *err)
{
    int r;

    s->id = snap_tree_next(&s->tree);
    r = snap_tree_store(&s->tree, err);
    for (unsigned n = 0; r == 0 && n < s->cfg.disks; n++) {
        if (snapshot_written(&s->cfg.disk[n]))
            r = snapshot_overlay(s, n, err);
    }
    return r == 0 ? snap_tree_store(&s->tree, err) : r;
}

/* The images that the disks were until now. */
static json_t *snapshot_images(const struct snapshot *s)
{
    json_t *images = json_object();
    char key[8];

    for (unsigned n = 0; n < s->cfg.disks; n++) {
        const char *active = snapshot_written(&s->cfg.disk[n]) ? snap_tree_active(&s->tree, n) : NULL;

        snprintf(key, sizeof(key), "%u", n % 1000);
        if (active)
            json_object_set_new(images, key, json_string(snap_tree_over(&s->tree, active)));
    }
    return images;
}

/* What is as it was in the snapshot that the machine came from is not written again. Too many files one over another are read slowly, so then all is. */
static void snapshot_base(struct snapshot *s)
{
    char path[PATH_MAX];
    struct err err;

    s->base_id = snap_number(s->tree.root, "current");
    snap_tree_file(&s->tree, s->base_id, path);
    if (!s->base_id || save_open(&s->base, path, &err) < 0)
        return;
    snprintf(s->base_name, sizeof(s->base_name), "%u.vitro", s->base_id);
    if (save_stands_on(s->base) + 1 < SNAPSHOT_LAYERS) {
        s->save.base = s->base;
        s->save.base_name = s->base_name;
    }
}

static int snapshot_enter(struct snapshot *s, const char *label, bool stands, struct err *err)
{
    json_t *node = json_pack("{s:i, s:s, s:i, s:i, s:I, s:o}", "id", (int)s->id, "name", label, "parent",
                             (int)snap_number(s->tree.root, "current"), "base", stands ? (int)s->base_id : 0, "made",
                             (json_int_t)time(NULL), "images", snapshot_images(s));

    if (!node || json_array_append_new(json_object_get(s->tree.root, "nodes"), node) < 0 ||
        json_object_set_new(s->tree.root, "current", json_integer((json_int_t)s->id)) < 0)
        return err_set(err, ENOMEM, "out of memory");
    return snap_tree_store(&s->tree, err);
}

static int snapshot_make(struct snapshot *s, const char *label, struct err *err)
{
    struct save_file *made = NULL;
    struct image_draft draft;
    char path[PATH_MAX];
    int r = snapshot_config(s, err);

    if (r == 0)
        r = snapshot_overlays(s, err);
    if (r < 0)
        return r;
    snap_tree_file(&s->tree, s->id, path);
    s->save.name = s->name, s->save.path = path, s->save.overlays = s->overlays;
    snapshot_base(s);
    r = verb_save(&s->save, &draft, err);
    if (r == 0)
        r = image_draft_commit(&draft, err);
    if (r == 0)
        r = save_open(&made, path, err);
    if (r == 0)
        r = snapshot_enter(s, label, save_stands_on(made) > 0, err);
    save_close(made);
    return r;
}

static int snapshot_check_label(const struct snap_tree *t, const char *label, struct err *err)
{
    size_t len = strlen(label);

    if (!len || len > SITE_NAME_MAX || strspn(label, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") != len)
        return err_set(err, EINVAL, "'%.80s' is not a snapshot's name: letters, digits, '.', '_' and '-', at most %d", label, SITE_NAME_MAX);
    if (snap_tree_find(t, label))
        return err_set(err, EEXIST, "there is a snapshot '%s' already", label);
    return 0;
}

static int snapshot_init(struct snapshot *s, const char *name, struct err *err)
{
    *s = (struct snapshot){ .name = name, .tree = { .lock = -1 } };
    s->overlays = json_array();
    return config_init(&s->cfg) < 0 || !s->overlays ? err_set(err, ENOMEM, "out of memory") : 0;
}

static void snapshot_fini(struct snapshot *s)
{
    while (s->opened > 0)
        close(s->save.overlay[--s->opened]);
    save_close(s->base);
    snap_tree_close(&s->tree);
    config_fini(&s->cfg);
    json_decref(s->overlays);
}

static int snapshot_create(const char *name, const char *label, bool json)
{
    struct err err = { "" };
    struct site_info i;
    struct snapshot s;
    char given[32];
    int r = snapshot_init(&s, name, &err);

    if (r == 0)
        r = verb_running(name, &i, &err);
    if (r == 0)
        r = snap_tree_open(&s.tree, name, true, &err);
    if (r == 0) {
        snprintf(given, sizeof(given), "snapshot-%u", snap_number(s.tree.root, "next"));
        label = label ? label : given;
        r = snapshot_check_label(&s.tree, label, &err);
    }
    if (r == 0)
        r = snapshot_make(&s, label, &err);
    snapshot_fini(&s);
    if (r < 0)
        return cli_fail(json, &err);
    if (json)
        printf("{\"name\":\"%s\",\"done\":\"snapshot\",\"snapshot\":\"%s\",\"stood_ms\":%.3f}\n", name, label, (double)s.save.stood_ns / 1e6);
    else
        puts(label);
    return CLI_OK;
}

/* -- looking -- */

static const char *snapshot_name(const struct snap_tree *t, unsigned id)
{
    return json_string_value(json_object_get(snap_tree_node(t, snap_tree_visible(t, id)), "name"));
}

/* What its own file takes of the host's disk. */
static uint64_t snapshot_bytes(const struct snap_tree *t, unsigned id)
{
    char path[PATH_MAX];
    struct stat st;

    snap_tree_file(t, id, path);
    return stat(path, &st) < 0 ? 0 : (uint64_t)st.st_blocks * 512;
}

static json_t *snapshot_describe(const struct snap_tree *t, const json_t *node)
{
    unsigned id = snap_number(node, "id");
    const char *parent = snapshot_name(t, snap_number(node, "parent"));

    return json_pack("{s:O, s:s?, s:O, s:I, s:b, s:O}", "name", json_object_get(node, "name"), "parent", parent, "made",
                     json_object_get(node, "made"), "bytes", (json_int_t)snapshot_bytes(t, id), "current",
                     snap_tree_visible(t, snap_number(t->root, "current")) == id, "images", json_object_get(node, "images"));
}

static unsigned snapshot_depth(const struct snap_tree *t, const json_t *node)
{
    unsigned depth = 0, id = snap_number(node, "parent");

    while ((id = snap_tree_visible(t, id))) {
        id = snap_number(snap_tree_node(t, id), "parent");
        depth++;
    }
    return depth;
}

static void snapshot_line(const struct snap_tree *t, const json_t *node)
{
    unsigned id = snap_number(node, "id");
    time_t made = (time_t)json_integer_value(json_object_get(node, "made"));
    char when[32] = "?";
    struct tm tm;

    if (localtime_r(&made, &tm))
        strftime(when, sizeof(when), "%Y-%m-%d %H:%M:%S", &tm);
    printf("%c %-19s %9.1f  %*s%s\n", snap_tree_visible(t, snap_number(t->root, "current")) == id ? '*' : ' ', when,
           (double)snapshot_bytes(t, id) / (1 << 20), (int)(2 * snapshot_depth(t, node)), "", json_string_value(json_object_get(node, "name")));
}

/* Those that came from `parent`, each with what came from it. IDs grow, so there are no circles. */
static void snapshot_branch(const struct snap_tree *t, unsigned parent)
{
    const json_t *node;
    size_t n;

    json_array_foreach (json_object_get(t->root, "nodes"), n, node) {
        if (json_is_true(json_object_get(node, "hidden")) || snap_tree_visible(t, snap_number(node, "parent")) != parent)
            continue;
        snapshot_line(t, node);
        snapshot_branch(t, snap_number(node, "id"));
    }
}

static void snapshot_print(const struct snap_tree *t)
{
    json_t *list = json_array();
    const json_t *node;
    char *text;
    size_t n;

    json_array_foreach (json_object_get(t->root, "nodes"), n, node) {
        if (!json_is_true(json_object_get(node, "hidden")))
            json_array_append_new(list, snapshot_describe(t, node));
    }
    text = list ? json_dumps(list, JSON_COMPACT) : NULL;
    puts(text ? text : "[]");
    free(text);
    json_decref(list);
}

static int snapshot_list(const char *name, bool json)
{
    struct err err = { "" };
    struct snap_tree t;

    if (snap_tree_open(&t, name, false, &err) < 0)
        return cli_fail(json, &err);
    if (json) {
        snapshot_print(&t);
    } else {
        printf("  %-19s %9s  %s\n", "MADE", "SIZE(MIB)", "NAME");
        snapshot_branch(&t, 0);
    }
    snap_tree_close(&t);
    return CLI_OK;
}

/* -- removing one -- */

static int snapshot_node(const struct snap_tree *t, const char *name, const char *label, json_t **node, struct err *err)
{
    *node = snap_tree_find(t, label);
    return *node ? 0 : err_set(err, ENOENT, "machine '%s' has no snapshot '%.80s': see 'vitro snapshot list %s'", name, label, name);
}

static int snapshot_forget(struct snap_tree *t, const char *name, const char *label, struct err *err)
{
    json_t *node;
    int r = snapshot_node(t, name, label, &node, err);

    if (r < 0)
        return r;
    snap_tree_remove(node);
    return snap_tree_store(t, err);
}

static void snapshot_tell_merge(const char *name, const char *label, const struct snap_merge *m, bool json)
{
    json_t *o = json ? json_pack("{s:s, s:s, s:s*, s:i, s:i}", "name", name, "done", label ? "delete" : "merge", "snapshot", label, "merged",
                                 (int)m->merged, "later", (int)m->later) : NULL;
    char *text = o ? json_dumps(o, JSON_COMPACT) : NULL;

    if (text)
        puts(text);
    else if (m->later)
        fprintf(stderr, "vitro: %u overlays that no snapshot needs are left for 'vitro snapshot merge %s'%s%s\n", m->later, name, *m->why ? ": " : "", m->why);
    free(text);
    json_decref(o);
}

/* label NULL: only merge. What is deleted stays so when the merging fails, for want of space maybe. */
static int snapshot_delete(const char *name, const char *label, bool json)
{
    struct snap_merge m = { .merged = 0 };
    struct err err = { "" };
    struct site_info i;
    struct snap_tree t;
    int r = snap_tree_open(&t, name, true, &err);

    if (r < 0)
        return cli_fail(json, &err);
    r = label ? snapshot_forget(&t, name, label, &err) : snap_tree_store(&t, &err);
    if (r == 0)
        r = site_look(name, &i, &err);
    if (r == 0)
        r = snap_merge(&t, i.running ? name : NULL, &m, &err);
    snap_tree_close(&t);
    if (r < 0)
        return cli_fail(json, &err);
    snapshot_tell_merge(name, label, &m, json);
    return CLI_OK;
}

/* -- going back -- */

/* The node's file is whole, and its disks are what they were; their configuration. */
static int revert_look(struct snapshot *s, const char *path, struct err *err)
{
    uint64_t trusted = 0;
    struct save_file *f;
    int r = save_open(&f, path, err);

    if (r < 0)
        return r;
    r = save_config(f, &s->cfg, NULL, err);
    for (unsigned n = 0; r == 0 && n < s->cfg.disks; n++)
        trusted |= snap_merge_made(&s->tree, s->cfg.disk[n].path) ? BIT(n) : 0;
    if (r == 0)
        r = save_check_disks(f, &s->cfg, trusted, err);
    save_close(f);
    return r;
}

/* Fresh overlays over the node's images. Nothing names them yet. */
static int revert_overlays(struct snapshot *s, const json_t *images, struct err *err)
{
    char path[PATH_MAX], key[8];
    int fd, r;

    s->id = snap_tree_next(&s->tree);
    r = snap_tree_store(&s->tree, err);
    for (unsigned n = 0; r == 0 && n < s->cfg.disks; n++) {
        const char *over;

        snprintf(key, sizeof(key), "%u", n % 1000);
        over = json_string_value(json_object_get(images, key));
        if (!over)
            continue;
        snprintf(path, sizeof(path), "%s/%u-%u.qcow2", s->tree.folder, s->id, n);
        fd = image_overlay_make(path, over, s->cfg.disk[n].format, err);
        if (fd < 0)
            return fd;
        close(fd);
        r = snap_tree_put_active(&s->tree, n, path, over);
    }
    return r;
}

/* End the machine, if it runs; then the tree says where it is. */
static int revert_switch(struct snapshot *s, const json_t *node, char engine[32], struct err *err)
{
    json_t *machine = NULL;
    struct site_info i;
    int r = site_look(s->name, &i, err);

    if (r == 0 && i.running) {
        r = client_call(s->name, "GET", "/v1/machine", NULL, &machine, err);
        if (r == 0)
            snprintf(engine, 32, "%s", json_string_value(json_object_get(machine, "engine")));
        json_decref(machine);
        if (r == 0)
            r = verb_kill(s->name, err);
    }
    if (r == 0)
        r = json_object_set(s->tree.root, "current", json_object_get(node, "id")) < 0 ? err_set(err, ENOMEM, "out of memory") : 0;
    return r == 0 ? snap_tree_store(&s->tree, err) : r;
}

/* All but starting it; where the saved machine is, and the engine that it had (or ""). */
static int revert_prepare(struct snapshot *s, const char *label, char path[PATH_MAX], char engine[32], struct err *err)
{
    json_t *node;
    int r = snap_tree_open(&s->tree, s->name, true, err);

    if (r == 0)
        r = snapshot_node(&s->tree, s->name, label, &node, err);
    if (r < 0)
        return r;
    snap_tree_file(&s->tree, snap_number(node, "id"), path);
    r = revert_look(s, path, err);
    if (r == 0)
        r = revert_overlays(s, json_object_get(node, "images"), err);
    return r == 0 ? revert_switch(s, node, engine, err) : r;
}

static int revert_start(const char *name, const char *path, const char *engine, bool json, int rest, char **word)
{
    const char **words = calloc((size_t)rest + 7, sizeof(*words));
    char what[PATH_MAX + 32];
    int n = 0, status = CLI_ERROR;

    if (!words)
        return cli_failf("out of memory");
    snprintf(what, sizeof(what), "%s,rewind,trust-disks", path);
    words[n++] = "--restore", words[n++] = what, words[n++] = "--name", words[n++] = name;
    if (*engine)
        words[n++] = "--engine", words[n++] = engine;
    for (int i = 0; i < rest; i++)
        words[n++] = word[i];
    status = launch_words(n, words, json);
    free(words);
    if (status == CLI_OK)
        identity_settle(name, false); /* what the guest has drawn since the snapshot must not come again */
    return status;
}

static int snapshot_revert(const char *name, const char *label, bool json, int rest, char **word)
{
    char path[PATH_MAX], engine[32] = "";
    struct err err = { "" };
    struct snapshot s;
    int r = snapshot_init(&s, name, &err);

    if (r == 0)
        r = revert_prepare(&s, label, path, engine, &err);
    snapshot_fini(&s);
    return r < 0 ? cli_fail(json, &err) : revert_start(name, path, engine, json, rest, word);
}

int cmd_snapshot(int argc, char **argv)
{
    const char *label = NULL;
    const struct verb_option options[] = { { "--name", NULL, &label }, { .name = NULL } };
    struct verb_args a;
    const char *what;
    int own = 0, rest;

    while (own < argc && strcmp(argv[own], "--"))
        own++;
    rest = own < argc ? argc - own - 1 : 0;
    if (verb_parse(&a, own, argv, "snapshot", options, 1, 3))
        return CLI_ERROR;
    what = a.names > 1 ? a.name[0] : "create";
    if (a.names == 1)
        return snapshot_create(a.name[0], label, a.json);
    if (!strcmp(what, "create") && a.names == 2)
        return snapshot_create(a.name[1], label, a.json);
    if (!strcmp(what, "list") && a.names == 2)
        return snapshot_list(a.name[1], a.json);
    if (!strcmp(what, "delete") && a.names == 3)
        return snapshot_delete(a.name[1], a.name[2], a.json);
    if (!strcmp(what, "merge") && a.names == 2)
        return snapshot_delete(a.name[1], NULL, a.json);
    if (!strcmp(what, "revert") && a.names == 3)
        return snapshot_revert(a.name[1], a.name[2], a.json, rest, argv + own + 1);
    return cli_failf("that is not how a snapshot is made or used: see 'vitro help snapshot'");
}
