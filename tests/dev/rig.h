/* A bench for one device: a manual clock, the event loop, both buses, and a recorder for interrupt lines. */
#ifndef VITRO_TESTS_DEV_RIG_H
#define VITRO_TESTS_DEV_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/loop.h"
#include "bus/apic_msg.h"
#include "bus/bus.h"
#include "bus/device.h"
#include "bus/irq.h"

#define MS  1000000ULL
#define SEC 1000000000ULL

/* What a line did: level now, rising edges so far. */
struct rig_line {
    bool level;
    uint64_t rises;
};

#define RIG_MSGS 64

struct rig {
    struct clock clock;
    struct loop loop;
    struct bus io, mmio;
    struct rig_line line[64];
    struct apic_msg msg[RIG_MSGS]; /* the first messages delivered */
    unsigned msgs;
    uint64_t timer_runs; /* loop steps that rig_run() needed */
    uint64_t seed;
};

void rig_init(struct rig *r, uint64_t wall_ns);
void rig_fini(struct rig *r);

/* A line that records into r->line[n]. */
struct irq_line rig_irq(struct rig *r, unsigned n);
/* An apic_deliver_fn that records; opaque is the rig. */
void rig_deliver(void *opaque, const struct apic_msg *msg);

/* Let guest time pass, stopping at each timer. */
void rig_run(struct rig *r, uint64_t ns);
/* Let guest time pass in one jump: a host that was late. Then run what is due once. */
void rig_jump(struct rig *r, uint64_t ns);

uint8_t rig_inb(struct rig *r, uint16_t port);
void rig_outb(struct rig *r, uint16_t port, uint8_t v);

/* A repeatable stream of numbers. */
uint64_t rig_random(struct rig *r);

/* Save dev, load it into fresh (same type), save again: same bytes; a damaged copy is refused. fresh has been
 * resumed afterwards. */
void rig_round_trip(const struct device_ops *ops, void *dev, void *fresh);
/* Both devices have the same state. */
void rig_assert_same(const struct device_ops *ops, const void *a, const void *b);

/* n random accesses of all sizes to [base, base+len), with some time passing in between. */
void rig_fuzz(struct rig *r, struct bus *bus, uint64_t base, uint64_t len, unsigned n);
/* Load n states with random bytes in the fields (checksum repaired by saving a scrambled device); whatever is
 * accepted must survive traffic. scratch is a device that may be spoilt. */
void rig_fuzz_state(struct rig *r, const struct device_ops *ops, void *dev, struct bus *bus, uint64_t base,
                    uint64_t len, unsigned n);

/* The device is attached to bus, alone: with each of its regions taken by somebody else, attach refuses and
 * leaves nothing behind. */
void rig_attach_conflicts(struct bus *bus, int (*attach)(void *dev), void *dev);

#define assert_line(r, n, on) assert_int_equal((r)->line[n].level, on)

#endif
