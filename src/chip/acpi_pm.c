/* Models: the fixed hardware of ACPI: PM1a event and control registers, PM timer, one GPE block, the SMI
 * command port that switches ACPI on, and the chip set's reset control register at 0xCF9.
 * Source: ACPI 6.4, section 4.8 (fixed hardware), 4.8.4.1 (GPE blocks); Intel ICH9 datasheet, RST_CNT.
 * Runs on: vCPU threads through the bus and the loop's thread (timer), all under the device lock.
 */
#include "chip/acpi_pm.h"

#include <errno.h>

#include "base/bits.h"
#include "base/err.h"
#include "base/log.h"
#include "state/state.h"

enum {
    PM1_TMR = 0x0001,
    PM1_BM = 0x0010,
    PM1_GBL = 0x0020,
    PM1_PWRBTN = 0x0100,
    PM1_SLPBTN = 0x0200,
    PM1_RTC = 0x0400,
    PM1_WAK = 0x8000
};
enum {
    PM1_EVENTS = PM1_TMR | PM1_GBL | PM1_PWRBTN | PM1_SLPBTN | PM1_RTC,
    PM1_STATUS = PM1_EVENTS | PM1_BM | PM1_WAK
};
enum { CNT_SCI_EN = 0x0001, CNT_BM_RLD = 0x0002, CNT_SLP_TYP = 0x1c00, CNT_SLP_EN = 0x2000 };
enum { RST_SYSTEM = 0x02, RST_CPU = 0x04, RST_FULL = 0x08 };

/* Offsets in the block of PM registers, and its length. */
enum {
    OFF_EVT = 0,
    OFF_CNT = ACPI_PM_CNT_PORT - ACPI_PM_EVT_PORT,
    OFF_TMR = ACPI_PM_TMR_PORT - ACPI_PM_EVT_PORT,
    PM_LEN = 16
};

/* ---- timer ---- */

static uint64_t acpi_pm_ticks(const struct acpi_pm *a)
{
    return muldiv64(clock_ns(a->loop->clock), ACPI_PM_HZ, NSEC_PER_SEC);
}

/* TMR_STS is set by each change of the counter's top bit. */
static unsigned acpi_pm_top_bit(const struct acpi_pm *a) { return a->timer_32bit ? 31 : 23; }

static void acpi_pm_sync(struct acpi_pm *a)
{
    uint64_t carries = acpi_pm_ticks(a) >> acpi_pm_top_bit(a);

    if (carries != a->tmr_seen)
        a->pm1_sts |= PM1_TMR;
    a->tmr_seen = carries;
}

static void acpi_pm_schedule(struct acpi_pm *a)
{
    timer_cancel(&a->timer);
    if (!(a->pm1_en & PM1_TMR) || (a->pm1_sts & PM1_TMR))
        return;
    uint64_t tick = ((acpi_pm_ticks(a) >> acpi_pm_top_bit(a)) + 1) << acpi_pm_top_bit(a);
    timer_arm(&a->timer, muldiv64(tick, NSEC_PER_SEC, ACPI_PM_HZ) + 1);
}

static void acpi_pm_update(struct acpi_pm *a)
{
    acpi_pm_sync(a);
    bool level =
        (a->pm1_cnt & CNT_SCI_EN) && ((a->pm1_sts & a->pm1_en & PM1_EVENTS) || (a->gpe_sts & a->gpe_en));
    if (level != a->sci_level) {
        a->sci_level = level;
        irq_set(&a->sci, level);
    }
    acpi_pm_schedule(a);
}

static void acpi_pm_expire(void *opaque) { acpi_pm_update(opaque); }

/* ---- PM1 and timer registers ---- */

static uint64_t acpi_pm_read(void *dev, uint64_t off, unsigned size)
{
    struct acpi_pm *a = dev;
    uint8_t image[PM_LEN + 4] = { 0 };
    uint64_t ticks = acpi_pm_ticks(a);

    acpi_pm_update(a);
    st_le16(image + OFF_EVT, a->pm1_sts);
    st_le16(image + OFF_EVT + 2, a->pm1_en);
    st_le16(image + OFF_CNT, a->pm1_cnt);
    st_le32(image + OFF_TMR, (uint32_t)(a->timer_32bit ? ticks : ticks & 0xffffff));
    return ld_le32(image + off);
}

static void acpi_pm_write_control(struct acpi_pm *a, uint16_t v)
{
    unsigned type = (unsigned)bits(v, 12, 10);

    /* SCI_EN is changed through the SMI command port alone (4.8.3.2.1). */
    a->pm1_cnt = (a->pm1_cnt & CNT_SCI_EN) | (v & (CNT_BM_RLD | CNT_SLP_TYP));
    if (!(v & CNT_SLP_EN))
        return;
    if (type == ACPI_PM_SLP_TYP_S5) {
        if (a->hooks.power_off)
            a->hooks.power_off(a->hooks.opaque);
    } else {
        log_guest("acpi: sleep type %u is not offered", type);
    }
}

/* One byte of the block; 16-bit registers may be written by halves. */
static void acpi_pm_write_byte(struct acpi_pm *a, unsigned off, uint8_t v)
{
    unsigned shift = 8 * (off & 1);
    uint16_t keep = (uint16_t) ~(0xff << shift), put = (uint16_t)(v << shift);

    switch (off & ~1U) {
    case OFF_EVT:
        a->pm1_sts &= ~put;
        break;
    case OFF_EVT + 2:
        a->pm1_en = ((a->pm1_en & keep) | put) & PM1_EVENTS;
        break;
    case OFF_CNT:
        acpi_pm_write_control(a, (a->pm1_cnt & keep) | put);
        break;
    }
}

static void acpi_pm_write(void *dev, uint64_t off, uint64_t value, unsigned size)
{
    struct acpi_pm *a = dev;

    acpi_pm_sync(a);
    for (unsigned i = 0; i < size; i++)
        acpi_pm_write_byte(a, (unsigned)off + i, (uint8_t)(value >> (8 * i)));
    acpi_pm_update(a);
}

/* ---- general-purpose events: 2 bytes of status, 2 of enables ---- */

static uint64_t acpi_pm_gpe_read(void *dev, uint64_t off, unsigned size)
{
    struct acpi_pm *a = dev;
    return ((uint32_t)a->gpe_en << 16 | a->gpe_sts) >> (8 * off);
}

static void acpi_pm_gpe_write(void *dev, uint64_t off, uint64_t value, unsigned size)
{
    struct acpi_pm *a = dev;
    uint32_t v = (uint32_t)value << (8 * off), mask = (uint32_t)mask_bytes(size) << (8 * off);

    a->gpe_sts &= (uint16_t)~v;
    a->gpe_en = (uint16_t)((a->gpe_en & ~(mask >> 16)) | v >> 16);
    acpi_pm_update(a);
}

void acpi_pm_raise_gpe(struct acpi_pm *a, unsigned event)
{
    if (event >= 16)
        return;
    a->gpe_sts |= (uint16_t)BIT(event);
    acpi_pm_update(a);
}

bool acpi_pm_gpe_settled(const struct acpi_pm *a, unsigned event)
{
    return !(a->gpe_sts >> event & 1) && a->gpe_en >> event & 1;
}

bool acpi_pm_power_button(struct acpi_pm *a)
{
    a->pm1_sts |= PM1_PWRBTN;
    acpi_pm_update(a);
    return (a->pm1_cnt & CNT_SCI_EN) && (a->pm1_en & PM1_PWRBTN);
}

void acpi_pm_rtc_alarm(void *opaque, unsigned pin, bool level)
{
    struct acpi_pm *a = opaque;

    if (!level)
        return;
    a->pm1_sts |= PM1_RTC;
    acpi_pm_update(a);
}

/* ---- SMI command and reset ports ---- */

static uint64_t acpi_pm_smi_read(void *dev, uint64_t off, unsigned size)
{
    struct acpi_pm *a = dev;
    return off ? a->smi_data : a->smi_cmd;
}

static void acpi_pm_smi_write(void *dev, uint64_t off, uint64_t value, unsigned size)
{
    struct acpi_pm *a = dev;

    if (off) {
        a->smi_data = (uint8_t)value;
        return;
    }
    a->smi_cmd = (uint8_t)value;
    if (value == ACPI_PM_ENABLE)
        a->pm1_cnt |= CNT_SCI_EN;
    else if (value == ACPI_PM_DISABLE)
        a->pm1_cnt &= ~CNT_SCI_EN;
    acpi_pm_update(a);
}

static uint64_t acpi_pm_reset_read(void *dev, uint64_t off, unsigned size)
{
    return ((struct acpi_pm *)dev)->reset_ctl;
}

/* RST_CPU going from 0 to 1 resets; what kind makes no difference to this machine. */
static void acpi_pm_reset_write(void *dev, uint64_t off, uint64_t value, unsigned size)
{
    struct acpi_pm *a = dev;
    bool reset = (value & RST_CPU) && !(a->reset_ctl & RST_CPU);

    a->reset_ctl = value & (RST_SYSTEM | RST_CPU | RST_FULL);
    if (reset && a->hooks.reset)
        a->hooks.reset(a->hooks.opaque);
}

static const struct bus_ops acpi_pm_bus = {
    .read = acpi_pm_read, .write = acpi_pm_write, .min_size = 1, .max_size = 4
};
static const struct bus_ops acpi_pm_gpe_bus = {
    .read = acpi_pm_gpe_read, .write = acpi_pm_gpe_write, .min_size = 1, .max_size = 4
};
static const struct bus_ops acpi_pm_smi_bus = {
    .read = acpi_pm_smi_read, .write = acpi_pm_smi_write, .min_size = 1, .max_size = 1
};
static const struct bus_ops acpi_pm_reset_bus = {
    .read = acpi_pm_reset_read, .write = acpi_pm_reset_write, .min_size = 1, .max_size = 1
};

/* ---- life cycle ---- */

static void acpi_pm_reset(void *dev)
{
    struct acpi_pm *a = dev;

    a->pm1_sts = a->pm1_en = a->pm1_cnt = a->gpe_sts = a->gpe_en = 0;
    a->smi_cmd = a->smi_data = a->reset_ctl = 0;
    a->tmr_seen = acpi_pm_ticks(a) >> acpi_pm_top_bit(a);
    acpi_pm_update(a);
}

void acpi_pm_init(struct acpi_pm *a, struct loop *loop, struct irq_line sci, bool timer_32bit,
                  struct acpi_pm_hooks hooks)
{
    *a = (struct acpi_pm){
        .timer_32bit = timer_32bit,
        .loop = loop,
        .sci = sci,
        .hooks = hooks,
        .pm = { .base = ACPI_PM_EVT_PORT, .len = PM_LEN, .ops = &acpi_pm_bus, .dev = a, .name = "acpi-pm" },
        .gpe = { .base = ACPI_PM_GPE0_PORT,
                 .len = ACPI_PM_GPE0_LEN,
                 .ops = &acpi_pm_gpe_bus,
                 .dev = a,
                 .name = "acpi-gpe0" },
        .smi = { .base = ACPI_PM_SMI_PORT,
                 .len = 2,
                 .ops = &acpi_pm_smi_bus,
                 .dev = a,
                 .name = "smi-command" },
        .reset_region = { .base = ACPI_PM_RESET_PORT,
                          .len = 1,
                          .ops = &acpi_pm_reset_bus,
                          .dev = a,
                          .name = "reset-control" },
    };
    timer_init(&a->timer, loop, acpi_pm_expire, a);
    acpi_pm_reset(a);
}

int acpi_pm_attach(struct acpi_pm *a, struct bus *io)
{
    int rc = bus_add(io, &a->pm);
    if (!rc)
        rc = bus_add(io, &a->gpe);
    if (!rc)
        rc = bus_add(io, &a->smi);
    if (rc) {
        bus_remove(io, &a->pm);
        bus_remove(io, &a->gpe);
    }
    return rc;
}

static void acpi_pm_pause(void *dev) { timer_cancel(&((struct acpi_pm *)dev)->timer); }

static void acpi_pm_resume(void *dev)
{
    struct acpi_pm *a = dev;

    irq_set(&a->sci, a->sci_level);
    acpi_pm_schedule(a);
}

static int acpi_pm_check(void *obj, struct err *err)
{
    struct acpi_pm *a = obj;

    if ((a->pm1_sts & ~PM1_STATUS) || (a->pm1_en & ~PM1_EVENTS) ||
        (a->pm1_cnt & ~(CNT_SCI_EN | CNT_BM_RLD | CNT_SLP_TYP)))
        return err_set(err, EINVAL, "ACPI: reserved bits set");
    return 0;
}

static const struct state_field acpi_pm_fields[] = {
    STATE_F16(struct acpi_pm, pm1_sts),
    STATE_F16(struct acpi_pm, pm1_en),
    STATE_F16(struct acpi_pm, pm1_cnt),
    STATE_F16(struct acpi_pm, gpe_sts),
    STATE_F16(struct acpi_pm, gpe_en),
    STATE_F8(struct acpi_pm, smi_cmd),
    STATE_F8(struct acpi_pm, smi_data),
    STATE_F8(struct acpi_pm, reset_ctl),
    STATE_F64(struct acpi_pm, tmr_seen),
    STATE_FBOOL(struct acpi_pm, sci_level),
    STATE_END,
};
static const struct state_desc acpi_pm_state = {
    .name = "acpi-pm",
    .version = 1,
    .size = sizeof(struct acpi_pm),
    .fields = acpi_pm_fields,
    .check = acpi_pm_check,
};

const struct device_ops acpi_pm_ops = {
    .type = "acpi-pm",
    .reset = acpi_pm_reset,
    .pause = acpi_pm_pause,
    .resume = acpi_pm_resume,
    .destroy = acpi_pm_pause,
    .state = &acpi_pm_state,
};
