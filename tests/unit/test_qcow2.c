/* qcow2: random operations against a model, crashes at every write, failures at the Nth call.
 *
 * Each 512-byte sector of the disk holds 64 times the same number: what was written last and which sector it
 * is. The model keeps, for each sector, what a read may find: one value while nothing goes wrong; after a
 * crash the last flushed one or any that was written since.
 */
#include "test.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/bits.h"
#include "base/err.h"
#include "base/log.h"
#include "base/rand.h"
#include "block/qcow2.h"
#include "memfile.h"

#define SECTOR    512U
#define BACKED    1U /* the number in the backing file's sectors */
#define MAYBE_MAX 40U

struct sector {
    uint32_t sure;             /* flushed */
    uint32_t maybe[MAYBE_MAX]; /* written since, oldest first */
    bool ok[MAYBE_MAX];        /* that write reported success */
    unsigned n;
};

struct model {
    struct sector *s;
    uint64_t n;
    uint32_t next; /* the next number to write */
};

static void model_init(struct model *m, uint64_t sectors, uint64_t backed)
{
    m->s = calloc(sectors, sizeof(*m->s));
    assert_non_null(m->s);
    m->n = sectors;
    m->next = 2;
    for (uint64_t i = 0; i < backed && i < sectors; i++)
        m->s[i].sure = BACKED;
}

static void model_fini(struct model *m) { free(m->s); }

static void model_write(struct model *m, uint64_t first, uint64_t n, uint32_t id, bool ok)
{
    for (uint64_t i = first; i < first + n; i++) {
        struct sector *s = &m->s[i];

        assert_true(s->n < MAYBE_MAX);
        s->maybe[s->n] = id;
        s->ok[s->n++] = ok;
    }
}

/* A flush succeeded: what was written last is sure, unless a failed write came after it. */
static void model_flush(struct model *m)
{
    for (uint64_t i = 0; i < m->n; i++) {
        struct sector *s = &m->s[i];
        unsigned keep = 0, from = 0;

        for (unsigned j = 0; j < s->n; j++) {
            if (s->ok[j]) {
                s->sure = s->maybe[j];
                from = j + 1;
            }
        }
        for (unsigned j = from; j < s->n; j++, keep++) {
            s->maybe[keep] = s->maybe[j];
            s->ok[keep] = false;
        }
        s->n = keep;
    }
}

/* exact: nothing was lost, so only the last success and later failures count. */
static bool model_allows(const struct sector *s, uint32_t id, bool exact)
{
    for (unsigned j = s->n; j-- > 0;) {
        if (s->maybe[j] == id)
            return true;
        if (exact && s->ok[j])
            return false;
    }
    return s->sure == id;
}

static void sector_fill(uint8_t *p, uint64_t index, uint32_t id)
{
    for (unsigned i = 0; i < SECTOR; i += 8)
        st_le64(p + i, id ? (uint64_t)id << 32 | index : 0);
}

static void sector_check(const struct model *m, const uint8_t *p, uint64_t index, bool exact)
{
    uint64_t v = ld_le64(p);

    for (unsigned i = 8; i < SECTOR; i += 8)
        assert_int_equal(ld_le64(p + i), v);
    if (v)
        assert_int_equal(v & UINT32_MAX, index);
    if (!model_allows(&m->s[index], (uint32_t)(v >> 32), exact))
        fail_msg("sector %llu holds %u, which it may not (flushed: %u)", (unsigned long long)index,
                 (unsigned)(v >> 32), m->s[index].sure);
}

static void model_verify(const struct model *m, struct block *b, bool exact)
{
    uint64_t step = 97;
    uint8_t *buf = malloc(step * SECTOR);

    assert_non_null(buf);
    for (uint64_t at = 0; at < m->n; at += step) {
        uint64_t n = m->n - at < step ? m->n - at : step;

        assert_int_equal(block_read(b, at * SECTOR, buf, n * SECTOR), 0);
        for (uint64_t i = 0; i < n; i++)
            sector_check(m, buf + i * SECTOR, at + i, exact);
    }
    free(buf);
}

/* --- a disk to work on --- */

struct rig {
    struct memfile file, base_file;
    struct block *disk;
    struct model model;
    struct rand_source rand;
    unsigned bits;
    uint64_t sectors, backed;
    uint64_t cache;
};

/* A raw disk in memory, as backing file. */
struct membase {
    struct block block;
    uint64_t sectors;
};

static int membase_read(struct block *b, uint64_t off, void *buf, size_t len)
{
    for (uint64_t i = 0; i < len / SECTOR; i++)
        sector_fill((uint8_t *)buf + i * SECTOR, off / SECTOR + i, BACKED);
    return 0;
}

static void membase_close(struct block *b) { free(container_of(b, struct membase, block)); }

static const struct block_ops membase_ops = { .format = "test",
                                              .read = membase_read,
                                              .close = membase_close };

static struct block *membase(uint64_t sectors)
{
    struct membase *m = calloc(1, sizeof(*m));

    assert_non_null(m);
    m->block = (struct block){ .ops = &membase_ops, .size = sectors * SECTOR, .ro = true };
    return &m->block;
}

static struct block *rig_open_file(struct rig *r, struct memfile *f)
{
    struct qcow2_opts o = { .name = "test",
                            .backing = r->backed ? membase(r->backed) : NULL,
                            .cache_bytes = r->cache };
    struct err err = { "" };
    struct block *b;

    if (block_qcow2_open(&b, &f->base, &o, &err) < 0)
        fail_msg("%s", err.text);
    return b;
}

static void rig_init(struct rig *r, uint64_t seed, unsigned bits, uint64_t sectors, uint64_t backed)
{
    struct qcow2_new n = { .size = sectors * SECTOR, .cluster_bits = bits };
    struct err err = { "" };

    *r = (struct rig){ .bits = bits, .sectors = sectors, .backed = backed, .cache = 1 };
    rand_init_seeded(&r->rand, seed);
    memfile_init(&r->file);
    if (backed) {
        n.backing = "b";
        n.backing_format = "raw";
    }
    if (qcow2_create(&r->file.base, &n, &err) < 0)
        fail_msg("%s", err.text);
    model_init(&r->model, sectors, backed);
    r->disk = rig_open_file(r, &r->file);
}

static void rig_fini(struct rig *r)
{
    block_close(r->disk);
    model_fini(&r->model);
    memfile_fini(&r->file);
}

/* Every other write as a device does it: from memory in pieces, where that goes. */
static int rig_write(struct rig *r, uint64_t off, uint8_t *buf, size_t len, bool straight)
{
    size_t first = ALIGN_UP(len / 3, SECTOR);
    struct iovec iov[2] = { { buf, first }, { buf + first, len - first } };
    int e = straight ? block_write_from(r->disk, off, iov, first < len ? 2 : 1, len) : -EAGAIN;

    return e == -EAGAIN ? block_write(r->disk, off, buf, len) : e;
}

enum op { OP_WRITE, OP_ZERO, OP_DISCARD, OP_FLUSH };

static int rig_do(struct rig *r, enum op op, uint64_t first, uint64_t n, uint32_t id)
{
    uint8_t *buf;
    int e;

    if (op == OP_ZERO)
        return block_write_zeroes(r->disk, first * SECTOR, n * SECTOR, true);
    if (op == OP_DISCARD)
        return block_discard(r->disk, first * SECTOR, n * SECTOR);
    buf = malloc(n * SECTOR);
    assert_non_null(buf);
    for (uint64_t i = 0; i < n; i++)
        sector_fill(buf + i * SECTOR, first + i, id);
    e = rig_write(r, first * SECTOR, buf, n * SECTOR, id & 1);
    free(buf);
    return e;
}

/* One random operation; the log gets a mark before it (its place and number) and after a flush that
 * succeeded. */
static int rig_step(struct rig *r)
{
    uint64_t cs = BIT(r->bits) / SECTOR, first = rand_below(&r->rand, r->sectors), n;
    uint64_t pick = rand_below(&r->rand, 20), most = rand_below(&r->rand, 4) ? 24 : 4 * cs + 8;
    enum op op = pick < 13 ? OP_WRITE : pick < 15 ? OP_ZERO : pick < 17 ? OP_DISCARD : OP_FLUSH;
    uint32_t id = op == OP_WRITE ? r->model.next++ : 0;
    int e;

    n = 1 + rand_below(&r->rand, r->sectors - first < most ? r->sectors - first : most);
    if (op == OP_DISCARD) { /* only whole clusters change for sure */
        first = ALIGN_DOWN(first, cs);
        n = ALIGN_UP(n, cs);
        n = first + n > r->sectors ? r->sectors - first : n;
    }
    if (op == OP_FLUSH) {
        e = block_flush(r->disk);
        if (e == 0) {
            memfile_mark(&r->file, UINT64_MAX, 0);
            model_flush(&r->model);
        }
        return e;
    }
    for (uint64_t i = first; i < first + n; i++) {
        if (r->model.s[i].n + 1 >= MAYBE_MAX)
            return 0;
    }
    memfile_mark(&r->file, first << 32 | n, id);
    e = rig_do(r, op, first, n, id);
    model_write(&r->model, first, n, id, e == 0);
    return e;
}

static void check_clean(struct block *b, bool leaks_allowed)
{
    struct qcow2_check c;
    struct err err = { "" };

    if (qcow2_check(b, false, &c, &err) < 0)
        fail_msg("%s", err.text);
    if (c.corruptions)
        fail_msg("%llu corruptions: %s", (unsigned long long)c.corruptions, c.first);
    if (!leaks_allowed && c.leaks)
        fail_msg("%llu leaks", (unsigned long long)c.leaks);
}

/* --- tests --- */

static void random_ops(unsigned bits, uint64_t sectors, uint64_t backed, uint64_t seed, unsigned steps)
{
    struct rig r;

    rig_init(&r, seed, bits, sectors, backed);
    for (unsigned i = 0; i < steps; i++) {
        assert_int_equal(rig_step(&r), 0);
        if (i % 40 == 39) {
            model_verify(&r.model, r.disk, true);
            assert_int_equal(block_flush(r.disk), 0);
            model_flush(&r.model);
            check_clean(r.disk, false);
        }
        if (i % 150 == 149) {
            block_close(r.disk);
            r.disk = rig_open_file(&r, &r.file);
        }
    }
    model_verify(&r.model, r.disk, true);
    assert_true(r.file.straight > 0);
    rig_fini(&r);
}

static void test_random(void **state)
{
    for (unsigned bits = 9; bits <= 16; bits++) {
        uint64_t cs = BIT(bits) / SECTOR;

        random_ops(bits, cs * 70 + 3, 0, bits, 600);
        random_ops(bits, cs * 70 + 3, cs * 30 + 5, 100 + bits, 600);
    }
    random_ops(21, 3 * 4096 + 8, 4096, 21, 60);
}

/* Refcount table and L1 table outgrow their clusters: 512-byte clusters and a large disk. */
static void test_many_clusters(void **state)
{
    struct rig r;
    uint8_t buf[4096];

    rig_init(&r, 5, 9, 160000, 0);
    for (uint64_t at = 0; at < 160000; at += 8) {
        for (unsigned i = 0; i < 8; i++)
            sector_fill(buf + i * SECTOR, at + i, 7);
        assert_int_equal(block_write(r.disk, at * SECTOR, buf, sizeof(buf)), 0);
    }
    assert_int_equal(block_flush(r.disk), 0);
    for (uint64_t i = 0; i < r.sectors; i++)
        r.model.s[i].sure = 7;
    model_verify(&r.model, r.disk, true);
    check_clean(r.disk, false);
    block_close(r.disk);
    r.disk = rig_open_file(&r, &r.file);
    model_verify(&r.model, r.disk, true);
    assert_int_equal(qcow2_make_empty(r.disk), 0);
    for (uint64_t i = 0; i < r.sectors; i++)
        r.model.s[i].sure = 0;
    model_verify(&r.model, r.disk, true);
    check_clean(r.disk, false);
    rig_fini(&r);
}

/* Space that was given back is used again, but not before a flush. */
static void test_reuse(void **state)
{
    struct rig r;
    uint64_t size;

    rig_init(&r, 6, 12, 4096, 0);
    for (unsigned round = 0; round < 20; round++) {
        assert_int_equal(rig_do(&r, OP_WRITE, 0, 4096, 9), 0);
        assert_int_equal(block_flush(r.disk), 0);
        assert_int_equal(rig_do(&r, OP_DISCARD, 0, 4096, 0), 0);
        size = r.file.len;
        if (round == 10) {
            assert_int_equal(rig_do(&r, OP_WRITE, 0, 800, 9), 0);
            assert_true(r.file.len > size);
            assert_int_equal(rig_do(&r, OP_DISCARD, 0, 4096, 0), 0);
        }
        assert_int_equal(block_flush(r.disk), 0);
    }
    assert_true(r.file.len < 3 * 4096 * SECTOR);
    rig_fini(&r);
}

static void test_grow(void **state)
{
    struct rig r;
    struct err err = { "" };

    rig_init(&r, 8, 9, 33, 100);
    assert_int_equal(rig_do(&r, OP_WRITE, 30, 3, 5), 0);
    model_write(&r.model, 30, 3, 5, true);
    assert_int_equal(qcow2_grow(r.disk, 20000 * SECTOR, &err), 0);
    r.model.s = realloc(r.model.s, 20000 * sizeof(*r.model.s));
    memset(r.model.s + 33, 0, (20000 - 33) * sizeof(*r.model.s));
    r.model.n = r.sectors = 20000;
    model_verify(&r.model, r.disk, true); /* zeroes, not the backing file's sectors 33 to 99 */
    check_clean(r.disk, false);
    for (unsigned i = 0; i < 200; i++)
        assert_int_equal(rig_step(&r), 0);
    model_verify(&r.model, r.disk, true);
    assert_int_equal(qcow2_grow(r.disk, 512, &err), -EINVAL);
    assert_non_null(strstr(err.text, "larger"));
    rig_fini(&r);
}

/* A crash after event number `until`: what was flushed before is there, of what came later some. */
static void crash_at(struct rig *r, const struct memfile *durable, size_t from, size_t until, bool some)
{
    struct memfile f;
    struct block *b, *disk = r->disk;

    memfile_init(&f);
    memfile_copy(&f, durable);
    for (size_t i = from; i < until; i++) {
        if (!some || rand_below(&r->rand, 3))
            memfile_apply(&f, &r->file.log[i]);
    }
    b = rig_open_file(r, &f);
    check_clean(b, true);
    model_verify(&r->model, b, false);
    /* It also goes on from there. */
    if (rand_below(&r->rand, 8) == 0) {
        r->disk = b;
        for (unsigned i = 0; i < 6; i++)
            assert_int_equal(rig_do(r, OP_WRITE, rand_below(&r->rand, r->sectors - 8), 8, 3), 0);
        r->disk = disk;
        assert_int_equal(block_flush(b), 0);
        check_clean(b, true);
    }
    block_close(b);
    memfile_fini(&f);
}

static unsigned crash_run(uint64_t seed, unsigned bits, uint64_t sectors, uint64_t backed, unsigned steps)
{
    struct memfile durable;
    struct rig r;
    size_t last = 0;
    unsigned crashes = 0;

    rig_init(&r, seed, bits, sectors, backed);
    memfile_init(&durable);
    memfile_copy(&durable, &r.file);
    r.file.record = true;
    for (unsigned i = 0; i < steps; i++)
        assert_int_equal(rig_step(&r), 0);
    model_fini(&r.model);
    model_init(&r.model, sectors, backed);
    for (size_t i = 0; i < r.file.log_n; i++) {
        struct memevent *e = &r.file.log[i];

        if (e->kind == MEM_MARK && e->off == UINT64_MAX)
            model_flush(&r.model);
        else if (e->kind == MEM_MARK)
            model_write(&r.model, e->off >> 32, e->off & UINT32_MAX, (uint32_t)e->len, true);
        if (e->kind == MEM_FLUSH) {
            for (; last <= i; last++)
                memfile_apply(&durable, &r.file.log[last]);
        }
        if (e->kind == MEM_MARK)
            continue;
        crash_at(&r, &durable, last, i + 1, false);
        crash_at(&r, &durable, last, i + 1, true);
        crashes += 2;
    }
    memfile_fini(&durable);
    rig_fini(&r);
    return crashes;
}

static void test_crash(void **state)
{
    unsigned n = 0;

    for (uint64_t seed = 0; seed < 6; seed++) {
        n += crash_run(1000 + seed, 9, 700, 0, 90);
        n += crash_run(2000 + seed, 9, 700, 350, 90);
        n += crash_run(3000 + seed, 10 + seed % 3, 400, seed & 1 ? 200 : 0, 90);
    }
    n += crash_run(4000, 9, 12000, 0, 160);
    n += crash_run(5000, 16, 1500, 700, 60);
    print_message("%u crashes\n", n);
}

/* What is on the disk after a power cut: nothing that came after the last flush, or that a failed one lost.
 */
static void check_power_cut(struct rig *r, const struct memfile *start)
{
    size_t last = 0;
    struct memfile f;
    struct block *b;

    memfile_init(&f);
    memfile_copy(&f, start);
    for (size_t i = 0; i < r->file.log_n; i++)
        last = r->file.log[i].kind == MEM_FLUSH ? i : last;
    for (size_t i = 0; i < last; i++) {
        if (!r->file.log[i].lost)
            memfile_apply(&f, &r->file.log[i]);
    }
    b = rig_open_file(r, &f);
    check_clean(b, true);
    model_verify(&r->model, b, false);
    block_close(b);
    memfile_fini(&f);
}

/* The Nth call fails: the error is seen, flushed data stays, the image stays sound. */
static void fault_run(enum memfail kind, uint64_t at, bool for_ever)
{
    unsigned errors = 0;
    struct memfile start;
    struct rig r;

    rig_init(&r, 77 + at % 7, 9 + at % 3, 500, at % 2 ? 250 : 0);
    memfile_init(&start);
    memfile_copy(&start, &r.file);
    r.file.record = true;
    r.file.fail = kind;
    r.file.for_ever = for_ever;
    r.file.calls = 0;
    r.file.fail_at = at;
    for (unsigned i = 0; i < 120; i++)
        errors += rig_step(&r) < 0;
    if (r.file.failed && for_ever && kind != MEMFAIL_SHORT)
        assert_true(errors > 0);
    r.file.fail = MEMFAIL_NONE;
    r.file.record = false;
    model_verify(&r.model, r.disk, true);
    check_power_cut(&r, &start);
    memfile_fini(&start);
    block_close(r.disk);
    r.disk = rig_open_file(&r, &r.file);
    check_clean(r.disk, true);
    model_verify(&r.model, r.disk, false);
    for (unsigned i = 0; i < 10; i++)
        assert_int_equal(rig_step(&r), 0);
    assert_int_equal(block_flush(r.disk), 0);
    check_clean(r.disk, true);
    rig_fini(&r);
}

static void test_faults(void **state)
{
    for (uint64_t at = 1; at <= 500; at++) {
        for (enum memfail kind = MEMFAIL_EIO; kind <= MEMFAIL_SHORT; kind++) {
            fault_run(kind, at, false);
            if (at % 4 == 0)
                fault_run(kind, at, true);
        }
    }
}

/* A failed flush is final, also when the next one would work. */
static void test_flush_final(void **state)
{
    struct rig r;

    rig_init(&r, 9, 12, 100, 0);
    assert_int_equal(rig_do(&r, OP_WRITE, 0, 8, 4), 0);
    assert_int_equal(block_flush(r.disk), 0);
    assert_int_equal(rig_do(&r, OP_WRITE, 0, 8, 5), 0);
    r.file.fail = MEMFAIL_EIO;
    r.file.calls = 0;
    r.file.fail_at = 1;
    assert_int_equal(block_flush(r.disk), -EIO);
    r.file.fail = MEMFAIL_NONE;
    assert_int_equal(block_flush(r.disk), -EIO);
    assert_int_equal(rig_do(&r, OP_WRITE, 0, 8, 6), -EIO);
    rig_fini(&r);
}

/* Change one field of a good image: is it refused, and with which word? */
static void refuse(size_t at, unsigned width, uint64_t value, bool ro, const char *word)
{
    struct qcow2_opts o = { .name = "test", .ro = ro };
    struct err err = { "" };
    struct block *b;
    struct rig r;

    rig_init(&r, 3, 12, 1000, 0);
    block_close(r.disk);
    for (unsigned i = 0; i < width; i++)
        r.file.data[at + i] = (uint8_t)(value >> (8 * (width - 1 - i)));
    if (block_qcow2_open(&b, &r.file.base, &o, &err) == 0)
        fail_msg("%zu = %llx was not refused", at, (unsigned long long)value);
    if (!strstr(err.text, word))
        fail_msg("'%s' does not say '%s'", err.text, word);
    r.disk = NULL;
    rig_fini(&r);
}

static void test_refused(void **state)
{
    refuse(0, 1, 'X', true, "not a qcow2 image");
    refuse(4, 4, 1, true, "version 1");
    refuse(4, 4, 4, true, "version 4");
    refuse(4, 4, 2, false, "version 2");
    refuse(20, 4, 8, true, "cluster size");
    refuse(20, 4, 22, true, "cluster size");
    refuse(20, 4, UINT32_MAX, true, "cluster size");
    refuse(24, 8, 1ULL << 63, true, "disk size");
    refuse(24, 8, 1ULL << 40, true, "L1 table");
    refuse(32, 4, 1, true, "encrypted");
    refuse(36, 4, UINT32_MAX, true, "L1 table");
    refuse(40, 8, 1ULL << 40, true, "L1 table");
    refuse(40, 8, 0x1001, true, "L1 table");
    refuse(40, 8, 0x1000, false, "two tables");
    refuse(48, 8, 1ULL << 62, true, "refcount table");
    refuse(56, 4, 0, true, "refcount table");
    refuse(56, 4, 1U << 30, true, "refcount table");
    refuse(60, 4, 1U << 20, true, "snapshots");
    refuse(72, 8, 1, false, "repair");
    refuse(72, 8, 2, false, "corrupt");
    refuse(72, 8, 4, true, "another file");
    refuse(72, 8, 16, true, "extended L2");
    refuse(72, 8, 1ULL << 40, true, "does not know");
    refuse(72, 8, 8, true, "compressed");
    refuse(96, 4, 7, true, "reference counts");
    refuse(96, 4, 3, false, "16");
    refuse(100, 4, 96, true, "header");
    refuse(100, 4, 1U << 20, true, "header");
    refuse(112, 8, 0x44415441ULL << 32, true, "data file");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random),      cmocka_unit_test(test_many_clusters),
        cmocka_unit_test(test_reuse),       cmocka_unit_test(test_grow),
        cmocka_unit_test(test_crash),       cmocka_unit_test(test_faults),
        cmocka_unit_test(test_flush_final), cmocka_unit_test(test_refused),
    };

    log_set_level(LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
