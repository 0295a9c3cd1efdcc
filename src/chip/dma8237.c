/* Models: the registers of the PC's two 8237A DMA controllers and the page registers. No device of this
 * machine uses ISA DMA, so nothing is ever transferred; software finds registers that hold what it wrote.
 * Source: Intel 8237A datasheet (register addresses, byte pointer, software commands); IBM PC AT technical
 * reference for the second controller (addresses doubled) and the page registers.
 * Runs on: any thread, under the device lock.
 */
#include "chip/dma8237.h"

#include <string.h>

#include "base/bits.h"
#include "state/state.h"

enum {
    REG_STATUS = 8,
    REG_REQUEST,
    REG_MASK_ONE,
    REG_MODE,
    REG_CLEAR_POINTER,
    REG_MASTER_CLEAR,
    REG_CLEAR_MASK,
    REG_MASK_ALL
};

static void dma8237_chip_reset(struct dma8237_chip *c)
{
    c->command = c->request = c->temp = 0;
    c->mask = 0x0f;
    c->high = false;
}

/* Address and count registers are 16 bits wide behind one byte; a pointer tells which half is next. */
static uint16_t *dma8237_pair(struct dma8237_chip *c, unsigned reg)
{
    return reg & 1 ? &c->count[reg >> 1] : &c->addr[reg >> 1];
}

static uint8_t dma8237_chip_read(struct dma8237_chip *c, unsigned reg)
{
    if (reg < 8) {
        uint16_t v = *dma8237_pair(c, reg);
        uint8_t half = (uint8_t)(c->high ? v >> 8 : v);
        c->high = !c->high;
        return half;
    }
    if (reg == REG_STATUS) /* no terminal count, requests in bits 4 to 7 */
        return (uint8_t)(c->request << 4);
    if (reg == REG_MASTER_CLEAR)
        return c->temp;
    if (reg == REG_MASK_ALL)
        return c->mask | 0xf0;
    return 0;
}

static void dma8237_chip_write(struct dma8237_chip *c, unsigned reg, uint8_t v)
{
    uint8_t bit = (uint8_t)BIT(v & 3);

    switch (reg) {
    case REG_STATUS:
        c->command = v;
        break;
    case REG_REQUEST:
        c->request = v & 4 ? c->request | bit : c->request & ~bit;
        break;
    case REG_MASK_ONE:
        c->mask = v & 4 ? c->mask | bit : c->mask & ~bit;
        break;
    case REG_MODE:
        c->mode[v & 3] = v;
        break;
    case REG_CLEAR_POINTER:
        c->high = false;
        break;
    case REG_MASTER_CLEAR:
        dma8237_chip_reset(c);
        break;
    case REG_CLEAR_MASK:
        c->mask = 0;
        break;
    case REG_MASK_ALL:
        c->mask = v & 0x0f;
        break;
    default: {
        uint16_t *p = dma8237_pair(c, reg);
        *p = (uint16_t)(c->high ? (*p & 0x00ff) | v << 8 : (*p & 0xff00) | v);
        c->high = !c->high;
    }
    }
}

static uint64_t dma8237_read(void *dev, uint64_t off, unsigned size)
{
    struct dma8237_ports *s = dev;
    return dma8237_chip_read(&s->dma->chip[s->chip], (unsigned)off >> s->chip & 15);
}

static void dma8237_write(void *dev, uint64_t off, uint64_t value, unsigned size)
{
    struct dma8237_ports *s = dev;
    dma8237_chip_write(&s->dma->chip[s->chip], (unsigned)off >> s->chip & 15, (uint8_t)value);
}

static uint64_t dma8237_page_read(void *dev, uint64_t off, unsigned size)
{
    return ((struct dma8237 *)dev)->page[off + 1];
}

static void dma8237_page_write(void *dev, uint64_t off, uint64_t value, unsigned size)
{
    ((struct dma8237 *)dev)->page[off + 1] = (uint8_t)value;
}

static const struct bus_ops dma8237_bus = {
    .read = dma8237_read, .write = dma8237_write, .min_size = 1, .max_size = 1
};
static const struct bus_ops dma8237_page_bus = {
    .read = dma8237_page_read, .write = dma8237_page_write, .min_size = 1, .max_size = 1
};

static void dma8237_reset(void *dev)
{
    struct dma8237 *d = dev;

    for (unsigned i = 0; i < 2; i++) {
        memset(&d->chip[i], 0, sizeof(d->chip[i]));
        dma8237_chip_reset(&d->chip[i]);
    }
    memset(d->page, 0, sizeof(d->page));
}

void dma8237_init(struct dma8237 *d)
{
    *d = (struct dma8237){
        .side = { { .dma = d, .chip = 0 }, { .dma = d, .chip = 1 } },
        .ports = {
            { .base = 0x00, .len = 16, .ops = &dma8237_bus, .dev = &d->side[0], .name = "dma-8bit" },
            { .base = 0xc0, .len = 32, .ops = &dma8237_bus, .dev = &d->side[1], .name = "dma-16bit" },
        },
        .pages = { .base = 0x81, .len = 15, .ops = &dma8237_page_bus, .dev = d, .name = "dma-page" },
    };
    dma8237_reset(d);
}

int dma8237_attach(struct dma8237 *d, struct bus *io)
{
    int rc = bus_add(io, &d->ports[0]);
    if (!rc)
        rc = bus_add(io, &d->ports[1]);
    if (!rc)
        rc = bus_add(io, &d->pages);
    if (rc) {
        bus_remove(io, &d->ports[0]);
        bus_remove(io, &d->ports[1]);
    }
    return rc;
}

static void dma8237_destroy(void *dev) { (void)dev; }

static const struct state_field dma8237_chip_fields[] = {
    STATE_F16(struct dma8237_chip, addr),
    STATE_F16(struct dma8237_chip, count),
    STATE_FBYTES(struct dma8237_chip, mode),
    STATE_F8(struct dma8237_chip, command),
    STATE_F8(struct dma8237_chip, mask),
    STATE_F8(struct dma8237_chip, request),
    STATE_F8(struct dma8237_chip, temp),
    STATE_FBOOL(struct dma8237_chip, high),
    STATE_END,
};
static const struct state_desc dma8237_chip_state = {
    .name = "dma8237-chip", .version = 1, .size = sizeof(struct dma8237_chip), .fields = dma8237_chip_fields
};
static const struct state_field dma8237_fields[] = {
    STATE_FSTRUCT(struct dma8237, chip, struct dma8237_chip, dma8237_chip_state),
    STATE_FBYTES(struct dma8237, page),
    STATE_END,
};
static const struct state_desc dma8237_state = {
    .name = "dma8237", .version = 1, .size = sizeof(struct dma8237), .fields = dma8237_fields
};

const struct device_ops dma8237_ops = {
    .type = "dma8237",
    .reset = dma8237_reset,
    .destroy = dma8237_destroy,
    .state = &dma8237_state,
};
