/* Memory to a file (format.h): pages of zeroes are left out, the rest is packed chunk by chunk by a few threads, or written
 * as it is to its place.
 *
 * Pages that the host never gave to the guest are known from /proc/self/pagemap without being touched, where that can be
 * read; else they are read, which costs time only.
 *
 * Threads: the caller's and its helpers; the memory does not change meanwhile, or is read by a still.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>
#include <zstd.h>

#include "base/bits.h"
#include "base/err.h"
#include "block/file.h"
#include "ram/share.h"
#include "ram/still.h"
#include "save/internal.h"

#define RAM_LEVEL     1
#define PAGEMAP_THERE (3ULL << 62) /* present, or swapped out (Linux, admin-guide/mm/pagemap.rst) */

struct ram_out {
    struct ram *ram;
    int fd, pagemap;
    uint32_t flags;
    const struct save_layers *base; /* SAVE_BASE */
    bool still;
    uint64_t ram_off, count;
    _Atomic uint64_t next, end; /* chunk to do; where the next frame goes */
    _Atomic int result;
    uint8_t *table;
};

unsigned save_threads(void)
{
    long n = sysconf(_SC_NPROCESSORS_ONLN);

    return n < 1 ? 1 : n > SAVE_THREADS_MAX ? SAVE_THREADS_MAX : (unsigned)n;
}

/* The chunk's bytes. Of shared memory they are read, once, to buf: by somebody else they may be changed meanwhile, and holes would be filled. */
static int ram_out_bytes(const struct ram_out *o, const struct save_chunk *c, uint8_t *buf, const uint8_t **bytes)
{
    uint64_t len = c->pages * PAGE_SIZE;

    *bytes = ram_shared_any(c->slot) ? buf : c->slot->hva + c->off;
    if (!ram_shared_any(c->slot))
        return 0;
    return o->still ? ram_still_read(o->ram, c->slot, c->off, len, buf) : ram_shared_read(c->slot, c->off, len, buf);
}

/* Which of a chunk's pages are not all zeroes. */
static void ram_out_look(const struct ram_out *o, const struct save_chunk *c, const uint8_t *bytes, struct save_entry *e)
{
    uint64_t there[SAVE_CHUNK_PAGES];
    ssize_t want = (ssize_t)(c->pages * sizeof(there[0]));
    bool know = !c->slot->backed && !c->slot->shared && o->pagemap >= 0 &&
                pread(o->pagemap, there, (size_t)want, (off_t)((uintptr_t)bytes / PAGE_SIZE * 8)) == want;

    memset(e, 0, sizeof(*e));
    for (unsigned n = 0; n < c->pages; n++) {
        if ((know && !(there[n] & PAGEMAP_THERE)) || mem_is_zero(bytes + n * PAGE_SIZE, PAGE_SIZE))
            continue;
        e->map[n / 8] |= (uint8_t)(1u << n % 8);
        e->pages++;
    }
}

/* Pages that are as they were below need not be here. was: SAVE_CHUNK bytes. */
static int ram_out_same(const struct ram_out *o, uint64_t n, const struct save_chunk *c, const uint8_t *bytes, struct save_entry *e, uint8_t *was)
{
    int r = e->pages ? save_layers_read(o->base, o->ram, n, c, was) : 0;

    for (unsigned k = 0; r == 0 && k < c->pages; k++) {
        uint8_t bit = (uint8_t)(1u << k % 8);

        if (!(e->map[k / 8] & bit) || memcmp(was + k * PAGE_SIZE, bytes + k * PAGE_SIZE, PAGE_SIZE))
            continue;
        e->map[k / 8] &= (uint8_t)~bit;
        e->same[k / 8] |= bit;
        e->pages--;
    }
    return r;
}

/* Gather the chunk's pages in buf; returns how many bytes. */
static size_t ram_out_gather(const struct save_chunk *c, const uint8_t *bytes, const struct save_entry *e, uint8_t *buf)
{
    size_t len = 0;

    for (unsigned n = 0; n < c->pages; n++) {
        if (!(e->map[n / 8] >> n % 8 & 1))
            continue;
        memcpy(buf + len, bytes + n * PAGE_SIZE, PAGE_SIZE);
        len += PAGE_SIZE;
    }
    return len;
}

static int ram_out_plain(struct ram_out *o, const struct save_chunk *c, struct save_entry *e, const uint8_t *buf)
{
    size_t done = 0;
    int r = 0;

    e->sum = XXH64(buf, e->pages * PAGE_SIZE, 0);
    for (unsigned n = 0, run; r == 0 && n < c->pages; n += run) {
        bool set = save_page_in(e->map, n);

        for (run = 1; n + run < c->pages && (e->map[(n + run) / 8] >> (n + run) % 8 & 1) == set; run++)
            ;
        if (!set)
            continue;
        r = block_file_write(o->fd, o->ram_off + c->at + n * PAGE_SIZE, buf + done, run * PAGE_SIZE);
        done += run * PAGE_SIZE;
    }
    return r;
}

static int ram_out_packed(struct ram_out *o, struct save_entry *e, const uint8_t *buf, uint8_t *frame)
{
    size_t len = ZSTD_compress(frame, ZSTD_compressBound(SAVE_CHUNK), buf, e->pages * PAGE_SIZE, RAM_LEVEL);

    if (ZSTD_isError(len))
        return -ENOMEM;
    e->len = (uint32_t)len;
    e->sum = XXH64(frame, len, 0);
    e->off = atomic_fetch_add(&o->end, len);
    return block_file_write(o->fd, e->off, frame, len);
}

static int ram_out_chunk(struct ram_out *o, uint64_t n, uint8_t *copy, uint8_t *buf, uint8_t *frame)
{
    const uint8_t *bytes;
    struct save_chunk c;
    struct save_entry e;
    int r;

    if (!save_chunk_at(o->ram, n, &c))
        return -EINVAL;
    r = ram_out_bytes(o, &c, copy, &bytes);
    if (r < 0)
        return r;
    ram_out_look(o, &c, bytes, &e);
    if (o->flags & SAVE_BASE)
        r = ram_out_same(o, n, &c, bytes, &e, buf);
    if (r == 0 && e.pages) {
        ram_out_gather(&c, bytes, &e, buf);
        r = o->flags & SAVE_PLAIN ? ram_out_plain(o, &c, &e, buf) : ram_out_packed(o, &e, buf, frame);
    }
    save_entry_put(&e, o->flags, o->table + n * save_entry_size(o->flags));
    return r;
}

static void *ram_out_work(void *arg)
{
    struct ram_out *o = arg;
    uint8_t *buf = malloc(SAVE_CHUNK), *frame = malloc(ZSTD_compressBound(SAVE_CHUNK)), *copy = malloc(SAVE_CHUNK);
    int r = buf && frame && copy ? 0 : -ENOMEM;
    uint64_t n;

    while (r == 0 && atomic_load(&o->result) == 0 && (n = atomic_fetch_add(&o->next, 1)) < o->count)
        r = ram_out_chunk(o, n, copy, buf, frame);
    if (r < 0)
        atomic_store(&o->result, r);
    free(buf);
    free(frame);
    free(copy);
    return NULL;
}

/* On this thread and some more. */
static int ram_out_all(struct ram_out *o)
{
    pthread_t thread[SAVE_THREADS_MAX];
    unsigned n = 0, want = save_threads() - 1;

    while (n < want && pthread_create(&thread[n], NULL, ram_out_work, o) == 0)
        n++;
    ram_out_work(o);
    while (n > 0)
        pthread_join(thread[--n], NULL);
    return o->result;
}

static void ram_out_slots(const struct ram *ram, uint8_t *raw)
{
    st_le32(raw, ram->nslots);
    st_le32(raw + 4, 0);
    for (unsigned n = 0; n < ram->nslots; n++) {
        uint8_t *at = raw + 8 + n * SAVE_SLOT;

        st_le64(at, ram->slot[n].gpa);
        st_le64(at + 8, ram->slot[n].size);
        st_le64(at + 16, ram->slot[n].readonly);
    }
}

static uint64_t ram_out_total(const struct ram *ram)
{
    uint64_t n = 0;

    for (unsigned i = 0; i < ram->nslots; i++)
        n += ram->slot[i].size;
    return n;
}

int save_ram_write(struct ram *ram, int fd, struct save_header *h, const struct save_layers *base, bool still, struct err *err)
{
    struct ram_out o = { .ram = ram, .fd = fd, .flags = h->flags, .base = base, .still = still, .ram_off = h->ram_off };
    size_t head = 8 + ram->nslots * SAVE_SLOT;
    uint8_t *table;
    int r;

    o.count = save_chunks(ram);
    o.end = h->ram_off;
    h->table.len = head + o.count * save_entry_size(h->flags);
    table = calloc(1, h->table.len);
    if (!table)
        return err_set(err, ENOMEM, "out of memory");
    ram_out_slots(ram, table);
    o.table = table + head;
    o.pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    r = ram_out_all(&o);
    if (o.pagemap >= 0)
        close(o.pagemap);
    h->table.off = h->flags & SAVE_PLAIN ? h->ram_off + ram_out_total(ram) : o.end;
    h->table.sum = XXH64(table, h->table.len, 0);
    if (r == 0)
        r = block_file_write(fd, h->table.off, table, h->table.len);
    free(table);
    return r < 0 ? err_set(err, -r, "the memory cannot be written: %s", strerror(-r)) : 0;
}
