/* vitro stats: what machines use, once, live, or for Prometheus. Thread: the main thread. */
#include <jansson.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api/client.h"
#include "base/clock.h"
#include "base/err.h"
#include "cli/cli.h"
#include "cli/verb.h"

#define STATS_SECONDS 3

/* The last numbers of a machine, for rates. */
struct stats_before {
    char id[17];
    double at, cpu;
};

struct stats {
    struct verb_args args; /* no names: all that run */
    struct stats_before before[VERB_NAMES];
    unsigned known;
};

void cmd_stats_help(void)
{
    puts("CPU% is host CPU time over the last second (over the whole run, when it is printed once). MEM is what the guest is\n"
         "asked to live with, USED what the host gives the process, BACK what was given back to the host so far.\n"
         "On a terminal it is live, as top is; q or Ctrl-C ends it.\n\n"
         "  --once          print once\n"
         "  --prometheus    the counters of all named machines in Prometheus' text form (each machine also serves them at\n"
         "                  GET /metrics on its control socket)\n"
         "  --json          one array of objects with all counters");
}

/* The machines that are meant and run; an array to free(). */
static int stats_machines(const struct stats *s, struct site_info **list, size_t *n, struct err *err)
{
    size_t kept = 0;
    int r;

    if (!s->args.names) {
        r = site_list(list, n, err);
        for (size_t i = 0; r == 0 && i < *n; i++) {
            if ((*list)[i].running)
                (*list)[kept++] = (*list)[i];
        }
        *n = kept;
        return r;
    }
    *n = s->args.names;
    *list = calloc(*n, sizeof(**list));
    r = *list ? 0 : err_set(err, 12, "out of memory");
    for (size_t i = 0; r == 0 && i < *n; i++)
        r = verb_running(s->args.name[i], &(*list)[i], err);
    if (r < 0)
        free(*list);
    return r;
}

static json_int_t stats_int(const json_t *root, const char *object, const char *key)
{
    return json_integer_value(json_object_get(object ? json_object_get(root, object) : root, key));
}

/* The sum of a counter over a list of devices. */
static json_int_t stats_sum(const json_t *root, const char *list, const char *key)
{
    const json_t *l = json_object_get(root, list);
    json_int_t sum = 0;

    for (size_t i = 0; i < json_array_size(l); i++)
        sum += json_integer_value(json_object_get(json_array_get(l, i), key));
    return sum;
}

/* Host CPU per cent since the last look, or over the whole life. */
static double stats_cpu(struct stats *s, const struct site_info *i, const json_t *m)
{
    double cpu = json_number_value(json_object_get(m, "cpu_seconds")), now = clock_host_seconds(CLOCK_MONOTONIC), percent;
    struct stats_before *b = NULL;

    for (unsigned n = 0; n < s->known; n++) {
        if (!strcmp(s->before[n].id, i->id))
            b = &s->before[n];
    }
    percent = b ? 100 * (cpu - b->cpu) / (now - b->at) : 100 * cpu / (clock_host_seconds(CLOCK_REALTIME) - i->started + 1);
    if (!b && s->known < VERB_NAMES)
        b = &s->before[s->known++];
    if (b) {
        memcpy(b->id, i->id, sizeof(b->id));
        b->at = now;
        b->cpu = cpu;
    }
    return percent;
}

static void stats_row(struct stats *s, const struct site_info *i, const json_t *m)
{
    printf("%-20s %-8s %6.1f %7lld %7lld %7lld %9.1f %9.1f %9.1f %9.1f\n", i->name,
           json_string_value(json_object_get(m, "state")), stats_cpu(s, i, m),
           (long long)(stats_int(m, "memory", "target") >> 20), (long long)(stats_int(m, "memory", "resident") >> 20),
           (long long)(stats_int(m, "memory", "given_back") >> 20), (double)stats_sum(m, "disks", "read_bytes") / 1e6,
           (double)stats_sum(m, "disks", "written_bytes") / 1e6, (double)stats_sum(m, "nets", "received_bytes") / 1e6,
           (double)stats_sum(m, "nets", "sent_bytes") / 1e6);
}

/* One table, or (rows) one array. A machine that ends meanwhile is left out. */
static int stats_round(struct stats *s, json_t *rows, bool live, struct err *err)
{
    struct site_info *list;
    size_t n;
    int r = stats_machines(s, &list, &n, err);

    if (r < 0)
        return r;
    if (live)
        fputs("\033[H\033[2J", stdout);
    if (!rows)
        printf("%-20s %-8s %6s %7s %7s %7s %9s %9s %9s %9s\n", "NAME", "STATE", "CPU%", "MEM", "USED", "BACK", "READ(MB)",
               "WRITE(MB)", "RX(MB)", "TX(MB)");
    for (size_t i = 0; i < n; i++) {
        json_t *m = NULL;

        if (client_call_for(list[i].name, "GET", "/v1/stats", NULL, &m, STATS_SECONDS, NULL) < 0 || !m)
            continue;
        if (rows)
            json_array_append(rows, m);
        else
            stats_row(s, &list[i], m);
        json_decref(m);
    }
    free(list);
    fflush(stdout);
    return 0;
}

static int stats_json(struct stats *s)
{
    struct err err = { "" };
    json_t *rows = json_array();
    char *text;
    int status = CLI_OK;

    if (!rows)
        return cli_failf("out of memory");
    if (stats_round(s, rows, false, &err) < 0) {
        status = cli_fail(true, &err);
    } else if ((text = json_dumps(rows, JSON_INDENT(2) | JSON_PRESERVE_ORDER))) {
        puts(text);
        free(text);
    }
    json_decref(rows);
    return status;
}

/* Families must not be split: of several machines only the first one's comments are kept, and its lines come first. */
static void stats_family(char **text, size_t n, const char *family, size_t len)
{
    for (size_t i = 0; i < n; i++) {
        for (char *line = text[i]; line && *line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL) {
            if (!strncmp(line, family, len) && line[len] == '{')
                printf("%.*s\n", (int)strcspn(line, "\n"), line);
        }
    }
}

static void stats_merge(char **text, size_t n, size_t longest)
{
    for (char *line = text[longest]; line && *line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL) {
        if (*line == '#')
            printf("%.*s\n", (int)strcspn(line, "\n"), line);
        if (!strncmp(line, "# TYPE ", 7))
            stats_family(text, n, line + 7, strcspn(line + 7, " "));
    }
}

static int stats_prometheus(struct stats *s)
{
    struct err err = { "" };
    struct site_info *list;
    size_t n, got = 0, longest = 0;
    char **text;

    if (stats_machines(s, &list, &n, &err) < 0)
        return cli_fail(s->args.json, &err);
    text = calloc(n + 1, sizeof(*text));
    for (size_t i = 0; text && i < n; i++) {
        if (client_text(list[i].name, "/metrics", &text[got], NULL, NULL) < 0 || !text[got])
            continue;
        if (strlen(text[got]) > strlen(text[longest])) /* has all families that any has */
            longest = got;
        got++;
    }
    if (got)
        stats_merge(text, got, longest);
    for (size_t i = 0; i < got; i++)
        free(text[i]);
    free(text);
    free(list);
    return CLI_OK;
}

/* Until q, the end of the input, or a signal. */
static int stats_live(struct stats *s)
{
    struct err err = { "" };
    struct pollfd p = { .fd = STDIN_FILENO, .events = POLLIN };
    char key = 0;

    while (key != 'q') {
        if (stats_round(s, NULL, true, &err) < 0)
            return cli_fail(s->args.json, &err);
        if (poll(&p, 1, 1000) > 0 && read(STDIN_FILENO, &key, 1) <= 0)
            break;
    }
    return CLI_OK;
}

int cmd_stats(int argc, char **argv)
{
    bool once = false, prometheus = false;
    const struct verb_option options[] = { { "--once", &once, NULL },
                                           { "--prometheus", &prometheus, NULL },
                                           { .name = NULL } };
    struct stats s = { .known = 0 };
    struct err err = { "" };

    if (verb_parse(&s.args, argc, argv, "stats", options, 0, VERB_NAMES))
        return CLI_ERROR;
    if (prometheus)
        return stats_prometheus(&s);
    if (s.args.json)
        return stats_json(&s);
    if (!once && isatty(STDOUT_FILENO))
        return stats_live(&s);
    return stats_round(&s, NULL, false, &err) < 0 ? cli_fail(false, &err) : CLI_OK;
}
