/* A hostile driver of the virtio network card, and a network that sends whatever the input says. Whatever comes, frames
 * that go out have the lengths and meta data that a back end may rely on, and cutting them works or is refused. */
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "net/offload.h"
#include "vbench.h"
#include "virtio/net.h"

struct bench {
    struct vbench *b;
    struct net_peer peer;
    struct virtio_net dev, other;
    struct net_batch batch;
    unsigned kicks;
};

/* Large, and written before it is read: made once. */
static uint8_t batch_bytes[NET_BATCH_BYTES], frame[NET_FRAME_MAX], cut[NET_FRAME_MAX];

static void on_kick(struct net_peer *p) { container_of(p, struct bench, peer)->kicks++; }
static void on_offloads(struct net_peer *p, unsigned bits) { FUZZ_CHECK(bits < 16); }

static int on_segment(void *opaque, uint8_t *data, uint32_t len)
{
    struct net_layout l;

    FUZZ_CHECK(len >= NET_FRAME_MIN && len <= NET_FRAME_MAX);
    FUZZ_CHECK(net_parse(data, len, &l) == 0 && l.l4);
    return 0;
}

static void fetch(struct bench *t)
{
    t->batch.count = 0;
    t->batch.used = 0;
    virtio_net_client.fetch(&t->dev, &t->batch);
    for (unsigned n = 0; n < t->batch.count; n++) {
        struct net_frame *f = &t->batch.frame[n];

        FUZZ_CHECK(f->len >= NET_FRAME_MIN && f->len <= NET_FRAME_MAX && net_meta_ok(&f->meta, f->len));
        if (f->meta.gso_type)
            net_segment(f, 0, cut, on_segment, NULL);
        net_finish_csum(f);
    }
}

/* A frame from the network: its length and meta data, then bytes over a plausible TCP packet. */
static void deliver(struct bench *t, struct fuzz_input *in)
{
    static const uint8_t tcp[54] = { 0x52, 0x54, 0, 1, 2, 3, 0x52, 0x54, 0, 4, 5, 6, 8,  0,  0x45, 0, 1, 0,
                                     0,    0,    0, 0, 64, 6, 0,    0,    10, 0, 2, 2, 10, 0,  2,    15, 0, 80,
                                     0,    99,   0, 0, 0,  1, 0,    0,    0,  2, 0x50, 0x18, 0xff, 0xff, 0, 0, 0, 0 };
    struct net_frame f = { .data = frame, .len = NET_FRAME_MIN + (uint32_t)fuzz_take(in, 2) };

    f.meta.flags = (uint8_t)fuzz_take(in, 1) & 3;
    f.meta.gso_type = (uint8_t)fuzz_take(in, 1);
    f.meta.gso_size = (uint16_t)fuzz_take(in, 2);
    f.meta.csum_start = (uint16_t)fuzz_take(in, 2);
    f.meta.csum_offset = (uint16_t)fuzz_take(in, 1);
    memset(frame, 0, f.len < sizeof(frame) ? f.len : sizeof(frame));
    memcpy(frame, tcp, sizeof(tcp));
    size_t at = fuzz_take(in, 1), n = fuzz_take(in, 1);
    if (n > in->left)
        n = in->left;
    memcpy(frame + at, in->at, n);
    in->at += n;
    in->left -= n;
    if (f.len > NET_FRAME_MAX || !net_meta_ok(&f.meta, f.len)) /* port.c sees to it */
        return;
    virtio_net_client.deliver(&t->dev, &f);
    FUZZ_CHECK(f.progress <= 2048);
}

/* u8 what: the network's side. */
static void extra(void *opaque, struct fuzz_input *in)
{
    struct bench *t = opaque;
    uint8_t what = (uint8_t)fuzz_take(in, 1);

    if (what & 8)
        virtio_net_announce(&t->dev);
    if (what & 16)
        virtio_net_set_link(&t->dev, what & 32);
    loop_unlock(&t->b->loop); /* the port's thread has no lock */
    if (what & 1)
        fetch(t);
    if (what & 2)
        deliver(t, in);
    if (what & 4)
        virtio_net_client.flush(&t->dev);
    loop_lock(&t->b->loop);
}

static void check(void *opaque)
{
    struct bench *t = opaque;

    FUZZ_CHECK(t->dev.pushed == 0 && t->dev.pairs >= 1 && t->dev.pairs <= t->dev.max_pairs);
    for (unsigned n = 0; n < 5; n++)
        FUZZ_CHECK((t->dev.vp.status & VIRTIO_NEEDS_RESET) || t->dev.vp.vq[n].held == 0);
}

static void make(struct bench *t, struct virtio_net *v)
{
    struct virtio_net_setup setup = {
        .peer = &t->peer,
        .loop = &t->b->loop,
        .ram = &t->b->ram,
        .deliver = vbench_deliver,
        .deliver_opaque = t->b,
        .name = "fuzz",
        .mac = { 0x52, 0x54, 0, 1, 2, 3 },
        .queues = 2,
    };

    FUZZ_CHECK(virtio_net_init(v, &setup) == 0);
}

/* CSUM and all of TSO; merged buffers or not; control queue and pairs or not. */
#define F_OFFLOADS 0x1b83ULL
#define F_CTRL     0xfe0000ULL

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bench *t = calloc(1, sizeof(*t));
    struct vbench_target target = {
        .ops = &virtio_net_ops,
        .queue = { 0, 1, 2, 3, 4 },
        .queues = 5,
        .features = { 0, F_OFFLOADS | 1 << 15, 1 << 15 | F_CTRL, F_OFFLOADS | 1 << 15 | F_CTRL | 4 },
        .extra = extra,
        .check = check,
        .opaque = t,
    };

    FUZZ_CHECK(t);
    t->b = vbench_open();
    t->peer = (struct net_peer){ .kick = on_kick, .offloads = on_offloads, .mtu = 9000, .link = true };
    t->batch.buf = batch_bytes;
    make(t, &t->dev);
    make(t, &t->other);
    target.vp = &t->dev.vp;
    target.dev = &t->dev;
    target.other = &t->other;
    vbench_run(t->b, &target, data, size);
    vbench_close(t->b);
    free(t);
    return 0;
}

/* -- seeds: frames both ways and commands -- */

static void say_deliver(struct vbench_seed *s, unsigned len, bool gso)
{
    uint8_t r[] = { VB_EXTRA, 2 | 4, (uint8_t)len, (uint8_t)(len >> 8), gso, gso, 100, 0, 34, 0, 16, 0, 0 };

    vbench_say(s, r, sizeof(r));
}

static void say_command(struct vbench_seed *s, uint8_t class_code, uint8_t cmd, const void *arg, uint8_t n)
{
    uint8_t head[2] = { class_code, cmd };
    uint16_t at = VBENCH_DATA + 0x3000, ack = VBENCH_DATA + 0x3800, len = (uint16_t)(2 + n);
    uint8_t chain[] = { VB_CHAIN, 4, 1, (uint8_t)at, (uint8_t)(at >> 8), (uint8_t)len, (uint8_t)(len >> 8),
                        (uint8_t)(ack | 1), (uint8_t)(ack >> 8), 1, 0 };

    vbench_say_ram(s, at, head, 2);
    vbench_say_ram(s, (uint16_t)(at + 2), arg, n);
    vbench_say(s, chain, sizeof(chain));
    vbench_say_op(s, VB_KICK, 4);
}

static void say_commands(struct vbench_seed *s)
{
    static const uint8_t one[8] = { 1 }, two[2] = { 2, 0 };
    static const uint8_t macs[20] = { 1, 0, 0, 0, 2, 2, 2, 2, 2, 2, 1, 0, 0, 0, 1, 0, 0x5e, 0, 0, 1 };

    say_command(s, 0, 1, one, 1);
    say_command(s, 1, 0, macs, sizeof(macs));
    say_command(s, 1, 1, macs + 4, 6);
    say_command(s, 2, 0, two, 2);
    say_command(s, 4, 0, two, 2);
    say_command(s, 5, 0, one, 8);
}

size_t fuzz_seed(unsigned n, uint8_t *buf, size_t size)
{
    static const uint8_t header[12] = { 1, 1, 54, 0, 100, 0, 34, 0, 16, 0 };
    struct vbench_seed s = { .buf = buf };

    if (n >= 16)
        return 0;
    vbench_say_go(&s, (n & 3) | 5 << 2, n >> 2);
    for (unsigned i = 0; i < 4; i++)
        vbench_say_chain(&s, 0, (uint16_t)(VBENCH_DATA + 0x800 * i), 0x600, true);
    if (n >> 2 >= 2)
        say_commands(&s);
    say_deliver(&s, 200, false);
    say_deliver(&s, 1000, n >> 2 & 1);
    if (n >> 2 & 1)
        vbench_say_ram(&s, VBENCH_DATA + 0x4000, header, sizeof(header));
    vbench_say_chain(&s, 1, VBENCH_DATA + 0x4000, 300, false);
    vbench_say_op(&s, VB_EXTRA, 1 | 4 | 8);
    vbench_say(&s, (uint8_t[]){ VB_PAUSE }, 1);
    return s.len;
}
