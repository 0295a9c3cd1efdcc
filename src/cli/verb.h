/* What the verbs share that name machines: their words and options, and looking machines up. */
#ifndef VITRO_CLI_VERB_H
#define VITRO_CLI_VERB_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "api/site.h"
#include "machine/config.h"

struct err;
struct image_draft;
struct save_file;

#define VERB_NAMES 64

/* An option of a verb: a flag, or one with a value. Ends with a NULL name. */
struct verb_option {
    const char *name; /* "--json" */
    bool *flag;
    const char **value;
};

struct verb_args {
    const char *name[VERB_NAMES]; /* machines, in the order given */
    unsigned names;
    bool json;
};

/* Words into a; at least and at most so many names. --json is always known. 0, or CLI_ERROR after a sentence. */
int verb_parse(struct verb_args *a, int argc, char **argv, const char *verb, const struct verb_option *options,
               unsigned least, unsigned most);
/* Look a machine up that has to run: 0, or -errno with a sentence. */
int verb_running(const char *name, struct site_info *i, struct err *err);
/* A whole number of seconds, 0 to 86400: 0, or -EINVAL with a sentence. */
int verb_seconds(const char *text, unsigned *seconds, struct err *err);

/* cmd_save.c: write a running machine into a new file from which others are made at once; it goes on. */
struct verb_save {
    const char *name, *path;
    json_t *overlays; /* borrowed: those of /v1/save, whose descriptors are the caller's; NULL: none */
    int overlay[CONFIG_DISKS];
    const struct save_file *base; /* borrowed: what the file may stand on; NULL: nothing */
    const char *base_name;
    uint64_t stood_ns; /* how long the machine stood */
};
/* 0: the file is whole, and a draft that image_draft_commit() would put at path; or -errno with a sentence. */
int verb_save(struct verb_save *s, struct image_draft *draft, struct err *err);

/* cmd_control.c: stop by the power button and, when the grace time has passed, by force. 0 or -errno with a sentence. */
int verb_kill(const char *name, struct err *err);

#endif
