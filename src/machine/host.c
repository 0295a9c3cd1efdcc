/* Looking at the host. See host.h. Sources: /proc/cpuinfo, /proc/meminfo, CPUID (SDM vol. 2A). */
#include "machine/host.h"

#include <cpuid.h>
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/err.h"
#include "engine/engine.h"
#include "x86/cpuid.h"

enum { HOST_EAX, HOST_EBX, HOST_ECX, HOST_EDX };

struct host_feature {
    const char *name;
    uint32_t leaf, subleaf;
    uint8_t reg, bit;
};

static const struct host_feature host_features[] = {
    { "sse3", 1, 0, HOST_ECX, 0 },
    { "pclmulqdq", 1, 0, HOST_ECX, 1 },
    { "ssse3", 1, 0, HOST_ECX, 9 },
    { "fma", 1, 0, HOST_ECX, 12 },
    { "cx16", 1, 0, HOST_ECX, 13 },
    { "sse4.1", 1, 0, HOST_ECX, 19 },
    { "sse4.2", 1, 0, HOST_ECX, 20 },
    { "movbe", 1, 0, HOST_ECX, 22 },
    { "popcnt", 1, 0, HOST_ECX, 23 },
    { "aes", 1, 0, HOST_ECX, 25 },
    { "xsave", 1, 0, HOST_ECX, 26 },
    { "avx", 1, 0, HOST_ECX, 28 },
    { "f16c", 1, 0, HOST_ECX, 29 },
    { "rdrand", 1, 0, HOST_ECX, 30 },
    { "fsgsbase", 7, 0, HOST_EBX, 0 },
    { "bmi1", 7, 0, HOST_EBX, 3 },
    { "avx2", 7, 0, HOST_EBX, 5 },
    { "bmi2", 7, 0, HOST_EBX, 8 },
    { "avx512f", 7, 0, HOST_EBX, 16 },
    { "avx512dq", 7, 0, HOST_EBX, 17 },
    { "rdseed", 7, 0, HOST_EBX, 18 },
    { "adx", 7, 0, HOST_EBX, 19 },
    { "sha", 7, 0, HOST_EBX, 29 },
    { "avx512bw", 7, 0, HOST_EBX, 30 },
    { "avx512vl", 7, 0, HOST_EBX, 31 },
    { "gfni", 7, 0, HOST_ECX, 8 },
    { "vaes", 7, 0, HOST_ECX, 9 },
    { "vpclmulqdq", 7, 0, HOST_ECX, 10 },
    { "rdpid", 7, 0, HOST_ECX, 22 },
    { "lzcnt", 0x80000001, 0, HOST_ECX, 5 },
    { "rdtscp", 0x80000001, 0, HOST_EDX, 27 },
};

static bool host_has(const struct host_feature *f)
{
    uint32_t r[4];

    return __get_cpuid_count(f->leaf, f->subleaf, &r[0], &r[1], &r[2], &r[3]) && (r[f->reg] >> f->bit & 1);
}

static void host_probe_features(struct host_info *h)
{
    static const struct host_feature hypervisor = { "hypervisor", 1, 0, HOST_ECX, 31 };
    size_t len = 0;

    h->hypervisor = host_has(&hypervisor);
    for (size_t i = 0; i < ARRAY_LEN(host_features); i++) {
        if (host_has(&host_features[i]) && len < sizeof(h->features))
            len += (size_t)snprintf(h->features + len, sizeof(h->features) - len, "%s%s", len ? " " : "",
                                    host_features[i].name);
    }
}

static void host_probe_name(struct host_info *h)
{
    uint32_t r[12];
    char text[sizeof(r) + 1] = "";
    const char *p = text;

    for (unsigned i = 0; i < 3; i++) {
        if (!__get_cpuid(0x80000002 + i, &r[4 * i], &r[4 * i + 1], &r[4 * i + 2], &r[4 * i + 3]))
            return;
    }
    memcpy(text, r, sizeof(r));
    while (*p == ' ')
        p++;
    snprintf(h->cpu_name, sizeof(h->cpu_name), "%s", p);
    for (size_t n = strlen(h->cpu_name); n > 0 && h->cpu_name[n - 1] == ' '; n--)
        h->cpu_name[n - 1] = 0;
}

/* The highest level for which a guest's CPUID table can be built: one definition of the levels, in
 * x86/cpuid.c. */
static void host_probe_level(struct host_info *h)
{
    static const char *const level[] = { "x86-64-v4", "x86-64-v3", "x86-64-v2", "x86-64-v1" };
    struct cpuid_table *t = calloc(1, sizeof(*t));

    for (size_t i = 0; t && i < ARRAY_LEN(level); i++) {
        if (cpuid_build(t, level[i], 1, 1000000, NULL) == 0) {
            snprintf(h->level, sizeof(h->level), "%s", level[i]);
            break;
        }
    }
    free(t);
}

static void host_probe_memory(struct host_info *h)
{
    FILE *f = fopen("/proc/meminfo", "re");
    char line[128];
    unsigned long long kib;

    while (f && fgets(line, sizeof(line), f)) {
        if (sscanf(line, "MemTotal: %llu kB", &kib) == 1)
            h->mem_total = kib << 10;
        else if (sscanf(line, "MemAvailable: %llu kB", &kib) == 1)
            h->mem_available = kib << 10;
    }
    if (f)
        fclose(f);
}

enum host_ksm host_ksm(void)
{
    FILE *f = fopen("/sys/kernel/mm/ksm/run", "re");
    int run = -1;

    if (f && fscanf(f, "%d", &run) != 1)
        run = -1;
    if (f)
        fclose(f);
    return run < 0 ? HOST_KSM_NONE : run == 1 ? HOST_KSM_ON : HOST_KSM_OFF;
}

void host_probe(struct host_info *h)
{
    cpu_set_t set;

    memset(h, 0, sizeof(*h));
    host_probe_kvm(&h->kvm);
    host_probe_name(h);
    host_probe_features(h);
    host_probe_level(h);
    host_probe_memory(h);
    h->cpus = sched_getaffinity(0, sizeof(set), &set) == 0 ? (unsigned)CPU_COUNT(&set) : 1;
}

/* What is built in; `auto` takes the first. */
const struct engine_ops *const host_engines[] = { &engine_dbt, &engine_interp, NULL };

static const struct engine_ops *host_find_engine(const char *name)
{
    for (unsigned n = 0; host_engines[n]; n++) {
        if (!strcmp(host_engines[n]->name, name))
            return host_engines[n];
    }
    return NULL;
}

/* The first that works; reason: why not the ones before it, or "". */
static const struct engine_ops *host_auto_engine(struct err *reason)
{
    reason->text[0] = 0;
    for (unsigned n = 0; host_engines[n]; n++) {
        struct err err = { "" };

        if (!host_engines[n]->probe || host_engines[n]->probe(&err) == 0)
            return host_engines[n];
        if (!reason->text[0])
            *reason = err;
    }
    return NULL;
}

static int host_named_engine(const char *name, const struct engine_ops **ops, struct err *err)
{
    struct err reason = { "" };
    int r;

    *ops = host_find_engine(name);
    if (!*ops)
        return err_set(
            err, ENOTSUP,
            "engine '%s' is not built into this version: see 'vitro version', or use --engine auto", name);
    r = (*ops)->probe ? (*ops)->probe(&reason) : 0;
    if (r < 0)
        return err_set(err, -r, "engine '%s' does not work here: %s; use --engine auto", name, reason.text);
    return 0;
}

int host_pick_engine(const char *name, const struct engine_ops **ops, char *why, size_t why_len,
                     struct err *err)
{
    struct err reason;
    int r;

    if (strcmp(name, "auto") != 0) {
        r = host_named_engine(name, ops, err);
        if (r == 0)
            snprintf(why, why_len, "%s: as asked for", (*ops)->name);
        return r;
    }
    *ops = host_auto_engine(&reason);
    if (!*ops)
        return err_set(err, ENOTSUP, "no engine works here: %s", reason.text);
    if (reason.text[0])
        snprintf(why, why_len, "%s, which is slow: %s does not work here: %s", (*ops)->name, host_engines[0]->name, reason.text);
    else
        snprintf(why, why_len, "%s: the fastest engine that works on this host", (*ops)->name);
    return 0;
}
