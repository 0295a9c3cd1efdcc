/* vitro completion: a shell script made from the verbs' usage lines and the table of options of `vitro run`.
 *
 * Of a usage line, what begins with a dash is an option, a word in capitals behind one is its value, and other words in
 * capitals say what the verb takes: NAME a machine, FILE a file. A second word in small letters is a sub-command. Thread:
 * the main thread.
 */
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "machine/config.h"

#define COMPLETION_LINE 512
#define COMPLETION_SEPARATORS " []|\n"
#define COMPLETION_NEXT "\n       vitro " /* the next way to use the verb; other lines continue one */

void cmd_completion_help(void) { puts("Use it with:  source <(vitro completion bash)"); }

static bool completion_is(const char *word, const char *words)
{
    char padded[COMPLETION_LINE + 2];

    snprintf(padded, sizeof(padded), " %s ", word);
    return strstr(words, padded);
}

/* What may follow an option whose value the help calls arg: file, none, or words. */
static const char *completion_value(const char *arg)
{
    if (completion_is(arg, " FILE PATH TEMPLATE DIR ") || !strncmp(arg, "FILE[", 5) || !strncmp(arg, "DIR[", 4))
        return "file";
    return completion_is(arg, " FORMAT ") ? "raw qcow2" : "none";
}

/* One word of a usage line; option is the one that it may be the value of, or NULL. */
static void completion_word(const char *word, const char *option)
{
    if (*word == '-' || islower((unsigned char)*word))
        printf(" words+=' %s';", word);
    else if (isupper((unsigned char)*word) && option)
        printf(" [ \"$prev\" = %s ] && value='%s';", option, completion_value(word));
    else if (completion_is(word, " FILE PATH FROM TO "))
        fputs(" files=1;", stdout);
    else if (completion_is(word, " NAME "))
        fputs(" names=1;", stdout);
    else if (completion_is(word, " VERB "))
        fputs(" words+=\" $verbs\";", stdout);
}

/* A line "vitro VERB ..." of its usage, as an arm of the script's case. */
static void completion_line(const char *verb, char *line)
{
    const char *option = NULL;
    char *state, *word = strtok_r(line, COMPLETION_SEPARATORS, &state);

    for (unsigned n = 0; word && n < 2; n++)
        word = strtok_r(NULL, COMPLETION_SEPARATORS, &state);
    if (word && islower((unsigned char)*word) && strcmp(word, "options")) {
        printf("        '%s ') words+=' %s' ;;&\n        '%s %s')", verb, word, verb, word);
        word = strtok_r(NULL, COMPLETION_SEPARATORS, &state);
    } else {
        printf("        '%s '*)", verb);
    }
    for (; word && strcmp(word, "options"); word = strtok_r(NULL, COMPLETION_SEPARATORS, &state)) {
        completion_word(word, option);
        option = *word == '-' ? word : NULL;
    }
    puts(word ? " run=1 ;;&" : " ;;&");
}

static void completion_verb(const struct cli_verb *v)
{
    for (const char *at = v->usage, *next; at; at = next) {
        char line[COMPLETION_LINE];

        next = strstr(at + 1, COMPLETION_NEXT);
        snprintf(line, sizeof(line), "%.*s", next ? (int)(next - at) : (int)strlen(at), at);
        completion_line(v->name, line);
    }
}

/* The options of run, which other verbs take as well. */
static void completion_run(void)
{
    puts("    if [ -n \"$run\" ]; then\n        case $prev in");
    for (const struct config_key *k = config_keys; k->key; k++) {
        if (k->arg && k->kind != CONFIG_LATER)
            printf("        --%s) value='%s' ;;\n", k->key,
                   k->choices              ? k->choices
                   : k->kind == CONFIG_FILE ? "file"
                                            : completion_value(k->arg));
    }
    puts("        --config|--restore|--save) value=file ;;\n        esac");
    fputs("        words+='", stdout);
    for (const struct config_key *k = config_keys; k->key; k++) {
        if (k->kind != CONFIG_LATER)
            printf(" --%s", k->key);
    }
    puts(" --config --restore --save --json'\n    fi");
}

static void completion_bash(void)
{
    puts("_vitro()\n{\n"
         "    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} verb=${COMP_WORDS[1]}\n"
         "    local sub=${COMP_WORDS[2]} words=' --help' value= names= files= run= verbs");
    fputs("    verbs='", stdout);
    for (const struct cli_verb *v = cli_verbs; v->name; v++)
        printf("%s ", v->name);
    puts("'\n"
         "    COMPREPLY=()\n"
         "    [ \"$prev\" = = ] && prev=${COMP_WORDS[COMP_CWORD-2]}\n"
         "    [ \"$cur\" = = ] && cur=\n"
         "    [ \"$COMP_CWORD\" -eq 2 ] && sub=\n"
         "    [ \"$COMP_CWORD\" -eq 1 ] && value=$verbs\n"
         "    case \"$verb $sub\" in");
    for (const struct cli_verb *v = cli_verbs; v->name; v++)
        completion_verb(v);
    puts("    esac");
    completion_run();
    puts("    if [ -n \"$names$files\" ] && [ \"${cur:0:1}\" != - ]; then\n"
         "        words=\n"
         "        [ -n \"$names\" ] && [ -z \"$value\" ] &&\n"
         "            words=$(\"${COMP_WORDS[0]}\" list 2>/dev/null | awk 'NR > 1 && $1 ~ /^[A-Za-z0-9_.-]+$/ { print $1 }')\n"
         "    fi\n"
         "    case $value in\n"
         "    none) ;;\n"
         "    file) compopt -o default ;;\n"
         "    '') COMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n"
         "        [ -n \"$files\" ] && compopt -o default ;;\n"
         "    *) COMPREPLY=($(compgen -W \"$value\" -- \"$cur\")) ;;\n"
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
