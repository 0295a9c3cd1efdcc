/* Guest-physical memory: RAM and ROM slots, bounds-checked access, dirty log, code-page flags.
 *
 * Everything that touches guest memory from outside a vCPU goes through ram_read()/ram_write().
 * Engines may own a mapping: ram_borrow() gives a host pointer that stays valid as long as the
 * slot exists; engines that write through it must honour the page flags (see ram_page_flags()).
 *
 * Threads: slots are added before any vCPU runs; afterwards all calls are thread-safe.
 */
#ifndef VITRO_RAM_RAM_H
#define VITRO_RAM_RAM_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PAGE_SHIFT 12
#define PAGE_SIZE 4096UL
#define PAGE_OFFSET(a) ((a)&0xfffUL)
#define PAGE_BASE(a) ((a) & ~0xfffUL)
#define PAGE_REST(a) (PAGE_SIZE - PAGE_OFFSET(a)) /* bytes from a to the end of its page */

#define RAM_MAX_SLOTS 16

/* Per-page flags, one atomic byte a page. */
enum {
    PAGE_CODE = 1,  /* an engine holds code decoded or translated from this page */
    PAGE_DIRTY = 2, /* written since the dirty log was last collected */
};

struct ram_slot {
    uint64_t gpa;  /* page-aligned */
    uint64_t size; /* bytes, a multiple of PAGE_SIZE */
    uint8_t *hva;
    _Atomic uint8_t *flags; /* one byte a page */
    bool readonly;          /* ROM: guest writes are dropped */
    bool device;            /* a device's memory, which is not counted as RAM, see ram_set_device() */
    bool backed;            /* untouched pages are a file's, see ram_map_file() and swap.h */
    bool swap;              /* it lies on the monitor's swap file, at swap_off */
    uint64_t swap_off;
    bool shared;            /* it lies in the machine's file of memory, at share_off, see share.h */
    int share_fd;           /* borrowed */
    uint64_t share_off;
    _Atomic uint8_t *touched; /* of a shared slot: one byte a piece of LARGE_PAGE, see large.h; or NULL */
    uint8_t *moved;           /* of one of which pieces lie there: one byte for each, see move.h; or NULL */
    unsigned piece;           /* their size, 1 << piece bytes */
};

#define RAM_UNSEEN UINT64_MAX

/* Of the slot that is a device's memory: where vCPUs see it, which the guest decides. Nobody else uses that address: DMA goes to
 * RAM, and pages, the dirty log and files count by the slot's own. */
struct ram_window {
    uint64_t gpa, size; /* the slot; size 0: there is none */
    _Atomic uint64_t at; /* RAM_UNSEEN: nowhere */
};

struct ram {
    struct ram_slot slot[RAM_MAX_SLOTS]; /* sorted by gpa, never overlapping */
    unsigned nslots;
    struct ram_swap *swap; /* owned, see swap.h; or NULL */
    bool share;            /* slots that are added go into the file of memory, */
    int share_fd;          /* if it has a size */
    uint64_t share_size;
    struct ram_large *large; /* owned, see large.h; or NULL */
    struct ram_still *still; /* owned, see still.h; or NULL */
    bool moves;              /* some slot's pieces can be moved into the file of memory, see move.h: */
    uint64_t moved;          /* so many were; */
    _Atomic uint32_t writers; /* and so many threads that are not vCPUs change memory just now */
    _Atomic bool keeping;    /* somebody reads shared memory as it was: pages are kept before they change */
    _Atomic bool dirty_log;
    struct ram_window window;
    /* Called before bytes [gpa, gpa+len) of pages that carry PAGE_CODE change, from any thread:
     * the engine drops what it decoded from them. Set once by the engine; may be NULL. */
    void (*code_write)(void *opaque, uint64_t gpa, uint64_t len);
    void *code_opaque;
};

void ram_init(struct ram *r);
void ram_fini(struct ram *r); /* unmaps every slot */

/* Map size zeroed bytes at gpa. -EINVAL: not page-aligned, zero, or wraps; -EEXIST: overlap;
 * -ENOSPC: too many slots; -ENOMEM. */
int ram_add_slot(struct ram *r, uint64_t gpa, uint64_t size, bool readonly);

/* Put a file's bytes from off (page-aligned) on into the slot, copy on write: they are read when they are touched, and
 * never written. The file may be closed, but must not become shorter. Not for a slot on a swap file or a shared one (-EINVAL). No vCPU runs;
 * engines must be told (engine_ops.invalidate). 0 or -errno. */
int ram_map_file(struct ram *r, unsigned slot, int fd, uint64_t off);

/* Let the host keep pages once that are equal to others, of any process that allows it (madvise(2), MADV_MERGEABLE). 0 or -errno; -EINVAL: some is
 * shared. */
int ram_merge(struct ram *r);

/* Have both the same slots? */
bool ram_same_slots(const struct ram *a, const struct ram *b);

/* The bytes of from become those of to, which has the same slots; from is empty afterwards, as after ram_fini(). No bytes
 * are copied, host addresses of to stay. No vCPU runs; engines must be told. 0 or -errno, then both are only good for
 * ram_fini(). A swap file of from goes along, and so does the file in which shared slots
 * lie; to has neither (-EINVAL). */
int ram_take(struct ram *to, struct ram *from);

/* The slot that holds gpa, or NULL (a hole: MMIO or nothing). */
struct ram_slot *ram_slot_of(struct ram *r, uint64_t gpa);

/* What a vCPU finds at *gpa: the slot, and *gpa becomes the slot's own address for it; or NULL. */
struct ram_slot *ram_slot_seen(struct ram *r, uint64_t *gpa);
/* Make a slot a device's memory. Before any vCPU runs; once. */
void ram_set_device(struct ram *r, struct ram_slot *s);

/* Copy len bytes between guest memory and buf. The range may span adjoining slots; -EFAULT, with
 * nothing copied, if any byte lies outside RAM. ram_write() honours code pages and the dirty log;
 * it drops writes to read-only slots (like a bus does). */
int ram_read(struct ram *r, uint64_t gpa, void *buf, uint64_t len);
int ram_write(struct ram *r, uint64_t gpa, const void *buf, uint64_t len);
int ram_fill(struct ram *r, uint64_t gpa, uint8_t byte, uint64_t len);
/* As ram_write(), also into read-only slots; for loaders. */
int ram_load(struct ram *r, uint64_t gpa, const void *buf, uint64_t len);

/* Give the host its memory back: the whole pages inside [gpa, gpa+len) hold zeros from now on, and cost
 * nothing until they are touched. -EFAULT: not all of it is RAM, nothing done; -EACCES: some of it is
 * read-only and keeps its bytes; another -errno: the host refused, and what the pages hold is undefined. */
int ram_discard(struct ram *r, uint64_t gpa, uint64_t len);

/* Put value at gpa and return in *old what was there, in one indivisible step. As ram_write() otherwise; a read-only
 * byte only is read. */
int ram_exchange(struct ram *r, uint64_t gpa, uint8_t value, uint8_t *old);

/* Host pointer to [gpa, gpa+len) if that lies inside one slot, else NULL. Never freed by the
 * caller. For reading; engines only may write, under the rules above. */
void *ram_borrow(struct ram *r, uint64_t gpa, uint64_t len);

/* Flags byte of the page that holds gpa, or NULL outside RAM. Engines set PAGE_CODE when they
 * decode from a page, and must take a slow path for stores to a page with PAGE_CODE or, while
 * the dirty log is on, without PAGE_DIRTY. */
_Atomic uint8_t *ram_page_flags(struct ram *r, uint64_t gpa);

/* May engines store to the page at gpa, which is RAM, without a slow path? Not where it has decoded code, is clean under the dirty log, or must be kept (still.h). */
bool ram_stores_silent(struct ram *r, uint64_t gpa);

/* Tell that an engine stored len bytes at gpa through a borrowed pointer: sets PAGE_DIRTY. */
void ram_mark_dirty(struct ram *r, uint64_t gpa, uint64_t len);

/* Switch the dirty log. Switching on clears all PAGE_DIRTY bits first; engines flush their
 * cached write permissions (the machine does that through the engine's contract). */
void ram_dirty_log(struct ram *r, bool on);
/* Collect and clear: bitmap gets one bit a page of the slot (bit n of byte n/8, little-endian);
 * size is in bytes and must hold all pages, else -EINVAL. Returns the number of dirty pages. */
int64_t ram_dirty_collect(struct ram *r, unsigned slot, uint8_t *bitmap, size_t size);

/* Total bytes of writable slots. */
uint64_t ram_total(const struct ram *r);

#endif
