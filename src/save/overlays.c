/* What the guest wrote to ephemeral disks, to and from a saved machine: it is in no file that has a name, so it goes along.
 *
 *   each such disk: number:u32 0:u32 size:u64, then runs { off:u64 len:u64 data }, at most OVERLAYS_RUN bytes each, and {0, 0}
 *
 * It is written while the machine stands, also when memory is written in the background: the file that the machine goes on to
 * write to is not copied on write. Reading trusts nothing: the sum first, then each number, and all writes go through the
 * disk's own checks. Thread: the machine's, or whoever restores one.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/bits.h"
#include "base/err.h"
#include "block/file.h"
#include "machine/vm.h"
#include "save/internal.h"

#define OVERLAYS_RUN (1UL << 20)

struct overlays {
    int fd;
    uint64_t at, end; /* in the file; end: reading */
    XXH64_state_t *sum;
    uint8_t *buf; /* OVERLAYS_RUN bytes */
};

static int overlays_init(struct overlays *o, int fd, uint64_t at)
{
    *o = (struct overlays){ .fd = fd, .at = at, .sum = XXH64_createState(), .buf = malloc(OVERLAYS_RUN) };
    if (o->sum)
        XXH64_reset(o->sum, 0);
    return o->sum && o->buf ? 0 : -ENOMEM;
}

static void overlays_fini(struct overlays *o)
{
    XXH64_freeState(o->sum);
    free(o->buf);
}

/* ---- writing ---- */

static int overlays_put(struct overlays *o, const void *data, size_t len)
{
    int r = block_file_write(o->fd, o->at, data, len);

    XXH64_update(o->sum, data, len);
    o->at += len;
    return r;
}

static int overlays_put_pair(struct overlays *o, uint64_t a, uint64_t b)
{
    uint8_t raw[16];

    st_le64(raw, a);
    st_le64(raw + 8, b);
    return overlays_put(o, raw, sizeof(raw));
}

static int overlays_put_disk(struct overlays *o, struct block *b, unsigned n)
{
    uint64_t off = 0, len = 0;
    int r = overlays_put_pair(o, n, b->size);

    for (; r == 0 && (r = block_overlay_next(b, &off, &len)) == 0 && len; off += len) {
        r = block_read(b, off, o->buf, len);
        if (r == 0)
            r = overlays_put_pair(o, off, len);
        if (r == 0)
            r = overlays_put(o, o->buf, len);
    }
    return r == 0 ? overlays_put_pair(o, 0, 0) : r;
}

int save_overlays_write(struct vm *vm, int fd, struct save_header *h, struct err *err)
{
    struct overlays o;
    int r = overlays_init(&o, fd, SAVE_HEADER);

    for (unsigned n = 0; r == 0 && n < vm->cfg->disks; n++) {
        if (!vm->cfg->disk[n].ephemeral)
            continue;
        h->flags |= SAVE_OVERLAYS;
        r = overlays_put_disk(&o, pc_disk_block(vm, n), n);
    }
    if (r == 0 && h->flags & SAVE_OVERLAYS) {
        h->overlays = (struct save_part){ .off = SAVE_HEADER, .len = o.at - SAVE_HEADER, .sum = XXH64_digest(o.sum) };
        h->ram_off = ALIGN_UP(o.at, PAGE_SIZE);
    }
    overlays_fini(&o);
    return r < 0 ? err_set(err, -r, "what is on ephemeral disks cannot be written: %s", strerror(-r)) : 0;
}

/* ---- reading ---- */

static int overlays_check_sum(struct overlays *o, uint64_t want)
{
    uint64_t at = o->at;
    int r = 0;

    while (r == 0 && at < o->end) {
        size_t n = o->end - at < OVERLAYS_RUN ? (size_t)(o->end - at) : OVERLAYS_RUN;
        r = block_file_read(o->fd, at, o->buf, n);
        XXH64_update(o->sum, o->buf, r == 0 ? n : 0);
        at += n;
    }
    return r == 0 && XXH64_digest(o->sum) != want ? -EBADMSG : r;
}

static int overlays_get(struct overlays *o, void *data, size_t len)
{
    int r = len > o->end - o->at ? -EBADMSG : block_file_read(o->fd, o->at, data, len);

    o->at += r == 0 ? len : 0;
    return r;
}

static int overlays_get_pair(struct overlays *o, uint64_t *a, uint64_t *b)
{
    uint8_t raw[16];
    int r = overlays_get(o, raw, sizeof(raw));

    *a = r == 0 ? ld_le64(raw) : 0;
    *b = r == 0 ? ld_le64(raw + 8) : 0;
    return r;
}

static int overlays_get_disk(struct overlays *o, struct vm *vm)
{
    uint64_t n, size, off, len;
    struct block *b;
    int r = overlays_get_pair(o, &n, &size);

    if (r < 0)
        return r;
    if (n >= vm->cfg->disks || !vm->cfg->disk[n].ephemeral || pc_disk_block(vm, (unsigned)n)->size != size)
        return -ENODEV;
    b = pc_disk_block(vm, (unsigned)n);
    while ((r = overlays_get_pair(o, &off, &len)) == 0 && len) {
        r = len > OVERLAYS_RUN ? -EBADMSG : overlays_get(o, o->buf, len);
        if (r == 0)
            r = block_write(b, off, o->buf, len);
        if (r < 0)
            return r;
    }
    return r;
}

int save_overlays_read(struct vm *vm, int fd, const struct save_header *h, struct err *err)
{
    struct overlays o;
    int r;

    if (!(h->flags & SAVE_OVERLAYS))
        return 0;
    r = overlays_init(&o, fd, h->overlays.off);
    o.end = h->overlays.off + h->overlays.len;
    if (r == 0)
        r = overlays_check_sum(&o, h->overlays.sum);
    while (r == 0 && o.at < o.end)
        r = overlays_get_disk(&o, vm);
    overlays_fini(&o);
    if (r == -ENODEV)
        return err_set(err, ENODEV, "it holds what was on an ephemeral disk that this machine does not have like that: "
                                    "leave its --disk as it was");
    if (r == -EBADMSG || r == -EINVAL)
        return err_set(err, EINVAL, "what was on its ephemeral disks is damaged");
    return r < 0 ? err_set(err, -r, "what was on its ephemeral disks cannot be read or written: %s", strerror(-r)) : 0;
}
