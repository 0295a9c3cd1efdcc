/* What the verbs share that name machines. See verb.h. Thread: the main thread. */
#include "cli/verb.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "cli/cli.h"
#include "cli/define.h"

/* One option; *i moves over its value. 0, or CLI_ERROR after a sentence. */
static int verb_option(int argc, char **argv, int *i, const char *verb, const struct verb_option *o)
{
    const char *word = argv[*i], *eq = strchr(word, '=');
    size_t len = eq ? (size_t)(eq - word) : strlen(word);

    for (; o && o->name; o++) {
        if (strlen(o->name) != len || strncmp(o->name, word, len))
            continue;
        if (o->flag && eq)
            return cli_failf("option '%s' takes no value", o->name);
        if (o->flag) {
            *o->flag = true;
            return 0;
        }
        if (!eq && *i + 1 >= argc)
            return cli_failf("option '%s' needs a value: see 'vitro help %s'", o->name, verb);
        *o->value = eq ? eq + 1 : argv[++*i];
        return 0;
    }
    return cli_failf("'%s' does not know the option '%.80s': see 'vitro help %s'", verb, word, verb);
}

int verb_parse(struct verb_args *a, int argc, char **argv, const char *verb, const struct verb_option *options,
               unsigned least, unsigned most)
{
    memset(a, 0, sizeof(*a));
    for (int i = 0; i < argc; i++) {
        if (!strcmp(argv[i], "--json")) {
            a->json = true;
        } else if (*argv[i] == '-') {
            if (verb_option(argc, argv, &i, verb, options))
                return CLI_ERROR;
        } else if (a->names == most) {
            return cli_failf("'%s' does not know what to do with '%.80s': see 'vitro help %s'", verb, argv[i], verb);
        } else {
            a->name[a->names++] = argv[i];
        }
    }
    if (a->names < least)
        return cli_failf("which machine? See 'vitro help %s', and 'vitro list'", verb);
    return 0;
}

int verb_running(const char *name, struct site_info *i, struct err *err)
{
    int r = site_look(name, i, err);

    if (r < 0 || i->running)
        return r;
    if (i->known)
        return err_set(err, ESRCH, "machine '%s' does not run: it has ended (%s)", name, i->why);
    if (define_exists(name))
        return err_set(err, ESRCH, "machine '%s' does not run: 'vitro start %s' starts it", name, name);
    return err_set(err, ENOENT, "there is no machine '%s': see 'vitro list'", name);
}

int verb_seconds(const char *text, unsigned *seconds, struct err *err)
{
    char *end;
    unsigned long v = strtoul(text, &end, 10);

    if (!isdigit((unsigned char)*text) || *end || v > 86400)
        return err_set(err, EINVAL, "'%.80s' is not a number of seconds from 0 to 86400", text);
    *seconds = (unsigned)v;
    return 0;
}
