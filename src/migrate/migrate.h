/* Live migration: a running machine goes to another process, of this host or another, without its guest noticing.
 *
 *   source       migrate_begin(&m, vm, fd, &options, &err): a thread copies memory while the machine runs, then the machine is
 *                handed over and ends with VM_END_MOVED; until the commit any failure lets it go on here
 *   destination  migrate_hello(&in, fd, fd, stall, &err)     the machine's description has come
 *                migrate_config(in, &cfg, without, &err)     what it was, what shall be different
 *                migrate_make(in, &vm, &cfg, ops, &err)      a machine that can take it, its disks not open yet
 *                migrate_receive(in, vm, &err)               memory and state: it is held, and stands
 *                migrate_take_over(in, vm, &err)             the source has given it up, its disks are locked: vm_run()
 *                migrate_in_close(in, &err)                  tells why not, if it did not come to that
 *
 * Exactly one runner: the source runs or can run until it has sent COMMIT, and never after; the destination only runs after
 * COMMIT, when it has the locks of all disks that the guest writes. stream.h has the frames, docs/design/migrate.md the reasons.
 */
#ifndef VITRO_MIGRATE_MIGRATE_H
#define VITRO_MIGRATE_MIGRATE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "machine/vm.h"
#include "migrate/disks.h"
#include "migrate/ram.h"
#include "migrate/stream.h"
#include "state/state.h"


#define MIGRATE_DOWNTIME_MS 50
#define MIGRATE_STALL_S     20

struct migrate_options {
    unsigned downtime_ms; /* the machine is stopped when the rest takes no longer than this */
    unsigned stall_s;     /* the other side may be silent for so long */
    int pagemap;          /* /proc/self/pagemap, borrowed, or -1 */
    bool copy_disks;      /* their contents go along */
};

enum migrate_phase { MIGRATE_IDLE, MIGRATE_COPIES, MIGRATE_HANDS_OVER, MIGRATE_DONE, MIGRATE_FAILED };

struct migrate_progress {
    enum migrate_phase phase;
    unsigned round, throttle;          /* throttle: per cent of their time that vCPUs sleep */
    uint64_t total, left, sent, wire;  /* bytes: memory; to be sent in this round; pages sent; on the connection */
    uint64_t rate;                     /* bytes of pages a second, in the last round */
    uint64_t stood_ns;                 /* how long the machine stood before it was given up */
    char why[512];                     /* FAILED; DONE: the other side was not heard, and this is why */
};

/* Embed it, zeroed; it must live until migrate_finish(). */
struct migrate {
    /* send.c */
    struct vm *vm;
    struct migrate_options o;
    struct mig_stream stream;
    struct mig_packer packer;
    struct vm_dirty dirty, more;
    uint8_t token[MIG_TOKEN];
    pthread_t thread;
    bool started, stopped, was_paused; /* there is a thread; the machine's thread: we stopped it */
    char *about;                       /* owned */
    uint8_t disks[CONFIG_DISKS * MIG_DISK_ENTRY];
    struct state_buf state; /* the shape first, then the state */
    int64_t dirty_pages;
    uint64_t stop_ns, nap_ms;
    unsigned nap_us;
    struct vm_call call; /* what the machine's thread shall do */
    int (*call_fn)(struct migrate *m, struct err *err);
    int call_result;
    struct err call_err;
    pthread_mutex_t lock; /* a leaf; guards what follows */
    pthread_cond_t turn;
    bool call_done, dead; /* dead: the machine has ended */
    bool told;            /* somebody knows that it is DONE */
    struct migrate_progress p;
};

/* The machine's thread, no lock held. fd, a connected socket, is taken over also on failure. 0: it goes on in the background. -EBUSY: one
 * is under way. */
int migrate_begin(struct migrate *m, struct vm *vm, int fd, const struct migrate_options *o, struct err *err);
/* Any thread. */
void migrate_get(struct migrate *m, struct migrate_progress *p);
const char *migrate_phase_name(enum migrate_phase phase);
/* Give up, unless it is too late; nothing if none is under way. Any thread. */
void migrate_cancel(struct migrate *m);
/* The machine has ended or is about to: waits for the thread. */
void migrate_finish(struct migrate *m);

struct migrate_in;
struct migrate_in_options {
    unsigned stall_s;
    bool trust_disks; /* do not ask whether disks are the source's */
    bool copy_disks;  /* their contents come along, and are written where the configuration says, or into disk_folder */
    bool force;       /* over files that are there */
    const char *disk_folder; /* borrowed; or NULL */
    bool (*give_up)(void); /* asked while waiting; may be NULL */
};

int migrate_hello(struct migrate_in **out, int in, int to, const struct migrate_in_options *o, struct err *err);
int migrate_config(const struct migrate_in *in, struct machine_config *c, const char *const *without, struct err *err);
/* Descriptors of the connection get other numbers, above the standard streams'. 0 or -errno. */
int migrate_in_keep(struct migrate_in *in);
/* Nothing but the description has been sent when this refuses. cfg is borrowed for the machine's life. */
int migrate_make(struct migrate_in *in, struct vm **out, struct machine_config *cfg, const struct engine_ops *ops, struct err *err);
/* On failure vm is only good for vm_destroy(). */
int migrate_receive(struct migrate_in *in, struct vm *vm, struct err *err);
int migrate_take_over(struct migrate_in *in, struct vm *vm, struct err *err);
/* err: tell the source why, if there is a sentence and it has not given the machine up. NULL is allowed for both. */
void migrate_in_close(struct migrate_in *in, const struct err *err);

#endif
