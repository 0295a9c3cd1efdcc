/* The virtio network card: frames both ways on both rings, merged buffers, offloads done in software, the control queue,
 * link and announcement, drivers that break the rules, pause and state. The port is played by the test. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/err.h"
#include "net/offload.h"
#include "rig.h"
#include "vdriver.h"
#include "virtio/net.h"

#define RAM  (64ULL << 20)
#define DATA 0x100000ULL
#define ACK  0x90000ULL
#define CMD  0x91000ULL
enum { HEADER = 12, LEN = 1000, RX = 0, TX = 1, RX1 = 2, TX1 = 3, CTRL = 4 };
enum { CSUM = 1 << 0, GUEST_CSUM = 1 << 1, OFFLOADS = 1 << 2, GUEST_TSO4 = 1 << 7, HOST_TSO4 = 1 << 11, MRG = 1 << 15 };
enum { CTRL_VQ = 1 << 17, CTRL_RX = 1 << 18, CTRL_VLAN = 1 << 19, ANNOUNCE = 1 << 21, MQ = 1 << 22, CTRL_MAC = 1 << 23 };
#define CTRL_ALL (CTRL_VQ | CTRL_RX | CTRL_VLAN | ANNOUNCE | MQ | CTRL_MAC | OFFLOADS | 1 << 20 | 1 << 16)

static struct {
    struct rig rig;
    struct pci_host host;
    struct ram ram;
    struct net_peer peer;
    struct virtio_net net, other;
    struct vring ring[5];
    struct net_batch batch;
    unsigned kicks, offloads;
    uint8_t frame[NET_FRAME_MAX];
} f;

static const uint8_t mac[6] = { 0x52, 0x54, 0, 1, 2, 3 };

static void on_kick(struct net_peer *p) { f.kicks++; }
static void on_offloads(struct net_peer *p, unsigned bits) { f.offloads = bits; }

static void make(struct virtio_net *v)
{
    struct virtio_net_setup setup = {
        .peer = &f.peer,
        .loop = &f.rig.loop,
        .ram = &f.ram,
        .deliver = rig_deliver,
        .deliver_opaque = &f.rig,
        .name = "net",
        .queues = 2,
    };

    memcpy(setup.mac, mac, 6);
    assert_int_equal(virtio_net_init(v, &setup), 0);
}

static int setup(void **state)
{
    struct irq_line none[4] = { { 0 } };

    memset(&f, 0, sizeof(f));
    rig_init(&f.rig, 0);
    pci_host_init(&f.host, &f.rig.io, &f.rig.mmio, none);
    ram_init(&f.ram);
    assert_int_equal(ram_add_slot(&f.ram, 0, RAM, false), 0);
    f.peer = (struct net_peer){ .kick = on_kick, .offloads = on_offloads, .mtu = 9000, .link = true };
    f.batch.buf = malloc(NET_BATCH_BYTES);
    make(&f.net);
    assert_int_equal(pci_dev_plug(&f.net.vp.pci, &f.host, 1), 0);
    return 0;
}

static int teardown(void **state)
{
    virtio_net_ops.destroy(&f.net);
    free(f.batch.buf);
    ram_fini(&f.ram);
    rig_fini(&f.rig);
    return 0;
}

static void start(bool packed, uint64_t features)
{
    vd_plug(&f.rig, &f.net.vp.pci, true, 6);
    assert_true(vd_negotiate(&f.rig, features | (packed ? VIRTIO_F_RING_PACKED : 0)));
    for (unsigned n = 0; n < 5; n++) {
        vring_init(&f.ring[n], &f.ram, packed, 64, 0x1000 + 0x4000 * n);
        vd_queue(&f.rig, n, &f.ring[n]);
    }
    vd_go(&f.rig);
    f.rig.msgs = 0;
}

/* A TCP packet of len bytes with a payload that can be told apart, its checksum to be made. */
static struct net_frame tcp_frame(uint32_t len, uint16_t gso)
{
    static const uint8_t head[54] = { 0x52, 0x54, 0, 1, 2, 3, 0x52, 0x54, 0, 9,    9,    9,    8,    0,  0x45, 0,  0, 0,
                                      0,    7,    0, 0, 64, 6, 0,    0,    10, 0,    2,    2,    10,   0,  2,    15, 0, 80,
                                      0,    99,   0, 0, 0,  1, 0,    0,    0,  2,    0x50, 0x19, 0xff, 0xff, 0, 0, 0, 0 };
    struct net_frame r = { .data = f.frame, .len = len };
    uint8_t be[2];

    for (uint32_t i = 0; i < len; i++)
        f.frame[i] = (uint8_t)(i * 7 + i / 256);
    memcpy(f.frame, head, sizeof(head));
    f.frame[16] = (uint8_t)((len - 14) >> 8);
    f.frame[17] = (uint8_t)(len - 14);
    be[0] = (uint8_t)((len - 34) >> 8);
    be[1] = (uint8_t)(len - 34);
    uint16_t sum = (uint16_t)~net_fold(net_sum(f.frame + 26, 8, 0x600 + ld_le16(be)));
    memcpy(f.frame + 50, &sum, 2);
    r.meta = (struct net_meta){ .flags = NET_CSUM_NEEDED, .csum_start = 34, .csum_offset = 16, .gso_size = gso,
                                .gso_type = gso ? NET_GSO_TCP4 : 0, .hdr_len = 54 };
    return r;
}

/* All of the TCP checksum holds. */
static void assert_sums(const uint8_t *d, uint32_t len)
{
    uint8_t be[2] = { (uint8_t)((len - 34) >> 8), (uint8_t)(len - 34) };

    assert_int_equal(net_fold(net_sum(d + 34, len - 34, net_sum(d + 26, 8, 0x600 + ld_le16(be)))), 0);
}

static void fetch(void)
{
    f.batch.count = 0;
    f.batch.used = 0;
    virtio_net_client.fetch(&f.net, &f.batch);
}

static void run_send(bool packed)
{
    uint8_t h[HEADER] = { 1, 1, 54, 0, 100, 0, 34, 0, 16, 0 };
    struct net_frame t = tcp_frame(LEN, 100);
    struct vring_part part[3] = { { DATA, HEADER, false }, { DATA + 0x1000, 300, false }, { DATA + 0x2000, LEN - 300, false } };
    uint16_t id;
    uint32_t written;

    start(packed, CSUM | HOST_TSO4);
    ram_write(&f.ram, DATA, h, sizeof(h));
    ram_write(&f.ram, DATA + 0x1000, t.data, 300);
    ram_write(&f.ram, DATA + 0x2000, t.data + 300, LEN - 300);
    unsigned before = f.kicks;
    vring_add(&f.ring[TX], part, 3);
    vd_kick(&f.rig, TX);
    assert_int_equal(f.kicks, before + 1);
    fetch();
    assert_int_equal(f.batch.count, 1);
    assert_int_equal(f.batch.frame[0].len, LEN);
    assert_memory_equal(f.batch.frame[0].data, t.data, LEN);
    assert_int_equal(f.batch.frame[0].meta.gso_size, 100);
    assert_int_equal(f.batch.frame[0].meta.csum_start, 34);
    assert_true(vring_get(&f.ring[TX], &id, &written, 3));
    assert_int_equal(f.rig.msg[0].vector, 0x42);
    /* what was not negotiated may not be asked for: dropped */
    start(packed, CSUM);
    ram_write(&f.ram, DATA, h, sizeof(h));
    vring_add(&f.ring[TX], part, 3);
    fetch();
    assert_int_equal(f.batch.count, 0);
    assert_true(vring_get(&f.ring[TX], &id, &written, 3));
}

static void test_send(void **state) { run_send(false); }
static void test_send_packed(void **state) { run_send(true); }

/* More than a batch holds: the rest comes with the next, in order, and nothing is lost. */
static void test_send_many(void **state)
{
    start(false, 0);
    for (unsigned n = 0; n < 60; n++) {
        struct vring_part part = { DATA + 0x10000 * n, HEADER + 20000, false };
        ram_fill(&f.ram, part.gpa, 0, HEADER);
        ram_fill(&f.ram, part.gpa + HEADER, (uint8_t)n, 20000);
        vring_add(&f.ring[TX], &part, 1);
    }
    for (unsigned n = 0; n < 60;) {
        fetch();
        assert_true(f.batch.count > 0);
        for (unsigned i = 0; i < f.batch.count; i++, n++)
            assert_int_equal(f.batch.frame[i].data[19999], n);
    }
    fetch();
    assert_int_equal(f.batch.count, 0);
}

static void offer(unsigned ring, unsigned n, uint32_t len)
{
    for (unsigned i = 0; i < n; i++) {
        struct vring_part part = { DATA + 0x10000 * i, len, true };
        vring_add(&f.ring[ring], &part, 1);
    }
}

static void run_receive(bool packed)
{
    struct net_frame t = tcp_frame(LEN, 0);
    uint8_t h[HEADER], got[LEN];
    uint32_t written, off = 0;
    uint16_t id;

    start(packed, MRG | GUEST_CSUM);
    assert_int_equal(virtio_net_client.deliver(&f.net, &t), -ENOBUFS);
    offer(RX, 2, 400);
    assert_int_equal(virtio_net_client.deliver(&f.net, &t), -ENOBUFS); /* too few: nothing was taken */
    assert_false(vring_get(&f.ring[RX], &id, &written, 1));
    offer(RX, 1, 400);
    assert_int_equal(virtio_net_client.deliver(&f.net, &t), 0);
    virtio_net_client.flush(&f.net);
    assert_int_equal(f.rig.msgs, 1);
    assert_int_equal(f.rig.msg[0].vector, 0x41);
    ram_read(&f.ram, DATA, h, HEADER);
    assert_int_equal(ld_le16(h + 10), 3);
    assert_int_equal(h[0], NET_CSUM_NEEDED);
    assert_int_equal(ld_le16(h + 6), 34);
    for (unsigned i = 0; i < 3; i++) {
        uint32_t head = i ? 0 : HEADER, want = i < 2 ? 400 : LEN + HEADER - 800;
        uint64_t gpa = i < 2 ? DATA + 0x10000 * i : DATA;
        assert_true(vring_get(&f.ring[RX], &id, &written, 1));
        assert_int_equal(written, want);
        if (i < 2) /* the third buffer lies over the first in this test */
            ram_read(&f.ram, gpa + head, got + off, written - head);
        off += written - head;
    }
    assert_int_equal(off, LEN);
    assert_memory_equal(got + 388, t.data + 388, 400);
}

static void test_receive(void **state) { run_receive(false); }
static void test_receive_packed(void **state) { run_receive(true); }

/* Without merged buffers a frame takes one chain, or is dropped if that is too small; the chain stays. */
static void test_receive_one_chain(void **state)
{
    struct net_frame t = tcp_frame(LEN, 0);
    uint32_t written;
    uint16_t id;
    uint8_t got[LEN];

    start(false, 0);
    offer(RX, 1, 400);
    assert_int_equal(virtio_net_client.deliver(&f.net, &t), 0);
    assert_false(vring_get(&f.ring[RX], &id, &written, 1));
    assert_int_equal(f.net.dropped, 1);
    t = tcp_frame(300, 0);
    assert_int_equal(virtio_net_client.deliver(&f.net, &t), 0);
    assert_true(vring_get(&f.ring[RX], &id, &written, 1));
    assert_int_equal(written, 312);
    ram_read(&f.ram, DATA, got, 312);
    assert_int_equal(got[0], 0); /* it did not take GUEST_CSUM: the checksum was made */
    assert_sums(got + HEADER, 300);
}

/* A driver without TSO gets a large packet cut, also when buffers run out in the middle. */
static void test_receive_cut(void **state)
{
    struct net_frame t = tcp_frame(54 + 2500, 1000);
    uint8_t got[2000], flags;
    uint32_t written;
    uint16_t id;

    start(false, MRG | GUEST_CSUM);
    offer(RX, 2, 1500);
    assert_int_equal(virtio_net_client.deliver(&f.net, &t), -ENOBUFS);
    for (unsigned i = 0; i < 3; i++) {
        if (i == 2) {
            offer(RX, 1, 1500);
            assert_int_equal(virtio_net_client.deliver(&f.net, &t), 0);
        }
        assert_true(vring_get(&f.ring[RX], &id, &written, 1));
        assert_int_equal(written, HEADER + 54 + (i < 2 ? 1000 : 500));
        ram_read(&f.ram, i < 2 ? DATA + 0x10000 * i : DATA, got, written);
        assert_int_equal(got[0], NET_CSUM_VALID);
        assert_sums(got + HEADER, written - HEADER);
        assert_memory_equal(got + HEADER + 54, f.frame + 54 + 1000 * i, written - HEADER - 54);
        flags = got[HEADER + 47];
        assert_int_equal(flags & 9, i == 2 ? 9 : 0); /* FIN and PSH: the last one */
    }
    assert_false(vring_get(&f.ring[RX], &id, &written, 1));
    /* with TSO it comes whole */
    start(false, MRG | GUEST_CSUM | GUEST_TSO4);
    t = tcp_frame(54 + 2500, 1000);
    offer(RX, 1, 4000);
    assert_int_equal(virtio_net_client.deliver(&f.net, &t), 0);
    assert_true(vring_get(&f.ring[RX], &id, &written, 1));
    assert_int_equal(written, HEADER + 54 + 2500);
    assert_int_equal(f.offloads, NET_OFF_CSUM | NET_OFF_TSO4);
}

/* ---- the control queue ---- */

static uint8_t command(uint8_t class_code, uint8_t cmd, const void *arg, uint32_t n)
{
    struct vring_part part[3] = { { CMD, 2, false }, { CMD + 2, n, false }, { ACK, 1, true } };
    uint8_t head[2] = { class_code, cmd }, ack = 0xee;
    uint32_t written;
    uint16_t id;

    ram_write(&f.ram, CMD, head, 2);
    ram_write(&f.ram, CMD + 2, arg, n);
    ram_write(&f.ram, ACK, &ack, 1);
    vring_add(&f.ring[CTRL], part, 3);
    vd_kick(&f.rig, CTRL);
    assert_true(vring_get(&f.ring[CTRL], &id, &written, 3));
    assert_int_equal(written, 1);
    ram_read(&f.ram, ACK, &ack, 1);
    return ack;
}

static bool arrives(const uint8_t *to)
{
    struct net_frame t = tcp_frame(100, 0);
    uint64_t before = f.net.received;
    uint32_t written;
    uint16_t id;

    memcpy(f.frame, to, 6);
    offer(RX, 1, 1500);
    assert_int_equal(virtio_net_client.deliver(&f.net, &t), 0);
    if (f.net.received == before)
        return false;
    while (vring_get(&f.ring[RX], &id, &written, 1))
        continue;
    return true;
}

static void test_filter(void **state)
{
    static const uint8_t stranger[6] = { 2, 9, 9, 9, 9, 9 }, all[6] = { 255, 255, 255, 255, 255, 255 };
    static const uint8_t group[6] = { 1, 0, 0x5e, 0, 0, 1 }, off = 0, on = 1;
    uint8_t table[20] = { 1, 0, 0, 0, 2, 9, 9, 9, 9, 9, 1, 0, 0, 0, 1, 0, 0x5e, 0, 0, 1 };

    start(false, CTRL_ALL);
    assert_true(arrives(stranger)); /* all, until it says otherwise */
    assert_int_equal(command(0, 0, &off, 1), 0);
    assert_true(arrives(mac));
    assert_true(arrives(all));
    assert_false(arrives(stranger));
    assert_false(arrives(group));
    assert_int_equal(command(1, 0, table, sizeof(table)), 0);
    assert_true(arrives(stranger));
    assert_true(arrives(group));
    table[0] = 200; /* more than there is */
    assert_int_equal(command(1, 0, table, sizeof(table)), 1);
    assert_true(arrives(stranger)); /* a bad table changes nothing */
    assert_int_equal(command(0, 4, &on, 1), 0);
    assert_false(arrives(mac));
    assert_int_equal(command(0, 4, &off, 1), 0);
    assert_int_equal(command(0, 5, &on, 1), 0);
    assert_false(arrives(all));
    assert_int_equal(command(1, 1, "\2\4\4\4\4\4", 6), 0);
    assert_true(arrives((const uint8_t *)"\2\4\4\4\4\4"));
    assert_int_equal(vd_get(&f.rig, VD_CONFIG, 1), 2);
    assert_int_equal(command(0, 6, &on, 1), 1);
    assert_int_equal(command(9, 0, &on, 1), 1);
    assert_int_equal(command(2, 0, "\1\20", 2), 1); /* VLAN 4097 */
}

static void test_overflow(void **state)
{
    static uint8_t table[4 + 6 * 65 + 4];
    static const uint8_t stranger[6] = { 2, 9, 9, 9, 9, 9 }, off = 0;

    start(false, CTRL_ALL);
    assert_int_equal(command(0, 0, &off, 1), 0);
    st_le32(table, 65);
    assert_int_equal(command(1, 0, table, sizeof(table)), 0);
    assert_true(arrives(stranger)); /* more than we keep: all of its kind */
}

static void test_pairs(void **state)
{
    struct net_frame t = tcp_frame(200, 0);
    struct vring_part part = { DATA + 0x80000, HEADER + 200, false };
    uint32_t written;
    uint16_t id;

    start(false, CTRL_ALL | CSUM);
    assert_int_equal(vd_get(&f.rig, VD_CONFIG + 8, 2), 2);
    assert_int_equal(command(4, 0, "\3\0", 2), 1);
    assert_int_equal(command(4, 0, "\0\0", 2), 1);
    assert_int_equal(command(4, 0, "\2\0", 2), 0);
    /* what comes for a flow goes where the flow was sent from */
    ram_fill(&f.ram, part.gpa, 0, HEADER);
    ram_write(&f.ram, part.gpa + HEADER, t.data, 200);
    vring_add(&f.ring[TX1], &part, 1);
    fetch();
    assert_int_equal(f.batch.count, 1);
    offer(RX, 1, 1500);
    offer(RX1, 1, 1500);
    assert_int_equal(virtio_net_client.deliver(&f.net, &t), 0);
    assert_false(vring_get(&f.ring[RX], &id, &written, 1));
    assert_true(vring_get(&f.ring[RX1], &id, &written, 1));
    vd_put(&f.rig, VD_STATUS, 0, 1);
    assert_int_equal(f.net.pairs, 1);
}

static void test_link_and_announce(void **state)
{
    start(false, CTRL_ALL | GUEST_CSUM | GUEST_TSO4);
    assert_int_equal(vd_get(&f.rig, VD_CONFIG + 6, 2), 1);
    assert_int_equal(vd_get(&f.rig, VD_CONFIG + 10, 2), 9000);
    vd_put(&f.rig, VD_CONFIG_VECTOR, 0, 2);
    virtio_net_set_link(&f.net, false);
    assert_int_equal(vd_get(&f.rig, VD_CONFIG + 6, 2), 0);
    assert_int_equal(f.rig.msg[0].vector, 0x40);
    virtio_net_set_link(&f.net, true);
    virtio_net_announce(&f.net);
    assert_int_equal(vd_get(&f.rig, VD_CONFIG + 6, 2), 3);
    assert_int_equal(command(3, 0, "", 0), 0);
    assert_int_equal(vd_get(&f.rig, VD_CONFIG + 6, 2), 1);
    assert_int_equal(command(5, 0, "\2\0\0\0\0\0\0\0", 8), 0); /* GUEST_CSUM only */
    assert_int_equal(f.offloads, NET_OFF_CSUM);
    assert_int_equal(command(5, 0, "\0\1\0\0\0\0\0\0", 8), 1); /* TSO6 was not negotiated */
}

/* The machine is a copy: its driver's address stays in use until the driver sets another or resets the card. */
static void test_readdress(void **state)
{
    static const uint8_t other[6] = { 0x52, 9, 8, 7, 6, 5 }, third[6] = { 0x52, 1, 1, 1, 1, 1 };

    start(false, CTRL_ALL);
    virtio_net_readdress(&f.net, other);
    assert_memory_equal(virtio_net_mac(&f.net), mac, 6);
    vd_put(&f.rig, VD_STATUS, 0, 1); /* a reset */
    assert_memory_equal(virtio_net_mac(&f.net), other, 6);
    virtio_net_readdress(&f.net, third); /* nobody has seen it */
    assert_memory_equal(virtio_net_mac(&f.net), third, 6);
}

/* ---- drivers that break the rules ---- */

static bool needs_reset(void) { return vd_get(&f.rig, VD_STATUS, 1) & VIRTIO_NEEDS_RESET; }

static void test_misuse(void **state)
{
    struct net_frame t = tcp_frame(100, 0);
    struct vring_part bad[] = { { DATA, 5, false }, { DATA, 100, true }, { DATA, 100, false }, { DATA, 12, true } };

    for (unsigned n = 0; n < 2; n++) { /* no header; for writing */
        start(n, 0);
        vring_add(&f.ring[TX], &bad[n], 1);
        fetch();
        assert_true(needs_reset());
        assert_int_equal(f.batch.count, 0);
    }
    for (unsigned n = 2; n < 4; n++) { /* for reading; room for the header only */
        start(n & 1, MRG);
        vring_add(&f.ring[RX], &bad[n], 1);
        assert_int_equal(virtio_net_client.deliver(&f.net, &t), 0);
        assert_true(needs_reset());
    }
    start(false, CTRL_ALL);
    vring_add(&f.ring[CTRL], &bad[2], 1); /* no room for an answer */
    vd_kick(&f.rig, CTRL);
    assert_true(needs_reset());
    assert_int_equal(virtio_net_client.deliver(&f.net, &t), 0);
    fetch();
}

/* Buffers of a byte: a frame that never fits is dropped and does not stand in the way. */
static void test_tiny_buffers(void **state)
{
    struct net_frame t = tcp_frame(LEN, 0);

    start(false, MRG);
    offer(RX, 64, 13);
    assert_int_equal(virtio_net_client.deliver(&f.net, &t), 0);
    assert_int_equal(f.net.dropped, 1);
    assert_int_equal(f.net.vp.vq[RX].held, 0);
}

/* ---- pause and state ---- */

static void test_pause(void **state)
{
    struct net_frame t = tcp_frame(100, 0);
    struct vring_part part = { DATA + 0x80000, HEADER + 100, false };

    start(false, MRG);
    offer(RX, 4, 1500);
    assert_int_equal(virtio_net_client.deliver(&f.net, &t), 0);
    virtio_net_ops.pause(&f.net); /* tells of what was pushed */
    assert_int_equal(f.rig.msgs, 1);
    assert_int_equal(virtio_net_client.deliver(&f.net, &t), -ENOBUFS);
    vring_add(&f.ring[TX], &part, 1);
    fetch();
    assert_int_equal(f.batch.count, 0);
    unsigned before = f.kicks;
    virtio_net_ops.resume(&f.net);
    assert_true(f.kicks > before);
    fetch();
    assert_int_equal(f.batch.count, 1);
    assert_int_equal(virtio_net_client.deliver(&f.net, &t), 0);
}

static void test_state(void **state)
{
    static const uint8_t off = 0;
    struct err err = { "" };

    assert_int_equal(state_desc_check(virtio_net_ops.state, &err), 0);
    start(false, CTRL_ALL | MRG | CSUM);
    assert_int_equal(command(0, 0, &off, 1), 0);
    assert_int_equal(command(4, 0, "\2\0", 2), 0);
    assert_int_equal(command(2, 0, "\5\0", 2), 0);
    assert_int_equal(command(1, 1, "\2\4\4\4\4\4", 6), 0);
    virtio_net_ops.pause(&f.net);
    make(&f.other);
    rig_round_trip(&virtio_net_ops, &f.net, &f.other);
    assert_int_equal(f.other.pairs, 2);
    assert_int_equal(f.other.config[0], 2);
    assert_int_equal(f.other.filter.vlan[0], 1 << 5);
    virtio_net_ops.destroy(&f.other);
}

/* Two packets a second out, 1000 bytes in: the rest waits in the ring, and with the port, which is woken in time. */
static void test_limit(void **state)
{
    const struct limit_rate ops = { .size = 2, .ms = 1000 }, bytes = { .size = LEN, .ms = 1000 }, none = { .size = 0 };
    struct vring_part part = { DATA, HEADER + 100, false };
    struct net_frame t = tcp_frame(LEN, 0);
    unsigned before;

    start(false, MRG);
    offer(RX, 4, 1500);
    virtio_net_limit(&f.net, false, NULL, &ops);
    virtio_net_limit(&f.net, true, &bytes, NULL);
    for (unsigned n = 0; n < 5; n++)
        vring_add(&f.ring[TX], &part, 1);
    fetch();
    assert_int_equal(f.batch.count, 2);
    fetch();
    assert_int_equal(f.batch.count, 0);
    before = f.kicks;
    rig_run(&f.rig, 499 * MS);
    assert_int_equal(f.kicks, before);
    rig_run(&f.rig, MS);
    assert_int_equal(f.kicks, before + 1);
    fetch();
    assert_int_equal(f.batch.count, 1);
    assert_int_equal(virtio_net_client.deliver(&f.net, &t), 0);
    before = f.kicks;
    assert_int_equal(virtio_net_client.deliver(&f.net, &t), -ENOBUFS);
    rig_run(&f.rig, MS);
    assert_true(f.kicks > before);
    assert_int_equal(virtio_net_client.deliver(&f.net, &t), 0);
    assert_int_equal(virtio_net_client.deliver(&f.net, &t), -ENOBUFS);
    virtio_net_limit(&f.net, true, &none, NULL);
    assert_int_equal(virtio_net_client.deliver(&f.net, &t), 0);
    virtio_net_ops.pause(&f.net);
    make(&f.other);
    rig_round_trip(&virtio_net_ops, &f.net, &f.other);
    assert_int_equal(f.other.tx.ops.rate.size, 2);
    virtio_net_ops.destroy(&f.other);
}

static void test_storm(void **state)
{
    start(false, CTRL_ALL | MRG | CSUM);
    rig_fuzz(&f.rig, &f.rig.mmio, VD_BAR, 0x4000, 20000);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_send),
        TEST(test_send_packed),
        TEST(test_send_many),
        TEST(test_receive),
        TEST(test_receive_packed),
        TEST(test_receive_one_chain),
        TEST(test_receive_cut),
        TEST(test_filter),
        TEST(test_overflow),
        TEST(test_pairs),
        TEST(test_link_and_announce),
        TEST(test_readdress),
        TEST(test_misuse),
        TEST(test_tiny_buffers),
        TEST(test_pause),
        TEST(test_state),
        TEST(test_limit),
        TEST(test_storm),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
