/* What a VGA's screen shows: as text in UTF-8 where it shows characters, and as a picture.
 *
 * Drawn are text with fonts of 8 dots a character (the ninth, a gap, is left out), 16 colours from four planes, 256 colours, and
 * all modes of the display interface. Not drawn: CGA's packed modes, split screens, panning by parts of a character, blinking.
 * Source: as for vga.c; IBM code page 437.
 * Runs on: any thread, under the device lock; takes no lock, changes nothing.
 */
#include <string.h>

#include "base/bits.h"
#include "chip/vga.h"

enum { SEQ_CLOCK = 1, SEQ_FONTS = 3, SEQ_OFF = 0x20, SEQ_HALF = 0x08 };
enum { GFX_MODE = 5, GFX_MISC = 6, GFX_SHIFT_CGA = 0x20, GFX_SHIFT_256 = 0x40, GFX_GRAPHICS = 1 };
enum { CRTC_COLUMNS = 1, CRTC_OVERFLOW = 7, CRTC_SCAN = 9, CRTC_CURSOR = 10, CRTC_CURSOR_END = 11, CRTC_START = 12,
       CRTC_CURSOR_AT = 14, CRTC_LINES = 18, CRTC_PITCH = 19 };
enum { ATTR_MODE = 16, ATTR_PLANES = 18, ATTR_COLOUR = 20, ATTR_ON = 0x20, ATTR_P54 = 0x80 };

#define PLANE_BYTES 0x10000U

/* clang-format off */
static const uint16_t vga_cp437[256] = {
    0x0020, 0x263a, 0x263b, 0x2665, 0x2666, 0x2663, 0x2660, 0x2022, 0x25d8, 0x25cb, 0x25d9, 0x2642, 0x2640, 0x266a, 0x266b, 0x263c,
    0x25ba, 0x25c4, 0x2195, 0x203c, 0x00b6, 0x00a7, 0x25ac, 0x21a8, 0x2191, 0x2193, 0x2192, 0x2190, 0x221f, 0x2194, 0x25b2, 0x25bc,
    [0x7f] = 0x2302,
    [0x80] =
    0x00c7, 0x00fc, 0x00e9, 0x00e2, 0x00e4, 0x00e0, 0x00e5, 0x00e7, 0x00ea, 0x00eb, 0x00e8, 0x00ef, 0x00ee, 0x00ec, 0x00c4, 0x00c5,
    0x00c9, 0x00e6, 0x00c6, 0x00f4, 0x00f6, 0x00f2, 0x00fb, 0x00f9, 0x00ff, 0x00d6, 0x00dc, 0x00a2, 0x00a3, 0x00a5, 0x20a7, 0x0192,
    0x00e1, 0x00ed, 0x00f3, 0x00fa, 0x00f1, 0x00d1, 0x00aa, 0x00ba, 0x00bf, 0x2310, 0x00ac, 0x00bd, 0x00bc, 0x00a1, 0x00ab, 0x00bb,
    0x2591, 0x2592, 0x2593, 0x2502, 0x2524, 0x2561, 0x2562, 0x2556, 0x2555, 0x2563, 0x2551, 0x2557, 0x255d, 0x255c, 0x255b, 0x2510,
    0x2514, 0x2534, 0x252c, 0x251c, 0x2500, 0x253c, 0x255e, 0x255f, 0x255a, 0x2554, 0x2569, 0x2566, 0x2560, 0x2550, 0x256c, 0x2567,
    0x2568, 0x2564, 0x2565, 0x2559, 0x2558, 0x2552, 0x2553, 0x256b, 0x256a, 0x2518, 0x250c, 0x2588, 0x2584, 0x258c, 0x2590, 0x2580,
    0x03b1, 0x00df, 0x0393, 0x03c0, 0x03a3, 0x03c3, 0x00b5, 0x03c4, 0x03a6, 0x0398, 0x03a9, 0x03b4, 0x221e, 0x03c6, 0x03b5, 0x2229,
    0x2261, 0x00b1, 0x2265, 0x2264, 0x2320, 0x2321, 0x00f7, 0x2248, 0x00b0, 0x2219, 0x00b7, 0x221a, 0x207f, 0x00b2, 0x25a0, 0x00a0,
};
/* clang-format on */

/* ---- geometry ---- */

static unsigned vga_crtc16(const struct vga *v, unsigned reg) { return v->crtc[reg] << 8U | v->crtc[reg + 1]; }

/* Lines that the CRT shows, and of them how many make one line of memory or row of text. */
static unsigned vga_crt_lines(const struct vga *v)
{
    unsigned over = v->crtc[CRTC_OVERFLOW];

    return (v->crtc[CRTC_LINES] | (over >> 1 & 1) << 8 | (over >> 6 & 1) << 9) + 1;
}

static unsigned vga_scan(const struct vga *v) { return (v->crtc[CRTC_SCAN] & 31U) + 1; }

static bool vga_doubled(const struct vga *v) { return v->crtc[CRTC_SCAN] & 0x80; }

static void vga_look_text(const struct vga *v, struct vga_view *view)
{
    unsigned pitch = v->crtc[CRTC_PITCH] * 2U, at = (vga_crtc16(v, CRTC_CURSOR_AT) - vga_crtc16(v, CRTC_START)) & 0xffff;
    unsigned first = v->crtc[CRTC_CURSOR], last = v->crtc[CRTC_CURSOR_END] & 31U;

    view->columns = v->crtc[CRTC_COLUMNS] + 1U;
    view->rows = vga_crt_lines(v) / vga_scan(v) / (vga_doubled(v) ? 2 : 1);
    if (view->rows > VGA_MAX_ROWS)
        view->rows = VGA_MAX_ROWS;
    view->width = 8 * view->columns;
    view->height = view->rows * vga_scan(v);
    view->kind = view->rows ? VGA_TEXT : VGA_STRANGE;
    if (!pitch || (first & 0x20) || (first & 31) > last)
        return;
    view->cursor_row = at / pitch;
    view->cursor_column = at % pitch;
    view->cursor = view->cursor_row < view->rows && view->cursor_column < view->columns;
}

static void vga_look_graphics(const struct vga *v, struct vga_view *view)
{
    unsigned columns = v->crtc[CRTC_COLUMNS] + 1U;

    view->width = columns * (v->gfx[GFX_MODE] & GFX_SHIFT_256 ? 4 : 8);
    view->height = vga_crt_lines(v) / vga_scan(v) / (vga_doubled(v) ? 2 : 1);
    view->kind = !view->height || (v->gfx[GFX_MODE] & (GFX_SHIFT_256 | GFX_SHIFT_CGA)) == GFX_SHIFT_CGA ? VGA_STRANGE : VGA_GRAPHICS;
}

void vga_look(const struct vga *v, struct vga_view *view)
{
    struct vga_frame f;

    *view = (struct vga_view){ .kind = VGA_BLANK };
    if ((v->seq[SEQ_CLOCK] & SEQ_OFF) || !(v->attr_index & ATTR_ON))
        return;
    if (vga_vbe_on(v)) {
        vga_vbe_frame(v, &f);
        *view = (struct vga_view){ .kind = VGA_GRAPHICS, .width = f.width, .height = f.height };
    } else if (v->gfx[GFX_MISC] & GFX_GRAPHICS) {
        vga_look_graphics(v, view);
    } else {
        vga_look_text(v, view);
    }
}

/* ---- text ---- */

/* n words of four planes from address at on, which wraps as the planes of a VGA do. */
static void vga_words(const struct vga *v, unsigned at, unsigned n, uint8_t (*out)[4])
{
    while (n) {
        unsigned part;

        at %= PLANE_BYTES;
        part = n < PLANE_BYTES - at ? n : PLANE_BYTES - at;
        if (ram_read(v->ram, v->vram + 4UL * at, out, 4UL * part) < 0)
            memset(out, 0, 4UL * part);
        at += part;
        out += part;
        n -= part;
    }
}

static void vga_cells(const struct vga *v, const struct vga_view *view, unsigned row, uint8_t (*out)[4])
{
    vga_words(v, vga_crtc16(v, CRTC_START) + row * v->crtc[CRTC_PITCH] * 2U, view->columns, out);
}

static size_t vga_utf8(unsigned code, char *out)
{
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    if (code < 0x800) {
        out[0] = (char)(0xc0 | code >> 6);
        out[1] = (char)(0x80 | (code & 63));
        return 2;
    }
    out[0] = (char)(0xe0 | code >> 12);
    out[1] = (char)(0x80 | (code >> 6 & 63));
    out[2] = (char)(0x80 | (code & 63));
    return 3;
}

size_t vga_text_row(const struct vga *v, const struct vga_view *view, unsigned row, char out[VGA_ROW_BYTES])
{
    uint8_t cell[VGA_MAX_COLUMNS][4];
    size_t len = 0, end = 0;

    vga_cells(v, view, row, cell);
    for (unsigned n = 0; n < view->columns; n++) {
        unsigned c = cell[n][0], code = vga_cp437[c] ? vga_cp437[c] : c;

        len += vga_utf8(code, out + len);
        if (code != ' ')
            end = len;
    }
    out[end] = 0;
    return end;
}

/* ---- colours ---- */

static void vga_dac_colour(const struct vga *v, uint8_t n, uint8_t rgb[3])
{
    const uint8_t *c = v->dac + 3U * (n & v->dac_mask);
    bool wide = v->vbe[VBE_ENABLE] & VBE_DAC8;

    for (unsigned part = 0; part < 3; part++)
        rgb[part] = wide ? c[part] : (uint8_t)((c[part] & 63) << 2 | (c[part] & 63) >> 4);
}

/* One of 16 colours, through the attribute controller's palette. */
static void vga_attr_colour(const struct vga *v, unsigned n, uint8_t rgb[3])
{
    unsigned c = v->attr[n & v->attr[ATTR_PLANES] & 15], select = v->attr[ATTR_COLOUR];

    if (v->attr[ATTR_MODE] & ATTR_P54)
        c = (c & 15) | (select & 3) << 4;
    vga_dac_colour(v, (uint8_t)((c & 63) | (select & 12) << 4), rgb);
}

/* ---- pictures ---- */

/* Where one of eight fonts begins in plane 2. */
static unsigned vga_font(unsigned n) { return (n & 3) * 0x4000U + (n >> 2) * 0x2000U; }

static unsigned vga_font_of(const struct vga *v, uint8_t attribute)
{
    unsigned s = v->seq[SEQ_FONTS];

    return vga_font(attribute & 8 ? (s >> 2 & 3) | (s >> 5 & 1) << 2 : (s & 3) | (s >> 4 & 1) << 2);
}

/* Eight dots of a character; under the cursor they are all on. */
static uint8_t vga_glyph(const struct vga *v, const uint8_t cell[4], unsigned line, bool cursor)
{
    uint8_t word[1][4];

    if (cursor && line >= (v->crtc[CRTC_CURSOR] & 31U) && line <= (v->crtc[CRTC_CURSOR_END] & 31U))
        return 0xff;
    vga_words(v, vga_font_of(v, cell[1]) + cell[0] * 32U + line, 1, word);
    return word[0][2];
}

static void vga_draw_text(const struct vga *v, const struct vga_view *view, unsigned y, uint8_t *rgb)
{
    uint8_t cell[VGA_MAX_COLUMNS][4], colour[2][3];
    unsigned row = y / vga_scan(v), line = y % vga_scan(v);

    vga_cells(v, view, row, cell);
    for (unsigned n = 0; n < view->columns; n++) {
        bool cursor = view->cursor && row == view->cursor_row && n == view->cursor_column;
        uint8_t dots = vga_glyph(v, cell[n], line, cursor);

        vga_attr_colour(v, cell[n][1] >> 4, colour[0]);
        vga_attr_colour(v, cell[n][1] & 15, colour[1]);
        for (unsigned x = 0; x < 8; x++, rgb += 3)
            memcpy(rgb, colour[dots >> (7 - x) & 1], 3);
    }
}

/* Eight pixels from a bit of each plane. */
static void vga_draw_planes(const struct vga *v, const uint8_t word[4], uint8_t *rgb)
{
    for (unsigned x = 0; x < 8; x++, rgb += 3) {
        unsigned n = 0;

        for (unsigned plane = 0; plane < 4; plane++)
            n |= (word[plane] >> (7 - x) & 1U) << plane;
        vga_attr_colour(v, n, rgb);
    }
}

static void vga_draw_legacy(const struct vga *v, const struct vga_view *view, unsigned y, uint8_t *rgb)
{
    bool many = v->gfx[GFX_MODE] & GFX_SHIFT_256;
    unsigned words = view->width / (many ? 4 : 8);
    uint8_t word[VGA_MAX_COLUMNS][4];

    vga_words(v, vga_crtc16(v, CRTC_START) + y * v->crtc[CRTC_PITCH] * 2U, words, word);
    for (unsigned n = 0; n < words; n++) {
        if (!many)
            vga_draw_planes(v, word[n], rgb + 24UL * n);
        for (unsigned p = 0; many && p < 4; p++)
            vga_dac_colour(v, word[n][p], rgb + 12UL * n + 3UL * p);
    }
}

/* A pixel of 15 or 16 bits: red and blue have five. */
static void vga_high_colour(unsigned c, bool six, uint8_t rgb[3])
{
    unsigned r = c >> (six ? 11 : 10) & 31, g = six ? c >> 5 & 63 : c >> 4 & 62, b = c & 31;

    rgb[0] = (uint8_t)(r << 3 | r >> 2);
    rgb[1] = (uint8_t)(g << 2 | g >> 4);
    rgb[2] = (uint8_t)(b << 3 | b >> 2);
}

static void vga_vbe_pixel(const struct vga *v, unsigned bpp, const uint8_t *p, uint8_t rgb[3])
{
    if (bpp == 8) {
        vga_dac_colour(v, *p, rgb);
    } else if (bpp <= 16) {
        vga_high_colour(ld_le16(p), bpp == 16, rgb);
    } else {
        for (unsigned part = 0; part < 3; part++)
            rgb[part] = p[2 - part];
    }
}

static void vga_draw_vbe(const struct vga *v, const struct vga_view *view, unsigned y, uint8_t *rgb)
{
    uint8_t line[VGA_MAX_WIDTH * 4];
    struct vga_frame f;
    unsigned bytes, len;
    uint64_t at;

    vga_vbe_frame(v, &f);
    bytes = (f.bpp + 7) / 8;
    at = f.start + y * f.pitch;
    len = f.bpp == 4 ? f.width / 8 * 4 : f.width * bytes;
    if (ram_read(v->ram, v->vram + (f.bpp == 4 ? 4 * at : at), line, len) < 0)
        memset(line, 0, len);
    for (unsigned x = 0; f.bpp != 4 && x < f.width; x++)
        vga_vbe_pixel(v, f.bpp, line + x * bytes, rgb + 3UL * x);
    for (unsigned n = 0; f.bpp == 4 && n < f.width / 8; n++)
        vga_draw_planes(v, line + 4UL * n, rgb + 24UL * n);
}

void vga_draw_line(const struct vga *v, const struct vga_view *view, unsigned y, uint8_t *rgb)
{
    memset(rgb, 0, 3UL * view->width);
    if (view->kind == VGA_TEXT)
        vga_draw_text(v, view, y, rgb);
    else if (view->kind == VGA_GRAPHICS && vga_vbe_on(v))
        vga_draw_vbe(v, view, y, rgb);
    else if (view->kind == VGA_GRAPHICS)
        vga_draw_legacy(v, view, y, rgb);
}
