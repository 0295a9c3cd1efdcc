/* A bench on which a fuzz input plays the driver of one virtio device: registers, rings, kicks, resets,
 * pauses, time, and what the device's own target adds (its host side).
 *
 * A target makes its device (twice: the second one takes saved state) on the bench's loop and RAM, then hands
 * input over:
 *
 *     struct vbench *b = vbench_open();
 *     ... init both on &b->loop, &b->ram, vbench_deliver, b ...
 *     vbench_run(b, &target, data, size);        ends with the device paused, its state checked, and
 * destroyed vbench_close(b);
 *
 * An input is a list of records: an op byte and its arguments, see vbench_record().
 */
#ifndef VITRO_TESTS_FUZZ_VBENCH_H
#define VITRO_TESTS_FUZZ_VBENCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../dev/vring.h"
#include "base/loop.h"
#include "fuzz.h"
#include "virtio/pci.h"

#define VBENCH_RAM   0x10000U
#define VBENCH_RINGS 6
#define VBENCH_DATA  0xa000U /* from here on nothing lies in RAM but what the input puts there */

enum {
    VB_REG,    /* u16 offset and width, u32 value: a register of BAR 0, written and read */
    VB_RAM,    /* u16 address, u8 n, n bytes */
    VB_KICK,   /* u8 queue */
    VB_CHAIN,  /* u8 ring; u8 parts, bit 7 indirect; each: u16 address with bit 0 "write", u16 length */
    VB_STEP,   /* u8: as many ms pass, then the loop runs once */
    VB_RESET,  /* power-on reset */
    VB_CONFIG, /* u8 offset, u32 value: configuration space of PCI */
    VB_PAUSE,  /* pause and resume */
    VB_GO, /* u8: bit 0 packed, bit 1 event index, rest log2 of the size; u8: device features, by index of the
              list */
    VB_EXTRA, /* the target's own */
    VB_COUNT
};

struct vbench {
    struct clock clock;
    struct loop loop;
    struct ram ram;
    struct bus io, mmio;
    struct pci_host host;
    struct vring ring[VBENCH_RINGS];
    unsigned messages;
};

struct vbench_target {
    const struct device_ops *ops;
    struct virtio_pci *vp; /* of dev */
    void *dev, *other;
    uint8_t queue[VBENCH_RINGS]; /* the queues that VB_GO sets up */
    unsigned queues;
    uint64_t features[4];                                 /* what VB_GO may accept */
    void (*extra)(void *opaque, struct fuzz_input *in); /* device lock held; may be NULL */
    void (*check)(void *opaque);                          /* after the pause; may be NULL */
    void *opaque;
};

struct vbench *vbench_open(void);
void vbench_close(struct vbench *b);
void vbench_deliver(void *opaque, const struct apic_msg *msg);
void vbench_run(struct vbench *b, const struct vbench_target *t, const uint8_t *data, size_t size);

/* Writing seeds. */
struct vbench_seed {
    uint8_t *buf;
    size_t len;
};
void vbench_say(struct vbench_seed *s, const void *bytes, size_t n);
void vbench_say_op(struct vbench_seed *s, uint8_t op, uint8_t arg); /* an op with one byte */
void vbench_say_go(struct vbench_seed *s, unsigned how, unsigned features);
void vbench_say_ram(struct vbench_seed *s, uint16_t at, const void *bytes, uint8_t n);
/* A chain of one part; write: the device writes to it. */
void vbench_say_chain(struct vbench_seed *s, uint8_t ring, uint16_t at, uint16_t len, bool write);

#endif
