/* KVM's paravirtual MSRs and hypercalls. See kvmpv.h.
 *
 * Source: Linux, Documentation/virt/kvm/x86/msr.rst and hypercalls.rst.
 */
#include "x86/kvmpv.h"

#include "base/loop.h"
#include "state/state.h"
#include "x86/cpu.h"
#include "x86/lapic.h"

#define STEAL_RESERVED 0x3eu
#define EOI_RESERVED   0x2u

/* --- life --- */

void kvmpv_reset(struct cpu *cpu) { cpu->pv = (struct kvmpv){ 0 }; }

void kvmpv_loaded(struct cpu *cpu)
{
    cpu->pv.marked = false;
    kvmclock_show_time(cpu);
}

static const struct state_field kvmpv_fields[] = {
    STATE_F64(struct kvmpv, wall),
    STATE_F64(struct kvmpv, time),
    STATE_F64(struct kvmpv, steal),
    STATE_F64(struct kvmpv, eoi),
    STATE_F64(struct kvmpv, steal_ns),
    STATE_FBOOL(struct kvmpv, unhalted),
    STATE_END,
};

const struct state_desc kvmpv_state_desc = {
    .name = "kvmpv",
    .version = 1,
    .size = sizeof(struct kvmpv),
    .fields = kvmpv_fields,
};

/* --- MSRs --- */

bool kvmpv_msr_read(struct cpu *cpu, uint32_t index, uint64_t *value)
{
    switch (index) {
    case MSR_KVM_WALL_CLOCK_OLD:
    case MSR_KVM_WALL_CLOCK:
        *value = cpu->pv.wall;
        return true;
    case MSR_KVM_SYSTEM_TIME_OLD:
    case MSR_KVM_SYSTEM_TIME:
        *value = cpu->pv.time;
        return true;
    case MSR_KVM_STEAL_TIME:
        *value = cpu->pv.steal;
        return true;
    case MSR_KVM_PV_EOI:
        *value = cpu->pv.eoi;
        return true;
    default:
        return false;
    }
}

static bool kvmpv_set_clock(struct cpu *cpu, uint64_t *reg, uint64_t v, void (*show)(struct cpu *cpu))
{
    loop_lock(cpu->loop);
    *reg = v;
    show(cpu);
    loop_unlock(cpu->loop);
    return true;
}

static bool kvmpv_set_steal(struct cpu *cpu, uint64_t v)
{
    if (v & STEAL_RESERVED)
        return false;
    cpu->pv.steal = v;
    kvmsteal_start(cpu);
    return true;
}

static bool kvmpv_set_eoi(struct cpu *cpu, uint64_t v)
{
    if (v & EOI_RESERVED)
        return false;
    loop_lock(cpu->loop);
    lapic_pv_eoi_set(cpu->lapic, v);
    loop_unlock(cpu->loop);
    return true;
}

bool kvmpv_msr_write(struct cpu *cpu, uint32_t index, uint64_t value)
{
    switch (index) {
    case MSR_KVM_WALL_CLOCK_OLD:
    case MSR_KVM_WALL_CLOCK:
        return kvmpv_set_clock(cpu, &cpu->pv.wall, value, kvmclock_show_wall);
    case MSR_KVM_SYSTEM_TIME_OLD:
    case MSR_KVM_SYSTEM_TIME:
        return kvmpv_set_clock(cpu, &cpu->pv.time, value, kvmclock_show_time);
    case MSR_KVM_STEAL_TIME:
        return kvmpv_set_steal(cpu, value);
    case MSR_KVM_PV_EOI:
        return kvmpv_set_eoi(cpu, value);
    default:
        return false;
    }
}

/* --- hypercalls --- */

/* End the HLT of the CPU with the APIC ID a1, or its next one. */
static int64_t kvmpv_kick_cpu(struct cpu *cpu, const uint64_t a[4])
{
    struct lapic_bus *bus = cpu->lapic->bus;
    loop_lock(cpu->loop);
    for (unsigned n = 0; n < bus->count; n++) {
        struct lapic *l = bus->lapic[n];
        if (l->id != a[1])
            continue;
        __atomic_store_n(&l->cpu->pv.unhalted, true, __ATOMIC_RELEASE);
        bus->kick(bus->opaque, l->cpu->index, ATT_STEP);
    }
    loop_unlock(cpu->loop);
    return 0;
}

bool kvmpv_take_kick(struct cpu *cpu)
{
    return __atomic_load_n(&cpu->pv.unhalted, __ATOMIC_RELAXED) &&
           __atomic_exchange_n(&cpu->pv.unhalted, false, __ATOMIC_ACQUIRE);
}

/* Is id in the two words of bits (of 32 each for a caller outside 64-bit mode) that begin with APIC ID a2? */
static bool kvmpv_in_set(const uint64_t a[4], unsigned word, uint32_t id)
{
    uint64_t bit = id - a[2];
    return id >= a[2] && bit < 2 * word && (a[bit / word] >> (bit % word) & 1);
}

/* A fixed or non-maskable interrupt to a set of CPUs; a3 is as the low half of the ICR. The number of those
 * that took it. */
static int64_t kvmpv_send_ipi(struct cpu *cpu, const uint64_t a[4])
{
    struct lapic_bus *bus = cpu->lapic->bus;
    unsigned mode = a[3] >> 8 & 7, word = cpu->code_size == 8 ? 64 : 32;
    int64_t count = 0;
    if ((a[3] & 0xc0800) || (mode != APIC_FIXED && mode != APIC_NMI)) /* shorthands, logical destinations */
        return -HC_EINVAL;
    loop_lock(cpu->loop);
    for (unsigned n = 0; n < bus->count; n++) {
        struct lapic *l = bus->lapic[n];
        if (!kvmpv_in_set(a, word, l->id) || !lapic_enabled(l))
            continue;
        if (mode == APIC_NMI)
            bus->kick(bus->opaque, l->cpu->index, ATT_NMI);
        else
            lapic_accept(l, (uint8_t)a[3], false);
        count++;
    }
    loop_unlock(cpu->loop);
    return count;
}

static int64_t kvmpv_call(struct cpu *cpu, uint64_t nr, const uint64_t a[4])
{
    if (cpu->cpl != 0)
        return -HC_EPERM;
    switch (nr) {
    case HC_VAPIC_POLL_IRQ:
        return 0; /* "look for interrupts": done after every instruction */
    case HC_KICK_CPU:
        return kvmpv_kick_cpu(cpu, a);
    case HC_SEND_IPI:
        return kvmpv_send_ipi(cpu, a);
    default:
        return -HC_ENOSYS;
    }
}

void kvmpv_hypercall(struct cpu *cpu)
{
    uint64_t mask = cpu->code_size == 8 ? ~0ULL : 0xffffffffULL;
    uint64_t a[4] = { cpu->r[RBX] & mask, cpu->r[RCX] & mask, cpu->r[RDX] & mask, cpu->r[RSI] & mask };
    cpu->r[RAX] = (uint64_t)kvmpv_call(cpu, cpu->r[RAX] & mask, a) & mask;
}
