/* The 8259 pair against the datasheet: initialisation, priorities, EOI kinds, rotation, masks, polling,
 * cascade, special fully nested mode, spurious interrupts, ELCR. */
#include "chip/pic8259.h"
#include "rig.h"

enum { INT = 0 };

struct fixture {
    struct rig rig;
    struct pic pic;
};

static struct fixture f;

static void program(uint16_t port, uint8_t icw1, uint8_t base, uint8_t icw3, uint8_t icw4)
{
    rig_outb(&f.rig, port, icw1);
    rig_outb(&f.rig, port + 1, base);
    if (!(icw1 & 2))
        rig_outb(&f.rig, port + 1, icw3);
    if (icw1 & 1)
        rig_outb(&f.rig, port + 1, icw4);
}

static int setup(void **state)
{
    rig_init(&f.rig, 0);
    pic_init(&f.pic, rig_irq(&f.rig, INT));
    assert_int_equal(pic_attach(&f.pic, &f.rig.io), 0);
    program(0x20, 0x11, 0x20, 0x04, 0x01);
    program(0xa0, 0x11, 0x28, 0x02, 0x01);
    return 0;
}

static int attach(void *dev) { return pic_attach(&f.pic, &f.rig.io); }

static int teardown(void **state)
{
    rig_fini(&f.rig);
    return 0;
}

static void edge(unsigned irq)
{
    pic_set_irq(&f.pic, irq, false);
    pic_set_irq(&f.pic, irq, true);
}

static uint8_t reg(uint16_t port, uint8_t ocw3)
{
    rig_outb(&f.rig, port, ocw3);
    return rig_inb(&f.rig, port);
}

#define IRR(port) reg(port, 0x0a)
#define ISR(port) reg(port, 0x0b)

static void test_edge_and_eoi(void **state)
{
    assert_line(&f.rig, INT, false);
    edge(4);
    assert_line(&f.rig, INT, true);
    assert_int_equal(IRR(0x20), 0x10);
    assert_int_equal(pic_ack(&f.pic), 0x24);
    assert_line(&f.rig, INT, false);
    assert_int_equal(IRR(0x20), 0);
    assert_int_equal(ISR(0x20), 0x10);
    /* The line is still high: no second interrupt, not after EOI either. */
    rig_outb(&f.rig, 0x20, 0x20);
    assert_int_equal(ISR(0x20), 0);
    assert_line(&f.rig, INT, false);
    edge(4);
    assert_line(&f.rig, INT, true);
}

static void test_priority(void **state)
{
    edge(5);
    edge(3);
    assert_int_equal(pic_ack(&f.pic), 0x23);
    assert_line(&f.rig, INT, false); /* 5 waits below 3 */
    edge(1);
    assert_line(&f.rig, INT, true); /* 1 nests */
    assert_int_equal(pic_ack(&f.pic), 0x21);
    assert_int_equal(ISR(0x20), 0x0a);
    rig_outb(&f.rig, 0x20, 0x20); /* non-specific: ends 1 */
    assert_int_equal(ISR(0x20), 0x08);
    rig_outb(&f.rig, 0x20, 0x63); /* specific: ends 3 */
    assert_int_equal(ISR(0x20), 0);
    assert_int_equal(pic_ack(&f.pic), 0x25);
}

static void test_mask(void **state)
{
    rig_outb(&f.rig, 0x21, 0x10);
    assert_int_equal(rig_inb(&f.rig, 0x21), 0x10);
    edge(4);
    assert_line(&f.rig, INT, false);
    assert_int_equal(IRR(0x20), 0x10); /* the request is kept */
    rig_outb(&f.rig, 0x21, 0);
    assert_line(&f.rig, INT, true);
    assert_int_equal(pic_ack(&f.pic), 0x24);
}

static void test_spurious(void **state)
{
    edge(3);
    pic_set_irq(&f.pic, 3, false); /* gone before INTA */
    assert_line(&f.rig, INT, false);
    assert_int_equal(pic_ack(&f.pic), 0x27);
    assert_int_equal(ISR(0x20), 0); /* a spurious IR7 is not in service */
    /* A slave's request that goes between the two INTA cycles is 0x2f with the cascade in service; here
     * the slave's vanishing takes the master's with it. */
    edge(10);
    pic_set_irq(&f.pic, 10, false);
    assert_int_equal(pic_ack(&f.pic), 0x27);
}

static void test_cascade(void **state)
{
    edge(12);
    assert_line(&f.rig, INT, true);
    assert_int_equal(pic_ack(&f.pic), 0x2c);
    assert_int_equal(ISR(0x20), 0x04);
    assert_int_equal(ISR(0xa0), 0x10);
    edge(3);
    assert_line(&f.rig, INT, false); /* below the cascade */
    edge(9);
    assert_line(&f.rig, INT, false); /* not fully nested: the master blocks its own IR2 */
    edge(0);
    assert_int_equal(pic_ack(&f.pic), 0x20);
    rig_outb(&f.rig, 0x20, 0x60);
    rig_outb(&f.rig, 0xa0, 0x20);
    rig_outb(&f.rig, 0x20, 0x62);
    assert_int_equal(pic_ack(&f.pic), 0x29);
    rig_outb(&f.rig, 0xa0, 0x20);
    rig_outb(&f.rig, 0x20, 0x20);
    assert_int_equal(pic_ack(&f.pic), 0x23);
}

static void test_cascade_back_to_back(void **state)
{
    edge(8);
    edge(15);
    assert_int_equal(pic_ack(&f.pic), 0x28);
    rig_outb(&f.rig, 0xa0, 0x20);
    rig_outb(&f.rig, 0x20, 0x20);
    assert_line(&f.rig, INT, true);
    assert_int_equal(pic_ack(&f.pic), 0x2f);
    assert_int_equal(ISR(0xa0), 0x80); /* a real IRQ 15 is in service */
}

static void test_special_fully_nested(void **state)
{
    program(0x20, 0x11, 0x20, 0x04, 0x11);
    edge(12);
    assert_int_equal(pic_ack(&f.pic), 0x2c);
    edge(3);
    assert_line(&f.rig, INT, false); /* lower levels of the master stay out */
    edge(9);
    assert_line(&f.rig, INT, true);
    assert_int_equal(pic_ack(&f.pic), 0x29);
    assert_int_equal(ISR(0xa0), 0x12);
}

static void test_aeoi(void **state)
{
    program(0x20, 0x11, 0x40, 0x04, 0x03);
    edge(6);
    assert_int_equal(pic_ack(&f.pic), 0x46);
    assert_int_equal(ISR(0x20), 0);
    edge(6);
    assert_line(&f.rig, INT, true);
    assert_int_equal(pic_ack(&f.pic), 0x46);
    /* Rotate in AEOI mode: 6 becomes the lowest. */
    rig_outb(&f.rig, 0x20, 0x80);
    edge(6);
    assert_int_equal(pic_ack(&f.pic), 0x46);
    edge(6);
    edge(7);
    edge(0);
    assert_int_equal(pic_ack(&f.pic), 0x47);
    assert_int_equal(pic_ack(&f.pic), 0x40);
    assert_int_equal(pic_ack(&f.pic), 0x46);
    rig_outb(&f.rig, 0x20, 0x00); /* rotation off: the priorities stay as they are */
    edge(1);
    assert_int_equal(pic_ack(&f.pic), 0x41);
    assert_int_equal(f.pic.chip[0].lowest, 6);
}

static void test_rotation(void **state)
{
    rig_outb(&f.rig, 0x20, 0xc3); /* set priority: 3 is the lowest, 4 the highest */
    edge(3);
    edge(4);
    edge(0);
    assert_int_equal(pic_ack(&f.pic), 0x24);
    rig_outb(&f.rig, 0x20, 0xa0); /* rotate on non-specific EOI: 4 becomes the lowest */
    assert_int_equal(f.pic.chip[0].lowest, 4);
    assert_int_equal(pic_ack(&f.pic), 0x20);
    rig_outb(&f.rig, 0x20, 0xe0); /* rotate on specific EOI of 0 */
    assert_int_equal(f.pic.chip[0].lowest, 0);
    assert_int_equal(pic_ack(&f.pic), 0x23);
}

static void test_special_mask(void **state)
{
    edge(2 + 1);
    assert_int_equal(pic_ack(&f.pic), 0x23);
    edge(5);
    assert_line(&f.rig, INT, false);
    rig_outb(&f.rig, 0x21, 0x08); /* mask the level in service ... */
    rig_outb(&f.rig, 0x20, 0x68); /* ... and set special mask mode: all others may come */
    assert_line(&f.rig, INT, true);
    assert_int_equal(pic_ack(&f.pic), 0x25);
    rig_outb(&f.rig, 0x20, 0x20); /* a non-specific EOI passes masked levels over */
    assert_int_equal(ISR(0x20), 0x08);
    rig_outb(&f.rig, 0x20, 0x48); /* back to normal: 3 blocks again */
    edge(5);
    assert_line(&f.rig, INT, false);
}

static void test_poll(void **state)
{
    rig_outb(&f.rig, 0x20, 0x0c);
    assert_int_equal(rig_inb(&f.rig, 0x20) & 0x80, 0);
    edge(6);
    rig_outb(&f.rig, 0x20, 0x0c);
    assert_int_equal(rig_inb(&f.rig, 0x20), 0x86);
    assert_line(&f.rig, INT, false);
    assert_int_equal(ISR(0x20), 0x40);
    edge(11);
    rig_outb(&f.rig, 0xa0, 0x0c);
    assert_int_equal(rig_inb(&f.rig, 0xa0), 0x83);
    assert_int_equal(ISR(0xa0), 0x08);
}

static void test_level(void **state)
{
    rig_outb(&f.rig, 0x4d1, 0xff);
    assert_int_equal(rig_inb(&f.rig, 0x4d1), 0xde); /* IRQ 8 and 13 stay edge-triggered */
    rig_outb(&f.rig, 0x4d0, 0xff);
    assert_int_equal(rig_inb(&f.rig, 0x4d0), 0xf8);
    rig_outb(&f.rig, 0x4d1, 0x00);
    pic_set_irq(&f.pic, 9, true);
    pic_ack(&f.pic);
    rig_outb(&f.rig, 0xa0, 0x20);
    rig_outb(&f.rig, 0x20, 0x20);
    assert_line(&f.rig, INT, false);
    rig_outb(&f.rig, 0x4d1, 0x02); /* a high line becomes level-triggered: it requests now */
    assert_line(&f.rig, INT, true);
    pic_set_irq(&f.pic, 9, false);
    assert_line(&f.rig, INT, false);
    rig_outb(&f.rig, 0x4d1, 0xff);
    pic_set_irq(&f.pic, 11, true);
    assert_int_equal(pic_ack(&f.pic), 0x2b);
    assert_int_equal(IRR(0xa0), 0x08); /* follows the line */
    rig_outb(&f.rig, 0xa0, 0x20);
    rig_outb(&f.rig, 0x20, 0x20);
    assert_line(&f.rig, INT, true); /* still high: again */
    assert_int_equal(pic_ack(&f.pic), 0x2b);
    pic_set_irq(&f.pic, 11, false);
    rig_outb(&f.rig, 0xa0, 0x20);
    rig_outb(&f.rig, 0x20, 0x20);
    assert_line(&f.rig, INT, false);
}

static void test_init_sequence(void **state)
{
    edge(4);
    rig_outb(&f.rig, 0x21, 0xff);
    rig_outb(&f.rig, 0x20, 0x13); /* single, ICW4 follows: no ICW3 */
    assert_line(&f.rig, INT, false);
    rig_outb(&f.rig, 0x21, 0x57); /* low three bits are not part of the base */
    rig_outb(&f.rig, 0x21, 0x01);
    assert_int_equal(rig_inb(&f.rig, 0x21), 0); /* ICW1 cleared the mask */
    assert_line(&f.rig, INT, false);            /* and the edge on 4 */
    edge(4);
    assert_int_equal(pic_ack(&f.pic), 0x54);
    /* Without IC4 everything that ICW4 selects is off. */
    program(0x20, 0x11, 0x20, 0x04, 0x03);
    program(0x20, 0x10, 0x20, 0x04, 0);
    edge(6);
    pic_ack(&f.pic);
    assert_int_equal(ISR(0x20), 0x40);
}

static void test_linux_probe(void **state)
{
    /* The kernel looks for a legacy PIC: it writes a mask and reads it back. */
    rig_outb(&f.rig, 0xa1, 0xff);
    rig_outb(&f.rig, 0x21, 0xfb);
    assert_int_equal(rig_inb(&f.rig, 0x21), 0xfb);
}

static void test_state(void **state)
{
    static struct pic fresh;

    rig_outb(&f.rig, 0x4d0, 0x20);
    pic_set_irq(&f.pic, 5, true);
    edge(12);
    edge(3);
    pic_ack(&f.pic);
    rig_outb(&f.rig, 0xa0, 0x11); /* in the middle of an initialisation */
    pic_init(&fresh, rig_irq(&f.rig, 1));
    rig_round_trip(&pic_ops, &f.pic, &fresh);
    assert_int_equal(f.rig.line[1].level, f.rig.line[INT].level);
    assert_int_equal(pic_ack(&fresh), pic_ack(&f.pic));
    rig_assert_same(&pic_ops, &f.pic, &fresh);
}

static void test_reset(void **state)
{
    edge(3);
    pic_ops.reset(&f.pic);
    assert_line(&f.rig, INT, false);
    assert_int_equal(rig_inb(&f.rig, 0x21), 0);
}

static void test_attach(void **state) { rig_attach_conflicts(&f.rig.io, attach, NULL); }

static void test_slave_keeps_requesting(void **state)
{
    program(0xa0, 0x11, 0x28, 0x02, 0x03); /* the slave ends its interrupts by itself */
    edge(9);
    edge(10);
    assert_int_equal(pic_ack(&f.pic), 0x29);
    assert_line(&f.rig, INT, false);
    rig_outb(&f.rig, 0x20, 0x20);
    assert_line(&f.rig, INT, true); /* INT of the slave made a new edge for 10 */
    assert_int_equal(pic_ack(&f.pic), 0x2a);
    rig_outb(&f.rig, 0x20, 0x20);
    assert_line(&f.rig, INT, false);
    edge(0); /* the highest of all interrupts from idle */
    assert_line(&f.rig, INT, true);
}

static void test_fuzz(void **state)
{
    for (unsigned i = 0; i < 20000; i++) {
        uint64_t x = rig_random(&f.rig);
        pic_set_irq(&f.pic, x & 31, x >> 5 & 1);
        rig_fuzz(&f.rig, &f.rig.io, 0x20, 2, 3);
        rig_fuzz(&f.rig, &f.rig.io, 0xa0, 2, 3);
        rig_fuzz(&f.rig, &f.rig.io, 0x4d0, 2, 4);
        /* With a request the answer is a vector of one of the bases; the wire says whether there is one. */
        assert_int_equal(pic_pending(&f.pic), f.rig.line[INT].level);
        uint8_t v = pic_ack(&f.pic);
        assert_true((v & 0xf8) == f.pic.chip[0].base || (v & 0xf8) == f.pic.chip[1].base);
    }
    rig_fuzz_state(&f.rig, &pic_ops, &f.pic, &f.rig.io, 0x20, 2, 500);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_edge_and_eoi, setup, teardown),
        cmocka_unit_test_setup_teardown(test_priority, setup, teardown),
        cmocka_unit_test_setup_teardown(test_mask, setup, teardown),
        cmocka_unit_test_setup_teardown(test_spurious, setup, teardown),
        cmocka_unit_test_setup_teardown(test_cascade, setup, teardown),
        cmocka_unit_test_setup_teardown(test_cascade_back_to_back, setup, teardown),
        cmocka_unit_test_setup_teardown(test_special_fully_nested, setup, teardown),
        cmocka_unit_test_setup_teardown(test_aeoi, setup, teardown),
        cmocka_unit_test_setup_teardown(test_rotation, setup, teardown),
        cmocka_unit_test_setup_teardown(test_special_mask, setup, teardown),
        cmocka_unit_test_setup_teardown(test_poll, setup, teardown),
        cmocka_unit_test_setup_teardown(test_level, setup, teardown),
        cmocka_unit_test_setup_teardown(test_init_sequence, setup, teardown),
        cmocka_unit_test_setup_teardown(test_linux_probe, setup, teardown),
        cmocka_unit_test_setup_teardown(test_state, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reset, setup, teardown),
        cmocka_unit_test_setup_teardown(test_attach, setup, teardown),
        cmocka_unit_test_setup_teardown(test_slave_keeps_requesting, setup, teardown),
        cmocka_unit_test_setup_teardown(test_fuzz, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
