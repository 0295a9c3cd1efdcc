/* qcow2 disk images: a struct block (block.h) over an imgfile.
 *
 * Source: QEMU's docs/interop/qcow2.rst. Version 3 is read and written, version 2 is read.
 * docs/design/qcow2.md says in which order things reach the disk and what is refused.
 */
#ifndef VITRO_BLOCK_QCOW2_H
#define VITRO_BLOCK_QCOW2_H

#include <stdbool.h>
#include <stdint.h>

#include "block/block.h"

struct imgfile;

#define QCOW2_NAME_MAX     1023
#define QCOW2_CLUSTER_BITS 16 /* what new images get */
#define QCOW2_CLUSTER_MIN  9
#define QCOW2_CLUSTER_MAX  21
#define QCOW2_SIZE_MAX     (1ULL << 50)

/* What an image says about itself, for people and for finding its backing file. */
struct qcow2_info {
    unsigned version, cluster_bits, refcount_bits, snapshots;
    uint64_t size; /* of the disk, bytes, as the image says */
    uint64_t file_size;
    bool dirty, corrupt; /* its marks */
    bool zstd;           /* compressed clusters, if any, are zstd's; else zlib's */
    bool lazy_refcounts;
    bool bitmaps; /* persistent dirty bitmaps */
    bool has_backing;
    char backing[QCOW2_NAME_MAX + 1]; /* as stored; "" without */
    char backing_format[64];          /* "" when not stated */
};

/* Look at the header of an image; nothing else is opened. name is for messages. 0 or -errno with a sentence.
 */
int qcow2_probe(struct imgfile *f, const char *name, struct qcow2_info *info, struct err *err);

struct qcow2_opts {
    const char *name; /* for messages; copied */
    bool ro;
    bool repair;           /* open for writing although it is marked as dirty or corrupt (qcow2_check()) */
    bool no_backing;       /* do without the backing file: what it holds reads as zeroes (check, info) */
    bool borrow_file;      /* the file is closed by the caller, after the image */
    struct block *backing; /* taken over, also on failure; NULL: none. Only read. */
    uint64_t cache_bytes;  /* 0: the default */
};

/* Open an image. Takes over f and the backing, also on failure. block_close() of *out writes what is pending;
 * who wants to know whether that went well calls block_flush() before. 0 or -errno with a sentence. */
int block_qcow2_open(struct block **out, struct imgfile *f, const struct qcow2_opts *o, struct err *err);

struct qcow2_new {
    uint64_t size; /* bytes, a multiple of 512 */
    unsigned cluster_bits;
    const char *backing, *backing_format; /* NULL: none */
};

/* Write an empty image into an empty file, and make it durable; f is borrowed. 0 or -errno with a sentence.
 */
int qcow2_create(struct imgfile *f, const struct qcow2_new *n, struct err *err);

/* b must be from block_qcow2_open(). */
bool qcow2_is(const struct block *b);

/* What it was opened with; borrowed. The backing may be NULL. */
struct block *qcow2_backing(const struct block *b);
/* What it stands on from now on, and owns; what it stood on is the caller's. No other call runs. */
void qcow2_set_backing(struct block *b, struct block *backing);
const struct qcow2_info *qcow2_info_of(const struct block *b);

/* How the disk reads from off on: for *n bytes, at most len, everything is of one kind. 0 or -errno. */
enum qcow2_extent { QCOW2_FROM_BACKING, QCOW2_READS_ZERO, QCOW2_HAS_DATA };
int qcow2_map(struct block *b, uint64_t off, uint64_t len, enum qcow2_extent *kind, uint64_t *n);

/* Bring [off, off+len), whole clusters or up to the disk's end, into the image, as far as it is from the backing file still: for *done bytes, which
 * are more than none. zero: it reads as zeroes. What the disk reads as stays the same. Beside other calls. 0 or -errno. */
int qcow2_pull(struct block *b, uint64_t off, uint64_t len, bool zero, uint64_t *done);

/* Note another backing file, absolute, and its format: the one or the other is what the image names whenever we are killed; durable when it returns
 * 0. Beside other calls. 0, -EINVAL (not an image as qcow2_create() makes them, or too long a name) or -errno. */
int qcow2_name_backing(struct block *b, const char *name, const char *format);

/* Make the disk larger; durable when it returns 0. No other call may run. 0 or -errno with a sentence. */
int qcow2_grow(struct block *b, uint64_t size, struct err *err);

/* Forget all that this image holds itself, so that everything reads from the backing file again. No other call
 * may run. 0 or -errno. */
int qcow2_make_empty(struct block *b);

struct qcow2_check {
    uint64_t clusters;  /* of the file */
    uint64_t allocated; /* of the disk's clusters, those with data in this image */
    uint64_t disk_clusters;
    uint64_t corruptions; /* things that may lose data */
    uint64_t leaks;       /* clusters that nobody uses */
    uint64_t fixed_corruptions, fixed_leaks;
    char first[200]; /* the first corruption, as a sentence; "" without */
};

/* Compare every reference with the reference counts. fix: set wrong counts right and take the marks off when
 * nothing else is wrong (b is then open for writing). No other call may run. 0 (also when something is
 * wrong), or -errno with a sentence when it could not be found out. */
int qcow2_check(struct block *b, bool fix, struct qcow2_check *c, struct err *err);

#endif
