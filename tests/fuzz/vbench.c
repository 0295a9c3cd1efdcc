/* The bench of vbench.h. One thread, a manual clock; everything that the driver does goes through the bus and
 * guest memory, as a driver's doing would. */
#include "vbench.h"

#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/err.h"
#include "fuzz.h"
#include "state/state.h"

#define BAR  0xfe000000ULL
#define MSIX 0xfe010000ULL

enum { RING_AREA = 0x1800, RING_DRIVER = 0x800, RING_DEVICE = 0x1000, RING_MAX = 64, INPUT_MAX = 4096 };

_Static_assert(0x1000 + VBENCH_RINGS * RING_AREA <= VBENCH_DATA, "rings lie below the data");

void vbench_deliver(void *opaque, const struct apic_msg *msg) { ((struct vbench *)opaque)->messages++; }

struct vbench *vbench_open(void)
{
    struct vbench *b = calloc(1, sizeof(*b));
    struct irq_line none[4] = { { 0 } };

    FUZZ_CHECK(b);
    clock_init_manual(&b->clock, 0);
    FUZZ_CHECK(loop_init(&b->loop, &b->clock) == 0);
    ram_init(&b->ram);
    FUZZ_CHECK(ram_add_slot(&b->ram, 0, VBENCH_RAM, false) == 0);
    bus_init(&b->io, "io", &b->loop, 0x10000);
    bus_init(&b->mmio, "mmio", &b->loop, 0);
    pci_host_init(&b->host, &b->io, &b->mmio, none);
    return b;
}

void vbench_close(struct vbench *b)
{
    ram_fini(&b->ram);
    loop_fini(&b->loop);
    free(b);
}

static void put(struct vbench *b, uint64_t off, uint64_t v, unsigned size)
{
    bus_write(&b->mmio, BAR + off, v, size);
}

static void plug(struct virtio_pci *vp)
{
    pci_dev_config_write(&vp->pci, PCI_BAR0, (uint32_t)BAR, 4);
    pci_dev_config_write(&vp->pci, PCI_BAR0 + 4, (uint32_t)MSIX, 4);
    pci_dev_config_write(&vp->pci, PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER, 2);
}

static void set_queue(struct vbench *b, unsigned queue, const struct vring *r)
{
    const uint64_t area[] = { r->desc, r->driver, r->device };

    put(b, 0x16, queue, 2);
    put(b, 0x18, r->size, 2);
    for (unsigned i = 0; i < 3; i++)
        put(b, 0x20 + 8 * i, area[i], 4);
    put(b, 0x1c, 1, 2);
}

/* The driver's way to DRIVER_OK. */
static void go(struct vbench *b, const struct vbench_target *t, uint8_t how, uint8_t which)
{
    uint64_t features = VIRTIO_F_VERSION_1 | VIRTIO_F_INDIRECT_DESC | (how & 1 ? VIRTIO_F_RING_PACKED : 0) |
                        (how & 2 ? VIRTIO_F_EVENT_IDX : 0) | t->features[which % ARRAY_LEN(t->features)];
    uint16_t size = (uint16_t)(1U << ((how >> 2) % 7));

    plug(t->vp);
    put(b, 0x14, 0, 1);
    put(b, 0x08, 0, 4);
    put(b, 0x0c, (uint32_t)features, 4);
    put(b, 0x08, 1, 4);
    put(b, 0x0c, features >> 32, 4);
    put(b, 0x14, 0xb, 1);
    for (unsigned i = 0; i < t->queues; i++) {
        struct vring *r = &b->ring[i];
        vring_init(r, &b->ram, how & 1, size, 0x1000 + i * (uint64_t)RING_AREA);
        r->driver = r->desc + RING_DRIVER;
        r->device = r->desc + RING_DEVICE;
        ram_fill(&b->ram, r->desc, 0, RING_AREA);
        set_queue(b, t->queue[i], r);
    }
    put(b, 0x14, 0xf, 1);
}

static void write_ram(struct vbench *b, struct fuzz_input *in)
{
    uint64_t at = fuzz_take(in, 2);
    size_t len = (size_t)fuzz_take(in, 1);

    if (len > in->left)
        len = in->left;
    ram_write(&b->ram, at, in->at, at + len > VBENCH_RAM ? VBENCH_RAM - at : len);
    in->at += len;
    in->left -= len;
}

static void add_chain(struct vbench *b, struct fuzz_input *in)
{
    struct vring *r = &b->ring[fuzz_take(in, 1) % VBENCH_RINGS];
    uint8_t how = (uint8_t)fuzz_take(in, 1);
    unsigned n = (how & 7) + 1u;
    struct vring_part part[8];

    for (unsigned i = 0; i < n; i++) {
        uint64_t at = fuzz_take(in, 2);
        part[i] =
            (struct vring_part){ .gpa = at & ~1ULL, .len = (uint32_t)fuzz_take(in, 2), .write = at & 1 };
    }
    if (!r->size || n > r->size)
        return;
    if (how & 0x80)
        vring_add_indirect(r, VBENCH_RAM - 0x100, part, n);
    else
        vring_add(r, part, n);
}

static void pause_and_go_on(struct vbench *b, const struct vbench_target *t)
{
    loop_lock(&b->loop);
    t->ops->pause(t->dev);
    t->ops->resume(t->dev);
    loop_unlock(&b->loop);
}

static void step(struct vbench *b, unsigned ms)
{
    clock_advance(&b->clock, ms * 1000000ULL);
    loop_step(&b->loop, 0);
}

static void vbench_record(struct vbench *b, const struct vbench_target *t, struct fuzz_input *in)
{
    uint64_t off;

    switch (fuzz_take(in, 1) % VB_COUNT) {
    case VB_REG:
        off = fuzz_take(in, 2);
        bus_write(&b->mmio, BAR + off % 0x4000, fuzz_take(in, 4), 1U << (off >> 14) % 3);
        bus_read(&b->mmio, BAR + off % 0x4000, 1U << (off >> 14) % 3);
        break;
    case VB_RAM:
        write_ram(b, in);
        break;
    case VB_KICK:
        put(b, 0x3000 + 4 * (fuzz_take(in, 1) & 63), 0, 2);
        break;
    case VB_CHAIN:
        add_chain(b, in);
        break;
    case VB_STEP:
        step(b, (unsigned)fuzz_take(in, 1));
        break;
    case VB_RESET:
        loop_lock(&b->loop);
        t->ops->reset(t->dev);
        loop_unlock(&b->loop);
        break;
    case VB_CONFIG:
        off = fuzz_take(in, 1);
        pci_dev_config_write(&t->vp->pci, (unsigned)off & 0xfc, (uint32_t)fuzz_take(in, 4), 4);
        break;
    case VB_PAUSE:
        pause_and_go_on(b, t);
        break;
    case VB_GO:
        off = fuzz_take(in, 1);
        go(b, t, (uint8_t)off, (uint8_t)fuzz_take(in, 1));
        break;
    case VB_EXTRA:
        loop_lock(&b->loop);
        if (t->extra)
            t->extra(t->opaque, in);
        loop_unlock(&b->loop);
        break;
    }
}

/* What it has besides, if it can be saved now. */
static void check_more(const struct vbench_target *t)
{
    const struct device_more *more = t->ops->more;
    uint8_t *x, *y;
    size_t xlen, ylen;
    struct err err = { "" };

    if (more->save(t->dev, false, &x, &xlen, &err) < 0) {
        FUZZ_CHECK(err.text[0]);
        return;
    }
    FUZZ_CHECK(more->load(t->other, false, x, xlen, &err) == 0 && more->save(t->other, false, &y, &ylen, &err) == 0);
    FUZZ_CHECK(xlen == ylen && memcmp(x, y, xlen) == 0);
    free(x);
    free(y);
}

/* The state of a device that stands: saved, loaded into another one, saved again. */
static void check_state(const struct vbench_target *t)
{
    struct state_buf x = { .data = NULL }, y = { .data = NULL };
    struct err err = { "" };

    FUZZ_CHECK(state_save(&x, t->ops->state, 0, t->dev) == 0);
    FUZZ_CHECK(state_load(x.data, x.len, t->ops->state, 0, t->other, &err) == 0);
    FUZZ_CHECK(state_save(&y, t->ops->state, 0, t->other) == 0);
    FUZZ_CHECK(x.len == y.len && memcmp(x.data, y.data, x.len) == 0);
    state_buf_fini(&x);
    state_buf_fini(&y);
    if (t->ops->more)
        check_more(t);
}

void vbench_run(struct vbench *b, const struct vbench_target *t, const uint8_t *data, size_t size)
{
    struct fuzz_input in = { data, size < INPUT_MAX ? size : INPUT_MAX };

    FUZZ_CHECK(pci_dev_plug(&t->vp->pci, &b->host, 1) == 0);
    plug(t->vp);
    while (in.left)
        vbench_record(b, t, &in);
    loop_lock(&b->loop);
    t->ops->pause(t->dev);
    if (t->check)
        t->check(t->opaque);
    check_state(t);
    t->ops->destroy(t->dev);
    t->ops->destroy(t->other);
    loop_unlock(&b->loop);
}

void vbench_say(struct vbench_seed *s, const void *bytes, size_t n)
{
    memcpy(s->buf + s->len, bytes, n);
    s->len += n;
}

void vbench_say_op(struct vbench_seed *s, uint8_t op, uint8_t arg)
{
    vbench_say(s, (uint8_t[]){ op, arg }, 2);
}

void vbench_say_go(struct vbench_seed *s, unsigned how, unsigned features)
{
    vbench_say(s, (uint8_t[]){ VB_GO, (uint8_t)how, (uint8_t)features }, 3);
}

void vbench_say_ram(struct vbench_seed *s, uint16_t at, const void *bytes, uint8_t n)
{
    vbench_say(s, (uint8_t[]){ VB_RAM, (uint8_t)at, (uint8_t)(at >> 8), n }, 4);
    vbench_say(s, bytes, n);
}

void vbench_say_chain(struct vbench_seed *s, uint8_t ring, uint16_t at, uint16_t len, bool write)
{
    at = (uint16_t)((at & ~1U) | write);
    vbench_say(
        s,
        (uint8_t[]){ VB_CHAIN, ring, 0, (uint8_t)at, (uint8_t)(at >> 8), (uint8_t)len, (uint8_t)(len >> 8) },
        7);
}
