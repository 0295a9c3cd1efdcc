/* A VGA with Bochs' display interface (VBE "dispi"): registers, memory, and what its screen shows. */
#ifndef VITRO_CHIP_VGA_H
#define VITRO_CHIP_VGA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bus/bus.h"
#include "ram/ram.h"
#include "state/state.h"

/* The dispi registers, at index port 0x1CE and data port 0x1CF. */
enum {
    VBE_ID,
    VBE_XRES,
    VBE_YRES,
    VBE_BPP,
    VBE_ENABLE,
    VBE_BANK,
    VBE_VIRT_WIDTH,
    VBE_VIRT_HEIGHT,
    VBE_X_OFFSET,
    VBE_Y_OFFSET,
    VBE_MEMORY, /* in units of 64 KiB */
    VBE_REGS
};

/* VBE_ENABLE */
enum { VBE_ENABLED = 1, VBE_GETCAPS = 2, VBE_DAC8 = 0x20, VBE_LFB = 0x40, VBE_NOCLEAR = 0x80 };

#define VGA_VRAM      (16U << 20)
#define VGA_MAX_WIDTH 2560
#define VGA_MAX_LINES 1600

struct vga {
    uint8_t misc, feature, retrace;
    uint8_t seq_index, seq[8];
    uint8_t gfx_index, gfx[16];
    uint8_t crtc_index, crtc[32];
    uint8_t attr_index, attr[32]; /* the index with bit 5, "palette address source" */
    bool attr_data;               /* the next write to 0x3C0 is data */
    uint8_t dac_mask, dac_mode, dac_read, dac_write, dac_part, dac[768], dac_new[3];
    uint8_t latch[4];
    uint16_t vbe_index, vbe[VBE_REGS];
    /* surroundings */
    struct ram *ram;
    uint64_t vram; /* VGA_VRAM bytes of guest memory: byte 4n + p is byte n of plane p */
    struct bus_region ports, window, vbe_ports;
};

extern const struct state_desc vga_state;

/* The memory is at vram, a slot of ram that the caller has made. */
void vga_init(struct vga *v, struct ram *ram, uint64_t vram);
/* Ports 0x3B0 to 0x3DF and 0x1CE to 0x1D1; memory from 0xA0000 to 0xBFFFF. 0 or -errno. */
int vga_attach(struct vga *v, struct bus *io, struct bus *mmio);
/* Power-on: nothing is shown. Memory keeps its bytes. */
void vga_reset(struct vga *v);
/* What a BIOS leaves: text of 80 by 25, the page empty. There is no font, which a kernel's console does not need. */
void vga_set_text(struct vga *v);

/* The linear frame buffer: bytes of the memory, for a BAR. dev is the struct vga. */
extern const struct bus_ops vga_linear_bus;

/* ---- vga_screen.c: what is to be seen; device lock held ---- */

enum vga_kind {
    VGA_BLANK, /* switched off */
    VGA_TEXT,
    VGA_GRAPHICS,
    VGA_STRANGE /* a mode that is not drawn: CGA's, or without lines */
};

#define VGA_MAX_COLUMNS 256
#define VGA_MAX_ROWS    128

struct vga_view {
    enum vga_kind kind;
    unsigned columns, rows; /* of text */
    unsigned width, height; /* of the picture, also in text mode */
    bool cursor;            /* it is on, and on the screen */
    unsigned cursor_column, cursor_row;
};

void vga_look(const struct vga *v, struct vga_view *view);

#define VGA_ROW_BYTES (VGA_MAX_COLUMNS * 3 + 1)

/* One row of a text screen as UTF-8, without blanks at its end. Returns the length; a NUL follows. */
size_t vga_text_row(const struct vga *v, const struct vga_view *view, unsigned row, char out[VGA_ROW_BYTES]);
/* One line of the picture: view->width times red, green, blue. */
void vga_draw_line(const struct vga *v, const struct vga_view *view, unsigned y, uint8_t *rgb);

/* ---- between the files of this device ---- */

extern const struct bus_ops vga_window_bus, vga_vbe_bus; /* vga_mem.c, vga_vbe.c */

/* Where lines begin and how far they are apart while VBE_ENABLED. */
struct vga_frame {
    unsigned width, height, bpp;
    uint64_t start, pitch; /* bytes; with bpp 4, of one plane */
};
void vga_vbe_frame(const struct vga *v, struct vga_frame *f);
/* Could the registers be as they are? For states from outside. */
bool vga_vbe_sound(const struct vga *v);

static inline bool vga_vbe_on(const struct vga *v) { return v->vbe[VBE_ENABLE] & VBE_ENABLED; }

#endif
