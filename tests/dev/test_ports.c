/* The small port devices: debug exit, pvpanic, POST and delay ports, the DMA controllers' registers. */
#include <errno.h>
#include <string.h>

#include "base/bits.h"
#include "chip/debug_exit.h"
#include "chip/debugcon.h"
#include "chip/dma8237.h"
#include "chip/post.h"
#include "chip/pvpanic.h"
#include "rig.h"

struct fixture {
    struct rig rig;
    struct debug_exit exit;
    struct pvpanic panic;
    struct post post;
    struct dma8237 dma;
    uint32_t value;
    unsigned calls;
};

static struct fixture f;

static void on_exit_value(void *opaque, uint32_t value)
{
    ((struct fixture *)opaque)->value = value;
    ((struct fixture *)opaque)->calls++;
}

static void on_panic(void *opaque, uint8_t events) { on_exit_value(opaque, events); }

static int setup(void **state)
{
    f.value = f.calls = 0;
    rig_init(&f.rig, 0);
    debug_exit_init(&f.exit, on_exit_value, &f);
    pvpanic_init(&f.panic, on_panic, &f);
    post_init(&f.post);
    dma8237_init(&f.dma);
    assert_int_equal(debug_exit_attach(&f.exit, &f.rig.io, 0xf4), 0);
    assert_int_equal(pvpanic_attach(&f.panic, &f.rig.io), 0);
    assert_int_equal(post_attach(&f.post, &f.rig.io), 0);
    assert_int_equal(dma8237_attach(&f.dma, &f.rig.io), 0);
    return 0;
}

static int teardown(void **state)
{
    rig_fini(&f.rig);
    return 0;
}

static void test_debug_exit(void **state)
{
    static struct debug_exit fresh;

    rig_outb(&f.rig, 0xf4, 0x12);
    assert_int_equal(f.value, 0x12);
    bus_write(&f.rig.io, 0xf4, 0x12345678, 4);
    assert_int_equal(f.value, 0x12345678);
    bus_write(&f.rig.io, 0xf4, 0xabcd, 2);
    assert_int_equal(f.value, 0xabcd);
    assert_int_equal(f.calls, 3);
    assert_int_equal(rig_inb(&f.rig, 0xf4), 0);
    debug_exit_init(&fresh, NULL, NULL);
    rig_round_trip(&debug_exit_ops, &f.exit, &fresh);
    assert_int_equal(fresh.last, 0xabcd);
    debug_exit_ops.reset(&fresh);
    assert_int_equal(fresh.last, 0);
    assert_int_equal(debug_exit_attach(&fresh, &f.rig.io, 0xf6), -EEXIST);
}

static char lines[3][DEBUGCON_LINE];

static void on_line(void *opaque, const char *line)
{
    assert_true(strlen(line) < DEBUGCON_LINE);
    strcpy(lines[f.calls++ % ARRAY_LEN(lines)], line);
}

static void test_debugcon(void **state)
{
    static struct debugcon d, fresh;

    debugcon_init(&d, on_line, NULL);
    assert_int_equal(debugcon_attach(&d, &f.rig.io), 0);
    assert_int_equal(rig_inb(&f.rig, 0x402), 0xe9);
    for (const char *p = "one\r\n\x1b[2Jtwo"; *p; p++)
        rig_outb(&f.rig, 0x402, (uint8_t)*p);
    assert_int_equal(f.calls, 1);
    assert_string_equal(lines[0], "one");
    debugcon_init(&fresh, on_line, NULL);
    rig_round_trip(&debugcon_ops, &d, &fresh);
    assert_int_equal(fresh.len, 7);
    rig_outb(&f.rig, 0x402, '\n');
    assert_string_equal(lines[1], ".[2Jtwo");
    for (unsigned n = 0; n < DEBUGCON_LINE; n++) /* a line without end is cut */
        rig_outb(&f.rig, 0x402, 'x');
    assert_int_equal(f.calls, 3);
    assert_int_equal(strlen(lines[2]), DEBUGCON_LINE - 1);
    debugcon_ops.reset(&d);
    assert_int_equal(d.len, 0);
    rig_fuzz_state(&f.rig, &debugcon_ops, &d, &f.rig.io, 0x402, 1, 200);
}

static void test_pvpanic(void **state)
{
    static struct pvpanic fresh;

    assert_int_equal(rig_inb(&f.rig, PVPANIC_PORT), 0x03);
    rig_outb(&f.rig, PVPANIC_PORT, 0xf0); /* unknown events */
    assert_int_equal(f.calls, 0);
    rig_outb(&f.rig, PVPANIC_PORT, 0xf1);
    assert_int_equal(f.calls, 1);
    assert_int_equal(f.value, PVPANIC_PANICKED);
    rig_outb(&f.rig, PVPANIC_PORT, 0x02);
    assert_int_equal(f.panic.events, 3);
    pvpanic_init(&fresh, NULL, NULL);
    rig_round_trip(&pvpanic_ops, &f.panic, &fresh);
    assert_int_equal(fresh.events, 3);
    pvpanic_ops.reset(&fresh);
    assert_int_equal(fresh.events, 0);
}

static void test_post(void **state)
{
    static struct post fresh;

    rig_outb(&f.rig, 0x80, 0x5a);
    rig_outb(&f.rig, 0xed, 0x77);
    assert_int_equal(rig_inb(&f.rig, 0x80), 0x5a);
    assert_int_equal(rig_inb(&f.rig, 0xed), 0xff);
    post_init(&fresh);
    rig_round_trip(&post_ops, &f.post, &fresh);
    assert_int_equal(fresh.code, 0x5a);
    post_ops.reset(&fresh);
    assert_int_equal(fresh.code, 0);
}

/* chip 1's registers are two ports apart. */
static uint16_t dma_port(unsigned chip, unsigned reg) { return (uint16_t)(chip ? 0xc0 + 2 * reg : reg); }

static void test_dma(void **state)
{
    static struct dma8237 fresh;

    for (unsigned chip = 0; chip < 2; chip++) {
        rig_outb(&f.rig, dma_port(chip, 12), 0);
        for (unsigned reg = 0; reg < 8; reg++) {
            rig_outb(&f.rig, dma_port(chip, reg), (uint8_t)(0x10 + reg));
            rig_outb(&f.rig, dma_port(chip, reg), (uint8_t)(0x80 + reg));
        }
        for (unsigned reg = 0; reg < 8; reg++) {
            assert_int_equal(rig_inb(&f.rig, dma_port(chip, reg)), 0x10 + reg);
            assert_int_equal(rig_inb(&f.rig, dma_port(chip, reg)), 0x80 + reg);
        }
        assert_int_equal(rig_inb(&f.rig, dma_port(chip, 15)), 0xff);
        rig_outb(&f.rig, dma_port(chip, 10), 0x02); /* unmask channel 2 */
        assert_int_equal(rig_inb(&f.rig, dma_port(chip, 15)), 0xfb);
        rig_outb(&f.rig, dma_port(chip, 10), 0x00);
        rig_outb(&f.rig, dma_port(chip, 10), 0x06); /* and mask it again */
        assert_int_equal(rig_inb(&f.rig, dma_port(chip, 15)), 0xfe);
        rig_outb(&f.rig, dma_port(chip, 9), 0x05); /* software requests on 1 and 3 */
        rig_outb(&f.rig, dma_port(chip, 9), 0x07);
        assert_int_equal(rig_inb(&f.rig, dma_port(chip, 8)), 0xa0);
        rig_outb(&f.rig, dma_port(chip, 9), 0x03);
        assert_int_equal(rig_inb(&f.rig, dma_port(chip, 8)), 0x20);
        rig_inb(&f.rig, dma_port(chip, 0));
        rig_outb(&f.rig, dma_port(chip, 13), 0); /* master clear */
        assert_int_equal(rig_inb(&f.rig, dma_port(chip, 15)), 0xff);
        assert_int_equal(rig_inb(&f.rig, dma_port(chip, 8)), 0);
        assert_int_equal(rig_inb(&f.rig, dma_port(chip, 0)), 0x10);
        rig_outb(&f.rig, dma_port(chip, 14), 0);
        assert_int_equal(rig_inb(&f.rig, dma_port(chip, 15)), 0xf0);
    }
    for (unsigned p = 0x81; p < 0x90; p++)
        rig_outb(&f.rig, (uint16_t)p, (uint8_t)~p);
    for (unsigned p = 0x81; p < 0x90; p++)
        assert_int_equal(rig_inb(&f.rig, (uint16_t)p), (uint8_t)~p);
    dma8237_init(&fresh);
    rig_round_trip(&dma8237_ops, &f.dma, &fresh);
    assert_int_equal(fresh.page[15], (uint8_t)~0x8f);
    dma8237_ops.reset(&f.dma);
    assert_int_equal(rig_inb(&f.rig, 0x83), 0);
    assert_int_equal(rig_inb(&f.rig, 0x00), 0);
}

static int attach_post(void *dev) { return post_attach(&f.post, &f.rig.io); }
static int attach_dma(void *dev) { return dma8237_attach(&f.dma, &f.rig.io); }

static void test_attach(void **state)
{
    bus_init(&f.rig.io, "io", &f.rig.loop, 0x10000);
    assert_int_equal(attach_post(NULL), 0);
    rig_attach_conflicts(&f.rig.io, attach_post, NULL);
    bus_init(&f.rig.io, "io", &f.rig.loop, 0x10000);
    assert_int_equal(attach_dma(NULL), 0);
    rig_attach_conflicts(&f.rig.io, attach_dma, NULL);
}

static void test_fuzz(void **state)
{
    rig_fuzz(&f.rig, &f.rig.io, 0x00, 16, 200000);
    rig_fuzz(&f.rig, &f.rig.io, 0xc0, 0x38, 200000);
    rig_fuzz(&f.rig, &f.rig.io, 0x80, 16, 200000);
    rig_fuzz(&f.rig, &f.rig.io, 0x500, 8, 200000);
    rig_fuzz_state(&f.rig, &dma8237_ops, &f.dma, &f.rig.io, 0, 16, 1000);
    rig_fuzz_state(&f.rig, &post_ops, &f.post, &f.rig.io, 0x80, 1, 1000);
    rig_fuzz_state(&f.rig, &pvpanic_ops, &f.panic, &f.rig.io, 0x505, 1, 1000);
    rig_fuzz_state(&f.rig, &debug_exit_ops, &f.exit, &f.rig.io, 0xf4, 4, 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_debug_exit, setup, teardown),
        cmocka_unit_test_setup_teardown(test_debugcon, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pvpanic, setup, teardown),
        cmocka_unit_test_setup_teardown(test_post, setup, teardown),
        cmocka_unit_test_setup_teardown(test_dma, setup, teardown),
        cmocka_unit_test_setup_teardown(test_attach, setup, teardown),
        cmocka_unit_test_setup_teardown(test_fuzz, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
