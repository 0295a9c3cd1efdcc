/* Models: the registers of a VGA: miscellaneous output, sequencer, CRT controller, graphics controller, attribute controller,
 * palette. Memory is in vga_mem.c, Bochs' extension in vga_vbe.c, and what all this looks like in vga_screen.c.
 * Source: IBM Personal System/2 Hardware Interface Technical Reference, "Video Subsystem"; the register values of mode 3 are IBM's.
 * Runs on: any thread, under the device lock; takes no lock.
 *
 * Timing is not modelled: the retrace bits change with every read of input status 1, so that who waits for either sees it.
 */
#include "chip/vga.h"

#include <errno.h>
#include <string.h>

#include "base/bits.h"
#include "base/err.h"

#define VGA_PORTS 0x3b0

enum {
    P_ATTR = 0x3c0,
    P_ATTR_DATA = 0x3c1,
    P_MISC = 0x3c2, /* read: input status 0 */
    P_SEQ = 0x3c4,
    P_SEQ_DATA = 0x3c5,
    P_DAC_MASK = 0x3c6,
    P_DAC_READ = 0x3c7, /* read: state */
    P_DAC_WRITE = 0x3c8,
    P_DAC_DATA = 0x3c9,
    P_FEATURE_READ = 0x3ca,
    P_MISC_READ = 0x3cc,
    P_GFX = 0x3ce,
    P_GFX_DATA = 0x3cf,
    P_CRTC = 0x3d4, /* and 0x20 less in monochrome */
    P_CRTC_DATA = 0x3d5,
    P_STATUS1 = 0x3da /* write: feature control */
};

#define MISC_COLOUR    1
#define CRTC_REGS      0x19
#define CRTC_PROTECT   0x80 /* in register 0x11: 0 to 7 keep their values, but for bit 4 of 7 */
#define STATUS1_TOGGLE 0x09 /* display disabled, vertical retrace */

static const uint8_t vga_seq_bits[8] = { 0x03, 0x3d, 0x0f, 0x3f, 0x0e };
static const uint8_t vga_gfx_bits[16] = { 0x0f, 0x0f, 0x0f, 0x1f, 0x03, 0x7b, 0x0f, 0x0f, 0xff };

/* ---- palette ---- */

static uint8_t vga_dac_read(struct vga *v)
{
    uint8_t value = v->dac[v->dac_read * 3U + v->dac_part];

    if (++v->dac_part == 3) {
        v->dac_part = 0;
        v->dac_read++;
    }
    return value;
}

/* A colour changes when its third part is there. */
static void vga_dac_write(struct vga *v, uint8_t value)
{
    v->dac_new[v->dac_part] = value;
    if (++v->dac_part < 3)
        return;
    memcpy(v->dac + v->dac_write * 3U, v->dac_new, 3);
    v->dac_part = 0;
    v->dac_write++;
}

static void vga_dac_index(struct vga *v, uint8_t value, bool read)
{
    v->dac_mode = read ? 3 : 0;
    v->dac_part = 0;
    if (read)
        v->dac_read = value;
    else
        v->dac_write = value;
}

/* ---- reading ---- */

static uint8_t vga_status1(struct vga *v)
{
    v->attr_data = false;
    v->retrace ^= STATUS1_TOGGLE;
    return v->retrace;
}

static uint8_t vga_read_crtc(struct vga *v, unsigned port)
{
    switch (port) {
    case P_CRTC:
        return v->crtc_index;
    case P_CRTC_DATA:
        return v->crtc_index < CRTC_REGS ? v->crtc[v->crtc_index] : 0;
    case P_STATUS1:
        return vga_status1(v);
    default:
        return 0xff;
    }
}

static uint8_t vga_read_port(struct vga *v, unsigned port)
{
    switch (port) {
    case P_ATTR:
        return v->attr_index;
    case P_ATTR_DATA:
        return v->attr[v->attr_index & 31];
    case P_MISC:
        return 0x10; /* switch sense: a colour display */
    case P_SEQ:
        return v->seq_index;
    case P_SEQ_DATA:
        return v->seq[v->seq_index];
    case P_DAC_MASK:
        return v->dac_mask;
    case P_DAC_READ:
        return v->dac_mode;
    case P_DAC_WRITE:
        return v->dac_write;
    case P_DAC_DATA:
        return vga_dac_read(v);
    case P_FEATURE_READ:
        return v->feature;
    case P_MISC_READ:
        return v->misc;
    case P_GFX:
        return v->gfx_index;
    case P_GFX_DATA:
        return v->gfx[v->gfx_index];
    default:
        return 0xff;
    }
}

/* The ports of the CRT controller as those of a colour display; 0: they are the other kind's, which answer nothing. */
static unsigned vga_crtc_port(const struct vga *v, unsigned port)
{
    bool colour = port >= 0x3d0;

    if (colour != (v->misc & MISC_COLOUR))
        return 0;
    return colour ? port : port + 0x20;
}

static bool vga_is_crtc(unsigned port) { return port < 0x3c0 || port >= 0x3d0; }

static uint64_t vga_read(void *dev, uint64_t off, unsigned size)
{
    unsigned port = VGA_PORTS + (unsigned)off;

    return vga_is_crtc(port) ? vga_read_crtc(dev, vga_crtc_port(dev, port)) : vga_read_port(dev, port);
}

/* ---- writing ---- */

static void vga_write_attr(struct vga *v, uint8_t value)
{
    unsigned n = v->attr_index & 31;

    if (!v->attr_data)
        v->attr_index = value & 0x3f;
    else if (n < 0x15)
        v->attr[n] = n < 0x10 ? value & 0x3f : value;
    v->attr_data = !v->attr_data;
}

static void vga_write_crtc(struct vga *v, unsigned port, uint8_t value)
{
    unsigned n = v->crtc_index;

    if (port == P_CRTC)
        v->crtc_index = value & 31;
    else if (port == P_STATUS1)
        v->feature = value & 0x0f;
    else if (port != P_CRTC_DATA || n >= CRTC_REGS)
        return;
    else if (n > 7 || !(v->crtc[0x11] & CRTC_PROTECT))
        v->crtc[n] = value;
    else if (n == 7)
        v->crtc[7] = (uint8_t)((v->crtc[7] & ~0x10) | (value & 0x10));
}

static void vga_write_port(struct vga *v, unsigned port, uint8_t value)
{
    switch (port) {
    case P_ATTR:
        vga_write_attr(v, value);
        break;
    case P_MISC:
        v->misc = value & 0xef;
        break;
    case P_SEQ:
        v->seq_index = value & 7;
        break;
    case P_SEQ_DATA:
        v->seq[v->seq_index] = value & vga_seq_bits[v->seq_index];
        break;
    case P_DAC_MASK:
        v->dac_mask = value;
        break;
    case P_DAC_READ:
    case P_DAC_WRITE:
        vga_dac_index(v, value, port == P_DAC_READ);
        break;
    case P_DAC_DATA:
        vga_dac_write(v, value);
        break;
    case P_GFX:
        v->gfx_index = value & 15;
        break;
    case P_GFX_DATA:
        v->gfx[v->gfx_index] = value & vga_gfx_bits[v->gfx_index];
        break;
    }
}

static void vga_write(void *dev, uint64_t off, uint64_t value, unsigned size)
{
    unsigned port = VGA_PORTS + (unsigned)off;

    if (vga_is_crtc(port))
        vga_write_crtc(dev, vga_crtc_port(dev, port), (uint8_t)value);
    else
        vga_write_port(dev, port, (uint8_t)value);
}

static const struct bus_ops vga_ports_bus = { .read = vga_read, .write = vga_write, .min_size = 1, .max_size = 1 };

/* ---- life cycle ---- */

void vga_reset(struct vga *v)
{
    memset(v, 0, offsetof(struct vga, ram));
    v->dac_mask = 0xff;
    v->vbe[VBE_ID] = 0xb0c5;
    v->vbe[VBE_MEMORY] = VGA_VRAM >> 16;
}

void vga_init(struct vga *v, struct ram *ram, uint64_t vram)
{
    *v = (struct vga){
        .ram = ram,
        .vram = vram,
        .ports = { .base = VGA_PORTS, .len = 0x30, .ops = &vga_ports_bus, .dev = v, .name = "vga" },
        .window = { .base = 0xa0000, .len = 0x20000, .ops = &vga_window_bus, .dev = v, .name = "vga-window" },
        .vbe_ports = { .base = 0x1ce, .len = 4, .ops = &vga_vbe_bus, .dev = v, .name = "vga-vbe" },
    };
    vga_reset(v);
}

int vga_attach(struct vga *v, struct bus *io, struct bus *mmio)
{
    int rc = bus_add(io, &v->ports);

    if (!rc)
        rc = bus_add(io, &v->vbe_ports);
    if (!rc)
        rc = bus_add(mmio, &v->window);
    if (rc) {
        bus_remove(io, &v->ports);
        bus_remove(io, &v->vbe_ports);
    }
    return rc;
}

/* The 64 colours of an EGA: a third of the strength for bits 3 to 5, two thirds for bits 0 to 2. */
static void vga_ega_colours(struct vga *v)
{
    for (unsigned n = 0; n < 64; n++) {
        for (unsigned part = 0; part < 3; part++)
            v->dac[3 * n + part] = (uint8_t)((n >> (2 - part) & 1) * 42 + (n >> (5 - part) & 1) * 21);
    }
}

void vga_set_text(struct vga *v)
{
    static const uint8_t seq[] = { 0x03, 0x00, 0x03, 0x00, 0x02 };
    static const uint8_t crtc[] = { 0x5f, 0x4f, 0x50, 0x82, 0x55, 0x81, 0xbf, 0x1f, 0x00, 0x4f, 0x0d, 0x0e, 0x00,
                                    0x00, 0x00, 0x00, 0x9c, 0x8e, 0x8f, 0x28, 0x1f, 0x96, 0xb9, 0xa3, 0xff };
    static const uint8_t gfx[] = { 0x00, 0x00, 0x00, 0x00, 0x00, 0x10, 0x0e, 0x00, 0xff };
    static const uint8_t attr[] = { 0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x14, 0x07, 0x38, 0x39, 0x3a,
                                    0x3b, 0x3c, 0x3d, 0x3e, 0x3f, 0x0c, 0x00, 0x0f, 0x08, 0x00 };
    static const uint8_t blank[] = { ' ', 0x07, 0, 0 };

    vga_reset(v);
    v->misc = 0x67;
    v->attr_index = 0x20;
    memcpy(v->seq, seq, sizeof(seq));
    memcpy(v->crtc, crtc, sizeof(crtc));
    memcpy(v->gfx, gfx, sizeof(gfx));
    memcpy(v->attr, attr, sizeof(attr));
    vga_ega_colours(v);
    for (unsigned n = 0; n < 0x4000; n++)
        ram_write(v->ram, v->vram + 4 * n, blank, sizeof(blank));
}

/* Indices are used as such; other registers may hold anything. */
static int vga_check(void *obj, struct err *err)
{
    const struct vga *v = obj;

    if (v->seq_index > 7 || v->gfx_index > 15 || v->crtc_index > 31 || v->attr_index > 0x3f || v->dac_part > 2)
        return err_set(err, EINVAL, "vga: an index is out of range");
    if (!vga_vbe_sound(v))
        return err_set(err, EINVAL, "vga: the display interface shows a picture that its memory cannot hold");
    return 0;
}

static const struct state_field vga_fields[] = {
    STATE_F8(struct vga, misc),
    STATE_F8(struct vga, feature),
    STATE_F8(struct vga, retrace),
    STATE_F8(struct vga, seq_index),
    STATE_FBYTES(struct vga, seq),
    STATE_F8(struct vga, gfx_index),
    STATE_FBYTES(struct vga, gfx),
    STATE_F8(struct vga, crtc_index),
    STATE_FBYTES(struct vga, crtc),
    STATE_F8(struct vga, attr_index),
    STATE_FBYTES(struct vga, attr),
    STATE_FBOOL(struct vga, attr_data),
    STATE_F8(struct vga, dac_mask),
    STATE_F8(struct vga, dac_mode),
    STATE_F8(struct vga, dac_read),
    STATE_F8(struct vga, dac_write),
    STATE_F8(struct vga, dac_part),
    STATE_FBYTES(struct vga, dac),
    STATE_FBYTES(struct vga, dac_new),
    STATE_FBYTES(struct vga, latch),
    STATE_F16(struct vga, vbe_index),
    STATE_F16(struct vga, vbe),
    STATE_END,
};
const struct state_desc vga_state = {
    .name = "vga", .version = 1, .size = sizeof(struct vga), .fields = vga_fields, .check = vga_check
};
