/* vitro api: one machine behind the Firecracker API. Thread: the main thread, which becomes the machine's. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "api/firecracker.h"
#include "base/err.h"
#include "cli/cli.h"
#include "machine/vm.h"

void cmd_api_help(void)
{
    puts("Serves the Firecracker API on a unix socket: clients configure a machine, start it and steer it; the process ends\n"
         "with the machine. The guest's serial port is on stdin and stdout. docs/life.md lists what is known of the API.\n\n"
         "  --api-sock PATH    the socket, which must not exist yet\n"
         "  --id NAME          what GET / tells (default anonymous-instance)");
}

/* Firecracker's clients give options that mean nothing here, each with its value or none. */
static int api_options(int argc, char **argv, const char **path, const char **id)
{
    for (int i = 0; i < argc; i++) {
        const char **to = !strcmp(argv[i], "--api-sock") ? path : !strcmp(argv[i], "--id") ? id : NULL;

        if (!to)
            return cli_failf("'api' does not know '%.80s': see 'vitro help api'", argv[i]);
        if (i + 1 >= argc)
            return cli_failf("option '%s' needs a value: see 'vitro help api'", argv[i]);
        *to = argv[++i];
    }
    return *path ? 0 : cli_failf("where shall the API be? Say --api-sock PATH");
}

/* A listening socket, or -errno with a sentence. */
static int api_listen(const char *path, struct err *err)
{
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    int r = 0, fd;

    if (strlen(path) >= sizeof(a.sun_path))
        return err_set(err, ENAMETOOLONG, "the socket's name '%.40s...' is longer than %zu bytes", path,
                       sizeof(a.sun_path) - 1);
    memcpy(a.sun_path, path, strlen(path) + 1);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 || fchmod(fd, 0600) < 0 || bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(fd, 32) < 0)
        r = -errno;
    if (r == 0)
        return fd;
    if (fd >= 0)
        close(fd);
    return err_set(err, -r, "cannot make the socket '%s': %s", path, strerror(-r));
}

/* Signals that end the process come through the machine's loop, once there is one; before, they just end it. */
static int api_signals(void)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGHUP);
    sigprocmask(SIG_BLOCK, &set, NULL);
    return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

int cmd_api(int argc, char **argv)
{
    const char *path = NULL, *id = "anonymous-instance";
    struct err err = { "" };
    struct firecracker f;
    struct maker maker;
    int fd, signals, status, made;

    if (api_options(argc, argv, &path, &id))
        return CLI_ERROR;
    made = maker_start(&maker, &err);
    if (made > 0)
        return CLI_OK;
    fd = made < 0 ? made : api_listen(path, &err);
    if (fd < 0) {
        maker_fini(&maker);
        return cli_fail(false, &err);
    }
    signal(SIGPIPE, SIG_IGN);
    if (fc_init(&f, id, fd, &maker, &err) < 0 || fc_wait(&f, &err) < 0) {
        status = cli_fail(false, &err);
    } else {
        signals = api_signals();
        vm_run(f.vm, signals);
        status = vm_status(f.vm);
        close(signals);
    }
    fc_fini(&f);
    unlink(path);
    return status;
}
