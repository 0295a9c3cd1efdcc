/* A machine's own hold on its place: taking it, and leaving. See site.h. */
#include "api/site.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "api/site_int.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/rand.h"
#include "base/rundir.h"

#define SITE_TRIES 40 /* of 10 ms: who tidies up holds the lock for a moment */

/* The state file's text, always of one length. */
static int site_text(char text[SITE_STATE_SIZE + 1], const struct site_info *i)
{
    int n = snprintf(text, SITE_STATE_SIZE + 1,
                     "{\"name\":\"%s\",\"id\":\"%s\",\"pid\":%d,\"keep\":%s,\"started\":%.3f,\"ended\":%.3f,"
                     "\"status\":%d,\"why\":\"%s\"}",
                     i->name, i->id, (int)i->pid, i->keep ? "true" : "false", i->started, i->ended, i->status,
                     i->why);

    if (n < 0 || n > SITE_STATE_SIZE)
        return -EOVERFLOW;
    memset(text + n, '\n', (size_t)(SITE_STATE_SIZE - n));
    return 0;
}

/* One write: a reader sees the old object or the new one. */
int site_store(int fd, const struct site_info *i)
{
    char text[SITE_STATE_SIZE + 1];
    int r = site_text(text, i);

    return r < 0 ? r : pwrite(fd, text, SITE_STATE_SIZE, 0) == SITE_STATE_SIZE ? 0 : -EIO;
}

/* -- last words of a process that ends in the middle of anything: made when its place is claimed -- */

static struct {
    _Atomic bool ready;
    int fd; /* the state file, at its beginning */
    pid_t pid;
    char text[SITE_STATE_SIZE + 1];
    size_t ended; /* where ten digits of that time are */
} site_last;

static void site_prepare(const struct site *p)
{
    struct site_info i = p->info;
    const char *at;
    int fd = openat(p->dir, "state", O_WRONLY | O_CLOEXEC | O_NOFOLLOW);

    i.ended = 1e9;
    i.status = 125;
    snprintf(i.why, sizeof(i.why), "what its memory lies on was lost");
    if (fd < 0 || site_text(site_last.text, &i) < 0 || !(at = strstr(site_last.text, "\"ended\":"))) {
        if (fd >= 0)
            close(fd);
        return;
    }
    site_last.ended = (size_t)(at - site_last.text) + strlen("\"ended\":");
    site_last.fd = fd;
    site_last.pid = p->info.pid;
    atomic_store(&site_last.ready, true);
}

static void site_forget(void)
{
    if (atomic_exchange(&site_last.ready, false))
        close(site_last.fd);
}

void site_lost(void)
{
    time_t now = time(NULL);

    if (getpid() != site_last.pid || !atomic_exchange(&site_last.ready, false))
        return;
    for (unsigned n = 10; n-- > 0; now /= 10)
        site_last.text[site_last.ended + n] = (char)('0' + now % 10);
    (void)!write(site_last.fd, site_last.text, SITE_STATE_SIZE);
}

int site_lock(int fd, bool take)
{
    struct flock l = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

    if (take)
        return fcntl(fd, F_OFD_SETLK, &l) == 0 ? 0 : -errno;
    if (fcntl(fd, F_OFD_GETLK, &l) < 0)
        return -errno;
    return l.l_type == F_UNLCK ? 0 : -EAGAIN;
}

/* The file that is locked is still the one that has the name. */
static bool site_is_current(const struct site *p)
{
    struct stat a, b;

    return fstat(p->lock, &a) == 0 && fstatat(p->dir, "state", &b, AT_SYMLINK_NOFOLLOW) == 0 &&
           a.st_ino == b.st_ino && a.st_dev == b.st_dev;
}

static void site_drop(struct site *p)
{
    if (p->lock >= 0)
        close(p->lock);
    if (p->dir >= 0)
        close(p->dir);
    if (p->parent >= 0)
        close(p->parent);
    p->lock = p->dir = p->parent = -1;
}

/* One try: 0, -EAGAIN: somebody has the lock, or an error. */
static int site_try(struct site *p, const char *name, struct err *err)
{
    int r;

    p->parent = rundir_open("machines", NULL, err);
    p->dir = p->parent < 0 ? p->parent : rundir_open("machines", name, err);
    if (p->dir < 0) {
        r = p->dir;
        site_drop(p);
        return r;
    }
    p->lock = openat(p->dir, "state", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    r = p->lock < 0 ? -errno : site_lock(p->lock, true);
    if (r == 0 && !site_is_current(p))
        r = -ENOENT;
    if (r == 0)
        return 0;
    site_drop(p);
    if (r == -ENOENT || r == -EAGAIN || r == -EACCES)
        return -EAGAIN; /* it was removed in between, or is taken */
    return err_set(err, -r, "cannot use the folder of machine '%s': %s", name, strerror(-r));
}

static int site_taken(const char *name, struct err *err)
{
    struct site_info i;

    if (site_look(name, &i, NULL) == 0 && i.running && i.pid)
        return err_set(err, EBUSY,
                       "machine '%s' is running already (process %d): stop it with 'vitro stop %s', or choose another "
                       "--name",
                       name, (int)i.pid, name);
    return err_set(err, EBUSY, "machine '%s' is being started by somebody else at this moment", name);
}

/* Does a machine that has this lock also say so? Then there is no reason to wait for it. */
static bool site_is_alive(const char *name)
{
    int fd = site_connect(name, NULL);

    if (fd >= 0)
        close(fd);
    return fd >= 0;
}

int site_claim(struct site *p, const char *name, bool keep, struct err *err)
{
    struct rand_source rand;
    uint64_t id = 0;
    int r = -EAGAIN;

    memset(p, 0, sizeof(*p));
    p->parent = p->dir = p->lock = -1;
    rand_init_host(&rand);
    if (rand_u64(&rand, &id) < 0)
        return err_set(err, EIO, "the host gives no random numbers");
    snprintf(p->info.id, sizeof(p->info.id), "%012" PRIx64, id & (UINT64_MAX >> 16));
    if (name)
        snprintf(p->info.name, sizeof(p->info.name), "%s", name);
    else
        snprintf(p->info.name, sizeof(p->info.name), "vm-%.8s", p->info.id);
    for (unsigned n = 0; r == -EAGAIN && n < SITE_TRIES; n++) {
        if (n && site_is_alive(p->info.name))
            break;
        if (n)
            usleep(10000);
        r = site_try(p, p->info.name, err);
    }
    if (r == -EAGAIN)
        return site_taken(p->info.name, err);
    if (r < 0)
        return r;
    p->info.pid = getpid();
    p->info.keep = keep;
    p->info.started = clock_host_seconds(CLOCK_REALTIME);
    site_sweep(p->dir, false);
    r = site_store(p->lock, &p->info);
    if (r < 0)
        site_drop(p);
    else
        site_prepare(p);
    return r < 0 ? err_set(err, -r, "cannot write the state of machine '%s': %s", p->info.name, strerror(-r)) : 0;
}

int site_listen(struct site *p, struct err *err)
{
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    int r = 0, fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    snprintf(a.sun_path, sizeof(a.sun_path), "/proc/self/fd/%d/sock", p->dir);
    /* A client that does not wait (curl) is refused when the queue is full, so a burst on a busy host must fit. */
    if (fd < 0 || fchmod(fd, 0600) < 0 || bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(fd, SOMAXCONN) < 0)
        r = -errno;
    if (r == 0)
        return fd;
    if (fd >= 0)
        close(fd);
    return err_set(err, -r, "cannot make the control socket of machine '%s': %s", p->info.name, strerror(-r));
}

int site_file(struct site *p, const char *file)
{
    int fd;

    unlinkat(p->dir, file, 0);
    fd = openat(p->dir, file, O_RDWR | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
    return fd < 0 ? -errno : fd;
}

void site_leave(struct site *p, int status, const char *why)
{
    if (p->lock < 0)
        return;
    site_forget();
    p->info.ended = clock_host_seconds(CLOCK_REALTIME);
    p->info.status = status;
    snprintf(p->info.why, sizeof(p->info.why), "%s", why);
    site_store(p->lock, &p->info); /* also for who waits with the file open */
    unlinkat(p->dir, "sock", 0);
    if (!p->info.keep)
        site_erase(p->parent, p->dir, p->info.name);
    site_drop(p);
}
