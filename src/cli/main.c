/* vitro: a plain table of verbs. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"

const struct cli_verb cli_verbs[] = {
    { "run", "Run a machine in the foreground, its console on stdin and stdout.",
      "vitro run [options] --kernel FILE", cmd_run_help, cmd_run },
    { "image", "Make, look at, check, copy, grow and commit disk images.",
      "vitro image create|info|check|convert|resize|commit FILE ...", cmd_image_help, cmd_image },
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
    " create start stop kill reboot pause resume rm list ps inspect console logs exec cp stats"
    " save restore snapshot fork migrate mem-set serve bench ";

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
    for (int i = 0; i < argc; i++) {
        if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h"))
            return true;
    }
    return false;
}

int main(int argc, char **argv)
{
    const struct cli_verb *v;

    main_fill_streams();
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
    return v->run(argc - 2, argv + 2);
}
