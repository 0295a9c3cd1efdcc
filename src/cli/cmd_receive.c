/* vitro migrate --receive: a machine that comes from elsewhere, in this process or in the background. Thread: the main thread. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/err.h"
#include "base/log.h"
#include "cli/cli.h"
#include "cli/launch.h"
#include "cli/migrate_where.h"
#include "cli/verb.h"

/* Signals wait for the machine's loop by then. */
static bool receive_give_up(void)
{
    sigset_t set;

    return sigpending(&set) == 0 && (sigismember(&set, SIGINT) || sigismember(&set, SIGTERM) || sigismember(&set, SIGHUP));
}

struct receive_words {
    const char *where, *stall, *disk_folder;
    bool insecure, trust_disks, copy_disks, force;
    char **rest; /* owned: options of run */
    int count;
};

/* One of our own words; how many it took, 0: it is one of run's. */
static int receive_word(struct receive_words *w, const char *word, const char *next)
{
    const struct {
        const char *name;
        bool *flag;
        const char **value;
    } words[] = {
        { "--insecure", &w->insecure, NULL },   { "--trust-disks", &w->trust_disks, NULL }, { "--copy-disks", &w->copy_disks, NULL },
        { "--force", &w->force, NULL },         { "--receive", NULL, &w->where },           { "--stall", NULL, &w->stall },
        { "--disk-folder", NULL, &w->disk_folder },
    };
    size_t len = strcspn(word, "=");

    for (size_t n = 0; n < ARRAY_LEN(words); n++) {
        if (strlen(words[n].name) != len || strncmp(word, words[n].name, len))
            continue;
        if (words[n].flag && !word[len])
            return *words[n].flag = true;
        if (words[n].flag || (!word[len] && !next))
            return 0;
        *words[n].value = word[len] ? word + len + 1 : next;
        return word[len] ? 1 : 2;
    }
    return 0;
}

static int receive_split(struct receive_words *w, int argc, char **argv)
{
    w->rest = calloc((size_t)argc + 1, sizeof(*w->rest));
    for (int i = 0, n; w->rest && i < argc; i += n) {
        n = receive_word(w, argv[i], i + 1 < argc ? argv[i + 1] : NULL);
        if (n == 0) {
            w->rest[w->count++] = argv[i];
            n = 1;
        }
    }
    return w->rest ? 0 : -ENOMEM;
}

/* The connection is on the standard streams: it gets other numbers, and what is printed goes to stderr. */
static int receive_leave_stdio(struct migrate_in *in)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC), r = migrate_in_keep(in);

    if (r == 0 && (null < 0 || dup2(null, 0) < 0 || dup2(2, 1) < 0))
        r = -errno;
    if (null >= 0)
        close(null);
    return r;
}

static int receive_hello(const struct receive_words *w, struct migrate_in **in, struct err *err)
{
    struct migrate_in_options o = { .stall_s = MIGRATE_STALL_S, .trust_disks = w->trust_disks, .give_up = receive_give_up,
                                    .copy_disks = w->copy_disks, .force = w->force, .disk_folder = w->disk_folder };
    bool tcp = !strncmp(w->where, "tcp:", 4), stdio = !strcmp(w->where, "stdio");
    int fd, r;

    if (w->stall && ((r = verb_seconds(w->stall, &o.stall_s, err)) < 0 || !o.stall_s))
        return r < 0 ? r : err_set(err, EINVAL, "--stall is at least 1");
    if ((w->force || w->disk_folder) && !w->copy_disks)
        return err_set(err, EINVAL, "--disk-folder and --force say where copied disks go: they need --copy-disks");
    if (tcp && !w->insecure)
        return err_set(err, EPERM, "a connection by TCP is neither encrypted nor checked, and whoever connects decides what runs here: "
                                   "use ssh:HOST, or add --insecure on a network that only you can reach");
    if (tcp)
        log_msg(LOG_WARN, "whoever can reach %s decides what runs here, and can read the guest's memory on its way", w->where + 4);
    fd = stdio ? 0 : where_accept(w->where, err);
    if (fd < 0)
        return fd;
    r = migrate_hello(in, fd, stdio ? 1 : fd, &o, err);
    if (r == 0 && stdio && (r = receive_leave_stdio(*in)) < 0)
        err_set(err, -r, "the standard streams cannot be used: %s", strerror(-r));
    return r;
}

static int receive_run(struct receive_words *w, struct run_options *o)
{
    struct err err = { "" };
    int r = run_try(w->count, w->rest, &err);

    if (r == 0)
        r = receive_hello(w, &o->incoming, &err);
    if (r == 0)
        r = run_parse(o, w->count, w->rest, &err);
    if (r < 0) {
        migrate_in_close(o->incoming, &err);
        o->incoming = NULL;
        return cli_fail(o->json, &err);
    }
    if (!strcmp(w->where, "stdio"))
        o->cfg.detach = true;
    return launch(o);
}

int cmd_receive(int argc, char **argv)
{
    struct run_options o = { .json = false };
    struct receive_words w = { NULL };
    int status;

    signal(SIGPIPE, SIG_IGN);
    if (receive_split(&w, argc, argv) < 0 || config_init(&o.cfg) < 0)
        return cli_failf("out of memory");
    status = w.where ? receive_run(&w, &o) : cli_failf("--receive needs a place: see 'vitro help migrate'");
    migrate_in_close(o.incoming, NULL);
    config_fini(&o.cfg);
    free(o.save.path);
    free(w.rest);
    return status;
}
