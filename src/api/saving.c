/* Saving a machine for a client of the control socket: the client opened the file and gives it its name when it is complete.
 *
 * Thread: the machine's. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
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

int control_idle(struct control *c, struct err *err)
{
    struct migrate_progress p;

    migrate_get(&c->migrate, &p);
    if (c->save.state == CONTROL_SAVE_WRITING || c->save.holds)
        return err_set(err, EBUSY, "the machine is being saved already");
    if (p.phase == MIGRATE_COPIES || p.phase == MIGRATE_HANDS_OVER)
        return err_set(err, EBUSY, "the machine is being moved to another host");
    return 0;
}

/* One descriptor for each file below and each overlay that the body names, behind the file's. */
static int saving_check_passed(const int passed[API_PASSED], const json_t *body, struct err *err)
{
    json_int_t bases = json_integer_value(json_object_get(body, "bases"));
    size_t have = 0;

    while (have < API_PASSED && passed[have] >= 0)
        have++;
    return bases >= 0 && bases < API_PASSED && have == 1 + (size_t)bases + json_array_size(json_object_get(body, "overlays"))
               ? 0
               : err_set(err, EINVAL, "saving needs a descriptor for the file, and one for each of 'bases' and 'overlays', beside the request");
}

/* The machine stands and its state has been taken: what it writes from now on goes to the new images. */
static int saving_overlays(struct vm *vm, int *passed, const json_t *overlays, struct err *err)
{
    const json_t *one;
    size_t n;
    int r = 0;

    json_array_foreach (overlays, n, one) {
        const json_t *disk = json_object_get(one, "disk");
        const char *path = json_string_value(json_object_get(one, "path"));
        int fd = passed[n];

        if (!json_is_integer(disk) || json_integer_value(disk) < 0 || json_integer_value(disk) >= CONFIG_DISKS || !path)
            return err_set(err, EINVAL, "an overlay needs {\"disk\": N, \"path\": TEXT}");
        passed[n] = -1;
        r = vm_disk_overlay(vm, (unsigned)json_integer_value(disk), fd, path, err);
        if (r < 0)
            break;
    }
    return r;
}

/* The machine stands. */
static int saving_begin(struct control *c, int passed[API_PASSED], const json_t *body, struct err *err)
{
    const json_t *overlays = json_object_get(body, "overlays");
    struct save_options o = { .plain = json_is_true(json_object_get(body, "plain")), .given = true, .fd = passed[0] };
    int base[API_PASSED], r;

    o.base = base;
    o.bases = (unsigned)json_integer_value(json_object_get(body, "bases"));
    o.base_name = json_string_value(json_object_get(body, "base"));
    memcpy(base, passed + 1, o.bases * sizeof(*base));
    memset(passed, -1, (1 + o.bases) * sizeof(*passed));
    c->save.job.done = saving_done;
    c->save.state = CONTROL_SAVE_WRITING;
    r = save_begin(&c->save.job, c->vm, "the file", &o, err);
    if (r < 0) {
        c->save.state = CONTROL_SAVE_NONE;
        return r;
    }
    r = saving_overlays(c->vm, passed + 1 + o.bases, overlays, err);
    if (r < 0) {
        loop_lock(&c->vm->loop);
        save_finish(&c->save.job, true);
        loop_unlock(&c->vm->loop);
    }
    return r;
}

int control_save_begin(struct control *c, int passed[API_PASSED], const json_t *body, struct err *err)
{
    const char *token = json_string_value(json_object_get(body, "token"));
    struct vm *vm = c->vm;
    bool was_paused = vm->life.paused;
    uint64_t start = clock_host_ns(CLOCK_MONOTONIC);
    int r = saving_check(passed[0], err);

    if (r == 0)
        r = saving_check_passed(passed, body, err);
    if (r == 0)
        r = control_idle(c, err);
    if (r < 0)
        return r;
    c->save.why[0] = 0;
    snprintf(c->save.token, sizeof(c->save.token), "%s", token ? token : "");
    vm_set_paused(vm, true);
    r = saving_begin(c, passed, body, err);
    c->save.holds |= !was_paused && r == 0 && json_is_true(json_object_get(body, "hold"));
    if (!was_paused && !c->save.holds)
        vm_set_paused(vm, false);
    c->save.stood_ns = was_paused ? 0 : clock_host_ns(CLOCK_MONOTONIC) - start;
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
