/* The wiring of the `pc` machine's shared folders: a virtio file system device each, behind the disks.
 *
 * Threads: while no other thread knows the machine.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "machine/vm.h"
#include "virtio/fs.h"

struct vm_share {
    struct virtio_fs fs;
    struct share *share; /* owned */
    char name[24];
};

static int pc_wire_share(struct vm *vm, struct vm_share *d, const struct config_share *cfg, unsigned n)
{
    struct virtio_fs_setup setup = {
        .share = d->share,
        .loop = &vm->loop,
        .ram = &vm->ram,
        .deliver = pc_deliver,
        .deliver_opaque = vm,
        .name = d->name,
        .tag = cfg->tag,
        .queues = vm->cfg->cpus < VIRTIO_FS_QUEUES ? vm->cfg->cpus : VIRTIO_FS_QUEUES,
    };
    int r = virtio_fs_init(&d->fs, &setup);

    if (r < 0)
        return r;
    pc_add_device(vm, &virtio_fs_ops, &d->fs, n);
    return pci_dev_plug(&d->fs.vp.pci, &vm->pci, -1);
}

static int pc_add_share(struct vm *vm, const struct config_share *cfg, struct err *err)
{
    struct share_options o = {
        .path = cfg->path, .tag = cfg->tag, .ro = cfg->ro, .cache = cfg->cache, .map = cfg->map, .uid = cfg->uid, .gid = cfg->gid
    };
    struct vm_share *d = calloc(1, sizeof(*d));
    unsigned n = vm->nshares;
    int r;

    if (!d)
        return err_set(err, ENOMEM, "out of memory for share %u", n);
    r = share_open(&d->share, &o, err);
    if (r < 0) {
        free(d);
        err_prefix(err, "shared folder '%s'", cfg->tag);
        return r;
    }
    vm->share[vm->nshares++] = d;
    snprintf(d->name, sizeof(d->name), "vitro-share%u", n);
    r = pc_wire_share(vm, d, cfg, n);
    return r < 0 ? err_set(err, -r, "cannot share '%s': %s", cfg->path, strerror(-r)) : 0;
}

int pc_init_shares(struct vm *vm, struct err *err)
{
    int r = 0;

    for (unsigned n = 0; r == 0 && n < vm->cfg->shares; n++)
        r = pc_add_share(vm, &vm->cfg->share[n], err);
    return r;
}

void pc_flush_shares(struct vm *vm)
{
    for (unsigned n = 0; n < vm->nshares; n++)
        share_flush(vm->share[n]->share);
}

void pc_fini_shares(struct vm *vm)
{
    while (vm->nshares > 0) {
        struct vm_share *d = vm->share[--vm->nshares];

        share_close(d->share);
        free(d);
    }
}
