/* vitro create, start, rm: machines by their definitions. Thread: the main thread; 'start' becomes a machine's parent. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "cli/cli.h"
#include "cli/define.h"
#include "cli/launch.h"
#include "cli/snap_tree.h"
#include "cli/verb.h"

/* -- create -- */

void cmd_create_help(void)
{
    puts("Writes a machine's definition, a JSON file with the options of 'vitro run' as keys, for 'vitro start NAME'.\n"
         "Paths are made absolute. It is in $XDG_DATA_HOME/vitro/machines (~/.local/share/vitro/machines).\n\n"
         "  --from TEMPLATE   begin with what a template says: a file, the name of a file in the folder templates beside\n"
         "                    machines, or another machine; options given here are added, or win\n"
         "  --force           replace a definition that exists\n"
         "  all options of 'vitro run'");
}

/* What create itself takes out of the words. */
struct create_args {
    const char *name, *from;
    bool force;
};

/* Returns how many words are left for run_parse(), or -EINVAL with a sentence. */
static int create_take(struct create_args *a, int argc, char **argv, struct err *err)
{
    int left = 0;

    if (argc < 1 || *argv[0] == '-')
        return err_set(err, EINVAL, "the name of the new machine comes first: vitro create NAME [options]");
    a->name = argv[0];
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--force"))
            a->force = true;
        else if (!strncmp(argv[i], "--from=", 7))
            a->from = argv[i] + 7;
        else if (!strcmp(argv[i], "--from") && i + 1 < argc)
            a->from = argv[++i];
        else if (!strcmp(argv[i], "--from"))
            return err_set(err, EINVAL, "option '--from' needs a value: a template");
        else
            argv[left++] = argv[i];
    }
    return left;
}

static int create_run(struct run_options *o, int argc, char **argv, struct err *err)
{
    struct create_args a = { .name = NULL };
    int left = create_take(&a, argc, argv, err), r = left;

    if (r >= 0 && a.from)
        r = define_load_template(&o->cfg, a.from, err);
    if (r >= 0)
        r = config_set(&o->cfg, "name", a.name, err);
    if (r >= 0)
        r = run_parse(o, left, argv, err);
    if (r >= 0 && strcmp(o->cfg.name, a.name))
        r = err_set(err, EINVAL, "the machine's name is the first word: --name has no place here");
    if (r >= 0) {
        config_forget(&o->cfg, "detach");
        r = define_write(&o->cfg, a.name, a.force, err);
    }
    if (r >= 0)
        printf(o->json ? "{\"event\":\"created\",\"name\":\"%s\"}\n" : "%s\n", a.name);
    return r;
}

int cmd_create(int argc, char **argv)
{
    struct run_options o = { .json = false };
    struct err err = { "" };
    int status = CLI_OK;

    if (config_init(&o.cfg) < 0)
        return cli_failf("out of memory");
    if (create_run(&o, argc, argv, &err) < 0)
        status = cli_fail(o.json, &err);
    config_fini(&o.cfg);
    return status;
}

/* -- start -- */

void cmd_start_help(void)
{
    puts("Starts machines that 'vitro create' has defined, in the background: it returns when they run, or says why one\n"
         "does not.\n\n"
         "  --attach    of one machine: in the foreground, its console on stdin and stdout\n"
         "  --json      say what was started as JSON");
}

static int start_one(const char *name, bool attach, bool json)
{
    struct run_options o = { .json = json };
    struct err err = { "" };
    int status;

    if (config_init(&o.cfg) < 0)
        return cli_failf("out of memory");
    if (define_load(&o.cfg, name, &err) < 0 || config_set(&o.cfg, "name", name, &err) < 0 ||
        config_check(&o.cfg, &err) < 0) {
        status = cli_fail(json, &err);
    } else {
        o.cfg.detach = !attach;
        status = launch(&o);
    }
    config_fini(&o.cfg);
    return status;
}

int cmd_start(int argc, char **argv)
{
    bool attach = false;
    const struct verb_option options[] = { { "--attach", &attach, NULL }, { .name = NULL } };
    struct verb_args a;
    int status = CLI_OK;

    if (verb_parse(&a, argc, argv, "start", options, 1, VERB_NAMES))
        return CLI_ERROR;
    if (attach && a.names > 1)
        return cli_failf("only one machine can have the terminal: --attach goes with one name");
    for (unsigned n = 0; n < a.names; n++) {
        int s = start_one(a.name[n], attach, a.json);

        if (s)
            status = s;
    }
    return status;
}

/* -- rm -- */

void cmd_rm_help(void)
{
    puts("Forgets machines: the definition, and what is left of the last run. Disks and other files stay. A machine that has snapshots is\n"
         "not forgotten unless they go, too, and with them what was written to its disks since the first of them.\n\n"
         "  --force      a machine that runs is killed first\n"
         "  --snapshots  remove its snapshots\n"
         "  --json       say what was done as JSON");
}

static int rm_one(const char *name, bool force, bool snapshots, struct err *err)
{
    struct site_info i;
    int r = site_look(name, &i, err);
    bool kept = r == 0 && snap_tree_exists(name);

    if (r == 0 && !i.known && !define_exists(name) && !(kept && snapshots))
        return err_set(err, ENOENT, "there is no machine '%s': see 'vitro list'", name);
    if (kept && !snapshots)
        return err_set(err, ENOTEMPTY, "machine '%s' has snapshots, and its disks go on over them: --snapshots removes both", name);
    if (r == 0 && i.running && force)
        r = verb_kill(name, err);
    if (r == 0)
        r = site_remove(name, err);
    if (r == 0 && kept)
        r = snap_tree_erase(name, err);
    return r < 0 ? r : define_remove(name, err);
}

int cmd_rm(int argc, char **argv)
{
    bool force = false, snapshots = false;
    const struct verb_option options[] = {
        { "--force", &force, NULL }, { "-f", &force, NULL }, { "--snapshots", &snapshots, NULL }, { .name = NULL }
    };
    struct verb_args a;
    int status = CLI_OK;

    if (verb_parse(&a, argc, argv, "rm", options, 1, VERB_NAMES))
        return CLI_ERROR;
    for (unsigned n = 0; n < a.names; n++) {
        struct err err = { "" };

        if (rm_one(a.name[n], force, snapshots, &err) < 0)
            status = cli_fail(a.json, &err);
        else if (a.json)
            printf("{\"name\":\"%s\",\"done\":\"rm\"}\n", a.name[n]);
    }
    return status;
}
