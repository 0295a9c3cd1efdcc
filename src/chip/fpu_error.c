/* Models: the coprocessor-error logic of the PC/AT: FERR# sets a latch that drives IRQ 13, a write to port 0xF0
 * (clear busy) or 0xF1 (reset coprocessor) clears it.
 * Source: SDM vol. 1, 8.7.2 and appendix D (MS-DOS compatibility mode of x87 exceptions).
 * Runs on: any thread, under the device lock.
 */
#include "chip/fpu_error.h"

#include "state/state.h"

static void fpu_error_set(struct fpu_error *f, bool busy)
{
    f->busy = busy;
    irq_set(&f->irq13, busy);
}

void fpu_error_ferr(struct fpu_error *f, bool level)
{
    if (level)
        fpu_error_set(f, true);
}

static void fpu_error_write(void *dev, uint64_t off, uint64_t value, unsigned size)
{
    fpu_error_set(dev, false);
}

static const struct bus_ops fpu_error_bus = { .write = fpu_error_write, .min_size = 1, .max_size = 1 };

void fpu_error_init(struct fpu_error *f, struct irq_line irq13)
{
    *f = (struct fpu_error){
        .irq13 = irq13,
        .ports = { .base = 0xf0, .len = 2, .ops = &fpu_error_bus, .dev = f, .name = "fpu-error" },
    };
}

int fpu_error_attach(struct fpu_error *f, struct bus *io)
{
    return bus_add(io, &f->ports);
}

static void fpu_error_reset(void *dev) { fpu_error_set(dev, false); }

static void fpu_error_destroy(void *dev) {}

static const struct state_field fpu_error_fields[] = {
    STATE_FBOOL(struct fpu_error, busy),
    STATE_END,
};
static const struct state_desc fpu_error_state = {
    .name = "fpu-error", .version = 1, .size = sizeof(struct fpu_error), .fields = fpu_error_fields
};

const struct device_ops fpu_error_ops = {
    .type = "fpu-error",
    .reset = fpu_error_reset,
    .destroy = fpu_error_destroy,
    .state = &fpu_error_state,
};
