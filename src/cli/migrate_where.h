/* Where a migration goes to or comes from: unix:PATH, tcp:HOST:PORT, ssh:HOST, stdio. */
#ifndef VITRO_CLI_MIGRATE_WHERE_H
#define VITRO_CLI_MIGRATE_WHERE_H

#include <sys/types.h>

struct err;

/* A connection to who receives; *ssh is the process that makes it, or 0. A descriptor, or -errno with a sentence. */
int where_connect(const char *where, const char *name, pid_t *ssh, struct err *err);
/* Wait for one connection. A descriptor, or -errno with a sentence. */
int where_accept(const char *where, struct err *err);

#endif
