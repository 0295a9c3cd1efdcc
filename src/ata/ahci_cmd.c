/* The port's commands: from the list in guest memory to the drive, data and status back.
 * Source: AHCI 1.3.1, 4.2 (list, table, received FIS), 5.3 and 5.6 (what happens when); Serial ATA 3.0, 10.3 (FIS);
 * ATA8-ACS 7 (commands that are not packets), SFF-8020i 5 and ATA8-ACS 9.20 (packets' status).
 * Runs on: as ahci.c. A command's table is fetched once, copied, then looked at.
 *
 * Short data is stored at once. Blocks of the disc go through the I/O threads, which store them piece by piece; the
 * task file, PRDBC, the FIS and PxCI change in the completion. Whatever ends commands early (ST cleared, resets) begins
 * a new life: what the old one had under way touches nothing any more, and must have ended before anything new starts.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "ata/ahci.h"
#include "base/bits.h"
#include "base/log.h"

enum { FIS_H2D = 0x27, FIS_D2H = 0x34, FIS_PIO_SETUP = 0x5f, FIS_IS_COMMAND = 0x80, CONTROL_SRST = 4 };
enum { FIS_AT_PIO = 0x20, FIS_AT_D2H = 0x40, FIS_LEN = 20 };
enum { HEADER_LEN = 32, TABLE_HEAD = 0x80, CDB_AT = 0x40, PRD_LEN = 16, HEADER_PRDBC = 4 };
enum {
    ATA_DEVICE_RESET = 0x08,
    ATA_DIAGNOSTIC = 0x90,
    ATA_PACKET = 0xa0,
    ATA_IDENTIFY_PACKET = 0xa1,
    ATA_STANDBY_NOW = 0xe0,
    ATA_IDLE_NOW = 0xe1,
    ATA_CHECK_POWER = 0xe5,
    ATA_IDENTIFY = 0xec,
    ATA_SET_FEATURES = 0xef
};
enum { ERROR_ABRT = 4, FEATURE_DMA = 1, FEATURE_SET_MODE = 3, POWER_ACTIVE = 0xff };

struct ahci_prd {
    uint64_t gpa;
    uint32_t len;
};

/* A command on its way; allocated when it is started. */
struct ahci_req {
    struct block_req req;
    struct ahci *a;
    uint64_t life;
    uint64_t header; /* where PRDBC is told */
    bool pio;
    bool short_prds; /* there is less room than data */
    uint8_t command, features, device;
    uint8_t cdb[ATAPI_CDB];
    uint32_t prds;
    uint64_t room; /* bytes of all of them */
    struct ahci_prd prd[];
};

/* ---- what the drive sends ---- */

/* A FIS into the guest's memory, if reception is on. An address outside RAM is the guest's loss. */
static void ahci_store_fis(struct ahci *a, unsigned at, const uint8_t fis[FIS_LEN])
{
    if ((a->port.cmd & PORT_FRE) && pci_dev_is_master(&a->pci))
        ram_write(a->ram, a->port.fis + at, fis, FIS_LEN);
}

static void ahci_send_d2h(struct ahci *a, const uint8_t lba[3], uint8_t count)
{
    uint8_t fis[FIS_LEN] = { FIS_D2H, 0x40, (uint8_t)a->port.tfd, (uint8_t)(a->port.tfd >> 8), lba[0], lba[1], lba[2] };

    fis[12] = count;
    ahci_store_fis(a, FIS_AT_D2H, fis);
}

/* The data came by programmed I/O: status while it did, and afterwards. */
static void ahci_send_pio_setup(struct ahci *a, uint64_t len)
{
    uint8_t fis[FIS_LEN] = { FIS_PIO_SETUP, 0x60, ATA_DRDY | ATA_DRQ };

    fis[15] = (uint8_t)a->port.tfd;
    st_le16(fis + 16, (uint16_t)len);
    ahci_store_fis(a, FIS_AT_PIO, fis);
}

void ahci_store_greeting(struct ahci *a)
{
    static const uint8_t signature[3] = { 0x01, 0x14, 0xeb };

    a->port.greeting = false;
    ahci_send_d2h(a, signature, 1);
    ahci_raise(a, IS_DHRS);
}

void ahci_greet(struct ahci *a)
{
    a->port.tfd = 0x0100; /* no error; a packet device is not ready before its first command */
    a->port.greeting = true;
    if (a->port.cmd & PORT_FRE)
        ahci_store_greeting(a);
}

/* ---- the end of a command ---- */

/* The slot is free again. */
static void ahci_retire(struct ahci *a) { a->port.ci &= ~(1U << a->port.slot); }

/* The command is over: error is 0, or what the error register holds. reason: in the drive's count register. */
static void ahci_finish(struct ahci *a, uint8_t error, uint8_t reason, uint32_t events)
{
    static const uint8_t lba[3] = { 0 };

    a->port.tfd = (uint32_t)error << 8 | ATA_DRDY | (error ? ATA_ERR : 0);
    ahci_send_d2h(a, lba, reason);
    if (error) {
        a->port.halted = true; /* until software has cleared ST (6.2.2) */
        events |= IS_TFES;
    } else {
        ahci_retire(a);
    }
    ahci_raise(a, events | IS_DHRS);
}

/* List, table or data are not in memory, or are not of the form they must have. */
static void ahci_fatal(struct ahci *a, uint32_t event)
{
    a->port.halted = true;
    ahci_raise(a, event);
}

/* Data of len bytes are with the guest. */
static void ahci_finish_data(struct ahci *a, const struct ahci_req *r, uint64_t len)
{
    uint8_t prdbc[4];
    uint32_t events = r->short_prds ? IS_OFS : 0;

    st_le32(prdbc, (uint32_t)len);
    ram_write(a->ram, r->header + HEADER_PRDBC, prdbc, sizeof(prdbc));
    a->port.tfd = ATA_DRDY;
    if (r->pio) {
        ahci_send_pio_setup(a, len);
        events |= IS_PSS;
    }
    ahci_finish(a, 0, 3, events);
}

static void ahci_finish_check(struct ahci *a) { ahci_finish(a, (uint8_t)(a->atapi.key << 4 | ERROR_ABRT), 3, 0); }

/* ---- data ---- */

/* Store bytes [at, at+len) of the data where the table says. 0, or -EFAULT: that is not memory. */
static int ahci_scatter(const struct ahci_req *r, uint64_t at, const uint8_t *data, uint64_t len)
{
    for (uint32_t n = 0; n < r->prds && len; n++) {
        const struct ahci_prd *p = &r->prd[n];
        uint64_t part;

        if (at >= p->len) {
            at -= p->len;
            continue;
        }
        part = p->len - at < len ? p->len - at : len;
        if (ram_write(r->a->ram, p->gpa + at, data, part) < 0)
            return -EFAULT;
        data += part;
        len -= part;
        at = 0;
    }
    return 0;
}

/* On an I/O thread. */
static int ahci_move(struct block_req *req, uint64_t at, void *piece, size_t len)
{
    struct ahci_req *r = container_of(req, struct ahci_req, req);
    int e;

    pthread_rwlock_rdlock(&r->a->dma);
    e = r->life == r->a->life ? ahci_scatter(r, at, piece, len) : -ECANCELED;
    pthread_rwlock_unlock(&r->a->dma);
    return e;
}

static void ahci_done(struct block_req *req, int result)
{
    struct ahci_req *r = container_of(req, struct ahci_req, req);
    struct ahci *a = r->a;

    if (r->life != a->life) {
        a->stale--;
    } else {
        a->current--;
        if (result == 0) {
            ahci_finish_data(a, r, req->len < r->room ? req->len : r->room);
        } else if (result == -EFAULT) {
            ahci_fatal(a, IS_HBFS);
        } else {
            log_guest("ahci: %s: the disc cannot be read: %s", a->name, strerror(-result));
            atapi_unreadable(&a->atapi);
            ahci_finish_check(a);
        }
    }
    free(r);
}

void ahci_io_done(void *opaque) { ahci_run(opaque); }

/* True: the command is with the I/O threads, which free it. */
static bool ahci_read_disc(struct ahci *a, struct ahci_req *r, const struct atapi_reply *reply)
{
    uint64_t len = (uint64_t)reply->count * ATAPI_BLOCK;

    r->short_prds = len > r->room;
    if (r->short_prds)
        len = ALIGN_UP(r->room, BLOCK_SECTOR);
    if (!len) {
        ahci_finish_data(a, r, 0);
        return false;
    }
    r->req = (struct block_req){
        .op = BLOCK_READ, .off = (uint64_t)reply->first * ATAPI_BLOCK, .len = len, .move = ahci_move, .done = ahci_done
    };
    a->port.tfd = ATA_BSY | ATA_DRDY;
    a->current++;
    block_submit(a->io, &r->req);
    return true;
}

static void ahci_give(struct ahci *a, struct ahci_req *r, const uint8_t *data, uint64_t len)
{
    r->short_prds = len > r->room;
    if (r->short_prds)
        len = r->room;
    if (ahci_scatter(r, 0, data, len) < 0)
        ahci_fatal(a, IS_HBFS);
    else
        ahci_finish_data(a, r, len);
}

/* ---- commands ---- */

static bool ahci_packet(struct ahci *a, struct ahci_req *r)
{
    struct atapi_reply reply;

    atapi_command(&a->atapi, r->cdb, &reply);
    r->pio = !(r->features & FEATURE_DMA) && (reply.media || reply.len);
    if (!reply.good)
        ahci_finish_check(a);
    else if (reply.media)
        return ahci_read_disc(a, r, &reply);
    else if (reply.len)
        ahci_give(a, r, reply.data, reply.len);
    else
        ahci_finish(a, 0, 3, 0);
    return false;
}

/* A reset that software asks for: the signature is the answer. */
static void ahci_soft_reset(struct ahci *a)
{
    ahci_retire(a);
    ahci_greet(a);
}

/* True: r has been handed on. */
static bool ahci_command(struct ahci *a, struct ahci_req *r)
{
    uint8_t identify[ATAPI_IDENTIFY];

    switch (r->command) {
    case ATA_PACKET:
        return ahci_packet(a, r);
    case ATA_IDENTIFY_PACKET:
        atapi_identify(identify);
        r->pio = true;
        ahci_give(a, r, identify, sizeof(identify));
        break;
    case ATA_DEVICE_RESET:
    case ATA_DIAGNOSTIC:
        ahci_soft_reset(a);
        break;
    case ATA_STANDBY_NOW:
    case ATA_IDLE_NOW:
        ahci_finish(a, 0, 0, 0);
        break;
    case ATA_CHECK_POWER:
        ahci_finish(a, 0, POWER_ACTIVE, 0);
        break;
    case ATA_SET_FEATURES:
        ahci_finish(a, r->features == FEATURE_SET_MODE ? 0 : ERROR_ABRT, 0, 0);
        break;
    default: /* IDENTIFY DEVICE too: this is a packet device */
        ahci_finish(a, ERROR_ABRT, 0, 0);
        break;
    }
    return false;
}

/* The control register (SATA 3.0, 10.3.4; AHCI 10.4.1): the reset bit goes on with one FIS and off with the next. */
static void ahci_control(struct ahci *a, uint8_t control)
{
    bool was = a->port.srst;

    a->port.srst = control & CONTROL_SRST;
    ahci_retire(a);
    if (was && !a->port.srst) {
        atapi_reset(&a->atapi);
        ahci_greet(a);
    }
}

/* ---- fetching ---- */

static int ahci_fetch_prds(struct ahci *a, struct ahci_req *r, uint64_t at)
{
    uint8_t *raw = malloc(r->prds * PRD_LEN + 1);
    int e = raw ? ram_read(a->ram, at, raw, r->prds * PRD_LEN) : -ENOMEM;

    for (uint32_t n = 0; e == 0 && n < r->prds; n++) {
        const uint8_t *p = raw + n * PRD_LEN;

        r->prd[n].gpa = ld_le64(p) & ~1ULL;
        r->prd[n].len = (ld_le32(p + 12) & 0x3fffff) + 1;
        r->room += r->prd[n].len;
    }
    free(raw);
    return e;
}

/* The event that a command of this form or place is; 0: *out is there, for the caller to free; NULL: it was no command
 * but a write to the control register, and is done. */
static uint32_t ahci_fetch(struct ahci *a, struct ahci_req **out)
{
    uint8_t header[HEADER_LEN], table[TABLE_HEAD];
    struct ahci_req *r;
    uint32_t prds;
    uint64_t list = a->port.list + HEADER_LEN * a->port.slot, at;

    *out = NULL;
    if (ram_read(a->ram, list, header, sizeof(header)) < 0)
        return IS_HBFS;
    at = ld_le64(header + 8) & ~0x7fULL;
    if (ram_read(a->ram, at, table, sizeof(table)) < 0)
        return IS_HBFS;
    if ((header[0] & 31) < 5 || table[0] != FIS_H2D)
        return IS_IFS;
    if (!(table[1] & FIS_IS_COMMAND)) {
        ahci_control(a, table[15]);
        return 0;
    }
    prds = ld_le16(header + 2) < AHCI_PRDS ? ld_le16(header + 2) : AHCI_PRDS;
    r = calloc(1, sizeof(*r) + prds * sizeof(r->prd[0]));
    if (!r)
        return IS_HBFS;
    r->a = a;
    r->life = a->life;
    r->header = list;
    r->command = table[2];
    r->features = table[3];
    r->device = table[7];
    memcpy(r->cdb, table + CDB_AT, sizeof(r->cdb));
    r->prds = prds;
    if (ahci_fetch_prds(a, r, at + TABLE_HEAD) < 0) {
        free(r);
        return IS_HBFS;
    }
    *out = r;
    return 0;
}

static bool ahci_may_run(const struct ahci *a)
{
    const struct ahci_port *p = &a->port;

    return (p->cmd & PORT_ST) && p->ci && !p->halted && !a->current && !a->stale && !(p->tfd & (ATA_BSY | ATA_DRQ)) &&
           pci_dev_is_master(&a->pci);
}

/* The next slot after the last one that has a command (5.3.2: in turn). */
static void ahci_next_slot(struct ahci *a)
{
    do
        a->port.slot = (a->port.slot + 1) & 31;
    while (!(a->port.ci & 1U << a->port.slot));
}

/* Each round frees a slot, stops the port or leaves a read under way: 32 at most. */
void ahci_run(struct ahci *a)
{
    struct ahci_req *r;
    uint32_t event;

    while (ahci_may_run(a)) {
        ahci_next_slot(a);
        event = ahci_fetch(a, &r);
        if (event)
            ahci_fatal(a, event);
        else if (r && !ahci_command(a, r))
            free(r);
    }
}

void ahci_end_life(struct ahci *a)
{
    pthread_rwlock_wrlock(&a->dma); /* a copy under way ends first: 256 KiB at most */
    a->life++;
    pthread_rwlock_unlock(&a->dma);
    a->stale += a->current;
    if (a->current)
        a->port.tfd &= ~(uint32_t)(ATA_BSY | ATA_DRQ);
    a->current = 0;
}
