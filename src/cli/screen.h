/* Between the files of `vitro screen`. Thread: the main thread. */
#ifndef VITRO_CLI_SCREEN_H
#define VITRO_CLI_SCREEN_H

#include <stddef.h>

struct err;

/* Send keys, as often as it takes until the guest has taken all of them. what is "text", with len characters, or "key", with the name of
 * one (len 1). 0, or -errno with a sentence. */
int screen_keys(const char *name, const char *what, const char *text, size_t len, struct err *err);

/* Show the screen of machine name until Ctrl-] or the machine's end, and send it the keys. Returns the exit status. */
int screen_watch(const char *name);

#endif
