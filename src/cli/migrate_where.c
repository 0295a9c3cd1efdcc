/* Connections for migrations. See migrate_where.h. Thread: the main thread; blocks. */
#include "cli/migrate_where.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/err.h"
#include "base/usock.h"

#define WHERE_SSH_WAIT_MS 5000 /* for ssh to end by itself */
#define WHERE_SSH_STEP_MS 10
#define WHERE_LISTEN_MS   1000 /* for whoever made the socket to listen at it */
#define WHERE_LISTEN_STEP_MS 10

static int where_unix(const char *path, struct sockaddr_un *a, struct err *err)
{
    *a = (struct sockaddr_un){ .sun_family = AF_UNIX };
    if (!*path || strlen(path) >= sizeof(a->sun_path))
        return err_set(err, EINVAL, "'unix:%.80s' names no socket, or its name is too long", path);
    strcpy(a->sun_path, path);
    return 0;
}

/* HOST:PORT, [HOST]:PORT. The caller frees *list. */
static int where_tcp(const char *text, struct addrinfo **list, struct err *err)
{
    struct addrinfo hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM };
    char host[256];
    const char *colon = strrchr(text, ':');
    size_t len = colon ? (size_t)(colon - text) : 0;
    int r;

    if (len >= 2 && *text == '[' && text[len - 1] == ']') {
        text++;
        len -= 2;
    }
    if (!len || !colon[1] || len >= sizeof(host))
        return err_set(err, EINVAL, "'tcp:%.80s' is not tcp:HOST:PORT", text);
    memcpy(host, text, len);
    host[len] = 0;
    r = getaddrinfo(host, colon + 1, &hints, list);
    return r ? err_set(err, EINVAL, "'%.80s' cannot be found: %s", host, gai_strerror(r)) : 0;
}

/* Other programs' sockets have their name a moment before they listen: a refusal is not believed at once. */
static int where_connect_unix(const char *path, struct err *err)
{
    struct sockaddr_un a;
    int r = where_unix(path, &a, err), fd = r < 0 ? -1 : socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (r < 0)
        return r;
    for (unsigned ms = 0; fd >= 0; ms += WHERE_LISTEN_STEP_MS) {
        if (connect(fd, (struct sockaddr *)&a, sizeof(a)) == 0)
            return fd;
        if (errno != ECONNREFUSED || ms >= WHERE_LISTEN_MS)
            break;
        poll(NULL, 0, WHERE_LISTEN_STEP_MS);
    }
    r = -errno;
    if (fd >= 0)
        close(fd);
    return err_set(err, -r, "cannot connect to '%s': %s: does 'vitro migrate --receive' wait there?", path, strerror(-r));
}

static int where_connect_tcp(const char *text, struct err *err)
{
    struct addrinfo *list = NULL;
    int one = 1, fd = -1, r = where_tcp(text, &list, err);

    if (r < 0)
        return r;
    for (struct addrinfo *a = list; a && fd < 0; a = a->ai_next) {
        fd = socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC, a->ai_protocol);
        if (fd >= 0 && connect(fd, a->ai_addr, a->ai_addrlen) < 0) {
            r = -errno;
            close(fd);
            fd = -1;
        }
    }
    freeaddrinfo(list);
    if (fd < 0)
        return err_set(err, r ? -r : EIO, "cannot connect to '%s': %s: does 'vitro migrate --receive' wait there?", text,
                       strerror(r ? -r : EIO));
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    return fd;
}

/* One word of the remote shell's command line. */
static void where_quote(FILE *f, const char *word)
{
    fputs(" '", f);
    for (; *word; word++) {
        if (*word == '\'')
            fputs("'\\''", f);
        else
            fputc(*word, f);
    }
    fputc('\'', f);
}

/* To be freed; NULL: no memory. */
static char *where_command(const struct where_ssh *ssh)
{
    char *text = NULL;
    size_t len;
    FILE *f = open_memstream(&text, &len);

    if (!f)
        return NULL;
    fputs("vitro migrate --receive stdio --name", f);
    where_quote(f, ssh->name);
    if (ssh->copy_disks)
        fputs(" --copy-disks", f);
    for (const char *const *o = ssh->option; o && *o; o++)
        where_quote(f, *o);
    if (fclose(f) == 0)
        return text;
    free(text);
    return NULL;
}

/* The child. Ctrl-C is for us alone: the machine's connection must not end at any moment. */
static void where_exec_ssh(int fd, const struct where_ssh *ssh, const char *host, const char *command)
{
    signal(SIGINT, SIG_IGN);
    signal(SIGQUIT, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    if (dup2(fd, 0) >= 0 && dup2(fd, 1) >= 0) {
        if (ssh->config)
            execlp("ssh", "ssh", "-T", "-F", ssh->config, "--", host, command, (char *)NULL);
        else
            execlp("ssh", "ssh", "-T", "--", host, command, (char *)NULL);
    }
    fprintf(stderr, "vitro: cannot run ssh: %s\n", strerror(errno));
    _exit(127);
}

/* ssh joins its standard streams to the other vitro's. */
static int where_connect_ssh(const char *host, struct where_ssh *ssh, struct err *err)
{
    char *command;
    int pair[2], r;

    if (!*host || *host == '-')
        return err_set(err, EINVAL, "'ssh:%.80s' names no host", host);
    command = where_command(ssh);
    if (!command)
        return err_set(err, ENOMEM, "out of memory");
    r = socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0 ? -errno : 0;
    if (r == 0) {
        ssh->pid = fork();
        if (ssh->pid == 0)
            where_exec_ssh(pair[1], ssh, host, command);
        r = ssh->pid < 0 ? -errno : 0;
        close(pair[1]);
        if (r < 0)
            close(pair[0]);
    }
    free(command);
    return r < 0 ? err_set(err, -r, "cannot start ssh: %s", strerror(-r)) : pair[0];
}

void where_disconnect(const struct where_ssh *ssh)
{
    if (ssh->pid <= 0)
        return;
    for (unsigned n = 0; n < WHERE_SSH_WAIT_MS / WHERE_SSH_STEP_MS; n++) {
        if (waitpid(ssh->pid, NULL, WNOHANG) != 0)
            return;
        poll(NULL, 0, WHERE_SSH_STEP_MS);
    }
    kill(ssh->pid, SIGTERM);
    waitpid(ssh->pid, NULL, 0);
}

int where_connect(const char *where, struct where_ssh *ssh, struct err *err)
{
    if (!strncmp(where, "unix:", 5))
        return where_connect_unix(where + 5, err);
    if (!strncmp(where, "tcp:", 4))
        return where_connect_tcp(where + 4, err);
    if (!strncmp(where, "ssh:", 4))
        return where_connect_ssh(where + 4, ssh, err);
    return err_set(err, EINVAL, "'%.80s' is none of unix:PATH, tcp:HOST:PORT and ssh:HOST", where);
}

/* -- waiting for one -- */

static int where_accept_on(int fd, const char *where, struct err *err)
{
    int r = listen(fd, 1) < 0 ? -1 : 0, one = 1;

    do
        r = r < 0 ? -1 : accept4(fd, NULL, NULL, SOCK_CLOEXEC);
    while (r < 0 && (errno == EINTR || errno == ECONNABORTED));
    if (r < 0)
        r = err_set(err, errno, "cannot wait at '%s': %s", where, strerror(errno));
    else
        setsockopt(r, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)); /* where it is one */
    close(fd);
    return r;
}

/* A socket at which nobody waits any more is taken away. */
static void where_forget(const struct sockaddr_un *a)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return;
    if (connect(fd, (const struct sockaddr *)a, sizeof(*a)) < 0 && errno == ECONNREFUSED)
        unlink(a->sun_path);
    close(fd);
}

/* Only this user may connect. */
static int where_accept_unix(const char *path, struct err *err)
{
    struct sockaddr_un a;
    int r = where_unix(path, &a, err), fd;

    if (r < 0)
        return r;
    where_forget(&a);
    fd = usock_listen(path, 1);
    if (fd < 0)
        return err_set(err, -fd, "cannot wait at '%s': %s", path, strerror(-fd));
    fcntl(fd, F_SETFL, 0); /* it waits in accept() */
    r = where_accept_on(fd, path, err);
    unlink(path);
    return r;
}

static int where_accept_tcp(const char *text, struct err *err)
{
    struct addrinfo *list = NULL;
    int one = 1, fd, r = where_tcp(text, &list, err);

    if (r < 0)
        return r;
    fd = socket(list->ai_family, SOCK_STREAM | SOCK_CLOEXEC, list->ai_protocol);
    if (fd >= 0)
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (fd < 0 || bind(fd, list->ai_addr, list->ai_addrlen) < 0) {
        r = err_set(err, errno, "cannot wait at '%s': %s", text, strerror(errno));
        if (fd >= 0)
            close(fd);
    }
    freeaddrinfo(list);
    return r < 0 ? r : where_accept_on(fd, text, err);
}

int where_accept(const char *where, struct err *err)
{
    if (!strncmp(where, "unix:", 5))
        return where_accept_unix(where + 5, err);
    if (!strncmp(where, "tcp:", 4))
        return where_accept_tcp(where + 4, err);
    return err_set(err, EINVAL, "'%.80s' is none of unix:PATH, tcp:ADDRESS:PORT and stdio", where);
}
