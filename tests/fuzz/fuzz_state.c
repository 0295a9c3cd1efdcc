/* Hostile saved state: whatever the bytes, loading gives a whole object or changes nothing.
 *
 * Each input is taken twice: as a stream of sections as it is, where the checksum refuses nearly
 * everything, and as a version and a body that are wrapped into a section with a correct checksum,
 * so that the parser behind the checksum is reached by every input.
 */
#include "fuzz.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/bits.h"
#include "base/err.h"
#include "state/state.h"

struct cell {
    uint16_t level;
    bool on;
    uint8_t raw[3];
};

struct row {
    struct cell cells[2];
    uint32_t word;
};

struct thing {
    uint8_t a;
    uint16_t b[3];
    uint32_t c;
    uint64_t d[2];
    bool flag, flags[4];
    uint8_t bytes[20];
    struct row rows[2];
    uint8_t late;
    uint32_t hidden; /* not described */
};

static const struct state_field cell_fields[] = {
    STATE_F16(struct cell, level),
    STATE_FBOOL(struct cell, on),
    STATE_FBYTES(struct cell, raw),
    STATE_END,
};

static const struct state_desc cell_desc = {
    .name = "cell", .version = 1, .size = sizeof(struct cell), .fields = cell_fields
};

static const struct state_field row_fields[] = {
    STATE_FSTRUCT(struct row, cells, struct cell, cell_desc),
    { "word", STATE_U32, offsetof(struct row, word), 1, 0, NULL, 2 },
    STATE_END,
};

static const struct state_desc row_desc = {
    .name = "row", .version = 2, .size = sizeof(struct row), .fields = row_fields
};

static const struct state_field thing_fields[] = {
    STATE_F8(struct thing, a),
    STATE_F16(struct thing, b),
    STATE_F32(struct thing, c),
    STATE_F64(struct thing, d),
    STATE_FBOOL(struct thing, flag),
    STATE_FBOOL(struct thing, flags),
    STATE_FBYTES(struct thing, bytes),
    STATE_FSTRUCT(struct thing, rows, struct row, row_desc),
    { "late", STATE_U8, offsetof(struct thing, late), 1, 0, NULL, 3 },
    STATE_END,
};

static int thing_check(void *obj, struct err *err)
{
    struct thing *t = obj;

    return t->c == 0x66 ? err_set(err, 22, "thing: c is impossible") : 0;
}

static const struct state_desc thing_desc = {
    .name = "thing", .version = 3, .size = sizeof(struct thing), .fields = thing_fields, .check = thing_check
};

static void thing_init(struct thing *t)
{
    memset(t, 0x5a, sizeof(*t));
    memset(&t->flag, 0, sizeof(t->flag) + sizeof(t->flags));
    t->rows[0].cells[0].on = t->rows[0].cells[1].on = t->rows[1].cells[0].on = t->rows[1].cells[1].on = true;
}

/* What was loaded is a legal state: it can be saved and loaded again, to the same bytes. */
static void check_loaded(const struct thing *t)
{
    struct state_buf x = { .data = NULL }, y = { .data = NULL };
    struct thing again;

    FUZZ_CHECK(t->hidden == 0x5a5a5a5a);
    FUZZ_CHECK(t->c != 0x66);
    FUZZ_CHECK(*(const uint8_t *)&t->flag <= 1);
    FUZZ_CHECK(state_save(&x, &thing_desc, 0, t) == 0);
    thing_init(&again);
    FUZZ_CHECK(state_load(x.data, x.len, &thing_desc, 0, &again, NULL) == 0);
    FUZZ_CHECK(state_save(&y, &thing_desc, 0, &again) == 0);
    FUZZ_CHECK(x.len == y.len && memcmp(x.data, y.data, x.len) == 0);
    state_buf_fini(&x);
    state_buf_fini(&y);
}

static void check_load(const uint8_t *data, size_t size)
{
    struct thing t, before;
    struct err e = { "" };

    thing_init(&t);
    memcpy(&before, &t, sizeof(t));
    if (state_load(data, size, &thing_desc, 0, &t, &e) == 0) {
        check_loaded(&t);
    } else {
        FUZZ_CHECK(e.text[0] != '\0');
        FUZZ_CHECK(memcmp(&t, &before, sizeof(t)) == 0);
    }
}

/* Walking ends, goes forward, and stays inside. */
static void check_walk(const uint8_t *data, size_t size)
{
    struct state_section s;
    size_t pos = 0, last = 0;
    int r;

    while ((r = state_next(data, size, &pos, &s, NULL)) > 0) {
        FUZZ_CHECK(pos > last && pos <= size);
        FUZZ_CHECK(s.body >= data && s.body_len <= size - (size_t)(s.body - data));
        last = pos;
    }
    FUZZ_CHECK(r < 0 || pos == size);
}

/* A section with the input as version and body, and a correct checksum. Caller frees. */
static uint8_t *wrap(const uint8_t *data, size_t size, size_t *len)
{
    static const uint8_t head[] = { 'V', 'S', 'T', '1', 5, 't', 'h', 'i', 'n', 'g', 0, 0, 0, 0 };
    uint8_t *p = malloc(sizeof(head) + 12 + size + 8), *at = p;

    if (!p)
        return NULL;
    memcpy(at, head, sizeof(head));
    at += sizeof(head);
    st_le32(at, data[0]);
    st_le64(at + 4, size - 1);
    memcpy(at + 12, data + 1, size - 1);
    at += 12 + size - 1;
    st_le64(at, XXH64(p, (size_t)(at - p), 0));
    *len = (size_t)(at - p) + 8;
    return p;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *section;
    size_t len = 0;

    check_walk(data, size);
    check_load(data, size);
    section = size > 0 ? wrap(data, size, &len) : NULL;
    if (section)
        check_load(section, len);
    free(section);
    return 0;
}

/* Seeds 0 and 1: a whole stream, of one and of three sections. Seeds 2 to 4: version and body as wrap() takes
 * them, of a current state and of one that claims to be older. */
size_t fuzz_seed(unsigned n, uint8_t *buf, size_t size)
{
    struct state_buf b = { .data = NULL };
    struct thing t;
    size_t skip, len;

    if (n > 4)
        return 0;
    thing_init(&t);
    state_save(&b, &thing_desc, 0, &t);
    if (n == 1) {
        state_save(&b, &thing_desc, 1, &t);
        state_save(&b, &cell_desc, 0, &t.rows[0].cells[0]);
    }
    skip = n < 2 ? 0 : 14 + 12;
    len = b.len - skip - (n < 2 ? 0 : 8);
    memcpy(buf + (n < 2 ? 0 : 1), b.data + skip, len);
    if (n >= 2)
        buf[0] = (uint8_t)(5 - n);
    state_buf_fini(&b);
    return n < 2 ? len : len + 1;
}
