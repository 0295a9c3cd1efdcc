/* Models: the display interface of Bochs' VGA ("dispi"), version 0xB0C5: modes of up to 2560 by 1600 with 4 to 32 bits a pixel, a
 * bank in the window, a virtual screen that is larger than what is shown.
 * Source: Bochs' documentation of its VBE, the tables of registers and flags.
 * Runs on: any thread, under the device lock; takes no lock.
 *
 * Width, height and depth can be changed only while a mode is off, and a mode that does not fit is not switched on: what is
 * shown always lies in memory.
 */
#include "base/bits.h"
#include "chip/vga.h"

enum { VBE_INDEX_PORT = 0, VBE_DATA_PORT = 1, VBE_DATA_PORT2 = 2 };
#define VBE_ENABLE_BITS (VBE_ENABLED | VBE_GETCAPS | VBE_DAC8 | VBE_LFB | VBE_NOCLEAR)

/* Bytes of width pixels, in one plane if there are four; 0: there is no such depth. */
static uint64_t vga_vbe_bytes(unsigned bpp, uint64_t width)
{
    switch (bpp) {
    case 4:
        return width / 8;
    case 8:
        return width;
    case 15:
    case 16:
        return width * 2;
    case 24:
        return width * 3;
    case 32:
        return width * 4;
    default:
        return 0;
    }
}

static bool vga_vbe_fits(const uint16_t vbe[VBE_REGS])
{
    uint64_t pitch = vga_vbe_bytes(vbe[VBE_BPP], vbe[VBE_VIRT_WIDTH]), size = vbe[VBE_BPP] == 4 ? VGA_VRAM / 4 : VGA_VRAM;

    return pitch && vbe[VBE_XRES] && vbe[VBE_YRES] && vbe[VBE_XRES] <= VGA_MAX_WIDTH && vbe[VBE_YRES] <= VGA_MAX_LINES &&
           vbe[VBE_X_OFFSET] + vbe[VBE_XRES] <= vbe[VBE_VIRT_WIDTH] &&
           pitch * (vbe[VBE_Y_OFFSET] + (uint64_t)vbe[VBE_YRES]) <= size;
}

bool vga_vbe_sound(const struct vga *v)
{
    return v->vbe[VBE_BANK] < VGA_VRAM >> 16 && (!vga_vbe_on(v) || vga_vbe_fits(v->vbe));
}

void vga_vbe_frame(const struct vga *v, struct vga_frame *f)
{
    f->width = v->vbe[VBE_XRES];
    f->height = v->vbe[VBE_YRES];
    f->bpp = v->vbe[VBE_BPP];
    f->pitch = vga_vbe_bytes(f->bpp, v->vbe[VBE_VIRT_WIDTH]);
    f->start = v->vbe[VBE_Y_OFFSET] * f->pitch + vga_vbe_bytes(f->bpp, v->vbe[VBE_X_OFFSET]);
}

static void vga_vbe_clear(struct vga *v)
{
    uint64_t len = vga_vbe_bytes(v->vbe[VBE_BPP], v->vbe[VBE_XRES]) * v->vbe[VBE_YRES];

    ram_fill(v->ram, v->vram, 0, v->vbe[VBE_BPP] == 4 ? 4 * len : len);
}

static void vga_vbe_enable(struct vga *v, uint16_t value)
{
    bool was = vga_vbe_on(v);
    uint16_t next[VBE_REGS];

    value &= VBE_ENABLE_BITS;
    memcpy(next, v->vbe, sizeof(next));
    if ((value & VBE_ENABLED) && !was) {
        next[VBE_VIRT_WIDTH] = next[VBE_XRES];
        next[VBE_X_OFFSET] = next[VBE_Y_OFFSET] = next[VBE_BANK] = 0;
        if (!vga_vbe_fits(next))
            value &= (uint16_t)~VBE_ENABLED;
    }
    if (value & VBE_ENABLED)
        memcpy(v->vbe, next, sizeof(next));
    else
        v->vbe[VBE_BANK] = 0;
    v->vbe[VBE_ENABLE] = value;
    if ((value & VBE_ENABLED) && !was && !(value & VBE_NOCLEAR))
        vga_vbe_clear(v);
}

/* Take a value if what is shown then still lies in memory. */
static void vga_vbe_try(struct vga *v, unsigned reg, uint16_t value)
{
    uint16_t was = v->vbe[reg];

    v->vbe[reg] = value;
    if (vga_vbe_on(v) && !vga_vbe_fits(v->vbe))
        v->vbe[reg] = was;
}

static void vga_vbe_write(struct vga *v, unsigned reg, uint16_t value)
{
    switch (reg) {
    case VBE_ID:
        if (value >= 0xb0c0 && value <= 0xb0c5)
            v->vbe[VBE_ID] = value;
        break;
    case VBE_XRES:
    case VBE_YRES:
    case VBE_BPP:
        if (!vga_vbe_on(v))
            v->vbe[reg] = value;
        break;
    case VBE_ENABLE:
        vga_vbe_enable(v, value);
        break;
    case VBE_BANK:
        v->vbe[VBE_BANK] = value & ((VGA_VRAM >> 16) - 1);
        break;
    case VBE_VIRT_WIDTH:
    case VBE_X_OFFSET:
    case VBE_Y_OFFSET:
        vga_vbe_try(v, reg, value);
        break;
    }
}

/* Lines that the memory holds. */
static uint16_t vga_vbe_lines(const struct vga *v)
{
    uint64_t pitch = vga_vbe_bytes(v->vbe[VBE_BPP], v->vbe[VBE_VIRT_WIDTH]), size = v->vbe[VBE_BPP] == 4 ? VGA_VRAM / 4 : VGA_VRAM;
    uint64_t lines = pitch ? size / pitch : 0;

    return lines > 0xffff ? 0xffff : (uint16_t)lines;
}

static uint16_t vga_vbe_read(const struct vga *v, unsigned reg)
{
    bool caps = v->vbe[VBE_ENABLE] & VBE_GETCAPS;

    if (reg >= VBE_REGS)
        return 0;
    if (caps && reg == VBE_XRES)
        return VGA_MAX_WIDTH;
    if (caps && reg == VBE_YRES)
        return VGA_MAX_LINES;
    if (caps && reg == VBE_BPP)
        return 32;
    return reg == VBE_VIRT_HEIGHT ? vga_vbe_lines(v) : v->vbe[reg];
}

/* ---- ports: 16 bits wide; the data port has a second, aligned address ---- */

static uint64_t vga_vbe_in(void *dev, uint64_t off, unsigned size)
{
    struct vga *v = dev;

    if (off == VBE_INDEX_PORT)
        return v->vbe_index;
    return off <= VBE_DATA_PORT2 ? vga_vbe_read(v, v->vbe_index) : 0xffff;
}

static void vga_vbe_out(void *dev, uint64_t off, uint64_t value, unsigned size)
{
    struct vga *v = dev;

    if (off == VBE_INDEX_PORT)
        v->vbe_index = (uint16_t)value;
    else if (off <= VBE_DATA_PORT2)
        vga_vbe_write(v, v->vbe_index, (uint16_t)value);
}

const struct bus_ops vga_vbe_bus = { .read = vga_vbe_in, .write = vga_vbe_out, .min_size = 2, .max_size = 2, .unaligned = true };
