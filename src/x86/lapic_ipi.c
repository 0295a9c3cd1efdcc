/* Interrupt messages: who is addressed, and what each of them does with it.
 *
 * Source: Intel SDM vol. 3, 11.6 (ICR, destinations, shorthands, lowest priority), 11.12.9 and 11.12.10
 * (x2APIC destinations and logical IDs), 11.4.7 (what a disabled APIC still takes), 9.4 (INIT and start-up
 * IPIs).
 *
 * Threads: any, with the device lock held.
 */
#include "x86/lapic.h"

#define ICR_LOGICAL 0x800u
#define ICR_ASSERT  0x4000u
#define ICR_LEVEL   0x8000u

enum { SHORT_NONE, SHORT_SELF, SHORT_ALL, SHORT_OTHERS };

/* 8-bit destinations come from I/O APIC, MSI and xAPIC ICRs; no CPU has the ID 0xff, so that it always is
 * "all". */
static bool lapic_broadcast(uint32_t dest) { return dest == 0xff || dest == 0xffffffff; }

static bool lapic_match_logical(const struct lapic *l, uint32_t dest)
{
    if (lapic_x2(l))
        return dest == 0xffffffff || (dest >> 16 == l->ldr >> 16 && (dest & l->ldr & 0xffff));
    uint32_t ldr = l->ldr >> 24;
    if (dest > 0xff && dest != 0xffffffff)
        return false;
    dest &= 0xff;
    if (l->dfr >> 28 == 0xf)
        return dest & ldr; /* flat: a bit a CPU */
    if (l->dfr >> 28 != 0)
        return false;
    return dest == 0xff || (dest >> 4 == ldr >> 4 && (dest & ldr & 15)); /* cluster */
}

static bool lapic_match(const struct lapic *l, const struct apic_msg *m)
{
    if (!lapic_enabled(l))
        return false;
    if (m->logical)
        return lapic_match_logical(l, m->dest);
    return lapic_broadcast(m->dest) || m->dest == l->id;
}

static void lapic_startup(struct lapic *l, uint8_t vector)
{
    l->cpu->sipi_vector = vector;
    l->bus->kick(l->bus->opaque, l->cpu->index, ATT_SIPI);
}

/* One addressed CPU takes the message. */
static void lapic_take(struct lapic *l, const struct apic_msg *m)
{
    switch (m->delivery_mode) {
    case APIC_FIXED:
    case APIC_LOWEST:
        lapic_accept(l, m->vector, m->level);
        break;
    case APIC_NMI:
        l->bus->kick(l->bus->opaque, l->cpu->index, ATT_NMI);
        break;
    case APIC_INIT:
        if (m->assert) /* the level de-assert of old only synchronises arbitration IDs */
            l->bus->kick(l->bus->opaque, l->cpu->index, ATT_INIT);
        break;
    case APIC_STARTUP:
        lapic_startup(l, m->vector);
        break;
    case APIC_EXTINT:
        l->extint = true;
        lapic_update(l);
        break;
    default:
        break; /* SMI: there is no system management mode; 3 is reserved */
    }
}

/* Of the addressed CPUs the one with the lowest processor priority; equals take turns. */
static void lapic_deliver_lowest(struct lapic_bus *b, const struct apic_msg *m)
{
    struct lapic *best = NULL;
    unsigned at = 0;
    for (unsigned n = 0; n < b->count; n++) {
        unsigned i = (b->lowest_next + n) % b->count;
        struct lapic *l = b->lapic[i];
        if (lapic_match(l, m) && lapic_soft_enabled(l) && (!best || lapic_ppr(l) < lapic_ppr(best))) {
            best = l;
            at = i;
        }
    }
    if (!best)
        return;
    b->lowest_next = (at + 1) % b->count;
    lapic_take(best, m);
}

void lapic_deliver(void *opaque, const struct apic_msg *m)
{
    struct lapic_bus *b = opaque;
    if (m->delivery_mode == APIC_LOWEST || (m->redirection_hint && m->delivery_mode == APIC_FIXED)) {
        lapic_deliver_lowest(b, m);
        return;
    }
    for (unsigned n = 0; n < b->count; n++)
        if (lapic_match(b->lapic[n], m))
            lapic_take(b->lapic[n], m);
}

static struct apic_msg lapic_icr_message(uint64_t icr)
{
    return (struct apic_msg){
        .dest = (uint32_t)(icr >> 32),
        .logical = icr & ICR_LOGICAL,
        .vector = (uint8_t)icr,
        .delivery_mode = icr >> 8 & 7,
        .level = false, /* IPIs are edge-triggered whatever bit 15 says, but for INIT's de-assert */
        .assert = (icr & ICR_ASSERT) || !(icr & ICR_LEVEL),
    };
}

void lapic_send_ipi(struct lapic *l, uint64_t icr)
{
    struct lapic_bus *b = l->bus;
    struct apic_msg m = lapic_icr_message(icr);
    unsigned shorthand = icr >> 18 & 3;
    if (!lapic_enabled(l))
        return;
    if ((m.delivery_mode == APIC_FIXED || m.delivery_mode == APIC_LOWEST) && m.vector < 16) {
        lapic_error(l, 0x20); /* send illegal vector */
        return;
    }
    if (shorthand == SHORT_NONE) {
        lapic_deliver(b, &m);
        return;
    }
    if (shorthand == SHORT_SELF) {
        lapic_take(l, &m);
        return;
    }
    for (unsigned n = 0; n < b->count; n++)
        if (shorthand == SHORT_ALL || b->lapic[n] != l)
            lapic_take(b->lapic[n], &m);
}
