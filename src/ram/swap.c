/* The monitor's own swap file (swap.h): a clock with two hands.
 *
 * When more than the limit is in memory, both hands go round the file in steps of a piece. The front hand takes a piece out of the
 * page tables (madvise(2), MADV_DONTNEED, which keeps the bytes of a shared mapping) and has what is new in it written. The back
 * hand follows some pieces later: what was touched again meanwhile is mapped again, and stays; of the rest the host forgets its copy
 * (posix_fadvise(2), POSIX_FADV_DONTNEED, which leaves alone what is mapped or not yet written). So nothing is ever copied, locked or
 * compared here, and a wrong guess costs a fault, never a byte.
 *
 * Bytes are never dropped that were not written: if the file cannot be written, the hands stand still for good.
 *
 * Threads: its own, which shares nothing but two numbers and the stop flag with others; ram_swap_zero() on any.
 */
#include "ram/swap.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/log.h"
#include "base/map.h"
#include "base/thread.h"

#define SWAP_PIECE   (1UL << 20)
#define SWAP_PAGES   (SWAP_PIECE / PAGE_SIZE)
#define SWAP_BEHIND  16       /* pieces between the hands, at most */
#define SWAP_TICK_NS 20000000 /* between two looks, at least, */
#define SWAP_REST    49       /* and so many times the CPU time that the last one took, so that it is a fiftieth of a CPU, */
#define SWAP_RESTS   3        /* but no more looks than this are left out; none as long as there is much to drop */

enum page_at { NOWHERE, CORE, FILE_ONLY }; /* a page, at the last look: has never been in memory; is; was once */

struct ram_swap {
    const struct ram *ram; /* whose slots lie on the file, one behind the other */
    int fd;
    uint64_t size, limit, pieces;
    uint64_t hand;  /* piece that the front hand is at */
    uint64_t behind;
    uint8_t *page;  /* enum page_at, one byte a page of the file; the thread's */
    uint64_t out;   /* how many are FILE_ONLY; the thread's */
    bool failed;    /* it could not be written */
    _Atomic uint64_t swapped;
    _Atomic bool stop;
    bool runs;
    pthread_t thread;
};

/* What of a slot lies in piece n of the file. */
struct swap_part {
    uint8_t *hva;
    uint64_t off, len; /* in the file */
};

static uint64_t swap_size(const struct ram *r)
{
    uint64_t size = 0;

    for (unsigned n = 0; n < r->nslots; n++)
        size += r->slot[n].swap ? r->slot[n].size : 0;
    return size;
}

/* The part of piece n that begins at `off` or behind it; false: there is none. Pieces are the file's, and may hold ends of two slots. */
static bool swap_part_at(const struct ram_swap *sw, uint64_t n, uint64_t off, struct swap_part *p)
{
    uint64_t end = (n + 1) * SWAP_PIECE;

    for (unsigned i = 0; i < sw->ram->nslots; i++) {
        const struct ram_slot *s = &sw->ram->slot[i];

        if (!s->swap || off < s->swap_off || off >= s->swap_off + s->size || off >= end)
            continue;
        p->hva = s->hva + (off - s->swap_off);
        p->off = off;
        p->len = (end < s->swap_off + s->size ? end : s->swap_off + s->size) - off;
        return true;
    }
    return false;
}

/* Note which pages of a piece are in memory; returns how many are. */
static uint64_t swap_look(struct ram_swap *sw, uint64_t n)
{
    unsigned char in[SWAP_PAGES];
    struct swap_part p;
    uint64_t count = 0;

    for (uint64_t off = n * SWAP_PIECE; swap_part_at(sw, n, off, &p); off += p.len) {
        uint8_t *page = sw->page + p.off / PAGE_SIZE;

        if (mincore(p.hva, p.len, in) < 0)
            continue;
        for (uint64_t k = 0; k < p.len / PAGE_SIZE; k++) {
            uint8_t now = in[k] & 1 ? CORE : page[k] ? FILE_ONLY : NOWHERE;

            sw->out += (now == FILE_ONLY) - (page[k] == FILE_ONLY);
            page[k] = now;
            count += in[k] & 1;
        }
    }
    return count;
}

static void swap_front(struct ram_swap *sw, uint64_t n)
{
    struct swap_part p;

    for (uint64_t off = n * SWAP_PIECE; swap_part_at(sw, n, off, &p); off += p.len)
        madvise(p.hva, p.len, MADV_DONTNEED);
    if (sync_file_range(sw->fd, (off_t)(n * SWAP_PIECE), SWAP_PIECE, SYNC_FILE_RANGE_WRITE) < 0)
        sw->failed = true;
}

/* Returns how many pages are gone from memory. */
static uint64_t swap_back(struct ram_swap *sw, uint64_t n)
{
    const unsigned wait = SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER;
    uint64_t before = swap_look(sw, n), after;

    if (!before)
        return 0;
    if (sync_file_range(sw->fd, (off_t)(n * SWAP_PIECE), SWAP_PIECE, wait) < 0) {
        sw->failed = true;
        return 0;
    }
    posix_fadvise(sw->fd, (off_t)(n * SWAP_PIECE), SWAP_PIECE, POSIX_FADV_DONTNEED);
    after = swap_look(sw, n);
    return before > after ? before - after : 0;
}

/* Once round at most. False: it was for little. */
static bool swap_sweep(struct ram_swap *sw, uint64_t over)
{
    uint64_t gone = 0;

    for (uint64_t k = 0; k < sw->pieces + sw->behind && gone < over && !sw->failed && !atomic_load(&sw->stop); k++) {
        if (swap_look(sw, sw->hand))
            swap_front(sw, sw->hand);
        if (sw->failed)
            break;
        gone += swap_back(sw, (sw->hand + sw->pieces - sw->behind) % sw->pieces);
        sw->hand = (sw->hand + 1) % sw->pieces;
    }
    if (sw->failed)
        log_msg(LOG_ERROR, "the swap file cannot be written: the guest's memory stays in the host's from now on");
    return gone >= over / 8;
}

/* True: much was dropped, and there may be more before long. */
static bool swap_tick(struct ram_swap *sw)
{
    uint64_t core = 0;
    bool busy = false;

    for (uint64_t n = 0; n < sw->pieces && !atomic_load(&sw->stop); n++)
        core += swap_look(sw, n) * PAGE_SIZE;
    if (sw->limit && core > sw->limit && !sw->failed)
        busy = swap_sweep(sw, (core - sw->limit + sw->limit / 16) / PAGE_SIZE);
    atomic_store(&sw->swapped, sw->out * PAGE_SIZE);
    return busy;
}

static void *swap_main(void *opaque)
{
    const struct timespec tick = { .tv_nsec = SWAP_TICK_NS };
    struct ram_swap *sw = opaque;

    while (!atomic_load(&sw->stop)) {
        uint64_t start = clock_host_ns(CLOCK_THREAD_CPUTIME_ID), ticks = 1;

        if (!swap_tick(sw))
            ticks += (clock_host_ns(CLOCK_THREAD_CPUTIME_ID) - start) * SWAP_REST / SWAP_TICK_NS;
        if (ticks > SWAP_RESTS)
            ticks = SWAP_RESTS;
        for (; ticks && !atomic_load(&sw->stop); ticks--)
            nanosleep(&tick, NULL);
    }
    return NULL;
}

int ram_swap_start(struct ram *r)
{
    int e = r->swap ? thread_start(&r->swap->thread, GUARD_BLOCK, swap_main, r->swap) : 0;

    if (r->swap)
        r->swap->runs = e == 0;
    return e;
}

uint64_t ram_swapped(const struct ram *r) { return r->swap ? atomic_load(&r->swap->swapped) : 0; }

/* Not a hole: the room stays the file's, so that writing to it later cannot fail for want of it (SIGBUS). */
void ram_swap_zero(struct ram_swap *sw, const struct ram_slot *s, uint64_t off, uint64_t len)
{
    if (fallocate(sw->fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, (off_t)(s->swap_off + off), (off_t)len) < 0)
        memset(s->hva + off, 0, len);
}

void ram_swap_destroy(struct ram_swap *sw)
{
    if (!sw)
        return;
    atomic_store(&sw->stop, true);
    if (sw->runs)
        pthread_join(sw->thread, NULL);
    if (sw->fd >= 0)
        close(sw->fd);
    if (sw->page)
        munmap(sw->page, sw->size / PAGE_SIZE);
    free(sw);
}

void ram_swap_moved(struct ram *to, struct ram *from)
{
    to->swap = from->swap;
    from->swap = NULL;
    if (to->swap)
        to->swap->ram = to;
}

/* A file without a name, all of whose bytes have their place. */
static int swap_open(const char *path, uint64_t size, struct err *err)
{
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600), r;

    if (fd < 0 && errno == EEXIST)
        return err_set(err, EEXIST, "swap '%s' is there already: name a file that vitro may make", path);
    if (fd < 0)
        return err_set(err, errno, "swap '%s' cannot be made: %s", path, strerror(errno));
    unlink(path);
    do
        r = fallocate(fd, 0, 0, (off_t)size) < 0 ? -errno : 0;
    while (r == -EINTR);
    if (r == 0)
        return fd;
    close(fd);
    return err_set(err, -r, "swap '%s': the file system does not give it %llu MiB: %s", path, (unsigned long long)(size >> 20), strerror(-r));
}

static int swap_map(struct ram *r, int fd)
{
    for (unsigned n = 0; n < r->nslots; n++) {
        struct ram_slot *s = &r->slot[n];

        if (s->swap && mmap(s->hva, s->size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, (off_t)s->swap_off) == MAP_FAILED)
            return -errno;
    }
    return 0;
}

static void swap_choose(struct ram *r)
{
    uint64_t off = 0;

    for (unsigned n = 0; n < r->nslots; n++) {
        r->slot[n].swap = r->slot[n].backed = !r->slot[n].readonly;
        r->slot[n].swap_off = off;
        off += r->slot[n].swap ? r->slot[n].size : 0;
    }
}

int ram_swap_create(struct ram *r, const char *path, uint64_t limit, struct err *err)
{
    struct ram_swap *sw = calloc(1, sizeof(*sw));
    int e = 0;

    if (!sw)
        return err_set(err, ENOMEM, "out of memory");
    if (r->share_size) {
        free(sw);
        return err_set(err, EINVAL, "memory that is shared with other processes cannot lie on a swap file");
    }
    swap_choose(r);
    sw->ram = r;
    sw->limit = limit;
    sw->size = swap_size(r);
    sw->pieces = (sw->size + SWAP_PIECE - 1) / SWAP_PIECE;
    sw->behind = sw->pieces / 2 < SWAP_BEHIND ? sw->pieces / 2 : SWAP_BEHIND;
    sw->page = map_memory(sw->size / PAGE_SIZE);
    sw->fd = swap_open(path, sw->size, err);
    if (sw->fd < 0)
        e = sw->fd;
    else if (!sw->page || (e = swap_map(r, sw->fd)) < 0)
        e = err_set(err, ENOMEM, "swap '%s' cannot be mapped", path);
    r->swap = sw;
    if (e == 0)
        return 0;
    for (unsigned n = 0; n < r->nslots; n++)
        r->slot[n].swap = r->slot[n].backed = false;
    ram_swap_destroy(sw);
    r->swap = NULL;
    return e;
}
