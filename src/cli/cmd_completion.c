/* vitro completion: a shell script made from the same tables as the options themselves. */
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "machine/config.h"

void cmd_completion_help(void) { puts("Use it with:  source <(vitro completion bash)"); }

/* What may follow an option, as a case of the script. */
static void completion_values(void)
{
    for (const struct config_key *k = config_keys; k->key; k++) {
        if (k->arg && (!strncmp(k->arg, "FILE", 4) || !strncmp(k->arg, "DIR", 3) || k->kind == CONFIG_FILE))
            printf("        --%s) compopt -o default; COMPREPLY=(); return ;;\n", k->key);
        else if (k->kind != CONFIG_LATER && k->choices)
            printf("        --%s) COMPREPLY=($(compgen -W '%s' -- \"$cur\")); return ;;\n", k->key,
                   k->choices);
    }
    puts("        --config|--restore|--save) compopt -o default; COMPREPLY=(); return ;;");
}

static void completion_bash(void)
{
    puts("_vitro()\n{\n"
         "    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} verb=${COMP_WORDS[1]}\n"
         "    if [ \"$COMP_CWORD\" -eq 1 ]; then");
    fputs("        COMPREPLY=($(compgen -W '", stdout);
    for (const struct cli_verb *v = cli_verbs; v->name; v++)
        printf("%s ", v->name);
    puts("' -- \"$cur\"))\n        return\n    fi\n    case $prev in");
    completion_values();
    puts("    esac\n    case $verb in");
    fputs("        run) COMPREPLY=($(compgen -W '", stdout);
    for (const struct config_key *k = config_keys; k->key; k++) {
        if (k->kind != CONFIG_LATER)
            printf("--%s ", k->key);
    }
    puts("--config --restore --save --json --help' -- \"$cur\")) ;;");
    fputs("        help) COMPREPLY=($(compgen -W '", stdout);
    for (const struct cli_verb *v = cli_verbs; v->name; v++)
        printf("%s ", v->name);
    puts("' -- \"$cur\")) ;;\n"
         "        completion) COMPREPLY=($(compgen -W 'bash' -- \"$cur\")) ;;\n"
         "        cp) compopt -o default; COMPREPLY=() ;;\n"
         "        exec) COMPREPLY=($(compgen -W '-t -e -u -w --time -- --help' -- \"$cur\")) ;;\n"
         "        *) COMPREPLY=($(compgen -W '--json --help' -- \"$cur\")) ;;\n"
         "    esac\n}\ncomplete -F _vitro vitro");
}

int cmd_completion(int argc, char **argv)
{
    if (argc != 1)
        return cli_failf("say for which shell: vitro completion bash");
    if (strcmp(argv[0], "bash"))
        return cli_failf("there is no completion for '%.80s', only for bash", argv[0]);
    completion_bash();
    return CLI_OK;
}
