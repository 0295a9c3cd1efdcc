/* Models: an I/O APIC with 24 pins, version 0x20 (that is, with an EOI register).
 * Source: Intel 82093AA datasheet (order 290566): register select and window, redirection table; Intel
 * ICH9 datasheet, section on the APIC for the EOI register.
 * Runs on: any thread, under the device lock; calls `deliver`, which must not come back.
 */
#include "chip/ioapic.h"

#include <errno.h>

#include "base/bits.h"
#include "base/err.h"
#include "state/state.h"

enum { REG_SELECT = 0x00, REG_WINDOW = 0x10, REG_EOI = 0x40 };
enum { IDX_ID = 0, IDX_VERSION = 1, IDX_ARB = 2, IDX_REDIR = 0x10 };

#define IOAPIC_VERSION (0x20 | (IOAPIC_PINS - 1) << 16)

/* Redirection entry. */
#define RTE_LOGICAL BIT(11)
/* Bit 12, delivery status: messages are delivered at once, so it always reads 0. */
#define RTE_LOW        BIT(13) /* polarity: the lines here are logical levels, so it is only stored */
#define RTE_REMOTE_IRR BIT(14)
#define RTE_LEVEL      BIT(15)
#define RTE_MASKED     BIT(16)
#define RTE_WRITABLE   0xff0000000001afffULL

/* Level-triggered operation exists for fixed and lowest-priority delivery only. */
static bool ioapic_is_level(uint64_t rte) { return (rte & RTE_LEVEL) && bits(rte, 10, 8) <= APIC_LOWEST; }

static void ioapic_send(struct ioapic *a, unsigned pin)
{
    uint64_t rte = a->redir[pin];
    struct apic_msg msg = {
        .dest = (uint32_t)(rte >> 56),
        .logical = rte & RTE_LOGICAL,
        .vector = (uint8_t)rte,
        .delivery_mode = (uint8_t)bits(rte, 10, 8),
        .level = ioapic_is_level(rte),
        .assert = true,
    };

    if (msg.level)
        a->redir[pin] |= RTE_REMOTE_IRR;
    a->deliver(a->opaque, &msg);
}

/* A level-triggered pin is sent when its line is high and the last message has seen its EOI. */
static void ioapic_check_level(struct ioapic *a, unsigned pin)
{
    uint64_t rte = a->redir[pin];

    if (ioapic_is_level(rte) && (a->lines & BIT(pin)) && !(rte & (RTE_MASKED | RTE_REMOTE_IRR)))
        ioapic_send(a, pin);
}

void ioapic_set_irq(void *opaque, unsigned pin, bool level)
{
    struct ioapic *a = opaque;

    if (pin >= IOAPIC_PINS)
        return;
    bool was = a->lines & BIT(pin);
    if (level)
        a->lines |= BIT(pin);
    else
        a->lines &= ~BIT(pin);
    if (!level)
        return;
    /* An edge on a masked pin is neither delivered nor held. */
    if (ioapic_is_level(a->redir[pin]))
        ioapic_check_level(a, pin);
    else if (!was && !(a->redir[pin] & RTE_MASKED))
        ioapic_send(a, pin);
}

void ioapic_eoi(struct ioapic *a, uint8_t vector)
{
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
        uint64_t rte = a->redir[pin];
        if ((uint8_t)rte != vector || !(rte & RTE_REMOTE_IRR))
            continue;
        a->redir[pin] &= ~RTE_REMOTE_IRR;
        ioapic_check_level(a, pin);
    }
}

static uint32_t ioapic_read_index(const struct ioapic *a, unsigned idx)
{
    unsigned pin = (idx - IDX_REDIR) / 2;

    switch (idx) {
    case IDX_ID:
    case IDX_ARB:
        return (uint32_t)a->id << 24;
    case IDX_VERSION:
        return IOAPIC_VERSION;
    }
    if (idx < IDX_REDIR || pin >= IOAPIC_PINS)
        return 0;
    return (uint32_t)(a->redir[pin] >> (idx & 1 ? 32 : 0));
}

static void ioapic_write_redir(struct ioapic *a, unsigned pin, bool high, uint32_t v)
{
    uint64_t old = a->redir[pin];
    uint64_t rte = high ? bits_set(old, 63, 32, v) : bits_set(old, 31, 0, v);

    rte = (rte & RTE_WRITABLE) | (old & RTE_REMOTE_IRR);
    /* Remote IRR belongs to a level-triggered entry: software resets a stuck one by switching to edge. */
    if (!ioapic_is_level(rte))
        rte &= ~RTE_REMOTE_IRR;
    a->redir[pin] = rte;
    ioapic_check_level(a, pin);
}

static void ioapic_write_index(struct ioapic *a, unsigned idx, uint32_t v)
{
    if (idx == IDX_ID)
        a->id = (uint8_t)bits(v, 27, 24);
    else if (idx >= IDX_REDIR && idx < IDX_REDIR + 2 * IOAPIC_PINS)
        ioapic_write_redir(a, (idx - IDX_REDIR) / 2, idx & 1, v);
}

static uint64_t ioapic_read(void *dev, uint64_t off, unsigned size)
{
    struct ioapic *a = dev;

    if (off == REG_SELECT)
        return a->select;
    if (off == REG_WINDOW)
        return ioapic_read_index(a, a->select);
    return 0;
}

static void ioapic_write(void *dev, uint64_t off, uint64_t value, unsigned size)
{
    struct ioapic *a = dev;

    if (off == REG_SELECT)
        a->select = (uint8_t)value;
    else if (off == REG_WINDOW)
        ioapic_write_index(a, a->select, (uint32_t)value);
    else if (off == REG_EOI)
        ioapic_eoi(a, (uint8_t)value);
}

/* Registers are 32 bits wide; byte writes to the select register do occur in old software. */
static const struct bus_ops ioapic_bus = {
    .read = ioapic_read, .write = ioapic_write, .min_size = 1, .max_size = 4
};

static void ioapic_reset(void *dev)
{
    struct ioapic *a = dev;

    /* Line levels belong to the devices that drive them. */
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++)
        a->redir[pin] = RTE_MASKED;
    a->select = 0;
    a->id = 0;
}

void ioapic_init(struct ioapic *a, apic_deliver_fn deliver, void *opaque)
{
    *a = (struct ioapic){
        .deliver = deliver,
        .opaque = opaque,
        .mmio = { .len = 0x1000, .ops = &ioapic_bus, .dev = a, .name = "ioapic" },
    };
    ioapic_reset(a);
}

int ioapic_attach(struct ioapic *a, struct bus *mmio, uint64_t gpa)
{
    a->mmio.base = gpa;
    return bus_add(mmio, &a->mmio);
}

static void ioapic_destroy(void *dev) { (void)dev; }

static int ioapic_check(void *obj, struct err *err)
{
    struct ioapic *a = obj;

    if (a->id > 15 || a->lines >> IOAPIC_PINS)
        return err_set(err, EINVAL, "I/O APIC: impossible ID or line levels");
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
        if (a->redir[pin] & ~(RTE_WRITABLE | RTE_REMOTE_IRR))
            return err_set(err, EINVAL, "I/O APIC: reserved bits set in redirection entry %u", pin);
    }
    return 0;
}

static const struct state_field ioapic_fields[] = {
    STATE_F64(struct ioapic, redir),
    STATE_F32(struct ioapic, lines),
    STATE_F8(struct ioapic, select),
    STATE_F8(struct ioapic, id),
    STATE_END,
};
static const struct state_desc ioapic_state = { .name = "ioapic",
                                                .version = 1,
                                                .size = sizeof(struct ioapic),
                                                .fields = ioapic_fields,
                                                .check = ioapic_check };

const struct device_ops ioapic_ops = {
    .type = "ioapic",
    .reset = ioapic_reset,
    .destroy = ioapic_destroy,
    .state = &ioapic_state,
};
