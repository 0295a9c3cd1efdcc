/* vitro exec: run a program in a guest. Thread: the main thread.
 *
 * One loop carries standard input (as much as the agent has room for), what the program says, signals and the terminal's size. At most
 * one frame waits for whoever reads our output; meanwhile signals still pass. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/err.h"
#include "cli/agent_link.h"
#include "cli/cli.h"
#include "cli/terminal.h"
#include "cli/verb.h"

#define EXEC_PIECE  4096 /* bytes that a pipe which poll() calls writable takes without waiting (POSIX: PIPE_BUF) */
#define EXEC_ESCAPE 0x1d /* Ctrl-] */
#define EXEC_BREAKS 3    /* so many SIGINT without an end, and vitro itself goes */

void cmd_exec_help(void)
{
    puts("Runs a program in a machine's guest, without a network and without ssh. Its standard input, output and error are those of vitro;\n"
         "its exit status is vitro's (128 + n: signal n ended it). SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1 and SIGUSR2 are passed on; a\n"
         "third SIGINT ends vitro. The program gets SIGHUP when vitro goes.\n\n"
         "  -t, --tty           on a terminal of its own; Ctrl-] then q leaves it\n"
         "  -e, --env NAME=VALUE   a variable; repeatable\n"
         "  -u, --user USER     name or number (default root)\n"
         "  -w, --workdir DIR   where it begins (default: the user's home)\n"
         "  --time SECONDS      how long to wait for the guest's agent (default 60)\n"
         "  -- PROGRAM ...      looked for in the guest's PATH; there is no shell unless you name one\n\n"
         "The machine needs the agent: 'vitro run --agent' puts it into the --initrd of a Linux kernel, 'vitro image build' into images, which\n"
         "--agent gives their socket. Exit status 125: vitro's own error; 126, 127: the program cannot be begun, is not there.");
}

struct exec {
    struct wire *w;
    const char *name;
    unsigned seconds;
    bool tty, in_over, escaped, left;
    char words[WIRE_MAX]; /* of WIRE_EXEC */
    size_t words_len;
    size_t credit;
    const uint8_t *show; /* of the frame in w that nobody has taken yet */
    size_t show_len;
    int show_fd, signals, breaks;
    struct terminal terminal;
};

/* ---- what is wanted ---- */

static int exec_word(struct exec *x, char letter, const char *text)
{
    size_t len = strlen(text) + 2;

    if (len > sizeof(x->words) - x->words_len)
        return cli_failf("what is to be run has more than %u bytes", WIRE_MAX);
    x->words[x->words_len] = letter;
    memcpy(x->words + x->words_len + 1, text, len - 1);
    x->words_len += len;
    return 0;
}

static int exec_value(struct exec *x, const char *option, const char *value)
{
    static const struct {
        const char *brief, *name;
        char letter;
    } known[] = { { "-e", "--env", WORD_ENV }, { "-u", "--user", WORD_USER }, { "-w", "--workdir", WORD_DIR } };
    struct err err = { "" };

    if (!value)
        return cli_failf("option '%.80s' is unknown, or needs a value: see 'vitro help exec'", option);
    if (!strcmp(option, "--time"))
        return verb_seconds(value, &x->seconds, &err) < 0 ? cli_fail(false, &err) : 0;
    for (size_t n = 0; n < ARRAY_LEN(known); n++) {
        if (strcmp(option, known[n].brief) && strcmp(option, known[n].name))
            continue;
        if (known[n].letter == WORD_ENV && (!strchr(value, '=') || *value == '='))
            return cli_failf("'%.80s' is not a variable: write it like NAME=VALUE", value);
        return exec_word(x, known[n].letter, value);
    }
    return cli_failf("'exec' does not know the option '%.80s': see 'vitro help exec'", option);
}

static int exec_parse(struct exec *x, int argc, char **argv)
{
    const char *term = getenv("TERM");
    int i, r = 0;

    for (i = 0; r == 0 && i < argc && strcmp(argv[i], "--"); i++) {
        if (!strcmp(argv[i], "-t") || !strcmp(argv[i], "--tty"))
            x->tty = true;
        else if (*argv[i] == '-')
            r = exec_value(x, argv[i], i + 1 < argc ? argv[i + 1] : NULL), i++;
        else if (x->name)
            r = cli_failf("'%.80s' stands before '--': write vitro exec %.64s -- %.80s", argv[i], x->name, argv[i]);
        else
            x->name = argv[i];
    }
    if (r == 0 && !x->name)
        r = cli_failf("which machine? See 'vitro help exec', and 'vitro list'");
    if (r == 0 && i + 1 >= argc)
        r = cli_failf("run what? Write it behind '--': vitro exec %.64s -- PROGRAM", x->name);
    for (i++; r == 0 && i < argc; i++)
        r = exec_word(x, WORD_ARG, argv[i]);
    if (r == 0 && x->tty && !isatty(STDIN_FILENO))
        r = cli_failf("-t needs a terminal as standard input");
    return r == 0 && x->tty ? exec_word(x, WORD_TTY, term ? term : "dumb") : r;
}

/* ---- the terminal ---- */

static void exec_resize(struct exec *x)
{
    struct winsize s;
    uint8_t d[4];

    if (!x->tty || ioctl(STDIN_FILENO, TIOCGWINSZ, &s) < 0)
        return;
    st_le16(d, s.ws_row);
    st_le16(d + 2, s.ws_col);
    wire_put(x->w, WIRE_WINDOW_SIZE, d, sizeof(d));
}

/* Take our own keys out; returns how many bytes are the guest's. */
static size_t exec_keys(struct exec *x, uint8_t *data, size_t len)
{
    size_t kept = 0;

    for (size_t i = 0; i < len; i++) {
        bool escape = data[i] == EXEC_ESCAPE && !x->escaped;

        x->left |= x->escaped && data[i] == 'q';
        if (!escape)
            data[kept++] = data[i];
        x->escaped = escape;
    }
    return kept;
}

/* ---- the directions ---- */

static void exec_input(struct exec *x)
{
    uint8_t buf[16384];
    ssize_t n = read(STDIN_FILENO, buf, x->credit < sizeof(buf) ? x->credit : sizeof(buf));
    size_t len = n > 0 ? (size_t)n : 0;

    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return;
    x->in_over = n <= 0;
    if (x->tty && len) {
        len = exec_keys(x, buf, len);
        if (!len)
            return;
    }
    if (wire_put(x->w, WIRE_IN, buf, len) == 0)
        x->credit -= len;
}

/* A piece of what the program said. False: nobody reads it any more. */
static bool exec_show(struct exec *x)
{
    ssize_t n = write(x->show_fd, x->show, x->show_len < EXEC_PIECE ? x->show_len : EXEC_PIECE);

    if (n < 0)
        return errno == EINTR || errno == EAGAIN;
    x->show += n;
    x->show_len -= (size_t)n;
    if (!x->show_len)
        wire_done(x->w);
    return true;
}

static void exec_signal(struct exec *x)
{
    struct signalfd_siginfo info;
    uint8_t sig;

    if (read(x->signals, &info, sizeof(info)) != (ssize_t)sizeof(info))
        return;
    sig = (uint8_t)info.ssi_signo;
    if (sig == SIGWINCH) {
        exec_resize(x);
        return;
    }
    x->left |= sig == SIGINT && ++x->breaks >= EXEC_BREAKS;
    wire_put(x->w, WIRE_SIGNAL, &sig, 1);
}

/* A frame of the agent. 1: go on; 0: that is the end, with *status; -EPROTO. */
static int exec_frame(struct exec *x, int *status)
{
    size_t len;
    const uint8_t *d = wire_data(x->w, &len);
    uint32_t more;

    switch (wire_type(x->w)) {
    case WIRE_OUT:
    case WIRE_ERR:
        x->show = d;
        x->show_len = len;
        x->show_fd = wire_type(x->w) == WIRE_OUT ? STDOUT_FILENO : STDERR_FILENO;
        if (!len)
            wire_done(x->w);
        return 1;
    case WIRE_CREDIT:
        more = len == 4 ? ld_le32(d) : UINT32_MAX;
        if (more > WIRE_WINDOW - x->credit)
            return -EPROTO;
        x->credit += more;
        wire_done(x->w);
        return 1;
    case WIRE_EXIT:
        *status = len == 1 ? *d : CLI_ERROR;
        return len == 1 ? 0 : -EPROTO;
    default:
        return -EPROTO;
    }
}

/* ---- the loop ---- */

static void exec_poll(struct exec *x, struct pollfd *f)
{
    bool idle = wire_idle(x->w);

    f[0] = (struct pollfd){ .fd = x->w->fd, .events = (x->show_len ? 0 : POLLIN) | (idle ? 0 : POLLOUT) };
    f[1] = (struct pollfd){ .fd = x->in_over || !x->credit || !idle ? -1 : STDIN_FILENO, .events = POLLIN };
    f[2] = (struct pollfd){ .fd = x->show_len ? x->show_fd : -1, .events = POLLOUT };
    f[3] = (struct pollfd){ .fd = x->signals, .events = POLLIN };
    if (f[0].events == 0)
        f[0].fd = -1; /* else its end would be told for ever, while what came before is not shown yet */
    poll(f, 4, -1);
}

static int exec_loop(struct exec *x, struct err *err)
{
    int r = 1, status = CLI_ERROR;

    while (r >= 0) {
        struct pollfd f[4] = { 0 };

        exec_poll(x, f);
        if (f[3].revents)
            exec_signal(x);
        if (f[1].revents)
            exec_input(x);
        if (x->left)
            return 128 + SIGINT;
        if (f[2].revents && !exec_show(x))
            return 128 + SIGPIPE;
        wire_flush(x->w); /* a peer that is gone may have said why: reading finds out */
        if (!f[0].revents || x->show_len)
            continue;
        r = wire_read(x->w);
        if (r == 1) {
            r = exec_frame(x, &status);
            if (r == 0)
                return status;
            if (r < 0)
                return agent_link_failed(x->w, wire_type(x->w) == WIRE_FAIL ? 1 : r, err);
        }
    }
    return agent_link_failed(x->w, r, err);
}

static int exec_signals(void)
{
    static const int wanted[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGWINCH };
    struct sigaction old;
    sigset_t set;

    signal(SIGPIPE, SIG_IGN);
    sigemptyset(&set);
    for (size_t n = 0; n < ARRAY_LEN(wanted); n++) {
        if (sigaction(wanted[n], NULL, &old) == 0 && old.sa_handler != SIG_IGN)
            sigaddset(&set, wanted[n]);
    }
    sigprocmask(SIG_BLOCK, &set, NULL);
    return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

static int exec_run(struct exec *x, struct err *err)
{
    int status;

    if (agent_link(x->w, x->name, x->seconds, err) < 0)
        return CLI_ERROR;
    x->signals = exec_signals();
    wire_put(x->w, WIRE_EXEC, x->words, x->words_len);
    exec_resize(x);
    if (x->tty)
        terminal_raw(&x->terminal, false);
    status = exec_loop(x, err);
    terminal_give_back(&x->terminal);
    close(x->w->fd);
    close(x->signals);
    return status;
}

int cmd_exec(int argc, char **argv)
{
    struct exec *x = calloc(1, sizeof(*x));
    struct wire *w = calloc(1, sizeof(*w));
    struct err err = { "" };
    int status = CLI_ERROR;

    if (!x || !w) {
        cli_failf("out of memory");
    } else {
        x->w = w;
        x->seconds = AGENT_LINK_SECONDS;
        x->credit = WIRE_WINDOW;
        if (exec_parse(x, argc, argv) == 0)
            status = exec_run(x, &err);
    }
    if (err.text[0])
        cli_fail(false, &err);
    free(x);
    free(w);
    return status;
}
