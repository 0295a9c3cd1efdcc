/* Models: a pair of Intel 8259A interrupt controllers, the slave on the master's IR2, and the ELCR
 * ports of the EISA/PIIX chip sets.
 * Source: Intel 8259A datasheet (order 231468): initialisation, operation command words, priority
 * modes; Intel 82371AB (PIIX4) datasheet: ELCR1/ELCR2.
 * Runs on: any thread, under the device lock; takes no lock.
 */
#include "chip/pic8259.h"

#include <errno.h>

#include "base/bits.h"
#include "base/err.h"
#include "state/state.h"

enum { CASCADE_IR = 2, ICW1_IC4 = 0x01, ICW1_SNGL = 0x02, ICW1_LTIM = 0x08, ICW1_INIT = 0x10 };
enum { ICW4_AEOI = 0x02, ICW4_SFNM = 0x10 };
enum {
    OCW3_SELECT = 0x08,
    OCW3_RIS = 0x01,
    OCW3_RR = 0x02,
    OCW3_POLL = 0x04,
    OCW3_SMM = 0x20,
    OCW3_ESMM = 0x40
};

/* ELCR bits that exist: IRQ 0, 1, 2 and 8, 13 are always edge-triggered. */
static const uint8_t pic_elcr_mask[2] = { 0xf8, 0xde };

/* Inputs that are level-triggered. */
static uint8_t pic_level_inputs(const struct pic_chip *c) { return c->ltim ? 0xff : c->elcr; }

/* The highest-priority input in set, starting after the one of lowest priority; -1: none. The rank (0 is
 * the highest) goes to *rank. */
static int pic_highest(const struct pic_chip *c, uint8_t set, unsigned *rank)
{
    for (unsigned r = 0; r < 8; r++) {
        unsigned ir = (c->lowest + 1 + r) & 7;
        if (set & BIT(ir)) {
            *rank = r;
            return (int)ir;
        }
    }
    *rank = 8;
    return -1;
}

/* The input that this chip would interrupt for now; -1: none. */
static int pic_request(const struct pic *p, unsigned n)
{
    const struct pic_chip *c = &p->chip[n];
    unsigned want, busy;

    if (c->init_step)
        return -1;
    int ir = pic_highest(c, c->irr & ~c->imr, &want);
    if (ir < 0)
        return -1;

    /* Every unmasked level may interrupt, apart from those that are themselves in service. */
    if (c->special_mask)
        return pic_highest(c, c->irr & ~c->imr & ~c->isr, &want);
    pic_highest(c, c->isr, &busy);
    /* Special fully nested: the slave may interrupt again while its own input is in service. */
    if (c->sfnm && n == 0 && ir == CASCADE_IR)
        return want <= busy ? ir : -1;
    return want < busy ? ir : -1;
}

static void pic_chip_set_line(struct pic_chip *c, unsigned ir, bool level)
{
    uint8_t bit = (uint8_t)BIT(ir);
    bool was = c->lines & bit;

    if (level)
        c->lines |= bit;
    else
        c->lines &= ~bit;
    /* An edge request that loses its line before INTA is gone: then the answer is a spurious IR7. */
    if (!level)
        c->irr &= ~bit;
    else if (!was || (pic_level_inputs(c) & bit))
        c->irr |= bit;
}

/* Pass the slave's INT to the master and the master's to the CPU. */
static void pic_update(struct pic *p)
{
    bool slave = pic_request(p, 1) >= 0;
    bool wired = p->chip[0].lines & BIT(CASCADE_IR);
    if (slave != wired)
        pic_chip_set_line(&p->chip[0], CASCADE_IR, slave);

    bool out = pic_request(p, 0) >= 0;
    if (out != p->out_level) {
        p->out_level = out;
        irq_set(&p->out, out);
    }
}

void pic_set_irq(void *opaque, unsigned pin, bool level)
{
    struct pic *p = opaque;

    if (pin > 15 || pin == CASCADE_IR)
        return;
    pic_chip_set_line(&p->chip[pin >> 3], pin & 7, level);
    pic_update(p);
}

bool pic_pending(const struct pic *p) { return p->out_level; }

/* INTA for one input of one chip. */
static void pic_take(struct pic_chip *c, unsigned ir)
{
    if (!(pic_level_inputs(c) & BIT(ir)))
        c->irr &= ~BIT(ir);
    if (!c->aeoi)
        c->isr |= BIT(ir);
    else if (c->rotate_aeoi)
        c->lowest = (uint8_t)ir;
}

uint8_t pic_ack(struct pic *p)
{
    struct pic_chip *master = &p->chip[0], *slave = &p->chip[1];
    int ir = pic_request(p, 0);

    if (ir < 0)
        return master->base | 7;
    if (ir != CASCADE_IR) {
        pic_take(master, (unsigned)ir);
        pic_update(p);
        return master->base | (uint8_t)ir;
    }
    int sub = pic_request(p, 1);
    uint8_t vector = slave->base | (uint8_t)(sub < 0 ? 7 : sub);
    if (sub >= 0)
        pic_take(slave, (unsigned)sub);
    pic_take(master, CASCADE_IR);
    /* The slave drops INT at INTA and raises it again for what still waits: a new edge for the master. */
    pic_chip_set_line(master, CASCADE_IR, false);
    pic_update(p);
    return vector;
}

/* OCW3's poll: acts as INTA of this chip alone. Returns the poll byte. */
static uint8_t pic_poll(struct pic *p, unsigned n)
{
    struct pic_chip *c = &p->chip[n];
    int ir = pic_request(p, n);

    c->poll = false;
    if (ir < 0)
        return 0x07;
    pic_take(c, (unsigned)ir);
    if (n == 1)
        pic_chip_set_line(&p->chip[0], CASCADE_IR, false);
    pic_update(p);
    return 0x80 | (uint8_t)ir;
}

static void pic_icw1(struct pic_chip *c, uint8_t v)
{
    /* The edge detectors are cleared: a line that is high must go low before it can request again. */
    c->irr = 0;
    c->imr = c->isr = 0;
    c->lowest = 7;
    c->special_mask = c->read_isr = c->poll = false;
    c->aeoi = c->sfnm = c->rotate_aeoi = false;
    c->icw4_follows = v & ICW1_IC4;
    c->single = v & ICW1_SNGL;
    c->ltim = v & ICW1_LTIM;
    c->init_step = 2;
    c->irr = c->lines & pic_level_inputs(c);
}

static void pic_icw(struct pic_chip *c, uint8_t v)
{
    switch (c->init_step) {
    case 2:
        c->base = v & 0xf8;
        c->init_step = c->single ? (c->icw4_follows ? 4 : 0) : 3;
        break;
    case 3:
        c->icw3 = v;
        c->init_step = c->icw4_follows ? 4 : 0;
        break;
    default:
        c->aeoi = v & ICW4_AEOI;
        c->sfnm = v & ICW4_SFNM;
        c->init_step = 0;
    }
}

/* A non-specific EOI ends the highest level in service; in special mask mode masked levels are passed over.
 */
static int pic_eoi_level(const struct pic_chip *c)
{
    unsigned rank;
    return pic_highest(c, c->special_mask ? c->isr & ~c->imr : c->isr, &rank);
}

static void pic_ocw2(struct pic_chip *c, uint8_t v)
{
    int ir = v & 7;
    bool rotate = v & 0x80, specific = v & 0x40, eoi = v & 0x20;

    if (!specific && !eoi) {
        c->rotate_aeoi = rotate;
        return;
    }
    if (specific && !eoi) { /* set priority; without R it is "no operation" */
        if (rotate)
            c->lowest = (uint8_t)ir;
        return;
    }
    if (!specific)
        ir = pic_eoi_level(c);
    if (ir < 0)
        return;
    c->isr &= ~BIT(ir);
    if (rotate)
        c->lowest = (uint8_t)ir;
}

static void pic_ocw3(struct pic_chip *c, uint8_t v)
{
    if (v & OCW3_POLL)
        c->poll = true;
    if (v & OCW3_RR)
        c->read_isr = v & OCW3_RIS;
    if (v & OCW3_ESMM)
        c->special_mask = v & OCW3_SMM;
}

static void pic_chip_write(struct pic *p, unsigned n, uint64_t off, uint8_t v)
{
    struct pic_chip *c = &p->chip[n];

    if (off == 0 && (v & ICW1_INIT))
        pic_icw1(c, v);
    else if (off == 0 && (v & OCW3_SELECT))
        pic_ocw3(c, v);
    else if (off == 0)
        pic_ocw2(c, v);
    else if (c->init_step)
        pic_icw(c, v);
    else
        c->imr = v;
    pic_update(p);
}

static uint64_t pic_chip_read(struct pic *p, unsigned n, uint64_t off)
{
    struct pic_chip *c = &p->chip[n];

    if (c->poll)
        return pic_poll(p, n);
    if (off)
        return c->imr;
    return c->read_isr ? c->isr : c->irr;
}

static uint64_t pic_master_read(void *dev, uint64_t off, unsigned size) { return pic_chip_read(dev, 0, off); }
static uint64_t pic_slave_read(void *dev, uint64_t off, unsigned size) { return pic_chip_read(dev, 1, off); }

static void pic_master_write(void *dev, uint64_t off, uint64_t value, unsigned size)
{
    pic_chip_write(dev, 0, off, (uint8_t)value);
}

static void pic_slave_write(void *dev, uint64_t off, uint64_t value, unsigned size)
{
    pic_chip_write(dev, 1, off, (uint8_t)value);
}

static uint64_t pic_elcr_read(void *dev, uint64_t off, unsigned size)
{
    return ((struct pic *)dev)->chip[off].elcr;
}

static void pic_elcr_write(void *dev, uint64_t off, uint64_t value, unsigned size)
{
    struct pic *p = dev;
    struct pic_chip *c = &p->chip[off];

    c->elcr = (uint8_t)value & pic_elcr_mask[off];
    c->irr |= c->lines & c->elcr;
    pic_update(p);
}

static const struct bus_ops pic_bus[2] = {
    { .read = pic_master_read, .write = pic_master_write, .min_size = 1, .max_size = 1 },
    { .read = pic_slave_read, .write = pic_slave_write, .min_size = 1, .max_size = 1 },
};
static const struct bus_ops pic_elcr_bus = {
    .read = pic_elcr_read, .write = pic_elcr_write, .min_size = 1, .max_size = 1
};

void pic_init(struct pic *p, struct irq_line out)
{
    *p = (struct pic){
        .out = out,
        .port = {
            { .base = 0x20, .len = 2, .ops = &pic_bus[0], .dev = p, .name = "pic-master" },
            { .base = 0xa0, .len = 2, .ops = &pic_bus[1], .dev = p, .name = "pic-slave" },
        },
        .elcr_port = { .base = 0x4d0, .len = 2, .ops = &pic_elcr_bus, .dev = p, .name = "elcr" },
    };
    p->chip[0].lowest = p->chip[1].lowest = 7;
}

int pic_attach(struct pic *p, struct bus *io)
{
    int rc = bus_add(io, &p->port[0]);
    if (!rc)
        rc = bus_add(io, &p->port[1]);
    if (!rc)
        rc = bus_add(io, &p->elcr_port);
    if (rc) {
        bus_remove(io, &p->port[0]);
        bus_remove(io, &p->port[1]);
    }
    return rc;
}

static void pic_reset(void *dev)
{
    struct pic *p = dev;

    for (unsigned n = 0; n < 2; n++) {
        /* Input levels belong to the devices that drive them, which are reset by themselves. */
        uint8_t lines = p->chip[n].lines;
        p->chip[n] = (struct pic_chip){ .lines = lines, .lowest = 7 };
    }
    pic_update(p);
}

static void pic_resume(void *dev)
{
    struct pic *p = dev;

    p->out_level = pic_request(p, 0) >= 0;
    irq_set(&p->out, p->out_level);
}

static void pic_destroy(void *dev) { (void)dev; }

static int pic_check(void *obj, struct err *err)
{
    struct pic *p = obj;

    for (unsigned n = 0; n < 2; n++) {
        struct pic_chip *c = &p->chip[n];
        if (c->lowest > 7 || c->init_step == 1 || c->init_step > 4)
            return err_set(err, EINVAL, "8259 %u: impossible priority or initialisation step", n);
        c->base &= 0xf8;
        c->elcr &= pic_elcr_mask[n];
    }
    return 0;
}

static const struct state_field pic_chip_fields[] = {
    STATE_F8(struct pic_chip, lines),
    STATE_F8(struct pic_chip, irr),
    STATE_F8(struct pic_chip, imr),
    STATE_F8(struct pic_chip, isr),
    STATE_F8(struct pic_chip, elcr),
    STATE_F8(struct pic_chip, base),
    STATE_F8(struct pic_chip, icw3),
    STATE_F8(struct pic_chip, lowest),
    STATE_F8(struct pic_chip, init_step),
    STATE_FBOOL(struct pic_chip, icw4_follows),
    STATE_FBOOL(struct pic_chip, single),
    STATE_FBOOL(struct pic_chip, ltim),
    STATE_FBOOL(struct pic_chip, aeoi),
    STATE_FBOOL(struct pic_chip, rotate_aeoi),
    STATE_FBOOL(struct pic_chip, sfnm),
    STATE_FBOOL(struct pic_chip, special_mask),
    STATE_FBOOL(struct pic_chip, read_isr),
    STATE_FBOOL(struct pic_chip, poll),
    STATE_END,
};
static const struct state_desc pic_chip_state = {
    .name = "pic8259-chip", .version = 1, .size = sizeof(struct pic_chip), .fields = pic_chip_fields
};
static const struct state_field pic_fields[] = {
    STATE_FSTRUCT(struct pic, chip, struct pic_chip, pic_chip_state),
    STATE_END,
};
static const struct state_desc pic_state = {
    .name = "pic8259", .version = 1, .size = sizeof(struct pic), .fields = pic_fields, .check = pic_check
};

const struct device_ops pic_ops = {
    .type = "pic8259",
    .reset = pic_reset,
    .resume = pic_resume,
    .destroy = pic_destroy,
    .state = &pic_state,
};
