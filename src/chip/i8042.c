/* Models: the AT's i8042 keyboard controller with the PS/2 auxiliary port and the translation to scan code
 * set 1, and port 0x92. The keyboard and the mouse are in ps2.c.
 * Source: IBM PS/2 Hardware Interface Technical Reference, sections "Keyboard and auxiliary device
 * controller".
 * Runs on: any thread, under the device lock; takes no lock.
 */
#include "chip/i8042.h"

#include <errno.h>
#include <string.h>

#include "base/bits.h"
#include "base/err.h"
#include "state/state.h"

enum { STATUS_OBF = 0x01, STATUS_SYS = 0x04, STATUS_CMD = 0x08, STATUS_UNLOCKED = 0x10, STATUS_AUX = 0x20 };
enum {
    CTR_KBD_INT = 0x01,
    CTR_AUX_INT = 0x02,
    CTR_SYS = 0x04,
    CTR_KBD_OFF = 0x10,
    CTR_AUX_OFF = 0x20,
    CTR_TRANSLATE = 0x40
};
enum { OUT_NO_RESET = 0x01, OUT_A20 = 0x02, OUT_KBD_FULL = 0x10, OUT_AUX_FULL = 0x20 };
enum { P92_RESET = 0x01, P92_A20 = 0x02 };
enum { SRC_NONE, SRC_KBD, SRC_AUX, SRC_CTRL };

enum {
    CMD_READ_RAM = 0x20,
    CMD_WRITE_RAM = 0x60,
    CMD_PASSWORD_TEST = 0xa4,
    CMD_AUX_OFF = 0xa7,
    CMD_AUX_ON,
    CMD_AUX_TEST,
    CMD_SELF_TEST,
    CMD_KBD_TEST,
    CMD_KBD_OFF = 0xad,
    CMD_KBD_ON,
    CMD_READ_IN = 0xc0,
    CMD_READ_OUT = 0xd0,
    CMD_WRITE_OUT,
    CMD_WRITE_KBD_BUF,
    CMD_WRITE_AUX_BUF,
    CMD_WRITE_AUX,
    CMD_A20_OFF = 0xdd,
    CMD_A20_ON = 0xdf,
    CMD_READ_TEST = 0xe0,
    CMD_PULSE = 0xf0
};

/* Scan code set 2 to set 1; from 0x85 on codes are unchanged. */
static const uint8_t i8042_set1[0x85] = {
    0xff, 0x43, 0x41, 0x3f, 0x3d, 0x3b, 0x3c, 0x58, 0x64, 0x44, 0x42, 0x40, 0x3e, 0x0f, 0x29, 0x59, /* 00 */
    0x65, 0x38, 0x2a, 0x70, 0x1d, 0x10, 0x02, 0x5a, 0x66, 0x71, 0x2c, 0x1f, 0x1e, 0x11, 0x03, 0x5b, /* 10 */
    0x67, 0x2e, 0x2d, 0x20, 0x12, 0x05, 0x04, 0x5c, 0x68, 0x39, 0x2f, 0x21, 0x14, 0x13, 0x06, 0x5d, /* 20 */
    0x69, 0x31, 0x30, 0x23, 0x22, 0x15, 0x07, 0x5e, 0x6a, 0x72, 0x32, 0x24, 0x16, 0x08, 0x09, 0x5f, /* 30 */
    0x6b, 0x33, 0x25, 0x17, 0x18, 0x0b, 0x0a, 0x60, 0x6c, 0x34, 0x35, 0x26, 0x27, 0x19, 0x0c, 0x61, /* 40 */
    0x6d, 0x73, 0x28, 0x74, 0x1a, 0x0d, 0x62, 0x6e, 0x3a, 0x36, 0x1c, 0x1b, 0x75, 0x2b, 0x63, 0x76, /* 50 */
    0x55, 0x56, 0x77, 0x78, 0x79, 0x7a, 0x0e, 0x7b, 0x7c, 0x4f, 0x7d, 0x4b, 0x47, 0x7e, 0x7f, 0x6f, /* 60 */
    0x52, 0x53, 0x50, 0x4c, 0x4d, 0x48, 0x01, 0x45, 0x57, 0x4e, 0x51, 0x4a, 0x37, 0x49, 0x46, 0x54, /* 70 */
    0x80, 0x81, 0x82, 0x41, 0x54,                                                                   /* 80 */
};

/* ---- the output buffer ---- */

/* The next keyboard byte as the host shall see it; -1: none. */
static int i8042_next_key(struct i8042 *k)
{
    while (k->kbd.q.count) {
        uint8_t v = ps2_pop(&k->kbd.q);
        k->kbd.last = v;
        if (!(k->ctr & CTR_TRANSLATE))
            return v;
        if (v == 0xf0) {
            k->break_code = true;
            continue;
        }
        if (v < sizeof(i8042_set1))
            v = i8042_set1[v];
        if (k->break_code)
            v |= 0x80;
        k->break_code = false;
        return v;
    }
    return -1;
}

static void i8042_fill(struct i8042 *k)
{
    int key;

    if (k->source)
        return;
    if (k->reply_source) {
        k->data = k->reply;
        k->source = k->reply_source;
        k->reply_source = SRC_NONE;
    } else if (!(k->ctr & CTR_KBD_OFF) && (key = i8042_next_key(k)) >= 0) {
        k->data = (uint8_t)key;
        k->source = SRC_KBD;
    } else if (!(k->ctr & CTR_AUX_OFF) && k->mouse.q.count) {
        k->data = k->mouse.last = ps2_pop(&k->mouse.q);
        k->source = SRC_AUX;
    }
}

/* Fill the output buffer and drive the lines. The controller's own answers do not interrupt. */
static void i8042_update(struct i8042 *k)
{
    i8042_fill(k);
    irq_set(&k->irq[0], k->source == SRC_KBD && (k->ctr & CTR_KBD_INT));
    irq_set(&k->irq[1], k->source == SRC_AUX && (k->ctr & CTR_AUX_INT));
}

static void i8042_answer(struct i8042 *k, uint8_t v, uint8_t source)
{
    k->reply = v;
    k->reply_source = source;
}

/* ---- input from the host ---- */

bool i8042_key(struct i8042 *k, const uint8_t *set2, size_t len)
{
    bool taken = ps2_kbd_key(&k->kbd, set2, len);

    i8042_update(k);
    return taken;
}

bool i8042_move(struct i8042 *k, int dx, int dy, int dz, uint8_t buttons)
{
    bool taken = ps2_mouse_move(&k->mouse, dx, dy, dz, buttons);

    i8042_update(k);
    return taken;
}

/* ---- controller ---- */

static void i8042_request_reset(struct i8042 *k)
{
    if (k->reset)
        k->reset(k->opaque);
}

static void i8042_drive_a20(struct i8042 *k)
{
    irq_set(&k->a20, (k->outport & OUT_A20) || (k->port92 & P92_A20));
}

static void i8042_write_outport(struct i8042 *k, uint8_t v)
{
    k->outport = (v & ~(OUT_KBD_FULL | OUT_AUX_FULL)) | OUT_NO_RESET;
    i8042_drive_a20(k);
    if (!(v & OUT_NO_RESET))
        i8042_request_reset(k);
}

static uint8_t i8042_outport_now(const struct i8042 *k)
{
    return (uint8_t)(k->outport | (k->source == SRC_KBD ? OUT_KBD_FULL : 0) |
                     (k->source == SRC_AUX ? OUT_AUX_FULL : 0));
}

static void i8042_set_ctr(struct i8042 *k, uint8_t v)
{
    k->ctr = v;
    k->status = (k->status & ~STATUS_SYS) | (v & CTR_SYS ? STATUS_SYS : 0);
}

/* Commands without a parameter that answer with one byte; -1: not one of these. */
static int i8042_query(struct i8042 *k, uint8_t v)
{
    if (v >= CMD_READ_RAM && v < CMD_READ_RAM + 32)
        return v == CMD_READ_RAM ? k->ctr : k->ram[v - CMD_READ_RAM];
    switch (v) {
    case CMD_PASSWORD_TEST:
        return 0xf1; /* no password installed */
    case CMD_AUX_TEST:
    case CMD_KBD_TEST:
        return 0x00;
    case CMD_SELF_TEST:
        i8042_set_ctr(k, k->ctr | CTR_SYS);
        return 0x55;
    case CMD_READ_IN:
        return 0x80; /* keyboard not locked */
    case CMD_READ_OUT:
        return i8042_outport_now(k);
    case CMD_READ_TEST:
        return 0x00;
    }
    return -1;
}

static void i8042_command(struct i8042 *k, uint8_t v)
{
    int answer = i8042_query(k, v);

    k->status |= STATUS_CMD;
    k->command = 0;
    if (answer >= 0) {
        i8042_answer(k, (uint8_t)answer, SRC_CTRL);
        return;
    }
    if ((v >= CMD_WRITE_RAM && v < CMD_WRITE_RAM + 32) || (v >= CMD_WRITE_OUT && v <= CMD_WRITE_AUX)) {
        k->command = v; /* the parameter comes through port 0x60 */
        return;
    }
    switch (v) {
    case CMD_AUX_OFF:
        k->ctr |= CTR_AUX_OFF;
        break;
    case CMD_AUX_ON:
        k->ctr &= ~CTR_AUX_OFF;
        break;
    case CMD_KBD_OFF:
        k->ctr |= CTR_KBD_OFF;
        break;
    case CMD_KBD_ON:
        k->ctr &= ~CTR_KBD_OFF;
        break;
    case CMD_A20_OFF:
        i8042_write_outport(k, k->outport & ~OUT_A20);
        break;
    case CMD_A20_ON:
        i8042_write_outport(k, k->outport | OUT_A20);
        break;
    }
    /* F0 to FF pulse the output port's lines whose bit is 0; line 0 is the CPU's reset. */
    if (v >= CMD_PULSE && !(v & OUT_NO_RESET))
        i8042_request_reset(k);
}

static void i8042_data(struct i8042 *k, uint8_t v)
{
    uint8_t command = k->command;

    k->status &= ~STATUS_CMD;
    k->command = 0;
    switch (command) {
    case 0: /* a byte for the keyboard; sending enables its port */
        k->ctr &= ~CTR_KBD_OFF;
        ps2_kbd_write(&k->kbd, v);
        break;
    case CMD_WRITE_RAM:
        i8042_set_ctr(k, v);
        break;
    case CMD_WRITE_OUT:
        i8042_write_outport(k, v);
        break;
    case CMD_WRITE_KBD_BUF:
        i8042_answer(k, v, SRC_KBD);
        break;
    case CMD_WRITE_AUX_BUF:
        i8042_answer(k, v, SRC_AUX);
        break;
    case CMD_WRITE_AUX:
        k->ctr &= ~CTR_AUX_OFF;
        ps2_mouse_write(&k->mouse, v);
        break;
    default:
        k->ram[command - CMD_WRITE_RAM] = v;
    }
}

static uint64_t i8042_data_read(void *dev, uint64_t off, unsigned size)
{
    struct i8042 *k = dev;
    uint8_t v = k->data;

    k->source = SRC_NONE;
    /* The line falls with the buffer emptying, and rises again for the next byte: a new edge. */
    irq_set(&k->irq[0], false);
    irq_set(&k->irq[1], false);
    i8042_update(k);
    return v;
}

static void i8042_data_write(void *dev, uint64_t off, uint64_t value, unsigned size)
{
    i8042_data(dev, (uint8_t)value);
    i8042_update(dev);
}

static uint64_t i8042_status_read(void *dev, uint64_t off, unsigned size)
{
    struct i8042 *k = dev;
    return k->status | (k->source ? STATUS_OBF : 0) | (k->source == SRC_AUX ? STATUS_AUX : 0);
}

static void i8042_command_write(void *dev, uint64_t off, uint64_t value, unsigned size)
{
    i8042_command(dev, (uint8_t)value);
    i8042_update(dev);
}

static uint64_t i8042_fast_read(void *dev, uint64_t off, unsigned size)
{
    return ((struct i8042 *)dev)->port92;
}

static void i8042_fast_write(void *dev, uint64_t off, uint64_t value, unsigned size)
{
    struct i8042 *k = dev;
    bool reset = (value & P92_RESET) && !(k->port92 & P92_RESET);

    k->port92 = value & (P92_RESET | P92_A20);
    i8042_drive_a20(k);
    if (reset)
        i8042_request_reset(k);
}

static const struct bus_ops i8042_data_bus = {
    .read = i8042_data_read, .write = i8042_data_write, .min_size = 1, .max_size = 1
};
static const struct bus_ops i8042_command_bus = {
    .read = i8042_status_read, .write = i8042_command_write, .min_size = 1, .max_size = 1
};
static const struct bus_ops i8042_fast_bus = {
    .read = i8042_fast_read, .write = i8042_fast_write, .min_size = 1, .max_size = 1
};

/* ---- life cycle ---- */

/* The state that a BIOS leaves: interrupts and translation on. A kernel that is booted without firmware
 * relies on it. */
static void i8042_reset(void *dev)
{
    struct i8042 *k = dev;

    k->ctr = CTR_KBD_INT | CTR_AUX_INT | CTR_SYS | CTR_TRANSLATE;
    k->status = STATUS_SYS | STATUS_UNLOCKED;
    k->outport = OUT_NO_RESET | OUT_A20;
    k->data = k->reply = k->command = k->port92 = 0;
    k->source = k->reply_source = SRC_NONE;
    k->break_code = false;
    memset(k->ram, 0, sizeof(k->ram));
    ps2_kbd_reset(&k->kbd);
    ps2_mouse_reset(&k->mouse);
    k->kbd.last = k->mouse.last = k->mouse.buttons = 0;
    i8042_update(k);
    i8042_drive_a20(k);
}

void i8042_init(struct i8042 *k, struct irq_line irq1, struct irq_line irq12, struct irq_line a20,
                void (*reset)(void *opaque), void *opaque)
{
    *k = (struct i8042){
        .irq = { irq1, irq12 },
        .a20 = a20,
        .reset = reset,
        .opaque = opaque,
        .data_port = { .base = 0x60, .len = 1, .ops = &i8042_data_bus, .dev = k, .name = "i8042-data" },
        .command_port = { .base = 0x64,
                          .len = 1,
                          .ops = &i8042_command_bus,
                          .dev = k,
                          .name = "i8042-command" },
        .fast_port = { .base = 0x92, .len = 1, .ops = &i8042_fast_bus, .dev = k, .name = "port92" },
    };
    i8042_reset(k);
}

int i8042_attach(struct i8042 *k, struct bus *io)
{
    int rc = bus_add(io, &k->data_port);
    if (!rc)
        rc = bus_add(io, &k->command_port);
    if (!rc)
        rc = bus_add(io, &k->fast_port);
    if (rc) {
        bus_remove(io, &k->data_port);
        bus_remove(io, &k->command_port);
    }
    return rc;
}

static void i8042_resume(void *dev)
{
    i8042_update(dev);
    i8042_drive_a20(dev);
}

static void i8042_destroy(void *dev) { (void)dev; }

static int i8042_check(void *obj, struct err *err)
{
    struct i8042 *k = obj;

    if (k->source > SRC_CTRL || k->reply_source > SRC_CTRL)
        return err_set(err, EINVAL, "i8042: unknown source of the output buffer");
    bool ram = k->command >= CMD_WRITE_RAM && k->command < CMD_WRITE_RAM + 32;
    if (k->command && !ram && !(k->command >= CMD_WRITE_OUT && k->command <= CMD_WRITE_AUX))
        return err_set(err, EINVAL, "i8042: command %#x takes no parameter", k->command);
    k->status = (k->status & STATUS_CMD) | STATUS_UNLOCKED | (k->ctr & CTR_SYS);
    return 0;
}

static const struct state_field i8042_fields[] = {
    STATE_F8(struct i8042, ctr),
    STATE_F8(struct i8042, outport),
    STATE_F8(struct i8042, status),
    STATE_F8(struct i8042, data),
    STATE_F8(struct i8042, source),
    STATE_F8(struct i8042, reply),
    STATE_F8(struct i8042, reply_source),
    STATE_F8(struct i8042, command),
    STATE_FBYTES(struct i8042, ram),
    STATE_F8(struct i8042, port92),
    STATE_FBOOL(struct i8042, break_code),
    STATE_FSTRUCT(struct i8042, kbd, struct ps2_kbd, ps2_kbd_state),
    STATE_FSTRUCT(struct i8042, mouse, struct ps2_mouse, ps2_mouse_state),
    STATE_END,
};
static const struct state_desc i8042_state = {
    .name = "i8042", .version = 1, .size = sizeof(struct i8042), .fields = i8042_fields, .check = i8042_check
};

const struct device_ops i8042_ops = {
    .type = "i8042",
    .reset = i8042_reset,
    .resume = i8042_resume,
    .destroy = i8042_destroy,
    .state = &i8042_state,
};
