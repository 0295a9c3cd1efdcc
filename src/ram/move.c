/* Moving pieces of a file's memory into the machine's file of memory (move.h).
 *
 * Threads: ram_move_init() before any other; ram_move() on a vCPU's while the others stand, which is why `moved` needs no atomics: who reads it is a vCPU, or stands
 * for the machine while those do, or is a child process. ram_enter(): any.
 */
#include "ram/move.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/map.h"
#include "ram/share.h"

#define MOVING     (1u << 31) /* in ram.writers: a piece is being moved, they wait */
#define MOVE_TRIES 16

static size_t move_bytes(const struct ram_slot *s) { return ALIGN_UP(ALIGN_UP(s->size, 1ULL << s->piece) >> s->piece, PAGE_SIZE); }

static bool move_suits(const struct ram_slot *s) { return s->backed && !s->swap && !s->readonly; }

void ram_move_init(struct ram *r)
{
    unsigned piece = MOVE_PIECE;
    uint64_t total = 0;

    for (unsigned n = 0; n < r->nslots; n++)
        total += move_suits(&r->slot[n]) ? r->slot[n].size : 0;
    while (total >> piece > MOVE_PIECES)
        piece++;
    for (unsigned n = 0; n < r->nslots; n++) {
        struct ram_slot *s = &r->slot[n];

        s->piece = piece;
        if (move_suits(s) && ram_share_place(r, s))
            s->moved = map_memory(move_bytes(s));
        r->moves |= s->moved != NULL;
    }
}

void ram_move_fini(struct ram_slot *s)
{
    if (s->moved)
        munmap(s->moved, move_bytes(s));
}

void ram_enter_moving(struct ram *r)
{
    while (atomic_fetch_add(&r->writers, 1) & MOVING) {
        atomic_fetch_sub(&r->writers, 1);
        sched_yield();
    }
}

static bool move_alone(struct ram *r)
{
    for (unsigned n = 0; n < MOVE_TRIES; n++) {
        uint32_t nobody = 0;

        if (atomic_compare_exchange_strong(&r->writers, &nobody, MOVING))
            return true;
        sched_yield();
    }
    return false;
}

static int move_write(const struct ram_slot *s, uint64_t off, uint64_t end)
{
    while (off < end) {
        ssize_t n = pwrite(s->share_fd, s->hva + off, end - off, (off_t)(s->share_off + off));

        if (n < 0 && errno != EINTR)
            return -errno;
        off += n > 0 ? (uint64_t)n : 0;
    }
    return 0;
}

/* The bytes of [off, end) to the file, which has none there; pages of zeroes need no memory. */
static int move_copy(const struct ram_slot *s, uint64_t off, uint64_t end)
{
    uint64_t from = off;
    int r = 0;

    for (; r == 0 && off < end; off += PAGE_SIZE) {
        if (!mem_is_zero(s->hva + off, PAGE_SIZE))
            continue;
        r = move_write(s, from, off);
        from = off + PAGE_SIZE;
    }
    return r < 0 ? r : move_write(s, from, end);
}

static int move_piece(struct ram_slot *s, uint64_t off, uint64_t end)
{
    int r = move_copy(s, off, end);

    if (r == 0 && mmap(s->hva + off, end - off, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, s->share_fd, (off_t)(s->share_off + off)) == MAP_FAILED)
        r = -errno;
    if (r < 0)
        fallocate(s->share_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)(s->share_off + off), (off_t)(end - off));
    return r;
}

int ram_move(struct ram *r, struct ram_slot *s, uint64_t off)
{
    uint64_t size = 1ULL << s->piece, from = off & ~(size - 1), end = from + size < s->size ? from + size : s->size;
    int e;

    if (!move_alone(r))
        return -EBUSY;
    e = move_piece(s, from, end);
    if (e == 0) {
        s->moved[off >> s->piece] = 1;
        r->moved++;
    }
    atomic_fetch_and(&r->writers, ~MOVING);
    return e;
}
