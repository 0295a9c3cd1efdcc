/* The destination of a migration. See migrate.h and stream.h.
 *
 * The machine is made before anything but its description has come, so that what does not fit is told while nothing has been done. Memory is
 * received into slots of its own and moves in without a copy when all is there. The images of disks that are written are looked at when
 * the machine is made, and opened, without their locks, when the source stands: it has written everything then, and does not write any more unless
 * it goes on, in which case this machine is thrown away.
 *
 * Thread: whoever builds the machine.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/err.h"
#include "migrate/migrate.h"
#include "ram/share.h"
#include "ram/swap.h"
#include "save/internal.h"

#define RECEIVE_ROM (128UL << 20) /* memory beside the guest's RAM: firmware, its flash */
#define RECEIVE_AWAY_NS (60 * NSEC_PER_SEC)

struct migrate_in {
    struct mig_stream stream;
    struct migrate_in_options o;
    uint8_t token[MIG_TOKEN];
    json_t *about;
    struct ram ram;
    struct machine_config *cfg; /* borrowed */
    unsigned slots;
    uint8_t slot[RAM_MAX_SLOTS * SAVE_SLOT];
    uint64_t used;       /* bytes of memory that the guest has touched, about */
    struct mig_copies copies;
    uint8_t *shape;      /* owned */
    size_t shape_len;
    uint8_t *staging; /* owned */
    uint64_t stopped_ns; /* when the source stopped, by its clock */
    bool paused;      /* it stood, and shall stand */
    bool given;       /* the source has given the machine up */
};

/* -- the beginning -- */

/* Both sides must want the same. */
static int receive_copies(struct migrate_in *in, bool copied, const uint8_t *entries, unsigned disks, struct err *err)
{
    if (copied && !in->o.copy_disks)
        return err_set(err, EPERM, "the source copies its disks, and who receives did not ask for that: --copy-disks on both sides");
    if (!copied && in->o.copy_disks)
        return err_set(err, EINVAL, "the source does not copy its disks, and who receives asked for that: --copy-disks on both sides");
    return mig_copies_parse(&in->copies, entries, disks, err);
}

static int receive_hello(struct migrate_in *in, const struct mig_frame *f, struct err *err)
{
    size_t slots, disks, about, left = f->len - MIG_HELLO_HEAD;
    const uint8_t *at = f->data + MIG_HELLO_HEAD;

    if (f->len < MIG_HELLO_HEAD)
        return err_set(err, EBADMSG, "the other side does not speak vitro's migration");
    if (ld_le32(f->data) != MIG_VERSION)
        return err_set(err, EPROTONOSUPPORT, "the source speaks version %u of the migration, this vitro version %u", ld_le32(f->data),
                       MIG_VERSION);
    in->slots = ld_le32(f->data + 4);
    slots = (size_t)in->slots * SAVE_SLOT;
    disks = (size_t)ld_le32(f->data + 44) * MIG_DISK_ENTRY;
    about = ld_le32(f->data + 12);
    if (in->slots > RAM_MAX_SLOTS || ld_le32(f->data + 8) != SAVE_CHUNK || disks > CONFIG_DISKS * MIG_DISK_ENTRY || left < slots + disks ||
        left - slots - disks < about)
        return err_set(err, EBADMSG, "the source describes a machine that cannot be");
    memcpy(in->token, f->data + 16, MIG_TOKEN);
    in->used = ld_le64(f->data + 32);
    memcpy(in->slot, at, slots);
    in->about = save_about_parse(at + slots + disks, about, err);
    if (!in->about)
        return -EINVAL;
    in->shape_len = left - slots - disks - about;
    in->shape = malloc(in->shape_len + 1);
    if (!in->shape)
        return err_set(err, ENOMEM, "out of memory");
    memcpy(in->shape, f->data + f->len - in->shape_len, in->shape_len);
    return receive_copies(in, ld_le32(f->data + 40) & MIG_COPIES, at + slots, (unsigned)(disks / MIG_DISK_ENTRY), err);
}

static void receive_tick(void *opaque)
{
    struct migrate_in *in = opaque;

    if (!in->given && in->o.give_up && in->o.give_up())
        atomic_store(&in->stream.cancel, true);
}

int migrate_hello(struct migrate_in **out, int from, int to, const struct migrate_in_options *o, struct err *err)
{
    struct migrate_in *in = calloc(1, sizeof(*in));
    struct mig_frame f;
    int r;

    *out = in;
    if (!in)
        return err_set(err, ENOMEM, "out of memory");
    in->o = *o;
    ram_init(&in->ram);
    in->staging = malloc(SAVE_CHUNK);
    r = mig_stream_init(&in->stream, from, to, (int)o->stall_s * 1000);
    in->stream.tick = receive_tick;
    in->stream.opaque = in;
    if (r < 0 || !in->staging)
        return err_set(err, r < 0 ? -r : ENOMEM, "the connection cannot be used: %s", strerror(r < 0 ? -r : ENOMEM));
    r = mig_expect(&in->stream, MIG_HELLO, 0, &f, err);
    return r < 0 ? r : receive_hello(in, &f, err);
}

int migrate_config(const struct migrate_in *in, struct machine_config *c, const char *const *without, struct err *err)
{
    return save_about_config(in->about, c, without, "(the source's configuration)", err);
}

/* Another number above 2, the old one stays. */
static int receive_move(int *fd)
{
    int n = fcntl(*fd, F_DUPFD_CLOEXEC, 3);

    if (n < 0)
        return -errno;
    *fd = n;
    return 0;
}

int migrate_in_keep(struct migrate_in *in)
{
    bool same = in->stream.in == in->stream.out;
    int r = receive_move(&in->stream.in);

    if (same)
        in->stream.out = in->stream.in;
    else if (r == 0)
        r = receive_move(&in->stream.out);
    return r;
}

/* -- memory and state -- */

/* No more memory than the configuration, which is the user's to judge, says. */
static int receive_slots(struct migrate_in *in, const struct machine_config *cfg, struct err *err)
{
    uint64_t left = cfg->memory + RECEIVE_ROM;
    int r = 0;

    for (unsigned n = 0; r == 0 && n < in->slots; n++) {
        const uint8_t *at = in->slot + (size_t)n * SAVE_SLOT;
        uint64_t size = ld_le64(at + 8);

        if (size > left)
            return err_set(err, EINVAL, "the source has more memory than this machine would have");
        left -= size;
        r = ram_add_slot(&in->ram, ld_le64(at), size, ld_le64(at + 16) != 0);
    }
    if (r < 0)
        return err_set(err, -r, "the source's memory cannot be made here: %s", strerror(-r));
    return cfg->swap ? ram_swap_create(&in->ram, cfg->swap, cfg->swap_limit, err) : 0;
}

/* Memory that the host can still give, in bytes; UINT64_MAX: it does not say (proc_meminfo(5)). */
static uint64_t receive_free(void)
{
    uint64_t free = 0, kib;
    unsigned found = 0;
    char line[128];
    FILE *f = fopen("/proc/meminfo", "re");

    while (f && fgets(line, sizeof(line), f)) {
        if (sscanf(line, "MemAvailable: %" SCNu64, &kib) == 1 || sscanf(line, "SwapFree: %" SCNu64, &kib) == 1) {
            free += kib << 10;
            found++;
        }
    }
    if (f)
        fclose(f);
    return found == 2 ? free : UINT64_MAX;
}

static int receive_room(const struct migrate_in *in, struct err *err)
{
    uint64_t room = receive_free();

    if (in->used <= room || in->ram.swap)
        return 0;
    return err_set(err, ENOMEM, "the guest uses %" PRIu64 " MiB of memory, and the host has %" PRIu64 " MiB left", in->used >> 20, room >> 20);
}

int migrate_make(struct migrate_in *in, struct vm **out, struct machine_config *cfg, const struct engine_ops *ops, struct err *err)
{
    ram_share(&in->ram, vm_wants_direct(cfg, ops));
    int r = receive_slots(in, cfg, err);

    *out = NULL;
    in->cfg = cfg;
    cfg->disks_late = true;
    if (r == 0)
        r = receive_room(in, err);
    if (r == 0 && in->o.copy_disks)
        r = mig_copies_begin(&in->copies, cfg, in->o.disk_folder, in->o.force, err);
    if (r == 0)
        r = vm_create_blank(out, cfg, ops, err);
    if (r == 0 && !ram_same_slots(&(*out)->ram, &in->ram))
        r = err_set(err, EINVAL, "the source's memory is laid out otherwise than this machine's: memory and firmware must be the same");
    if (r == 0)
        r = save_shape_check(*out, in->shape, in->shape_len, err);
    if (r < 0) {
        vm_destroy(*out);
        *out = NULL;
    }
    return r;
}

/* One frame of contents. 1: it is none. */
static int receive_piece(struct migrate_in *in, struct vm *vm, const struct mig_frame *f, struct err *err)
{
    int r;

    switch (f->type) {
    case MIG_CHUNK:
        return mig_take_chunk(&in->ram, f, in->staging, err);
    case MIG_DISK:
        return mig_copies_take(&in->copies, vm, f, in->staging, err);
    case MIG_SYNC:
        r = mig_copies_sync(&in->copies, err);
        return r < 0 ? r : mig_send(&in->stream, MIG_SYNCED, NULL, 0, NULL, 0, err);
    default:
        return 1;
    }
}

/* Frames until STATE, which is *f then. */
static int receive_contents(struct migrate_in *in, struct vm *vm, struct mig_frame *f, struct err *err)
{
    int r = mig_receive(&in->stream, f, err);

    while (r == 0 && (r = receive_piece(in, vm, f, err)) != 1) {
        if (r == 0)
            r = mig_receive(&in->stream, f, err);
    }
    if (r == 1)
        return f->type == MIG_STATE ? 0 : err_set(err, EBADMSG, "a piece of the migration is not the one that belongs here");
    return r;
}

static int receive_all(struct migrate_in *in, uint32_t frames, struct err *err)
{
    struct mig_frame f;
    int r = mig_expect(&in->stream, MIG_ALL, 8 + MIG_TOKEN, &f, err);

    if (r == 0 && (ld_le64(f.data) != frames || memcmp(f.data + 8, in->token, MIG_TOKEN)))
        return err_set(err, EBADMSG, "the migration is not complete");
    return r;
}

/* Everything that has come, into the machine. */
static int receive_give(struct migrate_in *in, const uint8_t *state, size_t len, struct vm *vm, struct err *err)
{
    size_t about = len < 16 ? len : ld_le32(state + 8);
    json_t *now;
    int r = 0;

    if (len < 16 || about > len - 16)
        return err_set(err, EBADMSG, "the machine's state is cut off");
    now = save_about_parse(state + 16, about, err);
    if (!now)
        return -EINVAL;
    in->paused = ld_le32(state) & MIG_PAUSED;
    in->stopped_ns = save_about_number(now, "saved_ns");
    if (!in->o.trust_disks)
        r = save_about_disks(now, in->cfg, BIT(in->copies.count) - 1, err);
    json_decref(now);
    if (r == 0)
        r = mig_copies_give(&in->copies, vm, err);
    if (r == 0)
        r = pc_open_disks(vm, err);
    if (r == 0 && (r = ram_take(&vm->ram, &in->ram)) < 0)
        err_set(err, -r, "the memory cannot be moved into the machine: %s", strerror(-r));
    if (r == 0)
        r = save_state_give(vm, state + 16 + about, len - 16 - about, err);
    return r < 0 ? r : pc_vars_arrive(vm, in->o.trust_disks || in->o.force, err);
}

/* STATE's bytes are copied, since ALL takes their place. */
static int receive_rest(struct migrate_in *in, const struct mig_frame *f, struct vm *vm, struct err *err)
{
    uint8_t *state = malloc(f->len ? f->len : 1);
    size_t len = f->len;
    int r;

    if (!state)
        return err_set(err, ENOMEM, "out of memory for the machine's state");
    memcpy(state, f->data, len);
    r = receive_all(in, in->stream.received, err);
    if (r == 0)
        r = receive_give(in, state, len, vm, err);
    free(state);
    return r;
}

int migrate_receive(struct migrate_in *in, struct vm *vm, struct err *err)
{
    uint8_t ready[8] = { MIG_VERSION };
    struct mig_frame f;
    int r = mig_send(&in->stream, MIG_READY, ready, sizeof(ready), NULL, 0, err);

    if (r == 0)
        r = receive_contents(in, vm, &f, err);
    return r == 0 ? receive_rest(in, &f, vm, err) : r;
}

/* -- taking over -- */

/* The guest's clocks go on by as long as it stood, if the hosts' clocks agree about as well as clocks do. */
static void receive_set_clock(const struct migrate_in *in, struct vm *vm)
{
    uint64_t now = clock_wall_ns(&vm->clock);

    if (in->stopped_ns && now > in->stopped_ns && now - in->stopped_ns < RECEIVE_AWAY_NS)
        save_state_skip(vm, now - in->stopped_ns);
}

int migrate_take_over(struct migrate_in *in, struct vm *vm, struct err *err)
{
    struct mig_frame f;
    struct err ignored;
    int r = mig_send(&in->stream, MIG_HELD, in->token, MIG_TOKEN, NULL, 0, err);

    if (r == 0)
        r = mig_expect(&in->stream, MIG_COMMIT, MIG_TOKEN, &f, err);
    if (r == 0 && memcmp(f.data, in->token, MIG_TOKEN))
        return err_set(err, EBADMSG, "the source speaks of another machine");
    if (r < 0)
        return r;
    in->given = true;
    r = pc_take_disks(vm, err);
    if (r < 0)
        return r;
    if (!in->paused)
        receive_set_clock(in, vm);
    vm->life.hold = in->paused;
    mig_send(&in->stream, MIG_RUNS, in->token, MIG_TOKEN, NULL, 0, &ignored); /* who does not hear it, ends all the same */
    return 0;
}

void migrate_in_close(struct migrate_in *in, const struct err *err)
{
    size_t len = err ? strlen(err->text) : 0;

    if (!in)
        return;
    atomic_store(&in->stream.cancel, false);
    in->o.give_up = NULL;
    if (len && !in->given && in->stream.out >= 0)
        mig_send(&in->stream, MIG_REFUSE, err->text, len < 500 ? len : 500, NULL, 0, NULL);
    mig_stream_fini(&in->stream);
    ram_fini(&in->ram);
    json_decref(in->about);
    mig_copies_fini(&in->copies, in->given);
    free(in->staging);
    free(in->shape);
    free(in);
}
