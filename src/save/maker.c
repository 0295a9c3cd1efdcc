/* A process that makes files. See maker.h. A request and its answer are one packet each.
 *
 * The process trusts its peer as little as it can: packets of the wrong length are not answered, paths end where they must.
 */
#include "save/maker.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/err.h"
#include "base/fdpass.h"
#include "block/image.h"
#include "save/format.h"

enum maker_op { MAKER_BEGIN, MAKER_COMMIT, MAKER_ABORT };

struct maker_ask {
    uint32_t op, slot;
    char path[PATH_MAX];
};

struct maker_answer {
    int32_t result;
    struct err err;
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

/* fd goes along if it is not negative. */
static bool maker_answer(int sock, const struct maker_answer *answer, int fd)
{
    return fdpass_send(sock, answer, sizeof(*answer), &fd, fd >= 0) == (ssize_t)sizeof(*answer);
}

/* Until the machine's process has ended. */
static void maker_serve(int sock, const char *only)
{
    struct image_draft draft[MAKER_SLOTS] = { { .fd = -1 }, { .fd = -1 } };
    struct maker_ask a;
    bool good = true;

    while (good && recv(sock, &a, sizeof(a), 0) == (ssize_t)sizeof(a) && a.slot < MAKER_SLOTS) {
        struct maker_answer answer = { .err = { "" } };
        struct image_draft *d = &draft[a.slot];

        a.path[sizeof(a.path) - 1] = 0;
        answer.result = maker_do(d, &a, only, &answer.err);
        good = maker_answer(sock, &answer, answer.result == 0 && a.op == MAKER_BEGIN ? d->fd : -1);
    }
    for (unsigned n = 0; n < MAKER_SLOTS; n++)
        image_draft_abort(&draft[n]);
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

/* 0 or -errno with a sentence; *fd is what came along. */
static int maker_call(struct maker *m, const struct maker_ask *a, int *fd, struct err *err)
{
    struct maker_answer answer = { .result = -EIO };

    *fd = -1;
    if (m->fd < 0 || send(m->fd, a, sizeof(*a), MSG_NOSIGNAL) != (ssize_t)sizeof(*a) || !maker_listen(m, &answer, fd))
        return err_set(err, EIO, "the process that makes files has ended");
    if (answer.result < 0)
        return err_set(err, -answer.result, "%s", answer.err.text);
    return 0;
}

int maker_begin(struct maker *m, unsigned slot, const char *path, struct err *err)
{
    struct maker_ask a = { .op = MAKER_BEGIN, .slot = slot };
    int fd, r;

    if (!*path || strlen(path) >= sizeof(a.path))
        return err_set(err, EINVAL, "a file's path is empty or too long");
    strcpy(a.path, path);
    r = maker_call(m, &a, &fd, err);
    return r < 0 ? r : fd >= 0 ? fd : err_set(err, EIO, "'%.300s' could not be handed over", path);
}

int maker_commit(struct maker *m, unsigned slot, struct err *err)
{
    struct maker_ask a = { .op = MAKER_COMMIT, .slot = slot };
    int fd;

    return maker_call(m, &a, &fd, err);
}

void maker_abort(struct maker *m, unsigned slot)
{
    struct maker_ask a = { .op = MAKER_ABORT, .slot = slot };
    int fd;

    maker_call(m, &a, &fd, NULL);
}
