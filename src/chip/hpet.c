/* Models: an IA-PC HPET with a 64-bit main counter at 100 MHz and three comparators, each able to run
 * periodically; legacy replacement; no FSB (MSI) delivery.
 * Source: IA-PC HPET specification 1.0a, sections 2.3 and 2.4.
 * Runs on: vCPU threads through the bus and the loop's thread (timers), all under the device lock.
 *
 * The counter is computed from guest time. A comparator match becomes a timer at the guest time `due`.
 * A comparator that has been passed waits for the counter to wrap, as the hardware does.
 */
#include "chip/hpet.h"

#include <errno.h>

#include "base/bits.h"
#include "base/err.h"
#include "state/state.h"

#define HPET_TICK_NS 10ULL
/* At most 20,000 interrupts a second from one comparator, whatever the guest programs. */
#define HPET_MIN_NS 50000ULL

enum { REG_CAP = 0x000, REG_CONFIG = 0x010, REG_ISR = 0x020, REG_COUNTER = 0x0f0, REG_TIMERS = 0x100 };
/* Offsets within a timer; 0x10, the FSB route, is not offered and reads 0. */
enum { TIMER_CONFIG = 0x00, TIMER_CMP = 0x08 };

#define CONFIG_ENABLE BIT(0)
#define CONFIG_LEGACY BIT(1)

#define TN_LEVEL    BIT(1)
#define TN_ENABLE   BIT(2)
#define TN_PERIODIC BIT(3)
#define TN_PER_CAP  BIT(4)
#define TN_SIZE_CAP BIT(5)
#define TN_VAL_SET  BIT(6)
#define TN_32BIT    BIT(8)
#define TN_WRITABLE (TN_LEVEL | TN_ENABLE | TN_PERIODIC | TN_VAL_SET | TN_32BIT | 0x3e00)

#define HPET_NEVER (1ULL << 62)

static uint64_t hpet_now(const struct hpet *h) { return clock_ns(h->loop->clock); }

static bool hpet_enabled(const struct hpet *h) { return h->config & CONFIG_ENABLE; }

static uint64_t hpet_counter_at(const struct hpet *h, uint64_t now)
{
    if (!hpet_enabled(h))
        return h->counter;
    return h->counter + (now - h->since) / HPET_TICK_NS;
}

static uint64_t hpet_mask(const struct hpet_timer *t) { return t->config & TN_32BIT ? 0xffffffffULL : ~0ULL; }

static bool hpet_is_legacy(const struct hpet_timer *t)
{
    return (t->hpet->config & CONFIG_LEGACY) && t->index < 2;
}

static unsigned hpet_pin(const struct hpet_timer *t) { return (unsigned)bits(t->config, 13, 9); }

/* True when another comparator holds the I/O APIC pin of this one. */
static bool hpet_pin_held(const struct hpet_timer *t)
{
    const struct hpet *h = t->hpet;

    for (unsigned i = 0; i < HPET_TIMERS; i++) {
        const struct hpet_timer *o = &h->tm[i];
        bool active = (h->isr & BIT(i)) && (o->config & TN_ENABLE) && !hpet_is_legacy(o);
        if (o != t && active && hpet_pin(o) == hpet_pin(t))
            return true;
    }
    return false;
}

/* The line of a comparator: IRQ 0 or 8 in legacy mode, else the I/O APIC pin of its route field, which
 * comparators may share. */
static void hpet_drive(struct hpet_timer *t, bool level)
{
    struct hpet *h = t->hpet;

    if (hpet_is_legacy(t))
        irq_set(&h->legacy[t->index], level);
    else if (h->route_cap >> hpet_pin(t) & 1 && h->route.fn)
        h->route.fn(h->route.opaque, hpet_pin(t), level || hpet_pin_held(t));
}

static void hpet_fire(struct hpet_timer *t)
{
    struct hpet *h = t->hpet;

    if (t->config & TN_LEVEL) {
        h->isr |= BIT(t->index);
        if (t->config & TN_ENABLE)
            hpet_drive(t, true);
    } else if (t->config & TN_ENABLE) {
        /* One edge. The 8259 wants the line to stay high until INTA; an I/O APIC pin may be shared. */
        bool rest = hpet_is_legacy(t);
        hpet_drive(t, !rest);
        hpet_drive(t, rest);
    }
}

/* The guest time at which the counter has made `ticks` more steps after `now`. */
static uint64_t hpet_tick_ns(const struct hpet *h, uint64_t now, uint64_t ticks)
{
    uint64_t done = (now - h->since) / HPET_TICK_NS;

    if (ticks > HPET_NEVER / HPET_TICK_NS)
        return 0;
    return h->since + (done + ticks) * HPET_TICK_NS;
}

/* Compute the next match of a comparator that has not been reached. at_match: the counter equals the
 * comparator now and this counts as a match to come. */
static void hpet_plan(struct hpet_timer *t, uint64_t now, bool at_match)
{
    struct hpet *h = t->hpet;
    uint64_t mask = hpet_mask(t), ticks = (t->cmp - hpet_counter_at(h, now)) & mask;

    timer_cancel(&t->timer);
    t->due = 0;
    if (!hpet_enabled(h))
        return;
    if (!ticks && !at_match) {
        if (mask == ~0ULL)
            return;
        ticks = mask + 1;
    }
    t->due = hpet_tick_ns(h, now, ticks);
    /* A comparator that interrupts nobody needs no wake-up: hpet_sync() works its matches out. */
    if (!t->due || !(t->config & TN_ENABLE))
        return;
    uint64_t soonest = t->last_fire ? t->last_fire + HPET_MIN_NS : 0;
    timer_arm(&t->timer, t->due < soonest ? soonest : t->due);
}

/* Let a comparator's match at or before now happen: one interrupt, however many matches were missed. */
static void hpet_expire(struct hpet_timer *t, uint64_t now)
{
    struct hpet *h = t->hpet;
    uint64_t mask = hpet_mask(t);

    if (!t->due || t->due > now)
        return;
    if ((t->config & TN_PERIODIC) && (t->period & mask)) {
        uint64_t period = t->period & mask, late = (hpet_counter_at(h, now) - t->cmp) & mask;
        t->cmp = (t->cmp + (late / period + 1) * period) & mask;
    }
    t->last_fire = now;
    hpet_fire(t);
    hpet_plan(t, now, false);
}

static void hpet_timer_expire(void *opaque)
{
    struct hpet_timer *t = opaque;
    uint64_t now = hpet_now(t->hpet);

    hpet_expire(t, now);
    if (t->due && !timer_armed(&t->timer))
        hpet_plan(t, now, true);
}

/* Matches that are due happen before the guest sees or changes anything; the rate bound holds here too. */
static void hpet_sync(struct hpet *h, uint64_t now)
{
    for (unsigned i = 0; i < HPET_TIMERS; i++) {
        struct hpet_timer *t = &h->tm[i];
        if (!timer_armed(&t->timer) || t->timer.deadline <= now)
            hpet_expire(t, now);
    }
}

static void hpet_plan_all(struct hpet *h, uint64_t now)
{
    for (unsigned i = 0; i < HPET_TIMERS; i++)
        hpet_plan(&h->tm[i], now, true);
}

/* ---- registers ---- */

static uint64_t hpet_timer_caps(const struct hpet *h)
{
    return (uint64_t)h->route_cap << 32 | TN_PER_CAP | TN_SIZE_CAP;
}

static uint64_t hpet_read_reg(struct hpet *h, unsigned reg, uint64_t now)
{
    unsigned n = (reg - REG_TIMERS) / 0x20;

    switch (reg) {
    case REG_CAP:
        return HPET_PERIOD_FS << 32 | HPET_BLOCK_ID;
    case REG_CONFIG:
        return h->config;
    case REG_ISR:
        return h->isr;
    case REG_COUNTER:
        return hpet_counter_at(h, now);
    }
    if (reg < REG_TIMERS || n >= HPET_TIMERS)
        return 0;
    struct hpet_timer *t = &h->tm[n];
    switch (reg & 0x1f) {
    case TIMER_CONFIG:
        return (t->config & ~TN_VAL_SET) | hpet_timer_caps(h);
    case TIMER_CMP:
        return t->cmp & hpet_mask(t);
    }
    return 0;
}

/* Legacy replacement goes on or off: active levels of the first two comparators move to the other lines. */
static void hpet_switch_legacy(struct hpet *h, bool on)
{
    uint64_t isr = h->isr;

    h->isr &= ~3ULL;
    for (unsigned i = 0; i < 2; i++)
        hpet_drive(&h->tm[i], false);
    h->config ^= CONFIG_LEGACY;
    irq_set(&h->legacy_select, on);
    h->isr = isr;
    for (unsigned i = 0; i < 2; i++) {
        if ((isr & BIT(i)) && (h->tm[i].config & TN_ENABLE))
            hpet_drive(&h->tm[i], true);
    }
}

static void hpet_write_config(struct hpet *h, uint64_t v, uint64_t now)
{
    h->counter = hpet_counter_at(h, now);
    h->since = now;
    if ((v ^ h->config) & CONFIG_LEGACY)
        hpet_switch_legacy(h, v & CONFIG_LEGACY);
    h->config = v & (CONFIG_ENABLE | CONFIG_LEGACY);
    hpet_plan_all(h, now);
}

static void hpet_write_isr(struct hpet *h, uint64_t v)
{
    for (unsigned i = 0; i < HPET_TIMERS; i++) {
        if (!(v & h->isr & BIT(i)))
            continue;
        h->isr &= ~BIT(i);
        hpet_drive(&h->tm[i], false);
    }
}

static void hpet_write_counter(struct hpet *h, uint64_t v, uint64_t now)
{
    h->counter = v;
    h->since = now;
    hpet_plan_all(h, now);
}

static void hpet_write_timer_config(struct hpet_timer *t, uint64_t v, uint64_t now)
{
    struct hpet *h = t->hpet;
    unsigned pin = (unsigned)bits(v, 13, 9);

    /* A pin that the capability mask does not offer is refused: the field keeps its value (2.3.8). */
    if (!(h->route_cap >> pin & 1))
        v = bits_set(v, 13, 9, bits(t->config, 13, 9));
    if ((h->isr & BIT(t->index)) || !(v & TN_ENABLE))
        hpet_drive(t, false);
    t->config = v & TN_WRITABLE;
    if (t->config & TN_32BIT) {
        t->cmp &= 0xffffffff;
        t->period &= 0xffffffff;
    }
    if (!(t->config & TN_LEVEL))
        h->isr &= ~BIT(t->index);
    else if ((h->isr & BIT(t->index)) && (t->config & TN_ENABLE))
        hpet_drive(t, true);
    hpet_plan(t, now, false);
}

/* Periodic mode has two registers behind one address: a write sets the period, and with VAL_SET also the
 * comparator itself. */
static void hpet_write_cmp(struct hpet_timer *t, uint64_t v, uint64_t wmask, uint64_t now)
{
    uint64_t mask = hpet_mask(t);

    if (!(t->config & TN_PERIODIC) || (t->config & TN_VAL_SET))
        t->cmp = ((t->cmp & ~wmask) | v) & mask;
    if (t->config & TN_PERIODIC)
        t->period = ((t->period & ~wmask) | v) & mask;
    t->config &= ~TN_VAL_SET;
    hpet_plan(t, now, true);
}

/* wmask: the bits that the access covers; v has no others. The rest of a register keeps its value. */
static void hpet_write_reg(struct hpet *h, unsigned reg, uint64_t v, uint64_t wmask, uint64_t now)
{
    unsigned n = (reg - REG_TIMERS) / 0x20;

    switch (reg) {
    case REG_CONFIG:
        hpet_write_config(h, (h->config & ~wmask) | v, now);
        return;
    case REG_ISR:
        hpet_write_isr(h, v);
        return;
    case REG_COUNTER:
        hpet_write_counter(h, (hpet_counter_at(h, now) & ~wmask) | v, now);
        return;
    }
    if (reg < REG_TIMERS || n >= HPET_TIMERS)
        return;
    if ((reg & 0x1f) == TIMER_CONFIG)
        hpet_write_timer_config(&h->tm[n], (h->tm[n].config & ~wmask) | v, now);
    else if ((reg & 0x1f) == TIMER_CMP)
        hpet_write_cmp(&h->tm[n], v, wmask, now);
}

static uint64_t hpet_bus_read(void *dev, uint64_t off, unsigned size)
{
    struct hpet *h = dev;
    uint64_t now = hpet_now(h);

    hpet_sync(h, now);
    return hpet_read_reg(h, (unsigned)off & ~7U, now) >> (8 * (off & 7));
}

static void hpet_bus_write(void *dev, uint64_t off, uint64_t value, unsigned size)
{
    struct hpet *h = dev;
    uint64_t now = hpet_now(h);
    unsigned shift = 8 * (off & 7);

    hpet_sync(h, now);
    hpet_write_reg(h, (unsigned)off & ~7U, value << shift, mask_bytes(size) << shift, now);
}

static const struct bus_ops hpet_bus = {
    .read = hpet_bus_read, .write = hpet_bus_write, .min_size = 4, .max_size = 8
};

/* ---- life cycle ---- */

static void hpet_reset(void *dev)
{
    struct hpet *h = dev;
    unsigned first = h->route_cap ? (unsigned)__builtin_ctz(h->route_cap) : 0;

    for (unsigned i = 0; i < HPET_TIMERS; i++) {
        struct hpet_timer *t = &h->tm[i];
        timer_cancel(&t->timer);
        if (h->isr & BIT(i))
            hpet_drive(t, false);
        t->config = (uint64_t)first << 9;
        t->cmp = ~0ULL;
        t->period = t->due = t->last_fire = 0;
    }
    if (h->config & CONFIG_LEGACY)
        irq_set(&h->legacy_select, false);
    h->config = h->isr = h->counter = h->since = 0;
}

void hpet_init(struct hpet *h, struct loop *loop, struct irq_line route, uint32_t route_cap,
               struct irq_line legacy0, struct irq_line legacy8, struct irq_line legacy_select)
{
    *h = (struct hpet){
        .loop = loop,
        .route = route,
        .route_cap = route_cap,
        .legacy = { legacy0, legacy8 },
        .legacy_select = legacy_select,
        .mmio = { .len = 0x400, .ops = &hpet_bus, .dev = h, .name = "hpet" },
    };
    for (unsigned i = 0; i < HPET_TIMERS; i++) {
        h->tm[i].hpet = h;
        h->tm[i].index = i;
        timer_init(&h->tm[i].timer, loop, hpet_timer_expire, &h->tm[i]);
    }
    hpet_reset(h);
}

int hpet_attach(struct hpet *h, struct bus *mmio, uint64_t gpa)
{
    h->mmio.base = gpa;
    return bus_add(mmio, &h->mmio);
}

static void hpet_pause(void *dev)
{
    struct hpet *h = dev;
    for (unsigned i = 0; i < HPET_TIMERS; i++)
        timer_cancel(&h->tm[i].timer);
}

static void hpet_resume(void *dev)
{
    struct hpet *h = dev;

    for (unsigned i = 0; i < HPET_TIMERS; i++) {
        struct hpet_timer *t = &h->tm[i];
        uint64_t soonest = t->last_fire ? t->last_fire + HPET_MIN_NS : 0;
        if (t->due && (t->config & TN_ENABLE))
            timer_arm(&t->timer, t->due < soonest ? soonest : t->due);
    }
}

static int hpet_check(void *obj, struct err *err)
{
    struct hpet *h = obj;

    if (h->config & ~(CONFIG_ENABLE | CONFIG_LEGACY) || h->isr >> HPET_TIMERS)
        return err_set(err, EINVAL, "HPET: reserved bits set");
    for (unsigned i = 0; i < HPET_TIMERS; i++) {
        if (h->tm[i].config & ~TN_WRITABLE)
            return err_set(err, EINVAL, "HPET comparator %u: reserved bits set", i);
        if (h->tm[i].last_fire > HPET_NEVER)
            return err_set(err, EINVAL, "HPET comparator %u: impossible time", i);
    }
    return 0;
}

static const struct state_field hpet_timer_fields[] = {
    STATE_F64(struct hpet_timer, config),    STATE_F64(struct hpet_timer, cmp),
    STATE_F64(struct hpet_timer, period),    STATE_F64(struct hpet_timer, due),
    STATE_F64(struct hpet_timer, last_fire), STATE_END,
};
static const struct state_desc hpet_timer_state = {
    .name = "hpet-timer", .version = 1, .size = sizeof(struct hpet_timer), .fields = hpet_timer_fields
};
static const struct state_field hpet_fields[] = {
    STATE_FSTRUCT(struct hpet, tm, struct hpet_timer, hpet_timer_state),
    STATE_F64(struct hpet, config),
    STATE_F64(struct hpet, isr),
    STATE_F64(struct hpet, counter),
    STATE_F64(struct hpet, since),
    STATE_END,
};
static const struct state_desc hpet_state = {
    .name = "hpet", .version = 1, .size = sizeof(struct hpet), .fields = hpet_fields, .check = hpet_check
};

const struct device_ops hpet_ops = {
    .type = "hpet",
    .reset = hpet_reset,
    .pause = hpet_pause,
    .resume = hpet_resume,
    .destroy = hpet_pause,
    .state = &hpet_state,
};
