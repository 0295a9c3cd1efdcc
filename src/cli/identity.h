/* A copy of a machine gets to know who it is now. Thread: the main thread; blocks. */
#ifndef VITRO_CLI_IDENTITY_H
#define VITRO_CLI_IDENTITY_H

struct err;

#define IDENTITY_SECONDS 20 /* that guests get for it */

/* Tell the agent in a running copy's guest its host name (the machine's name), its network cards' own addresses, and random numbers. Waits for
 * its agent for so many seconds. 1: the guest has taken them; 0: the machine has no agent; -errno with a sentence: the guest is as it was. */
int identity_tell(const char *name, unsigned seconds, struct err *err);

#endif
