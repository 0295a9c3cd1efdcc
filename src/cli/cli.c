/* What the verbs share: messages, help, near misses. Thread: the main thread. */
#include "cli/cli.h"

#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"

#define CLI_WORD_MAX 64

int cli_fail(bool json, const struct err *err)
{
    json_t *line;
    char *text;

    if (!json) {
        fprintf(stderr, "vitro: %s\n", err->text);
        return CLI_ERROR;
    }
    line = json_pack("{s:s, s:s}", "event", "error", "message", err->text);
    text = line ? json_dumps(line, JSON_COMPACT) : NULL;
    fprintf(stderr, "%s\n", text ? text : "{\"event\":\"error\",\"message\":\"(not UTF-8)\"}");
    free(text);
    json_decref(line);
    return CLI_ERROR;
}

int cli_failf(const char *fmt, ...)
{
    struct err err;
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(err.text, sizeof(err.text), fmt, ap);
    va_end(ap);
    return cli_fail(false, &err);
}

const struct cli_verb *cli_find(const char *name)
{
    for (const struct cli_verb *v = cli_verbs; v->name; v++) {
        if (!strcmp(v->name, name))
            return v;
    }
    return NULL;
}

void cli_help(const struct cli_verb *v)
{
    printf("usage: %s\n%s\n", v->usage, v->summary);
    if (v->help) {
        putchar('\n');
        v->help();
    }
}

int cli_only_json(int argc, char **argv, const char *verb, bool *json)
{
    *json = false;
    for (int i = 0; i < argc; i++) {
        if (strcmp(argv[i], "--json"))
            return cli_failf("'%s' does not know '%.80s': see 'vitro help %s'", verb, argv[i], verb);
        *json = true;
    }
    return 0;
}

/* Levenshtein's distance, one row at a time. */
unsigned cli_distance(const char *a, const char *b)
{
    unsigned row[CLI_WORD_MAX + 1];
    size_t la = strnlen(a, CLI_WORD_MAX), lb = strnlen(b, CLI_WORD_MAX);

    for (size_t j = 0; j <= lb; j++)
        row[j] = (unsigned)j;
    for (size_t i = 1; i <= la; i++) {
        unsigned diagonal = row[0];

        row[0] = (unsigned)i;
        for (size_t j = 1; j <= lb; j++) {
            unsigned change = diagonal + (a[i - 1] != b[j - 1]);
            unsigned least = row[j] < row[j - 1] ? row[j] + 1 : row[j - 1] + 1;

            diagonal = row[j];
            row[j] = change < least ? change : least;
        }
    }
    return row[lb];
}
