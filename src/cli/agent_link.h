/* A connection to the agent in a machine's guest, for exec and cp. Thread: the main thread; blocks. */
#ifndef VITRO_CLI_AGENT_LINK_H
#define VITRO_CLI_AGENT_LINK_H

#include "agent/wire.h"

struct err;

#define AGENT_LINK_SECONDS 60 /* that a guest gets, unless said otherwise, until its agent answers */

/* Reach the agent of a running machine, within so many seconds, and hear its greeting. w speaks over the connection then; the caller
 * closes w->fd. 0, or -errno with a sentence. */
int agent_link(struct wire *w, const char *name, unsigned seconds, struct err *err);

/* A frame that ends the conversation, or r, an error of wire.h: the exit status, and a sentence in err. */
int agent_link_failed(const struct wire *w, int r, struct err *err);

#endif
