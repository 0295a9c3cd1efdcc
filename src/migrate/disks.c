/* Disks that are copied along, and what was written to ephemeral ones. See disks.h.
 *
 * The source sends what the log of writes tells, in rounds beside those of memory. The destination writes into images without names,
 * flushes them now and then, so that the last flush is short, and names them when all is there and the source stands. What the guest has written to an
 * ephemeral disk goes straight into the destination's machine; its image is at both sides, or is copied like other disks, and gets under it at the end.
 *
 * Threads: as in send.c and receive.c. The log is marked by I/O threads meanwhile.
 */
#include "migrate/disks.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>
#include <zstd.h>

#include "base/bits.h"
#include "base/err.h"

#define DISKS_FLUSH        (64U << 20) /* bytes */
#define DISKS_CLUSTER_BITS 16

/* ---- the source ---- */

void mig_disks_describe(const struct vm *vm, uint8_t *out)
{
    for (unsigned n = 0; n < vm->cfg->disks; n++) {
        struct stat st;
        bool known = stat(vm->cfg->disk[n].path, &st) == 0;

        st_le64(out + n * MIG_DISK_ENTRY, pc_disk_block(vm, n)->size);
        st_le64(out + n * MIG_DISK_ENTRY + 8, known ? (uint64_t)st.st_blocks * 512 : 0);
    }
}

/* What is on an ephemeral disk and was not written by the guest, the other side has. Whoever writes before the log is on is seen in the disk, who writes
 * later in the log. */
static int disks_log_ephemeral(struct block *b)
{
    uint64_t off = 0, len = 0;
    int r = block_log_begin(b, false);

    for (; r == 0 && (r = block_overlay_next(b, &off, &len)) == 0 && len; off += len)
        block_log_mark(b, off, len);
    return r;
}

int mig_disks_log(struct vm *vm, bool copy, struct err *err)
{
    int r = 0;

    for (unsigned n = 0; r == 0 && n < vm->cfg->disks; n++) {
        struct block *b = pc_disk_block(vm, n);

        if (vm->cfg->disk[n].ephemeral)
            r = disks_log_ephemeral(b);
        if (r == 0 && copy)
            r = block_log_begin(vm->cfg->disk[n].ephemeral ? block_overlay_base(b) : b, true);
    }
    return r < 0 ? err_set(err, -r, "out of memory") : 0;
}

/* The next that is sent: disks, and behind each ephemeral one what it is over. *i: from 0 on; *number: as DISK has it. NULL: there are no more. */
static struct block *disks_next(const struct vm *vm, unsigned *i, uint32_t *number)
{
    while (*i < 2 * vm->cfg->disks) {
        unsigned n = *i / 2;
        bool image = (*i)++ % 2;
        struct block *b = pc_disk_block(vm, n);

        b = image ? block_overlay_base(b) : b;
        *number = image ? n | MIG_IMAGE : n;
        if (b && block_log_is_on(b))
            return b;
    }
    return NULL;
}

void mig_disks_log_end(struct vm *vm)
{
    struct block *b;
    uint32_t number;

    for (unsigned i = 0; (b = disks_next(vm, &i, &number));)
        block_log_end(b);
}

uint64_t mig_disks_left(const struct vm *vm)
{
    struct block *b;
    uint64_t left = 0;
    uint32_t number;

    for (unsigned i = 0; (b = disks_next(vm, &i, &number));)
        left += block_log_left(b);
    return left;
}

/* What is in p->pages, from `at` on: data, or zeroes. */
static int disks_send_piece(struct mig_packer *p, struct mig_stream *s, unsigned n, uint64_t off, uint64_t at, uint64_t len, bool zero,
                            struct err *err)
{
    uint8_t head[MIG_DISK_HEAD] = { 0 };

    st_le32(head, n);
    st_le32(head + 4, MIG_ZEROES);
    st_le64(head + 8, off + at);
    st_le64(head + 16, len);
    if (zero)
        return mig_send(s, MIG_DISK, head, sizeof(head), NULL, 0, err);
    p->moved += len;
    return mig_send_data(p, s, MIG_DISK, head, sizeof(head), p->pages + at, len, err);
}

/* len bytes in p->pages, which are the disk's from off on. */
static int disks_send_run(struct mig_packer *p, struct mig_stream *s, unsigned n, uint64_t off, uint64_t len, bool first, struct err *err)
{
    uint64_t end;
    int r = 0;

    for (uint64_t at = 0; r == 0 && at < len; at = end) {
        bool zero = false;

        for (end = at; end < len;) {
            uint64_t part = len - end < BLOCK_LOG_PART ? len - end : BLOCK_LOG_PART;
            bool z = mem_is_zero(p->pages + end, part);

            if (end > at && z != zero)
                break;
            zero = z;
            end += part;
        }
        if (!zero || !first)
            r = disks_send_piece(p, s, n, off, at, end - at, zero, err);
    }
    return r;
}

static int disks_sync(struct mig_stream *s, struct err *err)
{
    struct mig_frame f;
    int r = mig_send(s, MIG_SYNC, NULL, 0, NULL, 0, err);

    return r < 0 ? r : mig_expect(s, MIG_SYNCED, 0, &f, err);
}

/* first: the other side has zeroes there. Returns 1 if there was anything, 0 or -errno with a sentence. */
static int disks_send_one(struct mig_packer *p, struct mig_stream *s, struct block *b, unsigned n, bool first,
                          int (*note)(void *opaque, uint64_t bytes, struct err *err), void *opaque, struct err *err)
{
    uint64_t off = 0, len;
    bool any = false;
    int r = 0;

    for (; r == 0 && block_log_take(b, &off, &len, SAVE_CHUNK); off += len) {
        any = true;
        r = block_read(b, off, p->pages, len);
        if (r < 0)
            return err_set(err, -r, "disk %u cannot be read: %s", n & ~MIG_IMAGE, strerror(-r));
        r = disks_send_run(p, s, n, off, len, first, err);
        if (r == 0)
            r = note(opaque, len, err);
    }
    return r < 0 ? r : any;
}

int mig_disks_send(struct vm *vm, struct mig_packer *p, struct mig_stream *s, bool first, bool sync,
                   int (*note)(void *opaque, uint64_t bytes, struct err *err), void *opaque, struct err *err)
{
    struct block *b;
    bool any = false;
    uint32_t n;
    int r = 0;

    for (unsigned i = 0; r >= 0 && (b = disks_next(vm, &i, &n));) {
        r = disks_send_one(p, s, b, n, first && (n & MIG_IMAGE || !vm->cfg->disk[n].ephemeral), note, opaque, err);
        any |= r > 0;
    }
    if (r < 0)
        return r;
    return any && sync ? disks_sync(s, err) : 0;
}

/* ---- the destination ---- */

int mig_copies_parse(struct mig_copies *c, const uint8_t *entries, unsigned count, struct err *err)
{
    for (unsigned n = 0; n < count; n++) {
        struct mig_copy *d = &c->disk[n];

        d->draft.fd = -1;
        d->size = ld_le64(entries + n * MIG_DISK_ENTRY);
        d->allocated = ld_le64(entries + n * MIG_DISK_ENTRY + 8);
        c->count = n + 1;
        if (!d->size || d->size % BLOCK_SECTOR || d->size > INT64_MAX)
            return err_set(err, EBADMSG, "the source describes a disk that cannot be");
    }
    return 0;
}

/* What the source's files take must fit; more of them may be on the same file system. Numbers are the source's: they only refuse. */
static int copies_room(const struct mig_copies *c, unsigned n, struct err *err)
{
    uint64_t need = 0, room;
    struct stat mine, other;
    struct statvfs fs;

    if (fstat(c->disk[n].draft.fd, &mine) < 0 || fstatvfs(c->disk[n].draft.fd, &fs) < 0)
        return 0;
    for (unsigned i = 0; i <= n; i++) {
        if (fstat(c->disk[i].draft.fd, &other) == 0 && other.st_dev == mine.st_dev && __builtin_add_overflow(need, c->disk[i].allocated, &need))
            need = UINT64_MAX;
    }
    room = (uint64_t)fs.f_bavail * fs.f_frsize;
    if (need <= room)
        return 0;
    return err_set(err, ENOSPC, "disk '%s' cannot be copied: %" PRIu64 " MiB are needed, and there are %" PRIu64 " MiB left", c->disk[n].draft.path,
                   need >> 20, room >> 20);
}

static int copies_make(struct mig_copies *c, unsigned n, const struct config_disk *cfg, bool force, struct err *err)
{
    struct mig_copy *d = &c->disk[n];
    struct image_new new = { .format = cfg->format, .size = d->size, .cluster_bits = DISKS_CLUSTER_BITS };
    struct image_opts o = { .format = cfg->format };
    int r;

    for (unsigned i = 0; i < n; i++) {
        if (!strcmp(c->disk[i].draft.path, cfg->path))
            return err_set(err, EEXIST, "two disks would be copied to '%s': name another file with --disk", cfg->path);
    }
    r = image_draft_begin(&d->draft, cfg->path, force, err);
    if (r == 0)
        r = copies_room(c, n, err);
    if (r == 0)
        r = image_make(&d->draft, &new, err);
    return r < 0 ? r : image_open(&d->block, d->draft.open, &o, err);
}

/* The configuration's disk n is at its new place, without backing files. */
static int copies_move(struct machine_config *cfg, unsigned n, const char *folder, struct err *err)
{
    const char *slash = strrchr(cfg->disk[n].path, '/'), *base = slash ? slash + 1 : cfg->disk[n].path;
    char *path = NULL;
    int r;

    if (!folder)
        return config_move_disk(cfg, n, cfg->disk[n].path, err);
    if (asprintf(&path, "%s/%s", folder, base) < 0)
        return err_set(err, ENOMEM, "out of memory");
    r = config_move_disk(cfg, n, path, err);
    free(path);
    return r;
}

int mig_copies_begin(struct mig_copies *c, struct machine_config *cfg, const char *folder, bool force, struct err *err)
{
    int r = 0;

    if (c->count != cfg->disks)
        return err_set(err, EINVAL, "the source copies %u disks, and this machine would have %u", c->count, cfg->disks);
    for (unsigned n = 0; r == 0 && n < c->count; n++) {
        r = copies_move(cfg, n, folder, err);
        if (r == 0)
            r = copies_make(c, n, &cfg->disk[n], force, err);
        cfg->disk[n].later = c->disk[n].size;
    }
    return r;
}

static int copies_put(struct block *b, uint64_t off, const uint8_t *data, uint64_t len)
{
    return data ? block_write(b, off, data, len) : block_write_zeroes(b, off, len, true);
}

static int copies_write(struct mig_copy *d, uint64_t off, const uint8_t *data, uint64_t len)
{
    int r = copies_put(d->block, off, data, len);

    d->unflushed += len;
    if (r == 0 && d->unflushed >= DISKS_FLUSH) {
        d->unflushed = 0;
        r = block_flush(d->block);
    }
    return r;
}

/* What the piece is of: a disk that is copied, or the image of one; NULL: what was written to an ephemeral disk. False: there is no such. */
static bool copies_find(struct mig_copies *c, const struct vm *vm, uint32_t number, struct mig_copy **d)
{
    uint32_t n = number & ~MIG_IMAGE;
    bool image = number & MIG_IMAGE, ephemeral = n < vm->cfg->disks && vm->cfg->disk[n].ephemeral, copied = n < c->count;

    *d = copied && image == ephemeral ? &c->disk[n] : NULL;
    return n < vm->cfg->disks && (*d || (ephemeral && !image));
}

int mig_copies_take(struct mig_copies *c, struct vm *vm, const struct mig_frame *f, uint8_t *staging, struct err *err)
{
    const uint8_t *data = f->data + MIG_DISK_HEAD;
    size_t here = f->len - MIG_DISK_HEAD;
    struct mig_copy *d;
    uint64_t off, len;
    uint32_t n, form;
    int r;

    if (f->len < MIG_DISK_HEAD || !copies_find(c, vm, ld_le32(f->data), &d))
        return err_set(err, EBADMSG, "it sends a disk that the machine has not, or not as an ephemeral one");
    n = ld_le32(f->data) & ~MIG_IMAGE;
    form = ld_le32(f->data + 4);
    off = ld_le64(f->data + 8);
    len = ld_le64(f->data + 16);
    if (!len || len > SAVE_CHUNK || form > MIG_ZEROES || (form == MIG_PLAIN && here != len) || (form == MIG_ZEROES && here))
        return err_set(err, EBADMSG, "it sends another piece of a disk than it says");
    if (form == MIG_ZSTD && ZSTD_decompress(staging, len, data, here) != len)
        return err_set(err, EBADMSG, "it sends a piece of a disk that cannot be unpacked");
    data = form == MIG_PLAIN ? data : form == MIG_ZSTD ? staging : NULL;
    r = d ? copies_write(d, off, data, len) : copies_put(pc_disk_block(vm, n), off, data, len);
    return r < 0 ? err_set(err, -r, "disk '%s' cannot be written: %s", vm->cfg->disk[n].path, strerror(-r)) : 0;
}

int mig_copies_sync(struct mig_copies *c, struct err *err)
{
    int r = 0;

    for (unsigned n = 0; r == 0 && n < c->count; n++) {
        c->disk[n].unflushed = 0;
        r = block_flush(c->disk[n].block);
        if (r < 0)
            err_set(err, -r, "disk '%s' cannot be written: %s", c->disk[n].draft.path, strerror(-r));
    }
    return r;
}

static int copies_name(struct mig_copy *d, struct err *err)
{
    char *path = strdup(d->draft.path);
    int r = path ? image_draft_commit(&d->draft, err) : err_set(err, ENOMEM, "out of memory");

    if (r == 0)
        d->path = path;
    else
        free(path);
    return r;
}

/* The machine's disk n is the copy now, or is over it. */
static int copies_give_one(struct mig_copy *d, struct vm *vm, unsigned n, struct err *err)
{
    const struct config_disk *cfg = &vm->cfg->disk[n];
    int r = copies_name(d, err);

    if (r == 0 && (cfg->ro || cfg->ephemeral) && (r = block_freeze(d->block)) < 0)
        err_set(err, -r, "disk '%s' cannot be made read-only: %s", d->path, strerror(-r));
    if (r < 0)
        return r;
    if (cfg->ephemeral)
        block_overlay_set_base(pc_disk_block(vm, n), d->block);
    else
        pc_set_disk(vm, n, d->block);
    d->block = NULL;
    return 0;
}

int mig_copies_give(struct mig_copies *c, struct vm *vm, struct err *err)
{
    int r = mig_copies_sync(c, err);

    for (unsigned n = 0; r == 0 && n < c->count; n++)
        r = copies_give_one(&c->disk[n], vm, n, err);
    return r;
}

void mig_copies_fini(struct mig_copies *c, bool keep)
{
    for (unsigned n = 0; n < c->count; n++) {
        struct mig_copy *d = &c->disk[n];

        block_close(d->block);
        image_draft_abort(&d->draft);
        if (d->path && !keep)
            unlink(d->path);
        free(d->path);
    }
    c->count = 0;
}
