/* Models: a CD and DVD drive with one disc of one data track, by its packet commands. The disc can be ejected and
 * loaded by the guest; a reset loads it.
 * Source: SFF-8020i and MMC-3 (commands), SPC-3 (sense data), ATA8-ACS 7.16 (IDENTIFY PACKET DEVICE).
 * Runs on: whatever thread its carrier runs on, under the device lock; takes no lock.
 */
#include "ata/atapi.h"

#include <string.h>

#include "base/bits.h"

enum {
    TEST_UNIT_READY = 0x00,
    REQUEST_SENSE = 0x03,
    INQUIRY = 0x12,
    START_STOP = 0x1b,
    PREVENT_REMOVAL = 0x1e,
    READ_CAPACITY = 0x25,
    READ_10 = 0x28,
    SEEK_10 = 0x2b,
    READ_TOC = 0x43,
    GET_CONFIGURATION = 0x46,
    GET_EVENT_STATUS = 0x4a,
    READ_DISC_INFORMATION = 0x51,
    MODE_SENSE_10 = 0x5a,
    READ_12 = 0xa8,
    SET_CD_SPEED = 0xbb,
    MECHANISM_STATUS = 0xbd
};

/* Sense keys, and key, code and qualifier together (SPC-3, 4.5.6). */
enum { KEY_NONE = 0, KEY_MEDIUM = 3 };
#define SENSE(key, asc, ascq) ((key) << 16 | (asc) << 8 | (ascq))
enum {
    NO_MEDIUM = SENSE(2, 0x3a, 0),
    UNREADABLE = SENSE(3, 0x11, 0),
    BAD_COMMAND = SENSE(5, 0x20, 0),
    BAD_ADDRESS = SENSE(5, 0x21, 0),
    BAD_FIELD = SENSE(5, 0x24, 0),
    REMOVAL_PREVENTED = SENSE(5, 0x53, 2),
    WAS_RESET = SENSE(6, 0x29, 0)
};

#define BLOCKS_A_COMMAND 65536U /* what READ(10) can ask for; READ(12) is held to it too, so that one command is bounded */

static void atapi_set_sense(struct atapi *a, unsigned sense)
{
    a->key = (uint8_t)(sense >> 16);
    a->asc = (uint8_t)(sense >> 8);
    a->ascq = (uint8_t)sense;
}

static void atapi_fail(struct atapi *a, struct atapi_reply *out, unsigned sense)
{
    atapi_set_sense(a, sense);
    out->good = false;
    out->media = false;
    out->len = 0;
}

/* ---- commands ---- */

static void atapi_request_sense(struct atapi *a, const uint8_t *cdb, struct atapi_reply *out)
{
    out->data[0] = 0x70; /* current, fixed form */
    out->data[2] = a->key;
    out->data[7] = 10;
    out->data[12] = a->asc;
    out->data[13] = a->ascq;
    out->len = cdb[4] < 18 ? cdb[4] : 18;
    atapi_set_sense(a, KEY_NONE);
}

static void atapi_start_stop(struct atapi *a, const uint8_t *cdb, struct atapi_reply *out)
{
    enum { START = 1, LOAD_EJECT = 2 };

    if (!(cdb[4] & LOAD_EJECT))
        return;
    if (!(cdb[4] & START) && a->locked)
        atapi_fail(a, out, REMOVAL_PREVENTED);
    else
        a->ejected = !(cdb[4] & START);
}

static void atapi_capacity(struct atapi *a, const uint8_t *cdb, struct atapi_reply *out)
{
    st_be32(out->data, a->blocks - 1);
    st_be32(out->data + 4, ATAPI_BLOCK);
    out->len = 8;
}

static void atapi_read(struct atapi *a, uint32_t first, uint32_t count, struct atapi_reply *out)
{
    if (count > BLOCKS_A_COMMAND) {
        atapi_fail(a, out, BAD_FIELD);
    } else if (range_outside(first, count, a->blocks)) {
        atapi_fail(a, out, BAD_ADDRESS);
    } else {
        out->media = count > 0;
        out->first = first;
        out->count = count;
    }
}

static void atapi_read_10(struct atapi *a, const uint8_t *cdb, struct atapi_reply *out)
{
    atapi_read(a, ld_be32(cdb + 2), ld_be16(cdb + 7), out);
}

static void atapi_read_12(struct atapi *a, const uint8_t *cdb, struct atapi_reply *out)
{
    atapi_read(a, ld_be32(cdb + 2), ld_be32(cdb + 6), out);
}

static void atapi_seek(struct atapi *a, const uint8_t *cdb, struct atapi_reply *out)
{
    if (ld_be32(cdb + 2) >= a->blocks)
        atapi_fail(a, out, BAD_ADDRESS);
}

static void atapi_prevent(struct atapi *a, const uint8_t *cdb, struct atapi_reply *out) { a->locked = cdb[4] & 1; }

static void atapi_nothing(struct atapi *a, const uint8_t *cdb, struct atapi_reply *out) {}

/* Slot, state, address of the head: all zero, no changer. */
static void atapi_mechanism(struct atapi *a, const uint8_t *cdb, struct atapi_reply *out)
{
    unsigned room = ld_be16(cdb + 8);

    out->len = room < 8 ? room : 8;
}

enum { NEEDS_DISC = 1, IGNORES_ATTENTION = 2 };

/* One of run and tell. */
static const struct atapi_verb {
    uint8_t code, flags;
    void (*run)(struct atapi *a, const uint8_t *cdb, struct atapi_reply *out);
    bool (*tell)(const struct atapi *a, const uint8_t *cdb, struct atapi_reply *out);
} atapi_verbs[] = {
    { TEST_UNIT_READY, NEEDS_DISC, atapi_nothing, NULL },
    { REQUEST_SENSE, IGNORES_ATTENTION, atapi_request_sense, NULL },
    { INQUIRY, IGNORES_ATTENTION, NULL, atapi_inquiry },
    { START_STOP, 0, atapi_start_stop, NULL },
    { PREVENT_REMOVAL, 0, atapi_prevent, NULL },
    { READ_CAPACITY, NEEDS_DISC, atapi_capacity, NULL },
    { READ_10, NEEDS_DISC, atapi_read_10, NULL },
    { SEEK_10, NEEDS_DISC, atapi_seek, NULL },
    { READ_TOC, NEEDS_DISC, NULL, atapi_read_toc },
    { GET_CONFIGURATION, IGNORES_ATTENTION, NULL, atapi_configuration },
    { GET_EVENT_STATUS, IGNORES_ATTENTION, NULL, atapi_event_status },
    { READ_DISC_INFORMATION, NEEDS_DISC, NULL, atapi_disc_information },
    { MODE_SENSE_10, 0, NULL, atapi_mode_sense },
    { READ_12, NEEDS_DISC, atapi_read_12, NULL },
    { SET_CD_SPEED, 0, atapi_nothing, NULL },
    { MECHANISM_STATUS, 0, atapi_mechanism, NULL },
};

static const struct atapi_verb *atapi_find(uint8_t code)
{
    for (size_t n = 0; n < ARRAY_LEN(atapi_verbs); n++) {
        if (atapi_verbs[n].code == code)
            return &atapi_verbs[n];
    }
    return NULL;
}

void atapi_command(struct atapi *a, const uint8_t cdb[ATAPI_CDB], struct atapi_reply *out)
{
    const struct atapi_verb *v = atapi_find(cdb[0]);

    memset(out, 0, sizeof(*out));
    out->good = true;
    if (a->attention && !(v && v->flags & IGNORES_ATTENTION)) {
        a->attention = false;
        atapi_fail(a, out, WAS_RESET);
    } else if (!v) {
        atapi_fail(a, out, BAD_COMMAND);
    } else if ((v->flags & NEEDS_DISC) && (a->ejected || !a->blocks)) {
        atapi_fail(a, out, NO_MEDIUM);
    } else if (v->run) {
        v->run(a, cdb, out);
    } else if (!v->tell(a, cdb, out)) {
        atapi_fail(a, out, BAD_FIELD);
    }
}

void atapi_unreadable(struct atapi *a) { atapi_set_sense(a, UNREADABLE); }

/* ---- life ---- */

void atapi_reset(struct atapi *a)
{
    atapi_set_sense(a, KEY_NONE);
    a->attention = true;
    a->ejected = a->locked = false;
}

void atapi_init(struct atapi *a, uint64_t bytes)
{
    uint64_t blocks = bytes / ATAPI_BLOCK;

    a->blocks = blocks > UINT32_MAX ? UINT32_MAX : (uint32_t)blocks;
    atapi_reset(a);
}

/* The size of the disc is not state: it belongs to the image that this machine has opened. */
static const struct state_field atapi_fields[] = {
    STATE_F8(struct atapi, key),           STATE_F8(struct atapi, asc),        STATE_F8(struct atapi, ascq),
    STATE_FBOOL(struct atapi, attention),  STATE_FBOOL(struct atapi, ejected), STATE_FBOOL(struct atapi, locked),
    STATE_END,
};

const struct state_desc atapi_state = {
    .name = "atapi", .version = 1, .size = sizeof(struct atapi), .fields = atapi_fields
};
