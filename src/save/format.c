/* The numbers of a saved machine's file (format.h), to and from bytes. No state, any thread. */
#include "save/format.h"

#include <errno.h>
#include <string.h>
#include <xxhash.h>

#include "base/bits.h"
#include "base/err.h"

#define SUM_AT  (SAVE_HEADER - 8)
#define BASE_AT 104

static void part_put(uint8_t *raw, const struct save_part *p)
{
    st_le64(raw, p->off);
    st_le64(raw + 8, p->len);
    st_le64(raw + 16, p->sum);
}

static void part_get(struct save_part *p, const uint8_t *raw)
{
    p->off = ld_le64(raw);
    p->len = ld_le64(raw + 8);
    p->sum = ld_le64(raw + 16);
}

void save_header_put(const struct save_header *h, uint8_t raw[SAVE_HEADER])
{
    memset(raw, 0, SAVE_HEADER);
    memcpy(raw, SAVE_MAGIC, 8);
    st_le32(raw + 8, h->version);
    st_le32(raw + 12, h->flags);
    st_le64(raw + 16, h->length);
    st_le64(raw + 24, h->ram_off);
    part_put(raw + 32, &h->table);
    part_put(raw + 56, &h->about);
    part_put(raw + 80, &h->overlays);
    st_le64(raw + BASE_AT, h->base_sum);
    memcpy(raw + BASE_AT + 8, h->base, sizeof(h->base));
    st_le64(raw + SUM_AT, XXH64(raw, SUM_AT, 0));
}

/* A file beside this one; only plain ones can be read in part. */
static bool header_base_ok(const struct save_header *h)
{
    return h->flags & SAVE_PLAIN && h->base[0] && h->base[0] != '.' && memchr(h->base, 0, sizeof(h->base)) && !strchr(h->base, '/');
}

int save_header_get(struct save_header *h, const uint8_t raw[SAVE_HEADER], uint64_t len, struct err *err)
{
    if (memcmp(raw, SAVE_MAGIC, 8))
        return err_set(err, EINVAL, "it is not a saved machine");
    if (ld_le64(raw + SUM_AT) != XXH64(raw, SUM_AT, 0))
        return err_set(err, EINVAL, "its header is damaged (the checksum is wrong)");
    h->version = ld_le32(raw + 8);
    h->flags = ld_le32(raw + 12);
    h->length = ld_le64(raw + 16);
    h->ram_off = ld_le64(raw + 24);
    part_get(&h->table, raw + 32);
    part_get(&h->about, raw + 56);
    part_get(&h->overlays, raw + 80);
    h->base_sum = ld_le64(raw + BASE_AT);
    memcpy(h->base, raw + BASE_AT + 8, sizeof(h->base));
    h->sum = ld_le64(raw + SUM_AT);
    if (h->version != SAVE_VERSION || h->flags & ~(uint32_t)(SAVE_PLAIN | SAVE_OVERLAYS | SAVE_BASE))
        return err_set(err, EINVAL, "it has version %u (flags %x), this vitro knows version %u: use the vitro that made it",
                       h->version, h->flags, SAVE_VERSION);
    if (h->flags & SAVE_BASE && !header_base_ok(h))
        return err_set(err, EINVAL, "its header names no file that it could stand on");
    if (h->length != len)
        return err_set(err, EINVAL, "it is %llu bytes long instead of %llu: it was cut off or added to",
                       (unsigned long long)len, (unsigned long long)h->length);
    if (range_outside(h->table.off, h->table.len, len) || range_outside(h->about.off, h->about.len, len) ||
        range_outside(h->overlays.off, h->overlays.len, len) ||
        h->ram_off > len || PAGE_OFFSET(h->ram_off) || h->about.len > SAVE_ABOUT_MAX || h->about.len < 4)
        return err_set(err, EINVAL, "its header names places outside the file");
    return 0;
}

void save_entry_put(const struct save_entry *e, uint32_t flags, uint8_t *raw)
{
    st_le64(raw, e->off);
    st_le32(raw + 8, e->len);
    st_le32(raw + 12, e->pages);
    st_le64(raw + 16, e->sum);
    memcpy(raw + 24, e->map, sizeof(e->map));
    if (flags & SAVE_BASE)
        memcpy(raw + SAVE_ENTRY, e->same, sizeof(e->same));
}

void save_entry_get(struct save_entry *e, uint32_t flags, const uint8_t *raw)
{
    memset(e->same, 0, sizeof(e->same));
    e->off = ld_le64(raw);
    e->len = ld_le32(raw + 8);
    e->pages = ld_le32(raw + 12);
    e->sum = ld_le64(raw + 16);
    memcpy(e->map, raw + 24, sizeof(e->map));
    if (flags & SAVE_BASE)
        memcpy(e->same, raw + SAVE_ENTRY, sizeof(e->same));
}

uint64_t save_chunks(const struct ram *ram)
{
    uint64_t n = 0;

    for (unsigned i = 0; i < ram->nslots; i++)
        n += save_slot_chunks(&ram->slot[i]);
    return n;
}

bool save_chunk_at(struct ram *ram, uint64_t n, struct save_chunk *c)
{
    uint64_t at = 0;

    for (unsigned i = 0; i < ram->nslots; i++) {
        struct ram_slot *s = &ram->slot[i];
        uint64_t here = save_slot_chunks(s), left;

        if (n < here) {
            left = s->size - n * SAVE_CHUNK;
            *c = (struct save_chunk){ .slot = s, .off = n * SAVE_CHUNK, .at = at + n * SAVE_CHUNK };
            c->pages = (unsigned)((left < SAVE_CHUNK ? left : SAVE_CHUNK) / PAGE_SIZE);
            return true;
        }
        n -= here;
        at += s->size;
    }
    return false;
}
