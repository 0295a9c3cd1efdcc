/* Is there KVM, and is it hardware? /dev/kvm alone does not tell: it may be emulated by a software
 * hypervisor. So a real-mode guest of a few instructions is run and timed.
 *
 * Source: the kernel's Documentation/virt/kvm/api.rst. Thread: any, no locks. The probe cannot hang: the
 * guest's work is bounded, and a timer's signal is not needed because each KVM_RUN ends with the guest's own
 * port access.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/clock.h"
#include "machine/host.h"

#define PROBE_GPA       0x1000
#define PROBE_EXITS     2000
#define PROBE_LOOPS     65536 /* rounds of the inner loop before each exit */
#define PROBE_RUNS      64
#define PROBE_BUDGET_NS 50e6 /* an emulated KVM can be a thousand times slower than hardware */
/* A round of dec+jnz takes one or two clock cycles; what needs ten times that is not the CPU itself. */
#define PROBE_HARDWARE_NS 10.0

/* 1000: out 0x10, al; jmp 1000.   1010: xor cx, cx; dec cx; jnz; out 0x10, al; jmp 1010 */
static const uint8_t probe_exits[] = { 0xe6, 0x10, 0xeb, 0xfc };
static const uint8_t probe_loop[] = { 0x31, 0xc9, 0x49, 0x75, 0xfd, 0xe6, 0x10, 0xeb, 0xf7 };

struct probe {
    int kvm, vm, vcpu;
    uint8_t *ram;
    struct kvm_run *run;
    size_t run_size;
};

static bool probe_cpu_virt(void)
{
    char line[4096];
    bool found = false;
    FILE *f = fopen("/proc/cpuinfo", "re");

    while (f && !found && fgets(line, sizeof(line), f))
        found = !strncmp(line, "flags", 5) && (strstr(line, " vmx") || strstr(line, " svm"));
    if (f)
        fclose(f);
    return found;
}

static int probe_open(struct probe *p)
{
    struct kvm_userspace_memory_region mem = { .slot = 0, .guest_phys_addr = PROBE_GPA, .memory_size = 4096 };
    int size;

    p->vm = ioctl(p->kvm, KVM_CREATE_VM, 0);
    if (p->vm < 0)
        return -errno;
    p->ram = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p->ram == MAP_FAILED)
        return -errno;
    mem.userspace_addr = (uintptr_t)p->ram;
    memcpy(p->ram, probe_exits, sizeof(probe_exits));
    memcpy(p->ram + 16, probe_loop, sizeof(probe_loop));
    if (ioctl(p->vm, KVM_SET_USER_MEMORY_REGION, &mem) < 0)
        return -errno;
    p->vcpu = ioctl(p->vm, KVM_CREATE_VCPU, 0);
    size = ioctl(p->kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
    if (p->vcpu < 0 || size < (int)sizeof(*p->run))
        return -(errno ? errno : EIO);
    p->run_size = (size_t)size;
    p->run = mmap(NULL, p->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, p->vcpu, 0);
    return p->run == MAP_FAILED ? -errno : 0;
}

static void probe_close(struct probe *p)
{
    if (p->run != MAP_FAILED)
        munmap(p->run, p->run_size);
    if (p->ram != MAP_FAILED)
        munmap(p->ram, 4096);
    if (p->vcpu >= 0)
        close(p->vcpu);
    if (p->vm >= 0)
        close(p->vm);
    close(p->kvm);
}

/* Start in real mode at CS 0. */
static int probe_start_at(struct probe *p, uint16_t ip)
{
    struct kvm_regs regs = { .rip = ip, .rflags = 2 };
    struct kvm_sregs sregs;

    if (ioctl(p->vcpu, KVM_GET_SREGS, &sregs) < 0)
        return -errno;
    sregs.cs.base = 0;
    sregs.cs.selector = 0;
    if (ioctl(p->vcpu, KVM_SET_SREGS, &sregs) < 0 || ioctl(p->vcpu, KVM_SET_REGS, &regs) < 0)
        return -errno;
    return 0;
}

/* Nanoseconds a run, over at most runs of them, or a negative number. */
static double probe_time(struct probe *p, uint16_t ip, unsigned runs)
{
    double start, spent = 0;
    unsigned done = 0;

    if (probe_start_at(p, ip) < 0 || ioctl(p->vcpu, KVM_RUN, 0) < 0) /* one to warm up */
        return -1;
    start = (double)clock_host_ns(CLOCK_MONOTONIC);
    while (done < runs && spent < PROBE_BUDGET_NS) {
        if (ioctl(p->vcpu, KVM_RUN, 0) < 0 || p->run->exit_reason != KVM_EXIT_IO)
            return -1;
        done++;
        spent = (double)clock_host_ns(CLOCK_MONOTONIC) - start;
    }
    return spent / done;
}

void host_probe_kvm(struct host_kvm *k)
{
    struct probe p = { .kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC), .vm = -1, .vcpu = -1 };
    int r;

    p.ram = MAP_FAILED;
    p.run = MAP_FAILED;
    k->open_errno = p.kvm < 0 ? errno : 0;
    k->present = k->open_errno != ENOENT;
    k->cpu_virt = probe_cpu_virt();
    if (p.kvm < 0) {
        snprintf(k->trouble, sizeof(k->trouble), "/dev/kvm: %s", strerror(k->open_errno));
        return;
    }
    k->api = ioctl(p.kvm, KVM_GET_API_VERSION, 0);
    r = probe_open(&p);
    if (r < 0) {
        snprintf(k->trouble, sizeof(k->trouble), "/dev/kvm is there, but makes no guest: %s", strerror(-r));
    } else {
        k->exit_ns = probe_time(&p, PROBE_GPA, PROBE_EXITS);
        k->loop_ns = probe_time(&p, PROBE_GPA + 16, PROBE_RUNS) / PROBE_LOOPS;
        k->measured = k->exit_ns > 0 && k->loop_ns > 0;
        k->hardware = k->measured && k->loop_ns < PROBE_HARDWARE_NS;
        if (!k->measured)
            snprintf(k->trouble, sizeof(k->trouble), "/dev/kvm is there, but its guest does not run");
    }
    probe_close(&p);
}
