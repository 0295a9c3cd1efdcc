/* The keyboard controller: what Linux's and SeaBIOS's drivers do, keyboard and mouse answers, translation,
 * interrupts, A20, reset. */
#include "base/bits.h"
#include "chip/i8042.h"
#include "chip/ps2_keys.h"
#include "rig.h"

enum { IRQ1 = 0, IRQ12 = 1, A20 = 2 };

struct fixture {
    struct rig rig;
    struct i8042 k;
    unsigned resets;
};

static struct fixture f;

static void on_reset(void *opaque) { ((struct fixture *)opaque)->resets++; }

static int setup(void **state)
{
    f.resets = 0;
    rig_init(&f.rig, 0);
    i8042_init(&f.k, rig_irq(&f.rig, IRQ1), rig_irq(&f.rig, IRQ12), rig_irq(&f.rig, A20), on_reset, &f);
    assert_int_equal(i8042_attach(&f.k, &f.rig.io), 0);
    return 0;
}

static int attach(void *dev) { return i8042_attach(&f.k, &f.rig.io); }

static int teardown(void **state)
{
    rig_fini(&f.rig);
    return 0;
}

static uint8_t status(void) { return rig_inb(&f.rig, 0x64); }
static void command(uint8_t v) { rig_outb(&f.rig, 0x64, v); }
static void data(uint8_t v) { rig_outb(&f.rig, 0x60, v); }

/* The next byte; it must come from the keyboard side (aux false) or the mouse side. */
static uint8_t next(bool aux)
{
    assert_int_equal(status() & 0x21, aux ? 0x21 : 0x01);
    return rig_inb(&f.rig, 0x60);
}

static void assert_empty(void) { assert_int_equal(status() & 0x01, 0); }

static uint8_t ask(uint8_t cmd)
{
    command(cmd);
    return next(false);
}

static void set_ctr(uint8_t v)
{
    command(0x60);
    data(v);
}

static void expect(bool aux, const uint8_t *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++)
        assert_int_equal(next(aux), bytes[i]);
    assert_empty();
}

#define EXPECT(aux, ...)                                                                                     \
    expect(aux, (const uint8_t[]){ __VA_ARGS__ }, sizeof((const uint8_t[]){ __VA_ARGS__ }))

static void mouse(uint8_t v)
{
    command(0xd4);
    data(v);
}

static void test_linux_controller_probe(void **state)
{
    /* Flush, self test, command byte twice. */
    assert_empty();
    assert_int_equal(ask(0xaa), 0x55);
    uint8_t ctr = ask(0x20);
    assert_int_equal(ask(0x20), ctr);
    assert_int_equal(ctr & 0x40, 0x40);      /* translated mode */
    assert_int_equal(status() & 0x10, 0x10); /* no keyboard lock */
    ctr = (uint8_t)((ctr | 0x30) & ~0x03);
    set_ctr(ctr);
    assert_int_equal(ask(0x20), ctr);
    /* AUX loop, AUX test, AUX off and on seen in the command byte. */
    command(0xd3);
    data(0x5a);
    assert_int_equal(next(true), 0x5a);
    assert_int_equal(ask(0xa9), 0);
    command(0xa7);
    assert_int_equal(ask(0x20) & 0x20, 0x20);
    command(0xa8);
    assert_int_equal(ask(0x20) & 0x20, 0);
    /* No multiplexer: the magic bytes come back as they are. */
    static const uint8_t mux[] = { 0xf0, 0x56, 0xa4 };
    for (unsigned i = 0; i < 3; i++) {
        command(0xd3);
        data(mux[i]);
        assert_int_equal(next(true), mux[i]);
    }
    /* The AUX interrupt works. */
    set_ctr((ctr & ~0x20) | 0x02);
    assert_line(&f.rig, IRQ12, false);
    command(0xd3);
    data(0xa5);
    assert_line(&f.rig, IRQ12, true);
    assert_int_equal(next(true), 0xa5);
    assert_line(&f.rig, IRQ12, false);
    assert_int_equal(f.rig.line[IRQ1].rises, 0); /* the controller's own answers do not interrupt */
    assert_int_equal(ask(0xab), 0);
}

static void test_seabios_keyboard(void **state)
{
    /* ps2_keyboard_setup(): flush, self test, port test, reset, set 2, enable. */
    command(0xad);
    command(0xa7);
    assert_int_equal(ask(0xaa), 0x55);
    assert_int_equal(ask(0xab), 0x00);
    set_ctr(0x30);
    data(0xff);
    EXPECT(false, 0xfa, 0xaa);
    data(0xf5);
    EXPECT(false, 0xfa);
    data(0xf0);
    EXPECT(false, 0xfa);
    data(0x02);
    EXPECT(false, 0xfa);
    set_ctr(0x61);
    data(0xf4);
    EXPECT(false, 0xfa);
    assert_true(f.rig.line[IRQ1].rises > 0);
}

static void test_keyboard_commands(void **state)
{
    set_ctr(0x05); /* no translation */
    data(0xf2);
    EXPECT(false, 0xfa, 0xab, 0x83);
    data(0xed);
    EXPECT(false, 0xfa);
    data(0x05);
    EXPECT(false, 0xfa);
    assert_int_equal(f.k.kbd.leds, 5);
    data(0xf3);
    EXPECT(false, 0xfa);
    data(0x20);
    EXPECT(false, 0xfa);
    assert_int_equal(f.k.kbd.rate, 0x20);
    data(0xf0);
    data(0x00);
    EXPECT(false, 0xfa, 0xfa, 0x02);
    data(0xf0);
    data(0x01); /* set 1 is not offered */
    EXPECT(false, 0xfa, 0xfe);
    data(0xed);
    data(0xf4); /* a command instead of the parameter */
    EXPECT(false, 0xfa, 0xfa);
    data(0xee);
    EXPECT(false, 0xee);
    data(0xfe);
    EXPECT(false, 0xee); /* resend */
    data(0x12);
    EXPECT(false, 0xfe);
    data(0xf5);
    EXPECT(false, 0xfa);
    assert_false(i8042_key(&f.k, (const uint8_t[]){ 0x1c }, 1)); /* not scanning */
    data(0xf6);
    EXPECT(false, 0xfa);
    assert_true(i8042_key(&f.k, (const uint8_t[]){ 0x1c }, 1));
    EXPECT(false, 0x1c);
    set_ctr(0x45); /* translated: 83 reads as 41 */
    data(0xf2);
    EXPECT(false, 0xfa, 0xab, 0x41);
}

static void test_keys(void **state)
{
    set_ctr(0x45);
    assert_true(i8042_key(&f.k, (const uint8_t[]){ 0x1c }, 1)); /* A */
    assert_line(&f.rig, IRQ1, true);
    assert_true(i8042_key(&f.k, (const uint8_t[]){ 0xf0, 0x1c }, 2));
    assert_true(i8042_key(&f.k, (const uint8_t[]){ 0xe0, 0x75 }, 2)); /* up */
    assert_true(i8042_key(&f.k, (const uint8_t[]){ 0xe0, 0xf0, 0x75 }, 3));
    assert_true(i8042_key(&f.k, (const uint8_t[]){ 0x83 }, 1)); /* F7 */
    EXPECT(false, 0x1e, 0x9e, 0xe0, 0x48, 0xe0, 0xc8, 0x41);
    assert_int_equal(f.rig.line[IRQ1].rises, 7); /* an edge for each */
    command(0xad);                               /* disabled: nothing comes, nothing is lost */
    assert_true(i8042_key(&f.k, (const uint8_t[]){ 0x29 }, 1));
    assert_empty();
    command(0xae);
    EXPECT(false, 0x39);
    unsigned n = 0;
    while (i8042_key(&f.k, (const uint8_t[]){ 0x29 }, 1))
        assert_true(n++ < 100);
    assert_in_range(n, 16, 32);
    data(0xee); /* there is still room for an answer */
    for (unsigned i = 0; i < n; i++)
        assert_int_equal(next(false), 0x39);
    EXPECT(false, 0xee);
}

static void test_mouse(void **state)
{
    set_ctr(0x47);
    mouse(0xff);
    EXPECT(true, 0xfa, 0xaa, 0x00);
    assert_true(f.rig.line[IRQ12].rises == 3);
    mouse(0xf2);
    EXPECT(true, 0xfa, 0x00);
    assert_false(i8042_move(&f.k, 1, 1, 0, 0)); /* not enabled yet */
    mouse(0xf4);
    EXPECT(true, 0xfa);
    assert_true(i8042_move(&f.k, 5, -3, 0, 1));
    EXPECT(true, 0x29, 0x05, 0xfd);
    mouse(0xe9);
    EXPECT(true, 0xfa, 0x24, 0x02, 100);
    static const uint8_t wrong[][3] = { { 100, 100, 80 }, { 200, 100, 79 }, { 200, 200, 80 } };
    for (unsigned i = 0; i < 9; i++) {
        mouse(0xf3);
        mouse(wrong[i / 3][i % 3]);
        EXPECT(true, 0xfa, 0xfa);
    }
    mouse(0xf2);
    EXPECT(true, 0xfa, 0x00); /* the five-button knock alone does not work */
    static const uint8_t wheel[] = { 200, 100, 80 }, five[] = { 200, 200, 80 };
    for (unsigned i = 0; i < 3; i++) {
        mouse(0xf3);
        mouse(wheel[i]);
        EXPECT(true, 0xfa, 0xfa);
    }
    mouse(0xf2);
    EXPECT(true, 0xfa, 0x03);
    assert_true(i8042_move(&f.k, -1000, 1000, -1, 4));
    EXPECT(true, 0x1c, 0x01, 0xff, 0xff);
    for (unsigned i = 0; i < 3; i++) {
        mouse(0xf3);
        mouse(five[i]);
        EXPECT(true, 0xfa, 0xfa);
    }
    mouse(0xf2);
    EXPECT(true, 0xfa, 0x04);
    mouse(0xe8);
    mouse(0x03);
    mouse(0xe7);
    EXPECT(true, 0xfa, 0xfa, 0xfa);
    mouse(0xf0);
    EXPECT(true, 0xfa);
    assert_false(i8042_move(&f.k, 1, 0, 0, 0));
    mouse(0xe9);
    EXPECT(true, 0xfa, 0x70, 0x03, 80);
    mouse(0xeb);
    EXPECT(true, 0xfa, 0x08, 0x00, 0x00, 0x00);
    mouse(0xee);
    mouse(0xe8);
    mouse(0x55);
    EXPECT(true, 0xfa, 0xe8, 0x55); /* wrap */
    mouse(0xec);
    mouse(0xe1);
    EXPECT(true, 0xfa, 0xfe);
    mouse(0xe8);
    mouse(0x04); /* no such resolution */
    EXPECT(true, 0xfa, 0xfe);
    assert_int_equal(f.k.mouse.resolution, 3);
    mouse(0xf6);
    mouse(0xfe);
    EXPECT(true, 0xfa, 0xfa);
}

static void test_both(void **state)
{
    set_ctr(0x47);
    mouse(0xf4);
    EXPECT(true, 0xfa);
    assert_true(i8042_key(&f.k, (const uint8_t[]){ 0x1c }, 1));
    assert_true(i8042_move(&f.k, 1, 2, 0, 0));
    assert_line(&f.rig, IRQ1, true);
    assert_line(&f.rig, IRQ12, false);
    assert_int_equal(next(false), 0x1e);
    assert_line(&f.rig, IRQ1, false);
    assert_line(&f.rig, IRQ12, true);
    EXPECT(true, 0x08, 1, 2);
    command(0xd2); /* write the keyboard's output buffer: as if it had been typed, untranslated */
    data(0x1c);
    assert_line(&f.rig, IRQ1, true);
    assert_int_equal(next(false), 0x1c);
    command(0x25);
    assert_int_equal(next(false), 0);
    command(0x65);
    data(0x77);
    assert_int_equal(ask(0x25), 0x77);
}

static void test_a20_and_reset(void **state)
{
    assert_line(&f.rig, A20, true);
    command(0xd1);
    data(0xdd);
    assert_line(&f.rig, A20, false);
    assert_int_equal(ask(0xd0) & 0x03, 0x01);
    command(0xdf);
    assert_line(&f.rig, A20, true);
    command(0xdd);
    assert_line(&f.rig, A20, false);
    rig_outb(&f.rig, 0x92, 0x02);
    assert_line(&f.rig, A20, true);
    assert_int_equal(rig_inb(&f.rig, 0x92), 0x02);
    rig_outb(&f.rig, 0x92, 0x00);
    assert_line(&f.rig, A20, false);
    assert_int_equal(f.resets, 0);
    command(0xff); /* pulses nothing */
    command(0xf1);
    assert_int_equal(f.resets, 0);
    command(0xfe);
    assert_int_equal(f.resets, 1);
    command(0xd1);
    data(0x02);
    assert_int_equal(f.resets, 2);
    rig_outb(&f.rig, 0x92, 0x03);
    rig_outb(&f.rig, 0x92, 0x03); /* it is the edge that counts */
    assert_int_equal(f.resets, 3);
    assert_true(i8042_key(&f.k, (const uint8_t[]){ 0x1c }, 1));
    assert_line(&f.rig, IRQ1, true);
    i8042_ops.reset(&f.k);
    assert_line(&f.rig, A20, true);
    assert_line(&f.rig, IRQ1, false);
    set_ctr(0x00);
    assert_int_equal(status() & 0x04, 0);
    assert_int_equal(ask(0xaa), 0x55); /* the self test sets the system flag */
    assert_int_equal(status() & 0x04, 0x04);
}

static void test_state(void **state)
{
    static struct i8042 fresh;

    set_ctr(0x47);
    i8042_key(&f.k, (const uint8_t[]){ 0x1c, 0xf0, 0x1c }, 3);
    mouse(0xf4);
    data(0xed);
    command(0xd1);
    i8042_init(&fresh, rig_irq(&f.rig, 8), rig_irq(&f.rig, 9), rig_irq(&f.rig, 10), NULL, NULL);
    rig_round_trip(&i8042_ops, &f.k, &fresh);
    assert_line(&f.rig, 8, true);
    assert_line(&f.rig, 10, true);
    bus_remove(&f.rig.io, &f.k.data_port);
    bus_remove(&f.rig.io, &f.k.command_port);
    bus_remove(&f.rig.io, &f.k.fast_port);
    assert_int_equal(i8042_attach(&fresh, &f.rig.io), 0);
    data(0xdd); /* the parameter of D1 */
    assert_line(&f.rig, 10, false);
    data(0x02); /* and of ED */
    assert_int_equal(fresh.kbd.leds, 2);
    static const uint8_t bytes[] = { 0x1e, 0x9e, 0xfa, 0xfa };
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(next(false), bytes[i]);
    EXPECT(true, 0xfa);
}

/* Keys by name and character, as set 2 has them. */
static void test_strokes(void **state)
{
    static const struct {
        const char *name, *bytes;
    } keys[] = {
        { "a", "\x1c\xf0\x1c" },
        { "A", "\x12\x1c\xf0\x1c\xf0\x12" },
        { "f12", "\x07\xf0\x07" },
        { "up", "\xe0\x75\xe0\xf0\x75" },
        { "-", "\x4e\xf0\x4e" },
        { "ctrl--", "\x14\x4e\xf0\x4e\xf0\x14" },
        { "ctrl-alt-delete", "\x14\x11\xe0\x71\xe0\xf0\x71\xf0\x11\xf0\x14" },
        { "shift-alt-ctrl-insert", "\x14\x11\x12\xe0\x70\xe0\xf0\x70\xf0\x12\xf0\x11\xf0\x14" },
        { "", "" }, { "f13", "" }, { "ctrl-", "" }, { "ctrl-ctrl-a", "" }, { "\xe4", "" }, { "uppp", "" },
    };
    uint8_t out[PS2_STROKE];
    unsigned known = 0;

    for (size_t n = 0; n < ARRAY_LEN(keys); n++) {
        assert_int_equal(ps2_stroke(keys[n].name, out), strlen(keys[n].bytes));
        assert_memory_equal(out, keys[n].bytes, strlen(keys[n].bytes));
    }
    for (unsigned c = 0; c < 256; c++) {
        size_t len = ps2_stroke_char((char)c, out);

        assert_in_range(len, 0, PS2_STROKE);
        assert_true(len || c < 0x20 || c > 0x7e);
        known += len > 0;
    }
    assert_int_equal(known, 0x7f - 0x20 + 4);
}

static void test_attach(void **state) { rig_attach_conflicts(&f.rig.io, attach, NULL); }

static void test_fuzz(void **state)
{
    for (unsigned i = 0; i < 100000; i++) {
        uint64_t x = rig_random(&f.rig);
        if (x & 1)
            command((uint8_t)(x >> 8));
        else
            data((uint8_t)(x >> 8));
        if (x & 2)
            rig_inb(&f.rig, 0x60);
        if (x & 4)
            i8042_key(&f.k, (const uint8_t *)&x, x >> 16 & 7);
        if (x & 8)
            i8042_move(&f.k, (int)(x >> 24), (int)x, (int)(x >> 8), (uint8_t)(x >> 40));
        assert_true(f.k.kbd.q.count <= PS2_QUEUE && f.k.mouse.q.count <= PS2_QUEUE);
    }
    rig_fuzz(&f.rig, &f.rig.io, 0x60, 5, 200000);
    rig_fuzz(&f.rig, &f.rig.io, 0x92, 1, 1000);
    rig_fuzz_state(&f.rig, &i8042_ops, &f.k, &f.rig.io, 0x60, 5, 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_linux_controller_probe, setup, teardown),
        cmocka_unit_test_setup_teardown(test_seabios_keyboard, setup, teardown),
        cmocka_unit_test_setup_teardown(test_keyboard_commands, setup, teardown),
        cmocka_unit_test_setup_teardown(test_keys, setup, teardown),
        cmocka_unit_test_setup_teardown(test_mouse, setup, teardown),
        cmocka_unit_test_setup_teardown(test_both, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a20_and_reset, setup, teardown),
        cmocka_unit_test_setup_teardown(test_state, setup, teardown),
        cmocka_unit_test(test_strokes),
        cmocka_unit_test_setup_teardown(test_attach, setup, teardown),
        cmocka_unit_test_setup_teardown(test_fuzz, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
