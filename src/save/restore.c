/* Restoring a machine: the file is opened and checked but for its memory, then given to a machine that was made blank from
 * its configuration.
 *
 * Thread: whoever builds the machine.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/bits.h"
#include "base/err.h"
#include "block/file.h"
#include "machine/vm.h"
#include "save/internal.h"

struct save_file {
    int fd;
    char *path;
    struct save_header h;
    uint8_t *table, *about; /* the parts, sums checked */
    size_t json_len;        /* in about, behind its length */
    json_t *json;
};

void save_close(struct save_file *f)
{
    if (!f)
        return;
    if (f->fd >= 0)
        close(f->fd);
    json_decref(f->json);
    free(f->table);
    free(f->about);
    free(f->path);
    free(f);
}

static int file_read_header(struct save_file *f, struct err *err)
{
    uint8_t raw[SAVE_HEADER];
    struct stat st;
    int r;

    if (fstat(f->fd, &st) < 0)
        return err_set(err, errno, "it cannot be looked at: %s", strerror(errno));
    if (!S_ISREG(st.st_mode))
        return err_set(err, EINVAL, "it is not a regular file");
    if (st.st_size < SAVE_HEADER)
        return err_set(err, EINVAL, "it is too short to be a saved machine");
    r = block_file_read(f->fd, 0, raw, sizeof(raw));
    if (r < 0)
        return err_set(err, -r, "it cannot be read: %s", strerror(-r));
    return save_header_get(&f->h, raw, (uint64_t)st.st_size, err);
}

/* A part is at most as long as the file. */
static int file_read_part(struct save_file *f, const struct save_part *p, uint8_t **out, const char *what,
                          struct err *err)
{
    int r;

    *out = malloc(p->len ? p->len : 1);
    if (!*out)
        return err_set(err, ENOMEM, "out of memory for its %s", what);
    r = block_file_read(f->fd, p->off, *out, p->len);
    if (r < 0)
        return err_set(err, -r, "its %s cannot be read: %s", what, strerror(-r));
    if (XXH64(*out, p->len, 0) != p->sum)
        return err_set(err, EINVAL, "its %s is damaged (the checksum is wrong)", what);
    return 0;
}

static int file_read(struct save_file *f, struct err *err)
{
    int r = file_read_header(f, err);

    if (r == 0)
        r = file_read_part(f, &f->h.about, &f->about, "description", err);
    if (r < 0)
        return r;
    f->json_len = ld_le32(f->about);
    if (f->json_len > SAVE_JSON_MAX || f->json_len > f->h.about.len - 4)
        return err_set(err, EINVAL, "its description is longer than it can be");
    f->json = save_about_parse(f->about + 4, f->json_len, err);
    return f->json ? file_read_part(f, &f->h.table, &f->table, "table of memory", err) : -EINVAL;
}

int save_open(struct save_file **out, const char *path, struct err *err)
{
    struct save_file *f = calloc(1, sizeof(*f));
    int r;

    *out = NULL;
    if (!f)
        return err_set(err, ENOMEM, "out of memory");
    f->path = strdup(path);
    f->fd = f->path ? open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY) : -1;
    r = f->fd < 0 ? err_set(err, errno, "it cannot be opened: %s", strerror(errno)) : file_read(f, err);
    if (r < 0) {
        err_prefix(err, "saved machine '%s'", path);
        save_close(f);
        return r;
    }
    *out = f;
    return 0;
}

int save_config(const struct save_file *f, struct machine_config *c, const char *const *without, struct err *err)
{
    return save_about_config(f->json, c, without, f->path, err);
}

int save_check_disks(const struct save_file *f, const struct machine_config *c, struct err *err)
{
    int r = save_about_disks(f->json, c, 0, err);

    if (r < 0)
        err_prefix(err, "saved machine '%s'", f->path);
    return r;
}

/* How long the machine has been away; 0 if the host's clock went back. */
static uint64_t save_away_ns(const struct save_file *f, struct vm *vm)
{
    uint64_t then = save_about_number(f->json, "saved_ns"), now = clock_wall_ns(&vm->clock);

    return then && now > then ? now - then : 0;
}

static int save_fill(struct save_file *f, struct vm *vm, bool whole, struct err *err)
{
    int r = save_ram_check(&vm->ram, &f->h, f->table, err);

    if (r == 0)
        r = save_overlays_read(vm, f->fd, &f->h, err);
    if (r == 0 && (f->h.flags & SAVE_PLAIN) && !whole)
        r = save_ram_map(&vm->ram, f->fd, &f->h, err);
    else if (r == 0)
        r = save_ram_read(&vm->ram, f->fd, &f->h, f->table, err);
    if (r == 0)
        r = save_state_give(vm, f->about + 4 + f->json_len, f->h.about.len - 4 - f->json_len, err);
    return r;
}

int save_restore(struct save_file *f, struct vm *vm, const struct save_how *how, struct err *err)
{
    int r = how->trust_disks ? 0 : save_about_disks(f->json, vm->cfg, 0, err);

    if (r == 0)
        r = save_fill(f, vm, how->whole, err);
    if (r < 0) {
        err_prefix(err, "saved machine '%s'", f->path);
        return r;
    }
    if (!how->stand)
        clock_set_ns(&vm->clock, clock_ns(&vm->clock) + save_away_ns(f, vm));
    if (how->clone && (r = vm_change_generation(vm)) < 0)
        return err_set(err, -r, "there is no randomness for a new generation: %s", strerror(-r));
    return 0;
}
