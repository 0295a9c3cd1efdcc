/* vitro pause, resume, reboot, stop, kill, wait, mem-set: what changes a machine that runs. Thread: the main thread. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/client.h"
#include "base/err.h"
#include "cli/cli.h"
#include "cli/verb.h"
#include "machine/config.h"

#define CONTROL_GRACE      30   /* seconds that a guest has to power off */
#define CONTROL_KILL_MS    3000 /* that a monitor has to end by itself */
#define CONTROL_PRESS_MS   1000 /* a guest that does not listen yet is asked again */

/* Say what was done, or what was wrong. Returns the exit status. */
static int control_report(bool json, const char *name, const char *what, int r, const struct err *err)
{
    if (r < 0)
        return cli_fail(json, err);
    if (json)
        printf("{\"name\":\"%s\",\"done\":\"%s\"}\n", name, what);
    return CLI_OK;
}

/* One call for each machine that was named. */
static int control_each(int argc, char **argv, const char *verb, const char *path)
{
    struct verb_args a;
    int status = CLI_OK;

    if (verb_parse(&a, argc, argv, verb, NULL, 1, VERB_NAMES))
        return CLI_ERROR;
    for (unsigned n = 0; n < a.names; n++) {
        struct err err = { "" };
        struct site_info i;
        int r = verb_running(a.name[n], &i, &err);

        if (r == 0)
            r = client_call(a.name[n], "POST", path, NULL, NULL, &err);
        if (control_report(a.json, a.name[n], verb, r, &err))
            status = CLI_ERROR;
    }
    return status;
}

int cmd_pause(int argc, char **argv) { return control_each(argc, argv, "pause", "/v1/pause"); }

int cmd_resume(int argc, char **argv) { return control_each(argc, argv, "resume", "/v1/resume"); }

int cmd_reboot(int argc, char **argv) { return control_each(argc, argv, "reboot", "/v1/reset"); }

/* -- ending -- */

/* By its own will, else by the kernel's. */
int verb_kill(const char *name, struct err *err)
{
    struct site_info i, last;
    int r = verb_running(name, &i, err);

    if (r < 0)
        return r;
    if (client_call_for(name, "POST", "/v1/kill", NULL, NULL, 2, NULL) == 0 &&
        site_wait(name, i.id, CONTROL_KILL_MS, &last))
        return 0;
    if (i.pid > 1)
        kill(i.pid, SIGKILL);
    if (!site_wait(name, i.id, CONTROL_KILL_MS, &last))
        return err_set(err, ETIMEDOUT, "machine '%s' (process %d) cannot be killed", name, (int)i.pid);
    site_look(name, &last, NULL); /* tidies up */
    return 0;
}

/* Press the power button; a paused machine would not hear it. */
static void control_press(const char *name, bool *heard)
{
    json_t *answer = NULL, *machine = NULL;
    const char *state;

    *heard = client_call_for(name, "POST", "/v1/power-button", NULL, &answer, 5, NULL) == 0 &&
             json_is_true(json_object_get(answer, "heard"));
    if (!*heard && client_call_for(name, "GET", "/v1/machine", NULL, &machine, 5, NULL) == 0) {
        state = json_string_value(json_object_get(machine, "state"));
        if (state && !strcmp(state, "paused"))
            client_call(name, "POST", "/v1/resume", NULL, NULL, NULL);
    }
    json_decref(machine);
    json_decref(answer);
}

/* True: the guest powered off in time. */
static bool control_power_off(const struct site_info *i, unsigned grace)
{
    struct site_info last;
    bool heard = false;

    for (unsigned left = grace * 1000; left;) {
        unsigned step = left < CONTROL_PRESS_MS ? left : CONTROL_PRESS_MS;

        if (!heard)
            control_press(i->name, &heard);
        if (site_wait(i->name, i->id, (int)step, &last))
            return true;
        left -= step;
    }
    return false;
}

static int control_stop(const char *name, unsigned grace, bool json)
{
    struct err err = { "" };
    struct site_info i;
    const char *how = "stop";
    int r = verb_running(name, &i, &err);

    if (r == 0 && !control_power_off(&i, grace)) {
        if (!json)
            fprintf(stderr, "vitro: machine '%s' has not powered off in %u seconds: it is killed\n", name, grace);
        how = "kill";
        r = verb_kill(name, &err);
        if (r == -ESRCH || r == -ENOENT)
            r = 0; /* it ended meanwhile */
    }
    return control_report(json, name, how, r, &err);
}

void cmd_stop_help(void)
{
    puts("Presses the power button, so that the guest shuts down by itself; a machine that has not powered off\n"
         "when the time is over is killed.\n\n"
         "  --time SECONDS    how long to wait (default 30)\n"
         "  --json            say what was done as JSON, one object a machine");
}

int cmd_stop(int argc, char **argv)
{
    const char *time = NULL;
    const struct verb_option options[] = { { "--time", NULL, &time }, { "-t", NULL, &time }, { .name = NULL } };
    unsigned grace = CONTROL_GRACE;
    struct err err = { "" };
    struct verb_args a;
    int status = CLI_OK;

    if (verb_parse(&a, argc, argv, "stop", options, 1, VERB_NAMES))
        return CLI_ERROR;
    if (time && verb_seconds(time, &grace, &err) < 0)
        return cli_fail(a.json, &err);
    for (unsigned n = 0; n < a.names; n++) {
        if (control_stop(a.name[n], grace, a.json))
            status = CLI_ERROR;
    }
    return status;
}

int cmd_kill(int argc, char **argv)
{
    struct verb_args a;
    int status = CLI_OK;

    if (verb_parse(&a, argc, argv, "kill", NULL, 1, VERB_NAMES))
        return CLI_ERROR;
    for (unsigned n = 0; n < a.names; n++) {
        struct err err = { "" };

        if (control_report(a.json, a.name[n], "kill", verb_kill(a.name[n], &err), &err))
            status = CLI_ERROR;
    }
    return status;
}

/* -- waiting -- */

void cmd_wait_help(void)
{
    puts("Waits until the machine has ended, and exits with its status. One that has ended already is not waited for.\n\n"
         "  --time SECONDS    wait no longer, and exit with status 124\n"
         "  --json            say how it ended as JSON");
}

static int control_ended(const struct verb_args *a, const struct site_info *i)
{
    if (a->json)
        printf("{\"name\":\"%s\",\"id\":\"%s\",\"status\":%d,\"why\":\"%s\"}\n", a->name[0], i->id, i->status, i->why);
    else
        fprintf(stderr, "vitro: machine '%s': %s\n", a->name[0], i->why);
    return i->status;
}

int cmd_wait(int argc, char **argv)
{
    const char *time = NULL;
    const struct verb_option options[] = { { "--time", NULL, &time }, { "-t", NULL, &time }, { .name = NULL } };
    struct err err = { "" };
    struct site_info i;
    struct verb_args a;
    unsigned seconds = 0;

    if (verb_parse(&a, argc, argv, "wait", options, 1, 1))
        return CLI_ERROR;
    if ((time && verb_seconds(time, &seconds, &err) < 0) || site_look(a.name[0], &i, &err) < 0)
        return cli_fail(a.json, &err);
    if (!i.known) {
        verb_running(a.name[0], &i, &err);
        return cli_fail(a.json, &err);
    }
    if (i.running && !site_wait(a.name[0], i.id, time ? (int)seconds * 1000 : -1, &i))
        return 124;
    return control_ended(&a, &i);
}

/* -- memory -- */

void cmd_mem_set_help(void)
{
    puts("Asks the guest to live with so much memory, at most what the machine was made with; the rest goes into the\n"
         "balloon and back to the host, if and when the guest can spare it ('vitro stats' shows how far it is).\n\n"
         "  --json    say what was asked as JSON");
}

int cmd_mem_set(int argc, char **argv)
{
    struct err err = { "" };
    struct site_info i;
    struct verb_args a;
    uint64_t bytes = 0;
    json_t *body;
    int r;

    if (verb_parse(&a, argc, argv, "mem-set", NULL, 2, 2))
        return CLI_ERROR;
    if (config_parse_size(a.name[1], &bytes) < 0 || bytes > INT64_MAX)
        return cli_failf("memory '%.80s' is not a size: write it like 512M or 4G", a.name[1]);
    r = verb_running(a.name[0], &i, &err);
    body = r == 0 ? json_pack("{s:I}", "bytes", (json_int_t)bytes) : NULL;
    if (r == 0)
        r = client_call(a.name[0], "PUT", "/v1/memory", body, NULL, &err);
    json_decref(body);
    return control_report(a.json, a.name[0], "mem-set", r, &err);
}
