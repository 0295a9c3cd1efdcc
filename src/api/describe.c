/* What a machine is and does, as JSON. Thread: the machine's; takes the device lock. */
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api/control.h"
#include "base/clock.h"
#include "machine/vm.h"
#include "ram/swap.h"
#include "virtio/net.h"

/* Host CPU time of a vCPU's thread. */
static double describe_vcpu_seconds(const struct vm_vcpu *v)
{
    clockid_t id;

    return v->has_thread && pthread_getcpuclockid(v->thread, &id) == 0 ? clock_host_seconds(id) : 0;
}

/* Bytes of the host's memory that the process has now. */
static uint64_t describe_resident(const struct control *c)
{
    char text[128];
    ssize_t n = c->statm >= 0 ? pread(c->statm, text, sizeof(text) - 1, 0) : -1;
    unsigned long long pages = 0;

    if (n <= 0)
        return 0;
    text[n] = 0;
    if (sscanf(text, "%*u %llu", &pages) != 1)
        return 0;
    return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

static const char *describe_state(const struct vm *vm) { return vm->life.paused ? "paused" : "running"; }

static const char *describe_generation(const struct vm *vm)
{
    static const char *const name[] = { [VM_GENERATION_UNHEARD] = "unheard", [VM_GENERATION_PENDING] = "pending", [VM_GENERATION_TAKEN] = "taken" };

    return name[vm_generation(vm)];
}

static uint64_t describe_target(const struct vm *vm)
{
    uint32_t pages;

    memcpy(&pages, vm->balloon.config, sizeof(pages)); /* little-endian, as the host is (virtio 1.2, 5.5.4) */
    return vm->cfg->memory - ((uint64_t)pages << 12);
}

static void describe_mac(const uint8_t mac[6], char text[18])
{
    snprintf(text, 18, "%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2], mac[3], mac[4], mac[5]);
}

/* Network cards: the address that the driver knows, and the card's own, which is another in a copy until the guest takes it. */
static json_t *describe_cards(const struct vm *vm)
{
    json_t *list = json_array();

    for (unsigned n = 0; list && n < vm->nnets; n++) {
        char mac[18], own[18];

        describe_mac(virtio_net_mac(pc_net(vm, n)), mac);
        describe_mac(pc_net(vm, n)->first_mac, own);
        json_array_append_new(list, json_pack("{s:s, s:s}", "mac", mac, "own_mac", own));
    }
    return list;
}

json_t *describe_machine(struct control *c)
{
    struct vm *vm = c->vm;
    json_t *config = config_to_json(vm->cfg), *root;

    loop_lock(&vm->loop);
    root = json_pack("{s:s, s:s, s:i, s:s, s:s, s:i, s:I, s:I, s:f, s:f, s:f, s:I, s:i, s:s, s:s, s:o}", "name", c->site.info.name,
                     "id", c->site.info.id, "pid", (int)getpid(), "state", describe_state(vm), "engine",
                     vm->engine.ops->name, "vcpus", (int)vm->nvcpus, "memory", (json_int_t)vm->cfg->memory,
                     "memory_target", (json_int_t)describe_target(vm), "started", c->site.info.started,
                     "guest_seconds", (double)clock_ns(&vm->clock) / 1e9, "cpu_seconds",
                     clock_host_seconds(CLOCK_PROCESS_CPUTIME_ID), "resets", (json_int_t)vm->life.resets, "viewers",
                     (int)api_viewers(&c->server), "version", "v1", "generation_id", describe_generation(vm), "networks", describe_cards(vm));
    loop_unlock(&vm->loop);
    if (root && vm->cfg->vsock_path)
        json_object_set_new(root, "vsock", json_string(vm->cfg->vsock_path));
    if (!root || !config || config_absolute(config) < 0 || json_object_set(root, "config", config) < 0) {
        json_decref(root);
        root = NULL;
    }
    json_decref(config);
    return root;
}

/* -- counters; the device lock is held -- */

static json_t *describe_vcpus(const struct vm *vm)
{
    json_t *list = json_array();

    for (unsigned n = 0; list && n < vm->nvcpus; n++)
        json_array_append_new(list, json_pack("{s:f, s:I}", "cpu_seconds", describe_vcpu_seconds(vm->vcpu[n]),
                                              "instructions", (json_int_t)vm->vcpu[n]->vcpu.cpu.insns));
    return list;
}

static json_t *describe_disks(const struct vm *vm)
{
    json_t *list = json_array();
    char name[8] = "vd?";

    for (unsigned n = 0; list && n < vm->ndisks; n++) {
        const struct virtio_blk_counts *k = &pc_disk(vm, n)->counts;

        name[2] = (char)('a' + n);
        json_array_append_new(list, json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "name", name, "reads",
                                              (json_int_t)k->reads, "writes", (json_int_t)k->writes, "read_bytes",
                                              (json_int_t)k->read_bytes, "written_bytes", (json_int_t)k->written_bytes,
                                              "flushes", (json_int_t)k->flushes, "discards", (json_int_t)k->discards,
                                              "errors", (json_int_t)k->errors));
    }
    return list;
}

static json_t *describe_nets(const struct vm *vm)
{
    json_t *list = json_array();
    char name[16];

    for (unsigned n = 0; list && n < vm->nnets; n++) {
        const struct virtio_net *v = pc_net(vm, n);

        snprintf(name, sizeof(name), "net%u", n);
        json_array_append_new(list, json_pack("{s:s, s:I, s:I, s:I, s:I, s:I}", "name", name, "sent",
                                              (json_int_t)v->sent, "received", (json_int_t)v->received, "sent_bytes",
                                              (json_int_t)v->sent_bytes, "received_bytes",
                                              (json_int_t)v->received_bytes, "dropped", (json_int_t)v->dropped));
    }
    return list;
}

static void describe_guest_says(json_t *memory, const char *key, uint64_t v)
{
    if (v != UINT64_MAX)
        json_object_set_new(memory, key, json_integer((json_int_t)v));
}

/* The guest's own numbers are those of the last time it was asked; it is asked again now. */
static json_t *describe_memory(struct control *c)
{
    struct vm *vm = c->vm;
    struct virtio_balloon *b = &vm->balloon;
    json_t *m = json_pack("{s:I, s:I, s:I, s:I, s:I, s:I}", "size", (json_int_t)vm->cfg->memory, "target",
                          (json_int_t)describe_target(vm), "balloon", (json_int_t)virtio_balloon_size(b), "given_back",
                          (json_int_t)b->given_back, "resident", (json_int_t)describe_resident(c), "swapped",
                          (json_int_t)ram_swapped(&vm->ram));

    if (m && b->stat_time) {
        describe_guest_says(m, "guest_free", b->stat[BALLOON_FREE]);
        describe_guest_says(m, "guest_available", b->stat[BALLOON_AVAILABLE]);
        describe_guest_says(m, "guest_total", b->stat[BALLOON_TOTAL]);
    }
    virtio_balloon_poll(b);
    return m;
}

json_t *describe_stats(struct control *c)
{
    struct vm *vm = c->vm;
    json_t *root;

    loop_lock(&vm->loop);
    root = json_pack("{s:s, s:s, s:s, s:f, s:f, s:I, s:o, s:o, s:o, s:o}", "name", c->site.info.name, "id",
                     c->site.info.id, "state", describe_state(vm), "guest_seconds", (double)clock_ns(&vm->clock) / 1e9,
                     "cpu_seconds", clock_host_seconds(CLOCK_PROCESS_CPUTIME_ID), "resets", (json_int_t)vm->life.resets,
                     "vcpus", describe_vcpus(vm), "memory", describe_memory(c), "disks", describe_disks(vm), "nets",
                     describe_nets(vm));
    loop_unlock(&vm->loop);
    return root;
}
