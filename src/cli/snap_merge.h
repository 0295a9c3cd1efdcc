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
 * Thread: the main thread.
 */
#ifndef VITRO_CLI_SNAP_MERGE_H
#define VITRO_CLI_SNAP_MERGE_H

#include <stdbool.h>

struct err;
struct snap_tree;

struct snap_merge {
    unsigned merged; /* overlays that are gone now */
    unsigned later;  /* that the machine, which runs, has open: they can be merged once it has ended */
};

/* Merge what can be. running: the machine runs, so what its disks stand on stays as it is; so it does when somebody else has one of them. The tree is
 * locked. 0, or -errno with a sentence: what was merged before is counted and stays so. */
int snap_merge(struct snap_tree *t, bool running, struct snap_merge *m, struct err *err);

/* Is the image the file that a merge made of it, and not one that somebody has changed since? */
bool snap_merge_made(const struct snap_tree *t, const char *path);

#endif
