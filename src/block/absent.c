/* A disk whose size is known, but which is not there yet: a machine is built with it and gets the real one before it runs. Everything
 * fails with -EIO. Any thread; no state. */
#include <errno.h>
#include <stdlib.h>

#include "block/block.h"

static int absent_read(struct block *b, uint64_t off, void *buf, size_t len) { return -EIO; }

static int absent_write(struct block *b, uint64_t off, const void *buf, size_t len) { return -EIO; }

static int absent_flush(struct block *b) { return 0; }

static int absent_discard(struct block *b, uint64_t off, uint64_t len) { return -EIO; }

static int absent_write_zeroes(struct block *b, uint64_t off, uint64_t len, bool unmap) { return -EIO; }

static void absent_close(struct block *b) { free(b); }

static const struct block_ops absent_ops = {
    .format = "absent",
    .read = absent_read,
    .write = absent_write,
    .flush = absent_flush,
    .discard = absent_discard,
    .write_zeroes = absent_write_zeroes,
    .close = absent_close,
};

int block_absent_open(struct block **out, uint64_t size, bool ro)
{
    *out = calloc(1, sizeof(**out));
    if (!*out)
        return -ENOMEM;
    **out = (struct block){ .ops = &absent_ops, .size = size, .ro = ro };
    return 0;
}

bool block_is_absent(const struct block *b) { return b->ops == &absent_ops; }
