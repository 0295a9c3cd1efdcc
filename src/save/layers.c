/* Files of saved machines that stand on one another (format.h): opening them as a chain, and finding pages in it.
 *
 * All files are hostile. A file names the one below it by the sum in that one's header, over which hang the sums of all that is in it, so a file that
 * was put in its place is refused. Thread: the caller's; a chain that is complete may be read by several at a time.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/bits.h"
#include "base/err.h"
#include "block/file.h"
#include "save/internal.h"

int save_part_read(int fd, const struct save_part *p, uint8_t **out, const char *what, struct err *err)
{
    int r;

    *out = malloc(p->len ? p->len : 1);
    if (!*out)
        return err_set(err, ENOMEM, "out of memory for its %s", what);
    r = block_file_read(fd, p->off, *out, p->len);
    if (r < 0)
        return err_set(err, -r, "its %s cannot be read: %s", what, strerror(-r));
    if (XXH64(*out, p->len, 0) != p->sum)
        return err_set(err, EINVAL, "its %s is damaged (the checksum is wrong)", what);
    return 0;
}

static int layer_read_header(struct save_layer *l, struct err *err)
{
    uint8_t raw[SAVE_HEADER];
    struct stat st;
    int r;

    if (fstat(l->fd, &st) < 0)
        return err_set(err, errno, "it cannot be looked at: %s", strerror(errno));
    if (!S_ISREG(st.st_mode))
        return err_set(err, EINVAL, "it is not a regular file");
    if (st.st_size < SAVE_HEADER)
        return err_set(err, EINVAL, "it is too short to be a saved machine");
    r = block_file_read(l->fd, 0, raw, sizeof(raw));
    if (r < 0)
        return err_set(err, -r, "it cannot be read: %s", strerror(-r));
    return save_header_get(&l->h, raw, (uint64_t)st.st_size, err);
}

int save_layers_add(struct save_layers *s, int fd, struct err *err)
{
    struct save_layer *l = &s->at[s->count], *above = s->count ? l - 1 : NULL;
    int r;

    if (s->count == SAVE_LAYERS) {
        close(fd);
        return err_set(err, ELOOP, "more than %d files stand on one another", SAVE_LAYERS);
    }
    *l = (struct save_layer){ .fd = fd };
    s->count++;
    r = layer_read_header(l, err);
    if (r == 0 && above && (!(above->h.flags & SAVE_BASE) || l->h.sum != above->h.base_sum || !(l->h.flags & SAVE_PLAIN)))
        r = err_set(err, ESTALE, "it is not the file that the one above it was made over");
    return r == 0 ? save_part_read(fd, &l->h.table, &l->table, "table of memory", err) : r;
}

bool save_layers_whole(const struct save_layers *s) { return s->count && !(s->at[s->count - 1].h.flags & SAVE_BASE); }

void save_layers_fini(struct save_layers *s)
{
    while (s->count > 0) {
        struct save_layer *l = &s->at[--s->count];

        close(l->fd);
        free(l->table);
    }
}

int save_layers_check(const struct save_layers *s, const struct ram *ram, struct err *err)
{
    int r = 0;

    for (unsigned n = 0; r == 0 && n < s->count; n++)
        r = save_ram_check(ram, &s->at[n].h, s->at[n].table, err);
    return r;
}

void save_layer_entry(const struct save_layer *l, const struct ram *ram, uint64_t n, struct save_entry *e)
{
    save_entry_get(e, l->h.flags, l->table + 8 + ram->nslots * SAVE_SLOT + n * save_entry_size(l->h.flags));
}

/* Pages of `take`, in runs, each to its place in buf. */
static int layer_read(const struct save_layer *l, const struct save_chunk *c, const uint8_t *take, uint8_t *buf)
{
    int r = 0;

    for (unsigned n = 0, run; r == 0 && n < c->pages; n += run) {
        bool set = save_page_in(take, n);

        for (run = 1; n + run < c->pages && save_page_in(take, n + run) == set; run++)
            ;
        if (set)
            r = block_file_read(l->fd, l->h.ram_off + c->at + n * PAGE_SIZE, buf + n * PAGE_SIZE, run * PAGE_SIZE);
    }
    return r;
}

int save_layers_read(const struct save_layers *s, const struct ram *ram, uint64_t n, const struct save_chunk *c, uint8_t *buf)
{
    uint8_t need[SAVE_CHUNK_PAGES / 8], take[SAVE_CHUNK_PAGES / 8];
    int r = 0;

    memset(need, 0xff, sizeof(need));
    memset(buf, 0, SAVE_CHUNK);
    for (unsigned k = 0; r == 0 && k < s->count; k++) {
        struct save_entry e;

        save_layer_entry(&s->at[k], ram, n, &e);
        for (unsigned i = 0; i < sizeof(need); i++) {
            take[i] = need[i] & e.map[i];
            need[i] &= e.same[i];
        }
        r = layer_read(&s->at[k], c, take, buf);
    }
    return r;
}
