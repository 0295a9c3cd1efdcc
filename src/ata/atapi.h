/* A CD drive with a disc in it, as SCSI commands see it. What carries the commands and the data is not its business. */
#ifndef VITRO_ATA_ATAPI_H
#define VITRO_ATA_ATAPI_H

#include <stdbool.h>
#include <stdint.h>

#include "state/state.h"

#define ATAPI_BLOCK    2048U
#define ATAPI_CDB      12
#define ATAPI_IDENTIFY 512
#define ATAPI_DATA_MAX 128

struct atapi {
    uint32_t blocks;         /* on the disc, ATAPI_BLOCK bytes each */
    uint8_t key, asc, ascq;  /* what REQUEST SENSE will tell */
    bool attention;          /* the drive was reset, and the guest has not been told */
    bool ejected, locked;
};

extern const struct state_desc atapi_state;

/* What a command asks of the carrier. */
struct atapi_reply {
    bool good;  /* false: CHECK CONDITION, no data */
    bool media; /* data are count blocks of the disc from first on, which are there; else data[0..len) */
    uint32_t first, count;
    uint32_t len;
    uint8_t data[ATAPI_DATA_MAX];
};

void atapi_init(struct atapi *a, uint64_t bytes);
/* Power-on state: the disc is in the drive again. */
void atapi_reset(struct atapi *a);
void atapi_command(struct atapi *a, const uint8_t cdb[ATAPI_CDB], struct atapi_reply *out);
/* The blocks of a reply could not be read: the command ends with an error after all. */
void atapi_unreadable(struct atapi *a);
/* Data of IDENTIFY PACKET DEVICE. */
void atapi_identify(uint8_t out[ATAPI_IDENTIFY]);

/* --- between the files of this drive (atapi_info.c): replies that describe drive and disc. False: the command asks for
 * what there is not. --- */
bool atapi_inquiry(const struct atapi *a, const uint8_t *cdb, struct atapi_reply *out);
bool atapi_mode_sense(const struct atapi *a, const uint8_t *cdb, struct atapi_reply *out);
bool atapi_read_toc(const struct atapi *a, const uint8_t *cdb, struct atapi_reply *out);
bool atapi_configuration(const struct atapi *a, const uint8_t *cdb, struct atapi_reply *out);
bool atapi_event_status(const struct atapi *a, const uint8_t *cdb, struct atapi_reply *out);
bool atapi_disc_information(const struct atapi *a, const uint8_t *cdb, struct atapi_reply *out);

#endif
