/* vitro: a plain table of verbs. */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "api/site.h"
#include "base/log.h"
#include "cli/cli.h"
#include "machine/console.h"

const struct cli_verb cli_verbs[] = {
    { "run", "Run a machine, its console on stdin and stdout, or in the background.",
      "vitro run [options] --kernel FILE", cmd_run_help, cmd_run },
    { "create", "Define a machine, for 'start'.", "vitro create NAME [--from TEMPLATE] [--force] [options of run]", cmd_create_help,
      cmd_create },
    { "start", "Start machines that are defined, in the background.", "vitro start NAME ... [--attach] [--json]",
      cmd_start_help, cmd_start },
    { "list", "List all machines: name, id, state, vCPUs, memory, time, engine.", "vitro list [--json]", cmd_list_help,
      cmd_list },
    { "ps", "The same as list.", "vitro ps [--json]", cmd_list_help, cmd_list },
    { "inspect", "Print all about a machine as JSON.", "vitro inspect NAME", cmd_inspect_help, cmd_inspect },
    { "console", "See and type on a machine's console.", "vitro console NAME [--replay BYTES] [--read-only]",
      cmd_console_help, cmd_console },
    { "logs", "Print what a machine's console showed.", "vitro logs NAME [--follow] [--monitor]", cmd_logs_help,
      cmd_logs },
    { "stats", "Show what machines use: CPU, memory, disks, network.",
      "vitro stats [NAME ...] [--once] [--prometheus] [--json]", cmd_stats_help, cmd_stats },
    { "exec", "Run a program in a guest.",
      "vitro exec NAME [-t] [-e NAME=VALUE] [-u USER] [-w DIR] [--time SECONDS] -- PROGRAM [ARGUMENT ...]", cmd_exec_help, cmd_exec },
    { "cp", "Copy files into a guest and out of it.", "vitro cp PATH NAME:PATH [-u] [--time SECONDS] [--json]\n       vitro cp NAME:PATH PATH [-u] [--time SECONDS] [--json]", cmd_cp_help, cmd_cp },
    { "screen", "Show a machine's screen, or type on its keyboard.",
      "vitro screen NAME [--watch | --png FILE | --type TEXT | --key NAME] [--json]", cmd_screen_help, cmd_screen },
    { "pause", "Make machines stand still, and their time with them.", "vitro pause NAME ... [--json]", NULL,
      cmd_pause },
    { "resume", "Let paused machines go on.", "vitro resume NAME ... [--json]", NULL, cmd_resume },
    { "stop", "Ask machines to power off, and kill those that do not.", "vitro stop NAME ... [--time SECONDS] [--json]",
      cmd_stop_help, cmd_stop },
    { "kill", "End machines at once, as if the power failed.", "vitro kill NAME ... [--json]", NULL, cmd_kill },
    { "reboot", "Reset machines, as their reset button would.", "vitro reboot NAME ... [--json]", NULL, cmd_reboot },
    { "wait", "Wait for a machine's end, and exit with its status.", "vitro wait NAME [--time SECONDS] [--json]",
      cmd_wait_help, cmd_wait },
    { "rm", "Forget machines that do not run.", "vitro rm NAME ... [--force] [--snapshots] [--json]", cmd_rm_help, cmd_rm },
    { "mem-set", "Ask a guest to live with less memory, or with more again.", "vitro mem-set NAME SIZE [--json]",
      cmd_mem_set_help, cmd_mem_set },
    { "migrate", "Move a running machine to another host, or receive one.",
      "vitro migrate NAME WHERE [--max-downtime MS] [--stall SECONDS] [--copy-disks] [--ssh-config FILE] [--json] [-- OPTION...]\n"
      "       vitro migrate --receive WHERE [--stall SECONDS] [--copy-disks] [--disk-folder DIR] [--force] [--insecure] [--trust-disks]\n"
      "                     [options of run]",
      cmd_migrate_help, cmd_migrate },
    { "fork", "Make running copies of a running machine.", "vitro fork NAME [-n N] [--prefix NAME] [--json] [-- options of run]", cmd_fork_help,
      cmd_fork },
    { "save", "Write a running machine into a file.", "vitro save NAME FILE [--stop] [--plain] [--json]", cmd_save_help, cmd_save },
    { "restore", "Make a saved machine again, in the background.", "vitro restore FILE [--attach] [--clone] [--trust-disks] [--stand] [--whole] [options of run]",
      cmd_restore_help, cmd_restore },
    { "snapshot", "Keep states of a running machine, disks and all, and go back to them.",
      "vitro snapshot NAME [--name SNAPSHOT] [--json]\n       vitro snapshot list NAME [--json]\n"
      "       vitro snapshot delete NAME SNAPSHOT [--json]\n       vitro snapshot merge NAME [--json]\n       vitro snapshot revert NAME SNAPSHOT [--json] [-- options of run]",
      cmd_snapshot_help, cmd_snapshot },
    { "api", "Serve the Firecracker API for one machine.", "vitro api --api-sock PATH [--id NAME] [--mmds-size-limit BYTES]", cmd_api_help, cmd_api },
    { "image", "Make, look at, check, copy, grow and commit disk images.",
      "vitro image create FILE [SIZE] [--format FORMAT] [--backing FILE] [--backing-format FORMAT] [--cluster-size SIZE] [--force]\n"
      "       vitro image info FILE [--format FORMAT] [--json]\n"
      "       vitro image check FILE [--format FORMAT] [--repair] [--json]\n"
      "       vitro image convert FROM TO [--format FORMAT] [--to FORMAT] [--backing FILE] [--backing-format FORMAT]\n"
      "                           [--allow-backing] [--cluster-size SIZE] [--force]\n"
      "       vitro image resize FILE SIZE [--format FORMAT] [--backing FILE] [--backing-format FORMAT] [--allow-backing]\n"
      "       vitro image commit FILE [--format FORMAT] [--backing FILE] [--backing-format FORMAT] [--allow-backing] [--keep]\n"
      "       vitro image build debian [-o FILE] [--size SIZE] [--suite NAME] [--mirror URL] [--packages A,B] [--hostname NAME]\n"
      "                         [--user NAME] [--ssh-key FILE] [--password-hash HASH] [--kernel-out FILE] [--initrd-out FILE]\n"
      "                         [--format FORMAT] [--force] [--json]",
      cmd_image_help, cmd_image },
    { "doctor", "Say what this host offers, and which engine 'auto' takes.", "vitro doctor [--json]",
      cmd_doctor_help, cmd_doctor },
    { "version", "Say which version this is and what is built in.", "vitro version [--json]", NULL,
      cmd_version },
    { "completion", "Print a completion script for a shell.", "vitro completion bash", cmd_completion_help,
      cmd_completion },
    { "help", "Explain a verb.", "vitro help [VERB]", NULL, cmd_help },
    { .name = NULL },
};

/* Verbs of the contract that this version does not have. */
static const char main_later[] =
    " serve bench ";

static void main_overview(void)
{
    puts("usage: vitro VERB [options]\n\n"
         "vitro runs x86-64 machines without hardware virtualisation.\n");
    for (const struct cli_verb *v = cli_verbs; v->name; v++)
        printf("  %-12s%s\n", v->name, v->summary);
    puts("\n'vitro help VERB' explains one of them.");
}

int cmd_help(int argc, char **argv)
{
    const struct cli_verb *v;

    if (argc == 0) {
        main_overview();
        return CLI_OK;
    }
    v = cli_find(argv[0]);
    if (!v)
        return cli_failf("there is no verb '%.80s': see 'vitro help'", argv[0]);
    cli_help(v);
    return CLI_OK;
}

static int main_unknown(const char *word)
{
    const struct cli_verb *best = NULL;
    char padded[72];

    snprintf(padded, sizeof(padded), " %.64s ", word);
    if (strstr(main_later, padded))
        return cli_failf("verb '%s' is not supported yet in this version", word);
    for (const struct cli_verb *v = cli_verbs; v->name; v++) {
        if (!best || cli_distance(word, v->name) < cli_distance(word, best->name))
            best = v;
    }
    if (cli_distance(word, best->name) <= 2)
        return cli_failf("there is no verb '%.80s': did you mean '%s'?", word, best->name);
    return cli_failf("there is no verb '%.80s': see 'vitro help'", word);
}

/* A closed standard stream would give its number to the next file that is opened. What takes its place cannot
 * be used in the stream's direction, so that the stream still counts as closed. */
static void main_fill_streams(void)
{
    for (int fd = 0; fd <= 2; fd++) {
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", fd == 0 ? O_WRONLY : O_RDONLY) < 0)
            return;
    }
}

static bool main_wants_help(int argc, char **argv)
{
    for (int i = 0; i < argc && strcmp(argv[i], "--"); i++) {
        if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h"))
            return true;
    }
    return false;
}

/* What was mapped is not there any more (sigaction(2): BUS_ADRERR): a file became shorter, or its disk cannot be read. With bytes of which nobody
 * knows what they were the guest must do nothing more, so the machine ends here and now; its disks are as after a power failure. */
static void main_lost(int sig, siginfo_t *si, void *context)
{
    static const char text[] = "vitro: a file that the machine's memory lies on became shorter or cannot be read (the saved machine that it was restored "
                               "from?): the machine ends\n";

    console_rescue();
    if (si->si_code == BUS_ADRERR) {
        (void)!write(STDERR_FILENO, text, sizeof(text) - 1);
        site_lost();
        _exit(CLI_ERROR);
    }
    signal(sig, SIG_DFL);
    raise(sig);
}

/* Before a machine's own handlers, which pass on what is not their guest's doing. */
static void main_catch_lost(void)
{
    struct sigaction sa = { .sa_sigaction = main_lost, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER };

    sigemptyset(&sa.sa_mask);
    sigaction(SIGBUS, &sa, NULL);
}

int main(int argc, char **argv)
{
    const struct cli_verb *v;

    main_fill_streams();
    log_init();
    if (argc < 2)
        return cli_failf("what should be done? See 'vitro help'");
    if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"))
        return cmd_help(0, NULL);
    if (!strcmp(argv[1], "--version"))
        return cmd_version(0, NULL);
    v = cli_find(argv[1]);
    if (!v)
        return main_unknown(argv[1]);
    if (main_wants_help(argc - 2, argv + 2)) {
        cli_help(v);
        return CLI_OK;
    }
    main_catch_lost();
    return v->run(argc - 2, argv + 2);
}
