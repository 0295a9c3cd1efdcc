/* vitro screen --watch: a text screen as it changes, on a terminal whose keys go to the machine. Thread: the main thread. */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api/client.h"
#include "base/bits.h"
#include "base/err.h"
#include "cli/cli.h"
#include "cli/screen.h"
#include "cli/terminal.h"

#define WATCH_MS   100
#define WATCH_LEAVE 0x1d /* Ctrl-] */

struct watch {
    const char *name;
    char *shown; /* the screen as it was drawn last; owned */
    bool input_over, left;
};

/* ---- keys ---- */

/* What terminals send (xterm's sequences) for keys that are no characters. */
static const struct {
    const char *bytes, *key;
} watch_keys[] = {
    { "\033[A", "up" },       { "\033[B", "down" },      { "\033[C", "right" }, { "\033[D", "left" },  { "\033[H", "home" },
    { "\033[F", "end" },      { "\033[1~", "home" },     { "\033[4~", "end" },  { "\033OA", "up" },    { "\033OB", "down" },
    { "\033OC", "right" },    { "\033OD", "left" },      { "\033[2~", "insert" }, { "\033[3~", "delete" },
    { "\033[5~", "pageup" },  { "\033[6~", "pagedown" }, { "\033OP", "f1" },    { "\033OQ", "f2" },    { "\033OR", "f3" },
    { "\033OS", "f4" },       { "\033[15~", "f5" },      { "\033[17~", "f6" },  { "\033[18~", "f7" },  { "\033[19~", "f8" },
    { "\033[20~", "f9" },     { "\033[21~", "f10" },     { "\033[23~", "f11" }, { "\033[24~", "f12" }, { "\r", "enter" },
    { "\177", "backspace" },
};

/* The key that data begins with; returns how many bytes that is. name has room for "ctrl-x". */
static size_t watch_key(const char *data, size_t len, char name[16])
{
    for (size_t n = 0; n < ARRAY_LEN(watch_keys); n++) {
        size_t bytes = strlen(watch_keys[n].bytes);

        if (bytes <= len && !memcmp(data, watch_keys[n].bytes, bytes)) {
            snprintf(name, 16, "%s", watch_keys[n].key);
            return bytes;
        }
    }
    if (*data >= 1 && *data <= 26 && *data != '\t' && *data != '\n' && *data != '\b')
        snprintf(name, 16, "ctrl-%c", *data - 1 + 'a');
    else
        snprintf(name, 16, "%c", *data);
    return 1;
}

/* What the keyboard has no key for is dropped. */
static int watch_input(struct watch *w, struct err *err)
{
    char data[256], name[16];
    ssize_t len = read(STDIN_FILENO, data, sizeof(data));
    int r = 0;

    w->input_over = len <= 0;
    for (ssize_t at = 0; r >= 0 && at < len && !w->left;) {
        if (data[at] == WATCH_LEAVE) {
            w->left = true;
            break;
        }
        at += (ssize_t)watch_key(data + at, (size_t)(len - at), name);
        if (name[0] > 0)
            r = screen_keys(w->name, "key", name, 1, err);
    }
    return r;
}

/* ---- the screen ---- */

static void watch_draw(const json_t *o)
{
    const json_t *rows = json_object_get(o, "text"), *cursor = json_object_get(o, "cursor");

    fputs("\033[H", stdout);
    for (size_t n = 0; n < json_array_size(rows); n++)
        printf("%s\033[K\r\n", json_string_value(json_array_get(rows, n)));
    if (!rows)
        printf("(no text: %s)\033[K\r\n", json_string_value(json_object_get(o, "mode")));
    fputs("\033[J", stdout);
    if (cursor)
        printf("\033[%d;%dH", (int)json_integer_value(json_object_get(cursor, "row")) + 1,
               (int)json_integer_value(json_object_get(cursor, "column")) + 1);
    fflush(stdout);
}

/* Draw it if it has changed. */
static int watch_show(struct watch *w, struct err *err)
{
    json_t *o = NULL;
    char *text;
    int r = client_call(w->name, "GET", "/v1/screen", NULL, &o, err);

    text = r == 0 ? json_dumps(o, JSON_COMPACT) : NULL;
    if (text && (!w->shown || strcmp(text, w->shown)))
        watch_draw(o);
    if (text) {
        free(w->shown);
        w->shown = text;
    }
    json_decref(o);
    return r;
}

static int watch_loop(struct watch *w, struct err *err)
{
    int r = watch_show(w, err);

    while (r >= 0 && !w->left) {
        struct pollfd p = { .fd = w->input_over ? -1 : STDIN_FILENO, .events = POLLIN };

        if (poll(&p, 1, WATCH_MS) > 0)
            r = watch_input(w, err);
        if (r >= 0 && !w->left)
            r = watch_show(w, err);
    }
    return r;
}

int screen_watch(const char *name)
{
    struct terminal terminal = { .raw = false };
    struct watch w = { .name = name };
    struct err err = { "" };
    int r;

    terminal_raw(&terminal, false);
    fputs("\033[2J", stdout);
    r = watch_loop(&w, &err);
    terminal_give_back(&terminal);
    free(w.shown);
    puts("\033[999H");
    if (r < 0)
        return cli_fail(false, &err);
    fprintf(stderr, "vitro: left '%s', which goes on\n", name);
    return CLI_OK;
}
