/* What this host offers: KVM, CPU, memory; and which engine follows from that. For `vitro doctor` and
 * `--engine auto`.
 *
 * Thread: any, no locks. Nothing here depends on a machine.
 */
#ifndef VITRO_MACHINE_HOST_H
#define VITRO_MACHINE_HOST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;
struct engine_ops;

struct host_kvm {
    bool present;      /* /dev/kvm exists */
    int open_errno;    /* 0: it can be opened */
    int api;           /* KVM_GET_API_VERSION; 12 is the only one in use */
    bool cpu_virt;     /* /proc/cpuinfo has vmx or svm: the CPU offers hardware virtualisation */
    bool measured;     /* a small guest ran: */
    double exit_ns;    /*   time of one port access that leaves the guest */
    double loop_ns;    /*   time of one round of a two-instruction loop */
    bool hardware;     /* the measured loop runs at the CPU's own speed */
    char trouble[128]; /* why nothing was measured, or "" */
};

struct host_info {
    struct host_kvm kvm;
    char cpu_name[64];
    char level[16];                    /* "x86-64-v3": the highest that a guest can be given */
    char features[512];                /* names with spaces between */
    bool hypervisor;                   /* the host is a virtual machine itself */
    unsigned cpus;                     /* that this process may use */
    uint64_t mem_total, mem_available; /* bytes */
};

void host_probe(struct host_info *h);

/* Does the kernel merge equal pages of processes that allow it (Linux, admin-guide/mm/ksm.rst)? */
enum host_ksm { HOST_KSM_NONE, HOST_KSM_OFF, HOST_KSM_ON };
enum host_ksm host_ksm(void);

/* Frequency of the time-stamp counter, where it runs at one rate on all CPUs alike, and how it was found out (a few words); else 0, and why not. Takes 2 ms
 * where neither kernel nor CPU tell (host_tsc.c). */
uint64_t host_tsc_khz(const char **how);

/* The KVM part alone (kvm_probe.c): runs a guest of a few instructions if it can. */
void host_probe_kvm(struct host_kvm *k);

/* The engines that are built in, ending with NULL. */
extern const struct engine_ops *const host_engines[];

/* The engine that name ("auto", "interp", "kvm", "dbt") means on this host. On success why (a sentence
 * without a full stop) says what was taken and why. -errno with a sentence: the engine that was named is
 * not there, or does not work on this host. Never another engine than the one that was named. */
int host_pick_engine(const char *name, const struct engine_ops **ops, char *why, size_t why_len,
                     struct err *err);

#endif
