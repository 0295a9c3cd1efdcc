/* Disk images by their names: opening chains of them, making, copying and committing them.
 *
 * Formats are never probed: the caller says which one a file has, and the format of a backing file must be
 * stated by the image or by the caller. A backing file is opened only when the caller names it or allows what
 * the image names.
 */
#ifndef VITRO_BLOCK_IMAGE_H
#define VITRO_BLOCK_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct block;
struct err;

enum image_format { IMAGE_FORMAT_NONE, IMAGE_RAW, IMAGE_QCOW2 };

/* By its name ("raw", "qcow2"), or by a file's suffix (.raw .img; .qcow2). IMAGE_FORMAT_NONE: neither. */
enum image_format image_format_named(const char *name);
enum image_format image_format_suffix(const char *path);
const char *image_format_name(enum image_format f);

struct image_backing {
    const char *path;
    enum image_format format; /* IMAGE_FORMAT_NONE: as the image above it says */
};

struct image_opts {
    enum image_format format;
    bool ro;
    bool unlocked;      /* without the first image's lock: block_take(); or, with ro, only to look at what another may be writing */
    bool repair;        /* qcow2_opts */
    bool no_backing;    /* do without backing files */
    bool allow_backing; /* follow the names that images hold */
    const struct image_backing
        *backing; /* named by the user instead: the first image's, then the next one's ... */
    unsigned backings;
};

#define IMAGE_CHAIN_MAX 16

/* 0 with *out (block_close()), or -errno with a sentence. Backing files are opened read-only. */
int image_open(struct block **out, const char *path, const struct image_opts *o, struct err *err);

/* Make the new image for image_overlay(): at path, durable, over the image `backing` (absolute, of the given format), which may be
 * in use by a machine: only its size is read. Returns a descriptor that is open for writing, or -errno with a sentence. */
int image_overlay_make(const char *path, const char *backing, enum image_format format, struct err *err);

/* A fresh qcow2 image, open for writing as fd (taken over, also on failure), as the overlay of base: of base's size, holding
 * nothing itself, with a backing file of the given format. path is for messages. 0 with *out: it owns base, which is frozen
 * (block_freeze()); or -errno with a sentence, and base is as it was. No other call on base may run. */
int image_overlay(struct block **out, int fd, const char *path, struct block *base, enum image_format format,
                  struct err *err);

/* The path of a backing file as an image at path means it: relative to the folder of the image. To be freed;
 * NULL: no memory. */
char *image_relative(const char *path, const char *backing);

/* --- new files: the old or the whole new one is there, whenever we are killed --- */

struct image_draft {
    char *path, *temp; /* temp: its name so far; NULL while it has none */
    char open[32];     /* a name under which this process can open it */
    int fd;
    bool replace;
};

/* Begin a file that will be at path. replace: there may be one already. 0 or -errno with a sentence. */
int image_draft_begin(struct image_draft *d, const char *path, bool replace, struct err *err);
/* Make it durable under its name; ends the draft also on failure. */
int image_draft_commit(struct image_draft *d, struct err *err);
/* Throw it away. */
void image_draft_abort(struct image_draft *d);

struct image_new {
    enum image_format format;
    uint64_t size; /* rounded up to whole sectors */
    unsigned cluster_bits;
    const char *backing; /* as it will be stored; NULL: none */
    enum image_format backing_format;
};

/* Write an empty image into the draft. 0 or -errno with a sentence. */
int image_make(struct image_draft *d, const struct image_new *n, struct err *err);

/* --- contents --- */

/* Called now and then with how far a long work is; may be NULL. */
struct image_progress {
    void (*tell)(void *opaque, uint64_t done, uint64_t total);
    void *opaque;
};

/* Copy what src reads as into dst, which reads as zeroes so far and is at least as large. 0 or -errno with a
 * sentence. */
int image_copy(struct block *src, struct block *dst, uint64_t granule, const struct image_progress *p,
               struct err *err);

/* Write what the qcow2 image top holds itself, opened without its backing file, into base; then make it
 * durable. */
int image_commit(struct block *top, struct block *base, const struct image_progress *p, struct err *err);

/* Write into the draft one overlay over `below` (an absolute path) that holds what n overlays hold, the topmost first, each over the next one and the
 * last over `below`; none of these is opened. So it also reads as the topmost one where it stands on any of the others. Nobody may write to
 * them, which is the caller's care: no locks are taken. 0, the draft is the caller's still; or -errno with a sentence. */
int image_merge(struct image_draft *d, const char *const *layer, unsigned n, const char *below, struct err *err);

/* --- under a disk that is in use, all of whose images concerned are qcow2, of the same size and clusters --- */

/* Bring what the n overlays below top hold into top, from *at on (0, or where the last call came to), at most about `most` bytes of data; *at == size: all is
 * there. Beside requests. 0; -EINVAL: they are not such; or -errno. */
int image_pull(struct block *top, unsigned n, uint64_t *at, uint64_t most);
/* After that: top is durable, and names what the last of them stands on as its backing file. Beside requests. 0 or -errno. */
int image_pulled(struct block *top, unsigned n);
/* Take the n images below `above` out of the chain, and close them. No other call on the chain runs. */
void image_unlink(struct block *above, unsigned n);
/* In the place of the image number `at` below top (1: the next), and of n more below that: the one open as fd (taken over, also on failure) for
 * reading, which reads the same. No other call on the chain runs. 0, or -errno with a sentence and nothing has changed. */
int image_swap(struct block *top, unsigned at, unsigned n, int fd, const char *path, struct err *err);

#endif
