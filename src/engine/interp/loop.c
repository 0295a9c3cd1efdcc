/* The interpreter's loop: blocks, events between them, and faults out of them.
 *
 * Thread: the vCPU's. A fault leaves its handler by siglongjmp() to interp_run(), which delivers it and
 * goes on; delivery may fault itself and comes back the same way. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/err.h"
#include "base/loop.h"
#include "base/map.h"
#include "engine/interp/interp.h"
#include "engine/trace.h"
#include "x86/debug.h"
#include "x86/lapic.h"
#include "x86/seg.h"

enum { UNWIND_FAULT = 1, UNWIND_LEAVE_BLOCK = 2 };

/* What is left of a block whose code was just overwritten: go on from here with a fresh look. */
static void op_stale(struct cpu *cpu, const struct insn *i)
{
    cpu->r[R_RIP] = cpu->start_rip;
    siglongjmp(*cpu->unwind, UNWIND_LEAVE_BLOCK);
}

void interp_stale_current(struct interp *it)
{
    struct block *b = it->current;
    for (unsigned n = 0; b && n < b->n; n++)
        b->insn[n].fn = op_stale;
}

static void interp_run_block(struct cpu *cpu, const struct block *b)
{
    const struct insn *i = b->insn, *end = i + b->n;
    do {
        uint64_t rip = cpu->r[R_RIP];
        cpu->start_rip = rip;
        cpu->insn = i;
        cpu->r[R_RIP] = rip + i->len;
        i->fn(cpu, i);
    } while (++i != end);
    cpu->insns += b->n;
}

static void interp_run_blocks(struct interp *it, struct cpu *cpu)
{
    while (likely(!interp_special(it, cpu))) {
        struct block *b = cache_lookup(it, cpu);
        if (unlikely(!b)) {
            interp_step(it, cpu);
            continue;
        }
        if (it->translator && it->translator->run(it, cpu, b))
            continue;
        it->current = b;
        interp_run_block(cpu, b);
    }
}

static void interp_take_init(struct vcpu *v)
{
    struct cpu *cpu = &v->cpu;
    loop_lock(cpu->loop);
    cpu_init(cpu);
    lapic_reset_init(cpu->lapic);
    loop_unlock(cpu->loop);
    cpu->activity = cpu->apic_base & APIC_BASE_BSP ? CPU_RUNNING : CPU_WAIT_SIPI;
    mmu_flush_all(cpu);
}

static void interp_take_sipi(struct cpu *cpu)
{
    if (cpu->activity != CPU_WAIT_SIPI)
        return;
    cpu->seg[SEG_CS].sel = (uint16_t)(cpu->sipi_vector << 8);
    cpu->seg[SEG_CS].base = (uint64_t)cpu->sipi_vector << 12;
    cpu->r[R_RIP] = 0;
    cpu->activity = CPU_RUNNING;
    cpu_update_mode(cpu);
}

static void interp_interrupt(struct cpu *cpu, unsigned vector, enum int_kind kind)
{
    cpu->activity = CPU_RUNNING;
    cpu->start_rip = cpu->r[R_RIP];
    cpu->insn = NULL;
    ((struct vcpu *)cpu->vcpu)->stats.interrupts++;
    if (unlikely(((struct vcpu *)cpu->vcpu)->engine->trace))
        engine_trace_interrupt(cpu->vcpu, vector);
    cpu_interrupt(cpu, vector, kind, false, 0);
}

/* The vector to deliver now, or -1. Asks the local APIC first, then the 8259 pair through it. */
static int interp_ack(struct cpu *cpu)
{
    int vector = -1;
    loop_lock(cpu->loop);
    if (lapic_pending(cpu->lapic))
        vector = lapic_ack(cpu->lapic);
    if (vector < 0 && lapic_accepts_pic(cpu->lapic) && cpu->ops->pic_ack) {
        vector = cpu->ops->pic_ack(cpu);
        lapic_pic_taken(cpu->lapic);
    }
    loop_unlock(cpu->loop);
    return vector;
}

static void interp_take_interrupts(struct interp *it, struct cpu *cpu)
{
    if (cpu->activity > CPU_HALTED || cpu->shadow)
        return;
    if (cpu->nmi_pending && !cpu->nmi_blocked) {
        cpu->nmi_pending = false;
        cpu->nmi_blocked = true;
        interp_interrupt(cpu, VEC_NMI, INT_HARD);
        return;
    }
    if (!it->irq_hold || !(cpu->rflags & FL_IF))
        return;
    int vector = interp_ack(cpu);
    if (vector < 0)
        it->irq_hold = false;
    else
        interp_interrupt(cpu, (unsigned)vector, INT_HARD);
}

static void interp_take_drop(struct interp *it)
{
    if (!atomic_load_explicit(&it->drop_all, memory_order_acquire))
        return;
    atomic_store(&it->drop_all, false);
    cache_drop_all(it);
}

/* Whoever moved something goes on when no vCPU uses the old place any more: all are stopped once, and forget it before they go on. */
static void interp_take_move(struct vcpu *v)
{
    mmu_flush_all(&v->cpu);
    quiesce_begin(v);
    quiesce_end(v);
}

/* Attention bits to action. True: leave run(). */
static bool interp_attention(struct interp *it, struct vcpu *v)
{
    struct cpu *cpu = &v->cpu;
    uint32_t att = atomic_exchange_explicit(&cpu->attention, 0, memory_order_acquire);
    if (att & ATT_QUIESCE) {
        quiesce_leave(v);
        quiesce_enter(v);
    }
    interp_take_drop(it);
    if (att & ATT_MOVED)
        interp_take_move(v);
    if (att & ATT_INIT)
        interp_take_init(v);
    if (att & ATT_SIPI)
        interp_take_sipi(cpu);
    if (att & ATT_NMI)
        cpu->nmi_pending = true;
    if (att & ATT_IRQ) {
        it->irq_hold = true;
        kvmpv_tick(cpu);
    }
    return att & ATT_EXIT;
}

/* An instruction boundary at which something is to be done. True: leave run(). */
static bool interp_boundary(struct interp *it, struct vcpu *v)
{
    struct cpu *cpu = &v->cpu;
    it->current = NULL;
    if (atomic_load_explicit(&cpu->attention, memory_order_relaxed) && interp_attention(it, v))
        return true;
    if (it->irq_hold || cpu->nmi_pending)
        interp_take_interrupts(it, cpu);
    if (cpu->activity == CPU_HALTED && kvmpv_take_kick(cpu))
        cpu->activity = CPU_RUNNING;
    if (cpu->activity == CPU_RUNNING) {
        if (!cpu->step && !cpu->data_bp)
            cpu->rflags &= ~FL_RF; /* there is no breakpoint for it to hold back */
        if (cpu->shadow || cpu->step || cpu->data_bp || (cpu->rflags & (FL_TF | FL_RF)))
            interp_step(it, cpu);
        return false;
    }
    if (!atomic_load(&cpu->attention) && !(it->irq_hold && (cpu->rflags & FL_IF)))
        rest_sleep(it);
    return false;
}

static enum vcpu_exit interp_run(struct vcpu *v)
{
    struct interp *it = v->cpu.engine;
    struct cpu *cpu = &v->cpu;
    volatile enum vcpu_exit why = EXIT_KICK; /* lives across siglongjmp() */

    cpu->unwind = &it->unwind;
    quiesce_enter(v);
    interp_take_drop(it); /* the machine may have been reset, and its attention with it */
    it->began = true;
    if (sigsetjmp(it->unwind, 0) == UNWIND_FAULT) {
        it->current = NULL;
        v->stats.faults++;
        if (unlikely(v->engine->trace))
            engine_trace_exception(v);
        if (!cpu_deliver_event(cpu))
            why = EXIT_SHUTDOWN;
    }
    if (cpu->activity == CPU_SHUTDOWN)
        why = EXIT_SHUTDOWN;
    while (why != EXIT_SHUTDOWN) {
        interp_run_blocks(it, cpu);
        if (interp_boundary(it, v))
            break;
    }
    quiesce_leave(v);
    return why;
}

static void interp_tlb_flushed(struct cpu *cpu, const struct tlb_flush *f)
{
    struct interp *it = cpu->engine;
    struct engine_stats *stats = &it->vcpu->stats;
    stats->flush_all += f->kind == TLB_FLUSH_ALL;
    stats->flush_context += f->kind == TLB_FLUSH_PCID || f->kind == TLB_FLUSH_NONGLOBAL;
    stats->flush_page += f->kind == TLB_FLUSH_PAGE || f->kind == TLB_FLUSH_PAGE_PCID;
    cache_flushed(it, f);
}

static void interp_context_switched(struct cpu *cpu)
{
    struct interp *it = cpu->engine;
    it->vcpu->stats.switches++;
    cache_switched(it);
}

static void interp_write_protected(struct cpu *cpu, uint64_t gpa)
{
    struct interp *it = cpu->engine;
    it->vcpu->stats.protections++;
    if (it->translator && it->translator->protected)
        it->translator->protected(it, gpa);
}

/* ITLB keys carry privilege and code size: nothing to drop. */
static void interp_mode_changed(struct cpu *cpu) {}

static void interp_exclusive_begin(struct cpu *cpu) { quiesce_begin(cpu->vcpu); }
static void interp_exclusive_end(struct cpu *cpu) { quiesce_end(cpu->vcpu); }

/* The machine's callbacks (I/O, MMIO, PIC), completed by the engine's own. */
static void interp_fill_ops(const struct cpu_ops *machine, struct cpu_ops *all)
{
    *all = *machine;
    all->code_write = cache_code_write;
    all->exclusive_begin = interp_exclusive_begin;
    all->exclusive_end = interp_exclusive_end;
    all->tlb_flushed = interp_tlb_flushed;
    all->context_switched = interp_context_switched;
    all->write_protected = interp_write_protected;
    all->mode_changed = interp_mode_changed;
    all->run_ns = vcpu_run_ns;
}

static void interp_vcpu_fini(struct vcpu *v)
{
    struct interp *it = v->cpu.engine;
    if (!it)
        return;
    hostexec_destroy(it->hx);
    cache_fini(it);
    munmap(it, INTERP_BYTES);
    v->cpu.engine = NULL;
}

static int interp_vcpu_init(struct vcpu *v, struct err *err)
{
    struct interp *it = map_memory_at(INTERP_BYTES, 0); /* where there may be a large page later (cache.c) */
    if (!it)
        return err_set(err, ENOMEM, "out of memory for a vCPU");
    it->vcpu = v;
    v->cpu.engine = it;
    it->hx = hostexec_create();
    if (!it->hx || cache_init(it) < 0 || cache_shared_map(v->engine) < 0) {
        interp_vcpu_fini(v);
        return err_set(err, ENOMEM, "out of memory for the interpreter's code cache");
    }
    interp_fill_ops(v->cpu.ops, &it->ops);
    v->cpu.ops = &it->ops;
    return 0;
}

static int interp_init(struct engine *e, struct err *err)
{
    if (cache_shared_init(e) < 0)
        return err_set(err, ENOMEM, "out of memory for the interpreter");
    return 0;
}

static void interp_invalidate(struct engine *e, uint64_t gpa, uint64_t len)
{
    for (unsigned n = 0; n < e->nvcpus; n++) {
        mmu_flush_all(&e->vcpu[n]->cpu);
        cache_drop_all(e->vcpu[n]->cpu.engine);
    }
}

const struct engine_ops engine_interp = {
    .name = "interp",
    .init = interp_init,
    .fini = cache_shared_fini,
    .vcpu_init = interp_vcpu_init,
    .vcpu_fini = interp_vcpu_fini,
    .run = interp_run,
    .invalidate = interp_invalidate,
};
