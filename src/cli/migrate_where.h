/* Where a migration goes to or comes from: unix:PATH, tcp:HOST:PORT, ssh:HOST, stdio. */
#ifndef VITRO_CLI_MIGRATE_WHERE_H
#define VITRO_CLI_MIGRATE_WHERE_H

#include <stdbool.h>
#include <sys/types.h>

struct err;

/* What ssh:HOST needs; all borrowed. */
struct where_ssh {
    const char *config;        /* ssh's configuration file, or NULL: its own */
    const char *name;          /* the machine's */
    const char *const *option; /* of the receiving vitro; ends with NULL */
    bool copy_disks;           /* both sides have to say so */
    pid_t pid;                 /* out: the process, or 0 */
};

/* A connection to who receives. A descriptor, or -errno with a sentence. */
int where_connect(const char *where, struct where_ssh *ssh, struct err *err);
/* The connection has served its purpose: waits for ssh, some seconds, then ends it. Nothing if there is none. */
void where_disconnect(const struct where_ssh *ssh);
/* Wait for one connection. A descriptor, or -errno with a sentence. */
int where_accept(const char *where, struct err *err);

#endif
