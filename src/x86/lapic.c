/* The local APIC's core: interrupt acceptance and priorities, EOI, local vector table, modes, life cycle.
 *
 * Source: Intel SDM vol. 3 ch. 11: 11.4 (enabling), 11.5.1 (LVT), 11.5.3 (errors), 11.8 (handling,
 * priorities, IRR/ISR/TMR, EOI), 11.12.5 (state transitions). Registers are in lapic_reg.c, messages between
 * CPUs in lapic_ipi.c, the timer in lapic_timer.c. No focus processor, no EOI-broadcast suppression.
 *
 * Paravirtual EOI (Linux, Documentation/virt/kvm/x86/msr.rst, MSR_KVM_PV_EOI_EN): when an edge-triggered
 * interrupt is delivered and no other waits, a bit in guest memory is set. The guest then ends the interrupt
 * by clearing the bit, which nobody notices until the ISR matters: when something is to be delivered, or the
 * guest looks. It clears the bit without a LOCK prefix, so only the vCPU's own thread may take the bit back.
 *
 * Threads: any, under the device lock (lapic.h); devices deliver, the vCPU's own thread reads and writes
 * registers.
 */
#include "x86/lapic.h"

#include <errno.h>
#include <string.h>

#include "ram/ram.h"
#include "state/state.h"
#include "x86/cpuid.h"
#include "x86/mmu.h"

#define SVR_ENABLE 0x100u
#define LVT_MASKED 0x10000u
#define LVT_LEVEL  0x8000u
#define LVT_RIRR   0x4000u

/* --- modes --- */

bool lapic_enabled(const struct lapic *l) { return l->cpu->apic_base & APIC_BASE_EN; }

bool lapic_x2(const struct lapic *l)
{
    return (l->cpu->apic_base & (APIC_BASE_EN | APIC_BASE_X2)) == (APIC_BASE_EN | APIC_BASE_X2);
}

bool lapic_soft_enabled(const struct lapic *l) { return lapic_enabled(l) && (l->svr & SVR_ENABLE); }

/* --- 256-bit registers --- */

static bool lapic_test(const uint32_t *reg, unsigned v) { return reg[v / 32] >> (v % 32) & 1; }
static void lapic_set(uint32_t *reg, unsigned v) { reg[v / 32] |= 1u << (v % 32); }
static void lapic_clear(uint32_t *reg, unsigned v) { reg[v / 32] &= ~(1u << (v % 32)); }

/* The highest set bit, or -1. */
static int lapic_highest(const uint32_t *reg)
{
    for (int n = 7; n >= 0; n--)
        if (reg[n])
            return n * 32 + 31 - __builtin_clz(reg[n]);
    return -1;
}

/* --- priorities (11.8.3) --- */

uint32_t lapic_ppr(const struct lapic *l)
{
    int isr = lapic_highest(l->isr);
    uint32_t isrv = isr < 0 ? 0 : (uint32_t)isr;
    return (l->tpr & 0xf0) >= (isrv & 0xf0) ? l->tpr : isrv & 0xf0;
}

/* The vector that may be delivered now, or -1. */
static int lapic_next(const struct lapic *l)
{
    int v = lapic_soft_enabled(l) ? lapic_highest(l->irr) : -1;
    return v >= 0 && ((uint32_t)v & 0xf0) > (lapic_ppr(l) & 0xf0) ? v : -1;
}

static bool lapic_wants_pic(const struct lapic *l)
{
    if (!lapic_enabled(l))
        return l->lint0; /* the pin is INTR then */
    bool extint = (l->lvt[LVT_LINT0] >> 8 & 7) == APIC_EXTINT && !(l->lvt[LVT_LINT0] & LVT_MASKED);
    return l->extint || (l->lint0 && extint);
}

void lapic_update(struct lapic *l)
{
    /* With a paravirtual EOI out, the interrupt in service may be over: lapic_ack() finds out. */
    bool maybe = l->pv_eoi && lapic_soft_enabled(l) && lapic_highest(l->irr) >= 0;
    bool pending = maybe || lapic_next(l) >= 0, pic = lapic_wants_pic(l);
    bool rise = (pending && !atomic_load_explicit(&l->pending, memory_order_relaxed)) ||
                (pic && !atomic_load_explicit(&l->pic, memory_order_relaxed));
    atomic_store_explicit(&l->pending, pending, memory_order_release);
    atomic_store_explicit(&l->pic, pic, memory_order_release);
    if (rise && l->bus->kick)
        l->bus->kick(l->bus->opaque, l->cpu->index, ATT_IRQ);
}

/* --- acceptance and end of interrupt --- */

void lapic_accept(struct lapic *l, uint8_t vector, bool level)
{
    if (!lapic_soft_enabled(l))
        return;
    if (vector < 16) {
        lapic_error(l, 0x40); /* received illegal vector */
        return;
    }
    lapic_set(l->irr, vector);
    if (level)
        lapic_set(l->tmr, vector);
    else
        lapic_clear(l->tmr, vector);
    lapic_update(l);
}

/* The interrupt v was just put into service: may the guest end it in memory? */
static void lapic_pv_eoi_offer(struct lapic *l, unsigned v)
{
    uint64_t msr = l->cpu->pv.eoi;
    uint8_t old;
    if (!(msr & KVMPV_ENABLE) || lapic_test(l->tmr, v) || lapic_highest(l->irr) >= 0)
        return;
    l->pv_eoi = ram_exchange(l->cpu->ram, msr & ~(uint64_t)KVMPV_ENABLE, 1, &old) == 0;
}

void lapic_pv_eoi_sync(struct lapic *l)
{
    uint64_t gpa = l->cpu->pv.eoi & ~(uint64_t)KVMPV_ENABLE;
    int v = lapic_highest(l->isr);
    uint8_t old;
    if (!l->pv_eoi)
        return;
    l->pv_eoi = false;
    if (ram_exchange(l->cpu->ram, gpa, 0, &old) == 0 && !(old & 1) && v >= 0)
        lapic_clear(l->isr, (unsigned)v);
}

void lapic_pv_eoi_set(struct lapic *l, uint64_t v)
{
    uint8_t old;
    lapic_pv_eoi_sync(l);
    l->cpu->pv.eoi = v;
    if (v & KVMPV_ENABLE) /* a bit left over from earlier would swallow an EOI */
        ram_exchange(l->cpu->ram, v & ~(uint64_t)KVMPV_ENABLE, 0, &old);
    lapic_update(l);
}

int lapic_ack(struct lapic *l)
{
    lapic_pv_eoi_sync(l);
    int v = lapic_next(l);
    if (v >= 0) {
        lapic_clear(l->irr, (unsigned)v);
        lapic_set(l->isr, (unsigned)v);
        lapic_pv_eoi_offer(l, (unsigned)v);
    }
    lapic_update(l);
    return v;
}

void lapic_pic_taken(struct lapic *l)
{
    l->extint = false;
    lapic_update(l);
}

/* A level-triggered LINT0 with fixed delivery: the pin is asked again after EOI (remote IRR, 11.5.1). */
static void lapic_lint0_eoi(struct lapic *l, uint8_t vector)
{
    uint32_t *lvt = &l->lvt[LVT_LINT0];
    if (!(*lvt & LVT_RIRR) || (uint8_t)*lvt != vector)
        return;
    *lvt &= ~LVT_RIRR;
    if (l->lint0)
        lapic_lvt_fire(l, LVT_LINT0);
}

void lapic_write_eoi(struct lapic *l)
{
    lapic_pv_eoi_sync(l);
    int v = lapic_highest(l->isr);
    if (v < 0)
        return;
    lapic_clear(l->isr, (unsigned)v);
    if (lapic_test(l->tmr, (unsigned)v)) {
        lapic_lint0_eoi(l, (uint8_t)v);
        if (l->bus->eoi)
            l->bus->eoi(l->bus->opaque, (uint8_t)v);
    }
    lapic_update(l);
}

/* --- local vector table --- */

void lapic_lvt_fire(struct lapic *l, unsigned n)
{
    uint32_t lvt = l->lvt[n];
    unsigned mode = n == LVT_TIMER || n == LVT_ERROR ? APIC_FIXED : lvt >> 8 & 7;
    bool level = n == LVT_LINT0 && (lvt & LVT_LEVEL);
    if ((lvt & LVT_MASKED) || !lapic_enabled(l))
        return;
    if (mode == APIC_NMI) {
        l->bus->kick(l->bus->opaque, l->cpu->index, ATT_NMI);
    } else if (mode == APIC_FIXED) {
        if (level && (lvt & LVT_RIRR))
            return;
        if (level)
            l->lvt[n] |= LVT_RIRR;
        lapic_accept(l, (uint8_t)lvt, level);
    }
    /* ExtINT on LINT0 is a level (lapic_wants_pic()); SMI and INIT through a pin are not modelled. */
}

void lapic_error(struct lapic *l, uint32_t esr_bit)
{
    bool first = !l->esr_pending;
    l->esr_pending |= esr_bit;
    /* An illegal vector in the error entry itself must not come back here again. */
    if (first && (l->lvt[LVT_ERROR] & 0xff) >= 16)
        lapic_lvt_fire(l, LVT_ERROR);
}

void lapic_set_lint0(void *opaque, unsigned pin, bool level)
{
    struct lapic *l = opaque;
    bool rise = level && !l->lint0;
    l->lint0 = level;
    if (level && (rise || (l->lvt[LVT_LINT0] & LVT_LEVEL)))
        lapic_lvt_fire(l, LVT_LINT0);
    lapic_update(l);
}

void lapic_set_lint1(void *opaque, unsigned pin, bool level)
{
    struct lapic *l = opaque;
    bool rise = level && !l->lint1;
    l->lint1 = level;
    if (!rise)
        return;
    if (lapic_enabled(l))
        lapic_lvt_fire(l, LVT_LINT1);
    else
        l->bus->kick(l->bus->opaque, l->cpu->index, ATT_NMI); /* the pin is NMI then */
}

/* --- task priority as CR8 --- */

void lapic_write_tpr(struct lapic *l, uint32_t v)
{
    l->tpr = v & 0xff;
    l->cpu->cr8 = l->tpr >> 4;
    lapic_update(l);
}

void lapic_cr8_write(struct lapic *l, uint64_t v) { lapic_write_tpr(l, (uint32_t)(v & 15) << 4); }

/* --- life --- */

static void lapic_reset_registers(struct lapic *l)
{
    l->tpr = l->esr = l->esr_pending = 0;
    l->cpu->cr8 = 0;
    l->icr = 0;
    l->ldr = lapic_x2(l) ? (l->id >> 4) << 16 | 1u << (l->id & 15) : 0;
    l->dfr = 0xffffffff;
    l->svr = 0xff;
    memset(l->isr, 0, sizeof(l->isr));
    memset(l->irr, 0, sizeof(l->irr));
    memset(l->tmr, 0, sizeof(l->tmr));
    for (unsigned n = 0; n < LVT_COUNT; n++)
        l->lvt[n] = LVT_MASKED;
    l->extint = l->pv_eoi = false;
    lapic_timer_reset(l);
}

void lapic_reset_init(struct lapic *l)
{
    lapic_reset_registers(l);
    lapic_update(l);
}

static void lapic_reset(void *dev)
{
    struct lapic *l = dev;
    l->id = l->cpu->apic_id;
    l->lint1 = false;
    lapic_reset_registers(l);
    lapic_update(l);
}

void lapic_virtual_wire(struct lapic *l)
{
    l->svr = SVR_ENABLE | 0x0f;
    l->lvt[LVT_LINT0] = APIC_EXTINT << 8;
    l->lvt[LVT_LINT1] = APIC_NMI << 8;
    lapic_update(l);
}

static void lapic_pause(void *dev)
{
    struct lapic *l = dev;
    timer_cancel(&l->timer);
    lapic_pv_eoi_sync(l);
    lapic_update(l);
}

static void lapic_resume(void *dev)
{
    lapic_timer_rearm(dev);
    lapic_update(dev);
}

static void lapic_destroy(void *dev) { timer_cancel(&((struct lapic *)dev)->timer); }

int lapic_init(struct lapic *l, struct cpu *cpu, struct lapic_bus *bus)
{
    if (bus->count == LAPIC_MAX)
        return -ENOSPC;
    memset(l, 0, sizeof(*l));
    l->cpu = cpu;
    l->bus = bus;
    cpu->lapic = l;
    lapic_timer_init(l);
    lapic_reset(l);
    bus->lapic[bus->count++] = l;
    return 0;
}

/* --- IA32_APIC_BASE (11.12.5) --- */

static bool lapic_base_legal(const struct lapic *l, uint64_t v)
{
    struct cpu *cpu = l->cpu;
    uint64_t old = cpu->apic_base, mode = v & (APIC_BASE_EN | APIC_BASE_X2);
    uint64_t allowed = APIC_BASE_BSP | APIC_BASE_EN | (((1ULL << cpu->phys_bits) - 1) & ~0xfffULL);
    if (cpu_has(cpu, CPU_FEAT(FEAT_1_ECX, 21)))
        allowed |= APIC_BASE_X2;
    if ((v & ~allowed) || mode == APIC_BASE_X2)
        return false;
    if (lapic_x2(l))
        return mode != APIC_BASE_EN; /* back only by way of "off" */
    return mode != (APIC_BASE_EN | APIC_BASE_X2) || (old & APIC_BASE_EN);
}

bool lapic_base_write(struct lapic *l, uint64_t v)
{
    if (!lapic_base_legal(l, v))
        return false;
    uint64_t changed = v ^ l->cpu->apic_base;
    lapic_pv_eoi_sync(l);
    l->cpu->apic_base = v;
    if (changed & APIC_BASE_EN)
        lapic_reset_registers(l);
    if ((changed & APIC_BASE_X2) && lapic_x2(l)) {
        l->ldr = (l->id >> 4) << 16 | 1u << (l->id & 15);
        l->icr &= 0xffffffff;
    }
    lapic_update(l);
    if (changed & ~(uint64_t)APIC_BASE_BSP)
        mmu_flush_all(l->cpu); /* the register page moved, came or went */
    return true;
}

/* --- described state --- */

static int lapic_check(void *obj, struct err *err)
{
    struct lapic *l = obj;
    l->tpr &= 0xff;
    l->tdcr &= 0xb;
    return 0;
}

static const struct state_field lapic_fields[] = {
    STATE_F32(struct lapic, id),
    STATE_F32(struct lapic, tpr),
    STATE_F32(struct lapic, ldr),
    STATE_F32(struct lapic, dfr),
    STATE_F32(struct lapic, svr),
    STATE_F32(struct lapic, esr),
    STATE_F32(struct lapic, esr_pending),
    STATE_F64(struct lapic, icr),
    STATE_F32(struct lapic, lvt),
    STATE_F32(struct lapic, isr),
    STATE_F32(struct lapic, tmr),
    STATE_F32(struct lapic, irr),
    STATE_F32(struct lapic, tdcr),
    STATE_F32(struct lapic, ticr),
    STATE_F64(struct lapic, tsc_deadline),
    STATE_F64(struct lapic, timer_start),
    STATE_F64(struct lapic, timer_fired),
    STATE_FBOOL(struct lapic, lint0),
    STATE_FBOOL(struct lapic, lint1),
    STATE_FBOOL(struct lapic, extint),
    STATE_FBOOL(struct lapic, pv_eoi),
    STATE_END,
};

static const struct state_desc lapic_state = {
    .name = "lapic",
    .version = 1,
    .size = sizeof(struct lapic),
    .fields = lapic_fields,
    .check = lapic_check,
};

const struct device_ops lapic_ops = {
    .type = "lapic",
    .reset = lapic_reset,
    .pause = lapic_pause,
    .resume = lapic_resume,
    .destroy = lapic_destroy,
    .state = &lapic_state,
};
