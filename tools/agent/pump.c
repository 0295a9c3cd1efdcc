/* Between a program and its connection: standard input with credit, two outputs, signals, the terminal's size, the end.
 *
 * Runs in the process of a connection. Nothing blocks, and each direction holds at most one buffer: a program that reads nothing, or
 * a host that reads nothing, does not keep signals from passing. When the program has ended, what it had written is still sent;
 * what its children go on writing is not waited for. A host that is gone is SIGHUP for the program, as of a terminal. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "agent.h"

#define PUMP_LAST 64 /* buffers that are sent after the program's end: more than pipes hold */

struct pump {
    struct agent_run *run;
    struct wire *w;
    uint8_t in[WIRE_WINDOW]; /* standard input that the program has not taken */
    size_t in_len, taken;    /* taken: of which the host has not been told */
    bool in_over, ended, gone; /* gone: the host */
    int children, status;      /* signalfd; exit status */
};

static void pump_close(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

/* ---- towards the program ---- */

/* On a terminal the end of input is its end-of-file character, as if typed. */
static void pump_end_input(struct pump *p)
{
    struct termios t;

    if (!p->run->term)
        pump_close(&p->run->in);
    else if (tcgetattr(p->run->in, &t) == 0 && write(p->run->in, &t.c_cc[VEOF], 1) < 0)
        p->gone |= errno == EIO; /* nobody has the terminal open */
    p->in_over = false;
}

static void pump_feed(struct pump *p)
{
    if (p->in_len && p->run->in >= 0) {
        ssize_t n = write(p->run->in, p->in, p->in_len);

        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (n <= 0) { /* the program does not read any more: the rest of the input has nowhere to go */
            n = (ssize_t)p->in_len;
            if (!p->run->term)
                pump_close(&p->run->in);
        }
        p->in_len -= (size_t)n;
        p->taken += (size_t)n;
        memmove(p->in, p->in + n, p->in_len);
    } else if (p->in_len) {
        p->taken += p->in_len;
        p->in_len = 0;
    }
    if (p->in_over && !p->in_len)
        pump_end_input(p);
    if (p->taken && wire_put_u32(p->w, WIRE_CREDIT, (uint32_t)p->taken) != -ENOSPC)
        p->taken = 0;
}

static void pump_resize(struct pump *p, const uint8_t *d)
{
    struct winsize size = { .ws_row = (unsigned short)(d[0] | d[1] << 8), .ws_col = (unsigned short)(d[2] | d[3] << 8) };

    if (p->run->term)
        ioctl(p->run->in, TIOCSWINSZ, &size);
}

/* A frame of the host. False: it breaks the rules. */
static bool pump_frame(struct pump *p)
{
    size_t len;
    const uint8_t *d = wire_data(p->w, &len);

    switch (wire_type(p->w)) {
    case WIRE_IN:
        if (p->in_over || len > sizeof(p->in) - p->in_len - p->taken)
            return false;
        memcpy(p->in + p->in_len, d, len);
        p->in_len += len;
        p->in_over = !len;
        pump_feed(p);
        return true;
    case WIRE_SIGNAL:
        if (len == 1 && d[0] > 0 && d[0] < NSIG && !p->ended)
            kill(-p->run->pid, d[0]);
        return len == 1;
    case WIRE_WINDOW_SIZE:
        if (len == 4)
            pump_resize(p, d);
        return len == 4;
    default:
        return false;
    }
}

static void pump_host(struct pump *p)
{
    int r = wire_read(p->w);

    if (r > 0 && !pump_frame(p))
        r = -EPROTO;
    if (r > 0)
        wire_done(p->w);
    p->gone |= r < 0;
}

/* ---- from the program ---- */

/* False: nothing more now. */
static bool pump_output(struct pump *p, int *fd, enum wire_type type)
{
    uint8_t buf[WIRE_MAX / 2];
    ssize_t n = *fd < 0 ? 0 : read(*fd, buf, sizeof(buf));

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return false;
    if (n <= 0 && *fd >= 0) { /* EIO: the last one has closed the terminal */
        if (p->run->in == *fd)
            p->run->in = -1;
        pump_close(fd);
    }
    return n > 0 && wire_put(p->w, type, buf, (size_t)n) == 0;
}

static void pump_children(struct pump *p)
{
    struct signalfd_siginfo info;
    int status;

    if (read(p->children, &info, sizeof(info)) < 0 || waitpid(p->run->pid, &status, WNOHANG) != p->run->pid)
        return;
    p->ended = true;
    p->status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* The program has ended: what is in its pipes, and its status. */
static void pump_last(struct pump *p)
{
    uint8_t status = (uint8_t)p->status;
    bool more = true;

    for (unsigned n = 0; n < PUMP_LAST && more && !p->gone; n++) {
        more = wire_idle(p->w) && pump_output(p, &p->run->out, WIRE_OUT);
        more |= wire_idle(p->w) && pump_output(p, &p->run->err, WIRE_ERR);
        while (!wire_idle(p->w) && !p->gone) {
            struct pollfd f = { .fd = p->w->fd, .events = POLLOUT };

            poll(&f, 1, -1);
            more = true;
            p->gone = wire_flush(p->w) < 0 || (f.revents & POLLERR);
        }
    }
    if (!p->gone)
        wire_send(p->w, WIRE_EXIT, &status, 1, -1);
}

static void pump_round(struct pump *p)
{
    bool idle = wire_idle(p->w);
    struct agent_run *r = p->run;
    struct pollfd f[] = { { .fd = p->w->fd, .events = POLLIN | (idle ? 0 : POLLOUT) },
                          { .fd = p->children, .events = POLLIN },
                          { .fd = idle ? r->out : -1, .events = POLLIN },
                          { .fd = idle ? r->err : -1, .events = POLLIN },
                          { .fd = p->in_len ? r->in : -1, .events = POLLOUT } };

    if (poll(f, 5, -1) < 0 && errno != EINTR)
        p->gone = true;
    if (wire_flush(p->w) < 0)
        p->gone = true;
    if (f[0].revents & (POLLIN | POLLHUP | POLLERR))
        pump_host(p);
    if (f[2].revents)
        pump_output(p, &r->out, WIRE_OUT);
    if (f[3].revents && wire_idle(p->w))
        pump_output(p, &r->err, WIRE_ERR);
    if (f[4].revents || p->taken)
        pump_feed(p);
    if (f[1].revents)
        pump_children(p);
}

void agent_pump(struct agent_run *r, struct wire *w)
{
    static struct pump p;
    sigset_t child;

    p = (struct pump){ .run = r, .w = w };
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    p.children = signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK);
    p.gone = p.children < 0;
    while (!p.ended && !p.gone)
        pump_round(&p);
    if (p.ended)
        pump_last(&p);
    else
        kill(-r->pid, SIGHUP);
}
