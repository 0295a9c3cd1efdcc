/* The 16550A serial port. */
#ifndef VITRO_CHIP_UART16550_H
#define VITRO_CHIP_UART16550_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bus/bus.h"
#include "bus/device.h"
#include "bus/irq.h"

#define UART_FIFO 16

struct uart_fifo {
    uint8_t byte[UART_FIFO];
    uint8_t error[UART_FIFO]; /* LSR bits 2..4 of each byte */
    uint8_t head, count;
};

/* The host's side. Called with the device lock held; must not block. */
struct uart_backend {
    /* Take up to len bytes; returns how many were taken (0: none now, call uart_tx_ready() later), or
     * -errno: all are thrown away. NULL: the output goes nowhere. */
    int (*tx)(void *opaque, const uint8_t *data, size_t len);
    /* There is room for uart_receive() again. May be NULL. */
    void (*rx_ready)(void *opaque);
    void *opaque;
};

struct uart {
    uint8_t ier, fcr, lcr, mcr, lsr, msr, scr;
    uint16_t divisor;
    struct uart_fifo rx, tx;
    bool thr_irq; /* the "transmitter empty" interrupt is pending */
    bool irq_level;
    bool in_tx; /* inside backend.tx: not state */
    struct uart_backend backend;
    struct irq_line irq;
    struct bus_region ports;
};

extern const struct device_ops uart_ops; /* type "uart16550" */

void uart_init(struct uart *u, struct irq_line irq, struct uart_backend backend);
/* 8 ports at base (0x3F8, 0x2F8, 0x3E8, 0x2E8). 0 or -errno. */
int uart_attach(struct uart *u, struct bus *io, uint16_t base);

/* The guest is ready for input: it raised RTS, or listens for received bytes. A back end that holds its input until then
 * (rx_ready is called) loses nothing to drivers that empty the FIFOs when they start. */
bool uart_wants_input(const struct uart *u);
/* How many bytes uart_receive() takes now: 0 while the guest has not read the last ones. */
size_t uart_can_receive(const struct uart *u);
/* Bytes from the host; what goes beyond uart_can_receive() is lost and shown as an overrun. Returns the
 * number taken. Device lock held. */
size_t uart_receive(struct uart *u, const uint8_t *data, size_t len);
/* A break condition on the line (the guest's SysRq). */
void uart_break(struct uart *u);
/* The backend takes output again. */
void uart_tx_ready(struct uart *u);

#endif
