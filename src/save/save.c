/* Saving a machine: what it is and its state are taken while it is paused, its memory is written then and there, or by a
 * child process that has it as it was: fork(2) copies nothing, the host's kernel copies a page when the machine changes it; of shared
 * memory the machine does (ram/still.h).
 *
 * The child has one thread and inherits everything, but touches only its memory, the file and a pipe: it closes all other
 * descriptors first, since disk locks belong to those, and does no more of what another thread may have been in the middle
 * of than glibc allows after fork(): malloc(), threads. It dies with its parent, and a file that has no name yet dies with
 * it. The pipe says how it went: nothing for well, else a sentence; its end is the end of the child.
 *
 * Thread: the machine's; callbacks on the loop's, which is the same.
 */
#include "save/save.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/bits.h"
#include "base/err.h"
#include "block/file.h"
#include "block/image.h"
#include "machine/vm.h"
#include "ram/still.h"
#include "save/internal.h"

/* What is written; the memory comes from vm. */
struct save_work {
    struct vm *vm;
    struct image_draft draft;
    struct state_buf state;
    char *about;
    struct save_header h;
    struct save_layers base;
    bool given, still;
};

static void save_work_fini(struct save_work *w)
{
    image_draft_abort(&w->draft);
    save_layers_fini(&w->base);
    state_buf_fini(&w->state);
    free(w->about);
    w->about = NULL;
}

/* The file: one that was given stays without a name here. */
static int save_work_file(struct save_work *w, const char *path, const struct save_options *o, struct err *err)
{
    if (!o->given)
        return image_draft_begin(&w->draft, path, o->replace, err);
    w->draft.path = strdup(path);
    return w->draft.path ? 0 : err_set(err, ENOMEM, "out of memory");
}

/* What the file can stand on, if anything: less is written then, but a whole file is as good. Takes the descriptors. */
static void save_work_base(struct save_work *w, const struct save_options *o)
{
    bool good = o->bases && o->bases < SAVE_LAYERS && o->plain && o->base_name && strlen(o->base_name) < SAVE_BASE_NAME &&
                !strchr(o->base_name, '/') && *o->base_name != '.' && *o->base_name;
    struct err err;

    for (unsigned n = 0; n < o->bases; n++) {
        if (good)
            good = save_layers_add(&w->base, o->base[n], &err) == 0;
        else
            close(o->base[n]);
    }
    if (good && save_layers_whole(&w->base) && save_layers_check(&w->base, &w->vm->ram, &err) == 0) {
        w->h.flags |= SAVE_BASE;
        w->h.base_sum = w->base.at[0].h.sum;
        strcpy(w->h.base, o->base_name);
    }
}

/* Everything but memory (what is on ephemeral disks changes with the machine, so it is written now), and the file without a name. */
static int save_work_init(struct save_work *w, struct vm *vm, const char *path, const struct save_options *o,
                          struct err *err)
{
    int r;

    *w = (struct save_work){ .vm = vm, .given = o->given, .draft = { .fd = o->given ? o->fd : -1 } };
    w->h = (struct save_header){ .version = SAVE_VERSION, .flags = o->plain ? SAVE_PLAIN : 0, .ram_off = SAVE_HEADER };
    save_work_base(w, o);
    r = save_state_take(vm, &w->state, err);
    if (r == 0)
        r = pc_flush_disks(vm, err); /* before their times of change are noted */
    if (r == 0) {
        w->about = save_about_make(vm, err);
        r = w->about ? 0 : -EINVAL;
    }
    if (r == 0)
        r = save_work_file(w, path, o, err);
    if (r == 0)
        r = save_overlays_write(vm, w->draft.fd, &w->h, err);
    if (r < 0)
        save_work_fini(w);
    return r;
}

static int save_write_about(struct save_work *w, struct save_header *h)
{
    size_t json = strlen(w->about), len = 4 + json + w->state.len;
    uint8_t *all = malloc(len);
    int r;

    if (!all)
        return -ENOMEM;
    st_le32(all, (uint32_t)json);
    memcpy(all + 4, w->about, json);
    memcpy(all + 4 + json, w->state.data, w->state.len);
    h->about = (struct save_part){ .off = h->table.off + h->table.len, .len = len, .sum = XXH64(all, len, 0) };
    h->length = h->about.off + len;
    r = block_file_write(w->draft.fd, h->about.off, all, len);
    free(all);
    return r;
}

static int save_write(struct save_work *w, struct err *err)
{
    uint8_t raw[SAVE_HEADER];
    int r = save_ram_write(&w->vm->ram, w->draft.fd, &w->h, &w->base, w->still, err);

    if (r < 0)
        return r;
    r = save_write_about(w, &w->h);
    if (r == 0) {
        save_header_put(&w->h, raw);
        r = block_file_write(w->draft.fd, 0, raw, sizeof(raw));
    }
    if (r == 0 && w->given && fsync(w->draft.fd) < 0)
        r = -errno;
    if (r < 0)
        return err_set(err, -r, "'%s' cannot be written: %s", w->draft.path, strerror(-r));
    return w->given ? 0 : image_draft_commit(&w->draft, err);
}

int save_machine(struct vm *vm, const char *path, const struct save_options *o, struct err *err)
{
    struct save_work w;
    int r = save_work_init(&w, vm, path, o, err);

    if (r == 0)
        r = save_write(&w, err);
    save_work_fini(&w);
    return r;
}

/* ---- in the background ---- */

static int save_by_number(const void *a, const void *b) { return *(const int *)a - *(const int *)b; }

/* Close all descriptors but those of files (shared memory is one), and the pipe's. */
static void save_child_keep(const struct save_work *w, int out)
{
    int keep[SAVE_LAYERS + 3] = { out, w->draft.fd }, from = 0;
    unsigned count = 2;

    if (w->vm->ram.share_size)
        keep[count++] = w->vm->ram.share_fd;

    for (unsigned n = 0; n < w->base.count; n++)
        keep[count++] = w->base.at[n].fd;
    qsort(keep, count, sizeof(*keep), save_by_number);
    for (unsigned n = 0; n < count; n++) {
        if (keep[n] > from)
            close_range((unsigned)from, (unsigned)keep[n] - 1, 0);
        from = keep[n] + 1;
    }
    close_range((unsigned)from, ~0U, 0);
}

/* In the child. */
static void save_child(struct save_work *w, int out, pid_t parent)
{
    struct err err = { "" };
    ssize_t n = 0;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        return;
    save_child_keep(w, out);
    if (save_write(w, &err) < 0)
        n = write(out, err.text, strlen(err.text));
    if (n < 0) /* the parent finds no word but sees that there is no file */
        return;
}

/* The pipe has ended, and so has the child or will. */
static void save_job_end(struct save_job *job)
{
    int status = -1;

    loop_del_fd(&job->vm->loop, &job->pipe);
    close(job->pipe.fd);
    while (waitpid(job->child, &status, 0) < 0 && errno == EINTR)
        ;
    job->child = 0;
    if (job->still)
        ram_still_end(&job->vm->ram);
    job->text[job->len] = 0;
    if (!job->len && (!WIFEXITED(status) || WEXITSTATUS(status)))
        strcpy(job->text, "the process that wrote the saved machine was ended");
    job->done(job, job->text[0] ? -EIO : 0, job->text);
}

/* True: there may be more. */
static bool save_job_read(struct save_job *job)
{
    ssize_t n = read(job->pipe.fd, job->text + job->len, sizeof(job->text) - 1 - job->len);

    job->len += n > 0 ? (size_t)n : 0;
    return n > 0 || (n < 0 && (errno == EINTR || errno == EAGAIN));
}

static void save_on_pipe(void *opaque, uint32_t events)
{
    struct save_job *job = opaque;

    if (!save_job_read(job))
        save_job_end(job);
}

/* Watch the pipe that the child will write to. */
static int save_watch(struct save_job *job, int fd, struct err *err)
{
    int r;

    job->pipe = (struct loop_fd){ .fd = fd, .fn = save_on_pipe, .opaque = job };
    fcntl(fd, F_SETFL, O_NONBLOCK);
    loop_lock(&job->vm->loop);
    r = loop_add_fd(&job->vm->loop, &job->pipe, EPOLLIN);
    loop_unlock(&job->vm->loop);
    return r < 0 ? err_set(err, -r, "cannot watch the process that writes the saved machine: %s", strerror(-r)) : 0;
}

/* Until the child has ended or said why it does. */
static void save_stand(int fd)
{
    struct pollfd p = { .fd = fd, .events = POLLIN };

    while (poll(&p, 1, -1) < 0 && errno == EINTR)
        ;
}

static int save_fork(struct save_job *job, struct save_work *w, struct err *err)
{
    pid_t parent = getpid();
    int fds[2], r, still;

    if (pipe2(fds, O_CLOEXEC) < 0)
        return err_set(err, errno, "cannot make a pipe: %s", strerror(errno));
    still = vm_still_begin(job->vm);
    w->still = job->still = still == 0;
    r = save_watch(job, fds[0], err);
    if (r == 0) {
        job->child = fork();
        if (job->child == 0) {
            save_child(w, fds[1], parent);
            _exit(0);
        }
        if (job->child < 0) {
            r = err_set(err, errno, "cannot start a process that writes the saved machine: %s", strerror(errno));
            loop_lock(&job->vm->loop);
            loop_del_fd(&job->vm->loop, &job->pipe);
            loop_unlock(&job->vm->loop);
        }
    }
    close(fds[1]);
    if (r < 0)
        close(fds[0]);
    else if (job->vm->ram.swap || still < 0) /* the child shares that memory: it must not change before it has been written */
        save_stand(fds[0]);
    if (r < 0 && job->still)
        ram_still_end(&job->vm->ram);
    return r;
}

int save_begin(struct save_job *job, struct vm *vm, const char *path, const struct save_options *o, struct err *err)
{
    struct save_work w;
    int r;

    job->vm = vm;
    job->child = 0;
    job->len = 0;
    r = save_work_init(&w, vm, path, o, err);
    if (r == 0)
        r = save_fork(job, &w, err);
    save_work_fini(&w);
    return r;
}

void save_finish(struct save_job *job, bool cancel)
{
    if (job->child <= 0)
        return;
    if (cancel)
        kill(job->child, SIGKILL);
    fcntl(job->pipe.fd, F_SETFL, 0);
    while (save_job_read(job))
        ;
    save_job_end(job);
}
