/* The other end of a control socket: what the verbs of the command line use. Thread: the command line's; blocks. */
#ifndef VITRO_API_CLIENT_H
#define VITRO_API_CLIENT_H

#include <jansson.h>

#include "api/server.h"

struct err;

struct client_passed {
    unsigned count;
    int fd[API_PASSED];
};

#define CLIENT_SECONDS 30 /* for an answer */

/* Ask machine name. body is borrowed (NULL: none); *answer (may be NULL) is a new reference, or NULL if there was no body.
 * 0, or -errno with a sentence: the machine's own where it gave one. */
int client_call(const char *name, const char *method, const char *path, const json_t *body, json_t **answer,
                struct err *err);
/* The same with as many seconds as it may take. */
int client_call_for(const char *name, const char *method, const char *path, const json_t *body, json_t **answer,
                    int seconds, struct err *err);
/* The same with descriptors beside the request (at least one), which stay the caller's. kept (NULL: none): the connection, left open for as long as
 * what was asked for shall last; -1 on failure. */
int client_call_with(const char *name, const char *method, const char *path, const json_t *body, const struct client_passed *passed, int *kept,
                     struct err *err);
/* The answer as text, to free(); *len (may be NULL): its bytes, without the NUL that follows. */
int client_text(const char *name, const char *path, char **text, size_t *len, struct err *err);

/* Become a viewer: the connection, after the answer's head; or -errno with a sentence. */
int client_attach(const char *name, const char *path, struct err *err);

#endif
