/* KVM's paravirtual interface: clock, steal time, preempted byte and TLB flush, end of interrupt in memory,
 * hypercalls, and what addresses outside RAM do (nothing). */
#include "x86_fixture.h"

#include <string.h>

#include "base/err.h"
#include "state/state.h"
#include "x86/mmu.h"
#include "x86/msr.h"

#define AREA 0x5000ULL
#define ROM  0xffff8000ULL
#define END  (16ULL << 20)

static bool set(struct cpu *cpu, uint32_t msr, uint64_t v) { return msr_write(cpu, msr, v); }

static uint64_t get(struct cpu *cpu, uint32_t msr)
{
    uint64_t v = 0;
    assert_true(msr_read(cpu, msr, &v));
    return v;
}

static uint32_t get32(struct fx *f, uint64_t gpa)
{
    uint32_t v;
    assert_int_equal(ram_read(&f->ram, gpa, &v, 4), 0);
    return v;
}

static uint8_t get8(struct fx *f, uint64_t gpa)
{
    uint8_t v;
    assert_int_equal(ram_read(&f->ram, gpa, &v, 1), 0);
    return v;
}

static void put8(struct fx *f, uint64_t gpa, uint8_t v)
{
    assert_int_equal(ram_write(&f->ram, gpa, &v, 1), 0);
}

/* --- the leaves --- */

static void test_cpuid(void **state)
{
    struct fx *f = fx_create(1, NULL);
    uint32_t r[4];
    cpuid_query(f->cpu, 0x40000000, 0, r);
    assert_in_range(r[0], 0x40000001, 0x400000ff);
    assert_memory_equal(&r[1], "KVMKVMKVM\0\0", 12);
    cpuid_query(f->cpu, 0x40000001, 0, r);
    /* clock, no I/O delay, clock 2, steal time, EOI, unhalt, TLB flush, IPIs, stable clock */
    assert_int_equal(r[0], 0x01000aeb);
    assert_int_equal(r[1] | r[2] | r[3], 0);
    fx_destroy(f);
}

/* --- clock --- */

/* The guest's own sum. */
static uint64_t scaled(uint64_t ticks, uint32_t mul, int8_t shift)
{
    ticks = shift < 0 ? ticks >> -shift : ticks << shift;
    return (uint64_t)((unsigned __int128)ticks * mul >> 32);
}

static void test_scale(void **state)
{
    static const uint64_t khz[] = { 1,       1000,    32768,   999999,  1000000, 1000001,
                                    1999999, 2000000, 2100000, 3699850, 5000000, 4294967295 };
    for (unsigned n = 0; n < ARRAY_LEN(khz); n++) {
        uint32_t mul;
        int8_t shift;
        clock_scale(khz[n], &mul, &shift);
        assert_in_range(mul, 1u << 31, UINT32_MAX);
        uint64_t hour = scaled(3600 * 1000 * khz[n], mul, shift), right = 3600 * NSEC_PER_SEC;
        assert_in_range(hour, right - 3600, right); /* half a part in 10^9 */
    }
    uint32_t mul;
    int8_t shift;
    clock_scale(1000000, &mul, &shift); /* a tick a nanosecond is exact */
    assert_int_equal(mul, 1u << 31);
    assert_int_equal(shift, 1);
}

/* What a guest makes of the structure at AREA + 64 * cpu. */
static uint64_t guest_time(struct fx *f, unsigned cpu)
{
    uint64_t at = AREA + 64 * cpu;
    uint64_t last = fx_get(f, at + 24);
    assert_int_equal(get32(f, at) & 1, 0);
    return fx_get(f, at + 16) +
           scaled(cpu_tsc(f->cpus[cpu]) - fx_get(f, at + 8), (uint32_t)last, (int8_t)(last >> 32));
}

static uint8_t time_flags(struct fx *f, unsigned cpu) { return get8(f, AREA + 64 * cpu + 29); }

static void test_time(void **state)
{
    struct fx *f = fx_create(2, NULL);
    clock_advance(&f->clock, 12345);
    for (unsigned n = 0; n < 2; n++)
        assert_true(set(f->cpus[n], n ? MSR_KVM_SYSTEM_TIME_OLD : MSR_KVM_SYSTEM_TIME, AREA + 64 * n + 1));
    assert_int_equal(get(f->cpu, MSR_KVM_SYSTEM_TIME_OLD), AREA + 1);
    for (unsigned n = 0; n < 5; n++) {
        for (unsigned cpu = 0; cpu < 2; cpu++) {
            assert_int_equal(guest_time(f, cpu), clock_ns(&f->clock));
            assert_int_equal(time_flags(f, cpu), 1);
        }
        clock_advance(&f->clock, 1000000007ULL * n + 1);
        if (n == 2)
            clock_stop(&f->clock);
        if (n == 3)
            clock_start(&f->clock);
    }
    uint32_t version = get32(f, AREA);
    assert_true(set(f->cpu, MSR_KVM_SYSTEM_TIME, AREA + 1));
    assert_int_equal(get32(f, AREA), version + 2);
    /* Disabled: nothing is written any more. */
    assert_true(set(f->cpu, MSR_KVM_SYSTEM_TIME, AREA));
    assert_int_equal(get32(f, AREA), version + 2);
    fx_destroy(f);
}

/* A TSC that is moved takes the clock with it; the flag says whether all TSCs agree. */
static void test_tsc_moves(void **state)
{
    struct fx *f = fx_create(2, NULL);
    clock_advance(&f->clock, 5000000);
    for (unsigned n = 0; n < 2; n++)
        assert_true(set(f->cpus[n], MSR_KVM_SYSTEM_TIME, AREA + 64 * n + 1));
    assert_true(set(f->cpu, MSR_TSC, 77));
    assert_int_equal(guest_time(f, 0), 5000000);
    assert_int_equal(guest_time(f, 1), 5000000);
    assert_int_equal(time_flags(f, 0) | time_flags(f, 1), 0);
    assert_true(set(f->cpus[1], MSR_TSC_ADJUST, get(f->cpu, MSR_TSC_ADJUST)));
    clock_advance(&f->clock, 999);
    assert_int_equal(guest_time(f, 0), 5000999);
    assert_int_equal(guest_time(f, 1), 5000999);
    assert_int_equal(time_flags(f, 0) & time_flags(f, 1), 1);
    fx_destroy(f);
}

/* The guest learns that it stood while time went on, and takes that back itself. */
static void test_slept(void **state)
{
    struct fx *f = fx_create(2, NULL);
    kvmpv_slept(f->cpu); /* nobody looks */
    assert_int_equal(time_flags(f, 0), 0);
    for (unsigned n = 0; n < 2; n++)
        assert_true(set(f->cpus[n], MSR_KVM_SYSTEM_TIME, AREA + 64 * n + 1));
    kvmpv_loaded(f->cpu);
    assert_int_equal(time_flags(f, 0), 1);
    clock_advance(&f->clock, 40 * NSEC_PER_SEC);
    kvmpv_slept(f->cpu);
    assert_int_equal(guest_time(f, 0), clock_ns(&f->clock));
    assert_int_equal(time_flags(f, 0), 3);
    assert_int_equal(time_flags(f, 1), 1);
    assert_true(set(f->cpus[1], MSR_TSC, 77)); /* shown again, not taken back yet */
    assert_int_equal(time_flags(f, 0), 2);
    put8(f, AREA + 29, 0);
    kvmpv_loaded(f->cpu);
    assert_int_equal(time_flags(f, 0), 0);
    fx_destroy(f);
}

static void test_wall(void **state)
{
    struct fx *f = fx_create(1, NULL);
    f->clock.manual_wall_ns = 1700000000ULL * NSEC_PER_SEC + 987654321;
    clock_advance(&f->clock, 3 * NSEC_PER_SEC);
    assert_true(set(f->cpu, MSR_KVM_WALL_CLOCK, AREA));
    assert_int_equal(get32(f, AREA) & 1, 0);
    assert_int_equal(get32(f, AREA + 4), 1700000000);
    assert_int_equal(get32(f, AREA + 8), 987654321);
    assert_true(set(f->cpu, MSR_KVM_WALL_CLOCK_OLD, AREA + 32));
    assert_int_equal(get32(f, AREA + 36), 1700000000);
    fx_destroy(f);
}

/* --- steal time --- */

static uint64_t had_ns; /* CPU time that the vCPU's thread had */

static uint64_t run_ns(struct cpu *cpu) { return had_ns; }

static struct fx *steal_fixture(void)
{
    struct fx *f = fx_create(1, NULL);
    had_ns = 1000;
    f->ops.run_ns = run_ns;
    assert_true(set(f->cpu, MSR_KVM_STEAL_TIME, AREA + 1));
    assert_int_equal(fx_get(f, AREA), 0);
    return f;
}

static void pass(struct fx *f, uint64_t ns, uint64_t had)
{
    clock_advance(&f->clock, ns);
    had_ns += had;
}

static void test_steal(void **state)
{
    struct fx *f = steal_fixture();
    pass(f, 5000000, 3000000);
    kvmpv_tick(f->cpu);
    assert_int_equal(fx_get(f, AREA), 2000000);
    assert_int_equal(get32(f, AREA + 8) & 1, 0);
    assert_int_equal(get32(f, AREA + 12), 0);
    uint32_t version = get32(f, AREA + 8);
    /* Not more often than once a millisecond, and nothing is lost by that. */
    pass(f, 900000, 100000);
    kvmpv_tick(f->cpu);
    assert_int_equal(get32(f, AREA + 8), version);
    pass(f, 200000, 200000);
    kvmpv_tick(f->cpu);
    assert_int_equal(get32(f, AREA + 8), version + 2);
    assert_int_equal(fx_get(f, AREA), 2800000);
    /* Waiting is not stolen. */
    kvmpv_idle(f->cpu);
    pass(f, 60 * NSEC_PER_SEC, 0);
    kvmpv_busy(f->cpu);
    assert_int_equal(fx_get(f, AREA), 2800000);
    /* More CPU time than time: never backwards. */
    pass(f, 2000000, 3000000);
    kvmpv_tick(f->cpu);
    assert_int_equal(fx_get(f, AREA), 2800000);
    fx_destroy(f);
}

static void test_preempted(void **state)
{
    struct fx *f = steal_fixture();
    fx_long_mode(f, 0);
    unsigned flushes = f->flushed_all;
    kvmpv_idle(f->cpu);
    assert_int_equal(get8(f, AREA + 16), 1);
    kvmpv_busy(f->cpu);
    assert_int_equal(get8(f, AREA + 16), 0);
    assert_int_equal(f->flushed_all, flushes);
    kvmpv_idle(f->cpu);
    put8(f, AREA + 16, 3); /* another vCPU asks for a flush */
    kvmpv_busy(f->cpu);
    assert_int_equal(get8(f, AREA + 16), 0);
    assert_int_equal(f->flushed_all, flushes + 1);
    assert_false(set(f->cpu, MSR_KVM_STEAL_TIME, AREA + 3)); /* reserved bits */
    assert_false(set(f->cpu, MSR_KVM_STEAL_TIME, AREA + 0x21));
    assert_int_equal(get(f->cpu, MSR_KVM_STEAL_TIME), AREA + 1);
    assert_true(set(f->cpu, MSR_KVM_STEAL_TIME, 0));
    put8(f, AREA + 16, 2);
    kvmpv_idle(f->cpu);
    kvmpv_busy(f->cpu);
    assert_int_equal(get8(f, AREA + 16), 2);
    assert_int_equal(f->flushed_all, flushes + 1);
    fx_destroy(f);
}

/* --- end of interrupt --- */

#define EOI_BYTE AREA

static struct fx *eoi_fixture(void)
{
    struct fx *f = fx_create(1, NULL);
    lapic_mmio_write(f->lapic, 0xf0, 0x1ff, 4);
    put8(f, EOI_BYTE, 1); /* left over */
    assert_true(set(f->cpu, MSR_KVM_PV_EOI, EOI_BYTE + 1));
    assert_int_equal(get8(f, EOI_BYTE), 0);
    assert_false(set(f->cpu, MSR_KVM_PV_EOI, EOI_BYTE + 3));
    return f;
}

static void irq(struct fx *f, uint8_t vector, bool level)
{
    lapic_deliver(&f->bus, &(struct apic_msg){ .vector = vector, .level = level, .assert = true });
}

static bool in_service(struct fx *f, unsigned v)
{
    return lapic_mmio_read(f->lapic, 0x100 + (v / 32) * 16, 4) >> (v % 32) & 1;
}

static void eoi(struct fx *f) { lapic_mmio_write(f->lapic, 0xb0, 0, 4); }

static void test_eoi_in_memory(void **state)
{
    struct fx *f = eoi_fixture();
    irq(f, 0x41, false);
    assert_int_equal(lapic_ack(f->lapic), 0x41);
    assert_int_equal(get8(f, EOI_BYTE), 1);
    assert_false(lapic_pending(f->lapic));
    put8(f, EOI_BYTE, 0);
    /* Something of lower priority comes from another thread: the CPU is told to look, and finds it. */
    fx_kicked(f, 0);
    irq(f, 0x31, false);
    assert_int_equal(fx_kicked(f, 0), ATT_IRQ);
    assert_int_equal(lapic_ack(f->lapic), 0x31);
    assert_false(in_service(f, 0x41));
    /* That look took the offer back, so this one ends at the register. */
    assert_int_equal(get8(f, EOI_BYTE), 0);
    assert_true(in_service(f, 0x31));
    eoi(f);
    assert_false(in_service(f, 0x31));
    /* Ended in memory, then asked for. */
    irq(f, 0x55, false);
    assert_int_equal(lapic_ack(f->lapic), 0x55);
    put8(f, EOI_BYTE, 0);
    assert_int_equal(lapic_mmio_read(f->lapic, 0xa0, 4), 0); /* PPR */
    assert_false(in_service(f, 0x55));
    fx_destroy(f);
}

static void test_eoi_at_register(void **state)
{
    struct fx *f = eoi_fixture();
    irq(f, 0x41, false);
    assert_int_equal(lapic_ack(f->lapic), 0x41);
    irq(f, 0x31, false);
    assert_true(lapic_pending(f->lapic)); /* perhaps */
    assert_int_equal(lapic_ack(f->lapic), -1);
    assert_int_equal(get8(f, EOI_BYTE), 0); /* so the guest ends 0x41 at the register */
    assert_false(lapic_pending(f->lapic));
    fx_kicked(f, 0);
    eoi(f);
    assert_int_equal(fx_kicked(f, 0), ATT_IRQ);
    assert_int_equal(lapic_ack(f->lapic), 0x31);
    assert_false(in_service(f, 0x41));
    fx_destroy(f);
}

/* 0x41 is interrupted by 0x61, which ends in memory; 0x41 then at the register. */
static void test_eoi_nested(void **state)
{
    struct fx *f = eoi_fixture();
    irq(f, 0x41, false);
    assert_int_equal(lapic_ack(f->lapic), 0x41);
    irq(f, 0x61, false);
    assert_int_equal(lapic_ack(f->lapic), 0x61);
    assert_int_equal(get8(f, EOI_BYTE), 1);
    put8(f, EOI_BYTE, 0);
    eoi(f);
    assert_false(in_service(f, 0x61));
    assert_false(in_service(f, 0x41));
    /* A guest that ends at the register with the bit still set ends one interrupt, not two. */
    irq(f, 0x41, false);
    assert_int_equal(lapic_ack(f->lapic), 0x41);
    irq(f, 0x61, false);
    assert_int_equal(lapic_ack(f->lapic), 0x61);
    eoi(f);
    assert_true(in_service(f, 0x41));
    assert_int_equal(get8(f, EOI_BYTE), 0);
    fx_destroy(f);
}

static void test_eoi_not_offered(void **state)
{
    struct fx *f = eoi_fixture();
    irq(f, 0x41, true); /* the I/O APIC must hear of its end */
    assert_int_equal(lapic_ack(f->lapic), 0x41);
    assert_int_equal(get8(f, EOI_BYTE), 0);
    eoi(f);
    assert_int_equal(f->eoi_count, 1);
    irq(f, 0x41, false);
    irq(f, 0x31, false); /* waits for the end of 0x41 */
    assert_int_equal(lapic_ack(f->lapic), 0x41);
    assert_int_equal(get8(f, EOI_BYTE), 0);
    eoi(f);
    assert_int_equal(lapic_ack(f->lapic), 0x31);
    assert_int_equal(get8(f, EOI_BYTE), 1);
    lapic_ops.pause(f->lapic); /* the whole truth is in the registers when state is saved */
    assert_int_equal(get8(f, EOI_BYTE), 0);
    assert_false(f->lapic->pv_eoi);
    assert_true(in_service(f, 0x31));
    eoi(f);
    assert_true(set(f->cpu, MSR_KVM_PV_EOI, 0));
    irq(f, 0x41, false);
    assert_int_equal(lapic_ack(f->lapic), 0x41);
    assert_int_equal(get8(f, EOI_BYTE), 0);
    fx_destroy(f);
}

/* --- hypercalls --- */

static int64_t call(struct fx *f, uint64_t nr, uint64_t b, uint64_t c, uint64_t d, uint64_t si)
{
    struct cpu *cpu = f->cpu;
    cpu->r[RAX] = nr;
    cpu->r[RBX] = b;
    cpu->r[RCX] = c;
    cpu->r[RDX] = d;
    cpu->r[RSI] = si;
    kvmpv_hypercall(cpu);
    return (int64_t)cpu->r[RAX];
}

static void test_calls(void **state)
{
    struct fx *f = fx_create(1, NULL);
    fx_long_mode(f, 0);
    assert_int_equal(call(f, HC_VAPIC_POLL_IRQ, 0, 0, 0, 0), 0);
    assert_int_equal(call(f, 0, 0, 0, 0, 0), -1000);
    assert_int_equal(call(f, 9, 0, 0, 0, 0), -1000);
    assert_int_equal(call(f, ~0ULL, 0, 0, 0, 0), -1000);
    assert_int_equal(call(f, HC_VAPIC_POLL_IRQ | 1ULL << 32, 0, 0, 0, 0), -1000);
    fx_set_cpl(f, 3);
    assert_int_equal(call(f, HC_VAPIC_POLL_IRQ, 0, 0, 0, 0), -1);
    fx_destroy(f);
    f = fx_create(1, NULL); /* real mode: 32 bits of everything */
    assert_int_equal(call(f, HC_VAPIC_POLL_IRQ | 1ULL << 32, 0, 0, 0, 0), 0);
    assert_int_equal(call(f, 0, 0, 0, 0, 0), (uint32_t)-1000);
    fx_destroy(f);
}

static void test_kick(void **state)
{
    struct fx *f = fx_create(2, NULL);
    fx_long_mode(f, 0);
    assert_false(kvmpv_take_kick(f->cpus[1]));
    assert_int_equal(call(f, HC_KICK_CPU, 0, 1, 0, 0), 0);
    assert_int_equal(fx_kicked(f, 0), 0);
    assert_int_equal(fx_kicked(f, 1), ATT_STEP);
    assert_true(kvmpv_take_kick(f->cpus[1]));
    assert_false(kvmpv_take_kick(f->cpus[1]));
    assert_int_equal(call(f, HC_KICK_CPU, 0, 2, 0, 0), 0); /* nobody */
    assert_int_equal(call(f, HC_KICK_CPU, 0, 1ULL << 32 | 1, 0, 0), 0);
    assert_int_equal(fx_kicked(f, 0) | fx_kicked(f, 1), 0);
    fx_destroy(f);
}

static bool requested(struct fx *f, unsigned cpu, unsigned v)
{
    bool r = f->lapic[cpu].irr[v / 32] >> (v % 32) & 1;
    f->lapic[cpu].irr[v / 32] = 0;
    return r;
}

static void test_send_ipi(void **state)
{
    struct fx *f = fx_create(4, NULL);
    fx_long_mode(f, 0);
    for (unsigned n = 0; n < 4; n++)
        lapic_mmio_write(&f->lapic[n], 0xf0, 0x1ff, 4);
    assert_int_equal(call(f, HC_SEND_IPI, 0xa, 0, 0, 0x41), 2);
    assert_false(requested(f, 0, 0x41));
    assert_true(requested(f, 1, 0x41));
    assert_false(requested(f, 2, 0x41));
    assert_true(requested(f, 3, 0x41));
    /* The set begins at ID 2; bits of IDs that do not exist count nothing. */
    assert_int_equal(call(f, HC_SEND_IPI, ~0ULL, ~0ULL, 2, 0x41), 2);
    assert_false(requested(f, 1, 0x41));
    assert_true(requested(f, 2, 0x41));
    assert_true(requested(f, 3, 0x41));
    assert_int_equal(call(f, HC_SEND_IPI, ~0ULL, ~0ULL, ~0ULL - 62, 0x41), 0);
    assert_int_equal(call(f, HC_SEND_IPI, 0, ~0ULL, 0, 0x41), 0);
    fx_kicked(f, 1);
    assert_int_equal(call(f, HC_SEND_IPI, 2, 0, 0, 4 << 8), 1);
    assert_int_equal(fx_kicked(f, 1), ATT_NMI);
    assert_int_equal(call(f, HC_SEND_IPI, 2, 0, 0, 5 << 8), -22);         /* INIT */
    assert_int_equal(call(f, HC_SEND_IPI, 2, 0, 0, 0x41 | 3 << 18), -22); /* shorthand */
    assert_int_equal(call(f, HC_SEND_IPI, 2, 0, 0, 0x41 | 1 << 11), -22); /* logical */
    assert_int_equal(fx_kicked(f, 1), 0);
    /* Outside 64-bit mode the words have 32 bits. */
    f->cpu->seg[SEG_CS].attr = (uint16_t)((f->cpu->seg[SEG_CS].attr & ~ATTR_L) | ATTR_DB);
    cpu_update_mode(f->cpu);
    assert_int_equal(call(f, HC_SEND_IPI, 0, 2, 0, 0x41), 0);
    assert_int_equal(call(f, HC_SEND_IPI, ~0ULL, 0, 3, 0x41), 1);
    fx_destroy(f);
}

/* --- addresses, life --- */

/* Everything at gpa, written and used. */
static void use_all(struct fx *f, uint64_t gpa)
{
    struct cpu *cpu = f->cpu;
    assert_true(set(cpu, MSR_KVM_WALL_CLOCK, gpa));
    assert_true(set(cpu, MSR_KVM_SYSTEM_TIME, gpa | 1));
    assert_true(set(cpu, MSR_KVM_STEAL_TIME, (gpa & ~0x3fULL) | 1));
    assert_true(set(cpu, MSR_KVM_PV_EOI, (gpa & ~3ULL) | 1));
    assert_true(set(cpu, MSR_TSC, 5));
    kvmpv_idle(cpu);
    kvmpv_busy(cpu);
    clock_advance(&f->clock, 2000000);
    kvmpv_tick(cpu);
    irq(f, 0x41, false);
    assert_int_equal(lapic_ack(f->lapic), 0x41);
    eoi(f);
    assert_false(in_service(f, 0x41));
}

static void test_addresses(void **state)
{
    static const uint64_t nowhere[] = { 0xfee00000, 0xd0000000, END, 0xfffffffffffffffcULL,
                                        1ULL << 46, 1ULL << 63 };
    struct fx *f = eoi_fixture();
    for (unsigned n = 0; n < ARRAY_LEN(nowhere); n++)
        use_all(f, nowhere[n]);
    use_all(f, ROM);
    assert_int_equal(fx_get(f, ROM) | fx_get(f, ROM + 8) | fx_get(f, ROM + 16), 0);
    /* A structure that sticks out of RAM is left alone as a whole. */
    assert_true(set(f->cpu, MSR_KVM_SYSTEM_TIME, (END - 16) | 1));
    assert_true(set(f->cpu, MSR_KVM_WALL_CLOCK, END - 8));
    assert_int_equal(fx_get(f, END - 16) | fx_get(f, END - 8), 0);
    use_all(f, END - 64);
    assert_int_equal(f->mmio_count, 0);
    fx_destroy(f);
}

/* What was shown before a reset stays as it is in memory, and nobody writes there again. */
static void test_reset(void **state)
{
    static const uint32_t msrs[] = { MSR_KVM_WALL_CLOCK, MSR_KVM_SYSTEM_TIME, MSR_KVM_STEAL_TIME,
                                     MSR_KVM_PV_EOI };
    for (unsigned init = 0; init < 2; init++) {
        struct fx *f = eoi_fixture();
        uint8_t before[256], after[256];
        use_all(f, AREA);
        irq(f, 0x41, false);
        assert_int_equal(lapic_ack(f->lapic), 0x41);
        call(f, HC_KICK_CPU, 0, 0, 0, 0);
        ram_read(&f->ram, AREA, before, sizeof(before));
        if (init) {
            cpu_init(f->cpu);
            lapic_reset_init(f->lapic);
        } else {
            cpu_reset(f->cpu);
            lapic_ops.reset(f->lapic);
        }
        kvmpv_idle(f->cpu);
        kvmpv_busy(f->cpu);
        kvmpv_tick(f->cpu);
        assert_true(set(f->cpu, MSR_TSC, 99));
        ram_read(&f->ram, AREA, after, sizeof(after));
        assert_memory_equal(before, after, sizeof(before));
        for (unsigned n = 0; n < ARRAY_LEN(msrs); n++)
            assert_int_equal(get(f->cpu, msrs[n]), 0);
        assert_false(kvmpv_take_kick(f->cpu));
        assert_false(f->lapic->pv_eoi);
        fx_destroy(f);
    }
}

static void test_state(void **state)
{
    struct fx *a = steal_fixture(), *b = steal_fixture();
    struct state_buf buf = { 0 };
    assert_true(set(a->cpu, MSR_KVM_SYSTEM_TIME, AREA + 129));
    pass(a, 4000000, 1000000);
    kvmpv_tick(a->cpu);
    call(a, HC_KICK_CPU, 0, 0, 0, 0);
    assert_int_equal(state_desc_check(&cpu_state_desc, NULL), 0);
    assert_int_equal(state_save(&buf, &cpu_state_desc, 0, a->cpu), 0);
    assert_int_equal(state_load(buf.data, buf.len, &cpu_state_desc, 0, b->cpu, NULL), 0);
    clock_set_ns(&b->clock, clock_ns(&a->clock));
    had_ns = 7; /* another process */
    kvmpv_loaded(b->cpu);
    assert_true(kvmpv_take_kick(b->cpu));
    assert_int_equal(fx_get(b, AREA + 128 + 8), fx_get(a, AREA + 128 + 8));
    assert_int_equal(fx_get(b, AREA + 128 + 24), fx_get(a, AREA + 128 + 24));
    kvmpv_tick(b->cpu);
    assert_int_equal(fx_get(b, AREA), 3000000); /* neither lost nor invented */
    state_buf_fini(&buf);
    fx_destroy(a);
    fx_destroy(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cpuid),
        cmocka_unit_test(test_scale),
        cmocka_unit_test(test_time),
        cmocka_unit_test(test_tsc_moves),
        cmocka_unit_test(test_slept),
        cmocka_unit_test(test_wall),
        cmocka_unit_test(test_steal),
        cmocka_unit_test(test_preempted),
        cmocka_unit_test(test_eoi_in_memory),
        cmocka_unit_test(test_eoi_at_register),
        cmocka_unit_test(test_eoi_nested),
        cmocka_unit_test(test_eoi_not_offered),
        cmocka_unit_test(test_calls),
        cmocka_unit_test(test_kick),
        cmocka_unit_test(test_send_ipi),
        cmocka_unit_test(test_addresses),
        cmocka_unit_test(test_reset),
        cmocka_unit_test(test_state),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
