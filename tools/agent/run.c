/* Beginning a program: its words, user, folder, variables, and pipes or a terminal. Runs in the process of a connection.
 *
 * What fails in the child is told through a pipe that exec closes. A program that is not there is status 127, one that cannot be
 * begun 126, as shells have it (POSIX XCU 2.8.2). */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include "agent.h"

#define RUN_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

static bool run_word(struct agent_run *r, char *word)
{
    switch (*word++) {
    case WORD_ARG:
        r->arg[r->args++] = word;
        return r->args <= AGENT_WORDS - 1;
    case WORD_ENV:
        r->env[r->envs++] = word;
        return r->envs <= AGENT_WORDS - 1 && strchr(word, '=') > word;
    case WORD_USER:
        r->user = word;
        return true;
    case WORD_DIR:
        r->dir = word;
        return true;
    case WORD_TTY:
        r->term = word;
        return true;
    }
    return false;
}

bool agent_run_parse(struct agent_run *r, char *words, size_t len)
{
    memset(r, 0, sizeof(*r));
    r->in = r->out = r->err = -1;
    r->user = "root";
    if (!len || words[len - 1])
        return false;
    for (char *p = words; p < words + len; p += strlen(p) + 1) {
        if (!run_word(r, p))
            return false;
    }
    return r->args > 0;
}

/* ---- in the child ---- */

struct run_child {
    int in, out, err, tell; /* the program's ends */
    struct agent_user user;
};

static void run_variables(const struct agent_run *r, const struct agent_user *u)
{
    clearenv();
    setenv("PATH", RUN_PATH, 1);
    setenv("HOME", u->home, 1);
    setenv("USER", u->name, 1);
    setenv("LOGNAME", u->name, 1);
    setenv("SHELL", u->shell, 1);
    if (r->term)
        setenv("TERM", r->term, 1);
    for (unsigned n = 0; n < r->envs; n++)
        putenv(r->env[n]);
}

static void run_signals(void)
{
    sigset_t none;

    for (int sig = 1; sig < NSIG; sig++)
        signal(sig, SIG_DFL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

/* Returns an errno, with what failed in *what; or not at all. */
static int run_exec(struct agent_run *r, struct run_child *c, char *what)
{
    run_signals();
    setsid();
    umask(022);
    *what = 's';
    if (r->term && ioctl(c->in, TIOCSCTTY, 0) < 0)
        return errno;
    if (dup2(c->in, 0) < 0 || dup2(c->out, 1) < 0 || dup2(c->err, 2) < 0)
        return errno;
    *what = 'u';
    if (!agent_user_become(&c->user))
        return errno;
    *what = 'd';
    if (chdir(r->dir ? r->dir : c->user.home) < 0 && r->dir)
        return errno;
    *what = 'x';
    run_variables(r, &c->user);
    execvp(r->arg[0], r->arg);
    return errno;
}

/* ---- in the process of the connection ---- */

static bool run_pipe(int *ours, int *theirs, bool we_write)
{
    int p[2];

    if (pipe2(p, O_CLOEXEC) < 0)
        return false;
    *ours = p[we_write];
    *theirs = p[!we_write];
    return fcntl(*ours, F_SETFL, O_NONBLOCK) == 0;
}

static bool run_terminal(struct agent_run *r, struct run_child *c)
{
    int unlock = 0;

    r->in = r->out = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
    if (r->in < 0 || ioctl(r->in, TIOCSPTLCK, &unlock) < 0)
        return false;
    c->in = c->out = c->err = ioctl(r->in, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
    return c->in >= 0 && fchown(c->in, c->user.uid, (gid_t)-1) == 0;
}

static bool run_streams(struct agent_run *r, struct run_child *c)
{
    if (r->term)
        return run_terminal(r, c);
    return run_pipe(&r->in, &c->in, true) && run_pipe(&r->out, &c->out, false) && run_pipe(&r->err, &c->err, false);
}

/* What the child said before it went; nothing: it is the program now. */
static int run_heard(const struct agent_run *r, struct wire *w, int fd)
{
    struct {
        int code;
        char what;
    } said = { 0, 0 };
    ssize_t n = read(fd, &said, sizeof(said));

    if (n != (ssize_t)sizeof(said))
        return 0;
    if (said.what == 'x') {
        agent_fail(w, said.code == ENOENT || said.code == ENOTDIR ? 127 : 126, "'%.200s' cannot be begun in the guest: %s", r->arg[0],
                   strerror(said.code));
        return 126;
    }
    agent_fail(w, AGENT_FAILED, "%s '%.200s' in the guest: %s",
               said.what == 'd' ? "there is no way into folder" : said.what == 'u' ? "cannot become user" : "no terminal for",
               said.what == 'd' ? r->dir : said.what == 'u' ? r->user : r->arg[0], strerror(said.code));
    return AGENT_FAILED;
}

static void run_close(struct run_child *c)
{
    close(c->in);
    if (c->out != c->in)
        close(c->out);
    if (c->err != c->in)
        close(c->err);
    close(c->tell);
}

int agent_run_begin(struct agent_run *r, struct wire *w)
{
    struct run_child c = { .in = -1, .out = -1, .err = -1, .tell = -1 };
    int heard;

    if (!agent_user_find(&c.user, r->user)) {
        agent_fail(w, AGENT_FAILED, "the guest has no user '%.64s'", r->user);
        return AGENT_FAILED;
    }
    if (!run_streams(r, &c) || !run_pipe(&heard, &c.tell, false)) {
        agent_fail(w, AGENT_FAILED, "no %s in the guest: %s", r->term ? "terminal (are /dev/ptmx and devpts there?)" : "pipes", strerror(errno));
        return AGENT_FAILED;
    }
    fcntl(heard, F_SETFL, 0);
    r->pid = fork();
    if (r->pid == 0) {
        struct {
            int code;
            char what;
        } say = { 0, 0 };

        say.code = run_exec(r, &c, &say.what);
        if (write(c.tell, &say, sizeof(say)) < 0)
            _exit(126);
        _exit(127);
    }
    run_close(&c);
    if (r->pid < 0) {
        agent_fail(w, AGENT_FAILED, "no process in the guest: %s", strerror(errno));
        return AGENT_FAILED;
    }
    return run_heard(r, w, heard);
}
