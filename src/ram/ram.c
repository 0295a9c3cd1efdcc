/* Guest-physical memory: slots of anonymous host memory (or of a file of memory, share.h), and one byte of flags a page.
 *
 * Slots are added while nothing runs; from then on everything is thread-safe without locks:
 * slots do not change, flags are atomics, and guest bytes may be changed by vCPUs while they are
 * copied, as on a real machine. Aligned accesses of 1, 2, 4 and 8 bytes are single loads and
 * stores, which is what ring indexes need (virtio 1.2, 2.7.13).
 */
#include "ram/ram.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "base/bits.h"
#include "base/map.h"
#include "ram/large.h"
#include "ram/lend.h"
#include "ram/move.h"
#include "ram/share.h"
#include "ram/still.h"
#include "ram/swap.h"

/* The part of an access that lies in one slot. */
struct ram_chunk {
    struct ram_slot *slot;
    uint64_t off; /* in the slot */
    uint64_t len;
};

/* What a write does to one page's bytes; src is NULL for a fill. */
struct ram_source {
    const uint8_t *src;
    uint8_t byte;
};

void ram_init(struct ram *r) { memset(r, 0, sizeof(*r)); }

static size_t ram_flags_size(const struct ram_slot *s) { return ALIGN_UP(s->size >> PAGE_SHIFT, PAGE_SIZE); }

void ram_fini(struct ram *r)
{
    unsigned i;

    ram_swap_destroy(r->swap);
    ram_large_stop(r);
    ram_still_fini(r);
    for (i = 0; i < r->nslots; i++) {
        munmap(r->slot[i].hva, r->slot[i].size);
        munmap((void *)r->slot[i].flags, ram_flags_size(&r->slot[i]));
        ram_large_fini(&r->slot[i]);
        ram_move_fini(&r->slot[i]);
    }
    ram_share_fini(r);
    ram_init(r);
}

/* The index at which [gpa, end) belongs, or -EEXIST. */
static int ram_place(const struct ram *r, uint64_t gpa, uint64_t end)
{
    unsigned i;

    for (i = 0; i < r->nslots; i++) {
        const struct ram_slot *s = &r->slot[i];

        if (end <= s->gpa)
            break;
        if (gpa < s->gpa + s->size)
            return -EEXIST;
    }
    return (int)i;
}

/* The slot's memory in the host's large pages, as far as the slot's addresses allow: fewer faults, and the host's TLB, which
 * translated code uses, reaches further. Advice: where the host does not follow it, nothing is lost. */
static void *ram_map_large(uint64_t gpa, size_t size)
{
    void *p = map_memory_at(size, gpa);

    if (p)
        madvise(p, size, MADV_HUGEPAGE);
    return p;
}

static int ram_map_slot(struct ram *r, struct ram_slot *s)
{
    s->hva = s->size < LARGE_PAGE ? map_memory(s->size) : ram_map_large(s->gpa, s->size);
    if (!s->hva)
        return -ENOMEM;
    s->flags = map_memory(ram_flags_size(s));
    if (s->flags && ram_share_slot(r, s) == 0)
        return 0;
    munmap(s->hva, s->size);
    if (s->flags)
        munmap((void *)s->flags, ram_flags_size(s));
    ram_large_fini(s);
    return -ENOMEM;
}

int ram_add_slot(struct ram *r, uint64_t gpa, uint64_t size, bool readonly)
{
    struct ram_slot s = { .gpa = gpa, .size = size, .readonly = readonly };
    uint64_t end;
    int i, err;

    if (PAGE_OFFSET(gpa) || PAGE_OFFSET(size) || size == 0 || __builtin_add_overflow(gpa, size, &end))
        return -EINVAL;
    i = ram_place(r, gpa, end);
    if (i < 0)
        return i;
    if (r->nslots == RAM_MAX_SLOTS)
        return -ENOSPC;
    err = ram_map_slot(r, &s);
    if (err < 0)
        return err;
    memmove(&r->slot[i + 1], &r->slot[i], (r->nslots - (unsigned)i) * sizeof(s));
    r->slot[i] = s;
    r->nslots++;
    return 0;
}

int ram_map_file(struct ram *r, unsigned slot, int fd, uint64_t off)
{
    struct ram_slot *s = &r->slot[slot];

    if (slot >= r->nslots || PAGE_OFFSET(off) || s->swap || s->shared)
        return -EINVAL;
    if (mmap(s->hva, s->size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, fd, (off_t)off) ==
        MAP_FAILED)
        return -errno;
    s->backed = true;
    return 0;
}

int ram_merge(struct ram *r)
{
    if (r->share_size)
        return -EINVAL;
    for (unsigned n = 0; n < r->nslots; n++) {
        if (madvise(r->slot[n].hva, r->slot[n].size, MADV_MERGEABLE) < 0)
            return -errno;
    }
    return 0;
}

bool ram_same_slots(const struct ram *a, const struct ram *b)
{
    bool same = a->nslots == b->nslots;

    for (unsigned i = 0; same && i < a->nslots; i++)
        same = a->slot[i].gpa == b->slot[i].gpa && a->slot[i].size == b->slot[i].size &&
               a->slot[i].readonly == b->slot[i].readonly;
    return same;
}

int ram_take(struct ram *to, struct ram *from)
{
    if (!ram_same_slots(to, from) || to->swap || to->share_size || from->moves)
        return -EINVAL;
    to->share_fd = from->share_fd;
    to->share_size = from->share_size;
    from->share_size = 0;
    while (from->nslots) {
        struct ram_slot *s = &from->slot[from->nslots - 1], *d = &to->slot[from->nslots - 1];

        if (mremap(s->hva, s->size, s->size, MREMAP_MAYMOVE | MREMAP_FIXED, d->hva) == MAP_FAILED)
            return -errno;
        d->backed = s->backed;
        d->swap = s->swap;
        d->swap_off = s->swap_off;
        d->shared = s->shared;
        d->share_fd = s->share_fd;
        d->share_off = s->share_off;
        d->touched = s->touched;
        munmap((void *)s->flags, ram_flags_size(s));
        from->nslots--; /* its addresses may be another's by now */
    }
    ram_swap_moved(to, from);
    return 0;
}

struct ram_slot *ram_slot_of(struct ram *r, uint64_t gpa)
{
    unsigned i;

    /* At most a handful of slots: a scan beats a search. */
    for (i = 0; i < r->nslots; i++) {
        if (gpa - r->slot[i].gpa < r->slot[i].size)
            return &r->slot[i];
    }
    return NULL;
}

void ram_set_device(struct ram *r, struct ram_slot *s)
{
    s->device = true;
    r->window.gpa = s->gpa;
    r->window.size = s->size;
    atomic_store(&r->window.at, RAM_UNSEEN);
}

/* RAM is in front of a device's memory. */
struct ram_slot *ram_slot_seen(struct ram *r, uint64_t *gpa)
{
    struct ram_slot *s = ram_slot_of(r, *gpa);
    uint64_t at;

    if (likely(s && !s->device))
        return s;
    at = atomic_load(&r->window.at);
    if (!r->window.size || at == RAM_UNSEEN || *gpa - at >= r->window.size)
        return NULL;
    *gpa = r->window.gpa + (*gpa - at);
    return ram_slot_of(r, *gpa);
}

/* The first part of [gpa, gpa+len); false outside RAM. */
static bool ram_chunk_at(struct ram *r, uint64_t gpa, uint64_t len, struct ram_chunk *c)
{
    struct ram_slot *s = ram_slot_of(r, gpa);

    if (!s)
        return false;
    c->slot = s;
    c->off = gpa - s->gpa;
    c->len = len < s->size - c->off ? len : s->size - c->off;
    return true;
}

/* True when every byte of [gpa, gpa+len) is in some slot. A range that wraps ends in a hole, since
 * no slot reaches the end of the address space. */
static bool ram_covers(struct ram *r, uint64_t gpa, uint64_t len)
{
    struct ram_chunk c;

    while (len > 0) {
        if (!ram_chunk_at(r, gpa, len, &c))
            return false;
        gpa += c.len;
        len -= c.len;
    }
    return true;
}

static bool ram_one_access(const void *hva, uint64_t len)
{
    return (len == 1 || len == 2 || len == 4 || len == 8) && ((uintptr_t)hva & (len - 1)) == 0;
}

static void ram_copy_in(void *hva, const uint8_t *src, uint64_t len)
{
    if (!ram_one_access(hva, len))
        memcpy(hva, src, len);
    else if (len == 1)
        __atomic_store_n((uint8_t *)hva, *src, __ATOMIC_RELAXED);
    else if (len == 2)
        __atomic_store_n((uint16_t *)hva, ld_le16(src), __ATOMIC_RELAXED);
    else if (len == 4)
        __atomic_store_n((uint32_t *)hva, ld_le32(src), __ATOMIC_RELAXED);
    else
        __atomic_store_n((uint64_t *)hva, ld_le64(src), __ATOMIC_RELAXED);
}

static void ram_copy_out(uint8_t *dst, const void *hva, uint64_t len)
{
    if (!ram_one_access(hva, len))
        memcpy(dst, hva, len);
    else if (len == 1)
        *dst = __atomic_load_n((const uint8_t *)hva, __ATOMIC_RELAXED);
    else if (len == 2)
        st_le16(dst, __atomic_load_n((const uint16_t *)hva, __ATOMIC_RELAXED));
    else if (len == 4)
        st_le32(dst, __atomic_load_n((const uint32_t *)hva, __ATOMIC_RELAXED));
    else
        st_le64(dst, __atomic_load_n((const uint64_t *)hva, __ATOMIC_RELAXED));
}

int ram_read(struct ram *r, uint64_t gpa, void *buf, uint64_t len)
{
    uint8_t *dst = buf;
    struct ram_chunk c;

    if (!ram_covers(r, gpa, len))
        return -EFAULT;
    for (; len > 0 && ram_chunk_at(r, gpa, len, &c); gpa += c.len, dst += c.len, len -= c.len)
        ram_copy_out(dst, c.slot->hva + c.off, c.len);
    return 0;
}

static void ram_tell_code(struct ram *r, const struct ram_slot *s, uint8_t flags, uint64_t off, uint64_t len)
{
    if ((flags & PAGE_CODE) && r->code_write)
        r->code_write(r->code_opaque, s->gpa + off, len);
}

/* Change bytes of one page. The engine drops its code before, as contracted, and once more after if
 * the page carries the flag then: it may have decoded the old bytes in between. The engine sets
 * the flag, then reads; we write, then look at the flag: one of us sees the other. */
static void ram_write_page(struct ram *r, struct ram_slot *s, uint64_t off, uint64_t len,
                           struct ram_source from)
{
    _Atomic uint8_t *flags = &s->flags[off >> PAGE_SHIFT];

    ram_tell_code(r, s, atomic_load(flags), off, len);
    ram_keep(r, s->gpa + off, len);
    if (from.src)
        ram_copy_in(s->hva + off, from.src, len);
    else
        memset(s->hva + off, from.byte, len);
    /* Read-modify-write of nothing: a full barrier between the bytes and both looks below. */
    ram_tell_code(r, s, atomic_fetch_or(flags, 0), off, len);
    /* After the bytes: a collector that clears the bit in between copies the new ones. */
    if (atomic_load(&r->dirty_log))
        atomic_fetch_or(flags, PAGE_DIRTY);
}

static void ram_write_chunk(struct ram *r, const struct ram_chunk *c, struct ram_source from)
{
    uint64_t off = c->off, end = c->off + c->len;

    while (off < end) {
        uint64_t page_end = PAGE_BASE(off) + PAGE_SIZE;
        uint64_t n = (end < page_end ? end : page_end) - off;

        ram_write_page(r, c->slot, off, n, from);
        off += n;
        if (from.src)
            from.src += n;
    }
}

static void ram_touch_all(struct ram *r, const struct ram_slot *s, uint64_t off, uint64_t end, bool wait)
{
    for (; off < end; off = ALIGN_UP(s->gpa + off + 1, LARGE_PAGE) - s->gpa)
        ram_touch(r, s, off, wait);
}

/* rom: also change read-only slots. That is for loaders, which have nothing else to do than to wait for large pages. */
static int ram_change(struct ram *r, uint64_t gpa, uint64_t len, struct ram_source from, bool rom)
{
    struct ram_chunk c;

    if (!ram_covers(r, gpa, len))
        return -EFAULT;
    ram_enter(r);
    for (; len > 0 && ram_chunk_at(r, gpa, len, &c); gpa += c.len, len -= c.len) {
        ram_touch_all(r, c.slot, c.off, c.off + c.len, rom);
        if (rom || !c.slot->readonly)
            ram_write_chunk(r, &c, from);
        if (from.src)
            from.src += c.len;
    }
    ram_leave(r);
    return 0;
}

int ram_write(struct ram *r, uint64_t gpa, const void *buf, uint64_t len)
{
    return ram_change(r, gpa, len, (struct ram_source){ .src = buf }, false);
}

int ram_fill(struct ram *r, uint64_t gpa, uint8_t byte, uint64_t len)
{
    return ram_change(r, gpa, len, (struct ram_source){ .byte = byte }, false);
}

int ram_load(struct ram *r, uint64_t gpa, const void *buf, uint64_t len)
{
    return ram_change(r, gpa, len, (struct ram_source){ .src = buf }, true);
}

static void ram_tell_code_pages(struct ram *r, const struct ram_slot *s, uint64_t off, uint64_t end)
{
    for (off = PAGE_BASE(off); off < end; off += PAGE_SIZE)
        ram_tell_code(r, s, atomic_load(&s->flags[off >> PAGE_SHIFT]), off, PAGE_SIZE);
}

/* As ram_write_page(), with the bytes changed by somebody else between these two. */
void *ram_lend(struct ram *r, uint64_t gpa, uint64_t len, uint64_t *n)
{
    struct ram_chunk c;

    if (!ram_chunk_at(r, gpa, len, &c) || c.slot->readonly)
        return NULL;
    ram_tell_code_pages(r, c.slot, c.off, c.off + c.len);
    ram_keep(r, gpa, c.len);
    ram_touch_all(r, c.slot, c.off, c.off + c.len, false);
    *n = c.len;
    return c.slot->hva + c.off;
}

void ram_lend_end(struct ram *r, uint64_t gpa, uint64_t len)
{
    struct ram_chunk c;

    atomic_thread_fence(memory_order_seq_cst);
    if (atomic_load(&r->dirty_log))
        ram_mark_dirty(r, gpa, len);
    for (; len > 0 && ram_chunk_at(r, gpa, len, &c); gpa += c.len, len -= c.len)
        ram_tell_code_pages(r, c.slot, c.off, c.off + c.len);
}

/* Dropping a private page of a file would bring the file's bytes back: memory of nobody takes its place, or zeroes if the
 * host has no room for another mapping. All of it is shared, or nothing. */
static int ram_drop_run(const struct ram *r, const struct ram_slot *s, uint64_t off, uint64_t len)
{
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE;

    if (ram_shared_at(s, off))
        return ram_share_drop(s, off, len);
    if (!s->backed)
        return madvise(s->hva + off, len, MADV_DONTNEED) < 0 ? -errno : 0;
    if (s->swap)
        ram_swap_zero(r->swap, s, off, len);
    else if (mmap(s->hva + off, len, PROT_READ | PROT_WRITE, flags, -1, 0) == MAP_FAILED)
        memset(s->hva + off, 0, len);
    return 0;
}

static int ram_drop(const struct ram *r, const struct ram_slot *s, uint64_t off, uint64_t len)
{
    int e = 0;

    for (uint64_t n; e == 0 && len > 0; off += n, len -= n) {
        n = ram_shared_like(s, off, len);
        e = ram_drop_run(r, s, off, n);
    }
    return e;
}

/* As ram_write_page(), for whole pages of one slot. */
static int ram_discard_pages(struct ram *r, struct ram_slot *s, uint64_t off, uint64_t end)
{
    int err;

    ram_tell_code_pages(r, s, off, end);
    ram_keep_runs(r, s, off, end);
    err = ram_drop(r, s, off, end - off);
    atomic_thread_fence(memory_order_seq_cst);
    ram_tell_code_pages(r, s, off, end);
    if (atomic_load(&r->dirty_log))
        ram_mark_dirty(r, s->gpa + off, end - off);
    return err;
}

int ram_discard(struct ram *r, uint64_t gpa, uint64_t len)
{
    struct ram_chunk c;
    int err = 0;

    if (!ram_covers(r, gpa, len))
        return -EFAULT;
    ram_enter(r);
    for (; len > 0 && ram_chunk_at(r, gpa, len, &c); gpa += c.len, len -= c.len) {
        uint64_t off = ALIGN_UP(c.off, PAGE_SIZE), end = PAGE_BASE(c.off + c.len);

        if (c.slot->readonly)
            err = -EACCES;
        else if (off < end && err == 0)
            err = ram_discard_pages(r, c.slot, off, end);
    }
    ram_leave(r);
    return err;
}

int ram_exchange(struct ram *r, uint64_t gpa, uint8_t value, uint8_t *old)
{
    struct ram_slot *s = ram_slot_of(r, gpa);
    uint64_t off = s ? gpa - s->gpa : 0;
    _Atomic uint8_t *flags;

    if (!s)
        return -EFAULT;
    if (s->readonly) {
        *old = __atomic_load_n(s->hva + off, __ATOMIC_RELAXED);
        return 0;
    }
    ram_enter(r);
    /* As ram_write_page() */
    flags = &s->flags[off >> PAGE_SHIFT];
    ram_tell_code(r, s, atomic_load(flags), off, 1);
    ram_keep(r, gpa, 1);
    *old = __atomic_exchange_n(s->hva + off, value, __ATOMIC_SEQ_CST);
    ram_tell_code(r, s, atomic_load(flags), off, 1);
    if (atomic_load(&r->dirty_log))
        atomic_fetch_or(flags, PAGE_DIRTY);
    ram_leave(r);
    return 0;
}

void *ram_borrow(struct ram *r, uint64_t gpa, uint64_t len)
{
    struct ram_slot *s = ram_slot_of(r, gpa);

    if (!s || range_outside(gpa - s->gpa, len, s->size))
        return NULL;
    return s->hva + (gpa - s->gpa);
}

_Atomic uint8_t *ram_page_flags(struct ram *r, uint64_t gpa)
{
    struct ram_slot *s = ram_slot_of(r, gpa);

    return s ? &s->flags[(gpa - s->gpa) >> PAGE_SHIFT] : NULL;
}

bool ram_stores_silent(struct ram *r, uint64_t gpa)
{
    uint8_t f = atomic_load_explicit(ram_page_flags(r, gpa), memory_order_relaxed);

    return !(f & PAGE_CODE) && (f & PAGE_DIRTY || !atomic_load_explicit(&r->dirty_log, memory_order_relaxed)) && !ram_must_keep(r, gpa);
}

void ram_mark_dirty(struct ram *r, uint64_t gpa, uint64_t len)
{
    struct ram_chunk c;
    uint64_t page;

    for (; len > 0 && ram_chunk_at(r, gpa, len, &c); gpa += c.len, len -= c.len) {
        for (page = c.off >> PAGE_SHIFT; page <= (c.off + c.len - 1) >> PAGE_SHIFT; page++)
            atomic_fetch_or(&c.slot->flags[page], PAGE_DIRTY);
    }
}

static void ram_clear_dirty(struct ram_slot *s)
{
    uint64_t page;

    for (page = 0; page < s->size >> PAGE_SHIFT; page++) {
        if (s->flags[page] & PAGE_DIRTY)
            atomic_fetch_and(&s->flags[page], (uint8_t)~PAGE_DIRTY);
    }
}

void ram_dirty_log(struct ram *r, bool on)
{
    unsigned i;

    for (i = 0; on && i < r->nslots; i++)
        ram_clear_dirty(&r->slot[i]);
    atomic_store(&r->dirty_log, on);
}

int64_t ram_dirty_collect(struct ram *r, unsigned slot, uint8_t *bitmap, size_t size)
{
    struct ram_slot *s;
    uint64_t page, pages;
    int64_t dirty = 0;

    if (slot >= r->nslots)
        return -EINVAL;
    s = &r->slot[slot];
    pages = s->size >> PAGE_SHIFT;
    if (size < (pages + 7) / 8)
        return -EINVAL;
    memset(bitmap, 0, size);
    for (page = 0; page < pages; page++) {
        if (!(s->flags[page] & PAGE_DIRTY))
            continue;
        atomic_fetch_and(&s->flags[page], (uint8_t)~PAGE_DIRTY);
        bitmap[page / 8] |= (uint8_t)(1u << (page % 8));
        dirty++;
    }
    return dirty;
}

uint64_t ram_total(const struct ram *r)
{
    uint64_t total = 0;
    unsigned i;

    for (i = 0; i < r->nslots; i++)
        total += r->slot[i].readonly ? 0 : r->slot[i].size;
    return total;
}
