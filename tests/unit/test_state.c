/* Described state: round trips, versions, and that no damaged byte gets in. */
#include "test.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/bits.h"
#include "base/err.h"
#include "base/rand.h"
#include "state/state.h"

struct lane {
    uint16_t count;
    void *pointer; /* not described */
    bool armed;
    uint32_t pair[2];
};

struct gadget {
    uint8_t lcr;
    uint64_t host_only; /* not described */
    uint16_t divisor;
    uint32_t regs[5];
    uint64_t stamp;
    bool irq, mask[3];
    uint8_t fifo[16];
    struct lane lanes[3];
    struct lane spare;
    uint32_t derived; /* not described: check() makes it from regs[0] */
};

static const struct state_field lane_fields[] = {
    STATE_F16(struct lane, count),
    STATE_FBOOL(struct lane, armed),
    STATE_F32(struct lane, pair),
    STATE_END,
};

static const struct state_desc lane_desc = {
    .name = "lane", .version = 1, .size = sizeof(struct lane), .fields = lane_fields
};

static const struct state_field gadget_fields[] = {
    STATE_F8(struct gadget, lcr),
    STATE_F16(struct gadget, divisor),
    STATE_F32(struct gadget, regs),
    STATE_F64(struct gadget, stamp),
    STATE_FBOOL(struct gadget, irq),
    STATE_FBOOL(struct gadget, mask),
    STATE_FBYTES(struct gadget, fifo),
    STATE_FSTRUCT(struct gadget, lanes, struct lane, lane_desc),
    STATE_FSTRUCT(struct gadget, spare, struct lane, lane_desc),
    STATE_END,
};

static int gadget_check(void *obj, struct err *err)
{
    struct gadget *g = obj;

    if (g->divisor == 0xdead)
        return err_set(err, EINVAL, "gadget: the divisor is impossible");
    g->derived = g->regs[0] * 2;
    return 0;
}

static const struct state_desc gadget_desc = { .name = "gadget",
                                               .version = 1,
                                               .size = sizeof(struct gadget),
                                               .fields = gadget_fields,
                                               .check = gadget_check };

/* Random described fields in an object whose padding and other fields hold `junk`. */
static void gadget_make(struct gadget *g, uint64_t seed, uint8_t junk)
{
    struct rand_source r;
    unsigned i;

    rand_init_seeded(&r, seed);
    memset(g, junk, sizeof(*g));
    rand_bytes(&r, &g->lcr, 1);
    g->divisor = (uint16_t)rand_below(&r, 1000);
    rand_bytes(&r, g->regs, sizeof(g->regs));
    rand_bytes(&r, &g->stamp, sizeof(g->stamp));
    rand_bytes(&r, g->fifo, sizeof(g->fifo));
    g->irq = rand_below(&r, 2);
    for (i = 0; i < 3; i++)
        g->mask[i] = rand_below(&r, 2);
    for (i = 0; i < 4; i++) {
        struct lane *l = i < 3 ? &g->lanes[i] : &g->spare;

        l->count = (uint16_t)rand_below(&r, 65536);
        l->armed = rand_below(&r, 2);
        rand_bytes(&r, l->pair, sizeof(l->pair));
    }
}

static struct state_buf saved(const struct state_desc *d, uint32_t instance, const void *obj)
{
    struct state_buf b = { .data = NULL };

    assert_int_equal(state_save(&b, d, instance, obj), 0);
    assert_false(b.failed);
    return b;
}

static int load_gadget(const struct state_buf *b, struct gadget *g, struct err *err)
{
    return state_load(b->data, b->len, &gadget_desc, 0, g, err);
}

static void descriptions_are_sound(void **state)
{
    struct err e = { "" };

    assert_int_equal(state_desc_check(&gadget_desc, &e), 0);
    assert_int_equal(state_desc_check(&lane_desc, &e), 0);
}

static void round_trip_gives_the_same_bytes(void **state)
{
    struct gadget a, b;
    struct state_buf x, y;
    uint64_t seed;
    struct err e;

    for (seed = 0; seed < 50; seed++) {
        gadget_make(&a, seed, 0x00);
        memset(&b, 0xa5, sizeof(b));
        x = saved(&gadget_desc, 0, &a);
        assert_int_equal(load_gadget(&x, &b, &e), 0);
        assert_int_equal(a.lcr, b.lcr);
        assert_int_equal(a.divisor, b.divisor);
        assert_memory_equal(a.regs, b.regs, sizeof(a.regs));
        assert_memory_equal(a.fifo, b.fifo, sizeof(a.fifo));
        assert_memory_equal(a.mask, b.mask, sizeof(a.mask));
        assert_true(a.stamp == b.stamp);
        assert_int_equal(a.lanes[2].count, b.lanes[2].count);
        assert_memory_equal(a.spare.pair, b.spare.pair, sizeof(a.spare.pair));
        assert_int_equal(b.derived, a.regs[0] * 2);
        assert_true(b.host_only == 0xa5a5a5a5a5a5a5a5); /* not described: kept */
        assert_true((uintptr_t)b.lanes[1].pointer == 0xa5a5a5a5a5a5a5a5);
        y = saved(&gadget_desc, 0, &b);
        assert_int_equal(x.len, y.len);
        assert_memory_equal(x.data, y.data, x.len);
        state_buf_fini(&x);
        state_buf_fini(&y);
    }
}

static void padding_does_not_matter(void **state)
{
    struct gadget a, b;
    struct state_buf x, y;

    gadget_make(&a, 1, 0x00);
    gadget_make(&b, 1, 0xff);
    x = saved(&gadget_desc, 0, &a);
    y = saved(&gadget_desc, 0, &b);
    assert_int_equal(x.len, y.len);
    assert_memory_equal(x.data, y.data, x.len);
    state_buf_fini(&x);
    state_buf_fini(&y);
}

/* The form is a promise to old files: these bytes may never change. */
static void bytes_are_the_documented_ones(void **state)
{
    static const uint8_t want[] = {
        'V', 'S', 'T',  '1',  4, 'l', 'a', 'n', 'e', 7,   0,   0,   0,    1,    0,    0,    0, 45,
        0,   0,   0,    0,    0, 0,   0,   3,   0,   5,   'c', 'o', 'u',  'n',  't',  1,    1, 0,
        0,   0,   0x34, 0x12, 5, 'a', 'r', 'm', 'e', 'd', 4,   1,   0,    0,    0,    1,    4, 'p',
        'a', 'i', 'r',  2,    2, 0,   0,   0,   1,   0,   0,   0,   0xfe, 0xff, 0xff, 0xff,
    };
    struct lane l = { .count = 0x1234, .armed = true, .pair = { 1, 0xfffffffe } };
    struct state_buf b = saved(&lane_desc, 7, &l);

    assert_int_equal(b.len, sizeof(want) + 8);
    assert_memory_equal(b.data, want, sizeof(want));
    assert_true(ld_le64(b.data + sizeof(want)) == XXH64(b.data, sizeof(want), 0));
    state_buf_fini(&b);
}

static void sections_are_found_by_name_and_instance(void **state)
{
    struct gadget a[3], out;
    struct lane l = { .count = 99 }, lout = { .count = 0 };
    struct state_buf b = { .data = NULL };
    struct err e;
    uint32_t i;

    for (i = 0; i < 3; i++) {
        gadget_make(&a[i], i, 0);
        assert_int_equal(state_save(&b, &gadget_desc, i * 100, &a[i]), 0);
    }
    assert_int_equal(state_save(&b, &lane_desc, 100, &l), 0);
    for (i = 0; i < 3; i++) {
        memset(&out, 0, sizeof(out));
        assert_int_equal(state_load(b.data, b.len, &gadget_desc, i * 100, &out, &e), 0);
        assert_memory_equal(out.regs, a[i].regs, sizeof(out.regs));
    }
    assert_int_equal(state_load(b.data, b.len, &lane_desc, 100, &lout, &e), 0);
    assert_int_equal(lout.count, 99);
    assert_int_equal(state_load(b.data, b.len, &lane_desc, 0, &lout, &e), -ENOENT);
    assert_int_equal(state_load(b.data, b.len, &gadget_desc, 1, &out, NULL), -ENOENT);
    assert_int_equal(state_load(b.data, 0, &gadget_desc, 0, &out, NULL), -ENOENT);
    /* The same section twice is a forgery, not a choice. */
    assert_int_equal(state_save(&b, &lane_desc, 100, &l), 0);
    assert_int_equal(state_load(b.data, b.len, &lane_desc, 100, &lout, &e), -EINVAL);
    state_buf_fini(&b);
}

static void sections_can_be_walked(void **state)
{
    struct lane l = { .count = 1 };
    struct state_section s;
    struct state_buf b = { .data = NULL };
    struct err e;
    size_t pos = 0;
    uint32_t i;

    for (i = 0; i < 5; i++)
        state_save(&b, &lane_desc, i, &l);
    for (i = 0; i < 5; i++) {
        assert_int_equal(state_next(b.data, b.len, &pos, &s, &e), 1);
        assert_string_equal(s.name, "lane");
        assert_int_equal(s.instance, i);
        assert_int_equal(s.version, 1);
        assert_int_equal(s.body_len, 45);
    }
    assert_int_equal(state_next(b.data, b.len, &pos, &s, &e), 0);
    assert_int_equal(pos, b.len);
    state_buf_fini(&b);
}

/* Expect a refusal that leaves the object as it was. */
static void refused(const uint8_t *data, size_t len, const struct state_desc *d)
{
    static struct gadget obj, before;
    struct err e = { "" };
    int r;

    assert_true(d->size <= sizeof(obj));
    gadget_make(&obj, 999, 0x3c);
    memcpy(&before, &obj, sizeof(obj));
    r = state_load(data, len, d, 0, &obj, &e);
    assert_true(r == -EINVAL || (r == -ENOENT && len == 0));
    assert_true(e.text[0] != '\0');
    assert_memory_equal(&obj, &before, sizeof(obj));
}

static void every_damaged_byte_is_refused(void **state)
{
    struct state_buf b;
    struct gadget g;
    size_t i;
    unsigned v;

    gadget_make(&g, 5, 0);
    b = saved(&gadget_desc, 0, &g);
    for (i = 0; i < b.len; i++) {
        for (v = 1; v < 256; v++) { /* every other value of every byte */
            b.data[i] ^= (uint8_t)v;
            refused(b.data, b.len, &gadget_desc);
            b.data[i] ^= (uint8_t)v;
        }
    }
    assert_int_equal(load_gadget(&b, &g, NULL), 0); /* undamaged it still loads */
    state_buf_fini(&b);
}

static void every_truncation_is_refused(void **state)
{
    struct state_buf b;
    struct gadget g;
    uint8_t *copy;
    size_t n;

    gadget_make(&g, 6, 0);
    b = saved(&gadget_desc, 0, &g);
    for (n = 0; n < b.len; n++) {
        copy = malloc(n ? n : 1); /* exactly n bytes, so that a sanitizer sees each byte too far */
        assert_non_null(copy);
        memcpy(copy, b.data, n);
        refused(copy, n, &gadget_desc);
        free(copy);
    }
    state_buf_fini(&b);
}

static void damage_in_another_section_is_refused(void **state)
{
    struct state_buf b;
    struct gadget g;
    struct lane l = { .count = 1 };

    gadget_make(&g, 7, 0);
    b = saved(&gadget_desc, 0, &g);
    assert_int_equal(state_save(&b, &lane_desc, 0, &l), 0);
    assert_int_equal(load_gadget(&b, &g, NULL), 0);
    b.data[b.len - 12] ^= 1;
    refused(b.data, b.len, &gadget_desc);
    b.data[b.len - 12] ^= 1;
    b.data[b.len - 1] ^= 1;
    refused(b.data, b.len, &gadget_desc);
    state_buf_fini(&b);
}

/* The offset of the n-th occurrence of a byte string in the buffer. */
static size_t find(const struct state_buf *b, const char *what, unsigned n)
{
    size_t len = strlen(what), i;

    for (i = 0; i + len <= b->len; i++) {
        if (memcmp(b->data + i, what, len) == 0 && n-- == 0)
            return i;
    }
    fail_msg("%s is not in the buffer", what);
    return 0;
}

/* Make the checksum fit again after a forgery: what is refused then is refused for its meaning. */
static void reseal(struct state_buf *b) { st_le64(b->data + b->len - 8, XXH64(b->data, b->len - 8, 0)); }

/* Forgeries: poke bytes, behind a field's name, with a correct checksum. */
static void forged_fields_are_refused(void **state)
{
    static const struct {
        const char *name;
        unsigned nth;
        size_t behind; /* bytes behind the name's end; 0 is the kind, 1 to 4 the count */
        uint8_t value;
    } pokes[] = {
        { "irq", 0, 5, 2 },    { "mask", 0, 6, 0xff }, { "mask", 0, 1, 4 },  { "regs", 0, 0, 0 },
        { "regs", 0, 0, 3 },   { "regs", 0, 0, 99 },   { "regs", 0, 1, 6 },  { "regs", 0, 4, 0xff },
        { "fifo", 0, 0, 6 },   { "fifo", 0, 4, 0x80 }, { "lanes", 0, 1, 2 }, { "lanes", 0, 2, 1 },
        { "lanes", 0, 5, 2 },  { "lanes", 0, 5, 0 },   { "lanes", 0, 9, 2 }, { "lanes", 0, 9, 4 },
        { "lanes", 0, 10, 1 }, { "armed", 3, 5, 7 },   { "pair", 2, 1, 3 },  { "spare", 0, 0, 5 },
        { "lcr", 0, 1, 0 },    { "stamp", 0, 1, 2 },
    };
    struct state_buf b;
    struct gadget g;
    size_t i;

    gadget_make(&g, 8, 0);
    for (i = 0; i < ARRAY_LEN(pokes); i++) {
        b = saved(&gadget_desc, 0, &g);
        reseal(&b);
        assert_int_equal(load_gadget(&b, &g, NULL), 0);
        b.data[find(&b, pokes[i].name, pokes[i].nth) + strlen(pokes[i].name) + pokes[i].behind] =
            pokes[i].value;
        reseal(&b);
        refused(b.data, b.len, &gadget_desc);
        state_buf_fini(&b);
    }
}

static void forged_names_are_refused(void **state)
{
    struct state_buf b;
    struct gadget g;

    gadget_make(&g, 9, 0);
    b = saved(&gadget_desc, 0, &g);
    memcpy(b.data + find(&b, "fifo", 0), "fofo", 4); /* unknown, and fifo is missing */
    reseal(&b);
    refused(b.data, b.len, &gadget_desc);
    memcpy(b.data + find(&b, "fofo", 0), "mask", 4); /* twice */
    reseal(&b);
    refused(b.data, b.len, &gadget_desc);
    memcpy(b.data + find(&b, "mask", 1), "\x1b[2J", 4); /* not a name at all */
    reseal(&b);
    refused(b.data, b.len, &gadget_desc);
    state_buf_fini(&b);
}

/* Every byte of the body set to edge values under a correct checksum: loads or is refused, but whole. */
static void forged_bytes_never_half_load(void **state)
{
    static const uint8_t edge[] = { 0x00, 0x01, 0x7f, 0x80, 0xff };
    struct gadget g, obj, before;
    struct state_buf b;
    size_t i, k, loaded = 0;

    gadget_make(&g, 10, 0);
    b = saved(&gadget_desc, 0, &g);
    for (i = 0; i < b.len - 8; i++) {
        uint8_t old = b.data[i];

        for (k = 0; k < ARRAY_LEN(edge); k++) {
            b.data[i] = edge[k];
            reseal(&b);
            gadget_make(&obj, 999, 0x3c);
            memcpy(&before, &obj, sizeof(obj));
            if (load_gadget(&b, &obj, NULL) == 0) {
                loaded++;
                assert_int_equal(obj.derived, obj.regs[0] * 2);
                assert_true(*(uint8_t *)&obj.irq <= 1);
            } else {
                assert_memory_equal(&obj, &before, sizeof(obj));
            }
        }
        b.data[i] = old;
    }
    assert_true(loaded > 100); /* plain values are free */
    state_buf_fini(&b);
}

/* A section with a body made by hand, for length and count lies. */
static void hand_made_sections(void **state)
{
    static const struct {
        uint64_t claim; /* the length field */
        size_t body;    /* bytes that are there */
        uint8_t fields;
    } bad[] = { { 0, 0, 0 },          { 1, 1, 0 },          { 2, 2, 0 }, { 2, 2, 1 },  { UINT64_MAX, 2, 0 },
                { 1ULL << 32, 2, 0 }, { 1ULL << 63, 2, 0 }, { 3, 2, 0 }, { 10, 2, 0 }, { 11, 2, 0 } };
    static const uint8_t head[] = { 'V', 'S', 'T', '1', 4, 'l', 'a', 'n', 'e', 0, 0, 0, 0, 1, 0, 0, 0 };
    uint8_t raw[64];
    size_t i, n;

    for (i = 0; i < ARRAY_LEN(bad); i++) {
        memset(raw, 0, sizeof(raw));
        memcpy(raw, head, sizeof(head));
        st_le64(raw + sizeof(head), bad[i].claim);
        raw[sizeof(head) + 8] = bad[i].fields;
        n = sizeof(head) + 8 + bad[i].body;
        st_le64(raw + n, XXH64(raw, n, 0));
        refused(raw, n + 8, &lane_desc);
    }
}

static void trailing_bytes_are_refused(void **state)
{
    struct state_buf b;
    struct gadget g;
    uint8_t *longer;

    gadget_make(&g, 12, 0);
    b = saved(&gadget_desc, 0, &g);
    longer = calloc(1, b.len + 4);
    assert_non_null(longer);
    memcpy(longer, b.data, b.len);
    refused(longer, b.len + 1, &gadget_desc); /* after the checksum */
    /* Inside the section, with a length and checksum that include them. */
    st_le64(longer + find(&b, "gadget", 0) + 6 + 8, b.len - 8 - (find(&b, "gadget", 0) + 6 + 16) + 4);
    memset(longer + b.len - 8, 0, 4);
    st_le64(longer + b.len - 4, XXH64(longer, b.len - 4, 0));
    refused(longer, b.len + 4, &gadget_desc);
    free(longer);
    state_buf_fini(&b);
}

static void check_can_refuse(void **state)
{
    struct state_buf b;
    struct gadget g;
    struct err e;

    gadget_make(&g, 13, 0);
    g.divisor = 0xdead;
    b = saved(&gadget_desc, 0, &g);
    refused(b.data, b.len, &gadget_desc);
    load_gadget(&b, &g, &e);
    assert_string_equal(e.text, "gadget: the divisor is impossible");
    state_buf_fini(&b);
}

/* One device through three versions: `b` came with 2, `c` with 3. */
struct aged {
    uint8_t a, b, c;
};

static const struct state_field aged_fields[] = {
    { "a", STATE_U8, offsetof(struct aged, a), 1, 0, NULL, 0 },
    { "b", STATE_U8, offsetof(struct aged, b), 1, 0, NULL, 2 },
    { "c", STATE_U8, offsetof(struct aged, c), 1, 0, NULL, 3 },
    STATE_END,
};

static const struct state_field aged_fields_1[] = {
    { "a", STATE_U8, offsetof(struct aged, a), 1, 0, NULL, 0 },
    STATE_END,
};

static const struct state_field aged_fields_2[] = {
    { "a", STATE_U8, offsetof(struct aged, a), 1, 0, NULL, 1 },
    { "b", STATE_U8, offsetof(struct aged, b), 1, 0, NULL, 2 },
    STATE_END,
};

static const struct state_desc aged_desc[] = {
    { .name = "aged", .version = 1, .size = sizeof(struct aged), .fields = aged_fields_1 },
    { .name = "aged", .version = 2, .size = sizeof(struct aged), .fields = aged_fields_2 },
    { .name = "aged", .version = 3, .size = sizeof(struct aged), .fields = aged_fields },
};

/* Versions: an old file loads into a new program, new fields keep their reset value; not the reverse. */
static void old_versions_load_new_ones_do_not(void **state)
{
    const struct aged full = { 1, 2, 3 };
    unsigned file, program;

    for (file = 0; file < 3; file++) {
        struct state_buf b = saved(&aged_desc[file], 0, &full);

        for (program = 0; program < 3; program++) {
            struct aged got = { 70, 71, 72 };
            int r = state_load(b.data, b.len, &aged_desc[program], 0, &got, NULL);

            assert_int_equal(r, file <= program ? 0 : -EINVAL);
            assert_int_equal(got.a, r == 0 ? 1 : 70);
            assert_int_equal(got.b, r == 0 && file >= 1 ? 2 : 71);
            assert_int_equal(got.c, r == 0 && file >= 2 ? 3 : 72);
        }
        state_buf_fini(&b);
    }
}

/* Version lies: a field that its version must have is missing; a field that it cannot have is there. */
static void version_lies_are_refused(void **state)
{
    const struct aged full = { 1, 2, 3 };
    struct state_buf b = saved(&aged_desc[0], 0, &full);

    st_le32(b.data + 4 + 5 + 4, 2);
    reseal(&b);
    refused(b.data, b.len, &aged_desc[2]); /* "b" is missing */
    st_le32(b.data + 4 + 5 + 4, 0);
    reseal(&b);
    refused(b.data, b.len, &aged_desc[2]); /* there is no version 0 */
    state_buf_fini(&b);
    b = saved(&aged_desc[1], 0, &full);
    st_le32(b.data + 4 + 5 + 4, 1);
    reseal(&b);
    refused(b.data, b.len, &aged_desc[2]); /* version 1 had no "b" */
    state_buf_fini(&b);
}

static void unknown_and_repeated_fields_are_refused(void **state)
{
    static const struct state_field more[] = {
        { "a", STATE_U8, offsetof(struct aged, a), 1, 0, NULL, 0 },
        { "z", STATE_U8, offsetof(struct aged, c), 1, 0, NULL, 0 },
        STATE_END,
    };
    const struct state_desc d = { .name = "aged", .version = 1, .size = sizeof(struct aged), .fields = more };
    const struct aged full = { 1, 2, 3 };
    struct state_buf b = saved(&d, 0, &full);

    refused(b.data, b.len, &aged_desc[0]);
    b.data[find(&b, "z", 0)] = 'a'; /* all that is wanted is there, one field twice */
    reseal(&b);
    refused(b.data, b.len, &aged_desc[0]);
    state_buf_fini(&b);
}

static void bad_descriptions_are_refused(void **state)
{
    static const struct state_field outside[] = { { "x", STATE_U32, 4, 2, 0, NULL, 0 }, STATE_END };
    static const struct state_field huge[] = { { "x", STATE_U64, 0, SIZE_MAX / 4, 0, NULL, 0 }, STATE_END };
    static const struct state_field late[] = { { "x", STATE_U8, 0, 1, 0, NULL, 2 }, STATE_END };
    static const struct state_field odd[] = { { "x y", STATE_U8, 0, 1, 0, NULL, 0 }, STATE_END };
    static const struct state_field none[] = { { "x", STATE_U8, 0, 0, 0, NULL, 0 }, STATE_END };
    static const struct state_field nosub[] = { { "x", STATE_STRUCT, 0, 1, 4, NULL, 0 }, STATE_END };
    static const struct state_field overlap[] = { { "x", STATE_STRUCT, 0, 2, 2, &lane_desc, 0 }, STATE_END };
    static const struct state_field twice[] = { { "x", STATE_U8, 0, 1, 0, NULL, 0 },
                                                { "x", STATE_U8, 1, 1, 0, NULL, 0 },
                                                STATE_END };
    static const struct state_field *const bad[] = { outside, huge, late, odd, none, nosub, overlap, twice };
    struct state_buf b = { .data = NULL };
    uint8_t obj[8] = { 0 };
    size_t i;

    for (i = 0; i < ARRAY_LEN(bad); i++) {
        struct state_desc d = { .name = "bad", .version = 1, .size = sizeof(obj), .fields = bad[i] };
        struct err e = { "" };

        assert_int_equal(state_desc_check(&d, &e), -EINVAL);
        assert_true(e.text[0] != '\0');
        assert_int_equal(state_save(&b, &d, 0, obj), -EINVAL);
        assert_int_equal(b.len, 0);
    }
    state_buf_fini(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(descriptions_are_sound),
        cmocka_unit_test(round_trip_gives_the_same_bytes),
        cmocka_unit_test(padding_does_not_matter),
        cmocka_unit_test(bytes_are_the_documented_ones),
        cmocka_unit_test(sections_are_found_by_name_and_instance),
        cmocka_unit_test(sections_can_be_walked),
        cmocka_unit_test(every_damaged_byte_is_refused),
        cmocka_unit_test(every_truncation_is_refused),
        cmocka_unit_test(damage_in_another_section_is_refused),
        cmocka_unit_test(forged_fields_are_refused),
        cmocka_unit_test(forged_names_are_refused),
        cmocka_unit_test(forged_bytes_never_half_load),
        cmocka_unit_test(hand_made_sections),
        cmocka_unit_test(trailing_bytes_are_refused),
        cmocka_unit_test(check_can_refuse),
        cmocka_unit_test(old_versions_load_new_ones_do_not),
        cmocka_unit_test(version_lies_are_refused),
        cmocka_unit_test(unknown_and_repeated_fields_are_refused),
        cmocka_unit_test(bad_descriptions_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
