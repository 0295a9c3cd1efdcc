/* The bench of rig.h. The state of devices is compared in its saved form, as only that is described.
 * Single-threaded; guest time is the manual clock's.
 */
#include "rig.h"

#include <errno.h>
#include <string.h>

#include "base/bits.h"
#include "base/err.h"
#include "state/state.h"

void rig_init(struct rig *r, uint64_t wall_ns)
{
    memset(r, 0, sizeof(*r));
    clock_init_manual(&r->clock, wall_ns);
    assert_int_equal(loop_init(&r->loop, &r->clock), 0);
    bus_init(&r->io, "io", &r->loop, 0x10000);
    bus_init(&r->mmio, "mmio", &r->loop, 0);
    r->seed = 0x9e3779b97f4a7c15ULL;
}

void rig_fini(struct rig *r) { loop_fini(&r->loop); }

static void rig_line_set(void *opaque, unsigned pin, bool level)
{
    struct rig *r = opaque;

    if (level && !r->line[pin].level)
        r->line[pin].rises++;
    r->line[pin].level = level;
}

struct irq_line rig_irq(struct rig *r, unsigned n)
{
    assert_true(n < ARRAY_LEN(r->line));
    return (struct irq_line){ .fn = rig_line_set, .opaque = r, .pin = n };
}

void rig_deliver(void *opaque, const struct apic_msg *msg)
{
    struct rig *r = opaque;

    if (r->msgs < RIG_MSGS)
        r->msg[r->msgs] = *msg;
    r->msgs++;
}

void rig_run(struct rig *r, uint64_t ns)
{
    uint64_t end = clock_ns(&r->clock) + ns;

    while (r->loop.heap_len && r->loop.heap[0]->deadline <= end) {
        uint64_t now = clock_ns(&r->clock), next = r->loop.heap[0]->deadline;
        if (next > now)
            clock_advance(&r->clock, next - now);
        loop_step(&r->loop, 0);
        r->timer_runs++;
    }
    clock_advance(&r->clock, end - clock_ns(&r->clock));
}

void rig_jump(struct rig *r, uint64_t ns)
{
    clock_advance(&r->clock, ns);
    loop_step(&r->loop, 0);
}

uint8_t rig_inb(struct rig *r, uint16_t port) { return (uint8_t)bus_read(&r->io, port, 1); }

void rig_outb(struct rig *r, uint16_t port, uint8_t v) { bus_write(&r->io, port, v, 1); }

uint64_t rig_random(struct rig *r)
{
    r->seed ^= r->seed << 13;
    r->seed ^= r->seed >> 7;
    r->seed ^= r->seed << 17;
    return r->seed;
}

static void rig_save(const struct device_ops *ops, const void *dev, struct state_buf *b)
{
    *b = (struct state_buf){ 0 };
    assert_int_equal(state_save(b, ops->state, 0, dev), 0);
}

void rig_assert_same(const struct device_ops *ops, const void *a, const void *b)
{
    struct state_buf sa, sb;

    rig_save(ops, a, &sa);
    rig_save(ops, b, &sb);
    assert_int_equal(sa.len, sb.len);
    assert_memory_equal(sa.data, sb.data, sa.len);
    state_buf_fini(&sa);
    state_buf_fini(&sb);
}

void rig_round_trip(const struct device_ops *ops, void *dev, void *fresh)
{
    struct state_buf s;
    struct err err = { "" };

    rig_save(ops, dev, &s);
    assert_int_equal(state_load(s.data, s.len, ops->state, 0, fresh, &err), 0);
    if (ops->resume)
        ops->resume(fresh);
    rig_assert_same(ops, dev, fresh);
    s.data[s.len / 2] ^= 1;
    assert_int_equal(state_load(s.data, s.len, ops->state, 0, fresh, &err), -EINVAL);
    state_buf_fini(&s);
    rig_assert_same(ops, dev, fresh);
}

static uint64_t rig_fuzz_pause(struct rig *r)
{
    uint64_t x = rig_random(r);

    return x % 16 ? x >> 8 & 0xff : x >> 8 & 0xffffff; /* mostly below 256 ns, now and then up to 16 ms */
}

void rig_fuzz(struct rig *r, struct bus *bus, uint64_t base, uint64_t len, unsigned n)
{
    while (n--) {
        uint64_t x = rig_random(r);
        unsigned size = 1U << (x & 3);
        uint64_t addr = base + (x >> 8 & 0xffffff) % len;
        if (x & 4)
            bus_read(bus, addr, size);
        else
            bus_write(bus, addr, rig_random(r), size);
        if (x >> 40 & 1)
            rig_jump(r, rig_fuzz_pause(r));
    }
}

/* Flip bytes in every described field. */
static void rig_scramble(struct rig *r, const struct state_desc *d, uint8_t *obj)
{
    static const size_t width[] = { 1, 2, 4, 8, 1, 1 };

    for (const struct state_field *f = d->fields; f->name; f++) {
        for (size_t i = 0; i < f->count; i++) {
            if (f->kind == STATE_STRUCT) {
                rig_scramble(r, f->sub, obj + f->offset + i * f->stride);
                continue;
            }
            uint8_t *p = obj + f->offset + i * width[f->kind];
            uint64_t x = rig_random(r), kind = x >> 4 & 3;
            if (x % 16)
                continue;
            /* Small numbers are the likely ones to be accepted, all ones the likely ones to hurt. */
            x = kind == 0 ? x >> 8 : kind == 1 ? ~0ULL : x >> 8 & 15;
            if (f->kind == STATE_BOOL)
                x &= 1;
            memcpy(p, &x, width[f->kind]);
        }
    }
}

void rig_fuzz_state(struct rig *r, const struct device_ops *ops, void *dev, struct bus *bus, uint64_t base,
                    uint64_t len, unsigned n)
{
    uint8_t *keep = test_malloc(ops->state->size);
    unsigned accepted = 0;

    while (n--) {
        struct state_buf s;
        struct err err = { "" };
        if (ops->pause)
            ops->pause(dev);
        memcpy(keep, dev, ops->state->size);
        rig_scramble(r, ops->state, dev);
        rig_save(ops, dev, &s);
        memcpy(dev, keep, ops->state->size);
        if (state_load(s.data, s.len, ops->state, 0, dev, &err) == 0)
            accepted++;
        else
            assert_true(err.text[0]);
        state_buf_fini(&s);
        if (ops->resume)
            ops->resume(dev);
        rig_fuzz(r, bus, base, len, 50);
        if (rig_random(r) % 4 == 0)
            ops->reset(dev);
    }
    assert_true(accepted > 0);
    test_free(keep);
}

void rig_attach_conflicts(struct bus *bus, int (*attach)(void *dev), void *dev)
{
    struct bus_region *own[8], other = { .len = 1, .name = "other" };
    unsigned n = bus->count;
    static const struct bus_ops ops = { .min_size = 1, .max_size = 1 };

    assert_in_range(n, 1, ARRAY_LEN(own));
    memcpy(own, bus->map, n * sizeof(own[0]));
    other.ops = &ops;
    for (unsigned i = 0; i < n; i++)
        bus_remove(bus, own[i]);
    for (unsigned i = 0; i < n; i++) {
        other.base = own[i]->base;
        assert_int_equal(bus_add(bus, &other), 0);
        assert_int_equal(attach(dev), -EEXIST);
        assert_int_equal(bus->count, 1);
        bus_remove(bus, &other);
    }
    assert_int_equal(attach(dev), 0);
    assert_int_equal(bus->count, n);
}
