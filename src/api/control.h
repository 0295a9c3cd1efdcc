/* A machine's control socket: what it answers, and what ties it to the machine.
 *
 * The native API is described in docs/openapi.json; docs/design/life.md says why it is as it is.
 * Thread: the machine's, with no lock held where not said otherwise.
 */
#ifndef VITRO_API_CONTROL_H
#define VITRO_API_CONTROL_H

#include <jansson.h>

#include "api/site.h"
#include "api/ring.h"
#include "api/server.h"
#include "migrate/migrate.h"
#include "save/save.h"

struct err;
struct vm;

/* Saving, by clients of the socket. */
struct control_save {
    struct save_job job;
    enum { CONTROL_SAVE_NONE, CONTROL_SAVE_WRITING, CONTROL_SAVE_DONE, CONTROL_SAVE_FAILED } state;
    uint64_t stood_ns; /* how long the machine stood still for it */
    char why[600];
    char token[64]; /* whose it is: as the client said */
    bool holds;     /* the machine stands for a client whose connection lasts */
    bool let_go;    /* that has ended: the machine is to go on */
};

struct control {
    struct vm *vm;
    struct site site;
    struct ring ring;
    struct api_server server;
    struct migrate migrate;
    int ready; /* told when the machine runs: a pipe's end, or -1 */
    int pagemap; /* /proc/self/pagemap, the same, or -1 */
    int statm; /* /proc/self/statm, opened before a sandbox closes the way to it */
    struct control_save save;
    bool on;   /* there is a machine, and its hook and tap are ours */
};

/* Nothing yet; control_fini() is allowed. */
void control_init(struct control *c);
/* Between vm_create() and vm_run(), with c->site claimed: the socket is there afterwards. 0 or -errno with a sentence. */
int control_start(struct control *c, struct vm *vm, struct err *err);
/* The same on a server that runs already in another loop, and is moved: for the Firecracker API. */
int control_adopt(struct control *c, struct vm *vm, struct err *err);
/* vm_run() has returned: viewers see the rest, and nobody is served any more. The place is given up by site_leave() when all that the machine has locked is free. */
void control_fini(struct control *c);

/* routes.c */
extern const struct api_ops control_ops;
/* Answer a request about a machine in the native API. False: it is none of its paths. */
bool control_route(struct control *c, const struct http_request *q, struct api_reply *r);

/* saving.c: write the machine to the first of the descriptors, an empty file, in the background. Those that are taken over become -1. body:
 * "plain"; "hold": the machine stands still afterwards, until control_save_gone(); "token" tells one client's saving from another's;
 * "bases": N of the next descriptors are saved machines on which it may stand, the first of which is called "base" (save_options);
 * "overlays": for each further descriptor { "disk": N, "path": TEXT }, an image that disk N continues in from that moment on (image_overlay()). No lock
 * held. 0, or -errno with a sentence. */
int control_save_begin(struct control *c, int passed[API_PASSED], const json_t *body, struct err *err);
/* Nobody saves the machine, has it stand for a file, or moves it to another host: 0, or -EBUSY with a sentence. */
int control_idle(struct control *c, struct err *err);
json_t *control_save_describe(struct control *c);
/* The client that has the machine stand still is gone: it goes on soon. Device lock held. */
void control_save_gone(struct control *c);
/* The same, now. No lock held. */
void control_save_let_go(struct control *c);

/* describe.c: what the machine is and does, as objects; NULL: out of memory. Takes the device lock. */
json_t *describe_machine(struct control *c);
json_t *describe_stats(struct control *c);
/* metrics.c: the same counters in Prometheus' text form (exposition format 0.0.4), to free(); NULL: out of memory. */
char *metrics_text(const json_t *stats);

#endif
