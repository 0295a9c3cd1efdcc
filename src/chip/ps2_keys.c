/* Scan codes of set 2 for an MF2 keyboard of the United States. See ps2_keys.h.
 * Source: IBM PS/2 Hardware Interface Technical Reference, "Keyboard", scan code set 2.
 * Runs on: any thread; no state.
 */
#include "chip/ps2_keys.h"

#include <stdbool.h>
#include <string.h>

#include "base/bits.h"

enum { KEY_EXTENDED = 0x100, KEY_CTRL = 0x14, KEY_ALT = 0x11, KEY_SHIFT = 0x12 };

/* In pairs: the character without shift, and with it. */
static const struct {
    char plain, shifted;
    uint8_t code;
} ps2_chars[] = {
    { 'a', 'A', 0x1c }, { 'b', 'B', 0x32 }, { 'c', 'C', 0x21 },  { 'd', 'D', 0x23 },  { 'e', 'E', 0x24 }, { 'f', 'F', 0x2b },
    { 'g', 'G', 0x34 }, { 'h', 'H', 0x33 }, { 'i', 'I', 0x43 },  { 'j', 'J', 0x3b },  { 'k', 'K', 0x42 }, { 'l', 'L', 0x4b },
    { 'm', 'M', 0x3a }, { 'n', 'N', 0x31 }, { 'o', 'O', 0x44 },  { 'p', 'P', 0x4d },  { 'q', 'Q', 0x15 }, { 'r', 'R', 0x2d },
    { 's', 'S', 0x1b }, { 't', 'T', 0x2c }, { 'u', 'U', 0x3c },  { 'v', 'V', 0x2a },  { 'w', 'W', 0x1d }, { 'x', 'X', 0x22 },
    { 'y', 'Y', 0x35 }, { 'z', 'Z', 0x1a }, { '0', ')', 0x45 },  { '1', '!', 0x16 },  { '2', '@', 0x1e }, { '3', '#', 0x26 },
    { '4', '$', 0x25 }, { '5', '%', 0x2e }, { '6', '^', 0x36 },  { '7', '&', 0x3d },  { '8', '*', 0x3e }, { '9', '(', 0x46 },
    { '-', '_', 0x4e }, { '=', '+', 0x55 }, { '[', '{', 0x54 },  { ']', '}', 0x5b },  { ';', ':', 0x4c }, { '\'', '"', 0x52 },
    { ',', '<', 0x41 }, { '.', '>', 0x49 }, { '/', '?', 0x4a },  { '\\', '|', 0x5d }, { '`', '~', 0x0e }, { ' ', 0, 0x29 },
    { '\n', 0, 0x5a },  { '\t', 0, 0x0d },  { '\b', 0, 0x66 },   { '\033', 0, 0x76 },
};

static const struct {
    const char *name;
    uint16_t code;
} ps2_names[] = {
    { "enter", 0x5a },   { "tab", 0x0d },     { "backspace", 0x66 }, { "esc", 0x76 },     { "space", 0x29 },
    { "minus", 0x4e },   { "up", 0x175 },     { "down", 0x172 },     { "left", 0x16b },   { "right", 0x174 },
    { "home", 0x16c },   { "end", 0x169 },    { "pageup", 0x17d },   { "pagedown", 0x17a }, { "insert", 0x170 },
    { "delete", 0x171 }, { "f1", 0x05 },      { "f2", 0x06 },        { "f3", 0x04 },      { "f4", 0x0c },
    { "f5", 0x03 },      { "f6", 0x0b },      { "f7", 0x83 },        { "f8", 0x0a },      { "f9", 0x01 },
    { "f10", 0x09 },     { "f11", 0x78 },     { "f12", 0x07 },
};

static const struct {
    const char *prefix;
    uint8_t code;
} ps2_modifiers[] = { { "ctrl-", KEY_CTRL }, { "alt-", KEY_ALT }, { "shift-", KEY_SHIFT } };

/* One code, made or broken. */
static size_t ps2_put(uint8_t *out, unsigned code, bool make)
{
    size_t n = 0;

    if (code & KEY_EXTENDED)
        out[n++] = 0xe0;
    if (!make)
        out[n++] = 0xf0;
    out[n++] = (uint8_t)code;
    return n;
}

/* Modifiers (a mask of ps2_modifiers) down, the key, modifiers up. */
static size_t ps2_build(unsigned modifiers, unsigned code, uint8_t out[PS2_STROKE])
{
    size_t n = 0;

    for (unsigned m = 0; m < ARRAY_LEN(ps2_modifiers); m++)
        n += modifiers >> m & 1 ? ps2_put(out + n, ps2_modifiers[m].code, true) : 0;
    n += ps2_put(out + n, code, true);
    n += ps2_put(out + n, code, false);
    for (unsigned m = ARRAY_LEN(ps2_modifiers); m-- > 0;)
        n += modifiers >> m & 1 ? ps2_put(out + n, ps2_modifiers[m].code, false) : 0;
    return n;
}

static size_t ps2_char(char c, unsigned modifiers, uint8_t out[PS2_STROKE])
{
    for (size_t n = 0; c && n < ARRAY_LEN(ps2_chars); n++) {
        if (ps2_chars[n].plain == c)
            return ps2_build(modifiers, ps2_chars[n].code, out);
        if (ps2_chars[n].shifted == c)
            return ps2_build(modifiers | 4, ps2_chars[n].code, out);
    }
    return 0;
}

size_t ps2_stroke_char(char c, uint8_t out[PS2_STROKE]) { return ps2_char(c, 0, out); }

size_t ps2_stroke(const char *name, uint8_t out[PS2_STROKE])
{
    unsigned modifiers = 0;

    for (unsigned m = 0; m < ARRAY_LEN(ps2_modifiers); m++) {
        size_t len = strlen(ps2_modifiers[m].prefix);

        if (strncmp(name, ps2_modifiers[m].prefix, len) || modifiers >> m & 1)
            continue;
        modifiers |= 1U << m;
        name += len;
        m = -1U; /* in any order */
    }
    if (name[0] && !name[1])
        return ps2_char(name[0], modifiers, out);
    for (size_t n = 0; n < ARRAY_LEN(ps2_names); n++) {
        if (!strcmp(ps2_names[n].name, name))
            return ps2_build(modifiers, ps2_names[n].code, out);
    }
    return 0;
}
