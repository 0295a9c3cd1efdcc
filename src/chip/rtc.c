/* Models: a Motorola MC146818A real-time clock with 128 bytes of memory, the century at cell 0x32.
 * Source: MC146818A datasheet (registers A to D, update cycle, interrupts); ACPI 6.4 section 4.8.2.4 for
 * the century cell.
 * Runs on: vCPU threads through the bus and the loop's thread (timer), all under the device lock.
 *
 * The time is not stepped: it is the host's wall clock plus what the guest has set. While the guest holds
 * the clock (SET, or the divider in reset) the time cells hold the time. Flags are worked out when
 * somebody looks; a timer runs only while an interrupt can come of it.
 */
#include "chip/rtc.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include "base/bits.h"
#include "base/err.h"
#include "state/state.h"

enum {
    CELL_SEC,
    CELL_SEC_ALARM,
    CELL_MIN,
    CELL_MIN_ALARM,
    CELL_HOUR,
    CELL_HOUR_ALARM,
    CELL_WEEKDAY,
    CELL_DAY,
    CELL_MONTH,
    CELL_YEAR,
    REG_A,
    REG_B,
    REG_C,
    REG_D
};

enum { A_UIP = 0x80, A_DIVIDER = 0x70, A_DIVIDER_RESET = 0x60, A_RATE = 0x0f, A_RUN_1024HZ = 0x26 };
enum { B_SET = 0x80, B_PIE = 0x40, B_AIE = 0x20, B_UIE = 0x10, B_SQWE = 0x08, B_BINARY = 0x04, B_24H = 0x02 };
enum { C_IRQF = 0x80, C_PF = 0x40, C_AF = 0x20, C_UF = 0x10, D_VALID = 0x80 };

#define RTC_HZ 32768ULL
/* UIP rises this long before an update. */
#define RTC_UIP_NS 244000ULL
/* Seconds that a guest's setting may differ from the host's clock: years 0 to 9999 and some. */
#define RTC_MAX_OFFSET 400000000000LL
#define RTC_DAY        86400

/* ---- the time ---- */

struct rtc_time {
    int64_t sec; /* since 1970 */
    uint32_t ns;
};

static struct rtc_time rtc_now(const struct rtc *r)
{
    uint64_t wall = clock_wall_ns(r->loop->clock);
    uint64_t ns = wall % NSEC_PER_SEC + r->offset_ns;

    return (struct rtc_time){
        .sec = (int64_t)(wall / NSEC_PER_SEC + r->offset + ns / NSEC_PER_SEC),
        .ns = (uint32_t)(ns % NSEC_PER_SEC),
    };
}

/* Make rtc_now() return t. */
static void rtc_set_now(struct rtc *r, struct rtc_time t)
{
    uint64_t wall = clock_wall_ns(r->loop->clock), wall_ns = wall % NSEC_PER_SEC;
    int64_t sec = t.sec;

    if (t.ns < wall_ns) {
        t.ns += (uint32_t)NSEC_PER_SEC;
        sec--;
    }
    r->offset_ns = (uint32_t)(t.ns - wall_ns);
    r->offset = (uint64_t)sec - wall / NSEC_PER_SEC;
    r->seen_second = (uint64_t)rtc_now(r).sec;
}

static bool rtc_divider_runs(const struct rtc *r)
{
    return (r->cmos[REG_A] & A_DIVIDER_RESET) != A_DIVIDER_RESET;
}

static bool rtc_ticking(const struct rtc *r) { return !(r->cmos[REG_B] & B_SET) && rtc_divider_runs(r); }

static uint8_t rtc_encode(const struct rtc *r, unsigned v)
{
    return (uint8_t)(r->cmos[REG_B] & B_BINARY ? v : v / 10 << 4 | v % 10);
}

static unsigned rtc_decode(const struct rtc *r, uint8_t v)
{
    return r->cmos[REG_B] & B_BINARY ? v : (v >> 4) * 10U + (v & 15);
}

/* 12-hour mode counts 12, 1 .. 11 with bit 7 for the afternoon. */
static uint8_t rtc_encode_hour(const struct rtc *r, unsigned hour)
{
    if (r->cmos[REG_B] & B_24H)
        return rtc_encode(r, hour);
    return rtc_encode(r, hour % 12 ? hour % 12 : 12) | (hour >= 12 ? 0x80 : 0);
}

static unsigned rtc_decode_hour(const struct rtc *r, uint8_t v)
{
    if (r->cmos[REG_B] & B_24H)
        return rtc_decode(r, v);
    return rtc_decode(r, v & 0x7f) % 12 + (v & 0x80 ? 12 : 0);
}

static bool rtc_is_time_cell(unsigned cell)
{
    return cell == RTC_CENTURY ||
           (cell <= CELL_YEAR && cell != CELL_SEC_ALARM && cell != CELL_MIN_ALARM && cell != CELL_HOUR_ALARM);
}

/* Write the running time into the cells. */
static void rtc_to_cells(struct rtc *r)
{
    time_t sec = (time_t)rtc_now(r).sec;
    struct tm tm = { .tm_mday = 1 };

    gmtime_r(&sec, &tm);
    unsigned year = (unsigned)(tm.tm_year + 1900) % 10000;
    r->cmos[CELL_SEC] = rtc_encode(r, (unsigned)tm.tm_sec % 60);
    r->cmos[CELL_MIN] = rtc_encode(r, (unsigned)tm.tm_min);
    r->cmos[CELL_HOUR] = rtc_encode_hour(r, (unsigned)tm.tm_hour);
    r->cmos[CELL_WEEKDAY] = rtc_encode(r, ((unsigned)tm.tm_wday + r->weekday_shift) % 7 + 1);
    r->cmos[CELL_DAY] = rtc_encode(r, (unsigned)tm.tm_mday);
    r->cmos[CELL_MONTH] = rtc_encode(r, (unsigned)tm.tm_mon + 1);
    r->cmos[CELL_YEAR] = rtc_encode(r, year % 100);
    r->cmos[RTC_CENTURY] = rtc_encode(r, year / 100);
}

static int rtc_clamp(unsigned v, unsigned lo, unsigned hi) { return (int)(v < lo ? lo : v > hi ? hi : v); }

/* Go on from the time in the cells with the given part of the second. Impossible fields are clamped. */
static void rtc_from_cells(struct rtc *r, uint32_t ns)
{
    int year = rtc_clamp(rtc_decode(r, r->cmos[RTC_CENTURY]), 0, 99) * 100 +
               rtc_clamp(rtc_decode(r, r->cmos[CELL_YEAR]), 0, 99);
    struct tm tm = {
        .tm_sec = rtc_clamp(rtc_decode(r, r->cmos[CELL_SEC]), 0, 59),
        .tm_min = rtc_clamp(rtc_decode(r, r->cmos[CELL_MIN]), 0, 59),
        .tm_hour = rtc_clamp(rtc_decode_hour(r, r->cmos[CELL_HOUR]), 0, 23),
        .tm_mday = rtc_clamp(rtc_decode(r, r->cmos[CELL_DAY]), 1, 31),
        .tm_mon = rtc_clamp(rtc_decode(r, r->cmos[CELL_MONTH]), 1, 12) - 1,
        .tm_year = year - 1900,
    };
    int64_t sec = timegm(&tm); /* also fills in the day of the week */
    unsigned weekday = (unsigned)rtc_clamp(rtc_decode(r, r->cmos[CELL_WEEKDAY]), 1, 7) - 1;

    r->weekday_shift = (uint8_t)((weekday + 7 - (unsigned)tm.tm_wday) % 7);
    rtc_set_now(r, (struct rtc_time){ .sec = sec, .ns = ns });
}

/* ---- flags and interrupts ---- */

/* The periodic interrupt's period in 32768 Hz ticks; 0: off. */
static uint64_t rtc_period(const struct rtc *r)
{
    unsigned rate = r->cmos[REG_A] & A_RATE;

    if (!rate || !rtc_divider_runs(r))
        return 0;
    return BIT(rate <= 2 ? rate + 6 : rate - 1);
}

static uint64_t rtc_periods_now(const struct rtc *r)
{
    uint64_t period = rtc_period(r);

    return period ? muldiv64(clock_ns(r->loop->clock) - r->divider_base, RTC_HZ, NSEC_PER_SEC) / period : 0;
}

static bool rtc_alarm_cell(const struct rtc *r, unsigned cell, uint8_t now)
{
    return (r->cmos[cell] & 0xc0) == 0xc0 || r->cmos[cell] == now;
}

static bool rtc_alarm_at(const struct rtc *r, int64_t sec)
{
    unsigned s = (unsigned)((sec % RTC_DAY + RTC_DAY) % RTC_DAY);

    return rtc_alarm_cell(r, CELL_SEC_ALARM, rtc_encode(r, s % 60)) &&
           rtc_alarm_cell(r, CELL_MIN_ALARM, rtc_encode(r, s / 60 % 60)) &&
           rtc_alarm_cell(r, CELL_HOUR_ALARM, rtc_encode_hour(r, s / 3600));
}

/* Set the flags for the updates since the last look. One day holds every alarm. */
static void rtc_sync_seconds(struct rtc *r)
{
    int64_t now = rtc_now(r).sec, seen = (int64_t)r->seen_second;

    if (!rtc_ticking(r) || now == seen)
        return;
    r->seen_second = (uint64_t)now;
    if (now < seen) /* the host's clock was set back: no update happened */
        return;
    r->cmos[REG_C] |= C_UF;
    if (now - seen > RTC_DAY)
        seen = now - RTC_DAY;
    while (seen++ < now && !(r->cmos[REG_C] & C_AF)) {
        if (rtc_alarm_at(r, seen))
            r->cmos[REG_C] |= C_AF;
    }
}

static void rtc_sync_periods(struct rtc *r)
{
    uint64_t n = rtc_periods_now(r);

    if (n > r->seen_periods)
        r->cmos[REG_C] |= C_PF;
    r->seen_periods = n;
}

static void rtc_drive(struct rtc *r)
{
    bool level = r->cmos[REG_C] & r->cmos[REG_B] & (C_PF | C_AF | C_UF);

    if (level)
        r->cmos[REG_C] |= C_IRQF;
    else
        r->cmos[REG_C] &= ~C_IRQF;
    bool alarm = r->cmos[REG_C] & r->cmos[REG_B] & C_AF;
    if (alarm != r->alarm_level) {
        r->alarm_level = alarm;
        irq_set(&r->alarm, alarm);
    }
    level = level && !r->irq_blocked;
    if (level != r->irq_level) {
        r->irq_level = level;
        irq_set(&r->irq, level);
    }
}

/* Arm the timer for the next event that would raise the line. */
static void rtc_schedule(struct rtc *r)
{
    uint8_t waits = r->cmos[REG_B] & ~r->cmos[REG_C];
    uint64_t now = timer_now(&r->timer), due = UINT64_MAX, period = rtc_period(r);

    timer_cancel(&r->timer);
    if ((waits & (B_UIE | B_AIE)) && rtc_ticking(r))
        due = now + NSEC_PER_SEC - rtc_now(r).ns;
    if ((waits & B_PIE) && period) {
        uint64_t tick = r->divider_base + muldiv64((r->seen_periods + 1) * period, NSEC_PER_SEC, RTC_HZ) + 1;
        if (tick < due)
            due = tick;
    }
    if (due != UINT64_MAX)
        timer_arm(&r->timer, due);
}

/* Bring flags, line and timer up to now. */
static void rtc_update(struct rtc *r)
{
    rtc_sync_seconds(r);
    rtc_sync_periods(r);
    rtc_drive(r);
    rtc_schedule(r);
}

static void rtc_expire(void *opaque) { rtc_update(opaque); }

/* ---- registers ---- */

static void rtc_write_a(struct rtc *r, uint8_t v)
{
    bool ran = rtc_ticking(r), divided = rtc_divider_runs(r);
    uint64_t old_period = rtc_period(r);

    if (ran && (v & A_DIVIDER_RESET) == A_DIVIDER_RESET)
        rtc_to_cells(r);
    r->cmos[REG_A] = v & ~A_UIP;
    /* The first update comes half a second after the divider is released. */
    if (!divided && rtc_divider_runs(r)) {
        r->divider_base = clock_ns(r->loop->clock);
        if (rtc_ticking(r))
            rtc_from_cells(r, NSEC_PER_SEC / 2);
    }
    if (rtc_period(r) != old_period || !divided)
        r->seen_periods = rtc_periods_now(r);
}

static void rtc_write_b(struct rtc *r, uint8_t v)
{
    bool ran = rtc_ticking(r);

    if (v & B_SET)
        v &= ~B_UIE; /* setting SET clears UIE */
    if (ran && (v & B_SET))
        rtc_to_cells(r);
    r->cmos[REG_B] = v;
    if (!ran && rtc_ticking(r))
        rtc_from_cells(r, rtc_now(r).ns);
}

static void rtc_write_time(struct rtc *r, unsigned cell, uint8_t v)
{
    if (!rtc_ticking(r)) {
        r->cmos[cell] = v;
        return;
    }
    rtc_to_cells(r);
    r->cmos[cell] = v;
    rtc_from_cells(r, rtc_now(r).ns);
}

static void rtc_write(struct rtc *r, unsigned cell, uint8_t v)
{
    rtc_update(r);
    if (cell == REG_A)
        rtc_write_a(r, v);
    else if (cell == REG_B)
        rtc_write_b(r, v);
    else if (rtc_is_time_cell(cell))
        rtc_write_time(r, cell, v);
    else if (cell != REG_C && cell != REG_D)
        r->cmos[cell] = v;
    rtc_update(r);
}

static uint8_t rtc_read_c(struct rtc *r)
{
    uint8_t v = r->cmos[REG_C];

    r->cmos[REG_C] = 0;
    rtc_update(r);
    return v;
}

static uint8_t rtc_read(struct rtc *r, unsigned cell)
{
    rtc_update(r);
    if (cell == REG_C)
        return rtc_read_c(r);
    if (rtc_ticking(r) && rtc_is_time_cell(cell))
        rtc_to_cells(r);
    if (cell == REG_A && rtc_ticking(r) && rtc_now(r).ns >= NSEC_PER_SEC - RTC_UIP_NS)
        return r->cmos[REG_A] | A_UIP;
    return r->cmos[cell];
}

static uint64_t rtc_bus_read(void *dev, uint64_t off, unsigned size)
{
    struct rtc *r = dev;
    return off ? rtc_read(r, r->index) : 0xff; /* the index cannot be read */
}

static void rtc_bus_write(void *dev, uint64_t off, uint64_t value, unsigned size)
{
    struct rtc *r = dev;

    if (off)
        rtc_write(r, r->index, (uint8_t)value);
    else
        r->index = value & 0x7f; /* bit 7 would mask NMI, which this machine has no source for */
}

static const struct bus_ops rtc_bus = {
    .read = rtc_bus_read, .write = rtc_bus_write, .min_size = 1, .max_size = 1
};

/* ---- the host's side ---- */

void rtc_set_cmos(struct rtc *r, uint8_t cell, uint8_t value)
{
    if (cell > REG_D && cell < sizeof(r->cmos) && cell != RTC_CENTURY)
        r->cmos[cell] = value;
}

static void rtc_set_cmos16(struct rtc *r, uint8_t cell, uint64_t value)
{
    if (value > 0xffff)
        value = 0xffff;
    rtc_set_cmos(r, cell, (uint8_t)value);
    rtc_set_cmos(r, cell + 1, (uint8_t)(value >> 8));
}

void rtc_set_memory(struct rtc *r, uint64_t below_4g, uint64_t above_4g)
{
    uint64_t mib = 1ULL << 20, above_1m = below_4g > mib ? below_4g - mib : 0;
    uint64_t above_16m = below_4g > 16 * mib ? below_4g - 16 * mib : 0;
    uint64_t high = above_4g >> 16;

    rtc_set_cmos16(r, 0x15, 640);
    rtc_set_cmos16(r, 0x17, above_1m >> 10);
    rtc_set_cmos16(r, 0x30, above_1m >> 10);
    rtc_set_cmos16(r, 0x34, above_16m >> 16);
    rtc_set_cmos(r, 0x5b, (uint8_t)high);
    rtc_set_cmos(r, 0x5c, (uint8_t)(high >> 8));
    rtc_set_cmos(r, 0x5d, (uint8_t)(high >> 16));
}

void rtc_connect_alarm(struct rtc *r, struct irq_line alarm) { r->alarm = alarm; }

void rtc_block_irq(void *opaque, unsigned pin, bool on)
{
    struct rtc *r = opaque;

    r->irq_blocked = on;
    rtc_drive(r);
}

/* ---- life cycle ---- */

static void rtc_reset(void *dev)
{
    struct rtc *r = dev;

    /* The battery keeps the time and the memory. RESET clears interrupt enables and flags. */
    r->cmos[REG_B] &= ~(B_PIE | B_AIE | B_UIE | B_SQWE);
    r->cmos[REG_C] = 0;
    r->index = 0;
    r->irq_blocked = false;
    rtc_update(r);
}

void rtc_init(struct rtc *r, struct loop *loop, struct irq_line irq)
{
    *r = (struct rtc){
        .loop = loop,
        .irq = irq,
        .divider_base = clock_ns(loop->clock),
        .ports = { .base = 0x70, .len = 2, .ops = &rtc_bus, .dev = r, .name = "rtc" },
    };
    r->cmos[REG_A] = A_RUN_1024HZ;
    r->cmos[REG_B] = B_24H;
    r->cmos[REG_D] = D_VALID;
    timer_init(&r->timer, loop, rtc_expire, r);
    r->seen_second = (uint64_t)rtc_now(r).sec;
    rtc_to_cells(r);
}

int rtc_attach(struct rtc *r, struct bus *io) { return bus_add(io, &r->ports); }

static void rtc_pause(void *dev) { timer_cancel(&((struct rtc *)dev)->timer); }

static void rtc_resume(void *dev)
{
    struct rtc *r = dev;

    irq_set(&r->irq, r->irq_level);
    rtc_schedule(r);
}

static int rtc_check(void *obj, struct err *err)
{
    struct rtc *r = obj;
    int64_t offset = (int64_t)r->offset;

    if (r->index > 0x7f || r->offset_ns >= NSEC_PER_SEC || r->weekday_shift > 6)
        return err_set(err, EINVAL, "RTC: impossible index, weekday or part of a second");
    int64_t seen = (int64_t)r->seen_second;
    if (offset > RTC_MAX_OFFSET || offset < -RTC_MAX_OFFSET || seen > 2 * RTC_MAX_OFFSET ||
        seen < -2 * RTC_MAX_OFFSET)
        return err_set(err, EINVAL, "RTC: the time is set more than ten thousand years away");
    r->cmos[REG_A] &= ~A_UIP;
    r->cmos[REG_D] = D_VALID;
    return 0;
}

static const struct state_field rtc_fields[] = {
    STATE_FBYTES(struct rtc, cmos),       STATE_F8(struct rtc, index),
    STATE_F64(struct rtc, offset),        STATE_F32(struct rtc, offset_ns),
    STATE_F64(struct rtc, seen_second),   STATE_F64(struct rtc, divider_base),
    STATE_F64(struct rtc, seen_periods),  STATE_F8(struct rtc, weekday_shift),
    STATE_FBOOL(struct rtc, irq_blocked), STATE_FBOOL(struct rtc, irq_level),
    STATE_FBOOL(struct rtc, alarm_level), STATE_END,
};
static const struct state_desc rtc_state = {
    .name = "mc146818", .version = 1, .size = sizeof(struct rtc), .fields = rtc_fields, .check = rtc_check
};

const struct device_ops rtc_ops = {
    .type = "mc146818",
    .reset = rtc_reset,
    .pause = rtc_pause,
    .resume = rtc_resume,
    .destroy = rtc_pause,
    .state = &rtc_state,
};
