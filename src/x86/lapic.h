/* The local APIC, one a CPU, in xAPIC and x2APIC mode, and the bus that connects them.
 *
 * Sources: Intel SDM vol. 3 ch. 11 "Advanced Programmable Interrupt Controller" (registers, priorities,
 * IPIs, timer, x2APIC); bus frequency is 1 GHz, so that one timer tick at divide-by-1 is 1 ns.
 *
 * Locking: everything here is called with the device lock held, also by the vCPU's own thread (which takes
 * loop_lock(cpu->loop) around), except lapic_pending() and lapic_accepts_pic(), which are atomic loads. A change
 * that the vCPU should notice is told through lapic_bus.kick().
 */
#ifndef VITRO_X86_LAPIC_H
#define VITRO_X86_LAPIC_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/loop.h"
#include "bus/apic_msg.h"
#include "bus/device.h"
#include "x86/cpu.h"

#define LAPIC_GPA       0xfee00000ULL
#define LAPIC_MAX       64
#define LAPIC_BUS_HZ    1000000000ULL
#define APIC_BASE_BSP   0x100u
#define APIC_BASE_X2    0x400u
#define APIC_BASE_EN    0x800u

/* Local vector table entries, in the order of lapic.lvt[]. */
enum { LVT_TIMER, LVT_THERMAL, LVT_PERF, LVT_LINT0, LVT_LINT1, LVT_ERROR, LVT_COUNT };

struct lapic_bus;

struct lapic {
    /* -- registers as the guest sees them -- */
    uint32_t id; /* whole APIC ID: 8 bits shown in bits 31:24 (xAPIC) or all 32 (x2APIC) */
    uint32_t tpr, ldr, dfr, svr, esr, tdcr, ticr;
    uint64_t icr;
    uint32_t lvt[LVT_COUNT];
    uint32_t isr[8], tmr[8], irr[8];
    uint64_t tsc_deadline; /* 0: not armed */
    uint32_t esr_pending;  /* errors since the last write of ESR */
    uint64_t timer_start;  /* guest ns at which ticr began to count */
    uint64_t timer_fired;  /* periods already signalled since then */
    bool lint0, lint1;     /* levels on the pins */
    bool extint;           /* an ExtINT message waits (virtual wire through the I/O APIC) */
    bool pv_eoi;           /* the guest may end its interrupt by clearing a bit in memory */

    /* -- derived -- */
    _Atomic bool pending; /* lapic_pending() */
    _Atomic bool pic;     /* lapic_accepts_pic() */

    /* -- surroundings -- */
    struct cpu *cpu;
    struct lapic_bus *bus;
    struct timer timer;
};

/* All local APICs of a machine. Zero-initialise, set the callbacks, then lapic_init() each CPU's. */
struct lapic_bus {
    struct lapic *lapic[LAPIC_MAX]; /* by registration */
    unsigned count;
    unsigned lowest_next; /* where the search for a lowest-priority receiver begins */
    /* Make vCPU cpu_index look at ATT_* bits: vcpu_kick(). Any thread, device lock held. */
    void (*kick)(void *opaque, unsigned cpu_index, uint32_t attention);
    /* EOI of a level-triggered vector goes to all I/O APICs. May be NULL. */
    void (*eoi)(void *opaque, uint8_t vector);
    void *opaque;
};

extern const struct device_ops lapic_ops; /* type "lapic", dev: struct lapic */

/* cpu->index, apic_id, loop, clock and cpuid are set; sets cpu->lapic. The state is that after power-on; the
 * BSP bit of cpu->apic_base is cpu_reset()'s. Returns 0, or -ENOSPC when the bus is full. */
int lapic_init(struct lapic *l, struct cpu *cpu, struct lapic_bus *bus);

/* After INIT: all but the APIC ID as at power-on (SDM vol. 3, 11.4.7.3). In x2APIC mode the APIC stays in it
 * (apic_base does not change). */
void lapic_reset_init(struct lapic *l);

/* What a BIOS leaves behind on the boot CPU ("virtual wire"): enabled, LINT0 passes the 8259 pair through, LINT1 is NMI.
 * For kernels that are booted without firmware, after reset. */
void lapic_virtual_wire(struct lapic *l);

/* Deliver one message: I/O APIC, MSI. opaque is the struct lapic_bus: an apic_deliver_fn. */
void lapic_deliver(void *opaque, const struct apic_msg *msg);

/* The 8259 pair's INTR output (an irq_line function: opaque is the struct lapic; the machine wires it to the boot
 * CPU, or to all). lapic_set_lint1() is the NMI pin. */
void lapic_set_lint0(void *opaque, unsigned pin, bool level);
void lapic_set_lint1(void *opaque, unsigned pin, bool level);

/* The register page in xAPIC mode; off is below 0x1000. Registers are 32 bits at 16-byte steps; accesses of another
 * shape read parts of a register, or are dropped. */
uint64_t lapic_mmio_read(struct lapic *l, uint64_t off, unsigned size);
void lapic_mmio_write(struct lapic *l, uint64_t off, uint64_t value, unsigned size);

/* MSRs 0x800 to 0x8ff. False: #GP (also when not in x2APIC mode). */
bool lapic_x2_read(struct lapic *l, uint32_t msr, uint64_t *value);
bool lapic_x2_write(struct lapic *l, uint32_t msr, uint64_t value);

/* IA32_APIC_BASE, with the legal transitions only (SDM vol. 3, 11.12.5). False: #GP. */
bool lapic_base_write(struct lapic *l, uint64_t value);

/* IA32_TSC_DEADLINE; a write is ignored unless the timer is in that mode. */
uint64_t lapic_deadline_read(struct lapic *l);
void lapic_deadline_write(struct lapic *l, uint64_t value);
/* The guest's TSC was moved: arm the deadline again. */
void lapic_tsc_moved(struct lapic *l);

/* CR8: the task priority's upper four bits. The setter keeps cpu->cr8 equal, and so do writes to the TPR. */
void lapic_cr8_write(struct lapic *l, uint64_t v);

/* An interrupt above the processor's priority waits. Lock-free: any thread, no lock. */
static inline bool lapic_pending(struct lapic *l)
{
    return atomic_load_explicit(&l->pending, memory_order_acquire);
}

/* The 8259 pair asks through this APIC (LINT0 as ExtINT, an ExtINT message, or the APIC is off): when IF is set, call
 * cpu->ops->pic_ack(), then lapic_pic_taken(). Lock-free: any thread, no lock. */
static inline bool lapic_accepts_pic(struct lapic *l)
{
    return atomic_load_explicit(&l->pic, memory_order_acquire);
}

/* The highest deliverable vector, moved from IRR to ISR; -1: none. */
int lapic_ack(struct lapic *l);
/* The CPU has asked the 8259 pair for its vector: an ExtINT message is used up. */
void lapic_pic_taken(struct lapic *l);

/* ICR write of 64 bits (x2APIC layout: destination in the upper half); for paravirtual callers and tests. */
void lapic_send_ipi(struct lapic *l, uint64_t icr);

/* The paravirtual end-of-interrupt MSR (kvmpv.h) gets the value v. The vCPU's own thread. */
void lapic_pv_eoi_set(struct lapic *l, uint64_t v);

/* --- between the parts of the local APIC (lapic*.c) --- */
void lapic_update(struct lapic *l);                  /* recompute `pending` and `pic`, kick on a rise */
void lapic_error(struct lapic *l, uint32_t esr_bit); /* record, and signal through LVT error */
/* Fixed interrupt into the IRR; level sets the TMR bit. */
void lapic_accept(struct lapic *l, uint8_t vector, bool level);
void lapic_lvt_fire(struct lapic *l, unsigned n); /* signal through lvt[n] unless masked */
bool lapic_enabled(const struct lapic *l);        /* globally enabled (IA32_APIC_BASE) */
bool lapic_x2(const struct lapic *l);
bool lapic_soft_enabled(const struct lapic *l);
uint32_t lapic_ppr(const struct lapic *l);
void lapic_write_eoi(struct lapic *l);
/* Learn whether the guest has ended its interrupt by the bit in memory. The vCPU's own thread, or while it
 * is stopped. */
void lapic_pv_eoi_sync(struct lapic *l);
void lapic_write_tpr(struct lapic *l, uint32_t v);
void lapic_timer_init(struct lapic *l);
void lapic_timer_reset(struct lapic *l);
void lapic_timer_rearm(struct lapic *l);
void lapic_timer_write_ticr(struct lapic *l, uint32_t v);
void lapic_timer_write_tdcr(struct lapic *l, uint32_t v);
void lapic_timer_write_lvt(struct lapic *l, uint32_t v);
uint32_t lapic_timer_tcct(struct lapic *l);

#endif
