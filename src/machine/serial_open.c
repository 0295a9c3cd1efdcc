/* Opening what is behind a serial port. See serial.h.
 *
 * Thread: the machine's, before it runs and after it ended; no locks.
 */
#include "machine/serial_open.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <termios.h>
#include <unistd.h>

#include "base/err.h"
#include "base/usock.h"
#include "machine/serial.h"

ssize_t serial_write(int fd, const uint8_t *data, size_t len)
{
    struct pollfd p = { .fd = fd, .events = POLLOUT };
    int flags = fcntl(fd, F_GETFL);
    ssize_t n;

    n = send(fd, data, len, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n >= 0 || errno != ENOTSOCK)
        return n;
    if (flags >= 0 && (flags & O_NONBLOCK))
        return write(fd, data, len);
    /* A description that is shared: ask first, and write no more than what then fits for sure. */
    if (poll(&p, 1, 0) <= 0) {
        errno = EAGAIN;
        return -1;
    }
    return write(fd, data, len < 256 ? len : 256);
}

/* A description of our own for a standard stream. Regular files keep the shared one, whose position other
 * writers advance, and never block anyway; so do sockets, for which serial_write() has its own way. */
static int serial_reopen(int fd, int mode)
{
    char path[32];
    struct stat st;
    int own = -1;

    if (fstat(fd, &st) < 0)
        return -errno;
    if (!S_ISREG(st.st_mode) && !S_ISSOCK(st.st_mode)) {
        snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        own = open(path, mode | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    }
    if (own < 0)
        own = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    return own < 0 ? -errno : own;
}

/* Open, and in the right direction: the command line puts something unusable in the place of a closed stream.
 */
static bool serial_stream_open(int fd, int mode)
{
    int flags = fcntl(fd, F_GETFL);

    return flags >= 0 && ((flags & O_ACCMODE) == mode || (flags & O_ACCMODE) == O_RDWR);
}

static int serial_open_stdio(struct serial *s, struct err *err)
{
    int in, out;

    if (!serial_stream_open(STDIN_FILENO, O_RDONLY))
        return err_set(err, EBADF,
                       "standard input is closed: give it a file such as /dev/null, or use --serial none");
    if (!serial_stream_open(STDOUT_FILENO, O_WRONLY))
        return err_set(err, EBADF,
                       "standard output is closed: give it a file such as /dev/null, or use --serial none");
    in = serial_reopen(STDIN_FILENO, O_RDONLY);
    out = serial_reopen(STDOUT_FILENO, O_WRONLY);
    s->in.watch.fd = in < 0 ? -1 : in;
    s->out.watch.fd = out < 0 ? -1 : out;
    if (in < 0 || out < 0)
        return err_set(err, in < 0 ? -in : -out, "cannot open the standard streams again: %s",
                       strerror(in < 0 ? -in : -out));
    return 0;
}

static int serial_open_file(struct serial *s, const char *path, struct err *err)
{
    const int flags = O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC;
    int fd = open(path, flags | O_CREAT | O_EXCL, 0666);

    s->created = fd >= 0;
    if (fd < 0 && errno == EEXIST)
        fd = open(path, flags | O_TRUNC);
    if (fd < 0)
        return err_set(err, errno, "cannot open '%s' for the serial port: %s", path, strerror(errno));
    s->out.watch.fd = fd;
    s->in_eof = true;
    s->path = strdup(path);
    return s->path ? 0 : err_set(err, ENOMEM, "out of memory");
}

static int serial_open_unix(struct serial *s, const char *path, struct err *err)
{
    struct stat st;
    int fd = usock_listen(path, 1);

    if (fd < 0)
        return err_set(err, -fd, "cannot make the socket '%s' for the serial port: %s", path, strerror(-fd));
    s->listen_fd = fd;
    s->path = strdup(path);
    if (!s->path)
        unlink(path);
    if (!s->path || stat(path, &st) < 0)
        return err_set(err, s->path ? errno : ENOMEM, "cannot listen on the socket '%s'", path);
    s->dev = st.st_dev;
    s->ino = st.st_ino;
    return 0;
}

static int serial_open_pty(struct serial *s, struct err *err)
{
    struct termios tio;
    char name[64];
    int fd = posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);

    s->in.watch.fd = fd;
    if (fd < 0 || grantpt(fd) < 0 || unlockpt(fd) < 0 || ptsname_r(fd, name, sizeof(name)))
        return err_set(err, errno, "cannot make a pseudo-terminal: %s", strerror(errno));
    s->keep_fd = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (s->keep_fd < 0 || tcgetattr(s->keep_fd, &tio) < 0)
        return err_set(err, errno, "cannot open the pseudo-terminal %s: %s", name, strerror(errno));
    cfmakeraw(&tio); /* no echo: the guest would read its own output */
    tcsetattr(s->keep_fd, TCSANOW, &tio);
    s->path = strdup(name);
    return s->path ? 0 : err_set(err, ENOMEM, "out of memory");
}

static int serial_open_spec(struct serial *s, const char *spec, struct err *err)
{
    if (!strcmp(spec, "none"))
        return 0;
    if (!strcmp(spec, "control")) {
        s->kind = SERIAL_CONTROL;
        return 0;
    }
    if (!strcmp(spec, "stdio")) {
        s->kind = SERIAL_STDIO;
        return serial_open_stdio(s, err);
    }
    if (!strncmp(spec, "file:", 5)) {
        s->kind = SERIAL_OUTFILE;
        return serial_open_file(s, spec + 5, err);
    }
    if (!strncmp(spec, "unix:", 5)) {
        s->kind = SERIAL_UNIX;
        return serial_open_unix(s, spec + 5, err);
    }
    if (!strcmp(spec, "pty")) {
        s->kind = SERIAL_PTY;
        return serial_open_pty(s, err);
    }
    return err_set(err, EINVAL, "serial '%s' is unknown", spec);
}

void serial_init(struct serial *s, struct loop *loop)
{
    memset(s, 0, offsetof(struct serial, out_buf)); /* not what is in the buffers: nothing, by their lengths; a machine's twelve are 840 KiB */
    s->loop = loop;
    s->in.watch.fd = s->out.watch.fd = s->listen_fd = s->keep_fd = -1;
}

int serial_open(struct serial *s, const char *spec, const char *name, struct err *err)
{
    int r = serial_open_spec(s, spec, err);

    if (r < 0)
        err_prefix(err, "%s", name);
    return r;
}

void serial_close_out(struct serial *s)
{
    if (s->out.watch.fd >= 0)
        close(s->out.watch.fd);
    s->out.watch.fd = -1;
}

static void serial_close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

void serial_abandon(struct serial *s)
{
    if (s->kind == SERIAL_OUTFILE && s->created && s->path)
        unlink(s->path);
    s->created = false;
}

void serial_close(struct serial *s)
{
    struct stat st;

    if (!s->loop)
        return;
    serial_stop(s);
    serial_close_out(s);
    serial_close_fd(&s->in.watch.fd);
    serial_close_fd(&s->listen_fd);
    serial_close_fd(&s->keep_fd);
    if (s->kind == SERIAL_UNIX && s->path && stat(s->path, &st) == 0 && st.st_dev == s->dev &&
        st.st_ino == s->ino)
        unlink(s->path);
    free(s->path);
    serial_init(s, NULL);
}

const char *serial_path(const struct serial *s) { return s->kind == SERIAL_OUTFILE ? NULL : s->path; }
