/* vitro's agent in a guest: listens on an AF_VSOCK port for the host, see agent.h and docs/design/agent.md.
 *
 * As process 1 (the kernel's rdinit=) it leaves a child behind that is the agent and goes on as /init. The child is in the initramfs
 * for ever, while the system moves on to its real root; each connection enters that anew. Otherwise (a service of the system) it is
 * the agent itself, and ends at once when there is one already.
 *
 * Only the host may connect: a program of the guest would get root by it. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <linux/vm_sockets.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent.h"

#define MAIN_SESSIONS 64
#define MAIN_TRIES    600 /* seconds in which the driver may come */

extern char **environ;

/* The driver is a module of most kernels. Where udev does not load it nobody does, so this asks for it, as long as it is not known to
 * be there. */
static bool main_load_driver(void)
{
    char *const argv[] = { (char *)(uintptr_t) "modprobe", (char *)(uintptr_t) "-q",
                           (char *)(uintptr_t) "vmw_vsock_virtio_transport", NULL };
    static const char *const path[] = { "/sbin/modprobe", "/usr/sbin/modprobe", "/bin/modprobe" };
    int status = 0;
    pid_t pid = fork();

    if (pid == 0) {
        if (chdir("/") < 0 || chroot("/..") < 0 || chdir("/") < 0 || access("/lib/modules", F_OK) < 0)
            _exit(1);
        close(1); /* a console is not for this */
        close(2);
        for (unsigned n = 0; n < sizeof(path) / sizeof(path[0]); n++)
            execv(path[n], argv);
        _exit(127);
    }
    return pid > 0 && waitpid(pid, &status, 0) == pid && status == 0;
}

/* A listening socket; -1: not yet. *taken: another agent has the port. */
static int main_listen(bool *taken)
{
    struct sockaddr_vm a = { .svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY, .svm_port = AGENT_PORT };
    int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd >= 0 && bind(fd, (struct sockaddr *)&a, sizeof(a)) == 0 && listen(fd, MAIN_SESSIONS) == 0)
        return fd;
    *taken = fd >= 0 && errno == EADDRINUSE;
    if (fd >= 0)
        close(fd);
    return -1;
}

/* At once: what is dead but not buried keeps systemd from shutting down. */
static void main_bury(int children, unsigned *sessions)
{
    struct signalfd_siginfo info;

    if (read(children, &info, sizeof(info)) < 0)
        return;
    while (waitpid(-1, NULL, WNOHANG) > 0)
        *sessions -= *sessions > 0;
}

static int main_children(void)
{
    sigset_t child;

    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    sigprocmask(SIG_BLOCK, &child, NULL);
    return signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK);
}

/* True: the host has been here. */
static bool main_accept(int listener, unsigned *sessions)
{
    struct sockaddr_vm a = { .svm_cid = VMADDR_CID_ANY };
    socklen_t len = sizeof(a);
    int fd = accept4(listener, (struct sockaddr *)&a, &len, SOCK_CLOEXEC | SOCK_NONBLOCK);
    pid_t pid;

    if (fd < 0)
        return false;
    pid = a.svm_cid == VMADDR_CID_HOST && *sessions < MAIN_SESSIONS ? fork() : -1;
    if (pid == 0) {
        close(listener);
        agent_session(fd);
        _exit(0);
    }
    *sessions += pid > 0;
    close(fd);
    return pid > 0;
}

static void main_serve(void)
{
    int listener = -1, children = main_children();
    unsigned tries = 0, sessions = 0;
    bool driver = false, taken = false;

    while (!taken) {
        struct pollfd p[2];
        bool again;

        if (!driver && tries < MAIN_TRIES) {
            driver = main_load_driver();
            tries++;
        }
        if (listener < 0)
            listener = main_listen(&taken);
        again = listener < 0 || (!driver && tries < MAIN_TRIES);
        p[0] = (struct pollfd){ .fd = listener, .events = POLLIN };
        p[1] = (struct pollfd){ .fd = children, .events = POLLIN };
        if (taken || poll(p, 2, again ? 1000 : -1) <= 0)
            continue;
        if (p[1].revents)
            main_bury(children, &sessions);
        if (p[0].revents)
            driver |= main_accept(listener, &sessions);
    }
}

/* '@' keeps systemd in an initramfs, and at the end, from killing what has to outlive the change of the root. */
static void main_become_agent(char **argv)
{
    setsid();
    signal(SIGHUP, SIG_IGN);
    signal(SIGPIPE, SIG_IGN);
    argv[0][0] = '@';
}

int main(int argc, char **argv)
{
    static char init[] = "/init";

    if (getpid() == 1 && argc > 0 && *argv[0]) {
        pid_t pid = fork();

        if (pid != 0) {
            argv[0] = init;
            execve(init, argv, environ);
            return 1;
        }
        main_become_agent(argv);
    }
    signal(SIGPIPE, SIG_IGN);
    main_serve();
    return 0;
}
