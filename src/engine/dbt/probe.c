/* Can the translator work on this host? What it cannot do without: the instructions that it emits, memory that may be written in one place
 * and executed in another, and 512 GiB of address space that nobody must back. Each may be missing: an old CPU, vm.memfd_noexec, a limit
 * (ulimit -v), vm.overcommit_memory=2.
 *
 * Thread: any, before there is a machine. */
#include <asm/prctl.h>
#include <cpuid.h>
#include <errno.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/err.h"
#include "base/map.h"
#include "engine/dbt/dbt.h"

/* PEXT, PDEP, RORX (BMI2), and LAHF in 64-bit code (SDM vol. 2A, CPUID). */
static bool probe_cpu(void)
{
    unsigned a, b, c, d;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & bit_BMI2) && __get_cpuid(0x80000001, &a, &b, &c, &d) && (c & bit_LAHF_LM);
}

static bool probe_space(void)
{
    void *p = map_memory(FLAT_BYTES);
    if (!p)
        return false;
    munmap(p, FLAT_BYTES);
    return true;
}

static bool probe_code(void)
{
    struct dbt *t = map_memory(sizeof(*t)); /* 1.4 MiB, of which little is touched: on the stack, or in the heap, it would stay */
    bool ok = t && dbt_code_init(t);
    if (t) {
        dbt_code_fini(t);
        munmap(t, sizeof(*t));
    }
    return ok;
}

/* A sandbox may refuse arch_prctl(). */
static bool probe_gs(void)
{
    unsigned long gs;
    return syscall(SYS_arch_prctl, ARCH_GET_GS, &gs) == 0 && syscall(SYS_arch_prctl, ARCH_SET_GS, gs) == 0;
}

int dbt_probe(struct err *err)
{
    if (!probe_cpu())
        return err_set(err, ENOTSUP, "this CPU has no BMI2 instructions");
    if (!probe_gs())
        return err_set(err, EPERM, "arch_prctl() is not allowed here");
    if (!probe_space())
        return err_set(err, ENOMEM, "512 GiB of address space cannot be reserved (see 'ulimit -v' and vm.overcommit_memory)");
    if (!probe_code())
        return err_set(err, ENOMEM, "memory for generated code cannot be had (see 'ulimit -v' and vm.memfd_noexec)");
    return 0;
}
