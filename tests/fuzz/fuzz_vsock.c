/* A hostile driver of the virtio socket device, and streams of the host that take, give, stop, end and break as the input
 * says. Whatever comes: bounds hold, no stream is used after it was closed, and each is closed once. */
#include "fuzz.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "vbench.h"
#include "virtio/vsock.h"

#define STREAMS (VSOCK_CONNS + 1)

struct stream {
    struct vsock_conn *conn;
    bool used, in, out;
};

struct bench {
    struct vbench *b;
    struct virtio_vsock dev, other;
    struct stream stream[STREAMS];
    uint8_t mood; /* how streams behave now */
    unsigned open;
};

static struct bench *current; /* of the one input that runs */

static struct stream *take_stream(void)
{
    for (unsigned n = 0; n < STREAMS; n++) {
        if (!current->stream[n].used) {
            current->stream[n] = (struct stream){ .used = true };
            current->open++;
            return &current->stream[n];
        }
    }
    return NULL;
}

static void *host_connect(void *opaque, uint32_t port, struct vsock_conn *c)
{
    struct stream *s = current->mood & 1 ? NULL : take_stream();

    if (s)
        s->conn = c;
    return s;
}

static void host_accepted(void *stream, uint32_t port) { FUZZ_CHECK(((struct stream *)stream)->used); }

static ssize_t host_read(void *stream, uint8_t *buf, size_t len)
{
    FUZZ_CHECK(((struct stream *)stream)->used && len && len <= 65536);
    if (current->mood & 2)
        return -EAGAIN;
    if (current->mood & 4)
        return current->mood & 8 ? -EPIPE : 0;
    memset(buf, 0x5a, len);
    return (ssize_t)(len / 2 + 1);
}

static ssize_t host_write(void *stream, const uint8_t *buf, size_t len)
{
    FUZZ_CHECK(((struct stream *)stream)->used && len && buf[0] + buf[len - 1] >= 0);
    if (current->mood & 16)
        return -EAGAIN;
    if (current->mood & 32)
        return -EPIPE;
    return (ssize_t)(current->mood & 64 ? len / 2 + 1 : len);
}

static void host_shutdown(void *stream) { FUZZ_CHECK(((struct stream *)stream)->used); }

static void host_watch(void *stream, bool in, bool out)
{
    struct stream *s = stream;

    FUZZ_CHECK(s->used);
    s->in = in;
    s->out = out;
}

static void host_close(void *stream)
{
    struct stream *s = stream;

    FUZZ_CHECK(s->used);
    s->used = false;
    current->open--;
}

/* The host's side: u8 the mood, u8 what, u8 which. */
static void extra(void *opaque, struct fuzz_input *in)
{
    struct bench *t = opaque;
    uint8_t what;
    struct stream *s;

    t->mood = (uint8_t)fuzz_take(in, 1);
    what = (uint8_t)fuzz_take(in, 1);
    s = &t->stream[fuzz_take(in, 1) % 8];
    if (what & 1 && s->used && (s->in || s->out))
        virtio_vsock_ready(&t->dev, s->conn, s->in, s->out);
    if (what & 2 && (s = take_stream())) {
        s->conn = virtio_vsock_open(&t->dev, what >> 4, s);
        if (!s->conn)
            host_close(s);
    }
}

static void check(void *opaque)
{
    struct bench *t = opaque;

    FUZZ_CHECK(t->dev.conns <= VSOCK_CONNS && t->open <= t->dev.conns && t->dev.resets <= VSOCK_RESETS);
    for (unsigned n = 0; n < t->dev.conns; n++)
        FUZZ_CHECK(t->dev.conn[n]->used <= VSOCK_BUF);
    for (unsigned n = 0; n < 3; n++)
        FUZZ_CHECK((t->dev.vp.status & VIRTIO_NEEDS_RESET) || t->dev.vp.vq[n].held == 0);
}

static void make(struct bench *t, struct virtio_vsock *v)
{
    static const struct vsock_backend backend = { .connect = host_connect,
                                                  .accepted = host_accepted,
                                                  .read = host_read,
                                                  .write = host_write,
                                                  .shutdown = host_shutdown,
                                                  .watch = host_watch,
                                                  .close = host_close };

    FUZZ_CHECK(virtio_vsock_init(v, 3, &backend, &t->b->loop, &t->b->ram, vbench_deliver, t->b) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bench *t = calloc(1, sizeof(*t));
    struct vbench_target target = {
        .ops = &virtio_vsock_ops,
        .queue = { 0, 1, 2 },
        .queues = 3,
        .features = { 1, 0, 1, 1 },
        .extra = extra,
        .check = check,
    };

    FUZZ_CHECK(t);
    current = t;
    t->b = vbench_open();
    make(t, &t->dev);
    make(t, &t->other);
    target.vp = &t->dev.vp;
    target.dev = &t->dev;
    target.other = &t->other;
    target.opaque = t;
    vbench_run(t->b, &target, data, size);
    FUZZ_CHECK(t->open == 0);
    vbench_close(t->b);
    free(t);
    return 0;
}

/* A packet of the guest, in the transmit queue. */
static void say_packet(struct vbench_seed *s, uint8_t op, uint8_t port, uint8_t len, uint8_t flags)
{
    uint8_t h[44] = { 3, [8] = 2, [16] = port, [20] = 80, [24] = len, [28] = 1, [30] = op, [32] = flags, [37] = 0x10 };

    vbench_say_ram(s, VBENCH_DATA, h, sizeof(h));
    vbench_say_chain(s, 1, VBENCH_DATA, (uint16_t)(44 + len), false);
    vbench_say_op(s, VB_KICK, 1);
    vbench_say_op(s, VB_STEP, 1);
}

/* Both ways to connect, data both ways, both ways to end; both forms of ring. */
size_t fuzz_seed(unsigned n, uint8_t *buf, size_t size)
{
    struct vbench_seed s = { .buf = buf };

    if (n >= 8)
        return 0;
    vbench_say_go(&s, 5 << 2 | (n & 3), 0);
    for (unsigned i = 0; i < 8; i++)
        vbench_say_chain(&s, 0, (uint16_t)(VBENCH_DATA + 0x400 + 512 * i), 300, true);
    say_packet(&s, 1, 7, 0, 0);
    vbench_say(&s, (uint8_t[]){ VB_EXTRA, n & 4 ? 16 : 0, 3, 0 }, 4);
    say_packet(&s, 5, 7, 100, 0);
    vbench_say(&s, (uint8_t[]){ VB_EXTRA, 64, 1, 0, VB_STEP, 1 }, 6);
    say_packet(&s, 2, 0, 0, 0);
    vbench_say(&s, (uint8_t[]){ VB_PAUSE, VB_EXTRA, 4, 1, 0, VB_STEP, 1 }, 7);
    say_packet(&s, 4, 7, 0, n & 1 ? 3 : 2);
    say_packet(&s, n & 2 ? 3 : 9, 7, 0, 0);
    return s.len;
}
