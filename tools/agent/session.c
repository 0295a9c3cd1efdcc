/* One connection, in a process of its own: says which version this is, hears what is wanted, does it. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent.h"

#define SESSION_MS 30000 /* until the host has said what it wants */

void agent_fail(struct wire *w, int status, const char *fmt, ...)
{
    char text[512];
    va_list ap;
    int n;

    text[0] = (char)status;
    va_start(ap, fmt);
    n = vsnprintf(text + 1, sizeof(text) - 1, fmt, ap);
    va_end(ap);
    if (n > (int)sizeof(text) - 2)
        n = (int)sizeof(text) - 2;
    wire_send(w, WIRE_FAIL, text, (size_t)n + 1, AGENT_LEAVE_MS);
}

/* Where the rest of the system is by now: an initramfs puts the real root over its own, and this process is from below. */
static void session_enter_root(void)
{
    if (chdir("/") < 0 || chroot("/..") < 0 || chdir("/") < 0)
        return; /* then it is where it was */
}

static void session_exec(struct wire *w)
{
    static struct agent_run run;
    static char words[WIRE_MAX];
    size_t len;
    const uint8_t *data = wire_data(w, &len);

    memcpy(words, data, len);
    wire_done(w);
    if (!agent_run_parse(&run, words, len))
        agent_fail(w, AGENT_FAILED, "the guest's agent does not understand what is to be done");
    else if (agent_run_begin(&run, w) == 0)
        agent_pump(&run, w);
}

/* The last frame is on its way: the host closes when it has it. */
static void session_leave(int fd)
{
    struct pollfd p = { .fd = fd, .events = POLLIN };
    char buf[4096];

    shutdown(fd, SHUT_WR);
    while (poll(&p, 1, AGENT_LEAVE_MS) > 0 && recv(fd, buf, sizeof(buf), MSG_DONTWAIT) > 0)
        ;
}

void agent_session(int fd)
{
    static const uint8_t version[4] = { AGENT_VERSION };
    static struct wire w;
    sigset_t child;

    signal(SIGCHLD, SIG_DFL);
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    sigprocmask(SIG_BLOCK, &child, NULL);
    session_enter_root();
    wire_init(&w, fd);
    if (wire_send(&w, WIRE_HELLO, version, sizeof(version), SESSION_MS) < 0 || wire_wait(&w, SESSION_MS) < 0)
        return;
    if (wire_type(&w) == WIRE_EXEC)
        session_exec(&w);
    else if (wire_type(&w) == WIRE_FETCH || wire_type(&w) == WIRE_STORE || wire_type(&w) == WIRE_FETCH_NEWER || wire_type(&w) == WIRE_STORE_NEWER)
        agent_copy(&w);
    else if (wire_type(&w) == WIRE_IDENTITY)
        agent_identity(&w);
    else
        agent_fail(&w, AGENT_FAILED, "the guest's agent does not know what is wanted: is it older than this vitro?");
    session_leave(fd);
}
