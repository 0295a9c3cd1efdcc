/* The frequency of the host's time-stamp counter. See host.h.
 *
 * Sources: perf_event_open(2) (what the kernel itself multiplies the TSC by, in the page of any event), Intel SDM vol. 2, CPUID leaf 15H and 80000007H,
 * VMware's and KVM's leaf 40000010H. What CPUID says is believed if a measurement agrees: a hypervisor may show the leaves of a CPU whose TSC it scales.
 *
 * Thread: any, before the sandbox closes.
 */
#include <cpuid.h>
#include <linux/perf_event.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "machine/host.h"

#define TSC_KHZ_MIN  100000ULL
#define TSC_KHZ_MAX  10000000ULL
#define TSC_MEASURE  2000000ULL /* ns */
#define TSC_READINGS 100

/* It runs at one rate, on all CPUs alike. Virtual machines do not always see the CPU's word for it, but their kernel would not keep time by another one. */
static bool tsc_is_steady(void)
{
    uint32_t a, b, c, d;
    char text[32] = "";
    FILE *f;

    if (__get_cpuid(0x80000007, &a, &b, &c, &d) && (d >> 8 & 1))
        return true;
    f = fopen("/sys/devices/system/clocksource/clocksource0/current_clocksource", "re");
    if (f && !fgets(text, sizeof(text), f))
        text[0] = 0;
    if (f)
        fclose(f);
    return !strcmp(text, "tsc\n") || !strcmp(text, "kvm-clock\n");
}

/* The kernel's own factor: ns = (ticks * time_mult) >> time_shift. */
static uint64_t tsc_from_kernel(void)
{
    struct perf_event_attr attr = { .type = PERF_TYPE_SOFTWARE, .size = sizeof(attr), .config = PERF_COUNT_SW_DUMMY, .disabled = 1, .exclude_kernel = 1,
                                    .exclude_hv = 1 };
    int fd = (int)syscall(SYS_perf_event_open, &attr, 0, -1, -1, PERF_FLAG_FD_CLOEXEC);
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    uint64_t khz = 0;

    if (fd < 0)
        return 0;
    const struct perf_event_mmap_page *p = mmap(NULL, page, PROT_READ, MAP_SHARED, fd, 0);
    if (p != MAP_FAILED) {
        if (p->cap_user_time && p->time_mult && p->time_shift < 44) /* 10^6 << 43 fits */
            khz = ((1000000ULL << p->time_shift) + p->time_mult / 2) / p->time_mult;
        munmap((void *)(uintptr_t)p, page);
    }
    close(fd);
    return khz;
}

/* A reading of both clocks: the one of a few that took the shortest. */
static void tsc_read(uint64_t *ticks, uint64_t *ns)
{
    uint64_t best = UINT64_MAX;

    for (unsigned n = 0; n < TSC_READINGS; n++) {
        __builtin_ia32_lfence();
        uint64_t before = __builtin_ia32_rdtsc(), now = clock_host_ns(CLOCK_MONOTONIC_RAW);
        __builtin_ia32_lfence();
        uint64_t took = __builtin_ia32_rdtsc() - before;
        if (took < best) {
            best = took;
            *ticks = before + took / 2;
            *ns = now;
        }
    }
}

static uint64_t tsc_measured(void)
{
    const struct timespec pause = { 0, TSC_MEASURE };
    uint64_t ticks[2] = { 0 }, ns[2] = { 0 };

    tsc_read(&ticks[0], &ns[0]);
    nanosleep(&pause, NULL);
    tsc_read(&ticks[1], &ns[1]);
    return ns[1] > ns[0] ? muldiv64(ticks[1] - ticks[0], 1000000, ns[1] - ns[0]) : 0;
}

static uint64_t tsc_from_cpuid(void)
{
    uint32_t a, b, c, d;

    if (__get_cpuid(0x15, &a, &b, &c, &d) && a && b && c)
        return muldiv64(c, b, a) / 1000;
    __cpuid(1, a, b, c, d);
    if (!(c >> 31 & 1))
        return 0;
    __cpuid(0x40000000, a, b, c, d);
    if (a < 0x40000010 || a > 0x400000ff)
        return 0;
    __cpuid(0x40000010, a, b, c, d);
    return a;
}

uint64_t host_tsc_khz(const char **how)
{
    uint64_t khz = 0, said;

    *how = "the TSC does not run steadily here";
    if (!tsc_is_steady())
        return 0;
    *how = "by the kernel's word";
    khz = tsc_from_kernel();
    if (!khz) {
        *how = "measured";
        khz = tsc_measured();
        said = tsc_from_cpuid();
        if (said > khz - khz / 1000 && said < khz + khz / 1000) {
            *how = "by CPUID";
            khz = said;
        }
    }
    if (khz >= TSC_KHZ_MIN && khz <= TSC_KHZ_MAX)
        return khz & ~1ULL; /* Linux halves what kvmclock shows it, and doubles it again */
    *how = "its frequency could not be found out";
    return 0;
}
