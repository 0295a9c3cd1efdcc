/* Models: the virtual machine generation ID: a cryptographically random 128-bit number in guest memory.
 * Source: Microsoft, "Virtual Machine Generation ID" (2012); the guest finds it by the ACPI device's method
 * ADDR and hears of a change by Notify 0x80 (boot/dsdt.c). Runs on: any thread, under the device lock.
 *
 * What the specification has no word for: whether anybody listens. So the tables' ADDR method writes to a port, and a
 * guest that has never asked has no driver.
 *
 * The ID stays the same over a reset and over save and load of the same machine; whoever makes two machines
 * of one, or sets one back, calls vmgenid_change(). The guest's copy lies in ROM, so that the guest cannot
 * change it.
 */
#include "chip/vmgenid.h"

#include "state/state.h"

static void vmgenid_publish(const struct vmgenid *g) { ram_load(g->ram, g->gpa, g->id, sizeof(g->id)); }

static uint64_t vmgenid_read_port(void *dev, uint64_t off, unsigned size) { return ((struct vmgenid *)dev)->asked; }

static void vmgenid_write_port(void *dev, uint64_t off, uint64_t value, unsigned size) { ((struct vmgenid *)dev)->asked = true; }

static const struct bus_ops vmgenid_bus = {
    .read = vmgenid_read_port, .write = vmgenid_write_port, .min_size = 1, .max_size = 1
};

int vmgenid_init(struct vmgenid *g, struct ram *ram, uint64_t gpa, struct rand_source *rand,
                 void (*tell)(void *opaque), void *opaque)
{
    *g = (struct vmgenid){
        .ram = ram,
        .rand = rand,
        .gpa = gpa,
        .tell = tell,
        .opaque = opaque,
        .port = { .base = VMGENID_PORT, .len = 1, .ops = &vmgenid_bus, .dev = g, .name = "vmgenid" },
    };
    return rand_bytes(rand, g->id, sizeof(g->id));
}

int vmgenid_attach(struct vmgenid *g, struct bus *io) { return bus_add(io, &g->port); }

int vmgenid_change(struct vmgenid *g)
{
    uint8_t id[VMGENID_LEN];
    int r = rand_bytes(g->rand, id, sizeof(id));

    if (r < 0)
        return r;
    for (unsigned i = 0; i < sizeof(id); i++)
        g->id[i] = id[i];
    vmgenid_publish(g);
    g->tell(g->opaque);
    return 0;
}

static void vmgenid_sync(void *dev) { vmgenid_publish(dev); }

static void vmgenid_reset(void *dev)
{
    ((struct vmgenid *)dev)->asked = false;
    vmgenid_publish(dev);
}

static void vmgenid_destroy(void *dev) { (void)dev; }

static const struct state_field vmgenid_fields[] = {
    STATE_FBYTES(struct vmgenid, id),
    { "asked", STATE_BOOL, offsetof(struct vmgenid, asked), 1, 0, NULL, .since = 2 },
    STATE_END,
};
static const struct state_desc vmgenid_state = {
    .name = "vmgenid", .version = 2, .size = sizeof(struct vmgenid), .fields = vmgenid_fields
};

const struct device_ops vmgenid_ops = {
    .type = "vmgenid",
    .reset = vmgenid_reset,
    .resume = vmgenid_sync,
    .destroy = vmgenid_destroy,
    .state = &vmgenid_state,
};
