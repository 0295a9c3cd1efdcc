/* vitro image: making, looking at, checking, copying, growing and committing disk images. Thread: the main
 * thread. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/err.h"
#include "block/block.h"
#include "block/qcow2.h"
#include "cli/cli.h"
#include "cli/image_args.h"
#include "cli/image_build.h"
#include "machine/config.h"

void cmd_image_help(void)
{
    puts(
        "  create FILE SIZE     a new, empty image; the size may be left out with --backing\n"
        "  info FILE            what the image says about itself\n"
        "  check FILE           is a qcow2 image consistent? Status 0: yes, 1: no (or not all was repaired)\n"
        "  convert FROM TO      copy the disk of one image into a new one\n"
        "  resize FILE SIZE     make the disk larger; +SIZE: by so much\n"
        "  commit FILE          write what a qcow2 image holds into its backing file, and empty it\n"
        "  build debian         make a bootable Debian disk (see below)\n\n"
        "  --format raw|qcow2         the format of FILE or FROM; default by suffix (.img .raw .qcow2), "
        "never guessed\n"
        "  --to raw|qcow2             the format of TO (convert); default by suffix\n"
        "  --backing FILE             create: what the new image stands on; else: the backing file to use "
        "instead of\n"
        "                             the one that the image names\n"
        "  --backing-format FORMAT    its format; default by suffix\n"
        "  --allow-backing            open the backing files that images name\n"
        "  --cluster-size SIZE        of a new qcow2 image: 512 to 2M, default 64K\n"
        "  --force                    replace a file that exists (create, convert)\n"
        "  --repair                   set wrong reference counts right (check)\n"
        "  --keep                     do not empty the image (commit)\n"
        "  --json                     info and check: one JSON object\n\n"
        "New files appear under their name only when they are complete and durable.\n\n"
        "build debian takes:\n"
        "  -o FILE                    the image; default debian.qcow2\n"
        "  --size SIZE                of the disk, default 4G; the system grows when the disk does\n"
        "  --suite NAME               default bookworm\n"
        "  --mirror URL               default: what this host's apt uses\n"
        "  --packages A,B             more packages\n"
        "  --hostname NAME            default debian\n"
        "  --user NAME                a user who may use sudo\n"
        "  --ssh-key FILE             public keys that may log in as that user, else as root\n"
        "  --password-hash HASH       of that user, else of root; without one, the console logs in by itself\n"
        "  --kernel-out FILE, --initrd-out FILE   also write these, for vitro run --kernel\n"
        "  --format, --force, --json  as above");
}

enum image_format image_args_format(const struct image_args *a, const char *given, const char *path)
{
    enum image_format f = given ? image_format_named(given) : image_format_suffix(path);
    struct err err;

    if (f != IMAGE_FORMAT_NONE)
        return f;
    if (given)
        err_set(&err, EINVAL, "image '%.200s': there is no format '%.40s': use raw or qcow2", path, given);
    else
        err_set(&err, EINVAL,
                "image '%.200s': its name does not say its format: name it (see 'vitro help image')", path);
    cli_fail(a->json, &err);
    return IMAGE_FORMAT_NONE;
}

int image_args_opts(const struct image_args *a, struct image_backing *named, struct image_opts *o)
{
    o->allow_backing = a->allow_backing;
    if (!a->backing)
        return 0;
    *named = (struct image_backing){ .path = a->backing };
    if (a->backing_format || image_format_suffix(a->backing) != IMAGE_FORMAT_NONE) {
        named->format = image_args_format(a, a->backing_format, a->backing);
        if (named->format == IMAGE_FORMAT_NONE)
            return CLI_ERROR;
    }
    o->backing = named;
    o->backings = 1;
    return 0;
}

static int image_size(const char *text, uint64_t *size)
{
    if (config_parse_size(text, size) < 0 || *size == 0 || *size > QCOW2_SIZE_MAX)
        return cli_failf(
            "'%.60s' is no size of a disk: write it like 512M, 20G or a number of bytes, up to 1024T", text);
    *size = ALIGN_UP(*size, BLOCK_SECTOR);
    return 0;
}

static int image_cluster_bits(const struct image_args *a, unsigned *bits)
{
    uint64_t size;

    *bits = QCOW2_CLUSTER_BITS;
    if (!a->cluster_size)
        return 0;
    if (config_parse_size(a->cluster_size, &size) == 0 && size && (size & (size - 1)) == 0 && size >= 512 &&
        size <= 2U << 20) {
        *bits = (unsigned)__builtin_ctzll(size);
        return 0;
    }
    return cli_failf("'%.60s' is no cluster size: a power of two from 512 to 2M", a->cluster_size);
}

static void image_tell(void *opaque, uint64_t done, uint64_t total)
{
    int *last = opaque, percent = total ? (int)(done * 100.0 / (double)total) : 100;

    if (percent == *last)
        return;
    *last = percent;
    fprintf(stderr, "\r%3d%%%s", percent, percent == 100 ? "\r    \r" : "");
}

/* On a terminal, long work says how far it is. */
static struct image_progress image_progress(int *last)
{
    *last = -1;
    return (struct image_progress){ .tell = isatty(STDERR_FILENO) ? image_tell : NULL, .opaque = last };
}

/* The size of the disk that a new image stands on. */
static int create_backing(const struct image_args *a, struct image_new *n, struct err *err)
{
    struct image_opts o = { .ro = true, .no_backing = true };
    char *file;
    struct block *b;
    int r;

    n->backing_format = o.format = image_args_format(a, a->backing_format, a->backing);
    if (o.format == IMAGE_FORMAT_NONE)
        return CLI_ERROR;
    file = image_relative(a->word[0], a->backing);
    if (!file)
        return cli_failf("out of memory");
    r = image_open(&b, file, &o, err);
    free(file);
    if (r < 0)
        return cli_fail(a->json, err);
    n->backing = a->backing;
    n->size = n->size ? n->size : b->size;
    block_close(b);
    return 0;
}

static int image_create(const struct image_args *a)
{
    struct image_new n = { .format = image_args_format(a, a->format, a->word[0]) };
    struct image_draft d;
    struct err err = { "" };
    int r;

    if (n.format == IMAGE_FORMAT_NONE || image_cluster_bits(a, &n.cluster_bits))
        return CLI_ERROR;
    if (!a->word[1] && !a->backing)
        return cli_failf("say how large the disk is: vitro image create FILE SIZE");
    if (a->word[1] && image_size(a->word[1], &n.size))
        return CLI_ERROR;
    r = a->backing ? create_backing(a, &n, &err) : 0;
    if (r)
        return r;
    if (image_draft_begin(&d, a->word[0], a->force, &err) < 0)
        return cli_fail(a->json, &err);
    if (image_make(&d, &n, &err) < 0) {
        image_draft_abort(&d);
        return cli_fail(a->json, &err);
    }
    return image_draft_commit(&d, &err) < 0 ? cli_fail(a->json, &err) : CLI_OK;
}

static int convert_into(const struct image_args *a, struct block *src, struct image_new *n,
                        struct image_draft *d, struct err *err)
{
    struct image_opts o = { .format = n->format };
    struct image_progress p;
    struct block *dst;
    int last, r;

    n->size = src->size;
    r = image_make(d, n, err);
    if (r == 0)
        r = image_open(&dst, d->open, &o, err);
    if (r < 0)
        return r;
    p = image_progress(&last);
    r = image_copy(src, dst, n->format == IMAGE_QCOW2 ? BIT(n->cluster_bits) : 4096, &p, err);
    block_close(dst);
    return r;
}

static int image_convert(const struct image_args *a)
{
    struct image_opts o = { .format = image_args_format(a, a->format, a->word[0]), .ro = true };
    struct image_new n = { .format = IMAGE_FORMAT_NONE };
    struct image_backing named;
    struct image_draft d;
    struct err err = { "" };
    struct block *src;
    int r;

    if (o.format == IMAGE_FORMAT_NONE || image_cluster_bits(a, &n.cluster_bits) ||
        image_args_opts(a, &named, &o))
        return CLI_ERROR;
    n.format = image_args_format(a, a->to, a->word[1]);
    if (n.format == IMAGE_FORMAT_NONE)
        return CLI_ERROR;
    if (image_open(&src, a->word[0], &o, &err) < 0)
        return cli_fail(a->json, &err);
    r = image_draft_begin(&d, a->word[1], a->force, &err);
    if (r == 0) {
        r = convert_into(a, src, &n, &d, &err);
        if (r == 0)
            r = image_draft_commit(&d, &err);
        else
            image_draft_abort(&d);
    }
    block_close(src);
    return r < 0 ? cli_fail(a->json, &err) : CLI_OK;
}

/* A raw file is its disk. */
static int resize_raw(const char *path, struct block *b, uint64_t size, struct err *err)
{
    int r = 0;

    if (size < b->size)
        return err_set(err, EINVAL, "image '%s': a disk can only be made larger; it has %" PRIu64 " bytes",
                       path, b->size);
    if (truncate(path, (off_t)size) < 0)
        r = err_set(err, errno, "image '%s': cannot be made larger: %s", path, strerror(errno));
    else if (block_flush(b) < 0)
        r = err_set(err, EIO, "image '%s': its new size cannot be made durable", path);
    return r;
}

static int image_resize(const struct image_args *a)
{
    struct image_opts o = { .format = image_args_format(a, a->format, a->word[0]) };
    struct image_backing named;
    struct err err = { "" };
    bool more = a->word[1][0] == '+';
    struct block *b;
    uint64_t size;
    int r;

    if (o.format == IMAGE_FORMAT_NONE || image_args_opts(a, &named, &o) ||
        image_size(a->word[1] + more, &size))
        return CLI_ERROR;
    if (image_open(&b, a->word[0], &o, &err) < 0)
        return cli_fail(a->json, &err);
    size += more ? b->size : 0;
    r = o.format == IMAGE_RAW ? resize_raw(a->word[0], b, size, &err) : qcow2_grow(b, size, &err);
    block_close(b);
    return r < 0 ? cli_fail(a->json, &err) : CLI_OK;
}

/* The backing file, open for writing, and at least as large as the image. */
static int commit_base(const struct image_args *a, struct block *top, struct block **base, struct err *err)
{
    const struct qcow2_info *info = qcow2_info_of(top);
    struct image_opts o = { .allow_backing = a->allow_backing };
    const char *format = a->backing_format ? a->backing_format : info->backing_format;
    char *file;
    int r;

    if (!info->has_backing)
        return err_set(err, EINVAL, "image '%s': has no backing file that it could be committed to",
                       a->word[0]);
    if (!a->backing && !a->allow_backing)
        return err_set(
            err, EPERM,
            "image '%s': has the backing file '%.150s': allow it with --allow-backing or name it with "
            "--backing",
            a->word[0], info->backing);
    o.format = image_format_named(format);
    if (o.format == IMAGE_FORMAT_NONE)
        return err_set(err, EINVAL,
                       "image '%s': its backing file's format is not known: name it with --backing-format",
                       a->word[0]);
    file = a->backing ? strdup(a->backing) : image_relative(a->word[0], info->backing);
    if (!file)
        return err_set(err, ENOMEM, "out of memory");
    r = image_open(base, file, &o, err);
    if (r == 0 && (*base)->size < top->size) {
        r = o.format == IMAGE_RAW ? resize_raw(file, *base, top->size, err)
                                  : qcow2_grow(*base, top->size, err);
        block_close(*base);
        *base = NULL;
        if (r == 0)
            r = image_open(base, file, &o, err);
    }
    free(file);
    return r;
}

static int image_commit_verb(const struct image_args *a)
{
    struct image_opts o = { .format = image_args_format(a, a->format, a->word[0]), .no_backing = true };
    struct image_progress p;
    struct err err = { "" };
    struct block *top, *base = NULL;
    int last, r;

    if (o.format == IMAGE_FORMAT_NONE)
        return CLI_ERROR;
    if (o.format != IMAGE_QCOW2)
        return cli_failf("image '%s': a raw image has no backing file", a->word[0]);
    if (image_open(&top, a->word[0], &o, &err) < 0)
        return cli_fail(a->json, &err);
    r = commit_base(a, top, &base, &err);
    if (r == 0) {
        p = image_progress(&last);
        r = image_commit(top, base, &p, &err);
    }
    block_close(base);
    if (r == 0 && !a->keep && qcow2_make_empty(top) < 0)
        r = err_set(&err, EIO, "image '%s': was committed, but cannot be emptied", a->word[0]);
    block_close(top);
    return r < 0 ? cli_fail(a->json, &err) : CLI_OK;
}

/* --- words and options --- */

enum {
    ARG_FORMAT = 1,
    ARG_TO = 2,
    ARG_BACKING = 4,
    ARG_CLUSTER = 8,
    ARG_JSON = 16,
    ARG_FORCE = 32,
    ARG_REPAIR = 64,
    ARG_ALLOW = 128,
    ARG_KEEP = 256,
};

static const struct image_verb {
    const char *name;
    unsigned least, most; /* words */
    unsigned takes;
    int (*run)(const struct image_args *a);
} image_verbs[] = {
    { "create", 1, 2, ARG_FORMAT | ARG_BACKING | ARG_CLUSTER | ARG_FORCE, image_create },
    { "info", 1, 1, ARG_FORMAT | ARG_JSON, image_info },
    { "check", 1, 1, ARG_FORMAT | ARG_JSON | ARG_REPAIR, image_check },
    { "convert", 2, 2, ARG_FORMAT | ARG_TO | ARG_BACKING | ARG_CLUSTER | ARG_FORCE | ARG_ALLOW,
      image_convert },
    { "resize", 2, 2, ARG_FORMAT | ARG_BACKING | ARG_ALLOW, image_resize },
    { "commit", 1, 1, ARG_FORMAT | ARG_BACKING | ARG_ALLOW | ARG_KEEP, image_commit_verb },
};

static const struct image_option {
    const char *name;
    unsigned arg;
    bool text; /* has a value; else it is a flag */
    size_t offset;
} image_options[] = {
    { "--format", ARG_FORMAT, true, offsetof(struct image_args, format) },
    { "--to", ARG_TO, true, offsetof(struct image_args, to) },
    { "--backing", ARG_BACKING, true, offsetof(struct image_args, backing) },
    { "--backing-format", ARG_BACKING, true, offsetof(struct image_args, backing_format) },
    { "--cluster-size", ARG_CLUSTER, true, offsetof(struct image_args, cluster_size) },
    { "--json", ARG_JSON, false, offsetof(struct image_args, json) },
    { "--force", ARG_FORCE, false, offsetof(struct image_args, force) },
    { "--repair", ARG_REPAIR, false, offsetof(struct image_args, repair) },
    { "--allow-backing", ARG_ALLOW, false, offsetof(struct image_args, allow_backing) },
    { "--keep", ARG_KEEP, false, offsetof(struct image_args, keep) },
};

static const struct image_option *image_option(const struct image_verb *v, const char *word)
{
    for (size_t i = 0; i < ARRAY_LEN(image_options); i++) {
        if (!strcmp(word, image_options[i].name) && (v->takes & image_options[i].arg))
            return &image_options[i];
    }
    return NULL;
}

/* The words behind the verb. 0, or CLI_ERROR after a sentence. */
static int image_parse(const struct image_verb *v, int argc, char **argv, struct image_args *a)
{
    for (int i = 0; i < argc; i++) {
        const struct image_option *o;

        if (argv[i][0] != '-') {
            if (a->words == v->most)
                return cli_failf("'image %s' takes no word '%.80s': see 'vitro help image'", v->name,
                                 argv[i]);
            a->word[a->words++] = argv[i];
            continue;
        }
        o = image_option(v, argv[i]);
        if (!o)
            return cli_failf("'image %s' does not know '%.80s': see 'vitro help image'", v->name, argv[i]);
        if (!o->text) {
            *(bool *)((char *)a + o->offset) = true;
            continue;
        }
        if (++i == argc)
            return cli_failf("option '%s' needs a value: see 'vitro help image'", o->name);
        *(const char **)((char *)a + o->offset) = argv[i];
    }
    if (a->words < v->least)
        return cli_failf("'image %s' needs %s: see 'vitro help image'", v->name,
                         v->least == 1 ? "a file" : "two words");
    return 0;
}

int cmd_image(int argc, char **argv)
{
    struct image_args a = { .words = 0 };

    if (argc == 0)
        return cli_failf("say what to do: vitro image create, info, check, convert, resize, commit or build");
    if (!strcmp(argv[0], "build"))
        return image_build(argc - 1, argv + 1);
    for (size_t i = 0; i < ARRAY_LEN(image_verbs); i++) {
        const struct image_verb *v = &image_verbs[i];

        if (strcmp(argv[0], v->name))
            continue;
        return image_parse(v, argc - 1, argv + 1, &a) ? CLI_ERROR : v->run(&a);
    }
    return cli_failf("there is no 'image %.60s': use create, info, check, convert, resize, commit or build",
                     argv[0]);
}
