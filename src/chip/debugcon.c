/* Models: QEMU's isa-debugcon at port 0x402, to which SeaBIOS and debug builds of OVMF write what they do. It reads
 * as 0xE9, by which they find it; a machine without tracing leaves it out, so that they do not spend time on it.
 * Source: QEMU's documented behaviour of that device.
 * Runs on: any thread, under the device lock.
 */
#include "chip/debugcon.h"

#include <errno.h>

#include "base/err.h"
#include "state/state.h"

enum { DEBUGCON_PORT = 0x402, DEBUGCON_THERE = 0xe9 };

static uint64_t debugcon_read(void *dev, uint64_t off, unsigned size) { return DEBUGCON_THERE; }

static void debugcon_write(void *dev, uint64_t off, uint64_t value, unsigned size)
{
    struct debugcon *d = dev;
    uint8_t c = (uint8_t)value;

    if (c == '\r')
        return;
    if (c != '\n')
        d->line[d->len++] = c >= 0x20 && c < 0x7f ? c : '.';
    if (c != '\n' && d->len < DEBUGCON_LINE - 1)
        return;
    d->line[d->len] = 0;
    d->len = 0;
    d->fn(d->opaque, (const char *)d->line);
}

static const struct bus_ops debugcon_bus = {
    .read = debugcon_read, .write = debugcon_write, .min_size = 1, .max_size = 1
};

void debugcon_init(struct debugcon *d, void (*fn)(void *opaque, const char *line), void *opaque)
{
    *d = (struct debugcon){
        .fn = fn,
        .opaque = opaque,
        .port = { .base = DEBUGCON_PORT, .len = 1, .ops = &debugcon_bus, .dev = d, .name = "debugcon" },
    };
}

int debugcon_attach(struct debugcon *d, struct bus *io) { return bus_add(io, &d->port); }

static void debugcon_reset(void *dev) { ((struct debugcon *)dev)->len = 0; }
static void debugcon_destroy(void *dev) { (void)dev; }

static int debugcon_check(void *obj, struct err *err)
{
    struct debugcon *d = obj;

    if (d->len >= DEBUGCON_LINE - 1)
        return err_set(err, EINVAL, "debug console: a line of %u bytes", d->len);
    return 0;
}

static const struct state_field debugcon_fields[] = {
    STATE_FBYTES(struct debugcon, line),
    STATE_F32(struct debugcon, len),
    STATE_END,
};
static const struct state_desc debugcon_state = {
    .name = "debugcon", .version = 1, .size = sizeof(struct debugcon), .fields = debugcon_fields,
    .check = debugcon_check
};

const struct device_ops debugcon_ops = {
    .type = "debugcon", .reset = debugcon_reset, .destroy = debugcon_destroy, .state = &debugcon_state
};
