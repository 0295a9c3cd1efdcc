/* vitro run: the command line's words into a configuration; launch.c runs it. Thread: the main thread. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/err.h"
#include "cli/cli.h"
#include "cli/launch.h"
#include "machine/sandbox.h"

void cmd_run_help(void)
{
    puts("options:");
    for (const struct config_key *k = config_keys; k->key; k++) {
        char left[40];

        if (k->kind == CONFIG_LATER)
            continue;
        snprintf(left, sizeof(left), "--%s%s%s", k->key, k->arg ? " " : "", k->arg ? k->arg : "");
        printf("  %-22s%s\n", left, k->help);
    }
    puts("  --config FILE         a JSON object with these options as keys; the command line wins\n"
         "  --restore FILE[,OPT]  go on with a saved machine; options given here replace those it had; trust-disks,\n"
         "                        stand, clone, rewind, whole: see vitro(1)\n"
         "  --save FILE[,OPT]     where Ctrl-] S and SIGUSR1 save the machine; plain: large and quick to restore;\n"
         "                        stop: end it then\n"
         "  --json                what vitro itself says on stderr is JSON, one object a line\n"
         "\n"
         "Ctrl-] then ? lists the console's keys; Ctrl-] q ends the machine.\n"
         "\n"
         "exit status: 0 the guest powered off (or rebooted, with --no-reboot); (v<<1)|1 with --debug-exit;\n"
         "124 --timeout ran out; 125 vitro's own error; 126 the guest crashed for good.");
}

/* -- options -- */

/* Options of vitro run that are not the machine's. */
static const char *const run_own[] = { "config", "restore", "save" };

static bool run_is_own(const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(run_own); i++) {
        if (!strcmp(name, run_own[i]))
            return true;
    }
    return false;
}

static int run_unknown(const char *word, struct err *err)
{
    const struct config_key *best = NULL;

    for (const struct config_key *k = config_keys; k->key; k++) {
        if (k->kind != CONFIG_LATER && (!best || cli_distance(word, k->key) < cli_distance(word, best->key)))
            best = k;
    }
    if (best && cli_distance(word, best->key) <= 2)
        return err_set(err, EINVAL, "option '--%.80s' is unknown: did you mean '--%s'?", word, best->key);
    return err_set(err, EINVAL, "option '--%.80s' is unknown: see 'vitro help run'", word);
}

/* The first --serial on the command line replaces what a configuration file said. */
static void run_forget_serials(struct run_options *o)
{
    if (o->serial_given)
        return;
    o->serial_given = true;
    config_forget(&o->cfg, "serial");
    while (o->cfg.serials > 0) {
        o->cfg.serials--;
        free(o->cfg.serial[o->cfg.serials]);
        o->cfg.serial[o->cfg.serials] = NULL;
    }
}

/* One option, split into its name and the value after '=' (NULL: none). Returns how many words it took, or
 * -errno. */
static int run_option(struct run_options *o, const char *name, const char *value, const char *next,
                      struct err *err)
{
    const struct config_key *k = config_find(name);
    bool own = run_is_own(name);
    int words = 1, r;

    if (!strcmp(name, "json")) {
        o->json = true;
        return value ? err_set(err, EINVAL, "option '--json' takes no value") : 1;
    }
    if (!k && !own)
        return run_unknown(name, err);
    if (k && k->kind != CONFIG_LATER && !k->arg && value)
        return err_set(err, EINVAL, "option '--%s' takes no value", name);
    if ((own || (k->arg && k->kind != CONFIG_LATER)) && !value) {
        if (!next)
            return err_set(err, EINVAL, "option '--%s' needs a value: %s", name, own ? "FILE" : k->arg);
        value = next;
        words = 2;
    }
    if (own && strcmp(name, "save"))
        return words; /* read before all others */
    if (own) {
        r = run_save_option(&o->save, value, err);
        return r < 0 ? r : words;
    }
    if (!strcmp(name, "serial"))
        run_forget_serials(o);
    r = config_set(&o->cfg, name, value, err);
    return r < 0 ? r : words;
}

static int run_options(struct run_options *o, int argc, char **argv, struct err *err)
{
    for (int i = 0; i < argc;) {
        char name[32];
        const char *word = argv[i], *eq = strchr(word, '=');
        size_t len = eq ? (size_t)(eq - word) : strlen(word);
        int words;

        if (strncmp(word, "--", 2) || len < 3)
            return err_set(err, EINVAL, "'%.80s' is not an option: see 'vitro help run'", word);
        if (len - 2 >= sizeof(name))
            return err_set(err, EINVAL, "option '%.80s' is unknown: see 'vitro help run'", word);
        memcpy(name, word + 2, len - 2);
        name[len - 2] = 0;
        words = run_option(o, name, eq ? eq + 1 : NULL, i + 1 < argc ? argv[i + 1] : NULL, err);
        if (words < 0)
            return words;
        i += words;
    }
    return 0;
}

/* Configuration files come first, so that the command line wins. */
static int run_config_files(struct run_options *o, int argc, char **argv, struct err *err)
{
    int r = 0;

    for (int i = 0; r == 0 && i < argc; i++) {
        if (!strncmp(argv[i], "--config=", 9))
            r = config_load_json(&o->cfg, argv[i] + 9, err);
        else if (!strcmp(argv[i], "--config") && i + 1 < argc)
            r = config_load_json(&o->cfg, argv[i + 1], err);
    }
    return r;
}

/* What a machine that comes from elsewhere was, but for what is given here. */
static int run_incoming(struct run_options *o, int argc, char **argv, struct err *err)
{
    const char *without[RUN_WORDS + 1];

    run_restore_without(without, argc, argv);
    return migrate_config(o->incoming, &o->cfg, without, err);
}

int run_try(int argc, char **argv, struct err *err)
{
    struct run_options o = { .json = false };
    int r = config_init(&o.cfg) < 0 ? err_set(err, ENOMEM, "out of memory") : run_options(&o, argc, argv, err);

    run_fini(&o);
    return r;
}

void run_fini(struct run_options *o)
{
    config_fini(&o->cfg);
    save_close(o->restore.file);
    free(o->save.path);
}

int run_parse(struct run_options *o, int argc, char **argv, struct err *err)
{
    int r = run_try(argc, argv, err);

    for (int i = 0; i < argc; i++)
        o->json |= !strcmp(argv[i], "--json");
    if (r < 0)
        return r;
    r = o->incoming ? run_incoming(o, argc, argv, err) : run_restore_open(&o->restore, &o->cfg, argc, argv, err);
    if (r == 0)
        r = run_config_files(o, argc, argv, err);
    if (r == 0)
        r = run_options(o, argc, argv, err);
    if (o->json && o->cfg.trace & TRACE_STATS)
        o->cfg.trace |= TRACE_JSON;
    return r < 0 ? r : config_check(&o->cfg, err);
}

int cmd_run(int argc, char **argv)
{
    struct run_options o = { .json = false };
    struct err err = { "" };
    int status;

    if (config_init(&o.cfg) < 0)
        return cli_failf("out of memory");
    if (run_parse(&o, argc, argv, &err) < 0)
        status = cli_fail(o.json, &err);
    else
        status = launch(&o);
    run_fini(&o);
    return status;
}
