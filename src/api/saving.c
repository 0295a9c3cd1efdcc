/* Saving a machine for a client of the control socket: the client opened the file and gives it its name when it is complete.
 *
 * Thread: the machine's. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "api/control.h"
#include "base/bits.h"
#include "base/clock.h"
#include "base/err.h"
#include "machine/vm.h"

static void saving_done(struct save_job *job, int result, const char *why)
{
    struct control_save *s = container_of(job, struct control_save, job);

    s->state = result < 0 ? CONTROL_SAVE_FAILED : CONTROL_SAVE_DONE;
    snprintf(s->why, sizeof(s->why), "%s", why ? why : "");
}

/* What a client hands over may be anything. */
static int saving_check(int fd, struct err *err)
{
    struct stat st;
    int flags = fcntl(fd, F_GETFL);

    if (flags < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size || (flags & O_ACCMODE) == O_RDONLY)
        return err_set(err, EINVAL, "saving needs an empty file, open for writing, beside the request (SCM_RIGHTS)");
    return 0;
}

int control_save_begin(struct control *c, int fd, const char *token, bool plain, bool hold, struct err *err)
{
    const struct save_options o = { .plain = plain, .given = true, .fd = fd };
    struct vm *vm = c->vm;
    bool was_paused = vm->life.paused;
    uint64_t start = clock_host_ns(CLOCK_MONOTONIC);
    struct migrate_progress p;
    int r = saving_check(fd, err);

    migrate_get(&c->migrate, &p);
    if (r == 0 && c->save.state == CONTROL_SAVE_WRITING)
        r = err_set(err, EBUSY, "the machine is being saved already");
    if (r == 0 && (p.phase == MIGRATE_COPIES || p.phase == MIGRATE_HANDS_OVER))
        r = err_set(err, EBUSY, "the machine is being moved to another host");
    if (r < 0) {
        if (fd >= 0)
            close(fd);
        return r;
    }
    c->save.job.done = saving_done;
    c->save.state = CONTROL_SAVE_WRITING;
    c->save.why[0] = 0;
    snprintf(c->save.token, sizeof(c->save.token), "%s", token ? token : "");
    vm_set_paused(vm, true);
    r = save_begin(&c->save.job, vm, "the file", &o, err);
    c->save.holds = !was_paused && r == 0 && hold;
    if (!was_paused && !c->save.holds)
        vm_set_paused(vm, false);
    c->save.stood_ns = was_paused ? 0 : clock_host_ns(CLOCK_MONOTONIC) - start;
    if (r < 0)
        c->save.state = CONTROL_SAVE_NONE;
    return r;
}

void control_save_gone(struct control *c)
{
    c->save.let_go = true;
    vm_request(c->vm, VM_REQ_HOOK);
}

void control_save_let_go(struct control *c)
{
    if (!c->save.let_go)
        return;
    c->save.let_go = false;
    if (c->save.holds)
        vm_set_paused(c->vm, false);
    c->save.holds = false;
}

json_t *control_save_describe(struct control *c)
{
    static const char *const names[] = { "none", "writing", "done", "failed" };

    return json_pack("{s:s, s:s, s:s, s:I}", "state", names[c->save.state], "token", c->save.token, "why", c->save.why,
                     "stood_ns", (json_int_t)c->save.stood_ns);
}
