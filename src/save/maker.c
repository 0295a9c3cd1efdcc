/* A process that makes files. See maker.h. A request and its answer are one packet each.
 *
 * The process trusts its peer as little as it can: packets of the wrong length are not answered, paths end where they must.
 */
#include "save/maker.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/err.h"
#include "base/fdpass.h"
#include "block/file.h"
#include "block/image.h"
#include "save/format.h"

enum maker_op { MAKER_BEGIN, MAKER_COMMIT, MAKER_ABORT, MAKER_ALLOW, MAKER_SEAL, MAKER_OPEN, MAKER_OPEN_RO };

struct maker_ask {
    uint32_t op, slot;
    char path[PATH_MAX];
};

struct maker_answer {
    int32_t result;
    uint64_t size; /* MAKER_OPEN */
    struct err err;
};

/* The folders of images, as realpath() has them. */
struct maker_folders {
    char *path[MAKER_FOLDERS];
    unsigned count;
    bool sealed;
};

/* ---- the process ---- */

/* What is at path may be replaced: it is what the user named, or there is nothing, or what we make. */
static bool maker_ours(const char *path, const char *only)
{
    char head[sizeof(MAKER_TEXT)] = "";
    struct stat st;
    bool ours;
    int fd;

    if (only)
        return !strcmp(path, only);
    fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY | O_NOFOLLOW);
    if (fd < 0)
        return errno == ENOENT;
    ours = fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && read(fd, head, sizeof(head) - 1) >= 0 &&
           (!st.st_size || !memcmp(head, SAVE_MAGIC, 8) || !strcmp(head, MAKER_TEXT));
    close(fd);
    return ours;
}

static int maker_do(struct image_draft *d, const struct maker_ask *a, const char *only, struct err *err)
{
    if (a->op == MAKER_COMMIT && d->path)
        return maker_ours(d->path, only) ? image_draft_commit(d, err)
                                   : err_set(err, EEXIST, "'%.300s' is something else by now", d->path);
    image_draft_abort(d);
    if (a->op == MAKER_ABORT)
        return 0;
    if (a->op != MAKER_BEGIN)
        return err_set(err, EINVAL, "there is no such file");
    if (!maker_ours(a->path, only))
        return err_set(err, EEXIST, "'%.300s' exists, and is not replaced because it is no snapshot", a->path);
    return image_draft_begin(d, a->path, true, err);
}

/* ---- images ---- */

/* The folder that a file's name stands in; NULL: there is none. The last part may be a link, as in /dev/mapper: whose folder is allowed may say so. */
static char *maker_folder(const char *path)
{
    char copy[PATH_MAX];

    strcpy(copy, path);
    return realpath(dirname(copy), NULL);
}

static int maker_do_allow(struct maker_folders *f, const char *path, struct err *err)
{
    char *folder = f->sealed || f->count == MAKER_FOLDERS ? NULL : maker_folder(path);

    if (!folder)
        return err_set(err, EPERM, "the folder of '%.300s' cannot be opened later", path);
    f->path[f->count++] = folder;
    return 0;
}

static bool maker_allowed(const struct maker_folders *f, const char *path)
{
    char *folder = maker_folder(path);
    bool good = false;

    for (unsigned n = 0; folder && !good && n < f->count; n++) {
        size_t len = strlen(f->path[n]);

        good = !strncmp(folder, f->path[n], len) && (!folder[len] || folder[len] == '/');
    }
    free(folder);
    return good;
}

/* A descriptor, or -errno with a sentence. */
static int maker_do_open(const struct maker_folders *f, const struct maker_ask *a, uint64_t *size, struct err *err)
{
    if (!f->sealed || !maker_allowed(f, a->path))
        return err_set(err, EACCES, "'%.300s' is in no folder that had a drive when the machine was started", a->path);
    return block_file_open_how(a->path, a->op == MAKER_OPEN_RO, false, size, err);
}

/* ---- packets ---- */

/* fd goes along if it is not negative. */
static bool maker_answer(int sock, const struct maker_answer *answer, int fd)
{
    return fdpass_send(sock, answer, sizeof(*answer), &fd, fd >= 0) == (ssize_t)sizeof(*answer);
}

/* What was opened, else -1. */
static int maker_serve_images(struct maker_folders *f, const struct maker_ask *a, struct maker_answer *answer)
{
    int r = 0;

    if (a->op == MAKER_SEAL)
        f->sealed = true;
    else if (a->op == MAKER_ALLOW)
        r = maker_do_allow(f, a->path, &answer->err);
    else
        r = maker_do_open(f, a, &answer->size, &answer->err);
    answer->result = r < 0 ? r : 0;
    return a->op == MAKER_OPEN || a->op == MAKER_OPEN_RO ? r : -1;
}

static bool maker_serve_one(int sock, struct image_draft *draft, struct maker_folders *f, struct maker_ask *a, const char *only)
{
    struct maker_answer answer = { .err = { "" } };
    struct image_draft *d = &draft[a->slot];
    bool good;
    int fd;

    a->path[sizeof(a->path) - 1] = 0;
    if (a->op <= MAKER_ABORT) {
        answer.result = maker_do(d, a, only, &answer.err);
        return maker_answer(sock, &answer, answer.result == 0 && a->op == MAKER_BEGIN ? d->fd : -1);
    }
    fd = maker_serve_images(f, a, &answer);
    good = maker_answer(sock, &answer, fd);
    if (fd >= 0)
        close(fd);
    return good;
}

/* Until the machine's process has ended. */
static void maker_serve(int sock, const char *only)
{
    struct image_draft draft[MAKER_SLOTS] = { { .fd = -1 }, { .fd = -1 } };
    struct maker_folders folders = { .count = 0 };
    struct maker_ask a;
    bool good = true;

    while (good && recv(sock, &a, sizeof(a), 0) == (ssize_t)sizeof(a) && a.slot < MAKER_SLOTS && a.op <= MAKER_OPEN_RO)
        good = maker_serve_one(sock, draft, &folders, &a, only);
    for (unsigned n = 0; n < MAKER_SLOTS; n++)
        image_draft_abort(&draft[n]);
    while (folders.count)
        free(folders.path[--folders.count]);
}

/* It has nothing open but the socket, and ends by its end only: a terminal's Ctrl-C is the machine's. */
_Noreturn static void maker_child(int sock, const char *only)
{
    signal(SIGINT, SIG_IGN);
    signal(SIGTERM, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    signal(SIGPIPE, SIG_IGN);
    if (sock > 0)
        close_range(0, (unsigned)sock - 1, 0);
    close_range((unsigned)sock + 1, ~0U, 0);
    maker_serve(sock, only);
    _exit(0);
}

/* ---- the machine's side ---- */

int maker_start(struct maker *m, const char *only, struct err *err)
{
    int pair[2];

    *m = (struct maker){ .fd = -1 };
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return err_set(err, errno, "cannot make a pair of sockets: %s", strerror(errno));
    fflush(NULL);
    m->pid = fork();
    if (m->pid == 0)
        maker_child(pair[1], only);
    close(pair[1]);
    if (m->pid > 0) {
        m->fd = pair[0];
        return 0;
    }
    close(pair[0]);
    return err_set(err, errno, "cannot start a process that makes files: %s", strerror(errno));
}

void maker_fini(struct maker *m)
{
    if (m->fd < 0)
        return;
    close(m->fd);
    m->fd = -1;
    while (waitpid(m->pid, NULL, 0) < 0 && errno == EINTR)
        ;
}

/* Receive an answer, and the descriptor beside it (else -1). */
static bool maker_listen(struct maker *m, struct maker_answer *answer, int *fd)
{
    unsigned count;

    *fd = -1;
    return fdpass_recv(m->fd, answer, sizeof(*answer), 0, fd, 1, &count) == (ssize_t)sizeof(*answer);
}

/* 0 or -errno with a sentence; *fd is what came along, *size (may be NULL) how large it is. */
static int maker_call(struct maker *m, const struct maker_ask *a, int *fd, uint64_t *size, struct err *err)
{
    struct maker_answer answer = { .result = -EIO };

    *fd = -1;
    if (m->fd < 0 || send(m->fd, a, sizeof(*a), MSG_NOSIGNAL) != (ssize_t)sizeof(*a) || !maker_listen(m, &answer, fd))
        return err_set(err, EIO, "the process that makes files has ended");
    if (answer.result < 0)
        return err_set(err, -answer.result, "%s", answer.err.text);
    if (size)
        *size = answer.size;
    return 0;
}

static int maker_path(struct maker_ask *a, const char *path, struct err *err)
{
    if (!*path || strlen(path) >= sizeof(a->path))
        return err_set(err, EINVAL, "a file's path is empty or too long");
    strcpy(a->path, path);
    return 0;
}

/* A call that hands over a descriptor. */
static int maker_fetch(struct maker *m, struct maker_ask *a, const char *path, uint64_t *size, struct err *err)
{
    int fd, r = maker_path(a, path, err);

    if (r == 0)
        r = maker_call(m, a, &fd, size, err);
    return r < 0 ? r : fd >= 0 ? fd : err_set(err, EIO, "'%.300s' could not be handed over", path);
}

int maker_begin(struct maker *m, unsigned slot, const char *path, struct err *err)
{
    struct maker_ask a = { .op = MAKER_BEGIN, .slot = slot };

    return maker_fetch(m, &a, path, NULL, err);
}

int maker_open(struct maker *m, const char *path, bool ro, uint64_t *size, struct err *err)
{
    struct maker_ask a = { .op = ro ? MAKER_OPEN_RO : MAKER_OPEN };

    return maker_fetch(m, &a, path, size, err);
}

int maker_allow(struct maker *m, const char *path, struct err *err)
{
    struct maker_ask a = { .op = MAKER_ALLOW };
    int fd, r = maker_path(&a, path, err);

    return r < 0 ? r : maker_call(m, &a, &fd, NULL, err);
}

void maker_seal(struct maker *m)
{
    struct maker_ask a = { .op = MAKER_SEAL };
    int fd;

    maker_call(m, &a, &fd, NULL, NULL);
}

int maker_commit(struct maker *m, unsigned slot, struct err *err)
{
    struct maker_ask a = { .op = MAKER_COMMIT, .slot = slot };
    int fd;

    return maker_call(m, &a, &fd, NULL, err);
}

void maker_abort(struct maker *m, unsigned slot)
{
    struct maker_ask a = { .op = MAKER_ABORT, .slot = slot };
    int fd;

    maker_call(m, &a, &fd, NULL, NULL);
}
