/* A SATA controller with one port, at which a CD drive is. */
#ifndef VITRO_ATA_AHCI_H
#define VITRO_ATA_AHCI_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "ata/atapi.h"
#include "block/block.h"
#include "bus/device.h"
#include "pci/pci.h"
#include "ram/ram.h"

#define AHCI_BAR_LEN 0x1000U
#define AHCI_PRDS    4096U /* a command's table may have more entries, which are not used */

/* The registers of the port (AHCI 1.3.1, 3.3) that keep something. */
struct ahci_port {
    uint64_t list, fis; /* where the guest has its command list, and wants what the drive sends */
    uint32_t is, ie, cmd, tfd, sctl, ssts, serr, ci;
    uint8_t slot;  /* of the command list: what runs, or ran last */
    bool halted;   /* a fatal error: nothing runs until software has cleared ST */
    bool srst;     /* software keeps the drive in reset */
    bool greeting; /* the drive's first FIS has not been stored yet, since reception was off */
};

struct ahci {
    struct pci_dev pci;
    uint32_t ghc, is;
    struct ahci_port port;
    struct atapi atapi;
    /* surroundings, and what is never saved */
    struct ram *ram;
    struct block *block; /* borrowed */
    struct block_io *io; /* apart, since its threads live while the state is loaded over all of this */
    const char *name;
    uint64_t life;        /* counts what ends commands: those of another life are dropped */
    pthread_rwlock_t dma; /* a leaf. Shared: an I/O thread copies to guest memory; alone: a new life */
    unsigned current;     /* commands under way of this life (at most one), and of earlier ones */
    unsigned stale;
};

extern const struct device_ops ahci_ops; /* type "ahci" */

/* block is the disc: read-only, borrowed, outlives the device. name is borrowed, for logs. Not plugged yet:
 * pci_dev_plug(&a->pci, ...) follows. 0 or -errno. ahci_ops.destroy undoes it and leaves the disc open. */
int ahci_init(struct ahci *a, struct block *block, struct loop *loop, struct ram *ram, const char *name);

/* --- between the two files of this device --- */

/* PxCMD, PxIS, the task file's status, and where received FIS are stored (AHCI 1.3.1, 3.3.5, 3.3.7, 4.2.1). */
enum { PORT_ST = 1, PORT_SUD = 2, PORT_POD = 4, PORT_CLO = 8, PORT_FRE = 0x10, PORT_FR = 1 << 14, PORT_CR = 1 << 15 };
enum { PORT_CCS_SHIFT = 8, PORT_ATAPI = 1 << 24, PORT_DLAE = 1 << 25 };
enum { IS_DHRS = 1, IS_PSS = 2, IS_PCS = 1 << 6, IS_OFS = 1 << 24, IS_IFS = 1 << 27, IS_HBFS = 1 << 29, IS_TFES = 1 << 30 };
enum { ATA_ERR = 0x01, ATA_DRQ = 0x08, ATA_DRDY = 0x40, ATA_BSY = 0x80 };

/* ahci_cmd.c. Start commands that wait, while one may run. Device lock held, as for all of these. */
void ahci_run(struct ahci *a);
/* What is under way belongs to an old life from now on. */
void ahci_end_life(struct ahci *a);
/* The drive says that it is there: its signature in the task file and, when reception is on, in memory. */
void ahci_greet(struct ahci *a);
void ahci_store_greeting(struct ahci *a);
void ahci_io_done(void *opaque);
/* ahci.c: note events in PxIS, drive the interrupt. */
void ahci_raise(struct ahci *a, uint32_t events);

#endif
