/* vitro console and logs: a machine's console, live or as it was. Thread: the main thread. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "api/client.h"
#include "api/ring.h"
#include "base/err.h"
#include "cli/cli.h"
#include "cli/terminal.h"
#include "cli/verb.h"

#define VIEW_ESCAPE 0x1d /* Ctrl-] */

/* One viewer on a terminal, or in a pipe. */
struct view {
    const char *name;
    int fd; /* the connection */
    bool escaped, input_over;
    bool left; /* by Ctrl-] d */
    struct terminal terminal;
};

/* -- keys -- */

static void view_help(void)
{
    fputs("\nvitro: console keys, after Ctrl-]:\n"
          "  ?       this list\n"
          "  d       detach: the machine goes on\n"
          "  q       quit: the machine is gone at once, as if its power failed\n"
          "  p       pause        P  go on\n"
          "  r       reset\n"
          "  o       press the power button\n"
          "  b       send a break on the serial line\n"
          "  s       say how the machine is\n"
          "  Ctrl-]  send Ctrl-] itself to the guest\n",
          stderr);
}

static void view_status(const struct view *v)
{
    json_t *m = NULL;
    struct err err = { "" };

    if (client_call(v->name, "GET", "/v1/machine", NULL, &m, &err) < 0)
        fprintf(stderr, "\nvitro: %s\n", err.text);
    else
        fprintf(stderr, "\nvitro: '%s' is %s, guest time %.1f s, CPU time %.1f s, %d viewers\n", v->name,
                json_string_value(json_object_get(m, "state")), json_number_value(json_object_get(m, "guest_seconds")),
                json_number_value(json_object_get(m, "cpu_seconds")),
                (int)json_integer_value(json_object_get(m, "viewers")));
    json_decref(m);
}

static void view_post(const struct view *v, const char *path, const char *done)
{
    struct err err = { "" };

    if (client_call(v->name, "POST", path, NULL, NULL, &err) < 0)
        fprintf(stderr, "\nvitro: %s\n", err.text);
    else
        fprintf(stderr, "\nvitro: '%s' %s\n", v->name, done);
}

static void view_key(struct view *v, char key)
{
    switch (key) {
    case 'd':
        v->left = true;
        break;
    case 'q':
        view_post(v, "/v1/kill", "is gone");
        break;
    case 'p':
        view_post(v, "/v1/pause", "is paused: Ctrl-] P lets it go on");
        break;
    case 'P':
        view_post(v, "/v1/resume", "goes on");
        break;
    case 'r':
        view_post(v, "/v1/reset", "is reset");
        break;
    case 'o':
        view_post(v, "/v1/power-button", "has its power button pressed");
        break;
    case 'b':
        view_post(v, "/v1/break", "gets a break");
        break;
    case 's':
        view_status(v);
        break;
    default:
        view_help();
        break;
    }
}

/* Take the keys out that are ours; returns how many bytes are for the guest. */
static size_t view_filter(struct view *v, char *data, size_t len)
{
    size_t kept = 0;

    for (size_t i = 0; i < len; i++) {
        bool escape = data[i] == VIEW_ESCAPE;

        if (!v->escaped && escape) {
            v->escaped = true;
        } else if (v->escaped && !escape) {
            v->escaped = false;
            view_key(v, data[i]);
        } else {
            v->escaped = false;
            data[kept++] = data[i];
        }
    }
    return kept;
}

/* -- the two directions; false: it is over -- */

static bool view_write(int fd, const char *data, size_t len)
{
    while (len) {
        ssize_t n = write(fd, data, len);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        data += n;
        len -= (size_t)n;
    }
    return true;
}

static bool view_output(struct view *v)
{
    char buf[4096];
    ssize_t n = recv(v->fd, buf, sizeof(buf), 0);

    return n > 0 && view_write(STDOUT_FILENO, buf, (size_t)n);
}

/* When the input is over the machine is still watched: a script's last command has an answer. */
static bool view_input(struct view *v)
{
    char buf[1024];
    ssize_t n = read(STDIN_FILENO, buf, sizeof(buf));
    size_t len = n > 0 ? (size_t)n : 0;

    if (n <= 0)
        v->input_over = true;
    if (v->terminal.raw)
        len = view_filter(v, buf, len);
    return !len || view_write(v->fd, buf, len);
}

static void view_loop(struct view *v)
{
    bool on = true;

    while (on && !v->left) {
        struct pollfd p[2] = { { .fd = v->fd, .events = POLLIN },
                               { .fd = v->input_over ? -1 : STDIN_FILENO, .events = POLLIN } };

        if (poll(p, 2, -1) < 0 && errno != EINTR)
            return;
        if (p[0].revents)
            on = view_output(v);
        if (on && p[1].revents)
            on = view_input(v);
    }
}

void cmd_console_help(void)
{
    puts("Shows what the console showed last and what it shows from now on, and types what is typed here. Any number of\n"
         "people may look and type at once; the guest's reboot ends nothing. Ctrl-] then ? lists keys, Ctrl-] d leaves.\n\n"
         "  --replay BYTES    how much of the past to show (default: all that is kept, 512 KiB)\n"
         "  --read-only       only look");
}

/* Look until it is over. */
static int view_run(struct view *v, const char *path, bool json)
{
    struct err err = { "" };

    v->fd = client_attach(v->name, path, &err);
    if (v->fd < 0)
        return cli_fail(json, &err);
    signal(SIGPIPE, SIG_IGN);
    view_loop(v);
    terminal_give_back(&v->terminal);
    close(v->fd);
    return CLI_OK;
}

int cmd_console(int argc, char **argv)
{
    const char *replay = NULL;
    bool read_only = false;
    const struct verb_option options[] = { { "--replay", NULL, &replay },
                                           { "--read-only", &read_only, NULL },
                                           { .name = NULL } };
    struct view v = { .fd = -1 };
    struct err err = { "" };
    struct site_info i;
    struct verb_args a;
    char path[96];
    int status;

    if (verb_parse(&a, argc, argv, "console", options, 1, 1))
        return CLI_ERROR;
    if (replay && (strspn(replay, "0123456789") != strlen(replay) || strlen(replay) > 12))
        return cli_failf("'%.80s' is not a number of bytes", replay);
    if (verb_running(a.name[0], &i, &err) < 0)
        return cli_fail(a.json, &err);
    snprintf(path, sizeof(path), "/v1/console?readonly=%d%s%s", read_only, replay ? "&replay=" : "",
             replay ? replay : "");
    v.name = a.name[0];
    terminal_raw(&v.terminal, true);
    if (v.terminal.raw)
        fprintf(stderr, "vitro: console of '%s': Ctrl-] d leaves, Ctrl-] ? lists keys\n", v.name);
    status = view_run(&v, path, a.json);
    terminal_give_back(&v.terminal);
    if (!v.left)
        return status;
    fprintf(stderr, "\nvitro: left '%s', which goes on\n", v.name);
    return status;
}

/* -- logs -- */

void cmd_logs_help(void)
{
    puts("Prints what the console showed (the last 512 KiB of it), also of a machine that has ended.\n\n"
         "  --follow     go on as it shows more, until the machine ends\n"
         "  --monitor    what vitro itself said instead, for a machine in the background");
}

static int logs_plain(int fd)
{
    char buf[8192];
    ssize_t n;

    while ((n = read(fd, buf, sizeof(buf))) > 0) {
        if (!view_write(STDOUT_FILENO, buf, (size_t)n))
            return CLI_ERROR;
    }
    return CLI_OK;
}

static int logs_ring(int fd)
{
    char buf[8192];
    uint64_t pos = 0;
    long n;

    while ((n = ring_peek(fd, &pos, buf, sizeof(buf))) > 0) {
        if (!view_write(STDOUT_FILENO, buf, (size_t)n))
            return CLI_ERROR;
    }
    return n < 0 ? cli_failf("the console's text is damaged") : CLI_OK;
}

int cmd_logs(int argc, char **argv)
{
    bool follow = false, monitor = false;
    const struct verb_option options[] = { { "--follow", &follow, NULL },
                                           { "-f", &follow, NULL },
                                           { "--monitor", &monitor, NULL },
                                           { .name = NULL } };
    struct err err = { "" };
    struct site_info i;
    struct verb_args a;
    int fd, status;

    if (verb_parse(&a, argc, argv, "logs", options, 1, 1))
        return CLI_ERROR;
    if (site_look(a.name[0], &i, &err) < 0)
        return cli_fail(a.json, &err);
    if (!i.known) {
        verb_running(a.name[0], &i, &err);
        return cli_fail(a.json, &err);
    }
    if (follow && i.running && !monitor) {
        struct view v = { .name = a.name[0], .fd = -1, .input_over = true };

        return view_run(&v, "/v1/console?readonly=1", a.json);
    }
    fd = site_open(a.name[0], monitor ? "log" : "console");
    if (fd < 0)
        return cli_failf("machine '%s' has no %s", a.name[0], monitor ? "log: it runs in the foreground" : "console's text");
    status = monitor ? logs_plain(fd) : logs_ring(fd);
    close(fd);
    return status;
}
