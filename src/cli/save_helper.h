/* The files of `vitro run --save`: a process that stays outside the machine's sandbox makes them and gives them their names, for the machine
 * may open none. It knows one path, ends with the machine, and is asked nothing else than these two things.
 *
 * Threads: the machine's; each call waits for its answer.
 */
#ifndef VITRO_CLI_SAVE_HELPER_H
#define VITRO_CLI_SAVE_HELPER_H

#include <sys/types.h>

struct err;

struct save_helper {
    int fd; /* -1: not started */
    pid_t pid;
};

/* Before other threads exist. 0, or -errno with a sentence. */
int save_helper_start(struct save_helper *h, const char *path, struct err *err);
/* A new file without a name, open for writing, the caller's; the one before, if it got no name, is thrown away. Or -errno with a
 * sentence. */
int save_helper_begin(struct save_helper *h, struct err *err);
/* The file is whole: it is made durable under the path, in place of what is there. 0, or -errno with a sentence. */
int save_helper_commit(struct save_helper *h, struct err *err);
void save_helper_stop(struct save_helper *h);

#endif
