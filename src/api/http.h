/* HTTP/1.1 requests (RFC 9112) in pieces, from somebody who may be hostile: everything is bounded.
 *
 * No threads, no locks, no descriptors: bytes in, a request or a status out.
 */
#ifndef VITRO_API_HTTP_H
#define VITRO_API_HTTP_H

#include <http_parser.h>
#include <stdbool.h>
#include <stddef.h>

#define HTTP_HEAD_MAX   16384 /* request line and headers */
#define HTTP_BODY_MAX   65536
#define HTTP_TARGET_MAX 1024

/* What http_feed() says. */
enum http_state {
    HTTP_MORE,     /* not yet a whole request */
    HTTP_CONTINUE, /* the client waits for "100 Continue" before it sends the body; then feed on */
    HTTP_WHOLE,    /* the request is there; feed nothing before http_reset() */
    HTTP_BAD,      /* h->status says what to answer; the connection is of no use afterwards */
};

struct http_request {
    struct http_parser parser;
    enum http_state state;
    int status; /* of HTTP_BAD: 400, 413, 414, 431 */
    const char *method;
    char target[HTTP_TARGET_MAX + 1]; /* path and query, printable ASCII only */
    char *query;                      /* in target, behind '?'; NULL: none. The path ends there. */
    bool keep_alive, expects;         /* "Expect: 100-continue" */
    char upgrade[32];                 /* the protocol that the client wants to change to, or "" */
    bool complete;
    size_t target_len, head_len;
    char field[24]; /* the header that is being read, as far as its name matters */
    size_t field_len, value_len;
    bool in_value, head_done, told;
    char value[32];
    char *body; /* owned, NUL behind it; NULL: none */
    size_t len;
};

void http_init(struct http_request *h);
void http_fini(struct http_request *h);
/* Get ready for the next request of the connection. */
void http_reset(struct http_request *h);

/* Take some of len bytes; *used says how many. Call it again with the rest only after HTTP_MORE and HTTP_CONTINUE. */
enum http_state http_feed(struct http_request *h, const char *data, size_t len, size_t *used);

/* The head of an answer with a body of len bytes (status 204: none) into buf; returns its length. type may be NULL. */
size_t http_head(char *buf, size_t size, int status, const char *type, size_t len, bool keep_alive);

/* The reason of a status. */
const char *http_reason(int status);

#endif
