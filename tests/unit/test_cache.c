/* The interpreter's decoded code, two vCPUs, by direct calls: which blocks go when code is written to. */
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/loop.h"
#include "engine/interp/interp.h"
#include "ram/ram.h"
#include "x86/cpuid.h"
#include "x86/lapic.h"
#include "x86/mmu.h"

#define HERE  0x2000u /* two pages of code in real mode, each begins with NOP; HLT */
#define THERE 0x3000u
#define ACROSS 0x2fffu /* MOV EAX, imm32 in 64-bit code */
#define TABLES 0x8000u

static struct {
    struct ram ram;
    struct loop loop;
    struct clock clock;
    struct engine engine;
    struct vcpu *vcpu[2];
    struct lapic lapic[2];
    struct lapic_bus bus;
    struct cpuid_table cpuid;
} m;

static void machine_kick(void *opaque, unsigned index, uint32_t attention) { vcpu_kick(m.vcpu[index], attention); }

static void machine_add(unsigned n)
{
    static const struct cpu_ops ops;
    struct err err = { "" };
    struct cpu *c;

    m.vcpu[n] = aligned_alloc(64, ALIGN_UP(sizeof(struct vcpu), 64));
    assert_non_null(m.vcpu[n]);
    memset(m.vcpu[n], 0, sizeof(struct vcpu));
    c = &m.vcpu[n]->cpu;
    c->index = c->apic_id = n;
    c->ops = &ops;
    c->ram = &m.ram;
    c->loop = &m.loop;
    c->clock = &m.clock;
    c->cpuid = &m.cpuid;
    assert_int_equal(lapic_init(&m.lapic[n], c, &m.bus), 0);
    assert_int_equal(engine_add_vcpu(&m.engine, m.vcpu[n], &err), 0);
    cpu_reset(c);
    c->seg[SEG_CS].base = 0;
    cpu_update_mode(c);
}

static int machine_make(void **state)
{
    static const uint8_t code[] = { 0x90, 0xf4 };
    struct err err = { "" };

    memset(&m, 0, sizeof(m));
    assert_int_equal(cpuid_build(&m.cpuid, "host", 2, 1000000, &err), 0);
    clock_init_host(&m.clock);
    loop_init(&m.loop, &m.clock);
    ram_init(&m.ram);
    ram_add_slot(&m.ram, 0, 0x10000, false);
    ram_write(&m.ram, HERE, code, sizeof(code));
    ram_write(&m.ram, THERE, code, sizeof(code));
    m.bus.kick = machine_kick;
    assert_int_equal(engine_init(&m.engine, &engine_interp, &m.ram, &err), 0);
    machine_add(0);
    machine_add(1);
    return 0;
}

static int machine_end(void **state)
{
    engine_fini(&m.engine);
    ram_fini(&m.ram);
    loop_fini(&m.loop);
    free(m.vcpu[0]);
    free(m.vcpu[1]);
    return 0;
}

/* vCPU 0's block at rip, as its loop finds it. */
static struct block *block_at(uint64_t rip)
{
    struct cpu *c = &m.vcpu[0]->cpu;
    struct block *b;

    c->r[R_RIP] = rip;
    quiesce_enter(m.vcpu[0]);
    b = cache_lookup(c->engine, c);
    quiesce_leave(m.vcpu[0]);
    assert_non_null(b);
    return b;
}

/* vCPU 1 writes a byte, while vCPU 0 stands. */
static void write_code(uint64_t gpa)
{
    quiesce_enter(m.vcpu[1]);
    cache_code_write(&m.vcpu[1]->cpu, gpa, 1);
    quiesce_leave(m.vcpu[1]);
}

/* A block that has just run is still `current` while the next one is looked for, in a page that another vCPU writes to meanwhile: it stays what
 * it is. (It became one that only leaves itself, and was found again each time: its vCPU went round for good.) */
static void write_to_the_next_page(void **state)
{
    struct interp *it = m.vcpu[0]->cpu.engine;
    struct block *here, *there;
    insn_fn *fn;

    here = block_at(HERE);
    fn = here->insn[0].fn;
    it->current = here;
    there = block_at(THERE);
    write_code(THERE);
    assert_ptr_equal(here->insn[0].fn, fn);
    assert_ptr_equal(cache_peek(it, here->page, 0), here);
    assert_null(cache_peek(it, there->page, 0));
}

/* The one that runs is written to: what is left of it must not run. */
static void write_to_what_runs(void **state)
{
    struct interp *it = m.vcpu[0]->cpu.engine;
    struct block *here;
    insn_fn *fn;

    here = block_at(HERE);
    fn = here->insn[1].fn;
    it->current = here;
    write_code(HERE + 1);
    assert_ptr_not_equal(here->insn[1].fn, fn);
    assert_null(cache_peek(it, here->page, 0));
}

/* 64-bit code; the first 2 MiB are mapped to themselves. */
static void long_mode(struct cpu *c)
{
    static const uint64_t entry[] = { (TABLES + 0x1000) | 7, (TABLES + 0x2000) | 7, 0x87 };

    for (unsigned n = 0; n < 3; n++)
        ram_write(&m.ram, TABLES + 0x1000 * n, &entry[n], 8);
    c->cr0 |= CR0_PE | CR0_PG;
    c->cr3 = TABLES;
    c->cr4 |= CR4_PAE;
    c->efer |= EFER_LME | EFER_LMA;
    c->seg[SEG_CS].attr = ATTR_P | ATTR_S | 0xb | ATTR_G | ATTR_L;
    c->seg[SEG_CS].limit = 0xffffffff;
    cpu_update_mode(c);
    mmu_flush_all(c);
}

static void *write_soon(void *arg)
{
    write_code(ACROSS);
    return arg;
}

/* An instruction across two pages is decoded; while its second page is marked, another vCPU writes to the first. Whatever is kept of it then goes when
 * that is written to again. (It stayed, and old code ran.) */
static void write_while_marking(void **state)
{
    struct interp *it = m.vcpu[0]->cpu.engine;
    struct cpu *c = &m.vcpu[0]->cpu;
    const uint8_t op = 0xb8;
    struct code_page *page;
    pthread_t other;

    ram_write(&m.ram, ACROSS, &op, 1);
    long_mode(c);
    page = block_at(ACROSS - 0x10)->page; /* all of it is marked; zeros are ADDs */
    quiesce_enter(m.vcpu[0]);
    assert_int_equal(pthread_create(&other, NULL, write_soon, NULL), 0);
    while (!__atomic_load_n(&m.engine.quiesce.owner, __ATOMIC_ACQUIRE))
        sched_yield();
    c->r[R_RIP] = ACROSS;
    cache_lookup(it, c); /* stands meanwhile */
    quiesce_leave(m.vcpu[0]);
    pthread_join(other, NULL);
    write_code(ACROSS);
    assert_null(cache_peek(it, page, ACROSS & 0xfff));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(write_to_the_next_page, machine_make, machine_end),
        cmocka_unit_test_setup_teardown(write_to_what_runs, machine_make, machine_end),
        cmocka_unit_test_setup_teardown(write_while_marking, machine_make, machine_end),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
