/* Models: the Intel 8254 programmable interval timer with three counters, and the PC's port 0x61
 * (gate of counter 2, speaker, refresh toggle).
 * Source: Intel 8254 datasheet (order 231164): control word, read-back, mode definitions, gate
 * operations; IBM PC AT technical reference for port 0x61.
 * Runs on: vCPU threads through the bus and the loop's thread (timer), all under the device lock.
 *
 * Counters are not stepped: the count and OUT are computed from the tick at which counting began. A
 * count takes effect on the CLK pulse after the write; in modes 2 and 3 a new count waits for the end
 * of the running period.
 */
#include "chip/pit8254.h"

#include <errno.h>

#include "base/bits.h"
#include "base/err.h"
#include "state/state.h"

enum { ACCESS_LOW = 1, ACCESS_HIGH = 2, ACCESS_BOTH = 3 };
enum { P61_GATE2 = 0x01, P61_REFRESH = 0x10, P61_OUT2 = 0x20, P61_WRITABLE = 0x0f };

/* Two refreshes toggle the bit about every 30 us. */
#define PIT_REFRESH_NS 15085
/* A guest gets at most 20,000 IRQ 0 a second, whatever it programs. */
#define PIT_MIN_NS 50000
/* Lost ticks that are made up for; more than that is a host stall that nobody wants replayed. */
#define PIT_BACKLOG 16

static uint64_t pit_tick(const struct pit *p)
{
    return muldiv64(clock_ns(p->loop->clock), PIT_HZ, NSEC_PER_SEC);
}

/* The first ns at which pit_tick() is at least tick. */
static uint64_t pit_tick_ns(uint64_t tick)
{
    uint64_t ns = muldiv64(tick, NSEC_PER_SEC, PIT_HZ);
    return muldiv64(ns, PIT_HZ, NSEC_PER_SEC) < tick ? ns + 1 : ns;
}

static bool pit_periodic(const struct pit_channel *c) { return c->mode == 2 || c->mode == 3; }

/* Ticks since the counting element was loaded. */
static uint64_t pit_elapsed(const struct pit_channel *c, uint64_t now)
{
    if (!c->gate && (c->mode == 0 || c->mode == 4))
        return c->held;
    return now > c->start ? now - c->start : 0;
}

/* Bring a channel up to now: a count that waited for the end of a period takes over. */
static void pit_sync(struct pit_channel *c, uint64_t now)
{
    if (c->running && !c->next && now >= c->start)
        c->null_count = false;
    if (!c->next || !c->running || !pit_periodic(c) || !c->gate || pit_elapsed(c, now) < c->count)
        return;
    /* pit_rebase() has put start into the period in which `next` was written. */
    c->start += c->count;
    c->edges = 0;
    c->owed = true;
    c->count = c->next;
    c->next = 0;
    c->null_count = false;
}

/* Periodic modes: move start to the beginning of the running period. */
static void pit_rebase(struct pit_channel *c, uint64_t now)
{
    uint64_t periods = pit_elapsed(c, now) / c->count;

    c->start += periods * c->count;
    c->edges = c->edges > periods ? c->edges - periods : 0;
}

/* The count on the wires: before conversion to BCD. */
static uint32_t pit_binary_count(const struct pit_channel *c, uint64_t now)
{
    uint32_t modulo = c->bcd ? 10000 : 65536, n = c->count;
    uint64_t e = pit_elapsed(c, now);

    if (!c->running)
        return n % modulo;
    if (c->mode == 2)
        return (n - (uint32_t)(c->gate ? e % n : 0)) % modulo;
    if (c->mode == 3) {
        uint32_t high = (n + 1) / 2, phase = (uint32_t)(c->gate ? e % n : 0);
        return ((n & ~1U) - 2 * (phase < high ? phase : phase - high)) % modulo;
    }
    return (n + modulo - (uint32_t)(e % modulo)) % modulo;
}

static uint16_t pit_count(const struct pit_channel *c, uint64_t now)
{
    uint32_t v = pit_binary_count(c, now);

    if (c->bcd)
        v = v % 10 | (v / 10 % 10) << 4 | (v / 100 % 10) << 8 | (v / 1000 % 10) << 12;
    return (uint16_t)v;
}

static bool pit_channel_out(const struct pit_channel *c, uint64_t now)
{
    uint64_t e = pit_elapsed(c, now);

    switch (c->mode) {
    case 0:
        return c->running && e >= c->count;
    case 1:
        return !c->running || e >= c->count;
    case 2:
        return !c->running || !c->gate || e % c->count != c->count - 1;
    case 3:
        return !c->running || !c->gate || e % c->count < (c->count + 1) / 2;
    default: /* the strobe: one CLK when the count reaches 0 */
        return !c->running || e != c->count;
    }
}

bool pit_out(struct pit *p, unsigned channel)
{
    struct pit_channel *c = &p->ch[channel % 3];
    uint64_t now = pit_tick(p);

    pit_sync(c, now);
    return pit_channel_out(c, now);
}

/* ---- IRQ 0 ---- */

/* The tick of rising edge number k (from 1) of OUT 0 since start. */
static uint64_t pit_edge_tick(const struct pit_channel *c, uint64_t k) { return c->start + k * c->count; }

/* Edges of OUT 0 up to now. */
static uint64_t pit_edges(const struct pit_channel *c, uint64_t now)
{
    uint64_t e = pit_elapsed(c, now);

    if (pit_periodic(c))
        return e / c->count;
    /* One edge: at the terminal count; after the strobe in modes 4 and 5. */
    return e >= c->count + (c->mode >= 4 ? 1U : 0U);
}

static void pit_schedule(struct pit *p)
{
    struct pit_channel *c = &p->ch[0];

    timer_cancel(&p->timer);
    if (!c->running || (!c->gate && c->mode != 1 && c->mode != 5))
        return;
    if (!pit_periodic(c)) {
        if (!c->edges)
            timer_arm(&p->timer, pit_tick_ns(c->start + c->count + (c->mode >= 4 ? 1U : 0U)));
        return;
    }
    uint64_t now = timer_now(&p->timer), due = pit_tick_ns(pit_edge_tick(c, c->owed ? 0 : c->edges + 1));
    if (p->backlog) {
        /* Lost ticks go out in between, at twice the pace. */
        uint64_t soon = now + pit_tick_ns(c->count) / 2;
        if (soon < due)
            due = soon;
    }
    timer_arm(&p->timer, due < now + PIT_MIN_NS && p->backlog ? now + PIT_MIN_NS : due);
}

static void pit_pulse(struct pit *p)
{
    if (!p->irq_blocked)
        irq_pulse(&p->irq);
}

/* Deliver the edges that OUT 0 has made since the last look. */
static void pit_catch_up(struct pit *p)
{
    struct pit_channel *c = &p->ch[0];
    uint64_t now = pit_tick(p), edges;

    pit_sync(c, now);
    if (!c->running)
        return;
    edges = pit_edges(c, now);
    uint64_t fresh = (edges > c->edges ? edges - c->edges : 0) + c->owed;
    c->edges = edges;
    c->owed = false;
    if (!pit_periodic(c)) {
        if (fresh)
            pit_pulse(p);
        return;
    }
    uint64_t total = p->backlog + fresh;
    if (!total)
        return;
    pit_pulse(p);
    /* Ticks faster than the bound cannot all be delivered: then there is nothing to make up for. */
    if (pit_tick_ns(c->count) < PIT_MIN_NS)
        total = 1;
    p->backlog = (uint8_t)(total - 1 < PIT_BACKLOG ? total - 1 : PIT_BACKLOG);
}

static void pit_expire(void *opaque)
{
    struct pit *p = opaque;
    uint64_t now = timer_now(&p->timer);

    pit_catch_up(p);
    pit_schedule(p);
    if (timer_armed(&p->timer) && p->timer.deadline < now + PIT_MIN_NS)
        timer_arm(&p->timer, now + PIT_MIN_NS);
}

/* ---- programming ---- */

/* Begin counting from the next CLK pulse. */
static void pit_load(struct pit_channel *c, uint64_t now)
{
    c->start = now + 1;
    c->held = 0;
    c->edges = 0;
    c->owed = false;
    c->running = true;
    c->next = 0;
    c->null_count = true;
}

/* A whole count has been written. 0 stands for the largest; 1 is no legal period. */
static void pit_write_count(struct pit_channel *c, uint16_t v, uint64_t now)
{
    uint32_t n = v;

    if (c->bcd)
        n = (v & 15) + (v >> 4 & 15) * 10 + (v >> 8 & 15) * 100 + (v >> 12 & 15) * 1000;
    if (n == 0 || (c->bcd && n > 10000))
        n = c->bcd ? 10000 : 65536;
    if (pit_periodic(c) && n < 2)
        n = 2;
    c->loaded = true;
    c->null_count = true;
    switch (c->mode) {
    case 1:
    case 5: /* waits for the trigger */
        if (c->running)
            c->next = n;
        else
            c->count = n;
        break;
    case 2:
    case 3:
        if (c->running && c->gate) {
            pit_rebase(c, now);
            c->next = n;
            break;
        }
        c->count = n;
        pit_load(c, now);
        break;
    default:
        c->count = n;
        pit_load(c, now);
    }
}

static void pit_gate_rise(struct pit_channel *c, uint64_t now)
{
    if (!c->loaded)
        return;
    if (c->mode == 0 || c->mode == 4) {
        c->start = now - c->held;
        return;
    }
    if (c->next)
        c->count = c->next;
    pit_load(c, now);
}

void pit_set_gate(struct pit *p, unsigned channel, bool level)
{
    struct pit_channel *c = &p->ch[channel % 3];
    uint64_t now = pit_tick(p);

    if (c->gate == level)
        return;
    pit_sync(c, now);
    if (!level && (c->mode == 0 || c->mode == 4))
        c->held = pit_elapsed(c, now);
    c->gate = level;
    if (level)
        pit_gate_rise(c, now);
    if (channel == 0)
        pit_schedule(p);
}

static void pit_latch_count(struct pit_channel *c, uint64_t now)
{
    if (c->latched)
        return;
    c->latch = pit_count(c, now);
    c->latched = c->access == ACCESS_BOTH ? 2 : 1;
    c->read_high = c->access == ACCESS_HIGH;
}

static void pit_latch_status(struct pit_channel *c, uint64_t now)
{
    if (c->status_latched)
        return;
    c->status_latched = true;
    c->status =
        (uint8_t)(pit_channel_out(c, now) << 7 | c->null_count << 6 | c->access << 4 | c->mode << 1 | c->bcd);
}

static void pit_read_back(struct pit *p, uint8_t v, uint64_t now)
{
    for (unsigned i = 0; i < 3; i++) {
        if (!(v & 2 << i))
            continue;
        pit_sync(&p->ch[i], now);
        if (!(v & 0x20))
            pit_latch_count(&p->ch[i], now);
        if (!(v & 0x10))
            pit_latch_status(&p->ch[i], now);
    }
}

static void pit_control(struct pit *p, uint8_t v)
{
    uint64_t now = pit_tick(p);
    unsigned n = v >> 6;

    if (n == 3) {
        pit_read_back(p, v, now);
        return;
    }
    struct pit_channel *c = &p->ch[n];
    pit_sync(c, now);
    if (!(v & 0x30)) {
        pit_latch_count(c, now);
        return;
    }
    c->access = v >> 4 & 3;
    c->mode = v >> 1 & 7;
    if (c->mode > 5) /* bit 2 does not count for modes 2 and 3 */
        c->mode -= 4;
    c->bcd = v & 1;
    c->loaded = c->running = c->status_latched = c->owed = false;
    c->latched = 0;
    c->write_high = c->read_high = c->access == ACCESS_HIGH;
    c->next = 0;
    c->edges = c->held = 0;
    c->null_count = true;
    if (n == 0) {
        /* OUT goes to its first level: low in mode 0, high in the others, without an interrupt. */
        p->backlog = 0;
        if (c->mode == 0 && !p->irq_blocked)
            irq_set(&p->irq, false);
        pit_schedule(p);
    }
}

static void pit_write_channel(struct pit *p, unsigned n, uint8_t v)
{
    struct pit_channel *c = &p->ch[n];
    uint64_t now = pit_tick(p);

    pit_sync(c, now);
    if (c->access == ACCESS_BOTH && !c->write_high) {
        c->low = v;
        c->write_high = true;
        /* Mode 0: the first byte stops the counting and takes OUT low. */
        if (c->mode == 0)
            c->running = false;
    } else if (c->access == ACCESS_BOTH) {
        c->write_high = false;
        pit_write_count(c, (uint16_t)(c->low | v << 8), now);
    } else {
        pit_write_count(c, c->access == ACCESS_LOW ? v : (uint16_t)(v << 8), now);
    }
    if (n == 0)
        pit_schedule(p);
}

static uint8_t pit_read_channel(struct pit *p, unsigned n)
{
    struct pit_channel *c = &p->ch[n];
    uint64_t now = pit_tick(p);

    pit_sync(c, now);
    if (c->status_latched) {
        c->status_latched = false;
        return c->status;
    }
    uint16_t v = c->latched ? c->latch : pit_count(c, now);
    bool high = c->access == ACCESS_HIGH || (c->access == ACCESS_BOTH && c->read_high);
    if (c->access == ACCESS_BOTH)
        c->read_high = !c->read_high;
    if (c->latched)
        c->latched--;
    return (uint8_t)(high ? v >> 8 : v);
}

static uint64_t pit_bus_read(void *dev, uint64_t off, unsigned size)
{
    return off == 3 ? 0xff : pit_read_channel(dev, (unsigned)off); /* the control word cannot be read */
}

static void pit_bus_write(void *dev, uint64_t off, uint64_t value, unsigned size)
{
    struct pit *p = dev;

    if (off == 0 || off == 3)
        pit_catch_up(p); /* an edge that is due now is not lost by reprogramming */
    if (off == 3)
        pit_control(p, (uint8_t)value);
    else
        pit_write_channel(p, (unsigned)off, (uint8_t)value);
}

static uint64_t pit_speaker_read(void *dev, uint64_t off, unsigned size)
{
    struct pit *p = dev;
    uint8_t v = p->port61;

    if (clock_ns(p->loop->clock) / PIT_REFRESH_NS & 1)
        v |= P61_REFRESH;
    if (pit_out(p, 2))
        v |= P61_OUT2;
    return v;
}

static void pit_speaker_write(void *dev, uint64_t off, uint64_t value, unsigned size)
{
    struct pit *p = dev;

    p->port61 = (uint8_t)value & P61_WRITABLE;
    pit_set_gate(p, 2, value & P61_GATE2);
}

static const struct bus_ops pit_bus = {
    .read = pit_bus_read, .write = pit_bus_write, .min_size = 1, .max_size = 1
};
static const struct bus_ops pit_speaker_bus = {
    .read = pit_speaker_read, .write = pit_speaker_write, .min_size = 1, .max_size = 1
};

/* ---- life cycle ---- */

void pit_block_irq(void *opaque, unsigned pin, bool on)
{
    struct pit *p = opaque;

    p->irq_blocked = on;
    if (on)
        irq_set(&p->irq, false);
}

static void pit_reset(void *dev)
{
    struct pit *p = dev;

    timer_cancel(&p->timer);
    for (unsigned i = 0; i < 3; i++)
        p->ch[i] = (struct pit_channel){
            .access = ACCESS_BOTH, .mode = 3, .count = 65536, .gate = i != 2, .null_count = true
        };
    p->port61 = 0;
    p->backlog = 0;
    p->irq_blocked = false;
    irq_set(&p->irq, false);
}

void pit_init(struct pit *p, struct loop *loop, struct irq_line irq)
{
    *p = (struct pit){
        .loop = loop,
        .irq = irq,
        .ports = { .base = 0x40, .len = 4, .ops = &pit_bus, .dev = p, .name = "pit" },
        .speaker = { .base = 0x61, .len = 1, .ops = &pit_speaker_bus, .dev = p, .name = "port61" },
    };
    timer_init(&p->timer, loop, pit_expire, p);
    pit_reset(p);
}

int pit_attach(struct pit *p, struct bus *io)
{
    int rc = bus_add(io, &p->ports);
    if (rc)
        return rc;
    rc = bus_add(io, &p->speaker);
    if (rc)
        bus_remove(io, &p->ports);
    return rc;
}

static void pit_pause(void *dev) { timer_cancel(&((struct pit *)dev)->timer); }

static void pit_resume(void *dev) { pit_schedule(dev); }

static int pit_check(void *obj, struct err *err)
{
    struct pit *p = obj;

    for (unsigned i = 0; i < 3; i++) {
        struct pit_channel *c = &p->ch[i];
        uint32_t max = c->bcd ? 10000 : 65536, min = pit_periodic(c) ? 2 : 1;
        if (c->mode > 5 || c->access < 1 || c->access > 3 || c->latched > 2)
            return err_set(err, EINVAL, "8254 counter %u: impossible mode", i);
        if (c->count < min || c->count > max || (c->next && (c->next < min || c->next > max)))
            return err_set(err, EINVAL, "8254 counter %u: impossible count", i);
    }
    if (p->backlog > PIT_BACKLOG)
        return err_set(err, EINVAL, "8254: too many lost ticks");
    return 0;
}

static const struct state_field pit_channel_fields[] = {
    STATE_F64(struct pit_channel, start),
    STATE_F64(struct pit_channel, held),
    STATE_F64(struct pit_channel, edges),
    STATE_FBOOL(struct pit_channel, owed),
    STATE_F32(struct pit_channel, count),
    STATE_F32(struct pit_channel, next),
    STATE_F16(struct pit_channel, latch),
    STATE_F8(struct pit_channel, latched),
    STATE_F8(struct pit_channel, status),
    STATE_FBOOL(struct pit_channel, status_latched),
    STATE_F8(struct pit_channel, mode),
    STATE_F8(struct pit_channel, access),
    STATE_FBOOL(struct pit_channel, bcd),
    STATE_FBOOL(struct pit_channel, gate),
    STATE_FBOOL(struct pit_channel, loaded),
    STATE_FBOOL(struct pit_channel, running),
    STATE_FBOOL(struct pit_channel, null_count),
    STATE_FBOOL(struct pit_channel, write_high),
    STATE_FBOOL(struct pit_channel, read_high),
    STATE_F8(struct pit_channel, low),
    STATE_END,
};
static const struct state_desc pit_channel_state = {
    .name = "pit8254-channel", .version = 1, .size = sizeof(struct pit_channel), .fields = pit_channel_fields
};
static const struct state_field pit_fields[] = {
    STATE_FSTRUCT(struct pit, ch, struct pit_channel, pit_channel_state),
    STATE_F8(struct pit, port61),
    STATE_F8(struct pit, backlog),
    STATE_FBOOL(struct pit, irq_blocked),
    STATE_END,
};
static const struct state_desc pit_state = {
    .name = "pit8254", .version = 1, .size = sizeof(struct pit), .fields = pit_fields, .check = pit_check
};

const struct device_ops pit_ops = {
    .type = "pit8254",
    .reset = pit_reset,
    .pause = pit_pause,
    .resume = pit_resume,
    .destroy = pit_pause,
    .state = &pit_state,
};
