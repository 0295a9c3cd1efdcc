/* Models: a VGA's four planes of memory as the processor sees them from 0xA0000 on: chained, odd/even, planar with latches and the
 * four write modes; and as one linear frame buffer.
 * Source: IBM Personal System/2 Hardware Interface Technical Reference, "Video Subsystem" (sequencer 2 and 4, graphics
 * controller 0 to 8).
 * Runs on: any thread, under the device lock; takes no lock.
 *
 * Memory is guest memory that only this device has an address for, so it is saved, moved and forked as that is. The four planes'
 * bytes at one address lie side by side, in which form chain 4 is linear. In odd/even mode byte pairs follow each other without
 * the gaps that IBM's planes have then: a picture's address counts characters.
 */
#include "base/bits.h"
#include "chip/vga.h"

enum { SEQ_PLANES = 2, SEQ_MODE = 4, SEQ_SEQUENTIAL = 4, SEQ_CHAIN4 = 8 };
enum { GFX_SET, GFX_SET_ON, GFX_COMPARE, GFX_ROTATE, GFX_READ_PLANE, GFX_MODE, GFX_MISC, GFX_CARE, GFX_BITS };
enum { GFX_READ_COMPARE = 8, GFX_ODD_EVEN = 0x10 };

/* Each of four bits as a byte. */
static uint32_t vga_spread(unsigned nibble) { return (nibble * 0x00204081U & 0x01010101U) * 0xffU; }

/* Where an access to the window goes: false if the window is elsewhere. */
static bool vga_window_at(const struct vga *v, uint64_t off, uint64_t *addr)
{
    static const struct {
        uint32_t start, len;
    } windows[4] = { { 0, 0x20000 }, { 0, 0x10000 }, { 0x10000, 0x8000 }, { 0x18000, 0x8000 } };
    unsigned n = v->gfx[GFX_MISC] >> 2 & 3;

    if (range_outside(off - windows[n].start, 1, windows[n].len))
        return false;
    *addr = off - windows[n].start + (n < 2 ? (uint64_t)v->vbe[VBE_BANK] << 16 : 0);
    return true;
}

/* ---- one byte ---- */

/* The address within the planes, and the planes (a mask) that an access with the given odd/even setting reaches. */
static uint64_t vga_decode(const struct vga *v, uint64_t addr, bool odd_even, unsigned *planes)
{
    if (v->seq[SEQ_MODE] & SEQ_CHAIN4) {
        *planes = 1U << (addr & 3);
        return addr >> 2;
    }
    *planes = !odd_even ? 15 : addr & 1 ? 10 : 5;
    return odd_even ? addr >> 1 : addr;
}

/* All planes at an address; beyond the end there is nothing. */
static bool vga_fetch(const struct vga *v, uint64_t at, uint8_t word[4])
{
    return at < VGA_VRAM / 4 && ram_read(v->ram, v->vram + 4 * at, word, 4) == 0;
}

static uint8_t vga_compare(const struct vga *v)
{
    uint32_t care = vga_spread(v->gfx[GFX_CARE]), differ = (ld_le32(v->latch) ^ vga_spread(v->gfx[GFX_COMPARE])) & care;

    return (uint8_t) ~(differ | differ >> 8 | differ >> 16 | differ >> 24);
}

static uint8_t vga_read_byte(struct vga *v, uint64_t addr)
{
    bool odd_even = v->gfx[GFX_MODE] & GFX_ODD_EVEN;
    unsigned planes, plane = v->gfx[GFX_READ_PLANE];

    if (!vga_fetch(v, vga_decode(v, addr, odd_even, &planes), v->latch))
        return 0xff;
    if (v->seq[SEQ_MODE] & SEQ_CHAIN4)
        plane = addr & 3;
    else if (odd_even)
        plane = (plane & 2) | (addr & 1);
    else if (v->gfx[GFX_MODE] & GFX_READ_COMPARE)
        return vga_compare(v);
    return v->latch[plane];
}

/* Set/reset, rotation, function and bit mask: what the graphics controller makes of a byte. */
static uint32_t vga_compose(const struct vga *v, uint8_t value)
{
    unsigned mode = v->gfx[GFX_MODE] & 3, turn = v->gfx[GFX_ROTATE] & 7;
    uint8_t turned = (uint8_t)(value >> turn | value << (8 - turn));
    uint32_t latch = ld_le32(v->latch), bits = v->gfx[GFX_BITS] * 0x01010101U, on = vga_spread(v->gfx[GFX_SET_ON]);
    uint32_t set = vga_spread(v->gfx[GFX_SET]), x = turned * 0x01010101U;

    if (mode == 1)
        return latch;
    if (mode == 3)
        bits &= x;
    x = mode == 0 ? (x & ~on) | (set & on) : mode == 2 ? vga_spread(value & 15) : set;
    switch (v->gfx[GFX_ROTATE] >> 3) {
    case 1:
        x &= latch;
        break;
    case 2:
        x |= latch;
        break;
    case 3:
        x ^= latch;
        break;
    }
    return (x & bits) | (latch & ~bits);
}

static void vga_write_byte(struct vga *v, uint64_t addr, uint8_t value)
{
    uint8_t word[4];
    unsigned planes;
    uint64_t at = vga_decode(v, addr, !(v->seq[SEQ_MODE] & SEQ_SEQUENTIAL), &planes);
    uint32_t mask = vga_spread(planes & v->seq[SEQ_PLANES]);

    if (!mask || !vga_fetch(v, at, word))
        return;
    st_le32(word, (ld_le32(word) & ~mask) | (vga_compose(v, value) & mask));
    ram_write(v->ram, v->vram + 4 * at, word, 4);
}

/* ---- buses ---- */

static uint64_t vga_window_read(void *dev, uint64_t off, unsigned size)
{
    struct vga *v = dev;
    uint64_t value = 0, addr;

    for (unsigned n = 0; n < size; n++)
        value |= (uint64_t)(vga_window_at(v, off + n, &addr) ? vga_read_byte(v, addr) : 0xff) << 8 * n;
    return value;
}

static void vga_window_write(void *dev, uint64_t off, uint64_t value, unsigned size)
{
    struct vga *v = dev;
    uint64_t addr;

    for (unsigned n = 0; n < size; n++) {
        if (vga_window_at(v, off + n, &addr))
            vga_write_byte(v, addr, (uint8_t)(value >> 8 * n));
    }
}

const struct bus_ops vga_window_bus = {
    .read = vga_window_read, .write = vga_window_write, .min_size = 1, .max_size = 8, .unaligned = true
};

static uint64_t vga_linear_read(void *dev, uint64_t off, unsigned size)
{
    struct vga *v = dev;
    uint8_t word[8] = { 0 };

    if (range_outside(off, size, VGA_VRAM) || ram_read(v->ram, v->vram + off, word, size) < 0)
        return ~0ULL;
    return ld_le64(word);
}

static void vga_linear_write(void *dev, uint64_t off, uint64_t value, unsigned size)
{
    struct vga *v = dev;
    uint8_t word[8];

    st_le64(word, value);
    if (!range_outside(off, size, VGA_VRAM))
        ram_write(v->ram, v->vram + off, word, size);
}

const struct bus_ops vga_linear_bus = {
    .read = vga_linear_read, .write = vga_linear_write, .min_size = 1, .max_size = 8, .unaligned = true
};
