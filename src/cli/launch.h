/* Options of `vitro run` and of `vitro create`, and what becomes of them: a machine in this process, or in the background. */
#ifndef VITRO_CLI_LAUNCH_H
#define VITRO_CLI_LAUNCH_H

#include <stdbool.h>
#include <sys/types.h>

#include "cli/run_save.h"
#include "migrate/migrate.h"
#include "machine/config.h"

struct engine_ops;
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

/* What a set of options holds; the options themselves are the caller's. */
void run_fini(struct run_options *o);

/* launch.c: run the machine, by cfg->detach in the background. Returns vitro's exit status, having told errors. */
int launch(struct run_options *o);

/* The same in steps, for machines in the background of which several are begun before one is waited for. */
struct launch_child {
    const struct engine_ops *engine; /* launch_engine(): of all that are made by these options, */
    char why[256];                   /* and why this one */
    pid_t pid;
    int tells; /* how it goes; launch_await() closes it */
};

/* Choose the engine. 0, or -errno with a sentence. */
int launch_engine(const struct run_options *o, struct launch_child *c, struct err *err);
/* Start the process of the machine that o describes by now. Returns an exit status, having told errors. */
int launch_begin(struct run_options *o, struct launch_child *c);
/* Until its machine runs, whose name is printed, or does not, which is told. Returns an exit status. */
int launch_await(const struct run_options *o, const struct launch_child *c);

/* A machine in the background, of words of `vitro run`, --restore among them. Returns an exit status, having told errors. */
int launch_words(int n, const char **words, bool json);

#endif
