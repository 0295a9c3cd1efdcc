/* The command line: one cmd_*.c a verb, and what they share.
 *
 * Exit statuses are a contract (docs/vitro.1): 125 is vitro's own error, with one sentence on stderr.
 */
#ifndef VITRO_CLI_CLI_H
#define VITRO_CLI_CLI_H

#include <stdbool.h>
#include <stddef.h>

struct err;

#define CLI_OK    0
#define CLI_ERROR 125

/* A verb. args are the words after it. Returns the exit status. */
struct cli_verb {
    const char *name;
    const char *summary; /* one line for the list of verbs */
    const char *usage;   /* "vitro run [options]" */
    void (*help)(void);  /* prints what follows the usage line; may be NULL */
    int (*run)(int argc, char **argv);
};

/* Ends with a NULL name (main.c). */
extern const struct cli_verb cli_verbs[];

int cmd_run(int argc, char **argv);
void cmd_run_help(void);
int cmd_create(int argc, char **argv);
void cmd_create_help(void);
int cmd_start(int argc, char **argv);
void cmd_start_help(void);
int cmd_list(int argc, char **argv);
void cmd_list_help(void);
int cmd_inspect(int argc, char **argv);
void cmd_inspect_help(void);
int cmd_console(int argc, char **argv);
void cmd_console_help(void);
int cmd_logs(int argc, char **argv);
void cmd_logs_help(void);
int cmd_stats(int argc, char **argv);
void cmd_stats_help(void);
int cmd_screen(int argc, char **argv);
void cmd_screen_help(void);
int cmd_pause(int argc, char **argv);
int cmd_resume(int argc, char **argv);
int cmd_stop(int argc, char **argv);
void cmd_stop_help(void);
int cmd_kill(int argc, char **argv);
int cmd_reboot(int argc, char **argv);
int cmd_wait(int argc, char **argv);
void cmd_wait_help(void);
int cmd_rm(int argc, char **argv);
void cmd_rm_help(void);
int cmd_mem_set(int argc, char **argv);
int cmd_migrate(int argc, char **argv);
int cmd_receive(int argc, char **argv);
int cmd_fork(int argc, char **argv);
int cmd_cp(int argc, char **argv);
void cmd_cp_help(void);
int cmd_exec(int argc, char **argv);
void cmd_exec_help(void);
int cmd_save(int argc, char **argv);
int cmd_snapshot(int argc, char **argv);
int cmd_restore(int argc, char **argv);
void cmd_mem_set_help(void);
void cmd_migrate_help(void);
void cmd_fork_help(void);
void cmd_save_help(void);
void cmd_snapshot_help(void);
void cmd_restore_help(void);
int cmd_api(int argc, char **argv);
void cmd_api_help(void);
int cmd_doctor(int argc, char **argv);
void cmd_doctor_help(void);
int cmd_image(int argc, char **argv);
void cmd_image_help(void);
int cmd_version(int argc, char **argv);
int cmd_completion(int argc, char **argv);
void cmd_completion_help(void);
int cmd_help(int argc, char **argv);

/* "vitro: SENTENCE" on stderr (with json: {"event": "error", "message": SENTENCE}). Returns CLI_ERROR. */
int cli_fail(bool json, const struct err *err);
int cli_failf(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Print the help of a verb on stdout. */
void cli_help(const struct cli_verb *v);
const struct cli_verb *cli_find(const char *name);

/* For verbs whose only option is --json: sets *json. Returns 0, or CLI_ERROR after a sentence. */
int cli_only_json(int argc, char **argv, const char *verb, bool *json);

/* How many letters must change to make b of a; at most 64 letters are looked at. For "did you mean". */
unsigned cli_distance(const char *a, const char *b);

#endif
