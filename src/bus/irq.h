/* An interrupt line: the wire from a device's output to a controller's input.
 * A line with no fn set is not connected and may be driven freely. Device lock held. */
#ifndef VITRO_BUS_IRQ_H
#define VITRO_BUS_IRQ_H

#include <stdbool.h>

struct irq_line {
    void (*fn)(void *opaque, unsigned pin, bool level);
    void *opaque;
    unsigned pin;
};

static inline void irq_set(const struct irq_line *l, bool level)
{
    if (l->fn)
        l->fn(l->opaque, l->pin, level);
}

/* Low, then high: one edge for an edge-triggered input. */
static inline void irq_pulse(const struct irq_line *l)
{
    irq_set(l, false);
    irq_set(l, true);
}

#endif
