/* Files to and from the host: the guest's end of `vitro cp`. Runs in the process of a connection, as root. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "agent.h"
#include "agent/tree.h"
#include "base/err.h"

static void copy_failed(struct wire *w, int r, const struct err *err)
{
    agent_fail(w, AGENT_FAILED, "in the guest: %s", err->text[0] ? err->text : r == -ECANCELED ? "that is no tree" : strerror(-r));
}

static void copy_fetch(struct wire *w, const char *path, bool newer)
{
    struct err err = { "" };
    struct tree_count count = { .newer = newer };
    int r = tree_send(w, path, &count, &err);

    if (r < 0)
        copy_failed(w, r, &err);
}

static void copy_store(struct wire *w, const char *path, const char *name, bool newer)
{
    static const uint8_t good = 0;
    char base[TREE_NAME], entry[TREE_NAME];
    struct err err = { "" };
    struct tree_count count = { .newer = newer };
    int folder = -1, r;

    tree_base(name, base);
    r = tree_target(path, base, &folder, entry, &err);
    if (r == 0)
        r = tree_take(w, folder, entry, 07777, NULL, &count, &err);
    if (folder >= 0)
        close(folder);
    if (r < 0)
        copy_failed(w, r, &err);
    else
        wire_send(w, WIRE_EXIT, &good, 1, -1);
}

void agent_copy(struct wire *w)
{
    static char text[WIRE_MAX + 2]; /* two zeros more than can come */
    enum wire_type type = wire_type(w);
    size_t len;
    const uint8_t *d = wire_data(w, &len);

    memcpy(text, d, len);
    wire_done(w);
    if (chdir("/root") < 0 && chdir("/") < 0)
        return;
    if (type == WIRE_FETCH || type == WIRE_FETCH_NEWER)
        copy_fetch(w, text, type == WIRE_FETCH_NEWER);
    else
        copy_store(w, text, text + strlen(text) + 1, type == WIRE_STORE_NEWER);
}
