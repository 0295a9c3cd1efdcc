/* The virtio console with several ports: consoles (hvc0, hvc1 ... in Linux) and named byte channels
 * (/dev/virtio-ports/NAME).
 *
 * The host's end of a port is a back end that takes bytes and may refuse them for a while; nothing is
 * buffered here but what lies in the guest's own rings.
 */
#ifndef VITRO_VIRTIO_CONSOLE_H
#define VITRO_VIRTIO_CONSOLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/loop.h"
#include "bus/device.h"
#include "virtio/pci.h"

#define VCON_PORTS    9 /* port 0 is a console or absent; the rest is anything */
#define VCON_NAME_MAX 31

/* The host's side of a port. Called with the device lock held; must not block. */
struct vcon_backend {
    /* Take up to len bytes; returns how many were taken (fewer: call vcon_tx_ready() later), or -errno: all
     * are thrown away. */
    int (*tx)(void *opaque, const uint8_t *data, size_t len);
    /* There may be room for vcon_receive() again. */
    void (*rx_ready)(void *opaque);
    /* Somebody is there. NULL: always. */
    bool (*is_open)(void *opaque);
    void *opaque;
};

struct vcon_port {
    /* described state */
    uint8_t pending; /* control messages that the guest must get; VCON_TELL_* */
    bool ready;      /* the driver has the port */
    bool guest_open; /* and a program of the guest listens */
    bool told_open;  /* what the guest was told about our side */
    uint32_t tx_off; /* bytes of the first chain that the back end has taken */
    uint16_t cols, rows;
    /* fixed */
    bool present, console;
    char name[VCON_NAME_MAX + 1];
    struct vcon_backend backend;
};

struct virtio_console {
    struct virtio_pci vp;
    struct vcon_port port[VCON_PORTS];
    uint8_t config[12];
    struct timer again; /* a queue holds more than one exit may cost */
};

extern const struct device_ops virtio_console_ops; /* type "virtio-console" */

/* Not plugged yet, no ports yet. ports is the highest port number plus 1. 0 or -errno. */
int virtio_console_init(struct virtio_console *v, unsigned ports, struct loop *loop, struct ram *ram,
                        apic_deliver_fn deliver, void *deliver_opaque);
/* Before the machine runs. name "" : a console; port 0 must be one. 0, -EINVAL, -EEXIST. */
int virtio_console_add(struct virtio_console *v, unsigned n, const char *name, struct vcon_backend backend);

/* All with the device lock held. */
/* 0: the guest cannot take bytes; else try vcon_receive(). */
size_t vcon_room(struct virtio_console *v, unsigned n);
/* Bytes for the guest; returns how many it took. rx_ready comes when it has room again. */
size_t vcon_receive(struct virtio_console *v, unsigned n, const uint8_t *data, size_t len);
/* The back end takes output again. */
void vcon_tx_ready(struct virtio_console *v, unsigned n);
/* What is_open() says may have changed. */
void vcon_opened(struct virtio_console *v, unsigned n);
/* The window of a console has this size now. */
void vcon_resize(struct virtio_console *v, unsigned n, uint16_t cols, uint16_t rows);

#endif
