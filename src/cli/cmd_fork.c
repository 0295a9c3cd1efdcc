/* vitro fork: running copies of a running machine. Thread: the main thread, which becomes the machines' parent.
 *
 * The machine is saved once, as it is; each copy maps that file copy on write, so that they share in the host's page cache what none of them
 * has changed. The file never has a name: whoever ends us, its space is free when the last copy has ended. Each copy is a machine like
 * others: a process of its own, inside its own sandbox, found by its own control socket. */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api/client.h"
#include "base/clock.h"
#include "base/err.h"
#include "block/image.h"
#include "cli/cli.h"
#include "cli/define.h"
#include "cli/identity.h"
#include "cli/launch.h"
#include "cli/verb.h"
#include "machine/sandbox.h"

#define FORK_MOST    1000
#define FORK_AT_ONCE 16  /* being made */
#define FORK_NAME    300 /* bytes */

void cmd_fork_help(void)
{
    puts("Makes running copies of a running machine, which goes on. They share memory with each other until they change it. Each has a name\n"
         "(NAME-1, NAME-2 ...) and a generation ID of its own. When this ends, the guests' kernels have reseeded their random numbers: because they\n"
         "have heard of it, if they have a driver (vmgenid; Debian's cloud kernel has none), or by --agent; else it says that they have not.\n"
         "Network cards have addresses of their own. With --agent the guest takes them, and its machine's name as its host name, before\n"
         "this ends; other guests take the addresses when their driver is bound anew or they are reset.\n"
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

/* Copy number n's; the caller's buffer, long enough for any prefix that is taken. */
static const char *fork_name(const struct fork_args *f, unsigned n, char name[FORK_NAME])
{
    snprintf(name, FORK_NAME, "%s-%u", f->prefix, n);
    return name;
}

/* What all copies are, as options of the first one, and their engine. Returns an exit status, having told what was wrong. */
static int fork_options(const struct fork_args *f, const char *path, struct run_options *o, struct launch_child *first)
{
    const char **words = calloc((size_t)f->rest + 5, sizeof(*words));
    char what[64], name[FORK_NAME];
    struct err err = { "" };
    int r;

    snprintf(what, sizeof(what), "%s,clone,trust-disks", path);
    if (!words || config_init(&o->cfg) < 0) {
        free(words);
        return cli_failf("out of memory");
    }
    words[0] = "--restore", words[1] = what, words[2] = "--name", words[3] = fork_name(f, 1, name);
    for (int i = 0; i < f->rest; i++)
        words[4 + i] = f->word[i];
    r = run_parse(o, 4 + f->rest, (char **)(uintptr_t)words, &err);
    free(words);
    o->cfg.detach = true;
    if (r == 0)
        r = launch_engine(o, first, &err);
    if (r == 0)
        r = sandbox_prepare(&o->cfg, &err);
    return r < 0 ? cli_fail(f->json, &err) : CLI_OK;
}

static int fork_begin(const struct fork_args *f, struct run_options *o, struct launch_child *child, unsigned n)
{
    struct err err = { "" };
    char name[FORK_NAME];

    return config_set(&o->cfg, "name", fork_name(f, n, name), &err) < 0 ? cli_fail(f->json, &err) : launch_begin(o, child);
}

/* Copies are begun before the ones before them run: making one waits for the host's disk and kernel, and for its siblings' guests, which have something to
 * catch up with. After one that cannot be made no others are begun. made[n]: copy n + 1 runs. Returns an exit status. */
static int fork_copies(const struct fork_args *f, struct run_options *o, const struct launch_child *like, bool *made)
{
    struct launch_child *child = calloc(f->count, sizeof(*child));
    unsigned begun = 0;
    int status = child ? CLI_OK : cli_failf("out of memory");

    for (unsigned n = 0; child && (n < begun || (status == CLI_OK && n < f->count)); n++) {
        while (status == CLI_OK && begun < f->count && begun - n < FORK_AT_ONCE) {
            child[begun] = *like;
            status = fork_begin(f, o, &child[begun], begun + 1);
            begun += status == CLI_OK;
        }
        if (n < begun && !(made[n] = launch_await(o, &child[n]) == CLI_OK))
            status = CLI_ERROR;
    }
    free(child);
    return status;
}

static int fork_make(const struct fork_args *f, const char *path, bool *made)
{
    struct run_options o = { .json = f->json };
    struct launch_child like;
    int status = fork_options(f, path, &o, &like);

    if (status == CLI_OK)
        status = fork_copies(f, &o, &like, made);
    run_fini(&o);
    return status;
}

/* The option is among the copies' own, so what the machine has of its kind is not theirs. */
static bool fork_gives(const struct fork_args *f, const char *option)
{
    size_t len = strlen(option);

    for (int i = 0; i < f->rest; i++) {
        if (!strncmp(f->word[i], option, len) && (!f->word[i][len] || f->word[i][len] == '='))
            return true;
    }
    return false;
}

static int fork_check_disks(const struct machine_config *c, struct err *err)
{
    for (unsigned n = 0; n < c->disks; n++) {
        if (!c->disk[n].ro && !c->disk[n].ephemeral)
            return err_set(err, EBUSY,
                           "disk '%s' is written by the machine and cannot be in its copies as well: give them others ('-- --disk ...'), "
                           "or run the machine with 'ro' or 'ephemeral'",
                           c->disk[n].path);
    }
    return 0;
}

static int fork_check_nets(const struct machine_config *c, struct err *err)
{
    for (unsigned n = 0; n < c->nets; n++) {
        if (c->net[n]->port.forwards)
            return err_set(err, EBUSY, "network %u forwards host ports, which are taken: give the copies others ('-- --net user')", n);
    }
    return 0;
}

/* What no copy could be made with is said before anything is done. */
static int fork_check(const struct fork_args *f, struct err *err)
{
    struct machine_config c;
    json_t *machine = NULL;
    int r = client_call(f->name, "GET", "/v1/machine", NULL, &machine, err);

    if (r < 0)
        return r;
    r = config_init(&c) < 0 ? err_set(err, ENOMEM, "out of memory")
                            : config_apply_json(&c, json_object_get(machine, "config"), err);
    if (r == 0 && !fork_gives(f, "--disk"))
        r = fork_check_disks(&c, err);
    if (r == 0 && !fork_gives(f, "--net"))
        r = fork_check_nets(&c, err);
    config_fini(&c);
    json_decref(machine);
    return r;
}

/* The saved machine, in a file without a name; open for reading only, as no copy may write to what others run from. */
static int fork_save(const struct fork_args *f, uint64_t *stood_ns, struct err *err)
{
    char path[4096] = "";
    struct image_draft draft;
    struct verb_save s = { .name = f->name, .path = path };
    int fd, r = define_path(path, sizeof(path), "forks", f->name, err);

    if (r == 0)
        r = verb_save(&s, &draft, err);
    if (r < 0)
        return r;
    *stood_ns = s.stood_ns;
    fd = open(draft.open, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        err_set(err, errno, "the saved machine cannot be opened: %s", strerror(errno));
    image_draft_abort(&draft);
    return fd;
}

/* How many guests have taken their identities, and know random numbers of their own; and how many kernels will not hear that they should. */
struct fork_guests {
    unsigned told, reseeded, deaf;
};

/* Without an agent, or if it did not do it, there may be a driver for the generation ID. */
static int fork_await(const char *name, unsigned seconds, struct fork_guests *g)
{
    struct err err = { "" };
    int r = identity_await(name, seconds, &err);

    g->reseeded += r > 0;
    g->deaf += r == 0;
    if (r < 0)
        fprintf(stderr, "vitro: the guest of '%s' may know the same random numbers as other copies: %s\n", name, err.text);
    return r;
}

/* After a guest that did not answer in time the others get little. */
static struct fork_guests fork_identities(const struct fork_args *f, const bool *made)
{
    struct fork_guests g = { .told = 0 };
    unsigned seconds = IDENTITY_SECONDS;
    char name[FORK_NAME];

    for (unsigned n = 0; n < f->count; n++) {
        struct err err = { "" };
        int r = made[n] ? identity_tell(fork_name(f, n + 1, name), true, seconds, &err) : 0;

        if (r > 0)
            g.told++, g.reseeded++;
        if (r < 0)
            fprintf(stderr, "vitro: the guest of '%s' keeps its host name and network addresses: %s\n", name, err.text);
        if (made[n] && r <= 0 && fork_await(name, seconds, &g) < 0)
            r = -1;
        seconds = r < 0 ? 1 : seconds;
    }
    return g;
}

/* What there is now; also when not all could be made. */
static void fork_tell(const struct fork_args *f, unsigned made, const struct fork_guests *g, uint64_t stood_ns, const double at[3])
{
    if (f->json)
        printf("{\"name\":\"%s\",\"done\":\"fork\",\"copies\":%u,\"wanted\":%u,\"identities\":%u,\"reseeded\":%u,\"stood_ms\":%.3f,\"saved_ms\":%.3f,\"copy_ms\":%.3f}\n",
               f->name, made, f->count, g->told, g->reseeded, (double)stood_ns / 1e6, (at[1] - at[0]) * 1e3, made ? (at[2] - at[1]) * 1e3 / made : 0);
    else if (made < f->count && made)
        fprintf(stderr, "vitro: %u of %u copies were made, and run: those that are named above\n", made, f->count);
    else if (made < f->count)
        fprintf(stderr, "vitro: none of %u copies was made\n", f->count);
    if (g->deaf && !f->json)
        fprintf(stderr, "vitro: these copies know the same random numbers until their kernel reseeds by itself: it has no driver for the generation ID, and there is no agent\n");
}

int cmd_fork(int argc, char **argv)
{
    struct fork_args f = { .name = NULL };
    struct err err = { "" };
    bool made[FORK_MOST] = { false };
    char path[32];
    uint64_t stood_ns = 0;
    double at[3] = { clock_host_seconds(CLOCK_MONOTONIC), 0, 0 }; /* begun, saved, ended */
    struct fork_guests guests;
    unsigned count = 0;
    int fd, status;

    if (fork_parse(&f, argc, argv))
        return CLI_ERROR;
    fd = fork_check(&f, &err) < 0 ? -1 : fork_save(&f, &stood_ns, &err);
    if (fd < 0)
        return cli_fail(f.json, &err);
    at[1] = clock_host_seconds(CLOCK_MONOTONIC);
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    status = fork_make(&f, path, made);
    at[2] = clock_host_seconds(CLOCK_MONOTONIC);
    close(fd);
    for (unsigned n = 0; n < f.count; n++)
        count += made[n];
    guests = fork_identities(&f, made);
    fork_tell(&f, count, &guests, stood_ns, at);
    return status;
}
