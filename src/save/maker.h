/* Files for a machine inside its sandbox, which opens none: a process of its own makes them, and gives them their names.
 *
 * It is started before the sandbox, serves one machine by a socket pair, and ends with it. It does nothing but make new files: one that the user named
 * beforehand (vitro run --save), or any (the Firecracker API): then what is there is replaced only if it is empty or was made by it (a saved machine or
 * a snapshot's description); and only by a whole new file (image.h, drafts). So a machine's process that a guest has taken over can ruin snapshots of
 * its user, and nothing else. It also opens images for a drive whose medium is changed (the Firecracker API), in folders that were named before the
 * guest ran; nothing else is ever read.
 *
 * Thread: the machine's.
 */
#ifndef VITRO_SAVE_MAKER_H
#define VITRO_SAVE_MAKER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct err;

#define MAKER_SLOTS   2 /* files at a time */
#define MAKER_FOLDERS 16
#define MAKER_TEXT  "{\"format\":\"vitro snapshot\"," /* how a description begins */

struct maker {
    int fd; /* -1: none */
    pid_t pid;
};

/* Before there are threads and a sandbox. only: the one path that it makes, in place of whatever is there; NULL: any. 0, or -errno with a
 * sentence. */
int maker_start(struct maker *m, const char *only, struct err *err);
/* It has ended afterwards, and files that were not given their names are gone. */
void maker_fini(struct maker *m);

/* Begin the file that will be at path; what was begun in the slot before is thrown away. A descriptor, open for reading and writing, the
 * caller's to close; or -errno with a sentence. */
int maker_begin(struct maker *m, unsigned slot, const char *path, struct err *err);
/* Make it durable under its name. 0 or -errno with a sentence; then the file that was there before is still there. */
int maker_commit(struct maker *m, unsigned slot, struct err *err);
void maker_abort(struct maker *m, unsigned slot);

/* Images that the machine may ask for while it runs: those in the folder of this file, and in folders below that one; at most MAKER_FOLDERS. Until
 * maker_seal(), which comes before the guest runs. 0 or -errno with a sentence. */
int maker_allow(struct maker *m, const char *path, struct err *err);
void maker_seal(struct maker *m);
/* Open one of those, without a lock. A descriptor, the caller's, and its bytes; or -errno with a sentence. */
int maker_open(struct maker *m, const char *path, bool ro, uint64_t *size, struct err *err);

#endif
