/* The virtio socket device: both ways to connect, data, credit on both sides, both ways to end, bounds, misuse, what a
 * loaded state does. The host's end is a fake that takes and gives what a case says. */
#include <errno.h>
#include <string.h>

#include "base/bits.h"
#include "base/err.h"
#include "rig.h"
#include "state/state.h"
#include "vdriver.h"
#include "virtio/vsock.h"

#define RAM   (16ULL << 20)
#define DATA  0x100000ULL
#define TXBUF 0x900000ULL
#define ROOM  4096U /* of a receive buffer, header included */

enum { RX, TX, EVENT };
enum { REQUEST = 1, RESPONSE, RST, SHUTDOWN, RW, CREDIT_UPDATE, CREDIT_REQUEST };

struct end {
    struct vsock_conn *conn;
    uint8_t got[1 << 20], out[1 << 20];
    size_t got_len, room, out_len, out_at;
    uint32_t accepted;
    bool used, closed, eof, in, rd_out, half, broken;
};

static struct {
    struct rig rig;
    struct pci_host host;
    struct ram ram;
    struct virtio_vsock v, other;
    struct vring ring[3];
    struct end end[2];
    unsigned connects, next_rx;
    bool refuse, listening;
    /* the packet that expect() saw last */
    uint32_t len, flags, buf_alloc, fwd, src_port, dst_port;
    uint8_t body[ROOM];
} f;

static void *end_connect(void *opaque, uint32_t port, struct vsock_conn *c)
{
    struct end *e = &f.end[f.connects++ % 2];

    if (f.refuse)
        return NULL;
    *e = (struct end){ .conn = c, .room = SIZE_MAX, .used = true };
    return e;
}
static void end_accepted(void *stream, uint32_t port) { ((struct end *)stream)->accepted = port; }
static ssize_t end_read(void *stream, uint8_t *buf, size_t len)
{
    struct end *e = stream;
    size_t n = e->out_len - e->out_at < len ? e->out_len - e->out_at : len;

    if (!n)
        return e->broken ? -EPIPE : e->eof ? 0 : -EAGAIN;
    memcpy(buf, e->out + e->out_at, n);
    e->out_at += n;
    return (ssize_t)n;
}
static ssize_t end_write(void *stream, const uint8_t *buf, size_t len)
{
    struct end *e = stream;
    size_t n = len < e->room ? len : e->room;

    if (e->broken)
        return -EPIPE;
    if (!n)
        return -EAGAIN;
    assert_true(e->got_len + n <= sizeof(e->got));
    memcpy(e->got + e->got_len, buf, n);
    e->got_len += n;
    e->room -= n;
    return (ssize_t)n;
}
static void end_shutdown(void *stream) { ((struct end *)stream)->half = true; }
static void end_watch(void *stream, bool in, bool out)
{
    ((struct end *)stream)->in = in;
    ((struct end *)stream)->rd_out = out;
}
static void end_close(void *stream)
{
    assert_false(((struct end *)stream)->closed);
    ((struct end *)stream)->closed = true;
}
static void end_listen(void *opaque, bool on) { f.listening = on; }

static const struct vsock_backend backend = { end_connect, end_accepted, end_read, end_write, end_shutdown,
                                              end_watch,   end_close,    end_listen, NULL };

static void make(struct virtio_vsock *v)
{
    assert_int_equal(virtio_vsock_init(v, 2, &backend, &f.rig.loop, &f.ram, rig_deliver, &f.rig), -EINVAL);
    assert_int_equal(virtio_vsock_init(v, 5, &backend, &f.rig.loop, &f.ram, rig_deliver, &f.rig), 0);
}

static int setup(void **state)
{
    memset(&f, 0, sizeof(f));
    rig_init(&f.rig, 0);
    ram_init(&f.ram);
    assert_int_equal(ram_add_slot(&f.ram, 0, RAM, false), 0);
    struct irq_line lines[4] = { rig_irq(&f.rig, 0), rig_irq(&f.rig, 1), rig_irq(&f.rig, 2), rig_irq(&f.rig, 3) };
    pci_host_init(&f.host, &f.rig.io, &f.rig.mmio, lines);
    make(&f.v);
    make(&f.other);
    assert_int_equal(pci_dev_plug(&f.v.vp.pci, &f.host, 1), 0);
    virtio_vsock_ops.reset(&f.v);
    return 0;
}

static int teardown(void **state)
{
    virtio_vsock_ops.destroy(&f.v);
    virtio_vsock_ops.destroy(&f.other);
    for (unsigned n = 0; n < 2; n++)
        assert_true(!f.end[n].used || f.end[n].closed);
    ram_fini(&f.ram);
    rig_fini(&f.rig);
    return 0;
}

static void turn(void)
{
    for (unsigned n = 0; n < 8; n++)
        loop_step(&f.rig.loop, 0);
}

static void start(bool packed)
{
    vd_plug(&f.rig, &f.v.vp.pci, true, 4);
    assert_true(vd_negotiate(&f.rig, 1 | (packed ? VIRTIO_F_RING_PACKED : 0)));
    for (unsigned q = 0; q < 3; q++) {
        vring_init(&f.ring[q], &f.ram, packed, 64, 0x10000 + 0x4000 * q);
        vd_queue(&f.rig, q, &f.ring[q]);
    }
    vd_go(&f.rig);
}

static uint32_t say_alloc = 1 << 20, say_fwd;

static void say_raw(uint64_t src, uint64_t dst, uint16_t type, uint16_t op, uint32_t gport, uint32_t hport, uint32_t flags,
                    const void *body, uint32_t len)
{
    struct vring_part p = { TXBUF, 44 + len, false };
    uint8_t h[44];
    uint32_t used;
    uint16_t id;

    st_le64(h, src);
    st_le64(h + 8, dst);
    st_le32(h + 16, gport);
    st_le32(h + 20, hport);
    st_le32(h + 24, len);
    st_le16(h + 28, type);
    st_le16(h + 30, op);
    st_le32(h + 32, flags);
    st_le32(h + 36, say_alloc);
    st_le32(h + 40, say_fwd);
    ram_write(&f.ram, TXBUF, h, sizeof(h));
    ram_write(&f.ram, TXBUF + 44, body, len);
    vring_add(&f.ring[TX], &p, 1);
    vd_kick(&f.rig, TX);
    turn();
    assert_true(vring_get(&f.ring[TX], &id, &used, 1));
}

static void say(uint16_t op, uint32_t gport, uint32_t hport, uint32_t flags, const void *body, uint32_t len)
{
    say_raw(5, 2, 1, op, gport, hport, flags, body, len);
}

/* The next packet from the device; false: none. Its buffer is where the ring's id says: found by the order of give(). */
static unsigned seen;
static bool next(uint16_t *op)
{
    uint8_t h[44];
    uint32_t used;
    uint16_t id;

    if (!vring_get(&f.ring[RX], &id, &used, 1))
        return false;
    uint64_t at = DATA + (uint64_t)(seen++ % 64) * ROOM;
    ram_read(&f.ram, at, h, sizeof(h));
    assert_int_equal(ld_le64(h), 2);
    assert_int_equal(ld_le64(h + 8), 5);
    f.src_port = ld_le32(h + 16);
    f.dst_port = ld_le32(h + 20);
    f.len = ld_le32(h + 24);
    *op = ld_le16(h + 30);
    f.flags = ld_le32(h + 32);
    f.buf_alloc = ld_le32(h + 36);
    f.fwd = ld_le32(h + 40);
    assert_int_equal(used, 44 + f.len);
    ram_read(&f.ram, at + 44, f.body, f.len);
    return true;
}

static void expect(uint16_t op)
{
    uint16_t got = 0;

    assert_true(next(&got));
    assert_int_equal(got, op);
}
static void expect_none(void)
{
    uint16_t op;
    assert_false(next(&op));
}

/* A connection of guest port 1000 to host port 80, on the first fake end. */
static struct end *connected(void)
{
    f.connects = 0;
    say(REQUEST, 1000, 80, 0, "", 0);
    expect(RESPONSE);
    assert_int_equal(f.src_port, 80);
    assert_int_equal(f.dst_port, 1000);
    return &f.end[0];
}

static void begin(bool packed)
{
    say_alloc = 1 << 20;
    say_fwd = 0;
    start(packed);
    /* give() and next() count together from here */
    seen = 0;
    for (unsigned n = 0; n < 32; n++) {
        struct vring_part p = { DATA + (uint64_t)n * ROOM, ROOM, true };
        vring_add(&f.ring[RX], &p, 1);
    }
    vd_kick(&f.rig, RX);
    turn();
}
static unsigned given_more;
static void more(unsigned n)
{
    for (unsigned i = 0; i < n; i++, given_more++) {
        struct vring_part p = { DATA + (uint64_t)((32 + given_more) % 64) * ROOM, ROOM, true };
        vring_add(&f.ring[RX], &p, 1);
    }
    vd_kick(&f.rig, RX);
    turn();
}

/* ---- cases ---- */

static void to_host(bool packed)
{
    struct end *e;

    begin(packed);
    e = connected();
    say(RW, 1000, 80, 0, "hello", 5);
    assert_int_equal(e->got_len, 5);
    assert_memory_equal(e->got, "hello", 5);
    memcpy(e->out, "answer", e->out_len = 6);
    assert_true(e->in);
    virtio_vsock_ready(&f.v, e->conn, true, false);
    turn();
    expect(RW);
    assert_memory_equal(f.body, "answer", 6);
    assert_int_equal(f.fwd, 5);
    say(SHUTDOWN, 1000, 80, 3, "", 0);
    expect(RST);
    assert_true(e->closed);
    expect_none();
}
static void test_to_host(void **state) { to_host(false); }
static void test_to_host_packed(void **state) { to_host(true); }

static void test_to_guest(void **state)
{
    struct end *e = &f.end[0];

    assert_null(virtio_vsock_open(&f.v, 22, e)); /* no driver */
    begin(false);
    *e = (struct end){ .room = SIZE_MAX, .used = true };
    e->conn = virtio_vsock_open(&f.v, 22, e);
    assert_non_null(e->conn);
    turn();
    expect(REQUEST);
    assert_int_equal(f.dst_port, 22);
    uint32_t port = f.src_port;
    say(RESPONSE, 22, port, 0, "", 0);
    assert_int_equal(e->accepted, port);
    assert_true(e->in);
    say(RST, 22, port, 0, "", 0);
    assert_true(e->closed);
    expect_none();
    /* refused */
    *e = (struct end){ .used = true };
    e->conn = virtio_vsock_open(&f.v, 23, e);
    turn();
    expect(REQUEST);
    say(RST, 23, f.src_port, 0, "", 0);
    assert_true(e->closed);
    assert_int_equal(e->accepted, 0);
}

static void test_refused(void **state)
{
    begin(false);
    f.refuse = true;
    say(REQUEST, 1000, 81, 0, "", 0);
    expect(RST);
    assert_int_equal(f.src_port, 81);
    say(RW, 1, 2, 0, "x", 1); /* no such connection */
    expect(RST);
    say(RST, 1, 2, 0, "", 0); /* no answer to that */
    expect_none();
    say_raw(6, 2, 1, REQUEST, 1, 2, 0, "", 0); /* somebody else's address */
    expect_none();
    say_raw(5, 2, 9, REQUEST, 1, 2, 0, "", 0); /* no stream */
    expect(RST);
}

/* The stream stops: what the guest may send waits here, more is a breach; the guest hears when there is room again. */
static void test_credit_of_guest(void **state)
{
    static uint8_t block[32768];
    struct end *e;

    begin(false);
    e = connected();
    assert_int_equal(f.buf_alloc, VSOCK_BUF);
    e->room = 0;
    for (unsigned n = 0; n < VSOCK_BUF / sizeof(block); n++) {
        memset(block, (int)n + 1, sizeof(block));
        say(RW, 1000, 80, 0, block, sizeof(block));
    }
    expect_none();
    assert_true(e->rd_out);
    e->room = SIZE_MAX;
    virtio_vsock_ready(&f.v, e->conn, false, true);
    turn();
    assert_int_equal(e->got_len, VSOCK_BUF);
    for (unsigned n = 0; n < VSOCK_BUF; n++)
        assert_int_equal(e->got[n], n / sizeof(block) + 1);
    expect(CREDIT_UPDATE);
    assert_int_equal(f.fwd, VSOCK_BUF);
    assert_false(e->rd_out);
    e->room = 0;
    for (unsigned n = 0; n <= VSOCK_BUF / sizeof(block); n++)
        say(RW, 1000, 80, 0, block, sizeof(block));
    expect(RST);
    assert_true(e->closed);
}

/* The guest has little room: no byte more, and reading stops until it says so. */
static void test_credit_of_host(void **state)
{
    struct end *e;

    begin(false);
    say_alloc = 100;
    e = connected();
    e->out_len = 250;
    virtio_vsock_ready(&f.v, e->conn, true, false);
    turn();
    expect(RW);
    assert_int_equal(f.len, 100);
    expect(CREDIT_REQUEST);
    expect_none();
    assert_int_equal(e->out_at, 100);
    say_fwd = 60;
    say(CREDIT_UPDATE, 1000, 80, 0, "", 0);
    expect(RW);
    assert_int_equal(f.len, 60);
    expect(CREDIT_REQUEST);
    say_fwd = 1000000; /* nonsense: nothing more */
    say(CREDIT_UPDATE, 1000, 80, 0, "", 0);
    expect_none();
    say_fwd = 160;
    say(CREDIT_REQUEST, 1000, 80, 0, "", 0);
    expect(CREDIT_UPDATE);
    expect(RW);
    assert_int_equal(f.len, 90);
}

static void test_half_closed(void **state)
{
    struct end *e;

    begin(false);
    e = connected();
    e->room = 2;
    say(RW, 1000, 80, 0, "abcdef", 6);
    say(SHUTDOWN, 1000, 80, 2, "", 0);
    assert_false(e->half); /* not before all has been passed on */
    e->room = 100;
    virtio_vsock_ready(&f.v, e->conn, false, true);
    assert_int_equal(e->got_len, 6);
    assert_true(e->half);
    memcpy(e->out, "late", e->out_len = 4);
    virtio_vsock_ready(&f.v, e->conn, true, false);
    turn();
    expect(RW);
    e->eof = true;
    virtio_vsock_ready(&f.v, e->conn, true, false);
    turn();
    expect(SHUTDOWN);
    assert_int_equal(f.flags, 2);
    say(SHUTDOWN, 1000, 80, 1, "", 0);
    expect(RST);
    assert_true(e->closed);
}

static void test_host_gone(void **state)
{
    struct end *e;

    begin(false);
    e = connected();
    e->broken = true;
    say(RW, 1000, 80, 0, "lost", 4);
    expect(SHUTDOWN);
    assert_int_equal(f.flags, 3);
    say(RW, 1000, 80, 0, "more", 4); /* sent before it knew */
    expect_none();
    say(RST, 1000, 80, 0, "", 0);
    assert_true(e->closed);
}

/* A guest that takes no answers is not heard any more, and goes on where it stopped. */
static void test_no_room(void **state)
{
    unsigned resets = 0, taken = 0;
    uint32_t used;
    uint16_t id, op;

    start(false);
    seen = 0;
    for (unsigned n = 0; n < 63; n++) {
        struct vring_part p = { TXBUF, 44, false };
        uint8_t h[44] = { 5, [8] = 2, [16] = 1, [28] = 1, [30] = RW };
        ram_write(&f.ram, TXBUF, h, sizeof(h));
        vring_add(&f.ring[TX], &p, 1);
    }
    for (unsigned round = 0; round < 3; round++) {
        vd_kick(&f.rig, TX);
        turn();
        while (vring_get(&f.ring[TX], &id, &used, 1)) {
            struct vring_part p = { TXBUF, 44, false };
            taken++;
            vring_add(&f.ring[TX], &p, 1);
        }
    }
    assert_int_equal(taken, VSOCK_RESETS);
    for (unsigned n = 0; n < 60; n++) {
        struct vring_part p = { DATA + (uint64_t)n * ROOM, ROOM, true };
        vring_add(&f.ring[RX], &p, 1);
    }
    vd_kick(&f.rig, RX);
    turn();
    while (next(&op))
        resets += op == RST;
    assert_int_equal(resets, 60);
    while (vring_get(&f.ring[TX], &id, &used, 1))
        taken++;
    assert_true(taken > VSOCK_RESETS);
}

static void test_too_many(void **state)
{
    static struct end ends[VSOCK_CONNS];
    struct end *extra = &f.end[0];

    start(false);
    for (unsigned n = 0; n < VSOCK_CONNS; n++) {
        ends[n].closed = false;
        assert_non_null(virtio_vsock_open(&f.v, n, &ends[n]));
    }
    assert_null(virtio_vsock_open(&f.v, 9, extra));
    virtio_vsock_ops.reset(&f.v);
    for (unsigned n = 0; n < VSOCK_CONNS; n++)
        assert_true(ends[n].closed);
}

static void test_misuse(void **state)
{
    struct vring_part to_write = { TXBUF, 100, true }, too_short = { TXBUF, 43, false };

    start(false);
    vring_add(&f.ring[TX], &to_write, 1);
    vd_kick(&f.rig, TX);
    turn();
    assert_true(f.v.vp.status & VIRTIO_NEEDS_RESET);
    start(false);
    vring_add(&f.ring[TX], &too_short, 1);
    vd_kick(&f.rig, TX);
    turn();
    assert_true(f.v.vp.status & VIRTIO_NEEDS_RESET);
}

/* A pause loses nothing; a loaded state ends all, and the guest hears it. */
static void test_state(void **state)
{
    struct vring_part p = { DATA, 4, true };
    struct state_buf x = { .data = NULL };
    struct err err = { "" };
    uint32_t used;
    uint16_t id;
    struct end *e;

    begin(false);
    e = connected();
    virtio_vsock_ops.pause(&f.v);
    assert_false(e->in);
    assert_false(f.listening);
    assert_null(virtio_vsock_open(&f.v, 22, &f.end[1]));
    assert_int_equal(state_save(&x, virtio_vsock_ops.state, 0, &f.v), 0);
    virtio_vsock_ops.resume(&f.v);
    assert_true(e->in);
    assert_true(f.listening);
    say(RW, 1000, 80, 0, "on", 2);
    assert_int_equal(e->got_len, 2);
    virtio_vsock_ops.pause(&f.v);
    assert_int_equal(state_load(x.data, x.len, virtio_vsock_ops.state, 0, &f.v, &err), 0);
    virtio_vsock_ops.resume(&f.v);
    assert_true(e->closed);
    vring_init(&f.ring[EVENT], &f.ram, false, 64, 0x10000 + 0x4000 * EVENT);
    vring_add(&f.ring[EVENT], &p, 1);
    vd_kick(&f.rig, EVENT);
    turn();
    assert_true(vring_get(&f.ring[EVENT], &id, &used, 1));
    assert_int_equal(used, 4);
    state_buf_fini(&x);
}

/* Random packets of a few ports, ends that do anything: no more than the bounds, and all streams are closed at the end. */
static void test_random(void **state)
{
    static uint8_t body[3000];
    uint64_t seed = 1;
    uint16_t op;

    begin(false);
    given_more = 0;
    for (unsigned n = 0; n < 4000; n++) {
        uint64_t r = seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
        struct end *e = &f.end[r >> 20 & 1];

        r >>= 30;
        say_fwd += (uint32_t)(r >> 3 & 7) * 100;
        f.refuse = f.end[0].used && !f.end[0].closed && f.end[1].used && !f.end[1].closed;
        if (!f.refuse)
            f.connects = f.end[0].used && !f.end[0].closed;
        say((uint16_t)(1 + r % 8), 1000 + (uint32_t)(r >> 8 & 1), 80, (uint32_t)(r >> 9 & 3), body,
            r & 16 ? (uint32_t)(r >> 12) % sizeof(body) : 0);
        if (e->used && !e->closed) {
            e->room = r & 32 ? 1000 : 0;
            e->eof |= (r >> 24 & 31) == 1;
            e->broken |= (r >> 24 & 31) == 2;
            e->out_len = e->out_at + (r >> 10 & 1023) < sizeof(e->out) ? e->out_at + (r >> 10 & 1023) : e->out_len;
            e->got_len = 0;
            virtio_vsock_ready(&f.v, e->conn, e->in, e->rd_out);
            turn();
        }
        unsigned got = 0;
        while (next(&op))
            got++;
        more(got);
        assert_true(f.v.conns <= 2);
    }
    assert_false(f.v.vp.status & VIRTIO_NEEDS_RESET);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define CASE(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
        CASE(test_to_host),         CASE(test_to_host_packed), CASE(test_to_guest),    CASE(test_refused),
        CASE(test_credit_of_guest), CASE(test_credit_of_host), CASE(test_half_closed), CASE(test_host_gone),
        CASE(test_no_room),         CASE(test_too_many),       CASE(test_misuse),      CASE(test_state),
        CASE(test_random),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
