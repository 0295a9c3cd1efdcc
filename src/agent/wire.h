/* What `vitro exec` and `vitro cp` say to the agent in a guest: frames over a stream (docs/design/agent.md).
 *
 * A frame is a type, three zero bytes, the payload's length (32 bits, little-endian), and the payload. Each side takes the other for
 * hostile: lengths and types are checked, and what waits in either direction is bounded by these buffers.
 *
 * No threads, no locks. Used by the command line and by the agent, so nothing here needs more than libc.
 */
#ifndef VITRO_AGENT_WIRE_H
#define VITRO_AGENT_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define AGENT_PORT    1017 /* AF_VSOCK; below 1024, which no ordinary user of the guest can take */
#define AGENT_VERSION 1
#define WIRE_HEAD     8
#define WIRE_MAX      65536U /* bytes of payload */
#define WIRE_SEED     64U    /* bytes of random numbers in WORD_SEED */
#define WIRE_WINDOW   65536U /* bytes of standard input that the host may send before WIRE_CREDIT */

enum wire_type {
    WIRE_HELLO = 1, /* agent: its version, 32 bits */
    WIRE_EXEC,      /* host: strings, each a letter of enum wire_word, text, and a zero byte */
    WIRE_IN,        /* host: standard input; empty: it is over */
    WIRE_SIGNAL,    /* host: a signal's number, one byte */
    WIRE_WINDOW_SIZE, /* host: rows and columns of the terminal, 16 bits each */
    WIRE_OUT,       /* agent: standard output, or what the terminal shows */
    WIRE_ERR,       /* agent: standard error */
    WIRE_CREDIT,    /* agent: so many bytes more of standard input, 32 bits */
    WIRE_EXIT,      /* agent: the exit status, one byte; the last frame */
    WIRE_FAIL,      /* either: it did not work: an exit status, one byte, and a sentence; the last frame */
    /* Trees, see tree.h */
    WIRE_FETCH, /* host: send what is at this path, which ends with a zero byte */
    WIRE_STORE, /* host: what comes now goes to this path; a zero byte, its name if that is a folder, a zero byte */
    WIRE_DIR,   /* a folder begins: struct tree_entry */
    WIRE_UP,    /* and ends */
    WIRE_FILE,  /* a file: struct tree_entry */
    WIRE_DATA,  /* its bytes; empty: it ends */
    WIRE_LINK,  /* a symbolic link: struct tree_entry */
    WIRE_END,   /* it is all there; how many were left out, 32 bits */
    WIRE_IDENTITY, /* host: be another machine: strings as in WIRE_EXEC; the answer is WIRE_EXIT */
    WIRE_FETCH_NEWER, /* as WIRE_FETCH and WIRE_STORE, and the receiver says of each file and link whether it wants it */
    WIRE_STORE_NEWER,
    WIRE_WANT, /* the answer to WIRE_FILE and WIRE_LINK then, one byte: 1: go on; 0: it has one that is not older */
    WIRE_TYPES
};

/* What words of WIRE_EXEC and WIRE_IDENTITY begin with. */
enum wire_word {
    WORD_ARG = 'a',  /* the program and its arguments, in order */
    WORD_ENV = 'e',  /* NAME=VALUE */
    WORD_USER = 'u', /* name or number */
    WORD_DIR = 'd',  /* where it begins */
    WORD_TTY = 't',  /* on a terminal of this type */
    WORD_HOST = 'h', /* identity: the host name */
    WORD_CARD = 'm', /* "OLD NEW": a network card's address */
    WORD_SEED = 's', /* WIRE_SEED bytes for the random numbers, in hexadecimal digits */
};

struct wire {
    int fd; /* borrowed; non-blocking */
    uint8_t in[WIRE_HEAD + WIRE_MAX], out[2 * (WIRE_HEAD + WIRE_MAX)];
    size_t in_len, out_at, out_len; /* out_at: what of out_len is gone */
};

/* Forget all, and speak over fd from now on. */
void wire_init(struct wire *w, int fd);

/* Read what there is of one frame. 1: it is whole, see below; 0: not yet; -EPIPE: the peer is gone; -EPROTO: that is no frame;
 * another -errno. A whole frame stays until wire_done(). */
int wire_read(struct wire *w);
enum wire_type wire_type(const struct wire *w);
const uint8_t *wire_data(const struct wire *w, size_t *len);
void wire_done(struct wire *w);

/* Queue a frame, and write what goes at once. 0; -ENOSPC: there is no room, nothing happened; -EPIPE and others: the peer is gone.
 * A frame of any length has room when wire_idle(). */
int wire_put(struct wire *w, enum wire_type type, const void *data, size_t len);
int wire_put_u32(struct wire *w, enum wire_type type, uint32_t value);
int wire_flush(struct wire *w); /* 0, -errno */
bool wire_idle(const struct wire *w);

/* The same, waiting. ms: how long at most, -1: for ever; -ETIMEDOUT. wire_wait() is wire_read() until 1 or an error. */
int wire_send(struct wire *w, enum wire_type type, const void *data, size_t len, int ms);
int wire_wait(struct wire *w, int ms);

#endif
