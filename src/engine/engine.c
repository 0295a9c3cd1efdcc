/* Life cycle of an engine and what all engines share: kicking and waiting vCPUs.
 *
 * Locks: none. A halted vCPU sleeps on its attention word (futex(2)): who sets a bit there sees that it sleeps, or it sees the bit. */
#include "engine/engine.h"

#include <errno.h>
#include <linux/futex.h>
#include <stddef.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "engine/trace.h"

const struct engine_counter engine_counters[] = {
#define X(field, what) { #field, what, offsetof(struct engine_stats, field) },
    ENGINE_COUNTERS(X)
#undef X
    { NULL, NULL, 0 },
};

int engine_init(struct engine *e, const struct engine_ops *ops, struct ram *ram, struct err *err)
{
    memset(e, 0, sizeof(*e));
    e->ops = ops;
    e->ram = ram;
    pthread_mutex_init(&e->quiesce.lock, NULL);
    return ops->init ? ops->init(e, err) : 0;
}

void engine_fini(struct engine *e)
{
    for (unsigned n = 0; n < e->nvcpus; n++) {
        e->ops->vcpu_fini(e->vcpu[n]);
        engine_profile_destroy(e->vcpu[n]);
    }
    e->nvcpus = 0;
    if (e->ops->fini)
        e->ops->fini(e);
    pthread_mutex_destroy(&e->quiesce.lock);
}

int engine_add_vcpu(struct engine *e, struct vcpu *v, struct err *err)
{
    if (e->nvcpus == MAX_VCPUS)
        return err_set(err, ENOSPC, "a machine has at most %d vCPUs", MAX_VCPUS);
    v->engine = e;
    v->cpu.vcpu = v;
    if (!engine_profile_create(v))
        return err_set(err, ENOMEM, "out of memory for the counters of a vCPU");
    int r = e->ops->vcpu_init(v, err);
    if (r == 0)
        e->vcpu[e->nvcpus++] = v;
    else
        engine_profile_destroy(v);
    return r;
}

void vcpu_wake(struct vcpu *v)
{
    if (atomic_load(&v->asleep))
        syscall(SYS_futex, &v->cpu.attention, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

void vcpu_kick(struct vcpu *v, uint32_t attention)
{
    cpu_attention(&v->cpu, attention);
    vcpu_wake(v);
}

static struct timespec vcpu_in(uint64_t ns)
{
    uint64_t t = clock_host_ns(CLOCK_MONOTONIC) + ns;

    return (struct timespec){ .tv_sec = (time_t)(t / NSEC_PER_SEC), .tv_nsec = (long)(t % NSEC_PER_SEC) };
}

bool vcpu_wait(struct vcpu *v, uint64_t ns)
{
    struct timespec until = ns ? vcpu_in(ns) : (struct timespec){ 0 };
    bool late = false;

    kvmpv_idle(&v->cpu);
    quiesce_leave(v);
    atomic_store(&v->asleep, true);
    while (!atomic_load(&v->cpu.attention) && !late)
        late = syscall(SYS_futex, &v->cpu.attention, FUTEX_WAIT_BITSET_PRIVATE, 0, ns ? &until : NULL, NULL, FUTEX_BITSET_MATCH_ANY) < 0 &&
               errno == ETIMEDOUT;
    atomic_store(&v->asleep, false);
    quiesce_enter(v);
    kvmpv_busy(&v->cpu);
    return !late;
}

uint64_t vcpu_run_ns(struct cpu *cpu)
{
    const struct vcpu *v = cpu->vcpu;
    return clock_host_ns(CLOCK_THREAD_CPUTIME_ID) + v->elsewhere_ns;
}
