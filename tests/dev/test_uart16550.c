/* The UART: transmit with and without back-pressure, receive and trigger levels, interrupt identification and
 * priorities, loopback, modem lines, line errors, and what Linux's probe looks at. */
#include <errno.h>
#include <string.h>

#include "base/bits.h"
#include "chip/uart16550.h"
#include "rig.h"

enum { IRQ4 = 0 };
enum { DATA, IER, IIR, LCR, MCR, LSR, MSR, SCR, FCR = 2 };
#define BASE 0x3f8

struct fixture {
    struct rig rig;
    struct uart u;
    uint8_t out[4096];
    size_t out_len;
    int accept; /* bytes the backend takes: -1 all */
    unsigned rx_ready;
};

static struct fixture f;

static int tx(void *opaque, const uint8_t *d, size_t len)
{
    struct fixture *x = opaque;
    size_t n = x->accept < 0 || (size_t)x->accept > len ? len : (size_t)x->accept;

    if (x->accept == -EIO)
        return -EIO;
    if (x->out_len + n > sizeof(x->out))
        x->out_len = 0;
    memcpy(x->out + x->out_len, d, n);
    x->out_len += n;
    if (x->accept > 0)
        x->accept -= (int)n;
    return (int)n;
}

static void rx_ready(void *opaque) { ((struct fixture *)opaque)->rx_ready++; }

static int tx_again(void *opaque, const uint8_t *d, size_t len)
{
    int n = tx(opaque, d, len);
    uart_tx_ready(&f.u);
    return n;
}

static int tx_too_much(void *opaque, const uint8_t *d, size_t len) { return (int)len + 5; }

static int setup(void **state)
{
    struct uart_backend b = { .tx = tx, .rx_ready = rx_ready, .opaque = &f };

    memset(&f, 0, sizeof(f));
    f.accept = -1;
    rig_init(&f.rig, 0);
    uart_init(&f.u, rig_irq(&f.rig, IRQ4), b);
    assert_int_equal(uart_attach(&f.u, &f.rig.io, BASE), 0);
    return 0;
}

static int attach(void *dev) { return uart_attach(&f.u, &f.rig.io, BASE); }

static int teardown(void **state)
{
    rig_fini(&f.rig);
    return 0;
}

static uint8_t get(unsigned reg) { return rig_inb(&f.rig, (uint16_t)(BASE + reg)); }
static void put(unsigned reg, uint8_t v) { rig_outb(&f.rig, (uint16_t)(BASE + reg), v); }

static void receive(const char *s)
{
    assert_int_equal(uart_receive(&f.u, (const uint8_t *)s, strlen(s)), strlen(s));
}

static void test_registers(void **state)
{
    assert_int_equal(get(LSR), 0x60);
    assert_int_equal(get(IIR), 0x01);
    assert_int_equal(get(MSR), 0xb0);
    put(SCR, 0xa5);
    assert_int_equal(get(SCR), 0xa5);
    put(IER, 0xff);
    assert_int_equal(get(IER), 0x0f);
    put(MCR, 0xff);
    assert_int_equal(get(MCR), 0x1f);
    put(LCR, 0x83);
    put(DATA, 0x34);
    put(IER, 0x12);
    assert_int_equal(get(DATA), 0x34);
    assert_int_equal(get(IER), 0x12);
    put(LCR, 0x03);
    assert_int_equal(get(IER), 0x0f);
    assert_int_equal(get(LCR), 0x03);
    put(FCR, 0x01);
    assert_int_equal(get(IIR) & 0xc0, 0xc0);
    put(FCR, 0xc0); /* nothing but bit 0 counts without bit 0 */
    assert_int_equal(get(IIR) & 0xc0, 0);
    assert_int_equal(f.out_len, 0); /* the divisor was not sent */
}

static void test_linux_probe(void **state)
{
    /* autoconfig(): IER can be cleared and set, the loopback shows the modem outputs, 16550A by IIR. */
    put(IER, 0);
    assert_int_equal(get(IER) & 0x0f, 0);
    put(IER, 0x0f);
    assert_int_equal(get(IER) & 0x0f, 0x0f);
    put(IER, 0);
    put(MCR, 0x1a);
    assert_int_equal(get(MSR) & 0xf0, 0x90);
    put(MCR, 0);
    put(FCR, 0x01);
    assert_int_equal(get(IIR) >> 6, 3);
    put(IER, 0x40); /* no XScale: the bit does not stick */
    assert_int_equal(get(IER), 0);
    put(MCR, 0x08);
    /* startup(): the transmit interrupt comes twice when enabled twice. */
    put(IER, 0x02);
    assert_int_equal(get(IIR), 0xc2);
    assert_int_equal(get(IIR), 0xc1);
    put(IER, 0);
    put(IER, 0x02);
    assert_int_equal(get(IIR), 0xc2);
}

static void test_transmit(void **state)
{
    put(MCR, 0x08);
    put(IER, 0x02);
    assert_line(&f.rig, IRQ4, true);
    assert_int_equal(get(IIR), 0x02);
    assert_line(&f.rig, IRQ4, false);
    put(DATA, 'h');
    assert_line(&f.rig, IRQ4, true); /* gone already: empty again */
    assert_int_equal(get(LSR), 0x60);
    put(DATA, 'i');
    assert_int_equal(get(IIR), 0x02);
    assert_memory_equal(f.out, "hi", 2);
    put(MCR, 0x00); /* OUT2 gates the line, not the identification */
    put(DATA, '!');
    assert_line(&f.rig, IRQ4, false);
    assert_int_equal(get(IIR), 0x02);
}

static void test_transmit_back_pressure(void **state)
{
    put(MCR, 0x08);
    put(FCR, 0x01);
    put(IER, 0x02);
    get(IIR);
    f.accept = 0;
    for (unsigned i = 0; i < 20; i++) /* the guest is never held; what the FIFO cannot hold is lost */
        put(DATA, (uint8_t)('a' + i));
    assert_int_equal(get(LSR) & 0x60, 0);
    assert_line(&f.rig, IRQ4, false);
    f.accept = 5;
    uart_tx_ready(&f.u);
    assert_int_equal(f.out_len, 5);
    assert_int_equal(get(LSR) & 0x60, 0);
    f.accept = -1;
    uart_tx_ready(&f.u);
    assert_int_equal(f.out_len, 16);
    assert_memory_equal(f.out, "abcdefghijklmnop", 16);
    assert_int_equal(get(LSR) & 0x60, 0x60);
    assert_line(&f.rig, IRQ4, true);
    f.accept = 0;
    put(DATA, 'x');
    put(FCR, 0x05); /* clearing the transmitter's FIFO throws it away */
    assert_int_equal(get(LSR) & 0x60, 0x60);
    f.accept = -EIO; /* a dead backend: everything goes to nowhere */
    put(DATA, 'y');
    assert_int_equal(get(LSR) & 0x60, 0x60);
    assert_int_equal(f.out_len, 16);
}

static void test_receive_character_mode(void **state)
{
    put(MCR, 0x08);
    put(IER, 0x01);
    assert_int_equal(uart_can_receive(&f.u), 1);
    receive("A");
    assert_int_equal(uart_can_receive(&f.u), 0);
    assert_line(&f.rig, IRQ4, true);
    assert_int_equal(get(IIR), 0x04);
    assert_int_equal(get(LSR), 0x61);
    assert_int_equal(uart_receive(&f.u, (const uint8_t *)"B", 1), 0);
    assert_int_equal(get(LSR), 0x63); /* overrun */
    assert_int_equal(get(LSR), 0x61);
    f.rx_ready = 0;
    assert_int_equal(get(DATA), 'A');
    assert_int_equal(f.rx_ready, 1);
    assert_line(&f.rig, IRQ4, false);
    assert_int_equal(get(LSR), 0x60);
}

static void test_receive_fifo(void **state)
{
    static const uint8_t level[4] = { 1, 4, 8, 14 };

    put(MCR, 0x08);
    put(IER, 0x01);
    for (unsigned i = 0; i < 4; i++) {
        put(FCR, (uint8_t)(0x03 | i << 6));
        for (unsigned n = 1; n <= UART_FIFO; n++) {
            receive("x");
            assert_int_equal(get(IIR), n < level[i] ? 0xcc : 0xc4);
            assert_line(&f.rig, IRQ4, true);
        }
        assert_int_equal(uart_can_receive(&f.u), 0);
        f.rx_ready = 0;
        for (unsigned n = UART_FIFO; n > 0; n--) {
            assert_int_equal(get(LSR) & 1, 1);
            get(DATA);
        }
        assert_int_equal(f.rx_ready, 1);
        assert_int_equal(get(IIR), 0xc1);
        assert_line(&f.rig, IRQ4, false);
    }
    receive("hello");
    char s[6] = { 0 };
    for (unsigned i = 0; i < 5; i++)
        s[i] = (char)get(DATA);
    assert_string_equal(s, "hello");
    receive("junk");
    put(FCR, 0x03); /* receiver reset */
    assert_int_equal(get(LSR), 0x60);
    receive("junk");
    put(FCR, 0x00); /* leaving FIFO mode clears both */
    assert_int_equal(get(LSR), 0x60);
}

static void test_priorities(void **state)
{
    put(FCR, 0x81);
    put(MCR, 0x08);
    put(IER, 0x0f);
    put(MCR, 0x18); /* loopback with OUT2: CTS and DSR fall */
    assert_int_equal(f.u.msr & 0x0f, 0x03);
    put(MCR, 0x08);
    receive("abcdefgh");
    uart_receive(&f.u, (const uint8_t *)"0123456789", 10); /* overrun */
    assert_int_equal(get(IIR), 0xc6);
    assert_int_equal(get(IIR), 0xc6);
    assert_int_equal(get(LSR) & 0x02, 0x02);
    assert_int_equal(get(IIR), 0xc4);
    for (unsigned i = 0; i < 9; i++)
        get(DATA);
    assert_int_equal(get(IIR), 0xcc);
    for (unsigned i = 0; i < 7; i++)
        get(DATA);
    assert_int_equal(get(IIR), 0xc2);
    assert_int_equal(get(IIR), 0xc0);
    assert_line(&f.rig, IRQ4, true);
    assert_int_equal(get(MSR) & 0x0f, 0x03);
    assert_int_equal(get(IIR), 0xc1);
    assert_line(&f.rig, IRQ4, false);
}

static void test_loopback(void **state)
{
    put(FCR, 0x01);
    put(MCR, 0x10);
    assert_int_equal(uart_can_receive(&f.u), 0); /* the input pin is off */
    assert_int_equal(uart_receive(&f.u, (const uint8_t *)"z", 1), 0);
    for (unsigned i = 0; i < 3; i++)
        put(DATA, (uint8_t)('p' + i));
    assert_int_equal(f.out_len, 0);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(get(DATA), 'p' + i);
    put(IER, 0x02);
    assert_int_equal(get(IIR), 0xc2);
    put(DATA, 'q'); /* it has left the transmitter again */
    assert_int_equal(get(IIR), 0xc2);
    put(IER, 0x00);
    get(DATA);
    get(MSR);
    for (unsigned m = 0; m < 16; m++) {
        put(MCR, (uint8_t)(0x10 | m));
        uint8_t want =
            (uint8_t)((m & 2 ? 0x10 : 0) | (m & 1 ? 0x20 : 0) | (m & 4 ? 0x40 : 0) | (m & 8 ? 0x80 : 0));
        assert_int_equal(get(MSR) & 0xf0, want);
    }
    put(MCR, 0x14);
    get(MSR);
    put(MCR, 0x10);
    assert_int_equal(get(MSR), 0x04); /* the ring's trailing edge */
    put(MCR, 0x14);
    assert_int_equal(get(MSR), 0x40); /* the leading one does not count */
    f.rx_ready = 0;
    put(MCR, 0x00);
    assert_int_equal(f.rx_ready, 1);
    assert_int_equal(get(MSR), 0xbf);
}

static void test_break(void **state)
{
    put(FCR, 0x01);
    put(MCR, 0x08);
    put(IER, 0x04);
    receive("a");
    uart_break(&f.u);
    receive("b");
    assert_line(&f.rig, IRQ4, false); /* not at the top yet */
    assert_int_equal(get(LSR), 0xe1);
    assert_int_equal(get(DATA), 'a');
    assert_line(&f.rig, IRQ4, true);
    assert_int_equal(get(IIR), 0xc6);
    assert_int_equal(get(LSR), 0xf9);
    assert_line(&f.rig, IRQ4, false);
    assert_int_equal(get(LSR), 0x61);
    assert_int_equal(get(DATA), 0);
    assert_int_equal(get(DATA), 'b');
    assert_int_equal(get(LSR), 0x60);
    uart_break(&f.u); /* into an empty FIFO: at the top at once */
    assert_line(&f.rig, IRQ4, true);
    assert_int_equal(get(LSR), 0xf9);
}

static void test_state(void **state)
{
    static struct uart fresh;

    put(FCR, 0x81);
    put(MCR, 0x0b);
    put(IER, 0x0f);
    put(LCR, 0x83);
    put(DATA, 1);
    receive("hello");
    f.accept = 0;
    put(LCR, 0x03);
    put(DATA, 'Q');
    uart_init(&fresh, rig_irq(&f.rig, 1), (struct uart_backend){ .tx = tx, .opaque = &f });
    rig_round_trip(&uart_ops, &f.u, &fresh);
    assert_line(&f.rig, 1, true);
    f.accept = -1;
    uart_tx_ready(&fresh); /* the byte that waited goes out after the restore */
    assert_int_equal(f.out_len, 1);
    assert_int_equal(f.out[0], 'Q');
    bus_remove(&f.rig.io, &f.u.ports);
    assert_int_equal(uart_attach(&fresh, &f.rig.io, BASE), 0);
    assert_int_equal(get(DATA), 'h');
    uart_ops.reset(&fresh);
    assert_line(&f.rig, 1, false);
    assert_int_equal(get(LSR), 0x60);
    assert_int_equal(get(IIR), 0x01);
}

static void test_attach(void **state) { rig_attach_conflicts(&f.rig.io, attach, NULL); }

static void test_backend_calls_back(void **state)
{
    /* A backend that drains its queue inside tx must not see the same bytes twice. */
    f.u.backend.tx = tx_again;
    put(FCR, 0x01);
    for (unsigned i = 0; i < 5; i++)
        put(DATA, (uint8_t)('0' + i));
    assert_memory_equal(f.out, "01234", 5);
    assert_int_equal(f.out_len, 5);
    f.u.backend.tx = tx_too_much; /* nor may one that claims more than it was given do harm */
    put(DATA, '5');
    assert_int_equal(get(LSR), 0x60);
    assert_int_equal(f.u.tx.count, 0);
    f.u.backend.tx = tx;
    f.accept = 0;
    for (unsigned i = 0; i < 16; i++) /* the FIFO wraps */
        put(DATA, (uint8_t)('a' + i));
    f.accept = -1;
    uart_tx_ready(&f.u);
    assert_int_equal(f.out_len, 21);
    assert_memory_equal(f.out + 5, "abcdefghijklmnop", 16);
    f.accept = 0;
    put(DATA, 'x');
    uart_ops.reset(&f.u);
    f.accept = -1;
    uart_tx_ready(&f.u);
    assert_int_equal(f.out_len, 21); /* a reset throws away what waits */
    f.rx_ready = 0;
    uart_ops.resume(&f.u);
    assert_int_equal(f.rx_ready, 1);
}

static void test_fuzz(void **state)
{
    for (unsigned i = 0; i < 20000; i++) {
        uint64_t x = rig_random(&f.rig);
        f.accept = (int)(x & 7) - 1;
        size_t room = uart_can_receive(&f.u), n = uart_receive(&f.u, (const uint8_t *)&x, x >> 3 & 7);
        assert_true(n <= room);
        if (x & 0x800)
            uart_break(&f.u);
        if (x & 0x1000)
            uart_tx_ready(&f.u);
        rig_fuzz(&f.rig, &f.rig.io, BASE, 8, 10);
        assert_true(f.u.rx.count <= UART_FIFO && f.u.tx.count <= UART_FIFO);
    }
    rig_fuzz_state(&f.rig, &uart_ops, &f.u, &f.rig.io, BASE, 8, 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_registers, setup, teardown),
        cmocka_unit_test_setup_teardown(test_linux_probe, setup, teardown),
        cmocka_unit_test_setup_teardown(test_transmit, setup, teardown),
        cmocka_unit_test_setup_teardown(test_transmit_back_pressure, setup, teardown),
        cmocka_unit_test_setup_teardown(test_receive_character_mode, setup, teardown),
        cmocka_unit_test_setup_teardown(test_receive_fifo, setup, teardown),
        cmocka_unit_test_setup_teardown(test_priorities, setup, teardown),
        cmocka_unit_test_setup_teardown(test_loopback, setup, teardown),
        cmocka_unit_test_setup_teardown(test_break, setup, teardown),
        cmocka_unit_test_setup_teardown(test_state, setup, teardown),
        cmocka_unit_test_setup_teardown(test_attach, setup, teardown),
        cmocka_unit_test_setup_teardown(test_backend_calls_back, setup, teardown),
        cmocka_unit_test_setup_teardown(test_fuzz, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
