/* Guest-physical memory: bounds, overflow, holes, ROM, code pages, the dirty log; all of it for private memory, and again for a file of
 * memory that other processes can map. */
#include "test.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/err.h"
#include "base/rand.h"
#include "ram/share.h"
#include "ram/swap.h"

#define MIB (1ULL << 20)

static bool shared; /* which kind it is this time */

/* RAM at 0 and, adjoining, at 1 MiB; ROM adjoining that; a hole; RAM at 4 GiB. */
static void layout(struct ram *r)
{
    ram_init(r);
    ram_share(r, shared);
    assert_int_equal(ram_add_slot(r, 4096 * MIB, MIB, false), 0);
    assert_int_equal(ram_add_slot(r, 0, MIB, false), 0);
    assert_int_equal(ram_add_slot(r, 2 * MIB, 2 * PAGE_SIZE, true), 0);
    assert_int_equal(ram_add_slot(r, MIB, MIB, false), 0);
}

#define ROM_AT  (2 * MIB)
#define ROM_END (2 * MIB + 2 * PAGE_SIZE)
#define HIGH_AT (4096 * MIB)

static void slots_are_sorted_and_zero(void **state)
{
    uint8_t page[PAGE_SIZE], zero[PAGE_SIZE] = { 0 };
    struct ram r;
    unsigned i;

    layout(&r);
    assert_int_equal(r.nslots, 4);
    for (i = 1; i < r.nslots; i++)
        assert_true(r.slot[i - 1].gpa + r.slot[i - 1].size <= r.slot[i].gpa);
    assert_int_equal(ram_total(&r), 3 * MIB);
    assert_int_equal(ram_read(&r, HIGH_AT, page, sizeof(page)), 0);
    assert_memory_equal(page, zero, sizeof(page));
    ram_fini(&r);
    assert_int_equal(r.nslots, 0);
}

static void bad_slots_are_refused(void **state)
{
    struct ram r;
    unsigned i;

    layout(&r);
    assert_int_equal(ram_add_slot(&r, 100 * MIB, 0, false), -EINVAL);
    assert_int_equal(ram_add_slot(&r, 100 * MIB + 1, PAGE_SIZE, false), -EINVAL);
    assert_int_equal(ram_add_slot(&r, 100 * MIB, PAGE_SIZE + 1, false), -EINVAL);
    assert_int_equal(ram_add_slot(&r, -PAGE_SIZE, PAGE_SIZE, false), -EINVAL);
    assert_int_equal(ram_add_slot(&r, -PAGE_SIZE, 2 * PAGE_SIZE, false), -EINVAL);
    assert_int_equal(ram_add_slot(&r, PAGE_SIZE, -PAGE_SIZE, false), -EINVAL);
    assert_int_equal(ram_add_slot(&r, 0, PAGE_SIZE, false), -EEXIST);
    assert_int_equal(ram_add_slot(&r, MIB - PAGE_SIZE, 2 * PAGE_SIZE, false), -EEXIST);
    assert_int_equal(ram_add_slot(&r, ROM_END - PAGE_SIZE, PAGE_SIZE, false), -EEXIST);
    assert_int_equal(ram_add_slot(&r, HIGH_AT - PAGE_SIZE, 2 * PAGE_SIZE, false), -EEXIST);
    assert_int_equal(ram_add_slot(&r, ROM_END, 8192 * MIB, false), -EEXIST); /* swallows a slot */
    assert_int_equal(ram_add_slot(&r, 1ULL << 60, 1ULL << 60, false), -ENOMEM);
    assert_int_equal(r.nslots, 4);
    for (i = 4; i < RAM_MAX_SLOTS; i++)
        assert_int_equal(ram_add_slot(&r, (100 + i) * MIB, PAGE_SIZE, false), 0);
    assert_int_equal(ram_add_slot(&r, 200 * MIB, PAGE_SIZE, false), -ENOSPC);
    ram_fini(&r);
}

static void accesses_outside_are_refused(void **state)
{
    static const struct {
        uint64_t gpa, len;
    } bad[] = {
        { ROM_END, 1 },
        { ROM_END - 1, 2 },
        { HIGH_AT - 1, 1 },
        { HIGH_AT - 1, 2 },
        { HIGH_AT + MIB, 1 },
        { HIGH_AT + MIB - 1, 2 },
        { UINT64_MAX, 1 },
        { UINT64_MAX, 2 },
        { HIGH_AT, UINT64_MAX },
        { 0, UINT64_MAX },
        { PAGE_SIZE, -PAGE_SIZE },
        { 1, UINT64_MAX },
        { 0, ROM_END + 1 },
        { HIGH_AT, -HIGH_AT },
        { ROM_END - 1, HIGH_AT - ROM_END + 2 },
        { ROM_END - 1, 1ULL << 63 },
    };
    uint8_t buf[16] = { 1, 2, 3 };
    struct ram r;
    size_t i;

    layout(&r);
    for (i = 0; i < ARRAY_LEN(bad); i++) {
        /* The buffer is far smaller than some lengths: refused before anything is copied. */
        assert_int_equal(ram_read(&r, bad[i].gpa, buf, bad[i].len), -EFAULT);
        assert_int_equal(ram_write(&r, bad[i].gpa, buf, bad[i].len), -EFAULT);
        assert_int_equal(ram_load(&r, bad[i].gpa, buf, bad[i].len), -EFAULT);
        assert_int_equal(ram_fill(&r, bad[i].gpa, 0xee, bad[i].len), -EFAULT);
        assert_null(ram_borrow(&r, bad[i].gpa, bad[i].len));
    }
    ram_read(&r, ROM_END - 1, buf, 1);
    assert_int_equal(buf[0], 0);
    ram_read(&r, HIGH_AT + MIB - 1, buf, 1);
    assert_int_equal(buf[0], 0);
    assert_int_equal(buf[1], 2);
    assert_int_equal(ram_read(&r, ROM_END, buf, 0), 0); /* nothing is inside anything */
    assert_null(ram_slot_of(&r, ROM_END));
    assert_null(ram_page_flags(&r, HIGH_AT - 1));
    assert_non_null(ram_page_flags(&r, HIGH_AT));
    ram_fini(&r);
}

static void copies_span_adjoining_slots(void **state)
{
    uint8_t in[300], out[300];
    struct ram r;
    size_t i;

    layout(&r);
    for (i = 0; i < sizeof(in); i++)
        in[i] = (uint8_t)(i * 7 + 1);
    assert_int_equal(ram_write(&r, MIB - 100, in, sizeof(in)), 0);
    assert_int_equal(ram_read(&r, MIB - 100, out, sizeof(out)), 0);
    assert_memory_equal(in, out, sizeof(in));
    assert_memory_equal(ram_borrow(&r, MIB, 200), in + 100, 200);
    assert_memory_equal(ram_borrow(&r, MIB - 100, 100), in, 100);
    assert_null(ram_borrow(&r, MIB - 100, 101)); /* two mappings: no one pointer */
    assert_int_equal(ram_fill(&r, MIB - 10, 0x5a, 20), 0);
    assert_int_equal(ram_read(&r, MIB - 11, out, 22), 0);
    assert_int_equal(out[0], in[89]);
    for (i = 1; i <= 20; i++)
        assert_int_equal(out[i], 0x5a);
    assert_int_equal(out[21], in[110]);
    ram_fini(&r);
}

/* Every size and alignment, the ones with a single access and the others. */
static void copies_of_every_size(void **state)
{
    uint8_t model[64] = { 0 }, in[16], out[64];
    struct rand_source rnd;
    struct ram r;
    unsigned off, len;

    layout(&r);
    rand_init_seeded(&rnd, 5);
    for (len = 0; len <= sizeof(in); len++) {
        for (off = 0; off + len <= sizeof(model); off++) {
            rand_bytes(&rnd, in, sizeof(in));
            memcpy(model + off, in, len);
            assert_int_equal(ram_write(&r, MIB - 32 + off, in, len), 0);
            assert_int_equal(ram_read(&r, MIB - 32, out, sizeof(out)), 0);
            assert_memory_equal(out, model, sizeof(model));
            memset(out, 0, sizeof(out));
            assert_int_equal(ram_read(&r, MIB - 32 + off, out, len), 0);
            assert_memory_equal(out, model + off, len);
        }
    }
    ram_fini(&r);
}

static void rom_drops_writes_but_loads(void **state)
{
    uint8_t in[8] = { 1, 2, 3, 4, 5, 6, 7, 8 }, out[8];
    struct ram r;

    layout(&r);
    assert_int_equal(ram_write(&r, ROM_AT - 4, in, sizeof(in)), 0);
    assert_int_equal(ram_read(&r, ROM_AT - 4, out, sizeof(out)), 0);
    assert_memory_equal(out, ((uint8_t[8]){ 1, 2, 3, 4, 0, 0, 0, 0 }), 8);
    assert_int_equal(ram_fill(&r, ROM_AT, 0xff, 8), 0);
    ram_read(&r, ROM_AT, out, 8);
    assert_memory_equal(out, ((uint8_t[8]){ 0 }), 8);
    assert_int_equal(ram_load(&r, ROM_AT, in, 8), 0);
    ram_read(&r, ROM_AT, out, 8);
    assert_memory_equal(out, in, 8);
    ram_fini(&r);
}

/* An engine as ram sees it: it records the calls and what the bytes were at that moment. */
struct engine {
    struct ram *r;
    unsigned calls;
    uint64_t gpa[16], len[16];
    uint8_t byte[16];
    bool decode_more; /* decode again at once, as another vCPU could in the middle of the write */
};

static void engine_code_write(void *opaque, uint64_t gpa, uint64_t len)
{
    struct engine *e = opaque;

    if (e->calls < 16) {
        e->gpa[e->calls] = gpa;
        e->len[e->calls] = len;
        e->byte[e->calls] = *(uint8_t *)ram_borrow(e->r, gpa, 1);
    }
    e->calls++;
    atomic_fetch_and(ram_page_flags(e->r, gpa), (uint8_t)~PAGE_CODE);
    if (e->decode_more && e->calls == 1)
        atomic_fetch_or(ram_page_flags(e->r, gpa), PAGE_CODE);
}

static void engine_attach(struct engine *e, struct ram *r)
{
    *e = (struct engine){ .r = r };
    r->code_write = engine_code_write;
    r->code_opaque = e;
}

static void set_code(struct ram *r, uint64_t gpa) { atomic_fetch_or(ram_page_flags(r, gpa), PAGE_CODE); }

static void code_page_is_told_before_the_write(void **state)
{
    uint8_t in[8] = { 9, 9, 9, 9, 9, 9, 9, 9 };
    struct engine e;
    struct ram r;

    layout(&r);
    engine_attach(&e, &r);
    assert_int_equal(ram_fill(&r, 0x3000, 0x11, PAGE_SIZE), 0);
    set_code(&r, 0x3000);
    ram_write(&r, 0x2ffc, in, 4); /* the page below */
    ram_write(&r, 0x4000, in, 8); /* the page above */
    assert_int_equal(e.calls, 0);
    ram_write(&r, 0x3010, in, 8);
    assert_int_equal(e.calls, 1);
    assert_int_equal(e.gpa[0], 0x3010);
    assert_int_equal(e.len[0], 8);
    assert_int_equal(e.byte[0], 0x11); /* still the old byte */
    ram_write(&r, 0x3010, in, 8);
    assert_int_equal(e.calls, 1); /* the flag was cleared: nothing more to tell */
    ram_fini(&r);
}

static void code_pages_in_a_span_are_each_told(void **state)
{
    static uint8_t big[4 * PAGE_SIZE];
    struct engine e;
    struct ram r;

    layout(&r);
    engine_attach(&e, &r);
    set_code(&r, MIB - 1); /* the last page of one slot and the first but one of the next */
    set_code(&r, MIB + PAGE_SIZE);
    memset(big, 0xcc, sizeof(big));
    assert_int_equal(ram_write(&r, MIB - 8, big, PAGE_SIZE + 24), 0);
    assert_int_equal(e.calls, 2);
    assert_int_equal(e.gpa[0], MIB - 8);
    assert_int_equal(e.len[0], 8);
    assert_int_equal(e.gpa[1], MIB + PAGE_SIZE);
    assert_int_equal(e.len[1], 16);
    assert_int_equal(e.byte[1], 0);
    set_code(&r, 0x5000);
    assert_int_equal(ram_fill(&r, 0x4ff0, 0, 0x20), 0);
    assert_int_equal(e.calls, 3);
    assert_int_equal(e.gpa[2], 0x5000);
    ram_fini(&r);
}

static void code_in_rom_is_told_only_by_load(void **state)
{
    uint8_t in[4] = { 1, 2, 3, 4 };
    struct engine e;
    struct ram r;

    layout(&r);
    engine_attach(&e, &r);
    set_code(&r, ROM_AT);
    ram_write(&r, ROM_AT, in, 4); /* dropped: the bytes do not change */
    assert_int_equal(e.calls, 0);
    ram_load(&r, ROM_AT, in, 4);
    assert_int_equal(e.calls, 1);
    ram_fini(&r);
}

/* Code that was decoded between the notice and the bytes is dropped by a second notice. */
static void code_decoded_meanwhile_is_told_again(void **state)
{
    uint8_t in[4] = { 1, 2, 3, 4 };
    struct engine e;
    struct ram r;

    layout(&r);
    engine_attach(&e, &r);
    e.decode_more = true;
    set_code(&r, 0x1000);
    ram_write(&r, 0x1000, in, 4);
    assert_int_equal(e.calls, 2);
    assert_int_equal(e.byte[0], 0);
    assert_int_equal(e.byte[1], 1); /* the new byte */
    ram_fini(&r);
}

static void dirty_log_collects_and_clears(void **state)
{
    uint8_t map[32], in[PAGE_SIZE + 2] = { 0 };
    struct ram r;
    unsigned i;

    layout(&r);
    ram_write(&r, 0x1000, in, 1); /* the log is off */
    assert_int_equal(ram_dirty_collect(&r, 0, map, sizeof(map)), 0);
    ram_dirty_log(&r, true);
    assert_int_equal(ram_dirty_collect(&r, 0, map, sizeof(map)), 0);
    ram_write(&r, 0x1fff, in, PAGE_SIZE + 2); /* pages 1, 2, 3 */
    ram_fill(&r, 0x9000, 1, 1);
    ram_load(&r, 0xff000, in, 1);
    ram_mark_dirty(&r, 0x10ffe, 2);
    ram_mark_dirty(&r, 0x20fff, 2); /* both sides of a page's end */
    ram_write(&r, MIB, in, 1);      /* another slot */
    assert_int_equal(ram_dirty_collect(&r, 0, map, 31), -EINVAL);
    assert_int_equal(ram_dirty_collect(&r, 4, map, sizeof(map)), -EINVAL);
    assert_int_equal(ram_dirty_collect(&r, 0, map, sizeof(map)), 8);
    for (i = 0; i < 256; i++) {
        bool want = i == 1 || i == 2 || i == 3 || i == 9 || i == 0xff || i == 0x10 || i == 0x20 || i == 0x21;

        assert_int_equal(map[i / 8] >> (i % 8) & 1, want);
    }
    assert_int_equal(ram_dirty_collect(&r, 0, map, sizeof(map)), 0);
    assert_int_equal(ram_dirty_collect(&r, 1, map, sizeof(map)), 1);
    ram_fini(&r);
}

static void dirty_log_leaves_code_flags(void **state)
{
    uint8_t map[32];
    struct ram r;

    layout(&r);
    ram_mark_dirty(&r, 0x2000, 1);
    set_code(&r, 0x2000);
    set_code(&r, 0x3000);
    ram_dirty_log(&r, true); /* forgets what came before */
    assert_int_equal(*ram_page_flags(&r, 0x2000), PAGE_CODE);
    ram_mark_dirty(&r, 0x3000, 1);
    assert_int_equal(*ram_page_flags(&r, 0x3000), PAGE_CODE | PAGE_DIRTY);
    assert_int_equal(ram_dirty_collect(&r, 0, map, sizeof(map)), 1);
    assert_int_equal(*ram_page_flags(&r, 0x3000), PAGE_CODE);
    ram_mark_dirty(&r, ROM_END, 100); /* outside: ignored */
    ram_mark_dirty(&r, 0, 0);
    assert_int_equal(*ram_page_flags(&r, 0), 0);
    ram_fini(&r);
}

static void exchange_is_a_write_like_others(void **state)
{
    uint8_t old = 0, map[32], one = 1;
    struct engine e;
    struct ram r;

    layout(&r);
    engine_attach(&e, &r);
    assert_int_equal(ram_exchange(&r, 0x2fff, 5, &old), 0);
    assert_int_equal(old, 0);
    assert_int_equal(e.calls, 0);
    assert_int_equal(*ram_page_flags(&r, 0x2000), 0);
    set_code(&r, 0x2000);
    ram_dirty_log(&r, true);
    assert_int_equal(ram_exchange(&r, 0x2fff, 6, &old), 0);
    assert_int_equal(old, 5);
    assert_int_equal(e.calls, 1);
    assert_int_equal(e.gpa[0], 0x2fff);
    assert_int_equal(e.len[0], 1);
    assert_int_equal(e.byte[0], 5); /* told before the write */
    assert_int_equal(ram_dirty_collect(&r, 0, map, sizeof(map)), 1);
    assert_int_equal(ram_load(&r, ROM_AT, &one, 1), 0);
    assert_int_equal(ram_exchange(&r, ROM_AT, 7, &old), 0);
    assert_int_equal(old, 1);
    assert_int_equal(ram_exchange(&r, ROM_AT, 7, &old), 0);
    assert_int_equal(old, 1);
    assert_int_equal(ram_exchange(&r, ROM_END, 7, &old), -EFAULT);
    assert_int_equal(ram_exchange(&r, UINT64_MAX, 7, &old), -EFAULT);
    ram_fini(&r);
}

/* A slot whose page count is not a multiple of eight. */
static void dirty_bitmap_of_odd_size(void **state)
{
    uint8_t map[3] = { 0xff, 0xff, 0xff };
    struct ram r;

    ram_init(&r);
    ram_share(&r, shared);
    assert_int_equal(ram_add_slot(&r, 0, 11 * PAGE_SIZE, false), 0);
    ram_dirty_log(&r, true);
    ram_mark_dirty(&r, 0, 11 * PAGE_SIZE);
    assert_int_equal(ram_dirty_collect(&r, 0, map, 1), -EINVAL);
    assert_int_equal(ram_dirty_collect(&r, 0, map, 3), 11);
    assert_int_equal(map[0], 0xff);
    assert_int_equal(map[1], 0x07);
    assert_int_equal(map[2], 0);
    ram_fini(&r);
}

/* 64 GiB must cost nothing until touched. */
static void large_slot_is_lazy(void **state)
{
    uint64_t v = 0x1122334455667788, w = 0;
    struct ram r;

    ram_init(&r);
    ram_share(&r, shared);
    assert_int_equal(ram_add_slot(&r, HIGH_AT, 64ULL << 30, false), 0);
    assert_int_equal(ram_write(&r, HIGH_AT + (63ULL << 30), &v, 8), 0);
    assert_int_equal(ram_read(&r, HIGH_AT + (63ULL << 30), &w, 8), 0);
    assert_true(v == w);
    ram_fini(&r);
}

/* Memory on a swap file: the same bytes, zeroes where it was given back, and it goes along when memory is taken over. The thread that keeps the
 * limit drops pages, never bytes. */
static void swap_file_keeps_bytes(void **state)
{
    char dir[] = "swap-XXXXXX", path[32];
    struct err err = { "" };
    struct ram r, to;
    uint64_t v = 0;

    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/file", dir);
    ram_init(&r);
    ram_init(&to);
    assert_int_equal(ram_add_slot(&r, 0, 32 * MIB, false), 0);
    assert_int_equal(ram_add_slot(&r, 64 * MIB, PAGE_SIZE, true), 0);
    assert_int_equal(ram_add_slot(&r, 128 * MIB, MIB / 2, false), 0);
    assert_int_equal(ram_swap_create(&r, path, RAM_SWAP_LIMIT_MIN, &err), 0);
    assert_int_equal(rmdir(dir), 0); /* the file has no name */
    assert_int_equal(ram_map_file(&r, 0, 0, 0), -EINVAL);
    for (uint64_t at = 0; at < 32 * MIB; at += 8)
        assert_int_equal(ram_write(&r, at, &at, 8), 0);
    assert_int_equal(ram_discard(&r, MIB, 2 * PAGE_SIZE), 0);
    assert_int_equal(ram_add_slot(&to, 0, 32 * MIB, false), 0);
    assert_int_equal(ram_add_slot(&to, 64 * MIB, PAGE_SIZE, true), 0);
    assert_int_equal(ram_add_slot(&to, 128 * MIB, MIB / 2, false), 0);
    assert_int_equal(ram_take(&to, &r), 0);
    ram_fini(&r);
    assert_int_equal(ram_swap_start(&to), 0);
    for (unsigned n = 0; n < 1000 && !ram_swapped(&to); n++)
        usleep(10000);
    assert_true(ram_swapped(&to) > 16 * MIB);
    for (uint64_t at = 0; at < 32 * MIB; at += 8) {
        assert_int_equal(ram_read(&to, at, &v, 8), 0);
        assert_true(v == (at - MIB < 2 * PAGE_SIZE ? 0 : at));
    }
    ram_fini(&to);
}

/* Aligned words never tear and no dirty page is lost while a collector runs. */
struct writer {
    struct ram *r;
    _Atomic bool stop;
    uint64_t writes;
};

static void *writer_main(void *opaque)
{
    struct writer *w = opaque;
    uint64_t i, v;

    for (i = 1; !w->stop; i++) {
        v = i | i << 32;
        ram_write(w->r, (i % 64) * PAGE_SIZE, &v, 8);
    }
    w->writes = i;
    return NULL;
}

static void threads_do_not_tear(void **state)
{
    uint64_t seen[64] = { 0 }, now, i, round;
    struct writer w = { .stop = false };
    uint8_t map[32];
    struct ram r;
    pthread_t t;

    layout(&r);
    ram_dirty_log(&r, true);
    w.r = &r;
    assert_int_equal(pthread_create(&t, NULL, writer_main, &w), 0);
    for (round = 0; round < 2000; round++) {
        assert_true(ram_dirty_collect(&r, 0, map, sizeof(map)) >= 0);
        for (i = 0; i < 64; i++) {
            ram_read(&r, i * PAGE_SIZE, &now, 8);
            assert_true((uint32_t)now == now >> 32);
            if (map[i / 8] >> (i % 8) & 1)
                seen[i] = now;
        }
    }
    w.stop = true;
    pthread_join(t, NULL);
    ram_dirty_collect(&r, 0, map, sizeof(map));
    for (i = 0; i < 64; i++) {
        ram_read(&r, i * PAGE_SIZE, &now, 8);
        if (map[i / 8] >> (i % 8) & 1)
            seen[i] = now;
        assert_true(seen[i] == now); /* a page that is clean has not changed since it was copied */
    }
    ram_fini(&r);
}

/* Whole pages inside are zeroes, the rest stays; it is a write like others. */
static void discard_is_a_write_of_zeroes(void **state)
{
    uint8_t map[32], page[PAGE_SIZE], zero[PAGE_SIZE] = { 0 };
    struct engine e;
    struct ram r;

    layout(&r);
    engine_attach(&e, &r);
    assert_int_equal(ram_fill(&r, 0, 0x77, 2 * MIB), 0);
    set_code(&r, 0x3000);
    ram_dirty_log(&r, true);
    assert_int_equal(ram_discard(&r, 0x1800, 0x3000), 0);
    assert_int_equal(e.calls, 1);
    assert_int_equal(e.byte[0], 0x77);
    assert_int_equal(ram_dirty_collect(&r, 0, map, sizeof(map)), 2);
    assert_int_equal(map[0], 0x0c);
    ram_read(&r, 0x2000, page, sizeof(page));
    assert_memory_equal(page, zero, sizeof(page));
    assert_int_equal(*(uint8_t *)ram_borrow(&r, 0x1fff, 1), 0x77);
    assert_int_equal(*(uint8_t *)ram_borrow(&r, 0x4000, 1), 0x77);
    assert_int_equal(ram_discard(&r, MIB - PAGE_SIZE, 2 * PAGE_SIZE), 0);
    assert_int_equal(*(uint8_t *)ram_borrow(&r, MIB - 1, 1), 0);
    assert_int_equal(*(uint8_t *)ram_borrow(&r, MIB, 1), 0);
    assert_int_equal(ram_discard(&r, ROM_AT, PAGE_SIZE), -EACCES);
    assert_int_equal(ram_discard(&r, ROM_END, PAGE_SIZE), -EFAULT);
    assert_int_equal(ram_write(&r, 0x2000, zero + 1, 1), 0);
    ram_fini(&r);
}

/* A slot's bytes in another mapping of the file, as another process would have it. */
static uint8_t *map_shared(const struct ram_slot *s)
{
    uint64_t off;
    int fd = ram_shared_fd(s, &off);
    void *p = mmap(NULL, s->size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)off);

    assert_true(p != MAP_FAILED);
    assert_true((off - s->gpa) % (2 * MIB) == 0);
    return p;
}

static void shared_slots_are_one_file(void **state)
{
    uint64_t off, v = 0x1122334455667788, w = 0;
    uint8_t *low, *high;
    struct ram r;

    layout(&r);
    assert_int_equal(ram_shared_fd(&r.slot[2], &off) >= 0, false); /* ROM */
    if (!shared) {
        assert_int_equal(ram_shared_fd(&r.slot[0], &off), -1);
        ram_fini(&r);
        return;
    }
    assert_int_equal(ftruncate(ram_shared_fd(&r.slot[0], &off), 0), -1);
    low = map_shared(&r.slot[1]);
    high = map_shared(&r.slot[3]);
    assert_int_equal(ram_shared_used(&r), 0);
    assert_int_equal(ram_write(&r, MIB + 8, &v, 8), 0);
    assert_memory_equal(low + 8, &v, 8);
    memcpy(high + PAGE_SIZE, &v, 8);
    assert_int_equal(ram_read(&r, HIGH_AT + PAGE_SIZE, &w, 8), 0);
    assert_true(v == w);
    assert_int_equal(ram_shared_used(&r), 2 * PAGE_SIZE);
    assert_int_equal(ram_discard(&r, HIGH_AT, MIB), 0);
    assert_int_equal(high[PAGE_SIZE], 0);
    munmap(low, MIB);
    munmap(high, MIB);
    ram_fini(&r);
}

/* What has memory, found in runs. */
static void shared_runs_are_found(void **state)
{
    struct ram_slot *s;
    uint64_t stop;
    struct ram r;

    layout(&r);
    s = &r.slot[1];
    if (shared) {
        assert_true(ram_shared_run(s, 0, MIB, &stop) == MIB && stop == MIB);
        assert_int_equal(ram_fill(&r, MIB + 3 * PAGE_SIZE, 1, 2 * PAGE_SIZE), 0);
        assert_int_equal(ram_fill(&r, MIB + 9 * PAGE_SIZE, 1, 1), 0);
        assert_int_equal(ram_fill(&r, 5, 1, 1), 0); /* another slot */
        assert_true(ram_shared_run(s, 0, MIB, &stop) == 3 * PAGE_SIZE && stop == 5 * PAGE_SIZE);
        assert_true(ram_shared_run(s, 4 * PAGE_SIZE, MIB, &stop) == 4 * PAGE_SIZE && stop == 5 * PAGE_SIZE);
        assert_true(ram_shared_run(s, 0, 4 * PAGE_SIZE, &stop) == 3 * PAGE_SIZE && stop == 4 * PAGE_SIZE);
        assert_true(ram_shared_run(s, 0, 2 * PAGE_SIZE, &stop) == 2 * PAGE_SIZE);
        assert_true(ram_shared_run(s, 5 * PAGE_SIZE, MIB, &stop) == 9 * PAGE_SIZE && stop == 10 * PAGE_SIZE);
        assert_true(ram_shared_run(s, 10 * PAGE_SIZE, MIB, &stop) == MIB && stop == MIB);
    }
    ram_fini(&r);
}

/* What works by taking private memory's place. */
static void shared_memory_stays_where_it_is(void **state)
{
    struct err err = { "" };
    struct ram r, other;

    layout(&r);
    layout(&other);
    if (shared) {
        assert_int_equal(ram_map_file(&r, 0, 0, 0), -EINVAL);
        assert_int_equal(ram_merge(&r), -EINVAL);
        assert_int_equal(ram_swap_create(&r, "never", 0, &err), -EINVAL);
        assert_int_equal(ram_take(&r, &other), -EINVAL);
        shared = false;
        ram_fini(&other);
        layout(&other);
        assert_int_equal(ram_take(&r, &other), -EINVAL);
        shared = true;
    }
    ram_fini(&r);
    ram_fini(&other);
}

/* Memory that is taken over is as shared as it was, and at home where it went. */
static void shared_memory_is_taken_over(void **state)
{
    bool was = shared;
    struct ram r, to;
    uint64_t off, v = 0x1122334455667788;
    uint8_t *at;

    layout(&r);
    shared = false;
    layout(&to);
    shared = was;
    int fd = ram_shared_fd(&r.slot[0], &off);
    at = to.slot[0].hva;
    assert_int_equal(ram_write(&r, 0x2000, &v, 8), 0);
    assert_int_equal(ram_take(&to, &r), 0);
    ram_fini(&r);
    assert_ptr_equal(to.slot[0].hva, at);
    assert_int_equal(ram_shared_fd(&to.slot[0], &off), fd);
    assert_int_equal(ram_shared_used(&to) != 0, was);
    v = 0;
    assert_int_equal(ram_read(&to, 0x2000, &v, 8), 0);
    assert_true(v == 0x1122334455667788);
    assert_int_equal(ram_discard(&to, 0x2000, PAGE_SIZE), 0);
    assert_int_equal(ram_read(&to, 0x2000, &v, 8), 0);
    assert_true(v == 0);
    ram_fini(&to);
    if (was)
        assert_int_equal(fcntl(fd, F_GETFD), -1); /* closed */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(slots_are_sorted_and_zero),
        cmocka_unit_test(bad_slots_are_refused),
        cmocka_unit_test(accesses_outside_are_refused),
        cmocka_unit_test(copies_span_adjoining_slots),
        cmocka_unit_test(copies_of_every_size),
        cmocka_unit_test(rom_drops_writes_but_loads),
        cmocka_unit_test(code_page_is_told_before_the_write),
        cmocka_unit_test(code_pages_in_a_span_are_each_told),
        cmocka_unit_test(code_in_rom_is_told_only_by_load),
        cmocka_unit_test(code_decoded_meanwhile_is_told_again),
        cmocka_unit_test(dirty_log_collects_and_clears),
        cmocka_unit_test(dirty_log_leaves_code_flags),
        cmocka_unit_test(exchange_is_a_write_like_others),
        cmocka_unit_test(dirty_bitmap_of_odd_size),
        cmocka_unit_test(large_slot_is_lazy),
        cmocka_unit_test(swap_file_keeps_bytes),
        cmocka_unit_test(threads_do_not_tear),
        cmocka_unit_test(discard_is_a_write_of_zeroes),
        cmocka_unit_test(shared_slots_are_one_file),
        cmocka_unit_test(shared_runs_are_found),
        cmocka_unit_test(shared_memory_stays_where_it_is),
        cmocka_unit_test(shared_memory_is_taken_over),
    };
    int failed = cmocka_run_group_tests_name("private", tests, NULL, NULL);

    shared = true;
    return failed + cmocka_run_group_tests_name("shared", tests, NULL, NULL);
}
