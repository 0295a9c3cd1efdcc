/* Steal time, and the "preempted" byte beside it, by which other vCPUs leave a TLB flush to one that sleeps.
 *
 * Source: Linux, Documentation/virt/kvm/x86/msr.rst (MSR_KVM_STEAL_TIME).
 *
 * Stolen is the guest time that passed, less the CPU time that the vCPU's thread had, less the time in which
 * it waited for an interrupt. What the host took between the kick that ends such a wait and the thread's
 * first instruction counts as waiting. A vCPU is shown as preempted only while it waits: what the host's
 * scheduler does with a running thread cannot be known in time.
 *
 * Thread: the vCPU's own.
 */
#include "base/clock.h"
#include "ram/ram.h"
#include "x86/cpu.h"
#include "x86/mmu.h"

/* The guest's structure, 64 bytes */
#define STEAL_SIZE      64u
#define STEAL_NS        0u  /* u64 */
#define STEAL_VERSION   8u  /* u32 */
#define STEAL_PREEMPTED 16u /* u8 */

#define PREEMPTED_YES   1u
#define PREEMPTED_FLUSH 2u /* set by others: flush the TLB before going on */

#define STEAL_PERIOD_NS 1000000u

static uint64_t kvmsteal_gpa(const struct cpu *cpu) { return cpu->pv.steal & ~(uint64_t)(STEAL_SIZE - 1); }

static bool kvmsteal_on(const struct cpu *cpu) { return cpu->pv.steal & KVMPV_ENABLE; }

static void kvmsteal_show(struct cpu *cpu)
{
    uint64_t gpa = kvmsteal_gpa(cpu);
    uint32_t version;
    if (ram_read(cpu->ram, gpa + STEAL_VERSION, &version, 4) < 0)
        return;
    version = (version + 1) | 1;
    ram_write(cpu->ram, gpa + STEAL_VERSION, &version, 4);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    ram_write(cpu->ram, gpa + STEAL_NS, &cpu->pv.steal_ns, 8);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    version++;
    ram_write(cpu->ram, gpa + STEAL_VERSION, &version, 4);
}

static void kvmsteal_mark(struct cpu *cpu, uint64_t now, uint64_t run)
{
    cpu->pv.marked = true;
    cpu->pv.mark_ns = now;
    cpu->pv.mark_run = run;
    cpu->pv.idle_ns = 0;
}

static void kvmsteal_reckon(struct cpu *cpu, uint64_t now)
{
    struct kvmpv *pv = &cpu->pv;
    uint64_t run = cpu->ops->run_ns ? cpu->ops->run_ns(cpu) : 0;
    uint64_t passed = now - pv->mark_ns, had = run - pv->mark_run + pv->idle_ns;
    /* had may be the larger one: going to sleep and waking up cost CPU time too. */
    if (pv->marked && cpu->ops->run_ns && passed > had)
        pv->steal_ns += passed - had;
    kvmsteal_mark(cpu, now, run);
    kvmsteal_show(cpu);
}

void kvmsteal_start(struct cpu *cpu)
{
    cpu->pv.marked = false;
    if (kvmsteal_on(cpu))
        kvmsteal_reckon(cpu, clock_ns(cpu->clock));
}

void kvmpv_tick(struct cpu *cpu)
{
    if (!kvmsteal_on(cpu))
        return;
    uint64_t now = clock_ns(cpu->clock);
    if (!cpu->pv.marked || now - cpu->pv.mark_ns >= STEAL_PERIOD_NS)
        kvmsteal_reckon(cpu, now);
}

void kvmpv_idle(struct cpu *cpu)
{
    uint8_t old;
    if (!kvmsteal_on(cpu))
        return;
    cpu->pv.idle_since = clock_ns(cpu->clock);
    ram_exchange(cpu->ram, kvmsteal_gpa(cpu) + STEAL_PREEMPTED, PREEMPTED_YES, &old);
}

void kvmpv_busy(struct cpu *cpu)
{
    uint8_t old;
    if (!kvmsteal_on(cpu))
        return;
    if (ram_exchange(cpu->ram, kvmsteal_gpa(cpu) + STEAL_PREEMPTED, 0, &old) == 0 && (old & PREEMPTED_FLUSH))
        mmu_flush_all(cpu);
    cpu->pv.idle_ns += clock_ns(cpu->clock) - cpu->pv.idle_since;
    kvmpv_tick(cpu);
}
