/* The keyboard and the mouse behind the i8042: what they answer to commands, and their queues. */
#ifndef VITRO_CHIP_PS2_H
#define VITRO_CHIP_PS2_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "state/state.h"

#define PS2_QUEUE 32

/* Bytes that a device or the controller has for the host. */
struct ps2_queue {
    uint8_t byte[PS2_QUEUE];
    uint8_t head, count;
};

struct ps2_kbd {
    struct ps2_queue q;
    uint8_t expect; /* command whose parameter comes next; 0: none */
    uint8_t last;   /* last byte sent, for "resend" */
    uint8_t leds, rate;
    bool scanning;
};

struct ps2_mouse {
    struct ps2_queue q;
    uint8_t expect;
    uint8_t last;
    uint8_t id; /* 0: three buttons; 3: wheel; 4: five buttons */
    uint8_t rate, resolution;
    uint8_t knock[3]; /* last three sample rates */
    uint8_t buttons;
    bool scaling, remote, wrap, reporting;
};

/* For the owner's state description. */
extern const struct state_desc ps2_kbd_state, ps2_mouse_state;

/* Take a byte out; the queue must not be empty. */
uint8_t ps2_pop(struct ps2_queue *q);

/* Power-on state. */
void ps2_kbd_reset(struct ps2_kbd *d);
void ps2_mouse_reset(struct ps2_mouse *m);

/* A byte from the host; the answer goes into the queue. */
void ps2_kbd_write(struct ps2_kbd *d, uint8_t v);
void ps2_mouse_write(struct ps2_mouse *m, uint8_t v);

/* Input: see i8042_key() and i8042_move(). */
bool ps2_kbd_key(struct ps2_kbd *d, const uint8_t *set2, size_t len);
bool ps2_mouse_move(struct ps2_mouse *m, int dx, int dy, int dz, uint8_t buttons);

#endif
