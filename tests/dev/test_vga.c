/* The display card: registers and palette, the four planes under all write and read modes, text and pictures as they are seen,
 * the display interface with modes that do not fit, the frame buffer's BAR, states, random traffic. */
#include <errno.h>
#include <string.h>

#include "base/bits.h"
#include "base/err.h"
#include "pci/display.h"
#include "pci/host.h"
#include "rig.h"

#define VRAM 0xfd000000ULL
#define BAR  0xe0000000U
#define WIN  0xa0000ULL
#define TEXT 0xb8000ULL

static struct {
    struct rig rig;
    struct ram ram;
    struct pci_host host;
    struct display d, fresh;
    uint8_t line[VGA_MAX_WIDTH * 3];
} f;

static int setup(void **state)
{
    struct irq_line intx[4] = { { 0 } };

    rig_init(&f.rig, 0);
    ram_init(&f.ram);
    assert_int_equal(ram_add_slot(&f.ram, VRAM, VGA_VRAM, false), 0);
    pci_host_init(&f.host, &f.rig.io, &f.rig.mmio, intx);
    assert_int_equal(display_init(&f.d, &f.ram, VRAM), 0);
    assert_int_equal(pci_dev_plug(&f.d.pci, &f.host, 2), 0);
    assert_int_equal(vga_attach(&f.d.vga, &f.rig.io, &f.rig.mmio), 0);
    return 0;
}

static int teardown(void **state)
{
    display_ops.destroy(&f.d);
    ram_fini(&f.ram);
    rig_fini(&f.rig);
    return 0;
}

static void out(uint16_t port, uint8_t v) { rig_outb(&f.rig, port, v); }
static uint8_t in(uint16_t port) { return rig_inb(&f.rig, port); }
static void put(uint64_t gpa, uint8_t v) { bus_write(&f.rig.mmio, gpa, v, 1); }
static uint8_t get(uint64_t gpa) { return (uint8_t)bus_read(&f.rig.mmio, gpa, 1); }

/* Index and data at once, as drivers do. */
static void reg(uint16_t port, uint8_t n, uint8_t v) { bus_write(&f.rig.io, port, n | v << 8, 2); }
static uint8_t reg_get(uint16_t port, uint8_t n)
{
    out(port, n);
    return in(port + 1);
}

static void attr(uint8_t n, uint8_t v)
{
    in(0x3da);
    out(0x3c0, n);
    out(0x3c0, v);
}

static void vbe(uint16_t n, uint16_t v)
{
    bus_write(&f.rig.io, 0x1ce, n, 2);
    bus_write(&f.rig.io, 0x1cf, v, 2);
}

static uint16_t vbe_get(uint16_t n)
{
    bus_write(&f.rig.io, 0x1ce, n, 2);
    return (uint16_t)bus_read(&f.rig.io, 0x1d0, 2);
}

static uint32_t word(unsigned at)
{
    uint8_t b[4];

    assert_int_equal(ram_read(&f.ram, VRAM + 4 * at, b, 4), 0);
    return ld_le32(b);
}

static struct vga_view look(void)
{
    struct vga_view view;

    vga_look(&f.d.vga, &view);
    return view;
}

/* ---- registers ---- */

static void test_registers(void **state)
{
    assert_int_equal(look().kind, VGA_BLANK);
    assert_int_equal(in(0x3d4), 0xff); /* monochrome after power-on */
    out(0x3b4, 0x0f);
    assert_int_equal(in(0x3b4), 0x0f);
    out(0x3c2, 0xff);
    assert_int_equal(in(0x3cc), 0xef);
    assert_int_equal(in(0x3b4), 0xff);
    assert_int_equal(in(0x3d4), 0x0f);
    reg(0x3d4, 0x0f, 0x5a);
    assert_int_equal(bus_read(&f.rig.io, 0x3d4, 2), 0x5a0f);
    reg(0x3c4, 2, 0xff);
    assert_int_equal(reg_get(0x3c4, 2), 0x0f);
    reg(0x3ce, 5, 0xff);
    assert_int_equal(reg_get(0x3ce, 5), 0x7b);
    assert_int_equal(reg_get(0x3ce, 15), 0);
    assert_int_equal(reg_get(0x3d4, 0x1f), 0);
}

static void test_protection(void **state)
{
    out(0x3c2, 1);
    reg(0x3d4, 0x11, 0x80);
    reg(0x3d4, 1, 79);
    reg(0x3d4, 7, 0xff);
    assert_int_equal(reg_get(0x3d4, 1), 0);
    assert_int_equal(reg_get(0x3d4, 7), 0x10);
    reg(0x3d4, 8, 3);
    assert_int_equal(reg_get(0x3d4, 8), 3);
    reg(0x3d4, 0x11, 0);
    reg(0x3d4, 1, 79);
    assert_int_equal(reg_get(0x3d4, 1), 79);
}

static void test_attributes(void **state)
{
    out(0x3c2, 1);
    attr(3, 0xff);
    attr(0x10, 0xff);
    attr(0x1f, 0xff); /* there is none */
    in(0x3da);
    out(0x3c0, 3);
    assert_int_equal(in(0x3c1), 0x3f);
    in(0x3da); /* index again */
    out(0x3c0, 0x30);
    assert_int_equal(in(0x3c1), 0xff);
    assert_int_equal(in(0x3c0), 0x30);
    in(0x3da);
    out(0x3c0, 0x1f);
    assert_int_equal(in(0x3c1), 0);
    uint8_t a = in(0x3da), b = in(0x3da);
    assert_int_equal(a ^ b, 9); /* who waits for retrace, or for its end, sees both */
}

static void test_palette(void **state)
{
    out(0x3c8, 255);
    for (unsigned n = 1; n <= 5; n++)
        out(0x3c9, (uint8_t)n);
    assert_int_equal(in(0x3c7), 0);
    out(0x3c7, 255);
    assert_int_equal(in(0x3c7), 3);
    for (unsigned n = 1; n <= 3; n++)
        assert_int_equal(in(0x3c9), n);
    assert_int_equal(in(0x3c9), 0); /* two parts are no colour */
    out(0x3c9, 6);
    out(0x3c7, 0);
    assert_int_equal(in(0x3c9), 0);
    assert_int_equal(in(0x3c6), 0xff);
}

/* ---- memory ---- */

static void planar(void)
{
    out(0x3c2, 1);
    reg(0x3c4, 2, 15);
    reg(0x3c4, 4, 6);
    reg(0x3ce, 6, 5);
    reg(0x3ce, 5, 0);
    reg(0x3ce, 8, 0xff);
}

static void test_write_modes(void **state)
{
    planar();
    put(WIN + 7, 0xa5);
    assert_int_equal(word(7), 0xa5a5a5a5);
    reg(0x3c4, 2, 4);
    reg(0x3ce, 3, 1); /* turned by one */
    put(WIN + 7, 0x01);
    assert_int_equal(word(7), 0xa580a5a5);
    reg(0x3c4, 2, 15);
    reg(0x3ce, 3, 0);
    reg(0x3ce, 1, 3); /* set/reset for planes 0 and 1 */
    reg(0x3ce, 0, 2);
    put(WIN + 8, 0x3c);
    assert_int_equal(word(8), 0x3c3cff00);
    get(WIN + 7);
    reg(0x3ce, 5, 1); /* latches */
    put(WIN + 9, 0);
    assert_int_equal(word(9), 0xa580a5a5);
    reg(0x3ce, 5, 2); /* a colour, under the bit mask, XOR */
    reg(0x3ce, 8, 0x0f);
    reg(0x3ce, 3, 0x18);
    put(WIN + 10, 0x05);
    assert_int_equal(word(10), 0xa58fa5aa);
    reg(0x3ce, 5, 3);
    reg(0x3ce, 3, 0);
    put(WIN + 11, 0x3f); /* mask 0x0f of 0x3f, set/reset 2 */
    assert_int_equal(word(11), 0xa080afa0);
}

static void test_functions(void **state)
{
    static const uint8_t expect[4] = { 0x3c, 0x24, 0xbd, 0x99 };

    planar();
    put(WIN, 0xa5);
    for (uint8_t n = 0; n < 4; n++) {
        get(WIN);
        reg(0x3ce, 3, (uint8_t)(n << 3));
        put(WIN + 1, 0x3c);
        assert_int_equal(word(1), expect[n] * 0x01010101U);
    }
}

static void test_read_modes(void **state)
{
    planar();
    for (uint8_t n = 0; n < 4; n++) {
        reg(0x3c4, 2, (uint8_t)(1 << n));
        put(WIN + 3, (uint8_t)(0x11 << n));
    }
    for (uint8_t n = 0; n < 4; n++) {
        reg(0x3ce, 4, n);
        assert_int_equal(get(WIN + 3), 0x11 << n);
    }
    reg(0x3ce, 5, 8);
    reg(0x3ce, 2, 1);
    reg(0x3ce, 7, 15);
    assert_int_equal(get(WIN + 3), 0x11);
    reg(0x3ce, 7, 0); /* nobody cares */
    assert_int_equal(get(WIN + 3), 0xff);
}

static void test_windows(void **state)
{
    planar();
    put(0xb0000, 1);
    assert_int_equal(get(0xb0000), 0xff); /* 64 KiB from A0000 */
    assert_int_equal(word(0), 0);
    reg(0x3ce, 6, 0); /* 128 KiB */
    put(0xb0000, 2);
    assert_int_equal(word(0x10000), 0x02020202);
    reg(0x3ce, 6, 8); /* 32 KiB at B0000 */
    put(0xb0001, 3);
    assert_int_equal(get(0xa0001), 0xff);
    assert_int_equal(word(1), 0x03030303);
    reg(0x3ce, 6, 12);
    put(0xb8002, 4);
    assert_int_equal(get(0xb0002), 0xff);
    assert_int_equal(word(2), 0x04040404);
}

static void test_chain4(void **state)
{
    planar();
    reg(0x3c4, 4, 0x0e);
    bus_write(&f.rig.mmio, WIN + 1, 0x8877665544332211ULL, 8);
    assert_int_equal(word(0), 0x33221100);
    assert_int_equal(word(1), 0x77665544);
    assert_int_equal(bus_read(&f.rig.mmio, WIN + 3, 4), 0x66554433);
    vbe(VBE_BANK, 255);
    put(WIN + 0xffff, 0x99);
    assert_int_equal(word(VGA_VRAM / 4 - 1), 0x99000000);
    reg(0x3c4, 4, 6); /* as planes the last bank is beyond the end */
    put(WIN, 0x77);
    assert_int_equal(get(WIN), 0xff);
}

/* ---- the screen ---- */

static void test_text(void **state)
{
    char row[VGA_ROW_BYTES];
    struct vga_view view;

    vga_set_text(&f.d.vga);
    view = look();
    assert_int_equal(view.kind, VGA_TEXT);
    assert_int_equal(view.columns, 80);
    assert_int_equal(view.rows, 25);
    assert_int_equal(view.width, 640);
    assert_int_equal(view.height, 400);
    assert_true(view.cursor && view.cursor_row == 0 && view.cursor_column == 0);
    assert_int_equal(vga_text_row(&f.d.vga, &view, 0, row), 0);
    bus_write(&f.rig.mmio, TEXT + 160 + 4, 0x071f075507e1074bULL, 8); /* K, sharp s, U, a triangle */
    assert_int_equal(bus_read(&f.rig.mmio, TEXT + 160 + 6, 2), 0x07e1);
    assert_int_equal(vga_text_row(&f.d.vga, &view, 1, row), 2 + 1 + 2 + 1 + 3);
    assert_string_equal(row, "  K\xc3\x9fU\xe2\x96\xbc");
    reg(0x3d4, 13, 80); /* scrolled by a row */
    reg(0x3d4, 15, 80 + 83);
    view = look();
    assert_true(view.cursor && view.cursor_row == 1 && view.cursor_column == 3);
    vga_text_row(&f.d.vga, &view, 0, row);
    assert_string_equal(row, "  K\xc3\x9fU\xe2\x96\xbc");
    reg(0x3d4, 10, 0x2d);
    assert_false(look().cursor);
    reg(0x3c4, 1, 0x20);
    assert_int_equal(look().kind, VGA_BLANK);
}

/* The start address lies at the end of the planes: the page goes on at their beginning. */
static void test_text_wraps(void **state)
{
    char row[VGA_ROW_BYTES];
    struct vga_view view;

    vga_set_text(&f.d.vga);
    put(TEXT, 'b');
    ram_write(&f.ram, VRAM + 4 * 0xffff, "a", 1);
    reg(0x3d4, 12, 0xff);
    reg(0x3d4, 13, 0xff);
    view = look();
    vga_text_row(&f.d.vga, &view, 0, row);
    assert_string_equal(row, "ab");
}

static const uint8_t *draw(unsigned y)
{
    struct vga_view view = look();

    assert_in_range(view.width * 3, 1, sizeof(f.line));
    vga_draw_line(&f.d.vga, &view, y, f.line);
    return f.line;
}

static void test_text_picture(void **state)
{
    static const uint8_t white[3] = { 170, 170, 170 }, blue[3] = { 0, 0, 170 };

    vga_set_text(&f.d.vga);
    reg(0x3d4, 10, 0x20);
    ram_write(&f.ram, VRAM + 4 * ('A' * 32 + 5) + 2, "\x40", 1); /* one dot of the font */
    bus_write(&f.rig.mmio, TEXT + 2, 0x1741, 2);
    assert_memory_equal(draw(5) + 3 * 9, white, 3);
    assert_memory_equal(draw(5) + 3 * 8, blue, 3);
    assert_memory_equal(draw(4) + 3 * 9, blue, 3);
}

static void test_pictures(void **state)
{
    static const uint8_t red[3] = { 255, 0, 0 };

    vga_set_text(&f.d.vga);
    planar();
    reg(0x3d4, 0x11, 0);
    reg(0x3d4, 7, 0x3e);
    reg(0x3d4, 0x12, 0xdf);
    reg(0x3d4, 9, 0x40);
    out(0x3c8, 5);
    out(0x3c9, 63);
    out(0x3c9, 0);
    out(0x3c9, 0);
    attr(5, 5);
    attr(0x10, 1);
    in(0x3da);
    out(0x3c0, 0x20);
    assert_int_equal(look().kind, VGA_GRAPHICS);
    assert_int_equal(look().width, 640);
    assert_int_equal(look().height, 480);
    reg(0x3c4, 2, 5);
    put(WIN + 80 * 479 + 79, 1);
    assert_memory_equal(draw(479) + 3 * 639, red, 3);
    reg(0x3ce, 5, 0x40); /* 256 colours: 320 by 200 */
    reg(0x3c4, 4, 0x0e);
    reg(0x3c4, 2, 15);
    reg(0x3d4, 7, 0x1f);
    reg(0x3d4, 0x12, 0x8f);
    reg(0x3d4, 9, 0x41);
    assert_int_equal(look().width, 320);
    assert_int_equal(look().height, 200);
    put(WIN + 320 * 199 + 319, 5);
    assert_memory_equal(draw(199) + 3 * 319, red, 3);
    reg(0x3ce, 5, 0x30);
    assert_int_equal(look().kind, VGA_STRANGE);
    assert_int_equal(draw(0)[0], 0);
}

/* ---- the display interface ---- */

static void mode(uint16_t x, uint16_t y, uint16_t bpp)
{
    vbe(VBE_ENABLE, 0);
    vbe(VBE_XRES, x);
    vbe(VBE_YRES, y);
    vbe(VBE_BPP, bpp);
    vbe(VBE_ENABLE, VBE_ENABLED | VBE_LFB);
}

static void test_vbe(void **state)
{
    static const uint8_t colour[3] = { 0x30, 0x20, 0x10 };

    assert_int_equal(vbe_get(VBE_ID), 0xb0c5);
    assert_int_equal(vbe_get(VBE_MEMORY), 256);
    assert_int_equal(vbe_get(99), 0);
    vbe(VBE_ENABLE, VBE_GETCAPS);
    assert_int_equal(vbe_get(VBE_XRES), VGA_MAX_WIDTH);
    ram_fill(&f.ram, VRAM, 0xee, VGA_VRAM);
    mode(1024, 768, 32);
    out(0x3c0, 0x20);
    assert_int_equal(look().kind, VGA_GRAPHICS);
    assert_int_equal(look().width, 1024);
    assert_int_equal(word(1024 * 768 - 1), 0);
    assert_int_equal(word(1024 * 768), 0xeeeeeeee);
    assert_int_equal(vbe_get(VBE_VIRT_HEIGHT), 4096);
    vbe(VBE_XRES, 640); /* not while it is on */
    assert_int_equal(vbe_get(VBE_XRES), 1024);
    vbe(VBE_Y_OFFSET, 4096 - 768);
    ram_write(&f.ram, VRAM + VGA_VRAM - 4, "\x10\x20\x30", 3);
    assert_memory_equal(draw(767) + 3 * 1023, colour, 3);
    vbe(VBE_Y_OFFSET, 4096 - 767);
    assert_int_equal(vbe_get(VBE_Y_OFFSET), 4096 - 768);
    vbe(VBE_X_OFFSET, 1);
    assert_int_equal(vbe_get(VBE_X_OFFSET), 0);
    vbe(VBE_VIRT_WIDTH, 1023);
    assert_int_equal(vbe_get(VBE_VIRT_WIDTH), 1024);
}

static void test_vbe_depths(void **state)
{
    static const struct {
        uint16_t bpp;
        uint8_t bytes[4], rgb[3];
    } depth[] = {
        { 4, { 0x80, 0, 0x80, 0 }, { 4, 8, 12 } }, { 8, { 5 }, { 4, 8, 12 } },
        { 15, { 0x1f, 0x7c }, { 255, 0, 255 } },   { 16, { 0xe0, 0x07 }, { 0, 255, 0 } },
        { 24, { 1, 2, 3 }, { 3, 2, 1 } },          { 32, { 1, 2, 3, 4 }, { 3, 2, 1 } },
    };

    vga_set_text(&f.d.vga);
    attr(5, 5);
    out(0x3c8, 5);
    for (unsigned n = 1; n <= 3; n++)
        out(0x3c9, (uint8_t)n);
    in(0x3da);
    out(0x3c0, 0x20);
    for (size_t n = 0; n < ARRAY_LEN(depth); n++) {
        mode(640, 480, depth[n].bpp);
        ram_write(&f.ram, VRAM, depth[n].bytes, 4);
        assert_memory_equal(draw(0), depth[n].rgb, 3);
    }
    mode(640, 480, 8);
    vbe(VBE_ENABLE, VBE_ENABLED | VBE_DAC8);
    ram_write(&f.ram, VRAM, "\5", 1);
    assert_int_equal(draw(0)[2], 3);
}

static void test_vbe_refused(void **state)
{
    static const uint16_t bad[][3] = { { 0, 480, 32 },       { 640, 0, 32 },    { 640, 480, 0 }, { 640, 480, 7 },
                                       { 65535, 65535, 32 }, { 2561, 100, 8 },  { 8, 1601, 8 },  { 7, 100, 4 } };

    for (size_t n = 0; n < ARRAY_LEN(bad); n++) {
        mode(bad[n][0], bad[n][1], bad[n][2]);
        assert_int_equal(vbe_get(VBE_ENABLE) & VBE_ENABLED, 0);
    }
    mode(VGA_MAX_WIDTH, VGA_MAX_LINES, 32);
    assert_int_equal(vbe_get(VBE_ENABLE) & VBE_ENABLED, 1);
}

static void test_bar(void **state)
{
    display_set_up(&f.d, BAR);
    assert_int_equal(look().kind, VGA_TEXT);
    bus_write(&f.rig.mmio, BAR + VGA_VRAM - 8, 0x8877665544332211ULL, 8);
    assert_int_equal(word(VGA_VRAM / 4 - 2), 0x44332211);
    assert_int_equal(bus_read(&f.rig.mmio, BAR + VGA_VRAM - 3, 1), 0x66);
    assert_int_equal(pci_dev_config_read(&f.d.pci, PCI_VENDOR_ID, 4), 0x11111234);
    assert_int_equal(pci_dev_config_read(&f.d.pci, PCI_REVISION, 4), 0x03000002);
    display_ops.reset(&f.d);
    assert_int_equal(look().kind, VGA_BLANK);
    assert_int_equal(bus_read(&f.rig.mmio, BAR + VGA_VRAM - 8, 4), 0xffffffff);
    assert_int_equal(word(VGA_VRAM / 4 - 2), 0x44332211); /* memory keeps its bytes */
}

/* ---- states ---- */

static void refused(struct vga *v)
{
    struct err err = { "" };

    assert_true(vga_state.check(v, &err) < 0 && err.text[0]);
}

static void test_state(void **state)
{
    struct vga v;

    display_set_up(&f.d, BAR);
    mode(800, 600, 16);
    assert_int_equal(display_init(&f.fresh, &f.ram, VRAM), 0);
    rig_round_trip(&display_ops, &f.d, &f.fresh);
    assert_int_equal(f.fresh.vga.vbe[VBE_XRES], 800);
    v = f.d.vga;
    v.seq_index = 8;
    refused(&v);
    v = f.d.vga;
    v.dac_part = 3;
    refused(&v);
    v = f.d.vga;
    v.vbe[VBE_Y_OFFSET] = 0xffff;
    refused(&v);
    v = f.d.vga;
    v.vbe[VBE_BANK] = 256;
    refused(&v);
}

static void test_attach(void **state)
{
    struct bus_region taken = { .base = 0xbffff, .len = 1, .ops = &vga_linear_bus };

    bus_remove(&f.rig.io, &f.d.vga.ports);
    bus_remove(&f.rig.io, &f.d.vga.vbe_ports);
    bus_remove(&f.rig.mmio, &f.d.vga.window);
    assert_int_equal(bus_add(&f.rig.mmio, &taken), 0);
    assert_int_equal(vga_attach(&f.d.vga, &f.rig.io, &f.rig.mmio), -EEXIST);
    assert_false(f.d.vga.ports.enabled || f.d.vga.vbe_ports.enabled);
}

/* Whatever is in the registers, the screen can be looked at. */
static void test_random(void **state)
{
    struct vga_view view;
    char row[VGA_ROW_BYTES];

    for (unsigned n = 0; n < 400; n++) {
        rig_fuzz(&f.rig, &f.rig.io, 0x3b0, 0x30, 100);
        rig_fuzz(&f.rig, &f.rig.io, 0x1ce, 4, 20);
        rig_fuzz(&f.rig, &f.rig.mmio, WIN, 0x20000, 20);
        f.d.vga.attr_index |= 0x20; /* else it is mostly dark */
        f.d.vga.seq[1] = 0;
        view = look();
        for (unsigned y = 0; y < view.rows; y++)
            assert_in_range(vga_text_row(&f.d.vga, &view, y, row), 0, VGA_ROW_BYTES - 1);
        for (unsigned y = 0; y < view.height; y += 16)
            draw(y);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(registers), TEST(protection),   TEST(attributes), TEST(palette),    TEST(write_modes),
        TEST(functions), TEST(read_modes),   TEST(windows),    TEST(chain4),     TEST(text),
        TEST(text_wraps), TEST(text_picture), TEST(pictures),   TEST(vbe),        TEST(vbe_depths),
        TEST(vbe_refused), TEST(bar),        TEST(state),      TEST(attach),     TEST(random),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
