/* The local APIC's registers, as a page of memory (xAPIC) and as MSRs (x2APIC).
 *
 * Source: Intel SDM vol. 3, table 11-1 (register map), table 11-6 (x2APIC MSRs), 11.5.1 (LVT), 11.5.3
 * (ESR), 11.6 (ICR), 11.9 (SVR), 11.12.1 (what an x2APIC access faults on). A register is named by its MSR
 * offset: page offset / 16.
 *
 * Threads: the vCPU's own, with the device lock held.
 */
#include "x86/cpuid.h"
#include "x86/lapic.h"

#include "base/bits.h"

enum {
    REG_ID = 0x02,
    REG_VERSION = 0x03,
    REG_TPR = 0x08,
    REG_APR = 0x09,
    REG_PPR = 0x0a,
    REG_EOI = 0x0b,
    REG_RRD = 0x0c,
    REG_LDR = 0x0d,
    REG_DFR = 0x0e,
    REG_SVR = 0x0f,
    REG_ISR = 0x10,
    REG_TMR = 0x18,
    REG_IRR = 0x20,
    REG_ESR = 0x28,
    REG_CMCI = 0x2f,
    REG_ICR = 0x30,
    REG_ICR2 = 0x31,
    REG_LVT_TIMER = 0x32,
    REG_LVT_ERROR = 0x37,
    REG_TICT = 0x38,
    REG_TCCT = 0x39,
    REG_TDCR = 0x3e,
    REG_SELF_IPI = 0x3f,
};

#define LAPIC_VERSION   (0x14u | (LVT_COUNT - 1) << 16)
#define ESR_ILLEGAL_REG 0x80u

#define LVT_MASKED 0x10000u

/* Bits of each LVT entry that software may set (figure 11-8). */
static uint32_t lapic_lvt_bits(const struct lapic *l, unsigned n)
{
    switch (n) {
    case LVT_TIMER:
        return cpu_has(l->cpu, CPU_FEAT(FEAT_1_ECX, 24)) ? 0x700ff : 0x300ff;
    case LVT_LINT0:
    case LVT_LINT1:
        return 0x1a7ff;
    case LVT_ERROR:
        return 0x100ff;
    default:
        return 0x107ff;
    }
}

static void lapic_write_lvt(struct lapic *l, unsigned n, uint32_t v)
{
    v &= lapic_lvt_bits(l, n);
    if (!lapic_soft_enabled(l))
        v |= LVT_MASKED;
    if (n == LVT_TIMER) {
        lapic_timer_write_lvt(l, v);
        return;
    }
    if (n == LVT_LINT0)
        v |= l->lvt[n] & 0x4000; /* remote IRR is read-only */
    l->lvt[n] = v;
    lapic_update(l);
}

static void lapic_write_svr(struct lapic *l, uint32_t v)
{
    l->svr = v & 0x1ff; /* no focus checking, no EOI suppression */
    if (!(l->svr & 0x100)) {
        /* 11.4.7.2: all LVT mask bits are set and stay so. */
        for (unsigned n = 0; n < LVT_COUNT; n++)
            l->lvt[n] |= LVT_MASKED;
    }
    lapic_update(l);
}

static void lapic_write_esr(struct lapic *l)
{
    l->esr = l->esr_pending;
    l->esr_pending = 0;
}

/* A readable register, in either mode but for what differs. False: there is none. */
static bool lapic_get(struct lapic *l, unsigned reg, uint32_t *v)
{
    switch (reg) {
    case REG_ID:
        *v = lapic_x2(l) ? l->id : l->id << 24;
        return true;
    case REG_VERSION:
        *v = LAPIC_VERSION;
        return true;
    case REG_TPR:
        *v = l->tpr;
        return true;
    case REG_PPR:
        lapic_pv_eoi_sync(l);
        *v = lapic_ppr(l);
        return true;
    case REG_LDR:
        *v = l->ldr;
        return true;
    case REG_SVR:
        *v = l->svr;
        return true;
    case REG_ISR ... REG_ISR + 7:
        lapic_pv_eoi_sync(l);
        *v = l->isr[reg - REG_ISR];
        return true;
    case REG_TMR ... REG_TMR + 7:
        *v = l->tmr[reg - REG_TMR];
        return true;
    case REG_IRR ... REG_IRR + 7:
        *v = l->irr[reg - REG_IRR];
        return true;
    case REG_ESR:
        *v = l->esr;
        return true;
    case REG_ICR:
        *v = (uint32_t)l->icr;
        return true;
    case REG_LVT_TIMER ... REG_LVT_ERROR:
        *v = l->lvt[reg - REG_LVT_TIMER];
        return true;
    case REG_TICT:
        *v = l->ticr;
        return true;
    case REG_TCCT:
        *v = lapic_timer_tcct(l);
        return true;
    case REG_TDCR:
        *v = l->tdcr;
        return true;
    default:
        return false;
    }
}

/* Registers whose writing is the same in both modes. False: there is none. */
static bool lapic_put(struct lapic *l, unsigned reg, uint32_t v)
{
    switch (reg) {
    case REG_TPR:
        lapic_write_tpr(l, v);
        return true;
    case REG_EOI:
        lapic_write_eoi(l);
        return true;
    case REG_SVR:
        lapic_write_svr(l, v);
        return true;
    case REG_ESR:
        lapic_write_esr(l);
        return true;
    case REG_LVT_TIMER ... REG_LVT_ERROR:
        lapic_write_lvt(l, reg - REG_LVT_TIMER, v);
        return true;
    case REG_TICT:
        lapic_timer_write_ticr(l, v);
        return true;
    case REG_TDCR:
        lapic_timer_write_tdcr(l, v);
        return true;
    default:
        return false;
    }
}

/* --- xAPIC --- */

static uint32_t lapic_mmio_get(struct lapic *l, unsigned reg)
{
    uint32_t v = 0;
    if (lapic_get(l, reg, &v))
        return v;
    switch (reg) {
    case REG_DFR:
        return l->dfr;
    case REG_ICR2:
        return (uint32_t)(l->icr >> 32);
    case REG_APR:
    case REG_RRD:
    case REG_EOI:
        return 0;
    default:
        lapic_error(l, ESR_ILLEGAL_REG);
        return 0;
    }
}

uint64_t lapic_mmio_read(struct lapic *l, uint64_t off, unsigned size)
{
    unsigned in = off & 15;
    if (in >= 4)
        return 0; /* between the registers */
    uint64_t v = lapic_mmio_get(l, (unsigned)(off >> 4) & 0xff) >> (8 * in);
    return v & mask_bytes(size < 4 - in ? size : 4 - in);
}

static void lapic_mmio_put(struct lapic *l, unsigned reg, uint32_t v)
{
    if (lapic_put(l, reg, v))
        return;
    switch (reg) {
    case REG_LDR:
        l->ldr = v & 0xff000000;
        break;
    case REG_DFR:
        l->dfr = v | 0x0fffffff;
        break;
    case REG_ICR2:
        l->icr = (l->icr & 0xffffffff) | (uint64_t)(v & 0xff000000) << 32;
        break;
    case REG_ICR:
        l->icr = (l->icr & ~0xffffffffULL) | (v & 0xccfff);
        lapic_send_ipi(l, (l->icr & 0xffffffff) | l->icr >> 56 << 32);
        break;
    case REG_ID:
    case REG_VERSION:
    case REG_APR:
    case REG_PPR:
    case REG_RRD:
    case REG_TCCT:
        break; /* read-only */
    default:
        lapic_error(l, ESR_ILLEGAL_REG);
        break;
    }
}

void lapic_mmio_write(struct lapic *l, uint64_t off, uint64_t value, unsigned size)
{
    /* 11.4.1: registers are written by aligned 32-bit stores; anything else is undefined and dropped here. A
     * wider store writes the register with its low half. */
    if ((off & 15) == 0 && size >= 4)
        lapic_mmio_put(l, (unsigned)(off >> 4) & 0xff, (uint32_t)value);
}

/* --- x2APIC --- */

bool lapic_x2_read(struct lapic *l, uint32_t msr, uint64_t *value)
{
    unsigned reg = msr - MSR_X2APIC_BASE;
    uint32_t v;
    if (!lapic_x2(l) || reg > 0xff)
        return false;
    if (reg == REG_ICR) {
        *value = l->icr;
        return true;
    }
    if (!lapic_get(l, reg, &v))
        return false;
    *value = v;
    return true;
}

/* Bits that may be set in a write; others fault. */
static uint64_t lapic_x2_bits(const struct lapic *l, unsigned reg)
{
    switch (reg) {
    case REG_TPR:
        return 0xff;
    case REG_SVR:
        return 0x1ff;
    case REG_ICR:
        return 0xffffffff000ccfffULL;
    case REG_LVT_TIMER ... REG_LVT_ERROR:
        return lapic_lvt_bits(l, reg - REG_LVT_TIMER) | 0x5000; /* RO bits */
    case REG_TICT:
        return 0xffffffff;
    case REG_TDCR:
        return 0xb;
    case REG_SELF_IPI:
        return 0xff;
    default:
        return 0; /* EOI and ESR take zero only */
    }
}

bool lapic_x2_write(struct lapic *l, uint32_t msr, uint64_t value)
{
    unsigned reg = msr - MSR_X2APIC_BASE;
    if (!lapic_x2(l) || reg > 0xff || (value & ~lapic_x2_bits(l, reg)))
        return false;
    if (reg == REG_ICR) {
        l->icr = value;
        lapic_send_ipi(l, value);
        return true;
    }
    if (reg == REG_SELF_IPI) {
        lapic_send_ipi(l, 1u << 18 | (value & 0xff));
        return true;
    }
    return lapic_put(l, reg, (uint32_t)value);
}
