/* The files of each kind of thread, by Landlock: a thread may open nothing by name but what stands here.
 * Sources: landlock(7), landlock_create_ruleset(2), landlock_add_rule(2).
 *
 * What is open already stays usable: disks with their backing files, kernels, flash, serial ports. So no thread needs a
 * rule for those, and what is left is little:
 *
 *   share threads     the shared folders, for reading only where the guest may only read
 *   net-user          the resolver's configuration, which libslirp reads again when it changes
 *   net-switch, main  the sockets of the switch's members, to remove them
 *   main              the folders of sockets of serial ports and of --vsock, to remove these at the end
 *
 * Rights are those of the kernel that runs: what a version does not know it cannot refuse. Other users of TCP than
 * libslirp may neither connect nor listen (version 4), nobody reaches abstract sockets of others (version 6).
 */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/err.h"
#include "base/rundir.h"
#include "machine/config.h"

#ifndef SYS_landlock_create_ruleset
#define SYS_landlock_create_ruleset 444
#define SYS_landlock_add_rule       445
#endif

/* The kernel's interface, as its headers here may be older than it is. */
enum {
    LL_EXECUTE = 1 << 0,
    LL_WRITE_FILE = 1 << 1,
    LL_READ_FILE = 1 << 2,
    LL_READ_DIR = 1 << 3,
    LL_REMOVE_DIR = 1 << 4,
    LL_REMOVE_FILE = 1 << 5,
    LL_MAKE_CHAR = 1 << 6,
    LL_MAKE_BLOCK = 1 << 11,
    LL_ALL_1 = (1 << 13) - 1,
    LL_REFER = 1 << 13,    /* version 2: move and link between folders */
    LL_TRUNCATE = 1 << 14, /* 3 */
    LL_IOCTL_DEV = 1 << 15 /* 5 */
};
enum { LL_TCP_BIND_CONNECT = 3 /* 4 */, LL_SCOPE_ABSTRACT = 1 /* 6 */ };
enum { LL_VERSION = 1 /* flag of create_ruleset */, LL_PATH_BENEATH = 1 };

struct ll_ruleset {
    uint64_t fs, net, scoped;
};

struct ll_path {
    uint64_t rights;
    int32_t fd;
} __attribute__((packed));

/* While the rule sets are made. */
struct sandbox_build {
    const struct machine_config *cfg;
    struct guard_fence *fence;
    int version;
    uint64_t fs; /* all rights that the kernel knows */
};

int sandbox_landlock_version(void)
{
    long r = syscall(SYS_landlock_create_ruleset, NULL, 0, LL_VERSION);

    return r < 0 ? 0 : (int)r;
}

static int sandbox_files_make(const struct sandbox_build *b, enum guard_kind kind)
{
    struct ll_ruleset a = { .fs = b->fs };

    if (b->version >= 4 && kind != GUARD_NET_USER)
        a.net = LL_TCP_BIND_CONNECT;
    if (b->version >= 6)
        a.scoped = LL_SCOPE_ABSTRACT;
    b->fence[kind].files = (int)syscall(SYS_landlock_create_ruleset, &a, sizeof(a), 0);
    return b->fence[kind].files < 0 ? -errno : 0;
}

/* Threads of the kind may do this with what fd (O_PATH will do) is, and with what is below it. Closes fd. */
static int sandbox_files_add(const struct sandbox_build *b, enum guard_kind kind, int fd, uint64_t rights)
{
    struct ll_path p = { .rights = rights & b->fs, .fd = fd };
    int r = 0;

    if (b->fence[kind].files >= 0 &&
        syscall(SYS_landlock_add_rule, b->fence[kind].files, LL_PATH_BENEATH, &p, 0) < 0)
        r = -errno;
    close(fd);
    return r;
}

/* What is not there needs no rule: whoever needs the file will say so. */
static int sandbox_files_path(const struct sandbox_build *b, enum guard_kind kind, const char *path, uint64_t rights)
{
    int fd = open(path, O_PATH | O_CLOEXEC);

    return fd < 0 ? 0 : sandbox_files_add(b, kind, fd, rights);
}

/* The folder that a socket is in. */
static int sandbox_files_folder(const struct sandbox_build *b, const char *socket)
{
    char path[PATH_MAX];

    if (strlen(socket) >= sizeof(path))
        return 0;
    strcpy(path, socket);
    return sandbox_files_path(b, GUARD_MAIN, dirname(path), LL_REMOVE_FILE);
}

static int sandbox_files_socket(const struct sandbox_build *b, const char *where)
{
    return strncmp(where, "unix:", 5) ? 0 : sandbox_files_folder(b, where + 5);
}

static int sandbox_files_serial(const struct sandbox_build *b)
{
    int r = 0;

    for (unsigned n = 0; r == 0 && n < CONFIG_SERIALS; n++)
        r = sandbox_files_socket(b, config_serial(b->cfg, n));
    for (unsigned n = 0; r == 0 && n < b->cfg->consoles; n++)
        r = sandbox_files_socket(b, b->cfg->console[n].where);
    if (r == 0 && b->cfg->vsock_path)
        r = sandbox_files_folder(b, b->cfg->vsock_path);
    return r;
}

/* The folder, because programs replace the file; as root only the file, because root may read all others in /etc. */
static int sandbox_files_resolver(const struct sandbox_build *b)
{
    char path[PATH_MAX];

    if (!realpath("/etc/resolv.conf", path))
        return 0;
    return sandbox_files_path(b, GUARD_NET_USER, geteuid() == 0 && !strncmp(path, "/etc/", 5) ? path : dirname(path),
                              LL_READ_FILE);
}

static int sandbox_files_switch(const struct sandbox_build *b, const char *name)
{
    static const enum guard_kind kinds[] = { GUARD_NET_SWITCH, GUARD_MAIN };
    int r = 0;

    for (unsigned n = 0; r == 0 && n < ARRAY_LEN(kinds); n++) {
        int fd = rundir_open("switch", name, NULL);

        r = fd < 0 ? 0 : sandbox_files_add(b, kinds[n], fd, LL_REMOVE_FILE);
    }
    return r;
}

static int sandbox_files_net(const struct sandbox_build *b)
{
    int r = 0;

    for (unsigned n = 0; r == 0 && n < b->cfg->nets; n++) {
        const struct net_config *net = &b->cfg->net[n]->port;

        if (net->kind == NET_USER)
            r = sandbox_files_resolver(b);
        else if (net->kind == NET_SWITCH)
            r = sandbox_files_switch(b, net->name);
    }
    return r;
}

/* Version 1 always refuses what LL_REFER is for, and a share without it is not whole. */
static int sandbox_files_share(const struct sandbox_build *b, char *note, size_t len)
{
    const uint64_t all = b->fs & ~(uint64_t)(LL_EXECUTE | LL_MAKE_CHAR | LL_MAKE_BLOCK | LL_IOCTL_DEV);
    int r = 0;

    for (unsigned n = 0; r == 0 && n < b->cfg->shares; n++) {
        const struct config_share *s = &b->cfg->share[n];

        if (!s->ro && b->version < 2) {
            close(b->fence[GUARD_SHARE].files);
            b->fence[GUARD_SHARE].files = -1;
            snprintf(note, len, "this kernel's Landlock is too old for a share that the guest may write to: nothing but "
                                "vitro itself keeps the share's threads inside");
            return 0;
        }
        int fd = open(s->path, O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (fd >= 0) /* else opening the share says what it is */
            r = sandbox_files_add(b, GUARD_SHARE, fd, s->ro ? LL_READ_FILE | LL_READ_DIR : all);
    }
    return r;
}

/* The machine's own place in the runtime folder. */
static int sandbox_files_site(const struct sandbox_build *b, const int folders[2])
{
    static const uint64_t rights[2] = { LL_REMOVE_FILE, LL_REMOVE_DIR };
    int r = 0;

    for (unsigned n = 0; r == 0 && n < 2; n++) {
        int fd = folders[n] < 0 ? -1 : fcntl(folders[n], F_DUPFD_CLOEXEC, 3);

        r = fd < 0 ? 0 : sandbox_files_add(b, GUARD_MAIN, fd, rights[n]);
    }
    return r;
}

int sandbox_files(const struct machine_config *cfg, const int folders[2], struct guard_fence fence[GUARD_KINDS], char *note,
                  size_t len, struct err *err)
{
    struct sandbox_build b = { .cfg = cfg, .fence = fence, .version = sandbox_landlock_version(), .fs = LL_ALL_1 };
    int r = 0;

    *note = 0;
    if (!b.version) {
        snprintf(note, len, "this kernel has no Landlock: system calls are limited, files are not");
        return 0;
    }
    b.fs |= (b.version >= 2 ? LL_REFER : 0) | (b.version >= 3 ? LL_TRUNCATE : 0) | (b.version >= 5 ? LL_IOCTL_DEV : 0);
    for (unsigned k = GUARD_MAIN; r == 0 && k < GUARD_KINDS; k++)
        r = sandbox_files_make(&b, (enum guard_kind)k);
    if (r == 0)
        r = sandbox_files_site(&b, folders);
    if (r == 0)
        r = sandbox_files_serial(&b);
    if (r == 0)
        r = sandbox_files_net(&b);
    if (r == 0)
        r = sandbox_files_share(&b, note, len);
    return r < 0 ? err_set(err, -r, "cannot fence off files by Landlock: %s", strerror(-r)) : 0;
}
