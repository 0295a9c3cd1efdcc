/* The snapshots of one machine: a folder "snapshots/NAME" in the user's data folder with
 *
 *   tree.json   which there are (below)
 *   ID.vitro    a saved machine, plain, each
 *   ID-N.qcow2  overlays of disk N
 *
 * tree.json is replaced as a whole. Files are made before it names them and removed after it does not any more, so a kill at any moment leaves
 * the tree as it was or as it should be; what it does not name is removed the next time.
 *
 *   { "format": "vitro snapshots", "version": 1, "next": ID,
 *     "current": ID,              what the machine is now came from that one; 0: from none
 *     "active": { "N": PATH },    the image that disk N is written to
 *     "images": { PATH: PATH },   each overlay, and what it stands on
 *     "merged": { PATH: [ TEXT ] } images that are files which snap_merge.c made, and how to know these: "LENGTH SECONDS.NANOSECONDS" of the last change
 *     "nodes": [ { "id": ID, "name": TEXT, "parent": ID, "base": ID, "made": SECONDS, "images": { "N": PATH }, "hidden": BOOL } ] }
 *
 * base: the node on whose file its own stands; 0: none. images of a node: what disk N held then, which nobody writes to any more. A hidden node was deleted but others need its file.
 *
 * Thread: the main thread.
 */
#ifndef VITRO_CLI_SNAP_TREE_H
#define VITRO_CLI_SNAP_TREE_H

#include <jansson.h>
#include <limits.h>
#include <stdbool.h>

struct err;
struct machine_config;

struct snap_tree {
    char folder[PATH_MAX - 300];
    int lock; /* of the folder; -1: not held */
    json_t *root;
};

/* The tree of that machine, an empty one if there is none. change: nobody else may do so until it is closed (-EBUSY). 0 or -errno with a sentence. */
int snap_tree_open(struct snap_tree *t, const char *name, bool change, struct err *err);
/* Let others change it; the tree stays readable. */
void snap_tree_unlock(struct snap_tree *t);
void snap_tree_close(struct snap_tree *t);
/* Write it down, and remove files that it does not need. 0 or -errno with a sentence. */
int snap_tree_store(struct snap_tree *t, struct err *err);

/* A number that no node or file had before. */
unsigned snap_tree_next(struct snap_tree *t);
void snap_tree_file(const struct snap_tree *t, unsigned id, char path[PATH_MAX]);
json_t *snap_tree_node(const struct snap_tree *t, unsigned id);
/* By its name; NULL: there is none, or it is hidden. */
json_t *snap_tree_find(const struct snap_tree *t, const char *name);
/* Out of the tree, but for what others need of it. */
void snap_tree_remove(json_t *node);
/* The nearest one up from id that is not hidden; 0: none. */
unsigned snap_tree_visible(const struct snap_tree *t, unsigned id);
unsigned snap_number(const json_t *o, const char *key);

/* Disk n is written to this image from now on, which stands on `over`. 0 or -ENOMEM. */
int snap_tree_put_active(struct snap_tree *t, unsigned n, const char *path, const char *over);
const char *snap_tree_active(const struct snap_tree *t, unsigned n);
/* What an image stands on; NULL: it is none of this tree's overlays. */
const char *snap_tree_over(const struct snap_tree *t, const char *path);

/* Has the machine snapshots, or disks that go on over some it had? */
bool snap_tree_exists(const char *name);
/* Remove all of that, also a tree that is damaged, and what the machine's disks have become since the first snapshot. The machine does not run. 0
 * or -errno with a sentence: -EBUSY if they are being changed. */
int snap_tree_erase(const char *name, struct err *err);

/* A machine of that name is made: those of its disks that the tree knows are the images that go on. 0 or -errno with a sentence. */
int snap_tree_settle(const char *name, struct machine_config *cfg, struct err *err);

#endif
