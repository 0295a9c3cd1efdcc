/* Models: QEMU's fw_cfg device with the DMA interface: numbered items and named files that firmware reads.
 * Source: QEMU docs/specs/fw_cfg.rst (selector 0x510, data 0x511, DMA address 0x514; signature, revision, directory).
 * Runs on: vCPU threads through the bus, under the device lock; DMA goes through ram.h, which takes no lock.
 *
 * Items cannot be written by the guest. A transfer reads at most what is left of the item and FW_CFG_BEYOND zeros
 * after it, so that the work of one access is bounded by what the machine put in.
 */
#include "chip/fw_cfg.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "ram/ram.h"
#include "state/state.h"

enum { REG_SELECTOR = 0, REG_DATA = 1, REG_DMA_HIGH = 4, REG_DMA_LOW = 8, REG_END = 12 };
enum { DMA_ERROR = 1, DMA_READ = 2, DMA_SKIP = 4, DMA_SELECT = 8, DMA_WRITE = 16 };

#define FW_CFG_BEYOND   0x10000U
#define FW_CFG_DMA_DESC 16 /* control, length, address; big-endian */

static const struct fw_cfg_item fw_cfg_nothing;

/* ---- reading ---- */

static const struct fw_cfg_item *fw_cfg_selected(const struct fw_cfg *f)
{
    return f->selector < FW_CFG_ITEMS ? &f->item[f->selector] : &fw_cfg_nothing;
}

static void fw_cfg_select(struct fw_cfg *f, uint16_t key)
{
    f->selector = key;
    f->offset = 0;
    if (key == FW_CFG_DIR && f->refresh)
        f->refresh(f->opaque);
}

static uint32_t fw_cfg_left(const struct fw_cfg *f)
{
    const struct fw_cfg_item *item = fw_cfg_selected(f);

    return f->offset < item->len ? item->len - f->offset : 0;
}

static void fw_cfg_advance(struct fw_cfg *f, uint32_t len)
{
    if (__builtin_add_overflow(f->offset, len, &f->offset))
        f->offset = UINT32_MAX;
}

static uint8_t fw_cfg_next(struct fw_cfg *f)
{
    uint8_t v = fw_cfg_left(f) ? fw_cfg_selected(f)->data[f->offset] : 0;

    fw_cfg_advance(f, 1);
    return v;
}

/* ---- DMA ---- */

static int fw_cfg_dma_read(struct fw_cfg *f, uint64_t gpa, uint32_t len)
{
    uint32_t have = fw_cfg_left(f);
    int r = 0;

    if (have > len)
        have = len;
    if (len - have > FW_CFG_BEYOND)
        return -EINVAL;
    if (have)
        r = ram_write(f->ram, gpa, fw_cfg_selected(f)->data + f->offset, have);
    if (r == 0 && len > have)
        r = ram_fill(f->ram, gpa + have, 0, len - have);
    if (r == 0)
        fw_cfg_advance(f, len);
    return r;
}

/* The descriptor was fetched once; control is the only part that is written back. */
static void fw_cfg_dma(struct fw_cfg *f, uint64_t gpa)
{
    uint8_t desc[FW_CFG_DMA_DESC];
    uint32_t control, len;
    uint64_t addr;
    int r = 0;

    if (gpa > UINT64_MAX - FW_CFG_DMA_DESC || ram_read(f->ram, gpa, desc, sizeof(desc)) < 0)
        return; /* nowhere to report to */
    control = ld_be32(desc);
    len = ld_be32(desc + 4);
    addr = (uint64_t)ld_be32(desc + 8) << 32 | ld_be32(desc + 12);
    if (control & DMA_SELECT)
        fw_cfg_select(f, (uint16_t)(control >> 16));
    if (control & DMA_READ)
        r = fw_cfg_dma_read(f, addr, len);
    else if (control & DMA_WRITE)
        r = -EACCES;
    else if (control & DMA_SKIP)
        fw_cfg_advance(f, len);
    st_be32(desc, r < 0 ? DMA_ERROR : 0);
    ram_write(f->ram, gpa, desc, 4);
}

/* ---- registers ---- */

static uint64_t fw_cfg_read(void *dev, uint64_t off, unsigned size)
{
    static const uint8_t signature[8] = "QEMU CFG";
    struct fw_cfg *f = dev;
    uint64_t v = 0;

    if (off == REG_DATA && size == 1)
        return fw_cfg_next(f);
    if (off < REG_DMA_HIGH)
        return mask_bytes(size);
    memcpy(&v, signature + (off - REG_DMA_HIGH), size);
    return v;
}

static void fw_cfg_write(void *dev, uint64_t off, uint64_t value, unsigned size)
{
    struct fw_cfg *f = dev;
    uint32_t v = __builtin_bswap32((uint32_t)value);

    if (off == REG_SELECTOR && size == 2) {
        fw_cfg_select(f, (uint16_t)value);
    } else if (off == REG_DMA_HIGH && size == 4) {
        f->dma_high = v;
    } else if (off == REG_DMA_LOW && size == 4) {
        uint64_t gpa = (uint64_t)f->dma_high << 32 | v;

        f->dma_high = 0;
        fw_cfg_dma(f, gpa);
    }
}

static const struct bus_ops fw_cfg_bus = {
    .read = fw_cfg_read, .write = fw_cfg_write, .min_size = 1, .max_size = 4
};

/* ---- the host's side ---- */

static int fw_cfg_put(struct fw_cfg *f, unsigned key, struct fw_cfg_item item)
{
    if (key >= FW_CFG_ITEMS) {
        free(item.copy);
        return -EINVAL;
    }
    free(f->item[key].copy);
    f->item[key] = item;
    return 0;
}

int fw_cfg_borrow(struct fw_cfg *f, unsigned key, const void *data, uint32_t len)
{
    return fw_cfg_put(f, key, (struct fw_cfg_item){ .data = data, .len = len });
}

int fw_cfg_set(struct fw_cfg *f, unsigned key, const void *data, uint32_t len)
{
    uint8_t *copy = malloc(len ? len : 1);

    if (!copy)
        return -ENOMEM;
    memcpy(copy, data, len);
    return fw_cfg_put(f, key, (struct fw_cfg_item){ .data = copy, .copy = copy, .len = len });
}

int fw_cfg_set_int(struct fw_cfg *f, unsigned key, uint64_t value, unsigned size)
{
    uint8_t bytes[8];

    st_le64(bytes, value);
    return fw_cfg_set(f, key, bytes, size);
}

/* Entry n of the directory: size and number big-endian, two bytes unused, the name. */
static uint8_t *fw_cfg_entry(struct fw_cfg *f, unsigned n) { return f->dir + 4 + n * 64; }

static unsigned fw_cfg_find(struct fw_cfg *f, const char *name)
{
    for (unsigned n = 0; n < f->nfiles; n++) {
        if (!strcmp((const char *)fw_cfg_entry(f, n) + 8, name))
            return n;
    }
    return f->nfiles;
}

int fw_cfg_set_file(struct fw_cfg *f, const char *name, const void *data, uint32_t len)
{
    unsigned n = fw_cfg_find(f, name);
    uint8_t *entry;
    int r;

    if (strlen(name) >= FW_CFG_NAME_LEN)
        return -EINVAL;
    if (n == FW_CFG_FILES)
        return -ENOSPC;
    r = fw_cfg_set(f, FW_CFG_FILE_FIRST + n, data, len);
    if (r < 0)
        return r;
    entry = fw_cfg_entry(f, n);
    st_be32(entry, len);
    st_be32(entry + 4, (FW_CFG_FILE_FIRST + n) << 16);
    strcpy((char *)entry + 8, name);
    if (n == f->nfiles)
        f->nfiles++;
    st_be32(f->dir, f->nfiles);
    return fw_cfg_borrow(f, FW_CFG_DIR, f->dir, 4 + f->nfiles * 64);
}

void fw_cfg_on_directory(struct fw_cfg *f, void (*fn)(void *opaque), void *opaque)
{
    f->refresh = fn;
    f->opaque = opaque;
}

/* ---- life cycle ---- */

void fw_cfg_init(struct fw_cfg *f, struct ram *ram)
{
    enum { ID_TRADITIONAL = 1, ID_DMA = 2 };
    static const uint8_t signature[4] = { 'Q', 'E', 'M', 'U' }, id[4] = { ID_TRADITIONAL | ID_DMA };

    *f = (struct fw_cfg){
        .ram = ram,
        .ports = { .base = FW_CFG_PORT, .len = REG_END, .ops = &fw_cfg_bus, .dev = f, .name = "fw-cfg" },
    };
    fw_cfg_borrow(f, FW_CFG_SIGNATURE, signature, sizeof(signature));
    fw_cfg_borrow(f, FW_CFG_ID, id, sizeof(id));
    fw_cfg_borrow(f, FW_CFG_DIR, f->dir, 4);
}

int fw_cfg_attach(struct fw_cfg *f, struct bus *io) { return bus_add(io, &f->ports); }

static void fw_cfg_reset(void *dev)
{
    struct fw_cfg *f = dev;

    f->selector = 0;
    f->offset = f->dma_high = 0;
}

static void fw_cfg_destroy(void *dev)
{
    struct fw_cfg *f = dev;

    for (unsigned n = 0; n < FW_CFG_ITEMS; n++) {
        free(f->item[n].copy);
        f->item[n] = fw_cfg_nothing;
    }
}

static const struct state_field fw_cfg_fields[] = {
    STATE_F16(struct fw_cfg, selector),
    STATE_F32(struct fw_cfg, offset),
    STATE_F32(struct fw_cfg, dma_high),
    STATE_END,
};
static const struct state_desc fw_cfg_state = {
    .name = "fw-cfg", .version = 1, .size = sizeof(struct fw_cfg), .fields = fw_cfg_fields
};

const struct device_ops fw_cfg_ops = {
    .type = "fw-cfg",
    .reset = fw_cfg_reset,
    .destroy = fw_cfg_destroy,
    .state = &fw_cfg_state,
};
