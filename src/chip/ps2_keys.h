/* What a keyboard of the United States sends: names of keys and characters as scan codes of set 2. */
#ifndef VITRO_CHIP_PS2_KEYS_H
#define VITRO_CHIP_PS2_KEYS_H

#include <stddef.h>
#include <stdint.h>

#define PS2_STROKE 24 /* bytes of one stroke, at most */

/* A key pressed and let go, between modifiers: "a", "A", "enter", "f1", "ctrl-c", "ctrl-alt-delete". Returns the bytes for
 * i8042_key(); 0: there is no such key. */
size_t ps2_stroke(const char *name, uint8_t out[PS2_STROKE]);
/* The same for a character of ASCII; line feed is enter. */
size_t ps2_stroke_char(char c, uint8_t out[PS2_STROKE]);

#endif
