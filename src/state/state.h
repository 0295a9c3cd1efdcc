/* Described state: one form for snapshots, migration and replay.
 *
 * A device describes its fields in a static const table. Saving walks the table; what is written
 * is self-describing (names and kinds), little-endian, and the same bytes on every host. Loading
 * parses into a staging copy of the object, checks it as a whole, then commits: a bad section
 * changes nothing. A field that the file lacks keeps its reset value if its `since` is later than the
 * section's version, else the section is refused. An unknown field is refused.
 *
 * Form of a section (docs/design/state.md): name, instance, version, length, fields, XXH64 of all of it.
 */
#ifndef VITRO_STATE_STATE_H
#define VITRO_STATE_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;

enum state_kind { STATE_U8, STATE_U16, STATE_U32, STATE_U64, STATE_BOOL, STATE_BYTES, STATE_STRUCT };

struct state_desc;

struct state_field {
    const char *name;
    enum state_kind kind;
    size_t offset;
    size_t count;                 /* elements of an array (STATE_BYTES: bytes); 1 for a scalar */
    size_t stride;                /* bytes from one STATE_STRUCT element to the next */
    const struct state_desc *sub; /* STATE_STRUCT */
    uint32_t since;               /* the version that added the field; 0 or 1: from the first */
};

struct state_desc {
    const char *name;
    uint32_t version; /* 1 for the first */
    size_t size;      /* sizeof the object: the staging copy */
    const struct state_field *fields; /* ends with a NULL name */
    /* Check and complete a staged object: 0, or -errno with err filled. It may look only at
     * described fields and may fix derived ones. May be NULL. */
    int (*check)(void *obj, struct err *err);
};

#define STATE_FIELD_(T, f, k, n) { #f, k, offsetof(T, f), n, 0, NULL, 0 }
#define STATE_F8(T, f) STATE_FIELD_(T, f, STATE_U8, sizeof(((T *)0)->f))
#define STATE_F16(T, f) STATE_FIELD_(T, f, STATE_U16, sizeof(((T *)0)->f) / 2)
#define STATE_F32(T, f) STATE_FIELD_(T, f, STATE_U32, sizeof(((T *)0)->f) / 4)
#define STATE_F64(T, f) STATE_FIELD_(T, f, STATE_U64, sizeof(((T *)0)->f) / 8)
#define STATE_FBOOL(T, f) STATE_FIELD_(T, f, STATE_BOOL, sizeof(((T *)0)->f) / sizeof(bool))
#define STATE_FBYTES(T, f) STATE_FIELD_(T, f, STATE_BYTES, sizeof(((T *)0)->f))
/* An embedded struct or array of structs of type S described by d. */
#define STATE_FSTRUCT(T, f, S, d) \
    { #f, STATE_STRUCT, offsetof(T, f), sizeof(((T *)0)->f) / sizeof(S), sizeof(S), &(d), 0 }
#define STATE_END { NULL, STATE_U8, 0, 0, 0, NULL, 0 }

/* A growing byte buffer. Zero-initialise; state_buf_fini() frees. */
struct state_buf {
    uint8_t *data;
    size_t len, cap;
    bool failed; /* out of memory: everything after that was dropped */
};
void state_buf_fini(struct state_buf *b);

/* Limits of the form; a description outside them is refused by state_desc_check(). */
#define STATE_NAME_MAX   63
#define STATE_MAX_FIELDS 256
#define STATE_MAX_DEPTH  8
#define STATE_MAX_LEN    (256UL << 20) /* bytes of all sections together */

/* Is the description itself sound: names, offsets inside the object, since, nesting? 0 or -EINVAL with err
 * filled. Tests call it for every device. */
int state_desc_check(const struct state_desc *d, struct err *err);

/* Append the section of obj. 0, -ENOMEM, or -EINVAL for a bad description; nothing is appended on failure. */
int state_save(struct state_buf *out, const struct state_desc *d, uint32_t instance, const void *obj);

/* Find the section (d->name, instance) in [data, data+len), check everything, commit to obj. Fields that are
 * not described keep their value, but obj is copied whole and back: nothing that other threads use (locks, queues of
 * their work) may lie in it. -ENOENT: no such section; -EINVAL: damaged or refused, err says why. */
int state_load(const uint8_t *data, size_t len, const struct state_desc *d, uint32_t instance, void *obj,
               struct err *err);

/* One section of a stream, checksum already verified. */
struct state_section {
    char name[STATE_NAME_MAX + 1];
    uint32_t instance, version;
    const uint8_t *body; /* points into the stream */
    size_t body_len;
};

/* Walk the sections: start with *pos = 0. 1: *s is the next one; 0: the end; -EINVAL: damaged, err says where.
 * For finding sections that no device of this machine takes. */
int state_next(const uint8_t *data, size_t len, size_t *pos, struct state_section *s, struct err *err);

#endif
