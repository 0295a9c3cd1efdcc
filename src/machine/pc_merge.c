/* Overlays that a running machine's disk stands on are merged: what they hold comes into the disk's image, or into a file that takes the place of one of
 * them; then the machine does without them. block/image_pull.c does it, this is which. Thread: the machine's, no lock held.
 *
 * The order, so that a kill at any moment leaves disks that read as before: the one above holds everything, durable; the machine does without what is
 * below; whoever asked notes that (cli/snap_merge.h), and removes the files.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "block/image.h"
#include "machine/vm.h"

#define MERGE_STEP (1ULL << 20) /* bytes that are moved before others have their turn */

static const char *merge_name(const struct config_disk *d, unsigned at)
{
    if (at == 0)
        return d->path;
    return at <= d->backings ? d->backing[at - 1] : "";
}

/* Where the image is in the disk's chain, and how many of those that go are there still, which are the next ones: all of them, or none. */
static int merge_find(const struct config_disk *d, const struct vm_merge *m, unsigned *at, unsigned *n, struct err *err)
{
    for (*at = 0; *at <= d->backings && strcmp(merge_name(d, *at), m->image); ++*at)
        ;
    if (*at > d->backings || d->ro || d->ephemeral)
        return err_set(err, ENOENT, "disk '%s' has no image '%.200s' that is written, or that it stands on", d->path, m->image);
    for (*n = 0; *n < m->gone && !strcmp(merge_name(d, *at + 1 + *n), m->go[*n]); ++*n)
        ;
    if (*n > 0 && *n < m->gone)
        return err_set(err, ENOENT, "disk '%s' does not stand on '%.200s' there", d->path, m->go[*n]);
    return 0;
}

static int merge_forget(struct vm *vm, unsigned disk, unsigned at, unsigned n, struct err *err)
{
    int r = 0;

    while (r == 0 && n-- > 0)
        r = config_forget_backing(vm->cfg, disk, at, err);
    return r;
}

/* Nothing is under way in a machine that stands, so its disks' chains may change. */
static int merge_change(struct vm *vm, unsigned disk, const struct vm_merge *m, unsigned at, unsigned n, struct err *err)
{
    bool was_paused = vm->life.paused;
    int r = 0;

    vm_set_paused(vm, true);
    loop_lock(&vm->loop);
    if (m->fd >= 0)
        r = image_swap(pc_disk_block(vm, disk), at, n, m->fd, m->image, err);
    else
        image_unlink(pc_disk_block(vm, disk), n);
    if (r == 0)
        r = merge_forget(vm, disk, at, n, err);
    loop_unlock(&vm->loop);
    vm_set_paused(vm, was_paused);
    return r;
}

static int merge_pull(struct vm *vm, unsigned disk, unsigned n, uint64_t *pos, struct err *err)
{
    struct block *top = pc_disk_block(vm, disk);
    int r = n > 0 ? image_pull(top, n, pos, MERGE_STEP) : 0;

    if (r == 0 && n > 0 && *pos >= top->size)
        r = image_pulled(top, n);
    if (n == 0)
        *pos = top->size; /* done before */
    return r < 0 ? err_set(err, -r, "disk '%s' cannot take what it stands on: %s", vm->cfg->disk[disk].path, strerror(-r)) : 0;
}

int vm_disk_merge(struct vm *vm, unsigned disk, const struct vm_merge *m, uint64_t *pos, bool *done, struct err *err)
{
    unsigned at = 0, n = 0;
    int r = disk < vm->ndisks ? merge_find(&vm->cfg->disk[disk], m, &at, &n, err) : err_set(err, ENOENT, "there is no disk %u", disk);

    *done = false;
    if (r == 0 && (at > 0) != (m->fd >= 0))
        r = err_set(err, EINVAL, "an image that is written takes in what it stands on; any other is replaced by a file, that comes with the request");
    if (r == 0 && block_log_is_on(pc_disk_block(vm, disk)))
        r = err_set(err, EBUSY, "disk %u is being copied to another host", disk);
    if (r < 0) {
        if (m->fd >= 0)
            close(m->fd);
        return r;
    }
    if (m->fd < 0)
        r = merge_pull(vm, disk, n, pos, err);
    if (r < 0 || (m->fd < 0 && *pos < pc_disk_block(vm, disk)->size))
        return r;
    r = m->fd >= 0 || n > 0 ? merge_change(vm, disk, m, at, n, err) : 0;
    *done = r == 0;
    return r;
}
