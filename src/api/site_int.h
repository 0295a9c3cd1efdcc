/* Between site.c and site_look.c. */
#ifndef VITRO_API_SITE_INT_H
#define VITRO_API_SITE_INT_H

#include "api/site.h"

#define SITE_STATE_SIZE 512

/* Write the state file; 0 or -errno. */
int site_store(int fd, const struct site_info *i);
/* Take the lock of a state file, or only look: 0, -EAGAIN: a machine holds it, or another -errno. */
int site_lock(int fd, bool take);
/* Remove the files of a place: what an earlier machine left, or (all) everything. The lock is held. */
void site_sweep(int dir, bool all);
/* Remove the whole place. The lock is held. */
void site_erase(int parent, int dir, const char *name);

#endif
