/* The user's own folder for sockets: $XDG_RUNTIME_DIR/vitro, /run/user/UID/vitro or /tmp/vitro-UID, whichever there may be
 * first. Each level below it is 0700 and belongs to this user, or it is refused. */
#ifndef VITRO_BASE_RUNDIR_H
#define VITRO_BASE_RUNDIR_H

struct err;

/* Open the folder SUB/NAME in it, making what is missing (name may be NULL: only SUB). Both are plain names. Returns a
 * descriptor, or -errno with a sentence in err. */
int rundir_open(const char *sub, const char *name, struct err *err);

#endif
