/* Where machines are found: a folder each in the user's runtime folder, "machines/NAME", which holds
 *
 *   state    a JSON object, and an open-file-description lock that its machine holds as long as it lives
 *   sock     the control socket, 0600
 *   vsock    sockets of the guest, if the machine has --agent
 *   console  what the console showed last (ring.h)
 *   log      what a machine in the background says on standard error
 *
 * The lock is the truth: whoever is killed gives it up, and whoever comes next tidies. A machine that ran in the background
 * leaves its folder behind with its status, log and console, until `vitro rm`; others leave nothing.
 *
 * No threads: the command line's, or the machine's before and after it runs.
 */
#ifndef VITRO_API_SITE_H
#define VITRO_API_SITE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct err;

#define SITE_NAME_MAX 64

struct site_info {
    char name[SITE_NAME_MAX + 1];
    char id[17];
    bool known;   /* there is such a folder */
    bool running; /* its lock is held */
    bool keep;
    pid_t pid;
    double started, ended; /* seconds since the epoch; 0: not yet */
    int status;            /* exit status, once ended */
    char why[64];
};

/* A machine's own hold on its place. */
struct site {
    struct site_info info;
    int parent, dir, lock; /* -1: none. parent is the folder of all: a sandbox lets nobody look for it later */
};

/* Take the place of that name, NULL: a new one. keep: the folder stays when the machine has ended. -EBUSY with a sentence:
 * a machine has it. */
int site_claim(struct site *p, const char *name, bool keep, struct err *err);
/* Make the control socket and listen on it: its descriptor, or -errno with a sentence. */
int site_listen(struct site *p, struct err *err);
/* Make or open a file of the place anew: a descriptor or -errno. */
int site_file(struct site *p, const char *file);
/* The machine has ended. */
void site_leave(struct site *p, int status, const char *why);

/* The process ends now, as what its memory lies on was lost: its machine's status is 125. For a signal's handler; nothing in a process that has claimed no place. */
void site_lost(void);

/* Look a name up, and tidy up behind a machine that was killed. 0 (info->known may be false), or -errno with a sentence. */
int site_look(const char *name, struct site_info *info, struct err *err);
/* All of them, by name, tidied up: an array to free(), its length in *n. */
int site_list(struct site_info **list, size_t *n, struct err *err);
/* Forget a machine that does not run. -EBUSY with a sentence: it does. */
int site_remove(const char *name, struct err *err);
/* A connection to the control socket of a running machine, or -errno with a sentence. */
int site_connect(const char *name, struct err *err);
/* Open a file of the place for reading: a descriptor or -errno. */
int site_open(const char *name, const char *file);
/* Wait until the machine has ended, at most ms (-1: for ever). False: it still runs. */
bool site_wait(const char *name, const char *id, int ms, struct site_info *info);

#endif
