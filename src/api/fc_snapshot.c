/* The Firecracker API's snapshots, in two files. See fc_call.h; docs/design/life.md says why the files are as they are.
 *
 *   mem_file_path   the saved machine, plain (save/format.h): 'vitro restore' takes it as well. Full: all of it; Diff: over the memory file of the last
 *                   snapshot of this machine, or of the one that it was loaded from, if that is in the same folder (else: all of it, too)
 *   snapshot_path   JSON: { "format": "vitro snapshot", "version": 1, "memory": SUM, "said": what GET /vm/config tells }
 *
 * SUM is the sum in the saved machine's header, over which hang the sums of everything in it: files of two snapshots are not mixed.
 * Both files are hostile when they are loaded. Thread: the machine's, no lock held.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "api/fc_call.h"
#include "base/bits.h"
#include "base/err.h"
#include "block/file.h"
#include "machine/vm.h"
#include "save/format.h"

#define SNAPSHOT_MAX  (1 << 20) /* bytes of a description */
#define SNAPSHOT_SUM  17
#define SNAPSHOT_FORM "vitro snapshot"

enum { SNAPSHOT_MEMORY, SNAPSHOT_SAID }; /* the maker's slots */

static const char *snapshot_text(const struct fc_call *k, const char *key)
{
    return json_string_value(json_object_get(k->body, key));
}

/* Which saved machine is in that file, as text. */
static int snapshot_sum(int fd, char sum[SNAPSHOT_SUM])
{
    uint8_t raw[8];
    int r = block_file_read(fd, SAVE_HEADER - sizeof(raw), raw, sizeof(raw));

    snprintf(sum, SNAPSHOT_SUM, "%016" PRIx64, r == 0 ? ld_le64(raw) : 0);
    return r;
}

/* ---- creating ---- */

void fc_base_drop(struct fc_base *b)
{
    while (b->count)
        close(b->fd[--b->count]);
}

/* The memory file of a snapshot, and those that it stands on: the next one may stand on them. Descriptors are duplicated; without all of them there is
 * no base. */
static void base_set(struct fc_base *b, const char *path, const int *fd, unsigned count)
{
    struct fc_base next = { .count = 0 };
    bool good = count <= SAVE_LAYERS && config_whole_path(path, strlen(path), next.path) == 0;

    for (unsigned n = 0; good && n < count; n++) {
        next.fd[n] = fcntl(fd[n], F_DUPFD_CLOEXEC, 3);
        good = next.fd[n] >= 0;
        next.count += good;
    }
    if (!good)
        fc_base_drop(&next);
    fc_base_drop(b);
    *b = next;
}

/* Can a memory file at that path stand on the last one? Both have to be in one folder, and that one is not to be replaced. */
static bool base_fits(const struct fc_base *b, const char *path)
{
    char real[PATH_MAX];
    size_t len;

    if (!b->count || b->count >= SAVE_LAYERS || config_whole_path(path, strlen(path), real) < 0)
        return false;
    len = (size_t)(strrchr(real, '/') - real);
    return !strncmp(real, b->path, len + 1) && !strchr(b->path + len + 1, '/') && strcmp(real, b->path);
}

/* Its descriptors, for who takes them over: how many. */
static unsigned base_lend(const struct fc_base *b, int fd[SAVE_LAYERS])
{
    for (unsigned n = 0; n < b->count; n++) {
        fd[n] = fcntl(b->fd[n], F_DUPFD_CLOEXEC, 3);
        if (fd[n] >= 0)
            continue;
        while (n > 0)
            close(fd[--n]);
        return 0;
    }
    return b->count;
}

/* The saved machine, into a file that is given back open, over the last one if it may be. *over: it stands on that. */
static int snapshot_memory(struct firecracker *f, const char *path, bool diff, char sum[SNAPSHOT_SUM], bool *over, struct err *err)
{
    struct save_options o = { .plain = true, .given = true };
    int base[SAVE_LAYERS], r, fd = maker_begin(&f->maker, SNAPSHOT_MEMORY, path, err);

    if (fd < 0)
        return fd;
    o.fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    o.base = base;
    o.bases = diff && base_fits(&f->base, path) ? base_lend(&f->base, base) : 0;
    o.base_name = strrchr(f->base.path, '/') ? strrchr(f->base.path, '/') + 1 : NULL;
    *over = o.bases;
    r = o.fd < 0 ? err_set(err, errno, "cannot save: %s", strerror(errno)) : save_machine(f->vm, path, &o, err);
    if (r == 0 && snapshot_sum(fd, sum) < 0)
        r = err_set(err, EIO, "'%.300s' cannot be read", path);
    if (r == 0)
        return fd;
    close(fd);
    return r;
}

static int snapshot_said(struct firecracker *f, int fd, const char *sum, struct err *err)
{
    char *text = NULL;
    json_t *said = json_pack("{s:s, s:i, s:s, s:O}", "format", SNAPSHOT_FORM, "version", 1, "memory", sum, "said", f->said);
    int r;

    if (said)
        text = json_dumps(said, JSON_COMPACT);
    json_decref(said);
    if (!text)
        return err_set(err, ENOMEM, "out of memory");
    r = block_file_write(fd, 0, text, strlen(text));
    free(text);
    return r < 0 ? err_set(err, -r, "the snapshot cannot be written: %s", strerror(-r)) : 0;
}

/* What the next Diff may stand on: this file, and if it stands on others, those. */
static void snapshot_note(struct firecracker *f, const char *path, int fd, bool over)
{
    int all[SAVE_LAYERS + 1] = { fd };
    unsigned count = over ? f->base.count : 0;

    memcpy(all + 1, f->base.fd, count * sizeof(*all));
    base_set(&f->base, path, all, 1 + count);
}

/* Neither file has its name before both are whole. */
static int snapshot_create(struct firecracker *f, const char *path, const char *memory, bool diff, struct err *err)
{
    char sum[SNAPSHOT_SUM];
    bool over = false;
    int r, fd = maker_begin(&f->maker, SNAPSHOT_SAID, path, err), made;

    if (fd < 0)
        return fd;
    r = made = snapshot_memory(f, memory, diff, sum, &over, err);
    if (r >= 0)
        r = snapshot_said(f, fd, sum, err);
    close(fd);
    if (r == 0)
        r = maker_commit(&f->maker, SNAPSHOT_MEMORY, err);
    if (r == 0)
        snapshot_note(f, memory, made, over);
    if (made >= 0)
        close(made);
    if (r == 0)
        return maker_commit(&f->maker, SNAPSHOT_SAID, err);
    maker_abort(&f->maker, SNAPSHOT_MEMORY);
    maker_abort(&f->maker, SNAPSHOT_SAID);
    return r;
}

void fc_snapshot_create(struct fc_call *k)
{
    const char *path = snapshot_text(k, "snapshot_path"), *memory = snapshot_text(k, "mem_file_path");
    const char *type = snapshot_text(k, "snapshot_type");
    struct err err = { "" };

    if (!fc_late(k))
        return;
    if (!path || !memory || !strcmp(path, memory))
        fc_fault(k, "a snapshot needs snapshot_path and mem_file_path, two files");
    else if (json_object_get(k->body, "snapshot_type") && (!type || (strcmp(type, "Full") && strcmp(type, "Diff"))))
        fc_fault(k, "snapshot_type is neither Full nor Diff");
    else if (!k->f->vm->life.paused)
        fc_fault(k, "the microVM runs: PATCH /vm with state Paused first");
    else if (snapshot_create(k->f, path, memory, type && !strcmp(type, "Diff"), &err) < 0)
        fc_fault(k, err.text);
    else
        fc_done(k);
}

/* ---- loading ---- */

static int snapshot_open(const char *path, struct err *err)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);

    if (fd < 0)
        return err_set(err, errno, "'%.300s' cannot be opened: %s", path, strerror(errno));
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode))
        return fd;
    close(fd);
    return err_set(err, EINVAL, "'%.300s' is not a regular file", path);
}

static bool snapshot_form_ok(json_t *root)
{
    const char *format, *sum;
    json_t *machine, *drives, *nets, *balloon = NULL;
    int version;

    return json_unpack(root, "{s:s, s:i, s:s, s:{s:o, s:o, s:o, s?o}}", "format", &format, "version", &version, "memory", &sum,
                       "said", "machine-config", &machine, "drives", &drives, "network-interfaces", &nets, "balloon",
                       &balloon) == 0 &&
           !strcmp(format, SNAPSHOT_FORM) && version == 1 && json_is_object(machine) && json_is_array(drives) &&
           json_is_array(nets) && (!balloon || json_is_object(balloon));
}

/* The description, with its form checked. NULL with a sentence. */
static json_t *snapshot_parse(const char *path, struct err *err)
{
    char *text = malloc(SNAPSHOT_MAX);
    int fd = text ? snapshot_open(path, err) : err_set(err, ENOMEM, "out of memory");
    ssize_t len = fd >= 0 ? read(fd, text, SNAPSHOT_MAX) : -1;
    json_t *root = len > 0 && len < SNAPSHOT_MAX ? json_loadb(text, (size_t)len, JSON_REJECT_DUPLICATES, NULL) : NULL;

    free(text);
    if (fd < 0)
        return NULL;
    close(fd);
    if (root && snapshot_form_ok(root))
        return root;
    json_decref(root);
    err_set(err, EINVAL, "'%.300s' is not a snapshot that this vitro knows", path);
    return NULL;
}

/* Is it the memory that belongs to the description? */
static int snapshot_match(const json_t *root, const char *memory, struct err *err)
{
    const char *want = json_string_value(json_object_get(root, "memory"));
    char sum[SNAPSHOT_SUM];
    int fd = snapshot_open(memory, err), r;

    if (fd < 0)
        return fd;
    r = snapshot_sum(fd, sum);
    close(fd);
    return r < 0 || strcmp(sum, want) ? err_set(err, EINVAL, "'%.300s' is not the memory of this snapshot", memory) : 0;
}

/* A Diff of the machine may stand on what it was loaded from. */
static void snapshot_loaded(struct firecracker *f, const struct save_file *file, const char *memory)
{
    int fd[SAVE_LAYERS + 1];
    unsigned count = 1 + save_stands_on(file);

    for (unsigned n = 0; n < count && n < ARRAY_LEN(fd); n++)
        fd[n] = save_borrow_fd(file, n);
    base_set(&f->base, memory, fd, count);
}

static int snapshot_start(struct firecracker *f, const json_t *root, const char *memory, struct err *err)
{
    struct save_file *file;
    int r = save_open(&file, memory, err);

    if (r < 0)
        return r;
    config_fini(&f->cfg);
    r = config_init(&f->cfg) < 0 ? err_set(err, ENOMEM, "out of memory") : save_config(file, &f->cfg, NULL, err);
    if (r == 0)
        r = config_check(&f->cfg, err);
    if (r == 0)
        fc_metadata_begin(f, json_object_get(root, "said"));
    if (r == 0)
        r = fc_start(f, file, err);
    if (r == 0)
        snapshot_loaded(f, file, memory);
    save_close(file);
    if (r == 0) {
        json_decref(f->said);
        f->said = json_incref(json_object_get(root, "said"));
    }
    return r;
}

static int snapshot_load(struct firecracker *f, const char *path, const char *memory, struct err *err)
{
    json_t *root = snapshot_parse(path, err);
    int r = root ? snapshot_match(root, memory, err) : -EINVAL;

    if (r == 0)
        r = snapshot_start(f, root, memory, err);
    json_decref(root);
    return r;
}

/* Where the memory is: mem_file_path, or mem_backend, but not both. NULL: neither, or not a file. */
static const char *snapshot_backend(const struct fc_call *k)
{
    const json_t *backend = json_object_get(k->body, "mem_backend");
    const char *type = json_string_value(json_object_get(backend, "backend_type")), *path = snapshot_text(k, "mem_file_path");

    if (!backend)
        return path;
    return type && !strcmp(type, "File") && !path ? json_string_value(json_object_get(backend, "backend_path")) : NULL;
}

void fc_snapshot_load(struct fc_call *k)
{
    const char *path = snapshot_text(k, "snapshot_path"), *memory = snapshot_backend(k);
    struct firecracker *f = k->f;
    struct err err = { "" };

    if (!fc_early(k))
        return;
    if (json_object_size(f->said) > 3 || json_array_size(fc_said(f, "drives")) || json_array_size(fc_said(f, "network-interfaces")))
        fc_fault(k, "a snapshot cannot be loaded after the microVM was configured");
    else if (!path || !memory)
        fc_fault(k, "a snapshot needs snapshot_path, and either mem_file_path or mem_backend with backend_type File and backend_path");
    else if (json_object_get(k->body, "network_overrides"))
        fc_fault(k, "network_overrides is not supported");
    else if (snapshot_load(f, path, memory, &err) < 0)
        fc_fault(k, err.text);
    else {
        f->vm->life.hold = !json_is_true(json_object_get(k->body, "resume_vm"));
        fc_done(k);
    }
}
