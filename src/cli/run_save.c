/* vitro run --restore and --save (run_save.h). Thread: the machine's. */
#include "cli/run_save.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/log.h"
#include "machine/config.h"

/* ---- restoring ---- */

static int run_restore_word(struct save_how *how, const char *word, size_t len, struct err *err)
{
    static const struct {
        const char *name;
        size_t member;
    } words[] = {
        { "trust-disks", offsetof(struct save_how, trust_disks) },
        { "stand", offsetof(struct save_how, stand) },
        { "clone", offsetof(struct save_how, clone) },
        { "rewind", offsetof(struct save_how, rewind) },
        { "whole", offsetof(struct save_how, whole) },
    };

    for (size_t i = 0; i < ARRAY_LEN(words); i++) {
        if (strlen(words[i].name) == len && !strncmp(words[i].name, word, len)) {
            *(bool *)((char *)how + words[i].member) = true;
            return 0;
        }
    }
    return err_set(err, EINVAL, "restore: '%.*s' is unknown: use trust-disks, stand, clone, rewind or whole",
                   (int)(len > 64 ? 64 : len), word);
}

/* FILE[,WORD ...] */
static int run_restore_parse(struct run_restore *r, const char *value, struct err *err)
{
    char *path = strndup(value, strcspn(value, ","));
    const char *at = value + strcspn(value, ",");
    int e = path ? 0 : -ENOMEM;

    while (e == 0 && *at == ',') {
        size_t len = strcspn(++at, ",");

        e = run_restore_word(&r->how, at, len, err);
        at += len;
    }
    if (e == 0)
        e = save_open(&r->file, path, err);
    free(path);
    return e;
}

void run_restore_without(const char *without[RUN_WORDS + 1], int argc, char **argv)
{
    unsigned n = 0;

    for (int i = 0; i < argc; i++) {
        char name[32] = "";
        const struct config_key *k;

        if (!strncmp(argv[i], "--", 2))
            snprintf(name, sizeof(name), "%.*s", (int)strcspn(argv[i] + 2, "="), argv[i] + 2);
        k = config_find(name);
        if (k && k->repeatable && n < RUN_WORDS)
            without[n++] = k->key;
    }
    without[n] = NULL;
}

int run_restore_open(struct run_restore *r, struct machine_config *cfg, int argc, char **argv, struct err *err)
{
    const char *without[RUN_WORDS + 1], *value = NULL;
    int e;

    for (int i = 0; i < argc; i++) {
        if (!strcmp(argv[i], "--restore") && i + 1 < argc)
            value = argv[i + 1];
        else if (!strncmp(argv[i], "--restore=", 10))
            value = argv[i] + 10;
    }
    if (!value)
        return 0;
    run_restore_without(without, argc, argv);
    e = run_restore_parse(r, value, err);
    return e < 0 ? e : save_config(r->file, cfg, without, err);
}

int run_restore_create(struct run_restore *r, struct vm **out, struct machine_config *cfg,
                       const struct engine_ops *ops, struct err *err)
{
    int e;

    if (!r->file)
        return vm_create(out, cfg, ops, err);
    e = save_maps(r->file, &r->how) ? vm_create_blank(out, cfg, ops, err) : vm_create_filled(out, cfg, ops, err);
    if (e == 0)
        e = save_restore(r->file, *out, &r->how, err);
    if (e < 0) {
        vm_destroy(*out);
        *out = NULL;
    }
    save_close(r->file);
    r->file = NULL;
    return e;
}

/* ---- saving ---- */

int run_save_option(struct run_save *s, const char *value, struct err *err)
{
    const char *at = value + strcspn(value, ",");

    free(s->path);
    s->path = strndup(value, (size_t)(at - value));
    if (!s->path || !*s->path)
        return err_set(err, EINVAL, "save '%s' names no file", value);
    while (*at == ',') {
        size_t len = strcspn(++at, ",");

        if (len == 5 && !strncmp(at, "plain", len))
            s->plain = true;
        else if (len == 4 && !strncmp(at, "stop", len))
            s->stop = true;
        else
            return err_set(err, EINVAL, "save: '%.*s' is unknown: use plain or stop", (int)(len > 64 ? 64 : len), at);
        at += len;
    }
    return 0;
}

static void run_save_told(struct save_job *job, int result, const char *why)
{
    struct run_save *s = job->opaque;
    struct err err = { "" };

    s->busy = false;
    if (result == 0 && (result = maker_commit(&s->maker, 0, &err)) < 0)
        why = err.text;
    if (result < 0)
        log_msg(LOG_ERROR, "the machine was not saved: %s", why);
    else
        fprintf(stderr, "vitro: saved to %s\n", s->path);
}

static void run_save_now(struct vm_call *call, struct vm *vm)
{
    struct run_save *s = container_of(call, struct run_save, call);
    struct save_options o = { .plain = s->plain, .given = true };
    bool was_paused = vm->life.paused;
    struct err err = { "" };
    int r;

    s->job.done = run_save_told;
    s->job.opaque = s;
    vm_pause(vm);
    r = o.fd = maker_begin(&s->maker, 0, s->path, &err);
    if (r >= 0)
        r = s->stop ? save_machine(vm, s->path, &o, &err) : save_begin(&s->job, vm, s->path, &o, &err);
    if (r < 0 || s->stop)
        run_save_told(&s->job, r, err.text);
    if (r == 0 && s->stop)
        vm_request(vm, VM_REQ_QUIT);
    else if (!was_paused)
        vm_resume(vm);
}

/* Device lock held. */
static void run_save_wanted(struct vm *vm, void *opaque)
{
    struct run_save *s = opaque;

    if (s->busy) {
        log_msg(LOG_ERROR, "the machine is being saved already");
        return;
    }
    s->busy = true;
    s->call.fn = run_save_now;
    vm_call(vm, &s->call);
}

int run_save_prepare(struct run_save *s, struct err *err)
{
    s->maker.fd = -1;
    return s->path ? maker_start(&s->maker, s->path, err) : 0;
}

void run_save_attach(struct run_save *s, struct vm *vm)
{
    if (!s->path)
        return;
    vm->on_save = run_save_wanted;
    vm->save_opaque = s;
}

void run_save_finish(struct run_save *s)
{
    save_finish(&s->job, false);
    maker_fini(&s->maker);
}
