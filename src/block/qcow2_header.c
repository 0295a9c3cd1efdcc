/* The header of qcow2 images: parsing, checks, and what this vitro does not take.
 *
 * Source: QEMU's docs/interop/qcow2.rst, "Header", "Header extensions", "Feature name table". The bytes are
 * hostile: each number is checked against the file's length and fixed bounds before it is used. No locks: one
 * thread has q.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "block/qcow2_int.h"

#define EXT_END            0U
#define EXT_BACKING_FORMAT 0xe2792acaU
#define EXT_DATA_FILE      0x44415441U
#define EXT_BITMAPS        0x23852875U

/* The part of the file that can hold the header and what belongs to it. */
struct header {
    uint8_t raw[4096];
    uint32_t len; /* of the header itself */
};

static int header_refuse(struct qcow2 *q, struct err *err, const char *why)
{
    return err_set(err, EINVAL, "image '%s': %s", q->name, why);
}

static int header_geometry(struct qcow2 *q, const struct header *h, struct err *err)
{
    uint64_t per_l1;

    q->cbits = ld_be32(h->raw + 20);
    if (q->cbits < QCOW2_CLUSTER_MIN || q->cbits > QCOW2_CLUSTER_MAX)
        return header_refuse(q, err, "its cluster size is none that qcow2 has; it is damaged");
    q->csize = BIT(q->cbits);
    q->l2_bits = q->cbits - 3;
    q->rb_bits = q->cbits + 3 - q->rc_order;
    q->end = ALIGN_UP(q->info.file_size, q->csize);
    q->size = ld_be64(h->raw + 24);
    if (q->size > 1ULL << 62)
        return header_refuse(q, err, "its disk size is impossible; it is damaged");
    q->l1_size = ld_be32(h->raw + 36);
    q->l1_off = ld_be64(h->raw + 40);
    per_l1 = q->csize << q->l2_bits;
    if (q->l1_size > QCOW2_L1_MAX / 8 || q->size / per_l1 + (q->size % per_l1 != 0) > q->l1_size)
        return header_refuse(q, err, "its L1 table does not fit to its disk size; it is damaged");
    if (q->l1_size && (q->l1_off % q->csize || range_outside(q->l1_off, q->l1_size * 8ULL, q->end)))
        return header_refuse(q, err, "its L1 table lies outside the file; it is damaged or cut off");
    return 0;
}

static int header_refcounts(struct qcow2 *q, const struct header *h, struct err *err)
{
    q->rt_off = ld_be64(h->raw + 48);
    q->rt_clusters = ld_be32(h->raw + 56);
    if (q->rt_clusters == 0 || q->rt_clusters > (QCOW2_RT_MAX > q->csize ? QCOW2_RT_MAX >> q->cbits : 1))
        return header_refuse(q, err, "its refcount table has an impossible size; it is damaged");
    if (q->rt_off % q->csize || range_outside(q->rt_off, (uint64_t)q->rt_clusters << q->cbits, q->end))
        return header_refuse(q, err, "its refcount table lies outside the file; it is damaged or cut off");
    q->rt_size = q->rt_clusters << (q->cbits - 3);
    return 0;
}

static int header_snapshots(struct qcow2 *q, const struct header *h, struct err *err)
{
    q->snap_count = ld_be32(h->raw + 60);
    q->snap_off = ld_be64(h->raw + 64);
    if (q->snap_count == 0)
        return 0;
    if (q->snap_count > QCOW2_SNAP_MAX || q->snap_off % q->csize || q->snap_off >= q->end)
        return header_refuse(q, err, "its list of snapshots lies outside the file; it is damaged or cut off");
    q->info.snapshots = q->snap_count;
    return 0;
}

/* Version 3 only: what one must know to read it. */
static int header_features(struct qcow2 *q, struct err *err)
{
    uint64_t odd = q->incompat & ~(QCOW2_INCOMPAT_DIRTY | QCOW2_INCOMPAT_CORRUPT | QCOW2_INCOMPAT_COMP);

    if (odd & QCOW2_INCOMPAT_DATA)
        return header_refuse(q, err,
                             "keeps its data in another file, which is not supported: convert it with "
                             "qemu-img to one without data_file");
    if (odd & QCOW2_INCOMPAT_L2EXT)
        return header_refuse(q, err,
                             "has extended L2 entries, which are not supported: convert it with qemu-img "
                             "to one without extended_l2");
    if (odd)
        return err_set(err, EINVAL, "image '%s': needs qcow2 features that this vitro does not know (0x%llx)",
                       q->name, (unsigned long long)odd);
    return 0;
}

static int header_v3(struct qcow2 *q, struct header *h, struct err *err)
{
    uint64_t compat = ld_be64(h->raw + 80);
    uint32_t order = ld_be32(h->raw + 96);

    q->incompat = ld_be64(h->raw + 72);
    q->autoclear = ld_be64(h->raw + 88);
    h->len = ld_be32(h->raw + 100);
    if (order > 6)
        return header_refuse(q, err, "its reference counts have an impossible width; it is damaged");
    q->rc_order = order;
    if (h->len < QCOW2_V3_HEADER || h->len % 8 || h->len > sizeof(h->raw) - 8)
        return header_refuse(q, err, "its header has an impossible length; it is damaged");
    if (q->incompat & QCOW2_INCOMPAT_COMP) {
        if (h->len <= QCOW2_V3_HEADER || h->raw[104] != 1)
            return header_refuse(q, err, "is compressed in a way that this vitro does not know");
        q->info.zstd = true;
    }
    q->info.dirty = q->incompat & QCOW2_INCOMPAT_DIRTY;
    q->info.corrupt = q->incompat & QCOW2_INCOMPAT_CORRUPT;
    q->info.lazy_refcounts = compat & QCOW2_COMPAT_LAZY;
    return header_features(q, err);
}

/* One extension of n bytes at p. */
static int header_extension(struct qcow2 *q, uint32_t type, const uint8_t *p, uint32_t n, struct err *err)
{
    if (type == EXT_BACKING_FORMAT) {
        if (n >= sizeof(q->info.backing_format) || memchr(p, 0, n))
            return header_refuse(q, err, "the format of its backing file is damaged");
        memcpy(q->info.backing_format, p, n);
        q->info.backing_format[n] = '\0';
    } else if (type == EXT_BITMAPS) {
        q->info.bitmaps = q->autoclear & QCOW2_AUTOCLEAR_BITMAP;
    } else if (type == EXT_DATA_FILE) {
        return header_refuse(q, err, "names a data file, which is not supported");
    }
    return 0;
}

static int header_extensions(struct qcow2 *q, const struct header *h, struct err *err)
{
    uint32_t pos = h->len, limit = q->csize < sizeof(h->raw) ? (uint32_t)q->csize : (uint32_t)sizeof(h->raw);
    uint64_t name = ld_be64(h->raw + 8);
    int r = 0;

    if (name && name < limit)
        limit = (uint32_t)name;
    while (r == 0 && pos + 8 <= limit) {
        uint32_t type = ld_be32(h->raw + pos), n = ld_be32(h->raw + pos + 4);

        if (type == EXT_END)
            return 0;
        if (range_outside(pos + 8, n, limit))
            return header_refuse(q, err, "its header extensions are damaged");
        r = header_extension(q, type, h->raw + pos + 8, n, err);
        pos += 8 + (uint32_t)ALIGN_UP(n, 8);
    }
    return r;
}

static int header_backing(struct qcow2 *q, const struct header *h, struct err *err)
{
    uint64_t off = ld_be64(h->raw + 8);
    uint32_t len = ld_be32(h->raw + 16);
    int r;

    if (off == 0 || len == 0)
        return 0;
    if (len > QCOW2_NAME_MAX || range_outside(off, len, q->csize) ||
        range_outside(off, len, q->info.file_size))
        return header_refuse(q, err, "the name of its backing file is damaged");
    r = imgfile_read(q->f, off, q->info.backing, len);
    if (r < 0)
        return err_set(err, -r, "image '%s': cannot be read: %s", q->name, strerror(-r));
    q->info.backing[len] = '\0';
    if (strlen(q->info.backing) != len)
        return header_refuse(q, err, "the name of its backing file is damaged");
    q->info.has_backing = true;
    return 0;
}

/* Is it a qcow2 file at all, and of which version? */
static int header_identify(struct qcow2 *q, const struct header *h, struct err *err)
{
    if (q->info.file_size < QCOW2_V2_HEADER || ld_be32(h->raw) != QCOW2_MAGIC)
        return header_refuse(q, err, "is not a qcow2 image; is it a raw one (format=raw)?");
    q->info.version = ld_be32(h->raw + 4);
    if (q->info.version == 1)
        return header_refuse(
            q, err, "is a qcow image of version 1, which is not supported: convert it with qemu-img");
    if (q->info.version != 2 && q->info.version != 3)
        return err_set(err, EINVAL, "image '%s': has qcow2 version %u; this vitro knows 2 and 3", q->name,
                       q->info.version);
    if (ld_be32(h->raw + 32) != 0)
        return header_refuse(q, err,
                             "is encrypted, which is not supported: decrypt it with qemu-img convert");
    return 0;
}

static int header_parse(struct qcow2 *q, struct header *h, struct err *err)
{
    int r = header_identify(q, h, err);

    h->len = QCOW2_V2_HEADER;
    q->rc_order = 4;
    if (r == 0 && q->info.version == 3)
        r = header_v3(q, h, err);
    if (r == 0)
        r = header_geometry(q, h, err);
    if (r == 0)
        r = header_refcounts(q, h, err);
    if (r == 0)
        r = header_snapshots(q, h, err);
    if (r == 0)
        r = header_extensions(q, h, err);
    return r == 0 ? header_backing(q, h, err) : r;
}

int qcow2_header_read(struct qcow2 *q, struct err *err)
{
    int64_t size = q->f->ops->size(q->f);
    struct header h = { .len = 0 };
    int r = size < 0 ? (int)size : imgfile_read(q->f, 0, h.raw, sizeof(h.raw));

    if (r < 0)
        return err_set(err, -r, "image '%s': cannot be read: %s", q->name, strerror(-r));
    q->info.file_size = (uint64_t)size;
    r = header_parse(q, &h, err);
    q->info.cluster_bits = q->cbits;
    q->info.refcount_bits = 1U << q->rc_order;
    q->info.size = q->size;
    return r;
}

int qcow2_probe(struct imgfile *f, const char *name, struct qcow2_info *info, struct err *err)
{
    struct qcow2 q = { .f = f, .name = (char *)(uintptr_t)name, .block.ro = true };
    int r = qcow2_header_read(&q, err);

    *info = q.info;
    return r;
}

/* Two places for the backing file's name, in sectors that hold nothing else: the new one is written and durable before the first sector, which
 * has header and extensions, changes as a whole. */
#define NAME_PLACE(n) (2048U * (1 + (n)))

/* Header and extensions as qcow2_create() writes them; their length, 0: there are others, or no room. */
static uint32_t header_renamed(uint8_t raw[BLOCK_SECTOR], uint64_t place, const char *name, const char *format)
{
    uint32_t pos = ld_be32(raw + 100), fmt = (uint32_t)strlen(format);

    if (pos != QCOW2_HEADER || ld_be32(raw + pos) != EXT_BACKING_FORMAT || pos + 8 + ALIGN_UP(fmt, 8) + 8 > BLOCK_SECTOR)
        return 0;
    memset(raw + pos, 0, BLOCK_SECTOR - pos);
    st_be32(raw + pos, EXT_BACKING_FORMAT);
    st_be32(raw + pos + 4, fmt);
    memcpy(raw + pos + 8, format, fmt);
    st_be64(raw + 8, place);
    st_be32(raw + 16, (uint32_t)strlen(name));
    return pos + 8 + (uint32_t)ALIGN_UP(fmt, 8) + 8;
}

/* `change` is held. */
static int header_name_backing(struct qcow2 *q, const char *name, const char *format)
{
    uint8_t raw[BLOCK_SECTOR];
    uint64_t place;
    int r = imgfile_read(q->f, 0, raw, sizeof(raw));

    if (r < 0)
        return r;
    place = ld_be64(raw + 8) == NAME_PLACE(0) ? NAME_PLACE(1) : NAME_PLACE(0);
    if (!header_renamed(raw, place, name, format))
        return -EINVAL;
    r = imgfile_write(q->f, place, name, strlen(name));
    if (r == 0)
        r = qcow2_barrier(q);
    if (r == 0)
        r = imgfile_write(q->f, 0, raw, sizeof(raw));
    return r == 0 ? qcow2_barrier(q) : r;
}

int qcow2_name_backing(struct block *b, const char *name, const char *format)
{
    struct qcow2 *q = qcow2_of(b);
    int r;

    if (b->ro || q->info.version != 3 || q->csize < NAME_PLACE(2) || !q->info.has_backing || !*name || strlen(name) > QCOW2_NAME_MAX ||
        strlen(format) >= sizeof(q->info.backing_format))
        return -EINVAL;
    qcow2_change_begin(q);
    r = header_name_backing(q, name, format);
    if (r == 0) {
        snprintf(q->info.backing, sizeof(q->info.backing), "%s", name);
        snprintf(q->info.backing_format, sizeof(q->info.backing_format), "%s", format);
    }
    qcow2_change_end(q);
    return r;
}

int qcow2_header_write(struct qcow2 *q)
{
    uint8_t raw[QCOW2_V3_HEADER];
    int r = imgfile_read(q->f, 0, raw, sizeof(raw));

    if (r < 0)
        return r;
    st_be64(raw + 24, q->size);
    st_be32(raw + 36, q->l1_size);
    st_be64(raw + 40, q->l1_off);
    st_be64(raw + 48, q->rt_off);
    st_be32(raw + 56, q->rt_clusters);
    st_be64(raw + 72, q->incompat);
    st_be64(raw + 88, q->autoclear);
    return imgfile_write(q->f, 0, raw, sizeof(raw));
}
