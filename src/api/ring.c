/* The console's ring. See ring.h. */
#include "api/ring.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static const char ring_magic[8] = "vitroRG1";

int ring_init(struct ring *r, int fd)
{
    const size_t len = RING_DATA + RING_SIZE;
    void *map = MAP_FAILED;

    memset(r, 0, sizeof(*r));
    /* The room is taken now: a full file system would be a SIGBUS later. */
    if (fd >= 0 && posix_fallocate(fd, 0, (off_t)len) == 0)
        map = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED)
        map = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED)
        return -errno;
    r->head = map;
    r->data = (uint8_t *)map + RING_DATA;
    memcpy(r->head->magic, ring_magic, sizeof(ring_magic));
    r->head->size = RING_SIZE;
    return 0;
}

void ring_fini(struct ring *r)
{
    if (r->head)
        munmap(r->head, RING_DATA + RING_SIZE);
    memset(r, 0, sizeof(*r));
}

void ring_write(struct ring *r, const uint8_t *data, size_t len)
{
    uint64_t at = r->head->written;

    for (size_t done = 0; done < len;) {
        size_t offset = (at + done) % RING_SIZE, n = RING_SIZE - offset;

        if (n > len - done)
            n = len - done;
        memcpy(r->data + offset, data + done, n);
        done += n;
    }
    __atomic_store_n(&r->head->written, at + len, __ATOMIC_RELEASE);
}

uint64_t ring_oldest(const struct ring *r)
{
    return r->head->written > RING_SIZE ? r->head->written - RING_SIZE : 0;
}

size_t ring_read(const struct ring *r, uint64_t *pos, void *buf, size_t len)
{
    size_t done = 0;

    if (*pos < ring_oldest(r) || *pos > r->head->written)
        *pos = ring_oldest(r);
    while (done < len && *pos < r->head->written) {
        size_t offset = *pos % RING_SIZE, n = RING_SIZE - offset;

        if (n > len - done)
            n = len - done;
        if (n > r->head->written - *pos)
            n = (size_t)(r->head->written - *pos);
        memcpy((uint8_t *)buf + done, r->data + offset, n);
        *pos += n;
        done += n;
    }
    return done;
}

long ring_peek(int fd, uint64_t *pos, void *buf, size_t len)
{
    struct ring_head h;
    size_t offset, n;
    ssize_t got;

    if (pread(fd, &h, sizeof(h), 0) != sizeof(h) || memcmp(h.magic, ring_magic, sizeof(ring_magic)) || !h.size ||
        h.size > RING_SIZE)
        return -EINVAL;
    if (*pos > h.written || h.written - *pos > h.size)
        *pos = h.written > h.size ? h.written - h.size : 0;
    offset = *pos % h.size;
    n = h.size - offset;
    if (n > len)
        n = len;
    if (n > h.written - *pos)
        n = (size_t)(h.written - *pos);
    got = n ? pread(fd, buf, n, RING_DATA + (off_t)offset) : 0;
    if (got < 0)
        return -errno;
    *pos += (uint64_t)got;
    return got;
}
