/* The agent: the program in a guest that `vitro exec` and `vitro cp` talk to. What its files share.
 *
 * It is one static program. Its main process listens; each connection has a process of its own, which ends with it, and which may
 * begin one program. Only libc is used, and of it nothing that loads libraries at run time (NSS).
 */
#ifndef VITRO_AGENT_H
#define VITRO_AGENT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "agent/wire.h"

#define AGENT_WORDS  4096 /* arguments, or variables, of one program */
#define AGENT_GROUPS 64
#define AGENT_FAILED 125 /* exit status when it is not the program's */
#define AGENT_LEAVE_MS 5000 /* until the host has taken the last frame */

/* session.c: one connection, to its end. */
void agent_session(int fd);

/* Tell the host that it did not work. status is what vitro is to exit with. */
void agent_fail(struct wire *w, int status, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* user.c: who that is by /etc/passwd and /etc/group; an unknown number, and root without these files, are taken as they are. False:
 * there is no such user. */
struct agent_user {
    char name[64], home[256], shell[256];
    uid_t uid;
    gid_t gid, group[AGENT_GROUPS];
    unsigned groups;
};
bool agent_user_find(struct agent_user *u, const char *who);
bool agent_user_become(const struct agent_user *u);

/* run.c: a program, its streams, and what was asked for. */
struct agent_run {
    char *arg[AGENT_WORDS + 1], *env[AGENT_WORDS + 1]; /* borrowed */
    unsigned args, envs;
    const char *user, *dir, *term; /* term: on a terminal */
    pid_t pid;
    int in, out, err; /* our ends, -1: none (any more); on a terminal in and out are the same */
};
/* Words of WIRE_EXEC into r, which borrows them. False: they are no good. */
bool agent_run_parse(struct agent_run *r, char *words, size_t len);
/* Begin it. 0; or an exit status, after agent_fail(). */
int agent_run_begin(struct agent_run *r, struct wire *w);

/* copy.c: send or make what the frame in w says. */
void agent_copy(struct wire *w);

/* identity.c: take the identity that the frame in w says. */
void agent_identity(struct wire *w);

/* pump.c: carry between the program and the connection until one of them has ended. */
void agent_pump(struct agent_run *r, struct wire *w);

#endif
