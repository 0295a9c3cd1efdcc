/* vitro image info and check: what an image says about itself, and whether that is true. Thread: the main
 * thread. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "block/block.h"
#include "block/image_file.h"
#include "block/qcow2.h"
#include "cli/cli.h"
#include "cli/image_args.h"

/* What info tells about any image. */
struct image_facts {
    const char *path;
    enum image_format format;
    uint64_t size, file_size, used; /* bytes */
    struct qcow2_info q;
};

static int image_print(json_t *root)
{
    char *text = root ? json_dumps(root, JSON_INDENT(2)) : NULL;

    json_decref(root);
    if (!text)
        return cli_failf("out of memory, or a name is not UTF-8");
    puts(text);
    free(text);
    return CLI_OK;
}

static void info_qcow2_text(const struct qcow2_info *q)
{
    printf("version    %u%s%s\n", q->version, q->dirty ? ", not closed (dirty)" : "",
           q->corrupt ? ", marked corrupt" : "");
    printf("cluster    %u bytes\n", 1U << q->cluster_bits);
    printf("counts     %u bits%s\n", q->refcount_bits, q->lazy_refcounts ? ", lazy" : "");
    printf("compressed with %s, if at all\n", q->zstd ? "zstd" : "zlib");
    printf("snapshots  %u%s\n", q->snapshots, q->bitmaps ? "; dirty bitmaps" : "");
    if (q->has_backing)
        printf("backing    %s (%s)\n", q->backing,
               q->backing_format[0] ? q->backing_format : "format not stated");
}

static void info_text(const struct image_facts *f)
{
    printf("file       %s\n", f->path);
    printf("format     %s\n", image_format_name(f->format));
    printf("disk       %" PRIu64 " bytes (%.1f MiB)\n", f->size, (double)f->size / (1 << 20));
    printf("uses       %" PRIu64 " bytes (%.1f MiB) on the host\n", f->used, (double)f->used / (1 << 20));
    if (f->format == IMAGE_QCOW2)
        info_qcow2_text(&f->q);
}

static int info_json(const struct image_facts *f)
{
    const struct qcow2_info *q = &f->q;
    json_t *root = json_pack("{s:s, s:s, s:I, s:I, s:I}", "file", f->path, "format",
                             image_format_name(f->format), "size", (json_int_t)f->size, "file_size",
                             (json_int_t)f->file_size, "used", (json_int_t)f->used);
    json_t *more;

    if (!root || f->format != IMAGE_QCOW2)
        return image_print(root);
    more = json_pack("{s:i, s:i, s:i, s:i, s:b, s:b, s:s, s:b, s:b}", "version", (int)q->version,
                     "cluster_size", 1 << q->cluster_bits, "refcount_bits", (int)q->refcount_bits,
                     "snapshots", (int)q->snapshots, "dirty", q->dirty, "corrupt", q->corrupt, "compression",
                     q->zstd ? "zstd" : "zlib", "lazy_refcounts", q->lazy_refcounts, "bitmaps", q->bitmaps);
    if (!more || json_object_update(root, more) < 0 ||
        (q->has_backing && json_object_set_new(root, "backing", json_string(q->backing)) < 0) ||
        (q->backing_format[0] &&
         json_object_set_new(root, "backing_format", json_string(q->backing_format)) < 0)) {
        json_decref(root);
        root = NULL;
    }
    json_decref(more);
    return image_print(root);
}

/* Without a lock: only the header is read, so a running machine's image can be looked at. */
static int info_look(struct image_facts *f, struct err *err)
{
    int fd = open(f->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY), r = 0;
    struct imgfile *file;
    struct stat st;

    if (fd < 0 || fstat(fd, &st) < 0 || !(S_ISREG(st.st_mode) || S_ISBLK(st.st_mode)))
        r = err_set(err, 22, "cannot open image '%s': %s", f->path,
                    fd < 0 ? strerror(errno) : "it is not a file");
    file = r == 0 ? imgfile_from_fd(fd) : NULL;
    if (!file && fd >= 0)
        close(fd);
    if (r < 0)
        return r;
    if (!file)
        return err_set(err, ENOMEM, "out of memory");
    f->file_size = (uint64_t)file->ops->size(file);
    f->used = (uint64_t)st.st_blocks * 512;
    f->size = f->file_size;
    if (f->format == IMAGE_QCOW2) {
        r = qcow2_probe(file, f->path, &f->q, err);
        f->size = f->q.size;
    }
    imgfile_close(file);
    return r;
}

int image_info(const struct image_args *a)
{
    struct image_facts f = { .path = a->word[0] };
    struct err err = { "" };

    f.format = image_args_format(a, a->format, f.path);
    if (f.format == IMAGE_FORMAT_NONE)
        return CLI_ERROR;
    if (info_look(&f, &err) < 0)
        return cli_fail(a->json, &err);
    if (a->json)
        return info_json(&f);
    info_text(&f);
    return CLI_OK;
}

/* Something is left that is wrong. */
static bool check_bad(const struct qcow2_check *c)
{
    return c->corruptions > c->fixed_corruptions || c->leaks > c->fixed_leaks;
}

static int check_json(const char *path, const struct qcow2_check *c)
{
    return image_print(json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:s}", "file", path, "corruptions",
                                 (json_int_t)c->corruptions, "leaks", (json_int_t)c->leaks,
                                 "fixed_corruptions", (json_int_t)c->fixed_corruptions, "fixed_leaks",
                                 (json_int_t)c->fixed_leaks, "clusters", (json_int_t)c->clusters,
                                 "disk_clusters", (json_int_t)c->disk_clusters, "allocated",
                                 (json_int_t)c->allocated, "first", c->first));
}

static void check_text(const struct qcow2_check *c)
{
    if (c->corruptions)
        printf("%" PRIu64 " errors, %" PRIu64 " repaired; the first: %s\n", c->corruptions,
               c->fixed_corruptions, c->first);
    if (c->leaks)
        printf("%" PRIu64 " clusters are in use by nobody, %" PRIu64 " released; that is no danger to data\n",
               c->leaks, c->fixed_leaks);
    if (!c->corruptions && !c->leaks)
        puts("no errors");
    printf("%" PRIu64 " of %" PRIu64 " clusters of the disk are in this image, which has %" PRIu64
           " clusters\n",
           c->allocated, c->disk_clusters, c->clusters);
}

int image_check(const struct image_args *a)
{
    struct image_opts o = { .format = image_args_format(a, a->format, a->word[0]),
                            .ro = !a->repair,
                            .repair = a->repair,
                            .no_backing = true };
    struct err err = { "" };
    struct qcow2_check c;
    struct block *b;
    int r;

    if (o.format == IMAGE_FORMAT_NONE)
        return CLI_ERROR;
    if (o.format != IMAGE_QCOW2)
        return cli_failf("image '%s': a raw image has nothing that could be checked", a->word[0]);
    if (image_open(&b, a->word[0], &o, &err) < 0)
        return cli_fail(a->json, &err);
    r = qcow2_check(b, a->repair, &c, &err);
    block_close(b);
    if (r < 0)
        return cli_fail(a->json, &err);
    r = 0;
    if (a->json)
        r = check_json(a->word[0], &c);
    else
        check_text(&c);
    return r ? r : check_bad(&c);
}
