/* The SATA controller and its CD drive: commands as drivers send them, packets, errors, resets with a read under way,
 * state, and random traffic. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "ata/ahci.h"
#include "base/bits.h"
#include "base/err.h"
#include "pci/host.h"
#include "rig.h"

#define BAR    0xfe000000ULL
#define RAM    (1ULL << 20)
#define BLOCKS 64U
enum { LIST = 0x1000, FIS = 0x2000, TABLE = 0x3000, DATA = 0x10000 };
enum { PX = 0x100, PX_IS = PX + 0x10, PX_IE = PX + 0x14, PX_CMD = PX + 0x18, PX_TFD = PX + 0x20, PX_SIG = PX + 0x24 };
enum { PX_SSTS = PX + 0x28, PX_SCTL = PX + 0x2c, PX_SERR = PX + 0x30, PX_CI = PX + 0x38 };
enum { PACKET = 0xa0, IDENTIFY_PACKET = 0xa1 };

static struct {
    struct rig rig;
    struct pci_host host;
    struct ram ram;
    struct block block;
    struct ahci a, other;
    pthread_mutex_t gate; /* held: reads wait */
    int fail;
    uint8_t disc[BLOCKS * ATAPI_BLOCK];
} f;

static int disc_read(struct block *b, uint64_t off, void *buf, size_t len)
{
    pthread_mutex_lock(&f.gate);
    memcpy(buf, f.disc + off, len);
    pthread_mutex_unlock(&f.gate);
    return f.fail;
}

static const struct block_ops disc_ops = { .format = "test", .read = disc_read };

static void put(uint64_t off, uint32_t v) { bus_write(&f.rig.mmio, BAR + off, v, 4); }
static uint32_t get(uint64_t off) { return (uint32_t)bus_read(&f.rig.mmio, BAR + off, 4); }

static void map(struct ahci *a)
{
    pci_dev_config_write(&a->pci, PCI_BAR0 + 20, (uint32_t)BAR, 4);
    pci_dev_config_write(&a->pci, PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER, 2);
}

/* As a driver: reception on, then the port goes. */
static void start(void)
{
    put(0x04, 0x80000002);
    put(PX, LIST);
    put(PX + 8, FIS);
    put(PX_CMD, 0x10);
    put(PX_CMD, 0x11);
    put(PX_SERR, ~0U);
    put(PX_IS, ~0U);
    put(PX_IE, ~0U);
}

static int setup(void **state)
{
    struct irq_line lines[4];

    memset(&f, 0, sizeof(f));
    rig_init(&f.rig, 0);
    for (unsigned n = 0; n < 4; n++)
        lines[n] = rig_irq(&f.rig, n);
    pci_host_init(&f.host, &f.rig.io, &f.rig.mmio, lines);
    ram_init(&f.ram);
    assert_int_equal(ram_add_slot(&f.ram, 0, RAM, false), 0);
    for (size_t n = 0; n < sizeof(f.disc); n++)
        f.disc[n] = (uint8_t)(n * 7 + n / ATAPI_BLOCK);
    f.block = (struct block){ .ops = &disc_ops, .size = sizeof(f.disc), .ro = true };
    pthread_mutex_init(&f.gate, NULL);
    assert_int_equal(ahci_init(&f.a, &f.block, &f.rig.loop, &f.ram, "test"), 0);
    assert_int_equal(ahci_init(&f.other, &f.block, &f.rig.loop, &f.ram, "other"), 0);
    assert_int_equal(pci_dev_plug(&f.a.pci, &f.host, 4), 0);
    map(&f.a);
    return 0;
}

static int teardown(void **state)
{
    loop_lock(&f.rig.loop);
    ahci_ops.destroy(&f.a);
    ahci_ops.destroy(&f.other);
    loop_unlock(&f.rig.loop);
    ram_fini(&f.ram);
    rig_fini(&f.rig);
    return 0;
}

static void drain(void)
{
    loop_lock(&f.rig.loop);
    block_drain(f.a.io);
    loop_unlock(&f.rig.loop);
}

/* Put a command into the list: prds of part bytes each, the first one at `at`, without gaps. */
static void prepare(uint8_t command, uint8_t features, const uint8_t *cdb, uint64_t at, unsigned prds, uint32_t part)
{
    uint8_t header[32] = { 5 | 1 << 5 }, table[0x80] = { 0x27, 0x80, command, features }, prd[16] = { 0 };

    header[2] = (uint8_t)prds;
    st_le64(header + 8, TABLE);
    if (cdb)
        memcpy(table + 0x40, cdb, ATAPI_CDB);
    ram_write(&f.ram, LIST, header, sizeof(header));
    ram_write(&f.ram, TABLE, table, sizeof(table));
    for (unsigned n = 0; n < prds; n++) {
        st_le64(prd, at + n * (uint64_t)part);
        st_le32(prd + 12, part - 1);
        ram_write(&f.ram, TABLE + 0x80 + 16 * n, prd, sizeof(prd));
    }
}

static uint32_t prdbc(void)
{
    uint8_t raw[4];

    ram_read(&f.ram, LIST + 4, raw, 4);
    return ld_le32(raw);
}

/* One packet by DMA into 4 KiB at DATA; the status. */
static uint8_t packet(const uint8_t *cdb)
{
    prepare(PACKET, 1, cdb, DATA, 1, 4096);
    put(PX_CI, 1);
    drain();
    if (get(PX_TFD) & 1) { /* the way out of an error */
        uint8_t status = (uint8_t)get(PX_TFD);
        assert_int_equal(get(PX_CI), 1);
        assert_true(get(PX_IS) & 1U << 30);
        put(PX_CMD, 0x10);
        put(PX_CMD, 0x11);
        put(PX_IS, ~0U);
        return status;
    }
    assert_int_equal(get(PX_CI), 0);
    return (uint8_t)get(PX_TFD);
}

static void sense(uint8_t key, uint8_t asc, uint8_t ascq)
{
    uint8_t raw[18];

    assert_int_equal(packet((const uint8_t[ATAPI_CDB]){ 0x03, 0, 0, 0, 18 }), 0x40);
    ram_read(&f.ram, DATA, raw, sizeof(raw));
    assert_int_equal(raw[0], 0x70);
    assert_int_equal(raw[2], key);
    assert_int_equal(raw[12], asc);
    assert_int_equal(raw[13], ascq);
}

static void attended(void) /* the first command after a reset is told of it */
{
    assert_int_equal(packet((const uint8_t[ATAPI_CDB]){ 0 }), 0x41);
    sense(6, 0x29, 0);
    assert_int_equal(packet((const uint8_t[ATAPI_CDB]){ 0 }), 0x40);
}

static void test_bring_up(void **state)
{
    uint8_t fis[20];

    assert_int_equal(get(0x00), 0x81141f00);
    assert_int_equal(get(0x0c), 1);
    assert_int_equal(get(PX_SSTS), 0x113);
    assert_int_equal(get(PX_SIG), 0xeb140101);
    start();
    ram_read(&f.ram, FIS + 0x40, fis, sizeof(fis));
    assert_int_equal(fis[0], 0x34);
    assert_int_equal(fis[5], 0x14);
    assert_int_equal(fis[6], 0xeb);
    assert_int_equal(get(PX_CMD) & 0xc011, 0xc011);
    attended();
    assert_line(&f.rig, 0, true);
    put(PX_IS, ~0U);
    put(0x08, 1);
    assert_line(&f.rig, 0, false);
    put(PX_SCTL, 1); /* not while it runs */
    assert_int_equal(get(PX_SSTS), 0x113);
    put(PX_SCTL, 0);
    put(PX_CMD, 0x10);
    put(PX_SCTL, 1);
    assert_int_equal(get(PX_SSTS), 1);
    put(PX_SCTL, 0);
    assert_int_equal(get(PX_SSTS), 0x113);
    assert_true(get(PX_IS) & 1U << 6);
    put(PX_SERR, ~0U);
    assert_int_equal(get(PX_IS) & 1U << 6, 0);
    start();
    attended();
}

static void test_identify(void **state)
{
    uint8_t id[512], fis[20];

    start();
    prepare(IDENTIFY_PACKET, 0, NULL, DATA, 2, 256);
    put(PX_CI, 1);
    assert_int_equal(get(PX_CI), 0);
    assert_int_equal(get(PX_IS) & 3, 3);
    assert_line(&f.rig, 0, true); /* slot 4, INTA */
    put(PX_IS, ~0U);
    put(0x08, 1);
    assert_line(&f.rig, 0, false);
    ram_read(&f.ram, DATA, id, sizeof(id));
    assert_int_equal(ld_le16(id), 0x85c0);
    assert_memory_equal(id + 54, "IVRT ODCR-MO", 4);
    ram_read(&f.ram, FIS + 0x20, fis, sizeof(fis));
    assert_int_equal(fis[0], 0x5f);
    assert_int_equal(ld_le16(fis + 16), 512);
    assert_int_equal(prdbc(), 512);
    prepare(0xec, 0, NULL, DATA, 1, 512); /* it is no disk */
    put(PX_CI, 1);
    assert_int_equal(get(PX_TFD), 0x441);
}

static void test_read(void **state)
{
    static uint8_t got[16 * ATAPI_BLOCK];

    start();
    attended();
    /* 16 blocks from 5 on, in pieces that end inside blocks */
    prepare(PACKET, 1, (const uint8_t[ATAPI_CDB]){ 0x28, 0, 0, 0, 0, 5, 0, 0, 16 }, DATA, 12, 3000);
    put(PX_CI, 1);
    drain();
    assert_int_equal(get(PX_TFD), 0x40);
    assert_int_equal(get(PX_CI), 0);
    assert_int_equal(prdbc(), sizeof(got));
    ram_read(&f.ram, DATA, got, sizeof(got));
    assert_memory_equal(got, f.disc + 5 * ATAPI_BLOCK, sizeof(got));
    /* less room than data: what fits, and the overflow is told */
    ram_fill(&f.ram, DATA, 0xee, sizeof(got));
    put(PX_IS, ~0U);
    prepare(PACKET, 0, (const uint8_t[ATAPI_CDB]){ 0xa8, 0, 0, 0, 0, 0, 0, 0, 0, 2 }, DATA, 1, 100);
    put(PX_CI, 1);
    drain();
    assert_int_equal(get(PX_IS) & (1U << 24 | 3), 1U << 24 | 3);
    assert_int_equal(prdbc(), 100);
    ram_read(&f.ram, DATA, got, sizeof(got));
    assert_memory_equal(got, f.disc, 100);
    assert_int_equal(got[100], 0xee);
    /* outside the disc; unreadable */
    assert_int_equal(packet((const uint8_t[ATAPI_CDB]){ 0x28, 0, 0, 0, 0, BLOCKS - 1, 0, 0, 2 }), 0x41);
    sense(5, 0x21, 0);
    f.fail = -EIO;
    assert_int_equal(packet((const uint8_t[ATAPI_CDB]){ 0x28, 0, 0, 0, 0, 1, 0, 0, 1 }), 0x41);
    sense(3, 0x11, 0);
}

static void test_tell(void **state)
{
    uint8_t d[64];

    start();
    attended();
    assert_int_equal(packet((const uint8_t[ATAPI_CDB]){ 0x25 }), 0x40);
    ram_read(&f.ram, DATA, d, 8);
    assert_int_equal(ld_be32(d), BLOCKS - 1);
    assert_int_equal(ld_be32(d + 4), ATAPI_BLOCK);
    assert_int_equal(packet((const uint8_t[ATAPI_CDB]){ 0x43, 2, 0, 0, 0, 0, 0, 0, 40 }), 0x40);
    ram_read(&f.ram, DATA, d, 20);
    assert_memory_equal(d, "\0\22\1\1\0\24\1\0\0\0\2\0\0\24\252\0\0\0\2\100", 20); /* begins at 2 s; ends 64 frames later */
    assert_int_equal(packet((const uint8_t[ATAPI_CDB]){ 0x46, 0, 0, 0, 0, 0, 0, 0, 8 }), 0x40);
    ram_read(&f.ram, DATA, d, 8);
    assert_int_equal(d[7], 8); /* a CD */
    assert_int_equal(packet((const uint8_t[ATAPI_CDB]){ 0x5a, 0, 0x2a, 0, 0, 0, 0, 0, 30 }), 0x40);
    assert_int_equal(prdbc(), 30);
    assert_int_equal(packet((const uint8_t[ATAPI_CDB]){ 0x12, 0, 0, 0, 36 }), 0x40);
    assert_int_equal(prdbc(), 36);
    assert_int_equal(packet((const uint8_t[ATAPI_CDB]){ 0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8 }), 0x40);
    ram_read(&f.ram, DATA, d, 8);
    assert_int_equal(d[5], 2);
    assert_int_equal(packet((const uint8_t[ATAPI_CDB]){ 0x51, 0, 0, 0, 0, 0, 0, 0, 34 }), 0x40);
    assert_int_equal(packet((const uint8_t[ATAPI_CDB]){ 0xbd, 0, 0, 0, 0, 0, 0, 0, 0, 8 }), 0x40);
    assert_int_equal(packet((const uint8_t[ATAPI_CDB]){ 0x2a }), 0x41); /* WRITE(10) */
    sense(5, 0x20, 0);
}

static void test_tray(void **state)
{
    start();
    attended();
    packet((const uint8_t[ATAPI_CDB]){ 0x1e, 0, 0, 0, 1 });
    assert_int_equal(packet((const uint8_t[ATAPI_CDB]){ 0x1b, 0, 0, 0, 2 }), 0x41);
    sense(5, 0x53, 2);
    packet((const uint8_t[ATAPI_CDB]){ 0x1e });
    assert_int_equal(packet((const uint8_t[ATAPI_CDB]){ 0x1b, 0, 0, 0, 2 }), 0x40);
    assert_int_equal(packet((const uint8_t[ATAPI_CDB]){ 0x25 }), 0x41);
    sense(2, 0x3a, 0);
    assert_int_equal(packet((const uint8_t[ATAPI_CDB]){ 0x1b, 0, 0, 0, 3 }), 0x40);
    assert_int_equal(packet((const uint8_t[ATAPI_CDB]){ 0x25 }), 0x40);
}

static void control(uint8_t bits)
{
    uint8_t table[0x80] = { 0x27 };

    prepare(0, 0, NULL, DATA, 0, 1);
    table[15] = bits;
    ram_write(&f.ram, TABLE, table, sizeof(table));
    put(PX_CI, 1);
}

static void test_soft_reset(void **state)
{
    start();
    attended();
    control(4);
    assert_int_equal(get(PX_CI), 0);
    control(0);
    assert_int_equal(get(PX_CI), 0);
    assert_int_equal(get(PX_TFD), 0x100);
    attended();
}

/* A list, a table or data that is not memory; a FIS that is none: the port stops, and goes on after ST. */
static void test_misuse(void **state)
{
    uint8_t header[32] = { 5 }, byte = 0x46;

    start();
    attended();
    put(PX + 4, 0x7fff);
    put(PX_CI, 1);
    assert_true(get(PX_IS) & 1U << 29);
    put(PX + 4, 0);
    start();
    put(PX_CMD, 0x10);
    start();
    assert_int_equal(packet((const uint8_t[ATAPI_CDB]){ 0 }), 0x40);
    st_le64(header + 8, ~0ULL);
    ram_write(&f.ram, LIST, header, sizeof(header));
    put(PX_CI, 1);
    assert_true(get(PX_IS) & 1U << 29);
    put(PX_CMD, 0x10);
    start();
    prepare(PACKET, 1, (const uint8_t[ATAPI_CDB]){ 0x28, 0, 0, 0, 0, 0, 0, 0, 4 }, RAM - 4096, 2, 4096);
    put(PX_CI, 1);
    drain();
    assert_true(get(PX_IS) & 1U << 29);
    put(PX_CMD, 0x10);
    assert_int_equal(get(PX_TFD) & 0x80, 0x80); /* it is in the middle of a transfer, for all the drive knows */
    put(PX_CMD, 0x18);
    assert_int_equal(get(PX_TFD) & 0x80, 0);
    start();
    prepare(PACKET, 1, (const uint8_t[ATAPI_CDB]){ 0 }, DATA, 1, 512);
    ram_write(&f.ram, TABLE, &byte, 1);
    put(PX_CI, 1);
    assert_true(get(PX_IS) & 1U << 27);
    /* data of one PRD over the list and the table itself: what was fetched counts */
    put(PX_CMD, 0x10);
    start();
    prepare(PACKET, 1, (const uint8_t[ATAPI_CDB]){ 0x28, 0, 0, 0, 0, 0, 0, 0, 8 }, LIST, 1, 8 * ATAPI_BLOCK);
    put(PX_CI, 1);
    drain();
    assert_int_equal(get(PX_CI), 0);
}

/* Commands in other slots run in turn; a failed one stops the port with those behind it waiting. */
static void test_slots(void **state)
{
    uint8_t header[32], fail = 0x2a;

    start();
    attended();
    pthread_mutex_lock(&f.gate);
    prepare(PACKET, 1, (const uint8_t[ATAPI_CDB]){ 0x28, 0, 0, 0, 0, 1, 0, 0, 1 }, DATA, 1, ATAPI_BLOCK);
    ram_read(&f.ram, LIST, header, sizeof(header));
    for (unsigned n = 1; n < 32; n++)
        ram_write(&f.ram, LIST + 32 * n, header, sizeof(header));
    put(PX_CI, 1U << 31 | 1U << 7);
    assert_int_equal(get(PX_CMD) >> 8 & 31, 7);
    put(PX_CI, 1U << 3);
    pthread_mutex_unlock(&f.gate);
    drain();
    assert_int_equal(get(PX_CI), 0);
    assert_int_equal(get(PX_CMD) >> 8 & 31, 3);
    ram_write(&f.ram, TABLE + 0x40, &fail, 1);
    put(PX_CI, 1U << 4 | 1U << 5);
    assert_int_equal(get(PX_CI), 1U << 4 | 1U << 5);
    assert_int_equal(get(PX_CMD) >> 8 & 31, 4);
    put(PX_CMD, 0x10);
    assert_int_equal(get(PX_CI), 0);
}

/* ST is cleared, or the machine reset, while a read is under way: it stores nothing, and the next one works. */
static void test_cut_short(void **state)
{
    static const uint8_t read[ATAPI_CDB] = { 0x28, 0, 0, 0, 0, 1, 0, 0, 1 };
    uint8_t got[ATAPI_BLOCK];

    for (unsigned reset = 0; reset < 2; reset++) {
        start();
        attended();
        ram_fill(&f.ram, DATA, 0, sizeof(got));
        pthread_mutex_lock(&f.gate);
        prepare(PACKET, 1, read, DATA, 1, ATAPI_BLOCK);
        put(PX_CI, 1);
        assert_int_equal(get(PX_TFD) & 0x80, 0x80);
        if (reset) {
            loop_lock(&f.rig.loop);
            ahci_ops.reset(&f.a);
            loop_unlock(&f.rig.loop);
            map(&f.a);
        } else {
            put(PX_CMD, 0x10);
        }
        start();
        put(PX_CI, 1); /* waits for the old one's end */
        pthread_mutex_unlock(&f.gate);
        drain();
        if (!reset) {
            ram_read(&f.ram, DATA, got, sizeof(got));
            assert_memory_equal(got, f.disc + ATAPI_BLOCK, sizeof(got));
        }
        put(PX_CMD, 0);
        put(0x04, 1);
        map(&f.a);
    }
}

static void test_state(void **state)
{
    start();
    attended();
    packet((const uint8_t[ATAPI_CDB]){ 0x1b, 0, 0, 0, 2 });
    prepare(0xec, 0, NULL, DATA, 1, 512);
    put(PX_CI, 1);
    rig_round_trip(&ahci_ops, &f.a, &f.other);
    f.other.port.ssts = 3;
    assert_int_equal(ahci_ops.state->check(&f.other, &(struct err){ "" }), -EINVAL);
    f.other.port.ssts = 0x113;
}

/* Random registers over a list and a table of random bytes, some of them made good. */
static void test_storm(void **state)
{
    for (unsigned n = 0; n < 3000; n++) {
        uint64_t r = rig_random(&f.rig);
        uint8_t cdb[ATAPI_CDB], raw[64];

        for (unsigned i = 0; i < sizeof(raw); i++)
            raw[i] = (uint8_t)(rig_random(&f.rig) >> 24);
        memcpy(cdb, raw, sizeof(cdb));
        if (r & 1)
            cdb[0] = (uint8_t[]){ 0, 3, 0x12, 0x1b, 0x25, 0x28, 0x43, 0x46, 0x4a, 0x51, 0x5a, 0xa8, 0xbd, 0x2b, 0x1e, 0xbb }[r >> 4 & 15];
        if (r & 2)
            memset(cdb + 2, 0, 5);
        prepare(r & 4 ? PACKET : raw[20], raw[21], cdb, r >> 8 & 0xfffff, raw[22] & 31, 1 + (uint32_t)(r >> 40 & 0x1fff));
        if (r % 11 == 0)
            ram_write(&f.ram, r % 2 ? LIST : TABLE + (r >> 12 & 0xff), raw, sizeof(raw));
        if (r % 7 == 0)
            start();
        put(PX_CI, r % 17 ? 1 : (uint32_t)(r >> 24));
        if (r % 13 == 0)
            put((r >> 20 & 0x7f) * 4, (uint32_t)(r >> 30));
        if (r % 5 == 0)
            put(PX_CMD, 0x10);
        if (r % 3 == 0)
            drain();
    }
    rig_fuzz(&f.rig, &f.rig.mmio, BAR, AHCI_BAR_LEN, 20000);
    drain();
}

static void test_state_storm(void **state)
{
    rig_fuzz_state(&f.rig, &ahci_ops, &f.a, &f.rig.mmio, BAR, AHCI_BAR_LEN, 200);
    drain();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_bring_up, setup, teardown),
        cmocka_unit_test_setup_teardown(test_identify, setup, teardown),
        cmocka_unit_test_setup_teardown(test_read, setup, teardown),
        cmocka_unit_test_setup_teardown(test_tell, setup, teardown),
        cmocka_unit_test_setup_teardown(test_tray, setup, teardown),
        cmocka_unit_test_setup_teardown(test_soft_reset, setup, teardown),
        cmocka_unit_test_setup_teardown(test_misuse, setup, teardown),
        cmocka_unit_test_setup_teardown(test_slots, setup, teardown),
        cmocka_unit_test_setup_teardown(test_cut_short, setup, teardown),
        cmocka_unit_test_setup_teardown(test_state, setup, teardown),
        cmocka_unit_test_setup_teardown(test_storm, setup, teardown),
        cmocka_unit_test_setup_teardown(test_state_storm, setup, teardown),
    };

    return cmocka_run_group_tests_name("ahci", tests, NULL, NULL);
}
