/* The dirty log of a machine that runs: which pages were written since somebody asked last. Stills of its memory (ram/still.h). And making vCPUs slower, for
 * somebody who copies the memory and is overtaken.
 *
 * vCPUs keep permission to write in their TLBs (the translator in its flat tables as well) once a page is marked. Whoever
 * collects takes the marks and these permissions away together, while all vCPUs stand at an instruction boundary, so a
 * store after that is slow and marks its page again, before it changes the bytes. Devices write bytes first and mark then
 * (ram.c): one that is under way marks its page for the next time.
 *
 * Thread: the machine's, no lock held, except vm_slow_down().
 */
#include <errno.h>

#include "machine/vm.h"
#include "ram/still.h"
#include "x86/mmu.h"

/* vCPUs stand: every store is slow from now on. */
static void vm_dirty_protect(struct vm *vm)
{
    for (unsigned n = 0; n < vm->nvcpus; n++)
        mmu_protect(&vm->vcpu[n]->vcpu.cpu, ~0ULL);
}

void vm_dirty_log(struct vm *vm, bool on)
{
    vcpu_threads_halt(vm);
    ram_dirty_log(&vm->ram, on);
    vm_dirty_protect(vm);
    if (!vm->life.paused)
        vcpu_threads_go(vm);
}

int vm_still_begin(struct vm *vm)
{
    int r = ram_still_begin(&vm->ram);

    if (r == 0)
        vm_dirty_protect(vm);
    return r;
}

int64_t vm_dirty_collect(struct vm *vm, const struct vm_dirty *d)
{
    int64_t pages = 0, r = 0;

    vcpu_threads_halt(vm);
    for (unsigned n = 0; r >= 0 && n < vm->ram.nslots; n++) {
        r = ram_dirty_collect(&vm->ram, n, d->bitmap[n], d->size[n]);
        pages += r;
    }
    vm_dirty_protect(vm);
    if (!vm->life.paused)
        vcpu_threads_go(vm);
    return r < 0 ? r : pages;
}

void vm_slow_down(struct vm *vm, unsigned us)
{
    atomic_store(&vm->life.nap_us, us);
    for (unsigned n = 0; n < vm->nvcpus && us; n++)
        vcpu_kick(&vm->vcpu[n]->vcpu, ATT_EXIT);
}
