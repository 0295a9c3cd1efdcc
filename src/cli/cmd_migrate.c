/* vitro migrate: a running machine goes to another process, here or on another host. Thread: the main thread.
 *
 * The connection is made here and handed to the machine, which does the rest by itself: this only watches.
 */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api/client.h"
#include "base/err.h"
#include "cli/cli.h"
#include "cli/migrate_where.h"
#include "cli/verb.h"
#include "machine/vm.h"

#define WATCH_MS 100

void cmd_migrate_help(void)
{
    puts("Moves a running machine while it runs. First let the other side wait for it, then send it:\n\n"
         "  vitro migrate --receive unix:PATH|tcp:ADDRESS:PORT|stdio [--insecure] [--trust-disks] [options of run]\n"
         "  vitro migrate NAME unix:PATH|tcp:HOST:PORT|ssh:HOST [-- options for the receiving side of ssh]\n\n"
         "With ssh:HOST nothing has to wait: ssh runs 'vitro migrate --receive stdio' there. Disks are on storage that both\n"
         "sides see by the same paths, and are locked by one of them at a time; or --copy-disks. If anything fails before\n"
         "the other side holds the whole machine, it goes on here. Ctrl-C gives up.\n\n"
         "  --copy-disks        copy what is on the disks, too, while the guest runs; the files here stay\n"
         "  --max-downtime MS   how long the machine may stand at the end (default 50)\n"
         "  --stall SECONDS     how long the other side may be silent (default 20)\n"
         "  --ssh-config FILE   what ssh reads instead of its own configuration (ssh -F)\n"
         "  --json              progress and result as JSON, one object a line\n\n"
         "when receiving:\n"
         "  --name NAME, --engine E ...  options of run replace what the machine was; 'detach' is one of them\n"
         "  --copy-disks        take the disks' contents, if the source sends them: into new files of the same names and\n"
         "                      formats, without backing files; --disk FILE names others\n"
         "  --disk-folder DIR   in this folder\n"
         "  --force             also in the place of files that are there\n"
         "  --insecure          accept a connection by TCP, which is neither encrypted nor checked\n"
         "  --trust-disks       do not compare the disks' lengths and times of change with the source's;\n"
         "                      a file of other firmware variables is replaced");
}

static volatile sig_atomic_t migrate_interrupted;

static void migrate_on_signal(int sig) { migrate_interrupted = 1; }

/* The process that the machine runs in does the work: asked to give up, it says when it has. */
static void migrate_catch(void)
{
    struct sigaction sa = { .sa_handler = migrate_on_signal };

    sigaction(SIGINT, &sa, NULL);
    sigaction(SIGTERM, &sa, NULL);
}

static json_int_t migrate_number(const json_t *p, const char *key) { return json_integer_value(json_object_get(p, key)); }

static void migrate_show(bool json, const json_t *p, bool last)
{
    char *text = json ? json_dumps(p, JSON_COMPACT) : NULL;

    if (text)
        puts(text);
    fflush(stdout);
    free(text);
    if (!json && isatty(2))
        fprintf(stderr, "\r\033[Kvitro: %s, round %d: %" PRId64 " MiB left, %" PRId64 " MiB sent, %" PRId64 " MiB/s, CPUs slowed by %d%%%s",
                json_string_value(json_object_get(p, "phase")), (int)migrate_number(p, "round"),
                (int64_t)migrate_number(p, "left") >> 20, (int64_t)migrate_number(p, "sent") >> 20,
                (int64_t)migrate_number(p, "rate") >> 20, (int)migrate_number(p, "throttle"), last ? "\n" : "");
}

/* What was seen of it. */
struct migrate_seen {
    bool failed, done;
    double stood_ms;
    char why[512];
};

static void migrate_look(const char *name, bool json, struct migrate_seen *s)
{
    json_t *p = NULL;
    const char *phase, *why;

    if (client_call_for(name, "GET", "/v1/migrate", NULL, &p, 5, NULL) < 0 || !p)
        return; /* it may just be ending */
    phase = json_string_value(json_object_get(p, "phase"));
    why = json_string_value(json_object_get(p, "why"));
    s->failed = phase && !strcmp(phase, "failed");
    s->done = phase && !strcmp(phase, "done");
    s->stood_ms = (double)migrate_number(p, "stood_ns") / 1e6;
    snprintf(s->why, sizeof(s->why), "%s", why ? why : "");
    if (phase)
        migrate_show(json, p, s->failed);
    json_decref(p);
}

static int migrate_watch(const struct site_info *i, bool json, struct migrate_seen *s, struct err *err)
{
    struct site_info last;

    while (!site_wait(i->name, i->id, WATCH_MS, &last)) {
        if (migrate_interrupted) {
            migrate_interrupted = 0;
            client_call(i->name, "DELETE", "/v1/migrate", NULL, NULL, NULL);
        }
        if (!s->done)
            migrate_look(i->name, json, s);
        if (s->failed)
            return err_set(err, EIO, "machine '%s' was not moved and goes on here: %s", i->name, s->why);
    }
    if (strcmp(last.why, vm_end_name(VM_END_MOVED)))
        return err_set(err, EIO, "machine '%s' ended before it was moved: %s", i->name, last.why);
    if (s->why[0])
        return err_set(err, EIO, "machine '%s' was given up here, but that it runs at the other side was not heard: %s", i->name, s->why);
    return 0;
}

static int migrate_start(const char *name, int fd, bool copy_disks, unsigned downtime, unsigned stall, struct err *err)
{
    const struct client_passed passed = { .count = 1, .fd = { fd } };
    json_t *body = json_pack("{s:i, s:i, s:b}", "downtime_ms", (int)downtime, "stall_s", (int)stall, "copy_disks", copy_disks);
    int r = body ? client_call_with(name, "POST", "/v1/migrate", body, &passed, NULL, err) : err_set(err, ENOMEM, "out of memory");

    json_decref(body);
    return r;
}

static int migrate_number_option(const char *text, const char *what, unsigned most, unsigned *v, struct err *err)
{
    char *end;
    unsigned long n;

    if (!text)
        return 0;
    n = strtoul(text, &end, 10);
    if (*text < '0' || *text > '9' || *end || n < 1 || n > most)
        return err_set(err, EINVAL, "%s '%.40s' is not a number from 1 to %u", what, text, most);
    *v = (unsigned)n;
    return 0;
}

static int migrate_send(const struct verb_args *a, struct where_ssh *ssh, unsigned downtime, unsigned stall,
                        struct migrate_seen *seen, struct err *err)
{
    struct site_info i;
    int fd = -1, r = verb_running(a->name[0], &i, err);

    ssh->name = i.name;
    if (r == 0)
        r = fd = where_connect(a->name[1], ssh, err);
    if (fd < 0)
        return r;
    migrate_catch();
    r = migrate_start(i.name, fd, ssh->copy_disks, downtime, stall, err);
    close(fd);
    if (r == 0)
        r = migrate_watch(&i, a->json, seen, err);
    where_disconnect(ssh);
    return r;
}

/* What is behind "--" is for the receiving side; returns how many words are before it. argv ends with NULL. */
static int migrate_split(int argc, char **argv, struct where_ssh *ssh)
{
    for (int i = 0; i < argc; i++) {
        if (strcmp(argv[i], "--"))
            continue;
        ssh->option = (const char *const *)argv + i + 1;
        return i;
    }
    return argc;
}

static bool migrate_receives(int argc, char **argv)
{
    for (int i = 0; i < argc; i++) {
        if (!strncmp(argv[i], "--receive", 9))
            return true;
    }
    return false;
}

int cmd_migrate(int argc, char **argv)
{
    const char *downtime_text = NULL, *stall_text = NULL;
    struct where_ssh ssh = { .pid = 0 };
    const struct verb_option options[] = { { "--max-downtime", NULL, &downtime_text },
                                           { "--stall", NULL, &stall_text },
                                           { "--ssh-config", NULL, &ssh.config },
                                           { "--copy-disks", &ssh.copy_disks, NULL },
                                           { .name = NULL } };
    unsigned downtime = 50, stall = 20;
    struct err err = { "" };
    struct migrate_seen seen = { .failed = false };
    struct verb_args a;
    int r;

    argc = migrate_split(argc, argv, &ssh);
    if (migrate_receives(argc, argv))
        return cmd_receive(argc, argv);
    if (verb_parse(&a, argc, argv, "migrate", options, 1, 2))
        return CLI_ERROR;
    if (a.names < 2)
        return cli_failf("where to? See 'vitro help migrate'");
    if (ssh.option && strncmp(a.name[1], "ssh:", 4))
        return cli_failf("options behind '--' are for the vitro that ssh starts; who receives at '%.80s' has its own", a.name[1]);
    r = migrate_number_option(downtime_text, "--max-downtime", 60000, &downtime, &err);
    if (r == 0)
        r = migrate_number_option(stall_text, "--stall", 3600, &stall, &err);
    if (r == 0)
        r = migrate_send(&a, &ssh, downtime, stall, &seen, &err);
    if (r < 0)
        return cli_fail(a.json, &err);
    if (a.json)
        printf("{\"name\":\"%s\",\"done\":\"migrate\",\"stood_ms\":%.1f}\n", a.name[0], seen.stood_ms);
    else
        fprintf(stderr, "%svitro: machine '%s' runs elsewhere now; it stood for %.1f ms\n", isatty(2) ? "\n" : "", a.name[0], seen.stood_ms);
    return CLI_OK;
}
