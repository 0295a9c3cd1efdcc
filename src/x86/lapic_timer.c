/* The local APIC timer: one-shot, periodic, TSC-deadline.
 *
 * Source: Intel SDM vol. 3, 11.5.4. The counter is not stepped: what the guest reads is computed from the
 * time at which counting began. A periodic timer whose period is short is signalled at most every
 * LAPIC_MIN_GAP_NS; the IRR has one bit a vector, so interrupts in between would be merged anyway.
 *
 * Threads: the vCPU's own (registers) and the event loop (expiry), both with the device lock held.
 */
#include "x86/lapic.h"

#include "base/clock.h"

enum { MODE_ONESHOT, MODE_PERIODIC, MODE_DEADLINE };

#define LAPIC_MIN_GAP_NS 50000ULL
#define LAPIC_FAR_NS     (1ULL << 60)
#define NS_PER_TICK      (NSEC_PER_SEC / LAPIC_BUS_HZ)

static unsigned lapic_timer_mode(const struct lapic *l) { return l->lvt[LVT_TIMER] >> 17 & 3; }

/* Nanoseconds a count, by the divide configuration register: 2, 4, ... 128, 1. */
static uint64_t lapic_timer_unit(const struct lapic *l)
{
    unsigned v = (l->tdcr & 3) | (l->tdcr >> 1 & 4);
    return NS_PER_TICK << ((v + 1) & 7);
}

static uint64_t lapic_timer_elapsed(const struct lapic *l, uint64_t now)
{
    return now > l->timer_start ? (now - l->timer_start) / lapic_timer_unit(l) : 0;
}

/* --- TSC deadline --- */

static void lapic_deadline_due(struct lapic *l)
{
    l->tsc_deadline = 0;
    lapic_lvt_fire(l, LVT_TIMER);
}

/* Fire if the deadline has passed, else arm for it. */
static void lapic_deadline_arm(struct lapic *l)
{
    struct cpu *cpu = l->cpu;
    timer_cancel(&l->timer);
    if (!l->tsc_deadline || clock_stopped(cpu->clock))
        return;
    uint64_t now = timer_now(&l->timer), tsc = cpu_tsc(cpu), khz = cpu->clock->khz;
    if (l->tsc_deadline <= tsc) {
        lapic_deadline_due(l);
        return;
    }
    unsigned __int128 ns = ((unsigned __int128)(l->tsc_deadline - tsc) * 1000000 + khz - 1) / khz;
    timer_arm(&l->timer, now + (ns > LAPIC_FAR_NS ? LAPIC_FAR_NS : (uint64_t)ns));
}

uint64_t lapic_deadline_read(struct lapic *l)
{
    return lapic_timer_mode(l) == MODE_DEADLINE ? l->tsc_deadline : 0;
}

void lapic_deadline_write(struct lapic *l, uint64_t value)
{
    if (lapic_timer_mode(l) != MODE_DEADLINE)
        return;
    l->tsc_deadline = value;
    lapic_deadline_arm(l);
}

void lapic_tsc_moved(struct lapic *l)
{
    if (lapic_timer_mode(l) == MODE_DEADLINE)
        lapic_deadline_arm(l);
}

/* --- counting --- */

/* Arm for the next expiry that has not been signalled. */
static void lapic_count_arm(struct lapic *l, uint64_t not_before)
{
    uint64_t period = (uint64_t)l->ticr * lapic_timer_unit(l);
    timer_cancel(&l->timer);
    if (!l->ticr || clock_stopped(l->cpu->clock))
        return;
    if (lapic_timer_mode(l) == MODE_ONESHOT && l->timer_fired)
        return;
    uint64_t at = l->timer_start + (l->timer_fired + 1) * period;
    timer_arm(&l->timer, at > not_before ? at : not_before);
}

static void lapic_count_due(struct lapic *l)
{
    uint64_t now = timer_now(&l->timer), periods = lapic_timer_elapsed(l, now) / l->ticr;
    if (periods > l->timer_fired) {
        l->timer_fired = periods;
        lapic_lvt_fire(l, LVT_TIMER);
    }
    lapic_count_arm(l, now + LAPIC_MIN_GAP_NS);
}

static void lapic_timer_fn(void *opaque)
{
    struct lapic *l = opaque;
    if (lapic_timer_mode(l) == MODE_DEADLINE)
        lapic_deadline_arm(l); /* fires, unless it came early */
    else if (l->ticr)
        lapic_count_due(l);
}

void lapic_timer_init(struct lapic *l) { timer_init(&l->timer, l->cpu->loop, lapic_timer_fn, l); }

void lapic_timer_reset(struct lapic *l)
{
    timer_cancel(&l->timer);
    l->ticr = l->tdcr = 0;
    l->tsc_deadline = l->timer_start = l->timer_fired = 0;
}

void lapic_timer_rearm(struct lapic *l)
{
    if (lapic_timer_mode(l) == MODE_DEADLINE)
        lapic_deadline_arm(l);
    else
        lapic_count_arm(l, 0);
}

void lapic_timer_write_ticr(struct lapic *l, uint32_t v)
{
    if (lapic_timer_mode(l) == MODE_DEADLINE)
        return;
    l->ticr = v;
    l->timer_start = timer_now(&l->timer);
    l->timer_fired = 0;
    lapic_count_arm(l, 0);
}

/* Put the beginning of the running period where the next expiry is the first one. */
static void lapic_timer_rebase(struct lapic *l, uint32_t left)
{
    uint64_t now = timer_now(&l->timer), done = (uint64_t)(l->ticr - left) * lapic_timer_unit(l);
    l->timer_start = now > done ? now - done : 0;
    l->timer_fired = 0;
}

/* The count stays where it is and goes on at the new rate. */
void lapic_timer_write_tdcr(struct lapic *l, uint32_t v)
{
    uint32_t left = lapic_timer_tcct(l);
    l->tdcr = v & 0xb;
    if (!left)
        return;
    lapic_timer_rebase(l, left);
    lapic_count_arm(l, 0);
}

void lapic_timer_write_lvt(struct lapic *l, uint32_t v)
{
    unsigned old = lapic_timer_mode(l);
    uint32_t left = lapic_timer_tcct(l);
    l->lvt[LVT_TIMER] = v;
    if (lapic_timer_mode(l) == old)
        return;
    if (old == MODE_DEADLINE || lapic_timer_mode(l) == MODE_DEADLINE) {
        /* 11.5.4.1: a change to or from TSC-deadline mode disarms the timer. */
        timer_cancel(&l->timer);
        l->ticr = 0;
        l->tsc_deadline = 0;
        return;
    }
    if (left)
        lapic_timer_rebase(l, left);
    else
        l->ticr = 0; /* it had run down; a mode alone does not start it */
    lapic_count_arm(l, 0);
}

uint32_t lapic_timer_tcct(struct lapic *l)
{
    if (!l->ticr || lapic_timer_mode(l) == MODE_DEADLINE)
        return 0;
    uint64_t elapsed = lapic_timer_elapsed(l, timer_now(&l->timer));
    if (lapic_timer_mode(l) == MODE_PERIODIC)
        return (uint32_t)(l->ticr - elapsed % l->ticr);
    return elapsed >= l->ticr ? 0 : (uint32_t)(l->ticr - elapsed);
}
