/* Models: an MF2 keyboard that knows scan code set 2, and a PS/2 mouse with wheel and five buttons.
 * Source: IBM PS/2 Hardware Interface Technical Reference, sections "Keyboard" and "Mouse"; Microsoft's
 * IntelliMouse note for the sample-rate knocks.
 * Runs on: any thread, under the device lock; called by the i8042 alone.
 */
#include "chip/ps2.h"

#include <errno.h>
#include <string.h>

#include "base/err.h"

enum { DEV_ACK = 0xfa, DEV_RESEND = 0xfe, DEV_BAT_OK = 0xaa };

/* ---- queues ---- */

static unsigned ps2_room(const struct ps2_queue *q) { return PS2_QUEUE - q->count; }

/* A full queue drops: a device whose answers nobody reads says no more. */
static void ps2_push(struct ps2_queue *q, uint8_t v)
{
    if (!ps2_room(q))
        return;
    q->byte[(q->head + q->count) % PS2_QUEUE] = v;
    q->count++;
}

uint8_t ps2_pop(struct ps2_queue *q)
{
    uint8_t v = q->byte[q->head];

    q->head = (q->head + 1) % PS2_QUEUE;
    q->count--;
    return v;
}

static void ps2_clear(struct ps2_queue *q) { q->head = q->count = 0; }

/* ---- keyboard ---- */

static void ps2_kbd_defaults(struct ps2_kbd *d)
{
    d->rate = 0x2b; /* 10.9 characters a second after half a second */
    d->expect = 0;
}

/* The parameter of ED, F0 or F3. Returns false if the byte is a command instead. */
static bool ps2_kbd_parameter(struct ps2_kbd *d, uint8_t v)
{
    uint8_t command = d->expect;

    d->expect = 0;
    if (v & 0x80)
        return false;
    if (command == 0xed) {
        d->leds = v & 7;
    } else if (command == 0xf3) {
        d->rate = v;
    } else if (v == 0) { /* F0 00: which set? */
        ps2_push(&d->q, DEV_ACK);
        ps2_push(&d->q, 2);
        return true;
    } else if (v != 2) {
        ps2_push(&d->q, DEV_RESEND);
        return true;
    }
    ps2_push(&d->q, DEV_ACK);
    return true;
}

void ps2_kbd_reset(struct ps2_kbd *d)
{
    ps2_clear(&d->q);
    ps2_kbd_defaults(d);
    d->leds = 0;
    d->scanning = true;
}

static void ps2_kbd_command(struct ps2_kbd *d, uint8_t v)
{
    switch (v) {
    case 0xed: /* indicators */
    case 0xf0: /* scan code set */
    case 0xf3: /* typematic */
        d->expect = v;
        break;
    case 0xee: /* echo */
        ps2_push(&d->q, 0xee);
        return;
    case 0xf2: /* identify */
        ps2_push(&d->q, DEV_ACK);
        ps2_push(&d->q, 0xab);
        ps2_push(&d->q, 0x83);
        return;
    case 0xf4:
        ps2_clear(&d->q);
        d->scanning = true;
        break;
    case 0xf5:
    case 0xf6:
        ps2_clear(&d->q);
        ps2_kbd_defaults(d);
        d->scanning = v == 0xf6;
        break;
    case 0xfe:
        ps2_push(&d->q, d->last);
        return;
    case 0xff:
        ps2_kbd_reset(d);
        ps2_push(&d->q, DEV_ACK);
        ps2_push(&d->q, DEV_BAT_OK);
        return;
    default:
        ps2_push(&d->q, DEV_RESEND);
        return;
    }
    ps2_push(&d->q, DEV_ACK);
}

void ps2_kbd_write(struct ps2_kbd *d, uint8_t v)
{
    if (!d->expect || !ps2_kbd_parameter(d, v))
        ps2_kbd_command(d, v);
}

/* Input from the host leaves room for the answer to a command. */
#define PS2_RESERVE 8

bool ps2_kbd_key(struct ps2_kbd *d, const uint8_t *set2, size_t len)
{
    if (!d->scanning || len > PS2_QUEUE || len + PS2_RESERVE > ps2_room(&d->q))
        return false;
    for (size_t i = 0; i < len; i++)
        ps2_push(&d->q, set2[i]);
    return true;
}

/* ---- mouse ---- */

static void ps2_mouse_defaults(struct ps2_mouse *m)
{
    ps2_clear(&m->q);
    m->rate = 100;
    m->resolution = 2;
    m->expect = 0;
    m->scaling = m->remote = m->wrap = m->reporting = false;
}

void ps2_mouse_reset(struct ps2_mouse *m)
{
    ps2_mouse_defaults(m);
    m->id = 0;
    memset(m->knock, 0, sizeof(m->knock));
}

/* Certain sequences of sample rates switch a wheel mouse on. */
static void ps2_mouse_set_rate(struct ps2_mouse *m, uint8_t v)
{
    m->rate = v;
    m->knock[0] = m->knock[1];
    m->knock[1] = m->knock[2];
    m->knock[2] = v;
    if (m->knock[0] != 200 || v != 80)
        return;
    if (m->knock[1] == 100)
        m->id = 3;
    else if (m->knock[1] == 200 && m->id)
        m->id = 4;
}

static int ps2_limit(int v, int max) { return v > max ? max : v < -max ? -max : v; }

static void ps2_mouse_packet(struct ps2_mouse *m, int dx, int dy, int dz)
{
    dx = ps2_limit(dx, 255);
    dy = ps2_limit(dy, 255);
    dz = ps2_limit(dz, 7);
    ps2_push(&m->q, (uint8_t)((m->buttons & 7) | 0x08 | (dx < 0 ? 0x10 : 0) | (dy < 0 ? 0x20 : 0)));
    ps2_push(&m->q, (uint8_t)dx);
    ps2_push(&m->q, (uint8_t)dy);
    if (m->id == 3)
        ps2_push(&m->q, (uint8_t)dz);
    else if (m->id == 4)
        ps2_push(&m->q, (uint8_t)((dz & 15) | (m->buttons & 0x18) << 1));
}

static void ps2_mouse_status(struct ps2_mouse *m)
{
    uint8_t b = m->buttons;

    ps2_push(&m->q, (uint8_t)(m->remote << 6 | m->reporting << 5 | m->scaling << 4 | (b & 1) << 2 |
                              (b & 4) >> 1 | (b & 2) >> 1));
    ps2_push(&m->q, m->resolution);
    ps2_push(&m->q, m->rate);
}

static bool ps2_mouse_knows(uint8_t command)
{
    bool hole = command == 0xed || command == 0xef || command == 0xf1 || (command > 0xf6 && command < 0xfe);

    return command >= 0xe6 && !hole;
}

static void ps2_mouse_command(struct ps2_mouse *m, uint8_t v)
{
    if (!ps2_mouse_knows(v)) {
        ps2_push(&m->q, DEV_RESEND);
        return;
    }
    if (v == 0xfe) {
        ps2_push(&m->q, m->last);
        return;
    }
    if (v == 0xff)
        ps2_mouse_reset(m);
    else if (v == 0xf6)
        ps2_mouse_defaults(m);
    ps2_push(&m->q, DEV_ACK);
    switch (v) {
    case 0xe6:
    case 0xe7:
        m->scaling = v == 0xe7;
        break;
    case 0xe8: /* resolution */
    case 0xf3: /* sample rate */
        m->expect = v;
        break;
    case 0xe9:
        ps2_mouse_status(m);
        break;
    case 0xea: /* stream mode */
    case 0xf0: /* remote mode */
        m->remote = v == 0xf0;
        break;
    case 0xeb: /* read data */
        ps2_mouse_packet(m, 0, 0, 0);
        break;
    case 0xec:
    case 0xee:
        m->wrap = v == 0xee;
        break;
    case 0xf2:
        ps2_push(&m->q, m->id);
        break;
    case 0xf4:
    case 0xf5:
        m->reporting = v == 0xf4;
        break;
    case 0xff:
        ps2_push(&m->q, DEV_BAT_OK);
        ps2_push(&m->q, m->id);
        break;
    }
}

void ps2_mouse_write(struct ps2_mouse *m, uint8_t v)
{
    uint8_t command = m->expect;

    m->expect = 0;
    if (m->wrap && v != 0xff && v != 0xec) {
        ps2_push(&m->q, v);
    } else if (command == 0xf3 && v < 0xe6) {
        ps2_mouse_set_rate(m, v);
        ps2_push(&m->q, DEV_ACK);
    } else if (command == 0xe8 && v < 4) {
        m->resolution = v;
        ps2_push(&m->q, DEV_ACK);
    } else {
        ps2_mouse_command(m, v);
    }
}

bool ps2_mouse_move(struct ps2_mouse *m, int dx, int dy, int dz, uint8_t buttons)
{
    m->buttons = buttons & 0x1f;
    if (!m->reporting || m->remote || m->wrap || ps2_room(&m->q) < 4 + PS2_RESERVE)
        return false;
    ps2_mouse_packet(m, dx, dy, dz);
    return true;
}

/* ---- state ---- */

static const struct state_field ps2_queue_fields[] = {
    STATE_FBYTES(struct ps2_queue, byte),
    STATE_F8(struct ps2_queue, head),
    STATE_F8(struct ps2_queue, count),
    STATE_END,
};
static int ps2_queue_check(void *obj, struct err *err)
{
    const struct ps2_queue *q = obj;

    if (q->head >= PS2_QUEUE || q->count > PS2_QUEUE)
        return err_set(err, EINVAL, "PS/2: impossible queue");
    return 0;
}

static const struct state_desc ps2_queue_state = {
    .name = "ps2-queue",
    .version = 1,
    .size = sizeof(struct ps2_queue),
    .fields = ps2_queue_fields,
    .check = ps2_queue_check,
};
static const struct state_field ps2_kbd_fields[] = {
    STATE_FSTRUCT(struct ps2_kbd, q, struct ps2_queue, ps2_queue_state),
    STATE_F8(struct ps2_kbd, expect),
    STATE_F8(struct ps2_kbd, last),
    STATE_F8(struct ps2_kbd, leds),
    STATE_F8(struct ps2_kbd, rate),
    STATE_FBOOL(struct ps2_kbd, scanning),
    STATE_END,
};
const struct state_desc ps2_kbd_state = {
    .name = "ps2-kbd", .version = 1, .size = sizeof(struct ps2_kbd), .fields = ps2_kbd_fields
};
static const struct state_field ps2_mouse_fields[] = {
    STATE_FSTRUCT(struct ps2_mouse, q, struct ps2_queue, ps2_queue_state),
    STATE_F8(struct ps2_mouse, expect),
    STATE_F8(struct ps2_mouse, last),
    STATE_F8(struct ps2_mouse, id),
    STATE_F8(struct ps2_mouse, rate),
    STATE_F8(struct ps2_mouse, resolution),
    STATE_FBYTES(struct ps2_mouse, knock),
    STATE_F8(struct ps2_mouse, buttons),
    STATE_FBOOL(struct ps2_mouse, scaling),
    STATE_FBOOL(struct ps2_mouse, remote),
    STATE_FBOOL(struct ps2_mouse, wrap),
    STATE_FBOOL(struct ps2_mouse, reporting),
    STATE_END,
};
const struct state_desc ps2_mouse_state = {
    .name = "ps2-mouse", .version = 1, .size = sizeof(struct ps2_mouse), .fields = ps2_mouse_fields
};
