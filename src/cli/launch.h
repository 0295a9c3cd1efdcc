/* Options of `vitro run` and of `vitro create`, and what becomes of them: a machine in this process, or in the background. */
#ifndef VITRO_CLI_LAUNCH_H
#define VITRO_CLI_LAUNCH_H

#include <stdbool.h>

#include "cli/run_save.h"
#include "migrate/migrate.h"
#include "machine/config.h"

struct err;

struct run_options {
    struct machine_config cfg;
    bool json;
    bool serial_given;
    struct run_restore restore;
    struct run_save save;
    struct migrate_in *incoming; /* owned; NULL: the machine does not come from elsewhere */
};

/* cmd_run.c: are the words options of `vitro run`? Opens nothing: for what comes before a file is read or a connection waited for. 0, or -errno
 * with a sentence. */
int run_try(int argc, char **argv, struct err *err);
/* cmd_run.c: the words of a command line into o, whose cfg config_init() has made. --config files come first. 0, or -errno with
 * a sentence. */
int run_parse(struct run_options *o, int argc, char **argv, struct err *err);

/* launch.c: run the machine, by cfg->detach in the background. Returns vitro's exit status, having told errors. */
int launch(struct run_options *o);

/* A machine in the background, of words of `vitro run`, --restore among them. Returns an exit status, having told errors. */
int launch_words(int n, const char **words, bool json);

#endif
