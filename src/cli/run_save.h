/* vitro run --restore and --save: a machine from a file, and a running one into one. */
#ifndef VITRO_CLI_RUN_SAVE_H
#define VITRO_CLI_RUN_SAVE_H

#include <stdbool.h>

#include "machine/vm.h"
#include "save/maker.h"
#include "save/save.h"

struct err;

struct run_restore {
    struct save_file *file; /* owned; NULL: no --restore */
    struct save_how how;
};

/* Look for --restore among the words, and set what the machine was, but for what can be given several times and is given
 * here. 0 or -errno with a sentence. */
int run_restore_open(struct run_restore *r, struct machine_config *cfg, int argc, char **argv, struct err *err);
/* Which of the words are options that can be given several times: the machine's own of them are left out. At most
 * RUN_WORDS, and a NULL behind them. */
#define RUN_WORDS 32
void run_restore_without(const char *without[RUN_WORDS + 1], int argc, char **argv);
/* vm_create(), from the file if there is one, which is closed. */
int run_restore_create(struct run_restore *r, struct vm **out, struct machine_config *cfg,
                       const struct engine_ops *ops, struct err *err);

/* --save FILE[,plain][,stop]: what Ctrl-] S and SIGUSR1 do. */
struct run_save {
    char *path; /* owned; NULL: no --save */
    bool plain, stop;
    bool busy;
    struct vm_call call;
    struct save_job job;
    struct maker maker;
};

int run_save_option(struct run_save *s, const char *value, struct err *err);
/* Before the machine is made and the sandbox is entered. run_save_finish() is due also on failure. 0, or -errno with a sentence. */
int run_save_prepare(struct run_save *s, struct err *err);
void run_save_attach(struct run_save *s, struct vm *vm);
/* The machine has ended, or never was: wait for what is being written. */
void run_save_finish(struct run_save *s);

#endif
