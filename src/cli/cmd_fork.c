/* vitro fork: running copies of a running machine. Thread: the main thread, which becomes the machines' parent.
 *
 * The machine is saved once, as it is; each copy maps that file copy on write, so that they share in the host's page cache what none of them
 * has changed. The file loses its name when the last copy is there, and its space when the last one has ended. Each copy is a machine like
 * others: a process of its own, inside its own sandbox, found by its own control socket. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/err.h"
#include "cli/cli.h"
#include "cli/define.h"
#include "cli/launch.h"
#include "cli/verb.h"

#define FORK_MOST 1000

void cmd_fork_help(void)
{
    puts("Makes running copies of a running machine, which goes on. They share memory with each other until they change it. Each has a name\n"
         "(NAME-1, NAME-2 ...) and a generation ID of its own, of which the guest's kernel hears at once and reseeds its random numbers.\n"
         "A disk that the machine writes to cannot be in two machines: use disks that are 'ro' or 'ephemeral', or none.\n"
         "Host ports that the machine forwards are taken: give the copies another --net, if there are any.\n\n"
         "  -n N             how many (default 1)\n"
         "  --prefix NAME    copies are called NAME-1, NAME-2 ...\n"
         "  --json           say what was made, and how long it took, as JSON\n"
         "  options of 'vitro run' that follow '--' are the copies'");
}

struct fork_args {
    const char *name, *prefix;
    unsigned count;
    bool json;
    int rest;    /* words for run_parse(), */
    char **word; /* and where they are */
};

static double fork_now(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static int fork_parse(struct fork_args *f, int argc, char **argv)
{
    const char *count = NULL, *prefix = NULL;
    const struct verb_option options[] = { { "-n", NULL, &count }, { "--prefix", NULL, &prefix }, { .name = NULL } };
    struct verb_args a;
    int own = 0;
    char *end;
    unsigned long n = 1;

    while (own < argc && strcmp(argv[own], "--"))
        own++;
    if (verb_parse(&a, own, argv, "fork", options, 1, 1))
        return CLI_ERROR;
    if (count) {
        n = strtoul(count, &end, 10);
        if (*count < '0' || *count > '9' || *end || n < 1 || n > FORK_MOST)
            return cli_failf("'%.40s' is not a number of copies from 1 to %d", count, FORK_MOST);
    }
    *f = (struct fork_args){ .name = a.name[0], .prefix = prefix ? prefix : a.name[0], .count = (unsigned)n, .json = a.json,
                             .rest = own < argc ? argc - own - 1 : 0, .word = argv + own + 1 };
    return 0;
}

/* One copy, of the file at path. Returns an exit status, having told what was wrong. */
static int fork_one(const struct fork_args *f, const char *path, unsigned n)
{
    const char **words = calloc((size_t)f->rest + 5, sizeof(*words));
    struct run_options o = { .json = f->json };
    char what[4200], name[300];
    struct err err = { "" };
    int status;

    snprintf(what, sizeof(what), "%s,clone,trust-disks", path);
    snprintf(name, sizeof(name), "%s-%u", f->prefix, n);
    if (!words || config_init(&o.cfg) < 0) {
        free(words);
        return cli_failf("out of memory");
    }
    words[0] = "--restore", words[1] = what, words[2] = "--name", words[3] = name;
    for (int i = 0; i < f->rest; i++)
        words[4 + i] = f->word[i];
    if (run_parse(&o, 4 + f->rest, (char **)(uintptr_t)words, &err) < 0) {
        status = cli_fail(f->json, &err);
    } else {
        o.cfg.detach = true;
        status = launch(&o);
    }
    config_fini(&o.cfg);
    save_close(o.restore.file);
    free(words);
    return status;
}

/* Where the file is for as long as it has a name. */
static int fork_path(char *path, size_t size, const char *name, struct err *err)
{
    int r = define_path(path, size, "forks", name, err);
    size_t len = strlen(path);

    if (r < 0)
        return r;
    if (strchr(path, ',') || len + 32 > size)
        return err_set(err, EINVAL, "the data folder's path has a comma, or is too long: set XDG_DATA_HOME");
    snprintf(path + len, size - len, ".%d", (int)getpid());
    return 0;
}

int cmd_fork(int argc, char **argv)
{
    struct fork_args f = { .name = NULL };
    struct err err = { "" };
    char path[4096] = "";
    uint64_t stood_ns = 0;
    double start = fork_now(), saved;
    unsigned n = 0;
    int status = CLI_OK;

    if (fork_parse(&f, argc, argv))
        return CLI_ERROR;
    if (fork_path(path, sizeof(path), f.name, &err) < 0 || verb_save(f.name, path, &stood_ns, &err) < 0)
        return cli_fail(f.json, &err);
    saved = fork_now();
    while (n < f.count && status == CLI_OK)
        status = fork_one(&f, path, ++n);
    unlink(path);
    if (f.json && status == CLI_OK)
        printf("{\"name\":\"%s\",\"done\":\"fork\",\"copies\":%u,\"stood_ms\":%.3f,\"saved_ms\":%.3f,\"copy_ms\":%.3f}\n", f.name, n,
               (double)stood_ns / 1e6, (saved - start) * 1e3, (fork_now() - saved) * 1e3 / n);
    return status;
}
