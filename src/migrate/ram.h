/* Memory in a migration: chunks of pages into frames, and back. */
#ifndef VITRO_MIGRATE_RAM_H
#define VITRO_MIGRATE_RAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "migrate/stream.h"
#include "ram/ram.h"
#include "save/format.h"

struct err;

/* How fast things go, in bytes a second; kept by measuring. */
struct mig_rates {
    double link, pack; /* what goes over the connection; what goes into the packer */
    double ratio;      /* packed size of a page's byte */
    unsigned chunks;   /* how many were sent */
};

struct mig_packer {
    struct mig_rates rate;
    uint8_t *pages, *frame; /* owned: a chunk, and a chunk packed */
    void *zstd;             /* owned: ZSTD_CCtx */
    uint64_t moved;         /* bytes of pages that were not zero */
    int pagemap;            /* /proc/self/pagemap, borrowed, or -1: it tells which pages were never touched */
};

int mig_packer_init(struct mig_packer *p);
void mig_packer_fini(struct mig_packer *p);
/* A frame of so much data, at most SAVE_CHUNK, as it is or packed: its form is put into head + 4. */
int mig_send_data(struct mig_packer *p, struct mig_stream *s, enum mig_type type, uint8_t *head, size_t head_len, const uint8_t *data,
                  size_t len, struct err *err);
/* Bytes of memory that the guest has touched, as far as the host tells; else 0. */
uint64_t mig_ram_used(const struct mig_packer *p, const struct ram *ram);
/* Send pages `want` (a bit each) of chunk n; *sent counts them. first: the other side has nothing but zeroes yet. */
int mig_send_chunk(struct mig_packer *p, struct mig_stream *s, struct ram *ram, uint64_t n, const uint8_t want[32],
                   bool first, struct err *err);

/* What a CHUNK frame says goes into ram; staging is SAVE_CHUNK bytes. Nothing changes unless all of it is right. */
int mig_take_chunk(struct ram *ram, const struct mig_frame *f, uint8_t *staging, struct err *err);

#endif
