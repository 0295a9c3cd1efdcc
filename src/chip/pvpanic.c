/* Models: the pvpanic ISA device: one port, read for the events that are known, written with events.
 * Source: QEMU's docs/specs/pvpanic.
 * Runs on: any thread, under the device lock.
 */
#include "chip/pvpanic.h"

#include "state/state.h"

#define PVPANIC_EVENTS (PVPANIC_PANICKED | PVPANIC_CRASHLOADED)

static uint64_t pvpanic_read(void *dev, uint64_t off, unsigned size) { return PVPANIC_EVENTS; }

static void pvpanic_write(void *dev, uint64_t off, uint64_t value, unsigned size)
{
    struct pvpanic *p = dev;
    uint8_t events = value & PVPANIC_EVENTS;

    p->events |= events;
    if (events && p->fn)
        p->fn(p->opaque, events);
}

static const struct bus_ops pvpanic_bus = {
    .read = pvpanic_read, .write = pvpanic_write, .min_size = 1, .max_size = 1
};

void pvpanic_init(struct pvpanic *p, void (*fn)(void *opaque, uint8_t events), void *opaque)
{
    *p = (struct pvpanic){
        .fn = fn,
        .opaque = opaque,
        .port = { .base = PVPANIC_PORT, .len = 1, .ops = &pvpanic_bus, .dev = p, .name = "pvpanic" },
    };
}

int pvpanic_attach(struct pvpanic *p, struct bus *io) { return bus_add(io, &p->port); }

static void pvpanic_reset(void *dev) { ((struct pvpanic *)dev)->events = 0; }

static void pvpanic_destroy(void *dev) { (void)dev; }

static const struct state_field pvpanic_fields[] = {
    STATE_F8(struct pvpanic, events),
    STATE_END,
};
static const struct state_desc pvpanic_state = {
    .name = "pvpanic", .version = 1, .size = sizeof(struct pvpanic), .fields = pvpanic_fields
};

const struct device_ops pvpanic_ops = {
    .type = "pvpanic",
    .reset = pvpanic_reset,
    .destroy = pvpanic_destroy,
    .state = &pvpanic_state,
};
