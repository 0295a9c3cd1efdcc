/* A copy of a machine gets to know who it is now. Thread: the main thread; blocks. */
#ifndef VITRO_CLI_IDENTITY_H
#define VITRO_CLI_IDENTITY_H

#include <stdbool.h>

struct err;

#define IDENTITY_SECONDS 20 /* that guests get for it */

/* Tell the agent in a running machine's guest random numbers, with which its kernel's begin anew. other: it is a copy, which also gets to know its host
 * name (the machine's name) and its network cards' own addresses. Waits for the agent for so many seconds. 1: the guest has taken them; 0: the
 * machine has no agent; -errno with a sentence: what it has not taken is as it was. */
int identity_tell(const char *name, bool other, unsigned seconds, struct err *err);

/* Wait until the guest's kernel has dealt with the machine's new generation ID, for at most so many seconds. 1: it has, and its random numbers have begun
 * anew; 0: it has no driver for that; -errno with a sentence, -ETIMEDOUT if the time is over. */
int identity_await(const char *name, unsigned seconds, struct err *err);

/* Both: the one, and where that does not do it, the other. Says on stderr what the guest does not know. */
void identity_settle(const char *name, bool other);

#endif
