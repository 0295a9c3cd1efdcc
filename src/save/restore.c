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
#include "ram/move.h"
#include "save/internal.h"

struct save_file {
    struct save_layers l; /* itself, and what it stands on */
    char *path;
    uint8_t *about; /* the part, sum checked */
    size_t json_len; /* in about, behind its length */
    json_t *json;
};

void save_close(struct save_file *f)
{
    if (!f)
        return;
    save_layers_fini(&f->l);
    json_decref(f->json);
    free(f->about);
    free(f->path);
    free(f);
}

static int file_open(struct save_file *f, const char *path, struct err *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);

    return fd < 0 ? err_set(err, errno, "it cannot be opened: %s", strerror(errno)) : save_layers_add(&f->l, fd, err);
}

/* What the last one stands on, in the same folder. */
static int file_open_below(struct save_file *f, struct err *err)
{
    const char *slash = strrchr(f->path, '/'), *base = f->l.at[f->l.count - 1].h.base;
    char *path;
    int r;

    if (asprintf(&path, "%.*s%s", slash ? (int)(slash + 1 - f->path) : 0, f->path, base) < 0)
        return err_set(err, ENOMEM, "out of memory");
    r = file_open(f, path, err);
    if (r < 0)
        err_prefix(err, "it stands on '%s'", base);
    free(path);
    return r;
}

static int file_read_about(struct save_file *f, struct err *err)
{
    const struct save_layer *l = &f->l.at[0];
    int r = save_part_read(l->fd, &l->h.about, &f->about, "description", err);

    if (r < 0)
        return r;
    f->json_len = ld_le32(f->about);
    if (f->json_len > SAVE_JSON_MAX || f->json_len > l->h.about.len - 4)
        return err_set(err, EINVAL, "its description is longer than it can be");
    f->json = save_about_parse(f->about + 4, f->json_len, err);
    return f->json ? 0 : -EINVAL;
}

int save_open(struct save_file **out, const char *path, struct err *err)
{
    struct save_file *f = calloc(1, sizeof(*f));
    int r;

    *out = NULL;
    if (!f)
        return err_set(err, ENOMEM, "out of memory");
    f->path = strdup(path);
    r = f->path ? file_open(f, path, err) : err_set(err, ENOMEM, "out of memory");
    if (r == 0)
        r = file_read_about(f, err);
    while (r == 0 && !save_layers_whole(&f->l))
        r = file_open_below(f, err);
    if (r < 0) {
        err_prefix(err, "saved machine '%s'", path);
        save_close(f);
        return r;
    }
    *out = f;
    return 0;
}

unsigned save_stands_on(const struct save_file *f) { return f->l.count - 1; }

int save_borrow_fd(const struct save_file *f, unsigned n) { return n < f->l.count ? f->l.at[n].fd : -1; }

int save_config(const struct save_file *f, struct machine_config *c, const char *const *without, struct err *err)
{
    return save_about_config(f->json, c, without, f->path, err);
}

int save_check_disks(const struct save_file *f, const struct machine_config *c, uint64_t trusted, struct err *err)
{
    int r = save_about_disks(f->json, c, trusted, err);

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

bool save_maps(const struct save_file *f, const struct save_how *how) { return f->l.at[f->l.count - 1].h.flags & SAVE_PLAIN && !how->whole; }

/* The lowest file holds all of memory, the others what has changed since. */
static int save_fill_ram(struct save_file *f, struct vm *vm, const struct save_how *how, struct err *err)
{
    const struct save_layer *low = &f->l.at[f->l.count - 1];
    int r = save_maps(f, how) && !vm->ram.swap ? save_ram_map(&vm->ram, low->fd, &low->h, err)
                                               : save_ram_read(&vm->ram, low->fd, &low->h, low->table, err);

    if (r == 0)
        r = save_ram_lift(&vm->ram, &f->l, err);
    if (r == 0 && vm_wants_direct(vm->cfg, vm->engine.ops))
        ram_move_init(&vm->ram);
    return r;
}

static int save_fill(struct save_file *f, struct vm *vm, const struct save_how *how, struct err *err)
{
    const struct save_layer *top = &f->l.at[0];
    int r = save_layers_check(&f->l, &vm->ram, err);

    if (r == 0)
        r = save_overlays_read(vm, top->fd, &top->h, err);
    if (r == 0)
        r = save_fill_ram(f, vm, how, err);
    if (r == 0)
        r = save_state_give(vm, f->about + 4 + f->json_len, top->h.about.len - 4 - f->json_len, err);
    return r;
}

int save_restore(struct save_file *f, struct vm *vm, const struct save_how *how, struct err *err)
{
    int r = how->trust_disks ? 0 : save_about_disks(f->json, vm->cfg, 0, err);

    if (r == 0)
        r = save_fill(f, vm, how, err);
    if (r == 0)
        r = pc_vars_settle(vm, err);
    if (r < 0) {
        err_prefix(err, "saved machine '%s'", f->path);
        return r;
    }
    if (!how->stand)
        save_state_skip(vm, save_away_ns(f, vm));
    if (how->clone || how->rewind)
        r = vm_change_generation(vm);
    if (r == 0 && how->clone)
        r = pc_readdress_nets(vm);
    if (r < 0)
        return err_set(err, -r, "there is no randomness for a new identity: %s", strerror(-r));
    return 0;
}
