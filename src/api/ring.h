/* The last of what a console showed: a ring in a file of the machine's folder, which outlives the machine.
 *
 * The machine writes through a mapping, so that output costs no system call and a kill loses nothing; others read the
 * file. Positions count all bytes that were ever written. Writers and readers inside the machine hold the device lock.
 */
#ifndef VITRO_API_RING_H
#define VITRO_API_RING_H

#include <stddef.h>
#include <stdint.h>

#define RING_SIZE (512u << 10)

struct ring_head {
    char magic[8];
    uint64_t size, written; /* of the data behind the head, at RING_DATA */
};

#define RING_DATA 4096

struct ring {
    struct ring_head *head; /* mapped */
    uint8_t *data;
};

/* A new ring in an empty file opened for reading and writing, or in memory if fd is -1. 0 or -errno. */
int ring_init(struct ring *r, int fd);
void ring_fini(struct ring *r);

void ring_write(struct ring *r, const uint8_t *data, size_t len);
/* The oldest position that is still there. */
uint64_t ring_oldest(const struct ring *r);
/* What follows *pos, at most len bytes; moves *pos, first to the oldest if that is gone. Returns how many. */
size_t ring_read(const struct ring *r, uint64_t *pos, void *buf, size_t len);

/* From outside: what follows *pos in the file fd, as above. -EINVAL: this is no ring. */
long ring_peek(int fd, uint64_t *pos, void *buf, size_t len);

#endif
