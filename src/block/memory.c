/* A read-only disk in vitro's own memory, such as the seed disk that --cloud-init makes. Nothing changes
 * while it is open, so it needs no lock. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "block/block.h"

struct memory {
    struct block block;
    uint8_t *data; /* owned */
};

static int memory_read(struct block *b, uint64_t off, void *buf, size_t len)
{
    memcpy(buf, container_of(b, struct memory, block)->data + off, len);
    return 0;
}

/* block.c lets none of these through for a disk that is read-only; a flush has nothing to do. */
static int memory_write(struct block *b, uint64_t off, const void *buf, size_t len) { return -EROFS; }

static int memory_flush(struct block *b) { return 0; }

static int memory_discard(struct block *b, uint64_t off, uint64_t len) { return -EROFS; }

static int memory_write_zeroes(struct block *b, uint64_t off, uint64_t len, bool unmap) { return -EROFS; }

static void memory_close(struct block *b)
{
    struct memory *m = container_of(b, struct memory, block);

    free(m->data);
    free(m);
}

static const struct block_ops memory_ops = {
    .format = "memory",
    .read = memory_read,
    .write = memory_write,
    .flush = memory_flush,
    .discard = memory_discard,
    .write_zeroes = memory_write_zeroes,
    .close = memory_close,
};

int block_memory_open(struct block **out, uint8_t *data, size_t size)
{
    struct memory *m = size && size % BLOCK_SECTOR == 0 ? calloc(1, sizeof(*m)) : NULL;

    *out = NULL;
    if (!m) {
        free(data);
        return size && size % BLOCK_SECTOR == 0 ? -ENOMEM : -EINVAL;
    }
    m->block = (struct block){ .ops = &memory_ops, .size = size, .ro = true };
    m->data = data;
    *out = &m->block;
    return 0;
}
