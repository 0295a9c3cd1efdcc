/* See save_helper.h. A request is one byte, an answer a sentence (empty: all is well), with the file beside it.
 *
 * The process has nothing of the machine: all other descriptors are closed, among them the lock of the machine's place.
 */
#include "cli/save_helper.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/err.h"
#include "base/fdpass.h"
#include "block/image.h"

enum { HELPER_BEGIN = 'b', HELPER_COMMIT = 'c' };

/* -- the process -- */

static bool helper_answer(int fd, const char *text, int passed)
{
    return fdpass_send(fd, text, strlen(text) + 1, &passed, passed >= 0) >= 0;
}

static bool helper_do(int fd, char what, const char *path, struct image_draft *draft)
{
    struct err err = { "" };
    int r;

    if (what == HELPER_BEGIN) {
        image_draft_abort(draft);
        r = image_draft_begin(draft, path, true, &err);
    } else {
        r = draft->fd < 0 ? err_set(&err, ENOENT, "there is no file") : image_draft_commit(draft, &err);
    }
    return helper_answer(fd, r < 0 ? err.text : "", draft->fd);
}

static void helper_run(int fd, const char *path, pid_t parent)
{
    struct image_draft draft = { .fd = -1 };
    char what;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    close_range(0, (unsigned)fd - 1, 0);
    close_range((unsigned)fd + 1, ~0U, 0);
    while (getppid() == parent && recv(fd, &what, 1, 0) == 1 && helper_do(fd, what, path, &draft))
        ;
    image_draft_abort(&draft);
}

int save_helper_start(struct save_helper *h, const char *path, struct err *err)
{
    pid_t parent = getpid();
    int fds[2];

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) < 0)
        return err_set(err, errno, "cannot make a socket for --save: %s", strerror(errno));
    fflush(NULL);
    h->pid = fork();
    if (h->pid == 0) {
        helper_run(fds[1], path, parent);
        _exit(0);
    }
    close(fds[1]);
    h->fd = fds[0];
    if (h->pid > 0)
        return 0;
    close(fds[0]);
    h->fd = -1;
    return err_set(err, errno, "cannot start a process for --save: %s", strerror(errno));
}

/* -- the machine's side -- */

/* Returns 0, or -errno with a sentence; *passed is what came along, or -1. */
static int helper_ask(struct save_helper *h, char what, int *passed, struct err *err)
{
    char text[sizeof(err->text)] = "";
    unsigned count;

    *passed = -1;
    if (h->fd < 0 || send(h->fd, &what, 1, MSG_NOSIGNAL) != 1 || fdpass_recv(h->fd, text, sizeof(text) - 1, 0, passed, 1, &count) <= 0)
        return err_set(err, EPIPE, "the process that makes the files of --save has ended");
    return text[0] ? err_set(err, EIO, "%s", text) : 0;
}

int save_helper_begin(struct save_helper *h, struct err *err)
{
    int fd, r = helper_ask(h, HELPER_BEGIN, &fd, err);

    return r < 0 ? r : fd;
}

int save_helper_commit(struct save_helper *h, struct err *err)
{
    int fd;

    return helper_ask(h, HELPER_COMMIT, &fd, err);
}

void save_helper_stop(struct save_helper *h)
{
    if (h->fd < 0)
        return;
    close(h->fd);
    h->fd = -1;
    while (waitpid(h->pid, NULL, 0) < 0 && errno == EINTR)
        ;
}
