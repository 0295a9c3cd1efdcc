/* The sandbox of a machine's process: what its threads may ask of the host's kernel once the guest runs.
 *
 * sandbox_init() looks at the configuration, before anything of the machine exists, and builds a fence for each kind of
 * thread (base/guard.h): which system calls (sandbox_calls.c, seccomp) and which files (sandbox_files.c, Landlock).
 * Threads enter theirs as they start; sandbox_enter() is the machine's thread's own, once everything is open, before the
 * vCPUs go.
 *
 * Threads: the machine's, before others exist.
 */
#ifndef VITRO_MACHINE_SANDBOX_H
#define VITRO_MACHINE_SANDBOX_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "base/guard.h"

struct err;
struct machine_config;

/* --seccomp */
enum sandbox_mode {
    SANDBOX_ON,  /* a forbidden call ends the process */
    SANDBOX_LOG, /* it fails with ENOSYS and is told on stderr: to find out what is missing */
    SANDBOX_OFF
};

/* What the host's kernel can do of it. */
struct sandbox_host {
    bool seccomp; /* filters, and ending the process */
    int landlock; /* version of its interface; 0: none */
};

void sandbox_probe(struct sandbox_host *h);
/* One sentence without a full stop for people: what of the sandbox works here. */
void sandbox_describe(const struct sandbox_host *h, char *out, size_t len);

/* Build and arm the fences for the machine that cfg describes. folder is a descriptor of the machine's own folder, parent of the one
 * that it is in: the machine's thread may remove what is in the one, and empty folders in the other (-1: none). What the kernel lacks of Landlock is told on stderr; a kernel
 * without seccomp is an error. 0 or -errno with a sentence in err. */
int sandbox_init(const struct machine_config *cfg, int folder, int parent, struct err *err);
void sandbox_fini(void);
/* What of that takes time and is the same for all machines of a kind, for children that this process forks to run such machines: sandbox_init() does it by
 * itself where it is missing. 0 or -errno with a sentence in err. */
int sandbox_prepare(const struct machine_config *cfg, struct err *err);
/* The machine's thread, when all that it needs is open. 0 or -errno with a sentence in err. */
int sandbox_enter(struct err *err);

/* --- between the parts --- */

/* sandbox_calls.c: the filter of one kind, for any process; vsock: with what the machine's thread needs for --vsock. 0 or -errno. */
int sandbox_filter(enum guard_kind kind, bool vsock, struct guard_fence *out);
/* The same filter for the process pid. 0 or -errno. */
int sandbox_filter_copy(const struct guard_fence *like, pid_t pid, struct guard_fence *out);
bool sandbox_can_filter(void);

/* sandbox_files.c: rule sets into fence[].files, as far as the kernel can. What it cannot is in note (a sentence, or ""). 0
 * or -errno with a sentence in err. */
int sandbox_files(const struct machine_config *cfg, const int folders[2], struct guard_fence fence[GUARD_KINDS], char *note,
                  size_t len, struct err *err);
int sandbox_landlock_version(void);

#endif
