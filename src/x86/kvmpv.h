/* KVM's paravirtual interface, as the guest of any engine finds it: clock, steal time, end of interrupt,
 * hypercalls.
 *
 * Source: Linux, Documentation/virt/kvm/x86/{cpuid,msr,hypercalls}.rst: what the leaves, MSRs and calls mean
 * and how the structures lie in guest memory. Asynchronous page faults, poll control, migration control: not
 * here, not shown.
 *
 * The guest chooses the addresses. Every access goes through ram_*(): what does not lie in RAM as a whole is
 * left alone. Two vCPUs, or a vCPU and its own code, may share a page or even a structure; that harms only
 * the guest.
 *
 * Threads: the vCPU's own, unless said otherwise. `time` and tsc_offset change with the device lock held,
 * because a vCPU that moves its TSC writes the clocks of all.
 */
#ifndef VITRO_X86_KVMPV_H
#define VITRO_X86_KVMPV_H

#include <stdbool.h>
#include <stdint.h>

struct cpu;
struct state_desc;

/* CPUID 0x40000001, EAX */
#define KVMPV_CLOCK        (1u << 0)
#define KVMPV_NOP_IO_DELAY (1u << 1)
#define KVMPV_CLOCK2       (1u << 3)
#define KVMPV_STEAL_TIME   (1u << 5)
#define KVMPV_EOI          (1u << 6)
#define KVMPV_UNHALT       (1u << 7)
#define KVMPV_TLB_FLUSH    (1u << 9)
#define KVMPV_SEND_IPI     (1u << 11)
#define KVMPV_CLOCK_STABLE (1u << 24)
#define KVMPV_FEATURES                                                                                       \
    (KVMPV_CLOCK | KVMPV_NOP_IO_DELAY | KVMPV_CLOCK2 | KVMPV_STEAL_TIME | KVMPV_EOI | KVMPV_UNHALT |         \
     KVMPV_TLB_FLUSH | KVMPV_SEND_IPI | KVMPV_CLOCK_STABLE)

/* MSRs */
#define MSR_KVM_WALL_CLOCK_OLD  0x11u
#define MSR_KVM_SYSTEM_TIME_OLD 0x12u
#define MSR_KVM_WALL_CLOCK      0x4b564d00u
#define MSR_KVM_SYSTEM_TIME     0x4b564d01u
#define MSR_KVM_STEAL_TIME      0x4b564d03u
#define MSR_KVM_PV_EOI          0x4b564d04u
#define KVMPV_ENABLE            1u /* bit 0 of all but the wall clock; the others are an address */

/* Hypercalls: number in RAX, arguments in RBX, RCX, RDX, RSI, result in RAX. */
enum { HC_VAPIC_POLL_IRQ = 1, HC_KICK_CPU = 5, HC_SEND_IPI = 10 };
enum { HC_EPERM = 1, HC_EINVAL = 22, HC_ENOSYS = 1000 }; /* negated in RAX */

/* A CPU's part; all zero after reset and INIT. */
struct kvmpv {
    uint64_t wall, time, steal, eoi; /* the MSRs as written */
    uint64_t steal_ns;               /* what the guest is told */
    bool unhalted;                   /* a kick that no HLT has used up; atomic, any thread sets it */
    /* -- not described: where steal time was last reckoned -- */
    bool marked;
    uint64_t mark_ns, mark_run, idle_ns, idle_since;
};

extern const struct state_desc kvmpv_state_desc;

/* After power-on and INIT. Touches no guest memory. */
void kvmpv_reset(struct cpu *cpu);
/* After a state was loaded into a stopped CPU, device lock held: the clock is shown again, reckoning starts
 * anew. */
void kvmpv_loaded(struct cpu *cpu);
/* Guest time went on while the CPU was stopped, device lock held: the guest's watchdogs are not to take that for a
 * CPU that hangs (msr.rst, MSR_KVM_SYSTEM_TIME_NEW: flag 1). */
void kvmpv_slept(struct cpu *cpu);

/* False: not one of ours, or a value that faults. */
bool kvmpv_msr_read(struct cpu *cpu, uint32_t index, uint64_t *value);
bool kvmpv_msr_write(struct cpu *cpu, uint32_t index, uint64_t value);

/* VMCALL and VMMCALL: takes its arguments from the registers, leaves the result in RAX. */
void kvmpv_hypercall(struct cpu *cpu);

/* The vCPU stops to wait for an interrupt, and has stopped waiting. Both inside the guest (quiesce_enter()):
 * the second may flush the TLB. */
void kvmpv_idle(struct cpu *cpu);
void kvmpv_busy(struct cpu *cpu);
/* Between two instructions, now and then: brings steal time up to date if a millisecond has passed. */
void kvmpv_tick(struct cpu *cpu);

/* A kick by another vCPU is there, and is used up: a halted CPU goes on, whatever its IF. */
bool kvmpv_take_kick(struct cpu *cpu);

/* --- between the parts (kvmpv.c, kvmclock.c, kvmsteal.c) --- */

/* Show the system time (wall clock) at the address in cpu->pv.time (wall). Device lock held; any thread that
 * has it. */
void kvmclock_show_time(struct cpu *cpu);
void kvmclock_show_wall(struct cpu *cpu);
/* cpu's TSC was moved, by itself: all clocks of the machine are shown again. Device lock held. */
void kvmclock_tsc_moved(struct cpu *cpu);

/* The steal-time MSR was written. */
void kvmsteal_start(struct cpu *cpu);

#endif
