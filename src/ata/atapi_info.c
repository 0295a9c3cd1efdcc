/* The CD drive's replies that describe it and its disc: one data track, a CD-ROM or, when it is too large for that,
 * a DVD-ROM.
 * Source: SPC-3 6.4 (INQUIRY), 6.10 (MODE SENSE); MMC-3 6.6 (GET CONFIGURATION), 6.7 (GET EVENT STATUS NOTIFICATION),
 * 6.16 (READ DISC INFORMATION), 6.25 (READ TOC/PMA/ATIP), page 2A in MMC-3 7.11; ATA8-ACS 7.16.
 * Runs on: the carrier's thread, under the device lock; no state of its own.
 */
#include "ata/atapi.h"

#include <string.h>

#include "base/bits.h"

#define CD_BLOCKS 360000U /* 80 minutes */
#define PROFILE_CD  0x08
#define PROFILE_DVD 0x10

static bool atapi_is_dvd(const struct atapi *a) { return a->blocks > CD_BLOCKS; }

/* As much of len bytes as the guest has room for. */
static bool atapi_give(struct atapi_reply *out, unsigned len, unsigned room)
{
    out->len = len < room ? len : room;
    return true;
}

bool atapi_inquiry(const struct atapi *a, const uint8_t *cdb, struct atapi_reply *out)
{
    uint8_t *d = out->data;

    if (cdb[1] & 1) /* vital product data */
        return false;
    d[0] = 5;    /* CD device */
    d[1] = 0x80; /* removable */
    d[3] = 0x21; /* ATAPI, response format 1 */
    d[4] = 31;
    memcpy(d + 8, "VITRO   VITRO CD-ROM    1.0 ", 28);
    return atapi_give(out, 36, ld_be16(cdb + 3));
}

bool atapi_mode_sense(const struct atapi *a, const uint8_t *cdb, struct atapi_reply *out)
{
    /* Read error recovery: defaults. */
    static const uint8_t recovery[8] = { 0x01, 6, 0, 5 };
    /* Reads CD-R, CD-RW, DVD-ROM, DVD-R; mode 2, several sessions; a tray that locks and ejects. */
    static const uint8_t capabilities[22] = { 0x2a, 20, 0x1b, 0, 0x70, 0, 0x29, 0, 0x0b, 0, 0, 2, 2, 0, 0x0b, 0 };
    unsigned page = cdb[2] & 0x3f, len = 8;

    if (cdb[2] >> 6 == 3) /* saved values */
        return false;
    if (page == 0x01 || page == 0x3f) {
        memcpy(out->data + len, recovery, sizeof(recovery));
        len += sizeof(recovery);
    }
    if (page == 0x2a || page == 0x3f) {
        memcpy(out->data + len, capabilities, sizeof(capabilities));
        len += sizeof(capabilities);
    }
    if (len == 8)
        return false;
    st_be16(out->data, len - 2);
    out->data[2] = a->ejected ? 0x70 : 0x01;
    return atapi_give(out, len, ld_be16(cdb + 7));
}

/* An address as a block number, or as minutes, seconds and frames (75 a second, the disc begins at 2 s). */
static void atapi_put_address(uint8_t *p, uint32_t block, bool msf)
{
    uint32_t frames = block + 150;

    if (!msf) {
        st_be32(p, block);
        return;
    }
    p[0] = 0;
    p[1] = (uint8_t)(frames / 75 / 60);
    p[2] = (uint8_t)(frames / 75 % 60);
    p[3] = (uint8_t)(frames % 75);
}

static uint8_t *atapi_put_track(uint8_t *p, uint8_t track, uint32_t block, bool msf)
{
    p[1] = 0x14; /* Q: position; a data track */
    p[2] = track;
    atapi_put_address(p + 4, block, msf);
    return p + 8;
}

bool atapi_read_toc(const struct atapi *a, const uint8_t *cdb, struct atapi_reply *out)
{
    enum { TRACKS = 0, SESSIONS = 1, LEAD_OUT = 0xaa };
    unsigned form = cdb[2] & 15;
    bool msf = cdb[1] & 2;
    uint8_t *p = out->data + 4;

    if (!form)
        form = cdb[9] >> 6; /* where SFF-8020i had it */
    if (form > SESSIONS || (form == TRACKS && cdb[6] > 1 && cdb[6] != LEAD_OUT))
        return false;
    if (form == SESSIONS || cdb[6] <= 1)
        p = atapi_put_track(p, 1, 0, msf);
    if (form == TRACKS)
        p = atapi_put_track(p, LEAD_OUT, a->blocks, msf);
    out->data[2] = out->data[3] = 1;
    st_be16(out->data, (unsigned)(p - out->data) - 2);
    return atapi_give(out, (unsigned)(p - out->data), ld_be16(cdb + 7));
}

/* Features: number, version and flags (1: current, 2: always), data. */
static const struct {
    uint16_t number;
    uint8_t flags, len, data[8];
} atapi_features[] = {
    { 0x0000, 3, 8, { 0, PROFILE_DVD, 0, 0, 0, PROFILE_CD, 0, 0 } },
    { 0x0001, 0xb, 8, { 0, 0, 0, 2, 1, 0, 0, 0 } },    /* core: ATAPI */
    { 0x0003, 3, 4, { 0x29, 0, 0, 0 } },               /* removable: tray, eject, lock */
    { 0x0010, 1, 8, { 0, 0, 8, 0, 0, 16, 0, 0 } },     /* random reading: block size, blocking */
    { 0x001e, 1, 4, { 0, 0, 0, 0 } },                  /* reads CDs */
    { 0x001f, 1, 4, { 0, 0, 0, 0 } },                  /* reads DVDs */
};

bool atapi_configuration(const struct atapi *a, const uint8_t *cdb, struct atapi_reply *out)
{
    enum { ONE_FEATURE = 2 };
    unsigned how = cdb[1] & 3, from = ld_be16(cdb + 2), len = 8;

    if (how == 3)
        return false;
    for (size_t n = 0; n < ARRAY_LEN(atapi_features); n++) {
        unsigned number = atapi_features[n].number;
        uint8_t *p = out->data + len;

        if (how == ONE_FEATURE ? number != from : number < from)
            continue;
        st_be16(p, number);
        p[2] = atapi_features[n].flags;
        p[3] = atapi_features[n].len;
        memcpy(p + 4, atapi_features[n].data, p[3]);
        if (number == 0 && !a->ejected)
            p[atapi_is_dvd(a) ? 6 : 10] = 1; /* the current profile */
        len += 4U + p[3];
    }
    st_be32(out->data, len - 4);
    st_be16(out->data + 6, a->ejected ? 0 : atapi_is_dvd(a) ? PROFILE_DVD : PROFILE_CD);
    return atapi_give(out, len, ld_be16(cdb + 7));
}

bool atapi_event_status(const struct atapi *a, const uint8_t *cdb, struct atapi_reply *out)
{
    enum { POLLED = 1, CLASS_MEDIA = 4, NONE = 0x80 };
    bool media = cdb[4] & BIT(CLASS_MEDIA);

    if (!(cdb[1] & POLLED))
        return false;
    st_be16(out->data, media ? 6 : 2);
    out->data[2] = media ? CLASS_MEDIA : NONE;
    out->data[3] = BIT(CLASS_MEDIA);
    if (media)
        out->data[5] = a->ejected ? 1 : 2; /* the tray is open, or there is a disc */
    return atapi_give(out, media ? 8 : 4, ld_be16(cdb + 7));
}

bool atapi_disc_information(const struct atapi *a, const uint8_t *cdb, struct atapi_reply *out)
{
    enum { LEN = 34, COMPLETE = 0x0e };

    st_be16(out->data, LEN - 2);
    out->data[2] = COMPLETE;
    for (unsigned n = 3; n <= 6; n++)
        out->data[n] = 1; /* first track, sessions, first and last track of the last session */
    memset(out->data + 16, 0xff, 8); /* nowhere to write */
    return atapi_give(out, LEN, ld_be16(cdb + 7));
}

/* Strings have the bytes of each word exchanged. */
static void atapi_words(uint8_t *out, unsigned word, const char *text, unsigned len)
{
    for (unsigned n = 0; n < len; n++)
        out[2 * word + (n ^ 1)] = (uint8_t)(n < strlen(text) ? text[n] : ' ');
}

void atapi_identify(uint8_t out[ATAPI_IDENTIFY])
{
    static const struct {
        uint8_t word;
        uint16_t value;
    } words[] = {
        { 0, 0x85c0 },  /* packet device, CD, removable, packets of 12 bytes */
        { 49, 0x0f00 }, /* LBA, DMA, IORDY */
        { 53, 0x0006 }, /* words 64 to 70 and 88 are good */
        { 63, 0x0007 }, { 64, 0x0003 }, { 65, 120 }, { 66, 120 }, { 67, 120 }, { 68, 120 },
        { 76, 0x0002 }, /* SATA at 1.5 Gbit/s */
        { 80, 0x01f0 }, /* ATA/ATAPI-4 to ATA8-ACS */
        { 82, 0x0210 }, /* PACKET and DEVICE RESET */
        { 83, 0x4000 }, { 84, 0x4000 }, { 85, 0x0210 }, { 87, 0x4000 },
        { 88, 0x203f }, /* Ultra DMA 0 to 5, mode 5 is set */
    };

    memset(out, 0, ATAPI_IDENTIFY);
    for (size_t n = 0; n < ARRAY_LEN(words); n++)
        st_le16(out + 2 * words[n].word, words[n].value);
    atapi_words(out, 10, "vitro-cdrom0", 20);
    atapi_words(out, 23, "1.0", 8);
    atapi_words(out, 27, "VITRO CD-ROM", 40);
}
