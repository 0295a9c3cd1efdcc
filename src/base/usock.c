/* See usock.h. No state, any thread. */
#include "base/usock.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/rand.h"

/* The folder that path is in. A descriptor or -errno. */
static int usock_folder(const char *path)
{
    const char *slash = strrchr(path, '/');
    char folder[PATH_MAX];
    int fd;

    snprintf(folder, sizeof(folder), "%.*s", slash ? (int)(slash + 1 - path) : 1, slash ? path : ".");
    fd = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

/* A link, not a rename: that would replace what has the name. */
static int usock_at(int fd, int folder, const char *path, int backlog)
{
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    struct rand_source rand;
    const char *temp;
    uint64_t id;
    int r;

    rand_init_host(&rand);
    r = rand_u64(&rand, &id);
    if (r < 0)
        return r;
    snprintf(a.sun_path, sizeof(a.sun_path), "/proc/self/fd/%d/.vitro-%016" PRIx64, folder, id);
    temp = strrchr(a.sun_path, '/') + 1;
    if (fchmod(fd, 0600) < 0 || bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0)
        return -errno;
    if (listen(fd, backlog) < 0 || linkat(folder, temp, AT_FDCWD, path, 0) < 0)
        r = errno == EEXIST ? -EADDRINUSE : -errno;
    unlinkat(folder, temp, 0);
    return r;
}

int usock_listen(const char *path, int backlog)
{
    bool fits = *path && strlen(path) < sizeof(((struct sockaddr_un *)0)->sun_path);
    int folder = fits ? usock_folder(path) : -ENAMETOOLONG, fd, r;

    if (folder < 0)
        return folder;
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    r = fd < 0 ? -errno : usock_at(fd, folder, path, backlog);
    close(folder);
    if (r == 0)
        return fd;
    if (fd >= 0)
        close(fd);
    return r;
}
