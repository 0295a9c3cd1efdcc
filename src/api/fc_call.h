/* Between the parts of the Firecracker API: a request, and the handlers that are in files of their own. */
#ifndef VITRO_API_FC_CALL_H
#define VITRO_API_FC_CALL_H

#include <jansson.h>
#include <limits.h>
#include <stdbool.h>

#include "api/firecracker.h"

#define FC_KEY "fault_message"

/* A request, as its handler gets it. */
struct fc_call {
    struct firecracker *f;
    const char *method;
    const char *id; /* behind the path: drives/ID */
    json_t *body;   /* an object; NULL for GET */
    struct api_reply *r;
};

void fc_done(struct fc_call *k);
void fc_fault(struct fc_call *k, const char *text);
/* Only before the start, or only afterwards: else says so in the answer, and is false. */
bool fc_early(struct fc_call *k);
bool fc_late(struct fc_call *k);
/* What clients said by this name of GET /vm/config (borrowed; NULL: nothing); and: from now on it is the request's body. */
json_t *fc_said(const struct firecracker *f, const char *key);
void fc_keep(struct fc_call *k, const char *key);

/* fc_config.c: can a path be a part of an option? 0 or -errno with a sentence. */
int fc_path(const char *path, const char *what, struct err *err);

/* Make f->cfg's machine, from file or new (NULL), with the server in its loop. 0; or -errno with a sentence, and another may be tried. */
int fc_start(struct firecracker *f, struct save_file *file, struct err *err);

/* fc_balloon.c */
void fc_balloon(struct fc_call *k);
void fc_balloon_stats(struct fc_call *k);
void fc_balloon_begin(struct firecracker *f);
/* fc_devices.c */
void fc_drive(struct fc_call *k);
void fc_net(struct fc_call *k);
void fc_entropy(struct fc_call *k);
/* The new machine's entropy device is limited as clients said. */
void fc_entropy_begin(struct firecracker *f);
/* A device's limiter as words of an option, ",BYTES=..,OPS=.."; "" if it limits nothing. */
void fc_limiter_text(const json_t *device, const char *key, const char *bytes, const char *ops, char *out, size_t size);
#define FC_LIMITER_TEXT 200
/* fc_metadata.c: two paths; and: f->cfg's network cards of which clients said so reach it. */
void fc_metadata(struct fc_call *k);
void fc_metadata_config(struct fc_call *k);
void fc_metadata_begin(struct firecracker *f, const json_t *said);
/* fc_snapshot.c */
void fc_snapshot_create(struct fc_call *k);
void fc_snapshot_load(struct fc_call *k);
void fc_base_drop(struct fc_base *b);

#endif
