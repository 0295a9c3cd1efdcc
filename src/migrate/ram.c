/* Memory in a migration, see ram.h and the frame CHUNK in stream.h.
 *
 * Pages go as they are or packed by zstd, whichever is quicker by what both took lately: a fast connection wants plain pages, a slow
 * one packed ones. Now and then the other form is used, to see whether it still is slower.
 *
 * Thread: whoever migrates. The memory may change while it is read: whoever knows the dirty log sends such pages again.
 */
#include "migrate/ram.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zstd.h>

#include "base/bits.h"
#include "base/clock.h"
#include "base/err.h"
#include "ram/share.h"

#define RAM_LEVEL   1
#define RAM_THERE   (3ULL << 62) /* present, or swapped out (Linux, admin-guide/mm/pagemap.rst) */
#define RAM_LEARN   4   /* chunks by which each form is tried first */
#define RAM_RECHECK 128 /* and again, after so many */
#define RAM_SMALL   (64u << 10) /* less says nothing about speed */

int mig_packer_init(struct mig_packer *p)
{
    *p = (struct mig_packer){ .pagemap = -1, .rate = { .link = 1e9, .pack = 4e8, .ratio = 0.5 } };
    p->pages = malloc(SAVE_CHUNK);
    p->frame = malloc(ZSTD_compressBound(SAVE_CHUNK));
    p->zstd = ZSTD_createCCtx();
    if (p->pages && p->frame && p->zstd)
        return 0;
    mig_packer_fini(p);
    return -ENOMEM;
}

void mig_packer_fini(struct mig_packer *p)
{
    free(p->pages);
    free(p->frame);
    ZSTD_freeCCtx(p->zstd);
    p->pages = p->frame = NULL;
    p->zstd = NULL;
}

static void ram_learn(double *rate, size_t bytes, double seconds)
{
    if (bytes >= RAM_SMALL && seconds > 1e-9)
        *rate += ((double)bytes / seconds - *rate) * 0.2;
}

uint64_t mig_ram_used(const struct mig_packer *p, const struct ram *ram)
{
    uint64_t there[512], used = ram_shared_used(ram);

    for (unsigned n = 0; p->pagemap >= 0 && n < ram->nslots; n++) {
        const struct ram_slot *s = &ram->slot[n];
        uint64_t first = (uintptr_t)s->hva / PAGE_SIZE, pages = s->size / PAGE_SIZE;

        for (uint64_t at = 0; !s->shared && at < pages; at += ARRAY_LEN(there)) {
            size_t count = pages - at < ARRAY_LEN(there) ? (size_t)(pages - at) : ARRAY_LEN(there);

            if (pread(p->pagemap, there, count * 8, (off_t)((first + at) * 8)) != (ssize_t)(count * 8))
                break;
            for (size_t i = 0; i < count; i++)
                used += there[i] & RAM_THERE ? PAGE_SIZE : 0;
        }
    }
    return used;
}

static void ram_skip_holes(const struct save_chunk *c, uint8_t want[32])
{
    uint64_t end = c->off + c->pages * PAGE_SIZE, stop;

    for (uint64_t at = c->off, run; at < end; at = stop) {
        run = ram_shared_run(c->slot, at, end, &stop);
        for (; at < run; at += PAGE_SIZE)
            want[(at - c->off) / PAGE_SIZE / 8] &= (uint8_t)~(1u << (at - c->off) / PAGE_SIZE % 8);
    }
}

/* In the first round what the host never gave to the guest is not looked at, since that would make the host fill it in. */
static void ram_skip_untouched(const struct mig_packer *p, const struct save_chunk *c, uint8_t want[32])
{
    uint64_t there[SAVE_CHUNK_PAGES];
    ssize_t len = (ssize_t)(c->pages * sizeof(there[0]));

    if (c->slot->shared)
        ram_skip_holes(c, want);
    if (p->pagemap < 0 || c->slot->backed || c->slot->shared ||
        pread(p->pagemap, there, (size_t)len, (off_t)((uintptr_t)(c->slot->hva + c->off) / PAGE_SIZE * 8)) != len)
        return;
    for (unsigned n = 0; n < c->pages; n++) {
        if (!(there[n] & RAM_THERE))
            want[n / 8] &= (uint8_t)~(1u << n % 8);
    }
}

/* Copy the pages that are wanted: what is looked at is what is sent. Returns how many bytes. */
static size_t ram_gather(const struct save_chunk *c, const uint8_t want[32], uint8_t *maps, uint8_t *out, bool first)
{
    uint8_t *here = maps, *zero = maps + 32;
    size_t len = 0;

    for (unsigned n = 0; n < c->pages; n++) {
        if (!(want[n / 8] >> n % 8 & 1))
            continue;
        memcpy(out + len, c->slot->hva + c->off + n * PAGE_SIZE, PAGE_SIZE);
        if (!mem_is_zero(out + len, PAGE_SIZE)) {
            here[n / 8] |= (uint8_t)(1u << n % 8);
            len += PAGE_SIZE;
        } else if (!first) {
            zero[n / 8] |= (uint8_t)(1u << n % 8);
        }
    }
    return len;
}

static bool ram_packs(struct mig_rates *r, size_t len)
{
    double plain = (double)len / r->link, packed = (double)len / r->pack + (double)len * r->ratio / r->link;
    unsigned n = len >= RAM_SMALL ? r->chunks++ : RAM_LEARN * 2;

    if (n < RAM_LEARN * 2)
        return n >= RAM_LEARN;
    return n % RAM_RECHECK == 0 ? plain < packed : packed < plain;
}

/* Returns the packed length, or 0 if plain is better. */
static size_t ram_pack(struct mig_packer *p, const uint8_t *data, size_t len)
{
    double start = clock_host_seconds(CLOCK_MONOTONIC);
    size_t n;

    if (!len || !ram_packs(&p->rate, len))
        return 0;
    n = ZSTD_compressCCtx(p->zstd, p->frame, ZSTD_compressBound(SAVE_CHUNK), data, len, RAM_LEVEL);
    if (ZSTD_isError(n))
        return 0;
    ram_learn(&p->rate.pack, len, clock_host_seconds(CLOCK_MONOTONIC) - start);
    if (len >= RAM_SMALL)
        p->rate.ratio += ((double)n / (double)len - p->rate.ratio) * 0.2;
    return n < len ? n : 0;
}

int mig_send_data(struct mig_packer *p, struct mig_stream *s, enum mig_type type, uint8_t *head, size_t head_len, const uint8_t *data,
                  size_t len, struct err *err)
{
    size_t packed = ram_pack(p, data, len);
    double start = clock_host_seconds(CLOCK_MONOTONIC);
    int r;

    st_le32(head + 4, packed ? MIG_ZSTD : MIG_PLAIN);
    r = mig_send(s, type, head, head_len, packed ? p->frame : data, packed ? packed : len, err);
    ram_learn(&p->rate.link, packed ? packed : len, clock_host_seconds(CLOCK_MONOTONIC) - start);
    return r;
}

int mig_send_chunk(struct mig_packer *p, struct mig_stream *s, struct ram *ram, uint64_t n, const uint8_t want[32],
                   bool first, struct err *err)
{
    uint8_t head[MIG_PAGES] = { 0 }, look[32];
    struct save_chunk c;
    size_t len;

    if (!save_chunk_at(ram, n, &c))
        return err_set(err, EINVAL, "there is no chunk %llu", (unsigned long long)n);
    memcpy(look, want, sizeof(look));
    if (first)
        ram_skip_untouched(p, &c, look);
    len = ram_gather(&c, look, head + 8, p->pages, first);
    if (first && !len)
        return 0;
    p->moved += len;
    st_le32(head, (uint32_t)n);
    return mig_send_data(p, s, MIG_CHUNK, head, sizeof(head), p->pages, len, err);
}

/* ---- receiving ---- */

/* Both maps are of pages that there are, and name none twice. Returns how many pages come, or -1. */
static int ram_count(const struct save_chunk *c, const uint8_t here[32], const uint8_t zero[32])
{
    int count = 0;

    for (unsigned n = 0; n < SAVE_CHUNK_PAGES; n++) {
        bool h = here[n / 8] >> n % 8 & 1, z = zero[n / 8] >> n % 8 & 1;

        if ((h && z) || ((h || z) && n >= c->pages))
            return -1;
        count += h;
    }
    return count;
}

static void ram_scatter(const struct save_chunk *c, const uint8_t here[32], const uint8_t zero[32], const uint8_t *pages)
{
    for (unsigned n = 0; n < c->pages; n++) {
        uint8_t *to = c->slot->hva + c->off + n * PAGE_SIZE;

        if (here[n / 8] >> n % 8 & 1) {
            memcpy(to, pages, PAGE_SIZE);
            pages += PAGE_SIZE;
        } else if ((zero[n / 8] >> n % 8 & 1) && !mem_is_zero(to, PAGE_SIZE)) {
            memset(to, 0, PAGE_SIZE);
        }
    }
}

int mig_take_chunk(struct ram *ram, const struct mig_frame *f, uint8_t *staging, struct err *err)
{
    const uint8_t *here = f->data + 8, *zero = f->data + 40, *pages = f->data + MIG_PAGES;
    struct save_chunk c;
    uint32_t form;
    size_t len;
    int count;

    if (f->len < MIG_PAGES || !save_chunk_at(ram, ld_le32(f->data), &c))
        return err_set(err, EBADMSG, "it sends memory that the machine has not");
    count = ram_count(&c, here, zero);
    form = ld_le32(f->data + 4);
    len = (size_t)(count < 0 ? 0 : count) * PAGE_SIZE;
    if (count < 0 || form > MIG_ZSTD || (form == MIG_PLAIN && f->len - MIG_PAGES != len))
        return err_set(err, EBADMSG, "it sends other pages than it says");
    if (form == MIG_ZSTD) {
        if (!len || ZSTD_decompress(staging, len, pages, f->len - MIG_PAGES) != len)
            return err_set(err, EBADMSG, "it sends pages that cannot be unpacked");
        pages = staging;
    }
    ram_scatter(&c, here, zero, pages);
    return 0;
}
