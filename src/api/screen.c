/* What a display shows as JSON and as a PNG file, and the keyboard. See screen.h.
 * Source: PNG specification (second edition): 5 (chunks), 9 (filters), 11.2 (IHDR, IDAT, IEND).
 */
#include "api/screen.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "base/bits.h"
#include "base/err.h"
#include "chip/ps2_keys.h"
#include "machine/vm.h"

/* ---- text ---- */

static json_t *screen_rows(const struct vga *v, const struct vga_view *view)
{
    json_t *rows = json_array();
    char row[VGA_ROW_BYTES];

    for (unsigned n = 0; n < view->rows; n++) {
        size_t len = vga_text_row(v, view, n, row);

        /* Characters below a blank are others on the screen, so this is always good UTF-8. */
        json_array_append_new(rows, json_stringn(row, len));
    }
    return rows;
}

static json_t *screen_object(const struct vga *v)
{
    static const char *const kinds[] = {
        [VGA_BLANK] = "blank", [VGA_TEXT] = "text", [VGA_GRAPHICS] = "graphics", [VGA_STRANGE] = "unknown"
    };
    struct vga_view view;
    json_t *o;

    vga_look(v, &view);
    o = json_pack("{s:s, s:i, s:i}", "mode", kinds[view.kind], "width", (int)view.width, "height", (int)view.height);
    if (view.kind != VGA_TEXT)
        return o;
    json_object_set_new(o, "columns", json_integer(view.columns));
    json_object_set_new(o, "rows", json_integer(view.rows));
    if (view.cursor)
        json_object_set_new(o, "cursor", json_pack("{s:i, s:i}", "row", (int)view.cursor_row, "column", (int)view.cursor_column));
    json_object_set_new(o, "text", screen_rows(v, &view));
    return o;
}

json_t *screen_describe(struct vm *vm)
{
    json_t *o;

    loop_lock(&vm->loop);
    o = screen_object(&vm->display.vga);
    loop_unlock(&vm->loop);
    return o;
}

/* ---- picture ---- */

struct screen_image {
    unsigned width, height;
    uint8_t *data; /* lines as PNG wants them: a filter's number (none), then the pixels */
    size_t len;
};

/* The lines as they are now. */
static int screen_copy(const struct vga *v, struct screen_image *i)
{
    struct vga_view view;
    size_t pitch;

    vga_look(v, &view);
    if (view.kind == VGA_BLANK || view.kind == VGA_STRANGE) {
        view.width = view.width ? view.width : 640;
        view.height = view.height ? view.height : 400;
    }
    pitch = 1 + 3UL * view.width;
    *i = (struct screen_image){ .width = view.width, .height = view.height, .len = pitch * view.height };
    i->data = calloc(view.height, pitch);
    for (unsigned y = 0; i->data && y < view.height; y++)
        vga_draw_line(v, &view, y, i->data + y * pitch + 1);
    return i->data ? 0 : -ENOMEM;
}

/* Head and checksum around len bytes that are in place. Returns the end. */
static uint8_t *screen_chunk(uint8_t *at, const char *type, size_t len)
{
    st_be32(at, (uint32_t)len);
    memcpy(at + 4, type, 4);
    st_be32(at + 8 + len, (uint32_t)crc32(0, at + 4, (uInt)(4 + len)));
    return at + 12 + len;
}

static size_t screen_encode(const struct screen_image *i, uint8_t *out, uLongf room)
{
    uint8_t *at = out + 8;

    memcpy(out, "\x89PNG\r\n\x1a\n", 8);
    st_be32(at + 8, i->width);
    st_be32(at + 12, i->height);
    memcpy(at + 16, "\x08\x02\0\0\0", 5); /* 8 bits, red green blue */
    at = screen_chunk(at, "IHDR", 13);
    if (compress2(at + 8, &room, i->data, i->len, 1) != Z_OK)
        return 0;
    at = screen_chunk(at, "IDAT", room);
    return (size_t)(screen_chunk(at, "IEND", 0) - out);
}

int screen_png(struct vm *vm, char **data, size_t *len, struct err *err)
{
    struct screen_image i;
    uint8_t *out;
    uLong room;
    int r;

    loop_lock(&vm->loop);
    r = screen_copy(&vm->display.vga, &i);
    loop_unlock(&vm->loop);
    room = r == 0 ? compressBound(i.len) : 0;
    out = r == 0 ? malloc(room + 64) : NULL;
    *len = out ? screen_encode(&i, out, room) : 0;
    free(i.data);
    *data = (char *)out;
    if (*len)
        return 0;
    free(out);
    return err_set(err, ENOMEM, "out of memory for the picture");
}

/* ---- keyboard ---- */

static bool screen_stroke(struct vm *vm, const uint8_t *bytes, size_t len)
{
    bool taken;

    loop_lock(&vm->loop);
    taken = i8042_key(&vm->i8042, bytes, len);
    loop_unlock(&vm->loop);
    return taken;
}

int screen_type(struct vm *vm, const char *text)
{
    uint8_t bytes[PS2_STROKE];
    size_t len = strlen(text);
    int n = 0;

    for (size_t i = 0; i < len; i++) {
        if (!ps2_stroke_char(text[i], bytes))
            return -EINVAL;
    }
    for (; text[n]; n++) {
        if (!screen_stroke(vm, bytes, ps2_stroke_char(text[n], bytes)))
            break;
    }
    return n;
}

int screen_press(struct vm *vm, const char *key)
{
    uint8_t bytes[PS2_STROKE];
    size_t len = ps2_stroke(key, bytes);

    return len ? screen_stroke(vm, bytes, len) : -EINVAL;
}
