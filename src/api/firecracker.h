/* The Firecracker API in front of a machine that does not exist yet: clients configure it, start it, and steer it.
 *
 * Source: Firecracker's API description (facts only). A client's order of calls is kept as JSON; InstanceStart makes a
 * machine's configuration of it (fc_config.c). The server moves from a loop of its own into the machine's.
 * Thread: one, the machine's.
 */
#ifndef VITRO_API_FIRECRACKER_H
#define VITRO_API_FIRECRACKER_H

#include <jansson.h>
#include <limits.h>

#include "api/control.h"
#include "api/fc_mmds.h"
#include "base/clock.h"
#include "base/loop.h"
#include "machine/config.h"
#include "save/format.h"
#include "save/maker.h"

struct err;

#define FC_VERSION "1.7.0" /* the version of the API whose calls are known */
#define FC_DRIVES  8
#define FC_NETS    4

/* The memory file of the last snapshot, which a Diff may stand on, with those below it. */
struct fc_base {
    char path[PATH_MAX]; /* absolute */
    int fd[SAVE_LAYERS];
    unsigned count; /* 0: none */
};

struct firecracker {
    struct control control;
    struct clock clock;
    struct loop loop; /* until the machine has one */
    const char *id;   /* borrowed */
    int metrics_fd; /* -1: none */
    struct maker maker;
    struct fc_base base;
    struct mmds mmds;
    json_t *said; /* what clients said: the object that GET /vm/config tells; drives and interfaces in the order of their first PUT */
    struct machine_config cfg;
    struct vm *vm; /* NULL: not started */
};

/* Take a listening socket and a running maker over. 0 or -errno with a sentence. */
int fc_init(struct firecracker *f, const char *id, int listen_fd, const struct maker *maker, struct err *err);
/* Serve until there is a machine, which is then ready for vm_run(). 0 or -errno with a sentence. */
int fc_wait(struct firecracker *f, struct err *err);
/* The machine has ended. */
void fc_fini(struct firecracker *f);

/* fc_config.c: what was said, as a machine's configuration. 0 or -errno with a sentence. */
int fc_configure(struct firecracker *f, struct err *err);

#endif
