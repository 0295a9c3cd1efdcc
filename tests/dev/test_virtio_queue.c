/* Virtqueues: both layouts, honest and hostile drivers. */
#include <errno.h>
#include <string.h>

#include "base/bits.h"
#include "base/err.h"
#include "rig.h"
#include "vring.h"

#define RING    0x1000ULL
#define TABLE   0x8000ULL
#define DATA    0x10000ULL
#define RAM_END 0x100000ULL
#define ALL     (VIRTIO_F_VERSION_1 | VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX)

static struct ram ram;
static struct vq q;
static struct vring r;
static unsigned broken;

static void on_broken(void *opaque) { broken++; }

static void start(bool packed, uint16_t size, uint64_t features)
{
    vring_init(&r, &ram, packed, size, RING);
    vq_init(&q, &ram, VQ_MAX_SIZE, on_broken, NULL);
    broken = 0;
    q.size = size;
    q.desc = r.desc;
    q.driver = r.driver;
    q.device = r.device;
    q.enabled = true;
    assert_int_equal(vq_start(&q, features | (packed ? VIRTIO_F_RING_PACKED : 0)), 0);
}

static int setup(void **state)
{
    ram_init(&ram);
    return ram_add_slot(&ram, 0, RAM_END, false);
}

static int teardown(void **state)
{
    ram_fini(&ram);
    return 0;
}

static void assert_refused(void)
{
    struct vq_chain c;

    assert_int_equal(vq_pop(&q, &c), -EINVAL);
    assert_true(q.broken);
    assert_int_equal(broken, 1);
    assert_int_equal(vq_pop(&q, &c), -EINVAL); /* and it stays so, told once */
    assert_int_equal(broken, 1);
    assert_false(vq_should_notify(&q));
}

/* A chain with pieces of odd lengths, in and out, many times round the ring; chains come back in another
 * order. */
static void run_honest(bool packed, uint16_t size, bool indirect)
{
    static const char text[] = "what the driver sends";
    struct vring_part part[] = { { DATA, 5, false },
                                 { DATA + 0x105, 16, false },
                                 { DATA + 0x1000, 3, true },
                                 { DATA + 0x2ffd, 9, true } };
    unsigned slots = indirect ? 1 : 4;

    start(packed, size, ALL);
    ram_write(&ram, DATA, text, 5);
    ram_write(&ram, DATA + 0x105, text + 5, 16);
    for (unsigned round = 0; round < 1000; round++) {
        struct vq_chain c[2], none;
        char buf[32];
        uint16_t id[2], got;
        uint32_t written;
        for (unsigned k = 0; k < 2; k++)
            id[k] = indirect ? vring_add_indirect(&r, TABLE + 0x400 * k, part, 4) : vring_add(&r, part, 4);
        for (unsigned k = 0; k < 2; k++) {
            assert_int_equal(vq_pop(&q, &c[k]), 1);
            assert_int_equal(c[k].id, id[k]);
            assert_int_equal(c[k].read_len, 21);
            assert_int_equal(c[k].write_len, 12);
        }
        assert_int_equal(vq_pop(&q, &none), 0);
        assert_int_equal(vq_chain_read(&c[0], 0, buf, sizeof(buf)), 21);
        assert_memory_equal(buf, text, 21);
        assert_int_equal(vq_chain_read(&c[0], 4, buf, 3), 3);
        assert_memory_equal(buf, text + 4, 3);
        assert_int_equal(vq_chain_read(&c[0], 21, buf, 1), 0);
        ram_fill(&ram, DATA + 0x1000, 0xee, 0x3000);
        assert_int_equal(vq_chain_write(&c[0], 1, "abcdefghijklmnop", 16), 11);
        ram_read(&ram, DATA + 0x1000, buf, 4);
        assert_memory_equal(buf,
                            "\xee"
                            "ab\xee",
                            4);
        ram_read(&ram, DATA + 0x2ffd, buf, 10);
        assert_memory_equal(buf, "cdefghijk\xee", 10);
        vq_push(&q, &c[1], 7);
        vq_push(&q, &c[0], 12);
        assert_true(vring_get(&r, &got, &written, slots));
        assert_int_equal(got, id[1]);
        assert_int_equal(written, 7);
        assert_true(vring_get(&r, &got, &written, slots));
        assert_int_equal(got, id[0]);
        assert_int_equal(written, 12);
        assert_false(vring_get(&r, &got, &written, slots));
    }
    assert_int_equal(broken, 0);
}

static void test_split(void **state) { run_honest(false, 8, false); }
static void test_split_indirect(void **state) { run_honest(false, 4, true); }
static void test_packed(void **state) { run_honest(true, 11, false); }
static void test_packed_indirect(void **state) { run_honest(true, 5, true); }

static void test_unpop(void **state)
{
    struct vring_part part[3] = { { DATA, 8, false }, { DATA + 8, 8, false }, { DATA + 16, 8, true } };
    struct vq_chain a, b;

    for (unsigned packed = 0; packed < 2; packed++) {
        start(packed, packed ? 5 : 4, ALL);
        for (unsigned round = 0; round < 50; round++) {
            uint16_t id = vring_add(&r, part, 3), got;
            uint32_t written;
            assert_int_equal(vq_pop(&q, &a), 1);
            vq_unpop(&q, &a);
            assert_int_equal(vq_pop(&q, &b), 1);
            assert_int_equal(b.id, id);
            assert_memory_equal(a.part, b.part, 3 * sizeof(a.part[0]));
            vq_push(&q, &b, 0);
            assert_true(vring_get(&r, &got, &written, 3));
            assert_int_equal(q.held, 0);
        }
    }
}

/* ---- hostile split rings ---- */

static void test_loops(void **state)
{
    start(false, 4, ALL);
    vring_desc(&r, r.desc, 0, DATA, 16, VQ_DESC_NEXT, 0);
    vring_offer(&r, 0);
    assert_refused();
    start(false, 4, ALL); /* of two, of nothing */
    vring_desc(&r, r.desc, 1, DATA, 0, VQ_DESC_NEXT, 2);
    vring_desc(&r, r.desc, 2, DATA, 0, VQ_DESC_NEXT, 1);
    vring_offer(&r, 1);
    assert_refused();
    start(false, 4, ALL); /* in an indirect table */
    vring_desc(&r, r.desc, 0, TABLE, 32, VQ_DESC_INDIRECT, 0);
    vring_desc(&r, TABLE, 0, DATA, 16, VQ_DESC_NEXT, 1);
    vring_desc(&r, TABLE, 1, DATA, 16, VQ_DESC_NEXT, 0);
    vring_offer(&r, 0);
    assert_refused();
}

static void test_indexes(void **state)
{
    uint16_t wild = 5;

    start(false, 4, ALL);
    vring_offer(&r, 4); /* head */
    assert_refused();
    start(false, 4, ALL);
    vring_desc(&r, r.desc, 0, DATA, 16, VQ_DESC_NEXT, 4);
    vring_offer(&r, 0);
    assert_refused();
    start(false, 4, ALL);
    vring_desc(&r, r.desc, 0, TABLE, 16, VQ_DESC_INDIRECT, 0);
    vring_desc(&r, TABLE, 0, DATA, 16, VQ_DESC_NEXT, 1);
    vring_offer(&r, 0);
    assert_refused();
    start(false, 4, ALL); /* more available than there can be */
    ram_write(&ram, r.driver + 2, &wild, 2);
    assert_refused();
}

static void refuse_buffer(uint64_t gpa, uint32_t len)
{
    struct vring_part part = { gpa, len, true };

    for (unsigned packed = 0; packed < 2; packed++) {
        start(packed, 4, ALL);
        vring_add(&r, &part, 1);
        assert_refused();
        start(packed, 4, ALL);
        vring_add_indirect(&r, TABLE, &part, 1);
        assert_refused();
    }
}

static void test_addresses(void **state)
{
    struct vring_part good = { RAM_END - 16, 16, true };
    struct vq_chain c;

    refuse_buffer(RAM_END, 1);
    refuse_buffer(RAM_END - 16, 17);
    refuse_buffer(0xfee00000, 4);
    refuse_buffer(UINT64_MAX, 1);
    refuse_buffer(UINT64_MAX - 15, 32);
    refuse_buffer(DATA, UINT32_MAX);
    start(false, 4, ALL);
    vring_add(&r, &good, 1);
    assert_int_equal(vq_pop(&q, &c), 1);
}

static void test_order_and_overlap(void **state)
{
    struct vring_part bad[] = { { DATA, 8, true }, { DATA, 8, false } };
    struct vring_part over[] = { { DATA, 64, false }, { DATA + 32, 64, true }, { DATA + 40, 64, true } };
    struct vq_chain c;
    char buf[64];

    for (unsigned packed = 0; packed < 2; packed++) {
        start(packed, 4, ALL);
        vring_add(&r, bad, 2);
        assert_refused();
        start(packed, 4, ALL); /* overlapping buffers are the driver's own affair */
        vring_add(&r, over, 3);
        assert_int_equal(vq_pop(&q, &c), 1);
        memset(buf, 'x', sizeof(buf));
        assert_int_equal(vq_chain_write(&c, 0, buf, 64), 64);
        assert_int_equal(vq_chain_read(&c, 0, buf, 64), 64);
        assert_int_equal(buf[32], 'x');
        vq_push(&q, &c, 64);
        assert_int_equal(broken, 0);
    }
}

static void refuse_table(bool packed, uint64_t gpa, uint32_t len, uint16_t flags, uint64_t features)
{
    start(packed, 4, features);
    for (unsigned i = 0; i < 8; i++)
        vring_desc(&r, TABLE, i, DATA, 16, i < 7 ? VQ_DESC_NEXT : 0, (uint16_t)(i + 1));
    if (packed) {
        vring_desc(&r, r.desc, 0, gpa, len, flags | VQ_DESC_INDIRECT | VQ_DESC_AVAIL, 0);
    } else {
        vring_desc(&r, r.desc, 0, gpa, len, flags | VQ_DESC_INDIRECT, 1);
        vring_offer(&r, 0);
    }
    assert_refused();
}

static void test_tables(void **state)
{
    for (unsigned packed = 0; packed < 2; packed++) {
        refuse_table(packed, TABLE, 0, 0, ALL);
        refuse_table(packed, TABLE, 24, 0, ALL);
        refuse_table(packed, RAM_END - 16, 32, 0, ALL);
        refuse_table(packed, UINT64_MAX - 7, 16, 0, ALL);
        refuse_table(packed, TABLE, 32, VQ_DESC_NEXT, ALL);
        refuse_table(packed, TABLE, 128, 0, ALL); /* 8 parts, queue of 4 */
        refuse_table(packed, TABLE, 0xfffffff0, 0, ALL);
        refuse_table(packed, TABLE, 32, 0, VIRTIO_F_VERSION_1); /* not negotiated */
        start(packed, 4, ALL);                                  /* a table in a table */
        vring_desc(&r, TABLE, 0, TABLE, 16, VQ_DESC_INDIRECT, 0);
        vring_desc(&r, r.desc, 0, TABLE, 16, VQ_DESC_INDIRECT | (packed ? VQ_DESC_AVAIL : 0), 0);
        if (!packed)
            vring_offer(&r, 0);
        assert_refused();
    }
}

/* A split ring may have descriptors before the one that names a table. */
static void test_table_at_end(void **state)
{
    struct vq_chain c;

    start(false, 4, ALL);
    vring_desc(&r, r.desc, 0, DATA, 8, VQ_DESC_NEXT, 1);
    vring_desc(&r, r.desc, 1, TABLE, 32, VQ_DESC_INDIRECT, 0);
    vring_desc(&r, TABLE, 0, DATA, 16, VQ_DESC_NEXT, 1);
    vring_desc(&r, TABLE, 1, DATA, 32, VQ_DESC_WRITE, 0);
    vring_offer(&r, 0);
    assert_int_equal(vq_pop(&q, &c), 1);
    assert_int_equal(c.read_len, 24);
    assert_int_equal(c.write_len, 32);
}

static void test_byte_cap(void **state)
{
    struct vring_part part[64];
    struct vq_chain c;
    struct ram big;

    ram_init(&big);
    assert_int_equal(ram_add_slot(&big, 0, 2 << 20, false), 0);
    for (unsigned i = 0; i < 64; i++)
        part[i] = (struct vring_part){ 1 << 20, 1 << 20, true };
    start(false, 64, ALL);
    q.ram = &big;
    r.ram = &big;
    vring_add(&r, part, 32);
    assert_int_equal(vq_pop(&q, &c), 1);
    assert_int_equal(c.write_len, VQ_MAX_BYTES);
    part[32].len = 1;
    r.next = 0;
    vring_add(&r, part, 33);
    assert_refused();
    ram_fini(&big);
}

/* The same head again and again: the device never holds more chains than the queue has entries. */
static void test_same_twice(void **state)
{
    struct vq_chain c;

    start(false, 4, ALL);
    vring_desc(&r, r.desc, 0, DATA, 16, 0, 0);
    for (unsigned i = 0; i < 4; i++) {
        vring_offer(&r, 0);
        assert_int_equal(vq_pop(&q, &c), 1);
    }
    vring_offer(&r, 0);
    assert_refused();
}

/* All descriptors of a packed ring claim that there is more. */
static void test_packed_endless(void **state)
{
    start(true, 7, ALL);
    for (unsigned i = 0; i < 7; i++)
        vring_desc(&r, r.desc, i, DATA, 1, VQ_DESC_NEXT | VQ_DESC_AVAIL, 0);
    assert_refused();
}

static int try_start(uint16_t size, uint64_t desc, uint64_t driver, uint64_t device, bool packed)
{
    vq_init(&q, &ram, 128, on_broken, NULL);
    q.size = size;
    q.desc = desc;
    q.driver = driver;
    q.device = device;
    q.enabled = true;
    return vq_start(&q, ALL | (packed ? VIRTIO_F_RING_PACKED : 0));
}

static void test_start(void **state)
{
    assert_int_equal(try_start(128, 0x1000, 0x2000, 0x3000, false), 0);
    assert_int_equal(try_start(6, 0x1000, 0x2000, 0x3000, false), -EINVAL);
    assert_int_equal(try_start(6, 0x1000, 0x2000, 0x3000, true), 0);
    for (unsigned packed = 0; packed < 2; packed++) {
        assert_int_equal(try_start(0, 0x1000, 0x2000, 0x3000, packed), -EINVAL);
        assert_int_equal(try_start(256, 0x1000, 0x2000, 0x3000, packed),
                         -EINVAL); /* more than the device has */
        assert_int_equal(try_start(8, 0x1008, 0x2000, 0x3000, packed), -EINVAL);
        assert_int_equal(try_start(8, 0x1000, 0x2001, 0x3000, packed), -EINVAL);
        assert_int_equal(try_start(8, 0x1000, 0x2000, 0x3002, packed), -EINVAL);
        assert_int_equal(try_start(8, RAM_END - 0x70, 0x2000, 0x3000, packed), -EINVAL);
        assert_int_equal(try_start(8, 0x1000, RAM_END, 0x3000, packed), -EINVAL);
        assert_int_equal(try_start(8, 0x1000, 0x2000, UINT64_MAX & ~15ULL, packed), -EINVAL);
    }
    assert_int_equal(try_start(8, 0x1000, RAM_END - 20, 0x3000, false),
                     -EINVAL); /* used_event does not fit */
}

/* ---- notifications ---- */

static void one_round(void)
{
    struct vring_part part = { DATA, 16, true };
    struct vq_chain c;
    uint16_t id;
    uint32_t written;

    vring_add(&r, &part, 1);
    assert_int_equal(vq_pop(&q, &c), 1);
    vq_push(&q, &c, 1);
    assert_true(vring_get(&r, &id, &written, 1));
}

static void test_split_events(void **state)
{
    uint16_t event, off = 1;
    struct vq_chain c;
    unsigned told = 0;

    start(false, 4, ALL);
    assert_false(vq_should_notify(&q));    /* nothing was pushed */
    for (unsigned i = 0; i < 70000; i++) { /* past the indexes' end; an interrupt each third chain */
        event = (uint16_t)(i / 3 * 3 + 2);
        ram_write(&ram, r.driver + 4 + 2 * 4, &event, 2);
        one_round();
        bool tell = vq_should_notify(&q);
        assert_int_equal(tell, i % 3 == 2);
        told += tell;
    }
    assert_int_equal(told, 70000 / 3);
    assert_int_equal(vq_pop(&q, &c), 0); /* empty: asks for a kick at the next one */
    ram_read(&ram, r.device + 4 + 8 * 4, &event, 2);
    assert_int_equal(event, r.avail);
    start(false, 4, VIRTIO_F_VERSION_1);
    one_round();
    assert_true(vq_should_notify(&q));
    ram_write(&ram, r.driver, &off, 2);
    one_round();
    assert_false(vq_should_notify(&q));
}

static void test_packed_events(void **state)
{
    uint16_t flags = 2, off = 1, on = 0;
    unsigned told = 0;

    start(true, 5, ALL);
    ram_write(&ram, r.driver + 2, &flags, 2);
    for (unsigned i = 0; i < 1000; i++) { /* once a round, at position 3 */
        bool wrap = i / 5 % 2 == 0;
        uint16_t event = (uint16_t)(3 | (wrap ? 0x8000 : 0));
        ram_write(&ram, r.driver, &event, 2);
        one_round();
        bool tell = vq_should_notify(&q);
        if (i % 5 == 3)
            assert_true(tell);
        told += tell;
    }
    assert_in_range(told, 200, 400); /* at a wrap one too many is allowed, one too few never */
    ram_write(&ram, r.driver + 2, &off, 2);
    one_round();
    assert_false(vq_should_notify(&q));
    ram_write(&ram, r.driver + 2, &on, 2);
    one_round();
    assert_true(vq_should_notify(&q));
    assert_false(vq_should_notify(&q));
    for (unsigned i = 0; i < 5; i++) /* a whole round in one batch: the position is the same again */
        one_round();
    assert_true(vq_should_notify(&q));
}

/* ---- state ---- */

static void test_state(void **state)
{
    struct state_buf a = { 0 }, b = { 0 };
    struct vq fresh;
    struct err err = { "" };

    start(true, 5, ALL);
    for (unsigned i = 0; i < 8; i++)
        one_round();
    assert_int_equal(state_save(&a, &vq_state, 0, &q), 0);
    vq_init(&fresh, &ram, VQ_MAX_SIZE, on_broken, NULL);
    assert_int_equal(state_load(a.data, a.len, &vq_state, 0, &fresh, &err), 0);
    assert_int_equal(vq_start(&fresh, q.features), 0);
    assert_int_equal(state_save(&b, &vq_state, 0, &fresh), 0);
    assert_int_equal(a.len, b.len);
    assert_memory_equal(a.data, b.data, a.len);
    q = fresh;
    one_round(); /* it goes on where it was */
    state_buf_fini(&a);
    state_buf_fini(&b);
}

/* Random rings: whatever they say, chains are within bounds and the queue ends up empty or broken. */
static void test_random(void **state)
{
    struct rig rig = { .seed = 0x123456789abcdefULL };
    unsigned good = 0, bad = 0;

    for (unsigned run = 0; run < 20000; run++) {
        struct vq_chain c;
        unsigned pops = 0;
        int rc;
        start(run & 1, 8, ALL);
        for (unsigned i = 0; i < 16; i++) {
            uint64_t x = rig_random(&rig);
            uint16_t flags = x % 4 ? x >> 8 & 3 : x >> 8 & 0x8087;
            if ((run & 1) && i < 8)
                flags |= VQ_DESC_AVAIL;
            vring_desc(&r, i < 8 ? r.desc : TABLE, i % 8, x % 16 ? DATA + (x >> 20 & 0xffff) : TABLE,
                       x % 5 ? x >> 40 & 0xff : 32, flags, x >> 50 & (x % 32 ? 7 : 15));
        }
        for (unsigned i = 0; i < 8; i++)
            vring_offer(&r, rig_random(&rig) % 64 ? rig_random(&rig) % 8 : 9);
        while ((rc = vq_pop(&q, &c)) > 0) {
            assert_true(c.nparts <= 8 && c.nread <= c.nparts && c.read_len + c.write_len <= VQ_MAX_BYTES);
            assert_true(++pops <= 16);
            vq_push(&q, &c, c.write_len);
            good++;
        }
        bad += rc < 0;
        assert_int_equal(broken, rc < 0);
    }
    assert_true(good > 1000 && bad > 1000);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_split),           TEST(test_split_indirect), TEST(test_packed),
        TEST(test_packed_indirect), TEST(test_unpop),          TEST(test_loops),
        TEST(test_indexes),         TEST(test_addresses),      TEST(test_order_and_overlap),
        TEST(test_tables),          TEST(test_table_at_end),   TEST(test_byte_cap),
        TEST(test_same_twice),      TEST(test_packed_endless), TEST(test_start),
        TEST(test_split_events),    TEST(test_packed_events),  TEST(test_state),
        TEST(test_random),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
