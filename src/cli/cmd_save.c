/* vitro save, restore: a machine in a file. Thread: the main thread, which becomes a machine's parent in restore.
 *
 * The machine is inside its sandbox and opens no files: the file is made here, without a name, and handed over; it gets its name when it is
 * complete. So whoever is killed in between, there is the old file or the new one. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api/client.h"
#include "base/clock.h"
#include "base/err.h"
#include "block/image.h"
#include "cli/cli.h"
#include "cli/identity.h"
#include "cli/launch.h"
#include "cli/verb.h"
#include "save/save.h"

#define SAVE_LOOK_MS 50

void cmd_save_help(void)
{
    puts("Writes a running machine into a file, from which 'vitro restore FILE' makes it again: memory, CPUs, devices. It stands still for\n"
         "milliseconds; its memory is written while it goes on. A file of that name is replaced once the new one is complete.\n"
         "Disks are not in the file: they must be as they were when the machine is restored (use --stop).\n\n"
         "  --stop     the machine does not go on: it ends when the file is complete\n"
         "  --plain    memory as it is, so that a restored machine runs at once: larger\n"
         "  --json     say what was done as JSON");
}

struct save_args {
    struct verb_save s;
    bool plain, stop, json;
    char token[40]; /* tells this saving from one that another client asks for */
};

/* held: --stop: the machine stands for as long as this connection is there. */
static int save_ask(const struct save_args *a, int fd, int *held, struct err *err)
{
    unsigned bases = a->s.base ? save_stands_on(a->s.base) + 1 : 0, overlays = (unsigned)json_array_size(a->s.overlays);
    json_t *body = json_pack("{s:s, s:b, s:b, s:i, s:s*, s:O*}", "token", a->token, "plain", a->plain, "hold", a->stop, "bases", (int)bases,
                             "base", a->s.base_name, "overlays", a->s.overlays);
    struct client_passed passed = { .count = 1, .fd = { fd } };
    int r;

    if (!body)
        return err_set(err, ENOMEM, "out of memory");
    for (unsigned n = 0; n < bases; n++)
        passed.fd[passed.count++] = save_borrow_fd(a->s.base, n);
    for (unsigned n = 0; n < overlays; n++)
        passed.fd[passed.count++] = a->s.overlay[n];
    r = client_call_with(a->s.name, "POST", "/v1/save", body, &passed, a->stop ? held : NULL, err);
    json_decref(body);
    return r;
}

/* What an earlier client has asked for, who may have been killed, comes to its end first. */
static int save_idle(const struct save_args *a, struct err *err)
{
    bool writing = true;
    int r = 0;

    while (r == 0 && writing) {
        json_t *s = NULL;
        const char *state;

        r = client_call(a->s.name, "GET", "/v1/save", NULL, &s, err);
        state = json_string_value(json_object_get(s, "state"));
        writing = state && !strcmp(state, "writing");
        json_decref(s);
        if (r == 0 && writing)
            usleep(SAVE_LOOK_MS * 1000);
    }
    return r;
}

/* Until the file is complete, or will never be. */
static int save_wait(struct save_args *a, struct err *err)
{
    for (;;) {
        json_t *s = NULL;
        int r = client_call(a->s.name, "GET", "/v1/save", NULL, &s, err);
        const char *state = json_string_value(json_object_get(s, "state")), *why = json_string_value(json_object_get(s, "why"));
        const char *token = json_string_value(json_object_get(s, "token"));
        bool writing = state && !strcmp(state, "writing");

        if (r == 0 && (!token || strcmp(token, a->token)))
            r = err_set(err, EBUSY, "machine '%s' was saved by somebody else meanwhile: try again", a->s.name);
        a->s.stood_ns = (uint64_t)json_integer_value(json_object_get(s, "stood_ns"));
        if (r == 0 && !writing && (!state || strcmp(state, "done")))
            r = err_set(err, EIO, "machine '%s' was not saved: %s", a->s.name, why ? why : "it does not say why");
        json_decref(s);
        if (r < 0 || !writing)
            return r;
        usleep(SAVE_LOOK_MS * 1000);
    }
}

/* A draft with the whole machine in it, or none. */
static int save_draft(struct save_args *a, struct image_draft *draft, int *held, struct err *err)
{
    struct site_info i;
    int r = verb_running(a->s.name, &i, err);

    snprintf(a->token, sizeof(a->token), "%d-%" PRIx64, (int)getpid(), clock_host_ns(CLOCK_MONOTONIC));
    if (r == 0)
        r = save_idle(a, err);
    if (r == 0)
        r = image_draft_begin(draft, a->s.path, true, err);
    if (r < 0)
        return r;
    r = save_ask(a, draft->fd, held, err);
    if (r == 0)
        r = save_wait(a, err);
    if (r < 0)
        image_draft_abort(draft);
    return r;
}

/* With --stop the machine stands from when it was saved until it is ended; if we are killed, or fail, before that, it goes on. */
static int save_one(struct save_args *a, struct err *err)
{
    struct image_draft draft;
    int held = -1, r = save_draft(a, &draft, &held, err);

    if (r == 0)
        r = image_draft_commit(&draft, err);
    if (r == 0 && a->stop)
        r = verb_kill(a->s.name, err);
    if (held >= 0)
        close(held);
    return r;
}

int verb_save(struct verb_save *s, struct image_draft *draft, struct err *err)
{
    struct save_args a = { .s = *s, .plain = true };
    int r = save_draft(&a, draft, NULL, err);

    s->stood_ns = a.s.stood_ns;
    return r;
}

int cmd_save(int argc, char **argv)
{
    struct save_args s = { .stop = false };
    const struct verb_option options[] = { { "--plain", &s.plain, NULL }, { "--stop", &s.stop, NULL }, { .name = NULL } };
    struct err err = { "" };
    struct verb_args a;

    if (verb_parse(&a, argc, argv, "save", options, 1, 2))
        return CLI_ERROR;
    if (a.names < 2)
        return cli_failf("into which file? vitro save NAME FILE");
    s.s.name = a.name[0], s.s.path = a.name[1], s.json = a.json;
    if (save_one(&s, &err) < 0)
        return cli_fail(a.json, &err);
    if (a.json)
        printf("{\"name\":\"%s\",\"done\":\"save\",\"stood_ms\":%.3f}\n", s.s.name, (double)s.s.stood_ns / 1e6);
    return CLI_OK;
}

/* -- restore -- */

void cmd_restore_help(void)
{
    puts("Makes a saved machine again, in the background, under the name that it had. Options of 'vitro run' replace what the machine was,\n"
         "as far as the guest does not notice (engine, serial, port forwards ...).\n\n"
         "  --attach          in the foreground, its console on stdin and stdout\n"
         "  --clone           the machine that was saved may go on as well: this one gets a new generation ID and network addresses\n"
         "  --trust-disks     do not compare the disks' lengths and times of change with what they were\n"
         "  --stand           guest time goes on where it stood\n"
         "  --whole           read and check all of the memory first\n"
         "  --name NAME, --engine E ...  options of 'vitro run'");
}

/* The words of `vitro run` that do it, into words[argc + 4]: those for --restore become its suboptions. */
static int restore_words(const char **words, char *what, size_t size, bool *attach, int argc, char **argv)
{
    static const char *const how[] = { "--clone", "--trust-disks", "--stand", "--whole", NULL };
    int n = 0;

    snprintf(what, size, "%s", argv[0]);
    words[n++] = "--restore";
    words[n++] = what;
    for (int i = 1; i < argc; i++) {
        unsigned k = 0;

        while (how[k] && strcmp(how[k], argv[i]))
            k++;
        if (how[k])
            snprintf(what + strlen(what), size - strlen(what), ",%s", how[k] + 2);
        else if (!strcmp(argv[i], "--attach"))
            *attach = true;
        else
            words[n++] = argv[i];
    }
    return n;
}

int cmd_restore(int argc, char **argv)
{
    struct run_options o = { .json = false };
    const char **words = calloc((size_t)argc + 4, sizeof(*words));
    char what[4400];
    bool attach = false;
    struct err err = { "" };
    int n, status = CLI_OK;

    if (argc < 1 || *argv[0] == '-' || strchr(argv[0], ',') || strlen(argv[0]) > 4096) {
        free(words);
        return cli_failf("which saved machine? The file comes first: vitro restore FILE [options]");
    }
    if (!words || config_init(&o.cfg) < 0) {
        free(words);
        return cli_failf("out of memory");
    }
    n = restore_words(words, what, sizeof(what), &attach, argc, argv);
    if (run_parse(&o, n, (char **)(uintptr_t)words, &err) < 0) {
        status = cli_fail(o.json, &err);
    } else {
        o.cfg.detach = !attach;
        status = launch(&o);
        if (status == CLI_OK && o.restore.how.clone && o.cfg.detach)
            identity_settle(o.cfg.name, true);
    }
    config_fini(&o.cfg);
    save_close(o.restore.file);
    free(words);
    return status;
}
