/* Keeping pages for a child that reads them (still.h).
 *
 * Threads: writers on any, the child's readers on any of its own; no locks, but a writer waits for the one that copies the page, and so does the child.
 */
#include "ram/still.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/bits.h"
#include "ram/share.h"

/* A page's mark. Whoever moves it from FREE does something; nobody moves it on from the last three. */
enum {
    STILL_FREE,
    STILL_BUSY, /* being copied */
    STILL_KEPT, /* its copy is in the area */
    STILL_ZERO, /* it was all zeroes: there is no copy */
    STILL_READ, /* the child has it */
};

/* Of each slot of which something may be shared; mapped from the first still to the end, since writers may be on their way into it at any time. */
struct ram_still {
    struct still_slot {
        _Atomic uint8_t *mark;
        uint8_t *copy;
    } slot[RAM_MAX_SLOTS];
};

static size_t still_marks(const struct ram_slot *s) { return ALIGN_UP(s->size >> PAGE_SHIFT, PAGE_SIZE); }

static void *still_map(size_t size)
{
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    return p == MAP_FAILED ? NULL : p;
}

void ram_still_fini(struct ram *r)
{
    for (unsigned n = 0; r->still && n < r->nslots; n++) {
        struct still_slot *t = &r->still->slot[n];

        if (t->mark)
            munmap((void *)t->mark, still_marks(&r->slot[n]));
        if (t->copy)
            munmap(t->copy, r->slot[n].size);
    }
    free(r->still);
    r->still = NULL;
}

static int still_make(struct ram *r)
{
    r->still = calloc(1, sizeof(*r->still));
    for (unsigned n = 0; r->still && n < r->nslots; n++) {
        struct still_slot *t = &r->still->slot[n];

        if (!ram_shared_any(&r->slot[n]))
            continue;
        t->mark = still_map(still_marks(&r->slot[n]));
        t->copy = still_map(r->slot[n].size);
        if (!t->mark || !t->copy)
            ram_still_fini(r);
    }
    return r->still ? 0 : -ENOMEM;
}

/* All pages are free, and no copies take memory. */
static void still_sweep(struct ram *r)
{
    for (unsigned n = 0; n < r->nslots; n++) {
        struct still_slot *t = &r->still->slot[n];

        if (!t->mark)
            continue;
        if (madvise((void *)t->mark, still_marks(&r->slot[n]), MADV_REMOVE) < 0)
            memset((void *)t->mark, 0, still_marks(&r->slot[n]));
        madvise(t->copy, r->slot[n].size, MADV_REMOVE);
    }
}

int ram_still_begin(struct ram *r)
{
    if (!r->share_size || (r->moves && !r->moved))
        return 1;
    if (ram_keeping(r))
        return -EBUSY;
    if (!r->still && still_make(r) < 0)
        return -ENOMEM;
    still_sweep(r);
    atomic_store(&r->keeping, true);
    return 0;
}

void ram_still_end(struct ram *r)
{
    if (!ram_keeping(r))
        return;
    atomic_store(&r->keeping, false);
    still_sweep(r);
}

/* ---- writers ---- */

/* Until a copy that is being made is there. The one who makes it waits for nobody. */
static uint8_t still_wait(const _Atomic uint8_t *mark)
{
    uint8_t m;

    for (unsigned n = 0; (m = atomic_load(mark)) == STILL_BUSY; n++) {
        if (n < 64)
            __builtin_ia32_pause();
        else
            sched_yield();
    }
    return m;
}

static void still_keep_page(const struct ram *r, const struct ram_slot *s, uint64_t page)
{
    const struct still_slot *t = &r->still->slot[s - r->slot];
    const uint8_t *now = s->hva + (page << PAGE_SHIFT);
    uint8_t free = STILL_FREE;
    bool zero;

    if (!atomic_compare_exchange_strong(&t->mark[page], &free, STILL_BUSY)) {
        still_wait(&t->mark[page]);
        return;
    }
    zero = mem_is_zero(now, PAGE_SIZE);
    if (!zero)
        memcpy(t->copy + (page << PAGE_SHIFT), now, PAGE_SIZE);
    atomic_store(&t->mark[page], zero ? STILL_ZERO : STILL_KEPT);
}

static bool still_is_kept(const struct ram *r, const struct ram_slot *s, uint64_t page)
{
    return !ram_shared_at(s, page << PAGE_SHIFT) || atomic_load_explicit(&r->still->slot[s - r->slot].mark[page], memory_order_acquire) > STILL_BUSY;
}

static void still_keep(struct ram *r, const struct ram_slot *s, uint64_t off, uint64_t end)
{
    for (uint64_t page = off >> PAGE_SHIFT; page << PAGE_SHIFT < end; page++) {
        if (!still_is_kept(r, s, page))
            still_keep_page(r, s, page);
    }
}

bool ram_must_keep(const struct ram *r, uint64_t gpa)
{
    const struct ram_slot *s = ram_keeping(r) ? ram_slot_of((struct ram *)(uintptr_t)r, gpa) : NULL;

    return s && !still_is_kept(r, s, (gpa - s->gpa) >> PAGE_SHIFT);
}

void ram_keep_all(struct ram *r, uint64_t gpa, uint64_t len)
{
    while (len > 0 && ram_keeping(r)) {
        const struct ram_slot *s = ram_slot_of(r, gpa);
        uint64_t n = s ? s->gpa + s->size - gpa : len;

        n = n < len ? n : len;
        if (s)
            still_keep(r, s, gpa - s->gpa, gpa - s->gpa + n);
        gpa += n;
        len -= n;
    }
}

void ram_keep_runs(struct ram *r, const struct ram_slot *s, uint64_t off, uint64_t end)
{
    for (uint64_t next, stop; ram_keeping(r) && off < end; off = next) {
        next = off + ram_shared_like(s, off, end - off);
        for (; off < next && ram_shared_at(s, off); off = stop) {
            off = ram_shared_run(s, off, next, &stop);
            still_keep(r, s, off, off < next ? stop : off);
        }
    }
}

/* ---- the child ---- */

/* What the mark says about a page that has been read: the right bytes are in buf afterwards. True: they were in the area. */
static bool still_settle(const struct still_slot *t, uint64_t page, uint8_t *buf)
{
    uint8_t m = STILL_FREE;

    if (atomic_compare_exchange_strong(&t->mark[page], &m, STILL_READ))
        return false;
    m = still_wait(&t->mark[page]);
    if (m == STILL_ZERO)
        memset(buf, 0, PAGE_SIZE);
    else if (m == STILL_KEPT)
        memcpy(buf, t->copy + (page << PAGE_SHIFT), PAGE_SIZE);
    return m == STILL_KEPT;
}

/* Copies are not needed once they have been read; nobody makes more of them here. */
static void still_settle_all(const struct still_slot *t, uint64_t off, uint64_t len, uint8_t *buf)
{
    bool kept = false;

    for (uint64_t at = 0; at < len; at += PAGE_SIZE)
        kept |= still_settle(t, (off + at) >> PAGE_SHIFT, buf + at);
    if (kept)
        madvise(t->copy + off, len, MADV_REMOVE);
}

int ram_still_read(const struct ram *r, const struct ram_slot *s, uint64_t off, uint64_t len, uint8_t *buf)
{
    int e = ram_shared_read(s, off, len, buf);

    if (e < 0)
        return e;
    atomic_thread_fence(memory_order_seq_cst); /* the pages have been read, in whatever way the host's kernel does it */
    for (uint64_t at = 0, n; at < len; at += n) {
        n = ram_shared_like(s, off + at, len - at);
        if (ram_shared_at(s, off + at))
            still_settle_all(&r->still->slot[s - r->slot], off + at, n, buf + at);
    }
    return 0;
}
