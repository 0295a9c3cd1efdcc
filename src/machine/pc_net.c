/* The wiring of the `pc` machine's network cards: a port (the back end and its thread) and a virtio card each.
 *
 * Threads: pc_init_net() and pc_fini_net() while no vCPU runs and no lock is held.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "machine/vm.h"

struct vm_net {
    struct virtio_net card;
    struct net_port *port; /* owned */
    char name[24];
};

/* FNV-1a */
static uint64_t pc_net_hash(const char *text, unsigned n)
{
    uint64_t h = 0xcbf29ce484222325ULL ^ n;

    for (; *text; text++)
        h = (h ^ (uint8_t)*text) * 0x100000001b3ULL;
    return h ^ h >> 29;
}

/* The address of card n. On a network of its own (user) it is always the same. Elsewhere a machine that has a name keeps
 * its address from one run to the next, and one without gets a new one. */
static int pc_net_mac(struct vm *vm, const struct config_net *cfg, unsigned n, uint8_t mac[6])
{
    static const uint8_t fixed[6] = { 0x52, 0x54, 0x00, 0x12, 0x34, 0x56 };
    uint64_t v;
    int r;

    memcpy(mac, cfg->has_mac ? cfg->mac : fixed, 6);
    if (cfg->has_mac)
        return 0;
    if (cfg->port.kind == NET_USER) {
        mac[5] = (uint8_t)(mac[5] + n);
        return 0;
    }
    v = pc_net_hash(vm->cfg->name, n);
    if (!strcmp(vm->cfg->name, "vitro") && (r = rand_u64(&vm->rand, &v)) < 0)
        return r;
    memcpy(mac + 1, &v, 5);
    return 0; /* 52: locally administered, one card's */
}

static int pc_wire_net(struct vm *vm, struct vm_net *d, const struct config_net *cfg, unsigned n)
{
    struct virtio_net_setup setup = {
        .peer = net_peer_of(d->port),
        .loop = &vm->loop,
        .ram = &vm->ram,
        .deliver = pc_deliver,
        .deliver_opaque = vm,
        .name = d->name,
        .queues = cfg->queues,
        .rx = cfg->rx,
        .tx = cfg->tx,
    };
    int r = pc_net_mac(vm, cfg, n, setup.mac);

    if (r == 0)
        r = virtio_net_init(&d->card, &setup);
    if (r < 0)
        return r;
    pc_add_device(vm, &virtio_net_ops, &d->card, n);
    r = pci_dev_plug(&d->card.vp.pci, &vm->pci, -1);
    return r < 0 ? r : net_start(d->port, &virtio_net_client, &d->card);
}

static int pc_add_net(struct vm *vm, unsigned n, struct err *err)
{
    const struct config_net *cfg = vm->cfg->net[n];
    struct vm_net *d = calloc(1, sizeof(*d));
    int r;

    if (!d)
        return err_set(err, ENOMEM, "out of memory for network card %u", n);
    r = net_open(&d->port, &cfg->port, err);
    if (r < 0) {
        free(d);
        return r;
    }
    vm->net[vm->nnets++] = d;
    snprintf(d->name, sizeof(d->name), "vitro-net%u", n);
    r = pc_wire_net(vm, d, cfg, n);
    return r < 0 ? err_set(err, -r, "cannot add network card %u: %s", n, strerror(-r)) : 0;
}

int pc_init_net(struct vm *vm, struct err *err)
{
    int r = 0;

    for (unsigned n = 0; r == 0 && n < vm->cfg->nets; n++)
        r = pc_add_net(vm, n, err);
    return r;
}

/* What its name or its configuration says; but not what the machine has that it is a copy of. */
static int pc_readdress_card(struct vm *vm, unsigned n)
{
    struct virtio_net *card = &vm->net[n]->card;
    uint8_t mac[6];
    int r = pc_net_mac(vm, vm->cfg->net[n], n, mac);

    if (r == 0 && (!memcmp(mac, card->first_mac, 6) || !memcmp(mac, virtio_net_mac(card), 6))) {
        mac[0] = 0x52; /* locally administered, one card's */
        r = rand_bytes(&vm->rand, mac + 1, 5);
    }
    if (r < 0)
        return r;
    virtio_net_readdress(card, mac);
    return 0;
}

int pc_readdress_nets(struct vm *vm)
{
    int r = 0;

    loop_lock(&vm->loop);
    for (unsigned n = 0; r == 0 && n < vm->nnets; n++)
        r = pc_readdress_card(vm, n);
    loop_unlock(&vm->loop);
    return r;
}

void pc_stop_net(struct vm *vm)
{
    for (unsigned n = 0; n < vm->nnets; n++) {
        net_close(vm->net[n]->port);
        vm->net[n]->port = NULL;
    }
}

void pc_fini_net(struct vm *vm)
{
    while (vm->nnets > 0)
        free(vm->net[--vm->nnets]);
}

const struct virtio_net *pc_net(const struct vm *vm, unsigned n) { return &vm->net[n]->card; }

int vm_limit_net(struct vm *vm, unsigned n, bool rx, const struct limit_rate *bytes, const struct limit_rate *ops)
{
    if (n >= vm->nnets)
        return -ENOENT;
    loop_lock(&vm->loop);
    virtio_net_limit(&vm->net[n]->card, rx, bytes, ops);
    loop_unlock(&vm->loop);
    return 0;
}
