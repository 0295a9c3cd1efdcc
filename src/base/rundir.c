/* The user's folder for sockets, see rundir.h. Every step is taken relative to a descriptor and never through a link,
 * so that in /tmp nobody else can lead us elsewhere. No state, any thread.
 */
#include "base/rundir.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"

#define RUNDIR_FLAGS (O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)

/* The folder name in the folder at (or by path, if at is AT_FDCWD), made if it is missing. -EPERM: not ours alone. */
static int rundir_step(int at, const char *name)
{
    struct stat st;
    int fd;

    if (mkdirat(at, name, 0700) < 0 && errno != EEXIST)
        return -errno;
    fd = openat(at, name, RUNDIR_FLAGS);
    if (fd < 0)
        return -errno;
    if (fstat(fd, &st) == 0 && st.st_uid == geteuid() && !(st.st_mode & 077))
        return fd;
    close(fd);
    return -EPERM;
}

/* A parent that exists, belongs to us and is no link. */
static int rundir_parent(const char *path)
{
    struct stat st;
    int fd = path && *path == '/' ? open(path, RUNDIR_FLAGS) : -1;

    if (fd >= 0 && fstat(fd, &st) == 0 && st.st_uid == geteuid() && !(st.st_mode & 022))
        return fd;
    if (fd >= 0)
        close(fd);
    return -1;
}

/* The folder "vitro"; where names it for messages. */
static int rundir_base(char *where, size_t size)
{
    char run[64];
    const char *parents[] = { getenv("XDG_RUNTIME_DIR"), run };

    snprintf(run, sizeof(run), "/run/user/%u", (unsigned)geteuid());
    for (unsigned i = 0; i < 2; i++) {
        int fd, parent = rundir_parent(parents[i]);

        if (parent < 0)
            continue;
        snprintf(where, size, "%s/vitro", parents[i]);
        fd = rundir_step(parent, "vitro");
        close(parent);
        return fd;
    }
    snprintf(where, size, "/tmp/vitro-%u", (unsigned)geteuid());
    return rundir_step(AT_FDCWD, where);
}

int rundir_open(const char *sub, const char *name, struct err *err)
{
    const char *steps[] = { sub, name };
    char where[256];
    int fd = rundir_base(where, sizeof(where));

    for (unsigned i = 0; fd >= 0 && i < 2 && steps[i]; i++) {
        int next = rundir_step(fd, steps[i]);

        close(fd);
        fd = next;
        strncat(where, "/", sizeof(where) - strlen(where) - 1);
        strncat(where, steps[i], sizeof(where) - strlen(where) - 1);
    }
    if (fd == -EPERM)
        return err_set(err, EPERM,
                       "the folder '%s' is not this user's alone: remove it, or name another place in "
                       "XDG_RUNTIME_DIR",
                       where);
    if (fd < 0)
        return err_set(err, -fd, "cannot use the folder '%s': %s: name another place in XDG_RUNTIME_DIR",
                       where, strerror(-fd));
    return fd;
}
