/* vitro doctor: what this host offers, for people and for scripts. Thread: the main thread. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "block/uring.h"
#include "cli/cli.h"
#include "engine/direct/direct.h"
#include "engine/engine.h"
#include "machine/host.h"
#include "machine/sandbox.h"

void cmd_doctor_help(void)
{
    puts("Looks at /dev/kvm (and runs a guest of a few instructions in it, to see whether it is hardware), "
         "the\n"
         "CPU's features, x86-64 level and TSC, the memory, the sandbox, io_uring and KSM (--dedup); says which engine 'auto' takes and why, and whether\n"
         "user code runs by itself.\n\n"
         "  --json    the same as one JSON object");
}

/* One sentence about KVM. */
static void doctor_kvm(const struct host_kvm *k, char *out, size_t len)
{
    if (!k->present)
        snprintf(out, len, "no: there is no /dev/kvm%s",
                 k->cpu_virt ? ", though the CPU offers vmx or svm" : "");
    else if (!k->measured)
        snprintf(out, len, "not usable: %s", k->trouble);
    else if (k->hardware)
        snprintf(out, len, "yes, in hardware: API %d, an exit takes %.0f ns", k->api, k->exit_ns);
    else
        snprintf(out, len, "only in software: API %d, a loop that the CPU runs in 1 ns a round takes %.0f ns",
                 k->api, k->loop_ns);
}

static const char *const doctor_ksm[] = { [HOST_KSM_NONE] = "no: this kernel merges no pages (KSM)",
                                          [HOST_KSM_OFF] = "KSM is off: --dedup merges nothing until 1 is written to /sys/kernel/mm/ksm/run",
                                          [HOST_KSM_ON] = "KSM runs: pages of machines with --dedup are merged" };

/* How user code of a fresh machine runs (docs/design/direct.md); false: not by itself. */
static bool doctor_user(char *out, size_t len)
{
    bool faults;
    int r = direct_probe(&faults);

    if (r < 0)
        snprintf(out, len, "is translated: this host lets no process be traced: %s", strerror(-r));
    else
        snprintf(out, len, "runs by itself%s", faults ? "" : "; CPUID does not fault here, so pages of code that have it get breakpoints");
    return r == 0;
}

static void doctor_text(const struct host_info *h, const char *kvm, const char *sandbox, const char *aio, const char *why)
{
    char user[160];
    const char *how;
    uint64_t tsc = host_tsc_khz(&how);

    printf("CPU        %s\n", h->cpu_name[0] ? h->cpu_name : "unknown");
    printf("level      %s\n", h->level[0] ? h->level : "below x86-64-v1");
    printf("features   %s\n", h->features);
    printf("CPUs       %u\n", h->cpus);
    printf("memory     %llu MiB, %llu MiB available\n", (unsigned long long)(h->mem_total >> 20),
           (unsigned long long)(h->mem_available >> 20));
    printf("host       %s\n", h->hypervisor ? "a virtual machine itself" : "bare metal, or does not tell");
    if (tsc)
        printf("TSC        %llu.%03llu MHz, %s\n", (unsigned long long)(tsc / 1000), (unsigned long long)(tsc % 1000), how);
    else
        printf("TSC        not for guests: %s\n", how);
    printf("KVM        %s\n", kvm);
    printf("sandbox    %s\n", sandbox);
    printf("disks      %s\n", aio);
    printf("dedup      %s\n", doctor_ksm[host_ksm()]);
    printf("engine     auto takes %s\n", why);
    doctor_user(user, sizeof(user));
    printf("user code  %s\n", user);
}

static json_t *doctor_disks(bool ring, const char *says)
{
    return json_pack("{s:b, s:s}", "io_uring", ring, "says", says);
}

static json_t *doctor_sandbox(const struct sandbox_host *s, const char *says)
{
    return json_pack("{s:b, s:i, s:s}", "seccomp", s->seccomp, "landlock", s->landlock, "says", says);
}

/* Takes sandbox and disks over. */
static int doctor_json(const struct host_info *h, const char *kvm, json_t *sandbox, json_t *disks, const char *engine,
                       const char *why)
{
    char user[160];
    const char *how;
    bool direct = doctor_user(user, sizeof(user));
    json_t *root = json_pack("{s:s, s:s, s:s, s:i, s:I, s:I, s:b, s:I, s:b, s:s, s:s, s:b, s:s}", "cpu", h->cpu_name, "level",
                             h->level, "features", h->features, "cpus", (int)h->cpus, "memory_total",
                             (json_int_t)h->mem_total, "memory_available", (json_int_t)h->mem_available,
                             "hypervisor", h->hypervisor, "tsc_khz", (json_int_t)host_tsc_khz(&how), "ksm", host_ksm() == HOST_KSM_ON, "engine", engine, "engine_why", why,
                             "direct", direct, "direct_says", user);
    json_t *k =
        json_pack("{s:b, s:i, s:b, s:b, s:b, s:f, s:f, s:s}", "present", h->kvm.present, "api", h->kvm.api,
                  "cpu_virtualisation", h->kvm.cpu_virt, "measured", h->kvm.measured, "hardware",
                  h->kvm.hardware, "exit_ns", h->kvm.exit_ns, "loop_ns", h->kvm.loop_ns, "says", kvm);
    char *text = NULL;

    if (root && k && sandbox && disks && json_object_set(root, "kvm", k) == 0 &&
        json_object_set(root, "sandbox", sandbox) == 0 && json_object_set(root, "disks", disks) == 0)
        text = json_dumps(root, JSON_INDENT(2));
    json_decref(k);
    json_decref(sandbox);
    json_decref(disks);
    json_decref(root);
    if (!text)
        return cli_failf("out of memory");
    puts(text);
    free(text);
    return CLI_OK;
}

int cmd_doctor(int argc, char **argv)
{
    const struct engine_ops *ops;
    struct err err = { "" };
    struct host_info h;
    struct sandbox_host s;
    char kvm[256], sandbox[256], aio[128], why[256];
    bool json, ring;

    if (cli_only_json(argc, argv, "doctor", &json))
        return CLI_ERROR;
    host_probe(&h);
    doctor_kvm(&h.kvm, kvm, sizeof(kvm));
    sandbox_probe(&s);
    sandbox_describe(&s, sandbox, sizeof(sandbox));
    ring = uring_probe(aio, sizeof(aio));
    if (host_pick_engine("auto", &ops, why, sizeof(why), &err) < 0)
        return cli_fail(json, &err);
    if (json)
        return doctor_json(&h, kvm, doctor_sandbox(&s, sandbox), doctor_disks(ring, aio), ops->name, why);
    doctor_text(&h, kvm, sandbox, aio, why);
    return CLI_OK;
}
