/* The host's end of a serial port: stdio, nothing, a file, a unix socket, a pseudo-terminal, or only who taps it.
 *
 * Nothing here ever blocks: descriptors are non-blocking, buffers are bounded. Output that the host does not
 * take is held back in the guest's device (stdio, file; others if `lossless`) or dropped (unix, pty: nobody
 * may be there at all).
 *
 * Thread: everything with the device lock held, on the loop's thread or on a vCPU's (the UART's calls).
 */
#ifndef VITRO_MACHINE_SERIAL_H
#define VITRO_MACHINE_SERIAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/loop.h"
#include "chip/uart16550.h"

struct err;

#define SERIAL_OUT 65536
#define SERIAL_IN  4096

enum serial_kind { SERIAL_NONE, SERIAL_STDIO, SERIAL_OUTFILE, SERIAL_UNIX, SERIAL_PTY, SERIAL_CONTROL };

/* The guest's device at the other end. All calls with the device lock held. */
struct serial_peer {
    /* How many bytes receive() may take now: 0 while the guest is not ready for input. */
    size_t (*room)(void *opaque);
    size_t (*receive)(void *opaque, const uint8_t *data, size_t len);
    void (*tx_ready)(void *opaque); /* after the back end took less than it was given */
    void (*opened)(void *opaque);   /* what serial_is_open() says has changed; may be NULL */
    void *opaque;
};

/* Looks at input before the guest does: removes what is not for the guest, returns what is left (at most
 * len). */
struct serial_filter {
    size_t (*fn)(void *opaque, uint8_t *data, size_t len);
    void *opaque;
};

/* Who sees what the guest writes, beside the port's own end, and may type. Device lock held; any thread. */
struct serial_tap {
    void (*out)(void *opaque, const uint8_t *data, size_t len); /* must not block */
    void (*room)(void *opaque);                                 /* serial_type() may take more than last time */
    void *opaque;
};

/* One descriptor, watched for some events; regular files are always ready and are not watched. */
struct serial_fd {
    struct loop_fd watch;
    uint32_t events; /* asked for now; 0: not watched */
    bool unwatchable;
};

struct serial {
    enum serial_kind kind;
    struct loop *loop;
    struct serial_peer peer;
    bool lossless; /* unix, pty: a reader that stands still stops the guest's writer, too */
    struct serial_filter filter;
    struct serial_tap tap;
    bool crowded; /* serial_type() could not take all */
    struct serial_fd in, out; /* the same descriptor for unix and pty: only `in` is watched then */
    int listen_fd;            /* unix */
    struct loop_fd listen;
    int keep_fd;  /* pty: the slave, kept open so that the master never hangs up */
    char *path;   /* unix: to be removed at the end; pty: the slave's name; file: its name */
    bool created; /* file: it was not there before */
    dev_t dev;    /* unix: the socket that we made, so that no other is removed */
    ino_t ino;
    size_t out_head, out_len, in_head, in_len;
    bool in_eof, started, held; /* held: the UART waits for uart_tx_ready() */
    uint8_t out_buf[SERIAL_OUT], in_buf[SERIAL_IN];
};

/* A port that is connected to nothing yet: kind SERIAL_NONE. */
void serial_init(struct serial *s, struct loop *loop);

/* Open what spec names ("stdio", "none", "file:PATH", "unix:PATH", "pty", "control"). name is for messages ("COM1").
 * Returns 0, or -errno with a sentence in err; serial_close() in both cases. */
int serial_open(struct serial *s, const char *spec, const char *name, struct err *err);
/* The machine never came to life: remove the file that serial_open() made. */
void serial_abandon(struct serial *s);

/* The UART's back end, good from serial_init() on; then tell the serial which UART it is, or which other
 * peer. */
struct uart_backend serial_backend(struct serial *s);
void serial_attach(struct serial *s, struct uart *uart);
void serial_attach_peer(struct serial *s, struct serial_peer peer);
/* Somebody could read what the guest writes: a socket has a peer, all others always. */
bool serial_is_open(const struct serial *s);
void serial_set_filter(struct serial *s, struct serial_filter filter);
/* Before serial_start(). A port that was connected to nothing becomes SERIAL_CONTROL. */
void serial_set_tap(struct serial *s, struct serial_tap tap);
/* Type for the guest, as if it came from the port's own end; returns how much was taken. */
size_t serial_type(struct serial *s, const uint8_t *data, size_t len);

/* Begin and stop reading. Device lock held, or no other thread yet. */
void serial_start(struct serial *s);
void serial_stop(struct serial *s);

/* Write out what is buffered, waiting at most timeout_ms in total. No vCPU runs. */
void serial_drain(struct serial *s, int timeout_ms);
/* Close and remove everything that serial_open() made. */
void serial_close(struct serial *s);

/* The name of the pty's slave or of the socket, or NULL. Borrowed. */
const char *serial_path(const struct serial *s);

#endif
