/* The display card under a hostile guest: registers, both windows, states from outside, and the screen looked at in between.
 *
 * Properties: memory beside the card's stays as it is; a picture is never larger than it may be, nor a row of text longer; a mode
 * that is on lies in memory; a state that is accepted is good to run with.
 *
 * An input is a list of records of 8 bytes: an op byte, a size, an address, data.
 */
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/err.h"
#include "pci/display.h"
#include "state/state.h"

#define VRAM   0xfd000000ULL
#define WINDOW 0xa0000ULL
#define RECORD 8

struct bench {
    struct bus io, mmio;
    struct ram ram;
    struct display d;
    uint8_t line[VGA_MAX_WIDTH * 3 + 1];
};

static void look(struct bench *b, unsigned y)
{
    struct vga_view view;
    char row[VGA_ROW_BYTES];

    vga_look(&b->d.vga, &view);
    FUZZ_CHECK(view.width <= VGA_MAX_WIDTH && view.height <= VGA_MAX_ROWS * 32);
    FUZZ_CHECK(view.columns <= VGA_MAX_COLUMNS && view.rows <= VGA_MAX_ROWS);
    FUZZ_CHECK(!view.cursor || (view.cursor_row < view.rows && view.cursor_column < view.columns));
    if (view.rows)
        FUZZ_CHECK(vga_text_row(&b->d.vga, &view, y % view.rows, row) < sizeof(row));
    if (!view.height)
        return;
    b->line[3 * view.width] = 0x5a;
    vga_draw_line(&b->d.vga, &view, y % view.height, b->line);
    FUZZ_CHECK(b->line[3 * view.width] == 0x5a);
}

/* Load the state with one byte exchanged in the struct, which is as if the file had it. */
static void load_changed(struct bench *b, const uint8_t *r)
{
    struct vga changed = b->d.vga;
    struct err err = { "" };

    ((uint8_t *)&changed)[ld_le16(r + 2) % offsetof(struct vga, ram)] = r[4];
    *(uint8_t *)&changed.attr_data &= 1; /* as the state format reads a bool */
    if (vga_state.check(&changed, &err) == 0)
        b->d.vga = changed;
    else
        FUZZ_CHECK(err.text[0]);
}

static void access_to(struct bench *b, struct bus *bus, uint64_t addr, const uint8_t *r)
{
    unsigned size = 1U << (r[1] & 3);

    if (r[1] & 0x80)
        bus_read(bus, addr, size);
    else
        bus_write(bus, addr, ld_le32(r + 4), size);
}

static void run_record(struct bench *b, const uint8_t *r)
{
    unsigned at = ld_le16(r + 2);

    switch (r[0] & 7) {
    case 0:
        access_to(b, &b->mmio, WINDOW + at * 2U, r);
        break;
    case 1: /* a register of the display interface */
        bus_write(&b->io, 0x1ce, at % 12, 2);
        access_to(b, &b->io, 0x1cf, r);
        break;
    case 2:
        load_changed(b, r);
        break;
    case 3:
        if (r[1] & 1)
            display_set_up(&b->d, 0xe0000000);
        else
            display_ops.reset(&b->d);
        break;
    case 4:
        look(b, at);
        break;
    default:
        access_to(b, &b->io, 0x3b0 + at % 0x30, r);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct bench b;
    uint8_t beside[2] = { 1, 1 };

    if (size > 200 * RECORD)
        size = 200 * RECORD;
    memset(&b, 0, sizeof(b));
    bus_init(&b.io, "io", NULL, 0x10000);
    bus_init(&b.mmio, "mmio", NULL, 0);
    ram_init(&b.ram);
    FUZZ_CHECK(ram_add_slot(&b.ram, VRAM - PAGE_SIZE, VGA_VRAM + 2 * PAGE_SIZE, false) == 0);
    FUZZ_CHECK(display_init(&b.d, &b.ram, VRAM) == 0);
    FUZZ_CHECK(vga_attach(&b.d.vga, &b.io, &b.mmio) == 0);
    for (size_t at = 0; at + RECORD <= size; at += RECORD)
        run_record(&b, data + at);
    FUZZ_CHECK(vga_vbe_sound(&b.d.vga));
    look(&b, 0);
    ram_read(&b.ram, VRAM - 1, beside, 1);
    ram_read(&b.ram, VRAM + VGA_VRAM, beside + 1, 1);
    FUZZ_CHECK(!beside[0] && !beside[1]);
    display_ops.destroy(&b.d);
    ram_fini(&b.ram);
    return 0;
}

/* Text, a mode of the display interface with a bank, planes, states. */
size_t fuzz_seed(unsigned n, uint8_t *buf, size_t size)
{
    static const uint8_t seeds[4][6][RECORD] = {
        { { 3, 1 }, { 0, 1, 0, 0xc0, 'a', 7 }, { 4 }, { 5, 1, 0x24, 0, 12, 0xff }, { 0, 3, 4, 0xc0, 'a', 7 }, { 4 } },
        { { 1, 1, 1, 0, 64 }, { 1, 1, 2, 0, 64 }, { 1, 1, 3, 0, 32 }, { 1, 1, 4, 0, 1 }, { 1, 1, 5, 0, 255 }, { 4 } },
        { { 3, 1 }, { 5, 1, 0x1e, 0, 6, 5 }, { 5, 1, 0x14, 0, 4, 6 }, { 0, 3, 1, 0, 1, 2, 3, 4 }, { 0, 0x80 }, { 4, 0, 9 } },
        { { 2, 0, 4, 0, 3 }, { 2, 0, 9, 0, 1 }, { 3, 1 }, { 2, 0, 50, 0, 9 }, { 5, 0, 0x19, 0, 9 }, { 4 } },
    };

    if (n >= ARRAY_LEN(seeds) || size < sizeof(seeds[0]))
        return 0;
    memcpy(buf, seeds[n], sizeof(seeds[0]));
    return sizeof(seeds[0]);
}
