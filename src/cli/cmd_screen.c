/* vitro screen: what a machine's display shows, and its keyboard. Thread: the main thread. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "api/client.h"
#include "base/err.h"
#include "cli/cli.h"
#include "cli/screen.h"
#include "cli/verb.h"

#define SCREEN_WAIT_MS  10 /* a keyboard's buffer is full: how long until the next attempt */
#define SCREEN_PATIENCE 1000 /* attempts without a key that the guest took */

void cmd_screen_help(void)
{
    puts("Prints the text on the screen of a machine with --display vga. In graphics modes there is only a picture.\n\n"
         "  --watch       show it as it changes, and send it the keys that are pressed; Ctrl-] leaves\n"
         "  --png FILE    write what is on the screen as a picture instead\n"
         "  --type TEXT   type TEXT (ASCII, keyboard of the United States) instead; \\n is enter, \\t, \\e, \\\\ as usual\n"
         "  --key NAME    press keys: a, F1 as f1, enter, tab, esc, backspace, up, down, left, right, home, end, pageup,\n"
         "                pagedown, insert, delete, with ctrl-, alt-, shift- before: ctrl-alt-delete\n"
         "  --json        the screen as JSON: mode, size, cursor, text");
}

/* ---- looking ---- */

static int screen_print(const json_t *o)
{
    const json_t *rows = json_object_get(o, "text");

    if (!rows)
        return cli_failf("the screen shows no text (%s, %d by %d): see --png", json_string_value(json_object_get(o, "mode")),
                         (int)json_integer_value(json_object_get(o, "width")),
                         (int)json_integer_value(json_object_get(o, "height")));
    for (size_t n = 0; n < json_array_size(rows); n++)
        puts(json_string_value(json_array_get(rows, n)));
    return CLI_OK;
}

static int screen_show(const char *name, bool json)
{
    struct err err = { "" };
    json_t *o = NULL;
    int status = CLI_OK;

    if (client_call(name, "GET", "/v1/screen", NULL, &o, &err) < 0)
        return cli_fail(json, &err);
    if (!json) {
        status = screen_print(o);
    } else {
        json_dumpf(o, stdout, JSON_COMPACT);
        putchar('\n');
    }
    json_decref(o);
    return status;
}

static int screen_write(const char *path, const char *data, size_t len, struct err *err)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    FILE *f = fd < 0 ? NULL : fdopen(fd, "w");
    bool good = f && fwrite(data, 1, len, f) == len;
    int r = good ? 0 : -errno;

    if (f && fclose(f))
        r = -errno;
    return r < 0 ? err_set(err, -r, "cannot write '%s': %s", path, strerror(-r)) : 0;
}

static int screen_picture(const char *name, const char *path, bool json)
{
    struct err err = { "" };
    char *data = NULL;
    size_t len;
    int r = client_text(name, "/v1/screen.png", &data, &len, &err);

    if (r == 0)
        r = screen_write(path, data, len, &err);
    free(data);
    return r < 0 ? cli_fail(json, &err) : CLI_OK;
}

/* ---- typing ---- */

/* The text with what its escapes stand for, to free(). NULL: there is no such escape, or no memory. */
static char *screen_unescape(const char *text)
{
    static const char from[] = "nte\\", to[] = "\n\t\033\\";
    char *out = calloc(1, strlen(text) + 1);

    for (size_t n = 0; out && *text; text++) {
        const char *e = NULL;

        if (*text == '\\' && (!*++text || !(e = strchr(from, *text)))) {
            free(out);
            return NULL;
        }
        out[n++] = e ? to[e - from] : *text;
    }
    return out;
}

/* Some more of it: how many characters the keyboard took (0: ask again later), or -errno. */
static int screen_send(const char *name, const char *what, const char *text, struct err *err)
{
    json_t *body = json_pack("{s:s}", what, text), *answer = NULL;
    int r = client_call(name, "POST", "/v1/keys", body, &answer, err);

    if (r == 0)
        r = (int)json_integer_value(json_object_get(answer, "taken"));
    json_decref(body);
    json_decref(answer);
    return r;
}

int screen_keys(const char *name, const char *what, const char *text, size_t len, struct err *err)
{
    const struct timespec pause = { .tv_nsec = SCREEN_WAIT_MS * 1000000 };
    unsigned tries = 0;

    while (len) {
        int r = screen_send(name, what, text, err);

        if (r < 0)
            return r;
        if (r == 0 && ++tries == SCREEN_PATIENCE)
            return err_set(err, ETIMEDOUT, "machine '%s' does not read its keyboard: %zu characters are left", name, len);
        if (r > 0)
            tries = 0;
        else
            nanosleep(&pause, NULL);
        text += r;
        len -= (size_t)r < len ? (size_t)r : len;
    }
    return 0;
}

int cmd_screen(int argc, char **argv)
{
    const char *png = NULL, *type = NULL, *key = NULL;
    bool watch = false;
    const struct verb_option options[] = {
        { "--png", NULL, &png }, { "--type", NULL, &type }, { "--key", NULL, &key }, { "--watch", &watch, NULL },
        { .name = NULL }
    };
    struct err err = { "" };
    struct site_info i;
    struct verb_args a;
    char *text;
    int r;

    if (verb_parse(&a, argc, argv, "screen", options, 1, 1))
        return CLI_ERROR;
    if (!!png + !!type + !!key + watch > 1)
        return cli_failf("--png, --type, --key and --watch do not go together");
    if (verb_running(a.name[0], &i, &err) < 0)
        return cli_fail(a.json, &err);
    if (watch)
        return screen_watch(a.name[0]);
    if (png)
        return screen_picture(a.name[0], png, a.json);
    if (!type && !key)
        return screen_show(a.name[0], a.json);
    text = type ? screen_unescape(type) : strdup(key);
    if (!text)
        return cli_failf("--type '%.80s': escapes are \\n, \\t, \\e and \\\\", type);
    r = screen_keys(a.name[0], type ? "text" : "key", text, type ? strlen(text) : 1, &err);
    free(text);
    return r < 0 ? cli_fail(a.json, &err) : CLI_OK;
}
