/* Guest memory in a file of memory (share.h): one file for all slots of a machine, which grows with them and never shrinks.
 *
 * Threads: as ram.c.
 */
#include "ram/share.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/map.h"
#include "ram/large.h"

void ram_share(struct ram *r, bool on) { r->share = on; }

int ram_shared_fd(const struct ram_slot *s, uint64_t *off)
{
    *off = s->share_off;
    return ram_shared_any(s) ? s->share_fd : -1;
}

/* A file of memory also counts against the limit for files, and going over that is a signal. */
static bool share_allowed(uint64_t size)
{
    struct rlimit max;

    return getrlimit(RLIMIT_FSIZE, &max) == 0 && (max.rlim_cur == RLIM_INFINITY || size <= max.rlim_cur);
}

/* Sealed, so that nobody who has the descriptor can take pages away from under the others. */
static bool share_open(struct ram *r)
{
    if (r->share_size)
        return true;
    r->share_fd = memfd_create("ram", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (r->share_fd >= 0 && fcntl(r->share_fd, F_ADD_SEALS, F_SEAL_SHRINK) < 0) {
        close(r->share_fd);
        r->share_fd = -1;
    }
    return r->share_fd >= 0;
}

bool ram_share_place(struct ram *r, struct ram_slot *s)
{
    uint64_t off = r->share_size + ((s->gpa - r->share_size) & (LARGE_PAGE - 1)), size = off + s->size;

    if (!share_allowed(size) || !share_open(r))
        return false;
    if (ftruncate(r->share_fd, (off_t)size) < 0) {
        if (!r->share_size)
            close(r->share_fd);
        return false;
    }
    r->share_size = size;
    s->share_fd = r->share_fd;
    s->share_off = off;
    return true;
}

int ram_share_slot(struct ram *r, struct ram_slot *s)
{
    if (!r->share || s->readonly || !ram_share_place(r, s))
        return 0;
    s->shared = true;
    ram_large_slot(s);
    return mmap(s->hva, s->size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, r->share_fd, (off_t)s->share_off) == MAP_FAILED ? -ENOMEM : 0;
}

uint64_t ram_shared_run(const struct ram_slot *s, uint64_t off, uint64_t end, uint64_t *stop)
{
    off_t from = lseek(s->share_fd, (off_t)(s->share_off + off), SEEK_DATA), to;

    *stop = end;
    if (from < 0) /* ENXIO: nothing up to the file's end */
        return errno == ENXIO ? end : off;
    if ((uint64_t)from - s->share_off >= end)
        return end;
    to = lseek(s->share_fd, from, SEEK_HOLE);
    if (to > from && (uint64_t)to - s->share_off < end)
        *stop = (uint64_t)to - s->share_off;
    return (uint64_t)from - s->share_off;
}

static int share_read(const struct ram_slot *s, uint64_t off, uint64_t len, uint8_t *buf)
{
    for (uint64_t done = 0; done < len;) {
        ssize_t n = pread(s->share_fd, buf + done, len - done, (off_t)(s->share_off + off + done));

        if (n < 0 && errno != EINTR)
            return -errno;
        if (n == 0)
            return -EIO;
        done += n > 0 ? (uint64_t)n : 0;
    }
    return 0;
}

/* Through the descriptor: reading holes through the mapping would fill them. */
int ram_shared_read(const struct ram_slot *s, uint64_t off, uint64_t len, uint8_t *buf)
{
    int r = 0;

    for (uint64_t at = 0, n; r == 0 && at < len; at += n) {
        n = ram_shared_like(s, off + at, len - at);
        if (ram_shared_at(s, off + at))
            r = share_read(s, off + at, n, buf + at);
        else
            memcpy(buf + at, s->hva + off + at, n);
    }
    return r;
}

uint64_t ram_shared_like(const struct ram_slot *s, uint64_t off, uint64_t len)
{
    uint64_t piece = 1ULL << s->piece, n = piece - (off & (piece - 1));

    if (!s->moved)
        return len;
    while (n < len && ram_shared_at(s, off + n) == ram_shared_at(s, off))
        n += piece;
    return n < len ? n : len;
}

uint64_t ram_shared_used(const struct ram *r)
{
    struct stat st;

    return r->share_size && fstat(r->share_fd, &st) == 0 ? (uint64_t)st.st_blocks * 512 : 0;
}

/* The host takes the pages out of all mappings, also those of other processes. */
int ram_share_drop(const struct ram_slot *s, uint64_t off, uint64_t len)
{
    if (madvise(s->hva + off, len, MADV_REMOVE) < 0)
        return -errno;
    ram_untouch(s, off, len);
    return 0;
}

void ram_share_fini(struct ram *r)
{
    if (r->share_size)
        close(r->share_fd);
}
