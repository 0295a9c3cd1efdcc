/* Disks that are copied along, see the frames DISK and SYNC in stream.h: what they read as, not how their images look. */
#ifndef VITRO_MIGRATE_DISKS_H
#define VITRO_MIGRATE_DISKS_H

#include <stdbool.h>
#include <stdint.h>

#include "block/image.h"
#include "machine/vm.h"
#include "migrate/ram.h"

#define MIG_DISK_ENTRY 16U /* size:u64 allocated:u64 */
#define MIG_DISK_HEAD  24U

/* ---- the source; see migrate.h for who calls what ---- */

/* Describe all disks, MIG_DISK_ENTRY bytes each. The machine's thread, since only that may look at files. */
void mig_disks_describe(const struct vm *vm, uint8_t *out);
/* Note from now on what is written: to ephemeral disks, of which what was written before counts; copy: to the others, too, of which everything counts, as do
 * the images of ephemeral ones. The machine's thread. */
int mig_disks_log(struct vm *vm, bool copy, struct err *err);
void mig_disks_log_end(struct vm *vm);
/* Bytes that are to be sent. */
uint64_t mig_disks_left(const struct vm *vm);
/* Send what was written since it was sent last. first: the other side's disks are all zeroes, but for ephemeral ones. sync: wait until the other side has it on its
 * disk. note(opaque, bytes): so many are done; an error ends it. */
int mig_disks_send(struct vm *vm, struct mig_packer *p, struct mig_stream *s, bool first, bool sync,
                   int (*note)(void *opaque, uint64_t bytes, struct err *err), void *opaque, struct err *err);

/* ---- the destination ---- */

struct mig_copy {
    uint64_t size, allocated; /* as the source says: of the disk; of its file */
    uint64_t unflushed;       /* bytes */
    struct image_draft draft;
    struct block *block; /* owned until mig_copies_give() */
    char *path;          /* owned; set when the file has its name */
};

struct mig_copies {
    struct mig_copy disk[CONFIG_DISKS];
    unsigned count;
};

/* Zeroed before. Checks the sizes. */
int mig_copies_parse(struct mig_copies *c, const uint8_t *entries, unsigned count, struct err *err);
/* Begin the images, without names yet, and let cfg have them: in folder if that is not NULL. force: files may be replaced. */
int mig_copies_begin(struct mig_copies *c, struct machine_config *cfg, const char *folder, bool force, struct err *err);
/* A DISK frame; staging is SAVE_CHUNK bytes. vm has its ephemeral disks already. */
int mig_copies_take(struct mig_copies *c, struct vm *vm, const struct mig_frame *f, uint8_t *staging, struct err *err);
int mig_copies_sync(struct mig_copies *c, struct err *err);
/* All has come: on the host's disk under its name, and in the machine, whose it is from now on. */
int mig_copies_give(struct mig_copies *c, struct vm *vm, struct err *err);
/* keep: the machine is ours. Else what was made is taken away. */
void mig_copies_fini(struct mig_copies *c, bool keep);

#endif
