/* Files, folders and links over a connection between host and guest (docs/design/agent.md): one side sends a tree, the other makes it.
 *
 * The receiver trusts nothing that comes: names are single components, every folder is reached through the descriptor of the one that it is
 * in, no link is followed below the place that the caller named, and a file has its name only when it is whole.
 *
 * No threads, no locks. Used by the command line and by the agent.
 */
#ifndef VITRO_AGENT_TREE_H
#define VITRO_AGENT_TREE_H

#include <signal.h>
#include <sys/types.h>

#include "agent/wire.h"

struct err;

#define TREE_DEPTH 200 /* folders in folders; each has a descriptor */
#define TREE_NAME  256 /* with its zero */

/* What was copied so far. skipped: what was neither file, folder nor link, or went away meanwhile, as the sender says at the end; kept: what
 * the receiver had already, and not older. */
struct tree_count {
    bool newer; /* the caller's: only files and links go that are newer than what is in their place. Both sides must want it */
    uint64_t files, folders, links, bytes, kept;
    unsigned skipped;
    void (*tell)(const struct tree_count *c); /* called now and then; NULL: not */
};

/* Send what is at path (a link there is followed), then WIRE_END. *c: all zeros but tell and newer.
 * 0; -ECANCELED: the peer has sent a frame, which w holds; another -errno with a sentence, or one of wire.h without. */
int tree_send(struct wire *w, const char *path, struct tree_count *c, struct err *err);

/* Where something that is called name goes if the user says path: into it if that is a folder, else as it. *folder is a descriptor for the
 * caller to close; entry is the name in it, "." for the folder itself. 0 or -errno with a sentence. */
int tree_target(const char *path, const char *name, int *folder, char entry[TREE_NAME], struct err *err);

/* The last component of a path, "." if it has no name of its own. */
void tree_base(const char *path, char name[TREE_NAME]);

/* Make what comes, as entry in folder, until WIRE_END. modes: the bits that files and folders may have of what they had. stop (may be
 * NULL): looked at now and then. *c: all zeros but tell and newer. 0; -EINTR: *stop; -ECANCELED: a frame that is none of a tree, which w
 * holds; another -errno with a sentence, or one of wire.h without. */
int tree_take(struct wire *w, int folder, const char *entry, mode_t modes, const volatile sig_atomic_t *stop, struct tree_count *c,
              struct err *err);

/* tree_head.c: what DIR, FILE and LINK begin with: mode, seconds and nanoseconds of the last change; then the name, and a link's target,
 * each with its zero. */
struct tree_entry {
    uint32_t mode, nsec;
    int64_t sec;
    const char *name, *target; /* borrowed */
};
#define TREE_HEAD 16
int tree_put_entry(struct wire *w, enum wire_type type, const struct tree_entry *e);
/* Of the frame in w, which it borrows. False: it is none. */
bool tree_get_entry(const struct wire *w, struct tree_entry *e);

#endif
