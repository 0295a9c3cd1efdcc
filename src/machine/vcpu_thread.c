/* One host thread a vCPU: run the engine, stand still when the machine does, and the machine's side of what a
 * CPU does outside itself (ports, device memory, the 8259 pair).
 *
 * Locks: life.lock guards whether the machine runs; the bus takes the device lock around devices.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <time.h>

#include "base/err.h"
#include "base/log.h"
#include "base/thread.h"
#include "machine/vm.h"

#define VCPU_NAP_MAX 100000 /* us */
#define VCPU_GRACE   10     /* s: longer than this no vCPU takes to stop, unless something is wrong with vitro */

/* -- what a CPU does outside itself -- */

static struct vm_vcpu *vcpu_thread_of(struct cpu *cpu)
{
    return container_of(container_of(cpu, struct vcpu, cpu), struct vm_vcpu, vcpu);
}

static void vcpu_trace(struct cpu *cpu, unsigned what, const char *op, uint64_t addr, unsigned size,
                       uint64_t value)
{
    struct vm *vm = vcpu_thread_of(cpu)->vm;

    if (unlikely(vm->cfg->trace & what))
        log_msg(LOG_INFO, "trace: cpu %u %016" PRIx64 ": %s %" PRIx64 "/%u %" PRIx64, cpu->index,
                cpu->start_rip, op, addr, size, value);
}

static uint64_t vcpu_io_in(struct cpu *cpu, uint16_t port, unsigned size)
{
    uint64_t value = bus_read(&vcpu_thread_of(cpu)->vm->io, port, size);

    vcpu_thread_of(cpu)->vcpu.stats.ports++;
    vcpu_trace(cpu, TRACE_IO, "in", port, size, value);
    return value;
}

static void vcpu_io_out(struct cpu *cpu, uint16_t port, uint64_t value, unsigned size)
{
    vcpu_thread_of(cpu)->vcpu.stats.ports++;
    vcpu_trace(cpu, TRACE_IO, "out", port, size, value);
    bus_write(&vcpu_thread_of(cpu)->vm->io, port, value, size);
}

/* The local APIC's page is each CPU's own, and movable; it hides what else is there (SDM vol. 3, 11.4.1). */
static bool vcpu_is_lapic(const struct cpu *cpu, uint64_t gpa, unsigned size)
{
    uint64_t mode = cpu->apic_base & (APIC_BASE_EN | APIC_BASE_X2);

    return mode == APIC_BASE_EN &&
           !((gpa ^ cpu->apic_base) & ~0xfffULL & ((1ULL << cpu->cpuid->phys_bits) - 1)) &&
           (gpa & 0xfff) + size <= 0x1000;
}

static uint64_t vcpu_mmio_read(struct cpu *cpu, uint64_t gpa, unsigned size)
{
    uint64_t value;

    vcpu_thread_of(cpu)->vcpu.stats.mmio++;
    if (vcpu_is_lapic(cpu, gpa, size)) {
        loop_lock(cpu->loop);
        value = lapic_mmio_read(cpu->lapic, gpa & 0xfff, size);
        loop_unlock(cpu->loop);
    } else {
        value = bus_read(&vcpu_thread_of(cpu)->vm->mmio, gpa, size);
    }
    vcpu_trace(cpu, TRACE_MMIO, "read", gpa, size, value);
    return value;
}

static void vcpu_mmio_write(struct cpu *cpu, uint64_t gpa, uint64_t value, unsigned size)
{
    vcpu_thread_of(cpu)->vcpu.stats.mmio++;
    vcpu_trace(cpu, TRACE_MMIO, "write", gpa, size, value);
    if (vcpu_is_lapic(cpu, gpa, size)) {
        loop_lock(cpu->loop);
        lapic_mmio_write(cpu->lapic, gpa & 0xfff, value, size);
        loop_unlock(cpu->loop);
    } else {
        bus_write(&vcpu_thread_of(cpu)->vm->mmio, gpa, value, size);
    }
}

/* Called with the device lock held. */
static int vcpu_pic_ack(struct cpu *cpu)
{
    struct vm *vm = vcpu_thread_of(cpu)->vm;

    return pic_pending(&vm->pic) ? pic_ack(&vm->pic) : -1;
}

static void vcpu_ferr(struct cpu *cpu, bool level)
{
    loop_lock(cpu->loop);
    fpu_error_ferr(&vcpu_thread_of(cpu)->vm->fpu_error, level);
    loop_unlock(cpu->loop);
}

const struct cpu_ops vcpu_thread_ops = {
    .io_in = vcpu_io_in,
    .io_out = vcpu_io_out,
    .mmio_read = vcpu_mmio_read,
    .mmio_write = vcpu_mmio_write,
    .pic_ack = vcpu_pic_ack,
    .ferr = vcpu_ferr,
};

/* -- entry state -- */

static void vcpu_set_seg(struct seg *s, const struct boot_seg *b)
{
    s->base = b->base;
    s->limit = b->limit;
    s->sel = b->selector;
    s->attr = (uint16_t)(b->type | (b->s ? ATTR_S : 0) | b->dpl << ATTR_DPL_SHIFT | (b->p ? ATTR_P : 0) |
                         (b->avl ? ATTR_AVL : 0) | (b->l ? ATTR_L : 0) | (b->db ? ATTR_DB : 0) |
                         (b->g ? ATTR_G : 0));
}

void vcpu_set_entry(struct cpu *cpu, const struct boot_entry *e)
{
    const struct boot_seg *from[SEG_COUNT] = {
        [SEG_ES] = &e->es, [SEG_CS] = &e->cs, [SEG_SS] = &e->ss,
        [SEG_DS] = &e->ds, [SEG_FS] = &e->fs, [SEG_GS] = &e->gs,
    };

    for (unsigned n = 0; n < SEG_COUNT; n++)
        vcpu_set_seg(&cpu->seg[n], from[n]);
    vcpu_set_seg(&cpu->tr, &e->tr);
    vcpu_set_seg(&cpu->ldtr, &e->ldt);
    cpu->gdtr = (struct dtr){ .base = e->gdt_base, .limit = e->gdt_limit };
    cpu->idtr = (struct dtr){ .base = e->idt_base, .limit = e->idt_limit };
    cpu->cr0 = e->cr0;
    cpu->cr3 = e->cr3;
    cpu->cr4 = e->cr4;
    cpu->efer = e->efer;
    cpu->r[RAX] = e->rax;
    cpu->r[RBX] = e->rbx;
    cpu->r[RCX] = e->rcx;
    cpu->r[RDX] = e->rdx;
    cpu->r[RSI] = e->rsi;
    cpu->r[RDI] = e->rdi;
    cpu->r[RBP] = e->rbp;
    cpu->r[RSP] = e->rsp;
    cpu->r[R_RIP] = e->rip;
    cpu->activity = CPU_RUNNING;
    cpu_set_rflags(cpu, e->rflags);
}

/* -- the threads -- */

/* Stand until the machine runs; false when it ends. */
static bool vcpu_thread_stand(struct vm_life *life)
{
    bool quit;

    pthread_mutex_lock(&life->lock);
    life->standing++;
    pthread_cond_signal(&life->idle);
    while (!life->run && !life->quit)
        pthread_cond_wait(&life->go, &life->lock);
    life->standing--;
    quit = life->quit;
    pthread_mutex_unlock(&life->lock);
    return !quit;
}

static bool vcpu_thread_may_run(struct vm_life *life)
{
    bool run;

    pthread_mutex_lock(&life->lock);
    run = life->run && !life->quit;
    pthread_mutex_unlock(&life->lock);
    return run;
}

/* Somebody wants this vCPU to be slower: it sleeps once for each kick. */
static void vcpu_thread_nap(struct vm_life *life)
{
    unsigned us = atomic_load(&life->nap_us);
    struct timespec t = { .tv_nsec = (long)(us < VCPU_NAP_MAX ? us : VCPU_NAP_MAX) * 1000 };

    if (us)
        nanosleep(&t, NULL);
}

static enum vcpu_exit vcpu_thread_run(struct vm_vcpu *v)
{
    vcpu_thread_nap(&v->vm->life);
    return v->vm->engine.ops->run(&v->vcpu);
}

static void *vcpu_thread_main(void *arg)
{
    struct vm_vcpu *v = arg;
    struct vm *vm = v->vm;
    void *stack = console_stack_init();

    while (vcpu_thread_stand(&vm->life)) {
        enum vcpu_exit why = EXIT_KICK;

        while (why == EXIT_KICK && vcpu_thread_may_run(&vm->life))
            why = vcpu_thread_run(v);
        if (why != EXIT_SHUTDOWN)
            continue;
        if (vm->cfg->trace & TRACE_EXITS)
            log_msg(LOG_INFO, "trace: cpu %u: triple fault at %016" PRIx64, v->vcpu.cpu.index,
                    v->vcpu.cpu.r[R_RIP]);
        vm_request(vm, VM_REQ_TRIPLE); /* also stops this one, until the machine is reset */
    }
    console_stack_fini(stack);
    return NULL;
}

static void vcpu_thread_begin(void *arg)
{
    struct vm_vcpu *v = arg;

    if (v->vm->engine.ops->vcpu_begin)
        v->vm->engine.ops->vcpu_begin(&v->vcpu);
}

int vcpu_threads_start(struct vm *vm, struct err *err)
{
    for (unsigned n = 0; n < vm->nvcpus; n++) {
        struct vm_vcpu *v = vm->vcpu[n];
        int r = thread_start_before(&v->thread, GUARD_VCPU, vcpu_thread_begin, vcpu_thread_main, v);

        v->has_thread = r == 0;
        if (r < 0) {
            vcpu_threads_join(vm);
            return err_set(err, -r, "cannot start a thread for vCPU %u: %s", n, strerror(-r));
        }
    }
    return 0;
}

static void vcpu_threads_kick(struct vm *vm)
{
    for (unsigned n = 0; n < vm->nvcpus; n++)
        vcpu_kick(&vm->vcpu[n]->vcpu, ATT_EXIT);
}

static struct timespec vcpu_grace(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    t.tv_sec += VCPU_GRACE;
    return t;
}

void vcpu_threads_join(struct vm *vm)
{
    struct timespec until = vcpu_grace();

    pthread_mutex_lock(&vm->life.lock);
    vm->life.quit = true;
    pthread_cond_broadcast(&vm->life.go);
    pthread_mutex_unlock(&vm->life.lock);
    vcpu_threads_kick(vm);
    for (unsigned n = 0; n < vm->nvcpus; n++) {
        while (vm->vcpu[n]->has_thread && pthread_clockjoin_np(vm->vcpu[n]->thread, NULL, CLOCK_MONOTONIC, &until) == ETIMEDOUT) {
            vm_stuck(vm);
            until = vcpu_grace();
        }
        vm->vcpu[n]->has_thread = false;
    }
}

void vcpu_threads_halt(struct vm *vm)
{
    struct timespec until = vcpu_grace();

    pthread_mutex_lock(&vm->life.lock);
    vm->life.run = false;
    pthread_mutex_unlock(&vm->life.lock);
    vcpu_threads_kick(vm);
    pthread_mutex_lock(&vm->life.lock);
    while (vm->life.standing < vm->nvcpus) {
        if (pthread_cond_clockwait(&vm->life.idle, &vm->life.lock, CLOCK_MONOTONIC, &until) != ETIMEDOUT)
            continue;
        vm_stuck_if_ending(vm);
        until = vcpu_grace();
    }
    pthread_mutex_unlock(&vm->life.lock);
}

void vcpu_threads_go(struct vm *vm)
{
    pthread_mutex_lock(&vm->life.lock);
    vm->life.run = true;
    pthread_cond_broadcast(&vm->life.go);
    pthread_mutex_unlock(&vm->life.lock);
}
