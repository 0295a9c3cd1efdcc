/* The file of a saved machine. Everything is little-endian.
 *
 *   header    SAVE_HEADER bytes: struct save_header as numbers one after another, zeroes, and in the last 8 bytes XXH64
 *             of all before them
 *   overlays  if flagged: what the guest wrote to ephemeral disks (overlays.c)
 *   memory    from a page boundary on. packed: frames of zstd, one a chunk; or plain: the slots one after another as they are, pages of zeroes as
 *             holes, so that it can be mapped
 *   table     slots:u32 0:u32, then a slot each { gpa:u64 size:u64 readonly:u64 }, then an entry of SAVE_ENTRY bytes
 *             each chunk of SAVE_CHUNK bytes of each slot: struct save_entry; if flagged, 32 bytes longer
 *   about     length:u32, that many bytes of JSON (about.c), then described state (state/format.h)
 *
 * A plain file may stand on another one (flagged): pages that are as they were there are in no file twice. It names that one by the sum in its
 * header, and by its name in the same folder. At most SAVE_LAYERS files stand on one another.
 *
 * table, about and overlays have their XXH64 in the header, each chunk its own in the table.
 */
#ifndef VITRO_SAVE_FORMAT_H
#define VITRO_SAVE_FORMAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ram/ram.h"

struct err;

#define SAVE_MAGIC       "VITROSAV"
#define SAVE_VERSION     1
#define SAVE_HEADER      4096U
#define SAVE_CHUNK       (1UL << 20)
#define SAVE_CHUNK_PAGES (SAVE_CHUNK / PAGE_SIZE)
#define SAVE_ENTRY       56U
#define SAVE_SLOT        24U
#define SAVE_LAYERS      16
#define SAVE_BASE_NAME   256
#define SAVE_ABOUT_MAX   (64UL << 20)
#define SAVE_JSON_MAX    (2U << 20)

enum { SAVE_PLAIN = 1, SAVE_OVERLAYS = 2, SAVE_BASE = 4 }; /* header.flags */

struct save_part {
    uint64_t off, len, sum;
};

struct save_header {
    uint32_t version, flags;
    uint64_t length; /* of the file */
    uint64_t ram_off;
    struct save_part table, about;
    struct save_part overlays; /* SAVE_OVERLAYS */
    uint64_t base_sum;         /* SAVE_BASE: the sum in its header, */
    char base[SAVE_BASE_NAME]; /* and what it is called */
    uint64_t sum;              /* of this header; when it is read */
};

struct save_entry {
    uint64_t off; /* packed: where the frame is */
    uint32_t len; /* packed: its length; 0: nothing but zeroes */
    uint32_t pages;
    uint64_t sum; /* of the frame, or of the pages */
    uint8_t map[SAVE_CHUNK_PAGES / 8];  /* the pages that are here: none of them all zeroes */
    uint8_t same[SAVE_CHUNK_PAGES / 8]; /* SAVE_BASE: the pages that are those of the file below */
};

void save_header_put(const struct save_header *h, uint8_t raw[SAVE_HEADER]);
/* The header of a file of len bytes: checked, with all parts inside the file. 0, or -EINVAL with a sentence. */
int save_header_get(struct save_header *h, const uint8_t raw[SAVE_HEADER], uint64_t len, struct err *err);

/* Entries of a file with these flags: save_entry_size() bytes. */
static inline unsigned save_entry_size(uint32_t flags) { return SAVE_ENTRY + (flags & SAVE_BASE ? SAVE_CHUNK_PAGES / 8 : 0); }
void save_entry_put(const struct save_entry *e, uint32_t flags, uint8_t *raw);
void save_entry_get(struct save_entry *e, uint32_t flags, const uint8_t *raw);

static inline bool save_page_in(const uint8_t *map, unsigned n) { return map[n / 8] >> n % 8 & 1; }

static inline uint64_t save_slot_chunks(const struct ram_slot *s) { return (s->size + SAVE_CHUNK - 1) / SAVE_CHUNK; }

/* Chunk n of the machine's memory, counted over all slots. */
struct save_chunk {
    struct ram_slot *slot;
    uint64_t off;     /* in the slot */
    uint64_t at;      /* among the bytes of all slots */
    unsigned pages;   /* SAVE_CHUNK_PAGES, fewer at a slot's end */
};
bool save_chunk_at(struct ram *ram, uint64_t n, struct save_chunk *c);
uint64_t save_chunks(const struct ram *ram);

#endif
