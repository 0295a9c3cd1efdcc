/* The wiring of --display vga: the card, and its memory as a slot of guest memory.
 *
 * The memory has an address of its own, at which the machine's firmware, or we, put the frame buffer. vCPUs see it where the BAR is,
 * and reach it there as fast as RAM.
 *
 * Threads: pc_display_init_ram() and pc_init_display() while no other thread knows the machine; pc_display_set_up() with the
 * device lock held.
 */
#include <string.h>

#include "base/err.h"
#include "boot/layout.h"
#include "machine/vm.h"

static uint64_t pc_display_vram(const struct vm *vm)
{
    return vm->cfg->firmware && !strcmp(vm->cfg->firmware, "ovmf") ? LAYOUT_VRAM_OVMF : LAYOUT_VRAM;
}

int pc_display_init_ram(struct vm *vm)
{
    int r = vm->cfg->vga ? ram_add_slot(&vm->ram, pc_display_vram(vm), VGA_VRAM, false) : 0;

    if (r == 0 && vm->cfg->vga)
        ram_set_device(&vm->ram, ram_slot_of(&vm->ram, pc_display_vram(vm)));
    return r;
}

static void pc_display_moved(void *opaque)
{
    struct vm *vm = opaque;

    for (unsigned n = 0; n < vm->nvcpus; n++)
        vcpu_kick(&vm->vcpu[n]->vcpu, ATT_MOVED);
}

int pc_init_display(struct vm *vm, struct err *err)
{
    int r;

    if (!vm->cfg->vga)
        return 0;
    r = display_init(&vm->display, &vm->ram, pc_display_vram(vm));
    vm->display.moved = pc_display_moved;
    vm->display.opaque = vm;
    pc_add_device(vm, &display_ops, &vm->display, 0);
    if (r == 0)
        r = vga_attach(&vm->display.vga, &vm->io, &vm->mmio);
    if (r == 0)
        r = pci_dev_plug(&vm->display.pci, &vm->pci, -1);
    return r < 0 ? err_set(err, -r, "cannot build the display card: %s", strerror(-r)) : 0;
}

void pc_display_set_up(struct vm *vm)
{
    if (vm->cfg->vga)
        display_set_up(&vm->display, LAYOUT_VRAM);
}
