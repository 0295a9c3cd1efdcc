/* An image file in memory that can record what is written and fail on purpose. For tests of image formats. */
#ifndef VITRO_TESTS_UNIT_MEMFILE_H
#define VITRO_TESTS_UNIT_MEMFILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "block/image_file.h"

/* Something that changed the file, or a mark that the test put between. */
enum memevent_kind { MEM_WRITE, MEM_PUNCH, MEM_TRUNCATE, MEM_FLUSH, MEM_MARK };
struct memevent {
    enum memevent_kind kind;
    uint64_t off, len; /* MEM_MARK: the test's own numbers */
    uint8_t *data;     /* MEM_WRITE: len bytes */
    bool lost;         /* a flush failed after it: it is in the host's cache, and never gets to the disk */
};

enum memfail { MEMFAIL_NONE, MEMFAIL_EIO, MEMFAIL_ENOSPC, MEMFAIL_SHORT };

struct memfile {
    struct imgfile base;
    uint8_t *data;
    uint64_t len, cap, limit; /* limit: larger files are -EFBIG; 0: none */
    bool record;
    struct memevent *log;
    size_t log_n, log_max;
    enum memfail fail;
    uint64_t calls, fail_at; /* the fail_at-th call (from 1) fails, with for_ever also all later ones */
    bool for_ever;
    uint64_t failed; /* how many did */
    uint64_t reads;  /* bytes */
    uint64_t straight; /* pieces that write_from wrote */
};

void memfile_init(struct memfile *m);
void memfile_fini(struct memfile *m);
/* A copy of the bytes; neither the log nor the failures. */
void memfile_copy(struct memfile *to, const struct memfile *from);
void memfile_set(struct memfile *m, const uint8_t *data, uint64_t len);
void memfile_mark(struct memfile *m, uint64_t a, uint64_t b);
/* Do to m what the event did. */
void memfile_apply(struct memfile *m, const struct memevent *e);

#endif
