/* What every device offers to the machine: life cycle and described state.
 * All calls are made with the device lock held. A device of type T has a `static const struct
 * device_ops`, and T_init() (embedded) or T_create() (owned). */
#ifndef VITRO_BUS_DEVICE_H
#define VITRO_BUS_DEVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;
struct state_desc;

/* State that has no fixed size: bytes of the device's own, in a section of their own behind that of `state`. */
struct device_more {
    const char *name; /* of the section */
    uint32_t version; /* of the bytes; 1 for the first */
    /* The bytes, at least one, *out is the caller's to free. shape: only what a machine must have that takes the whole later; the machine may
     * run. 0, or -errno with a sentence: it cannot be saved now. */
    int (*save)(void *dev, bool shape, uint8_t **out, size_t *len, struct err *err);
    /* Take them; they are hostile. After `state` was loaded, or, shape, of a device that is only asked whether it could. NULL: the saved machine
     * is from before there were any. 0, or -errno with a sentence; then the device is only good for destroy(). */
    int (*load)(void *dev, bool shape, const uint8_t *data, size_t len, struct err *err);
};

struct device_ops {
    const char *type;       /* stable name, used in saved state: "uart16550", "pit8254" ... */
    void (*reset)(void *dev);   /* to the state after power-on reset */
    void (*pause)(void *dev);   /* stop host activity: cancel timers, stop reading input; may be NULL */
    void (*resume)(void *dev);  /* guest time runs again: re-arm from the saved state; may be NULL */
    void (*destroy)(void *dev); /* release what the device owns, not the struct if it is embedded */
    const struct state_desc *state; /* never NULL */
    const struct device_more *more; /* or NULL */
};

struct device {
    const struct device_ops *ops;
    void *dev;
    unsigned instance; /* 0, 1 ... among devices of one type */
};

#endif
