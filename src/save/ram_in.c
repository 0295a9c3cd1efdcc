/* Memory from a file (format.h): read and unpacked by a few threads, or mapped so that pages come when they are touched.
 *
 * The table is checked as a whole before memory is touched. A frame must unpack to exactly the pages that its entry lists,
 * into a buffer of that size, so neither time nor memory depend on what it claims.
 *
 * Threads: the caller's and its helpers; nobody else knows the machine.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>
#include <zstd.h>

#include "base/bits.h"
#include "base/err.h"
#include "block/file.h"
#include "save/internal.h"

struct ram_in {
    struct ram *ram;
    int fd;
    const struct save_header *h;
    const uint8_t *entries;
    uint64_t count;
    _Atomic uint64_t next;
    _Atomic int result;
};

static const uint8_t *ram_in_entries(const struct ram *ram, const uint8_t *table)
{
    return table + 8 + ram->nslots * SAVE_SLOT;
}

static int ram_in_check_slots(const struct ram *ram, const uint8_t *table, struct err *err)
{
    for (unsigned n = 0; n < ram->nslots; n++) {
        const uint8_t *at = table + 8 + n * SAVE_SLOT;
        const struct ram_slot *s = &ram->slot[n];

        if (ld_le64(at) != s->gpa || ld_le64(at + 8) != s->size || ld_le64(at + 16) != s->readonly)
            return err_set(err, EINVAL, "its memory is laid out otherwise than this machine's: memory and firmware must "
                                        "be the same");
    }
    return 0;
}

/* Pages listed are pages of the chunk, and as many as it says. */
static bool ram_in_map_ok(const struct save_chunk *c, const struct save_entry *e)
{
    unsigned count = 0;

    for (unsigned n = 0; n < SAVE_CHUNK_PAGES; n += 64) {
        uint64_t set = ld_le64(e->map + n / 8), same = ld_le64(e->same + n / 8);
        uint64_t beyond = c->pages >= n + 64 ? 0 : c->pages <= n ? ~0ULL : ~0ULL << (c->pages - n);

        if ((set & same) || ((set | same) & beyond))
            return false;
        count += (unsigned)__builtin_popcountll(set);
    }
    return count == e->pages;
}

static bool ram_in_entry_ok(const struct save_header *h, const struct save_chunk *c, const struct save_entry *e)
{
    if (!ram_in_map_ok(c, e))
        return false;
    if (h->flags & SAVE_PLAIN)
        return !e->len && !e->off;
    return e->pages ? e->len && e->len <= ZSTD_compressBound(SAVE_CHUNK) && !range_outside(e->off, e->len, h->length)
                    : !e->len;
}

int save_ram_check(const struct ram *ram, const struct save_header *h, const uint8_t *table, struct err *err)
{
    uint64_t count = save_chunks(ram), bytes = 0;
    struct ram *borrowed = (struct ram *)ram;
    int r;

    if (h->table.len < 8 || ld_le32(table) != ram->nslots ||
        h->table.len != 8 + ram->nslots * SAVE_SLOT + count * save_entry_size(h->flags))
        return err_set(err, EINVAL, "it holds another amount of memory than this machine has");
    r = ram_in_check_slots(ram, table, err);
    for (uint64_t n = 0; r == 0 && n < count; n++) {
        struct save_entry e;
        struct save_chunk c;

        save_entry_get(&e, h->flags, ram_in_entries(ram, table) + n * save_entry_size(h->flags));
        if (!save_chunk_at(borrowed, n, &c) || !ram_in_entry_ok(h, &c, &e))
            r = err_set(err, EINVAL, "its table of memory is wrong at chunk %llu", (unsigned long long)n);
        else
            bytes = c.at + c.pages * PAGE_SIZE;
    }
    if (r == 0 && (h->flags & SAVE_PLAIN) && range_outside(h->ram_off, bytes, h->length))
        return err_set(err, EINVAL, "its memory does not lie inside the file");
    return r;
}

static void ram_in_scatter(const struct save_chunk *c, const struct save_entry *e, const uint8_t *buf)
{
    for (unsigned n = 0; n < c->pages; n++) {
        if (!(e->map[n / 8] >> n % 8 & 1))
            continue;
        memcpy(c->slot->hva + c->off + n * PAGE_SIZE, buf, PAGE_SIZE);
        buf += PAGE_SIZE;
    }
}

static int ram_in_packed(struct ram_in *in, const struct save_entry *e, uint8_t *buf, uint8_t *frame)
{
    int r = block_file_read(in->fd, e->off, frame, e->len);

    if (r < 0)
        return r;
    if (XXH64(frame, e->len, 0) != e->sum ||
        ZSTD_decompress(buf, e->pages * PAGE_SIZE, frame, e->len) != e->pages * PAGE_SIZE)
        return -EBADMSG;
    return 0;
}

static int ram_in_plain(struct ram_in *in, const struct save_chunk *c, const struct save_entry *e, uint8_t *buf)
{
    size_t len = 0;
    int r = 0;

    for (unsigned n = 0; r == 0 && n < c->pages; n++) {
        if (!(e->map[n / 8] >> n % 8 & 1))
            continue;
        r = block_file_read(in->fd, in->h->ram_off + c->at + n * PAGE_SIZE, buf + len, PAGE_SIZE);
        len += PAGE_SIZE;
    }
    return r == 0 && XXH64(buf, len, 0) != e->sum ? -EBADMSG : r;
}

static int ram_in_chunk(struct ram_in *in, uint64_t n, uint8_t *buf, uint8_t *frame)
{
    struct save_chunk c;
    struct save_entry e;
    int r;

    save_entry_get(&e, in->h->flags, in->entries + n * save_entry_size(in->h->flags));
    if (!e.pages)
        return 0;
    if (!save_chunk_at(in->ram, n, &c))
        return -EINVAL;
    r = in->h->flags & SAVE_PLAIN ? ram_in_plain(in, &c, &e, buf) : ram_in_packed(in, &e, buf, frame);
    if (r == 0)
        ram_in_scatter(&c, &e, buf);
    return r;
}

static void *ram_in_work(void *arg)
{
    struct ram_in *in = arg;
    uint8_t *buf = malloc(SAVE_CHUNK), *frame = malloc(ZSTD_compressBound(SAVE_CHUNK));
    int r = buf && frame ? 0 : -ENOMEM;
    uint64_t n;

    while (r == 0 && atomic_load(&in->result) == 0 && (n = atomic_fetch_add(&in->next, 1)) < in->count)
        r = ram_in_chunk(in, n, buf, frame);
    if (r < 0)
        atomic_store(&in->result, r);
    free(buf);
    free(frame);
    return NULL;
}

int save_ram_read(struct ram *ram, int fd, const struct save_header *h, const uint8_t *table, struct err *err)
{
    struct ram_in in = { .ram = ram, .fd = fd, .h = h, .entries = ram_in_entries(ram, table) };
    pthread_t thread[SAVE_THREADS_MAX];
    unsigned n = 0, want;

    in.count = save_chunks(ram);
    want = in.count < 8 ? 0 : save_threads() - 1;
    while (n < want && pthread_create(&thread[n], NULL, ram_in_work, &in) == 0)
        n++;
    ram_in_work(&in);
    while (n > 0)
        pthread_join(thread[--n], NULL);
    if (in.result == -EBADMSG)
        return err_set(err, EINVAL, "its memory is damaged (a checksum is wrong)");
    return in.result < 0 ? err_set(err, -in.result, "its memory cannot be read: %s", strerror(-in.result)) : 0;
}

int save_ram_map(struct ram *ram, int fd, const struct save_header *h, struct err *err)
{
    uint64_t off = h->ram_off;
    int r = 0;

    for (unsigned n = 0; r == 0 && n < ram->nslots; n++) {
        r = ram_map_file(ram, n, fd, off);
        off += ram->slot[n].size;
    }
    return r < 0 ? err_set(err, -r, "its memory cannot be mapped: %s", strerror(-r)) : 0;
}

/* ---- files that stand on one another ---- */

/* One chunk of one of them: what of it is needed goes to memory, which has the pages of `low`; what is needed from below is left in need. buf: SAVE_CHUNK
 * bytes. Pages that are zeroes in both are not touched. */
static int ram_lift_layer(struct ram *ram, const struct save_layer *l, uint64_t n, const struct save_chunk *c, const struct save_entry *low,
                          uint8_t *need, uint8_t *buf)
{
    struct ram_in in = { .fd = l->fd, .h = &l->h };
    uint8_t *hva = c->slot->hva + c->off, *from = buf;
    struct save_entry e;
    int r;

    save_layer_entry(l, ram, n, &e);
    r = e.pages ? ram_in_plain(&in, c, &e, buf) : 0;
    for (unsigned k = 0; r == 0 && k < c->pages; k++) {
        bool here = save_page_in(e.map, k), wanted = save_page_in(need, k);

        if (here && wanted)
            memcpy(hva + k * PAGE_SIZE, from, PAGE_SIZE);
        else if (wanted && !save_page_in(e.same, k) && save_page_in(low->map, k))
            memset(hva + k * PAGE_SIZE, 0, PAGE_SIZE);
        from += here ? PAGE_SIZE : 0;
    }
    for (unsigned k = 0; k < sizeof(e.same); k++)
        need[k] &= e.same[k];
    return r;
}

int save_ram_lift(struct ram *ram, const struct save_layers *s, struct err *err)
{
    uint8_t *buf = s->count > 1 ? malloc(SAVE_CHUNK) : NULL, need[SAVE_CHUNK_PAGES / 8];
    int r = s->count > 1 && !buf ? -ENOMEM : 0;
    struct save_entry low;
    struct save_chunk c;

    for (uint64_t n = 0; r == 0 && s->count > 1 && save_chunk_at(ram, n, &c); n++) {
        save_layer_entry(&s->at[s->count - 1], ram, n, &low);
        memset(need, 0xff, sizeof(need));
        for (unsigned k = 0; r == 0 && k + 1 < s->count; k++)
            r = ram_lift_layer(ram, &s->at[k], n, &c, &low, need, buf);
    }
    free(buf);
    if (r == -EBADMSG)
        return err_set(err, EINVAL, "its memory is damaged (a checksum is wrong)");
    return r < 0 ? err_set(err, -r, "its memory cannot be read: %s", strerror(-r)) : 0;
}
