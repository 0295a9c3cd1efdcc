/* The paravirtual clock: what turns a guest's TSC into nanoseconds, and the wall-clock time of its zero.
 *
 * Source: Linux, Documentation/virt/kvm/x86/msr.rst (MSR_KVM_SYSTEM_TIME_NEW, MSR_KVM_WALL_CLOCK_NEW) and
 * cpuid.rst.
 *
 * System time is guest time (clock_ns()), of which the TSC is a linear function that stands while the machine
 * is paused. So the pair that is shown is that of guest time zero, the same on all vCPUs and for ever: it
 * changes only when the guest moves a TSC. While all TSCs of a machine agree the guest may use one CPU's
 * clock for all (the STABLE flag).
 *
 * Threads: kvmpv.h. The guest reads on any vCPU while we write: the version is odd in between.
 */
#include <stddef.h>

#include "base/clock.h"
#include "ram/ram.h"
#include "x86/cpu.h"
#include "x86/lapic.h"

#define TIME_FLAG_TSC_STABLE 1u
#define TIME_FLAG_STOPPED    2u /* the guest takes it back */

struct pv_time {
    uint32_t version, pad0;
    uint64_t tsc_timestamp, system_time;
    uint32_t tsc_to_system_mul;
    int8_t tsc_shift;
    uint8_t flags, pad[2];
};
_Static_assert(sizeof(struct pv_time) == 32, "the guest's layout");

struct pv_wall {
    uint32_t version, sec, nsec;
};
_Static_assert(sizeof(struct pv_wall) == 12, "the guest's layout");

/* Write len bytes at gpa of which the first four are a version, odd while the rest changes. */
static void kvmclock_write(struct cpu *cpu, uint64_t gpa, void *image, uint64_t len)
{
    uint32_t version;
    if (!ram_borrow(cpu->ram, gpa, len) || ram_read(cpu->ram, gpa, &version, 4) < 0)
        return;
    version = (version + 1) | 1;
    ram_write(cpu->ram, gpa, &version, 4);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    ram_write(cpu->ram, gpa + 4, (uint8_t *)image + 4, len - 4);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    version++;
    ram_write(cpu->ram, gpa, &version, 4);
}

static bool kvmclock_stable(const struct cpu *cpu)
{
    const struct lapic_bus *bus = cpu->lapic->bus;
    for (unsigned n = 0; n < bus->count; n++)
        if (bus->lapic[n]->cpu->tsc_offset != cpu->tsc_offset)
            return false;
    return true;
}

/* stopped: TIME_FLAG_STOPPED or 0; what the guest has not taken back stays. */
static void kvmclock_show(struct cpu *cpu, uint8_t stopped)
{
    const struct clock *c = cpu->clock;
    struct pv_time t = { .tsc_timestamp = cpu->tsc_offset, .tsc_to_system_mul = c->mul, .tsc_shift = c->shift };
    uint64_t gpa = cpu->pv.time & ~(uint64_t)KVMPV_ENABLE;
    uint8_t old;
    if (!(cpu->pv.time & KVMPV_ENABLE) || ram_read(cpu->ram, gpa + offsetof(struct pv_time, flags), &old, 1) < 0)
        return;
    t.flags = stopped | (old & TIME_FLAG_STOPPED);
    if (kvmclock_stable(cpu))
        t.flags |= TIME_FLAG_TSC_STABLE;
    kvmclock_write(cpu, gpa, &t, sizeof(t));
}

void kvmclock_show_time(struct cpu *cpu) { kvmclock_show(cpu, 0); }
void kvmpv_slept(struct cpu *cpu) { kvmclock_show(cpu, TIME_FLAG_STOPPED); }

void kvmclock_show_wall(struct cpu *cpu)
{
    uint64_t zero = clock_wall_ns(cpu->clock) - clock_ns(cpu->clock);
    struct pv_wall w = { .sec = (uint32_t)(zero / NSEC_PER_SEC), .nsec = (uint32_t)(zero % NSEC_PER_SEC) };
    kvmclock_write(cpu, cpu->pv.wall, &w, sizeof(w));
}

void kvmclock_tsc_moved(struct cpu *cpu)
{
    const struct lapic_bus *bus = cpu->lapic->bus;
    for (unsigned n = 0; n < bus->count; n++)
        kvmclock_show_time(bus->lapic[n]->cpu);
}
