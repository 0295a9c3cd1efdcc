/* A small server inside the monitor that a guest reaches by its network card, whatever the card's back end is: one IPv4 address that answers ARP, and one TCP
 * port, where each connection carries one request and its answer. What is for that address reaches no back end.
 *
 *   guest's frame -> inner_take() -> what is to be sent back -> emit()
 *                         |
 *                    struct inner_server.answer(): a request's bytes, an answer's
 *
 * Frames are hostile. Connections, requests and answers are bounded; who is slow loses its connection. The other side of the "wire" is the guest's ring, which
 * loses nothing as a rule: segments are taken in order only, and what is not acknowledged is sent again a few times.
 * Sources: RFC 826, RFC 791, RFC 9293. Thread: the port's, all of it.
 */
#ifndef VITRO_NET_INNER_H
#define VITRO_NET_INNER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define INNER_CONNS   16
#define INNER_REQUEST 4096U /* the most bytes of a request */

struct net_frame;

struct inner_server {
    uint8_t ip[4];
    uint16_t port;
    /* Bytes of a request so far, the last time when len is INNER_REQUEST: 0: it is not whole yet; else the bytes of the answer, at most
     * answer_max, in out. */
    size_t (*answer)(void *opaque, const char *request, size_t len, char *out);
    void *opaque;
    uint32_t answer_max;
};

struct inner;

/* srv is borrowed. emit gets each frame that is for the guest, in a buffer of ours. NULL: no memory. */
struct inner *inner_create(const struct inner_server *srv, void (*emit)(void *opaque, uint8_t *data, uint32_t len), void *opaque);
void inner_destroy(struct inner *in); /* NULL is allowed */
/* False: the frame is not for it. now: any clock's nanoseconds, the same for all calls. */
bool inner_take(struct inner *in, const struct net_frame *f, uint64_t now);
/* Send again what nobody has heard of; returns after how many milliseconds to come again, -1: not before a frame does. */
int inner_tick(struct inner *in, uint64_t now);

#endif
