/* qcow2 with several threads at once: each sees its own sectors although neighbours share the clusters, and
 * no transfer of data waits for another, or for a flush. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/bits.h"
#include "base/err.h"
#include "base/log.h"
#include "base/rand.h"
#include "block/image_file.h"
#include "block/qcow2.h"

#define SECTOR  BLOCK_SECTOR
#define CREW    4U
#define STRIPE  3U /* sectors in a row that belong to one thread: neighbours share clusters */
#define TH_SIZE 6000U

struct hand {
    pthread_t thread;
    struct block *disk;
    unsigned id, wrong;
    uint32_t last[TH_SIZE / STRIPE / CREW];
};

static void sector_fill(uint8_t *p, uint64_t index, uint32_t id)
{
    for (unsigned i = 0; i < SECTOR; i += 8)
        st_le64(p + i, (uint64_t)id << 32 | index);
}

/* Works on its own stripes only, so it always knows what they hold. */
static void *hand_work(void *opaque)
{
    struct hand *h = opaque;
    uint8_t buf[STRIPE * SECTOR];
    struct rand_source rand;

    rand_init_seeded(&rand, h->id);
    for (uint32_t i = 1; i < 2500; i++) {
        uint64_t mine = rand_below(&rand, ARRAY_LEN(h->last)), first = (mine * CREW + h->id) * STRIPE;
        uint64_t pick = rand_below(&rand, 10);

        if (pick < 5) {
            for (unsigned k = 0; k < STRIPE; k++)
                sector_fill(buf + k * SECTOR, first + k, h->id << 16 | i);
            h->last[mine] = h->id << 16 | i;
            h->wrong += block_write(h->disk, first * SECTOR, buf, sizeof(buf)) != 0;
        } else if (pick < 6) {
            h->last[mine] = 0;
            h->wrong += block_write_zeroes(h->disk, first * SECTOR, sizeof(buf), true) != 0;
        } else if (pick < 9) {
            h->wrong += block_read(h->disk, first * SECTOR, buf, sizeof(buf)) != 0;
            h->wrong +=
                ld_le64(buf + SECTOR) != (h->last[mine] ? (uint64_t)h->last[mine] << 32 | (first + 1) : 0);
        } else if (i % 8 == 0) {
            h->wrong += block_flush(h->disk) != 0;
        }
    }
    return NULL;
}

static struct block *crew_disk(struct imgfile *f, uint64_t sectors, unsigned bits)
{
    struct qcow2_new n = { .size = sectors * SECTOR, .cluster_bits = bits };
    struct qcow2_opts o = { .name = "test", .cache_bytes = 1 };
    struct err err = { "" };
    struct block *b;

    assert_non_null(f);
    assert_int_equal(qcow2_create(f, &n, &err), 0);
    assert_int_equal(block_qcow2_open(&b, f, &o, &err), 0);
    return b;
}

/* With clusters of one sector whole clusters come and go; with larger ones several threads want the same. */
static void crew_run(unsigned bits)
{
    struct block *b = crew_disk(imgfile_from_fd(memfd_create("qcow2", MFD_CLOEXEC)), TH_SIZE, bits);
    struct hand hands[CREW] = { 0 };
    struct qcow2_check c;

    for (unsigned i = 0; i < CREW; i++) {
        hands[i].disk = b;
        hands[i].id = i;
        assert_int_equal(pthread_create(&hands[i].thread, NULL, hand_work, &hands[i]), 0);
    }
    for (unsigned i = 0; i < CREW; i++) {
        pthread_join(hands[i].thread, NULL);
        assert_int_equal(hands[i].wrong, 0);
    }
    assert_int_equal(block_flush(b), 0);
    assert_int_equal(qcow2_check(b, false, &c, NULL), 0);
    assert_string_equal(c.first, "");
    assert_int_equal(c.corruptions + c.leaks, 0);
    block_close(b);
}

static void test_small_clusters(void **state) { crew_run(9); }

static void test_shared_clusters(void **state) { crew_run(12); }

/* --- a file that holds up what it is told to --- */

struct gate {
    struct imgfile base;
    struct imgfile *below;
    pthread_mutex_t lock;
    pthread_cond_t change;
    bool hold_flush, hold_data; /* data: a write whose first byte is HELD */
    unsigned waiting;
};

#define HELD 0xee

static void gate_pass(struct gate *g, const bool *hold)
{
    pthread_mutex_lock(&g->lock);
    g->waiting += *hold;
    pthread_cond_broadcast(&g->change);
    while (*hold)
        pthread_cond_wait(&g->change, &g->lock);
    pthread_mutex_unlock(&g->lock);
}

static void gate_open(struct gate *g)
{
    pthread_mutex_lock(&g->lock);
    g->hold_flush = g->hold_data = false;
    pthread_cond_broadcast(&g->change);
    pthread_mutex_unlock(&g->lock);
}

static void gate_await(struct gate *g, unsigned n)
{
    struct timespec until;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 20;
    pthread_mutex_lock(&g->lock);
    while (g->waiting < n)
        assert_int_equal(pthread_cond_timedwait(&g->change, &g->lock, &until), 0);
    g->waiting = 0;
    pthread_mutex_unlock(&g->lock);
}

static struct gate *gate_of(struct imgfile *f) { return container_of(f, struct gate, base); }

static ssize_t gate_pread(struct imgfile *f, void *buf, size_t len, uint64_t off)
{
    return gate_of(f)->below->ops->pread(gate_of(f)->below, buf, len, off);
}

static ssize_t gate_pwrite(struct imgfile *f, const void *buf, size_t len, uint64_t off)
{
    if (*(const uint8_t *)buf == HELD)
        gate_pass(gate_of(f), &gate_of(f)->hold_data);
    return gate_of(f)->below->ops->pwrite(gate_of(f)->below, buf, len, off);
}

static int gate_flush(struct imgfile *f)
{
    gate_pass(gate_of(f), &gate_of(f)->hold_flush);
    return 0;
}

static int gate_truncate(struct imgfile *f, uint64_t size)
{
    return gate_of(f)->below->ops->truncate(gate_of(f)->below, size);
}

static int gate_punch(struct imgfile *f, uint64_t off, uint64_t len) { return 0; }

static int64_t gate_size(struct imgfile *f) { return gate_of(f)->below->ops->size(gate_of(f)->below); }

/* The gate itself is on a test's stack. */
static void gate_close(struct imgfile *f) { imgfile_close(gate_of(f)->below); }

static const struct imgfile_ops gate_ops = { .pread = gate_pread,
                                             .pwrite = gate_pwrite,
                                             .flush = gate_flush,
                                             .truncate = gate_truncate,
                                             .punch = gate_punch,
                                             .size = gate_size,
                                             .close = gate_close };

struct job {
    pthread_t thread;
    struct block *disk;
    uint64_t off; /* UINT64_MAX: flush */
    int fill, result;
};

static void *job_work(void *opaque)
{
    struct job *j = opaque;
    uint8_t buf[4096];

    memset(buf, j->fill, sizeof(buf));
    j->result = j->off == UINT64_MAX ? block_flush(j->disk) : block_write(j->disk, j->off, buf, sizeof(buf));
    return NULL;
}

static void job_start(struct job *j, struct block *b, uint64_t off, int fill)
{
    *j = (struct job){ .disk = b, .off = off, .fill = fill, .result = 1 };
    assert_int_equal(pthread_create(&j->thread, NULL, job_work, j), 0);
}

static void job_end(struct job *j)
{
    pthread_join(j->thread, NULL);
    assert_int_equal(j->result, 0);
}

static void write_now(struct block *b, uint64_t off, int fill)
{
    uint8_t buf[4096], back[4096];

    memset(buf, fill, sizeof(buf));
    assert_int_equal(block_write(b, off, buf, sizeof(buf)), 0);
    assert_int_equal(block_read(b, off, back, sizeof(back)), 0);
    assert_memory_equal(buf, back, sizeof(buf));
}

/* While the data of one write hang, everything else goes on: other new clusters, writes in place, reads,
 * flushes; only who wants the same new cluster waits, and both find their data there. */
static void test_slow_write(void **state)
{
    struct gate g = { .base.ops = &gate_ops,
                      .below = imgfile_from_fd(memfd_create("qcow2", MFD_CLOEXEC)),
                      .lock = PTHREAD_MUTEX_INITIALIZER,
                      .change = PTHREAD_COND_INITIALIZER };
    struct block *b = crew_disk(&g.base, 8192, 16);
    struct job slow, same;
    uint8_t buf[4096];

    write_now(b, 0, 1);
    g.hold_data = true;
    job_start(&slow, b, 65536, HELD);
    gate_await(&g, 1);
    job_start(&same, b, 65536 + 8192, 3);
    write_now(b, 4096, 4);
    write_now(b, 3 * 65536, 5);
    assert_int_equal(block_discard(b, 3 * 65536, 65536), 0);
    assert_int_equal(block_read(b, 65536, buf, sizeof(buf)), 0);
    assert_int_equal(block_flush(b), 0);
    assert_int_equal(same.result, 1);
    gate_open(&g);
    job_end(&slow);
    job_end(&same);
    assert_int_equal(block_read(b, 65536, buf, sizeof(buf)), 0);
    assert_int_equal(buf[0] == HELD && buf[4095] == HELD, 1);
    assert_int_equal(block_read(b, 65536 + 8192, buf, sizeof(buf)), 0);
    assert_int_equal(buf[0] == 3 && buf[4095] == 3, 1);
    block_close(b);
}

/* While a flush with metadata hangs in the host, reads and writes in place go on. */
static void test_slow_flush(void **state)
{
    struct gate g = { .base.ops = &gate_ops,
                      .below = imgfile_from_fd(memfd_create("qcow2", MFD_CLOEXEC)),
                      .lock = PTHREAD_MUTEX_INITIALIZER,
                      .change = PTHREAD_COND_INITIALIZER };
    struct block *b = crew_disk(&g.base, 8192, 16);
    struct job flush;

    write_now(b, 0, 1);
    g.hold_flush = true;
    job_start(&flush, b, UINT64_MAX, 0);
    gate_await(&g, 1);
    write_now(b, 4096, 4);
    write_now(b, 0, 2);
    assert_int_equal(flush.result, 1);
    gate_open(&g);
    job_end(&flush);
    block_close(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_small_clusters),
        cmocka_unit_test(test_shared_clusters),
        cmocka_unit_test(test_slow_write),
        cmocka_unit_test(test_slow_flush),
    };

    log_set_level(LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
