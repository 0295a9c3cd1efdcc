/* Overlays of a machine's disks that no snapshot needs any more become one with the overlay over them.
 *
 * Say B <- X <- Y, and nobody needs X but for Y. In this order, so that a kill at any moment leaves disks that read as before:
 *
 *   1 a file without a name gets what Y and X hold; it is durable
 *   2 the tree notes how long that file is and when it was written: saved machines know Y by both
 *   3 it takes Y's name. What it holds reads the same over X and over B
 *   4 the tree says that Y stands on B, and X is removed
 *
 * A step that was not done is as if the merge had not begun, and is done the next time.
 *
 * Under a machine that runs it is the same, but for two things. Y is the image that it writes to: instead of 1 to 3 the machine brings into Y what X
 * holds, while its guest goes on (machine/pc_merge.c), which is Y over X and over B. Y is below that: after 3 the machine is given the file in Y's place. Either
 * way it does without X before 4.
 *
 * Thread: the main thread.
 */
#ifndef VITRO_CLI_SNAP_MERGE_H
#define VITRO_CLI_SNAP_MERGE_H

#include <stdbool.h>

struct err;
struct snap_tree;

#define SNAP_MERGE_WHY 200

struct snap_merge {
    unsigned merged; /* overlays that are gone now */
    unsigned later;  /* that the machine's disks stand on, and cannot be merged now */
    char why[SNAP_MERGE_WHY]; /* not now: a sentence, or "" */
};

/* Merge what can be. running: the machine of that name, which runs; NULL: it does not. What its disks stand on is left for later when it is being moved or
 * saved, or somebody else has one of them. The tree is locked. 0, or -errno with a sentence: what was merged before is counted and stays so. */
int snap_merge(struct snap_tree *t, const char *running, struct snap_merge *m, struct err *err);

/* Is the image the file that a merge made of it, and not one that somebody has changed since? */
bool snap_merge_made(const struct snap_tree *t, const char *path);

#endif
