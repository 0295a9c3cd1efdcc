/* The local APIC: acceptance, priorities, EOI, local vector table, destinations of messages, the timer's
 * modes under a clock moved by hand, x2APIC, state transitions, described state. */
#include "x86_fixture.h"

#include "state/state.h"

#define REG(r) ((uint64_t)(r) << 4)
enum {
    ID = 2,
    VER = 3,
    TPR = 8,
    PPR = 10,
    EOI = 11,
    LDR = 13,
    DFR = 14,
    SVR = 15,
    ISR = 16,
    TMR = 24,
    IRR = 32,
    ESR = 40,
    ICR = 48,
    ICR2 = 49,
    LTIMER = 50,
    LINT0 = 53,
    LINT1 = 54,
    LERR = 55,
    TICT = 56,
    TCCT = 57,
    TDCR = 62,
    SELF = 63
};

static uint32_t rd(struct fx *f, unsigned cpu, unsigned reg)
{
    return (uint32_t)lapic_mmio_read(&f->lapic[cpu], REG(reg), 4);
}
static void wr(struct fx *f, unsigned cpu, unsigned reg, uint32_t v)
{
    lapic_mmio_write(&f->lapic[cpu], REG(reg), v, 4);
}

static struct fx *lapic_fixture(unsigned cpus)
{
    struct fx *f = fx_create(cpus, NULL);
    for (unsigned n = 0; n < cpus; n++)
        wr(f, n, SVR, 0x1ff);
    return f;
}

static void fixed(struct fx *f, uint32_t dest, uint8_t vector, bool level)
{
    lapic_deliver(&f->bus,
                  &(struct apic_msg){ .dest = dest, .vector = vector, .level = level, .assert = true });
}

/* Move time and let the event loop run, which takes the lock itself. */
static void advance(struct fx *f, uint64_t ns)
{
    clock_advance(&f->clock, ns);
    loop_step(&f->loop, 0);
}

static bool in(struct fx *f, unsigned cpu, unsigned reg, unsigned v)
{
    return rd(f, cpu, reg + v / 32) >> (v % 32) & 1;
}

static void test_reset_values(void **state)
{
    struct fx *f = fx_create(2, NULL);
    assert_int_equal(rd(f, 1, ID), 1u << 24);
    assert_int_equal(rd(f, 0, VER), 0x50014);
    assert_int_equal(rd(f, 0, SVR), 0xff);
    assert_int_equal(rd(f, 0, DFR), 0xffffffff);
    for (unsigned n = LTIMER; n <= LERR; n++)
        assert_int_equal(rd(f, 0, n), 0x10000);
    assert_int_equal(f->cpus[0]->apic_base, 0xfee00900);
    assert_int_equal(f->cpus[1]->apic_base, 0xfee00800);
    /* Disabled by software: fixed interrupts are lost, mask bits stay. */
    fixed(f, 0, 0x40, false);
    assert_int_equal(lapic_ack(&f->lapic[0]), -1);
    wr(f, 0, LINT0, 0x31);
    assert_int_equal(rd(f, 0, LINT0), 0x10031);
    fx_destroy(f);
}

static void test_priorities(void **state)
{
    struct fx *f = lapic_fixture(1);
    struct lapic *l = &f->lapic[0];
    assert_false(lapic_pending(l));
    fixed(f, 0, 0x51, false);
    fixed(f, 0, 0x83, false);
    fixed(f, 0, 0x85, false);
    assert_int_equal(fx_kicked(f, 0), ATT_IRQ);
    assert_true(lapic_pending(l));
    assert_true(in(f, 0, IRR, 0x51));
    assert_int_equal(lapic_ack(l), 0x85);
    assert_false(in(f, 0, IRR, 0x85));
    assert_true(in(f, 0, ISR, 0x85));
    assert_int_equal(rd(f, 0, PPR), 0x80);
    assert_false(lapic_pending(l)); /* 0x83 has the same class */
    assert_int_equal(lapic_ack(l), -1);
    fixed(f, 0, 0x90, false);
    assert_int_equal(fx_kicked(f, 0), ATT_IRQ);
    assert_int_equal(lapic_ack(l), 0x90); /* nested */
    wr(f, 0, EOI, 0);
    assert_int_equal(rd(f, 0, PPR), 0x80);
    assert_false(lapic_pending(l));
    wr(f, 0, EOI, 0);
    assert_int_equal(fx_kicked(f, 0), ATT_IRQ);
    assert_int_equal(lapic_ack(l), 0x83);
    wr(f, 0, EOI, 0);
    wr(f, 0, TPR, 0x50);
    assert_int_equal(f->cpu->cr8, 5);
    assert_false(lapic_pending(l));
    fx_kicked(f, 0);
    lapic_cr8_write(l, 4);
    assert_int_equal(rd(f, 0, TPR), 0x40);
    assert_int_equal(fx_kicked(f, 0), ATT_IRQ);
    assert_int_equal(lapic_ack(l), 0x51);
    assert_int_equal(rd(f, 0, PPR), 0x50);
    wr(f, 0, EOI, 0);
    assert_int_equal(rd(f, 0, PPR), 0x40);
    assert_int_equal(f->eoi_count, 0);
    wr(f, 0, TPR, 0x47);
    assert_int_equal(rd(f, 0, PPR), 0x47); /* TPR[3:0] show when its class is the higher one */
    fx_destroy(f);
}

/* Every vector is accepted, and delivered highest first. */
static void test_all_vectors(void **state)
{
    struct fx *f = lapic_fixture(1);
    for (unsigned v = 16; v < 256; v++)
        fixed(f, 0, (uint8_t)v, false);
    for (int v = 255; v >= 16; v--) {
        assert_int_equal(lapic_ack(&f->lapic[0]), v);
        wr(f, 0, EOI, 0);
    }
    assert_int_equal(lapic_ack(&f->lapic[0]), -1);
    fx_destroy(f);
}

static void test_level(void **state)
{
    struct fx *f = lapic_fixture(1);
    fixed(f, 0, 0x61, true);
    assert_true(in(f, 0, TMR, 0x61));
    assert_int_equal(lapic_ack(&f->lapic[0]), 0x61);
    assert_int_equal(f->eoi_count, 0);
    wr(f, 0, EOI, 0);
    assert_int_equal(f->eoi_count, 1);
    assert_int_equal(f->eoi[0], 0x61);
    fixed(f, 0, 0x61, false); /* an edge clears TMR */
    lapic_ack(&f->lapic[0]);
    wr(f, 0, EOI, 0);
    assert_int_equal(f->eoi_count, 1);
    wr(f, 0, EOI, 0); /* nothing in service */
    assert_int_equal(f->eoi_count, 1);
    fx_destroy(f);
}

static void test_pic_and_nmi(void **state)
{
    struct fx *f = lapic_fixture(1);
    struct lapic *l = &f->lapic[0];
    lapic_set_lint0(l, 0, true);
    assert_false(lapic_accepts_pic(l));
    wr(f, 0, LINT0, 0x700);
    assert_true(lapic_accepts_pic(l));
    assert_int_equal(fx_kicked(f, 0), ATT_IRQ);
    lapic_pic_taken(l);
    assert_true(lapic_accepts_pic(l)); /* a level */
    lapic_set_lint0(l, 0, false);
    assert_false(lapic_accepts_pic(l));
    /* By message, as through an I/O APIC: until it is taken. */
    lapic_deliver(&f->bus, &(struct apic_msg){ .dest = 0, .delivery_mode = APIC_EXTINT, .assert = true });
    assert_true(lapic_accepts_pic(l));
    lapic_pic_taken(l);
    assert_false(lapic_accepts_pic(l));
    /* LINT0 as a fixed, level-triggered input: remote IRR, and again after EOI while the pin is high. */
    wr(f, 0, LINT0, 0x8045);
    lapic_set_lint0(l, 0, true);
    assert_int_equal(rd(f, 0, LINT0), 0xc045);
    assert_int_equal(lapic_ack(l), 0x45);
    wr(f, 0, EOI, 0);
    assert_int_equal(lapic_ack(l), 0x45);
    lapic_set_lint0(l, 0, false);
    wr(f, 0, EOI, 0);
    assert_int_equal(lapic_ack(l), -1);
    /* LINT1 */
    fx_kicked(f, 0);
    lapic_set_lint1(l, 0, true);
    assert_int_equal(fx_kicked(f, 0), 0);
    lapic_set_lint1(l, 0, false);
    wr(f, 0, LINT1, 0x400);
    lapic_set_lint1(l, 0, true);
    assert_int_equal(fx_kicked(f, 0), ATT_NMI);
    lapic_set_lint1(l, 0, true);
    assert_int_equal(fx_kicked(f, 0), 0); /* an edge */
    /* The APIC is off: the pins are INTR and NMI. */
    assert_true(lapic_base_write(l, 0xfee00100));
    lapic_set_lint0(l, 0, true);
    assert_true(lapic_accepts_pic(l));
    lapic_set_lint1(l, 0, false);
    fx_kicked(f, 0);
    lapic_set_lint1(l, 0, true);
    assert_int_equal(fx_kicked(f, 0), ATT_NMI);
    fx_destroy(f);
}

static void test_soft_disable(void **state)
{
    struct fx *f = lapic_fixture(1);
    wr(f, 0, LINT0, 0x700);
    wr(f, 0, LERR, 0x33);
    fixed(f, 0, 0x70, false);
    wr(f, 0, SVR, 0xff);
    assert_int_equal(rd(f, 0, LINT0), 0x10700);
    assert_int_equal(rd(f, 0, LERR), 0x10033);
    assert_false(lapic_pending(&f->lapic[0]));
    assert_true(in(f, 0, IRR, 0x70)); /* held, not lost */
    lapic_deliver(&f->bus, &(struct apic_msg){ .dest = 0, .delivery_mode = APIC_NMI, .assert = true });
    assert_true(fx_kicked(f, 0) & ATT_NMI);
    wr(f, 0, SVR, 0x1ff);
    assert_int_equal(lapic_ack(&f->lapic[0]), 0x70);
    assert_int_equal(rd(f, 0, LINT0), 0x10700);
    fx_destroy(f);
}

static void test_errors(void **state)
{
    struct fx *f = lapic_fixture(1);
    wr(f, 0, LERR, 0x33);
    wr(f, 0, ICR, 0x40005);             /* to itself, vector 5 */
    assert_int_equal(rd(f, 0, ESR), 0); /* shown only after a write */
    wr(f, 0, ESR, 0);
    assert_int_equal(rd(f, 0, ESR), 0x20);
    assert_int_equal(lapic_ack(&f->lapic[0]), 0x33);
    wr(f, 0, EOI, 0);
    fixed(f, 0, 4, false);
    assert_int_equal(lapic_ack(&f->lapic[0]), 0x33);
    wr(f, 0, EOI, 0);
    fixed(f, 0, 3, false);
    assert_int_equal(lapic_ack(&f->lapic[0]), -1); /* once until the ESR is written */
    wr(f, 0, 0x2e, 1);                             /* no such register */
    rd(f, 0, 0x3b);
    wr(f, 0, ESR, 0);
    assert_int_equal(rd(f, 0, ESR), 0xc0);
    wr(f, 0, ESR, 0);
    assert_int_equal(rd(f, 0, ESR), 0);
    wr(f, 0, LERR, 3); /* an illegal vector in the error entry itself: no recursion */
    fixed(f, 0, 3, false);
    wr(f, 0, ESR, 0);
    assert_int_equal(rd(f, 0, ESR), 0x40);
    fx_destroy(f);
}

/* Access shapes. */
static void test_access(void **state)
{
    struct fx *f = lapic_fixture(1);
    wr(f, 0, TPR, 0x12);
    assert_int_equal(lapic_mmio_read(&f->lapic[0], 0x81, 1), 0);
    assert_int_equal(lapic_mmio_read(&f->lapic[0], 0x80, 1), 0x12);
    assert_int_equal(lapic_mmio_read(&f->lapic[0], 0x32, 2), 0x5);
    assert_int_equal(lapic_mmio_read(&f->lapic[0], 0x84, 4), 0);
    lapic_mmio_write(&f->lapic[0], 0x84, 0x55, 4);
    lapic_mmio_write(&f->lapic[0], 0x80, 0x55, 1);
    assert_int_equal(rd(f, 0, TPR), 0x12);
    lapic_mmio_write(&f->lapic[0], 0x80, 0x5500000034, 8);
    assert_int_equal(rd(f, 0, TPR), 0x34);
    fx_destroy(f);
}

/* --- destinations --- */

/* Which CPUs hold vector v now? Takes it away. */
static unsigned got(struct fx *f, unsigned cpus, uint8_t v)
{
    unsigned set = 0;
    for (unsigned n = 0; n < cpus; n++)
        if (in(f, n, IRR, v)) {
            set |= 1u << n;
            assert_int_equal(lapic_ack(&f->lapic[n]), v);
            wr(f, n, EOI, 0);
        }
    return set;
}

static void ipi(struct fx *f, unsigned from, uint32_t dest, uint32_t icr)
{
    wr(f, from, ICR2, dest << 24);
    wr(f, from, ICR, icr);
}

static void test_physical(void **state)
{
    struct fx *f = lapic_fixture(4);
    for (unsigned n = 0; n < 4; n++) {
        ipi(f, 1, n, 0x4044);
        assert_int_equal(got(f, 4, 0x44), 1u << n);
    }
    ipi(f, 1, 9, 0x4044);
    assert_int_equal(got(f, 4, 0x44), 0);
    ipi(f, 1, 0xff, 0x4044);
    assert_int_equal(got(f, 4, 0x44), 15);
    ipi(f, 2, 3, 0x44044); /* shorthands: self, all, all but self; the destination does not matter */
    assert_int_equal(got(f, 4, 0x44), 4);
    ipi(f, 2, 3, 0x84044);
    assert_int_equal(got(f, 4, 0x44), 15);
    ipi(f, 2, 3, 0xc4044);
    assert_int_equal(got(f, 4, 0x44), 11);
    assert_int_equal(rd(f, 2, ICR), 0xc4044);
    assert_int_equal(rd(f, 2, ICR2), 3 << 24);
    fx_destroy(f);
}

static void test_logical(void **state)
{
    struct fx *f = lapic_fixture(4);
    for (unsigned n = 0; n < 4; n++)
        wr(f, n, LDR, 0x01000000u << n);
    ipi(f, 0, 0x0a, 0x4844);
    assert_int_equal(got(f, 4, 0x44), 10);
    ipi(f, 0, 0xff, 0x4844);
    assert_int_equal(got(f, 4, 0x44), 15);
    ipi(f, 0, 0xf0, 0x4844);
    assert_int_equal(got(f, 4, 0x44), 0);
    /* Cluster model: two clusters of two. */
    for (unsigned n = 0; n < 4; n++) {
        wr(f, n, DFR, 0x0fffffff);
        assert_int_equal(rd(f, n, DFR), 0x0fffffff);
        wr(f, n, LDR, (n / 2) << 28 | (1u << n % 2) << 24);
    }
    ipi(f, 0, 0x13, 0x4844);
    assert_int_equal(got(f, 4, 0x44), 12);
    ipi(f, 0, 0x02, 0x4844);
    assert_int_equal(got(f, 4, 0x44), 2);
    ipi(f, 0, 0xff, 0x4844);
    assert_int_equal(got(f, 4, 0x44), 15);
    fx_destroy(f);
}

static void test_lowest(void **state)
{
    struct fx *f = lapic_fixture(4);
    unsigned seen = 0;
    for (unsigned n = 0; n < 4; n++)
        wr(f, n, LDR, 0x01000000u << n);
    wr(f, 0, TPR, 0x20);
    wr(f, 2, TPR, 0x10);
    struct apic_msg m = {
        .dest = 0x7, .logical = true, .vector = 0x99, .delivery_mode = APIC_LOWEST, .assert = true
    };
    lapic_deliver(&f->bus, &m);
    assert_int_equal(got(f, 4, 0x99), 2); /* the only one with priority 0 */
    wr(f, 1, TPR, 0x30);
    lapic_deliver(&f->bus, &m);
    assert_int_equal(got(f, 4, 0x99), 4);
    for (unsigned n = 0; n < 4; n++)
        wr(f, n, TPR, 0);
    m.dest = 0xff;
    for (unsigned n = 0; n < 4; n++) {
        lapic_deliver(&f->bus, &m);
        unsigned set = got(f, 4, 0x99);
        assert_int_equal(__builtin_popcount(set), 1);
        seen |= set;
    }
    assert_int_equal(seen, 15); /* equals take turns */
    /* An MSI with the redirection hint is the same; a disabled APIC is not asked. */
    for (unsigned n = 0; n < 3; n++)
        wr(f, n, SVR, 0xff);
    m = apic_msg_from_msi(0xfee0f00c, 0x4099);
    assert_true(m.logical && m.redirection_hint);
    lapic_deliver(&f->bus, &m);
    assert_int_equal(got(f, 4, 0x99), 8);
    fx_destroy(f);
}

static void test_init_sipi(void **state)
{
    struct fx *f = lapic_fixture(3);
    ipi(f, 0, 1, 0xc500); /* INIT, level assert */
    assert_int_equal(fx_kicked(f, 1), ATT_INIT);
    ipi(f, 0, 1, 0x8500); /* de-assert */
    assert_int_equal(fx_kicked(f, 1), 0);
    ipi(f, 0, 1, 0x4500); /* edge */
    assert_int_equal(fx_kicked(f, 1), ATT_INIT);
    ipi(f, 0, 1, 0x4699);
    assert_int_equal(fx_kicked(f, 1), ATT_SIPI);
    assert_int_equal(f->cpus[1]->sipi_vector, 0x99);
    ipi(f, 0, 0, 0xc4400); /* NMI to all others */
    assert_int_equal(fx_kicked(f, 0), 0);
    assert_int_equal(fx_kicked(f, 1), ATT_NMI);
    assert_int_equal(fx_kicked(f, 2), ATT_NMI);
    ipi(f, 0, 1, 0x4200); /* SMI: nothing */
    assert_int_equal(fx_kicked(f, 1), 0);
    /* What INIT does to the APIC: all but the ID. */
    wr(f, 1, TPR, 0x70);
    wr(f, 1, LDR, 0x02000000);
    lapic_reset_init(&f->lapic[1]);
    assert_int_equal(rd(f, 1, TPR), 0);
    assert_int_equal(rd(f, 1, LDR), 0);
    assert_int_equal(rd(f, 1, SVR), 0xff);
    assert_int_equal(rd(f, 1, ID), 1 << 24);
    assert_int_equal(f->cpus[1]->cr8, 0);
    fx_destroy(f);
}

/* --- the timer --- */

static bool fired(struct fx *f, uint8_t v)
{
    bool yes = in(f, 0, IRR, v);
    while (lapic_ack(&f->lapic[0]) >= 0)
        wr(f, 0, EOI, 0);
    return yes;
}

static void test_oneshot(void **state)
{
    struct fx *f = lapic_fixture(1);
    static const struct {
        uint32_t tdcr;
        unsigned by;
    } div[] = { { 0xb, 1 }, { 0, 2 }, { 1, 4 }, { 2, 8 }, { 3, 16 }, { 8, 32 }, { 9, 64 }, { 10, 128 } };
    wr(f, 0, LTIMER, 0x40);
    for (unsigned n = 0; n < ARRAY_LEN(div); n++) {
        wr(f, 0, TDCR, div[n].tdcr);
        assert_int_equal(rd(f, 0, TDCR), div[n].tdcr);
        wr(f, 0, TICT, 1000);
        assert_int_equal(rd(f, 0, TCCT), 1000);
        advance(f, 400 * div[n].by);
        assert_int_equal(rd(f, 0, TCCT), 600);
        assert_false(fired(f, 0x40));
        advance(f, 600 * div[n].by - 1);
        assert_false(fired(f, 0x40));
        advance(f, 1);
        assert_int_equal(rd(f, 0, TCCT), 0);
        assert_true(fired(f, 0x40));
        advance(f, 10000 * div[n].by);
        assert_false(fired(f, 0x40)); /* once */
    }
    wr(f, 0, TDCR, 0xb);
    wr(f, 0, TICT, 1000);
    wr(f, 0, TICT, 0); /* stopped */
    advance(f, 5000);
    assert_false(fired(f, 0x40));
    wr(f, 0, LTIMER, 0x10040); /* masked: counts, but is not heard, also not later */
    wr(f, 0, TICT, 1000);
    advance(f, 1000);
    wr(f, 0, LTIMER, 0x40);
    advance(f, 1000);
    assert_false(fired(f, 0x40));
    fx_destroy(f);
}

static void test_periodic(void **state)
{
    struct fx *f = lapic_fixture(1);
    wr(f, 0, TDCR, 0xb);
    wr(f, 0, LTIMER, 0x20041);
    wr(f, 0, TICT, 1000000);
    for (unsigned n = 0; n < 10; n++) {
        advance(f, 999999);
        assert_int_equal(rd(f, 0, TCCT), 1);
        assert_false(fired(f, 0x41));
        advance(f, 1);
        assert_int_equal(rd(f, 0, TCCT), 1000000);
        assert_true(fired(f, 0x41));
    }
    /* Late: one interrupt for all that was missed, and no drift. */
    advance(f, 5300000);
    assert_true(fired(f, 0x41));
    assert_int_equal(rd(f, 0, TCCT), 700000);
    advance(f, 699999);
    assert_false(fired(f, 0x41));
    advance(f, 1);
    assert_true(fired(f, 0x41));
    /* Half way the divider doubles: the count goes on at half the rate. */
    advance(f, 500000);
    wr(f, 0, TDCR, 0);
    assert_int_equal(rd(f, 0, TCCT), 500000);
    advance(f, 999998);
    assert_int_equal(rd(f, 0, TCCT), 1);
    advance(f, 2);
    assert_true(fired(f, 0x41));
    /* To one-shot in the middle of a period: it ends there. */
    advance(f, 400000);
    wr(f, 0, LTIMER, 0x41);
    assert_int_equal(rd(f, 0, TCCT), 800000);
    advance(f, 1600000);
    assert_true(fired(f, 0x41));
    advance(f, 9000000);
    assert_false(fired(f, 0x41));
    fx_destroy(f);
}

/* A period of 10 ns costs no more than 20,000 callbacks a second. */
static void test_short_period(void **state)
{
    struct fx *f = lapic_fixture(1);
    unsigned heard = 0;
    wr(f, 0, TDCR, 0xb);
    wr(f, 0, LTIMER, 0x20041);
    wr(f, 0, TICT, 10);
    for (unsigned n = 0; n < 10000; n++) {
        advance(f, 1000);
        heard += fired(f, 0x41);
    }
    assert_in_range(heard, 190, 201);
    assert_in_range(rd(f, 0, TCCT), 1, 10);
    fx_destroy(f);
}

static void test_deadline(void **state)
{
    struct fx *f = lapic_fixture(1);
    struct lapic *l = &f->lapic[0];
    advance(f, 1000);
    lapic_deadline_write(l, 5000);
    assert_int_equal(lapic_deadline_read(l), 0); /* not in that mode */
    wr(f, 0, LTIMER, 0x40042);
    wr(f, 0, TICT, 1000);
    assert_int_equal(rd(f, 0, TCCT), 0);
    lapic_deadline_write(l, cpu_tsc(f->cpu) + 20001); /* 2 GHz: 10000.5 ns */
    advance(f, 10000);
    assert_false(fired(f, 0x42));
    assert_int_not_equal(lapic_deadline_read(l), 0);
    advance(f, 1);
    assert_true(fired(f, 0x42));
    assert_int_equal(lapic_deadline_read(l), 0);
    lapic_deadline_write(l, 1); /* long past: at once */
    assert_true(fired(f, 0x42));
    lapic_deadline_write(l, cpu_tsc(f->cpu) + 2000);
    lapic_deadline_write(l, 0); /* disarmed */
    advance(f, 5000);
    assert_false(fired(f, 0x42));
    lapic_deadline_write(l, ~0ULL);
    advance(f, 1ULL << 40);
    assert_false(fired(f, 0x42));
    /* The TSC jumps over the deadline. */
    f->cpu->tsc_offset = 0xffff000000000000ULL - cpu_tsc(f->cpu);
    lapic_deadline_write(l, 0xffffffffff000000ULL);
    f->cpu->tsc_offset += 0x0000ffffffff0000ULL;
    lapic_tsc_moved(l);
    assert_true(fired(f, 0x42));
    lapic_deadline_write(l, cpu_tsc(f->cpu) + 2000);
    wr(f, 0, LTIMER, 0x42); /* leaving the mode disarms */
    advance(f, 5000);
    assert_false(fired(f, 0x42));
    fx_destroy(f);
}

static void test_pause_and_state(void **state)
{
    struct fx *f = lapic_fixture(1);
    struct lapic *l = &f->lapic[0];
    struct state_buf buf = { 0 }, again = { 0 };
    wr(f, 0, TDCR, 0xb);
    wr(f, 0, LTIMER, 0x43);
    wr(f, 0, TICT, 1000);
    fixed(f, 0, 0x61, true);
    wr(f, 0, TPR, 0x20);
    advance(f, 300);
    lapic_ops.pause(l);
    clock_stop(&f->clock);
    assert_int_equal(state_desc_check(lapic_ops.state, NULL), 0);
    assert_int_equal(state_save(&buf, lapic_ops.state, 0, l), 0);
    lapic_ops.reset(l);
    assert_int_equal(rd(f, 0, TICT), 0);
    assert_int_equal(state_load(buf.data, buf.len, lapic_ops.state, 0, l, NULL), 0);
    assert_int_equal(state_save(&again, lapic_ops.state, 0, l), 0);
    assert_int_equal(buf.len, again.len);
    assert_memory_equal(buf.data, again.data, buf.len);
    advance(f, 100000); /* the clock stands still */
    clock_start(&f->clock);
    lapic_ops.resume(l);
    assert_int_equal(rd(f, 0, TCCT), 700);
    assert_int_equal(lapic_ack(l), 0x61);
    wr(f, 0, EOI, 0);
    assert_int_equal(f->eoi_count, 1);
    advance(f, 700);
    assert_true(fired(f, 0x43));
    state_buf_fini(&buf);
    state_buf_fini(&again);
    fx_destroy(f);
}

/* --- x2APIC --- */

static bool x2_ok(struct fx *f, unsigned reg, uint64_t v)
{
    return lapic_x2_write(&f->lapic[0], 0x800 + reg, v);
}

static void test_x2_registers(void **state)
{
    struct fx *f = lapic_fixture(2);
    uint64_t v;
    assert_false(lapic_x2_read(&f->lapic[1], 0x802, &v)); /* not in that mode */
    assert_true(lapic_base_write(&f->lapic[1], 0xfee00c00));
    assert_true(lapic_base_write(&f->lapic[0], 0xfee00d00));
    assert_true(lapic_x2_read(&f->lapic[1], 0x802, &v));
    assert_int_equal(v, 1);
    assert_true(lapic_x2_read(&f->lapic[1], 0x80d, &v));
    assert_int_equal(v, 2); /* cluster 0, bit 1 */
    static const struct {
        uint8_t first, last;
        bool r, w;
    } regs[] = { { ID, VER, 1, 0 },    { TPR, TPR, 1, 1 },     { PPR, PPR, 1, 0 },      { EOI, EOI, 0, 1 },
                 { LDR, LDR, 1, 0 },   { SVR, SVR, 1, 1 },     { ISR, ISR + 23, 1, 0 }, { ESR, ESR, 1, 1 },
                 { ICR, ICR, 1, 1 },   { LTIMER, LERR, 1, 1 }, { TICT, TICT, 1, 1 },    { TCCT, TCCT, 1, 0 },
                 { TDCR, TDCR, 1, 1 }, { SELF, SELF, 0, 1 } };
    for (unsigned reg = 0; reg < 256; reg++) {
        bool r = false, w = false;
        for (unsigned n = 0; n < ARRAY_LEN(regs); n++)
            if (reg >= regs[n].first && reg <= regs[n].last) {
                r = regs[n].r;
                w = regs[n].w;
            }
        assert_int_equal(lapic_x2_read(&f->lapic[0], 0x800 + reg, &v), r);
        assert_int_equal(x2_ok(f, reg, 0), w);
    }
    /* Reserved bits fault. */
    assert_false(x2_ok(f, TPR, 0x100));
    assert_false(x2_ok(f, EOI, 1));
    assert_false(x2_ok(f, ESR, 1));
    assert_false(x2_ok(f, SVR, 0x400));
    assert_false(x2_ok(f, LERR, 0x700));
    assert_false(x2_ok(f, TICT, 1ULL << 32));
    assert_false(x2_ok(f, TDCR, 4));
    assert_false(x2_ok(f, SELF, 0x100));
    assert_false(x2_ok(f, ICR, 1 << 12));
    fx_destroy(f);
}

static void test_x2_messages(void **state)
{
    struct fx *f = lapic_fixture(4);
    for (unsigned n = 0; n < 4; n++) {
        assert_true(lapic_base_write(&f->lapic[n], 0xfee00c00 | (n ? 0 : 0x100)));
        lapic_x2_write(&f->lapic[n], 0x80f, 0x1ff);
    }
#define GOT(v)                                                                                               \
    ({                                                                                                       \
        unsigned set_ = 0;                                                                                   \
        for (unsigned n_ = 0; n_ < 4; n_++)                                                                  \
            if (lapic_ack(&f->lapic[n_]) == (v)) {                                                           \
                set_ |= 1u << n_;                                                                            \
                lapic_x2_write(&f->lapic[n_], 0x80b, 0);                                                     \
            }                                                                                                \
        set_;                                                                                                \
    })
    assert_true(x2_ok(f, ICR, 2ULL << 32 | 0x4055));
    assert_int_equal(GOT(0x55), 4);
    assert_true(x2_ok(f, ICR, 0xffffffffULL << 32 | 0x4055));
    assert_int_equal(GOT(0x55), 15);
    assert_true(x2_ok(f, ICR, 0x0000000aULL << 32 | 0x4855)); /* logical: cluster 0 */
    assert_int_equal(GOT(0x55), 10);
    assert_true(x2_ok(f, ICR, 0x00010001ULL << 32 | 0x4855)); /* cluster 1: nobody */
    assert_int_equal(GOT(0x55), 0);
    assert_true(x2_ok(f, ICR, 0xffffffffULL << 32 | 0x4855));
    assert_int_equal(GOT(0x55), 15);
    assert_true(x2_ok(f, ICR, 0xc4055)); /* all but self */
    assert_int_equal(GOT(0x55), 14);
    assert_true(x2_ok(f, SELF, 0x56));
    assert_int_equal(GOT(0x56), 1);
    lapic_deliver(&f->bus,
                  &(struct apic_msg){ .dest = 3, .vector = 0x57, .assert = true }); /* 8 bits from a device */
    assert_int_equal(GOT(0x57), 8);
    fx_destroy(f);
}

/* IA32_APIC_BASE: from each state to each (SDM vol. 3, figure 11-27). */
static void test_transitions(void **state)
{
    static const uint64_t mode[3] = { 0, 0x800, 0xc00 }; /* off, xAPIC, x2APIC */
    static const bool legal[3][3] = { { 1, 1, 0 }, { 1, 1, 1 }, { 1, 0, 1 } };
    for (unsigned from = 0; from < 3; from++)
        for (unsigned to = 0; to < 3; to++) {
            struct fx *f = lapic_fixture(1);
            struct lapic *l = &f->lapic[0];
            if (from == 0)
                assert_true(lapic_base_write(l, 0xfee00000));
            if (from == 2)
                assert_true(lapic_base_write(l, 0xfee00c00));
            assert_int_equal(lapic_base_write(l, 0xfee00000 | mode[to]), legal[from][to]);
            assert_int_equal(f->cpu->apic_base & 0xc00, mode[legal[from][to] ? to : from]);
            assert_false(lapic_base_write(l, 0xfee00400)); /* x2APIC without enable */
            assert_false(lapic_base_write(l, 0xfee00800 | 1));
            assert_false(lapic_base_write(l, 0xfee00800 | 1ULL << 60));
            fx_destroy(f);
        }
    struct fx *f = lapic_fixture(1);
    wr(f, 0, TPR, 0x30);
    assert_true(lapic_base_write(&f->lapic[0], 0xfee00000));
    assert_true(lapic_base_write(&f->lapic[0], 0xfee00800)); /* off and on again: as after reset */
    assert_int_equal(rd(f, 0, TPR), 0);
    assert_int_equal(rd(f, 0, SVR), 0xff);
    fx_destroy(f);
}

static void test_virtual_wire(void **state)
{
    struct fx *f = fx_create(1, NULL);
    lapic_virtual_wire(&f->lapic[0]);
    lapic_set_lint0(&f->lapic[0], 0, true);
    assert_true(lapic_accepts_pic(&f->lapic[0]));
    fx_kicked(f, 0);
    lapic_set_lint1(&f->lapic[0], 0, true);
    assert_int_equal(fx_kicked(f, 0), ATT_NMI);
    fx_destroy(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reset_values),    cmocka_unit_test(test_priorities),
        cmocka_unit_test(test_all_vectors),     cmocka_unit_test(test_level),
        cmocka_unit_test(test_pic_and_nmi),     cmocka_unit_test(test_soft_disable),
        cmocka_unit_test(test_errors),          cmocka_unit_test(test_access),
        cmocka_unit_test(test_physical),        cmocka_unit_test(test_logical),
        cmocka_unit_test(test_lowest),          cmocka_unit_test(test_init_sipi),
        cmocka_unit_test(test_oneshot),         cmocka_unit_test(test_periodic),
        cmocka_unit_test(test_short_period),    cmocka_unit_test(test_deadline),
        cmocka_unit_test(test_pause_and_state), cmocka_unit_test(test_x2_registers),
        cmocka_unit_test(test_x2_messages),     cmocka_unit_test(test_transitions),
        cmocka_unit_test(test_virtual_wire),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
