/* The virtio console's ports and the host's ends of them: a back end of machine/serial.c each.
 *
 * Port numbers: consoles first, as port 0 may only be a console; then the named ports, from 1 on.
 * Threads: pc_init_console() while no other thread knows the machine; the rest with the device lock held.
 */
#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/err.h"
#include "machine/vm.h"

static size_t pc_port_room(void *opaque)
{
    struct vm_port *p = opaque;
    return vcon_room(p->device, p->number);
}

static size_t pc_port_receive(void *opaque, const uint8_t *data, size_t len)
{
    struct vm_port *p = opaque;
    return vcon_receive(p->device, p->number, data, len);
}

static void pc_port_tx_ready(void *opaque)
{
    struct vm_port *p = opaque;
    vcon_tx_ready(p->device, p->number);
}
static void pc_port_opened(void *opaque)
{
    struct vm_port *p = opaque;
    vcon_opened(p->device, p->number);
}
static bool pc_port_is_open(void *opaque) { return serial_is_open(opaque); }

static int pc_add_port(struct vm *vm, unsigned i, unsigned number)
{
    const struct config_console *c = &vm->cfg->console[i];
    struct serial *s = &vm->serial[VM_UARTS + i];
    struct uart_backend b = serial_backend(s);
    struct vcon_backend backend = {
        .tx = b.tx, .rx_ready = b.rx_ready, .is_open = pc_port_is_open, .opaque = s
    };
    struct vm_port *p = &vm->port[i];

    *p = (struct vm_port){ .device = &vm->vcon, .number = number };
    serial_attach_peer(s, (struct serial_peer){ .room = pc_port_room,
                                                .receive = pc_port_receive,
                                                .tx_ready = pc_port_tx_ready,
                                                .opened = pc_port_opened,
                                                .opaque = p });
    s->lossless = c->name; /* a kernel that logs to a console spins until it has been taken */
    return virtio_console_add(&vm->vcon, number, c->name ? c->name : "", backend);
}

int pc_init_console(struct vm *vm, struct err *err)
{
    unsigned ports = 0, consoles = 0;
    int r;

    if (!vm->cfg->consoles)
        return 0;
    for (unsigned i = 0; i < vm->cfg->consoles; i++)
        consoles += !vm->cfg->console[i].name;
    ports = vm->cfg->consoles + (consoles ? 0 : 1);
    r = virtio_console_init(&vm->vcon, ports, &vm->loop, &vm->ram, pc_deliver, vm);
    ports = consoles ? consoles : 1;
    consoles = 0;
    for (unsigned i = 0; r == 0 && i < vm->cfg->consoles; i++)
        r = pc_add_port(vm, i, vm->cfg->console[i].name ? ports++ : consoles++);
    if (r == 0) {
        pc_add_device(vm, &virtio_console_ops, &vm->vcon, 0);
        r = pci_dev_plug(&vm->vcon.vp.pci, &vm->pci, -1);
    }
    return r < 0 ? err_set(err, -r, "cannot add the virtio console: %s", strerror(-r)) : 0;
}

void pc_console_resize(struct vm *vm)
{
    struct winsize ws;

    for (unsigned i = 0; i < vm->cfg->consoles; i++) {
        if (vm->serial[VM_UARTS + i].kind == SERIAL_STDIO && vm->console.is_terminal &&
            ioctl(STDIN_FILENO, TIOCGWINSZ, &ws) == 0)
            vcon_resize(&vm->vcon, vm->port[i].number, ws.ws_col, ws.ws_row);
    }
}
