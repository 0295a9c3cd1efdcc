/* The wiring of the `pc` machine's virtio devices and its CD drive: on PCI slots from 1 on.
 *
 * Threads: pc_init_virtio() and pc_fini_virtio() while no other thread knows the machine.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "block/image.h"
#include "block/uring.h"
#include "machine/seed.h"
#include "machine/vm.h"

struct vm_disk {
    struct virtio_blk blk;
    struct block *block; /* owned */
    char name[24];
};

#define PC_DISK_QUEUES 4 /* by default: what there are I/O threads for */

/* look: another machine writes to it: only what it is may be found out. */
static int pc_open_disk(struct block **out, const struct config_disk *cfg, bool unlocked, bool look, struct err *err)
{
    struct image_backing backing[IMAGE_CHAIN_MAX];
    struct image_opts o = {
        .format = cfg->format,
        .ro = cfg->ro || cfg->ephemeral || look,
        .unlocked = unlocked,
        .allow_backing = cfg->allow_backing,
        .backing = backing,
        .backings = cfg->backings,
    };
    char how[128];
    struct block *base;
    int r;

    if (cfg->aio == BLOCK_AIO_IO_URING && !uring_probe(how, sizeof(how)))
        return err_set(err, ENOSYS, "disk '%s': aio=io_uring cannot be had here (%s): use aio=auto", cfg->path, how);
    for (unsigned i = 0; i < cfg->backings; i++)
        backing[i] = (struct image_backing){ cfg->backing[i], image_format_suffix(cfg->backing[i]) };
    r = image_open(&base, cfg->path, &o, err);
    if (r == 0 && cfg->ephemeral)
        r = block_overlay_open(&base, base, err);
    if (r < 0) {
        err_prefix(err, "disk");
        return r;
    }
    *out = base;
    return 0;
}

static int pc_wire_disk(struct vm *vm, struct vm_disk *d, const struct config_disk *cfg, unsigned n)
{
    unsigned queues = vm->cfg->cpus < PC_DISK_QUEUES ? vm->cfg->cpus : PC_DISK_QUEUES;
    struct virtio_blk_setup setup = {
        .block = d->block,
        .loop = &vm->loop,
        .ram = &vm->ram,
        .deliver = pc_deliver,
        .deliver_opaque = vm,
        .name = d->name,
        .serial = cfg->serial[0] ? cfg->serial : d->name,
        .queues = cfg->queues ? cfg->queues : queues,
        .aio = cfg->aio,
        .limit = cfg->limit,
    };
    int r = virtio_blk_init(&d->blk, &setup);

    if (r < 0)
        return r;
    pc_add_device(vm, &virtio_blk_ops, &d->blk, n);
    return pci_dev_plug(&d->blk.vp.pci, &vm->pci, -1);
}

unsigned pc_disk_slot(const struct vm *vm, unsigned n) { return vm->disk[n]->blk.vp.pci.devfn >> 3; }

int pc_flush_disks(struct vm *vm, struct err *err)
{
    for (unsigned n = 0; n < vm->ndisks; n++) {
        struct block *b = vm->disk[n]->block;
        int r = b->ro ? 0 : block_flush(b);

        if (r < 0)
            return err_set(err, -r, "%s cannot be written: %s", vm->disk[n]->name, strerror(-r));
    }
    return pc_vars_flush(vm, err);
}

/* What can fail comes before anything has changed. */
int vm_disk_overlay(struct vm *vm, unsigned n, int fd, const char *path, struct err *err)
{
    struct config_overlay change;
    struct block *over;
    int r = vm->life.paused ? 0 : err_set(err, EBUSY, "the machine runs");

    if (r == 0 && n < vm->ndisks && block_log_is_on(vm->disk[n]->block))
        r = err_set(err, EBUSY, "disk %u is being copied to another host", n);
    if (r == 0)
        r = config_overlay_begin(&change, vm->cfg, n, path, err);

    if (r < 0) {
        close(fd);
        return r;
    }
    r = image_overlay(&over, fd, path, vm->disk[n]->block, change.disk->format, err);
    if (r < 0) {
        config_overlay_abort(&change);
        return r;
    }
    loop_lock(&vm->loop);
    vm->disk[n]->block = over;
    virtio_blk_switch(&vm->disk[n]->blk, over);
    config_overlay_commit(&change);
    loop_unlock(&vm->loop);
    return 0;
}

int pc_take_disks(struct vm *vm, struct err *err)
{
    for (unsigned n = 0; n < vm->ndisks; n++) {
        int r = vm->disk[n]->block->ro ? 0 : block_take(vm->disk[n]->block);

        if (r < 0)
            return err_set(err, -r, "%s cannot be locked: %s", vm->disk[n]->name,
                           r == -EAGAIN ? "it is in use by another machine or tool" : strerror(-r));
    }
    return pc_vars_take(vm, err);
}

void pc_give_disks(struct vm *vm)
{
    pc_vars_give(vm);
    for (unsigned n = 0; n < vm->ndisks; n++) {
        if (!vm->disk[n]->block->ro)
            block_give(vm->disk[n]->block);
    }
}

/* Takes block over, also on failure. */
static int pc_add_block(struct vm *vm, struct block *block, const struct config_disk *cfg, const char *kind,
                        struct err *err)
{
    struct vm_disk *d = calloc(1, sizeof(*d));
    unsigned n = vm->ndisks;
    int r;

    if (!d) {
        block_close(block);
        return err_set(err, ENOMEM, "out of memory for disk %u", n);
    }
    d->block = block;
    vm->disk[vm->ndisks++] = d;
    snprintf(d->name, sizeof(d->name), "vitro-%s%u", kind, n);
    r = pc_wire_disk(vm, d, cfg, n);
    return r < 0 ? err_set(err, -r, "cannot add disk '%s': %s", cfg->path, strerror(-r)) : 0;
}

/* A disk that was looked at, and is opened later. */
static int pc_put_off(struct block **b, const struct config_disk *cfg, struct err *err)
{
    uint64_t size = (*b)->size;

    block_close(*b);
    if (access(cfg->path, R_OK | W_OK) < 0)
        return err_set(err, errno, "disk '%s' cannot be written: %s", cfg->path, strerror(errno));
    return block_absent_open(b, size, false) < 0 ? err_set(err, ENOMEM, "out of memory") : 0;
}

void pc_set_disk(struct vm *vm, unsigned n, struct block *block)
{
    loop_lock(&vm->loop);
    block_close(vm->disk[n]->block);
    vm->disk[n]->block = block;
    virtio_blk_switch(&vm->disk[n]->blk, block);
    loop_unlock(&vm->loop);
}

int pc_open_disks(struct vm *vm, struct err *err)
{
    struct block *block;
    int r = 0;

    for (unsigned n = 0; r == 0 && n < vm->cfg->disks; n++) {
        if (!block_is_absent(vm->disk[n]->block))
            continue;
        r = pc_open_disk(&block, &vm->cfg->disk[n], true, false, err);
        if (r == 0 && block->size != vm->disk[n]->block->size) {
            block_close(block);
            r = err_set(err, ESTALE, "disk '%s' has another size than before", vm->cfg->disk[n].path);
        }
        if (r == 0)
            pc_set_disk(vm, n, block);
    }
    return r;
}

static int pc_add_disk(struct vm *vm, const struct config_disk *cfg, const char *kind, struct err *err)
{
    bool late = vm->cfg->disks_late && !cfg->ro && !cfg->ephemeral; /* nobody writes to the image of an ephemeral one */
    struct block *block;
    int r;

    if (cfg->later)
        r = block_absent_open(&block, cfg->later, cfg->ro || cfg->ephemeral) < 0 ? err_set(err, ENOMEM, "out of memory") : 0;
    else
        r = pc_open_disk(&block, cfg, late, late, err);
    if (r == 0 && cfg->later && cfg->ephemeral)
        r = block_overlay_open(&block, block, err);
    if (r == 0 && late && !cfg->later)
        r = pc_put_off(&block, cfg, err);
    return r < 0 ? r : pc_add_block(vm, block, cfg, kind, err);
}

/* In a drive, unless the guest has no driver for one. */
static int pc_add_cdrom(struct vm *vm, struct err *err)
{
    struct config_disk cfg = { .path = vm->cfg->cdrom, .format = IMAGE_RAW, .ro = true };
    int r;

    if (vm->cfg->cdrom_virtio)
        return pc_add_disk(vm, &cfg, "cdrom", err);
    r = image_open(&vm->cd.block, cfg.path, &(struct image_opts){ .format = IMAGE_RAW, .ro = true }, err);
    if (r < 0) {
        err_prefix(err, "cdrom");
        return r;
    }
    r = ahci_init(&vm->cd.ahci, vm->cd.block, &vm->loop, &vm->ram, "cdrom");
    pc_add_device(vm, &ahci_ops, &vm->cd.ahci, 0);
    if (r == 0)
        r = pci_dev_plug(&vm->cd.ahci.pci, &vm->pci, -1);
    return r < 0 ? err_set(err, -r, "cannot add the CD drive for '%s': %s", cfg.path, strerror(-r)) : 0;
}

static int pc_add_seed(struct vm *vm, struct err *err)
{
    struct config_disk cfg = { .path = vm->cfg->cloud_init, .ro = true };
    struct block *block;
    int r = seed_open(&block, vm->cfg, err);

    return r < 0 ? r : pc_add_block(vm, block, &cfg, "seed", err);
}

static int pc_wire_rng(struct vm *vm)
{
    int r;

    r = virtio_rng_init(&vm->rng, &vm->rand, &vm->loop, &vm->ram, pc_deliver, vm);
    if (r < 0)
        return r;
    pc_add_device(vm, &virtio_rng_ops, &vm->rng, 0);
    return pci_dev_plug(&vm->rng.vp.pci, &vm->pci, -1);
}

static int pc_wire_balloon(struct vm *vm)
{
    int r = virtio_balloon_init(&vm->balloon, &vm->loop, &vm->ram, pc_deliver, vm);

    if (r < 0)
        return r;
    pc_add_device(vm, &virtio_balloon_ops, &vm->balloon, 0);
    return pci_dev_plug(&vm->balloon.vp.pci, &vm->pci, -1);
}

int pc_init_virtio(struct vm *vm, struct err *err)
{
    int r = pc_wire_rng(vm);

    if (r < 0)
        return err_set(err, -r, "cannot add the entropy device: %s", strerror(-r));
    r = pc_wire_balloon(vm);
    if (r < 0)
        return err_set(err, -r, "cannot add the balloon: %s", strerror(-r));
    r = pc_init_console(vm, err);
    for (unsigned n = 0; r == 0 && n < vm->cfg->disks; n++)
        r = pc_add_disk(vm, &vm->cfg->disk[n], "disk", err);
    if (r == 0 && vm->cfg->cdrom)
        r = pc_add_cdrom(vm, err);
    if (r == 0 && vm->cfg->cloud_init)
        r = pc_add_seed(vm, err);
    if (r == 0)
        r = pc_init_shares(vm, err);
    return r < 0 ? r : pc_init_vsock(vm, err);
}

void pc_fini_virtio(struct vm *vm)
{
    pc_fini_vsock(vm);
    pc_fini_shares(vm);
    while (vm->ndisks > 0) {
        struct vm_disk *d = vm->disk[--vm->ndisks];

        block_close(d->block);
        free(d);
    }
    block_close(vm->cd.block);
    vm->cd.block = NULL;
}

struct block *pc_disk_block(const struct vm *vm, unsigned n) { return vm->disk[n]->block; }

const struct virtio_blk *pc_disk(const struct vm *vm, unsigned n) { return &vm->disk[n]->blk; }

/* The machine stands. */
static int pc_change_disk(struct vm *vm, unsigned n, struct block *block, const char *path, struct err *err)
{
    struct block *old = vm->disk[n]->block;
    int r = old->ro ? 0 : block_flush(old);

    if (r < 0)
        return err_set(err, -r, "the disk cannot be written: %s", strerror(-r));
    r = block_trade(old, block);
    if (r == -EAGAIN)
        return err_set(err, EBUSY, "image '%s' is in use by another machine or tool", path);
    if (r < 0)
        return err_set(err, -r, "cannot lock image '%s': %s", path, strerror(-r));
    r = config_move_disk(vm->cfg, n, path, err);
    if (r < 0) {
        block_trade(block, old);
        return r;
    }
    loop_lock(&vm->loop);
    vm->disk[n]->block = block;
    virtio_blk_change(&vm->disk[n]->blk, block);
    loop_unlock(&vm->loop);
    block_close(old);
    return 0;
}

int vm_change_disk(struct vm *vm, unsigned n, struct block *block, const char *path, struct err *err)
{
    bool stood = vm->life.paused;
    int r;

    if (n >= vm->cfg->disks || vm->cfg->disk[n].format != IMAGE_RAW || vm->cfg->disk[n].ephemeral || vm->cfg->disk[n].ro != block->ro) {
        r = err_set(err, EINVAL, "the disk is not a raw image");
    } else if (block_log_is_on(vm->disk[n]->block) || vm->life.handing) {
        r = err_set(err, EBUSY, "the disk is being copied to another host");
    } else {
        vm_set_paused(vm, true);
        r = pc_change_disk(vm, n, block, path, err);
        if (!stood)
            vm_set_paused(vm, false);
    }
    if (r < 0)
        block_close(block);
    return r;
}

int vm_limit_disk(struct vm *vm, unsigned n, const struct limit_rate *bytes, const struct limit_rate *ops)
{
    if (n >= vm->ndisks)
        return -ENOENT;
    loop_lock(&vm->loop);
    virtio_blk_limit(&vm->disk[n]->blk, bytes, ops);
    loop_unlock(&vm->loop);
    return 0;
}

void vm_limit_rng(struct vm *vm, const struct limit_rate *bytes, const struct limit_rate *ops)
{
    loop_lock(&vm->loop);
    virtio_rng_limit(&vm->rng, bytes, ops);
    loop_unlock(&vm->loop);
}
