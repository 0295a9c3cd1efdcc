/* HTTP over a listening unix socket, in somebody's event loop.
 *
 * Clients are hostile: only this user and root may talk, a head, a body, the time for a request and the number of clients are
 * bounded, nothing here blocks, and no client's memory grows beyond its one request and one answer. A client that
 * stands in the way of a new one (idle, or slow) goes first.
 *
 * A whole request does not run in the callback: `wake` asks for api_serve() on the loop's thread with no lock held, so that a
 * request may pause or save the machine. The answer goes out from there.
 *
 * Viewers: a client whose request was answered by 101 becomes one. It is sent what is written to the ring, as fast as it
 * takes it; what it misses by being slower than 512 KiB is lost to it alone. What it sends is typed.
 *
 * Thread: all on the loop's thread with the device lock held, except where said.
 */
#ifndef VITRO_API_SERVER_H
#define VITRO_API_SERVER_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "api/http.h"
#include "base/loop.h"

struct err;
struct ring;

#define API_CLIENTS    32
#define API_PASSED     32    /* a saved machine's file, what it stands on, an overlay for each disk */
#define API_REQUEST_MS 10000 /* from the first byte of a request to its last; the same for taking an answer */

/* What a request is answered with. */
struct api_reply {
    int status;       /* 101: become a viewer */
    const char *type; /* of the text */
    char *text;       /* owned; NULL: no body */
    size_t len;
    bool read_only; /* 101: what the client sends is thrown away */
    uint64_t from;  /* 101: position in the ring */
    int passed[API_PASSED]; /* descriptors that came with the request (SCM_RIGHTS), then -1: whoever takes one over puts -1 in its place */
    bool tied;      /* gone() is called when this connection ends */
};

/* The answer is this object; takes it over (NULL: out of memory). */
void api_reply_json(struct api_reply *r, int status, json_t *root);
/* {KEY: SENTENCE} */
void api_reply_error(struct api_reply *r, int status, const char *key, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
/* A text that is taken over. */
void api_reply_text(struct api_reply *r, const char *type, char *text);

struct api_client;

/* What the owner of a server does. */
struct api_ops {
    /* Answer a request. No lock held. */
    void (*serve)(void *opaque, const struct http_request *q, struct api_reply *r);
    void (*wake)(void *opaque); /* api_serve() is wanted soon */
    /* From a viewer for the guest: returns how much was taken. The rest is offered after api_typed(). May be NULL. */
    size_t (*type)(void *opaque, const uint8_t *data, size_t len);
    void (*gone)(void *opaque); /* a connection that an answer tied has ended. May be NULL if none does */
    const char *error_key; /* what an object with an error calls it */
};

struct api_server {
    const struct api_ops *ops;
    void *opaque;
    struct loop *loop;
    struct loop_fd listen, tick; /* tick: a timerfd, for clients that are late */
    bool ticking;
    struct ring *ring; /* borrowed, or NULL: no viewers */
    struct api_client *client[API_CLIENTS];
    unsigned clients;
};

/* listen_fd is taken over. 0 or -errno with a sentence (then listen_fd is closed). The loop does not run yet, or its lock is
 * held. */
int api_init(struct api_server *s, struct loop *loop, int listen_fd, const struct api_ops *ops, void *opaque,
             struct err *err);
/* Gives viewers a second to take what they have not seen. No lock held, the loop does not run any more. */
void api_fini(struct api_server *s);
/* From now on in another loop. Neither runs. 0 or -errno. */
int api_move(struct api_server *s, struct loop *loop);

/* Answer what is whole. The loop's thread, no lock held. */
void api_serve(struct api_server *s);
/* The ring has grown. Any thread with the device lock. */
void api_shown(struct api_server *s);
/* There is room for what viewers type. */
void api_typed(struct api_server *s);
unsigned api_viewers(const struct api_server *s);

#endif
