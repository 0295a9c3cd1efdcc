/* What every device offers to the machine: life cycle and described state.
 * All calls are made with the device lock held. A device of type T has a `static const struct
 * device_ops`, and T_init() (embedded) or T_create() (owned). */
#ifndef VITRO_BUS_DEVICE_H
#define VITRO_BUS_DEVICE_H

struct state_desc;

struct device_ops {
    const char *type;       /* stable name, used in saved state: "uart16550", "pit8254" ... */
    void (*reset)(void *dev);   /* to the state after power-on reset */
    void (*pause)(void *dev);   /* stop host activity: cancel timers, stop reading input; may be NULL */
    void (*resume)(void *dev);  /* guest time runs again: re-arm from the saved state; may be NULL */
    void (*destroy)(void *dev); /* release what the device owns, not the struct if it is embedded */
    const struct state_desc *state; /* never NULL */
};

struct device {
    const struct device_ops *ops;
    void *dev;
    unsigned instance; /* 0, 1 ... among devices of one type */
};

#endif
