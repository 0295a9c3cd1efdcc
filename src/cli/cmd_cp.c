/* vitro cp: files and folders into a guest and out of it. Thread: the main thread. */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/tree.h"
#include "api/site.h"
#include "base/bits.h"
#include "base/clock.h"
#include "base/err.h"
#include "cli/agent_link.h"
#include "cli/cli.h"
#include "cli/verb.h"

#define CP_MODES 0777 /* of what comes from a guest: no set-user-ID programs of its making */

void cmd_cp_help(void)
{
    puts("Copies a file, or a folder with all in it, into the guest of a machine that has the agent (see 'vitro help exec'), or out of it. If the\n"
         "target is a folder it goes into that, otherwise it is called so. Modes, times and symbolic links stay as they are; what is made in the\n"
         "guest is root's, what is made here yours, and never set-user-ID. A file is there whole or as it was before. A path of the guest that does\n"
         "not begin with / begins in root's home.\n\n"
         "  -u, --update     only files and links that are newer than what is in their place, or that are not there\n"
         "  --time SECONDS   how long to wait for the guest's agent (default 60)\n"
         "  --json           what was copied, as an object: files, folders, links, bytes, skipped, kept (by -u)\n\n"
         "On a terminal it shows how far it is.");
}

struct cp {
    char name[SITE_NAME_MAX + 1];
    const char *there, *here; /* in the guest, on the host */
    bool push, newer;
    unsigned seconds;
    bool json;
};

static volatile sig_atomic_t cp_stop; /* a signal's number */

static void cp_on_signal(int sig) { cp_stop = sig; }

/* NAME:PATH, where no / stands before the colon: its path, else NULL. */
static const char *cp_remote(const char *word, char name[SITE_NAME_MAX + 1])
{
    size_t len = strcspn(word, ":/");

    if (word[len] != ':' || !len || len > SITE_NAME_MAX)
        return NULL;
    snprintf(name, SITE_NAME_MAX + 1, "%.*s", (int)len, word);
    return word + len + 1;
}

static int cp_parse(struct cp *c, int argc, char **argv)
{
    const char *seconds = NULL, *from, *to;
    const struct verb_option options[] = { { "--time", NULL, &seconds }, { "-u", &c->newer, NULL }, { "--update", &c->newer, NULL }, { .name = NULL } };
    struct err err = { "" };
    struct verb_args a;
    char other[SITE_NAME_MAX + 1];

    if (verb_parse(&a, argc, argv, "cp", options, 2, 2))
        return CLI_ERROR;
    c->json = a.json;
    c->seconds = AGENT_LINK_SECONDS;
    if (seconds && verb_seconds(seconds, &c->seconds, &err) < 0)
        return cli_fail(false, &err);
    from = cp_remote(a.name[0], c->name);
    to = cp_remote(a.name[1], from ? other : c->name);
    if (!from == !to)
        return cli_failf("one of the two must be in a machine, and one here: write NAME:PATH for the one in the machine (./PATH for a name with ':')");
    c->push = to;
    c->there = to ? to : from;
    c->here = to ? a.name[0] : a.name[1];
    if (!*c->there || !*c->here)
        return cli_failf("a path is empty");
    return 0;
}

/* The path in the guest, and what it is called here, with their zeros. */
static int cp_ask(const struct cp *c, struct wire *w, struct err *err)
{
    enum wire_type type = c->push ? (c->newer ? WIRE_STORE_NEWER : WIRE_STORE) : c->newer ? WIRE_FETCH_NEWER : WIRE_FETCH;
    char text[8192], name[TREE_NAME];
    int len;

    tree_base(c->here, name);
    len = snprintf(text, sizeof(text), "%s%c%s", c->there, 0, c->push ? name : "");
    if (len >= (int)sizeof(text) - 1)
        return err_set(err, ENAMETOOLONG, "'%.40s...' is too long", c->there);
    return wire_send(w, type, text, strlen(c->there) + 1 + (c->push ? strlen(name) + 1 : 0), -1);
}

static int cp_push(const struct cp *c, struct wire *w, struct tree_count *count, struct err *err)
{
    int r = tree_send(w, c->here, count, err);

    if (err->text[0])
        return CLI_ERROR;
    if (r == 0 || r == -EPIPE) /* what the other side said before it closed may be there still */
        r = wire_wait(w, -1);
    if (r == 1 && wire_type(w) == WIRE_EXIT)
        return CLI_OK;
    return agent_link_failed(w, r == -ECANCELED ? 1 : r, err);
}

static int cp_pull(const struct cp *c, struct wire *w, struct tree_count *count, struct err *err)
{
    struct sigaction stop = { .sa_handler = cp_on_signal };
    char name[TREE_NAME], entry[TREE_NAME];
    int folder, r;

    tree_base(c->there, name);
    r = tree_target(c->here, name, &folder, entry, err);
    if (r < 0)
        return CLI_ERROR;
    sigaction(SIGINT, &stop, NULL);
    sigaction(SIGTERM, &stop, NULL);
    sigaction(SIGHUP, &stop, NULL);
    r = tree_take(w, folder, entry, CP_MODES, &cp_stop, count, err);
    close(folder);
    if (r == -EINTR && cp_stop)
        return 128 + cp_stop;
    if (r == 0 || err->text[0])
        return r == 0 ? CLI_OK : CLI_ERROR;
    return agent_link_failed(w, r == -ECANCELED ? 1 : r, err);
}

static void cp_line(const struct tree_count *c, const char *head, const char *tail)
{
    fprintf(stderr, "%svitro: %" PRIu64 " files, %" PRIu64 " MiB%s", head, c->files, c->bytes >> 20, tail);
}

/* Five times a second. */
static void cp_tell(const struct tree_count *c)
{
    static uint64_t last;
    uint64_t now = clock_host_ns(CLOCK_MONOTONIC);

    if (now - last < NSEC_PER_SEC / 5)
        return;
    last = now;
    cp_line(c, "\r\033[K", "");
}

/* It is over: the last word of progress; what was left out; the object. */
static void cp_said(const struct cp *c, const struct tree_count *count, bool good)
{
    if (count->tell && count->bytes)
        cp_line(count, "\r\033[K", "\n");
    if (good && count->skipped)
        fprintf(stderr, "vitro: %u that are neither files, folders nor links were left out\n", count->skipped);
    if (good && c->json)
        printf("{\"files\":%" PRIu64 ",\"folders\":%" PRIu64 ",\"links\":%" PRIu64 ",\"bytes\":%" PRIu64 ",\"skipped\":%u,\"kept\":%" PRIu64 "}\n", count->files,
               count->folders, count->links, count->bytes, count->skipped, count->kept);
}

int cmd_cp(int argc, char **argv)
{
    struct wire *w = calloc(1, sizeof(*w));
    struct err err = { "" };
    struct cp c = { .push = false };
    struct tree_count count = { .tell = isatty(STDERR_FILENO) ? cp_tell : NULL };
    int status = CLI_ERROR;

    if (!w) {
        status = cli_failf("out of memory");
    } else if (cp_parse(&c, argc, argv) == 0 && agent_link(w, c.name, c.seconds, &err) == 0) {
        count.newer = c.newer;
        if (cp_ask(&c, w, &err) == 0)
            status = c.push ? cp_push(&c, w, &count, &err) : cp_pull(&c, w, &count, &err);
        else if (!err.text[0])
            status = agent_link_failed(w, -EPIPE, &err);
        close(w->fd);
    }
    cp_said(&c, &count, status == CLI_OK);
    if (err.text[0])
        cli_fail(c.json, &err);
    free(w);
    return status;
}
