/* A machine's screen and keyboard, for the routes of the API. Thread: the machine's, no lock held. */
#ifndef VITRO_API_SCREEN_H
#define VITRO_API_SCREEN_H

#include <jansson.h>
#include <stdint.h>

struct err;
struct vm;

/* What the screen shows, as an object; NULL: out of memory. The machine has a display. */
json_t *screen_describe(struct vm *vm);

/* The same as a PNG file: *len bytes at *data, to free(). 0, or -errno with a sentence. */
int screen_png(struct vm *vm, char **data, size_t *len, struct err *err);

/* Type a text, or press the keys of a name (see ps2_stroke()). Returns how many characters (keys: 1) the keyboard took, which
 * is none while its buffer is full and the guest does not read; or -EINVAL: a character or key that there is none of. */
int screen_type(struct vm *vm, const char *text);
int screen_press(struct vm *vm, const char *key);

#endif
