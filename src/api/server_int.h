/* Between server.c (connections and answers) and viewer.c. */
#ifndef VITRO_API_SERVER_INT_H
#define VITRO_API_SERVER_INT_H

#include "api/server.h"

#define API_CHUNK 4096

enum api_phase {
    API_READING, /* a request, or waiting for one */
    API_READY,   /* it is whole; api_serve() comes */
    API_WRITING, /* the answer */
    API_VIEWING,
};

struct api_client {
    struct api_server *server;
    struct loop_fd watch;
    uint32_t events; /* watched for; 0: not watched */
    enum api_phase phase;
    struct http_request http;
    char in[API_CHUNK]; /* READING: not parsed yet; VIEWING: not typed yet */
    size_t in_len;
    char *out; /* WRITING: owned */
    size_t out_len, out_done;
    bool last;         /* WRITING: close afterwards */
    bool view;         /* WRITING: become a viewer afterwards */
    bool read_only;
    bool tied;         /* gone() is due when it ends */
    uint64_t deadline; /* host ms; 0: none */
    uint64_t seen;     /* host ms of the last byte */
    int passed[API_PASSED]; /* descriptors that came with the request, then -1 */
    uint64_t pos;      /* VIEWING: in the ring */
};

uint64_t api_now_ms(void);
void api_watch(struct api_client *c, uint32_t events);
void api_close(struct api_client *c);

/* viewer.c */
void viewer_event(struct api_client *c, uint32_t events);
void viewer_rewatch(struct api_client *c);
/* Type what has come in. */
void viewer_type(struct api_client *c);
/* Send what the client takes, waiting until end at most. */
void viewer_drain(struct api_client *c, uint64_t end);

#endif
