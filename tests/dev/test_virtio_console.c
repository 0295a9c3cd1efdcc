/* The virtio console: the control messages that make ports, bytes both ways over split and packed rings, a
 * back end that stops in the middle of a chain, misuse, state. */
#include <errno.h>
#include <string.h>

#include "base/bits.h"
#include "base/err.h"
#include "rig.h"
#include "vdriver.h"
#include "virtio/console.h"

#define RAM       (16ULL << 20)
#define DATA      0x100000ULL
#define MULTIPORT 2ULL
enum { READY = 0, ADD = 1, PORT_READY = 3, CONSOLE = 4, RESIZE = 5, OPEN = 6, NAME = 7 };

struct end {
    uint8_t got[1 << 20];
    size_t len, room; /* room: how much it takes before it stops */
    unsigned ready;
    bool open, fails;
};

static struct {
    struct rig rig;
    struct pci_host host;
    struct ram ram;
    struct virtio_console v, other;
    struct vring ring[10];
    struct end end[3];
} f;

static int end_tx(void *opaque, const uint8_t *data, size_t len)
{
    struct end *e = opaque;
    size_t n = len < e->room ? len : e->room;

    if (e->fails)
        return -EPIPE;
    assert_true(e->len + n <= sizeof(e->got));
    memcpy(e->got + e->len, data, n);
    e->len += n;
    e->room -= n;
    return (int)n;
}

static void end_rx_ready(void *opaque) { ((struct end *)opaque)->ready++; }
static bool end_is_open(void *opaque) { return ((struct end *)opaque)->open; }

static void make(struct virtio_console *v)
{
    assert_int_equal(virtio_console_init(v, 4, &f.rig.loop, &f.ram, rig_deliver, &f.rig), 0);
    for (unsigned n = 0; n < 3; n++) {
        struct vcon_backend b = { end_tx, end_rx_ready, n ? end_is_open : NULL, &f.end[n] };
        assert_int_equal(virtio_console_add(v, n, n == 2 ? "agent" : "", b), 0);
        assert_int_equal(virtio_console_add(v, n, "twice", b), n ? -EEXIST : -EINVAL);
        f.end[n].room = SIZE_MAX;
    }
}

static int setup(void **state)
{
    memset(&f, 0, sizeof(f));
    rig_init(&f.rig, 0);
    ram_init(&f.ram);
    assert_int_equal(ram_add_slot(&f.ram, 0, RAM, false), 0);
    struct irq_line lines[4] = { rig_irq(&f.rig, 0), rig_irq(&f.rig, 1), rig_irq(&f.rig, 2),
                                 rig_irq(&f.rig, 3) };
    pci_host_init(&f.host, &f.rig.io, &f.rig.mmio, lines);
    make(&f.v);
    make(&f.other);
    assert_int_equal(pci_dev_plug(&f.v.vp.pci, &f.host, 1), 0);
    virtio_console_ops.reset(&f.v);
    return 0;
}

static int teardown(void **state)
{
    virtio_console_ops.destroy(&f.v);
    virtio_console_ops.destroy(&f.other);
    ram_fini(&f.ram);
    rig_fini(&f.rig);
    return 0;
}

static void start(bool packed, uint64_t features)
{
    vd_plug(&f.rig, &f.v.vp.pci, true, 11);
    assert_true(vd_negotiate(&f.rig, features | (packed ? VIRTIO_F_RING_PACKED : 0)));
    for (unsigned q = 0; q < 10; q++) {
        vring_init(&f.ring[q], &f.ram, packed, 64, 0x10000 + 0x4000 * q);
        vd_queue(&f.rig, q, &f.ring[q]);
    }
    vd_go(&f.rig);
}

/* Queue q gets a buffer of len bytes to fill, at DATA + at. */
static void give(unsigned q, unsigned at, unsigned len)
{
    struct vring_part p = { DATA + at, len, true };
    vring_add(&f.ring[q], &p, 1);
    vd_kick(&f.rig, q);
}

static void send(unsigned q, const void *data, size_t len)
{
    struct vring_part p = { DATA + 0x80000, (uint32_t)len, false };
    ram_write(&f.ram, p.gpa, data, len);
    vring_add(&f.ring[q], &p, 1);
    vd_kick(&f.rig, q);
}

static bool used(unsigned q, uint32_t *len)
{
    uint16_t id;
    return vring_get(&f.ring[q], &id, len, 1);
}

static void control(uint32_t port, uint16_t event, uint16_t value)
{
    uint8_t msg[8];
    uint32_t len;

    st_le32(msg, port);
    st_le16(msg + 4, event);
    st_le16(msg + 6, value);
    send(3, msg, sizeof(msg));
    assert_true(used(3, &len));
}

/* The next message from the device, in the buffer at DATA + at, which it gets again. */
static void expect(unsigned at, uint32_t port, uint16_t event, uint16_t value, const void *more, size_t n)
{
    uint8_t msg[64];
    uint32_t len;

    assert_true(used(2, &len));
    assert_int_equal(len, 8 + n);
    ram_read(&f.ram, DATA + at, msg, sizeof(msg));
    assert_int_equal(ld_le32(msg), port);
    assert_int_equal(ld_le16(msg + 4), event);
    assert_int_equal(ld_le16(msg + 6), value);
    if (n)
        assert_memory_equal(msg + 8, more, n);
}

static void silence(void)
{
    uint32_t len;
    assert_false(used(2, &len));
}

/* All ports come up as Linux brings them up; buffers for messages come one at a time. */
static void bring_up(bool packed)
{
    unsigned at = 0;

    start(packed, MULTIPORT | 1);
    assert_int_equal(vd_get(&f.rig, VD_CONFIG + 4, 4), 4);
    loop_lock(&f.rig.loop);
    vcon_resize(&f.v, 0, 132, 43);
    loop_unlock(&f.rig.loop);
    control(0, READY, 1);
    silence();
    for (uint32_t port = 0; port < 3; port++) {
        give(2, at, 64);
        expect(at, port, ADD, 1, NULL, 0);
        at += 64;
    }
    silence();
    for (uint32_t port = 0; port < 3; port++)
        control(port, PORT_READY, 1);
    for (unsigned i = 0; i < 7; i++)
        give(2, at + 64 * i, 64);
    expect(at, 0, CONSOLE, 1, NULL, 0);
    expect(at + 64, 0, OPEN, 1, NULL, 0);
    expect(at + 128, 0, RESIZE, 1, "\x84\0\x2b\0", 4);
    expect(at + 192, 1, CONSOLE, 1, NULL, 0);
    expect(at + 256, 1, OPEN, 0, NULL, 0);
    expect(at + 320, 2, NAME, 1, "agent", 5);
    expect(at + 384, 2, OPEN, 0, NULL, 0);
    silence();
}

static void test_ports(void **state)
{
    for (unsigned packed = 0; packed < 2; packed++) {
        bring_up(packed);
        give(2, 0x1000, 64);
        f.end[2].open = true;
        loop_lock(&f.rig.loop);
        vcon_opened(&f.v, 2);
        vcon_opened(&f.v, 2); /* nothing new */
        loop_unlock(&f.rig.loop);
        expect(0x1000, 2, OPEN, 1, NULL, 0);
        silence();
        f.end[2].open = false;
        control(77, OPEN, 1); /* no such port: nothing */
        control(3, PORT_READY, 1);
        assert_false(vd_get(&f.rig, VD_STATUS, 1) & VIRTIO_NEEDS_RESET);
        vd_put(&f.rig, VD_STATUS, 0, 1);
    }
}

static void test_input(void **state)
{
    static const uint8_t text[] = "what the host types";
    uint8_t got[32];
    uint32_t len;

    bring_up(false);
    loop_lock(&f.rig.loop);
    assert_int_equal(vcon_room(&f.v, 2), 0); /* nobody has it open */
    assert_int_equal(vcon_receive(&f.v, 2, text, 5), 0);
    loop_unlock(&f.rig.loop);
    control(2, OPEN, 1);
    assert_int_equal(f.end[2].ready, 1);
    give(6, 0x2000, 8);
    give(6, 0x3000, 8);
    loop_lock(&f.rig.loop);
    assert_int_equal(vcon_receive(&f.v, 2, text, sizeof(text)), 16);
    loop_unlock(&f.rig.loop);
    assert_true(used(6, &len) && len == 8);
    assert_true(used(6, &len) && len == 8);
    ram_read(&f.ram, DATA + 0x3000, got, 8);
    assert_memory_equal(got, text + 8, 8);
    unsigned before = f.end[2].ready;
    give(6, 0x2000, 8); /* the kick says that there is room */
    assert_int_equal(f.end[2].ready, before + 1);
    control(2, OPEN, 0);
    assert_int_equal(vcon_room(&f.v, 2), 0);
}

/* A back end that stops in the middle of a chain gets the rest later, once, in order. */
static void test_output(void **state)
{
    static uint8_t data[200000];
    uint32_t len;

    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = (uint8_t)(i * 7 + i / 251);
    for (unsigned packed = 0; packed < 2; packed++) {
        bring_up(packed);
        f.end[2].len = 0;
        f.end[2].room = 5001;
        send(7, data, sizeof(data));
        assert_false(used(7, &len));
        assert_int_equal(f.end[2].len, 5001);
        vd_kick(&f.rig, 7);
        assert_int_equal(f.end[2].len, 5001);
        for (unsigned n = 0; n < 3; n++) {
            f.end[2].room = 9999;
            loop_lock(&f.rig.loop);
            vcon_tx_ready(&f.v, 2);
            loop_unlock(&f.rig.loop);
        }
        rig_round_trip(&virtio_console_ops, &f.v, &f.other);
        f.end[2].room = SIZE_MAX;
        loop_lock(&f.rig.loop);
        vcon_tx_ready(&f.v, 2);
        loop_unlock(&f.rig.loop);
        assert_true(used(7, &len) && len == 0);
        assert_int_equal(f.end[2].len, sizeof(data));
        assert_memory_equal(f.end[2].got, data, sizeof(data));
        vd_put(&f.rig, VD_STATUS, 0, 1);
    }
}

/* One call has a budget; the rest comes from the loop. A back end that has failed swallows all. */
static void test_budget(void **state)
{
    struct vring_part p = { DATA, 400000, false };
    uint32_t len;

    bring_up(false);
    vring_add(&f.ring[7], &p, 1);
    vring_add(&f.ring[7], &p, 1);
    vd_kick(&f.rig, 7);
    assert_true(f.end[2].len <= 300000);
    rig_run(&f.rig, 1);
    rig_run(&f.rig, 1);
    rig_run(&f.rig, 1);
    assert_int_equal(f.end[2].len, 800000);
    assert_true(used(7, &len) && used(7, &len));
    f.end[2].fails = true;
    send(7, "gone", 4);
    assert_true(used(7, &len));
}

/* A driver without multiple ports has one console, and the size of its window by the configuration. */
static void test_single(void **state)
{
    uint32_t len;

    start(false, 1);
    vd_put(&f.rig, VD_CONFIG_VECTOR, 0, 2);
    loop_lock(&f.rig.loop);
    vcon_resize(&f.v, 0, 80, 25);
    loop_unlock(&f.rig.loop);
    assert_int_equal(vd_get(&f.rig, VD_CONFIG, 4), 25 << 16 | 80);
    assert_int_equal(f.rig.msg[f.rig.msgs - 1].vector, 0x40);
    send(1, "hello", 5);
    assert_true(used(1, &len));
    assert_memory_equal(f.end[0].got, "hello", 5);
    give(0, 0, 16);
    loop_lock(&f.rig.loop);
    assert_int_equal(vcon_receive(&f.v, 0, (const uint8_t *)"you", 3), 3);
    loop_unlock(&f.rig.loop);
    assert_true(used(0, &len) && len == 3);
    vd_put(&f.rig, VD_CONFIG + 8, '!', 4); /* emergency write */
    assert_int_equal(f.end[0].got[5], '!');
}

static bool broken(void)
{
    bool is = vd_get(&f.rig, VD_STATUS, 1) & VIRTIO_NEEDS_RESET;
    vd_put(&f.rig, VD_STATUS, 0, 1);
    return is;
}

static void test_misuse(void **state)
{
    bring_up(false);
    give(7, 0, 16); /* output that is to be written */
    assert_true(broken());
    bring_up(false);
    control(2, OPEN, 1);
    send(6, "x", 1); /* input buffer for reading */
    loop_lock(&f.rig.loop);
    assert_int_equal(vcon_receive(&f.v, 2, (const uint8_t *)"y", 1), 0);
    loop_unlock(&f.rig.loop);
    assert_true(broken());
    bring_up(false);
    send(3, "short", 5);
    assert_true(broken());
    bring_up(false);
    control(0, READY, 1);
    give(2, 0, 4); /* no room for a message */
    assert_true(broken());
}

static void test_storm(void **state)
{
    bring_up(false);
    rig_fuzz(&f.rig, &f.rig.mmio, VD_BAR, 0x4000, 20000);
    rig_fuzz_state(&f.rig, &virtio_console_ops, &f.v, &f.rig.mmio, VD_BAR, 0x4000, 300);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_ports, setup, teardown),
        cmocka_unit_test_setup_teardown(test_input, setup, teardown),
        cmocka_unit_test_setup_teardown(test_output, setup, teardown),
        cmocka_unit_test_setup_teardown(test_budget, setup, teardown),
        cmocka_unit_test_setup_teardown(test_single, setup, teardown),
        cmocka_unit_test_setup_teardown(test_misuse, setup, teardown),
        cmocka_unit_test_setup_teardown(test_storm, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
