/* A hostile driver of the virtio console, and back ends that take, refuse, come and go as the input says.
 * Whatever comes, what the back ends see is what the driver put into its rings, and no more than a call's
 * budget at once. */
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "vbench.h"
#include "virtio/console.h"

struct end {
    bool open, stuck;
};

struct bench {
    struct vbench *b;
    struct virtio_console dev, other;
    struct end end[VCON_PORTS];
    size_t call; /* bytes that the back ends took since the last record */
};

static struct bench *current; /* of the one input that runs */

static int end_tx(void *opaque, const uint8_t *data, size_t len)
{
    struct end *e = opaque;

    current->call += len;
    FUZZ_CHECK(len > 0 && current->call < (64U << 20));
    return e->stuck ? (int)(len / 2) : (int)len;
}

static void end_rx_ready(void *opaque)
{
    struct end *e = opaque;
    unsigned n = (unsigned)(e - current->end);
    uint8_t data[100];

    memset(data, (int)n, sizeof(data));
    if (e->open && vcon_room(&current->dev, n))
        FUZZ_CHECK(vcon_receive(&current->dev, n, data, sizeof(data)) <= sizeof(data));
}

static bool end_is_open(void *opaque) { return ((struct end *)opaque)->open; }

/* The host's side: u8 port, u8 what. */
static void extra(void *opaque, struct fuzz_input *in)
{
    struct bench *t = opaque;
    unsigned n = (unsigned)fuzz_take(in, 1) % VCON_PORTS;
    uint8_t what = (uint8_t)fuzz_take(in, 1);

    t->call = 0;
    t->end[n].stuck = what & 1;
    t->end[n].open = what & 2;
    vcon_opened(&t->dev, n);
    if (what & 4)
        end_rx_ready(&t->end[n]);
    if (what & 8)
        vcon_tx_ready(&t->dev, n);
    if (what & 16)
        vcon_resize(&t->dev, n, (uint16_t)(what >> 5), 25);
}

static void make(struct bench *t, struct virtio_console *v)
{
    struct vcon_backend backend = { .tx = end_tx, .rx_ready = end_rx_ready, .is_open = end_is_open };

    FUZZ_CHECK(virtio_console_init(v, 4, &t->b->loop, &t->b->ram, vbench_deliver, t->b) == 0);
    for (unsigned n = 0; n < 4; n++) {
        static const char *const names[] = { "", "", "agent", "log" };
        backend.opaque = &t->end[n];
        FUZZ_CHECK(n == 3 || virtio_console_add(v, n, names[n], backend) == 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bench *t = calloc(1, sizeof(*t));
    struct vbench_target target = {
        .ops = &virtio_console_ops,
        .queue = { 0, 1, 2, 3, 6, 7 }, /* the console's, control, those of port 2 */
        .queues = 6,
        .features = { 7, 1, 2, 0 },
        .extra = extra,
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
    vbench_close(t->b);
    free(t);
    return 0;
}

static void say_control(struct vbench_seed *s, uint8_t port, uint8_t event)
{
    uint8_t msg[8] = { port, 0, 0, 0, event, 0, 1, 0 };

    vbench_say_ram(s, VBENCH_DATA, msg, sizeof(msg));
    vbench_say_chain(s, 3, VBENCH_DATA, sizeof(msg), false);
    vbench_say_op(s, VB_KICK, 3);
}

/* A driver that comes up, both forms of ring; then output and input on each queue. */
size_t fuzz_seed(unsigned n, uint8_t *buf, size_t size)
{
    struct vbench_seed s = { .buf = buf };

    if (n >= 8)
        return 0;
    vbench_say_go(&s, 4 << 2 | (n & 3), n >> 2);
    for (unsigned i = 0; i < 8; i++)
        vbench_say_chain(&s, 2, (uint16_t)(VBENCH_DATA + 0x100 + 64 * i), 64, true);
    say_control(&s, 0, 0);
    for (uint8_t port = 0; port < 3; port++) {
        say_control(&s, port, 3);
        say_control(&s, port, 6);
    }
    vbench_say(&s, (uint8_t[]){ VB_EXTRA, 2, 6 }, 3);
    for (uint8_t ring = 0; ring < 6; ring++) {
        vbench_say_chain(&s, ring, VBENCH_DATA + 0x1000, 200, !(ring & 1));
        vbench_say_op(&s, VB_KICK, ring < 4 ? ring : ring + 2);
    }
    vbench_say(&s, (uint8_t[]){ VB_EXTRA, 2, 13, VB_EXTRA, 2, 10, VB_EXTRA, 0, 0xf0 }, 9);
    vbench_say_op(&s, VB_STEP, 1);
    vbench_say(&s, (uint8_t[]){ VB_PAUSE }, 1);
    return s.len;
}
