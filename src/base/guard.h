/* What a thread may ask of the host's kernel: a fence for each kind of thread (a seccomp filter and a Landlock rule set),
 * which a thread puts around itself before its own work begins and can never take off.
 *
 * The fences belong to the process, as filters and rule sets do: the one who builds a sandbox (machine/sandbox.c) arms
 * them once, before the first machine makes a thread. While nothing is armed (tools, tests, --seccomp off), entering does
 * nothing. A fence holds for all threads that a thread starts: it can only be narrowed.
 *
 * Threads: guard_arm() and guard_disarm() while the process has one thread; guard_enter() on the thread that it is for.
 */
#ifndef VITRO_BASE_GUARD_H
#define VITRO_BASE_GUARD_H

#include <stdbool.h>

struct sock_filter;

enum guard_kind {
    GUARD_NONE, /* not inside */
    GUARD_MAIN, /* the machine's thread: the loop, and the end */
    GUARD_VCPU,
    GUARD_BLOCK,      /* a disk's I/O threads */
    GUARD_SHARE,      /* a shared folder's I/O threads */
    GUARD_NET,        /* a network port that has opened all it needs: tap, none */
    GUARD_NET_USER,   /* one that opens sockets to the world */
    GUARD_NET_SWITCH, /* one that meets other machines of this user */
    GUARD_KINDS
};

/* "vcpu" ...: also what the thread is called in the host's lists. */
extern const char *const guard_names[GUARD_KINDS];

struct guard_fence {
    struct sock_filter *filter; /* owned, by malloc(); NULL: all calls */
    unsigned short length;
    int files; /* owned Landlock rule set; -1: no limit */
};

/* Takes over what fence[] owns. */
void guard_arm(const struct guard_fence fence[GUARD_KINDS]);
/* Forget the fences; threads that are inside stay inside. */
void guard_disarm(void);

/* Put the fence of kind around the calling thread, unless it is inside that one already. 0 or -errno: then the thread must
 * not go on. */
int guard_enter(enum guard_kind kind);
/* Around which kind of fence the calling thread is, and what one that it starts inherits. */
enum guard_kind guard_inside(void);
void guard_inherit(enum guard_kind kind);

#endif
