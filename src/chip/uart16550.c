/* Models: a National PC16550D UART with 16-byte FIFOs, its interrupt gated by OUT2 as on the PC.
 * Source: PC16550D datasheet (registers, FIFO interrupt and polled operation, loopback).
 * Runs on: vCPU threads through the bus; the backend calls in with the device lock held.
 *
 * There is no baud rate: a byte leaves as soon as the backend takes it, and a character timeout comes at
 * once. While the backend takes nothing, THRE stays low, as with a transmitter that is held by flow
 * control; the guest never waits inside a port access.
 */
#include "chip/uart16550.h"

#include <errno.h>
#include <string.h>

#include "base/bits.h"
#include "base/err.h"
#include "state/state.h"

enum { REG_DATA, REG_IER, REG_IIR_FCR, REG_LCR, REG_MCR, REG_LSR, REG_MSR, REG_SCR };
enum { IER_RX = 0x01, IER_TX = 0x02, IER_LINE = 0x04, IER_MODEM = 0x08, IER_ALL = 0x0f };
enum {
    IIR_MODEM = 0x00,
    IIR_NONE = 0x01,
    IIR_TX = 0x02,
    IIR_RX = 0x04,
    IIR_LINE = 0x06,
    IIR_TIMEOUT = 0x0c,
    IIR_FIFO = 0xc0
};
enum { FCR_ENABLE = 0x01, FCR_CLEAR_RX = 0x02, FCR_CLEAR_TX = 0x04, FCR_KEPT = 0xc9 };
enum { LCR_DLAB = 0x80 };
enum { MCR_DTR = 0x01, MCR_RTS = 0x02, MCR_OUT1 = 0x04, MCR_OUT2 = 0x08, MCR_LOOP = 0x10, MCR_ALL = 0x1f };
enum {
    LSR_DR = 0x01,
    LSR_OE = 0x02,
    LSR_PE = 0x04,
    LSR_FE = 0x08,
    LSR_BI = 0x10,
    LSR_THRE = 0x20,
    LSR_TEMT = 0x40,
    LSR_FIFO_ERROR = 0x80,
    LSR_ERRORS = LSR_OE | LSR_PE | LSR_FE | LSR_BI
};
enum {
    MSR_DCTS = 0x01,
    MSR_DDSR = 0x02,
    MSR_TERI = 0x04,
    MSR_DDCD = 0x08,
    MSR_DELTAS = 0x0f,
    MSR_CTS = 0x10,
    MSR_DSR = 0x20,
    MSR_RI = 0x40,
    MSR_DCD = 0x80
};

static bool uart_fifo_on(const struct uart *u) { return u->fcr & FCR_ENABLE; }

static unsigned uart_depth(const struct uart *u) { return uart_fifo_on(u) ? UART_FIFO : 1; }

static unsigned uart_trigger(const struct uart *u)
{
    static const uint8_t level[4] = { 1, 4, 8, 14 };
    return uart_fifo_on(u) ? level[u->fcr >> 6] : 1;
}

/* ---- interrupts ---- */

/* The highest-priority interrupt that is pending and enabled. */
static uint8_t uart_pending(const struct uart *u)
{
    if ((u->ier & IER_LINE) && (u->lsr & LSR_ERRORS))
        return IIR_LINE;
    if ((u->ier & IER_RX) && u->rx.count >= uart_trigger(u))
        return IIR_RX;
    if ((u->ier & IER_RX) && u->rx.count)
        return IIR_TIMEOUT;
    if ((u->ier & IER_TX) && u->thr_irq)
        return IIR_TX;
    if ((u->ier & IER_MODEM) && (u->msr & MSR_DELTAS))
        return IIR_MODEM;
    return IIR_NONE;
}

static void uart_update(struct uart *u)
{
    bool level = (u->mcr & MCR_OUT2) && uart_pending(u) != IIR_NONE;

    if (level != u->irq_level) {
        u->irq_level = level;
        irq_set(&u->irq, level);
    }
}

/* ---- receiver ---- */

static void uart_fifo_clear(struct uart_fifo *f) { f->head = f->count = 0; }

/* The errors of the byte that has come to the top become visible in the LSR. */
static void uart_show_top(struct uart *u)
{
    if (u->rx.count)
        u->lsr |= u->rx.error[u->rx.head];
}

static bool uart_push(struct uart *u, uint8_t v, uint8_t error)
{
    struct uart_fifo *f = &u->rx;

    if (f->count >= uart_depth(u)) {
        u->lsr |= LSR_OE;
        return false;
    }
    unsigned at = (f->head + f->count) % UART_FIFO;
    f->byte[at] = v;
    f->error[at] = error;
    if (f->count++ == 0)
        uart_show_top(u);
    return true;
}

bool uart_wants_input(const struct uart *u)
{
    /* Drivers that look for the chip write all of IER's bits for a moment. */
    return !(u->mcr & MCR_LOOP) && ((u->mcr & MCR_RTS) || ((u->ier & IER_RX) && u->ier != IER_ALL));
}

size_t uart_can_receive(const struct uart *u)
{
    /* In loopback the input pin is disconnected. */
    if ((u->mcr & MCR_LOOP) || u->rx.count >= uart_depth(u))
        return 0;
    return uart_depth(u) - u->rx.count;
}

size_t uart_receive(struct uart *u, const uint8_t *data, size_t len)
{
    size_t n = 0;

    if (u->mcr & MCR_LOOP)
        return 0;
    while (n < len && uart_push(u, data[n], 0))
        n++;
    uart_update(u);
    return n;
}

void uart_break(struct uart *u)
{
    if (u->mcr & MCR_LOOP)
        return;
    uart_push(u, 0, LSR_BI | LSR_FE);
    uart_update(u);
}

static void uart_rx_ready(struct uart *u)
{
    if (u->backend.rx_ready && uart_can_receive(u))
        u->backend.rx_ready(u->backend.opaque);
}

static uint8_t uart_read_rbr(struct uart *u)
{
    struct uart_fifo *f = &u->rx;
    uint8_t v = f->byte[f->head]; /* reading an empty FIFO gives the last byte again */

    if (!f->count)
        return v;
    f->head = (f->head + 1) % UART_FIFO;
    f->count--;
    uart_show_top(u);
    uart_update(u);
    if (!f->count)
        uart_rx_ready(u);
    return v;
}

/* ---- transmitter ---- */

static void uart_tx_empty(struct uart *u)
{
    u->lsr |= LSR_THRE | LSR_TEMT;
    u->thr_irq = true;
}

static void uart_tx_flush(struct uart *u)
{
    struct uart_fifo *f = &u->tx;

    if (!f->count || u->in_tx)
        return;
    u->in_tx = true;
    while (f->count) {
        size_t run = f->head + f->count > UART_FIFO ? UART_FIFO - f->head : f->count;
        int n = u->backend.tx ? u->backend.tx(u->backend.opaque, f->byte + f->head, run) : (int)run;
        if (n < 0 || (size_t)n > run)
            n = (int)run;
        if (!n)
            break;
        f->head = (uint8_t)((f->head + n) % UART_FIFO);
        f->count -= (uint8_t)n;
    }
    u->in_tx = false;
    if (!f->count)
        uart_tx_empty(u);
}

void uart_tx_ready(struct uart *u)
{
    uart_tx_flush(u);
    uart_update(u);
}

static void uart_write_thr(struct uart *u, uint8_t v)
{
    struct uart_fifo *f = &u->tx;

    u->thr_irq = false;
    if (u->mcr & MCR_LOOP) {
        uart_push(u, v, 0);
        uart_tx_empty(u);
    } else if (f->count < uart_depth(u)) {
        f->byte[(f->head + f->count++) % UART_FIFO] = v;
        u->lsr &= ~(LSR_THRE | LSR_TEMT);
        uart_tx_flush(u);
    } /* else: written without looking at THRE: lost, as on the chip */
    uart_update(u);
}

/* ---- registers ---- */

static uint8_t uart_read_iir(struct uart *u)
{
    uint8_t v = uart_pending(u);

    if (v == IIR_TX) { /* reading it is the acknowledgement */
        u->thr_irq = false;
        uart_update(u);
    }
    return uart_fifo_on(u) ? v | IIR_FIFO : v;
}

static void uart_write_fcr(struct uart *u, uint8_t v)
{
    bool toggled = (v ^ u->fcr) & FCR_ENABLE;

    u->fcr = v & FCR_ENABLE ? v & FCR_KEPT : 0;
    if (toggled || (v & FCR_ENABLE && v & FCR_CLEAR_RX))
        uart_fifo_clear(&u->rx);
    if ((toggled || (v & FCR_ENABLE && v & FCR_CLEAR_TX)) && u->tx.count) {
        uart_fifo_clear(&u->tx);
        uart_tx_empty(u);
    }
    uart_update(u);
    if (!u->rx.count)
        uart_rx_ready(u);
}

static void uart_write_ier(struct uart *u, uint8_t v)
{
    /* Enabling the transmitter's interrupt while it is empty raises it at once. */
    if ((v & ~u->ier & IER_TX) && (u->lsr & LSR_THRE))
        u->thr_irq = true;
    u->ier = v & IER_ALL;
    uart_update(u);
}

/* The modem inputs: in loopback the modem outputs, else a cable to a terminal that is always there. */
static uint8_t uart_modem_inputs(const struct uart *u)
{
    uint8_t m = u->mcr;

    if (!(m & MCR_LOOP))
        return MSR_DCD | MSR_DSR | MSR_CTS;
    return (uint8_t)((m & MCR_RTS ? MSR_CTS : 0) | (m & MCR_DTR ? MSR_DSR : 0) | (m & MCR_OUT1 ? MSR_RI : 0) |
                     (m & MCR_OUT2 ? MSR_DCD : 0));
}

static void uart_write_mcr(struct uart *u, uint8_t v)
{
    bool wanted = uart_wants_input(u);
    bool left_loop = (u->mcr & MCR_LOOP) && !(v & MCR_LOOP);

    u->mcr = v & MCR_ALL;
    uint8_t in = uart_modem_inputs(u), changed = in ^ u->msr;
    u->msr = in | (u->msr & MSR_DELTAS);
    u->msr |= (uint8_t)((changed & (MSR_CTS | MSR_DSR | MSR_DCD)) >> 4);
    if ((changed & MSR_RI) && !(in & MSR_RI))
        u->msr |= MSR_TERI;
    uart_update(u);
    if (left_loop || (!wanted && uart_wants_input(u)))
        uart_rx_ready(u);
}

static uint8_t uart_read_lsr(struct uart *u)
{
    uint8_t v = u->lsr | (u->rx.count ? LSR_DR : 0);

    for (unsigned i = 0; uart_fifo_on(u) && i < u->rx.count; i++) {
        if (u->rx.error[(u->rx.head + i) % UART_FIFO])
            v |= LSR_FIFO_ERROR;
    }
    u->lsr &= ~LSR_ERRORS;
    if (u->rx.count)
        u->rx.error[u->rx.head] = 0;
    uart_update(u);
    return v;
}

static uint8_t uart_read_msr(struct uart *u)
{
    uint8_t v = u->msr;

    u->msr &= ~MSR_DELTAS;
    uart_update(u);
    return v;
}

static uint64_t uart_read(void *dev, uint64_t off, unsigned size)
{
    struct uart *u = dev;
    bool dlab = u->lcr & LCR_DLAB;

    switch (off) {
    case REG_DATA:
        return dlab ? u->divisor & 0xff : uart_read_rbr(u);
    case REG_IER:
        return dlab ? u->divisor >> 8 : u->ier;
    case REG_IIR_FCR:
        return uart_read_iir(u);
    case REG_LCR:
        return u->lcr;
    case REG_MCR:
        return u->mcr;
    case REG_LSR:
        return uart_read_lsr(u);
    case REG_MSR:
        return uart_read_msr(u);
    default:
        return u->scr;
    }
}

static void uart_write(void *dev, uint64_t off, uint64_t value, unsigned size)
{
    struct uart *u = dev;
    bool dlab = u->lcr & LCR_DLAB;
    uint8_t v = (uint8_t)value;

    switch (off) {
    case REG_DATA:
        if (dlab)
            u->divisor = (u->divisor & 0xff00) | v;
        else
            uart_write_thr(u, v);
        break;
    case REG_IER:
        if (dlab)
            u->divisor = (uint16_t)((u->divisor & 0xff) | v << 8);
        else
            uart_write_ier(u, v);
        break;
    case REG_IIR_FCR:
        uart_write_fcr(u, v);
        break;
    case REG_LCR:
        u->lcr = v;
        break;
    case REG_MCR:
        uart_write_mcr(u, v);
        break;
    case REG_SCR:
        u->scr = v;
        break;
    } /* LSR and MSR are for reading; factory tests apart */
}

static const struct bus_ops uart_bus = {
    .read = uart_read, .write = uart_write, .min_size = 1, .max_size = 1
};

/* ---- life cycle ---- */

static void uart_reset(void *dev)
{
    struct uart *u = dev;

    u->ier = u->fcr = u->lcr = u->mcr = 0;
    u->lsr = LSR_THRE | LSR_TEMT;
    u->msr = uart_modem_inputs(u);
    u->divisor = 12; /* the chip leaves it undefined: 9600 baud */
    u->thr_irq = false;
    memset(&u->rx, 0, sizeof(u->rx));
    memset(&u->tx, 0, sizeof(u->tx));
    uart_update(u);
    uart_rx_ready(u);
}

void uart_init(struct uart *u, struct irq_line irq, struct uart_backend backend)
{
    *u = (struct uart){
        .irq = irq,
        .ports = { .len = 8, .ops = &uart_bus, .dev = u, .name = "uart" },
    };
    uart_reset(u);
    u->backend = backend;
}

int uart_attach(struct uart *u, struct bus *io, uint16_t base)
{
    u->ports.base = base;
    return bus_add(io, &u->ports);
}

static void uart_resume(void *dev)
{
    struct uart *u = dev;

    irq_set(&u->irq, u->irq_level);
    uart_tx_ready(u);
    uart_rx_ready(u);
}

static void uart_destroy(void *dev) { (void)dev; }

static int uart_check(void *obj, struct err *err)
{
    struct uart *u = obj;
    unsigned depth = uart_depth(u);

    if (u->rx.head >= UART_FIFO || u->tx.head >= UART_FIFO || u->rx.count > depth || u->tx.count > depth)
        return err_set(err, EINVAL, "UART: impossible FIFO level");
    if ((u->fcr & ~FCR_KEPT) || (u->ier & ~IER_ALL) || (u->mcr & ~MCR_ALL))
        return err_set(err, EINVAL, "UART: reserved bits set");
    return 0;
}

static const struct state_field uart_fifo_fields[] = {
    STATE_FBYTES(struct uart_fifo, byte),
    STATE_FBYTES(struct uart_fifo, error),
    STATE_F8(struct uart_fifo, head),
    STATE_F8(struct uart_fifo, count),
    STATE_END,
};
static const struct state_desc uart_fifo_state = {
    .name = "uart-fifo", .version = 1, .size = sizeof(struct uart_fifo), .fields = uart_fifo_fields
};
static const struct state_field uart_fields[] = {
    STATE_F8(struct uart, ier),
    STATE_F8(struct uart, fcr),
    STATE_F8(struct uart, lcr),
    STATE_F8(struct uart, mcr),
    STATE_F8(struct uart, lsr),
    STATE_F8(struct uart, msr),
    STATE_F8(struct uart, scr),
    STATE_F16(struct uart, divisor),
    STATE_FSTRUCT(struct uart, rx, struct uart_fifo, uart_fifo_state),
    STATE_FSTRUCT(struct uart, tx, struct uart_fifo, uart_fifo_state),
    STATE_FBOOL(struct uart, thr_irq),
    STATE_FBOOL(struct uart, irq_level),
    STATE_END,
};
static const struct state_desc uart_state = {
    .name = "uart16550", .version = 1, .size = sizeof(struct uart), .fields = uart_fields, .check = uart_check
};

const struct device_ops uart_ops = {
    .type = "uart16550",
    .reset = uart_reset,
    .resume = uart_resume,
    .destroy = uart_destroy,
    .state = &uart_state,
};
