/* Entering a fence, see guard.h. Sources: seccomp(2), landlock_restrict_self(2), landlock(7).
 *
 * The files come first, because the filter may forbid the call that limits them.
 */
#include "base/guard.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SYS_landlock_restrict_self
#define SYS_landlock_restrict_self 446
#endif

const char *const guard_names[GUARD_KINDS] = {
    [GUARD_NONE] = "none",   [GUARD_MAIN] = "main",         [GUARD_VCPU] = "vcpu",
    [GUARD_BLOCK] = "block", [GUARD_SHARE] = "share",       [GUARD_NET] = "net",
    [GUARD_NET_USER] = "net-user", [GUARD_NET_SWITCH] = "net-switch",
};

/* The process's sandbox, see guard.h. */
static struct {
    bool armed;
    struct guard_fence fence[GUARD_KINDS];
} guard_process;

static __thread enum guard_kind guard_mine;

void guard_arm(const struct guard_fence fence[GUARD_KINDS])
{
    guard_disarm();
    for (unsigned k = 0; k < GUARD_KINDS; k++)
        guard_process.fence[k] = fence[k];
    guard_process.armed = true;
}

void guard_disarm(void)
{
    for (unsigned k = 0; guard_process.armed && k < GUARD_KINDS; k++) {
        free(guard_process.fence[k].filter);
        if (guard_process.fence[k].files >= 0)
            close(guard_process.fence[k].files);
    }
    guard_process.armed = false;
}

enum guard_kind guard_inside(void) { return guard_mine; }
void guard_inherit(enum guard_kind kind) { guard_mine = kind; }

int guard_enter(enum guard_kind kind)
{
    const struct guard_fence *f = &guard_process.fence[kind];
    struct sock_fprog prog = { .len = f->length, .filter = f->filter };

    if (!guard_process.armed || kind == guard_mine)
        return 0;
    if (f->files >= 0 && syscall(SYS_landlock_restrict_self, f->files, 0) < 0)
        return -errno;
    if (f->filter && syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &prog) < 0)
        return -errno;
    guard_mine = kind;
    return 0;
}
