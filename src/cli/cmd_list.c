/* vitro list (also ps) and inspect: which machines there are, and what one is. Thread: the main thread. */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api/client.h"
#include "base/err.h"
#include "cli/cli.h"
#include "cli/define.h"
#include "cli/verb.h"
#include "machine/config.h"

#define LIST_SECONDS 3 /* a monitor that does not answer for so long is called stuck, */
#define LIST_TRIES   100 /* or takes no connection in this many tries, 20 ms apart */

void cmd_list_help(void)
{
    puts("States: running, paused, stuck (its process does not answer), stopped (it has ended; 'vitro logs' shows what it\n"
         "said, 'vitro rm' forgets it), created (defined, and not started). TIME(S) is the CPU time that it took from the\n"
         "host.\n\n"
         "  --json    one array of objects");
}

/* What a definition says about a machine that does not run. */
static void list_defined(json_t *row, const char *name)
{
    struct machine_config cfg;

    if (config_init(&cfg) < 0)
        return;
    if (define_load(&cfg, name, NULL) == 0) {
        json_object_set_new(row, "vcpus", json_integer(cfg.cpus));
        json_object_set_new(row, "memory", json_integer((json_int_t)cfg.memory));
        json_object_set_new(row, "engine", json_string(cfg.engine));
    }
    config_fini(&cfg);
}

/* What the machine says of itself; a new reference. NULL: it has ended, which i says then, or is stuck. Who does not take a connection may be starting, or
 * ending: a process that was killed keeps its lock until the host has taken its memory back. */
static json_t *list_ask(struct site_info *i)
{
    json_t *row = NULL;
    int r = -EAGAIN;

    for (unsigned n = 0; i->running && r < 0 && r != -ETIMEDOUT && n < LIST_TRIES; n++) {
        char name[sizeof(i->name)];

        r = client_call_for(i->name, "GET", "/v1/machine", NULL, &row, LIST_SECONDS, NULL);
        if (r == 0)
            break;
        usleep(20000);
        memcpy(name, i->name, sizeof(name));
        if (site_look(name, i, NULL) < 0)
            break;
    }
    return row;
}

/* A machine as an object; a new reference, or NULL. */
static json_t *list_row(struct site_info *i, bool defined)
{
    json_t *row = list_ask(i);

    if (row) {
        json_object_set_new(row, "defined", json_boolean(defined));
        return row;
    }
    if (!i->running && !i->known && !defined)
        return NULL; /* it was there, and is gone */
    row = json_pack("{s:s, s:s, s:s, s:b}", "name", i->name, "id", i->id, "state",
                    i->running ? "stuck" : i->known ? "stopped" : "created", "defined", defined);
    if (row && i->running)
        json_object_set_new(row, "pid", json_integer(i->pid));
    if (row && i->known && !i->running) {
        json_object_set_new(row, "status", json_integer(i->status));
        json_object_set_new(row, "why", json_string(i->why));
        json_object_set_new(row, "started", json_real(i->started));
        json_object_set_new(row, "ended", json_real(i->ended));
    }
    if (row && defined && !i->running)
        list_defined(row, i->name);
    return row;
}

static bool list_has(const json_t *rows, const char *name)
{
    for (size_t n = 0; n < json_array_size(rows); n++) {
        if (!strcmp(json_string_value(json_object_get(json_array_get(rows, n), "name")), name))
            return true;
    }
    return false;
}

static int list_compare(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

/* Those with a place, then those that are only defined. */
static int list_rows(json_t *rows, struct err *err)
{
    struct site_info *places;
    char **defined;
    size_t n, m;
    int r = site_list(&places, &n, err);

    if (r < 0)
        return r;
    for (size_t k = 0; k < n; k++)
        json_array_append_new(rows, list_row(&places[k], define_exists(places[k].name)));
    free(places);
    if (define_list(&defined, &m, NULL) < 0)
        return 0; /* no home: no definitions */
    if (m)
        qsort(defined, m, sizeof(*defined), list_compare);
    for (size_t k = 0; k < m; k++) {
        struct site_info i = { .name = "" };

        snprintf(i.name, sizeof(i.name), "%s", defined[k]);
        if (!list_has(rows, defined[k]))
            json_array_append_new(rows, list_row(&i, true));
        free(defined[k]);
    }
    free(defined);
    return 0;
}

static const char *list_text(const json_t *row, const char *key)
{
    const char *text = json_string_value(json_object_get(row, key));
    return text && *text ? text : "-";
}

/* A number as text, "-" if it is not known. */
static void list_number(char *out, size_t size, const json_t *v, unsigned shift)
{
    if (!v)
        snprintf(out, size, "-");
    else if (json_is_integer(v))
        snprintf(out, size, "%lld", (long long)(json_integer_value(v) >> shift));
    else
        snprintf(out, size, "%.1f", json_real_value(v));
}

static void list_table(const json_t *rows)
{
    char cpus[24], memory[24], seconds[32];

    printf("%-20s %-12s %-8s %5s %8s %10s %s\n", "NAME", "ID", "STATE", "VCPUS", "MEM(MIB)", "TIME(S)", "ENGINE");
    for (size_t n = 0; n < json_array_size(rows); n++) {
        const json_t *row = json_array_get(rows, n);

        list_number(cpus, sizeof(cpus), json_object_get(row, "vcpus"), 0);
        list_number(memory, sizeof(memory), json_object_get(row, "memory"), 20);
        list_number(seconds, sizeof(seconds), json_object_get(row, "cpu_seconds"), 0);
        printf("%-20s %-12s %-8s %5s %8s %10s %s\n", list_text(row, "name"), list_text(row, "id"),
               list_text(row, "state"), cpus, memory, seconds, list_text(row, "engine"));
    }
}

static int list_print(const json_t *root)
{
    char *text = json_dumps(root, JSON_INDENT(2) | JSON_PRESERVE_ORDER);

    if (!text)
        return cli_failf("out of memory");
    puts(text);
    free(text);
    return CLI_OK;
}

int cmd_list(int argc, char **argv)
{
    struct err err = { "" };
    json_t *rows;
    int status = CLI_OK;
    bool json;

    if (cli_only_json(argc, argv, "list", &json))
        return CLI_ERROR;
    rows = json_array();
    if (!rows)
        return cli_failf("out of memory");
    if (list_rows(rows, &err) < 0)
        status = cli_fail(json, &err);
    else if (json)
        status = list_print(rows);
    else
        list_table(rows);
    json_decref(rows);
    return status;
}

/* -- inspect -- */

void cmd_inspect_help(void)
{
    puts("Prints all that is known about the machine as one JSON object: what 'vitro list --json' says, and under \"config\"\n"
         "the options that it was made with.");
}

static json_t *inspect_config(const char *name)
{
    struct machine_config cfg;
    json_t *config = NULL;

    if (config_init(&cfg) < 0)
        return NULL;
    if (define_load(&cfg, name, NULL) == 0)
        config = config_to_json(&cfg);
    config_fini(&cfg);
    return config;
}

int cmd_inspect(int argc, char **argv)
{
    struct err err = { "" };
    struct site_info i;
    struct verb_args a;
    json_t *row, *config;
    int status;

    if (verb_parse(&a, argc, argv, "inspect", NULL, 1, 1))
        return CLI_ERROR;
    if (site_look(a.name[0], &i, &err) < 0)
        return cli_fail(a.json, &err);
    if (!i.known && !define_exists(a.name[0])) {
        verb_running(a.name[0], &i, &err);
        return cli_fail(a.json, &err);
    }
    row = list_row(&i, define_exists(a.name[0]));
    config = row && !json_object_get(row, "config") ? inspect_config(a.name[0]) : NULL;
    if (config)
        json_object_set_new(row, "config", config);
    status = row ? list_print(row) : cli_failf("machine '%s' has just ended", a.name[0]);
    json_decref(row);
    return status;
}
