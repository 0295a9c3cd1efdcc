/* vitro api: one machine behind the Firecracker API. Thread: the main thread, which becomes the machine's. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "api/firecracker.h"
#include "base/bits.h"
#include "base/err.h"
#include "base/usock.h"
#include "cli/cli.h"
#include "machine/vm.h"

void cmd_api_help(void)
{
    puts("Serves the Firecracker API on a unix socket: clients configure a machine, start it and steer it; the process ends\n"
         "with the machine. The guest's serial port is on stdin and stdout. docs/life.md lists what is known of the API.\n\n"
         "  --api-sock PATH    the socket, which must not exist yet\n"
         "  --id NAME          what GET / tells (default anonymous-instance)\n"
         "  --mmds-size-limit BYTES   the most that the metadata service holds (default 51200, at most 1048576)\n\n"
         "Options of Firecracker that mean nothing here (--no-seccomp, --level ...) are taken and change nothing.");
}

/* What Firecracker's clients say that means nothing here: its words with a value, and those without. The sandbox stays on. */
static int api_ignored(const char *word)
{
    static const char *const with[] = { "--seccomp-filter", "--level", "--http-api-max-payload-size", "--start-time-us",
                                       "--start-time-cpu-us", "--parent-cpu-time-us" };
    static const char *const without[] = { "--no-seccomp", "--boot-timer", "--show-level", "--show-log-origin" };

    for (size_t n = 0; n < ARRAY_LEN(with); n++) {
        if (!strcmp(word, with[n]))
            return 2;
    }
    for (size_t n = 0; n < ARRAY_LEN(without); n++) {
        if (!strcmp(word, without[n]))
            return 1;
    }
    return 0;
}

struct api_words {
    const char *path, *id, *mmds;
};

static const char **api_word(struct api_words *w, const char *name)
{
    if (!strcmp(name, "--api-sock"))
        return &w->path;
    if (!strcmp(name, "--id"))
        return &w->id;
    return !strcmp(name, "--mmds-size-limit") ? &w->mmds : NULL;
}

static int api_options(int argc, char **argv, struct api_words *w)
{
    for (int i = 0, words; i < argc; i += words) {
        const char **to = api_word(w, argv[i]);

        words = to ? 2 : api_ignored(argv[i]);
        if (!words)
            return cli_failf("'api' does not know '%.80s': see 'vitro help api'", argv[i]);
        if (i + words > argc)
            return cli_failf("option '%s' needs a value: see 'vitro help api'", argv[i]);
        if (to)
            *to = argv[i + 1];
    }
    return w->path ? 0 : cli_failf("where shall the API be? Say --api-sock PATH");
}

/* 0: it is no good, which was said. */
static uint32_t api_mmds_size(const char *text)
{
    char *end;
    unsigned long n = strtoul(text, &end, 10);

    if (*text >= '0' && *text <= '9' && !*end && n >= 1 && n <= MMDS_SIZE_MAX)
        return (uint32_t)n;
    cli_failf("--mmds-size-limit '%.40s' is not a number of bytes from 1 to %d", text, MMDS_SIZE_MAX);
    return 0;
}

/* A listening socket, or -errno with a sentence. */
static int api_listen(const char *path, struct err *err)
{
    int fd = usock_listen(path, 32);

    return fd < 0 ? err_set(err, -fd, "cannot make the socket '%s': %s", path, strerror(-fd)) : fd;
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
    struct api_words w = { NULL, "anonymous-instance", "51200" };
    struct err err = { "" };
    struct firecracker f;
    struct maker maker;
    uint32_t mmds;
    int r, fd, signals, status;

    if (api_options(argc, argv, &w) || !(mmds = api_mmds_size(w.mmds)))
        return CLI_ERROR;
    fd = maker_start(&maker, NULL, &err);
    fd = fd < 0 ? fd : api_listen(w.path, &err);
    if (fd < 0) {
        maker_fini(&maker);
        return cli_fail(false, &err);
    }
    signal(SIGPIPE, SIG_IGN);
    r = fc_init(&f, w.id, fd, &maker, &err);
    mmds_limit(&f.mmds, mmds);
    if (r < 0 || fc_wait(&f, &err) < 0) {
        status = cli_fail(false, &err);
    } else {
        signals = api_signals();
        vm_run(f.vm, signals);
        status = vm_status(f.vm);
        close(signals);
    }
    fc_fini(&f);
    unlink(w.path);
    return status;
}
