/* Models: QEMU's isa-debug-exit: a write to the port ends the machine with the value.
 * Source: the documented behaviour of that device (exit status (value << 1) | 1, formed by the machine).
 * Runs on: any thread, under the device lock.
 */
#include "chip/debug_exit.h"

#include "state/state.h"

static uint64_t debug_exit_read(void *dev, uint64_t off, unsigned size) { return 0; }

static void debug_exit_write(void *dev, uint64_t off, uint64_t value, unsigned size)
{
    struct debug_exit *d = dev;

    d->last = (uint32_t)value;
    if (d->fn)
        d->fn(d->opaque, d->last);
}

static const struct bus_ops debug_exit_bus = {
    .read = debug_exit_read, .write = debug_exit_write, .min_size = 1, .max_size = 4
};

void debug_exit_init(struct debug_exit *d, void (*fn)(void *opaque, uint32_t value), void *opaque)
{
    *d = (struct debug_exit){
        .fn = fn,
        .opaque = opaque,
        .ports = { .len = 4, .ops = &debug_exit_bus, .dev = d, .name = "debug-exit" },
    };
}

int debug_exit_attach(struct debug_exit *d, struct bus *io, uint16_t base)
{
    d->ports.base = base;
    return bus_add(io, &d->ports);
}

static void debug_exit_reset(void *dev) { ((struct debug_exit *)dev)->last = 0; }

static void debug_exit_destroy(void *dev) { (void)dev; }

static const struct state_field debug_exit_fields[] = {
    STATE_F32(struct debug_exit, last),
    STATE_END,
};
static const struct state_desc debug_exit_state = {
    .name = "debug-exit", .version = 1, .size = sizeof(struct debug_exit), .fields = debug_exit_fields
};

const struct device_ops debug_exit_ops = {
    .type = "debug-exit",
    .reset = debug_exit_reset,
    .destroy = debug_exit_destroy,
    .state = &debug_exit_state,
};
