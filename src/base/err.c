/* User-facing errors: formatting a sentence into a struct err.
 *
 * What is formatted may come from a file or a guest, and ends on a terminal: control characters
 * are replaced, so that a crafted name cannot drive the terminal. Bytes from 0x80 stay (UTF-8
 * paths). No state, no locks; a struct err belongs to one thread at a time.
 */
#include "base/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* One line without control characters, whatever the arguments held. */
static void err_clean(char *s)
{
    for (; *s; s++) {
        if ((unsigned char)*s < 0x20 || *s == 0x7f)
            *s = '?';
    }
}

int err_set(struct err *e, int code, const char *fmt, ...)
{
    /* Formatted beside e->text: an argument may be the old text. */
    char text[sizeof(e->text)];
    va_list ap;

    if (!e)
        return -code;
    va_start(ap, fmt);
    if (vsnprintf(text, sizeof(text), fmt, ap) < 0)
        text[0] = '\0';
    va_end(ap);
    err_clean(text);
    memcpy(e->text, text, sizeof(text));
    return -code;
}

void err_prefix(struct err *e, const char *fmt, ...)
{
    char text[sizeof(e->text)];
    va_list ap;
    int n;

    if (!e)
        return;
    va_start(ap, fmt);
    n = vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    if (n < 0)
        return;
    if ((size_t)n < sizeof(text) - 3)
        snprintf(text + n, sizeof(text) - (size_t)n, ": %.*s", (int)(sizeof(text) - (size_t)n - 3), e->text);
    err_clean(text);
    memcpy(e->text, text, sizeof(text));
}
