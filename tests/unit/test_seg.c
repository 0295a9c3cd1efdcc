/* Segmentation, far transfers, interrupts and tasks by direct calls on a CPU without a machine. */
#include "test.h"

#include "seg_fake.h"

#define ASSERT_RAISES(f, want, stmt) assert_int_equal(RAISED(f, stmt), want)

static void test_unpack(void **state)
{
    struct seg s;
    seg_unpack(&s, 0x18, 0x12cf9a345678abcdULL);
    assert_int_equal(s.sel, 0x18);
    assert_int_equal(s.base, 0x12345678);
    assert_int_equal(s.limit, 0xfabcdfff);
    assert_int_equal(s.attr, 0xc9a);
    seg_unpack(&s, 0, 0x004092000000ffffULL);
    assert_int_equal(s.limit, 0xffff);
}

static void test_seg_load(void **state)
{
    static const struct {
        uint8_t cpl, reg;
        uint16_t sel;
        int want;
    } rows[] = {
        { 0, SEG_DS, S_DATA0, NOTHING },
        { 0, SEG_DS, 0, NOTHING },
        { 0, SEG_DS, 3, NOTHING },
        { 0, SEG_DS, S_DATA0 | 3, FAULT(VEC_GP, S_DATA0) },
        { 3, SEG_DS, S_DATA0, FAULT(VEC_GP, S_DATA0) },
        { 3, SEG_ES, S_DATA3, NOTHING },
        { 3, SEG_FS, S_CONF | 3, NOTHING },
        { 0, SEG_GS, S_CODE0, NOTHING },
        { 0, SEG_DS, S_EXEC, FAULT(VEC_GP, S_EXEC) },
        { 0, SEG_DS, S_RDONLY, NOTHING },
        { 0, SEG_DS, S_ABSENT, FAULT(VEC_NP, S_ABSENT) },
        { 0, SEG_DS, S_TSS, FAULT(VEC_GP, S_TSS) },
        { 0, SEG_DS, 0x100, FAULT(VEC_GP, 0x100) },
        { 0, SEG_DS, 0xf8, FAULT(VEC_GP, 0xf8) },
        { 0, SEG_DS, 0x0c, FAULT(VEC_GP, 0x0c) }, /* no LDT */
        { 0, SEG_SS, S_DATA0, NOTHING },
        { 0, SEG_SS, 0, FAULT(VEC_GP, 0) },
        { 0, SEG_SS, S_DATA3, FAULT(VEC_GP, S_DATA3 & ~3) },
        { 0, SEG_SS, S_RDONLY, FAULT(VEC_GP, S_RDONLY) },
        { 0, SEG_SS, S_CODE0, FAULT(VEC_GP, S_CODE0) },
        { 0, SEG_SS, S_ABSENT, FAULT(VEC_SS, S_ABSENT) },
        { 0, SEG_SS, S_DATA0 | 3, FAULT(VEC_GP, S_DATA0) },
    };
    for (volatile unsigned n = 0; n < ARRAY_LEN(rows); n++) {
        struct fake *f = fake_create(rows[n].cpl);
        struct seg before = f->cpu.seg[rows[n].reg];
        int got = RAISED(f, seg_load(&f->cpu, rows[n].reg, rows[n].sel));
        if (got != rows[n].want)
            fail_msg("row %u: %x, not %x", n, got, rows[n].want);
        if (got == NOTHING)
            assert_int_equal(f->cpu.seg[rows[n].reg].sel, rows[n].sel);
        else
            assert_memory_equal(&before, &f->cpu.seg[rows[n].reg], sizeof(before));
        fake_destroy(f);
    }
}

static void test_seg_load_effects(void **state)
{
    struct fake *f = fake_create(0);
    assert_int_equal(fake_ld(f, AT_GDT + S_RDONLY + 5, 1), 0x90);
    ASSERT_RAISES(f, NOTHING, seg_load(&f->cpu, SEG_DS, S_RDONLY));
    assert_int_equal(fake_ld(f, AT_GDT + S_RDONLY + 5, 1), 0x91); /* accessed */
    ASSERT_RAISES(f, NOTHING, seg_load_ldtr(&f->cpu, S_LDT));
    ASSERT_RAISES(f, NOTHING, seg_load(&f->cpu, SEG_ES, 0x0c));
    assert_int_equal(f->cpu.seg[SEG_ES].base, 0x1234);
    ASSERT_RAISES(f, FAULT(VEC_GP, 0x14), seg_load(&f->cpu, SEG_ES, 0x14));
    ASSERT_RAISES(f, FAULT(VEC_GP, S_TSS), seg_load_tr(&f->cpu, S_TSS)); /* busy by now */
    assert_int_equal(fake_ld(f, AT_GDT + S_TSS + 5, 1), 0x8b);
    ASSERT_RAISES(f, FAULT(VEC_GP, 0), seg_load_tr(&f->cpu, 0));
    ASSERT_RAISES(f, FAULT(VEC_GP, S_DATA0), seg_load_ldtr(&f->cpu, S_DATA0));
    fake_real(f);
    f->cpu.seg[SEG_DS].limit = 0xffffffff; /* "unreal" */
    ASSERT_RAISES(f, NOTHING, seg_load(&f->cpu, SEG_DS, 0xf00d));
    assert_int_equal(f->cpu.seg[SEG_DS].base, 0xf00d0);
    assert_int_equal(f->cpu.seg[SEG_DS].limit, 0xffffffff);
    fake_destroy(f);
}

static void test_limits(void **state)
{
    static const struct {
        uint16_t sel;
        uint32_t off;
        unsigned size;
        enum mmu_access acc;
        bool ok;
    } rows[] = {
        { S_DATA0, 0xfffffffc, 4, ACC_READ, true },
        { S_DATA16, 0xfffe, 2, ACC_WRITE, true },
        { S_DATA16, 0xffff, 2, ACC_WRITE, false },
        { S_DATA16, 0x10000, 1, ACC_READ, false },
        { S_RDONLY, 0, 1, ACC_READ, true },
        { S_RDONLY, 0, 1, ACC_WRITE, false },
        { S_CODE0, 0, 4, ACC_READ, true },
        { S_CODE0, 0, 4, ACC_WRITE, false },
        { S_DOWN, 0xfff, 1, ACC_READ, false },
        { S_DOWN, 0x1000, 1, ACC_READ, true },
        { S_DOWN, 0xffffffff, 1, ACC_WRITE, true },
        { S_DOWN, 0xffffffff, 2, ACC_WRITE, false },
        { 0, 0, 1, ACC_READ, false },
    };
    struct fake *f = fake_create(0);
    for (volatile unsigned n = 0; n < ARRAY_LEN(rows); n++) {
        volatile uint64_t lin = 0;
        ASSERT_RAISES(f, NOTHING, seg_load(&f->cpu, SEG_ES, rows[n].sel));
        int got = RAISED(f, lin = seg_lin(&f->cpu, SEG_ES, rows[n].off, rows[n].size, rows[n].acc));
        if (got != (rows[n].ok ? NOTHING : FAULT(VEC_GP, 0)))
            fail_msg("row %u: %x", n, got);
        if (rows[n].ok)
            assert_int_equal(lin, (uint32_t)(f->cpu.seg[SEG_ES].base + rows[n].off));
    }
    f->cpu.seg[SEG_SS].limit = 0x7fff;
    ASSERT_RAISES(f, FAULT(VEC_SS, 0), seg_lin(&f->cpu, SEG_SS, 0x7fff, 2, ACC_READ));
    ASSERT_RAISES(f, FAULT(VEC_SS, 0), (f->cpu.r[RSP] = 0x9000, cpu_push(&f->cpu, 1, 4)));
    assert_int_equal(f->cpu.r[RSP], 0x9000);
    fake_destroy(f);
}

static void test_push_pop(void **state)
{
    struct fake *f = fake_create(0);
    f->cpu.r[RSP] = 0x7000;
    ASSERT_RAISES(f, NOTHING, cpu_push(&f->cpu, 0x1122334455667788, 4));
    assert_int_equal(fake_ld(f, 0x6ffc, 4), 0x55667788);
    assert_int_equal(f->cpu.r[RSP], 0x6ffc);
    ASSERT_RAISES(f, NOTHING, seg_load(&f->cpu, SEG_SS, S_DATA16));
    f->cpu.r[RSP] = 0xabcd0000; /* a 16-bit stack wraps, and leaves the upper half alone */
    ASSERT_RAISES(f, NOTHING, cpu_push(&f->cpu, 0x4321, 2));
    assert_int_equal(f->cpu.r[RSP], 0xabcdfffe);
    assert_int_equal(fake_ld(f, 0x2fffe, 2), 0x4321);
    volatile uint64_t v = 0;
    ASSERT_RAISES(f, NOTHING, v = cpu_pop(&f->cpu, 2));
    assert_int_equal(v, 0x4321);
    assert_int_equal(f->cpu.r[RSP], 0xabcd0000);
    fake_destroy(f);
}

static void test_far_jump(void **state)
{
    static const struct {
        uint8_t cpl;
        uint16_t sel;
        uint32_t off;
        int want;
    } rows[] = {
        { 0, S_CODE0, 0x1234, NOTHING },
        { 0, S_CODE16, 0x10000, FAULT(VEC_GP, 0) },
        { 0, 0, 0, FAULT(VEC_GP, 0) },
        { 0, S_CODE3, 0, FAULT(VEC_GP, S_CODE3 & ~3) },
        { 3, S_CODE0, 0, FAULT(VEC_GP, S_CODE0) },
        { 3, S_CONF, 0x10, NOTHING },
        { 0, S_DATA0, 0, FAULT(VEC_GP, S_DATA0) },
        { 0, S_CODE_ABSENT, 0, FAULT(VEC_NP, S_CODE_ABSENT) },
        { 0, S_LDT, 0, FAULT(VEC_GP, S_LDT) },
        { 3, S_GATE32, 0, FAULT(VEC_GP, S_CODE0) },
        { 0, S_GATE32, 0, NOTHING },
        { 0, 0x7f8, 0, FAULT(VEC_GP, 0x7f8) },
    };
    for (volatile unsigned n = 0; n < ARRAY_LEN(rows); n++) {
        struct fake *f = fake_create(rows[n].cpl);
        int got = RAISED(f, far_jump(&f->cpu, rows[n].sel, rows[n].off, 4));
        if (got != rows[n].want)
            fail_msg("row %u: %x, not %x", n, got, rows[n].want);
        if (got == NOTHING && rows[n].sel != S_GATE32) {
            assert_int_equal(f->cpu.seg[SEG_CS].sel, (rows[n].sel & ~3u) | rows[n].cpl);
            assert_int_equal(f->cpu.r[R_RIP], rows[n].off);
            assert_int_equal(f->cpu.cpl, rows[n].cpl);
        }
        fake_destroy(f);
    }
}

static void test_call_gate(void **state)
{
    struct fake *f = fake_create(3);
    fake_st(f, AT_STACK3, 0x11111111, 4);
    fake_st(f, AT_STACK3 + 4, 0x22222222, 4);
    ASSERT_RAISES(f, NOTHING, far_call(&f->cpu, S_GATE32 | 3, 0xdead, 4));
    static const uint32_t frame[] = { 0x600, S_CODE3, 0x11111111, 0x22222222, AT_STACK3, S_DATA3 };
    assert_int_equal(f->cpu.r[RSP], AT_STACK0 - sizeof(frame));
    for (unsigned n = 0; n < ARRAY_LEN(frame); n++)
        assert_int_equal(fake_ld(f, f->cpu.r[RSP] + 4 * n, 4), frame[n]);
    assert_int_equal(f->cpu.cpl, 0);
    assert_int_equal(f->cpu.seg[SEG_CS].sel, S_CODE0);
    assert_int_equal(f->cpu.seg[SEG_SS].sel, S_DATA0);
    assert_int_equal(f->cpu.r[R_RIP], 0x4000);
    ASSERT_RAISES(f, NOTHING, seg_load(&f->cpu, SEG_ES, S_DATA0));
    ASSERT_RAISES(f, NOTHING, far_ret(&f->cpu, 4, 8)); /* drops the parameters on both stacks */
    assert_int_equal(f->cpu.cpl, 3);
    assert_int_equal(f->cpu.r[RSP], AT_STACK3 + 8);
    assert_int_equal(f->cpu.r[R_RIP], 0x600);
    assert_int_equal(f->cpu.seg[SEG_ES].sel, 0); /* an inner level's segment is taken away */
    assert_int_equal(f->cpu.seg[SEG_DS].sel, S_DATA3);
    fake_destroy(f);
}

static void test_call_gate_faults(void **state)
{
    struct fake *f = fake_create(3);
    fake_st(f, AT_TSS + 8, 0, 2);
    ASSERT_RAISES(f, FAULT(VEC_TS, 0), far_call(&f->cpu, S_GATE32, 0, 4));
    fake_st(f, AT_TSS + 8, S_DATA3, 2);
    ASSERT_RAISES(f, FAULT(VEC_TS, S_DATA3 & ~3), far_call(&f->cpu, S_GATE32, 0, 4));
    fake_st(f, AT_TSS + 8, S_ABSENT, 2);
    ASSERT_RAISES(f, FAULT(VEC_SS, S_ABSENT), far_call(&f->cpu, S_GATE32, 0, 4));
    fake_st(f, AT_TSS + 8, S_DATA0, 2);
    f->cpu.tr.limit = 8;
    ASSERT_RAISES(f, FAULT(VEC_TS, S_TSS), far_call(&f->cpu, S_GATE32, 0, 4));
    f->cpu.tr.limit = 0x67;
    fake_gate(f, AT_GDT + S_GATE32, S_CODE0, 0x4000, 0x8c, 0);
    ASSERT_RAISES(f, FAULT(VEC_GP, S_GATE32), far_call(&f->cpu, S_GATE32, 0, 4)); /* DPL 0 */
    fake_gate(f, AT_GDT + S_GATE32, S_CODE0, 0x4000, 0x6c, 0);
    ASSERT_RAISES(f, FAULT(VEC_NP, S_GATE32), far_call(&f->cpu, S_GATE32, 0, 4));
    fake_gate(f, AT_GDT + S_GATE32, 0, 0x4000, 0xec, 0);
    ASSERT_RAISES(f, FAULT(VEC_GP, 0), far_call(&f->cpu, S_GATE32, 0, 4));
    assert_int_equal(f->cpu.cpl, 3);
    assert_int_equal(f->cpu.r[RSP], AT_STACK3);
    assert_int_equal(f->cpu.r[R_RIP], 0x600);
    fake_destroy(f);
}

static void test_gate16_and_64(void **state)
{
    struct fake *f = fake_create(3);
    fake_st(f, AT_STACK3, 0x7777, 2);
    ASSERT_RAISES(f, NOTHING, far_call(&f->cpu, S_GATE16, 0, 4));
    static const uint16_t frame[] = { 0x600, S_CODE3, 0x7777, AT_STACK3, S_DATA3 };
    for (unsigned n = 0; n < ARRAY_LEN(frame); n++)
        assert_int_equal(fake_ld(f, AT_STACK0 - sizeof(frame) + 2 * n, 2), frame[n]);
    assert_int_equal(f->cpu.r[R_RIP], 0x4000);
    assert_int_equal(f->cpu.code_size, 2);
    fake_destroy(f);

    f = fake_create(3);
    fake_long(f, 3);
    f->cpu.r[RSP] = AT_STACK3;
    ASSERT_RAISES(f, FAULT(VEC_GP, S_GATE16), far_call(&f->cpu, S_GATE16, 0, 4));
    ASSERT_RAISES(f, NOTHING, far_call(&f->cpu, S_GATE64, 0, 4));
    assert_int_equal(f->cpu.r[R_RIP], 0x7fff00004000);
    assert_int_equal(f->cpu.r[RSP], AT_STACK0 - 32);
    assert_int_equal(f->cpu.seg[SEG_SS].sel, 0);
    assert_int_equal(f->cpu.cpl, 0);
    static const uint64_t wide[] = { 0x600, S_CODE64_3, AT_STACK3, S_DATA64_3 };
    for (unsigned n = 0; n < ARRAY_LEN(wide); n++)
        assert_int_equal(fake_ld(f, AT_STACK0 - 32 + 8 * n, 8), wide[n]);
    ASSERT_RAISES(f, NOTHING, far_ret(&f->cpu, 8, 0));
    assert_int_equal(f->cpu.cpl, 3);
    assert_int_equal(f->cpu.r[RSP], AT_STACK3);
    fake_destroy(f);
}

static void push_frame(struct fake *f, unsigned n, const uint32_t *v)
{
    f->cpu.r[RSP] -= 4 * n;
    for (unsigned k = 0; k < n; k++)
        fake_st(f, f->cpu.r[RSP] + 4 * k, v[k], 4);
}

static void test_iret(void **state)
{
    struct fake *f = fake_create(0);
    f->cpu.nmi_blocked = true;
    push_frame(f, 5,
               (uint32_t[]){ 0x700, S_CODE3, FL_IF | FL_IOPL | FL_CF | FL_RF | FL_VIP, 0x9000, S_DATA3 });
    ASSERT_RAISES(f, NOTHING, cpu_iret(&f->cpu, 4));
    assert_int_equal(f->cpu.cpl, 3);
    assert_int_equal(f->cpu.r[RSP], 0x9000);
    assert_int_equal(f->cpu.r[R_RIP], 0x700);
    assert_int_equal(cpu_rflags(&f->cpu), FL_ONE | FL_IF | FL_IOPL | FL_CF | FL_RF | FL_VIP);
    assert_int_equal(f->cpu.seg[SEG_DS].sel, 0);
    assert_false(f->cpu.nmi_blocked);
    /* At level 3 with IOPL 0: neither IF nor IOPL nor VIP move. */
    cpu_set_rflags(&f->cpu, FL_IF);
    f->cpu.r[RSP] = AT_STACK3;
    push_frame(f, 3, (uint32_t[]){ 0x800, S_CODE3, FL_IOPL | FL_VIP | FL_AC });
    ASSERT_RAISES(f, NOTHING, cpu_iret(&f->cpu, 4));
    assert_int_equal(cpu_rflags(&f->cpu), FL_ONE | FL_IF | FL_AC);
    push_frame(f, 3, (uint32_t[]){ 0x800, S_CODE0, 0 }); /* inwards */
    ASSERT_RAISES(f, FAULT(VEC_GP, S_CODE0), cpu_iret(&f->cpu, 4));
    fake_destroy(f);
}

static void test_iret_faults(void **state)
{
    static const struct {
        uint32_t cs, ss;
        int want;
    } rows[] = {
        { 0, S_DATA3, FAULT(VEC_GP, 0) },
        { S_DATA0, S_DATA3, FAULT(VEC_GP, S_DATA0) },
        { S_CODE3 & ~3, S_DATA3, FAULT(VEC_GP, S_CODE3 & ~3) },
        { S_CODE_ABSENT, 0, FAULT(VEC_NP, S_CODE_ABSENT) },
        { S_CODE3, 0, FAULT(VEC_GP, 0) },
        { S_CODE3, S_DATA0, FAULT(VEC_GP, S_DATA0) },
        { S_CODE3, S_CODE3, FAULT(VEC_GP, S_CODE3 & ~3) },
    };
    for (volatile unsigned n = 0; n < ARRAY_LEN(rows); n++) {
        struct fake *f = fake_create(0);
        push_frame(f, 5, (uint32_t[]){ 0x700, rows[n].cs, 0, 0x9000, rows[n].ss });
        int got = RAISED(f, cpu_iret(&f->cpu, 4));
        if (got != rows[n].want)
            fail_msg("row %u: %x, not %x", n, got, rows[n].want);
        assert_int_equal(f->cpu.r[RSP], AT_STACK0 - 20);
        assert_int_equal(f->cpu.cpl, 0);
        fake_destroy(f);
    }
    struct fake *f = fake_create(0);
    fake_long(f, 0);
    cpu_set_rflags(&f->cpu, FL_NT);
    ASSERT_RAISES(f, FAULT(VEC_GP, 0), cpu_iret(&f->cpu, 8));
    fake_destroy(f);
}

static void test_v86_round_trip(void **state)
{
    struct fake *f = fake_create(0);
    push_frame(
        f, 9, (uint32_t[]){ 0x100, 0x2000, FL_VM | FL_IF | FL_IOPL, 0x5000, 0x3000, 0xe5, 0xd5, 0xf5, 0x65 });
    ASSERT_RAISES(f, NOTHING, cpu_iret(&f->cpu, 4));
    assert_true(cpu_v86(&f->cpu));
    assert_int_equal(f->cpu.cpl, 3);
    assert_int_equal(f->cpu.seg[SEG_CS].base, 0x20000);
    assert_int_equal(f->cpu.seg[SEG_GS].sel, 0x65);
    fake_gate(f, AT_IDT + 0x10 * 8, S_CODE0, 0x4010, 0xee, 0);
    ASSERT_RAISES(f, NOTHING, cpu_interrupt(&f->cpu, 0x10, INT_SOFT, false, 0));
    static const uint32_t frame[] = { 0x100,  0x2000, FL_VM | FL_IF | FL_IOPL | FL_ONE,
                                      0x5000, 0x3000, 0xe5,
                                      0xd5,   0xf5,   0x65 };
    assert_int_equal(f->cpu.r[RSP], AT_STACK0 - sizeof(frame));
    for (unsigned n = 0; n < ARRAY_LEN(frame); n++)
        assert_int_equal(fake_ld(f, f->cpu.r[RSP] + 4 * n, 4), frame[n]);
    assert_int_equal(f->cpu.cpl, 0);
    assert_int_equal(f->cpu.seg[SEG_DS].sel, 0);
    assert_false(cpu_v86(&f->cpu));
    ASSERT_RAISES(f, NOTHING, cpu_iret(&f->cpu, 4));
    assert_true(cpu_v86(&f->cpu));
    assert_int_equal(f->cpu.r[RSP], 0x5000);
    fake_destroy(f);
}

static void test_v86_soft(void **state)
{
    struct fake *f = fake_create(0);
    fake_v86(f, 0);
    ASSERT_RAISES(f, FAULT(VEC_GP, 0), cpu_interrupt(&f->cpu, 0x15, INT_SOFT, false, 0));
    /* VME, bitmap bit clear: through the virtual machine's own table, VIF in IF's place, IOPL shown as 3. */
    f->cpu.cr4 |= CR4_VME;
    cpu_set_rflags(&f->cpu, FL_VM | FL_IF | FL_VIF);
    fake_st(f, AT_TSS + 102, 0x88, 2);
    fake_st(f, 0x15 * 4, 0x12345678, 4);
    ASSERT_RAISES(f, NOTHING, cpu_interrupt(&f->cpu, 0x15, INT_SOFT, false, 0));
    assert_true(cpu_v86(&f->cpu));
    assert_int_equal(f->cpu.seg[SEG_CS].sel, 0x1234);
    assert_int_equal(f->cpu.r[R_RIP], 0x5678);
    uint64_t sp = f->cpu.seg[SEG_SS].base + f->cpu.r[RSP];
    assert_int_equal(fake_ld(f, sp + 4, 2), FL_IF | FL_IOPL | FL_ONE);
    assert_int_equal(f->cpu.rflags & (FL_VIF | FL_IF), FL_IF);
    ASSERT_RAISES(f, NOTHING, cpu_iret(&f->cpu, 2));
    assert_int_equal(f->cpu.rflags & (FL_VIF | FL_IF), FL_IF | FL_VIF);
    fake_st(f, AT_TSS + 0x88 - 32 + 2, 0xff, 1); /* vectors 16 to 23 not redirected */
    ASSERT_RAISES(f, FAULT(VEC_GP, 0), cpu_interrupt(&f->cpu, 0x15, INT_SOFT, false, 0));
    fake_destroy(f);
}

static void test_real_interrupt(void **state)
{
    struct fake *f = fake_create(0);
    fake_real(f);
    fake_st(f, 0x21 * 4, 0xbeef0123, 4);
    cpu_set_rflags(&f->cpu, FL_IF | FL_TF | FL_CF);
    ASSERT_RAISES(f, NOTHING, cpu_interrupt(&f->cpu, 0x21, INT_SOFT, false, 0));
    assert_int_equal(f->cpu.seg[SEG_CS].base, 0xbeef0);
    assert_int_equal(f->cpu.r[R_RIP], 0x123);
    assert_int_equal(cpu_rflags(&f->cpu), FL_ONE | FL_CF);
    assert_int_equal(f->cpu.r[RSP], 0x6ffa);
    assert_int_equal(fake_ld(f, 0x6ffa, 2), 0x600);
    assert_int_equal(fake_ld(f, 0x6ffe, 2), FL_ONE | FL_IF | FL_TF | FL_CF);
    ASSERT_RAISES(f, NOTHING, cpu_iret(&f->cpu, 2));
    assert_int_equal(f->cpu.r[R_RIP], 0x600);
    assert_int_equal(cpu_rflags(&f->cpu), FL_ONE | FL_IF | FL_TF | FL_CF);
    f->cpu.idtr.limit = 0x83;
    ASSERT_RAISES(f, FAULT(VEC_GP, 0x21 * 8 + 2), cpu_interrupt(&f->cpu, 0x21, INT_SOFT, false, 0));
    fake_destroy(f);
}

static void test_protected_interrupt(void **state)
{
    struct fake *f = fake_create(3);
    cpu_set_rflags(&f->cpu, FL_IF | FL_TF | FL_NT);
    ASSERT_RAISES(f, NOTHING, cpu_interrupt(&f->cpu, VEC_GP, INT_FAULT, true, 0x1234));
    static const uint32_t frame[] = { 0x1234,    0x600,  S_CODE3, FL_ONE | FL_IF | FL_TF | FL_NT | FL_RF,
                                      AT_STACK3, S_DATA3 };
    assert_int_equal(f->cpu.r[RSP], AT_STACK0 - sizeof(frame));
    for (unsigned n = 0; n < ARRAY_LEN(frame); n++)
        assert_int_equal(fake_ld(f, f->cpu.r[RSP] + 4 * n, 4), frame[n]);
    assert_int_equal(cpu_rflags(&f->cpu), FL_ONE);
    fake_destroy(f);

    f = fake_create(3);
    ASSERT_RAISES(f, FAULT(VEC_GP, 5 * 8 + 2), cpu_interrupt(&f->cpu, 5, INT_SOFT, false, 0)); /* DPL 0 */
    ASSERT_RAISES(f, FAULT(VEC_GP, 40 * 8 + 3),
                  cpu_interrupt(&f->cpu, 40, INT_HARD, false, 0)); /* limit, EXT */
    fake_gate(f, AT_IDT + 5 * 8, S_CODE0, 0x4000, 0xef, 0);
    cpu_set_rflags(&f->cpu, FL_IF);
    ASSERT_RAISES(f, NOTHING, cpu_interrupt(&f->cpu, 5, INT_SOFT, false, 0));
    assert_int_equal(f->cpu.rflags & FL_IF, FL_IF); /* a trap gate leaves IF alone */
    fake_gate(f, AT_IDT + 6 * 8, S_CODE0, 0x4000, 0x0e, 0);
    ASSERT_RAISES(f, FAULT(VEC_NP, 6 * 8 + 3), cpu_interrupt(&f->cpu, 6, INT_FAULT, false, 0));
    fake_gate(f, AT_IDT + 6 * 8, S_CODE_ABSENT, 0x4000, 0x8e, 0);
    ASSERT_RAISES(f, FAULT(VEC_NP, S_CODE_ABSENT + 1), cpu_interrupt(&f->cpu, 6, INT_FAULT, false, 0));
    fake_gate(f, AT_IDT + 6 * 8, 0, 0x4000, 0x8e, 0);
    ASSERT_RAISES(f, FAULT(VEC_GP, 1), cpu_interrupt(&f->cpu, 6, INT_FAULT, false, 0));
    fake_gate(f, AT_IDT + 6 * 8, S_CODE0, 0x4000, 0x8c, 0);
    ASSERT_RAISES(f, FAULT(VEC_GP, 6 * 8 + 3), cpu_interrupt(&f->cpu, 6, INT_FAULT, false, 0));
    fake_destroy(f);
}

static void test_long_interrupt(void **state)
{
    struct fake *f = fake_create(3);
    fake_long(f, 3);
    fake_gate64(f, 8, S_CODE64, 0x4444, 0x8e, 1);
    f->cpu.r[RSP] = 0xa123;
    ASSERT_RAISES(f, NOTHING, cpu_interrupt(&f->cpu, VEC_PF, INT_FAULT, true, 6));
    static const uint64_t frame[] = { 6, 0x600, S_CODE64_3, FL_ONE | FL_RF, 0xa123, S_DATA64_3 };
    assert_int_equal(f->cpu.r[RSP], AT_STACK0 - sizeof(frame));
    for (unsigned n = 0; n < ARRAY_LEN(frame); n++)
        assert_int_equal(fake_ld(f, f->cpu.r[RSP] + 8 * n, 8), frame[n]);
    assert_int_equal(f->cpu.r[R_RIP], 0xffff800000004000 + VEC_PF);
    assert_int_equal(f->cpu.seg[SEG_SS].sel, 0);
    f->cpu.r[RSP] -= 3; /* same level: aligned down; IST: from the TSS, aligned */
    uint64_t rsp = f->cpu.r[RSP];
    ASSERT_RAISES(f, NOTHING, cpu_interrupt(&f->cpu, 33 - 2, INT_HARD, false, 0));
    assert_int_equal(f->cpu.r[RSP], (rsp & ~15ULL) - 40);
    ASSERT_RAISES(f, NOTHING, cpu_interrupt(&f->cpu, 8, INT_FAULT, true, 0));
    assert_int_equal(f->cpu.r[RSP], AT_STACK_IST - 48);
    ASSERT_RAISES(f, NOTHING, (f->cpu.r[RSP] += 8, cpu_iret(&f->cpu, 8)));
    assert_int_equal(f->cpu.r[RSP], (rsp & ~15ULL) - 40);
    fake_gate64(f, 9, S_CODE0, 0x4444, 0x8e, 0); /* not 64-bit code */
    ASSERT_RAISES(f, FAULT(VEC_GP, S_CODE0 + 1), cpu_interrupt(&f->cpu, 9, INT_FAULT, false, 0));
    fake_st(f, AT_TSS + 0x24, 1ULL << 50, 8);
    ASSERT_RAISES(f, FAULT(VEC_SS, 1), cpu_interrupt(&f->cpu, 8, INT_FAULT, true, 0));
    fake_destroy(f);
}

/* While the first is being delivered the second happens: what is delivered then? */
static void test_double_fault(void **state)
{
    static const struct {
        uint8_t first, second, want;
    } rows[] = {
        { VEC_GP, VEC_GP, VEC_DF }, { VEC_GP, VEC_NP, VEC_DF }, { VEC_DE, VEC_TS, VEC_DF },
        { VEC_GP, VEC_PF, VEC_PF }, { VEC_PF, VEC_PF, VEC_DF }, { VEC_PF, VEC_GP, VEC_DF },
        { VEC_UD, VEC_GP, VEC_GP }, { VEC_BP, VEC_PF, VEC_PF }, { VEC_DF, VEC_GP, 0xff },
        { VEC_DF, VEC_PF, 0xff },   { VEC_PF, VEC_DB, VEC_DB }, { VEC_DF, VEC_DB, VEC_DB },
    };
    for (volatile unsigned n = 0; n < ARRAY_LEN(rows); n++) {
        struct fake *f = fake_create(0);
        fake_gate(f, AT_IDT + VEC_DF * 8, S_CODE0, 0x4000 + VEC_DF, 0x8e, 0);
        f->cpu.delivering.active = true;
        f->cpu.delivering.vector = rows[n].first;
        f->cpu.event.valid = true;
        f->cpu.event.vector = rows[n].second;
        f->cpu.event.has_error = rows[n].second != VEC_DB;
        f->cpu.event.error = 0x10;
        f->cpu.event.cr2 = 0xc0ffee;
        volatile bool alive = false;
        ASSERT_RAISES(f, NOTHING, alive = cpu_deliver_event(&f->cpu));
        assert_int_equal(alive, rows[n].want != 0xff);
        assert_int_equal(f->cpu.activity, alive ? CPU_RUNNING : CPU_SHUTDOWN);
        if (alive)
            assert_int_equal(f->cpu.r[R_RIP], 0x4000 + rows[n].want);
        if (rows[n].want == VEC_DF)
            assert_int_equal(fake_ld(f, f->cpu.r[RSP], 4), 0);
        if (rows[n].second == VEC_PF)
            assert_int_equal(f->cpu.cr2, 0xc0ffee);
        assert_false(f->cpu.delivering.active);
        fake_destroy(f);
    }
}

/* The way an engine does it: deliver until it works or the CPU shuts down. */
static unsigned deliver(struct fake *f)
{
    volatile unsigned tries = 0;
    sigsetjmp(f->unwind, 0);
    tries++;
    if (tries < 20)
        cpu_deliver_event(&f->cpu);
    return tries;
}

static void test_triple_fault(void **state)
{
    struct fake *f = fake_create(0);
    f->cpu.idtr.limit = 0;
    ASSERT_RAISES(f, FAULT(VEC_UD, 0), CPU_UD(&f->cpu));
    assert_int_equal(deliver(f), 4); /* #UD, #GP, #DF, shutdown */
    assert_int_equal(f->cpu.activity, CPU_SHUTDOWN);
    fake_destroy(f);

    f = fake_create(3);
    fake_st(f, AT_TSS + 8, 0, 2); /* no inner stack: #TS, #DF, shutdown */
    ASSERT_RAISES(f, FAULT(VEC_GP, 0), CPU_GP0(&f->cpu));
    assert_int_equal(deliver(f), 3);
    assert_int_equal(f->cpu.activity, CPU_SHUTDOWN);
    fake_destroy(f);
}

static void tss32(struct fake *f, uint16_t cs, uint16_t ss, uint16_t ds)
{
    fake_st(f, AT_TSS2 + 32, 0x1234, 4);
    fake_st(f, AT_TSS2 + 36, FL_ONE | FL_CF, 4);
    for (unsigned n = 0; n < 8; n++)
        fake_st(f, AT_TSS2 + 40 + 4 * n, 0x1000 * (n + 1), 4);
    const uint16_t sel[] = { ds, cs, ss, ds, 0, 0 };
    for (unsigned n = 0; n < 6; n++)
        fake_st(f, AT_TSS2 + 72 + 4 * n, sel[n], 2);
    fake_st(f, AT_TSS2 + 96, S_LDT, 2);
}

static void test_task_call(void **state)
{
    struct fake *f = fake_create(0);
    tss32(f, S_CODE0, S_DATA0, S_DATA0);
    f->cpu.r[RAX] = 0xaaaa;
    cpu_set_rflags(&f->cpu, FL_IF);
    ASSERT_RAISES(f, NOTHING, far_call(&f->cpu, S_TASKGATE, 0, 4));
    assert_int_equal(f->cpu.r[R_RIP], 0x1234);
    assert_int_equal(f->cpu.r[RAX], 0x1000);
    assert_int_equal(f->cpu.r[RDI], 0x8000);
    assert_int_equal(cpu_rflags(&f->cpu), FL_ONE | FL_CF | FL_NT);
    assert_int_equal(f->cpu.tr.sel, S_TSS2);
    assert_int_equal(f->cpu.ldtr.base, AT_LDT);
    assert_true(f->cpu.cr0 & CR0_TS);
    assert_int_equal(fake_ld(f, AT_TSS2, 2), S_TSS); /* back link */
    assert_int_equal(fake_ld(f, AT_GDT + S_TSS2 + 5, 1), 0x8b);
    assert_int_equal(fake_ld(f, AT_GDT + S_TSS + 5, 1), 0x8b);
    assert_int_equal(fake_ld(f, AT_TSS + 32, 4), 0x600);
    assert_int_equal(fake_ld(f, AT_TSS + 40, 4), 0xaaaa);
    ASSERT_RAISES(f, FAULT(VEC_GP, S_TSS2), far_call(&f->cpu, S_TASKGATE, 0, 4)); /* busy */
    ASSERT_RAISES(f, NOTHING, cpu_iret(&f->cpu, 4));
    assert_int_equal(f->cpu.tr.sel, S_TSS);
    assert_int_equal(f->cpu.r[R_RIP], 0x600);
    assert_int_equal(f->cpu.r[RAX], 0xaaaa);
    assert_int_equal(cpu_rflags(&f->cpu), FL_ONE | FL_IF);
    assert_int_equal(fake_ld(f, AT_GDT + S_TSS2 + 5, 1), 0x89);
    assert_int_equal(fake_ld(f, AT_TSS2 + 36, 4) & FL_NT, 0);
    fake_destroy(f);
}

static void test_task_faults(void **state)
{
    static const struct {
        uint16_t cs, ss, ds;
        int want;
    } rows[] = {
        { S_DATA0, S_DATA0, S_DATA0, FAULT(VEC_TS, S_DATA0) },
        { 0, S_DATA0, S_DATA0, FAULT(VEC_TS, 0) },
        { S_CODE_ABSENT, S_DATA0, 0, FAULT(VEC_NP, S_CODE_ABSENT) },
        { S_CODE0, 0, 0, FAULT(VEC_TS, 0) },
        { S_CODE0, S_DATA3, 0, FAULT(VEC_TS, S_DATA3 & ~3) },
        { S_CODE0, S_ABSENT, 0, FAULT(VEC_SS, S_ABSENT) },
        { S_CODE0, S_DATA0, S_ABSENT, FAULT(VEC_NP, S_ABSENT) },
        { S_CODE0, S_DATA0, S_TSS, FAULT(VEC_TS, S_TSS) },
        { S_CODE3, S_DATA3, S_DATA0, FAULT(VEC_TS, S_DATA0) },
    };
    for (volatile unsigned n = 0; n < ARRAY_LEN(rows); n++) {
        struct fake *f = fake_create(0);
        tss32(f, rows[n].cs, rows[n].ss, rows[n].ds);
        int got = RAISED(f, far_jump(&f->cpu, S_TSS2, 0, 4));
        if (got != rows[n].want)
            fail_msg("row %u: %x, not %x", n, got, rows[n].want);
        assert_int_equal(f->cpu.tr.sel, S_TSS2); /* the fault belongs to the new task */
        assert_int_equal(f->cpu.r[R_RIP], 0x1234);
        fake_destroy(f);
    }
    struct fake *f = fake_create(0);
    ASSERT_RAISES(f, FAULT(VEC_TS, S_TSS_SHORT), far_jump(&f->cpu, S_TSS_SHORT, 0, 4));
    assert_int_equal(f->cpu.tr.sel, S_TSS);
    cpu_set_rflags(&f->cpu, FL_NT);
    fake_st(f, AT_TSS, S_TSS2, 2); /* the back link must be busy */
    ASSERT_RAISES(f, FAULT(VEC_TS, S_TSS2), cpu_iret(&f->cpu, 4));
    fake_destroy(f);
}

static void test_task_interrupt(void **state)
{
    struct fake *f = fake_create(0);
    tss32(f, S_CODE0, S_DATA0, S_DATA0);
    fake_st(f, AT_TSS2 + 100, 1, 2); /* T: a debug trap in the new task */
    fake_gate(f, AT_IDT + VEC_GP * 8, S_TSS2, 0, 0x85, 0);
    ASSERT_RAISES(f, FAULT(VEC_DB, 0), cpu_interrupt(&f->cpu, VEC_GP, INT_FAULT, true, 0x4321));
    assert_int_equal(f->cpu.dr[6], 0xffff8ff0);
    assert_int_equal(f->cpu.r[R_RIP], 0x1234);
    assert_int_equal(f->cpu.r[RSP], 0x5000 - 4);
    assert_int_equal(fake_ld(f, 0x5000 - 4, 4), 0x4321);
    assert_int_equal(fake_ld(f, AT_TSS + 36, 4), FL_ONE | FL_RF);
    fake_destroy(f);

    f = fake_create(0); /* to a 16-bit task and back by JMP */
    fake_st(f, AT_TSS16 + 14, 0x2222, 2);
    fake_st(f, AT_TSS16 + 16, FL_ONE, 2);
    const uint16_t sel[] = { S_DATA0, S_CODE16, S_DATA16, S_DATA0 };
    for (unsigned n = 0; n < 4; n++)
        fake_st(f, AT_TSS16 + 34 + 2 * n, sel[n], 2);
    ASSERT_RAISES(f, NOTHING, far_jump(&f->cpu, S_TSS16, 0, 4));
    assert_int_equal(f->cpu.r[R_RIP], 0x2222);
    assert_int_equal(f->cpu.code_size, 2);
    assert_int_equal(fake_ld(f, AT_GDT + S_TSS + 5, 1), 0x89);
    ASSERT_RAISES(f, NOTHING, far_jump(&f->cpu, S_TSS, 0, 4));
    assert_int_equal(f->cpu.r[R_RIP], 0x600);
    assert_int_equal(f->cpu.code_size, 4);
    fake_destroy(f);
}

static void test_syscall(void **state)
{
    struct fake *f = fake_create(3);
    fake_long(f, 3);
    ASSERT_RAISES(f, FAULT(VEC_UD, 0), cpu_syscall(&f->cpu));
    f->cpu.efer |= EFER_SCE;
    f->cpu.star = 0x0023001000000000;
    f->cpu.lstar = 0xffffffff81000000;
    f->cpu.sfmask = FL_IF | FL_TF;
    cpu_set_rflags(&f->cpu, FL_IF | FL_CF);
    ASSERT_RAISES(f, NOTHING, cpu_syscall(&f->cpu));
    assert_int_equal(f->cpu.r[RCX], 0x600);
    assert_int_equal(f->cpu.r[R11], FL_ONE | FL_IF | FL_CF);
    assert_int_equal(f->cpu.seg[SEG_CS].sel, 0x10);
    assert_int_equal(f->cpu.seg[SEG_SS].sel, 0x18);
    assert_int_equal(f->cpu.cpl, 0);
    assert_int_equal(cpu_rflags(&f->cpu), FL_ONE | FL_CF);
    f->cpu.r[RCX] = 1ULL << 50;
    ASSERT_RAISES(f, FAULT(VEC_GP, 0), cpu_sysret(&f->cpu, 8));
    f->id.vendor = VENDOR_AMD;
    ASSERT_RAISES(f, NOTHING, cpu_sysret(&f->cpu, 8));
    assert_int_equal(f->cpu.seg[SEG_CS].sel, 0x33);
    assert_int_equal(f->cpu.seg[SEG_SS].sel, 0x2b);
    assert_int_equal(f->cpu.code_size, 8);
    assert_int_equal(f->cpu.cpl, 3);
    ASSERT_RAISES(f, FAULT(VEC_UD, 0), cpu_sysenter(&f->cpu)); /* AMD, long mode */
    f->id.vendor = VENDOR_INTEL;
    ASSERT_RAISES(f, FAULT(VEC_GP, 0), cpu_sysenter(&f->cpu)); /* SYSENTER_CS is 0 */
    f->cpu.sysenter_cs = 0x10;
    f->cpu.sysenter_eip = 0x8888;
    ASSERT_RAISES(f, NOTHING, cpu_sysenter(&f->cpu));
    assert_int_equal(f->cpu.r[R_RIP], 0x8888);
    f->cpu.r[RDX] = 0x700;
    f->cpu.r[RCX] = 0x9000;
    ASSERT_RAISES(f, NOTHING, cpu_sysexit(&f->cpu, 4));
    assert_int_equal(f->cpu.seg[SEG_CS].sel, 0x23);
    assert_int_equal(f->cpu.code_size, 4);
    assert_int_equal(f->cpu.r[RSP], 0x9000);
    ASSERT_RAISES(f, FAULT(VEC_UD, 0), cpu_syscall(&f->cpu)); /* Intel, compatibility mode */
    fake_destroy(f);
}

static void test_debug_registers(void **state)
{
    struct fake *f = fake_create(0);
    struct cpu *cpu = &f->cpu;
    ASSERT_RAISES(f, NOTHING, debug_write_dr(cpu, 7, 0xffffdfff)); /* all but GD */
    assert_int_equal(cpu->dr[7], 0xffff07ff);
    ASSERT_RAISES(f, NOTHING, debug_write_dr(cpu, 5, 0)); /* DR5 is DR7 */
    assert_int_equal(cpu->dr[7], 0x400);
    ASSERT_RAISES(f, FAULT(VEC_GP, 0), debug_write_dr(cpu, 6, 1ULL << 32));
    cpu->cr4 |= CR4_DE;
    ASSERT_RAISES(f, FAULT(VEC_UD, 0), debug_write_dr(cpu, 4, 0));
    ASSERT_RAISES(f, NOTHING, debug_write_dr(cpu, 7, 0x2000)); /* GD */
    ASSERT_RAISES(f, FAULT(VEC_DB, 0), debug_read_dr(cpu, 0));
    assert_int_equal(cpu->dr[6], 0xffff2ff0);
    ASSERT_RAISES(f, NOTHING, cpu_deliver_event(cpu));
    assert_int_equal(cpu->dr[7], 0x400);
    fake_destroy(f);
}

static void test_breakpoints(void **state)
{
    struct fake *f = fake_create(0);
    struct cpu *cpu = &f->cpu;
    cpu->cr4 |= CR4_DE;
    cpu->dr[0] = 0x600;
    cpu->dr[1] = 0x9002;
    cpu->dr[2] = 0x3f8;
    ASSERT_RAISES(f, NOTHING, debug_write_dr(cpu, 7, 0x02d0002a)); /* G0 code; G1 write, 4 bytes; G2 I/O */
    assert_true(cpu->step);
    assert_true(cpu->data_bp);
    ASSERT_RAISES(f, FAULT(VEC_DB, 0), debug_check_code(cpu, 0x600));
    assert_int_equal(cpu->dr[6], 0xffff0ff1);
    cpu->rflags |= FL_RF;
    ASSERT_RAISES(f, NOTHING, debug_check_code(cpu, 0x600));
    cpu->rflags &= ~FL_RF;
    static const struct {
        uint32_t at;
        uint8_t size;
        enum mmu_access acc;
        bool hit;
    } rows[] = {
        { 0x9000, 1, ACC_WRITE, true }, { 0x9003, 1, ACC_WRITE, true },  { 0x9004, 4, ACC_WRITE, false },
        { 0x8ffd, 4, ACC_WRITE, true }, { 0x8ffc, 4, ACC_WRITE, false }, { 0x9000, 4, ACC_READ, false },
    };
    for (volatile unsigned n = 0; n < ARRAY_LEN(rows); n++) {
        cpu->pending_db = 0;
        debug_check_data(cpu, rows[n].at, rows[n].size, rows[n].acc);
        assert_int_equal(cpu->pending_db, rows[n].hit ? 2 : 0);
    }
    debug_check_io(cpu, 0x3f9, 1);
    assert_int_equal(cpu->pending_db, 0);
    debug_check_io(cpu, 0x3f7, 2);
    assert_int_equal(cpu->pending_db, 4);
    cpu->shadow = SHADOW_MOVSS;
    ASSERT_RAISES(f, NOTHING, debug_after(cpu, true));
    cpu->shadow = 0;
    cpu->rflags |= FL_TF;
    cpu->r[R_RIP] = 0x605;
    ASSERT_RAISES(f, FAULT(VEC_DB, 0), debug_after(cpu, true));
    assert_int_equal(cpu->dr[6], 0xffff4ff4);
    assert_int_equal(cpu->r[R_RIP], 0x605);
    cpu->rflags &= ~FL_TF; /* cleared by the instruction itself (INT n): no trap */
    ASSERT_RAISES(f, NOTHING, debug_after(cpu, true));
    fake_destroy(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_unpack),
        cmocka_unit_test(test_seg_load),
        cmocka_unit_test(test_seg_load_effects),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_push_pop),
        cmocka_unit_test(test_far_jump),
        cmocka_unit_test(test_call_gate),
        cmocka_unit_test(test_call_gate_faults),
        cmocka_unit_test(test_gate16_and_64),
        cmocka_unit_test(test_iret),
        cmocka_unit_test(test_iret_faults),
        cmocka_unit_test(test_v86_round_trip),
        cmocka_unit_test(test_v86_soft),
        cmocka_unit_test(test_real_interrupt),
        cmocka_unit_test(test_protected_interrupt),
        cmocka_unit_test(test_long_interrupt),
        cmocka_unit_test(test_double_fault),
        cmocka_unit_test(test_triple_fault),
        cmocka_unit_test(test_task_call),
        cmocka_unit_test(test_task_faults),
        cmocka_unit_test(test_task_interrupt),
        cmocka_unit_test(test_syscall),
        cmocka_unit_test(test_debug_registers),
        cmocka_unit_test(test_breakpoints),
    };
    return cmocka_run_group_tests_name("seg", tests, NULL, NULL);
}
