/* Between serial.c and serial_open.c only: opening and closing what is behind a serial port. */
#ifndef VITRO_MACHINE_SERIAL_OPEN_H
#define VITRO_MACHINE_SERIAL_OPEN_H

#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>

struct serial;

/* write(2) that never blocks and never raises SIGPIPE. */
ssize_t serial_write(int fd, const uint8_t *data, size_t len);

/* Close the output of a port whose input is another descriptor. */
void serial_close_out(struct serial *s);

#endif
